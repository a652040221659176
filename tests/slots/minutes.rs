//! Two days of option trades, streamed minute by minute into one cell for each contract. A fit for each expiry and a summary of
//! each date are made as they come; every run is predicted from the file alone, and counted.
//!
//! The files are found through `UNDERBELLY_DATA`, or in `../shared/data` beside the repository; without them the test says
//! that it skips.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::read::GzDecoder;
use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Options, Outputs, ProducerDefinition, Run, SlotDefinition,
    State, Value, When,
};
use underbelly_tests::options;

use crate::desk::settle;

/// The files, with their rows and contracts.
const FILES: [(&str, usize, usize); 2] = [("20140606", 22_067, 1_185), ("20140609", 21_617, 1_138)];

/// Expiry, strike in units of 10⁻⁴, call or put.
type Contract = (Date, i64, String);

/// Closes in units of 10⁻⁴, by minute.
type Minutes = BTreeMap<i64, Vec<(Contract, i64)>>;

fn minutes(name: &str, rows: usize, contracts: usize) -> Option<Minutes> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let data = std::env::var_os("UNDERBELLY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let file = data.join(format!("option_minute_aapl/aapl_{name}_trades.csv.gz"));
    let Ok(packed) = std::fs::File::open(&file) else {
        // Past the test harness, which keeps the output of tests that pass.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: no {}; set UNDERBELLY_DATA to the folder with the sample data",
            file.display()
        );
        return None;
    };
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let (mut minutes, mut known) = (Minutes::new(), BTreeSet::new());
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap();
        let contract = (Date::parse(fields[1]).unwrap(), number(2), fields[3].to_string());
        known.insert(contract.clone());
        minutes.entry(number(0)).or_default().push((contract, number(8)));
    }
    assert_eq!((text.lines().count() - 1, known.len()), (rows, contracts), "rows and contracts of {name}");
    Some(minutes)
}

/// The parabola through the logarithms of the prices over the strikes that has the least squares, of puts and of calls; fewer
/// terms where there are few strikes. Strikes are in hundreds.
fn fit(prices: &[(i64, bool, i64)]) -> Vec<f64> {
    let mut terms = Vec::new();
    for side in [false, true] {
        let of_side: Vec<(f64, f64)> = (prices.iter().filter(|(_, call, _)| *call == side))
            .map(|(strike, _, close)| (*strike as f64 / 1e6, (*close as f64 / 1e4).ln_1p()))
            .collect();
        let order = of_side.len().min(3);
        // Normal equations, by elimination.
        let mut rows = vec![[0.0f64; 4]; order];
        for (x, y) in of_side {
            let powers = [1.0, x, x * x];
            for (row, left) in rows.iter_mut().zip(powers) {
                row.iter_mut().zip(powers).take(order).for_each(|(sum, right)| *sum += left * right);
                row[3] += left * y;
            }
        }
        for at in 0..order {
            let pivot = rows[at];
            if pivot[at].abs() < 1e-12 {
                continue;
            }
            for (_, row) in rows.iter_mut().enumerate().filter(|(other, _)| *other != at) {
                let factor = row[at] / pivot[at];
                row.iter_mut().zip(pivot).for_each(|(value, own)| *value -= factor * own);
            }
        }
        let solved = (0..3).map(|at| match rows.get(at) {
            Some(row) if row[at].abs() >= 1e-12 => row[3] / row[at],
            _ => 0.0,
        });
        terms.extend(solved);
    }
    terms
}

fn close(rows: &Columns) -> i64 {
    rows.i64s("close").unwrap()[0]
}

/// The prices of one expiry, by strike and side.
fn prices(run: &Run) -> Vec<(i64, bool, i64)> {
    let mut prices: Vec<(i64, bool, i64)> = Vec::new();
    for cell in run.inputs("Trade").unwrap() {
        let Some(Value::I64(strike)) = cell.key("strike") else { panic!("no strike") };
        let call = cell.key("right") == Some(&"C".into());
        prices.push((*strike, call, close(&cell.rows().unwrap())));
    }
    prices.sort_unstable();
    prices
}

