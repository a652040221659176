//! Files of comma-separated values, plain or gzip'd, read line by line.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use csv::ByteRecord;
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use super::quotes::{QuoteError, Quotes};
use crate::error::Failed;

/// Bytes that are read ahead at once.
const BLOCK_BYTES: usize = 1 << 20;
/// Blocks that are read ahead.
const BLOCKS_AHEAD: usize = 4;

/// A file to read, as often as needed.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    bytes: u64,
    delimiter: u8,
}

impl Source {
    /// A regular file: it is read more than once.
    pub(crate) fn new(path: &Path, delimiter: u8) -> Result<Source, Failed> {
        let about = std::fs::metadata(path).map_err(|error| Failed::file("read", path, error))?;
        if !about.is_file() {
            return Err(Failed::input(
                path,
                "it is no regular file, and it is read twice; save it to one first",
            ));
        }
        Ok(Source { path: path.to_path_buf(), bytes: about.len(), delimiter })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length, as it is stored.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens the file, unzipped where it is zipped. `bar` advances with the bytes that are read.
    pub(super) fn bytes_of(&self, bar: &ProgressBar) -> Result<Box<dyn Read + Send>, Failed> {
        let file = File::open(&self.path).map_err(|error| Failed::file("open", &self.path, error))?;
        let file = bar.wrap_read(file);
        let zipped = self.path.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gz"));
        Ok(if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
    }

    /// Opens the file and reads its header. `bar` advances with the bytes that are read.
    pub(crate) fn open(&self, bar: &ProgressBar) -> Result<Lines, Failed> {
        let input = self.bytes_of(bar)?;
        let ahead = Ahead::new(Box::new(Quotes::new(input, self.delimiter)))
            .map_err(|error| Failed::file("start a thread for", &self.path, error))?;
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .buffer_capacity(256 << 10)
            .from_reader(ahead);
        let mut lines = Lines {
            path: self.path.display().to_string(),
            reader,
            names: Vec::new(),
            record: ByteRecord::new(),
            carriage_returns: false,
        };
        lines.read_header()?;
        Ok(lines)
    }
}

/// The lines of an open file behind its header.
pub(crate) struct Lines {
    path: String,
    reader: csv::Reader<Ahead>,
    names: Vec<String>,
    record: ByteRecord,
    /// Lines end with `\r\n`; the reader stops between the two.
    carriage_returns: bool,
}

impl Lines {
    fn read_header(&mut self) -> Result<(), Failed> {
        let empty = |what: &str| Failed::Input { path: self.path.clone(), what: what.to_string() };
        if !self.reader.read_byte_record(&mut self.record).map_err(|error| unreadable(&self.path, error))? {
            return Err(empty("it is empty; the first line has to name the columns"));
        }
        let mut names = Vec::with_capacity(self.record.len());
        for (at, name) in self.record.iter().enumerate() {
            let name = std::str::from_utf8(name).map_err(|_| {
                empty(&format!("the name of column {} is not UTF-8; convert the file", at + 1))
            })?;
            let name = if at == 0 { name.trim_start_matches('#') } else { name }.trim();
            if names.iter().any(|known| known == name) {
                return Err(empty(&format!("two columns are named {name:?}; rename one in the first line")));
            }
            names.push(name.to_string());
        }
        self.names = names;
        let newlines = newlines(&self.record);
        self.carriage_returns = self.reader.position().line() == 1 + newlines;
        Ok(())
    }

    /// Names of the columns; a leading `#` of the header is left out.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads the next line; false at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, Failed> {
        self.reader.read_byte_record(&mut self.record).map_err(|error| unreadable(&self.path, error))
    }

    /// The fields of the line.
    pub(crate) fn record(&self) -> &ByteRecord {
        &self.record
    }

    /// The number of the line, or of its first line where a quoted field has several, counted from 1.
    fn line(&self) -> u64 {
        let behind = self.reader.position().line();
        let counted = newlines(&self.record) + u64::from(!self.carriage_returns);
        let earliest = self.record.position().map_or(1, csv::Position::line);
        behind.saturating_sub(counted).max(earliest)
    }

    /// `file:line` or `file:line:column`, where the column counts fields from 1 and is named.
    pub(crate) fn place(&self, field: Option<usize>) -> String {
        let line = self.line();
        match field {
            None => format!("{}:{line}", self.path),
            Some(field) => {
                let name = self.names.get(field).map_or("", String::as_str);
                format!("{}:{line}:{}: column {name:?}", self.path, field + 1)
            }
        }
    }

    /// Refuses a line with another number of fields than the header.
    pub(crate) fn check_width(&self) -> Result<(), Problem> {
        let (found, expected) = (self.record.len(), self.names.len());
        if found == expected {
            return Ok(());
        }
        Err(Problem::line(format!(
            "the line has {found} fields, the header {expected}; correct its delimiters and quotes"
        )))
    }
}

fn newlines(record: &ByteRecord) -> u64 {
    record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64
}

fn unreadable(path: &str, error: csv::Error) -> Failed {
    match error.into_kind() {
        csv::ErrorKind::Io(source) => match source.downcast::<QuoteError>() {
            Ok(error) => Failed::Line { place: format!("{path}:{}", error.line()), what: error.to_string() },
            Err(source) => Failed::File { action: "read", path: path.to_string(), source },
        },
        other => Failed::Input { path: path.to_string(), what: format!("{other:?}") },
    }
}

/// What is wrong with a line.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The field, where it is one.
    pub(crate) field: Option<usize>,
    /// What is wrong and what to do.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn line(what: String) -> Problem {
        Problem { field: None, what }
    }

    pub(crate) fn field(field: usize, what: impl Into<String>) -> Problem {
        Problem { field: Some(field), what: what.into() }
    }

    /// The problem as an error about the current line.
    pub(crate) fn at(self, lines: &Lines) -> Failed {
        Failed::Line { place: lines.place(self.field), what: self.what }
    }
}

