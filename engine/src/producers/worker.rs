//! Workers: threads that claim ready bundles, run closures and commit what they give.
//!
//! A worker sleeps on the doorbell, which the log's publisher rings after a commit that made bundles ready.
//! Awake, it claims bundle after bundle until none is left. No lock is held while a closure runs; a panic in a
//! closure is a failure of its run. Without workers the same is done by whoever calls [`run_ready`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::closure::{Called, Ended, Worked, call, told};
use super::run::{CellAddress, InputCell, OutputCell, OutputResult, Outputs, Run};
use crate::batch::Batch;
use crate::core::{Commit, Core, Prepared, Whose};
use crate::durability::Durability;
use crate::error::{CommitError, Failure};
use crate::graph::{
    Event, Given, GraphError, Key, Outcome, OutputWrite, ProducerDefinition, Read, Setback, Started, Used,
};
use crate::limits::REASON_BYTES_MAX;
use crate::operations::Operations;
use crate::pending::Pins;
use crate::runs;
use crate::snapshot::Snapshot;
use underbelly_storage::Timestamp;
use underbelly_storage::error::StorageError;
use underbelly_wal::WalError;

thread_local! {
    /// The address of the core whose closures this thread runs; 0 on other threads.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread runs closures of this database.
pub(crate) fn is_worker(core: &Arc<Core>) -> bool {
    WORKS_FOR.get() == Arc::as_ptr(core).addr()
}

/// Notes that this thread runs closures of this database.
pub(super) fn works_for(core: &Arc<Core>) {
    WORKS_FOR.set(Arc::as_ptr(core).addr());
}

/// The life of a worker: until the doorbell is taken away or nothing more can be committed.
pub(crate) fn work(core: &Arc<Core>, doorbell: &Receiver<()>) {
    works_for(core);
    while doorbell.recv().is_ok() {
        while !core.signals.is_hung_up() {
            // There may be more work than this worker can take: wake the next one.
            match work_once(core, Whose::Shared, || core.signals.ring()) {
                Next::More => {}
                Next::Nothing => break,
                Next::End => return,
            }
        }
    }
}

/// Whether to go on after a batch.
enum Next {
    More,
    Nothing,
    End,
}

/// Claims a batch and runs it; `wake` is called in between.
fn work_once(core: &Arc<Core>, whose: Whose, wake: impl FnOnce()) -> Next {
    let claimed = patiently(core, || core.claim(whose));
    let ended = match claimed {
        Ok(Some((started, snapshot))) => {
            wake();
            run_guarded(core, started, &snapshot)
        }
        Ok(None) => return Next::Nothing,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => Next::More,
        Err(error) => {
            let stops = is_final(&error);
            core.note_trouble(format!("a worker could not commit: {error}"));
            if stops { Next::End } else { Next::More }
        }
    }
}

/// Runs a batch of one producer; whether there was one, and `None` where nothing more can be committed.
#[cfg(feature = "processes")]
pub(super) fn work_for(core: &Arc<Core>, producer: crate::graph::ProducerId) -> Option<bool> {
    if core.signals.is_hung_up() {
        return None;
    }
    let wake = || {
        core.signals.ring_for(producer);
    };
    match work_once(core, Whose::Of(producer), wake) {
        Next::More => Some(true),
        Next::Nothing => Some(false),
        Next::End => None,
    }
}

/// Runs ready bundles on this thread until none is left, and answers how many runs ended. Nobody waits for a disk that
/// refuses: a run that cannot be ended is put into `unfinished`, and its end comes first the next time.
pub(crate) fn run_ready(
    core: &Arc<Core>,
    unfinished: &Mutex<VecDeque<Finished>>,
) -> Result<usize, CommitError> {
    let _working = Working(WORKS_FOR.replace(Arc::as_ptr(core).addr()));
    run_all(core, unfinished)
}

/// While this lives the thread counts as a worker; it holds whose it was before.
struct Working(usize);

impl Drop for Working {
    fn drop(&mut self) {
        WORKS_FOR.set(self.0);
    }
}

fn run_all(core: &Arc<Core>, unfinished: &Mutex<VecDeque<Finished>>) -> Result<usize, CommitError> {
    let unfinished = || unfinished.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut ended, mut last) = (0, None);
    loop {
        let waiting = unfinished().pop_front();
        // The end of a batch is durable before the next begins: else a crash would cut off many that were as good as done.
        if waiting.is_none()
            && let Some(seq) = last.take()
        {
            core.log.wait(seq)?;
        }
        let finished = match waiting {
            Some(finished) => finished,
            None => match core.claim(Whose::Shared)? {
                Some((started, snapshot)) => {
                    for each in batches_of(core, started) {
                        let finished = execute(core, each, &snapshot)?;
                        unfinished().extend(finished);
                    }
                    continue;
                }
                None => return Ok(ended),
            },
        };
        match conclude(core, &finished) {
            Ok(commit) => last = commit.map(|commit| commit.seq).or(last),
            Err(error) => {
                unfinished().push_front(finished);
                return Err(error);
            }
        }
        ended += 1;
    }
}

