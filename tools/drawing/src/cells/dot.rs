//! Cells for Graphviz: a table for each slot.

use std::collections::BTreeSet;
use std::fmt::Write;

use underbelly::{CellGraph, Timestamp};

use super::{EDGES_MAX, LINE_MAX, Panel, sentence};
use crate::escape::{quoted, xml};
use crate::palette::{letter, light};

/// A digraph for Graphviz. Edges join cells where they are few, and slots otherwise.
pub fn cells_dot(graph: &CellGraph, now: Timestamp) -> String {
    let mut out = String::from(
        "digraph underbelly {\n  rankdir=LR;\n  node [shape=plaintext, fontname=\"sans-serif\", fontsize=11];\n  \
         edge [fontname=\"sans-serif\", fontsize=10, color=\"#738091\"];\n",
    );
    for (slot, panel) in Panel::all(graph, false).iter().enumerate() {
        let mut table =
            String::from("<table border=\"0\" cellborder=\"0\" cellspacing=\"1\" cellpadding=\"1\">");
        let date = panel.date.as_ref().map(|date| format!(" {date}")).unwrap_or_default();
        let span = panel.across() + 1;
        // Writing to a string does not fail.
        let _ = write!(
            table,
            "<tr><td colspan=\"{span}\" align=\"left\"><b>{}</b></td></tr>",
            xml(&format!("{}{date} ", panel.slot))
        );
        for row in &panel.rows {
            for (at, squares) in row.squares.chunks(LINE_MAX).enumerate() {
                let label = if at == 0 { row.label.as_str() } else { "" };
                let _ = write!(table, "<tr><td align=\"left\">{} </td>", xml(label));
                for square in squares {
                    match square.and_then(|at| Some((at, graph.cells.get(at)?))) {
                        Some((at, cell)) => {
                            let paint = light(cell.state);
                            let _ = write!(
                                table,
                                "<td port=\"c{at}\" href=\"#\" title=\"{}\" bgcolor=\"{}\"><font color=\"{}\">{}</font></td>",
                                xml(&sentence(graph, cell, now)),
                                paint.fill,
                                paint.ink,
                                letter(cell.state)
                            );
                        }
                        None => table.push_str("<td> </td>"),
                    }
                }
                table.push_str("</tr>");
            }
        }
        table.push_str("</table>");
        let _ = writeln!(out, "  s{slot} [label=<{table}>];");
    }
    let slot = |at: usize| graph.cells.get(at).map(|cell| cell.slot);
    let few = graph.edges.len() <= EDGES_MAX;
    let mut between: BTreeSet<(usize, usize, &str)> = BTreeSet::new();
    for edge in &graph.edges {
        let (Some(from), Some(to)) = (slot(edge.from), slot(edge.to)) else { continue };
        if few {
            let (a, b, producer) = (edge.from, edge.to, quoted(&edge.producer));
            let _ = writeln!(out, "  s{from}:c{a} -> s{to}:c{b} [tooltip=\"{producer}\"];");
        } else {
            between.insert((from, to, &edge.producer));
        }
    }
    for (from, to, producer) in between {
        let _ = writeln!(out, "  s{from} -> s{to} [label=\"{}\"];", quoted(producer));
    }
    out.push_str("}\n");
    out
}
