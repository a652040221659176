#![allow(clippy::unwrap_used, clippy::missing_transmute_annotations)] // The types stand beside each.

use std::sync::Arc;

use arrow2::array::{Array, DictionaryArray, PrimitiveArray, StructArray, Utf8Array};
use arrow2::datatypes::{DataType, Field};
use proptest::prelude::*;
use underbelly_storage::{Column, ColumnType, Columns, Date, Timestamp, Value};

use super::*;
use crate::{ArrowError, Batch, Lend};
use underbelly_storage::Values;

fn all_types(rows: i64) -> Columns {
    let types = ColumnType::ALL.map(|t| (t.name(), t));
    let mut columns = Columns::with_types(types).unwrap();
    for row in 0..rows {
        let text = "é".repeat((row % 4) as usize);
        let value =
            |column: usize, value: Value| if (row + column as i64) % 3 == 1 { Value::Null } else { value };
        let values = ColumnType::ALL.iter().enumerate().map(|(at, t)| {
            let made = match t {
                ColumnType::Bool => (row % 2 == 0).into(),
                ColumnType::I64 => (i64::MIN + row).into(),
                ColumnType::F64 => (row as f64 / 3.0).into(),
                ColumnType::Utf8 => text.as_str().into(),
                ColumnType::Bytes => Value::Bytes(vec![0, row as u8].into()),
                ColumnType::Timestamp => Timestamp(i64::MAX - row).into(),
                ColumnType::Date => Date(-(row as i32)).into(),
                ColumnType::I32 => Value::I32(i32::MAX - row as i32),
                ColumnType::F32 => Value::F32(row as f32 + 0.5),
            };
            value(at, made)
        });
        columns.push_row(&values.collect::<Vec<_>>()).unwrap();
    }
    bare(columns)
}

/// The same rows without validity where nothing is null.
fn bare(rows: Columns) -> Columns {
    let mut bare = Columns::new();
    for (name, column) in rows.into_columns() {
        let (values, validity) = column.into_parts();
        bare.insert(name, Column::from_parts(values, validity).unwrap()).unwrap();
    }
    bare
}

/// What another implementation of the interface reads.
fn read_by_arrow2(array: ArrowArray, schema: ArrowSchema) -> Columns {
    // SAFETY: both have the layout of the interface; each is dropped once, by arrow2.
    let array = unsafe {
        let (array, schema): (arrow2::ffi::ArrowArray, arrow2::ffi::ArrowSchema) = (
            std::mem::transmute::<ArrowArray, arrow2::ffi::ArrowArray>(array),
            std::mem::transmute::<ArrowSchema, arrow2::ffi::ArrowSchema>(schema),
        );
        let field = arrow2::ffi::import_field_from_c(&schema).unwrap();
        arrow2::ffi::import_array_from_c(array, field.data_type).unwrap()
    };
    let records = array.as_any().downcast_ref::<StructArray>().unwrap();
    let mut rows = Columns::new();
    for (field, array) in records.fields().iter().zip(records.values()) {
        let mut column = crate::columns::empty(&field.data_type).unwrap().unwrap();
        crate::columns::append(&mut column, &**array, None).unwrap();
        rows.insert(field.name.as_str(), column).unwrap();
    }
    rows
}

/// What arrow2 hands over.
fn made_by_arrow2(arrays: Vec<(&str, Box<dyn Array>)>) -> (ArrowArray, ArrowSchema) {
    let fields: Vec<Field> =
        arrays.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let data_type = DataType::Struct(fields);
    let records = StructArray::new(data_type.clone(), arrays.into_iter().map(|(_, a)| a).collect(), None);
    let schema = arrow2::ffi::export_field_to_c(&Field::new("", data_type, false));
    let array = arrow2::ffi::export_array_to_c(records.boxed());
    // SAFETY: as above.
    unsafe {
        (
            std::mem::transmute::<arrow2::ffi::ArrowArray, ArrowArray>(array),
            std::mem::transmute::<arrow2::ffi::ArrowSchema, ArrowSchema>(schema),
        )
    }
}

/// What we read of it.
fn read((array, schema): (ArrowArray, ArrowSchema)) -> Result<Columns, ArrowError> {
    // SAFETY: both came from an implementation of the interface, or are refused before a pointer is followed.
    unsafe { import(array, &schema) }
}

