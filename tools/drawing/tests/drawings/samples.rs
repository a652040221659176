//! Graphs that are the same at every run.

use underbelly::{
    CellEdge, CellGraph, CellNode, Date, EdgeRole, GraphEdge, GraphNode, GraphView, Key, Mode, NodeKind,
    PStatus, ProducerNode, SlotNode, State, StateCounts, Timestamp, Value,
};

/// The instant that ages are counted to: 2014-06-13 18:00 UTC.
pub const NOW: Timestamp = Timestamp(1_402_682_400_000_000_000);

/// A linear congruential generator; the numbers are Knuth's.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn ago(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp(NOW.0 - seconds * 1_000_000_000))
}

fn slot(name: &str, states: &[(State, u64)], newest: i64, oldest: i64) -> GraphNode {
    let mut slot = SlotNode::default();
    slot.states = states.iter().copied().collect::<StateCounts>();
    if !states.is_empty() {
        (slot.newest_change, slot.oldest_change) = (ago(newest), ago(oldest));
    }
    let mut node = GraphNode::slot(name);
    node.kind = NodeKind::Slot(slot);
    node
}

fn producer(name: &str, runs: u64, bundles: &[(PStatus, u64)]) -> GraphNode {
    let mut producer = ProducerNode::default();
    (producer.runs, producer.bundles, producer.attached) = (runs, bundles.to_vec(), true);
    if bundles.iter().any(|(status, _)| *status == PStatus::Processing) {
        producer.running_since = ago(4);
    }
    if bundles.iter().any(|(status, _)| *status == PStatus::Failed) {
        producer.error = Some("no forward: 2 live pairs, 3 are needed".to_string());
    }
    let mut node = GraphNode::producer(name);
    node.kind = NodeKind::Producer(producer);
    node
}

/// A desk of twelve slots and nine producers: every state, every mode, a loop over an earlier date, a fallback.
pub fn desk() -> GraphView {
    use PStatus::{Declined, Done, Failed, Parked, Processing, Ready};
    use State::{Current, Invalid, Pending, Stale, Updated, Void};
    let mut view = GraphView::default();
    view.nodes = vec![
        slot("Market.Option.Chain", &[(Current, 1_318), (Updated, 22)], 2, 950_400),
        slot("Market.Rates", &[(Current, 11)], 1_980, 864_000),
        slot("Market.Dividends", &[(Current, 9), (Stale, 2)], 7_500, 691_200),
        slot("Static.Calendar", &[(Current, 1)], 31_000_000, 31_000_000),
        slot("Static.Override", &[], 0, 0),
        slot("Forward", &[(Current, 1_290), (Pending, 21), (Void, 12), (Invalid, 17)], 2, 950_000),
        slot("Volatility.Implied", &[(Current, 1_280), (Stale, 38), (Pending, 5)], 3, 950_000),
        slot("Smile.Vanilla", &[(Current, 1_240), (Stale, 78), (Invalid, 3)], 9, 949_000),
        slot("Smile.Residual", &[(Current, 1_240), (Stale, 78)], 9, 949_000),
        slot("Surface.Vanilla", &[(Current, 10), (Stale, 1)], 86_500, 949_000),
        slot("Risk.Move", &[(Current, 10), (Void, 1)], 86_000, 860_000),
        slot("Report.Close", &[(Current, 9), (Pending, 1)], 600, 86_400),
        producer("forward_fitter", 1_340, &[(Done, 1_290), (Ready, 20), (Processing, 1), (Failed, 17)]),
        producer("implied_vol", 1_355, &[(Done, 1_280), (Parked, 38), (Ready, 5)]),
        producer("smile_fitter", 1_402, &[(Done, 1_240), (Parked, 78), (Failed, 3)]),
        producer("smile_fallback", 3, &[(Done, 3), (Declined, 1_337)]),
        producer("surface_builder", 10, &[(Done, 10), (Parked, 1)]),
        producer("move_against_yesterday", 11, &[(Done, 10), (Declined, 1)]),
        producer("dividends_from_forwards", 11, &[(Done, 11)]),
        producer("close", 10, &[(Done, 10)]),
        producer("archive", 0, &[]),
    ];
    if let Some(GraphNode { kind: NodeKind::Producer(archive), .. }) = view.nodes.last_mut() {
        archive.attached = false;
    }
    let input = |mode: Mode, lag: u32, broadcast: bool| EdgeRole::Input { mode, lag, broadcast };
    let (required, output) = (EdgeRole::REQUIRED, EdgeRole::OUTPUT);
    let optional = input(Mode::Optional, 0, false);
    let edges = [
        (0, 12, required),
        (1, 12, input(Mode::Required, 0, true)),
        (2, 12, optional),
        (12, 5, output),
        (0, 13, required),
        (5, 13, required),
        (13, 6, output),
        (6, 14, required),
        (4, 14, optional),
        (14, 7, EdgeRole::Output { priority: 10 }),
        (14, 8, output),
        (6, 15, required),
        (7, 15, input(Mode::Exclusive, 0, false)),
        (15, 7, EdgeRole::Output { priority: -1 }),
        (7, 16, required),
        (3, 16, input(Mode::Required, 0, true)),
        (16, 9, output),
        (9, 17, required),
        (9, 17, input(Mode::Optional, 1, false)),
        (17, 10, output),
        (5, 18, required),
        (2, 18, input(Mode::Optional, 1, false)),
        (18, 2, output),
        (9, 19, required),
        (10, 19, optional),
        (19, 11, output),
        (8, 20, required),
        (20, 11, EdgeRole::Output { priority: 5 }),
    ];
    view.edges = edges.into_iter().map(|(from, to, role)| GraphEdge::new(from, to, role)).collect();
    view.settle_levels();
    view
}

