//! Outputs that rest on some inputs only, and what runs report that they have read beside their inputs.

use underbelly_storage::ColumnType;

use super::super::super::*;
use super::super::stage::{Stage, content, day, key};
use super::{run_ready, slots, step};

/// Gives two outputs at the bundle's key, of which the first rests on the first input alone.
fn give_two(stage: &mut Stage, started: &Started, outputs: [(SlotId, u8); 2]) {
    let first = started.inputs[0];
    let uses = Some(vec![Used { input: first.input as u16, cell: first.cell }]);
    let mut writes =
        outputs.map(|(slot, number)| OutputWrite::data(slot, started.key.clone(), content(number)));
    writes[0].uses = uses;
    stage.end(started.run, Outcome::Data(writes.to_vec())).unwrap();
}

#[test]
fn an_output_may_rest_on_some_inputs_only() {
    let mut stage = Stage::new();
    let [a, b, c, d] = slots(&mut stage);
    stage.register(step("two", &["A", "B"], "C").provides("D"));
    let (date, at) = (day(1), key(&[1]));
    stage.write(a, date, &at, Some(content(1)));
    stage.write(b, date, &at, Some(content(1)));
    let started = stage.start_next();
    give_two(&mut stage, &started, [(c, 1), (d, 1)]);
    assert_eq!((stage.state(c, date, &at), stage.state(d, date, &at)), (State::Current, State::Current));
    let cell = |stage: &Stage, slot| stage.graph.cell(slot, date, &at).unwrap();
    let up = stage.graph.upstream(cell(&stage, c), Extent::default()).unwrap();
    assert_eq!(up.children.len(), 1, "C rests on A alone");
    let down = stage.graph.downstream(cell(&stage, b), Extent::default()).unwrap();
    assert_eq!(down.children.len(), 1, "of B comes D alone");

    stage.write(b, date, &at, None);
    let info = stage.graph.cell_info(cell(&stage, c)).unwrap();
    assert_eq!((info.state, info.causes), (State::Current, vec![]), "it does not rest on B");
    assert_eq!(stage.state(d, date, &at), State::Stale);
    stage.reopen();
    stage.apply(Event::Attach { producer: ProducerId(0), host: None }).unwrap();
    stage.write(a, date, &at, Some(content(2)));
    assert_eq!(stage.state(c, date, &at), State::Stale);
    stage.write(b, date, &at, Some(content(3)));
    let started = stage.start_next();
    assert_eq!(stage.state(c, date, &at), State::Stale, "a run may give it anew");
    give_two(&mut stage, &started, [(c, 2), (d, 2)]);
    stage.write(b, date, &at, Some(content(4)));
    assert_eq!(stage.graph.view(cell(&stage, c)), Some(View::Waiting), "its bundle is ready");
    let started = stage.start_next();
    give_two(&mut stage, &started, [(c, 2), (d, 3)]);
    assert_eq!(stage.state(c, date, &at), State::Current);
}

#[test]
fn a_use_of_what_was_not_read_is_refused() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("p", &["A"], "C").input(Input::optional("B")));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    let unread = stage.graph.find(b, day(1), &key(&[1])).unwrap();
    let mut output = OutputWrite::data(c, key(&[1]), content(1));
    output.uses = Some(vec![Used { input: 1, cell: unread }]);
    let error = stage.end(started.run, Outcome::Data(vec![output])).unwrap_err();
    assert!(matches!(error, GraphError::UnreadUse { input: 1, .. }), "{error}");
}

fn end_with(
    stage: &mut Stage,
    started: &Started,
    slot: SlotId,
    number: u8,
    reads: Vec<Read>,
) -> Result<Effects, GraphError> {
    let output = OutputWrite::data(slot, started.key.clone(), content(number));
    stage.apply(Event::End {
        run: started.run,
        epoch: started.epoch,
        outcome: Outcome::Data(vec![output]),
        reads,
    })
}

fn cell_read(slot: SlotId, x: i64, g: Option<u64>) -> Read {
    Read::Cell { slot, date: day(1), key: key(&[x]), g }
}

