//! Latency of commits under full load by four threads, with and without what the stores put off.

use std::collections::BTreeMap;
use std::path::Path;

use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::raw::RawFile;

use crate::comparisons::{Entry, print_terms};
use crate::effort::{Effort, raw_syncs};
use crate::line::{Better, Comparison, Figure, Plain};
use crate::load::{Make, Work, fill};
use crate::record::{Kind, Record, VALUE_BYTES};
use crate::store::{Peer, Setup, Upkeep};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "checkpoint",
    about: "latency of synced commits by 4 threads, rows and cells in turn, with and without checkpoints",
    run,
};

const THREADS: usize = 4;
/// Cells that are there before and are put in no order.
const CELLS: u64 = 200_000;
/// Cells of one transaction where they are stored beforehand.
const CELLS_EACH: u64 = 5_000;
/// Turns are so many times longer than elsewhere, so that checkpoints come in each.
const LONGER: u32 = 5;

/// So many commits behind each other make a checkpoint at the least where they are on.
const COMMITS_EACH: u64 = 100_000;

/// What is told of the latencies of a turn: the share of commits that took at most so long.
const SHARES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let effort = &Effort { turn: effort.turn * LONGER, ..effort.clone() };
    let mut raw = RawFile::create(folder)?;
    let off = measure(folder, effort, &mut raw, ("off", Upkeep::Never))?;
    let on = measure(folder, effort, &mut raw, ("on", Upkeep::Frequent))?;
    for ((share, _), (on, off)) in SHARES.iter().zip(on.iter().zip(&off)) {
        let each = on.figures.iter().zip(&off.figures);
        let each = each.map(|(on, off)| format!("{} {}", on.peer, Plain(on.value / off.value)));
        println!("{share} with checkpoints over {share} without: {}", each.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

/// A row, or a cell that was there before.
fn transaction(cells: u64, number: u64) -> (Kind, Record) {
    // Multiplication by an odd constant spreads the numbers of one after the other.
    let cell = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % cells;
    match number.is_multiple_of(2) {
        true => (Kind::Row, Record::new(number, number, VALUE_BYTES)),
        false => (Kind::Cell, Record::new(cell, number, VALUE_BYTES)),
    }
}

/// What a store committed in all its turns, and the checkpoints that it made meanwhile, where it tells.
#[derive(Clone, Copy, Default)]
struct Made {
    commits: u64,
    checkpoints: Option<u64>,
}

impl Made {
    /// Whether that is what was to be measured.
    fn check(self, peer: Peer, upkeep: Upkeep) -> Result<(), Failed> {
        match (upkeep, self.checkpoints) {
            (Upkeep::Never, Some(made @ 1..)) => {
                Err(format!("{peer} made {made} checkpoints where none was to be made; take fewer --rounds if its log grew over what calls for one").into())
            }
            (Upkeep::Frequent, Some(0)) if self.commits >= COMMITS_EACH => {
                Err(format!("{peer} made no checkpoint in {} commits", self.commits).into())
            }
            _ => Ok(()),
        }
    }
}

/// A comparison for each of [`SHARES`], printed.
fn measure(
    folder: &Path,
    effort: &Effort,
    raw: &mut RawFile,
    (name, upkeep): (&str, Upkeep),
) -> Result<Vec<Comparison>, Failed> {
    let setup = Setup { upkeep, ..Setup::default() };
    println!("checkpoints={name}");
    print_terms(effort, setup);
    let stores = effort.open(&folder.join(name), setup)?;
    let cells = effort.amount(CELLS);
    for (peer, store) in &stores {
        fill(&**store, Kind::Cell, 0..cells, CELLS_EACH, VALUE_BYTES)
            .map_err(|error| format!("{peer}: {error}"))?;
    }
    let make: &Make = &move |number| transaction(cells, number);
    let stores: Vec<_> =
        stores.into_iter().map(|(peer, store)| (peer, (store, Work::new(cells, make)))).collect();
    let mut made: BTreeMap<String, (Peer, Made)> = BTreeMap::new();
    let rounds = effort.rounds(
        &stores,
        || raw_syncs(raw, effort.turn / 20),
        |peer, (store, work)| {
            let before = store.checkpoints()?;
            let load = work.run(&**store, THREADS, effort.turn, true)?;
            let (_, made) = made.entry(peer.to_string()).or_insert((peer, Made::default()));
            made.commits += load.commits;
            if let (Some(before), Some(after)) = (before, store.checkpoints()?) {
                *made.checkpoints.get_or_insert(0) += after.saturating_sub(before);
            }
            let mut latencies = load.latencies;
            latencies.sort_unstable();
            Ok(SHARES.map(|(_, share)| at_share(&latencies, share) as f64 / 1e6))
        },
    )?;
    for (peer, made) in made.values() {
        if let Some(checkpoints) = made.checkpoints {
            println!("{peer}: {checkpoints} checkpoints in {} commits", made.commits);
        }
        made.check(*peer, upkeep)?;
    }
    let raw_ms = 1e3 / median(rounds.raw);
    let mut comparisons = Vec::new();
    for (i, (part, share)) in SHARES.into_iter().enumerate() {
        let figure = if share < 1.0 { Figure::median } else { Figure::greatest };
        let figures = rounds.turns.iter().map(|(peer, turns)| {
            let turns: Vec<f64> = turns.iter().filter_map(|turn| turn.get(i).copied()).collect();
            figure(*peer, &turns)
        });
        let case = format!("{part} checkpoints={name}");
        let figures = figures.collect();
        let comparison = Comparison { name: ENTRY.name, case, unit: "ms", better: Better::Less, figures };
        println!("{comparison}");
        println!("raw write+fdatasync 4 KiB preallocated: {} ms", Plain(raw_ms));
        println!("{}", comparison.spread());
        comparisons.push(comparison);
    }
    Ok(comparisons)
}

/// The least of the sorted figures that so large a share of them does not pass; zero where there is none.
fn at_share(sorted: &[u64], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_ranks() {
        let figures: Vec<u64> = (1..=1000).collect();
        assert_eq!(SHARES.map(|(_, share)| at_share(&figures, share)), [500, 990, 999, 1000]);
        assert_eq!(SHARES.map(|(_, share)| at_share(&[7], share)), [7; 4]);
        assert_eq!(at_share(&[], 0.5), 0);
    }

    #[test]
    fn what_was_not_to_be_measured_is_refused() {
        let check =
            |upkeep, commits, checkpoints| Made { commits, checkpoints }.check(Peer::Underbelly, upkeep);
        assert!(check(Upkeep::Never, 1_000_000, Some(0)).is_ok());
        assert!(check(Upkeep::Never, 10, Some(1)).is_err());
        assert!(check(Upkeep::Frequent, COMMITS_EACH, Some(0)).is_err());
        assert!(check(Upkeep::Frequent, COMMITS_EACH, Some(1)).is_ok());
        // A quick run has not enough to call for one; who does not tell is believed.
        assert!(check(Upkeep::Frequent, COMMITS_EACH - 1, Some(0)).is_ok());
        assert!(check(Upkeep::Never, 10, None).is_ok());
    }

    #[test]
    fn cells_are_those_that_are_there() {
        let made: Vec<_> = (0..10_000).map(|number| transaction(100, number)).collect();
        let cells = made.iter().filter(|(kind, _)| *kind == Kind::Cell);
        let numbers: std::collections::HashSet<u64> = cells.map(|(_, cell)| cell.number).collect();
        assert_eq!(numbers.len(), 100);
        assert!(numbers.iter().all(|number| *number < 100));
        assert_eq!(made.iter().filter(|(kind, _)| *kind == Kind::Row).count(), 5_000);
    }
}
