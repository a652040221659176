#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::disk::{Disk, RealDisk, SimulatedDisk};
use crate::error::StorageError;
use crate::limits::{CHUNK_BLOCK_BYTES, PAGE_BYTES};
use crate::stamp::{Kind, STAMP_BYTES, Stamp};
use crate::twin;

const DB: [u8; 16] = [7; 16];

fn pack_of(disk: &dyn Disk, name: &str, bodies: &[&[u8]]) -> Result<PackInfo, StorageError> {
    write_pack(disk, name, DB, bodies.iter().map(|body| (ObjectId::of(body), *body)))
}

/// Everything that a pack gives, or the first error.
fn read_all(disk: &dyn Disk, name: &str) -> Result<BTreeMap<ObjectId, Vec<u8>>, StorageError> {
    let pack = Pack::open(disk, name, DB)?;
    let mut objects = BTreeMap::new();
    for id in pack.ids() {
        let blob = pack.get(&id)?.expect("an id of the pack");
        objects.insert(id, blob.to_vec());
    }
    Ok(objects)
}

#[test]
fn ids_print_and_read() {
    let id = ObjectId::of(b"");
    let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(id.to_string(), text);
    assert_eq!(ObjectId::parse(text), Some(id));
    assert_eq!(ObjectId::parse(&text.to_uppercase()), Some(id));
    for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('a', "g"), &"é".repeat(32)] {
        assert_eq!(ObjectId::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn blobs_lend_their_ranges() {
    let shared = Blob::from(b"0123456789".to_vec());
    assert_eq!(&*shared.slice(2..5).unwrap(), b"234");
    assert_eq!(&*shared.slice(2..5).unwrap().slice(1..3).unwrap(), b"34");
    assert_eq!(shared.slice(0..11), None);
    assert_eq!(shared.slice(10..10), Some(Blob::from(Vec::new())));
    assert!(!shared.is_mapped());
}

#[test]
fn a_pack_finds_what_it_holds_and_nothing_else() {
    let disk = SimulatedDisk::new();
    disk.create_dir("packs").unwrap();
    let bodies: [&[u8]; 5] = [b"one", b"", &[9; 64], &[8; 1000], b"one"];
    let info = pack_of(&disk, "packs/1", &bodies).unwrap();
    assert_eq!(info.objects, 4, "the same object is stored once");
    let pack = Pack::open(&disk, "packs/1", DB).unwrap();
    assert_eq!(pack.info(), info);
    assert_eq!(pack.verify().unwrap(), info.bytes);
    for body in bodies {
        assert_eq!(&*pack.get(&ObjectId::of(body)).unwrap().unwrap(), body);
    }
    assert_eq!(pack.get(&ObjectId::of(b"two")).unwrap(), None);
    assert!(pack.contains(&ObjectId::of(b"")) && !pack.contains(&ObjectId::of(b"two")));
    assert!(pack.ids().is_sorted());
    pack_of(&disk, "packs/2", &[]).unwrap();
    assert!(read_all(&disk, "packs/2").unwrap().is_empty());
}

#[test]
fn bytes_that_are_not_their_id_are_refused() {
    let disk = SimulatedDisk::new();
    let refused = write_pack(&disk, "p", DB, [(ObjectId::of(b"a"), &b"b"[..])]);
    assert!(matches!(refused, Err(StorageError::Refused { .. })));
    assert!(disk.files().is_empty());
}

#[test]
fn objects_of_a_real_file_are_lent_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path());
    pack_of(&disk, "p", &[b"one", b"two"]).unwrap();
    let pack = Pack::open(&disk, "p", DB).unwrap();
    let blobs: Vec<Blob> = pack.ids().map(|id| pack.get(&id).unwrap().unwrap()).collect();
    drop(pack);
    disk.remove("p").unwrap();
    for blob in &blobs {
        assert!(blob.is_mapped());
        assert_eq!(blob.as_ptr().align_offset(64), 0, "objects lie on 64-byte boundaries");
        assert!(blob.len() == 3 && (&**blob == b"one" || &**blob == b"two"));
    }
}

