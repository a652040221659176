//! Parquet files, column by column: what their footers tell, and columns of their row groups, whole or a stretch of rows at a time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, Type};
use underbelly_storage::{Column, ColumnType, Columns, Decimal, LogicalTypes, Strings, Values};

use crate::error::ArrowError;

/// Columns of a file.
const COLUMNS_MAX: usize = 4_096;

/// What a column becomes.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    Bool,
    I32,
    I64,
    F32,
    F64,
    Utf8,
    Bytes,
    Date,
    /// Nanoseconds of each number.
    Timestamp(i64),
    /// A scale.
    Decimal(u8),
}

impl Meaning {
    fn column_type(self) -> ColumnType {
        match self {
            Meaning::Bool => ColumnType::Bool,
            Meaning::I32 => ColumnType::I32,
            Meaning::I64 | Meaning::Decimal(_) => ColumnType::I64,
            Meaning::F32 => ColumnType::F32,
            Meaning::F64 => ColumnType::F64,
            Meaning::Utf8 => ColumnType::Utf8,
            Meaning::Bytes => ColumnType::Bytes,
            Meaning::Date => ColumnType::Date,
            Meaning::Timestamp(_) => ColumnType::Timestamp,
        }
    }
}

fn meaning(column: &Type) -> Option<Meaning> {
    let info = column.get_basic_info();
    let (logical, converted) = (info.logical_type_ref(), info.converted_type());
    let scale = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => 1_000_000,
        TimeUnit::MICROS => 1_000,
        TimeUnit::NANOS => 1,
    };
    Some(match (column.get_physical_type(), logical, converted) {
        (Physical::BOOLEAN, None, ConvertedType::NONE) => Meaning::Bool,
        (Physical::FLOAT, None, ConvertedType::NONE) => Meaning::F32,
        (Physical::DOUBLE, None, ConvertedType::NONE) => Meaning::F64,
        // Whole numbers of 32 or 64 bits, or bytes; the reader sees to it that there is one scale.
        (_, Some(LogicalType::Decimal(_)), _) | (_, None, ConvertedType::DECIMAL) => {
            let scale = u8::try_from(column.get_scale()).ok();
            Meaning::Decimal(scale.filter(|scale| Decimal::new(0, *scale).is_ok())?)
        }
        (Physical::INT32, Some(LogicalType::Date), _) | (Physical::INT32, None, ConvertedType::DATE) => {
            Meaning::Date
        }
        (Physical::INT32, Some(LogicalType::Integer(int)), _) => match (int.is_signed, int.bit_width) {
            (true, _) | (false, 8 | 16) => Meaning::I32,
            _ => return None,
        },
        (
            Physical::INT32,
            None,
            ConvertedType::NONE | ConvertedType::INT_8 | ConvertedType::INT_16 | ConvertedType::INT_32,
        ) => Meaning::I32,
        (Physical::INT64, Some(LogicalType::Timestamp(of)), _) => Meaning::Timestamp(scale(&of.unit)),
        (Physical::INT64, Some(LogicalType::Integer(int)), _) if int.is_signed => Meaning::I64,
        (Physical::INT64, None, ConvertedType::TIMESTAMP_MILLIS) => Meaning::Timestamp(1_000_000),
        (Physical::INT64, None, ConvertedType::TIMESTAMP_MICROS) => Meaning::Timestamp(1_000),
        (Physical::INT64, None, ConvertedType::NONE | ConvertedType::INT_64) => Meaning::I64,
        (Physical::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json), _)
        | (Physical::BYTE_ARRAY, None, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => {
            Meaning::Utf8
        }
        (Physical::BYTE_ARRAY, None, ConvertedType::NONE) => Meaning::Bytes,
        _ => return None,
    })
}

/// A file's footer, by which its columns are read.
#[derive(Debug)]
pub struct Parquet {
    metadata: Arc<ParquetMetaData>,
    columns: Vec<(String, Meaning)>,
}

