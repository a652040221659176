//! Transactions and checkpoints in the middle of something else: a checkpoint, wherever it gives way, or a reader's
//! opening, between two of its calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use underbelly::{Batch, CommitError, Database, Durability};

use super::Trouble;
use super::life::{Journal, Life};
use super::model::Effect;

/// A transaction that is ready to be committed.
struct Ready {
    durability: Durability,
    batch: Batch,
    effects: Vec<Effect>,
}

/// What became of what was done meanwhile.
#[derive(Default)]
struct Outcome {
    commits: u64,
    failed: Vec<CommitError>,
    trouble: Option<String>,
}

/// Who commits while others are at work.
pub(super) struct Other {
    db: Database,
    journal: Journal,
    now: i64,
    /// The last one is the next.
    ready: Vec<Ready>,
    outcome: Arc<Mutex<Outcome>>,
}

/// The same, who lets so many chances go by before each commit.
pub(super) struct Paused {
    other: Other,
    pauses: Vec<u64>,
}

impl Paused {
    /// Commits, or waits.
    pub(super) fn go_on(&mut self) {
        match self.pauses.last_mut() {
            Some(0) => {
                self.pauses.pop();
                self.other.commit();
            }
            Some(pause) => *pause -= 1,
            None => {}
        }
    }
}

/// To be [looked at](Life::account) when the work is done.
pub(super) struct Meanwhile(Arc<Mutex<Outcome>>);

fn hold(outcome: &Mutex<Outcome>) -> MutexGuard<'_, Outcome> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Other {
    /// Commits the next transaction, if there is one.
    pub(super) fn commit(&mut self) {
        let Some(Ready { durability, batch, effects }) = self.ready.pop() else { return };
        let before = self.db.head_seq();
        let done = self.db.commit(batch);
        if self.db.head_seq() > before {
            self.journal.add(before + 1, effects);
        } else if matches!(done, Err(CommitError::Duplicate { .. })) {
            self.journal.add(before, vec![Effect::Refused(effects)]);
        }
        let mut outcome = hold(&self.outcome);
        outcome.commits += 1;
        match done {
            Ok(commit) if !is_kept(&self.db, commit.seq, durability) => {
                let what = format!("seq {} is acknowledged before it is {durability:?}", commit.seq);
                outcome.trouble = Some(what);
            }
            Ok(_) | Err(CommitError::Duplicate { .. }) => {}
            Err(error) => outcome.failed.push(error),
        }
    }

    /// Makes a checkpoint.
    pub(super) fn checkpoint(&mut self) {
        let before = self.db.head_seq();
        let done = self.db.checkpoint();
        self.journal.note_expiry(before, self.db.head_seq(), self.now);
        hold(&self.outcome).failed.extend(done.err());
    }
}

impl Life {
    /// Somebody else who is about to commit so many transactions.
    pub(super) fn other(&mut self, commits: u64) -> Result<(Other, Meanwhile), Trouble> {
        let mut ready = Vec::new();
        for _ in 0..commits {
            let (batch, effects, durability) = self.some_batch()?;
            ready.push(Ready { durability, batch, effects });
        }
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let (db, journal) = (self.db()?.clone(), self.journal.clone());
        let now = self.time;
        Ok((Other { db, journal, now, ready, outcome: outcome.clone() }, Meanwhile(outcome)))
    }

    /// Takes note of what was done meanwhile.
    pub(super) fn account(&mut self, Meanwhile(outcome): Meanwhile) -> Result<(), Trouble> {
        self.settle()?;
        let outcome = std::mem::take(&mut *hold(&outcome));
        self.figures.meanwhile += outcome.commits;
        self.tell(|| format!("meanwhile {} transactions", outcome.commits));
        if let Some(trouble) = outcome.trouble {
            return Err(trouble.into());
        }
        outcome.failed.iter().try_for_each(|error| self.excuse("meanwhile", error))
    }

    /// A drive, and transactions between the steps of a checkpoint and of a base that are due in it. None is of a series, and
    /// there is none where rows lie too far behind: what a checkpoint deletes could not be told from what a run did.
    pub(super) fn drive_beside_commits(&mut self) -> Result<bool, Trouble> {
        let commits = self.numbers.below(12);
        let pauses = (0..commits).map(|_| self.numbers.below(30)).collect();
        let (mut other, meanwhile) = self.other(commits)?;
        let is_of_series = |effect: &Effect| matches!(effect, Effect::Rows(..) | Effect::Delete(_));
        let is_expired = self.model.is_expired(self.time);
        other.ready.retain(|ready| !is_expired && !ready.effects.iter().any(is_of_series));
        self.drive_beside(Some((Paused { other, pauses }, meanwhile)))
    }

    /// A checkpoint, and a few transactions between its slices.
    pub(super) fn checkpoint(&mut self) -> Result<(), Trouble> {
        let commits = self.numbers.below(5);
        let pauses = (0..commits).map(|_| self.numbers.below(6)).collect();
        let (other, meanwhile) = self.other(commits)?;
        let mut other = Paused { other, pauses };
        // What a checkpoint reads again may fail, too.
        let is_ordered = self.numbers.below(4) == 0 && self.order_read();
        self.clock.do_meanwhile(Some(Box::new(move || other.go_on())));
        let before = self.head()?;
        let done = self.db()?.checkpoint();
        self.clock.do_meanwhile(None);
        self.tell(|| format!("checkpoint: {done:?}"));
        self.note_expiry(before, done.is_ok())?;
        self.account(meanwhile)?;
        if let Err(error) = done {
            self.excuse("checkpoint", &error)?;
        }
        if is_ordered {
            self.order(None);
            // A read that failed leaves the removing to the next checkpoint.
            return Ok(());
        }
        self.look_for_strays()
    }
}

/// Whether a transaction is as far as its answer says.
fn is_kept(db: &Database, seq: u64, durability: Durability) -> bool {
    match durability {
        Durability::Sync => db.durable_seq() >= seq,
        Durability::Buffered => db.visible_seq() >= seq,
    }
}
