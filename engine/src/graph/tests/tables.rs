//! The tables of the rules, a row for a row: results, classes, views, states, and what a user sees.

use underbelly_storage::ColumnType;

use super::super::*;
use super::play::Play;
use super::script::Script;
use super::stage::{Stage, content, day, key};

/// Plays steps in which `s1=2` is a commit of cell 0 of the date 0 of slot 1, at priority 0.
fn play(system: &str, steps: &str) -> Play {
    let full = |word: &str| match word.split_once('=') {
        Some((slot, content)) if !word.contains(':') => {
            let priority = if slot.contains('@') { "" } else { "@0" };
            let slot = format!("{slot}{priority}");
            let (slot, priority) = slot.split_once('@').unwrap();
            format!("{slot}:d0:0,0,0@{priority}={content}")
        }
        _ => word.to_string(),
    };
    let lines = steps.split(';').map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.map(|line| line.split_whitespace().map(full).collect::<Vec<_>>().join(" "));
    let steps = lines.collect::<Vec<_>>().join("\n");
    let script = Script::read(&format!("{}\n{steps}", system.replace(';', "\n")));
    let mut play = Play::open(&script);
    let registered = script.producers.iter().filter(|plan| !plan.late).count();
    assert_eq!(play.stage.graph.producers().count(), registered, "{system}");
    play.play();
    play
}

fn cell(play: &Play, slot: u32) -> Option<CellId> {
    play.stage.graph.cell(SlotId(slot), day(0), &key(&[0]))
}

fn info(play: &Play, slot: u32) -> CellInfo {
    play.stage.graph.cell_info(cell(play, slot).unwrap()).unwrap()
}

/// s0 → s1 → s2 → s3. Of 1 and 5 everything makes 1, of 2 it makes 2.
const CHAIN: &str =
    "slot x; slot x; slot x; slot x; producer s0 -> s1@1; producer s1 -> s2@1; producer s2 -> s3@1";
const RUN: &str = "start 0; give 0 0;";
/// s0 → s1, and what clients put into s0 is old after twelve events.
const AGEING: &str = "slot x old; slot x; producer s0 -> s1@1";

/// So many events with which time passes.
fn ticks(events: usize) -> String {
    "tick;".repeat(events)
}

/// Content, error and state of s1, and the status of the bundle that makes it.
type Left = (Option<u8>, bool, State, PStatus);

#[test]
fn results() {
    use PStatus::{Cancelled, Declined, Done, Failed};
    use State::{Current, Invalid, Pending, Void};
    let system = "slot x; slot x; producer s0 -> s1@1";
    let made = "s0=1; start 0; give 0 0; commit s0=2; start 0;";
    let forced = "s0=1; start 0; give 0 0; force 0; start 0;";
    let failed = "s0=1; start 0; give 0 0; force 0; start 0; fail 0; force 0; start 0;";
    let rows: [(&str, &str, &str, Left); 12] = [
        ("data", "s0=1; start 0;", "give 0 0", (Some(1), false, Current, Done)),
        ("other data", made, "give 0 0", (Some(2), false, Current, Done)),
        ("absent", made, "decline 0", (None, false, Void, Declined)),
        ("an error keeps the last good data", made, "fail 0", (Some(1), true, Invalid, Failed)),
        ("so does a cancellation", made, "cancel 0", (Some(1), true, Invalid, Cancelled)),
        ("data ends a force", forced, "give 0 0", (Some(1), false, Current, Done)),
        ("absent ends a force", forced, "decline 0", (None, false, Void, Declined)),
        ("an error ends a force", forced, "fail 0", (Some(1), true, Invalid, Failed)),
        ("unchanged data clears an error", failed, "give 0 0", (Some(1), false, Current, Done)),
        ("absent clears an error", failed, "decline 0", (None, false, Void, Declined)),
        ("an error after an error", failed, "fail 0", (Some(1), true, Invalid, Failed)),
        (
            "a result of what has moved",
            "s0=1; start 0; commit s0=2;",
            "give 0 0",
            (Some(1), false, State::Stale, PStatus::Ready),
        ),
    ];
    for (row, before, event, left) in rows {
        let play = play(system, &format!("commit {before} {event}"));
        let info = info(&play, 1);
        let made = play.stage.graph.bundle_info(BundleId(0)).unwrap();
        let content = info.content.map(super::play::payload);
        assert_eq!((content, info.error.is_some(), info.state, made.status), left, "{row}");
        let idle = play.stage.graph.next_ready().is_none();
        assert_eq!(idle, made.status != PStatus::Ready, "{row}: what was read is known");
    }

    let play = play(system, "commit s0=1; start 0; fail 0");
    assert_eq!(cell(&play, 1), None, "an error of no output sits on the bundle");
    assert_eq!(play.stage.graph.bundle_info(BundleId(0)).unwrap().status, Failed);
    let why = play.stage.graph.why_at(SlotId(1), day(0), &key(&[0])).unwrap().to_string();
    assert!(why.contains("division by zero"), "{why}");
    assert_eq!(info(&play, 0).state, Current, "a listener that failed has returned");
    assert_ne!(info(&play, 0).state, Pending);
}

