//! Which integer fields hold what an `f64` cannot: such a field never becomes `f64`, since that would round what is
//! stored.

use std::sync::Arc;

use underbelly_storage::segment::{Segment, Zone};
use underbelly_storage::{Column, ColumnType};

/// Up to here every integer is an `f64`.
const EXACT: std::ops::RangeInclusive<i64> = -(1 << 53)..=1 << 53;

/// Names of the columns that hold such integers.
pub(crate) fn in_columns<'a>(columns: impl Iterator<Item = (&'a Arc<str>, &'a Column)>) -> Vec<String> {
    let inexact = columns.filter(|(_, column)| !column.fits_f64());
    inexact.map(|(name, _)| name.to_string()).collect()
}

/// Names of the columns of a segment that hold such integers, from its zones alone.
pub(crate) fn in_segment(segment: &Segment) -> Vec<String> {
    let integers = segment.schema().iter().filter(|(_, column_type)| *column_type == ColumnType::I64);
    let is_inexact = |name: &str| {
        (0..segment.groups()).filter_map(|group| segment.block(group, name)?.zone).any(|zone| match zone {
            Zone::I64 { min, max } => !EXACT.contains(&min) || !EXACT.contains(&max),
            _ => false,
        })
    };
    integers.filter(|(name, _)| is_inexact(name)).map(|(name, _)| name.to_string()).collect()
}
