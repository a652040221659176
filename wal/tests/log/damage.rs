//! Rot and hostile bytes: the same records, a shorter prefix that is reported, or a typed error.

use proptest::prelude::*;
use underbelly_storage::disk::{Disk, SimulatedDisk};
use underbelly_wal::{Log, Start, WalError};

use crate::world::*;

const SMALL: u64 = 16 << 10;

/// A log of several short files, and the records from the first seq that it holds.
fn small_log(sealed: bool, reused: bool) -> (SimulatedDisk, Records) {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let mut next = 1;
    if reused {
        while log.stats().file < 6 {
            log.write(&records(next..=next, 3000)).unwrap();
            log.recycle(next).unwrap();
            next += 1;
        }
        log.recycle(next - 2).unwrap();
    }
    let first = next;
    for len in [3900, 10, 1000, 20, 500] {
        log.write(&records(next..=next, len)).unwrap();
        next += 1;
    }
    if sealed {
        log.seal().unwrap();
    }
    let all = open(&disk.crash_keeping_all(), first, next - 1, options_of(9, SMALL)).unwrap().2;
    assert_eq!(all.len(), 5);
    (disk, all)
}

#[test]
fn every_flipped_byte_gives_the_records_a_reported_prefix_or_an_error() {
    for (sealed, reused) in [(false, false), (true, false), (false, true), (true, true)] {
        let (disk, all) = small_log(sealed, reused);
        let from = all[0].0;
        let (mut same, mut shorter, mut refused) = (0, 0, 0);
        for name in disk.files().into_iter().filter(|name| name.ends_with(".wal")) {
            let whole = disk.contents(&name).unwrap();
            for at in 0..whole.len() {
                let rotten = disk.crash_keeping_all();
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                rotten.overwrite(&name, bytes);
                match open(&rotten, from, 0, options_of(9, SMALL)) {
                    Ok((_, _, seen)) if seen == all => same += 1,
                    Ok((_, recovery, seen)) => {
                        assert_eq!(seen, all[..seen.len()], "{name} byte {at}: a wrong record");
                        assert_eq!(
                            seen.len(),
                            all.len() - 1,
                            "{name} byte {at}: lost more than the last batch"
                        );
                        assert!(recovery.torn.is_some(), "{name} byte {at}: a loss that is not reported");
                        assert!(!sealed, "{name} byte {at}: a sealed record is lost");
                        shorter += 1;
                    }
                    Err(WalError::Corrupt { .. }) => refused += 1,
                    Err(error) => panic!("{name} byte {at}: {error}"),
                }
            }
        }
        assert!(same > 0 && refused > 0 && (shorter > 0) != sealed, "{same} {shorter} {refused}");
    }
}

#[test]
fn damage_before_a_later_valid_batch_names_its_place() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    for seq in 1..=4 {
        log.write(&records(seq..=seq, 100)).unwrap();
    }
    let name = "wal/0000000001.wal";
    let mut bytes = disk.contents(name).unwrap();
    bytes[2 * BLOCK + 80] ^= 1;
    disk.overwrite(name, bytes);
    let error = open(&disk, 1, 0, options_of(1, 1 << 16)).err().unwrap();
    let WalError::Corrupt { file, offset, seq, .. } = &error else { panic!("{error}") };
    assert_eq!((file.as_str(), *offset, *seq), (name, 2 * BLOCK as u64, 2));
    assert!(error.to_string().contains("restore a backup"), "{error}");
    let kept: Vec<_> = disk.files().into_iter().filter(|name| name.starts_with("lost")).collect();
    assert!(kept.is_empty(), "damage changes nothing on the disk");
}

