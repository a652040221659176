//! Facts and records that no graph has written: a typed error, never a panic and never a graph that disagrees
//! with itself. That true ones come back equal is checked at every event of the stage.

use std::time::Duration;

use proptest::prelude::*;
use underbelly_storage::image::Key as RecordKey;
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use super::super::bundle::Setbacks;
use super::super::candidate::{Owner, Uses};
use super::super::class::Counters;
use super::super::fact::{BundleFacts, Kind, Registered, end_key};
use super::super::fresh::Fresh;
use super::super::reads::{Reported, Scanned};
use super::super::*;
use super::stage::{Stage, content, day, key, restored};

/// A graph with all kinds of records: candidates, tokens, a group, a run in flight, a failure.
fn rich() -> Graph {
    let mut stage = Stage::new();
    let a = stage.define(SlotDefinition::new("A").cell_key("x", ColumnType::I64));
    stage.define(SlotDefinition::new("B").cell_key("x", ColumnType::I64).row_key("r", ColumnType::Utf8));
    stage.define(SlotDefinition::new("T").value("v", ColumnType::F64));
    stage.register(ProducerDefinition::new("ab").requires("A").provides_at("B", 1));
    stage.register(ProducerDefinition::new("sum").requires("B").group_by_date().provides_at("T", 1));
    for x in 0..3 {
        stage.write(a, day(1), &key(&[x]), Some(content(x as u8)));
    }
    stage.end_of(day(1));
    for _ in 0..4 {
        let started = stage.start_next();
        stage.give(&started, 9);
    }
    stage.write(a, day(1), &key(&[0]), Some(content(7)));
    stage.write(a, day(1), &key(&[1]), Some(content(7)));
    let failing = stage.start_next();
    stage.end(failing.run, Outcome::Failed("bad".to_string())).unwrap();
    stage.start_next();
    stage.graph
}

/// A graph's facts, by kind.
#[derive(Clone, Default)]
struct Facts {
    next_order: Option<u64>,
    slots: Vec<SlotDefinition>,
    producers: Vec<Registered>,
    ends: Vec<SlotDate>,
    deadlines: Vec<(Deadline, bool)>,
    cells: Vec<(cell::Cell, cell::Sheet, Fresh)>,
    bundles: Vec<BundleFacts>,
}

impl Facts {
    fn of(graph: &Graph) -> Facts {
        let mut facts = Facts::default();
        for (record, value) in graph.to_records() {
            match Fact::decode(record, &value).unwrap().0 {
                Kind::Counters { next_order } => facts.next_order = Some(next_order),
                Kind::Slot(_, slot) => facts.slots.push(*slot),
                Kind::Producer(_, producer) => facts.producers.push(*producer),
                Kind::End(date) => facts.ends.push(date),
                Kind::Cell(_, cell, sheet, fresh) => facts.cells.push((cell, sheet, fresh)),
                Kind::Deadline(deadline, passed) => facts.deadlines.push((deadline, passed)),
                Kind::Bundle(_, bundle) => facts.bundles.push(*bundle),
            }
        }
        facts
    }

    fn restored(self) -> Result<Graph, GraphError> {
        let mut restorer = Restorer::default();
        let mut add = |kind| restorer.add(Fact(kind));
        self.next_order.into_iter().try_for_each(|next_order| add(Kind::Counters { next_order }))?;
        let number = |at: usize| at as u32;
        let slots = self.slots.into_iter().enumerate();
        slots.map(|(at, s)| Kind::Slot(SlotId(number(at)), Box::new(s))).try_for_each(&mut add)?;
        let producers = self.producers.into_iter().enumerate();
        producers
            .map(|(at, p)| Kind::Producer(ProducerId(number(at)), Box::new(p)))
            .try_for_each(&mut add)?;
        self.ends.into_iter().map(Kind::End).try_for_each(&mut add)?;
        let deadlines = self.deadlines.into_iter();
        deadlines.map(|(deadline, passed)| Kind::Deadline(deadline, passed)).try_for_each(&mut add)?;
        let cells = self.cells.into_iter().enumerate();
        let mut cells =
            cells.map(|(at, (cell, sheet, fresh))| Kind::Cell(CellId(number(at)), cell, sheet, fresh));
        cells.try_for_each(&mut add)?;
        let bundles = self.bundles.into_iter().enumerate();
        bundles
            .map(|(at, bundle)| Kind::Bundle(BundleId(number(at)), Box::new(bundle)))
            .try_for_each(&mut add)?;
        restorer.finish()
    }
}

