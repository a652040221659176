//! Everything for which an event is refused, before anything changes.

use std::collections::BTreeSet;

use super::Graph;
use super::apply::CLIENT;
use super::edges::EdgeKey;
use super::error::GraphError;
use super::event::{Event, Outcome, OutputWrite, Read, Setback, Used};
use super::ids::{BundleId, RunId, SlotId};
use super::key::Key;
use super::order::Lane;
use super::reads::REPORTED;
use super::state::PStatus;

/// Most cells, and most bundles before an event. One event makes fewer than as many again.
const RECORDS_MAX: usize = 1 << 31;

impl Graph {
    /// Whether [`Graph::apply`] would accept the event; the error that it would give otherwise.
    pub fn check(&self, event: &Event) -> Result<(), GraphError> {
        match event {
            Event::DefineSlot(definition) => self.check_slot(definition).map(|_| ()),
            Event::Register(definition) => {
                self.check_room(0)?;
                self.check_producer(definition).map(|_| ())
            }
            Event::Attach { producer, .. } => self.check_registered(*producer),
            Event::Reopen | Event::Tick => Ok(()),
            Event::Detach { producer, epoch, .. } => self.check_detach(*producer, *epoch),
            Event::Commit(submission) => {
                self.check_room(submission.writes.len())?;
                self.check_submission(submission)
            }
            Event::Start { bundle, run, batch } => self.check_start(*bundle, *run, *batch),
            Event::End { run, epoch, outcome, reads } => self.check_end(*run, *epoch, outcome, reads),
            Event::Several(parts) => self.check_several(parts),
            Event::Retract { cell, priority } => self.check_retract(*cell, *priority),
            Event::Force(bundle) => self.check_bundle(*bundle),
            Event::Cancel { bundle, .. } => self.check_cancel(*bundle),
            Event::Deregister(producer) => self.check_registered(*producer),
        }
    }

    fn check_room(&self, cells: usize) -> Result<(), GraphError> {
        if self.cells.len().saturating_add(cells) > RECORDS_MAX {
            return Err(GraphError::TooMany { what: "cells", count: self.cells.len() });
        }
        if self.bundles.len() > RECORDS_MAX {
            return Err(GraphError::TooMany { what: "bundles", count: self.bundles.len() });
        }
        Ok(())
    }

