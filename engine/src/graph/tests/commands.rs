//! Scenarios of what is done by command (retract, force, cancel, deregister), and of results for single outputs.

use underbelly_storage::ColumnType;

use super::super::error::Rule;
use super::super::*;
use super::stage::{Stage, content, day, key};

/// A → B → C, each keyed by `x`, and a group of C by date, with A committed for key 1.
fn chain() -> (Stage, [SlotId; 4], [ProducerId; 3]) {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    let slots = ["A", "B", "C"].map(|name| stage.define(keyed(name)));
    let total = stage.define(SlotDefinition::new("Total"));
    let b = stage.register(ProducerDefinition::new("b").requires("A").provides_at("B", 1));
    let c = stage.register(ProducerDefinition::new("c").requires("B").provides_at("C", 1));
    let sum = stage.register(ProducerDefinition::new("sum").requires("C").group_by_date().provides("Total"));
    stage.write(slots[0], day(1), &key(&[1]), Some(content(1)));
    stage.end_of(day(1));
    let [first, second, third] = slots;
    (stage, [first, second, third, total], [b, c, sum])
}

fn run_all(stage: &mut Stage) -> usize {
    let mut runs = 0;
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        stage.give(&started, 10 + started.producer.0 as u8);
        runs += 1;
    }
    runs
}

fn bundle(stage: &Stage, producer: ProducerId) -> BundleId {
    let key = if stage.graph.bundle_columns(producer).is_empty() { Key::empty() } else { key(&[1]) };
    stage.graph.bundle(producer, day(1), &key).unwrap()
}

fn cell(stage: &Stage, slot: SlotId) -> CellId {
    stage.graph.cell(slot, day(1), &key(&[1])).unwrap()
}

#[test]
fn retracted_data_is_absent_until_its_owner_gives_it_again() {
    let (mut stage, [a, b, c, _], _) = chain();
    assert_eq!(run_all(&mut stage), 3);
    let made = cell(&stage, b);
    let effects = stage.apply(Event::Retract { cell: made, priority: 1 }).unwrap();
    assert_eq!(effects.contents, [(made, None, 2)]);
    assert_eq!(effects.released, [content(10)]);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Void);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Stale);
    assert!(stage.graph.why(made).unwrap().to_string().contains("its data was retracted at seq"));
    assert_eq!(run_all(&mut stage), 0, "nothing is made again by itself");

    let missing = stage.apply(Event::Retract { cell: made, priority: 7 }).unwrap_err();
    assert!(matches!(missing, GraphError::NoCandidate { priority: 7, .. }));
    let unknown = stage.apply(Event::Retract { cell: CellId(99), priority: 1 }).unwrap_err();
    assert_eq!(unknown, GraphError::UnknownCell(CellId(99)));

    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    stage.give(&started, 10);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Pending);
    run_all(&mut stage);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
}

#[test]
fn what_a_client_wrote_is_retracted_at_its_priority() {
    let (mut stage, [a, ..], _) = chain();
    let source = cell(&stage, a);
    stage.apply(Event::Retract { cell: source, priority: 0 }).unwrap();
    assert_eq!(stage.state(a, day(1), &key(&[1])), State::Void);
}

#[test]
fn a_forced_bundle_runs_again_and_equal_data_wakes_nobody() {
    let (mut stage, [_, b, c, _], [first, ..]) = chain();
    run_all(&mut stage);
    let forced = bundle(&stage, first);
    let effects = stage.apply(Event::Force(forced)).unwrap();
    assert_eq!(effects.ready, [forced]);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Stale);
    assert_eq!(stage.graph.cell_info(cell(&stage, b)).unwrap().causes, [Cause::Forced]);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Stale, "its input may change");
    assert_eq!(run_all(&mut stage), 1);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Current);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
}

#[test]
fn force_makes_a_failure_good() {
    let (mut stage, [_, b, ..], [first, ..]) = chain();
    let started = stage.start_next();
    stage.end(started.run, Outcome::Failed("no licence".to_string())).unwrap();
    assert_eq!(stage.statuses()[0], PStatus::Failed);
    stage.apply(Event::Force(bundle(&stage, first))).unwrap();
    assert_eq!(stage.statuses()[0], PStatus::Ready);
    run_all(&mut stage);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Current);
}

#[test]
fn a_forced_bundle_waits_until_its_inputs_allow_a_start() {
    let (mut stage, [a, b, c, _], [_, second, _]) = chain();
    run_all(&mut stage);
    stage.write(a, day(1), &key(&[1]), None);
    let forced = bundle(&stage, second);
    stage.apply(Event::Force(forced)).unwrap();
    assert!(stage.graph.next_ready().is_none());
    assert_eq!(stage.graph.bundle_info(forced).unwrap().status, PStatus::Parked);
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    assert_eq!(run_all(&mut stage), 3, "b, c although b came out equal, and the group that lost a member");
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Current);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
}

