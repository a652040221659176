//! `ubctl demo`: a pricing desk from quotes to a surface, on simulated or real chains.

mod market;
mod results;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use underbelly::{Batch, Clock, Database, Options, SystemClock, Timestamp};
use underbelly_desk::chain::Chain;
use underbelly_desk::desk::DeskSettings;
use underbelly_desk::page::StoryLine;
use underbelly_desk::producers::{self, FORWARD_FITTER, IMPLIED_VOL, SMILE_FITTER, SURFACE_BUILDER};
use underbelly_desk::report;
use underbelly_desk::simulate::{self, MarketSettings};
use underbelly_desk::tables::SURFACE;

use crate::error::Failed;
use crate::output::print;
use crate::time::parse_duration;
use market::Market;
use results::Totals;

/// Build a pricing desk in a fresh database and watch it work.
///
/// Chains of option quotes are committed day by day; producers wake and make forwards, implied volatilities,
/// smiles and a surface; then one expiry changes and only its branch runs again; then the same data comes again and
/// nothing runs.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Folder of real chains, a file YYYYMMDD.csv for each date; simulated chains without it
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Number of simulated days
    #[arg(long, default_value_t = 5, conflicts_with = "data", value_parser = clap::value_parser!(u32).range(1..=250))]
    days: u32,
    /// Seed of the simulated market
    #[arg(long, default_value_t = MarketSettings::default().seed, conflicts_with = "data")]
    seed: u64,
    /// Where to write the page
    #[arg(long, value_name = "FILE", default_value = "demo.html")]
    page: PathBuf,
    /// So slowly that one can watch it with `ubctl top` in another terminal: a day in each TIME, 6s unless it says
    /// otherwise. Runs take part of that, two at a time, and the quotes of one day are late
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "6s", value_parser = parse_duration)]
    slow: Option<Duration>,
}

/// How long the desk may take for one commit before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs that take place at a time where somebody watches.
const WATCHED_WORKERS: usize = 2;

/// The part of a day that each run takes where somebody watches: a simulated day has 34 runs.
const WATCHED_RUN: u32 = 24;

type Runs = BTreeMap<String, u64>;

impl Demo {
    /// Runs the demo; `db` is the folder that the user named, if any.
    pub(crate) fn run(&self, db: Option<&Path>) -> Result<(), Failed> {
        let dir = match db {
            Some(dir) => dir.to_path_buf(),
            None => fresh_dir(Path::new("underbelly-demo")),
        };
        let market = match &self.data {
            Some(data) => Market::read(data)?,
            None => Market::simulate(self.days, self.seed),
        };
        let pace = self.slow.unwrap_or_default();
        let pause = pace / WATCHED_RUN;
        let options = match self.slow {
            Some(_) => Options { workers: WATCHED_WORKERS, ..Options::default() },
            None => Options::default(),
        };
        let db = Database::create_with(&dir, options)?;
        producers::install(&db, &market.underlying, DeskSettings::default(), pause)?;
        say(&format!("A pricing desk on {} in {}", market.title, dir.display()))?;
        if self.slow.is_some() {
            say(&format!("Watch it in another terminal: ubctl --db {} top", dir.display()))?;
            thread::sleep(pace);
        }

        let mut story = Vec::new();
        // The first day shows how it should be.
        let late = (self.slow.is_some() && market.chains.len() > 1).then(|| market.chains.len() / 2);
        for (at, chain) in market.chains.iter().enumerate() {
            let before = runs(&db);
            let started = Instant::now();
            let (batch, transactions) = match late == Some(at) {
                true => (come_late(&db, &market, chain, pace)?, "two transactions"),
                false => (producers::load(chain, &market.underlying)?, "one transaction"),
            };
            let commit = db.commit(batch)?;
            wait(&db, pace)?;
            say(&format!(
                "  {}  {:>2} expiries  {:>5} contracts  in {transactions}, {} cells changed; all current after {:>4} ms; runs: {}",
                chain.date,
                chain.expiries.len(),
                chain.contracts(),
                commit.changed,
                started.elapsed().as_millis(),
                show(&difference(&before, &runs(&db))),
            ))?;
            thread::sleep(pace.saturating_sub(started.elapsed()));
        }
        change_one(&db, &market, pace, &mut story)?;
        thread::sleep(pace);
        repeat(&db, &market, pace, &mut story)?;
        let reports =
            market.chains.iter().map(|chain| report::date(&db, chain.date)).collect::<Result<Vec<_>, _>>()?;
        let totals = Totals::of(&reports);
        say("")?;
        results::print_tables(&db)?;
        results::print_fits(&totals, &market, &db)?;
        let html = results::page(&db, &market, story, reports, &totals)?.html();
        std::fs::write(&self.page, html)
            .map_err(|error| Failed::file("write the page", &self.page, error))?;
        db.close()?;
        say(&format!("\nThe page with the smiles, the surface and the graph is {}", self.page.display()))?;
        say(&format!(
            "Look around with `ubctl --db {} slot ls`, `slot why`, `producer graph`, `series ls`",
            dir.display()
        ))?;
        Ok(())
    }
}

