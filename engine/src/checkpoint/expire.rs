//! Rows that lie further behind than their type keeps them are deleted, as a client would delete them.

use std::sync::Arc;

use underbelly_query::{Run, Tombstone};
use underbelly_storage::Timestamp;

use crate::core::Core;
use crate::durability::Durability;
use crate::error::CommitError;
use crate::operations::{Deletes, Operations};
use crate::series::Table;

impl Core {
    /// One transaction for all types: what it hides is hidden as a whole, and the checkpoint that follows gives the space back.
    pub(super) fn expire_rows(&self) -> Result<(), CommitError> {
        let now = self.options.clock.now();
        let mut deletes = Vec::new();
        {
            let mut state = self.sound_state()?;
            for (series, table) in &mut state.tables {
                if let Some(tombstone) = expired(table, now) {
                    let (series, tombstones) = (series.clone(), vec![tombstone]);
                    deletes.push(Deletes { series, tombstones, schema: None });
                }
            }
        }
        if deletes.is_empty() {
            return Ok(());
        }
        let _folder = self.enter()?;
        let operations = Operations { deletes, ..Operations::default() };
        let prepared = self.encode(operations, self.pending.pin())?;
        // The checkpoint waits for it.
        self.sequence(prepared, Durability::Buffered, |_| Ok(())).map(drop)
    }
}

/// What hides the rows of a type that lie too far behind, where there are some that nothing hides yet.
fn expired(table: &mut Table, now: Timestamp) -> Option<Tombstone> {
    let rules = table.rules();
    rules.retention?;
    let runs = table.runs();
    let zones = |run: &Arc<dyn Run>| (0..run.groups()).map(|group| run.zone(group)).collect::<Vec<_>>();
    let zones: Vec<_> = runs.iter().flat_map(zones).filter(|zone| zone.rows > 0).collect();
    let newest = zones.iter().map(|zone| zone.ts_max).max()?;
    let from = rules.kept_from(now, Timestamp(newest))?;
    let last = Timestamp(from.0.checked_sub(1)?);
    let is_whole = |tombstone: &Arc<Tombstone>| {
        tombstone.keys().next().is_none()
            && tombstone.predicates().next().is_none()
            && tombstone.range().0 == Timestamp::MIN
            && tombstone.range().1 >= last
    };
    let hidden_to = table.tombstones().iter().filter(|tombstone| is_whole(tombstone)).map(|t| t.seq()).max();
    let is_old = |zone: &underbelly_query::Zone| {
        zone.ts_min <= last.0 && hidden_to.is_none_or(|hidden| zone.seq_max >= hidden)
    };
    zones.iter().any(is_old).then(|| Tombstone::restored(0, Timestamp::MIN, last, Vec::new()))
}
