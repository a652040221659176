//! One group of a run: found by its zone, read, filtered.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnType, Value};

use crate::budget::{Budget, row_bytes};
use crate::interval::Interval;
use crate::key::{Filter, Selection};
use crate::lane::{Codes, Lane};
use crate::merge::Ordered;
use crate::predicate::Test;
use crate::tombstone::Tombstones;
use crate::{Part, QueryError, Run, SchemaColumn, Seqs, Source, TIMESTAMP, Those, Tombstone, Zone};

/// What is asked of each group.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Timestamps of the rows.
    pub(crate) interval: Interval,
    /// Rows of this commit and those before it do not pass; 0 where all do.
    pub(crate) after: u64,
    /// Largest visible sequence number.
    pub(crate) seq: u64,
    /// All must hold.
    pub(crate) filters: Vec<Filter>,
    /// All must hold.
    pub(crate) tests: Vec<Test>,
    /// The same as the filters, to be compared with zones.
    pub(crate) of_filters: Vec<Test>,
    /// Instants at which no row passes.
    pub(crate) not_at: Vec<i64>,
    /// Where it is given, the instants at which rows pass alone, rising.
    pub(crate) only_at: Option<Vec<i64>>,
    /// Columns of the result in their order, without the timestamp.
    pub(crate) columns: Vec<SchemaColumn>,
    /// What hides rows.
    pub(crate) tombstones: Tombstones,
    /// In which order rows are asked for.
    pub(crate) order: Order,
    /// What may be held.
    pub(crate) budget: Budget,
}

/// In which order rows are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// That of time.
    #[default]
    Time,
    /// The same, and nobody looks at the timestamps, so that they need not be read.
    Untimed,
    /// Any, and nobody looks at the timestamps.
    Any,
    /// Rows of each key in that of time, and keys in any.
    ByKey,
}

impl Order {
    fn is_untimed(self) -> bool {
        matches!(self, Order::Untimed | Order::Any)
    }
}

/// Which rows of a group to keep where no more than some number can be used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    First(usize),
    Last(usize),
}

/// Whether another run may have rows among those of a piece.
pub(crate) enum Tied<F> {
    Never,
    Where(F),
}

/// Rows of a piece that pass, before their columns are read. They count from the start of the piece.
pub(crate) struct Selected<'r> {
    /// Read where they decided.
    pub(crate) timestamps: Option<Cow<'r, [i64]>>,
    /// Read where visibility needed them.
    pub(crate) seqs: Option<Seqs<'r>>,
    pub(crate) selection: Selection,
    /// The columns that decided, by their names.
    read: Vec<(Arc<str>, Option<Lane<'r>>)>,
}

/// Rows of a group, ready to be merged. `rows` of each vector are not yet used.
pub(crate) struct OpenGroup<'r> {
    pub(crate) timestamps: Cow<'r, [i64]>,
    pub(crate) seqs: Seqs<'r>,
    /// In the order of [`Wanted::columns`] and of their types; `None` stands for nulls.
    pub(crate) columns: Vec<Option<Lane<'r>>>,
    pub(crate) rows: Range<usize>,
}

impl OpenGroup<'_> {
    /// Bytes of what is not lent.
    pub(crate) fn byte_size(&self) -> usize {
        let times = match &self.timestamps {
            Cow::Owned(times) => times.len() * 8,
            Cow::Borrowed(_) => 0,
        };
        let seqs = match &self.seqs {
            Seqs::Each(Cow::Owned(seqs)) => seqs.len() * 8,
            _ => 0,
        };
        self.columns.iter().flatten().map(Lane::byte_size).fold(times + seqs, usize::saturating_add)
    }

    /// The rows as places in the order of all rows.
    pub(crate) fn ordered(&self, run: usize) -> Ordered<'_> {
        Ordered { timestamps: &self.timestamps, seqs: &self.seqs, run }
    }
}

/// Where fewer than one row in so many is wanted of a group that is kept by key, each is read by itself.
const FEW: usize = 16;

/// A run and its position in the source.
#[derive(Clone, Copy)]
pub(crate) struct Place<'r> {
    pub(crate) run: &'r dyn Run,
    pub(crate) position: usize,
}

