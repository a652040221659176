//! A transaction that only appends rows, without an archive: little-endian and unaligned, one pass to write.
//!
//! Behind the record's prefix stands a `u16` with the number of appends, then for each: the series' name (`u8` length,
//! bytes), `u32` rows, `u16` columns, the timestamps (`i64` a row), and for each column: `u8` length of its name, the
//! name, `u8` type tag, `u8` flags (bit 0: a key, bit 1: a byte a row follows that is 0 where the row is null), the
//! values: a byte for bool; 8 bytes for i64, f64 and timestamp; 4 for date, i32 and f32; for text and bytes a `u32` end a row, then
//! the bytes. The last column ends with the record.

use underbelly_storage::{Column, ColumnType, Strings, Values};

use super::v1::{Append, ColumnValues, NamedColumn, Record, Rows};
use super::{PREFIX_BYTES, ROWS, prefix};
use crate::operations::{self, Operations};

const KEY: u8 = 1;
const NULLS: u8 = 2;

/// Bytes of a name and of the counts beside it, where nobody counted.
const NAME_BYTES: usize = 24;

/// The payload: the prefix, then the appends. `None` where the transaction does more than append rows that are here, or
/// a count or name does not fit, so that it needs an archive.
pub(crate) fn encode(operations: &Operations) -> Option<Vec<u8>> {
    let Operations {
        objects,
        deletes,
        appends,
        deleted_models,
        models,
        marks,
        removed,
        collects,
        variables,
        event,
        rules,
        inline_bytes,
        types: _,
        stored: _,
        gates: _,
        rests_on: _,
    } = operations;
    let has_marks = !marks.is_empty() || !removed.is_empty() || *collects;
    let has_models = !models.is_empty() || !deleted_models.is_empty() || has_marks;
    let is_more = !objects.is_empty()
        || has_models
        || !variables.is_empty()
        || !deletes.is_empty()
        || event.is_some()
        || !rules.is_empty();
    if appends.is_empty() || is_more {
        return None;
    }
    let names: usize = appends.iter().map(|append| 2 + append.columns().count()).sum();
    let mut payload = Vec::with_capacity(PREFIX_BYTES + inline_bytes + NAME_BYTES * names);
    prefix(&mut payload, ROWS);
    payload.extend_from_slice(&u16::try_from(appends.len()).ok()?.to_le_bytes());
    for append in appends {
        match &append.rows {
            operations::Rows::Few(few) => {
                head(&mut payload, &append.series, &few.timestamps, few.columns.len())?;
                for (i, (name, values)) in few.columns.iter().enumerate() {
                    column(&mut payload, name, values, i < few.keys)?;
                }
            }
            operations::Rows::Inline { run, keys } => {
                head(&mut payload, &append.series, run.timestamps(), run.columns().width())?;
                for (i, (name, values)) in run.columns().iter().enumerate() {
                    column(&mut payload, name, values, i < *keys)?;
                }
            }
            operations::Rows::Segment { .. } => return None,
        }
    }
    Some(payload)
}

fn head(payload: &mut Vec<u8>, series: &str, timestamps: &[i64], columns: usize) -> Option<()> {
    name(payload, series)?;
    payload.extend_from_slice(&u32::try_from(timestamps.len()).ok()?.to_le_bytes());
    payload.extend_from_slice(&u16::try_from(columns).ok()?.to_le_bytes());
    numbers(payload, timestamps, i64::to_le_bytes);
    Some(())
}

fn name(payload: &mut Vec<u8>, name: &str) -> Option<()> {
    payload.push(u8::try_from(name.len()).ok()?);
    payload.extend_from_slice(name.as_bytes());
    Some(())
}

fn numbers<T: Copy, const N: usize>(payload: &mut Vec<u8>, values: &[T], bytes: impl Fn(T) -> [u8; N]) {
    values.iter().for_each(|value| payload.extend_from_slice(&bytes(*value)));
}

