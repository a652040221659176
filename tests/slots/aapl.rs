//! The option chain of AAPL, June 2014: contracts become volatilities, these the smile of each expiry, smiles the surface of
//! each date and the move of each smile since the eve. Every run is predicted from the files alone, and counted.
//!
//! The files are found through `UNDERBELLY_DATA`, or in `../shared/data` beside the repository; without them the tests
//! say that they skip.

mod chain;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Failure, Input, Options, Outputs, ProducerDefinition, Run,
    SimulatedDisk, SlotDefinition, State, When,
};
use underbelly_tests::{one, options};

use crate::desk::settle;
use chain::{Chain, Contract, Quote, chain};

/// Runs by producer, date, key and outcome.
type Runs = BTreeMap<(String, String, String, &'static str), usize>;

fn count(runs: &mut Runs, producer: &str, date: Date, key: impl ToString, outcome: &'static str) {
    *runs.entry((producer.into(), date.to_string(), key.to_string(), outcome)).or_default() += 1;
}

fn count_vol(runs: &mut Runs, date: Date, contract: &Contract, quote: &Quote) {
    let outcome = if quote.vol.is_some() { "completed" } else { "declined" };
    count(runs, "vol", date, contract, outcome);
}

/// What follows once from a new smile: itself, its surface, its move, and that of the next day where that has the smile.
fn count_smile(runs: &mut Runs, chain: &Chain, date: Date, expiry: Date) {
    count(runs, "smile", date, expiry, "completed");
    count(runs, "surface", date, "", "completed");
    count(runs, "move", date, expiry, "completed");
    count_next_move(runs, chain, date, expiry);
}

fn count_next_move(runs: &mut Runs, chain: &Chain, date: Date, expiry: Date) {
    let next = Date(date.0 + 1);
    if chain.smiles(next).contains_key(&expiry) {
        count(runs, "move", next, expiry, "completed");
    }
}

/// Everything that is made of a date's smiles, each once.
fn count_smiles(runs: &mut Runs, chain: &Chain, date: Date) {
    let smiles = chain.smiles(date);
    for expiry in smiles.keys() {
        count(runs, "smile", date, expiry, "completed");
        count(runs, "move", date, expiry, "completed");
    }
    if !smiles.is_empty() {
        count(runs, "surface", date, "", "completed");
    }
}

/// A database with the chain's slots and producers.
struct Desk {
    disk: SimulatedDisk,
    db: Database,
    /// What the closures themselves counted since it was last looked at: producer, date and key.
    began: Arc<Mutex<BTreeMap<[String; 3], usize>>>,
    /// Rows of `_runs` that were looked at.
    seen: usize,
}

fn number(rows: &Columns, name: &str) -> i64 {
    rows.i64s(name).and_then(|numbers| numbers.first().copied()).unwrap_or_default()
}

fn sum(run: &Run, input: &str, output: &'static str) -> Result<Outputs, Failure> {
    let (mut n, mut total) = (0, 0);
    for cell in run.inputs(input)? {
        n += 1;
        total += number(&cell.rows()?, "sum");
    }
    Ok(Outputs::new().put(output, smile_rows((n, total))))
}

fn smile_rows((n, total): (i64, i64)) -> Columns {
    one("n", n).unwrap().with("sum", vec![total].into()).unwrap()
}

impl Desk {
    fn new() -> Desk {
        let disk = SimulatedDisk::new();
        let db = Database::create_on(Arc::new(disk.clone()), Desk::options()).unwrap();
        let keys = [("expiry", ColumnType::Date), ("strike", ColumnType::F64), ("right", ColumnType::Utf8)];
        let slot = |name: &str, keys: &[(&str, ColumnType)], values: &[&str]| {
            let slot = SlotDefinition::new(name);
            let slot = keys.iter().fold(slot, |slot, (name, column)| slot.cell_key(*name, *column));
            db.define_slot(values.iter().fold(slot, |slot, name| slot.value(*name, ColumnType::I64)))
                .unwrap();
        };
        slot("Contract", &keys, &["vol", "close"]);
        slot("Vol", &keys, &["sum"]);
        slot("Smile", &keys[..1], &["n", "sum"]);
        slot("Surface", &[], &["n", "sum"]);
        slot("Move", &keys[..1], &["change"]);
        let desk = Desk { disk, db, began: Arc::default(), seen: 0 };
        desk.register();
        desk
    }

    fn options() -> Options {
        Options { log_file_bytes: 16 << 20, ..options() }
    }

    fn produce(
        &self,
        definition: ProducerDefinition,
        closure: impl Fn(&Run) -> Result<Outputs, Failure> + Send + Sync + 'static,
    ) {
        let began = self.began.clone();
        let counted = move |run: &Run| {
            let at = [run.producer().to_string(), run.date().to_string(), run.whole_key().to_string()];
            *began.lock().unwrap().entry(at).or_default() += 1;
            closure(run)
        };
        self.db.register(definition, counted).unwrap();
    }

    fn register(&self) {
        let vol = ProducerDefinition::new("vol").requires("Contract").provides("Vol");
        self.produce(vol, |run| {
            let rows = run.input("Contract")?;
            let vol = rows.i64s("vol").and_then(|vols| vols.first().copied()).filter(|vol| *vol > 0);
            let vol = vol.ok_or_else(|| Failure::declined("no volatility"))?;
            Ok(Outputs::new().put("Vol", one("sum", vol)?))
        });
        let smile = ProducerDefinition::new("smile").requires("Vol").provides("Smile");
        self.produce(smile.group_by(["expiry"], When::Complete), |run| sum(run, "Vol", "Smile"));
        let surface = ProducerDefinition::new("surface").requires("Smile").provides("Surface");
        self.produce(surface.group_by_date(), |run| sum(run, "Smile", "Surface"));
        let moves = ProducerDefinition::new("move")
            .requires("Smile")
            .input(Input::optional("Smile").alias("before").lag(1))
            .provides("Move");
        self.produce(moves, |run| {
            let now = number(&run.input("Smile")?, "sum");
            let change = run.optional("before")?.map(|before| now - number(&before, "sum"));
            let mut rows = Columns::with_types([("change", ColumnType::I64)])?;
            rows.push_row(&[change.into()])?;
            Ok(Outputs::new().put("Move", rows))
        });
    }

    fn put(batch: &mut Batch, date: Date, contract: &Contract, quote: &Quote) {
        let mut rows = Columns::with_types([("vol", ColumnType::I64), ("close", ColumnType::I64)]).unwrap();
        rows.push_row(&[quote.vol.into(), quote.close.into()]).unwrap();
        batch.put_slot("Contract", date, contract.key(), rows);
    }

    /// All contracts of a date.
    fn load(batch: &mut Batch, chain: &Chain, date: Date) {
        for (contract, quote) in &chain.days[&date] {
            Desk::put(batch, date, contract, quote);
        }
    }

    /// Commits, waits until all is done, and compares every run since the last time with what was predicted.
    fn check(&mut self, what: &str, batch: Batch, expected: &Runs) -> underbelly::Commit {
        let commit = self.db.commit(batch).unwrap();
        settle(&self.db);
        self.compare(what, expected);
        commit
    }

    fn compare(&mut self, what: &str, expected: &Runs) {
        let mut began: BTreeMap<[String; 3], usize> = BTreeMap::new();
        for ((producer, date, key, _), n) in expected {
            *began.entry([producer.clone(), date.clone(), key.clone()]).or_default() += n;
        }
        let found = std::mem::take(&mut *self.began.lock().unwrap());
        let differing: Vec<_> = found.iter().filter(|(at, n)| began.get(*at) != Some(n)).take(9).collect();
        assert!(differing.is_empty(), "{what}: too many runs {differing:?}");
        let missing: Vec<_> = began.keys().filter(|at| !found.contains_key(*at)).take(9).collect();
        assert!(missing.is_empty(), "{what}: too few runs, without {missing:?}");

        let rows = self.db.runs(None, usize::MAX).unwrap();
        let mut recorded = Runs::new();
        for row in &rows[..rows.len() - self.seen] {
            let outcomes = ["completed", "declined", "failed"];
            let outcome = outcomes.into_iter().find(|outcome| *outcome == row.outcome).unwrap();
            let at = (row.producer.clone(), row.date.clone(), row.key.clone(), outcome);
            *recorded.entry(at).or_default() += 1;
        }
        self.seen = rows.len();
        assert!(&recorded == expected, "{what}: the rows of _runs are not the predicted runs");
    }

    /// Compares the contents and states of all that was made with what the chain says.
    fn compare_contents(&self, chain: &Chain) {
        let snapshot = self.db.snapshot();
        let (mut vols, mut smiles, mut surfaces) = (0, 0, 0);
        for (date, contracts) in &chain.days {
            vols += contracts.values().filter(|quote| quote.vol.is_some()).count();
            let of_date = chain.smiles(*date);
            smiles += of_date.len();
            for (expiry, smile) in &of_date {
                let cell = snapshot.slot("Smile", *date, [*expiry]).unwrap().unwrap();
                assert_eq!(cell.rows, smile_rows(*smile), "the smile of {expiry} on {date}");
                let before = chain.smiles(Date(date.0 - 1)).get(expiry).map(|before| smile.1 - before.1);
                let cell = snapshot.slot("Move", *date, [*expiry]).unwrap().unwrap();
                assert_eq!(
                    cell.rows.value("change", 0),
                    Some(before.into()),
                    "the move of {expiry} on {date}"
                );
            }
            if !of_date.is_empty() {
                surfaces += 1;
                let cell = snapshot.slot("Surface", *date, [""; 0]).unwrap().unwrap();
                let total = of_date.values().map(|(_, sum)| sum).sum();
                assert_eq!(cell.rows, smile_rows((of_date.len() as i64, total)), "the surface of {date}");
            }
        }
        let contracts = chain.days.values().map(BTreeMap::len).sum();
        let current = [("Contract", contracts), ("Vol", vols), ("Smile", smiles), ("Surface", surfaces)];
        for (slot, cells) in current.into_iter().chain([("Move", smiles)]) {
            let found = self.db.slot_table(Some(slot)).unwrap().filter(|row| row.state == State::Current);
            assert_eq!(found.count(), cells, "current cells of {slot}");
        }
        let left =
            self.db.slot_table(None).unwrap().find(|row| !matches!(row.state, State::Current | State::Void));
        assert!(left.is_none(), "neither current nor void: {left:?}");
        assert!(self.db.verify(|_, _| ()).unwrap().damages.is_empty());
    }

    fn reopen(&mut self) {
        self.db = Database::open_on(Arc::new(self.disk.crash()), Desk::options()).unwrap();
        self.register();
        settle(&self.db);
    }
}

/// Each date is one commit, with its end. Then single contracts change, come and go.
#[test]
fn dates_one_by_one_and_what_changes_later() {
    let Some(mut chain) = chain() else { return };
    let mut desk = Desk::new();
    for date in chain.days.keys().copied() {
        let mut batch = Batch::new();
        Desk::load(&mut batch, &chain, date);
        batch.end_of(date);
        let mut expected = Runs::new();
        chain.days[&date]
            .iter()
            .for_each(|(contract, quote)| count_vol(&mut expected, date, contract, quote));
        count_smiles(&mut expected, &chain, date);
        desk.check(&format!("{date}"), batch, &expected);
    }
    desk.compare_contents(&chain);

    for date in chain.days.keys().copied() {
        let mut batch = Batch::new();
        Desk::load(&mut batch, &chain, date);
        batch.end_of(date);
        let commit = desk.check("the same files again", batch, &Runs::new());
        assert_eq!((commit.changed, commit.woken), (0, 0));
    }

    let day = |text: &str| Date::parse(text).unwrap();
    for (text, has_next) in [("2014-06-04", true), ("2014-06-05", false), ("2014-06-10", true)] {
        let date = day(text);
        let (contract, quote) = chain.with_vol(date);
        let mut expected = Runs::new();
        count_vol(&mut expected, date, &contract, &quote);
        count_smile(&mut expected, &chain, date, contract.expiry);
        assert_eq!(expected.len(), if has_next { 5 } else { 4 });
        let changed = Quote { vol: quote.vol.map(|vol| vol + 1), ..quote };
        let mut batch = Batch::new();
        Desk::put(&mut batch, date, &contract, &changed);
        chain.set(date, &contract, Some(changed));
        desk.check("another volatility", batch.clone(), &expected);
        desk.check("the same again", batch, &Runs::new());

        let closes = Quote { close: changed.close + 1, ..changed };
        let mut expected = Runs::new();
        count_vol(&mut expected, date, &contract, &closes);
        let mut batch = Batch::new();
        Desk::put(&mut batch, date, &contract, &closes);
        chain.set(date, &contract, Some(closes));
        desk.check("another close, so the same volatility", batch, &expected);
    }
    desk.compare_contents(&chain);

    let date = day("2014-06-11");
    let (contract, quote) = chain.with_vol(date);
    let mut batch = Batch::new();
    batch.retract_slot("Contract", date, contract.key());
    let kept = chain.set(date, &contract, None);
    let mut expected = Runs::new();
    count_smile(&mut expected, &chain, date, contract.expiry);
    desk.check("a contract is retracted", batch, &expected);
    assert_eq!(chain.smiles(date)[&contract.expiry].0, kept.smile_size - 1);

    chain.set(date, &contract, Some(quote));
    let mut batch = Batch::new();
    Desk::put(&mut batch, date, &contract, &quote);
    count_vol(&mut expected, date, &contract, &quote);
    desk.check("and comes back", batch, &expected);

    let declined = Quote { vol: None, ..quote };
    chain.set(date, &contract, Some(declined));
    let mut batch = Batch::new();
    Desk::put(&mut batch, date, &contract, &declined);
    let mut expected = Runs::new();
    count_vol(&mut expected, date, &contract, &declined);
    count_smile(&mut expected, &chain, date, contract.expiry);
    desk.check("a contract loses its volatility", batch, &expected);
    desk.compare_contents(&chain);

    // No contract of this date had a volatility, so it has no smile and no surface yet.
    let date = day("2014-06-06");
    assert!(chain.smiles(date).is_empty());
    let (contract, quote) = chain.days[&date].iter().next().map(|(c, q)| (c.clone(), *q)).unwrap();
    let first = Quote { vol: Some(1), ..quote };
    chain.set(date, &contract, Some(first));
    let mut batch = Batch::new();
    Desk::put(&mut batch, date, &contract, &first);
    let mut expected = Runs::new();
    count_vol(&mut expected, date, &contract, &first);
    count_smile(&mut expected, &chain, date, contract.expiry);
    desk.check("the first volatility of a date", batch, &expected);
    desk.compare_contents(&chain);

    // A whole expiry goes: its smile and move have nothing to be made of, its date and the next day lose it.
    let date = day("2014-06-03");
    let expiry = *chain.smiles(date).keys().next().unwrap();
    let mut batch = Batch::new();
    let gone: Vec<Contract> = chain.days[&date].keys().filter(|c| c.expiry == expiry).cloned().collect();
    for contract in &gone {
        batch.retract_slot("Contract", date, contract.key());
        chain.set(date, contract, None);
    }
    let mut expected = Runs::new();
    count(&mut expected, "surface", date, "", "completed");
    count_next_move(&mut expected, &chain, date, expiry);
    assert_eq!(expected.len(), 2);
    desk.check("all contracts of an expiry are retracted", batch, &expected);
    desk.reopen();
    desk.compare("after a crash", &Runs::new());
}

/// All dates are one commit, and their ends another: what is made of whole dates is made once.
#[test]
fn all_dates_at_once_and_their_ends_afterwards() {
    let Some(chain) = chain() else { return };
    let mut desk = Desk::new();
    let (mut batch, mut expected) = (Batch::new(), Runs::new());
    for (date, contracts) in &chain.days {
        Desk::load(&mut batch, &chain, *date);
        contracts.iter().for_each(|(contract, quote)| count_vol(&mut expected, *date, contract, quote));
    }
    desk.check("all dates", batch, &expected);

    let (mut batch, mut expected) = (Batch::new(), Runs::new());
    for date in chain.days.keys() {
        batch.end_of(*date);
        count_smiles(&mut expected, &chain, *date);
    }
    desk.check("their ends", batch.clone(), &expected);
    desk.compare_contents(&chain);
    desk.check("the ends again", batch, &Runs::new());
    desk.reopen();
    desk.compare("after a crash", &Runs::new());
    desk.compare_contents(&chain);
}

/// Where a date comes before its eve, its moves are made again when the eve comes.
#[test]
fn dates_from_last_to_first() {
    let Some(mut chain) = chain() else { return };
    chain.days.retain(|date, contracts| {
        contracts.retain(|_, quote| quote.vol.is_some());
        *date < Date::parse("2014-06-06").unwrap()
    });
    let mut desk = Desk::new();
    let (mut loaded, mut again) = (Chain::default(), 0);
    for date in chain.days.keys().rev().copied() {
        let (mut batch, mut expected) = (Batch::new(), Runs::new());
        Desk::load(&mut batch, &chain, date);
        batch.end_of(date);
        chain.days[&date]
            .iter()
            .for_each(|(contract, quote)| count_vol(&mut expected, date, contract, quote));
        count_smiles(&mut expected, &chain, date);
        let before = expected.len();
        chain.smiles(date).keys().for_each(|expiry| count_next_move(&mut expected, &loaded, date, *expiry));
        again += expected.len() - before;
        loaded.days.insert(date, chain.days[&date].clone());
        desk.check(&format!("{date}"), batch, &expected);
    }
    assert_eq!(again, 12 + 12 + 11, "smiles that have one on the next day");
    desk.compare_contents(&chain);
}
