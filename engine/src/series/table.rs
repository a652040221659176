//! The runs of one series type: sealed segments, then young rows in memory in order of commit.
//!
//! Young runs are merged like tiers: [`YOUNG_RUNS_PER_CLASS`] runs of a size class at the end become one, and a run
//! takes in the smaller ones before it, so that many small commits leave few runs. Rows of small commits are first
//! pushed into a tail, which becomes a run when the table is read or captured, or when it is full. Rows keep their seq, so
//! a reader at an older seq still sees what it saw. Runs that a checkpoint captured are left alone until it is done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use underbelly_query::{LastPoints, MemoryRun, Run, Schema, SchemaColumn, TIMESTAMP, Tombstone};
use underbelly_storage::{Column, ColumnType, LogicalType, LogicalTypes};

use super::tail::{Few, Tail};
use super::{Hiding, Rules, SegmentRun, parents};
use crate::error::CommitError;
use crate::limits::{COLUMNS_MAX, NAME_BYTES_MAX, YOUNG_RUN_ROWS_MAX, YOUNG_RUNS_PER_CLASS};
use crate::record::v1;

/// All series by type.
pub(crate) type Tables = BTreeMap<Arc<str>, Table>;

pub(crate) struct Table {
    /// Integer fields that hold what an `f64` cannot.
    inexact: Arc<BTreeSet<String>>,
    schema: Arc<Schema>,
    /// Where the columns of the schema stand.
    places: HashMap<Arc<str>, usize>,
    sealed: Vec<Arc<SegmentRun>>,
    young: Vec<Arc<MemoryRun>>,
    /// All of them as they were last listed; `None` once one came or went.
    runs: Option<Arc<[Arc<dyn Run>]>>,
    /// The newest rows, as far as somebody asked for them.
    last_points: Arc<Mutex<LastPoints>>,
    /// The last commit of which deletes were done and are not among the tombstones any more.
    forgotten: u64,
    /// Rows of small commits behind the young runs.
    tail: Tail,
    /// What hides rows that some run may hold, in order of their seqs.
    tombstones: Hiding,
    /// The capture that last froze this table, or went on when it last changed; 0 where none did.
    capture: u64,
    /// What that capture sees.
    frozen: Option<Frozen>,
    last_seq: u64,
    /// For each column of the schema, the seq that added it; 0 where that is not known.
    added: Vec<u64>,
    /// The seq that made the table; 0 where that is not known.
    made: u64,
    /// Readers of transactions before this one would miss rows that are gone.
    horizon: u64,
    /// Its rules, each with the seq that made them, the oldest first; without any it has the defaults.
    rules: Arc<Vec<(u64, Rules)>>,
    /// What columns hold, where that is not what is stored; also of columns that no row had yet.
    types: Arc<LogicalTypes>,
    /// Bytes of rows that were appended: as they are in memory, of large appends as they are in their segments.
    appended_bytes: u64,
    /// Bytes of segments that were written.
    written_bytes: u64,
}

/// What a table was when a capture began.
struct Frozen {
    /// Young runs at the front.
    young: usize,
    /// Sealed runs at the front.
    sealed: usize,
    schema: Arc<Schema>,
    inexact: Arc<BTreeSet<String>>,
    tombstones: Hiding,
    last_seq: u64,
    added: Vec<u64>,
    rules: Arc<Vec<(u64, Rules)>>,
    types: Arc<LogicalTypes>,
    appended_bytes: u64,
    written_bytes: u64,
}

/// Runs, segments and tombstones that a checkpoint replaced, to be dropped where nobody waits.
type Replaced = (Vec<Arc<MemoryRun>>, Vec<Arc<SegmentRun>>, Hiding);

