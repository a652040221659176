//! What producers have in work.

use underbelly::{Extent, SlotDate, View, Why};

use crate::error::Failed;
use crate::output::{Field, FormatArg, Listing};
use crate::slot::parse_key;

/// RUNNING_PROD.
pub(super) fn running(db: &View, name: Option<&str>, format: FormatArg) -> Result<(), Failed> {
    if let Some(name) = name {
        super::check_name(db, name)?;
    }
    let names = ["PROD_NAME", "PID", "MACHINE", "START_TIME", "SID", "DATE", "KEY"];
    let mut listing = Listing::begin(format.format, names)?;
    for row in db.running().filter(|row| name.is_none_or(|name| row.producer == name)) {
        listing.row([
            row.producer.into(),
            row.pid.0.into(),
            row.machine.into(),
            Field::text(row.start_time),
            row.sid.map(|sid| u64::from(sid.0)).into(),
            Field::text(row.date),
            Field::text(row.key),
        ])?;
    }
    listing.end(None)
}

/// The table of a producer.
pub(super) fn obligations(db: &View, name: &str, format: FormatArg) -> Result<(), Failed> {
    let rows = db.producer_table(name)?;
    let mut listing = Listing::begin(format.format, ["SID", "PSTATUS", "GENERATION", "DATE", "KEY"])?;
    for row in rows {
        listing.row([
            u64::from(row.sid.0).into(),
            row.pstatus().into(),
            row.generation.into(),
            Field::text(row.date),
            Field::text(row.key),
        ])?;
    }
    listing.end(None)
}

/// Why a producer's work is as it is: on one bundle, or on those that are not done.
pub(super) fn why(
    db: &View,
    name: &str,
    date: Option<SlotDate>,
    key: Option<&str>,
    extent: Extent,
) -> Result<Why, Failed> {
    let Some(date) = date else { return Ok(db.why_producer(name, extent)?) };
    let columns = db.bundle_columns(name)?;
    let key = parse_key(&format!("producer {name:?}"), &columns, key)?;
    Ok(db.why_work(name, date, key, extent)?)
}
