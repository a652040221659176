//! RUNNING_PROD: the runs in flight.

use underbelly_storage::Timestamp;

use super::page::{PAGE, Rows};
use crate::graph::{CellId, Key, RunId, SlotDate};
use crate::view::View;

/// A row of RUNNING_PROD: a run in flight and one cell that it makes. Capitals name the columns.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RunningRow {
    /// PROD_NAME
    pub producer: String,
    /// PID: the run's unique number.
    pub pid: RunId,
    /// MACHINE on which it runs, where that is known.
    pub machine: Option<String>,
    /// START_TIME: commit time of its start.
    pub start_time: Timestamp,
    /// SID of a cell that its bundle has given before; `None` where it has given none yet.
    pub sid: Option<CellId>,
    /// DATE that it works on.
    pub date: SlotDate,
    /// KEY of its bundle: key values joined by `/`.
    pub key: Key,
}

impl View {
    /// RUNNING_PROD: the runs in flight, in order of their start, each with a row for every cell that it is known to
    /// make, and with one row where none is known.
    pub fn running(&self) -> Rows<RunningRow> {
        let mut last: Option<RunId> = None;
        Rows::new(self, move |graph, rows| {
            for run in graph.runs_after(last) {
                last = Some(run.run);
                let definition = graph.producer(run.producer);
                let row = RunningRow {
                    producer: definition.map(|definition| definition.name.clone()).unwrap_or_default(),
                    pid: run.run,
                    machine: graph.machine(run.producer).map(str::to_string),
                    start_time: run.started,
                    sid: None,
                    date: run.date,
                    key: run.key.clone(),
                };
                match run.outputs.as_slice() {
                    [] => rows.push(row),
                    sids => rows.extend(sids.iter().map(|sid| RunningRow { sid: Some(*sid), ..row.clone() })),
                }
                if rows.len() >= PAGE {
                    return true;
                }
            }
            false
        })
    }
}
