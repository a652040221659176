//! A graph from its image. Nothing in the image is believed: ids, keys, owners and joins are checked, and the
//! rebuilt graph must give the same image again.

use std::collections::BTreeSet;

use underbelly_storage::Timestamp;

use super::bundle::{Claim, Ending};
use super::cell::{Candidate, Cell, Moment};
use super::error::GraphError;
use super::ids::{BundleId, CellId, ProducerId, RunId, SlotDate, SlotId};
use super::image::{BundleV1, CellV1, EndingV1, GraphImageV1, MomentV1};
use super::key::Key;
use super::propagate::Pass;
use super::record::key_of;
use super::register::Known;
use super::state::State;
use super::{Graph, INTERRUPTIONS_MAX};

/// Counts above this are damage: events raise them by one.
const COUNT_MAX: u64 = 1 << 62;

fn wrong<T>(what: impl Into<String>) -> Result<T, GraphError> {
    Err(GraphError::Image { what: what.into() })
}

fn bounded(what: &str, count: u64) -> Result<u64, GraphError> {
    if count > COUNT_MAX { wrong(format!("{what} is {count}")) } else { Ok(count) }
}

impl From<MomentV1> for Moment {
    fn from(moment: MomentV1) -> Moment {
        Moment { seq: moment.seq, time: Timestamp(moment.time) }
    }
}

impl Graph {
    /// The graph whose facts these are. An image that [`Graph::to_image`] cannot have made is an error.
    pub fn from_image(image: &GraphImageV1) -> Result<Graph, GraphError> {
        let mut graph = Graph::new();
        graph.next_order = bounded("the queue's length", image.next_order)?;
        if image.cells.len() > (1 << 31) || image.bundles.len() > (1 << 31) {
            return wrong("too many cells or bundles");
        }
        for slot in &image.slots {
            let definition = slot.clone().try_into()?;
            if graph.check_slot(&definition)?.is_some() {
                return wrong(format!("slot {:?} comes twice", definition.name));
            }
            graph.define_slot(&definition);
        }
        for session in &image.producers {
            let definition = session.definition.clone().into();
            let Known::New(mut producer) = graph.check_producer(&definition)? else {
                return wrong(format!("producer {:?} comes twice", definition.name));
            };
            producer.attached = session.attached;
            producer.epoch = bounded("an epoch", session.epoch)?;
            graph.insert_producer(*producer);
        }
        for date in &image.ends {
            graph.ends.insert((*date).try_into()?);
        }
        for scope in &image.scopes {
            let Some(slot) = graph.slots.get_mut(scope.slot as usize) else {
                return wrong(format!("a scope of slot {}", scope.slot));
            };
            let date: SlotDate = scope.date.try_into()?;
            slot.scopes.entry(date).or_default().g = bounded("a scope's generation", scope.g)?;
        }
        for cell in &image.cells {
            graph.restore_cell(cell)?;
        }
        for bundle in &image.bundles {
            graph.restore_bundle(bundle)?;
        }
        graph.restore_owners()?;
        graph.check_joins()?;
        graph.check_orders()?;
        let mut pass = Pass::new(Moment::NEVER);
        pass.rebuilding = true;
        for cell in graph.cells() {
            graph.touch_cell(&mut pass, cell);
        }
        for bundle in graph.bundles() {
            graph.touch_bundle(&mut pass, bundle);
        }
        graph.settle(&mut pass);
        if graph.bundles.iter().any(|bundle| bundle.status.is_open() && bundle.order == 0) {
            return wrong("work without a place in the queue");
        }
        if graph.to_image() == *image { Ok(graph) } else { wrong("facts contradict each other") }
    }

