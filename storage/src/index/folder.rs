//! The folder of an index: `SEAL`, sled's files in `sled/`, and in `aside/` the files that could not be used last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::seal::{SEAL_MAGIC, Seal};
use super::{IndexError, SealInfo, SledIndex};
use crate::disk::SharedDisk;
use crate::framed::{read_framed, write_framed};
use crate::limits::{INDEX_KEY_BYTES_MAX, INDEX_SEAL_BYTES_MAX, INDEX_SPARE_BYTES_MAX};
use crate::stamp::DatabaseId;

/// The folder of an index on a real disk. Its owner has locked the database, and uses one value of this type.
pub struct IndexFolder {
    disk: SharedDisk,
    database: DatabaseId,
    path: PathBuf,
    /// The seal's name on the disk.
    seal: String,
}

/// What stands in the folder.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The index that was left there; its seal is broken from now on.
    Index(SledIndex, SealInfo),
}

impl IndexFolder {
    /// The folder `dir` of a disk; `None` where the disk is no folder of the operating system.
    pub fn new(disk: &SharedDisk, database: DatabaseId, dir: &str) -> Option<IndexFolder> {
        let path = disk.path(dir)?;
        Some(IndexFolder { disk: disk.clone(), database, path, seal: format!("{dir}/SEAL") })
    }

    fn sled(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// What the seal says of an index that was put away; `None` where there is no seal.
    ///
    /// # Errors
    /// [`IndexError::Seal`] where it is damaged, another database's, or no file; [`IndexError::NotFolder`].
    pub fn sealed(&self) -> Result<Option<SealInfo>, IndexError> {
        Ok(self.read_seal()?.map(|seal| seal.info))
    }

    fn read_seal(&self) -> Result<Option<Seal>, IndexError> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found if found.as_ref().is_ok_and(|found| !found.is_dir()) => {
                return Err(IndexError::NotFolder { path: self.path.display().to_string() });
            }
            _ => {}
        }
        let path = self.path.join("SEAL");
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => {
                // Opening a pipe would wait for whoever writes to it.
                if !found.map_err(IndexError::io("look at", &path))?.is_file() {
                    return Err(IndexError::Changed { file: self.seal.clone(), what: "it is no file" });
                }
            }
        }
        let framed =
            read_framed(&*self.disk, &self.seal, SEAL_MAGIC, Some(self.database), INDEX_SEAL_BYTES_MAX);
        let framed = framed.map_err(IndexError::Seal)?;
        Seal::decode(&framed.payload, &self.seal).map(Some).map_err(IndexError::Seal)
    }

    /// Opens the index that was left in the folder, if its files are as they were sealed. `stop` breaks the work off.
    ///
    /// # Errors
    /// As the variants of [`IndexError`] say. What stands in the folder is not touched but by
    /// [`IndexFolder::set_aside`] or [`IndexFolder::create`].
    pub fn take(&self, stop: &dyn Fn() -> bool) -> Result<Found, IndexError> {
        let Some(seal) = self.read_seal()? else {
            return match fs::symlink_metadata(self.sled()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
                _ => Err(IndexError::NotSealed),
            };
        };
        seal.check(&self.sled(), stop)?;
        let path = self.path.join("SEAL");
        remove(&path)?;
        Ok(Found::Index(SledIndex::open(&self.sled())?, seal.info))
    }

    /// Moves what cannot be used to `aside/`, in the place of what was moved there before.
    ///
    /// # Errors
    /// [`IndexError::Io`] where the folder cannot be changed.
    pub fn set_aside(&self) -> Result<(), IndexError> {
        remove(&self.path.join("SEAL"))?;
        let aside = self.path.join("aside");
        remove(&aside)?;
        match fs::rename(self.sled(), &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::io("set aside", &self.sled())(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the index, but for what was set aside.
    ///
    /// # Errors
    /// [`IndexError::Io`] where the folder cannot be changed.
    pub fn clear(&self) -> Result<(), IndexError> {
        remove(&self.path.join("SEAL"))?;
        remove(&self.sled())
    }

    /// Makes an empty index in the place of whatever stands there.
    ///
    /// # Errors
    /// As the variants of [`IndexError`] say.
    pub fn create(&self) -> Result<SledIndex, IndexError> {
        self.clear()?;
        fs::create_dir_all(self.sled()).map_err(IndexError::io("make", &self.sled()))?;
        SledIndex::open(&self.sled())
    }

    /// Puts the index away: closes it and seals its files.
    ///
    /// # Errors
    /// As the variants of [`IndexError`] say; then the index is built anew the next time.
    pub fn put_away(
        &self,
        index: SledIndex,
        info: SealInfo,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), IndexError> {
        index.close(&self.sled())?;
        let seal = Seal::of(&self.sled(), info, stop)?;
        if seal.bytes() > INDEX_SPARE_BYTES_MAX + info.keys.saturating_mul(INDEX_KEY_BYTES_MAX) {
            return Err(IndexError::Bloated { bytes: seal.bytes(), keys: info.keys });
        }
        if stop() {
            return Err(IndexError::Stopped);
        }
        write_framed(&*self.disk, &self.seal, SEAL_MAGIC, self.database, &seal.encode())
            .map(|_| ())
            .map_err(IndexError::Seal)
    }
}

/// Removes whatever has this name; links are not followed.
fn remove(path: &Path) -> Result<(), IndexError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IndexError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
