//! Small databases with files of every kind: a few KiB each, so that a test can try every byte, and some can be kept.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    AliasTarget, Batch, Column, Columns, Database, Date, Metadata, Options, ReadError, Row, Scope,
    SimulatedDisk, Timestamp,
};

use crate::{BOOK, blob_of, day, define, desk, episode, model_of, one, shown, transaction};

/// What may go wrong while a database is made.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Log files so short that values of some KiB get files of their own.
pub fn options() -> Options {
    Options { log_file_bytes: 16 << 10, workers: 1, host: None, ..crate::options() }
}

/// Commits transactions `from` to `from + 2`, rows of every type, a cell that is taken back, and, with `large`, a blob
/// and rows that get files of their own.
pub fn fill(db: &Database, from: u64, large: bool) -> Result<(), Failed> {
    define(db)?;
    for i in from..from + 3 {
        db.commit(transaction(i, false)?)?;
    }
    let mut batch = Batch::new();
    for i in 0..12 {
        let row = Row::new("wide", Timestamp(i * i)).key("k", i % 3).field("text", format!("t{}", i % 5));
        let row = row.field("x", i as f64 / 3.0).field("flag", i % 2 == 0).field("day", day());
        batch.append(row.field("at", Timestamp(i)).field("raw", vec![i as u8; 3]))?;
    }
    batch.put_slot(BOOK, day(), ["retracted"], one("n", from as i64)?);
    let odd = f64::from_bits(0x7ff8_0000_0000_0001);
    batch.set_variable(Scope::Global, "weights", vec![from as f64, odd]).set_variable(
        Scope::Global,
        "x",
        odd,
    );
    batch.set_variable(Scope::asset("IBM"), "raw", vec![from as u8, 0xff]).set_variable(
        episode(),
        "on",
        true,
    );
    db.commit(batch)?;
    let mut batch = Batch::new();
    batch.retract_slot(BOOK, day(), ["retracted"]);
    db.commit(batch)?;
    if large {
        let mut batch = Batch::new();
        let blob: Vec<u8> = blob_of(from, true).into_iter().take(9000).collect();
        batch.put_model(model_of(from).with("large", true), blob);
        let rows: Vec<i64> = (0..1500).collect();
        let columns = Columns::new().with("x", Column::from(rows))?;
        let times = (0..1500).map(Timestamp).collect();
        batch.append_columns("bulk", times, columns, &[])?;
        db.commit(batch)?;
    }
    Ok(())
}

/// Bytes up to the last that is not zero.
pub fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The log's last file, and its bytes.
pub fn active_log(disk: &SimulatedDisk) -> Option<(String, Vec<u8>)> {
    let name = disk.files().into_iter().rfind(|name| name.ends_with(".wal"))?;
    let bytes = disk.contents(&name)?;
    Some((name, bytes))
}

/// Puts a write that was cut short behind the log's last batch.
pub fn tear(disk: &SimulatedDisk) {
    if let Some((name, mut bytes)) = active_log(disk) {
        let end = used(&bytes).next_multiple_of(4096);
        if let Some(behind) = bytes.get_mut(end..end + 50) {
            behind.fill(7);
        }
        disk.overwrite(&name, bytes);
    }
}

/// A quote of the desk, and what its producers make of it.
fn quote(db: &Database, i: u64) -> Result<(), Failed> {
    desk::register(db)?;
    db.commit(desk::quote(0, i)?)?;
    match db.wait_idle(Duration::from_secs(60)) {
        true => Ok(()),
        false => Err("producers do not come to rest".into()),
    }
}

/// A model of which something is told.
fn marked() -> Metadata {
    Metadata::new("marked").with("timestamp", Timestamp(3))
}

