//! What is refused, with which error. That a refused event changes nothing is checked on the stage.

use underbelly_storage::{ColumnType, Value};

use super::super::*;
use super::stage::{Stage, content, day, key};

fn slot(name: &str, columns: &[&str]) -> SlotDefinition {
    columns.iter().fold(SlotDefinition::new(name), |slot, column| slot.cell_key(*column, ColumnType::I64))
}

fn stage() -> Stage {
    let mut stage = Stage::new();
    for (name, columns) in
        [("A", &["x"][..]), ("B", &["x"]), ("C", &["x"]), ("Y", &["y"]), ("XY", &["x", "y"])]
    {
        stage.define(slot(name, columns));
    }
    stage
}

fn refused(stage: &mut Stage, event: Event) -> GraphError {
    stage.apply(event).unwrap_err()
}

fn one(name: &str, from: &str, to: &str) -> ProducerDefinition {
    ProducerDefinition::new(name).requires(from).provides_at(to, 1)
}

#[test]
fn slots() {
    let mut stage = stage();
    assert_eq!(stage.define(slot("A", &["x"])), SlotId(0), "the same definition again");
    let mut define = |definition| refused(&mut stage, Event::DefineSlot(definition));
    assert!(matches!(define(slot("A", &["y"])), GraphError::SlotChanged { .. }));
    assert!(matches!(define(slot("", &[])), GraphError::EmptyName { .. }));
    assert!(matches!(define(slot("S", &[""])), GraphError::EmptyName { .. }));
    let twice = slot("S", &["x"]).value("x", ColumnType::F64);
    assert!(matches!(define(twice), GraphError::DuplicateColumn { .. }));
    let bytes = SlotDefinition::new("S").cell_key("x", ColumnType::Bytes);
    assert!(matches!(define(bytes), GraphError::KeyColumnType { .. }));
    stage.define(slot("M.V", &[]));
    assert!(matches!(
        refused(&mut stage, Event::DefineSlot(slot("M_V", &[]))),
        GraphError::TableTaken { .. }
    ));
}

#[test]
fn producers() {
    let mut stage = stage();
    let id = stage.register(one("p", "A", "B"));
    let again = stage.apply(Event::Register(one("p", "A", "B"))).unwrap();
    assert_eq!(again.producer, Some(id), "the same definition again");
    let mut register = |definition| refused(&mut stage, Event::Register(definition));
    assert!(matches!(register(one("p", "A", "C")), GraphError::ProducerChanged { .. }));
    assert!(matches!(register(one("", "A", "C")), GraphError::EmptyName { .. }));
    assert!(matches!(register(one("client", "A", "C")), GraphError::ReservedName { .. }));
    assert!(matches!(register(one("q", "A", "Z")), GraphError::UnknownSlotName { .. }));
    assert!(matches!(register(one("q", "A", "C").requires("A")), GraphError::DuplicateInput { .. }));
    assert!(matches!(register(one("q", "A", "C").provides("C")), GraphError::DuplicateSlot { .. }));
    assert!(matches!(register(ProducerDefinition::new("q").provides("C")), GraphError::NoInput { .. }));
    assert!(matches!(register(ProducerDefinition::new("q").requires("A")), GraphError::NoOutput { .. }));
    assert!(matches!(register(one("q", "C", "B")), GraphError::PriorityTaken { .. }));
    assert!(matches!(register(one("q", "XY", "C")), GraphError::OutputColumn { .. }));
    let mut many = one("q", "A", "C");
    many.inputs.resize(DEFINITION_PARTS_MAX + 1, many.inputs[0].clone());
    assert!(matches!(register(many), GraphError::DefinitionTooLarge { .. }));
}

#[test]
fn joins_that_are_not_connected() {
    let mut stage = stage();
    let lonely = one("p", "A", "XY").requires("Y");
    assert!(
        matches!(refused(&mut stage, Event::Register(lonely)), GraphError::NotJoined { slot, .. } if slot == "Y")
    );
    stage.register(one("q", "A", "XY").broadcast("Y"));
    stage.define(SlotDefinition::new("Text").cell_key("x", ColumnType::Utf8));
    let types = one("r", "A", "C").requires("Text");
    assert!(matches!(refused(&mut stage, Event::Register(types)), GraphError::JoinType { .. }));
}

