//! What concurrent transactions were seen to do: each with the moments of its call and its answer, its place in the
//! order of all commits, and what it read and wrote.
//!
//! All values are written once, so a value that is read says who wrote it. A *register* (a cell, a model, a variable) shows its
//! last value; a *list* (the rows of a series at one time) shows all values in order of commit.

/// Something that transactions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    Cell(u8),
    Model(u8),
    Variable(u8),
    Series(u8),
}

impl Object {
    /// Whether a read of it is a scan: a later row is a phantom to it.
    pub fn is_list(self) -> bool {
        matches!(self, Object::Series(_))
    }
}

/// What a transaction did to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It saw these values: of a register at most one, of a list all. Its own writes are left out.
    Read(Object, Vec<i64>),
    /// It put or appended this value.
    Write(Object, i64),
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with this place in the order of commits.
    Committed { seq: u64 },
    /// It wrote nothing, and read what the commits up to this one left.
    Looked { seq: u64 },
    /// Answered that nothing of it was kept.
    Refused,
}

/// A transaction, or a look at a snapshot.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The moment before the call. Moments of all threads come from one counter.
    pub called: u64,
    /// The moment after the answer.
    pub answered: u64,
    pub outcome: Outcome,
    pub accesses: Vec<Access>,
}

impl Entry {
    /// One that was committed; accesses are added behind it.
    pub fn committed(called: u64, answered: u64, seq: u64) -> Entry {
        Entry { called, answered, outcome: Outcome::Committed { seq }, accesses: Vec::new() }
    }

    /// One that only looked.
    pub fn looked(called: u64, answered: u64, seq: u64) -> Entry {
        Entry { called, answered, outcome: Outcome::Looked { seq }, accesses: Vec::new() }
    }

    /// One that was refused.
    pub fn refused(called: u64, answered: u64) -> Entry {
        Entry { called, answered, outcome: Outcome::Refused, accesses: Vec::new() }
    }

    /// Adds what it saw.
    pub fn read(mut self, object: Object, values: impl IntoIterator<Item = i64>) -> Entry {
        self.accesses.push(Access::Read(object, values.into_iter().collect()));
        self
    }

    /// Adds what it wrote.
    pub fn write(mut self, object: Object, value: i64) -> Entry {
        self.accesses.push(Access::Write(object, value));
        self
    }

    /// Its place in the order of all: who looks stands behind the commit that it looked at.
    pub fn place(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Committed { seq } => Some(2 * seq),
            Outcome::Looked { seq } => Some(2 * seq + 1),
            Outcome::Refused => None,
        }
    }
}
