//! Cells or bundles by date and key. These stand with the cells and bundles alone; a directory has their numbers.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::ids::SlotDate;
use super::key::Key;

/// Numbers by the date and key of what they stand for.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    numbers: HashTable<u32>,
    hashes: DefaultHashBuilder,
}

impl Directory {
    /// The number of this date and key. `address`: the date and key of a number that is in the directory.
    pub fn get<'k>(
        &self,
        date: SlotDate,
        key: &Key,
        address: impl Fn(u32) -> (SlotDate, &'k Key),
    ) -> Option<u32> {
        let is_it = |number: &u32| address(*number) == (date, key);
        self.numbers.find(self.hashes.hash_one((date, key)), is_it).copied()
    }

    /// Adds a number of which the date and key are told by `address` too. False where there is one of the same.
    pub fn insert<'k>(&mut self, number: u32, address: impl Fn(u32) -> (SlotDate, &'k Key)) -> bool {
        let own = address(number);
        let hash = self.hashes.hash_one(own);
        let is_it = |number: &u32| address(*number) == own;
        match self.numbers.entry(hash, is_it, |number| self.hashes.hash_one(address(*number))) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(number);
                true
            }
        }
    }

    /// Makes room for so many more, so that it does not grow step by step.
    pub fn reserve<'k>(&mut self, more: usize, address: impl Fn(u32) -> (SlotDate, &'k Key)) {
        self.numbers.reserve(more, |number| self.hashes.hash_one(address(*number)));
    }

    /// All numbers, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.numbers.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn clear(&mut self) {
        self.numbers = HashTable::new();
    }
}
