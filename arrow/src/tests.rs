#![allow(clippy::unwrap_used)]

use arrow_format::ipc::planus::{Builder, ReadAsRoot, WriteAsOffset};
use arrow_format::ipc::{self, Message, MessageHeader, MessageRef};
use arrow2::array::{
    DictionaryArray, Int8Array, ListArray, MutableListArray, MutablePrimitiveArray, NullArray,
    PrimitiveArray, StructArray, TryExtend, Utf8Array,
};
use arrow2::datatypes::{DataType, TimeUnit};
use proptest::prelude::*;
use underbelly_storage::{ColumnType, Date, Strings, Timestamp, Value, Values};

use super::*;

fn decode(bytes: &[u8]) -> Result<Columns, ArrowError> {
    super::decode(bytes, Limits::default())
}

fn all_types() -> Columns {
    let mut rows = Columns::with_types([
        ("b", ColumnType::Bool),
        ("i", ColumnType::I64),
        ("f", ColumnType::F64),
        ("s", ColumnType::Utf8),
        ("y", ColumnType::Bytes),
        ("t", ColumnType::Timestamp),
        ("d", ColumnType::Date),
        ("j", ColumnType::I32),
        ("g", ColumnType::F32),
    ])
    .unwrap();
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.into());
    let full = |at: i64| {
        [
            true.into(),
            at.into(),
            f64::INFINITY.into(),
            "smörgås".into(),
            bytes(&[0, 255]),
            Timestamp(at).into(),
            Date(-3).into(),
            Value::I32(i32::MIN),
            Value::F32(1.5),
        ]
    };
    rows.push_row(&full(i64::MAX)).unwrap();
    rows.push_row(&vec![Value::Null; 9]).unwrap();
    rows.push_row(&full(i64::MIN)).unwrap();
    rows
}

fn encoded(rows: &Columns) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(rows.clone(), &mut bytes).unwrap();
    bytes
}

/// A file of the rows twice, in two batches.
fn file(rows: &Columns) -> Vec<u8> {
    let mut writer = Writer::file(Vec::new(), rows).unwrap();
    writer.write(rows.clone()).unwrap();
    writer.write(rows.clone()).unwrap();
    writer.finish().unwrap()
}

fn written(arrays: Vec<Box<dyn Array>>, options: WriteOptions) -> Vec<u8> {
    let fields: Vec<Field> = arrays
        .iter()
        .zip('a'..)
        .map(|(a, n)| Field::new(n.to_string(), a.data_type().clone(), true))
        .collect();
    let mut out = Vec::new();
    let mut writer = StreamWriter::new(&mut out, options);
    writer.start(&Schema::from(fields), None).unwrap();
    writer.write(&Chunk::new(arrays), None).unwrap();
    writer.finish().unwrap();
    out
}

#[test]
fn rows_of_every_type_come_back() {
    let rows = all_types();
    assert_eq!(decode(&encoded(&rows)).unwrap(), rows);
    let none = decode(&encoded(&rows.slice(0..0))).unwrap();
    assert_eq!((none.rows(), none.names()), (0, rows.names()));
    assert_eq!(decode(&encoded(&Columns::new())).unwrap(), Columns::new());
}

#[test]
fn record_batches_are_put_one_behind_another() {
    let rows = all_types();
    let bytes = encoded(&rows);
    // The schema, then the batch twice, then the end.
    let mut behind = &bytes[..];
    read_stream_metadata(&mut behind).unwrap();
    let schema = bytes.len() - behind.len();
    let batch = &bytes[schema..bytes.len() - 8];
    let twice = [&bytes[..schema], batch, batch, &bytes[bytes.len() - 8..]].concat();
    let found = decode(&twice).unwrap();
    assert_eq!(found.rows(), 6);
    assert_eq!((found.slice(0..3), found.slice(3..6)), (rows.clone(), rows));
}

