//! From where a repair may go out.

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::manifest::{manifest_name, manifest_numbers};
use underbelly_storage::stamp;
use underbelly_wal::{FileInspection, inspect, owner};

use super::gather::{Covered, Gathered, gather};
use super::loss::Loss;
use crate::checkpoint::all_files;
use crate::error::{CopyError, OpenError};
use crate::files;
use crate::manifest::Stored;
use crate::open::{last_sealed, no_manifest};
use crate::record::v1;

/// A manifest to go out from.
#[derive(Default)]
pub(super) struct Candidate {
    /// 0 where none could be used.
    pub number: u64,
    pub manifest: v1::Manifest,
    /// Its image is lost, and with it the graph, the contents of cells and the versions of models.
    pub without_image: bool,
    /// Transactions of which its segments hold the rows although the log behind it appends them too.
    pub covered: Covered,
    /// The last transaction that any manifest holds, or of which a segment holds rows, where there is none or one that cannot be read.
    pub stored: u64,
    pub losses: Vec<Loss>,
    /// What was taken to be so, as nothing says it.
    pub assumed: Vec<String>,
}

/// What there is to go out from.
pub(super) struct Left {
    /// Manifests that cannot be read.
    pub losses: Vec<Loss>,
    pub candidates: Vec<Candidate>,
    pub database: [u8; 16],
}

impl Left {
    /// Manifests to go out from, newest first: as they are, then the log where it begins with the first transaction, then
    /// manifests without their images; where none can be read, that log, then what the files say of themselves.
    pub(super) fn find(disk: &SharedDisk) -> Result<Left, CopyError> {
        let (mut losses, mut candidates) = (Vec::new(), Vec::new());
        let (mut database, mut stored) = (None, 0);
        let numbers = manifest_numbers(&**disk).map_err(OpenError::from)?;
        for number in numbers.iter().rev() {
            match Stored::read(&**disk, *number) {
                Ok(Stored { database: id, manifest, .. }) => {
                    if *database.get_or_insert(id) == id {
                        stored = manifest.seq.max(stored);
                    }
                    candidates.push(Candidate { number: *number, manifest, ..Candidate::default() });
                }
                Err(error) => {
                    losses.push(Loss::new(
                        manifest_name(*number),
                        &error.into(),
                        "the list of files of a checkpoint",
                    ));
                }
            }
        }
        let Some(database) = database.map_or_else(|| database_of(disk), |known| Ok(Some(known)))? else {
            return Err(match losses.is_empty() {
                true => no_manifest(disk).into(),
                false => nothing(disk, &losses),
            });
        };
        if let Some(Candidate { number, manifest, .. }) = candidates.first() {
            let (number, manifest) = (*number, manifest.clone());
            if !losses.is_empty() {
                // How much a manifest held that cannot be read its segments may tell.
                let sealed = last_sealed(&**disk, database, manifest.next_file);
                stored = stored.max(sealed.map_err(OpenError::from)?);
            }
            // An older manifest is asked for what a newer one held, too.
            candidates.iter_mut().for_each(|candidate| candidate.stored = stored);
            // What is wrong with the log is told by whoever goes out from a manifest.
            let inspected = inspect(disk.clone(), database).unwrap_or_default();
            // Where what the manifests name is damaged, a log that holds all from the first transaction on may do without.
            candidates.extend(from_the_first(&inspected, stored));
            candidates.push(Candidate {
                number,
                manifest,
                without_image: true,
                stored,
                ..Candidate::default()
            });
            return Ok(Left { losses, candidates, database });
        }
        if losses.is_empty() {
            let (damage, lost) =
                ("there is none".to_string(), "the list of files of a checkpoint".to_string());
            losses.push(Loss { file: "MANIFEST-*".to_string(), offset: None, damage, lost });
        }
        let inspected = inspect(disk.clone(), database).map_err(OpenError::from)?;
        let gathered = gathered(disk, database, &inspected)?;
        let stored = gathered.as_ref().map_or(0, |gathered| gathered.stored);
        candidates.extend(from_the_first(&inspected, stored));
        candidates.extend(gathered);
        Ok(Left { losses, candidates, database })
    }
}

/// The log alone, where it begins with the first transaction; it is to reach `stored`.
fn from_the_first(inspected: &[FileInspection], stored: u64) -> Option<Candidate> {
    let first = inspected.iter().find_map(|file| file.header.as_ref().ok())?;
    let (next_file, next_run, log_file_bytes) = (1, 1, first.file_len);
    let manifest = v1::Manifest { next_file, next_run, log_file_bytes, ..v1::Manifest::default() };
    (first.first_seq == 1).then(|| Candidate { manifest, stored, ..Candidate::default() })
}

fn gathered(
    disk: &SharedDisk,
    database: [u8; 16],
    inspected: &[FileInspection],
) -> Result<Option<Candidate>, OpenError> {
    let gathered = gather(disk, database, inspected)?;
    Ok(gathered.map(|gathered| {
        let Gathered { manifest, with_graph, covered, stored, losses, assumed, .. } = gathered;
        Candidate { number: 0, manifest, without_image: !with_graph, covered, stored, losses, assumed }
    }))
}

/// Which database it is, as the log says, or else the newest file that says it.
fn database_of(disk: &SharedDisk) -> Result<Option<[u8; 16]>, OpenError> {
    if let Some(owner) = owner(disk.clone())? {
        return Ok(Some(owner));
    }
    let mut files = all_files(&**disk)?;
    files.sort_unstable_by_key(|name| std::cmp::Reverse(files::number(name)));
    Ok(files.iter().find_map(|name| stamp::owner(&**disk, name).ok()))
}

/// Why nothing can be saved.
pub(super) fn nothing(disk: &SharedDisk, losses: &[Loss]) -> CopyError {
    CopyError::Nothing { dir: disk.describe(), losses: losses.iter().map(ToString::to_string).collect() }
}
