//! A set of small numbers, one bit each.

/// A set of small numbers. Its memory follows the largest.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub fn contains(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Adds a number; whether it is new. `bound` is above all numbers that are likely to follow.
    #[inline]
    pub fn insert(&mut self, number: usize, bound: usize) -> bool {
        match self.words.get_mut(number / 64) {
            Some(word) => {
                let before = std::mem::replace(word, *word | 1 << (number % 64));
                before != *word
            }
            None => {
                self.insert_behind(number, bound);
                true
            }
        }
    }

    #[cold]
    fn insert_behind(&mut self, number: usize, bound: usize) {
        let length = (bound / 64).max(number / 64) + 1;
        if self.words.is_empty() {
            // Zeroed memory costs nothing before it is used, however long it is.
            self.words = vec![0; length];
        } else {
            self.words.resize(length, 0);
        }
        if let Some(word) = self.words.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Removes a number; whether it was there.
    pub fn remove(&mut self, number: usize) -> bool {
        let Some(word) = self.words.get_mut(number / 64) else { return false };
        let before = std::mem::replace(word, *word & !(1 << (number % 64)));
        before != *word
    }

    /// The first number from `number` on, among the next `words_max` words; else where to go on, `None` at the end.
    pub fn next_from(&self, number: usize, words_max: usize) -> Result<usize, Option<usize>> {
        let first = number / 64;
        let last = first.saturating_add(words_max).min(self.words.len());
        for at in first..last {
            let mut word = self.words.get(at).copied().unwrap_or_default();
            if at == first {
                word &= u64::MAX << (number % 64);
            }
            if word != 0 {
                return Ok(at * 64 + word.trailing_zeros() as usize);
            }
        }
        Err((last < self.words.len()).then_some(last * 64))
    }

    /// Adds all numbers of another set.
    pub fn extend(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    pub fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_of_bits_is_a_set(numbers in prop::collection::vec(0usize..5000, 0..80), bound in 0usize..6000, words in 1usize..9) {
            let mut bits = Bits::default();
            let mut removed = Bits::default();
            for n in &numbers {
                bits.insert(*n, bound);
                prop_assert!(!bits.insert(*n, bound));
                prop_assert_eq!(removed.insert(*n, bound), removed.remove(*n));
                prop_assert!(!removed.remove(*n));
            }
            prop_assert_eq!(removed.count(), 0);
            let mut twin = Bits::default();
            twin.insert(1, 0);
            twin.extend(&bits);
            let set: BTreeSet<usize> = numbers.iter().copied().collect();
            prop_assert_eq!(bits.count(), set.len() as u64);
            let (mut found, mut at) = (BTreeSet::new(), Some(0));
            while let Some(from) = at {
                at = match bits.next_from(from, words) {
                    Ok(number) => {
                        found.insert(number);
                        Some(number + 1)
                    }
                    Err(further) => further,
                };
            }
            prop_assert_eq!(&found, &set);
            prop_assert!((0..6000).all(|n| bits.contains(n) == set.contains(&n)));
            prop_assert!((0..6000).all(|n| twin.contains(n) == (n == 1 || set.contains(&n))));
        }
    }
}
