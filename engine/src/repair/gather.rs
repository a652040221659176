//! What the files of a database say of themselves, where no manifest is left.
//!
//! A segment says its database, its columns and which of them are keys, and the transaction of each row; its folder says the
//! series. A pack and a chunk file say which objects they hold. What only a manifest says is made up so that no row comes
//! twice, but for rows that stood in one segment with deleted ones; each such assumption is told.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::ColumnType;
use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::identify_chunk;
use underbelly_storage::segment::Segment;
use underbelly_wal::{FileInspection, Start, WalError, visit_sound};

use super::loss::Loss;
use super::salvage::loss_or_end;
use crate::checkpoint::all_files;
use crate::error::OpenError;
use crate::files;
use crate::record::{self, v1};
use crate::series::inexact;

/// How many rows of which transactions segments hold, by series.
pub(super) type Covered = BTreeMap<String, BTreeMap<u64, u64>>;

/// A manifest that was made up.
pub(super) struct Gathered {
    pub manifest: v1::Manifest,
    pub covered: Covered,
    pub losses: Vec<Loss>,
    pub assumed: Vec<String>,
}

/// The longest sound part of the log that reaches furthest.
#[derive(Default)]
struct Survey {
    /// Its first transaction.
    first: u64,
    /// The transaction behind its last.
    next: u64,
    /// Series by their folders.
    series: BTreeMap<String, String>,
    /// Segments that transactions name, with their seqs.
    named: BTreeMap<u64, u64>,
}

/// A sound segment.
struct Found {
    file: u64,
    segment: Segment,
    /// Rows of each transaction; empty where the file does not say which one it was.
    counts: BTreeMap<u64, u64>,
}

/// Makes up a manifest from the files that are there; `None` where nothing can be told from them.
pub(super) fn gather(
    disk: &SharedDisk,
    database: [u8; 16],
    inspected: &[FileInspection],
) -> Result<Option<Gathered>, OpenError> {
    let survey = survey(disk, database, inspected)?;
    let mut gathered = Gathered {
        manifest: v1::Manifest { next_file: 1, ..v1::Manifest::default() },
        covered: Covered::new(),
        losses: Vec::new(),
        assumed: Vec::new(),
    };
    let mut by_series: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for name in all_files(&**disk)? {
        gathered.take(disk, database, &name, survey.as_ref(), &mut by_series)?;
    }
    let stored = by_series.values().flatten().filter_map(|found| found.counts.keys().next_back()).max();
    let stored = stored.copied().unwrap_or(0);
    // The log's transactions are taken where they lead behind what the segments hold; what is in both is taken once.
    let (log, named) = match survey {
        Some(log) if log.next > stored => (Some(log), BTreeMap::new()),
        survey => (None, survey.map(|survey| survey.named).unwrap_or_default()),
    };
    if log.as_ref().is_some_and(|log| log.first == 1) {
        // It holds everything from the first transaction on.
        return Ok(None);
    }
    for (series, found) in by_series {
        gathered.add_series(series, found, log.as_ref(), &named)?;
    }
    let manifest = &mut gathered.manifest;
    if manifest.series.is_empty() && manifest.packs.is_empty() && log.is_none() {
        return Ok(None);
    }
    manifest.seq = log.as_ref().map_or(stored.max(1), |log| log.first - 1);
    // A run takes a transaction at least, so no run has this number.
    manifest.next_run = log.map_or(0, |log| log.next).max(stored) + 1;
    let mut lengths = inspected.iter().rev().filter_map(|file| Some(file.header.as_ref().ok()?.file_len));
    manifest.log_file_bytes = lengths.next().unwrap_or(64 << 20);
    gathered.assumed.insert(
        0,
        format!(
            "no manifest is left, so that the segments and packs in the folders were taken, and of segments that hold the \
             same rows the newest; the segments hold transactions up to {stored}; where rows had been deleted they may be \
             back, and those that were in one segment with them may stand twice"
        ),
    );
    Ok(Some(gathered))
}

