//! What each process does.

use std::error::Error;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use underbelly::{ColumnType, Database, SlotDefinition};
use underbelly_worker::remote::{Cells, Client, Daemon, Producer, RemoteError};
use underbelly_worker::{Columns, Definition, InputDefinition, Outputs, Timestamp, When};

use crate::{Meeting, until_told};

/// Between two looks of a generator that has nothing to give whether the hub is there.
const BEAT: Duration = Duration::from_millis(200);

/// How long a process waits for a hub that is not there.
const PATIENCE: Duration = Duration::from_secs(600);

/// The instant of a minute, which is the date of all that is of it.
pub fn minute(number: i64) -> Timestamp {
    Timestamp(number * 60_000_000_000)
}

fn rows(x: f64) -> Result<Columns, underbelly_worker::ColumnError> {
    Columns::new().with("x", vec![x].into())
}

/// The number in a cell.
fn number(rows: &Columns) -> f64 {
    rows.f64s("x").and_then(|numbers| numbers.first().copied()).unwrap_or(f64::NAN)
}

/// The middle of the numbers; of an even count, the mean of the two in the middle.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let (low, high) = (numbers.get(numbers.len().checked_sub(1)? / 2)?, numbers.get(numbers.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Holds the database until its standard input is closed.
pub fn hub(folder: &Path, hub: &Meeting) -> Result<(), Box<dyn Error>> {
    let db = if folder.is_dir() { Database::open(folder)? } else { Database::create(folder)? };
    let fresh = hub.lease().saturating_mul(9);
    let signal = SlotDefinition::new("Signal").member_key("generator").value("x", ColumnType::F64);
    db.define_slot(signal.fresh_for(fresh).max_skew(Duration::from_secs(1)))?;
    db.define_slot(SlotDefinition::new("Decision").member_key("strategy").value("x", ColumnType::F64))?;
    db.define_slot(SlotDefinition::new("Median").value("x", ColumnType::F64))?;
    let server = db.serve(&hub.socket)?;
    until_told();
    drop(server);
    db.close()?;
    Ok(())
}

/// A process that gives a signal each minute.
pub struct Generator {
    pub name: String,
    /// The first is of the first minute.
    pub values: Vec<f64>,
    pub from: i64,
    pub minutes: Option<i64>,
    pub every: Duration,
}

impl Generator {
    /// The signal of a minute: as given, else one between 0 and 1 that looks like chance, the same for the same minute.
    fn value(&self, at: i64) -> Option<f64> {
        if !self.values.is_empty() {
            return usize::try_from(at).ok().and_then(|at| self.values.get(at).copied());
        }
        let seed = self.name.bytes().fold(self.from.wrapping_add(at) as u64, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        Some((seed >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Commits minute by minute, each once, and leaves when its standard input is closed.
    pub fn run(&self, hub: &Meeting) -> Result<(), Box<dyn Error>> {
        let definition = Definition::daemon(format!("generator-{}", self.name));
        let definition = definition.provides_as("Signal", self.name.as_str()).lease(hub.lease());
        let mut daemon = Daemon::connect(&hub.socket, definition, PATIENCE)?;
        let (over, told) = mpsc::channel();
        thread::spawn(move || {
            until_told();
            // Who does not wait any more has ended.
            let _ = over.send(());
        });
        for at in 0.. {
            if self.minutes.is_some_and(|minutes| at >= minutes) {
                // It has nothing more to give, and is there.
                while told.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                    daemon.beat()?;
                }
                break;
            }
            let Some(value) = self.value(at) else { break };
            let number = self.from + at;
            let cells =
                Cells::new().put("Signal", minute(number), [("generator", self.name.as_str())], rows(value)?);
            daemon.commit_once(number.unsigned_abs(), &cells)?;
            println!("{} signals {value} for minute {number}", self.name);
            if told.recv_timeout(self.every) != Err(mpsc::RecvTimeoutError::Timeout) {
                break;
            }
        }
        Ok(daemon.leave()?)
    }
}

/// Works until its standard input is closed, and leaves.
fn serve(
    definition: Definition,
    hub: &Meeting,
    produce: impl Fn(&underbelly_worker::Run) -> Result<Outputs, underbelly_worker::Failure>,
) -> Result<(), Box<dyn Error>> {
    let producer = Producer::connect(&hub.socket, definition.lease(hub.lease()), PATIENCE)?;
    let stop = producer.stop_handle();
    thread::spawn(move || {
        until_told();
        stop.stop(true);
    });
    match producer.serve(produce) {
        // It was taken out, or given up after a silence: nobody waits for it.
        Err(RemoteError::Fenced(what)) => {
            eprintln!("{what}");
            Ok(())
        }
        ended => Ok(ended?),
    }
}

/// Makes a decision of the signals of some generators: their sum.
pub fn strategy(name: &str, signals: &[String], hub: &Meeting) -> Result<(), Box<dyn Error>> {
    let followed =
        InputDefinition::required("Signal").one_of("generator", signals.iter().map(String::as_str));
    let definition = Definition::new(name).input(followed).group_by::<String>([], When::Quorum);
    serve(definition.provides_as("Decision", name), hub, |run| {
        let mut sum = 0.0;
        for cell in run.inputs("Signal")? {
            sum += number(&cell.rows()?);
        }
        println!("{name} decides {sum} for {}", run.date());
        Ok(Outputs::new().put_at("Decision", [("strategy", name)], rows(sum)?))
    })
}

/// Takes the median of the decisions of all strategies that are registered.
pub fn trader(hub: &Meeting) -> Result<(), Box<dyn Error>> {
    let definition = Definition::new("trader").input(InputDefinition::required("Decision"));
    let definition = definition.group_by::<String>([], When::Quorum).provides("Median");
    serve(definition, hub, |run| {
        let mut decisions = Vec::new();
        for cell in run.inputs("Decision")? {
            decisions.push(number(&cell.rows()?));
        }
        let found =
            median(decisions).ok_or_else(|| underbelly_worker::Failure::declined("nobody decided"))?;
        println!("median: {found} for {}", run.date());
        Ok(Outputs::new().put("Median", rows(found)?))
    })
}

/// Takes a strategy out.
pub fn deregister(name: &str, hub: &Meeting) -> Result<(), Box<dyn Error>> {
    Ok(Client::connect(&hub.socket, Duration::from_secs(5))?.deregister(name)?)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_of_two_is_their_mean() {
        assert_eq!(median(vec![0.6741543275356752, 0.46357797027309633]), Some(0.5688661489043858));
        assert_eq!(median(vec![3.0, -1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
