//! Frames: a header of 16 bytes, a control part in CBOR, and a data part that the control part speaks of.

use std::io::{self, ErrorKind, Read, Write};

use crate::error::ProtocolError;
use crate::limits::{CONTROL_BYTES_MAX, DATA_BYTES_MAX};

/// The first bytes of each frame.
pub const MAGIC: [u8; 4] = *b"UBF1";

/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;

/// Bytes up to which a frame goes out in one write.
const ONE_WRITE_BYTES: usize = 64 << 10;

/// A frame as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// A message in CBOR.
    pub control: Vec<u8>,
    /// Rows and blobs that it speaks of.
    pub data: Vec<u8>,
}

/// Writes a frame.
///
/// # Errors
/// [`ProtocolError::TooLong`], and nothing is written; [`ProtocolError::Io`] where the stream refuses.
pub fn write(out: &mut impl Write, control: &[u8], data: &[u8]) -> Result<(), ProtocolError> {
    let control_bytes = check_length("control", control.len() as u64, u64::from(CONTROL_BYTES_MAX))?;
    let data_bytes = check_length("data", data.len() as u64, DATA_BYTES_MAX)?;
    let mut head = Vec::with_capacity(HEADER_BYTES + control.len() + data.len().min(ONE_WRITE_BYTES));
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&(control_bytes as u32).to_le_bytes());
    head.extend_from_slice(&data_bytes.to_le_bytes());
    head.extend_from_slice(control);
    if head.len() + data.len() <= ONE_WRITE_BYTES {
        head.extend_from_slice(data);
        out.write_all(&head)?;
    } else {
        out.write_all(&head)?;
        out.write_all(data)?;
    }
    out.flush()?;
    Ok(())
}

/// Reads a frame.
///
/// # Errors
/// [`ProtocolError::Closed`] where the stream ends before it, [`ProtocolError::CutShort`] where it ends within it,
/// [`ProtocolError::NoFrame`] where something else is there, [`ProtocolError::TooLong`] where it says that it is longer than
/// is allowed, [`ProtocolError::Io`] where the stream refuses.
pub fn read(input: &mut impl Read) -> Result<Frame, ProtocolError> {
    let mut header = [0; HEADER_BYTES];
    let got = read_up_to(input, &mut header)?;
    let begun = &header[..got.min(MAGIC.len())];
    if got == 0 {
        return Err(ProtocolError::Closed);
    }
    if *begun != MAGIC[..begun.len()] {
        let found = String::from_utf8_lossy(&header[..got]).into_owned();
        return Err(ProtocolError::NoFrame { found });
    }
    if got < HEADER_BYTES {
        let (got, expected) = (got as u64, HEADER_BYTES as u64);
        return Err(ProtocolError::CutShort { part: "header", got, expected });
    }
    let [_, _, _, _, a, b, c, d, data @ ..] = header;
    let control = u64::from(u32::from_le_bytes([a, b, c, d]));
    let control = check_length("control", control, u64::from(CONTROL_BYTES_MAX))?;
    let data = check_length("data", u64::from_le_bytes(data), DATA_BYTES_MAX)?;
    Ok(Frame { control: read_part(input, "control", control)?, data: read_part(input, "data", data)? })
}

fn check_length(part: &'static str, found: u64, limit: u64) -> Result<u64, ProtocolError> {
    if found > limit { Err(ProtocolError::TooLong { part, found, limit }) } else { Ok(found) }
}

/// Bytes for which memory is taken before they have come.
const AHEAD_BYTES: u64 = 1 << 20;

/// Reads a part; memory is taken as it comes.
fn read_part(input: &mut impl Read, part: &'static str, expected: u64) -> Result<Vec<u8>, ProtocolError> {
    let mut bytes = Vec::with_capacity(expected.min(AHEAD_BYTES) as usize);
    let got = input.take(expected).read_to_end(&mut bytes)? as u64;
    if got < expected { Err(ProtocolError::CutShort { part, got, expected }) } else { Ok(bytes) }
}

/// Fills the buffer, or as much of it as there is.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(control: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, control, data).unwrap();
        out
    }

    /// A change of these bytes is another version of the protocol.
    #[test]
    fn the_bytes_of_a_frame_are_fixed() {
        assert_eq!(bytes(b"\xa0", b"xyz"), b"UBF1\x01\0\0\0\x03\0\0\0\0\0\0\0\xa0xyz");
    }

    #[test]
    fn what_is_written_is_read_and_a_cut_is_told() {
        let long = vec![7; ONE_WRITE_BYTES + 1];
        let whole = [bytes(b"one", b""), bytes(b"two", &long)].concat();
        let mut input = &whole[..];
        assert_eq!(read(&mut input).unwrap(), Frame { control: b"one".to_vec(), data: Vec::new() });
        assert_eq!(read(&mut input).unwrap(), Frame { control: b"two".to_vec(), data: long });
        assert!(matches!(read(&mut input), Err(ProtocolError::Closed)));
        for cut in 1..19 {
            let error = read(&mut &whole[..cut]).unwrap_err();
            assert!(matches!(error, ProtocolError::CutShort { .. }), "{cut}: {error}");
        }
    }

    #[test]
    fn lengths_are_refused_before_memory_is_taken() {
        let header = |control: u32, data: u64| {
            let mut header = MAGIC.to_vec();
            header.extend(control.to_le_bytes());
            header.extend(data.to_le_bytes());
            header
        };
        let refused = |header: Vec<u8>| read(&mut &header[..]).unwrap_err().to_string();
        assert!(refused(header(u32::MAX, 0)).contains("control part of 4294967295 bytes"));
        assert!(refused(header(0, u64::MAX)).contains("data part of 18446744073709551615 bytes"));
        // One that is allowed and does not come costs no more than has come.
        assert!(refused(header(0, DATA_BYTES_MAX)).contains("0 of 1073741824 bytes"));
    }

    #[test]
    fn text_among_frames_is_named() {
        let error = read(&mut &b"Traceback (most recent"[..]).unwrap_err().to_string();
        assert!(error.contains("Traceback (most") && error.contains("standard error"), "{error}");
    }
}