/// A group that is read piece by piece.
pub(crate) struct Group<'r> {
    pub(crate) place: Place<'r>,
    pub(crate) number: usize,
    /// Of those rows that are read.
    pub(crate) zone: Zone,
    /// The rows that are read, where the group is kept by key.
    part: Option<Box<dyn Part + 'r>>,
    /// Whether all of these pass the filters.
    is_filtered: bool,
    /// Those that are not read yet, at both ends.
    pub(crate) rows: Range<usize>,
    /// Whether all of `rows` lie in the interval that is asked for.
    is_within: bool,
    /// The distinct texts of columns that are kept as places among them.
    dictionaries: Vec<(Arc<str>, Option<Arc<Column>>)>,
    /// Which distinct texts pass each filter, then each test.
    hits: Vec<Option<Hits>>,
    /// Rows of a piece at most, where it is cut at all.
    piece_rows_max: usize,
    /// Whether the run is told that it was passed.
    is_let_go: bool,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Which distinct texts pass.
pub(crate) enum Hits {
    One(u32),
    Each(Vec<bool>),
}

impl Hits {
    /// Those that are selected.
    pub(crate) fn of(selection: Selection, distinct: usize) -> Hits {
        match &selection.into_rows()[..] {
            [one] => Hits::One(*one),
            rows => {
                let mut each = vec![false; distinct];
                rows.iter().for_each(|row| each[*row as usize] = true);
                Hits::Each(each)
            }
        }
    }

    fn is_none(&self) -> bool {
        matches!(self, Hits::Each(each) if !each.contains(&true))
    }

    /// The selected rows whose code passes.
    pub(crate) fn apply(&self, codes: &[u32], selection: Selection) -> Selection {
        match self {
            Hits::One(code) => selection.equal(codes, *code),
            Hits::Each(each) => selection.filter(|row| each[codes[row] as usize]),
        }
    }
}

impl<'r> Group<'r> {
    /// All rows of a group.
    pub(crate) fn new(place: Place<'r>, number: usize) -> Result<Group<'r>, QueryError> {
        Group::of(place, number, (&[], &[]), Those::InTime)
    }

    /// Those rows of a group, or of them those whose keys pass, where these are found without the others.
    fn of(
        place: Place<'r>,
        number: usize,
        (filters, tests): (&[Filter], &[Test]),
        those: Those,
    ) -> Result<Group<'r>, QueryError> {
        let mut zone = place.run.zone(number);
        if u32::try_from(zone.rows).is_err() {
            return Err(QueryError::TooManyRows { rows: zone.rows });
        }
        let mut group = Group {
            place,
            number,
            zone,
            part: None,
            is_filtered: false,
            rows: 0..zone.rows,
            is_within: false,
            dictionaries: Vec::new(),
            hits: Vec::new(),
            piece_rows_max: usize::MAX,
            is_let_go: false,
        };
        if place.run.clusters(number) == 0 {
            return Ok(group);
        }
        let passing = group.passing_keys(filters, tests)?;
        let (is_none, part, is_filtered) = match (passing.as_deref(), those) {
            (Some([]), _) => (true, None, true),
            (Some(passing), Those::OfKey(key)) if !passing.contains(&(key as u32)) => (true, None, true),
            (passing, Those::OfKey(_)) => (false, place.run.part(number, those)?, passing.is_some()),
            (Some([key]), _) => (false, place.run.part(number, Those::OfKey(*key as usize))?, true),
            _ => (false, place.run.part(number, those)?, false),
        };
        (group.part, group.is_filtered) = (part, is_filtered);
        if is_none {
            group.rows = 0..0;
        }
        if let Some(part) = &group.part {
            zone.rows = part.rows();
            (group.zone, group.rows) = (zone, 0..zone.rows);
        }
        Ok(group)
    }

    /// The numbers of the keys that pass filters and those tests that are about keys, where the group is kept by them and one of
    /// these asks for some.
    fn passing_keys(&self, filters: &[Filter], tests: &[Test]) -> Result<Option<Vec<u32>>, QueryError> {
        let run = self.place.run;
        let mut passing = Selection::Range(0..run.clusters(self.number));
        for filter in filters {
            let Some(keys) = run.cluster_keys(self.number, &filter.name)? else { return Ok(None) };
            passing = filter.apply(Some(&keys), passing)?;
        }
        let mut is_asked = !filters.is_empty();
        for test in tests {
            if let Some(keys) = run.cluster_keys(self.number, &test.name)? {
                passing = test.apply(Some(&keys), passing)?;
                is_asked = true;
            }
        }
        Ok(is_asked.then(|| passing.into_rows()))
    }

