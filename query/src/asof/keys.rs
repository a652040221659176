//! The keys of both inputs by dense numbers, and what they are.

use underbelly_storage::Column;

use crate::QueryError;
use crate::ids::KeyIds;
use crate::lane::Batch;

/// The keys that were seen so far.
pub(super) struct Keys {
    ids: KeyIds,
    /// By their numbers, as [`encode`](crate::key::encode) has them.
    seen: Vec<Box<[u8]>>,
}

impl Keys {
    /// No key yet, for key columns of which these are examples.
    pub(super) fn new(columns: &[&Column]) -> Keys {
        Keys { ids: KeyIds::new(columns), seen: Vec::new() }
    }

    /// Puts the numbers of the rows' keys, which stand at these positions, into `to`.
    pub(super) fn number(
        &mut self,
        rows: &Batch<'_>,
        positions: &[usize],
        to: &mut Vec<u32>,
    ) -> Result<(), QueryError> {
        let lanes = rows.lanes_at(positions);
        for row in self.ids.number_lanes(&lanes, rows.rows(), to)? {
            let mut key = Vec::new();
            lanes.iter().for_each(|lane| lane.encode(row as usize, &mut key));
            self.seen.push(key.into());
        }
        Ok(())
    }

    /// How many keys were seen.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The keys by their numbers, as [`encode`](crate::key::encode) has them.
    pub(super) fn seen(&self) -> &[Box<[u8]>] {
        &self.seen
    }

    /// The same, for good.
    pub(super) fn into_seen(self) -> Vec<Box<[u8]>> {
        self.seen
    }
}
