//! Rows of a group however they are stored: all of them, in the order of time or as they lie, or those of one key.

use std::ops::Range;
use std::sync::Arc;

use super::cluster::{Clusters, Layout, distinct};
use super::codec::{self, Shape};
use super::zone::Zone;
use crate::columns::{Column, Strings, Values};
use crate::error::Damage;
use crate::limits::BLOCK_BYTES_MAX;

/// Rows that are read one by one rather than with all others.
const FEW: usize = 64;

const NO_ROWS: Damage = Damage("there are no such rows in the group");
const TOO_LONG: Damage = Damage("text is longer than a block may hold");

/// Rows of a group that a reader wants, in the order of time unless he has no use for that. Made once for a group, and then
/// asked for each column.
#[derive(Clone, Debug)]
pub struct Part {
    group: usize,
    rows: usize,
    stored: Stored,
}

/// Where the rows are stored.
#[derive(Clone, Debug)]
enum Stored {
    /// One after the other: the group is in the order of time.
    InTime,
    /// One after the other: all that there are of a key.
    One { clusters: Arc<Clusters>, cluster: u32 },
    /// One after the other: all that there are, key by key.
    ByKey { clusters: Arc<Clusters> },
    /// Apart: for each row its cluster, and its place.
    Apart { clusters: Arc<Clusters>, codes: Vec<u32>, places: Vec<u32> },
}

/// A block that is read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) shape: Shape,
    /// Whether it is one of a key.
    pub(super) is_key: bool,
}

impl Part {
    /// All rows of a group in the order of time.
    pub(super) fn in_time(group: usize, rows: usize) -> Part {
        Part { group, rows, stored: Stored::InTime }
    }

    /// The rows of a cluster, which is one of these.
    pub(super) fn one(group: usize, clusters: Arc<Clusters>, cluster: usize) -> Part {
        let rows = clusters.rows_of(cluster).len();
        Part { group, rows, stored: Stored::One { clusters, cluster: cluster as u32 } }
    }

    /// All rows of a group that lie by key, as they do.
    pub(super) fn by_key(group: usize, clusters: Arc<Clusters>) -> Part {
        Part { group, rows: clusters.rows(), stored: Stored::ByKey { clusters } }
    }

    /// All rows of a group that lie by key, in the order of time; `codes` are the clusters of the rows in the order of time.
    pub(super) fn apart(group: usize, clusters: Arc<Clusters>, codes: Vec<u32>) -> Result<Part, Damage> {
        let places = clusters.order(&codes)?;
        Ok(Part { group, rows: places.len(), stored: Stored::Apart { clusters, codes, places } })
    }

    /// The number of the group.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the rows are stored one after the other, so that some of them are read without the others.
    pub fn is_end_to_end(&self) -> bool {
        !matches!(self.stored, Stored::Apart { .. })
    }

    /// Whether the rows are those of one key.
    pub fn is_of_one_key(&self) -> bool {
        matches!(self.stored, Stored::One { .. })
    }

    /// Whether these are all rows of the group.
    pub(super) fn is_whole(&self) -> bool {
        match &self.stored {
            Stored::One { clusters, .. } => clusters.count() == 1,
            Stored::InTime | Stored::ByKey { .. } | Stored::Apart { .. } => true,
        }
    }

