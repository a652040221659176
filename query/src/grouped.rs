//! Rows sorted into slots, and what aggregates make of them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnError, ColumnType, Columns};

use crate::QueryError;
use crate::aggregate::{Aggregate, Choice, State};
use crate::budget::Budget;
use crate::ids::KeyIds;
use crate::key::encode;
use crate::lane::Batch;
use crate::timed::{columns_at, position};

/// Groups of rows by key columns, and aggregates over them.
pub(crate) struct Grouped {
    /// Positions of the key columns.
    keys: Vec<usize>,
    ids: KeyIds,
    /// A row of the key columns for each key, in order of their first rows.
    seen: Vec<(Arc<str>, Column)>,
    /// Each with the positions of its columns.
    states: Vec<(Aggregate, Vec<usize>, State)>,
    /// The places of those that make a bar of one column: its first, greatest, least and last value.
    bars: Vec<[usize; 4]>,
}

impl Grouped {
    /// No rows yet. Columns of the result that would bear one name are refused; `taken` is what stands before them.
    pub(crate) fn new(
        header: &Columns,
        by: &[Arc<str>],
        aggregates: &[Aggregate],
        taken: Option<&str>,
    ) -> Result<Grouped, QueryError> {
        let mut names: HashSet<&str> = taken.into_iter().collect();
        let of_result = by.iter().map(|name| &**name).chain(aggregates.iter().map(Aggregate::name));
        if let Some(name) = of_result.into_iter().find(|name| !names.insert(name)) {
            return Err(ColumnError::Duplicate { column: name.to_string() }.into());
        }
        let keys: Vec<usize> = by.iter().map(|name| position(header, name)).collect::<Result<_, _>>()?;
        let ids = KeyIds::new(&columns_at(header, &keys));
        let seen = by
            .iter()
            .zip(&keys)
            .map(|(name, key)| (name.clone(), Column::new(header.column_at(*key).column_type())));
        let seen = seen.collect();
        let mut states = Vec::new();
        for aggregate in aggregates {
            let columns = aggregate.columns().into_iter().map(|name| position(header, name));
            let columns: Vec<usize> = columns.collect::<Result<_, _>>()?;
            let types: Vec<ColumnType> =
                columns.iter().map(|column| header.column_at(*column).column_type()).collect();
            aggregate.check(&types)?;
            states.push((aggregate.clone(), columns, State::new(aggregate, &types)));
        }
        let bars = bars(&states);
        Ok(Grouped { keys, ids, seen, states, bars })
    }

    /// Numbers the keys of a batch: the first that comes is 0. Makes values of the columns that aggregates read.
    pub(crate) fn number(&mut self, rows: &mut Batch<'_>, to: &mut Vec<u32>) -> Result<(), QueryError> {
        let new = self.ids.number_lanes(&rows.lanes_at(&self.keys), rows.rows(), to)?;
        for ((name, column), key) in self.seen.iter_mut().zip(&self.keys) {
            for row in &new {
                let row = *row as usize;
                if let Some(lane) = rows.lane(*key) {
                    lane.append_to(column, row..row + 1, name)?;
                }
            }
        }
        let read = self.states.iter().flat_map(|(_, columns, _)| columns);
        read.into_iter().try_for_each(|position| rows.expand(*position))
    }

    /// How many keys there are; without key columns one as soon as there is a row.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Takes the rows of a batch into their slots, of which there are `count`.
    pub(crate) fn update(&mut self, rows: &Batch<'_>, slots: &[u32], count: usize) {
        self.resize(count);
        let mut taken = Vec::new();
        for bar in &self.bars {
            if let Ok([open, high, low, close]) = self.states.get_disjoint_mut(*bar)
                && let [column] = &open.1[..]
                && let Some(column) = rows.column(*column)
                && State::update_bar([&mut open.2, &mut high.2, &mut low.2, &mut close.2], column, slots)
            {
                taken.extend(bar);
            }
        }
        for (_, (_, columns, state)) in (0..).zip(&mut self.states).filter(|(at, _)| !taken.contains(at)) {
            let columns: Vec<&Column> = columns.iter().filter_map(|at| rows.column(*at)).collect();
            state.update(&columns, slots);
        }
    }

    /// Takes pieces of a batch into a slot each, of which there are `count`.
    pub(crate) fn update_pieces(&mut self, rows: &Batch<'_>, pieces: &[(u32, Range<usize>)], count: usize) {
        self.resize(count);
        for (_, columns, state) in &mut self.states {
            let columns: Vec<&Column> = columns.iter().filter_map(|at| rows.column(*at)).collect();
            for (slot, piece) in pieces {
                state.update_some(&columns, *slot as usize, piece.clone());
            }
        }
    }

    /// Takes all rows of a batch into one slot.
    pub(crate) fn update_one(&mut self, rows: &Batch<'_>, slot: usize) {
        self.resize(slot + 1);
        for (_, columns, state) in &mut self.states {
            let columns: Vec<&Column> = columns.iter().filter_map(|at| rows.column(*at)).collect();
            state.update_one(&columns, slot, rows.rows());
        }
    }

    /// Refuses to hold more than fits.
    pub(crate) fn check(&self, budget: Budget, operator: &'static str) -> Result<(), QueryError> {
        if !budget.is_bounded() {
            return Ok(());
        }
        // Keys stand in the columns, and encoded in what numbers them.
        let keys = self.seen.iter().map(|(_, column)| column.byte_size()).fold(0, usize::saturating_add);
        let keys = keys.saturating_mul(3).saturating_add(self.len().saturating_mul(32));
        let held =
            self.states.iter().map(|(_, _, state)| state.byte_size()).fold(keys, usize::saturating_add);
        budget.check(operator, held, "group by fewer keys, in longer windows, or a shorter range")
    }

