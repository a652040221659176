//! The order in which cells and bundles are settled, and the queue of those that are to be.
//!
//! Every slot and producer has a rank above all that it depends on by name. What depends on things of its own rank or
//! above (a cell of the slot for an earlier date, say) is lifted above them one by one: lift comes first, then rank.
//! So each edge leads from a lower place to a higher one.

use std::collections::BTreeMap;
use std::mem;

use super::Graph;
use super::bits::Bits;
use super::ids::{BundleId, CellId};
use super::pass::Pass;
use super::producer::Producer;

/// How often one lift may lift a bundle above what may hold it. Beyond, it is settled before that: it is looked at again
/// then, which costs time and nothing else.
const HOLD_LIFTS_MAX: u32 = 64;

/// Places that are kept from pass to pass.
const KEPT: usize = 512;

/// Which work comes first. A bundle's place in the queue tells its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// What changes now.
    Live,
    /// History that is worked off when nothing else is ready.
    Backfill,
}

impl Lane {
    /// Places of a backfill are above all others.
    const BACKFILL: u64 = 1 << 63;

    /// The lane of a place.
    pub fn of(order: u64) -> Lane {
        if order >= Lane::BACKFILL { Lane::Backfill } else { Lane::Live }
    }

    /// The number of a place in its lane.
    pub fn number(order: u64) -> u64 {
        order & !Lane::BACKFILL
    }

    /// A place in this lane.
    fn place(self, order: u64) -> u64 {
        match self {
            Lane::Live => order,
            Lane::Backfill => order | Lane::BACKFILL,
        }
    }
}

/// A place in the order of settling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub lift: u32,
    pub rank: u32,
}

/// What is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Cell(CellId),
    Bundle(BundleId),
}

/// What is to be done at one place.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket {
    pub place: Place,
    pub cells: Vec<CellId>,
    pub bundles: Vec<BundleId>,
    /// Cells whose state may differ.
    pub restate: Vec<CellId>,
}

/// Nodes to settle, each once, in buckets by place. Its memory is kept from pass to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// By rising place.
    buckets: Vec<Bucket>,
    /// Buckets before this have nothing to settle.
    first: usize,
    /// The bucket that got the last node: the next mostly goes there too.
    last: usize,
    cells: Bits,
    bundles: Bits,
    restated: Bits,
    /// Cells whose generation rose.
    risen: Bits,
}

impl Queue {
    fn bucket(&mut self, place: Place) -> &mut Bucket {
        if self.buckets.get(self.last).is_none_or(|bucket| bucket.place != place) {
            let found = self.buckets.binary_search_by_key(&place, |bucket| bucket.place);
            self.last = found.unwrap_or_else(|at| {
                self.buckets.insert(at, Bucket { place, ..Bucket::default() });
                self.first += usize::from(at < self.first);
                at
            });
        }
        &mut self.buckets[self.last]
    }

    /// The bucket of a place where there will be something to settle.
    fn bucket_to_settle(&mut self, place: Place) -> &mut Bucket {
        self.bucket(place);
        self.first = self.first.min(self.last);
        &mut self.buckets[self.last]
    }

    /// Adds a node, unless it is there. `place` is above that of what is being settled.
    #[inline]
    pub fn push(&mut self, place: Place, node: Node) {
        match node {
            Node::Cell(cell) if self.cells.insert(cell.at(), cell.at()) => {
                self.bucket_to_settle(place).cells.push(cell);
            }
            Node::Bundle(bundle) if self.bundles.insert(bundle.at(), bundle.at()) => {
                self.bucket_to_settle(place).bundles.push(bundle);
            }
            _ => {}
        }
    }

    /// Takes out the lowest place that has nodes, these in order. Its memory is to be given back.
    pub fn take(&mut self) -> Option<Bucket> {
        while let Some(bucket) = self.buckets.get_mut(self.first) {
            if bucket.cells.is_empty() && bucket.bundles.is_empty() {
                self.first += 1;
                continue;
            }
            let (mut cells, mut bundles) = (mem::take(&mut bucket.cells), mem::take(&mut bucket.bundles));
            cells.sort_unstable();
            bundles.sort_unstable();
            return Some(Bucket { place: bucket.place, cells, bundles, restate: Vec::new() });
        }
        None
    }

    /// A node that was taken out may come in again.
    pub fn release(&mut self, node: Node) {
        match node {
            Node::Cell(cell) => self.cells.remove(cell.at()),
            Node::Bundle(bundle) => self.bundles.remove(bundle.at()),
        };
    }

