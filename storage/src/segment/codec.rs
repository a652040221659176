//! Blocks: how the values of one column of one row group become bytes.
//!
//! A block is a validity bitmap, where some rows are null and some are not, filled to a multiple of eight bytes;
//! then the values in one encoding. Under a null stands whatever is cheapest; readers put the type's zero there.

use std::ops::Range;

use super::alp::Float;
use super::cluster::Layout;
use super::lz4::{self, Lz4};
use super::symbols::{self, Symbols};
use super::zone::Zone;
use super::{bits, numbers, text};
use crate::columns::{Column, Strings, Values};
use crate::cursor::Cursor;
use crate::error::Damage;
use crate::limits::GROUP_ROWS_MAX;
use crate::value::ColumnType;

/// How the values of a block are written. The number is the byte on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Encoding {
    /// All rows are null; no bytes.
    Null = 0,
    /// Text whole: where each begins, then the bytes.
    Plain = 1,
    /// One bit a row.
    Bitmap = 2,
    /// One value for all rows.
    Constant = 3,
    /// Numbers in vectors of up to 1,024, each in a form of its own.
    Vectors = 4,
    /// Packed codes of a sorted dictionary of texts.
    Dictionary = 5,
    /// Texts as codes of byte strings that come often in them.
    Symbols = 6,
    /// Texts in vectors of up to 1,024, each an LZ4 block.
    Lz4 = 7,
}

impl Encoding {
    /// All encodings, in the order of their tags.
    pub const ALL: [Encoding; 8] = [
        Encoding::Null,
        Encoding::Plain,
        Encoding::Bitmap,
        Encoding::Constant,
        Encoding::Vectors,
        Encoding::Dictionary,
        Encoding::Symbols,
        Encoding::Lz4,
    ];

    /// The byte that stands for this encoding on disk.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The encoding with this tag.
    pub fn from_tag(tag: u8) -> Option<Encoding> {
        Encoding::ALL.into_iter().find(|encoding| encoding.tag() == tag)
    }
}

/// What a reader knows of a block before it reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) column_type: ColumnType,
    pub(super) encoding: Encoding,
    pub(super) rows: usize,
    pub(super) nulls: usize,
}

/// A block, encoded.
pub(super) struct Encoded {
    pub(super) shape: Shape,
    pub(super) zone: Option<Zone>,
    pub(super) bytes: Vec<u8>,
}