#[test]
fn a_seal_tells_rot_in_the_last_record_from_a_tear() {
    for sealed in [false, true] {
        let disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
        log.write(&records(1..=2, 100)).unwrap();
        if sealed {
            log.seal().unwrap();
        }
        let name = "wal/0000000001.wal";
        let mut bytes = disk.contents(name).unwrap();
        bytes[BLOCK + 70] ^= 1;
        disk.overwrite(name, bytes);
        match open(&disk, 1, 0, options_of(1, 1 << 16)) {
            Ok((_, recovery, seen)) => assert!(!sealed && recovery.torn.is_some() && seen.is_empty()),
            Err(error) => assert!(sealed && matches!(error, WalError::Corrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_damaged() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=5, 10)).unwrap();
    assert!(open(&disk.crash(), 1, 5, options_of(1, 1 << 16)).is_ok());
    assert!(open(&disk.crash(), 6, 5, options_of(1, 1 << 16)).is_ok());
    for (from, durable) in [(1, 6), (7, 0), (u64::MAX, u64::MAX)] {
        let short = open(&disk.crash(), from, durable, options_of(1, 1 << 16));
        assert!(matches!(short, Err(WalError::Corrupt { seq: 6, .. })), "{from} {durable}");
    }
}

fn several_files() -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    (1..=12).for_each(|seq| log.write(&records(seq..=seq, 3000)).unwrap());
    let last = log.stats().file;
    assert!(last >= 4);
    (disk.crash(), last)
}

#[test]
fn missing_files_are_told() {
    for number in 1..=4 {
        let (disk, last) = several_files();
        assert_eq!(last, 4);
        disk.remove(&format!("wal/{number:010}.wal")).unwrap();
        let opened = open(&disk, 1, 12, options_of(1, SMALL));
        assert!(matches!(opened, Err(WalError::Corrupt { .. })), "file {number}");
        // Records that the checkpoint holds need no file.
        assert_eq!(open(&disk, 10, 12, options_of(1, SMALL)).is_ok(), number < 4, "file {number}");
    }
    let disk = SimulatedDisk::new();
    assert!(matches!(open(&disk, 1, 0, options(SMALL)), Err(WalError::Missing { .. })));
}

#[test]
fn exchanged_cut_and_foreign_files_are_told() {
    let (disk, _) = several_files();
    let two = disk.contents("wal/0000000002.wal").unwrap();
    disk.overwrite("wal/0000000003.wal", two.clone());
    assert!(matches!(open(&disk, 1, 0, options_of(1, SMALL)), Err(WalError::Corrupt { .. })));

    for len in [0, 100, BLOCK, BLOCK + 1, two.len() - 1, two.len() - BLOCK] {
        let (disk, _) = several_files();
        disk.overwrite("wal/0000000004.wal", two[..len].to_vec());
        assert!(matches!(open(&disk, 1, 0, options_of(1, SMALL)), Err(WalError::Corrupt { .. })), "{len}");
    }

    let (disk, _) = several_files();
    let mut visit = |_: u64, _: &[u8]| Ok::<(), WalError>(());
    let foreign = Log::open(shared(&disk), [0; 16], Start::at(1), 0, options(SMALL), &mut visit);
    assert!(matches!(foreign, Err(WalError::Foreign { .. })));
}

#[test]
fn a_visitor_that_refuses_stops_the_opening_and_changes_nothing() {
    #[derive(Debug)]
    enum Refused {
        Wal(#[expect(dead_code)] WalError),
        Record(u64),
    }
    impl From<WalError> for Refused {
        fn from(error: WalError) -> Refused {
            Refused::Wal(error)
        }
    }
    let (disk, _) = several_files();
    let calls = disk.calls();
    let mut visit = |seq: u64, _: &[u8]| if seq == 5 { Err(Refused::Record(seq)) } else { Ok(()) };
    let refused = Log::open(shared(&disk), DB, Start::at(1), 0, options(SMALL), &mut visit).err().unwrap();
    assert!(matches!(refused, Refused::Record(5)), "{refused:?}");
    assert_eq!(disk.calls(), calls);
}

#[derive(Clone, Debug)]
enum Rot {
    /// Copies a block over another.
    Copy(usize, usize, usize, usize),
    Zero(usize, usize),
    Noise(usize, usize, Vec<u8>),
}

fn rot() -> impl Strategy<Value = Rot> {
    prop_oneof![
        (0..8usize, 0..4usize, 0..8usize, 0..4usize).prop_map(|(f, b, g, c)| Rot::Copy(f, b, g, c)),
        (0..8usize, 0..4usize).prop_map(|(f, b)| Rot::Zero(f, b)),
        (0..8usize, 0..16000usize, prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(f, at, noise)| Rot::Noise(f, at, noise)),
    ]
}

/// The names of the log files, oldest first.
fn logs(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.ends_with(".wal")).collect()
}

/// Puts right checksums over whatever is in a file's header and batch headers.
fn forge(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..BLOCK - 4]);
    bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc.to_le_bytes());
    for at in (BLOCK..bytes.len()).step_by(BLOCK) {
        let payload = u32::from_le_bytes(bytes[at + 44..at + 48].try_into().unwrap()) as usize;
        if let Some(covered) = bytes.get(at + 8..at.saturating_add(56 + payload)) {
            let crc = crc32fast::hash(covered);
            bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

#[test]
fn a_right_checksum_does_not_replace_the_chain() {
    // Bytes of the first batch of a log of three, changed under a right checksum.
    for (at, what) in
        [(8, "salt"), (16, "file"), (24, "number"), (32, "first seq"), (48, "chain"), (70, "record")]
    {
        let disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
        (1..=3).for_each(|seq| log.write(&records(seq..=seq, 20)).unwrap());
        let name = "wal/0000000001.wal";
        let mut bytes = disk.contents(name).unwrap();
        bytes[BLOCK + at] ^= 1;
        forge(&mut bytes);
        disk.overwrite(name, bytes.clone());
        let opened = open(&disk, 1, 0, options_of(1, 1 << 16));
        assert!(matches!(opened, Err(WalError::Corrupt { .. })), "{what}");

        // Without a later batch, what does not belong is never replayed.
        bytes[2 * BLOCK..].fill(0);
        disk.overwrite(name, bytes);
        if let Ok((_, recovery, seen)) = open(&disk, 1, 0, options_of(1, 1 << 16)) {
            assert!(seen.is_empty() && recovery.torn.is_some() || what == "record", "{what}");
        }
    }
}

/// A record that holds a copy of the live log, block by block, tears like any other.
#[test]
fn a_copy_of_the_log_within_a_torn_record_is_no_later_batch() {
    for (torn, damaged) in [(4, None), (4, Some(2)), (5, None), (5, Some(4))] {
        let disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
        (1..=3).for_each(|seq| log.write(&records(seq..=seq, 20)).unwrap());
        let name = "wal/0000000001.wal";
        // The first frame begins behind 68 bytes of its block.
        let mut copy = vec![7; BLOCK - 68];
        copy.extend_from_slice(&disk.contents(name).unwrap()[BLOCK..4 * BLOCK]);
        log.write(&[(4, copy)]).unwrap();
        log.write(&records(5..=5, 20)).unwrap();
        let mut bytes = disk.contents(name).unwrap();
        let at = [1, 2, 3, 4, 8];
        // Where the record with the copy is damaged, the one behind it is whole.
        if damaged != Some(4) {
            bytes[at[torn - 1] * BLOCK + 30] ^= 1;
        }
        if torn == 4 {
            // What was not acknowledged has nothing behind it.
            bytes[at[4] * BLOCK..].fill(0);
        }
        damaged.into_iter().for_each(|seq: usize| bytes[at[seq - 1] * BLOCK + 70] ^= 1);
        disk.overwrite(name, bytes);
        match open(&disk, 1, 0, options_of(1, 1 << 16)) {
            Ok((_, recovery, seen)) => {
                assert_eq!((seen.len(), damaged), (torn - 1, None));
                assert!(recovery.torn.is_some());
            }
            Err(error) => {
                assert!(
                    damaged.is_some_and(
                        |at| matches!(&error, WalError::Corrupt { seq, .. } if *seq == at as u64)
                    ),
                    "{error}"
                )
            }
        }
    }
}

/// Batches that claim all that is behind them, each from its own block on, are not compared one by one: by their lengths that would be
/// 2 TiB.
#[test]
fn forged_claims_do_not_take_for_ever() {
    let len = 128 << 20;
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=1, 20)).unwrap();
    let name = "wal/0000000001.wal";
    let mut bytes = disk.contents(name).unwrap();
    // The header of the file says how long it is.
    bytes[48..56].copy_from_slice(&(len as u64).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..BLOCK - 4]);
    bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc.to_le_bytes());
    let mut claim = bytes[BLOCK..2 * BLOCK].to_vec();
    claim[24..32].copy_from_slice(&9u64.to_le_bytes());
    claim[44..48].copy_from_slice(&((16u32 << 20) - 100).to_le_bytes());
    bytes.resize(len, 0);
    bytes[2 * BLOCK..].chunks_mut(BLOCK).for_each(|block| block.copy_from_slice(&claim));
    disk.overwrite(name, bytes);
    for from in [1, 2] {
        let error = open(&disk, from, 0, options_of(1, len as u64)).err().unwrap();
        assert!(matches!(error, WalError::Corrupt { seq: 2, .. }), "{error}");
        assert!(error.to_string().contains("more batches begin"), "{error}");
    }
    // Who looks at each file is shown what is sound of it.
    let files = underbelly_wal::inspect(shared(&disk), DB).unwrap();
    assert_eq!((files.len(), files[0].batches.len()), (1, 1));
    assert!(matches!(files[0].behind, underbelly_wal::Behind::Damage { .. }), "{:?}", files[0].behind);
}

