//! `ubctl top`: the running system, drawn anew each second.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use underbelly::{Database, PStatus, ProducerSummary, Reader, RunningRow, Timestamp};

use crate::error::Failed;
use crate::output::{printable, stdout};
use crate::time::parse_pause;
use crate::variable::sparkline;

/// Rates that a line shows.
const WIDTH: usize = 20;

/// Statuses that have a column.
const COLUMNS: [PStatus; 7] = [
    PStatus::Ready,
    PStatus::Processing,
    PStatus::RetryWait,
    PStatus::Notified,
    PStatus::Parked,
    PStatus::Failed,
    PStatus::Cancelled,
];

/// Shows producers at work: what is ready, runs, waits and failed, since when, and how fast, and alarms, until this is interrupted
///
/// It reads beside whoever writes. On a terminal the picture is drawn anew; elsewhere one follows the other. Rates are runs that were started
/// in a second.
#[derive(Args, Debug)]
pub(crate) struct Top {
    /// How often it looks, as 5s; each second by default
    #[arg(long, value_name = "TIME", value_parser = parse_pause)]
    every: Option<Duration>,
    /// Ends after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    looks: Option<u64>,
    /// Most alarms, runs in flight and runs that went wrong that are listed
    #[arg(short, default_value_t = 8)]
    n: usize,
}

/// Runs of a producer that were started, and how many in each second.
#[derive(Default)]
struct Rate {
    runs: Option<u64>,
    rates: VecDeque<f64>,
}

impl Rate {
    fn look(&mut self, runs: u64, passed: Duration) {
        if let Some(before) = self.runs.replace(runs) {
            let rate = runs.saturating_sub(before) as f64 / passed.as_secs_f64().max(1e-3);
            self.rates.push_back(rate);
            if self.rates.len() > WIDTH {
                self.rates.pop_front();
            }
        }
    }
}

