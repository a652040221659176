//! Small systems, searched whole: every order of every few events from nothing, and from rest, each step on a stage.
//!
//! `UNDERBELLY_DEPTH` says how many events (4 for the systems that are listed, 3 with commands, and 2 for those that
//! are enumerated; those of four slots take three fewer, and without it one in a hundred of them takes two). Two states are the same where the facts by names are, and the order of the queue; of generations it
//! counts alone whether what was read is what is there now. Of the states
//! with which a search ends one in eight is run to rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::super::*;
use super::oracle::bundle_name;
use super::play::Play;
use super::script::{Plan, PlannedInput, Put, Script, Step};

/// What may happen to a system beside runs.
struct System {
    script: Script,
    /// Each with two contents and none.
    writes: Vec<Put>,
    /// Whether ends of dates are declared.
    ends: bool,
    /// Whether bundles are forced and cancelled, candidates taken back, and the process starts again.
    commands: bool,
}

impl System {
    /// The producers that commit when they like.
    fn daemons(&self) -> Vec<usize> {
        let producers = self.script.producers.iter().enumerate();
        producers.filter(|(_, plan)| plan.daemon).map(|(at, _)| at).collect()
    }
}

/// A daemon gives its cell of the first date.
fn submit(daemon: usize, content: Option<u8>) -> Step {
    let write = Put { slot: 0, date: 0, key: [0; 4], priority: 0, content };
    Step::Submit { daemon, again: false, made: 0, writes: vec![write] }
}

/// Systems, and the cells that clients write.
const LISTED: [(&str, &str); 24] = [
    // A chain.
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s1 -> s2@1", "s0:d0:0,0,0@0"),
    // A diamond.
    (
        "slot x\n slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s0 -> s2@1\n producer s1 s2 -> s3@1",
        "s0:d0:0,0,0@0",
    ),
    // Two priorities, and a reader.
    (
        "slot x\n slot x\n slot x\n slot x\n producer s0 -> s2@1\n producer s1 -> s2@2\n producer s2 -> s3@1",
        "s0:d0:0,0,0@0 s1:d0:0,0,0@0",
    ),
    // A client's fallback.
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s1 -> s2@1", "s0:d0:0,0,0@0 s1:d0:0,0,0@0"),
    // One that fills in what nobody better gives, both declared either way round.
    (
        "slot x\n slot x\n slot x\n producer s0 s2 exclusive -> s2@1\n producer s1 -> s2@2",
        "s0:d0:0,0,0@0 s1:d0:0,0,0@0",
    ),
    ("slot x\n slot x\n producer s0 -> s1@2\n producer s0 s1 exclusive -> s1@1", "s0:d0:0,0,0@0"),
    // An optional and an exclusive input that is made of the same source.
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s0 s1 optional -> s2@1", "s0:d0:0,0,0@0"),
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s0 s1 exclusive -> s2@1", "s0:d0:0,0,0@0"),
    // What is not sound, taken all the same.
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s1 tolerant stale -> s2@1", "s0:d0:0,0,0@0"),
    // A group that waits for all, one that does not, and one of a group.
    ("slot x\n slot\n producer s0 -> s1@1 group", "s0:d0:0,0,0@0 s0:d0:1,0,0@0"),
    ("slot x\n slot\n producer s0 -> s1@1 group any", "s0:d0:0,0,0@0 s0:d0:1,0,0@0"),
    (
        "slot x\n slot x\n slot\n producer s0 -> s1@1\n producer s1 -> s2@1 group",
        "s0:d0:0,0,0@0 s0:d0:1,0,0@0",
    ),
    ("slot x y\n slot x\n producer s0 -> s1@1 group by:x any", "s0:d0:0,0,0@0 s0:d0:0,1,0@0"),
    // One bundle that gives several cells, and their reader.
    ("slot\n slot x\n slot x\n producer s0 -> s1@1\n producer s1 -> s2@1", "s0:d0:0,0,0@0"),
    // A join, one side broadcast.
    ("slot\n slot x\n slot x\n producer s1 s0 broadcast -> s2@1", "s0:d0:0,0,0@0 s1:d0:1,0,0@0"),
    // What is made of its own yesterday.
    ("slot x\n slot x\n producer s0 s1 lag:1 -> s1@1", "s0:d1:0,0,0@0 s1:d0:0,0,0@0"),
    // What is read beside the inputs: what another makes, what another that reads too makes, and a set of cells.
    ("slot x\n slot x\n slot x\n producer s0 -> s1@1\n producer s0 -> s2@1 read:s1", "s0:d0:0,0,0@0"),
    (
        "slot x\n slot x\n slot x\n producer s0 -> s1@1 read:s2:odd\n producer s0 -> s2@1 read:s1",
        "s0:d0:0,0,0@0",
    ),
    (
        "slot x y\n slot x\n slot x\n producer s1 -> s2@1 read:s0:allx",
        "s0:d0:0,0,0@0 s0:d0:0,1,0@0 s1:d0:0,0,0@0",
    ),
    // Two outputs, of which one rests on one input alone, and its reader.
    ("slot x\n slot x\n slot x\n slot x\n producer s0 s1 -> s2@1 s3@1 uses\n", "s0:d0:0,0,0@0 s1:d0:0,0,0@0"),
    // Daemons: members of which a group waits for each, for each key by itself, or beside what a client gives.
    (
        "slot m\n slot\n producer daemon -> s0@0\n producer daemon -> s0@0 as:m1\n producer s0 -> s1@1 group quorum",
        "",
    ),
    (
        "slot x m\n slot x\n producer daemon -> s0@0\n producer daemon -> s0@0 as:m1\n producer s0 -> s1@1 group by:x quorum",
        "",
    ),
    ("slot x\n slot x\n producer daemon -> s0@4\n producer s0 -> s1@1", "s0:d0:0,0,0@0"),
    // Members with runs, which give something or nothing.
    (
        "slot\n slot m\n slot\n producer s0 -> s1@1\n producer s0 -> s1@1 as:m1\n producer s1 -> s2@1 group quorum",
        "s0:d0:0,0,0@0",
    ),
];

