#![allow(clippy::unwrap_used)]

use std::io::Write;

use arrow2::array::{Array, DictionaryArray, PrimitiveArray, StructArray, Utf8Array};
use arrow2::chunk::Chunk;
use arrow2::io::ipc::write::{StreamWriter, WriteOptions};
use underbelly_storage::{ColumnType, Date, Timestamp, Value};

use super::*;
use crate::Writer;

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn index(file: &File) -> Result<Index, ArrowError> {
    Index::read(file, Limits::default())
}

/// Rows of each type, with and without nulls.
fn rows(count: i64) -> Columns {
    let types = ColumnType::ALL.iter().map(|t| (t.name(), *t));
    let mut rows = Columns::with_types(types).unwrap();
    for at in 0..count {
        let value = |t: &ColumnType| match t {
            _ if at % 7 == 3 => Value::Null,
            ColumnType::Bool => (at % 2 == 0).into(),
            ColumnType::I64 => (at * 1_000_003).into(),
            ColumnType::I32 => Value::I32(at as i32),
            ColumnType::F64 => (at as f64 / 3.0).into(),
            ColumnType::F32 => Value::F32(at as f32),
            ColumnType::Utf8 => format!("näme {at}").into(),
            ColumnType::Bytes => Value::Bytes(vec![at as u8; at as usize % 5].into()),
            ColumnType::Timestamp => Timestamp(at).into(),
            ColumnType::Date => Date(at as i32).into(),
        };
        rows.push_row(&ColumnType::ALL.iter().map(value).collect::<Vec<_>>()).unwrap();
    }
    rows
}

fn file(batches: &[Columns], is_file: bool) -> Vec<u8> {
    fn all(mut writer: Writer<Vec<u8>>, batches: &[Columns]) -> Vec<u8> {
        batches.iter().for_each(|batch| writer.write(batch.clone()).unwrap());
        writer.finish().unwrap()
    }
    let types = batches[0].slice(0..0);
    match is_file {
        true => all(Writer::file(Vec::new(), &types).unwrap(), batches),
        false => all(Writer::stream(Vec::new(), &types).unwrap(), batches),
    }
}

#[test]
fn columns_are_read_one_by_one_as_batches_are() {
    let batches = [rows(100), rows(0), rows(1), rows(17)];
    for is_file in [true, false] {
        let file = on_disk(&file(&batches, is_file));
        let index = index(&file).unwrap();
        assert_eq!(index.batches(), batches.len());
        assert_eq!(index.empty().unwrap(), rows(0));
        for (at, batch) in batches.iter().enumerate() {
            assert_eq!(index.rows(at), batch.rows());
            for (name, column) in batch.iter() {
                let read = index.column(&file, at, name).unwrap();
                assert_eq!(read.as_ref(), Some(column), "{name} of batch {at}");
            }
        }
        assert_eq!(index.column(&file, 0, "other").unwrap(), None);
    }
}

#[test]
fn a_batch_points_into_the_dictionaries_that_stood_before_it() {
    let coded = |values: [&str; 2], keys: [Option<u8>; 3]| {
        let values = Utf8Array::<i32>::from_slice(values).boxed();
        DictionaryArray::try_from_keys(PrimitiveArray::from(keys), values).unwrap().boxed()
    };
    let first = coded(["x", "y"], [Some(1), None, Some(0)]);
    let plain = PrimitiveArray::from_slice([1i64, 2, 3]).boxed();
    let fields = vec![
        Field::new("n", plain.data_type().clone(), true),
        Field::new("s", first.data_type().clone(), true),
    ];
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::new(&mut bytes, WriteOptions::default());
    writer.start(&Schema::from(fields), None).unwrap();
    writer.write(&Chunk::new(vec![plain.clone(), first]), None).unwrap();
    writer.finish().unwrap();
    let file = on_disk(&bytes);
    let index = index(&file).unwrap();
    let read = index.column(&file, 0, "s").unwrap().unwrap();
    assert_eq!((read.str_at(0), read.is_null(1), read.str_at(2)), (Some("y"), true, Some("x")));
    assert_eq!(index.column(&file, 0, "n").unwrap(), Some(Column::from(vec![1i64, 2, 3])));
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let whole = file(&[rows(9), rows(3)], true);
    for length in 0..whole.len() {
        assert!(index(&on_disk(&whole[..length])).is_err(), "{length} of {} bytes", whole.len());
    }
    let cut = index(&on_disk(&whole[..whole.len() / 2])).unwrap_err().to_string();
    assert!(cut.contains("at byte") && cut.contains("cut short"), "{cut}");
    let behind = file(&[rows(9)], false);
    let behind = index(&on_disk(&[&behind[..], b"more"].concat())).unwrap_err().to_string();
    assert!(behind.contains("4 bytes are behind"), "{behind}");
}

