//! Instants as people write them: numbers of a unit, ISO 8601, or a form of their own.

mod number;
mod text;

use std::borrow::Cow;
use std::time::Duration;

use clap::ValueEnum;
use jiff::tz::TimeZone;
use underbelly::{Clock, Date, SlotDate, SystemClock, Timestamp};

pub(crate) use number::{is_number, of_decimal};

/// What a bare number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    /// The power of ten of nanoseconds that the unit is.
    fn exponent(self) -> i64 {
        match self {
            Unit::S => 9,
            Unit::Ms => 6,
            Unit::Us => 3,
            Unit::Ns => 0,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Unit::S => "seconds",
            Unit::Ms => "milliseconds",
            Unit::Us => "microseconds",
            Unit::Ns => "nanoseconds",
        }
    }

    /// The unit that the end of a column's name says: `_ns`, `_us` or `_ms`.
    pub(crate) fn of_name(name: &str) -> Option<Unit> {
        [("_ns", Unit::Ns), ("_us", Unit::Us), ("_ms", Unit::Ms)]
            .into_iter()
            .find_map(|(end, unit)| name.to_ascii_lowercase().ends_with(end).then_some(unit))
    }
}

/// A day written as eight digits.
fn compact_day(text: &str) -> Option<Date> {
    (text.len() == 8).then(|| Date::parse(text)).flatten()
}

/// An instant on the command line: `now`, ISO 8601 (UTC unless it has an offset), eight digits as a day, or a
/// number of seconds since 1970.
pub(crate) fn parse_instant(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(SystemClock.now());
    }
    // Four digits are meant as a year, and would be within the first hours of 1970.
    if text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text} may be a year; write {text}-01-01, or {text}.0 for seconds since 1970"));
    }
    let read = match compact_day(text).is_none() && is_number(text) {
        true => number::parse(text, Unit::S),
        false => text::parse(text, Ok(&TimeZone::UTC)),
    };
    read.map_err(|what| {
        let what = without_options(&what).replace(text::FORMS, "");
        format!("{what}; write now, a day like 2014-06-02, an instant like 2014-06-02T13:30:00Z, or seconds since 1970")
    })
}

/// Reads a length of time: a whole number and `ns`, `us`, `ms`, `s`, `m`, `h`, `d` or `w`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let read = || {
        let at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(at);
        let number = number.parse::<u64>().ok()?;
        let seconds: u64 = match unit {
            "ns" => return Some(Duration::from_nanos(number)),
            "us" => return Some(Duration::from_micros(number)),
            "ms" => return Some(Duration::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        number.checked_mul(seconds).map(Duration::from_secs)
    };
    read().ok_or_else(|| {
        format!("{text:?} is no length of time; write a whole number and ns, us, ms, s, m, h, d or w, as 36h")
    })
}

/// The time between two looks: one that passes.
pub(crate) fn parse_pause(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it would look without a pause; name a time that passes, as 1s".to_string()),
        pause => Ok(pause),
    }
}

/// A length of time as [`parse_duration`] reads it, in the largest unit of which it is a whole number.
pub(crate) fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units =
        [(86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s")];
    let units = units.into_iter().chain([(1_000_000, "ms"), (1_000, "us"), (1, "ns")]);
    let fits = units.into_iter().find(|(unit, _)| nanos >= *unit && nanos.is_multiple_of(*unit));
    fits.map_or_else(|| "0s".to_string(), |(unit, name)| format!("{}{name}", nanos / unit))
}

/// What an error says apart from the options of an import, for commands that do not have them.
pub(crate) fn without_options(what: &str) -> String {
    OPTIONS.iter().fold(what.to_string(), |what, option| what.replace(option, ""))
}

/// The options of an import, as errors advise them.
const OPTIONS: [&str; 4] = [
    ", or give --time-format",
    " or give --time-format",
    " or say what numbers count with --unit",
    "; say what it counts with --unit",
];

/// The date of a cell: `2014-06-02` and `20140602` are days, all else is an instant.
pub(crate) fn parse_slot_date(text: &str) -> Result<SlotDate, String> {
    match Date::parse(text) {
        Some(day) => Ok(SlotDate::Day(day)),
        None => parse_instant(text).map(SlotDate::Instant),
    }
}

/// A time zone by its IANA name.
pub(crate) fn parse_zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!("no time zone is named {name:?}; use an IANA name such as America/New_York or UTC")
    })
}

/// Whether this machine knows a zone by exactly this name, as the engine takes it.
pub(crate) fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

