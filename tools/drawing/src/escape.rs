//! Text that stays in its place.

use std::fmt::Write;

/// Characters that no drawing shows as they are: controls, what turns the direction of text around, and what XML forbids.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// For XML content and attributes, and for the HTML-like labels of Graphviz.
pub(crate) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if is_hostile(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// For a quoted string of Graphviz, which knows escapes and the names of characters.
pub(crate) fn quoted(text: &str) -> String {
    xml(text).replace('\\', "\\\\")
}

/// For a terminal: a hostile character is shown by its number.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            // Writing to a string does not fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(
            xml("<b a=\"1\" c='2'>&\0\u{202e}"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}\u{fffd}"
        );
        assert_eq!(quoted("a\\\"\n"), "a\\\\&quot;\u{fffd}");
        assert_eq!(plain("a\x1b[31m\u{202e}é"), "a\\u{1b}[31m\\u{202e}é");
    }

    proptest! {
        #[test]
        fn escaped_text_has_no_markup(text in any::<String>()) {
            prop_assert!(!xml(&text).contains(['<', '>', '"', '\'', '\n', '\0']));
            prop_assert!(!quoted(&text).contains(['"', '\n', '\0']));
            prop_assert!(!plain(&text).contains(|c: char| c.is_control()));
        }
    }
}
