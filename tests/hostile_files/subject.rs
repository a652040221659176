//! The databases that are damaged, and what reading them afterwards may say.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use underbelly::{Batch, CopyError, Database, Disk, OpenError, Scope};
use underbelly_tests::sample::{self, fill, options, tear};
use underbelly_tests::{define, shown, transaction};

use crate::kinds::{kind_of, known_kind_of};

/// The disk in memory.
pub type Memory = underbelly::SimulatedDisk;

/// What a database showed.
pub type Shown = BTreeMap<String, String>;

/// Of the cases that a writer refuses, one in so many is verified, and read by a reader; all where damage is done thoroughly.
const CHECKED_EACH: u64 = 11;
/// One in so many is repaired.
const REPAIRED_EACH: u64 = 101;

/// A number of a case that is the same each time.
fn share_of(what: &str) -> u64 {
    what.bytes().fold(7, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)) >> 20
}

/// What came of reading a damaged database.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Outcome {
    /// It opened and showed the same.
    Same,
    /// Opening, reading or verifying gave an error that names this file.
    Told,
}

/// Whether damage is done as thoroughly as can be.
pub fn is_thorough() -> bool {
    std::env::var("UNDERBELLY_HOSTILE").as_deref() == Ok("all")
}

/// A database, and what it shows.
pub struct Subject {
    pub disk: Memory,
    pub shown: Shown,
    /// Files of which every byte is needed: those of an older checkpoint, which may be kept, are not.
    needed: BTreeSet<String>,
    /// Cases in which a writer was refused, by the kind of the file that is damaged.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// The log's last file.
pub fn active_log(disk: &Memory) -> (String, Vec<u8>) {
    sample::active_log(disk).unwrap()
}

impl Subject {
    /// The files that there are now; a crash would bring back some that were removed.
    fn of(original: &Memory) -> Subject {
        let disk = Memory::new();
        for name in original.files() {
            let mut bytes = original.contents(&name).unwrap();
            if name == "RESERVE" {
                // One of any length is one, and it takes long to damage each of its bytes.
                bytes.truncate(64);
            }
            disk.overwrite(&name, bytes);
        }
        let db = Database::open_on(Arc::new(disk.crash()), options()).unwrap();
        let shown = shown(&db).unwrap();
        let mut subject = Subject { disk, shown, needed: BTreeSet::new(), refused: Mutex::default() };
        assert_eq!(subject.read(&subject.disk.crash(), "", "undamaged"), Outcome::Same);
        for name in subject.disk.files().into_iter().filter(|name| kind_of(name).is_needed) {
            let mut bytes = subject.disk.contents(&name).unwrap();
            bytes[0] ^= 0xff;
            let what = format!("the first byte of {name}");
            if subject.read(&subject.with(&name, bytes), &name, &what) == Outcome::Told {
                subject.needed.insert(name);
            }
        }
        // These were no cases of a test.
        subject.refused = Mutex::default();
        subject
    }

    /// A database that lies elsewhere and shows this; no file of it is needed.
    pub fn showing(shown: Shown) -> Subject {
        Subject { disk: Memory::new(), shown, needed: BTreeSet::new(), refused: Mutex::default() }
    }

    /// Whether damage to a file must be told.
    pub fn is_needed(&self, name: &str) -> bool {
        self.needed.contains(name)
    }

    /// A closed database, and the same when it was closed once before.
    pub fn two_lives() -> (Subject, Subject) {
        let disk = Memory::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        fill(&db, 1, true).unwrap();
        drop(db);
        // What the torn tail stands in for is in `lost/` from now on.
        tear(&disk);
        let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
        db.checkpoint().unwrap();
        // Something is left for the close to write: with that it lets go of the log before the checkpoint, which
        // leaves spares. It is little, and something goes, so that it becomes a delta with a removal in it.
        let mut batch = Batch::new();
        batch.remove_variable(Scope::asset("IBM"), "raw").set_variable(Scope::Global, "x", 0.5);
        db.commit(batch).unwrap();
        db.close().unwrap();
        let before = Subject::of(&disk);
        let db = Database::open_on(Arc::new(disk.clone()), options()).unwrap();
        fill(&db, 4, false).unwrap();
        db.checkpoint().unwrap();
        db.commit(transaction(7, false).unwrap()).unwrap();
        db.close().unwrap();
        (before, Subject::of(&disk))
    }

