//! Rows as a list, runs made of them, and what operators should answer.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use underbelly_query::{
    ColumnZone, Part, QueryError, Run, Scan, Schema, SchemaColumn, Seqs, Source, Those, TimedRows, Zone,
};
use underbelly_storage::{
    Column, ColumnType, Columns, Date, Timestamp, Value, Values, Workers, Zone as ZoneOfValues,
};

pub const NAMES: [&str; 5] = ["symbol", "venue", "price", "note", "day"];

pub fn schema() -> Schema {
    let types = [ColumnType::Utf8, ColumnType::I64, ColumnType::F64, ColumnType::Bytes, ColumnType::Date];
    let columns = NAMES.iter().zip(types).enumerate().map(|(i, (name, column_type))| SchemaColumn {
        name: (*name).into(),
        column_type,
        key: i < 2,
    });
    Schema { columns: columns.collect() }
}

/// A row: values in the order of [`NAMES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub ts: i64,
    pub seq: u64,
    pub values: Vec<Value>,
}

/// Rows of a run and how they are stored.
#[derive(Clone, Debug)]
pub struct RunOfRows {
    pub rows: Vec<Row>,
    /// Columns that the run has.
    pub present: [bool; 5],
    /// Prices, which are whole numbers, as `I64`.
    pub whole_prices: bool,
    pub group_rows: usize,
    /// Rows that are read at a time.
    pub piece_rows: usize,
    /// Whether symbols are kept as places among distinct ones, where none is null.
    pub coded: bool,
    /// Whether rows are kept by key.
    pub by_key: bool,
}

impl Default for RunOfRows {
    fn default() -> RunOfRows {
        let (rows, present, group_rows) = (Vec::new(), [true; 5], usize::MAX);
        let piece_rows = usize::MAX;
        RunOfRows { rows, present, whole_prices: false, group_rows, piece_rows, coded: false, by_key: false }
    }
}

/// A run in memory that counts what is read of it.
#[derive(Default)]
pub struct CountedRun {
    pub groups: Vec<(Vec<i64>, Vec<u64>, Columns)>,
    /// As in [`RunOfRows`]; 0 for whole groups.
    pub piece_rows: usize,
    pub coded: bool,
    pub by_key: bool,
    pub timestamps_read: AtomicUsize,
    pub seqs_read: AtomicUsize,
    pub columns_read: AtomicUsize,
}

impl RunOfRows {
    pub fn build(&self) -> CountedRun {
        let groups = self.rows.chunks(self.group_rows).map(|rows| {
            let mut columns = Columns::new();
            for (i, column) in schema().columns.iter().enumerate().filter(|(i, _)| self.present[*i]) {
                let whole = self.whole_prices && &*column.name == "price";
                let mut stored = Column::new(if whole { ColumnType::I64 } else { column.column_type });
                for row in rows {
                    match &row.values[i] {
                        Value::F64(price) if whole => stored.push(&Value::I64(*price as i64)).unwrap(),
                        value => stored.push(value).unwrap(),
                    }
                }
                columns.insert(column.name.clone(), stored).unwrap();
            }
            (rows.iter().map(|row| row.ts).collect(), rows.iter().map(|row| row.seq).collect(), columns)
        });
        let (piece_rows, coded, by_key) = (self.piece_rows, self.coded, self.by_key);
        CountedRun { groups: groups.collect(), piece_rows, coded, by_key, ..CountedRun::default() }
    }
}

