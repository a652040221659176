//! What came out: tables for the terminal, and the page.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use underbelly::{Clock, Database, SystemClock};
use underbelly_desk::chain::Chain;
use underbelly_desk::compare::Comparison;
use underbelly_desk::page::{Figure, Page, StoryLine};
use underbelly_desk::producers;
use underbelly_desk::report::{self, DateReport};
use underbelly_desk::tables::{self, RESIDUAL, SMILE};

use super::market::Market;
use super::say;
use crate::error::Failed;

/// Results of all dates together.
#[derive(Default)]
pub(super) struct Totals {
    expiries: u64,
    forwards: u64,
    smiles: u64,
    points: u64,
    repaired: u64,
    crossings: (u64, u64),
    rms: Vec<f64>,
    refused: BTreeMap<String, u64>,
    vendor: Comparison,
}

impl Totals {
    pub(super) fn of(reports: &[DateReport]) -> Totals {
        let mut totals = Totals::default();
        for report in reports {
            totals.expiries += report.expiries;
            totals.forwards += report.forwards;
            totals.smiles += report.rms.len() as u64;
            totals.points += report.points;
            totals.repaired += report.repaired;
            totals.crossings.0 += report.crossings.0;
            totals.crossings.1 += report.crossings.1;
            totals.rms.extend(&report.rms);
            for (reason, count) in &report.refused {
                *totals.refused.entry(reason.clone()).or_insert(0) += count;
            }
            totals.vendor = std::mem::take(&mut totals.vendor).join(report.vendor.clone());
        }
        totals.rms.sort_by(f64::total_cmp);
        totals
    }