    fn restore_cell(&mut self, image: &CellV1) -> Result<(), GraphError> {
        let (slot, date, key) = (SlotId(image.slot), image.date.try_into()?, key_of(image.key.clone())?);
        self.check_key(slot, &key)?;
        let id = CellId(self.cells.len() as u32);
        if self.cell(slot, date, &key).is_some() {
            return wrong(format!("cell {} comes twice", self.label_of(slot, date, &key)));
        }
        let mut cell = Cell::new(slot, date, key);
        for candidate in &image.candidates {
            cell.candidates.push(Candidate {
                priority: candidate.priority,
                owner: candidate.owner.map(BundleId),
                content: candidate.content,
                error: candidate.error.as_deref().map(Into::into),
                ended: candidate.ended.into(),
            });
        }
        if !cell.candidates.is_sorted_by(|a, b| a.priority > b.priority) {
            return wrong(format!("candidates of cell {id} are not in order"));
        }
        cell.effective = image.effective;
        cell.content = image.content;
        cell.g = bounded("a generation", image.g)?;
        cell.changed = image.changed.into();
        cell.verified = image.verified.into();
        cell.lagging = image.lagging;
        cell.member = image.member;
        let target = &mut self.slots[slot.at()];
        target.index_cell(id, date, &cell.key);
        target.states.counts[State::Void as usize] += 1;
        if image.member {
            target.scopes.entry(date).or_default().members.insert(id);
        }
        self.cells.push(cell);
        Ok(())
    }

    fn restore_bundle(&mut self, image: &BundleV1) -> Result<(), GraphError> {
        let id = BundleId(self.bundles.len() as u32);
        let (producer, date) = (ProducerId(image.producer), SlotDate::try_from(image.date)?);
        let key = key_of(image.key.clone())?;
        let Some(owner) = self.producers.get(producer.at()) else {
            return wrong(format!("bundle {id} of producer {producer}"));
        };
        if owner.bundles.contains_key(&(date, key.clone())) || key.values().len() != owner.columns.len() {
            return wrong(format!("bundle {id} of producer {:?} comes twice", owner.definition.name));
        }
        let mut members = Vec::new();
        for (input, slot) in owner.inputs.iter().enumerate() {
            let input = input as u16;
            if let Some(columns) = owner.input_columns.get(usize::from(input)) {
                let Some(cell) = self.cell(*slot, date, &key.project(columns)) else {
                    return wrong(format!("bundle {id} has no cell for input {input}"));
                };
                members.push((input, cell));
            } else if let Some(scope) = self.slots[slot.at()].scopes.get(&date) {
                members.extend(scope.members.iter().map(|cell| (input, *cell)));
            }
        }
        // Touches of this pass are dropped: everything is touched when all facts are there.
        self.create_bundle(&mut Pass::new(Moment::NEVER), producer, date, key, members);
        let cells = self.cells.len();
        let bundle = &mut self.bundles[id.at()];
        for token in &image.tokens {
            match bundle.edges.get_mut(&CellId(token.cell)) {
                Some(edge) => edge.token = Some(bounded("a token", token.g)?),
                None => return wrong(format!("bundle {id} read cell {}, which is no member", token.cell)),
            }
        }
        if bundle.scopes.len() != image.scopes.len() {
            return wrong(format!("bundle {id} has {} scopes", image.scopes.len()));
        }
        for (scope, token) in bundle.scopes.iter_mut().zip(&image.scopes) {
            scope.token = *token;
        }
        bundle.ending = image.ending.as_ref().map(|ending| match ending {
            EndingV1::Data => Ending::Data,
            EndingV1::Declined(reason) => Ending::Declined(reason.as_str().into()),
            EndingV1::Failed(message) => Ending::Failed(message.as_str().into()),
        });
        bundle.ended = image.ended.into();
        let epoch = self.producers[producer.at()].epoch;
        bundle.unseen = (!image.acknowledged).then_some(epoch);
        bundle.interrupted = image.interrupted;
        bundle.runs = bounded("a count of runs", image.runs)?;
        bundle.order = image.order;
        if image.interrupted >= INTERRUPTIONS_MAX {
            return wrong(format!("bundle {id} was interrupted {} times", image.interrupted));
        }
        let Some(claim) = &image.running else { return Ok(()) };
        let session = &self.producers[producer.at()];
        if !session.attached || session.epoch != claim.epoch {
            return wrong(format!("run {} of bundle {id} belongs to another session", claim.run));
        }
        let scopes_differ = claim.scopes.len() != bundle.scopes.len();
        if scopes_differ || claim.cells.iter().any(|token| token.cell as usize >= cells) {
            return wrong(format!("run {} of bundle {id} reads what is not there", claim.run));
        }
        bundle.running = Some(Claim {
            run: RunId(claim.run),
            epoch: claim.epoch,
            cells: claim.cells.iter().map(|token| (CellId(token.cell), token.g)).collect(),
            scopes: claim.scopes.clone(),
        });
        if self.runs.insert(RunId(claim.run), id).is_some() {
            return wrong(format!("run {} has two bundles", claim.run));
        }
        Ok(())
    }

