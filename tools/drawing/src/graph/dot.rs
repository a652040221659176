//! Slots and producers for Graphviz.

use std::fmt::Write;

use underbelly::{EdgeRole, GraphNode, GraphView, Mode, NodeKind, Timestamp};

use super::{label, runs, sentence, work};
use crate::escape::{quoted, xml};
use crate::palette::{counted, letter, light};
use crate::words::{changed, number};

/// Text in an HTML-like label.
fn text(text: &str) -> String {
    // Graphviz refuses an empty text.
    if text.is_empty() { " ".to_string() } else { xml(text) }
}

fn slot_label(node: &GraphNode, slot: &underbelly::SlotNode, now: Timestamp) -> String {
    let counts = counted(&slot.states);
    let mut label =
        String::from("<table border=\"0\" cellborder=\"0\" cellspacing=\"3\" cellpadding=\"2\"><tr>");
    let span = counts.len().max(1);
    // Writing to a string does not fail.
    let _ = write!(label, "<td colspan=\"{span}\"><b>{}</b></td></tr><tr>", text(&node.name));
    for (state, cells) in &counts {
        let paint = light(*state);
        let _ = write!(
            label,
            "<td bgcolor=\"{}\"><font color=\"{}\">{} {cells}</font></td>",
            paint.fill,
            paint.ink,
            letter(*state)
        );
    }
    let ages = match counts.is_empty() {
        true => "no cells".to_string(),
        false => changed(slot.oldest_change, slot.newest_change, now),
    };
    if !counts.is_empty() {
        label.push_str("</tr><tr>");
    }
    let _ = write!(label, "<td colspan=\"{span}\"><font point-size=\"10\">{ages}</font></td></tr></table>");
    label
}

fn tooltip(node: &GraphNode) -> String {
    match &node.kind {
        NodeKind::Slot(slot) => {
            let states: Vec<String> =
                counted(&slot.states).iter().map(|(state, cells)| format!("{cells} {state}")).collect();
            format!("slot {}: {}", node.name, states.join(", "))
        }
        NodeKind::Producer(producer) => match &producer.error {
            Some(error) => format!("producer {}: {error}", node.name),
            None => format!("producer {}", node.name),
        },
    }
}

/// A digraph for Graphviz, drawn from left to right.
pub fn graph_dot(view: &GraphView, now: Timestamp) -> String {
    let mut out = String::from(
        "digraph underbelly {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=12, style=filled];\n  \
         edge [fontname=\"sans-serif\", fontsize=10, color=\"#738091\"];\n",
    );
    for (at, node) in view.nodes.iter().enumerate() {
        let tooltip = quoted(&tooltip(node));
        // Writing to a string does not fail.
        let _ = match &node.kind {
            NodeKind::Slot(slot) => writeln!(
                out,
                "  n{at} [shape=box, style=\"filled,rounded\", fillcolor=\"#f6f8fa\", tooltip=\"{tooltip}\", label=<{}>];",
                slot_label(node, slot, now)
            ),
            NodeKind::Producer(producer) => {
                let work = work(producer, now);
                let mut lines = vec![node.name.clone(), runs(producer)];
                let failing = work.failed.is_some();
                let more: Vec<String> = work.open.into_iter().chain(work.rest).chain(work.failed).collect();
                lines.extend((!more.is_empty()).then(|| more.join(", ")));
                lines.extend((!producer.attached).then(|| "detached".to_string()));
                let lines: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
                let edge = if failing { ", color=\"#cc3428\", penwidth=2" } else { "" };
                let label = lines.join("\\n");
                writeln!(
                    out,
                    "  n{at} [shape=ellipse, fillcolor=\"#ffffff\"{edge}, tooltip=\"{tooltip}\", label=\"{label}\"];"
                )
            }
        };
    }
    let name = |at: usize| view.nodes.get(at).map_or("", |node| node.name.as_str());
    for edge in view.edges.iter().filter(|edge| edge.from.max(edge.to) < view.nodes.len()) {
        let mut attributes = Vec::new();
        if let EdgeRole::Input { mode, lag, .. } = edge.role {
            match mode {
                Mode::Optional => attributes.push("style=dashed".to_string()),
                Mode::Exclusive => attributes.push("style=dotted, penwidth=2, arrowhead=tee".to_string()),
                _ => {}
            }
            if lag > 0 {
                attributes.push("color=\"#738091:invis:#738091\"".to_string());
            }
        }
        if view.loops(edge) {
            attributes.push("constraint=false".to_string());
        }
        let label = label(&edge.role);
        if !label.is_empty() {
            attributes.push(format!("label=\"{}\"", quoted(&label)));
        }
        attributes
            .push(format!("tooltip=\"{}\"", quoted(&sentence(&edge.role, name(edge.from), name(edge.to)))));
        let _ = writeln!(out, "  n{} -> n{} [{}];", edge.from, edge.to, attributes.join(", "));
    }
    if view.nodes.is_empty() {
        let _ = writeln!(out, "  label=\"{}\";", number(0, "slot", "slots"));
    }
    out.push_str("}\n");
    out
}