/// What neither [`fill`] nor a quote does: two versions of a model, whose blob is compressed, with an alias, a pin and a note; the end of
/// a date; a deadline that nobody meets.
fn mark(db: &Database) -> Result<(), Failed> {
    let stored = |is_compressed: bool| {
        let mut writer = db.blob_writer().compressed(is_compressed);
        writer.push(&blob_of(7, true).into_iter().take(10_000).collect::<Vec<u8>>())?;
        writer.finish()
    };
    for is_compressed in [true, false] {
        let blob = stored(is_compressed)?;
        let mut batch = Batch::new();
        batch.put_model_stored(marked(), &blob);
        db.commit(batch)?;
    }
    let (ended, wanted) = (Date(30_000), Date(30_001));
    let mut batch = Batch::new();
    batch.set_alias(&marked(), "best", AliasTarget::Newest)?.pin_version(&marked(), 1, true)?;
    batch.annotate(&marked(), None, "score", 5)?;
    batch.end_of(ended).due_by(BOOK, wanted, Timestamp::MAX);
    db.commit(batch)?;
    Ok(())
}

/// The databases that are kept, by name: one that was closed, and one that was killed behind a checkpoint while it
/// wrote.
pub fn kept() -> Result<Vec<(&'static str, SimulatedDisk)>, Failed> {
    // Blobs of some KiB have several chunks.
    let options = Options { chunk_bytes: 4096, ..options() };
    let closed = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(closed.clone()), options.clone())?;
    fill(&db, 1, true)?;
    quote(&db, 1)?;
    mark(&db)?;
    db.checkpoint()?;
    fill(&db, 4, false)?;
    db.checkpoint()?;
    // So little that it becomes a delta over the base, and something goes in it.
    let mut batch = Batch::new();
    batch.remove_variable(Scope::asset("IBM"), "raw").set_variable(Scope::Global, "x", 0.5);
    db.commit(batch)?;
    db.close()?;

    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options)?;
    fill(&db, 1, false)?;
    quote(&db, 1)?;
    db.checkpoint()?;
    quote(&db, 2)?;
    mark(&db)?;
    fill(&db, 4, true)?;
    let killed = disk.crash();
    drop(db);
    tear(&killed);
    Ok(vec![("closed", closed), ("killed", killed)])
}

/// Whether a file is one of a kept database: spares and the reserve are made anew.
pub fn is_kept(file: &str) -> bool {
    !file.contains("/spare-") && file != "RESERVE"
}

/// All that a database shows, as text: what opening found, definitions, states, rows, cells and models.
pub fn describe(db: &Database) -> Result<String, ReadError> {
    let mut text = String::new();
    let report = db.recovery_report();
    let _ = writeln!(text, "replayed {}", report.replayed);
    let _ = writeln!(text, "last seq {}", report.last_seq);
    let _ = writeln!(text, "torn tail {}", report.torn_tail.is_some());
    for slot in db.slots() {
        let _ = writeln!(text, "{:?}", slot.definition);
    }
    let mut cells: Vec<_> = db.slot_table(None)?.collect();
    cells.sort_by(|a, b| (&a.slot, a.date, &a.key).cmp(&(&b.slot, b.date, &b.key)));
    for row in cells {
        let _ = writeln!(text, "state of {} {} {}: {}", row.slot, row.date, row.key, row.state);
    }
    for producer in db.producers() {
        let _ = writeln!(text, "{:?}", producer.definition);
    }
    let _ = writeln!(text, "{} runs", db.runs(None, usize::MAX)?.len());
    let snapshot = db.snapshot();
    for version in snapshot.model_versions(&marked())? {
        let _ = writeln!(
            text,
            "marked version {}, pinned {}, aliases {:?}",
            version.info.version, version.is_pinned, version.aliases
        );
    }
    for note in snapshot.annotations(&marked())? {
        let _ = writeln!(text, "marked {}: {:?}", note.name, note.value);
    }
    for (name, what) in shown(db)? {
        let _ = writeln!(text, "{name}\n    {}", what.trim_end().replace('\n', "\n    "));
    }
    Ok(text)
}

/// Writes the files of a disk in memory into a folder.
pub fn lay_out(disk: &SimulatedDisk, dir: &Path) -> std::io::Result<()> {
    for name in disk.files() {
        let path = dir.join(&name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, disk.contents(&name).unwrap_or_default())?;
    }
    Ok(())
}
