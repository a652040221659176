//! Random lives of which the manifests, and perhaps the log, are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Delete, Options, Row, SimulatedDisk, Snapshot, Timestamp,
};
use underbelly_tests::options;

use super::{remove, repaired, values};

#[derive(Clone, Debug)]
enum Step {
    /// Times and keys of rows of one transaction.
    Append(Vec<(i64, u8)>),
    /// So many rows that they get a segment of their own, from a time on.
    Large(i64),
    /// Rows within a range of time, of a key or of all.
    Delete(i64, i64, Option<u8>),
    Checkpoint,
    /// A snapshot is held from here on, or none is any more.
    Hold(bool),
}

/// Rows that pass what a record of a small log takes.
const LARGE_ROWS: i64 = 2_000;

fn step() -> impl Strategy<Value = Step> {
    let delete = (0i64..30, 1i64..30, prop::option::weighted(0.5, 0u8..3));
    let wide = (0i64..30, 1i64..LARGE_ROWS, prop::option::weighted(0.5, 0u8..3));
    prop_oneof![
        6 => prop::collection::vec((0i64..30, 0u8..3), 1..40).prop_map(Step::Append),
        1 => (0i64..30).prop_map(Step::Large),
        3 => delete.prop_map(|(from, length, key)| Step::Delete(from, from + length, key)),
        1 => wide.prop_map(|(from, length, key)| Step::Delete(from, from + length, key)),
        3 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Hold),
    ]
}

/// What is left of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogLeft {
    All,
    Nothing,
    /// All but one block with a batch, counted from the first.
    Damaged(usize),
}

/// A row of the model.
#[derive(Clone, Copy, Debug)]
struct Kept {
    time: i64,
    key: u8,
    x: i64,
    transaction: i64,
    /// The transaction that deleted it.
    deleted: Option<i64>,
}

/// Damages the batch that begins in one of the blocks that do.
fn damage_batch(disk: &SimulatedDisk, which: usize) {
    let mut batches = Vec::new();
    for name in disk.files().into_iter().filter(|name| name.ends_with(".wal")) {
        let bytes = disk.contents(&name).unwrap();
        let salt = bytes[40..48].to_vec();
        let own = (1..bytes.len() / 4096).filter(|block| bytes[block * 4096 + 8..][..8] == salt);
        batches.extend(own.map(|block| (name.clone(), block * 4096)));
    }
    if let Some((name, at)) = batches.get(which % batches.len().max(1)) {
        let mut bytes = disk.contents(name).unwrap();
        bytes[at + 70] ^= 1;
        disk.overwrite(name, bytes);
    }
}