#[test]
fn what_other_writers_write_is_taken_or_named() {
    let small = Int8Array::from([Some(-1), None]).boxed();
    let nulls = NullArray::new(DataType::Null, 2).boxed();
    let seconds =
        PrimitiveArray::from_slice([5i64, -7]).to(DataType::Timestamp(TimeUnit::Second, None)).boxed();
    let found = decode(&written(vec![small, nulls, seconds], WriteOptions::default())).unwrap();
    let names: Vec<&str> = found.names().iter().map(|name| &**name).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(found.row(0), [Value::I32(-1), Timestamp(5_000_000_000).into()]);
    assert_eq!(found.row(1), [Value::Null, Timestamp(-7_000_000_000).into()]);

    let far = PrimitiveArray::from_slice([i64::MAX]).to(DataType::Timestamp(TimeUnit::Second, None)).boxed();
    let refused = |array: Box<dyn Array>| {
        decode(&written(vec![array], WriteOptions::default())).unwrap_err().to_string()
    };
    assert!(refused(far).contains("1677"));
    let unsigned = PrimitiveArray::from_slice([1u64]).boxed();
    assert!(refused(unsigned).contains("column \"a\" is of the type UInt64"));
    let mut lists = MutableListArray::<i32, MutablePrimitiveArray<i32>>::new();
    lists.try_extend([Some([Some(1)])]).unwrap();
    let list: ListArray<i32> = lists.into();
    assert!(refused(list.boxed()).contains("nested"));
}

#[test]
fn files_and_streams_are_read_a_batch_at_a_time() {
    let rows = all_types();
    let mut stream = Writer::stream(Vec::new(), &rows).unwrap();
    stream.write(rows.slice(0..1)).unwrap();
    stream.write(rows.slice(1..3)).unwrap();
    let stream = stream.finish().unwrap();
    let read = |bytes: &[u8]| {
        let reader = Reader::new(bytes, Limits::default()).unwrap();
        let empty = reader.empty().unwrap();
        let types = |rows: &Columns| rows.iter().map(|(_, column)| column.column_type()).collect::<Vec<_>>();
        assert_eq!((empty.names(), types(&empty), empty.rows()), (rows.names(), types(&rows), 0));
        let lines = |rows: Columns| (0..rows.rows()).map(|row| rows.row(row)).collect::<Vec<_>>();
        reader.map(|batch| lines(batch.unwrap())).collect::<Vec<_>>()
    };
    let (first, second, third) = (rows.row(0), rows.row(1), rows.row(2));
    let all = vec![first.clone(), second.clone(), third.clone()];
    assert_eq!(read(&stream), [vec![first], vec![second, third]]);
    assert_eq!(read(&file(&rows)), [all.clone(), all]);
    // arrow2 finds the batches by the list at the file's end.
    let bytes = file(&rows);
    let mut behind = std::io::Cursor::new(&bytes);
    let metadata = arrow2::io::ipc::read::read_file_metadata(&mut behind).unwrap();
    assert_eq!(arrow2::io::ipc::read::FileReader::new(behind, metadata, None, None).count(), 2);
    let other = Columns::new().with("b", Column::from(vec![1i64])).unwrap();
    assert!(Writer::file(Vec::new(), &rows).unwrap().write(other).unwrap_err().to_string().contains("\"b\""));
}

#[test]
fn dictionaries_are_read_as_what_they_stand_for() {
    let values = Utf8Array::<i32>::from([Some("IBM"), None, Some("AIG")]).boxed();
    let keys = PrimitiveArray::from([Some(2u8), Some(0), None, Some(1), Some(2)]);
    let array = DictionaryArray::try_from_keys(keys, values).unwrap().boxed();
    let bytes = written(vec![array], WriteOptions::default());
    let found = decode(&bytes).unwrap();
    let texts: Vec<Option<&str>> = (0..5).map(|row| found.column("a").unwrap().str_at(row)).collect();
    assert_eq!(texts, [Some("AIG"), Some("IBM"), None, None, Some("AIG")]);
    let plain = Limits { dictionaries: false, ..Limits::default() };
    assert!(super::decode(&bytes, plain).unwrap_err().to_string().contains("dictionary"));
    let small = Limits { body_bytes: 8, ..Limits::default() };
    assert!(super::decode(&bytes, small).is_err());
    assert!(super::decode(&bytes, Limits { rows: 4, ..Limits::default() }).is_err());
}

