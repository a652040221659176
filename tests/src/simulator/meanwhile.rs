//! Transactions in the middle of a checkpoint, wherever it gives way.

use std::sync::{Arc, Mutex, PoisonError};

use underbelly::{Batch, CommitError, Database, Durability};

use super::Trouble;
use super::life::Life;
use super::model::Effect;

/// A transaction that is ready to be committed.
struct Ready {
    durability: Durability,
    batch: Batch,
    effects: Vec<Effect>,
    /// How often the engine gives way before.
    after: u64,
}

/// What became of them.
#[derive(Default)]
struct Outcome {
    commits: u64,
    failed: Vec<CommitError>,
    trouble: Option<String>,
}

impl Life {
    /// A checkpoint, and a few transactions between its slices.
    pub(super) fn checkpoint(&mut self) -> Result<(), Trouble> {
        let mut ready = Vec::new();
        for _ in 0..self.numbers.below(5) {
            let (batch, effects, durability) = self.some_batch()?;
            ready.push(Ready { durability, batch, effects, after: self.numbers.below(6) });
        }
        // What a checkpoint reads again may fail, too.
        let is_ordered = self.numbers.below(4) == 0 && self.order_read();
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (told, db, journal) = (outcome.clone(), self.db()?.clone(), self.journal.clone());
        ready.reverse();
        self.clock.do_meanwhile(Some(Box::new(move || match ready.last_mut() {
            Some(next) if next.after > 0 => next.after -= 1,
            Some(_) => {
                let Some(Ready { durability, batch, effects, .. }) = ready.pop() else { return };
                let before = db.head_seq();
                let done = db.commit(batch);
                if db.head_seq() > before {
                    journal.add(before + 1, effects);
                }
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                told.commits += 1;
                match done {
                    Ok(commit) if !is_kept(&db, commit.seq, durability) => {
                        let what = format!("seq {} is acknowledged before it is {durability:?}", commit.seq);
                        told.trouble = Some(what);
                    }
                    Ok(_) => {}
                    Err(error) => told.failed.push(error),
                }
            }
            None => {}
        })));
        let done = self.db()?.checkpoint();
        self.clock.do_meanwhile(None);
        self.settle()?;
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let commits = outcome.commits;
        self.figures.meanwhile += commits;
        self.tell(|| format!("checkpoint, {commits} transactions meanwhile: {done:?}"));
        if let Some(trouble) = outcome.trouble.take() {
            return Err(trouble.into());
        }
        for error in &outcome.failed {
            self.excuse("commit in a checkpoint", error)?;
        }
        if let Err(error) = done {
            self.excuse("checkpoint", &error)?;
        }
        if is_ordered {
            self.order(None);
        }
        Ok(())
    }
}

/// Whether a transaction is as far as its answer says.
fn is_kept(db: &Database, seq: u64, durability: Durability) -> bool {
    match durability {
        Durability::Sync => db.durable_seq() >= seq,
        Durability::Buffered => db.visible_seq() >= seq,
    }
}
