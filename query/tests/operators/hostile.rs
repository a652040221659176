//! Queries that do not fit, and runs that lie.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{
    Aggregate, Direction, Every, Fill, QueryError, Run, Scan, Seqs, Zone, last_points, latest,
};
use underbelly_storage::{Column, ColumnError, ColumnType, Columns, Timestamp, Value};

use crate::model::{self, NAMES, RunsOf};

/// A run whose answers need not fit each other.
#[derive(Clone, Debug)]
struct Liar {
    zones: Vec<Zone>,
    timestamps: Vec<i64>,
    seqs: Option<Vec<u64>>,
    columns: Columns,
    fails: bool,
    /// Rows that are read at a time, and codes of the texts "a" and "b".
    piece_rows: usize,
    codes: Option<Vec<u32>>,
}

impl Run for Liar {
    fn groups(&self) -> usize {
        self.zones.len()
    }

    fn zone(&self, group: usize) -> Zone {
        self.zones[group]
    }

    fn timestamps(&self, _group: usize) -> Result<Cow<'_, [i64]>, QueryError> {
        Ok(Cow::Borrowed(&self.timestamps))
    }

    fn seqs(&self, _group: usize) -> Result<Seqs<'_>, QueryError> {
        Ok(self.seqs.as_ref().map_or(Seqs::One(3), |seqs| Seqs::Each(Cow::Borrowed(seqs))))
    }

    fn column(&self, _group: usize, name: &str) -> Result<Option<Cow<'_, Column>>, QueryError> {
        if self.fails {
            return Err(QueryError::source("block 7 is damaged"));
        }
        Ok(self.columns.column(name).map(Cow::Borrowed))
    }

    fn piece_rows(&self) -> usize {
        self.piece_rows
    }

    fn dictionary(&self, _group: usize, name: &str) -> Result<Option<Column>, QueryError> {
        let is_coded = self.codes.is_some() && name == "symbol";
        Ok(is_coded.then(|| Column::from_iter(["a", "b"])))
    }

    fn codes(&self, _group: usize, _name: &str, rows: Range<usize>) -> Result<Vec<u32>, QueryError> {
        let codes = self.codes.as_deref().unwrap_or_default();
        Ok(codes.iter().copied().skip(rows.start).take(rows.len()).collect())
    }
}

fn honest() -> Liar {
    let columns = Columns::new().with("symbol", Column::from_iter(["a", "b"])).unwrap();
    Liar {
        zones: vec![Zone { rows: 2, ts_min: 1, ts_max: 2, seq_min: 1, seq_max: 2 }],
        timestamps: vec![1, 2],
        seqs: Some(vec![1, 2]),
        columns,
        fails: false,
        piece_rows: usize::MAX,
        codes: None,
    }
}

fn source(runs: Vec<Liar>) -> RunsOf {
    let runs = runs.into_iter().map(|run| Arc::new(run) as Arc<dyn Run>).collect();
    RunsOf { schema: model::schema(), runs, seq: 9, slice_rows: 2 }
}

/// The same error from each operator.
fn errors(run: Liar) -> [QueryError; 3] {
    let source = source(vec![honest(), run]);
    [
        Scan::new(&source).collect().unwrap_err(),
        latest(&source, 9, &[]).unwrap_err(),
        last_points(&source).unwrap_err(),
    ]
}