/// What a capture sees of a table.
pub(crate) struct CapturedTable {
    pub schema: Arc<Schema>,
    pub sealed: Vec<Arc<SegmentRun>>,
    pub young: Vec<Arc<MemoryRun>>,
    pub inexact: Arc<BTreeSet<String>>,
    pub tombstones: Hiding,
    pub last_seq: u64,
    pub made: u64,
    pub added: Vec<u64>,
    pub horizon: u64,
    pub rules: Arc<Vec<(u64, Rules)>>,
    pub types: Arc<LogicalTypes>,
    pub appended_bytes: u64,
    pub written_bytes: u64,
}

impl Default for Table {
    fn default() -> Table {
        Table {
            inexact: Arc::default(),
            schema: Arc::new(Schema { columns: Vec::new() }),
            places: HashMap::new(),
            sealed: Vec::new(),
            young: Vec::new(),
            runs: None,
            last_points: Arc::default(),
            forgotten: 0,
            tail: Tail::default(),
            tombstones: Hiding::default(),
            capture: 0,
            frozen: None,
            last_seq: 0,
            added: Vec::new(),
            made: 0,
            horizon: 0,
            rules: Arc::default(),
            types: Arc::default(),
            appended_bytes: 0,
            written_bytes: 0,
        }
    }
}

impl Table {
    /// A table as a manifest has it, with its segments.
    pub(crate) fn restored(stored: &v1::Series, sealed: Vec<Arc<SegmentRun>>) -> Result<Table, String> {
        let column = |column: &v1::SchemaColumn| {
            let column_type = column.known_type()?;
            Ok::<_, String>(SchemaColumn { name: column.name.as_str().into(), column_type, key: column.key })
        };
        let columns = stored.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        let mut added = stored.added.clone();
        added.resize(columns.len(), 0);
        let rules = stored.rules.iter().map(|rules| Ok::<_, String>((rules.seq, rules.rules()?)));
        Ok(Table {
            inexact: Arc::new(stored.inexact.iter().cloned().collect()),
            added,
            made: stored.made,
            horizon: stored.horizon,
            appended_bytes: stored.appended_bytes,
            written_bytes: stored.written_bytes,
            rules: Arc::new(rules.collect::<Result<_, _>>()?),
            types: Arc::new(stored.types.clone()),
            places: columns.iter().map(|column| column.name.clone()).zip(0..).collect(),
            schema: Arc::new(Schema { columns }),
            sealed,
            tombstones: stored
                .deletes
                .iter()
                .map(|delete| Ok::<_, String>(Arc::new(delete.try_into()?)))
                .collect::<Result<Hiding, _>>()?,
            last_seq: stored.last_seq,
            ..Table::default()
        })
    }

    /// A table that a commit makes.
    pub(crate) fn made_at(seq: u64) -> Table {
        Table { made: seq, ..Table::default() }
    }

    /// Whether a reader at `seq` knows of it.
    pub(crate) fn is_known_at(&self, seq: u64) -> bool {
        self.made <= seq
    }

    /// Gives it rules.
    pub(crate) fn define(&mut self, seq: u64, rules: Rules) {
        // What is shown changes with how duplicates are resolved, and what an append leaves out with the rest.
        let known = self.rules();
        if (rules.duplicates, rules.skip_identical) != (known.duplicates, known.skip_identical) {
            self.last_seq = seq;
        }
        Arc::make_mut(&mut self.rules).push((seq, rules));
    }

    /// Gives columns logical types that [`check_types`] let pass.
    pub(crate) fn declare(&mut self, types: &LogicalTypes) {
        if types.iter().any(|(column, logical)| self.types.get(column) != Some(logical)) {
            Arc::make_mut(&mut self.types).extend(types);
        }
    }

    /// What columns hold, where that is not what is stored.
    pub(crate) fn types(&self) -> &Arc<LogicalTypes> {
        &self.types
    }

    /// What a column holds; `None` where nobody said and no row had it.
    fn logical_type(&self, column: &str) -> Option<LogicalType> {
        let stored = || self.schema.columns.get(*self.places.get(column)?);
        self.types.get(column).cloned().or_else(|| Some(stored()?.column_type.into()))
    }

