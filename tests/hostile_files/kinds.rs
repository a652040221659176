//! Every kind of file that a database's folder holds: the one list that the tests here go through.

use std::sync::Arc;

use underbelly::Database;
use underbelly_tests::sample::options;

use crate::subject::Subject;

/// A kind of file.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// How names of this kind begin, and how they end.
    pub begins: &'static str,
    pub ends: &'static str,
    /// Whether a closed database needs every byte of one such file at least, so that damage to it must be told.
    pub is_needed: bool,
}

const fn kind(name: &'static str, begins: &'static str, ends: &'static str, is_needed: bool) -> Kind {
    Kind { name, begins, ends, is_needed }
}

/// All kinds. A name belongs to the first that fits.
pub const KINDS: &[Kind] = &[
    kind("manifest", "MANIFEST-", "", true),
    kind("image", "images/", ".img", true),
    kind("segment", "segments/", ".seg", true),
    kind("pack", "packs/", ".pack", true),
    kind("chunk", "chunks/", ".chunk", true),
    // A closed database has all that its log says in other files too.
    kind("log", "wal/", ".wal", false),
    // Prepared files are for what comes.
    kind("spare", "wal/spare-", "", false),
    // Kept for people.
    kind("torn tail", "lost/", ".torn", false),
    // Written at each opening, for readers in other processes.
    kind("shared", "SHARED", "", false),
    // Made at each opening, for other processes; here as the others of these, `folder.rs` damages it.
    kind("variables", "VARIABLES", "", false),
    // Space that is held back.
    kind("reserve", "RESERVE", "", false),
    // Made anew where it is lost.
    kind("index", "index/", "", false),
    // Written at each opening; the lock itself is on the folder.
    kind("lock", "LOCK", "", false),
];

/// The kind of a file.
///
/// # Panics
/// Where there is none: a kind that the engine writes and this list lacks.
pub fn kind_of(name: &str) -> &'static Kind {
    known_kind_of(name).unwrap_or_else(|| panic!("{name} is of no kind that is listed in kinds.rs"))
}

/// The kind of a file; `None` for a folder.
pub fn known_kind_of(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| name.starts_with(kind.begins) && name.ends_with(kind.ends))
}

/// The databases here have files of all kinds but those which a disk in memory does not have.
#[test]
fn every_kind_is_there() {
    let subject = Subject::closed();
    let files = subject.disk.files();
    for kind in KINDS.iter().filter(|kind| !["lock", "index", "variables"].contains(&kind.name)) {
        let mut mine = files.iter().filter(|name| kind_of(name).name == kind.name).peekable();
        assert!(mine.peek().is_some(), "{}: {files:?}", kind.name);
        assert_eq!(mine.any(|name| subject.is_needed(name)), kind.is_needed, "{}", kind.name);
    }
    // A base that both manifests name, with a delta over it in which something is gone: no manifest is without the base.
    let images: Vec<&String> = files.iter().filter(|name| kind_of(name).name == "image").collect();
    assert_eq!(images.len(), 2, "{files:?}");
    let emptied = subject.with(images[0], Vec::new());
    let refused = Database::open_on(Arc::new(emptied), options()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains(images[0].as_str()), "{refused}");
    let delta = subject.disk.contents(images[1]).unwrap();
    assert!(
        delta.windows(4).any(|bytes| bytes == u32::MAX.to_le_bytes()),
        "nothing is gone in {}",
        images[1]
    );
}
