//! `ubctl backup` and `ubctl repair`: the database in another folder, whole or what is left of it.

use std::path::{Path, PathBuf};

use clap::Args;
use underbelly::{BackupOptions, Database, Reader};

use crate::error::Failed;
use crate::output::{Facts, Field, FormatArg, milliseconds};
use crate::verify::unneeded;
use crate::{progress, stderr};

/// Makes a copy of the database while it is in use, and checks it; opening the copy is all that restoring takes
///
/// Files that never change are hard links where the file system allows it: the backup takes hardly any space, and what
/// rots on the disk rots in both. With --copy it shares nothing with the original. Damage that nothing needs is copied too, and
/// each is a line on standard error.
#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// A folder that is empty or not there
    dest: PathBuf,
    /// Copies all bytes, also where hard links would do
    #[arg(long)]
    copy: bool,
    #[command(flatten)]
    format: FormatArg,
}

impl Backup {
    pub(crate) fn run(&self, db: &Reader) -> Result<(), Failed> {
        let bar = progress::bytes(0, "checking the copy".to_string());
        let options = BackupOptions { copy: self.copy };
        let made = db.backup(&self.dest, options, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let report = made?;
        let mut facts = Facts::default();
        facts.add("dest", Field::text(self.dest.display()));
        facts.add("seq", report.seq).add("manifest", report.manifest);
        facts.add("log_records", report.records);
        facts.add("linked_files", report.linked).add("copied_files", report.copied);
        facts.add("checked_files", report.verified.files).add("checked_bytes", report.verified.bytes);
        facts.add("harmless", report.verified.harmless.len());
        facts.add("took_ms", milliseconds(report.took));
        facts.print(self.format.format)?;
        report.verified.harmless.iter().for_each(|damage| stderr::line(&unneeded(damage)));
        Ok(())
    }
}

/// Saves what is left of a damaged database into another folder, and lists what is lost; the original is not changed
///
/// Files that verify and the log's transactions up to the first damage are copied, and the copy is checked. Each loss
/// is a line on standard error: the file, the place, and what was in it, and so is damage by which nothing is lost. The exit
/// code is 1 where anything is lost. It is refused beside a process that has the database open for writing, and keeps others from
/// that while it works; `ubctl backup DEST` works beside one.
#[derive(Args, Debug)]
pub(crate) struct Repair {
    /// A folder that is empty or not there
    dest: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

impl Repair {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let bar = progress::bytes(0, "checking the copy".to_string());
        let repaired = Database::repair(dir, &self.dest, |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        let report = repaired?;
        report.losses.iter().chain(&report.harmless).for_each(|loss| stderr::line(&loss.to_string()));
        report.assumed.iter().for_each(|assumed| stderr::line(&format!("assumed: {assumed}")));
        let mut facts = Facts::default();
        facts.add("dest", Field::text(self.dest.display()));
        facts.add("seq", report.seq).add("manifest", report.manifest);
        facts.add("log_records", report.records).add("losses", report.losses.len());
        facts.add("rows", report.verified.rows).add("cells", report.verified.cells);
        facts.add("models", report.verified.models).add("lost_objects", report.verified.lost_objects);
        facts.add("took_ms", milliseconds(report.took));
        facts.print(self.format.format)?;
        match report.losses.len() {
            0 => Ok(()),
            losses => Err(Failed::Lost(losses)),
        }
    }
}