    /// Its rules now.
    pub(crate) fn rules(&self) -> Rules {
        self.rules.last().map_or(Rules::default(), |(_, rules)| *rules)
    }

    /// Its rules as a reader at `seq` has them.
    pub(crate) fn rules_at(&self, seq: u64) -> Rules {
        rules_at(&self.rules, seq)
    }

    /// Whether somebody gave it rules.
    pub(crate) fn is_defined(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Bytes of rows that were appended, and of segments that were written.
    pub(crate) fn bytes_moved(&self) -> (u64, u64) {
        (self.appended_bytes, self.written_bytes)
    }

    /// Readers of transactions before this one would miss rows that are gone.
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// The columns that a reader at `seq` knows of. A field that was widened since is wide for all.
    pub(crate) fn schema_at(&self, seq: u64) -> Arc<Schema> {
        if self.added.iter().all(|added| *added <= seq) {
            return self.schema.clone();
        }
        let known = self.schema.columns.iter().zip(&self.added).filter(|(_, added)| **added <= seq);
        Arc::new(Schema { columns: known.map(|(column, _)| column.clone()).collect() })
    }

    /// The seq of the last commit that appended or deleted here, or changed what is shown or left out.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(crate) fn sealed(&self) -> &[Arc<SegmentRun>] {
        &self.sealed
    }

    /// The young runs; rows in the tail are in none of them.
    pub(crate) fn young(&self) -> &[Arc<MemoryRun>] {
        &self.young
    }

    /// The newest rows that are known, and the last commit of which deletes were done and are not among the tombstones any
    /// more.
    pub(crate) fn last_points(&self) -> (Arc<Mutex<LastPoints>>, u64) {
        (self.last_points.clone(), self.forgotten)
    }

    /// What hides rows of the runs.
    pub(crate) fn tombstones(&self) -> &Hiding {
        &self.tombstones
    }

    /// All rows in runs, the sealed ones first.
    pub(crate) fn runs(&mut self) -> Arc<[Arc<dyn Run>]> {
        self.close_tail();
        let Table { runs, sealed, young, .. } = self;
        let sealed = sealed.iter().map(|run| run.clone() as Arc<dyn Run>);
        let young = young.iter().map(|run| run.clone() as Arc<dyn Run>);
        runs.get_or_insert_with(|| sealed.chain(young).collect()).clone()
    }

