//! Arrow IPC: a schema, and record batches of plain columns behind it, as a stream or as a file.
//!
//! A file is a stream between two marks, with a list of its batches at the end; it is read as one, from its beginning. arrow2
//! decodes and encodes the messages, one at a time.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow2::array::Array;
use arrow2::bitmap::Bitmap;
use arrow2::chunk::Chunk;
use arrow2::datatypes::{DataType, Field, Schema};
use arrow2::io::ipc::read::{StreamMetadata, StreamReader, StreamState, read_stream_metadata};
use arrow2::io::ipc::write::{FileWriter, StreamWriter, WriteOptions};
use underbelly_storage::{Column, Columns, LogicalTypes};

use crate::claims::{self, Kind};
use crate::columns;
use crate::error::ArrowError;

/// Before the length of a message, in streams since 2019.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];
/// At both ends of a file.
const MARK: [u8; 6] = *b"ARROW1";
/// A message without metadata ends the stream.
pub(crate) const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Dictionaries of a stream. arrow2 calls itself for each that it reads before a batch, so that they are not without bound.
pub(crate) const DICTIONARIES_MAX: usize = 256;
/// Bytes that are made room for before they have come.
const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// How much is read, checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Columns.
    pub columns: usize,
    /// Rows altogether.
    pub rows: usize,
    /// Bytes of the metadata of one message.
    pub metadata_bytes: u32,
    /// Bytes of the body of one message, and of all dictionaries.
    pub body_bytes: u64,
    /// Whether columns may be dictionary-encoded. They are read as plain ones, which may take far more memory than they came in.
    pub dictionaries: bool,
    /// Whether columns may be structs. They are read as the columns within them, by their paths: `bid.price` of a struct `bid`.
    pub structs: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            columns: 4_096,
            rows: usize::MAX,
            metadata_bytes: 16 << 20,
            body_bytes: 4 << 30,
            dictionaries: true,
            structs: true,
        }
    }
}

/// Reads a stream or a file, a record batch at a time. As an iterator it ends behind the last batch, or after an error; a
/// stream without its end is cut short, which is an error.
pub struct Reader<R> {
    pub(crate) messages: Messages<R>,
    is_file: bool,
    pub(crate) schema: StreamMetadata,
    /// Columns of the messages, with those within structs.
    pub(crate) nodes: usize,
    /// The plain columns.
    pub(crate) leaves: Vec<(String, DataType)>,
    rows: usize,
    /// Messages of dictionaries, the newest of each number.
    dictionaries: Vec<(i64, Vec<u8>)>,
    is_over: bool,
}

/// Reads one message after another.
pub(crate) struct Messages<R> {
    pub(crate) input: R,
    limits: Limits,
    /// The metadata of the message that was read last, with what stands before it, and its body.
    pub(crate) head: Vec<u8>,
    metadata_at: usize,
    body: Vec<u8>,
}

impl<R: Read> Messages<R> {
    pub(crate) fn new(input: R, limits: Limits) -> Messages<R> {
        Messages { input, limits, head: Vec::new(), metadata_at: 0, body: Vec::new() }
    }

    pub(crate) fn word(&mut self) -> Result<[u8; 4], ArrowError> {
        let mut word = [0; 4];
        self.input.read_exact(&mut word).map_err(cut)?;
        Ok(word)
    }

    /// Appends `bytes` of the input; no room is made for those that have not come.
    fn take(input: &mut R, bytes: u64, to: &mut Vec<u8>) -> Result<(), ArrowError> {
        to.reserve(usize::try_from(bytes.min(AHEAD_BYTES_MAX)).unwrap_or(0));
        let got = input.by_ref().take(bytes).read_to_end(to)?;
        if got as u64 == bytes { Ok(()) } else { Err(ArrowError::rows("the stream is cut short")) }
    }

    /// Reads the message that begins with `first`; false at the end of the stream.
    fn advance(&mut self, first: [u8; 4]) -> Result<bool, ArrowError> {
        let Some(bytes) = self.advance_to_body(first)? else { return Ok(false) };
        Self::take(&mut self.input, bytes, &mut self.body)?;
        Ok(true)
    }

