//! What the files of a database say of themselves, where no manifest is left.
//!
//! A segment says its database, its columns and which of them are keys, and the transaction of each row; its folder says the
//! series. A pack and a chunk file say which objects they hold. What only a manifest says is made up so that no row comes
//! twice; each assumption is told.
//!
//! A checkpoint that writes rows anew takes in whole segments: to merge them, or to leave deleted rows out. What it writes
//! says whose places it took, and those of large appends, whose rows do not say their transaction, as long as it lives. All
//! that one transaction appends to a series stands in one segment; so one that holds any row of a transaction has taken the
//! place of each older one that does, too. Only where all rows of a segment were deleted nothing took its place.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::{Chunks, LogicalTypes};
use underbelly_wal::{FileInspection, Start, WalError, log_name, visit_sound};

use super::found::Found;
use super::loss::Loss;
use super::salvage::loss_or_end;
use crate::checkpoint::all_files;
use crate::error::OpenError;
use crate::files;
use crate::record::{self, v1};
use crate::series::inexact;

/// The transactions of which segments hold the rows, by series.
pub(super) type Covered = BTreeMap<String, BTreeSet<u64>>;

/// A manifest that was made up.
pub(super) struct Gathered {
    pub manifest: v1::Manifest,
    /// The log behind it begins with the first transaction, and so gives the graph.
    pub with_graph: bool,
    pub covered: Covered,
    /// The last transaction of which a segment holds rows.
    pub stored: u64,
    /// The last transaction of which large appends are, or may be.
    last_large: u64,
    pub losses: Vec<Loss>,
    pub assumed: Vec<String>,
}

/// The longest sound part of the log that reaches furthest.
#[derive(Default)]
struct Survey {
    /// Number of its first file.
    file: u64,
    /// Its first transaction.
    first: u64,
    /// The transaction behind its last.
    next: u64,
    /// Series by their folders.
    series: BTreeMap<String, String>,
    /// Segments that transactions name, with their seqs.
    named: BTreeMap<u64, u64>,
    /// Deletes in each series, by rising seqs.
    deletes: BTreeMap<String, Vec<v1::Delete>>,
    /// Rules of each series, by rising seqs.
    rules: BTreeMap<String, Vec<v1::SeriesRules>>,
    /// Logical types of the columns of each series.
    types: BTreeMap<String, LogicalTypes>,
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
        with_graph: false,
        covered: Covered::new(),
        stored: 0,
        last_large: 0,
        losses: Vec::new(),
        assumed: Vec::new(),
    };
    let mut by_series: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for name in all_files(&**disk)? {
        gathered.take(disk, database, &name, survey.as_ref(), &mut by_series)?;
    }
    let stored = by_series.values().flatten().filter_map(|found| found.last_seq()).max();
    let stored = stored.unwrap_or(0);
    gathered.stored = stored;
    // The log's transactions are taken where they lead behind what the segments hold; what is in both is taken once.
    // Of a log that does not lead so far that counts which says more of what they hold.
    let (log, told) = match survey {
        Some(log) if log.next > stored => (Some(log), Survey::default()),
        survey => (None, survey.unwrap_or_default()),
    };
    gathered.with_graph = log.as_ref().is_some_and(|log| log.first == 1);
    for (series, found) in by_series {
        gathered.add_series(series, found, log.as_ref(), &told)?;
    }
    match log.as_ref().and_then(|log| log.gap(inspected, stored)) {
        Some(Ok(loss)) => gathered.losses.push(loss),
        Some(Err(assumed)) => gathered.assumed.push(assumed),
        None => {}
    }
    let manifest = &mut gathered.manifest;
    if manifest.series.is_empty() && manifest.packs.is_empty() && log.is_none() {
        return Ok(None);
    }
    manifest.seq = log.as_ref().map_or(stored.max(gathered.last_large).max(1), |log| log.first - 1);
    // A run takes a transaction at least, so no run has this number.
    manifest.next_run = log.map_or(0, |log| log.next).max(manifest.seq) + 1;
    let mut lengths = inspected.iter().rev().filter_map(|file| Some(file.header.as_ref().ok()?.file_len));
    manifest.log_file_bytes = lengths.next().unwrap_or(64 << 20);
    gathered.assumed.insert(
        0,
        format!(
            "no manifest is left, so that the segments and packs in the folders were taken, and of segments that hold rows of \
             the same transactions the newest; the segments hold transactions up to {stored}; where the log does not delete \
             them once more, deleted rows are back if no checkpoint had applied the delete yet, if all rows of their \
             segment were deleted, or if the segment that was written without them is damaged; rules of series that the log does not tell are gone: all rows are kept and shown until `ubctl series define NAME --again` (`redefine_series`) says otherwise; where the log does not tell that a column holds decimals or instants of a zone, it holds scaled integers and instants of no zone: append decimals to another column (`Row::decimal`, `import --columns NAME:decimal(SCALE)`), name the zone again (`series define NAME --columns COLUMN:timestamp[ZONE]`)"
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
        let mut survey = Survey { file: number, first, ..Survey::default() };
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
                    let is_there = |found: &&FileInspection| damage.file() == Some(&*found.file);
                    inspected.iter().find(is_there).map_or(number, |found| found.number)
                })
            }
        };
        let Some(damaged) = damaged else { break };
        at = starts.partition_point(|(other, _)| *other <= damaged.max(number));
    }
    Ok(best)
}

