//! Rows that lie further behind than their type keeps them are deleted, as a client would delete them; and so are versions
//! of models that grew older than they are kept.

use std::sync::Arc;

use underbelly_query::{Run, Tombstone, Zone, newest_timestamp};
use underbelly_storage::Timestamp;

use crate::core::Core;
use crate::durability::Durability;
use crate::error::{CommitError, ReadError};
use crate::operations::{Deletes, Operations};
use crate::series::{Hiding, Rules, Table};
use crate::snapshot::Snapshot;
use crate::state::State;

/// Models that are looked at under the state's lock at a time.
const SLICE_MODELS: usize = 64;

/// What is looked at of a type that keeps its rows for a time.
struct Kept {
    series: Arc<str>,
    rules: Rules,
    runs: Arc<[Arc<dyn Run>]>,
    tombstones: Hiding,
    /// At the head.
    snapshot: Snapshot,
}

impl Core {
    /// One transaction for each type, so that one which cannot be deleted from keeps no other from it; the checkpoint that
    /// follows gives the space back. Answers the first error.
    pub(super) fn expire_rows(&self) -> Result<(), CommitError> {
        let now = self.options.clock.now();
        let mut expired = Ok(());
        for kept in &self.kept_for_a_time()? {
            let done = match kept.expired(now) {
                Ok(Some((tombstone, newest))) => self.expire(kept, tombstone, newest),
                none => none.map(drop).map_err(CommitError::from),
            };
            expired = expired.and(done);
        }
        expired
    }

    /// One transaction, where there is anything to delete: it deletes what is not to be kept when it is applied.
    pub(super) fn expire_versions(&self) -> Result<(), CommitError> {
        let (now, mut last, mut has_old) = (self.options.clock.now(), None, false);
        while !has_old {
            let looked = self.sound_state()?.models.has_old(last.as_ref(), now, SLICE_MODELS);
            let Some((id, found)) = looked else { return Ok(()) };
            (last, has_old) = (Some(id), found);
        }
        let operations = Box::new(Operations { collects: true, ..Operations::default() });
        let prepared = self.encode(operations, self.pending.pin())?;
        // The checkpoint waits for it.
        self.sequence(prepared, Durability::Buffered, |_| Ok(())).map(drop)
    }

    /// What is looked at, outside the lock: a type may have many zones.
    fn kept_for_a_time(&self) -> Result<Vec<Kept>, CommitError> {
        let mut state = self.sound_state()?;
        // Pinned under the lock: no checkpoint that begins later leaves out what it shows.
        let snapshot = Snapshot::at(self.view.base(), state.head);
        let with_retention = state.tables.iter_mut().filter(|(_, table)| table.rules().retention.is_some());
        let kept = |(series, table): (&Arc<str>, &mut Table)| Kept {
            series: series.clone(),
            rules: table.rules(),
            runs: table.runs(),
            tombstones: table.tombstones().clone(),
            snapshot: snapshot.clone(),
        };
        Ok(with_retention.map(kept).collect())
    }

    /// The folder stays as long as the checkpoint holds `chain`, in the one of a close too.
    fn expire(&self, kept: &Kept, tombstone: Tombstone, newest: i64) -> Result<(), CommitError> {
        let (series, tombstones) = (kept.series.clone(), vec![tombstone]);
        let deletes = vec![Deletes { series: series.clone(), tombstones, schema: None }];
        // Who leaves rows out because of those that are there commits before.
        let gates = if kept.rules.skip_identical { vec![self.gates.pass(&series)] } else { Vec::new() };
        let operations = Box::new(Operations { deletes, gates, ..Operations::default() });
        let prepared = self.encode(operations, self.pending.pin())?;
        // By the same rules, and by a newest row that nobody can have deleted since the look.
        let seen = kept.snapshot.seq();
        let spares = |tombstone: &Arc<Tombstone>| tombstone.seq() <= seen || tombstone.range().1.0 < newest;
        let is_same = |table: &&Table| table.rules() == kept.rules && table.tombstones().iter().all(spares);
        let is_still_so = |state: &State| match state.tables.get(&series).filter(is_same) {
            Some(_) => Ok(()),
            _ => Err(CommitError::SeriesChanged { series: series.to_string() }),
        };
        // The checkpoint waits for it.
        match self.sequence(prepared, Durability::Buffered, is_still_so) {
            // The next checkpoint looks again.
            Err(CommitError::SeriesChanged { .. }) => Ok(()),
            sequenced => sequenced.map(drop),
        }
    }
}