    /// Whether its rows are those of one key.
    pub(crate) fn is_of_one_key(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.is_of_one_key())
    }

    fn piece_rows(&self) -> usize {
        match &self.part {
            Some(part) if !part.is_end_to_end() => usize::MAX,
            _ => match self.place.run.piece_rows().max(1) {
                usize::MAX => usize::MAX,
                rows => rows.min(self.piece_rows_max),
            },
        }
    }

    /// The next rows that are read at a time, from the start.
    pub(crate) fn first_piece(&mut self) -> Range<usize> {
        let each = self.piece_rows();
        let end = (self.rows.start / each + 1).saturating_mul(each).min(self.rows.end);
        let piece = self.rows.start..end;
        self.rows.start = end;
        piece
    }

    /// The same from the end.
    pub(crate) fn last_piece(&mut self) -> Range<usize> {
        let each = self.piece_rows();
        let start = (self.rows.end.saturating_sub(1) / each * each).max(self.rows.start);
        let piece = start..self.rows.end;
        self.rows.end = start;
        piece
    }

    /// Lets go of the bytes that were read so far: a system may have mapped far more of a file than was asked for.
    fn let_go(&self) {
        if self.is_let_go {
            self.place.run.passed(self.number);
        }
    }

    fn is_whole(&self, rows: &Range<usize>) -> bool {
        *rows == (0..self.zone.rows)
    }

    /// Timestamps of some rows.
    pub(crate) fn timestamps(&self, rows: &Range<usize>) -> Result<Cow<'r, [i64]>, QueryError> {
        let run = self.place.run;
        let timestamps = match &self.part {
            Some(part) => part.timestamps(rows.clone())?.into(),
            None if self.is_whole(rows) => run.timestamps(self.number)?,
            None => run.timestamps_of(self.number, rows.clone())?,
        };
        self.let_go();
        self.announced(TIMESTAMP, rows, timestamps.len())?;
        Ok(timestamps)
    }

    /// Sequence numbers of some rows.
    pub(crate) fn seqs(&self, rows: &Range<usize>) -> Result<Seqs<'r>, QueryError> {
        if self.zone.seq_min == self.zone.seq_max {
            return Ok(Seqs::One(self.zone.seq_min));
        }
        let run = self.place.run;
        let seqs = match &self.part {
            Some(part) => part.seqs(rows.clone())?,
            None if self.is_whole(rows) => run.seqs(self.number)?,
            None => run.seqs_of(self.number, rows.clone())?,
        };
        self.let_go();
        if let Seqs::Each(seqs) = &seqs {
            self.announced("the sequence numbers", rows, seqs.len())?;
        }
        Ok(seqs)
    }

    /// Some rows of a column; `None` where the run lacks it.
    pub(crate) fn lane(
        &mut self,
        name: &Arc<str>,
        rows: &Range<usize>,
    ) -> Result<Option<Lane<'r>>, QueryError> {
        let run = self.place.run;
        if let Some(distinct) = self.dictionary(name)? {
            let codes = match &self.part {
                Some(part) => part.codes(name, rows.clone())?,
                None => run.codes(self.number, name, rows.clone())?,
            };
            self.let_go();
            self.announced(name, rows, codes.len())?;
            let greatest = codes.iter().fold(0, |greatest, code| *code.max(&greatest)) as usize;
            if !codes.is_empty() && greatest >= distinct.len() {
                let (run, group) = (self.place.position, self.number);
                let (what, expected, found) = (format!("the texts of {name}"), distinct.len(), greatest);
                return Err(QueryError::Malformed { run, group, what, expected, found });
            }
            return Ok(Some(Lane::Codes(Codes { codes, distinct })));
        }
        let column = match &self.part {
            Some(part) => part.column(name, rows.clone())?.map(Cow::Owned),
            None if self.is_whole(rows) => run.column(self.number, name)?,
            None => run.column_of(self.number, name, rows.clone())?,
        };
        self.let_go();
        if let Some(column) = &column {
            self.announced(name, rows, column.len())?;
        }
        Ok(column.map(Lane::Values))
    }

    /// The same of rows that rise and count from the start of `rows`.
    fn lane_at(
        &mut self,
        name: &Arc<str>,
        rows: &Range<usize>,
        picked: &[u32],
    ) -> Result<Option<Lane<'r>>, QueryError> {
        let (Some(first), Some(last)) = (picked.first(), picked.last()) else {
            return self.lane(name, &(rows.start..rows.start));
        };
        // A run that has whole groups has them at hand; of one that is kept by key all are read where many are wanted.
        let is_few = self.part.is_some() && picked.len() < rows.len() / FEW;
        if self.piece_rows() >= self.zone.rows && !is_few {
            let lane = self.lane(name, rows)?;
            return lane.map(|lane| lane.taken(picked, name)).transpose();
        }
        if self.dictionary(name)?.is_some() {
            let span = rows.start + *first as usize..rows.start + *last as usize + 1;
            let picked: Vec<u32> = picked.iter().map(|row| row - first).collect();
            let lane = self.lane(name, &span)?;
            return lane.map(|lane| lane.taken(&picked, name)).transpose();
        }
        // Rows of a group are below 2^32.
        let of_group: Vec<u32> = picked.iter().map(|row| rows.start as u32 + row).collect();
        let column = match &self.part {
            Some(part) => part.column_at(name, &of_group)?,
            None => self.place.run.column_at(self.number, name, &of_group)?,
        };
        self.let_go();
        if let Some(column) = &column {
            self.announced(name, &(0..picked.len()), column.len())?;
        }
        Ok(column.map(|column| Lane::Values(Cow::Owned(column))))
    }

    /// The distinct texts of a column that is kept as places among them.
    fn dictionary(&mut self, name: &Arc<str>) -> Result<Option<Arc<Column>>, QueryError> {
        if let Some((_, known)) = self.dictionaries.iter().find(|(known, _)| known == name) {
            return Ok(known.clone());
        }
        let distinct = self.place.run.dictionary(self.number, name)?.map(Arc::new);
        let distinct = distinct.filter(|distinct| distinct.null_count() == 0);
        self.dictionaries.push((name.clone(), distinct.clone()));
        Ok(distinct)
    }

    /// Whether the bounds of some rows tell that none of them passes a test.
    fn excludes(&self, test: &Test, rows: &Range<usize>) -> bool {
        let bounds = match &self.part {
            Some(part) => part.bounds(&test.name, rows.clone()),
            None => self.place.run.bounds_of(self.number, &test.name, rows.clone()),
        };
        bounds.is_some_and(|bounds| test.excludes_within(&bounds))
    }

    fn announced(&self, what: &str, rows: &Range<usize>, found: usize) -> Result<(), QueryError> {
        if found == rows.len() {
            return Ok(());
        }
        let (run, group, what) = (self.place.position, self.number, what.to_string());
        Err(QueryError::Malformed { run, group, what, expected: rows.len(), found })
    }
}

