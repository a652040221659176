//! Columns of an Arrow file or stream on a disk, one by one: where its record batches lie is found without reading their rows, and
//! of these the bytes of the columns that are wanted are read alone.
//!
//! arrow2 decodes whole record batches. So the bytes of a column become a record batch of that column, which it decodes as any other.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow_format::ipc::planus::Builder;
use arrow_format::ipc::{Message, MessageHeader, RecordBatch};
use arrow2::datatypes::{DataType, Field, Schema};
use arrow2::io::ipc::read::StreamMetadata;
use arrow2::io::ipc::{IpcField, IpcSchema};
use underbelly_storage::{Column, Columns, LogicalTypes};

use crate::claims::{self, Kind};
use crate::columns;
use crate::error::ArrowError;
use crate::ipc::{
    CONTINUATION, DICTIONARIES_MAX, END, Limits, Messages, Parts, Reader, empty_of, fill, of_column, types_of,
};

/// The record batches of a file or stream, and where they lie in it.
#[derive(Debug)]
pub struct Index {
    schema: StreamMetadata,
    /// Columns of the messages, with those within structs.
    nodes: usize,
    /// The plain columns, by their paths.
    leaves: Vec<(String, DataType)>,
    limits: Limits,
    batches: Vec<Place>,
}

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u64,
    /// Bytes of the metadata and of what stands before it, and of the body behind it.
    head: u64,
    body: u64,
}

/// A record batch.
#[derive(Debug)]
struct Place {
    message: Span,
    rows: usize,
    /// The dictionaries that it points into, by their numbers.
    dictionaries: Arc<[(i64, Span)]>,
}

