//! Trees of cells and of reasons: how far they reach, and what they leave out.

use std::collections::BTreeMap;

use underbelly_storage::{ColumnType, Timestamp};

use super::super::*;
use super::stage::{Stage, content, day, key};

fn keyed(stage: &mut Stage, name: &str) -> SlotId {
    stage.define(SlotDefinition::new(name).cell_key("x", ColumnType::I64))
}

fn within(depth: usize) -> Extent {
    Extent { depth, ..Extent::default() }
}

fn cell(stage: &Stage, slot: SlotId) -> CellId {
    stage.graph.cell(slot, day(0), &key(&[0])).unwrap()
}

fn run(stage: &mut Stage, number: u8) {
    while stage.graph.next_ready().is_some() {
        let started = stage.start_next();
        stage.give(&started, number);
    }
}

/// How many levels under the root each cell is expanded.
fn expanded(tree: &Tree, depth: usize, found: &mut BTreeMap<CellId, usize>) {
    if let (TreeNode::Cell(cell), false) = (tree.node, tree.repeated) {
        assert_eq!(found.insert(cell, depth), None, "each is expanded once");
    }
    tree.children.iter().for_each(|child| expanded(child, depth + 1, found));
}

/// S → X, (S, X) → Y, Y → Z: Z is two steps from S, and Y one, though the longer way is met first.
#[test]
fn a_tree_has_all_that_is_within_its_depth() {
    let mut stage = Stage::new();
    let slots = ["S", "X", "Y", "Z"].map(|name| keyed(&mut stage, name));
    stage.register(ProducerDefinition::new("x").requires("S").provides("X"));
    stage.register(ProducerDefinition::new("y").requires("S").requires("X").provides("Y"));
    stage.register(ProducerDefinition::new("z").requires("Y").provides("Z"));
    stage.write(slots[0], day(0), &key(&[0]), Some(content(1)));
    run(&mut stage, 1);
    let [s, x, y, z] = slots.map(|slot| cell(&stage, slot));

    let mut found = BTreeMap::new();
    let down = stage.graph.downstream(s, within(2)).unwrap();
    expanded(&down, 0, &mut found);
    assert_eq!(found, BTreeMap::from([(s, 0), (x, 1), (y, 1), (z, 2)]));
    let mut found = BTreeMap::new();
    expanded(&stage.graph.upstream(z, within(2)).unwrap(), 0, &mut found);
    assert_eq!(found, BTreeMap::from([(z, 0), (y, 1), (s, 2), (x, 2)]));
    let cut = stage.graph.downstream(s, within(1)).unwrap();
    let more: Vec<u64> = cut.children.iter().map(|child| child.more).collect();
    assert_eq!((cut.children.len(), more), (2, vec![1, 1]), "X leads to Y, and Y to Z");
}

/// Texts by level.
fn texts(why: &Why, depth: usize, found: &mut Vec<(usize, String)>) {
    found.push((depth, why.text.clone()));
    why.children.iter().for_each(|child| texts(child, depth + 1, found));
}

/// Y reads X and B, and X reads B: what is too deep behind X is explained behind Y.
#[test]
fn what_was_too_deep_is_explained_where_it_is_nearer() {
    let mut stage = Stage::new();
    let [x, b, _] = ["X", "B", "Y"].map(|name| keyed(&mut stage, name));
    stage.register(ProducerDefinition::new("x").requires("B").provides_at("X", 1));
    stage.register(ProducerDefinition::new("y").requires("X").requires("B").provides("Y"));
    stage.write(x, day(0), &key(&[0]), Some(content(1)));
    stage.write(b, day(0), &key(&[0]), Some(content(1)));
    run(&mut stage, 2);
    let slot = stage.graph.slot_by_name("Y").unwrap();
    assert!(cell(&stage, x) < cell(&stage, b), "the long way is the first");

    let why = |depth| {
        let why = stage.graph.why_within(slot, day(0), &key(&[0]), within(depth)).unwrap();
        let mut found = Vec::new();
        texts(&why, 0, &mut found);
        let of_b = stage.graph.label(cell(&stage, b));
        found.retain(|(_, text)| text.starts_with(&of_b));
        (found.into_iter().map(|(_, text)| text[of_b.len() + 4..].to_string()).collect::<Vec<_>>(), why)
    };
    let (of_b, cut) = why(2);
    assert_eq!(of_b, ["current; deeper reasons are left out", "current"], "{cut}");
    assert_eq!(cut.to_string().matches("client committed").count(), 1, "{cut}");
    let (of_b, whole) = why(3);
    assert_eq!(of_b, ["current", "current, as explained above"], "{whole}");
}

