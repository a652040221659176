//! What is refused, with the file, the place and what to do.

use std::fs;

use underbelly::arrow::{Folder, FolderError, FolderOptions, Writer};
use underbelly::{Column, ColumnType, Columns, LogicalType, LogicalTypes, Timestamp, Value};

use crate::{Place, rows, said, texts, write};

/// The error and what it says.
fn refused(place: &Place) -> (FolderError, String) {
    let error = place.open().err().expect("it is refused");
    let text = error.to_string();
    (error, text)
}

fn of(columns: &[(&str, Column)]) -> Vec<Columns> {
    let mut rows = Columns::new();
    columns.iter().for_each(|(name, column)| rows.insert(*name, column.clone()).unwrap());
    vec![rows]
}

fn at(times: &[i64]) -> Column {
    times.iter().map(|at| Timestamp(*at)).collect::<Vec<_>>().into()
}

#[test]
fn a_folder_that_is_missing_empty_or_a_file() {
    let place = Place::new();
    let missing = Folder::open(place.path("none"), "at", [""; 0]).err().unwrap();
    assert!(matches!(missing, FolderError::Io { .. }), "{missing}");
    assert!(missing.to_string().contains("none"), "{missing}");
    fs::write(place.path("README.txt"), "").unwrap();
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::Empty { .. }) && text.contains(".arrow"), "{text}");
    let file = Folder::open(place.path("README.txt"), "at", [""; 0]).err().unwrap();
    assert!(matches!(file, FolderError::NotFolder { .. }), "{file}");
}

#[test]
fn files_that_are_none_or_end_early_are_named_with_the_place() {
    let place = Place::with(&[("a.arrow", vec![rows(&[1])])]);
    fs::write(place.path("b.arrow"), "symbol,price\nIBM,5\n").unwrap();
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::Unreadable { .. }), "{text}");
    assert!(
        text.contains("b.arrow") && text.contains("none of Arrow") && text.contains("take it out"),
        "{text}"
    );
    let whole = fs::read(place.path("a.arrow")).unwrap();
    for length in [0, 7, whole.len() / 2, whole.len() - 1] {
        fs::write(place.path("b.arrow"), &whole[..length]).unwrap();
        let (error, text) = refused(&place);
        assert!(
            matches!(error, FolderError::Unreadable { .. }) && text.contains("b.arrow"),
            "{length}: {text}"
        );
    }
    fs::write(place.path("b.arrow"), [&whole[..], b"."].concat()).unwrap();
    assert!(refused(&place).1.contains("b.arrow"));
    fs::remove_file(place.path("b.arrow")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("c.arrow")).unwrap();
    assert!(matches!(refused(&place).0, FolderError::Io { .. }));
}

#[test]
fn times_that_are_missing_null_or_of_another_type() {
    let place = Place::with(&[("a.arrow", vec![rows(&[1])]), ("b.arrow", of(&[("n", vec![1i64].into())]))]);
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::NoColumn { .. }), "{text}");
    assert!(text.contains("b.arrow") && text.contains("\"at\"") && text.contains("there are: n"), "{text}");

    let mut null = at(&[5, 6]);
    null.push(&Value::Null).unwrap();
    let more = of(&[("at", at(&[1, 2])), ("sym", texts(&["a", "b"]))]).remove(0);
    let nulls = of(&[("at", null), ("sym", texts(&["a", "b", "c"]))]).remove(0);
    write(&place.path("b.arrow"), &[more, nulls]);
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::NoTime { row: 5, .. }), "{text}");
    assert!(text.contains("b.arrow, row 5"), "{text}");

    write(&place.path("b.arrow"), &of(&[("at", vec![f64::NAN].into())]));
    let (error, text) = refused(&place);
    assert!(
        matches!(error, FolderError::TimeType { found: LogicalType::Plain(ColumnType::F64), .. }),
        "{text}"
    );
    assert!(text.contains("b.arrow") && text.contains("convert it"), "{text}");
}

#[test]
fn files_whose_columns_do_not_agree_are_both_named() {
    let with = |x: Column| of(&[("at", at(&[1])), ("sym", texts(&["a"])), ("x", x)]);
    let place = Place::with(&[
        ("a.arrow", with(vec![1i64].into())),
        ("b.arrow", with(vec![0.5].into())),
        ("c.arrow", of(&[("at", at(&[3])), ("sym", texts(&["a"]))])),
    ]);
    // Integers widen, and a column that is missing is null.
    let all = place.open().unwrap().scan().collect().unwrap();
    assert_eq!(all.f64s("x").map(|x| x[..2].to_vec()), Some(vec![1.0, 0.5]));
    assert_eq!(all.value("x", 2), Some(Value::Null));

    write(&place.path("c.arrow"), &with(texts(&["text"])));
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::ColumnType { key: false, .. }), "{text}");
    for part in ["\"x\"", "f64", "b.arrow", "utf8", "c.arrow"] {
        assert!(text.contains(part), "{text}");
    }
    let keys = of(&[("at", at(&[3])), ("sym", vec![7i64].into())]);
    write(&place.path("c.arrow"), &keys);
    let (error, text) = refused(&place);
    assert!(matches!(error, FolderError::ColumnType { key: true, .. }) && text.contains("keys"), "{text}");

    // What no float is does not become one.
    write(&place.path("c.arrow"), &with(vec![(1i64 << 53) + 1].into()));
    let text = said(place.open().unwrap().scan().collect().map_err(underbelly::ReadError::from));
    assert!(text.contains("c.arrow, row 1") && text.contains("no f64"), "{text}");
}