/// A → B, and C from R and B, whose input B is looked at.
struct Edge {
    stage: Stage,
    slots: [SlotId; 4],
    producers: [ProducerId; 2],
}

impl Edge {
    /// Whether C has read the B that there is.
    fn new(input: Input, read: bool) -> Edge {
        let mut stage = Stage::new();
        let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
        let slots = ["A", "B", "R", "C"].map(|name| stage.define(keyed(name)));
        let b = stage.register(ProducerDefinition::new("b").requires("A").provides("B"));
        let c = ProducerDefinition::new("c").requires("R").provides("C");
        let is_required = input.mode == Mode::Required;
        let c = stage.register(c.input(input));
        let mut edge = Edge { stage, slots, producers: [b, c] };
        match (read, is_required) {
            (true, _) => {
                edge.write(0, Some(1));
                edge.run(0, Some(1));
                edge.write(2, Some(1));
                edge.run(1, Some(1));
            }
            (false, true) => {
                edge.write(0, Some(1));
                edge.run(0, Some(1));
                edge.write(2, Some(1));
            }
            (false, false) => {
                edge.write(2, Some(1));
                edge.run(1, Some(1));
                edge.write(0, Some(1));
                edge.run(0, Some(1));
            }
        }
        edge
    }

    fn write(&mut self, slot: usize, number: Option<u8>) {
        self.stage.write(self.slots[slot], day(0), &key(&[0]), number.map(content));
    }

    fn start(&mut self, producer: usize) -> Started {
        let bundle = self.stage.graph.bundle(self.producers[producer], day(0), &key(&[0])).unwrap();
        self.stage.start(bundle).unwrap()
    }

    fn run(&mut self, producer: usize, number: Option<u8>) {
        let started = self.start(producer);
        match number {
            Some(number) => drop(self.stage.give(&started, number)),
            None => drop(self.stage.end(started.run, Outcome::Declined(String::new())).unwrap()),
        }
    }

    /// Brings B there, which has been made of the first A.
    fn bring(&mut self, to: &str) {
        match to {
            "usable" => {}
            "usable, changed" => {
                self.write(0, Some(2));
                self.run(0, Some(2));
            }
            "waiting" => self.write(0, Some(2)),
            "lagging" | "lagging, changed" => {
                self.write(0, Some(2));
                let started = self.start(0);
                self.write(0, Some(3));
                self.stage.give(&started, if to == "lagging" { 1 } else { 2 });
            }
            "invalid" => {
                self.write(0, Some(2));
                let started = self.start(0);
                self.stage.end(started.run, Outcome::Failed("bad".to_string())).unwrap();
            }
            "stale" => self.write(0, None),
            "void" => {
                self.write(0, Some(2));
                self.run(0, None);
            }
            other => panic!("no view {other}"),
        }
    }