fn day(number: u32) -> Date {
    Date::from_ymd(2014, 6, number).unwrap_or(Date(0))
}

fn key(values: Vec<Value>) -> Key {
    Key::new(values).unwrap_or_else(|_| Key::empty())
}

/// A thousand cells: three slots by expiry, one by expiry, strike and right, and one by date alone.
pub fn thousand() -> CellGraph {
    let mut random = Random(4);
    let mut graph = CellGraph::default();
    graph.slots = ["Chain", "Forward", "Smile.Vanilla", "Contract.Greeks", "Surface.Vanilla"]
        .map(String::from)
        .to_vec();
    let expiries: Vec<Date> = (0..20).map(|week| Date(day(13).0 + 7 * week)).collect();
    let dates: Vec<Date> = (2..=13).filter(|d| !matches!(d, 7 | 8)).map(day).collect();
    let mut cell = |graph: &mut CellGraph, slot: usize, date: Date, key: Key| {
        let mut node = CellNode::new(slot, date.into(), key);
        node.state = match random.below(100) {
            0..=1 => State::Invalid,
            2..=7 => State::Stale,
            8..=9 => State::Void,
            10..=12 => State::Updated,
            13..=15 => State::Pending,
            _ => State::Current,
        };
        if node.state != State::Void {
            node.generation = 1 + random.below(4);
            node.last_updated = ago(random.below(900_000) as i64);
        }
        node.producer = Some(if slot == 0 { "client" } else { "desk" }.to_string());
        if node.state == State::Invalid {
            node.error = Some("no forward: 2 live pairs".to_string());
        }
        graph.cells.push(node);
        graph.cells.len() - 1
    };
    let mut of: Vec<(usize, Date, Date, usize)> = Vec::new();
    for slot in 0..3 {
        for date in &dates {
            // The first expiries expire.
            for (at, expiry) in expiries.iter().enumerate().filter(|(at, _)| (at + slot) % 9 != 4) {
                let made = cell(&mut graph, slot, *date, key(vec![Value::Date(*expiry)]));
                if slot > 0 && at > 0 {
                    of.push((slot, *date, *expiry, made));
                }
            }
        }
    }
    let rest = 1_000 - graph.cells.len() - dates.len();
    for at in 0..rest {
        let (date, at) = (dates[at * dates.len() / rest], at as i64);
        let right = if at % 2 == 0 { "call" } else { "put" };
        let values = vec![
            Value::Date(expiries[at as usize % 3]),
            Value::F64(90.0 + at as f64),
            Value::Utf8(right.into()),
        ];
        cell(&mut graph, 3, date, key(values));
    }
    for date in &dates {
        cell(&mut graph, 4, *date, Key::empty());
    }
    graph.cells.sort_by(|a, b| (a.slot, a.date, &a.key).cmp(&(b.slot, b.date, &b.key)));
    let at = |slot: usize, date: Date, expiry: Date| {
        let wanted = key(vec![Value::Date(expiry)]);
        graph.cells.iter().position(|c| c.slot == slot && c.date == date.into() && c.key == wanted)
    };
    let edges: Vec<CellEdge> = of
        .into_iter()
        .filter_map(|(slot, date, expiry, _)| {
            Some(CellEdge::new(at(slot - 1, date, expiry)?, at(slot, date, expiry)?, "desk"))
        })
        .collect();
    graph.edges = edges;
    graph
}