#[test]
fn a_chunk_holds_one_object() {
    let disk = SimulatedDisk::new();
    disk.create_dir("chunks").unwrap();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let id = write_chunk(&disk, "chunks/1", DB, &bytes).unwrap();
    assert_eq!(id, ObjectId::of(&bytes));
    assert_eq!(&*open_chunk(&disk, "chunks/1", DB, id).unwrap(), &bytes);
    let chunks = Chunks::open(&disk, "chunks/1", DB).unwrap();
    assert!(chunks.verify().unwrap() > bytes.len() as u64);
    let other = ObjectId::of(b"other");
    assert!(matches!(open_chunk(&disk, "chunks/1", DB, other), Err(StorageError::Corrupt { .. })));
    assert!(matches!(open_chunk(&disk, "chunks/2", DB, id), Err(StorageError::Missing { .. })));
    let foreign = open_chunk(&disk, "chunks/1", [0; 16], id);
    assert!(matches!(foreign, Err(StorageError::ForeignDatabase { .. })));
    let as_pack = Pack::open(&disk, "chunks/1", DB);
    assert!(matches!(as_pack, Err(StorageError::Corrupt { .. })), "a chunk is not a pack");
    let again = write_chunk(&disk, "chunks/1", DB, b"");
    assert!(matches!(again, Err(StorageError::Exists { .. })));
}

/// Chunks of a blob, the first of them short, and one that lies elsewhere in its page.
fn chunks_of(disk: &SimulatedDisk, name: &str) -> Vec<Vec<u8>> {
    let noise = |n: u32| (0..n).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<u8>>();
    let bodies = vec![noise(5_000), noise(3 * PAGE_BYTES as u32), noise(70_001), vec![7; 200_000]];
    let places = [Placement::End, Placement::Begin, Placement::Begin, Placement::Behind(9)];
    let mut writer = ChunkWriter::create(disk, name, DB).unwrap();
    for (body, place) in bodies.iter().zip(places) {
        writer.push(ObjectId::of(body), body, place, body[0] == 7).unwrap();
    }
    let length = writer.publish().unwrap();
    assert_eq!(length, disk.contents(name).unwrap().len() as u64);
    bodies
}

#[test]
fn chunks_of_a_blob_are_one_stretch_and_are_checked_part_by_part() {
    let disk = SimulatedDisk::new();
    let bodies = chunks_of(&disk, "c");
    let chunks = Chunks::open(&disk, "c", DB).unwrap();
    let ids: Vec<ObjectId> = chunks.objects().map(|(id, _)| id).collect();
    assert_eq!(ids, bodies.iter().map(|body| ObjectId::of(body)).collect::<Vec<_>>());
    let places: Vec<_> = ids.iter().map(|id| chunks.place(id)).collect();
    let [Some(first), Some(second), Some(third), None] = &places[..] else { panic!("{places:?}") };
    assert_eq!((first.end, second.end), (second.start, third.start));
    assert_eq!(second.start % PAGE_BYTES as u64, 0);
    assert_eq!(*chunks.lend(first.start..third.end).unwrap(), *bodies[..3].concat());
    assert!(chunks.stored(&ids[3]).unwrap() < 2_000);
    for (id, body) in ids.iter().zip(&bodies) {
        assert_eq!(**chunks.get(id).unwrap().as_ref().unwrap(), **body);
        let part = chunks.range(id, 1_000..4_999).unwrap().unwrap();
        assert_eq!(*part, body[1_000..4_999]);
        assert!(chunks.range(id, 0..body.len() as u64 + 1).unwrap().is_none());
    }
    chunks.verify().unwrap();
    // Of a damaged body the blocks that are sound are read.
    let mut bytes = disk.contents("c").unwrap();
    bytes[third.start as usize + CHUNK_BLOCK_BYTES] ^= 1;
    disk.overwrite("c", bytes);
    let chunks = Chunks::open(&disk, "c", DB).unwrap();
    assert!(chunks.range(&ids[2], 5..CHUNK_BLOCK_BYTES as u64).unwrap().is_some());
    for part in [5..CHUNK_BLOCK_BYTES as u64 + 1, 70_000..70_001] {
        assert!(matches!(chunks.range(&ids[2], part), Err(StorageError::Corrupt { .. })));
    }
    assert!(
        chunks.get(&ids[2]).is_err() && chunks.verify().is_err() && chunks.verify_object(&ids[1]).is_ok()
    );
}

