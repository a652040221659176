//! Golden bytes: one tiny file of each kind. A change here is a change of a format: it needs a new version, a
//! reader for the old one, and a line in the specification.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::f64::consts::{E, LN_2, LOG2_E, PI, SQRT_2};

use crate::disk::{Disk, SimulatedDisk};
use crate::framed::write_framed;
use crate::manifest::{manifest_name, newest_manifest, write_manifest};
use crate::object::{ObjectId, Pack, open_chunk, write_chunk, write_pack};
use crate::segment::{Alone, Encoding, Replaced, Segment, SegmentRows, Seqs, write_segment};
use crate::twin::hex;
use crate::value::{ColumnType, Date, Timestamp, Value};
use crate::{Column, Columns, read_framed};

const DB: [u8; 16] = *b"golden database.";

/// The bytes that lines of [`hex`] stand for.
fn bytes_of(golden: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in golden.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("zeros ") {
            Some(count) => bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), 0),
            None => bytes.extend(
                (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()),
            ),
        }
    }
    bytes
}

/// What was written is the golden file; and the disk that holds the golden file instead.
fn golden(written: &SimulatedDisk, name: &str, golden: &str) -> SimulatedDisk {
    let bytes = written.contents(name).unwrap();
    assert!(bytes == bytes_of(golden), "{name} is written as\n{}", hex(&bytes));
    let disk = SimulatedDisk::new();
    disk.overwrite(name, bytes_of(golden));
    disk
}

#[test]
fn framed_file() {
    let disk = SimulatedDisk::new();
    disk.create_dir("images").unwrap();
    write_framed(&disk, "images/1", *b"UBGOLDEN", DB, b"payload").unwrap();
    let disk = golden(&disk, "images/1", FRAMED);
    assert_eq!(&*read_framed(&disk, "images/1", *b"UBGOLDEN", Some(DB), 7).unwrap().payload, b"payload");
}

#[test]
fn manifest() {
    let disk = SimulatedDisk::new();
    write_manifest(&disk, 42, 1, DB, b"state").unwrap();
    let disk = golden(&disk, &manifest_name(42), MANIFEST);
    assert_eq!(&*newest_manifest(&disk).unwrap().unwrap().payload, b"state");
}

#[test]
fn pack() {
    let disk = SimulatedDisk::new();
    disk.create_dir("packs").unwrap();
    let bodies: [&[u8]; 2] = [b"one", b"two"];
    write_pack(&disk, "packs/1", DB, bodies.map(|body| (ObjectId::of(body), body))).unwrap();
    let disk = golden(&disk, "packs/1", PACK);
    let pack = Pack::open(&disk, "packs/1", DB).unwrap();
    assert_eq!(&*pack.get(&ObjectId::of(b"two")).unwrap().unwrap(), b"two");
}

#[test]
fn chunk() {
    let disk = SimulatedDisk::new();
    disk.create_dir("chunks").unwrap();
    let id = write_chunk(&disk, "chunks/1", DB, b"large").unwrap();
    let disk = golden(&disk, "chunks/1", CHUNK);
    assert_eq!(&*open_chunk(&disk, "chunks/1", DB, id).unwrap(), b"large");
}

/// Five rows that need every encoding.
fn rows() -> Columns {
    let mut columns = Columns::with_types([
        ("flag", ColumnType::Bool),
        ("count", ColumnType::I64),
        ("price", ColumnType::F64),
        ("noise", ColumnType::F64),
        ("symbol", ColumnType::Utf8),
        ("raw", ColumnType::Bytes),
        ("sent", ColumnType::Timestamp),
        ("day", ColumnType::Date),
        ("none", ColumnType::I64),
        ("same", ColumnType::Utf8),
        ("lots", ColumnType::I32),
        ("ratio", ColumnType::F32),
    ])
    .unwrap();
    for row in 0..5i64 {
        columns
            .push_row(&[
                (row % 2 == 0).into(),
                (1_000 + row * row % 3).into(),
                if row == 3 { Value::Null } else { (row as f64 / 4.0).into() },
                [PI, E, SQRT_2, LN_2, LOG2_E][row as usize].into(),
                ["a long symbol", "another one"][row as usize % 2].into(),
                vec![row as u8; row as usize].into(),
                Timestamp(1_000_000 * row).into(),
                Date(16_000 + row as i32 * 7_000).into(),
                Value::Null,
                "same".into(),
                Value::I32([1, 1, -70_000, 2, 1][row as usize]),
                ([0.1, 2.5, f32::INFINITY, -0.3, 7.0][row as usize]).into(),
            ])
            .unwrap();
    }
    columns
}

