#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::disk::{Disk, SimulatedDisk};
use crate::error::StorageError;
use crate::limits::IMAGE_BLOCK_BYTES;
use crate::stamp::{DatabaseId, Stamp};
use crate::twin;

const DB: DatabaseId = [7; 16];

type Records = BTreeMap<Key, Option<Vec<u8>>>;

fn write(disk: &dyn Disk, name: &str, records: &Records) -> Result<ImageInfo, StorageError> {
    let mut writer = ImageWriter::create(disk, name, DB)?;
    for (key, value) in records {
        writer.push(*key, value.as_deref())?;
    }
    writer.finish()
}

fn read(disk: &dyn Disk, name: &str, expected: Option<&ImageInfo>) -> Result<Records, StorageError> {
    let image = Image::open(disk, name, DB, expected)?;
    let mut records = Records::new();
    for block in 0..image.blocks() {
        let lent = image.block(block)?;
        records.extend(lent.iter().map(|record| (record.key, record.value.map(<[u8]>::to_vec))));
    }
    Ok(records)
}

fn small() -> Records {
    let key = |kind, major, minor| Key { kind, major, minor };
    BTreeMap::from([
        (key(1, 0, 0), Some(vec![1, 2, 3])),
        (key(1, 0, u64::MAX), None),
        (key(1, 7, 0), Some(Vec::new())),
        (key(2, u64::MAX, 0), Some(b"last".to_vec())),
    ])
}

#[test]
fn the_bytes_of_an_image_are_fixed() {
    let disk = SimulatedDisk::new();
    let info = write(&disk, "a", &small()).unwrap();
    let bytes = disk.contents("a").unwrap();
    assert_eq!(info.bytes, bytes.len() as u64);
    let text = "\
        0100000000000000000000000000000000030000000102030100000000000000\n\
        00ffffffffffffffffffffffff01070000000000000000000000000000000000\n\
        000002ffffffffffffffff0000000000000000040000006c6173740400000000\n";
    assert!(twin::hex(&bytes).starts_with(text), "{}", twin::hex(&bytes));
    assert_eq!(bytes.len(), 91 + 16 + 40 + 64);
    assert_eq!(read(&disk, "a", Some(&info)).unwrap(), small());
}

#[test]
fn long_records_have_blocks_of_their_own() {
    let disk = SimulatedDisk::new();
    let record = |major: u64, bytes: usize| (Key::new(6, major), Some(vec![major as u8; bytes]));
    let records: Records =
        [record(1, 10), record(2, 3 * IMAGE_BLOCK_BYTES), record(3, 10), record(4, 10)].into();
    let info = write(&disk, "a", &records).unwrap();
    assert_eq!(Image::open(&disk, "a", DB, None).unwrap().blocks(), 3);
    assert_eq!(read(&disk, "a", Some(&info)).unwrap(), records);
}

#[test]
fn what_is_not_in_order_is_refused() {
    let disk = SimulatedDisk::new();
    let mut writer = ImageWriter::create(&disk, "a", DB).unwrap();
    writer.push(Key::new(2, 5), None).unwrap();
    for key in [Key::new(2, 5), Key::new(2, 4), Key::new(1, 9)] {
        assert!(matches!(writer.push(key, None), Err(StorageError::Refused { .. })));
    }
}

#[test]
fn another_whole_image_under_the_name_is_refused() {
    let disk = SimulatedDisk::new();
    let info = write(&disk, "a", &small()).unwrap();
    let mut other = small();
    other.insert(Key::new(1, 7), Some(vec![1]));
    disk.remove("a").unwrap();
    write(&disk, "a", &other).unwrap();
    assert!(matches!(read(&disk, "a", Some(&info)), Err(StorageError::Corrupt { .. })));
    assert_eq!(read(&disk, "a", None).unwrap(), other);
}

#[test]
fn corrupt_twins_are_refused() {
    let disk = SimulatedDisk::new();
    let info = write(&disk, "a", &small()).unwrap();
    let whole = disk.contents("a").unwrap();
    for (what, twin) in twin::twins(&whole).filter(|(_, twin)| *twin != whole) {
        disk.overwrite("a", twin);
        assert!(read(&disk, "a", Some(&info)).is_err(), "{what}");
    }
}

/// With all checksums made good, damage is still an error or other records, and nothing long is allocated.
#[test]
fn lies_under_sound_checksums_are_refused() {
    let disk = SimulatedDisk::new();
    write(&disk, "a", &small()).unwrap();
    let whole = disk.contents("a").unwrap();
    let index = whole.len() - 64 - 40 - 16;
    let checksum = index + 24..index + 28;
    for at in (0..whole.len() - 64).filter(|at| !checksum.contains(at)) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            if bytes[at] == value {
                continue;
            }
            bytes[at] = value;
            let crc = crc32fast::hash(&bytes[..index]);
            bytes[checksum.clone()].copy_from_slice(&crc.to_le_bytes());
            let end = bytes.len() - 64;
            let stamp = Stamp::of(&bytes[index..end], index as u64, DB).encode(IMAGE, "a");
            bytes[end..].copy_from_slice(&stamp);
            disk.overwrite("a", bytes);
            let read = read(&disk, "a", None);
            assert!(read.is_err() || at < index, "byte {at} is {value}: {read:?}");
        }
    }
}

#[test]
fn a_stop_at_any_call_leaves_all_or_nothing() {
    twin::stop_everywhere(
        |disk| write(disk, "a", &small()).map(|_| ()),
        |disk, finished| match read(disk, "a", None) {
            Ok(records) => assert_eq!(records, small()),
            Err(error) => assert!(matches!(error, StorageError::Missing { .. }) && !finished),
        },
    );
}

fn records() -> impl Strategy<Value = Records> {
    let key = (1u8..4, 0u64..40, 0u64..2).prop_map(|(kind, major, minor)| Key { kind, major, minor });
    let length = prop_oneof![8 => 0usize..40, 1 => IMAGE_BLOCK_BYTES / 2..IMAGE_BLOCK_BYTES];
    let value = proptest::option::weighted(0.8, (any::<u8>(), length).prop_map(|(b, n)| vec![b; n]));
    proptest::collection::btree_map(key, value, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn images_come_back_and_lie_over_each_other(layers in proptest::collection::vec(records(), 1..5)) {
        let disk = SimulatedDisk::new();
        let mut expected = Records::new();
        let mut images = Vec::new();
        for (number, records) in layers.iter().enumerate() {
            let name = format!("{number}");
            let info = write(&disk, &name, records).unwrap();
            prop_assert_eq!(&read(&disk, &name, Some(&info)).unwrap(), records);
            let image = Image::open(&disk, &name, DB, Some(&info)).unwrap();
            prop_assert_eq!(image.verify().unwrap(), info.bytes);
            images.push(image);
            expected.extend(records.clone());
        }
        let mut merge = Merge::new(&images).unwrap();
        let mut merged = Records::new();
        while let Some(record) = merge.pop().unwrap() {
            prop_assert!(merged.last_key_value().is_none_or(|(last, _)| *last < record.key));
            merged.insert(record.key, record.value.map(<[u8]>::to_vec));
        }
        prop_assert_eq!(&merged, &expected);
        let mut merge = Merge::new(&images).unwrap();
        let mut taken = Records::new();
        loop {
            let some = merge.take(7).unwrap();
            if some.is_empty() {
                break;
            }
            taken.extend(some.into_iter().map(|(key, value)| (key, Some(value.to_vec()))));
        }
        expected.retain(|_, value| value.is_some());
        prop_assert_eq!(taken, expected);
    }
}
