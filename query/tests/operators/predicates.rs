use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;
use underbelly_query::{Predicate, QueryError, Scan, at_or_after, at_or_before, last_points_where, nearest};
use underbelly_storage::{Date, Timestamp, Value};

use crate::latest::key;
use crate::model::{self, NAMES, Row};

/// A column, and values of its type or of one that widens to it.
fn any_value() -> impl Strategy<Value = (usize, Value)> {
    prop_oneof![
        prop::sample::select(vec!["", "A", "AB", "ABCDEFGHI", "B\0"]).prop_map(|text| (0, text.into())),
        (-2i64..3).prop_map(|venue| (1, venue.into())),
        (-4i32..5).prop_map(|price| (2, f64::from(price).into())),
        (-4i64..5).prop_map(|price| (2, price.into())),
        Just((2, f64::NAN.into())),
        prop::collection::vec(any::<u8>(), 0..3).prop_map(|note| (3, note.into())),
        (-1i32..4).prop_map(|day| (4, Date(day).into())),
    ]
}

fn any_predicate() -> impl Strategy<Value = (usize, Predicate)> {
    let compared = (any_value(), 0..8).prop_map(|((column, value), kind)| {
        let predicate = match kind {
            0 => Predicate::Equal(value),
            1 => Predicate::NotEqual(value),
            2 => Predicate::Below(value),
            3 => Predicate::AtMost(value),
            4 => Predicate::Above(value),
            5 => Predicate::AtLeast(value),
            6 => Predicate::IsNull,
            _ => Predicate::NotNull,
        };
        (column, predicate)
    });
    // Values of one column among some of all, and null now and then.
    let of_one = (0..5usize, prop::collection::vec(any_value(), 0..9), prop::bool::weighted(0.3));
    let of_one = of_one.prop_map(|(column, values, has_null)| {
        let values = values.into_iter().filter(|(of, _)| *of == column).map(|(_, value)| value);
        (column, Predicate::one_of(values.chain(has_null.then_some(Value::Null))))
    });
    prop_oneof![2 => compared, 1 => of_one]
}

