//! What somebody is to look at.

use std::fmt;

use underbelly_storage::Timestamp;

use super::slot_name;
use crate::graph::{self, CellId, Graph, Key, SlotDate};
use crate::view::View;

/// What somebody is to look at. An alarm sounds once, in [`Committed::alarms`](crate::Committed::alarms) of the transaction
/// that brought it; [`View::alarms`] lists those whose reason has not gone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Alarm {
    /// What it is about.
    pub kind: AlarmKind,
    /// Since when; where it sounds, the time of that commit.
    pub since: Timestamp,
}

/// What an alarm is about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AlarmKind {
    /// A cell's data is older than its slot says that it is fresh.
    Aged {
        /// The slot.
        slot: String,
        /// The date.
        date: SlotDate,
        /// The key.
        key: Key,
        /// The cell's number.
        sid: CellId,
    },
    /// A slot was not up to date for a date when it should have been.
    Overdue {
        /// The slot.
        slot: String,
        /// The date.
        date: SlotDate,
        /// When it should have been.
        due_by: Timestamp,
    },
    /// The session of a producer gives no sign of life.
    Lost {
        /// The producer.
        producer: String,
    },
}

impl AlarmKind {
    /// `aged`, `overdue` or `lost`.
    pub const fn name(&self) -> &'static str {
        match self {
            AlarmKind::Aged { .. } => "aged",
            AlarmKind::Overdue { .. } => "overdue",
            AlarmKind::Lost { .. } => "lost",
        }
    }
}

impl fmt::Display for AlarmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlarmKind::Aged { slot, date, key, .. } => {
                let gap = if key.values().is_empty() { "" } else { " " };
                write!(f, "{slot} {date}{gap}{key} is too old")
            }
            AlarmKind::Overdue { slot, date, due_by } => {
                write!(f, "{slot} {date} was to be up to date by {due_by}")
            }
            AlarmKind::Lost { producer } => write!(f, "producer {producer} gives no sign of life"),
        }
    }
}

impl Alarm {
    /// An alarm of the graph by names; `None` where the graph does not have what it names.
    pub(crate) fn named(graph: &Graph, alarm: graph::Alarm, since: Timestamp) -> Option<Alarm> {
        let kind = match alarm {
            graph::Alarm::Aged(sid) => {
                let (slot, date, key) = graph.address(sid)?;
                AlarmKind::Aged { slot: slot_name(graph, slot), date, key: key.clone(), sid }
            }
            graph::Alarm::Overdue(deadline) => {
                let graph::Deadline { due_by, slot, date } = deadline;
                graph.slot(slot)?;
                AlarmKind::Overdue { slot: slot_name(graph, slot), date, due_by }
            }
            graph::Alarm::Lost(producer) => {
                AlarmKind::Lost { producer: graph.producer(producer)?.name.clone() }
            }
        };
        Some(Alarm { kind, since })
    }
}

impl View {
    /// What somebody is to look at, as it is now: data that is too old, the oldest first; slots that were not up to date by
    /// their [deadline](crate::Batch::due_by) and are not yet; and producers whose sessions were lost. Takes time in
    /// proportion to the cells that [grow old](crate::SlotDefinition::fresh_for) and to all deadlines.
    pub fn alarms(&self) -> Vec<Alarm> {
        let state = self.base().state();
        let graph = &state.graph;
        graph.alarms().filter_map(|(alarm, since)| Alarm::named(graph, alarm, since)).collect()
    }
}
