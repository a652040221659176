//! From files to commits: one thread reads, this one parses, another commits.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use underbelly::{Batch, Columns, Database, Duplicates, LogicalTypes, ReadError, SeriesInfo, Timestamp};

use super::plan::{Filling, Plan};
use super::rejected::Rejected;
use super::source::Source;
use crate::error::Failed;
use crate::progress;

/// Rows of one transaction.
pub(super) const CHUNK_ROWS: usize = 1 << 20;
/// Bytes of text in one column after which a transaction is full.
pub(super) const CHUNK_TEXT_BYTES: usize = 64 << 20;
/// Transactions that are parsed ahead.
const CHUNKS_AHEAD: usize = 2;

/// Rows of one transaction, in order of arrival.
pub(super) struct Chunk {
    pub(super) timestamps: Vec<Timestamp>,
    pub(super) columns: Columns,
    /// What they hold, where that is not what is stored.
    pub(super) types: LogicalTypes,
}

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    /// Earliest and latest time.
    pub(super) bounds: Option<(Timestamp, Timestamp)>,
    /// Columns with their types, where the files say them.
    pub(super) stored: String,
    /// Rejected lines of each file that has some, and where they are.
    pub(super) rejected: Vec<(u64, std::path::PathBuf)>,
    /// Rows that were not there before, where the rules of the series leave out or replace some.
    pub(super) added: Option<u64>,
    /// The zone in which the times of the series are shown.
    pub(super) zone: Option<String>,
}

/// Reads all files again and commits their rows. A bad line ends it, unless `rejected` has a place for each file.
pub(super) fn load(
    db: &Database,
    series: &str,
    plan: &Plan,
    sources: &[Source],
    layouts: Vec<super::Layout>,
    rejected: Vec<Option<Rejected>>,
) -> Result<Loaded, Failed> {
    let names = plan.names();
    let keys: Vec<&str> = names.iter().filter(|(_, key)| *key).map(|(name, _)| *name).collect();
    committed(db, series, &keys, |send| parse(plan, sources, layouts, rejected, send))
}

/// Commits chunks as they are made.
pub(super) fn committed(
    db: &Database,
    series: &str,
    keys: &[&str],
    make: impl FnOnce(SyncSender<Chunk>) -> Result<Loaded, Failed>,
) -> Result<Loaded, Failed> {
    let before = shown(db, series)?;
    let (send, receive) = sync_channel(CHUNKS_AHEAD);
    let (made, (rows, committed)) = std::thread::scope(|scope| {
        let committer = scope.spawn(|| commit(db, series, keys, receive));
        let made = make(send);
        let panicked = || (0, Err(Failed::Usage("the thread that commits ended early".to_string())));
        (made, committer.join().unwrap_or_else(|_| panicked()))
    });
    // Making stops early where committing has failed, so that error is the cause.
    let outcome = committed.and(made);
    let outcome = outcome.map_err(|cause| match rows {
        0 => cause,
        rows => Failed::Import { cause: Box::new(cause), series: series.to_string(), rows },
    });
    let loaded = outcome?;
    let added = before.zip(shown(db, series)?).map(|(before, after)| after.saturating_sub(before));
    Ok(Loaded { added, zone: time_zone(db, series)?, ..loaded })
}

/// The zone of the rows' own time, where there are rows and one is named.
fn time_zone(db: &Database, series: &str) -> Result<Option<String>, Failed> {
    match db.snapshot().series(series) {
        Ok(series) => Ok(series.types().time_zone().map(str::to_string)),
        Err(ReadError::UnknownSeries { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How many rows a series shows, where its rules may leave out or replace some that are appended, and delete none by their age.
fn shown(db: &Database, series: &str) -> Result<Option<u64>, Failed> {
    match db.snapshot().series_info(series) {
        Ok(SeriesInfo { definition: rules, .. })
            if rules.kept_rows().is_none()
                && (rules.skips_identical() || rules.duplicates_policy() != Duplicates::KeepAll) =>
        {
            Ok(Some(db.snapshot().series(series)?.count()?))
        }
        Ok(_) | Err(ReadError::UnknownSeries { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Commits chunks until there are no more; answers the rows that were committed, whatever happened then.
fn commit(db: &Database, series: &str, keys: &[&str], chunks: Receiver<Chunk>) -> (u64, Result<(), Failed>) {
    let mut rows = 0;
    for Chunk { timestamps, columns, types } in chunks {
        let count = timestamps.len() as u64;
        let here: Vec<&str> = keys.iter().copied().filter(|key| columns.index_of(key).is_some()).collect();
        let mut batch = Batch::new();
        let appended = batch.append_typed(series, timestamps, columns, &here, types).map(|_| ());
        if let Err(error) = appended.and_then(|()| db.commit(batch).map(|_| ())) {
            return (rows, Err(error.into()));
        }
        rows += count;
    }
    (rows, Ok(()))
}

fn parse(
    plan: &Plan,
    sources: &[Source],
    layouts: Vec<super::Layout>,
    rejected: Vec<Option<Rejected>>,
    send: SyncSender<Chunk>,
) -> Result<Loaded, Failed> {
    let mut loaded = Loaded::default();
    let mut filling = plan.filling(true);
    let mut timestamps = Vec::new();
    for ((source, mut layout), mut rejected) in sources.iter().zip(layouts).zip(rejected) {
        let bar = progress::bytes(source.bytes(), format!("loading {}", source.path().display()));
        let mut lines = source.open(&bar)?;
        let absent = plan.absent(&layout);
        while lines.advance()? {
            let instant = match plan.fill(&lines, &mut layout, &mut filling, timestamps.len()) {
                Ok(instant) => Timestamp(instant),
                Err(problem) => match &mut rejected {
                    Some(rejected) => {
                        rejected.add(&lines, problem)?;
                        continue;
                    }
                    None => return Err(problem.at(&lines)),
                },
            };
            for at in &absent {
                if let Some(cells) = filling.get_mut(*at).and_then(Option::as_mut) {
                    cells.push_null();
                }
            }
            timestamps.push(instant);
            loaded.rows += 1;
            let (first, last) = loaded.bounds.unwrap_or((instant, instant));
            loaded.bounds = Some((first.min(instant), last.max(instant)));
            if timestamps.len() >= CHUNK_ROWS
                || filling.iter().flatten().any(|cells| cells.text_bytes() >= CHUNK_TEXT_BYTES)
            {
                let chunk = chunk(plan, &mut filling, std::mem::take(&mut timestamps))?;
                if send.send(chunk).is_err() {
                    return Ok(loaded);
                }
            }
        }
        bar.finish_and_clear();
        if let Some(rejected) = rejected
            && let (rows, Some(path)) = rejected.finish()?
        {
            loaded.rejected.push((rows, path));
        }
    }
    if !timestamps.is_empty() {
        // Where nobody receives it, committing has failed and says why.
        let _ = send.send(chunk(plan, &mut filling, timestamps)?);
    }
    Ok(loaded)
}

fn chunk(plan: &Plan, filling: &mut Filling, timestamps: Vec<Timestamp>) -> Result<Chunk, Failed> {
    let mut columns = Columns::new();
    for ((name, _), cells) in plan.names().into_iter().zip(filling) {
        if let Some(cells) = cells {
            let column = cells.take().ok_or_else(|| {
                Failed::Usage(format!("column {name:?} did not come together; please report this fault"))
            })?;
            columns.insert(name, column)?;
        }
    }
    Ok(Chunk { timestamps, columns, types: plan.types() })
}
