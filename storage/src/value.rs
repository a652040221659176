//! Single values and their types.
//!
//! A value has one of nine types, or is null. The tag of a type is its byte on disk.

use std::fmt;
use std::sync::Arc;

/// An instant: nanoseconds since 1970-01-01T00:00:00 UTC. The whole range of `i64` is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest instant that can be stored.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// The latest instant that can be stored.
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// Whole seconds since 1970, or `None` where they do not fit.
    pub fn from_secs(secs: i64) -> Option<Timestamp> {
        secs.checked_mul(1_000_000_000).map(Timestamp)
    }
}

/// A calendar day: days since 1970-01-01, proleptic Gregorian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(pub i32);

impl Date {
    /// The day `year-month-day`, or `None` where there is no such day or it is outside years ±1,000,000.
    ///
    /// The arithmetic is Howard Hinnant's `days_from_civil`.
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Date> {
        if !(1..=12).contains(&month) || day == 0 || year.unsigned_abs() > 1_000_000 {
            return None;
        }
        let y = i64::from(year) - i64::from(month <= 2);
        let era = y.div_euclid(400);
        let year_of_era = y.rem_euclid(400);
        let month_from_march = (i64::from(month) + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let date = Date(i32::try_from(era * 146_097 + day_of_era - 719_468).ok()?);
        (date.ymd() == (year, month, day)).then_some(date)
    }

    /// Year, month and day.
    pub fn ymd(self) -> (i32, u32, u32) {
        let z = i64::from(self.0) + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year as i32, month as u32, day as u32)
    }

    /// Reads `2014-06-02` or `20140602`.
    pub fn parse(text: &str) -> Option<Date> {
        let (year, month, day) = match text.as_bytes() {
            [y @ .., b'-', m1, m2, b'-', d1, d2] if y.len() == 4 => (y, [*m1, *m2], [*d1, *d2]),
            [y1, y2, y3, y4, m1, m2, d1, d2] => {
                return Self::from_digits(&[*y1, *y2, *y3, *y4], &[*m1, *m2], &[*d1, *d2]);
            }
            _ => return None,
        };
        Self::from_digits(year, &month, &day)
    }

