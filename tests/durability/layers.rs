//! The layers of the state image: a base, and deltas over it, that one manifest names or both. Where the newest alone names what
//! is damaged, the one before speaks; where both do, nobody opens, and a repair saves what it can.

use std::collections::BTreeMap;
use std::sync::Arc;

use tempfile::TempDir;
use underbelly::{Batch, Database, Disk, Metadata, OpenError, Options, SimulatedDisk, Timestamp};
use underbelly_tests::{define, options, shown, transaction};

/// Models that the base holds, so that deltas over it stay deltas.
const MODELS: i64 = 300;
/// Transactions before the base, in the long delta, in the short one, and behind the last checkpoint.
const PARTS: [u64; 4] = [20, 30, 31, 33];

/// A killed database and its images: the base and a delta, which both manifests name, and a delta that the newest alone names.
struct Layered {
    disk: SimulatedDisk,
    images: [String; 3],
    shown: BTreeMap<String, String>,
}

fn images(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("images/")).collect()
}

fn layered(log_file_bytes: u64) -> Layered {
    let disk = SimulatedDisk::new();
    let options = Options { log_file_bytes, ..options() };
    let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
    define(&db).unwrap();
    for from in (0..MODELS).step_by(100) {
        let mut batch = Batch::new();
        for n in from..from + 100 {
            let metadata = Metadata::new("base").with("n", n).with("timestamp", Timestamp(n));
            batch.put_model(metadata, n.to_le_bytes().to_vec());
        }
        db.commit(batch).unwrap();
    }
    let mut next = 1;
    for (i, upto) in PARTS.into_iter().enumerate() {
        while next <= upto {
            db.commit(transaction(next, false).unwrap()).unwrap();
            next += 1;
        }
        if i < 3 {
            db.checkpoint().unwrap();
        }
    }
    let disk = disk.crash();
    drop(db);
    let images: [String; 3] = images(&disk).try_into().unwrap();
    // A value of this length says that a record is gone.
    let has_removal =
        |name: &String| disk.contents(name).unwrap().windows(4).any(|bytes| bytes == u32::MAX.to_le_bytes());
    assert!(images[1..].iter().any(has_removal), "{images:?}");
    let shown = shown(&open(&disk.crash()).unwrap()).unwrap();
    assert_eq!(verify(&disk), Vec::<String>::new());
    Layered { disk, images, shown }
}

fn open(disk: &SimulatedDisk) -> Result<Database, OpenError> {
    Database::open_on(Arc::new(disk.clone()), options())
}

fn verify(disk: &SimulatedDisk) -> Vec<String> {
    Database::verify_on(Arc::new(disk.clone()), |_, _| ()).unwrap().damages
}

/// Copies of a disk with a file cut, emptied, with a flipped bit in its first block, in its middle and in its index, and gone.
fn damaged(disk: &SimulatedDisk, name: &str) -> Vec<(String, SimulatedDisk)> {
    let whole = disk.contents(name).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    };
    let cases = [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("emptied", Vec::new()),
        ("flipped in its first block", flipped(100)),
        ("flipped in its middle", flipped(whole.len() / 2)),
        ("flipped in its index", flipped(whole.len() - 70)),
    ];
    let mut copies: Vec<(String, SimulatedDisk)> = Vec::new();
    for (what, bytes) in cases {
        let copy = disk.crash();
        copy.overwrite(name, bytes);
        copies.push((format!("{name} {what}"), copy));
    }
    let copy = disk.crash();
    copy.remove(name).unwrap();
    copy.sync_dir("images").unwrap();
    copies.push((format!("{name} gone"), copy));
    copies
}

