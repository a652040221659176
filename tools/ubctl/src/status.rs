//! `ubctl status`: counts, places, and what opening found.

use clap::Args;
use underbelly::Database;

use crate::error::Failed;
use crate::output::{Facts, Field, FormatArg};

/// Shows counts, the log, and what recovery found
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    format: FormatArg,
}

impl Status {
    pub(crate) fn run(&self, db: &Database) -> Result<(), Failed> {
        let status = db.status();
        let recovery = status.recovery;
        let id: String = status.database.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut facts = Facts::default();
        facts.add("dir", status.dir).add("database", id);
        facts.add("head", status.head).add("visible", status.visible);
        let committed = status.head > 0;
        facts.add("last_commit", committed.then(|| Field::text(status.time)));
        facts.add("series", status.series).add("slots", status.slots).add("cells", status.cells);
        facts.add("producers", status.producers).add("models", status.models);
        facts.add("objects", status.objects);
        facts.add("log_files", status.log.files).add("log_spares", status.log.spares);
        facts.add("log_file", status.log.file).add("log_offset", status.log.offset);
        facts.add("manifest", recovery.manifest).add("checkpoint_seq", recovery.checkpoint_seq);
        facts.add("replayed", recovery.replayed).add("recovered_seq", recovery.last_seq);
        facts.add("torn_tail", recovery.torn_tail);
        facts.add("rejected_manifests", recovery.rejected_manifests.len());
        for (i, rejected) in recovery.rejected_manifests.into_iter().enumerate() {
            facts.add(format!("rejected_manifest_{}", i + 1), rejected);
        }
        facts.add("removed_files", recovery.removed_files);
        facts.add("open_ms", recovery.took.as_secs_f64() * 1e3);
        facts.print(self.format.format)
    }
}
