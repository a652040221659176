//! The index of attributes may be lost, rot, or be another's: the database opens and answers the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;
use underbelly::{Batch, Database, IndexState, IndexStatus, Metadata, Timestamp, Where};

use crate::find::{LONG, indexed};

fn put(db: &Database, numbers: std::ops::Range<i64>) {
    let mut batch = Batch::new();
    for i in numbers {
        let metadata = Metadata::new("smile").with("i", i).with("even", i % 2 == 0);
        batch.put_model(metadata.with("timestamp", Timestamp(i)), vec![i as u8]);
    }
    db.commit(batch).unwrap();
}

/// A closed database with an index.
fn database(models: i64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let db = Database::create_with(dir.path(), indexed()).unwrap();
    put(&db, 0..models);
    assert!(db.wait_index(LONG));
    db.close().unwrap();
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

/// A copy of a database in which the index is replaced by another's.
fn with_index_of(dir: &Path, other: &Path) -> TempDir {
    let copied = TempDir::new().unwrap();
    copy(dir, copied.path());
    fs::remove_dir_all(copied.path().join("index")).unwrap();
    copy(&other.join("index"), &copied.path().join("index"));
    copied
}

/// What all queries find, as text.
fn answers(db: &Database) -> String {
    let queries = [
        Where::equals("i", 7i64),
        Where::equals("even", true).and(Where::between("i", 3i64..20)),
        Where::between("timestamp", Timestamp(30)..),
        Where::exists("even"),
        Where::equals("i", 7.0),
    ];
    let snapshot = db.snapshot();
    let found = queries.map(|wanted| {
        let found = snapshot.find_models_where(&wanted).unwrap();
        found.into_iter().map(|info| info.metadata().to_json()).collect::<Vec<_>>()
    });
    format!("{found:?}")
}

/// Opens a database, asks it before and after its index is there, and closes it; what the status said at the end.
fn ask(dir: &Path, expected: &str, what: &str) -> IndexStatus {
    let db = Database::open_with(dir, indexed()).unwrap();
    assert_eq!(answers(&db), expected, "{what}: before the index is there");
    assert!(db.wait_index(LONG), "{what}: {:?}", db.status().index);
    assert_eq!(answers(&db), expected, "{what}: by the index");
    let status = db.status().index;
    assert_eq!((status.state, status.stamp), (IndexState::Ready, Some(db.snapshot().seq())), "{what}");
    db.close().unwrap();
    status
}

fn expected(dir: &Path) -> String {
    let db = Database::open_with(dir, underbelly_tests::options()).unwrap();
    answers(&db)
}

/// Damages a copy; the reason that is told must hold `reason`, or there must be none.
fn damaged(whole: &Path, expected: &str, what: &str, reason: Option<&str>, damage: impl FnOnce(&Path)) {
    let dir = TempDir::new().unwrap();
    copy(whole, dir.path());
    damage(&dir.path().join("index"));
    let status = ask(dir.path(), expected, what);
    match reason {
        None => assert_eq!(status.set_aside, Vec::<String>::new(), "{what}"),
        Some(reason) => {
            let told = status.set_aside.iter().any(|aside| aside.contains(reason));
            assert!(told, "{what}: {:?} does not say {reason:?}", status.set_aside);
        }
    }
    // The next process finds all well, where the folder can be used at all.
    if status.on_disk {
        assert_eq!(ask(dir.path(), expected, what).set_aside, Vec::<String>::new(), "{what}: opened again");
    }
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_lost_or_damaged_index_changes_no_answer() {
    let whole = database(40);
    let expected = expected(whole.path());
    let case = |what: &str, reason: Option<&str>, damage: &dyn Fn(&Path)| {
        damaged(whole.path(), &expected, what, reason, damage);
    };
    case("untouched", None, &|_| {});
    case("deleted", None, &|index| fs::remove_dir_all(index).unwrap());
    case("not put away", Some("not put away"), &|index| fs::remove_file(index.join("SEAL")).unwrap());
    for file in ["SEAL", "sled/db", "sled/conf"] {
        let path = |index: &Path| index.join(file);
        case(&format!("garbage in {file}"), Some("index"), &|index| {
            rewrite(&path(index), |bytes| *bytes = vec![0xa5; 9_000]);
        });
        case(&format!("{file} cut"), Some("index"), &|index| {
            rewrite(&path(index), |bytes| bytes.truncate(bytes.len() / 2));
        });
        let len = fs::metadata(path(&whole.path().join("index"))).unwrap().len() as usize;
        for at in [0, len / 2, len - 1] {
            case(&format!("byte {at} of {file} flipped"), Some("index"), &|index| {
                rewrite(&path(index), |bytes| bytes[at] ^= 1);
            });
        }
    }
    case("a half-written snapshot", Some("snap.0000000000000007.generating"), &|index| {
        fs::write(index.join("sled/snap.0000000000000007.generating"), [3; 20]).unwrap();
    });
    case("a huge file", Some("its length differs"), &|index| {
        let db = fs::File::options().write(true).open(index.join("sled/db")).unwrap();
        db.set_len(1 << 40).unwrap();
    });
    case("a file in its place", Some("is not a folder"), &|index| {
        fs::remove_dir_all(index).unwrap();
        fs::write(index, "somebody's").unwrap();
    });
    // Root may read and write it all the same.
    let shut = |index: &Path| fs::set_permissions(index, fs::Permissions::from_mode(0o000)).unwrap();
    let probe = TempDir::new().unwrap();
    shut(probe.path());
    let reason = fs::read_dir(probe.path()).is_err().then_some("cannot");
    case("no permissions", reason, &shut);
}

#[test]
fn an_older_index_catches_up() {
    let older = database(40);
    let newer = TempDir::new().unwrap();
    copy(older.path(), newer.path());
    let db = Database::open_with(newer.path(), indexed()).unwrap();
    put(&db, 30..60);
    put(&db, 7..8);
    db.close().unwrap();
    let mixed = with_index_of(newer.path(), older.path());
    let status = ask(mixed.path(), &expected(newer.path()), "older");
    assert_eq!(status.set_aside, Vec::<String>::new());
    assert!(status.on_disk);
}

#[test]
fn an_index_of_another_life_is_set_aside() {
    let early = database(40);
    let lives: Vec<TempDir> = (0..2)
        .map(|life| {
            let dir = TempDir::new().unwrap();
            copy(early.path(), dir.path());
            let db = Database::open_with(dir.path(), indexed()).unwrap();
            put(&db, 50 + life..51 + life);
            assert!(db.wait_index(LONG));
            db.close().unwrap();
            dir
        })
        .collect();
    let told = |dir: &Path, index: &Path, reason: &str| {
        let mixed = with_index_of(dir, index);
        let status = ask(mixed.path(), &expected(dir), reason);
        assert!(status.set_aside.iter().any(|aside| aside.contains(reason)), "{:?}", status.set_aside);
        assert!(mixed.path().join("index/aside").exists() || reason.contains("database"));
    };
    told(early.path(), lives[0].path(), "but the database ends with");
    told(lives[0].path(), lives[1].path(), "other keys");
    told(lives[0].path(), database(40).path(), "another database");
}

/// A process that dies leaves an index that was not put away; and one that is open is not asked by another.
#[test]
fn an_index_that_was_open_in_a_crash_is_built_anew() {
    let whole = database(40);
    let expected = expected(whole.path());
    let db = Database::open_with(whole.path(), indexed()).unwrap();
    assert!(db.wait_index(LONG));
    let crashed = TempDir::new().unwrap();
    copy(whole.path(), crashed.path());
    let status = ask(crashed.path(), &expected, "crashed");
    assert!(status.set_aside.iter().any(|aside| aside.contains("not put away")), "{:?}", status.set_aside);
    drop(db);
    assert_eq!(ask(whole.path(), &expected, "dropped").set_aside, Vec::<String>::new());
}