#[test]
fn a_file_that_does_not_follow_on_is_told() {
    for (at, what) in [(56, "first seq"), (64, "first batch"), (80, "salt"), (88, "end"), (96, "checksum")] {
        let (disk, _) = several_files();
        let name = "wal/0000000003.wal";
        let mut bytes = disk.contents(name).unwrap();
        bytes[at + usize::from(at == 88)] ^= if at == 88 { 0x70 } else { 1 };
        let crc = crc32fast::hash(&bytes[..BLOCK - 4]);
        bytes[BLOCK - 4..BLOCK].copy_from_slice(&crc.to_le_bytes());
        // The batches of the file are dropped, so that the header alone tells.
        bytes[BLOCK..].fill(0);
        disk.overwrite(name, bytes);
        disk.remove("wal/0000000004.wal").unwrap();
        let opened = open(&disk, 1, 0, options_of(1, SMALL));
        assert!(matches!(opened, Err(WalError::Corrupt { .. })), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn rot_of_any_shape_gives_a_prefix_or_an_error(
        sealed: bool,
        reused: bool,
        rots in prop::collection::vec(rot(), 1..5),
    ) {
        let (disk, all) = small_log(sealed, reused);
        let names = logs(&disk);
        let name = |file: &usize| &names[file % names.len()];
        for rot in &rots {
            let (file, at, bytes) = match rot {
                Rot::Copy(from, block, file, to) => {
                    let bytes = disk.contents(name(from)).unwrap();
                    (file, to * BLOCK, bytes[block * BLOCK..(block + 1) * BLOCK].to_vec())
                }
                Rot::Zero(file, block) => (file, block * BLOCK, vec![0; BLOCK]),
                Rot::Noise(file, at, noise) => (file, *at, noise.clone()),
            };
            let mut whole = disk.contents(name(file)).unwrap();
            whole[at..at + bytes.len()].copy_from_slice(&bytes);
            disk.overwrite(name(file), whole);
        }
        if let Ok((_, recovery, seen)) = open(&disk, all[0].0, 0, options_of(9, SMALL)) {
            prop_assert_eq!(&seen[..], &all[..seen.len()]);
            prop_assert_eq!(recovery.last_seq, all[0].0 - 1 + seen.len() as u64);
        }
    }

    #[test]
    fn forged_files_are_read_without_panic(
        reused: bool,
        file in 0..8usize,
        changes in prop::collection::vec((0..4usize, 8..104usize, any::<u8>()), 1..6),
    ) {
        let (disk, all) = small_log(false, reused);
        let names = logs(&disk);
        let name = &names[file % names.len()];
        let mut bytes = disk.contents(name).unwrap();
        for (block, at, value) in changes {
            bytes[block * BLOCK + at] = value;
        }
        forge(&mut bytes);
        disk.overwrite(name, bytes);
        for from in [1, all[0].0, u64::MAX] {
            if let Ok((mut log, _, _)) = open(&disk, from, 0, options_of(9, SMALL)) {
                let next = log.next_seq();
                log.write(&records(next..=next, 10)).unwrap();
                log.recycle(next).unwrap();
            }
        }
    }
}