    /// Takes columns into the schema. They were checked by [`check_append`].
    pub(crate) fn adopt<'a>(&mut self, seq: u64, columns: impl Iterator<Item = (&'a str, ColumnType, bool)>) {
        for (name, column_type, key) in columns {
            match self.places.get(name).copied() {
                None => {
                    let column = SchemaColumn { name: name.into(), column_type, key };
                    let schema = Arc::make_mut(&mut self.schema);
                    let at =
                        if key { schema.columns.partition_point(|c| c.key) } else { schema.columns.len() };
                    self.places.values_mut().filter(|place| **place >= at).for_each(|place| *place += 1);
                    self.places.insert(column.name.clone(), at);
                    schema.columns.insert(at, column);
                    self.added.insert(at, seq);
                }
                Some(i) => {
                    let known = self.schema.columns[i].column_type;
                    let wide = known.common(column_type).unwrap_or(known);
                    if known != wide {
                        Arc::make_mut(&mut self.schema).columns[i].column_type = wide;
                    }
                }
            }
        }
    }

    /// Notes integers beyond what an `f64` holds.
    pub(crate) fn note_inexact(&mut self, names: Vec<String>) {
        if !names.is_empty() {
            Arc::make_mut(&mut self.inexact).extend(names);
        }
    }

    /// Hides rows of earlier commits.
    pub(crate) fn delete(&mut self, seq: u64, tombstone: Tombstone) {
        self.last_seq = seq;
        self.tombstones.push(Arc::new(tombstone.with_seq(seq)));
    }

    /// Whether rows have the columns of the tail and nothing that the schema does not know: they need no other check.
    pub(crate) fn goes_on_with(&self, few: &Few, inexact: &[String]) -> bool {
        inexact.is_empty() && !self.tail.is_empty() && self.tail.takes(few)
    }

    /// Whether rows with these types have what is known of their columns.
    pub(crate) fn knows_types(&self, few: &Few, types: &LogicalTypes) -> bool {
        let takes = |(name, column): &(Arc<str>, Column)| {
            let known = self.types.get(name);
            known.is_none_or(|known| known.takes(&types.of(name, column.column_type())))
        };
        types.iter().all(|(column, logical)| self.types.get(column) == Some(logical))
            && (self.types.is_empty() || few.columns.iter().all(takes))
    }

    /// Pushes the rows of a small commit, or takes them out of `few`.
    pub(crate) fn push_few(&mut self, seq: u64, few: &mut Few) {
        self.last_seq = seq;
        let columns = few.columns.iter().map(|(_, column)| column.byte_size()).sum::<usize>();
        self.appended_bytes += (columns + few.timestamps.len() * 8) as u64;
        if !self.tail.is_empty() && !self.tail.takes(few) {
            self.close_tail();
        }
        self.tail.push(seq, few);
        if self.tail.is_full() {
            self.close_tail();
        }
    }

    /// Makes the tail a run.
    fn close_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        self.runs = None;
        match std::mem::take(&mut self.tail).into_run() {
            Ok(run) => self.young.push(Arc::new(run)),
            // Rows were answered for: rather nothing goes on than without them.
            Err(error) => panic!("rows that were checked cannot be a run: {error}"),
        }
        self.merge_young();
    }

    pub(crate) fn push_young(&mut self, seq: u64, run: MemoryRun) {
        self.last_seq = seq;
        self.appended_bytes += run.byte_size() as u64;
        self.close_tail();
        self.runs = None;
        self.young.push(Arc::new(run));
        self.merge_young();
    }

    pub(crate) fn push_segment(&mut self, seq: u64, run: Arc<SegmentRun>) {
        self.last_seq = seq;
        self.appended_bytes += run.reference().bytes;
        self.written_bytes += run.reference().bytes;
        self.runs = None;
        self.sealed.push(run);
    }

    /// Merges runs at the end until classes fall from run to run and fewer than [`YOUNG_RUNS_PER_CLASS`] share one.
    /// Each merge lifts the rows of the smaller runs by a class, so a row is copied a few times in all.
    fn merge_young(&mut self) {
        let class = |run: &Arc<MemoryRun>| {
            let rows = run.rows();
            (rows <= YOUNG_RUN_ROWS_MAX).then(|| rows.max(1).ilog(YOUNG_RUNS_PER_CLASS))
        };
        loop {
            let young = &self.young[self.frozen()..];
            let Some((newest, before)) = young.split_last() else { return };
            let Some(top) = class(newest) else { return };
            let smaller = before.iter().rev().take_while(|run| class(run).is_some_and(|c| c < top)).count();
            let equal = before.iter().rev().take_while(|run| class(run) == Some(top)).count();
            let count = 1 + if smaller > 0 { smaller } else { equal };
            if smaller == 0 && count < YOUNG_RUNS_PER_CLASS {
                return;
            }
            // Types were checked at the commit, so this fails only where a column would pass 4 GiB of text: that is not
            // tried at each commit anew. The runs are as good unmerged.
            let start = self.young.len() - count;
            let bytes: usize = self.young[start..].iter().map(|run| run.byte_size()).sum();
            if u32::try_from(bytes).is_err() {
                return;
            }
            let Ok(merged) = MemoryRun::merge(&self.young[start..]) else { return };
            self.young.truncate(start);
            self.young.push(Arc::new(merged));
        }
    }

    fn frozen(&self) -> usize {
        self.frozen.as_ref().map_or(0, |frozen| frozen.young)
    }

    /// Keeps what capture `number` sees of it, before it changes; 0 where no capture goes on.
    pub(crate) fn note(&mut self, number: u64) {
        if self.capture == number {
            return;
        }
        self.capture = number;
        self.frozen = None;
        if number > 0 {
            self.close_tail();
        }
        self.frozen = (number > 0).then(|| Frozen {
            young: self.young.len(),
            sealed: self.sealed.len(),
            schema: self.schema.clone(),
            inexact: self.inexact.clone(),
            tombstones: self.tombstones.clone(),
            last_seq: self.last_seq,
            added: self.added.clone(),
            rules: self.rules.clone(),
            types: self.types.clone(),
            appended_bytes: self.appended_bytes,
            written_bytes: self.written_bytes,
        });
    }

    /// What capture `number` sees; its young runs are left alone until it ends. `None` where it has seen them.
    pub(crate) fn capture(&mut self, number: u64) -> Option<CapturedTable> {
        self.note(number);
        let frozen = self.frozen.as_ref()?;
        Some(CapturedTable {
            schema: frozen.schema.clone(),
            sealed: self.sealed.get(..frozen.sealed).unwrap_or_default().to_vec(),
            young: self.young.get(..frozen.young).unwrap_or_default().to_vec(),
            inexact: frozen.inexact.clone(),
            tombstones: frozen.tombstones.clone(),
            last_seq: frozen.last_seq,
            made: self.made,
            added: frozen.added.clone(),
            horizon: self.horizon,
            rules: frozen.rules.clone(),
            types: frozen.types.clone(),
            appended_bytes: frozen.appended_bytes,
            written_bytes: frozen.written_bytes,
        })
    }

    /// Puts segments in the place of the captured young runs and of the segments that they took in, and what is left of
    /// the captured tombstones in the place of these, where some hide nothing any more. Readers before `horizon` would miss rows.
    /// Gives back what is no longer needed, to be dropped where nobody waits.
    pub(crate) fn seal(
        &mut self,
        segments: Vec<Arc<SegmentRun>>,
        taken_in: &HashSet<u64>,
        left: Option<Hiding>,
        horizon: u64,
    ) -> Replaced {
        self.runs = None;
        self.horizon = self.horizon.max(horizon);
        let young = self.young.drain(..self.frozen()).collect();
        let frozen = self.frozen.take();
        let (mut replaced, mut hid_rows) = (Vec::new(), Hiding::default());
        if let (Some(mut left), Some(frozen)) = (left, frozen) {
            let since = self.tombstones.behind(frozen.tombstones.len());
            since.for_each(|tombstone| left.push(tombstone.clone()));
            hid_rows = std::mem::replace(&mut self.tombstones, left);
            let captured = frozen.tombstones.iter().map(|tombstone| tombstone.seq());
            self.forgotten = captured.last().unwrap_or(0).max(self.forgotten);
        }
        if !taken_in.is_empty() {
            replaced = self.sealed.extract_if(.., |run| taken_in.contains(&run.reference().file)).collect();
        }
        self.written_bytes += segments.iter().map(|run| run.reference().bytes).sum::<u64>();
        self.sealed.extend(segments);
        (young, replaced, hid_rows)
    }
}

