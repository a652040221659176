//! Definitions enter the graph: what is refused, and what is worked out once for each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use underbelly_storage::ColumnType;

use super::Graph;
use super::above::Above;
use super::apply::CLIENT;
use super::check::not_yet;
use super::class::Need;
use super::definition::{Group, Input, Mode, ProducerDefinition, SlotDefinition, When};
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, SlotId};
use super::join;
use super::pass::Pass;
use super::producer::Producer;
use super::slot::Slot;
use super::state::PStatus;

/// Most columns of a slot, and most inputs or outputs of a producer.
pub const DEFINITION_PARTS_MAX: usize = 4096;

impl Graph {
    /// The slot that this definition names already, if it is defined; an error if it is refused.
    pub(super) fn check_slot(&self, definition: &SlotDefinition) -> Result<Option<SlotId>, GraphError> {
        let slot = || definition.name.clone();
        if definition.name.is_empty() {
            return Err(GraphError::EmptyName { what: "slot" });
        }
        let parts = definition.columns().count();
        if parts > DEFINITION_PARTS_MAX {
            return Err(too_large("slot", slot(), parts));
        }
        let mut names = BTreeSet::new();
        for (column, _) in definition.columns() {
            if column.is_empty() {
                return Err(GraphError::EmptyName { what: "column" });
            }
            if !names.insert(column) {
                return Err(GraphError::DuplicateColumn { slot: slot(), column: column.clone() });
            }
        }
        for (column, column_type) in &definition.cell_keys {
            if *column_type == ColumnType::Bytes {
                let (column, column_type) = (column.clone(), *column_type);
                return Err(GraphError::KeyColumnType { slot: slot(), column, column_type });
            }
        }
        let table = definition.table_name();
        let Some(existing) = self.tables.get(&table).copied() else {
            return match u32::try_from(self.slots.len()) {
                Ok(_) => Ok(None),
                Err(_) => Err(GraphError::TooMany { what: "slots", count: self.slots.len() }),
            };
        };
        let other = &self.slots[existing.at()].definition;
        if other.name != definition.name {
            return Err(GraphError::TableTaken { slot: slot(), other: other.name.clone(), table });
        }
        if other != definition {
            return Err(GraphError::SlotChanged { slot: slot() });
        }
        Ok(Some(existing))
    }

    pub(super) fn define_slot(&mut self, definition: &SlotDefinition) -> SlotId {
        let id = SlotId(self.slots.len() as u32);
        self.tables.insert(definition.table_name(), id);
        self.slots.push(Slot::new(definition.clone()));
        self.note_slot(id);
        id
    }

    /// The producer that this definition names already, or how it would be at work; an error if it is refused.
    pub(super) fn check_producer(&self, definition: &ProducerDefinition) -> Result<Known, GraphError> {
        let name = || definition.name.clone();
        if definition.name.is_empty() {
            return Err(GraphError::EmptyName { what: "producer" });
        }
        if definition.name == CLIENT {
            return Err(GraphError::ReservedName { producer: name() });
        }
        if let Some(id) = self.producer_names.get(&definition.name) {
            let same = self.producers[id.at()].definition == *definition;
            return if same {
                Ok(Known::Same(*id))
            } else {
                Err(GraphError::ProducerChanged { producer: name() })
            };
        }
        if u32::try_from(self.producers.len()).is_err() {
            return Err(GraphError::TooMany { what: "producers", count: self.producers.len() });
        }
        if definition.inputs.iter().all(|input| input.mode != Mode::Required) {
            return Err(GraphError::NoInput { producer: name() });
        }
        if definition.outputs.is_empty() {
            return Err(GraphError::NoOutput { producer: name() });
        }
        let parts = definition.inputs.len().max(definition.outputs.len());
        if parts > DEFINITION_PARTS_MAX {
            return Err(too_large("producer", name(), parts));
        }
        for input in &definition.inputs {
            check_possible(input)?;
        }
        if matches!(&definition.group, Group::By { columns, when } if !columns.is_empty() || *when != When::Complete)
        {
            return not_yet("a group by columns, or one that starts early");
        }
        let find = |slot: &String| {
            self.slot_by_name(slot)
                .ok_or_else(|| GraphError::UnknownSlotName { producer: name(), slot: slot.clone() })
        };
        let inputs: Vec<SlotId> =
            definition.inputs.iter().map(|i| find(&i.slot)).collect::<Result<_, _>>()?;
        let mut seen = BTreeSet::new();
        for (id, input) in inputs.iter().zip(&definition.inputs) {
            if !seen.insert(*id) {
                return Err(GraphError::DuplicateSlot { producer: name(), slot: input.slot.clone() });
            }
        }
        let mut outputs = BTreeMap::new();
        for output in &definition.outputs {
            let id = find(&output.slot)?;
            if outputs.insert(id, output.priority).is_some() {
                return Err(GraphError::DuplicateSlot { producer: name(), slot: output.slot.clone() });
            }
            let slot = &self.slots[id.at()];
            let taken = slot.providers.get(&output.priority).map(|p| self.producer_name(*p).to_string());
            let client = slot.client_priorities.contains(&output.priority).then(|| CLIENT.to_string());
            if let Some(owner) = taken.or(client) {
                let (slot, priority) = (output.slot.clone(), output.priority);
                return Err(GraphError::PriorityTaken { slot, priority, owner });
            }
        }
        let (columns, input_columns) = match definition.group {
            Group::Each => self.join_columns(definition, &inputs)?,
            Group::By { .. } => (Vec::new(), Vec::new()),
        };
        let above = above(definition, &inputs, &outputs);
        let reaches = self.reaches(definition, &inputs, &above, &columns)?;
        let output_positions = self.output_positions(definition, &outputs, &columns)?;
        if let Some(path) = self.cycle_through(definition, &inputs, &above, &outputs) {
            return Err(GraphError::Cycle { producer: name(), path });
        }
        Ok(Known::New(Box::new(Producer {
            definition: definition.clone(),
            needs: definition.inputs.iter().map(Need::of).collect(),
            inputs,
            outputs,
            columns,
            input_columns,
            reaches,
            above,
            holds: Vec::new(),
            open_by: Vec::new(),
            output_positions,
            plans: Vec::new(),
            rank: 0,
            attached: false,
            deregistered: false,
            host: None,
            statuses: [0; PStatus::ALL.len()],
            runs: 0,
            epoch: 0,
            bundles: Default::default(),
            upstream: Vec::new(),
            groups_downstream: Vec::new(),
            open: BTreeMap::new(),
            open_bundles: BTreeSet::new(),
        })))
    }

