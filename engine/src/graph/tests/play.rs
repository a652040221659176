//! Plays scripts on a stage.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::Value;

use super::super::*;
use super::oracle::{BundleName, bundle_name};
use super::script::{Script, Step};
use super::stage::{Stage, day};

#[derive(Clone)]
pub(super) struct Play {
    pub stage: Stage,
    script: Script,
    /// Producers that are still to be registered.
    late: Vec<usize>,
    /// Bundles whose results were taken back or made errors by command, so that they are no function of the inputs.
    spoiled: BTreeSet<BundleName>,
    /// Leave out what makes a result depend on more than the inputs: the last interruption that is forgiven.
    pub deterministic: bool,
    /// Whether equal contents have equal ids. Where they have not, every commit is a change.
    pub cutoff: bool,
    made: u64,
}

/// What a content says.
pub(super) fn payload(content: ContentId) -> u8 {
    content[31]
}

impl Play {
    /// Defines all slots, and registers and attaches all producers that are not late; those that are refused stay out.
    pub fn open(script: &Script) -> Play {
        let mut stage = Stage::new();
        for at in 0..script.slots.len() {
            stage.define(script.definition_of_slot(at));
        }
        let mut late = Vec::new();
        for (at, plan) in script.producers.iter().enumerate() {
            if plan.late {
                late.push(at);
            } else if let Ok(effects) = stage.apply(Event::Register(script.definition_of_producer(at))) {
                stage.apply(Event::Attach { producer: effects.producer.unwrap(), host: None }).unwrap();
            }
        }
        late.reverse();
        Play { late, deterministic: false, ..Play::on(stage, script) }
    }

    fn on(stage: Stage, script: &Script) -> Play {
        let (script, late, spoiled) = (script.clone(), Vec::new(), BTreeSet::new());
        Play { stage, script, late, spoiled, deterministic: true, cutoff: true, made: 0 }
    }

    /// A content that says this.
    pub fn content(&mut self, number: u8) -> ContentId {
        let mut content = [number; 32];
        if !self.cutoff {
            self.made += 1;
            content[..8].copy_from_slice(&self.made.to_le_bytes());
        }
        content
    }

    fn run(&self, run: usize) -> Option<Started> {
        let flying = &self.stage.flying;
        flying.values().nth(run % flying.len().max(1)).cloned()
    }

    /// What a producer makes of its inputs: for each provided slot the bundle's key values, and up to two values
    /// in each further column. `salt` 0 is a function of what the inputs say.
    pub fn product(&mut self, started: &Started, salt: u8) -> Outcome {
        let sum = started
            .inputs
            .iter()
            .fold(0u8, |sum, input| sum.wrapping_mul(3).wrapping_add(payload(input.content)));
        let sum = sum.wrapping_add(salt);
        if sum % 7 == 6 {
            return Outcome::Declined("nothing today".to_string());
        }
        let mut outputs = Vec::new();
        for (slot, key) in self.outputs(started, if sum.is_multiple_of(2) { 1 } else { 2 }) {
            outputs.push(OutputWrite::data(slot, key, self.content(sum % 4)));
        }
        match outputs.as_mut_slice() {
            [_, .., last] if sum % 7 == 5 => last.given = Given::Error("no bids".to_string()),
            [first, _, ..] if sum % 7 == 4 => first.given = Given::Absent,
            _ => {}
        }
        Outcome::Data(outputs)
    }

    /// The outputs of a bundle: where a slot has columns that the bundle has not, as many as `wide`.
    pub fn outputs(&self, started: &Started, wide: i64) -> Vec<(SlotId, Key)> {
        let graph = &self.stage.graph;
        let own = graph.bundle_columns(started.producer);
        let mut outputs = Vec::new();
        for output in &graph.producer(started.producer).unwrap().outputs {
            let slot = graph.slot_by_name(&output.slot).unwrap();
            let columns = &graph.slot(slot).unwrap().cell_keys;
            let more = columns.len() > own.len();
            for extra in 0..if more { wide } else { 1 } {
                let value = |(name, _): &(String, _)| {
                    let at = own.iter().position(|(column, _)| column == name);
                    at.map_or(Value::I64(extra), |at| started.key.values()[at].clone())
                };
                outputs.push((slot, Key::new(columns.iter().map(value).collect()).unwrap()));
            }
        }
        outputs
    }

