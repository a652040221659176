#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn write(disk: &SimulatedDisk, name: &str, bytes: &[u8], offset: u64) {
    let file = disk.open(name).or_else(|_| disk.create(name)).unwrap();
    file.write_at(bytes, offset).unwrap();
}

fn sync(disk: &SimulatedDisk, name: &str) {
    disk.open(name).unwrap().sync_all().unwrap();
}

/// Every disk that a power cut may leave, by taking all ways through the choices.
fn all_crashes(disk: &SimulatedDisk) -> Vec<SimulatedDisk> {
    let (mut left, mut path) = (Vec::new(), Vec::<(usize, usize)>::new());
    loop {
        let mut at = 0;
        left.push(disk.crash_choosing(&mut |options| {
            if at == path.len() {
                path.push((0, options));
            }
            at += 1;
            path[at - 1].0
        }));
        while path.last().is_some_and(|(choice, options)| choice + 1 == *options) {
            path.pop();
        }
        match path.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => return left,
        }
    }
}

fn contents(disks: &[SimulatedDisk], name: &str) -> BTreeSet<Option<Vec<u8>>> {
    disks.iter().map(|disk| disk.contents(name)).collect()
}

fn names(disks: &[SimulatedDisk]) -> BTreeSet<Vec<String>> {
    disks.iter().map(SimulatedDisk::files).collect()
}

#[test]
fn each_sector_is_any_of_its_versions() {
    let disk = SimulatedDisk::new();
    disk.overwrite("a", vec![0; 1024]);
    write(&disk, "a", &[1; 600], 0);
    write(&disk, "a", &[2; 8], 4);
    let left = all_crashes(&disk);
    let first = |version: u8| {
        let mut sector = [version.min(1); 512];
        if version == 2 {
            sector[4..12].fill(2);
        }
        sector
    };
    let second = |written: bool| {
        let mut sector = [0; 512];
        sector[..88].fill(written.into());
        sector
    };
    let expected = (0..3).flat_map(|a| [false, true].map(|b| Some([first(a), second(b)].concat())));
    assert_eq!(contents(&left, "a"), expected.collect());
    assert_eq!(disk.crash().contents("a").unwrap(), [0; 1024]);
    assert_eq!(disk.crash_keeping_all().contents("a"), disk.contents("a"));
    disk.open("a").unwrap().sync_data().unwrap();
    assert_eq!(contents(&all_crashes(&disk), "a"), [disk.contents("a")].into());
}

#[test]
fn an_unsynced_length_is_anything_and_its_sectors_too() {
    let disk = SimulatedDisk::new();
    write(&disk, "a", b"synced", 0);
    sync(&disk, "a");
    disk.sync_dir("").unwrap();
    write(&disk, "a", &[7; 510], 6);
    write(&disk, "a", &[7; 1], 516);
    let file = disk.open("a").unwrap();
    file.sync_data().unwrap();
    let left = contents(&all_crashes(&disk), "a");
    assert!(left.iter().flatten().all(|bytes| bytes.starts_with(b"synced")), "within the durable length");
    assert!(left.contains(&Some(b"synced".to_vec())), "a length needs `sync_all`");
    assert!(left.contains(&disk.contents("a")));
    let lasts: BTreeSet<u8> = left.iter().flatten().filter_map(|bytes| bytes.get(516)).copied().collect();
    assert_eq!(lasts, [0, 7, 0xa5].into());
    file.sync_all().unwrap();
    assert_eq!(contents(&all_crashes(&disk), "a"), [disk.contents("a")].into());
}