/// An instant as the clocks of a zone show it, with its offset; in UTC where this machine does not know the zone.
pub(crate) fn in_zone(at: Timestamp, zone: &str) -> String {
    let shown = || {
        let instant = jiff::Timestamp::from_nanosecond(at.0.into()).ok()?;
        let local = instant.to_zoned(TimeZone::get(zone).ok()?);
        jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%S%.f%:z", &local).ok()
    };
    shown().unwrap_or_else(|| at.to_string())
}

/// How the instants of one column are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notation {
    /// What numbers count; where it is given, numbers are the only form.
    pub(crate) unit: Option<Unit>,
    /// The zone that was given for texts without an offset. Numbers have none, and are refused beside it.
    pub(crate) zone: Option<TimeZone>,
    /// The name of the zone that the column is of, which is that of such texts where none was given; UTC where there is neither.
    pub(crate) column_zone: Option<String>,
    /// A strptime form.
    pub(crate) form: Option<String>,
}

/// Reads the instants of one column of one file. The first instant decides whether the column holds numbers or
/// texts, so that eight digits mean one thing throughout.
#[derive(Debug)]
pub(crate) struct InstantReader {
    notation: Notation,
    /// The zone of texts without an offset, or why there is none.
    zone: Result<TimeZone, String>,
    numbers: Option<bool>,
}

impl InstantReader {
    /// A reader that has seen nothing yet.
    pub(crate) fn new(notation: Notation) -> InstantReader {
        let of_column = |name: &String| {
            TimeZone::get(name).map_err(|_| {
                format!("this machine does not know the zone {name:?} of the column; write it with its offset, such as -04:00, or give --zone")
            })
        };
        let zone = match (&notation.zone, &notation.column_zone) {
            (Some(given), _) => Ok(given.clone()),
            (None, Some(name)) => of_column(name),
            (None, None) => Ok(TimeZone::UTC),
        };
        InstantReader { numbers: notation.unit.map(|_| true), zone, notation }
    }

    /// Reads one instant.
    pub(crate) fn read(&mut self, text: &str) -> Result<Timestamp, Cow<'static, str>> {
        let text = text.trim_ascii();
        if self.numbers == Some(true)
            && self.notation.zone.is_none()
            && self.notation.form.is_none()
            && let Some(instant) = number::whole(text, self.notation.unit.unwrap_or(Unit::S))
        {
            return Ok(instant);
        }
        let zone = self.zone.as_ref().map_err(String::as_str);
        if let Some(form) = &self.notation.form {
            return text::parse_form(text, form, zone).map_err(Cow::Owned);
        }
        let numbers = match self.numbers {
            Some(numbers) => numbers,
            None => is_number(text) && compact_day(text).is_none(),
        };
        let read = match (numbers, is_number(text)) {
            (true, true) => {
                if self.notation.zone.is_some() {
                    return Err("numbers count from 1970 UTC and have no zone; leave --zone out".into());
                }
                number::parse(text, self.notation.unit.unwrap_or(Unit::S)).map_err(Cow::Owned)
            }
            (true, false) => Err(Cow::Owned(format!(
                "{text:?} is no number, as the times of this column are; correct it or give --time-format"
            ))),
            (false, true) if compact_day(text).is_none() => Err(Cow::Owned(format!(
                "{text:?} is a number in a column of dates; correct it or say what numbers count with --unit"
            ))),
            (false, _) => text::parse(text, zone).map_err(Cow::Owned),
        };
        if read.is_ok() {
            self.numbers = Some(numbers);
        }
        read
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn reader(unit: Option<Unit>, zone: Option<&str>, form: Option<&str>) -> InstantReader {
        let zone = zone.map(|name| parse_zone(name).unwrap());
        InstantReader::new(Notation { unit, zone, column_zone: None, form: form.map(str::to_string) })
    }

    fn of_column(zone: &str, form: Option<&str>) -> InstantReader {
        let column_zone = Some(zone.to_string());
        InstantReader::new(Notation { column_zone, form: form.map(str::to_string), ..Notation::default() })
    }

    #[test]
    fn eight_digits_are_a_day_unless_a_unit_says_otherwise() {
        let day = Timestamp(1_401_667_200_000_000_000);
        assert_eq!(parse_instant("20140602").unwrap(), day);
        assert_eq!(reader(None, None, None).read("20140602").unwrap(), day);
        let seconds = reader(Some(Unit::S), None, None).read("20140602").unwrap();
        assert_eq!(seconds, Timestamp(20_140_602_000_000_000));
        let mut mixed = reader(None, None, None);
        mixed.read("1400000000").unwrap();
        assert_eq!(mixed.read("20140602").unwrap(), Timestamp(20_140_602_000_000_000));
    }

