//! Lines on standard error.

use std::io::Write;

/// Writes a line to standard error. Where nobody reads it any more, there is nobody to tell.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "ubctl: {text}");
}
