//! Keys and names that do not fit are refused where they are given, with place and remedy.

use underbelly::{
    ColumnType, Extent, Failure, Outputs, ProducerDefinition, ReadError, Run, SchemaError, SlotDefinition,
    Value,
};
use underbelly_tests::{counter_slot, day, in_memory};

use crate::desk::{derive, put, settle};

/// Whoever reads with a key of the wrong width or type is told, and not that there is nothing.
#[test]
fn a_key_that_does_not_fit_is_refused_also_where_cells_are_read() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    derive(&db, "copy", "A", "B", Ok);
    put(&db, "A", "x", 1);
    settle(&db);
    let wide: Vec<Value> = vec!["x".into(), "y".into()];
    let narrow: Vec<Value> = Vec::new();
    let other: Vec<Value> = vec![1i64.into()];
    for (key, told) in [(wide, "has 2 values"), (narrow, "has 0 values"), (other, "convert the value")] {
        let cell = db.snapshot().slot("A", day(), key.clone()).map(|_| ()).unwrap_err();
        let down = db.downstream("A", day(), key.clone(), Extent::default()).map(|_| ()).unwrap_err();
        let up = db.upstream("A", day(), key, Extent::default()).map(|_| ()).unwrap_err();
        for error in [cell, down, up] {
            assert!(matches!(error, ReadError::Graph(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(told) && text.contains("slot \"A\""), "{text}");
        }
    }
    assert!(db.snapshot().slot("A", day(), ["y"]).unwrap().is_none(), "a cell that nobody made is no error");
}

#[test]
fn a_run_that_reads_with_a_key_that_does_not_fit_fails_with_the_reason() {
    let (_, db) = in_memory().unwrap();
    for name in ["A", "B", "C"] {
        db.define_slot(counter_slot(name)).unwrap();
    }
    let reader = |name: &str, to: &'static str, read: fn(&Run) -> Result<(), Failure>| {
        let definition = ProducerDefinition::new(name).requires("A").provides(to);
        db.register(definition, move |run: &Run| {
            read(run)?;
            Ok(Outputs::new())
        })
        .unwrap();
    };
    reader("read", "B", |run| Ok(run.read("A", day(), [1i64]).map(|_| ())?));
    reader("scan", "C", |run| Ok(run.scan("A", day(), [("name", 1i64)]).map(|_| ())?));
    put(&db, "A", "x", 1);
    settle(&db);
    for name in ["read", "scan"] {
        let run = db.runs(Some(name), 1).unwrap().remove(0);
        let text = "key 1 has i64 for column \"name\" of slot \"A\", which holds utf8; convert the value";
        assert_eq!((&*run.outcome, run.error.as_deref()), ("failed", Some(text)));
    }
}

/// The table of each slot has columns of its own, and each column one meaning.
#[test]
fn the_columns_of_every_slots_table_are_no_names_for_others() {
    let (_, db) = in_memory().unwrap();
    for name in ["DATE", "SID", "LAST_UPDATED", "PRODUCER", "PRIORITY"] {
        let key = SlotDefinition::new("S").cell_key(name, ColumnType::Utf8);
        for slot in [key, SlotDefinition::new("S").value(name, ColumnType::I64)] {
            let error = db.define_slot(slot).unwrap_err();
            assert!(matches!(error, SchemaError::Name { .. }), "{error:?}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
    db.define_slot(SlotDefinition::new("S").cell_key("date", ColumnType::Date)).unwrap();
}
