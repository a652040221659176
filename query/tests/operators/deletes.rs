//! What tombstones hide is in no answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{
    MemoryRun, Predicate, Run, Scan, Schema, Source, Tombstone, Tombstones, hidden_rows, last_points, latest,
};
use underbelly_storage::{Timestamp, Value, Workers};

use crate::latest::key;
use crate::model::{self, Keys, NAMES, Row, RunOfRows, RunsOf};

/// Rows of a source, and what hides some of them.
pub struct Without {
    pub of: RunsOf,
    pub tombstones: Vec<Arc<Tombstone>>,
}

impl Source for Without {
    fn schema(&self) -> &Schema {
        &self.of.schema
    }

    fn runs(&self) -> &[Arc<dyn Run>] {
        &self.of.runs
    }

    fn seq(&self) -> u64 {
        self.of.seq
    }

    fn tombstones(&self) -> Tombstones {
        Tombstones::new(self.tombstones.iter())
    }

    fn workers(&self) -> &dyn Workers {
        self.of.workers()
    }

    fn slice_rows(&self) -> usize {
        self.of.slice_rows()
    }
}

#[derive(Clone, Debug)]
pub struct Delete {
    seq: u64,
    from: Option<i64>,
    to: Option<i64>,
    keys: Keys,
    /// Prices below this alone.
    price_below: Option<f64>,
}

impl Delete {
    fn hides(&self, row: &Row) -> bool {
        let is_below = |below: f64| matches!(row.values[2], Value::F64(price) if price < below);
        row.seq < self.seq
            && self.from.is_none_or(|from| row.ts >= from)
            && self.to.is_none_or(|to| row.ts < to)
            && model::has_keys(row, &self.keys)
            && self.price_below.is_none_or(is_below)
    }

    pub fn tombstone(&self) -> Arc<Tombstone> {
        let keys: Vec<(Arc<str>, Value)> =
            self.keys.iter().map(|(i, value)| (NAMES[*i].into(), value.clone())).collect();
        let range = (self.from.map(Timestamp), self.to.map(Timestamp));
        let tombstone = Tombstone::new(&model::schema(), range.0, range.1, &keys).unwrap();
        let predicate = self.price_below.map(|below| ("price".into(), Predicate::Below(below.into())));
        let predicates: Vec<(Arc<str>, Predicate)> = predicate.into_iter().collect();
        tombstone.matching(&model::schema(), &predicates).unwrap().with_seq(self.seq).into()
    }
}

prop_compose! {
    pub fn any_delete()(
        seq in 1u64..8,
        ends in (prop::option::of(model::times()), prop::option::of(model::times())),
        keys in model::any_keys(),
        price_below in prop::option::weighted(0.3, (-2i32..4).prop_map(f64::from)),
    ) -> Delete {
        let (from, to) = match ends {
            (Some(from), Some(to)) => (Some(from.min(to)), Some(from.max(to))),
            ends => ends,
        };
        Delete { seq, from, to, keys, price_below }
    }
}

