//! Writes the desk's page without a database: `cargo run -p underbelly-desk --example page -- OUT.html [DATA_DIR]`.
//!
//! DATA_DIR holds `YYYYMMDD.csv` option files; without it the market is simulated.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use underbelly::{EdgeRole, GraphEdge, GraphNode, GraphView, NodeKind, State, Timestamp};
use underbelly_desk::chain::{self, Chain};
use underbelly_desk::compare::Comparison;
use underbelly_desk::desk::{self, DeskSettings, Night, SliceError};
use underbelly_desk::forward;
use underbelly_desk::page::{Day, Figure, LatencyRow, Page, RunRow, SlotRow, StoryLine};
use underbelly_desk::simulate::{self, MarketSettings};
use underbelly_desk::smile;
use underbelly_desk::vols;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(out) = arguments.next() else {
        eprintln!("usage: page OUT.html [DATA_DIR]");
        return ExitCode::from(2);
    };
    let data = arguments.next();
    match chains(data.as_deref()).and_then(|chains| {
        let html = page(&chains, data.is_some()).html();
        std::fs::write(&out, html).map_err(|e| format!("{}: cannot write it: {e}", out.display()))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn chains(folder: Option<&Path>) -> Result<Vec<Chain>, String> {
    let Some(folder) = folder else {
        return Ok((0..5).map(|n| simulate::day(&MarketSettings::default(), n).chain).collect());
    };
    let entries =
        std::fs::read_dir(folder).map_err(|e| format!("{}: cannot list it: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "csv"));
    files.sort();
    let mut chains: Vec<Chain> = Vec::new();
    for file in files {
        let mut chain = chain::read(&file).map_err(|e| e.to_string())?;
        if let Some(before) = chains.last() {
            chain.mark_carried(before);
        }
        chains.push(chain);
    }
    if chains.is_empty() { Err(format!("{}: no .csv file", folder.display())) } else { Ok(chains) }
}

/// Times of one step, in microseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push(start.elapsed().as_secs_f64() * 1e6);
        result
    }

    fn row(mut self, step: &str) -> LatencyRow {
        self.0.sort_by(f64::total_cmp);
        let at = |share: f64| self.0.get((share * (self.0.len().max(1) - 1) as f64) as usize).copied();
        LatencyRow {
            step: step.to_string(),
            count: self.0.len() as u64,
            p50_us: at(0.5).unwrap_or(f64::NAN),
            p99_us: at(0.99).unwrap_or(f64::NAN),
        }
    }
}

fn page(chains: &[Chain], real: bool) -> Page {
    let settings = DeskSettings::default();
    let [mut forward_times, mut vol_times, mut smile_times, mut night_times] =
        [(); 4].map(|()| Times::default());
    let mut nights: Vec<Night> = Vec::new();
    for chain in chains {
        nights.push(night_times.time(|| desk::night(chain, &settings)));
        for expiry in &chain.expiries {
            let spot = chain.underlying.bar.close;
            let implied = forward_times.time(|| forward::imply(chain.date, expiry, spot, &settings.forward));
            let Ok(implied) = implied else { continue };
            let vols = vol_times.time(|| vols::invert(expiry, &implied));
            // The result is the night's; here only its time counts.
            let _ = smile_times.time(|| smile::fit(&vols, &settings.smile));
        }
    }
    let tally = Tally::of(chains, &nights);
    let story = what_if(chains, &nights, &settings).into_iter().chain(tally.story()).collect();
    let title = if real { "AAPL options, June 2014" } else { "Simulated options" };
    let priced: Vec<Day> = nights.iter().filter(|n| n.surface.is_ok()).map(Day::of).collect();
    Page {
        title: format!("{title}: the pricing desk"),
        subtitle: "Forwards from put-call parity, implied volatilities, arbitrage-free smiles and a surface for each date. \
                   Every quote is either used or refused for a stated reason."
            .to_string(),
        figures: tally.figures(),
        story,
        days: priced,
        graph: tally.graph(),
        as_of: Timestamp(0),
        slots: tally.slots(),
        runs: tally.runs(),
        latencies: vec![
            forward_times.row("forward"),
            vol_times.row("implied vols"),
            smile_times.row("smile"),
            night_times.row("whole date"),
        ],
        footer: "Made by the page example of underbelly-desk, without a database.".to_string(),
    }
}

/// Moves the quotes of one expiry of the last date, and counts what comes out different.
fn what_if(chains: &[Chain], nights: &[Night], settings: &DeskSettings) -> Option<StoryLine> {
    let (chain, before) = (chains.last()?, nights.last()?);
    let moved = chain.expiries.get(chain.expiries.len() / 2)?.expiry;
    let mut changed = chain.clone();
    let quotes = simulate::perturb(&mut changed, moved, 0.05);
    let after = desk::night(&changed, settings);
    let differ = before.slices.iter().zip(&after.slices).filter(|(a, b)| a != b).count();
    let text = format!(
        "quotes of {moved} moved by 5 % of their time value: {differ} of {} expiries came out different, the others equal bit for bit",
        before.slices.len()
    );
    Some(StoryLine { count: quotes as u64, text })
}

const EDGES: [(&str, &str); 11] = [
    ("option chain", "imply forward"),
    ("imply forward", "forward"),
    ("option chain", "invert quotes"),
    ("forward", "invert quotes"),
    ("invert quotes", "implied vols"),
    ("implied vols", "fit smile"),
    ("fit smile", "smile"),
    ("smile", "join surface"),
    ("join surface", "surface"),
    ("smile", "compare"),
    ("compare", "vendor check"),
];

/// Results counted.
#[derive(Default)]
struct Tally {
    dates: u64,
    contracts: u64,
    expiries: u64,
    forwards: u64,
    smiles: u64,
    repaired: u64,
    arbitrage: u64,
    surfaces: u64,
    used: u64,
    refused: Vec<(String, u64)>,
    crossings: u64,
    checked: u64,
    rms: Vec<f64>,
    vendor: Comparison,
}

impl Tally {
    fn of(chains: &[Chain], nights: &[Night]) -> Tally {
        let mut tally = Tally { dates: chains.len() as u64, ..Tally::default() };
        tally.contracts = chains.iter().map(|c| c.contracts() as u64).sum();
        for (_, slice) in nights.iter().flat_map(|n| &n.slices) {
            tally.expiries += 1;
            match slice {
                Ok(slice) => {
                    tally.forwards += 1;
                    tally.smiles += 1;
                    tally.repaired += u64::from(slice.smile.repaired);
                    tally.arbitrage += u64::from(slice.smile.g_min < 0.0);
                    tally.used += slice.smile.used as u64;
                    tally.rms.push(slice.smile.rms_weighted);
                    tally.vendor = std::mem::take(&mut tally.vendor).join(slice.comparison.clone());
                    for (reason, n) in slice.vols.refused_by_reason() {
                        let name = reason.to_string();
                        match tally.refused.iter_mut().find(|r| r.0 == name) {
                            Some(row) => row.1 += n as u64,
                            None => tally.refused.push((name, n as u64)),
                        }
                    }
                }
                Err(SliceError::Smile { .. }) => tally.forwards += 1,
                Err(_) => {}
            }
        }
        for surface in nights.iter().filter_map(|n| n.surface.as_ref().ok()) {
            tally.surfaces += 1;
            tally.crossings += surface.crossings.len() as u64;
            tally.checked += surface.checked as u64;
        }
        tally.rms.sort_by(f64::total_cmp);
        tally.refused.sort_by_key(|r| std::cmp::Reverse(r.1));
        tally
    }

    fn figures(&self) -> Vec<Figure> {
        let rms = self.rms.get(self.rms.len() / 2).copied().unwrap_or(f64::NAN);
        vec![
            Figure::count(self.dates, "dates"),
            Figure::count(self.contracts, "contracts read"),
            Figure::share(self.smiles, self.expiries, "expiries with a smile"),
            Figure::count(self.used, "volatilities in the fits"),
            Figure::text(format!("{rms:.2}"), "median weighted rms, vol points"),
            Figure::count(self.arbitrage, "smiles with butterfly arbitrage"),
            Figure::share(self.crossings, self.checked, "calendar crossings"),
        ]
    }

    fn story(&self) -> Vec<StoryLine> {
        let line = |count: u64, text: &str| StoryLine { count, text: text.to_string() };
        let mut lines = vec![
            line(self.forwards, "forwards were found from put-call parity near the money"),
            line(
                self.expiries - self.forwards,
                "expiries had too few live pairs for a forward, and stopped there",
            ),
            line(self.repaired, "smiles were bent back until their density was nowhere negative"),
        ];
        for (reason, n) in self.refused.iter().take(5) {
            lines.push(line(*n, &format!("quotes were not inverted: {reason}")));
        }
        if let Some(median) = self.vendor.median() {
            let text = format!(
                "vendor volatilities could be compared; the median difference is {median:.1} vol points"
            );
            lines.push(line(self.vendor.compared() as u64, &text));
        }
        lines
    }

    fn slots(&self) -> Vec<SlotRow> {
        let row = |slot: &str, current: u64, all: u64| SlotRow {
            slot: slot.to_string(),
            cells: vec![("current".to_string(), current), ("void".to_string(), all - current)],
        };
        vec![
            row("option chain", self.expiries, self.expiries),
            row("forward", self.forwards, self.expiries),
            row("implied vols", self.forwards, self.expiries),
            row("smile", self.smiles, self.expiries),
            row("surface", self.surfaces, self.dates),
            row("vendor check", self.smiles, self.expiries),
        ]
    }

    fn runs(&self) -> Vec<RunRow> {
        let row = |producer: &str, done: u64, tried: u64| RunRow {
            producer: producer.to_string(),
            done,
            failed: tried - done,
            declined: 0,
        };
        vec![
            row("imply forward", self.forwards, self.expiries),
            row("invert quotes", self.forwards, self.forwards),
            row("fit smile", self.smiles, self.forwards),
            row("join surface", self.surfaces, self.dates),
            row("compare", self.smiles, self.smiles),
        ]
    }

    fn graph(&self) -> GraphView {
        let mut graph = GraphView::default();
        for row in self.slots() {
            let mut node = GraphNode::slot(row.slot);
            if let NodeKind::Slot(slot) = &mut node.kind {
                let state = |name: &str| State::from_name(name).unwrap_or(State::Void);
                slot.states = row.cells.iter().map(|(name, cells)| (state(name), *cells)).collect();
            }
            graph.nodes.push(node);
        }
        for row in self.runs() {
            let mut node = GraphNode::producer(row.producer);
            if let NodeKind::Producer(producer) = &mut node.kind {
                (producer.runs, producer.attached) = (row.done + row.failed, true);
            }
            graph.nodes.push(node);
        }
        let at = |name: &str| graph.nodes.iter().position(|node| node.name == name);
        let edges = EDGES.iter().filter_map(|(from, to)| {
            let (from, to) = (at(from)?, at(to)?);
            let is_slot = matches!(graph.nodes.get(from)?.kind, NodeKind::Slot(_));
            let role = if is_slot { EdgeRole::REQUIRED } else { EdgeRole::OUTPUT };
            Some(GraphEdge::new(from, to, role))
        });
        graph.edges = edges.collect();
        graph.settle_levels();
        graph
    }
}
