//! When a transaction is answered.

use underbelly_wal::Promise;

/// When a transaction is answered. Whatever is chosen, what survives a crash is a prefix of all transactions.
///
/// ```
/// use underbelly::{Batch, Database, Durability, Row, Timestamp};
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("db");
/// let db = Database::create(&dir)?;
/// let mut batch = Batch::new();
/// batch.append(Row::new("tick", Timestamp(1)).field("price", 182.1))?;
/// batch.durability(Durability::Buffered);
/// let commit = db.commit(batch)?;
/// assert!(db.snapshot().seq() >= commit.seq);
/// db.wait_durable(commit.seq)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is durable. Nobody sees it before.
    #[default]
    Sync,
    /// When it is visible to this process, in order: a transaction behind a `Sync` one that is under way is answered
    /// with that one. It is written after [`Options::buffered_delay`](crate::Options::buffered_delay) or
    /// [`Options::buffered_bytes`](crate::Options::buffered_bytes), with the next `Sync` transaction, or when somebody
    /// waits for it with [`Database::wait_durable`](crate::Database::wait_durable). A crash before that loses it and
    /// all behind it. Other processes see it when it is durable.
    Buffered,
}

impl Durability {
    pub(crate) fn promise(self) -> Promise {
        match self {
            Durability::Sync => Promise::Durable,
            Durability::Buffered => Promise::Visible,
        }
    }
}