#[test]
fn folder_operations_come_through_in_any_selection() {
    let disk = SimulatedDisk::new();
    disk.create_dir("d").unwrap();
    write(&disk, "d/a.tmp", b"x", 0);
    sync(&disk, "d/a.tmp");
    disk.rename("d/a.tmp", "d/a").unwrap();
    write(&disk, "d/b", b"y", 0);
    let left = all_crashes(&disk);
    let named = |names: &[&str]| names.iter().map(|name| format!("d/{name}")).collect::<Vec<_>>();
    let expected = [named(&[]), named(&["a"]), named(&["a.tmp"]), named(&["b"]), named(&["a", "b"])];
    assert_eq!(names(&left), expected.into_iter().chain([named(&["a.tmp", "b"])]).collect());
    assert_eq!(contents(&left, "d/a"), [None, Some(b"x".to_vec())].into(), "synced before it was renamed");
    disk.sync_dir("d").unwrap();
    disk.remove("d/b").unwrap();
    disk.rename("d/a", "d/b").unwrap();
    assert_eq!(names(&all_crashes(&disk)), [named(&["a", "b"]), named(&["a"]), named(&["b"])].into());
    let renamed = disk.crash_choosing(&mut |options| options - 1);
    assert_eq!(renamed.contents("d/b").unwrap(), b"x");
}