#[test]
fn a_byte_of_a_file_that_changes_is_refused_or_read_and_never_a_panic() {
    let whole = file(&[rows(9), rows(3)], true);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        let file = on_disk(&changed);
        let Ok(index) = index(&file) else { continue };
        for batch in 0..index.batches() {
            for column in ColumnType::ALL {
                let _ = index.column(&file, batch, column.name());
            }
        }
    }
}

#[test]
fn a_file_that_was_replaced_is_refused() {
    let (before, after) = (on_disk(&file(&[rows(9)], true)), on_disk(&file(&[rows(8)], true)));
    let index = index(&before).unwrap();
    let refused = index.column(&after, 0, "i64").unwrap_err().to_string();
    assert!(refused.contains("another message than before"), "{refused}");
}

#[test]
fn columns_within_structs_are_read_alone_and_are_null_where_a_struct_is() {
    let of = |members: Vec<(&str, Box<dyn Array>)>, validity: &[bool]| {
        let fields =
            members.iter().map(|(n, values)| Field::new(*n, values.data_type().clone(), true)).collect();
        let values = members.into_iter().map(|(_, values)| values).collect();
        StructArray::new(DataType::Struct(fields), values, Some(validity.iter().copied().collect())).boxed()
    };
    let prices =
        |first: i64| PrimitiveArray::from([Some(first), None, Some(first + 2), Some(first + 3)]).boxed();
    let codes = PrimitiveArray::from([Some(0u8), Some(1), None, Some(1)]);
    let codes =
        DictionaryArray::try_from_keys(codes, Utf8Array::<i32>::from_slice(["x", "y"]).boxed()).unwrap();
    let inner = of(vec![("low", prices(10)), ("high", prices(20))], &[true, true, false, true]);
    let names = Utf8Array::<i32>::from_slice(["a", "bb", "", "dddd"]).boxed();
    let outer =
        of(vec![("name", names), ("range", inner), ("venue", codes.boxed())], &[false, true, true, true]);
    let arrays = vec![prices(1), outer, prices(30)];
    let fields = ["n", "bid", "last"].iter().zip(&arrays);
    let fields: Vec<Field> =
        fields.map(|(n, array)| Field::new(*n, array.data_type().clone(), true)).collect();
    let mut writer = StreamWriter::new(Vec::new(), WriteOptions::default());
    writer.start(&Schema::from(fields), None).unwrap();
    writer.write(&Chunk::new(arrays), None).unwrap();
    writer.finish().unwrap();
    let bytes = writer.into_inner();
    let whole = Reader::new(&bytes[..], Limits::default()).unwrap().next().unwrap().unwrap();
    let file = on_disk(&bytes);
    let index = index(&file).unwrap();
    assert_eq!(index.empty().unwrap(), Reader::new(&bytes[..], Limits::default()).unwrap().empty().unwrap());
    let names: Vec<&str> = whole.names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["n", "bid.name", "bid.range.low", "bid.range.high", "bid.venue", "last"]);
    for (name, column) in whole.iter() {
        assert_eq!(index.column(&file, 0, name).unwrap().as_ref(), Some(column), "{name}");
    }
    let high = index.column(&file, 0, "bid.range.high").unwrap().unwrap();
    let nulls: Vec<bool> = (0..4).map(|row| high.is_null(row)).collect();
    assert_eq!(nulls, [true, true, true, false]);
}