pub fn left(runs: &[RunOfRows], seq: u64, deletes: &[Delete]) -> Vec<Row> {
    let stands = |row: &Row| !deletes.iter().any(|delete| delete.seq <= seq && delete.hides(row));
    model::visible(runs, seq).into_iter().filter(stands).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn no_operator_gives_back_what_is_deleted(
        runs in model::any_runs(),
        seq in 0u64..9,
        deletes in prop::collection::vec(any_delete(), 0..4),
        keys in model::any_keys(),
        n in 0usize..9,
        from in prop::option::of(model::times()),
    ) {
        let tombstones: Vec<Arc<Tombstone>> = deletes.iter().map(Delete::tombstone).collect();
        let source = Without { of: model::source(&runs, seq), tombstones };
        let rows = left(&runs, seq, &deletes);
        let mut scan = Scan::new(&source).batch_rows(n.max(1));
        if let Some(from) = from {
            scan = scan.from(Timestamp(from));
        }
        for (i, value) in &keys {
            scan = scan.key(NAMES[*i], value.clone());
        }
        let asked = rows.iter().filter(|row| from.is_none_or(|from| row.ts >= from));
        let asked: Vec<&Row> = asked.filter(|row| model::has_keys(row, &keys)).collect();
        prop_assert_eq!(scan.clone().count().unwrap(), asked.len() as u64);
        let expected = model::expected(asked, &NAMES);
        prop_assert_eq!(model::listed(&scan.clone().collect().unwrap()), expected.clone());
        let batches: Vec<_> = scan.batches().map(|batch| model::listed(&batch.unwrap())).collect();
        prop_assert_eq!(batches.concat(), expected);
        let named: Vec<(&str, Value)> = keys.iter().map(|(i, value)| (NAMES[*i], value.clone())).collect();
        let newest = rows.iter().rev().filter(|row| model::has_keys(row, &keys)).take(n);
        let expected = model::expected(newest, &NAMES);
        prop_assert_eq!(model::listed(&latest(&source, n, &named).unwrap()), expected);
        let by_key: BTreeMap<_, &Row> = rows.iter().map(|row| (key(row), row)).collect();
        let points = model::expected(by_key.into_values(), &NAMES);
        prop_assert_eq!(model::listed(&last_points(&source).unwrap()), points);
    }

    #[test]
    fn what_is_deleted_is_counted_and_left_out(
        run in model::any_run(),
        deletes in prop::collection::vec(any_delete(), 0..4),
    ) {
        let tombstones: Vec<Arc<Tombstone>> = deletes.iter().map(Delete::tombstone).collect();
        let built = run.build();
        let rows = left(std::slice::from_ref(&run), u64::MAX, &deletes);
        let hidden = run.rows.len() - rows.len();
        prop_assert_eq!(hidden_rows(&built, &tombstones).unwrap(), hidden as u64);
        let whole = MemoryRun::read(&built, &model::schema()).unwrap();
        let kept = whole.without(&tombstones).unwrap();
        prop_assert_eq!(kept.timestamps(), rows.iter().map(|row| row.ts).collect::<Vec<_>>());
        let seqs: Vec<u64> = (0..kept.rows()).map(|row| kept.seqs().get(row)).collect();
        prop_assert_eq!(seqs, rows.iter().map(|row| row.seq).collect::<Vec<_>>());
        let symbols = kept.columns().column("symbol").unwrap();
        let expected: Vec<Value> = rows.iter().map(|row| row.values[0].clone()).collect();
        prop_assert_eq!((0..kept.rows()).map(|row| symbols.get(row)).collect::<Vec<_>>(), expected);
    }
}

/// Groups that are wholly deleted, as their zones tell, are not read; and without tombstones nothing more is read than
/// before.
#[test]
fn deleted_groups_are_not_read() {
    use std::sync::atomic::Ordering::Relaxed;

    let row = |ts: i64| {
        let mut values = vec![Value::Null; 5];
        values[0] = Value::from(if ts % 2 == 0 { "a" } else { "z" });
        Row { ts, seq: 1, values }
    };
    let rows = RunOfRows { rows: (0..40).map(row).collect(), group_rows: 10, ..RunOfRows::default() };
    let built = Arc::new(rows.build());
    let source = |tombstones| Without {
        of: RunsOf {
            schema: model::schema(),
            runs: vec![built.clone() as Arc<dyn Run>],
            seq: 9,
            slice_rows: model::MANY,
        },
        tombstones,
    };
    let delete = |from, to| {
        Delete { seq: 2, from: Some(from), to: Some(to), keys: Vec::new(), price_below: None }.tombstone()
    };
    assert_eq!(Scan::new(&source(Vec::new())).count().unwrap(), 40);
    assert_eq!(Scan::new(&source(vec![delete(10, 30)])).count().unwrap(), 20);
    assert_eq!(built.timestamps_read.load(Relaxed), 0);
    assert_eq!(Scan::new(&source(vec![delete(10, 35)])).count().unwrap(), 15);
    assert_eq!((built.timestamps_read.load(Relaxed), built.seqs_read.load(Relaxed)), (1, 0));
    // Many that name a key: its column is read once, and in no group that none of them overlaps.
    let keyed = |i: i64| {
        let keys = vec![(0, Value::from(format!("k{i}")))];
        Delete { seq: 2, from: Some(20 - i % 5), to: Some(21 + i % 9), keys, price_below: None }.tombstone()
    };
    assert_eq!(Scan::new(&source((0..50).map(keyed).collect())).count().unwrap(), 40);
    assert_eq!((built.timestamps_read.load(Relaxed), built.columns_read.load(Relaxed)), (3, 2));
    // Nor where the zones tell that no row has the key.
    let absent = |i: i64| {
        let keys = vec![(0, Value::from(format!("zz{i}")))];
        Delete { seq: 2, from: None, to: None, keys, price_below: None }.tombstone()
    };
    assert_eq!(Scan::new(&source((0..50).map(absent).collect())).count().unwrap(), 40);
    assert_eq!(built.columns_read.load(Relaxed), 2);
}