#[test]
fn a_cancelled_run_is_fenced_and_its_output_is_invalid_until_an_input_changes() {
    let (mut stage, [a, b, c, _], [first, ..]) = chain();
    run_all(&mut stage);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    stage.write(a, day(1), &key(&[1]), Some(content(3)));
    let cancelled = bundle(&stage, first);
    stage.apply(Event::Cancel { bundle: cancelled, reason: "wrong rates".to_string() }).unwrap();
    let info = stage.graph.bundle_info(cancelled).unwrap();
    assert_eq!((info.status, info.reason.as_str()), (PStatus::Cancelled, "wrong rates"));
    let late = Event::End {
        run: started.run,
        epoch: started.epoch,
        outcome: Outcome::Declined(String::new()),
        reads: vec![],
    };
    assert!(matches!(stage.apply(late).unwrap_err(), GraphError::Fenced { .. }));
    let made = stage.graph.cell_info(cell(&stage, b)).unwrap();
    assert_eq!((made.state, made.error.as_deref()), (State::Invalid, Some("wrong rates")));
    assert_eq!(made.content, Some(content(10)), "the last good data stays readable");
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Stale);
    let nothing = stage.apply(Event::Cancel { bundle: cancelled, reason: String::new() }).unwrap_err();
    assert!(matches!(nothing, GraphError::NothingToCancel { status: PStatus::Cancelled, .. }));

    stage.write(a, day(1), &key(&[1]), Some(content(4)));
    run_all(&mut stage);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
}

#[test]
fn what_is_ready_is_cancelled_before_it_starts() {
    let (mut stage, [_, b, ..], [first, ..]) = chain();
    let cancelled = bundle(&stage, first);
    stage.apply(Event::Cancel { bundle: cancelled, reason: "not today".to_string() }).unwrap();
    assert_eq!(stage.graph.next_ready(), None);
    let why = stage.graph.why_at(b, day(1), &key(&[1])).unwrap();
    assert!(why.to_string().contains("was cancelled at seq"), "{why}");
    stage.apply(Event::Force(cancelled)).unwrap();
    assert_eq!(stage.graph.ready().collect::<Vec<_>>(), [cancelled]);
    assert_eq!(run_all(&mut stage), 3);
}

#[test]
fn what_waits_for_an_input_that_comes_out_equal_stays_cancelled() {
    let (mut stage, [a, b, ..], [_, second, _]) = chain();
    let made = stage.start_next();
    stage.give(&made, 10);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let cancelled = bundle(&stage, second);
    stage.apply(Event::Cancel { bundle: cancelled, reason: "enough".to_string() }).unwrap();
    let again = stage.start_next();
    stage.give(&again, 10);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Current);
    assert_eq!(stage.graph.bundle_info(cancelled).unwrap().status, PStatus::Cancelled);
    stage.apply(Event::Force(cancelled)).unwrap();
    assert_eq!(stage.graph.bundle_info(cancelled).unwrap().status, PStatus::Ready);
}

#[test]
fn a_deregistered_producer_leaves_its_data_and_frees_its_name() {
    let (mut stage, [a, b, c, total], [first, ..]) = chain();
    run_all(&mut stage);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    let dropped = bundle(&stage, first);
    stage.apply(Event::Deregister(first)).unwrap();
    let late = Event::End {
        run: started.run,
        epoch: started.epoch,
        outcome: Outcome::Declined(String::new()),
        reads: vec![],
    };
    assert!(matches!(stage.apply(late).unwrap_err(), GraphError::Fenced { .. }));
    for slot in [b, c] {
        assert_eq!(stage.state(slot, day(1), &key(&[1])), State::Current);
    }
    assert_eq!(stage.state(total, day(1), &Key::empty()), State::Current);
    let orphan = stage.graph.cell_info(cell(&stage, b)).unwrap();
    assert_eq!((orphan.causes, orphan.producer.as_deref()), (vec![Cause::Orphan], Some("b")));
    assert!(stage.graph.producers().all(|(id, _)| id != first));
    assert_eq!(stage.state(a, day(1), &key(&[1])), State::Current, "nobody reads it any more");
    for event in
        [Event::Attach { producer: first, host: None }, Event::Deregister(first), Event::Force(dropped)]
    {
        assert!(matches!(stage.apply(event).unwrap_err(), GraphError::Deregistered { .. }));
    }

    let again = stage.register(ProducerDefinition::new("b").requires("A").provides_at("B", 1));
    assert_ne!(again, first, "numbers are used once");
    let started = stage.start_next();
    assert_eq!(started.producer, again);
    stage.give(&started, 77);
    let taken_over = stage.graph.cell_info(cell(&stage, b)).unwrap();
    assert_eq!((taken_over.causes, taken_over.content), (vec![], Some(content(77))));
    run_all(&mut stage);
    assert_eq!(stage.state(total, day(1), &Key::empty()), State::Current);
}

