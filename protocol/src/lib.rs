//! What Underbelly and the processes that work for it say to each other, as `PROTOCOL.md` describes it byte by byte.
//!
//! A [`Connection`] sends and receives [`Message`]s over anything that reads and writes: the pipes of a child process, a socket.
//! Rows travel beside a message, as Arrow IPC streams that [`rows`] makes and reads, and blobs of models as they are.
//!
//! Invariants:
//! - No length that the other side names is believed before it was compared with a limit, and no memory is taken for bytes
//!   that have not come.
//! - Bytes from the other side never panic: what cannot be read is a [`ProtocolError`] that says what.
//! - Fields that are not known are ignored; a message that is not known is [`Message::Unknown`].

pub mod connection;
pub mod definition;
pub mod error;
pub mod field;
pub mod frame;
pub mod limits;
pub mod message;
pub mod rows;

pub use connection::{Connection, Receiver, Sender};
pub use error::ProtocolError;
pub use field::Field;
pub use message::Message;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
