//! The files that a disk in memory has not, or has not all: what other processes see of variables, the reserve, and the index of
//! attributes. None is needed, so whatever became of one, who writes and who reads shows the same, or is told its name.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use underbelly::{Database, Options, RealDisk, VariableValue, View, Where};
use underbelly_tests::sample::{self, fill};
use underbelly_tests::shown;

use crate::kinds::kind_of;
use crate::subject::{Subject, all};

/// Bytes of a file that are damaged; behind those are holes, or zeros.
const LOOKED_AT: u64 = 8 << 10;
/// Places of a file at which a byte is flipped, and at which it is cut.
const PLACES: usize = 40;
/// The same of the index, which takes long to make anew.
const PLACES_OF_INDEX: usize = 8;

/// Settings with which every query on attributes asks the index.
fn options() -> Options {
    Options { index_models_min: 0, ..sample::options() }
}

/// A closed database in a folder, and the same when it was closed once before.
struct Folders {
    older: TempDir,
    newer: TempDir,
    subject: Subject,
    found: String,
}

/// What is asked of the index.
fn found(db: &View) -> String {
    let snapshot = db.snapshot();
    let wanted = [Where::exists("desk"), Where::equals("desk", 1i64), Where::equals("large", true)];
    let found = wanted.map(|wanted| snapshot.find_models_where(&wanted).unwrap());
    format!("{:?}", found.map(|found| found.into_iter().map(|info| info.id).collect::<Vec<_>>()))
}

/// All files below a folder, by their names there, sorted.
fn files(dir: &Path) -> Vec<String> {
    fn add(dir: &Path, prefix: &str, names: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => add(&entry.path(), &format!("{name}/"), names),
                false => names.push(name),
            }
        }
    }
    let mut names = Vec::new();
    add(dir, "", &mut names);
    names.sort();
    names
}

/// The bytes of a file that are looked at, and its length.
fn contents(dir: &Path, name: &str) -> (Vec<u8>, u64) {
    let file = fs::File::open(dir.join(name)).unwrap();
    let (len, mut bytes) = (file.metadata().unwrap().len(), Vec::new());
    // The page set of variables is mostly a hole.
    let is_copied = kind_of(name).name != "variables";
    file.take(if is_copied { len } else { LOOKED_AT }).read_to_end(&mut bytes).unwrap();
    (bytes, len)
}

fn write(dir: &Path, name: &str, (bytes, len): (&[u8], u64)) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
}

fn copy(from: &Path) -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in files(from) {
        let (bytes, len) = contents(from, &name);
        write(dir.path(), &name, (&bytes, len));
    }
    dir
}

impl Folders {
    fn new() -> Folders {
        let newer = TempDir::new().unwrap();
        let close = |db: Database| {
            assert!(db.wait_index(Duration::from_secs(60)));
            db.close().unwrap();
        };
        let db = Database::create_with(newer.path(), options()).unwrap();
        fill(&db, 1, true).unwrap();
        close(db);
        let older = copy(newer.path());
        let db = Database::open_with(newer.path(), options()).unwrap();
        fill(&db, 4, false).unwrap();
        db.checkpoint().unwrap();
        let (shown, found) = (shown(&db).unwrap(), found(&db));
        close(db);
        Folders { older, newer, subject: Subject::showing(shown), found }
    }

    /// The files that are damaged here.
    fn names(&self) -> Vec<String> {
        let is_mine = |name: &String| ["variables", "reserve", "index"].contains(&kind_of(name).name);
        files(self.newer.path()).into_iter().filter(is_mine).collect()
    }