/// Encodes a column in the cheapest way.
pub(super) fn encode(column: &Column, layout: Layout<'_>) -> Encoded {
    let (rows, nulls) = (column.len(), column.null_count());
    let mut bytes = Vec::new();
    if let Some(validity) = column.validity().filter(|_| nulls > 0 && nulls < rows) {
        bits::pack_flags(validity, &mut bytes);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let encoding = if nulls == rows { Encoding::Null } else { encode_values(column, layout, &mut bytes) };
    let shape = Shape { column_type: column.column_type(), encoding, rows, nulls };
    Encoded { shape, zone: Zone::of(column), bytes }
}

fn encode_values(column: &Column, layout: Layout<'_>, out: &mut Vec<u8>) -> Encoding {
    match column.values() {
        Values::Bool(v) => {
            let v = filled(column, v);
            match constant(&v) {
                Some(value) => {
                    out.push(u8::from(value));
                    Encoding::Constant
                }
                None => {
                    bits::pack_flags(&v, out);
                    Encoding::Bitmap
                }
            }
        }
        Values::I64(v) | Values::Timestamp(v) => encode_integers(&filled(column, v), layout, 8, out),
        Values::Date(v) => {
            let days: Vec<i64> = filled(column, v).iter().map(|day| i64::from(*day)).collect();
            encode_integers(&days, layout, 4, out)
        }
        Values::I32(v) => {
            let wide: Vec<i64> = filled(column, v).iter().map(|value| i64::from(*value)).collect();
            encode_integers(&wide, layout, 4, out)
        }
        Values::F64(v) => encode_floats(&filled(column, v), layout, out),
        Values::F32(v) => encode_floats(&filled(column, v), layout, out),
        Values::Utf8(s) | Values::Bytes(s) => encode_strings(column, s, out),
    }
}

fn encode_integers(values: &[i64], layout: Layout<'_>, raw_bytes: usize, out: &mut Vec<u8>) -> Encoding {
    if let Some(value) = constant(values) {
        out.extend_from_slice(&value.to_le_bytes());
        return Encoding::Constant;
    }
    numbers::encode_integers(values, layout, raw_bytes, out);
    Encoding::Vectors
}

fn encode_floats<T: Float>(values: &[T], layout: Layout<'_>, out: &mut Vec<u8>) -> Encoding {
    let first = values.first().map_or(0, |value| value.bits());
    if values.iter().all(|value| value.bits() == first) {
        out.extend_from_slice(&first.to_le_bytes());
        return Encoding::Constant;
    }
    numbers::encode_floats(values, layout, out);
    Encoding::Vectors
}

fn encode_strings(column: &Column, strings: &Strings, out: &mut Vec<u8>) -> Encoding {
    let no_nulls = column.null_count() == 0;
    let first = strings.iter().next().unwrap_or_default();
    if no_nulls && strings.iter().all(|string| string == first) {
        out.extend_from_slice(first);
        return Encoding::Constant;
    }
    let plain = (strings.len() + 1) * 4 + strings.bytes().len();
    if let Some(bytes) = text::encode_dictionary(strings, plain) {
        out.extend_from_slice(&bytes);
        return Encoding::Dictionary;
    }
    // What is read more slowly saves a quarter at least: LZ4 reads a whole vector for one row.
    let symbols = symbols::encode(strings, plain / 4 * 3);
    let shorter = symbols.as_ref().map_or(plain, Vec::len);
    let (bytes, encoding) = match (lz4::encode(strings, shorter / 4 * 3), symbols) {
        (Some(bytes), _) => (bytes, Encoding::Lz4),
        (None, Some(bytes)) => (bytes, Encoding::Symbols),
        (None, None) => (text::encode_plain(strings), Encoding::Plain),
    };
    out.extend_from_slice(&bytes);
    encoding
}

/// The value of all rows, where they have one.
fn constant<T: PartialEq + Copy>(values: &[T]) -> Option<T> {
    let first = values.first().copied()?;
    values.iter().all(|value| *value == first).then_some(first)
}

/// The values with that of a neighbour under each null, which keeps frames narrow.
fn filled<'a, T: Copy>(column: &Column, values: &'a [T]) -> std::borrow::Cow<'a, [T]> {
    let Some(validity) = column.validity() else { return values.into() };
    let first = validity.iter().position(|valid| *valid).and_then(|row| values.get(row));
    let Some(mut last) = first.copied() else { return values.into() };
    let mut fill = |(value, valid): (&T, &bool)| {
        if *valid {
            last = *value;
        }
        last
    };
    values.iter().zip(validity).map(&mut fill).collect::<Vec<T>>().into()
}

/// Reads a block. Allocates no more than its rows, or for text the limit of a block, call for.
pub(super) fn decode(bytes: &[u8], shape: Shape, layout: Layout<'_>) -> Result<Column, Damage> {
    decode_rows(bytes, shape, layout, 0..shape.rows)
}