/// Bounds of values, a little beyond the least and the greatest; `None` where there is no number, or a NaN.
fn bounds(values: impl Iterator<Item = Value>) -> Option<ZoneOfValues> {
    let number = |value: Value| match value {
        Value::I64(x) => Some(x as f64),
        Value::Date(Date(x)) => Some(x.into()),
        Value::F64(x) => Some(x),
        _ => None,
    };
    let mut is_whole = false;
    let numbers = values.filter(|value| *value != Value::Null);
    let numbers = numbers.map(|value| {
        is_whole = !matches!(value, Value::F64(_));
        number(value).filter(|x| x.abs() < 1e15)
    });
    let numbers: Vec<f64> = numbers.collect::<Option<_>>()?;
    let least = numbers.iter().copied().reduce(f64::min)? - 1.0;
    let greatest = numbers.iter().copied().reduce(f64::max)? + 1.0;
    Some(match is_whole {
        true => ZoneOfValues::I64 { min: least as i64, max: greatest as i64 },
        false => ZoneOfValues::F64 { min: least, max: greatest },
    })
}

impl CountedRun {
    /// The rows of each key of a group, in the order of their first rows, where rows are kept by key.
    fn keys(&self, group: usize) -> Vec<Vec<u32>> {
        let columns = &self.groups[group].2;
        let names = ["symbol", "venue"].into_iter().filter(|name| columns.column(name).is_some());
        let names: Vec<&str> = names.collect();
        let mut keys: Vec<(Vec<Value>, Vec<u32>)> = Vec::new();
        for row in 0..if self.by_key && !names.is_empty() { columns.rows() } else { 0 } {
            let key: Vec<Value> = names.iter().map(|name| columns.value(name, row).unwrap()).collect();
            match keys.iter_mut().find(|(known, _)| *known == key) {
                Some((_, rows)) => rows.push(row as u32),
                None => keys.push((key, vec![row as u32])),
            }
        }
        keys.into_iter().map(|(_, rows)| rows).collect()
    }
}

/// Rows of a group that is kept by key.
struct SomeRows<'a> {
    run: &'a CountedRun,
    group: usize,
    those: Those,
    /// In the order that was asked for.
    rows: Vec<u32>,
}

impl Part for SomeRows<'_> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn is_end_to_end(&self) -> bool {
        self.those != Those::InTime
    }

    fn is_of_one_key(&self) -> bool {
        matches!(self.those, Those::OfKey(_))
    }

    fn timestamps(&self, rows: Range<usize>) -> Result<Vec<i64>, QueryError> {
        assert!(self.those != Those::ByKey, "nobody looks at times that are in no order");
        self.run.timestamps_read.fetch_add(1, Ordering::Relaxed);
        Ok(self.rows[rows].iter().map(|row| self.run.groups[self.group].0[*row as usize]).collect())
    }

    fn seqs(&self, rows: Range<usize>) -> Result<Seqs<'static>, QueryError> {
        self.run.seqs_read.fetch_add(1, Ordering::Relaxed);
        let seqs = self.rows[rows].iter().map(|row| self.run.groups[self.group].1[*row as usize]);
        Ok(Seqs::Each(Cow::Owned(seqs.collect())))
    }

    fn column(&self, name: &str, rows: Range<usize>) -> Result<Option<Column>, QueryError> {
        self.run.columns_read.fetch_add(1, Ordering::Relaxed);
        let column = self.run.groups[self.group].2.column(name);
        Ok(column.map(|column| column.take(&self.rows[rows]).unwrap()))
    }

    fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, QueryError> {
        assert!(rows.is_sorted());
        let rows: Vec<u32> = rows.iter().map(|row| self.rows[*row as usize]).collect();
        let column = self.run.groups[self.group].2.column(name);
        Ok(column.map(|column| column.take(&rows).unwrap()))
    }

    fn codes(&self, name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        let all = self.run.codes(self.group, name, 0..self.run.groups[self.group].0.len())?;
        Ok(self.rows[rows].iter().map(|row| all[*row as usize]).collect())
    }

    fn bounds(&self, name: &str, rows: Range<usize>) -> Option<ZoneOfValues> {
        let column = self.run.groups[self.group].2.column(name)?;
        bounds(self.rows[rows].iter().map(|row| column.get(*row as usize)))
    }
}