    /// Does damage to a copy; then a reader looks at it, and a writer.
    fn damage(&self, name: &str, what: &str, damage: impl FnOnce(&Path)) {
        let dir = copy(self.newer.path());
        damage(dir.path());
        self.subject.read_only(dir.path(), name, &format!("{what}, for a reader"));
        if kind_of(name).name == "variables" {
            self.look_at_variables(dir.path());
        }
        if kind_of(name).name == "index" {
            let db = Database::open_with(dir.path(), options()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(found(&db), self.found, "{what}: before the index is there");
            assert!(db.wait_index(Duration::from_secs(60)), "{what}");
            assert_eq!(found(&db), self.found, "{what}: by the index");
        }
        self.subject.read_on(Arc::new(RealDisk::new(dir.path())), name, what);
    }

    /// What is shown beside the log, by memory that others write, may be wrong where they are. It is no panic, and no hang.
    fn look_at_variables(&self, dir: &Path) {
        let Ok(reader) = Database::open_read_only(dir) else { return };
        for variable in reader.snapshot().variables() {
            let (scope, name) = (&variable.scope, &*variable.name);
            match variable.value {
                VariableValue::F64(_) => drop(reader.var::<f64>(scope, name).unwrap().get()),
                VariableValue::I64(_) => drop(reader.var::<i64>(scope, name).unwrap().get()),
                _ => drop(reader.var::<Vec<u8>>(scope, name).map(|mut var| var.get())),
            }
        }
    }
}

/// Some places of a file, its first and last bytes among them.
fn places(kind: &str, len: usize) -> Vec<usize> {
    let step = (len / if kind == "index" { PLACES_OF_INDEX } else { PLACES }).max(1);
    let mut places: Vec<usize> = (0..len).step_by(step).chain([len.saturating_sub(1)]).collect();
    places.retain(|at| *at < len);
    places.dedup();
    places
}

/// All are there, or this shows nothing.
#[test]
fn the_folder_has_the_files_that_memory_lacks() {
    let folders = Folders::new();
    let kinds: BTreeSet<_> = folders.names().iter().map(|name| kind_of(name).name).collect();
    assert_eq!(kinds, BTreeSet::from(["index", "reserve", "variables"]));
    folders.damage("VARIABLES", "undamaged", |_| ());
}

/// Flipped bytes, ends that are cut off, and zeros, in each of them.
#[test]
fn what_memory_lacks_may_be_damaged() {
    let folders = Folders::new();
    for name in folders.names() {
        let (whole, len) = contents(folders.newer.path(), &name);
        let used = sample::used(&whole).max(1);
        let places = places(kind_of(&name).name, used.min(LOOKED_AT as usize));
        all(places.len(), |number| {
            let at = places[number];
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let flipped = |dir: &Path| write(dir, &name, (&bytes, len));
            folders.damage(&name, &format!("byte {at} of {name} flipped"), flipped);
            if number % 4 == 0 {
                let cut = |dir: &Path| write(dir, &name, (&whole[..at], at as u64));
                folders.damage(&name, &format!("{name} cut to {at}"), cut);
                let mut zeroed = whole.clone();
                zeroed[at..(at + 512).min(whole.len())].fill(0);
                let zeroed = |dir: &Path| write(dir, &name, (&zeroed, len));
                folders.damage(&name, &format!("512 bytes of {name} from {at} on zeroed"), zeroed);
            }
        });
        let zeros = |dir: &Path| write(dir, &name, (&[], len));
        folders.damage(&name, &format!("{name} all zeros"), zeros);
        let gone = |dir: &Path| fs::remove_file(dir.join(&name)).unwrap();
        folders.damage(&name, &format!("{name} gone"), gone);
    }
}

/// Each as it was a day before, as another database has it, and two in each other's place.
#[test]
fn what_memory_lacks_may_be_another() {
    let (folders, other) = (Folders::new(), Folders::new());
    let names = folders.names();
    all(names.len(), |number| {
        let name = &names[number];
        for (whose, dir) in [("older", &folders.older), ("another database's", &other.newer)] {
            if let Some((bytes, len)) = dir.path().join(name).exists().then(|| contents(dir.path(), name)) {
                let put = |dir: &Path| write(dir, name, (&bytes, len));
                folders.damage(name, &format!("{name}, {whose}"), put);
            }
        }
        let mine = contents(folders.newer.path(), name);
        for second in &names[number + 1..] {
            let theirs = contents(folders.newer.path(), second);
            folders.damage(name, &format!("{name} and {second} swapped"), |dir| {
                write(dir, name, (&theirs.0, theirs.1));
                write(dir, second, (&mine.0, mine.1));
            });
        }
    });
}
