//! Bundles as natural joins, kept up incrementally: a new cell probes hash indexes on (date, shared columns)
//! of the other inputs, so its cost is that of the tuples it completes.

use std::collections::BTreeSet;

use underbelly_storage::{ColumnType, Value};

use super::Graph;
use super::definition::{Group, Mode, ProducerDefinition};
use super::error::GraphError;
use super::ids::{CellId, ProducerId, SlotDate, SlotId};
use super::key::Key;
use super::register::{DEFINITION_PARTS_MAX, too_large};
use super::slot::Index;

/// Which required inputs make tuples, and how.
#[derive(Clone, Debug, Default)]
pub(super) struct Join {
    /// The union of the cell keys of the inputs that are joined, by the names under which they are, in order of
    /// appearance.
    pub columns: Vec<(String, ColumnType)>,
    /// Those of them by which bundles are addressed: all, or those of a group.
    pub bundle_columns: Vec<u16>,
    /// For each input, the column of each of its cell keys; none where it is not joined.
    pub input_columns: Vec<Vec<u16>>,
    /// The inputs that are joined.
    pub inputs: Vec<u16>,
    /// Required inputs whose cells of a date belong to each bundle of it, joined with nothing.
    pub apart: Vec<u16>,
    /// How to complete a tuple, starting from each input that is joined.
    plans: Vec<Plan>,
}

/// How to complete a tuple from one input: the other inputs in an order in which each shares columns with
/// those before it where it can.
#[derive(Clone, Debug, Default)]
struct Plan {
    steps: Vec<Step>,
}

/// One probe.
#[derive(Clone, Debug)]
struct Step {
    input: u16,
    /// Position among the indexes of the input's slot.
    index: usize,
    /// Columns that make the probe, in the order of the index's positions.
    probe: Vec<u16>,
}

/// A tuple: the key of its bundle, and one cell for each input that is joined.
pub(super) struct Tuple {
    pub date: SlotDate,
    pub key: Key,
    /// The cells, each with its input.
    pub cells: Vec<(u16, CellId)>,
}

/// A tuple that lacks cells: the values of the columns so far, and the cells.
type Partial = (Vec<Value>, Vec<(u16, CellId)>);

impl Join {
    pub fn columns_at(&self, positions: &[u16]) -> Vec<(String, ColumnType)> {
        positions.iter().filter_map(|at| self.columns.get(usize::from(*at)).cloned()).collect()
    }

    pub fn is_joined(&self, input: u16) -> bool {
        self.inputs.contains(&input)
    }

    /// The bundle columns that an input has, each with its position among the input's cell keys.
    pub fn shared(&self, input: u16) -> Vec<(u16, u16)> {
        let own = self.input_columns.get(usize::from(input)).map_or(&[][..], |own| own);
        let position = |column: &u16| own.iter().position(|own| own == column).map(|at| at as u16);
        let columns = (0..).zip(&self.bundle_columns);
        columns.filter_map(|(at, column)| Some((at, position(column)?))).collect()
    }
}

/// The order in which to bind the inputs `among` from `start`, with the columns that each shares with those before it.
fn order(input_columns: &[Vec<u16>], among: &[u16], start: u16) -> Vec<(u16, Vec<u16>)> {
    let columns = |input: u16| input_columns.get(usize::from(input)).map_or(&[][..], |columns| columns);
    let mut bound: Vec<u16> = columns(start).to_vec();
    let mut left: Vec<u16> = among.iter().copied().filter(|input| *input != start).collect();
    let mut steps = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let shares = |input: &u16| columns(*input).iter().any(|column| bound.contains(column));
        let input = left.remove(left.iter().position(shares).unwrap_or(0));
        let shared = columns(input).iter().copied().filter(|column| bound.contains(column)).collect();
        bound.extend(columns(input).iter().filter(|column| !bound.contains(column)).collect::<Vec<_>>());
        steps.push((input, shared));
    }
    steps
}