    /// Some rows of a column.
    pub(super) fn column(&self, block: Bytes<'_>, rows: Range<usize>) -> Result<Column, Damage> {
        let Bytes { bytes, shape, is_key } = block;
        self.check(&rows)?;
        match &self.stored {
            Stored::InTime => codec::decode_rows(bytes, shape, Layout::even(shape.rows), rows),
            Stored::One { cluster, .. } if is_key => {
                of_keys(&block.keys()?, (0..rows.len()).map(|_| *cluster))
            }
            Stored::One { clusters, cluster } => {
                let start = clusters.rows_of(*cluster as usize).start;
                codec::decode_rows(bytes, shape, clusters.layout(), start + rows.start..start + rows.end)
            }
            Stored::ByKey { clusters } if is_key => of_keys(&block.keys()?, clusters.codes(rows)),
            Stored::ByKey { clusters } => codec::decode_rows(bytes, shape, clusters.layout(), rows),
            Stored::Apart { codes, .. } if is_key => {
                of_keys(&block.keys()?, codes.get(rows).unwrap_or_default().iter().copied())
            }
            Stored::Apart { clusters, places, .. } => {
                let places = places.get(rows).unwrap_or_default();
                if places.len() <= FEW {
                    return at_places(block, clusters, places);
                }
                let all = codec::decode(bytes, shape, clusters.layout())?;
                all.take(places).ok_or(TOO_LONG)
            }
        }
    }

    /// A range that holds all values of some rows of a column, where that is known before they are read.
    pub(super) fn bounds(&self, block: Bytes<'_>, rows: Range<usize>) -> Option<Zone> {
        let Bytes { bytes, shape, is_key } = block;
        self.check(&rows).ok()?;
        match &self.stored {
            Stored::InTime => codec::bounds(bytes, shape, Layout::even(shape.rows), rows),
            _ if is_key => None,
            Stored::One { clusters, cluster } => {
                let start = clusters.rows_of(*cluster as usize).start;
                codec::bounds(bytes, shape, clusters.layout(), start + rows.start..start + rows.end)
            }
            Stored::ByKey { clusters } => codec::bounds(bytes, shape, clusters.layout(), rows),
            Stored::Apart { .. } => None,
        }
    }

    /// Single rows of a column, which rise.
    pub(super) fn column_at(&self, block: Bytes<'_>, rows: &[u32]) -> Result<Column, Damage> {
        let Bytes { bytes, shape, is_key } = block;
        if let Some(last) = rows.last() {
            self.check(&(*last as usize..*last as usize + 1))?;
        }
        if !rows.is_sorted() {
            return Err(NO_ROWS);
        }
        match &self.stored {
            Stored::InTime => codec::decode_at(bytes, shape, Layout::even(shape.rows), rows),
            Stored::One { cluster, .. } if is_key => of_keys(&block.keys()?, rows.iter().map(|_| *cluster)),
            Stored::One { clusters, cluster } => {
                let start = clusters.rows_of(*cluster as usize).start as u32;
                let rows: Vec<u32> = rows.iter().map(|row| start + row).collect();
                codec::decode_at(bytes, shape, clusters.layout(), &rows)
            }
            Stored::ByKey { clusters } if is_key => {
                of_keys(&block.keys()?, rows.iter().map(|row| clusters.cluster_of(*row as usize) as u32))
            }
            Stored::ByKey { clusters } => codec::decode_at(bytes, shape, clusters.layout(), rows),
            Stored::Apart { codes, .. } if is_key => {
                let code = |row: &u32| codes.get(*row as usize).copied();
                of_keys(&block.keys()?, rows.iter().filter_map(code))
            }
            Stored::Apart { clusters, places, .. } => {
                let place = |row: &u32| places.get(*row as usize).copied();
                at_places(block, clusters, &rows.iter().filter_map(place).collect::<Vec<_>>())
            }
        }
    }

    /// The distinct texts of a column, where it is written as codes of them or is a key, and has no null.
    pub(super) fn dictionary(&self, block: Bytes<'_>) -> Result<Option<Column>, Damage> {
        if !block.is_key || matches!(self.stored, Stored::InTime) {
            return codec::dictionary(block.bytes, block.shape);
        }
        let keys = block.keys()?;
        if keys.null_count() > 0 || !matches!(keys.values(), Values::Utf8(_) | Values::Bytes(_)) {
            return Ok(None);
        }
        distinct(&keys).ok_or(TOO_LONG).map(|(distinct, _)| Some(distinct))
    }

