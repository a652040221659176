//! The newest rows of a series that came in small commits, in columns that grow.

use std::sync::Arc;

use underbelly_query::{MemoryRun, QueryError};
use underbelly_storage::{Column, Columns};

use crate::limits::{TAIL_BYTES_MAX, YOUNG_RUN_ROWS_MAX};

/// A few rows of one commit in order of arrival; keys stand before fields.
#[derive(Debug, Default)]
pub(crate) struct Few {
    pub timestamps: Vec<i64>,
    pub columns: Vec<(Arc<str>, Column)>,
    pub keys: usize,
}

/// Rows of commits that have the same columns, in order of commit. They become a run when somebody reads them, when
/// other columns come, or when they are enough for one.
#[derive(Default)]
pub(crate) struct Tail {
    timestamps: Vec<i64>,
    seqs: Vec<u64>,
    columns: Vec<(Arc<str>, Column)>,
    /// Number of keys, which stand before fields.
    keys: usize,
    bytes: usize,
}

impl Tail {
    pub(crate) fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Whether rows have these columns.
    pub(crate) fn takes(&self, few: &Few) -> bool {
        let mut pairs = self.columns.iter().zip(&few.columns);
        self.columns.len() == few.columns.len()
            && self.keys == few.keys
            && pairs.all(|((mine, a), (theirs, b))| {
                (Arc::ptr_eq(mine, theirs) || mine == theirs) && a.column_type() == b.column_type()
            })
    }

    /// Whether it holds enough for a run.
    pub(crate) fn is_full(&self) -> bool {
        self.timestamps.len() >= YOUNG_RUN_ROWS_MAX || self.bytes >= TAIL_BYTES_MAX
    }

    /// Appends rows that it takes; the first rows decide the columns. The rows may be taken out of `few`.
    pub(crate) fn push(&mut self, seq: u64, few: &mut Few) {
        let rows = few.timestamps.len();
        self.bytes += few.columns.iter().map(|(_, column)| column.byte_size()).sum::<usize>() + rows * 16;
        self.seqs.resize(self.seqs.len() + rows, seq);
        if self.is_empty() {
            let Few { timestamps, columns, keys } = std::mem::take(few);
            (self.timestamps, self.columns, self.keys) = (timestamps, columns, keys);
            return;
        }
        self.timestamps.extend_from_slice(&few.timestamps);
        for ((_, mine), (_, theirs)) in self.columns.iter_mut().zip(&few.columns) {
            let extended = mine.extend_range(theirs, 0..rows);
            // Rather nothing goes on than without rows that are answered for.
            assert!(extended.is_some(), "types were compared and the bytes are bounded");
        }
    }

    /// The rows as a run.
    pub(crate) fn into_run(self) -> Result<MemoryRun, QueryError> {
        let mut columns = Columns::new();
        for (name, column) in self.columns {
            columns.insert(name, column)?;
        }
        MemoryRun::with_seqs(self.timestamps, self.seqs, columns)
    }
}
