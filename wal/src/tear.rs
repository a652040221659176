//! What is kept of a torn tail.

use underbelly_storage::disk::{File, SharedDisk};

use crate::error::{Preparation, WalError};
use crate::layout::LOST;

/// Bytes copied at once.
const STEP: u64 = 1 << 20;

/// Copies `bytes` bytes at `offset` of a log file aside, durably, and returns the copy's name.
///
/// The copy appears under its name only when it is complete, so that a recovery cut short repeats it.
pub(crate) fn keep(
    disk: &SharedDisk,
    file: &dyn File,
    number: u64,
    offset: u64,
    bytes: u64,
) -> Result<String, WalError> {
    let kept = format!("{LOST}/{number:010}-{offset}.torn");
    let unfinished = format!("{kept}.tmp");
    let preparation = Preparation { disk, bytes };
    disk.create_dir(LOST).map_err(preparation.failed("create", LOST))?;
    // Left by a recovery that was cut short; where there is none the answer does not matter.
    disk.remove(&unfinished).ok();
    let copied = copy(disk, file, offset, bytes, &unfinished);
    if copied.is_err() {
        disk.remove(&unfinished).ok();
    }
    copied?;
    disk.rename(&unfinished, &kept).map_err(preparation.failed("rename", &unfinished))?;
    disk.sync_dir(LOST).map_err(preparation.failed("sync", LOST))?;
    Ok(kept)
}

fn copy(disk: &SharedDisk, file: &dyn File, offset: u64, bytes: u64, name: &str) -> Result<(), WalError> {
    let preparation = Preparation { disk, bytes };
    let copy = disk.create(name).map_err(preparation.failed("create", name))?;
    let mut buffer = vec![0; STEP.min(bytes) as usize];
    let mut done = 0;
    while done < bytes {
        let step = STEP.min(bytes - done) as usize;
        let part = buffer.get_mut(..step).unwrap_or_default();
        let read = file.read_at(part, offset + done).map_err(WalError::io("read", name))?;
        if read == 0 {
            break;
        }
        let part = part.get(..read).unwrap_or_default();
        copy.write_at(part, done).map_err(preparation.failed("write", name))?;
        done += read as u64;
    }
    copy.sync_all().map_err(preparation.failed("sync", name))
}