impl Kept {
    /// What hides the rows that lie too far behind the newest, where there are some that nothing hides yet; and the time of the
    /// newest.
    fn expired(&self, now: Timestamp) -> Result<Option<(Tombstone, i64)>, ReadError> {
        let newest = self.zones().map(|zone| zone.ts_max).max();
        // Rows are read only where it may be that some lie too far behind: of zones nobody knows which rows are shown.
        if newest.and_then(|newest| self.last_expired(now, newest)).is_none() {
            return Ok(None);
        }
        // Of the rows that are shown.
        let Some(newest) = newest_timestamp(&self.snapshot.series(&self.series)?)? else { return Ok(None) };
        let last = self.last_expired(now, newest);
        Ok(last.map(|last| (Tombstone::restored(0, Timestamp::MIN, last, Vec::new()), newest)))
    }

    /// Up to where rows lie too far behind, where the newest is at `newest` and some that nothing hides are there.
    fn last_expired(&self, now: Timestamp, newest: i64) -> Option<Timestamp> {
        let from = self.rules.kept_from(now, Timestamp(newest))?;
        let last = Timestamp(from.0.checked_sub(1)?);
        let is_whole = |tombstone: &Arc<Tombstone>| {
            tombstone.keys().next().is_none()
                && tombstone.predicates().next().is_none()
                && tombstone.range().0 == Timestamp::MIN
                && tombstone.range().1 >= last
        };
        let hidden_to = self.tombstones.iter().filter(|tombstone| is_whole(tombstone)).map(|t| t.seq()).max();
        let is_old =
            |zone: Zone| zone.ts_min <= last.0 && hidden_to.is_none_or(|hidden| zone.seq_max >= hidden);
        self.zones().any(is_old).then_some(last)
    }

