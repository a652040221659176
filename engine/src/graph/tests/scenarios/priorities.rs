//! Producers that fill in what nobody better gives, and bundles that wait for what may still be made.

use underbelly_storage::ColumnType;

use super::super::super::*;
use super::super::stage::{Stage, content, day, key};
use super::{run_ready, slots, step};

/// B from A at priority 2, and from C where nobody better gives it.
fn filled(stage: &mut Stage) -> [SlotId; 3] {
    let [a, b, c] = slots(stage);
    stage.register(
        ProducerDefinition::new("cb").requires("C").provides_at("B", 1).input(Input::exclusive("B")),
    );
    stage.register(ProducerDefinition::new("ab").requires("A").provides_at("B", 2));
    [a, b, c]
}

#[test]
fn an_exclusive_input_on_the_own_slot_fills_in_what_nobody_better_gives() {
    let mut stage = Stage::new();
    let [a, b, c] = filled(&mut stage);
    let (date, at) = (day(1), key(&[1]));
    stage.write(c, date, &at, Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 1);
    let cell = stage.graph.cell(b, date, &at).unwrap();
    assert_eq!(stage.graph.cell_info(cell).unwrap().priority, Some(1));

    stage.write(a, date, &at, Some(content(1)));
    assert_eq!(run_ready(&mut stage, 2), 1);
    let info = stage.graph.cell_info(cell).unwrap();
    assert_eq!((info.priority, info.content, info.state), (Some(2), Some(content(2)), State::Current));
    stage.write(c, date, &at, Some(content(2)));
    assert!(stage.graph.idle(), "there is something better");
    let info = stage.graph.bundle_info(BundleId(0)).unwrap();
    assert_eq!(
        (info.status, info.reason.as_str()),
        (PStatus::Parked, "exclusive input B 1970-01-02 1 is there")
    );

    stage.write(a, date, &at, None);
    assert_eq!(stage.state(b, date, &at), State::Stale, "stale data counts as there");
    assert!(stage.graph.idle());
}

#[test]
fn what_fills_in_waits_while_something_better_is_being_made() {
    let mut stage = Stage::new();
    let [a, b, c] = filled(&mut stage);
    let (date, at) = (day(1), key(&[1]));
    let write = |slot| Write { slot, date, key: key(&[1]), priority: 0, content: Some(content(1)) };
    stage
        .apply(Event::Commit(Submission {
            writes: vec![write(a), write(c)],
            ends: vec![],
            ..Submission::default()
        }))
        .unwrap();
    let reason = stage.graph.bundle_info(BundleId(1)).unwrap().reason;
    assert_eq!(reason, "waiting for producer ab, which may make an input yet");
    let better = stage.start_next();
    assert!(stage.graph.next_ready().is_none());
    stage.end(better.run, Outcome::Declined("no quote".to_string())).unwrap();
    assert_eq!(run_ready(&mut stage, 3), 1);
    assert_eq!(stage.graph.cell_info(stage.graph.cell(b, date, &at).unwrap()).unwrap().priority, Some(1));
}

#[test]
fn other_loops_through_exclusive_inputs_are_refused() {
    let mut stage = Stage::new();
    let [_, _, _] = slots(&mut stage);
    let refused = |stage: &mut Stage, definition| stage.apply(Event::Register(definition)).unwrap_err();
    stage.register(step("ab", &["A"], "B").input(Input::exclusive("C")));
    let error = refused(&mut stage, step("bc", &["A"], "C").input(Input::exclusive("B")));
    assert!(matches!(error, GraphError::Cycle { .. }), "{error}");
    let error = refused(&mut stage, step("own", &["A"], "C").input(Input::optional("C")));
    assert!(error.to_string().contains("C → own → C"), "{error}");

    // Two that each fill in below the other, in two slots.
    let fills = |name: &str, b, c| {
        let fills = ProducerDefinition::new(name).requires("A").provides_at("B", b).provides_at("C", c);
        fills.input(Input::exclusive("B")).input(Input::exclusive("C"))
    };
    let mut stage = Stage::new();
    let [_, _, _] = slots(&mut stage);
    stage.register(fills("up", 1, 2));
    let error = refused(&mut stage, fills("down", 2, 1));
    assert!(error.to_string().contains("→ up →"), "{error}");
    stage.register(fills("below", 0, 0));
}

#[test]
fn an_optional_input_that_is_on_its_way_is_waited_for_and_unrelated_keys_are_not() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.define(SlotDefinition::new("D").cell_key("x", ColumnType::I64));
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    stage.register(step("ad", &["A"], "D").input(Input::optional("C")));
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 3);
    assert!(stage.starts.values().all(|starts| *starts == 1), "{:?}", stage.starts);
    assert!(
        stage.graph.cell(c, date, &key(&[1])).is_some() && stage.graph.cell(b, date, &key(&[1])).is_some()
    );

    stage.starts.clear();
    stage.write(a, date, &key(&[2]), Some(content(1)));
    stage.write(a, date, &key(&[3]), Some(content(1)));
    let first = stage.start_next();
    stage.end(first.run, Outcome::Declined("no".to_string())).unwrap();
    let ready: Vec<Key> =
        stage.graph.ready().map(|bundle| stage.graph.bundle_info(bundle).unwrap().key).collect();
    assert_eq!(ready, [key(&[3]), key(&[2])], "what is made of 3 holds what is made of 3 alone");
}

#[test]
fn a_fast_source_holds_what_looks_for_an_input_for_one_commit() {
    let mut stage = Stage::new();
    let [a, b, _] = slots(&mut stage);
    let wide = SlotDefinition::new("Wide").cell_key("x", ColumnType::I64).cell_key("y", ColumnType::I64);
    let wide = stage.define(wide);
    stage.register(step("aw", &["A"], "Wide"));
    stage.register(step("bc", &["B"], "C").input(Input::optional("Wide")));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    stage.write(b, date, &at, Some(content(1)));
    let give = |stage: &mut Stage, started: &Started, y: i64| {
        let output = OutputWrite::data(wide, key(&[1, y]), content(1));
        stage.end(started.run, Outcome::Data(vec![output])).unwrap();
    };
    let started = stage.start_next();
    assert!(stage.graph.next_ready().is_none(), "it waits for the first commit");
    stage.write(a, date, &at, Some(content(2)));
    give(&mut stage, &started, 1);
    let ready: Vec<ProducerId> =
        stage.graph.ready().map(|bundle| stage.graph.bundle_info(bundle).unwrap().producer).collect();
    assert!(ready.contains(&ProducerId(1)), "{ready:?}");
}
