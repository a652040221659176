//! What the values of a column mean, where their type does not say it: decimals are stored as scaled integers, and instants are of a zone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::value::ColumnType;

/// Most digits behind the point of a decimal.
pub const SCALE_MAX: u8 = 18;
/// Digits of a decimal altogether: those of an `i64`.
pub const DECIMAL_DIGITS: u8 = 19;

/// Why a decimal was refused.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecimalError {
    /// A text that is no number.
    #[error("{text:?} is no decimal number of scale {scale}; write digits, such as -1.25")]
    Text {
        /// The text.
        text: String,
        /// Digits behind the point that were asked for.
        scale: u8,
    },
    /// Digits that would be lost.
    #[error(
        "{text:?} has more than {scale} digits behind the point; round it, or use another column with a larger scale"
    )]
    Digits {
        /// The text.
        text: String,
        /// Digits behind the point that there is room for.
        scale: u8,
    },
    /// A number that 64 bits do not hold.
    #[error(
        "{text:?} with {scale} digits behind the point does not fit in 64 bits; use another column with a smaller scale"
    )]
    Overflow {
        /// The text.
        text: String,
        /// Digits behind the point.
        scale: u8,
    },
    /// A scale that cannot be.
    #[error("a decimal has 0 to {SCALE_MAX} digits behind the point, not {scale}")]
    Scale {
        /// The scale.
        scale: u8,
    },
}

/// A decimal number: an integer, and how many of its digits stand behind the point.
///
/// ```
/// use underbelly_storage::Decimal;
/// let price = Decimal::parse("-1.5", 2)?;
/// assert_eq!((price.unscaled(), price.to_string()), (-150, "-1.50".to_string()));
/// assert!(Decimal::parse("1.255", 2).is_err());
/// # Ok::<(), underbelly_storage::DecimalError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    unscaled: i64,
    scale: u8,
}

impl Decimal {
    /// The number `unscaled` × 10^-`scale`.
    ///
    /// # Errors
    /// [`DecimalError::Scale`].
    pub fn new(unscaled: i64, scale: u8) -> Result<Decimal, DecimalError> {
        if scale > SCALE_MAX { Err(DecimalError::Scale { scale }) } else { Ok(Decimal { unscaled, scale }) }
    }

    /// Reads a number exactly: digits with or without a sign, a point and an exponent. Zeros at the end are no digits that
    /// could be lost, and there is one zero, without a sign.
    ///
    /// # Errors
    /// [`DecimalError`]: the text is none, digits would be lost, it does not fit, or there is no such scale.
    pub fn parse(text: &str, scale: u8) -> Result<Decimal, DecimalError> {
        if scale > SCALE_MAX {
            return Err(DecimalError::Scale { scale });
        }
        let none = || DecimalError::Text { text: text.to_string(), scale };
        let overflow = || DecimalError::Overflow { text: text.to_string(), scale };
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent_of(exponent).ok_or_else(none)?),
            None => (text, 0),
        };
        let (is_negative, digits) = match number.as_bytes() {
            [b'-', ..] => (true, &number[1..]),
            [b'+', ..] => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        if all().next().is_none() || !all().all(|digit| digit.is_ascii_digit()) {
            return Err(none());
        }
        // Digits up to the last that is not zero, and how many places they are to be moved to the left.
        let length = whole.len() + fraction.len() - all().rev().take_while(|digit| *digit == b'0').count();
        let zeros = all().count() - length;
        let moved = exponent.saturating_add(i64::from(scale)).saturating_sub(fraction.len() as i64);
        let moved = moved.saturating_add(zeros as i64);
        if length == 0 {
            return Ok(Decimal { unscaled: 0, scale });
        }
        if moved < 0 {
            return Err(DecimalError::Digits { text: text.to_string(), scale });
        }
        // Negative, since there is one more of these.
        let more =
            std::iter::repeat_n(b'0', usize::try_from(moved.min(i64::from(DECIMAL_DIGITS))).unwrap_or(0));
        let digit = |sum: i64, digit: u8| sum.checked_mul(10)?.checked_sub(i64::from(digit - b'0'));
        let negative = all().take(length).chain(more).try_fold(0, digit).ok_or_else(overflow)?;
        let unscaled = if is_negative { Some(negative) } else { negative.checked_neg() };
        Ok(Decimal { unscaled: unscaled.ok_or_else(overflow)?, scale })
    }

    /// The number without its point.
    pub fn unscaled(self) -> i64 {
        self.unscaled
    }

    /// Digits behind the point.
    pub fn scale(self) -> u8 {
        self.scale
    }
}

