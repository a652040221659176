//! Parquet files, a stretch of a row group at a time.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use indicatif::ProgressBar;
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, Type};
use underbelly::{Column, ColumnType, Columns, Decimal, LogicalTypes, Strings, Values};

use super::source::Source;
use super::typed::Chunks;
use crate::error::Failed;

/// Rows that are read at once.
const BATCH_ROWS: usize = 1 << 16;
/// Columns of a file.
const COLUMNS_MAX: usize = 4_096;

/// What a column becomes.
#[derive(Clone, Copy)]
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

/// The columns of a file, without rows.
pub(super) fn columns_of(source: &Source) -> Result<Columns, Failed> {
    let mut columns = Columns::new();
    caught(source, &mut || {
        let (_, meanings) = opened(source)?;
        for (name, meaning) in meanings {
            columns.insert(name, Column::new(meaning.column_type()))?;
        }
        Ok(())
    })?;
    Ok(columns)
}

/// What is damaged must not take more down than the import.
fn caught(source: &Source, read: &mut dyn FnMut() -> Result<(), Failed>) -> Result<(), Failed> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Failed::input(source.path(), "the Parquet reader gave up on it; write it anew"))
    })
}

/// A file, and what its columns become.
type Opened = (SerializedFileReader<File>, Vec<(String, Meaning)>);

/// Opens a file.
fn opened(source: &Source) -> Result<Opened, Failed> {
    let path = source.path();
    let file = File::open(path).map_err(|error| Failed::file("open", path, error))?;
    let refused = |what: String| Failed::input(path, what);
    let reader = SerializedFileReader::new(file).map_err(|error| refused(error.to_string()))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let mut meanings = Vec::new();
    if schema.num_columns() > COLUMNS_MAX {
        return Err(refused(format!("{} columns are more than {COLUMNS_MAX}", schema.num_columns())));
    }
    for column in schema.columns() {
        let name = column.name().to_string();
        let kind = format!("column {name:?} ({})", column.path().string());
        let own = column.self_type();
        let is_plain =
            column.path().parts().len() == 1 && own.get_basic_info().repetition() != Repetition::REPEATED;
        if !is_plain {
            return Err(refused(format!("{kind} is nested; give each of its values a column")));
        }
        let found = meaning(own).ok_or_else(|| {
            refused(format!("{kind} has a type that cannot be taken; use a bool, an integer of up to 64 bits, a float, a decimal with 0 to 18 digits behind the point, text, bytes, a date or a timestamp"))
        })?;
        meanings.push((name, found));
    }
    Ok((reader, meanings))
}

/// Reads a file.
pub(super) fn load(source: &Source, bar: &ProgressBar, chunks: &mut Chunks<'_>) -> Result<(), Failed> {
    let path = source.path();
    let refused = |what: String| Failed::input(path, what);
    caught(source, &mut || {
        let (reader, meanings) = opened(source)?;
        let mut types = LogicalTypes::new();
        for (name, meaning) in &meanings {
            if let Meaning::Decimal(scale) = meaning {
                types.insert(name.as_str(), underbelly::LogicalType::Decimal(*scale));
            }
        }
        let schema = reader.metadata().file_metadata().schema_descr();
        let groups = reader.num_row_groups();
        for group in 0..groups {
            let group_reader = reader.get_row_group(group).map_err(|error| refused(error.to_string()))?;
            let rows = usize::try_from(group_reader.metadata().num_rows());
            let rows = rows.map_err(|_| refused("a row group has fewer than no rows".to_string()))?;
            let mut readers = Vec::with_capacity(meanings.len());
            for at in 0..meanings.len() {
                readers.push(group_reader.get_column_reader(at).map_err(|error| refused(error.to_string()))?);
            }
            let mut left = rows;
            while left > 0 {
                let count = left.min(BATCH_ROWS);
                let mut batch = Columns::new();
                for (((name, meaning), reader), column) in
                    meanings.iter().zip(&mut readers).zip(schema.columns())
                {
                    let read = read(reader, column, *meaning, count);
                    let read = read.map_err(|what| refused(format!("column {name:?} {what}")))?;
                    batch.insert(name.as_str(), read)?;
                }
                left -= count;
                if !chunks.add(path, batch, &types)? {
                    return Ok(());
                }
            }
            bar.set_position(source.bytes() * (group as u64 + 1) / groups as u64);
        }
        Ok(())
    })
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
