//! Definitions enter the graph: what is refused, and what is worked out once for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use underbelly_storage::ColumnType;

use super::Graph;
use super::above::Above;
use super::apply::CLIENT;
use super::class::Need;
use super::definition::{Group, Input, Mode, ProducerDefinition, SlotDefinition, Trigger, When};
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, SlotId};
use super::pass::Pass;
use super::producer::Producer;
use super::slot::Slot;
use super::state::PStatus;

/// Most bundles of a batch. They are started together, while no other transaction is.
const BATCH_MAX: u32 = 1024;

/// The longest that something may wait.
const WAIT_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Most columns of a slot, and most inputs or outputs of a producer.
pub const DEFINITION_PARTS_MAX: usize = 4095;

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
        if let Some(members) = &definition.members {
            let is_text = |(name, of): &(String, ColumnType)| name == members && *of == ColumnType::Utf8;
            if !definition.cell_keys.iter().any(is_text) {
                return Err(GraphError::MemberKey { slot: slot(), column: members.clone() });
            }
        }
        let is_bound = |time: Option<Duration>| time.is_none_or(|time| time <= WAIT_MAX);
        if definition.fresh_for.is_some_and(|age| age.is_zero()) || !is_bound(definition.fresh_for) {
            return Err(GraphError::SlotTime { slot: slot(), what: "fresh_for" });
        }
        if !is_bound(definition.max_skew) {
            return Err(GraphError::SlotTime { slot: slot(), what: "max_skew" });
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
        if definition.daemon && !(definition.inputs.is_empty() && definition.group == Group::Each) {
            return Err(GraphError::DaemonInput { producer: name() });
        }
        if !definition.daemon && definition.inputs.iter().all(|input| input.mode != Mode::Required) {
            return Err(GraphError::NoInput { producer: name() });
        }
        if definition.outputs.is_empty() {
            return Err(GraphError::NoOutput { producer: name() });
        }
        check_proxy(definition)?;
        let parts = definition.inputs.len().max(definition.outputs.len());
        if parts > DEFINITION_PARTS_MAX {
            return Err(too_large("producer", name(), parts));
        }
        let find = |slot: &String| {
            self.slot_by_name(slot)
                .ok_or_else(|| GraphError::UnknownSlotName { producer: name(), slot: slot.clone() })
        };
        let inputs: Vec<SlotId> =
            definition.inputs.iter().map(|i| find(&i.slot)).collect::<Result<_, _>>()?;
        let mut names = BTreeSet::new();
        let mut filters = Vec::with_capacity(inputs.len());
        for (id, input) in inputs.iter().zip(&definition.inputs) {
            if input.alias.is_empty() {
                return Err(GraphError::EmptyName { what: "input" });
            }
            if !names.insert(&input.alias) {
                return Err(GraphError::DuplicateInput { producer: name(), input: input.alias.clone() });
            }
            filters.push(self.check_input(definition, input, *id)?);
        }
        let (mut outputs, mut memberships) = (BTreeMap::new(), BTreeMap::new());
        for output in &definition.outputs {
            let id = find(&output.slot)?;
            if outputs.insert(id, output.priority).is_some() {
                return Err(GraphError::DuplicateSlot { producer: name(), slot: output.slot.clone() });
            }
            let slot = &self.slots[id.at()];
            let membership = |what| GraphError::Member { producer: name(), slot: output.slot.clone(), what };
            if let Some(member) = &output.member {
                if slot.definition.members.is_none() {
                    return Err(membership("the slot has no member key; define it with one"));
                }
                if definition.inputs.iter().any(|i| i.mode == Mode::Exclusive && i.slot == output.slot) {
                    return Err(membership(
                        "a member cannot fill in what others give; take the exclusive input away",
                    ));
                }
                memberships.insert(id, Arc::from(member.as_str()));
            } else if slot.definition.members.is_some() && definition.daemon {
                return Err(membership("the slot has members; say as which one with `provides_as`"));
            }
            let member = memberships.get(&id).cloned();
            // One provides it for all, or each member for itself.
            let taken = match &member {
                Some(_) => slot.providers.get(&(output.priority, None)).copied(),
                None => slot.any_provider(output.priority),
            };
            let taken = taken.or_else(|| slot.providers.get(&(output.priority, member)).copied());
            let taken = taken.map(|p| self.producer_name(p).to_string());
            let client = slot.client_priorities.contains(&output.priority).then(|| CLIENT.to_string());
            if let Some(owner) = taken.or(client) {
                let (slot, priority) = (output.slot.clone(), output.priority);
                return Err(GraphError::PriorityTaken { slot, priority, owner });
            }
        }
        self.check_quorum(definition, &inputs)?;
        let join = self.check_join(definition, &inputs)?;
        let columns = join.columns_at(&join.bundle_columns);
        let above = above(definition, &inputs, &outputs)?;
        let reaches = self.reaches(definition, &inputs, &above, &columns)?;
        let output_positions = self.output_positions(definition, &outputs, &columns)?;
        if let Some(path) = self.cycle_through(definition, &inputs, &above, &outputs) {
            return Err(GraphError::Cycle { producer: name(), path });
        }
        if self.is_endless(definition, &inputs, &outputs) {
            return Err(GraphError::Endless { producer: name() });
        }
        Ok(Known::New(Box::new(Producer {
            definition: definition.clone(),
            needs: definition.inputs.iter().map(Need::of).collect(),
            inputs,
            outputs,
            memberships,
            columns,
            filters,
            join,
            reaches,
            above,
            holds: Vec::new(),
            open_by: Vec::new(),
            output_positions,
            rank: 0,
            attached: false,
            deregistered: false,
            host: None,
            statuses: [0; PStatus::ALL.len()],
            runs: 0,
            ready: Default::default(),
            batches: BTreeMap::new(),
            epoch: 0,
            sequence: None,
            lost_at: None,
            awaited: None,
            bundles: Default::default(),
            by_date: BTreeMap::new(),
            open_bundles: BTreeSet::new(),
        })))
    }

    /// A group that waits for members needs an input whose slot has some.
    fn check_quorum(&self, definition: &ProducerDefinition, inputs: &[SlotId]) -> Result<(), GraphError> {
        let Group::By { when: When::Quorum, columns } = &definition.group else { return Ok(()) };
        for (input, id) in definition.inputs.iter().zip(inputs) {
            let members = self.slots[id.at()].definition.members.as_deref();
            let joined = members.map(|members| input.joined_name(members));
            if input.mode == Mode::Required
                && joined.is_some_and(|name| columns.iter().any(|own| own == name))
            {
                let (producer, slot) = (definition.name.clone(), input.slot.clone());
                let what =
                    "its groups are by member, and none would have all of them; group by other columns";
                return Err(GraphError::Member { producer, slot, what });
            }
        }
        let required = definition.inputs.iter().zip(inputs).filter(|(input, _)| input.mode == Mode::Required);
        let mut slots = required.map(|(_, slot)| &self.slots[slot.at()].definition);
        match slots.any(|slot| slot.members.is_some()) {
            true => Ok(()),
            false => Err(GraphError::NoMembers { producer: definition.name.clone() }),
        }
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
                let is_lagged = definition.inputs.get(input).is_some_and(|input| input.lag > 0);
                *own == slot && !is_lagged && fills.is_none_or(|above| above.priority < priority)
            };
            inputs.iter().enumerate().any(reads)
        };
        // What waits for what may still be made follows from names: where something does, reads that runs have reported count as
        // inputs.
        let looks = |definition: &ProducerDefinition| {
            definition.inputs.iter().any(|input: &Input| input.mode != Mode::Required)
        };
        let mut all = self.producers.iter().map(|producer| &producer.definition).chain([definition]);
        let reported = if all.any(|definition| waits(definition) || looks(definition)) {
            self.reported_reads()
        } else {
            BTreeSet::new()
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
            let reported = reported.range((given.0, ProducerId(0))..=(given.0, ProducerId(u32::MAX)));
            let reported = reported.map(|(_, producer)| *producer);
            for producer in self.readers_of_its_date(given.0).chain(fillers).chain(reported) {
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
        if !self.reads_ahead() {
            return None;
        }
        let waits = waits(definition);
        let reads = |slot: SlotId| {
            let of_slot = definition.inputs.iter().zip(inputs).filter(|(_, own)| **own == slot);
            of_slot.map(|(input, _)| (false, waits || input.mode != Mode::Required)).max()
        };
        let way = self.cycle_ahead(outputs.keys().copied(), reads)?;
        let last = way.last().cloned();
        Some(last.into_iter().chain([definition.name.clone()]).chain(way).collect())
    }

    /// Whether a producer would make bundles for ever later dates: all that it requires is made of nothing but such work.
    fn is_endless(
        &self,
        definition: &ProducerDefinition,
        inputs: &[SlotId],
        outputs: &BTreeMap<SlotId, i32>,
    ) -> bool {
        let known =
            self.producers.iter().filter(|producer| !producer.deregistered && !producer.definition.daemon);
        if definition.inputs.iter().all(|input| input.lag == 0) && !known.clone().any(Producer::reads_earlier)
        {
            return false;
        }
        let own = definition.inputs.iter().zip(inputs).filter(|(input, _)| input.mode == Mode::Required);
        let own: Vec<SlotId> = own.map(|(_, slot)| *slot).collect();
        // Those of which it is not known that they come to an end.
        let mut left: Vec<(Vec<SlotId>, Vec<SlotId>)> = vec![(own, outputs.keys().copied().collect())];
        left.extend(known.map(|producer| {
            let required = producer.required().map(|(_, slot)| slot).collect();
            (required, producer.outputs.keys().copied().collect())
        }));
        loop {
            let made: BTreeSet<SlotId> = left.iter().flat_map(|(_, outputs)| outputs).copied().collect();
            let before = left.len();
            let first_ends = !left[0].0.iter().all(|slot| made.contains(slot));
            left.retain(|(required, _)| required.iter().all(|slot| made.contains(slot)));
            if first_ends || left.len() == before {
                return !first_ends;
            }
        }
    }

    /// Adds a producer that was checked, with the bundles that existing cells make for it.
    pub(super) fn register(&mut self, pass: &mut Pass, producer: Producer) -> ProducerId {
        let id = self.insert_producer(producer);
        let first = self.producers[id.at()].required().next();
        if self.producers[id.at()].is_group() {
            self.make_groups(pass, id);
        } else if let Some((input, slot)) = first {
            for cell in self.cells_of(slot).collect::<Vec<_>>() {
                self.join_cell(pass, id, input, cell);
            }
        }
        self.waiting().into_iter().for_each(|bundle| self.touch_bundle(pass, bundle));
        id
    }

    /// All bundles whose waiting depends on which producers there are: those for which something may still be made.
    pub(super) fn waiting(&self) -> Vec<BundleId> {
        let waits = |p: &&Producer| !p.holds.is_empty() || !p.above.is_empty();
        self.producers.iter().filter(waits).flat_map(|producer| producer.all_bundles()).collect()
    }

    /// Producers with an input that takes cells of a slot for the bundle's own date; once for each.
    fn readers_of_its_date(&self, slot: SlotId) -> impl Iterator<Item = ProducerId> + '_ {
        let readers = self.slots.get(slot.at()).into_iter().flat_map(|slot| &slot.readers);
        let is_same = |(reader, input): &&(ProducerId, u16)| {
            self.producers.get(reader.at()).is_some_and(|p| !p.is_lagged(usize::from(*input)))
        };
        readers.filter(is_same).map(|(reader, _)| *reader)
    }

    /// Makes the bundles of all tuples that have this cell as this input.
    pub(super) fn join_cell(&mut self, pass: &mut Pass, producer: ProducerId, input: u16, cell: CellId) {
        for tuple in self.tuples_of(producer, input, cell) {
            // A cell that is two inputs completes a tuple twice.
            if self.bundle(producer, tuple.date, &tuple.key).is_none() {
                self.create_bundle(pass, producer, tuple.date, tuple.key, tuple.cells);
            }
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
            let member = producer.memberships.get(slot).cloned();
            self.slots[slot.at()].providers.insert((*priority, member), id);
        }
        if producer.is_group() {
            self.groups.push(id);
            producer.required().for_each(|(_, slot)| self.keep_members(slot));
        }
        self.producer_names.insert(producer.definition.name.clone(), id);
        self.producers.push(producer);
        self.producer_mut(id);
        self.plan_joins(id);
        self.plan_reaches(id);
        self.plan_above(id);
        self.rank();
        self.plan_holds();
        self.lift_all();
        id
    }

    /// Ranks of slots and producers. The graph of names has no cycle but through inputs of earlier dates.
    pub(super) fn rank(&mut self) {
        let better = |graph: &Graph, slot: SlotId, priority: i32| {
            graph.slots[slot.at()].providers_above(priority).count()
        };
        let mut unranked: Vec<usize> = self.slots.iter().map(|slot| slot.providers.len()).collect();
        let missing = |producer: &Producer| {
            // Two inputs may look above the same.
            let above = producer.above.iter().map(|a| (producer.inputs[usize::from(a.input)], a.priority));
            let above: BTreeSet<(SlotId, i32)> = above.collect();
            let above = above.into_iter().map(|(slot, priority)| better(self, slot, priority));
            let same_date = |input: &usize| !producer.is_lagged(*input) && !producer.is_above(*input);
            (0..producer.inputs.len()).filter(same_date).count() + above.sum::<usize>()
        };
        let mut missing: Vec<usize> = self.producers.iter().map(missing).collect();
        let mut slots: Vec<usize> = (0..self.slots.len()).filter(|slot| unranked[*slot] == 0).collect();
        let rests_on_none = |at: &usize| missing[*at] == 0 && !self.producers[*at].deregistered;
        let mut producers: Vec<usize> = (0..missing.len()).filter(rests_on_none).collect();
        self.slots.iter_mut().for_each(|slot| slot.rank = 0);
        self.producers.iter_mut().for_each(|producer| producer.rank = 0);
        loop {
            // Who waits for what was ranked, and the rank above it.
            let (waiting, above) = if let Some(at) = slots.pop() {
                let readers = self.readers_of_its_date(SlotId(at as u32)).collect::<Vec<_>>();
                (readers, self.slots[at].rank + 1)
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
                (fillers, rank + 2)
            } else {
                break;
            };
            for waits in waiting {
                let producer = &mut self.producers[waits.at()];
                producer.rank = producer.rank.max(above);
                missing[waits.at()] -= 1;
                if missing[waits.at()] == 0 {
                    producers.push(waits.at());
                }
            }
        }
    }
}