/// The columns of a piece that decide which rows pass, each read once.
pub(crate) struct Keys<'k, 'r> {
    pub(crate) group: &'k mut Group<'r>,
    pub(crate) rows: Range<usize>,
    read: Vec<(Arc<str>, Option<Lane<'r>>)>,
}

impl<'r> Keys<'_, 'r> {
    /// The selected rows that pass, by values, or by the distinct texts that pass.
    pub(crate) fn select(
        &mut self,
        name: &Arc<str>,
        selection: Selection,
        apply: impl Fn(Option<&Column>, Selection) -> Result<Selection, QueryError>,
    ) -> Result<Selection, QueryError> {
        match self.lane(name)? {
            None => apply(None, selection),
            Some(Lane::Values(column)) => apply(Some(column), selection),
            Some(Lane::Codes(of)) => {
                let passing = apply(Some(&of.distinct), Selection::Range(0..of.distinct.len()))?;
                Ok(Hits::of(passing, of.distinct.len()).apply(&of.codes, selection))
            }
        }
    }

    /// A column; `None` where the run lacks it.
    pub(crate) fn lane(&mut self, name: &Arc<str>) -> Result<Option<&Lane<'r>>, QueryError> {
        let at = match self.read.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                let lane = self.group.lane(name, &self.rows)?;
                self.read.push((name.clone(), lane));
                self.read.len() - 1
            }
        };
        Ok(self.read.get(at).and_then(|(_, lane)| lane.as_ref()))
    }

    /// The rows that pass a condition, the `number`-th among filters and tests.
    fn apply(
        &mut self,
        number: usize,
        name: &Arc<str>,
        selection: Selection,
        apply: impl Fn(Option<&Column>, Selection) -> Result<Selection, QueryError>,
    ) -> Result<Selection, QueryError> {
        if selection.len() == 0 {
            return Ok(selection);
        }
        self.lane(name)?;
        let lane = self.read.iter().find(|(known, _)| known == name).and_then(|(_, lane)| lane.as_ref());
        match (lane, self.group.hits.get(number)) {
            (Some(Lane::Codes(of)), Some(Some(hits))) => Ok(hits.apply(&of.codes, selection)),
            _ => self.select(name, selection, apply),
        }
    }
}

