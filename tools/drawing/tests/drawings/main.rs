//! Drawings as they come out: at twelve slots, at a thousand cells, and with names that try to leave their place.
//!
//! `UNDERBELLY_GOLDEN=write cargo test -p underbelly-drawing` writes the files that drawings are compared with.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dot;
mod samples;
mod xml;

use std::path::Path;

use samples::{HOSTILE, NOW, desk, few, hostile, thousand};
use underbelly::{CellGraph, GraphView, State};
use underbelly_drawing::{
    Frame, Terminal, cells_dot, cells_svg, cells_text, graph_dot, graph_svg, graph_text,
};

/// Compares with a golden file.
fn golden(name: &str, drawn: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drawings/golden").join(name);
    if std::env::var_os("UNDERBELLY_GOLDEN").is_some() {
        std::fs::write(&path, drawn).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().zip(drawn.lines()).enumerate().find(|(_, (a, b))| a != b);
    assert!(wanted == drawn, "{name} differs, first at {differs:?}; write it anew if that is meant");
}

/// Keeps a drawing that is too large for a golden file where a person can look at it.
fn keep(name: &str, drawn: &str) {
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), drawn).unwrap();
}

#[test]
fn twelve_slots_as_text() {
    let drawn = graph_text(&desk(), NOW, Terminal::PLAIN);
    golden("desk.txt", &drawn);
    for width in [40, 80, 100, 120] {
        let drawn = graph_text(&desk(), NOW, Terminal { width, colour: false });
        let longest = drawn.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width.max(60), "{longest} columns at {width}\n{drawn}");
        assert!(drawn.lines().all(|line| !line.ends_with(' ')));
    }
    let coloured = graph_text(&desk(), NOW, Terminal { width: 100, colour: true });
    assert!(coloured.contains("\x1b[1;97;41mI 17\x1b[0m"), "{coloured}");
    assert_eq!(uncoloured(&coloured), drawn);
}

fn uncoloured(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap().to_string();
    parts.fold(first, |all, part| all + part.split_once('m').unwrap().1)
}

#[test]
fn twelve_slots_as_dot() {
    let drawn = graph_dot(&desk(), NOW);
    golden("desk.dot", &drawn);
    let parsed = dot::parse(&drawn).unwrap();
    assert_eq!((parsed.nodes.len(), parsed.edges), (21, 28));
}

#[test]
fn twelve_slots_as_svg() {
    let drawn = graph_svg(&desk(), NOW, Frame::Alone);
    golden("desk.svg", &drawn);
    let parsed = xml::parse(&drawn).unwrap();
    assert_eq!(parsed.count_with("data-n"), 21);
    assert_eq!(parsed.count_with("data-e"), 28);
    // Colour is never alone: each state has its letter in the legend and on the cards.
    for state in State::ALL {
        assert!(parsed.texts.iter().any(|text| *text == format!("{} {state}", initial(state))));
    }
    let inline = graph_svg(&desk(), NOW, Frame::Inline);
    xml::parse(&inline).unwrap();
    assert!(!inline.contains("<rect class=\"ground\"") && inline.len() < drawn.len());
    for outside in ["http://", "https://", "@import", "url(//", "<script"] {
        assert!(!drawn.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
    }
}

fn initial(state: State) -> char {
    state.name().chars().next().unwrap().to_ascii_uppercase()
}

#[test]
fn a_thousand_cells_as_text() {
    let graph = thousand();
    assert_eq!(graph.cells.len(), 1_000);
    let drawn = cells_text(&graph, NOW, Terminal::PLAIN);
    golden("thousand.txt", &drawn);
    for width in [40, 80, 120] {
        let drawn = cells_text(&graph, NOW, Terminal { width, colour: false });
        let longest = drawn.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= width.max(70), "{longest} columns at {width}\n{drawn}");
    }
    // A letter for each cell, in the rows of the panels.
    let rows = drawn.lines().filter(|line| line.starts_with("  2014"));
    let letters = rows.flat_map(|row| row.split_whitespace().nth(1).unwrap().chars());
    let continued = drawn.lines().filter(|line| line.starts_with("              "));
    let continued = continued.flat_map(|row| row.trim().chars());
    assert_eq!(letters.chain(continued).filter(|c| *c != '·').count(), 1_000);
    let coloured = cells_text(&graph, NOW, Terminal { width: 100, colour: true });
    assert_eq!(uncoloured(&coloured), drawn);
}

