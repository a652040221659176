//! A set of cells.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::ids::CellId;

/// Cells beyond which they are kept in a tree, in which one may come or go without moving the others.
const FEW: usize = 256;

/// A set of cells, in order. Most have one or few.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    One(CellId),
    Few(Vec<CellId>),
    Many(BTreeSet<CellId>),
}

impl Default for Cells {
    fn default() -> Cells {
        Cells::Few(Vec::new())
    }
}

impl Cells {
    /// The cells from here on.
    pub fn from(&self, first: Bound<CellId>) -> impl Iterator<Item = CellId> + Clone + '_ {
        let (few, many) = match self {
            Cells::One(cell) => (std::slice::from_ref(cell), None),
            Cells::Few(few) => (few.as_slice(), None),
            Cells::Many(many) => (&[][..], Some(many.range((first, Bound::Unbounded)))),
        };
        let at = match first {
            Bound::Unbounded => 0,
            Bound::Included(first) => few.partition_point(|cell| *cell < first),
            Bound::Excluded(first) => few.partition_point(|cell| *cell <= first),
        };
        few.iter().skip(at).chain(many.into_iter().flatten()).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = CellId> + Clone + '_ {
        self.from(Bound::Unbounded)
    }

    pub fn contains(&self, cell: CellId) -> bool {
        match self {
            Cells::One(one) => *one == cell,
            Cells::Few(few) => few.binary_search(&cell).is_ok(),
            Cells::Many(many) => many.contains(&cell),
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        if let Cells::Few(few) = self
            && more > 1
        {
            few.reserve_exact(more.min(FEW));
        }
    }

    pub fn insert(&mut self, cell: CellId) {
        match self {
            Cells::Few(few) if few.capacity() == 0 => *self = Cells::One(cell),
            Cells::One(one) if *one == cell => {}
            Cells::One(one) => {
                let both = vec![(*one).min(cell), (*one).max(cell)];
                *self = Cells::Few(both);
            }
            Cells::Few(few) => {
                let Err(at) = few.binary_search(&cell) else { return };
                few.insert(at, cell);
                if few.len() > FEW {
                    *self = Cells::Many(std::mem::take(few).into_iter().collect());
                }
            }
            Cells::Many(many) => {
                many.insert(cell);
            }
        }
    }

    pub fn remove(&mut self, cell: CellId) {
        match self {
            Cells::One(one) if *one == cell => *self = Cells::default(),
            Cells::One(_) => {}
            Cells::Few(few) => {
                if let Ok(at) = few.binary_search(&cell) {
                    few.remove(at);
                }
            }
            Cells::Many(many) => {
                many.remove(&cell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_of_cells_is_a_set(
            steps in prop::collection::vec((0..4u8, 0..20u32), 0..60),
            many in prop::bool::weighted(0.2),
            room in 0..9usize,
        ) {
            let mut cells = Cells::default();
            let mut set = BTreeSet::new();
            cells.reserve(room);
            for cell in (10..if many { 400 } else { 10 }).map(CellId) {
                cells.insert(cell);
                set.insert(cell);
            }
            for (step, cell) in steps {
                let cell = CellId(cell);
                if step == 0 {
                    cells.remove(cell);
                    set.remove(&cell);
                } else {
                    cells.insert(cell);
                    set.insert(cell);
                }
                prop_assert!(cells.iter().eq(set.iter().copied()));
                prop_assert_eq!(cells.contains(cell), set.contains(&cell));
                for first in [Bound::Included(cell), Bound::Excluded(cell)] {
                    prop_assert!(cells.from(first).eq(set.range((first, Bound::Unbounded)).copied()));
                }
            }
        }
    }
}
