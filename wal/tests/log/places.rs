//! Reading from a place that a checkpoint noted: damage before it stops nobody, and everything behind it is checked as
//! ever.

use underbelly_storage::disk::SimulatedDisk;
use underbelly_wal::{Follower, Log, Place, Recovery, Start, WalError, inspect, visit_sound};

use crate::world::*;

const SMALL: u64 = 64 << 10;

/// What stands behind the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    Nothing,
    Seal,
    Records,
    /// Records in the next file alone.
    NextFile,
}

/// Five records before a place, in a file that is fresh or was used before, and what stands behind it.
fn checkpointed(reused: bool, behind: Behind) -> (SimulatedDisk, Place, Records) {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(shared(&disk), DB, 1, options(SMALL)).unwrap();
    if reused {
        while log.stats().file < 4 {
            let next = log.next_seq();
            log.write(&records(next..=next, 9000)).unwrap();
            log.recycle(next).unwrap();
        }
    }
    let first = log.next_seq();
    (first..first + 5).for_each(|seq| log.write(&records(seq..=seq, 5000)).unwrap());
    let place = log.place();
    assert_eq!((place.seq, place.offset), (first + 5, if reused { 14 } else { 11 } * BLOCK as u64));
    let next = place.seq;
    let later = match behind {
        Behind::Nothing => Records::new(),
        Behind::Seal => {
            log.seal().unwrap();
            Records::new()
        }
        Behind::Records => {
            (next..next + 2).for_each(|seq| log.write(&records(seq..=seq, 300)).unwrap());
            records(next..=next + 1, 300)
        }
        Behind::NextFile => {
            log.write(&records(next..=next, 25_000)).unwrap();
            records(next..=next, 25_000)
        }
    };
    (disk, place, later)
}

fn start(place: &Place) -> Start {
    Start { seq: place.seq, place: Some(*place) }
}

fn open_at(disk: &SimulatedDisk, start: Start) -> Result<(Log, Recovery, Records), WalError> {
    let mut seen = Records::new();
    let mut visit = |seq: u64, bytes: &[u8]| {
        seen.push((seq, bytes.to_vec()));
        Ok::<(), WalError>(())
    };
    let (log, recovery) =
        Log::open(shared(disk), DB, start, start.seq - 1, options_of(9, SMALL), &mut visit)?;
    Ok((log, recovery, seen))
}

fn follow(disk: &SimulatedDisk, start: Start) -> Result<(Follower, Records), WalError> {
    let mut seen = Records::new();
    let mut follower = Follower::open(shared(disk), DB, start)?;
    follower.read(u64::MAX, &mut |seq: u64, bytes: &[u8]| {
        seen.push((seq, bytes.to_vec()));
        Ok::<(), WalError>(())
    })?;
    Ok((follower, seen))
}

/// The name of the file that holds the place, and its bytes.
fn file_of(disk: &SimulatedDisk, place: &Place) -> (String, Vec<u8>) {
    let name = format!("wal/{:010}.wal", place.file);
    let bytes = disk.contents(&name).unwrap();
    (name, bytes)
}

/// A flipped bit anywhere before the place is told, opens, and gives what stands behind it, as long as something there
/// shows that the log went on.
#[test]
fn damage_before_the_place_is_passed_over_and_told() {
    for reused in [false, true] {
        for behind in [Behind::Seal, Behind::Records, Behind::NextFile] {
            let (disk, place, later) = checkpointed(reused, behind);
            let (name, whole) = file_of(&disk, &place);
            let used = |at: &usize| whole[*at] != 0 && (at % BLOCK < 60 || at.is_multiple_of(1999));
            for at in (BLOCK..place.offset as usize).filter(used) {
                let what = format!("{reused} {behind:?} byte {at}");
                let rotten = disk.crash_keeping_all();
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                rotten.overwrite(&name, bytes);
                let from_the_head = open_at(&rotten.crash_keeping_all(), Start::at(place.seq)).map(|_| ());
                let (follower, followed) = follow(&rotten, start(&place)).unwrap();
                assert_eq!(followed, later, "{what}");
                let sound =
                    visit_sound(shared(&rotten), DB, start(&place), &mut |_, _| Ok::<_, WalError>(()));
                assert_eq!(sound.unwrap().next_seq, place.seq + later.len() as u64, "{what}");
                let (mut log, recovery, seen) = open_at(&rotten, start(&place)).unwrap();
                assert_eq!(seen, later, "{what}");
                assert_eq!(recovery.torn, None, "{what}");
                assert_eq!(follower.passed_over(), recovery.passed_over.as_ref(), "{what}");
                match recovery.passed_over {
                    // Bytes of an earlier use, or of padding.
                    None => assert!(from_the_head.is_ok() || behind == Behind::NextFile, "{what}"),
                    Some(told) => {
                        assert!(
                            told.offset <= at as u64 && at as u64 <= told.offset + 3 * BLOCK as u64,
                            "{what}: {told}"
                        );
                        assert!(told.to_string().contains(&name) && told.seq < place.seq, "{what}: {told}");
                        let refused = matches!(from_the_head, Err(WalError::Corrupt { .. }));
                        assert!(refused || behind == Behind::NextFile, "{what}");
                    }
                }
                // The log goes on, and the next opening finds what was written.
                let next = log.next_seq();
                log.write(&records(next..=next, 100)).unwrap();
                drop(log);
                assert_eq!(
                    open_at(&rotten.crash(), start(&place)).unwrap().2.len(),
                    later.len() + 1,
                    "{what}"
                );
            }
        }
    }
}

