//! What a commit would do to slots and producers, without doing it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use underbelly_storage::Timestamp;
use underbelly_storage::object::ObjectId;

use crate::batch::Batch;
use crate::error::CommitError;
use crate::graph::{
    BundleId, CellId, Effects, Event, Graph, Key, ProducerId, SlotDate, State, Submission, Write,
};
use crate::models::writes_of;
use crate::prepare::keep_last;
use crate::slots::content;
use crate::view::View;

/// What a commit would do to slots and producers. Rows of series, variables and models that are no cells wake nobody.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Explained {
    /// The cells that it would make, change, or bring into another state, in the order of their SIDs.
    pub cells: Vec<ForeseenCell>,
    /// Work that would become ready at once, or where its producer is detached, as soon as that is attached. What is due already is not
    /// among it.
    pub runs: Vec<ForeseenWork>,
    /// Work behind it that exists: it runs where what it reads comes out different.
    pub may_run: Vec<ForeseenWork>,
    /// Producers behind it that may get work of which nothing is there yet, by name.
    pub may_get_work: Vec<String>,
}

/// A cell before and after a commit that was not made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ForeseenCell {
    /// The slot.
    pub slot: String,
    /// The date.
    pub date: SlotDate,
    /// The key.
    pub key: Key,
    /// Its state before; `None` where it would be made.
    pub from: Option<State>,
    /// Its state behind the commit, before any run.
    pub to: State,
    /// Whether its effective contents would be others.
    pub changed: bool,
}

/// The work of a producer on a date and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ForeseenWork {
    /// The producer.
    pub producer: String,
    /// The date.
    pub date: SlotDate,
    /// The key values by which its bundles are told apart.
    pub key: Key,
}

impl View {
    /// What a batch would make stale and run if it were committed now. Nothing is written and nobody is woken.
    ///
    /// It works on a copy of the graph: that takes time and memory in proportion to its cells and bundles, and commits wait
    /// while it is taken. Where producers are detached there is a second copy, with all of them attached. A view has no clock: stamps that are too far ahead of it are refused by the commit alone. What a daemon would
    /// commit, [`Session::explain_commit`](crate::Session::explain_commit) explains. Of long blobs a [`Reader`](crate::Reader) knows the
    /// default [`chunk_bytes`](crate::Options::chunk_bytes) alone: where the writer has others, an equal one counts as another.
    ///
    /// # Errors
    /// Those with which [`Database::commit`](crate::Database::commit) would refuse the batch's cells and ends.
    pub fn explain_commit(&self, batch: &Batch) -> Result<Explained, CommitError> {
        batch.check()?;
        let (mut graph, of_models, seq, time) = {
            let state = self.base().state();
            // The earliest commit time that it may get.
            let time = Timestamp(state.time.0.saturating_add(1));
            (state.graph.clone(), writes_of(&state, batch, self.base().blob_limits)?, state.head + 1, time)
        };
        let mut writes = Vec::new();
        for put in &batch.cells {
            let unknown = || CommitError::UnknownSlot { slot: put.slot.clone() };
            let slot = graph.slot_by_name(&put.slot).ok_or_else(unknown)?;
            let definition = graph.slot(slot).ok_or_else(unknown)?;
            let content = |rows| Ok::<_, CommitError>(content::encode(&content::conform(definition, rows)?));
            let content = put.rows.clone().map(content).transpose()?.map(|bytes| ObjectId::of(&bytes).0);
            let (date, priority) = (put.date, put.priority);
            writes.push(Write { slot, date, key: Key::new(put.key.clone())?, priority, content });
        }
        writes.extend(of_models);
        keep_last(&mut writes);
        let (ends, backfill, as_of, session) =
            (batch.ends.clone(), batch.backfill, batch.as_of, batch.session);
        let submission = Submission { writes, ends, backfill, as_of, session, deadlines: Vec::new() };
        let event = Event::Commit(submission);
        let awake = awake(&graph, seq, time)?;
        let states: Vec<State> = (0..).map_while(|cell| graph.state(CellId(cell))).collect();
        let effects = graph.apply(seq, time, &event)?;
        let made: BTreeSet<CellId> = effects.created.iter().copied().collect();
        let changed: BTreeSet<CellId> = effects.contents.iter().map(|(cell, ..)| *cell).collect();
        let moved = effects.transitions.iter().map(|transition| transition.cell);
        let cells: BTreeSet<CellId> = made.iter().chain(&changed).copied().chain(moved).collect();
        let mut explained = Explained::default();
        for cell in cells {
            let Some(row) = graph.cell_row(cell) else { continue };
            let from = states.get(cell.0 as usize).copied().filter(|_| !made.contains(&cell));
            let changed = changed.contains(&cell);
            if from == Some(row.state) && !changed {
                continue;
            }
            let slot = graph.slot(row.slot).map_or_else(String::new, |slot| slot.name.clone());
            let (date, key, to) = (row.date, row.key.clone(), row.state);
            explained.cells.push(ForeseenCell { slot, date, key, from, to, changed });
        }
        match awake {
            Some(mut awake) => {
                let effects = awake.apply(seq, time, &event)?;
                explained.follow(&awake, &effects);
            }
            None => explained.follow(&graph, &effects),
        }
        Ok(explained)
    }
}

