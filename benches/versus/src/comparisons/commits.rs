//! Durable commits a second by 1, 16 and 64 threads: appended rows, and cells put again and again.

use std::fs;
use std::path::Path;

use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::raw::RawFile;

use crate::comparisons::{Entry, print_terms};
use crate::effort::{Effort, raw_syncs};
use crate::line::{Better, Comparison, Figure, Plain};
use crate::load::{Make, Work};
use crate::record::{Kind, Record, VALUE_BYTES};
use crate::store::{Peer, Setup};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "commits",
    about: "synced commits/s of 100-byte transactions by 1, 16 and 64 threads: rows appended, cells put",
    run,
};

/// Cells that are put in turn.
const CELLS: u64 = 1_000;

/// What is done in them: a row is appended, or a cell put.
pub const TRANSACTIONS: [(&str, &Make); 2] = [("append", &append), ("put", &put)];

fn append(number: u64) -> (Kind, Record) {
    (Kind::Row, Record::new(number, number, VALUE_BYTES))
}

fn put(number: u64) -> (Kind, Record) {
    (Kind::Cell, Record::new(number % CELLS, number, VALUE_BYTES))
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let setup = Setup::default();
    print_terms(effort, setup);
    let mut raw = RawFile::create(folder)?;
    for (what, make) in TRANSACTIONS {
        for threads in [1, 16, 64] {
            let case = format!("{what} threads={threads}");
            let place = folder.join(&case);
            let stores = effort.open(&place, setup)?;
            let stores: Vec<_> =
                stores.into_iter().map(|(peer, store)| (peer, (store, Work::new(0, make)))).collect();
            let rounds = effort.rounds(
                &stores,
                || raw_syncs(&mut raw, effort.turn / 4),
                |_, (store, work)| Ok(work.run(&**store, threads, effort.turn, false)?.rate()),
            )?;
            let figures = rounds.turns.iter().map(|(peer, rates)| Figure::median(*peer, rates)).collect();
            let comparison =
                Comparison { name: ENTRY.name, case, unit: "commits/s", better: Better::More, figures };
            println!("{comparison}");
            let raw = median(rounds.raw);
            let share = comparison.ours().map(|ours| format!(" | underbelly {} of it", Plain(ours / raw)));
            let synced = comparison.ratio_to(Peer::syncs);
            let synced = synced
                .map(|ratio| format!(" | ratio to the best peer that calls fdatasync {}", Plain(ratio)));
            println!(
                "raw write+fdatasync 4 KiB preallocated: {}/s{}{}",
                Plain(raw),
                share.unwrap_or_default(),
                synced.unwrap_or_default()
            );
            println!("{}", comparison.spread());
            drop(stores);
            fs::remove_dir_all(place)?;
        }
    }
    Ok(())
}
