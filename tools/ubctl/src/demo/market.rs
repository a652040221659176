//! What the desk is fed with.

use std::path::{Path, PathBuf};

use underbelly::Database;
use underbelly_desk::chain::{self, Chain, Date};
use underbelly_desk::simulate::{self, MarketSettings, Truth};
use underbelly_desk::tables::SMILE;

use crate::error::Failed;
use crate::progress;

/// Chains, oldest first.
pub(super) struct Market {
    pub(super) title: String,
    /// The name by which models are found.
    pub(super) underlying: String,
    pub(super) chains: Vec<Chain>,
    /// What the simulation knows, by day; empty for real data.
    pub(super) truths: Vec<Vec<Truth>>,
}

impl Market {
    /// A simulated market.
    pub(super) fn simulate(days: u32, seed: u64) -> Market {
        let settings = MarketSettings::seeded(seed);
        let all = (0..days).map(|day| simulate::day(&settings, day));
        let (chains, truths) = all.map(|day| (day.chain, day.truth)).unzip();
        let title = format!("{days} simulated {}", if days == 1 { "day" } else { "days" });
        Market { title, underlying: "SIM".to_string(), chains, truths }
    }

    /// Real chains: the files `YYYYMMDD.csv` of a folder.
    pub(super) fn read(dir: &Path) -> Result<Market, Failed> {
        let failed = |error| Failed::file("list", dir, error);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            files.push(entry.map_err(failed)?.path());
        }
        files.retain(|file: &PathBuf| file.extension().is_some_and(|extension| extension == "csv"));
        files.sort();
        if files.is_empty() {
            return Err(Failed::input(
                dir,
                "there is no .csv file; --data needs a file YYYYMMDD.csv for each date",
            ));
        }
        let bar = progress::steps("reading chains");
        bar.set_length(files.len() as u64);
        let mut chains: Vec<Chain> = Vec::new();
        for file in files {
            let mut chain = chain::read(&file)?;
            if let Some(before) = chains.last() {
                chain.mark_carried(before);
            }
            chains.push(chain);
            bar.inc(1);
        }
        bar.finish_and_clear();
        // The folder says whose options they are: `option_chain_aapl`.
        let name = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let name = name.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        let underlying = name.rsplit('_').next().unwrap_or_default().to_string();
        let title = format!("{} days of {underlying} options", chains.len());
        Ok(Market { title, underlying, chains, truths: Vec::new() })
    }

    /// The newest date that has smiles, and its expiry with the most quotes among them.
    pub(super) fn liveliest(&self, db: &Database) -> Result<Option<(&Chain, Date)>, Failed> {
        let snapshot = db.snapshot();
        for chain in self.chains.iter().rev() {
            let mut best = None;
            for expiry in &chain.expiries {
                let quotes = expiry.quotes.len();
                let has_smile = snapshot.slot(SMILE, chain.date, [expiry.expiry])?.is_some();
                if has_smile && best.is_none_or(|(most, _)| quotes > most) {
                    best = Some((quotes, expiry.expiry));
                }
            }
            if let Some((_, expiry)) = best {
                return Ok(Some((chain, expiry)));
            }
        }
        Ok(None)
    }
}
