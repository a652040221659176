//! The dependency graph, in columns by level.

use super::svg::{count, escape, shorten};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// What a node stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A named dataset with cells.
    Slot,
    /// A producer with runs.
    Producer,
}

/// A slot or a producer.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphNode {
    /// Identity that edges refer to.
    pub id: String,
    /// Name to show.
    pub label: String,
    /// Slot or producer.
    pub kind: NodeKind,
    /// Column, from 0 at the left.
    pub level: usize,
    /// Cells by state: name of the state and count.
    pub cells: Vec<(String, u64)>,
    /// Runs of a producer.
    pub runs: u64,
}

/// States with a colour of their own; others share one.
const STATES: [&str; 6] = ["current", "updated", "pending", "stale", "void", "invalid"];

/// The class that colours a state.
pub(super) fn class(state: &str) -> String {
    format!("s-{}", if STATES.contains(&state) { state } else { "other" })
}

const WIDTH: f64 = 1216.0;
const BOX: f64 = 158.0;
const TALL: f64 = 76.0;
const GAP: f64 = 20.0;
/// Least room between columns.
const REACH: f64 = 24.0;

/// Size of a label in pixels, the least size of a long one, and the width of a letter at full size.
const SIZE: f64 = 12.5;
const SIZE_MIN: f64 = 9.5;
const LETTER: f64 = 7.3;

/// How far edges that share a lane lie apart.
const SHIFTS: [f64; 3] = [0.0, 4.0, -4.0];

/// The clear heights of a column, in which edges pass it: above its boxes, between two of them, and below.
struct Lanes {
    left: f64,
    /// Heights, and how many edges run there already.
    heights: Vec<(f64, usize)>,
}

impl Lanes {
    fn new(left: f64, top: f64, boxes: usize) -> Lanes {
        let heights = (0..=boxes).map(|i| (top - 0.5 * GAP + i as f64 * (TALL + GAP), 0)).collect();
        Lanes { left, heights }
    }

    /// The lane that is nearest to a height, for one more edge.
    fn take(&mut self, near: f64) -> f64 {
        let far = |lane: &(f64, usize)| (lane.0 - near).abs();
        let Some(lane) = self.heights.iter_mut().min_by(|a, b| far(a).total_cmp(&far(b))) else {
            return near;
        };
        lane.1 += 1;
        lane.0 + SHIFTS.get((lane.1 - 1) % SHIFTS.len()).copied().unwrap_or(0.0)
    }
}

/// The path of an edge. It passes the columns between its ends in their lanes, so that no box hides it.
fn route((x0, y0): (f64, f64), (x1, y1): (f64, f64), between: &mut [Lanes], box_width: f64) -> String {
    let mut path = format!("M{x0:.1} {y0:.1}");
    let (mut x, mut y) = (x0, y0);
    let bend_to = |path: &mut String, x: f64, y: f64, to: (f64, f64)| {
        let bend = (0.5 * (to.0 - x)).abs().max(12.0);
        let (a, b) = (x + bend, to.0 - bend);
        let _ = write!(path, "C{a:.1} {y:.1} {b:.1} {:.1} {:.1} {:.1}", to.1, to.0, to.1);
    };
    for lanes in between {
        let straight = y0 + (y1 - y0) * (lanes.left + 0.5 * box_width - x0) / (x1 - x0).max(1.0);
        let height = lanes.take(straight);
        bend_to(&mut path, x, y, (lanes.left, height));
        (x, y) = (lanes.left + box_width, height);
        let _ = write!(path, "H{x:.1}");
    }
    bend_to(&mut path, x, y, (x1, y1));
    path
}

/// Draws the graph. Edges to nodes that do not exist are left out.
pub(super) fn draw(out: &mut String, nodes: &[GraphNode], edges: &[(String, String)]) {
    let mut columns: BTreeMap<usize, Vec<&GraphNode>> = BTreeMap::new();
    for node in nodes {
        columns.entry(node.level).or_default().push(node);
    }
    let tallest = columns.values().map(Vec::len).max().unwrap_or(0).max(1) as f64;
    // Lanes run above and below the boxes.
    let height = tallest * (TALL + GAP) + GAP;
    // Empty levels take no room.
    let wide = columns.len().max(1) as f64;
    let box_width = BOX.min((WIDTH - 2.0 - (wide - 1.0) * REACH) / wide).max(20.0);
    let step = (WIDTH - 2.0 - box_width) / (wide - 1.0).max(1.0);
    let mut places: HashMap<&str, (f64, f64)> = HashMap::new();
    let mut columns_of: HashMap<&str, usize> = HashMap::new();
    let mut lanes: Vec<Lanes> = Vec::new();
    for (column, (_, members)) in columns.iter().enumerate() {
        let top = 0.5 * (height - members.len() as f64 * (TALL + GAP) + GAP);
        let left = 1.0 + column as f64 * step;
        lanes.push(Lanes::new(left, top, members.len()));
        for (row, node) in members.iter().enumerate() {
            columns_of.insert(&node.id, column);
            places.insert(&node.id, (left, top + row as f64 * (TALL + GAP)));
        }
    }
    let _ = write!(
        out,
        "<svg id=\"graph\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Dependency graph of {} slots and producers\">",
        nodes.len()
    );
    out.push_str(
        "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0 1L7 4L0 7Z\" fill=\"var(--edge)\"/></marker></defs>",
    );
    for (from, to) in edges {
        let (Some(a), Some(b)) = (places.get(from.as_str()), places.get(to.as_str())) else { continue };
        let (x0, y0) = (a.0 + box_width, a.1 + 0.5 * TALL);
        let (x1, y1) = (b.0 - 2.0, b.1 + 0.5 * TALL);
        let ends = columns_of.get(from.as_str()).zip(columns_of.get(to.as_str()));
        let between = ends.and_then(|(from, to)| lanes.get_mut(from + 1..*to));
        let path = route((x0, y0), (x1, y1), between.unwrap_or_default(), box_width);
        let _ = write!(
            out,
            "<path class=\"edge\" data-e=\"{} {}\" marker-end=\"url(#tip)\" d=\"{path}\"/>",
            name(nodes, from),
            name(nodes, to)
        );
    }
    for (i, node) in nodes.iter().enumerate() {
        if let Some(place) = places.get(node.id.as_str()) {
            draw_node(out, node, i, *place, box_width);
        }
    }
    out.push_str("</svg>");
}

