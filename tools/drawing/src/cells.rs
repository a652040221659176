//! Cells as squares: a panel for each slot, a row for each date or first key, a square for each cell.
//!
//! Where most rows have the same keys, squares of one key stand below one another, and the key stands above them.

mod dot;
mod svg;
mod text;

pub use dot::cells_dot;
pub use svg::cells_svg;
pub use text::cells_text;

use std::collections::{BTreeMap, BTreeSet};

use underbelly::{CellGraph, CellNode, Key, State, StateCounts, Timestamp};

use crate::words::age;

/// Rows of a panel; where there are more dates, a row is an hour, a day, a month or a year.
const ROWS_MAX: usize = 40;
/// Squares beside one another; a row that has more has several lines.
const LINE_MAX: usize = 60;
/// Edges that are drawn one by one; more would hide the cells.
const EDGES_MAX: usize = 60;
/// Cells that have a row each, so that edges between them can be followed.
const SINGLE_MAX: usize = 60;

/// The cells of one slot.
struct Panel<'a> {
    slot: &'a str,
    /// The date, where all cells have the same.
    date: Option<String>,
    states: StateCounts,
    oldest_change: Option<Timestamp>,
    newest_change: Option<Timestamp>,
    /// What stands above the squares; empty where squares of a column have nothing in common.
    headings: Vec<String>,
    rows: Vec<Row>,
}

/// A row of squares: positions of cells, or nothing where the row has no cell of the column's key.
struct Row {
    label: String,
    squares: Vec<Option<usize>>,
}

/// What a row is.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// Dates that agree in so many letters.
    Date(usize),
    /// The first value of the key.
    FirstKey,
    /// Each cell is a row.
    Cell,
    Nothing,
}

/// What the rows of a panel are: dates, coarser where there are many, the first key where there is one date.
fn rows_by(cells: &[&CellNode]) -> By {
    let dates: BTreeSet<String> = cells.iter().map(|cell| cell.date.to_string()).collect();
    if dates.len() > 1 {
        let distinct = |letters: usize| {
            let cut = |date: &String| date.chars().take(letters).collect::<String>();
            dates.iter().map(cut).collect::<BTreeSet<_>>().len()
        };
        let longest = dates.iter().map(|date| date.chars().count()).max().unwrap_or(0);
        // A whole date, then to the minute, hour, day, month and year.
        let forms = [longest, 16, 13, 10, 7, 4];
        return By::Date(forms.into_iter().find(|letters| distinct(*letters) <= ROWS_MAX).unwrap_or(4));
    }
    let firsts: BTreeSet<Key> = cells.iter().filter_map(|cell| first(&cell.key)).collect();
    let further = cells.iter().any(|cell| cell.key.values().len() > 1);
    if further && firsts.len() <= ROWS_MAX { By::FirstKey } else { By::Nothing }
}

fn part(values: &[underbelly::Value]) -> Option<Key> {
    Key::new(values.to_vec()).ok()
}

fn first(key: &Key) -> Option<Key> {
    part(key.values().get(..1)?)
}

