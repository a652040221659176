//! Columns under construction: stretches of rows, copied column by column.

use std::borrow::Cow;
use std::ops::Range;

use underbelly_storage::{Column, ColumnError, ColumnType, Columns, Values};

use crate::group::OpenGroup;
use crate::lane::Lane;
use crate::merge::Stretch;
use crate::{QueryError, SchemaColumn, TIMESTAMP};

/// Appends rows of `from`, or as many nulls where there is no column.
pub(crate) fn append(
    to: &mut Column,
    from: Option<&Column>,
    rows: Range<usize>,
    name: &str,
) -> Result<(), QueryError> {
    match from {
        // Types were compared when the group was opened, so this fails only for size.
        Some(from) => {
            to.extend_range(from, rows).ok_or_else(|| QueryError::TooLarge { column: name.to_string() })
        }
        None => {
            rows.for_each(|_| to.push_null());
            Ok(())
        }
    }
}

/// The same of a lane.
fn append_lane(
    to: &mut Column,
    from: Option<&Lane<'_>>,
    rows: Range<usize>,
    name: &str,
) -> Result<(), QueryError> {
    match from {
        Some(lane) => lane.append_to(to, rows, name),
        None => append(to, None, rows, name),
    }
}

/// Rows of a column in another order, perhaps some several times.
pub(crate) fn taken(column: &Column, rows: &[u32], name: &str) -> Result<Column, QueryError> {
    column.take(rows).ok_or_else(|| QueryError::TooLarge { column: name.to_string() })
}

/// The same of all columns.
pub(crate) fn rows_taken(columns: &Columns, rows: &[u32]) -> Result<Columns, QueryError> {
    columns.take(rows).map_err(|error| match error {
        ColumnError::TooLarge { column } => QueryError::TooLarge { column },
        other => other.into(),
    })
}

/// The column as the schema has it: unchanged, or widened.
pub(crate) fn fitted<'a>(
    column: Cow<'a, Column>,
    column_type: ColumnType,
    name: &str,
) -> Result<Cow<'a, Column>, QueryError> {
    let found = column.column_type();
    if found == column_type {
        return Ok(column);
    }
    let wrong = || QueryError::ColumnType { name: name.to_string(), expected: column_type, found };
    column.into_owned().widened(column_type).map(Cow::Owned).ok_or_else(wrong)
}

/// A batch under construction: timestamps and the columns asked for.
pub(crate) struct Gather<'a> {
    schema: &'a [SchemaColumn],
    timestamps: Vec<i64>,
    columns: Vec<Column>,
}

impl<'a> Gather<'a> {
    /// An empty batch of these columns, with room for `rows`.
    pub(crate) fn new(schema: &'a [SchemaColumn], rows: usize) -> Gather<'a> {
        Gather {
            schema,
            timestamps: Vec::with_capacity(rows),
            columns: schema.iter().map(|c| Column::with_capacity(c.column_type, rows)).collect(),
        }
    }

    /// Number of rows so far.
    pub(crate) fn rows(&self) -> usize {
        self.timestamps.len()
    }

    /// Bytes of them.
    pub(crate) fn byte_size(&self) -> usize {
        let columns = self.columns.iter().map(Column::byte_size);
        columns.fold(self.timestamps.len() * 8, usize::saturating_add)
    }

    /// Appends stretches in their order; `groups` gives the open group of a run.
    pub(crate) fn extend<'g, 'r: 'g>(
        &mut self,
        stretches: &[Stretch],
        groups: impl Fn(usize) -> Option<&'g OpenGroup<'r>>,
    ) -> Result<(), QueryError> {
        for Stretch { run, rows } in stretches {
            if let Some(group) = groups(*run) {
                self.timestamps.extend_from_slice(&group.timestamps[rows.clone()]);
            }
        }
        for (i, (column, schema)) in self.columns.iter_mut().zip(self.schema).enumerate() {
            for Stretch { run, rows } in stretches {
                if let Some(group) = groups(*run) {
                    append_lane(column, group.columns[i].as_ref(), rows.clone(), &schema.name)?;
                }
            }
        }
        Ok(())
    }

    /// Appends rows of one group, last row first.
    pub(crate) fn extend_reversed(
        &mut self,
        group: &OpenGroup<'_>,
        rows: Range<usize>,
    ) -> Result<(), QueryError> {
        self.timestamps.extend(group.timestamps[rows.clone()].iter().rev());
        for ((column, schema), from) in self.columns.iter_mut().zip(self.schema).zip(&group.columns) {
            for row in rows.clone().rev() {
                append_lane(column, from.as_ref(), row..row + 1, &schema.name)?;
            }
        }
        Ok(())
    }

    /// The batch, "timestamp" first.
    pub(crate) fn finish(self) -> Result<Columns, QueryError> {
        let mut columns = Columns::new();
        let timestamps = Column::from_parts(Values::Timestamp(self.timestamps), None);
        columns.insert(TIMESTAMP, timestamps.unwrap_or(Column::new(ColumnType::Timestamp)))?;
        for (schema, column) in self.schema.iter().zip(self.columns) {
            columns.insert(schema.name.clone(), column)?;
        }
        Ok(columns)
    }
}
