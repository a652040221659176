//! Consumers of the feed with durable cursors: one that takes each transaction once, with what it makes of it, and one that says
//! afterwards how far it has come.

use std::time::Duration;

use underbelly::{
    CURSOR_PREFIX, CommitError, Durability, Scope, Slow, Start, Transaction, VariableValue, Watch,
};

use super::Trouble;
use super::life::Life;
use super::model::Effect;

/// The cursor of the one, as the number of its variable.
const TAKEN: u8 = 5;
/// The variable with what it makes: the sum of the seqs that it was told.
const SUM: u8 = 6;
/// The cursor of the other.
const TOLD: u8 = 7;
/// What they are called.
const NAMES: [&str; 2] = ["reporter", "follower"];

/// The names of the variables with these numbers.
pub(super) fn variable(number: u8) -> Option<String> {
    match number {
        TAKEN => Some(format!("{CURSOR_PREFIX}{}", NAMES[0])),
        SUM => Some("sum".to_string()),
        TOLD => Some(format!("{CURSOR_PREFIX}{}", NAMES[1])),
        _ => None,
    }
}

impl Life {
    fn variable(&self, number: u8) -> i64 {
        self.model.variables.get(&number).copied().unwrap_or(0)
    }

    /// One of them goes on.
    pub(super) fn consume(&mut self) -> Result<(), Trouble> {
        let most = 1 << self.numbers.below(7);
        if self.numbers.below(4) == 0 { self.follow_cursor(most) } else { self.take_from_feed(most) }
    }

    /// Takes what there is, and no more than so much, in one transaction with the sum. Now and then somebody else under the same
    /// name takes it in between, and the transaction is refused.
    fn take_from_feed(&mut self, most: usize) -> Result<(), Trouble> {
        let (has_rival, is_buffered) = (self.numbers.below(4) == 0, self.numbers.below(3) == 0);
        let db = self.db()?.clone();
        let (at, sum) = (self.variable(TAKEN), self.variable(SUM));
        if sum != at * (at + 1) / 2 {
            return Err(format!("a consumer at seq {at} has made {sum} of the seqs up to it").into());
        }
        let mut told = Vec::new();
        for committed in db.feed(&Watch::all(), Start::Cursor(NAMES[0].to_string()))?.take(most) {
            told.push(committed?.seq as i64);
        }
        self.tell(|| format!("consume {told:?} behind {at}, a rival {has_rival}"));
        let Some(last) = told.last().copied() else { return Ok(()) };
        if !told.iter().copied().eq(at + 1..=last) {
            return Err(format!("a consumer at seq {at} is told {told:?}").into());
        }
        let durability = if is_buffered { Durability::Buffered } else { Durability::Sync };
        let take = |tx: &mut Transaction, sum: i64| -> Result<(), CommitError> {
            tx.durability(durability);
            tx.advance_cursor(NAMES[0], last as u64)?;
            tx.set_variable(Scope::Global, "sum", sum + told.iter().sum::<i64>());
            Ok(())
        };
        let (before, mut rival) = (self.head()?, has_rival);
        let done = db.transact(|tx| -> Result<(), CommitError> {
            let sum = match tx.variable(&Scope::Global, "sum")? {
                Some(VariableValue::I64(sum)) => sum,
                _ => 0,
            };
            if std::mem::take(&mut rival) {
                take(tx, sum)?;
                return db.transact(|other| take(other, sum));
            }
            take(tx, sum)
        });
        let after = self.head()?;
        if after > before {
            let made = sum + told.iter().sum::<i64>();
            self.journal.add(
                before + 1,
                vec![Effect::Variable(TAKEN, Some(last)), Effect::Variable(SUM, Some(made))],
            );
        }
        self.settle()?;
        let (visible, durable) = (self.db()?.visible_seq(), self.durable);
        let is_kept = if is_buffered { visible >= after } else { durable >= after };
        match done {
            Err(CommitError::Consumed { seq, at, .. })
                if has_rival && (seq, at) == (last as u64, last as u64) => {}
            Err(error) => return self.excuse("consume", &error),
            Ok(()) if has_rival => return Err("two consumers under one name took the same".into()),
            Ok(()) if after != before + 1 || !is_kept => {
                return Err(format!("{} transactions consume, of seq {after}", after - before).into());
            }
            Ok(()) => {}
        }
        self.figures.consumed += told.len() as u64;
        Ok(())
    }

    /// Is told what there is, and no more than so much, and moves the cursor behind it.
    fn follow_cursor(&mut self, most: usize) -> Result<(), Trouble> {
        let (db, at) = (self.db()?.clone(), self.variable(TOLD) as u64);
        let mut following =
            db.subscribe(&Watch::all(), Start::Cursor(NAMES[1].to_string()), Slow::CatchUp)?;
        let mut next = at + 1;
        for _ in 0..most {
            // Who waits for more learns that there will be none.
            let committed = match following.next_within(Duration::ZERO) {
                Ok(Some(committed)) => committed,
                Ok(None) => break,
                Err(error) => return self.excuse("follow", &error),
            };
            if committed.seq != next {
                return Err(
                    format!("a follower behind seq {at} is told {}, not {next}", committed.seq).into()
                );
            }
            next += 1;
        }
        let last = db.visible_seq().min(db.durable_seq());
        if next - 1 != last.min(at + most as u64) {
            return Err(format!("a follower behind seq {at} is told up to {}, not {last}", next - 1).into());
        }
        self.figures.followed += next - 1 - at;
        self.tell(|| format!("follow from {at} to {}", next - 1));
        if next == 1 {
            return Ok(());
        }
        let effects = vec![Effect::Variable(TOLD, Some(next as i64 - 1))];
        self.attempt("acknowledge", effects, |_| following.ack()).map(|_| ())
    }
}
