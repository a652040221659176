//! Random systems and random scripts, each step compared with the oracle.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use underbelly_storage::{ColumnType, Value};

use super::super::*;
use super::stage::{Stage, content, day};

const COLUMNS: [&str; 3] = ["x", "y", "z"];

/// A producer of a random system: numbers that pick slots, and flags.
#[derive(Clone, Debug)]
struct Plan {
    inputs: (u8, Option<u8>),
    third: Option<u8>,
    outputs: (u8, Option<u8>),
    group: bool,
    priority: i32,
    /// Declared as it comes, without regard to cycles, joins and columns: mostly refused.
    wild: bool,
}

/// Slots by their key columns (bit sets over `COLUMNS`), producers by plans.
#[derive(Clone, Debug)]
struct System {
    slots: Vec<u8>,
    producers: Vec<Plan>,
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        slot: u8,
        date: i32,
        key: [i64; 3],
        priority: bool,
        content: Option<u8>,
    },
    Two {
        slot: u8,
        date: i32,
        keys: [[i64; 3]; 2],
        content: u8,
    },
    EndOf(i32),
    Register,
    Attach(u8),
    Start(u8),
    Give {
        run: u8,
        salt: u8,
    },
    Decline(u8),
    Fail(u8),
    WrongEpoch(u8),
    /// Whether the producers are attached again at once.
    Reopen(bool),
}

fn systems() -> impl Strategy<Value = System> {
    let two = || (any::<u8>(), prop::option::weighted(0.5, any::<u8>()));
    let third = prop::option::weighted(0.3, any::<u8>());
    let plan = (two(), third, two(), prop::bool::weighted(0.3), 1..4i32, prop::bool::weighted(0.1)).prop_map(
        |(inputs, third, outputs, group, priority, wild)| Plan {
            inputs,
            third,
            outputs,
            group,
            priority,
            wild,
        },
    );
    let slots = prop::collection::vec(prop::sample::select(vec![0u8, 1, 1, 2, 3, 3, 3, 7]), 2..=5);
    (slots, prop::collection::vec(plan, 1..=4)).prop_map(|(mut slots, producers)| {
        slots.sort_by_key(|columns| columns.count_ones());
        System { slots, producers }
    })
}

