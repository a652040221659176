//! The history of runs: rows of the series `_runs`, written in the transaction that ends a run or halts it.

use std::time::Duration;

use underbelly_storage::{Columns, Timestamp, Value};

use crate::batch::Row;
use crate::error::ReadError;
use crate::graph::{Graph, Key, RunId, RunInfo, SlotDate};
use crate::producers::{Run, Worked};
use crate::snapshot::Snapshot;

/// The type of the series that holds the history of runs.
pub const RUNS_SERIES: &str = "_runs";

/// What is known of a run at its end.
pub(crate) struct Report<'a> {
    pub run: &'a Run,
    /// The process that did it, where that is not this one.
    pub worked: Option<&'a Worked>,
    pub waited: Duration,
    pub took: Duration,
    pub outcome: &'static str,
    pub text: String,
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Report<'_> {
    pub(crate) fn row(&self, ended: Timestamp) -> Row {
        let took = nanoseconds(self.took);
        let row = Row::new(RUNS_SERIES, ended)
            .key("producer", self.run.producer())
            .field("pid", self.run.id().0 as i64)
            .field("date", self.run.date().to_string())
            .field("key", self.run.whole_key().to_string())
            .field("outcome", self.outcome)
            .field("start_time", Timestamp(ended.0.saturating_sub(took)))
            .field("waited_ns", nanoseconds(self.waited))
            .field("took_ns", took)
            .field("error", text_or_null(&self.text));
        // Those alone have the columns.
        match self.worked {
            Some(worked) => {
                row.field("process", i64::from(worked.process)).field("stderr", text_or_null(&worked.stderr))
            }
            None => row,
        }
    }
}

/// A row that says that a process of a producer could not be started, or that one of a daemon has ended.
#[cfg(feature = "processes")]
pub(crate) fn ended_process(producer: &str, outcome: &'static str, what: &str, at: Timestamp) -> Row {
    Row::new(RUNS_SERIES, at)
        .key("producer", producer)
        .field("pid", 0i64)
        .field("date", "")
        .field("key", "")
        .field("outcome", outcome)
        .field("start_time", at)
        .field("waited_ns", 0i64)
        .field("took_ns", 0i64)
        .field("error", what)
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// A run in flight that a command halts.
#[derive(Debug, PartialEq)]
pub(crate) struct Halted {
    run: RunId,
    producer: String,
    date: SlotDate,
    key: Key,
    /// Commit time of its start.
    started: Timestamp,
}

impl Halted {
    pub(crate) fn new(graph: &Graph, run: &RunInfo<'_>) -> Halted {
        let producer = graph.producer(run.producer);
        Halted {
            run: run.run,
            producer: producer.map(|producer| producer.name.clone()).unwrap_or_default(),
            date: run.date,
            key: run.key.clone(),
            started: run.started,
        }
    }

    /// The run.
    #[cfg(feature = "processes")]
    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Its row of the history. How long it had waited, its worker alone knows.
    pub(crate) fn row(&self, ended: Timestamp, reason: &str) -> Row {
        // Commit times may be ahead of the clock.
        let ended = ended.max(self.started);
        Row::new(RUNS_SERIES, ended)
            .key("producer", self.producer.as_str())
            .field("pid", self.run.0 as i64)
            .field("date", self.date.to_string())
            .field("key", self.key.to_string())
            .field("outcome", "halted")
            .field("start_time", self.started)
            .field("took_ns", ended.0.saturating_sub(self.started.0))
            .field("error", text_or_null(reason))
    }
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RunRecord {
    /// The producer's name.
    pub producer: String,
    /// The run's unique number.
    pub pid: u64,
    /// The date that it worked on.
    pub date: String,
    /// The key of its bundle.
    pub key: String,
    /// `completed`, `declined`, `failed`; `retry` or `rejected` where it is tried again; `died` where its whole batch did; or,
    /// where it was cancelled or its producer deregistered, `halted`. `unstarted` and `ended` are no runs, and `pid` is 0: a
    /// process of the producer's program could not be started, or that of a daemon has ended without a goodbye.
    pub outcome: String,
    /// When it began.
    pub start_time: Timestamp,
    /// When it ended.
    pub end_time: Timestamp,
    /// How long its bundle was ready before it began; zero for one that was halted.
    pub waited: Duration,
    /// How long it took.
    pub took: Duration,
    /// Why it did not complete.
    pub error: Option<String>,
    /// The process in which it ran, where that is one of the producer's program.
    pub process: Option<u32>,
    /// What that process wrote to standard error since its last run; of much the last 4 KiB.
    pub stderr: Option<String>,
}

/// The newest `n` runs, newest first; of one producer, or of all.
pub(crate) fn history(
    snapshot: &Snapshot,
    producer: Option<&str>,
    n: usize,
) -> Result<Vec<RunRecord>, ReadError> {
    let series = match snapshot.series(RUNS_SERIES) {
        Err(ReadError::UnknownSeries { .. }) => return Ok(Vec::new()),
        series => series?,
    };
    let keys: Vec<(&str, Value)> = producer.map(|name| ("producer", name.into())).into_iter().collect();
    let rows = series.latest(n, &keys)?;
    Ok((0..rows.rows()).map(|row| record(&rows, row)).collect())
}

fn record(rows: &Columns, row: usize) -> RunRecord {
    let text = |name| rows.column(name).and_then(|c| c.str_at(row)).unwrap_or_default().to_string();
    let number = |name| rows.i64s(name).and_then(|v| v.get(row)).copied().unwrap_or_default();
    let time = |name| Timestamp(rows.timestamps(name).and_then(|v| v.get(row)).copied().unwrap_or_default());
    let duration = |name| Duration::from_nanos(u64::try_from(number(name)).unwrap_or_default());
    let some = |text: String| (!text.is_empty()).then_some(text);
    let process = rows.value("process", row).and_then(|value| match value {
        Value::I64(process) => u32::try_from(process).ok(),
        _ => None,
    });
    RunRecord {
        producer: text("producer"),
        pid: u64::try_from(number("pid")).unwrap_or_default(),
        date: text("date"),
        key: text("key"),
        outcome: text("outcome"),
        start_time: time("start_time"),
        end_time: time("timestamp"),
        waited: duration("waited_ns"),
        took: duration("took_ns"),
        error: some(text("error")),
        process,
        stderr: some(text("stderr")),
    }
}
