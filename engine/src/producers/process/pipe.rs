//! The streams of a child process, read and written with an eye on the time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::child::Process;
use crate::limits::{STDERR_BYTES_MAX, STDERR_LINE_BYTES_MAX};
use crate::producers::bounded;

/// How long until it is looked whether a process that is silent is there at all.
const LOOK: Duration = Duration::from_millis(500);

/// More than a pipe holds.
const ERRORS_AT_ONCE: usize = 256 << 10;

/// How long to wait for the other side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Since the last byte.
    pub grace: Duration,
    /// Never beyond this.
    pub until: Option<Instant>,
}

impl Patience {
    /// No wait at all.
    pub const NONE: Patience = Patience { grace: Duration::ZERO, until: None };

    fn left(self) -> Duration {
        let until = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        until.map_or(self.grace, |until| until.min(self.grace))
    }
}

fn timespec(duration: Duration) -> Timespec {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    Timespec { tv_sec: seconds, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// A child's standard error. Whoever waits for the child, to hear it or to be heard, reads it meanwhile: a child that cannot
/// write does nothing else.
pub(super) struct Errors {
    input: ChildStderr,
    has_ended: AtomicBool,
    lines: Mutex<Lines>,
}

impl Errors {
    pub fn new(input: ChildStderr) -> io::Result<Arc<Errors>> {
        rustix::io::ioctl_fionbio(&input, true)?;
        Ok(Arc::new(Errors { input, has_ended: AtomicBool::new(false), lines: Mutex::default() }))
    }

    /// The last lines of it.
    pub fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there, and not for ever: who writes there may be quicker.
    pub fn read(&self) {
        let (mut buffer, mut lines) = ([0; 4096], self.lines());
        let mut room = ERRORS_AT_ONCE;
        while room > 0 && !self.has_ended.load(Ordering::Acquire) {
            match rustix::io::read(&self.input, &mut buffer) {
                Ok(got) if got > 0 => {
                    lines.push(&buffer[..got]);
                    room = room.saturating_sub(got);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => self.has_ended.store(true, Ordering::Release),
            }
        }
    }

    /// Waits until a stream is ready, or what is there was read; whether the stream is, and `None` where the time is over.
    fn poll_with(&self, stream: PollFd<'_>, within: Duration) -> io::Result<Option<bool>> {
        let mut both = [stream, PollFd::new(&self.input, PollFlags::IN)];
        let open = if self.has_ended.load(Ordering::Acquire) { 1 } else { 2 };
        match poll(&mut both[..open], Some(&timespec(within))) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Some(false)),
            Err(error) => return Err(error.into()),
        }
        if !both[1].revents().is_empty() {
            self.read();
        }
        Ok(Some(!both[0].revents().is_empty()))
    }
}

/// What a child says on standard output.
pub(super) struct Ear {
    output: ChildStdout,
    errors: Arc<Errors>,
    process: Process,
    pub patience: Patience,
}

impl Ear {
    pub fn new(output: ChildStdout, errors: Arc<Errors>, process: Process, patience: Patience) -> Ear {
        Ear { output, errors, process, patience }
    }

    /// Whether something can be read within this time, the end among others.
    pub fn hears(&mut self, within: Duration) -> io::Result<bool> {
        // What it writes to standard error is no sign of life.
        let began = Instant::now();
        let (mut left, mut is_gone) = (within, false);
        loop {
            let look = if is_gone { Duration::ZERO } else { left.min(LOOK) };
            match self.errors.poll_with(PollFd::new(&self.output, PollFlags::IN), look)? {
                Some(true) => return Ok(true),
                Some(false) => {}
                // What it has started may hold the stream, which then has no end.
                None if is_gone => return Err(ErrorKind::UnexpectedEof.into()),
                None if self.process.is_gone() => {
                    // Its last words may have come since.
                    is_gone = true;
                    continue;
                }
                None => {}
            }
            if left.is_zero() {
                return Ok(false);
            }
            left = within.saturating_sub(began.elapsed());
        }
    }
}

impl Read for Ear {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One that never stops talking is not done either.
        let is_late = self.patience.until.is_some_and(|until| Instant::now() >= until);
        match !is_late && self.hears(self.patience.left())? {
            true => self.output.read(buffer),
            false => Err(ErrorKind::TimedOut.into()),
        }
    }
}

/// What a child is told on standard input.
pub(super) struct Mouth {
    input: Option<ChildStdin>,
    errors: Arc<Errors>,
    pub patience: Patience,
}

impl Mouth {
    pub fn new(input: ChildStdin, errors: Arc<Errors>, patience: Patience) -> io::Result<Mouth> {
        // This end alone: the child's reads wait as ever.
        rustix::io::ioctl_fionbio(&input, true)?;
        Ok(Mouth { input: Some(input), errors, patience })
    }

    /// Ends the stream.
    pub fn close(&mut self) {
        self.input = None;
    }
}

impl Write for Mouth {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(input) = &mut self.input else { return Err(ErrorKind::BrokenPipe.into()) };
        let (began, within) = (Instant::now(), self.patience.left());
        loop {
            match input.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return written,
            }
            let left = within.saturating_sub(began.elapsed());
            let polled = self.errors.poll_with(PollFd::new(input, PollFlags::OUT), left)?;
            if polled != Some(true) && left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last lines of a child's standard error.
#[derive(Default)]
pub(super) struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
    /// A line that is not ended yet.
    begun: Vec<u8>,
    /// Lines that were forgotten.
    dropped: usize,
}

impl Lines {
    pub fn push(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // What is cut off a long line is of no use.
            let room = (STDERR_LINE_BYTES_MAX + 1).saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    pub fn push_line(&mut self, line: &str) {
        self.begun.extend_from_slice(&line.as_bytes()[..line.len().min(STDERR_LINE_BYTES_MAX + 1)]);
        self.end_line();
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).trim_end().to_string();
        let line = bounded(line, STDERR_LINE_BYTES_MAX);
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.bytes > STDERR_BYTES_MAX {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len() + 1;
            self.dropped += 1;
        }
    }

    /// The last few lines, in one line.
    pub fn last(&self) -> String {
        let begun = String::from_utf8_lossy(&self.begun);
        let all = self.lines.iter().map(String::as_str).chain([begun.trim_end()]);
        let said: Vec<&str> = all.filter(|line| !line.is_empty()).collect();
        said[said.len().saturating_sub(5)..].join(" | ")
    }

    /// Takes all lines; none is left.
    pub fn take(&mut self) -> String {
        if !self.begun.is_empty() {
            self.end_line();
        }
        let Lines { lines, dropped, .. } = std::mem::take(self);
        let lines = Vec::from(lines).join("\n");
        match dropped {
            0 => lines,
            dropped => format!("({dropped} lines before)\n{lines}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_bounds() {
        let mut lines = Lines::default();
        lines.push(b"one\ntw");
        lines.push(b"o\r\nthree");
        assert_eq!(lines.last(), "one | two | three");
        assert_eq!(lines.take(), "one\ntwo\nthree");
        assert_eq!(lines.take(), "");
        lines.push(&vec![b'x'; 10 * STDERR_LINE_BYTES_MAX]);
        lines.push(b"\n");
        (0..10_000).for_each(|n| lines.push(format!("line {n}\n").as_bytes()));
        let kept = lines.take();
        assert!(kept.len() < STDERR_BYTES_MAX + 64 && kept.ends_with("line 9999"), "{}", kept.len());
        assert!(kept.starts_with('('), "{kept}");
    }
}
