//! Why the feed cannot be followed.

use crate::error::{CommitError, ReadError};

/// The feed cannot be followed from there, or not any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The transaction is not kept any more.
    #[error(
        "the changes of transaction {asked} are not kept any more, the oldest kept are those of {oldest}: read what is \
         there now and go on with {oldest} (`ubctl tail --from {oldest}`, `Start::Seq`); a longer `Options::changes_kept` keeps more from now on"
    )]
    TooOld {
        /// The transaction that was to be told next.
        asked: u64,
        /// The oldest one behind it that is kept; the next one to come where none is.
        oldest: u64,
    },
    /// The subscription is behind by more than its policy allows.
    #[error(
        "transaction {next} is {behind} transactions behind the newest, and {allowed} are allowed: subscribe anew with \
         `Start::Seq({next})` and `Slow::CatchUp`, or with `Start::Now`"
    )]
    TooSlow {
        /// The transaction that was to be told next.
        next: u64,
        /// Transactions that were not told yet.
        behind: u64,
        /// How many may be.
        allowed: u64,
    },
    /// There is no such transaction yet.
    #[error("transaction {asked} is yet to come, the newest is {newest}: start with {} or before", newest + 1)]
    Ahead {
        /// The transaction to start with.
        asked: u64,
        /// The newest transaction.
        newest: u64,
    },
    /// A durable cursor stands at a transaction that is yet to come.
    #[error(
        "cursor {cursor:?} says that all up to transaction {consumed} was consumed, and the newest is {newest}: set it to what was with \
         `ubctl var set --force '_cursor.{cursor}' SEQ`, or remove it with `ubctl var rm --force '_cursor.{cursor}'` and begin anew"
    )]
    CursorAhead {
        /// The cursor's name.
        cursor: String,
        /// Where it stands.
        consumed: u64,
        /// The newest transaction.
        newest: u64,
    },
    /// A slot to watch is not there.
    #[error("no slot is named {slot:?}; `ubctl slot ls` lists them")]
    UnknownSlot {
        /// The name.
        slot: String,
    },
    /// A subscription that did not start at a cursor has none to move.
    #[error("the subscription has no cursor: subscribe with `Start::Cursor(NAME)`")]
    NoCursor,
    /// What is stored of a transaction contradicts itself.
    #[error(
        "the changes of transaction {seq} cannot be read: {what}; read what is there now and go on behind it, and save the \
         rest with `ubctl repair DEST`"
    )]
    Damaged {
        /// The transaction.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// What is kept could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database is closed, its log has failed, or a cursor could not be read or moved.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