#[test]
fn facts_that_contradict_each_other_are_refused() {
    type Damage = fn(&mut Facts);
    let damages: [(&str, Damage); 25] = [
        ("slot twice", |i| i.slots.push(i.slots[0].clone())),
        ("slot missing", |i| drop(i.slots.pop())),
        ("producer twice", |i| i.producers.push(i.producers[0].clone())),
        ("producer missing", |i| drop(i.producers.pop())),
        ("cell twice", |i| i.cells.push(i.cells[0].clone())),
        ("cell missing", |i| drop(i.cells.remove(0))),
        ("cell of no slot", |i| i.cells[0].0.slot = SlotId(77)),
        ("key too short", |i| i.cells[0].1.key = Key::empty()),
        ("effective of no candidate", |i| i.cells[0].1.effective = Some(5)),
        ("contents without a generation", |i| i.cells[0].0.g = 0),
        ("candidate twice", |i| {
            let candidate = i.cells[0].1.candidates[0].clone();
            i.cells[0].1.candidates.insert(1, candidate);
        }),
        ("owner of no bundle", |i| i.cells[0].1.candidates[0].owner = Owner::Bundle(BundleId(1000))),
        ("owner that reads it", |i| i.cells[0].1.candidates[0].owner = Owner::Bundle(BundleId(0))),
        ("lagging at rest", |i| i.cells[0].0.lagging = true),
        ("no member", |i| i.cells[3].0.member = false),
        ("bundle twice", |i| i.bundles.push(i.bundles[0].clone())),
        ("bundle missing", |i| drop(i.bundles.pop())),
        ("bundle of no producer", |i| i.bundles[0].producer = ProducerId(9)),
        ("key of a bundle", |i| i.bundles[0].key = Key::empty()),
        ("scopes of a bundle", |i| i.bundles[0].scopes.push(None)),
        ("a later session", |i| i.bundles[0].unseen = Some(1000)),
        ("generation", |i| i.cells[0].0.g = u64::MAX),
        ("queue", |i| i.next_order = Some(0)),
        ("queue's end", |i| i.next_order = Some(u64::MAX)),
        ("no queue", |i| i.next_order = None),
    ];
    let facts = Facts::of(&rich());
    for (name, damage) in damages {
        let mut damaged = facts.clone();
        damage(&mut damaged);
        assert!(damaged.restored().is_err(), "{name}");
    }
    assert!(facts.restored().is_ok());
}

/// A change of these bytes is a change of the format on disk: it needs a version of its own.
#[test]
fn the_bytes_of_facts_are_fixed() {
    let mut hasher = blake3::Hasher::new();
    for (record, value) in rich().to_records() {
        hasher.update(&[record.kind]).update(&record.major.to_le_bytes()).update(&record.minor.to_le_bytes());
        hasher.update(&(value.len() as u32).to_le_bytes()).update(&value);
    }
    let hash = hasher.finalize().to_hex();
    assert_eq!(hash.as_str(), "bbf107ef49b578821508268133cfcf80b59a8f1944575ce77cb8229e824ef1b9");
}