#[test]
fn batches_of_every_type_are_read_by_another_implementation() {
    for rows in [0, 1, 7, 8, 9, 100] {
        let columns = all_types(rows);
        let (array, schema) = export(&Batch::from(columns.clone())).unwrap();
        assert_eq!(read_by_arrow2(array, schema), columns);
        assert_eq!(read(export(&Batch::from(columns.clone())).unwrap()).unwrap(), columns);
    }
}

#[test]
fn what_is_exported_lies_where_it_lay() {
    let columns = Arc::new(all_types(20).remove_nulls());
    let (array, _schema) = export(&Batch::new(columns.clone(), 5..20)).unwrap();
    // SAFETY: of our own export.
    let buffers = |column: usize| unsafe {
        let child = &**array.children.add(column);
        (0..child.n_buffers as usize).map(|at| *child.buffers.add(at) as usize).collect::<Vec<_>>()
    };
    for (at, (name, column)) in columns.iter().enumerate() {
        let found = buffers(at);
        assert_eq!(found[0], 0, "{name} has no nulls");
        let lies_at = match column.values() {
            Values::Bool(_) => continue, // A bit is no byte.
            Values::I64(v) | Values::Timestamp(v) => v[5..].as_ptr() as usize,
            Values::F64(v) => v[5..].as_ptr() as usize,
            Values::I32(v) | Values::Date(v) => v[5..].as_ptr() as usize,
            Values::F32(v) => v[5..].as_ptr() as usize,
            Values::Utf8(v) | Values::Bytes(v) => {
                assert_eq!(found[2], v.bytes().as_ptr() as usize, "{name}");
                v.offsets()[5..].as_ptr() as usize
            }
        };
        assert_eq!(found[1], lies_at, "{name}");
    }
}

#[test]
fn buffers_of_arrays_without_rows_are_not_looked_at() {
    for array in [
        Utf8Array::<i32>::new_empty(DataType::Utf8).boxed(),
        Utf8Array::<i64>::new_empty(DataType::LargeUtf8).boxed(),
    ] {
        let (array, schema) = made_by_arrow2(vec![("s", array)]);
        // What lies behind a pointer to no bytes is somebody else's.
        let others = [-1i64];
        // SAFETY: of arrow2's export, which has three buffers; it does not follow these pointers when it is released.
        unsafe {
            let child = &**array.children;
            *child.buffers.add(1).cast_mut() = others.as_ptr().cast();
        }
        let rows = read((array, schema)).unwrap();
        assert_eq!((rows.rows(), rows.column("s").unwrap().column_type()), (0, ColumnType::Utf8));
    }
}

#[test]
fn schemas_of_columns_that_were_moved_away_are_refused() {
    let (array, schema) = export(&Batch::from(all_types(3))).unwrap();
    // SAFETY: of our own export, which has columns.
    let moved = unsafe { std::mem::replace(&mut **schema.children, ArrowSchema::empty()) };
    let refused = read((array, schema)).unwrap_err().to_string();
    assert!(refused.contains("the schema of a column was released"), "{refused}");
    drop(moved);

    let values = Utf8Array::<i32>::from([Some("a")]).boxed();
    let keys = PrimitiveArray::from([Some(0i32)]);
    let texts = DictionaryArray::try_from_keys(keys, values).unwrap().boxed();
    let (array, schema) = made_by_arrow2(vec![("s", texts)]);
    // SAFETY: of arrow2's export, whose column has a dictionary.
    let moved = unsafe { std::mem::replace(&mut *(**schema.children).dictionary, ArrowSchema::empty()) };
    let refused = read((array, schema)).unwrap_err().to_string();
    assert!(refused.contains("a dictionary whose schema was released"), "{refused}");
    drop(moved);
}

trait RemoveNulls {
    fn remove_nulls(self) -> Columns;
}

impl RemoveNulls for Columns {
    fn remove_nulls(self) -> Columns {
        let mut rows = Columns::new();
        for (name, column) in self.into_columns() {
            rows.insert(name, Column::from_parts(column.into_parts().0, None).unwrap()).unwrap();
        }
        rows
    }
}

