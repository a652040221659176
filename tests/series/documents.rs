//! Documents become columns of their paths, and rows become documents again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use underbelly::{Batch, CommitError, Date, Decimal, Document, LogicalType, Member, Row, Timestamp, Value};
use underbelly_tests::in_memory;

use super::{commit, everywhere, row};

fn given_back(db: &underbelly::View, at: usize) -> Document {
    let series = db.snapshot().series("s").unwrap();
    Document::of_row(&series.scan().collect().unwrap(), series.types(), at)
}

#[test]
fn documents_come_back_nested() {
    let (disk, db) = in_memory().unwrap();
    let price = Decimal::parse("1.250", 3).unwrap();
    let bid = Document::new().decimal("price", price).value("size", Value::I32(3)).value("day", Date(4));
    let quote = |venue: Document| Document::new().document("bid", bid.clone()).document("venue", venue);
    let deep = quote(Document::new().document("at", Document::new().value("x", 0.5)).value("name", "N"));
    let bare =
        quote(Document::new().value("name", "Q").document("at", Document::new().value("x", Value::Null)));
    commit(&db, [row(1).key("k.id", 7).document(&deep).unwrap()]).unwrap();
    db.checkpoint().unwrap();
    commit(&db, [row(2).document(&bare).unwrap(), row(3).document(&Document::new()).unwrap()]).unwrap();
    everywhere(&disk, db, |db| {
        let series = db.snapshot().series("s").unwrap();
        let price = series.schema().column("bid.price").unwrap();
        assert_eq!(
            (price.column_type, series.types().get("bid.price")),
            (underbelly::ColumnType::I64, Some(&LogicalType::Decimal(3)))
        );
        let key = Document::new().value("id", 7);
        assert_eq!(given_back(db, 0), deep.clone().value("timestamp", Timestamp(1)).document("k", key));
        // A null, a name that is not there and a document of nulls are one.
        let same = quote(Document::new().value("name", "Q"));
        assert_eq!(given_back(db, 1), same.value("timestamp", Timestamp(2)));
        assert_eq!(given_back(db, 2), Document::new().value("timestamp", Timestamp(3)));
        assert_eq!(given_back(db, 0).get(&["venue", "at", "x"]), Some(&Member::Value(0.5.into())));
    });
}

/// A column that would be a value and hold others is refused, in either order, in a row, a batch and a series, and names both.
#[test]
fn no_column_is_a_value_and_an_object() {
    let (disk, db) = in_memory().unwrap();
    commit(&db, [row(1).field("a", 1).field("b.c.d", 2)]).unwrap();
    let refused = |rows: Vec<Row>| match commit(&db, rows).unwrap_err() {
        CommitError::SeriesPath { column, other, .. } => (column, other),
        error => panic!("{error}"),
    };
    let pair = |column: &str, other: &str| (column.to_string(), other.to_string());
    assert_eq!(refused(vec![row(2).field("a.x", 1)]), pair("a.x", "a"));
    assert_eq!(refused(vec![row(2).field("b", 1)]), pair("b", "b.c.d"));
    assert_eq!(refused(vec![row(2).field("b.c", 1)]), pair("b.c", "b.c.d"));
    assert_eq!(refused(vec![row(2).key("b.c.d.e", 1)]), pair("b.c.d.e", "b.c.d"));
    assert_eq!(refused(vec![row(2).field("n.x", 1).field("n", 1)]), pair("n.x", "n"));
    assert_eq!(refused(vec![row(2).field("n", 1), row(3).field("n.x", 1)]), pair("n.x", "n"));
    let mut batch = Batch::new();
    let columns = underbelly::Columns::new().with("a.x", vec![1i64; 60_000].into()).unwrap();
    batch.append_columns("s", (0..60_000).map(Timestamp).collect(), columns, &[]).unwrap();
    assert!(matches!(db.commit(batch), Err(CommitError::SeriesPath { .. })));
    // What was only declared is a column, and so is the rows' own time.
    let declare = |column: &str| {
        let mut batch = Batch::new();
        batch.declare("s", column, LogicalType::Decimal(2)).unwrap();
        db.commit(batch)
    };
    // In one transaction as in two, and columns are counted as there.
    let together = |declared: Vec<String>, names: Vec<String>| {
        let mut batch = Batch::new();
        for name in &declared {
            batch.declare("s", name.as_str(), LogicalType::Decimal(2)).unwrap();
        }
        let row = names.iter().fold(row(2), |row, name| row.field(name.as_str(), 1));
        batch.append(row).unwrap();
        db.commit(batch)
    };
    let both = together(vec!["ask".to_string()], vec!["ask.price".to_string()]);
    assert!(matches!(both, Err(CommitError::SeriesPath { .. })), "{both:?}");
    let named = |prefix: &str| (0..3_000).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    let many = together(named("d"), named("f"));
    assert!(matches!(many, Err(CommitError::TooLarge { found: 6_002.., .. })), "{many:?}");
    declare("bid").unwrap();
    assert_eq!(refused(vec![row(2).field("bid.price", 1)]), pair("bid.price", "bid"));
    assert!(matches!(declare("bid.size"), Err(CommitError::SeriesPath { .. })));
    assert_eq!(refused(vec![row(2).field("timestamp.x", 1)]), pair("timestamp.x", "timestamp"));
    commit(&db, [row(2).field("ab", 1).field("b.cd", 2).field("b.c.e", 3)]).unwrap();
    everywhere(&disk, db, |db| assert_eq!(db.snapshot().series("s").unwrap().count().unwrap(), 2));
}

fn documents() -> impl Strategy<Value = Document> {
    let value = prop_oneof![
        any::<i64>().prop_map(|v| Member::Value(v.into())),
        any::<i64>().prop_map(|v| Member::Decimal(Decimal::new(v, 5).unwrap())),
        "[a-z]{0,3}".prop_map(|v| Member::Value(v.as_str().into())),
    ];
    value
        .prop_recursive(4, 24, 4, |inner| {
            prop::collection::btree_map("[a-zé]{1,2}", inner, 1..4)
                .prop_map(|members| Member::Document(built(members)))
        })
        .prop_map(|member| match member {
            Member::Document(document) => document,
            other => built(BTreeMap::from([("x".to_string(), other)])),
        })
}

fn built(members: BTreeMap<String, Member>) -> Document {
    members.into_iter().fold(Document::new(), |document, (name, member)| match member {
        Member::Value(value) => document.value(name, value),
        Member::Decimal(decimal) => document.decimal(name, decimal),
        Member::Document(inner) => document.document(name, inner),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_document_comes_back(document in documents()) {
        let (_, db) = in_memory().unwrap();
        commit(&db, [row(1).document(&document).unwrap()]).unwrap();
        prop_assert_eq!(given_back(&db, 0), document.value("timestamp", Timestamp(1)));
    }
}
