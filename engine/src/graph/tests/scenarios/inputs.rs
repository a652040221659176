//! Optional and exclusive inputs, and inputs that take what is not sound.

use underbelly_storage::ColumnType;

use super::super::super::*;
use super::super::stage::{Stage, content, day, key};
use super::{run_ready, slots, step};

#[test]
fn an_optional_input_that_arrives_late_is_a_change() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ac", &["A"], "C").input(Input::optional("B")));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    assert!(stage.graph.cell(b, date, &at).is_none(), "what is only looked for is no cell");
    assert_eq!(stage.graph.cells().count(), 1);
    assert_eq!(stage.start_next().inputs.len(), 1, "it runs without what is not there");
    let started = stage.flying.values().next().cloned().unwrap();
    stage.give(&started, 1);
    assert_eq!(stage.state(c, date, &at), State::Current);

    let effects = stage.write(b, date, &at, Some(content(7)));
    let found = stage.graph.cell(b, date, &at).unwrap();
    assert_eq!(effects.created, [found]);
    assert_eq!(stage.state(c, date, &at), State::Stale);
    let started = stage.start_next();
    assert_eq!(started.inputs.iter().map(|input| input.cell).collect::<Vec<_>>(), [CellId(0), found]);
    stage.give(&started, 2);
    assert_eq!(stage.state(c, date, &at), State::Current);

    stage.write(b, date, &at, None);
    assert_eq!(stage.start_next().inputs.len(), 1, "its going is a change too");
}

#[test]
fn an_optional_input_with_further_keys_gives_every_cell_that_is_there() {
    let mut stage = Stage::new();
    let [a, c] = slots(&mut stage);
    let wide = SlotDefinition::new("Wide").cell_key("y", ColumnType::I64).cell_key("x", ColumnType::I64);
    let wide = stage.define(wide);
    stage.write(wide, day(1), &key(&[1, 1]), Some(content(1)));
    stage.write(wide, day(1), &key(&[1, 2]), Some(content(1)));
    stage.register(step("ab", &["A"], "B").input(Input::optional("Wide")));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    assert_eq!(started.inputs.len(), 2, "its own one, not that of another key");
    stage.give(&started, 1);
    stage.write(wide, day(2), &key(&[3, 1]), Some(content(1)));
    stage.write(wide, day(1), &key(&[3, 2]), Some(content(1)));
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Current);
    stage.write(wide, day(1), &key(&[3, 1]), Some(content(1)));
    assert_eq!(stage.state(c, day(1), &key(&[1])), State::Stale);
    assert_eq!(stage.start_next().inputs.len(), 3);
}

#[test]
fn an_optional_input_that_failed_is_not_there_unless_it_may_be_faulty() {
    for tolerant in [false, true] {
        let mut stage = Stage::new();
        let [a, b, _] = slots(&mut stage);
        let extra = stage.define(SlotDefinition::new("Extra").cell_key("x", ColumnType::I64));
        stage.register(step("ab", &["A"], "B"));
        let input = if tolerant { Input::optional("B").fault_tolerant() } else { Input::optional("B") };
        stage.register(step("ec", &["Extra"], "C").input(input));
        let (date, at) = (day(1), key(&[1]));
        stage.write(a, date, &at, Some(content(1)));
        run_ready(&mut stage, 1);
        stage.write(extra, date, &at, Some(content(1)));
        assert_eq!(stage.start_next().inputs.len(), 2);
        let started = stage.flying.values().next().cloned().unwrap();
        stage.give(&started, 1);
        stage.write(a, date, &at, Some(content(2)));
        let started = stage.start_next();
        stage.end(started.run, Outcome::Failed("bad".to_string())).unwrap();
        assert_eq!(stage.state(b, date, &at), State::Invalid);
        assert_eq!(stage.graph.next_ready().is_some(), !tolerant, "the last good data is what was read");
        if !tolerant {
            assert_eq!(stage.start_next().inputs.len(), 1);
        }
    }
}