fn listed() -> Vec<System> {
    let with = |(system, writes): &(&str, &str), commands| {
        let writes = Script::read(&format!("commit {}", writes.replace("@0", "@0=1"))).steps.remove(0);
        let Step::Commit { writes, .. } = writes else { unreachable!() };
        System { script: Script::read(system), writes, ends: system.contains("group"), commands }
    };
    let plain = LISTED.iter().map(|listed| with(listed, false));
    plain.chain(LISTED.iter().map(|listed| with(listed, true))).collect()
}

/// All systems of so many slots without keys, or of fewer, and up to three producers with one output each, whose inputs have
/// each mode: each once, whatever its slots are called.
fn enumerated(slots: usize) -> Vec<System> {
    let orders = orders(slots);
    let mut plans = Vec::new();
    for output in 1..slots {
        let modes = [None, Some(Mode::Required), Some(Mode::Optional), Some(Mode::Exclusive)];
        for number in 0..modes.len().pow(output as u32) {
            let mode = |slot: usize| modes[number / modes.len().pow(slot as u32) % modes.len()];
            let input = |slot| mode(slot).map(|mode| PlannedInput { slot, mode, ..PlannedInput::default() });
            let inputs: Vec<PlannedInput> = (0..output).filter_map(input).collect();
            let broadcast = |input: PlannedInput| PlannedInput { broadcast: true, ..input };
            let inputs: Vec<PlannedInput> = inputs.into_iter().map(broadcast).collect();
            if inputs.iter().any(|input| input.mode == Mode::Required) {
                plans.push((inputs, output));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut systems = Vec::new();
    for number in 0..(plans.len() + 1).pow(3) {
        let picked = (0..3).map(|at| number / (plans.len() + 1).pow(at) % (plans.len() + 1));
        let picked: Vec<&(Vec<PlannedInput>, usize)> = picked.filter_map(|at| plans.get(at)).collect();
        let producers: Vec<Plan> = picked
            .iter()
            .enumerate()
            .map(|(at, (inputs, output))| Plan {
                inputs: inputs.clone(),
                outputs: vec![(*output, at as i32 + 1)],
                ..Plan::default()
            })
            .collect();
        let used: BTreeSet<usize> = producers
            .iter()
            .flat_map(|plan| plan.inputs.iter().map(|input| input.slot).chain([plan.outputs[0].0]))
            .collect();
        if producers.is_empty()
            || !used.iter().copied().eq(0..used.len())
            || !seen.insert(names_apart(&producers, &orders))
        {
            continue;
        }
        let made = |slot: &usize| producers.iter().any(|plan| plan.outputs[0].0 == *slot);
        let write = |slot| Put { slot, date: 0, key: [0; 4], priority: 0, content: Some(1) };
        let writes = used.iter().copied().filter(|slot| !made(slot)).map(write).collect();
        let script = Script { old: 0, slots: vec![0; used.len()], producers, steps: Vec::new() };
        systems.push(System { script, writes, ends: false, commands: false });
    }
    systems
}

/// A producer's output, how many give it less, and its inputs with their modes.
type NamedApart = (usize, usize, Vec<(usize, String)>);

/// All orders of so many numbers.
fn orders(numbers: usize) -> Vec<Vec<usize>> {
    let Some(last) = numbers.checked_sub(1) else { return vec![Vec::new()] };
    let with_last = |order: Vec<usize>| {
        (0..numbers).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    orders(last).into_iter().flat_map(with_last).collect()
}

/// A system as it is under the names of slots that give the least; of priorities the order alone counts.
fn names_apart(producers: &[Plan], orders: &[Vec<usize>]) -> Vec<NamedApart> {
    let under = |names: &Vec<usize>| {
        let mut plans: Vec<_> = producers
            .iter()
            .map(|plan| {
                let (output, priority) = plan.outputs[0];
                let lower = producers
                    .iter()
                    .filter(|other| other.outputs[0].0 == output && other.outputs[0].1 < priority);
                let mut inputs: Vec<(usize, String)> = plan
                    .inputs
                    .iter()
                    .map(|input| (names[input.slot], format!("{:?}", input.mode)))
                    .collect();
                inputs.sort();
                (names[output], lower.count(), inputs)
            })
            .collect();
        plans.sort();
        plans
    };
    orders.iter().map(under).min().unwrap()
}

struct Search<'s> {
    system: &'s System,
    /// For each state with how many events to come it was searched.
    seen: HashMap<blake3::Hash, usize>,
    transitions: u64,
    path: Vec<Step>,
}

impl Search<'_> {
    fn steps(&self, play: &Play) -> Vec<Step> {
        let mut steps = Vec::new();
        for write in &self.system.writes {
            let contents = [Some(1), Some(2), None];
            let write =
                |content| Step::Commit { writes: vec![Put { content, ..write.clone() }], ends: vec![] };
            steps.extend(contents.map(write));
        }
        let daemons = self.system.daemons();
        for at in 0..daemons.len() {
            steps.extend([Some(1), Some(2), None].map(|content| submit(at, content)));
        }
        if self.system.commands {
            let come_and_go = |at: &usize| [Step::Attach(*at), Step::Detach(*at), Step::Deregister(*at)];
            steps.extend(daemons.iter().flat_map(come_and_go));
            steps.extend((!daemons.is_empty()).then_some(Step::Register));
        }
        if self.system.ends {
            steps.push(Step::Commit { writes: vec![], ends: vec![0] });
        }
        steps.extend((0..play.stage.graph.ready().count()).map(Step::Start));
        for run in 0..play.stage.flying.len() {
            steps.extend([Step::Give { run, salt: 0 }, Step::Decline(run), Step::Fail(run)]);
        }
        if self.system.commands {
            let bundles = play.stage.graph.bundles().count();
            steps.extend((0..bundles).flat_map(|bundle| [Step::Force(bundle), Step::Cancel(bundle)]));
            steps.extend((0..play.stage.oracle.candidates().count()).map(Step::Retract));
            steps.push(Step::Reopen(true));
        }
        steps
    }

    fn look(&mut self, play: &Play, left: usize) {
        for step in self.steps(play) {
            self.path.push(step.clone());
            let mut next = play.clone();
            self.watched(|| next.take(&step));
            self.transitions += 1;
            let state = state(&next);
            if self.seen.get(&state).is_none_or(|known| *known < left - 1) {
                self.seen.insert(state, left - 1);
                if left > 1 {
                    self.look(&next, left - 1);
                } else if state.as_bytes()[0].is_multiple_of(8) {
                    self.watched(|| {
                        next.drain();
                    });
                }
            }
            self.path.pop();
        }
    }

    /// Prints how one came here if it fails.
    fn watched(&self, act: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
            let script = Script { steps: self.path.clone(), ..self.system.script.clone() };
            println!("{script:?}");
            resume_unwind(panic);
        }
    }
}

/// What tells states apart.
fn state(play: &Play) -> blake3::Hash {
    let graph = &play.stage.graph;
    let ready: Vec<_> = graph.ready().map(|bundle| bundle_name(graph, bundle)).collect();
    blake3::hash(format!("{:?} {ready:?} {:?}", play.stage.oracle.told(), play.found()).as_bytes())
}

/// Searches a system from nothing, and from rest with all that clients write; how many states and transitions.
fn search(system: &System, depth: usize) -> (u64, u64) {
    let (mut states, mut transitions) = (0, 0);
    for at_rest in [false, true] {
        let mut play = Play::open(&system.script);
        assert_eq!(play.stage.graph.producers().count(), system.script.producers.len(), "{}", system.script);
        play.stage.twin_every = 5;
        let mut path = Vec::new();
        if at_rest {
            let ends = if system.ends { vec![0] } else { Vec::new() };
            path.push(Step::Commit { writes: system.writes.clone(), ends });
            path.extend((0..system.daemons().len()).map(|at| submit(at, Some(1))));
            path.iter().for_each(|step| play.take(step));
            while !play.stage.graph.idle() {
                let next = [Step::Start(0), Step::Give { run: 0, salt: 0 }];
                next.iter().for_each(|step| play.take(step));
                path.extend(next);
            }
        }
        let mut search = Search { system, seen: HashMap::new(), transitions: 0, path };
        search.look(&play, depth);
        states += search.seen.len() as u64;
        transitions += search.transitions;
    }
    (states, transitions)
}

fn search_all(name: &str, systems: &[System], depth: usize) {
    let (next, states, transitions) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        while let Some(system) = systems.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = search(system, depth);
            states.fetch_add(found.0, Ordering::Relaxed);
            transitions.fetch_add(found.1, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
    let (states, transitions) = (states.into_inner(), transitions.into_inner());
    println!("{name}: {} systems, {states} states, {transitions} transitions, depth {depth}", systems.len());
}

fn depth(normally: usize) -> usize {
    std::env::var("UNDERBELLY_DEPTH").map_or(normally, |text| text.parse().unwrap())
}

#[test]
fn systems_that_are_listed_are_right_in_every_order() {
    let (commands, plain): (Vec<System>, Vec<System>) =
        listed().into_iter().partition(|system| system.commands);
    search_all("listed", &plain, depth(4));
    search_all("with commands", &commands, depth(3));
}

#[test]
fn every_small_system_is_right_in_every_order() {
    let systems = enumerated(3);
    let by_producers = systems.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<usize, u32>, system| {
        *counts.entry(system.script.producers.len()).or_default() += 1;
        counts
    });
    assert_eq!(by_producers.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "{by_producers:?}");
    search_all("enumerated", &systems, depth(2));
}

#[test]
fn small_systems_of_four_slots_are_right_in_every_order() {
    let mut systems = enumerated(4);
    systems.retain(|system| system.script.slots.len() == 4);
    let all = systems.len();
    let depth = match depth(0) {
        0 => {
            let mut at = 0;
            systems.retain(|_| {
                at += 1;
                at % 100 == 0
            });
            2
        }
        depth => depth.saturating_sub(3).max(1),
    };
    search_all(&format!("of four slots, of {all}"), &systems, depth);
}