/// A delta that the newest manifest alone names is passed over, by writers and by readers, and told by all; a repair loses nothing.
#[test]
fn a_delta_of_the_newest_manifest_alone_is_passed_over() {
    let Layered { disk, images, shown: expected } = layered(64 << 10);
    let name = &images[2];
    for (what, copy) in damaged(&disk, name) {
        let damages = verify(&copy);
        assert!(damages.iter().any(|damage| damage.contains(name.as_str())), "{what}: {damages:?}");
        let reader = Database::open_read_only_on(Arc::new(copy.clone())).unwrap();
        assert_eq!(shown(&reader).unwrap(), expected, "{what}");
        let told = reader.status().unwrap().damaged;
        assert!(told.len() == 1 && told[0].contains(name.as_str()), "{what}: {told:?}");
        drop(reader);
        let saved = TempDir::new().unwrap();
        let report = Database::repair_on(Arc::new(copy.clone()), saved.path(), |_, _| ()).unwrap();
        assert_eq!(report.losses, Vec::new(), "{what}");
        assert!(report.harmless.iter().any(|loss| loss.file == *name), "{what}: {:?}", report.harmless);
        assert_eq!(
            shown(&Database::open_with(saved.path(), options()).unwrap()).unwrap(),
            expected,
            "{what}"
        );
        let db = open(&copy).unwrap();
        assert_eq!(shown(&db).unwrap(), expected, "{what}");
        let rejected = &db.recovery_report().rejected_manifests;
        assert!(rejected.len() == 1 && rejected[0].contains(name.as_str()), "{what}: {rejected:?}");
    }
}

/// A base or a delta that both manifests name is told by who opens, reads and verifies, and nothing is made up. A repair loses nothing
/// where the log begins with the first transaction, and else what images alone hold.
#[test]
fn a_base_or_a_delta_of_both_manifests_is_refused_and_repaired() {
    for log_file_bytes in [64 << 10, 1 << 20] {
        let Layered { disk, images, shown: expected } = layered(log_file_bytes);
        let is_whole = disk.contents("wal/0000000001.wal").is_some();
        assert_eq!(is_whole, log_file_bytes == 1 << 20, "{:?}", disk.files());
        for name in &images[..2] {
            for (what, copy) in damaged(&disk, name) {
                let what = format!("{what}, with the whole log {is_whole}");
                let writer = open(&copy).map(|_| ()).unwrap_err().to_string();
                let reader = Database::open_read_only_on(Arc::new(copy.clone())).map(|_| ());
                let reader = reader.unwrap_err().to_string();
                for told in [&writer, &reader] {
                    assert!(told.contains(name.as_str()), "{what}: {told}");
                }
                let damages = verify(&copy);
                assert!(damages.iter().any(|damage| damage.contains(name.as_str())), "{what}: {damages:?}");
                let saved = TempDir::new().unwrap();
                let report = Database::repair_on(Arc::new(copy.clone()), saved.path(), |_, _| ()).unwrap();
                let db = Database::open_with(saved.path(), options()).unwrap();
                assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{what}");
                let found = shown(&db).unwrap();
                if is_whole {
                    assert_eq!(report.losses, Vec::new(), "{what}");
                    assert!(report.harmless.iter().any(|loss| loss.file == *name), "{what}");
                    assert_eq!(found, expected, "{what}");
                } else {
                    assert!(
                        report.losses.iter().any(|loss| loss.file == *name),
                        "{what}: {:?}",
                        report.losses
                    );
                    // Rows are in segments, whatever becomes of the image.
                    assert_eq!(rows(&db, "tick"), (1..=PARTS[3] as i64).collect::<Vec<_>>(), "{what}");
                    assert_ne!(found, expected, "{what}");
                }
                // Nothing was changed by all this.
                assert_eq!(open(&copy).map(|_| ()).unwrap_err().to_string(), writer, "{what}");
            }
        }
    }
}

/// The values of a series.
fn rows(db: &Database, series: &str) -> Vec<i64> {
    let rows = db.snapshot().series(series).unwrap().range(Timestamp::MIN, Timestamp::MAX).unwrap();
    rows.i64s("x").unwrap().to_vec()
}