    /// Whether a key has the width and the types of the slot's cell keys.
    pub fn check_key(&self, slot: SlotId, key: &Key) -> Result<(), GraphError> {
        let Some(found) = self.slots.get(slot.at()) else { return Err(GraphError::UnknownSlot(slot)) };
        let columns = &found.definition.cell_keys;
        let slot = || found.definition.name.clone();
        if columns.len() != key.values().len() {
            let (expected, found) = (columns.len(), key.values().len());
            return Err(GraphError::KeyWidth { slot: slot(), key: key.clone(), expected, found });
        }
        for ((column, expected), value) in columns.iter().zip(key.values()) {
            match value.column_type() {
                Some(found) if found != *expected => {
                    let (column, expected) = (column.clone(), *expected);
                    return Err(GraphError::KeyType {
                        slot: slot(),
                        key: key.clone(),
                        column,
                        expected,
                        found,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_start(&self, bundle: BundleId, run: RunId, batch: RunId) -> Result<(), GraphError> {
        let Some(found) = self.bundles.get(bundle.at()) else {
            return Err(GraphError::UnknownBundle(bundle));
        };
        if self.runs.contains_key(&run) {
            return Err(GraphError::RunTaken(run));
        }
        let producer = &self.producers[found.producer.at()];
        let status = self.tallies[bundle.at()].status;
        if status == PStatus::Ready && producer.attached {
            let limit = producer.definition.proxy.max_running;
            return match producer.has_room(batch) {
                true => Ok(()),
                false => Err(GraphError::Busy { producer: producer.definition.name.clone(), limit }),
            };
        }
        let reason = match status {
            PStatus::Ready => format!("producer {} is detached", producer.definition.name),
            _ => self.reason(bundle),
        };
        let producer = producer.definition.name.clone();
        Err(GraphError::NotReady { bundle, producer, status, reason })
    }

    /// Whether each part would be accepted alone, and none could be refused after the others.
    fn check_several(&self, parts: &[Event]) -> Result<(), GraphError> {
        let apart = |what| Err(GraphError::Apart { what });
        let (mut bundles, mut runs, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut of_all = None;
        for part in parts {
            self.check(part)?;
            let (bundle, run, batch) = match part {
                Event::Start { bundle, run, batch } => (*bundle, run, Some(*batch)),
                Event::End { run, outcome: Outcome::Data(outputs), reads, .. } if reads.is_empty() => {
                    let bundle =
                        self.bundle_of_run(*run).ok_or(GraphError::Apart { what: "a run is unknown" })?;
                    if self.reporting > 0 || outputs.iter().any(|output| output.uses.is_some()) {
                        return apart("what they rest on may close a cycle");
                    }
                    let date = self.bundles[bundle.at()].date;
                    if !outputs.iter().all(|output| cells.insert((output.slot, date, &output.key))) {
                        return apart("two of them give the same cell");
                    }
                    (bundle, run, None)
                }
                _ => return apart("one is neither a start nor a plain end"),
            };
            if !bundles.insert(bundle) || !runs.insert(*run) {
                return apart("one is there twice");
            }
            let tally = &self.tallies[bundle.at()];
            let of = (batch, tally.producer, batch.is_none().then_some(tally.lane == Lane::Live));
            if *of_all.get_or_insert(of) != of {
                return apart("they are of different batches, producers or lanes");
            }
        }
        self.check_room(cells.len())
    }

    fn check_end(&self, run: RunId, epoch: u64, outcome: &Outcome, reads: &[Read]) -> Result<(), GraphError> {
        let fenced = GraphError::Fenced { run, epoch };
        let Some(id) = self.runs.get(&run) else { return Err(fenced) };
        let bundle = &self.bundles[id.at()];
        if bundle.running.as_ref().is_none_or(|claim| claim.epoch != epoch) {
            return Err(fenced);
        }
        let outputs = match outcome {
            Outcome::Data(outputs) => outputs.as_slice(),
            Outcome::Declined(_) | Outcome::Failed(_) | Outcome::Again { .. } => &[],
        };
        if self.is_set_back(*id, outcome) {
            // What it has read is forgotten with it.
            return Ok(());
        }
        self.check_room(outputs.len().saturating_add(reads.len()))?;
        let mut seen = BTreeSet::new();
        for output in outputs {
            self.check_output(run, *id, output)?;
            self.check_uses(run, *id, output)?;
            if !seen.insert((output.slot, &output.key)) {
                return Err(GraphError::DuplicateOutput {
                    run,
                    producer: self.producer_name(bundle.producer).to_string(),
                    slot: self.slots[output.slot.at()].definition.name.clone(),
                    key: output.key.clone(),
                });
            }
        }
        self.check_reads(*id, outputs, reads)
    }

    /// Whether a run gives nothing and its bundle is to be tried again: its attempts are not used up.
    pub(super) fn is_set_back(&self, id: BundleId, outcome: &Outcome) -> bool {
        let Outcome::Again { why, .. } = outcome else { return false };
        let bundle = &self.bundles[id.at()];
        let attempts = bundle.setbacks.as_ref().map_or(0, |setbacks| setbacks.attempts).saturating_add(1);
        let most = self.producers[bundle.producer.at()].definition.retry.max_attempts;
        *why != Setback::Failed || attempts < most
    }

    /// An output rests on what its run read.
    fn check_uses(&self, run: RunId, id: BundleId, output: &OutputWrite) -> Result<(), GraphError> {
        let bundle = &self.bundles[id.at()];
        let read = bundle.running.as_ref().map_or(&[][..], |claim| &claim.cells);
        let is_read = |used: &Used| {
            let edge = EdgeKey { source: used.cell, input: used.input };
            used.input != REPORTED && read.binary_search_by_key(&edge, |(edge, _)| *edge).is_ok()
        };
        let Some(unread) = output.uses.iter().flatten().find(|used| !is_read(used)) else { return Ok(()) };
        Err(GraphError::UnreadUse {
            run,
            producer: self.producer_name(bundle.producer).to_string(),
            slot: self.slots[output.slot.at()].definition.name.clone(),
            key: output.key.clone(),
            input: unread.input,
            cell: unread.cell,
        })
    }

    fn check_output(&self, run: RunId, id: BundleId, output: &OutputWrite) -> Result<(), GraphError> {
        let bundle = &self.bundles[id.at()];
        let producer = &self.producers[bundle.producer.at()];
        let Some(slot) = self.slots.get(output.slot.at()) else {
            return Err(GraphError::UnknownSlot(output.slot));
        };
        let (name, slot) = (|| producer.definition.name.clone(), || slot.definition.name.clone());
        let Some(positions) = producer.output_positions.get(&output.slot) else {
            return Err(GraphError::OutputSlot { run, producer: name(), slot: slot() });
        };
        self.check_key(output.slot, &output.key)?;
        let own = output.key.project(positions);
        let columns = producer.columns.iter().zip(own.values()).zip(bundle.key.values());
        for ((column, given), expected) in columns {
            if given != expected {
                return Err(GraphError::OutputKey {
                    run,
                    producer: name(),
                    slot: slot(),
                    key: output.key.clone(),
                    column: column.0.clone(),
                    bundle: id,
                });
            }
        }
        self.check_member(bundle.producer, output)
    }

    /// The name of a producer.
    pub(super) fn producer_name(&self, id: super::ProducerId) -> &str {
        self.producers.get(id.at()).map_or(CLIENT, |producer| &producer.definition.name)
    }
}
