//! When ready bundles start and how many of them together: batches by number and by age, dependent producers, limits, retries,
//! halves of batches that died, and backfills.

use std::time::Duration;

use proptest::prelude::*;
use underbelly_storage::{ColumnType, Timestamp};

use super::super::*;
use super::stage::{Stage, content, day, key};

/// A slot A of which a producer makes B, and one C of which nothing is made.
fn one(definition: impl FnOnce(ProducerDefinition) -> ProducerDefinition) -> (Stage, SlotId, ProducerId) {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    let a = stage.define(keyed("A"));
    stage.define(keyed("B"));
    let b = ProducerDefinition::new("b").requires("A").provides("B");
    let producer = stage.register(definition(b));
    (stage, a, producer)
}

fn write(stage: &mut Stage, slot: SlotId, x: i64, number: u8) {
    stage.write(slot, day(1), &key(&[x]), Some(content(number)));
}

fn keys(stage: &Stage, bundles: &[BundleId]) -> Vec<Key> {
    bundles.iter().map(|bundle| stage.graph.bundle_info(*bundle).unwrap().key).collect()
}

/// Starts bundles as one batch.
fn start_all(stage: &mut Stage, bundles: &[BundleId], first: u64) -> Vec<Started> {
    let runs = (first..).zip(bundles);
    let start = |(run, bundle): (u64, &BundleId)| {
        let event = Event::Start { bundle: *bundle, run: RunId(run), batch: RunId(first) };
        stage.apply(event).unwrap().started.remove(0)
    };
    runs.map(start).collect()
}

/// Ends runs with the same content each, as one change.
fn ends(stage: &Stage, started: &[Started], number: u8) -> Event {
    let slot = stage.graph.slot_by_name("B").unwrap();
    let end = |started: &Started| Event::End {
        run: started.run,
        epoch: started.epoch,
        outcome: Outcome::Data(vec![OutputWrite::data(slot, started.key.clone(), content(number))]),
        reads: vec![],
    };
    Event::Several(started.iter().map(end).collect())
}

/// State, generation and content of each cell, and how each bundle stands.
fn told(graph: &Graph) -> Vec<String> {
    let cells = graph.cells().map(|cell| {
        let (info, content) = (graph.cell_info(cell).unwrap(), graph.content_of(cell).unwrap());
        format!("{:?} {:?} {:?} {:?}", info.key, info.state, content.1, content.2)
    });
    let bundles = (0..10)
        .map_while(|n| graph.bundle_info(BundleId(n)))
        .map(|info| format!("{:?} {:?}", info.key, info.status));
    cells.chain(bundles).collect()
}

#[test]
fn several_starts_and_ends_are_as_one_after_another() {
    let (mut apart, a, _) = one(|b| b.max_batch(4));
    let (mut together, ..) = one(|b| b.max_batch(4));
    for x in 0..3 {
        write(&mut apart, a, x, 1);
        write(&mut together, a, x, 1);
    }
    let batch = apart.graph.next_batch(apart.now());
    let one_by_one = start_all(&mut apart, &batch, 7);
    let starts = (7..).zip(&batch);
    let starts = starts.map(|(run, id)| Event::Start { bundle: *id, run: RunId(run), batch: RunId(7) });
    let moment = together.now();
    let several = Event::Several(starts.collect());
    let effects = together.graph.apply(100, moment, &several).unwrap();
    assert_eq!(effects.started, one_by_one);
    for started in &one_by_one {
        apart.give(started, 5);
    }
    let ended = together.graph.apply(101, moment, &ends(&together, &effects.started, 5)).unwrap();
    assert_eq!((ended.ended.len(), ended.contents.len()), (3, 3));
    assert_eq!(told(&apart.graph).len(), 9);
    assert_eq!(told(&apart.graph), told(&together.graph));
}

