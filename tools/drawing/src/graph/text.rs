//! Slots and producers for a terminal: levels from top to bottom, each node with what it leads to.

use std::fmt::Write;

use underbelly::{EdgeRole, GraphView, Mode, NodeKind, Timestamp};

use super::{label, runs, work};
use crate::Terminal;
use crate::escape::plain;
use crate::palette::{coloured, counted, letter};
use crate::words::{changed, columns, cut_columns, number};

/// A line: what is written, and the columns that it takes.
struct Piece {
    text: String,
    width: usize,
}

impl Piece {
    fn plain(text: String) -> Piece {
        Piece { width: columns(&text), text }
    }
}

fn arrow(role: &EdgeRole) -> &'static str {
    match role {
        EdgeRole::Input { lag, .. } if *lag > 0 => "══▶",
        EdgeRole::Input { mode: Mode::Optional, .. } => "╌╌▶",
        EdgeRole::Input { mode: Mode::Exclusive, .. } => "··⊣",
        _ => "──▶",
    }
}

fn bracketed(name: &str, kind: &NodeKind, room: usize) -> String {
    let name = cut_columns(&plain(name), room.saturating_sub(2));
    match kind {
        NodeKind::Slot(_) => format!("[{name}]"),
        NodeKind::Producer(_) => format!("({name})"),
    }
}

/// What is known of a node, in pieces that may stand on several lines.
fn facts(kind: &NodeKind, now: Timestamp, colour: bool) -> Vec<Piece> {
    match kind {
        NodeKind::Slot(slot) => {
            let total = slot.states.total();
            let mut pieces = vec![Piece::plain(number(total, "cell", "cells").replace('\u{202f}', ""))];
            for (state, cells) in counted(&slot.states) {
                let text = format!("{} {cells}", letter(state));
                pieces.push(Piece { width: columns(&text), text: coloured(&text, state, colour) });
            }
            if total > 0 {
                pieces.push(Piece::plain(changed(slot.oldest_change, slot.newest_change, now)));
            }
            pieces
        }
        NodeKind::Producer(producer) => {
            let work = work(producer, now);
            let mut pieces = vec![Piece::plain(runs(producer).replace('\u{202f}', ""))];
            let parts = work.open.into_iter().chain(work.rest);
            pieces.extend(parts.map(|part| Piece::plain(part.replace('\u{202f}', ""))));
            if let Some(failed) = work.failed {
                let failed = failed.replace('\u{202f}', "");
                let text = coloured(&failed, underbelly::State::Invalid, colour);
                pieces.push(Piece { width: columns(&failed), text });
            }
            if !producer.attached {
                pieces.push(Piece::plain("detached".to_string()));
            }
            pieces
        }
    }
}

/// Pieces two columns apart, wrapped behind an indent.
fn lines(out: &mut String, first: Piece, pieces: Vec<Piece>, indent: usize, width: usize) {
    let mut at = first.width;
    out.push_str(&first.text);
    for piece in pieces {
        let gap = indent.saturating_sub(at).max(2);
        if at + gap + piece.width > width && at > indent {
            let _ = write!(out, "\n{:indent$}", "");
            at = indent;
        } else {
            let _ = write!(out, "{:gap$}", "");
            at += gap;
        }
        out.push_str(&piece.text);
        at += piece.width;
    }
    out.push('\n');
}

/// Slots in brackets and producers in parentheses, level by level, each with its facts and what it leads to.
pub fn graph_text(view: &GraphView, now: Timestamp, terminal: Terminal) -> String {
    if view.nodes.is_empty() {
        return "there are no slots and no producers\n".to_string();
    }
    let width = terminal.columns();
    let name_room = (width / 2).min(44);
    let names: Vec<String> =
        view.nodes.iter().map(|node| bracketed(&node.name, &node.kind, name_room)).collect();
    let indent = names.iter().map(|name| columns(name)).max().unwrap_or(0) + 2;
    let mut out = String::new();
    legend(&mut out, view, terminal);
    let levels = view.nodes.iter().map(|node| node.level).max().unwrap_or(0);
    for level in 0..=levels {
        out.push('\n');
        for (at, node) in view.nodes.iter().enumerate().filter(|(_, node)| node.level == level) {
            let name = names.get(at).cloned().unwrap_or_default();
            lines(&mut out, Piece::plain(name), facts(&node.kind, now, terminal.colour), indent, width);
            if let NodeKind::Producer(producer) = &node.kind
                && let Some(error) = &producer.error
            {
                // Writing to a string does not fail.
                let error = cut_columns(&plain(error), width.saturating_sub(4));
                let _ = writeln!(out, "  ! {error}");
            }
            let mut arrows: Vec<Piece> = Vec::new();
            for edge in view.edges.iter().filter(|edge| edge.from == at) {
                let Some(to) = names.get(edge.to) else { continue };
                let back = if view.loops(edge) { " ↺" } else { "" };
                let label = match label(&edge.role) {
                    label if label.is_empty() => label,
                    label => format!(" {label}"),
                };
                arrows.push(Piece::plain(format!("{} {to}{label}{back}", arrow(&edge.role))));
            }
            if !arrows.is_empty() {
                lines(&mut out, Piece::plain(String::new()), arrows, 2, width);
            }
        }
    }
    out
}

fn legend(out: &mut String, view: &GraphView, terminal: Terminal) {
    let mut pieces: Vec<Piece> = crate::palette::WORST_FIRST
        .into_iter()
        .map(|state| {
            let text = format!("{} {state}", letter(state));
            Piece { width: columns(&text), text: coloured(&text, state, terminal.colour) }
        })
        .collect();
    let has = |wanted: &dyn Fn(&EdgeRole) -> bool| view.edges.iter().any(|edge| wanted(&edge.role));
    let mode =
        |wanted: Mode| move |role: &EdgeRole| matches!(role, EdgeRole::Input { mode, .. } if *mode == wanted);
    let arrows = [
        (has(&mode(Mode::Optional)), "╌╌▶ optional"),
        (has(&mode(Mode::Exclusive)), "··⊣ exclusive"),
        (has(&|role| matches!(role, EdgeRole::Input { lag, .. } if *lag > 0)), "══▶ earlier date"),
        (view.edges.iter().any(|edge| view.loops(edge)), "↺ closes a loop"),
    ];
    pieces.extend(arrows.into_iter().filter(|(has, _)| *has).map(|(_, text)| Piece::plain(text.to_string())));
    lines(out, Piece::plain("[slot] (producer)".to_string()), pieces, 2, terminal.columns());
}
