//! Inputs under other names, filtered, of earlier dates, and twice; and groups by columns.

use underbelly_storage::ColumnType;

use super::super::super::*;
use super::super::stage::{Stage, content, day, key};
use super::{run_ready, slots, step};

fn slot(stage: &mut Stage, name: &str, keys: &[&str]) -> SlotId {
    let definition = keys
        .iter()
        .fold(SlotDefinition::new(name), |definition, column| definition.cell_key(*column, ColumnType::I64));
    stage.define(definition)
}

fn keys_of(stage: &Stage, producer: ProducerId) -> Vec<(SlotDate, Key)> {
    let bundles = stage.graph.bundles_of(producer);
    let mut keys: Vec<_> = bundles
        .into_iter()
        .map(|bundle| stage.graph.bundle_info(bundle).unwrap())
        .map(|info| (info.date, info.key))
        .collect();
    keys.sort();
    keys
}

#[test]
fn a_renamed_column_is_joined_under_its_new_name() {
    let mut stage = Stage::new();
    let spot = slot(&mut stage, "Spot", &["ccy"]);
    let pair = slot(&mut stage, "Pair", &["base", "quote"]);
    slot(&mut stage, "Cross", &["base", "quote"]);
    let cross = ProducerDefinition::new("cross")
        .requires("Pair")
        .input(Input::required("Spot").alias("from").rename("ccy", "base"))
        .input(Input::required("Spot").alias("to").rename("ccy", "quote"))
        .provides("Cross");
    let cross = stage.register(cross);
    let date = day(1);
    for (ccy, value) in [(1, 1), (2, 2), (3, 3)] {
        stage.write(spot, date, &key(&[ccy]), Some(content(value)));
    }
    for at in [key(&[1, 2]), key(&[3, 3]), key(&[1, 9])] {
        stage.write(pair, date, &at, Some(content(1)));
    }
    assert_eq!(keys_of(&stage, cross), [(date, key(&[1, 2])), (date, key(&[3, 3]))]);
    let started = stage.start_next();
    let read: Vec<(usize, u32)> = started.inputs.iter().map(|input| (input.input, input.cell.0)).collect();
    assert_eq!(read, [(0, 3), (1, 0), (2, 1)], "each input its own cell");
    stage.give(&started, 1);
    let started = stage.start_next();
    assert_eq!(started.inputs.len(), 3, "one cell may be two inputs");
    stage.give(&started, 1);
    stage.write(spot, date, &key(&[3]), Some(content(4)));
    assert_eq!(run_ready(&mut stage, 2), 1);
}

#[test]
fn a_cell_that_misses_a_filter_makes_no_work() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    let few = ProducerDefinition::new("few")
        .input(Input::required("A").filter(Filter::between("x", 2..5)).filter(Filter::differs("x", 3)))
        .input(Input::optional("B").filter(Filter::one_of("x", [4, 9])))
        .provides("C");
    let few = stage.register(few);
    let date = day(1);
    for x in 0..7 {
        stage.write(a, date, &key(&[x]), Some(content(1)));
    }
    assert_eq!(keys_of(&stage, few), [(date, key(&[2])), (date, key(&[4]))]);
    assert_eq!(run_ready(&mut stage, 1), 2);
    stage.write(b, date, &key(&[2]), Some(content(1)));
    assert!(stage.graph.idle(), "the optional input takes 4 and 9 alone");
    stage.write(b, date, &key(&[4]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 2), 1);
    stage.write(a, date, &key(&[3]), Some(content(9)));
    assert!(stage.graph.idle());
    let missing = stage.graph.why_at(c, date, &key(&[3])).unwrap();
    assert!(missing.to_string().contains("does not pass the filters"), "{missing}");
}

#[test]
fn a_lagged_input_takes_the_cells_of_earlier_dates() {
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    let change = ProducerDefinition::new("change")
        .requires("A")
        .input(Input::optional("A").alias("before").lag(2))
        .provides("B");
    let change = stage.register(change);
    for at in [1, 3, 4] {
        stage.write(a, day(at), &key(&[1]), Some(content(1)));
    }
    assert_eq!(keys_of(&stage, change).len(), 3);
    let reads: Vec<usize> = (0..3)
        .map(|_| {
            let started = stage.start_next();
            stage.give(&started, 1);
            started.inputs.len()
        })
        .collect();
    assert_eq!(reads, [1, 2, 1], "day 3 has day 1 before it");
    stage.write(a, day(2), &key(&[1]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 2), 2, "day 2 itself, and day 4, which has it before it now");
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    assert_eq!(run_ready(&mut stage, 3), 2);
}

