//! Readers beside the writer, and readers of what a crash or rot left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proptest::prelude::*;
use underbelly_storage::disk::{Act, Disk, FaultyDisk, SimulatedDisk};
use underbelly_wal::{
    Behind, Follower, Log, Start, WalError, gap_behind, gaps, inspect, visit_sound, visit_sound_upto,
};

use crate::world::*;

const SMALL: u64 = 16 << 10;

fn read(follower: &mut Follower, upto: u64) -> Result<(u64, Records), WalError> {
    let mut seen = Records::new();
    let next = follower.read(upto, &mut |seq, bytes| {
        seen.push((seq, bytes.to_vec()));
        Ok::<(), WalError>(())
    })?;
    Ok((next, seen))
}

fn sound(disk: &SimulatedDisk, from: u64) -> Result<(underbelly_wal::Sound, Records), WalError> {
    let mut seen = Records::new();
    let sound = visit_sound(shared(disk), DB, Start::at(from), &mut |seq, bytes| {
        seen.push((seq, bytes.to_vec()));
        Ok::<(), WalError>(())
    })?;
    Ok((sound, seen))
}

#[test]
fn a_follower_gives_each_record_once_up_to_the_bound_and_changes_nothing() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let mut follower = Follower::open(shared(&disk), DB, Start::at(3)).unwrap();
    assert_eq!(read(&mut follower, 9).unwrap(), (1, Vec::new()), "an empty log ends before the third record");
    log.write(&records(1..=5, 40)).unwrap();
    let calls = disk.calls();
    assert_eq!(read(&mut follower, 4).unwrap(), (5, records(3..=4, 40)), "half of a batch");
    assert_eq!(read(&mut follower, 4).unwrap(), (5, Vec::new()));
    assert_eq!(read(&mut follower, 5).unwrap(), (6, records(5..=5, 40)));
    assert_eq!(disk.calls(), calls);
    for seq in 6..=30 {
        log.write(&records(seq..=seq, 2000)).unwrap();
    }
    log.seal().unwrap();
    let calls = disk.calls();
    assert!(log.stats().file > 4, "the log spans files");
    assert_eq!(read(&mut follower, u64::MAX).unwrap(), (31, records(6..=30, 2000)));
    assert_eq!(follower.next_seq(), 31);
    let mut late = Follower::open(shared(&disk), DB, Start::at(17)).unwrap();
    assert_eq!(read(&mut late, 20).unwrap(), (21, records(17..=20, 2000)));
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_record_that_its_visitor_refused_is_given_again() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    log.write(&records(1..=4, 40)).unwrap();
    let mut follower = Follower::open(shared(&disk), DB, Start::at(1)).unwrap();
    let refused = follower.read(9, &mut |seq, _| match seq {
        3 => Err(WalError::Poisoned { cause: "the visitor".to_string() }),
        _ => Ok(()),
    });
    assert!(matches!(refused, Err(WalError::Poisoned { .. })));
    assert_eq!(read(&mut follower, 9).unwrap(), (5, records(3..=4, 40)));
}

#[test]
fn a_batch_that_is_being_written_ends_the_reading_quietly() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(1 << 16)).unwrap();
    log.write(&records(1..=1, 40)).unwrap();
    let before = disk.crash_keeping_all();
    log.write(&records(2..=2, 9000)).unwrap();
    let name = "wal/0000000001.wal";
    let new = disk.contents(name).unwrap();
    let file = before.open(name).unwrap();
    let mut follower = Follower::open(shared(&before), DB, Start::at(1)).unwrap();
    assert_eq!(read(&mut follower, 9).unwrap().0, 2);
    for cut in (2 * BLOCK..5 * BLOCK).step_by(512) {
        file.write_at(&new[..cut], 0).unwrap();
        let part = read(&mut follower, 9).unwrap();
        let written = 2 * BLOCK + 56 + 12 + 9000;
        if cut < written {
            assert_eq!(part, (2, Vec::new()), "{cut}");
            let files = inspect(shared(&before), DB).unwrap();
            let torn = matches!(files[0].behind, Behind::Torn { .. });
            assert!(torn || cut == 2 * BLOCK, "{cut}: {files:?}");
        } else {
            assert_eq!(part, (3, records(2..=2, 9000)));
            break;
        }
    }
    assert_eq!(follower.next_seq(), 3);
}