#[test]
fn segment() {
    let disk = SimulatedDisk::new();
    disk.create_dir("segments/1").unwrap();
    let columns = rows();
    let timestamps = [10, 20, 20, 30, 1_000];
    let rows = SegmentRows {
        timestamps: &timestamps,
        seqs: Seqs::Each(&[3, 3, 4, 9, 5]),
        columns: &columns,
        keys: &["symbol"].into(),
        by_key: false,
        after: 0,
        replaced: &[Replaced { file: 3, seq: 0 }, Replaced { file: 5, seq: 4 }],
    };
    write_segment(&disk, "segments/1/1", DB, &rows, &Alone).unwrap();
    let disk = golden(&disk, "segments/1/1", SEGMENT);
    let segment = Segment::open(&disk, "segments/1/1", DB, None).unwrap();
    assert_eq!(segment.timestamps(0).unwrap(), timestamps);
    assert_eq!(segment.keys().iter().position(|is_key| *is_key), Some(4));
    for (name, column) in columns.iter() {
        assert_eq!(segment.column(0, name).unwrap().as_ref(), Some(column), "{name}");
    }
    assert_eq!(segment.replaced(), [Replaced { file: 3, seq: 0 }, Replaced { file: 5, seq: 4 }]);
    assert!(segment.verify().is_ok());
    let encodings: HashSet<Encoding> =
        columns.names().iter().map(|name| segment.block(0, name).unwrap().encoding).collect();
    // Compressed texts have golden files of their own.
    let is_there = |encoding: &Encoding| !matches!(encoding, Encoding::Symbols | Encoding::Lz4);
    for encoding in Encoding::ALL.into_iter().filter(is_there) {
        assert!(encodings.contains(&encoding), "{encoding:?} is not in the golden file");
    }
}

#[test]
fn segment_by_key() {
    let disk = SimulatedDisk::new();
    disk.create_dir("segments/1").unwrap();
    let timestamps: Vec<i64> = (0..48).map(|row| row / 2 * 10).collect();
    let symbols: Column =
        (0..48).map(|row| ["A", "BB"][usize::from(row % 3 == 1)]).collect::<Vec<_>>().iter().collect();
    let sizes = Column::from((0..48).map(|row| 100 * (row % 3) + row).collect::<Vec<i64>>());
    let columns = Columns::new().with("symbol", symbols).unwrap().with("size", sizes).unwrap();
    let keys = ["symbol"].into();
    let (timestamps, seqs, columns) = (&timestamps[..], Seqs::Assigned, &columns);
    let rows = SegmentRows { timestamps, seqs, columns, keys: &keys, by_key: true, after: 2, replaced: &[] };
    write_segment(&disk, "segments/1/2", DB, &rows, &Alone).unwrap();
    let disk = golden(&disk, "segments/1/2", SEGMENT_BY_KEY);
    let segment = Segment::open(&disk, "segments/1/2", DB, None).unwrap();
    assert_eq!((segment.timestamps(0).unwrap(), segment.group(0).clusters), (timestamps.to_vec(), 2));
    for (name, column) in columns.iter() {
        assert_eq!(segment.column(0, name).unwrap().as_ref(), Some(column), "{name}");
    }
    let of_key = segment.part(0, Some(1)).unwrap();
    assert_eq!(segment.timestamps_in(&of_key, 0..3).unwrap(), [0, 20, 30]);
    assert!(segment.verify().is_ok());
}