#[test]
fn several_are_refused_as_a_whole() {
    let (mut stage, a, _) = one(|b| b.max_batch(4));
    (0..3).for_each(|x| write(&mut stage, a, x, 1));
    let batch = stage.graph.next_batch(stage.now());
    let start = |at: usize, run, of| Event::Start { bundle: batch[at], run: RunId(run), batch: RunId(of) };
    let refused = |parts: Vec<Event>| stage.graph.check(&Event::Several(parts)).unwrap_err();
    let apart = |parts| matches!(refused(parts), GraphError::Apart { .. });
    assert!(apart(vec![start(0, 7, 7), start(0, 8, 7)]), "one bundle twice");
    assert!(apart(vec![start(0, 7, 7), start(1, 7, 7)]), "one number twice");
    assert!(apart(vec![start(0, 7, 7), start(1, 8, 8)]), "two batches");
    assert!(apart(vec![start(0, 7, 7), Event::Tick]), "a tick");
    let started = start_all(&mut stage, &batch, 7);
    let refused = |event: &Event| stage.graph.check(event).unwrap_err();
    let twice = ends(&stage, &[started[0].clone(), started[0].clone()], 1);
    assert!(matches!(refused(&twice), GraphError::Apart { .. }), "one end twice");
    let late = Started { epoch: 99, ..started[0].clone() };
    assert!(matches!(refused(&ends(&stage, &[started[1].clone(), late], 1)), GraphError::Fenced { .. }));
    stage.graph.check(&ends(&stage, &started, 1)).unwrap();
}

fn again(why: Setback, wait: u32) -> Outcome {
    Outcome::Again { why, message: "busy".to_string(), wait: wait * NANOSECOND }
}

const NANOSECOND: Duration = Duration::from_nanos(1);

#[test]
fn a_batch_starts_when_there_are_enough_or_the_oldest_has_waited() {
    let (mut stage, a, _) = one(|b| b.independent(3, 100 * NANOSECOND).max_batch(4));
    write(&mut stage, a, 0, 1);
    let since = stage.now().0 - 10;
    write(&mut stage, a, 1, 1);
    let due = Timestamp(since + 100);
    assert_eq!(stage.graph.next_due(), Some(due));
    assert_eq!(stage.graph.next_batch(Timestamp(due.0 - 1)), []);
    let aged = stage.graph.next_batch(due);
    assert_eq!(
        keys(&stage, &aged),
        [key(&[0]), key(&[1])],
        "all that are ready, although one alone has waited"
    );
    write(&mut stage, a, 2, 1);
    assert_eq!(stage.graph.next_batch(stage.now()).len(), 3, "as many as MIN_BATCH are enough");
    assert_eq!(stage.graph.next_due(), None, "what is due now is no matter of time");
    for x in 3..7 {
        write(&mut stage, a, x, 1);
    }
    let batch = stage.graph.next_batch(stage.now());
    assert_eq!(keys(&stage, &batch), [0, 1, 2, 3].map(|x| key(&[x])), "the oldest, up to MAX_BATCH");
    start_all(&mut stage, &batch, 50);
    assert_eq!(stage.graph.next_batch(stage.now()).len(), 3);
}

/// Those of a batch that died have waited; what is fresh beside them has not.
#[test]
fn a_batch_that_died_takes_none_along_that_waits_for_others() {
    let (mut stage, a, _) = one(|b| b.independent(3, 1_000_000 * NANOSECOND).max_batch(9));
    for x in 0..5 {
        write(&mut stage, a, x, 1);
    }
    let batch = stage.graph.next_batch(stage.now());
    let started = start_all(&mut stage, &batch, 10);
    write(&mut stage, a, 7, 1);
    for started in &started {
        stage.end(started.run, again(Setback::Halved(3), 0)).unwrap();
    }
    for size in [3, 2] {
        let batch = stage.graph.next_batch(stage.now());
        assert_eq!(batch.len(), size);
        assert!(!keys(&stage, &batch).contains(&key(&[7])));
        for started in start_all(&mut stage, &batch, 100 * size as u64) {
            stage.give(&started, 3);
        }
    }
    assert_eq!(stage.graph.next_batch(stage.now()), [], "one is too few");
    write(&mut stage, a, 8, 1);
    write(&mut stage, a, 9, 1);
    assert_eq!(stage.graph.next_batch(stage.now()).len(), 3);
}

/// A batch that was cut off by the end of the process may have brought it down.
#[test]
fn a_batch_that_a_reopening_cut_off_is_halved_and_only_who_is_alone_counts() {
    let (mut stage, a, producer) = one(|b| b.max_batch(4));
    for x in 0..4 {
        write(&mut stage, a, x, 1);
    }
    let mut sizes = Vec::new();
    // The first brings the process down each time, until it has failed.
    loop {
        let batch = stage.graph.next_batch(stage.now());
        if batch.is_empty() {
            break;
        }
        sizes.push(batch.len());
        let first = 10 * sizes.len() as u64;
        let started = start_all(&mut stage, &batch, first);
        if started.iter().any(|started| started.key == key(&[0])) {
            stage.reopen();
            stage.apply(Event::Attach { producer, host: None }).unwrap();
        } else {
            started.iter().for_each(|started| drop(stage.give(started, 3)));
        }
    }
    assert_eq!(sizes, [4, 2, 1, 1, 1, 1, 2]);
    let failed = |status: &PStatus| *status == PStatus::Failed;
    assert_eq!(stage.statuses().iter().filter(|status| failed(status)).count(), 1);
    assert_eq!(stage.statuses().iter().filter(|status| **status == PStatus::Done).count(), 3);
}