#[test]
fn corrupt_twins_of_a_pack_are_refused_or_the_same() {
    let disk = SimulatedDisk::new();
    pack_of(&disk, "p", &[b"one", b"", &[9; 70]]).unwrap();
    let sound = read_all(&disk, "p").unwrap();
    for (what, twin) in twin::twins(&disk.contents("p").unwrap()) {
        let same_bytes = disk.contents("p").unwrap() == twin;
        let damaged = SimulatedDisk::new();
        damaged.overwrite("p", twin);
        if let Ok(objects) = read_all(&damaged, "p") {
            assert_eq!(objects, sound, "{what}");
            let verified = Pack::open(&damaged, "p", DB).unwrap().verify();
            assert!(same_bytes || verified.is_err(), "{what} is not seen by verify");
        }
    }
}

#[test]
fn corrupt_twins_of_a_chunk_are_refused_or_the_same() {
    let disk = SimulatedDisk::new();
    let id = write_chunk(&disk, "c", DB, b"a rather small large object").unwrap();
    for (what, twin) in twin::twins(&disk.contents("c").unwrap()) {
        let damaged = SimulatedDisk::new();
        damaged.overwrite("c", twin);
        if let Ok(blob) = open_chunk(&damaged, "c", DB, id) {
            assert_eq!(&*blob, b"a rather small large object", "{what}");
        }
    }
}

#[test]
fn a_directory_of_chunks_that_lies_under_a_right_checksum_is_refused_or_true() {
    let disk = SimulatedDisk::new();
    let mut writer = ChunkWriter::create(&disk, "c", DB).unwrap();
    let bodies: [&[u8]; 3] = [b"one", &[9; 70], &[3; 300]];
    for (body, place) in bodies.iter().zip([Placement::End, Placement::Begin, Placement::Begin]) {
        writer.push(ObjectId::of(body), body, place, true).unwrap();
    }
    writer.publish().unwrap();
    let sound = disk.contents("c").unwrap();
    let index = sound.len() - STAMP_BYTES - 8 - 3 * 64 - 3 * 4;
    let kind = Kind { magic: *b"UBCHUNK1", version: 1 };
    for at in (index..sound.len() - STAMP_BYTES).step_by(if cfg!(miri) { 13 } else { 1 }) {
        for mask in [0x01, 0x40, 0x80, 0xff] {
            let mut twin = sound.clone();
            twin[at] ^= mask;
            twin.truncate(sound.len() - STAMP_BYTES);
            let stamp = Stamp::of(&twin[index..], index as u64, DB).encode(kind, "c");
            twin.extend_from_slice(&stamp);
            disk.overwrite("c", twin);
            let Ok(chunks) = Chunks::open(&disk, "c", DB) else { continue };
            if chunks.verify().is_ok() {
                for body in bodies {
                    assert_eq!(
                        **chunks.get(&ObjectId::of(body)).unwrap().as_ref().unwrap(),
                        *body,
                        "byte {at}"
                    );
                }
            }
        }
    }
}

/// Bytes that were changed together with their checksum are lent, and found by who compares the hash.
#[test]
fn a_body_that_lies_under_a_right_checksum_is_named() {
    let disk = SimulatedDisk::new();
    let mut writer = ChunkWriter::create(&disk, "c", DB).unwrap();
    let bodies: [&[u8]; 2] = [&[9; 70], &[3; 300]];
    let [first, second] = bodies.map(ObjectId::of);
    for body in bodies {
        writer.push(ObjectId::of(body), body, Placement::Begin, false).unwrap();
    }
    writer.publish().unwrap();
    let mut bytes = disk.contents("c").unwrap();
    bytes.truncate(bytes.len() - STAMP_BYTES);
    let index = bytes.len() - 8 - 2 * 64 - 2 * 4;
    bytes[4_096 + 17] ^= 1;
    let crc = crc32fast::hash(&bytes[4_096..4_096 + 300]);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
    let stamp = Stamp::of(&bytes[index..], index as u64, DB);
    bytes.extend_from_slice(&stamp.encode(Kind { magic: *b"UBCHUNK1", version: 1 }, "c"));
    disk.overwrite("c", bytes);
    let chunks = Chunks::open(&disk, "c", DB).unwrap();
    assert_eq!(chunks.get(&second).unwrap().unwrap()[17], 2);
    let mut named = Vec::new();
    chunks.verify_each(|object, damage| named.push((object, damage.to_string())));
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[0].0, Some(second));
    assert!(named[0].1.contains("another hash"), "{named:?}");
    assert!(chunks.verify_object(&first).is_ok());
}

