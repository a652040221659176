//! Ours: rows of a series, cells of a slot, models.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Batch, Column, ColumnType, Columns, Database, Date, Durability, Metadata, Options, Row, SlotDefinition,
    Timestamp,
};
use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::store::{Promise, Setup, Store, Upkeep, Writer};

const DAY: Date = Date(20_000);

struct Underbelly {
    db: Database,
    names: [Arc<str>; 3],
    durability: Durability,
}

/// Opens the database in a folder, or makes it.
pub fn open(folder: &Path, setup: Setup) -> Result<Box<dyn Store>, Failed> {
    let mut options = Options::default();
    match setup.upkeep {
        Upkeep::Default => {}
        Upkeep::Frequent => options.checkpoint_operations = 50_000,
        Upkeep::Never => {
            options.checkpoint_operations = u64::MAX;
            options.checkpoint_bytes = u64::MAX;
            // What replaying is estimated to take calls for one, too.
            options.checkpoint_replay = Duration::MAX;
        }
    }
    let db = match folder.exists() {
        true => Database::open_with(folder, options)?,
        false => Database::create_with(folder, options)?,
    };
    db.define_slot(
        SlotDefinition::new(Kind::Cell.name())
            .cell_key("number", ColumnType::I64)
            .value("text", ColumnType::Utf8),
    )?;
    let names = [Kind::Row.name(), "source", "text"].map(Arc::from);
    let durability = match setup.promise {
        Promise::Synced => Durability::Sync,
        Promise::Buffered => Durability::Buffered,
    };
    Ok(Box::new(Underbelly { db, names, durability }))
}

/// How it is set up.
pub fn terms(setup: Setup) -> String {
    let upkeep = match setup.upkeep {
        Upkeep::Default => "checkpoints at the default interval",
        Upkeep::Frequent => "a checkpoint each 50,000 operations, or sooner, as replaying them calls for it",
        Upkeep::Never => "no checkpoint",
    };
    let durability = match setup.promise {
        Promise::Synced => "Durability::Sync, its default: fdatasync before a commit is answered",
        Promise::Buffered => "Durability::Buffered: visible, and written some milliseconds later",
    };
    format!("{durability}; {upkeep}")
}

fn metadata(record: &Record) -> Metadata {
    let number = record.number as i64;
    Metadata::new(Kind::Model.name())
        .with("source", record.source().as_str())
        .with("number", number)
        .with("timestamp", Timestamp(number))
}

impl Underbelly {
    fn add(&self, batch: &mut Batch, kind: Kind, record: &Record) -> Result<(), Failed> {
        let number = record.number as i64;
        match kind {
            Kind::Row => {
                let [series, key, field] = &self.names;
                let row = Row::new(series.clone(), Timestamp(number))
                    .key(key.clone(), record.source())
                    .field(field.clone(), record.value.as_str());
                batch.append(row)?;
            }
            Kind::Cell => {
                let text: Column = [&record.value].into_iter().collect();
                batch.put_slot(kind.name(), DAY, [number], Columns::new().with("text", text)?);
            }
            Kind::Model => {
                batch.put_model(metadata(record), record.value.as_bytes());
            }
        }
        Ok(())
    }
}

impl Writer for &Underbelly {
    fn commit(&mut self, kind: Kind, records: &[Record]) -> Result<(), Failed> {
        let mut batch = Batch::new();
        batch.durability(self.durability);
        records.iter().try_for_each(|record| self.add(&mut batch, kind, record))?;
        self.db.commit(batch)?;
        Ok(())
    }
}

impl Store for Underbelly {
    fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
        Ok(Box::new(self))
    }

    fn holds(&self, kind: Kind, record: &Record) -> Result<bool, Failed> {
        let snapshot = self.db.snapshot();
        let number = record.number as i64;
        let is_text = |rows: &Columns| {
            rows.column("text").is_some_and(|text| {
                (0..text.len()).any(|row| text.str_at(row) == Some(record.value.as_str()))
            })
        };
        Ok(match kind {
            Kind::Row => {
                let series = snapshot.series(kind.name())?;
                is_text(&series.range(Timestamp(number), Timestamp(number + 1))?)
            }
            Kind::Cell => {
                let cell = snapshot.slot(kind.name(), DAY, [number])?;
                cell.is_some_and(|cell| is_text(&cell.rows))
            }
            Kind::Model => {
                let model = snapshot.model(&metadata(record))?;
                model.is_some_and(|model| model.blob().is_ok_and(|blob| *blob == *record.value.as_bytes()))
            }
        })
    }

    fn sync(&self) -> Result<(), Failed> {
        Ok(self.db.wait_durable(self.db.status().head)?)
    }

    fn checkpoints(&self) -> Result<Option<u64>, Failed> {
        // Each writes a manifest with the next number.
        let mut newest = 0;
        for entry in std::fs::read_dir(self.db.status().dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix("MANIFEST-"));
            newest = newest.max(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
        }
        Ok(Some(newest))
    }

    fn recovery(&self) -> Option<String> {
        let report = self.db.recovery_report();
        Some(format!("{} transactions replayed behind the last checkpoint", report.replayed))
    }
}