/// The rules that a reader at `seq` has.
pub(crate) fn rules_at(rules: &[(u64, Rules)], seq: u64) -> Rules {
    let before = rules.partition_point(|(since, _)| *since <= seq);
    before.checked_sub(1).and_then(|at| rules.get(at)).map_or(Rules::default(), |(_, rules)| *rules)
}

/// Says whether columns of a series may have these logical types.
pub(crate) fn check_types(
    table: Option<&Table>,
    series: &str,
    types: &LogicalTypes,
) -> Result<(), CommitError> {
    check_name("series", series)?;
    let mut new = Vec::new();
    for (column, logical) in types.iter() {
        let column = &**column;
        let fits = logical.check();
        fits.map_err(|problem| CommitError::Decimal { column: column.to_string(), problem })?;
        let known = table.and_then(|table| table.logical_type(column));
        let known = match (known, column) {
            (None, TIMESTAMP) => Some(ColumnType::Timestamp.into()),
            (None, _) => {
                check_name("column", column)?;
                new.push(column);
                None
            }
            (known, _) => known,
        };
        if let Some(known) = known.filter(|known| !known.may_become(logical)) {
            return Err(other_type(series, column, known, logical.clone()));
        }
    }
    if new.is_empty() { Ok(()) } else { check_names(table, series, &new, &new) }
}

