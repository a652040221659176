//! Rows of one identity (keys and timestamp): which of several are shown.
//!
//! What hides a row here is another row, so it is found where the runs meet. [`resolved`] makes of the runs of a type one run
//! that shows the rows which are left: its groups are slices of time, each read when somebody asks for it. A group has room for
//! all rows that its slice may hold; behind those that are left stand rows of a seq that no reader reaches.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{HashMap, HashSet};
use underbelly_storage::{Column, Columns, Timestamp, Value};

use crate::budget::Budget;
use crate::gather::{append, fitted, rows_taken};
use crate::group::{Group, Order, Place, Wanted};
use crate::ids::KeyIds;
use crate::interval::{Closed, Interval};
use crate::key::encode;
use crate::{
    ColumnZone, MemoryRun, QueryError, Run, Scan, Schema, SchemaColumn, Seqs, Source, TIMESTAMP, Tombstones,
    Zone,
};

/// What becomes of rows of a series type that have the same keys and the same timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Duplicates {
    /// All stay, in order of commit and arrival.
    #[default]
    KeepAll,
    /// The last row is shown, as it was given: a field that it leaves out is null.
    LastWins,
    /// One row is shown, at the place of the last: in each field the last value that is not null.
    LastNonNull,
    /// A second row is refused, and with it its whole transaction. Rows that were there before this was asked for stay.
    Reject,
}

impl Duplicates {
    /// Whether a reader sees fewer rows than are stored.
    pub fn resolves(self) -> bool {
        matches!(self, Duplicates::LastWins | Duplicates::LastNonNull)
    }

    /// As it is called in text.
    pub fn name(self) -> &'static str {
        match self {
            Duplicates::KeepAll => "keep-all",
            Duplicates::LastWins => "last-wins",
            Duplicates::LastNonNull => "last-non-null",
            Duplicates::Reject => "reject",
        }
    }
}

impl std::fmt::Display for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The seq of rows that only fill a group up.
const NOBODYS: u64 = u64::MAX;
/// Rows from which on a slice ends at the next group.
const SLICE_ROWS: usize = 131_072;
/// Slices that are kept after they were read, for each who shares the work: times, seqs and columns are asked for one after another.
const KEPT_SLICES: usize = 4;

/// A group, or the part of it that lies in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    run: usize,
    group: usize,
}

/// A stretch of time, and the groups that may hold rows of it.
struct Slice {
    interval: Interval,
    /// In the order of runs.
    parts: Vec<Part>,
    zone: Zone,
}

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    ts: i64,
    seq: u64,
    part: u32,
    row: u32,
}

/// What of a slice is shown.
enum Shown {
    /// Its one group, as it is.
    Whole(Part),
    Some {
        rows: Vec<At>,
        /// For rows that stand for several the others, the newest first.
        older: HashMap<u32, Vec<At>>,
    },
}

struct Resolved {
    runs: Arc<[Arc<dyn Run>]>,
    schema: Arc<Schema>,
    slices: Vec<Slice>,
    duplicates: Duplicates,
    tombstones: Tombstones,
    seq: u64,
    /// How many share the work.
    workers: usize,
    /// The slices that were read last.
    read: Mutex<VecDeque<(usize, Arc<Shown>)>>,
}

/// The rows that a reader at `seq` sees of the runs of a type whose duplicates are resolved, as one run: without the rows that
/// `tombstones` hide, and of those with the same keys and timestamp one. A reader of it needs no tombstones. `workers`: how many
/// read it at once.
pub fn resolved(
    runs: Arc<[Arc<dyn Run>]>,
    schema: Arc<Schema>,
    tombstones: Tombstones,
    seq: u64,
    duplicates: Duplicates,
    workers: usize,
) -> Arc<dyn Run> {
    let slices = slices(&runs);
    Arc::new(Resolved { runs, schema, slices, duplicates, tombstones, seq, workers, read: Mutex::default() })
}

