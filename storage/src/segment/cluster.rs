//! Rows of a group by key: where the rows of each key lie, and how the order of time comes back.
//!
//! The rows of one key lie together, in the order of time: a *cluster*. What a reader of one key wants is then a short stretch
//! of each column, and what stands beside each other is alike, so that it takes fewer bytes. The number of each row's cluster,
//! in the order of time, gives that order back exactly, ties too: the next row of a cluster is the one behind its last.
//! After the sorted and parted tables of kdb+, within one row group.

use std::borrow::Cow;
use std::hash::Hash;
use std::ops::Range;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::alp::Float;
use crate::columns::{Column, Values};
use crate::error::Damage;
use crate::limits::VECTOR_ROWS;

/// Rows that a key has at least, on the average of a group, where these lie by key.
pub(super) const CLUSTER_ROWS: usize = 16;

/// Rows that a key has at least, on the average of a group, where each has vectors of its own.
const VECTORS_ROWS: usize = 256;

/// Which rows the vectors of a block hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    rows: usize,
    /// The rows before the end of each vector; `None` where all have 1,024 rows but for the last.
    ends: Option<&'a [u32]>,
}

impl<'a> Layout<'a> {
    /// Vectors of 1,024 rows, the last of what is left.
    pub(super) fn even(rows: usize) -> Layout<'static> {
        Layout { rows, ends: None }
    }

    /// Rows of the block.
    pub(super) fn rows(self) -> usize {
        self.rows
    }

    /// Number of vectors.
    pub(super) fn count(self) -> usize {
        self.ends.map_or(self.rows.div_ceil(VECTOR_ROWS), <[u32]>::len)
    }

    /// The vector that holds a row, and their number where there is no such row.
    pub(super) fn vector_of(self, row: usize) -> usize {
        match self.ends {
            Some(ends) => ends.partition_point(|end| *end as usize <= row),
            None => row / VECTOR_ROWS,
        }
    }

    /// The rows of a vector; none where there is no such vector.
    pub(super) fn rows_of(self, vector: usize) -> Range<usize> {
        match self.ends {
            Some(ends) => {
                let end = |vector: usize| ends.get(vector).map_or(self.rows, |end| *end as usize);
                vector.checked_sub(1).map_or(0, end)..end(vector)
            }
            None => {
                let start = vector.saturating_mul(VECTOR_ROWS).min(self.rows);
                start..self.rows.min(start + VECTOR_ROWS)
            }
        }
    }

    /// The values of each vector.
    pub(super) fn vectors<T>(self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        (0..self.count()).filter_map(move |vector| values.get(self.rows_of(vector)))
    }
}

/// Where the clusters of a group lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clusters {
    /// The rows before the end of each.
    ends: Vec<u32>,
    /// The rows before the end of each vector of numbers, where each cluster has some of its own.
    vector_ends: Option<Vec<u32>>,
}

impl Clusters {
    /// Clusters of these numbers of rows, which are those of a group of `rows`.
    pub(super) fn of(sizes: &[i32], rows: usize) -> Result<Clusters, Damage> {
        let mut ends = Vec::with_capacity(sizes.len());
        let mut end = 0u32;
        for size in sizes {
            let next =
                u32::try_from(*size).ok().filter(|size| *size > 0).and_then(|size| end.checked_add(size));
            end = next.ok_or(Damage("a cluster has no rows, or too many"))?;
            ends.push(end);
        }
        if end as usize != rows || rows == 0 {
            return Err(Damage("the rows of the clusters do not add up to the group"));
        }
        let vector_ends = (ends.len() * VECTORS_ROWS <= rows).then(|| {
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let of_cluster = |(start, end): (u32, &u32)| {
                let end = *end;
                let cuts = (start..end).step_by(VECTOR_ROWS).skip(1);
                cuts.chain(std::iter::once(end))
            };
            starts.zip(&ends).flat_map(of_cluster).collect()
        });
        Ok(Clusters { ends, vector_ends })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// Rows of all.
    pub(super) fn rows(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// The rows of a cluster, as they are stored; none where there is no such cluster.
    pub(super) fn rows_of(&self, cluster: usize) -> Range<usize> {
        let end = |cluster: usize| self.ends.get(cluster).map_or(self.rows(), |end| *end as usize);
        cluster.checked_sub(1).map_or(0, end)..end(cluster)
    }

    /// The cluster of a row, as it is stored; their number where there is no such row.
    pub(super) fn cluster_of(&self, row: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= row)
    }

    /// The clusters of some rows, as they are stored.
    pub(super) fn codes(&self, rows: Range<usize>) -> impl Iterator<Item = u32> + '_ {
        let clusters = self.cluster_of(rows.start)..self.count();
        clusters.flat_map(move |cluster| {
            let of_cluster = self.rows_of(cluster);
            let some = of_cluster.start.max(rows.start)..of_cluster.end.min(rows.end);
            some.map(move |_| cluster as u32)
        })
    }