/// A segment of one column of texts without equals, written as these bytes.
fn segment_of_texts(name: &str, texts: Column, encoding: Encoding, bytes: &str) {
    let disk = SimulatedDisk::new();
    disk.create_dir("segments/1").unwrap();
    let timestamps: Vec<i64> = (0..texts.len() as i64).map(|row| row * 10).collect();
    let columns = Columns::new().with("order", texts).unwrap();
    let keys = HashSet::new();
    let (timestamps, seqs, columns) = (&timestamps[..], Seqs::Assigned, &columns);
    let rows = SegmentRows { timestamps, seqs, columns, keys: &keys, by_key: false, after: 2, replaced: &[] };
    write_segment(&disk, name, DB, &rows, &Alone).unwrap();
    let disk = golden(&disk, name, bytes);
    let segment = Segment::open(&disk, name, DB, None).unwrap();
    assert_eq!(segment.block(0, "order").unwrap().encoding, encoding);
    assert_eq!(segment.column(0, "order").unwrap().as_ref(), columns.column("order"));
    assert!(segment.verify().is_ok());
}

#[test]
fn segment_of_symbols() {
    let words = ["buy ", "sell ", "fill ", "cancel ", "for a day "];
    let mut orders = Column::new(ColumnType::Utf8);
    for row in 0..60usize {
        let order: String = (0..8).map(|i| words[(row * row + i * i * (row % 7 + 1) + i) % 5]).collect();
        let order = format!("{order}{row}");
        orders.push(&if row == 9 { Value::Null } else { order.into() }).unwrap();
    }
    segment_of_texts("segments/1/3", orders, Encoding::Symbols, SEGMENT_OF_SYMBOLS);
}

#[test]
fn segment_of_lz4_blocks() {
    let mut orders = Column::new(ColumnType::Bytes);
    for row in 0..30u8 {
        let order =
            [b"an order that is the one before but for its last byte, ".repeat(2), vec![row]].concat();
        orders.push(&order.into()).unwrap();
    }
    segment_of_texts("segments/1/4", orders, Encoding::Lz4, SEGMENT_OF_LZ4_BLOCKS);
}

const SEGMENT_OF_LZ4_BLOCKS: &str = "
    080000000200000000000000000000000a000000000000000000000000000000
    zeros 32
    1800000008000000020000006f000000000000006f0000000000000048010000
    ff28616e206f72646572207468617420697320746865206f6e65206265666f72
    652062757420666f7220697473206c61737420627974652c203700241f003800
    240f3700241f013800240f3700241f023800240f3700241f033800240f370024
    1f043800240f3700241f053800240f3700241f063800240f3700241f07380024
    0f3700241f083800240f3700241f093800240f3700241f0a3800240f3700241f
    0b3800240f3700241f0c3800240f3700241f0d3800240f3700241f0e3800240f
    3700241f0f3800240f3700241f103800240f3700241f113800240f3700241f12
    3800240f3700241f133800240f3700241f143800240f3700241f153800240f37
    00241f163800240f3700241f173800240f3700241f183800240f3700241f1938
    00240f3700241f1a3800240f3700241f1b3800240f3700241f1c3800240f3700
    1f607974652c201d000000000000000000000000000000000000000000000000
    01000000010000001e0000000000000000000000000000002201000000000000
    0000000000000000020000000000000005056f72646572001e00000000000000
    0000000000000000220100000000000000000000000000000000000000000000
    00000000000000001800000000000000da9cc22a1e0000000000000004010000
    0000000000000000220100000000000040000000000000006801000000000000
    678945641e0000000000000007010000616e206f72646572616e206f72646572
    55425345474d4e540300000087e85fd8676f6c64656e2064617461626173652e
    c001000000000000c000000000000000c4e61bb5f8fcb956000000002122efb1
