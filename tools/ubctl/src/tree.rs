//! Trees of reasons and of cells, as joined lines for people and as JSON for programs.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::{Value, json};
use underbelly::{Extent, Lineage, Mode, Why};

use crate::error::Failed;
use crate::output::{print, print_json, printable};

/// The form of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TreeFormat {
    /// Indented lines.
    #[default]
    Text,
    /// Nested objects; what a node does not have is null, and `more` counts what was left out under it.
    Json,
}

/// The options that every tree takes.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct TreeArgs {
    /// The form of the output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: TreeFormat,
    /// Levels under the first line; deeper ones than 256 are not shown
    #[arg(long, default_value_t = Extent::default().depth, value_name = "LEVELS")]
    depth: usize,
    /// Lines under each line; what is left out is counted
    #[arg(long, default_value_t = Extent::default().children, value_name = "LINES")]
    limit: usize,
}

impl TreeArgs {
    pub(crate) fn extent(self) -> Extent {
        Extent { depth: self.depth, children: self.limit }
    }
}

/// One line for each node, joined to the one above it. `line` answers a node's text and children, and what is left
/// out behind them.
fn drawn<T>(node: &T, line: &impl Fn(&T) -> (String, &[T], u64)) -> String {
    fn below<T>(
        text: &mut String,
        (children, more): (&[T], u64),
        indent: &str,
        line: &impl Fn(&T) -> (String, &[T], u64),
    ) {
        for (i, child) in children.iter().enumerate() {
            let last = i + 1 == children.len() && more == 0;
            let (own, behind, more) = line(child);
            let (branch, under) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{indent}{branch}{}", printable(&own));
            below(text, (behind, more), &format!("{indent}{under}"), line);
        }
        if more > 0 {
            let _ = writeln!(text, "{indent}└─ … {more} more");
        }
    }
    let (own, children, more) = line(node);
    let mut text = printable(&own).into_owned() + "\n";
    below(&mut text, (children, more), "", line);
    text
}

/// Prints why a thing is as it is.
pub(crate) fn why(why: &Why, format: TreeFormat) -> Result<(), Failed> {
    fn nested(why: &Why) -> Value {
        json!({
            "kind": why.kind.name(),
            "text": why.text,
            "slot": why.slot,
            "producer": why.producer,
            "date": why.date.map(|date| date.to_string()),
            "key": why.key.as_ref().map(ToString::to_string),
            "sid": why.sid.map(|sid| sid.0),
            "state": why.state.map(|state| state.name()),
            "status": why.status.map(|status| status.name()),
            "g": why.generation,
            "priority": why.priority,
            "seq": why.seq,
            "run": why.run.map(|run| run.0),
            "more": why.more,
            "children": why.children.iter().map(nested).collect::<Vec<_>>(),
        })
    }
    match format {
        // Its sentences say what was left out.
        TreeFormat::Text => print(&drawn(why, &|why: &Why| (why.text.clone(), &why.children, 0))),
        TreeFormat::Json => print_json(&nested(why)),
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Required => "required",
        Mode::Optional => "optional",
        Mode::Exclusive => "exclusive",
    }
}

/// Prints what a cell was made from.
pub(crate) fn upstream(found: &Lineage, format: TreeFormat) -> Result<(), Failed> {
    lineage(found, format, |node, producer, input| {
        let read = match (node.read, node.mode) {
            (Some(read), _) => format!("generation {read} read"),
            (None, Some(Mode::Required)) => "not read yet".to_string(),
            // Also what a run looked for beside its inputs.
            (None, _) => "found absent".to_string(),
        };
        format!(", {read} by {producer}{input}")
    })
}

/// Prints what was made from a cell.
pub(crate) fn downstream(found: &Lineage, format: TreeFormat) -> Result<(), Failed> {
    lineage(found, format, |node, producer, input| match (node.read, node.mode) {
        (Some(read), _) => format!(", made by {producer} from generation {read}{input}"),
        (None, Some(Mode::Required)) => format!(", made by {producer}, which has not read it{input}"),
        (None, _) => format!(", made by {producer}, which found it absent{input}"),
    })
}

/// `told` says how a producer leads to a node, given its name and the way in which it reads.
fn lineage(
    found: &Lineage,
    format: TreeFormat,
    told: impl Fn(&Lineage, &str, &str) -> String,
) -> Result<(), Failed> {
    fn nested(node: &Lineage) -> Value {
        json!({
            "kind": if node.sid.is_some() { "cell" } else { "scope" },
            "slot": node.slot,
            "date": node.date.to_string(),
            "key": node.key.as_ref().map(ToString::to_string),
            "sid": node.sid.map(|sid| sid.0),
            "state": node.state.map(|state| state.name()),
            "g": node.generation,
            "seq": node.seq,
            "priority": node.priority,
            "producer": node.producer,
            "input": node.input,
            "mode": node.mode.map(mode_name),
            "read": node.read,
            "run": node.run.map(|run| run.0),
            "repeated": node.repeated,
            "more": node.more,
            "children": node.children.iter().map(nested).collect::<Vec<_>>(),
        })
    }
    let line = |node: &Lineage| {
        let mut text = format!("{} {}", node.slot, node.date);
        match (&node.key, node.state) {
            (Some(key), Some(state)) => {
                let gap = if key.values().is_empty() { "" } else { " " };
                let _ = write!(text, "{gap}{key}: {state}, generation {}", node.generation);
            }
            _ => {
                let _ = write!(text, ": all cells, generation {} of the set", node.generation);
            }
        }
        if let Some(producer) = &node.producer {
            let mut input = String::new();
            if let Some(name) = node.input.as_ref().filter(|name| **name != node.slot) {
                let _ = write!(input, " as {name}");
            }
            if let Some(mode) = node.mode.filter(|mode| *mode != Mode::Required) {
                let _ = write!(input, " ({})", mode_name(mode));
            }
            text += &told(node, producer, &input);
        }
        if let Some(run) = node.run {
            let _ = write!(text, "; run {run} is in flight");
        }
        if node.repeated {
            text += "; shown elsewhere";
        }
        text
    };
    match format {
        TreeFormat::Text => print(&drawn(found, &|node: &Lineage| (line(node), &node.children, node.more))),
        TreeFormat::Json => print_json(&nested(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node(&'static str, u64, Vec<Node>);

    #[test]
    fn branches_join_their_parents_and_what_is_left_out_is_told() {
        let middle = Node("b", 7, vec![Node("c", 0, vec![]), Node("d", 2, vec![])]);
        let root = Node("a", 0, vec![middle, Node("e", 0, vec![])]);
        let text = drawn(&root, &|node: &Node| (node.0.to_string(), &node.2, node.1));
        assert_eq!(text, "a\n├─ b\n│  ├─ c\n│  ├─ d\n│  │  └─ … 2 more\n│  └─ … 7 more\n└─ e\n");
    }
}