    /// Candidates belong to clients, or to a bundle that may give the cell.
    fn restore_owners(&mut self) -> Result<(), GraphError> {
        for id in 0..self.cells.len() {
            let (cell, id) = (&self.cells[id], CellId(id as u32));
            let slot = cell.slot;
            for candidate in &cell.candidates {
                let provider = self.slots[slot.at()].providers.get(&candidate.priority).copied();
                let Some(owner) = candidate.owner else {
                    if provider.is_some() {
                        return wrong(format!("a client wrote cell {id} at a producer's priority"));
                    }
                    self.slots[slot.at()].client_priorities.insert(candidate.priority);
                    continue;
                };
                let Some(bundle) = self.bundles.get_mut(owner.at()) else {
                    return wrong(format!("cell {id} belongs to bundle {owner}"));
                };
                let producer = &self.producers[bundle.producer.at()];
                let positions = producer.output_positions.get(&slot).map_or(&[][..], |positions| positions);
                let fits = provider == Some(bundle.producer)
                    && bundle.date == cell.date
                    && cell.key.project(positions) == bundle.key;
                if !fits {
                    return wrong(format!("bundle {owner} cannot give cell {id}"));
                }
                bundle.outputs.insert(id);
            }
        }
        Ok(())
    }

    /// The bundles are the join, no more and no less.
    fn check_joins(&self) -> Result<(), GraphError> {
        for (at, producer) in self.producers.iter().enumerate() {
            let name = &producer.definition.name;
            if producer.is_group() {
                for slot in &producer.inputs {
                    for (date, scope) in &self.slots[slot.at()].scopes {
                        let made = producer.bundles.contains_key(&(*date, Key::empty()));
                        if !made && !scope.members.is_empty() {
                            return wrong(format!("producer {name:?} has no bundle for {date}"));
                        }
                    }
                }
                continue;
            }
            let mut joined = 0;
            for cell in producer.inputs.first().into_iter().flat_map(|slot| self.cells_of(*slot)) {
                for tuple in self.tuples_of(ProducerId(at as u32), 0, cell) {
                    joined += 1;
                    if !producer.bundles.contains_key(&(tuple.date, tuple.key)) {
                        return wrong(format!("producer {name:?} lacks a bundle for {}", tuple.date));
                    }
                }
            }
            if joined != producer.bundles.len() {
                return wrong(format!("producer {name:?} has bundles that its inputs do not make"));
            }
        }
        Ok(())
    }

    /// Places in the queue are unique and were given.
    fn check_orders(&self) -> Result<(), GraphError> {
        let mut orders = BTreeSet::new();
        for bundle in self.bundles.iter().filter(|bundle| bundle.order > 0) {
            if bundle.order >= self.next_order || !orders.insert(bundle.order) {
                return wrong(format!("place {} in the queue", bundle.order));
            }
        }
        Ok(())
    }
}
