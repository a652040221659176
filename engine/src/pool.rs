//! Threads for scans, encodes and decodes, or none.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use underbelly_storage::Workers;

/// A private pool of threads; without threads everything runs where it is called.
pub(crate) struct Pool(Option<rayon::ThreadPool>);

impl Pool {
    /// A pool of so many threads; none for 0. An error is one as of a thread that the system does not start: what starts several
    /// answers one of its own, which does not say why.
    pub(crate) fn new(threads: usize) -> io::Result<Pool> {
        let build = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|number| format!("underbelly-pool-{number}"))
                .build()
                .map_err(|error| io::Error::new(io::ErrorKind::WouldBlock, error))
        };
        Ok(Pool(if threads == 0 { None } else { Some(build(threads)?) }))
    }

    /// How many threads it has, or one where everything runs where it is called.
    pub(crate) fn threads(&self) -> usize {
        self.0.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// The answers for all items in their order, or one of the errors.
    pub(crate) fn map<T: Send, R: Send, E: Send>(
        &self,
        items: Vec<T>,
        f: impl Fn(T) -> Result<R, E> + Send + Sync,
    ) -> Result<Vec<R>, E> {
        use rayon::prelude::*;
        match &self.0 {
            Some(pool) if items.len() > 1 => pool.install(|| items.into_par_iter().map(f).collect()),
            _ => items.into_iter().map(f).collect(),
        }
    }

    /// Does something beside the caller; where there is no thread, at once.
    pub(crate) fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        match &self.0 {
            Some(pool) => pool.spawn(f),
            None => f(),
        }
    }

    /// Both answers.
    pub(crate) fn join<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match &self.0 {
            Some(pool) => pool.join(a, b),
            None => (a(), b()),
        }
    }
}

/// The caller and threads of their own, as many as the pool has.
impl Workers for Pool {
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        Threads(self.threads()).each(count, work);
    }
}

/// The caller and threads that are made for one piece of work, so many in all: what the pool is busy with holds up nobody who
/// waits for an answer here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads(pub usize);

impl Workers for Threads {
    fn each(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let take = || {
            while let Some(number) =
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count)
            {
                work(number);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.0.min(count) {
                let builder = std::thread::Builder::new().name("underbelly-work".to_string());
                // Where there is no thread to be had, the others do all of it.
                if builder.spawn_scoped(scope, take).is_err() {
                    break;
                }
            }
            take();
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_threads_the_answers_are_the_same() {
        for threads in [0, 1, 2] {
            let pool = Pool::new(threads).unwrap();
            let double = |n: u32| n.checked_mul(2).ok_or("too large");
            assert_eq!(pool.map((0..100).collect(), double), Ok((0..100).map(|n| n * 2).collect::<Vec<_>>()));
            assert_eq!(pool.map(vec![1, u32::MAX], double), Err("too large"));
            assert_eq!(pool.join(|| 1, || "b"), (1, "b"));
            let squares: Vec<_> = (0..100).map(|_| std::sync::OnceLock::new()).collect();
            pool.each(100, &|n| squares[n].set(n * n).unwrap());
            assert!(squares.iter().enumerate().all(|(n, square)| square.get() == Some(&(n * n))));
        }
    }
}
