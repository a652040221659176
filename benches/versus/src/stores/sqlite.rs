//! SQLite with a write-ahead log, a connection for each thread.
//!
//! Threads take turns to write by a lock of this program. SQLite's own way, the busy timeout, sleeps and asks again,
//! and with 16 threads commits some dozens of transactions a second.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::store::{Promise, Setup, Store, Upkeep, Writer};

/// How long a connection waits for a checkpoint of another.
const PATIENCE: Duration = Duration::from_secs(60);

struct Sqlite {
    file: PathBuf,
    setup: Setup,
    /// The first connection: the last that is closed checkpoints the log.
    connection: Mutex<Connection>,
    /// Held by the thread that writes.
    turn: Mutex<()>,
}

/// The version of the library.
pub fn version() -> &'static str {
    rusqlite::version()
}

/// Opens the database in a folder, or makes it.
pub fn open(folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join("sqlite");
    let connection = connect(&file, setup)?;
    for kind in Kind::ALL {
        // Rows are appended in the order of the table's own numbers, which is the cheapest table that there is.
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {} (number INTEGER PRIMARY KEY, source TEXT NOT NULL, text TEXT NOT NULL)",
            kind.name()
        ))?;
    }
    Ok(Box::new(Sqlite { file, setup, connection: connection.into(), turn: Mutex::default() }))
}

fn connect(file: &Path, setup: Setup) -> Result<Connection, Failed> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", synchronous(setup.promise))?;
    if setup.upkeep == Upkeep::Never {
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    }
    Ok(connection)
}

fn synchronous(promise: Promise) -> &'static str {
    match promise {
        Promise::Synced => "FULL",
        Promise::Buffered => "NORMAL",
    }
}

/// How it is set up.
pub fn terms(setup: Setup) -> String {
    let upkeep = match setup.upkeep {
        Upkeep::Default | Upkeep::Frequent => "wal_autocheckpoint=1000 pages, its default",
        Upkeep::Never => "wal_autocheckpoint=0",
    };
    format!(
        "journal_mode=WAL, synchronous={}, built with fdatasync; {upkeep}; a connection for each thread, one writes at a time",
        synchronous(setup.promise)
    )
}

struct Connected<'a> {
    connection: Connection,
    turn: &'a Mutex<()>,
}

impl Connected<'_> {
    fn insert(&self, kind: Kind, record: &Record) -> Result<(), Failed> {
        // A literal for each kind, so that the cached statement is found without making text.
        let statement = match kind {
            Kind::Row => "INSERT INTO event (number, source, text) VALUES (?1, ?2, ?3)",
            Kind::Cell => "INSERT OR REPLACE INTO note (number, source, text) VALUES (?1, ?2, ?3)",
            Kind::Model => "INSERT INTO model (number, source, text) VALUES (?1, ?2, ?3)",
        };
        let mut insert = self.connection.prepare_cached(statement)?;
        insert.execute(params![record.number as i64, record.source(), record.value])?;
        Ok(())
    }
}

impl Writer for Connected<'_> {
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match records {
            // A statement alone is a transaction.
            [record] => self.insert(kind, record),
            records => {
                self.connection.execute_batch("BEGIN IMMEDIATE")?;
                records.iter().try_for_each(|record| self.insert(kind, record))?;
                Ok(self.connection.execute_batch("COMMIT")?)
            }
        }
    }
}

impl Store for Sqlite {
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
        Ok(Box::new(Connected { connection: connect(&self.file, self.setup)?, turn: &self.turn }))
    }

    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let select = format!("SELECT text FROM {} WHERE number = ?1", kind.name());
        let text: Option<String> =
            connection.query_row(&select, [record.number as i64], |row| row.get(0)).optional()?;
        Ok(text.is_some_and(|text| text == record.value))
    }

    fn sync(&self) -> Result<(), Failed> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        // Syncs the log, writes it to the table file and syncs that.
        Ok(connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?)
    }
}