/// Reads and unzips on a thread of its own. The thread ends with the file, or when this is dropped.
struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Ahead {
    fn new(mut input: Box<dyn Read + Send>) -> io::Result<Ahead> {
        let (send, blocks) = sync_channel(BLOCKS_AHEAD);
        std::thread::Builder::new().name("ubctl-read".to_string()).spawn(move || {
            loop {
                let mut block = Vec::with_capacity(BLOCK_BYTES);
                let read = input.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block);
                let last = read.is_err() || block.is_empty();
                // What came before an error is good. Without an error, an empty block is the end.
                if (read.is_ok() || !block.is_empty()) && send.send(Ok(block)).is_err() {
                    return;
                }
                if let Err(error) = read {
                    let _ = send.send(Err(error));
                }
                if last {
                    return;
                }
            }
        })?;
        Ok(Ahead { blocks, block: Vec::new(), at: 0, ended: false })
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.block.len() && !self.ended {
            // A thread that ended without saying so did not read the whole file.
            let block =
                self.blocks.recv().map_err(|_| io::Error::other("the thread that reads ended early"))?;
            (self.block, self.at) = (block?, 0);
            self.ended = self.block.is_empty();
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines_of(text: &[u8]) -> Vec<(u64, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        File::create(&path).unwrap().write_all(text).unwrap();
        let source = Source::new(&path, b',').unwrap();
        let mut lines = source.open(&ProgressBar::hidden()).unwrap();
        assert_eq!(lines.names(), ["a", "b"]);
        let mut found = Vec::new();
        while lines.advance().unwrap() {
            let fields = lines.record().iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect();
            found.push((lines.line(), fields));
        }
        found
    }

    #[test]
    fn lines_are_counted_with_every_ending() {
        for (ending, last) in [("\n", "\n"), ("\r\n", "\r\n"), ("\n", ""), ("\r\n", "")] {
            let text = ["a,b", "1,2", "\"x\ny\",3", "4,5"].join(ending) + last;
            let numbers: Vec<u64> = lines_of(text.as_bytes()).into_iter().map(|(n, _)| n).collect();
            assert_eq!(numbers, [2, 3, 5], "{text:?}");
        }
        let numbers: Vec<u64> = lines_of(b"a,b\n\n\n1,2\n\n3,4\n").into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [4, 6]);
        let numbers: Vec<u64> =
            lines_of(b"a,b\r\n\r\n1,2\r\n\r\n3,4\r\n").into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [3, 5]);
    }

    #[test]
    fn headers_lose_marks_and_blanks() {
        assert_eq!(lines_of(b"\xef\xbb\xbfa, b\n1,2\n").len(), 1);
        assert_eq!(lines_of(b"#a,b \n1,2\n").len(), 1);
    }
}