#[test]
fn an_owner_is_held_until_all_that_it_lent_is_released() {
    let owner = Arc::new(all_types(5));
    let held: Arc<dyn Lend> = owner.clone();
    let (array, schema) = export(&Batch::new(held, 0..5)).unwrap();
    assert!(Arc::strong_count(&owner) > 1);
    // The other side may take a column out and release the rest.
    // SAFETY: as the interface describes moving a child: its place is marked as released.
    let child = unsafe {
        let place = *array.children.add(1);
        let child = place.read();
        (*place).release = None;
        child
    };
    drop((array, schema));
    assert_eq!(Arc::strong_count(&owner), 2, "the column that was taken out");
    // SAFETY: of our own export.
    let second = unsafe { *(*child.buffers.add(1)).cast::<i64>().add(1) };
    assert_eq!(second, i64::MIN + 1);
    drop(child);
    assert_eq!(Arc::strong_count(&owner), 1);
}

#[test]
fn what_others_hand_over_is_read() {
    let keys = PrimitiveArray::from([Some(1i8), None, Some(0), Some(1)]);
    let values = Utf8Array::<i64>::from([Some("a"), Some("bc")]).boxed();
    let dictionary = DictionaryArray::try_from_keys(keys, values).unwrap().boxed();
    let small = PrimitiveArray::from([Some(-1i16), None, Some(7), Some(8)]).boxed();
    let micros = PrimitiveArray::from_slice([1i64, -2, 3, 4])
        .to(DataType::Timestamp(arrow2::datatypes::TimeUnit::Microsecond, Some("Europe/Paris".into())))
        .boxed();
    let nothing = arrow2::array::NullArray::new(DataType::Null, 4).boxed();
    let all = [("d", dictionary), ("s", small), ("t", micros), ("n", nothing)];
    // Whole, and from a row on: then each array has an offset.
    for from in [0, 1, 3] {
        let sliced = all.clone().map(|(name, array)| (name, array.sliced(from, 4 - from)));
        let found = read(made_by_arrow2(sliced.into())).unwrap();
        assert_eq!(found.names().iter().map(|name| &**name).collect::<Vec<_>>(), ["d", "s", "t"]);
        let rows = [
            ["bc".into(), Value::I32(-1), Timestamp(1_000).into()],
            [Value::Null, Value::Null, Timestamp(-2_000).into()],
            ["a".into(), Value::I32(7), Timestamp(3_000).into()],
            ["bc".into(), Value::I32(8), Timestamp(4_000).into()],
        ];
        let found: Vec<Vec<Value>> = (0..found.rows()).map(|row| found.row(row)).collect();
        assert_eq!(found, rows[from..].iter().map(|row| row.to_vec()).collect::<Vec<_>>());
    }
    // The offset of the records is that of their columns, too.
    let (mut array, schema) =
        made_by_arrow2(vec![("x", PrimitiveArray::from_slice([1i64, 2, 3, 4]).boxed())]);
    (array.offset, array.length) = (1, 2);
    assert_eq!(read((array, schema)).unwrap().i64s("x").unwrap(), [2, 3]);
}

#[test]
fn structures_that_contradict_themselves_are_refused() {
    let refused = |damage: &dyn Fn(&mut ArrowArray, &mut ArrowSchema, &mut ArrowArray)| {
        let mut columns = Columns::with_types([("x", ColumnType::Utf8)]).unwrap();
        columns.push_row(&["é".into()]).unwrap();
        columns.push_row(&["b".into()]).unwrap();
        let (mut array, mut schema) = export(&Batch::from(columns)).unwrap();
        // SAFETY: of our own export.
        let child = unsafe { &mut **array.children };
        damage(&mut array, &mut schema, child);
        read((array, schema)).unwrap_err().to_string()
    };
    assert!(refused(&|array, _, _| array.length = -1).contains("-1 values"));
    assert!(refused(&|array, _, _| array.length = 3).contains("2 values"));
    assert!(refused(&|_, _, child| child.offset = -1).contains("from -1 on"));
    assert!(refused(&|_, _, child| child.length = i64::MAX).contains("values"));
    assert!(refused(&|array, _, _| array.n_children = 2).contains("2 columns"));
    assert!(refused(&|_, _, child| child.n_buffers = 1).contains("buffer is missing"));
    assert!(refused(&|_, schema, _| schema.format = c"u".as_ptr()).contains("no record batch"));
    // Offsets that fall, and text that begins within a character.
    static FALLING: [i32; 3] = [0, 3, 1];
    static WITHIN: [i32; 3] = [0, 1, 3];
    // SAFETY: the array has a place for three buffers.
    let offsets = |child: &mut ArrowArray, to: &'static [i32; 3]| unsafe {
        *child.buffers.add(1) = to.as_ptr().cast();
    };
    assert!(refused(&|_, _, child| offsets(child, &FALLING)).contains("not in order"));
    assert!(refused(&|_, _, child| offsets(child, &WITHIN)).contains("UTF-8"));
    // SAFETY: as above.
    assert!(refused(&|_, _, child| unsafe { *child.buffers.add(2) = std::ptr::null() }).contains("no texts"));
    assert!(read((ArrowArray::empty(), ArrowSchema::empty())).unwrap_err().to_string().contains("released"));

    let keys = PrimitiveArray::from_slice([0i64, 1]);
    let values = PrimitiveArray::from_slice([1i64, 2]).boxed();
    let array = DictionaryArray::try_from_keys(keys, values).unwrap().boxed();
    let (array, schema) = made_by_arrow2(vec![("d", array)]);
    // SAFETY: arrow2's export has a child with a dictionary.
    unsafe { (*(**array.children).dictionary).length = 1 };
    assert!(read((array, schema)).unwrap_err().to_string().contains("behind its dictionary"));
}

