//! What is left of a damaged database, as a sound one in another folder.
//!
//! From the newest manifest whose image can be read: all files that verify, and the log's records from there on as
//! long as they follow each other. Where no manifest can be read, what the files say of themselves stands in. What is
//! damaged or missing is left out and listed. Objects that nothing holds any more are known to be lost, so that what names
//! them says so when it is read. The damaged folder is not changed.

mod candidates;
mod found;
mod gather;
mod loss;
mod salvage;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use underbelly_storage::disk::{RealDisk, SharedDisk, Unreadable, WornDisk};

use crate::backup::{BackupOptions, Copy};
use crate::database::Database;
use crate::error::{CopyError, OpenError};
use crate::open::check_finished;
use crate::shared;
use crate::verify::{VerifyReport, check_fed};

use candidates::{Candidate, Left, nothing};
pub use loss::Loss;
use salvage::{Saved, Unusable, salvage};

/// What a repair saved and what it could not save.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// The manifest that it went out from; `None` where none could be used, and the log and what files say of themselves were left.
    pub manifest: Option<u64>,
    /// The last transaction that was saved.
    pub seq: u64,
    /// Transactions that were saved from the log.
    pub records: u64,
    /// What could not be saved.
    pub losses: Vec<Loss>,
    /// Damage by which nothing is lost, since what stood there is stored elsewhere too or nothing names it.
    pub harmless: Vec<Loss>,
    /// What was taken to be so where nothing says it: without a manifest, which files are the database; where
    /// `SHARED` is damaged or cannot be read, that nothing is missing at the end of the log.
    pub assumed: Vec<String>,
    /// What was checked of the copy afterwards.
    pub verified: VerifyReport,
    /// How long it took.
    pub took: Duration,
}

