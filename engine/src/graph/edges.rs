//! The edges of a bundle: from which cells, as which inputs, and which generations were read.
//!
//! A bundle owns its edges; a cell knows which bundles read it. Class and obligation of an edge are not stored: they
//! follow from its token, its input, the cell and the bundle, and whoever changes one of these moves the counts from
//! what they were to what they are.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::ids::{BundleId, CellId};

/// The name of an edge among those of its bundle; by source, then by input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EdgeKey {
    pub source: CellId,
    /// Position among the producer's inputs.
    pub input: u16,
}

/// Edges beyond which a bundle keeps them in a tree, in which one may come or go without moving the others.
const FEW: usize = 256;

/// The token that stands for nothing read: generations of what can be read begin at 1.
const NONE: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    key: EdgeKey,
    token: u64,
}

/// Edges in the order of their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Edges {
    /// All of them while they are few, in order; none otherwise.
    few: Vec<Edge>,
    many: Option<BTreeMap<EdgeKey, u64>>,
}

fn token(stored: u64) -> Option<u64> {
    (stored != NONE).then_some(stored)
}

impl Edges {
    pub fn len(&self) -> usize {
        self.many.as_ref().map_or(self.few.len(), |many| many.len())
    }

    /// All edges with their tokens, in order.
    pub fn iter(&self) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + Clone + '_ {
        let few = self.few.iter().map(|edge| (edge.key, token(edge.token)));
        few.chain(self.many.iter().flat_map(|many| many.iter().map(|(key, stored)| (*key, token(*stored)))))
    }

    /// The edges behind this one, in order.
    pub fn after(&self, key: Option<EdgeKey>) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + '_ {
        let at = key.map_or(0, |key| self.few.partition_point(|edge| edge.key <= key));
        let few = self.few.get(at..).unwrap_or_default().iter().map(|edge| (edge.key, edge.token));
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let many = self.many.iter().flat_map(move |many| many.range((from, Bound::Unbounded)));
        few.chain(many.map(|(key, stored)| (*key, *stored))).map(|(key, stored)| (key, token(stored)))
    }

    /// The edges from one cell.
    pub fn of(&self, source: CellId) -> impl Iterator<Item = (EdgeKey, Option<u64>)> + '_ {
        let first = EdgeKey { source, input: 0 };
        let at = self.few.partition_point(|edge| edge.key < first);
        let few = self.few.get(at..).unwrap_or_default().iter().map(|edge| (edge.key, edge.token));
        let few = few.take_while(move |(key, _)| key.source == source);
        let last = EdgeKey { source, input: u16::MAX };
        let many = self.many.iter().flat_map(move |many| many.range(first..=last).map(|(key, t)| (*key, *t)));
        few.chain(many).map(|(key, stored)| (key, token(stored)))
    }

    /// Cells behind the edges, each once, in order.
    pub fn sources(&self) -> impl Iterator<Item = CellId> + '_ {
        let mut before = None;
        self.iter().map(|(key, _)| key.source).filter(move |source| before.replace(*source) != Some(*source))
    }

    /// Adds an edge that has read nothing. False where it is there already.
    pub fn insert(&mut self, key: EdgeKey) -> bool {
        if let Some(many) = &mut self.many {
            return match many.entry(key) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(NONE);
                    true
                }
                std::collections::btree_map::Entry::Occupied(_) => false,
            };
        }
        let Err(at) = self.few.binary_search_by_key(&key, |edge| edge.key) else { return false };
        self.few.insert(at, Edge { key, token: NONE });
        if self.few.len() > FEW {
            let many = std::mem::take(&mut self.few).into_iter().map(|edge| (edge.key, edge.token));
            self.many = Some(many.collect());
        }
        true
    }

    /// Removes an edge; its token, where it was there.
    pub fn remove(&mut self, key: EdgeKey) -> Option<Option<u64>> {
        if let Some(many) = &mut self.many {
            return many.remove(&key).map(token);
        }
        let at = self.few.binary_search_by_key(&key, |edge| edge.key).ok()?;
        Some(token(self.few.remove(at).token))
    }

    /// Sets what an edge has read. False where there is no such edge.
    pub fn set_token(&mut self, key: EdgeKey, read: Option<u64>) -> bool {
        let stored = match &mut self.many {
            Some(many) => many.get_mut(&key),
            None => match self.few.binary_search_by_key(&key, |edge| edge.key) {
                Ok(at) => self.few.get_mut(at).map(|edge| &mut edge.token),
                Err(_) => None,
            },
        };
        stored.map(|stored| *stored = read.unwrap_or(NONE)).is_some()
    }

    /// Gives every edge the token that `read` says; `read` is asked in order, and told the token before.
    pub fn retoken(&mut self, mut read: impl FnMut(EdgeKey, Option<u64>) -> Option<u64>) {
        let few = self.few.iter_mut().map(|edge| (edge.key, &mut edge.token));
        for (key, stored) in few {
            *stored = read(key, token(*stored)).unwrap_or(NONE);
        }
        for (key, stored) in self.many.iter_mut().flat_map(|many| many.iter_mut()) {
            *stored = read(*key, token(*stored)).unwrap_or(NONE);
        }
    }
}

