//! Copies of a database that is in use.

use std::sync::Arc;

use underbelly::disk::{Calls, Fault, FaultKind};
use underbelly::{Database, FaultyDisk, OpenError, SimulatedDisk};

use super::life::Life;
use super::{Trouble, check};

impl Life {
    /// Makes a backup, takes the power from it, opens it and compares it. In one of three the folder that it goes to fails, once or from
    /// a call on, and then what a crash leaves there is none or whole. In one of two the writer commits and makes checkpoints between
    /// two of the calls.
    pub(super) fn back_up(&mut self) -> Result<(), Trouble> {
        let dest = FaultyDisk::new(SimulatedDisk::new());
        if self.numbers.below(3) == 0 {
            // As often among the first calls as among all.
            let within = 2 << self.numbers.below(8);
            let after = self.numbers.below(within);
            let kind = FaultKind::ALL[self.numbers.below(FaultKind::ALL.len() as u64) as usize];
            let sticky = self.numbers.below(2) == 0;
            dest.order(Some(Fault { calls: Calls::Changing, after, kind, sticky }));
        }
        let before = self.durable;
        let meanwhile = if self.numbers.below(2) == 0 { Some(self.overtake(&dest)?) } else { None };
        let made = self.db()?.backup_on(Arc::new(dest.clone()), |_, _| ());
        dest.watch(|_| Ok(()));
        meanwhile.map_or(Ok(()), |meanwhile| self.account(meanwhile))?;
        self.settle()?;
        let left = match self.numbers.below(3) {
            0 => dest.inner().crash(),
            _ => {
                let seed = self.numbers.below(u64::MAX);
                dest.inner().crash_with(seed)
            }
        };
        let seq = match made {
            Ok(report) => Some(report.seq),
            Err(error) if dest.struck() > 0 => {
                self.tell(|| format!("a backup is cut short: {error}"));
                self.figures.cut += 1;
                None
            }
            Err(error) => {
                if Database::open_read_only_with(Arc::new(left), 0).is_ok() {
                    return Err(format!("a backup that failed ({error}) is a database").into());
                }
                return self.excuse("backup", &error);
            }
        };
        let copy = match Database::open_on(Arc::new(left), self.options.clone()) {
            Err(OpenError::NotFound { .. } | OpenError::Unfinished { .. }) if seq.is_none() => return Ok(()),
            opened => opened?,
        };
        let last = copy.recovery_report().last_seq;
        self.tell(|| format!("backup of seq {last}"));
        if seq.is_some_and(|seq| seq != last) || last > self.durable {
            return Err(
                format!("a backup of {seq:?} ends at seq {last}, and {} is durable", self.durable).into()
            );
        }
        match self.durable == before {
            true => self.expect_all(last)?,
            // All that was durable when it began, where the writer could tell.
            false if last < before && self.is_sound => {
                return Err(format!("a backup ends at seq {last}, and {before} was durable before it").into());
            }
            false => self.figures.overtaken += 1,
        }
        let model = self.model_at(last)?;
        self.figures.backups += 1;
        check::snapshot(&copy.snapshot(), &model)
    }
}
