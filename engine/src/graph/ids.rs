//! Numbers that stand for slots, producers, cells, bundles, runs and contents, and the date of a cell.
//!
//! Ids count from 0 in the order of creation and are never used twice, so the same events give the same ids.

use std::fmt;

use underbelly_storage::{Date, Timestamp};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A slot definition.
    SlotId(u32)
}
id! {
    /// A producer definition.
    ProducerId(u32)
}
id! {
    /// A cell: the SID of users and tables.
    CellId(u32)
}
id! {
    /// A bundle: the unit of work of a producer.
    BundleId(u32)
}
id! {
    /// One run of one bundle. The caller chooses the number and never uses it again.
    RunId(u64)
}

impl SlotId {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

impl ProducerId {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

impl CellId {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

impl BundleId {
    pub(super) fn at(self) -> usize {
        self.0 as usize
    }
}

/// The hash of a cell's content. Equal ids mean equal contents.
pub type ContentId = [u8; 32];

/// The date of a cell: a day or an instant. A new date is a new cell. A day never equals an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotDate {
    /// A calendar day.
    Day(Date),
    /// A point in time.
    Instant(Timestamp),
}

impl fmt::Display for SlotDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotDate::Day(day) => day.fmt(f),
            SlotDate::Instant(instant) => instant.fmt(f),
        }
    }
}

/// Nanoseconds of a day.
const DAY: i64 = 86_400_000_000_000;

impl SlotDate {
    /// When it begins: midnight UTC of a day.
    pub(super) fn begins(self) -> Timestamp {
        match self {
            SlotDate::Day(Date(day)) => Timestamp(i64::from(day).saturating_mul(DAY)),
            SlotDate::Instant(instant) => instant,
        }
    }

    /// So many days later; `None` beyond the range.
    pub(super) fn later(self, days: u32) -> Option<SlotDate> {
        self.moved(i64::from(days))
    }

    /// So many days earlier; `None` beyond the range.
    pub(super) fn earlier(self, days: u32) -> Option<SlotDate> {
        self.moved(-i64::from(days))
    }

    fn moved(self, days: i64) -> Option<SlotDate> {
        Some(match self {
            SlotDate::Day(Date(day)) => {
                SlotDate::Day(Date(i64::from(day).checked_add(days)?.try_into().ok()?))
            }
            SlotDate::Instant(Timestamp(at)) => {
                SlotDate::Instant(Timestamp(at.checked_add(days.checked_mul(DAY)?)?))
            }
        })
    }
}

impl From<Date> for SlotDate {
    fn from(day: Date) -> SlotDate {
        SlotDate::Day(day)
    }
}

impl From<Timestamp> for SlotDate {
    fn from(instant: Timestamp) -> SlotDate {
        SlotDate::Instant(instant)
    }
}