#[test]
fn queries_that_do_not_fit_say_what_would() {
    let source = source(vec![honest()]);
    let cases: [(Scan<'_>, &str); 6] = [
        (
            Scan::new(&source).columns(["prize"]),
            "there is no column \"prize\"; the columns are: timestamp, symbol, venue, price, note, day",
        ),
        (
            Scan::new(&source).key("price", 1.0),
            "column \"price\" is not a key; the keys are: symbol, venue; read the rows and filter them",
        ),
        (Scan::new(&source).key("venue", "x"), "key \"venue\" holds i64, not utf8; convert the value"),
        (Scan::new(&source).key("venue", 1.0), "key \"venue\" holds i64, not f64; convert the value"),
        (
            Scan::new(&source).from(Timestamp(1)).to(Timestamp(0)),
            "the range starts at 1970-01-01T00:00:00.000000001Z and ends before that, at 1970-01-01T00:00:00Z; \
             exchange the two",
        ),
        (Scan::new(&source).columns(["day", "day"]), "two columns are named \"day\"; rename one"),
    ];
    for (scan, message) in cases {
        assert_eq!(scan.clone().collect().unwrap_err().to_string(), message);
        assert_eq!(scan.clone().count().unwrap_err().to_string(), message);
        let mut batches = scan.batches();
        assert_eq!(batches.next().unwrap().unwrap_err().to_string(), message);
        assert!(batches.next().is_none());
    }
    assert!(matches!(latest(&source, 1, &[("day", Value::Null)]), Err(QueryError::NotKey { .. })));
    assert!(matches!(latest(&source, 1, &[("x", Value::Null)]), Err(QueryError::UnknownColumn { .. })));
}

#[test]
fn a_second_timestamp_is_refused() {
    let mut source = source(vec![honest()]);
    source.schema.columns[3].name = "timestamp".into();
    assert!(matches!(Scan::new(&source).collect(), Err(QueryError::ReservedColumn)));
    source.schema.columns[3].name = "symbol".into();
    let twice = Scan::new(&source).collect();
    assert!(matches!(twice, Err(QueryError::Columns(ColumnError::Duplicate { .. }))));
}

#[test]
fn failures_of_a_run_come_through_and_end_the_scan() {
    for error in errors(Liar { fails: true, ..honest() }) {
        assert_eq!(error.to_string(), "reading rows failed: block 7 is damaged");
    }
    let source = source(vec![Liar { fails: true, ..honest() }]);
    let mut batches = Scan::new(&source).batches();
    assert!(matches!(batches.next(), Some(Err(QueryError::Source(_)))));
    assert!(batches.next().is_none());
}

#[test]
fn vectors_of_wrong_length_are_named() {
    let three = Columns::new().with("symbol", Column::from_iter(["a", "b", "c"])).unwrap();
    let zone = |rows| vec![Zone { rows, ..honest().zones[0] }];
    let cases = [
        (Liar { timestamps: vec![1], ..honest() }, "timestamp", 2, 1),
        (Liar { seqs: Some(vec![1, 2, 3]), ..honest() }, "the sequence numbers", 2, 3),
        (Liar { columns: three, ..honest() }, "symbol", 2, 3),
        (Liar { zones: zone(1_000_000), ..honest() }, "timestamp", 1_000_000, 2),
    ];
    for (run, vector, announced, there) in cases {
        for error in errors(run) {
            match error {
                QueryError::Malformed { run: 1, group: 0, what, expected, found } => {
                    assert_eq!((what.as_str(), expected, found), (vector, announced, there));
                }
                other => panic!("{other}"),
            }
        }
    }
    for error in errors(Liar { zones: zone(usize::MAX), ..honest() }) {
        assert!(matches!(error, QueryError::TooManyRows { rows: usize::MAX }));
    }
}

#[test]
fn texts_that_there_are_not_are_named() {
    for (codes, found) in [(vec![0, 2], 2), (vec![9, 0], 9)] {
        for error in errors(Liar { codes: Some(codes.clone()), ..honest() }) {
            match error {
                QueryError::Malformed { run: 1, group: 0, what, expected: 2, found: place } => {
                    assert_eq!((what.as_str(), place), ("the texts of symbol", found));
                }
                other => panic!("{other}"),
            }
        }
    }
    for error in errors(Liar { codes: Some(vec![0]), ..honest() }) {
        let QueryError::Malformed { what, expected: 2, found: 1, .. } = error else { panic!("{error}") };
        assert_eq!(what, "symbol");
    }
}

#[test]
fn columns_of_another_type_are_named() {
    let numbers = Columns::new().with("symbol", Column::from(vec![1i64, 2])).unwrap();
    let run = Liar { columns: numbers, ..honest() };
    for error in errors(run.clone()) {
        assert!(matches!(
            error,
            QueryError::ColumnType { expected: ColumnType::Utf8, found: ColumnType::I64, .. }
        ));
    }
    let source = source(vec![run]);
    assert!(matches!(
        Scan::new(&source).key("symbol", "a").count(),
        Err(QueryError::ColumnType { expected: ColumnType::Utf8, found: ColumnType::I64, .. })
    ));
}

prop_compose! {
    fn any_liar()(
        zones in prop::collection::vec(
            (0usize..4, model::times(), model::times(), 0u64..12, 0u64..12), 0..4),
        timestamps in prop::collection::vec(model::times(), 0..4),
        seqs in prop::option::of(prop::collection::vec(0u64..12, 0..4)),
        symbols in prop::collection::vec(model::symbols(), 0..4),
        fit in prop::bool::weighted(0.8),
        piece_rows in prop_oneof![Just(0usize), Just(1), Just(2), Just(usize::MAX)],
        codes in prop::option::of(prop::collection::vec(0u32..3, 0..5)),
    ) -> Liar {
        let mut column = Column::new(ColumnType::Utf8);
        symbols.iter().for_each(|symbol| column.push(symbol).unwrap());
        let rows = timestamps.len();
        if fit {
            column = Column::nulls(ColumnType::Utf8, rows);
        }
        let zones = zones.into_iter().map(|(found, ts_min, ts_max, seq_min, seq_max)| Zone {
            rows: if fit { rows } else { found }, ts_min, ts_max, seq_min, seq_max,
        });
        let seqs = seqs.map(|mut seqs| {
            if fit { seqs.resize(rows, 1) }
            seqs
        });
        let columns = Columns::new().with("symbol", column).unwrap();
        Liar { zones: zones.collect(), timestamps, seqs, columns, fails: false, piece_rows, codes }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn lies_never_panic(
        runs in prop::collection::vec(any_liar(), 1..4),
        ends in (model::times(), model::times()),
        keys in model::any_keys(),
        batch_rows in 1usize..5,
    ) {
        let rows_max: usize = runs.iter().map(|run| run.zones.len() * run.timestamps.len()).sum();
        let source = source(runs);
        let mut scan = Scan::new(&source).from(Timestamp(ends.0)).to(Timestamp(ends.1)).batch_rows(batch_rows);
        for (i, value) in &keys {
            scan = scan.key(NAMES[*i], value.clone());
        }
        let _ = scan.clone().count();
        let rows: usize = scan.batches().flatten().map(|batch| batch.rows()).sum();
        prop_assert!(rows <= rows_max);
        if let Ok(newest) = latest(&source, 5, &[]) {
            prop_assert!(newest.rows() <= 5);
        }
        let _ = last_points(&source);
        for direction in [Direction::Backward, Direction::Forward, Direction::Nearest] {
            let join = Scan::new(&source).batch_rows(batch_rows).asof(Scan::new(&source)).by("symbol");
            let _ = join.direction(direction).batches().map(|batches| batches.count());
        }
        let days = Scan::new(&source).resample(Every::days(1)).by("symbol").fill(Fill::None);
        let _ = days.aggregates(NAMES.map(Aggregate::max)).collect();
    }
}

/// Each piece is in order, and they are not.
#[test]
fn pieces_that_stand_in_a_wrong_order_are_refused() {
    let prices: Vec<f64> = (0..6).map(f64::from).collect();
    let columns = Columns::new().with("price", prices.into()).unwrap();
    let groups = vec![(vec![0, 5, 7, 8, 2, 9], vec![1; 6], columns)];
    let run = model::CountedRun { groups, piece_rows: 2, ..model::CountedRun::default() };
    let source =
        RunsOf { schema: model::schema(), runs: vec![Arc::new(run)], seq: 9, slice_rows: model::MANY };
    let is_refused = |error: QueryError| matches!(error, QueryError::Disordered { run: 0, group: 0 });
    assert!(is_refused(Scan::new(&source).collect().unwrap_err()));
    assert!(is_refused(latest(&source, 6, &[]).unwrap_err()));
}