fn other_type(series: &str, column: &str, expected: LogicalType, found: LogicalType) -> CommitError {
    CommitError::SeriesType { series: series.to_string(), column: column.to_string(), expected, found }
}

/// Checks rows against the schema of their type, if it exists. `given` are the logical types that they come with, and `None` where
/// these were compared before.
pub(crate) fn check_append<'a>(
    table: Option<&Table>,
    series: &str,
    columns: impl Iterator<Item = (&'a str, ColumnType, bool)>,
    inexact: &[String],
    given: Option<&LogicalTypes>,
) -> Result<(), CommitError> {
    let schema = table.map(|table| &*table.schema);
    check_name("series", series)?;
    let role = |key| if key { "key" } else { "field" };
    let (mut given_names, mut new_names) = (Vec::new(), Vec::new());
    for (name, column_type, key) in columns {
        given_names.push(name);
        if let Some(given) = given {
            let found = given.of(name, column_type);
            if found.stored() != column_type {
                return Err(other_type(series, name, found, column_type.into()));
            }
            let known = table.and_then(|table| table.types.get(name));
            if let Some(known) = known.filter(|known| !known.takes(&found)) {
                return Err(other_type(series, name, known.clone(), found));
            }
        }
        let place = table.and_then(|table| table.places.get(name));
        let Some(known) = schema.zip(place).and_then(|(schema, place)| schema.columns.get(*place)) else {
            check_name("column", name)?;
            new_names.push(name);
            if key && column_type == ColumnType::Bytes {
                return Err(CommitError::Series {
                    series: series.to_string(),
                    what: format!("key column {name:?} holds bytes; use text, numbers or dates as keys"),
                });
            }
            continue;
        };
        if known.key != key {
            return Err(CommitError::SeriesRole {
                series: series.to_string(),
                column: name.to_string(),
                expected: role(known.key),
                found: role(key),
            });
        }
        let common = known.column_type.common(column_type);
        let Some(wide) = common.filter(|_| !key || known.column_type == column_type) else {
            return Err(other_type(series, name, known.column_type.into(), column_type.into()));
        };
        let stored = table.is_some_and(|table| table.inexact.contains(name));
        let is_rounded = wide == ColumnType::F64 && known.column_type != column_type;
        if is_rounded && (stored || inexact.iter().any(|given| given == name)) {
            return Err(CommitError::SeriesPrecision {
                series: series.to_string(),
                column: name.to_string(),
            });
        }
    }
    let Some(given) = given else { return Ok(()) };
    // What is declared by the same transaction counts as what was before.
    for (column, _) in given.iter().filter(|(column, _)| ***column != *TIMESTAMP) {
        given_names.push(column);
        if table.and_then(|table| table.logical_type(column)).is_none() {
            new_names.push(column);
        }
    }
    if new_names.is_empty() { Ok(()) } else { check_names(table, series, &given_names, &new_names) }
}