/// An exponent; one beyond any number is as good as the last.
fn exponent_of(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    Some(if text.starts_with('-') { -size } else { size })
}

impl fmt::Display for Decimal {
    /// All digits behind the point, zeros too: `-0.50`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let size = self.unscaled.unsigned_abs();
        if self.scale == 0 {
            return write!(f, "{sign}{size}");
        }
        let unit = 10u64.pow(u32::from(self.scale));
        write!(f, "{sign}{}.{:0digits$}", size / unit, size % unit, digits = usize::from(self.scale))
    }
}

/// What a column holds, as users see it: a type that is stored, or one that is stored as another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogicalType {
    /// A type that is stored as it is.
    Plain(ColumnType),
    /// Decimals of this scale, as scaled integers: `i64`.
    Decimal(u8),
    /// Instants that are shown in a time zone, by its name in the IANA database: nanoseconds UTC as ever.
    Zoned(Arc<str>),
}

impl LogicalType {
    /// Decimals with so many digits behind the point.
    ///
    /// # Errors
    /// [`DecimalError::Scale`].
    pub fn decimal(scale: u8) -> Result<LogicalType, DecimalError> {
        Decimal::new(0, scale).map(|_| LogicalType::Decimal(scale))
    }

    /// Says what is wrong with decimals of a scale that cannot be.
    ///
    /// # Errors
    /// [`DecimalError::Scale`].
    pub fn check(&self) -> Result<(), DecimalError> {
        self.scale().map_or(Ok(()), |scale| Decimal::new(0, scale).map(drop))
    }

    /// The type that is stored.
    pub fn stored(&self) -> ColumnType {
        match self {
            LogicalType::Plain(column_type) => *column_type,
            LogicalType::Decimal(_) => ColumnType::I64,
            LogicalType::Zoned(_) => ColumnType::Timestamp,
        }
    }

    /// The scale of decimals.
    pub fn scale(&self) -> Option<u8> {
        if let LogicalType::Decimal(scale) = self { Some(*scale) } else { None }
    }

    /// The time zone of instants.
    pub fn zone(&self) -> Option<&str> {
        if let LogicalType::Zoned(zone) = self { Some(zone) } else { None }
    }

    /// Whether a column of this may be given values of the other: of the same, and instants whose zone nobody named.
    pub fn takes(&self, other: &LogicalType) -> bool {
        self == other || self.zone().is_some() && *other == LogicalType::Plain(ColumnType::Timestamp)
    }

    /// Whether a column of this may be said to be the other: the same, and instants of a zone where none was named.
    pub fn may_become(&self, other: &LogicalType) -> bool {
        self == other || other.takes(self)
    }

    /// The type with this name, as it is printed: `f64`, `decimal(2)`, `timestamp[Europe/Berlin]`. Whether there is such a zone is
    /// not looked at.
    pub fn from_name(name: &str) -> Option<LogicalType> {
        let within = |kind: &str, ends: [char; 2]| {
            name.strip_prefix(kind)?.strip_prefix(ends[0])?.strip_suffix(ends[1])
        };
        if let Some(scale) = within("decimal", ['(', ')']) {
            return LogicalType::decimal(scale.parse().ok()?).ok();
        }
        if let Some(zone) = within("timestamp", ['[', ']']).filter(|zone| !zone.is_empty()) {
            return Some(LogicalType::Zoned(zone.into()));
        }
        ColumnType::from_name(name).map(LogicalType::Plain)
    }
}

impl From<ColumnType> for LogicalType {
    fn from(column_type: ColumnType) -> LogicalType {
        LogicalType::Plain(column_type)
    }
}

impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogicalType::Plain(column_type) => write!(f, "{column_type}"),
            LogicalType::Decimal(scale) => write!(f, "decimal({scale})"),
            LogicalType::Zoned(zone) => write!(f, "timestamp[{zone}]"),
        }
    }
}

/// The logical types of columns by name, as far as they are not the stored ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogicalTypes(BTreeMap<Arc<str>, LogicalType>);

impl LogicalTypes {
    /// All columns are what is stored.
    pub fn new() -> LogicalTypes {
        LogicalTypes::default()
    }

    /// The same with this type for a column.
    pub fn with(mut self, column: impl Into<Arc<str>>, logical: LogicalType) -> LogicalTypes {
        self.insert(column, logical);
        self
    }

    /// Gives a column a type, in place of one that it had.
    pub fn insert(&mut self, column: impl Into<Arc<str>>, logical: LogicalType) {
        let column = column.into();
        match logical {
            LogicalType::Plain(_) => drop(self.0.remove(&column)),
            logical => drop(self.0.insert(column, logical)),
        }
    }

