//! What is lost, too old or overdue, as `ubctl alarms`, `tail`, `top` and `producer ls` show it.

use std::sync::Arc;
use std::time::Duration;

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, ManualClock, Options, ProducerDefinition, SlotDefinition,
    Timestamp,
};

use crate::{Place, words};

/// A daemon gave a signal, and then no sign of life.
fn silent() -> Place {
    let place = Place::new();
    let second = 1_000_000_000;
    let clock = Arc::new(ManualClock::new(Timestamp(second)));
    let options = Options { workers: 0, clock: clock.clone(), ..Options::default() };
    let db = Database::open_with(place.db(), options).unwrap();
    let slot = SlotDefinition::new("Signal").member_key("generator").value("x", ColumnType::F64);
    db.define_slot(slot.fresh_for(Duration::from_secs(90))).unwrap();
    let daemon = ProducerDefinition::daemon("gen").provides_as("Signal", "10\u{1b}00");
    let session = db.open_session(daemon.lease(Duration::from_secs(30))).unwrap();
    let day = Date::from_ymd(2014, 6, 2).unwrap();
    let mut batch = Batch::new();
    batch.put_slot("Signal", day, ["10\u{1b}00"], Columns::new().with("x", vec![1.0].into()).unwrap());
    batch.due_by("Signal", Date::from_ymd(2014, 6, 3).unwrap(), Timestamp(50 * second));
    session.commit(batch).unwrap();
    clock.set(Timestamp(100 * second));
    db.run_ready().unwrap();
    db.close().unwrap();
    place
}

#[test]
fn alarms_are_listed_and_told() {
    let place = silent();
    let listed = place.ok(words("alarms --format csv"));
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "alarm,since,what");
    assert!(lines[1].starts_with("aged,1970-01-01T00:01:31.000000004Z,Signal 2014-06-02"), "{listed}");
    assert_eq!(
        lines[2],
        "overdue,1970-01-01T00:00:50Z,Signal 2014-06-03 was to be up to date by 1970-01-01T00:00:50Z"
    );
    assert_eq!(lines[3], "lost,1970-01-01T00:01:40Z,producer gen gives no sign of life");
    assert_eq!(lines.len(), 4);

    let told = place.ok(words("tail --from oldest"));
    assert_eq!(told.matches("ALARM: producer gen gives no sign of life").count(), 1, "{told}");
    assert_eq!(told.matches("ALARM: ").count(), 3, "{told}");
    assert!(!told.contains('\u{1b}'));
    let told = place.ok(words("tail --from oldest --format json"));
    assert_eq!(told.matches(r#""alarm":"overdue""#).count(), 1, "{told}");

    let shown = place.ok(words("top --looks 1"));
    assert!(shown.contains("3 alarms") && shown.contains("gen") && !shown.contains('\u{1b}'), "{shown}");
    let line = shown.lines().find(|line| line.trim_start().starts_with("gen ")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("lost"), "{shown}");
    let listed = place.ok(words("producer ls --format csv"));
    assert!(listed.contains(",daemon,false,1970-01-01T00:01:40Z,"), "{listed}");
}
