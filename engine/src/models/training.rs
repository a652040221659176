//! What a version was made from.

use std::fmt;

use underbelly_storage::Timestamp;

use super::marks::number;
use super::{MetaValue, ModelId, ModelInfo};
use crate::snapshot::Snapshot;

/// What a version was made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Training {
    parts: Vec<TrainedOn>,
}

/// A thing that a version was made from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TrainedOn {
    /// Rows of a series within a range of time, as of a transaction.
    Series {
        /// The series' type.
        series: String,
        /// The first time.
        from: Timestamp,
        /// The time behind the last.
        to: Timestamp,
        /// The transaction up to which rows were seen.
        seq: u64,
    },
    /// The contents of a cell.
    Slot {
        /// The slot.
        slot: String,
        /// The date, as it is printed.
        date: String,
        /// The cell keys, as they are printed.
        key: String,
        /// The generation that was read.
        generation: u64,
    },
    /// A version of a model.
    Model {
        /// Its identity.
        id: ModelId,
        /// The version.
        version: u64,
    },
}

impl Training {
    /// From nothing yet.
    pub fn new() -> Training {
        Training::default()
    }

    /// From rows of a series within a half-open range of time, as a snapshot shows them.
    pub fn series(mut self, series: &str, from: Timestamp, to: Timestamp, snapshot: &Snapshot) -> Training {
        let seq = snapshot.seq();
        self.parts.push(TrainedOn::Series { series: series.to_string(), from, to, seq });
        self
    }

    /// From the contents of a cell.
    pub fn slot(
        mut self,
        slot: &str,
        date: impl fmt::Display,
        key: impl fmt::Display,
        generation: u64,
    ) -> Training {
        let (date, key) = (date.to_string(), key.to_string());
        self.parts.push(TrainedOn::Slot { slot: slot.to_string(), date, key, generation });
        self
    }

    /// From a version of a model.
    pub fn model(mut self, info: &ModelInfo) -> Training {
        self.parts.push(TrainedOn::Model { id: info.id, version: info.version });
        self
    }

    /// What it was made from.
    pub fn parts(&self) -> &[TrainedOn] {
        &self.parts
    }

    pub(super) fn to_value(&self) -> MetaValue {
        let long = |number: u64| MetaValue::I64(i64::try_from(number).unwrap_or(i64::MAX));
        let part = |part: &TrainedOn| {
            let entries: Vec<(&str, MetaValue)> = match part {
                TrainedOn::Series { series, from, to, seq } => vec![
                    ("series", series.as_str().into()),
                    ("from", (*from).into()),
                    ("to", (*to).into()),
                    ("seq", long(*seq)),
                ],
                TrainedOn::Slot { slot, date, key, generation } => vec![
                    ("slot", slot.as_str().into()),
                    ("date", date.as_str().into()),
                    ("key", key.as_str().into()),
                    ("generation", long(*generation)),
                ],
                TrainedOn::Model { id, version } => {
                    vec![("model", id.0.to_vec().into()), ("version", long(*version))]
                }
            };
            MetaValue::Map(entries.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
        };
        MetaValue::List(self.parts.iter().map(part).collect())
    }

    pub(super) fn of(value: &MetaValue) -> Training {
        let MetaValue::List(items) = value else { return Training::default() };
        let part = |item: &MetaValue| {
            let MetaValue::Map(entries) = item else { return None };
            let text = |name: &str| match entries.get(name) {
                Some(MetaValue::Text(text)) => Some(text.clone()),
                _ => None,
            };
            let time = |name: &str| match entries.get(name) {
                Some(MetaValue::Timestamp(at)) => Some(*at),
                _ => None,
            };
            let count = |name: &str| entries.get(name).and_then(number);
            if let Some(series) = text("series") {
                return Some(TrainedOn::Series {
                    series,
                    from: time("from")?,
                    to: time("to")?,
                    seq: count("seq")?,
                });
            }
            if let Some(slot) = text("slot") {
                let (date, key, generation) = (text("date")?, text("key")?, count("generation")?);
                return Some(TrainedOn::Slot { slot, date, key, generation });
            }
            let Some(MetaValue::Bytes(id)) = entries.get("model") else { return None };
            Some(TrainedOn::Model { id: ModelId(id.as_slice().try_into().ok()?), version: count("version")? })
        };
        Training { parts: items.iter().filter_map(part).collect() }
    }
}
