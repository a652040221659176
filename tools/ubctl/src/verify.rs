//! `ubctl verify` and `ubctl checkpoint`: the files of the database.

use std::path::Path;

use clap::Args;
use underbelly::Database;

use crate::error::Failed;
use crate::output::{Facts, FormatArg, microseconds, milliseconds};
use crate::{progress, stderr};

/// Reads every file and compares every checksum, also of a database that cannot be opened; exit 1 where something is
/// damaged
#[derive(Args, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    format: FormatArg,
}

impl Verify {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let bar = progress::bytes(0, "verifying".to_string());
        let report = Database::verify_dir(dir, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let report = report?;
        let mut facts = Facts::default();
        facts.add("files", report.files).add("bytes", report.bytes);
        facts.add("manifests", report.manifests).add("images", report.images);
        facts.add("segments", report.segments).add("rows", report.rows);
        facts.add("packs", report.packs).add("chunks", report.chunks);
        facts.add("objects", report.objects).add("lost_objects", report.lost_objects);
        facts.add("log_files", report.log_files).add("log_batches", report.log_batches);
        facts.add("log_records", report.log_records).add("torn_tail", report.torn_tail);
        facts.add("slots", report.slots).add("producers", report.producers);
        facts.add("cells", report.cells).add("models", report.models);
        facts.add("damages", report.damages.len()).add("harmless", report.harmless.len());
        facts.print(self.format.format)?;
        for damage in &report.damages {
            stderr::line(damage);
        }
        for harmless in &report.harmless {
            stderr::line(&unneeded(harmless));
        }
        match report.damages.len() {
            0 => Ok(()),
            damages => Err(Failed::Damaged(damages)),
        }
    }
}

/// What is said of damage by which nothing is lost.
pub(crate) fn unneeded(damage: &str) -> String {
    format!("nothing is lost, as nothing that is stored now needs what stood there: {damage}")
}

/// Writes what the log holds into sealed files, so that the log is reused and opening is quick; exit 1 where it had to leave
/// damaged segments as they are
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
        facts.add("segments", report.segments).add("rows_deleted", report.rows_deleted);
        facts.add("damaged_segments", report.damaged.len()).add("objects", report.objects);
        facts.add("records", report.records).add("image_bytes", report.image_bytes);
        facts.add("slices", report.slices);
        facts.add("longest_slice_us", microseconds(report.longest_slice));
        facts.add("busiest_slice_us", microseconds(report.busiest_slice));
        facts.add("reserve_bytes", report.reserve_bytes);
        facts.add("took_ms", milliseconds(report.took));
        facts.print(self.format.format)?;
        for damaged in &report.damaged {
            stderr::line(damaged);
        }
        match report.damaged.len() {
            0 => Ok(()),
            damages => Err(Failed::Damaged(damages)),
        }
    }
}