/// The same of some rows, which lie in the block: of numbers and codes those vectors alone are read that hold some. What can be
/// told of a whole block alone, such as the number of its nulls, is not compared.
pub(super) fn decode_rows(
    bytes: &[u8],
    shape: Shape,
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Column, Damage> {
    let Shape { column_type, encoding, rows, nulls } = shape;
    if rows > GROUP_ROWS_MAX || nulls > rows || layout.rows() != rows {
        return Err(Damage("a block has too many rows or nulls"));
    }
    if range.start > range.end || range.end > rows {
        return Err(NO_ROWS);
    }
    let mut cursor = Cursor::new(bytes);
    if encoding == Encoding::Null {
        cursor.end()?;
        return if nulls == rows { Ok(Column::nulls(column_type, range.len())) } else { Err(WRONG_NULLS) };
    }
    let validity = if nulls > 0 {
        let validity = unpack_flags(bitmap(&mut cursor, rows)?, rows, &range)?;
        let is_whole = range.len() == rows;
        if nulls == rows || (is_whole && validity.iter().filter(|valid| !**valid).count() != nulls) {
            return Err(WRONG_NULLS);
        }
        Some(validity)
    } else {
        None
    };
    let values = decode_values(cursor.rest(), shape, layout, range)?;
    Column::from_parts(values, validity).ok_or(Damage("text is not UTF-8"))
}

/// What is known of the values of some rows before they are read: a range that holds all of them, which the frames of their vectors
/// tell. `None` where these do not, or are damaged.
pub(super) fn bounds(bytes: &[u8], shape: Shape, layout: Layout<'_>, range: Range<usize>) -> Option<Zone> {
    let Shape { column_type, encoding, rows, nulls } = shape;
    let is_sound = range.start < range.end && range.end <= rows && layout.rows() == rows;
    if encoding != Encoding::Vectors || !is_sound {
        return None;
    }
    let validity = if nulls > 0 { rows.div_ceil(8).next_multiple_of(8) } else { 0 };
    let bytes = bytes.get(validity..)?;
    let floats = |(min, max)| Zone::F64 { min, max };
    match column_type {
        ColumnType::I64 | ColumnType::I32 | ColumnType::Timestamp | ColumnType::Date => {
            numbers::integer_bounds(bytes, layout, range).map(|(min, max)| Zone::I64 { min, max })
        }
        ColumnType::F64 => numbers::float_bounds::<f64>(bytes, layout, range).map(floats),
        ColumnType::F32 => numbers::float_bounds::<f32>(bytes, layout, range).map(floats),
        ColumnType::Bool | ColumnType::Utf8 | ColumnType::Bytes => None,
    }
}

/// The same of single rows, which rise.
pub(super) fn decode_at(
    bytes: &[u8],
    shape: Shape,
    layout: Layout<'_>,
    at: &[u32],
) -> Result<Column, Damage> {
    let Shape { column_type, encoding, rows, nulls } = shape;
    let (Some(first), Some(last)) = (at.first(), at.last()) else {
        return Ok(Column::new(column_type));
    };
    if *last as usize >= rows || !at.is_sorted() || rows > GROUP_ROWS_MAX || layout.rows() != rows {
        return Err(NO_ROWS);
    }
    if encoding == Encoding::Vectors && nulls == 0 {
        let values = match column_type {
            ColumnType::I64 => Some(Values::I64(numbers::integers_at(bytes, 8, layout, at)?)),
            ColumnType::Timestamp => Some(Values::Timestamp(numbers::integers_at(bytes, 8, layout, at)?)),
            ColumnType::F64 => Some(Values::F64(numbers::floats_at(bytes, layout, at)?)),
            ColumnType::F32 => Some(Values::F32(numbers::floats_at(bytes, layout, at)?)),
            _ => None,
        };
        if let Some(column) = values.and_then(|values| Column::from_parts(values, None)) {
            return Ok(column);
        }
    }
    if matches!(encoding, Encoding::Symbols | Encoding::Lz4) {
        return texts_at(bytes, shape, at);
    }
    let span = decode_rows(bytes, shape, layout, *first as usize..*last as usize + 1)?;
    let picked: Vec<u32> = at.iter().map(|row| row - first).collect();
    span.take(&picked).ok_or(Damage("text is longer than a block may hold"))
}

/// Compressed texts of single rows, which rise.
fn texts_at(bytes: &[u8], shape: Shape, at: &[u32]) -> Result<Column, Damage> {
    let Shape { column_type, encoding, rows, nulls } = shape;
    let mut cursor = Cursor::new(bytes);
    let valid = if nulls > 0 { Some(bitmap(&mut cursor, rows)?) } else { None };
    let texts = match encoding {
        Encoding::Symbols => Symbols::of(cursor.rest(), rows)?.decode_at(at)?,
        Encoding::Lz4 => Lz4::of(cursor.rest(), rows)?.decode_at(at)?,
        _ => return Err(WRONG_ENCODING),
    };
    let values = match column_type {
        ColumnType::Utf8 => Values::Utf8(texts),
        ColumnType::Bytes => Values::Bytes(texts),
        _ => return Err(WRONG_ENCODING),
    };
    let validity = valid.map(|packed| at.iter().map(|row| is_set(packed, *row as usize)).collect());
    Column::from_parts(values, validity).ok_or(Damage("text is not UTF-8"))
}

/// The distinct texts of a block that has codes of them, or one text for all rows, and no null; `None` for any other.
pub(super) fn dictionary(bytes: &[u8], shape: Shape) -> Result<Option<Column>, Damage> {
    let texts = match shape {
        Shape { nulls: 1.., .. } => return Ok(None),
        Shape { encoding: Encoding::Dictionary, .. } => text::Coded::of(bytes, shape.rows)?.distinct()?,
        Shape { encoding: Encoding::Constant, .. } => {
            text::check_repeated(bytes, shape.rows)?;
            text::repeated(bytes, 1)?
        }
        _ => return Ok(None),
    };
    let values = match shape.column_type {
        ColumnType::Utf8 => Values::Utf8(texts),
        ColumnType::Bytes => Values::Bytes(texts),
        _ => return Ok(None),
    };
    Column::from_parts(values, None).ok_or(Damage("text is not UTF-8")).map(Some)
}

/// For each of some rows, the place of its text among those of [`dictionary`].
pub(super) fn codes(bytes: &[u8], shape: Shape, range: Range<usize>) -> Result<Vec<u32>, Damage> {
    if range.start > range.end || range.end > shape.rows {
        return Err(NO_ROWS);
    }
    match shape.encoding {
        Encoding::Dictionary if shape.nulls == 0 => text::Coded::of(bytes, shape.rows)?.codes(range),
        Encoding::Constant if shape.nulls == 0 => {
            text::check_repeated(bytes, shape.rows)?;
            Ok(vec![0; range.len()])
        }
        _ => Err(WRONG_ENCODING),
    }
}

/// The bits that say which rows have a value.
fn bitmap<'b>(cursor: &mut Cursor<'b>, rows: usize) -> Result<&'b [u8], Damage> {
    let packed = cursor.take(rows.div_ceil(8))?;
    cursor.zeros(rows.div_ceil(8).next_multiple_of(8) - rows.div_ceil(8))?;
    Ok(packed)
}

