#![allow(clippy::unwrap_used, clippy::expect_used)]
use proptest::prelude::*;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::cluster::Layout;
use super::codec::{self, Encoded, Shape, same};
use super::footer::Footer;
use super::write::{Cut, write};
use super::*;
use crate::columns::{Column, Strings, Values};
use crate::disk::{Disk, RealDisk, SimulatedDisk};
use crate::error::{Damage, StorageError};
use crate::limits::{BLOCK_BYTES_MAX, GROUP_ROWS_MAX};
use crate::stamp::{STAMP_BYTES, Stamp};
use crate::twin;
use crate::value::{ColumnType, Timestamp, Value};

const DB: [u8; 16] = [7; 16];

fn encode(column: &Column) -> Encoded {
    codec::encode(column, Layout::even(column.len()))
}

fn decode(bytes: &[u8], shape: Shape) -> Result<Column, Damage> {
    codec::decode(bytes, shape, Layout::even(shape.rows))
}

fn decode_rows(bytes: &[u8], shape: Shape, rows: Range<usize>) -> Result<Column, Damage> {
    codec::decode_rows(bytes, shape, Layout::even(shape.rows), rows)
}

fn decode_at(bytes: &[u8], shape: Shape, at: &[u32]) -> Result<Column, Damage> {
    codec::decode_at(bytes, shape, Layout::even(shape.rows), at)
}

/// Rows given and read back, all as columns.
#[derive(Debug)]
struct Rows {
    timestamps: Vec<i64>,
    seqs: Option<Vec<u64>>,
    columns: Columns,
}

/// Names that count as keys where a column has one of them.
fn keys() -> HashSet<&'static str> {
    ["sym", "day"].into()
}

impl Rows {
    fn write(&self, disk: &dyn Disk, name: &str, cut: Cut) -> Result<SegmentInfo, StorageError> {
        let seqs = self.seqs.as_ref().map_or(Seqs::Assigned, |seqs| Seqs::Each(seqs));
        let (timestamps, columns) = (&self.timestamps, &self.columns);
        let rows =
            SegmentRows { timestamps, seqs, columns, keys: &keys(), by_key: true, after: 0, replaced: &[] };
        write(disk, name, DB, &rows, cut, &Alone)
    }

    fn read(segment: &Segment) -> Result<Rows, StorageError> {
        let types = segment.schema().iter().map(|(name, column_type)| (&**name, *column_type));
        let mut columns: Vec<(String, Column)> =
            types.map(|(name, column_type)| (name.to_string(), Column::new(column_type))).collect();
        let (mut timestamps, mut seqs) = (Vec::new(), segment.has_seqs().then(Vec::new));
        for group in 0..segment.groups() {
            timestamps.extend(segment.timestamps(group)?);
            if let (Some(all), Some(more)) = (&mut seqs, segment.seqs(group)?) {
                all.extend(more);
            }
            for (name, column) in &mut columns {
                let part = segment.column(group, name)?.expect("a column of the schema");
                column.extend_range(&part, 0..part.len()).expect("the same type");
            }
        }
        let mut read = Columns::new();
        columns.into_iter().for_each(|(name, column)| read.insert(name, column).expect("equal lengths"));
        Ok(Rows { timestamps, seqs, columns: read })
    }

    fn assert_same(&self, other: &Rows) {
        assert_eq!(self.timestamps, other.timestamps);
        assert_eq!(self.seqs, other.seqs);
        assert_eq!(self.columns.names(), other.columns.names());
        for (name, column) in self.columns.iter() {
            assert!(same(column, other.columns.column(name).unwrap()), "column {name}");
        }
    }
}

/// Groups of so many rows.
fn cut(rows: usize) -> Cut {
    Cut { rows, text_bytes: BLOCK_BYTES_MAX, jump_rows: usize::MAX }
}

/// Columns of every type and of many kinds of content, by a simple generator.
fn varied(rows: usize) -> Rows {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 11 ^ state << 40
    };
    let mut columns = Columns::new();
    let mut add = |name: &str, column_type, value: &mut dyn FnMut(usize) -> Value| {
        let mut column = Column::with_capacity(column_type, rows);
        (0..rows).for_each(|row| column.push(&value(row)).unwrap());
        columns.insert(name, column).unwrap();
    };
    let symbols = ["", "AAPL", "MSFT", "a symbol of some length", "é"];
    add("sym", ColumnType::Utf8, &mut |row| symbols[row * 7 % 5].into());
    add("venue", ColumnType::Utf8, &mut |_| "XNAS".into());
    add("note", ColumnType::Utf8, &mut |row| {
        if row % 3 == 0 { Value::Null } else { format!("note {}", random()).into() }
    });
    add("raw", ColumnType::Bytes, &mut |row| vec![random() as u8; row % 5].into());
    add("price", ColumnType::F64, &mut |row| (100.0 + (row % 977) as f64 / 100.0).into());
    add("noise", ColumnType::F64, &mut |_| f64::from_bits(random()).into());
    add("gap", ColumnType::F64, &mut |row| if row % 2 == 0 { Value::Null } else { 0.5.into() });
    add("volume", ColumnType::I64, &mut |_| ((random() % 1000) as i64).into());
    add("wild", ColumnType::I64, &mut |_| (random() as i64).into());
    add("nothing", ColumnType::I64, &mut |_| Value::Null);
    add("buy", ColumnType::Bool, &mut |_| (random() % 2 == 0).into());
    add("halted", ColumnType::Bool, &mut |row| if row % 9 == 4 { Value::Null } else { false.into() });
    add("sent", ColumnType::Timestamp, &mut |row| Timestamp(1_700_000_000_000 + row as i64 * 1000).into());
    add("day", ColumnType::Date, &mut |row| crate::value::Date(19_000 + row as i32 / 50).into());
    add("lots", ColumnType::I32, &mut |row| {
        if row % 5 == 1 { Value::Null } else { Value::I32(row as i32 * 3) }
    });
    add("vol", ColumnType::F32, &mut |row| ((row % 311) as f32 / 100.0).into());
    add("hiss", ColumnType::F32, &mut |_| f32::from_bits(random() as u32).into());
    let timestamps = (0..rows as i64).map(|row| row / 3 * 1_000).collect();
    let seqs = Some((0..rows as u64).map(|row| row * 31 % 1_000).collect());
    Rows { timestamps, seqs, columns }
}

fn small() -> Rows {
    let mut columns = Columns::with_types([("sym", ColumnType::Utf8), ("px", ColumnType::F64)]).unwrap();
    columns.push_row(&["A".into(), 1.25.into()]).unwrap();
    columns.push_row(&["B".into(), Value::Null]).unwrap();
    columns.push_row(&["A".into(), 1.5.into()]).unwrap();
    Rows { timestamps: vec![10, 10, 20], seqs: Some(vec![5, 4, 6]), columns }
}

/// Where the footer of a segment starts.
fn footer_at(file: &[u8]) -> usize {
    let stamp = &file[file.len() - STAMP_BYTES..];
    u64::from_le_bytes(stamp[32..40].try_into().unwrap()) as usize
}

fn read_all(disk: &dyn Disk, info: Option<&SegmentInfo>) -> Result<Rows, StorageError> {
    Rows::read(&Segment::open(disk, "s", DB, info)?)
}