impl Wanted {
    /// What is asked of a source, once its schema agrees. No projection means all columns.
    pub(crate) fn new(
        source: &dyn Source,
        interval: Interval,
        keys: &[(Arc<str>, Value)],
        projection: Option<&[Arc<str>]>,
    ) -> Result<Wanted, QueryError> {
        let (schema, seq) = (source.schema(), source.seq());
        if schema.columns.iter().any(|c| &*c.name == TIMESTAMP) {
            return Err(QueryError::ReservedColumn);
        }
        let filters: Vec<Filter> = keys
            .iter()
            .map(|(name, value)| Filter::new(schema, name, value.clone()))
            .collect::<Result<_, _>>()?;
        let of_filter = |filter: &Filter| Test::new(schema, &filter.name, &filter.predicate());
        let of_filters = filters.iter().map(of_filter).collect::<Result<_, _>>()?;
        let columns = match projection {
            None => schema.columns.clone(),
            Some(names) => names
                .iter()
                .filter(|name| &***name != TIMESTAMP)
                .map(|name| schema.column(name).cloned())
                .collect::<Result<_, _>>()?,
        };
        let (tests, not_at, tombstones) = (Vec::new(), Vec::new(), source.tombstones());
        let (after, order, only_at) = (0, Order::Time, None);
        let budget = Budget::new(source.memory_max());
        Ok(Wanted {
            interval,
            after,
            seq,
            filters,
            tests,
            of_filters,
            not_at,
            only_at,
            columns,
            tombstones,
            order,
            budget,
        })
    }

    /// Leaves out rows at other instants than these.
    pub(crate) fn narrow_to(&mut self, instants: &[Value]) -> Result<(), QueryError> {
        let mut at = Vec::with_capacity(instants.len());
        for instant in instants {
            match instant {
                Value::Timestamp(instant) => at.push(instant.0),
                // No instant is null.
                Value::Null => {}
                value => {
                    let (name, expected) = (TIMESTAMP.to_string(), ColumnType::Timestamp);
                    return Err(QueryError::ValueType { name, expected, value: value.clone() });
                }
            }
        }
        at.sort_unstable();
        if let Some(others) = &self.only_at {
            at.retain(|at| others.binary_search(at).is_ok());
        }
        let Interval { first, last } = self.interval;
        self.interval = match (at.first(), at.last()) {
            (Some(a), Some(b)) => Interval { first: first.max(*a), last: last.min(*b) },
            _ => Interval::EMPTY,
        };
        self.only_at = Some(at);
        Ok(())
    }

    /// The groups of a run whose zones overlap the interval.
    pub(crate) fn groups(&self, run: &dyn Run) -> Range<usize> {
        if self.interval.is_empty() {
            return 0..0;
        }
        let start = first_group(0..run.groups(), |group| run.zone(group).ts_max >= self.interval.first);
        let end = first_group(start..run.groups(), |group| run.zone(group).ts_min > self.interval.last);
        start..end
    }

    /// Whether a group has no visible row.
    pub(crate) fn hidden(&self, zone: &Zone) -> bool {
        let is_gone = || self.hiding(zone).any(|tombstone| tombstone.hides_all(zone));
        let is_older = self.after > 0 && zone.seq_max <= self.after;
        zone.rows == 0 || zone.seq_min > self.seq || is_older || is_gone()
    }

    /// Whether no row of a group passes, as far as zones tell.
    pub(crate) fn passes_none(&self, run: &dyn Run, group: usize, zone: &Zone) -> bool {
        let excludes = |test: &Test| {
            run.column_zone(group, &test.name).is_some_and(|of_column| test.excludes(zone, &of_column))
        };
        self.hidden(zone)
            || self.is_at_no_instant_of(zone)
            || self.tests.iter().chain(&self.of_filters).any(excludes)
    }

