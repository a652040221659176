//! One value in atomic words: two slots, of which a count tells the one that holds.
//!
//! One thread at a time writes; any number read, here and in other processes, and none of them waits. The writer fills the
//! slot that does not hold and then counts up. A reader copies the slot that holds and looks at the count again: where it
//! is the same, nobody wrote into that slot meanwhile. It begins anew where a whole value was completed meanwhile, so who
//! writes a thousand times a second is hardly ever met. A writer that dies in between has not counted, so the slot that
//! holds is whole.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use underbelly_storage::Timestamp;

use super::value::{VariableType, VariableValue};

/// The count of values; the lowest bit is the slot that holds the last. 0 where there was none.
const COUNT: usize = 1;
/// Where the slots begin.
const SLOTS: usize = 2;
/// Words of a slot before the value: seq and time.
const SLOT_HEAD: usize = 2;
/// The seq of a slot without a value: the variable is not there, and in place of the time stands the transaction since which it is not.
const ABSENT: u64 = u64::MAX;

/// Words of values of a type. Bytes have a word for their length, and room for `room` bytes.
pub(crate) fn value_words(variable_type: VariableType, room: usize) -> usize {
    match variable_type {
        VariableType::Bool | VariableType::I64 | VariableType::F64 => 1,
        VariableType::Array(length) => length,
        VariableType::Bytes => 1 + room.div_ceil(8),
    }
}

/// Words of a cell for such values. One of a single word takes a cache line.
pub(crate) fn cell_words(value_words: usize) -> usize {
    SLOTS + 2 * (SLOT_HEAD + value_words)
}

/// A cell within words that others hold.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'w> {
    words: &'w [AtomicU64],
    value_words: usize,
}

impl<'w> Cell<'w> {
    /// The cell at the begin of these words; `None` where they are too few.
    #[inline]
    pub(crate) fn new(words: &'w [AtomicU64], value_words: usize) -> Option<Cell<'w>> {
        let words = words.get(..cell_words(value_words))?;
        Some(Cell { words, value_words })
    }

    #[inline]
    fn slot(&self, count: u64) -> &'w [AtomicU64] {
        let length = SLOT_HEAD + self.value_words;
        let from = SLOTS + (count & 1) as usize * length;
        self.words.get(from..from + length).unwrap_or_default()
    }

    /// How many values were completed.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.words.get(COUNT).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Reads the slot that holds with `read`, until nobody wrote into it meanwhile. `None` where there was no value yet.
    #[inline]
    fn read_slot<T>(&self, mut read: impl FnMut(&[AtomicU64]) -> T) -> Option<(u64, T)> {
        let counter = self.words.get(COUNT)?;
        loop {
            let count = counter.load(Ordering::Acquire);
            if count == 0 {
                return None;
            }
            let found = read(self.slot(count));
            // What was read was read before the count is looked at again.
            fence(Ordering::Acquire);
            if counter.load(Ordering::Relaxed) == count {
                return Some((count, found));
            }
            std::hint::spin_loop();
        }
    }

    /// The value where it is one word.
    #[inline]
    pub(crate) fn word(&self) -> Option<u64> {
        let (_, (seq, word)) = self.read_slot(|slot| match slot {
            [seq, _, word, ..] => (seq.load(Ordering::Relaxed), word.load(Ordering::Relaxed)),
            _ => (ABSENT, 0),
        })?;
        (seq != ABSENT).then_some(word)
    }

    /// Copies the value's words; answers the count, and seq and time where there is a value.
    pub(crate) fn read(&self, to: &mut [u64]) -> (u64, Option<(u64, Timestamp)>) {
        let read = self.read_slot(|slot| {
            let [seq, time, value @ ..] = slot else { return (ABSENT, 0) };
            for (to, from) in to.iter_mut().zip(value) {
                *to = from.load(Ordering::Relaxed);
            }
            (seq.load(Ordering::Relaxed), time.load(Ordering::Relaxed))
        });
        match read {
            None => (0, None),
            Some((count, (ABSENT, _))) => (count, None),
            Some((count, (seq, time))) => (count, Some((seq, Timestamp(time as i64)))),
        }
    }

    /// The transaction that changed it last; `None` where nobody did.
    pub(crate) fn changed(&self) -> Option<u64> {
        let (_, (seq, time)) = self.read_slot(|slot| match slot {
            [seq, time, ..] => (seq.load(Ordering::Relaxed), time.load(Ordering::Relaxed)),
            _ => (ABSENT, 0),
        })?;
        Some(if seq == ABSENT { time } else { seq })
    }

    /// Makes these words the value, or nothing where they are `None`. One thread at a time may.
    pub(crate) fn write(&self, value: Option<&[u64]>, seq: u64, time: Timestamp) {
        let Some(counter) = self.words.get(COUNT) else { return };
        let next = counter.load(Ordering::Relaxed).wrapping_add(1).max(1);
        let [to_seq, to_time, to_value @ ..] = self.slot(next) else { return };
        // Who sees a word of the new value sees the count that was told before, and knows that this slot holds no more.
        fence(Ordering::Release);
        let (first, second) = if value.is_some() { (seq, time.0 as u64) } else { (ABSENT, seq) };
        to_seq.store(first, Ordering::Relaxed);
        to_time.store(second, Ordering::Relaxed);
        for (to, from) in to_value.iter().zip(value.unwrap_or_default()) {
            to.store(*from, Ordering::Relaxed);
        }
        counter.store(next, Ordering::Release);
    }
}

