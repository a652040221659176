//! Rows of several pieces put together by their places.

use underbelly_storage::{Column, ColumnType, Strings, Values};

use crate::QueryError;

/// The place of a row: the number of a piece and the row there, or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) part: u32,
    pub(crate) row: u32,
}

impl Spot {
    /// No row.
    pub(crate) const NOWHERE: Spot = Spot { part: u32::MAX, row: u32::MAX };

    /// Whether it is the place of no row.
    pub(crate) fn is_nowhere(self) -> bool {
        self == Spot::NOWHERE
    }

    fn of<T: Copy + Default>(self, parts: &[&[T]]) -> T {
        parts
            .get(self.part as usize)
            .and_then(|part| part.get(self.row as usize))
            .copied()
            .unwrap_or_default()
    }
}

/// The values at `spots`, null where that is nowhere. The parts have the type `column_type`.
pub(crate) fn pick(
    parts: &[&Column],
    spots: &[Spot],
    column_type: ColumnType,
    name: &str,
) -> Result<Column, QueryError> {
    macro_rules! picked {
        ($variant:ident) => {{
            let slices = parts.iter().map(|part| match part.values() {
                Values::$variant(values) => &values[..],
                _ => &[],
            });
            let slices: Vec<_> = slices.collect();
            Values::$variant(spots.iter().map(|spot| spot.of(&slices)).collect())
        }};
    }
    let too_large = || QueryError::TooLarge { column: name.to_string() };
    let values = match column_type {
        ColumnType::Bool => picked!(Bool),
        ColumnType::I64 => picked!(I64),
        ColumnType::F64 => picked!(F64),
        ColumnType::Timestamp => picked!(Timestamp),
        ColumnType::Date => picked!(Date),
        ColumnType::I32 => picked!(I32),
        ColumnType::F32 => picked!(F32),
        ColumnType::Utf8 => Values::Utf8(picked_strings(parts, spots).ok_or_else(too_large)?),
        ColumnType::Bytes => Values::Bytes(picked_strings(parts, spots).ok_or_else(too_large)?),
    };
    let validity: Vec<Option<&[bool]>> = parts.iter().map(|part| part.validity()).collect();
    let has_nulls = validity.iter().any(Option::is_some) || spots.iter().any(|spot| spot.is_nowhere());
    let is_valid = |spot: &Spot| match validity.get(spot.part as usize) {
        Some(Some(validity)) => validity.get(spot.row as usize) == Some(&true),
        Some(None) => true,
        None => false,
    };
    let validity = has_nulls.then(|| spots.iter().map(is_valid).collect());
    Column::from_parts(values, validity).ok_or_else(too_large)
}

/// The strings at `spots`; `None` where they would pass 4 GiB.
fn picked_strings(parts: &[&Column], spots: &[Spot]) -> Option<Strings> {
    let strings = parts.iter().map(|part| match part.values() {
        Values::Utf8(strings) | Values::Bytes(strings) => Some(strings),
        _ => None,
    });
    let strings: Vec<Option<&Strings>> = strings.collect();
    let text = |spot: &Spot| match strings.get(spot.part as usize) {
        Some(Some(strings)) => strings.get(spot.row as usize),
        _ => b"",
    };
    let bytes: usize = spots.iter().map(|spot| text(spot).len()).sum();
    u32::try_from(bytes).ok()?;
    let (mut offsets, mut all) = (Vec::with_capacity(spots.len() + 1), Vec::with_capacity(bytes));
    offsets.push(0);
    for spot in spots {
        all.extend_from_slice(text(spot));
        offsets.push(all.len() as u32);
    }
    Strings::from_parts(offsets, all)
}
