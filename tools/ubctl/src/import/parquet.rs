//! Parquet files, a stretch of a row group at a time.

use std::fs::File;
use std::path::Path;

use indicatif::ProgressBar;
use underbelly::Columns;
use underbelly::arrow::{ArrowError, Parquet};

use super::source::Source;
use super::typed::{Chunks, failed};
use crate::error::Failed;

/// Rows that are read at once.
const BATCH_ROWS: usize = 1 << 16;

/// The columns of a file, without rows.
pub(super) fn columns_of(source: &Source) -> Result<Columns, Failed> {
    let (_, footer) = opened(source.path())?;
    footer.empty().map_err(|error| failed(source.path(), error))
}

/// A file and its footer.
fn opened(path: &Path) -> Result<(File, Parquet), Failed> {
    let file = File::open(path).map_err(|error| Failed::file("open", path, error))?;
    let footer = Parquet::read(&file).map_err(|error| failed(path, error))?;
    Ok((file, footer))
}

/// Reads a file.
pub(super) fn load(source: &Source, bar: &ProgressBar, chunks: &mut Chunks<'_>) -> Result<(), Failed> {
    let path = source.path();
    let failed = |error: ArrowError| failed(path, error);
    let (file, footer) = opened(path)?;
    let (groups, types) = (footer.groups(), footer.types());
    for group in 0..groups {
        for rows in footer.stretches(&file, group, BATCH_ROWS).map_err(failed)? {
            if !chunks.add(path, rows.map_err(failed)?, &types)? {
                return Ok(());
            }
        }
        bar.set_position(source.bytes() * (group as u64 + 1) / groups as u64);
    }
    Ok(())
}
