//! Lines on standard error.

use std::io::Write;

use crate::output::printable;

/// Writes a text to standard error, without control characters that the terminal would follow. Where nobody reads it any
/// more, there is nobody to tell.
pub(crate) fn line(text: &str) {
    let mut err = std::io::stderr().lock();
    for (i, line) in text.split('\n').enumerate() {
        let start = if i == 0 { "ubctl: " } else { "" };
        let _ = writeln!(err, "{start}{}", printable(line));
    }
}