/// The messages of a stream, with their bodies.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while bytes.len() > 8 {
        let metadata = i32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let body = claims::body_bytes(&bytes[8..8 + metadata]).unwrap() as usize;
        let (message, rest) = bytes.split_at(8 + metadata + body);
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// The message with another header; its body stays.
fn with_header(message: &[u8], change: impl FnOnce(&mut MessageHeader)) -> Vec<u8> {
    let metadata = i32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
    let read = MessageRef::read_as_root(&message[8..8 + metadata]).unwrap();
    let mut read = Message::try_from(read).unwrap();
    change(read.header.as_mut().unwrap());
    let made = message_of(Builder::new(), &read);
    [&made[..], &message[8 + metadata..]].concat()
}

fn message_of(mut builder: Builder, message: impl ipc::planus::WriteAsOffset<Message>) -> Vec<u8> {
    let mut metadata = builder.finish(message, None).to_vec();
    metadata.resize(metadata.len().next_multiple_of(8), 0);
    [&CONTINUATION[..], &(metadata.len() as i32).to_le_bytes(), &metadata].concat()
}

/// A stream of one column of texts that stand in a dictionary.
fn two_texts(texts: [&str; 2]) -> Vec<u8> {
    let values = Utf8Array::<i32>::from([Some(texts[0]), Some(texts[1])]).boxed();
    let keys = PrimitiveArray::from([Some(1i32), Some(0), None]);
    written(vec![DictionaryArray::try_from_keys(keys, values).unwrap().boxed()], WriteOptions::default())
}

#[test]
fn a_dictionary_replaces_the_one_before_it() {
    let (first, second) = (two_texts(["a", "b"]), two_texts(["c", "d"]));
    let [schema, ab, batch] = messages(&first)[..] else { panic!("three messages") };
    let cd = messages(&second)[1];
    let stream = |middle: &[&[u8]]| [&[schema], middle, &[&END]].concat().concat();
    let texts = |bytes: &[u8]| -> Vec<String> {
        let found = decode(bytes).unwrap();
        let column = found.column("a").unwrap();
        (0..found.rows()).map(|row| column.str_at(row).unwrap_or("-").to_string()).collect()
    };
    assert_eq!(texts(&stream(&[ab, batch, cd, batch, batch])), ["b", "a", "-", "d", "c", "-", "d", "c", "-"]);
    // As many as one likes, in the memory of one and on a small stack.
    let mut many = vec![ab; 20_000];
    many.extend([cd, batch]);
    assert_eq!(texts(&stream(&many)), ["d", "c", "-"]);
    let limits = Limits { body_bytes: 2 * ab.len() as u64, ..Limits::default() };
    assert_eq!(super::decode(&stream(&many), limits).unwrap().rows(), 3);
    // Each with a number of its own: bounded.
    let numbered = |id| {
        with_header(ab, |header| match header {
            MessageHeader::DictionaryBatch(dictionary) => dictionary.id = id,
            _ => panic!("a dictionary"),
        })
    };
    let others: Vec<Vec<u8>> = (1..DICTIONARIES_MAX as i64 + 1).map(numbered).collect();
    let mut many: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
    many.extend([ab, batch]);
    let refused = decode(&stream(&many)).unwrap_err().to_string();
    assert!(refused.contains("more than 256 dictionaries"), "{refused}");
    let delta = with_header(cd, |header| match header {
        MessageHeader::DictionaryBatch(dictionary) => dictionary.is_delta = true,
        _ => panic!("a dictionary"),
    });
    let refused = decode(&stream(&[ab, &delta, batch])).unwrap_err().to_string();
    assert!(refused.contains("a dictionary adds to another"), "{refused}");
}

