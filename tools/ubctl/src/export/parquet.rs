//! Rows as Parquet, column by column; row groups of the rows that a series' own groups have.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType as Logical, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use underbelly::{Column, ColumnType, Columns, LogicalTypes, Strings, Values};

use super::Sink;
use crate::error::Failed;

/// Rows of a row group.
const GROUP_ROWS: usize = 131_072;
/// Digits of decimals.
const DECIMAL_DIGITS: i32 = 18;

/// A file that is being written.
pub(super) struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    /// Rows that wait until they are enough for a group.
    waiting: Vec<(Arc<str>, Column)>,
    /// What columns hold, where that is not what is stored.
    logical: LogicalTypes,
}

fn failed(error: ParquetError) -> Failed {
    Failed::output(match error {
        // A reader that went away is told from other errors by its kind.
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(error) => *error,
            Err(cause) => std::io::Error::other(cause),
        },
        other => std::io::Error::other(other),
    })
}

impl<W: Write + Send> Parquet<W> {
    /// Begins a file with these columns.
    pub(super) fn new(out: W, types: &Columns, held: &LogicalTypes) -> Result<Parquet<W>, Failed> {
        let field = |(name, column): (&Arc<str>, &Column)| {
            let (physical, logical) = match column.column_type() {
                ColumnType::Bool => (Physical::BOOLEAN, None),
                ColumnType::I32 => (Physical::INT32, None),
                ColumnType::I64 => (Physical::INT64, None),
                ColumnType::F32 => (Physical::FLOAT, None),
                ColumnType::F64 => (Physical::DOUBLE, None),
                ColumnType::Utf8 => (Physical::BYTE_ARRAY, Some(Logical::String)),
                ColumnType::Bytes => (Physical::BYTE_ARRAY, None),
                ColumnType::Date => (Physical::INT32, Some(Logical::Date)),
                ColumnType::Timestamp => (Physical::INT64, Some(Logical::timestamp(true, TimeUnit::NANOS))),
            };
            let builder = Type::primitive_type_builder(name, physical);
            let builder = match held.get(name).and_then(|held| held.scale()).map(i32::from) {
                None => builder.with_logical_type(logical),
                // As many digits as 64 bits may have in Parquet; a number of one more is refused when it is written.
                Some(scale) => builder
                    .with_logical_type(Some(Logical::decimal(scale, DECIMAL_DIGITS)))
                    .with_precision(DECIMAL_DIGITS)
                    .with_scale(scale),
            };
            builder.with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
        };
        let fields = types.iter().map(field).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(failed)?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer =
            SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties)).map_err(failed)?;
        Ok(Parquet { logical: held.clone(), writer, waiting: Vec::new() })
    }

    fn write_group(&mut self) -> Result<(), Failed> {
        let columns = std::mem::take(&mut self.waiting);
        let mut group = self.writer.next_row_group().map_err(failed)?;
        for (_, column) in &columns {
            write_column(&mut group, column).map_err(failed)?;
        }
        group.close().map(|_| ()).map_err(failed)
    }
}

impl<W: Write + Send> Sink for Parquet<W> {
    fn write(&mut self, rows: Columns) -> Result<(), Failed> {
        let is_decimal = |name: &str| self.logical.get(name).is_some_and(|held| held.scale().is_some());
        for (name, column) in rows.iter().filter(|(name, _)| is_decimal(name)) {
            let Values::I64(unscaled) = column.values() else { continue };
            if unscaled.iter().any(|number| number.unsigned_abs() >= 10u64.pow(DECIMAL_DIGITS as u32)) {
                let what = format!(
                    "column {name:?} holds a decimal of more than {DECIMAL_DIGITS} digits, which a number of 64 bits has in no Parquet file; use --format arrow"
                );
                return Err(Failed::Usage(what));
            }
        }
        let rows = rows.into_columns();
        if self.waiting.is_empty() {
            self.waiting = rows;
        } else {
            for ((name, column), (_, more)) in self.waiting.iter_mut().zip(&rows) {
                let extended = column.extend_range(more, 0..more.len());
                let what = || format!("column {name:?} has more than 4 GiB of text in {GROUP_ROWS} rows");
                extended.ok_or_else(|| Failed::Usage(what()))?;
            }
        }
        match self.waiting.first().is_some_and(|(_, column)| column.len() >= GROUP_ROWS) {
            true => self.write_group(),
            false => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, Failed> {
        if !self.waiting.is_empty() {
            self.write_group()?;
        }
        self.writer.finish().map_err(failed)?;
        self.writer.flush().map_err(Failed::output)?;
        Ok(Vec::new())
    }
}

fn write_column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    column: &Column,
) -> Result<(), ParquetError> {
    fn write<W: Write + Send, T: DataType>(
        group: &mut SerializedRowGroupWriter<'_, W>,
        values: &[T::T],
        validity: Option<&[bool]>,
    ) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("a column has no place in the file".to_string());
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let levels: Vec<i16> = match validity {
            None => vec![1; values.len()],
            Some(validity) => validity.iter().map(|valid| i16::from(*valid)).collect(),
        };
        // Values of nulls are not written.
        match validity {
            None => column.typed::<T>().write_batch(values, Some(&levels), None)?,
            Some(validity) => {
                let valid = values.iter().zip(validity).filter(|(_, valid)| **valid);
                let valid: Vec<T::T> = valid.map(|(value, _)| value.clone()).collect();
                column.typed::<T>().write_batch(&valid, Some(&levels), None)?
            }
        };
        column.close()
    }
    let texts =
        |strings: &Strings| strings.iter().map(|text| text.to_vec().into()).collect::<Vec<ByteArray>>();
    let validity = column.validity();
    match column.values() {
        Values::Bool(v) => write::<_, BoolType>(group, v, validity),
        Values::I32(v) | Values::Date(v) => write::<_, Int32Type>(group, v, validity),
        Values::I64(v) | Values::Timestamp(v) => write::<_, Int64Type>(group, v, validity),
        Values::F32(v) => write::<_, FloatType>(group, v, validity),
        Values::F64(v) => write::<_, DoubleType>(group, v, validity),
        Values::Utf8(v) | Values::Bytes(v) => write::<_, ByteArrayType>(group, &texts(v), validity),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_of_the_file() {
        let rows = Columns::new().with("x", vec![1i64; GROUP_ROWS].into()).unwrap();
        let ended = Parquet::new(Closed, &rows, &LogicalTypes::new()).and_then(|mut file| {
            file.write(rows.clone())?;
            Box::new(file).finish()
        });
        assert!(matches!(ended, Err(Failed::ClosedPipe)), "{ended:?}");
    }
}