/// Cuts time where groups begin, so that rows of one timestamp are in one slice, and a group in as few as may be.
fn slices(runs: &[Arc<dyn Run>]) -> Vec<Slice> {
    let groups = |(run, of): (usize, &Arc<dyn Run>)| {
        (0..of.groups()).map(|group| (of.zone(group), Part { run, group })).collect::<Vec<_>>()
    };
    let mut groups: Vec<(Zone, Part)> = runs.iter().enumerate().flat_map(groups).collect();
    groups.retain(|(zone, _)| zone.rows > 0);
    groups.sort_by_key(|(zone, part)| (zone.ts_min, *part));
    let mut slices = Vec::new();
    // Groups that reach into the slice that is made.
    let mut open: Vec<(Zone, Part)> = Vec::new();
    let mut from = groups.first().map_or(0, |(zone, _)| zone.ts_min);
    for (zone, part) in groups {
        // Those that begin in it: one that reaches over all of time fills no slice by itself.
        let begun = open.iter().filter(|(before, _)| before.ts_min >= from);
        let rows = begun.map(|(before, _)| before.rows).sum::<usize>();
        let is_apart = open.iter().all(|(before, _)| before.ts_max < zone.ts_min);
        if zone.ts_min > from && !open.is_empty() && (rows >= SLICE_ROWS || is_apart) {
            slices.push(Slice::new(from, zone.ts_min - 1, &open));
            open.retain(|(before, _)| before.ts_max >= zone.ts_min);
            from = zone.ts_min;
        }
        open.push((zone, part));
    }
    if let Some(last) = open.iter().map(|(zone, _)| zone.ts_max).max() {
        slices.push(Slice::new(from, last, &open));
    }
    slices
}

impl Slice {
    fn new(first: i64, last: i64, groups: &[(Zone, Part)]) -> Slice {
        let mut parts: Vec<Part> = groups.iter().map(|(_, part)| *part).collect();
        parts.sort_unstable();
        let zones = || groups.iter().map(|(zone, _)| zone);
        let zone = Zone {
            rows: zones().map(|zone| zone.rows).sum(),
            ts_min: zones().map(|zone| zone.ts_min.max(first)).min().unwrap_or(first),
            ts_max: zones().map(|zone| zone.ts_max.min(last)).max().unwrap_or(last),
            seq_min: zones().map(|zone| zone.seq_min).min().unwrap_or(0),
            // Not known before it is read, and never that of all rows.
            seq_max: NOBODYS,
        };
        Slice { interval: Interval { first, last }, parts, zone }
    }
}

impl Resolved {
    fn slice(&self, at: usize) -> Result<&Slice, QueryError> {
        let gone = || QueryError::Malformed {
            run: 0,
            group: at,
            what: "the slice".to_string(),
            expected: self.slices.len(),
            found: at,
        };
        self.slices.get(at).ok_or_else(gone)
    }