    /// Reads the metadata of that message alone; how many bytes its body has.
    pub(crate) fn advance_to_body(&mut self, first: [u8; 4]) -> Result<Option<u64>, ArrowError> {
        self.head.clear();
        self.body.clear();
        self.head.extend_from_slice(&first);
        let mut length = first;
        if first == CONTINUATION {
            length = self.word()?;
            self.head.extend_from_slice(&length);
        }
        self.metadata_at = self.head.len();
        let length = u32::try_from(i32::from_le_bytes(length)).ok();
        let length = length.filter(|length| *length <= self.limits.metadata_bytes);
        let length =
            length.ok_or_else(|| ArrowError::rows("the stream is cut short, or is none of Arrow"))?;
        if length == 0 {
            return Ok(None);
        }
        Self::take(&mut self.input, length.into(), &mut self.head)?;
        let bytes = claims::body_bytes(self.metadata())?;
        if bytes > self.limits.body_bytes {
            let limit = self.limits.body_bytes;
            return Err(ArrowError::rows(format!("a message of {bytes} bytes is longer than {limit}")));
        }
        Ok(Some(bytes))
    }

    pub(crate) fn metadata(&self) -> &[u8] {
        self.head.get(self.metadata_at..).unwrap_or_default()
    }

    fn kind(&self, nodes: Option<usize>) -> Result<Kind, ArrowError> {
        claims::check(self.metadata(), self.body.len(), nodes, &self.limits)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the schema.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where it is none, or has columns that cannot be taken; [`ArrowError::Io`].
    pub fn new(input: R, limits: Limits) -> Result<Reader<R>, ArrowError> {
        let mut messages = Messages::new(input, limits);
        let mut first = messages.word()?;
        let is_file = first == MARK[..4];
        if is_file {
            if messages.word()?[..2] != MARK[4..] {
                return Err(ArrowError::rows("it begins as an Arrow file does, and is none"));
            }
            first = messages.word()?;
        }
        let has_schema = messages.advance(first)?;
        let Some(Kind::Schema { columns, nodes }) = has_schema.then(|| messages.kind(None)).transpose()?
        else {
            return Err(ArrowError::rows("the stream has no schema"));
        };
        let head = &messages.head;
        let schema = caught(|| read_stream_metadata(&mut &head[..]).map_err(|error| failed(&error)))?;
        if schema.schema.fields.len() != columns || schema.ipc_schema.fields.len() != columns {
            return Err(ArrowError::rows("the schema does not agree with itself"));
        }
        if !schema.ipc_schema.is_little_endian {
            return Err(ArrowError::rows("its numbers are big-endian; write it on another machine"));
        }
        let mut leaves = Vec::new();
        for field in &schema.schema.fields {
            columns::leaves(field, field.name.clone(), &mut leaves)
                .map_err(|(path, what)| of_column(&path, what))?;
        }
        let (rows, dictionaries) = (0, Vec::new());
        let reader = Reader { messages, is_file, schema, nodes, leaves, rows, dictionaries, is_over: false };
        reader.empty()?;
        Ok(reader)
    }

    /// Names and types of the columns, without rows. A column of Arrow's type `null` is left out; those within a struct have their
    /// paths as names.
    ///
    /// # Errors
    /// [`ArrowError::Rows`] where a column has a type that cannot be taken, or two have one name.
    pub fn empty(&self) -> Result<Columns, ArrowError> {
        empty_of(&self.leaves)
    }

    /// What the columns hold, where that is not what is stored.
    pub fn types(&self) -> LogicalTypes {
        types_of(&self.leaves)
    }

    fn found(&self) -> Result<Vec<Option<Column>>, ArrowError> {
        found(&self.leaves)
    }

    /// The next batch; `None` behind the last.
    fn advance(&mut self) -> Result<Option<Columns>, ArrowError> {
        loop {
            let first = self.messages.word()?;
            if !self.messages.advance(first)? {
                self.end()?;
                return Ok(None);
            }
            let Messages { head, body, limits, .. } = &self.messages;
            match self.messages.kind(Some(self.nodes))? {
                Kind::Schema { .. } => return Err(ArrowError::rows("not a schema and then record batches")),
                Kind::Dictionary { id } => {
                    self.dictionaries.retain(|(known, _)| *known != id);
                    let kept = self.dictionaries.iter().map(|(_, message)| message.len()).sum::<usize>();
                    if (kept + head.len() + body.len()) as u64 > limits.body_bytes {
                        let limit = limits.body_bytes;
                        return Err(ArrowError::rows(format!("dictionaries are longer than {limit} bytes")));
                    }
                    if self.dictionaries.len() == DICTIONARIES_MAX {
                        let what =
                            format!("more than {DICTIONARIES_MAX} dictionaries; write some as plain texts");
                        return Err(ArrowError::rows(what));
                    }
                    self.dictionaries.push((id, [&head[..], &body[..]].concat()));
                }
                Kind::Batch { rows } => {
                    self.rows = self.rows.saturating_add(rows);
                    if self.rows > limits.rows {
                        let limit = limits.rows;
                        return Err(ArrowError::rows(format!("more than {limit} rows; use smaller cells")));
                    }
                    return self.batch(rows).map(Some);
                }
            }
        }
    }

    /// Decodes the batch of `rows` rows that was read.
    fn batch(&self, rows: usize) -> Result<Columns, ArrowError> {
        let Messages { head, body, .. } = &self.messages;
        let dictionaries = Parts(self.dictionaries.iter().map(|(_, message)| &message[..]).collect());
        let bytes = dictionaries.chain(&head[..]).chain(&body[..]).chain(&END[..]);
        let mut found = self.found()?;
        fill(&self.schema, bytes, rows, &self.leaves, &mut found)?;
        named(&self.leaves, found)
    }

    /// Behind the end of the stream: a file's list of its batches, which is not needed, and its mark.
    pub(crate) fn end(&mut self) -> Result<(), ArrowError> {
        if !self.is_file {
            return Ok(());
        }
        let (mut footer, limit) = (Vec::new(), u64::from(self.messages.limits.metadata_bytes));
        self.messages.input.by_ref().take(limit).read_to_end(&mut footer)?;
        let whole = footer.split_last_chunk::<6>().filter(|(_, mark)| **mark == MARK);
        let whole = whole.and_then(|(rest, _)| rest.split_last_chunk::<4>());
        let is_whole = whole.is_some_and(|(rest, length)| {
            usize::try_from(i32::from_le_bytes(*length)).is_ok_and(|length| length == rest.len())
        });
        if is_whole { Ok(()) } else { Err(ArrowError::rows("the end of the file is missing")) }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Columns, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.advance().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Decodes a stream of dictionaries and one record batch of `rows` rows behind them into columns, of which there is one for each
/// of the plain ones that has a type.
pub(crate) fn fill(
    schema: &StreamMetadata,
    bytes: impl Read,
    rows: usize,
    leaves: &[(String, DataType)],
    found: &mut [Option<Column>],
) -> Result<(), ArrowError> {
    caught(|| {
        let mut batches = StreamReader::new(bytes, schema.clone(), None);
        let Some(StreamState::Some(chunk)) = batches.next().transpose().map_err(|error| failed(&error))?
        else {
            return Err(ArrowError::rows("a record batch is none"));
        };
        let mut waiting = found.iter_mut().zip(leaves);
        let mut append = |array: &dyn Array, whole: Option<&Bitmap>| {
            let Some((column, (name, _))) = waiting.next() else { return Ok(()) };
            let column = column.as_mut();
            // Where offsets are missing, arrow2 makes an array without rows.
            let appended = match array.len() == rows {
                true => column.map_or(Ok(()), |column| columns::append(column, array, whole)),
                false => Err(format!("holds {} rows in a record batch of {rows}", array.len())),
            };
            appended.map_err(|what| format!("column {name:?} {what}"))
        };
        for array in chunk.arrays() {
            columns::each_leaf(&**array, None, &mut append).map_err(ArrowError::rows)?;
        }
        Ok(())
    })
}

/// Slices, read one behind another.
pub(crate) struct Parts<'a>(pub(crate) VecDeque<&'a [u8]>);

impl Read for Parts<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        while self.0.front().is_some_and(|part| part.is_empty()) {
            self.0.pop_front();
        }
        self.0.front_mut().map_or(Ok(0), |part| part.read(to))
    }
}