/// Whether work upstream holds its bundles, whatever their inputs are.
fn waits(definition: &ProducerDefinition) -> bool {
    definition.group != Group::Each || definition.proxy.trigger == Trigger::Dependent
}

/// A proxy that can never start anything is refused, and so is a wait without end.
fn check_proxy(definition: &ProducerDefinition) -> Result<(), GraphError> {
    let (proxy, retry) = (definition.proxy, definition.retry);
    let wrong = |what: &'static str| Err(GraphError::Proxy { producer: definition.name.clone(), what });
    if proxy.max_batch == 0 {
        return wrong("its MAX_BATCH is 0, and no batch has fewer than one bundle");
    }
    if proxy.max_batch > BATCH_MAX {
        return wrong("its MAX_BATCH is above 1,024");
    }
    if retry.backoff.is_zero() {
        return wrong("backoff is 0: what is rejected would be tried again without end");
    }
    if proxy.max_running == 0 {
        return wrong("max_running is 0: it would never start");
    }
    if retry.max_attempts == 0 {
        return wrong("max_attempts is 0, and a run is an attempt");
    }
    if retry.max_backoff > WAIT_MAX {
        return wrong("max_backoff is above ten years");
    }
    if retry.backoff > retry.max_backoff {
        return wrong("backoff is above max_backoff");
    }
    if proxy.cutoff.is_some_and(|cutoff| cutoff > WAIT_MAX) {
        return wrong("its cutoff is above ten years");
    }
    if definition.lease.is_some_and(|lease| lease.is_zero() || lease > WAIT_MAX) {
        return wrong("its lease is 0, or above ten years");
    }
    match proxy.trigger {
        Trigger::Independent { min_batch: 0, .. } => wrong("its MIN_BATCH is 0; give at least 1"),
        Trigger::Independent { min_batch, .. } if min_batch > proxy.max_batch => {
            wrong("its MIN_BATCH is above its MAX_BATCH")
        }
        Trigger::Independent { max_wait_time, .. } if max_wait_time > WAIT_MAX => {
            wrong("its MAX_WAIT_TIME is above ten years: the last bundles would wait for ever")
        }
        _ => Ok(()),
    }
}

/// The exclusive inputs on slots that the producer provides, of the same date.
fn above(
    definition: &ProducerDefinition,
    inputs: &[SlotId],
    outputs: &BTreeMap<SlotId, i32>,
) -> Result<Vec<Above>, GraphError> {
    let mut above = Vec::new();
    for ((at, input), slot) in (0..).zip(&definition.inputs).zip(inputs) {
        let Some(priority) = outputs.get(slot).copied() else { continue };
        if input.mode != Mode::Exclusive || input.lag > 0 {
            continue;
        }
        if input.broadcast || !input.renames.is_empty() || !input.filters.is_empty() {
            let (producer, slot) = (definition.name.clone(), input.slot.clone());
            return Err(GraphError::OwnSlot { producer, slot });
        }
        above.push(Above { input: at, priority, index: 0 });
    }
    Ok(above)
}

/// The answer to a definition.
pub(super) enum Known {
    /// It is registered already.
    Same(ProducerId),
    /// It would be this.
    New(Box<Producer>),
}

pub(super) fn too_large(what: &'static str, name: String, found: usize) -> GraphError {
    GraphError::DefinitionTooLarge { what, name, found, limit: DEFINITION_PARTS_MAX }
}