impl Parquet {
    /// Reads the footer.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where it is none, or has columns that cannot be taken; [`ArrowError::Io`].
    pub fn read(file: &File) -> Result<Parquet, ArrowError> {
        caught(|| {
            let metadata = ParquetMetaDataReader::new().parse_and_finish(file).map_err(failed)?;
            let schema = metadata.file_metadata().schema_descr();
            if schema.num_columns() > COLUMNS_MAX {
                let what = format!("{} columns are more than {COLUMNS_MAX}", schema.num_columns());
                return Err(ArrowError::rows(what));
            }
            let mut columns = Vec::new();
            for column in schema.columns() {
                let name = column.name().to_string();
                let kind = format!("column {name:?} ({})", column.path().string());
                let own = column.self_type();
                let is_plain = column.path().parts().len() == 1
                    && own.get_basic_info().repetition() != Repetition::REPEATED;
                if !is_plain {
                    return Err(ArrowError::rows(format!(
                        "{kind} is nested; give each of its values a column"
                    )));
                }
                let found = meaning(own).ok_or_else(|| {
                    ArrowError::rows(format!("{kind} has a type that cannot be taken; use a bool, an integer of up to 64 bits, a float, a decimal with 0 to 18 digits behind the point, text, bytes, a date or a timestamp"))
                })?;
                columns.push((name, found));
            }
            let footer = Parquet { metadata: Arc::new(metadata), columns };
            footer.empty()?;
            for group in 0..footer.groups() {
                let of_group = footer.metadata.row_group(group);
                if of_group.num_rows() < 0 || of_group.num_columns() != footer.columns.len() {
                    return Err(ArrowError::rows(format!("row group {group} contradicts the schema")));
                }
            }
            Ok(footer)
        })
    }

    /// Names and types of the columns, without rows.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where two columns have one name.
    pub fn empty(&self) -> Result<Columns, ArrowError> {
        let mut types = Columns::new();
        for (name, meaning) in &self.columns {
            let column = Column::new(meaning.column_type());
            types.insert(name.as_str(), column).map_err(|error| ArrowError::rows(error.to_string()))?;
        }
        Ok(types)
    }

    /// What the columns hold, where that is not what is stored.
    pub fn types(&self) -> LogicalTypes {
        let mut types = LogicalTypes::new();
        for (name, meaning) in &self.columns {
            if let Meaning::Decimal(scale) = meaning {
                types.insert(name.as_str(), underbelly_storage::LogicalType::Decimal(*scale));
            }
        }
        types
    }

    /// Number of row groups.
    pub fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Rows of a row group; 0 where there is no such group.
    pub fn rows(&self, group: usize) -> usize {
        let of_group = self.metadata.row_groups().get(group);
        of_group.and_then(|group| usize::try_from(group.num_rows()).ok()).unwrap_or(0)
    }

    /// Bytes of a row group before compression, as the file tells them.
    pub fn bytes(&self, group: usize) -> u64 {
        let of_group = self.metadata.row_groups().get(group);
        of_group.and_then(|group| u64::try_from(group.total_byte_size()).ok()).unwrap_or(0)
    }

    /// Between which ends the values of a column of a row group lie, as the footer tells them, where that is a column of times in
    /// nanoseconds, or of dates in days, or of integers, and none of them is null; `None` where it does not tell.
    pub fn bounds(&self, group: usize, name: &str) -> Option<(i64, i64)> {
        let position = self.position(name)?;
        let of_column = self.metadata.row_groups().get(group)?.columns().get(position)?;
        let statistics = of_column.statistics()?;
        let is_optional = of_column.column_descr().max_def_level() > 0;
        if is_optional && statistics.null_count_opt() != Some(0) {
            return None;
        }
        let (min, max) = match statistics {
            Statistics::Int32(of) => (i64::from(*of.min_opt()?), i64::from(*of.max_opt()?)),
            Statistics::Int64(of) => (*of.min_opt()?, *of.max_opt()?),
            _ => return None,
        };
        let scale = match self.columns.get(position)?.1 {
            Meaning::Timestamp(scale) => scale,
            _ => 1,
        };
        min.checked_mul(scale).zip(max.checked_mul(scale)).filter(|(min, max)| min <= max)
    }

    /// A column of a row group; `None` where there is no such column.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where it cannot be read; [`ArrowError::Io`].
    pub fn column(&self, file: &File, group: usize, name: &str) -> Result<Option<Column>, ArrowError> {
        let Some(position) = self.position(name) else { return Ok(None) };
        caught(|| {
            let mut reader = self.reader(file, group, position)?;
            self.next(&mut reader, position, self.rows(group)).map(Some)
        })
    }