fn column(payload: &mut Vec<u8>, column_name: &str, values: &Column, key: bool) -> Option<()> {
    name(payload, column_name)?;
    payload.push(values.column_type().tag());
    let nulls = if values.validity().is_some() { NULLS } else { 0 };
    payload.push(if key { KEY | nulls } else { nulls });
    payload.extend(values.validity().unwrap_or_default().iter().map(|valid| u8::from(*valid)));
    match values.values() {
        Values::Bool(v) => payload.extend(v.iter().map(|value| u8::from(*value))),
        Values::I64(v) | Values::Timestamp(v) => numbers(payload, v, i64::to_le_bytes),
        Values::F64(v) => numbers(payload, v, f64::to_le_bytes),
        Values::Date(v) | Values::I32(v) => numbers(payload, v, i32::to_le_bytes),
        Values::F32(v) => numbers(payload, v, f32::to_le_bytes),
        Values::Utf8(strings) | Values::Bytes(strings) => {
            numbers(payload, strings.offsets().get(1..).unwrap_or_default(), u32::to_le_bytes);
            payload.extend_from_slice(strings.bytes());
        }
    }
    Some(())
}

/// Reads what [`encode`] wrote; says what is wrong with any other bytes. A length is compared with what is left before
/// anything is allocated for it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, String> {
    let mut rest = Reader(bytes);
    let count = u16::from_le_bytes(rest.array()?);
    let appends = (0..count).map(|_| rest.append()).collect::<Result<_, _>>()?;
    match rest.0 {
        [] => Ok(Record { appends, ..Record::default() }),
        left => Err(format!("{} bytes stand behind the last column", left.len())),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| format!("{len} bytes are due and {} are left", self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.first_chunk().copied().ok_or_else(|| "cut short".to_string())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn name(&mut self) -> Result<String, String> {
        let len = self.byte()?;
        let bytes = self.take(len.into())?.to_vec();
        String::from_utf8(bytes).map_err(|_| "a name is not UTF-8".to_string())
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: usize,
        number: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, String> {
        let bytes = self.take(count.checked_mul(N).ok_or("a length overflows")?)?;
        let (numbers, _) = bytes.as_chunks::<N>();
        Ok(numbers.iter().map(|bytes| number(*bytes)).collect())
    }

    fn bools(&mut self, count: usize) -> Result<Vec<bool>, String> {
        let bytes = self.take(count)?;
        let bools = bytes.iter().map(|byte| match byte {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither true nor false")),
        });
        bools.collect()
    }

    fn append(&mut self) -> Result<Append, String> {
        let series = self.name()?;
        let rows = u32::from_le_bytes(self.array()?) as usize;
        let columns = u16::from_le_bytes(self.array()?);
        let timestamps = self.numbers(rows, i64::from_le_bytes)?;
        let columns = (0..columns).map(|_| self.column(rows)).collect::<Result<_, _>>()?;
        Ok(Append { series, rows: Rows::Inline { timestamps, columns } })
    }

    fn column(&mut self, rows: usize) -> Result<NamedColumn, String> {
        let name = self.name()?;
        let (tag, flags) = (self.byte()?, self.byte()?);
        let column_type =
            ColumnType::from_tag(tag).ok_or_else(|| format!("column {name:?} has unknown type tag {tag}"))?;
        if flags & !(KEY | NULLS) != 0 {
            return Err(format!("column {name:?} has unknown flags {flags}"));
        }
        let validity = if flags & NULLS != 0 { self.bools(rows)? } else { Vec::new() };
        let values = match column_type {
            ColumnType::Bool => ColumnValues::Bool(self.bools(rows)?),
            ColumnType::I64 => ColumnValues::I64(self.numbers(rows, i64::from_le_bytes)?),
            ColumnType::F64 => ColumnValues::F64(self.numbers(rows, f64::from_le_bytes)?),
            ColumnType::Timestamp => ColumnValues::Timestamp(self.numbers(rows, i64::from_le_bytes)?),
            ColumnType::Date => ColumnValues::Date(self.numbers(rows, i32::from_le_bytes)?),
            ColumnType::I32 => ColumnValues::I32(self.numbers(rows, i32::from_le_bytes)?),
            ColumnType::F32 => ColumnValues::F32(self.numbers(rows, f32::from_le_bytes)?),
            ColumnType::Utf8 => {
                self.strings(rows).map(|(offsets, bytes)| ColumnValues::Utf8(offsets, bytes))?
            }
            ColumnType::Bytes => {
                self.strings(rows).map(|(offsets, bytes)| ColumnValues::Bytes(offsets, bytes))?
            }
        };
        Ok(NamedColumn { name, key: flags & KEY != 0, values, validity })
    }

    fn strings(&mut self, rows: usize) -> Result<(Vec<u32>, Vec<u8>), String> {
        let ends = self.numbers(rows, u32::from_le_bytes)?;
        let bytes = self.take(ends.last().copied().unwrap_or_default() as usize)?.to_vec();
        let offsets: Vec<u32> = std::iter::once(0).chain(ends).collect();
        let strings = Strings::from_parts(offsets, bytes).ok_or("ends of texts are out of order")?;
        Ok(strings.into_parts())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;
    use underbelly_query::MemoryRun;
    use underbelly_storage::{Columns, Value};

    use super::*;
    use crate::record::{decode as decode_record, of};
    use crate::series::Few;

    fn values(column_type: ColumnType) -> impl Strategy<Value = Value> {
        let some = any::<(i64, f64, bool, String)>().prop_map(move |(i, f, b, s)| match column_type {
            ColumnType::Bool => Value::Bool(b),
            ColumnType::I64 => Value::I64(i),
            ColumnType::F64 => Value::F64(f),
            ColumnType::Utf8 => Value::Utf8(s.into()),
            ColumnType::Bytes => Value::Bytes(s.into_bytes().into()),
            ColumnType::Timestamp => Value::Timestamp(underbelly_storage::Timestamp(i)),
            ColumnType::Date => Value::Date(underbelly_storage::Date(i as i32)),
            ColumnType::I32 => Value::I32(i as i32),
            ColumnType::F32 => Value::F32(f as f32),
        });
        prop_oneof![4 => some, 1 => Just(Value::Null)]
    }

    fn column_of(rows: usize) -> impl Strategy<Value = Column> {
        prop::sample::select(ColumnType::ALL.to_vec()).prop_flat_map(move |column_type| {
            prop::collection::vec(values(column_type), rows).prop_map(move |values| {
                let mut column = Column::new(column_type);
                values.iter().for_each(|value| column.push(value).unwrap());
                column
            })
        })
    }

    fn few() -> impl Strategy<Value = Few> {
        (0..6usize).prop_flat_map(|rows| {
            let columns = prop::collection::vec(column_of(rows), 0..6);
            (prop::collection::vec(any::<i64>(), rows), columns).prop_map(|(timestamps, columns)| {
                let named =
                    columns.into_iter().enumerate().map(|(i, column)| (format!("c{i}").into(), column));
                let columns: Vec<_> = named.collect();
                Few { keys: columns.len() / 2, timestamps, columns }
            })
        })
    }

    fn operations(appends: Vec<(&str, operations::Rows)>) -> Operations {
        let appends = appends.into_iter().map(|(series, rows)| operations::Append {
            series: series.into(),
            rows,
            inexact: Vec::new(),
            checked: true,
            types: None,
        });
        Operations { appends: appends.collect(), ..Operations::default() }
    }

    fn sample() -> Operations {
        let columns: Vec<(std::sync::Arc<str>, Column)> = vec![
            ("symbol".into(), ["IBM", "\u{e9}"].iter().collect()),
            ("size".into(), Column::from_parts(Values::I64(vec![7, 0]), Some(vec![true, false])).unwrap()),
        ];
        let few = Few { timestamps: vec![-1, 2], columns, keys: 1 };
        operations(vec![("trade", operations::Rows::Few(few))])
    }

    /// A change of these bytes is a change of the format on disk.
    #[test]
    fn the_bytes_of_appended_rows_are_fixed() {
        let payload = of(&sample()).unwrap();
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "00000000000000000100000001000000",
            "0100",
            "057472616465",
            "02000000",
            "0200",
            "ffffffffffffffff0200000000000000",
            "0673796d626f6c",
            "0401",
            "0300000005000000",
            "49424dc3a9",
            "0473697a65",
            "0202",
            "0100",
            "07000000000000000000000000000000",
        );
        assert_eq!(hex, golden);
    }

    #[test]
    fn cut_and_changed_rows_are_refused_or_read_as_rows() {
        let payload = of(&sample()).unwrap();
        let body = &payload[16..];
        assert!((0..body.len()).all(|len| decode(&body[..len]).is_err()));
        assert!(decode(&[body, &[0]].concat()).is_err());
        for (at, byte) in (0..body.len()).flat_map(|at| [0, 1, 0x80, 0xff].map(|byte| (at, byte))) {
            let mut bad = body.to_vec();
            bad[at] = byte;
            if let Ok(record) = decode(&bad) {
                let _ = Operations::from_record::<String>(record, |_, _| Err("no segment".to_string()));
            }
        }
        let mut huge = body.to_vec();
        huge[8..12].fill(0xff);
        assert!(decode(&huge).unwrap_err().contains("are left"));
    }

    /// Each length and count, by one too long and as long as can be: nothing is allocated for what is not there.
    #[test]
    fn lengths_that_promise_more_than_is_there_are_refused() {
        let payload = of(&sample()).unwrap();
        let body = &payload[16..];
        // Appends; the series' name, its rows and its columns; a key's name and the ends of its texts; a field's name.
        for (at, len) in [(0, 2), (2, 1), (8, 4), (12, 2), (30, 1), (39, 4), (43, 4), (52, 1)] {
            // By one more the first text ends within the second: that is there.
            for more in [1, 0x7f].into_iter().filter(|more| (at, *more) != (39, 1)) {
                let mut forged = body.to_vec();
                forged[at] += more;
                assert!(decode(&forged).is_err(), "{more} more at {at}");
                forged[at..at + len].fill(0xff);
                assert!(decode(&forged).is_err(), "all of {len} bytes at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn rows_are_read_back_as_they_were(appends in prop::collection::vec(few(), 1..4)) {
            let written = appends.iter().map(|few| {
                let copy = Few { timestamps: few.timestamps.clone(), columns: few.columns.clone(), keys: few.keys };
                ("s", operations::Rows::Few(copy))
            });
            let payload = of(&operations(written.collect())).unwrap();
            let read = Operations::from_record::<String>(decode_record(&payload).unwrap().1, |_, _| Err(String::new()));
            let read = read.unwrap();
            prop_assert_eq!(read.appends.len(), appends.len());
            for (read, few) in read.appends.iter().zip(&appends) {
                let operations::Rows::Few(read) = &read.rows else { panic!("few rows became something else") };
                prop_assert_eq!((&read.timestamps, read.keys), (&few.timestamps, few.keys));
                // Bits, so that every NaN is itself.
                prop_assert_eq!(format!("{:?}", read.columns), format!("{:?}", few.columns));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn many_rows_take_the_same_form() {
        let columns = Columns::new().with("x", Column::from(vec![1i64; 500])).unwrap();
        let run = MemoryRun::new((0..500).rev().collect(), columns, 0).unwrap();
        let payload = of(&operations(vec![("s", operations::Rows::Inline { run, keys: 0 })])).unwrap();
        let record = decode_record(&payload).unwrap().1;
        let Rows::Inline { timestamps, .. } = &record.appends[0].rows else { panic!("not inline") };
        assert_eq!(timestamps, &(0..500).collect::<Vec<_>>());
    }
}