    /// The bundle columns, and where each input's cell keys are among them. Inputs that are not broadcast must
    /// be connected by shared columns.
    fn join_columns(&self, definition: &ProducerDefinition, inputs: &[SlotId]) -> Result<Joined, GraphError> {
        let mut columns: Vec<(String, ColumnType)> = Vec::new();
        let mut first: Vec<usize> = Vec::new();
        let mut input_columns = Vec::with_capacity(inputs.len());
        for (input, id) in inputs.iter().enumerate() {
            let mut own = Vec::new();
            let is_joined = definition.inputs[input].mode == Mode::Required;
            let keys = &self.slots[id.at()].definition.cell_keys;
            for (column, column_type) in keys.iter().filter(|_| is_joined) {
                let at = columns.iter().position(|(name, _)| name == column).unwrap_or_else(|| {
                    columns.push((column.clone(), *column_type));
                    first.push(input);
                    columns.len() - 1
                });
                if columns[at].1 != *column_type {
                    return Err(GraphError::JoinType {
                        producer: definition.name.clone(),
                        column: column.clone(),
                        left_slot: definition.inputs[first[at]].slot.clone(),
                        left: columns[at].1,
                        right_slot: definition.inputs[input].slot.clone(),
                        right: *column_type,
                    });
                }
                own.push(at);
            }
            input_columns.push(own);
        }
        if columns.len() > DEFINITION_PARTS_MAX {
            return Err(too_large("producer", definition.name.clone(), columns.len()));
        }
        let input_columns: Vec<Vec<u16>> =
            input_columns.into_iter().map(|own| own.into_iter().map(|at| at as u16).collect()).collect();
        let is_joined =
            |i: &usize| definition.inputs[*i].mode == Mode::Required && !definition.inputs[*i].broadcast;
        let joined: Vec<usize> = (0..inputs.len()).filter(is_joined).collect();
        let first = joined.first().copied().unwrap_or_default();
        let lonely =
            join::order(&input_columns, &joined, first).into_iter().find(|(_, shared)| shared.is_empty());
        if let Some((at, _)) = lonely.filter(|_| !joined.is_empty()) {
            let slot = definition.inputs[at].slot.clone();
            return Err(GraphError::NotJoined { producer: definition.name.clone(), slot });
        }
        Ok((columns, input_columns))
    }

    /// Where the bundle columns are among each output's cell keys.
    fn output_positions(
        &self,
        definition: &ProducerDefinition,
        outputs: &BTreeMap<SlotId, i32>,
        columns: &[(String, ColumnType)],
    ) -> Result<BTreeMap<SlotId, Vec<u16>>, GraphError> {
        let mut positions = BTreeMap::new();
        for id in outputs.keys() {
            let slot = &self.slots[id.at()];
            let mut own = Vec::with_capacity(columns.len());
            for column in columns {
                let at = slot.definition.cell_keys.iter().position(|key| key == column);
                own.push(at.ok_or_else(|| GraphError::OutputColumn {
                    producer: definition.name.clone(),
                    slot: slot.definition.name.clone(),
                    column: column.0.clone(),
                    column_type: column.1,
                })? as u16);
            }
            positions.insert(*id, own);
        }
        Ok(positions)
    }