/// How long ago that was, in the largest unit that says something.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.0.saturating_sub(then.0).max(0) as f64 / 1e9;
    match seconds {
        ..1.0 => format!("{:.0}ms", seconds * 1e3),
        1.0..120.0 => format!("{seconds:.1}s"),
        120.0..7_200.0 => format!("{:.0}min", seconds / 60.0),
        7_200.0..172_800.0 => format!("{:.0}h", seconds / 3_600.0),
        _ => format!("{:.0}d", seconds / 86_400.0),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// A line for each producer, with a column for each of these statuses.
fn producers(
    producers: &[ProducerSummary],
    columns: &[PStatus],
    rates: &BTreeMap<String, Rate>,
    now: Timestamp,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    // Lines that are too long are cut, not broken.
    table.set_content_arrangement(ContentArrangement::Disabled);
    let head = ["producer", "attached"].into_iter().chain(columns.iter().map(|status| status.name()));
    table.set_header(head.chain(["waits", "runs", "runs/s", ""]));
    for producer in producers {
        let name = &producer.definition.name;
        let counts = columns.iter().map(|status| count(producer, *status).to_string());
        let waits = producer.waiting_since.map_or_else(String::new, |since| age(now, since));
        let rate = rates.get(name);
        let newest = rate.and_then(|rate| rate.rates.back()).copied().unwrap_or_default();
        let line = rate.map_or_else(String::new, |rate| sparkline(rate.rates.iter().copied()));
        let attached = attached(producer);
        let fields = [printable(name).into_owned(), attached.to_string()].into_iter().chain(counts);
        table.add_row(fields.chain([waits, producer.runs.to_string(), format!("{newest:.1}"), line]));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        if at >= 2 && at < columns.len() + 5 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// Bundles of a producer in a status.
fn count(producer: &ProducerSummary, status: PStatus) -> u64 {
    producer.bundles.iter().find(|(own, _)| *own == status).map_or(0, |(_, count)| *count)
}

/// Whether somebody works for a producer.
fn attached(producer: &ProducerSummary) -> &'static str {
    match (producer.attached, producer.lost_at) {
        (true, _) => "yes",
        (false, Some(_)) => "lost",
        (false, None) => "no",
    }
}

fn alarms(reader: &Reader, most: usize, now: Timestamp) -> String {
    let all = reader.alarms();
    let mut text = match all.len() {
        0 => String::new(),
        1 => "\n1 alarm\n".to_string(),
        count => format!("\n{count} alarms\n"),
    };
    for alarm in all.iter().take(most) {
        let line = format!("  {} for {}: {}", alarm.kind.name(), age(now, alarm.since), alarm.kind);
        text.push_str(&format!("{}\n", printable(&line)));
    }
    text
}

fn running(runs: &[RunningRow], most: usize, now: Timestamp) -> String {
    let mut text = format!("\n{} in flight\n", runs.len());
    for run in runs.iter().take(most) {
        let (key, age) = (run.key.to_string(), age(now, run.start_time));
        let line = format!("  run {} of {} for {} {key}: {age}", run.pid, run.producer, run.date);
        text.push_str(&format!("{}\n", printable(line.trim_end())));
    }
    text
}

fn troubles(reader: &Reader, most: usize, now: Timestamp) -> Result<String, Failed> {
    let wrong = reader.runs(None, 200)?;
    let wrong = wrong.into_iter().filter(|run| !matches!(run.outcome.as_str(), "completed" | "declined"));
    let mut text = String::new();
    for run in wrong.take(most) {
        let (age, error) = (age(now, run.end_time), run.error.unwrap_or_default());
        let line =
            format!("  {age} ago: {} for {} {} {}: {error}", run.producer, run.date, run.key, run.outcome);
        text.push_str(&format!("{}\n", printable(&line)));
    }
    Ok(if text.is_empty() { text } else { format!("\nlast runs that went wrong\n{text}") })
}

/// Characters in a line of the terminal.
pub(crate) fn width() -> usize {
    Table::new().width().map_or(usize::MAX, usize::from)
}

/// Lines of the terminal.
pub(crate) fn height() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    size.map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(usize::MAX)
}

/// The first so many characters of each line.
pub(crate) fn cut(text: &str, width: usize) -> String {
    text.lines().flat_map(|line| line.chars().take(width).chain(['\n'])).collect()
}

impl Top {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let mut reader = Database::open_read_only(dir)?;
        let every = self.every.unwrap_or(Duration::from_secs(1));
        let is_terminal = io::stdout().is_terminal();
        // What has never been counted needs no room on a terminal; in a pipe every line has all columns.
        let mut columns: Vec<PStatus> = match is_terminal {
            true => vec![PStatus::Ready, PStatus::Processing],
            false => COLUMNS.to_vec(),
        };
        let mut rates: BTreeMap<String, Rate> = BTreeMap::new();
        let (mut looked, mut looks, mut commits) = (Instant::now(), 0u64, Rate::default());
        loop {
            let (now, passed) = (now(), looked.elapsed());
            looked = Instant::now();
            let seq = reader.refresh()?;
            commits.look(seq, passed);
            let all = reader.producers();
            for producer in &all {
                let rate = rates.entry(producer.definition.name.clone()).or_default();
                rate.look(producer.runs, passed);
            }
            let mut runs: Vec<RunningRow> = reader.running().collect();
            runs.dedup_by_key(|run| run.pid);
            runs.sort_by_key(|run| run.start_time);
            let rate = commits.rates.back().copied().unwrap_or_default();
            columns = COLUMNS
                .into_iter()
                .filter(|status| {
                    columns.contains(status) || all.iter().any(|producer| count(producer, *status) > 0)
                })
                .collect();
            let mut text = format!("{}  seq {seq}  {rate:.0} commits/s\n\n", dir.display());
            text.push_str(&producers(&all, &columns, &rates, now));
            text.push_str(&alarms(&reader, self.n, now));
            text.push_str(&running(&runs, self.n, now));
            text.push_str(&troubles(&reader, self.n, now)?);
            let mut out = stdout();
            // On a terminal: home, each line to its end, and what is below.
            let text = match is_terminal {
                true => format!("\x1b[H{}\x1b[J", cut(&text, width()).replace('\n', "\x1b[K\n")),
                false => format!("{text}\n"),
            };
            if is_terminal && looks == 0 {
                out.write_all(b"\x1b[2J").map_err(Failed::output)?;
            }
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failed::output)?;
            drop(out);
            looks += 1;
            if self.looks.is_some_and(|most| looks >= most) {
                return Ok(());
            }
            thread::sleep(every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit_that_says_something() {
        let told = |seconds: f64| {
            age(Timestamp(2_000_000_000_000_000), Timestamp(2_000_000_000_000_000 - (seconds * 1e9) as i64))
        };
        let ages = [0.25, 1.5, 119.0, 600.0, 7_300.0, 200_000.0].map(told);
        assert_eq!(ages, ["250ms", "1.5s", "119.0s", "10min", "2h", "2d"]);
        assert_eq!(told(-5.0), "0ms", "a clock that was set back");
    }

    #[test]
    fn lines_that_are_too_long_are_cut() {
        assert_eq!(cut("▁▂▃▄\n\nab\n", 3), "▁▂▃\n\nab\n");
    }

    #[test]
    fn a_rate_is_what_came_since_the_last_look() {
        let mut rate = Rate::default();
        for runs in [10, 10, 25] {
            rate.look(runs, Duration::from_millis(500));
        }
        assert_eq!(rate.rates, [0.0, 30.0]);
    }
}