#[test]
fn a_required_input_may_be_stale_where_that_is_accepted() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    let accept = ProducerDefinition::new("bc").input(Input::required("B").accept_stale()).provides_at("C", 1);
    stage.register(accept);
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    run_ready(&mut stage, 1);
    stage.write(a, date, &at, None);
    assert_eq!(stage.state(b, date, &at), State::Stale);
    assert_eq!(stage.state(c, date, &at), State::Current);
    assert_eq!(stage.statuses(), [PStatus::Parked, PStatus::Done]);
}

#[test]
fn an_exclusive_input_that_appears_late_spoils_what_was_made_without_it() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ac", &["A"], "C").input(Input::exclusive("B")));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 1);
    stage.write(b, date, &at, Some(content(1)));
    assert_eq!(stage.state(c, date, &at), State::Stale);
    assert_eq!(stage.statuses(), [PStatus::Parked]);
    let info = stage.graph.bundle_info(BundleId(0)).unwrap();
    assert_eq!(info.reason, "exclusive input B 1970-01-02 1 is there");
    let found = stage.graph.cell(b, date, &at).unwrap();
    let made = stage.graph.cell(c, date, &at).unwrap();
    assert_eq!(stage.graph.cell_info(made).unwrap().causes, [Cause::Unsatisfiable(found)]);
    let why = stage.graph.why(made).unwrap().to_string();
    assert!(why.contains("exclusive input B 1970-01-02 1 is there"), "{why}");
    stage.write(a, date, &at, Some(content(2)));
    assert!(stage.graph.idle(), "no run starts while it is there");
    stage.write(b, date, &at, None);
    assert_eq!(run_ready(&mut stage, 2), 1);
    assert_eq!(stage.state(c, date, &at), State::Current);
}

#[test]
fn a_run_is_checked_again_for_exclusive_inputs_in_its_commit() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ac", &["A"], "C").input(Input::exclusive("B")));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    let started = stage.start_next();
    stage.write(b, date, &at, Some(content(1)));
    stage.give(&started, 1);
    assert_eq!(stage.state(c, date, &at), State::Stale, "accepted as of what it read");
    assert_eq!(stage.graph.view(stage.graph.cell(c, date, &at).unwrap()), Some(View::Unusable));
}

#[test]
fn a_run_waits_while_its_exclusive_input_is_being_made_again() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("ac", &["A"], "C").input(Input::exclusive("B")));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    let first = stage.start_next();
    stage.give(&first, 1);
    assert_eq!(stage.statuses(), [PStatus::Done, PStatus::Parked]);
    stage.write(a, date, &at, Some(content(2)));
    let again = stage.start_next();
    assert_eq!(stage.graph.bundle_info(BundleId(1)).unwrap().reason, "waiting for B 1970-01-02 1");
    stage.end(again.run, Outcome::Declined("none".to_string())).unwrap();
    assert_eq!(run_ready(&mut stage, 1), 1);
    assert_eq!(stage.state(b, date, &at), State::Void);
    assert_eq!(stage.state(c, date, &at), State::Current);
}

#[test]
fn a_group_may_have_optional_inputs() {
    let mut stage = Stage::new();
    let [a, _] = slots(&mut stage);
    let extra = stage.define(SlotDefinition::new("Extra").cell_key("y", ColumnType::I64));
    let total = stage.define(SlotDefinition::new("Total"));
    let sum = step("sum", &["A"], "Total").input(Input::optional("Extra").broadcast()).group_by_date();
    stage.register(sum);
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    stage.end_of(day(1));
    assert_eq!(run_ready(&mut stage, 1), 1);
    stage.write(extra, day(1), &key(&[4]), Some(content(1)));
    assert_eq!(stage.state(total, day(1), &Key::empty()), State::Stale);
    assert_eq!(stage.start_next().inputs.len(), 2);
}
