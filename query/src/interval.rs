//! Ranges of time.

use underbelly_storage::{ColumnType, Timestamp, Value};

use crate::{Predicate, QueryError, TIMESTAMP};

/// Which ends of a range belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The start belongs to it, the end does not.
    #[default]
    Left,
    /// The end belongs to it, the start does not.
    Right,
    /// Both ends belong to it.
    Both,
    /// Neither end belongs to it.
    Neither,
}

/// All instants from `first` to `last`, both included; empty where `first > last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Interval {
    /// All of time.
    pub(crate) const ALL: Interval = Interval { first: i64::MIN, last: i64::MAX };
    /// No instant.
    pub(crate) const EMPTY: Interval = Interval { first: i64::MAX, last: i64::MIN };

    /// The range between two ends; an end that is not given does not limit it, whatever is closed.
    pub(crate) fn new(
        from: Option<Timestamp>,
        to: Option<Timestamp>,
        closed: Closed,
    ) -> Result<Interval, QueryError> {
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(QueryError::BadRange { from, to });
        }
        let first = match from {
            None => Some(i64::MIN),
            Some(at) if matches!(closed, Closed::Left | Closed::Both) => Some(at.0),
            Some(at) => at.0.checked_add(1),
        };
        let last = match to {
            None => Some(i64::MAX),
            Some(at) if matches!(closed, Closed::Right | Closed::Both) => Some(at.0),
            Some(at) => at.0.checked_sub(1),
        };
        Ok(match (first, last) {
            (Some(first), Some(last)) => Interval { first, last },
            _ => Interval::EMPTY,
        })
    }

    /// Leaves out instants that a predicate about them excludes; answers one that it excludes alone.
    pub(crate) fn narrow(&mut self, predicate: &Predicate) -> Result<Option<i64>, QueryError> {
        let at = match predicate.value() {
            None if *predicate == Predicate::NotNull => return Ok(None),
            // No instant is null, and nothing stands to null in any way.
            None | Some(Value::Null) => {
                *self = Interval::EMPTY;
                return Ok(None);
            }
            Some(Value::Timestamp(at)) => at.0,
            Some(value) => {
                let (name, expected) = (TIMESTAMP.to_string(), ColumnType::Timestamp);
                return Err(QueryError::ValueType { name, expected, value: value.clone() });
            }
        };
        let (first, last) = match predicate {
            Predicate::Equal(_) => (Some(at), Some(at)),
            Predicate::Below(_) => (Some(i64::MIN), at.checked_sub(1)),
            Predicate::AtMost(_) => (Some(i64::MIN), Some(at)),
            Predicate::Above(_) => (at.checked_add(1), Some(i64::MAX)),
            Predicate::AtLeast(_) => (Some(at), Some(i64::MAX)),
            _ => return Ok(Some(at)),
        };
        *self = match (first, last) {
            (Some(first), Some(last)) => Interval { first: self.first.max(first), last: self.last.min(last) },
            _ => Interval::EMPTY,
        };
        Ok(None)
    }

    /// Whether no instant is in it.
    pub(crate) fn is_empty(self) -> bool {
        self.first > self.last
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ends_belong_as_asked_at_the_edges_of_time() {
        let new =
            |from, to, closed| Interval::new(Some(Timestamp(from)), Some(Timestamp(to)), closed).unwrap();
        assert_eq!(new(1, 5, Closed::Left), Interval { first: 1, last: 4 });
        assert_eq!(new(1, 5, Closed::Right), Interval { first: 2, last: 5 });
        assert_eq!(new(1, 5, Closed::Both), Interval { first: 1, last: 5 });
        assert_eq!(new(1, 5, Closed::Neither), Interval { first: 2, last: 4 });
        assert_eq!(new(i64::MIN, i64::MAX, Closed::Both), Interval::ALL);
        for closed in [Closed::Left, Closed::Right, Closed::Neither] {
            assert!(new(3, 3, closed).is_empty());
            assert!(new(i64::MIN, i64::MIN, closed).is_empty());
            assert!(new(i64::MAX, i64::MAX, closed).is_empty());
        }
        assert!(!new(3, 3, Closed::Both).is_empty());
        assert_eq!(Interval::new(None, None, Closed::Neither).unwrap(), Interval::ALL);
        assert!(matches!(
            Interval::new(Some(Timestamp(2)), Some(Timestamp(1)), Closed::Both),
            Err(QueryError::BadRange { from: Timestamp(2), to: Timestamp(1) })
        ));
    }
}
