//! What the feed tells: the same whenever it is read, by whomever, and whatever happens in between.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use underbelly::{Committed, Start, StateChange, View, Watch};

use super::{Trouble, daemons};

/// What was told.
#[derive(Default)]
pub(super) struct Told {
    /// A hash of each transaction, in order of seqs from 1 on.
    hashes: Vec<u64>,
    /// How often each alarm sounded.
    pub alarms: BTreeMap<String, u64>,
}

fn hash(committed: &Committed) -> u64 {
    let mut hasher = DefaultHasher::new();
    (committed.seq, committed.time).hash(&mut hasher);
    for alarm in &committed.alarms {
        daemons::name(&alarm.kind).hash(&mut hasher);
    }
    for StateChange { slot, date, key, sid, from, to, generation, .. } in &committed.states {
        (slot, date, key, sid.0, *from as u8, *to as u8, generation).hash(&mut hasher);
    }
    hasher.finish()
}

impl Told {
    /// Reads everything from the first transaction on: it ends with `last`, and what was told before is told again.
    pub fn read(&mut self, view: &View, last: u64) -> Result<(), Trouble> {
        let mut told = 0;
        self.alarms.clear();
        for committed in view.feed(&Watch::all(), Start::Seq(1))? {
            let committed = committed?;
            told += 1;
            if committed.seq != told {
                return Err(format!("the feed tells transaction {} and not {told}", committed.seq).into());
            }
            for alarm in &committed.alarms {
                *self.alarms.entry(daemons::name(&alarm.kind)).or_default() += 1;
            }
            let hash = hash(&committed);
            match self.hashes.get(told as usize - 1) {
                None => self.hashes.push(hash),
                Some(before) if *before == hash => {}
                Some(_) => {
                    return Err(
                        format!("the feed tells {committed:?}, and told something else before").into()
                    );
                }
            }
        }
        if told != last {
            return Err(format!("the feed ends with transaction {told} and not {last}").into());
        }
        Ok(())
    }
}