    /// The path from an output back to itself, if the producer would close one. What fills in a slot depends on those
    /// that provide it at higher priorities.
    fn cycle_through(
        &self,
        definition: &ProducerDefinition,
        inputs: &[SlotId],
        above: &[Above],
        outputs: &BTreeMap<SlotId, i32>,
    ) -> Option<Vec<String>> {
        type Given = (SlotId, i32);
        let closes = |(slot, priority): Given| {
            let reads = |(input, own): (usize, &SlotId)| {
                let fills = above.iter().find(|above| usize::from(above.input) == input);
                *own == slot && fills.is_none_or(|above| above.priority < priority)
            };
            inputs.iter().enumerate().any(reads)
        };
        let start = outputs.iter().map(|(slot, priority)| (*slot, *priority));
        let mut reached: BTreeMap<Given, Option<(Given, ProducerId)>> =
            start.clone().map(|at| (at, None)).collect();
        let mut left: Vec<Given> = start.collect();
        while let Some(given) = left.pop() {
            let slot_name = |slot: SlotId| self.slots[slot.at()].definition.name.clone();
            if closes(given) {
                // Walked backwards: the input, what leads to it, this producer's output, this producer, the input.
                let mut path = vec![slot_name(given.0)];
                let mut at = given;
                while let Some(Some((before, producer))) = reached.get(&at) {
                    path.push(self.producer_name(*producer).to_string());
                    path.push(slot_name(before.0));
                    at = *before;
                }
                path.push(definition.name.clone());
                path.push(slot_name(given.0));
                path.reverse();
                return Some(path);
            }
            let slot = &self.slots[given.0.at()];
            let fillers = slot.fillers.range(..given.1).map(|(_, producer)| *producer);
            for producer in slot.readers.iter().map(|(reader, _)| *reader).chain(fillers) {
                for output in
                    self.producers[producer.at()].outputs.iter().map(|(slot, priority)| (*slot, *priority))
                {
                    if let std::collections::btree_map::Entry::Vacant(place) = reached.entry(output) {
                        place.insert(Some((given, producer)));
                        left.push(output);
                    }
                }
            }
        }
        None
    }

    /// Adds a producer that was checked, with the bundles that existing cells make for it.
    pub(super) fn register(&mut self, pass: &mut Pass, producer: Producer) -> ProducerId {
        let id = self.insert_producer(producer);
        let first = self.producers[id.at()].required().next();
        if self.producers[id.at()].is_group() {
            self.make_groups(pass, id);
        } else if let Some((input, slot)) = first {
            for cell in self.cells_of(slot).collect::<Vec<_>>() {
                self.join_cell(pass, id, usize::from(input), cell);
            }
        }
        let groups = self.producers[id.at()].groups_downstream.clone();
        self.waiting(&groups).into_iter().for_each(|bundle| self.touch_bundle(pass, bundle));
        id
    }

    /// All bundles whose waiting depends on which producers there are: those of these groups, and those for which
    /// something may still be made.
    pub(super) fn waiting(&self, groups: &[ProducerId]) -> Vec<BundleId> {
        let waits = |p: &&Producer| !p.holds.is_empty() || !p.above.is_empty();
        let waiting = self.producers.iter().filter(waits);
        let of_groups = groups.iter().filter_map(|group| self.producers.get(group.at()));
        waiting.chain(of_groups).flat_map(|producer| producer.bundles.values().copied()).collect()
    }

    /// Makes the bundles of all tuples that have this cell as this input.
    pub(super) fn join_cell(&mut self, pass: &mut Pass, producer: ProducerId, input: usize, cell: CellId) {
        for tuple in self.tuples_of(producer, input, cell) {
            self.create_bundle(pass, producer, tuple.date, tuple.key, tuple.cells);
        }
    }

    pub(super) fn insert_producer(&mut self, producer: Producer) -> ProducerId {
        let id = ProducerId(self.producers.len() as u32);
        for (input, slot) in producer.inputs.iter().enumerate() {
            if !producer.is_above(input) {
                self.slots[slot.at()].readers.push((id, input as u16));
            }
        }
        for above in &producer.above {
            let slot = producer.inputs[usize::from(above.input)];
            self.slots[slot.at()].fillers.insert(above.priority, id);
        }
        for (slot, priority) in &producer.outputs {
            self.slots[slot.at()].providers.insert(*priority, id);
        }
        if producer.is_group() {
            self.groups.push(id);
        }
        self.producer_names.insert(producer.definition.name.clone(), id);
        self.producers.push(producer);
        self.producer_mut(id);
        self.plan_joins(id);
        self.plan_reaches(id);
        self.plan_above(id);
        self.rank();
        self.plan_holds();
        id
    }