    fn rms_median(&self) -> Option<f64> {
        self.rms.get(self.rms.len() / 2).copied()
    }
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

pub(super) fn print_tables(db: &Database) -> Result<(), Failed> {
    let slots = report::slot_rows(db);
    let states: Vec<&str> = underbelly::State::ALL.iter().map(|state| state.name()).collect();
    let header: Vec<&str> = std::iter::once("slot").chain(states).collect();
    let rows = slots.into_iter().map(|row| {
        std::iter::once(row.slot).chain(row.cells.into_iter().map(|(_, count)| count.to_string())).collect()
    });
    say(&format!("{}", table(&header, rows)))?;
    let rows = report::run_rows(db)?.into_iter().map(|row| {
        vec![row.producer, row.done.to_string(), row.declined.to_string(), row.failed.to_string()]
    });
    say(&format!("{}", table(&["producer", "completed", "declined", "failed"], rows)))?;
    let micros = |us: f64| format!("{us:.0} µs");
    let rows = report::latency_rows(db)
        .into_iter()
        .map(|row| vec![row.step, row.count.to_string(), micros(row.p50_us), micros(row.p99_us)]);
    say(&format!("{}", table(&["time", "samples", "p50", "p99"], rows)))?;
    Ok(())
}

pub(super) fn print_fits(totals: &Totals, market: &Market, db: &Database) -> Result<(), Failed> {
    say(&format!(
        "\nFits: {} of {} expiries have a forward, {} a smile without butterfly arbitrage ({} bent to get there)",
        totals.forwards, totals.expiries, totals.smiles, totals.repaired
    ))?;
    if let Some(rms) = totals.rms_median() {
        say(&format!("  {} volatilities, median weighted rms {rms:.2} vol points", totals.points))?;
    }
    let refused: Vec<String> =
        totals.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    say(&format!(
        "  quotes refused: {}",
        if refused.is_empty() { "none".to_string() } else { refused.join(", ") }
    ))?;
    match (totals.vendor.median(), totals.vendor.quantile(0.95)) {
        (Some(median), Some(p95)) => say(&format!(
            "  against the vendor's implied volatilities: {} compared, error median {median:.2}, p95 {p95:.2} vol points",
            totals.vendor.compared()
        ))?,
        _ => say("  no vendor's implied volatilities to compare with")?,
    }
    let skipped: Vec<String> =
        totals.vendor.skipped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    if !market.truths.is_empty() {
        let errors = truth_errors(market, db)?;
        let at = |share: usize| {
            errors.get((errors.len() * share / 100).min(errors.len().saturating_sub(1))).copied()
        };
        if let (Some(median), Some(p95)) = (at(50), at(95)) {
            say(&format!(
                "  against the simulation's true volatilities: error median {median:.2}, p95 {p95:.2} vol points"
            ))?;
        }
    } else if !skipped.is_empty() {
        say(&format!("  not compared: {}", skipped.join(", ")))?;
    }
    if let Some(model) = newest_model(market, db)? {
        say(&model)?;
    }
    Ok(())
}

/// Errors of the fitted volatilities at the quoted strikes, in vol points, sorted; without the expiry that the
/// demo moved.
fn truth_errors(market: &Market, db: &Database) -> Result<Vec<f64>, Failed> {
    let moved = market.liveliest(db)?.map(|(chain, expiry)| (chain.date, expiry));
    let snapshot = db.snapshot();
    let mut errors = Vec::new();
    for (chain, truths) in market.chains.iter().zip(&market.truths) {
        for truth in truths.iter().filter(|truth| moved != Some((chain.date, truth.expiry))) {
            let Some(cell) = snapshot.slot(SMILE, chain.date, [truth.expiry])? else { continue };
            let residuals = snapshot.slot(RESIDUAL, chain.date, [truth.expiry])?;
            let residuals = residuals.as_ref().map(|cell| &cell.rows);
            let smile = tables::smile(truth.expiry, &cell.rows, residuals)?;
            let used = smile.residuals.iter().filter(|residual| residual.used);
            errors.extend(used.map(|r| 100.0 * (smile.vol(r.k) - truth.vol(r.strike)).abs()));
        }
    }
    errors.sort_by(f64::total_cmp);
    Ok(errors)
}

fn newest_model(market: &Market, db: &Database) -> Result<Option<String>, Failed> {
    let Some((_, expiry)) = market.liveliest(db)? else { return Ok(None) };
    let metadata = producers::smile_metadata(&market.underlying, expiry);
    let model = db.snapshot().model(&metadata)?;
    Ok(model.map(|model| {
        let info = model.info();
        let models = db.snapshot().models().len();
        format!(
            "  {models} models; the newest of {} is version {}, {} bytes",
            info.metadata().to_json(),
            info.version,
            info.bytes
        )
    }))
}

pub(super) fn page(
    db: &Database,
    market: &Market,
    story: Vec<StoryLine>,
    reports: Vec<DateReport>,
    totals: &Totals,
) -> Result<Page, Failed> {
    let contracts: usize = market.chains.iter().map(Chain::contracts).sum();
    let mut figures = vec![
        Figure::count(market.chains.len() as u64, "dates"),
        Figure::count(contracts as u64, "contracts"),
        Figure::share(totals.smiles, totals.expiries, "expiries with a smile"),
        Figure::count(totals.points, "volatilities in the fits"),
    ];
    if let Some(rms) = totals.rms_median() {
        figures.push(Figure::text(format!("{rms:.2}"), "median rms, vol points (weighted)"));
    }
    if let Some(median) = totals.vendor.median() {
        figures
            .push(Figure::text(format!("{median:.2}"), "median distance to the vendor's vols, vol points"));
    }
    figures.push(Figure::share(totals.crossings.0, totals.crossings.1, "calendar crossings"));
    Ok(Page {
        title: format!("A pricing desk on Underbelly: {}", market.title),
        subtitle: "Each date's chain is one transaction. The commit wakes the producers that depend on it; forwards, \
                   implied volatilities, smiles and a surface follow."
            .to_string(),
        figures,
        story,
        days: reports.into_iter().map(|report| report.day).filter(|day| day.surface.is_some()).collect(),
        graph: db.graph_view(),
        as_of: SystemClock.now(),
        slots: report::slot_rows(db),
        runs: report::run_rows(db)?,
        latencies: report::latency_rows(db),
        footer: "Made by `ubctl demo` from what the database holds.".to_string(),
    })
}