/// Reads the log from the oldest file on from which it leads to its end, or else as far as it leads.
fn survey(
    disk: &SharedDisk,
    database: [u8; 16],
    inspected: &[FileInspection],
) -> Result<Option<Survey>, OpenError> {
    let starts: Vec<(u64, u64)> = inspected
        .iter()
        .filter_map(|file| Some((file.number, file.header.as_ref().ok()?.first_seq)))
        .collect();
    let (mut best, mut at) = (None::<Survey>, 0);
    while let Some((number, first)) = starts.get(at).copied() {
        let mut survey = Survey { first, ..Survey::default() };
        let sound =
            visit_sound::<OpenError>(disk.clone(), database, Start::at(first), &mut |seq, payload| {
                survey.note(seq, payload);
                Ok(())
            });
        let damaged = match sound {
            Err(OpenError::Log(WalError::Recycled { .. } | WalError::Missing { .. })) => Some(number),
            Err(error) => return Err(error),
            Ok(sound) => {
                survey.next = sound.next_seq;
                if survey.next > best.as_ref().map_or(survey.first, |best| best.next) {
                    best = Some(survey);
                }
                sound.damage.map(|damage| {
                    let file = match damage {
                        WalError::Corrupt { file, .. } => file,
                        _ => String::new(),
                    };
                    inspected.iter().find(|found| found.file == file).map_or(number, |found| found.number)
                })
            }
        };
        let Some(damaged) = damaged else { break };
        at = starts.partition_point(|(other, _)| *other <= damaged.max(number));
    }
    Ok(best)
}

impl Survey {
    fn note(&mut self, seq: u64, payload: &[u8]) {
        let Ok((_, record)) = record::decode(payload) else { return };
        for append in record.appends {
            if let v1::Rows::Segment(reference) = &append.rows {
                self.named.insert(reference.file, seq);
            }
            self.series.insert(files::segment_dir(&append.series), append.series);
        }
    }
}

impl Gathered {
    /// Takes in a file: a segment into `by_series`, packs and chunk files into the manifest.
    fn take(
        &mut self,
        disk: &SharedDisk,
        database: [u8; 16],
        name: &str,
        survey: Option<&Survey>,
        by_series: &mut BTreeMap<String, Vec<Found>>,
    ) -> Result<(), OpenError> {
        let Some((folder, file)) =
            name.rsplit_once('/').zip(files::number(name)).map(|((folder, _), n)| (folder, n))
        else {
            return Ok(());
        };
        if name.ends_with(".pack") {
            self.manifest.packs.push(file);
        } else if name.ends_with(".chunk") {
            let identified = identify_chunk(&**disk, name, database).map_err(OpenError::from);
            let loss = |error: &OpenError| Loss::new(name, error, "an object");
            if let Some((id, bytes)) = loss_or_end(identified, loss, &mut self.losses)? {
                self.manifest.chunks.push(v1::Chunk { id: id.0, file, bytes });
            }
        } else if name.ends_with(".seg") {
            let known = survey.and_then(|survey| survey.series.get(folder).cloned());
            let Some(series) = known.or_else(|| files::series_of(folder)) else {
                let damage = "its name is cut, and no transaction in the log names the series".to_string();
                let lost = "rows of a series that cannot be told".to_string();
                self.losses.push(Loss { file: name.to_string(), offset: None, damage, lost });
                return Ok(());
            };
            let opened = Found::open(disk, database, name, file);
            let loss = |error: &OpenError| {
                Loss::new(
                    name,
                    error,
                    format!("rows of series {series:?}, but for those that the log's transactions bring"),
                )
            };
            if let Some(found) = loss_or_end(opened, loss, &mut self.losses)? {
                by_series.entry(series).or_default().push(found);
            }
        }
        Ok(())
    }

    /// Takes in those segments of a series that hold rows which no newer one holds. `log` is what will be applied of the
    /// log; `named` are the transactions of segments where nothing of it will.
    fn add_series(
        &mut self,
        series: String,
        mut found: Vec<Found>,
        log: Option<&Survey>,
        named: &BTreeMap<u64, u64>,
    ) -> Result<(), OpenError> {
        found.sort_unstable_by_key(|found| std::cmp::Reverse(found.file));
        let covered = self.covered.entry(series.clone()).or_default();
        let (mut columns, mut segments) = (Vec::new(), Vec::new());
        // First those that say the transaction of each row.
        let (told, untold): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|found| found.segment.has_seqs());
        let mut kept: Vec<Found> = Vec::new();
        for found in told {
            let is_new = |(seq, rows): (&u64, &u64)| covered.get(seq).is_none_or(|held| held < rows);
            if found.counts.iter().any(is_new) {
                found.counts.iter().for_each(|(seq, rows)| *covered.entry(*seq).or_default() += rows);
                segments.push(found.reference(0));
                kept.push(found);
            }
        }
        for found in untold {
            let rows = found.segment.rows();
            match named.get(&found.file) {
                Some(seq) => {
                    let held = covered.entry(*seq).or_default();
                    if *held < rows {
                        *held += rows;
                        segments.push(found.reference(*seq));
                        kept.push(found);
                    }
                }
                // Its transaction brings it along, unless a segment holds its rows by now.
                None if log.is_some_and(|log| log.named.contains_key(&found.file)) => {}
                None if found.is_held_by(&kept)? => {}
                None => {
                    self.assumed.push(format!(
                        "nothing says which transaction appended the {rows} rows of series {series:?} in {}, nor that it \
                         was committed; they were taken for rows of transaction 1",
                        files::segment(&series, found.file)
                    ));
                    covered.entry(1).or_default();
                    segments.push(found.reference(1));
                    kept.push(found);
                }
            }
        }
        kept.retain(|found| {
            let conflict = found.add_columns(&mut columns);
            if let Some(damage) = conflict {
                let file = files::segment(&series, found.file);
                let lost = format!("{} rows of series {series:?}", found.segment.rows());
                segments.retain(|segment: &v1::SegmentRef| segment.file != found.file);
                self.losses.push(Loss { file, offset: None, damage, lost });
                return false;
            }
            true
        });
        if segments.is_empty() {
            self.covered.remove(&series);
            return Ok(());
        }
        columns.sort_by_key(|column: &v1::SchemaColumn| !column.key);
        segments.sort_unstable_by_key(|segment| segment.file);
        let last_seq = covered.keys().next_back().copied().unwrap_or(0);
        let inexact: BTreeSet<String> =
            kept.iter().flat_map(|found| inexact::in_segment(&found.segment)).collect();
        self.manifest.series.push(v1::Series {
            name: series,
            columns,
            segments,
            last_seq,
            deletes: Vec::new(),
            inexact: inexact.into_iter().collect(),
        });
        Ok(())
    }
}

