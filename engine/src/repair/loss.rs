//! What a repair could not save.

use std::collections::{BTreeMap, BTreeSet};

use underbelly_storage::Timestamp;
use underbelly_storage::disk::{SharedDisk, Unreadable};
use underbelly_storage::error::StorageError;
use underbelly_storage::object::ObjectId;
use underbelly_wal::{FileInspection, Sound, WalError, inspect};

use crate::error::OpenError;
use crate::files;
use crate::record::v1;
use crate::state::State;

/// A part of a damaged database that could not be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The file that is damaged or missing.
    pub file: String,
    /// Byte in it at which the damage was found, where that is known.
    pub offset: Option<u64>,
    /// What is wrong with it.
    pub damage: String,
    /// What is lost: the series with its times and rows, the cells, the models, the transactions.
    pub lost: String,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        write!(f, ": {}; lost: {}", self.damage, self.lost)
    }
}

impl Loss {
    pub(super) fn new(file: impl Into<String>, damage: &OpenError, lost: impl Into<String>) -> Loss {
        let (offset, what) = match damage {
            OpenError::Storage(StorageError::Corrupt { offset, what, .. })
            | OpenError::Log(WalError::Corrupt { offset, what, .. }) => (Some(*offset), what.clone()),
            OpenError::Storage(StorageError::Missing { .. }) => (None, "it is missing".to_string()),
            OpenError::Storage(StorageError::Io { action, source, .. })
            | OpenError::Log(WalError::Io { action, source, .. }) => {
                (None, format!("cannot {action} it: {source}"))
            }
            OpenError::Log(WalError::Foreign { found, .. }) => {
                let id: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
                (None, format!("it belongs to another database, {id}"))
            }
            OpenError::Corrupt { what, .. } => (None, what.clone()),
            other => (None, other.brief()),
        };
        Loss { file: file.into(), offset, damage: what, lost: lost.into() }
    }

    /// A place that the disk does not give. What stood in it is missed by whoever needs it.
    pub(super) fn unreadable(place: Unreadable) -> Loss {
        let Unreadable { file, offset, bytes, error } = place;
        let damage = format!("{bytes} bytes cannot be read: {error}");
        let lost = "what stood there, as the other losses say; nothing where they do not, as of files that are not needed".to_string();
        Loss { file, offset: Some(offset), damage, lost }
    }
}

pub(super) fn segment_loss(series: &str, reference: &v1::SegmentRef, error: &OpenError) -> Loss {
    let (first, last) = (Timestamp(reference.ts_min), Timestamp(reference.ts_max));
    let lost = format!("{} rows of series {series:?} from {first} to {last}", reference.rows);
    Loss::new(files::segment(series, reference.file), error, lost)
}

/// What of the log was not saved. `head` is the last transaction that was, `durable` one that is known to have been durable.
pub(super) fn log_losses(
    disk: &SharedDisk,
    database: [u8; 16],
    sound: Result<Sound, OpenError>,
    (head, durable): (u64, u64),
    refused: Option<String>,
    (unreadable, published): (&[Unreadable], Option<u64>),
) -> Result<Vec<Loss>, OpenError> {
    let mut losses = Vec::new();
    let inspected = inspect(disk.clone(), database).unwrap_or_default();
    let behind = |head: u64| {
        let whole: Vec<String> = inspected.iter().filter_map(|file| whole_behind(file, head)).collect();
        match whole.is_empty() {
            true if durable > head => {
                format!("transactions from {} to {durable}, which were durable", head + 1)
            }
            true => format!("transactions from {} on, if there were any", head + 1),
            false => {
                format!("transactions from {} on; whole, and not applied: {}", head + 1, whole.join("; "))
            }
        }
    };
    match sound {
        Ok(Sound { damage: Some(damage), .. }) => {
            let file = damage.file().unwrap_or(files::WAL_DIR).to_string();
            losses.push(Loss::new(file, &damage.into(), behind(head)));
        }
        Ok(sound) if sound.next_seq <= durable => {
            let end = sound.next_seq - 1;
            let damage = format!("the log ends with transaction {end}, and all up to {durable} were durable");
            let lost = behind(head);
            losses.push(Loss { file: files::WAL_DIR.to_string(), offset: None, damage, lost });
        }
        // The log looks as if it ended there, since what the disk does not give reads as nothing.
        // Where nobody says that nothing more was durable.
        Ok(Sound { end: Some((file, offset)), .. }) if published.is_none_or(|last| last > head) => {
            let is_behind = |place: &&Unreadable| {
                let is_of_log = place.file.starts_with(files::WAL_DIR);
                is_of_log && (&*place.file, place.offset + place.bytes) > (&*file, offset)
            };
            let hidden = unreadable.iter().find(is_behind);
            losses.extend(hidden.map(|place| Loss { lost: behind(head), ..Loss::unreadable(place.clone()) }));
        }
        Ok(_) => {}
        Err(OpenError::Log(error @ (WalError::Recycled { .. } | WalError::Missing { .. }))) => {
            let lost = behind(head);
            let damage = match error {
                WalError::Missing { .. } => "there is no log".to_string(),
                _ => "no sound file of the log holds the transaction that follows the manifest".to_string(),
            };
            losses.push(Loss { file: files::WAL_DIR.to_string(), offset: None, damage, lost });
        }
        Err(error) => return Err(error),
    }
    if let Some(damage) = refused {
        losses.push(Loss { file: files::WAL_DIR.to_string(), offset: None, damage, lost: behind(head) });
    }
    // Damage elsewhere in the log, such as in files that the manifest does not need.
    for damage in inspected.iter().flat_map(FileInspection::damages) {
        let WalError::Corrupt { file, seq, .. } = &damage else { continue };
        if !losses.iter().any(|loss| loss.file == *file) && *seq > head {
            let file = file.clone();
            losses.push(Loss::new(file, &damage.into(), behind(head)));
        }
    }
    Ok(losses)
}

/// Whole batches of a file with records after `head`.
fn whole_behind(file: &FileInspection, head: u64) -> Option<String> {
    let later = file.batches.iter().filter(|batch| batch.records > 0 && batch.first_seq > head);
    let (mut first, mut last) = (u64::MAX, 0);
    for batch in later {
        first = first.min(batch.first_seq);
        last = last.max(batch.first_seq + u64::from(batch.records) - 1);
    }
    (last > 0).then(|| format!("{first} to {last} in {}", file.file))
}

/// Cells and models whose objects are lost.
pub(super) fn object_losses(
    state: &State,
    lost: &BTreeSet<ObjectId>,
    damaged: &BTreeMap<ObjectId, String>,
) -> Vec<Loss> {
    let mut losses = Vec::new();
    let mut push = |id: &ObjectId, what: String| {
        let file = damaged.get(id).cloned().unwrap_or_else(|| files::PACKS_DIR.to_string());
        losses.push(Loss { file, offset: None, damage: format!("object {id} is not there"), lost: what });
    };
    for cell in state.graph.cells() {
        let Some(info) = state.graph.cell_info(cell) else { continue };
        let Some(content) = state.cell_at(cell, u64::MAX).and_then(|version| version.content) else {
            continue;
        };
        if lost.contains(&content) {
            let slot = state.graph.slot(info.slot).map(|slot| slot.name.clone()).unwrap_or_default();
            push(&content, format!("contents of cell {slot} {} {}", info.date, info.key));
        }
    }
    for (id, version) in state.models.iter() {
        if let Some(object) = version.objects().find(|object| lost.contains(object)) {
            push(&object, format!("a version of model {id}, put by transaction {}", version.seq));
        }
    }
    losses
}
