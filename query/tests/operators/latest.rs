use std::collections::BTreeMap;

use proptest::prelude::*;
use underbelly_query::{last_point, last_points, latest};
use underbelly_storage::Value;

use crate::model::{self, NAMES, Row};

/// The key of a row with nulls first.
pub fn key(row: &Row) -> (Option<String>, Option<i64>) {
    let venue = if let Value::I64(venue) = row.values[1] { Some(venue) } else { None };
    (row.values[0].as_str().map(str::to_string), venue)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn latest_is_the_end_of_the_list_reversed(
        runs in model::any_runs(), seq in 0u64..7, keys in model::any_keys(), n in 0usize..40,
    ) {
        let source = model::source(&runs, seq);
        let mut rows = model::visible(&runs, seq);
        rows.retain(|row| model::has_keys(row, &keys));
        let expected = model::expected(rows.iter().rev().take(n), &NAMES);
        let keys: Vec<(&str, Value)> = keys.into_iter().map(|(i, value)| (NAMES[i], value)).collect();
        let newest = latest(&source, n, &keys).unwrap();
        prop_assert_eq!(newest.width(), 6);
        prop_assert_eq!(model::listed(&newest), expected);
        let last = last_point(&source, &keys).unwrap().map(|row| model::listed(&row));
        prop_assert_eq!(last, rows.last().map(|row| model::expected([row], &NAMES)));
    }

    #[test]
    fn last_points_are_the_last_rows_by_key(runs in model::any_runs(), seq in 0u64..7) {
        let source = model::source(&runs, seq);
        let rows = model::visible(&runs, seq);
        let by_key: BTreeMap<_, &Row> = rows.iter().map(|row| (key(row), row)).collect();
        let points = last_points(&source).unwrap();
        prop_assert_eq!(points.width(), 6);
        prop_assert_eq!(model::listed(&points), model::expected(by_key.into_values(), &NAMES));
    }

    #[test]
    fn without_keys_there_is_one_last_point(runs in model::any_runs(), seq in 0u64..7) {
        let mut source = model::source(&runs, seq);
        source.schema.columns.iter_mut().for_each(|column| column.key = false);
        let rows = model::visible(&runs, seq);
        let points = last_points(&source).unwrap();
        prop_assert_eq!(model::listed(&points), model::expected(rows.last(), &NAMES));
    }
}