fn order(found: &Value, asked: &Value) -> Ordering {
    match (found, asked) {
        (Value::Utf8(a), Value::Utf8(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::I64(a), Value::I64(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::F64(a), Value::F64(b)) if !b.is_nan() => a.partial_cmp(b).unwrap(),
        (Value::F64(a), Value::I64(b)) => a.partial_cmp(&(*b as f64)).unwrap(),
        // No price is NaN, which is greater.
        (Value::F64(_), _) => Ordering::Less,
        _ => unreachable!("{found:?} and {asked:?} are of one column"),
    }
}

fn meets(row: &Row, (column, predicate): &(usize, Predicate)) -> bool {
    let value = &row.values[*column];
    if *value == Value::Null {
        return match predicate {
            Predicate::OneOf(asked) => asked.contains(&Value::Null),
            other => *other == Predicate::IsNull,
        };
    }
    match predicate {
        Predicate::Equal(asked) => order(value, asked).is_eq(),
        Predicate::NotEqual(asked) => order(value, asked).is_ne(),
        Predicate::Below(asked) => order(value, asked).is_lt(),
        Predicate::AtMost(asked) => order(value, asked).is_le(),
        Predicate::Above(asked) => order(value, asked).is_gt(),
        Predicate::AtLeast(asked) => order(value, asked).is_ge(),
        Predicate::IsNull => false,
        Predicate::NotNull => true,
        Predicate::OneOf(asked) => {
            asked.iter().any(|asked| *asked != Value::Null && order(value, asked).is_eq())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn predicates_keep_what_a_list_filtered_keeps(
        runs in model::any_runs(), seq in 0u64..7, predicates in prop::collection::vec(any_predicate(), 1..3),
    ) {
        let source = model::source(&runs, seq);
        let mut rows = model::visible(&runs, seq);
        rows.retain(|row| predicates.iter().all(|predicate| meets(row, predicate)));
        let mut scan = Scan::new(&source);
        for (column, predicate) in &predicates {
            scan = scan.filter(NAMES[*column], predicate.clone());
        }
        prop_assert_eq!(scan.clone().count().unwrap(), rows.len() as u64);
        prop_assert_eq!(model::listed(&scan.collect().unwrap()), model::expected(&rows, &NAMES));
    }

    #[test]
    fn last_points_are_filtered_after_they_are_found(
        runs in model::any_runs(), seq in 0u64..7, predicates in prop::collection::vec(any_predicate(), 0..3),
    ) {
        let source = model::source(&runs, seq);
        let rows = model::visible(&runs, seq);
        let by_key: BTreeMap<_, &Row> = rows.iter().map(|row| (key(row), row)).collect();
        let kept = by_key.into_values().filter(|row| predicates.iter().all(|predicate| meets(row, predicate)));
        let kept: Vec<&Row> = kept.collect();
        let named: Vec<(&str, Predicate)> =
            predicates.iter().map(|(column, predicate)| (NAMES[*column], predicate.clone())).collect();
        let points = last_points_where(&source, &named).unwrap();
        prop_assert_eq!(model::listed(&points), model::expected(kept, &NAMES));
    }

    #[test]
    fn rows_around_an_instant_are_found(
        runs in model::any_runs(), seq in 0u64..7, keys in model::any_keys(), at in model::times(),
    ) {
        let source = model::source(&runs, seq);
        let mut rows = model::visible(&runs, seq);
        rows.retain(|row| model::has_keys(row, &keys));
        let named: Vec<(&str, Value)> = keys.into_iter().map(|(i, value)| (NAMES[i], value)).collect();
        let before = rows.iter().rfind(|row| row.ts <= at);
        let after = rows.iter().find(|row| row.ts >= at);
        let near = match (before, after) {
            (Some(before), Some(after)) if after.ts.abs_diff(at) < at.abs_diff(before.ts) => Some(after),
            (before, after) => before.or(after),
        };
        for (found, row) in [
            (at_or_before(&source, Timestamp(at), &named), before),
            (at_or_after(&source, Timestamp(at), &named), after),
            (nearest(&source, Timestamp(at), &named), near),
        ] {
            let found = found.unwrap().map(|row| model::listed(&row));
            prop_assert_eq!(found, row.map(|row| model::expected([row], &NAMES)));
        }
    }
}

#[test]
fn values_that_a_column_cannot_hold_are_refused() {
    let source = model::source(&[], 0);
    let scan = |name: &str, value: Value| Scan::new(&source).filter(name, Predicate::Above(value)).collect();
    for (name, value, text) in [
        ("venue", Value::F64(1.5), r#"column "venue" holds i64 and cannot hold F64(1.5); convert the value"#),
        (
            "price",
            Value::I64((1 << 53) + 1),
            r#"column "price" holds f64 and cannot hold I64(9007199254740993); convert the value"#,
        ),
        ("day", Value::from("1"), r#"column "day" holds date and cannot hold Utf8("1"); convert the value"#),
    ] {
        assert_eq!(scan(name, value).unwrap_err().to_string(), text);
    }
    assert!(matches!(scan("prise", Value::F64(1.0)), Err(QueryError::UnknownColumn { .. })));
    assert!(scan("venue", Value::I32(1)).is_ok());
    let one_of = |name: &str, value: Value| {
        let values = [Value::Null, 1i64.into(), value];
        Scan::new(&source).filter(name, Predicate::one_of(values)).collect()
    };
    assert!(matches!(one_of("venue", Value::F64(1.5)), Err(QueryError::ValueType { .. })));
    assert!(matches!(one_of("prise", Value::F64(1.5)), Err(QueryError::UnknownColumn { .. })));
    assert!(one_of("price", Value::F64(1.5)).is_ok());
    let keys = |name: &str, values: Vec<Value>| Scan::new(&source).keys(name, values).collect();
    assert!(matches!(keys("price", Vec::new()), Err(QueryError::NotKey { .. })));
    assert!(matches!(keys("venue", vec![1i64.into(), "a".into()]), Err(QueryError::KeyType { .. })));
    assert!(keys("venue", vec![Value::I32(1), Value::Null]).is_ok());
}