fn register(db: &Database) {
    let keys = [("expiry", ColumnType::Date), ("strike", ColumnType::I64), ("right", ColumnType::Utf8)];
    let trade =
        keys.into_iter().fold(SlotDefinition::new("Trade"), |slot, (name, of)| slot.cell_key(name, of));
    db.define_slot(trade.value("close", ColumnType::I64)).unwrap();
    let fitted = |slot: SlotDefinition| slot.row_key("term", ColumnType::I64).value("terms", ColumnType::F64);
    let smile = SlotDefinition::new("Smile").cell_key("expiry", ColumnType::Date);
    db.define_slot(fitted(smile)).unwrap();
    db.define_slot(fitted(SlotDefinition::new("Day"))).unwrap();
    let terms = |terms: Vec<f64>| {
        let numbers: Vec<i64> = (0..).take(terms.len()).collect();
        Columns::new().with("term", numbers.into()).unwrap().with("terms", terms.into()).unwrap()
    };
    let smile = ProducerDefinition::new("smile").requires("Trade").group_by(["expiry"], When::Any);
    db.register(
        smile.provides("Smile"),
        move |run| Ok(Outputs::new().put("Smile", terms(fit(&prices(run))))),
    )
    .unwrap();
    let day = ProducerDefinition::new("day").requires("Smile").group_by::<String>([], When::Any);
    db.register(day.provides("Day"), move |run| {
        let mut sums = vec![0.0; 6];
        for cell in run.inputs("Smile")? {
            let rows = cell.rows()?;
            let own = rows.f64s("terms").unwrap().iter();
            sums.iter_mut().zip(own).for_each(|(sum, term)| *sum += term);
        }
        Ok(Outputs::new().put("Day", terms(sums)))
    })
    .unwrap();
}

/// What a date is known to have, and what was made of it.
#[derive(Default)]
struct Model {
    closes: BTreeMap<Contract, i64>,
    smiles: BTreeMap<Date, Vec<f64>>,
}

impl Model {
    /// The runs that a minute makes: of these expiries, and whether of the date.
    fn take(&mut self, trades: &[(Contract, i64)]) -> (BTreeSet<Date>, bool) {
        let mut moved = BTreeSet::new();
        for (contract, close) in trades {
            if self.closes.insert(contract.clone(), *close) != Some(*close) {
                moved.insert(contract.0);
            }
        }
        let mut is_new = false;
        for expiry in &moved {
            let own = self.closes.range((*expiry, i64::MIN, String::new())..);
            let own = own.take_while(|((other, ..), _)| other == expiry);
            let mut prices: Vec<_> = own.map(|((_, strike, right), c)| (*strike, right == "C", *c)).collect();
            prices.sort_unstable();
            let fitted = fit(&prices);
            is_new |= self.smiles.insert(*expiry, fitted.clone()) != Some(fitted);
        }
        (moved, is_new)
    }
}

#[test]
fn every_minute_of_two_days_runs_what_it_changed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { workers: 0, log_file_bytes: 16 << 20, ..options() };
    let db = Database::create_with(dir.path().join("db"), options).unwrap();
    register(&db);
    let mut seen = 0;
    for (name, rows, contracts) in FILES {
        let Some(minutes) = minutes(name, rows, contracts) else { return };
        let date = Date::parse(name).unwrap();
        let mut model = Model::default();
        for (minute, trades) in &minutes {
            let mut batch = Batch::new();
            for ((expiry, strike, right), close) in trades {
                let key: [Value; 3] = [(*expiry).into(), (*strike).into(), right.as_str().into()];
                batch.put_slot(
                    "Trade",
                    date,
                    key,
                    Columns::new().with("close", vec![*close].into()).unwrap(),
                );
            }
            db.commit(batch).unwrap();
            let (smiles, is_new) = model.take(trades);
            let expected = smiles.len() + usize::from(is_new);
            assert_eq!(db.run_ready().unwrap(), expected, "runs of {minute}");
            let runs = db.runs(None, expected).unwrap();
            seen += expected;
            let of = |producer: &str| runs.iter().filter(|run| run.producer == producer).count();
            assert_eq!((of("smile"), of("day")), (smiles.len(), usize::from(is_new)), "runs of {minute}");
            let keys: BTreeSet<String> =
                runs.iter().filter(|run| run.producer == "smile").map(|run| run.key.clone()).collect();
            assert_eq!(keys, smiles.iter().map(Date::to_string).collect(), "expiries of {minute}");
        }
        // What there is at the end is what the last of each contract makes.
        let snapshot = db.snapshot();
        for (expiry, terms) in &model.smiles {
            let cell = snapshot.slot("Smile", date, [*expiry]).unwrap().unwrap();
            assert_eq!(cell.rows.f64s("terms").unwrap(), terms, "{expiry} at the end of {name}");
        }
    }
    settle(&db);
    assert_eq!(db.runs(None, usize::MAX).unwrap().len(), seen, "no other run");
    assert!(db.slot_table(None).unwrap().all(|row| row.state == State::Current));
}
