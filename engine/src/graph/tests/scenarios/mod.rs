//! Named situations, each event of which is also checked against the oracle.

mod inputs;
mod joins;
mod priorities;
mod reads;
mod runs;

use underbelly_storage::ColumnType;

use super::super::*;
use super::stage::{Stage, content, day, key};

/// Slots `A`, `B`, … each keyed by `x`.
fn slots<const N: usize>(stage: &mut Stage) -> [SlotId; N] {
    let name = |at: usize| char::from(b'A' + at as u8).to_string();
    std::array::from_fn(|at| stage.define(SlotDefinition::new(name(at)).cell_key("x", ColumnType::I64)))
}

fn step(name: &str, from: &[&str], to: &str) -> ProducerDefinition {
    let definition = ProducerDefinition::new(name).provides_at(to, 1);
    from.iter().fold(definition, |definition, slot| definition.requires(*slot))
}

fn states(effects: &Effects) -> Vec<(u32, State, State)> {
    effects.transitions.iter().map(|t| (t.cell.0, t.from, t.to)).collect()
}

#[test]
fn a_chain_runs_from_source_to_end() {
    use State::{Current, Pending, Stale, Updated, Void};
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let (date, at) = (day(1), key(&[7]));

    let effects = stage.write(a, date, &at, Some(content(1)));
    assert_eq!(states(&effects), [(0, Void, Updated), (0, Updated, Pending)]);
    assert_eq!(effects.ready, [BundleId(0)]);
    let first = stage.start_next();
    assert_eq!((first.key.clone(), first.inputs.len()), (at.clone(), 1));
    assert_eq!((first.inputs[0].g, first.inputs[0].content), (1, content(1)));
    let effects = stage.give(&first, 2);
    assert_eq!(states(&effects), [(0, Pending, Current), (1, Void, Updated), (1, Updated, Pending)]);
    let second = stage.start_next();
    let effects = stage.give(&second, 3);
    assert_eq!(states(&effects), [(1, Pending, Current), (2, Void, Updated), (2, Updated, Current)]);
    assert!(stage.graph.idle());

    let effects = stage.write(a, date, &at, Some(content(9)));
    let expected = [(0, Current, Updated), (0, Updated, Pending), (1, Current, Stale), (2, Current, Stale)];
    assert_eq!(states(&effects), expected);
    let down = stage.graph.downstream(CellId(0), Extent::default()).unwrap();
    assert_eq!(down.children[0].children[0].node, TreeNode::Cell(stage.graph.cell(c, date, &at).unwrap()));
    let up = stage.graph.upstream(CellId(2), Extent::default()).unwrap();
    assert_eq!(up.children[0].children[0].node, TreeNode::Cell(CellId(0)));
    assert_eq!(stage.state(b, date, &at), Stale);
}

/// A → B, A → C, (B, C) → D, run to rest.
fn diamond(stage: &mut Stage) -> [SlotId; 4] {
    let ids = slots(stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("ac", &["A"], "C"));
    stage.register(step("bcd", &["B", "C"], "D"));
    stage.write(ids[0], day(1), &key(&[1]), Some(content(1)));
    for _ in 0..3 {
        let started = stage.start_next();
        stage.give(&started, 5);
    }
    assert!(stage.graph.idle());
    stage.starts.clear();
    ids
}

#[test]
fn the_foot_of_a_diamond_runs_once() {
    let mut stage = Stage::new();
    let [a, _, _, d] = diamond(&mut stage);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let (b, c) = (stage.start_next(), stage.start_next());
    stage.give(&b, 6);
    assert!(stage.graph.next_ready().is_none(), "the foot waits for the other side");
    stage.give(&c, 6);
    let foot = stage.start_next();
    stage.give(&foot, 7);
    assert!(stage.graph.idle());
    assert_eq!(stage.starts[&BundleId(2)], 1);
    assert_eq!(stage.state(d, day(1), &key(&[1])), State::Current);
}

#[test]
fn the_foot_of_a_diamond_does_not_run_where_both_sides_come_out_equal() {
    let mut stage = Stage::new();
    let [a, _, _, d] = diamond(&mut stage);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    assert_eq!(stage.state(d, day(1), &key(&[1])), State::Stale);
    let (b, c) = (stage.start_next(), stage.start_next());
    stage.give(&b, 5);
    let effects = stage.give(&c, 5);
    assert!(effects.contents.is_empty());
    assert!(states(&effects).contains(&(3, State::Stale, State::Current)));
    assert!(stage.graph.idle());
    assert!(!stage.starts.contains_key(&BundleId(2)));
}