/// Flags of some rows, of which the bits of all are given.
fn unpack_flags(packed: &[u8], rows: usize, range: &Range<usize>) -> Result<Vec<bool>, Damage> {
    if range.len() == rows {
        return bits::unpack_flags(packed, rows);
    }
    if packed.len() != rows.div_ceil(8) {
        return Err(Damage("a bitmap has a wrong length"));
    }
    Ok(range.clone().map(|row| is_set(packed, row)).collect())
}

fn is_set(packed: &[u8], row: usize) -> bool {
    packed.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1)
}

const WRONG_NULLS: Damage = Damage("the number of nulls is wrong");
const WRONG_ENCODING: Damage = Damage("the encoding is not one for this type");
const NO_ROWS: Damage = Damage("there are no such rows in the block");

fn decode_values(
    bytes: &[u8],
    shape: Shape,
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Values, Damage> {
    let Shape { column_type, encoding, rows, .. } = shape;
    let integers = |raw_bytes| decode_integers(bytes, encoding, raw_bytes, layout, range.clone());
    Ok(match column_type {
        ColumnType::Bool => Values::Bool(match encoding {
            Encoding::Bitmap => unpack_flags(bytes, rows, &range)?,
            Encoding::Constant => match bytes {
                [value @ (0 | 1)] => vec![*value == 1; range.len()],
                _ => return Err(Damage("a constant has a wrong length or value")),
            },
            _ => return Err(WRONG_ENCODING),
        }),
        ColumnType::I64 => Values::I64(integers(8)?),
        ColumnType::Timestamp => Values::Timestamp(integers(8)?),
        ColumnType::Date => {
            let days: Result<Vec<i32>, _> = integers(4)?.into_iter().map(i32::try_from).collect();
            Values::Date(days.map_err(|_| Damage("a date is out of range"))?)
        }
        ColumnType::I32 => {
            let narrow: Result<Vec<i32>, _> = integers(4)?.into_iter().map(i32::try_from).collect();
            Values::I32(narrow.map_err(|_| Damage("an i32 is out of range"))?)
        }
        ColumnType::F64 => Values::F64(decode_floats(bytes, encoding, layout, range)?),
        ColumnType::F32 => Values::F32(decode_floats(bytes, encoding, layout, range)?),
        ColumnType::Utf8 => Values::Utf8(decode_strings(bytes, encoding, rows, range)?),
        ColumnType::Bytes => Values::Bytes(decode_strings(bytes, encoding, rows, range)?),
    })
}

fn decode_integers(
    bytes: &[u8],
    encoding: Encoding,
    raw_bytes: usize,
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Vec<i64>, Damage> {
    match encoding {
        Encoding::Constant => Ok(vec![single(bytes)?.cast_signed(); range.len()]),
        Encoding::Vectors => numbers::decode_integers(bytes, raw_bytes, layout, range),
        _ => Err(WRONG_ENCODING),
    }
}

fn decode_floats<T: Float>(
    bytes: &[u8],
    encoding: Encoding,
    layout: Layout<'_>,
    range: Range<usize>,
) -> Result<Vec<T>, Damage> {
    match encoding {
        Encoding::Constant => Ok(vec![T::from_bits(single(bytes)?.cast_signed())?; range.len()]),
        Encoding::Vectors => numbers::decode_floats(bytes, layout, range),
        _ => Err(WRONG_ENCODING),
    }
}

fn decode_strings(
    bytes: &[u8],
    encoding: Encoding,
    rows: usize,
    range: Range<usize>,
) -> Result<Strings, Damage> {
    match encoding {
        Encoding::Plain => text::decode_plain(&mut Cursor::new(bytes), rows, range),
        Encoding::Constant => {
            text::check_repeated(bytes, rows)?;
            text::repeated(bytes, range.len())
        }
        Encoding::Dictionary => text::Coded::of(bytes, rows)?.decode(range),
        Encoding::Symbols => Symbols::of(bytes, rows)?.decode(range),
        Encoding::Lz4 => Lz4::of(bytes, rows)?.decode(range),
        _ => Err(WRONG_ENCODING),
    }
}

/// One number of eight bytes, and nothing else.
fn single(bytes: &[u8]) -> Result<u64, Damage> {
    let number = bytes.try_into().map_err(|_| Damage("a constant has a wrong length or value"))?;
    Ok(u64::from_le_bytes(number))
}

/// Whether two columns hold the same bits, row by row.
pub(super) fn same(a: &Column, b: &Column) -> bool {
    fn same_bits<T: Float>(a: &[T], b: &[T]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bits() == b.bits())
    }
    let values = match (a.values(), b.values()) {
        (Values::F64(a), Values::F64(b)) => same_bits(a, b),
        (Values::F32(a), Values::F32(b)) => same_bits(a, b),
        (a, b) => a == b,
    };
    // A validity vector without a null says the same as none.
    let nulls = |column: &Column| column.null_count();
    values && nulls(a) == nulls(b) && (nulls(a) == 0 || a.validity() == b.validity())
}
