//! Slots and producers, and what leads where.

mod dot;
mod layout;
mod svg;
mod text;

pub use dot::graph_dot;
pub use svg::graph_svg;
pub use text::graph_text;

use underbelly::{EdgeRole, Mode, PStatus, ProducerNode, Timestamp};

use crate::words::{age, count, number};

/// What stands beside an edge whose line does not tell all; empty otherwise.
fn label(role: &EdgeRole) -> String {
    match role {
        EdgeRole::Input { lag, broadcast, .. } => {
            let lag = if *lag > 0 { format!("lag {lag}") } else { String::new() };
            let every = if *broadcast { "broadcast" } else { "" };
            [lag.as_str(), every].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
        }
        EdgeRole::Output { priority: 0 } => String::new(),
        EdgeRole::Output { priority } => format!("priority {priority}"),
    }
}

/// An edge in words, for titles.
fn sentence(role: &EdgeRole, from: &str, to: &str) -> String {
    let label = label(role);
    let more = if label.is_empty() { label } else { format!(", {label}") };
    match role {
        EdgeRole::Input { mode, .. } => {
            let mode = match mode {
                Mode::Required => "required",
                Mode::Optional => "optional",
                Mode::Exclusive => "exclusive",
            };
            format!("{from} is an input of {to}: {mode}{more}")
        }
        EdgeRole::Output { .. } => format!("{from} provides {to}{more}"),
    }
}

/// What is open or went wrong at a producer; work that is done is not told.
struct Work {
    /// In flight, ready and notified.
    open: Vec<String>,
    /// Waits for its inputs, or gave nothing.
    rest: Vec<String>,
    failed: Option<String>,
}

fn work(producer: &ProducerNode, now: Timestamp) -> Work {
    let mut work = Work { open: Vec::new(), rest: Vec::new(), failed: None };
    for (status, bundles) in &producer.bundles {
        let told = format!("{} {status}", count(*bundles));
        match status {
            PStatus::Done => {}
            PStatus::Failed => work.failed = Some(told),
            PStatus::Processing => {
                let since = producer.running_since.map(|since| format!(" for {}", age(since, now)));
                work.open.push(format!("{} running{}", count(*bundles), since.unwrap_or_default()));
            }
            status if status.is_open() => work.open.push(told),
            _ => work.rest.push(told),
        }
    }
    work
}

/// The runs of a producer.
fn runs(producer: &ProducerNode) -> String {
    number(producer.runs, "run", "runs")
}
