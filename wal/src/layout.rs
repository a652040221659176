//! Names in the database's folder, and the unit in which files are laid out.

/// Unit of all offsets and lengths in a log file, in bytes.
pub(crate) const BLOCK: u64 = 4096;

/// Largest sequence, batch or file number, so that counting on never overflows.
pub(crate) const NUMBER_MAX: u64 = i64::MAX as u64;

/// Folder of the log.
pub(crate) const DIR: &str = "wal";

/// Folder of what was cut from a torn log.
pub(crate) const LOST: &str = "lost";

/// What an entry of the log's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A file of the log.
    Log(u64),
    /// A file ready for use.
    Spare(u64),
    /// A spare whose preparation was cut short.
    Unfinished(u64),
    /// Not ours.
    Other,
}

/// Bytes rounded up to whole blocks.
pub(crate) fn padded(bytes: u64) -> u64 {
    bytes.saturating_add(BLOCK - 1) / BLOCK * BLOCK
}

/// The name of log file `number`, relative to the database.
pub fn log_name(number: u64) -> String {
    format!("{DIR}/{number:010}.wal")
}

pub(crate) fn spare_name(number: u64) -> String {
    format!("{DIR}/spare-{number:010}")
}

pub(crate) fn unfinished_name(number: u64) -> String {
    format!("{DIR}/spare-{number:010}.tmp")
}

/// Reads the name of an entry of the log's folder.
pub(crate) fn entry(name: &str) -> Entry {
    // Only names that this module writes are ours: `number` accepts exactly what `{:010}` prints.
    let number = |digits: &str| {
        digits.parse::<u64>().ok().filter(|n| *n <= NUMBER_MAX && format!("{n:010}") == digits)
    };
    if let Some(n) = name.strip_suffix(".wal").and_then(number) {
        return Entry::Log(n);
    }
    match name.strip_prefix("spare-") {
        Some(rest) => match rest.strip_suffix(".tmp") {
            Some(digits) => number(digits).map_or(Entry::Other, Entry::Unfinished),
            None => number(rest).map_or(Entry::Other, Entry::Spare),
        },
        None => Entry::Other,
    }
}

/// Reads a little-endian number; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a little-endian number; `None` past the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_foreign_names_are_not_ours() {
        assert_eq!(entry("0000000007.wal"), Entry::Log(7));
        assert_eq!(entry("spare-0000000007"), Entry::Spare(7));
        assert_eq!(entry("spare-0000000007.tmp"), Entry::Unfinished(7));
        for name in [
            "7.wal",
            "+000000007.wal",
            "00000000007.wal",
            "x.wal",
            "spare-1",
            "spare-",
            "18446744073709551615.wal",
            ".wal",
            "readme",
        ] {
            assert_eq!(entry(name), Entry::Other, "{name}");
        }
    }

    #[test]
    fn padding_goes_up_to_whole_blocks() {
        assert_eq!([padded(0), padded(1), padded(4096), padded(4097)], [0, 4096, 4096, 8192]);
    }
}