/// The cells of a date of a few slots, with what was made from what.
pub fn few() -> CellGraph {
    let whole = thousand();
    let mut graph = CellGraph::default();
    graph.slots = whole.slots.iter().take(3).cloned().collect();
    let last = Date(day(12).0 + 7 * 6);
    let wanted = |cell: &CellNode| {
        let expiry = cell.key.values().first().cloned();
        cell.slot < 3
            && cell.date == day(12).into()
            && matches!(expiry, Some(Value::Date(expiry)) if expiry.0 < last.0)
    };
    let kept: Vec<usize> = (0..whole.cells.len()).filter(|at| wanted(&whole.cells[*at])).collect();
    let place = |old: usize| kept.iter().position(|at| *at == old);
    graph.cells = kept.iter().map(|at| whole.cells[*at].clone()).collect();
    graph.edges = whole
        .edges
        .iter()
        .filter_map(|edge| Some(CellEdge::new(place(edge.from)?, place(edge.to)?, edge.producer.clone())))
        .collect();
    graph
}

/// Names that try to leave their place.
pub const HOSTILE: [&str; 8] = [
    "</svg><script>alert(1)</script>",
    "\" -> n0 [label=\"x\"]; }\n//",
    "\\N \\\" \\",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{202e}txt.exe\u{0}\u{ffff}\u{feff}",
    "&lt;&#0;&amp;]]>",
    "數據庫的一個非常長的名字數據庫的一個非常長的名字",
    "",
];

/// Slots, producers, errors and keys with such names.
pub fn hostile() -> (GraphView, CellGraph) {
    let mut view = GraphView::default();
    let mut cells = CellGraph::default();
    for (at, name) in HOSTILE.iter().enumerate() {
        view.nodes.push(slot(
            name,
            &[(State::Current, u64::MAX), (State::Invalid, 1)],
            i64::MIN / 4_000_000_000,
            0,
        ));
        let mut node = producer(name, u64::MAX, &[(PStatus::Failed, u64::MAX)]);
        if let NodeKind::Producer(producer) = &mut node.kind {
            producer.error = Some((*name).to_string());
        }
        view.nodes.push(node);
        view.edges.push(GraphEdge::new(2 * at, 2 * at + 1, EdgeRole::REQUIRED));
        view.edges.push(GraphEdge::new(
            2 * at + 1,
            (2 * at + 2) % 16,
            EdgeRole::Output { priority: i32::MIN },
        ));
        view.edges.push(GraphEdge::new(2 * at, 99, EdgeRole::REQUIRED));
        cells.slots.push((*name).to_string());
        for other in HOSTILE {
            let mut node = CellNode::new(at, day(2).into(), key(vec![(*name).into(), other.into()]));
            (node.state, node.error, node.producer) =
                (State::Invalid, Some(other.to_string()), Some(other.to_string()));
            cells.cells.push(node);
        }
        cells.edges.push(CellEdge::new(8 * at, 8 * at + 9, *name));
    }
    view.settle_levels();
    (view, cells)
}