/// Refuses new columns where there are too many then, those that were only declared among them, or where one would be a part of
/// another, or another of it: as a document, one of them would be a value and an object.
fn check_names(table: Option<&Table>, series: &str, given: &[&str], new: &[&str]) -> Result<(), CommitError> {
    let stored = table.into_iter().flat_map(|table| table.schema.columns.iter().map(|column| &*column.name));
    let declared = table.into_iter().flat_map(|table| table.types.iter().map(|(column, _)| &**column));
    let names = given.iter().copied().chain(stored).chain(declared).filter(|name| *name != TIMESTAMP);
    let names: BTreeSet<&str> = names.collect();
    if names.len() > COLUMNS_MAX {
        return Err(CommitError::TooLarge {
            what: "the number of columns of a series",
            found: names.len() as u64,
            limit: COLUMNS_MAX as u64,
            remedy: "put measurements that come apart into types of their own",
        });
    }
    let new: HashSet<&str> = new.iter().copied().collect();
    for name in &names {
        let is_column = |parent: &&str| names.contains(parent) || *parent == TIMESTAMP;
        let is_new = |parent: &&str| new.contains(name) || new.contains(parent);
        if let Some(whole) = parents(name).find(|parent| is_column(parent) && is_new(parent)) {
            let (column, other) = if new.contains(name) { (*name, whole) } else { (whole, *name) };
            let (series, column, other) = (series.to_string(), column.to_string(), other.to_string());
            return Err(CommitError::SeriesPath { series, column, other });
        }
    }
    Ok(())
}

/// Names that are given to a column by every result.
const RESERVED: [&str; 3] = ["timestamp", "type", "_seq"];

/// Refuses names that are empty, long, reserved or hold control characters.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), CommitError> {
    match name_problem(what, name) {
        Some(problem) => Err(CommitError::Name { what, name: name.to_string(), problem }),
        None => Ok(()),
    }
}