impl Run for CountedRun {
    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn zone(&self, group: usize) -> Zone {
        let (timestamps, seqs, _) = &self.groups[group];
        Zone {
            rows: timestamps.len(),
            ts_min: timestamps[0],
            ts_max: timestamps[timestamps.len() - 1],
            seq_min: *seqs.iter().min().unwrap(),
            seq_max: *seqs.iter().max().unwrap(),
        }
    }

    fn timestamps(&self, group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        self.timestamps_read.fetch_add(1, Ordering::Relaxed);
        Ok(Cow::Borrowed(&self.groups[group].0))
    }

    fn seqs(&self, group: usize) -> Result<Seqs<'_>, QueryError> {
        self.seqs_read.fetch_add(1, Ordering::Relaxed);
        Ok(Seqs::Each(Cow::Borrowed(&self.groups[group].1)))
    }

    fn column(&self, group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        self.columns_read.fetch_add(1, Ordering::Relaxed);
        Ok(self.groups[group].2.column(name).map(Cow::Borrowed))
    }

    fn piece_rows(&self) -> usize {
        if self.piece_rows == 0 { usize::MAX } else { self.piece_rows }
    }

    /// Among the distinct texts are some that no row has.
    fn dictionary(&self, group: usize, name: &str) -> Result<Option<Column>, QueryError> {
        let column = self.groups[group].2.column(name).filter(|column| column.null_count() == 0);
        Ok(column.filter(|_| self.coded && name == "symbol").map(|_| SYMBOLS.into_iter().collect()))
    }

    fn codes(&self, group: usize, name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        let column = self.groups[group].2.column(name).unwrap();
        let place = |row| SYMBOLS.iter().position(|symbol| Some(*symbol) == column.str_at(row));
        Ok(rows.map(|row| place(row).unwrap() as u32).collect())
    }

    fn bounds_of(&self, group: usize, name: &str, rows: Range<usize>) -> Option<ZoneOfValues> {
        let column = self.groups[group].2.column(name).filter(|_| self.piece_rows > 0)?;
        bounds(rows.map(|row| column.get(row)))
    }

    fn clusters(&self, group: usize) -> usize {
        self.keys(group).len()
    }

    fn cluster_keys(&self, group: usize, name: &str) -> Result<Option<Column>, QueryError> {
        let firsts: Vec<u32> = self.keys(group).iter().map(|rows| rows[0]).collect();
        let column = self.groups[group].2.column(name).filter(|_| ["symbol", "venue"].contains(&name));
        Ok(column.filter(|_| !firsts.is_empty()).map(|column| column.take(&firsts).unwrap()))
    }

    fn part(&self, group: usize, those: Those) -> Result<Option<Box<dyn Part + '_>>, QueryError> {
        let keys = self.keys(group);
        let rows = match those {
            Those::InTime => (0..self.groups[group].0.len() as u32).collect(),
            Those::ByKey => keys.concat(),
            Those::OfKey(key) => keys[key].clone(),
        };
        Ok(Some(Box::new(SomeRows { run: self, group, those, rows })))
    }

    /// As sealed segments have it.
    fn column_zone(&self, group: usize, name: &str) -> Option<ColumnZone> {
        let column = self.groups[group].2.column(name)?;
        let rows = (0..column.len()).filter(|row| !column.is_null(*row));
        fn ends<T: Copy + PartialOrd>(values: impl Iterator<Item = T>) -> Option<(T, T)> {
            values.fold(None, |ends, value| {
                let (min, max) = ends.unwrap_or((value, value));
                Some((if value < min { value } else { min }, if value > max { value } else { max }))
            })
        }
        let values = match column.values() {
            Values::I64(v) => ends(rows.map(|row| v[row])).map(|(min, max)| ZoneOfValues::I64 { min, max }),
            Values::Date(v) => {
                ends(rows.map(|row| v[row].into())).map(|(min, max)| ZoneOfValues::I64 { min, max })
            }
            Values::F64(v) if v.iter().all(|value| !value.is_nan()) => {
                ends(rows.map(|row| v[row])).map(|(min, max)| ZoneOfValues::F64 { min, max })
            }
            Values::Utf8(v) | Values::Bytes(v) => ends(rows.map(|row| ZoneOfValues::prefix(v.get(row))))
                .map(|(min, max)| ZoneOfValues::Prefix { min, max }),
            _ => None,
        };
        Some(ColumnZone { nulls: column.null_count(), values })
    }
}

