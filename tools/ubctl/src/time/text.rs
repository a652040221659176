//! Texts as instants.

use jiff::Zoned;
use jiff::civil::{DateTime, Time};
use jiff::fmt::strtime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, TimeZone};
use underbelly::Timestamp;

/// The forms of a text, as an error advises them.
pub(super) const FORMS: &str = "; write it like 2014-06-02T13:30:00Z or 2014-06-02 13:30:00";

fn stored(text: &str, instant: jiff::Timestamp) -> Result<Timestamp, String> {
    let ns = i64::try_from(instant.as_nanosecond());
    ns.map(Timestamp)
        .map_err(|_| format!("{text:?} is outside the years 1677 to 2262, which instants can hold"))
}

/// The zone of texts without an offset, or why there is none.
type Zone<'z> = Result<&'z TimeZone, &'z str>;

/// The instant at which clocks of a zone show `local`; refused where they never do, or twice.
fn in_zone(text: &str, local: DateTime, zone: Zone<'_>) -> Result<Timestamp, String> {
    let zone = zone.map_err(|what| format!("{text:?} has no offset, and {what}"))?;
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let name = zone.iana_name().unwrap_or("the zone");
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => {}
        AmbiguousOffset::Gap { .. } => {
            return Err(format!(
                "the local time {text:?} does not exist in {name}: clocks were put forward; write it with its offset, such as -04:00"
            ));
        }
        AmbiguousOffset::Fold { before, after } => {
            return Err(format!(
                "the local time {text:?} is ambiguous in {name}: clocks were put back and showed it twice; write it with its offset, {before} or {after}"
            ));
        }
    }
    let instant = ambiguous.unambiguous().map_err(|error| format!("{text:?}: {error}"))?;
    stored(text, instant)
}

/// Reads ISO 8601 and its common variants: a day alone is its midnight, a space may stand for `T`, and an offset
/// or zone in the text goes before `zone`.
pub(super) fn parse(text: &str, zone: Zone<'_>) -> Result<Timestamp, String> {
    let pieces =
        Pieces::parse(text).map_err(|_| format!("{text:?} is no instant{FORMS}, or give --time-format"))?;
    if pieces.time_zone_annotation().is_some() {
        let zoned: Zoned = text.parse().map_err(|error| format!("{text:?} is no instant: {error}"))?;
        return stored(text, zoned.timestamp());
    }
    let local = DateTime::from_parts(pieces.date(), pieces.time().unwrap_or(Time::midnight()));
    match pieces.to_numeric_offset() {
        Some(offset) => {
            let instant = offset.to_timestamp(local).map_err(|error| format!("{text:?}: {error}"))?;
            stored(text, instant)
        }
        None => in_zone(text, local, zone),
    }
}

/// Reads a text of a strptime form. A form without a time of day means midnight.
pub(super) fn parse_form(text: &str, form: &str, zone: Zone<'_>) -> Result<Timestamp, String> {
    let wrong = |error: jiff::Error| format!("{text:?} does not have the form {form:?}: {error}");
    let parts = strtime::parse(form, text).map_err(wrong)?;
    if parts.timestamp().is_some() || parts.offset().is_some() {
        return stored(text, parts.to_timestamp().map_err(wrong)?);
    }
    if parts.iana_time_zone().is_some() {
        return stored(text, parts.to_zoned().map_err(wrong)?.timestamp());
    }
    let local = match parts.to_time() {
        Ok(_) => parts.to_datetime().map_err(wrong)?,
        Err(_) => parts.to_date().map_err(wrong)?.to_datetime(Time::midnight()),
    };
    in_zone(text, local, zone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new_york() -> TimeZone {
        TimeZone::get("America/New_York").unwrap()
    }

    fn shown(text: &str, zone: &TimeZone) -> String {
        parse(text, Ok(zone)).unwrap().to_string()
    }

    #[test]
    fn common_forms_are_read() {
        let utc = TimeZone::UTC;
        for text in [
            "2014-06-02T13:30:00Z",
            "2014-06-02 13:30:00",
            "2014-06-02 13:30",
            "20140602 13:30",
            "2014-06-02T09:30:00-04:00",
            "2014-06-02 13:30:00+00:00",
            "2014-06-02T09:30[America/New_York]",
        ] {
            assert_eq!(shown(text, &utc), "2014-06-02T13:30:00Z", "{text}");
        }
        assert_eq!(shown("2014-06-02", &utc), "2014-06-02T00:00:00Z");
        assert_eq!(shown("20140602", &utc), "2014-06-02T00:00:00Z");
        assert_eq!(shown("2014-06-02T00:00:00.000000001Z", &utc), "2014-06-02T00:00:00.000000001Z");
        assert_eq!(shown("2014-06-02 09:30", &new_york()), "2014-06-02T13:30:00Z");
        assert_eq!(shown("2014-01-02 09:30", &new_york()), "2014-01-02T14:30:00Z");
    }

    #[test]
    fn local_times_that_clocks_skip_or_repeat_are_refused() {
        let gap = parse("2014-03-09 02:30:00", Ok(&new_york())).unwrap_err();
        assert!(gap.contains("does not exist") && gap.contains("America/New_York"), "{gap}");
        let fold = parse("2014-11-02 01:30:00", Ok(&new_york())).unwrap_err();
        assert!(fold.contains("ambiguous") && fold.contains("-04"), "{fold}");
        assert_eq!(shown("2014-11-02 01:30:00-04:00", &new_york()), "2014-11-02T05:30:00Z");
        assert!(parse_form("2014-03-09 02:30", "%Y-%m-%d %H:%M", Ok(&new_york())).is_err());
    }

    #[test]
    fn own_forms_are_read() {
        let read = |text, form| parse_form(text, form, Ok(&new_york())).unwrap().to_string();
        assert_eq!(read("02/06/2014 09:30", "%d/%m/%Y %H:%M"), "2014-06-02T13:30:00Z");
        assert_eq!(read("02/06/2014", "%d/%m/%Y"), "2014-06-02T04:00:00Z");
        assert_eq!(
            read("2014-06-02 09:30:00.25 -0500", "%Y-%m-%d %H:%M:%S%.f %z"),
            "2014-06-02T14:30:00.25Z"
        );
        assert_eq!(read("1401715800", "%s"), "2014-06-02T13:30:00Z");
        assert!(parse_form("2 June", "%d/%m/%Y", Ok(&TimeZone::UTC)).is_err());
    }

    #[test]
    fn nonsense_and_far_years_are_refused() {
        for text in
            ["", "abc", "2014-13-01", "2014-06-31", "9999-01-01", "1500-01-01T00:00Z", "2014-06-02T25:00"]
        {
            assert!(parse(text, Ok(&TimeZone::UTC)).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read(ns: i64) {
            prop_assert_eq!(parse(&Timestamp(ns).to_string(), Ok(&TimeZone::UTC)), Ok(Timestamp(ns)));
        }
    }
}
