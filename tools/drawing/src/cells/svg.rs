//! Cells as SVG: panels beside and below one another, a square for each cell.

use std::fmt::Write;

use underbelly::{CellGraph, State, Timestamp};

use super::{EDGES_MAX, LINE_MAX, Panel, SINGLE_MAX, name, sentence, title};
use crate::escape::xml;
use crate::palette::{counted, letter};
use crate::sheet::{Frame, NAME, SMALL, Sheet, chips, chips_width, class, states};
use crate::words::{changed, count, cut_pixels, pixels};

/// A square and the step from one to the next.
const SQUARE: f64 = 17.0;
const STEP: f64 = 20.0;
/// Panels stand beside one another up to this width.
const WIDTH_MAX: f64 = 1_440.0;
const PANEL_GAP: f64 = 34.0;
/// Room for edges between panels.
const EDGE_GAP: f64 = 90.0;
/// Longest label before a row, heading above a column, and name above a panel.
const LABEL_MAX: f64 = 150.0;
const HEADING_MAX: f64 = 84.0;
const NAME_MAX: f64 = 320.0;
/// Height of a panel's name, counts and ages.
const HEAD: f64 = 62.0;

/// What a panel takes.
struct Size {
    width: f64,
    label: f64,
    heading: f64,
    /// Lines of squares.
    lines: usize,
}

fn chips_of(panel: &Panel<'_>) -> Vec<(State, String)> {
    counted(&panel.states).into_iter().map(|(state, cells)| (state, count(cells))).collect()
}

fn panel_name(panel: &Panel<'_>) -> String {
    let slot = cut_pixels(panel.slot, NAME * 1.06, NAME_MAX);
    panel.date.as_ref().map_or(slot.clone(), |date| format!("{slot}  {date}"))
}

fn ages(panel: &Panel<'_>, now: Timestamp) -> String {
    if panel.rows.is_empty() {
        return "no cells".to_string();
    }
    changed(panel.oldest_change, panel.newest_change, now)
}

impl Size {
    fn of(panel: &Panel<'_>, now: Timestamp) -> Size {
        let widest = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(|text| pixels(text, SMALL)).fold(0.0, f64::max)
        };
        let label = widest(&mut panel.rows.iter().map(|row| &row.label)).min(LABEL_MAX);
        let label = if label > 0.0 { label + 8.0 } else { 0.0 };
        let heading = widest(&mut panel.headings.iter()).min(HEADING_MAX);
        // Headings lean to the right beyond the last square.
        let lean = if heading > 0.0 { 0.5 * heading } else { 0.0 };
        let squares = label + panel.across() as f64 * STEP + lean;
        let head = pixels(&panel_name(panel), NAME * 1.06)
            .max(chips_width(&chips_of(panel)))
            .max(pixels(&ages(panel, now), SMALL));
        let lines = panel.rows.iter().map(|row| row.squares.len().div_ceil(LINE_MAX)).sum();
        Size { width: squares.max(head).ceil(), label, heading, lines }
    }
}

/// Where panels stand: x and y of each, and how high the headings beside it are.
fn shelves(sizes: &[Size], gap: f64, width_max: f64) -> (Vec<(f64, f64, f64)>, f64, f64) {
    let mut places: Vec<(f64, f64, f64)> = Vec::new();
    let (mut y, mut width) = (0.0, 0.0f64);
    let mut at = 0;
    while at < sizes.len() {
        let rest = sizes.get(at..).unwrap_or_default();
        let mut x = 0.0;
        let fitting = rest.iter().take_while(|size| {
            let fits = x == 0.0 || x + size.width <= width_max;
            x += size.width + gap;
            fits
        });
        let shelf = rest.get(..fitting.count()).unwrap_or_default();
        let heading = shelf.iter().map(|size| size.heading).fold(0.0, f64::max);
        let heading = if heading > 0.0 { 0.9 * heading + 8.0 } else { 0.0 };
        let lines = shelf.iter().map(|size| size.lines).max().unwrap_or(0);
        let mut x = 0.0;
        for size in shelf {
            places.push((x, y, heading));
            x += size.width + gap;
        }
        width = width.max(x - gap);
        y += HEAD + heading + lines as f64 * STEP + 26.0;
        at += shelf.len().max(1);
    }
    (places, width, (y - 26.0f64).max(0.0))
}