#[test]
fn a_reported_read_is_an_edge_until_the_next_result() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(step("p", &["A"], "B"));
    let date = day(1);
    stage.write(c, date, &key(&[7]), Some(content(1)));
    stage.write(a, date, &key(&[1]), Some(content(1)));
    let started = stage.start_next();
    for (unmade, had) in
        [(cell_read(c, 7, Some(2)), 1), (cell_read(c, 8, Some(1)), 0), (cell_read(c, 7, Some(0)), 1)]
    {
        let error = end_with(&mut stage, &started, b, 1, vec![unmade]).unwrap_err();
        assert!(matches!(error, GraphError::UnmadeRead { found, .. } if found == had), "{error}");
    }
    end_with(&mut stage, &started, b, 1, vec![cell_read(c, 7, Some(1)), cell_read(c, 8, None)]).unwrap();
    assert_eq!(stage.state(b, date, &key(&[1])), State::Current);
    assert_eq!(stage.state(c, date, &key(&[7])), State::Current);

    stage.write(c, date, &key(&[7]), Some(content(2)));
    assert_eq!(stage.state(b, date, &key(&[1])), State::Stale);
    let started = stage.start_next();
    assert_eq!(started.inputs.len(), 1, "what is reported is no input");
    end_with(&mut stage, &started, b, 1, vec![cell_read(c, 8, None)]).unwrap();
    stage.write(c, date, &key(&[7]), Some(content(3)));
    assert!(stage.graph.idle(), "the last run did not read it");

    stage.write(c, date, &key(&[8]), Some(content(1)));
    let started = stage.start_next();
    // It changes while the run is going that has read what was there before.
    stage.write(c, date, &key(&[8]), Some(content(2)));
    end_with(&mut stage, &started, b, 2, vec![cell_read(c, 8, Some(1))]).unwrap();
    let started = stage.start_next();
    end_with(&mut stage, &started, b, 2, vec![cell_read(c, 8, Some(2))]).unwrap();
    assert_eq!(stage.state(b, date, &key(&[1])), State::Current);
    stage.write(c, date, &key(&[8]), None);
    assert_eq!(stage.state(b, date, &key(&[1])), State::Stale, "its going is a change");
    for _ in 0..3 {
        stage.start_next();
        stage.reopen();
        stage.apply(Event::Attach { producer: ProducerId(0), host: None }).unwrap();
    }
    assert_eq!(stage.state(b, date, &key(&[1])), State::Invalid);
    assert!(stage.graph.idle(), "what it would have read is what it failed for");
}

