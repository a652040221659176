//! The closures of producers: what they are called with, and what becomes of their answers and panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

#[cfg(feature = "processes")]
use super::process::{Keeper, Pool, Remote};
use super::run::{Outputs, Run};
use crate::error::Failure;

/// What a producer does.
#[derive(Clone)]
pub(crate) enum Work {
    /// Called for each run.
    Each(Arc<EachClosure>),
    /// Called for each run, on the thread whose commit made it ready.
    Inline(Arc<EachClosure>),
    /// Called for each batch.
    Batch(Arc<BatchClosure>),
    /// Done by a program for each batch.
    #[cfg(feature = "processes")]
    Program(Arc<Pool>),
    /// A daemon's program: there are no runs of it.
    #[cfg(feature = "processes")]
    Daemon(Arc<Keeper>),
    /// Done by a process that came over a socket.
    #[cfg(feature = "processes")]
    Remote(Arc<Remote>),
}

impl Work {
    /// The processes that do it.
    #[cfg(feature = "processes")]
    pub(crate) fn pool(&self) -> Option<&Arc<Pool>> {
        if let Work::Program(pool) = self { Some(pool) } else { None }
    }

    /// What keeps a daemon's process.
    #[cfg(feature = "processes")]
    pub(crate) fn keeper(&self) -> Option<&Arc<Keeper>> {
        if let Work::Daemon(keeper) = self { Some(keeper) } else { None }
    }

    /// The process that came over a socket and does it.
    #[cfg(feature = "processes")]
    pub(crate) fn remote(&self) -> Option<&Arc<Remote>> {
        if let Work::Remote(remote) = self { Some(remote) } else { None }
    }

    /// Whether another process is shown it.
    pub(super) fn leaves_process(&self) -> bool {
        #[cfg(feature = "processes")]
        return matches!(self, Work::Program(_) | Work::Remote(_));
        #[cfg(not(feature = "processes"))]
        false
    }

    /// Whether it is done for a batch as a whole.
    pub(super) fn takes_batches(&self) -> bool {
        !matches!(self, Work::Each(_) | Work::Inline(_))
    }

    /// Whether it is done on the thread whose commit made it ready.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self, Work::Inline(_))
    }
}

/// What a producer gave for each run of a batch, and who did it.
pub(super) struct Called {
    pub results: Vec<Result<Outputs, Ended>>,
    pub worked: Option<Worked>,
}

impl Called {
    /// In this process, or in none.
    pub fn here(results: Vec<Result<Outputs, Ended>>) -> Called {
        Called { results, worked: None }
    }
}

/// A process that did the work.
#[derive(Clone, Debug)]
pub(crate) struct Worked {
    pub process: u32,
    /// What it wrote to standard error.
    pub stderr: String,
}

type EachClosure = dyn Fn(&Run) -> Result<Outputs, Failure> + Send + Sync;

type BatchClosure = dyn Fn(&[Run]) -> Result<Vec<Result<Outputs, Failure>>, Failure> + Send + Sync;

/// What a producer gives for each run of a batch.
pub(super) fn call(work: Option<Work>, runs: &[Run], epoch: u64) -> Called {
    match work {
        #[cfg(feature = "processes")]
        Some(Work::Program(pool)) => pool.call(runs, epoch),
        #[cfg(feature = "processes")]
        Some(Work::Remote(remote)) => remote.call(runs, epoch),
        work => {
            let _ = epoch;
            Called::here(call_closure(work, runs))
        }
    }
}

fn call_closure(closure: Option<Work>, runs: &[Run]) -> Vec<Result<Outputs, Ended>> {
    let all = |ended: Ended| runs.iter().map(|_| Err(ended.clone())).collect();
    let panicked = |panic| Failure::Fatal(format!("panicked: {}", told(panic)));
    match closure {
        Some(Work::Each(closure) | Work::Inline(closure)) => runs
            .iter()
            .map(|run| {
                let result = catch_unwind(AssertUnwindSafe(|| closure(run)));
                result.unwrap_or_else(|panic| Err(panicked(panic))).map_err(Ended::Failed)
            })
            .collect(),
        Some(Work::Batch(closure)) => {
            let results = catch_unwind(AssertUnwindSafe(|| closure(runs)));
            match results.unwrap_or_else(|panic| Err(panicked(panic))) {
                Ok(results) if results.len() == runs.len() => {
                    results.into_iter().map(|result| result.map_err(Ended::Failed)).collect()
                }
                Ok(results) => all(Ended::Failed(Failure::Fatal(format!(
                    "the closure answered {} of {} runs; answer each, in their order",
                    results.len(),
                    runs.len()
                )))),
                Err(Failure::Fatal(message)) if runs.len() > 1 => all(Ended::died(runs.len(), message)),
                Err(failure) => all(Ended::Failed(failure)),
            }
        }
        // It was taken away between the claim and here: the runs are another's.
        _ => all(Ended::Failed(Failure::rejected("the producer has nothing that does its work now"))),
    }
}

/// How a run ended that gave nothing.
#[derive(Clone)]
pub(super) enum Ended {
    Failed(Failure),
    /// Its batch died: next it runs with so many at most.
    Died {
        message: String,
        most: u32,
    },
}

impl Ended {
    /// A batch of several died: it runs again in halves.
    pub fn died(runs: usize, message: String) -> Ended {
        // The larger half of an odd number.
        Ended::Died { message, most: u32::try_from(runs - runs / 2).unwrap_or(u32::MAX) }
    }

    /// A batch that something in it makes impossible, which is not known: what is to blame fails in the end alone, and for good.
    #[cfg(feature = "processes")]
    pub fn spoilt(runs: usize, message: String) -> Ended {
        if runs > 1 { Ended::died(runs, message) } else { Ended::Failed(Failure::Fatal(message)) }
    }

    /// The process is gone that had so many runs in work: a single one has failed and is tried again.
    #[cfg(feature = "processes")]
    pub fn gone(unanswered: usize, message: String) -> Ended {
        match unanswered {
            0 | 1 => Ended::Failed(Failure::Retry(message)),
            several => Ended::died(several, message),
        }
    }
}

/// What a panic says. What it carries may panic too when it is dropped.
pub(crate) fn told(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    text.unwrap_or_else(|| "no message".to_string())
}
