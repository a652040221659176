//! The contents of a cell as bytes: what is hashed, stored and compared.
//!
//! Two contents are equal exactly if their bytes are. Rows are sorted by the row keys, columns stand in the
//! order of the definition, every NaN is the same NaN, `-0.0` is `0.0`, and the bytes under a null are zero.
//!
//! Layout, little-endian: magic `UBCELL1\0`, u32 columns, u32 rows, then for each column: u16 length of the
//! name, the name, u8 type tag, u8 1 if a validity bitmap follows, the bitmap (bit `i % 8` of byte `i / 8` is
//! set where row `i` is not null), then the values: a byte for a bool, 8 bytes for i64, f64 and timestamp, 4 for
//! date, and for text and bytes `rows` u32 ends followed by the bytes.

use underbelly_storage::{Column, ColumnType, Columns, Strings, Values};

use crate::error::CommitError;
use crate::graph::SlotDefinition;
use crate::limits::{COLUMNS_MAX, ROWS_MAX};

const MAGIC: &[u8; 8] = b"UBCELL1\0";

/// Brings rows into the slot's form: its columns in its order (missing value columns become nulls), rows sorted
/// by row key and unique, no null or NaN in a row key.
pub(crate) fn conform(slot: &SlotDefinition, rows: Columns) -> Result<Columns, CommitError> {
    let wrong = |what: String| CommitError::Cell { slot: slot.name.clone(), what };
    if rows.rows() > ROWS_MAX.min(u32::MAX as usize) {
        return Err(wrong(format!("{} rows are more than {ROWS_MAX}; use smaller cells", rows.rows())));
    }
    let known = || slot.row_keys.iter().chain(&slot.values);
    if let Some(stranger) = rows.names().iter().find(|name| !known().any(|(n, _)| n.as_str() == &***name)) {
        let names: Vec<&str> = known().map(|(n, _)| n.as_str()).collect();
        return Err(wrong(format!("it has no column {stranger:?}; its columns are {}", names.join(", "))));
    }
    let count = rows.rows();
    let mut given = rows;
    let mut conformed = Columns::new();
    for (i, (name, column_type)) in known().enumerate() {
        let is_key = i < slot.row_keys.len();
        let column = match given.remove(name) {
            Some(column) if column.column_type() == *column_type => column,
            Some(column) => {
                let found = column.column_type();
                let is_whole = *column_type != ColumnType::F64 || column.fits_f64();
                let widened = if is_whole { column.widened(*column_type) } else { None };
                let refused =
                    || wrong(format!("column {name:?} holds {column_type}, not {found}; convert it"));
                widened.ok_or_else(refused)?
            }
            None if is_key => return Err(wrong(format!("row key {name:?} is missing; add the column"))),
            None => Column::nulls(*column_type, count),
        };
        if is_key {
            if let Some(row) = (0..count).find(|row| column.is_null(*row)) {
                return Err(wrong(format!("row key {name:?} is null in row {row}; give it a value")));
            }
            let nan = match column.values() {
                Values::F64(values) => values.iter().position(|v| v.is_nan()),
                Values::F32(values) => values.iter().position(|v| v.is_nan()),
                _ => None,
            };
            if let Some(row) = nan {
                return Err(wrong(format!("row key {name:?} is NaN in row {row}; give it a number")));
            }
        }
        conformed.insert(name.as_str(), normal(column))?;
    }
    let order = sorted(&conformed, slot.row_keys.len());
    for pair in order.windows(2) {
        if compare(&conformed, slot.row_keys.len(), pair[0], pair[1]).is_eq() {
            let key: Vec<String> = (0..slot.row_keys.len())
                .map(|c| conformed.column_at(c).get(pair[0] as usize).to_string())
                .collect();
            return Err(wrong(match key.is_empty() {
                true => format!("it has no row keys, so a cell holds one row at most, not {count}"),
                false => format!("two rows have the key {}; keep one", key.join("/")),
            }));
        }
    }
    if order.is_sorted() {
        return Ok(conformed);
    }
    conformed.take(&order).map_err(|error| wrong(error.to_string()))
}

/// One NaN, one zero.
fn normal(column: Column) -> Column {
    let (values, validity) = column.into_parts();
    let values = match values {
        Values::F64(mut v) => {
            for x in &mut v {
                if x.is_nan() {
                    *x = f64::NAN;
                } else if *x == 0.0 {
                    *x = 0.0;
                }
            }
            Values::F64(v)
        }
        Values::F32(mut v) => {
            for x in &mut v {
                if x.is_nan() {
                    *x = f32::NAN;
                } else if *x == 0.0 {
                    *x = 0.0;
                }
            }
            Values::F32(v)
        }
        other => other,
    };
    let nulls = validity.filter(|v| v.iter().any(|valid| !valid));
    let empty = Column::new(ColumnType::Bool);
    Column::from_parts(values, nulls).unwrap_or(empty)
}