pub(crate) fn of_column(name: &str, what: String) -> ArrowError {
    ArrowError::rows(format!("column {name:?} {what}"))
}

/// An empty column for each of the plain ones that has a type.
fn found(leaves: &[(String, DataType)]) -> Result<Vec<Option<Column>>, ArrowError> {
    let empty = |(name, of): &(String, DataType)| columns::empty(of).map_err(|what| of_column(name, what));
    leaves.iter().map(empty).collect()
}

/// Names and types of plain columns, without rows.
pub(crate) fn empty_of(leaves: &[(String, DataType)]) -> Result<Columns, ArrowError> {
    named(leaves, found(leaves)?)
}

/// What plain columns hold, where that is not what is stored.
pub(crate) fn types_of(leaves: &[(String, DataType)]) -> LogicalTypes {
    let mut types = LogicalTypes::new();
    for (name, data_type) in leaves {
        let logical = columns::logical(data_type);
        logical.into_iter().for_each(|logical| types.insert(name.as_str(), logical));
    }
    types
}

fn named(leaves: &[(String, DataType)], found: Vec<Option<Column>>) -> Result<Columns, ArrowError> {
    let mut rows = Columns::new();
    for (column, (name, _)) in found.into_iter().zip(leaves) {
        let Some(column) = column else { continue };
        rows.insert(name.as_str(), column).map_err(|error| ArrowError::rows(error.to_string()))?;
    }
    Ok(rows)
}