    /// Gives columns the types that they have in others.
    pub fn extend(&mut self, others: &LogicalTypes) {
        others.iter().for_each(|(column, logical)| self.insert(column.clone(), logical.clone()));
    }

    /// The type of a column that is not the stored one.
    pub fn get(&self, column: &str) -> Option<&LogicalType> {
        self.0.get(column)
    }

    /// The zone of the rows' own time, where one is named.
    pub fn time_zone(&self) -> Option<&str> {
        self.get("timestamp").and_then(LogicalType::zone)
    }

    /// The type of a column that is stored as `stored`.
    pub fn of(&self, column: &str, stored: ColumnType) -> LogicalType {
        self.get(column).cloned().unwrap_or(LogicalType::Plain(stored))
    }

    /// Whether all columns are what is stored.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of columns that are not what is stored.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Columns and their types.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &LogicalType)> {
        self.0.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, scale: u8) -> Result<i64, DecimalError> {
        Decimal::parse(text, scale).map(Decimal::unscaled)
    }

    #[test]
    fn decimals_are_read_exactly() {
        for (text, scale, unscaled) in [
            ("1.25", 2, 125),
            ("-1.5", 2, -150),
            ("+.5", 1, 5),
            ("5.", 1, 50),
            ("-0.00", 2, 0),
            ("0e99999999999999999999", 2, 0),
            ("1.5e2", 0, 150),
            ("125E-2", 2, 125),
            ("1.2500000000000000000000000", 2, 125),
            ("10e-1", 0, 1),
            ("0.000000000000000001", 18, 1),
            ("-9223372036854775808", 0, i64::MIN),
            ("-9.223372036854775808", 18, i64::MIN),
            ("9.223372036854775807", 18, i64::MAX),
            ("000000000000000000000000000000001", 0, 1),
        ] {
            assert_eq!(read(text, scale), Ok(unscaled), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_decimal_says_why() {
        for text in
            ["", "-", ".", "e1", "1e", "1e+", "NaN", "inf", "1,5", "0x1", "1.2.3", "--1", " 1", "1e1.5", "٣"]
        {
            assert!(matches!(read(text, 2), Err(DecimalError::Text { .. })), "{text:?}");
        }
        for (text, scale) in [("1.255", 2), ("1e-3", 2), ("0.1", 0), ("1e-99999999999999999999", 18)] {
            assert!(matches!(read(text, scale), Err(DecimalError::Digits { .. })), "{text}");
        }
        for (text, scale) in [
            ("9223372036854775808", 0),
            ("-9223372036854775809", 0),
            ("9.223372036854775808", 18),
            ("10", 18),
            ("92233720368547758.08", 2),
            ("1e19", 0),
            ("1e99999999999999999999", 0),
        ] {
            assert!(matches!(read(text, scale), Err(DecimalError::Overflow { .. })), "{text}");
        }
        assert_eq!(read("1", 19), Err(DecimalError::Scale { scale: 19 }));
        assert_eq!(LogicalType::decimal(19), Err(DecimalError::Scale { scale: 19 }));
    }

    #[test]
    fn types_are_read_as_they_are_printed() {
        let plain = ColumnType::ALL.map(LogicalType::Plain);
        let decimals = [0, 2, 18].map(LogicalType::Decimal);
        let zones = ["UTC", "America/New_York"].map(|zone| LogicalType::Zoned(zone.into()));
        for logical in plain.into_iter().chain(decimals).chain(zones) {
            assert_eq!(LogicalType::from_name(&logical.to_string()), Some(logical));
        }
        for wrong in [
            "decimal",
            "decimal(19)",
            "decimal(2",
            "decimal(-1)",
            "decimal()",
            "f65",
            "timestamp[]",
            "timestamp[x",
            "f64[x]",
        ] {
            assert_eq!(LogicalType::from_name(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_read_as_they_are_printed(unscaled: i64, scale in 0u8..=18) {
            let decimal = Decimal::new(unscaled, scale).unwrap();
            let text = decimal.to_string();
            prop_assert_eq!(Decimal::parse(&text, scale), Ok(decimal));
            let exponent = format!("{unscaled}e-{scale}");
            prop_assert_eq!(Decimal::parse(&exponent, scale), Ok(decimal));
            let behind = text.split_once('.').map_or(0, |(_, behind)| behind.len());
            prop_assert_eq!(behind, usize::from(scale));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[-+0-9.eE]{0,30}", scale: u8) {
            let _ = Decimal::parse(&text, scale);
        }
    }
}
