//! Which type fits all values of a column.

use underbelly::ColumnType;

/// What a text is, as narrowly as loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An integer of 64 bits; `exact` where an `f64` holds it too.
    Integer { exact: bool },
    /// A decimal number, an infinity or NaN.
    Decimal { nan: bool },
    /// Anything else, also numbers that would lose leading zeros or digits.
    Text,
}

/// Integers up to here are exact in an `f64`.
const EXACT_MAX: u64 = 1 << 53;

/// What a text that is not null is.
pub(crate) fn kind(text: &str) -> Kind {
    let text = text.trim_ascii();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let leading_zero = matches!(unsigned.as_bytes(), [b'0', b'0'..=b'9', ..]);
    if leading_zero {
        return Kind::Text;
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i64>() {
            Ok(0) if text.starts_with('-') => Kind::Decimal { nan: false },
            Ok(value) => Kind::Integer { exact: value.unsigned_abs() <= EXACT_MAX },
            Err(_) => Kind::Text,
        };
    }
    let named = ["nan", "inf", "infinity"].iter().any(|name| unsigned.eq_ignore_ascii_case(name));
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match text.parse::<f64>() {
        Ok(value) if named || (numeric && value.is_finite()) => Kind::Decimal { nan: value.is_nan() },
        _ => Kind::Text,
    }
}

/// What is known of a column's values so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Guess {
    integers: u64,
    decimals: u64,
    texts: u64,
    /// An integer that an `f64` does not hold.
    inexact: bool,
    /// Where the first NaN is.
    pub(crate) nan: Option<String>,
    /// Where the first text is, and what it says.
    text: Option<(String, String)>,
}

impl Guess {
    /// Takes note of a value; `place` is asked for the first of some kinds.
    pub(crate) fn note(&mut self, kind: Kind, text: &str, place: impl FnOnce() -> String) {
        match kind {
            Kind::Integer { exact } => {
                self.integers += 1;
                self.inexact |= !exact;
            }
            Kind::Decimal { nan } => {
                self.decimals += 1;
                if nan && self.nan.is_none() {
                    self.nan = Some(place());
                }
            }
            Kind::Text => {
                self.texts += 1;
                if self.text.is_none() {
                    self.text = Some((place(), text.to_string()));
                }
            }
        }
    }

    /// The narrowest type that holds every value; `None` where all are null.
    pub(crate) fn column_type(&self) -> Option<ColumnType> {
        match (self.integers, self.decimals, self.texts) {
            (0, 0, 0) => None,
            (_, 0, 0) => Some(ColumnType::I64),
            (_, _, 0) if !self.inexact => Some(ColumnType::F64),
            _ => Some(ColumnType::Utf8),
        }
    }

    /// Why a column with numbers is text, where it is.
    pub(crate) fn remark(&self) -> Option<String> {
        if self.integers + self.decimals == 0 || self.column_type() != Some(ColumnType::Utf8) {
            return None;
        }
        Some(match &self.text {
            Some((place, text)) => format!("{place} holds {text:?}, so the whole column is text"),
            None => "it has decimals, and integers that f64 does not hold, so the whole column is text"
                .to_string(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guessed(texts: &[&str]) -> Option<ColumnType> {
        let mut guess = Guess::default();
        texts.iter().for_each(|text| guess.note(kind(text), text, String::new));
        guess.column_type()
    }

    #[test]
    fn types_widen_without_loss() {
        assert_eq!(guessed(&[]), None);
        assert_eq!(guessed(&["1", "-2", "+3", " 4 "]), Some(ColumnType::I64));
        assert_eq!(guessed(&["1", "2.5"]), Some(ColumnType::F64));
        assert_eq!(guessed(&["NaN", "-inf", "1e5", ".5"]), Some(ColumnType::F64));
        assert_eq!(guessed(&["1", "2.5", "x"]), Some(ColumnType::Utf8));
        assert_eq!(guessed(&["9223372036854775807"]), Some(ColumnType::I64));
        assert_eq!(guessed(&["9223372036854775807", "0.5"]), Some(ColumnType::Utf8));
        assert_eq!(guessed(&["9007199254740992", "0.5"]), Some(ColumnType::F64));
        assert_eq!(guessed(&["9223372036854775808"]), Some(ColumnType::Utf8));
    }

    #[test]
    fn numbers_that_would_lose_something_are_text() {
        for text in ["007", "-01", "00.5", "1e999", "0x10", "1_000", "", "-", "nano", "1.2.3", "٣"] {
            assert_eq!(kind(text), Kind::Text, "{text:?}");
        }
        assert_eq!(kind("-0"), Kind::Decimal { nan: false });
        assert_eq!(kind("0"), Kind::Integer { exact: true });
        assert_eq!(kind("0.5"), Kind::Decimal { nan: false });
    }

    proptest! {
        #[test]
        fn integers_come_back(values in prop::collection::vec(any::<i64>(), 1..5)) {
            let texts: Vec<String> = values.iter().map(i64::to_string).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(guessed(&texts), Some(ColumnType::I64));
        }

        #[test]
        fn a_mixed_column_holds_every_value(ints in prop::collection::vec(any::<i64>(), 0..5), x: f64) {
            let mut texts: Vec<String> = ints.iter().map(i64::to_string).collect();
            texts.push(format!("{x:?}"));
            let all: Vec<&str> = texts.iter().map(String::as_str).collect();
            if guessed(&all) == Some(ColumnType::F64) {
                prop_assert!(ints.iter().all(|i| *i as f64 as i128 == i128::from(*i)));
            } else {
                prop_assert_eq!(guessed(&all), Some(ColumnType::Utf8));
            }
        }
    }
}
