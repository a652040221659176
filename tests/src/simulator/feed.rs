//! What the feed tells: the same whenever it is read, by whomever, and whatever happens in between.

use std::collections::BTreeMap;

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

fn mix(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
}

fn hash(committed: &Committed) -> u64 {
    let of_change = |hash, change: &StateChange| {
        let names = change.slot.bytes().chain(change.date.to_string().into_bytes());
        let names = names.chain(change.key.to_string().into_bytes());
        let hash = names.fold(hash, |hash, byte| mix(hash, u64::from(byte)));
        let states = (change.from as u64) << 8 | change.to as u64;
        [u64::from(change.sid.0), states, change.generation].into_iter().fold(hash, mix)
    };
    let alarms = committed.alarms.iter().flat_map(|alarm| daemons::name(&alarm.kind).into_bytes());
    let begin =
        alarms.fold(mix(committed.seq, committed.time.0 as u64), |hash, byte| mix(hash, u64::from(byte)));
    committed.states.iter().fold(begin, of_change)
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