    fn class(&self) -> String {
        let graph = &self.stage.graph;
        let source = graph.cell(self.slots[1], day(0), &key(&[0])).unwrap();
        let bundle = graph.bundle(self.producers[1], day(0), &key(&[0])).unwrap();
        let class = graph.classes(bundle).find(|(edge, _)| edge.source == source).unwrap().1;
        let names = [
            (class.maybe, "maybe"),
            (class.held, "held"),
            (class.blocked, "blocked"),
            (class.unsatisfiable, "unsatisfiable"),
            (class.changed, "changed"),
        ];
        let set: Vec<&str> = names.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
        if set.is_empty() { "clean".to_string() } else { set.join(" ") }
    }
}

/// How B may be, and what that is to consumers.
const SOURCES: [(&str, View); 8] = [
    ("waiting", View::Waiting),
    ("lagging", View::Waiting),
    ("lagging, changed", View::Waiting),
    ("usable", View::Usable),
    ("usable, changed", View::Usable),
    ("invalid", View::Unusable),
    ("stale", View::Unusable),
    ("void", View::Unusable),
];

#[test]
fn views() {
    for (source, view) in SOURCES {
        let mut edge = Edge::new(Input::required("B"), true);
        edge.bring(source);
        let cell = edge.stage.graph.cell(edge.slots[1], day(0), &key(&[0])).unwrap();
        assert_eq!(edge.stage.graph.view(cell), Some(view), "{source}");
        let state = match source {
            "invalid" => State::Invalid,
            "void" => State::Void,
            "usable" | "usable, changed" => edge.stage.graph.state(cell).unwrap(),
            _ => State::Stale,
        };
        assert_eq!(edge.stage.graph.state(cell), Some(state), "{source}");
        assert_eq!(
            edge.stage.graph.cell_info(cell).unwrap().lagging,
            source.starts_with("lagging"),
            "{source}"
        );
    }
}

/// The views of what was committed too long ago, and of what was made while an exclusive input was not there.
#[test]
fn views_of_what_time_and_other_data_have_spoilt() {
    let excluded = "slot x; slot x; slot x; producer s0 s1 exclusive -> s2@1";
    let rows = [
        ("usable", AGEING, format!("commit s0=1; {RUN} {}", ticks(9)), 0, View::Usable),
        ("aged", AGEING, format!("commit s0=1; {RUN} {}", ticks(10)), 0, View::Unusable),
        ("of aged data", AGEING, format!("commit s0=1; {RUN} {}", ticks(10)), 1, View::Unusable),
        ("usable", excluded, format!("commit s0=1; {RUN}"), 2, View::Usable),
        ("unsatisfiable", excluded, format!("commit s0=1; {RUN} commit s1=1"), 2, View::Unusable),
    ];
    for (row, system, steps, slot, view) in rows {
        let play = play(system, &steps);
        let cell = cell(&play, slot).unwrap();
        let state = if view == View::Usable { State::Current } else { State::Stale };
        assert_eq!(play.stage.graph.view(cell), Some(view), "{row}");
        assert_eq!(play.stage.graph.state(cell), Some(state), "{row}");
    }
}

