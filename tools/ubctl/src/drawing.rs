//! The graph of slots and producers as text, Graphviz and SVG.

mod svg;

use std::fmt::Write;

use underbelly::{GraphNode, GraphView, NodeKind, State};

pub(crate) use svg::svg;

/// The fill of each state: what is sound is green, what waits is blue or amber, what failed is red.
fn fill(state: State) -> &'static str {
    match state {
        State::Updated => "#cfe3ff",
        State::Pending => "#d9d2f5",
        State::Current => "#c9ecd0",
        State::Stale => "#ffe3a3",
        State::Invalid => "#ffc4bf",
        _ => "#e6e6e6",
    }
}

/// The fill of a slot: that of its worst state.
fn node_fill(node: &GraphNode) -> &'static str {
    match &node.kind {
        NodeKind::Slot(states) => states.worst().map_or("#ffffff", fill),
        NodeKind::Producer { .. } => "#f4f4f4",
    }
}

/// States that have cells, with their number.
fn counts(node: &GraphNode) -> Vec<(State, u64)> {
    let NodeKind::Slot(states) = &node.kind else { return Vec::new() };
    State::ALL.into_iter().map(|state| (state, states.of(state))).filter(|(_, cells)| *cells > 0).collect()
}

/// What stands under a node's name.
fn caption(node: &GraphNode) -> String {
    match &node.kind {
        NodeKind::Producer { runs: 1 } => "1 run".to_string(),
        NodeKind::Producer { runs } => format!("{runs} runs"),
        NodeKind::Slot(_) => match counts(node) {
            counts if counts.is_empty() => "no cells".to_string(),
            counts => {
                let counts: Vec<String> =
                    counts.iter().map(|(state, cells)| format!("{cells} {state}")).collect();
                counts.join(", ")
            }
        },
    }
}

/// Slots in brackets and producers in parentheses, level by level, each with what it leads to.
pub(crate) fn text(view: &GraphView) -> String {
    let label = |node: &GraphNode| match node.kind {
        NodeKind::Slot(_) => format!("[{}]", node.name),
        NodeKind::Producer { .. } => format!("({})", node.name),
    };
    let mut text = String::new();
    let levels = view.nodes.iter().map(|node| node.level + 1).max().unwrap_or(0);
    // Writing to a string does not fail.
    for level in 0..levels {
        let _ = writeln!(text, "level {level}");
        for (at, node) in view.nodes.iter().enumerate().filter(|(_, node)| node.level == level) {
            let _ = writeln!(text, "  {}  {}", label(node), caption(node));
            for (_, to) in view.edges.iter().filter(|(from, _)| *from == at) {
                if let Some(to) = view.nodes.get(*to) {
                    let _ = writeln!(text, "    └─▶ {}", label(to));
                }
            }
        }
    }
    if view.nodes.is_empty() {
        text.push_str("there are no slots and no producers\n");
    }
    text
}

/// A digraph for Graphviz, drawn from left to right.
pub(crate) fn dot(view: &GraphView) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = String::from("digraph underbelly {\n  rankdir=LR;\n");
    text.push_str("  node [style=filled, fontname=\"sans-serif\"];\n");
    for (at, node) in view.nodes.iter().enumerate() {
        let shape = match node.kind {
            NodeKind::Slot(_) => "box",
            NodeKind::Producer { .. } => "ellipse",
        };
        let (name, caption, fill) = (quoted(&node.name), quoted(&caption(node)), node_fill(node));
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "  n{at} [shape={shape}, fillcolor=\"{fill}\", label=\"{name}\\n{caption}\"];");
    }
    for (from, to) in &view.edges {
        let _ = writeln!(text, "  n{from} -> n{to};");
    }
    text.push_str("}\n");
    text
}
