//! The edges between cells and bundles: which bundle reads which cell, as which input, and what it has read of it.
//!
//! A cell keeps the edges that begin at it, so that a change of the cell reaches all of them in one sweep of memory; a
//! bundle knows the cells from which it has edges. Class and obligation of an edge are not stored: they follow from what
//! was read, from its input, the cell and the bundle, and whoever changes one of these moves the counts from what they
//! were to what they are.

use std::ops::{Bound, Range};

use hashbrown::HashMap;

use super::Graph;
use super::cell::Cell;
use super::cells::Cells;
use super::class::Need;
use super::ids::{BundleId, CellId};
use super::reads::REPORTED;
use super::register::DEFINITION_PARTS_MAX;

/// The name of an edge among those of its bundle; by source, then by input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EdgeKey {
    pub source: CellId,
    /// Position among the producer's inputs.
    pub input: u16,
}

/// What the last run of a bundle read of a cell, as far as it matters to the class of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// A generation before the one that is there.
    Older,
    Current,
}

/// An edge, as its source keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    pub bundle: BundleId,
    /// The input in twelve bits, then what it asks of the cell in four.
    port: u16,
    /// How many generations what was read is behind; or [`NOTHING`], or [`FAR`].
    age: u16,
}

const _: () = assert!(size_of::<Reader>() == 8);

/// The age of an edge over which nothing was read.
const NOTHING: u16 = u16::MAX;
/// The age from which on [`Far`] tells what was read.
const FAR: u16 = u16::MAX - 1;

/// Twelve bits, of which all are set where a run reported the edge.
const PORT_INPUT: u16 = 0xfff;
const _: () = assert!(DEFINITION_PARTS_MAX <= PORT_INPUT as usize);

impl Reader {
    fn new(bundle: BundleId, input: u16, need: Need) -> Reader {
        Reader { bundle, port: input.min(PORT_INPUT) | need.bits() << 12, age: NOTHING }
    }

    pub fn input(self) -> u16 {
        match self.port & PORT_INPUT {
            PORT_INPUT => REPORTED,
            input => input,
        }
    }

    /// What it asks of the cell.
    pub fn need(self) -> Need {
        Need::from_bits(self.port >> 12)
    }

    pub fn known(self) -> Known {
        match self.age {
            NOTHING => Known::Nothing,
            0 => Known::Current,
            _ => Known::Older,
        }
    }

    /// The same before the generation rose for the last time.
    pub fn known_before(self) -> Known {
        match self.age {
            1 => Known::Current,
            _ => self.known(),
        }
    }
}

/// What was read over the edges that are too far behind to tell themselves.
pub(super) type Far = HashMap<(BundleId, EdgeKey), u64>;

/// The edges that begin at a cell, by bundle, then by input.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    edges: Vec<Reader>,
}

impl Readers {
    pub fn edges(&self) -> &[Reader] {
        &self.edges
    }

    /// The bundles at the ends of the edges, each once, in order.
    pub fn bundles(&self) -> impl Iterator<Item = BundleId> + Clone + '_ {
        let mut before = None;
        let bundles = self.edges.iter().map(|edge| edge.bundle);
        bundles.filter(move |bundle| before.replace(*bundle) != Some(*bundle))
    }

    fn places(&self, bundle: BundleId) -> Range<usize> {
        let first = self.edges.partition_point(|edge| edge.bundle < bundle);
        let own = self.edges.iter().skip(first).take_while(|edge| edge.bundle == bundle).count();
        first..first + own
    }

    /// The edges to one bundle.
    pub fn of(&self, bundle: BundleId) -> &[Reader] {
        self.edges.get(self.places(bundle)).unwrap_or_default()
    }

    fn find(&self, bundle: BundleId, input: u16) -> Result<usize, usize> {
        match self.edges.last() {
            Some(last) if (last.bundle, last.input()) >= (bundle, input) => {
                self.edges.binary_search_by_key(&(bundle, input), |edge| (edge.bundle, edge.input()))
            }
            // New bundles have the highest number.
            _ => Err(self.edges.len()),
        }
    }

    /// Adds an edge over which nothing was read. False where it is there already.
    fn insert(&mut self, bundle: BundleId, input: u16, need: Need) -> bool {
        let Err(at) = self.find(bundle, input) else { return false };
        if self.edges.len() == self.edges.capacity() {
            // There are many of these, so that little room stays empty.
            self.edges.reserve_exact((self.edges.len() / 4).max(2));
        }
        self.edges.insert(at, Reader::new(bundle, input, need));
        true
    }
}

/// All edges, to look at.
#[derive(Clone, Copy)]
pub(super) struct Edges<'g> {
    pub cells: &'g [Cell],
    pub far: &'g Far,
}

impl<'g> Edges<'g> {
    /// The generation that was read over an edge.
    fn token(self, source: CellId, edge: Reader) -> Option<u64> {
        match edge.age {
            NOTHING => None,
            FAR => self.far.get(&(edge.bundle, EdgeKey { source, input: edge.input() })).copied(),
            age => Some(self.cells.get(source.at())?.g.saturating_sub(u64::from(age))),
        }
    }