#[test]
fn no_more_batches_are_in_work_than_may_be() {
    let (mut stage, a, producer) = one(|b| b.max_batch(2).max_running(2));
    for x in 0..6 {
        write(&mut stage, a, x, 1);
    }
    let mut started = Vec::new();
    for first in [10, 20] {
        let batch = stage.graph.next_batch(stage.now());
        assert_eq!(batch.len(), 2);
        started.extend(start_all(&mut stage, &batch, first));
    }
    assert_eq!(stage.graph.next_batch(stage.now()), []);
    let third = stage.graph.next_ready().unwrap();
    let refused = stage.apply(Event::Start { bundle: third, run: RunId(30), batch: RunId(30) });
    assert_eq!(refused.unwrap_err(), GraphError::Busy { producer: "b".to_string(), limit: 2 });
    stage.give(&started[0], 5);
    assert_eq!(stage.graph.next_batch(stage.now()), [], "half of the first batch is still in work");
    stage.give(&started[1], 5);
    assert_eq!(stage.graph.next_batch(stage.now()).len(), 2);
    stage.reopen();
    stage.apply(Event::Attach { producer, host: None }).unwrap();
    assert!(!stage.graph.next_batch(stage.now()).is_empty(), "runs that were cut off are in work no more");
}

#[test]
fn a_failure_that_may_pass_is_tried_again_after_a_while_and_stands_when_attempts_are_used_up() {
    let retry = Retry { max_attempts: 3, ..Retry::default() };
    let (mut stage, a, producer) = one(|b| b.retry(retry));
    write(&mut stage, a, 0, 1);
    let bundle = stage.graph.next_ready().unwrap();
    let status = |stage: &Stage| stage.graph.bundle_info(bundle).unwrap().status;
    for attempt in 1..3 {
        let started = stage.start(bundle).unwrap();
        assert_eq!(started.attempts, attempt - 1);
        let until = Timestamp(stage.now().0 + 35);
        stage.end(started.run, again(Setback::Failed, 35)).unwrap();
        assert_eq!(status(&stage), PStatus::RetryWait);
        assert_eq!(stage.state(a, day(1), &key(&[0])), State::Pending, "its listener has work");
        assert!(stage.graph.bundle_info(bundle).unwrap().reason.contains("busy"));
        assert_eq!((stage.graph.next_due(), stage.graph.idle()), (Some(until), false));
        stage.reopen();
        stage.apply(Event::Attach { producer, host: None }).unwrap();
        assert_eq!(status(&stage), PStatus::RetryWait, "the time outlives the process");
        assert!(!stage.graph.is_tick_due(stage.now()));
        stage.apply(Event::Tick).unwrap();
        assert_eq!(status(&stage), PStatus::RetryWait, "it is early");
        while !stage.graph.is_tick_due(stage.now()) {
            stage.write(a, day(9), &key(&[9]), None);
        }
        stage.apply(Event::Tick).unwrap();
        assert_eq!(status(&stage), PStatus::Ready);
    }
    let started = stage.start(bundle).unwrap();
    stage.end(started.run, again(Setback::Failed, u32::MAX)).unwrap();
    let info = stage.graph.bundle_info(bundle).unwrap();
    assert_eq!((info.status, info.reason.as_str()), (PStatus::Failed, "busy (attempts used up: 3)"));

    // An exhausted one gets one start for each new input.
    write(&mut stage, a, 0, 2);
    let started = stage.start(bundle).unwrap();
    stage.end(started.run, again(Setback::Failed, u32::MAX)).unwrap();
    assert_eq!(status(&stage), PStatus::Failed);
    stage.apply(Event::Force(bundle)).unwrap();
    let started = stage.start(bundle).unwrap();
    assert_eq!(started.attempts, 0, "a force counts anew");
    stage.end(started.run, again(Setback::Rejected, u32::MAX)).unwrap();
    assert_eq!(status(&stage), PStatus::RetryWait);
    stage.apply(Event::Force(bundle)).unwrap();
    assert_eq!(status(&stage), PStatus::Ready, "a force does not wait");
    let started = stage.start(bundle).unwrap();
    assert_eq!(started.attempts, 0, "what was not taken up is no attempt");
    stage.give(&started, 7);
    assert_eq!((status(&stage), stage.graph.next_due()), (PStatus::Done, None));
}

