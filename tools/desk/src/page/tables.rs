//! Tables of figures.

use super::svg::{count, escape, number};
use std::fmt::Write;

/// Cells of one slot by state.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotRow {
    /// Name of the slot.
    pub slot: String,
    /// Name of the state and count.
    pub cells: Vec<(String, u64)>,
}

/// Runs of one producer.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Name of the producer.
    pub producer: String,
    /// Runs that gave a result.
    pub done: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that found nothing to produce.
    pub declined: u64,
}

/// Times of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyRow {
    /// Name of the step.
    pub step: String,
    /// Measurements.
    pub count: u64,
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
}

/// Opens a table with its heading.
fn open(out: &mut String, title: &str, columns: &[&str]) {
    let _ = write!(
        out,
        "<section class=\"card\"><h3>{}</h3><div class=\"scroll\"><table><thead><tr>",
        escape(title)
    );
    for column in columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(column));
    }
    out.push_str("</tr></thead><tbody>");
}

fn row(out: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
    for cell in cells {
        let class = if cell == "0" { " class=\"zero0\"" } else { "" };
        let _ = write!(out, "<td{class}>{}</td>", escape(&cell));
    }
    out.push_str("</tr>");
}

fn close(out: &mut String) {
    out.push_str("</tbody></table></div></section>");
}

/// Slots by state; only states that occur have a column.
pub(super) fn slots(out: &mut String, slots: &[SlotRow]) {
    let mut states: Vec<&str> = Vec::new();
    for (state, _) in slots.iter().flat_map(|s| &s.cells).filter(|c| c.1 > 0) {
        if !states.contains(&state.as_str()) {
            states.push(state);
        }
    }
    let mut columns = vec!["slot"];
    columns.extend(&states);
    open(out, "Slots by state", &columns);
    for slot in slots {
        let cells = states.iter().map(|state| {
            count(slot.cells.iter().filter(|c| c.0 == *state).fold(0u64, |sum, c| sum.saturating_add(c.1)))
        });
        row(out, &slot.slot, cells);
    }
    close(out);
}

/// Runs by producer.
pub(super) fn runs(out: &mut String, runs: &[RunRow]) {
    open(out, "Runs by producer", &["producer", "completed", "declined", "failed"]);
    for run in runs {
        row(out, &run.producer, [run.done, run.declined, run.failed].into_iter().map(count));
    }
    close(out);
}

/// Latencies by step.
pub(super) fn latencies(out: &mut String, rows: &[LatencyRow]) {
    open(out, "Time per step", &["step", "count", "p50", "p99"]);
    for latency in rows {
        let cells = [count(latency.count), duration(latency.p50_us), duration(latency.p99_us)];
        row(out, &latency.step, cells.into_iter());
    }
    close(out);
}

/// Microseconds in a readable unit.
fn duration(us: f64) -> String {
    match us {
        us if !us.is_finite() => "–".to_string(),
        us if us < 1_000.0 => format!("{} µs", number(us, usize::from(us < 100.0))),
        us if us < 1_000_000.0 => format!("{} ms", number(us / 1_000.0, 1)),
        us => format!("{} s", number(us / 1_000_000.0, 1)),
    }
}
