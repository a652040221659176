//! What columns hold beside what is stored: decimals, instants of a zone, values of nested objects.

use crate::{Place, words};

/// Rows of CSV below the header, without the columns before `from`.
fn rows(place: &Place, command: &str, from: usize) -> Vec<Vec<String>> {
    place.csv(words(command)).into_iter().skip(1).map(|row| row[from..].to_vec()).collect()
}

/// A series whose time is of New York, with a column of Tokyo.
fn zoned() -> Place {
    let place = Place::new();
    place.ok(words(
        "series define s --columns timestamp:timestamp[America/New_York],at_ns:timestamp[Asia/Tokyo],at:timestamp[Asia/Tokyo]",
    ));
    place
}

/// A join tells which side a column is of, also where only one of two with a name is read.
#[test]
fn joins_hold_what_their_sides_hold() {
    let place = Place::new();
    place.write("l.csv", "t,sym,price\n0,a,1.125\n60,a,\n");
    place.write("r.csv", "t,sym,price,n,n_right\n0,a,2.25,7.50,500\n");
    place.ok(words("import l.csv --series l --time t --key sym --columns price:decimal(3)"));
    place.ok(words("import l.csv --series plain --time t --key sym"));
    place.ok(words("series define r --columns timestamp:timestamp[America/New_York]"));
    place.ok(words("import r.csv --series r --time t --key sym --columns price:decimal(2),n:decimal(2)"));
    let joined = |options: &str| rows(&place, &format!("series asof {options} --limit 1 --format csv"), 1);
    assert_eq!(joined("l r --by sym --columns sym --other-columns price"), [["a", "2.25"]]);
    assert_eq!(joined("plain r --by sym --columns sym --other-columns price"), [["a", "2.25"]]);
    assert_eq!(joined("l r --by sym --other-columns price"), [["a", "1.125", "2.25"]]);
    assert_eq!(joined("plain r --by sym --other-columns price"), [["a", "1.125", "2.25"]]);
    assert_eq!(joined("l r --by sym --other-columns n,n_right"), [["a", "1.125", "7.50", "500"]]);
    assert_eq!(
        joined("l r --by sym --columns price --other-columns n --other-time at"),
        [["1.125", "a", "1969-12-31T19:00:00-05:00", "7.50"]]
    );
    // Both have `n`: what is called `n_right` is the other's, whatever else it has.
    place.write("n.csv", "t,sym,n\n0,a,3\n");
    place.ok(words("import n.csv --series n --time t --key sym"));
    assert_eq!(joined("n r --by sym --other-columns n"), [["a", "3", "7.50"]]);
    assert_eq!(joined("n r --by n=n_right --columns n --other-columns price"), [["3", ""]]);
}

/// Aggregates that are one of the values are shown as these are.
#[test]
fn instants_of_windows_are_shown_in_their_zone() {
    let place = zoned();
    place
        .write("x.csv", "t,at\n2014-06-02T09:30:00,2014-06-02T22:30\n2014-06-02T09:31:00,2014-06-02T22:00\n");
    place.ok(words("import x.csv --series s --time t"));
    let windows =
        "series resample s --every 1h --min at --max at --first at --last at --count at --format csv";
    let (late, early) = ("2014-06-02T22:30:00+09:00", "2014-06-02T22:00:00+09:00");
    assert_eq!(rows(&place, windows, 0), [["2014-06-02T09:00:00-04:00", early, late, late, early, "2"]]);
    let info = place.json(words("series info s --format json"));
    let (first, last) = ("2014-06-02T09:30:00-04:00", "2014-06-02T09:31:00-04:00");
    assert_eq!((&info["first"], &info["last"]), (&first.into(), &last.into()));
    let listed = place.json(words("series ls --format json"));
    assert_eq!((&listed[0]["first"], &listed[0]["last"]), (&first.into(), &last.into()));
}

