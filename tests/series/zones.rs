//! Calendar windows in any zone, compared with the first instants of days that the time-zone crate gives.

use jiff::civil::Date as Day;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use underbelly::{Aggregate, Column, Columns, Every, Resample, Timestamp, Value};

/// With clocks that change at midnight, by half an hour, by a whole day, and never.
const ZONES: [&str; 14] = [
    "UTC",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

/// Calendar units.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Days,
    Weeks,
    Months,
    Years,
}

/// The first day of each window from `from` to `to`.
fn first_days(unit: Unit, n: i64, from: Day, to: Day) -> Vec<Day> {
    let epoch = jiff::civil::date(1970, 1, 1);
    let mut days = Vec::new();
    let mut day = from;
    while day <= to {
        let since = i64::from(epoch.until(day).unwrap().get_days());
        let months = (i64::from(day.year()) - 1970) * 12 + i64::from(day.month()) - 1;
        let is_first = match unit {
            Unit::Days => since.rem_euclid(n) == 0,
            // From Monday; 1970 began on a Thursday.
            Unit::Weeks => (since + 3).rem_euclid(7 * n) == 0,
            Unit::Months => day.day() == 1 && months.rem_euclid(n) == 0,
            Unit::Years => day.day() == 1 && months.rem_euclid(12 * n) == 0,
        };
        if is_first {
            days.push(day);
        }
        day = day.tomorrow().unwrap();
    }
    days
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn calendar_windows_begin_with_the_first_instants_of_days(
        zone in prop::sample::select(ZONES.to_vec()),
        unit in prop::sample::select(vec![Unit::Days, Unit::Weeks, Unit::Months, Unit::Years]),
        n in 1u32..4,
        // Around a change of clocks, or anywhere in seventy years.
        at in prop_oneof![
            0i64..2_200_000_000,
            prop::sample::select(vec![1_325_239_200i64, 1_541_300_400, 1_362_898_800, 1_383_458_400, 951_782_400]),
        ],
        offsets in prop::collection::vec(-400_000i64..400_000, 1..40),
        edges in prop::collection::vec((0usize..400, -1i64..2), 0..10),
    ) {
        let tz = TimeZone::get(zone).unwrap();
        let around = jiff::Timestamp::from_second(at).unwrap().to_zoned(tz.clone()).date();
        let reach = jiff::Span::new().days(5_000);
        let (from, to) = (around.saturating_sub(reach), around.saturating_add(reach));
        let first = |day: &Day| {
            let start = day.to_zoned(tz.clone()).unwrap().start_of_day().unwrap();
            i64::try_from(start.timestamp().as_nanosecond()).unwrap()
        };
        let mut starts: Vec<i64> = first_days(unit, i64::from(n), from, to).iter().map(first).collect();
        // A day that clocks skipped has no instant.
        starts.dedup();
        let mut times: Vec<i64> = offsets.iter().map(|offset| (at + offset) * 1_000_000_000).collect();
        let near = starts.partition_point(|start| *start <= times[0]);
        // At the very edges of windows, and a nanosecond beside.
        for (edge, beside) in edges {
            let edge = (near + edge % 3).saturating_sub(1).min(starts.len() - 1);
            if (starts[edge] - times[0]).abs() < 40 * 86_400 * 1_000_000_000 {
                times.push(starts[edge] + beside);
            }
        }
        times.sort_unstable();
        let window = |time: i64| starts.partition_point(|start| *start <= time) - 1;
        let (low, high) = (window(times[0]), window(times[times.len() - 1]));
        let expected: Vec<(i64, i64)> = (low..=high)
            .map(|at| (starts[at], times.iter().filter(|time| window(**time) == at).count() as i64))
            .collect();

        let every = match unit {
            Unit::Days => Every::days(n),
            Unit::Weeks => Every::weeks(n),
            Unit::Months => Every::months(n),
            Unit::Years => Every::years(n),
        };
        let times: Vec<Timestamp> = times.into_iter().map(Timestamp).collect();
        let rows = Columns::new().with("timestamp", Column::from(times)).unwrap();
        let every = every.zone(zone).unwrap();
        let found = Resample::new(rows, every).aggregate(Aggregate::rows()).collect().unwrap();
        let count = |row| match found.value("rows", row) {
            Some(Value::I64(count)) => count,
            _ => 0,
        };
        let starts = found.timestamps("timestamp").unwrap().iter().copied();
        let found: Vec<(i64, i64)> = starts.enumerate().map(|(row, start)| (start, count(row))).collect();
        prop_assert_eq!(found, expected);
    }
}