/// What is called once: a batch as a whole, or each of its runs.
fn batches_of(core: &Core, started: Vec<Started>) -> Vec<Vec<Started>> {
    let closures = core.closures.read().unwrap_or_else(PoisonError::into_inner);
    let producer = started.first().map(|started| started.producer);
    match producer.and_then(|producer| closures.get(&producer)) {
        Some(work) if work.takes_batches() => vec![started],
        _ => started.into_iter().map(|started| vec![started]).collect(),
    }
}

/// Runs what a worker claimed. Each run is ended, whatever becomes of the others, and all are durable on return; a panic of
/// the engine itself ends those of its call as failed.
fn run_guarded(core: &Arc<Core>, started: Vec<Started>, snapshot: &Snapshot) -> Result<(), CommitError> {
    let mut last = None;
    let mut failed = None;
    let mut take = |ended: Result<Option<Commit>, CommitError>| match ended {
        Ok(commit) => last = commit.map(|commit| commit.seq).or(last),
        Err(error) => drop(failed.get_or_insert(error)),
    };
    for batch in batches_of(core, started) {
        let executed = catch_unwind(AssertUnwindSafe(|| execute(core, batch.clone(), snapshot)));
        match executed {
            Ok(Ok(finished)) => {
                for finished in &finished {
                    let conclude = || patiently(core, || conclude(core, finished));
                    let ended = catch_unwind(AssertUnwindSafe(conclude));
                    take(ended.unwrap_or_else(|panic| end_as_failed(core, &finished.started, &told(panic))));
                }
            }
            Ok(Err(error)) => take(Err(error)),
            Err(panic) => {
                let what = told(panic);
                batch.iter().for_each(|started| take(end_as_failed(core, started, &what)));
            }
        }
    }
    if let Some(seq) = last {
        core.log.wait(seq)?;
    }
    failed.map_or(Ok(()), Err)
}

/// Ends a run during which the engine panicked.
fn end_as_failed(core: &Core, started: &Started, panic: &str) -> Result<Option<Commit>, CommitError> {
    let what = format!("the engine panicked: {panic}");
    core.note_trouble(what.clone());
    let (run, epoch, reads) = (started.run, started.epoch, Vec::new());
    let event = Event::End { run, epoch, outcome: Outcome::Failed(what), reads };
    let ended = patiently(core, || core.commit_event(event.clone()));
    ended.map(|(commit, _)| Some(commit)).or_else(ignore_fenced)
}