#[test]
fn an_equal_commit_wakes_nobody_and_is_remembered() {
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    stage.give(&started, 1);
    let before = stage.graph.cell_info(CellId(0)).unwrap();
    let effects = stage.write(a, day(1), &key(&[1]), Some(content(1)));
    assert_eq!(effects, Effects::default());
    let after = stage.graph.cell_info(CellId(0)).unwrap();
    assert_eq!((after.g, after.changed_seq), (before.g, before.changed_seq));
    assert!(after.verified_at > before.verified_at && after.verified_seq > before.verified_seq);
}

#[test]
fn a_slow_producer_behind_a_fast_source_keeps_committing_and_so_does_what_follows() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(0)));
    let mut commits = 0;
    for round in 1..20 {
        for started in [stage.graph.next_ready(), stage.graph.next_ready()].into_iter().flatten().take(1) {
            stage.start(started).unwrap();
        }
        stage.write(a, date, &at, Some(content(round)));
        let running: Vec<Started> = stage.flying.values().cloned().collect();
        for started in running {
            let effects = stage.give(&started, round);
            let of_c = |(cell, ..): &&(CellId, Option<ContentId>, u64)| {
                stage.graph.cell_info(*cell).unwrap().slot == c
            };
            commits += effects.contents.iter().filter(of_c).count();
        }
    }
    assert!(commits >= 5, "{commits}");
    let info = stage.graph.cell_info(stage.graph.cell(b, date, &at).unwrap()).unwrap();
    assert_eq!((info.lagging, info.state), (true, State::Stale));
    assert_eq!(info.causes, [Cause::Changed(CellId(0))]);
}

/// `pick` gives B where A is odd, and a client has given B too; `join` reads A and B.
#[test]
fn a_better_candidate_that_keeps_giving_nothing_keeps_nobody_waiting() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    let pick = stage.register(step("pick", &["A"], "B"));
    let join = stage.register(step("join", &["A", "B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(b, date, &at, Some(content(50)));
    let mut commits = 0;
    for round in 1..20u8 {
        stage.write(a, date, &at, Some(content(round)));
        while let Some(bundle) = stage.graph.next_ready() {
            stage.start(bundle).unwrap();
        }
        stage.write(a, date, &at, Some(content(100 + round)));
        for started in stage.flying.values().cloned().collect::<Vec<_>>() {
            if started.producer == join {
                stage.give(&started, round);
                commits += 1;
            } else {
                assert_eq!(started.producer, pick);
                let once = (round == 1).then(|| OutputWrite::data(b, at.clone(), content(49)));
                let outputs = once.into_iter().collect();
                stage.end(started.run, Outcome::Data(outputs)).unwrap();
            }
        }
    }
    assert!(commits > 10, "{commits} commits of C");
    assert_eq!(stage.state(c, date, &at), State::Stale);
}

#[test]
fn a_failure_spoils_its_own_branch_and_heals() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    for _ in 0..2 {
        let started = stage.start_next();
        stage.give(&started, 1);
    }
    stage.write(a, date, &at, Some(content(2)));
    let started = stage.start_next();
    stage.end(started.run, Outcome::Failed("singular matrix".to_string())).unwrap();
    assert_eq!(stage.state(a, date, &at), State::Current, "a failed listener has returned");
    assert_eq!(stage.state(b, date, &at), State::Invalid);
    assert_eq!(stage.state(c, date, &at), State::Stale);
    let info = stage.graph.cell_info(CellId(1)).unwrap();
    assert_eq!(info.content, Some(content(1)), "the last good data stays");
    assert_eq!(info.error.as_deref(), Some("singular matrix"));
    assert_eq!(stage.graph.cell_info(CellId(0)).unwrap().failed_listeners, 1);
    assert_eq!(stage.statuses(), [PStatus::Failed, PStatus::Parked]);
    let why = stage.graph.why(CellId(2)).unwrap().to_string();
    assert!(why.contains("producer ab failed at seq") && why.contains("singular matrix"), "{why}");
    assert!(stage.graph.idle());

    stage.write(a, date, &at, Some(content(3)));
    for _ in 0..2 {
        let started = stage.start_next();
        stage.give(&started, 3);
    }
    assert_eq!(stage.state(b, date, &at), State::Current);
    assert_eq!(stage.state(c, date, &at), State::Current);
}

#[test]
fn a_first_run_that_fails_is_found_by_why() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    stage.end(started.run, Outcome::Failed("no licence".to_string())).unwrap();
    let why = stage.graph.why_at(b, day(1), &key(&[1])).unwrap().to_string();
    assert!(why.contains("no licence"), "{why}");
    let why = stage.graph.why_at(b, day(1), &key(&[2])).unwrap().to_string();
    assert!(why.contains("A 1970-01-02 2 was never made"), "{why}");
}