    fn run(&self, part: Part) -> Option<Place<'_>> {
        self.runs.get(part.run).map(|run| Place { run: &**run, position: part.run })
    }

    /// What of a slice is shown, read unless it was among the last.
    fn shown(&self, at: usize) -> Result<Arc<Shown>, QueryError> {
        let known = |read: &VecDeque<(usize, Arc<Shown>)>| {
            read.iter().find(|(slice, _)| *slice == at).map(|(_, shown)| shown.clone())
        };
        let lock = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shown) = known(&lock()) {
            return Ok(shown);
        }
        let shown = Arc::new(self.resolve(self.slice(at)?)?);
        let mut read = lock();
        if known(&read).is_none() {
            read.truncate((KEPT_SLICES * self.workers).max(1) - 1);
            read.push_front((at, shown.clone()));
        }
        Ok(shown)
    }

    fn resolve(&self, slice: &Slice) -> Result<Shown, QueryError> {
        let wanted = Wanted {
            interval: slice.interval,
            after: 0,
            seq: self.seq,
            filters: Vec::new(),
            tests: Vec::new(),
            of_filters: Vec::new(),
            not_at: Vec::new(),
            only_at: None,
            columns: Vec::new(),
            tombstones: self.tombstones.clone(),
            order: Order::Time,
            budget: Budget::ALL,
        };
        let mut rows: Vec<At> = Vec::new();
        for (part, of) in (0..).zip(&slice.parts) {
            let Some(place) = self.run(*of) else { continue };
            let zone = place.run.zone(of.group);
            if wanted.hidden(&zone) {
                continue;
            }
            let (mut group, all) = (Group::new(place, of.group)?, 0..zone.rows);
            let selected = wanted.select(&mut group, all.clone())?;
            if selected.selection.len() == 0 {
                continue;
            }
            let seqs = match selected.seqs {
                Some(seqs) => seqs,
                None => group.seqs(&all)?,
            };
            let timestamps = match selected.timestamps {
                Some(timestamps) => timestamps,
                None => group.timestamps(&all)?,
            };
            let at = |row: u32| {
                let ts = timestamps.get(row as usize).copied().unwrap_or(zone.ts_max);
                At { ts, seq: seqs.get(row as usize), part, row }
            };
            rows.extend(selected.selection.into_rows().into_iter().map(at));
        }
        if slice.parts.len() > 1 {
            rows.sort_unstable();
        }
        let tied = tied(&rows);
        let (superseded, older) = match tied.is_empty() {
            true => Default::default(),
            false => superseded(&rows, &tied, &self.key_ids(slice, &rows, &tied)?),
        };
        match slice.parts[..] {
            [part] if rows.len() == slice.zone.rows && superseded.is_empty() => Ok(Shown::Whole(part)),
            _ if self.duplicates == Duplicates::LastNonNull => Ok(without(rows, &superseded, older)),
            _ => Ok(without(rows, &superseded, HashMap::new())),
        }
    }

    /// Numbers of the keys of rows that are not alone at their time.
    fn key_ids(&self, slice: &Slice, rows: &[At], tied: &[u32]) -> Result<Vec<u32>, QueryError> {
        let mut keys = Vec::new();
        for key in self.schema.keys() {
            let parts = self.parts_of(slice, key)?;
            let mut column = Column::with_capacity(key.column_type, tied.len());
            for at in tied.iter().filter_map(|row| rows.get(*row as usize)) {
                let from = parts.get(at.part as usize).and_then(Option::as_deref);
                append(&mut column, from, at.row as usize..at.row as usize + 1, &key.name)?;
            }
            keys.push(column);
        }
        Ok(numbered(&keys, tied.len()))
    }

    /// A column of each part of a slice, with the type of the schema.
    fn parts_of(
        &self,
        slice: &Slice,
        column: &SchemaColumn,
    ) -> Result<Vec<Option<Cow<'_, Column>>>, QueryError> {
        let part = |part: &Part| {
            let Some(place) = self.run(*part) else { return Ok(None) };
            let read = column_of(place, part.group, &column.name)?;
            read.map(|read| fitted(read, column.column_type, &column.name)).transpose()
        };
        slice.parts.iter().map(part).collect()
    }
}

/// A whole column of a group.
fn column_of<'r>(
    place: Place<'r>,
    number: usize,
    name: &Arc<str>,
) -> Result<Option<Cow<'r, Column>>, QueryError> {
    let mut group = Group::new(place, number)?;
    let all = 0..group.zone.rows;
    group.lane(name, &all)?.map(|lane| lane.column(name)).transpose()
}

fn numbered(keys: &[Column], rows: usize) -> Vec<u32> {
    let (keys, mut ids) = (keys.iter().collect::<Vec<_>>(), Vec::new());
    KeyIds::new(&keys).number(&keys, rows, &mut ids);
    ids
}

/// The places of rows that are not alone at their time, rising. Rows are below 2^32, as the groups' opening checks.
fn tied(rows: &[At]) -> Vec<u32> {
    let ts = |row: usize| rows.get(row).map(|row| row.ts);
    let has_twin = |row: &usize| ts(row + 1) == ts(*row) || *row > 0 && ts(row - 1) == ts(*row);
    (0..rows.len()).filter(has_twin).map(|row| row as u32).collect()
}

/// The places of rows behind which another of their time and key stands, and for each that is left the others, the newest
/// first. `ids` number the keys of those that are tied.
fn superseded(rows: &[At], tied: &[u32], ids: &[u32]) -> (HashSet<u32>, HashMap<u32, Vec<At>>) {
    let (mut superseded, mut older) = (HashSet::new(), HashMap::<u32, Vec<At>>::new());
    // For each key the row that is left at the time that is looked at.
    let mut left: HashMap<u32, (i64, u32)> = HashMap::new();
    for (place, id) in tied.iter().zip(ids).rev() {
        let Some(row) = rows.get(*place as usize) else { continue };
        match left.get(id) {
            Some((ts, newest)) if *ts == row.ts => {
                superseded.insert(*place);
                older.entry(*newest).or_default().push(*row);
            }
            _ => drop(left.insert(*id, (row.ts, *place))),
        }
    }
    (superseded, older)
}

