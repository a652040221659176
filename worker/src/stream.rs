//! What a connection goes over: the pipes of a child, or a socket.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// One end of a pipe, or a socket. What is written to a socket whose other end is gone is an error and never a signal.
pub(crate) enum Stream {
    Pipe(File),
    Socket(UnixStream),
}

impl Stream {
    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Pipe(pipe) => Stream::Pipe(pipe.try_clone()?),
            Stream::Socket(socket) => Stream::Socket(socket.try_clone()?),
        })
    }

    /// Whether there is something to read, or the end, within this time.
    pub(crate) fn is_readable(&self, within: Duration) -> bool {
        let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
        poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
    }

    /// Whether the other end is gone, after this time at most.
    pub(crate) fn is_closed(&self, within: Duration) -> bool {
        let timeout = Timespec { tv_sec: within.as_secs() as i64, tv_nsec: i64::from(within.subsec_nanos()) };
        let mut fds = [PollFd::new(self, PollFlags::empty())];
        poll(&mut fds, Some(&timeout)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Bounds the time that a read takes, of a socket.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Pipe(_) => Ok(()),
            Stream::Socket(socket) => socket.set_read_timeout(timeout),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Pipe(pipe) => pipe.read(buffer),
            Stream::Socket(socket) => socket.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Pipe(pipe) => pipe.write(bytes),
            Stream::Socket(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Pipe(pipe) => pipe.flush(),
            Stream::Socket(socket) => socket.flush(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Pipe(pipe) => pipe.as_fd(),
            Stream::Socket(socket) => socket.as_fd(),
        }
    }
}