/// What a small graph does not have: every part of a producer, of a cell and of a bundle that may be left out.
#[test]
fn the_bytes_of_every_part_of_a_fact_are_fixed() {
    let mut graph = rich();
    let yesterday = Input::optional("A").alias("yesterday").lag(2).rename("x", "z").accept_stale();
    let filtered = Input::exclusive("B")
        .filter(Filter::one_of("a", ["x", "y"]))
        .filter(Filter::differs("b", -0.0))
        .filter(Filter::between("c", 1.5..2.5))
        .filter(Filter::between("d", ..=Date(4)))
        .fault_tolerant();
    let definition = ProducerDefinition::new("p").broadcast("A").input(yesterday).input(filtered);
    let producer = &mut graph.producers[0];
    let retry =
        Retry { max_attempts: 3, backoff: Duration::from_millis(4), max_backoff: Duration::from_secs(5) };
    let definition = definition.group_by(["z"], When::Any).provides_at("T", -3).retry(retry).max_running(6);
    producer.definition =
        definition.independent(7, Duration::from_nanos(8)).max_batch(9).cutoff(Duration::from_nanos(17));
    producer.deregistered = true;
    producer.host = Some(Host { machine: "m".to_string(), process: 9 });
    (producer.definition.daemon, producer.definition.lease) = (true, Some(Duration::from_nanos(12)));
    producer.definition.outputs[0].member = Some("who".to_string());
    (producer.sequence, producer.lost_at, producer.awaited) =
        (Some(13), Some(Timestamp(14)), Some(Timestamp(15)));
    let definition = producer.definition.clone();
    let cell = &mut graph.cells[3];
    (cell.expected, cell.lift) = (true, 7);
    let edge = edges::EdgeKey { source: CellId(1), input: 2 };
    graph.sheets[3].candidates[0].uses =
        Some(Box::new(Uses { edges: vec![edge], counters: Counters::default() }));
    graph.sheets[3].candidates[0].owner = Owner::Daemon(ProducerId(1));
    graph.sheets[3].candidates[0].aged = true;
    let (of_cell, date, priority) =
        (graph.sheets[3].key.clone(), graph.sheets[3].date, graph.sheets[3].candidates[0].priority);
    graph.restore_age(CellId(3), graph.cells[3].slot, &of_cell, date, (priority, Timestamp(16)));
    let bundle = &mut graph.bundles[1];
    (bundle.forced, bundle.is_cut) = (true, true);
    graph.tallies[1].lift = 3;
    let bundle = &mut graph.bundles[1];
    let scanned = Scanned { slot: SlotId(1), date: day(2), columns: vec![0], key: key(&[5]) };
    let reported = Reported { cells: [CellId(1)].into(), scans: [scanned].into() };
    bundle.reported = Some(Box::new(reported.clone()));
    let (until, message) = (Some(Timestamp(11)), Some("busy".into()));
    let setbacks = Setbacks { attempts: 2, until, batch_max: 3, message };
    bundle.setbacks = Some(Box::new(setbacks.clone()));
    bundle.ready_at = Timestamp(10);
    bundle.ending = Some(bundle::Ending::Cancelled("enough".into()));

    let records = graph.to_records();
    let found = |kind, major| records.iter().find(|(key, _)| *key == RecordKey::new(kind, major)).unwrap();
    let mut hasher = blake3::Hasher::new();
    for (kind, major) in [(3, 0), (6, 3), (7, 1)] {
        let (key, value) = found(kind, major);
        hasher.update(value);
        match Fact::decode(*key, value).unwrap().0 {
            Kind::Producer(_, read) => {
                assert_eq!(read.definition, definition);
                assert_eq!(
                    (read.sequence, read.lost_at, read.awaited),
                    (Some(13), Some(Timestamp(14)), Some(Timestamp(15)))
                );
                assert_eq!((read.deregistered, read.host), (true, graph.producers[0].host.clone()));
            }
            Kind::Cell(_, read, sheet, fresh) => {
                assert_eq!(fresh, [(sheet.candidates[0].priority, Timestamp(16))]);
                assert_eq!(sheet.candidates[0].owner, Owner::Daemon(ProducerId(1)));
                assert_eq!((read.expected, read.lift), (true, 7));
                assert_eq!(
                    sheet.candidates[0].uses.as_ref().map(|uses| uses.edges.as_slice()),
                    Some(&[edge][..])
                );
            }
            Kind::Bundle(_, read) => {
                assert_eq!((read.forced, read.lift), (true, 3));
                assert_eq!(read.ending, graph.bundles[1].ending);
                assert_eq!(read.reported, reported);
                assert_eq!(read.tokens.len(), 1);
                assert_eq!((read.setbacks.as_deref(), read.ready_at), (Some(&setbacks), Timestamp(10)));
            }
            other => panic!("{other:?}"),
        }
    }
    let hash = hasher.finalize().to_hex();
    assert_eq!(hash.as_str(), "4f2bdc785621b662c02e331122e6bf8eeb006c8e9ddd0a59ac47c1b2dd597863");
}

