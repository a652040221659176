//! Commits a second by two threads that do not wait for a sync.

use std::fs;
use std::path::Path;

use underbelly_benches::Failed;
use underbelly_benches::figure::{median, rate};
use underbelly_benches::raw::RawFile;

use crate::comparisons::{Entry, print_terms};
use crate::effort::Effort;
use crate::line::{Better, Comparison, Figure, Plain};
use crate::load::Work;
use crate::record::{KEY_BYTES, VALUE_BYTES};
use crate::store::{Promise, Setup};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "buffered",
    about: "commits/s of 100-byte transactions by 2 threads that are answered before a sync: rows appended, cells put",
    run,
};

const THREADS: usize = 2;
/// Bytes of one raw write.
const RAW_BYTES: usize = 1 << 20;

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let setup = Setup { promise: Promise::Buffered, ..Setup::default() };
    print_terms(effort, setup);
    let mut raw = RawFile::create(folder)?;
    for (what, make) in super::commits::TRANSACTIONS {
        let case = format!("{what} threads={THREADS}");
        let place = folder.join(&case);
        let stores = effort.open(&place, setup)?;
        let stores: Vec<_> =
            stores.into_iter().map(|(peer, store)| (peer, (store, Work::new(0, make)))).collect();
        let rounds = effort.rounds(
            &stores,
            || Ok(rate(16, raw.write_and_sync(RAW_BYTES, 16)?)),
            |_, (store, work)| {
                let load = work.run(&**store, THREADS, effort.turn, false)?;
                // Not counted: nothing that a store put off runs into another's turn.
                store.sync()?;
                Ok(load.rate())
            },
        )?;
        let figures = rounds.turns.iter().map(|(peer, rates)| Figure::median(*peer, rates)).collect();
        let comparison =
            Comparison { name: ENTRY.name, case, unit: "commits/s", better: Better::More, figures };
        println!("{comparison}");
        let bytes = median(rounds.raw) * RAW_BYTES as f64;
        println!(
            "raw write+fdatasync 1 MiB preallocated: {} MB/s, or {} transactions/s of {} bytes",
            Plain(bytes / 1e6),
            Plain(bytes / (KEY_BYTES + VALUE_BYTES) as f64),
            KEY_BYTES + VALUE_BYTES
        );
        println!("{}", comparison.spread());
        drop(stores);
        fs::remove_dir_all(place)?;
    }
    Ok(())
}