#[test]
fn a_thousand_cells_as_svg_and_dot() {
    let graph = thousand();
    let drawn = cells_svg(&graph, NOW, Frame::Alone);
    keep("thousand.svg", &drawn);
    let parsed = xml::parse(&drawn).unwrap();
    for state in State::ALL {
        let class = format!("href=\"#ub-st-{}\"", initial(state).to_ascii_lowercase());
        let wanted = graph.cells.iter().filter(|cell| cell.state == state).count();
        assert_eq!(drawn.matches(&class).count(), wanted, "{state}");
    }
    // One title for the drawing, one for each slot and each cell; edges are too many to be drawn.
    assert_eq!(parsed.count("title"), 1 + 5 + 1_000);
    assert!(graph.edges.len() > 60 && !drawn.contains("marker-end"));
    assert!(drawn.len() < 200_000, "{} bytes", drawn.len());
    let (width, height) = parsed.size;
    assert!(width < 1_500.0 && height < 1_500.0, "{width} x {height}");
    squares_are_apart(&parsed);
    let dot = cells_dot(&graph, NOW);
    keep("thousand.dot", &dot);
    let parsed = dot::parse(&dot).unwrap();
    assert_eq!((parsed.nodes.len(), parsed.edges), (5, 2));
    assert_eq!(dot.matches("port=").count(), 1_000);
}

fn squares_are_apart(parsed: &xml::Document) {
    let mut squares = parsed.squares.clone();
    squares.sort_by(|a, b| (a.1, a.0).partial_cmp(&(b.1, b.0)).unwrap());
    for pair in squares.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        assert!(b.1 - a.1 >= 17.0 || a.1 == b.1 && b.0 - a.0 >= 17.0, "{a:?} and {b:?}");
        assert!(a.0 >= 0.0 && a.0 + 17.0 < parsed.size.0 && a.1 + 17.0 < parsed.size.1);
    }
}

#[test]
fn few_cells_have_their_edges() {
    let graph = few();
    let drawn = cells_svg(&graph, NOW, Frame::Alone);
    golden("few.svg", &drawn);
    let parsed = xml::parse(&drawn).unwrap();
    assert!(!graph.edges.is_empty());
    assert_eq!(parsed.count_with("marker-end"), graph.edges.len());
    squares_are_apart(&parsed);
    let text = cells_text(&graph, NOW, Terminal::PLAIN);
    golden("few.txt", &text);
    assert_eq!(text.matches(" ─▶ (desk) ─▶ ").count(), graph.edges.len());
    let dot = cells_dot(&graph, NOW);
    assert_eq!(dot::parse(&dot).unwrap().edges, graph.edges.len());
}

#[test]
fn many_dates_are_rows_of_months() {
    let mut graph = CellGraph::default();
    graph.slots = vec!["Close".to_string()];
    for at in 0..500 {
        let date = underbelly::Date(16_000 + at);
        graph.cells.push(underbelly::CellNode::new(0, date.into(), underbelly::Key::empty()));
    }
    let drawn = cells_text(&graph, NOW, Terminal::PLAIN);
    let rows: Vec<&str> = drawn.lines().filter(|line| line.starts_with("  20")).collect();
    assert!(rows.len() < 40 && rows[0].starts_with("  2013-10  VVV"), "{drawn}");
}

/// Hostile names stay text in every form: the markup is valid, and its elements are as many as with harmless names.
#[test]
fn hostile_names_stay_text() {
    let (view, cells) = hostile();
    let tame = |text: &str| text.chars().map(|_| 'x').collect::<String>();
    let (mut tame_view, mut tame_cells) = hostile();
    tame_view.nodes.iter_mut().for_each(|node| node.name = tame(&node.name));
    tame_cells.slots.iter_mut().for_each(|slot| *slot = tame(slot));
    for (drawn, harmless) in [
        (graph_svg(&view, NOW, Frame::Alone), graph_svg(&tame_view, NOW, Frame::Alone)),
        (cells_svg(&cells, NOW, Frame::Inline), cells_svg(&tame_cells, NOW, Frame::Inline)),
    ] {
        let parsed = xml::parse(&drawn).unwrap();
        assert_eq!(parsed.elements, xml::parse(&harmless).unwrap().elements);
        // What a reader of the markup gets is the name, but for what no text may have.
        assert!(parsed.texts.iter().any(|text| text.contains(HOSTILE[0])));
        assert!(parsed.texts.iter().any(|text| text.contains(HOSTILE[5])));
    }
    for (drawn, nodes, edges) in [(graph_dot(&view, NOW), 16, 16), (cells_dot(&cells, NOW), 8, 7)] {
        let parsed = dot::parse(&drawn).unwrap();
        assert_eq!((parsed.nodes.len(), parsed.edges), (nodes, edges));
    }
    for text in [
        graph_text(&view, NOW, Terminal::PLAIN),
        graph_text(&view, NOW, Terminal { width: 0, colour: false }),
        cells_text(&cells, NOW, Terminal::PLAIN),
    ] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{feff}']));
    }
}

#[test]
fn nothing_is_drawn_as_nothing() {
    let (view, cells) = (GraphView::default(), CellGraph::default());
    assert!(graph_text(&view, NOW, Terminal::PLAIN).contains("no slots"));
    assert!(cells_text(&cells, NOW, Terminal::PLAIN).contains("no such cells"));
    for drawn in [graph_svg(&view, NOW, Frame::Alone), cells_svg(&cells, NOW, Frame::Alone)] {
        xml::parse(&drawn).unwrap();
    }
    for drawn in [graph_dot(&view, NOW), cells_dot(&cells, NOW)] {
        dot::parse(&drawn).unwrap();
    }
}
