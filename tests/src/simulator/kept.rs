//! What is on the disk beside what the newest manifest needs: the manifest before, with all that an opening which falls back to it reads,
//! and nothing else.

use std::sync::Arc;

use underbelly::{Database, SimulatedDisk};

use super::life::Life;
use super::{Trouble, check};

/// Files without a name in a manifest that a checkpoint may leave: a base that no checkpoint came to name, and uploads that
/// nobody put.
const STRAYS_MAX: usize = 8;

fn manifests(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("MANIFEST-") && !name.ends_with(".tmp")).collect()
}

impl Life {
    /// Opens copies of what is on the disk after a recovery: nothing is left over, and with the newest manifest damaged the same is
    /// shown from the one before and the log.
    pub(super) fn look_at_copies(&mut self) -> Result<(), Trouble> {
        let whole = self.disk.inner().crash_keeping_all();
        let manifests = manifests(&whole);
        let report = self.db()?.recovery_report();
        if let Some(damage) = &report.log_damage {
            return Err(format!("a log without damage is told as {damage}").into());
        }
        if self.readers.is_empty() && manifests.len() > 2 {
            return Err(format!("a recovery leaves {manifests:?}").into());
        }
        let [.., _, newest] = &manifests[..] else { return Ok(()) };
        let rotten = whole.crash_keeping_all();
        let mut bytes = rotten.contents(newest).unwrap_or_default();
        let at = self.numbers.below(bytes.len().max(1) as u64) as usize;
        bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 0x10);
        rotten.overwrite(newest, bytes);
        let opened = Database::open_on(Arc::new(rotten), self.options.clone());
        let db = opened.map_err(|error| format!("without {newest}: {error}"))?;
        let report = db.recovery_report();
        self.tell(|| format!("fell back to manifest {} and seq {}", report.manifest, report.last_seq));
        if report.rejected_manifests.len() != 1 {
            return Err(
                format!("{newest} is damaged, and passed over is {:?}", report.rejected_manifests).into()
            );
        }
        if report.last_seq < self.durable {
            let (shown, durable) = (report.last_seq, self.durable);
            return Err(format!("a fall-back shows seq {shown}, and {durable} is durable").into());
        }
        self.figures.fallbacks += 1;
        check::snapshot(&db.snapshot(), &self.model_at(report.last_seq)?)?;
        drop(db);
        if self.readers.is_empty() { self.expect_strays(whole, 0) } else { Ok(()) }
    }

    /// After a checkpoint of a sound disk that nobody else holds files of: two manifests, and few files that neither names.
    pub(super) fn look_for_strays(&mut self) -> Result<(), Trouble> {
        let is_held = !self.held.is_empty() || !self.readers.is_empty();
        if is_held || self.excused || !self.is_sound || self.is_ordered || self.numbers.below(4) > 0 {
            return Ok(());
        }
        let whole = self.disk.inner().crash_keeping_all();
        let manifests = manifests(&whole);
        if manifests.len() != 2 {
            return Err(format!("a checkpoint leaves {manifests:?}").into());
        }
        self.expect_strays(whole, STRAYS_MAX)
    }

    /// An opening removes so many files at most.
    fn expect_strays(&self, disk: SimulatedDisk, most: usize) -> Result<(), Trouble> {
        let before = disk.files();
        let db = Database::open_on(Arc::new(disk.clone()), self.options.clone())?;
        let removed = db.recovery_report().removed_files;
        self.tell(|| format!("{removed} files are left over"));
        if removed <= most {
            return Ok(());
        }
        let after = disk.files();
        let strays: Vec<_> = before.into_iter().filter(|name| !after.contains(name)).collect();
        Err(format!("{removed} files are left over: {strays:?}").into())
    }
}