#[test]
fn declining_withdraws_outputs() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    stage.give(&started, 1);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    let effects = stage.end(started.run, Outcome::Declined("holiday".to_string())).unwrap();
    assert_eq!(effects.ended[0].absent, [CellId(1)]);
    assert_eq!(stage.state(b, day(1), &key(&[1])), State::Void);
    assert_eq!(stage.statuses(), [PStatus::Declined]);
    assert_eq!(stage.graph.bundle_info(BundleId(0)).unwrap().reason, "holiday");
}

/// A(x) → B(x), then all of B for a date → C().
fn grouped(stage: &mut Stage) -> [SlotId; 3] {
    let [a, _] = slots(stage);
    let total = stage.define(SlotDefinition::new("Total"));
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("sum", &["B"], "Total").group_by_date());
    [a, SlotId(1), total]
}

fn run_ready(stage: &mut Stage, number: u8) -> usize {
    let mut runs = 0;
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        stage.give(&started, number);
        runs += 1;
    }
    runs
}

#[test]
fn a_group_waits_for_the_end_of_its_date() {
    let mut stage = Stage::new();
    let [a, _, total] = grouped(&mut stage);
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    stage.write(a, date, &key(&[2]), Some(content(1)));
    let first = stage.start_next();
    stage.give(&first, 2);
    let group = BundleId(2);
    let reason = |stage: &Stage| stage.graph.bundle_info(group).unwrap().reason;
    assert_eq!(reason(&stage), "scope open: 1 upstream bundles are in work for 1970-01-02");
    run_ready(&mut stage, 2);
    assert_eq!(reason(&stage), "scope open: end_of(1970-01-02) not declared");
    let why = stage.graph.why_at(total, date, &Key::empty()).unwrap().to_string();
    assert!(why.contains("scope open: end_of(1970-01-02) not declared"), "{why}");
    stage.end_of(day(2));
    assert!(stage.graph.next_ready().is_none(), "another date");
    let effects = stage.end_of(date);
    assert_eq!(effects.ready, [group]);
    let started = stage.start_next();
    assert_eq!(started.inputs.len(), 2);
    stage.give(&started, 9);
    assert_eq!(stage.state(total, date, &Key::empty()), State::Current);
}

#[test]
fn a_group_waits_for_open_work_upstream_although_its_date_ended() {
    let mut stage = Stage::new();
    let [a, ..] = grouped(&mut stage);
    stage.end_of(day(1));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    stage.write(a, day(1), &key(&[2]), Some(content(1)));
    let (first, second) = (stage.start_next(), stage.start_next());
    stage.give(&first, 2);
    assert!(stage.graph.next_ready().is_none());
    let group = stage.graph.bundle(ProducerId(1), day(1), &Key::empty()).unwrap();
    assert_eq!(stage.graph.open_work(group), 1);
    stage.give(&second, 2);
    assert_eq!(stage.start_next().inputs.len(), 2);
}

#[test]
fn a_group_runs_again_when_a_member_changes_appears_or_vanishes() {
    let mut stage = Stage::new();
    let [a, _, total] = grouped(&mut stage);
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    stage.end_of(date);
    assert_eq!(run_ready(&mut stage, 1), 2);

    stage.write(a, date, &key(&[1]), Some(content(2)));
    assert_eq!(stage.state(total, date, &Key::empty()), State::Stale);
    assert_eq!(run_ready(&mut stage, 2), 2);

    stage.write(a, date, &key(&[2]), Some(content(1)));
    assert_eq!(stage.state(total, date, &Key::empty()), State::Stale, "a key is on its way");
    assert_eq!(run_ready(&mut stage, 3), 2);
    assert_eq!(stage.graph.bundle_info(BundleId(1)).unwrap().members.len(), 2);

    stage.write(a, date, &key(&[2]), None);
    let started = stage.start_next();
    assert_eq!(started.inputs.len(), 1, "what rests on a retracted key is no member");
    stage.give(&started, 4);
    assert_eq!(stage.state(total, date, &Key::empty()), State::Current);
}

