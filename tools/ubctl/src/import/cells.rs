//! A column that is being read from text.

use underbelly::{Column, ColumnType, Date, Decimal, LogicalType, Strings, Values};

use crate::time::InstantReader;

/// The values of a column so far. Holds as many validities as values, or none where nothing is null.
#[derive(Debug)]
pub(crate) struct Cells {
    store: Store,
    validity: Option<Vec<bool>>,
}

#[derive(Debug)]
enum Store {
    Bool(Vec<bool>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    Text(Vec<u32>, Vec<u8>),
    Bytes(Vec<u32>, Vec<u8>),
    Instants(Vec<i64>, Box<InstantReader>),
    Days(Vec<i32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Decimals(Vec<i64>, u8),
}

impl Cells {
    /// A column without rows. `instants` reads the texts of a timestamp column.
    pub(crate) fn new(logical: &LogicalType, instants: InstantReader) -> Cells {
        let store = match logical.stored() {
            _ if logical.scale().is_some() => Store::Decimals(Vec::new(), logical.scale().unwrap_or(0)),
            ColumnType::Bool => Store::Bool(Vec::new()),
            ColumnType::I64 => Store::I64(Vec::new()),
            ColumnType::F64 => Store::F64(Vec::new()),
            ColumnType::Utf8 => Store::Text(vec![0], Vec::new()),
            ColumnType::Bytes => Store::Bytes(vec![0], Vec::new()),
            ColumnType::Timestamp => Store::Instants(Vec::new(), Box::new(instants)),
            ColumnType::Date => Store::Days(Vec::new()),
            ColumnType::I32 => Store::I32(Vec::new()),
            ColumnType::F32 => Store::F32(Vec::new()),
        };
        Cells { store, validity: None }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match &self.store {
            Store::Bool(v) => v.len(),
            Store::I64(v) | Store::Instants(v, _) | Store::Decimals(v, _) => v.len(),
            Store::F64(v) => v.len(),
            Store::Days(v) | Store::I32(v) => v.len(),
            Store::F32(v) => v.len(),
            Store::Text(offsets, _) | Store::Bytes(offsets, _) => offsets.len().saturating_sub(1),
        }
    }

    /// Bytes of text.
    pub(crate) fn text_bytes(&self) -> usize {
        match &self.store {
            Store::Text(_, bytes) | Store::Bytes(_, bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Appends the value that a text says; on an error nothing has changed.
    pub(crate) fn push(&mut self, text: &[u8]) -> Result<(), String> {
        let utf8 =
            || std::str::from_utf8(text).map_err(|_| "the text is not UTF-8; convert the file".to_string());
        let trimmed = || utf8().map(str::trim_ascii);
        let no = |what: &str| {
            let text = String::from_utf8_lossy(text);
            format!("{text:?} is no {what}; correct it or give the column another type with --columns")
        };
        match &mut self.store {
            Store::Bool(v) => v.push(parse_bool(trimmed()?).ok_or_else(|| no("bool"))?),
            Store::I64(v) => v.push(trimmed()?.parse().map_err(|_| no("i64"))?),
            Store::F64(v) => v.push(trimmed()?.parse().map_err(|_| no("f64"))?),
            Store::I32(v) => v.push(trimmed()?.parse().map_err(|_| no("i32"))?),
            Store::F32(v) => v.push(trimmed()?.parse().map_err(|_| no("f32"))?),
            Store::Decimals(v, scale) => {
                let read = Decimal::parse(trimmed()?, *scale);
                v.push(read.map_err(|error| error.to_string())?.unscaled());
            }
            Store::Days(v) => v.push(parse_date(trimmed()?).ok_or_else(|| no("date"))?.0),
            Store::Instants(v, reader) => v.push(reader.read(utf8()?)?.0),
            Store::Text(offsets, bytes) => append(offsets, bytes, utf8()?.as_bytes())?,
            Store::Bytes(offsets, bytes) => {
                let value = parse_bytes(trimmed()?)
                    .ok_or_else(|| no("bytes (0x and pairs of hexadecimal digits)"))?;
                append(offsets, bytes, &value)?;
            }
        }
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
        Ok(())
    }

    /// Appends a null.
    pub(crate) fn push_null(&mut self) {
        let rows = self.len();
        self.validity.get_or_insert_with(|| vec![true; rows]).push(false);
        match &mut self.store {
            Store::Bool(v) => v.push(false),
            Store::I64(v) | Store::Instants(v, _) | Store::Decimals(v, _) => v.push(0),
            Store::F64(v) => v.push(0.0),
            Store::Days(v) | Store::I32(v) => v.push(0),
            Store::F32(v) => v.push(0.0),
            Store::Text(offsets, _) | Store::Bytes(offsets, _) => {
                let end = offsets.last().copied().unwrap_or(0);
                offsets.push(end);
            }
        }
    }

    /// Forgets all rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        match &mut self.store {
            Store::Bool(v) => v.truncate(rows),
            Store::I64(v) | Store::Instants(v, _) | Store::Decimals(v, _) => v.truncate(rows),
            Store::F64(v) => v.truncate(rows),
            Store::Days(v) | Store::I32(v) => v.truncate(rows),
            Store::F32(v) => v.truncate(rows),
            Store::Text(offsets, bytes) | Store::Bytes(offsets, bytes) => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
        }
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
    }

    /// Whether the newest value is NaN.
    pub(crate) fn ends_with_nan(&self) -> bool {
        match &self.store {
            Store::F64(v) => v.last().is_some_and(|v| v.is_nan()),
            Store::F32(v) => v.last().is_some_and(|v| v.is_nan()),
            _ => false,
        }
    }

    /// Takes the rows so far as a column and begins anew.
    pub(crate) fn take(&mut self) -> Option<Column> {
        let strings = |offsets: &mut Vec<u32>, bytes: &mut Vec<u8>| {
            Strings::from_parts(std::mem::replace(offsets, vec![0]), std::mem::take(bytes))
        };
        let values = match &mut self.store {
            Store::Bool(v) => Values::Bool(std::mem::take(v)),
            Store::I64(v) | Store::Decimals(v, _) => Values::I64(std::mem::take(v)),
            Store::F64(v) => Values::F64(std::mem::take(v)),
            Store::Instants(v, _) => Values::Timestamp(std::mem::take(v)),
            Store::Days(v) => Values::Date(std::mem::take(v)),
            Store::I32(v) => Values::I32(std::mem::take(v)),
            Store::F32(v) => Values::F32(std::mem::take(v)),
            Store::Text(offsets, bytes) => Values::Utf8(strings(offsets, bytes)?),
            Store::Bytes(offsets, bytes) => Values::Bytes(strings(offsets, bytes)?),
        };
        Column::from_parts(values, self.validity.take())
    }
}

fn append(offsets: &mut Vec<u32>, bytes: &mut Vec<u8>, value: &[u8]) -> Result<(), String> {
    let end = u32::try_from(bytes.len() + value.len())
        .map_err(|_| "the column would hold more than 4 GiB of text; split the file".to_string())?;
    bytes.extend_from_slice(value);
    offsets.push(end);
    Ok(())
}

/// Reads a day as it is written, also one of a year below 0 or beyond 9999.
fn parse_date(text: &str) -> Option<Date> {
    /// The calendar repeats itself, to the day.
    const DAYS_OF_400_YEARS: i64 = 146_097;
    if let Some(date) = Date::parse(text) {
        return Some(date);
    }
    let mut parts = text.rsplitn(3, '-');
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(day) || !is_plain(month) {
        return None;
    }
    let year: i32 = year.parse().ok()?;
    let near = Date::from_ymd(2000 + year.rem_euclid(400), month.parse().ok()?, day.parse().ok()?)?;
    let eras = i64::from(year.div_euclid(400)) - 5;
    i32::try_from(i64::from(near.0) + eras * DAYS_OF_400_YEARS).ok().map(Date)
}

/// Reads `true`, `false`, `1` or `0`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Reads `0x` and pairs of hexadecimal digits, as bytes are printed.
fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::time::Notation;
    use proptest::prelude::*;
    use underbelly::Value;

    fn cells(column_type: ColumnType) -> Cells {
        Cells::new(&column_type.into(), InstantReader::new(Notation::default()))
    }

    #[test]
    fn each_type_reads_what_it_prints() {
        let values = [
            Value::Bool(true),
            Value::I64(i64::MIN),
            Value::F64(0.1),
            Value::from("  text, as it is "),
            Value::from(vec![0u8, 255, 16]),
            Value::Timestamp(underbelly::Timestamp(-1)),
            Value::Date(Date(16_223)),
        ];
        for value in values {
            let mut cells = cells(value.column_type().unwrap());
            cells.push_null();
            cells.push(value.to_string().as_bytes()).unwrap();
            let column = cells.take().unwrap();
            assert_eq!((column.get(0), column.get(1)), (Value::Null, value));
            assert_eq!(cells.take().unwrap().len(), 0);
        }
    }

    #[test]
    fn days_of_every_year_are_read() {
        for days in [i32::MIN, -719_529, -1, 0, 2_932_897, i32::MAX] {
            assert_eq!(parse_date(&Date(days).to_string()), Some(Date(days)), "{}", Date(days));
        }
        for wrong in ["12014-02-30", "-1-1-1", "12014-13-01", "x-01-01", "99999999-01-01"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_no_trace() {
        for (column_type, text) in [
            (ColumnType::Bool, "yes"),
            (ColumnType::I64, "1.5"),
            (ColumnType::I64, "9223372036854775808"),
            (ColumnType::I32, "2147483648"),
            (ColumnType::F32, "1,5"),
            (ColumnType::F64, "1,5"),
            (ColumnType::Bytes, "0x123"),
            (ColumnType::Bytes, "12"),
            (ColumnType::Date, "2014-02-30"),
            (ColumnType::Timestamp, "then"),
        ] {
            let mut cells = cells(column_type);
            let error = cells.push(text.as_bytes()).unwrap_err();
            assert!(error.contains(text), "{error}");
            assert_eq!(cells.take().unwrap().len(), 0, "{column_type}");
        }
        assert!(cells(ColumnType::Utf8).push(b"\xff").unwrap_err().contains("UTF-8"));
    }

    proptest! {
        #[test]
        fn truncating_leaves_the_rows_before(
            texts in prop::collection::vec(prop::option::of("[a-zé]{0,5}"), 0..20),
            keep in 0usize..20,
        ) {
            let mut cells = cells(ColumnType::Utf8);
            for text in &texts {
                match text {
                    Some(text) => cells.push(text.as_bytes()).unwrap(),
                    None => cells.push_null(),
                }
            }
            let keep = keep.min(texts.len());
            cells.truncate(keep);
            let column = cells.take().unwrap();
            prop_assert_eq!(column.len(), keep);
            for (i, text) in texts.into_iter().take(keep).enumerate() {
                prop_assert_eq!(column.get(i), Value::from(text));
            }
        }
    }
}