/// A label on one line, or on two where it is longer: cut behind the first word that a `.` or `_` ends.
fn lines(label: &str, letters: usize) -> Vec<&str> {
    match label.find(['.', '_']) {
        Some(at) if label.chars().count() > letters => vec![&label[..at], &label[at + 1..]],
        _ => vec![label],
    }
}

/// Nodes are numbered in the markup, so that any text can be an identity.
fn name(nodes: &[GraphNode], id: &str) -> usize {
    nodes.iter().position(|n| n.id == id).unwrap_or(0)
}

fn draw_node(out: &mut String, node: &GraphNode, i: usize, (x, y): (f64, f64), width: f64) {
    let (kind, round) = match node.kind {
        NodeKind::Slot => ("slot", 8.0),
        NodeKind::Producer => ("producer", 0.5 * TALL),
    };
    let cells: u64 = node.cells.iter().fold(0u64, |sum, c| sum.saturating_add(c.1));
    let listed: Vec<String> = node.cells.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let runs = format!("{} {}", count(node.runs), if node.runs == 1 { "run" } else { "runs" });
    let detail = match node.kind {
        NodeKind::Slot => format!("{} {}", count(cells), if cells == 1 { "cell" } else { "cells" }),
        NodeKind::Producer => runs,
    };
    let _ = write!(
        out,
        "<g class=\"node {kind}\" data-n=\"{i}\"><title>{} ({kind}): {}{}{}</title>\
         <rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{TALL}\" rx=\"{round}\"/>",
        escape(&node.label),
        escape(&detail),
        if listed.is_empty() { "" } else { "; " },
        escape(&listed.join(", "))
    );
    let letters = ((width - 14.0) / LETTER).max(4.0);
    let middle = x + 0.5 * width;
    let bar = node.kind == NodeKind::Slot && cells > 0;
    let lines = lines(&node.label, letters as usize);
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as f64;
    let size = (SIZE * letters / longest.max(1.0)).clamp(SIZE_MIN, SIZE);
    let shown = (letters * SIZE / size) as usize;
    let mut line_y = y + if bar { 18.0 } else { 24.0 } + if lines.len() == 1 { 7.0 } else { 0.0 };
    for line in &lines {
        let _ = write!(
            out,
            "<text class=\"strong\" style=\"font-size:{size:.1}px\" x=\"{middle:.1}\" y=\"{line_y:.1}\" text-anchor=\"middle\">{}</text>",
            escape(&shorten(line, shown))
        );
        line_y += 14.0;
    }
    let _ = write!(
        out,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        line_y + 1.0,
        escape(&detail)
    );
    if bar {
        let full = width - 24.0;
        let mut at = x + 12.0;
        for (state, n) in node.cells.iter().filter(|c| c.1 > 0) {
            let part = full * (*n as f64 / cells as f64);
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{at:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"7\" rx=\"2\"/>",
                class(state),
                y + TALL - 15.0,
                (part - 1.5).max(1.5)
            );
            at += part;
        }
    }
    out.push_str("</g>");
}

/// The states that occur, with their colours and counts over all slots.
pub(super) fn key(out: &mut String, nodes: &[GraphNode]) {
    let mut totals: Vec<(&str, u64)> = Vec::new();
    for (state, n) in nodes.iter().flat_map(|node| &node.cells) {
        match totals.iter_mut().find(|t| t.0 == state) {
            Some(total) => total.1 = total.1.saturating_add(*n),
            None => totals.push((state, *n)),
        }
    }
    out.push_str("<div class=\"key\">");
    for (state, n) in totals.into_iter().filter(|t| t.1 > 0) {
        let _ = write!(out, "<span><i class=\"{}\"></i>{} {}</span>", class(state), escape(state), count(n));
    }
    out.push_str("<span>rounded boxes are slots, pills are producers; point at one to see what it touches</span></div>");
}