#[test]
fn texts_that_fields_share_are_refused_before_they_are_copied() {
    let text = "x".repeat(1 << 16);
    let field = |builder: &mut Builder, name: &str, pairs: usize| {
        let (key, value) = ("key".prepare(builder), text.as_str().prepare(builder));
        let pair = ipc::KeyValue::create(builder, key, value);
        let (name, none) = (name.prepare(builder), Vec::<ipc::planus::Offset<ipc::Field>>::new());
        let bool_type = ipc::Type::Bool(Box::new(ipc::Bool {}));
        ipc::Field::create(builder, name, true, bool_type, (), none, vec![pair; pairs])
    };
    let schema = |names: &[&str], times: usize, pairs: usize| {
        let mut builder = Builder::new();
        let fields: Vec<_> = names.iter().map(|name| field(&mut builder, name, pairs)).collect();
        let schema = ipc::Schema::create(&mut builder, ipc::Endianness::Little, fields.repeat(times), (), ());
        let header = ipc::planus::UnionOffset::new(1, schema.downcast());
        let message = Message::create(&mut builder, ipc::MetadataVersion::V5, header, 0i64, ());
        message_of(builder, message)
    };
    let refused = |bytes: Vec<u8>| decode(&[&bytes[..], &END].concat()).unwrap_err().to_string();
    for bytes in [schema(&[&text], 4_096, 0), schema(&["a"], 4_096, 1), schema(&["a"], 1, 1_000_000)] {
        let what = refused(bytes);
        assert!(what.contains("the texts of the schema are longer than the schema"), "{what}");
    }
    let honest = schema(&["a", "b"], 1, 1);
    assert_eq!(decode(&[&honest[..], &END].concat()).unwrap().width(), 2);
}

#[test]
fn a_batch_whose_columns_lack_rows_is_refused() {
    let mut texts = Columns::with_types([("s", ColumnType::Utf8)]).unwrap();
    texts.push_row(&["a".into()]).unwrap();
    let bytes = encoded(&texts);
    let [schema, batch] = messages(&bytes)[..] else { panic!("two messages") };
    let short = with_header(batch, |header| match header {
        MessageHeader::RecordBatch(batch) => batch.buffers.as_mut().unwrap()[1].length = 0,
        _ => panic!("a batch"),
    });
    assert_eq!(decode(&[schema, batch, &END].concat()).unwrap(), texts);
    let refused = decode(&[schema, &short, &END].concat()).unwrap_err().to_string();
    assert!(refused.contains("column \"s\""), "{refused}");
}

#[test]
fn a_byte_that_changes_is_refused_or_read_and_never_a_panic() {
    let values = Utf8Array::<i32>::from([Some("IBM"), None]).boxed();
    let keys = PrimitiveArray::from([Some(1i32), Some(0), None]);
    let array = DictionaryArray::try_from_keys(keys, values).unwrap().boxed();
    let rows = all_types();
    let dictionary = written(vec![array], WriteOptions::default());
    let mut unread = 0;
    for bytes in [encoded(&rows), file(&rows), dictionary] {
        for at in 0..bytes.len() {
            for to in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(1)] {
                let mut damaged = bytes.clone();
                damaged[at] = to;
                unread += usize::from(decode(&damaged).is_err());
            }
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "{cut}");
        }
    }
    assert!(unread > 0);
}

#[test]
fn lengths_that_lie_are_refused() {
    let bytes = encoded(&all_types());
    // Any 8 bytes of the stream as an absurd length: refused, or read, but no panic and no such memory.
    for at in 0..bytes.len() - 8 {
        for lie in [i64::MAX, i64::MIN, -1, 1 << 40] {
            let mut lying = bytes.clone();
            lying[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            let _ = decode(&lying);
        }
    }
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut]).is_err(), "{cut}");
    }
    assert!(decode(&[&bytes[..], b"more"].concat()).unwrap_err().to_string().contains("4 bytes are behind"));
}

proptest! {
    #[test]
    fn damaged_streams_are_refused_or_read(flips in prop::collection::vec((0usize..4096, 0u8..8), 1..4)) {
        let mut bytes = encoded(&all_types());
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let _ = decode(&bytes);
    }
}

