//! Names of the files in a database's folder. Numbers are never used twice.

use crate::limits::FILE_NUMBER_MAX;
use std::fmt::Write;

/// Folder of the log.
pub(crate) const WAL_DIR: &str = "wal";
/// Folder of the segments, one folder in it for each series type.
pub(crate) const SEGMENTS_DIR: &str = "segments";
/// Folder of the state images.
pub(crate) const IMAGES_DIR: &str = "images";
/// Folder of the packs.
pub(crate) const PACKS_DIR: &str = "packs";
/// Folder of the chunk files.
pub(crate) const CHUNKS_DIR: &str = "chunks";
/// Space that is held back for a checkpoint on a full disk.
pub(crate) const RESERVE: &str = "RESERVE";
/// Folder of the index of attributes, which may be removed at any time.
pub(crate) const INDEX_DIR: &str = "index";
/// Stands in a copy until that is whole and checked.
pub(crate) const UNFINISHED: &str = "UNFINISHED";
/// The lock file.
pub(crate) const LOCK: &str = "LOCK";

/// Bytes of the name of a series' folder.
const DIR_BYTES_MAX: usize = 200;

/// The folder of a series type: its name with all but letters, digits, `-` and `_` as `%` and two hex digits.
pub(crate) fn segment_dir(series: &str) -> String {
    let mut name = String::new();
    for byte in series.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    // File systems end names at 255 bytes; a longer one is cut and told apart by its hash.
    if name.len() > DIR_BYTES_MAX {
        let hash = blake3::hash(series.as_bytes()).to_hex();
        name.truncate(DIR_BYTES_MAX - 18);
        let _ = write!(name, "%-{}", &hash[..16]);
    }
    format!("{SEGMENTS_DIR}/{name}")
}

/// The series type whose segments are in a folder; `None` where its name was cut, or is none that the engine gives.
pub(crate) fn series_of(dir: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), dir.strip_prefix(SEGMENTS_DIR)?.strip_prefix('/')?.bytes());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    let series = String::from_utf8(bytes).ok()?;
    (segment_dir(&series) == dir).then_some(series)
}

pub(crate) fn segment(series: &str, file: u64) -> String {
    format!("{}/{file:010}.seg", segment_dir(series))
}

pub(crate) fn pack(file: u64) -> String {
    format!("{PACKS_DIR}/{file:010}.pack")
}

pub(crate) fn chunk(file: u64) -> String {
    format!("{CHUNKS_DIR}/{file:010}.chunk")
}

pub(crate) fn image(file: u64) -> String {
    format!("{IMAGES_DIR}/{file:010}.img")
}

/// The number in the name of a sealed file, with or without the folder in front; `None` for a name that the engine
/// does not give.
pub(crate) fn number(name: &str) -> Option<u64> {
    let (digits, kind) = name.rsplit('/').next()?.split_once('.')?;
    let kinds = ["seg", "seg.tmp", "pack", "pack.tmp", "chunk", "chunk.tmp", "img", "img.tmp"];
    let number = digits.parse().ok()?;
    let is_given = (1..=FILE_NUMBER_MAX).contains(&number) && digits == format!("{number:010}");
    (kinds.contains(&kind) && is_given).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_gets_a_folder_of_its_own() {
        assert_eq!(segment_dir("trade-1_x"), "segments/trade-1_x");
        assert_eq!(segment_dir("../a/b"), "segments/%2e%2e%2fa%2fb");
        assert_ne!(segment_dir(&"é".repeat(120)), segment_dir(&format!("{}e", "é".repeat(119))));
        assert!(segment_dir(&"é".repeat(120)).len() < 250);
        for series in ["trade-1_x", "../a/b", "é%41", "_runs"] {
            assert_eq!(series_of(&segment_dir(series)).as_deref(), Some(series));
        }
        assert_eq!(series_of(&segment_dir(&"é".repeat(120))), None);
        for strange in ["segments", "packs/x", "segments/a.b", "segments/%2", "segments/%2E", "segments/%ff"]
        {
            assert_eq!(series_of(strange), None, "{strange}");
        }
        assert_eq!(number(&segment("a.b", 12)), Some(12));
        assert_eq!(number("packs/0000000007.pack.tmp"), Some(7));
        assert_eq!(number(&pack(FILE_NUMBER_MAX)), Some(FILE_NUMBER_MAX));
        for strange in [pack(u64::MAX), pack(FILE_NUMBER_MAX + 1), pack(0)] {
            assert_eq!(number(&strange), None, "{strange}");
        }
        for strange in ["LOCK", "2024.csv", "7.seg", "0000000007.csv", "0000000007", "+000000007.seg"] {
            assert_eq!(number(strange), None, "{strange}");
        }
    }
}