#[test]
fn an_invalid_member_blocks_its_group() {
    let mut stage = Stage::new();
    let [a, ..] = grouped(&mut stage);
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    stage.end_of(date);
    run_ready(&mut stage, 1);
    stage.write(a, date, &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    stage.end(started.run, Outcome::Failed("bad".to_string())).unwrap();
    let info = stage.graph.bundle_info(BundleId(1)).unwrap();
    assert_eq!(info.status, PStatus::Parked);
    assert_eq!(info.reason, "input B 1970-01-02 1 is invalid");
}

#[test]
fn what_reads_a_group_waits_for_keys_on_their_way() {
    let mut stage = Stage::new();
    let [a, _, total] = grouped(&mut stage);
    let scaled = stage.define(SlotDefinition::new("Scaled").cell_key("x", ColumnType::I64));
    let scale = ProducerDefinition::new("scale").requires("A").broadcast("Total").provides("Scaled");
    stage.register(scale);
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    stage.end_of(date);
    run_ready(&mut stage, 1);
    stage.starts.clear();
    stage.write(a, date, &key(&[2]), Some(content(1)));
    run_ready(&mut stage, 2);
    assert!(stage.starts.values().all(|starts| *starts == 1), "{:?}", stage.starts);
    assert_eq!(stage.starts.len(), 4);
    assert_eq!(stage.state(scaled, date, &key(&[2])), State::Current);
    assert_eq!(stage.state(total, date, &Key::empty()), State::Current);
}

#[test]
fn a_retracted_source_is_void_and_blocks_what_rests_on_it() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, None);
    assert_eq!(stage.graph.cells().count(), 0, "nothing to retract");
    stage.write(a, date, &at, Some(content(1)));
    run_ready(&mut stage, 1);
    let effects = stage.write(a, date, &at, None);
    assert_eq!(effects.contents, [(CellId(0), None, 2)]);
    assert_eq!(stage.state(a, date, &at), State::Void);
    assert_eq!(stage.state(b, date, &at), State::Stale);
    let why = stage.graph.why(CellId(1)).unwrap().to_string();
    assert!(why.contains("client retracted at seq"), "{why}");
    stage.write(a, date, &at, Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 1, "presence is a change");
}

#[test]
fn lower_priority_data_steps_in_and_back() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(b, date, &at, Some(content(50)));
    stage.write(a, date, &at, Some(content(1)));
    run_ready(&mut stage, 1);
    let cell = stage.graph.cell(b, date, &at).unwrap();
    let info = stage.graph.cell_info(cell).unwrap();
    assert_eq!((info.content, info.producer.as_deref()), (Some(content(1)), Some("ab")));

    let g = info.g;
    stage.write(b, date, &at, Some(content(51)));
    assert_eq!(stage.graph.cell_info(cell).unwrap().g, g, "what is not effective changes nothing");

    stage.write(a, date, &at, Some(content(2)));
    assert_eq!(stage.graph.cell_info(cell).unwrap().state, State::Stale);
    let started = stage.start_next();
    stage.end(started.run, Outcome::Failed("bad".to_string())).unwrap();
    let info = stage.graph.cell_info(cell).unwrap();
    assert_eq!((info.content, info.producer.as_deref()), (Some(content(51)), Some("client")));
    assert_eq!((info.state, info.g), (State::Pending, g + 1));
    assert_eq!(run_ready(&mut stage, 2), 1);

    stage.write(a, date, &at, Some(content(3)));
    assert_eq!(stage.graph.cell_info(cell).unwrap().causes, [Cause::Better(1)]);
    assert_eq!(run_ready(&mut stage, 3), 2);
    assert_eq!(stage.graph.cell_info(cell).unwrap().priority, Some(1));
    assert_eq!(stage.state(c, date, &at), State::Current);
}

#[test]
fn late_results_are_fenced() {
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    let outcome = Outcome::Declined(String::new());
    for (run, epoch) in [(started.run, started.epoch + 1), (RunId(99), started.epoch)] {
        let late = Event::End { run, epoch, outcome: outcome.clone(), reads: vec![] };
        assert_eq!(stage.apply(late).unwrap_err(), GraphError::Fenced { run, epoch });
    }
    stage.reopen();
    let late = Event::End { run: started.run, epoch: started.epoch, outcome, reads: vec![] };
    assert!(matches!(stage.apply(late), Err(GraphError::Fenced { .. })));
}