#[test]
fn what_waits_can_be_cancelled_and_taken_out() {
    let (mut stage, a, producer) = one(|b| b);
    let mut waiting = Vec::new();
    for x in 0..2 {
        write(&mut stage, a, x, 1);
        let started = stage.start_next();
        stage.end(started.run, again(Setback::Failed, u32::MAX)).unwrap();
        waiting.push(started.bundle);
    }
    stage.apply(Event::Cancel { bundle: waiting[0], reason: "enough".to_string() }).unwrap();
    assert_eq!(stage.statuses(), [PStatus::Cancelled, PStatus::RetryWait]);
    stage.apply(Event::Deregister(producer)).unwrap();
    assert_eq!((stage.graph.next_due(), stage.graph.idle()), (None, true));
}

/// Runs batches of which one bundle brings all down, and answers the sizes of those that died and the bundle that was left.
fn hunt(bundles: i64, poison: i64, most: u32) -> (Vec<usize>, Key) {
    let (mut stage, a, _) = one(|b| b.independent(2, 1_000_000 * NANOSECOND).max_batch(most));
    for x in 0..bundles {
        write(&mut stage, a, x, 1);
    }
    let mut died = Vec::new();
    let mut next = 100;
    loop {
        let batch = stage.graph.next_batch(Timestamp(i64::MAX));
        assert!(!batch.is_empty(), "the poison was never alone: {died:?}");
        assert!(batch.len() <= most as usize);
        let started = start_all(&mut stage, &batch, next);
        next += 100;
        if started.iter().all(|started| started.key != key(&[poison])) {
            started.iter().for_each(|started| drop(stage.give(started, 3)));
            continue;
        }
        died.push(batch.len());
        if let [alone] = &started[..] {
            stage.end(alone.run, Outcome::Failed("poison".to_string())).unwrap();
            // The others go on.
            loop {
                let batch = stage.graph.next_batch(Timestamp(i64::MAX));
                if batch.is_empty() {
                    assert!(stage.graph.idle());
                    return (died, alone.key.clone());
                }
                let started = start_all(&mut stage, &batch, next);
                next += 100;
                started.iter().for_each(|started| drop(stage.give(started, 3)));
            }
        }
        let half = (batch.len() - batch.len() / 2) as u32;
        for started in &started {
            stage.end(started.run, again(Setback::Halved(half), 0)).unwrap();
        }
    }
}

#[test]
fn a_batch_that_dies_is_halved_until_what_brings_it_down_is_alone() {
    assert_eq!(hunt(8, 5, 8), (vec![8, 4, 2, 1], key(&[5])));
    assert_eq!(hunt(7, 0, 16), (vec![7, 4, 2, 1], key(&[0])));
}

proptest! {
    #[test]
    fn the_poison_is_always_found((bundles, most) in (2..30i64, 2..20u32), at in any::<prop::sample::Index>()) {
        let poison = at.index(bundles as usize) as i64;
        let (died, alone) = hunt(bundles, poison, most);
        prop_assert_eq!(alone, key(&[poison]));
        prop_assert!(died.len() <= 6, "{:?}", died);
    }
}

