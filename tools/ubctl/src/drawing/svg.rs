//! The graph as a picture: levels from left to right, slots as cards and producers as rounded boxes between them.

use std::fmt::Write;

use underbelly::{GraphView, NodeKind, State};

use super::{caption, counts, fill, node_fill};

/// Lengths in pixels.
const NODE_HEIGHT: usize = 52;
const ROW_GAP: usize = 22;
const COLUMN_GAP: usize = 80;
const MARGIN: usize = 24;
const LEGEND_HEIGHT: usize = 34;
/// About the width of a letter at 13 pixels.
const LETTER_WIDTH: usize = 8;
const PADDING: usize = 24;

/// Rounds in which nodes move towards the middle of what they are joined to.
const ROUNDS: usize = 4;

struct Place {
    column: usize,
    x: usize,
    y: usize,
    width: usize,
}

/// How far edges that share a lane lie apart, each from the one before.
const LANE_STEP: usize = 4;
/// Edges in a lane, after which the next lie upon them.
const LANE_EDGES: usize = 3;

/// The clear heights of a column, in which edges pass it: above its boxes, between two of them, and below.
struct Lanes {
    x: usize,
    width: usize,
    /// Heights, and how many edges run there already.
    heights: Vec<(usize, usize)>,
}

impl Lanes {
    fn new(x: usize, width: usize, top: usize, boxes: usize) -> Lanes {
        let first = top.saturating_sub(ROW_GAP / 2 + LANE_STEP);
        let heights = (0..=boxes).map(|i| (first + i * (NODE_HEIGHT + ROW_GAP), 0)).collect();
        Lanes { x, width, heights }
    }

    /// The lane that is nearest to a height, for one more edge.
    fn take(&mut self, near: usize) -> usize {
        let Some(lane) = self.heights.iter_mut().min_by_key(|lane| lane.0.abs_diff(near)) else {
            return near;
        };
        lane.1 += 1;
        lane.0 + (lane.1 - 1) % LANE_EDGES * LANE_STEP
    }
}

/// The path of an edge. It passes the columns between its ends in their lanes, so that no box hides it.
fn route((x1, y1): (usize, usize), (x2, y2): (usize, usize), between: &mut [Lanes]) -> String {
    let bend = COLUMN_GAP / 2;
    let mut path = format!("M{x1} {y1}");
    let (mut x, mut y) = (x1, y1);
    // Writing to a string does not fail.
    for lanes in between {
        // The height of the straight line.
        let part =
            (lanes.x + lanes.width / 2).saturating_sub(x1) as f64 / x2.saturating_sub(x1).max(1) as f64;
        let height = lanes.take((y1 as f64 + (y2 as f64 - y1 as f64) * part) as usize);
        let (left, right) = (lanes.x, lanes.x + lanes.width);
        let _ = write!(
            path,
            " C{} {y} {} {height} {left} {height} H{right}",
            x + bend,
            left.saturating_sub(bend)
        );
        (x, y) = (right, height);
    }
    let _ = write!(path, " C{} {y} {} {y2} {x2} {y2}", x + bend, x2.saturating_sub(bend));
    path
}

