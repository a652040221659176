//! Rows as text: CSV and JSON lines.

use std::io::Write;
use std::sync::Arc;

use underbelly::{
    Column, Columns, Date, Decimal, LogicalType, LogicalTypes, Nested, Timestamp, Values, nested,
};

use super::Sink;
use crate::error::Failed;
use crate::time::in_zone;

/// Writes the value of a row, which is not null and no text, as it reads back.
fn put(out: &mut Vec<u8>, column: &Column, row: usize, logical: Option<&LogicalType>) {
    let decimal = |unscaled| Decimal::new(unscaled, logical?.scale()?).ok();
    // Writing to memory cannot fail.
    let _ = match column.values() {
        Values::Bool(v) => write!(out, "{}", v[row]),
        Values::I64(v) => match decimal(v[row]) {
            Some(decimal) => write!(out, "{decimal}"),
            None => write!(out, "{}", v[row]),
        },
        Values::I32(v) => write!(out, "{}", v[row]),
        // A float keeps its point, so that it reads back as one.
        Values::F64(v) => write!(out, "{:?}", v[row]),
        Values::F32(v) => write!(out, "{:?}", v[row]),
        Values::Timestamp(v) => match logical.and_then(LogicalType::zone) {
            Some(zone) => out.write_all(in_zone(Timestamp(v[row]), zone).as_bytes()),
            None => write!(out, "{}", Timestamp(v[row])),
        },
        Values::Date(v) => write!(out, "{}", Date(v[row])),
        Values::Utf8(v) => out.write_all(v.get(row)),
        Values::Bytes(v) => {
            out.extend_from_slice(b"0x");
            v.get(row).iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
    };
}

/// What each column is, where that is not what is stored.
fn by_place(types: &Columns, logical: &LogicalTypes) -> Vec<Option<LogicalType>> {
    types.names().iter().map(|name| logical.get(name).cloned()).collect()
}

/// Comma-separated values.
pub(super) struct Csv<W: Write> {
    writer: csv::Writer<W>,
    null: String,
    /// For each column, whether an empty text was written as nothing.
    has_empty: Vec<bool>,
    names: Vec<String>,
    logical: Vec<Option<LogicalType>>,
    field: Vec<u8>,
}

impl<W: Write> Csv<W> {
    /// Writes the header.
    pub(super) fn new(
        out: W,
        types: &Columns,
        logical: &LogicalTypes,
        null: String,
    ) -> Result<Csv<W>, Failed> {
        let mut writer = csv::Writer::from_writer(out);
        let names: Vec<String> = types.names().iter().map(|name| name.to_string()).collect();
        writer.write_record(&names).map_err(failed)?;
        let (has_empty, logical) = (vec![false; names.len()], by_place(types, logical));
        Ok(Csv { writer, null, has_empty, names, logical, field: Vec::new() })
    }
}

impl<W: Write> Sink for Csv<W> {
    fn write(&mut self, rows: Columns) -> Result<(), Failed> {
        for row in 0..rows.rows() {
            for ((at, (name, column)), has_empty) in rows.iter().enumerate().zip(&mut self.has_empty) {
                debug_assert_eq!(self.names.get(at).map(String::as_str), Some(&**name));
                if column.is_null(row) {
                    self.writer.write_field(&self.null).map_err(failed)?;
                    continue;
                }
                self.field.clear();
                put(&mut self.field, column, row, self.logical.get(at).and_then(Option::as_ref));
                if self.field == self.null.as_bytes() {
                    if !self.field.is_empty() {
                        let null = &self.null;
                        return Err(Failed::Usage(format!(
                            "column {name:?} holds {null:?}, which --null makes a null; choose another text"
                        )));
                    }
                    *has_empty = true;
                }
                self.writer.write_field(&self.field).map_err(failed)?;
            }
            self.writer.write_record(None::<&[u8]>).map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, Failed> {
        self.writer.flush().map_err(Failed::output)?;
        let alike = self.names.iter().zip(&self.has_empty).filter(|(_, has_empty)| **has_empty);
        let remark = |name: &String| {
            format!("column {name:?} has empty texts, which look like nulls; --null TEXT tells them apart")
        };
        Ok(alike.map(|(name, _)| remark(name)).collect())
    }
}

fn failed(error: csv::Error) -> Failed {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Failed::output(error),
        other => Failed::Output(std::io::Error::other(format!("{other:?}"))),
    }
}

/// A JSON object in each line, with objects in it for columns whose names are paths.
pub(super) struct Jsonl<W: Write> {
    out: W,
    members: Vec<Written>,
    logical: Vec<Option<LogicalType>>,
    line: Vec<u8>,
}

/// A member of an object: `"name":` with what stands before it, and what it is.
type Written = (Vec<u8>, Node);

enum Node {
    Column(usize),
    Object(Vec<Written>),
}

fn written(places: Vec<(Arc<str>, Nested)>) -> Vec<Written> {
    let member = |(at, (name, place)): (usize, (Arc<str>, Nested))| {
        let before = if at == 0 { '{' } else { ',' };
        let node = match place {
            Nested::Column(at) => Node::Column(at),
            Nested::Object(inner) => Node::Object(written(inner)),
        };
        (format!("{before}{}:", serde_json::Value::from(&*name)).into_bytes(), node)
    };
    places.into_iter().enumerate().map(member).collect()
}

impl<W: Write> Jsonl<W> {
    pub(super) fn new(out: W, types: &Columns, logical: &LogicalTypes) -> Jsonl<W> {
        let names: Vec<&str> = types.names().iter().map(|name| &**name).collect();
        Jsonl { out, members: written(nested(&names)), logical: by_place(types, logical), line: Vec::new() }
    }
}

impl<W: Write> Sink for Jsonl<W> {
    fn write(&mut self, rows: Columns) -> Result<(), Failed> {
        let columns: Vec<(&Column, Option<&LogicalType>)> =
            rows.iter().zip(&self.logical).map(|((_, column), logical)| (column, logical.as_ref())).collect();
        for row in 0..rows.rows() {
            self.line.clear();
            put_object(&mut self.line, &self.members, &columns, row)?;
            self.line.push(b'\n');
            self.out.write_all(&self.line).map_err(Failed::output)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<String>, Failed> {
        self.out.flush().map_err(Failed::output)?;
        Ok(Vec::new())
    }
}

/// Writes an object; of the objects in it those that hold nothing but nulls are null.
fn put_object(
    line: &mut Vec<u8>,
    members: &[Written],
    columns: &[(&Column, Option<&LogicalType>)],
    row: usize,
) -> Result<(), Failed> {
    for (name, node) in members {
        line.extend_from_slice(name);
        match node {
            Node::Column(at) => {
                if let Some((column, logical)) = columns.get(*at) {
                    put_json(line, column, row, *logical)?;
                }
            }
            inner if is_null(inner, columns, row) => line.extend_from_slice(b"null"),
            Node::Object(inner) => put_object(line, inner, columns, row)?,
        }
    }
    line.push(b'}');
    Ok(())
}

fn is_null(node: &Node, columns: &[(&Column, Option<&LogicalType>)], row: usize) -> bool {
    match node {
        Node::Column(at) => columns.get(*at).is_none_or(|(column, _)| column.is_null(row)),
        Node::Object(inner) => inner.iter().all(|(_, node)| is_null(node, columns, row)),
    }
}

fn put_json(
    line: &mut Vec<u8>,
    column: &Column,
    row: usize,
    logical: Option<&LogicalType>,
) -> Result<(), Failed> {
    if column.is_null(row) {
        line.extend_from_slice(b"null");
        return Ok(());
    }
    let is_text = match column.values() {
        Values::Utf8(_) => {
            let text = column.str_at(row).unwrap_or_default();
            return serde_json::to_writer(line, text).map_err(|error| Failed::output(error.into()));
        }
        Values::F64(v) => !v[row].is_finite(),
        Values::F32(v) => !v[row].is_finite(),
        Values::Bytes(_) | Values::Timestamp(_) | Values::Date(_) => true,
        Values::Bool(_) | Values::I64(_) | Values::I32(_) => false,
    };
    // None of these has a character that JSON escapes.
    if is_text {
        line.push(b'"');
    }
    put(line, column, row, logical);
    if is_text {
        line.push(b'"');
    }
    Ok(())
}