/// A log of which file 1 holds records 1, 2 and behind its end one that was given up, and file 2 the true 3 and 4; and a reader that has
/// read 1 and 2.
fn given_up() -> (SimulatedDisk, Follower) {
    let disk = SimulatedDisk::new();
    let name = "wal/0000000001.wal";
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    log.write(&records(1..=2, 40)).unwrap();
    let without = disk.contents(name).unwrap();
    log.write(&records(3..=3, 50)).unwrap();
    let with = disk.contents(name).unwrap();
    drop(log);
    disk.overwrite(name, without);
    let mut beside = Follower::open(shared(&disk), DB, Start::at(1)).unwrap();
    assert_eq!(read(&mut beside, 2).unwrap(), (3, records(1..=2, 40)));
    let (mut log, ..) = open(&disk, 1, 0, options(SMALL)).unwrap();
    log.write(&records(3..=4, 60)).unwrap();
    drop(log);
    disk.overwrite(name, with);
    (disk, beside)
}

/// A batch that was given up may come back whole: a later crash may keep sectors that an earlier one lost. The next file
/// says that the log does not hold it.
#[test]
fn a_batch_that_was_given_up_is_not_read() {
    let (disk, mut beside) = given_up();
    let expected = [records(1..=2, 40), records(3..=4, 60)].concat();
    for upto in [4, u64::MAX] {
        let mut late = Follower::open(shared(&disk), DB, Start::at(1)).unwrap();
        assert_eq!(read(&mut late, upto).unwrap(), (5, expected.clone()));
    }
    assert_eq!(read(&mut beside, 4).unwrap(), (5, records(3..=4, 60)));
    assert_eq!(sound(&disk, 1).unwrap().1, expected);
}

/// Where the next file cannot be opened for a moment, nobody knows where this one ends, and what was given up behind its end is not
/// taken for the true record.
#[test]
fn an_end_that_cannot_be_read_hides_no_batch_that_was_given_up() {
    let (disk, _) = given_up();
    let faulty = FaultyDisk::new(disk);
    let mut follower = Follower::open(Arc::new(faulty.clone()), DB, Start::at(1)).unwrap();
    faulty.watch(|call| match call.act {
        Act::Open if call.name == "wal/0000000002.wal" => Err(std::io::Error::other("for a moment")),
        _ => Ok(()),
    });
    for upto in [3, 4] {
        let mut given = Vec::new();
        let read = follower.read::<WalError>(upto, &mut |seq, _| {
            given.push(seq);
            Ok(())
        });
        assert!(matches!(&read, Err(WalError::Io { file, .. }) if file == "wal/0000000002.wal"), "{read:?}");
        assert!(given.is_empty(), "{given:?}");
    }
    faulty.watch(|_| Ok(()));
    let expected = [records(1..=2, 40), records(3..=4, 60)].concat();
    assert_eq!(read(&mut follower, 4).unwrap(), (5, expected));
}

#[test]
fn a_recycled_file_is_told_and_never_gives_other_records() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let mut next = 1;
    let mut fill = |log: &mut Log, files: u64| {
        let until = log.stats().file + files;
        while log.stats().file < until {
            log.write(&records(next..=next, 2000)).unwrap();
            next += 1;
        }
        next - 1
    };
    let mut follower = Follower::open(shared(&disk), DB, Start::at(1)).unwrap();
    assert_eq!(read(&mut follower, 1).unwrap().0, 1);
    fill(&mut log, 1);
    assert_eq!(read(&mut follower, 1).unwrap().0, 2);
    let last = fill(&mut log, 2);
    log.recycle(last - 1).unwrap();
    // The file is a spare now, but holds what it held: either answer is right, and no other record is.
    match read(&mut follower, last) {
        Err(WalError::Recycled { .. }) => {}
        other => panic!("{other:?}"),
    }
    let last = fill(&mut log, 4);
    let gone = read(&mut follower, last);
    assert!(
        matches!(&gone, Err(WalError::Recycled { file, .. }) if file.ends_with("0000000001.wal")),
        "{gone:?}"
    );
    assert!(matches!(
        Follower::open(shared(&disk), DB, Start::at(1)),
        Err(WalError::Recycled { seq: 1, .. })
    ));
    assert!(matches!(sound(&disk, 1), Err(WalError::Recycled { seq: 1, .. })));
    let mut again = Follower::open(shared(&disk), DB, Start::at(last)).unwrap();
    assert_eq!(read(&mut again, u64::MAX).unwrap(), (last + 1, records(last..=last, 2000)));
}

