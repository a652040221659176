//! Trees of reasons and of cells.

use std::fmt::Write;

use serde_json::json;
use underbelly::{Lineage, Why};

use super::{Cell, TreeFormat};
use crate::error::Failed;
use crate::output::{print, print_json};

/// One line for each node, joined to the one above it. `line` answers a node's text and children.
fn drawn<T>(node: &T, line: &impl Fn(&T) -> (String, &[T])) -> String {
    fn below<T>(text: &mut String, children: &[T], indent: &str, line: &impl Fn(&T) -> (String, &[T])) {
        for (i, child) in children.iter().enumerate() {
            let last = i + 1 == children.len();
            let (own, more) = line(child);
            let (branch, under) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            // Writing to a string does not fail.
            let _ = writeln!(text, "{indent}{branch}{own}");
            below(text, more, &format!("{indent}{under}"), line);
        }
    }
    let (own, children) = line(node);
    let mut text = own + "\n";
    below(&mut text, children, "", line);
    text
}

/// Prints why a cell is as it is.
pub(super) fn why(why: &Why, format: TreeFormat) -> Result<(), Failed> {
    fn nested(why: &Why) -> serde_json::Value {
        json!({ "text": why.text, "children": why.children.iter().map(nested).collect::<Vec<_>>() })
    }
    match format {
        TreeFormat::Text => print(&drawn(why, &|why: &Why| (why.text.clone(), &why.children))),
        TreeFormat::Json => print_json(&nested(why)),
    }
}

/// Prints the cells behind a cell.
pub(super) fn lineage(cell: &Cell, found: Option<Lineage>, format: TreeFormat) -> Result<(), Failed> {
    fn nested(node: &Lineage) -> serde_json::Value {
        json!({
            "slot": node.slot,
            "date": node.date.to_string(),
            "key": node.key.to_string(),
            "state": node.state.name(),
            "producer": node.producer,
            "children": node.children.iter().map(nested).collect::<Vec<_>>(),
        })
    }
    let Some(found) = found else {
        let key = cell.key.as_deref().unwrap_or_default();
        let (name, date) = (&cell.name, cell.date);
        return Err(Failed::NotFound(format!(
            "slot {name:?} has no cell for {date} {key:?}; `ubctl slot why` explains it"
        )));
    };
    let line = |node: &Lineage| {
        let key = node.key.to_string();
        let gap = if key.is_empty() { "" } else { " " };
        let by = node.producer.as_ref().map(|name| format!(" (through {name})")).unwrap_or_default();
        format!("{} {}{gap}{key}: {}{by}", node.slot, node.date, node.state)
    };
    match format {
        TreeFormat::Text => print(&drawn(&found, &|node: &Lineage| (line(node), &node.children))),
        TreeFormat::Json => print_json(&nested(&found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_join_their_parents() {
        let leaf = |text: &str| Why { text: text.to_string(), children: Vec::new() };
        let middle = Why { text: "b".to_string(), children: vec![leaf("c"), leaf("d")] };
        let root = Why { text: "a".to_string(), children: vec![middle, leaf("e")] };
        let text = drawn(&root, &|why: &Why| (why.text.clone(), &why.children));
        assert_eq!(text, "a\n├─ b\n│  ├─ c\n│  └─ d\n└─ e\n");
    }
}