#[test]
fn a_scan_sees_cells_come_change_and_go() {
    let mut stage = Stage::new();
    let [a, b] = slots(&mut stage);
    let wide = SlotDefinition::new("Wide").cell_key("x", ColumnType::I64).cell_key("y", ColumnType::I64);
    let wide = stage.define(wide);
    stage.register(step("p", &["A"], "B"));
    let date = day(1);
    stage.write(wide, date, &key(&[1, 5]), Some(content(1)));
    stage.write(a, date, &key(&[1]), Some(content(1)));
    let scan = |ys: &[i64]| {
        let cells = ys.iter().map(|y| Read::Cell { slot: wide, date, key: key(&[1, *y]), g: Some(1) });
        let mut reads: Vec<Read> = cells.collect();
        reads.push(Read::Scan { slot: wide, date, columns: vec![0], key: key(&[1]) });
        reads
    };
    let started = stage.start_next();
    end_with(&mut stage, &started, b, 1, scan(&[5])).unwrap();
    stage.write(wide, date, &key(&[2, 5]), Some(content(1)));
    assert!(stage.graph.idle(), "the scan did not ask for x = 2");
    stage.write(wide, date, &key(&[1, 6]), Some(content(1)));
    let started = stage.start_next();
    // Another comes while the run is going.
    stage.write(wide, date, &key(&[1, 7]), Some(content(1)));
    end_with(&mut stage, &started, b, 1, scan(&[5, 6])).unwrap();
    let started = stage.start_next();
    end_with(&mut stage, &started, b, 1, scan(&[5, 6, 7])).unwrap();
    assert_eq!(stage.state(b, date, &key(&[1])), State::Current);
    stage.write(wide, date, &key(&[1, 5]), None);
    let started = stage.start_next();
    end_with(&mut stage, &started, b, 1, vec![]).unwrap();
    stage.write(wide, date, &key(&[1, 8]), Some(content(1)));
    assert!(stage.graph.idle(), "the last run did not scan");

    let bad = Read::Scan { slot: wide, date, columns: vec![1, 0], key: key(&[1, 1]) };
    stage.write(a, date, &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    let error = end_with(&mut stage, &started, b, 1, vec![bad]).unwrap_err();
    assert!(matches!(error, GraphError::ScanKey { .. }), "{error}");
}

#[test]
fn a_cycle_of_cells_is_refused_with_its_path_and_a_loop_of_names_is_not() {
    let mut stage = Stage::new();
    let [a, b, c, d] = slots(&mut stage);
    stage.register(step("ab", &["A"], "B"));
    stage.register(step("bc", &["B"], "C"));
    let date = day(1);
    stage.write(a, date, &key(&[1]), Some(content(1)));
    stage.write(a, date, &key(&[2]), Some(content(1)));
    assert_eq!(run_ready(&mut stage, 1), 4);

    stage.write(a, date, &key(&[1]), Some(content(2)));
    let started = stage.start_next();
    let error = end_with(&mut stage, &started, b, 2, vec![cell_read(c, 1, Some(1))]).unwrap_err();
    assert!(error.to_string().contains("B 1970-01-02 1 → C 1970-01-02 1"), "{error}");
    let error = end_with(&mut stage, &started, b, 2, vec![cell_read(b, 1, Some(1))]).unwrap_err();
    assert!(matches!(error, GraphError::CellCycle { .. }), "its own output: {error}");
    let scan = Read::Scan { slot: c, date, columns: vec![], key: Key::empty() };
    assert!(matches!(end_with(&mut stage, &started, b, 2, vec![scan]), Err(GraphError::CellCycle { .. })));
    end_with(&mut stage, &started, b, 2, vec![cell_read(c, 2, Some(1))]).unwrap();
    assert_eq!(run_ready(&mut stage, 2), 1);
    assert_eq!(stage.state(b, date, &key(&[1])), State::Current, "another key of what is made of it");

    // The other way round would close the circle, wherever it is looked for.
    stage.write(a, date, &key(&[2]), Some(content(2)));
    let started = stage.start_next();
    let error = end_with(&mut stage, &started, b, 2, vec![cell_read(c, 1, Some(2))]).unwrap_err();
    assert!(error.to_string().contains("C 1970-01-02 1"), "{error}");
    end_with(&mut stage, &started, b, 2, vec![cell_read(d, 1, None)]).unwrap();
    // B 2 and C 2 are new: B 1, which reads C 2, is made again, and C 1 behind it.
    stage.starts.clear();
    let mut order = Vec::new();
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        order.push((started.producer.0, started.key.clone()));
        let (slot, reads) = match started.producer.0 {
            0 => (b, vec![cell_read(c, 2, Some(2))]),
            _ => (c, vec![]),
        };
        end_with(&mut stage, &started, slot, 9, reads).unwrap();
    }
    assert_eq!(order, [(1, key(&[2])), (0, key(&[1])), (1, key(&[1]))], "each after what it reads");

    // What is read does not exist yet; who would make it later is refused then.
    stage.register(step("cd", &["C"], "D"));
    let mut refused = Vec::new();
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        if let Err(error) = end_with(&mut stage, &started, d, 1, vec![]) {
            refused.push((started.key.clone(), error.to_string()));
            stage.end(started.run, Outcome::Failed(error.to_string())).unwrap();
        }
    }
    let [(at, error)] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(*at, key(&[1]), "D 2 is read by nobody");
    let way = ["D", "B", "C", "B", "C"].iter().zip([1, 2, 2, 1, 1]);
    let way: Vec<String> = way.map(|(slot, x)| format!("{slot} 1970-01-02 {x}")).collect();
    assert!(error.contains(&way.join(" → ")), "{error}");
}

/// One makes X; another fills X in where nobody better gives it, and makes Y, which the first has looked for.
#[test]
fn a_read_closes_no_circle_with_what_fills_in() {
    let mut stage = Stage::new();
    let [a, b, c] = slots(&mut stage);
    stage.register(ProducerDefinition::new("p").requires("A").provides_at("B", 10));
    let fills = ProducerDefinition::new("f").requires("A").input(Input::exclusive("B"));
    stage.register(fills.provides_at("B", 1).provides("C"));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let p = stage.start_next();
    let (reads, outcome) = (vec![cell_read(c, 1, None)], Outcome::Declined("no".to_string()));
    stage.apply(Event::End { run: p.run, epoch: p.epoch, outcome, reads }).unwrap();
    let f = stage.start_next();
    let outputs = [b, c].map(|slot| OutputWrite::data(slot, f.key.clone(), content(1)));
    let error = stage.end(f.run, Outcome::Data(outputs.to_vec())).unwrap_err();
    assert!(matches!(error, GraphError::CellCycle { .. }), "{error}");
    stage.end(f.run, Outcome::Failed(error.to_string())).unwrap();
    assert!(stage.graph.idle());
    stage.reopen();
}