#[test]
fn cycles_are_refused_with_their_path() {
    let mut stage = stage();
    let own = refused(&mut stage, Event::Register(one("p", "A", "A")));
    assert!(matches!(own, GraphError::Cycle { path, .. } if path == ["A", "p", "A"]));
    stage.register(one("p", "A", "B"));
    stage.register(one("q", "B", "C"));
    let error = refused(&mut stage, Event::Register(one("r", "C", "A")));
    assert!(error.to_string().contains("C → r → A → p → B → q → C"), "{error}");
}

#[test]
fn a_priority_has_one_owner() {
    let mut stage = stage();
    stage.register(ProducerDefinition::new("p").requires("A").provides("B"));
    let write = |slot| Write { slot, date: day(1), key: key(&[1]), priority: 0, content: Some(content(1)) };
    let commit =
        |slot| Event::Commit(Submission { writes: vec![write(slot)], ends: vec![], ..Submission::default() });
    assert!(
        matches!(refused(&mut stage, commit(SlotId(1))), GraphError::PriorityTaken { owner, .. } if owner == "p")
    );
    stage.apply(commit(SlotId(2))).unwrap();
    let late = ProducerDefinition::new("q").requires("A").provides("C");
    let error = refused(&mut stage, Event::Register(late));
    assert!(matches!(error, GraphError::PriorityTaken { owner, .. } if owner == "client"));
}

#[test]
fn commits_starts_and_results() {
    let mut stage = stage();
    stage.register(one("p", "A", "B"));
    let commit = |slot, key| {
        let write = Write { slot, date: day(1), key, priority: 0, content: Some(content(1)) };
        Event::Commit(Submission { writes: vec![write], ends: vec![], ..Submission::default() })
    };
    let text = Key::new(vec![Value::from("one")]).unwrap();
    assert!(matches!(refused(&mut stage, commit(SlotId(9), key(&[1]))), GraphError::UnknownSlot(_)));
    assert!(matches!(refused(&mut stage, commit(SlotId(0), key(&[]))), GraphError::KeyWidth { .. }));
    assert!(matches!(refused(&mut stage, commit(SlotId(0), text)), GraphError::KeyType { .. }));
    assert!(matches!(
        refused(&mut stage, Event::Attach { producer: ProducerId(5), host: None }),
        GraphError::UnknownProducer(_)
    ));
    let start = |bundle, run| Event::Start { bundle: BundleId(bundle), run: RunId(run), batch: RunId(run) };
    assert!(matches!(refused(&mut stage, start(0, 1)), GraphError::UnknownBundle(_)));
    stage.write(SlotId(0), day(1), &key(&[1]), Some(content(1)));
    stage.write(SlotId(0), day(1), &key(&[2]), Some(content(1)));
    let started = stage.start_next();
    assert!(matches!(refused(&mut stage, start(0, 99)), GraphError::NotReady { .. }));
    assert!(matches!(refused(&mut stage, start(1, started.run.0)), GraphError::RunTaken(_)));

    let output = |slot, key| OutputWrite::data(SlotId(slot), key, content(1));
    let mut end = |outputs| {
        let (run, epoch) = (started.run, started.epoch);
        refused(&mut stage, Event::End { run, epoch, outcome: Outcome::Data(outputs), reads: vec![] })
    };
    assert!(matches!(end(vec![output(2, key(&[1]))]), GraphError::OutputSlot { .. }));
    assert!(matches!(end(vec![output(77, key(&[1]))]), GraphError::UnknownSlot(_)));
    assert!(matches!(end(vec![output(1, key(&[1, 2]))]), GraphError::KeyWidth { .. }));
    assert!(matches!(end(vec![output(1, key(&[2]))]), GraphError::OutputKey { .. }));
    let twice = vec![output(1, key(&[1])), output(1, key(&[1]))];
    assert!(matches!(end(twice), GraphError::DuplicateOutput { .. }));
}