#[test]
fn a_missing_file_between_others_is_damage() {
    let (disk, last) = several_files();
    let first = disk.contents("wal/0000000001.wal").unwrap();
    disk.remove("wal/0000000003.wal").unwrap();
    let from_the_end = Follower::open(shared(&disk), DB, Start::at(1)).map(|_| ());
    assert!(
        matches!(&from_the_end, Err(WalError::Corrupt { file, .. }) if file.ends_with("3.wal")),
        "{from_the_end:?}"
    );
    let files = inspect(shared(&disk), DB).unwrap();
    assert_eq!(files.iter().map(|file| file.number).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(files[2].header.as_ref().unwrap().follows, None);
    let first_of = |number: u64| {
        let file = files.iter().find(|file| file.number == number).unwrap();
        file.header.as_ref().unwrap().first_seq
    };
    // It is told to who needs what stood there, and to nobody else.
    for (seq, is_needed) in [(1, true), (first_of(4) - 1, true), (first_of(4), false), (last, false)] {
        let found = gaps(&files, seq);
        assert_eq!(found.len(), usize::from(is_needed), "seq {seq}: {found:?}");
        let told = gap_behind(&shared(&disk), DB, seq).unwrap().map(|gap| gap.to_string());
        assert_eq!(told, found.first().map(ToString::to_string));
        assert!(found.iter().all(|gap| gap.to_string().contains("wal/0000000004.wal")), "{found:?}");
    }
    // So is one that was the first.
    disk.remove("wal/0000000001.wal").unwrap();
    let files = inspect(shared(&disk), DB).unwrap();
    assert_eq!(gaps(&files, first_of(2)).len(), 1);
    assert_eq!(gaps(&files, 1).len(), 2);
    disk.overwrite("wal/0000000001.wal", first);
    let (kept, seen) = sound(&disk, 1).unwrap();
    assert!(kept.next_seq < last && !seen.is_empty());
    assert_eq!(seen, records(1..=kept.next_seq - 1, 2000));
}

/// A log of five files with records of 2,000 bytes, and its last seq.
fn several_files() -> (SimulatedDisk, u64) {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let mut seq = 0;
    while log.stats().file < 5 {
        seq += 1;
        log.write(&records(seq..=seq, 2000)).unwrap();
    }
    (disk, seq)
}

#[test]
fn what_is_sound_before_damage_can_be_kept() {
    for (file, block, kept_until) in [(1, 2, 1), (3, 1, 6), (5, 0, 12)] {
        let (disk, last) = several_files();
        assert_eq!(sound(&disk, 1).unwrap().1, records(1..=last, 2000));
        let name = format!("wal/{file:010}.wal");
        let mut bytes = disk.contents(&name).unwrap();
        bytes[block * BLOCK + 70] ^= 4;
        disk.overwrite(&name, bytes);
        assert!(open(&disk, 1, 0, options_of(1, SMALL)).is_err());
        let (kept, seen) = sound(&disk, 1).unwrap();
        assert_eq!(seen, records(1..=kept_until, 2000));
        assert_eq!(kept.next_seq, kept_until + 1);
        assert!(matches!(kept.damage, Some(WalError::Corrupt { .. })), "{:?}", kept.damage);
        let files = inspect(shared(&disk), DB).unwrap();
        let rotten = &files[file as usize - 1];
        assert!(
            matches!(rotten.behind, Behind::Damage { .. } | Behind::Short { .. } | Behind::Unread),
            "{rotten:?}"
        );
        assert_eq!(rotten.header.is_err(), block == 0);
        let others = files.iter().filter(|other| other.number != file);
        assert!(others.into_iter().all(|other| other.behind == Behind::Nothing), "{files:?}");
    }
}

#[test]
fn an_inspection_lists_what_was_written() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 7, options(1 << 16)).unwrap();
    log.write(&records(7..=9, 40)).unwrap();
    log.write(&records(10..=10, 5000)).unwrap();
    log.seal().unwrap();
    let calls = disk.calls();
    let files = inspect(shared(&disk), DB).unwrap();
    assert_eq!(disk.calls(), calls);
    let [file] = &files[..] else { panic!("{files:?}") };
    let header = file.header.as_ref().unwrap();
    assert_eq!((file.number, header.first_seq, header.first_batch, header.reused), (1, 7, 1, false));
    let batches: Vec<_> = file
        .batches
        .iter()
        .map(|b| (b.offset, b.bytes, b.number, b.first_seq, b.records, b.seal, b.follows))
        .collect();
    let expected = [
        (4096, 4096, 1, 7, 3, false, true),
        (8192, 8192, 2, 10, 1, false, true),
        (16384, 4096, 3, 11, 0, true, true),
    ];
    assert_eq!(batches, expected);
    assert_eq!((file.end, file.behind), (20480, Behind::Nothing));
    let mut bytes = disk.contents(&file.file).unwrap();
    bytes[8200] ^= 1;
    disk.overwrite("wal/0000000001.wal", bytes);
    let files = inspect(shared(&disk), DB).unwrap();
    assert_eq!((files[0].end, files[0].behind), (8192, Behind::Damage { next_whole: 16384 }));
    assert_eq!(files[0].batches.iter().map(|batch| batch.follows).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn every_flipped_byte_gives_a_follower_a_prefix_or_an_error() {
    let (disk, last) = several_files();
    for name in disk.files().into_iter().filter(|name| name.ends_with(".wal")) {
        let whole = disk.contents(&name).unwrap();
        for at in (0..whole.len()).filter(|at| at % BLOCK < 200 || at % 97 == 0) {
            let rotten = disk.crash_keeping_all();
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            rotten.overwrite(&name, bytes);
            let opened = open(&rotten.crash(), 1, 0, options_of(9, SMALL)).map(|opened| opened.2);
            let followed = Follower::open(shared(&rotten), DB, Start::at(1))
                .and_then(|mut follower| read(&mut follower, u64::MAX))
                .map(|(_, seen)| seen);
            let (kept, seen) = match sound(&rotten, 1) {
                Err(WalError::Recycled { .. }) if name.contains("01.wal") && at < BLOCK => continue,
                sound => sound.unwrap(),
            };
            assert_eq!(seen, records(1..=kept.next_seq - 1, 2000), "{name} byte {at}");
            inspect(shared(&rotten), DB).unwrap();
            if let Ok(followed) = &followed {
                assert_eq!(followed, &seen, "{name} byte {at}");
            }
            match opened {
                Ok(opened) => assert_eq!((opened, kept.damage.is_none()), (seen, true), "{name} byte {at}"),
                Err(_) => assert!(kept.damage.is_some() && seen.len() < last as usize, "{name} byte {at}"),
            }
        }
    }
}

#[test]
fn a_follower_keeps_up_with_a_writer_that_recycles() {
    const LAST: u64 = 3000;
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    let durable = AtomicU64::new(0);
    let checkpoint = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=LAST {
                log.write(&records(seq..=seq, 200 + (seq % 5 * 900) as usize)).unwrap();
                durable.store(seq, Ordering::SeqCst);
                if seq % 16 == 0 {
                    checkpoint.store(seq - 8, Ordering::SeqCst);
                    log.recycle(seq - 8).unwrap();
                }
            }
            stop.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut follower = Follower::open(shared(&disk), DB, Start::at(1)).ok();
                let mut expected = 1;
                while expected <= LAST {
                    let upto = durable.load(Ordering::SeqCst);
                    let Some(reader) = &mut follower else {
                        expected = checkpoint.load(Ordering::SeqCst) + 1;
                        follower = match Follower::open(shared(&disk), DB, Start::at(expected)) {
                            Ok(reader) => Some(reader),
                            Err(WalError::Recycled { .. }) => None,
                            Err(error) => panic!("{error}"),
                        };
                        continue;
                    };
                    match read(reader, upto) {
                        Ok((next, seen)) => {
                            for (seq, bytes) in seen {
                                assert_eq!(
                                    (seq, bytes),
                                    (expected, record(seq, 200 + (seq % 5 * 900) as usize))
                                );
                                expected += 1;
                            }
                            assert!(next > upto, "what was durable was not given");
                        }
                        Err(WalError::Recycled { .. }) => {
                            assert!(
                                checkpoint.load(Ordering::SeqCst) >= expected,
                                "recycled without a checkpoint"
                            );
                            follower = None;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    if stop.load(Ordering::SeqCst) && expected > LAST {
                        break;
                    }
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Writes, crashes and recoveries beside a reader that never passes what is durable.
    #[test]
    fn a_follower_outlives_crashes_of_the_writer(steps in prop::collection::vec((0u8..8, 1usize..4000), 1..60)) {
        let mut disk = SimulatedDisk::new();
        let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
        let (mut seq, mut given, mut openings) = (0, 0, 1);
        let mut lengths = Vec::new();
        let mut follower = Follower::open(shared(&disk), DB, Start::at(1)).unwrap();
        for (step, len) in steps {
            match step {
                0 => {
                    // A reader is a process of its own; a power cut ends it too.
                    disk = disk.crash();
                    openings += 1;
                    log = open(&disk, seq + 1, seq, options_of(openings, SMALL)).unwrap().0;
                    follower = Follower::open(shared(&disk), DB, Start::at(given + 1)).unwrap();
                }
                1 => {
                    openings += 1;
                    log = open(&disk, seq + 1, seq, options_of(openings, SMALL)).unwrap().0;
                }
                2 => log.seal().unwrap(),
                3 => {
                    let (next, seen) = read(&mut follower, seq).unwrap();
                    prop_assert_eq!(next, seq + 1);
                    for (found, bytes) in seen {
                        given += 1;
                        prop_assert_eq!(found, given);
                        prop_assert_eq!(bytes, record(found, lengths[found as usize - 1]));
                    }
                    log.recycle(given).unwrap();
                }
                _ => {
                    seq += 1;
                    lengths.push(len);
                    log.write(&records(seq..=seq, len)).unwrap();
                }
            }
        }
    }
}

/// What a writer appends while the end is looked at is no damage; that the log ends before what was durable is.
#[test]
fn what_is_appended_meanwhile_is_no_damage() {
    for upto in [3, u64::MAX] {
        let disk = SimulatedDisk::new();
        // Longer than what is read at once.
        let mut log = Log::create(shared(&disk), DB, 1, options(4 << 20)).unwrap();
        log.write(&records(1..=2, 40)).unwrap();
        log.write(&records(3..=3, 40)).unwrap();
        let mut seen = Vec::new();
        let mut visit = |seq, bytes: &[u8], place| {
            seen.push((seq, bytes.to_vec(), place));
            if seq == 3 {
                log.write(&records(4..=5, 40))?;
            }
            Ok::<(), WalError>(())
        };
        let sound = visit_sound_upto(shared(&disk), DB, Start::at(1), upto, &mut visit).unwrap();
        assert!(sound.damage.is_none(), "{sound:?}");
        assert_eq!(sound.next_seq, 4);
        let places = [(1, BLOCK as u64), (1, BLOCK as u64), (1, 2 * BLOCK as u64)];
        let expected: Vec<_> = records(1..=3, 40).into_iter().zip(places).collect();
        assert!(seen.into_iter().map(|(seq, bytes, place)| ((seq, bytes), place)).eq(expected));
        let late = visit_sound_upto(shared(&disk), DB, Start::at(1), 9, &mut |_, _, _| Ok::<_, WalError>(()));
        let damage = late.unwrap().damage.unwrap().to_string();
        assert!(
            damage.contains("where seq 6 was expected") && damage.contains("durable up to 9"),
            "{damage}"
        );
    }
}

/// Whoever looks at a stray file names the sequence number that is expected there, whatever was looked for.
#[test]
fn a_stray_file_is_told_with_the_seq_that_is_expected_in_it() {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    log.write(&records(1..=5, 40)).unwrap();
    drop(log);
    disk.overwrite("wal/0000000009.wal", Vec::new());
    let told = [
        inspect(shared(&disk), DB).unwrap()[1].damages()[0].to_string(),
        Follower::open(shared(&disk), DB, Start::at(2)).map(drop).unwrap_err().to_string(),
        open(&disk, 2, 0, options(SMALL)).map(drop).unwrap_err().to_string(),
    ];
    assert!(
        told.iter().all(|told| told.contains("wal/0000000009.wal") && told.contains("seq 6 ")),
        "{told:?}"
    );
}