/// A definition that is refused for one of its parts changes nothing.
#[test]
fn a_refused_definition_changes_nothing() {
    let place = Place::new();
    place.ok(words("series define s --retention 30d"));
    let info = || place.json(words("series info s --format json"));
    let before = info();
    for (options, said) in [
        ("--again --duplicates last-wins --columns at:timestamp[Mars/Base]", "Mars/Base"),
        ("--again --duplicates last-wins --columns p:decimal(2),p:decimal(3)", "decimal(2)"),
        ("--duplicates last-wins --columns p:decimal(2)", "redefine_series"),
    ] {
        let refused = place.fails(words(&format!("series define s {options}")));
        assert!(refused.contains(said), "{refused}");
        assert_eq!(info(), before, "{options}");
    }
    place.ok(words("series define s --again --duplicates last-wins --columns p:decimal(2)"));
    assert_eq!((&info()["duplicates"], &info()["declared"]), (&"last-wins".into(), &"p decimal(2)".into()));
    // What is kept all the same is told.
    let refused = place.fails(words("series define s --again --duplicates reject --columns q:decimal(2)"));
    assert!(refused.contains("what --columns says was kept"), "{refused}");
    // A new type has its rules and its columns.
    place.ok(words("series define new --duplicates last-wins --columns p:decimal(2)"));
    let info = place.json(words("series info new --format json"));
    assert_eq!((&info["duplicates"], &info["declared"]), (&"last-wins".into(), &"p decimal(2)".into()));
    place.ok(words("series define new --duplicates last-wins --columns p:decimal(2)"));
}

/// Decimals of other writers of Parquet: as bytes of one length or of any, and by the type of old.
#[cfg(feature = "parquet")]
#[test]
fn decimals_of_parquet_are_read_in_all_their_forms() {
    use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
    use parquet::data_type::{
        ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int32Type, Int64Type,
    };
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    use std::sync::Arc;

    let place = Place::new();
    let write = |file: &str, first: i128| {
        let decimal = |name: &'static str, physical, precision: i32, scale: i32| {
            let builder =
                Type::primitive_type_builder(name, physical).with_precision(precision).with_scale(scale);
            builder.with_logical_type(Some(LogicalType::decimal(scale, precision)))
        };
        let old = Type::primitive_type_builder("old", Physical::INT32).with_precision(9).with_scale(1);
        let fields = [
            Type::primitive_type_builder("time", Physical::INT64),
            decimal("fixed", Physical::FIXED_LEN_BYTE_ARRAY, 38, 2).with_length(16),
            decimal("bytes", Physical::BYTE_ARRAY, 20, 3),
            old.with_converted_type(ConvertedType::DECIMAL),
        ];
        let fields = fields.map(|field| Arc::new(field.build().unwrap())).to_vec();
        let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build().unwrap());
        let out = std::fs::File::create(place.path(file)).unwrap();
        let mut writer = SerializedFileWriter::new(out, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        // Two rows, the second of which is null but for its time.
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[0, 1], Some(&[1, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let fixed = FixedLenByteArray::from(first.to_be_bytes().to_vec());
        column.typed::<FixedLenByteArrayType>().write_batch(&[fixed], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let bytes = ByteArray::from(vec![0x04, 0xd2]);
        column.typed::<ByteArrayType>().write_batch(&[bytes], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&[-15], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    };
    write("x.parquet", -15_050);
    let report = place.json(words("import x.parquet --series s --time time --format json"));
    assert_eq!(report["columns"], "fixed decimal(2), bytes decimal(3), old decimal(1)");
    let expected = [["-150.50", "1.234", "-1.5"], ["", "", ""]];
    assert_eq!(rows(&place, "series range s --format csv", 1), expected);
    write("y.parquet", i128::from(i64::MAX) + 1);
    let refused = place.fails(words("import y.parquet --series t --time time"));
    assert!(refused.contains("column \"fixed\" has a decimal that does not fit in 64 bits"), "{refused}");
}
