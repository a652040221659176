//! What can be wrong with what the other side sends.

use std::io;

/// The other side cannot be understood, or is not there any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// It closed the connection within a frame.
    #[error("the connection was closed within a frame: {got} of {expected} bytes of its {part} part came")]
    CutShort {
        /// The part of the frame.
        part: &'static str,
        /// Bytes that came.
        got: u64,
        /// Bytes that it was to have.
        expected: u64,
    },
    /// No frame begins like this.
    #[error(
        "{found:?} is no frame; write nothing but frames to this stream, and what people are to read to standard error"
    )]
    NoFrame {
        /// What came, as text where it is text.
        found: String,
    },
    /// A frame is longer than is allowed.
    #[error("a frame's {part} part of {found} bytes is longer than the {limit} that are allowed")]
    TooLong {
        /// The part of the frame.
        part: &'static str,
        /// How long it says it is.
        found: u64,
        /// How long it may be.
        limit: u64,
    },
    /// A control part is no message, or one that has no place here.
    #[error("a message cannot be used: {what}")]
    Message {
        /// What is wrong.
        what: String,
    },
    /// Rows that cannot be read.
    #[error("rows cannot be read: {what}")]
    Rows {
        /// What is wrong.
        what: String,
    },
    /// Another version.
    #[error("it speaks version {found} of the protocol, and this is version {ours}")]
    Version {
        /// Its version.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl ProtocolError {
    /// Rows that cannot be read.
    pub fn rows(what: impl Into<String>) -> ProtocolError {
        ProtocolError::Rows { what: what.into() }
    }

    /// Whether the connection ended, rather than that it carried what cannot be understood.
    pub fn is_end(&self) -> bool {
        let gone = |kind| {
            matches!(
                kind,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
            )
        };
        match self {
            ProtocolError::Closed | ProtocolError::CutShort { .. } => true,
            ProtocolError::Io(error) => gone(error.kind()),
            _ => false,
        }
    }

    /// Whether the other side took too long.
    pub fn is_timeout(&self) -> bool {
        // A socket whose time is over says that it would block.
        let late = |kind| matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        matches!(self, ProtocolError::Io(error) if late(error.kind()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use crate::Receiver;

    #[test]
    fn a_socket_on_which_nothing_comes_in_time_is_a_timeout() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = Receiver::new(ours).receive().unwrap_err();
        assert!(error.is_timeout() && !error.is_end(), "{error}");
    }
}