#[test]
fn rows_of_every_count_come_back() {
    for count in [0, 1, 2, 1023, 1024, 1025, GROUP_ROWS_MAX, GROUP_ROWS_MAX + 1] {
        let disk = SimulatedDisk::new();
        let rows = varied(count);
        let info = rows.write(&disk, "s", cut(GROUP_ROWS_MAX)).unwrap();
        let segment = Segment::open(&disk, "s", DB, Some(&info)).unwrap();
        assert_eq!(segment.groups(), count.div_ceil(GROUP_ROWS_MAX));
        assert_eq!((segment.rows(), segment.info()), (count as u64, &info));
        rows.assert_same(&Rows::read(&segment).unwrap());
        assert_eq!(segment.verify().unwrap(), info.bytes);
    }
}

#[test]
fn the_directory_says_what_groups_hold() {
    let disk = SimulatedDisk::new();
    let info = small().write(&disk, "s", cut(2)).unwrap();
    assert_eq!((info.rows, info.ts_min, info.ts_max), (3, 10, 20));
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    assert_eq!(
        segment.group(0),
        GroupInfo { rows: 2, clusters: 0, ts_min: 10, ts_max: 10, seq_min: 4, seq_max: 5 }
    );
    assert_eq!(
        segment.group(1),
        GroupInfo { rows: 1, clusters: 0, ts_min: 20, ts_max: 20, seq_min: 6, seq_max: 6 }
    );
    let price = segment.block(0, "px").unwrap();
    assert_eq!((price.rows, price.nulls), (2, 1));
    assert_eq!(price.zone, Some(Zone::F64 { min: 1.25, max: 1.25 }));
    let symbol = segment.block(0, "sym").unwrap();
    assert_eq!(symbol.zone, Some(Zone::Prefix { min: *b"A\0\0\0\0\0\0\0", max: *b"B\0\0\0\0\0\0\0" }));
    assert_eq!(segment.block(2, "px"), None);
    assert_eq!(segment.block(0, "nope"), None);
    assert_eq!(segment.column(0, "nope").unwrap(), None);
    assert!(matches!(segment.column(2, "px"), Err(StorageError::Refused { .. })));
    assert!(matches!(segment.timestamps(2), Err(StorageError::Refused { .. })));
    assert!(matches!(segment.seqs(usize::MAX), Err(StorageError::Refused { .. })));
}

#[test]
fn damage_in_one_block_leaves_the_others_readable() {
    let disk = SimulatedDisk::new();
    let rows = varied(100);
    rows.write(&disk, "s", cut(50)).unwrap();
    let mut bytes = disk.contents("s").unwrap();
    let block = bytes[..footer_at(&bytes)].windows(4).rposition(|window| window == b"note").unwrap();
    bytes[block] ^= 1;
    disk.overwrite("s", bytes);
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    for _ in 0..2 {
        let error = segment.column(1, "note").unwrap_err();
        let StorageError::Corrupt { file, offset, .. } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), offset % 64), ("s", 0));
        assert!(*offset <= block as u64);
    }
    assert!(segment.column(0, "note").is_ok());
    assert!(segment.column(1, "price").is_ok());
    assert!(matches!(segment.verify(), Err(StorageError::Corrupt { .. })));
}

/// Whoever is last to be thought of goes first, and one piece is done by nobody.
struct Backwards;

impl Workers for Backwards {
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            (1..count).rev().for_each(|number| drop(scope.spawn(move || work(number))));
        });
    }
}

#[test]
fn a_file_is_the_same_whoever_encodes_it() {
    let rows = varied(1_000);
    let of = |workers: &dyn Workers| {
        let disk = SimulatedDisk::new();
        let seqs = Seqs::Each(rows.seqs.as_ref().unwrap());
        let (timestamps, columns) = (&rows.timestamps, &rows.columns);
        let given =
            SegmentRows { timestamps, seqs, columns, keys: &keys(), by_key: true, after: 0, replaced: &[] };
        write(&disk, "s", DB, &given, cut(64), workers).unwrap();
        disk.contents("s").unwrap()
    };
    assert_eq!(of(&Backwards), of(&Alone));
}

/// A segment is written anew from groups of another, copied, and from rows; what is copied is compared with its checksums.
#[test]
fn groups_are_copied_or_written_anew() {
    for assigned in [false, true] {
        let disk = SimulatedDisk::new();
        let mut rows = varied(100);
        if assigned {
            rows.seqs = None;
        }
        rows.write(&disk, "s", cut(25)).unwrap();
        let segment = Segment::open(&disk, "s", DB, None).unwrap();
        let replaced = [Replaced { file: 3, seq: if assigned { 9 } else { 0 } }];
        let mut writer = SegmentWriter::like(&disk, "t", DB, &segment, &replaced).unwrap();
        writer.copy(&segment, 0, 9).unwrap();
        // Rows of the third group without the first of them.
        let seqs = rows.seqs.clone().unwrap_or(vec![9; 100]);
        let left = rows.columns.slice(51..75);
        writer.append(&rows.timestamps[51..75], &seqs[51..75], &left).unwrap();
        assert!(matches!(writer.copy(&segment, 1, 9), Err(StorageError::Refused { .. })), "earlier rows");
        assert!(matches!(writer.copy(&segment, 4, 9), Err(StorageError::Refused { .. })), "no such group");
        let other = Columns::new().with("x", Column::from(vec![0i64; 1])).unwrap();
        let refused = writer.append(&rows.timestamps[99..], &[9], &other);
        assert!(matches!(refused, Err(StorageError::Refused { .. })), "other columns");
        writer.copy(&segment, 3, 9).unwrap();
        let info = writer.finish().unwrap();
        let written = Segment::open(&disk, "t", DB, Some(&info)).unwrap();
        assert_eq!(written.verify().unwrap(), info.bytes);
        assert_eq!(
            (written.groups(), written.keys(), written.replaced()),
            (3, segment.keys(), &replaced[..])
        );
        let kept: Vec<u32> = (0..25).chain(51..100).collect();
        Rows {
            timestamps: kept.iter().map(|row| rows.timestamps[*row as usize]).collect(),
            seqs: Some(kept.iter().map(|row| seqs[*row as usize]).collect()),
            columns: rows.columns.take(&kept).unwrap(),
        }
        .assert_same(&Rows::read(&written).unwrap());
        let mut bytes = disk.contents("s").unwrap();
        let block = bytes[..footer_at(&bytes)].windows(4).rposition(|window| window == b"note").unwrap();
        bytes[block] ^= 1;
        disk.overwrite("s", bytes);
        let damaged = Segment::open(&disk, "s", DB, None).unwrap();
        let mut writer = SegmentWriter::like(&disk, "u", DB, &damaged, &[]).unwrap();
        writer.copy(&damaged, 2, 9).unwrap();
        assert!(matches!(writer.copy(&damaged, 3, 9), Err(StorageError::Corrupt { .. })));
        drop(writer);
        assert!(disk.files().iter().all(|file| !file.starts_with('u')), "{:?}", disk.files());
    }
}

#[test]
fn a_real_file_is_read_by_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path());
    disk.create_dir("segments/1").unwrap();
    let rows = varied(3_000);
    let seqs = Seqs::Each(rows.seqs.as_ref().unwrap());
    let (timestamps, columns) = (&rows.timestamps, &rows.columns);
    let given =
        SegmentRows { timestamps, seqs, columns, keys: &keys(), by_key: true, after: 0, replaced: &[] };
    let info = write_segment(&disk, "segments/1/1", DB, &given, &Alone).unwrap();
    let segment = Segment::open(&disk, "segments/1/1", DB, Some(&info)).unwrap();
    for ((name, _), is_key) in segment.schema().iter().zip(segment.keys()) {
        assert_eq!(*is_key, keys().contains(&**name), "{name}");
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| rows.assert_same(&Rows::read(&segment).unwrap()));
        }
    });
    assert_eq!(segment.verify().unwrap(), info.bytes);
}

