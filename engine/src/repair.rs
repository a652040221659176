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

use underbelly_storage::disk::{RealDisk, SharedDisk, WornDisk};
use underbelly_storage::manifest::newest_manifest;

use crate::backup::{BackupOptions, Copy};
use crate::database::Database;
use crate::error::{CopyError, OpenError};
use crate::open::is_unfinished;
use crate::verify::VerifyReport;

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
    /// What was taken to be so where nothing says it: without a manifest, which files are the database.
    pub assumed: Vec<String>,
    /// What was checked of the copy afterwards.
    pub verified: VerifyReport,
    /// How long it took.
    pub took: Duration,
}

impl Database {
    /// Saves what is left of a damaged database into a folder that is empty or not there, and lists what is lost. The
    /// damaged one is not changed, and must not be open for writing. Files that verify are copied; every file of the
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
        if is_unfinished(&*disk) && matches!(newest_manifest(&*disk), Ok(None)) {
            return Err(OpenError::Unfinished { dir }.into());
        }
        let copy = Copy::begin(&original, dest.as_ref(), BackupOptions { copy: true })?;
        copy.mark().map_err(|error| copy.give_up(error))?;
        let Left { mut losses, candidates, database } = match Left::find(&disk) {
            Ok(left) => left,
            Err(error) => {
                copy.clear()?;
                return Err(error);
            }
        };
        let mut best: Option<(Saved, Candidate)> = None;
        // Whether the copy holds what the best one saved.
        let mut is_placed = false;
        // The first that loses nothing, or else the best.
        for candidate in candidates {
            copy.restart()?;
            is_placed = false;
            match salvage(&disk, &copy, database, &candidate) {
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
            saved = match salvage(&disk, &copy, database, &candidate) {
                Ok(saved) => saved,
                Err(Unusable::All(error)) => return Err(copy.give_up(error)),
                Err(Unusable::This(loss)) => {
                    copy.clear()?;
                    return Err(nothing(&disk, &[loss]));
                }
            };
        }
        if saved.losses.is_empty() {
            let whole = match candidate.number {
                0 => "nothing, since the log holds all from the first transaction on".to_string(),
                number => format!("nothing, since manifest {number} and the log behind it hold it"),
            };
            losses.iter_mut().for_each(|loss| loss.lost.clone_from(&whole));
        }
        losses.extend(saved.losses);
        losses.extend(worn.unreadable().into_iter().map(Loss::unreadable));
        let verified = copy.verify(progress)?;
        let manifest = (candidate.number > 0).then_some(candidate.number);
        let (seq, records) = (saved.seq, saved.records);
        let assumed = candidate.assumed;
        Ok(RepairReport { manifest, seq, records, losses, assumed, verified, took: began.elapsed() })
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
