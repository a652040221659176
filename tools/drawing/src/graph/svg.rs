//! Slots and producers as SVG: slots are cards, producers are pills.

use std::fmt::Write;

use underbelly::{EdgeRole, GraphNode, GraphView, Mode, NodeKind, ProducerNode, SlotNode, State, Timestamp};

use super::layout::{Place, lay_out};
use super::{label, runs, sentence, work};
use crate::escape::xml;
use crate::palette::counted;
use crate::sheet::{Entry, Frame, NAME, SMALL, Sheet, chips, chips_width, class, states};
use crate::words::{changed, count, cut_pixels, number, pixels};

/// Longest name in pixels; the whole name is in the title.
const NAME_MAX: f64 = 230.0;
/// Longest line under a producer's name.
const LINE_MAX: f64 = 210.0;

/// What stands in a node's box.
struct Face<'a> {
    node: &'a GraphNode,
    name: String,
    /// A slot's states.
    chips: Vec<(State, String)>,
    /// Lines under the name, and whether each tells of a failure.
    lines: Vec<(String, bool)>,
    title: String,
}

impl Face<'_> {
    fn of(node: &GraphNode, now: Timestamp) -> Face<'_> {
        let name = cut_pixels(&node.name, NAME * 1.06, NAME_MAX);
        match &node.kind {
            NodeKind::Slot(slot) => Face::slot(node, name, slot, now),
            NodeKind::Producer(producer) => Face::producer(node, name, producer, now),
        }
    }

    fn slot<'a>(node: &'a GraphNode, name: String, slot: &SlotNode, now: Timestamp) -> Face<'a> {
        let counts = counted(&slot.states);
        let told: Vec<String> =
            counts.iter().map(|(state, cells)| format!("{} {state}", count(*cells))).collect();
        let (line, more) = match counts.is_empty() {
            true => ("no cells".to_string(), String::new()),
            false => (changed(slot.oldest_change, slot.newest_change, now), format!("\n{}", told.join(", "))),
        };
        let total = number(slot.states.total(), "cell", "cells");
        Face {
            node,
            name,
            chips: counts.into_iter().map(|(state, cells)| (state, count(cells))).collect(),
            title: format!("slot {}\n{total}; {line}{more}", node.name),
            lines: vec![(line, false)],
        }
    }

    fn producer<'a>(node: &'a GraphNode, name: String, producer: &ProducerNode, now: Timestamp) -> Face<'a> {
        let work = work(producer, now);
        let mut first = runs(producer);
        if !producer.attached {
            first.push_str(", detached");
        }
        let mut lines = vec![(first, false)];
        for part in [work.open, work.rest] {
            lines.extend((!part.is_empty()).then(|| (part.join(", "), false)));
        }
        lines.extend(work.failed.map(|failed| (failed, true)));
        let all: Vec<&str> = lines.iter().map(|(line, _)| line.as_str()).collect();
        let error = producer.error.as_ref().map(|error| format!("\nnewest failure: {error}"));
        let title = format!("producer {}\n{}{}", node.name, all.join("; "), error.unwrap_or_default());
        let lines = lines.into_iter().map(|(line, bad)| (cut_pixels(&line, SMALL, LINE_MAX), bad)).collect();
        Face { node, name, chips: Vec::new(), lines, title }
    }

    fn is_slot(&self) -> bool {
        matches!(self.node.kind, NodeKind::Slot(_))
    }

    fn size(&self) -> (f64, f64) {
        let lines = self.lines.iter().map(|(line, _)| pixels(line, SMALL)).fold(0.0, f64::max);
        let inner = pixels(&self.name, NAME * 1.06).max(lines).max(chips_width(&self.chips));
        match self.is_slot() {
            true => ((inner + 20.0).max(110.0).ceil(), if self.chips.is_empty() { 46.0 } else { 76.0 }),
            false => ((inner + 36.0).max(96.0).ceil(), 30.0 + 14.0 * self.lines.len() as f64),
        }
    }

    fn draw(&self, out: &mut String, at: usize, place: &Place) {
        let Place { x, y, width, height } = *place;
        let kind = if self.is_slot() { "slot" } else { "producer" };
        let failing = if self.lines.iter().any(|(_, bad)| *bad) { " failing" } else { "" };
        let round = if self.is_slot() { 5.0 } else { 0.5 * height };
        let middle = x + 0.5 * width;
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<g class=\"node {kind}{failing}\" data-n=\"{at}\"><title>{}</title>\
             <rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round:.1}\"/>\
             <text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            // A title may have lines.
            self.title.split('\n').map(xml).collect::<Vec<_>>().join("\n"),
            y + 18.0,
            xml(&self.name)
        );
        let mut line_y = y + 33.0;
        if !self.chips.is_empty() {
            chips(out, &self.chips, middle - 0.5 * chips_width(&self.chips), y + 25.0);
            line_y = y + 55.0;
        }
        for (line, bad) in &self.lines {
            let bad = if *bad { " class=\"bad\"" } else { "" };
            let _ = write!(
                out,
                "<text{bad} x=\"{middle:.1}\" y=\"{line_y:.1}\" text-anchor=\"middle\">{}</text>",
                xml(line)
            );
            line_y += 14.0;
        }
        if let NodeKind::Slot(slot) = &self.node.kind {
            strip(out, slot, x + 8.0, y + height - 13.0, width - 16.0);
        }
        out.push_str("</g>\n");
    }
}

