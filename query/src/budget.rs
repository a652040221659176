//! How much memory an operator may hold.
//!
//! What is held is estimated from rows and columns, or added up where columns are at hand; allocators and the pages of files that
//! are being read come on top, which is why shares are small.

use underbelly_storage::ColumnType;

use crate::{QueryError, SchemaColumn};

/// Bytes of a text, where nobody has looked at it.
const TEXT_BYTES: usize = 64;

/// Rows of a vector of a segment, which are decoded together.
const VECTOR_ROWS: usize = 1_024;

/// Rows below which nothing is cut.
const ROWS_MIN: usize = 64;

/// Bytes that an operator may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Budget(usize);

/// Bytes of a row of these columns, about.
pub(crate) fn row_bytes(types: impl Iterator<Item = ColumnType>) -> usize {
    let of_type = |column_type| match column_type {
        ColumnType::Bool => 2,
        ColumnType::I32 | ColumnType::F32 | ColumnType::Date => 5,
        ColumnType::I64 | ColumnType::F64 | ColumnType::Timestamp => 9,
        ColumnType::Utf8 | ColumnType::Bytes => TEXT_BYTES,
    };
    // The timestamp stands beside them.
    types.map(of_type).fold(8, usize::saturating_add)
}

impl Budget {
    /// As much as there is.
    pub(crate) const ALL: Budget = Budget(usize::MAX);

    pub(crate) fn new(bytes: usize) -> Budget {
        Budget(bytes)
    }

    pub(crate) fn is_bounded(self) -> bool {
        self < Budget::ALL
    }

    /// One of so many shares.
    pub(crate) fn share(self, of: usize) -> usize {
        if self.is_bounded() { self.0 / of.max(1) } else { usize::MAX }
    }

    /// Rows of these columns that fit into one of so many shares; never less than are worth reading.
    pub(crate) fn rows(self, of: usize, columns: &[SchemaColumn]) -> usize {
        self.rows_of(of, row_bytes(columns.iter().map(|column| column.column_type)))
    }

    /// The same of rows of so many bytes.
    pub(crate) fn rows_of(self, of: usize, row_bytes: usize) -> usize {
        if !self.is_bounded() {
            return usize::MAX;
        }
        match self.share(of) / row_bytes.max(1) {
            rows if rows > VECTOR_ROWS => rows / VECTOR_ROWS * VECTOR_ROWS,
            rows => rows.max(ROWS_MIN),
        }
    }

    /// How many things of about so many bytes are held at a time, at least one.
    pub(crate) fn at_once(self, most: usize, bytes: usize) -> usize {
        if self.is_bounded() { most.min(self.share(8) / bytes.max(1)).max(1) } else { most }
    }

    /// Refuses to hold so many bytes: more than a half, as what is held is copied at the end.
    pub(crate) fn check(
        self,
        operator: &'static str,
        held: usize,
        remedy: &'static str,
    ) -> Result<(), QueryError> {
        if !self.is_bounded() || held <= self.share(2) {
            return Ok(());
        }
        Err(QueryError::Memory { operator, need: held.saturating_mul(2), limit: self.0, remedy })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_budget_may_be_held_and_all_of_none() {
        let budget = Budget::new(1 << 20);
        assert!(budget.check("it", 1 << 19, "").is_ok());
        let refused = budget.check("it", (1 << 19) + 1, "take less").unwrap_err().to_string();
        assert_eq!(
            refused,
            "it needs 1048578 bytes of memory and may have 1048576; take less, or allow more memory"
        );
        assert!(Budget::ALL.check("it", usize::MAX, "").is_ok());
        assert_eq!((budget.at_once(32, 1 << 15), budget.at_once(32, 1 << 30)), (4, 1));
        assert_eq!(Budget::ALL.at_once(32, usize::MAX), 32);
        let columns = [SchemaColumn { name: "x".into(), column_type: ColumnType::F64, key: false }];
        assert_eq!((budget.rows(4, &columns), budget.rows_of(4, 400)), (15 * 1_024, 655));
        assert_eq!(Budget::new(0).rows(4, &columns), ROWS_MIN);
    }
}
