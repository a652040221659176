//! What is compared, a file each. A new one is a file here and an entry in [`ALL`].

mod buffered;
mod checkpoint;
mod commits;
mod mark;
mod model;
pub mod reopen;
mod runs;
mod ticks;
mod tsbs;
pub mod variable;
pub mod wake;

use std::path::Path;

use underbelly_benches::Failed;

use crate::effort::Effort;
use crate::store::Setup;

/// A comparison that can be asked for by name.
pub struct Entry {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Measures in a folder and prints.
    pub run: fn(&Path, &Effort) -> Result<(), Failed>,
}

/// All comparisons.
pub const ALL: &[Entry] = &[
    commits::ENTRY,
    buffered::ENTRY,
    checkpoint::ENTRY,
    reopen::ENTRY,
    mark::ENTRY,
    model::ENTRY,
    variable::ENTRY,
    wake::ENTRY,
    runs::ENTRY,
    ticks::INGEST,
    ticks::SCAN,
    ticks::RANGE,
    ticks::RESAMPLE,
    ticks::ASOF,
    ticks::LAST_POINT,
    ticks::SIZE,
    tsbs::ENTRY,
];

/// Says how long is measured and how each store is set up, a line each.
fn print_terms(effort: &Effort, setup: Setup) {
    println!("{effort}");
    for peer in &effort.peers {
        println!("{peer}: {}; {}", peer.version(), peer.terms(setup));
    }
}
