//! `ubctl alarms`: what somebody is to look at.

use underbelly::View;

use crate::error::Failed;
use crate::output::{Field, FormatArg, Listing};

/// Lists what somebody is to look at: data that is too old, slots that are overdue, producers that give no sign of life
///
/// Each was told once when it came, in `ubctl tail`, and is listed here until its reason has gone.
#[derive(clap::Args, Debug)]
pub(crate) struct Alarms {
    #[command(flatten)]
    format: FormatArg,
}

impl Alarms {
    pub(crate) fn run(&self, db: &View) -> Result<(), Failed> {
        let mut listing = Listing::begin(self.format.format, ["alarm", "since", "what"])?;
        for alarm in db.alarms() {
            listing.row([alarm.kind.name().into(), Field::text(alarm.since), Field::text(&alarm.kind)])?;
        }
        listing.end(None)
    }
}