    /// Ranks of slots and producers, and who is upstream of whom. The name graph has no cycle.
    pub(super) fn rank(&mut self) {
        let better = |graph: &Graph, slot: SlotId, priority: i32| {
            graph.slots[slot.at()].providers.range((Bound::Excluded(priority), Bound::Unbounded)).count()
        };
        let mut unranked: Vec<usize> = self.slots.iter().map(|slot| slot.providers.len()).collect();
        let missing = |producer: &Producer| {
            let above = producer.above.iter();
            let above =
                above.map(|a| better(self, producer.inputs[usize::from(a.input)], a.priority)).sum::<usize>();
            producer.inputs.len() - producer.above.len() + above
        };
        let mut missing: Vec<usize> = self.producers.iter().map(missing).collect();
        let mut slots: Vec<usize> = (0..self.slots.len()).filter(|slot| unranked[*slot] == 0).collect();
        let mut producers: Vec<usize> = Vec::new();
        let mut upstream: Vec<BTreeSet<ProducerId>> = vec![BTreeSet::new(); self.producers.len()];
        self.slots.iter_mut().for_each(|slot| slot.rank = 0);
        self.producers.iter_mut().for_each(|producer| producer.rank = 0);
        loop {
            // Who waits for what was ranked, what that rests on, and the rank above it.
            let (waiting, providers, above) = if let Some(slot) = slots.pop() {
                let slot = &self.slots[slot];
                let readers: Vec<ProducerId> = slot.readers.iter().map(|(reader, _)| *reader).collect();
                (readers, slot.providers.values().copied().collect::<Vec<_>>(), slot.rank + 1)
            } else if let Some(at) = producers.pop() {
                let rank = self.producers[at].rank;
                let mut fillers = Vec::new();
                for (slot, priority) in self.producers[at].outputs.clone() {
                    let target = &mut self.slots[slot.at()];
                    target.rank = target.rank.max(rank + 1);
                    unranked[slot.at()] -= 1;
                    if unranked[slot.at()] == 0 {
                        slots.push(slot.at());
                    }
                    fillers.extend(target.fillers.range(..priority).map(|(_, filler)| *filler));
                }
                (fillers, vec![ProducerId(at as u32)], rank + 2)
            } else {
                break;
            };
            for waits in waiting {
                for provider in &providers {
                    let further = upstream[provider.at()].clone();
                    upstream[waits.at()].insert(*provider);
                    upstream[waits.at()].extend(further);
                }
                let producer = &mut self.producers[waits.at()];
                producer.rank = producer.rank.max(above);
                missing[waits.at()] -= 1;
                if missing[waits.at()] == 0 {
                    producers.push(waits.at());
                }
            }
        }
        for producer in &mut self.producers {
            producer.groups_downstream.clear();
        }
        for (at, upstream) in upstream.into_iter().enumerate() {
            if self.producers[at].is_group() {
                for producer in &upstream {
                    self.producers[producer.at()].groups_downstream.push(ProducerId(at as u32));
                }
            }
            self.producers[at].upstream = upstream.into_iter().collect();
        }
    }
}

/// The exclusive inputs on slots that the producer provides.
fn above(definition: &ProducerDefinition, inputs: &[SlotId], outputs: &BTreeMap<SlotId, i32>) -> Vec<Above> {
    let inputs = (0..).zip(&definition.inputs).zip(inputs);
    let exclusive = inputs.filter(|((_, input), _)| input.mode == Mode::Exclusive);
    exclusive
        .filter_map(|((input, _), slot)| Some(Above { input, priority: *outputs.get(slot)?, index: 0 }))
        .collect()
}

/// The answer to a definition.
pub(super) enum Known {
    /// It is registered already.
    Same(ProducerId),
    /// It would be this.
    New(Box<Producer>),
}

/// Refuses inputs that are defined and not built.
fn check_possible(input: &Input) -> Result<(), GraphError> {
    match input {
        Input { alias, slot, .. } if alias != slot => not_yet("an input under another name"),
        Input { renames, .. } if !renames.is_empty() => not_yet("an input with renamed columns"),
        Input { filters, .. } if !filters.is_empty() => not_yet("a filtered input"),
        Input { lag, .. } if *lag > 0 => not_yet("an input of an earlier date"),
        _ => Ok(()),
    }
}

type Joined = (Vec<(String, ColumnType)>, Vec<Vec<u16>>);

fn too_large(what: &'static str, name: String, found: usize) -> GraphError {
    GraphError::DefinitionTooLarge { what, name, found, limit: DEFINITION_PARTS_MAX }
}
