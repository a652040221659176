//! Cells for a terminal: a letter for each.

use std::fmt::Write;

use underbelly::{CellGraph, Timestamp};

use super::{Panel, name, sentence, troubles};
use crate::Terminal;
use crate::escape::plain;
use crate::palette::{WORST_FIRST, coloured, counted, letter};
use crate::words::{changed, columns, cut_columns};

/// Cells that are told in a sentence below the panels.
const TROUBLES_MAX: usize = 10;
/// Edges that are listed.
const EDGES_MAX: usize = 30;

/// A panel for each slot: a row of letters for each date or first key, `·` where a row has no cell of a key.
pub fn cells_text(graph: &CellGraph, now: Timestamp, terminal: Terminal) -> String {
    if graph.cells.is_empty() {
        return "there are no such cells\n".to_string();
    }
    let (width, colour) = (terminal.columns(), terminal.colour);
    let mut out = String::new();
    let states: Vec<String> = WORST_FIRST
        .into_iter()
        .map(|state| coloured(&format!("{} {state}", letter(state)), state, colour))
        .collect();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{}", states.join("  "));
    for panel in Panel::all(graph, false) {
        let date = panel.date.as_ref().map(|date| format!(" {date}")).unwrap_or_default();
        let counts: Vec<String> = counted(&panel.states)
            .into_iter()
            .map(|(state, cells)| coloured(&format!("{} {cells}", letter(state)), state, colour))
            .collect();
        let slot = cut_columns(&plain(panel.slot), width.saturating_sub(24));
        let _ = writeln!(out, "\n[{slot}]{date}  {}", counts.join("  "));
        if panel.rows.is_empty() {
            let _ = writeln!(out, "  no cells");
            continue;
        }
        let _ = writeln!(out, "  {}", changed(panel.oldest_change, panel.newest_change, now));
        let labels: Vec<String> =
            panel.rows.iter().map(|row| cut_columns(&plain(&row.label), width / 3)).collect();
        let indent = 2 + labels.iter().map(|label| columns(label)).max().unwrap_or(0);
        let gap = if indent > 2 { 2 } else { 0 };
        let line = width.saturating_sub(indent + gap).max(10);
        for (row, label) in panel.rows.iter().zip(&labels) {
            for (at, squares) in row.squares.chunks(line).enumerate() {
                let label = if at == 0 { label.as_str() } else { "" };
                let pad = indent + gap - 2 - columns(label);
                let _ = write!(out, "  {label}{:pad$}", "");
                for square in squares {
                    match square.and_then(|at| graph.cells.get(at)) {
                        Some(cell) => {
                            out.push_str(&coloured(&letter(cell.state).to_string(), cell.state, colour));
                        }
                        None => out.push('·'),
                    }
                }
                while out.ends_with(' ') {
                    out.pop();
                }
                out.push('\n');
            }
        }
    }
    let troubles = troubles(graph);
    if !troubles.is_empty() {
        out.push('\n');
    }
    for cell in troubles.iter().take(TROUBLES_MAX) {
        let told = cut_columns(&plain(&sentence(graph, cell, now)), width.saturating_sub(2));
        let _ = writeln!(out, "{} {told}", coloured(&letter(cell.state).to_string(), cell.state, colour));
    }
    if troubles.len() > TROUBLES_MAX {
        let _ = writeln!(out, "and {} more", troubles.len() - TROUBLES_MAX);
    }
    if !graph.edges.is_empty() && graph.edges.len() <= EDGES_MAX {
        out.push('\n');
        for edge in &graph.edges {
            let (Some(from), Some(to)) = (graph.cells.get(edge.from), graph.cells.get(edge.to)) else {
                continue;
            };
            let (from, to) = (plain(&name(graph, from)), plain(&name(graph, to)));
            let _ = writeln!(out, "{from} ─▶ ({}) ─▶ {to}", plain(&edge.producer));
        }
    }
    out
}