    /// Whether all instants that are asked for lie outside of a group.
    fn is_at_no_instant_of(&self, zone: &Zone) -> bool {
        self.only_at.as_ref().is_some_and(|at| {
            let first = at.partition_point(|at| *at < zone.ts_min);
            at.get(first).is_none_or(|at| *at > zone.ts_max)
        })
    }

    /// The tombstones that may hide rows of a group, as far as the zone tells.
    fn hiding(&self, zone: &Zone) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.over(zone).filter(|tombstone| tombstone.seq() <= self.seq)
    }

    /// Whether all rows of a group pass, as far as the zone tells.
    pub(crate) fn holds_all(&self, zone: &Zone) -> bool {
        self.filters.is_empty() && self.tests.is_empty() && self.shows_all(zone)
    }

    /// Whether all rows of a group are visible and at times that are asked for, as far as the zone tells.
    pub(crate) fn shows_all(&self, zone: &Zone) -> bool {
        zone.seq_max <= self.seq
            && (self.after == 0 || zone.seq_min > self.after)
            && zone.ts_min >= self.interval.first
            && zone.ts_max <= self.interval.last
            && self.only_at.is_none()
            && self.not_at.iter().all(|at| *at < zone.ts_min || *at > zone.ts_max)
            && self.hiding(zone).next().is_none()
    }

    /// Begins to read a group: without rows that the interval leaves out, as far as that is cheap to tell, and without any
    /// where no text of a column passes what is asked of it.
    pub(crate) fn begin<'r>(&self, place: Place<'r>, number: usize) -> Result<Group<'r>, QueryError> {
        self.begin_those(place, number, Those::InTime)
    }

    /// The same with some of its rows, or all in another order.
    pub(crate) fn begin_those<'r>(
        &self,
        place: Place<'r>,
        number: usize,
        those: Those,
    ) -> Result<Group<'r>, QueryError> {
        let mut group = Group::of(place, number, (&self.filters, &self.tests), those)?;
        self.bound(&mut group);
        let Interval { first, last } = self.interval;
        group.is_within = group.zone.ts_min >= first && group.zone.ts_max <= last;
        for filter in &self.filters {
            if group.is_filtered {
                group.hits.push(None);
                continue;
            }
            let distinct = group.dictionary(&filter.name)?;
            let passing = |column: &Column| filter.apply(Some(column), Selection::Range(0..column.len()));
            group.note(distinct, passing)?;
        }
        for test in &self.tests {
            let distinct = group.dictionary(&test.name)?;
            let passing = |column: &Column| test.apply(Some(column), Selection::Range(0..column.len()));
            group.note(distinct, passing)?;
        }
        if !group.is_within && !group.rows.is_empty() && group.piece_rows() < group.zone.rows {
            let start = match group.zone.ts_min < first {
                true => group.first_row(|ts| ts >= first)?,
                false => 0,
            };
            let end = match group.zone.ts_max > last {
                true => group.first_row(|ts| ts > last)?,
                false => group.zone.rows,
            };
            group.rows = start..end.max(start);
            group.is_within = true;
        }
        Ok(group)
    }

    /// Has a group read in pieces that fit, and let go when it was read.
    pub(crate) fn bound(&self, group: &mut Group<'_>) {
        if !self.budget.is_bounded() {
            return;
        }
        let (run, number) = (group.place.run, group.number);
        let kept = self.columns.iter().map(|column| run.bytes_of(number, &column.name));
        let kept = kept.fold(0, u64::saturating_add) / (run.zone(number).rows.max(1) as u64);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        let each = row_bytes(self.columns.iter().map(|column| column.column_type));
        group.piece_rows_max = self.budget.rows_of(32, kept.max(each));
        group.is_let_go = true;
        group.let_go();
    }

    /// Selects the rows of a piece that pass: reads timestamps, sequence numbers and keys where they decide.
    pub(crate) fn select<'r>(
        &self,
        group: &mut Group<'r>,
        rows: Range<usize>,
    ) -> Result<Selected<'r>, QueryError> {
        let zone = group.zone;
        if self.tests.iter().chain(&self.of_filters).any(|test| group.excludes(test, &rows)) {
            let selection = Selection::Range(0..0);
            return Ok(Selected { timestamps: None, seqs: None, selection, read: Vec::new() });
        }
        let mut selection = Selection::Range(0..rows.len());
        let mut timestamps = None;
        if !group.is_within || !self.not_at.is_empty() || self.only_at.is_some() {
            let read = timestamps.insert(group.timestamps(&rows)?);
            let start = read.partition_point(|ts| *ts < self.interval.first);
            let end = read.partition_point(|ts| *ts <= self.interval.last).max(start);
            selection = Selection::Range(start..end);
            for at in &self.not_at {
                let same = read.partition_point(|ts| ts < at)..read.partition_point(|ts| ts <= at);
                selection = match same.is_empty() {
                    true => selection,
                    false => selection.filter(|row| !same.contains(&row)),
                };
            }
            if let Some(only) = &self.only_at {
                selection = selection.filter(|row| only.binary_search(&read[row]).is_ok());
            }
        }
        let mut seqs = None;
        let has_older = self.after > 0 && zone.seq_min <= self.after;
        if (zone.seq_max > self.seq || has_older) && selection.len() > 0 {
            let read = group.seqs(&rows)?;
            selection = match &read {
                Seqs::One(seq) if *seq <= self.seq && (self.after == 0 || *seq > self.after) => selection,
                Seqs::One(_) => Selection::Range(0..0),
                Seqs::Each(seqs) => {
                    let is_newer = |seq: u64| self.after == 0 || seq > self.after;
                    selection.filter(|row| seqs[row] <= self.seq && is_newer(seqs[row]))
                }
            };
            seqs = Some(read);
        }
        let mut keys = Keys { group, rows, read: Vec::new() };
        let filters = if keys.group.is_filtered { &[] } else { &self.filters[..] };
        for (number, filter) in filters.iter().enumerate() {
            selection =
                keys.apply(number, &filter.name, selection, |column, rows| filter.apply(column, rows))?;
        }
        for (number, test) in (self.filters.len()..).zip(&self.tests) {
            selection = keys.apply(number, &test.name, selection, |column, rows| test.apply(column, rows))?;
        }
        for tombstone in self.hiding(&zone) {
            if selection.len() == 0 {
                break;
            }
            // Zones of columns are those of all rows of the group.
            let (run, number) = (keys.group.place.run, keys.group.number);
            if tombstone.misses(run, number, &run.zone(number)) {
                continue;
            }
            if timestamps.is_none() {
                timestamps = Some(keys.group.timestamps(&keys.rows)?);
            }
            let at = timestamps.as_deref().unwrap_or_default();
            selection = tombstone.apply(&mut keys, at, &mut seqs, selection)?;
        }
        Ok(Selected { timestamps, seqs, selection, read: keys.read })
    }

    /// How many rows of a group pass.
    pub(crate) fn selected(&self, place: Place<'_>, number: usize) -> Result<usize, QueryError> {
        let mut group = self.begin(place, number)?;
        let mut passing = 0;
        while !group.rows.is_empty() {
            let piece = group.first_piece();
            passing += self.select(&mut group, piece)?.selection.len();
        }
        Ok(passing)
    }

    /// Opens a piece of a group: selects its rows and reads the columns asked for; `None` where no row passes.
    ///
    /// Sequence numbers are read only where `tied` says, given the first and the last timestamp selected, that
    /// another run may have rows among these; without them all stand as 0. Where no other run may, and nobody looks at
    /// timestamps, there are none where they did not decide.
    pub(crate) fn open<'r>(
        &self,
        group: &mut Group<'r>,
        piece: Range<usize>,
        keep: Keep,
        tied: Tied<impl FnOnce(i64, i64) -> bool>,
    ) -> Result<Option<OpenGroup<'r>>, QueryError> {
        let Selected { timestamps, seqs, selection, mut read } = self.select(group, piece.clone())?;
        let selection = match keep {
            Keep::First(n) => selection.first(n),
            Keep::Last(n) => selection.last(n),
        };
        // Where the order of rows is any there are no timestamps, and so all rows that are read are asked for.
        let selection = match selection {
            Selection::Range(rows) if self.order == Order::Any && rows.len() < piece.len() => {
                Selection::Rows(Selection::Range(rows).into_rows())
            }
            selection => selection,
        };
        let (first, last) = match &selection {
            Selection::Range(rows) if rows.is_empty() => return Ok(None),
            Selection::Range(rows) => (rows.start, rows.end - 1),
            Selection::Rows(rows) => match (rows.first(), rows.last()) {
                (Some(first), Some(last)) => (*first as usize, *last as usize),
                _ => return Ok(None),
            },
        };
        let is_all = selection.len() == piece.len() || matches!(selection, Selection::Rows(_));
        let timestamps = match timestamps {
            Some(timestamps) => timestamps,
            None if self.order.is_untimed() && is_all && matches!(tied, Tied::Never) => {
                Cow::Borrowed(&[][..])
            }
            None => group.timestamps(&piece)?,
        };
        let is_tied = || match tied {
            Tied::Never => false,
            Tied::Where(tied) => tied(timestamps[first], timestamps[last]),
        };
        let seqs = match seqs {
            Some(seqs) => seqs,
            None if is_tied() => group.seqs(&piece)?,
            None => Seqs::One(0),
        };
        let picked = match &selection {
            Selection::Range(_) => None,
            Selection::Rows(rows) => Some(rows.as_slice()),
        };
        let mut columns = Vec::with_capacity(self.columns.len());
        for SchemaColumn { name, column_type, .. } in &self.columns {
            let known = read.iter().position(|(known, _)| known == name).map(|at| read.swap_remove(at).1);
            let lane = match (known, picked) {
                (Some(lane), None) => lane,
                (Some(lane), Some(rows)) => lane.map(|lane| lane.taken(rows, name)).transpose()?,
                (None, None) => group.lane(name, &piece)?,
                (None, Some(rows)) => group.lane_at(name, &piece, rows)?,
            };
            columns.push(lane.map(|lane| lane.fitted(*column_type, name)).transpose()?);
        }
        Ok(Some(match selection {
            Selection::Range(rows) => OpenGroup { timestamps, seqs, columns, rows },
            Selection::Rows(rows) => OpenGroup {
                timestamps: rows.iter().filter_map(|row| timestamps.get(*row as usize).copied()).collect(),
                seqs: match seqs {
                    Seqs::One(seq) => Seqs::One(seq),
                    Seqs::Each(seqs) => Seqs::Each(rows.iter().map(|row| seqs[*row as usize]).collect()),
                },
                columns,
                rows: 0..rows.len(),
            },
        }))
    }

    /// Reads the columns asked for at some rows of a group, which rise.
    pub(crate) fn read<'r>(
        &self,
        group: &mut Group<'r>,
        picked: &[u32],
    ) -> Result<Vec<Option<Lane<'r>>>, QueryError> {
        let whole = 0..group.zone.rows;
        let mut columns = Vec::with_capacity(self.columns.len());
        for SchemaColumn { name, column_type, .. } in &self.columns {
            let lane = group.lane_at(name, &whole, picked)?;
            columns.push(lane.map(|lane| lane.fitted(*column_type, name)).transpose()?);
        }
        Ok(columns)
    }
}