    /// Gives back what [`Queue::take`] gave, its nodes released.
    pub fn give_back(&mut self, mut taken: Bucket) {
        taken.cells.clear();
        taken.bundles.clear();
        let Ok(at) = self.buckets.binary_search_by_key(&taken.place, |bucket| bucket.place) else { return };
        let kept = &mut self.buckets[at];
        if kept.cells.is_empty() {
            kept.cells = taken.cells;
        }
        if kept.bundles.is_empty() {
            kept.bundles = taken.bundles;
        }
    }

    /// A cell whose state may differ.
    #[inline]
    pub fn restate(&mut self, place: Place, cell: CellId) {
        if self.restated.insert(cell.at(), cell.at()) {
            self.bucket(place).restate.push(cell);
        }
    }

    /// How many cells there are whose state may differ.
    pub fn restated(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.restate.len()).sum()
    }

    /// Takes out the cells whose state may differ, sources before what depends on them, in portions of which each has a
    /// number, from 0 on. Their memory is to be given back.
    pub fn take_restated(&mut self, number: usize) -> Option<Vec<CellId>> {
        let mut cells = mem::take(&mut self.buckets.get_mut(number)?.restate);
        cells.sort_unstable();
        Some(cells)
    }

    /// Gives back what [`Queue::take_restated`] gave.
    pub fn give_back_restated(&mut self, number: usize, mut cells: Vec<CellId>) {
        for cell in cells.drain(..) {
            self.restated.remove(cell.at());
        }
        if let Some(bucket) = self.buckets.get_mut(number) {
            bucket.restate = cells;
        }
    }

    /// Ends a pass: gives up the memory of its places where they are many, since each is looked at in every pass.
    pub fn end(&mut self) {
        if self.buckets.len() > KEPT {
            (self.buckets, self.first, self.last) = (Vec::new(), 0, 0);
        }
    }

    /// A cell's generation rose.
    pub fn rise(&mut self, cell: CellId) {
        self.risen.insert(cell.at(), cell.at());
    }

    /// Whether a cell's generation rose, asked once.
    pub fn take_risen(&mut self, cell: CellId) -> bool {
        self.risen.remove(cell.at())
    }
}

