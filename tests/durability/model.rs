//! Random transactions, checkpoints, reopenings and crashes against a model of a few maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly::{
    Batch, Column, Columns, Database, Metadata, ReadError, Row, Scope, SimulatedDisk, Snapshot, Timestamp,
    Value,
};
use underbelly_tests::{counter_slot, day, one, options};

/// One part of a transaction.
#[derive(Clone, Debug)]
enum Part {
    Rows { series: u8, rows: Vec<(i64, u8, Option<i64>)> },
    Bulk { series: u8, start: i64 },
    Put { cell: u8, n: i64 },
    Retract { cell: u8 },
    Model { model: u8, byte: u8, large: bool },
    DeleteModel { model: u8 },
    Set { variable: u8, value: i64 },
    Remove { variable: u8 },
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Part>),
    Checkpoint,
    Close,
    Drop,
    Crash,
}

/// Rows of one large append; together more than what fits into the log.
const BULK: usize = 66_000;

fn part() -> impl Strategy<Value = Part> {
    let row = (0i64..40, 0u8..3, proptest::option::of(0i64..1000));
    prop_oneof![
        6 => (0u8..3, proptest::collection::vec(row, 1..6)).prop_map(|(series, rows)| Part::Rows { series, rows }),
        1 => (0u8..2, -20i64..20).prop_map(|(series, start)| Part::Bulk { series, start }),
        4 => (0u8..4, 0i64..3).prop_map(|(cell, n)| Part::Put { cell, n }),
        1 => (0u8..4).prop_map(|cell| Part::Retract { cell }),
        3 => (0u8..3, 0u8..4, proptest::bool::weighted(0.1))
            .prop_map(|(model, byte, large)| Part::Model { model, byte, large }),
        1 => (0u8..3).prop_map(|model| Part::DeleteModel { model }),
        3 => (0u8..3, 0i64..3).prop_map(|(variable, value)| Part::Set { variable, value }),
        1 => (0u8..3).prop_map(|variable| Part::Remove { variable }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(part(), 1..4).prop_map(Step::Commit),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Close),
        1 => Just(Step::Drop),
        1 => Just(Step::Crash),
    ]
}

/// A row: time, key, field.
type ModelRow = (i64, Option<u8>, Option<i64>);

/// What the database should show.
#[derive(Clone, Default)]
struct Model {
    /// Rows in order of (time, arrival).
    series: BTreeMap<u8, Vec<ModelRow>>,
    /// Contents and generation.
    cells: BTreeMap<u8, (Option<i64>, u64)>,
    /// Blobs of all versions.
    models: BTreeMap<u8, Vec<Vec<u8>>>,
    variables: BTreeMap<u8, i64>,
}

fn series_name(series: u8) -> String {
    format!("s{series}")
}

fn metadata(model: u8) -> Metadata {
    Metadata::new("m").with("number", i64::from(model)).with("timestamp", Timestamp(5))
}

fn blob(byte: u8, large: bool) -> Vec<u8> {
    vec![byte; if large { (1 << 20) + 1 } else { 50 }]
}

impl Model {
    fn batch(&mut self, parts: &[Part]) -> Batch {
        let mut batch = Batch::new();
        // Of several writes to one cell in a transaction the last counts.
        let mut cells = BTreeMap::new();
        for part in parts {
            match part {
                Part::Rows { series, rows } => {
                    for (at, key, x) in rows {
                        let row = Row::new(series_name(*series), Timestamp(*at)).key("k", format!("k{key}"));
                        batch.append(row.field("x", *x)).unwrap();
                        self.insert(*series, (*at, Some(*key), *x));
                    }
                }
                Part::Bulk { series, start } => {
                    let times = (0..BULK as i64).map(|row| Timestamp(start + row / 1000)).collect();
                    let x: Vec<i64> = (0..BULK as i64).collect();
                    let columns = Columns::new().with("x", Column::from(x)).unwrap();
                    batch.append_columns(series_name(*series), times, columns, &[]).unwrap();
                    let rows = (0..BULK as i64).map(|row| (start + row / 1000, None, Some(row)));
                    let all = self.series.entry(*series).or_default();
                    all.extend(rows);
                    all.sort_by_key(|row| row.0);
                }
                Part::Put { cell, n } => {
                    batch.put_slot("Slot", day(), [format!("c{cell}")], one("n", *n).unwrap());
                    cells.insert(*cell, Some(*n));
                }
                Part::Retract { cell } => {
                    batch.retract_slot("Slot", day(), [format!("c{cell}")]);
                    cells.insert(*cell, None);
                }
                Part::Model { model, byte, large } => {
                    batch.put_model(metadata(*model), blob(*byte, *large));
                    self.models.entry(*model).or_default().push(blob(*byte, *large));
                }
                Part::DeleteModel { model } => {
                    batch.delete_model(&metadata(*model)).unwrap();
                    self.models.remove(model);
                }
                Part::Set { variable, value } => {
                    batch.set_variable(Scope::asset("a"), &format!("v{variable}"), *value);
                    self.variables.insert(*variable, *value);
                }
                Part::Remove { variable } => {
                    batch.remove_variable(Scope::asset("a"), &format!("v{variable}"));
                    self.variables.remove(variable);
                }
            }
        }
        for (cell, content) in cells {
            let known = self.cells.entry(cell).or_default();
            if known.0 != content {
                *known = (content, known.1 + 1);
            }
        }
        batch
    }