/// Decimals are `decimal128(19, scale)`, scaled integers here; what 64 bits do not hold is refused, unless it stands under a null.
#[test]
fn decimals_come_back_with_their_scale() {
    use underbelly_storage::LogicalType;
    let types = LogicalTypes::new().with("x", LogicalType::Decimal(2)).with("y", LogicalType::Decimal(18));
    let numbers = Column::from_parts(
        underbelly_storage::Values::I64(vec![i64::MIN, i64::MAX, -5, 0]),
        Some(vec![true, true, true, false]),
    );
    let rows = Columns::new().with("x", numbers.unwrap()).unwrap();
    let rows = rows.with("y", vec![1i64, 2, 3, 4].into()).unwrap().with("n", vec![1i64; 4].into()).unwrap();
    let mut file = Writer::file_typed(Vec::new(), &rows, &types).unwrap();
    file.write(rows.clone()).unwrap();
    let mut stream = Writer::stream_typed(Vec::new(), &rows, &types).unwrap();
    stream.write(rows.clone()).unwrap();
    for bytes in [file.finish().unwrap(), stream.finish().unwrap()] {
        assert!(decode(&bytes).unwrap_err().to_string().contains("decimal(2)"));
        let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
        assert_eq!(reader.types(), types);
        assert_eq!(reader.next().unwrap().unwrap(), rows);
        assert!(reader.next().is_none());
    }
    let of = |data_type: DataType, numbers: Vec<Option<i128>>| {
        let array = PrimitiveArray::from(numbers).to(data_type);
        let mut column = columns::empty(array.data_type())?.ok_or("no column")?;
        columns::append(&mut column, &array, None).map(|()| column)
    };
    let wide = i128::from(i64::MAX) + 1;
    assert_eq!(of(DataType::Decimal(38, 3), vec![Some(7)]).unwrap().get(0), Value::I64(7));
    assert!(of(DataType::Decimal(38, 3), vec![Some(wide)]).unwrap_err().contains("64 bits"));
    assert!(of(DataType::Decimal(38, 19), vec![Some(7)]).unwrap_err().contains("18 digits"));
}

/// Instants name their zone, unless it is UTC or an offset, which need none.
#[test]
fn zones_come_back() {
    use underbelly_storage::LogicalType;
    let zoned = |zone: &str| LogicalType::Zoned(zone.into());
    let types = LogicalTypes::new().with("t", zoned("Asia/Tokyo")).with("u", zoned("America/New_York"));
    let at = || Column::from(vec![Timestamp(i64::MIN), Timestamp(7)]);
    let rows = Columns::new().with("t", at()).unwrap().with("u", at()).unwrap().with("v", at()).unwrap();
    let mut file = Writer::file_typed(Vec::new(), &rows, &types).unwrap();
    file.write(rows.clone()).unwrap();
    let bytes = file.finish().unwrap();
    let mut reader = Reader::new(&bytes[..], Limits::default()).unwrap();
    assert_eq!(reader.types(), types);
    assert_eq!(reader.next().unwrap().unwrap(), rows);
    for plain in ["UTC", "+05:30", "-00:00"] {
        assert_eq!(columns::zoned(plain), None, "{plain}");
    }
}

/// Quotes whose bids are structs within a struct: the second row has no bid, the third no quote, the fourth a bid without a price.
pub(crate) fn quotes() -> Box<dyn Array> {
    let field = |name: &str, array: &dyn Array| Field::new(name, array.data_type().clone(), true);
    let of = |members: Vec<(&str, Box<dyn Array>)>, validity: [bool; 4]| {
        let fields = members.iter().map(|(name, array)| field(name, &**array)).collect();
        let arrays = members.into_iter().map(|(_, array)| array).collect();
        StructArray::new(DataType::Struct(fields), arrays, Some(validity.into())).boxed()
    };
    let price = PrimitiveArray::from([Some(1.5f64), Some(2.5), Some(3.5), None]).boxed();
    let size = PrimitiveArray::from_slice([10i64, 20, 30, 40]).boxed();
    let bid = of(vec![("price", price), ("size", size)], [true, false, true, true]);
    let venue = Utf8Array::<i32>::from_slice(["N", "Q", "N", "B"]).boxed();
    of(vec![("bid", bid), ("venue", venue)], [true, true, false, true])
}

