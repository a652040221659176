//! Reads of a series: a scan of everything, and the newest row of a key.

use std::path::Path;
use std::time::{Duration, Instant};

use underbelly::{Series, Value};

use crate::Failed;
use crate::append::{Appends, SERIES, SYMBOLS, symbol};

/// A series of sealed rows.
pub struct Scans {
    appends: Appends,
    rows: u64,
}

impl Scans {
    /// A new database in a folder with `appends` times 100,000 rows in as many segments.
    pub fn create(folder: &Path, appends: u64) -> Result<Scans, Failed> {
        let mut scans = Scans { appends: Appends::create(folder)?, rows: appends * 100_000 };
        scans.appends.run(100_000, appends)?;
        scans.appends.database().checkpoint()?;
        Ok(scans)
    }

    /// Rows of the series.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn series(&self) -> Result<Series, Failed> {
        Ok(self.appends.database().snapshot().series(SERIES)?)
    }

    /// The time of `count` scans over all rows and columns in batches; every value is decoded, one column summed.
    pub fn scan(&self, count: u64) -> Result<Duration, Failed> {
        let began = Instant::now();
        for _ in 0..count {
            let (mut rows, mut sum) = (0, 0.0);
            for batch in self.series()?.scan().batches() {
                let batch = batch?;
                rows += batch.rows() as u64;
                sum += batch.f64s("bid").unwrap_or_default().iter().sum::<f64>();
            }
            std::hint::black_box(sum);
            if rows != self.rows {
                return Err(format!("a scan gave {rows} rows of {}", self.rows).into());
            }
        }
        Ok(began.elapsed())
    }

    /// The time of `count` look-ups of the newest row of a key, a new snapshot each.
    pub fn last_point(&self, count: u64) -> Result<Duration, Failed> {
        let began = Instant::now();
        for number in 0..count {
            let key = [("symbol", Value::from(symbol(number as usize % SYMBOLS)))];
            if self.series()?.last_point(&key)?.is_none() {
                return Err(format!("there is no row of {:?}", key[0].1).into());
            }
        }
        Ok(began.elapsed())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read() {
        let folder = crate::place::scratch().unwrap();
        let scans = Scans::create(&folder.path().join("db"), 2).unwrap();
        assert_eq!(scans.rows(), 200_000);
        scans.scan(1).unwrap();
        scans.last_point(60).unwrap();
    }
}
