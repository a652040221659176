//! Ages, counts and widths of text.

use underbelly::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const SECOND: i64 = 1_000_000_000;

/// How long ago something was, in one unit: `4 s`, `12 min`, `3 h`, `5 d`, `2 y`. What is ahead of the clock was now.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.0.saturating_sub(then.0).max(0) / SECOND;
    let units = [(31_557_600, "y"), (86_400, "d"), (3_600, "h"), (60, "min")];
    match units.into_iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

/// When the newest and the oldest of several things were: `changed 4 s to 3 d ago`.
pub(crate) fn changed(oldest: Option<Timestamp>, newest: Option<Timestamp>, now: Timestamp) -> String {
    let (Some(oldest), Some(newest)) = (oldest, newest) else { return "never changed".to_string() };
    let (oldest, newest) = (age(oldest, now), age(newest, now));
    if oldest == newest {
        format!("changed {newest} ago")
    } else {
        format!("changed {newest} to {oldest} ago")
    }
}

/// A whole number with narrow spaces between thousands.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A number of things, with the word for one or for many.
pub(crate) fn number(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

/// Columns of a terminal that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// As much of a text as fits, with an ellipsis where some is cut; `width` tells what a character takes.
fn cut(text: &str, room: f64, width: impl Fn(char) -> f64) -> String {
    if text.chars().map(&width).sum::<f64>() <= room {
        return text.to_string();
    }
    let mut left = room - width('…');
    let fits = |c: &char| {
        left -= width(*c);
        left >= 0.0
    };
    let mut out: String = text.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// As much of a text as fits into columns of a terminal.
pub(crate) fn cut_columns(text: &str, room: usize) -> String {
    cut(text, room as f64, |c| c.width().unwrap_or(0) as f64)
}

/// About the width of a character of a sans-serif font, as a share of the font's size; rather too wide than too narrow.
fn share(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '\u{202f}' => 0.34,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '\\' | '-' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.95,
        'A'..='Z' | '&' | '_' | '…' => 0.72,
        c if c.is_ascii() => 0.61,
        c => {
            if c.width().unwrap_or(0) > 1 {
                1.05
            } else {
                0.7
            }
        }
    }
}

/// About the width of a text in pixels.
pub(crate) fn pixels(text: &str, size: f64) -> f64 {
    text.chars().map(share).sum::<f64>() * size
}

/// As much of a text as fits into pixels.
pub(crate) fn cut_pixels(text: &str, size: f64, room: f64) -> String {
    cut(text, room, |c| share(c) * size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp(10_000_000 * SECOND);
        let ago = |seconds: i64| age(Timestamp(now.0 - seconds * SECOND), now);
        let ages = [0, 59, 60, 3_599, 3_600, 86_399, 86_400, 9_999_999].map(ago);
        assert_eq!(ages, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "115 d"]);
        assert_eq!(age(Timestamp(i64::MAX), Timestamp(i64::MIN)), "0 s");
        assert_eq!(age(Timestamp(i64::MIN), Timestamp(i64::MAX)), "292 y");
        let at = |seconds: i64| Some(Timestamp(now.0 - seconds * SECOND));
        assert_eq!(changed(at(7_200), at(3), now), "changed 3 s to 2 h ago");
        assert_eq!(changed(at(7_300), at(7_200), now), "changed 2 h ago");
        assert_eq!(changed(None, None, now), "never changed");
    }

    #[test]
    fn counts_keep_their_thousands_apart() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (number(1, "cell", "cells"), number(0, "cell", "cells")),
            ("1 cell".into(), "0 cells".into())
        );
    }

    proptest! {
        #[test]
        fn what_is_cut_fits(text in any::<String>(), room in 1usize..60) {
            prop_assert!(cut_columns(&text, room).chars().map(|c| c.width().unwrap_or(0)).sum::<usize>() <= room.max(1));
            prop_assert!(pixels(&cut_pixels(&text, 12.0, 12.0 * room as f64), 12.0) <= 12.0 * room as f64 + 1e-9);
        }
    }
}