/// A strip that shows how the states share the cells; the rarest is wide enough to be seen.
fn strip(out: &mut String, slot: &SlotNode, x: f64, y: f64, width: f64) {
    let counts = counted(&slot.states);
    let least = 3.0;
    let total: f64 = counts.iter().map(|(_, cells)| *cells as f64).sum();
    let room = width - least * counts.len() as f64;
    let mut at = x;
    for (state, cells) in counts {
        let share = least + room * cells as f64 / total;
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<g class=\"{}\"><rect x=\"{at:.1}\" y=\"{y:.1}\" width=\"{share:.1}\" height=\"6\"/></g>",
            class(state)
        );
        at += share;
    }
}

/// The classes of an edge's line, its marker, and whether the line is a pair.
fn line(role: &EdgeRole) -> (&'static str, &'static str, bool) {
    match role {
        EdgeRole::Input { mode, lag, .. } => match mode {
            Mode::Exclusive => (" exclusive", "bar", false),
            Mode::Optional => (" optional", "head", *lag > 0),
            _ => ("", "head", *lag > 0),
        },
        EdgeRole::Output { .. } => ("", "head", false),
    }
}

/// A path in the line of a role.
fn stroke(out: &mut String, role: &EdgeRole, path: &str) {
    let (class, marker, pair) = line(role);
    let wide = if pair { " pair" } else { "" };
    // Writing to a string does not fail.
    let _ = write!(out, "<path class=\"edge{class}{wide}\" marker-end=\"url(#ub-{marker})\" d=\"{path}\"/>");
    if pair {
        let _ = write!(out, "<path class=\"edge core\" d=\"{path}\"/>");
    }
}

/// What lines and shapes mean: those that there are.
fn legend(view: &GraphView) -> Vec<Entry> {
    let mut entries = states();
    let input = |mode: Mode, lag: u32| EdgeRole::Input { mode, lag, broadcast: false };
    let has = |wanted: &dyn Fn(&EdgeRole) -> bool| view.edges.iter().any(|edge| wanted(&edge.role));
    let of =
        |wanted: Mode| move |role: &EdgeRole| matches!(role, EdgeRole::Input { mode, .. } if *mode == wanted);
    let lines = [
        (has(&of(Mode::Required)), input(Mode::Required, 0), "required input, output"),
        (has(&of(Mode::Optional)), input(Mode::Optional, 0), "optional input"),
        (has(&of(Mode::Exclusive)), input(Mode::Exclusive, 0), "exclusive input"),
        (
            has(&|role| matches!(role, EdgeRole::Input { lag, .. } if *lag > 0)),
            input(Mode::Required, 1),
            "input of an earlier date",
        ),
    ];
    for (_, role, text) in lines.into_iter().filter(|(has, _, _)| *has) {
        let mut markup = String::new();
        stroke(&mut markup, &role, "M0 8H22");
        // Writing to a string does not fail.
        let _ = write!(markup, "<text x=\"37\" y=\"12\">{text}</text>");
        entries.push(Entry { markup, width: 37.0 + pixels(text, SMALL) });
    }
    entries
}

/// Slots and producers, as of an instant that ages are counted to.
pub fn graph_svg(view: &GraphView, now: Timestamp, frame: Frame) -> String {
    let faces: Vec<Face<'_>> = view.nodes.iter().map(|node| Face::of(node, now)).collect();
    let sizes: Vec<(f64, f64)> = faces.iter().map(Face::size).collect();
    let labels = view.edges.iter().map(|edge| pixels(&label(&edge.role), SMALL));
    let layout = lay_out(view, &sizes, labels.fold(0.0, f64::max));
    let (mut sheet, x, y) =
        Sheet::begin(frame, "Slots and producers", now, legend(view), (layout.width, layout.height));
    let out = sheet.out();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<defs><marker id=\"ub-head\" viewBox=\"0 0 9 8\" refX=\"0\" refY=\"4\" markerWidth=\"9\" markerHeight=\"8\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head\" d=\"M0 0L9 4L0 8z\"/></marker>\
         <marker id=\"ub-bar\" viewBox=\"0 0 9 12\" refX=\"0\" refY=\"6\" markerWidth=\"9\" markerHeight=\"12\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head\" d=\"M4 0H7V12H4z\"/></marker></defs>\n\
         <g class=\"graph\" transform=\"translate({x:.1} {y:.1})\">\n"
    );
    let name = |at: usize| view.nodes.get(at).map_or("", |node| node.name.as_str());
    for (edge, route) in view.edges.iter().zip(&layout.routes).filter(|(_, route)| !route.path.is_empty()) {
        let title = xml(&sentence(&edge.role, name(edge.from), name(edge.to)));
        let _ = write!(out, "<g data-e=\"{} {}\"><title>{title}</title>", edge.from, edge.to);
        stroke(out, &edge.role, &route.path);
        out.push_str("</g>\n");
    }
    for (edge, route) in view.edges.iter().zip(&layout.routes).filter(|(_, route)| !route.path.is_empty()) {
        let label = label(&edge.role);
        if !label.is_empty() {
            let anchor = if route.label_ends { "end" } else { "start" };
            let (x, y) = route.label;
            let _ = writeln!(
                out,
                "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{label}</text>"
            );
        }
    }
    for (at, (face, place)) in faces.iter().zip(&layout.places).enumerate() {
        face.draw(out, at, place);
    }
    if view.nodes.is_empty() {
        out.push_str("<text y=\"12\">there are no slots and no producers</text>");
    }
    out.push_str("</g>\n");
    sheet.end()
}
