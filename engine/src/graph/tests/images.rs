//! Images and records that no graph has written: a typed error, never a panic and never a graph that disagrees
//! with itself. That true ones come back equal is checked at every event of the stage.

use proptest::prelude::*;
use underbelly_storage::ColumnType;

use super::super::*;
use super::stage::{Stage, content, day, key};

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

#[test]
fn images_come_back_from_bytes_of_any_alignment() {
    let image = rich().to_image();
    let bytes = image.to_bytes().unwrap();
    let shifted = [&[0u8][..], &bytes].concat();
    assert_eq!(GraphImageV1::from_bytes(&shifted[1..]).unwrap(), image);
}

#[test]
fn facts_that_contradict_each_other_are_refused() {
    type Damage = fn(&mut GraphImageV1);
    let damages: [(&str, Damage); 24] = [
        ("slot twice", |i| i.slots.push(i.slots[0].clone())),
        ("slot missing", |i| drop(i.slots.pop())),
        ("producer twice", |i| i.producers.push(i.producers[0].clone())),
        ("producer missing", |i| drop(i.producers.pop())),
        ("cell twice", |i| i.cells.push(i.cells[0].clone())),
        ("cell missing", |i| drop(i.cells.remove(0))),
        ("cell of no slot", |i| i.cells[0].slot = 77),
        ("key too short", |i| i.cells[0].key.clear()),
        ("effective of no candidate", |i| i.cells[0].effective = Some(5)),
        ("content of no candidate", |i| i.cells[0].content = Some(content(99))),
        ("candidate twice", |i| {
            let candidate = i.cells[0].candidates[0].clone();
            i.cells[0].candidates.push(candidate);
        }),
        ("owner of no bundle", |i| i.cells[0].candidates[0].owner = Some(1000)),
        ("owner that reads it", |i| i.cells[0].candidates[0].owner = Some(0)),
        ("lagging at rest", |i| i.cells[0].lagging = true),
        ("no member", |i| i.cells[3].member = false),
        ("bundle twice", |i| i.bundles.push(i.bundles[0].clone())),
        ("bundle missing", |i| drop(i.bundles.pop())),
        ("bundle of no producer", |i| i.bundles[0].producer = 9),
        ("key of a bundle", |i| i.bundles[0].key.clear()),
        ("scopes of a bundle", |i| i.bundles[0].scopes.push(None)),
        ("generation", |i| i.cells[0].g = u64::MAX),
        ("queue", |i| i.next_order = 0),
        ("queue's end", |i| i.next_order = u64::MAX),
        ("scope missing", |i| i.scopes.clear()),
    ];
    let image = rich().to_image();
    for (name, damage) in damages {
        let mut damaged = image.clone();
        damage(&mut damaged);
        assert!(Graph::from_image(&damaged).is_err(), "{name}");
    }
    assert!(Graph::from_image(&image).is_ok());
}

#[test]
fn records_come_back_from_bytes_of_any_alignment() {
    let event = Event::Start { bundle: BundleId(3), run: RunId(u64::MAX) };
    let bytes = EventV1::from(&event).to_bytes().unwrap();
    let shifted = [&[0u8][..], &bytes].concat();
    assert_eq!(Event::try_from(EventV1::from_bytes(&shifted[1..]).unwrap()).unwrap(), event);
}

proptest! {
    #[test]
    fn damaged_bytes_of_an_image_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..64usize) {
        let mut bytes = rich_bytes().to_vec();
        let place = at.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(bytes.len() - cut / 8);
        if let Ok(image) = GraphImageV1::from_bytes(&bytes)
            && let Ok(graph) = Graph::from_image(&image)
        {
            prop_assert_eq!(graph.to_image(), image);
        }
    }

    #[test]
    fn damaged_bytes_of_a_record_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in 0..64usize) {
        let write = Write { slot: SlotId(0), date: day(3), key: key(&[4]), priority: -1, content: Some(content(1)) };
        let event = Event::Commit { writes: vec![write.clone(), write], ends: vec![day(3)] };
        let mut bytes = EventV1::from(&event).to_bytes().unwrap();
        let place = at.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(bytes.len() - cut / 8);
        if let Ok(record) = EventV1::from_bytes(&bytes) {
            let _event = Event::try_from(record);
        }
    }

    #[test]
    fn noise_is_no_image_and_no_record(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(image) = GraphImageV1::from_bytes(&bytes) {
            let _graph = Graph::from_image(&image);
        }
        let _record = EventV1::from_bytes(&bytes);
    }
}

fn rich_bytes() -> &'static [u8] {
    static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BYTES.get_or_init(|| rich().to_image().to_bytes().unwrap())
}