impl Group<'_> {
    /// Notes which distinct texts pass a condition; lets the rows go where none does.
    fn note(
        &mut self,
        distinct: Option<Arc<Column>>,
        passing: impl FnOnce(&Column) -> Result<Selection, QueryError>,
    ) -> Result<(), QueryError> {
        let hits = match distinct {
            Some(distinct) => Some(Hits::of(passing(&distinct)?, distinct.len())),
            None => None,
        };
        if hits.as_ref().is_some_and(Hits::is_none) {
            self.rows = 0..0;
        }
        self.hits.push(hits);
        Ok(())
    }

    /// The first row whose timestamp is `found`, which then holds for all after it.
    fn first_row(&self, found: impl Fn(i64) -> bool) -> Result<usize, QueryError> {
        let mut rows = 0..self.zone.rows;
        while !rows.is_empty() {
            let middle = rows.start + rows.len() / 2;
            let is_found = self.timestamps(&(middle..middle + 1))?.first().is_none_or(|ts| found(*ts));
            if is_found { rows.end = middle } else { rows.start = middle + 1 }
        }
        Ok(rows.start)
    }
}

/// The first group for which `found` holds, which then holds for all after it; the end of `groups` where none.
fn first_group(mut groups: Range<usize>, found: impl Fn(usize) -> bool) -> usize {
    while !groups.is_empty() {
        let middle = groups.start + groups.len() / 2;
        if found(middle) { groups.end = middle } else { groups.start = middle + 1 }
    }
    groups.start
}