    /// The vectors of a block with all rows.
    pub(super) fn layout(&self) -> Layout<'_> {
        Layout { rows: self.rows(), ends: self.vector_ends.as_deref() }
    }

    /// For each row in the order of time, where it is stored. `codes` are the clusters of the rows in that order.
    pub(super) fn order(&self, codes: &[u32]) -> Result<Vec<u32>, Damage> {
        const WRONG: Damage = Damage("the order of the rows is not that of the clusters");
        let mut next: Vec<u32> = std::iter::once(0).chain(self.ends.iter().copied()).collect();
        next.truncate(self.count());
        let mut order = Vec::with_capacity(codes.len());
        for code in codes {
            let place = next.get_mut(*code as usize).ok_or(WRONG)?;
            order.push(*place);
            *place += 1;
        }
        // Each came as often as it has rows.
        if next == self.ends { Ok(order) } else { Err(WRONG) }
    }
}

/// Rows of a group in the order of time, and how they will be stored.
pub(super) struct Clustering {
    pub(super) clusters: Clusters,
    /// Rows of each cluster.
    pub(super) sizes: Vec<i32>,
    /// The cluster of each row.
    pub(super) codes: Vec<u32>,
    /// The first row of each cluster, counted from the start of all rows.
    pub(super) firsts: Vec<u32>,
    /// The rows in the order in which they are stored, counted so too.
    pub(super) stored: Vec<u32>,
}

impl Clustering {
    /// By the keys of some rows; `None` where they are too many for that or there are none.
    pub(super) fn of(keys: &[&Column], range: &Range<usize>) -> Option<Clustering> {
        let rows = range.len();
        let count_max = rows / CLUSTER_ROWS;
        let (first, others) = keys.split_first()?;
        let mut numbered = numbered(first, range, count_max)?;
        for key in others {
            let of_key = self::numbered(key, range, count_max)?;
            let both = numbered.into_iter().zip(of_key);
            numbered = number(both, count_max)?;
        }
        // There are 2^32 rows at most.
        let start = range.start as u32;
        let mut firsts: Vec<u32> = Vec::new();
        let mut sizes: Vec<i32> = Vec::new();
        for (row, code) in (start..).zip(&numbered) {
            match sizes.get_mut(*code as usize) {
                Some(size) => *size += 1,
                None => {
                    firsts.push(row);
                    sizes.push(1);
                }
            }
        }
        let clusters = Clusters::of(&sizes, rows).ok()?;
        let order = clusters.order(&numbered).ok()?;
        let mut stored = vec![0; rows];
        for (row, place) in (start..).zip(order) {
            if let Some(stored) = stored.get_mut(place as usize) {
                *stored = row;
            }
        }
        Some(Clustering { clusters, sizes, codes: numbered, firsts, stored })
    }
}

/// Numbers of distinct items in the order in which they come; `None` where there are more than `count_max`.
fn number<T: Hash + Eq + Copy>(items: impl Iterator<Item = T>, count_max: usize) -> Option<Vec<u32>> {
    let mut numbers: HashMap<T, u32> = HashMap::new();
    let mut numbered = Vec::with_capacity(items.size_hint().0);
    let mut before: Option<(T, u32)> = None;
    for item in items {
        if let Some((_, number)) = before.filter(|(before, _)| *before == item) {
            numbered.push(number);
            continue;
        }
        let next = numbers.len() as u32;
        let number = match numbers.entry(item) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) if next as usize >= count_max => return None,
            Entry::Vacant(new) => *new.insert(next),
        };
        before = Some((item, number));
        numbered.push(number);
    }
    Some(numbered)
}

