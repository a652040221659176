//! What an input takes: under which names its columns are joined, which cells pass its filters, and of which date.

use std::collections::BTreeSet;
use std::ops::Bound;

use underbelly_storage::{ColumnType, Value};

use super::Graph;
use super::definition::{FilterTest, Input, ProducerDefinition};
use super::error::GraphError;
use super::ids::{SlotDate, SlotId};
use super::key::{self, Key};
use super::producer::Producer;
use super::register::{DEFINITION_PARTS_MAX, too_large};

/// Tests of cell keys, each with the position of its column.
pub(super) type Filters = Vec<(u16, FilterTest)>;

impl Input {
    /// The name under which a cell key of the slot is joined.
    pub(super) fn joined_name<'a>(&'a self, column: &'a str) -> &'a str {
        self.renames.iter().find(|(from, _)| from == column).map_or(column, |(_, name)| name)
    }
}

impl FilterTest {
    fn len(&self) -> usize {
        match self {
            FilterTest::OneOf(values) | FilterTest::NoneOf(values) => values.len(),
            FilterTest::Between(..) => 2,
        }
    }

    /// The test with each value as keys have it; a value that no key of this type has is given back.
    fn of_keys(&self, column_type: ColumnType) -> Result<FilterTest, Value> {
        let one = |value: &Value| match Key::new(vec![value.clone()]) {
            Ok(key) if value.column_type() == Some(column_type) => {
                key.values().first().cloned().ok_or_else(|| value.clone())
            }
            _ => Err(value.clone()),
        };
        let bound = |bound: &Bound<Value>| {
            Ok::<_, Value>(match bound {
                Bound::Included(value) => Bound::Included(one(value)?),
                Bound::Excluded(value) => Bound::Excluded(one(value)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(match self {
            FilterTest::OneOf(values) => FilterTest::OneOf(values.iter().map(one).collect::<Result<_, _>>()?),
            FilterTest::NoneOf(values) => {
                FilterTest::NoneOf(values.iter().map(one).collect::<Result<_, _>>()?)
            }
            FilterTest::Between(from, to) => FilterTest::Between(bound(from)?, bound(to)?),
        })
    }

    pub(super) fn passes(&self, value: &Value) -> bool {
        let equals = |other: &Value| key::compare(value, other).is_eq();
        match self {
            FilterTest::OneOf(values) => values.iter().any(equals),
            FilterTest::NoneOf(values) => !values.iter().any(equals),
            FilterTest::Between(from, to) => {
                let above = match from {
                    Bound::Included(from) => key::compare(value, from).is_ge(),
                    Bound::Excluded(from) => key::compare(value, from).is_gt(),
                    Bound::Unbounded => true,
                };
                above
                    && match to {
                        Bound::Included(to) => key::compare(value, to).is_le(),
                        Bound::Excluded(to) => key::compare(value, to).is_lt(),
                        Bound::Unbounded => true,
                    }
            }
        }
    }
}

impl Producer {
    /// Whether a cell with this key is taken by an input.
    pub fn passes(&self, input: usize, key: &Key) -> bool {
        self.filters.get(input).into_iter().flatten().all(|(position, test)| {
            key.values().get(usize::from(*position)).is_some_and(|value| test.passes(value))
        })
    }

    fn lag(&self, input: usize) -> u32 {
        self.definition.inputs.get(input).map_or(0, |input| input.lag)
    }

    /// Whether an input takes cells of earlier dates.
    pub fn is_lagged(&self, input: usize) -> bool {
        self.lag(input) > 0
    }

    /// Whether any input takes cells of earlier dates.
    pub fn reads_earlier(&self) -> bool {
        (0..self.inputs.len()).any(|input| self.is_lagged(input))
    }

    /// The date of the bundles that take cells of this date as an input; `None` beyond the range.
    pub fn bundle_date(&self, input: usize, cell: SlotDate) -> Option<SlotDate> {
        cell.later(self.lag(input))
    }

    /// The date of the cells that bundles of this date take as an input; `None` beyond the range.
    pub fn cell_date(&self, input: usize, bundle: SlotDate) -> Option<SlotDate> {
        bundle.earlier(self.lag(input))
    }
}

impl Graph {
    /// The filters of an input whose names and values fit its slot.
    pub(super) fn check_input(
        &self,
        definition: &ProducerDefinition,
        input: &Input,
        slot: SlotId,
    ) -> Result<Filters, GraphError> {
        let keys = &self.slots[slot.at()].definition.cell_keys;
        let (producer, name) = (|| definition.name.clone(), || input.alias.clone());
        let find = |column: &String| -> Result<(u16, ColumnType), GraphError> {
            let found = (0..).zip(keys).find(|(_, (key, _))| key == column);
            found.map(|(at, (_, column_type))| (at, *column_type)).ok_or_else(|| GraphError::InputColumn {
                producer: producer(),
                input: name(),
                slot: input.slot.clone(),
                column: column.clone(),
            })
        };
        let twice = |column: &str| GraphError::InputColumnTwice {
            producer: producer(),
            input: name(),
            column: column.to_string(),
        };
        let values: usize = input.filters.iter().map(|filter| filter.test.len()).sum();
        let parts = input.renames.len() + input.filters.len() + values;
        if parts > DEFINITION_PARTS_MAX {
            return Err(too_large("producer", producer(), parts));
        }
        let mut renamed = BTreeSet::new();
        for (column, to) in &input.renames {
            find(column)?;
            if to.is_empty() {
                return Err(GraphError::EmptyName { what: "column" });
            }
            if !renamed.insert(column) {
                return Err(twice(column));
            }
        }
        let mut joined = BTreeSet::new();
        for (column, _) in keys {
            let column = input.joined_name(column);
            if !joined.insert(column) {
                return Err(twice(column));
            }
        }
        let mut filters = Filters::with_capacity(input.filters.len());
        for filter in &input.filters {
            let (position, expected) = find(&filter.column)?;
            let test = filter.test.of_keys(expected).map_err(|value| GraphError::FilterValue {
                producer: producer(),
                input: name(),
                column: filter.column.clone(),
                expected,
                value: format!("{value:?}"),
            })?;
            filters.push((position, test));
        }
        Ok(filters)
    }
}