/// What [`quotes`] are, beside a number for each.
pub(crate) fn flat_quotes() -> Columns {
    let column = |values, validity: [bool; 4]| Column::from_parts(values, Some(validity.to_vec())).unwrap();
    let price = column(Values::F64(vec![1.5, 2.5, 3.5, 0.0]), [true, false, false, false]);
    let size = column(Values::I64(vec![10, 20, 30, 40]), [true, false, false, true]);
    let venue = column(
        Values::Utf8(Strings::from_parts(vec![0, 1, 2, 3, 4], b"NQNB".to_vec()).unwrap()),
        [true, true, false, true],
    );
    let rows = Columns::new().with("n", vec![1i64, 2, 3, 4].into()).unwrap();
    let rows = rows.with("quote.bid.price", price).unwrap().with("quote.bid.size", size).unwrap();
    rows.with("quote.venue", venue).unwrap()
}

#[test]
fn structs_are_the_columns_within_them() {
    let numbers = || PrimitiveArray::from_slice([1i64, 2, 3, 4]).boxed();
    let of = |name: &str, structs: Box<dyn Array>, limits: Limits| {
        let fields = [("n", numbers()), (name, structs)];
        let schema: Vec<Field> =
            fields.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let mut writer = StreamWriter::new(Vec::new(), WriteOptions::default());
        writer.start(&Schema::from(schema), None).unwrap();
        writer.write(&Chunk::new(fields.into_iter().map(|(_, array)| array).collect()), None).unwrap();
        writer.finish().unwrap();
        super::decode(&writer.into_inner(), limits)
    };
    let named = |name: &str| of(name, quotes(), Limits::default());
    let rows = named("quote").unwrap();
    assert_eq!(rows.rows(), 4);
    for row in 0..4 {
        for (name, _) in flat_quotes().iter() {
            assert_eq!(rows.value(name, row), flat_quotes().value(name, row), "{name} {row}");
        }
    }
    assert_eq!(rows.names(), flat_quotes().names());
    let refused = |made: Result<Columns, ArrowError>| made.unwrap_err().to_string();
    assert!(
        refused(of("quote", quotes(), Limits { structs: false, ..Limits::default() })).contains("nested")
    );
    assert!(refused(of("quote", quotes(), Limits { columns: 4, ..Limits::default() })).contains("6 columns"));
    let member = |name: &str| {
        let array = numbers();
        let fields = vec![Field::new(name, array.data_type().clone(), true)];
        StructArray::new(DataType::Struct(fields), vec![array], None).boxed()
    };
    let found = of("a", member("b.c"), Limits::default());
    assert!(refused(found).contains("\"b.c\""));
    let mut deep = member("x");
    for _ in 0..columns::STRUCT_DEPTH_MAX {
        let fields = vec![Field::new("x", deep.data_type().clone(), true)];
        deep = StructArray::new(DataType::Struct(fields), vec![deep], None).boxed();
    }
    assert!(refused(of("a", deep, Limits::default())).contains("levels deep"));
    // A path is put together once it is known to be short enough to be a name.
    let far = of(&"x".repeat(200), member(&"y".repeat(60)), Limits::default());
    assert!(refused(far).contains("255 bytes"));
    // What stands under a null is of no interest, nor what a struct that is null holds.
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    let wide = PrimitiveArray::from_slice([i64::MAX, 1, 2, 3]).to(seconds).boxed();
    let fields = vec![Field::new("d", wide.data_type().clone(), true)];
    let hidden = Some([false, true, true, true].into());
    let hidden = StructArray::new(DataType::Struct(fields), vec![wide], hidden).boxed();
    let rows = of("a", hidden, Limits::default()).unwrap();
    assert_eq!(
        (rows.value("a.d", 0), rows.value("a.d", 1)),
        (Some(Value::Null), Some(Timestamp(1_000_000_000).into()))
    );
    let texts = Utf8Array::<i32>::from_slice(["N", "Q"]).boxed();
    let keys = PrimitiveArray::from_slice([1i32, 0, 1, 1]);
    let codes = DictionaryArray::try_from_keys(keys, texts).unwrap().boxed();
    let fields = vec![Field::new("venue", codes.data_type().clone(), true)];
    let coded =
        StructArray::new(DataType::Struct(fields), vec![codes], Some([true, true, false, true].into()));
    let rows = of("a", coded.boxed(), Limits::default()).unwrap();
    let venues: Vec<Option<Value>> = (0..4).map(|row| rows.value("a.venue", row)).collect();
    assert_eq!(venues, ["Q".into(), "N".into(), Value::Null, "Q".into()].map(Some));
}