impl Graph {
    /// The required inputs that a definition joins, and those that it does not. Inputs that are not broadcast must be
    /// connected by shared columns.
    pub(super) fn check_join(
        &self,
        definition: &ProducerDefinition,
        slots: &[SlotId],
    ) -> Result<Join, GraphError> {
        let named = |input: usize| {
            let (own, slot) = (&definition.inputs[input], &self.slots[slots[input].at()]);
            slot.definition.cell_keys.iter().map(|(column, kind)| (own.joined_name(column), *kind))
        };
        let required: Vec<usize> =
            (0..slots.len()).filter(|input| definition.inputs[*input].mode == Mode::Required).collect();
        let is_broadcast = |input: usize| definition.inputs[input].broadcast;
        let (joined, apart): (Vec<usize>, Vec<usize>) = match &definition.group {
            Group::Each => (required, Vec::new()),
            Group::By { columns, .. } if columns.is_empty() => (Vec::new(), required),
            Group::By { .. } => {
                let connected = required.iter().copied().filter(|input| !is_broadcast(*input));
                let names: BTreeSet<&str> =
                    connected.flat_map(|input| named(input).map(|(n, _)| n)).collect();
                required
                    .into_iter()
                    .partition(|input| !is_broadcast(*input) || named(*input).any(|(n, _)| names.contains(n)))
            }
        };
        let mut join = Join { input_columns: vec![Vec::new(); slots.len()], ..Join::default() };
        let mut first: Vec<usize> = Vec::new();
        for input in &joined {
            for (name, column_type) in named(*input) {
                let found = join.columns.iter().position(|(column, _)| column == name);
                let at = found.unwrap_or_else(|| {
                    join.columns.push((name.to_string(), column_type));
                    first.push(*input);
                    join.columns.len() - 1
                });
                if join.columns[at].1 != column_type {
                    return Err(GraphError::JoinType {
                        producer: definition.name.clone(),
                        column: name.to_string(),
                        left_slot: definition.inputs[first[at]].slot.clone(),
                        left: join.columns[at].1,
                        right_slot: definition.inputs[*input].slot.clone(),
                        right: column_type,
                    });
                }
                join.input_columns[*input].push(at as u16);
            }
        }
        if join.columns.len() > DEFINITION_PARTS_MAX {
            return Err(too_large("producer", definition.name.clone(), join.columns.len()));
        }
        let number = |inputs: &[usize]| inputs.iter().map(|input| *input as u16).collect::<Vec<u16>>();
        (join.inputs, join.apart) = (number(&joined), number(&apart));
        let connected: Vec<u16> =
            join.inputs.iter().copied().filter(|input| !is_broadcast(usize::from(*input))).collect();
        let start = connected.first().copied().unwrap_or_default();
        let mut steps = order(&join.input_columns, &connected, start).into_iter();
        if let Some((at, _)) = steps.find(|(_, shared)| shared.is_empty()) {
            let slot = definition.inputs[usize::from(at)].slot.clone();
            return Err(GraphError::NotJoined { producer: definition.name.clone(), slot });
        }
        join.bundle_columns = match &definition.group {
            Group::Each => (0..join.columns.len() as u16).collect(),
            Group::By { columns, .. } => {
                let mut positions = Vec::with_capacity(columns.len());
                for column in columns {
                    let found = join.columns.iter().position(|(name, _)| name == column);
                    match found.map(|at| at as u16).filter(|at| !positions.contains(at)) {
                        Some(at) => positions.push(at),
                        None => {
                            let (producer, column) = (definition.name.clone(), column.clone());
                            return Err(GraphError::GroupColumn { producer, column });
                        }
                    }
                }
                positions
            }
        };
        Ok(join)
    }

    /// Makes the join plans of a producer and the indexes that they probe.
    pub(super) fn plan_joins(&mut self, producer: ProducerId) {
        let Some(described) = self.producers.get(producer.at()) else { return };
        let (join, inputs) = (described.join.clone(), described.inputs.clone());
        let mut plans = vec![Plan::default(); inputs.len()];
        for start in &join.inputs {
            let mut plan = Plan::default();
            for (input, probe) in order(&join.input_columns, &join.inputs, *start) {
                let own = &join.input_columns[usize::from(input)];
                let at = |column: &u16| own.iter().position(|own| own == column);
                let positions = probe.iter().filter_map(at).map(|at| at as u16).collect();
                let index = self.index_on(inputs[usize::from(input)], positions);
                plan.steps.push(Step { input, index, probe });
            }
            plans[usize::from(*start)] = plan;
        }
        self.producers[producer.at()].join.plans = plans;
    }

    /// The index of a slot on these positions, built where there is none.
    pub(super) fn index_on(&mut self, slot: SlotId, positions: Vec<u16>) -> usize {
        let slot = &mut self.slots[slot.at()];
        if let Some(at) = slot.indexes.iter().position(|index| index.positions == positions) {
            return at;
        }
        let mut index = Index { positions, buckets: Default::default() };
        for id in &slot.cells {
            let sheet = &self.sheets[id.at()];
            index.buckets.entry((sheet.date, sheet.key.project(&index.positions))).or_default().push(*id);
        }
        slot.indexes.push(index);
        slot.indexes.len() - 1
    }

    /// All tuples of a producer that have this cell as this input.
    pub(super) fn tuples_of(&self, producer: ProducerId, input: u16, cell: CellId) -> Vec<Tuple> {
        let producer = &self.producers[producer.at()];
        let join = &producer.join;
        let Some(plan) = join.plans.get(usize::from(input)).filter(|_| join.is_joined(input)) else {
            return Vec::new();
        };
        let found = &self.sheets[cell.at()];
        let date = producer.bundle_date(usize::from(input), found.date);
        let Some(date) = date.filter(|_| producer.passes(usize::from(input), &found.key)) else {
            return Vec::new();
        };
        let mut partial: Vec<Partial> = vec![(vec![Value::Null; join.columns.len()], Vec::new())];
        self.bind(&mut partial[0], join, input, cell);
        for step in &plan.steps {
            let at = usize::from(step.input);
            let Some(date) = producer.cell_date(at, date) else { return Vec::new() };
            let index = &self.slots[producer.inputs[at].at()].indexes[step.index];
            let mut longer = Vec::new();
            for tuple in &partial {
                let probe = step.probe.iter().map(|column| tuple.0[usize::from(*column)].clone()).collect();
                let found = index.buckets.get(&(date, Key::of_key_values(probe)));
                let is_taken = |other: &&CellId| {
                    self.is_made(**other) && producer.passes(at, &self.sheets[other.at()].key)
                };
                for other in found.into_iter().flatten().filter(is_taken) {
                    let mut tuple = tuple.clone();
                    self.bind(&mut tuple, join, step.input, *other);
                    longer.push(tuple);
                }
            }
            partial = longer;
        }
        let tuple = |(values, cells): Partial| {
            let of_bundle = join.bundle_columns.iter().map(|column| values[usize::from(*column)].clone());
            Tuple { date, key: Key::of_key_values(of_bundle.collect()), cells }
        };
        partial.into_iter().map(tuple).collect()
    }

    fn bind(&self, tuple: &mut Partial, join: &Join, input: u16, cell: CellId) {
        for (column, value) in
            join.input_columns[usize::from(input)].iter().zip(self.sheets[cell.at()].key.values())
        {
            tuple.0[usize::from(*column)] = value.clone();
        }
        tuple.1.push((input, cell));
    }
}
