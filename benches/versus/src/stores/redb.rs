//! redb: one writer at a time, a copy-on-write B-tree, one sync a commit.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition, TableError};
use underbelly_benches::Failed;

use crate::record::{KEY_BYTES, Kind, Record};
use crate::store::{Promise, Setup, Store, Writer};

struct Redb {
    db: Database,
    durability: Durability,
    quick_repair: bool,
}

fn table(kind: Kind) -> TableDefinition<'static, &'static [u8; KEY_BYTES], &'static [u8]> {
    TableDefinition::new(kind.name())
}

/// Opens the database in a folder, or makes it.
pub fn open(folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
    std::fs::create_dir_all(folder)?;
    let durability = match setup.promise {
        Promise::Synced => Durability::Immediate,
        Promise::Buffered => Durability::None,
    };
    let db = Database::create(folder.join("redb"))?;
    Ok(Box::new(Redb { db, durability, quick_repair: setup.fast_reopen }))
}

/// How it is set up.
pub fn terms(setup: Setup) -> String {
    let durability = match setup.promise {
        Promise::Synced => "Durability::Immediate, its default",
        Promise::Buffered => "Durability::None: kept in memory until a commit that is synced",
    };
    let repair = if setup.fast_reopen { "quick repair" } else { "no quick repair, its default" };
    format!("{durability}; {repair}; one writer at a time; has no checkpoints or compactions of its own")
}

impl Writer for &Redb {
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(self.durability)?;
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut table = transaction.open_table(table(kind))?;
            for record in records {
                table.insert(&record.key(), record.value.as_bytes())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Store for Redb {
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
        Ok(Box::new(self))
    }

    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed> {
        let table = match self.db.begin_read()?.open_table(table(kind)) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(false),
            other => other?,
        };
        let found = table.get(&record.key())?;
        Ok(found.is_some_and(|value| value.value() == record.value.as_bytes()))
    }

    fn sync(&self) -> Result<(), Failed> {
        // A commit that is synced takes those before it along.
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        Ok(transaction.commit()?)
    }
}