    /// Numbers the keys of rows that come behind all others and were grouped by themselves; gives the number of each.
    pub(crate) fn adopt(&mut self, later: &Grouped) -> Result<Vec<u32>, QueryError> {
        let columns: Vec<&Column> = later.seen.iter().map(|(_, column)| column).collect();
        let mut ids = Vec::new();
        let new = self.ids.number(&columns, later.len(), &mut ids);
        for ((name, column), (_, from)) in self.seen.iter_mut().zip(&later.seen) {
            for row in &new {
                crate::gather::append(column, Some(from), *row as usize..*row as usize + 1, name)?;
            }
        }
        Ok(ids)
    }

    /// Takes in what such rows came to; `slots` has the slot of each of theirs, of which there are `count`.
    pub(crate) fn merge(&mut self, later: Grouped, slots: &[u32], count: usize) {
        self.resize(count);
        for ((_, _, state), (_, _, later)) in self.states.iter_mut().zip(later.states) {
            state.merge(later, slots);
        }
    }

    /// Makes room for so many slots.
    pub(crate) fn resize(&mut self, count: usize) {
        self.states.iter_mut().for_each(|(_, _, state)| state.resize(count));
    }

    /// Lets go of what slots before `end` need to take more rows in.
    pub(crate) fn close(&mut self, end: usize) {
        self.states.iter_mut().for_each(|(_, _, state)| state.close(end));
    }

    /// The numbers of the keys in the order of the keys.
    pub(crate) fn order(&self) -> Vec<u32> {
        let columns: Vec<_> =
            self.seen.iter().map(|(_, column)| std::borrow::Cow::Borrowed(column)).collect();
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_cached_key(|id| {
            let mut key = Vec::new();
            columns.iter().for_each(|column| encode(Some(column), *id as usize, &mut key));
            key
        });
        order
    }

    /// The key columns with a row for each key by its number, and the result of each aggregate with a row for each slot.
    #[expect(clippy::type_complexity, reason = "columns with what they are called by")]
    pub(crate) fn finish(self) -> Result<(Vec<(Arc<str>, Column)>, Vec<(Aggregate, Column)>), QueryError> {
        let results = self.states.into_iter().map(|(aggregate, _, state)| Ok((aggregate, state.finish()?)));
        Ok((self.seen, results.collect::<Result<_, QueryError>>()?))
    }
}

/// The places of the states that make bars, each state in one of them at most.
fn bars(states: &[(Aggregate, Vec<usize>, State)]) -> Vec<[usize; 4]> {
    let mut free: Vec<usize> = (0..states.len()).collect();
    let mut bars = Vec::new();
    for (open, (_, columns, _)) in states.iter().enumerate() {
        let place = |choice: Choice| {
            let is_it = |at: &&usize| states[**at].1 == *columns && states[**at].2.choice() == Some(choice);
            free.iter().find(is_it).copied()
        };
        let places = [Choice::First, Choice::Max, Choice::Min, Choice::Last].map(place);
        if let [Some(first), Some(max), Some(min), Some(last)] = places
            && first == open
        {
            let bar = [first, max, min, last];
            free.retain(|at| !bar.contains(at));
            bars.push(bar);
        }
    }
    bars
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(prices: Vec<f64>) -> Columns {
        Columns::new().with("price", prices.into()).unwrap()
    }

    /// The results of aggregates over batches of rows with their slots, down to the bit.
    fn results(aggregates: &[Aggregate], batches: &[Vec<(u32, f64)>]) -> Vec<Vec<Option<u64>>> {
        let mut grouped = Grouped::new(&of(Vec::new()), &[], aggregates, None).unwrap();
        for batch in batches {
            let (slots, prices): (Vec<u32>, Vec<f64>) = batch.iter().copied().unzip();
            grouped.update(&of(prices).into(), &slots, 3);
        }
        let bits = |(_, column): (Aggregate, Column)| {
            let of_row = |row| match column.get(row) {
                underbelly_storage::Value::F64(value) => Some(value.to_bits()),
                _ => None,
            };
            (0..column.len()).map(of_row).collect()
        };
        grouped.finish().unwrap().1.into_iter().map(bits).collect()
    }

    #[test]
    fn bars_are_found_wherever_their_parts_stand() {
        let twice = Columns::new().with("x", vec![0.0].into()).unwrap().with("y", vec![0.0].into()).unwrap();
        let bars_of = |aggregates: &[Aggregate]| Grouped::new(&twice, &[], aggregates, None).unwrap().bars;
        let of_y = [Aggregate::last("y"), Aggregate::min("y"), Aggregate::max("y"), Aggregate::first("y")];
        let mixed: Vec<Aggregate> =
            of_y.iter().cloned().zip(Aggregate::ohlc("x")).flat_map(|(a, b)| [a, b]).collect();
        assert_eq!(bars_of(&mixed), [[1, 3, 5, 7], [6, 4, 2, 0]]);
        assert!(bars_of(&mixed[..7]).len() == 1 && bars_of(&mixed[..6]).is_empty());
    }

    proptest! {
        #[test]
        fn a_bar_is_what_each_of_its_parts_is_alone(
            batches in prop::collection::vec(
                prop::collection::vec(
                    (0u32..3, prop::sample::select(vec![0.0, -0.0, 1.5, -2.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN])),
                    0..6,
                ),
                0..5,
            ),
        ) {
            let bar: Vec<Aggregate> = Aggregate::ohlc("price").into_iter().collect();
            let alone: Vec<_> = bar.iter().flat_map(|part| results(std::slice::from_ref(part), &batches)).collect();
            prop_assert_eq!(results(&bar, &batches), alone);
        }
    }
}