#[test]
fn assigned_seqs_take_no_room() {
    let disk = SimulatedDisk::new();
    let rows = Rows { seqs: None, ..small() };
    rows.write(&disk, "s", cut(2)).unwrap();
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    assert_eq!(segment.seqs(0).unwrap(), None);
    assert_eq!((segment.group(0).seq_min, segment.group(0).seq_max), (0, 0));
    rows.assert_same(&Rows::read(&segment).unwrap());
    assert!(segment.verify().is_ok());
}

#[test]
fn extreme_seqs_and_times_come_back() {
    let disk = SimulatedDisk::new();
    let rows = Rows {
        timestamps: vec![i64::MIN, -1, 0, i64::MAX],
        seqs: Some(vec![u64::MAX, 0, 1 << 63, 1]),
        columns: Columns::new(),
    };
    rows.write(&disk, "s", cut(3)).unwrap();
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    rows.assert_same(&Rows::read(&segment).unwrap());
    assert_eq!((segment.group(0).seq_min, segment.group(0).seq_max), (0, u64::MAX));
    assert!(segment.verify().is_ok());
}

#[test]
fn groups_end_before_their_text_is_too_long() {
    let disk = SimulatedDisk::new();
    let texts: Column = ["aaaa", "bbbb", "cccccccc", "", "dd", "eeeeee"].into_iter().collect();
    let columns = Columns::new().with("text", texts).unwrap();
    let rows = Rows { timestamps: vec![1; 6], seqs: None, columns };
    rows.write(&disk, "s", Cut { rows: 4, text_bytes: 8, ..cut(4) }).unwrap();
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    let counts: Vec<usize> = (0..segment.groups()).map(|group| segment.group(group).rows).collect();
    assert_eq!(counts, [2, 2, 2]);
    rows.assert_same(&Rows::read(&segment).unwrap());
    let refused = rows.write(&disk, "t", Cut { rows: 4, text_bytes: 7, ..cut(4) });
    assert!(matches!(refused, Err(StorageError::TooLarge { found: 8, limit: 7, .. })));
    assert_eq!(disk.files(), ["s"], "a refused segment leaves nothing");
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let disk = SimulatedDisk::new();
    let refuse = |rows: Rows| {
        let error = rows.write(&disk, "s", cut(10)).unwrap_err();
        assert!(disk.files().is_empty());
        error
    };
    assert!(matches!(refuse(Rows { timestamps: vec![1, 3, 2], ..small() }), StorageError::Refused { .. }));
    assert!(matches!(refuse(Rows { timestamps: vec![1, 2], ..small() }), StorageError::Refused { .. }));
    assert!(matches!(refuse(Rows { seqs: Some(vec![1]), ..small() }), StorageError::Refused { .. }));
    let named = |name: &str| Rows {
        columns: Columns::new().with(name, Column::from(vec![1i64, 2, 3])).unwrap(),
        ..small()
    };
    assert!(matches!(refuse(named("")), StorageError::Refused { .. }));
    assert!(matches!(refuse(named(&"x".repeat(256))), StorageError::TooLarge { found: 256, .. }));
    assert!(named(&"x".repeat(255)).write(&disk, "s", cut(10)).is_ok());
}

#[test]
fn the_cheapest_encoding_is_taken() {
    let disk = SimulatedDisk::new();
    varied(5_000).write(&disk, "s", cut(GROUP_ROWS_MAX)).unwrap();
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    let taken = |name: &str| segment.block(0, name).unwrap().encoding;
    for (name, encoding) in [
        ("sym", Encoding::Dictionary),
        ("venue", Encoding::Constant),
        ("note", Encoding::Symbols),
        ("price", Encoding::Vectors),
        ("noise", Encoding::Vectors),
        ("gap", Encoding::Constant),
        ("volume", Encoding::Vectors),
        ("wild", Encoding::Vectors),
        ("nothing", Encoding::Null),
        ("buy", Encoding::Bitmap),
        ("halted", Encoding::Constant),
        ("sent", Encoding::Vectors),
        ("day", Encoding::Vectors),
    ] {
        assert_eq!(taken(name), encoding, "{name}");
    }
}