impl Survey {
    /// What parts it from what segments hold, and the transactions between them; `stored` is the last of which segments hold
    /// rows. Where no older file of the log is left, nothing says that one of them is lost.
    fn gap(&self, inspected: &[FileInspection], stored: u64) -> Option<Result<Loss, String>> {
        let (first, last) = (stored.saturating_add(1), self.first - 1);
        if first > last {
            return None;
        }
        let lost = format!("transactions {first} to {last}, of which no segment holds rows");
        let older: Vec<&FileInspection> = inspected.iter().filter(|found| found.number < self.file).collect();
        let Some(oldest) = older.first() else {
            return Some(Err(format!(
                "no segment holds rows of the transactions {first} to {last}, and the log begins with {}; they were taken \
                 for such as appended nothing that is still there",
                self.first
            )));
        };
        let damage = older.iter().flat_map(|found| found.damages()).find_map(|damage| match &damage {
            WalError::Corrupt { file, seq, .. } if *seq <= last => {
                Some(Loss::new(file.clone(), &damage.into(), lost.clone()))
            }
            _ => None,
        });
        let missing = || {
            let is_there = |number: &u64| older.iter().any(|found| found.number == *number);
            let number = (oldest.number..self.file).find(|number| !is_there(number)).unwrap_or(self.file);
            let damage = match number < self.file {
                true => "it is missing".to_string(),
                false => "it does not follow on from the file before it".to_string(),
            };
            Loss { file: log_name(number), offset: None, damage, lost: lost.clone() }
        };
        Some(Ok(damage.unwrap_or_else(missing)))
    }

