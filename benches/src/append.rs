//! Synced appends of many rows: below a mebibyte through the log, above it as a segment.

use std::path::Path;
use std::time::{Duration, Instant};

use underbelly::{Batch, Column, ColumnError, Columns, Database, Timestamp};

use crate::Failed;

/// Bytes of a row: a timestamp (8), a key of text (8), two floats (16) and an integer (8).
pub const ROW_BYTES: usize = 40;
/// The series that rows are appended to.
pub const SERIES: &str = "trade";
/// Values of the key.
pub const SYMBOLS: usize = 50;

/// The text of a key.
pub fn symbol(number: usize) -> String {
    format!("SYM{:05}", number % SYMBOLS)
}

/// `rows` rows from row `first` on: prices in cents, a row each microsecond, keys in turn.
fn rows(first: usize, rows: usize) -> Result<(Vec<Timestamp>, Columns), ColumnError> {
    let numbers = || first..first + rows;
    // A walk that is the same in every run: multiplicative hashing of the row's number.
    let noise = |n: usize| (n.wrapping_mul(0x9E37_79B9) >> 7) % 1000;
    let price = |n: usize| (10_000 + noise(n) as i64) as f64 / 100.0;
    let symbols: Column = numbers().map(symbol).collect();
    let columns = Columns::new()
        .with("symbol", symbols)?
        .with("bid", numbers().map(price).collect::<Vec<f64>>().into())?
        .with("ask", numbers().map(|n| price(n + 1)).collect::<Vec<f64>>().into())?
        .with("size", numbers().map(|n| noise(n) as i64 * 100).collect::<Vec<i64>>().into())?;
    Ok((numbers().map(|n| Timestamp(n as i64 * 1000)).collect(), columns))
}

/// A database that takes appends.
pub struct Appends {
    db: Database,
    next: usize,
}

impl Appends {
    /// A new database in a folder.
    pub fn create(folder: &Path) -> Result<Appends, Failed> {
        Ok(Appends { db: Database::create(folder)?, next: 0 })
    }

    /// The time of `count` commits of `rows` rows, each durable before the next. Making the rows is not counted.
    pub fn run(&mut self, rows_each: usize, count: u64) -> Result<Duration, Failed> {
        let mut took = Duration::ZERO;
        for _ in 0..count {
            let (timestamps, columns) = rows(self.next, rows_each)?;
            self.next += rows_each;
            let mut batch = Batch::new();
            batch.append_columns(SERIES, timestamps, columns, &["symbol"])?;
            let began = Instant::now();
            self.db.commit(batch)?;
            took += began.elapsed();
        }
        Ok(took)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.db
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_bytes_that_are_stated() {
        let (timestamps, columns) = rows(0, 1000).unwrap();
        // Text has an offset of 4 bytes a row besides, and one more.
        assert_eq!(timestamps.len() * 8 + columns.byte_size(), 1000 * (ROW_BYTES + 4) + 4);
    }

    #[test]
    fn appends_follow_each_other() {
        let folder = crate::place::scratch().unwrap();
        let mut appends = Appends::create(&folder.path().join("db")).unwrap();
        appends.run(1000, 2).unwrap();
        appends.run(100_000, 1).unwrap();
        let series = appends.database().snapshot().series(SERIES).unwrap();
        assert_eq!(series.count().unwrap(), 102_000);
    }
}
