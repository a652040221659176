#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::{RealDisk, SharedDisk, SimulatedDisk};
use crate::error::StorageError;

const DB: [u8; 16] = [7; 16];
const INFO: SealInfo = SealInfo { seq: 5, keys: 300 };

fn folder(dir: &Path) -> IndexFolder {
    let disk: SharedDisk = Arc::new(RealDisk::new(dir));
    IndexFolder::new(&disk, DB, "index").unwrap()
}

fn keys(index: &dyn Index, from: &[u8], to: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut take = |key: &[u8]| {
        found.push(key.to_vec());
        ControlFlow::Continue(())
    };
    index.visit(from, to, &mut take).unwrap();
    found
}

fn numbered(n: u16) -> Vec<Vec<u8>> {
    (0..n).map(|i| i.to_be_bytes().to_vec()).collect()
}

/// A folder with an index that was put away.
fn sealed() -> TempDir {
    let dir = TempDir::new().unwrap();
    let folder = folder(dir.path());
    assert!(matches!(folder.take(&|| false).unwrap(), Found::Nothing));
    let index = folder.create().unwrap();
    index.change(&numbered(300), &[]).unwrap();
    folder.put_away(index, INFO, &|| false).unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn what_was_put_away_is_found_again() {
    let dir = sealed();
    let folder = folder(dir.path());
    assert_eq!(folder.sealed().unwrap(), Some(INFO));
    let Found::Index(index, info) = folder.take(&|| false).unwrap() else { panic!("it is gone") };
    assert_eq!((keys(&index, &[], None), info), (numbered(300), INFO));
    // Its seal is broken now, and made anew when it is put away again.
    assert_eq!(folder.sealed().unwrap(), None);
    assert!(matches!(folder.take(&|| false), Err(IndexError::NotSealed)));
    index.change(&[vec![9; 3]], &numbered(10)).unwrap();
    folder.put_away(index, SealInfo { seq: 6, keys: 291 }, &|| false).unwrap();
    let Found::Index(index, info) = folder.take(&|| false).unwrap() else { panic!("it is gone") };
    assert_eq!((keys(&index, &[], None).len(), info.seq), (291, 6));
}

#[test]
fn a_disk_that_is_no_folder_has_no_index_folder() {
    let disk: SharedDisk = Arc::new(SimulatedDisk::new());
    assert!(IndexFolder::new(&disk, DB, "index").is_none());
}

#[test]
fn whatever_differs_from_the_seal_is_refused_before_sled_sees_it() {
    let whole = sealed();
    let refused = |what: &str, damage: &dyn Fn(&Path)| {
        let dir = TempDir::new().unwrap();
        copy(whole.path(), dir.path());
        damage(&dir.path().join("index"));
        let folder = folder(dir.path());
        let error = folder.take(&|| false).map(|_| ()).expect_err(what);
        assert!(!error.to_string().is_empty());
        // Afterwards there is room for another.
        folder.set_aside().unwrap();
        folder.set_aside().unwrap();
        let index = folder.create().unwrap();
        assert!(keys(&index, &[], None).is_empty());
        error
    };
    let changed = |error: &IndexError| matches!(error, IndexError::Changed { .. });
    for file in ["sled/db", "sled/conf", "SEAL"] {
        let len = fs::metadata(whole.path().join("index").join(file)).unwrap().len() as usize;
        for at in [0, 8, len / 3, len / 2, len - 1].map(|at| at.min(len - 1)) {
            let flip = |index: &Path| {
                let path = index.join(file);
                let mut bytes = fs::read(&path).unwrap();
                bytes[at] ^= 0x40;
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
            };
            let error = refused("flipped", &flip);
            assert!(changed(&error) || matches!(error, IndexError::Seal(_)), "{file} {at}: {error}");
        }
        let rewrite = |index: &Path, bytes: &[u8]| {
            fs::remove_file(index.join(file)).unwrap();
            fs::write(index.join(file), bytes).unwrap();
        };
        refused("emptied", &|index| rewrite(index, &[]));
        refused("garbage", &|index| rewrite(index, &[0xa5; 70_000]));
        refused("gone", &|index| fs::remove_file(index.join(file)).unwrap());
        refused("a folder", &|index| {
            fs::remove_file(index.join(file)).unwrap();
            fs::create_dir(index.join(file)).unwrap();
        });
        refused("a link", &|index| {
            fs::rename(index.join(file), index.join("elsewhere")).unwrap();
            symlink(index.join("elsewhere"), index.join(file)).unwrap();
        });
        refused("a pipe", &|index| {
            fs::remove_file(index.join(file)).unwrap();
            let made = std::process::Command::new("mkfifo").arg(index.join(file)).status().unwrap();
            assert!(made.success());
        });
    }
    for more in ["sled/snap.0000000000000001.generating", "sled/blobs/12", "sled/strange"] {
        let error = refused(more, &|index| fs::write(index.join(more), [1; 100]).unwrap());
        assert!(changed(&error), "{more}: {error}");
    }
    let sparse =
        |index: &Path| fs::File::options().write(true).open(index.join("sled/db")).unwrap().set_len(1 << 40);
    assert!(changed(&refused("huge", &|index| sparse(index).unwrap())));
    assert!(changed(&refused("deep", &|index| fs::create_dir_all(index.join("sled/a/b")).unwrap())));
}

#[test]
fn another_databases_index_is_refused() {
    let dir = sealed();
    let disk: SharedDisk = Arc::new(RealDisk::new(dir.path()));
    let foreign = IndexFolder::new(&disk, [8; 16], "index").unwrap();
    let error = foreign.take(&|| false).unwrap_err();
    assert!(matches!(error, IndexError::Seal(StorageError::ForeignDatabase { .. })), "{error}");
}

#[test]
fn a_file_in_the_folders_place_is_left_alone() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("index"), "mine").unwrap();
    let folder = folder(dir.path());
    assert!(matches!(folder.take(&|| false), Err(IndexError::NotFolder { .. })));
    assert!(folder.set_aside().is_err() && folder.create().is_err());
    assert_eq!(fs::read_to_string(dir.path().join("index")).unwrap(), "mine");
}