/// The graph with every producer attached that has runs; `None` where they are.
fn awake(graph: &Graph, seq: u64, time: Timestamp) -> Result<Option<Graph>, CommitError> {
    let producers = graph.producers().filter(|(_, definition)| !definition.daemon).map(|(id, _)| id);
    let detached: Vec<ProducerId> = producers.filter(|id| !graph.is_attached(*id)).collect();
    if detached.is_empty() {
        return Ok(None);
    }
    let mut awake = graph.clone();
    for producer in detached {
        awake.apply(seq, time, &Event::Attach { producer, host: None })?;
    }
    Ok(Some(awake))
}

impl Explained {
    /// Lists work that is ready, and what is behind it or waits for something else than what is changed.
    fn follow(&mut self, graph: &Graph, effects: &Effects) {
        let ready = &effects.ready;
        let changed: Vec<CellId> = effects.contents.iter().map(|(cell, ..)| *cell).collect();
        let work = |bundle: &BundleId| {
            let producer = graph.producer(graph.bundle_producer(*bundle)?)?.name.clone();
            let (date, key) = graph.bundle_address(*bundle)?;
            Some(ForeseenWork { producer, date, key: key.clone() })
        };
        let behind = graph.bundles_behind(ready, &changed);
        self.runs = ready.iter().filter_map(work).collect();
        self.may_run = behind.iter().filter_map(work).collect();
        // By slot, the producers that read it.
        let mut readers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut outputs: HashMap<&str, Vec<&str>> = HashMap::new();
        for (_, definition) in graph.producers() {
            for input in &definition.inputs {
                readers.entry(&input.slot).or_default().insert(&definition.name);
            }
            let slots = definition.outputs.iter().map(|output| output.slot.as_str());
            outputs.insert(&definition.name, slots.collect());
        }
        let mut found: BTreeSet<&str> = BTreeSet::new();
        let known = self.runs.iter().chain(&self.may_run);
        let mut left: Vec<&str> = known.map(|work| work.producer.as_str()).collect();
        while let Some(producer) = left.pop() {
            for slot in outputs.get(producer).into_iter().flatten() {
                for reader in readers.get(slot).into_iter().flatten() {
                    if found.insert(reader) {
                        left.push(reader);
                    }
                }
            }
        }
        let known: BTreeSet<&str> = self.may_run.iter().map(|work| work.producer.as_str()).collect();
        self.may_get_work =
            found.into_iter().filter(|name| !known.contains(name)).map(String::from).collect();
    }
}