impl Database {
    /// Saves what is left of a damaged database into a folder that is empty or not there, and lists what is lost. The
    /// damaged one is not changed, and must not be open for writing, nor can it be opened meanwhile. Files that verify are copied; every file of the
    /// copy is checked at the end, and `progress` is told how many of how many bytes of that are done.
    ///
    /// Objects that are lost (contents of cells, blobs of models) keep their places:
    /// [`ReadError::LostObject`](crate::ReadError::LostObject) says so where they are read, until others are put.
    ///
    /// # Errors
    /// [`CopyError::NotEmpty`] or [`CopyError::Inside`] where the folder cannot be used; [`CopyError::Open`] with
    /// [`OpenError::Locked`] where a process writes, with [`OpenError::NotFound`] where there is no database, and where
    /// files cannot be read or written; [`CopyError::Nothing`] where neither a manifest, nor the beginning of the log, nor
    /// any sound segment or pack is left; [`CopyError::Full`]. In each case there is no database in the folder.
    pub fn repair(
        dir: impl AsRef<Path>,
        dest: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<RepairReport, CopyError> {
        Database::repair_on(Arc::new(RealDisk::new(dir)), dest, progress)
    }

    /// As [`Database::repair`], from any disk. What of it cannot be read at all is taken for damage, and listed.
    ///
    /// # Errors
    /// As [`Database::repair`].
    pub fn repair_on(
        disk: SharedDisk,
        dest: impl AsRef<Path>,
        progress: impl FnMut(u64, u64),
    ) -> Result<RepairReport, CopyError> {
        let options = BackupOptions { copy: true };
        Database::repair_with(disk, progress, |original| Copy::begin(original, dest.as_ref(), options))
    }

    /// The same into whatever copy is begun.
    fn repair_with(
        disk: SharedDisk,
        progress: impl FnMut(u64, u64),
        begin: impl FnOnce(&SharedDisk) -> Result<Copy, CopyError>,
    ) -> Result<RepairReport, CopyError> {
        let began = Instant::now();
        let worn = Arc::new(WornDisk::new(disk.clone()));
        // Files are copied from the disk as it is, so that no zeros get into a file that was found sound.
        let (original, disk): (SharedDisk, SharedDisk) = (disk, worn.clone());
        let dir = disk.describe();
        if disk.path("").is_some_and(|path| !path.is_dir()) {
            return Err(OpenError::NotFound { dir }.into());
        }
        // No writer begins meanwhile.
        let shared = disk.share("").map_err(|source| {
            let dir = dir.clone();
            OpenError::Io { action: "cannot lock", dir, source }
        })?;
        let Some(_shared) = shared else {
            let pid = disk.holders("").into_iter().next().unwrap_or(0);
            return Err(OpenError::Locked { dir, pid }.into());
        };
        check_finished(&*disk)?;
        let copy = begin(&original)?;
        copy.claim()?;
        let check_fed = || check_fed(&worn).map_err(|error| copy.give_up(error));
        let left = Left::find(&disk);
        check_fed()?;
        let Left { mut losses, candidates, database } = match left {
            Ok(left) => left,
            Err(error) => {
                copy.clear()?;
                return Err(error);
            }
        };
        // Manifests of which nobody knows how much they held.
        let unread = losses.len();
        let mut best: Option<(Saved, Candidate)> = None;
        // Whether the copy holds what the best one saved.
        let mut is_placed = false;
        // The first that loses nothing, or else the best.
        for candidate in candidates {
            copy.restart()?;
            is_placed = false;
            let salvaged = salvage(&worn, &copy, database, &candidate);
            check_fed()?;
            match salvaged {
                Ok(saved) => {
                    let is_whole = saved.losses.is_empty();
                    let is_better = best.as_ref().is_none_or(|(before, with)| {
                        is_better((&candidate, &saved), (with, before)) || is_whole && saved.seq >= before.seq
                    });
                    if is_better {
                        best = Some((saved, candidate));
                        is_placed = true;
                    }
                    if is_whole {
                        break;
                    }
                }
                Err(Unusable::This(loss)) => {
                    if !losses.contains(&loss) {
                        losses.push(loss);
                    }
                }
                Err(Unusable::All(error)) => return Err(copy.give_up(error)),
            }
        }
        let Some((mut saved, candidate)) = best else {
            copy.clear()?;
            return Err(nothing(&disk, &losses));
        };
        if !is_placed {
            copy.restart()?;
            let salvaged = salvage(&worn, &copy, database, &candidate);
            check_fed()?;
            saved = match salvaged {
                Ok(saved) => saved,
                Err(Unusable::All(error)) => return Err(copy.give_up(error)),
                Err(Unusable::This(loss)) => {
                    copy.clear()?;
                    return Err(nothing(&disk, &[loss]));
                }
            };
        }
        let (published, mut doubt) = match shared::published(&*disk, database) {
            Ok((published, damage)) => (published, damage.map(|damage| damage.to_string())),
            Err(error) => (None, Some(error.to_string())),
        };
        check_fed()?;
        let unreadable = worn.unreadable();
        if doubt.is_none() && unreadable.iter().any(|place| place.file == shared::SHARED) {
            doubt = Some(format!("{} cannot be read", shared::SHARED));
        }
        let mut assumed = candidate.assumed;
        assumed.extend(doubt.map(|doubt| {
            format!(
                "nothing is missing behind transaction {}: what the last writer made durable is not known, since {doubt}",
                saved.seq
            )
        }));
        if saved.losses.is_empty() {
            let whole = match candidate.number {
                0 => "nothing, since the log holds all from the first transaction on".to_string(),
                number => format!("nothing, since manifest {number} and the log behind it hold it"),
            };
            losses.iter_mut().for_each(|loss| loss.lost.clone_from(&whole));
            if published.is_none() {
                let as_far =
                    format!("{whole} up to transaction {}, and no sound file tells of more", saved.seq);
                losses.iter_mut().take(unread).for_each(|loss| loss.lost.clone_from(&as_far));
            }
        }
        let is_told = |place: &Unreadable| {
            let place_at = place.offset..place.offset + place.bytes;
            let is_in = |loss: &Loss| loss.offset.is_some_and(|offset| place_at.contains(&offset));
            saved.losses.iter().any(|loss| loss.file == place.file && is_in(loss))
        };
        losses.extend(unreadable.into_iter().filter(|place| !is_told(place)).map(Loss::unreadable));
        let mut harmless = saved.harmless;
        match saved.losses.is_empty() {
            true => harmless.append(&mut losses),
            false => losses.extend(saved.losses),
        }
        let verified = copy.verify(progress)?;
        let manifest = (candidate.number > 0).then_some(candidate.number);
        let (seq, records) = (saved.seq, saved.records);
        Ok(RepairReport {
            manifest,
            seq,
            records,
            losses,
            harmless,
            assumed,
            verified,
            took: began.elapsed(),
        })
    }
}

/// Whether an attempt is better than another. With manifests: one with the graph, if it saved anything, then the one that
/// leads further. Where one goes without: the one that saved the greater share of what either did.
fn is_better(this: (&Candidate, &Saved), other: (&Candidate, &Saved)) -> bool {
    let rank = |(candidate, saved): (&Candidate, &Saved)| {
        let has_graph = !candidate.without_image;
        (has_graph && saved.seq > 0, saved.seq, has_graph)
    };
    match (this.0.number, other.0.number) {
        // The log alone, which reaches as far, holds no fewer rows, and loses less.
        (0, 1..) if !other.0.without_image && this.1.seq == other.1.seq => {
            this.1.rows >= other.1.rows && this.1.losses.len() < other.1.losses.len()
        }
        (0, _) | (_, 0) => share(this, other.1) > share(other, this.1),
        _ => rank(this) > rank(other),
    }
}

/// The share of rows, and, of a state that has cells, models or variables from the first transaction on, the share of
/// transactions that it knows; of each the greater one counts as one.
fn share((candidate, saved): (&Candidate, &Saved), other: &Saved) -> f64 {
    let of = |own: u64, other: u64| own as f64 / own.max(other).max(1) as f64;
    let has_others = saved.has_others && !candidate.without_image;
    of(saved.rows, other.rows) + if has_others { of(saved.seq, other.seq) } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use underbelly_storage::Timestamp;
    use underbelly_storage::disk::{Act, Calls, Fault, FaultKind, FaultyDisk, SimulatedDisk};

    use super::*;
    use crate::batch::{Batch, Row};
    use crate::models::Metadata;
    use crate::options::Options;

    /// A database whose newest manifest cannot be read.
    fn damaged() -> SimulatedDisk {
        let disk = SimulatedDisk::new();
        let options = Options { workers: 0, log_file_bytes: 16 << 10, ..Options::default() };
        let db = Database::create_on(Arc::new(disk.clone()), options).unwrap();
        for at in 0..4 {
            let mut batch = Batch::new();
            batch.append(Row::new("a", Timestamp(at)).field("x", at)).unwrap();
            db.commit(batch).unwrap();
            db.checkpoint().unwrap();
        }
        drop(db);
        let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-")).unwrap();
        let mut bytes = disk.contents(&newest).unwrap();
        bytes[100] ^= 1;
        disk.overwrite(&newest, bytes);
        disk
    }

    fn rows(disk: &SimulatedDisk) -> Result<u64, OpenError> {
        let reader = Database::open_read_only_with(Arc::new(disk.clone()), 0)?;
        Ok(reader.snapshot().series("a").unwrap().count().unwrap())
    }

    fn copy(original: &SharedDisk, dest: &FaultyDisk<SimulatedDisk>) -> Result<Copy, CopyError> {
        Copy::begin_on(original, Arc::new(dest.clone()), BackupOptions { copy: true })
    }

    /// Wherever a repair or a backup stops, also while it takes back what it made because a call failed, what is left is
    /// whole, says that it is not finished, or is nothing.
    #[test]
    fn a_copy_that_is_cut_short_is_no_database() {
        let disk: SharedDisk = Arc::new(damaged());
        let sound: SharedDisk = Arc::new(SimulatedDisk::new());
        let options = Options { workers: 0, log_file_bytes: 16 << 10, ..Options::default() };
        let db = Database::create_on(sound.clone(), options).unwrap();
        let mut batch = Batch::new();
        for at in 0..4 {
            batch.append(Row::new("a", Timestamp(at)).field("x", at)).unwrap();
        }
        db.commit(batch).unwrap();
        let mut unfinished = 0;
        for is_repair in [true, false] {
            let run = |dest: &FaultyDisk<SimulatedDisk>| match is_repair {
                true => {
                    Database::repair_with(disk.clone(), |_, _| (), |original| copy(original, dest)).is_ok()
                }
                false => db.backup_on(Arc::new(dest.clone()), |_, _| ()).is_ok(),
            };
            let whole = FaultyDisk::new(SimulatedDisk::new());
            assert!(run(&whole));
            assert_eq!(rows(&whole.inner().crash()).unwrap(), 4);
            let calls = whole.calls(Calls::Changing);
            let mut check = |left: &SimulatedDisk, at: &str| match rows(left) {
                Ok(found) => assert_eq!(found, 4, "{at}"),
                Err(OpenError::Unfinished { .. }) => unfinished += 1,
                Err(OpenError::NotFound { .. }) => assert_eq!(left.files(), Vec::<String>::new(), "{at}"),
                Err(error) => panic!("{at}: {error}"),
            };
            for failed in 0..calls {
                for then in [0, 1, 2, 4, 9, 1000] {
                    let memory = SimulatedDisk::new();
                    let dest = FaultyDisk::new(memory.clone());
                    dest.order(Some(Fault {
                        calls: Calls::Changing,
                        after: failed,
                        kind: FaultKind::Io,
                        sticky: false,
                    }));
                    memory.fail_at(Some(failed + then));
                    run(&dest);
                    let at = format!(
                        "repair {is_repair}, call {failed} of {calls} failed, cut {then} calls later"
                    );
                    check(&memory.crash(), &at);
                    check(&memory.crash_keeping_all(), &at);
                    check(&memory.crash_with(failed * 64 + then), &at);
                }
            }
        }
        assert!(unfinished > 100, "{unfinished}");
    }

    /// Whichever look at the original or at the copy the system has too little for, once or from then on, a sound database
    /// loses nothing by it: the repair ends with that error, or does without the look.
    #[test]
    fn too_little_memory_and_too_few_handles_are_no_loss() {
        let memory = SimulatedDisk::new();
        let options = Options { workers: 0, log_file_bytes: 16 << 10, ..Options::default() };
        let db = Database::create_on(Arc::new(memory.clone()), options).unwrap();
        for at in 0..4 {
            let mut batch = Batch::new();
            batch.append(Row::new("a", Timestamp(at)).field("x", at)).unwrap();
            let metadata = Metadata::new("m").with("of", at).with("timestamp", Timestamp(at));
            batch.put_model(metadata, vec![at as u8; 3_000]);
            db.commit(batch).unwrap();
            if at < 3 {
                db.checkpoint().unwrap();
            }
        }
        drop(db);
        let (no_memory, no_handles) = (12, 24);
        let mut ended = 0;
        for (is_of_copy, code, is_sticky) in [
            (false, no_memory, false),
            (true, no_memory, false),
            (false, no_handles, true),
            (true, no_handles, true),
        ] {
            for failed in 0.. {
                let (original, dest) =
                    (FaultyDisk::new(memory.clone()), FaultyDisk::new(SimulatedDisk::new()));
                let looks = Arc::new(AtomicU64::new(0));
                let (hurt, seen) = (if is_of_copy { &dest } else { &original }, looks.clone());
                hurt.watch(move |call| {
                    let is_look = matches!(
                        call.act,
                        Act::Open | Act::Map | Act::Read | Act::Measure | Act::List | Act::Lock
                    );
                    let is_hurt = is_look && {
                        let look = seen.fetch_add(1, Ordering::Relaxed);
                        look == failed || is_sticky && look > failed
                    };
                    if is_hurt { Err(io::Error::from_raw_os_error(code)) } else { Ok(()) }
                });
                let at = format!("of the copy {is_of_copy}, error {code}, look {failed}");
                match Database::repair_with(Arc::new(original), |_, _| (), |disk| copy(disk, &dest)) {
                    Ok(report) => {
                        let told = (report.losses, report.harmless, report.assumed);
                        assert_eq!(told, (vec![], vec![], vec![]), "{at}");
                        assert_eq!(rows(dest.inner()).unwrap(), 4, "{at}");
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("nothing is damaged"), "{at}: {error}");
                        ended += 1;
                    }
                }
                if looks.load(Ordering::Relaxed) <= failed {
                    break;
                }
            }
        }
        assert!(ended > 100, "{ended}");
    }
}
