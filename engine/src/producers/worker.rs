//! Workers: threads that claim ready bundles, run closures and commit what they give.
//!
//! A worker sleeps on the doorbell, which whoever commits rings once bundles are ready, before the log is written.
//! Awake, it claims bundle after bundle until none is left, and starts them when what they read is visible. No lock is held while a closure runs; a panic in a
//! closure is a failure of its run. Without workers the same is done by whoever calls [`run_ready`].

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::closure::{Called, Ended, Work, Worked, call, told};
use super::pace::MOMENT;
use super::run::{CellAddress, InputCell, OutputCell, OutputResult, Outputs, Run};
use crate::batch::Batch;
use crate::core::{Commit, Core, Prepared, Whose};
use crate::durability::Durability;
use crate::error::{CommitError, Failure};
use crate::graph::{
    Event, Given, GraphError, Input, Key, Outcome, OutputWrite, ProducerDefinition, ProducerId, Read,
    Setback, SlotDefinition, SlotId, Started, Used,
};
use crate::limits::{REASON_BYTES_MAX, RUNS_OF_RECORD_MAX};
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
    /// Whether this thread does inline work.
    static IS_INLINE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs closures of this database.
pub(crate) fn is_worker(core: &Arc<Core>) -> bool {
    WORKS_FOR.get() == Arc::as_ptr(core).addr()
}

/// Notes that this thread runs closures of this database.
pub(super) fn works_for(core: &Arc<Core>) {
    WORKS_FOR.set(Arc::as_ptr(core).addr());
}