/// The rows that are left, and the others by their new places.
fn without(rows: Vec<At>, superseded: &HashSet<u32>, mut older: HashMap<u32, Vec<At>>) -> Shown {
    let (mut left, mut moved) = (Vec::with_capacity(rows.len() - superseded.len()), HashMap::new());
    for (place, row) in (0..).zip(rows) {
        if superseded.contains(&place) {
            continue;
        }
        if let Some(others) = older.remove(&place) {
            moved.insert(left.len() as u32, others);
        }
        left.push(row);
    }
    Shown::Some { rows: left, older: moved }
}

impl Run for Resolved {
    fn groups(&self) -> usize {
        self.slices.len()
    }

    fn zone(&self, group: usize) -> Zone {
        self.slices.get(group).map_or(Zone::default(), |slice| slice.zone)
    }

    fn passed(&self, group: usize) {
        let parts = self.slices.get(group).map(|slice| &slice.parts[..]).unwrap_or_default();
        for part in parts {
            if let Some(place) = self.run(*part) {
                place.run.passed(part.group);
            }
        }
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        let zone = self.slice(group)?.zone;
        match &*self.shown(group)? {
            Shown::Whole(part) => match self.run(*part) {
                Some(place) => Group::new(place, part.group)?.timestamps(&(0..zone.rows)),
                None => Ok(Cow::Borrowed(&[])),
            },
            Shown::Some { rows, .. } => {
                let mut timestamps: Vec<i64> = rows.iter().map(|row| row.ts).collect();
                timestamps.resize(zone.rows, zone.ts_max);
                Ok(Cow::Owned(timestamps))
            }
        }
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        let zone = self.slice(group)?.zone;
        match &*self.shown(group)? {
            Shown::Whole(part) => match self.run(*part) {
                Some(place) => Group::new(place, part.group)?.seqs(&(0..zone.rows)),
                None => Ok(Seqs::One(NOBODYS)),
            },
            Shown::Some { rows, .. } => {
                let mut seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
                seqs.resize(zone.rows, NOBODYS);
                Ok(Seqs::Each(Cow::Owned(seqs)))
            }
        }
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        let slice = self.slice(group)?;
        let shown = self.shown(group)?;
        let (rows, older) = match &*shown {
            Shown::Whole(part) => {
                return self.run(*part).map_or(Ok(None), |place| column_of(place, part.group, &name.into()));
            }
            Shown::Some { rows, older } => (rows, older),
        };
        let Some(column) = self.schema.columns.iter().find(|column| &*column.name == name) else {
            return Ok(None);
        };
        let parts = self.parts_of(slice, column)?;
        if parts.iter().all(Option::is_none) {
            return Ok(None);
        }
        let part = |at: &At| parts.get(at.part as usize).and_then(Option::as_deref);
        let is_there = |at: &&At| part(at).is_some_and(|column| !column.is_null(at.row as usize));
        let mut to = Column::with_capacity(column.column_type, slice.zone.rows);
        let mut rest = rows.as_slice();
        let mut place = 0u32;
        while let Some(at) = rest.first() {
            // Rows that follow each other in one part go together.
            let follow = rest.iter().zip(0..).take_while(|(next, i)| {
                next.part == at.part
                    && next.row == at.row + i
                    && (*i == 0 || !older.contains_key(&(place + i)))
            });
            let mut count = follow.count().max(1);
            let mut from = at;
            if let Some(others) = older.get(&place) {
                count = 1;
                from = Some(at).filter(is_there).or_else(|| others.iter().find(is_there)).unwrap_or(at);
            }
            append(&mut to, part(from), from.row as usize..from.row as usize + count, name)?;
            place += count as u32;
            rest = rest.get(count..).unwrap_or_default();
        }
        append(&mut to, None, 0..slice.zone.rows - rows.len(), name)?;
        Ok(Some(Cow::Owned(to)))
    }

    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        // What is shown of one group has values of that group. Null may be filled by a value of the same group too.
        match self.slices.get(group)?.parts[..] {
            [part] => self.run(part)?.run.column_zone(part.group, name),
            _ => None,
        }
    }
}