/// One makes B of A, and C waits for what may still be made of B and D, of which there is no work.
fn waiting(stage: &mut Stage) -> ([SlotId; 3], ProducerDefinition) {
    let [a, b, c, _, _] = slots(stage);
    stage.register(step("p", &["A"], "B"));
    stage.register(step("f", &["A"], "C").input(Input::optional("E")));
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    ([a, b, c], step("q", &["B", "D"], "E"))
}

#[test]
fn a_read_closes_no_circle_with_what_waits() {
    let mut stage = Stage::new();
    let ([a, b, c], between) = waiting(&mut stage);
    stage.register(between);
    let p = stage.start_next();
    end_with(&mut stage, &p, b, 1, vec![]).unwrap();
    assert_eq!(run_ready(&mut stage, 1), 1);
    stage.write(a, day(1), &key(&[1]), Some(content(2)));
    let p = stage.start_next();
    let error = end_with(&mut stage, &p, b, 2, vec![cell_read(c, 1, Some(1))]).unwrap_err();
    assert!(matches!(error, GraphError::CellCycle { .. }), "{error}");
    end_with(&mut stage, &p, b, 2, vec![]).unwrap();
}

#[test]
fn a_registration_closes_no_circle_with_what_was_read() {
    let mut stage = Stage::new();
    let ([_, b, c], between) = waiting(&mut stage);
    let p = stage.start_next();
    end_with(&mut stage, &p, b, 1, vec![cell_read(c, 1, None)]).unwrap();
    let refused = stage.apply(Event::Register(between.clone())).unwrap_err();
    assert!(refused.to_string().contains("C → p → B"), "{refused}");
    run_ready(&mut stage, 2);
    stage.register(between);
}

/// One makes B of A, C waits for what may still be made of B of the day before, and B of a day reads C of the day after.
/// Returns what stands between, which is not registered.
fn looking_ahead(stage: &mut Stage, optional: &[&str]) -> ([SlotId; 4], ProducerDefinition) {
    let [a, b, c, d, _] = slots(stage);
    stage.register(step("p", &["A"], "B"));
    let f = step("f", &["A"], "C");
    stage.register(optional.iter().fold(f, |f, slot| f.input(Input::optional(*slot))));
    let q = ProducerDefinition::new("q").input(Input::required("B").lag(1)).requires("D").provides("E");
    ([a, b, c, d], q)
}

/// Runs C of day 2, and then B of day 1, which reads it.
fn read_ahead(stage: &mut Stage, [a, b, c, _]: [SlotId; 4]) -> Result<Effects, GraphError> {
    stage.write(a, day(2), &key(&[1]), Some(content(1)));
    assert_eq!(run_ready(stage, 1), 2);
    stage.write(a, day(1), &key(&[1]), Some(content(1)));
    let p = stage.start_next();
    let read = Read::Cell { slot: c, date: day(2), key: key(&[1]), g: Some(1) };
    end_with(stage, &p, b, 1, vec![read])
}

#[test]
fn a_registration_closes_no_circle_through_an_earlier_date_with_what_was_read_of_a_later_one() {
    let mut stage = Stage::new();
    let (slots, q) = looking_ahead(&mut stage, &["E"]);
    read_ahead(&mut stage, slots).unwrap();
    assert_eq!(run_ready(&mut stage, 1), 1);
    if let Err(refused) = stage.apply(Event::Register(q)) {
        assert!(refused.to_string().contains("B → q → E → f → C → p → B"), "{refused}");
        return;
    }
    stage.write(slots[0], day(1), &key(&[1]), Some(content(2)));
    panic!("it was accepted, and settling came to an end");
}

/// Of two ways on which C waits for B the one of the same date counts, and what stands on the other is made later.
#[test]
fn a_read_of_a_later_date_closes_no_circle_with_what_waits_for_what_is_not_made_yet() {
    let mut stage = Stage::new();
    let (slots, q) = looking_ahead(&mut stage, &["E", "B"]);
    stage.register(q);
    if let Err(refused) = read_ahead(&mut stage, slots) {
        assert!(matches!(refused, GraphError::CellCycle { .. }), "{refused}");
        return;
    }
    stage.write(slots[3], day(2), &key(&[1]), Some(content(1)));
    panic!("it was accepted, and settling came to an end");
}
