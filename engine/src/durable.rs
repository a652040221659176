//! The durable part of the log, for who reads beside a writer or after it: readers and backups.
//!
//! How far it may be read is what `SHARED` says, as long as the machine that wrote it runs on. Without such a word every
//! whole batch is on the disk. Where `SHARED` is damaged, that may be said or not; then what a later batch or file
//! acknowledges is durable for sure, since a batch is written only after the sync of the one before it.

use underbelly_storage::disk::SharedDisk;
use underbelly_storage::error::StorageError;
use underbelly_storage::manifest::manifest_name;
use underbelly_wal::{Follower, Visitor, WalError, log_name};

use crate::error::OpenError;
use crate::shared::{self, Told};

/// What was read.
pub(crate) struct Durable {
    /// What the writer told, where the machine was not started anew since.
    pub told: Option<Told>,
    /// What is wrong with `SHARED`.
    pub shared_damage: Option<String>,
}

/// How far the log may be read.
enum Bound {
    /// Up to a transaction that the writer published.
    Published(Told),
    /// Up to the last that something later acknowledges.
    Acknowledged(StorageError),
    /// To its end.
    None,
}

/// Reads on in the log as far as it is durable. `checkpoint` is the manifest that the follower began behind, and the last
/// transaction in it.
///
/// # Errors
/// [`OpenError::Overtaken`] where a writer began meanwhile; [`OpenError::Corrupt`] or [`OpenError::Log`] where the log ends
/// before what was durable, and as [`Follower::read`] says; whatever `visit` answers.
pub(crate) fn read(
    disk: &SharedDisk,
    database: [u8; 16],
    follower: &mut Follower,
    checkpoint: (u64, u64),
    visit: &mut Visitor<'_, OpenError>,
) -> Result<Durable, OpenError> {
    let dir = disk.describe();
    let (manifest, stored) = checkpoint;
    let bound = Bound::of(disk, database)?;
    let limit = bound.limit(follower, stored)?;
    let next = follower.read::<OpenError>(limit, visit)?;
    if next <= stored {
        let what = format!(
            "the log ends before transaction {next}, and {} holds all up to {stored}",
            manifest_name(manifest)
        );
        return Err(OpenError::Corrupt { dir, what });
    }
    match bound {
        Bound::Published(_) if next <= limit => {
            let (file, offset) = follower.place();
            let what = format!("the log ends there, and its writer made all durable up to {limit}");
            Err(WalError::Corrupt { file: log_name(file), offset, seq: next, what }.into())
        }
        Bound::Published(told) => Ok(Durable { told: Some(told), shared_damage: None }),
        Bound::Acknowledged(damage) => Ok(Durable { told: None, shared_damage: Some(damage.to_string()) }),
        // A writer may have begun meanwhile; what it wrote is durable only as far as it says.
        Bound::None => match Bound::of(disk, database)? {
            Bound::None => Ok(Durable { told: None, shared_damage: None }),
            Bound::Published(told) if next <= told.durable.saturating_add(1) => {
                Ok(Durable { told: Some(told), shared_damage: None })
            }
            _ => Err(OpenError::Overtaken { dir }),
        },
    }
}

/// The last transaction that is known to be durable while a process writes; `u64::MAX` where none does, since an opening takes every
/// whole batch then, and where nothing says how far that is.
pub(crate) fn limit(disk: &SharedDisk, database: [u8; 16]) -> u64 {
    match Bound::of(disk, database) {
        Ok(Bound::Published(told)) if !disk.holders("").is_empty() => told.durable,
        _ => u64::MAX,
    }
}

impl Bound {
    fn of(disk: &SharedDisk, database: [u8; 16]) -> Result<Bound, OpenError> {
        match shared::read(&**disk, database) {
            Ok(told) => {
                Ok(told.filter(|told| told.is_of(shared::boot())).map_or(Bound::None, Bound::Published))
            }
            Err(error) if shared::is_damage(&error) => Ok(Bound::Acknowledged(error)),
            Err(error) => Err(error.into()),
        }
    }

    fn limit(&self, follower: &Follower, stored: u64) -> Result<u64, OpenError> {
        Ok(match self {
            Bound::Published(told) => told.durable,
            Bound::Acknowledged(_) => follower.acknowledged()?.max(stored),
            Bound::None => u64::MAX,
        })
    }
}