    fn zones(&self) -> impl Iterator<Item = Zone> {
        let zones = self.runs.iter().flat_map(|run| (0..run.groups()).map(|group| run.zone(group)));
        zones.filter(|zone| zone.rows > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use underbelly_storage::disk::SimulatedDisk;

    use super::*;
    use crate::batch::{Batch, Row};
    use crate::clock::ManualClock;
    use crate::database::Database;
    use crate::limits::DELETES_MAX;
    use crate::models::{Metadata, Retention};
    use crate::options::Options;
    use crate::series::{Delete, SeriesDefinition};

    fn database() -> Database {
        let options = Options { workers: 0, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        for series in ["a", "b"] {
            db.define_series(SeriesDefinition::new(series).retention(Duration::from_nanos(16))).unwrap();
            let mut batch = Batch::new();
            for at in [0, 1, 100] {
                batch.append(Row::new(series, Timestamp(at)).field("x", at)).unwrap();
            }
            db.commit(batch).unwrap();
        }
        db
    }

    fn rows(db: &Database, series: &str) -> u64 {
        db.snapshot().series(series).unwrap().count().unwrap()
    }

    /// A type that takes no delete more keeps no other from its own.
    #[test]
    fn one_type_that_is_full_stops_no_other() {
        let db = database();
        let mut batch = Batch::new();
        for _ in 0..DELETES_MAX {
            batch.delete_rows("a", Delete::all().from(Timestamp(50)).to(Timestamp(51)));
        }
        db.commit(batch).unwrap();
        let full = db.core().expire_rows().unwrap_err();
        let is_a = |series: &str| series == "a";
        assert!(matches!(&full, CommitError::TooManyDeletes { series, .. } if is_a(series)), "{full}");
        assert_eq!((rows(&db, "a"), rows(&db, "b")), (3, 1));
        // A checkpoint makes room, and the next one deletes there, too.
        (0..2).for_each(|_| drop(db.checkpoint().unwrap()));
        assert_eq!((rows(&db, "a"), rows(&db, "b")), (1, 1));
    }

    /// Rows of which somebody was told that they stay do stay.
    #[test]
    fn rules_that_come_between_the_look_and_the_delete_count() {
        let db = database();
        let core = db.core();
        let kept = core.kept_for_a_time().unwrap();
        let tombstone = || kept[0].expired(core.options.clock.now()).unwrap().unwrap().0;
        db.redefine_series(SeriesDefinition::new("a")).unwrap();
        core.expire(&kept[0], tombstone(), 100).unwrap();
        assert_eq!(rows(&db, "a"), 3);
        db.redefine_series(SeriesDefinition::new("a").retention(Duration::from_nanos(16))).unwrap();
        core.expire(&kept[0], tombstone(), 100).unwrap();
        assert_eq!(rows(&db, "a"), 1);
    }

    /// A row that is deleted between the look and the delete expires no other; a delete that spares the newest row stops nothing.
    #[test]
    fn a_delete_that_comes_between_the_look_and_the_expiry_counts() {
        for (from, to, left) in [(50, 200, 2), (0, 1, 1)] {
            let db = database();
            let core = db.core();
            let kept = core.kept_for_a_time().unwrap();
            let (tombstone, newest) = kept[0].expired(core.options.clock.now()).unwrap().unwrap();
            assert_eq!(newest, 100);
            let mut batch = Batch::new();
            batch.delete_rows("a", Delete::all().from(Timestamp(from)).to(Timestamp(to)));
            db.commit(batch).unwrap();
            core.expire(&kept[0], tombstone, newest).unwrap();
            assert_eq!(rows(&db, "a"), left);
        }
    }

    /// A row that is deleted, as one that was dated wrongly may be, is nobody's newest.
    #[test]
    fn a_row_that_is_deleted_expires_no_other() {
        let db = database();
        let mut batch = Batch::new();
        batch.delete_rows("a", Delete::all().from(Timestamp(50)));
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
        assert_eq!((rows(&db, "a"), rows(&db, "b")), (2, 1));
        let mut batch = Batch::new();
        batch.append(Row::new("a", Timestamp(40)).field("x", 7)).unwrap();
        db.commit(batch).unwrap();
        db.checkpoint().unwrap();
        assert_eq!(rows(&db, "a"), 1);
    }

    /// What the checkpoint deletes is in the log, so that a crash before its end shows the same.
    #[test]
    fn versions_that_grew_old_are_gone_after_a_crash_too() {
        let (disk, clock) = (SimulatedDisk::new(), Arc::new(ManualClock::new(Timestamp(0))));
        let options = || Options { workers: 0, clock: clock.clone(), ..Options::default() };
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        let of = |n: i64| Metadata::new("m").with("n", n).with("timestamp", Timestamp(0));
        let versions = |db: &Database, n| db.snapshot().model_versions(&of(n)).unwrap().len();
        for n in 0..200 {
            let mut batch = Batch::new();
            batch.put_model(of(n), vec![1]).put_model(of(n), vec![2]);
            let age = Duration::from_nanos(if n < 150 { u64::MAX } else { 1_000 });
            batch.set_retention(&of(n), Some(Retention::max_age(age))).unwrap();
            db.commit(batch).unwrap();
        }
        let head = db.head_seq();
        db.core().expire_versions().unwrap();
        assert_eq!(db.head_seq(), head, "nothing is old");
        clock.set(Timestamp(2_000));
        db.core().expire_versions().unwrap();
        assert_eq!(db.head_seq(), head + 1);
        db.core().expire_versions().unwrap();
        assert_eq!(db.head_seq(), head + 1);
        db.wait_durable(head + 1).unwrap();
        clock.set(Timestamp(0));
        let crashed = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        for db in [&db, &crashed] {
            assert!((0..200).all(|n| versions(db, n) == if n < 150 { 2 } else { 1 }));
        }
    }
}
