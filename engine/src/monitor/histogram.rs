//! How often values fell where.

use std::collections::BTreeMap;

/// Parts into which a histogram cuts each doubling.
const PARTS: f64 = 8.0;

/// How often values fell where, in steps of an eighth of a doubling. Two are merged by adding them up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Counts of values by their place: that of 2^(n/8) to 2^((n+1)/8) is `n`, and of the negative ones apart.
    above: BTreeMap<i32, u64>,
    below: BTreeMap<i32, u64>,
    zeros: u64,
    /// All of them.
    count: u64,
    sum: f64,
}

impl Histogram {
    /// One without values.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Takes a value; NaN is left out.
    pub fn add(&mut self, value: f64) {
        let place = |value: f64| (value.log2() * PARTS).floor().clamp(-1e6, 1e6) as i32;
        if value > 0.0 {
            *self.above.entry(place(value)).or_default() += 1;
        } else if value < 0.0 {
            *self.below.entry(place(-value)).or_default() += 1;
        } else if value == 0.0 {
            self.zeros += 1;
        } else {
            return;
        }
        self.count = self.count.saturating_add(1);
        self.sum += value;
    }

    /// Takes the values of another. Counts end at the greatest number.
    pub fn merge(&mut self, other: &Histogram) {
        let add = |count: &mut u64, more: u64| *count = count.saturating_add(more);
        other.above.iter().for_each(|(place, count)| add(self.above.entry(*place).or_default(), *count));
        other.below.iter().for_each(|(place, count)| add(self.below.entry(*place).or_default(), *count));
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; NaN where there are none.
    pub fn mean(&self) -> f64 {
        self.sum / self.count() as f64
    }

    /// A value that a share of all is at most, within an eighth of a doubling; NaN where there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let middle = |place: &i32| ((f64::from(*place) + 0.5) / PARTS).exp2();
        let below = self.below.iter().rev().map(|(place, count)| (-middle(place), *count));
        let above = self.above.iter().map(|(place, count)| (middle(place), *count));
        let mut seen = 0;
        for (value, count) in below.chain([(0.0, self.zeros)]).chain(above) {
            seen = u64::saturating_add(seen, count);
            if count > 0 && seen >= wanted {
                return value;
            }
        }
        f64::NAN
    }

    /// The length of [`Histogram::to_bytes`].
    pub(super) fn byte_size(&self) -> usize {
        24 + 12 * (self.below.len() + self.above.len())
    }

    /// As bytes: f64 sum, u64 zeros, then for each sign, the negative first, u32 how many places and each as i32 and u64 count.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.sum.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.zeros.to_le_bytes());
        for places in [&self.below, &self.above] {
            bytes.extend_from_slice(&(places.len() as u32).to_le_bytes());
            for (place, count) in places {
                bytes.extend_from_slice(&place.to_le_bytes());
                bytes.extend_from_slice(&count.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Histogram::to_bytes`] wrote; `None` for other bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<Histogram> {
        let (sum, bytes) = bytes.split_first_chunk::<8>()?;
        let (zeros, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut read = || {
            let (count, bytes) = rest.split_first_chunk::<4>()?;
            rest = bytes;
            let mut places = BTreeMap::new();
            for _ in 0..u32::from_le_bytes(*count) {
                let (place, bytes) = rest.split_first_chunk::<4>()?;
                let (count, bytes) = bytes.split_first_chunk::<8>()?;
                rest = bytes;
                places.insert(i32::from_le_bytes(*place), u64::from_le_bytes(*count));
            }
            Some(places)
        };
        let (below, above) = (read()?, read()?);
        let (zeros, sum) = (u64::from_le_bytes(*zeros), f64::from_le_bytes(*sum));
        let places = BTreeMap::values(&above).chain(below.values());
        let count = places.fold(zeros, |sum, count| sum.saturating_add(*count));
        rest.is_empty().then_some(Histogram { above, below, zeros, count, sum })
    }
}