#[test]
fn a_group_starts_when_the_producer_for_which_it_waits_is_deregistered() {
    let (mut stage, [a, _, _, total], [first, ..]) = chain();
    run_all(&mut stage);
    stage.write(a, day(1), &key(&[2]), Some(content(5)));
    let sum = stage.graph.producer_by_name("sum").unwrap();
    let sum = stage.graph.bundle(sum, day(1), &Key::empty()).unwrap();
    assert_eq!(stage.graph.open_work(sum), 1);
    stage.apply(Event::Deregister(first)).unwrap();
    assert_eq!(stage.graph.open_work(sum), 0);
    assert_eq!(stage.state(total, day(1), &Key::empty()), State::Current);
}

#[test]
fn a_client_takes_over_what_a_deregistered_producer_gave() {
    let (mut stage, [_, b, ..], [first, ..]) = chain();
    run_all(&mut stage);
    stage.apply(Event::Deregister(first)).unwrap();
    let write = Write { slot: b, date: day(1), key: key(&[1]), priority: 1, content: Some(content(9)) };
    stage
        .apply(Event::Commit(Submission { writes: vec![write], ends: vec![], ..Submission::default() }))
        .unwrap();
    let info = stage.graph.cell_info(cell(&stage, b)).unwrap();
    assert_eq!((info.producer.as_deref(), info.causes), (Some("client"), vec![]));
}

/// A → (B, C) by one run, and D from C.
#[test]
fn one_output_fails_and_its_branch_alone_suffers() {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    let [a, b, c, d] = ["A", "B", "C", "D"].map(|name| stage.define(keyed(name)));
    stage.register(ProducerDefinition::new("both").requires("A").provides_at("B", 1).provides_at("C", 1));
    stage.register(ProducerDefinition::new("d").requires("C").provides_at("D", 1));
    let at = key(&[1]);
    let output = |slot, given| OutputWrite::new(slot, key(&[1]), given);
    stage.write(a, day(1), &at, Some(content(1)));
    let started = stage.start_next();
    let outputs = vec![output(b, Given::Data(content(2))), output(c, Given::Error("no bids".to_string()))];
    let ended = stage.end(started.run, Outcome::Data(outputs)).unwrap().ended.remove(0);
    assert_eq!(ended.outputs.len(), 1);
    assert_eq!(stage.statuses()[0], PStatus::Done);
    assert_eq!(stage.state(b, day(1), &at), State::Current);
    assert_eq!(stage.state(c, day(1), &at), State::Invalid);
    let failed = stage.graph.cell(c, day(1), &at).unwrap();
    assert_eq!(stage.graph.cell_info(failed).unwrap().error.as_deref(), Some("no bids"));
    assert!(stage.graph.why(failed).unwrap().to_string().contains("no bids"));
    assert_eq!(stage.graph.next_ready(), None, "what reads it does not start");

    stage.write(a, day(1), &at, Some(content(3)));
    let started = stage.start_next();
    let outputs = vec![output(b, Given::Absent), output(c, Given::Data(content(4)))];
    let ended = stage.end(started.run, Outcome::Data(outputs)).unwrap().ended.remove(0);
    assert_eq!((ended.outputs.len(), ended.absent.len()), (1, 1));
    assert_eq!(stage.state(b, day(1), &at), State::Void);
    let started = stage.start_next();
    stage.give(&started, 5);
    assert_eq!(stage.state(d, day(1), &at), State::Current);

    stage.write(a, day(1), &at, Some(content(6)));
    let started = stage.start_next();
    let outputs = vec![output(b, Given::Data(content(7))), output(c, Given::Error("no asks".to_string()))];
    stage.end(started.run, Outcome::Data(outputs)).unwrap();
    let info = stage.graph.cell_info(failed).unwrap();
    assert_eq!((info.state, info.content), (State::Invalid, Some(content(4))), "the last good data stays");
    assert_eq!(stage.state(d, day(1), &at), State::Stale);
}

/// Each error says which part of the specification it comes from.
/// Which part each error belongs to the compiler sees to; that all parts are there this does.
#[test]
fn every_error_names_its_rule() {
    let spec = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../SPEC.md")).unwrap();
    for rule in Rule::ALL {
        let words = rule.words();
        let stands = spec.lines().any(|line| {
            line.trim_start_matches('#').trim() == words || line.starts_with(&format!("**{words}"))
        });
        assert!(stands, "{words}");
    }
    let fenced = GraphError::Fenced { run: RunId(0), epoch: 0 };
    assert_eq!(fenced.rule(), Rule::Ends.words());
}
