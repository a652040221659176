//! Reads of the writer's own process that fail.

use underbelly::ReadError;
use underbelly::disk::{Calls, Fault, FaultKind};

use super::life::Life;
use super::{Trouble, check};

impl Life {
    /// Orders one read to fail, unless another order is in force. Answers whether it did.
    pub(super) fn order_read(&mut self) -> bool {
        if self.is_ordered {
            return false;
        }
        let (after, short) = (self.numbers.below(30), self.numbers.below(2) == 0);
        let kind = if short { FaultKind::Short } else { FaultKind::Io };
        self.order(Some(Fault { calls: Calls::Reading, after, kind, sticky: false }));
        true
    }

    /// Looks at everything while a read fails: that is an error and nothing else, and the next time it is as it should
    /// be.
    pub(super) fn read_and_fail(&mut self) -> Result<(), Trouble> {
        let snapshot = self.db()?.snapshot();
        if self.order_read() {
            let read = check::snapshot(&snapshot, &self.model);
            let failed = self.disk.struck() > 0;
            self.order(None);
            match read {
                Err(trouble) if failed && trouble.is::<ReadError>() => {
                    self.tell(|| format!("read: {trouble}"))
                }
                read => read?,
            }
        }
        check::snapshot(&snapshot, &self.model)
    }
}
