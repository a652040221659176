//! Which bundles there are, and what each reads: every combination of cells is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use underbelly_storage::{Date, Timestamp, Value};

use super::super::super::*;
use super::facts::{BundleName, CellName, Facts, Port, Reading};
use super::rules::Shown;

/// An edge of a bundle: the input, and the cell that it reads.
pub(in super::super) type EdgeName = (usize, CellName);

/// The edges of bundles.
pub(super) type Joined = BTreeMap<BundleName, BTreeSet<EdgeName>>;

/// Cells, one of each of some inputs, that agree on equal names of columns.
#[derive(Clone, Default)]
struct Tuple {
    values: BTreeMap<String, Value>,
    edges: BTreeSet<EdgeName>,
}

impl Tuple {
    /// With one cell more; `None` where it disagrees.
    fn with(&self, at: usize, port: &Port, cell: &CellName) -> Option<Tuple> {
        let mut tuple = self.clone();
        for (column, value) in port.columns.iter().zip(cell.2.values()) {
            if tuple.values.entry(column.clone()).or_insert_with(|| value.clone()) != value {
                return None;
            }
        }
        tuple.edges.insert((at, cell.clone()));
        Some(tuple)
    }

    fn project(&self, columns: &[String]) -> Key {
        Key::new(columns.iter().map(|column| self.values[column].clone()).collect()).unwrap()
    }
}

impl Facts {
    /// The cells that an input takes for bundles of a date, whatever their keys.
    fn taken(&self, port: &Port, date: SlotDate) -> impl Iterator<Item = &CellName> {
        let cells = self.cells.keys().filter(move |cell| (cell.0, cell.1) == (port.slot, port.date(date)));
        cells.filter(|cell| port.passes(&cell.2))
    }

    /// Dates of which there may be bundles.
    pub fn dates(&self, id: ProducerId) -> BTreeSet<SlotDate> {
        let works = self.works.keys().filter(|name| name.0 == id).map(|name| name.1);
        let lags = self.producers[id.at()].required().map(|(_, port)| port.lag);
        let cells = lags.flat_map(|lag| self.cells.keys().map(move |cell| shifted(cell.1, lag as i32)));
        works.chain(cells).collect()
    }

    /// The bundles of a producer for a date. `member`: which cells groups count in. A group that was there once stays.
    pub fn joined(&self, id: ProducerId, date: SlotDate, member: impl Fn(&CellName) -> bool) -> Joined {
        let producer = &self.producers[id.at()];
        let of_date = self.works.keys().filter(|name| (name.0, name.1) == (id, date));
        let old = of_date.filter(|_| producer.is_group()).map(|name| (name.clone(), BTreeSet::new()));
        let mut joined: Joined = old.collect();
        let counts = |cell: &&CellName| !producer.is_group() || member(cell);
        let tuples = producer.joined.iter().fold(vec![Tuple::default()], |tuples, at| {
            let port = &producer.inputs[*at];
            let cells = self.taken(port, date).filter(counts);
            cells
                .flat_map(|cell| tuples.iter().filter_map(|t| t.with(*at, port, cell)).collect::<Vec<_>>())
                .collect()
        });
        for tuple in tuples.into_iter().filter(|tuple| !tuple.edges.is_empty()) {
            let name = (id, date, tuple.project(&producer.columns));
            joined.entry(name).or_default().extend(tuple.edges);
        }
        // What is joined with nothing belongs to each bundle of the date; with nothing else it makes the one there is.
        let apart = producer.required().filter(|(at, _)| !producer.joined.contains(at));
        let apart = apart.flat_map(|(at, port)| self.taken(port, date).map(move |cell| (at, cell.clone())));
        let apart: BTreeSet<EdgeName> = apart.filter(|(_, cell)| member(cell)).collect();
        if producer.joined.is_empty() && !apart.is_empty() {
            joined.entry((id, date, Key::empty())).or_default();
        }
        for (name, edges) in &mut joined {
            edges.extend(apart.iter().cloned());
            edges.extend(self.reached(name));
            edges.extend(self.reported_edges(name));
        }
        joined
    }