    fn note(&mut self, seq: u64, payload: &[u8]) {
        let Ok((_, record)) = record::decode(payload) else { return };
        for append in record.appends {
            if let v1::Rows::Segment(reference) = &append.rows {
                self.named.insert(reference.file, seq);
            }
            self.series.insert(files::segment_dir(&append.series), append.series);
        }
        for v1::SeriesDelete { series, delete } in record.deletes {
            self.deletes.entry(series).or_default().push(v1::Delete { seq, ..delete });
        }
        for rules in record.rules {
            let of_series = self.rules.entry(rules.series.clone()).or_default();
            of_series.push(v1::SeriesRules { seq, ..rules });
        }
        for (series, types) in record.types {
            let of_series = self.types.entry(series).or_default();
            of_series.extend(&types);
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
            let opened = Chunks::open(&**disk, name, database).map_err(OpenError::from);
            let loss = |error: &OpenError| Loss::new(name, error, "large objects");
            if let Some(chunks) = loss_or_end(opened, loss, &mut self.losses)? {
                let known = chunks.objects().map(|(id, bytes)| v1::Chunk { id: id.0, file, bytes });
                self.manifest.chunks.extend(known);
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

    /// Takes in those segments of a series of which no newer one has taken the place. `log` is what will be applied of the
    /// log; `told` is what it says where nothing of it will.
    fn add_series(
        &mut self,
        series: String,
        mut found: Vec<Found>,
        log: Option<&Survey>,
        told: &Survey,
    ) -> Result<(), OpenError> {
        found.sort_by_key(|found| std::cmp::Reverse(found.file));
        let (mut covered, mut replaced, mut kept) = (BTreeSet::new(), BTreeSet::new(), Vec::<Found>::new());
        let (mut columns, mut segments) = (Vec::new(), Vec::new());
        for found in found {
            let seq = told.named.get(&found.file).copied().filter(|_| !found.segment.has_seqs());
            let seqs: Vec<u64> = found.counts.keys().copied().chain(seq).collect();
            if replaced.contains(&found.file) || seqs.iter().any(|seq| covered.contains(seq)) {
                continue;
            }
            let file = files::segment(&series, found.file);
            let rows = found.segment.rows();
            let mut assumed = None;
            if seqs.is_empty() {
                // Its transaction brings it along, or was never committed, where the log would name it.
                let is_told =
                    |log: &Survey| log.named.contains_key(&found.file) || found.first_seq() >= log.first;
                if log.is_some_and(is_told) {
                    continue;
                }
                let mut same = None;
                for other in kept.iter().filter(|other| !other.segment.has_seqs()) {
                    same = found.is_again(other)?.then_some(other.file).or(same);
                }
                if let Some(same) = same {
                    self.assumed.push(format!(
                        "{file} holds the same {rows} rows of series {series:?} as {}, and nothing says that it was \
                         committed; they were taken once",
                        files::segment(&series, same)
                    ));
                    continue;
                }
                assumed = Some(format!(
                    "nothing says which transaction appended the {rows} rows of series {series:?} in {file}, nor that it \
                     was committed; they were taken for rows of transaction {}, the first that it may have been",
                    found.first_seq()
                ));
            }
            // A segment that cannot be taken takes no other's place.
            if let Some(damage) = found.add_columns(&mut columns) {
                let lost = format!("{rows} rows of series {series:?}");
                self.losses.push(Loss { file, offset: None, damage, lost });
                continue;
            }
            segments.push(found.reference(match found.segment.has_seqs() {
                true => 0,
                false => seq.unwrap_or_else(|| found.first_seq()),
            }));
            covered.extend(seqs);
            replaced.extend(found.segment.replaced().iter().map(|replaced| replaced.file));
            self.last_large = self.last_large.max(found.first_seq());
            self.assumed.extend(assumed);
            kept.push(found);
        }
        if segments.is_empty() {
            return Ok(());
        }
        columns.sort_by_key(|column: &v1::SchemaColumn| !column.key);
        segments.sort_unstable_by_key(|segment| segment.file);
        let assigned = segments.iter().map(|segment| segment.seq).max();
        let last_seq = covered.last().copied().max(assigned).unwrap_or(1);
        let inexact: BTreeSet<String> =
            kept.iter().flat_map(|found| inexact::in_segment(&found.segment)).collect();
        self.manifest.series.push(v1::Series {
            name: series.clone(),
            columns,
            segments,
            last_seq,
            deletes: told.deletes.get(&series).cloned().unwrap_or_default(),
            inexact: inexact.into_iter().collect(),
            made: 0,
            added: Vec::new(),
            horizon: last_seq,
            rules: told.rules.get(&series).cloned().unwrap_or_default(),
            types: log.unwrap_or(told).types.get(&series).cloned().unwrap_or_default(),
            appended_bytes: 0,
            written_bytes: 0,
        });
        self.covered.insert(series, covered);
        Ok(())
    }
}