impl<'a> Panel<'a> {
    fn of(graph: &'a CellGraph, slot: usize, single: bool) -> Option<Panel<'a>> {
        let name = graph.slots.get(slot)?;
        let positions: Vec<usize> = (0..graph.cells.len())
            .filter(|at| graph.cells.get(*at).is_some_and(|cell| cell.slot == slot))
            .collect();
        let cells: Vec<&CellNode> = positions.iter().filter_map(|at| graph.cells.get(*at)).collect();
        let one_date = cells.windows(2).all(|pair| matches!(pair, [a, b] if a.date == b.date));
        let by = if single { By::Cell } else { rows_by(&cells) };
        let mut grouped: BTreeMap<(String, Option<Key>), Vec<usize>> = BTreeMap::new();
        for (at, cell) in positions.iter().zip(&cells) {
            let row = match by {
                By::Date(letters) => (cell.date.to_string().chars().take(letters).collect(), None),
                By::FirstKey => (String::new(), first(&cell.key)),
                By::Cell if one_date => (String::new(), Some(cell.key.clone())),
                By::Cell => (cell.date.to_string(), Some(cell.key.clone())),
                By::Nothing => (String::new(), None),
            };
            grouped.entry(row).or_default().push(*at);
        }
        let column = |at: usize| {
            let cell = graph.cells.get(at)?;
            let values = cell.key.values();
            let rest = match by {
                By::Cell => &[],
                By::FirstKey => values.get(1..).unwrap_or_default(),
                _ => values,
            };
            part(rest)
        };
        let headings = headings(&grouped, &column);
        let rows = grouped
            .into_iter()
            .map(|((date, key), cells)| {
                let squares = match &headings {
                    None => cells.into_iter().map(Some).collect(),
                    Some(headings) => {
                        let placed: BTreeMap<Key, usize> =
                            cells.into_iter().filter_map(|at| Some((column(at)?, at))).collect();
                        headings.iter().map(|heading| placed.get(heading).copied()).collect()
                    }
                };
                let key = key.map(|key| key.to_string()).unwrap_or_default();
                let gap = if date.is_empty() || key.is_empty() { "" } else { " " };
                Row { label: format!("{date}{gap}{key}"), squares }
            })
            .collect();
        let times = || cells.iter().filter_map(|cell| cell.last_updated);
        Some(Panel {
            slot: name,
            date: cells.first().filter(|_| one_date).map(|cell| cell.date.to_string()),
            states: cells.iter().map(|cell| (cell.state, 1)).collect(),
            oldest_change: times().min(),
            newest_change: times().max(),
            headings: headings.unwrap_or_default().iter().map(Key::to_string).collect(),
            rows,
        })
    }

    /// Panels of all slots, in order; `single`: with a row for each cell.
    fn all(graph: &CellGraph, single: bool) -> Vec<Panel<'_>> {
        (0..graph.slots.len()).filter_map(|slot| Panel::of(graph, slot, single)).collect()
    }

    /// Squares in the longest line.
    fn across(&self) -> usize {
        self.rows.iter().map(|row| row.squares.len()).max().unwrap_or(0).min(LINE_MAX)
    }
}

/// The keys of the columns, where rows have nearly the same and they fit on a line.
fn headings(
    rows: &BTreeMap<(String, Option<Key>), Vec<usize>>,
    column: &dyn Fn(usize) -> Option<Key>,
) -> Option<Vec<Key>> {
    let longest = rows.values().map(Vec::len).max()?;
    let mut union: BTreeSet<Key> = BTreeSet::new();
    for cells in rows.values() {
        let keys: BTreeSet<Key> = cells.iter().filter_map(|at| column(*at)).collect();
        // Rows of several dates have keys more than once.
        if keys.len() < cells.len() {
            return None;
        }
        union.extend(keys);
    }
    let dense = 2 * union.len() <= 3 * longest && union.len() <= LINE_MAX;
    dense.then(|| union.into_iter().collect())
}

/// A cell as users name it: slot, date, key.
fn name(graph: &CellGraph, cell: &CellNode) -> String {
    let slot = graph.slots.get(cell.slot).map_or("", String::as_str);
    let gap = if cell.key.values().is_empty() { "" } else { " " };
    format!("{slot} {}{gap}{}", cell.date, cell.key)
}

/// A cell in words.
fn sentence(graph: &CellGraph, cell: &CellNode, now: Timestamp) -> String {
    let mut text = format!("{}: {}", name(graph, cell), cell.state);
    if let Some(then) = cell.last_updated {
        let by = cell.producer.as_ref().map(|producer| format!(" by {producer}")).unwrap_or_default();
        text.push_str(&format!(", changed {} ago{by}", age(then, now)));
    }
    if let Some(error) = &cell.error {
        text.push_str(&format!("; {error}"));
    }
    text
}

/// What to call the drawing.
fn title(graph: &CellGraph) -> String {
    let cells = crate::words::number(graph.cells.len() as u64, "cell", "cells");
    match graph.slots.as_slice() {
        [slot] => format!("{cells} of {slot}"),
        slots => format!("{cells} of {}", crate::words::number(slots.len() as u64, "slot", "slots")),
    }
}

/// Cells that nobody should miss: invalid ones, then stale ones.
fn troubles(graph: &CellGraph) -> Vec<&CellNode> {
    let of = |state: State| graph.cells.iter().filter(move |cell| cell.state == state);
    of(State::Invalid).chain(of(State::Stale)).collect()
}
