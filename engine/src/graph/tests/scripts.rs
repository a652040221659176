//! Properties of random systems under random scripts, each step of which the stage compares with the oracle.
//!
//! `UNDERBELLY_SCRIPTS` says how many scripts each property sees (200; below 100,000 some see fewer), `UNDERBELLY_SEED` which (1).
//! A property that fails prints the smallest script that it found as a test, and one that holds how often it compared, and how
//! often that said nothing.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::super::*;
use super::oracle::{BundleName, bundle_name};
use super::play::Play;
use super::script::{Script, scripts};
use super::stage::content;

/// Scripts that one generator of random numbers makes.
const PART: u64 = 500;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// What a property saw of a script.
struct Told {
    events: u64,
    /// How often it compared what it is about.
    compared: u64,
    /// How often it could not, since what it is about need not be so.
    skipped: u64,
}

impl Told {
    fn once(events: u64, is_compared: bool) -> Told {
        Told { events, compared: u64::from(is_compared), skipped: u64::from(!is_compared) }
    }
}

/// Sees that a property holds for as many scripts as asked for, or one of `rarely` of them, and that it compares at least so
/// many of a hundred times.
fn hold(name: &str, rarely: u64, deterministic: bool, least: u64, property: impl Fn(&Script) -> Told + Sync) {
    let asked = setting("UNDERBELLY_SCRIPTS", 200);
    let wanted = if asked >= 100_000 { asked } else { (asked / rarely).max(20) };
    let seed = setting("UNDERBELLY_SEED", 1);
    let [part, seen, events, compared, skipped] = [const { AtomicU64::new(0) }; 5];
    let failure = Mutex::new(None);
    let work = || {
        loop {
            let part = part.fetch_add(1, Ordering::Relaxed);
            let cases = wanted.saturating_sub(part * PART).min(PART);
            if cases == 0 || failure.lock().unwrap().is_some() {
                return;
            }
            let config = Config {
                cases: cases as u32,
                failure_persistence: None,
                max_shrink_iters: 20_000,
                ..Config::default()
            };
            let random = blake3::hash(format!("{name} {seed} {part}").as_bytes());
            let random = TestRng::from_seed(RngAlgorithm::ChaCha, random.as_bytes());
            let found = TestRunner::new_with_rng(config, random).run(&scripts(deterministic, 80), |script| {
                let told = property(&script);
                events.fetch_add(told.events, Ordering::Relaxed);
                compared.fetch_add(told.compared, Ordering::Relaxed);
                skipped.fetch_add(told.skipped, Ordering::Relaxed);
                seen.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            if let Err(found) = found {
                *failure.lock().unwrap() = Some(found.to_string());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    if let Some(found) = failure.into_inner().unwrap() {
        panic!("{found}");
    }
    let (scripts, events) = (seen.into_inner(), events.into_inner());
    let (compared, skipped) = (compared.into_inner(), skipped.into_inner());
    println!("{name}: {scripts} scripts, {events} events, compared {compared} times, skipped {skipped}");
    assert!(compared > 0 && compared * 100 >= (compared + skipped) * least, "{name} compares too seldom");
}

/// Plays a printed script and then to rest.
fn replay(text: &str) -> Play {
    let mut play = Play::open(&Script::read(text));
    play.play();
    play.drain();
    play
}

#[test]
fn every_step_is_as_the_rules_say() {
    hold("every step", 1, false, 100, |script| {
        let mut play = Play::open(script);
        play.play();
        play.drain();
        Told::once(play.stage.seq, true)
    });
}

/// A result that gives nothing, while its inputs move, lets readers of the cell in.
#[test]
fn an_absent_output_that_lags() {
    replay(
        "
        slot
        slot
        slot x
        producer s0 -> s2@1
        producer s0 -> s1@1 late
        commit s0:d1:0,0,0@0=1
        start 0
        give 0 2
        commit s2:d1:1,0,0@0=0
        commit s0:d1:0,0,0@0=2
        start 0
        commit s0:d1:0,0,0@0=0
        ",
    );
}

/// What was cancelled before its producer saw it is news to nobody.
#[test]
fn a_cancelled_notification() {
    replay(
        "
        slot
        slot
        producer s0 -> s1@1 late
        register
        commit s0:d0:0,0,0@0=0
        cancel 0
        ",
    );
}

/// What a producer that is no more has made waits for nothing.
#[test]
fn a_deregistered_producer_that_was_held() {
    replay(
        "
        slot
        slot
        slot
        producer s0 -> s1@3
        producer s0 s1 optional broadcast -> s2@2 late
        register
        commit s0:d0:0,0,0@0=0
        attach 1
        start 0
        give 0 0
        start 0
        commit s0:d0:0,0,0@0=1
        give 0 0
        deregister 1
        ",
    );
}

/// Two inputs that look for better data of one slot.
#[test]
fn one_that_fills_in_twice() {
    replay(
        "
        slot
        slot
        slot
        producer s0 s0 broadcast lag:1 -> s2@2
        producer s0 s2 exclusive s2 exclusive -> s2@1 late
        register
        commit s0:d0:0,0,0@0=0
        ",
    );
}

/// A cell for which filters keep the bundle away that would give it.
#[test]
fn a_cell_whose_inputs_do_not_pass_is_explained() {
    replay(
        "
        slot y
        slot x y m
        slot x y z
        producer s0 if:y=0 -> s1@1 as:m1
        producer s1 -> s2@1 group by:xy quorum late
        producer daemon -> s1@0
        register
        submit 0 s0:d0:0,1,0@0=0
        ",
    );
}

/// A group for which filters leave no member.
#[test]
fn a_group_whose_members_do_not_pass_is_explained() {
    replay(
        "
        slot x
        slot x m
        slot x m
        producer s0 optional broadcast lag:1 s0 if:x!0 -> s1@1 as:m1 group
        producer s1 -> s2@1 group by:x quorum late
        commit s1:d0:0,0,0@0=0 s0:d0:0,0,0@0=0
        register
        ",
    );
}

/// What a run reads again closes no way by names: that is for reads of dates that nobody has read yet.
#[test]
fn what_is_read_again_closes_nothing_by_names() {
    for script in [
        "
        slot x
        slot x
        slot m
        slot x
        slot x
        producer s0 -> s3@1 read:s4 read:s3:1
        producer s3 -> s4@1 group by:x
        producer s0 -> s1@1 late
        commit s0:d0:1,0,0@0=1
        start 0
        commit s0:d0:1,0,0@0=0
        submit 0 s0:d0:0,0,0@0=-
        submit 0 s0:d0:0,0,0@0=-
        submit 0 s0:d0:0,0,0@0=-
        ",
        "
        slot
        slot
        slot
        producer s0 -> s1@1 read:s2 read:s1:1
        producer s1 s2 exclusive -> s2@1 late
        commit s0:d0:0,0,0@0=0
        register
        start 0
        give 0 0
        retract 0
        ",
    ] {
        replay(script);
    }
}

/// Members that come and go in one event may leave a group with nothing in it.
#[test]
fn a_group_that_was_there_for_a_moment() {
    replay(
        "
        slot x y
        slot x y z
        producer s0 s1 lag:1 -> s1@2 group by:x late
        commit s1:d0:1,0,0@0=0
        register
        commit s0:d1:1,0,0@0=0 s1:d0:1,0,0@0=-
        ",
    );
}

/// An output that rests on its first input alone, which changes while another has nothing.
#[test]
fn what_rests_on_some_inputs_does_not_wait_for_one_that_is_not_there() {
    replay(
        "
        slot x
        slot x
        slot x
        producer s0 s1 -> s2@1 uses
        commit s0:d0:0,0,0@0=1 s1:d0:0,0,0@0=1
        start 0
        give 0 0
        commit s1:d0:0,0,0@0=-
        commit s0:d0:0,0,0@0=2
        ",
    );
}

/// What waits for an exclusive input is stale for its sake, whatever it rests on.
#[test]
fn an_exclusive_input_concerns_what_rests_on_another() {
    replay(
        "
        slot
        slot x
        slot x
        slot x
        slot x
        producer s0 -> s1@1 read:s0
        producer s1 exclusive lag:1 s2 -> s3@1 uses
        commit s2:d1:1,0,0@0=0
        start 0
        give 0 0
        commit s0:d0:0,0,0@0=0
        start 0
        give 0 0
        ",
    );
}

/// A run that reads an output which it does not give.
#[test]
fn what_is_not_given_closes_no_circle() {
    let play = replay(
        "
        slot
        slot
        slot
        producer s0 -> s1@1 s2@1 read:s1
        commit s0:d0:0,0,0@0=4
        ",
    );
    assert!(!play.is_bound_to_history(), "nothing was refused");
}

/// What is taken back was of an earlier date, so the newest is as old as the last tick said.
#[test]
fn what_was_the_newest_all_along_grows_old_with_a_tick() {
    replay(
        "
        slot
        slot old
        producer s0 -> s1@1 late
        producer daemon -> s1@4
        submit 0 made:-11 s0:d1:0,0,0@0=0
        submit 0 s0:d0:0,0,0@0=0
        retract 2
        ",
    );
}

/// What another member gave and lost again is none of what a group has of others.
#[test]
fn a_member_alone_takes_nothing_back_as_it_goes() {
    replay(
        "
        slot m
        slot x
        producer s0 s0 optional broadcast -> s1@2 group quorum dependent
        producer daemon -> s0@0
        producer daemon -> s0@0 as:m1
        submit 1 s0:d1:0,0,0@0=0
        submit 0 s0:d1:0,0,0@0=0
        deregister 1
        register
        deregister 2
        ",
    );
}

/// What a commit puts and takes back again was never the newest.
#[test]
fn what_is_put_and_taken_back_at_once_leaves_the_newest_as_it_was() {
    replay(
        "
        slot x old
        slot x
        producer s0 -> s1@1 late
        producer daemon -> s0@4
        submit 0 made:-11 s0:d0:0,0,0@0=0
        submit 0 s0:d1:0,0,0@0=0 s0:d1:0,0,0@0=-
        ",
    );
}

/// What is given again as it was by a producer that came in between grows old from when it was made.
#[test]
fn what_is_given_again_by_another_grows_old() {
    replay(
        "
        slot
        slot m old
        producer s0 -> s1@1 as:m1
        producer s0 -> s1@1 late
        producer daemon -> s1@0 as:m1
        producer daemon -> s1@0
        submit 1 s0:d1:0,0,0@0=1
        attach 0
        submit 0 s0:d0:0,0,0@0=-
        submit 2 s0:d0:0,0,0@0=-
        attach 0
        attach 0
        submit 0 s0:d0:0,0,0@0=-
        submit 0 s0:d0:0,0,0@0=-
        deregister 2
        register
        attach 3
        submit 1 made:-20 s0:d1:0,0,0@0=1
        ",
    );
}

#[test]
fn a_script_reads_back_as_it_was_printed() {
    hold("printed", 1, false, 100, |script| {
        assert_eq!(Script::read(&script.to_string()), *script);
        Told::once(script.steps.len() as u64, true)
    });
}

#[test]
fn at_rest_everything_equals_a_recompute_from_the_sources() {
    hold("at rest", 4, true, 50, |script| {
        let play = rest(script);
        let mut fresh = Play::bare(script);
        for (_, definition) in play.stage.graph.producers() {
            fresh.stage.register(definition.clone());
        }
        fresh
            .stage
            .apply(Event::Commit(Submission {
                writes: play.sources(),
                ends: vec![],
                ..Submission::default()
            }))
            .unwrap();
        fresh.drain();
        let is_compared = !play.is_bound_to_history() && !fresh.is_bound_to_history();
        if is_compared {
            assert_eq!(play.said(), fresh.said());
        }
        Told::once(play.stage.seq, is_compared)
    });
}

/// A script whose results are functions of what was read, played and run to rest.
fn rest(script: &Script) -> Play {
    let mut play = Play::open(script);
    play.deterministic = true;
    play.play();
    play.drain();
    play.mend();
    play.drain();
    play
}

#[test]
fn without_cutoff_the_contents_are_the_same() {
    hold("cutoff", 4, true, 50, |script| {
        let mut play = Play::open(script);
        (play.deterministic, play.cutoff) = (true, false);
        play.play();
        play.drain();
        play.mend();
        play.drain();
        let rest = rest(script);
        let is_compared = !play.is_bound_to_history() && !rest.is_bound_to_history();
        if is_compared {
            assert_eq!(play.said(), rest.said());
        }
        Told::once(play.stage.seq, is_compared)
    });
}

#[test]
fn from_quiet_one_commit_starts_each_bundle_at_most_once() {
    hold("from quiet", 4, true, 50, |script| {
        let mut play = rest(script);
        let (mut compared, mut skipped) = (0, 0);
        let sources = play.sources();
        for (at, source) in sources.into_iter().enumerate() {
            play.stage.starts.clear();
            let content = Some(content((at % 4) as u8));
            play.stage
                .apply(Event::Commit(Submission {
                    writes: vec![Write { content, ..source }],
                    ..Submission::default()
                }))
                .unwrap();
            let before = play.stage.log.len();
            play.drain();
            // A producer that gives a cell for the first time, where other data stood in, is a second change to readers
            // that did not wait for it: nothing told them that it would give that cell.
            let surprised = play.stage.surprised_since(before);
            for (bundle, starts) in &play.stage.starts {
                let name = bundle_name(&play.stage.graph, *bundle);
                match surprised.contains(&name) {
                    true => skipped += 1,
                    false => compared += 1,
                }
                assert!(*starts == 1 || surprised.contains(&name), "{starts} starts of {name:?}");
            }
        }
        Told { events: play.stage.seq, compared, skipped }
    });
}

#[test]
fn after_a_crash_at_any_record_the_contents_are_the_same_and_no_work_is_done_that_was_not_there() {
    hold("crash", 4, true, 50, |script| {
        let mut play = Play::open(script);
        play.deterministic = true;
        play.play();
        let log = std::mem::take(&mut play.stage.log);
        let at = script.steps.len() * 7919 % (log.len() + 1);
        let (before, after) = log.split_at(at);
        let end = |crash: bool| {
            let mut play = Play::again(script, before);
            let reopens = crash && !play.is_close_to_failing();
            if reopens {
                play.stage.reopen();
            }
            play.stage.ends.clear();
            play.drain();
            let (ends, surprised) = (play.stage.ends.clone(), play.stage.surprised_since(before.len()));
            for event in after {
                let again = matches!(
                    event,
                    Event::Commit(Submission { .. })
                        | Event::DefineSlot(_)
                        | Event::Register(_)
                        | Event::Deregister(_)
                );
                match again.then(|| play.stage.apply(event.clone())) {
                    // In another order other reads were reported, which a registration may close to a circle; and what a client had
                    // taken back before is there, whose priority it may want.
                    Some(Err(GraphError::Cycle { .. } | GraphError::PriorityTaken { .. })) => {
                        return (None, ends, surprised, play.stage.seq, reopens);
                    }
                    applied => drop(applied.map(|applied| applied.unwrap())),
                }
            }
            play.drain();
            // What is left of a producer that is no more is history, no function of the inputs.
            play.mend();
            play.drain();
            let said = Some(play.said()).filter(|_| !play.is_bound_to_history());
            (said, ends, surprised, play.stage.seq, reopens)
        };
        let (crashed, whole) = (end(true), end(false));
        let are_comparable = crashed.0.is_some() && whole.0.is_some();
        if are_comparable {
            assert_eq!(crashed.0, whole.0);
        }
        // Without the crash both are the same.
        let is_compared = are_comparable && crashed.4;
        // In another order a better priority may come second, and surprise those that read what stood in.
        let counted = |ends: &BTreeMap<BundleName, u64>| -> u64 {
            ends.iter().filter(|(name, _)| !crashed.2.contains(*name)).map(|(_, ends)| ends).sum()
        };
        let (after, without) = (counted(&crashed.1), counted(&whole.1));
        assert!(after <= without, "{after} results after the crash, {without} without it");
        Told::once(crashed.3 + whole.3, is_compared)
    });
}

/// A source that changes between any two steps, and bundles that end as they ended before.
/// Of most sources that are read the readers are groups, or have inputs that come and go, or others that are not usable.
#[test]
fn behind_a_source_that_is_faster_than_any_run_everything_keeps_committing() {
    hold("fast", 4, false, 5, |script| {
        let (mut compared, mut skipped) = (0, 0);
        let mut play = Play::open(script);
        play.play();
        play.drain();
        for source in play.sources() {
            let fast =
                play.stage.oracle.behind(&(source.slot, source.date, source.key.clone()), source.priority);
            let mut ends: BTreeMap<BundleName, u32> = fast.into_iter().map(|name| (name, 0)).collect();
            // What a daemon gives clients may not.
            let again = Submission { writes: vec![source.clone()], ..Submission::default() };
            if ends.is_empty() || play.stage.graph.check(&Event::Commit(again)).is_err() {
                skipped += u64::from(play.stage.oracle.is_read(&(source.slot, source.date, source.key)));
                continue;
            }
            compared += 1;
            let rounds = 3 * (ends.len() + 2);
            let write = |play: &mut Play, number: usize| {
                let mut content = [0; 32];
                content[..8].copy_from_slice(&number.to_le_bytes());
                let write = Write { content: Some(content), ..source.clone() };
                play.stage
                    .apply(Event::Commit(Submission {
                        writes: vec![write],
                        ends: vec![],
                        ..Submission::default()
                    }))
                    .unwrap();
            };
            for round in 0..rounds {
                write(&mut play, 2 * round + 1);
                while let Some(bundle) = play.stage.graph.next_ready() {
                    play.start(bundle);
                }
                write(&mut play, 2 * round + 2);
                let flying: Vec<Started> = play.stage.flying.values().cloned().collect();
                for started in flying {
                    let outcome = play.stage.oracle.as_before(&started, round);
                    let reads = play.stage.oracle.reads_as_before(started.run);
                    play.stage.end_with(started.run, outcome, reads).unwrap();
                    let name = (started.producer, started.date, started.key);
                    ends.entry(name).and_modify(|ends| *ends += 1);
                }
            }
            assert!(ends.values().all(|ends| *ends >= 3), "in {rounds} rounds: {ends:?}");
            play.drain();
        }
        Told { events: play.stage.seq, compared, skipped }
    });
}