/// What is wrong with such a name, if anything is.
pub(crate) fn name_problem(what: &str, name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > NAME_BYTES_MAX {
        Some("is longer than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Some("holds a control character")
    } else if what == "column" && RESERVED.contains(&name) {
        Some("is reserved")
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use underbelly_storage::{Column, Columns};

    fn run(seq: u64, rows: usize) -> MemoryRun {
        let columns = Columns::new().with("x", Column::from(vec![seq as i64; rows])).unwrap();
        MemoryRun::new(vec![seq as i64; rows], columns, seq).unwrap()
    }

    fn sizes(table: &Table) -> Vec<usize> {
        table.young().iter().map(|run| run.rows()).collect()
    }

    #[test]
    fn one_row_commits_leave_runs_like_the_digits_of_their_number() {
        let mut table = Table::default();
        for n in 1..=5000usize {
            table.push_young(n as u64, run(n as u64, 1));
            let digits = (0..5).rev().flat_map(|power| {
                let size = YOUNG_RUNS_PER_CLASS.pow(power);
                vec![size; n / size % YOUNG_RUNS_PER_CLASS]
            });
            assert_eq!(sizes(&table), digits.collect::<Vec<_>>(), "after {n} commits");
        }
    }

    fn few(x: i64, name: &str) -> Few {
        Few { timestamps: vec![-x], columns: vec![(name.into(), Column::from(vec![x]))], keys: 0 }
    }

    #[test]
    fn small_commits_become_runs_when_they_are_read_frozen_or_enough() {
        let mut table = Table::default();
        (1..=10).for_each(|seq| table.push_few(seq, &mut few(seq as i64, "x")));
        assert_eq!((table.young().len(), table.last_seq()), (0, 10));
        assert_eq!(table.runs().len(), 1);
        let read = &table.young()[0];
        assert_eq!(read.timestamps(), (-10..=-1).collect::<Vec<_>>(), "in order of time");
        assert_eq!(read.seqs().get(0), 10);
        assert_eq!(read.columns().i64s("x").unwrap(), (1..=10).rev().collect::<Vec<_>>());
        table.push_few(11, &mut few(11, "x"));
        table.push_few(12, &mut few(12, "y"));
        assert_eq!(table.young().iter().map(|run| run.rows()).sum::<usize>(), 11, "other columns");
        table.push_young(13, run(13, 1));
        assert_eq!(table.young().iter().map(|run| run.rows()).sum::<usize>(), 13, "a run behind the tail");
        table.push_few(14, &mut few(14, "x"));
        let captured = table.capture(1).unwrap();
        assert_eq!(captured.young.iter().map(|run| run.rows()).sum::<usize>(), 14);
        table.seal(Vec::new(), &HashSet::new(), None, 0);
        let full = YOUNG_RUN_ROWS_MAX as u64;
        (1..=full + 1).for_each(|seq| table.push_few(14 + seq, &mut few(seq as i64, "x")));
        assert_eq!(sizes(&table), [YOUNG_RUN_ROWS_MAX]);
        assert_eq!(table.runs().len(), 2);
    }

    #[test]
    fn deletes_that_came_since_a_capture_stay() {
        let mut table = Table::default();
        let delete = || Tombstone::new(&Schema::default(), None, None, &[]).unwrap();
        let seqs = |hiding: &Hiding| hiding.iter().map(|tombstone| tombstone.seq()).collect::<Vec<_>>();
        table.delete(1, delete());
        table.delete(2, delete());
        let captured = table.capture(1).unwrap().tombstones;
        table.delete(3, delete());
        assert_eq!((seqs(&captured), seqs(table.tombstones())), (vec![1, 2], vec![1, 2, 3]));
        let left = captured.iter().filter(|tombstone| tombstone.seq() == 2).cloned().collect();
        let (_, _, replaced) = table.seal(Vec::new(), &HashSet::new(), Some(left), 0);
        assert_eq!((seqs(&replaced), seqs(table.tombstones())), (vec![1, 2, 3], vec![2, 3]));
    }

    #[test]
    fn lent_and_large_runs_are_left_alone() {
        let mut table = Table::default();
        for seq in 1..=7 {
            table.push_young(seq, run(seq, 1));
        }
        let captured = table.capture(1).unwrap();
        assert_eq!((captured.young.len(), captured.last_seq), (7, 7));
        table.push_young(8, run(8, YOUNG_RUN_ROWS_MAX + 1));
        table.push_young(9, run(9, 3));
        assert_eq!(sizes(&table), [1, 1, 1, 1, 1, 1, 1, YOUNG_RUN_ROWS_MAX + 1, 3]);
        assert_eq!(table.seal(Vec::new(), &HashSet::new(), None, 0).0.len(), 7);
        assert_eq!(sizes(&table), [YOUNG_RUN_ROWS_MAX + 1, 3]);
    }

    #[test]
    fn a_capture_sees_what_was_there_when_it_began() {
        let mut table = Table::default();
        table.note(0);
        table.push_young(1, run(1, 3));
        // Capture 1 began, and the table changes before the capture comes to it.
        table.note(1);
        table.push_young(2, run(2, 5));
        let captured = table.capture(1).unwrap();
        assert_eq!((captured.young.len(), captured.young[0].rows(), captured.last_seq), (1, 3, 1));
        // It fails; the next sees everything.
        table.note(0);
        table.push_young(3, run(3, 1));
        let captured = table.capture(2).unwrap();
        assert_eq!(captured.young.iter().map(|run| run.rows()).sum::<usize>(), 9);
        table.seal(Vec::new(), &HashSet::new(), None, 0);
        table.note(2);
        table.push_young(4, run(4, 2));
        assert_eq!(sizes(&table), [2]);
    }

    proptest! {
        #[test]
        fn classes_fall_and_no_row_is_lost(rows in prop::collection::vec(1usize..600, 1..200)) {
            let mut table = Table::default();
            for (i, rows) in rows.iter().enumerate() {
                table.push_young(i as u64 + 1, run(i as u64 + 1, *rows));
            }
            let classes: Vec<u32> = sizes(&table).iter().map(|rows| rows.ilog(YOUNG_RUNS_PER_CLASS)).collect();
            prop_assert!(classes.is_sorted_by(|a, b| a >= b), "{:?}", classes);
            prop_assert!(classes.windows(YOUNG_RUNS_PER_CLASS).all(|w| w.first() != w.last()));
            prop_assert_eq!(sizes(&table).iter().sum::<usize>(), rows.iter().sum::<usize>());
            let seqs: Vec<i64> =
                table.young().iter().flat_map(|run| run.columns().i64s("x").unwrap().to_vec()).collect();
            prop_assert!(seqs.is_sorted());
        }
    }
}
