//! How long is measured, and rounds in which every store has its turn.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use underbelly_benches::figure::rate;
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};
use underbelly_benches::{Failed, place};

use crate::store::{Peer, Setup, Store};

/// How long is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds; in each, every store has its turn.
    pub rounds: usize,
    /// Whether a round before them is not counted.
    pub warm_up: bool,
    /// How long a turn takes; zero where it takes as long as its work.
    pub turn: Duration,
    /// What amounts of data are divided by.
    pub divisor: u64,
    /// Ours and the peers, in the order of their turns.
    pub peers: Vec<Peer>,
}

/// Open stores in the order of their turns.
pub type Stores = Vec<(Peer, Box<dyn Store>)>;

/// What was measured in rounds.
pub struct Rounds<T> {
    /// What the machine did, a figure for each round.
    pub raw: Vec<f64>,
    /// What each store did, one for each round.
    pub turns: Vec<(Peer, Vec<T>)>,
}

impl Effort {
    /// Opens every store in a folder of its own under `folder`.
    pub fn open(&self, folder: &Path, setup: Setup) -> Result<Stores, Failed> {
        let open = |peer: &Peer| Ok((*peer, peer.open(&folder.join(peer.to_string()), setup)?));
        self.peers.iter().map(open).collect()
    }

    /// Rounds of turns, A B C D A B C D, so that what disturbs the machine for a while disturbs everyone; the
    /// machine's own limit is measured first in each.
    pub fn rounds<S, T>(
        &self,
        stores: &[(Peer, S)],
        mut raw: impl FnMut() -> Result<f64, Failed>,
        mut turn: impl FnMut(Peer, &S) -> Result<T, Failed>,
    ) -> Result<Rounds<T>, Failed> {
        let turns = stores.iter().map(|(peer, _)| (*peer, Vec::new())).collect();
        let mut rounds = Rounds { raw: Vec::new(), turns };
        let skipped = usize::from(self.warm_up);
        for round in 0..skipped + self.rounds {
            let limit = raw()?;
            if round >= skipped {
                rounds.raw.push(limit);
            }
            for ((peer, store), (_, figures)) in stores.iter().zip(&mut rounds.turns) {
                let figure = turn(*peer, store).map_err(|error| format!("{peer}: {error}"))?;
                if round >= skipped {
                    figures.push(figure);
                }
            }
        }
        Ok(rounds)
    }

    /// An amount of data: all of it, or a part where little is to be measured.
    pub fn amount(&self, all: u64) -> u64 {
        (all / self.divisor).max(1)
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rounds, if self.rounds == 1 { "round" } else { "rounds" })?;
        if !self.turn.is_zero() {
            write!(f, ", in each a turn of {:?} for everyone", self.turn)?;
        }
        if self.warm_up {
            f.write_str(", after one that is not counted")?;
        }
        f.write_str("; medians")
    }
}

/// Writes of 4 KiB with `fdatasync` a second, one behind the other in a file that was written before.
pub fn raw_syncs(raw: &mut RawFile, time: Duration) -> Result<f64, Failed> {
    const EACH: u64 = 20;
    let began = Instant::now();
    let (mut count, mut took) = (0, Duration::ZERO);
    while count == 0 || began.elapsed() < time {
        took += raw.write_and_sync(BLOCK_BYTES, EACH)?;
        count += EACH;
    }
    Ok(rate(count, took))
}

/// Says where is measured, and warns where a sync costs nothing there.
pub fn describe(folder: &Path) -> Vec<String> {
    let system = place::file_system(folder);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut lines = vec![format!("folder: {} ({system}), {processors} processors", folder.display())];
    if is_in_memory(&system) {
        lines.push(format!(
            "warning: {system} is in memory and a sync costs nothing there, so these figures say nothing about \
             durable commits; set {} to a folder on a disk",
            place::VARIABLE
        ));
    }
    lines
}

fn is_in_memory(file_system: &str) -> bool {
    ["tmpfs", "ramfs"].iter().any(|kind| file_system.split(' ').next() == Some(kind))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn effort(rounds: usize, warm_up: bool) -> Effort {
        Effort { rounds, warm_up, turn: Duration::ZERO, divisor: 1000, peers: Vec::new() }
    }

    #[test]
    fn turns_are_taken_in_rounds_and_the_first_is_not_counted() {
        let stores = [(Peer::Underbelly, 'a'), (Peer::Redb, 'b')];
        let (mut order, mut limits) = (String::new(), 0.0);
        let rounds = effort(2, true).rounds(
            &stores,
            || {
                limits += 1.0;
                Ok(limits)
            },
            |_, store| {
                order.push(*store);
                Ok(order.len())
            },
        );
        let rounds = rounds.unwrap();
        assert_eq!(order, "ababab");
        assert_eq!(rounds.raw, [2.0, 3.0]);
        assert_eq!(rounds.turns, [(Peer::Underbelly, vec![3, 5]), (Peer::Redb, vec![4, 6])]);
    }

    #[test]
    fn an_error_names_the_store() {
        let failing = effort(1, false).rounds(
            &[(Peer::Sled, ())],
            || Ok(1.0),
            |_, ()| -> Result<(), Failed> { Err("no space".into()) },
        );
        assert_eq!(failing.err().unwrap().to_string(), "sled: no space");
    }

    #[test]
    fn amounts_are_divided_and_never_none() {
        assert_eq!((effort(1, false).amount(10_000), effort(1, false).amount(10)), (10, 1));
    }

    #[test]
    fn an_effort_is_told() {
        assert_eq!(effort(1, false).to_string(), "1 round; medians");
        let timed = Effort { turn: Duration::from_secs(5), ..effort(3, true) };
        let expected = "3 rounds, in each a turn of 5s for everyone, after one that is not counted; medians";
        assert_eq!(timed.to_string(), expected);
    }

    #[test]
    fn memory_is_no_disk() {
        assert!(is_in_memory("tmpfs on tmpfs"));
        assert!(!is_in_memory("ext4 on /dev/tmpfs"));
    }
}