/// Rows whose texts have no equals: URLs that are alike, some of them null, bytes that are alike in part, and files that are much
/// like those just before them.
fn alike(rows: usize) -> Rows {
    let types = [
        ("sym", ColumnType::Utf8),
        ("url", ColumnType::Utf8),
        ("raw", ColumnType::Bytes),
        ("file", ColumnType::Utf8),
    ];
    let mut columns = Columns::with_types(types).unwrap();
    for row in 0..rows {
        let mixed = (row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let url = format!("https://example.com/orders/{:06x}?page={}", mixed >> 40, row % 7);
        let url = if row % 11 == 5 { Value::Null } else { url.into() };
        let raw = format!("{mixed:016x} is filled\u{e9}\0").into_bytes();
        let folder = (row as u64 / 50 + 9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let file = format!("/usr/lib/{folder:016x}{:016x}/module-{row}.so", folder.rotate_left(29) ^ 77);
        columns.push_row(&[["A", "BB"][row % 2].into(), url, raw.into(), file.into()]).unwrap();
    }
    let timestamps = (0..rows as i64).map(|row| row / 3 * 10).collect();
    Rows { timestamps, seqs: Some((0..rows as u64).collect()), columns }
}

#[test]
fn texts_that_are_alike_are_compressed() {
    let bytes = |rows: &Rows, name: &str| match rows.columns.column(name).unwrap().values() {
        Values::Utf8(texts) | Values::Bytes(texts) => texts.bytes().len() as u64,
        _ => panic!("{name}"),
    };
    for (count, group_rows) in [(200, 100), (5_000, 2_100), (12_000, GROUP_ROWS_MAX)] {
        let (disk, rows) = (SimulatedDisk::new(), alike(count));
        let info = rows.write(&disk, "s", cut(group_rows)).unwrap();
        let segment = Segment::open(&disk, "s", DB, Some(&info)).unwrap();
        for (name, encoding) in
            [("url", Encoding::Symbols), ("raw", Encoding::Symbols), ("file", Encoding::Lz4)]
        {
            let block = segment.block(0, name).unwrap();
            assert_eq!(block.encoding, encoding, "{name} of {count}");
            let plain = bytes(&rows, name) * block.rows as u64 / count as u64 + 4 * block.rows as u64;
            assert!(block.bytes * 4 < plain * 3, "{name}: {} of {plain}", block.bytes);
            assert_eq!(segment.dictionary(0, name).unwrap(), None);
            assert!(is_corrupt(segment.codes(0, name, 0..1)));
        }
        rows.assert_same(&Rows::read(&segment).unwrap());
        rows.assert_parts(&segment);
        assert_eq!(segment.verify().unwrap(), info.bytes);
    }
}

/// Files say version 3 where texts are compressed, 2 where groups may be by key, else 1, as programs of these versions wrote them.
#[test]
fn the_format_version_is_the_least_that_will_do() {
    let version = |rows: &Rows, by_key| {
        let disk = SimulatedDisk::new();
        let seqs = Seqs::Assigned;
        let (timestamps, columns) = (&rows.timestamps, &rows.columns);
        let given = SegmentRows { timestamps, seqs, columns, keys: &keys(), by_key, after: 0, replaced: &[] };
        write(&disk, "s", DB, &given, cut(GROUP_ROWS_MAX), &Alone).unwrap();
        let file = disk.contents("s").unwrap();
        (u16::from_le_bytes([file[file.len() - 56], file[file.len() - 55]]), file)
    };
    assert_eq!(version(&small(), false).0, 1);
    assert_eq!(version(&keyed(300), false).0, 1);
    assert_eq!(version(&keyed(300), true).0, 2);
    assert_eq!(version(&alike(300), true).0, 3);
    let (found, file) = version(&alike(300), false);
    assert_eq!(found, 3);
    // Who knows of no compressed texts asks for a newer program.
    let stamp = &file[file.len() - STAMP_BYTES..];
    let refused = Stamp::decode(stamp, 0, BY_KEY, "s", Some(DB)).unwrap_err();
    assert!(matches!(refused, StorageError::Version { found: 3, supported: 2, .. }), "{refused}");
    // No file of an earlier version has what a later one brought.
    let restamped = |file: &[u8], kind| {
        let (index, end) = (footer_at(file), file.len() - STAMP_BYTES);
        let stamp = Stamp::of(&file[index..end], index as u64, DB).encode(kind, "s");
        let disk = SimulatedDisk::new();
        disk.overwrite("s", [&file[..end], &stamp].concat());
        Segment::open(&disk, "s", DB, None)
    };
    assert!(restamped(&file, SEGMENT).is_ok());
    assert!(is_corrupt(restamped(&file, BY_KEY)) && is_corrupt(restamped(&file, IN_TIME)));
    let (_, by_key) = version(&keyed(300), true);
    assert!(restamped(&by_key, SEGMENT).is_ok() && is_corrupt(restamped(&by_key, IN_TIME)));
}

/// Groups of compressed texts are copied as they are into a segment written anew, which says so by its version.
#[test]
fn groups_of_compressed_texts_are_copied() {
    let (disk, rows) = (SimulatedDisk::new(), alike(400));
    rows.write(&disk, "s", cut(200)).unwrap();
    let segment = Segment::open(&disk, "s", DB, None).unwrap();
    let mut writer = SegmentWriter::like(&disk, "t", DB, &segment, &[]).unwrap();
    writer.copy(&segment, 0, 0).unwrap();
    let seqs = rows.seqs.clone().unwrap();
    writer.append(&rows.timestamps[390..], &seqs[390..], &rows.columns.slice(390..400)).unwrap();
    let info = writer.finish().unwrap();
    let written = Segment::open(&disk, "t", DB, Some(&info)).unwrap();
    assert_eq!(written.block(0, "url").unwrap().encoding, Encoding::Symbols);
    assert_eq!(written.block(0, "file").unwrap().encoding, Encoding::Lz4);
    assert_eq!(written.block(1, "url").unwrap().encoding, Encoding::Plain);
    assert_eq!(written.verify().unwrap(), info.bytes);
}

#[test]
fn another_segment_under_the_name_is_refused() {
    let disk = SimulatedDisk::new();
    let info = small().write(&disk, "s", cut(2)).unwrap();
    varied(3).write(&disk, "t", cut(2)).unwrap();
    assert!(matches!(Segment::open(&disk, "s", [0; 16], None), Err(StorageError::ForeignDatabase { .. })));
    let swapped = disk.contents("s").unwrap();
    disk.overwrite("s", disk.contents("t").unwrap());
    disk.overwrite("t", swapped);
    assert!(matches!(Segment::open(&disk, "s", DB, None), Err(StorageError::Corrupt { .. })));
    assert!(matches!(Segment::open(&disk, "t", DB, None), Err(StorageError::Corrupt { .. })));
    let other = SimulatedDisk::new();
    Rows { seqs: Some(vec![5, 4, 7]), ..small() }.write(&other, "s", cut(2)).unwrap();
    assert!(Segment::open(&other, "s", DB, None).is_ok());
    assert!(matches!(Segment::open(&other, "s", DB, Some(&info)), Err(StorageError::Corrupt { .. })));
}

#[test]
fn corrupt_twins_are_refused_or_the_same() {
    let disk = SimulatedDisk::new();
    let info = small().write(&disk, "s", cut(2)).unwrap();
    let sound = disk.contents("s").unwrap();
    for (what, twin) in twin::twins(&sound) {
        let same_bytes = twin == sound;
        disk.overwrite("s", twin);
        for expected in [None, Some(&info)] {
            let Ok(segment) = Segment::open(&disk, "s", DB, expected) else { continue };
            if let Ok(rows) = Rows::read(&segment) {
                rows.assert_same(&small());
                assert!(same_bytes || segment.verify().is_err(), "{what} is not seen by verify");
            }
        }
    }
}

/// A block of compressed texts whose bytes were changed under right checksums is damage, or other texts in as many rows.
#[test]
fn corrupt_twins_of_compressed_texts_are_refused_or_texts() {
    for (name, encoding) in [("url", Encoding::Symbols), ("file", Encoding::Lz4)] {
        let column = alike(120).columns.column(name).unwrap().clone();
        let encoded = encode(&column);
        assert_eq!(encoded.shape.encoding, encoding);
        let (mut refused, mut other) = (0, 0);
        for (what, twin) in twin::twins(&encoded.bytes) {
            let Ok(read) = decode(&twin, encoded.shape) else {
                refused += 1;
                continue;
            };
            assert_eq!((read.len(), read.null_count()), (120, encoded.shape.nulls), "{what}");
            other += usize::from(!same(&read, &column));
        }
        assert!(refused > 1_000 && other > 0, "{refused} {other}");
    }
}

#[test]
fn a_footer_that_lies_under_a_right_checksum_does_not_panic() {
    let disk = SimulatedDisk::new();
    let info = small().write(&disk, "s", cut(2)).unwrap();
    let sound = disk.contents("s").unwrap();
    let (index, end) = (footer_at(&sound), sound.len() - STAMP_BYTES);
    let mut opened = 0;
    for at in index..end {
        for mask in [0x01, 0x02, 0x04, 0x40, 0x80, 0xff] {
            let mut twin = sound[..end].to_vec();
            twin[at] ^= mask;
            twin.extend_from_slice(&Stamp::of(&twin[index..], index as u64, DB).encode(SEGMENT, "s"));
            disk.overwrite("s", twin);
            assert!(Segment::open(&disk, "s", DB, Some(&info)).is_err());
            let Ok(segment) = Segment::open(&disk, "s", DB, None) else { continue };
            opened += 1;
            let _ = Rows::read(&segment);
            let _ = segment.verify();
        }
    }
    assert!(opened > 0, "changed names, for one, cannot be seen");
}

#[test]
fn a_stop_at_any_call_leaves_all_or_nothing() {
    let rows = varied(40_000);
    twin::stop_everywhere(
        |disk| rows.write(disk, "s", cut(10_000)).map(|_| ()),
        |disk, finished| match read_all(disk, None) {
            Ok(read) => rows.assert_same(&read),
            Err(error) => assert!(matches!(error, StorageError::Missing { .. }) && !finished, "{error}"),
        },
    );
}

fn values_of(column_type: ColumnType) -> BoxedStrategy<Value> {
    match column_type {
        ColumnType::Bool => any::<bool>().prop_map(Value::from).boxed(),
        ColumnType::I64 => prop_oneof![
            any::<i64>(),
            -5i64..5,
            Just(i64::MIN),
            Just(i64::MAX),
            (0i64..9).prop_map(|n| 1_000_000 + n)
        ]
        .prop_map(Value::from)
        .boxed(),
        ColumnType::F64 => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-999i32..999).prop_map(|n| f64::from(n) / 100.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::from_bits(0xfff0_0000_0000_0001)),
            Just(f64::INFINITY),
        ]
        .prop_map(Value::from)
        .boxed(),
        ColumnType::Utf8 => {
            prop_oneof![Just(String::new()), "[a-c]{0,2}", "\\PC{0,12}"].prop_map(Value::from).boxed()
        }
        ColumnType::Bytes => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Value::from).boxed(),
        ColumnType::Timestamp => {
            prop_oneof![any::<i64>(), 0i64..100].prop_map(|ns| Timestamp(ns).into()).boxed()
        }
        ColumnType::Date => prop_oneof![any::<i32>(), 0i32..100, Just(i32::MIN), Just(i32::MAX)]
            .prop_map(|day| crate::value::Date(day).into())
            .boxed(),
        ColumnType::I32 => {
            prop_oneof![any::<i32>(), -5i32..5, Just(i32::MIN), Just(i32::MAX)].prop_map(Value::I32).boxed()
        }
        ColumnType::F32 => prop_oneof![
            any::<u32>().prop_map(f32::from_bits),
            (-999i16..999).prop_map(|n| f32::from(n) / 100.0),
            Just(-0.0),
            Just(f32::NAN),
            Just(f32::from_bits(0xff80_0001)),
        ]
        .prop_map(Value::from)
        .boxed(),
    }
}