#[test]
fn a_dependent_producer_starts_when_all_upstream_of_its_date_has_ended() {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    let [a, _, c] = ["A", "B", "C"].map(|name| stage.define(keyed(name)));
    stage.register(ProducerDefinition::new("b").requires("A").provides("B"));
    let basis = ProducerDefinition::new("basis").requires("B").provides("C").dependent().max_batch(10);
    let basis = stage.register(basis);
    for x in 0..2 {
        write(&mut stage, a, x, 1);
    }
    stage.write(a, day(2), &key(&[7]), Some(content(1)));
    stage.end_of(day(1));
    let first = stage.start_next();
    stage.give(&first, 1);
    let made = stage.graph.bundle(basis, day(1), &key(&[0])).unwrap();
    let info = stage.graph.bundle_info(made).unwrap();
    assert_eq!(info.status, PStatus::Parked);
    assert_eq!(info.reason, "waiting for producer b, which has 1 bundles in work for 1970-01-02");
    let second = stage.start_next();
    stage.give(&second, 2);
    let other = stage.start_next();
    stage.give(&other, 3);
    let batch = stage.graph.next_batch(stage.now());
    assert_eq!(keys(&stage, &batch), [key(&[0]), key(&[1])], "the date that has ended, as one batch");
    for started in start_all(&mut stage, &batch, 50) {
        stage.give(&started, 4);
    }
    assert_eq!(stage.graph.next_batch(stage.now()), [], "the end of the other date was not declared");
    stage.end_of(day(2));
    assert_eq!(stage.graph.next_batch(stage.now()).len(), 1);

    // New work re-arms it: what did not change is neither held nor made again.
    write(&mut stage, a, 0, 9);
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
    let ready: Vec<BundleId> = stage.graph.ready().collect();
    assert_eq!(keys(&stage, &ready), [key(&[7]), key(&[0])]);
    let started = stage.start(ready[1]).unwrap();
    assert_eq!(stage.graph.producer(started.producer).unwrap().name, "b");
    stage.give(&started, 9);
    let ready = stage.graph.ready().collect::<Vec<_>>();
    assert_eq!(keys(&stage, &ready), [key(&[7]), key(&[0])]);
}

#[test]
fn a_backfill_comes_after_what_is_live_at_any_distance() {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    let [a, _, _] = ["A", "B", "C"].map(|name| stage.define(keyed(name)));
    stage.register(ProducerDefinition::new("b").requires("A").provides("B"));
    stage.register(ProducerDefinition::new("c").requires("B").provides("C"));
    let writes = (0..3).map(|x| Write {
        slot: a,
        date: day(1),
        key: key(&[x]),
        priority: 0,
        content: Some(content(1)),
    });
    stage
        .apply(Event::Commit(Submission {
            writes: writes.collect(),
            ends: vec![],
            backfill: true,
            ..Submission::default()
        }))
        .unwrap();
    let first = stage.start_next();
    stage.give(&first, 2);
    write(&mut stage, a, 5, 1);
    let live = stage.start_next();
    assert_eq!(live.key, key(&[5]), "what is live overtakes");
    stage.give(&live, 3);
    let live = stage.start_next();
    assert_eq!((live.key.clone(), live.producer), (key(&[5]), ProducerId(1)), "and so does what it makes");
    stage.give(&live, 3);
    // A bundle of the backfill of which an input changes now is live.
    write(&mut stage, a, 2, 8);
    let order: Vec<Key> = keys(&stage, &stage.graph.ready().collect::<Vec<_>>());
    assert_eq!(order, [key(&[2]), key(&[1]), key(&[0])]);
}

#[test]
fn proxies_that_cannot_work_are_refused() {
    let mut stage = Stage::new();
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    stage.define(keyed("A"));
    stage.define(keyed("B"));
    let own = || ProducerDefinition::new("b").requires("A").provides("B");
    let waits = Duration::from_secs(11 * 366 * 86_400);
    let retry = |max_attempts, backoff| Retry { max_attempts, backoff, ..Retry::default() };
    let wrong = [
        own().max_batch(0),
        own().max_batch(1025),
        own().retry(retry(1, Duration::ZERO)),
        own().max_running(0),
        own().independent(0, NANOSECOND),
        own().independent(5, NANOSECOND).max_batch(4),
        own().independent(1, waits),
        own().retry(retry(0, NANOSECOND)),
        own().retry(retry(1, waits)),
    ];
    for definition in wrong {
        let refused = stage.apply(Event::Register(definition.clone())).unwrap_err();
        assert!(matches!(refused, GraphError::Proxy { .. }), "{definition:?}: {refused}");
    }
    stage.register(own().independent(2, waits / 2));
}

#[test]
fn waits_double_up_to_the_longest_less_a_chance() {
    let retry =
        Retry { max_attempts: 9, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60) };
    let full: Vec<u64> = (1..9).map(|failures| retry.wait(failures, 0).as_secs()).collect();
    assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(retry.wait(u32::MAX, 0).as_secs(), 60);
    for chance in [1, 77, 65_535, u64::MAX] {
        let wait = retry.wait(4, chance).as_secs_f64();
        assert!((6.0..8.0).contains(&wait), "{wait}");
    }
}