fn compare(columns: &Columns, keys: usize, a: u32, b: u32) -> std::cmp::Ordering {
    let (a, b) = (a as usize, b as usize);
    (0..keys)
        .map(|c| match columns.column_at(c).values() {
            Values::Bool(v) => v[a].cmp(&v[b]),
            Values::I64(v) | Values::Timestamp(v) => v[a].cmp(&v[b]),
            Values::F64(v) => v[a].total_cmp(&v[b]),
            Values::Date(v) | Values::I32(v) => v[a].cmp(&v[b]),
            Values::F32(v) => v[a].total_cmp(&v[b]),
            Values::Utf8(s) | Values::Bytes(s) => s.get(a).cmp(s.get(b)),
        })
        .find(|order| order.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

fn sorted(columns: &Columns, keys: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..columns.rows() as u32).collect();
    order.sort_by(|a, b| compare(columns, keys, *a, *b));
    order
}

/// The bytes of conformed rows.
pub(crate) fn encode(rows: &Columns) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.byte_size() + 64 * rows.width() + 16);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(rows.width() as u32).to_le_bytes());
    out.extend_from_slice(&(rows.rows() as u32).to_le_bytes());
    for (name, column) in rows.iter() {
        out.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.push(column.column_type().tag());
        out.push(u8::from(column.validity().is_some()));
        if let Some(validity) = column.validity() {
            out.extend(validity.chunks(8).map(|chunk| {
                chunk.iter().enumerate().fold(0u8, |byte, (bit, valid)| byte | (u8::from(*valid) << bit))
            }));
        }
        match column.values() {
            Values::Bool(v) => out.extend(v.iter().map(|x| u8::from(*x))),
            Values::I64(v) | Values::Timestamp(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
            Values::F64(v) => v.iter().for_each(|x| out.extend(x.to_bits().to_le_bytes())),
            Values::Date(v) | Values::I32(v) => v.iter().for_each(|x| out.extend(x.to_le_bytes())),
            Values::F32(v) => v.iter().for_each(|x| out.extend(x.to_bits().to_le_bytes())),
            Values::Utf8(s) | Values::Bytes(s) => {
                s.offsets().iter().skip(1).for_each(|end| out.extend(end.to_le_bytes()));
                out.extend_from_slice(s.bytes());
            }
        }
    }
    out
}