/// Cells, as of an instant that ages are counted to. Edges are drawn where they are few.
pub fn cells_svg(graph: &CellGraph, now: Timestamp, frame: Frame) -> String {
    let few = (1..=EDGES_MAX).contains(&graph.edges.len()) && graph.cells.len() <= SINGLE_MAX;
    let panels = Panel::all(graph, few);
    let sizes: Vec<Size> = panels.iter().map(|panel| Size::of(panel, now)).collect();
    let (places, width, height) = match few {
        true => shelves(&sizes, EDGE_GAP, f64::INFINITY),
        false => shelves(&sizes, PANEL_GAP, WIDTH_MAX),
    };
    let (mut sheet, left, top) = Sheet::begin(frame, &title(graph), now, states(), (width, height));
    let out = sheet.out();
    out.push_str("<defs>");
    for state in State::ALL {
        let class = class(state);
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<g id=\"ub-{class}\" class=\"{class}\"><rect width=\"{SQUARE}\" height=\"{SQUARE}\" rx=\"3\"/>\
             <text x=\"8.5\" y=\"12.6\" text-anchor=\"middle\">{}</text></g>",
            letter(state)
        );
    }
    out.push_str(
        "<marker id=\"ub-tip\" viewBox=\"0 0 7 6\" refX=\"7\" refY=\"3\" markerWidth=\"7\" markerHeight=\"6\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"head\" d=\"M0 0L7 3L0 6z\"/></marker></defs>\n",
    );
    let _ = writeln!(out, "<g class=\"cells\" transform=\"translate({left:.1} {top:.1})\">");
    let mut spots: Vec<Option<Spot>> = vec![None; graph.cells.len()];
    let mut drawn = String::new();
    for ((panel, size), place) in panels.iter().zip(&sizes).zip(&places) {
        draw(&mut drawn, graph, now, panel, size, *place, &mut spots);
    }
    if few {
        edges(out, graph, &spots);
    }
    out.push_str(&drawn);
    if panels.is_empty() {
        out.push_str("<text y=\"12\">there are no slots</text>");
    }
    out.push_str("</g>\n");
    sheet.end()
}

fn draw(
    out: &mut String,
    graph: &CellGraph,
    now: Timestamp,
    panel: &Panel<'_>,
    size: &Size,
    (x, y, heading): (f64, f64, f64),
    spots: &mut [Option<Spot>],
) {
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<g class=\"panel\"><text class=\"name\" x=\"{x:.1}\" y=\"{:.1}\"><title>{}</title>{}</text>",
        y + 12.0,
        xml(panel.slot),
        xml(&panel_name(panel))
    );
    chips(out, &chips_of(panel), x, y + 19.0);
    let _ = write!(out, "<text x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 49.0, ages(panel, now));
    let first = x + size.label;
    let mut line_y = y + HEAD + heading;
    for (column, text) in panel.headings.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        let (cx, cy) = (first + column as f64 * STEP + 0.6 * SQUARE, line_y - 5.0);
        let text = cut_pixels(text, SMALL, HEADING_MAX);
        let _ =
            write!(out, "<text transform=\"translate({cx:.1} {cy:.1}) rotate(-60)\">{}</text>", xml(&text));
    }
    out.push('\n');
    for row in &panel.rows {
        if !row.label.is_empty() {
            let label = xml(&cut_pixels(&row.label, SMALL, LABEL_MAX));
            let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{:.1}\">{label}</text>", line_y + 12.6);
        }
        for line in row.squares.chunks(LINE_MAX) {
            for (column, square) in line.iter().enumerate() {
                let at = first + column as f64 * STEP;
                let Some((cell, node)) = square.and_then(|cell| Some((cell, graph.cells.get(cell)?))) else {
                    let (gap, dot) = (0.5 * SQUARE, 2.0);
                    let _ = writeln!(
                        out,
                        "<circle class=\"none\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{dot}\"/>",
                        at + gap,
                        line_y + gap
                    );
                    continue;
                };
                if let Some(spot) = spots.get_mut(cell) {
                    *spot = Some(Spot { enter: x - 4.0, leave: at + SQUARE + 2.0, y: line_y + 0.5 * SQUARE });
                }
                let _ = writeln!(
                    out,
                    "<use href=\"#ub-{}\" x=\"{at:.1}\" y=\"{line_y:.1}\"><title>{}</title></use>",
                    class(node.state),
                    xml(&sentence(graph, node, now))
                );
            }
            line_y += STEP;
        }
    }
    out.push_str("</g>\n");
}

/// Where edges enter and leave the row of a cell.
#[derive(Clone, Copy)]
struct Spot {
    enter: f64,
    leave: f64,
    y: f64,
}

/// Curves from row to row.
fn edges(out: &mut String, graph: &CellGraph, spots: &[Option<Spot>]) {
    let spot = |at: usize| spots.get(at).copied().flatten();
    for edge in &graph.edges {
        let (Some(from), Some(to)) = (spot(edge.from), spot(edge.to)) else { continue };
        let (Some(source), Some(target)) = (graph.cells.get(edge.from), graph.cells.get(edge.to)) else {
            continue;
        };
        let bend = (0.5 * (to.enter - from.leave)).abs().max(40.0);
        let told = format!("{} → {} → {}", name(graph, source), edge.producer, name(graph, target));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<path class=\"edge\" marker-end=\"url(#ub-tip)\" d=\"M{:.1} {:.1}C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}\">\
             <title>{}</title></path>",
            from.leave,
            from.y,
            from.leave + bend,
            from.y,
            to.enter - bend,
            to.y,
            to.enter,
            to.y,
            xml(&told)
        );
    }
}
