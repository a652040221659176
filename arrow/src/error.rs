//! What can be wrong with rows that come from, or go to, somebody who speaks Arrow.

use std::io;

/// Rows cannot be handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArrowError {
    /// Rows that cannot be read.
    #[error("Arrow rows cannot be read: {what}")]
    Rows {
        /// What is wrong, and what to do where something can be done.
        what: String,
    },
    /// Rows that Arrow does not take.
    #[error("rows cannot be handed over as Arrow: {what}")]
    Unfit {
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ArrowError {
    pub(crate) fn rows(what: impl Into<String>) -> ArrowError {
        ArrowError::Rows { what: what.into() }
    }

    pub(crate) fn unfit(what: impl Into<String>) -> ArrowError {
        ArrowError::Unfit { what: what.into() }
    }
}