/// Lives the steps, takes manifests and perhaps the log away, and compares what a repair gives with the model.
fn salvage_and_compare(steps: Vec<Step>, log: LogLeft, checkpoint_bytes: u64) {
    let disk = SimulatedDisk::new();
    let options = Options { checkpoint_bytes, workers: 0, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options.clone()).unwrap();
    let (mut all, mut sealed) = (Vec::<Kept>::new(), Vec::new());
    let mut held: Option<Snapshot> = None;
    // The last delete that a checkpoint has applied for sure, with all before it.
    let mut applied = 0;
    let begin = [Step::Append(vec![(1, 0), (2, 1), (3, 2)]), Step::Checkpoint];
    for (transaction, step) in (1..).zip(begin.into_iter().chain(steps)) {
        let mut batch = Batch::new();
        batch.append(Row::new("other", Timestamp(1)).field("x", transaction)).unwrap();
        match step {
            Step::Append(rows) => {
                for (time, key) in rows {
                    let row = Kept { time, key, x: all.len() as i64, transaction, deleted: None };
                    let written = Row::new("s", Timestamp(time)).key("k", format!("k{key}"));
                    batch.append(written.field("x", row.x)).unwrap();
                    all.push(row);
                }
            }
            Step::Large(first) => {
                let rows = (0..LARGE_ROWS).map(|i| {
                    let (time, key) = (first + i, (i % 3) as u8);
                    Kept { time, key, x: all.len() as i64 + i, transaction, deleted: None }
                });
                let rows: Vec<Kept> = rows.collect();
                let mut keys = Column::new(ColumnType::Utf8);
                rows.iter().for_each(|row| keys.push(&format!("k{}", row.key).into()).unwrap());
                let columns = Columns::new().with("k", keys).unwrap();
                let x: Vec<i64> = rows.iter().map(|row| row.x).collect();
                let columns = columns.with("x", Column::from(x)).unwrap();
                let times = rows.iter().map(|row| Timestamp(row.time)).collect();
                batch.append_columns("s", times, columns, &["k"]).unwrap();
                all.extend(rows);
            }
            Step::Delete(from, to, key) => {
                let delete = Delete::all().from(Timestamp(from)).to(Timestamp(to));
                batch.delete_rows(
                    "s",
                    match key {
                        Some(key) => delete.key("k", format!("k{key}")),
                        None => delete,
                    },
                );
                for row in all.iter_mut().filter(|row| row.deleted.is_none()) {
                    let fits = (from..to).contains(&row.time) && key.is_none_or(|key| key == row.key);
                    row.deleted = fits.then_some(transaction);
                }
            }
            Step::Checkpoint => {
                db.checkpoint().unwrap();
                sealed = all.iter().filter(|row| row.deleted.is_none()).map(|row| row.x).collect::<Vec<_>>();
                if held.is_none() && checkpoint_bytes > 1 {
                    applied = transaction;
                }
                continue;
            }
            Step::Hold(holds) => {
                held = holds.then(|| db.snapshot());
                continue;
            }
        }
        db.commit(batch).unwrap();
    }
    let disk = disk.crash();
    remove(&disk, "MANIFEST-");
    match log {
        LogLeft::All => {}
        LogLeft::Nothing => remove(&disk, "wal/"),
        LogLeft::Damaged(which) => damage_batch(&disk, which),
    }
    let (report, saved) = repaired(&disk);
    let db = Database::open_with(saved.path(), options).unwrap();
    let mut found = db.snapshot().series("s").map_or(Vec::new(), |_| values(&db, "s", "x"));
    found.sort_unstable();
    assert!(found.is_sorted_by(|a, b| a < b), "a row comes twice: {report:?}");
    assert!(found.last().is_none_or(|x| *x < all.len() as i64), "a row that never was: {report:?}");
    let expected: BTreeSet<i64> = match log {
        LogLeft::All => all.iter().filter(|row| row.deleted.is_none()).map(|row| row.x).collect(),
        LogLeft::Nothing => sealed.into_iter().collect(),
        // How far it leads is not known here.
        LogLeft::Damaged(_) => return,
    };
    let found: BTreeSet<i64> = found.into_iter().collect();
    assert!(expected.is_subset(&found), "rows are lost: {:?} {report:?}", expected.difference(&found));
    let survivors: BTreeSet<i64> =
        all.iter().filter(|row| expected.contains(&row.x)).map(|row| row.transaction).collect();
    let told = report.assumed.join("; ");
    for row in all.iter().filter(|row| found.contains(&row.x) && !expected.contains(&row.x)) {
        let reason = match row.deleted {
            Some(delete) if delete > applied => "no checkpoint had applied the delete yet",
            _ if !survivors.contains(&row.transaction) => "all rows of their segment were deleted",
            _ => panic!("{row:?} is back: {report:?}"),
        };
        assert!(told.contains(reason), "{row:?} is back, and not told: {report:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Small and large appends with ties, deletes by key and by time that wait for snapshots or for room, and checkpoints in
    /// any order.
    #[test]
    fn without_manifests_rows_come_once_and_deleted_ones_stay_away(
        steps in prop::collection::vec(step(), 1..40),
        log in prop_oneof![Just(LogLeft::All), Just(LogLeft::Nothing), any::<usize>().prop_map(LogLeft::Damaged)],
        checkpoint_bytes in prop_oneof![Just(1), Just(64 << 20)],
    ) {
        salvage_and_compare(steps, log, checkpoint_bytes);
    }
}