    /// The cells of inputs that make no bundles: those that agree with the bundle on its columns.
    fn reached(&self, name: &BundleName) -> Vec<EdgeName> {
        let producer = &self.producers[name.0.at()];
        let mut edges = Vec::new();
        for (at, port) in (0..).zip(&producer.inputs) {
            if port.mode != Mode::Required && self.fills(name.0, at).is_none() {
                let agrees = |cell: &&CellName| self.agrees(name, &port.columns, &cell.2);
                edges.extend(self.taken(port, name.1).filter(agrees).map(|cell| (at, cell.clone())));
            }
        }
        edges
    }

    /// The cells that a bundle of this name fills in through an exclusive input on its own slot.
    pub fn filled(&self, name: &BundleName, at: usize) -> Vec<CellName> {
        let port = &self.producers[name.0.at()].inputs[at];
        let keys: Vec<String> =
            self.slots[port.slot.at()].cell_keys.iter().map(|(key, _)| key.clone()).collect();
        let cells = self.cells.keys().filter(|cell| cell.0 == port.slot && cell.1 == name.1);
        cells.filter(|cell| self.agrees(name, &keys, &cell.2)).cloned().collect()
    }

    /// Whether values of these columns are those of the bundle, where it has such columns.
    pub fn agrees(&self, name: &BundleName, columns: &[String], key: &Key) -> bool {
        let producer = &self.producers[name.0.at()];
        let own: BTreeMap<&String, &Value> = producer.columns.iter().zip(name.2.values()).collect();
        let mut values = columns.iter().zip(key.values());
        values.all(|(column, value)| own.get(column).is_none_or(|own| *own == value))
    }

    /// What a run of the bundle reads now.
    pub fn read_now(&self, shown: &Shown, name: &BundleName) -> Reading {
        let producer = &self.producers[name.0.at()];
        let edges = &shown.bundles[name].edges;
        let read = edges.iter().filter(|(at, cell)| shown.cells[cell].is_there(producer.port(*at)));
        let cells = read.map(|edge| (edge.clone(), shown.cells[&edge.1].g)).collect();
        let inputs = producer.required().filter(|_| producer.is_group());
        let scopes = inputs.map(|(at, _)| (at, scope(edges, at))).collect();
        Reading { cells, scopes }
    }

    /// What a cancellation reads: of a cell that is being made again, what it has so far.
    pub fn read_so_far(&self, shown: &Shown, name: &BundleName) -> Reading {
        let mut reading = self.read_now(shown, name);
        for edge in &shown.bundles[name].edges {
            let source = &shown.cells[&edge.1];
            let mode = self.producers[name.0.at()].port(edge.0).mode;
            if mode != Mode::Exclusive && source.standing.view == View::Waiting && source.g > 0 {
                reading.cells.entry(edge.clone()).or_insert(source.g);
            }
        }
        reading
    }
}

/// The cells that an input has in a group.
pub(super) fn scope(edges: &BTreeSet<EdgeName>, input: usize) -> BTreeSet<CellName> {
    edges.iter().filter(|edge| edge.0 == input).map(|edge| edge.1.clone()).collect()
}

/// So many days later.
pub(in super::super) fn shifted(date: SlotDate, days: i32) -> SlotDate {
    match date {
        SlotDate::Day(day) => SlotDate::Day(Date(day.0 + days)),
        SlotDate::Instant(at) => SlotDate::Instant(Timestamp(at.0 + i64::from(days) * 86_400_000_000_000)),
    }
}

impl Port {
    /// The date of the cells that it takes for bundles of a date.
    pub fn date(&self, bundle: SlotDate) -> SlotDate {
        shifted(bundle, -(self.lag as i32))
    }

    pub fn passes(&self, key: &Key) -> bool {
        let keys = self.keys.iter().zip(key.values());
        let values: BTreeMap<&String, &Value> = keys.collect();
        self.filters.iter().all(|filter| takes(filter, values[&filter.column]))
    }
}

/// Whether a filter takes a value of its column.
pub(super) fn takes(filter: &Filter, value: &Value) -> bool {
    match &filter.test {
        FilterTest::OneOf(these) => these.contains(value),
        FilterTest::NoneOf(these) => !these.contains(value),
        FilterTest::Between(from, to) => {
            let number = |value: &Value| match value {
                Value::I64(number) => *number,
                // Members are called m0, m1, …
                Value::Utf8(name) => name[1..].parse().unwrap(),
                other => panic!("a range of {other:?}"),
            };
            let range = (from.as_ref().map(number), to.as_ref().map(number));
            range.contains(&number(value))
        }
    }
}