#[test]
fn every_date_and_key_value_comes_back() {
    use underbelly_storage::{Date, Timestamp};
    let values: [Value; 8] = [
        Value::Bool(true),
        Value::I64(i64::MIN),
        Value::F64(-1.5),
        Value::F64(f64::INFINITY),
        Value::Utf8("".into()),
        Value::Utf8("é".into()),
        Value::Timestamp(Timestamp::MIN),
        Value::Date(Date(i32::MIN)),
    ];
    let mut graph = Graph::new();
    let mut seq = 0;
    let mut apply = |event| {
        seq += 1;
        graph.apply(seq, Timestamp(0), &event).unwrap();
    };
    let dates = [
        SlotDate::Day(Date(i32::MIN)),
        SlotDate::Day(Date(i32::MAX)),
        SlotDate::Instant(Timestamp::MIN),
        SlotDate::Instant(Timestamp::MAX),
    ];
    for (at, value) in values.into_iter().enumerate() {
        let column_type = value.column_type().unwrap();
        apply(Event::DefineSlot(SlotDefinition::new(format!("s{at}")).cell_key("k", column_type)));
        let key = Key::new(vec![value]).unwrap();
        let write = |date| Write {
            slot: SlotId(at as u32),
            date,
            key: key.clone(),
            priority: i32::MIN,
            content: Some([1; 32]),
        };
        apply(Event::Commit(Submission {
            writes: dates.map(write).to_vec(),
            ends: dates.to_vec(),
            ..Submission::default()
        }));
    }
    let records = graph.to_records();
    assert!(records.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(restored(&records).unwrap().to_records(), records);
}

/// One key for each date, so that a record's key says the same again when it is written.
#[test]
fn a_key_of_an_ended_date_that_says_the_same_in_another_way_is_refused() {
    let key = end_key(SlotDate::Day(Date(20_000)));
    assert!(Fact::decode(key, &[]).is_ok());
    for major in [2, 256, 1 << 20, 1 << 32, u64::MAX] {
        let found = Fact::decode(RecordKey { major, ..key }, &[]);
        assert!(found.is_err(), "major {major}: {found:?}");
    }
}

#[test]
fn records_come_back_from_bytes_of_any_alignment() {
    let event = Event::Start { bundle: BundleId(3), run: RunId(u64::MAX), batch: RunId(7) };
    let bytes = EventV1::from(&event).to_bytes().unwrap();
    let shifted = [&[0u8][..], &bytes].concat();
    assert_eq!(Event::try_from(EventV1::from_bytes(&shifted[1..]).unwrap()).unwrap(), event);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_of_facts_never_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..64usize) {
        let mut records = rich_records().to_vec();
        let which = which.index(records.len());
        let bytes = &mut records[which].1;
        if !bytes.is_empty() {
            let place = at.index(bytes.len());
            bytes[place] = value;
            bytes.truncate(bytes.len() - (cut / 8).min(bytes.len()));
        }
        if let Ok(graph) = restored(&records) {
            prop_assert_eq!(graph.to_records(), records);
        }
    }

    #[test]
    fn damaged_bytes_of_a_record_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..64usize) {
        let write = Write { slot: SlotId(0), date: day(3), key: key(&[4]), priority: -1, content: Some(content(1)) };
        let event = Event::Commit(Submission { writes: vec![write.clone(), write], ends: vec![day(3)], ..Submission::default() });
        let mut bytes = EventV1::from(&event).to_bytes().unwrap();
        let place = at.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(bytes.len() - cut / 8);
        if let Ok(record) = EventV1::from_bytes(&bytes) {
            let _event = Event::try_from(record);
        }
    }

    #[test]
    fn noise_is_no_fact_and_no_record(kind in 0..9u8, major in 0..4u64, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _fact = Fact::decode(RecordKey::new(kind, major), &bytes);
        let _record = EventV1::from_bytes(&bytes);
    }
}

fn rich_records() -> &'static [(RecordKey, Vec<u8>)] {
    static RECORDS: std::sync::OnceLock<Vec<(RecordKey, Vec<u8>)>> = std::sync::OnceLock::new();
    RECORDS.get_or_init(|| rich().to_records())
}
