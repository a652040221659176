//! What who follows the feed is to be told.

use crate::graph::{Graph, SlotDate, SlotId, State};

use super::FeedError;
use super::page::Transition;

/// Which transactions and which changes of state are told. Conditions of one kind are alternatives; those of different
/// kinds must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    is_narrow: bool,
    slots: Vec<String>,
    dates: Vec<SlotDate>,
    to: Vec<State>,
}

impl Watch {
    /// Every transaction, also those that change no state.
    pub fn all() -> Watch {
        Watch::default()
    }

    /// Transactions that change the state of some cell, or give one that is updated other data, which is told as a change from
    /// updated to updated.
    pub fn states() -> Watch {
        Watch { is_narrow: true, ..Watch::default() }
    }

    /// Changes of cells of a slot.
    pub fn slot(mut self, name: impl Into<String>) -> Watch {
        self.slots.push(name.into());
        Watch { is_narrow: true, ..self }
    }

    /// Changes of cells of a date.
    pub fn date(mut self, date: impl Into<SlotDate>) -> Watch {
        self.dates.push(date.into());
        Watch { is_narrow: true, ..self }
    }

    /// Changes to a state.
    pub fn to(mut self, state: State) -> Watch {
        self.to.push(state);
        Watch { is_narrow: true, ..self }
    }

    /// The same with the numbers of the slots.
    pub(super) fn resolve(&self, graph: &Graph) -> Result<Watched, FeedError> {
        let slot = |name: &String| {
            let unknown = || FeedError::UnknownSlot { slot: name.clone() };
            graph.slot_by_name(name).ok_or_else(unknown)
        };
        let slots = self.slots.iter().map(slot).collect::<Result<_, _>>()?;
        Ok(Watched { is_narrow: self.is_narrow, slots, dates: self.dates.clone(), to: self.to.clone() })
    }
}

/// What is watched for, with the numbers of the slots.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// Whether transactions of which nothing passes are passed over.
    pub is_narrow: bool,
    slots: Vec<SlotId>,
    dates: Vec<SlotDate>,
    to: Vec<State>,
}

impl Watched {
    /// Whether a change may pass, as far as it tells itself.
    pub(super) fn may_pass(&self, transition: &Transition) -> bool {
        self.to.is_empty() || self.to.contains(&transition.to)
    }

    /// Whether changes of a cell there pass.
    pub(super) fn passes_at(&self, slot: SlotId, date: SlotDate) -> bool {
        (self.slots.is_empty() || self.slots.contains(&slot))
            && (self.dates.is_empty() || self.dates.contains(&date))
    }
}
