//! One file of a folder.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[cfg(feature = "parquet")]
use underbelly_arrow::Parquet;
use underbelly_arrow::{ArrowError, Index, Limits};
use underbelly_storage::{Column, Columns, LogicalTypes, Values};

use super::FolderError;

/// A file whose rows are read record batch by record batch, a column at a time. It is not kept open.
pub(super) struct FolderFile {
    pub(super) path: PathBuf,
    /// Names and types of its columns, without rows.
    pub(super) types: Columns,
    /// What these hold, where that is not what is stored.
    pub(super) logical: LogicalTypes,
    pub(super) bytes: u64,
    modified: Option<SystemTime>,
    form: Form,
}

enum Form {
    Arrow(Index),
    #[cfg(feature = "parquet")]
    Parquet(Parquet),
}

/// What a name says of a file.
#[derive(Clone, Copy)]
pub(super) enum Suffix {
    Arrow,
    Parquet,
}

impl Suffix {
    pub(super) fn of(path: &Path) -> Option<Suffix> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "arrow" | "arrows" | "feather" | "ipc" => Some(Suffix::Arrow),
            "parquet" | "pq" => Some(Suffix::Parquet),
            _ => None,
        }
    }
}

impl FolderFile {
    /// Reads what a file tells of its columns and record batches.
    pub(super) fn open(path: PathBuf, suffix: Suffix) -> Result<FolderFile, FolderError> {
        let io = |source| FolderError::Io { action: "read", path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let failed = |source| unreadable(&path, String::new(), source);
        let form = match suffix {
            Suffix::Arrow => Form::Arrow(Index::read(&file, Limits::default()).map_err(failed)?),
            #[cfg(feature = "parquet")]
            Suffix::Parquet => Form::Parquet(Parquet::read(&file).map_err(failed)?),
            #[cfg(not(feature = "parquet"))]
            Suffix::Parquet => return Err(FolderError::NoParquet { path }),
        };
        let (types, logical) = match &form {
            Form::Arrow(index) => (index.empty(), index.types()),
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => (footer.empty(), footer.types()),
        };
        let types = types.map_err(failed)?;
        let (bytes, modified) = (metadata.len(), metadata.modified().ok());
        Ok(FolderFile { types, logical, bytes, modified, form, path })
    }

    /// Number of record batches, or of row groups.
    pub(super) fn batches(&self) -> usize {
        match &self.form {
            Form::Arrow(index) => index.batches(),
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => footer.groups(),
        }
    }

    pub(super) fn rows(&self, batch: usize) -> usize {
        match &self.form {
            Form::Arrow(index) => index.rows(batch),
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => footer.rows(batch),
        }
    }

    /// Bytes of the rows of a batch in memory, about.
    pub(super) fn bytes_of(&self, batch: usize) -> u64 {
        let bytes = match &self.form {
            Form::Arrow(index) => index.bytes(batch),
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => footer.bytes(batch),
        };
        // Validity takes a byte a row, and the time stands beside the others once more.
        let per_row = self.types.width() as u64 + 8;
        bytes.saturating_add((self.rows(batch) as u64).saturating_mul(per_row))
    }

    /// The ends of the values of a column that the file tells; `None` where it does not.
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables, reason = "Arrow tells none"))]
    pub(super) fn bounds(&self, batch: usize, name: &str) -> Option<(i64, i64)> {
        match &self.form {
            Form::Arrow(_) => None,
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => footer.bounds(batch, name),
        }
    }

    /// A column of a batch; `None` where the file has no such column.
    pub(super) fn column(&self, batch: usize, name: &str) -> Result<Option<Column>, FolderError> {
        let io = |source: io::Error| FolderError::Io { action: "read", path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(io)?;
        self.check(&file.metadata().map_err(io)?)?;
        let column = match &self.form {
            Form::Arrow(index) => index.column(&file, batch, name),
            #[cfg(feature = "parquet")]
            Form::Parquet(footer) => footer.column(&file, batch, name),
        };
        column.map_err(|source| unreadable(&self.path, format!(", record batch {}", batch + 1), source))
    }

    fn check(&self, now: &Metadata) -> Result<(), FolderError> {
        let what = match (now.len() == self.bytes, now.modified().ok() == self.modified) {
            (true, true) => return Ok(()),
            (false, _) => "its length is another",
            (true, false) => "it was written since",
        };
        Err(FolderError::Changed { path: self.path.clone(), what })
    }
}

fn unreadable(path: &Path, place: String, source: ArrowError) -> FolderError {
    match source {
        ArrowError::Io(source) => FolderError::Io { action: "read", path: path.to_path_buf(), source },
        source => FolderError::Unreadable { path: path.to_path_buf(), place, source },
    }
}

/// Which column holds the time, and what whole numbers in it count.
#[derive(Clone, Debug)]
pub(super) struct Time {
    pub(super) column: String,
    /// Nanoseconds of a number.
    pub(super) number_ns: i64,
}

const DAY_NS: i64 = 86_400_000_000_000;

impl Time {
    /// Nanoseconds of what the file holds in such a column.
    fn scale(&self, column: &Column) -> Option<i64> {
        match column.values() {
            Values::Timestamp(_) => Some(1),
            Values::Date(_) => Some(DAY_NS),
            Values::I64(_) | Values::I32(_) => Some(self.number_ns),
            _ => None,
        }
    }

    /// Refuses a file without such a column of times.
    pub(super) fn check(&self, file: &FolderFile) -> Result<(), FolderError> {
        let Some(column) = file.types.column(&self.column) else {
            let known = file.types.names().iter().map(|name| name.to_string()).collect();
            let (path, column) = (file.path.clone(), self.column.clone());
            return Err(FolderError::NoColumn { path, column, role: "the time", known });
        };
        let found = file.logical.of(&self.column, column.column_type());
        if self.scale(column).is_none() || found.scale().is_some() {
            let (path, column) = (file.path.clone(), self.column.clone());
            return Err(FolderError::TimeType { path, column, found });
        }
        Ok(())
    }

    /// The ends of the times of a batch, as the file tells them.
    pub(super) fn bounds(&self, file: &FolderFile, batch: usize) -> Option<(i64, i64)> {
        let (min, max) = file.bounds(batch, &self.column)?;
        let scale = self.scale(file.types.column(&self.column)?)?;
        min.checked_mul(scale).zip(max.checked_mul(scale))
    }

    /// The times of a batch as they stand in the file, of which `before` rows stand before it.
    pub(super) fn read(&self, file: &FolderFile, batch: usize, before: u64) -> Result<Vec<i64>, FolderError> {
        let place = |row: usize| (file.path.clone(), self.column.clone(), before + row as u64 + 1);
        let Some(column) = file.column(batch, &self.column)? else { return Ok(Vec::new()) };
        if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
            let (path, column, row) = place(row);
            return Err(FolderError::NoTime { path, column, row });
        }
        let scale = self.scale(&column).unwrap_or(1);
        let scaled = |numbers: Vec<i64>| {
            if scale == 1 {
                return Ok(numbers);
            }
            let times: Option<Vec<i64>> = numbers.iter().map(|number| number.checked_mul(scale)).collect();
            times.ok_or_else(|| {
                let row = numbers.iter().position(|number| number.checked_mul(scale).is_none());
                let (path, column, row) = place(row.unwrap_or(0));
                FolderError::TimeRange { path, column, row }
            })
        };
        match column.into_parts().0 {
            Values::Timestamp(times) | Values::I64(times) => scaled(times),
            Values::Date(numbers) | Values::I32(numbers) => {
                scaled(numbers.into_iter().map(i64::from).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}