impl MemoryRun {
    /// The rows without those that no reader at `seq` or later sees because of others of this run, and the last commit that one
    /// of these others belongs to; 0 where all stay. Of `LastNonNull` a row goes where each of its values has one of a
    /// later row over it, as another run may hold what stands between the two.
    ///
    /// # Errors
    /// [`QueryError::ColumnType`] and [`QueryError::TooLarge`] as for a scan.
    pub fn without_superseded(
        &self,
        schema: &Schema,
        duplicates: Duplicates,
        seq: u64,
    ) -> Result<(MemoryRun, u64), QueryError> {
        let rows: Vec<At> = (0..)
            .zip(self.timestamps())
            .map(|(row, ts)| At { ts: *ts, seq: self.seqs().get(row as usize), part: 0, row })
            .collect();
        let tied = tied(&rows);
        if !duplicates.resolves() || tied.is_empty() {
            return Ok((self.clone(), 0));
        }
        let mut keys = Vec::new();
        for key in schema.keys() {
            keys.push(match self.columns().column(&key.name) {
                Some(column) => {
                    let column = fitted(Cow::Borrowed(column), key.column_type, &key.name)?;
                    crate::gather::taken(&column, &tied, &key.name)?
                }
                None => Column::nulls(key.column_type, tied.len()),
            });
        }
        let ids = numbered(&keys, tied.len());
        let fields: Vec<&Column> = match duplicates {
            Duplicates::LastNonNull => {
                let is_key = |name: &str| schema.keys().any(|key| &*key.name == name);
                self.columns().iter().filter(|(name, _)| !is_key(name)).map(|(_, column)| column).collect()
            }
            _ => Vec::new(),
        };
        // For each key the time that is looked at, the last commit over it, and which fields have a value there.
        let mut over: HashMap<u32, (i64, u64, Vec<bool>)> = HashMap::new();
        let (mut gone, mut last_seq) = (HashSet::new(), 0);
        for (place, id) in tied.iter().zip(&ids).rev() {
            let Some(row) = rows.get(*place as usize) else { continue };
            let is_null = |field: &Column| field.is_null(*place as usize);
            if let Some((ts, by, has)) = over.get(id)
                && *ts == row.ts
                && fields.iter().zip(has).all(|(field, has)| *has || is_null(field))
            {
                gone.insert(*place);
                last_seq = last_seq.max(*by);
            }
            if row.seq > seq {
                continue;
            }
            match over.get_mut(id) {
                Some((ts, _, has)) if *ts == row.ts => {
                    has.iter_mut().zip(&fields).for_each(|(has, field)| *has |= !is_null(field));
                }
                _ => {
                    let has = fields.iter().map(|field| !is_null(field)).collect();
                    over.insert(*id, (row.ts, row.seq, has));
                }
            }
        }
        if gone.is_empty() {
            return Ok((self.clone(), 0));
        }
        let left: Vec<u32> = rows.iter().map(|row| row.row).filter(|row| !gone.contains(row)).collect();
        let at = |row: &u32| *row as usize;
        let timestamps = left.iter().filter_map(|row| self.timestamps().get(at(row)).copied()).collect();
        let seqs = left.iter().map(|row| self.seqs().get(at(row))).collect();
        Ok((MemoryRun::with_seqs(timestamps, seqs, rows_taken(self.columns(), &left)?)?, last_seq))
    }
}

/// Instants up to which each is looked for by itself.
const INSTANTS_APART: usize = 16;
/// Instants that are looked for together.
const INSTANTS_TOGETHER: usize = 1_024;
/// Rows of whole groups between two instants from which on these are not looked for together.
const GAP_ROWS: usize = 4_096;
/// Keys up to which each is looked for by itself.
const KEYS_APART: usize = 16;

/// When a row counts as one that is there already. Null equals null, NaN equals NaN, zero equals negative zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Same {
    /// Where a row, of the source or before it, has its timestamp and keys.
    Identity,
    /// Where such a row has its fields too.
    Row,
    /// Where the last row that has its timestamp and keys, among the rows before it or else in the source, has its fields too.
    Shown {
        /// How many of the columns that are given are keys; they come first.
        keys: usize,
    },
}

