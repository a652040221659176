//! Small texts: days and object ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_storage::{Date, ObjectId, Timestamp};

fuzz_target!(|text: &str| {
    if let Some(day) = Date::parse(text) {
        assert_eq!(Date::parse(&day.to_string()), Some(day));
    }
    if let Some(id) = ObjectId::parse(text) {
        assert_eq!(ObjectId::parse(&id.to_string()), Some(id));
    }
    if let Some(word) = text.as_bytes().first_chunk() {
        let number = i64::from_le_bytes(*word);
        let day = Date(number as i32);
        let (year, month, day_of_month) = day.ymd();
        assert!(year.unsigned_abs() > 1_000_000 || Date::from_ymd(year, month, day_of_month) == Some(day));
        assert!(Timestamp(number).to_string().ends_with('Z'));
    }
});
