//! What a peer must do to be compared, and the list of the peers.

use std::fmt;
use std::path::Path;

use clap::ValueEnum;
use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::stores;

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Once it survives power loss, as far as the store says that it does.
    Synced,
    /// Before that.
    Buffered,
}

/// How often a store does what it puts off: checkpoints, flushes and compactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// As it does by default.
    Default,
    /// Each 50,000 transactions of 100 bytes or so.
    Frequent,
    /// Never during a comparison.
    Never,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// When a commit is answered.
    pub promise: Promise,
    /// How often it does what it puts off.
    pub upkeep: Upkeep,
    /// Whether opening after a crash should be fast where that costs something at each commit.
    pub fast_reopen: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { promise: Promise::Synced, upkeep: Upkeep::Default, fast_reopen: false }
    }
}

/// An open database.
pub trait Store: Send + Sync {
    /// What one thread commits with.
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed>;

    /// Whether the record with this number is stored with this value. A row is looked up by its time, a cell by its
    /// key, a model by its metadata.
    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed>;

    /// Makes everything that was committed durable.
    fn sync(&self) -> Result<(), Failed>;

    /// How many checkpoints it has made, counted from any number on, where it tells.
    fn checkpoints(&self) -> Result<Option<u64>, Failed> {
        Ok(None)
    }

    /// What recovery did when it was opened, where it says so.
    fn recovery(&self) -> Option<String> {
        None
    }
}

/// One thread's way to commit.
pub trait Writer {
    /// Commits records of one kind in one transaction and comes back when the store has promised what it is to
    /// promise.
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed>;
}

/// Underbelly or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Ours.
    Underbelly,
    /// A copy-on-write B-tree with one writer.
    Redb,
    /// A log-structured merge tree.
    Fjall,
    /// A log-structured B-tree.
    Sled,
    /// SQL over a B-tree with a log.
    Sqlite,
}

impl Peer {
    /// All but ours.
    pub const OTHERS: [Peer; 4] = [Peer::Redb, Peer::Fjall, Peer::Sled, Peer::Sqlite];

    /// Opens the database in a folder, or makes it.
    pub fn open(self, folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
        let opened = match self {
            Peer::Underbelly => stores::underbelly::open(folder, setup),
            Peer::Redb => stores::redb::open(folder, setup),
            Peer::Fjall => stores::fjall::open(folder, setup),
            Peer::Sled => stores::sled::open(folder, setup),
            Peer::Sqlite => stores::sqlite::open(folder, setup),
        };
        opened.map_err(|error| format!("{self}: cannot open {}: {error}", folder.display()).into())
    }

    /// Whether a commit that is promised to be synced survives power loss: whether `fdatasync` or `fsync` is called.
    pub fn syncs(self) -> bool {
        self != Peer::Sled
    }

    /// How it is set up, in words.
    pub fn terms(self, setup: Setup) -> String {
        match self {
            Peer::Underbelly => stores::underbelly::terms(setup),
            Peer::Redb => stores::redb::terms(setup),
            Peer::Fjall => stores::fjall::terms(setup),
            Peer::Sled => stores::sled::terms(setup),
            Peer::Sqlite => stores::sqlite::terms(setup),
        }
    }

    /// Its version and, for SQLite, the library's own.
    pub fn version(self) -> String {
        let (package, suffix) = match self {
            Peer::Underbelly => ("underbelly", String::new()),
            Peer::Redb => ("redb", String::new()),
            Peer::Fjall => ("fjall", String::new()),
            Peer::Sled => ("sled", String::new()),
            Peer::Sqlite => ("rusqlite", format!(", SQLite {}", stores::sqlite::version())),
        };
        format!("{package} {}{suffix}", locked_version(package).unwrap_or("of unknown version"))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Underbelly => "underbelly",
            Peer::Redb => "redb",
            Peer::Fjall => "fjall",
            Peer::Sled => "sled",
            Peer::Sqlite => "sqlite",
        })
    }
}

/// The version of a package that this program was built with.
fn locked_version(package: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, entry) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    entry.split('"').next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use underbelly_benches::place;

    #[test]
    fn versions_are_known() {
        for peer in [Peer::Underbelly].into_iter().chain(Peer::OTHERS) {
            assert!(!peer.version().contains("unknown"), "{}", peer.version());
        }
        assert!(locked_version("no-such-package").is_none());
    }

    /// What is committed is held, the newest version of it, also after reopening; what is not, is not.
    fn keeps_what_is_committed(setup: Setup) {
        let scratch = place::scratch().unwrap();
        for peer in [Peer::Underbelly].into_iter().chain(Peer::OTHERS) {
            let folder = scratch.path().join(peer.to_string());
            let store = peer.open(&folder, setup).unwrap();
            let many: Vec<Record> = (0..300).map(|n| Record::new(n, n, 84)).collect();
            let newer = Record::new(7, 1007, 84);
            for kind in Kind::ALL {
                let mut writer = store.writer().unwrap();
                writer.commit(kind, &many).unwrap();
                writer.commit(kind, &[Record::new(300, 300, 84)]).unwrap();
                if kind == Kind::Cell {
                    writer.commit(kind, std::slice::from_ref(&newer)).unwrap();
                }
            }
            let check = |store: &dyn Store| {
                for kind in Kind::ALL {
                    for record in [&many[0], &many[299], &Record::new(300, 300, 84)] {
                        assert!(store.holds(kind, record).unwrap(), "{peer} {kind:?} {}", record.number);
                    }
                    assert!(!store.holds(kind, &Record::new(301, 301, 84)).unwrap(), "{peer} {kind:?}");
                    assert_eq!(store.holds(kind, &newer).unwrap(), kind == Kind::Cell, "{peer} {kind:?}");
                }
            };
            check(&*store);
            store.sync().unwrap();
            drop(store);
            check(&*peer.open(&folder, setup).unwrap());
        }
    }

    #[test]
    fn every_store_keeps_what_is_committed() {
        keeps_what_is_committed(Setup::default());
    }

    #[test]
    fn every_store_keeps_what_is_committed_with_other_settings() {
        keeps_what_is_committed(Setup { upkeep: Upkeep::Never, fast_reopen: true, ..Setup::default() });
        let buffered = Setup { promise: Promise::Buffered, upkeep: Upkeep::Frequent, ..Setup::default() };
        keeps_what_is_committed(buffered);
    }
}
