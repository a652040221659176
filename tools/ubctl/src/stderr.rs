//! Lines on standard error.

use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use crate::output::printable;

/// What commands that are told need to find the database, too.
static DATABASE: OnceLock<String> = OnceLock::new();

/// Commands that are told from now on name the folder.
pub(crate) fn name_database(dir: &Path) {
    let dir = dir.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let quoted = match dir.chars().all(is_plain) {
        true => dir,
        false => format!("'{}'", dir.replace('\'', r"'\''")),
    };
    DATABASE.get_or_init(|| format!("`ubctl --db {quoted} "));
}

/// A text whose commands name the folder.
pub(crate) fn named(text: &str) -> Cow<'_, str> {
    match DATABASE.get() {
        Some(named) => text.replace("`ubctl ", named).into(),
        None => text.into(),
    }
}

/// Writes a text to standard error, without control characters that the terminal would follow. Where nobody reads it any
/// more, there is nobody to tell.
pub(crate) fn line(text: &str) {
    let text = named(text);
    let mut err = std::io::stderr().lock();
    for (i, line) in text.split('\n').enumerate() {
        let start = if i == 0 { "ubctl: " } else { "" };
        let _ = writeln!(err, "{start}{}", printable(line));
    }
}
