//! Of rows with the same keys and timestamp one is shown, whatever runs they are in.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use underbelly_query::{
    Duplicates, MemoryRun, Predicate, Same, Scan, Tombstone, Tombstones, last_points, latest, repeated,
    resolved,
};
use underbelly_storage::{Column, ColumnType, Timestamp, Value};

use crate::deletes::{Delete, any_delete, left};
use crate::latest::key;
use crate::model::{self, NAMES, Row, RunsOf};

fn any_policy() -> impl Strategy<Value = Duplicates> {
    prop::sample::select(vec![Duplicates::LastWins, Duplicates::LastNonNull])
}

/// The rows that are left of rows in order, as the names of the policies say.
fn shown(rows: &[Row], duplicates: Duplicates) -> Vec<Row> {
    let mut shown: Vec<Row> = Vec::new();
    for row in rows {
        let twin =
            shown.iter().position(|before| before.ts == row.ts && before.values[..2] == row.values[..2]);
        let mut row = row.clone();
        if let Some(at) = twin {
            let before = shown.remove(at);
            if duplicates == Duplicates::LastNonNull {
                let values = row.values.iter_mut().zip(before.values);
                values
                    .filter(|(value, _)| **value == Value::Null)
                    .for_each(|(value, before)| *value = before);
            }
        }
        shown.push(row);
    }
    shown
}

fn resolve(of: &RunsOf, deletes: &[Delete], duplicates: Duplicates) -> RunsOf {
    let tombstones: Vec<Arc<Tombstone>> = deletes.iter().map(Delete::tombstone).collect();
    let tombstones = Tombstones::new(tombstones.iter());
    let schema = Arc::new(of.schema.clone());
    let run = resolved(of.runs.clone().into(), schema, tombstones, of.seq, duplicates, 1);
    RunsOf { schema: of.schema.clone(), runs: vec![run], seq: of.seq, slice_rows: of.slice_rows }
}