#[test]
fn reasons_are_bounded_and_what_is_left_out_is_counted() {
    const CELLS: i64 = 12_000;
    let mut graph = Graph::new();
    let mut seq = 0;
    let mut apply = |graph: &mut Graph, event: Event| {
        seq += 1;
        graph.apply(seq, Timestamp(seq as i64), &event).unwrap()
    };
    let keyed = |name: &str| SlotDefinition::new(name).cell_key("x", ColumnType::I64);
    apply(&mut graph, Event::DefineSlot(keyed("A")));
    apply(&mut graph, Event::DefineSlot(SlotDefinition::new("B")));
    apply(&mut graph, Event::DefineSlot(SlotDefinition::new("C")));
    let all = ProducerDefinition::new("all").requires("A").group_by(Vec::<String>::new(), When::Any);
    let exclusive = ProducerDefinition::new("none").requires("C");
    for definition in
        [all.provides("B"), exclusive.input(Input::exclusive("A").broadcast()).provides_at("B", 1)]
    {
        apply(&mut graph, Event::Register(definition));
    }
    let write = |slot: u32, x: Key| Write {
        slot: SlotId(slot),
        date: day(0),
        key: x,
        priority: 0,
        content: Some(content(1)),
    };
    let mut writes: Vec<Write> = (0..CELLS).map(|x| write(0, key(&[x]))).collect();
    writes.push(write(2, Key::empty()));
    apply(&mut graph, Event::Commit(Submission { writes, ..Submission::default() }));

    fn count(why: &Why) -> (u64, u64) {
        let below = why.children.iter().map(count).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        (below.0 + u64::from(why.kind == WhyKind::Cell), below.1 + why.more)
    }
    for (producer, children, shown) in [(0, usize::MAX, 10_000), (1, usize::MAX, 10_000), (1, 5, 6)] {
        let extent = Extent { children, ..Extent::default() };
        let why = graph.why_work_at(ProducerId(producer), day(0), &Key::empty(), extent).unwrap();
        let (cells, more) = count(&why);
        assert!(cells <= shown && cells + 10 > shown, "{cells} cells");
        assert!(cells + more >= CELLS as u64, "{cells} cells and {more} more");
    }
}

/// What forbids a run is not what something was made of, nor is a cell that nobody has made.
#[test]
fn sources_are_what_was_read() {
    let mut stage = Stage::new();
    let [a, e, b] = ["A", "E", "B"].map(|name| keyed(&mut stage, name));
    let definition = ProducerDefinition::new("b").requires("A").input(Input::optional("O"));
    keyed(&mut stage, "O");
    stage.register(definition.input(Input::exclusive("E")).provides("B"));
    stage.write(a, day(0), &key(&[0]), Some(content(1)));
    run(&mut stage, 1);
    stage.write(e, day(0), &key(&[0]), Some(content(1)));
    let all: Vec<_> = [a, e, b].map(|slot| cell(&stage, slot)).into();
    let sources = |cells: &[CellId]| {
        let mut found = Vec::new();
        stage.graph.sources(cells, |bundle, from, to| {
            found.push((bundle, from, to));
            true
        });
        found
    };
    assert_eq!(sources(&all), [(BundleId(0), all[0], all[2])]);
    assert_eq!(sources(&all[1..]), []);
}
