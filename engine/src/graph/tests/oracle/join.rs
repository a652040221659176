//! Which bundles there are, and what each reads: every combination of cells is tried.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::Value;

use super::super::super::*;
use super::facts::{BundleName, CellName, Facts, Port, Reading};
use super::rules::Shown;

/// An edge of a bundle: the input, and the cell that it reads.
pub(in super::super) type EdgeName = (usize, CellName);

/// The edges of bundles.
pub(super) type Joined = BTreeMap<BundleName, BTreeSet<EdgeName>>;

/// Cells, one of each of some inputs, that agree on the date and on equal names of columns.
#[derive(Clone, Default)]
struct Tuple {
    date: Option<SlotDate>,
    values: BTreeMap<String, Value>,
    edges: BTreeSet<EdgeName>,
}

impl Tuple {
    /// With one cell more; `None` where it disagrees.
    fn with(&self, at: usize, port: &Port, cell: &CellName) -> Option<Tuple> {
        let mut tuple = self.clone();
        if *tuple.date.get_or_insert(cell.1) != cell.1 {
            return None;
        }
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
    /// The natural join of these inputs of a producer, of the cells that `counts`.
    fn tuples(&self, id: ProducerId, inputs: &[usize], counts: impl Fn(&CellName) -> bool) -> Vec<Tuple> {
        let producer = &self.producers[id.at()];
        inputs.iter().fold(vec![Tuple::default()], |tuples, at| {
            let port = &producer.inputs[*at];
            let cells = self.cells.keys().filter(|cell| cell.0 == port.slot && counts(cell));
            cells
                .flat_map(|cell| tuples.iter().filter_map(|t| t.with(*at, port, cell)).collect::<Vec<_>>())
                .collect()
        })
    }

    /// Inputs that are joined with each other: of a group each alone, else all.
    fn components(&self, id: ProducerId) -> Vec<Vec<usize>> {
        let producer = &self.producers[id.at()];
        let all = 0..producer.inputs.len();
        if producer.is_group() { all.map(|at| vec![at]).collect() } else { vec![all.collect()] }
    }

    /// The bundles of a producer. `member`: which cells groups count in.
    pub fn joined(&self, id: ProducerId, member: impl Fn(&CellName) -> bool) -> Joined {
        let producer = &self.producers[id.at()];
        let mut joined = Joined::new();
        if producer.is_group() {
            for name in self.works.keys().filter(|name| name.0 == id) {
                joined.entry(name.clone()).or_default();
            }
        }
        for component in self.components(id) {
            for tuple in self.tuples(id, &component, |cell| !producer.is_group() || member(cell)) {
                let name = (id, tuple.date.unwrap(), tuple.project(&producer.columns));
                joined.entry(name).or_default().extend(tuple.edges);
            }
        }
        joined
    }

    /// What a run of the bundle reads now.
    pub fn read_now(&self, shown: &Shown, name: &BundleName) -> Reading {
        let edges = shown.bundles[name].edges.iter();
        let cells = edges.map(|edge| (edge.clone(), shown.cells[&edge.1].g)).collect();
        let producer = &self.producers[name.0.at()];
        let inputs = (0..producer.inputs.len()).filter(|_| producer.is_group());
        let scopes = inputs.map(|at| (at, scope(&shown.bundles[name].edges, at))).collect();
        Reading { cells, scopes }
    }
}

/// The cells that an input has in a group.
pub(super) fn scope(edges: &BTreeSet<EdgeName>, input: usize) -> BTreeSet<CellName> {
    edges.iter().filter(|edge| edge.0 == input).map(|edge| edge.1.clone()).collect()
}