#[test]
fn a_directory_that_lies_under_a_right_checksum_is_refused_or_true() {
    let disk = SimulatedDisk::new();
    let info = pack_of(&disk, "p", &[b"one", b"", &[9; 70]]).unwrap();
    let sound_objects = read_all(&disk, "p").unwrap();
    let sound = disk.contents("p").unwrap();
    let index = sound.len() - STAMP_BYTES - info.objects as usize * 56;
    let kind = Kind { magic: *b"UBPACKED", version: 1 };
    for at in (index..sound.len() - STAMP_BYTES).step_by(if cfg!(miri) { 13 } else { 1 }) {
        for mask in [0x01, 0x40, 0x80, 0xff] {
            let mut twin = sound.clone();
            twin[at] ^= mask;
            twin.truncate(sound.len() - STAMP_BYTES);
            let stamp = Stamp::of(&twin[index..], index as u64, DB).encode(kind, "p");
            twin.extend_from_slice(&stamp);
            disk.overwrite("p", twin);
            let Ok(pack) = Pack::open(&disk, "p", DB) else { continue };
            if pack.verify().is_ok() {
                assert_eq!(read_all(&disk, "p").unwrap(), sound_objects, "byte {at} xor {mask}");
            }
        }
    }
}

#[test]
fn swapped_files_are_refused() {
    let disk = SimulatedDisk::new();
    pack_of(&disk, "a", &[b"one"]).unwrap();
    pack_of(&disk, "b", &[b"two"]).unwrap();
    let a = disk.contents("a").unwrap();
    disk.overwrite("a", disk.contents("b").unwrap());
    disk.overwrite("b", a);
    assert!(matches!(Pack::open(&disk, "a", DB), Err(StorageError::Corrupt { .. })));
    assert!(matches!(Pack::open(&disk, "b", DB), Err(StorageError::Corrupt { .. })));
    let id = write_chunk(&disk, "c", DB, b"three").unwrap();
    disk.overwrite("d", disk.contents("c").unwrap());
    assert!(matches!(open_chunk(&disk, "d", DB, id), Err(StorageError::Corrupt { .. })));
}

#[test]
fn a_stop_at_any_call_leaves_all_or_nothing() {
    let large = vec![5; 2 << 20];
    twin::stop_everywhere(
        |disk| pack_of(disk, "p", &[b"one", &large, b"two"]).map(|_| ()),
        |disk, finished| match read_all(disk, "p") {
            Ok(objects) => assert_eq!(objects.len(), 3),
            Err(error) => assert!(matches!(error, StorageError::Missing { .. }) && !finished, "{error}"),
        },
    );
    twin::stop_everywhere(
        |disk| write_chunk(disk, "c", DB, &large).map(|_| ()),
        |disk, finished| match open_chunk(disk, "c", DB, ObjectId::of(&large)) {
            Ok(blob) => assert_eq!(blob.len(), large.len()),
            Err(error) => assert!(matches!(error, StorageError::Missing { .. }) && !finished, "{error}"),
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packs_are_maps(bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..40)) {
        let disk = SimulatedDisk::new();
        let model: BTreeMap<ObjectId, Vec<u8>> =
            bodies.iter().map(|body| (ObjectId::of(body), body.clone())).collect();
        let slices: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        let info = pack_of(&disk, "p", &slices).unwrap();
        prop_assert_eq!(info.objects, model.len() as u64);
        prop_assert_eq!(read_all(&disk, "p").unwrap(), model);
    }
}