/// The life of a worker: until the bell is hung up or nothing more can be committed.
pub(crate) fn work(core: &Arc<Core>) {
    works_for(core);
    while core.signals.doorbell.wait() {
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
            None => match core.claim(Whose::Driven)? {
                Some((started, snapshot)) => {
                    let mut finished = Vec::new();
                    for each in batches_of(core, started) {
                        match execute(core, each, &snapshot) {
                            Ok(more) => finished.extend(more),
                            Err(error) => {
                                unfinished().extend(finished);
                                return Err(error);
                            }
                        }
                    }
                    let (commit, is_ended) = end_together(core, &finished);
                    last = commit.map(|commit| commit.seq);
                    let all = finished.len();
                    finished.retain(|finished| !(is_ended && finished.is_plain()));
                    ended += all - finished.len();
                    unfinished().extend(finished);
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

/// Inline work that a commit made ready and started.
pub(crate) struct Taken {
    pub started: Vec<Started>,
    pub snapshot: Snapshot,
}

/// Does the inline work that this thread's commit made ready, and what that makes ready in turn. What goes wrong is told in
/// the status, as a worker's; the caller learns of its own commit.
pub(crate) fn run_taken(core: &Arc<Core>, taken: Option<Taken>) {
    let Some(Taken { started, snapshot }) = taken else { return };
    let _working = Working(WORKS_FOR.replace(Arc::as_ptr(core).addr()));
    IS_INLINE.set(true);
    work_inline(core, started, &snapshot);
    IS_INLINE.set(false);
}

fn work_inline(core: &Arc<Core>, started: Vec<Started>, snapshot: &Snapshot) {
    let mut ended = run_guarded(core, started, snapshot);
    loop {
        if let Err(error) = ended {
            core.note_trouble(format!("an inline producer could not commit: {error}"));
            if is_final(&error) {
                return;
            }
        }
        // What its ends have made ready is this thread's too.
        match patiently(core, || core.claim(Whose::Inline)) {
            Ok(Some((started, snapshot))) => ended = run_guarded(core, started, &snapshot),
            Ok(None) => return,
            Err(error) => {
                core.note_trouble(format!("an inline producer could not start: {error}"));
                return core.signals.ring();
            }
        }
    }
}

/// What is called once: a batch as a whole, or each of its runs. A handful is several batches.
fn batches_of(core: &Core, started: Vec<Started>) -> Vec<Vec<Started>> {
    let Some(producer) = started.first().map(|started| started.producer) else { return Vec::new() };
    let takes_batches = {
        let closures = core.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.get(&producer).is_some_and(Work::takes_batches)
    };
    let size = match takes_batches {
        true => core.state().graph.producer(producer).map_or(1, |known| known.proxy.max_batch as usize),
        false => 1,
    };
    started.chunks(size.max(1)).map(<[Started]>::to_vec).collect()
}

/// Runs what a worker claimed. Each run is ended, whatever becomes of the others, and all are durable on return; a panic of
/// the engine itself ends those of its call as failed.
fn run_guarded(core: &Arc<Core>, started: Vec<Started>, snapshot: &Snapshot) -> Result<(), CommitError> {
    let mut ends = Ends::default();
    let (mut finished, mut since) = (Vec::new(), Instant::now());
    for batch in batches_of(core, started) {
        let executed = catch_unwind(AssertUnwindSafe(|| execute(core, batch.clone(), snapshot)));
        match executed {
            Ok(Ok(more)) => finished.extend(more),
            Ok(Err(error)) => ends.take(Err(error)),
            Err(panic) => {
                let what = told(panic);
                batch.iter().for_each(|started| ends.take(end_as_failed(core, started, &what)));
            }
        }
        if finished.len() >= RUNS_OF_RECORD_MAX || since.elapsed() >= MOMENT {
            ends.conclude(core, std::mem::take(&mut finished));
            since = Instant::now();
        }
    }
    ends.conclude(core, finished);
    if let Some(seq) = ends.last {
        core.log.wait(seq)?;
    }
    ends.failed.map_or(Ok(()), Err)
}

/// How the runs of a batch ended so far.
#[derive(Default)]
struct Ends {
    /// The last commit.
    last: Option<u64>,
    /// The first that could not be ended.
    failed: Option<CommitError>,
}

impl Ends {
    fn take(&mut self, ended: Result<Option<Commit>, CommitError>) {
        match ended {
            Ok(commit) => self.last = commit.map(|commit| commit.seq).or(self.last),
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
    }

    /// Ends runs: together where that can be, else one by one.
    fn conclude(&mut self, core: &Arc<Core>, finished: Vec<Finished>) {
        let together = catch_unwind(AssertUnwindSafe(|| end_together(core, &finished)));
        let (commit, is_ended) = together.unwrap_or_default();
        self.take(Ok(commit));
        for finished in finished.iter().filter(|finished| !(is_ended && finished.is_plain())) {
            let conclude = || patiently(core, || conclude(core, finished));
            let ended = catch_unwind(AssertUnwindSafe(conclude));
            self.take(ended.unwrap_or_else(|panic| end_as_failed(core, &finished.started, &told(panic))));
        }
    }
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
        let lease =
            core.leases.next(clock.instant()).map(|until| until.saturating_duration_since(clock.instant()));
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
    definition: Arc<ProducerDefinition>,
    run: Run,
    result: Result<Outputs, Ended>,
    worked: Option<Worked>,
    waited: Duration,
    took: Duration,
}

impl Finished {
    /// Whether it may end in one record with others.
    fn is_plain(&self) -> bool {
        self.result.as_ref().is_ok_and(Outputs::is_plain) && !self.run.has_reported()
    }

    fn report(&self) -> runs::Report<'_> {
        let Finished { run, worked, waited, took, .. } = self;
        let (worked, waited, took) = (worked.as_ref(), *waited, *took);
        runs::Report { run, worked, waited, took, outcome: "completed", text: String::new() }
    }
}

/// Runs the closure of bundles that were started together, once what they read is visible.
fn execute(core: &Arc<Core>, batch: Vec<Started>, snapshot: &Snapshot) -> Result<Vec<Finished>, CommitError> {
    let Some(first) = batch.first() else { return Ok(Vec::new()) };
    let (producer, epoch) = (first.producer, first.epoch);
    let closure = {
        let closures = core.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.get(&producer).cloned()
    };
    if closure.is_none() {
        core.note_trouble(format!(
            "producer {producer} has work, and nothing that does it; register it again"
        ));
    }
    // While the log is being written, as far as it is.
    let (definition, runs) = assemble(core, producer, &batch, snapshot)?;
    core.log.wait_visible(snapshot.seq())?;
    let waited = core.signals.note_starts(batch.iter().map(|started| started.bundle));
    let clock = &core.options.clock;
    let began = clock.instant();
    let Called { results, worked } = call(closure, &runs, epoch);
    let took = clock.instant().saturating_duration_since(began);
    core.paces.note(producer, batch.len(), took);
    let results = results.into_iter().zip(batch).zip(runs).zip(waited);
    let finished = results.map(|(((result, started), run), waited)| Finished {
        started,
        definition: definition.clone(),
        run,
        result,
        worked: worked.clone(),
        waited,
        took,
    });
    Ok(finished.collect())
}

/// Ends those of several runs of a producer that gave cells alone in one transaction; whether that was done.
fn end_together(core: &Arc<Core>, finished: &[Finished]) -> (Option<Commit>, bool) {
    if finished.iter().filter(|finished| finished.is_plain()).nth(1).is_none() {
        return (None, false);
    }
    // Where it cannot be done, each learns by itself what is wrong.
    end_plain(core, finished).map_or((None, false), |commit| (Some(commit), true))
}

fn end_plain(core: &Arc<Core>, finished: &[Finished]) -> Result<Commit, CommitError> {
    let folder = core.enter()?;
    let (mut operations, mut pins) = (Operations::default(), core.pending.pin());
    let (mut rows, mut ends) = (Batch::new(), Vec::new());
    let mut slots = Slots::default();
    let now = core.options.clock.now();
    for finished in finished.iter().filter(|finished| finished.is_plain()) {
        let Finished { started, result: Ok(outputs), .. } = finished else { continue };
        let writes = writes(core, finished, outputs, &mut slots, &mut operations, &mut pins)?;
        let (run, epoch, reads) = (started.run, started.epoch, Vec::new());
        ends.push(Event::End { run, epoch, outcome: Outcome::Data(writes), reads });
        rows.append(finished.report().row(now))?;
    }
    core.prepare_data(rows.appends, Vec::new(), &mut operations, &mut pins)?;
    operations.event = Some(Event::Several(ends));
    finish(core, folder, core.encode(operations, pins)?)
}

/// Sequences the end of a run: its outputs, or as a failure why they cannot be; nothing where that came too late. An error
/// means that it is not ended: the disk refuses, or nothing more can be committed.
fn conclude(core: &Arc<Core>, finished: &Finished) -> Result<Option<Commit>, CommitError> {
    let Finished { started, definition, run, result, .. } = finished;
    let mut report = finished.report();
    // What it has read is dropped where its outputs were refused: they may close a cycle.
    let mut reads = Vec::new();
    let ended = match result {
        Ok(outputs) => match end(core, finished, outputs, &report) {
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

/// The runs of a batch, of which all is known but what they give.
fn assemble(
    core: &Arc<Core>,
    producer: ProducerId,
    batch: &[Started],
    snapshot: &Snapshot,
) -> Result<(Arc<ProducerDefinition>, Vec<Run>), CommitError> {
    let state = core.state();
    let definition = state
        .graph
        .producer(producer)
        .cloned()
        .ok_or_else(|| CommitError::Internal { what: "a run of an unknown producer".to_string() })?;
    let key_columns: Arc<[String]> =
        state.graph.bundle_columns(producer).iter().map(|(name, _)| name.clone()).collect();
    let name: Arc<str> = definition.name.as_str().into();
    let columns = |input: &Input| -> Arc<[String]> {
        let slot = state.graph.slot_by_name(&input.slot).and_then(|slot| state.graph.slot(slot));
        slot.iter().flat_map(|slot| &slot.cell_keys).map(|(name, _)| name.clone()).collect()
    };
    let columns: Vec<Arc<[String]>> = definition.inputs.iter().map(columns).collect();
    let run = |started: &Started| {
        let input = |(position, (input, columns)): (usize, (&Input, &Arc<[String]>))| {
            let read = started.inputs.iter().filter(|read| read.input == position);
            let mut cells: Vec<InputCell> = read
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
            (input.alias.clone(), cells)
        };
        Run {
            id: started.run,
            attempts: started.attempts,
            producer: name.clone(),
            date: started.date,
            key: started.key.clone(),
            key_columns: key_columns.clone(),
            inputs: definition.inputs.iter().zip(&columns).enumerate().map(input).collect(),
            snapshot: snapshot.clone(),
            reads: Mutex::default(),
        }
    };
    let runs = batch.iter().map(run).collect();
    drop(state);
    Ok((Arc::new(definition), runs))
}

/// Commits outputs and the end of the run.
fn end(
    core: &Arc<Core>,
    finished: &Finished,
    outputs: &Outputs,
    report: &runs::Report<'_>,
) -> Result<Commit, CommitError> {
    let Finished { started, definition, .. } = finished;
    let folder = core.enter()?;
    outputs.batch.check()?;
    let mut operations = Operations::default();
    let mut pins = core.pending.pin();
    if outputs.stray_use {
        let what = "`Outputs::uses` speaks of the output before it, and there is none; put the output first";
        return Err(CommitError::Cell { slot: String::new(), what: what.to_string() });
    }
    let mut writes = writes(core, finished, outputs, &mut Slots::default(), &mut operations, &mut pins)?;
    let Batch { appends, models, .. } = outputs.batch.clone();
    core.prepare_data(appends, models, &mut operations, &mut pins)?;
    writes.extend(core.give_models(definition, &mut operations, &mut pins)?);
    let (run, epoch, reads) = (started.run, started.epoch, report.run.reported());
    let event = Event::End { run, epoch, outcome: Outcome::Data(writes), reads };
    let prepared = prepare_end(core, event, operations, report, pins)?;
    finish(core, folder, prepared)
}

/// Slots that were looked up, by name.
type Slots = BTreeMap<String, (SlotId, SlotDefinition)>;

/// The writes that a run's output cells are.
fn writes(
    core: &Core,
    finished: &Finished,
    outputs: &Outputs,
    slots: &mut Slots,
    operations: &mut Operations,
    pins: &mut Pins<'_>,
) -> Result<Vec<OutputWrite>, CommitError> {
    let Finished { started, definition, run, .. } = finished;
    let reason_bytes = REASON_BYTES_MAX.min(core.record_bytes_max / 8);
    let mut writes = Vec::with_capacity(outputs.cells.len());
    for OutputCell { slot: name, address, result, uses } in &outputs.cells {
        if !definition.outputs.iter().any(|output| output.slot == *name) {
            let provided: Vec<&str> = definition.outputs.iter().map(|output| output.slot.as_str()).collect();
            return Err(CommitError::Cell {
                slot: name.clone(),
                what: format!("{} does not provide it; it provides {}", definition.name, provided.join(", ")),
            });
        }
        if !slots.contains_key(name) {
            slots.insert(name.clone(), core.slot(name)?);
        }
        let Some((slot, slot_definition)) = slots.get(name) else { continue };
        let key = slot_definition.cell_keys.iter().map(|(column, _)| {
            let given = match address {
                CellAddress::Bundle => None,
                CellAddress::Named(named) => named.get(column),
            };
            given.or_else(|| run.key(column)).cloned().ok_or_else(|| CommitError::Cell {
                slot: name.clone(),
                what: format!("the bundle has no key {column:?}; name it with `Outputs::put_at`"),
            })
        });
        let key = Key::new(key.collect::<Result<_, _>>()?)?;
        let given = match result {
            OutputResult::Data(rows) => {
                Given::Data(core.prepare_content(slot_definition, rows.clone(), operations, pins)?)
            }
            OutputResult::Error(error) => Given::Error(bounded(error.clone(), reason_bytes)),
        };
        let uses = uses.as_ref().map(|uses| used(started, definition, name, uses, run)).transpose()?;
        writes.push(OutputWrite { uses, ..OutputWrite::new(*slot, key, given) });
    }
    Ok(writes)
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
fn finish<F>(core: &Arc<Core>, folder: F, mut prepared: Prepared<'_>) -> Result<Commit, CommitError> {
    prepared.here = IS_INLINE.get();
    let (commit, _) = core.sequence(prepared, Durability::Sync, |_| Ok(()))?;
    drop(folder);
    Ok(commit)
}