#[test]
fn a_slot_may_be_made_of_its_own_yesterday() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    let ema = ProducerDefinition::new("ema")
        .requires("A")
        .input(Input::required("B").alias("yesterday").lag(1))
        .provides_at("B", 1);
    stage.register(ema);
    for at in (1..=5).rev() {
        stage.write(a, day(at), &key(&[1]), Some(content(1)));
    }
    assert!(stage.graph.idle(), "there is no yesterday to begin with");
    stage.write(b, day(0), &key(&[1]), Some(content(1)));
    for number in 1..=5 {
        let started = stage.start_next();
        assert_eq!(started.date, day(number.into()), "one day after the other");
        stage.give(&started, number);
    }
    assert!(stage.graph.idle());
    stage.starts.clear();
    stage.write(a, day(2), &key(&[1]), Some(content(7)));
    assert_eq!(stage.state(b, day(5), &key(&[1])), State::Stale);
    let mut runs = 0;
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        stage.give(&started, 100 + runs);
        runs += 1;
    }
    assert_eq!(runs, 4, "days 2 to 5");
    assert!(stage.starts.values().all(|starts| *starts == 1));
    stage.write(a, day(3), &key(&[1]), Some(content(8)));
    let started = stage.start_next();
    stage.give(&started, 101);
    assert!(stage.graph.idle(), "an equal value goes no further");
    stage.reopen();
}

#[test]
fn what_waits_for_an_earlier_date_is_settled_behind_it() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let next = ProducerDefinition::new("next")
        .requires("A")
        .input(Input::optional("B").broadcast().lag(1))
        .provides_at("B", 1);
    stage.register(next);
    stage.write(a, day(0), &key(&[1]), Some(content(1)));
    stage.write(a, day(2), &key(&[1]), Some(content(1)));
    let mut dates = Vec::new();
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        dates.push(started.date);
        stage.give(&started, dates.len() as u8);
        stage.reopen();
        stage.apply(Event::Attach { producer: ProducerId(0), host: None }).unwrap();
    }
    assert_eq!(dates, [day(0), day(1), day(2)], "each date after the one before it, once");
    assert_eq!(stage.state(b, day(2), &key(&[1])), State::Current);
    let effects = stage.write(a, day(0), &key(&[1]), Some(content(2)));
    assert_eq!(effects.ready.len(), 1);
    let started = stage.start_next();
    stage.give(&started, 100);
    assert_eq!(run_ready(&mut stage, 101), 2);
}

#[test]
fn a_loop_of_the_same_date_is_refused_and_one_of_earlier_dates_is_not() {
    let mut stage = Stage::new();
    slots::<3>(&mut stage);
    stage.register(step("bc", &["B"], "C"));
    let back =
        |lag| ProducerDefinition::new("cb").requires("A").input(Input::required("C").lag(lag)).provides("B");
    let refused = stage.apply(Event::Register(back(0))).unwrap_err();
    assert!(matches!(refused, GraphError::Cycle { .. }), "{refused}");
    stage.register(back(1));
}

#[test]
fn work_for_ever_later_dates_is_refused() {
    let mut stage = Stage::new();
    slots::<3>(&mut stage);
    let alone = |name: &str, from: &str, to: &str, lag| {
        ProducerDefinition::new(name).input(Input::required(from).lag(lag)).provides_at(to, 7)
    };
    let endless = stage.apply(Event::Register(alone("own", "A", "A", 1))).unwrap_err();
    assert!(matches!(endless, GraphError::Endless { .. }), "{endless}");
    stage.register(alone("on", "A", "C", 1));
    let endless = stage.apply(Event::Register(alone("round", "C", "A", 0))).unwrap_err();
    assert!(matches!(endless, GraphError::Endless { .. }), "C rests on A, and A on nothing else: {endless}");
    stage.register(alone("ends", "C", "A", 0).requires("B"));
}