/// Damage behind the place is what it is without one.
#[test]
fn damage_behind_the_place_is_refused_as_ever() {
    let (disk, place, later) = checkpointed(true, Behind::Records);
    let (name, whole) = file_of(&disk, &place);
    let end = place.offset as usize + 2 * BLOCK;
    for at in (place.offset as usize..end).filter(|at| at % BLOCK < 380) {
        let rotten = disk.crash_keeping_all();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        rotten.overwrite(&name, bytes);
        let is_last = at >= end - BLOCK;
        match open_at(&rotten, start(&place)) {
            Ok((_, recovery, seen)) => {
                assert!(
                    seen == later || is_last && seen == later[..1] && recovery.torn.is_some(),
                    "byte {at}"
                );
            }
            Err(WalError::Corrupt { offset, seq, .. }) => {
                assert!(!is_last && (offset, seq) == (place.offset, place.seq), "byte {at}");
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

/// A file that was put back as it was before the place is not taken for one that rotted: it lacks what came after.
#[test]
fn an_older_state_of_the_file_is_refused() {
    for behind in [Behind::Nothing, Behind::Seal, Behind::Records] {
        let (disk, place, _) = checkpointed(false, behind);
        let (name, whole) = file_of(&disk, &place);
        for batches in 0..5 {
            let older = disk.crash_keeping_all();
            let mut bytes = whole.clone();
            bytes[BLOCK + 2 * BLOCK * batches..].fill(0);
            older.overwrite(&name, bytes);
            let opened = open_at(&older, start(&place));
            assert!(matches!(opened, Err(WalError::Corrupt { .. })), "{behind:?} {batches}");
            assert!(matches!(follow(&older, start(&place)), Err(WalError::Corrupt { .. })), "{behind:?}");
        }
        assert!(open_at(&disk, start(&place)).unwrap().1.passed_over.is_none(), "{behind:?}");
    }
}

/// A log that ends at the place is whole, and is appended to.
#[test]
fn a_log_that_ends_at_the_place_goes_on_there() {
    for reused in [false, true] {
        let (disk, place, _) = checkpointed(reused, Behind::Nothing);
        let (mut log, recovery, seen) = open_at(&disk.crash(), start(&place)).unwrap();
        assert!(seen.is_empty() && recovery.sealed && recovery.last_seq == place.seq - 1);
        assert_eq!(log.place(), place);
        log.write(&records(place.seq..=place.seq, 10)).unwrap();
        assert_eq!(log.stats().file, place.file);
    }
}

/// Places that contradict the file are refused, not believed.
#[test]
fn a_place_that_is_none_is_refused() {
    let (disk, place, later) = checkpointed(false, Behind::Records);
    let wrong = [
        Place { salt: place.salt ^ 1, ..place },
        Place { offset: place.offset + 1, ..place },
        Place { offset: 0, ..place },
        Place { offset: !4095, ..place },
        Place { seq: place.seq + 1, ..place },
        Place { seq: 0, ..place },
        Place { batch: 0, ..place },
        Place { batch: u64::MAX, ..place },
        Place { offset: place.offset - 2 * BLOCK as u64, ..place },
        Place { crc: place.crc ^ 1, ..place },
        Place { batch: place.batch + 1, ..place },
    ];
    for wrong in wrong {
        let start = Start { seq: place.seq, place: Some(wrong) };
        assert!(matches!(open_at(&disk, start), Err(WalError::Corrupt { .. })), "{wrong:?}");
        assert!(matches!(follow(&disk, start), Err(WalError::Corrupt { .. })), "{wrong:?}");
    }
    // One in a file that is gone, or was never there, is none that is known.
    for file in [0, 7] {
        let start = Start { seq: place.seq, place: Some(Place { file, ..place }) };
        assert_eq!(open_at(&disk.crash_keeping_all(), start).unwrap().2, later, "file {file}");
    }
}

/// Without a header the records behind the place can be saved still, and no others are taken for them.
#[test]
fn what_stands_behind_the_place_is_saved_without_the_files_header() {
    let (disk, place, later) = checkpointed(true, Behind::Records);
    let (name, whole) = file_of(&disk, &place);
    for at in [0, 40, 60, 4095] {
        let rotten = disk.crash_keeping_all();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        rotten.overwrite(&name, bytes);
        assert!(matches!(open_at(&rotten, start(&place)), Err(WalError::Corrupt { offset: 0, .. })));
        let mut seen = Records::new();
        let sound = visit_sound(shared(&rotten), DB, start(&place), &mut |seq, bytes| {
            seen.push((seq, bytes.to_vec()));
            Ok::<_, WalError>(())
        })
        .unwrap();
        assert_eq!((seen, sound.next_seq), (later.clone(), place.seq + 2));
        assert!(matches!(sound.damage, Some(WalError::Corrupt { .. })), "{sound:?}");
    }
}

/// A place that is none gives nothing where the header is lost either: the damage is told, and no record is left out in
/// silence.
#[test]
fn a_place_that_is_none_is_refused_without_the_files_header_too() {
    let (disk, place, _) = checkpointed(true, Behind::Records);
    let (name, mut bytes) = file_of(&disk, &place);
    bytes[40] ^= 1;
    let length = bytes.len() as u64;
    disk.overwrite(&name, bytes);
    let wrong = [
        Place { salt: 0, ..place },
        Place { offset: place.offset + 1, ..place },
        Place { offset: 0, ..place },
        Place { offset: length + BLOCK as u64, ..place },
        Place { offset: !4095, ..place },
        Place { seq: 0, ..place },
        Place { seq: place.seq + 1, ..place },
        Place { seq: u64::MAX, ..place },
        Place { batch: 0, ..place },
        Place { batch: u64::MAX, ..place },
    ];
    for wrong in wrong {
        for seq in
            [place.seq, u64::MAX].into_iter().filter(|seq| *seq == place.seq || wrong.seq > place.seq + 1)
        {
            let begin = Start { seq, place: Some(wrong) };
            let mut seen = 0;
            let sound = visit_sound(shared(&disk), DB, begin, &mut |_, _| {
                seen += 1;
                Ok::<_, WalError>(())
            });
            let sound = sound.unwrap();
            assert_eq!((seen, sound.next_seq), (0, seq), "{wrong:?}");
            let Some(WalError::Corrupt { file, what, .. }) = sound.damage else {
                panic!("{wrong:?}: {sound:?}")
            };
            assert!(file == name && what.contains("a place that is none"), "{wrong:?}: {what}");
        }
    }
    // The records before the one that is wanted are passed over.
    let (disk, place, later) = checkpointed(true, Behind::Records);
    let (name, mut bytes) = file_of(&disk, &place);
    bytes[40] ^= 1;
    disk.overwrite(&name, bytes);
    let mut seen = Records::new();
    let begin = Start { seq: place.seq + 1, place: Some(place) };
    let sound = visit_sound(shared(&disk), DB, begin, &mut |seq, bytes| {
        seen.push((seq, bytes.to_vec()));
        Ok::<_, WalError>(())
    });
    assert_eq!((seen, sound.unwrap().next_seq), (later[1..].to_vec(), place.seq + 2));
}

/// Bytes at which an inspection finds damage before and behind the place.
fn inspected(disk: &SimulatedDisk, place: &Place) -> (Vec<u64>, Vec<u64>) {
    let files = inspect(shared(disk), DB).unwrap();
    let file = files.iter().find(|file| file.number == place.file).unwrap();
    let (before, behind) = file.damages_around(place);
    let offset = |damage: &WalError| match damage {
        WalError::Corrupt { file: found, offset, .. } if *found == file.file => *offset,
        other => panic!("{other}"),
    };
    (before.iter().map(|damage| damage.offset).collect(), behind.iter().map(offset).collect())
}

/// An inspection tells damage behind the place as what it is, whatever is damaged before it, and wherever recovery refuses
/// the log it names more than what a checkpoint holds.
#[test]
fn damage_on_both_sides_of_the_place_is_told_apart() {
    for reused in [false, true] {
        for behind in [Behind::Nothing, Behind::Seal, Behind::Records, Behind::NextFile] {
            let (disk, place, _) = checkpointed(reused, behind);
            let (name, whole) = file_of(&disk, &place);
            assert_eq!(inspected(&disk, &place), (vec![], vec![]));
            let blocks: Vec<usize> = (BLOCK..place.offset as usize + 3 * BLOCK)
                .step_by(BLOCK)
                .filter(|at| whole.get(*at).is_some_and(|byte| *byte != 0))
                .collect();
            for (i, one) in blocks.iter().enumerate() {
                for other in &blocks[i..] {
                    let mut bytes = whole.clone();
                    [one, other].into_iter().for_each(|at| bytes[at + 10..at + 14].fill(0x77));
                    let rotten = disk.crash_keeping_all();
                    rotten.overwrite(&name, bytes);
                    let (passed, told) = inspected(&rotten, &place);
                    let what = format!("{reused} {behind:?} {one} {other}: {passed:?} {told:?}");
                    assert!(passed.iter().all(|at| *at < place.offset), "{what}");
                    // A tear is no damage, as ever.
                    let refused = open_at(&rotten, start(&place)).is_err();
                    assert_eq!(!told.is_empty(), refused, "{what}");
                    let is_before = (*one as u64) < place.offset;
                    assert!(!is_before || !passed.is_empty() || !told.is_empty(), "{what}");
                }
            }
        }
    }
}

/// A place that the log does not lead to is told wherever recovery refuses it, also where the log ends there.
#[test]
fn a_place_that_the_log_does_not_lead_to_is_told() {
    for behind in [Behind::Nothing, Behind::Seal, Behind::Records, Behind::NextFile] {
        let (disk, place, _) = checkpointed(false, behind);
        let wrongs = [Place { crc: place.crc ^ 1, ..place }, Place { batch: place.batch + 1, ..place }];
        for wrong in wrongs {
            let (passed, told) = inspected(&disk, &wrong);
            let what = format!("{behind:?} {wrong:?}: {passed:?} {told:?}");
            // With the end of a file nobody begins to read.
            let is_wrong = !matches!(behind, Behind::NextFile);
            assert_eq!(told, if is_wrong { vec![place.offset] } else { vec![] }, "{what}");
            assert_eq!(open_at(&disk, start(&wrong)).is_err(), is_wrong, "{what}");
        }
    }
}

/// A whole batch that directly follows, and is not the next one, is told as recovery tells it.
#[test]
fn a_batch_that_does_not_follow_is_told_as_recovery_tells_it() {
    let (disk, place, _) = checkpointed(false, Behind::Records);
    let (name, whole) = file_of(&disk, &place);
    // The second batch stands where the first one stood; or the first one is damaged.
    let (mut moved, mut damaged) = (whole.clone(), whole.clone());
    moved.copy_within(3 * BLOCK..5 * BLOCK, BLOCK);
    damaged[BLOCK + 70] ^= 1;
    for (bytes, told) in [(moved, "batch 2 does not follow"), (damaged, "but batch 2 at byte 12288 is valid")]
    {
        disk.overwrite(&name, bytes);
        let refused = open_at(&disk, Start::at(1)).map(drop).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        let files = inspect(shared(&disk), DB).unwrap();
        assert_eq!(files[0].damages()[0].to_string(), refused);
    }
}

/// Both damages are named, each at its byte.
#[test]
fn two_damages_are_two() {
    let (disk, place, _) = checkpointed(false, Behind::Records);
    let (name, mut bytes) = file_of(&disk, &place);
    let offset = place.offset as usize;
    bytes[3 * BLOCK + 70] ^= 1;
    bytes[offset + 70] ^= 1;
    disk.overwrite(&name, bytes);
    let files = inspect(shared(&disk), DB).unwrap();
    assert_eq!(files[0].damages().len(), 2, "{:?}", files[0].damages());
    assert_eq!(inspected(&disk, &place), (vec![3 * BLOCK as u64], vec![place.offset]));
    // One stretch over the place.
    let mut bytes = disk.contents(&name).unwrap();
    bytes[3 * BLOCK..offset + BLOCK].fill(0);
    disk.overwrite(&name, bytes);
    assert_eq!(inspected(&disk, &place), (vec![3 * BLOCK as u64], vec![place.offset]));
    let wrong = Place { salt: 5, ..place };
    assert_eq!(inspected(&disk, &wrong), (vec![], vec![0]));
}
