//! The desk on real chains: AAPL, June 2014. The files are found through `UNDERBELLY_DATA`, or in `../shared/data`
//! beside the repository; without them the tests say that they skip.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::path::PathBuf;
use underbelly_desk::chain::{self, Chain, Date};
use underbelly_desk::compare::Comparison;
use underbelly_desk::desk::{self, DeskSettings};

/// Contracts of each file, as the data's own description gives them, and the stock's close of the date from the
/// daily file (the close of 6 June is of before the split, and its chain has no prices).
const FILES: [(&str, usize, f64); 11] = [
    ("20140602", 4_532, 628.65),
    ("20140603", 4_532, 637.54),
    ("20140604", 4_532, 644.82),
    ("20140605", 2_352, 647.35),
    ("20140606", 2_180, 0.0),
    ("20140609", 4_360, 93.70),
    ("20140610", 4_360, 94.25),
    ("20140611", 4_360, 93.86),
    ("20140612", 4_360, 92.26),
    ("20140613", 4_052, 91.28),
    ("20140616", 4_052, 92.20),
];

fn folder() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let folder = data.join("option_chain_aapl");
    if folder.is_dir() {
        return Some(folder);
    }
    // Past the test harness, which keeps the output of tests that pass.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: no {}; set UNDERBELLY_DATA to the folder with the sample data",
        folder.display()
    );
    None
}

/// All chains in order, each marked against the one before.
fn chains() -> Option<Vec<Chain>> {
    let folder = folder()?;
    let mut chains: Vec<Chain> = Vec::new();
    for (name, _, _) in FILES {
        let mut chain = chain::read(&folder.join(format!("{name}.csv"))).unwrap();
        if let Some(before) = chains.last() {
            chain.mark_carried(before);
        }
        chains.push(chain);
    }
    Some(chains)
}

#[test]
fn every_file_holds_its_documented_contracts() {
    let Some(chains) = chains() else { return };
    for (chain, (name, contracts, _)) in chains.iter().zip(FILES) {
        assert_eq!(chain.date, Date::parse(name).unwrap());
        assert_eq!(chain.contracts(), contracts, "{name}");
        assert!((11..=13).contains(&chain.expiries.len()));
        assert!(chain.expiries.iter().all(|e| e.quotes.is_sorted_by(|a, b| a.strike <= b.strike)));
    }
}

#[test]
fn near_forwards_are_at_the_stocks_close() {
    let Some(chains) = chains() else { return };
    for (chain, (name, _, close)) in chains.iter().zip(FILES) {
        let night = desk::night(chain, &DeskSettings::default());
        if close == 0.0 {
            assert!(night.slices.iter().all(|(_, slice)| slice.is_err()), "{name} has no prices");
            continue;
        }
        let near: Vec<_> = night.slices.iter().filter_map(|(_, s)| s.as_ref().ok()).take(4).collect();
        assert_eq!(near.len(), 4, "{name}");
        for slice in near {
            let off = slice.forward.forward / close - 1.0;
            assert!(
                off.abs() < 0.003,
                "{name} {}: forward {} close {close}",
                slice.forward.expiry,
                slice.forward.forward
            );
        }
    }
}

#[test]
fn most_expiries_have_a_smile_without_arbitrage() {
    let Some(chains) = chains() else { return };
    println!(
        "date        expiry      years  forward  disc    pairs   rms$  points used refused | atm%   rms  core  wrms   max  g_min rep | vendor n  med   p95"
    );
    let (mut fitted, mut tried) = (0, 0);
    let mut vendor = Comparison::default();
    let mut rms = Vec::new();
    for chain in &chains {
        let night = desk::night(chain, &DeskSettings::default());
        let priced = chain.expiries.iter().any(|e| e.quotes.iter().any(|q| q.is_usable()));
        for (expiry, slice) in &night.slices {
            tried += usize::from(priced);
            match slice {
                Ok(s) => {
                    fitted += 1;
                    rms.push(s.smile.rms);
                    let m = &s.smile;
                    let sd = m.atm_vol() * m.years.sqrt();
                    let core: Vec<f64> = m
                        .residuals
                        .iter()
                        .filter(|r| r.used && r.k.abs() < 1.5 * sd)
                        .map(|r| (r.fitted - r.market).powi(2))
                        .collect();
                    let core = 100.0 * (core.iter().sum::<f64>() / core.len().max(1) as f64).sqrt();
                    println!(
                        "{} {expiry} {:6.3} {:8.3} {:.5} {:4} {:7.3} {:5} {:5} {:5}  | {:5.2} {:5.2} {core:5.2} {:5.2} {:6.2} {:5.2} {}  | {:5} {:6.2?} {:6.2?}",
                        chain.date,
                        m.years,
                        s.forward.forward,
                        s.forward.discount,
                        s.forward.pairs_used,
                        s.forward.rms,
                        m.residuals.len(),
                        m.used,
                        s.vols.refused.len(),
                        100.0 * m.atm_vol(),
                        m.rms,
                        m.rms_weighted,
                        m.error_max,
                        m.g_min,
                        if m.repaired { "R" } else { " " },
                        s.comparison.compared(),
                        s.comparison.median().unwrap_or(f64::NAN),
                        s.comparison.p95().unwrap_or(f64::NAN),
                    );
                    assert!(m.g_min >= 0.0 && m.svi.variance_min() > 0.0 && m.svi.wing_slope() <= 2.0);
                    assert!(m.rms_weighted < 1.0, "{} {expiry}: {}", chain.date, m.rms_weighted);
                    vendor = vendor.join(s.comparison.clone());
                }
                Err(error) => println!("{} {expiry} {error}", chain.date),
            }
        }
        if let Ok(surface) = &night.surface {
            println!("{} calendar crossings {} of {}", chain.date, surface.crossings.len(), surface.checked);
        }
    }
    println!(
        "fitted {fitted} of {tried}; vendor compared {} median {:?} p95 {:?} skipped {:?}",
        vendor.compared(),
        vendor.median(),
        vendor.p95(),
        vendor.skipped
    );
    assert!(fitted * 20 >= tried * 19, "fitted {fitted} of {tried}");
    rms.sort_by(f64::total_cmp);
    let median = rms[rms.len() / 2];
    println!("median rms {median:.2} vol points, largest {:.2}", rms[rms.len() - 1]);
    assert!(median < 0.6, "median rms {median}");
}