pub struct RunsOf {
    pub schema: Schema,
    pub runs: Vec<Arc<dyn Run>>,
    pub seq: u64,
    pub slice_rows: usize,
}

/// The last first, on a thread of its own and on that of the caller.
pub struct Backwards;

impl Workers for Backwards {
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let behind = count / 2;
        std::thread::scope(|scope| {
            scope.spawn(|| (behind..count).rev().for_each(work));
            (0..behind).rev().for_each(work);
        });
    }
}

/// Rows of a slice: so few that the runs of a property are cut into several.
const FEW: usize = 4;

/// So many that there is one slice.
pub const MANY: usize = 1 << 20;

impl Source for RunsOf {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn runs(&self) -> &[Arc<dyn Run>] {
        &self.runs
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn workers(&self) -> &dyn Workers {
        &Backwards
    }

    fn slice_rows(&self) -> usize {
        self.slice_rows
    }
}

pub fn source(runs: &[RunOfRows], seq: u64) -> RunsOf {
    let runs = runs.iter().map(|run| Arc::new(run.build()) as Arc<dyn Run>).collect();
    RunsOf { schema: schema(), runs, seq, slice_rows: FEW }
}

/// All visible rows in order.
pub fn visible(runs: &[RunOfRows], seq: u64) -> Vec<Row> {
    let mut rows: Vec<Row> =
        runs.iter().flat_map(|run| run.rows.clone()).filter(|row| row.seq <= seq).collect();
    rows.sort_by_key(|row| (row.ts, row.seq));
    rows
}

/// Keys that rows are to have, by their place in [`NAMES`].
pub type Keys = Vec<(usize, Value)>;

pub fn has_keys(row: &Row, keys: &Keys) -> bool {
    keys.iter().all(|(i, value)| row.values[*i] == *value)
}

/// The rows as an operator gives them back.
pub fn expected<'a>(rows: impl IntoIterator<Item = &'a Row>, projection: &[&str]) -> Vec<Vec<Value>> {
    let places: Vec<usize> =
        projection.iter().map(|name| NAMES.iter().position(|n| n == name).unwrap()).collect();
    let row = |row: &Row| {
        let values = places.iter().map(|i| row.values[*i].clone());
        std::iter::once(Value::Timestamp(Timestamp(row.ts))).chain(values).collect()
    };
    rows.into_iter().map(row).collect()
}

pub fn listed(columns: &Columns) -> Vec<Vec<Value>> {
    (0..columns.rows()).map(|i| columns.row(i)).collect()
}

/// The rows as columns with "timestamp" first, in the order given.
pub fn columns_of(rows: &[Row]) -> Columns {
    let schema = schema();
    let types = schema.columns.iter().map(|column| (&*column.name, column.column_type));
    let types = std::iter::once(("timestamp", ColumnType::Timestamp)).chain(types);
    let mut columns = Columns::with_types(types).unwrap();
    for row in expected(rows, &NAMES) {
        columns.push_row(&row).unwrap();
    }
    columns
}

pub fn times() -> impl Strategy<Value = i64> {
    let edges = prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]);
    prop_oneof![1 => edges, 6 => -4i64..5]
}

/// All symbols, and some that no row has.
const SYMBOLS: [&str; 7] = ["", "A", "AA", "AB", "B\0", "early", "late"];