/// Rows at so many instants that they are looked for together.
fn widened(mut rows: Vec<Row>, is_wide: bool) -> Vec<Row> {
    if is_wide && let Some(row) = rows.first().cloned() {
        rows.extend((100..120).map(|ts| Row { ts, ..row.clone() }));
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn of_rows_with_one_identity_one_is_shown(
        runs in model::any_runs(),
        seq in 0u64..9,
        deletes in prop::collection::vec(any_delete(), 0..3),
        keys in model::any_keys(),
        n in 0usize..9,
        from in prop::option::of(model::times()),
        price in prop::option::of(-3i32..4),
        duplicates in any_policy(),
    ) {
        let source = resolve(&model::source(&runs, seq), &deletes, duplicates);
        let rows = shown(&left(&runs, seq, &deletes), duplicates);
        let price = price.map(f64::from);
        let mut scan = Scan::new(&source).batch_rows(n.max(1));
        if let Some(from) = from {
            scan = scan.from(Timestamp(from));
        }
        for (i, value) in &keys {
            scan = scan.key(NAMES[*i], value.clone());
        }
        if let Some(price) = price {
            scan = scan.filter("price", Predicate::AtLeast(price.into()));
        }
        let is_asked = |row: &&Row| {
            let above = |price: f64| matches!(row.values[2], Value::F64(own) if own >= price);
            from.is_none_or(|from| row.ts >= from) && model::has_keys(row, &keys) && price.is_none_or(above)
        };
        let asked: Vec<&Row> = rows.iter().filter(is_asked).collect();
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

    /// What no reader sees may go from any run by itself, and nobody sees a difference.
    #[test]
    fn what_is_superseded_may_be_left_out_of_any_run(
        runs in prop::collection::vec(model::any_run(), 1..4),
        oldest in 0u64..7,
        later in 0u64..7,
        some in any::<[bool; 4]>(),
        duplicates in any_policy(),
    ) {
        let seq = oldest + later;
        let source = model::source(&runs, seq);
        let read = |source: &RunsOf| {
            model::listed(&Scan::new(&resolve(source, &[], duplicates)).collect().unwrap())
        };
        let mut thinned = model::source(&runs, seq);
        for (run, _) in thinned.runs.iter_mut().zip(some).filter(|(_, is_thinned)| *is_thinned) {
            let whole = MemoryRun::read(&**run, &model::schema()).unwrap();
            let (left, last) = whole.without_superseded(&model::schema(), duplicates, oldest).unwrap();
            prop_assert_eq!(left.rows() == whole.rows(), last == 0);
            prop_assert!(last <= oldest);
            *run = Arc::new(left);
        }
        prop_assert_eq!(read(&thinned), read(&source));
    }

    #[test]
    fn rows_that_are_there_already_are_found(
        runs in model::any_runs(),
        more in prop::collection::vec(model::any_row(), 0..60),
        whole in any::<bool>(),
        wide in any::<bool>(),
    ) {
        let more = widened(more, wide);
        let source = model::source(&runs, 9);
        let known = model::visible(&runs, 9);
        let columns = model::columns_of(&more);
        let compared = if whole { &NAMES[..] } else { &NAMES[..2] };
        let names: Vec<Arc<str>> = compared.iter().map(|name| (*name).into()).collect();
        let given: Vec<(&Arc<str>, &Column)> =
            names.iter().map(|name| (name, columns.column(name).unwrap())).collect();
        let times: Vec<i64> = more.iter().map(|row| row.ts).collect();
        let found = repeated(&source, &times, &given, if whole { Same::Row } else { Same::Identity }).unwrap();
        let is_same = |a: &Row, b: &Row| {
            a.ts == b.ts && a.values[..compared.len()] == b.values[..compared.len()]
        };
        let expected = more.iter().enumerate().map(|(i, row)| {
            known.iter().chain(&more[..i]).any(|before| is_same(before, row))
        });
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    /// Where one row is shown for several it is the one that counts, until one of the same append is put over it, which then counts.
    #[test]
    fn rows_that_are_shown_already_are_found(
        runs in model::any_runs(),
        more in prop::collection::vec(model::any_row(), 0..60),
        wide in any::<bool>(),
        duplicates in any_policy(),
    ) {
        let more = widened(more, wide);
        let source = resolve(&model::source(&runs, 9), &[], duplicates);
        let columns = model::columns_of(&more);
        let names: Vec<Arc<str>> = NAMES.iter().map(|name| (*name).into()).collect();
        let given: Vec<(&Arc<str>, &Column)> =
            names.iter().map(|name| (name, columns.column(name).unwrap())).collect();
        let times: Vec<i64> = more.iter().map(|row| row.ts).collect();
        let found = repeated(&source, &times, &given, Same::Shown { keys: 2 }).unwrap();
        let shown = model::listed(&Scan::new(&source).columns(NAMES).collect().unwrap());
        let given = model::expected(more.iter(), &NAMES);
        let mut last = BTreeMap::new();
        for ((row, listed), found) in more.iter().zip(&given).zip(found) {
            let of_source = || shown.contains(listed);
            let is_shown = last.get(&(row.ts, key(row))).map_or_else(of_source, |last| *last == listed);
            if !is_shown {
                last.insert((row.ts, key(row)), listed);
            }
            prop_assert_eq!(found, is_shown, "{:?}", row);
        }
    }
}

/// A group that holds no row twice, and which no other overlaps, is handed on as it is.
#[test]
fn groups_that_stand_alone_are_not_copied() {
    let row = |ts: i64| Row { ts, seq: 1, values: vec![Value::Null; 5] };
    let rows = model::RunOfRows {
        rows: (0..40).map(row).collect(),
        present: [true; 5],
        whole_prices: false,
        group_rows: 10,
        piece_rows: usize::MAX,
        coded: false,
        by_key: false,
    };
    let source =
        RunsOf { schema: model::schema(), runs: vec![Arc::new(rows.build())], seq: 9, slice_rows: 4 };
    let source = resolve(&source, &[], Duplicates::LastWins);
    let run = &source.runs[0];
    assert_eq!(run.groups(), 4);
    for group in 0..4 {
        assert!(
            matches!(run.timestamps(group).unwrap(), std::borrow::Cow::Borrowed(times) if times.len() == 10)
        );
        assert!(matches!(run.column(group, "symbol").unwrap(), Some(std::borrow::Cow::Borrowed(_))));
    }
    assert_eq!(Scan::new(&source).from(Timestamp(5)).to(Timestamp(35)).count().unwrap(), 30);
}

/// A field that the source has not yet is none of a row's identity, and a key is.
#[test]
fn columns_that_are_new_tell_rows_apart() {
    let row = |ts: i64| Row { ts, seq: 1, values: vec![Value::Null; 5] };
    let columns = model::columns_of(&[row(1), row(1), row(1)]);
    let mut extra = Column::new(ColumnType::I64);
    [Value::I64(5), Value::Null, Value::I64(5)].iter().for_each(|value| extra.push(value).unwrap());
    let source = RunsOf { schema: model::schema(), runs: Vec::new(), seq: 9, slice_rows: 4 };
    let source = resolve(&source, &[], Duplicates::LastWins);
    let names: Vec<Arc<str>> = NAMES.iter().copied().chain(["extra"]).map(Into::into).collect();
    let known = |name: &str| columns.column(name).unwrap();
    let [first, second] = [&names[..2], &names[2..5]];
    let found = |is_key: bool| {
        let field = (&names[5], &extra);
        let keys = first.iter().map(|name| (name, known(name)));
        let fields = second.iter().map(|name| (name, known(name)));
        let given: Vec<(&Arc<str>, &Column)> = match is_key {
            true => keys.chain([field]).chain(fields).collect(),
            false => keys.chain(fields).chain([field]).collect(),
        };
        repeated(&source, &[1; 3], &given, Same::Shown { keys: if is_key { 3 } else { 2 } }).unwrap()
    };
    // The third is put over the second, which was put over the first.
    assert_eq!(found(false), [false, false, false]);
    // Of the same key as the first, over which nothing was put.
    assert_eq!(found(true), [false, false, true]);
}
