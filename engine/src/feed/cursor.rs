//! Durable cursors: how far a consumer has come, as a variable.

use crate::error::CommitError;
use crate::transaction::Transaction;
use crate::variables::{Name, Scope, VariableType, VariableValue};
use crate::view::Base;

use super::FeedError;

/// What the names of the variables that are durable cursors begin with. Each has global scope, and holds the last
/// transaction that was consumed.
pub const CURSOR_PREFIX: &str = "_cursor.";

fn variable(name: &str) -> String {
    format!("{CURSOR_PREFIX}{name}")
}

/// The transaction that a cursor's value says.
fn consumed(variable: &str, value: &VariableValue) -> Result<u64, CommitError> {
    let seq = match value {
        VariableValue::I64(seq) => u64::try_from(*seq).ok(),
        _ => None,
    };
    seq.ok_or_else(|| CommitError::VariableType {
        variable: variable.to_string(),
        expected: VariableType::I64,
        found: value.variable_type(),
    })
}

/// The last transaction that was consumed, as is visible now.
pub(super) fn get(base: &Base, name: &str) -> Result<Option<u64>, FeedError> {
    let variable = variable(name);
    let name = Name::new(&Scope::Global, &variable);
    name.check()?;
    let found = base.state().variables.at(&name, (base.visible)());
    Ok(found.map(|found| consumed(&variable, &found.value)).transpose()?)
}

impl Transaction {
    /// Moves a durable cursor to `seq`, the last transaction that was consumed; it is made where it is not there. What
    /// this transaction writes and the move are committed together, so each transaction is consumed exactly once, whatever
    /// crashes and however many consume under one name: who comes second is refused.
    ///
    /// # Errors
    /// [`CommitError::Consumed`] where it is there or further already; [`CommitError::Name`] where no cursor may have
    /// such a name; [`CommitError::VariableType`] where the variable is no cursor.
    pub fn advance_cursor(&mut self, name: &str, seq: u64) -> Result<(), CommitError> {
        let variable = variable(name);
        let before = self.variable(&Scope::Global, &variable)?;
        let before = before.map(|value| consumed(&variable, &value)).transpose()?;
        if let Some(at) = before.filter(|at| *at >= seq) {
            return Err(CommitError::Consumed { cursor: name.to_string(), seq, at });
        }
        let value = i64::try_from(seq).unwrap_or(i64::MAX);
        self.set_variable(Scope::Global, &variable, value);
        Ok(())
    }
}
