//! What stands in the place of a series: one of the database, or a folder of files that is read where it lies.

use std::cell::OnceCell;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use underbelly::arrow::{Folder, FolderOptions};
use underbelly::{Columns, Database, LogicalTypes, ReadError, Reader, Scan, Schema, Series, Value, View};

use crate::error::Failed;
use crate::time::Unit;

/// The database beside whose writer a command reads, opened where something of it is asked for.
pub(crate) struct Beside<'d> {
    dir: &'d Path,
    /// Bytes that an operator may hold.
    memory: Option<u64>,
    opened: OnceCell<Reader>,
}

impl<'d> Beside<'d> {
    pub(crate) fn new(dir: &'d Path, memory: Option<u64>) -> Beside<'d> {
        Beside { dir, memory, opened: OnceCell::new() }
    }

    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory
    }

    pub(crate) fn view(&self) -> Result<&View, Failed> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = Database::open_read_only(self.dir)?;
        opened.limit_memory(self.memory);
        Ok(self.opened.get_or_init(|| opened))
    }
}

/// How the files of a folder are read that stands in the place of a series.
#[derive(Args, Debug)]
pub(crate) struct FolderArgs {
    /// Of a folder: the column that holds the time [default: timestamp]
    #[arg(long, value_name = "COL")]
    time: Option<String>,
    /// Of a folder: what numbers in the time column count; otherwise what the end of its name says (_ns, _us, _ms), else seconds
    #[arg(long, value_enum)]
    unit: Option<Unit>,
    /// Of a folder: the key columns
    #[arg(long, value_delimiter = ',', value_name = "COL,...")]
    keys: Vec<String>,
}

/// The folder that a name in the place of a type names: one that begins with `/`, `./` or `../`, or ends with `/`, or is `.` or `..`.
pub(crate) fn folder(name: &str) -> Option<&Path> {
    let begins = ["/", "./", "../"].iter().any(|start| name.starts_with(start));
    (begins || name.ends_with('/') || matches!(name, "." | "..")).then(|| Path::new(name))
}

/// A series, or a folder.
pub(crate) enum Rows {
    Series(Series),
    Folder(Folder),
}

impl FolderArgs {
    /// What a name stands for.
    pub(crate) fn rows(&self, db: &Beside<'_>, name: &str) -> Result<Rows, Failed> {
        if let Some(folder) = folder(name) {
            return Ok(Rows::Folder(self.open(folder, db.memory())?));
        }
        match db.view()?.snapshot().series(name) {
            Err(ReadError::UnknownSeries { series }) if Path::new(name).is_dir() => Err(Failed::NotFound(
                format!("no series has the type {series:?}; for the folder of that name write ./{series}"),
            )),
            series => Ok(Rows::Series(series?)),
        }
    }

    fn open(&self, folder: &Path, memory: Option<u64>) -> Result<Folder, Failed> {
        let defaults = FolderOptions::default();
        let time = self.time.clone().unwrap_or(defaults.time);
        let number = match self.unit.or_else(|| Unit::of_name(&time)).unwrap_or(Unit::S) {
            Unit::S => Duration::from_secs(1),
            Unit::Ms => Duration::from_millis(1),
            Unit::Us => Duration::from_micros(1),
            Unit::Ns => Duration::from_nanos(1),
        };
        // A record batch is there four times while a column of it is read: as it stands in the file, twice on the way, and as rows.
        let memory_bytes = memory.map_or(defaults.memory_bytes, |memory| memory / 8);
        let operator_bytes = memory.map(|memory| memory / 2);
        let options = FolderOptions { time, keys: self.keys.clone(), number, memory_bytes, operator_bytes };
        Ok(Folder::open_with(folder, &options)?)
    }

    /// Refuses options that say something of a folder where none of the names is one.
    pub(crate) fn check<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<(), Failed> {
        let is_given = self.time.is_some() || self.unit.is_some() || !self.keys.is_empty();
        let names: Vec<&str> = names.into_iter().collect();
        if !is_given || names.iter().any(|name| folder(name).is_some()) {
            return Ok(());
        }
        let (options, names) = ("--time, --unit and --keys tell how a folder is read", names.join(" and "));
        Err(Failed::Usage(format!(
            "{options}, and {names:?} is a series; write ./{names} for a folder, or leave them out"
        )))
    }
}

impl Rows {
    pub(crate) fn schema(&self) -> &Schema {
        match self {
            Rows::Series(series) => series.schema(),
            Rows::Folder(folder) => folder.schema(),
        }
    }

    /// What columns hold, where that is not what is stored.
    pub(crate) fn types(&self) -> &LogicalTypes {
        match self {
            Rows::Series(series) => series.types(),
            Rows::Folder(folder) => folder.types(),
        }
    }

    pub(crate) fn scan(&self) -> Scan<'_> {
        match self {
            Rows::Series(series) => series.scan(),
            Rows::Folder(folder) => folder.scan(),
        }
    }

    pub(crate) fn latest(&self, n: usize, keys: &[(&str, Value)]) -> Result<Columns, Failed> {
        Ok(match self {
            Rows::Series(series) => series.latest(n, keys)?,
            Rows::Folder(folder) => folder.latest(n, keys)?,
        })
    }

    pub(crate) fn last_points(&self) -> Result<Columns, Failed> {
        Ok(match self {
            Rows::Series(series) => series.last_points()?,
            Rows::Folder(folder) => folder.last_points()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_folders_and_other_names_types() {
        for name in ["/data/ticks", "./ticks", "../ticks", "ticks/", ".", ".."] {
            assert_eq!(folder(name), Some(Path::new(name)));
        }
        for name in ["ticks", "desk/ticks", ".ticks", "ticks.arrow"] {
            assert_eq!(folder(name), None);
        }
    }
}