#[test]
fn keys_that_are_none() {
    let place = Place::with(&[("a.arrow", of(&[("at", at(&[1])), ("x", vec![f64::NAN].into())]))]);
    let open = |keys: &[&str]| Folder::open(place.dir(), "at", keys.iter().copied());
    let text = |keys| open(keys).err().unwrap().to_string();
    assert!(text(&["sym"]).contains("\"sym\", which is named as a key; there are: x"), "{}", text(&["sym"]));
    assert!(text(&["at"]).contains("it is the time"));
    assert!(text(&["x", "x"]).contains("twice"));
    let nan = open(&["x"]).unwrap().scan().collect().unwrap_err().to_string();
    assert!(nan.contains("a.arrow, row 1") && nan.contains("NaN"), "{nan}");
    let reserved = of(&[("at", at(&[1])), ("timestamp", at(&[2]))]);
    write(&place.path("a.arrow"), &reserved);
    assert!(matches!(open(&[]).err().unwrap(), FolderError::Name { .. }));
    let mut bytes = Column::new(ColumnType::Bytes);
    bytes.push(&Value::Bytes([1u8][..].into())).unwrap();
    write(&place.path("a.arrow"), &of(&[("at", at(&[1])), ("y", bytes)]));
    assert!(text(&["y"]).contains("bytes"));
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let place = Place::with(&[("a.arrow", vec![rows(&[1, 2, 3])]), ("b.arrow", vec![rows(&[9])])]);
    let folder = place.open().unwrap();
    write(&place.path("a.arrow"), &[rows(&[1, 2])]);
    let text = said(folder.scan().collect().map_err(underbelly::ReadError::from));
    assert!(text.contains("a.arrow") && text.contains("attach the folder again"), "{text}");
    assert_eq!(folder.latest(1, &[]).unwrap().i64s("n"), Some(&[90][..]));
}

#[test]
fn batches_of_one_time_that_would_take_too_much_memory_are_refused_and_others_are_not() {
    let of_all_times: Vec<Columns> = (0..20).map(|_| rows(&(0..200).collect::<Vec<_>>())).collect();
    let in_turn: Vec<Columns> =
        (0..20).map(|n| rows(&(n * 200..n * 200 + 200).collect::<Vec<_>>())).collect();
    let open = |place: &Place, memory_bytes| {
        let options = FolderOptions {
            time: "at".to_string(),
            keys: vec!["sym".to_string()],
            memory_bytes,
            ..Default::default()
        };
        Folder::open_with(place.dir(), &options)
    };
    let (place, sorted) = (Place::with(&[("a.arrow", of_all_times)]), Place::with(&[("a.arrow", in_turn)]));
    let error = open(&place, 64 << 10).err().expect("it is refused");
    let text = error.to_string();
    assert!(matches!(error, FolderError::Overlap { limit: 65_536, .. }), "{text}");
    assert!(text.contains("a.arrow") && text.contains("import the files"), "{text}");
    assert_eq!(open(&place, 1 << 20).unwrap().overlapping(), 20);
    let sorted = open(&sorted, 64 << 10).unwrap();
    assert_eq!((sorted.overlapping(), sorted.count().unwrap()), (1, 4_000));
}

/// Writes a file with a time, a key and an integer, of which some are something else.
fn write_typed(place: &Place, name: &str, types: &LogicalTypes) {
    let file = fs::File::create(place.path(name)).unwrap();
    let mut writer = Writer::file_typed(file, &rows(&[]), types).unwrap();
    writer.write(rows(&[1, 2])).unwrap();
    writer.finish().unwrap();
}

#[test]
fn decimals_of_two_scales_and_instants_of_two_zones() {
    let zoned = |zone: &str| LogicalTypes::new().with("at", LogicalType::Zoned(zone.into()));
    let decimal = |scale| LogicalTypes::new().with("n", LogicalType::Decimal(scale));
    let (plain, berlin) = (LogicalTypes::new(), zoned("Europe/Berlin"));
    for (one, other) in
        [(decimal(2), decimal(3)), (decimal(2), plain.clone()), (berlin.clone(), zoned("Asia/Tokyo"))]
    {
        let place = Place::new();
        write_typed(&place, "a.arrow", &one);
        write_typed(&place, "b.arrow", &other);
        let (error, text) = refused(&place);
        assert!(matches!(error, FolderError::ColumnType { .. }), "{text}");
        assert!(text.contains("a.arrow") && text.contains("b.arrow"), "{text}");
    }
    // Instants whose zone nobody named go with those of any.
    let place = Place::new();
    write_typed(&place, "a.arrow", &plain);
    write_typed(&place, "b.arrow", &berlin);
    let types = LogicalTypes::new().with("timestamp", LogicalType::Zoned("Europe/Berlin".into()));
    assert_eq!(place.open().unwrap().types(), &types);
    // No decimal is a time.
    let place = Place::new();
    write_typed(&place, "a.arrow", &decimal(2));
    assert_eq!(place.open().unwrap().types(), &decimal(2));
    let error = Folder::open(place.dir(), "n", [""; 0]).err().unwrap();
    assert!(matches!(error, FolderError::TimeType { found: LogicalType::Decimal(2), .. }), "{error}");
}
