//! Images laid over each other.

use super::{Image, Key, Record};
use crate::error::StorageError;

/// A place in one image.
struct Layer<'i> {
    image: &'i Image,
    next_block: usize,
    records: std::vec::IntoIter<Record<'i>>,
    head: Option<Record<'i>>,
}

impl<'i> Layer<'i> {
    fn advance(&mut self) -> Result<(), StorageError> {
        self.head = self.records.next();
        while self.head.is_none() && self.next_block < self.image.blocks() {
            self.records = self.image.block(self.next_block)?.into_iter();
            self.next_block += 1;
            self.head = self.records.next();
        }
        Ok(())
    }
}

/// The records of several images in the order of their keys; of those with one key the newest image's. Holds one
/// block of each image.
pub struct Merge<'i> {
    /// Newest first.
    layers: Vec<Layer<'i>>,
}

impl<'i> Merge<'i> {
    /// Lays these images over each other, the oldest first.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn new(
        images: impl IntoIterator<Item = &'i Image, IntoIter: DoubleEndedIterator>,
    ) -> Result<Merge<'i>, StorageError> {
        let layer = |image| {
            let mut layer = Layer { image, next_block: 0, records: Vec::new().into_iter(), head: None };
            layer.advance().map(|()| layer)
        };
        Ok(Merge { layers: images.into_iter().rev().map(layer).collect::<Result<_, _>>()? })
    }

    /// The key of the next record.
    pub fn peek(&self) -> Option<Key> {
        self.layers.iter().filter_map(|layer| Some(layer.head?.key)).min()
    }

    /// The next record, a removal too.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn pop(&mut self) -> Result<Option<Record<'i>>, StorageError> {
        let Some(key) = self.peek() else { return Ok(None) };
        let mut found = None;
        for layer in &mut self.layers {
            if layer.head.is_some_and(|head| head.key == key) {
                found = found.or(layer.head);
                layer.advance()?;
            }
        }
        Ok(found)
    }

    /// The next records, at most `count`; empty at the end. Removals are left out.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn take(&mut self, count: usize) -> Result<Vec<(Key, &'i [u8])>, StorageError> {
        let mut records = Vec::new();
        while records.len() < count {
            let Some(record) = self.pop()? else { break };
            records.extend(record.value.map(|value| (record.key, value)));
        }
        Ok(records)
    }
}