#[test]
fn classes() {
    const MAYBE: [&str; 3] = ["maybe held", "maybe", "maybe changed"];
    const UNREAD: [&str; 3] = ["maybe held", "maybe changed", "maybe changed"];
    let (required, optional, exclusive) =
        (|| Input::required("B"), || Input::optional("B"), || Input::exclusive("B"));
    // Whether C has read B; while B waits or lags; while it is usable; invalid; stale; void.
    type Row = (Input, bool, [&'static str; 3], [&'static str; 2], &'static str, &'static str, &'static str);
    let read = ["clean", "changed"];
    let unread = ["changed", "changed"];
    let held = ["maybe held", "maybe held changed", "maybe held changed"];
    let there = ["unsatisfiable", "unsatisfiable"];
    let both = || required().fault_tolerant().accept_stale();
    let rows: Vec<Row> = vec![
        (required(), true, MAYBE, read, "blocked", "blocked", "blocked"),
        (required().fault_tolerant(), true, MAYBE, read, "clean", "blocked", "blocked"),
        (required().accept_stale(), true, MAYBE, read, "blocked", "clean", "blocked"),
        (both(), true, MAYBE, read, "clean", "clean", "blocked"),
        (required(), false, UNREAD, unread, "blocked", "blocked", "blocked"),
        (both(), false, UNREAD, unread, "changed", "changed", "blocked"),
        (optional(), true, MAYBE, read, "changed", "changed", "changed"),
        (optional().fault_tolerant(), true, MAYBE, read, "clean", "changed", "changed"),
        (optional().accept_stale(), true, MAYBE, read, "changed", "clean", "changed"),
        (optional(), false, UNREAD, unread, "clean", "clean", "clean"),
        (optional().fault_tolerant(), false, UNREAD, unread, "changed", "clean", "clean"),
        (optional().accept_stale(), false, UNREAD, unread, "clean", "changed", "clean"),
        (exclusive(), false, held, there, "clean", "unsatisfiable", "clean"),
        (exclusive().fault_tolerant(), false, held, there, "unsatisfiable", "unsatisfiable", "clean"),
        (exclusive().accept_stale(), false, held, there, "clean", "unsatisfiable", "clean"),
    ];
    for (input, read, waiting, usable, invalid, stale, void) in rows {
        let classes = waiting.into_iter().chain(usable).chain([invalid, stale, void]);
        for ((source, _), class) in SOURCES.into_iter().zip(classes) {
            let mut edge = Edge::new(input.clone(), read);
            edge.bring(source);
            assert_eq!(edge.class(), class, "{input:?}, read before: {read}, now {source}");
        }
    }
}

#[test]
fn states() {
    use State::{Current, Invalid, Pending, Stale, Updated, Void};
    let made = format!("commit s0=1; {RUN} {RUN} {RUN}");
    let join = "slot x; slot x; slot x; producer s0 s1 -> s2@1";
    let better = "slot x; slot x; slot x; producer s0 -> s2@1; producer s1 -> s2@2";
    let excluded = "slot x; slot x; slot x; producer s0 s1 exclusive -> s2@1";
    let late = "slot x; slot x; producer s0 -> s1@1 late";
    // What it is of, how one comes there, the slot of the cell, its state and how many causes it has.
    let rows: Vec<(&str, String, u32, State, usize)> = vec![
        // 1
        (CHAIN, format!("{made} commit s0=2; start 0; fail 0"), 1, Invalid, 0),
        (CHAIN, format!("{made} commit s0=2; start 0; fail 0; commit s0=3"), 1, Stale, 1),
        (CHAIN, format!("{made} commit s0=2; start 0; fail 0; force 0"), 1, Stale, 1),
        // 2
        (CHAIN, format!("{made} commit s0=-"), 0, Void, 0),
        (CHAIN, format!("{made} commit s0=2; start 0; decline 0"), 1, Void, 0),
        // 3
        (CHAIN, format!("{made} commit s0=2"), 1, Stale, 1),
        (CHAIN, format!("{made} commit s0=2"), 2, Stale, 1),
        (CHAIN, format!("{made} commit s0=-"), 1, Stale, 1),
        (CHAIN, format!("{made} force 0"), 1, Stale, 1),
        (excluded, format!("commit s0=1; {RUN} commit s1=1"), 2, Stale, 1),
        (better, format!("commit s0=1; {RUN} commit s1=1; {RUN} commit s1=2"), 2, Stale, 1),
        (better, format!("commit s1=1; {RUN} commit s0=1; {RUN} commit s0=2"), 2, Current, 0),
        (AGEING, format!("commit s0=1; {RUN} {}", ticks(10)), 0, Stale, 1),
        (AGEING, format!("commit s0=1; {RUN} {}", ticks(10)), 1, Stale, 1),
        // 4
        (late, "register; commit s0=1".to_string(), 0, Updated, 0),
        (CHAIN, format!("{made} reopen; commit s0=2"), 0, Updated, 0),
        // 5
        (CHAIN, "commit s0=1".to_string(), 0, Pending, 0),
        (CHAIN, "commit s0=1; start 0".to_string(), 0, Pending, 0),
        (CHAIN, "commit s0=1; start 0; again 0 3".to_string(), 0, Pending, 0),
        // 6
        (join, "commit s0=1".to_string(), 0, Current, 0),
        (CHAIN, format!("commit s0=1; {RUN}"), 0, Current, 0),
        (CHAIN, "commit s0=1; start 0; decline 0".to_string(), 0, Current, 0),
        (CHAIN, "commit s0=1; start 0; fail 0".to_string(), 0, Current, 0),
        (CHAIN, "commit s0=1; cancel 0".to_string(), 0, Current, 0),
        (CHAIN, made.clone(), 3, Current, 0),
    ];
    for (system, steps, slot, state, causes) in rows {
        let play = play(system, &steps);
        let info = info(&play, slot);
        assert_eq!((info.state, info.causes.len()), (state, causes), "{steps}: {:?}", info.causes);
    }
    for (steps, status) in [
        ("commit s0=1", PStatus::Ready),
        ("commit s0=1; start 0", PStatus::Processing),
        ("commit s0=1; start 0; again 0 3", PStatus::RetryWait),
    ] {
        let play = play(CHAIN, steps);
        let status_of = play.stage.graph.bundle_info(BundleId(0)).unwrap().status;
        assert_eq!(status_of, status, "each that holds a cell pending");
    }
}

#[test]
fn what_a_user_sees() {
    use State::{Current, Invalid, Pending, Stale, Updated, Void};
    let made = format!("commit s0=1; {RUN} {RUN} {RUN}");
    let join = "slot x; slot x; slot x; producer s0 s1 -> s2@1";
    let excluded = "slot x; slot x; slot x; producer s0 s1 exclusive -> s2@1";
    let lone = "slot x; slot x; producer s1 -> s0@1";
    let failed = format!("{made} commit s0=2; start 0; fail 0;");
    // What it is of, what was before, the event, the slot of the cell and what it went through.
    let rows: Vec<(&str, String, &str, u32, &[State])> = vec![
        // First data.
        (CHAIN, String::new(), "commit s0=1", 0, &[Void, Updated, Pending]),
        (lone, String::new(), "commit s0=1", 0, &[Void, Updated, Current]),
        // New data.
        (CHAIN, made.clone(), "commit s0=2", 0, &[Current, Updated, Pending]),
        (CHAIN, "commit s0=1;".to_string(), "commit s0=2", 0, &[Pending, Updated, Pending]),
        (CHAIN, format!("{made} reopen; commit s0=2;"), "commit s0=3", 0, &[Updated, Updated]),
        (CHAIN, format!("{made} commit s0=2; start 0;"), "give 0 0", 1, &[Stale, Updated, Pending]),
        (CHAIN, format!("{failed} force 0; start 0;"), "give 0 0", 1, &[Stale, Updated, Pending]),
        // All listeners acknowledged.
        (CHAIN, format!("{made} reopen; commit s0=2;"), "attach 0", 0, &[Updated, Pending]),
        (CHAIN, format!("{made} reopen; commit s0=2;"), "deregister 0", 0, &[Updated, Current]),
        // The last active bundle returned, well or not.
        (CHAIN, "commit s0=1; start 0;".to_string(), "give 0 0", 0, &[Pending, Current]),
        (CHAIN, "commit s0=1; start 0;".to_string(), "decline 0", 0, &[Pending, Current]),
        (CHAIN, "commit s0=1; start 0;".to_string(), "fail 0", 0, &[Pending, Current]),
        (CHAIN, "commit s0=1; start 0;".to_string(), "cancel 0", 0, &[Pending, Current]),
        // A parked bundle completes; a run over it becomes active.
        (join, "commit s0=1;".to_string(), "commit s1=1", 0, &[Current, Pending]),
        (CHAIN, made.clone(), "force 0", 0, &[Current, Pending]),
        // An input changed, is being recomputed, or was lost; forced; an exclusive input appeared.
        (CHAIN, made.clone(), "commit s0=2", 1, &[Current, Stale]),
        (CHAIN, made.clone(), "commit s0=2", 3, &[Current, Stale]),
        (CHAIN, made.clone(), "commit s0=-", 1, &[Current, Stale]),
        (CHAIN, made.clone(), "force 0", 1, &[Current, Stale]),
        (excluded, format!("commit s0=1; {RUN}"), "commit s1=1", 2, &[Current, Stale]),
        (CHAIN, format!("commit s0=1; {RUN}"), "commit s0=2", 1, &[Pending, Stale]),
        (
            CHAIN,
            format!("commit s0=1; {RUN} {RUN} reopen; commit s0=2; attach 0; {RUN}"),
            "commit s0=3",
            1,
            &[Updated, Stale],
        ),
        (CHAIN, failed.clone(), "commit s0=3", 1, &[Invalid, Stale]),
        (CHAIN, failed.clone(), "force 0", 1, &[Invalid, Stale]),
        // Too old.
        (AGEING, format!("commit s0=1; {RUN} {}", ticks(9)), "tick", 0, &[Current, Stale]),
        (AGEING, format!("commit s0=1; {RUN} {}", ticks(9)), "tick", 1, &[Current, Stale]),
        (AGEING, format!("commit s0=1; start 0; {}", ticks(10)), "tick", 0, &[Pending, Stale]),
        (
            AGEING,
            format!("commit s0=1; {RUN} reopen; commit s0=2; {}", ticks(11)),
            "tick",
            0,
            &[Updated, Stale],
        ),
        // Inputs settled without change, and no run was needed.
        (CHAIN, format!("{made} commit s0=5; start 0;"), "give 0 0", 2, &[Stale, Current]),
        (
            CHAIN,
            format!("commit s0=1; {RUN} {RUN} start 0; commit s0=5; start 0;"),
            "give 1 0",
            2,
            &[Stale, Pending],
        ),
        // Its own production failed for good.
        (CHAIN, format!("{made} commit s0=2; start 0;"), "fail 0", 1, &[Stale, Invalid]),
        (
            CHAIN,
            format!("{made} commit s0=2; start 0; decline 0; commit s0=3; start 0;"),
            "fail 0",
            1,
            &[Void, Invalid],
        ),
        // Retracted, and no fallback.
        (CHAIN, made.clone(), "commit s0=-", 0, &[Current, Void]),
        (CHAIN, made.clone(), "retract 1", 1, &[Current, Void]),
        (CHAIN, failed.clone(), "retract 1", 1, &[Invalid, Void]),
        (CHAIN, format!("{made} commit s0=2; start 0;"), "decline 0", 1, &[Stale, Void]),
        (
            "slot x; slot x; producer s0 -> s1@1",
            format!("commit s0=1 s1=2; {RUN}"),
            "retract 2",
            1,
            &[Current, Updated, Current],
        ),
    ];
    for (system, before, event, slot, through) in rows {
        let play = play(system, &format!("{before} {event}"));
        let cell = cell(&play, slot).unwrap();
        let told = play.stage.last.iter().flat_map(|last| &last.transitions).filter(|told| told.cell == cell);
        let mut seen: Vec<State> = Vec::new();
        for told in told {
            seen.extend(seen.is_empty().then_some(told.from));
            seen.push(told.to);
        }
        assert_eq!(seen, through, "{before} {event}");
    }
}
