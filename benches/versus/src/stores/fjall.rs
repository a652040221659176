//! fjall: a log-structured merge tree; journal and sync are asked for by the caller.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::store::{Promise, Setup, Store, Upkeep, Writer};

/// Bytes of a memtable after which it is flushed, where flushes are to be frequent.
const FREQUENT_BYTES: u64 = 5 << 20;
/// The same where there are to be none.
const NEVER_BYTES: u64 = 8 << 30;

struct Fjall {
    db: Database,
    tables: [Keyspace; 3],
    persist: PersistMode,
}

/// Opens the database in a folder, or makes it.
pub fn open(folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
    let builder = Database::builder(folder);
    let db = match setup.upkeep {
        Upkeep::Never => builder.max_journaling_size(NEVER_BYTES).open()?,
        Upkeep::Default | Upkeep::Frequent => builder.open()?,
    };
    let options = || match setup.upkeep {
        Upkeep::Default => KeyspaceCreateOptions::default(),
        Upkeep::Frequent => KeyspaceCreateOptions::default().max_memtable_size(FREQUENT_BYTES),
        Upkeep::Never => KeyspaceCreateOptions::default().max_memtable_size(NEVER_BYTES),
    };
    let [row, cell, model] = Kind::ALL.map(|kind| db.keyspace(kind.name(), options));
    let persist = match setup.promise {
        Promise::Synced => PersistMode::SyncAll,
        Promise::Buffered => PersistMode::Buffer,
    };
    Ok(Box::new(Fjall { tables: [row?, cell?, model?], db, persist }))
}

/// How it is set up.
pub fn terms(setup: Setup) -> String {
    let persist = match setup.promise {
        Promise::Synced => {
            "persist(SyncAll) after each commit, outside its lock so that a sync may cover several"
        }
        Promise::Buffered => "its default: written to the operating system, not synced",
    };
    let upkeep = match setup.upkeep {
        Upkeep::Default => "memtables of 64 MiB, its default".to_string(),
        Upkeep::Frequent => format!("memtables of {} MiB", FREQUENT_BYTES >> 20),
        Upkeep::Never => "memtables that are never flushed".to_string(),
    };
    format!("{persist}; {upkeep}; built without lz4")
}

impl Fjall {
    fn table(&self, kind: Kind) -> &Keyspace {
        let [row, cell, model] = &self.tables;
        match kind {
            Kind::Row => row,
            Kind::Cell => cell,
            Kind::Model => model,
        }
    }
}

impl Writer for &Fjall {
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed> {
        let table = self.table(kind);
        match records {
            [record] => table.insert(record.key(), record.value.as_str())?,
            records => {
                let mut batch = self.db.batch();
                for record in records {
                    batch.insert(table, record.key(), record.value.as_str());
                }
                batch.commit()?;
            }
        }
        Ok(self.db.persist(self.persist)?)
    }
}

impl Store for Fjall {
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
        Ok(Box::new(self))
    }

    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed> {
        let found = self.table(kind).get(record.key())?;
        Ok(found.is_some_and(|value| *value == *record.value.as_bytes()))
    }

    fn sync(&self) -> Result<(), Failed> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }
}