    /// What has happened to another, up to a moment; what comes then is up to the caller.
    pub fn again(script: &Script, log: &[Event]) -> Play {
        let mut play = Play::on(Stage::new(), script);
        log.iter().for_each(|event| drop(play.stage.apply(event.clone()).unwrap()));
        play
    }

    pub fn play(&mut self) {
        for step in std::mem::take(&mut self.script.steps) {
            self.take(&step);
        }
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Commit { writes, ends } => {
                let mut given = Vec::new();
                for write in writes {
                    given.push(Write {
                        slot: SlotId(write.slot as u32),
                        date: day(write.date),
                        key: self.script.key(write.slot, write.key),
                        priority: write.priority,
                        content: write.content.map(|number| self.content(number)),
                    });
                }
                let ends = ends.iter().map(|date| day(*date)).collect();
                let _refused = self.stage.apply(Event::Commit { writes: given, ends });
            }
            Step::Register => {
                if let Some(at) = self.late.pop() {
                    let _refused = self.stage.apply(Event::Register(self.script.definition_of_producer(at)));
                }
            }
            Step::Attach(producer) => {
                let producer = ProducerId(*producer as u32);
                let _unknown = self.stage.apply(Event::Attach { producer, host: None });
            }
            Step::Start(nth) => {
                let ready: Vec<BundleId> = self.stage.graph.ready().collect();
                if let Some(bundle) = ready.get(nth % ready.len().max(1)) {
                    self.stage.start(*bundle).unwrap();
                } else {
                    assert!(self.stage.start(BundleId(*nth as u32)).is_err());
                }
            }
            Step::Give { run, salt } => {
                if let Some(started) = self.run(*run) {
                    let outcome = self.product(&started, *salt);
                    self.stage.end(started.run, outcome).unwrap();
                }
            }
            Step::Decline(run) => {
                if let Some(started) = self.run(*run) {
                    self.stage.end(started.run, Outcome::Declined("no".to_string())).unwrap();
                }
            }
            Step::Fail(run) => {
                if let Some(started) = self.run(*run) {
                    self.stage.end(started.run, Outcome::Failed("division by zero".to_string())).unwrap();
                }
            }
            Step::Late(run) => {
                if let Some(started) = self.run(*run) {
                    let outcome = self.product(&started, 0);
                    let late =
                        Event::End { run: started.run, epoch: started.epoch + 1, outcome, reads: vec![] };
                    assert!(matches!(self.stage.apply(late), Err(GraphError::Fenced { .. })));
                }
            }
            Step::Reopen(again) => {
                if self.deterministic && self.is_close_to_failing() {
                    return;
                }
                self.stage.reopen();
                if *again {
                    self.attach_all();
                }
            }
            Step::Retract(nth) => {
                let made = |owner: Option<&BundleName>| owner.is_some() || !self.deterministic;
                let oracle = &self.stage.oracle;
                let candidates: Vec<_> = oracle.candidates().filter(|(.., owner)| made(*owner)).collect();
                if let Some((name, priority, owner)) = candidates.get(nth % candidates.len().max(1)) {
                    self.spoiled.extend(owner.cloned());
                    let (name, priority) = ((*name).clone(), *priority);
                    self.retract(&name, priority);
                }
            }
            Step::Force(bundle) => {
                let _no_more = self.stage.apply(Event::Force(BundleId(*bundle as u32)));
            }
            Step::Cancel(bundle) => {
                let bundle = BundleId(*bundle as u32);
                let cancel = Event::Cancel { bundle, reason: "enough".to_string() };
                if self.stage.apply(cancel).is_ok() {
                    self.spoiled.insert(bundle_name(&self.stage.graph, bundle));
                }
            }
            Step::Deregister(producer) => {
                let id = ProducerId(*producer as u32);
                if self.stage.apply(Event::Deregister(id)).is_ok() {
                    let name = &self.stage.graph.producer(id).unwrap().name;
                    self.late.push(name[1..].parse().unwrap());
                }
            }
        }
    }

    /// Whether one interruption more would be a failure.
    pub fn is_close_to_failing(&self) -> bool {
        let graph = &self.stage.graph;
        let mut flying = graph.runs().map(|(_, bundle)| graph.bundle_info(bundle).unwrap());
        flying.any(|info| info.interrupted + 1 >= INTERRUPTIONS_MAX)
    }

    fn retract(&mut self, (slot, date, key): &(SlotId, SlotDate, Key), priority: i32) {
        let cell = self.stage.graph.cell(*slot, *date, key).unwrap();
        self.stage.apply(Event::Retract { cell, priority }).unwrap();
    }

    /// Makes good what commands spoiled: everything is then a function of what clients have committed.
    pub fn mend(&mut self) {
        for (name, priority) in self.stage.oracle.orphans() {
            self.retract(&name, priority);
        }
        for (producer, date, key) in std::mem::take(&mut self.spoiled) {
            if let Some(bundle) = self.stage.graph.bundle(producer, date, &key) {
                self.stage.apply(Event::Force(bundle)).unwrap();
            }
        }
    }

    pub fn attach_all(&mut self) {
        let producers: Vec<ProducerId> = self.stage.graph.producers().map(|(id, _)| id).collect();
        for producer in producers {
            self.stage.apply(Event::Attach { producer, host: None }).unwrap();
        }
    }

    /// Runs everything to rest with every producer attached and every date ended, and tells how many runs ended.
    pub fn drain(&mut self) -> u64 {
        self.attach_all();
        self.stage.apply(Event::Commit { writes: vec![], ends: (-1..6).map(day).collect() }).unwrap();
        let mut ends = 0;
        while ends < 1000 {
            while let Some(bundle) = self.stage.graph.next_ready() {
                self.stage.start(bundle).unwrap();
            }
            let Some(started) = self.run(0) else { break };
            let outcome = self.product(&started, 0);
            self.stage.end(started.run, outcome).unwrap();
            ends += 1;
        }
        assert!(self.stage.graph.idle(), "the work drains");
        let graph = &self.stage.graph;
        for cell in graph.cells() {
            assert_ne!(graph.view(cell), Some(View::Waiting), "no cell stays unsettled");
            assert!(!graph.cell_info(cell).unwrap().lagging);
        }
        for bundle in graph.bundles() {
            let at_rest =
                [PStatus::Parked, PStatus::Done, PStatus::Declined, PStatus::Failed, PStatus::Cancelled];
            assert!(at_rest.contains(&graph.bundle_info(bundle).unwrap().status));
        }
        ends
    }

    /// What usable cells say, by slot, date and key.
    pub fn said(&self) -> BTreeMap<(SlotId, SlotDate, Key), u8> {
        let graph = &self.stage.graph;
        let usable = graph.cells().filter(|cell| graph.view(*cell) == Some(View::Usable));
        let infos = usable.map(|cell| graph.cell_info(cell).unwrap());
        infos.map(|info| ((info.slot, info.date, info.key), payload(info.content.unwrap()))).collect()
    }

    /// Whether something is not made because of stale data that no recompute would make: contents are then no function
    /// of the sources.
    pub fn is_bound_to_history(&self) -> bool {
        self.stage.oracle.is_bound_to_history()
    }

    /// What clients have committed and not retracted.
    pub fn sources(&self) -> Vec<Write> {
        self.stage.oracle.sources()
    }
}
