//! Rows sorted into slots, and what aggregates make of them.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use underbelly_storage::{Column, ColumnError, ColumnType, Columns};

use crate::QueryError;
use crate::aggregate::{Aggregate, State};
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
        Ok(Grouped { keys, ids, seen, states })
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
        for (_, columns, state) in &mut self.states {
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
