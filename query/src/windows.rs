//! Windows of time: of one length, or of days, weeks, months and years in a time zone.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp as Instant};
use underbelly_storage::Timestamp;

use crate::QueryError;

/// The longest window in years.
const YEARS_MAX: u32 = 5_000;

/// How long each window of a [`Resample`](crate::Resample) lasts and where the first begins.
///
/// Windows of a fixed length follow each other from an origin, 1970-01-01T00:00:00 UTC unless given. Days, weeks (from
/// Monday), months and years begin at midnight in a time zone, UTC unless given: a day in which clocks change has 23 or
/// 25 hours, and a day without midnight begins with its first instant.
///
/// ```
/// use underbelly_query::Every;
/// let day = Every::days(1).zone("America/New_York")?;
/// assert!(Every::minutes(5) != day);
/// # Ok::<(), underbelly_query::QueryError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Every {
    length: Length,
    /// Of windows of a fixed length.
    origin: i64,
    zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// Nanoseconds.
    Fixed(u128),
    Days(u32),
    /// Of seven days, from Monday.
    Weeks(u32),
    Months(u32),
}

/// A window: all instants from `start` to just before `end`; 128 bits because a window may reach beyond what can be
/// stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Windows are numbered along time.
    pub(crate) index: i128,
    pub(crate) start: i128,
    pub(crate) end: i128,
}