pub fn symbols() -> impl Strategy<Value = Value> {
    prop::option::weighted(0.8, prop::sample::select(vec!["", "A", "AB", "B\0"])).prop_map(Value::from)
}

pub fn venues() -> impl Strategy<Value = Value> {
    prop::option::of(-1i64..2).prop_map(Value::from)
}

pub fn any_row() -> impl Strategy<Value = Row> {
    let price = prop::option::of(-3i32..4).prop_map(|price| Value::from(price.map(f64::from)));
    let note = prop::option::of(prop::collection::vec(any::<u8>(), 0..3)).prop_map(Value::from);
    let day = prop::option::of(0i32..3).prop_map(|day| Value::from(day.map(Date)));
    (times(), 1u64..6, symbols(), venues(), price, note, day).prop_map(
        |(ts, seq, symbol, venue, price, note, day)| Row {
            ts,
            seq,
            values: vec![symbol, venue, price, note, day],
        },
    )
}

prop_compose! {
    /// Runs whose times and seqs overlap and tie, cut into groups within ties, some without some columns.
    pub fn any_run()(
        mut rows in prop::collection::vec(any_row(), 0..24),
        present in prop::array::uniform5(prop::bool::weighted(0.8)),
        whole_prices in any::<bool>(),
        group_rows in prop_oneof![1usize..7, 7usize..25],
        one_seq in prop::option::of(1u64..6),
        piece_rows in prop_oneof![1usize..4, Just(usize::MAX)],
        coded in any::<bool>(),
        by_key in any::<bool>(),
        no_null in any::<bool>(),
    ) -> RunOfRows {
        for row in &mut rows {
            row.seq = one_seq.unwrap_or(row.seq);
            if no_null && row.values[0] == Value::Null {
                row.values[0] = "A".into();
            }
            for (value, present) in row.values.iter_mut().zip(present) {
                if !present {
                    *value = Value::Null;
                }
            }
        }
        rows.sort_by_key(|row| (row.ts, row.seq));
        RunOfRows { rows, present, whole_prices, group_rows, piece_rows, coded, by_key }
    }
}

pub fn any_runs() -> impl Strategy<Value = Vec<RunOfRows>> {
    prop::collection::vec(any_run(), 0..5)
}

pub fn any_keys() -> impl Strategy<Value = Keys> {
    (prop::option::weighted(0.4, symbols()), prop::option::weighted(0.4, venues())).prop_map(
        |(symbol, venue)| {
            symbol.map(|value| (0, value)).into_iter().chain(venue.map(|value| (1, value))).collect()
        },
    )
}

/// An input: runs that are scanned in batches of some size, or rows in memory in any order.
#[derive(Clone, Debug)]
pub enum Rows {
    Stored(Vec<RunOfRows>, usize),
    InMemory(Vec<Row>),
}

impl Rows {
    pub fn source(&self) -> RunsOf {
        match self {
            Rows::Stored(runs, _) => source(runs, 4),
            Rows::InMemory(_) => source(&[], 0),
        }
    }

    pub fn rows<'a>(&self, source: &'a RunsOf) -> TimedRows<'a> {
        match self {
            Rows::Stored(_, batch_rows) => Scan::new(source).batch_rows(*batch_rows).into(),
            Rows::InMemory(rows) => columns_of(rows).into(),
        }
    }

    pub fn in_order(&self) -> Vec<Row> {
        match self {
            Rows::Stored(runs, _) => visible(runs, 4),
            Rows::InMemory(rows) => {
                let mut rows = rows.clone();
                rows.sort_by_key(|row| row.ts);
                rows
            }
        }
    }
}

pub fn any_input() -> impl Strategy<Value = Rows> {
    prop_oneof![
        (any_runs(), 1usize..9).prop_map(|(runs, batch_rows)| Rows::Stored(runs, batch_rows)),
        prop::collection::vec(any_row(), 0..24).prop_map(Rows::InMemory),
    ]
}