impl Found {
    fn open(disk: &SharedDisk, database: [u8; 16], name: &str, file: u64) -> Result<Found, OpenError> {
        let segment = Segment::open(&**disk, name, database, None)?;
        segment.verify()?;
        let mut counts = BTreeMap::new();
        for group in 0..segment.groups() {
            for seq in segment.seqs(group)?.unwrap_or_default() {
                *counts.entry(seq).or_default() += 1;
            }
        }
        Ok(Found { file, segment, counts })
    }

    fn reference(&self, seq: u64) -> v1::SegmentRef {
        let info = self.segment.info();
        v1::SegmentRef {
            file: self.file,
            bytes: info.bytes,
            rows: info.rows,
            ts_min: info.ts_min,
            ts_max: info.ts_max,
            footer_hash: info.footer_hash,
            seq,
            schema: self.columns(),
        }
    }

    fn columns(&self) -> Vec<v1::SchemaColumn> {
        let columns = self.segment.schema().iter().zip(self.segment.keys());
        let column = |((name, column_type), key): (&(std::sync::Arc<str>, ColumnType), &bool)| {
            v1::SchemaColumn { name: name.to_string(), column_type: column_type.tag(), key: *key }
        };
        columns.map(column).collect()
    }

    /// Takes the columns into those of the series, or says what contradicts them.
    fn add_columns(&self, all: &mut Vec<v1::SchemaColumn>) -> Option<String> {
        let (int, float) = (ColumnType::I64.tag(), ColumnType::F64.tag());
        let mut joined = all.clone();
        for column in self.columns() {
            let Some(known) = joined.iter_mut().find(|known| known.name == column.name) else {
                joined.push(column);
                continue;
            };
            let widens = [known.column_type, column.column_type];
            if known.key == column.key && !known.key && (widens == [int, float] || widens == [float, int]) {
                known.column_type = float;
            } else if *known != column {
                return Some(format!("its column {:?} is not what it is in newer segments", column.name));
            }
        }
        *all = joined;
        None
    }

    /// Whether newer segments hold the rows of this one, of which the transaction is not known: as many rows of one
    /// transaction, with the same times.
    fn is_held_by(&self, kept: &[Found]) -> Result<bool, StorageError> {
        let rows = self.segment.rows();
        let mut times = None;
        let newer = kept.iter().filter(|found| found.file > self.file);
        for found in newer {
            for (seq, _) in found.counts.iter().filter(|(_, count)| **count == rows) {
                if times.is_none() {
                    times = Some(self.times(None)?);
                }
                if Some(found.times(Some(*seq))?) == times {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Times of all rows, or of those of one transaction, rising.
    fn times(&self, of: Option<u64>) -> Result<Vec<i64>, StorageError> {
        let mut times = Vec::new();
        for group in 0..self.segment.groups() {
            let all = self.segment.timestamps(group)?;
            match of {
                None => times.extend(all),
                Some(seq) => {
                    let seqs = self.segment.seqs(group)?.unwrap_or_default();
                    times.extend(all.iter().zip(seqs).filter(|(_, of)| *of == seq).map(|(time, _)| time));
                }
            }
        }
        Ok(times)
    }
}