/// Contracts by expiry and strike, a forward by expiry, a smile by expiry, and a surface.
fn smiles(stage: &mut Stage, when: When) -> [SlotId; 3] {
    let raw = slot(stage, "Raw", &["expiry", "strike"]);
    slot(stage, "Vol", &["expiry", "strike"]);
    let smile = slot(stage, "Smile", &["expiry"]);
    slot(stage, "Surface", &[]);
    let rate = slot(stage, "Rate", &[]);
    stage.register(step("vol", &["Raw"], "Vol"));
    let fit = ProducerDefinition::new("fit").requires("Vol").broadcast("Rate").provides("Smile");
    stage.register(fit.group_by(["expiry"], when));
    stage.register(step("surface", &["Smile"], "Surface").group_by_date());
    let _ = smile;
    [raw, smile, rate]
}

#[test]
fn a_group_by_columns_has_a_bundle_for_each_of_their_values() {
    let mut stage = Stage::new();
    let [raw, smile, rate] = smiles(&mut stage, When::Complete);
    let date = day(1);
    for at in [[1, 10], [1, 20], [2, 10]] {
        stage.write(raw, date, &key(&at), Some(content(1)));
    }
    stage.write(rate, date, &key(&[]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 3, "the date has not ended");
    let reason = stage.graph.bundle_info(BundleId(3)).unwrap().reason;
    assert_eq!(reason, "scope open: end_of(1970-01-02) not declared");
    stage.end_of(date);
    let first = stage.start_next();
    assert_eq!((first.key.clone(), first.inputs.len()), (key(&[1]), 3), "two contracts and the rate");
    stage.give(&first, 1);
    let second = stage.start_next();
    assert_eq!((second.key.clone(), second.inputs.len()), (key(&[2]), 2));
    stage.give(&second, 1);
    assert_eq!(run_ready(&mut stage, 1), 1, "the surface");

    stage.starts.clear();
    stage.write(raw, date, &key(&[1, 20]), Some(content(2)));
    assert_eq!(stage.state(smile, date, &key(&[1])), State::Stale);
    assert_eq!(stage.state(smile, date, &key(&[2])), State::Current, "another expiry does not wait");
    assert_eq!(run_ready(&mut stage, 2), 3);
    assert!(stage.starts.values().all(|starts| *starts == 1));

    stage.write(raw, date, &key(&[1, 30]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 3), 3);
    stage.write(raw, date, &key(&[1, 30]), None);
    assert_eq!(stage.start_next().inputs.len(), 3, "the vanished strike is no input any more");
    let started = stage.flying.values().next().cloned().unwrap();
    stage.give(&started, 4);
    run_ready(&mut stage, 4);
    stage.write(rate, date, &key(&[]), Some(content(2)));
    assert_eq!(run_ready(&mut stage, 5), 3, "the rate is in each");
}

#[test]
fn a_group_at_any_time_waits_for_no_end_but_for_what_is_in_work() {
    let mut stage = Stage::new();
    let [raw, smile, rate] = smiles(&mut stage, When::Any);
    let date = day(1);
    stage.write(rate, date, &key(&[]), Some(content(1)));
    let write = |x, y| Write { slot: raw, date, key: key(&[x, y]), priority: 0, content: Some(content(1)) };
    let writes = vec![write(1, 10), write(1, 20), write(2, 10)];
    stage.apply(Event::Commit(Submission { writes, ends: vec![], ..Submission::default() })).unwrap();
    let first = stage.start_next();
    stage.give(&first, 1);
    assert!(stage.graph.bundle(ProducerId(1), date, &key(&[1])).is_some());
    assert_eq!(
        stage.graph.ready().map(|b| stage.graph.bundle_producer(b).unwrap().0).collect::<Vec<_>>(),
        [0, 0],
        "another strike of the expiry is in work"
    );
    run_ready(&mut stage, 1);
    assert_eq!(stage.graph.bundle_info(BundleId(3)).unwrap().runs, 1, "once for both strikes");
    assert_eq!(stage.state(smile, date, &key(&[1])), State::Current);
    stage.write(raw, date, &key(&[2, 30]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 2), 2);
}

#[test]
fn a_group_of_several_inputs_reads_the_cells_of_joined_tuples() {
    let mut stage = Stage::new();
    let left = slot(&mut stage, "L", &["g", "x"]);
    let right = slot(&mut stage, "R", &["x", "y"]);
    let total = slot(&mut stage, "T", &["g"]);
    let sum = step("sum", &["L", "R"], "T").group_by(["g"], When::Any);
    let sum = stage.register(sum);
    let date = day(1);
    stage.write(left, date, &key(&[1, 5]), Some(content(1)));
    assert!(stage.graph.bundles_of(sum).is_empty(), "no tuple, no group");
    for at in [[5, 1], [5, 2], [6, 1]] {
        stage.write(right, date, &key(&at), Some(content(1)));
    }
    stage.write(left, date, &key(&[1, 7]), Some(content(1)));
    assert_eq!(stage.start_next().inputs.len(), 3, "L 5 with two of R; R 6 and L 7 have no partner");
    let started = stage.flying.values().next().cloned().unwrap();
    stage.give(&started, 1);
    stage.write(left, date, &key(&[2, 5]), Some(content(1)));
    stage.write(right, date, &key(&[5, 2]), None);
    assert_eq!(run_ready(&mut stage, 2), 2);
    let info = |g| stage.graph.bundle_info(stage.graph.bundle(sum, date, &key(&[g])).unwrap()).unwrap();
    assert_eq!((info(1).members.len(), info(2).members.len()), (2, 2));
    stage.write(right, date, &key(&[5, 1]), None);
    assert_eq!(stage.state(total, date, &key(&[1])), State::Stale);
    assert!(stage.graph.idle(), "an empty group does not run");
    stage.reopen();
}

#[test]
fn a_group_may_be_filtered_and_of_earlier_dates() {
    let mut stage = Stage::new();
    let raw = slot(&mut stage, "Raw", &["g", "x"]);
    slot(&mut stage, "T", &["g"]);
    let input = Input::required("Raw").filter(Filter::between("x", 10..)).lag(1);
    let sum = ProducerDefinition::new("sum").input(input).provides("T").group_by(["g"], When::Complete);
    let sum = stage.register(sum);
    for at in [[1, 5], [1, 10], [2, 5]] {
        stage.write(raw, day(1), &key(&at), Some(content(1)));
    }
    assert_eq!(keys_of(&stage, sum), [(day(2), key(&[1]))]);
    stage.end_of(day(2));
    assert!(stage.graph.idle(), "its cells are of day 1");
    stage.end_of(day(1));
    assert_eq!(stage.start_next().inputs.len(), 1);
    let started = stage.flying.values().next().cloned().unwrap();
    stage.give(&started, 1);
    stage.write(raw, day(1), &key(&[1, 6]), Some(content(1)));
    assert!(stage.graph.idle(), "what does not pass is no member");
}

#[test]
fn inputs_and_groups_that_make_no_sense_are_refused() {
    let mut stage = Stage::new();
    slots::<3>(&mut stage);
    let mut refused = |definition: ProducerDefinition| stage.apply(Event::Register(definition)).unwrap_err();
    let with = |input: Input| ProducerDefinition::new("p").input(input).provides("B");
    let a = || Input::required("A");
    assert!(matches!(refused(with(a().alias(""))), GraphError::EmptyName { what: "input" }));
    assert!(matches!(
        refused(with(a()).input(Input::optional("C").alias("A"))),
        GraphError::DuplicateInput { .. }
    ));
    assert!(matches!(refused(with(a().rename("y", "x"))), GraphError::InputColumn { .. }));
    assert!(matches!(
        refused(with(a().rename("x", "y").rename("x", "z"))),
        GraphError::InputColumnTwice { .. }
    ));
    assert!(matches!(refused(with(a().rename("x", ""))), GraphError::EmptyName { .. }));
    assert!(matches!(refused(with(a().filter(Filter::equals("z", 1)))), GraphError::InputColumn { .. }));
    assert!(matches!(refused(with(a().filter(Filter::equals("x", "one")))), GraphError::FilterValue { .. }));
    let many = Filter::one_of("x", 0..5_000_i64);
    assert!(matches!(refused(with(a().filter(many))), GraphError::DefinitionTooLarge { .. }));
    let own = with(a()).input(Input::exclusive("B").filter(Filter::equals("x", 1)));
    assert!(matches!(refused(own), GraphError::OwnSlot { .. }));
    let group = |columns: &[&str]| with(a()).group_by(columns.iter().copied(), When::Any);
    assert!(matches!(refused(group(&["y"])), GraphError::GroupColumn { .. }));
    assert!(matches!(refused(group(&["x", "x"])), GraphError::GroupColumn { .. }));
    let nan = with(a().filter(Filter::equals("x", f64::NAN)));
    assert!(matches!(stage.graph.check(&Event::Register(nan)), Err(GraphError::FilterValue { .. })));
}
