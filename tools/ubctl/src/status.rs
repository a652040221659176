//! `ubctl status`: counts, places, what opening found, and who else is there.

use clap::Args;
use underbelly::Reader;

use crate::error::Failed;
use crate::output::{Facts, Field, FormatArg, milliseconds};

/// Shows counts, the log, who else has the database open, and what its last opening for writing found
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    format: FormatArg,
}

impl Status {
    pub(crate) fn run(&self, db: &Reader) -> Result<(), Failed> {
        let status = db.status()?;
        let id: String = status.database.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut facts = Facts::default();
        facts.add("dir", status.dir).add("database", id).add("seq", status.seq);
        facts.add("last_commit", (status.seq > 0).then(|| Field::text(status.time)));
        facts.add("series", status.counts.series).add("slots", status.counts.slots);
        facts.add("cells", status.counts.cells).add("producers", status.counts.producers);
        facts.add("models", status.counts.models).add("variables", status.counts.variables);
        facts.add("objects", status.counts.objects);
        facts.add("log_files", status.log_files).add("log_spares", status.log_spares);
        facts.add("log_file", status.log_file).add("log_offset", status.log_offset);
        facts.add("manifest", status.manifest).add("checkpoint_seq", status.checkpoint_seq);
        facts.add("replayed", status.replayed);
        facts.add("writer", status.writer.map(u64::from));
        let readers: Vec<String> =
            status.readers.iter().map(|(pid, manifest)| format!("{pid} at manifest {manifest}")).collect();
        facts.add("readers", readers.len()).add("reader_processes", readers.join(", "));
        let index = db.index();
        facts.add("index", index.state.to_string());
        facts.add("index_stamp", index.stamp).add("index_keys", index.keys);
        facts.add("log_damage", status.log_damage);
        facts.add("shared_damage", status.shared_damage);
        facts.add("damaged_segments", status.damaged.len());
        for (i, damaged) in status.damaged.into_iter().enumerate() {
            facts.add(format!("damaged_segment_{}", i + 1), damaged);
        }
        // Known until the machine is started anew.
        let recovery = status.recovery;
        let known = recovery.as_ref();
        facts.add("recovered_manifest", known.map(|report| report.manifest));
        facts.add("recovered_replayed", known.map(|report| report.replayed));
        facts.add("recovered_seq", known.map(|report| report.last_seq));
        facts.add("removed_files", known.map(|report| report.removed_files));
        facts.add("recovery_ms", known.map(|report| milliseconds(report.took)));
        facts.add("recovery_files_ms", known.map(|report| milliseconds(report.phases.files)));
        facts.add("recovery_image_ms", known.map(|report| milliseconds(report.phases.image)));
        facts.add("recovery_objects_ms", known.map(|report| milliseconds(report.phases.objects)));
        facts.add("recovery_log_ms", known.map(|report| milliseconds(report.phases.log)));
        facts.add("recovery_bytes_read", known.map(|report| report.phases.bytes_read));
        facts.add("torn_tail", known.and_then(|report| report.torn_tail.clone()));
        let rejected = recovery.map(|report| report.rejected_manifests).unwrap_or_default();
        facts.add("rejected_manifests", rejected.len());
        for (i, rejected) in rejected.into_iter().enumerate() {
            facts.add(format!("rejected_manifest_{}", i + 1), rejected);
        }
        facts.print(self.format.format)
    }
}