    /// A closed database with a file of every kind.
    pub fn closed() -> Subject {
        Subject::two_lives().0
    }

    /// One that was killed: what it holds is in its log alone.
    pub fn killed(transactions: u64) -> Subject {
        let disk = Memory::new();
        let db = Database::create_on(Arc::new(disk.clone()), options()).unwrap();
        define(&db).unwrap();
        for i in 1..=transactions {
            db.commit(transaction(i, false).unwrap()).unwrap();
        }
        Subject::of(&disk.crash())
    }

    /// A copy with other bytes in one file.
    pub fn with(&self, name: &str, bytes: Vec<u8>) -> Memory {
        let copy = self.disk.crash();
        copy.overwrite(name, bytes);
        copy
    }

    /// A copy without a file.
    pub fn without(&self, name: &str) -> Memory {
        let copy = self.disk.crash();
        copy.remove(name).unwrap();
        copy
    }

    /// Opens a damaged copy, reads all of it, verifies it. `name` is the file that is damaged.
    ///
    /// # Panics
    /// Where it shows other data, tells of no file, or something in it panics or takes too much memory.
    pub fn read(&self, disk: &Memory, name: &str, what: &str) -> Outcome {
        self.read_on(Arc::new(disk.clone()), name, what)
    }

    /// The same on any disk.
    pub fn read_on(&self, disk: Arc<dyn Disk>, name: &str, what: &str) -> Outcome {
        let _watched = watch(what);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let db = match Database::open_on(disk.clone(), options()) {
                Ok(db) => db,
                Err(error) => {
                    // The first of each kind in any case.
                    let (share, is_first) = (share_of(what), self.note_refused(name));
                    if is_thorough() || is_first || share.is_multiple_of(CHECKED_EACH) {
                        self.check_refused(&disk, name, what);
                    }
                    if is_thorough() || is_first || share.is_multiple_of(REPAIRED_EACH) {
                        self.check_repaired(disk, name, what);
                    }
                    return self.told(&error.to_string(), name, what);
                }
            };
            let read = shown(&db);
            let verified = db.verify(|_, _| ());
            let mut told = db.recovery_report().rejected_manifests.clone();
            match verified {
                Ok(report) => told.extend(report.damages.into_iter().chain(report.harmless)),
                Err(error) => told.push(error.to_string()),
            }
            let told = told.join("; ");
            match read {
                Ok(read) => {
                    assert_eq!(read, self.shown, "{what}: other data");
                    if told.is_empty() { Outcome::Same } else { self.told(&told, name, what) }
                }
                Err(error) => {
                    assert!(!told.is_empty(), "{what}: reading says {error}, verifying says nothing");
                    self.told(&told, name, what)
                }
            }
        }));
        crate::memory::check(what);
        outcome.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
    }

    /// Notes that a writer is refused for this file. Answers whether it is the first of its kind.
    fn note_refused(&self, name: &str) -> bool {
        let of_one = || known_kind_of(name).map_or("folder", |kind| kind.name);
        let kind = if name.is_empty() { "several" } else { of_one() };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let cases = refused.entry(kind).or_default();
        *cases += 1;
        *cases == 1
    }

    /// Of files of these kinds some were refused, and so verified, read and repaired, too.
    ///
    /// # Panics
    /// Where that is so of no file of a kind.
    pub fn expect_refused(&self, kinds: &[&str]) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let lacks: Vec<_> = kinds.iter().filter(|kind| !refused.contains_key(**kind)).collect();
        assert!(lacks.is_empty(), "a writer is refused for {refused:?}, and none of {lacks:?}");
    }

    /// What a writer refuses is told by who verifies it, and shown by a reader as it was, without series that it tells of, or not at
    /// all.
    fn check_refused(&self, disk: &Arc<dyn Disk>, name: &str, what: &str) {
        match Database::verify_on(disk.clone(), |_, _| ()) {
            Ok(report) => {
                // In these nothing is stored: they are in the way of writers alone.
                let is_bare = matches!(name, "LOCK" | "RESERVE" | "VARIABLES") || name.starts_with("index");
                // As where there is none, which is sound: a spare that was just taken, or no word of the writer's.
                let may_lack = name.starts_with("wal/spare-") || name == "SHARED";
                let is_bare = is_bare || may_lack && what.starts_with("a link to nothing");
                match report.damages.is_empty() {
                    true => assert!(is_bare, "{what}: a writer is refused, and verifying says nothing"),
                    false => drop(self.told(&report.damages.join("; "), name, what)),
                }
            }
            Err(error) => drop(self.told(&error.to_string(), name, what)),
        }
        match Database::open_read_only_with(disk.clone(), 0) {
            Ok(reader) => {
                let damaged = reader.status().unwrap().damaged;
                match shown(&reader) {
                    Ok(read) if damaged.is_empty() => assert_eq!(read, self.shown, "{what}: other data"),
                    Ok(read) => {
                        let is_other =
                            |(name, shown): (&String, &String)| self.shown.get(name) != Some(shown);
                        let others: Vec<_> = read.iter().filter(|entry| is_other(*entry)).collect();
                        assert!(others.is_empty(), "{what}: other data than before: {others:?}");
                    }
                    Err(error) if damaged.is_empty() => drop(self.told(&error.to_string(), name, what)),
                    Err(_) => {}
                }
            }
            Err(error) => drop(self.told(&error.to_string(), name, what)),
        }
    }

    /// A repair of what a writer refuses makes a sound database, with all that there was unless it tells what is lost, or names what is in
    /// its way.
    fn check_repaired(&self, disk: Arc<dyn Disk>, name: &str, what: &str) {
        let saved = tempfile::TempDir::new().unwrap();
        let report = match Database::repair_on(disk, saved.path(), |_, _| ()) {
            Ok(report) => report,
            // Nothing is left to go out from.
            Err(CopyError::Open(OpenError::NotFound { .. })) => return,
            // What is no file of the engine's is in its way, as it is in a writer's.
            Err(error) => {
                self.told(&error.to_string(), name, what);
                return;
            }
        };
        let db = Database::open_with(saved.path(), options()).unwrap();
        assert_eq!(db.verify(|_, _| ()).unwrap().damages, Vec::<String>::new(), "{what}, repaired");
        if report.losses.is_empty() && report.assumed.is_empty() {
            assert_eq!(
                shown(&db).unwrap(),
                self.shown,
                "{what}: a repair that lost nothing shows other data"
            );
        }
    }

    /// Opens a damaged folder beside a writer, and reads all of it.
    ///
    /// # Panics
    /// As [`Subject::read`].
    pub fn read_only(&self, dir: &Path, name: &str, what: &str) -> Outcome {
        let _watched = watch(what);
        let outcome = catch_unwind(AssertUnwindSafe(|| match Database::open_read_only(dir) {
            Ok(reader) => {
                assert_eq!(shown(&reader).unwrap(), self.shown, "{what}: other data");
                Outcome::Same
            }
            Err(error) => self.told(&error.to_string(), name, what),
        }));
        crate::memory::check(what);
        outcome.unwrap_or_else(|_| panic!("{what}: a panic, or other data"))
    }

    /// What is told names the file, the folder, or, where a file is missing, what led to it.
    fn told(&self, text: &str, name: &str, what: &str) -> Outcome {
        let folder = name.split('/').next().unwrap_or(name);
        assert!(text.contains(name) || text.contains(folder), "{what} is told as {text:?}");
        Outcome::Told
    }
}

/// Runs cases on all processors; they are given by number.
pub fn all(count: usize, case: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    case(number);
                }
            });
        }
    });
}

/// Cases that run, with their begin.
static RUNNING: Mutex<BTreeMap<usize, (String, Instant)>> = Mutex::new(BTreeMap::new());

/// Long enough for every machine; a case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Ends the process, with the case's name, where a case hangs.
struct Watched(usize);

fn watch(what: &str) -> Watched {
    static NUMBERS: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        std::thread::spawn(|| {
            loop {
                std::thread::sleep(PATIENCE / 10);
                let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((what, _)) = running.values().find(|(_, since)| since.elapsed() > PATIENCE) {
                    eprintln!("{what}: it hangs");
                    std::process::abort();
                }
            }
        });
    }
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.insert(number, (what.to_string(), Instant::now()));
    Watched(number)
}

impl Drop for Watched {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}