/// The life of the timer: rings for a worker when the time has come for which something waits.
pub(crate) fn keep_time(core: &Core, alarm: &Receiver<()>) {
    loop {
        // Whoever is published from here on is compared with this, and rings where it is earlier.
        core.signals.set_alarm(Timestamp(i64::MAX));
        let (due, time) = {
            let state = core.state();
            (state.graph.next_due(), state.time)
        };
        core.signals.set_alarm(due.unwrap_or(Timestamp(i64::MAX)));
        let clock = &core.options.clock;
        let left = due.map(|due| due.0.saturating_sub(clock.now().max(time).0));
        let lease = core.leases.next().map(|until| until.saturating_duration_since(clock.instant()));
        let lease = lease.map(|lease| i64::try_from(lease.as_nanos()).unwrap_or(i64::MAX));
        let left = left.into_iter().chain(lease).min();
        let heard = match left {
            None => alarm.recv().map_err(|_| RecvTimeoutError::Disconnected),
            // A worker that is busy takes its time: the timer looks again.
            Some(..=0) => {
                if let Err(error) = core.pass_time()
                    && !is_transient(&error)
                    && !is_final(&error)
                {
                    core.note_trouble(format!("the timer could not commit: {error}"));
                }
                core.signals.ring();
                alarm.recv_timeout(Duration::from_millis(20))
            }
            // Clocks are set.
            Some(left) => {
                let left = Duration::from_nanos(left.unsigned_abs());
                alarm.recv_timeout(left.min(Duration::from_secs(60)))
            }
        };
        if heard == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// A run whose closure has returned, and that is to be ended by a commit.
pub(crate) struct Finished {
    started: Started,
    definition: ProducerDefinition,
    run: Run,
    result: Result<Outputs, Ended>,
    worked: Option<Worked>,
    waited: Duration,
    took: Duration,
}

/// Runs the closure of bundles that were started together, once what they read is visible.
fn execute(core: &Arc<Core>, batch: Vec<Started>, snapshot: &Snapshot) -> Result<Vec<Finished>, CommitError> {
    core.log.wait_visible(snapshot.seq())?;
    let waited: Vec<Duration> = batch.iter().map(|started| core.signals.note_start(started.bundle)).collect();
    let clock = &core.options.clock;
    let began = clock.instant();
    let closure = {
        let closures = core.closures.read().unwrap_or_else(PoisonError::into_inner);
        batch.first().and_then(|started| closures.get(&started.producer)).cloned()
    };
    if closure.is_none() {
        let id = batch.first().map(|started| started.producer);
        core.note_trouble(format!("producer {id:?} has work, and nothing that does it; register it again"));
    }
    let (mut definitions, mut runs) = (Vec::new(), Vec::new());
    for started in &batch {
        let (definition, run) = assemble(core, started, snapshot.clone())?;
        definitions.push(definition);
        runs.push(run);
    }
    let epoch = batch.first().map_or(0, |started| started.epoch);
    let Called { results, worked } = call(closure, &runs, epoch);
    let took = clock.instant().saturating_duration_since(began);
    let results = results.into_iter().zip(batch).zip(definitions.into_iter().zip(runs)).zip(waited);
    let finished = results.map(|(((result, started), (definition, run)), waited)| Finished {
        started,
        definition,
        run,
        result,
        worked: worked.clone(),
        waited,
        took,
    });
    Ok(finished.collect())
}

/// Sequences the end of a run: its outputs, or as a failure why they cannot be; nothing where that came too late. An error
/// means that it is not ended: the disk refuses, or nothing more can be committed.
fn conclude(core: &Arc<Core>, finished: &Finished) -> Result<Option<Commit>, CommitError> {
    let Finished { started, definition, run, result, worked, waited, took } = finished;
    let (waited, took, worked) = (*waited, *took, worked.as_ref());
    let mut report = runs::Report { run, worked, waited, took, outcome: "completed", text: String::new() };
    // What it has read is dropped where its outputs were refused: they may close a cycle.
    let mut reads = Vec::new();
    let ended = match result {
        Ok(outputs) => match end(core, started, definition, outputs, &report) {
            Err(error) if !is_final(&error) && !is_transient(&error) && !is_fenced(&error) => {
                Ended::Failed(Failure::Fatal(error.to_string()))
            }
            ended => return ended.map(Some).or_else(ignore_fenced),
        },
        Err(ended) => {
            reads = run.reported();
            ended.clone()
        }
    };
    // The reason stands twice in the record, which must be small enough for the smallest log.
    let bounded = |text| bounded(text, REASON_BYTES_MAX.min(core.record_bytes_max / 8));
    let retry = definition.retry;
    let after = |failures| retry.wait(failures, scrambled(started.run.0));
    let (outcome, text, ended) = match ended {
        Ended::Failed(Failure::Declined(reason)) => {
            let reason = bounded(reason);
            ("declined", reason.clone(), Outcome::Declined(reason))
        }
        Ended::Failed(Failure::Fatal(error)) => {
            let error = bounded(error);
            ("failed", error.clone(), Outcome::Failed(error))
        }
        Ended::Failed(Failure::Retry(error)) => {
            let failures = started.attempts.saturating_add(1);
            let (message, why, wait) = (bounded(error), Setback::Failed, after(failures));
            let outcome = if failures < retry.max_attempts { "retry" } else { "failed" };
            (outcome, message.clone(), Outcome::Again { why, message, wait })
        }
        Ended::Failed(Failure::Rejected(reason)) => {
            let (message, why, wait) = (bounded(reason), Setback::Rejected, after(1));
            ("rejected", message.clone(), Outcome::Again { why, message, wait })
        }
        Ended::Died { message, most } => {
            let (message, why, wait) = (bounded(message), Setback::Halved(most), Duration::ZERO);
            ("died", message.clone(), Outcome::Again { why, message, wait })
        }
    };
    (report.outcome, report.text) = (outcome, text);
    match commit_end(core, started, ended, reads, &report) {
        Err(CommitError::Graph(error @ GraphError::CellCycle { .. })) => {
            (report.outcome, report.text) = ("failed", bounded(error.to_string()));
            let outcome = Outcome::Failed(report.text.clone());
            commit_end(core, started, outcome, Vec::new(), &report).map(Some).or_else(ignore_fenced)
        }
        ended => ended.map(Some).or_else(ignore_fenced),
    }
}

/// A number that looks like chance, the same for the same run (the finalizer of Steele and others' SplitMix64, 2014).
fn scrambled(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Tries again while the disk refuses and the log is sound: the result is in memory.
fn patiently<T>(core: &Core, mut commit: impl FnMut() -> Result<T, CommitError>) -> Result<T, CommitError> {
    let mut pause = Duration::from_millis(10);
    loop {
        let error = match commit() {
            Err(error) if is_transient(&error) && !core.signals.is_hung_up() => error,
            ended => return ended,
        };
        core.note_trouble(format!("a worker waits to commit: {error}"));
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A result that came too late changes nothing and concerns nobody.
fn ignore_fenced(error: CommitError) -> Result<Option<Commit>, CommitError> {
    if is_fenced(&error) { Ok(None) } else { Err(error) }
}

fn is_fenced(error: &CommitError) -> bool {
    matches!(error, CommitError::Graph(GraphError::Fenced { .. }))
}

/// Errors of the disk that leave the log sound and may pass.
fn is_transient(error: &CommitError) -> bool {
    matches!(
        error,
        CommitError::Log(WalError::DiskFull { .. } | WalError::Io { .. })
            | CommitError::Storage(StorageError::DiskFull { .. } | StorageError::Io { .. })
    )
}

/// Errors after which nothing can be committed any more.
pub(crate) fn is_final(error: &CommitError) -> bool {
    matches!(
        error,
        CommitError::Log(WalError::Poisoned { .. } | WalError::NotDurable { .. })
            | CommitError::Closed
            | CommitError::Internal { .. }
    )
}

/// A reason that a record can hold.
pub(crate) fn bounded(mut reason: String, bytes_max: usize) -> String {
    if reason.len() > bytes_max {
        let boundary = (0..=bytes_max).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(boundary.unwrap_or_default());
        reason.push('…');
    }
    reason
}

fn assemble(
    core: &Arc<Core>,
    started: &Started,
    snapshot: Snapshot,
) -> Result<(ProducerDefinition, Run), CommitError> {
    let state = core.state();
    let definition = state
        .graph
        .producer(started.producer)
        .cloned()
        .ok_or_else(|| CommitError::Internal { what: "a run of an unknown producer".to_string() })?;
    let key_columns =
        state.graph.bundle_columns(started.producer).iter().map(|(name, _)| name.clone()).collect();
    let mut inputs: Vec<(String, Vec<InputCell>)> = Vec::new();
    for (position, input) in definition.inputs.iter().enumerate() {
        let slot = state.graph.slot_by_name(&input.slot).and_then(|slot| state.graph.slot(slot));
        let columns: Arc<[String]> = slot
            .map_or_else(Vec::new, |slot| slot.cell_keys.iter().map(|(name, _)| name.clone()).collect())
            .into();
        let mut cells: Vec<InputCell> = started
            .inputs
            .iter()
            .filter(|read| read.input == position)
            .filter_map(|read| {
                Some(InputCell {
                    key: state.graph.cell_info(read.cell)?.key,
                    key_columns: columns.clone(),
                    generation: read.g,
                    content: read.content,
                    snapshot: snapshot.clone(),
                })
            })
            .collect();
        cells.sort_by(|a, b| a.key.cmp(&b.key));
        inputs.push((input.alias.clone(), cells));
    }
    let run = Run {
        id: started.run,
        attempts: started.attempts,
        producer: definition.name.clone(),
        date: started.date,
        key: started.key.clone(),
        key_columns,
        inputs,
        snapshot: snapshot.clone(),
        reads: Mutex::default(),
    };
    Ok((definition, run))
}

/// Commits outputs and the end of the run.
fn end(
    core: &Arc<Core>,
    started: &Started,
    definition: &ProducerDefinition,
    outputs: &Outputs,
    report: &runs::Report<'_>,
) -> Result<Commit, CommitError> {
    let folder = core.enter()?;
    outputs.batch.check()?;
    let mut operations = Operations::default();
    let mut pins = core.pending.pin();
    let mut writes = Vec::new();
    let reason_bytes = REASON_BYTES_MAX.min(core.record_bytes_max / 8);
    if outputs.stray_use {
        let what = "`Outputs::uses` speaks of the output before it, and there is none; put the output first";
        return Err(CommitError::Cell { slot: String::new(), what: what.to_string() });
    }
    for OutputCell { slot: name, address, result, uses } in &outputs.cells {
        if !definition.outputs.iter().any(|output| output.slot == *name) {
            let provided: Vec<&str> = definition.outputs.iter().map(|output| output.slot.as_str()).collect();
            return Err(CommitError::Cell {
                slot: name.clone(),
                what: format!("{} does not provide it; it provides {}", definition.name, provided.join(", ")),
            });
        }
        let (slot, slot_definition) = core.slot(name)?;
        let key = slot_definition.cell_keys.iter().map(|(column, _)| {
            let given = match address {
                CellAddress::Bundle => None,
                CellAddress::Named(named) => named.get(column),
            };
            given.or_else(|| report.run.key(column)).cloned().ok_or_else(|| CommitError::Cell {
                slot: name.clone(),
                what: format!("the bundle has no key {column:?}; name it with `Outputs::put_at`"),
            })
        });
        let key = Key::new(key.collect::<Result<_, _>>()?)?;
        let given = match result {
            OutputResult::Data(rows) => Given::Data(core.prepare_content(
                &slot_definition,
                rows.clone(),
                &mut operations,
                &mut pins,
            )?),
            OutputResult::Error(error) => Given::Error(bounded(error.clone(), reason_bytes)),
        };
        let uses = uses.as_ref().map(|uses| used(started, definition, name, uses, report.run)).transpose()?;
        writes.push(OutputWrite { uses, ..OutputWrite::new(slot, key, given) });
    }
    let Batch { appends, models, .. } = outputs.batch.clone();
    core.prepare_data(appends, models, &mut operations, &mut pins)?;
    writes.extend(core.give_models(definition, &mut operations, &mut pins)?);
    let (run, epoch, reads) = (started.run, started.epoch, report.run.reported());
    let event = Event::End { run, epoch, outcome: Outcome::Data(writes), reads };
    let prepared = prepare_end(core, event, operations, report, pins)?;
    finish(core, folder, prepared)
}

/// The cells of inputs, as a run found them.
fn used(
    started: &Started,
    definition: &ProducerDefinition,
    output: &str,
    uses: &[(String, Option<Key>)],
    run: &Run,
) -> Result<Vec<Used>, CommitError> {
    let mut found = Vec::new();
    for (name, key) in uses {
        let position = definition.inputs.iter().position(|input| input.alias == *name);
        let position = position.ok_or_else(|| CommitError::Cell {
            slot: output.to_string(),
            what: format!("it rests on {name:?}, which is no input of {}", definition.name),
        })?;
        let keys = run.inputs.get(position).map_or(&[][..], |(_, cells)| cells);
        let of_input = started.inputs.iter().filter(|read| read.input == position);
        // Both are in the order of keys.
        let cells = of_input.zip(keys).filter(|(_, cell)| key.as_ref().is_none_or(|key| cell.key == *key));
        found.extend(cells.map(|(read, _)| Used { input: position as u16, cell: read.cell }));
    }
    Ok(found)
}

fn commit_end(
    core: &Arc<Core>,
    started: &Started,
    outcome: Outcome,
    reads: Vec<Read>,
    report: &runs::Report<'_>,
) -> Result<Commit, CommitError> {
    let folder = core.enter()?;
    let (operations, pins) = (Operations::default(), core.pending.pin());
    let event = Event::End { run: started.run, epoch: started.epoch, outcome, reads };
    let prepared = prepare_end(core, event, operations, report, pins)?;
    finish(core, folder, prepared)
}

fn prepare_end<'a>(
    core: &'a Arc<Core>,
    event: Event,
    mut operations: Operations,
    report: &runs::Report<'_>,
    mut pins: Pins<'a>,
) -> Result<Prepared<'a>, CommitError> {
    let mut batch = Batch::new();
    batch.append(report.row(core.options.clock.now()))?;
    core.prepare_data(batch.appends, Vec::new(), &mut operations, &mut pins)?;
    operations.event = Some(event);
    core.encode(operations, pins)
}

/// Sequences the end of a run and leaves the folder.
fn finish<F>(core: &Arc<Core>, folder: F, prepared: Prepared<'_>) -> Result<Commit, CommitError> {
    let (commit, _) = core.sequence(prepared, Durability::Sync, |_| Ok(()))?;
    drop(folder);
    Ok(commit)
}