    fn insert(&mut self, series: u8, row: ModelRow) {
        let rows = self.series.entry(series).or_default();
        rows.insert(rows.partition_point(|known| known.0 <= row.0), row);
    }

    fn check(&self, snapshot: &Snapshot) {
        for (series, rows) in &self.series {
            let found = snapshot.series(&series_name(*series)).unwrap();
            assert_eq!(rows_of(&found.range(Timestamp::MIN, Timestamp::MAX).unwrap()), *rows);
            let within: Vec<_> = rows.iter().filter(|row| (10..15).contains(&row.0)).copied().collect();
            assert_eq!(rows_of(&found.range(Timestamp(10), Timestamp(15)).unwrap()), within);
            let newest: Vec<_> = rows.iter().rev().take(4).copied().collect();
            assert_eq!(rows_of(&found.latest(4, &[]).unwrap()), newest);
            let bounds = rows.first().zip(rows.last());
            assert_eq!(found.bounds().unwrap(), bounds.map(|(a, b)| (Timestamp(a.0), Timestamp(b.0))));
            let mut last: BTreeMap<Option<u8>, ModelRow> = BTreeMap::new();
            last.extend(rows.iter().map(|row| (row.1, *row)));
            let mut points = rows_of(&found.last_points().unwrap());
            points.sort_by_key(|row| row.1);
            assert_eq!(points, last.values().copied().collect::<Vec<_>>());
            for key in 0..3u8 {
                if rows.iter().any(|row| row.1.is_some()) {
                    let keys = [("k", Value::from(format!("k{key}")))];
                    let point = found.last_point(&keys).unwrap().map(|row| rows_of(&row)[0]);
                    assert_eq!(point, last.get(&Some(key)).copied());
                }
            }
        }
        for (cell, (content, generation)) in &self.cells {
            let found = snapshot.slot("Slot", day(), [format!("c{cell}")]).unwrap();
            assert_eq!(found.as_ref().map(|found| found.rows.i64s("n").unwrap()[0]), *content);
            if let Some(found) = found {
                assert_eq!(found.generation, *generation);
            }
        }
        let found = snapshot.variables();
        let found = found.iter().map(|found| (found.name.to_string(), found.value.clone()));
        let expected = self.variables.iter().map(|(name, value)| (format!("v{name}"), (*value).into()));
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!(snapshot.models().len(), self.models.len());
        for (model, versions) in &self.models {
            let found = snapshot.model(&metadata(*model)).unwrap().unwrap();
            assert_eq!(found.info().version, versions.len() as u64);
            assert!(*found.blob().unwrap() == **versions.last().unwrap());
        }
    }
}

fn rows_of(rows: &Columns) -> Vec<ModelRow> {
    let row = |row: usize| {
        let key = match rows.value("k", row) {
            Some(Value::Utf8(text)) => text.strip_prefix('k').and_then(|n| n.parse().ok()),
            _ => None,
        };
        let x = match rows.value("x", row) {
            Some(Value::I64(x)) => Some(x),
            _ => None,
        };
        (rows.timestamps("timestamp").unwrap()[row], key, x)
    };
    (0..rows.rows()).map(row).collect()
}

fn run(steps: Vec<Step>) {
    let mut disk = SimulatedDisk::new();
    let mut db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
    db.define_slot(counter_slot("Slot")).unwrap();
    let mut model = Model::default();
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Commit(parts) => {
                held.push((db.snapshot(), model.clone()));
                if held.len() > 3 {
                    held.remove(0);
                }
                db.commit(model.batch(&parts)).unwrap();
            }
            Step::Checkpoint => {
                db.checkpoint().unwrap();
            }
            Step::Close => {
                db.close().unwrap();
                db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
            }
            Step::Drop => {
                drop(db);
                db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
            }
            Step::Crash => {
                disk = disk.crash();
                db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
            }
        }
        model.check(&db.snapshot());
        for (snapshot, model) in &held {
            model.check(snapshot);
            for (name, count) in (0..3u8).map(|series| (series_name(series), model.series.get(&series))) {
                match snapshot.series(&name) {
                    Ok(found) => {
                        assert_eq!(found.count().unwrap(), count.map_or(0, |rows| rows.len() as u64))
                    }
                    Err(ReadError::UnknownSeries { .. }) => assert!(count.is_none()),
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// After any series of commits, checkpoints, closes, drops and crashes the database and the snapshots taken on
    /// the way show what the model says.
    #[test]
    fn the_database_is_what_the_model_says(steps in proptest::collection::vec(step(), 1..20)) {
        run(steps);
    }
}
