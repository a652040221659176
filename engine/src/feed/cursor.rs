//! Durable cursors: how far a consumer has come, as a variable.

use crate::error::CommitError;
use crate::transaction::Transaction;
use crate::variables::{Name, Scope, VariableValue};
use crate::view::Base;

use super::FeedError;

/// What the names of the variables that are durable cursors begin with. Each has global scope, and holds the last
/// transaction that was consumed.
pub const CURSOR_PREFIX: &str = "_cursor.";

/// Why other names that begin so are refused.
pub(crate) const ENGINES_OWN: &str = "begins with `_`, as the engine's own do";

fn variable(name: &str) -> String {
    format!("{CURSOR_PREFIX}{name}")
}

/// The transaction that the value of a cursor of this name says.
fn consumed(cursor: &str, value: &VariableValue) -> Result<u64, CommitError> {
    let found = match value {
        VariableValue::I64(seq) => u64::try_from(*seq).map_err(|_| seq.to_string()),
        other => Err(other.variable_type().to_string()),
    };
    found.map_err(|found| CommitError::CursorValue { cursor: cursor.to_string(), found })
}

/// Refuses names and values that are the engine's own, to who sets a variable; `newest` is the newest transaction.
pub(crate) fn check_set(
    variable: &Name,
    value: &VariableValue,
    newest: impl FnOnce() -> u64,
) -> Result<(), CommitError> {
    if !variable.name.starts_with('_') {
        return Ok(());
    }
    match variable.name.strip_prefix(CURSOR_PREFIX).filter(|_| variable.scope == Scope::Global) {
        Some(cursor) => {
            let (seq, newest) = (consumed(cursor, value)?, newest());
            match seq > newest {
                true => Err(CommitError::CursorAhead { cursor: cursor.to_string(), seq, newest }),
                false => Ok(()),
            }
        }
        None => {
            let (what, name, problem) = ("variable", variable.name.to_string(), ENGINES_OWN);
            Err(CommitError::Name { what, name, problem })
        }
    }
}

/// The last transaction that was consumed, as is visible now.
pub(super) fn get(base: &Base, name: &str) -> Result<Option<u64>, FeedError> {
    let variable = Name::new(&Scope::Global, &variable(name));
    variable.check()?;
    let found = base.state().variables.at(&variable, (base.visible)());
    Ok(found.map(|found| consumed(name, &found.value)).transpose()?)
}

/// The transaction behind it, where it is a cursor.
pub(super) fn next(base: &Base, name: &str) -> Result<Option<u64>, FeedError> {
    let consumed = get(base, name)?;
    // Behind it: another consumer may move it on meanwhile.
    let newest = base.state().head;
    consumed.map(|consumed| behind(name, consumed, newest)).transpose()
}

fn behind(name: &str, consumed: u64, newest: u64) -> Result<u64, FeedError> {
    match consumed > newest {
        true => Err(FeedError::CursorAhead { cursor: name.to_string(), consumed, newest }),
        false => Ok(consumed + 1),
    }
}

impl Transaction {
    /// Moves a durable cursor to `seq`, the last transaction that was consumed; it is made where it is not there. What
    /// this transaction writes and the move are committed together, so each transaction is consumed exactly once, whatever
    /// crashes and however many consume under one name: who comes second is refused.
    ///
    /// # Errors
    /// [`CommitError::Consumed`] where it is there or further already; [`CommitError::Name`] where no cursor may have
    /// such a name; [`CommitError::CursorValue`] where its variable holds no transaction. The commit answers
    /// [`CommitError::CursorAhead`] where there is no such transaction yet.
    pub fn advance_cursor(&mut self, name: &str, seq: u64) -> Result<(), CommitError> {
        let variable = variable(name);
        let before = self.variable(&Scope::Global, &variable)?;
        let before = before.map(|value| consumed(name, &value)).transpose()?;
        if let Some(at) = before.filter(|at| *at >= seq) {
            return Err(CommitError::Consumed { cursor: name.to_string(), seq, at });
        }
        let value = i64::try_from(seq).unwrap_or(i64::MAX);
        self.set_variable(Scope::Global, &variable, value);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use underbelly_storage::disk::SimulatedDisk;

    use super::*;
    use crate::batch::Batch;
    use crate::database::Database;
    use crate::options::Options;

    /// Nobody sets one so; where one stands so all the same, the error says how it is mended.
    #[test]
    fn a_cursor_that_is_ahead_is_told() {
        let options = Options { workers: 0, ..Options::default() };
        let db = Database::create_on(Arc::new(SimulatedDisk::new()), options).unwrap();
        let set = |name: &str, seq: u64| {
            let mut batch = Batch::new();
            batch.set_variable(Scope::Global, name, seq as i64);
            db.commit(batch)
        };
        let head = set("x", 0).unwrap().seq;
        let refused = set("_cursor.job", head + 1);
        assert!(matches!(refused, Err(CommitError::CursorAhead { .. })), "{refused:?}");
        let refused = db.transact::<_, CommitError>(|tx| tx.advance_cursor("job", head + 1));
        assert!(matches!(refused, Err(CommitError::CursorAhead { .. })), "{refused:?}");
        set("_cursor.job", head).unwrap();
        assert_eq!(next(db.base(), "job").unwrap(), Some(head + 1));
        let text = behind("job", head, head - 1).unwrap_err().to_string();
        assert!(text.contains("`ubctl var set --force '_cursor.job' SEQ`"), "{text}");
    }

    /// The error names the cursor, and what stands there is what was found.
    #[test]
    fn what_is_no_transaction_is_no_place_of_a_cursor() {
        let cursor = Name::new(&Scope::Global, "_cursor.job");
        for (value, found) in [(b"abc".to_vec().into(), "bytes"), (0.5.into(), "f64"), ((-3i64).into(), "-3")]
        {
            for refused in [consumed("job", &value).map(drop), check_set(&cursor, &value, || 7)] {
                let text = refused.unwrap_err().to_string();
                assert!(
                    text.contains("cursor \"job\"") && text.contains(&format!("holds {found},")),
                    "{text}"
                );
            }
        }
        assert_eq!(consumed("job", &7i64.into()).unwrap(), 7);
        check_set(&cursor, &7i64.into(), || 7).unwrap();
        for (scope, name, is_refused) in [
            (Scope::Global, "_x", true),
            (Scope::asset("a"), "_cursor.job", true),
            (Scope::asset("_a"), "x", false),
            (Scope::Global, "x_", false),
        ] {
            assert_eq!(
                check_set(&Name::new(&scope, name), &7i64.into(), || 7).is_err(),
                is_refused,
                "{scope} {name}"
            );
        }
    }
}