/// A file from some byte on.
struct From<'f> {
    file: &'f File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(to, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Index {
    /// Reads the metadata of all messages, and no body.
    ///
    /// # Errors
    /// As [`Reader::new`]; [`ArrowError::Rows`], which names the byte, where a message is none or cut short, or something stands behind the
    /// end.
    pub fn read(file: &File, limits: Limits) -> Result<Index, ArrowError> {
        let bytes = file.metadata()?.len();
        let mut reader = Reader::new(From { file, at: 0 }, limits)?;
        let mut batches = Vec::new();
        let mut dictionaries: Arc<[(i64, Span)]> = Arc::from([]);
        loop {
            let at = reader.messages.input.at;
            let here = |error: ArrowError| match error {
                ArrowError::Rows { what } => ArrowError::rows(format!("at byte {at}, {what}")),
                other => other,
            };
            let first = reader.messages.word().map_err(here)?;
            let Some(body) = reader.messages.advance_to_body(first).map_err(here)? else { break };
            let input = &mut reader.messages.input;
            let message = Span { at, head: input.at - at, body };
            let end = input.at.checked_add(body).filter(|end| *end <= bytes);
            let Some(end) = end else {
                let what = format!(
                    "a message has a body of {body} bytes, and the file ends at {bytes}: it is cut short"
                );
                return Err(here(ArrowError::rows(what)));
            };
            input.at = end;
            match kind(&reader.messages, message, reader.nodes, &limits).map_err(here)? {
                Kind::Schema { .. } => {
                    return Err(here(ArrowError::rows("not a schema and then record batches")));
                }
                Kind::Dictionary { id } => {
                    let others = dictionaries.iter().filter(|(known, _)| *known != id).copied();
                    dictionaries = others.chain([(id, message)]).collect();
                    if dictionaries.len() > DICTIONARIES_MAX {
                        let what =
                            format!("more than {DICTIONARIES_MAX} dictionaries; write some as plain texts");
                        return Err(here(ArrowError::rows(what)));
                    }
                }
                Kind::Batch { rows } => {
                    batches.push(Place { message, rows, dictionaries: dictionaries.clone() });
                }
            }
        }
        reader.end()?;
        let end = reader.messages.input.at;
        if end < bytes {
            return Err(ArrowError::rows(format!("{} bytes are behind the stream's end", bytes - end)));
        }
        let Reader { schema, nodes, leaves, .. } = reader;
        Ok(Index { schema, nodes, leaves, limits, batches })
    }

    /// Names and types of the columns, without rows. A column of Arrow's type `null` is left out; those within a struct have their
    /// paths as names.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where two columns have one name.
    pub fn empty(&self) -> Result<Columns, ArrowError> {
        empty_of(&self.leaves)
    }

    /// What the columns hold, where that is not what is stored.
    pub fn types(&self) -> LogicalTypes {
        types_of(&self.leaves)
    }

    /// Number of record batches.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Rows of a record batch; 0 where there is no such batch.
    pub fn rows(&self, batch: usize) -> usize {
        self.batches.get(batch).map_or(0, |place| place.rows)
    }

    /// Bytes of a record batch in the file, and of the dictionaries that it points into.
    pub fn bytes(&self, batch: usize) -> u64 {
        let of_place = |place: &Place| {
            let dictionaries = place.dictionaries.iter().map(|(_, message)| message.body);
            dictionaries.fold(place.message.body, u64::saturating_add)
        };
        self.batches.get(batch).map_or(0, of_place)
    }

    /// A column of a record batch; `None` where there is no such column, or it is of Arrow's type `null`.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where it cannot be read, also because the file is another by now; [`ArrowError::Io`].
    pub fn column(&self, file: &File, batch: usize, name: &str) -> Result<Option<Column>, ArrowError> {
        let Some(leaf) = self.leaves.iter().find(|(known, _)| known == name) else { return Ok(None) };
        let Some(place) = self.batches.get(batch) else { return Ok(None) };
        let empty = columns::empty(&leaf.1).map_err(|what| of_column(name, what))?;
        let Some(empty) = empty else { return Ok(None) };
        let (found, all) = self.found(name);
        let Some(found) = found else { return Ok(None) };
        let Span { at, head, body } = place.message;
        let mut messages = Messages::new(From { file, at }, self.limits);
        let first = messages.word()?;
        let is_same = messages.advance_to_body(first)? == Some(body) && messages.input.at == at + head;
        let is_same = is_same
            && kind(&messages, place.message, self.nodes, &self.limits)? == Kind::Batch { rows: place.rows };
        if !is_same {
            return Err(ArrowError::rows(format!("at byte {at} stands another message than before")));
        }
        let (nodes, mut buffers) = claims::column(messages.metadata(), &found.nodes, &found.buffers, all)?;
        // Buffers lie within the body, as `kind` has checked. Of the structs around the column there is validity alone, a bit for each row,
        // which is read for itself: other columns may stand between it and the column's own.
        let (around, own) = buffers.split_at_mut(nodes.len().saturating_sub(1));
        let mut bytes = Vec::new();
        for buffer in around {
            buffer.length = buffer.length.min(place.rows.div_ceil(8) as i64);
            let start = at + head + buffer.offset as u64;
            buffer.offset = bytes.len() as i64;
            bytes.extend(read(file, start..start + buffer.length as u64)?);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let start = own.iter().filter(|b| b.length > 0).map(|b| b.offset).min().unwrap_or(0);
        let end = own.iter().filter(|b| b.length > 0).map(|b| b.offset + b.length).max().unwrap_or(0);
        let before = bytes.len() as i64;
        own.iter_mut().for_each(|buffer| buffer.offset = before + (buffer.offset - start).max(0));
        bytes.extend(read(file, at + head + start as u64..at + head + end as u64)?);
        let batch = RecordBatch {
            length: place.rows as i64,
            nodes: Some(nodes),
            buffers: Some(buffers),
            compression: None,
        };
        let message = Message {
            version: self.schema.version,
            header: Some(MessageHeader::RecordBatch(Box::new(batch))),
            body_length: bytes.len() as i64,
            custom_metadata: None,
        };
        let mut builder = Builder::new();
        let metadata = builder.finish(message, None);
        let length = i32::try_from(metadata.len()).unwrap_or(i32::MAX).to_le_bytes();
        let mut dictionary = Vec::new();
        if let Some(id) = found.dictionary {
            let known = place.dictionaries.iter().find(|(known, _)| *known == id);
            let (_, Span { at, head, body }) =
                known.ok_or_else(|| ArrowError::rows(format!("dictionary {id} is missing")))?;
            dictionary = read(file, *at..at + head + body)?;
        }
        let schema = StreamMetadata {
            schema: Schema::from(vec![found.field]),
            version: self.schema.version,
            ipc_schema: IpcSchema {
                fields: vec![found.ipc_field],
                is_little_endian: self.schema.ipc_schema.is_little_endian,
            },
        };
        let parts = [&dictionary[..], &CONTINUATION[..], &length[..], metadata, &bytes[..], &END[..]];
        let mut column = [Some(empty)];
        let parts = Parts(parts.into_iter().collect());
        fill(&schema, parts, place.rows, std::slice::from_ref(leaf), &mut column)?;
        let [column] = column;
        Ok(column)
    }

    /// Where a plain column stands among all, and how many buffers all have.
    fn found(&self, name: &str) -> (Option<Leaf>, usize) {
        let mut walk = Walk { wanted: name, nodes: 0, buffers: 0 };
        let (mut leaf, none) = (None, IpcField::default());
        for (at, field) in self.schema.schema.fields.iter().enumerate() {
            let ipc_field = self.schema.ipc_schema.fields.get(at).unwrap_or(&none);
            let found = walk.field(field, ipc_field, &field.name);
            leaf = leaf.or(found);
        }
        (leaf, walk.buffers)
    }
}