/// Nodes of each level from top to bottom, ordered so that few edges cross: each node goes to the mean row of its
/// neighbours, in rounds (the barycentre method of Sugiyama, Tagawa and Toda).
fn rows(view: &GraphView) -> Vec<Vec<usize>> {
    let levels = view.nodes.iter().map(|node| node.level + 1).max().unwrap_or(0);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); levels];
    for (at, node) in view.nodes.iter().enumerate() {
        if let Some(row) = rows.get_mut(node.level) {
            row.push(at);
        }
    }
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); view.nodes.len()];
    for (from, to) in &view.edges {
        for (a, b) in [(*from, *to), (*to, *from)] {
            if let Some(of) = neighbours.get_mut(a) {
                of.push(b);
            }
        }
    }
    let mut position = vec![0.0f64; view.nodes.len()];
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let middle = |at: &usize| {
                let joined = neighbours.get(*at).map_or(&[][..], |n| n.as_slice());
                let sum: f64 = joined.iter().filter_map(|n| position.get(*n)).sum();
                if joined.is_empty() { 0.0 } else { sum / joined.len() as f64 }
            };
            row.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
            let count = row.len() as f64;
            for (i, at) in row.iter().enumerate() {
                if let Some(position) = position.get_mut(*at) {
                    *position = (i as f64 + 0.5) / count;
                }
            }
        }
    }
    rows
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A picture that needs nothing else: no script, no style sheet, no font.
pub(crate) fn svg(view: &GraphView) -> String {
    let rows = rows(view);
    let width_of = |at: &usize| {
        view.nodes.get(*at).map_or(0, |node| {
            let letters = node.name.chars().count().max(caption(node).chars().count());
            letters * LETTER_WIDTH + PADDING
        })
    };
    let tallest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let full = tallest * (NODE_HEIGHT + ROW_GAP);
    let mut places: Vec<Option<Place>> = view.nodes.iter().map(|_| None).collect();
    let mut lanes: Vec<Lanes> = Vec::new();
    let mut x = MARGIN;
    for (column, row) in rows.iter().enumerate() {
        let width = row.iter().map(width_of).max().unwrap_or(0);
        let top = MARGIN + LEGEND_HEIGHT + (full - row.len() * (NODE_HEIGHT + ROW_GAP)) / 2;
        for (i, at) in row.iter().enumerate() {
            if let Some(place) = places.get_mut(*at) {
                *place = Some(Place { column, x, y: top + i * (NODE_HEIGHT + ROW_GAP), width });
            }
        }
        lanes.push(Lanes::new(x, width, top, row.len()));
        x += width + COLUMN_GAP;
    }
    let legend = State::ALL.len() * 90;
    let (width, height) =
        ((x.saturating_sub(COLUMN_GAP)).max(legend) + MARGIN, full + LEGEND_HEIGHT + 2 * MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<title>Slots and producers</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0 L8 4 L0 8 z\" fill=\"#666666\"/></marker></defs>\n"
    );
    // Writing to a string does not fail.
    for (i, state) in State::ALL.into_iter().enumerate() {
        let x = MARGIN + i * 90;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{MARGIN}\" width=\"14\" height=\"14\" fill=\"{}\" stroke=\"#666666\"/><text x=\"{}\" y=\"{}\" fill=\"#444444\">{state}</text>",
            fill(state),
            x + 20,
            MARGIN + 12
        );
    }
    let place = |at: usize| places.get(at).and_then(Option::as_ref);
    for (from, to) in &view.edges {
        let (Some(from), Some(to)) = (place(*from), place(*to)) else { continue };
        let (x1, y1) = (from.x + from.width, from.y + NODE_HEIGHT / 2);
        let (x2, y2) = (to.x, to.y + NODE_HEIGHT / 2);
        let between = lanes.get_mut(from.column + 1..to.column).unwrap_or_default();
        let path = route((x1, y1), (x2, y2), between);
        let _ =
            writeln!(text, "<path d=\"{path}\" fill=\"none\" stroke=\"#666666\" marker-end=\"url(#head)\"/>");
    }
    for (node, place) in view.nodes.iter().zip(&places) {
        let Some(Place { x, y, width, .. }) = place else { continue };
        let (kind, radius) = match node.kind {
            NodeKind::Slot(_) => ("slot", 4),
            NodeKind::Producer { .. } => ("producer", NODE_HEIGHT / 2),
        };
        let (name, caption, middle) = (escaped(&node.name), escaped(&caption(node)), x + width / 2);
        let _ = writeln!(
            text,
            "<g><title>{kind} {name}: {caption}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{NODE_HEIGHT}\" rx=\"{radius}\" fill=\"{}\" stroke=\"#333333\"/><text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{name}</text><text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#333333\">{caption}</text>",
            node_fill(node),
            y + 21,
            y + 38
        );
        // A strip along the bottom shows how the states share the cells.
        let counts = counts(node);
        let total = counts.iter().map(|(_, cells)| *cells as f64).sum::<f64>();
        let mut at = *x as f64;
        for (state, cells) in counts {
            let share = *width as f64 * cells as f64 / total;
            let _ = write!(
                text,
                "<rect x=\"{at:.1}\" y=\"{}\" width=\"{share:.1}\" height=\"6\" fill=\"{}\" stroke=\"#333333\" stroke-width=\"0.5\"/>",
                y + NODE_HEIGHT - 6,
                fill(state)
            );
            at += share;
        }
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_pass_beside_the_boxes() {
        let (top, boxes) = (100, 3);
        for near in 0..400 {
            let mut lanes = Lanes::new(0, 80, top, boxes);
            for _ in 0..2 * LANE_EDGES {
                let height = lanes.take(near);
                for i in 0..boxes {
                    let y = top + i * (NODE_HEIGHT + ROW_GAP);
                    assert!(!(y..=y + NODE_HEIGHT).contains(&height), "{height} is in a box from {y}");
                }
            }
        }
        let mut between = [Lanes::new(100, 50, 40, 1)];
        let path = route((20, 50), (230, 50), &mut between);
        assert!(
            path.starts_with("M20 50 C") && path.contains(" 25 H150 C") && path.ends_with(" 230 50"),
            "{path}"
        );
        assert!(!route((20, 66), (100, 66), &mut []).contains('H'));
    }
}