#[test]
fn work_is_broken_off_where_it_is_not_wanted() {
    let dir = sealed();
    let folder = folder(dir.path());
    assert!(matches!(folder.take(&|| true), Err(IndexError::Stopped)));
    assert_eq!(folder.sealed().unwrap(), Some(INFO));
    let Found::Index(index, info) = folder.take(&|| false).unwrap() else { panic!("it is gone") };
    assert!(matches!(folder.put_away(index, info, &|| true), Err(IndexError::Stopped)));
    assert!(matches!(folder.take(&|| false), Err(IndexError::NotSealed)));
}

#[test]
fn files_out_of_proportion_are_not_sealed() {
    let dir = TempDir::new().unwrap();
    let folder = folder(dir.path());
    let index = folder.create().unwrap();
    let strange = fs::File::create(dir.path().join("index/sled/blobs/1")).unwrap();
    strange.set_len(100 << 20).unwrap();
    let info = SealInfo { seq: 1, keys: 0 };
    assert!(matches!(folder.put_away(index, info, &|| false), Err(IndexError::Bloated { .. })));
    assert_eq!(folder.sealed().unwrap(), None);
}

/// Who reads, from the begin or from amid, sees each key that stays, once and in order, while keys beside it come and go and
/// blocks are divided.
#[test]
fn a_reader_misses_no_key_that_stays() {
    const READS: u64 = 40;
    const LONG: std::time::Duration = std::time::Duration::from_secs(60);
    let dir = TempDir::new().unwrap();
    let index = folder(dir.path()).create().unwrap();
    let key = |n: u32| [&n.to_be_bytes()[..], &[n as u8; 30]].concat();
    let staying: Vec<Vec<u8>> = (0..400).map(|n| key(n * 10)).collect();
    index.change(&staying, &[]).unwrap();
    let (reads, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for stride in [0, 37] {
            let (index, staying, reads, rounds) = (&index, &staying, &reads, &rounds);
            scope.spawn(move || {
                for n in 0.. {
                    if reads.load(Relaxed) >= READS && rounds.load(Relaxed) >= READS {
                        break;
                    }
                    let first = n * stride % staying.len();
                    let found = keys(index, &staying[first], None);
                    assert!(found.is_sorted_by(|one, next| one < next));
                    let seen: BTreeSet<_> = found.into_iter().collect();
                    assert!(staying[first..].iter().all(|key| seen.contains(key)));
                    reads.fetch_add(1, Relaxed);
                }
            });
        }
        let began = std::time::Instant::now();
        while (reads.load(Relaxed) < READS || rounds.load(Relaxed) < READS) && began.elapsed() < LONG {
            let begin = rounds.fetch_add(1, Relaxed) as u32 % 2 * 5_000;
            let others = (0..4_000).filter(|n| n % 10 != 0).map(|n| key(n + begin));
            let others: Vec<Vec<u8>> = others.collect();
            index.change(&others, &[]).unwrap();
            index.change(&[], &others).unwrap();
        }
        rounds.store(READS, Relaxed);
        reads.fetch_add(READS, Relaxed);
    });
    assert!(reads.into_inner() >= 2 * READS, "too few reads beside changes");
}

