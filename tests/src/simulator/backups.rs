//! Copies of a database that is in use.

use std::sync::Arc;

use underbelly::{Database, SimulatedDisk};

use super::life::Life;
use super::{Trouble, check};

impl Life {
    /// Makes a backup, takes the power from it, opens it and compares it.
    pub(super) fn back_up(&mut self) -> Result<(), Trouble> {
        let dest = SimulatedDisk::new();
        let made = self.db()?.backup_on(Arc::new(dest.clone()), |_, _| ());
        self.settle()?;
        let report = match made {
            Ok(report) => report,
            Err(error) => {
                let left = Database::open_read_only_with(Arc::new(dest), 0).map(|_| ());
                if left.is_ok() {
                    return Err(format!("a backup that failed ({error}) is a database").into());
                }
                return self.excuse("backup", &error);
            }
        };
        self.tell(|| {
            format!("backup of seq {}: {} files, {} records", report.seq, report.copied, report.records)
        });
        if report.seq > self.durable {
            return Err(
                format!("a backup ends at seq {}, and {} is durable", report.seq, self.durable).into()
            );
        }
        self.expect_all(report.seq)?;
        let model = self.model_at(report.seq)?;
        let copy = Database::open_on(Arc::new(dest.crash()), self.options.clone())?;
        self.figures.backups += 1;
        check::snapshot(&copy.snapshot(), &model)
    }
}
