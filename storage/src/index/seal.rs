//! The seal of an index: what its files were when they were left.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::IndexError;
use crate::cursor::Cursor;
use crate::error::{Damage, StorageError};
use crate::limits::INDEX_FILES_MAX;

/// What the first eight bytes of a seal are.
pub(super) const SEAL_MAGIC: [u8; 8] = *b"UBINDEX3";

/// Bytes read at a time when a file is hashed.
const PIECE_BYTES: usize = 1 << 20;

/// What a seal says of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealInfo {
    /// The transaction that the index reflects.
    pub seq: u64,
    /// How many keys it holds.
    pub keys: u64,
}

/// Length in bytes and BLAKE3 of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileInfo {
    bytes: u64,
    hash: [u8; 32],
}

/// What a seal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) info: SealInfo,
    files: BTreeMap<String, FileInfo>,
}

impl Seal {
    /// The seal of the files in `dir`.
    pub(super) fn of(dir: &Path, info: SealInfo, stop: &dyn Fn() -> bool) -> Result<Seal, IndexError> {
        let mut files = BTreeMap::new();
        for (name, bytes) in list(dir)? {
            let hash = hash(&dir.join(&name), stop)?;
            files.insert(name, FileInfo { bytes, hash });
        }
        Ok(Seal { info, files })
    }

    /// Compares the files in `dir`, names and lengths first.
    pub(super) fn check(&self, dir: &Path, stop: &dyn Fn() -> bool) -> Result<(), IndexError> {
        let changed = |file: &str, what| IndexError::Changed { file: file.to_string(), what };
        let found = list(dir)?;
        if let Some((file, _)) = found.iter().find(|(name, _)| !self.files.contains_key(*name)) {
            return Err(changed(file, "it was not there"));
        }
        for (name, sealed) in &self.files {
            match found.get(name) {
                None => return Err(changed(name, "it is gone")),
                Some(bytes) if *bytes != sealed.bytes => return Err(changed(name, "its length differs")),
                Some(_) => {}
            }
        }
        for (name, sealed) in &self.files {
            if hash(&dir.join(name), stop)? != sealed.hash {
                return Err(changed(name, "its contents differ"));
            }
        }
        Ok(())
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.info.seq.to_le_bytes());
        bytes.extend(self.info.keys.to_le_bytes());
        bytes.extend((self.files.len() as u32).to_le_bytes());
        for (name, file) in &self.files {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(file.bytes.to_le_bytes());
            bytes.extend(file.hash);
        }
        bytes
    }

    pub(super) fn decode(payload: &[u8], name: &str) -> Result<Seal, StorageError> {
        let mut cursor = Cursor::new(payload);
        Seal::read(&mut cursor).map_err(|damage| damage.at(name, cursor.position() as u64))
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Seal, Damage> {
        let info = SealInfo { seq: cursor.u64()?, keys: cursor.u64()? };
        let count = cursor.u32()?;
        if count as usize > INDEX_FILES_MAX {
            return Err(Damage("it names too many files"));
        }
        let mut files = BTreeMap::new();
        for _ in 0..count {
            let length = usize::from(cursor.u16()?);
            let name =
                std::str::from_utf8(cursor.take(length)?).map_err(|_| Damage("a name is not UTF-8"))?;
            let file = FileInfo { bytes: cursor.u64()?, hash: cursor.array()? };
            files.insert(name.to_string(), file);
        }
        match cursor.rest().is_empty() && files.len() == count as usize {
            true => Ok(Seal { info, files }),
            false => Err(Damage("it does not end with its last file")),
        }
    }
}

/// Files in a folder and in the folders in it with their lengths in bytes, by their names relative to it.
fn list(dir: &Path) -> Result<BTreeMap<String, u64>, IndexError> {
    let mut files = BTreeMap::new();
    let mut folders = vec![(dir.to_path_buf(), String::new(), true)];
    while let Some((folder, prefix, is_top)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(IndexError::io("list", &folder))? {
            let entry = entry.map_err(IndexError::io("list", &folder))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            // Of the entry itself: a link leads out of the folder, and a pipe would never end.
            let metadata = entry.metadata().map_err(IndexError::io("look at", &entry.path()))?;
            if metadata.is_file() && files.len() < INDEX_FILES_MAX {
                files.insert(name, metadata.len());
            } else if metadata.is_dir() && is_top {
                folders.push((entry.path(), format!("{name}/"), false));
            } else {
                return Err(IndexError::Changed { file: name, what: "sled makes no such file" });
            }
        }
    }
    Ok(files)
}

fn hash(path: &Path, stop: &dyn Fn() -> bool) -> Result<[u8; 32], IndexError> {
    let mut file = fs::File::open(path).map_err(IndexError::io("open", path))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        if stop() {
            return Err(IndexError::Stopped);
        }
        match file.read(&mut piece).map_err(IndexError::io("read", path))? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            read => hasher.update(&piece[..read]),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn seal() -> Seal {
        let file = |bytes, hash| FileInfo { bytes, hash: [hash; 32] };
        let files = [("conf".to_string(), file(3, 1)), ("db".to_string(), file(u64::MAX, 2))];
        Seal { info: SealInfo { seq: 7, keys: 9 }, files: files.into() }
    }

    #[test]
    fn the_bytes_of_a_seal_are_fixed() {
        let bytes = seal().encode();
        assert_eq!(bytes.len(), 20 + 2 + 4 + 40 + 2 + 2 + 40);
        assert_eq!(bytes[..26], *b"\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\x04\0conf");
        assert_eq!(Seal::decode(&bytes, "index/SEAL").unwrap(), seal());
    }

    #[test]
    fn cut_and_grown_seals_are_refused() {
        let mut bytes = seal().encode();
        for end in 0..bytes.len() {
            assert!(matches!(Seal::decode(&bytes[..end], "s"), Err(StorageError::Corrupt { .. })), "{end}");
        }
        bytes.push(0);
        assert!(Seal::decode(&bytes, "s").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Seal::decode(&bytes, "s");
        }
    }
}