    /// The edges from a cell to a bundle, each with the generation that was read.
    pub fn between(
        self,
        source: CellId,
        bundle: BundleId,
    ) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + Clone + 'g {
        let edges = self.cells.get(source.at()).map_or(&[][..], |cell| cell.readers.of(bundle));
        edges.iter().map(move |edge| (EdgeKey { source, input: edge.input() }, self.token(source, *edge)))
    }

    /// The edges from these cells to a bundle, in order.
    pub fn into(
        self,
        bundle: BundleId,
        sources: &'g Cells,
    ) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + Clone + 'g {
        sources.iter().flat_map(move |source| self.between(source, bundle))
    }
}

impl Graph {
    /// All edges, to look at.
    pub(super) fn edges(&self) -> Edges<'_> {
        Edges { cells: &self.cells, far: &self.far }
    }

    /// The edges of a bundle in order, each with the generation that was read.
    pub(super) fn edges_of(&self, id: BundleId) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + Clone + '_ {
        self.edges().into(id, &self.bundles[id.at()].sources)
    }

    /// The edges of a bundle behind this one, in order.
    pub(super) fn edges_after(
        &self,
        id: BundleId,
        after: Option<EdgeKey>,
    ) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + '_ {
        let first = after.map_or(Bound::Unbounded, |edge| Bound::Included(edge.source));
        let sources = self.bundles.get(id.at()).map(|bundle| bundle.sources.from(first));
        let edges = sources.into_iter().flatten().flat_map(move |source| self.edges().between(source, id));
        edges.filter(move |(edge, _)| after.is_none_or(|after| *edge > after))
    }

    /// Makes an edge over which nothing was read. False where it is there already.
    pub(super) fn insert_edge(&mut self, bundle: BundleId, key: EdgeKey, need: Need) -> bool {
        let is_new = self.cells[key.source.at()].readers.insert(bundle, key.input, need);
        if is_new {
            self.bundles[bundle.at()].sources.insert(key.source);
        }
        is_new
    }

    /// Removes an edge; what was read over it, where it was there.
    pub(super) fn delete_edge(&mut self, bundle: BundleId, key: EdgeKey) -> Option<Known> {
        let readers = &mut self.cells[key.source.at()].readers;
        let edge = readers.edges.remove(readers.find(bundle, key.input).ok()?);
        if readers.of(bundle).is_empty() {
            self.bundles[bundle.at()].sources.remove(key.source);
        }
        if edge.age == FAR {
            self.far.remove(&(bundle, key));
        }
        Some(edge.known())
    }

    /// Sets the generation that was read over an edge; what was read before and what now, of the generation that is there.
    /// `None` where there is no such edge, or was no such generation.
    pub(super) fn set_token(
        &mut self,
        bundle: BundleId,
        key: EdgeKey,
        token: Option<u64>,
    ) -> Option<(Known, Known)> {
        let cell = &mut self.cells[key.source.at()];
        let at = cell.readers.find(bundle, key.input).ok()?;
        let age = match token {
            Some(token) => u16::try_from(cell.g.checked_sub(token)?).unwrap_or(FAR).min(FAR),
            None => NOTHING,
        };
        let edge = cell.readers.edges.get_mut(at)?;
        let before = *edge;
        edge.age = age;
        let now = *edge;
        match token.filter(|_| now.age == FAR) {
            Some(token) => self.far.insert((bundle, key), token),
            None if before.age == FAR => self.far.remove(&(bundle, key)),
            None => None,
        };
        Some((before.known(), now.known()))
    }

    /// The generation of a cell has risen: what its readers have read is one more behind.
    pub(super) fn age_edges(&mut self, source: CellId) {
        let cell = &mut self.cells[source.at()];
        self.far.reserve(cell.readers.edges.iter().filter(|edge| edge.age == FAR - 1).count());
        for edge in cell.readers.edges.iter_mut().filter(|edge| edge.age < FAR) {
            edge.age += 1;
            if edge.age == FAR {
                let token = cell.g.saturating_sub(u64::from(FAR));
                self.far.insert((edge.bundle, EdgeKey { source, input: edge.input() }), token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use underbelly_storage::Date;

    use crate::graph::bundle::{Bundle, Tally};
    use crate::graph::{Key, ProducerId, SlotDate, SlotId};

    const BUNDLES: u32 = 3;

    /// Cells of generation 1 and bundles, without edges.
    fn apart(cells: u32) -> Graph {
        let date = SlotDate::Day(Date(0));
        let mut graph = Graph::new();
        for _ in 0..cells {
            let mut cell = Cell::new(SlotId(0));
            cell.g = 1;
            graph.cells.push(cell);
        }
        for _ in 0..BUNDLES {
            graph.bundles.push(Bundle::new(ProducerId(0), date, Key::empty(), 0));
            graph.tallies.push(Tally::new(ProducerId(0)));
        }
        graph
    }

    fn rise(graph: &mut Graph, cell: u32, times: u32) {
        for _ in 0..times {
            graph.cells[cell as usize].g += 1;
            graph.age_edges(CellId(cell));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u32, u16),
        Remove(u32, u32, u16),
        /// How many generations before the one that is there was read.
        Read(u32, u32, u16, Option<u64>),
        Rise(u32, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let edge = || (0..BUNDLES, 0..300u32, prop_oneof![0..3u16, Just(REPORTED)]);
        let rises = prop_oneof![20 => 1..3u32, 1 => Just(40_000u32)];
        let step = prop_oneof![
            8 => edge().prop_map(|(bundle, cell, input)| Step::Insert(bundle, cell, input)),
            3 => edge().prop_map(|(bundle, cell, input)| Step::Remove(bundle, cell, input)),
            6 => (edge(), prop::option::of(0..3u64)).prop_map(|((b, c, i), behind)| Step::Read(b, c, i, behind)),
            3 => (0..4u32, rises).prop_map(|(cell, times)| Step::Rise(cell, times)),
        ];
        prop::collection::vec(step, 0..200)
    }

    type Model = BTreeMap<(BundleId, EdgeKey), Option<u64>>;

    fn check(graph: &Graph, model: &Model) -> Result<(), TestCaseError> {
        for bundle in (0..BUNDLES).map(BundleId) {
            let own: Vec<_> =
                model.iter().filter(|((of, _), _)| *of == bundle).map(|((_, edge), t)| (*edge, *t)).collect();
            prop_assert!(graph.edges_of(bundle).eq(own.iter().copied()));
            let half = own.get(own.len() / 2).map(|(edge, _)| *edge);
            let behind = own.iter().copied().filter(|(edge, _)| half.is_none_or(|half| *edge > half));
            prop_assert!(graph.edges_after(bundle, half).eq(behind));
        }
        for ((bundle, key), token) in model {
            let cell = &graph.cells[key.source.at()];
            let edge = cell.readers.of(*bundle).iter().find(|edge| edge.input() == key.input);
            let expected = match token {
                None => Known::Nothing,
                Some(token) if *token == cell.g => Known::Current,
                Some(_) => Known::Older,
            };
            prop_assert_eq!(edge.map(|edge| edge.known()), Some(expected));
        }
        let readers = |cell: &Cell| cell.readers.edges().len();
        prop_assert_eq!(graph.cells.iter().map(readers).sum::<usize>(), model.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn edges_are_a_map(many in any::<bool>(), steps in steps()) {
            let mut graph = apart(300);
            let mut model = Model::new();
            for source in (0..if many { 300 } else { 0 }).map(CellId) {
                let key = EdgeKey { source, input: 0 };
                prop_assert!(graph.insert_edge(BundleId(1), key, Need::default()));
                model.insert((BundleId(1), key), None);
            }
            for step in steps {
                let key = |cell, input| EdgeKey { source: CellId(cell), input };
                match step {
                    Step::Insert(bundle, cell, input) => {
                        let at = (BundleId(bundle), key(cell, input));
                        prop_assert_eq!(graph.insert_edge(at.0, at.1, Need::default()), !model.contains_key(&at));
                        model.entry(at).or_default();
                    }
                    Step::Remove(bundle, cell, input) => {
                        let at = (BundleId(bundle), key(cell, input));
                        prop_assert_eq!(graph.delete_edge(at.0, at.1).is_some(), model.remove(&at).is_some());
                    }
                    Step::Read(bundle, cell, input, behind) => {
                        let at = (BundleId(bundle), key(cell, input));
                        let token = behind.map(|behind| graph.cells[cell as usize].g.saturating_sub(behind).max(1));
                        let found = model.get_mut(&at).map(|read| *read = token).is_some();
                        prop_assert_eq!(graph.set_token(at.0, at.1, token).is_some(), found);
                        let newer = graph.cells[cell as usize].g + 1;
                        prop_assert_eq!(graph.set_token(at.0, at.1, Some(newer)), None);
                    }
                    Step::Rise(cell, times) => rise(&mut graph, cell, times),
                }
            }
            check(&graph, &model)?;
            let far = model.iter().filter(|((_, edge), token)| {
                token.is_some_and(|token| graph.cells[edge.source.at()].g - token >= u64::from(FAR))
            });
            prop_assert_eq!(graph.far.len(), far.count());
        }
    }

    #[test]
    fn what_is_far_behind_is_still_known() {
        let mut graph = apart(1);
        let key = EdgeKey { source: CellId(0), input: 7 };
        assert!(graph.insert_edge(BundleId(2), key, Need::OF_READS));
        assert!(graph.set_token(BundleId(2), key, Some(1)).is_some());
        for times in [u32::from(FAR) - 1, 1, 1, 70_000] {
            rise(&mut graph, 0, times);
            assert_eq!(graph.edges_of(BundleId(2)).collect::<Vec<_>>(), [(key, Some(1))]);
        }
        assert_eq!(graph.far.len(), 1);
        assert!(graph.set_token(BundleId(2), key, Some(2)).is_some());
        assert_eq!(graph.edges_of(BundleId(2)).collect::<Vec<_>>(), [(key, Some(2))]);
        assert_eq!(graph.delete_edge(BundleId(2), key), Some(Known::Older));
        assert!(graph.far.is_empty());
    }
}