#[test]
fn streams_go_both_ways_and_tell_what_went_wrong() {
    let types = all_types(0);
    let whole = all_types(10);
    let batches = vec![Ok(Batch::from(whole.slice(0..4))), Ok(Batch::from(whole.slice(4..10)))];
    let stream = export_stream::<String>(types.clone(), batches.clone().into_iter()).unwrap();
    // SAFETY: it is ours.
    let found: Vec<Columns> = unsafe { import_stream(stream) }.unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(found, [bare(whole.slice(0..4)), bare(whole.slice(4..10))]);

    // SAFETY: it has the layout of the interface; arrow2 drops it.
    let read = unsafe {
        let stream = export_stream::<String>(types.clone(), batches.into_iter()).unwrap();
        let stream: Box<arrow2::ffi::ArrowArrayStream> =
            Box::new(std::mem::transmute::<ArrowArrayStream, arrow2::ffi::ArrowArrayStream>(stream));
        let mut reader = arrow2::ffi::ArrowArrayStreamReader::try_new(stream).unwrap();
        std::iter::from_fn(|| reader.next()).map(|array| array.unwrap().len()).collect::<Vec<_>>()
    };
    assert_eq!(read, [4, 6]);

    let failing = |second: Result<Batch, String>| {
        let batches = vec![Ok(Batch::from(all_types(2))), second];
        let stream = export_stream(types.clone(), batches.into_iter()).unwrap();
        // SAFETY: it is ours.
        let mut read = unsafe { import_stream(stream) }.unwrap();
        assert_eq!(read.next().unwrap().unwrap(), all_types(2));
        let error = read.next().unwrap().unwrap_err().to_string();
        assert!(read.next().is_none());
        error
    };
    assert!(failing(Err("the disk is full".to_string())).contains("the disk is full"));
    let other = Columns::new().with("x", Column::from(vec![1i64])).unwrap();
    assert!(failing(Ok(other.into())).contains("other columns"));
    let panicking = export_stream::<String>(types, std::iter::from_fn(|| panic!("within"))).unwrap();
    // SAFETY: it is ours.
    let mut read = unsafe { import_stream(panicking) }.unwrap();
    assert!(read.next().unwrap().unwrap_err().to_string().contains("panicked"));
    // SAFETY: it is none, and refused.
    assert!(unsafe { import_stream(ArrowArrayStream::empty()) }.is_err());
}

proptest! {
    #[test]
    fn any_rows_of_a_batch_come_back(rows in 0i64..40, from in 0usize..45, length in 0usize..45) {
        let columns = all_types(rows);
        let to = (from + length).min(columns.rows());
        let from = from.min(to);
        let batch = Batch::new(Arc::new(columns.clone()), from..to);
        let (array, schema) = export(&batch).unwrap();
        let expected = bare(columns.slice(from..to));
        prop_assert_eq!(&read((array, schema)).unwrap(), &expected);
        prop_assert_eq!(&bare(batch.to_columns().unwrap()), &expected);
        let (array, schema) = export(&batch).unwrap();
        prop_assert_eq!(read_by_arrow2(array, schema), expected);
    }
}