";
const SEGMENT_OF_SYMBOLS: &str = "
    080000000200000000000000000000000a000000000000000000000000000000
    zeros 32
    fffdffffffffff0f21000000050c000036000000010108010101010506050401
    0701010108010106010803060208060501010101016679666f72206120646173
    62206373656c6c2063616e63656c66696c6c206275792061792073656c6c2032
    35647920666f7220612033312066696c6c203420666f72206120646179207920
    6275792079202063616e63656c202073656c6c20206275792030363738392600
    0000020400000900000000000000000000000000000090db9bb90cccdcaaeaab
    aacdbbdaacbecbaacaceaadccaccadaabeaadabc0a0907090a0a09071c07020c
    090907020c1202180819020c021808190d02100f1609081302100f1609110709
    0815160a07090805140a0907090a0a09070e07020c090907020c1d020c0a0702
    100f16070a1e02180902170a02180902181f0a0a081516081b0a0805121c0709
    0815160a070908051212020c0a0702100f16070a120d02180902170a02180902
    181211070813081a07081312140a081b07070a081b120e070a0a07081a0a0a12
    1d02100f1609081302100f1609121e021707090815160a07121f070813081a07
    081312200a081b07070a081b0d1c070813081a0708130d1202180902170a0218
    0902180d0d02180819020c021808190d1107070217020c0702180d140a070908
    15160a07090d0e070813081a0708130d1d02180902170a02180902180d1e020c
    0a0702100f16070a0d1f07020c090907020c0d200a02100f160a090a02100f16
    111c07070217020c0702181112021707090815160a07110d020c0a0702100f16
    070a111107020c090907020c11140a0907090a0a0907110e07020c090907020c
    111d02180819020c02180819111e02100f1609081302100f1609111f07090815
    160a0709080511200a0907090a0a0907141c07020c090907020c1412020c0a07
    02100f16070a140d02180902170a02180902181411070a0a07081a0a0a14140a
    0a081516081b0a0805140e07090815160a07090805141d020c0a0702100f1607
    0a141e02180902170a0218090218141f070813081a07081314200a081b07070a
    081b0e1c070a0a07081a0a0a0e1202100f1609081302100f16090e0d02170709
    0815160a070e11070813081a0708130e140a081b07070a081b0e0e070813081a
    0708130e1d02180902170a02180902180e1e02180819020c021808190e1f0707
    0217020c0702180e200000000000000000000000000000000000000000000000
    01000000010000003c0000000000000000000000000000004e02000000000000
    0000000000000000020000000000000004056f72646572003c00000000000000
    00000000000000004e0200000000000000000000000000000000000000000000
    00000000000000001800000000000000da9cc22a3c0000000000000004010000
    00000000000000004e0200000000000040000000000000006903000000000000
    656d8c623c0000000100000006010000627579206275792073656c6c2073656c
    55425345474d4e5403000000c273ce26676f6c64656e2064617461626173652e
    c003000000000000c000000000000000fad827ab94ddca230000000031fb44d9
";
const FRAMED: &str = "
    5542474f4c44454e01000000156a2c42676f6c64656e2064617461626173652e
    4000000000000000070000000000000010529a31813ea831000000000359fe21
    7061796c6f6164
";
const MANIFEST: &str = "
    55424d414e49465301000000fbd293a3676f6c64656e2064617461626173652e
    40000000000000000500000000000000db8d452f2998e64000000000b503eaa0
    7374617465
";
const PACK: &str = "
    6f6e650000000000000000000000000000000000000000000000000000000000
    zeros 32
    74776f0000000000000000000000000000000000000000000000000000000000
    zeros 32
    d33fb48ab5adff269ae172b29a6913ff04f6f266207a7a8e976f2ecd571d4492
    00000000000000000300000000000000f1866c7a00000000dc770fff53f50835
    f8cc957e01c0d5731d3c2ed544c375493a28c09be5e097634000000000000000
    0300000000000000668aca110000000055425041434b45440100000089df233f
    676f6c64656e2064617461626173652e80000000000000007000000000000000
    c42f8f05f4e62b3a00000000a93bced6
";
const CHUNK: &str = "
    6c61726765000000000000000000000000000000000000000000000000000000
    zeros 32
    01000000000000006d7c674e5919ac828992537064a1efe41e7cbcb0505ec07f
    ea06c64c9935a8d4000000000000000005000000000000000500000000000000
    0000000000000000be296b5955424348554e4b31010000009fc5f7ed676f6c64
    656e2064617461626173652e40000000000000004c0000000000000069a54ca9
    472a5eff000000002e872007