/// The bundles that have an edge from a cell, in order, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers {
    bundles: Vec<BundleId>,
}

impl Readers {
    pub fn iter(&self) -> impl Iterator<Item = BundleId> + '_ {
        self.bundles.iter().copied()
    }

    pub fn insert(&mut self, bundle: BundleId) {
        // New bundles have the highest number.
        if self.bundles.last().is_none_or(|last| *last < bundle) {
            self.bundles.push(bundle);
        } else if let Err(at) = self.bundles.binary_search(&bundle) {
            self.bundles.insert(at, bundle);
        }
    }

    pub fn remove(&mut self, bundle: BundleId) {
        if let Ok(at) = self.bundles.binary_search(&bundle) {
            self.bundles.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(source: u32, input: u16) -> EdgeKey {
        EdgeKey { source: CellId(source), input }
    }

    proptest! {
        #[test]
        fn edges_are_a_map(steps in prop::collection::vec((0..3u8, 0..400u32, 0..2u16, 0..3u64), 0..900), many in any::<bool>()) {
            let mut edges = Edges::default();
            let mut map: BTreeMap<EdgeKey, Option<u64>> = BTreeMap::new();
            for source in 0..if many { 300 } else { 0 } {
                prop_assert!(edges.insert(key(source, 0)));
                map.insert(key(source, 0), None);
            }
            for (step, source, input, read) in steps {
                let (at, read) = (key(source, input), (read > 0).then_some(read));
                match step {
                    0 => prop_assert_eq!(edges.remove(at), map.remove(&at)),
                    1 => {
                        let found = map.get_mut(&at).map(|token| *token = read).is_some();
                        prop_assert_eq!(edges.set_token(at, read), found);
                    }
                    _ => {
                        prop_assert_eq!(edges.insert(at), !map.contains_key(&at));
                        map.entry(at).or_default();
                    }
                }
                prop_assert!(edges.of(CellId(source)).eq(map.range(key(source, 0)..=key(source, 9)).map(|(k, t)| (*k, *t))));
                let behind = map.range((Bound::Excluded(at), Bound::Unbounded)).map(|(k, t)| (*k, *t));
                prop_assert!(edges.after(Some(at)).eq(behind));
                prop_assert_eq!(edges.len(), map.len());
            }
            prop_assert!(edges.after(None).eq(edges.iter()));
            prop_assert!(edges.iter().eq(map.iter().map(|(k, t)| (*k, *t))));
            let sources: std::collections::BTreeSet<CellId> = map.keys().map(|key| key.source).collect();
            prop_assert!(edges.sources().eq(sources));
            edges.retoken(|key, before| if key.input == 0 { before.map(|t| t + 1) } else { None });
            let moved = map.iter().map(|(k, t)| (*k, if k.input == 0 { t.map(|t| t + 1) } else { None }));
            prop_assert!(edges.iter().eq(moved));
        }

        #[test]
        fn readers_are_a_set(steps in prop::collection::vec((any::<bool>(), 0..60u32), 0..200)) {
            let mut readers = Readers::default();
            let mut set = std::collections::BTreeSet::new();
            for (comes, bundle) in steps {
                let bundle = BundleId(bundle);
                if comes {
                    readers.insert(bundle);
                    set.insert(bundle);
                } else {
                    readers.remove(bundle);
                    set.remove(&bundle);
                }
                prop_assert!(readers.iter().eq(set.iter().copied()));
            }
        }
    }
}
