//! Messages over anything that reads and writes.

use std::io::{Read, Write};

use crate::error::ProtocolError;
use crate::frame;
use crate::message::Message;

/// Both directions of a connection.
pub struct Connection<R, W> {
    /// What the other side says.
    pub receiver: Receiver<R>,
    /// What it is told.
    pub sender: Sender<W>,
}

impl<R: Read, W: Write> Connection<R, W> {
    /// A connection that reads here and writes there.
    pub fn new(input: R, output: W) -> Connection<R, W> {
        Connection { receiver: Receiver::new(input), sender: Sender::new(output) }
    }
}

/// What the other side says.
pub struct Receiver<R> {
    input: R,
}

impl<R: Read> Receiver<R> {
    /// A receiver that reads here.
    pub fn new(input: R) -> Receiver<R> {
        Receiver { input }
    }

    /// The next message, with the data that came with it.
    ///
    /// # Errors
    /// As [`frame::read`] and [`Message::decode`].
    pub fn receive(&mut self) -> Result<(Message, Vec<u8>), ProtocolError> {
        let frame = frame::read(&mut self.input)?;
        Ok((Message::decode(&frame.control)?, frame.data))
    }

    /// What it reads from.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }
}

/// What the other side is told.
pub struct Sender<W> {
    output: W,
}

impl<W: Write> Sender<W> {
    /// A sender that writes there.
    pub fn new(output: W) -> Sender<W> {
        Sender { output }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As [`frame::write`] and [`Message::encode`].
    pub fn send(&mut self, message: &Message) -> Result<(), ProtocolError> {
        self.send_with(message, &[])
    }

    /// Sends a message with the data that it speaks of.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn send_with(&mut self, message: &Message, data: &[u8]) -> Result<(), ProtocolError> {
        frame::write(&mut self.output, &message.encode()?, data)
    }

    /// What it writes to.
    pub fn output(&mut self) -> &mut W {
        &mut self.output
    }
}
