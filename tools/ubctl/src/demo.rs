//! `ubctl demo`: a pricing desk from quotes to a surface, on simulated or real chains.

mod market;
mod results;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use underbelly::{Batch, Database};
use underbelly_desk::desk::DeskSettings;
use underbelly_desk::page::StoryLine;
use underbelly_desk::producers::{self, FORWARD_FITTER, IMPLIED_VOL, SMILE_FITTER, SURFACE_BUILDER};
use underbelly_desk::report;
use underbelly_desk::simulate::{self, MarketSettings};

use crate::error::Failed;
use crate::output::print;
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
}

/// How long the desk may take for one commit before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(120);

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
        let settings = DeskSettings::default();
        let db = Database::create(&dir)?;
        producers::install(&db, &market.underlying, settings)?;
        say(&format!("A pricing desk on {} in {}", market.title, dir.display()))?;

        let mut story = Vec::new();
        for chain in &market.chains {
            let before = runs(&db);
            let started = Instant::now();
            let commit = db.commit(producers::load(chain, &market.underlying)?)?;
            wait(&db)?;
            say(&format!(
                "  {}  {:>2} expiries  {:>5} contracts  in one transaction, {} cells changed; all current after {:>4} ms; runs: {}",
                chain.date,
                chain.expiries.len(),
                chain.contracts(),
                commit.changed,
                started.elapsed().as_millis(),
                show(&difference(&before, &runs(&db))),
            ))?;
        }
        change_one(&db, &market, &mut story)?;
        repeat(&db, &market, &mut story)?;
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

/// Moves one expiry's quotes. Only its branch may run, and the surface that stands on it.
fn change_one(db: &Database, market: &Market, story: &mut Vec<StoryLine>) -> Result<(), Failed> {
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
    wait(db)?;
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
fn repeat(db: &Database, market: &Market, story: &mut Vec<StoryLine>) -> Result<(), Failed> {
    let Some((chain, expiry)) = market.liveliest(db)? else { return Ok(()) };
    let mut batch = Batch::new();
    producers::quotes(&mut batch, chain, |day| day != expiry)?;
    let cells = batch.len();
    let before = runs(db);
    let commit = db.commit(batch)?;
    wait(db)?;
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

fn wait(db: &Database) -> Result<(), Failed> {
    match db.wait_idle(PATIENCE) {
        true => Ok(()),
        false => {
            let what = format!("producers were still at work after {} seconds", PATIENCE.as_secs());
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