/// Whether each of some rows is there already: in the source, or before it among the rows. A column that is not given is null;
/// for [`Same::Identity`] the keys are to be given alone.
///
/// # Errors
/// As a scan of the source; [`QueryError::ColumnType`] where a column is none that widens to the source's.
pub fn repeated<'c>(
    source: &dyn Source,
    timestamps: &[i64],
    columns: &[(&Arc<str>, &'c Column)],
    same: Same,
) -> Result<Vec<bool>, QueryError> {
    let whole = same != Same::Identity;
    let compared: Vec<&SchemaColumn> = source.schema().columns.iter().filter(|c| c.key || whole).collect();
    let given = |column: &&SchemaColumn| {
        let found = columns.iter().find(|(name, _)| **name == column.name);
        let fit = |(_, found): &(&Arc<str>, &'c Column)| {
            // What is there is widened where the given column is the wider one.
            let common = column.column_type.common(found.column_type()).unwrap_or(column.column_type);
            fitted(Cow::Borrowed(*found), common, &column.name)
        };
        found.map(fit).transpose()
    };
    let given = compared.iter().map(given).collect::<Result<Vec<_>, _>>()?;
    // Columns that the source has not yet are told apart as they are; what it stores has none.
    let is_new = |name: &&Arc<str>| source.schema().columns.iter().all(|column| column.name != **name);
    let new_of = |columns: &[(&Arc<str>, &'c Column)]| -> Vec<Cow<'_, Column>> {
        columns.iter().filter(|(name, _)| is_new(name)).map(|(_, column)| Cow::Borrowed(*column)).collect()
    };
    // A value that no stored row can have.
    let encode_new = |new: &[Cow<'_, Column>], row: usize, bytes: &mut Vec<u8>| {
        if new.iter().any(|column| !column.is_null(row)) {
            new.iter().for_each(|column| encode(Some(column), row, bytes));
        }
    };
    let new = new_of(columns);
    // What is kept is one entry for each row that is given, however many are read.
    let mut ids: HashMap<Vec<u8>, usize> = HashMap::new();
    let id = |(row, ts): (usize, &i64)| {
        let mut bytes = Vec::new();
        identity(*ts, &given, row, &mut bytes);
        encode_new(&new, row, &mut bytes);
        let next = ids.len();
        *ids.entry(bytes).or_insert(next)
    };
    let of_rows: Vec<usize> = timestamps.iter().enumerate().map(id).collect();
    let mut is_there = vec![false; ids.len()];
    let mut bytes = Vec::new();
    for sought in sought(timestamps, &compared, &given) {
        for instants in chunks(source, &sought.instants) {
            let (Some(first), Some(last)) = (instants.first(), instants.last()) else { continue };
            let scan = Scan::new(source).from(Timestamp(*first)).to(Timestamp(*last)).closed(Closed::Both);
            let scan = sought.keys.iter().fold(scan, |scan, (name, value)| scan.key(name, value.clone()));
            for batch in scan.columns(compared.iter().map(|column| &*column.name)).batches() {
                let batch: Columns = batch?;
                let Some(times) = batch.timestamps(TIMESTAMP) else { continue };
                let of_batch = |(column, given): (&&SchemaColumn, &Option<Cow<'_, Column>>)| {
                    let wanted = given.as_ref().map_or(column.column_type, |given| given.column_type());
                    let stored = batch.column(&column.name).map(Cow::Borrowed);
                    stored.map(|stored| fitted(stored, wanted, &column.name)).transpose()
                };
                let stored: Vec<Option<Cow<'_, Column>>> =
                    compared.iter().zip(&given).map(of_batch).collect::<Result<_, _>>()?;
                for (row, ts) in times.iter().enumerate().filter(|(_, ts)| instants.binary_search(ts).is_ok())
                {
                    bytes.clear();
                    identity(*ts, &stored, row, &mut bytes);
                    if let Some(there) = ids.get(&*bytes).and_then(|id| is_there.get_mut(*id)) {
                        *there = true;
                    }
                }
            }
        }
    }
    let Same::Shown { keys: given_keys } = same else {
        // The next one of the rows finds this one.
        let is_known = |id: &usize| is_there.get_mut(*id).is_some_and(|there| std::mem::replace(there, true));
        return Ok(of_rows.iter().map(is_known).collect());
    };
    let new_keys = new_of(columns.get(..given_keys).unwrap_or(columns));
    let is_key = compared.iter().map(|column| column.key);
    let keys: Vec<_> =
        given.iter().zip(is_key).filter(|(_, key)| *key).map(|(column, _)| column.clone()).collect();
    // The rows that come to stand over those of the source.
    let mut last: HashMap<Vec<u8>, usize> = HashMap::new();
    let is_shown = |((row, ts), id): ((usize, &i64), &usize)| {
        let mut bytes = Vec::new();
        identity(*ts, &keys, row, &mut bytes);
        encode_new(&new_keys, row, &mut bytes);
        let is_shown = match last.get(&bytes) {
            Some(last) => last == id,
            None => is_there.get(*id).is_some_and(|there| *there),
        };
        if !is_shown {
            last.insert(bytes, *id);
        }
        is_shown
    };
    Ok(timestamps.iter().enumerate().zip(&of_rows).map(is_shown).collect())
}

/// What tells a row apart from others.
fn identity(ts: i64, columns: &[Option<Cow<'_, Column>>], row: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&ts.to_le_bytes());
    columns.iter().for_each(|column| encode(column.as_ref(), row, bytes));
}

/// Rows that are looked for by one key, or whatever their keys are.
struct Sought {
    keys: Vec<(Arc<str>, Value)>,
    /// Rising, each once.
    instants: Vec<i64>,
}

/// What is looked for: of few keys each by itself, so that of others no row is read; of many all together.
fn sought(timestamps: &[i64], compared: &[&SchemaColumn], given: &[Option<Cow<'_, Column>>]) -> Vec<Sought> {
    let keys: Vec<(&SchemaColumn, Option<&Cow<'_, Column>>)> = compared
        .iter()
        .copied()
        .zip(given.iter().map(Option::as_ref))
        .filter(|(column, _)| column.key)
        .collect();
    // A key of another type is compared as what both are widened to.
    let is_typed =
        keys.iter().all(|(key, given)| given.is_none_or(|given| given.column_type() == key.column_type));
    let mut by_key: HashMap<Vec<u8>, Sought> = HashMap::new();
    let mut bytes = Vec::new();
    for (row, ts) in timestamps.iter().enumerate().filter(|_| is_typed) {
        bytes.clear();
        keys.iter().for_each(|(_, given)| encode(*given, row, &mut bytes));
        if let Some(sought) = by_key.get_mut(&*bytes) {
            sought.instants.push(*ts);
            continue;
        }
        let value = |(key, given): &(&SchemaColumn, Option<&Cow<'_, Column>>)| {
            (key.name.clone(), given.map_or(Value::Null, |given| given.get(row)))
        };
        let sought = Sought { keys: keys.iter().map(value).collect(), instants: vec![*ts] };
        by_key.insert(bytes.clone(), sought);
        if by_key.len() > KEYS_APART {
            break;
        }
    }
    let mut sought: Vec<Sought> = match by_key.len() {
        1..=KEYS_APART => by_key.into_values().collect(),
        _ => vec![Sought { keys: Vec::new(), instants: timestamps.to_vec() }],
    };
    for sought in &mut sought {
        sought.instants.sort_unstable();
        sought.instants.dedup();
    }
    sought
}

/// Instants that are looked for by one scan each: few each by itself, others as far as little lies between them.
fn chunks<'i>(source: &dyn Source, instants: &'i [i64]) -> Vec<&'i [i64]> {
    if instants.len() <= INSTANTS_APART {
        return instants.chunks(1).collect();
    }
    // Rows of groups that lie whole before an instant and behind the one before it.
    let mut between: BTreeMap<usize, usize> = BTreeMap::new();
    for run in source.runs() {
        for zone in (0..run.groups()).map(|group| run.zone(group)) {
            let next = instants.partition_point(|ts| *ts < zone.ts_min);
            if instants.get(next).is_some_and(|ts| *ts > zone.ts_max) {
                *between.entry(next).or_default() += zone.rows;
            }
        }
    }
    let mut chunks = Vec::new();
    let mut rest = instants;
    for (at, rows) in between {
        if rows >= GAP_ROWS {
            let (before, behind) = rest.split_at(at - (instants.len() - rest.len()));
            chunks.extend(before.chunks(INSTANTS_TOGETHER));
            rest = behind;
        }
    }
    chunks.extend(rest.chunks(INSTANTS_TOGETHER));
    chunks
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use underbelly_storage::ColumnType;

    struct Stored(Schema, Vec<Arc<dyn Run>>);

    impl Source for Stored {
        fn schema(&self) -> &Schema {
            &self.0
        }

        fn runs(&self) -> &[Arc<dyn Run>] {
            &self.1
        }

        fn seq(&self) -> u64 {
            9
        }
    }

    /// Each run is one group of so many rows, a nanosecond apart.
    fn stored(groups: &[(i64, usize)]) -> Stored {
        let key = SchemaColumn { name: "k".into(), column_type: ColumnType::I64, key: true };
        let run = |(from, rows): &(i64, usize)| {
            let keys = Columns::new().with("k", Column::from(vec![0i64; *rows])).unwrap();
            Arc::new(MemoryRun::new((*from..).take(*rows).collect(), keys, 1).unwrap()) as Arc<dyn Run>
        };
        Stored(Schema { columns: vec![key] }, groups.iter().map(run).collect())
    }

    /// What lies whole between two instants is not read, if it is worth another scan.
    #[test]
    fn instants_far_apart_are_not_looked_for_together() {
        let source = stored(&[(0, 100), (1_000, GAP_ROWS), (10_000, GAP_ROWS - 1), (20_000, 100)]);
        // Ten years ago, and today.
        let instants: Vec<i64> = (0..10).chain(9_000..9_010).chain(20_000..20_010).collect();
        assert_eq!(chunks(&source, &instants), [&instants[..10], &instants[10..]]);
        let few = &instants[..INSTANTS_APART];
        assert_eq!(chunks(&source, few), few.chunks(1).collect::<Vec<_>>());
        let many: Vec<i64> = (20_000..20_000 + INSTANTS_TOGETHER as i64 + 5).collect();
        assert_eq!(chunks(&source, &many).iter().map(|chunk| chunk.len()).collect::<Vec<_>>(), [1024, 5]);
        // One group over all of time is no gap.
        let long = stored(&[(0, 30_000)]);
        assert_eq!(chunks(&long, &instants), [&instants[..]]);
    }

    /// A group that reaches over all of time does not cut it wherever another begins.
    #[test]
    fn one_long_group_makes_no_more_slices() {
        let short: Vec<(i64, usize)> = (0..64).map(|at| (1_000 * at, 1_000)).collect();
        let mut groups = vec![(0, SLICE_ROWS)];
        groups.extend(&short);
        let cuts = |groups: &[(i64, usize)]| {
            slices(&stored(groups).1).iter().map(|slice| slice.parts.len()).collect::<Vec<_>>()
        };
        assert_eq!(cuts(&groups), [2, 64]);
        assert_eq!(cuts(&short), [1; 64]);
        let full: Vec<(i64, usize)> = (0..4).map(|at| (at, SLICE_ROWS)).collect();
        assert_eq!(cuts(&full), [1, 2, 3, 4]);
    }

    /// Rows of few keys are looked for by these.
    #[test]
    fn few_keys_are_looked_for_by_themselves() {
        let source = stored(&[(0, 100)]);
        let compared: Vec<&SchemaColumn> = source.0.columns.iter().collect();
        let sought = |keys: Vec<i64>| {
            let times: Vec<i64> = (0..keys.len() as i64).map(|at| 50 - at / 2).collect();
            let mut found = super::sought(&times, &compared, &[Some(Cow::Owned(Column::from(keys)))]);
            found.sort_by_key(|sought| sought.instants.clone());
            found
        };
        let found = sought(vec![7, 8, 7, 7]);
        let found: Vec<_> =
            found.iter().map(|sought| (sought.keys[0].1.clone(), &*sought.instants)).collect();
        assert_eq!(found, [(Value::I64(7), &[49, 50][..]), (Value::I64(8), &[50][..])]);
        let many = sought((0..=KEYS_APART as i64).collect());
        assert_eq!((many.len(), many[0].keys.len(), many[0].instants.len()), (1, 0, 9));
    }
}
