//! Which rows of a series are deleted.

use std::sync::Arc;

use underbelly_query::{Predicate, QueryError, Schema, Tombstone};
use underbelly_storage::{Timestamp, Value};

/// Rows to delete: those of a range of time, with some values of key columns, and with values that meet some predicates.
///
/// ```
/// use underbelly::{Batch, Delete, Timestamp};
/// let mut batch = Batch::new();
/// batch.delete_rows("trade", Delete::all().key("symbol", "IBM").to(Timestamp(1_000)));
/// assert_eq!(batch.len(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delete {
    keys: Vec<(Arc<str>, Value)>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    predicates: Vec<(Arc<str>, Predicate)>,
}

impl Delete {
    /// All rows; narrow them down with the builder's methods.
    pub fn all() -> Delete {
        Delete::default()
    }

    /// Only rows whose key column has this value; null asks for rows without one. Several must all hold.
    pub fn key(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Delete {
        self.keys.push((name.into(), value.into()));
        self
    }

    /// Only rows at this instant or after it.
    pub fn from(mut self, from: Timestamp) -> Delete {
        self.from = Some(from);
        self
    }

    /// Only rows before this instant.
    pub fn to(mut self, to: Timestamp) -> Delete {
        self.to = Some(to);
        self
    }

    /// Only rows in which the value of this column, a key or a field, is what the predicate says; several must all hold. Of a type
    /// whose duplicates are resolved the row counts that is shown, and all that it stands for go with it; there each
    /// row that is found counts as a delete.
    pub fn filter(mut self, name: impl Into<Arc<str>>, predicate: Predicate) -> Delete {
        self.predicates.push((name.into(), predicate));
        self
    }

    pub(crate) fn is_filtered(&self) -> bool {
        !self.predicates.is_empty()
    }

    /// How many [`Delete::tombstones`] there are, at most.
    pub(crate) fn parts(&self) -> usize {
        let of_predicate = |(_, predicate): &(_, Predicate)| match predicate {
            Predicate::OneOf(values) => values.len(),
            _ => 1,
        };
        self.predicates.iter().map(of_predicate).fold(1, usize::saturating_mul)
    }

    /// What hides the rows of the range and the keys, of no commit yet, once the schema agrees.
    pub(crate) fn of_keys(&self, schema: &Schema) -> Result<Tombstone, QueryError> {
        Tombstone::new(schema, self.from, self.to, &self.keys)
    }

    /// What hides these rows, of no commit yet, once the schema agrees. Where one of several values is asked for there is one for
    /// each: what is stored compares with one value.
    pub(crate) fn tombstones(&self, schema: &Schema) -> Result<Vec<Tombstone>, QueryError> {
        self.of_keys(schema)?.matching_one_by_one(schema, &self.predicates)
    }

    /// What the values of columns have to be.
    pub(crate) fn predicates(&self) -> &[(Arc<str>, Predicate)] {
        &self.predicates
    }
}