/// A plain column with the structs around it and nothing else of these.
struct Leaf {
    field: Field,
    ipc_field: IpcField,
    dictionary: Option<i64>,
    /// The positions of its nodes and buffers among those of all columns, those of the structs before its own.
    nodes: Vec<usize>,
    buffers: Vec<usize>,
}

/// Looks at columns in the order in which messages have them.
struct Walk<'n> {
    wanted: &'n str,
    /// How many there were before.
    nodes: usize,
    buffers: usize,
}

impl Walk<'_> {
    fn field(&mut self, field: &Field, ipc_field: &IpcField, path: &str) -> Option<Leaf> {
        let (node, first) = (self.nodes, self.buffers);
        self.nodes += 1;
        let DataType::Struct(members) = field.data_type.to_logical_type() else {
            self.buffers += buffers(field);
            return (path == self.wanted).then(|| Leaf {
                field: field.clone(),
                ipc_field: ipc_field.clone(),
                dictionary: ipc_field.dictionary_id,
                nodes: vec![node],
                buffers: (first..self.buffers).collect(),
            });
        };
        self.buffers += 1;
        let (mut found, none) = (None, IpcField::default());
        for (at, member) in members.iter().enumerate() {
            let of_member = ipc_field.fields.get(at).unwrap_or(&none);
            let leaf = self.field(member, of_member, &format!("{path}.{}", member.name));
            found = found.or(leaf);
        }
        let mut leaf = found?;
        leaf.field = Field::new(&field.name, DataType::Struct(vec![leaf.field]), field.is_nullable);
        leaf.ipc_field = IpcField { fields: vec![leaf.ipc_field], dictionary_id: None };
        leaf.nodes.insert(0, node);
        leaf.buffers.insert(0, first);
        Some(leaf)
    }
}

/// What a message is whose metadata was read last.
fn kind(
    messages: &Messages<From<'_>>,
    message: Span,
    nodes: usize,
    limits: &Limits,
) -> Result<Kind, ArrowError> {
    let body = usize::try_from(message.body).unwrap_or(usize::MAX);
    claims::check(messages.metadata(), body, Some(nodes), limits)
}

/// Bytes of a file.
fn read(file: &File, range: Range<u64>) -> Result<Vec<u8>, ArrowError> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    let got = From { file, at: range.start }.take(length).read_to_end(&mut bytes)?;
    if got as u64 == length { Ok(bytes) } else { Err(ArrowError::rows("the file was cut short meanwhile")) }
}

/// How many buffers a plain column of a record batch has.
fn buffers(field: &Field) -> usize {
    match field.data_type.to_logical_type() {
        DataType::Null => 0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
        // Those that are taken are plain, and dictionaries have their places here alone.
        _ => 2,
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
mod tests;
