//! Any rows go in and come out as they were.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{Place, words};

/// Time, text, integer and float of a row; `None` is null. Text that a column of numbers could hold would make
/// one, so each text begins with a letter.
type Row = (i64, Option<String>, Option<i64>, Option<f64>);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let text = prop::option::of("[a-z][a-z,;\"'\n\r /\\\\é€]{0,8}");
    let float = prop::option::of(any::<f64>().prop_filter("JSON has no NaN", |x| x.is_finite()));
    prop::collection::vec((-5i64..5, text, prop::option::of(any::<i64>()), float), 1..40)
}

#[test]
fn rows_that_are_imported_are_the_rows_of_the_range() {
    let place = Place::new();
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let cases = Cell::new(0);
    let outcome = runner.run(&rows(), |rows| {
        cases.set(cases.get() + 1);
        let case = cases.get();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["time_ns", "text", "int", "float"]).unwrap();
        for (time, text, int, float) in &rows {
            let int = int.map(|i| i.to_string()).unwrap_or_default();
            let float = float.map(|x| format!("{x:?}")).unwrap_or_default();
            let text = text.clone().unwrap_or_default();
            writer.write_record([time.to_string(), text, int, float]).unwrap();
        }
        place.write("rows.csv", writer.into_inner().unwrap());
        let types = "text:utf8,int:i64,float:f64";
        place.ok(words(&format!("import rows.csv --series s{case} --time time_ns --columns {types}")));
        let found = place.json(words(&format!("series range s{case} --format json")));
        let mut expected = rows.clone();
        expected.sort_by_key(|(time, ..)| *time);
        prop_assert_eq!(found.as_array().map(Vec::len), Some(expected.len()));
        for (i, (_, text, int, float)) in expected.iter().enumerate() {
            prop_assert_eq!(&found[i]["text"], &serde_json::json!(text));
            prop_assert_eq!(&found[i]["int"], &serde_json::json!(int));
            prop_assert_eq!(found[i]["float"].as_f64(), *float);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