/// The same of values of which some may be null.
fn number_values<T: Hash + Eq + Copy>(
    values: impl Iterator<Item = T>,
    validity: Option<&[bool]>,
    count_max: usize,
) -> Option<Vec<u32>> {
    match validity {
        None => number(values, count_max),
        // What stands under a null has no meaning.
        Some(validity) => {
            number(values.zip(validity).map(|(value, valid)| valid.then_some(value)), count_max)
        }
    }
}

/// The same of some rows of a column: by the bits of a value, as it shall come back, and by whether it is null.
fn numbered(column: &Column, range: &Range<usize>, count_max: usize) -> Option<Vec<u32>> {
    let (rows, max) = (range.clone(), count_max);
    let validity = column.validity().and_then(|validity| validity.get(range.clone()));
    match column.values() {
        Values::Bool(v) => number_values(v.get(rows)?.iter(), validity, max),
        Values::I64(v) | Values::Timestamp(v) => number_values(v.get(rows)?.iter(), validity, max),
        Values::Date(v) | Values::I32(v) => number_values(v.get(rows)?.iter(), validity, max),
        Values::F64(v) => number_values(v.get(rows)?.iter().map(|value| value.bits()), validity, max),
        Values::F32(v) => number_values(v.get(rows)?.iter().map(|value| value.bits()), validity, max),
        Values::Utf8(strings) | Values::Bytes(strings) => {
            number_values(rows.map(|row| strings.get(row)), validity, max)
        }
    }
}

/// Whether no two clusters have the same key; `keys` are the key columns with a row for each cluster.
pub(super) fn are_distinct(keys: &[Column], clusters: usize) -> bool {
    let all = 0..clusters;
    let numbered = keys.iter().map(|key| self::numbered(key, &all, usize::MAX));
    let both = numbered.reduce(|a, b| number(a?.into_iter().zip(b?), usize::MAX));
    let count = both.flatten().and_then(|numbers| numbers.into_iter().max());
    count.is_some_and(|greatest| greatest as usize + 1 == clusters)
}

/// The distinct texts of a key by the clusters, and which of them each cluster has.
pub(super) fn distinct(texts: &Column) -> Option<(Column, Vec<u32>)> {
    let numbers = numbered(texts, &(0..texts.len()), usize::MAX)?;
    let mut firsts: Vec<u32> = Vec::new();
    for (row, number) in (0..).zip(&numbers) {
        if *number as usize == firsts.len() {
            firsts.push(row);
        }
    }
    let distinct =
        if firsts.len() == texts.len() { Cow::Borrowed(texts) } else { Cow::Owned(texts.take(&firsts)?) };
    Some((distinct.into_owned(), numbers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_told_apart_by_all_columns_and_nulls_by_nothing_under_them() {
        let texts: Column = ["a", "b", "a"].iter().collect();
        let numbers = |numbers: [i64; 3]| Column::from(numbers.to_vec());
        assert!(are_distinct(&[texts.clone(), numbers([1, 1, 2])], 3));
        assert!(!are_distinct(&[texts.clone(), numbers([1, 1, 1])], 3));
        assert!(!are_distinct(&[texts], 3) && !are_distinct(&[], 3));
        // Of forty rows two keys, and another number under each null.
        let validity: Vec<bool> = (0..40).map(|row| row % 2 == 0).collect();
        let values = (0..40).map(|row| if row % 2 == 0 { 7 } else { 100 + row }).collect();
        let column = Column::from_parts(Values::I64(values), Some(validity)).unwrap();
        let clustering = Clustering::of(&[&column], &(0..40)).unwrap();
        assert_eq!((clustering.sizes, clustering.firsts), (vec![20, 20], vec![0, 1]));
    }
}