#[test]
fn a_detached_producer_is_notified_and_acknowledges_when_attached() {
    use State::{Pending, Updated, Void};
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    let id = stage.apply(Event::Register(step("ab", &["A"], "B"))).unwrap().producer.unwrap();
    let effects = stage.write(a, day(1), &key(&[1]), Some(content(1)));
    assert_eq!(states(&effects), [(0, Void, Updated)]);
    assert_eq!(stage.statuses(), [PStatus::Notified]);
    assert!(stage.graph.next_ready().is_none());
    assert!(matches!(stage.start(BundleId(0)), Err(GraphError::NotReady { .. })));
    let effects = stage.apply(Event::Attach { producer: id, host: None }).unwrap();
    assert_eq!(states(&effects), [(0, Updated, Pending)]);
    assert_eq!(effects.ready, [BundleId(0)]);
    assert_eq!(stage.apply(Event::Attach { producer: id, host: None }).unwrap(), Effects::default());
}

#[test]
fn reopening_interrupts_runs_and_three_in_a_row_are_a_failure() {
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    let id = stage.register(step("ab", &["A"], "B"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    for in_a_row in 1..=INTERRUPTIONS_MAX {
        let run = stage.start_next().run;
        let effects = stage.reopen();
        assert_eq!(effects.interrupted, [Interrupted { run, bundle: BundleId(0), in_a_row }]);
        let last = in_a_row == INTERRUPTIONS_MAX;
        assert_eq!(stage.statuses(), [if last { PStatus::Failed } else { PStatus::Ready }]);
        assert!(stage.graph.next_ready().is_none(), "the producer is detached");
        stage.apply(Event::Attach { producer: id, host: None }).unwrap();
    }
    assert!(stage.graph.idle());
    let reason = stage.graph.bundle_info(BundleId(0)).unwrap().reason;
    assert_eq!(reason, "interrupted 3 times in a row");
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    assert_eq!(run_ready(&mut stage, 1), 1, "new data is a new chance");
}

#[test]
fn outputs_may_extend_the_bundles_key_and_vanish_when_they_are_not_given_again() {
    let mut stage = Stage::new();
    let [a] = slots(&mut stage);
    let wide = SlotDefinition::new("Wide").cell_key("y", ColumnType::I64).cell_key("x", ColumnType::I64);
    let wide = stage.define(wide);
    stage.register(step("split", &["A"], "Wide"));
    let give = |stage: &mut Stage, ys: &[i64]| {
        let started = stage.start_next();
        let output = |y: &i64| OutputWrite::data(wide, key(&[*y, 1]), content(4));
        stage.end(started.run, Outcome::Data(ys.iter().map(output).collect())).unwrap()
    };
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    assert_eq!(give(&mut stage, &[10, 20]).created.len(), 2);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let effects = give(&mut stage, &[20, 30]);
    assert_eq!(effects.ended[0].absent, [CellId(1)]);
    assert_eq!(stage.state(wide, day(1), &key(&[10, 1])), State::Void);
    assert_eq!(stage.graph.state_counts(wide).of(State::Current), 2);
    assert_eq!(stage.graph.state_counts(wide).worst(), Some(State::Void));
}

#[test]
fn joins_meet_on_date_and_shared_columns() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    let ab = SlotDefinition::new("AB").cell_key("x", ColumnType::I64).cell_key("y", ColumnType::I64);
    let ab = stage.define(ab);
    let parameters = stage.define(SlotDefinition::new("Parameters"));
    let definition = step("join", &["A", "AB", "B"], "Out").broadcast("Parameters");
    stage.define(SlotDefinition::new("Out").cell_key("x", ColumnType::I64).cell_key("y", ColumnType::I64));
    stage.register(definition);
    stage.write(ab, day(1), &key(&[1, 5]), Some(content(1)));
    stage.write(ab, day(1), &key(&[1, 6]), Some(content(1)));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    stage.write(parameters, day(1), &Key::empty(), Some(content(1)));
    stage.write(b, day(2), &key(&[1]), Some(content(1)));
    stage.write(b, day(1), &key(&[2]), Some(content(1)));
    assert_eq!(stage.graph.bundles().count(), 0);
    let effects = stage.write(b, day(1), &key(&[1]), Some(content(1)));
    assert_eq!(effects.ready.len(), 2);
    let keys: Vec<Key> = stage.graph.bundles.iter().map(|bundle| bundle.key.clone()).collect();
    assert_eq!(keys, [key(&[1, 5]), key(&[1, 6])]);
    let columns: Vec<&str> = stage.graph.bundle_columns(ProducerId(0)).iter().map(|c| c.0.as_str()).collect();
    assert_eq!(columns, ["x", "y"]);
}
