//! A strict look at the quotes of comma-separated values.
//!
//! A quote that is not closed takes all lines behind it into one field, and text behind a closing quote is a sign of
//! one that opened too early. Both would lose lines without a word, so both end the reading.

use std::io::{self, Read};

/// What is wrong with a quote. Lines are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QuoteError {
    /// The file ends inside a quoted field.
    #[error(
        "a quote opens a field here and is never closed; close it, or write the field as \"\"\"…\" if the quote belongs to it"
    )]
    Open {
        /// The line of the opening quote.
        line: u64,
    },
    /// A quoted field goes on behind its closing quote.
    #[error(
        "text stands behind the quote that closes the field opened in line {opened}; double the quotes of the field, or close it where it ends"
    )]
    Behind {
        /// The line of the text.
        line: u64,
        /// The line of the opening quote.
        opened: u64,
    },
}

impl QuoteError {
    /// The line to look at.
    pub(super) fn line(self) -> u64 {
        match self {
            QuoteError::Open { line } | QuoteError::Behind { line, .. } => line,
        }
    }
}

/// Where in a line a byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the start of a field.
    Start,
    /// In a field without quotes, where a quote is a character like any other.
    Plain,
    /// In a quoted field.
    Quoted,
    /// Behind a quote in a quoted field, which closes it unless a second quote follows.
    Closed,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Passes bytes on, and fails where a quote is wrong. All bytes before that are passed on first, so that the lines
/// before are read.
pub(super) struct Quotes<R> {
    input: R,
    delimiter: u8,
    state: State,
    /// What may still follow of a byte order mark at the start of the file.
    mark: &'static [u8],
    line: u64,
    opened: u64,
    failed: Option<QuoteError>,
}

impl<R: Read> Quotes<R> {
    pub(super) fn new(input: R, delimiter: u8) -> Quotes<R> {
        let (state, mark) = (State::Start, BYTE_ORDER_MARK);
        Quotes { input, delimiter, state, mark, line: 1, opened: 1, failed: None }
    }

    fn step(&mut self, byte: u8) -> Result<(), QuoteError> {
        if let [expected, rest @ ..] = self.mark {
            self.mark = if byte == *expected { rest } else { &[] };
            if byte == *expected {
                self.state = if rest.is_empty() { State::Start } else { State::Plain };
                return Ok(());
            }
        }
        let ends = byte == self.delimiter || byte == b'\r' || byte == b'\n';
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::Closed,
            (State::Quoted, _) | (State::Closed, b'"') => State::Quoted,
            (State::Start, b'"') => {
                self.opened = self.line;
                State::Quoted
            }
            _ if ends => State::Start,
            (State::Closed, _) => return Err(QuoteError::Behind { line: self.line, opened: self.opened }),
            (State::Start | State::Plain, _) => State::Plain,
        };
        self.line += u64::from(byte == b'\n');
        Ok(())
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failed) = self.failed {
            return Err(io::Error::other(failed));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.input.read(buffer)?;
        if count == 0 && self.state == State::Quoted {
            self.failed = Some(QuoteError::Open { line: self.opened });
        }
        for (at, byte) in buffer.iter().take(count).enumerate() {
            if let Err(error) = self.step(*byte) {
                self.failed = Some(error);
                if at > 0 {
                    return Ok(at);
                }
                break;
            }
        }
        self.failed.map_or(Ok(count), |failed| Err(io::Error::other(failed)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is passed on, and what is wrong.
    fn read(text: &[u8], delimiter: u8) -> (Vec<u8>, Option<QuoteError>) {
        let mut passed = Vec::new();
        let ended = Quotes::new(text, delimiter).read_to_end(&mut passed);
        (passed, ended.err().map(|error| error.downcast::<QuoteError>().unwrap()))
    }

    #[test]
    fn proper_quotes_pass() {
        for text in [
            "",
            "a,b\n",
            "\"a\",\"b\"\r\n",
            "\"\",\"\"",
            "\"a\"\"b\"\n",
            "\"\"\"\"\n",
            "\"x\r\n,y\",1\n",
            "5\",6\"x\n",
            " \"a\"b\n",
            "\u{feff}\"a\",b\n",
            "\"a\"",
        ] {
            assert_eq!(read(text.as_bytes(), b','), (text.as_bytes().to_vec(), None), "{text:?}");
        }
    }

    #[test]
    fn wrong_quotes_are_named_with_their_line() {
        for (text, passed, error) in [
            ("a\n\"b\nc\n", 7, QuoteError::Open { line: 2 }),
            ("a,\"", 3, QuoteError::Open { line: 1 }),
            ("\u{feff}\"a", 5, QuoteError::Open { line: 1 }),
            ("\"a\"\"", 4, QuoteError::Open { line: 1 }),
            ("a\n\"b\"c\n", 5, QuoteError::Behind { line: 2, opened: 2 }),
            ("\"b\n\n\" ,c\n", 5, QuoteError::Behind { line: 3, opened: 1 }),
        ] {
            assert_eq!(
                read(text.as_bytes(), b','),
                (text.as_bytes()[..passed].to_vec(), Some(error)),
                "{text:?}"
            );
        }
        assert_eq!(read(b"\"a\";b", b';').1, None);
        assert_eq!(read(b"\"a\";b", b',').1, Some(QuoteError::Behind { line: 1, opened: 1 }));
    }

    proptest! {
        #[test]
        fn what_a_writer_writes_passes(records: Vec<Vec<String>>) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for record in records.iter().filter(|record| !record.is_empty()) {
                writer.write_record(record).unwrap();
            }
            let written = writer.into_inner().unwrap();
            prop_assert_eq!(read(&written, b','), (written.clone(), None));
        }

        #[test]
        fn no_bytes_panic_and_what_passes_is_a_prefix(text in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'\r'), Just(0xef), any::<u8>()], 0..60,
        )) {
            let (passed, error) = read(&text, b',');
            prop_assert!(text.starts_with(&passed));
            prop_assert!(error.is_some() || passed == text);
        }
    }
}
