//! Runs behind a source that never rests, and runs that fail.

use super::super::super::*;
use super::super::stage::{Stage, content, day, key};
use super::{slots, step};

/// A → B → C, where a run of either takes as long as A needs for two commits.
#[test]
fn behind_a_fast_source_each_of_two_slow_producers_keeps_committing() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    let mut commits = [0; 3];
    for round in 0..20 {
        stage.write(a, date, &at, Some(content(2 * round)));
        while let Some(bundle) = stage.graph.next_ready() {
            stage.start(bundle).unwrap();
        }
        stage.write(a, date, &at, Some(content(2 * round + 1)));
        for started in stage.flying.values().cloned().collect::<Vec<_>>() {
            for (cell, ..) in stage.give(&started, round).contents {
                commits[stage.graph.cell_info(cell).unwrap().slot.at()] += 1;
            }
        }
        for slot in [b, c].into_iter().filter(|slot| stage.graph.cell(*slot, date, &at).is_some()) {
            assert_eq!(stage.state(slot, date, &at), State::Stale, "nothing that follows is up to date");
        }
    }
    assert_eq!(commits, [0, 20, 19], "B with each round, and C of the B before it");
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        stage.give(&started, 100);
    }
    assert_eq!(stage.state(c, date, &at), State::Current, "and all is once the source rests");
}

#[test]
fn what_failed_is_tried_again_once_for_each_change_of_its_inputs() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("abc", &["A", "B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    let fail = |stage: &mut Stage| {
        let started = stage.start_next();
        stage.end(started.run, Outcome::Failed("singular".to_string())).unwrap();
        assert!(stage.graph.idle(), "not again for what it has read");
        started.inputs.iter().map(|input| input.g).collect::<Vec<_>>()
    };
    stage.write(a, date, &at, Some(content(1)));
    stage.write(b, date, &at, Some(content(1)));
    assert_eq!(fail(&mut stage), [1, 1]);
    stage.write(a, date, &at, Some(content(1)));
    assert!(stage.graph.idle(), "equal content is no change");
    stage.write(a, date, &at, Some(content(2)));
    assert_eq!(fail(&mut stage), [2, 1]);

    let both =
        [a, b].map(|slot| Write { slot, date, key: at.clone(), priority: 0, content: Some(content(3)) });
    stage
        .apply(Event::Commit(Submission { writes: both.to_vec(), ends: vec![], ..Submission::default() }))
        .unwrap();
    assert_eq!(fail(&mut stage), [3, 2], "one start for both");

    stage.write(b, date, &at, None);
    assert!(stage.graph.idle(), "without an input there is nothing to try");
    stage.write(b, date, &at, Some(content(4)));
    let started = stage.start_next();
    stage.give(&started, 5);
    assert_eq!(stage.state(c, date, &at), State::Current);
}
