//! Plays scripts on a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use underbelly_storage::{Timestamp, Value};

use super::super::*;
use super::oracle::{BundleName, bundle_name, shifted};
use super::script::{Plan, Put, Script, Step, column_bit, value_in};
use super::stage::{Stage, day};

#[derive(Clone)]
pub(super) struct Play {
    pub stage: Stage,
    script: Script,
    /// Producers that are still to be registered.
    late: Vec<usize>,
    /// What each run in flight finds beside its inputs, as of its start.
    beside: BTreeMap<RunId, Vec<Found>>,
    /// Whether a result was refused because it closed a circle: then it depends on the past which one was.
    refused: bool,
    /// Bundles whose results were taken back or made errors by command, so that they are no function of the inputs.
    spoiled: BTreeSet<BundleName>,
    /// Leave out what makes a result depend on more than the inputs: the last interruption that is forgiven.
    pub deterministic: bool,
    /// Whether equal contents have equal ids. Where they have not, every commit is a change.
    pub cutoff: bool,
    made: u64,
}

/// A number that stands for contents in their order.
fn sum(contents: impl Iterator<Item = ContentId>) -> u8 {
    contents.fold(0, |sum: u8, content| sum.wrapping_mul(3).wrapping_add(payload(content)))
}

/// What a run reports, and the content that it found.
type Found = (Read, Option<ContentId>);

/// What a content says.
pub(super) fn payload(content: ContentId) -> u8 {
    content[31]
}