    /// The rows of a row group, so many at a time.
    ///
    /// # Errors
    /// As [`Parquet::column`].
    pub fn stretches(&self, file: &File, group: usize, rows_max: usize) -> Result<Stretches<'_>, ArrowError> {
        let readers = (0..self.columns.len()).map(|position| self.reader(file, group, position));
        let readers = caught(|| readers.collect())?;
        Ok(Stretches { footer: self, readers, rows_left: self.rows(group), rows_max: rows_max.max(1) })
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|(known, _)| known == name)
    }

    fn reader(&self, file: &File, group: usize, position: usize) -> Result<ColumnReader, ArrowError> {
        let of_group = self.metadata.row_groups().get(group);
        let of_group = of_group.ok_or_else(|| ArrowError::rows(format!("there is no row group {group}")))?;
        let chunk = of_group.column(position);
        // Each reader has a place in the file of its own.
        let file = Arc::new(file.try_clone()?);
        let pages = SerializedPageReader::new(file, chunk, self.rows(group), None).map_err(failed)?;
        Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
    }

    fn next(&self, reader: &mut ColumnReader, position: usize, count: usize) -> Result<Column, ArrowError> {
        let schema = self.metadata.file_metadata().schema_descr();
        let (name, meaning) =
            self.columns.get(position).ok_or_else(|| ArrowError::rows("a column is missing"))?;
        let read = read(reader, &schema.column(position), *meaning, count);
        read.map_err(|what| ArrowError::rows(format!("column {name:?} {what}")))
    }
}

/// The rows of a row group, some at a time; ends after an error.
pub struct Stretches<'p> {
    footer: &'p Parquet,
    readers: Vec<ColumnReader>,
    rows_left: usize,
    rows_max: usize,
}

impl Iterator for Stretches<'_> {
    type Item = Result<Columns, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rows_left == 0 {
            return None;
        }
        let count = self.rows_left.min(self.rows_max);
        self.rows_left -= count;
        let rows = caught(|| {
            let mut rows = Columns::new();
            for (position, reader) in self.readers.iter_mut().enumerate() {
                let column = self.footer.next(reader, position, count)?;
                let name = self.footer.columns.get(position).map_or("", |(name, _)| name.as_str());
                rows.insert(name, column).map_err(|error| ArrowError::rows(error.to_string()))?;
            }
            Ok(rows)
        });
        if rows.is_err() {
            self.rows_left = 0;
        }
        Some(rows)
    }
}

/// What is damaged must not take more down than its own reading.
fn caught<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ArrowError::rows("the Parquet reader gave up on it; write it anew")))
}

fn failed(error: ParquetError) -> ArrowError {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => ArrowError::Io(*error),
            Err(cause) => ArrowError::rows(cause.to_string()),
        },
        other => ArrowError::rows(other.to_string()),
    }
}

/// Values, and which of them are not null where some are.
type Nullable<V> = (Vec<V>, Option<Vec<bool>>);

/// The next `count` values of a column.
fn next<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    column: &ColumnDescriptor,
    count: usize,
) -> Result<Nullable<T::T>, String>
where
    T::T: Default,
{
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let is_optional = column.max_def_level() > 0;
    let mut got = 0;
    while got < count {
        let levels = is_optional.then_some(&mut levels);
        let read = reader.read_records(count - got, levels, None, &mut values);
        match read.map_err(|error: ParquetError| error.to_string())? {
            (0, ..) => return Err(format!("ends {} rows early", count - got)),
            (records, ..) => got += records,
        }
    }
    if !is_optional {
        return match values.len() == count {
            true => Ok((values, None)),
            false => Err("has too few values".to_string()),
        };
    }
    let validity: Vec<bool> = levels.iter().map(|level| *level == column.max_def_level()).collect();
    let valid = validity.iter().filter(|valid| **valid).count();
    if validity.len() != count || valid != values.len() {
        return Err("has values that do not go with its nulls".to_string());
    }
    if valid == count {
        return Ok((values, None));
    }
    let mut values = values.into_iter();
    let spread =
        validity.iter().map(|valid| if *valid { values.next().unwrap_or_default() } else { T::T::default() });
    Ok((spread.collect(), Some(validity)))
}

/// The scaled integers that bytes hold.
fn decimals(values: impl Iterator<Item = ByteArray>, validity: Option<&[bool]>) -> Result<Values, String> {
    // A value of no null has its bytes; asking one that has none would be a fault.
    let is_null = |row: usize| validity.is_some_and(|valid| valid.get(row) != Some(&true));
    let read =
        values.enumerate().map(|(row, value)| if is_null(row) { Some(0) } else { whole(value.data()) });
    let read: Option<Vec<i64>> = read.collect();
    read.map(Values::I64).ok_or_else(|| "has a decimal that does not fit in 64 bits; round it".to_string())
}

