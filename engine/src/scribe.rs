//! The thread that looks after the log: it writes `Buffered` transactions in time, seals the log at quiet moments, and has
//! log files prepared before they are needed.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::core::Core;
use crate::error::CommitError;
use crate::limits::START_SHOWN;

/// What the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Transactions are visible and not written.
    WriteSoon,
    /// Runs have started, and nothing else was committed.
    WriteLater,
    /// So many that they are worth a sync.
    WriteNow,
    /// Its last batch is not acknowledged by another.
    Seal,
    /// The zeros of the next log file should be written ahead of time.
    Prepare,
}

/// Serves the log until the database hangs up.
pub(crate) fn serve(core: &Arc<Core>, duties: &Receiver<Duty>) {
    let options = &core.options;
    let mut write_at: Option<Instant> = None;
    let soonest = |at: Option<Instant>, other: Option<Instant>| at.into_iter().chain(other).min();
    let mut seal_at: Option<Instant> = None;
    let mut durable = core.log.durable_seq();
    loop {
        let deadline = [write_at, seal_at].into_iter().flatten().min();
        let duty = match deadline {
            Some(deadline) => duties.recv_deadline(deadline),
            None => duties.recv().map_err(RecvTimeoutError::from),
        };
        let now = Instant::now();
        match duty {
            Ok(Duty::WriteNow) => write_at = Some(now),
            // A delay beyond the clock's end is none.
            Ok(Duty::WriteSoon) => {
                write_at = soonest(write_at, options.buffered_delay.and_then(|d| now.checked_add(d)))
            }
            Ok(Duty::WriteLater) => write_at = soonest(write_at, now.checked_add(START_SHOWN)),
            Ok(Duty::Seal) => seal_at = options.seal_after.and_then(|idle| now.checked_add(idle)),
            Ok(Duty::Prepare) => {
                // It takes long, and transactions are written meanwhile.
                let core_there = core.clone();
                core.pool.spawn(move || {
                    note(&core_there, "a log file could not be prepared", |core| {
                        Ok(core.log.prepare_spare()?)
                    });
                });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if write_at.is_some_and(|at| at <= now) {
            write_at = None;
            // Before: what starts from now on is told again.
            core.signals.shown();
            note(core, "buffered transactions could not be written", |core| Ok(core.log.flush()?));
        }
        if seal_at.is_some_and(|at| at <= now) {
            let is_quiet = std::mem::replace(&mut durable, core.log.durable_seq()) == durable;
            if is_quiet {
                seal_at = None;
                note(core, "the log could not be sealed", Core::seal);
            } else {
                seal_at = options.seal_after.and_then(|idle| now.checked_add(idle));
            }
        }
    }
}

fn note(core: &Core, what: &str, write: impl FnOnce(&Core) -> Result<(), CommitError>) {
    match core.enter().and_then(|_folder| write(core)) {
        Ok(()) | Err(CommitError::Closed) => {}
        Err(error) => core.note_trouble(format!("{what}: {error}")),
    }
}