/// Whether the database of time zones has a zone of this name, as it is written there.
pub fn is_zone(name: &str) -> bool {
    TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

impl Every {
    /// Windows of one length.
    pub fn of(length: Duration) -> Every {
        Every::new(Length::Fixed(length.as_nanos()))
    }

    /// Windows of so many seconds.
    pub fn seconds(n: u32) -> Every {
        Every::of(Duration::from_secs(n.into()))
    }

    /// Windows of so many minutes.
    pub fn minutes(n: u32) -> Every {
        Every::of(Duration::from_secs(60 * u64::from(n)))
    }

    /// Windows of so many hours of 60 minutes, whatever clocks show.
    pub fn hours(n: u32) -> Every {
        Every::of(Duration::from_secs(3_600 * u64::from(n)))
    }

    /// Windows of so many calendar days; several are counted from 1970-01-01.
    pub fn days(n: u32) -> Every {
        Every::new(Length::Days(n))
    }

    /// Windows of so many weeks from Monday to Sunday; several are counted from the week of 1970-01-01.
    pub fn weeks(n: u32) -> Every {
        Every::new(Length::Weeks(n))
    }

    /// Windows of so many calendar months; several are counted from January 1970, so that quarters are of three.
    pub fn months(n: u32) -> Every {
        Every::new(Length::Months(n))
    }

    /// Windows of so many calendar years; several are counted from 1970.
    pub fn years(n: u32) -> Every {
        Every::new(Length::Months(n.saturating_mul(12)))
    }

    fn new(length: Length) -> Every {
        Every { length, origin: 0, zone: TimeZone::UTC }
    }

    /// The time zone in which days, weeks, months and years begin, by its name in the IANA database.
    ///
    /// # Errors
    /// [`QueryError::UnknownZone`].
    pub fn zone(mut self, name: &str) -> Result<Every, QueryError> {
        self.zone = TimeZone::get(name).map_err(|_| QueryError::UnknownZone { name: name.to_string() })?;
        Ok(self)
    }

    /// An instant at which a window of a fixed length begins; days, weeks, months and years begin where they do.
    pub fn origin(mut self, origin: Timestamp) -> Every {
        self.origin = origin.0;
        self
    }

    pub(crate) fn check(&self) -> Result<(), QueryError> {
        match self.length {
            Length::Fixed(0) | Length::Days(0) | Length::Weeks(0) | Length::Months(0) => {
                Err(QueryError::EmptyWindow)
            }
            Length::Fixed(_) if self.zone != TimeZone::UTC => Err(QueryError::WindowSetting {
                problem: "windows of a fixed length have no time zone; give days, weeks, months or years, or an origin",
            }),
            Length::Days(_) | Length::Weeks(_) | Length::Months(_) if self.origin != 0 => {
                Err(QueryError::WindowSetting {
                    problem: "days, weeks, months and years begin where calendars say; give a fixed length for an origin, such as 24h",
                })
            }
            // Calendars end with the year 9999.
            Length::Days(n) if n > YEARS_MAX * 366 => Err(QueryError::LongWindow),
            Length::Weeks(n) if n > YEARS_MAX * 53 => Err(QueryError::LongWindow),
            Length::Months(n) if n > YEARS_MAX * 12 => Err(QueryError::LongWindow),
            _ => Ok(()),
        }
    }

    /// The window that an instant lies in; nanoseconds, at most one outside the range of `i64`.
    pub(crate) fn window(&self, at: i128) -> Window {
        let per = |n: u32| i128::from(n.max(1));
        let mut index = match self.length {
            Length::Fixed(length) => (at - i128::from(self.origin)).div_euclid(fixed(length)),
            Length::Days(n) => self.day(at).div_euclid(per(n)),
            // 1970-01-01 was a Thursday.
            Length::Weeks(n) => (self.day(at) + 3).div_euclid(7 * per(n)),
            Length::Months(n) => {
                let date = self.date(at);
                let months = (i128::from(date.year()) - 1970) * 12 + i128::from(date.month()) - 1;
                months.div_euclid(per(n))
            }
        };
        // Clocks that are set back over midnight show a day again that was over.
        while self.start(index) > at {
            index -= 1;
        }
        while self.start(index + 1) <= at {
            index += 1;
        }
        Window { index, start: self.start(index), end: self.start(index + 1) }
    }

    /// The window after one that has any length: a day that clocks skipped has none.
    pub(crate) fn after(&self, window: Window) -> Window {
        if window.end > i128::from(i64::MAX) {
            // Nothing lies in it.
            return Window { index: window.index + 1, start: window.end, end: i128::MAX };
        }
        self.window(window.end)
    }

    /// The window so many before another; `None` where it lies before all that can be stored.
    pub(crate) fn back(&self, mut window: Window, windows: usize) -> Option<Window> {
        if let Length::Fixed(length) = self.length {
            let back = fixed(length).saturating_mul(i128::try_from(windows).unwrap_or(i128::MAX));
            window = self.window(window.start.checked_sub(back)?.max(i128::from(i64::MIN) - 1));
        } else {
            // Calendars have fewer windows than that: of a day at least.
            for _ in 0..windows {
                if window.start <= i64::MIN.into() {
                    return None;
                }
                window = self.window(window.start - 1);
            }
        }
        (window.end > i64::MIN.into()).then_some(window)
    }

    fn start(&self, index: i128) -> i128 {
        let per = |n: u32| i128::from(n.max(1));
        match self.length {
            Length::Fixed(length) => {
                i128::from(self.origin).saturating_add(index.saturating_mul(fixed(length)))
            }
            Length::Days(n) => self.midnight(index * per(n)),
            Length::Weeks(n) => self.midnight(index * 7 * per(n) - 3),
            Length::Months(n) => {
                let months = index * per(n);
                let (year, month) = (1970 + months.div_euclid(12), months.rem_euclid(12) + 1);
                let date = i16::try_from(year).ok().and_then(|year| Date::new(year, month as i8, 1).ok());
                match date {
                    Some(date) => self.first_instant(date),
                    None => beyond(year >= 1970),
                }
            }
        }
    }

    /// The first instant of a local day, counted from 1970-01-01.
    fn midnight(&self, day: i128) -> i128 {
        let days = i64::try_from(day).ok().and_then(|day| Span::new().try_days(day).ok());
        let date = days.and_then(|days| Date::constant(1970, 1, 1).checked_add(days).ok());
        date.map_or(beyond(day >= 0), |date| self.first_instant(date))
    }

    fn first_instant(&self, date: Date) -> i128 {
        let midnight = self.zone.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
        let is_gap = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
        let Ok(midnight) = midnight.compatible() else { return beyond(date.year() >= 1970) };
        // A gap may begin before midnight, and the day then with the gap's end.
        let transition = || {
            let after = midnight.checked_add(SignedDuration::from_nanos(1)).ok()?;
            self.zone.preceding(after).next().map(|transition| transition.timestamp())
        };
        is_gap.then(transition).flatten().unwrap_or(midnight).as_nanosecond()
    }

    fn date(&self, at: i128) -> Date {
        Instant::from_nanosecond(at).map_or(Date::ZERO, |at| self.zone.to_datetime(at).date())
    }

    /// The local day of an instant, counted from 1970-01-01.
    fn day(&self, at: i128) -> i128 {
        let since = Date::constant(1970, 1, 1).until(self.date(at));
        since.map_or(0, |since| i128::from(since.get_days()))
    }
}

fn fixed(length: u128) -> i128 {
    i128::try_from(length).unwrap_or(i128::MAX).max(1)
}

/// Where windows begin that calendars do not reach, far outside what can be stored.
fn beyond(is_after: bool) -> i128 {
    if is_after { i128::MAX } else { i128::MIN }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i128 = 3_600_000_000_000;

    fn instant(text: &str) -> i128 {
        text.parse::<Instant>().unwrap().as_nanosecond()
    }

    fn show(at: i128) -> String {
        Instant::from_nanosecond(at).unwrap().to_string()
    }

    /// Windows follow each other without gaps, and each instant is in its own.
    fn follow(every: &Every, from: &str, n: usize) -> Vec<(String, i128)> {
        let mut window = every.window(instant(from));
        let mut windows = Vec::new();
        for _ in 0..n {
            for at in [window.start, window.start + 1, window.end - 1] {
                assert_eq!(every.window(at), window, "{every:?} at {}", show(at));
            }
            windows.push((show(window.start), (window.end - window.start) / HOUR));
            let next = every.after(window);
            assert_eq!((next.start, next.index > window.index), (window.end, true));
            window = next;
        }
        windows
    }

    fn days(zone: &str, from: &str, n: usize) -> Vec<(String, i128)> {
        follow(&Every::days(1).zone(zone).unwrap(), from, n)
    }

    /// Toronto's clocks went from 23:30 to 00:30, so that the day began half an hour before what midnight would have been.
    #[test]
    fn a_day_whose_midnight_is_within_a_gap_begins_with_the_gaps_end() {
        let expected = list(&[("1919-03-30T05:00:00Z", 24), ("1919-03-31T04:30:00Z", 24)]);
        let found = days("America/Toronto", "1919-03-30T12:00:00Z", 2);
        assert_eq!(found[1].0, expected[1].0);
        assert_eq!(found[0].0, expected[0].0);
    }

    fn list(windows: &[(&str, i128)]) -> Vec<(String, i128)> {
        windows.iter().map(|(start, hours)| (start.to_string(), *hours)).collect()
    }

    #[test]
    fn days_are_as_long_as_clocks_make_them() {
        let spring =
            [("2014-03-08T05:00:00Z", 24), ("2014-03-09T05:00:00Z", 23), ("2014-03-10T04:00:00Z", 24)];
        assert_eq!(days("America/New_York", "2014-03-08T12:00:00Z", 3), list(&spring));
        let autumn = [("2014-11-02T04:00:00Z", 25), ("2014-11-03T05:00:00Z", 24)];
        assert_eq!(days("America/New_York", "2014-11-02T05:30:00Z", 2), list(&autumn));
        // Midnight did not come: the day began at one.
        let gap = [("2018-11-03T03:00:00Z", 24), ("2018-11-04T03:00:00Z", 23)];
        assert_eq!(days("America/Sao_Paulo", "2018-11-03T12:00:00Z", 2), list(&gap));
        // At one minute past midnight clocks went back to the day before.
        let back = [("2010-11-06T02:30:00Z", 24), ("2010-11-07T02:30:00Z", 25), ("2010-11-08T03:30:00Z", 24)];
        assert_eq!(days("America/St_Johns", "2010-11-06T12:00:00Z", 3), list(&back));
        // Samoa left out the 30th of December.
        let skipped = [("2011-12-29T10:00:00Z", 24), ("2011-12-30T10:00:00Z", 24)];
        assert_eq!(days("Pacific/Apia", "2011-12-29T12:00:00Z", 2), list(&skipped));
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let weeks = [("1969-12-29T00:00:00Z", 168), ("1970-01-05T00:00:00Z", 168)];
        assert_eq!(follow(&Every::weeks(1), "1970-01-01T00:00:00Z", 2), list(&weeks));
        let months = [("1969-12-31T23:00:00Z", 744), ("1970-01-31T23:00:00Z", 672)];
        let berlin = Every::months(1).zone("Europe/Berlin").unwrap();
        assert_eq!(follow(&berlin, "1970-01-01T00:00:00Z", 2), list(&months));
        let quarters = [("1969-10-01T00:00:00Z", 2_208), ("1970-01-01T00:00:00Z", 2_160)];
        assert_eq!(follow(&Every::months(3), "1969-12-31T23:59:59Z", 2), list(&quarters));
        let years = [("1968-01-01T00:00:00Z", 17_544), ("1970-01-01T00:00:00Z", 17_520)];
        assert_eq!(follow(&Every::years(2), "1968-01-01T00:00:00Z", 2), list(&years));
    }

    #[test]
    fn windows_reach_over_the_ends_of_time() {
        for every in [Every::days(1), Every::weeks(2), Every::months(1), Every::years(400), Every::hours(7)] {
            for at in [i128::from(i64::MIN) - 1, i128::from(i64::MIN), i128::from(i64::MAX)] {
                let window = every.window(at);
                assert!(window.start <= at && at < window.end, "{every:?} at {at}");
            }
        }
        let all = Every::of(Duration::MAX).window(-1);
        assert!(all.start < i128::from(i64::MIN) && all.end == 0);
        // Behind the last there is nothing, and nothing to look for.
        for every in
            [Every::years(5_000), Every::days(1_830_000), Every::weeks(265_000), Every::months(60_000)]
        {
            every.check().unwrap();
            let mut window = every.window(i128::from(i64::MIN));
            for _ in 0..4 {
                let next = every.after(window);
                assert!(next.index == window.index + 1 && next.start == window.end);
                window = next;
            }
            assert!(window.start > i128::from(i64::MAX));
        }
        let long =
            [Every::years(9_000), Every::years(u32::MAX), Every::days(u32::MAX), Every::weeks(1 << 30)];
        for every in long {
            assert!(matches!(every.check(), Err(QueryError::LongWindow)), "{every:?}");
        }
    }

    #[test]
    fn fixed_windows_begin_at_the_origin() {
        let every = Every::of(Duration::from_nanos(10)).origin(Timestamp(3));
        let window = |at| (every.window(at).start, every.window(at).end);
        assert_eq!([window(2), window(3), window(12), window(-8)], [(-7, 3), (3, 13), (3, 13), (-17, -7)]);
        assert_eq!(Every::days(0).check().unwrap_err().to_string(), QueryError::EmptyWindow.to_string());
        let refused = |every: Every| matches!(every.check(), Err(QueryError::WindowSetting { .. }));
        assert!(refused(Every::hours(24).zone("America/New_York").unwrap()));
        assert!(refused(Every::days(1).origin(Timestamp(5))));
        assert!(!refused(Every::hours(24).zone("UTC").unwrap().origin(Timestamp(5))));
        assert!(matches!(Every::days(1).zone("Mars/Base"), Err(QueryError::UnknownZone { .. })));
    }
}