/// A value as words; `None` where it is of another type, or longer than there is room.
pub(crate) fn to_words(
    value: &VariableValue,
    variable_type: VariableType,
    value_words: usize,
) -> Option<Vec<u64>> {
    if value.variable_type() != variable_type {
        return None;
    }
    let words = match value {
        VariableValue::Bool(value) => vec![u64::from(*value)],
        VariableValue::I64(value) => vec![*value as u64],
        VariableValue::F64(value) => vec![value.to_bits()],
        VariableValue::Array(values) => values.iter().map(|value| value.to_bits()).collect(),
        VariableValue::Bytes(bytes) => {
            let mut words = vec![bytes.len() as u64];
            words.extend(bytes.chunks(8).map(|part| {
                let mut word = [0; 8];
                word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
                u64::from_le_bytes(word)
            }));
            words
        }
    };
    (words.len() <= value_words).then_some(words)
}

/// The value that words are.
pub(crate) fn of_words(words: &[u64], variable_type: VariableType) -> Option<VariableValue> {
    let first = words.first().copied();
    Some(match variable_type {
        VariableType::Bool => VariableValue::Bool(first? != 0),
        VariableType::I64 => VariableValue::I64(first? as i64),
        VariableType::F64 => VariableValue::F64(f64::from_bits(first?)),
        VariableType::Array(length) => {
            VariableValue::Array(words.get(..length)?.iter().map(|word| f64::from_bits(*word)).collect())
        }
        VariableType::Bytes => {
            let (length, rest) = words.split_first()?;
            let bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_le_bytes()).collect();
            VariableValue::Bytes(bytes.get(..usize::try_from(*length).ok()?)?.into())
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_cell_of_one_word_is_a_cache_line() {
        assert_eq!(cell_words(value_words(VariableType::F64, 0)) * 8, 64);
    }

    #[test]
    fn values_come_back_and_go() {
        let values: [VariableValue; 6] = [
            true.into(),
            (-5i64).into(),
            f64::from_bits(0x7ff8_0000_0000_0001).into(),
            vec![1.5, -0.0].into(),
            Vec::<f64>::new().into(),
            vec![1u8; 13].into(),
        ];
        for value in values {
            let variable_type = value.variable_type();
            let length = value_words(variable_type, 16);
            let held = words(cell_words(length));
            let cell = Cell::new(&held, length).unwrap();
            let mut read = vec![0; length];
            assert_eq!(cell.read(&mut read), (0, None));
            for seq in 1..4 {
                let written = to_words(&value, variable_type, length).unwrap();
                cell.write(Some(&written), seq, Timestamp(-1));
                assert_eq!(cell.read(&mut read).1, Some((seq, Timestamp(-1))));
                let again = of_words(&read, variable_type).unwrap();
                assert_eq!(to_words(&again, variable_type, length).unwrap(), written);
            }
            cell.write(None, 9, Timestamp(0));
            assert_eq!((cell.read(&mut read), cell.word(), cell.changed()), ((4, None), None, Some(9)));
        }
        assert!(to_words(&vec![1u8; 17].into(), VariableType::Bytes, 3).is_none());
        assert!(to_words(&1i64.into(), VariableType::F64, 1).is_none());
        assert!(of_words(&[99, 0], VariableType::Bytes).is_none(), "a length that lies");
    }

    /// Readers beside a writer see whole values, and never an older one after a newer.
    #[test]
    fn readers_see_whole_values_in_order_beside_a_writer_without_pause() {
        const LENGTH: usize = 40;
        /// Reads of each reader that are waited for, and no longer than this.
        const READS: u64 = 1_000;
        const LONG: std::time::Duration = std::time::Duration::from_secs(10);
        let held = words(cell_words(LENGTH));
        let over = AtomicBool::new(false);
        let reads = [AtomicU64::new(0), AtomicU64::new(0)];
        std::thread::scope(|scope| {
            for reads in &reads {
                let (held, over) = (&held, &over);
                scope.spawn(move || {
                    let cell = Cell::new(held, LENGTH).unwrap();
                    let (mut read, mut last) = ([0; LENGTH], 0);
                    while !over.load(Ordering::Relaxed) {
                        if let (_, Some((seq, _))) = cell.read(&mut read) {
                            assert!(read.iter().all(|word| *word == seq), "{seq}: {read:?}");
                            assert!(seq >= last);
                            last = seq;
                            reads.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let cell = Cell::new(&held, LENGTH).unwrap();
            let is_behind = |reads: &AtomicU64| reads.load(Ordering::Relaxed) < READS;
            let began = std::time::Instant::now();
            for seq in 1.. {
                cell.write(Some(&[seq; LENGTH]), seq, Timestamp(0));
                if seq >= 200_000 && (!reads.iter().any(is_behind) || began.elapsed() > LONG) {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(reads.iter().all(|reads| reads.load(Ordering::Relaxed) > 0), "{reads:?}");
    }

    /// A writer that stops between any two words leaves the value before.
    #[test]
    fn a_writer_that_died_leaves_the_value_before() {
        for stored in 0..4 {
            let held = words(cell_words(2));
            let cell = Cell::new(&held, 2).unwrap();
            cell.write(Some(&[1, 1]), 1, Timestamp(0));
            cell.write(Some(&[2, 2]), 2, Timestamp(0));
            // The next value goes into the first slot; some of its words are there, the count is not.
            for word in cell.slot(3).iter().take(stored) {
                word.store(3, Ordering::Relaxed);
            }
            let mut read = [0; 2];
            assert_eq!((cell.read(&mut read).1, read), (Some((2, Timestamp(0))), [2, 2]));
        }
    }
}
