//! Bundles as natural joins, kept up incrementally: a new cell probes hash indexes on (date, shared columns)
//! of the other inputs, so its cost is that of the tuples it completes.

use underbelly_storage::Value;

use super::Graph;
use super::ids::{CellId, ProducerId, SlotDate};
use super::key::Key;
use super::slot::Index;

/// How to complete a tuple from one input: the other inputs in an order in which each shares columns with
/// those before it where it can.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
}

/// One probe.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub input: usize,
    /// Position among the indexes of the input's slot.
    pub index: usize,
    /// Bundle columns that make the probe, in the order of the index's positions.
    pub probe: Vec<u16>,
}

/// A tuple: its key, and one cell for each required input.
pub(super) struct Tuple {
    pub date: SlotDate,
    pub key: Key,
    /// The cells, each with its input.
    pub cells: Vec<(u16, CellId)>,
}

/// The order in which to bind the inputs `among` from `start`, with the columns that each shares with those before it.
pub(super) fn order(input_columns: &[Vec<u16>], among: &[usize], start: usize) -> Vec<(usize, Vec<u16>)> {
    let mut bound: Vec<u16> = input_columns.get(start).cloned().unwrap_or_default();
    let mut left: Vec<usize> = among.iter().copied().filter(|input| *input != start).collect();
    let mut steps = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let shares = |input: &usize| input_columns[*input].iter().any(|column| bound.contains(column));
        let input = left.remove(left.iter().position(shares).unwrap_or(0));
        let shared = input_columns[input].iter().copied().filter(|column| bound.contains(column)).collect();
        bound
            .extend(input_columns[input].iter().filter(|column| !bound.contains(column)).collect::<Vec<_>>());
        steps.push((input, shared));
    }
    steps
}

impl Graph {
    /// Makes the join plans of a producer and the indexes that they probe.
    pub(super) fn plan_joins(&mut self, producer: ProducerId) {
        let Some(described) = self.producers.get(producer.at()) else { return };
        let input_columns = described.input_columns.clone();
        let inputs = described.inputs.clone();
        let joined: Vec<usize> = described.required().map(|(input, _)| usize::from(input)).collect();
        let joined = if described.is_group() { Vec::new() } else { joined };
        let mut plans = vec![Plan::default(); input_columns.len()];
        for start in &joined {
            let mut plan = Plan::default();
            for (input, probe) in order(&input_columns, &joined, *start) {
                let at = |column: &u16| input_columns[input].iter().position(|own| own == column);
                let positions = probe.iter().filter_map(at).map(|at| at as u16).collect();
                let index = self.index_on(inputs[input], positions);
                plan.steps.push(Step { input, index, probe });
            }
            plans[*start] = plan;
        }
        self.producers[producer.at()].plans = plans;
    }

    /// The index of a slot on these positions, built where there is none.
    pub(super) fn index_on(&mut self, slot: super::SlotId, positions: Vec<u16>) -> usize {
        let slot = &mut self.slots[slot.at()];
        if let Some(at) = slot.indexes.iter().position(|index| index.positions == positions) {
            return at;
        }
        let mut index = Index { positions, buckets: Default::default() };
        for id in &slot.cells {
            let cell = &self.cells[id.at()];
            index.buckets.entry((cell.date, cell.key.project(&index.positions))).or_default().push(*id);
        }
        slot.indexes.push(index);
        slot.indexes.len() - 1
    }

    /// All tuples of a joining producer that have this cell as this input.
    pub(super) fn tuples_of(&self, producer: ProducerId, input: usize, cell: CellId) -> Vec<Tuple> {
        let producer = &self.producers[producer.at()];
        let Some(plan) = producer.plans.get(input) else { return Vec::new() };
        let date = self.cells[cell.at()].date;
        let mut partial = vec![(vec![Value::Null; producer.columns.len()], Vec::new())];
        self.bind(&mut partial[0], &producer.input_columns[input], input, cell);
        for step in &plan.steps {
            let index = &self.slots[producer.inputs[step.input].at()].indexes[step.index];
            let mut longer = Vec::new();
            for tuple in &partial {
                let probe = step.probe.iter().map(|column| tuple.0[usize::from(*column)].clone()).collect();
                let found = index.buckets.get(&(date, Key::of_key_values(probe)));
                let made = |other: &&CellId| !self.cells[other.at()].expected;
                for other in found.into_iter().flatten().filter(made) {
                    let mut tuple = tuple.clone();
                    self.bind(&mut tuple, &producer.input_columns[step.input], step.input, *other);
                    longer.push(tuple);
                }
            }
            partial = longer;
        }
        let tuple = |(values, cells)| Tuple { date, key: Key::of_key_values(values), cells };
        partial.into_iter().map(tuple).collect()
    }

    fn bind(
        &self,
        tuple: &mut (Vec<Value>, Vec<(u16, CellId)>),
        columns: &[u16],
        input: usize,
        cell: CellId,
    ) {
        for (column, value) in columns.iter().zip(self.cells[cell.at()].key.values()) {
            tuple.0[usize::from(*column)] = value.clone();
        }
        tuple.1.push((input as u16, cell));
    }
}
