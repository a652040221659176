//! Instants and days as people write them: on the command line and in the columns of files.
//!
//! The first byte chooses how a column is written, the rest are its texts, one a line.
#![no_main]
#![allow(dead_code, unused_imports)] // Of a module of `ubctl` that is taken in as it is.

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use underbelly::SlotDate;

#[path = "../../tools/ubctl/src"]
mod ubctl {
    pub(crate) mod time;
}

use ubctl::time::{InstantReader, Notation, Unit, parse_instant, parse_slot_date, parse_zone};

/// How a column may be written.
fn notation(choice: u8) -> Notation {
    let units = [None, Some(Unit::S), Some(Unit::Ms), Some(Unit::Us), Some(Unit::Ns)];
    let zones = ["", "America/New_York", "Europe/London", "Asia/Kathmandu"];
    let forms = ["", "%d/%m/%Y %H:%M", "%Y%m%d %H:%M:%S%.f", "%s", "%Y-%m-%d %z", "%A %d %B %Y %I %p %Q"];
    let choice = usize::from(choice);
    let zone: Option<TimeZone> = parse_zone(zones[choice % zones.len()]).ok();
    let form = Some(forms[choice / 20 % forms.len()].to_string()).filter(|form| !form.is_empty());
    let zones_of_columns = [None, Some("Asia/Tokyo"), Some("No/Where")];
    let column_zone = zones_of_columns[choice % zones_of_columns.len()].map(str::to_string);
    Notation { unit: units[choice / 4 % units.len()], zone, column_zone, form }
}

fuzz_target!(|input: (u8, &str)| {
    let (choice, text) = input;
    let mut reader = InstantReader::new(notation(choice));
    for line in text.lines() {
        if let Err(what) = reader.read(line) {
            assert!(!what.is_empty());
        }
        match parse_slot_date(line) {
            Ok(SlotDate::Day(day)) => assert_eq!(parse_slot_date(&day.to_string()), Ok(SlotDate::Day(day))),
            // The clock moves between two readings of `now`.
            Ok(SlotDate::Instant(_)) if line == "now" => {}
            Ok(SlotDate::Instant(at)) => {
                assert_eq!(parse_instant(&at.to_string()), Ok(at), "{line:?}");
                assert_eq!(parse_instant(line), Ok(at), "{line:?}");
            }
            Err(what) => assert!(what.contains("seconds since 1970"), "{what}"),
        }
    }
});