    fn from_digits(year: &[u8], month: &[u8], day: &[u8]) -> Option<Date> {
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |n, d| d.is_ascii_digit().then(|| n * 10 + u32::from(d - b'0')))
        };
        Date::from_ymd(i32::try_from(number(year)?).ok()?, number(month)?, number(day)?)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.ymd();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for Timestamp {
    /// `2014-06-02T13:30:00.000000001Z`, with as many of the nine decimals as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY_NS: i64 = 86_400_000_000_000;
        let day = Date((self.0.div_euclid(DAY_NS)) as i32);
        let ns = self.0.rem_euclid(DAY_NS);
        let (secs, fraction) = (ns / 1_000_000_000, ns % 1_000_000_000);
        write!(f, "{day}T{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)?;
        if fraction != 0 {
            let text = format!("{fraction:09}");
            write!(f, ".{}", text.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ColumnType {
    /// True or false.
    Bool = 1,
    /// Signed 64-bit integer.
    I64 = 2,
    /// IEEE 754 binary64.
    F64 = 3,
    /// UTF-8 text.
    Utf8 = 4,
    /// Any bytes.
    Bytes = 5,
    /// Nanoseconds since 1970 UTC.
    Timestamp = 6,
    /// Days since 1970.
    Date = 7,
    /// Signed 32-bit integer.
    I32 = 8,
    /// IEEE 754 binary32.
    F32 = 9,
}

impl ColumnType {
    /// All types, in the order of their tags.
    pub const ALL: [ColumnType; 9] = [
        ColumnType::Bool,
        ColumnType::I64,
        ColumnType::F64,
        ColumnType::Utf8,
        ColumnType::Bytes,
        ColumnType::Timestamp,
        ColumnType::Date,
        ColumnType::I32,
        ColumnType::F32,
    ];

    /// The byte that stands for this type on disk.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The type with this tag.
    pub fn from_tag(tag: u8) -> Option<ColumnType> {
        Self::ALL.into_iter().find(|t| t.tag() == tag)
    }

    /// The name that users see and type.
    pub const fn name(self) -> &'static str {
        match self {
            ColumnType::Bool => "bool",
            ColumnType::I64 => "i64",
            ColumnType::F64 => "f64",
            ColumnType::Utf8 => "utf8",
            ColumnType::Bytes => "bytes",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Date => "date",
            ColumnType::I32 => "i32",
            ColumnType::F32 => "f32",
        }
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<ColumnType> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The narrowest type that holds the values of both: integers widen to longer ones and to `f64`, `f32` to `f64`.
    /// `None` where there is none. Only an `i64` that becomes `f64` may be rounded; [`Column::fits_f64`] tells.
    ///
    /// [`Column::fits_f64`]: crate::Column::fits_f64
    pub fn common(self, other: ColumnType) -> Option<ColumnType> {
        use ColumnType::{F32, F64, I32, I64};
        match (self, other) {
            (a, b) if a == b => Some(a),
            (I32, I64) | (I64, I32) => Some(I64),
            (I32 | I64 | F32 | F64, I32 | I64 | F32 | F64) => Some(F64),
            _ => None,
        }
    }

    /// Whether a column of this type may stand where another has `wide`.
    pub fn widens_to(self, wide: ColumnType) -> bool {
        self.common(wide) == Some(wide)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// Signed 64-bit integer.
    I64(i64),
    /// IEEE 754 binary64.
    F64(f64),
    /// UTF-8 text.
    Utf8(Arc<str>),
    /// Any bytes.
    Bytes(Arc<[u8]>),
    /// Nanoseconds since 1970 UTC.
    Timestamp(Timestamp),
    /// Days since 1970.
    Date(Date),
    /// Signed 32-bit integer.
    I32(i32),
    /// IEEE 754 binary32.
    F32(f32),
}

impl Value {
    /// The type of this value; `None` for null.
    pub fn column_type(&self) -> Option<ColumnType> {
        Some(match self {
            Value::Null => return None,
            Value::Bool(_) => ColumnType::Bool,
            Value::I64(_) => ColumnType::I64,
            Value::F64(_) => ColumnType::F64,
            Value::Utf8(_) => ColumnType::Utf8,
            Value::Bytes(_) => ColumnType::Bytes,
            Value::Timestamp(_) => ColumnType::Timestamp,
            Value::Date(_) => ColumnType::Date,
            Value::I32(_) => ColumnType::I32,
            Value::F32(_) => ColumnType::F32,
        })
    }

    /// The text of a `Utf8` value.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::Utf8(text) = self { Some(text) } else { None }
    }

    /// The number of a value that is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::F64(v) => Some(*v),
            Value::I64(v) => Some(*v as f64),
            Value::I32(v) => Some(f64::from(*v)),
            Value::F32(v) => Some(f64::from(*v)),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => Ok(()),
            Value::Bool(v) => write!(f, "{v}"),
            Value::I64(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
            Value::Utf8(v) => f.write_str(v),
            Value::Bytes(v) => {
                f.write_str("0x")?;
                v.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Value::Timestamp(v) => write!(f, "{v}"),
            Value::Date(v) => write!(f, "{v}"),
            Value::I32(v) => write!(f, "{v}"),
            Value::F32(v) => write!(f, "{v}"),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $make:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                ($make)(value)
            }
        }
    )*};
}

value_from! {
    bool => Value::Bool,
    i64 => Value::I64,
    i32 => |v| Value::I64(i64::from(v)),
    u32 => |v| Value::I64(i64::from(v)),
    f64 => Value::F64,
    f32 => Value::F32,
    &str => |v: &str| Value::Utf8(v.into()),
    String => |v: String| Value::Utf8(v.into()),
    Arc<str> => Value::Utf8,
    &[u8] => |v: &[u8]| Value::Bytes(v.into()),
    Vec<u8> => |v: Vec<u8>| Value::Bytes(v.into()),
    Timestamp => Value::Timestamp,
    Date => Value::Date,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_read_and_print() {
        let day = Date::from_ymd(2014, 6, 2);
        assert_eq!(day, Date::parse("2014-06-02"));
        assert_eq!(day, Date::parse("20140602"));
        assert_eq!(day.map(|d| d.to_string()), Some("2014-06-02".to_string()));
        assert_eq!(Date::from_ymd(1970, 1, 1), Some(Date(0)));
        for wrong in ["2014-02-30", "2014-13-01", "2014-6-2", "x0140602", "", "201406021"] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_widen_and_nothing_else_does() {
        use ColumnType::{F32, F64, I32, I64};
        for a in ColumnType::ALL {
            for b in ColumnType::ALL {
                let expected = match (a, b) {
                    (a, b) if a == b => Some(a),
                    (I32, I64) | (I64, I32) => Some(I64),
                    (I32 | I64 | F32 | F64, I32 | I64 | F32 | F64) => Some(F64),
                    _ => None,
                };
                assert_eq!(a.common(b), expected, "{a} and {b}");
                assert_eq!(a.widens_to(b), expected == Some(b));
            }
        }
        assert_eq!(ColumnType::ALL.map(|t| ColumnType::from_tag(t.tag())), ColumnType::ALL.map(Some));
        assert_eq!(ColumnType::ALL.map(|t| ColumnType::from_name(t.name())), ColumnType::ALL.map(Some));
    }

    #[test]
    fn timestamps_print_in_utc() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(-1).to_string(), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(Timestamp(1_381_132_800_152_000_000).to_string(), "2013-10-07T08:00:00.152Z");
        assert_eq!(Timestamp::MIN.to_string(), "1677-09-21T00:12:43.145224192Z");
    }

    proptest! {
        #[test]
        fn every_day_survives_the_calendar(days in -300_000_000i32..300_000_000) {
            let (year, month, day) = Date(days).ymd();
            prop_assert_eq!(Date::from_ymd(year, month, day), Some(Date(days)));
        }
    }
}