";
const SEGMENT_BY_KEY: &str = "
    30000000010800000000000000000000000a0a141e2828323c4646505a64646e
    7882828c96a0a0aab4bebec8d2dcdce600141e323c505a6e788c96aab4c8d2e6
    0600000001010000000000000000000092244992244900000000000000000000
    zeros 32
    0200000001050000100000000000000010000000000000000000000000000000
    zeros 32
    0000000001000000030000004142420000000000000000000000000000000000
    zeros 32
    3000000001080000000000000000000000ca03cd06d009d30cd60fd912dc15df
    18e21be51ee821eb24ee27f12af42df765686b6e7174777a7d808386898c8f92
    020000000100000030000000000000000000000000000000e600000000000000
    00010000000000000200000000000000840673796d626f6c020473697a650000
    30000000020000000000000000000000e6000000000000000000000000000000
    00000000000000000000000000000000400000000000000096c7449930000000
    00000000040100000000000000000000e6000000000000004000000000000000
    1600000000000000f5cba0303000000000000000040100000000000000000000
    0100000000000000800000000000000012000000000000001265838f02000000
    000000000401000010000000000000002000000000000000c000000000000000
    0f00000000000000762c700c0200000000000000010100004100000000000000
    4242000000000000000100000000000040000000000000009eae17e330000000
    00000000040100000000000000000000f70000000000000055425345474d4e54
    0200000011f8fb56676f6c64656e2064617461626173652e4001000000000000
    5801000000000000a34385523827035d0000000083b5ae63
";
const SEGMENT: &str = "
    07000000010a00000a000000000000000028a00005de03000000000000000000
    zeros 32
    02000000010300000300000000000000402c0000000000000000000000000000
    zeros 32
    1500000000000000000000000000000000000000000000000000000000000000
    zeros 32
    0100000001010000e80300000000000016000000000000000000000000000000
    zeros 32
    1700000000000000070000000607020000000000000000000000808c4c460600
    zeros 32
    2200000001360000ef39fafe422ee63f29f34955b8f3a25e8706e331e4e71d50
    78b62507010000000000000f49316604e7100000000000000000000000000000
    020000000100000018000000000000000d0000001800000061206c6f6e672073
    796d626f6c616e6f74686572206f6e650a000000000000000000000000000000
    00000000000000000100000003000000060000000a0000000102020303030404
    0404000000000000000000000000000000000000000000000000000000000000
    0800000002000000000000000000000040420f00000000000000000000000000
    zeros 32
    0800000002000000803e000000000000581b0000000000000000000000000000
    zeros 32
    73616d6500000000000000000000000000000000000000000000000000000000
    zeros 32
    0b0000000111000090eefeffffffffff7111e3220200908b1817110000000000
    zeros 32
    0d00000006070100fdffffffffffffff010002000000807f040e079004000000
    zeros 32
    0c0000000100000005000000000000000a00000000000000e803000000000000
    0100000002000000000000000000000003000000000000000000000000000000
    050000000000000004000000000000000104666c61670205636f756e74030570
    7269636503056e6f697365840673796d626f6c0503726177060473656e740703
    64617902046e6f6e65040473616d6508046c6f74730905726174696f00000000
    05000000000000000a00000000000000e8030000000000000300000000000000
    09000000000000000000000000000000170000000000000026e7d0bd05000000
    00000000040100000a00000000000000e8030000000000004000000000000000
    120000000000000093b19c6b0500000000000000040100000300000000000000
    090000000000000080000000000000000100000000000000660bdfbf05000000
    000000000201000000000000000000000100000000000000c000000000000000
    1100000000000000553ecff3050000000000000004010000e803000000000000
    e90300000000000000010000000000001f000000000000008a321e5105000000
    01000000040100000000000000000000000000000000f03f4001000000000000
    3200000000000000a4fa4956050000000000000004010000ef39fafe422ee63f
    182d4454fb21094080010000000000003100000000000000ae732e7105000000
    000000000501000061206c6f6e672073616e6f7468657220c001000000000000
    22000000000000005369f8db0500000000000000010100000000000000000000
    0404040400000000000200000000000018000000000000007a945db005000000
    0000000004010000000000000000000000093d00000000004002000000000000
    180000000000000005f43125050000000000000004010000803e000000000000
    e0ab000000000000800200000000000000000000000000000000000005000000
    0500000000000000000000000000000000000000000000008002000000000000
    040000000000000044f150fc05000000000000000301000073616d6500000000
    73616d6500000000c0020000000000001b000000000000002064b06305000000
    000000000401000090eefeffffffffff02000000000000000003000000000000
    1d00000000000000e883daad050000000000000004010000000000403333d3bf
    000000000000f07f55425345474d4e5401000000e4621c79676f6c64656e2064
    617461626173652e40030000000000006803000000000000f4f38145cd3db5bb
    000000006642afc0
";
