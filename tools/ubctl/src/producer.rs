//! `ubctl producer`: what turns slots into slots.

mod work;

use std::io::Write;
use std::path::Path;

use clap::Subcommand;
use underbelly::graph::{Group, When};
use underbelly::{Database, PStatus, ReadError, SlotDate, Value, View};

use crate::drawing::Drawing;
use crate::error::Failed;
use crate::output::{Facts, Field, Format, FormatArg, Listing, printable, stdout};
use crate::slot::parse_key;
use crate::time::parse_slot_date;
use crate::tree::{self, TreeArgs};
use crate::write;

/// What turns slots into slots.
#[derive(Subcommand, Debug)]
pub(crate) enum Producer {
    /// Lists the producers with their bundles counted by status
    Ls(FormatArg),
    /// Lists runs that ended, newest first
    Runs {
        /// Only runs of this producer
        name: Option<String>,
        /// How many
        #[arg(short, default_value_t = 20)]
        n: usize,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Tells what runs came to, a line for each, the newest last, with whole errors and what processes wrote to standard error
    Log {
        /// Only runs of this producer
        name: Option<String>,
        /// How many
        #[arg(short, default_value_t = 100)]
        n: usize,
    },
    /// Lists the runs in flight, as RUNNING_PROD: a row for each cell that one is known to make
    Running {
        /// Only runs of this producer
        name: Option<String>,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Lists the cells that a producer was told of, with the status of its work
    ///
    /// PSTATUS is that of the bundle to which the cell belongs, or superseded where the cell has changed since the run in
    /// flight read it. GENERATION is the cell's, or the one that the run reads.
    Work {
        /// The producer
        name: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Explains what a producer has to do, or its work on one bundle, or why there is no such bundle
    Why {
        /// The producer
        name: String,
        /// The day (2014-06-02) or instant of the bundle
        #[arg(value_parser = parse_slot_date, allow_negative_numbers = true)]
        date: Option<SlotDate>,
        /// The values of the bundle's key columns joined by `/`; `\` stands before a `/` or `\` of a value, `--` before
        /// a key that begins with `-`
        #[arg(allow_negative_numbers = true, requires = "date")]
        key: Option<String>,
        #[command(flatten)]
        extent: TreeArgs,
    },
    /// Has a bundle run again although nothing changed
    ///
    /// It runs in the process that has the producer, as soon as its inputs allow; one that waits to be tried again waits no more.
    #[command(visible_alias = "retry")]
    Force(Bundle),
    /// Ends what a bundle has in work with an error on its outputs
    Cancel {
        #[command(flatten)]
        bundle: Bundle,
        /// The error
        #[arg(long, default_value = "cancelled by a user")]
        reason: String,
    },
    /// Takes a producer out; what it gave stays
    Deregister {
        /// The producer
        name: String,
    },
    /// Draws the slots and producers and what leads where, or their cells
    Graph(Drawing),
}

/// A bundle by its address.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Bundle {
    /// The producer
    name: String,
    /// The day (2014-06-02) or instant
    #[arg(value_parser = parse_slot_date, allow_negative_numbers = true)]
    date: SlotDate,
    /// The values of the bundle's key columns joined by `/`; `\` stands before a `/` or `\` of a value, `--` before a
    /// key that begins with `-`
    #[arg(allow_negative_numbers = true)]
    key: Option<String>,
}

impl Bundle {
    fn key(&self, db: &View) -> Result<Vec<Value>, Failed> {
        let columns = db.bundle_columns(&self.name)?;
        parse_key(&format!("producer {:?}", self.name), &columns, self.key.as_deref())
    }
}

impl Producer {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Failed> {
        let (name, commit) = match self {
            Producer::Force(bundle) => {
                let db = write(dir)?;
                (&bundle.name, db.force(&bundle.name, bundle.date, bundle.key(&db)?)?)
            }
            Producer::Cancel { bundle, reason } => {
                let db = write(dir)?;
                (&bundle.name, db.cancel(&bundle.name, bundle.date, bundle.key(&db)?, reason)?)
            }
            Producer::Deregister { name } => (name, write(dir)?.deregister(name)?),
            reading => return reading.read(&*Database::open_read_only(dir)?),
        };
        let mut facts = Facts::default();
        facts.add("producer", name.clone()).add("seq", commit.seq);
        facts.print(Format::Table)
    }

    /// What changes nothing.
    fn read(&self, db: &View) -> Result<(), Failed> {
        match self {
            Producer::Force(_) | Producer::Cancel { .. } | Producer::Deregister { .. } => Ok(()),
            Producer::Ls(format) => list(db, *format),
            Producer::Runs { name, n, format } => runs(db, name.as_deref(), *n, *format),
            Producer::Log { name, n } => log(db, name.as_deref(), *n),
            Producer::Running { name, format } => work::running(db, name.as_deref(), *format),
            Producer::Work { name, format } => work::obligations(db, name, *format),
            Producer::Why { name, date, key, extent } => {
                let why = work::why(db, name, *date, key.as_deref(), extent.extent())?;
                tree::why(&why, extent.format)
            }
            Producer::Graph(drawing) => drawing.run(db),
        }
    }
}

fn list(db: &View, format: FormatArg) -> Result<(), Failed> {
    let names = ["producer", "inputs", "outputs", "group", "attached", "lost_at"].into_iter();
    let names = names.chain(PStatus::ALL.map(PStatus::name)).chain(["runs"]);
    let mut listing = Listing::begin(format.format, names)?;
    for producer in db.producers() {
        let lost_at = producer.lost_at.map_or(Field::Null, Field::text);
        let definition = producer.definition;
        let inputs: Vec<&str> = definition.inputs.iter().map(|input| input.slot.as_str()).collect();
        let output = |output: &underbelly::graph::Output| {
            let member = output.member.as_ref().map_or_else(String::new, |member| format!(" as {member}"));
            match output.priority {
                0 => format!("{}{member}", output.slot),
                priority => format!("{}{member} at {priority}", output.slot),
            }
        };
        let outputs: Vec<String> = definition.outputs.iter().map(output).collect();
        let group = match &definition.group {
            Group::Each if definition.daemon => "daemon".to_string(),
            Group::Each => "each".to_string(),
            Group::By { columns, when } => {
                let by = columns.iter().fold("date".to_string(), |by, column| by + ", " + column);
                match when {
                    When::Any => by + ", any",
                    When::Quorum => by + ", quorum",
                    _ => by,
                }
            }
        };
        let (inputs, outputs) = (inputs.join(", "), outputs.join(", "));
        let fields = [
            definition.name.into(),
            inputs.into(),
            outputs.into(),
            group.into(),
            producer.attached.into(),
            lost_at,
        ];
        let bundles = producer.bundles.iter().map(|(_, count)| Field::from(*count));
        listing.row(fields.into_iter().chain(bundles).chain([producer.runs.into()]))?;
    }
    listing.end(None)
}

fn runs(db: &View, producer: Option<&str>, n: usize, format: FormatArg) -> Result<(), Failed> {
    if let Some(name) = producer {
        check_name(db, name)?;
    }
    let names = [
        "producer",
        "pid",
        "date",
        "key",
        "outcome",
        "start_time",
        "end_time",
        "waited_ms",
        "took_ms",
        "process",
        "error",
    ];
    let mut listing = Listing::begin(format.format, names)?;
    for run in db.runs(producer, n)? {
        listing.row([
            run.producer.into(),
            run.pid.into(),
            run.date.into(),
            run.key.into(),
            run.outcome.into(),
            Field::text(run.start_time),
            Field::text(run.end_time),
            milliseconds(run.waited).into(),
            milliseconds(run.took).into(),
            run.process.map(u64::from).into(),
            run.error.into(),
        ])?;
    }
    listing.end(None)
}

fn log(db: &View, producer: Option<&str>, n: usize) -> Result<(), Failed> {
    if let Some(name) = producer {
        check_name(db, name)?;
    }
    let mut out = stdout();
    for run in db.runs(producer, n)?.into_iter().rev() {
        let key = if run.key.is_empty() { String::new() } else { format!(" {}", run.key) };
        let error = run.error.map_or_else(String::new, |error| format!(": {error}"));
        let process = run.process.map_or_else(String::new, |process| format!(" in process {process}"));
        let process_only = match run.outcome.as_str() {
            "unstarted" => Some("could not start"),
            "ended" => Some("ended"),
            _ => None,
        };
        if let Some(what) = process_only {
            let line = format!("{}  a process of {} {what}{error}", run.end_time, run.producer);
            writeln!(out, "{}", printable(&line)).map_err(Failed::output)?;
            continue;
        }
        let line = format!(
            "{}  run {} of {} for {}{key} {}{process} after {:.3} ms{error}",
            run.end_time,
            run.pid,
            run.producer,
            run.date,
            run.outcome,
            milliseconds(run.took)
        );
        writeln!(out, "{}", printable(&line)).map_err(Failed::output)?;
        for line in run.stderr.iter().flat_map(|stderr| stderr.lines()) {
            writeln!(out, "    {}", printable(line)).map_err(Failed::output)?;
        }
    }
    out.flush().map_err(Failed::output)
}

/// Refuses a name that no producer has.
fn check_name(db: &View, name: &str) -> Result<(), Failed> {
    match db.producers().iter().any(|known| known.definition.name == name) {
        true => Ok(()),
        false => Err(ReadError::UnknownProducer { producer: name.to_string() }.into()),
    }
}

/// Milliseconds with three decimals.
fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