    #[test]
    fn lengths_of_time_are_written_as_they_are_read() {
        for text in ["30d", "36h", "90m", "61s", "0s", "1500ms", "1us", "1000001ns"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
        assert_eq!(duration_text(parse_duration("2w").unwrap()), "14d");
    }

    #[test]
    fn a_year_is_no_number_of_seconds() {
        let error = parse_instant("2015").unwrap_err();
        assert!(error.contains("2015-01-01") && error.contains("2015.0"), "{error}");
        assert_eq!(parse_instant("2015.0").unwrap(), Timestamp(2_015_000_000_000));
        assert_eq!(parse_instant("20150").unwrap(), Timestamp(20_150_000_000_000));
        assert!(parse_slot_date("2015").is_err());
    }

    #[test]
    fn advice_is_what_the_command_has() {
        for text in ["soon", "2014-13-40", "1381132800688", "1e99"] {
            let error = parse_slot_date(text).unwrap_err();
            assert!(error.contains(text) && error.contains("seconds since 1970"), "{error}");
            assert!(!error.contains("--"), "{error}");
        }
        for (first, second) in [("1", "soon"), ("2014-06-02", "1401667200"), ("soon", "soon")] {
            let mut reader = reader(None, None, None);
            let _ = reader.read(first);
            let error = reader.read(second).unwrap_err();
            assert!(error.contains("--") && !without_options(&error).contains("--"), "{error}");
        }
    }

    #[test]
    fn a_bad_first_value_decides_nothing() {
        let mut reader = reader(None, None, None);
        assert!(reader.read("nonsense").is_err());
        assert_eq!(reader.read("1").unwrap(), Timestamp(1_000_000_000));
        assert!(reader.read("2014-06-02").unwrap_err().contains("no number"));
    }

    #[test]
    fn numbers_among_dates_and_zones_of_numbers_are_refused() {
        let mut dates = reader(None, None, None);
        dates.read("2014-06-02 13:30").unwrap();
        assert!(dates.read("1401667200").unwrap_err().contains("--unit"));
        assert!(reader(None, Some("America/New_York"), None).read("1").unwrap_err().contains("--zone"));
    }

    #[test]
    fn numbers_and_texts_are_read_in_a_column_of_a_zone() {
        let mut numbers = of_column("America/New_York", None);
        assert_eq!(numbers.read("1401715800").unwrap(), Timestamp(1_401_715_800_000_000_000));
        assert_eq!(numbers.read("1401715800.5").unwrap(), Timestamp(1_401_715_800_500_000_000));
        let mut texts = of_column("America/New_York", None);
        assert_eq!(texts.read("2014-06-02T09:30:00").unwrap(), Timestamp(1_401_715_800_000_000_000));
        assert!(
            texts.read("2014-03-09T02:30:00").unwrap_err().contains("does not exist in America/New_York")
        );
        assert!(texts.read("2014-11-02T01:30:00").unwrap_err().contains("ambiguous in America/New_York"));
    }

    /// Local times of a zone that this machine does not know are not those of UTC.
    #[test]
    fn local_times_of_an_unknown_zone_are_refused() {
        let known = Timestamp(1_401_715_800_000_000_000);
        let mut texts = of_column("Mars/Base", None);
        for text in ["2014-06-02T13:30:00", "2014-06-02"] {
            let refused = texts.read(text).unwrap_err();
            assert!(refused.contains("\"Mars/Base\"") && refused.contains("--zone"), "{refused}");
        }
        assert_eq!(texts.read("2014-06-02T13:30:00Z").unwrap(), known);
        assert_eq!(of_column("Mars/Base", None).read("1401715800").unwrap(), known);
        let form = Some("%d.%m.%Y");
        assert!(of_column("Mars/Base", form).read("02.06.2014").unwrap_err().contains("Mars/Base"));
        assert_eq!(of_column("Mars/Base", Some("%s")).read("1401715800").unwrap(), known);
    }

    #[test]
    fn names_say_units() {
        assert_eq!(Unit::of_name("ts_ns"), Some(Unit::Ns));
        assert_eq!(Unit::of_name("event_MS"), Some(Unit::Ms));
        assert_eq!(Unit::of_name("x_us"), Some(Unit::Us));
        assert_eq!(Unit::of_name("columns"), None);
    }

    #[test]
    fn dates_of_cells_are_days_or_instants() {
        assert_eq!(parse_slot_date("2014-06-02"), parse_slot_date("20140602"));
        assert!(matches!(parse_slot_date("2014-06-02"), Ok(SlotDate::Day(_))));
        assert!(matches!(parse_slot_date("2014-06-02T00:00Z"), Ok(SlotDate::Instant(_))));
        assert!(parse_slot_date("yesterday-ish").is_err());
    }
}