#[test]
fn a_folder_must_be_there_and_renames_stay_in_it() {
    let disk = SimulatedDisk::new();
    assert_eq!(disk.create("d/a").map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);
    disk.create_dir("d").unwrap();
    disk.create("d/a").unwrap();
    assert_eq!(disk.create("d/a").map(|_| ()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(disk.rename("d/a", "a").is_err());
    assert!(disk.rename("d/b", "d/c").is_err());
    assert_eq!(disk.list("").unwrap(), ["d"]);
    assert_eq!(disk.list("d").unwrap(), ["a"]);
    disk.create_dir("d/inner").unwrap();
    // Their names sort on both sides of what lies in the folder.
    for name in ["d-", "d/inner/b", "d/inner/c", "d/inner-", "d/z", "d0", "e"] {
        disk.create(name).unwrap();
    }
    assert_eq!(disk.list("").unwrap(), ["d", "d-", "d0", "e"]);
    assert_eq!(disk.list("d").unwrap(), ["a", "inner", "inner-", "z"]);
    assert_eq!(disk.list("d/inner").unwrap(), ["b", "c"]);
    assert_eq!(disk.list("e").unwrap(), Vec::<String>::new());
}

#[test]
fn a_sealed_file_is_read_alone() {
    let disk = SimulatedDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(b"x", 0).unwrap();
    disk.seal("a").unwrap();
    assert_eq!(file.write_at(b"y", 0).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(disk.open("a").map(|_| ()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(&*disk.map("a").unwrap(), b"x");
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_makes_durable() {
    let disk = SimulatedDisk::new();
    disk.overwrite("a", vec![0; 1024]);
    let file = disk.open("a").unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.lose_unsynced();
    file.sync_all().unwrap();
    assert_eq!(disk.contents("a").unwrap(), [1; 1024], "the page cache shows it");
    assert_eq!(disk.crash().contents("a").unwrap(), [0; 1024]);
    assert_eq!(contents(&all_crashes(&disk), "a").len(), 4);
    file.write_at(&[2; 10], 0).unwrap();
    file.sync_data().unwrap();
    let after = disk.crash().contents("a").unwrap();
    assert_eq!((after[..10].to_vec(), &after[512..]), (vec![2; 10], &[0; 512][..]), "written again, or not");
    assert_eq!(after[10..512], [1; 502]);
    file.write_at(&[3; 1024], 0).unwrap();
    file.lose_unsynced();
    assert_eq!(disk.contents("a").unwrap(), after, "or the page cache does not show it");
}

#[test]
fn a_disk_after_a_crash_is_another_disk() {
    let disk = SimulatedDisk::new();
    disk.overwrite("a", b"old".to_vec());
    let _lock = disk.lock("LOCK").unwrap().unwrap_or_else(|_| panic!("locked"));
    assert!(disk.lock("LOCK").unwrap().is_err());
    let left = disk.crash();
    assert!(left.lock("LOCK").unwrap().is_ok());
    write(&disk, "a", b"new", 0);
    sync(&disk, "a");
    assert_eq!(left.contents("a").unwrap(), b"old");
}

#[test]
fn a_shared_file_is_not_claimed_until_it_is_let_go_or_the_power_is() {
    let disk = SimulatedDisk::new();
    disk.overwrite("a", b"x".to_vec());
    assert_eq!(disk.holders("a"), Vec::<u32>::new());
    let (one, two) = (disk.share("a").unwrap().unwrap(), disk.share("a").unwrap().unwrap());
    disk.rename("a", "b").unwrap();
    assert!(disk.claim("b").unwrap().is_none());
    assert_eq!(disk.holders("b"), [std::process::id()]);
    assert!(disk.crash_keeping_all().claim("b").unwrap().is_some());
    drop(one);
    assert!(disk.claim("b").unwrap().is_none());
    drop(two);
    let claim = disk.claim("b").unwrap().unwrap();
    assert!(disk.share("b").unwrap().is_none() && disk.claim("b").unwrap().is_none());
    drop(claim);
    assert!(disk.share("b").unwrap().is_some());
    assert_eq!(disk.share("a").map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);
    let shared = disk.share("").unwrap().unwrap();
    assert!(disk.lock("LOCK").unwrap().is_err());
    drop(shared);
    assert!(disk.lock("LOCK").unwrap().is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u16, u16),
    SyncData(u8),
    SyncAll(u8),
    Rename(u8, u8),
    Remove(u8),
    SyncDir,
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, 0..2000u16, 1..1500u16).prop_map(|(f, o, l)| Step::Write(f, o, l)),
        1 => (0..4u8).prop_map(Step::SyncData),
        2 => (0..4u8).prop_map(Step::SyncAll),
        2 => (0..4u8, 0..4u8).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (0..4u8).prop_map(Step::Remove),
        2 => Just(Step::SyncDir),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A file of which bytes, length and name were synced is left by every crash as it was until something touches it;
    /// no file has two names; and the same seed leaves the same.
    #[test]
    fn what_was_synced_is_left_by_every_crash(steps in proptest::collection::vec(step(), 1..40)) {
        let mut disk = SimulatedDisk::new();
        let mut safe = std::collections::BTreeMap::new();
        let mut synced = BTreeSet::new();
        for (number, step) in steps.into_iter().enumerate() {
            let name = |file: u8| format!("f{file}");
            match step {
                Step::Write(file, offset, len) => {
                    write(&disk, &name(file), &vec![number as u8 + 1; len.into()], offset.into());
                    safe.remove(&name(file));
                    synced.remove(&name(file));
                }
                Step::SyncData(file) => drop(disk.open(&name(file)).map(|file| file.sync_data())),
                Step::SyncAll(file) => {
                    if disk.contents(&name(file)).is_some() {
                        sync(&disk, &name(file));
                        synced.insert(name(file));
                    }
                }
                Step::Rename(from, to) if from != to => {
                    if disk.rename(&name(from), &name(to)).is_ok() {
                        safe.remove(&name(from));
                        safe.remove(&name(to));
                        synced.remove(&name(to));
                        if synced.remove(&name(from)) {
                            synced.insert(name(to));
                        }
                    }
                }
                Step::Rename(..) => {}
                Step::Remove(file) => {
                    let _ = disk.remove(&name(file));
                    safe.remove(&name(file));
                    synced.remove(&name(file));
                }
                Step::SyncDir => {
                    disk.sync_dir("").unwrap();
                    safe = synced.iter().map(|name| (name.clone(), disk.contents(name).unwrap())).collect();
                }
                Step::Crash(seed) => {
                    let again = disk.crash_with(seed);
                    disk = disk.crash_with(seed);
                    prop_assert_eq!(disk.files(), again.files());
                    for name in disk.files() {
                        prop_assert_eq!(disk.contents(&name), again.contents(&name));
                    }
                    // Whatever is there now is durable.
                    synced = disk.files().into_iter().collect();
                    for (name, bytes) in &safe {
                        prop_assert_eq!(disk.contents(name), Some(bytes.clone()), "{}", name);
                    }
                    safe = synced.iter().map(|name| (name.clone(), disk.contents(name).unwrap())).collect();
                }
            }
            for left in [disk.crash(), disk.crash_keeping_all(), disk.crash_with(number as u64)] {
                for (name, bytes) in &safe {
                    prop_assert_eq!(left.contents(name), Some(bytes.clone()), "{}", name);
                }
            }
        }
    }
}
