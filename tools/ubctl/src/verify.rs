//! `ubctl verify` and `ubctl checkpoint`: the files of the database.

use clap::Args;
use underbelly::Database;

use crate::error::Failed;
use crate::output::{Facts, FormatArg};
use crate::{progress, stderr};

/// Reads every stored file and compares every checksum; exit 1 where something is damaged
#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    format: FormatArg,
}

impl Verify {
    pub(crate) fn run(&self, db: &Database) -> Result<(), Failed> {
        let bar = progress::steps("verifying");
        let report = db.verify(|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        let report = report?;
        let mut facts = Facts::default();
        facts.add("segments", report.segments).add("rows", report.rows);
        facts.add("packs", report.packs).add("chunks", report.chunks);
        facts.add("cells", report.cells).add("models", report.models);
        facts.add("bytes", report.bytes).add("damages", report.damages.len());
        facts.print(self.format.format)?;
        for damage in &report.damages {
            stderr::line(damage);
        }
        match report.damages.len() {
            0 => Ok(()),
            damages => Err(Failed::Damaged(damages)),
        }
    }
}

/// Writes what the log holds into sealed files, so that the log is reused and opening is quick
#[derive(Args, Debug)]
pub(crate) struct Checkpoint {
    #[command(flatten)]
    format: FormatArg,
}

impl Checkpoint {
    pub(crate) fn run(&self, db: &Database) -> Result<(), Failed> {
        let report = db.checkpoint()?;
        let mut facts = Facts::default();
        facts.add("seq", report.seq).add("bytes_written", report.bytes_written);
        facts.add("segments", report.segments).add("objects", report.objects);
        facts.add("capture_ms", report.capture.as_secs_f64() * 1e3);
        facts.add("took_ms", report.took.as_secs_f64() * 1e3);
        facts.print(self.format.format)
    }
}
