//! An online model: logistic regression and running scalers learn from a stream one row at a time, and are saved as one
//! version of a model every so often. Half-way the process that learns is killed; another goes on from the newest version
//! with the rows that come then. In the end it knows exactly what a run knows that never stopped and missed the same rows.
//!
//! `cargo run --release -p underbelly-online -- --data elec2.csv.gz` (the electricity prices of New South Wales, 45,312 rows
//! with six features and whether the price goes up); without `--data` rows are made up.

mod learner;
mod stream;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use learner::Learner;
use stream::Row;
use underbelly::{Database, Metadata, Row as SeriesRow, Scope, Timestamp};

/// Rows between two points of the curve.
const POINT_ROWS: u64 = 500;
/// Bars of the curve.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Learns online, is killed, and goes on.
#[derive(Parser)]
struct Arguments {
    /// The rows: CSV with six features and a label, packed or not; made up where none is given
    #[arg(long, value_name = "FILE", global = true)]
    data: Option<PathBuf>,
    /// Rows that are made up
    #[arg(long, default_value_t = 40_000, global = true)]
    rows: usize,
    /// The folder of the database, which is made
    #[arg(long, value_name = "DIR", default_value = "online-db", global = true)]
    db: PathBuf,
    /// Rows that come in a second
    #[arg(long, default_value_t = 20_000, global = true)]
    pace: u64,
    /// Milliseconds between two saves
    #[arg(long, default_value_t = 200, global = true)]
    every: u64,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// The process that learns, from this row on
    Learn { from: u64 },
}

fn metadata() -> Metadata {
    Metadata::new("online").with("stream", "labelled").with("method", "logistic")
}

fn rows(arguments: &Arguments) -> Result<Vec<Row>, Box<dyn Error>> {
    match &arguments.data {
        Some(path) => stream::read(path),
        None => Ok(stream::made_up(arguments.rows)),
    }
}

/// Learns from the rows from `from` on, at the pace at which they come.
fn learn(arguments: &Arguments, from: u64) -> Result<(), Box<dyn Error>> {
    let rows = rows(arguments)?;
    let db = Database::open(&arguments.db)?;
    let every = Duration::from_millis(arguments.every);
    let live = db.live_model(metadata()).every(every).keep_last(3);
    let mut live = live.start(Learner::restore, |learner| Ok(learner.parts()))?;
    let place = db.unlogged_var::<i64>(&Scope::Global, "row")?;
    let accuracy = db.unlogged_var::<f64>(&Scope::Global, "accuracy")?;
    let began = Instant::now();
    for (done, (at, row)) in rows.iter().enumerate().skip(from as usize).enumerate() {
        let due = began + Duration::from_secs_f64(done as f64 / arguments.pace as f64);
        // Rows come in bursts of some milliseconds.
        let early = due.saturating_duration_since(Instant::now());
        if early > Duration::from_millis(5) {
            thread::sleep(early);
        }
        live.change(|learner| learner.learn(row));
        place.set(at as i64)?;
        accuracy.set(live.get().recent_accuracy())?;
        if (at as u64 + 1).is_multiple_of(POINT_ROWS) {
            let mut batch = underbelly::Batch::new();
            let point = SeriesRow::new("accuracy", Timestamp(at as i64))
                .field("recent", live.get().recent_accuracy());
            batch.append(point.field("all", live.get().accuracy()))?;
            batch.durability(underbelly::Durability::Buffered);
            db.commit(batch)?;
        }
    }
    live.close()?;
    db.close()?;
    Ok(())
}

fn start(arguments: &Arguments, from: u64) -> Result<std::process::Child, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("learn").arg(from.to_string()).arg("--db").arg(&arguments.db);
    command.arg("--rows").arg(arguments.rows.to_string()).arg("--pace").arg(arguments.pace.to_string());
    command.arg("--every").arg(arguments.every.to_string());
    if let Some(data) = &arguments.data {
        command.arg("--data").arg(data);
    }
    Ok(command.spawn()?)
}

/// The row that the process learnt from last, as it said where others can see it.
fn place(db: &Path) -> Result<Option<u64>, Box<dyn Error>> {
    let reader = Database::open_read_only(db)?;
    let row = reader.unlogged_var::<i64>(&Scope::Global, "row")?.get();
    Ok(row.and_then(|row| u64::try_from(row).ok()))
}

fn changes_saved(db: &Path) -> Result<u64, Box<dyn Error>> {
    let reader = Database::open_read_only(db)?;
    let saved = reader.snapshot().model(&metadata())?;
    Ok(Learner::restore(saved.as_ref())?.seen())
}

fn draw(db: &Path) -> Result<(), Box<dyn Error>> {
    let reader = Database::open_read_only(db)?;
    let points = reader.snapshot().series("accuracy")?.scan().collect()?;
    let recent = points.f64s("recent").unwrap_or_default();
    let bar = |share: &f64| BARS.get((share * 8.0) as usize).copied().unwrap_or('█');
    println!("accuracy over time, of the last 1,000 rows each ({} points; a full bar is 1):", recent.len());
    for line in recent.chunks(100) {
        println!("  {}", line.iter().map(bar).collect::<String>());
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let rows = rows(arguments)?;
    if arguments.db.exists() {
        return Err(
            format!("{} is there already; name another folder with --db", arguments.db.display()).into()
        );
    }
    Database::create(&arguments.db)?.close()?;
    let half = rows.len() as u64 / 2;
    let mut child = start(arguments, 0)?;
    while place(&arguments.db)?.is_none_or(|row| row < half) {
        if child.try_wait()?.is_some() {
            return Err("the process that learns ended by itself".into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    if child.wait()?.code().is_some() {
        return Err(
            "the process that learns ended before it was killed; give it more rows, or a slower pace".into(),
        );
    }
    let reached = place(&arguments.db)?.map_or(0, |row| row + 1);
    // What was written and never acknowledged may be there, too: the next opening for writing decides that.
    Database::open(&arguments.db)?.close()?;
    let saved = changes_saved(&arguments.db)?;
    // A save may be ahead of what was said.
    let next = reached.max(saved);
    println!("killed after row {next} of {}; {saved} rows are saved, {} are lost", rows.len(), next - saved);
    if !start(arguments, next)?.wait()?.success() {
        return Err("the process that goes on failed".into());
    }
    let reader = Database::open_read_only(&arguments.db)?;
    let resumed = Learner::restore(reader.snapshot().model(&metadata())?.as_ref())?;
    let mut never_stopped = Learner::default();
    let heard = rows.iter().take(saved as usize).chain(rows.iter().skip(next as usize));
    for row in heard {
        never_stopped.learn(row);
    }
    draw(&arguments.db)?;
    let mut all = Learner::default();
    for row in &rows {
        all.learn(row);
    }
    println!("killed and resumed      {:.4} of {} rows", resumed.accuracy(), resumed.seen());
    println!("never stopped, the same {:.4} of {} rows", never_stopped.accuracy(), never_stopped.seen());
    println!("never stopped, all rows {:.4} of {} rows", all.accuracy(), all.seen());
    let is_same = resumed == never_stopped;
    println!("{}", if is_same { "both know the same, to the last bit" } else { "they DIFFER" });
    Ok(is_same)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.part {
        Some(Part::Learn { from }) => learn(&arguments, *from).map(|()| true),
        None => run(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
