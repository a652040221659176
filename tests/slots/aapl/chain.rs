//! What the files say, and what a smile made of it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use underbelly::{Date, Value};

/// The files, with contracts and those with a volatility.
const FILES: [(&str, usize, usize); 11] = [
    ("20140602", 4_532, 1_128),
    ("20140603", 4_532, 1_120),
    ("20140604", 4_532, 1_092),
    ("20140605", 2_352, 1_188),
    ("20140606", 2_180, 0),
    ("20140609", 4_360, 924),
    ("20140610", 4_360, 896),
    ("20140611", 4_360, 876),
    ("20140612", 4_360, 856),
    ("20140613", 4_052, 842),
    ("20140616", 4_052, 816),
];

/// What addresses a contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contract {
    pub expiry: Date,
    /// As the file writes it.
    pub strike: String,
    pub right: String,
}

impl Contract {
    /// Its cell key.
    pub fn key(&self) -> [Value; 3] {
        let strike: f64 = self.strike.parse().unwrap();
        [self.expiry.into(), strike.into(), self.right.as_str().into()]
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [expiry, strike, right] = self.key();
        write!(f, "{expiry}/{strike}/{right}")
    }
}

/// What is known of a contract on a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The implied volatility in units of 10⁻⁷, as many digits as the files have; `None` where it is not above zero.
    pub vol: Option<i64>,
    /// The close in units of 10⁻⁴.
    pub close: i64,
}

/// All contracts of all dates.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub days: BTreeMap<Date, BTreeMap<Contract, Quote>>,
}

/// What a change of one contract left as it was before.
pub struct Kept {
    /// Volatilities in the contract's smile.
    pub smile_size: i64,
}

impl Chain {
    /// The smile of each expiry of a date: how many volatilities it has, and their sum.
    pub fn smiles(&self, date: Date) -> BTreeMap<Date, (i64, i64)> {
        let mut smiles: BTreeMap<Date, (i64, i64)> = BTreeMap::new();
        for (contract, quote) in self.days.get(&date).into_iter().flatten() {
            if let Some(vol) = quote.vol {
                let smile = smiles.entry(contract.expiry).or_default();
                *smile = (smile.0 + 1, smile.1 + vol);
            }
        }
        smiles
    }

    /// The last contract of a date that has a volatility and is not alone in its smile; the last, since early expiries are
    /// not there on the next day.
    pub fn with_vol(&self, date: Date) -> (Contract, Quote) {
        let smiles = self.smiles(date);
        let mut found = self.days[&date]
            .iter()
            .rev()
            .filter(|(contract, quote)| quote.vol.is_some() && smiles[&contract.expiry].0 > 1);
        found.next().map(|(contract, quote)| (contract.clone(), *quote)).unwrap()
    }

    /// Changes one contract, or takes it out.
    pub fn set(&mut self, date: Date, contract: &Contract, quote: Option<Quote>) -> Kept {
        let smile_size = self.smiles(date).get(&contract.expiry).map_or(0, |smile| smile.0);
        let contracts = self.days.entry(date).or_default();
        match quote {
            Some(quote) => contracts.insert(contract.clone(), quote),
            None => contracts.remove(contract),
        };
        Kept { smile_size }
    }
}

fn scaled(text: &str, by: f64) -> i64 {
    if text.is_empty() { 0 } else { (text.parse::<f64>().unwrap() * by).round() as i64 }
}

fn contracts(text: &str) -> BTreeMap<Contract, Quote> {
    let mut contracts = BTreeMap::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        // The first row is the underlying, without an expiry.
        let Some(expiry) = Date::parse(fields[0]) else { continue };
        let contract = Contract { expiry, strike: fields[1].to_string(), right: fields[2].to_string() };
        let vol = Some(scaled(fields[9], 1e7)).filter(|vol| *vol > 0);
        let quote = Quote { vol, close: scaled(fields[6], 1e4) };
        assert_eq!(contracts.insert(contract, quote), None, "a contract stands twice: {line}");
    }
    contracts
}

/// The chain of all dates; `None` without the files.
pub fn chain() -> Option<Chain> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let folder = data.join("option_chain_aapl");
    if !folder.is_dir() {
        // Past the test harness, which keeps the output of tests that pass.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no {}; set UNDERBELLY_DATA to the folder with the sample data",
            folder.display()
        );
        return None;
    }
    let mut chain = Chain::default();
    for (name, all, with_vol) in FILES {
        let text = std::fs::read_to_string(folder.join(format!("{name}.csv"))).unwrap();
        let contracts = contracts(&text);
        let vols = contracts.values().filter(|quote| quote.vol.is_some()).count();
        assert_eq!((contracts.len(), vols), (all, with_vol), "contracts and volatilities of {name}");
        chain.days.insert(Date::parse(name).unwrap(), contracts);
    }
    Some(chain)
}