/// What arrow2 does with bytes that it did not expect.
fn caught<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(done) => done,
        Err(_) => Err(ArrowError::rows("the Arrow reader gave up on them")),
    }
}

/// The end of the input within a message is a stream that is cut short.
fn cut(error: std::io::Error) -> ArrowError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ArrowError::rows("the stream is cut short"),
        _ => error.into(),
    }
}

fn failed(error: &arrow2::error::Error) -> ArrowError {
    ArrowError::rows(error.to_string())
}

fn unfit(error: arrow2::error::Error) -> ArrowError {
    match error {
        arrow2::error::Error::Io(error) => error.into(),
        other => ArrowError::unfit(other.to_string()),
    }
}

/// Writes a stream or a file, a record batch at a time. What is not [finished](Writer::finish) has no end.
pub struct Writer<W: Write> {
    form: Form<W>,
    schema: Schema,
    types: LogicalTypes,
}

enum Form<W: Write> {
    Stream(StreamWriter<W>),
    File(FileWriter<W>),
}

impl<W: Write> Writer<W> {
    /// Begins a stream; `types` has its columns, whose rows do not matter.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where it cannot be written.
    pub fn stream(out: W, types: &Columns) -> Result<Writer<W>, ArrowError> {
        Writer::stream_typed(out, types, &LogicalTypes::new())
    }

    /// The same, where some columns are not what is stored: decimals are `decimal128(19, scale)`, instants name their zone.
    ///
    /// # Errors
    /// As [`Writer::stream`].
    pub fn stream_typed(out: W, types: &Columns, logical: &LogicalTypes) -> Result<Writer<W>, ArrowError> {
        let schema = schema_of(types, logical)?;
        let mut writer = StreamWriter::new(out, WriteOptions::default());
        writer.start(&schema, None).map_err(unfit)?;
        Ok(Writer { form: Form::Stream(writer), schema, types: logical.clone() })
    }

    /// Begins a file; `types` has its columns, whose rows do not matter.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where it cannot be written.
    pub fn file(out: W, types: &Columns) -> Result<Writer<W>, ArrowError> {
        Writer::file_typed(out, types, &LogicalTypes::new())
    }

    /// The same, where some columns are not what is stored: decimals are `decimal128(19, scale)`, instants name their zone.
    ///
    /// # Errors
    /// As [`Writer::file`].
    pub fn file_typed(out: W, types: &Columns, logical: &LogicalTypes) -> Result<Writer<W>, ArrowError> {
        let schema = schema_of(types, logical)?;
        let mut writer = FileWriter::new(out, schema.clone(), None, WriteOptions::default());
        writer.start().map_err(unfit)?;
        Ok(Writer { form: Form::File(writer), schema, types: logical.clone() })
    }

