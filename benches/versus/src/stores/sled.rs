//! sled: a log-structured B-tree that many threads write; a flush is asked for by the caller.

use std::path::Path;

use sled::{Batch, Config, Db, Mode, Tree};
use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::store::{Promise, Setup, Store, Writer};

struct Sled {
    db: Db,
    tables: [Tree; 3],
    flush: bool,
}

/// Opens the database in a folder, or makes it.
pub fn open(folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
    let config = Config::new().path(folder).mode(Mode::HighThroughput);
    let flush = setup.promise == Promise::Synced;
    // A flush in the background would be one too many where each commit is flushed.
    let config = if flush { config.flush_every_ms(None) } else { config };
    let db = config.open()?;
    let [row, cell, model] = Kind::ALL.map(|kind| db.open_tree(kind.name()));
    Ok(Box::new(Sled { tables: [row?, cell?, model?], db, flush }))
}

/// How it is set up.
pub fn terms(setup: Setup) -> String {
    let flush = match setup.promise {
        Promise::Synced => {
            "flush after each commit; sled 0.34 flushes with sync_file_range, which does not empty the drive's cache"
        }
        Promise::Buffered => "flush in the background each 500 ms, its default",
    };
    format!("{flush}; Mode::HighThroughput; has no setting for upkeep")
}

impl Sled {
    fn table(&self, kind: Kind) -> &Tree {
        let [row, cell, model] = &self.tables;
        match kind {
            Kind::Row => row,
            Kind::Cell => cell,
            Kind::Model => model,
        }
    }
}

impl Writer for &Sled {
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed> {
        let table = self.table(kind);
        match records {
            [record] => drop(table.insert(record.key(), record.value.as_bytes())?),
            records => {
                let mut batch = Batch::default();
                for record in records {
                    batch.insert(&record.key(), record.value.as_bytes());
                }
                table.apply_batch(batch)?;
            }
        }
        if self.flush {
            table.flush()?;
        }
        Ok(())
    }
}

impl Store for Sled {
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
        Ok(Box::new(self))
    }

    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed> {
        let found = self.table(kind).get(record.key())?;
        Ok(found.is_some_and(|value| *value == *record.value.as_bytes()))
    }

    fn sync(&self) -> Result<(), Failed> {
        self.db.flush()?;
        Ok(())
    }
}