/// A whole number of any length, the highest byte first and negative where its highest bit is set; `None` where it does not fit.
fn whole(bytes: &[u8]) -> Option<i64> {
    let is_negative = *bytes.first()? >= 0x80;
    let sign = if is_negative { -1i64 } else { 0 };
    let (high, low) = bytes.split_at_checked(bytes.len().saturating_sub(8))?;
    let number = low.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte));
    let fits = high.iter().all(|byte| i64::from(*byte as i8) == sign) && (number < 0) == is_negative;
    fits.then_some(number)
}

fn read(
    reader: &mut ColumnReader,
    column: &ColumnDescriptor,
    meaning: Meaning,
    count: usize,
) -> Result<Column, String> {
    let (values, validity) = match (reader, meaning) {
        (ColumnReader::BoolColumnReader(reader), Meaning::Bool) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::Bool(values), validity)
        }
        (ColumnReader::Int32ColumnReader(reader), Meaning::I32) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::I32(values), validity)
        }
        (ColumnReader::Int32ColumnReader(reader), Meaning::Decimal(_)) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::I64(values.into_iter().map(i64::from).collect()), validity)
        }
        (ColumnReader::Int32ColumnReader(reader), Meaning::Date) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::Date(values), validity)
        }
        (ColumnReader::FixedLenByteArrayColumnReader(reader), Meaning::Decimal(_)) => {
            let (values, validity) = next(reader, column, count)?;
            (decimals(values.into_iter().map(ByteArray::from), validity.as_deref())?, validity)
        }
        (ColumnReader::ByteArrayColumnReader(reader), Meaning::Decimal(_)) => {
            let (values, validity) = next(reader, column, count)?;
            (decimals(values.into_iter(), validity.as_deref())?, validity)
        }
        (ColumnReader::Int64ColumnReader(reader), Meaning::I64 | Meaning::Decimal(_)) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::I64(values), validity)
        }
        (ColumnReader::Int64ColumnReader(reader), Meaning::Timestamp(scale)) => {
            let (values, validity) = next(reader, column, count)?;
            let scaled: Option<Vec<i64>> = values.into_iter().map(|time| time.checked_mul(scale)).collect();
            (Values::Timestamp(scaled.ok_or("has a time outside the years 1677 to 2262")?), validity)
        }
        (ColumnReader::FloatColumnReader(reader), Meaning::F32) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::F32(values), validity)
        }
        (ColumnReader::DoubleColumnReader(reader), Meaning::F64) => {
            let (values, validity) = next(reader, column, count)?;
            (Values::F64(values), validity)
        }
        (ColumnReader::ByteArrayColumnReader(reader), Meaning::Utf8 | Meaning::Bytes) => {
            let (values, validity) = next(reader, column, count)?;
            let mut strings = Strings::default();
            for (row, value) in values.iter().enumerate() {
                // A value of no null has its bytes; asking one that has none would be a fault.
                let is_null = validity.as_ref().is_some_and(|valid| valid.get(row) != Some(&true));
                let bytes = if is_null { &[][..] } else { value.data() };
                if !strings.push(bytes) {
                    return Err("has more than 4 GiB of text".to_string());
                }
            }
            match meaning {
                Meaning::Utf8 => (Values::Utf8(strings), validity),
                _ => (Values::Bytes(strings), validity),
            }
        }
        _ => return Err("is not what its type says".to_string()),
    };
    Column::from_parts(values, validity).ok_or_else(|| "has texts that are not UTF-8".to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_of_any_length_are_read_where_they_fit() {
        for (bytes, number) in [
            (&[][..], None),
            (&[0x7f], Some(127)),
            (&[0x80], Some(-128)),
            (&[0, 0x80], Some(128)),
            (&[0x80, 0, 0, 0, 0, 0, 0, 0], Some(i64::MIN)),
            (&[0, 0x80, 0, 0, 0, 0, 0, 0, 0], None),
            (&[0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0], None),
        ] {
            assert_eq!(whole(bytes), number, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_number_is_read_from_bytes(number: i128) {
            prop_assert_eq!(whole(&number.to_be_bytes()), i64::try_from(number).ok());
            let short = (number >> 70) as i64;
            prop_assert_eq!(whole(&i128::from(short).to_be_bytes()), Some(short));
            prop_assert_eq!(whole(&short.to_be_bytes()), Some(short));
        }
    }
}