    /// For some rows of a column that has a dictionary, the places of their texts in it.
    pub(super) fn codes(&self, block: Bytes<'_>, rows: Range<usize>) -> Result<Vec<u32>, Damage> {
        let Bytes { bytes, shape, is_key } = block;
        self.check(&rows)?;
        let of_keys = || {
            let keys = block.keys()?;
            distinct(&keys).ok_or(TOO_LONG).map(|(_, numbers)| numbers)
        };
        match &self.stored {
            Stored::InTime => codec::codes(bytes, shape, rows),
            Stored::One { cluster, .. } if is_key => {
                let number = of_keys()?.get(*cluster as usize).copied().ok_or(NO_ROWS)?;
                Ok(vec![number; rows.len()])
            }
            Stored::One { clusters, cluster } => {
                let start = clusters.rows_of(*cluster as usize).start;
                codec::codes(bytes, shape, start + rows.start..start + rows.end)
            }
            Stored::ByKey { clusters } if is_key => {
                let numbers = of_keys()?;
                clusters.codes(rows).map(|code| numbers.get(code as usize).copied().ok_or(NO_ROWS)).collect()
            }
            Stored::ByKey { .. } => codec::codes(bytes, shape, rows),
            Stored::Apart { codes, .. } if is_key => {
                let numbers = of_keys()?;
                let codes = codes.get(rows).unwrap_or_default().iter();
                codes.map(|code| numbers.get(*code as usize).copied().ok_or(NO_ROWS)).collect()
            }
            Stored::Apart { places, .. } => {
                let all = codec::codes(bytes, shape, 0..shape.rows)?;
                let places = places.get(rows).unwrap_or_default().iter();
                places.map(|place| all.get(*place as usize).copied().ok_or(NO_ROWS)).collect()
            }
        }
    }

    fn check(&self, rows: &Range<usize>) -> Result<(), Damage> {
        if rows.start <= rows.end && rows.end <= self.rows { Ok(()) } else { Err(NO_ROWS) }
    }
}

impl Bytes<'_> {
    /// The key of each cluster.
    pub(super) fn keys(self) -> Result<Column, Damage> {
        codec::decode(self.bytes, self.shape, Layout::even(self.shape.rows))
    }
}

/// Values at places, which are few or in any order.
fn at_places(block: Bytes<'_>, clusters: &Clusters, places: &[u32]) -> Result<Column, Damage> {
    let mut rising = places.to_vec();
    rising.sort_unstable();
    let column = codec::decode_at(block.bytes, block.shape, clusters.layout(), &rising)?;
    // Where each stands among the rising ones; there are no two the same.
    let order: Vec<u32> = places.iter().map(|place| rising.partition_point(|p| p < place) as u32).collect();
    column.take(&order).ok_or(TOO_LONG)
}

/// The keys of some rows by their clusters. Texts take no more than a block may hold.
fn of_keys(keys: &Column, clusters: impl Iterator<Item = u32>) -> Result<Column, Damage> {
    let clusters: Vec<u32> = clusters.collect();
    if clusters.iter().any(|cluster| *cluster as usize >= keys.len()) {
        return Err(NO_ROWS);
    }
    let text = |strings: &Strings| strings.take(&clusters, BLOCK_BYTES_MAX as u32).ok_or(TOO_LONG);
    let values = match keys.values() {
        Values::Utf8(strings) => Values::Utf8(text(strings)?),
        Values::Bytes(strings) => Values::Bytes(text(strings)?),
        _ => return keys.take(&clusters).ok_or(TOO_LONG),
    };
    let is_valid = |validity: &[bool]| {
        let of_rows = clusters.iter().map(|cluster| validity.get(*cluster as usize) == Some(&true));
        of_rows.collect::<Vec<bool>>()
    };
    Column::from_parts(values, keys.validity().map(is_valid)).ok_or(Damage("text is not UTF-8"))
}