#[test]
fn decimals_and_zones_are_handed_over() {
    use arrow2::array::Int128Array;
    use underbelly_storage::{LogicalType, LogicalTypes};
    let types = LogicalTypes::new().with("x", LogicalType::Decimal(4));
    let types = types.with("t", LogicalType::Zoned("Asia/Tokyo".into()));
    let numbers =
        Column::from_parts(Values::I64(vec![i64::MIN, 0, 7]), Some(vec![true, false, true])).unwrap();
    let rows = Columns::new().with("x", numbers).unwrap().with("n", vec![1i64, 2, 3].into()).unwrap();
    let rows = rows.with("t", vec![Timestamp(1), Timestamp(-2), Timestamp(3)].into()).unwrap();
    let batch = || Batch::from(rows.clone()).typed(Arc::new(types.clone()));
    let (array, schema) = export(&batch()).unwrap();
    // SAFETY: they are what `export` made.
    let (known, again) = unsafe { (super::types(&schema).unwrap(), import(array, &schema).unwrap()) };
    assert_eq!((known, again), (types.clone(), rows.clone()));
    let (array, schema) = export(&batch()).unwrap();
    assert_eq!(read_by_arrow2(array, schema), rows);
    let stream = export_stream(batch(), [Ok::<_, String>(batch())].into_iter()).unwrap();
    // SAFETY: it is what `export_stream` made.
    let imported = unsafe { import_stream(stream).unwrap() };
    assert_eq!(imported.types().unwrap(), types);
    assert_eq!(imported.map(Result::unwrap).collect::<Vec<_>>(), [rows]);
    let wide = Int128Array::from(vec![Some(1i128 << 63)]).to(DataType::Decimal(38, 4)).boxed();
    assert!(read(made_by_arrow2(vec![("x", wide)])).unwrap_err().to_string().contains("64 bits"));
}

#[test]
fn structs_within_a_batch_are_the_columns_within_them() {
    use crate::ipc::tests::{flat_quotes, quotes};
    let numbers = PrimitiveArray::from_slice([1i64, 2, 3, 4]).boxed();
    let whole = made_by_arrow2(vec![("n", numbers.clone()), ("quote", quotes())]);
    let mut some = made_by_arrow2(vec![("n", numbers.clone()), ("quote", quotes())]);
    (some.0.offset, some.0.length) = (1, 3);
    for (made, skipped) in [(whole, 0), (some, 1)] {
        let (rows, expected) = (read(made).unwrap(), flat_quotes());
        assert_eq!((rows.rows(), rows.names()), (4 - skipped, expected.names()));
        for row in 0..rows.rows() {
            for (name, _) in expected.iter() {
                assert_eq!(rows.value(name, row), expected.value(name, row + skipped), "{name} {row}");
            }
        }
    }
    let dotted = vec![Field::new("b.c", numbers.data_type().clone(), true)];
    let dotted = StructArray::new(DataType::Struct(dotted), vec![numbers.clone()], None).boxed();
    assert!(read(made_by_arrow2(vec![("a", dotted)])).unwrap_err().to_string().contains("\"b.c\""));
    let of_zone =
        DataType::Timestamp(arrow2::datatypes::TimeUnit::Nanosecond, Some("Asia/Tokyo".to_string()));
    let instants =
        numbers.as_any().downcast_ref::<PrimitiveArray<i64>>().unwrap().clone().to(of_zone).boxed();
    let members = vec![Field::new("at", instants.data_type().clone(), true)];
    let members = StructArray::new(DataType::Struct(members), vec![instants], None).boxed();
    let (array, schema) = made_by_arrow2(vec![("a", members)]);
    // SAFETY: arrow2 made it.
    let types = unsafe { super::types(&schema).unwrap() };
    assert_eq!(types.get("a.at").and_then(|logical| logical.zone()), Some("Asia/Tokyo"));
    drop((array, schema));
    let (array, schema) = made_by_arrow2(vec![("quote", quotes())]);
    // SAFETY: of arrow2's export, which has a column.
    let moved = unsafe { std::mem::replace(&mut **array.children, ArrowArray::empty()) };
    let refused = read((array, schema)).unwrap_err().to_string();
    assert!(refused.contains("\"quote\" was released"), "{refused}");
    drop(moved);
}