/// Commits half of a day's quotes and waits until its surface is overdue. Answers the rest.
fn come_late(db: &Database, market: &Market, chain: &Chain, pace: Duration) -> Result<Batch, Failed> {
    let early: Vec<_> =
        chain.expiries.iter().map(|expiry| expiry.expiry).take(chain.expiries.len() / 2).collect();
    let mut batch = producers::begin(chain, &market.underlying, |day| early.contains(&day))?;
    batch.due_by(SURFACE, chain.date, from_now(pace / 2));
    db.commit(batch)?;
    thread::sleep(pace);
    wait(db, pace)?;
    let alarms: Vec<String> = db.alarms().iter().map(|alarm| alarm.kind.to_string()).collect();
    let alarms = if alarms.is_empty() { "none".to_string() } else { alarms.join("; ") };
    let (date, came, all) = (chain.date, early.len(), chain.expiries.len());
    say(&format!("  {date}  only {came} of {all} expiries came so far; alarms: {alarms}"))?;
    thread::sleep(pace / 2);
    let mut rest = Batch::new();
    producers::quotes(&mut rest, chain, |day| !early.contains(&day))?;
    rest.end_of(chain.date);
    Ok(rest)
}

/// Moves one expiry's quotes. Only its branch may run, and the surface that stands on it.
fn change_one(
    db: &Database,
    market: &Market,
    pace: Duration,
    story: &mut Vec<StoryLine>,
) -> Result<(), Failed> {
    let Some((chain, expiry)) = market.liveliest(db)? else {
        let what = "no expiry has a smile, so there is nothing to change; use other data";
        return Err(Failed::Demo(what.to_string()));
    };
    let mut moved = chain.clone();
    let quotes = simulate::perturb(&mut moved, expiry, 0.05);
    let mut batch = Batch::new();
    producers::quotes(&mut batch, &moved, |day| day == expiry)?;
    let before = runs(db);
    let commit = db.commit(batch)?;
    wait(db, pace)?;
    let ran = difference(&before, &runs(db));
    say(&format!("\nOne expiry changes: {quotes} quotes of {expiry} on {}", chain.date))?;
    say(&format!("  {} cell changed; runs: {}", commit.changed, show(&ran)))?;
    let wanted: Runs =
        [FORWARD_FITTER, IMPLIED_VOL, SMILE_FITTER, SURFACE_BUILDER].map(|name| (name.to_string(), 1)).into();
    if ran != wanted {
        return Err(Failed::Demo(format!("expected exactly one run of each producer, not {}", show(&ran))));
    }
    let others = chain.expiries.len() - 1;
    say(&format!("  the other {others} expiries of the date and all other dates were left alone"))?;
    story.push(StoryLine {
        count: quotes as u64,
        text: format!("quotes of expiry {expiry} on {} moved", chain.date),
    });
    story.push(StoryLine {
        count: ran.values().sum(),
        text: "runs followed: its forward, its volatilities, its smile, and the surface of the date"
            .to_string(),
    });
    story.push(StoryLine {
        count: 0,
        text: format!("runs for the other {others} expiries and the other dates"),
    });
    Ok(())
}

/// Commits what is there already. Nothing may run.
fn repeat(db: &Database, market: &Market, pace: Duration, story: &mut Vec<StoryLine>) -> Result<(), Failed> {
    let Some((chain, expiry)) = market.liveliest(db)? else { return Ok(()) };
    let mut batch = Batch::new();
    producers::quotes(&mut batch, chain, |day| day != expiry)?;
    let cells = batch.len();
    let before = runs(db);
    let commit = db.commit(batch)?;
    wait(db, pace)?;
    let ran = difference(&before, &runs(db));
    say(&format!("\nThe same quotes again: {cells} cells of {} committed a second time", chain.date))?;
    say(&format!("  {} cells changed; runs: {}", commit.changed, show(&ran)))?;
    if commit.changed != 0 || !ran.is_empty() {
        let what = format!("equal data changed {} cells and caused runs: {}", commit.changed, show(&ran));
        return Err(Failed::Demo(what));
    }
    story.push(StoryLine {
        count: 0,
        text: format!("runs after {cells} cells were committed again with equal content"),
    });
    Ok(())
}

/// An instant so far ahead.
fn from_now(ahead: Duration) -> Timestamp {
    Timestamp(SystemClock.now().0.saturating_add(i64::try_from(ahead.as_nanos()).unwrap_or(i64::MAX)))
}

/// Prints a line.
fn say(line: &str) -> Result<(), Failed> {
    print(&format!("{line}\n"))
}

/// A folder that is not there yet: `base`, or `base-2`, and so on.
fn fresh_dir(base: &Path) -> PathBuf {
    let numbered = (2u32..).map(|n| PathBuf::from(format!("{}-{n}", base.display())));
    std::iter::once(base.to_path_buf())
        .chain(numbered)
        .find(|dir| !dir.exists())
        .unwrap_or_else(|| base.to_path_buf())
}

fn wait(db: &Database, pace: Duration) -> Result<(), Failed> {
    let patience = PATIENCE.saturating_add(pace);
    match db.wait_idle(patience) {
        true => Ok(()),
        false => {
            let what = format!("producers were still at work after {} seconds", patience.as_secs());
            Err(Failed::Demo(what))
        }
    }
}

fn runs(db: &Database) -> Runs {
    db.producers().into_iter().map(|producer| (producer.definition.name, producer.runs)).collect()
}

fn difference(before: &Runs, after: &Runs) -> Runs {
    let more = |(name, count): (&String, &u64)| {
        let more = count - before.get(name).copied().unwrap_or(0);
        (more > 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(more).collect()
}

fn show(runs: &Runs) -> String {
    if runs.is_empty() {
        return "none".to_string();
    }
    let order = [FORWARD_FITTER, IMPLIED_VOL, SMILE_FITTER, SURFACE_BUILDER];
    let known = order.iter().filter_map(|name| runs.get(*name).map(|count| format!("{name} {count}")));
    known.collect::<Vec<_>>().join(", ")
}
