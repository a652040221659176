//! How fast a change of one source marks what depends on it, from 10³ to 10⁷ edges: `cargo run --release -p underbelly-benches --bin mark`.

use std::time::Duration;

use underbelly_benches::allocations::{self, Counting};
use underbelly_benches::figure::{Short, median, rate};
use underbelly_benches::mark::{Layers, Size};
use underbelly_benches::{Failed, or_exit, place};

/// Graphs of about 10³, 10⁴, … 10⁷ edges; the largest has 1,000,000 cells.
const SIZES: [Size; 5] = [
    Size { width: 10, layers: 11, keys: 1 },
    Size { width: 10, layers: 11, keys: 10 },
    Size { width: 10, layers: 11, keys: 100 },
    Size { width: 10, layers: 11, keys: 1_000 },
    Size { width: 10, layers: 11, keys: 9_091 },
];
/// Times that the source goes and comes back.
const ROUNDS: usize = 5;
const COMMITS: u64 = 200_000;
/// Allocations of a mark that makes nothing ready, however large the graph: the lists of what changed. More is a failure.
const ALLOCATIONS_MAX: u64 = 32;

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    or_exit(figures());
}

fn figures() -> Result<(), Failed> {
    let largest = std::env::args().nth(1).map_or(Ok(usize::MAX), |edges| edges.parse())?;
    for size in SIZES.into_iter().filter(|size| size.edges() <= largest) {
        let mut layers = Layers::build(size)?;
        let edges = size.edges() as u64;
        let (mut blocked, mut stale) = (Vec::new(), Vec::new());
        let mut states = 0;
        // Of the last round.
        let mut allocated = [0; 2];
        for _ in 0..ROUNDS {
            let before = allocations::so_far().0;
            let (took, _) = layers.mark(false)?;
            blocked.push(rate(edges, took));
            let between = allocations::so_far().0;
            let (took, changed) = layers.mark(true)?;
            stale.push(rate(edges, took));
            states = changed;
            allocated = [between - before, allocations::so_far().0 - between];
        }
        if allocated[0] > ALLOCATIONS_MAX {
            return Err(format!("{} allocations as the source of {edges} edges goes", allocated[0]).into());
        }
        let nothing: Duration = layers.commit_nothing(COMMITS)?;
        println!(
            "mark {} cells, {edges} edges: {} edges/s as the source goes, {} edges/s as it comes back ({states} transitions) | \
             {} and {} allocations | a commit of equal contents {:.0} ns",
            size.cells(),
            Short(median(blocked)),
            Short(median(stale)),
            allocated[0],
            allocated[1],
            nothing.as_nanos() as f64 / COMMITS as f64,
        );
    }
    match place::peak_memory() {
        Some(bytes) => println!("peak resident memory: {} MiB", bytes >> 20),
        None => println!("peak resident memory: unknown on this system"),
    }
    Ok(())
}
