//! What the desk's database holds, for people: the page's panels and the figures of the tables.

use underbelly::{Database, Date, ReadError, SlotDate, State, Why};

use crate::compare::Comparison;
use crate::desk::{GRID_REACH, GRID_STEPS, Slice};
use crate::page::{Day, LatencyRow, RunRow, SlotRow, SmilePanel, SurfacePanel};
use crate::producers::no_key;
use crate::surface::{Surface, even_grid};
use crate::tables::{self, CHAIN, FORWARD, RESIDUAL, SMILE, SURFACE, TableError, VOLATILITY};

/// Why the desk's results could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows are not the desk's.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Results of one date.
#[derive(Clone, Debug, Default)]
pub struct DateReport {
    /// For the page.
    pub day: Day,
    /// Fitted beside the vendor's volatilities.
    pub vendor: Comparison,
    /// Weighted rms of each smile, in vol points.
    pub rms: Vec<f64>,
    /// Volatilities that the smiles rest on.
    pub points: u64,
    /// Quotes that were not inverted, by reason.
    pub refused: Vec<(String, u64)>,
    /// Expiries with a forward.
    pub forwards: u64,
    /// Expiries.
    pub expiries: u64,
    /// Smiles that were bent to remove butterfly arbitrage.
    pub repaired: u64,
    /// Calendar crossings, and places looked at.
    pub crossings: (u64, u64),
}

/// Reads the results of one date from the database.
pub fn date(db: &Database, date: Date) -> Result<DateReport, ReportError> {
    let snapshot = db.snapshot();
    let mut report =
        DateReport { day: Day { date: date.to_string(), ..Day::default() }, ..DateReport::default() };
    let mut smiles = Vec::new();
    for row in db.slot_table(Some(CHAIN))?.filter(|row| row.date == SlotDate::Day(date)) {
        let Some(expiry) = tables::day(row.key.values().first()) else { continue };
        let Some(quotes) = snapshot.slot(CHAIN, date, [expiry])? else { continue };
        let quotes = tables::expiry(expiry, &quotes.rows)?;
        report.expiries += 1;
        let forward = snapshot.slot(FORWARD, date, [expiry])?;
        report.forwards += u64::from(forward.is_some());
        let vols = snapshot.slot(VOLATILITY, date, [expiry])?;
        let vols = vols.map(|cell| tables::vols(expiry, &cell.rows)).transpose()?;
        for (reason, count) in vols.iter().flat_map(|vols| vols.refused_by_reason()) {
            let name = reason.to_string();
            match report.refused.iter_mut().find(|(known, _)| *known == name) {
                Some((_, total)) => *total += count as u64,
                None => report.refused.push((name, count as u64)),
            }
        }
        let smile = snapshot.slot(SMILE, date, [expiry])?;
        let (Some(forward), Some(vols), Some(smile)) = (forward, vols, smile) else {
            let why = root(&db.why(SMILE, date, [expiry])?);
            report.day.smiles.push(SmilePanel::empty(&expiry.to_string(), &why));
            continue;
        };
        let residuals = snapshot.slot(RESIDUAL, date, [expiry])?;
        let smile = tables::smile(expiry, &smile.rows, residuals.as_ref().map(|cell| &cell.rows))?;
        let forward = tables::forward(expiry, &forward.rows)?;
        let comparison = Comparison::of(&quotes, &forward, &smile);
        report.rms.push(smile.rms_weighted);
        report.points += smile.used as u64;
        report.repaired += u64::from(smile.repaired);
        let slice = Slice { forward, vols, smile, comparison };
        report.day.smiles.push(SmilePanel::of(&slice));
        report.vendor = report.vendor.join(slice.comparison);
        smiles.push(slice.smile);
    }
    if snapshot.slot(SURFACE, date, no_key())?.is_some() {
        // The slot holds the grid; the smiles that it was made from give the drawing more than the grid does.
        if let Ok(surface) = Surface::build(date, smiles, even_grid(GRID_REACH, GRID_STEPS)) {
            report.crossings = (surface.crossings.len() as u64, surface.checked as u64);
            report.day.surface = Some(SurfacePanel::of(&surface));
        }
    }
    Ok(report)
}

/// The last line of the first branch: what everything above it follows from.
fn root(why: &Why) -> String {
    let declined = |text: &str| text.contains("declined") || text.contains("failed");
    if declined(&why.text) {
        return why.text.clone();
    }
    let children = why.children.iter().map(root);
    let mut all: Vec<String> = children.collect();
    let at = all.iter().position(|text| declined(text)).unwrap_or(0);
    if all.is_empty() { why.text.clone() } else { all.swap_remove(at) }
}

/// Cells by state, a row for each slot.
pub fn slot_rows(db: &Database) -> Vec<SlotRow> {
    let row = |slot: underbelly::SlotSummary| SlotRow {
        cells: State::ALL
            .into_iter()
            .map(|state| (state.name().to_string(), slot.states.of(state)))
            .collect(),
        slot: slot.definition.name,
    };
    db.slots().into_iter().map(row).collect()
}

/// Runs by outcome, a row for each producer.
pub fn run_rows(db: &Database) -> Result<Vec<RunRow>, ReadError> {
    let history = db.runs(None, usize::MAX)?;
    let row = |producer: underbelly::ProducerSummary| {
        let name = producer.definition.name;
        let of =
            |outcome| history.iter().filter(|run| run.producer == name && run.outcome == outcome).count();
        RunRow {
            done: of("completed") as u64,
            declined: of("declined") as u64,
            failed: of("failed") as u64,
            producer: name,
        }
    };
    Ok(db.producers().into_iter().map(row).collect())
}

/// Latencies, a row for each.
pub fn latency_rows(db: &Database) -> Vec<LatencyRow> {
    let latencies = db.latencies();
    let row = |step: &str, p: underbelly::Percentiles| LatencyRow {
        step: step.to_string(),
        count: p.samples as u64,
        p50_us: p.p50.as_secs_f64() * 1e6,
        p99_us: p.p99.as_secs_f64() * 1e6,
    };
    vec![
        row("commit to wake (durability and queue included)", latencies.commit_to_start),
        row("durable to wake", latencies.wake),
        row("commit to current", latencies.commit_to_current),
    ]
}