/// Columns of any type, with nulls in some, and with runs of one value in some.
fn any_column() -> impl Strategy<Value = Column> {
    let column_type = proptest::sample::select(ColumnType::ALL.to_vec());
    let rows = prop_oneof![0usize..40, Just(1023usize), Just(1024), Just(1025)];
    (column_type, rows, 0u32..3, any::<bool>()).prop_flat_map(|(column_type, rows, nulls, few)| {
        let value = values_of(column_type);
        let choices = proptest::collection::vec(value, if few { 1..3 } else { 30..60 });
        let picks = proptest::collection::vec((any::<proptest::sample::Index>(), 0u32..4), rows);
        (choices, picks).prop_map(move |(choices, picks)| {
            let mut column = Column::new(column_type);
            for (pick, null) in picks {
                let value = if null < nulls { &Value::Null } else { pick.get(&choices) };
                column.push(value).unwrap();
            }
            column
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_column_comes_back(column in any_column()) {
        let encoded = encode(&column);
        let back = decode(&encoded.bytes, encoded.shape).unwrap();
        prop_assert!(same(&back, &column), "{:?}", encoded.shape);
        prop_assert!(Zone::same(&Zone::of(&back), &encoded.zone));
    }

    #[test]
    fn damaged_blocks_decode_or_are_damage(
        column in any_column(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let encoded = encode(&column);
        if encoded.bytes.is_empty() {
            return Ok(());
        }
        let mut twin = encoded.bytes.clone();
        twin[at.index(encoded.bytes.len())] = byte;
        if let Ok(read) = decode(&twin, encoded.shape) {
            prop_assert_eq!(read.len(), column.len());
        }
        let _ = decode(&twin[..cut.index(twin.len())], encoded.shape);
        let range = cut.index(column.len())..column.len();
        let at: Vec<u32> = range.clone().step_by(7).map(|row| row as u32).collect();
        if let Ok(read) = decode_at(&twin, encoded.shape, &at) {
            prop_assert_eq!(read.len(), at.len());
        }
        if let Ok(read) = decode_rows(&twin, encoded.shape, range.clone()) {
            prop_assert_eq!(read.len(), range.len());
        }
        if let (Ok(Some(distinct)), Ok(codes)) =
            (codec::dictionary(&twin, encoded.shape), codec::codes(&twin, encoded.shape, range))
        {
            prop_assert!(codes.iter().all(|code| (*code as usize) < distinct.len()));
        }
    }

    #[test]
    fn some_rows_are_those_of_the_whole(
        column in any_column(),
        rows in 1usize..3_000,
        ends in (any::<proptest::sample::Index>(), any::<proptest::sample::Index>()),
    ) {
        prop_assume!(!column.is_empty());
        let column = column.take(&(0..rows as u32).map(|row| row % column.len() as u32).collect::<Vec<_>>()).unwrap();
        let ends = (ends.0.index(rows + 1), ends.1.index(rows + 1));
        let range = ends.0.min(ends.1)..ends.0.max(ends.1);
        let encoded = encode(&column);
        let some = decode_rows(&encoded.bytes, encoded.shape, range.clone()).unwrap();
        prop_assert!(same(&some, &column.slice(range.clone())), "{:?}", encoded.shape);
        let distinct = codec::dictionary(&encoded.bytes, encoded.shape).unwrap();
        let is_coded = matches!(encoded.shape.encoding, Encoding::Dictionary | Encoding::Constant);
        let is_text = matches!(column.values(), Values::Utf8(_) | Values::Bytes(_));
        prop_assert_eq!(distinct.is_some(), is_coded && is_text && encoded.shape.nulls == 0);
        if let Some(distinct) = distinct {
            let codes = codec::codes(&encoded.bytes, encoded.shape, range.clone()).unwrap();
            prop_assert!(same(&distinct.take(&codes).unwrap(), &column.slice(range)));
        }
        let at: Vec<u32> = (ends.0.min(ends.1)..ends.0.max(ends.1)).step_by(1 + ends.0 % 40).map(|row| row as u32).collect();
        let single = decode_at(&encoded.bytes, encoded.shape, &at).unwrap();
        prop_assert!(same(&single, &column.take(&at).unwrap()), "{:?}", encoded.shape);
        prop_assert!(decode_at(&encoded.bytes, encoded.shape, &[rows as u32]).is_err());
        let beyond = rows..rows + 1;
        prop_assert!(decode_rows(&encoded.bytes, encoded.shape, beyond).is_err());
    }

    #[test]
    fn any_bytes_under_any_shape_decode_or_are_damage(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..9, any::<u8>()], 0..120),
        column_type in proptest::sample::select(ColumnType::ALL.to_vec()),
        encoding in proptest::sample::select(Encoding::ALL.to_vec()),
        rows in prop_oneof![0usize..20, 0usize..3000, Just(usize::MAX)],
        nulls in prop_oneof![Just(0usize), 0usize..20],
    ) {
        if let Ok(column) = decode(&bytes, Shape { column_type, encoding, rows, nulls }) {
            prop_assert_eq!((column.len(), column.null_count()), (rows, nulls));
            prop_assert_eq!(column.column_type(), column_type);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_segment_comes_back(
        times in proptest::collection::vec(-50i64..50, 0..160),
        seqs in proptest::option::of(any::<u64>()),
        columns in proptest::collection::vec((any_column(), any::<proptest::sample::Index>()), 0..5),
        distinct in 1usize..4,
        group_rows in 1usize..150,
    ) {
        let mut timestamps = times;
        timestamps.sort_unstable();
        let rows = timestamps.len();
        let mut given = Columns::new();
        for (i, (column, pick)) in columns.iter().enumerate() {
            let column = if column.is_empty() {
                Column::nulls(column.column_type(), rows)
            } else {
                // Two of few values, which may be keys.
                let values = if i < 2 { column.len().min(distinct) } else { column.len() };
                column.take(&(0..rows).map(|row| ((row + pick.index(column.len())) % values) as u32).collect::<Vec<_>>()).unwrap()
            };
            let name = ["sym", "day"].get(i).map_or(format!("c{i}"), |name| name.to_string());
            given.insert(name, column).unwrap();
        }
        let seqs = seqs.map(|seed| (0..rows as u64).map(|row| seed.wrapping_mul(row + 1)).collect());
        let rows = Rows { timestamps, seqs, columns: given };
        let disk = SimulatedDisk::new();
        let info = rows.write(&disk, "s", cut(group_rows)).unwrap();
        let segment = Segment::open(&disk, "s", DB, Some(&info)).unwrap();
        rows.assert_same(&Rows::read(&segment).unwrap());
        rows.assert_parts(&segment);
        prop_assert_eq!(segment.verify().unwrap(), info.bytes);
    }
}

/// Rows of three keys and of a null, by turns of uneven length; the prices of each go their own way.
fn keyed(rows: usize) -> Rows {
    let of = |row: usize| [0, 1, 1, 2, 0, 3, 1][row % 7];
    let mut columns = Columns::new();
    let syms: Vec<Option<&str>> =
        (0..rows).map(|row| [Some("a"), Some("bb"), None, Some("")][of(row)]).collect();
    let mut sym = Column::new(ColumnType::Utf8);
    syms.iter().for_each(|text| sym.push(&Value::from(text.map(str::to_string))).unwrap());
    columns.insert("sym", sym).unwrap();
    let price = |row: usize| (1_000 * of(row) + row % 13) as f64 / 100.0;
    columns.insert("px", Column::from((0..rows).map(price).collect::<Vec<_>>())).unwrap();
    let sizes = (0..rows).map(|row| (row as i64 * 7_919) % 1_000).collect::<Vec<i64>>();
    columns.insert("size", Column::from(sizes)).unwrap();
    let venues: Column = (0..rows).map(|row| ["X", "Y"][row % 2]).collect::<Vec<_>>().iter().collect();
    columns.insert("venue", venues).unwrap();
    let mut gap = Column::new(ColumnType::Bool);
    (0..rows)
        .for_each(|row| gap.push(&if row % 3 == 0 { Value::Null } else { (row % 2 == 0).into() }).unwrap());
    columns.insert("gap", gap).unwrap();
    let seqs = Some((0..rows as u64).map(|row| row / 3 + 5).collect());
    Rows { timestamps: (0..rows as i64).map(|row| row / 4 * 10).collect(), seqs, columns }
}

impl Rows {
    /// What is read of each key of each group, and of pieces and single rows of it, is what the rows say.
    fn assert_parts(&self, segment: &Segment) {
        let mut start = 0;
        for group in 0..segment.groups() {
            let info = segment.group(group);
            let rows = start..start + info.rows;
            start = rows.end;
            let keys: Vec<(&Arc<str>, Column)> = segment
                .schema()
                .iter()
                .filter_map(|(name, _)| Some((name, segment.cluster_keys(group, name).unwrap()?)))
                .collect();
            assert_eq!(keys.is_empty(), info.clusters == 0);
            let mut found = 0;
            for cluster in 0..info.clusters {
                let is_of = |row: &usize| {
                    keys.iter().all(|(name, keys)| {
                        let (all, row) = (self.columns.column(name).unwrap(), [*row as u32]);
                        same(&all.take(&row).unwrap(), &keys.take(&[cluster as u32]).unwrap())
                    })
                };
                let of_key: Vec<u32> = rows.clone().filter(is_of).map(|row| row as u32).collect();
                found += of_key.len();
                let part = segment.part(group, Some(cluster)).unwrap();
                assert_eq!((part.rows(), part.is_end_to_end()), (of_key.len(), true));
                self.assert_part(segment, &part, &of_key);
            }
            assert_eq!(found, if info.clusters > 0 { info.rows } else { 0 });
            let all: Vec<u32> = rows.map(|row| row as u32).collect();
            self.assert_part(segment, &segment.part(group, None).unwrap(), &all);
            assert!(segment.part(group, Some(info.clusters)).is_err());
            self.assert_as_stored(segment, group);
        }
        assert!(segment.part(segment.groups(), None).is_err());
    }

    /// Rows as they are stored are those of each key, one key after the other, and of the group where there is none.
    fn assert_as_stored(&self, segment: &Segment, group: usize) {
        let part = segment.part_as_stored(group).unwrap();
        let n = part.rows();
        for (name, all) in self.columns.iter() {
            let mut expected = Column::new(all.column_type());
            let clusters = segment.group(group).clusters;
            for cluster in (0..clusters).map(Some).chain((clusters == 0).then_some(None)) {
                let of_key = segment.part(group, cluster).unwrap();
                let read = segment.column_in(&of_key, name, 0..of_key.rows()).unwrap().unwrap();
                expected.extend_range(&read, 0..read.len()).unwrap();
            }
            for piece in [0..n, n / 3..n / 2] {
                let at: Vec<u32> = piece.clone().step_by(3).map(|row| row as u32).collect();
                let read = segment.column_in(&part, name, piece.clone()).unwrap().unwrap();
                assert!(same(&expected.slice(piece.clone()), &read), "{name} {piece:?}");
                let single = segment.column_at_in(&part, name, &at).unwrap().unwrap();
                assert!(same(&expected.take(&at).unwrap(), &single), "{name} {at:?}");
                if let Some(distinct) = segment.dictionary(group, name).unwrap() {
                    let codes = segment.codes_in(&part, name, piece.clone()).unwrap();
                    assert!(same(&expected.slice(piece), &distinct.take(&codes).unwrap()), "{name}");
                }
            }
        }
    }

    fn assert_part(&self, segment: &Segment, part: &Part, rows: &[u32]) {
        let n = rows.len();
        for piece in [0..n, 0..n / 2, n / 3..n, n / 2..n / 2 + n.min(1), n..n] {
            let of_piece = &rows[piece.clone()];
            let at: Vec<u32> = piece.clone().step_by(3).map(|row| row as u32).collect();
            let picked: Vec<u32> = at.iter().map(|row| rows[*row as usize]).collect();
            let times: Vec<i64> = of_piece.iter().map(|row| self.timestamps[*row as usize]).collect();
            assert_eq!(segment.timestamps_in(part, piece.clone()).unwrap(), times);
            let seqs =
                self.seqs.as_ref().map(|seqs| of_piece.iter().map(|row| seqs[*row as usize]).collect());
            assert_eq!(segment.seqs_in(part, piece.clone()).unwrap(), seqs);
            for (name, all) in self.columns.iter() {
                let expected = all.take(of_piece).unwrap();
                let read = segment.column_in(part, name, piece.clone()).unwrap().unwrap();
                assert!(same(&expected, &read), "{name} {piece:?}");
                let single = segment.column_at_in(part, name, &at).unwrap().unwrap();
                assert!(same(&all.take(&picked).unwrap(), &single), "{name} {at:?}");
                let distinct = segment.dictionary(part.group(), name).unwrap();
                if let Some(distinct) = distinct {
                    let codes = segment.codes_in(part, name, piece.clone()).unwrap();
                    assert!(same(&expected, &distinct.take(&codes).unwrap()), "{name} {piece:?}");
                    let texts: HashSet<_> = (0..distinct.len()).map(|i| distinct.str_at(i)).collect();
                    assert!(distinct.str_at(0).is_none() || texts.len() == distinct.len());
                }
            }
            assert!(segment.timestamps_in(part, n..n + 1).is_err());
            assert!(
                segment.column_at_in(part, "px", &[n as u32]).is_err() || self.columns.column("px").is_none()
            );
        }
    }
}

#[test]
fn rows_lie_by_key_and_come_in_time_order_or_key_by_key() {
    // Vectors that keys share, vectors of their own, and several of these.
    for (count, group_rows, clusters) in
        [(15, 100, 0), (63, 100, 0), (64, 100, 4), (700, 300, 4), (9_000, 8_000, 4)]
    {
        let (disk, rows) = (SimulatedDisk::new(), keyed(count));
        let info = rows.write(&disk, "s", cut(group_rows)).unwrap();
        let segment = Segment::open(&disk, "s", DB, Some(&info)).unwrap();
        assert_eq!(segment.group(0).clusters, clusters, "{count} rows");
        rows.assert_same(&Rows::read(&segment).unwrap());
        rows.assert_parts(&segment);
        assert_eq!(segment.verify().unwrap(), info.bytes);
    }
    // Prices that go their own ways are written in fewer bits beside their like.
    let bytes = |rows: &Rows| {
        let disk = SimulatedDisk::new();
        rows.write(&disk, "s", cut(GROUP_ROWS_MAX)).unwrap();
        Segment::open(&disk, "s", DB, None).unwrap().block(0, "px").unwrap().bytes
    };
    let by_key = keyed(30_000);
    let mut by_time = keyed(30_000);
    by_time.columns.insert("key", by_time.columns.column("sym").unwrap().clone()).unwrap();
    by_time.columns.remove("sym");
    assert!(bytes(&by_key) * 4 < bytes(&by_time) * 3, "{} {}", bytes(&by_key), bytes(&by_time));
}

/// Orders and sizes of clusters that lie under right checksums.
#[test]
fn clusters_that_lie_are_refused() {
    let (disk, rows) = (SimulatedDisk::new(), keyed(7 * 16));
    rows.write(&disk, "s", cut(GROUP_ROWS_MAX)).unwrap();
    let sound = disk.contents("s").unwrap();
    let (index, end) = (footer_at(&sound), sound.len() - STAMP_BYTES);
    // With block `part` written anew, all checksums right.
    let forged = |part: usize, numbers: &[i32]| {
        let mut footer = Footer::decode(&sound[index..end], index as u64).unwrap();
        let encoded = encode(&Column::from(numbers.to_vec()));
        assert_eq!(encoded.shape.rows, footer.blocks[part].shape.rows);
        let mut file = Vec::new();
        for (number, block) in footer.blocks.iter_mut().enumerate() {
            let bytes = &sound[block.offset as usize..(block.offset + block.length) as usize];
            let bytes = if number == part { &encoded.bytes } else { bytes };
            if number == part {
                (block.shape, block.zone) = (encoded.shape, encoded.zone);
            }
            (block.offset, block.length) = (file.len() as u64, bytes.len() as u64);
            block.crc = crc32fast::hash(bytes);
            file.extend_from_slice(bytes);
            file.resize(file.len().next_multiple_of(64), 0);
        }
        let (footer, at) = (footer.encode(), file.len() as u64);
        file.extend_from_slice(&footer);
        file.extend_from_slice(&Stamp::of(&footer, at, DB).encode(SEGMENT, "s"));
        let disk = SimulatedDisk::new();
        disk.overwrite("s", file);
        Segment::open(&disk, "s", DB, None).unwrap()
    };
    let numbers = |part: usize| {
        let footer = Footer::decode(&sound[index..end], index as u64).unwrap();
        let block = &footer.blocks[part];
        let bytes = &sound[block.offset as usize..(block.offset + block.length) as usize];
        let Values::I32(numbers) = decode(bytes, block.shape).unwrap().into_parts().0 else { panic!() };
        numbers
    };
    let (order, sizes) = (numbers(2), numbers(3));
    assert_eq!(sizes, [32, 48, 16, 16]);
    assert!(forged(2, &order).verify().is_ok());
    let mut swapped = order.clone();
    swapped.swap(11, 12);
    // Rows of two times change their places.
    let segment = forged(2, &swapped);
    assert!(is_corrupt(segment.timestamps(0)) && is_corrupt(segment.verify()));
    let mut too_often = order.clone();
    too_often[0] = 1;
    for wrong in
        [too_often, [vec![4], order[1..].to_vec()].concat(), [vec![-1], order[1..].to_vec()].concat()]
    {
        let segment = forged(2, &wrong);
        assert!(is_corrupt(segment.timestamps(0)) && is_corrupt(segment.column(0, "px")));
        assert!(is_corrupt(segment.verify()));
        // One key needs no order.
        assert!(segment.part(0, Some(1)).is_ok());
    }
    for wrong in [[32, 48, 16, 15], [32, 48, 32, 0], [32, 48, -1, 33], [i32::MAX, i32::MAX, 1, 1]] {
        let segment = forged(3, &wrong);
        assert!(is_corrupt(segment.timestamps(0)) && is_corrupt(segment.part(0, Some(0))), "{wrong:?}");
        assert!(is_corrupt(segment.column(0, "px")) && is_corrupt(segment.verify()), "{wrong:?}");
    }
    // What no reader of rows needs.
    let other_names: Vec<i32> = order.iter().map(|code| [1, 0, 2, 3][*code as usize]).collect();
    assert!(is_corrupt(forged(2, &other_names).verify()));
    let moved = forged(3, &[31, 49, 16, 16]);
    assert!(is_corrupt(moved.timestamps(0)) && is_corrupt(moved.verify()));
}

#[test]
fn short_blocks_do_not_become_long_columns() {
    let shape = |column_type, encoding| Shape { column_type, encoding, rows: GROUP_ROWS_MAX, nulls: 0 };
    let constant = vec![b'x'; BLOCK_BYTES_MAX / GROUP_ROWS_MAX + 1];
    let refused = decode(&constant, shape(ColumnType::Utf8, Encoding::Constant));
    assert!(refused.is_err(), "one text for all rows would pass the limit of a block");
    let of_constant = shape(ColumnType::Utf8, Encoding::Constant);
    assert!(decode_rows(&constant, of_constant, 0..8).is_err());
    assert!(codec::dictionary(&constant, of_constant).is_err());
    assert!(codec::codes(&constant, of_constant, 0..8).is_err());
    let strings = Strings::from_parts(vec![0, 1 << 20], vec![b'x'; 1 << 20]).unwrap();
    let mut dictionary = Vec::new();
    dictionary.extend_from_slice(&1u32.to_le_bytes());
    dictionary.extend_from_slice(&0u32.to_le_bytes());
    dictionary.extend_from_slice(&(1u32 << 20).to_le_bytes());
    strings.offsets().iter().for_each(|offset| dictionary.extend_from_slice(&offset.to_le_bytes()));
    dictionary.extend_from_slice(strings.bytes());
    let one = Shape { rows: 1, ..shape(ColumnType::Bytes, Encoding::Dictionary) };
    assert_eq!(decode(&dictionary, one).unwrap().values(), &Values::Bytes(strings));
    let of_dictionary = shape(ColumnType::Bytes, Encoding::Dictionary);
    assert!(decode(&dictionary, of_dictionary).is_err());
    let fits = BLOCK_BYTES_MAX >> 20;
    assert_eq!(codec::codes(&dictionary, of_dictionary, 0..fits).unwrap(), vec![0; fits]);
    assert!(codec::codes(&dictionary, of_dictionary, 7..8 + fits).is_err());
    assert!(decode_rows(&dictionary, of_dictionary, 7..8 + fits).is_err());
}

/// A segment of one group of four rows whose block `part` holds `column` in place of what was written, or
/// whose footer was changed, all checksums right.
fn forged(part: usize, column: Option<Column>, change: impl Fn(&mut Footer)) -> Segment {
    let disk = SimulatedDisk::new();
    let columns = Columns::new().with("px", Column::from(vec![1.5, f64::MAX, 0.1, -7.0])).unwrap();
    let rows = Rows { timestamps: vec![10, 20, 25, 30], seqs: Some(vec![3, 9, 4, 5]), columns };
    rows.write(&disk, "s", cut(4)).unwrap();
    let mut file = disk.contents("s").unwrap();
    let (index, end) = (footer_at(&file), file.len() - STAMP_BYTES);
    let mut footer = Footer::decode(&file[index..end], index as u64).unwrap();
    if let Some(column) = column {
        let encoded = encode(&column);
        let block = &mut footer.blocks[part];
        assert_eq!((encoded.bytes.len() as u64, encoded.shape), (block.length, block.shape));
        let at = block.offset as usize;
        file[at..at + encoded.bytes.len()].copy_from_slice(&encoded.bytes);
        block.crc = crc32fast::hash(&encoded.bytes);
    }
    change(&mut footer);
    let footer = footer.encode();
    file.truncate(index);
    file.extend_from_slice(&footer);
    file.extend_from_slice(&Stamp::of(&footer, index as u64, DB).encode(SEGMENT, "s"));
    disk.overwrite("s", file);
    Segment::open(&disk, "s", DB, None).unwrap()
}

fn is_corrupt<T>(result: Result<T, StorageError>) -> bool {
    matches!(result, Err(StorageError::Corrupt { .. }))
}

#[test]
fn blocks_that_lie_under_a_right_checksum_are_refused() {
    assert!(forged(0, None, |_| {}).verify().is_ok());
    let times = |times: [i64; 4]| Some(Column::from(times.map(Timestamp).to_vec()));
    let seqs = |seqs: [i64; 4]| Some(Column::from(seqs.to_vec()));

    let falling = forged(0, times([10, 25, 20, 30]), |_| {});
    assert!(is_corrupt(falling.timestamps(0)) && is_corrupt(falling.verify()));
    let later = forged(0, times([11, 20, 25, 31]), |_| {});
    assert!(is_corrupt(later.timestamps(0)) && is_corrupt(later.verify()));
    let other_seqs = forged(1, seqs([3, 8, 4, 5]), |_| {});
    assert!(is_corrupt(other_seqs.seqs(0)) && is_corrupt(other_seqs.verify()));
    let greater_zone = forged(2, None, |footer| {
        footer.blocks[2].zone = Some(Zone::F64 { min: -8.0, max: f64::MAX });
    });
    assert!(greater_zone.column(0, "px").is_ok() && is_corrupt(greater_zone.verify()));
    let no_zone = forged(2, None, |footer| footer.blocks[2].zone = None);
    assert!(is_corrupt(no_zone.verify()));
    let all_null = forged(2, None, |footer| footer.blocks[2].shape.nulls = 4);
    assert!(is_corrupt(all_null.column(0, "px")));
}

#[test]
fn a_count_of_nulls_that_is_not_the_bitmaps_is_damage() {
    let column = Column::from_parts(Values::I64(vec![1, 2, 3]), Some(vec![true, false, true])).unwrap();
    let encoded = encode(&column);
    for nulls in [0, 2, 3, 4] {
        assert!(decode(&encoded.bytes, Shape { nulls, ..encoded.shape }).is_err(), "{nulls}");
    }
    let mut none_valid = encoded.bytes.clone();
    none_valid[0] = 0;
    assert!(decode(&none_valid, Shape { nulls: 3, ..encoded.shape }).is_err(), "that is encoding null");
    assert!(decode(&[], Shape { encoding: Encoding::Null, ..encoded.shape }).is_err());
}

#[test]
fn columns_compare_by_their_bits() {
    let floats = |bits: u64| Column::from(vec![f64::from_bits(bits)]);
    assert!(same(&floats(0x7ff8_0000_0000_0001), &floats(0x7ff8_0000_0000_0001)));
    assert!(!same(&floats(0x7ff8_0000_0000_0001), &floats(0x7ff8_0000_0000_0002)));
    assert!(!same(&Column::from(vec![0.0]), &Column::from(vec![-0.0])));
    assert!(!same(&Column::from(vec![0i64]), &Column::nulls(ColumnType::I64, 1)));
    assert!(!same(&Column::from(vec![0i64]), &Column::from(vec![Timestamp(0)])));
}

/// Bounds hold every value of the rows, also where these are by key; of numbers that are packed there are some.
#[test]
fn bounds_hold_what_is_there() {
    let disk = SimulatedDisk::new();
    let rows = varied(5_000);
    rows.write(&disk, "a.seg", cut(4_000)).unwrap();
    let segment = Segment::open(&disk, "a.seg", DB, None).unwrap();
    let mut known = HashSet::new();
    let mut check = |name: &str, bounds: Option<Zone>, column: &Column| {
        let Some(bounds) = bounds else { return };
        known.insert(name.to_string());
        for value in (0..column.len()).map(|row| column.get(row)).filter(|value| *value != Value::Null) {
            let holds = match (bounds, value) {
                (Zone::I64 { min, max }, Value::I64(x) | Value::Timestamp(Timestamp(x))) => {
                    min <= x && x <= max
                }
                (Zone::I64 { min, max }, Value::I32(x)) => min <= x.into() && i64::from(x) <= max,
                (Zone::I64 { min, max }, Value::Date(x)) => min <= x.0.into() && i64::from(x.0) <= max,
                (Zone::F64 { min, max }, Value::F64(x)) => min <= x && x <= max,
                (Zone::F64 { min, max }, Value::F32(x)) => min <= x.into() && f64::from(x) <= max,
                _ => false,
            };
            assert!(holds, "{name}: {bounds:?}");
        }
    };
    for group in 0..segment.groups() {
        let clusters = segment.group(group).clusters;
        let mut parts = vec![segment.part(group, None).unwrap(), segment.part_as_stored(group).unwrap()];
        parts.extend((0..clusters).map(|key| segment.part(group, Some(key)).unwrap()));
        for (name, _) in rows.columns.iter() {
            for part in &parts {
                let all = part.rows();
                for range in [0..1, 0..all.min(1_024), all / 2..all / 2 + 30, all / 3..all, 0..all] {
                    let range = range.start.min(all)..range.end.min(all);
                    let column = segment.column_in(part, name, range.clone()).unwrap().unwrap();
                    check(name, segment.bounds_in(part, name, range), &column);
                }
            }
        }
    }
    for name in ["price", "volume", "lots", "vol", "sent"] {
        assert!(known.contains(name), "{name}: {known:?}");
    }
    assert!(segment.groups() > 1 && !known.contains("note"));
    assert_eq!((segment.bounds_of(0, "none", 0..1), segment.bounds_of(0, "price", 3..3)), (None, None));
    let numbers: Column = (0..3_000i64).map(|i| i * i % 1_000).collect::<Vec<_>>().into();
    let Encoded { shape, bytes, .. } = encode(&numbers);
    let bounds = |range| codec::bounds(&bytes, shape, Layout::even(3_000), range);
    assert!(matches!(bounds(1_500..2_100), Some(Zone::I64 { min: 0, max: 999..1_024 })));
    assert_eq!((bounds(0..3_001), bounds(5..5)), (None, None));
}
