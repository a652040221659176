//! Threads for scans, encodes and decodes, or none.

/// A private pool of threads; without threads everything runs where it is called.
pub(crate) struct Pool(Option<rayon::ThreadPool>);

impl Pool {
    /// A pool of so many threads; none for 0.
    pub(crate) fn new(threads: usize) -> Result<Pool, rayon::ThreadPoolBuildError> {
        let build = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|number| format!("underbelly-pool-{number}"))
                .build()
        };
        Ok(Pool(if threads == 0 { None } else { Some(build(threads)?) }))
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
        }
    }
}