fn steps(deterministic: bool) -> impl Strategy<Value = Vec<Step>> {
    let key = || [0..2i64, 0..2i64, 0..1i64];
    let low = || prop::sample::select(vec![0u8, 0, 0, 1, 1, 2, 3, 4]);
    let salt = if deterministic { 0..1u8 } else { 0..3u8 };
    let step = prop_oneof![
        6 => (low(), 0..2i32, key(), prop::bool::weighted(0.1), prop::option::weighted(0.8, 0..3u8))
            .prop_map(|(slot, date, key, priority, content)| Step::Write { slot, date, key, priority, content }),
        3 => (low(), 0..2i32, [key(), key()], 0..3u8)
            .prop_map(|(slot, date, keys, content)| Step::Two { slot, date, keys, content }),
        2 => (0..2i32).prop_map(Step::EndOf),
        1 => Just(Step::Register),
        3 => (0..4u8).prop_map(Step::Attach),
        12 => (0..4u8).prop_map(Step::Start),
        10 => (0..4u8, salt).prop_map(|(run, salt)| Step::Give { run, salt }),
        1 => (0..4u8).prop_map(move |run| if deterministic { Step::Start(run) } else { Step::Decline(run) }),
        1 => (0..4u8).prop_map(move |run| if deterministic { Step::Start(run) } else { Step::Fail(run) }),
        1 => (0..4u8).prop_map(Step::WrongEpoch),
        1 => prop::bool::weighted(0.8).prop_map(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

struct Play {
    stage: Stage,
    columns: Vec<u8>,
    pending: Vec<ProducerDefinition>,
    /// Leave out what makes a result depend on more than the inputs: the last interruption that is forgiven.
    deterministic: bool,
}

impl Play {
    /// Defines all slots, and registers and attaches all producers but the last; those that are refused stay out.
    fn open(system: &System) -> Play {
        let mut stage = Stage::new();
        for (at, columns) in system.slots.iter().enumerate() {
            let mut slot = SlotDefinition::new(format!("s{at}"));
            for (bit, column) in COLUMNS.iter().enumerate().filter(|(bit, _)| columns & (1 << bit) != 0) {
                let _ = bit;
                slot = slot.cell_key(*column, ColumnType::I64);
            }
            stage.define(slot);
        }
        let mut pending: Vec<ProducerDefinition> = system
            .producers
            .iter()
            .enumerate()
            .map(|(at, plan)| Self::definition(system, at, plan))
            .collect();
        let late = pending.pop();
        for definition in pending {
            if let Ok(effects) = stage.apply(Event::Register(definition)) {
                stage.apply(Event::Attach { producer: effects.producer.unwrap(), host: None }).unwrap();
            }
        }
        Play {
            stage,
            columns: system.slots.clone(),
            pending: late.into_iter().collect(),
            deterministic: false,
        }
    }

    fn definition(system: &System, at: usize, plan: &Plan) -> ProducerDefinition {
        let count = system.slots.len();
        let below = if plan.wild { count } else { count - 1 };
        let both = |(a, b): (u8, Option<u8>)| [Some(a), b].into_iter().flatten().map(usize::from);
        let inputs: BTreeSet<usize> =
            both(plan.inputs).chain(plan.third.map(usize::from)).map(|pick| pick % below).collect();
        let columns = inputs.iter().fold(0, |columns, slot| columns | system.slots[*slot]);
        let fits = |slot: &usize| {
            let above = inputs.iter().all(|input| input < slot);
            plan.wild || (above && (plan.group || columns & !system.slots[*slot] == 0))
        };
        let open: Vec<usize> = (0..count).filter(fits).collect();
        let outputs: BTreeSet<usize> =
            both(plan.outputs).filter_map(|pick| open.get(pick % open.len().max(1)).copied()).collect();
        let mut definition = ProducerDefinition::new(format!("p{at}"));
        let mut joined = 0;
        for (position, slot) in inputs.into_iter().enumerate() {
            let lonely = position > 0 && joined & system.slots[slot] == 0;
            joined |= system.slots[slot];
            let input = Input::required(format!("s{slot}"));
            definition.inputs.push(Input { broadcast: lonely && !plan.wild, ..input });
        }
        for slot in outputs {
            definition = definition.provides_at(format!("s{slot}"), plan.priority);
        }
        definition.group = if plan.group { Group::BY_DATE } else { Group::Each };
        definition
    }

    fn key(&self, slot: usize, values: [i64; 3]) -> Key {
        let bits = self.columns[slot];
        let own = (0..3).filter(|bit| bits & (1 << bit) != 0);
        Key::new(own.map(|bit| Value::I64(values[bit])).collect()).unwrap()
    }

    fn run(&self, run: u8) -> Option<Started> {
        let flying = &self.stage.flying;
        flying.values().nth(usize::from(run) % flying.len().max(1)).cloned()
    }

    /// What a producer makes of its inputs: for each provided slot the bundle's key values, and up to two values
    /// in each further column. `salt` 0 is a function of the inputs' contents.
    fn product(&self, started: &Started, salt: u8) -> Outcome {
        let producer = &self.stage.graph.producers[started.producer.at()];
        let sum =
            started.inputs.iter().fold(0u8, |sum, input| sum.wrapping_mul(3).wrapping_add(input.content[0]));
        let sum = sum.wrapping_add(salt);
        if sum % 7 == 6 {
            return Outcome::Declined("nothing today".to_string());
        }
        let mut outputs = Vec::new();
        for slot in producer.outputs.keys() {
            let keys = &self.stage.graph.slots[slot.at()].definition.cell_keys;
            let wide = keys.len() > producer.columns.len();
            for extra in 0..if wide { i64::from(sum % 2) + 1 } else { 1 } {
                let values = keys.iter().map(|(name, _)| {
                    let at = producer.columns.iter().position(|(column, _)| column == name);
                    at.map_or(Value::I64(extra), |at| started.key.values()[at].clone())
                });
                let key = Key::new(values.collect()).unwrap();
                outputs.push(OutputWrite::data(*slot, key, content(sum % 4)));
            }
        }
        Outcome::Data(outputs)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { slot, date, key, priority, content: number } => {
                let slot = usize::from(*slot) % self.columns.len();
                let key = self.key(slot, *key);
                let priority = if *priority { 2 } else { 0 };
                let slot = SlotId(slot as u32);
                let content = number.map(content);
                let write = Write { slot, date: day(*date), key, priority, content };
                let _refused = self.stage.apply(Event::Commit { writes: vec![write], ends: vec![] });
            }
            Step::Two { slot, date, keys, content: number } => {
                let slot = usize::from(*slot) % self.columns.len();
                let write = |key: &[i64; 3]| Write {
                    slot: SlotId(slot as u32),
                    date: day(*date),
                    key: self.key(slot, *key),
                    priority: 0,
                    content: Some(content(*number)),
                };
                let writes = keys.iter().map(write).collect();
                let _refused = self.stage.apply(Event::Commit { writes, ends: vec![] });
            }
            Step::EndOf(date) => {
                self.stage.end_of(day(*date));
            }
            Step::Register => {
                if let Some(definition) = self.pending.pop() {
                    let _refused = self.stage.apply(Event::Register(definition));
                }
            }
            Step::Attach(producer) => {
                let count = self.stage.graph.producers.len().max(1) as u32;
                let _unknown = self
                    .stage
                    .apply(Event::Attach { producer: ProducerId(u32::from(*producer) % count), host: None });
            }
            Step::Start(nth) => {
                let ready: Vec<BundleId> = self.stage.graph.ready().collect();
                if let Some(bundle) = ready.get(usize::from(*nth) % ready.len().max(1)) {
                    self.stage.start(*bundle).unwrap();
                } else {
                    assert!(self.stage.start(BundleId(u32::from(*nth))).is_err());
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
            Step::WrongEpoch(run) => {
                if let Some(started) = self.run(*run) {
                    let outcome = self.product(&started, 0);
                    let late =
                        Event::End { run: started.run, epoch: started.epoch + 1, outcome, reads: vec![] };
                    assert!(matches!(self.stage.apply(late), Err(GraphError::Fenced { .. })));
                }
            }
            Step::Reopen(again) => {
                let close = |bundle: &super::super::bundle::Bundle| {
                    bundle.running.is_some() && bundle.interrupted + 1 >= INTERRUPTIONS_MAX
                };
                if self.deterministic && self.stage.graph.bundles.iter().any(close) {
                    return;
                }
                self.stage.reopen();
                if *again {
                    self.attach_all();
                }
            }
        }
    }

    fn attach_all(&mut self) {
        for producer in 0..self.stage.graph.producers.len() as u32 {
            self.stage.apply(Event::Attach { producer: ProducerId(producer), host: None }).unwrap();
        }
    }

    /// Runs everything to rest with every producer attached and every date ended.
    fn drain(&mut self) {
        self.attach_all();
        self.stage.apply(Event::Commit { writes: vec![], ends: vec![day(0), day(1)] }).unwrap();
        for _ in 0..1000 {
            while let Some(bundle) = self.stage.graph.next_ready() {
                self.stage.start(bundle).unwrap();
            }
            if let Some(started) = self.run(0) {
                let outcome = self.product(&started, 0);
                self.stage.end(started.run, outcome).unwrap();
            } else if self.stage.graph.idle() {
                break;
            }
        }
        assert!(self.stage.graph.idle(), "the work drains");
        for cell in &self.stage.graph.cells {
            assert_ne!(cell.view(), View::Waiting, "no cell stays unsettled");
            assert!(!cell.lagging);
        }
        for bundle in self.stage.graph.bundles() {
            let info = self.stage.graph.bundle_info(bundle).unwrap();
            let at_rest = [PStatus::Parked, PStatus::Done, PStatus::Declined, PStatus::Failed];
            assert!(at_rest.contains(&info.status));
        }
    }

    /// Usable contents by slot, date and key.
    fn contents(&self) -> BTreeMap<(SlotId, SlotDate, Key), ContentId> {
        let usable = self.stage.graph.cells.iter().filter(|cell| cell.view() == View::Usable);
        usable.map(|cell| ((cell.slot, cell.date, cell.key.clone()), cell.content.unwrap())).collect()
    }

    /// What clients have committed and not retracted.
    fn sources(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for cell in &self.stage.graph.cells {
            for candidate in cell.candidates.iter().filter(|c| c.owner.is_none() && c.content.is_some()) {
                writes.push(Write {
                    slot: cell.slot,
                    date: cell.date,
                    key: cell.key.clone(),
                    priority: candidate.priority,
                    content: candidate.content,
                });
            }
        }
        writes
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_as_the_rules_say(system in systems(), steps in steps(false)) {
        let mut play = Play::open(&system);
        for step in &steps {
            play.take(step);
        }
        play.drain();
    }

    #[test]
    fn at_rest_everything_equals_a_recompute_from_the_sources(system in systems(), steps in steps(true)) {
        let mut play = Play::open(&system);
        play.deterministic = true;
        for step in &steps {
            play.take(step);
        }
        play.drain();

        let mut fresh = Play::open(&System { slots: system.slots.clone(), producers: vec![] });
        let registered: Vec<ProducerDefinition> =
            play.stage.graph.producers().map(|(_, definition)| definition.clone()).collect();
        for definition in registered {
            fresh.stage.register(definition);
        }
        fresh.stage.apply(Event::Commit { writes: play.sources(), ends: vec![] }).unwrap();
        fresh.drain();
        prop_assert_eq!(play.contents(), fresh.contents());
    }

    #[test]
    fn from_quiet_one_commit_starts_each_bundle_at_most_once(
        system in systems(),
        steps in steps(true),
        number in 0..4u8,
        pick in any::<prop::sample::Index>(),
    ) {
        let mut play = Play::open(&system);
        play.deterministic = true;
        for step in &steps {
            play.take(step);
        }
        play.drain();
        play.stage.starts.clear();
        let mut sources = play.sources();
        prop_assume!(!sources.is_empty());
        let mut write = sources.swap_remove(pick.index(sources.len()));
        write.content = Some(content(number));
        play.stage.apply(Event::Commit { writes: vec![write], ends: vec![] }).unwrap();
        play.drain();
        // A producer that gives a cell for the first time, where other data stood in, is a second change to readers
        // that did not wait for it: nothing told them that it would give that cell.
        let alone = play.stage.graph.cells.iter().all(|cell| cell.candidates.len() < 2);
        let twice: BTreeSet<_> = play.stage.starts.iter().filter(|(_, starts)| **starts > 1).collect();
        prop_assert!(twice.is_empty() || !alone, "{:?}", twice);
    }
}