    /// Writes a record batch.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where the columns are others than at the beginning, one has more than 2 GiB of text, or it cannot be
    /// written.
    pub fn write(&mut self, rows: Columns) -> Result<(), ArrowError> {
        let mut arrays = Vec::with_capacity(rows.width());
        for ((name, column), field) in rows.into_columns().into_iter().zip(&self.schema.fields) {
            let array = columns::to_arrow(column, self.types.get(&name)).map_err(unfit)?;
            if *name != *field.name || *array.data_type() != field.data_type {
                let what = format!("column {name:?} holds {:?}", array.data_type());
                return Err(ArrowError::unfit(format!("{what} where {:?} was to be", field.data_type)));
            }
            arrays.push(array);
        }
        if arrays.len() != self.schema.fields.len() {
            return Err(ArrowError::unfit("a batch has fewer columns than the first"));
        }
        let chunk = Chunk::try_new(arrays).map_err(unfit)?;
        match &mut self.form {
            Form::Stream(writer) => writer.write(&chunk, None),
            Form::File(writer) => writer.write(&chunk, None),
        }
        .map_err(unfit)
    }

    /// Writes the end.
    ///
    /// # Errors
    /// [`ArrowError::Unfit`] where it cannot be written.
    pub fn finish(self) -> Result<W, ArrowError> {
        match self.form {
            Form::Stream(mut writer) => {
                writer.finish().map_err(unfit)?;
                Ok(writer.into_inner())
            }
            Form::File(mut writer) => {
                writer.finish().map_err(unfit)?;
                Ok(writer.into_inner())
            }
        }
    }
}

fn schema_of(types: &Columns, logical: &LogicalTypes) -> Result<Schema, ArrowError> {
    let mut fields = Vec::with_capacity(types.width());
    for (name, column) in types.iter() {
        let array = columns::to_arrow(Column::new(column.column_type()), logical.get(name)).map_err(unfit)?;
        fields.push(Field::new(name.to_string(), array.data_type().clone(), true));
    }
    Ok(Schema::from(fields))
}

/// Appends rows to `out` as a stream of one record batch. Texts of more than 2 GiB get long offsets.
///
/// # Errors
/// [`ArrowError::Unfit`] where Arrow does not take them.
pub fn encode(rows: Columns, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut fields = Vec::with_capacity(rows.width());
    let mut arrays = Vec::with_capacity(rows.width());
    for (name, column) in rows.into_columns() {
        let array = columns::to_arrow(column, None).map_err(unfit)?;
        fields.push(Field::new(name.to_string(), array.data_type().clone(), true));
        arrays.push(array);
    }
    let mut writer = StreamWriter::new(out, WriteOptions::default());
    writer.start(&Schema::from(fields), None).map_err(unfit)?;
    let chunk = Chunk::try_new(arrays).map_err(unfit)?;
    writer.write(&chunk, None).map_err(unfit)?;
    writer.finish().map_err(unfit)
}

/// The rows of a stream or file: its record batches one behind another, and nothing behind its end. Shorter integers widen; a
/// column of Arrow's type `null` is left out.
///
/// # Errors
/// [`ArrowError::Rows`], which says what is wrong.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Columns, ArrowError> {
    let mut reader = Reader::new(bytes, limits)?;
    // Whoever takes the rows alone would take scaled integers for the numbers.
    if let Some((name, logical)) = reader.types().iter().find(|(_, logical)| logical.scale().is_some()) {
        return Err(ArrowError::rows(format!(
            "column {name:?} holds {logical}; send a float, or a scaled integer"
        )));
    }
    let mut found: Option<Vec<_>> = None;
    for batch in &mut reader {
        let batch = batch?.into_columns();
        let Some(found) = &mut found else {
            found = Some(batch);
            continue;
        };
        for ((name, column), (_, more)) in found.iter_mut().zip(&batch) {
            let extended = column.extend_range(more, 0..more.len());
            extended
                .ok_or_else(|| ArrowError::rows(format!("column {name:?} has texts of more than 4 GiB")))?;
        }
    }
    let rest = reader.messages.input;
    if !rest.is_empty() {
        return Err(ArrowError::rows(format!("{} bytes are behind the stream's end", rest.len())));
    }
    let Some(found) = found else { return reader_types(bytes, limits) };
    let mut rows = Columns::new();
    for (name, column) in found {
        rows.insert(name, column).map_err(|error| ArrowError::rows(error.to_string()))?;
    }
    Ok(rows)
}

/// The columns of a stream without record batches.
fn reader_types(bytes: &[u8], limits: Limits) -> Result<Columns, ArrowError> {
    Reader::new(bytes, limits)?.empty()
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
