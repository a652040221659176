//! Threads that commit one transaction after the other for a while.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use underbelly_benches::Failed;

use crate::record::{Kind, Record};
use crate::store::{Store, Writer};

/// Makes the transaction with a number.
pub type Make = dyn Fn(u64) -> (Kind, Record) + Sync;

/// Transactions that are numbered through all the loads of a store.
pub struct Work<'a> {
    make: &'a Make,
    next: AtomicU64,
}

/// What threads did.
#[derive(Debug)]
pub struct Load {
    /// Transactions committed.
    pub commits: u64,
    /// From the start of the first to the end of the last.
    pub took: Duration,
    /// How long each took, nanoseconds, in no order; empty where that was not asked for.
    pub latencies: Vec<u64>,
}

impl Load {
    /// Transactions a second.
    pub fn rate(&self) -> f64 {
        underbelly_benches::figure::rate(self.commits, self.took)
    }
}

impl<'a> Work<'a> {
    /// Transactions of one record each, numbered from `first` on.
    pub fn new(first: u64, make: &'a Make) -> Work<'a> {
        Work { make, next: AtomicU64::new(first) }
    }

    /// `threads` threads commit to a store until `time` has passed. A commit that has begun is waited for and counted.
    pub fn run(
        &self,
        store: &dyn Store,
        threads: usize,
        time: Duration,
        keep_latencies: bool,
    ) -> Result<Load, Failed> {
        let ready = Barrier::new(threads + 1);
        let is_over = AtomicBool::new(false);
        let thread = || {
            let writer = store.writer();
            ready.wait();
            self.commit_until(&mut *writer?, &is_over, keep_latencies)
        };
        thread::scope(|scope| {
            let started: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
            ready.wait();
            let began = Instant::now();
            thread::sleep(time);
            is_over.store(true, Ordering::Relaxed);
            let joined = started.into_iter().map(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => Err("a committing thread panicked".into()),
            });
            // Every thread is waited for, whatever the first says.
            let joined: Vec<Result<(u64, Vec<u64>), Failed>> = joined.collect();
            let took = began.elapsed();
            let mut load = Load { commits: 0, took, latencies: Vec::new() };
            for done in joined {
                let (commits, latencies) = done?;
                load.commits += commits;
                load.latencies.extend(latencies);
            }
            Ok(load)
        })
    }

    fn commit_until(
        &self,
        writer: &mut dyn Writer,
        is_over: &AtomicBool,
        keep_latencies: bool,
    ) -> Result<(u64, Vec<u64>), Failed> {
        let (mut commits, mut latencies) = (0, Vec::new());
        while !is_over.load(Ordering::Relaxed) {
            let (kind, record) = (self.make)(self.next.fetch_add(1, Ordering::Relaxed));
            let began = keep_latencies.then(Instant::now);
            writer.commit(kind, &[record])?;
            latencies.extend(began.map(|began| began.elapsed().as_nanos() as u64));
            commits += 1;
        }
        Ok((commits, latencies))
    }
}

/// Commits the records with these numbers, `each` in a transaction.
pub fn fill(
    store: &dyn Store,
    kind: Kind,
    numbers: std::ops::Range<u64>,
    each: u64,
    bytes: usize,
) -> Result<(), Failed> {
    let mut writer = store.writer()?;
    let mut first = numbers.start;
    while first < numbers.end {
        let behind = numbers.end.min(first + each);
        let records: Vec<Record> = (first..behind).map(|number| Record::new(number, number, bytes)).collect();
        writer.commit(kind, &records)?;
        first = behind;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    /// Takes what is committed, up to a number that it refuses.
    struct Taker {
        numbers: Mutex<Vec<u64>>,
        refuses: u64,
    }

    impl Writer for &Taker {
        fn commit(&mut self, _: Kind, records: &[Record]) -> Result<(), Failed> {
            if records.iter().any(|record| record.number >= self.refuses) {
                return Err("refused".into());
            }
            self.numbers.lock().unwrap().extend(records.iter().map(|record| record.number));
            Ok(())
        }
    }

    impl Store for Taker {
        fn writer(&self) -> Result<Box<dyn Writer + '_>, Failed> {
            Ok(Box::new(self))
        }

        fn holds(&self, _: Kind, record: &Record) -> Result<bool, Failed> {
            Ok(self.numbers.lock().unwrap().contains(&record.number))
        }

        fn sync(&self) -> Result<(), Failed> {
            Ok(())
        }
    }

    fn taker(refuses: u64) -> Taker {
        Taker { numbers: Mutex::default(), refuses }
    }

    fn row(number: u64) -> (Kind, Record) {
        (Kind::Row, Record::new(number, number, 24))
    }

    #[test]
    fn every_number_is_committed_once_and_counted() {
        let store = taker(u64::MAX);
        let work = Work::new(5, &row);
        let first = work.run(&store, 3, Duration::from_millis(5), true).unwrap();
        let second = work.run(&store, 2, Duration::from_millis(5), false).unwrap();
        let numbers = store.numbers.into_inner().unwrap();
        assert_eq!(numbers.len() as u64, first.commits + second.commits);
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
        // Threads take numbers in turn, so none is left out.
        assert_eq!(numbers.iter().max().map(|max| max + 1 - 5), Some(numbers.len() as u64));
        assert_eq!(first.latencies.len() as u64, first.commits);
        assert!(second.latencies.is_empty());
    }

    #[test]
    fn a_refused_commit_ends_the_run_with_its_error() {
        let error = Work::new(0, &row).run(&taker(10), 2, Duration::from_millis(1), false).unwrap_err();
        assert_eq!(error.to_string(), "refused");
    }

    #[test]
    fn all_are_filled_in() {
        let store = taker(u64::MAX);
        fill(&store, Kind::Cell, 3..28, 10, 24).unwrap();
        assert_eq!(store.numbers.into_inner().unwrap(), (3..28).collect::<Vec<u64>>());
    }
}