/// Keys of which many nodes of sled are divided between a byte `ff` and the next, as those of -1 and 0 are.
#[test]
fn keys_of_ones_beside_zeros_are_found() {
    let key = |value: i64, id: u64| {
        let value = (value.cast_unsigned() ^ (1 << 63)).to_be_bytes();
        [&[7; 16][..], &[2], &value, blake3::hash(&id.to_le_bytes()).as_bytes()].concat()
    };
    for build in 0..6 {
        let dir = TempDir::new().unwrap();
        let index = folder(dir.path()).create().unwrap();
        let values = [-1, 0, 1, u32::MAX.into(), 1 << 32];
        let all: Vec<Vec<u8>> = (0..10_000).map(|id| key(values[id as usize % 5], id + build)).collect();
        index.change(&all, &[]).unwrap();
        for value in values {
            let from = &key(value, 0)[..25];
            let to = [from, &[0xff; 33]].concat();
            assert_eq!(keys(&index, from, Some(&to)).len(), 2_000, "{value}");
        }
        index.change(&[], &all[..9_000]).unwrap();
        let mut left = all[9_000..].to_vec();
        left.sort_unstable();
        assert_eq!(keys(&index, &[], None), left);
    }
}

#[test]
fn bytes_of_ones_are_keys_as_others_are() {
    let dir = TempDir::new().unwrap();
    let index = folder(dir.path()).create().unwrap();
    let key = |n: u16| [&[0xff; 20][..], &n.to_be_bytes(), &[0xff; 40]].concat();
    let all: Vec<Vec<u8>> = (0..3_000).map(key).collect();
    index.change(&all, &[]).unwrap();
    assert_eq!(keys(&index, &[], None), all);
    assert_eq!(keys(&index, &key(255), Some(&key(512))), all[255..512]);
}

/// Few enough for most to be met again, and long enough for several blocks.
fn a_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..4, 0..5).prop_map(|key| match key.len() {
        0..3 => key,
        _ => [&key[..], &[9; 40]].concat(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Both indexes are the set that they should be, also after sled was put away and taken again.
    #[test]
    fn indexes_are_sets(
        steps in proptest::collection::vec(
            (
                proptest::collection::vec(a_key(), 0..400),
                proptest::collection::vec(a_key(), 0..200),
                any::<bool>(),
            ),
            1..5,
        ),
        from in proptest::collection::vec(0u8..4, 0..4),
        to in proptest::option::of(proptest::collection::vec(0u8..4, 0..4)),
    ) {
        let dir = TempDir::new().unwrap();
        let folder = folder(dir.path());
        let mut sled = folder.create().unwrap();
        let memory = MemoryIndex::default();
        let mut model = BTreeSet::new();
        for (puts, removes, reopen) in steps {
            sled.change(&puts, &removes).unwrap();
            memory.change(&puts, &removes).unwrap();
            model.extend(puts);
            model.retain(|key| !removes.contains(key));
            if reopen {
                folder.put_away(sled, INFO, &|| false).unwrap();
                let Found::Index(index, _) = folder.take(&|| false).unwrap() else { panic!("it is gone") };
                sled = index;
            }
            let within = |key: &&Vec<u8>| **key >= from && to.as_ref().is_none_or(|to| *key < to);
            let expected: Vec<_> = model.iter().filter(within).cloned().collect();
            prop_assert_eq!(&keys(&sled, &from, to.as_deref()), &expected);
            prop_assert_eq!(&keys(&memory, &from, to.as_deref()), &expected);
        }
    }
}
