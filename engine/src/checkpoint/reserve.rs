//! Space that is held back so that a checkpoint can be finished on a full disk.
//!
//! The file `RESERVE` holds zeros, as many as the last longer checkpoint wrote; an opening makes one where there is none. A checkpoint that finds the disk full
//! removes it and begins anew; what the checkpoint then frees (log files, files that are replaced) makes room for
//! commits and, in time, for another reserve. Nothing reads the file, and losing it loses nothing.

use underbelly_storage::disk::Disk;
use underbelly_storage::error::StorageError;

use crate::files::RESERVE;

/// Bytes that are written at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// What is held is a multiple of this: even a small database needs some for the checkpoint that is to free its space.
const STEP_BYTES: u64 = 64 << 10;

/// Makes room. False where nothing was held.
pub(super) fn give_up(disk: &dyn Disk) -> Result<bool, StorageError> {
    match disk.remove(RESERVE) {
        Ok(()) => {
            disk.sync_dir("").map_err(|source| StorageError::io("sync", &disk.describe(), source))?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StorageError::io("remove", RESERVE, source)),
    }
}

/// Holds as much as a checkpoint wrote, at most `bytes_max`, and what is held already; answers how much that is. A
/// disk that is too full for it is no error: it is tried again with the next checkpoint.
pub(crate) fn hold(disk: &dyn Disk, written: u64, bytes_max: u64) -> Result<u64, StorageError> {
    let wanted = written.min(bytes_max).max(1).next_multiple_of(STEP_BYTES);
    let io = |source| StorageError::io("write", RESERVE, source);
    let file = match disk.open(RESERVE) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            match disk.create(RESERVE).map_err(io) {
                Err(StorageError::DiskFull { .. }) => return Ok(0),
                made => made?,
            }
        }
        Err(source) => return Err(io(source)),
    };
    let mut held = file.len().map_err(io)?;
    if held >= wanted {
        return Ok(held);
    }
    let zeros = vec![0; PIECE_BYTES.min(wanted) as usize];
    while held < wanted {
        let piece = zeros.get(..(wanted - held).min(PIECE_BYTES) as usize).unwrap_or(&zeros);
        match file.write_at(piece, held).and_then(|()| file.sync_all()).map_err(io) {
            Err(StorageError::DiskFull { .. }) => {
                // The last free bytes are the log's.
                give_up(disk)?;
                return Ok(0);
            }
            done => done?,
        }
        held += piece.len() as u64;
    }
    Ok(held)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use underbelly_storage::disk::SimulatedDisk;

    #[test]
    fn a_reserve_grows_and_is_given_up_once() {
        let disk = SimulatedDisk::new();
        let step = STEP_BYTES;
        for (written, limit, held) in [
            (0, u64::MAX, step),
            (9, 0, step),
            (step + 1, u64::MAX, 2 * step),
            (2 * PIECE_BYTES + 1, u64::MAX, 2 * PIECE_BYTES + step),
            (1, 9, 2 * PIECE_BYTES + step),
            (9 * PIECE_BYTES, 3 * PIECE_BYTES, 3 * PIECE_BYTES),
        ] {
            assert_eq!(hold(&disk, written, limit).unwrap(), held);
            assert_eq!(disk.contents(RESERVE).unwrap().len() as u64, held);
        }
        assert!(give_up(&disk).unwrap());
        assert!(!give_up(&disk).unwrap());
    }
}