impl Play {
    /// Defines all slots, and registers and attaches all producers that are not late; those that are refused stay out.
    pub fn open(script: &Script) -> Play {
        let mut stage = Play::bare(script).stage;
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

    /// Defines all slots.
    pub fn bare(script: &Script) -> Play {
        let mut play = Play::on(Stage::new(), script);
        for at in 0..script.slots.len() {
            play.stage.define(script.definition_of_slot(at));
        }
        play
    }

    fn on(stage: Stage, script: &Script) -> Play {
        Play {
            stage,
            script: script.clone(),
            late: Vec::new(),
            beside: BTreeMap::new(),
            refused: false,
            spoiled: BTreeSet::new(),
            deterministic: true,
            cutoff: true,
            made: 0,
        }
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

    fn plan(&self, started: &Started) -> &Plan {
        let name = &self.stage.graph.producer(started.producer).unwrap().name;
        &self.script.producers[name[1..].parse::<usize>().unwrap()]
    }

    pub fn start(&mut self, bundle: BundleId) -> Started {
        let started = self.stage.start(bundle).unwrap();
        self.look_beside(&started);
        started
    }

    /// What a run that was started now reads beside its inputs.
    fn look_beside(&mut self, started: &Started) {
        let (plan, graph) = (self.plan(started), &self.stage.graph);
        let own = graph.bundle_columns(started.producer);
        let is_odd = sum(started.inputs.iter().map(|input| input.content)) % 2 == 1;
        let mut found = Vec::new();
        for planned in plan.reads.iter().filter(|planned| is_odd || !planned.odd) {
            let slot = SlotId(planned.slot as u32);
            let date = shifted(started.date, planned.days);
            let keys = &graph.slot(slot).unwrap().cell_keys;
            let value = |name: &String| {
                let at = own.iter().position(|(column, _)| column == name);
                at.map_or_else(|| value_in(column_bit(name), 0), |at| started.key.values()[at].clone())
            };
            let read = |cell: CellId| {
                let info = graph.cell_info(cell).unwrap();
                let g = info.content.map(|_| info.g);
                (Read::Cell { slot, date, key: info.key, g }, info.content)
            };
            let Some(columns) = planned.scan else {
                let key = Key::new(keys.iter().map(|(name, _)| value(name)).collect()).unwrap();
                let nothing = |key| (Read::Cell { slot, date, key, g: None }, None);
                found.push(graph.cell(slot, date, &key).map_or_else(|| nothing(key), read));
                continue;
            };
            let named = (0u16..).zip(keys).filter(|(_, (name, _))| columns & (1 << column_bit(name)) != 0);
            let (columns, values): (Vec<u16>, Vec<Value>) =
                named.map(|(at, (name, _))| (at, value(name))).unzip();
            let key = Key::new(values).unwrap();
            let cells = graph.cells_with(slot, date, &columns, &key).into_iter().map(read);
            let mut cells: Vec<Found> = cells.filter(|(_, content)| content.is_some()).collect();
            cells.sort_by_key(|(read, _)| format!("{read:?}"));
            found.extend(cells);
            found.push((Read::Scan { slot, date, columns, key }, None));
        }
        self.beside.insert(started.run, found);
    }

    /// What runs in flight have found beside their inputs, and whether that is what there is now.
    pub fn found(&self) -> Vec<String> {
        let graph = &self.stage.graph;
        let is_now = |read: &Read| match read {
            Read::Cell { slot, date, key, g } => {
                let info = graph.cell(*slot, *date, key).and_then(|cell| graph.cell_info(cell));
                let now = info.filter(|info| info.content.is_some()).map(|info| info.g);
                format!("{slot} {date} {key} {}", now == *g)
            }
            scan => format!("{scan:?}"),
        };
        let flying = self.stage.flying.keys().filter_map(|run| self.beside.get(run));
        flying
            .map(|found| format!("{:?}", found.iter().map(|(r, c)| (is_now(r), c)).collect::<Vec<_>>()))
            .collect()
    }

    /// What a run reports.
    pub fn reads(&self, started: &Started) -> Vec<Read> {
        self.beside[&started.run].iter().map(|(read, _)| read.clone()).collect()
    }

    /// Ends a run, as a failure where its result would close a circle.
    pub fn end(&mut self, started: &Started, outcome: Outcome) {
        let reads = self.reads(started);
        if let Err(error) = self.stage.end_with(started.run, outcome, reads) {
            assert!(matches!(error, GraphError::CellCycle { .. }), "{error}");
            self.refused = true;
            self.stage.end(started.run, Outcome::Failed(error.to_string())).unwrap();
        }
    }

    /// What a producer makes of what it reads: for each provided slot the bundle's key values, and up to two values
    /// in each further column. `salt` 0 is a function of what was read; where the first slot rests on the first input
    /// alone, what it is given is one of that.
    pub fn product(&mut self, started: &Started, salt: u8) -> Outcome {
        let (uses, first) = (self.plan(started).uses, started.inputs.first().map(|input| input.input));
        let own = started.inputs.iter().filter(|input| !uses || Some(input.input) == first);
        let used = own.clone().map(|input| Used { input: input.input as u16, cell: input.cell });
        let used: Option<Vec<Used>> = uses.then(|| used.collect());
        let beside = self.beside[&started.run].iter().filter_map(|(_, content)| *content);
        let inputs = started.inputs.iter().map(|input| input.content);
        let all = sum(inputs.chain(beside.clone())).wrapping_add(salt);
        let beside = beside.filter(|_| !uses);
        let sum = sum(own.map(|input| input.content).chain(beside)).wrapping_add(salt);
        if sum % 7 == 6 {
            return Outcome::Declined("nothing today".to_string());
        }
        let mut outputs = Vec::new();
        let wide = |sum: u8| if sum.is_multiple_of(2) { 1 } else { 2 };
        for (at, slot, key) in self.outputs(started, |at| wide(if at == 0 { sum } else { all })) {
            let content = self.content(if at == 0 { sum } else { all } % 4);
            let mut output = OutputWrite::data(slot, key, content);
            output.uses = used.clone().filter(|_| at == 0);
            outputs.push(output);
        }
        match outputs.as_mut_slice() {
            [_, .., last] if sum % 7 == 5 => last.given = Given::Error("no bids".to_string()),
            [first, _, ..] if sum % 7 == 4 => first.given = Given::Absent,
            _ => {}
        }
        Outcome::Data(outputs)
    }

    /// The outputs of a bundle, each with the position of its slot: where that has columns that the bundle has not, as
    /// many as `wide`.
    fn outputs(&self, started: &Started, wide: impl Fn(usize) -> i64) -> Vec<(usize, SlotId, Key)> {
        let graph = &self.stage.graph;
        let own = graph.bundle_columns(started.producer);
        let mut outputs = Vec::new();
        for (at, output) in graph.producer(started.producer).unwrap().outputs.iter().enumerate() {
            let slot = graph.slot_by_name(&output.slot).unwrap();
            let columns = &graph.slot(slot).unwrap().cell_keys;
            // Of members it names itself alone.
            let numbers = columns.iter().filter(|(name, _)| value_in(column_bit(name), 0) == Value::I64(0));
            let more = numbers.count() > own.len();
            for extra in 0..if more { wide(at) } else { 1 } {
                let member = self.plan(started).member;
                let value = |(name, _): &(String, _)| {
                    let at = own.iter().position(|(column, _)| column == name);
                    let is_member = value_in(column_bit(name), 0) != Value::I64(0);
                    let other = value_in(column_bit(name), if is_member { member } else { extra });
                    at.map_or(other, |at| started.key.values()[at].clone())
                };
                outputs.push((at, slot, Key::new(columns.iter().map(value).collect()).unwrap()));
            }
        }
        outputs
    }

    /// What has happened to another, up to a moment; what comes then is up to the caller.
    pub fn again(script: &Script, log: &[Event]) -> Play {
        let mut play = Play::on(Stage::new(), script);
        for event in log {
            for started in play.stage.apply(event.clone()).unwrap().started {
                play.look_beside(&started);
            }
        }
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
                let _refused = self.stage.apply(Event::Commit(Submission {
                    writes: given,
                    ends,
                    ..Submission::default()
                }));
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
            Step::Detach(producer) => {
                let producer = ProducerId(*producer as u32);
                let Some((epoch, _)) = self.stage.graph.session(producer) else { return };
                let _detached =
                    self.stage.apply(Event::Detach { producer, epoch, lost: epoch.is_multiple_of(2) });
            }
            Step::Start(nth) => {
                let ready: Vec<BundleId> = self.stage.graph.ready().collect();
                if let Some(bundle) = ready.get(nth % ready.len().max(1)) {
                    self.start(*bundle);
                } else {
                    assert!(self.stage.start(BundleId(*nth as u32)).is_err());
                }
            }
            Step::Give { run, salt } => {
                if let Some(started) = self.run(*run) {
                    let outcome = self.product(&started, *salt);
                    self.end(&started, outcome);
                }
            }
            Step::Decline(run) => {
                if let Some(started) = self.run(*run) {
                    self.end(&started, Outcome::Declined("no".to_string()));
                }
            }
            Step::Fail(run) => {
                if let Some(started) = self.run(*run) {
                    self.end(&started, Outcome::Failed("division by zero".to_string()));
                }
            }
            Step::Again { run, why, events } => {
                if let Some(started) = self.run(*run) {
                    let wait = Duration::from_nanos(u64::from(*events) * 10);
                    self.end(&started, Outcome::Again { why: *why, message: "busy".to_string(), wait });
                }
            }
            Step::Tick => {
                self.stage.apply(Event::Tick).unwrap();
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
            Step::Submit { daemon, again, made, writes } => self.submit(*daemon, *again, *made, writes),
            Step::Due { slot, date, events } => {
                let due_by = Timestamp(self.stage.now().0 + events * 10);
                let deadline = Deadline { slot: SlotId(*slot as u32), date: day(*date), due_by };
                let submission = Submission { deadlines: vec![deadline], ..Submission::default() };
                self.stage.apply(Event::Commit(submission)).unwrap();
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

    /// Commits as a daemon that is registered: what it provides, as it may.
    fn submit(&mut self, daemon: usize, again: bool, made: i64, writes: &[Put]) {
        let graph = &self.stage.graph;
        let daemons: Vec<ProducerId> =
            graph.producers().filter(|(_, definition)| definition.daemon).map(|(id, _)| id).collect();
        let Some(producer) = daemons.get(daemon % daemons.len().max(1)).copied() else { return };
        let name = &graph.producer(producer).unwrap().name;
        let plan = self.script.producers[name[1..].parse::<usize>().unwrap()].clone();
        let (epoch, last) = graph.session(producer).unwrap();
        let sequence = last.map_or(1, |last| if again { last } else { last + 1 });
        let (slot, priority) = plan.outputs[0];
        let mut given = Vec::new();
        for write in writes {
            let mut key = write.key;
            key[3] = plan.member;
            let has = |bit: usize| self.script.slots[slot] & (1 << bit) != 0;
            (0..3).filter(|bit| !has(*bit)).for_each(|bit| key[bit] = 0);
            let content = write.content.map(|number| self.content(number));
            let (date, key) = (day(write.date), self.script.key(slot, key));
            given.push(Write { slot: SlotId(slot as u32), date, key, priority, content });
        }
        let submission = Submission {
            writes: given,
            as_of: (made != 0).then(|| Timestamp(self.stage.now().0 + made * 10)),
            session: Some(Stamp { producer, epoch, sequence }),
            ..Submission::default()
        };
        let submitted = self.stage.apply(Event::Commit(submission));
        let is_there = self.stage.graph.is_attached(producer);
        match submitted {
            Err(GraphError::Duplicate { .. }) => assert!(again && last.is_some()),
            Err(GraphError::SessionOver { .. }) => assert!(!is_there),
            Err(GraphError::Skew { .. }) => assert!(made > 0),
            submitted => {
                let now = submitted.map(|_| self.stage.graph.session(producer).unwrap().1);
                assert_eq!(now, Ok(Some(sequence)), "a daemon that is there commits a number once");
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
        self.stage
            .apply(Event::Commit(Submission {
                writes: vec![],
                ends: (-1..6).map(day).collect(),
                ..Submission::default()
            }))
            .unwrap();
        let mut ends = 0;
        while ends < 1000 {
            while self.stage.graph.next_due().is_some() {
                self.stage.apply(Event::Tick).unwrap();
            }
            while let Some(bundle) = self.stage.graph.next_ready() {
                self.start(bundle);
            }
            let Some(started) = self.run(0) else { break };
            let outcome = self.product(&started, 0);
            self.end(&started, outcome);
            ends += 1;
        }
        assert!(self.stage.graph.idle(), "the work drains");
        let graph = &self.stage.graph;
        for cell in graph.cells() {
            let waits = self.stage.oracle.waits_for_members();
            assert!(waits || graph.view(cell) != Some(View::Waiting), "no cell stays unsettled");
            assert!(waits || !graph.cell_info(cell).unwrap().lagging);
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

    /// Whether something is not made because of stale data that no recompute would make, or was made although a
    /// recompute would not, or refused because of what was there before: contents are then no function of the sources.
    pub fn is_bound_to_history(&self) -> bool {
        self.refused || self.stage.oracle.is_bound_to_history()
    }

    /// What clients have committed and not retracted.
    pub fn sources(&self) -> Vec<Write> {
        self.stage.oracle.sources()
    }
}