/// Reads the contents of a cell as they are stored; says what is wrong with any other bytes.
pub fn decode(bytes: &[u8]) -> Result<Columns, &'static str> {
    let mut reader = Reader { bytes };
    if reader.take(8)? != MAGIC {
        return Err("no cell contents: wrong magic");
    }
    let (width, rows) = (reader.u32()? as usize, reader.u32()? as usize);
    if width > COLUMNS_MAX || rows > ROWS_MAX {
        return Err("more columns or rows than a cell may have");
    }
    let mut columns = Columns::new();
    for _ in 0..width {
        let name_len = u16::from_le_bytes(reader.array()?) as usize;
        let name = std::str::from_utf8(reader.take(name_len)?).map_err(|_| "a name is not UTF-8")?;
        let [tag, has_validity] = reader.array()?;
        let column_type = ColumnType::from_tag(tag).ok_or("unknown column type")?;
        let validity = match has_validity {
            0 => None,
            1 => {
                let bitmap = reader.take(rows.div_ceil(8))?;
                Some((0..rows).map(|i| bitmap[i / 8] >> (i % 8) & 1 == 1).collect::<Vec<bool>>())
            }
            _ => return Err("validity flag is neither 0 nor 1"),
        };
        let values = match column_type {
            ColumnType::Bool => Values::Bool(
                reader
                    .take(rows)?
                    .iter()
                    .map(|b| match b {
                        0 => Ok(false),
                        1 => Ok(true),
                        _ => Err("a bool is neither 0 nor 1"),
                    })
                    .collect::<Result<_, _>>()?,
            ),
            ColumnType::I64 => Values::I64(reader.words(rows)?.map(i64::from_le_bytes).collect()),
            ColumnType::Timestamp => Values::Timestamp(reader.words(rows)?.map(i64::from_le_bytes).collect()),
            ColumnType::F64 => {
                Values::F64(reader.words(rows)?.map(|w| f64::from_bits(u64::from_le_bytes(w))).collect())
            }
            ColumnType::Date => Values::Date(reader.words(rows)?.map(i32::from_le_bytes).collect()),
            ColumnType::I32 => Values::I32(reader.words(rows)?.map(i32::from_le_bytes).collect()),
            ColumnType::F32 => {
                Values::F32(reader.words(rows)?.map(|w| f32::from_bits(u32::from_le_bytes(w))).collect())
            }
            ColumnType::Utf8 | ColumnType::Bytes => {
                let mut offsets = Vec::with_capacity(rows + 1);
                offsets.push(0);
                offsets.extend(reader.words(rows)?.map(u32::from_le_bytes));
                let end = offsets.last().copied().unwrap_or(0) as usize;
                let text = reader.take(end)?.to_vec();
                let strings = Strings::from_parts(offsets, text).ok_or("text offsets are not in order")?;
                if column_type == ColumnType::Utf8 { Values::Utf8(strings) } else { Values::Bytes(strings) }
            }
        };
        let column = Column::from_parts(values, validity).ok_or("text is not UTF-8")?;
        columns.insert(name, column).map_err(|_| "two columns of one name")?;
    }
    if reader.bytes.is_empty() { Ok(columns) } else { Err("bytes behind the last column") }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or("cut short")?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or("cut short")?;
        self.bytes = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn words<const N: usize>(
        &mut self,
        rows: usize,
    ) -> Result<impl Iterator<Item = [u8; N]> + 'a, &'static str> {
        let bytes = self.take(rows.checked_mul(N).ok_or("cut short")?)?;
        Ok(bytes.as_chunks::<N>().0.iter().copied())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use underbelly_storage::Value;

    fn slot() -> SlotDefinition {
        SlotDefinition::new("Quotes")
            .row_key("strike", ColumnType::F64)
            .row_key("right", ColumnType::Utf8)
            .value("bid", ColumnType::F64)
            .value("size", ColumnType::I64)
    }

    fn rows(rows: &[(f64, &str, Value, i64)]) -> Columns {
        let types = [
            ("size", ColumnType::I64),
            ("right", ColumnType::Utf8),
            ("strike", ColumnType::F64),
            ("bid", ColumnType::F64),
        ];
        let mut columns = Columns::with_types(types).unwrap();
        for (strike, right, bid, size) in rows {
            columns.push_row(&[(*size).into(), (*right).into(), (*strike).into(), bid.clone()]).unwrap();
        }
        columns
    }

    #[test]
    fn order_of_rows_and_columns_does_not_matter() {
        let a =
            rows(&[(2.0, "P", 1.0.into(), 3), (1.0, "C", Value::Null, 4), (-0.0, "C", f64::NAN.into(), 5)]);
        let b =
            rows(&[(0.0, "C", (-f64::NAN).into(), 5), (1.0, "C", Value::Null, 4), (2.0, "P", 1.0.into(), 3)]);
        let (a, b) = (conform(&slot(), a).unwrap(), conform(&slot(), b).unwrap());
        assert_eq!(encode(&a), encode(&b));
        assert_eq!(encode(&decode(&encode(&a)).unwrap()), encode(&a));
        assert_eq!(a.names().iter().map(|n| &**n).collect::<Vec<_>>(), ["strike", "right", "bid", "size"]);
    }

    /// A change of these bytes changes the identity of every stored cell.
    #[test]
    fn the_bytes_of_a_cell_are_fixed() {
        let one = conform(&slot(), rows(&[(1.5, "C", Value::Null, 4)])).unwrap();
        let hex: String = encode(&one).iter().map(|byte| format!("{byte:02x}")).collect();
        let columns = [
            "0600737472696b650300000000000000f83f",
            "05007269676874040001000000",
            "43",
            "030062696403010000000000000000 00",
            "040073697a6502000400000000000000",
        ];
        assert_eq!(hex, format!("554243454c4c31000400000001000000{}", columns.concat().replace(' ', "")));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let refused = |columns: Columns| conform(&slot(), columns).unwrap_err().to_string();
        assert!(refused(rows(&[(1.0, "C", 1.0.into(), 1), (1.0, "C", 2.0.into(), 1)])).contains("1/C"));
        assert!(refused(rows(&[(f64::NAN, "C", 1.0.into(), 1)])).contains("NaN"));
        let mut missing = rows(&[(1.0, "C", 1.0.into(), 1)]);
        missing.remove("strike");
        assert!(refused(missing).contains("\"strike\" is missing"));
        let extra = rows(&[]).with("ask", Column::new(ColumnType::F64)).unwrap();
        assert!(refused(extra).contains("no column \"ask\""));
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_refused_or_read(cut in 0usize..300, flip in 0usize..300, bit in 0u8..8) {
            let whole = encode(&conform(&slot(), rows(&[
                (1.0, "C", Value::Null, 4), (2.0, "P", 1.0.into(), 3),
            ])).unwrap());
            prop_assert!(decode(&whole[..cut % whole.len()]).is_err());
            let mut flipped = whole.clone();
            let at = flip % whole.len();
            flipped[at] ^= 1 << bit;
            if let Ok(read) = decode(&flipped) {
                prop_assert!(read.rows() <= 2);
            }
        }
    }
}