impl Graph {
    /// The next place in the queue.
    pub(super) fn next_order(&mut self, pass: &Pass) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        pass.lane.unwrap_or(Lane::Live).place(order)
    }

    /// Gives a bundle its place in the queue, in which it is not.
    pub(super) fn set_order(&mut self, id: BundleId, order: u64) {
        self.bundle_mut(id).order = order;
        self.tallies[id.at()].lane = Lane::of(order);
    }

    pub(super) fn place_of_cell(&self, cell: CellId) -> Place {
        let cell = &self.cells[cell.at()];
        Place { lift: cell.lift, rank: self.slots[cell.slot.at()].rank }
    }

    pub(super) fn place_of_bundle(&self, bundle: BundleId) -> Place {
        let tally = &self.tallies[bundle.at()];
        Place { lift: tally.lift, rank: self.producers[tally.producer.at()].rank }
    }

    /// Lifts a bundle above a cell from which it has an edge, and with it what depends on it.
    pub(super) fn lift_above(&mut self, bundle: BundleId, source: CellId) {
        if self.place_of_cell(source) >= self.place_of_bundle(bundle) {
            self.lift(Node::Bundle(bundle), self.lift_over(source, bundle));
        }
    }

    /// The lift at which a bundle is above a cell.
    fn lift_over(&self, source: CellId, bundle: BundleId) -> u32 {
        let (source, bundle) = (self.place_of_cell(source), self.place_of_bundle(bundle));
        source.lift + u32::from(source.rank >= bundle.rank)
    }

    /// Lifts a node at least so far, and what depends on it above it.
    pub(super) fn lift(&mut self, node: Node, lift: u32) {
        let mut left = vec![(node, lift)];
        // How often a bundle was lifted above what may hold it. Edges have no circle; with holds, which follow from names, they may.
        let mut above_holds: BTreeMap<BundleId, u32> = BTreeMap::new();
        while let Some((node, lift)) = left.pop() {
            if self.place(node).lift >= lift {
                continue;
            }
            match node {
                Node::Bundle(id) => {
                    self.bundle_mut(id);
                    self.tallies[id.at()].lift = lift;
                    left.extend(self.tallies[id.at()].outputs.iter().map(|cell| (Node::Cell(cell), lift)));
                    for (held, lift) in self.note_lift(id) {
                        let times = above_holds.entry(held).or_insert(0);
                        *times += 1;
                        if *times <= HOLD_LIFTS_MAX {
                            left.push((Node::Bundle(held), lift));
                        }
                    }
                }
                Node::Cell(id) => {
                    self.cell_mut(id).lift = lift;
                    let readers = self.cells[id.at()].readers.bundles();
                    left.extend(readers.map(|bundle| (Node::Bundle(bundle), self.lift_over(id, bundle))));
                }
            }
        }
    }

    /// Lifts what reads cells of earlier dates, or what runs reported, and what such work may hold, after ranks have changed.
    pub(super) fn lift_all(&mut self) {
        let lagged = self.producers.iter().filter(|producer| producer.reads_earlier());
        let mut readers: Vec<BundleId> = lagged.flat_map(|p| p.all_bundles()).collect();
        if self.reporting > 0 {
            let all = (0..self.bundles.len() as u32).map(BundleId);
            readers.extend(all.filter(|bundle| self.bundles[bundle.at()].reported.is_some()));
        }
        for bundle in readers {
            for source in self.bundles[bundle.at()].sources.iter().collect::<Vec<_>>() {
                self.lift_above(bundle, source);
            }
        }
        for producer in 0..self.producers.len() {
            if !self.producers[producer].holds.is_empty() {
                let held: Vec<BundleId> = self.producers[producer].all_bundles().collect();
                held.into_iter().for_each(|bundle| self.lift_above_holds(bundle));
            }
        }
    }

    /// The first bundle that is not above what it reads and below what it gives. Where nothing is lifted and nothing reads
    /// earlier dates or reports reads, ranks see to that.
    pub(super) fn misplaced(&self) -> Option<BundleId> {
        let lifted = self.cells.iter().any(|cell| cell.lift > 0) || self.tallies.iter().any(|t| t.lift > 0);
        if !lifted && self.reporting == 0 && !self.producers.iter().any(Producer::reads_earlier) {
            return None;
        }
        let is_misplaced = |id: &BundleId| {
            let (bundle, place) = (&self.bundles[id.at()], self.place_of_bundle(*id));
            bundle.sources.iter().any(|cell| self.place_of_cell(cell) >= place)
                || self.tallies[id.at()].outputs.iter().any(|cell| self.place_of_cell(cell) <= place)
        };
        (0..self.bundles.len() as u32).map(BundleId).find(is_misplaced)
    }

    pub(super) fn place(&self, node: Node) -> Place {
        match node {
            Node::Cell(cell) => self.place_of_cell(cell),
            Node::Bundle(bundle) => self.place_of_bundle(bundle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Passes in which each node that is settled touches others above it, against a sorted set.
        #[test]
        fn nodes_come_by_rising_place_each_once(
            places in prop::collection::vec((0..3u32, 0..4u32), 1..40),
            passes in prop::collection::vec(prop::collection::vec((any::<bool>(), 0..40usize), 1..30), 1..4),
        ) {
            let node = |at: usize| match places[at].1 % 2 {
                0 => Node::Cell(CellId(at as u32)),
                _ => Node::Bundle(BundleId(at as u32)),
            };
            let place = |at: usize| Place { lift: places[at].0, rank: places[at].1 };
            let number = |node: Node| match node {
                Node::Cell(cell) => cell.at(),
                Node::Bundle(bundle) => bundle.at(),
            };
            let mut queue = Queue::default();
            for touches in passes {
                let mut expected: BTreeSet<(Place, Node)> = BTreeSet::new();
                let mut left = touches.into_iter().map(|(later, at)| (later, at % places.len()));
                let mut later = Vec::new();
                for (is_later, at) in left.by_ref() {
                    if is_later {
                        later.push(at);
                    } else {
                        queue.push(place(at), node(at));
                        expected.insert((place(at), node(at)));
                    }
                }
                while let Some(bucket) = queue.take() {
                    let (at, cells) = (bucket.place, bucket.cells.iter().map(|cell| Node::Cell(*cell)));
                    for node_now in cells.chain(bucket.bundles.iter().map(|bundle| Node::Bundle(*bundle))) {
                        queue.release(node_now);
                        prop_assert_eq!(expected.pop_first(), Some((at, node_now)));
                        for above in later.iter().copied().filter(|above| place(*above) > at) {
                            if (above + number(node_now)) % 3 == 0 {
                                queue.push(place(above), node(above));
                                expected.insert((place(above), node(above)));
                            }
                        }
                    }
                    queue.give_back(bucket);
                }
                prop_assert!(expected.is_empty());
            }
        }
    }
}
