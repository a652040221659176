//! Workers: threads that claim ready bundles, run closures and commit what they give.
//!
//! A worker sleeps on the doorbell, which whoever commits rings once bundles are ready, before the log is written.
//! Awake, it claims bundle after bundle until none is left, and starts them when what they read is visible. No lock is held while a closure runs; a panic in a
//! closure is a failure of its run. Without workers the same is done by whoever calls [`run_ready`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::closure::{Called, Ended, Work, Worked, call, told};
use super::hand::Others;
use super::run::{CellAddress, InputCell, OutputCell, OutputResult, Outputs, Run};
use crate::batch::Batch;
use crate::core::{Commit, Core, Prepared, Sequenced, Whose};
use crate::durability::Durability;
use crate::error::{CommitError, Failure};
use crate::graph::{
    BundleId, Event, Given, GraphError, Input, Key, Outcome, OutputWrite, ProducerDefinition, ProducerId,
    Read, RunId, Setback, SlotDefinition, SlotId, Started, Used,
};
use crate::limits::{CONFLICT_RETRIES, REASON_BYTES_MAX, START_BYTES_MAX};
use crate::operations::Operations;
use crate::pending::Pins;
use crate::runs;
use crate::snapshot::Snapshot;
use underbelly_storage::Timestamp;
use underbelly_storage::error::StorageError;
use underbelly_wal::WalError;

/// Bytes of a run's end beside its outputs, about; its row in the history is among them.
const END_BYTES: usize = 512;

thread_local! {
    /// The address of the core whose closures this thread runs; 0 on other threads.
    static WORKS_FOR: Cell<usize> = const { Cell::new(0) };
    /// On a thread that does inline work of that core: bundles that its commits made ready, and that it is to do.
    static OWN: RefCell<Option<BTreeSet<BundleId>>> = const { RefCell::new(None) };
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
    let taken_over = if whose == Whose::Shared { core.hands.take_over() } else { None };
    let claimed = match taken_over {
        Some(rest) => Ok(Some(rest)),
        None => patiently(core, || core.claim(whose)),
    };
    let ended = match claimed {
        Ok(Some((started, snapshot))) => {
            wake();
            run_guarded(core, started, &snapshot, true)
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
    let _working = Working::for_core(core, None);
    run_all(core, unfinished)
}

/// While this lives the thread counts as a worker; it holds what the thread was before.
struct Working {
    works_for: usize,
    own: Option<BTreeSet<BundleId>>,
}

impl Working {
    fn for_core(core: &Arc<Core>, own: Option<BTreeSet<BundleId>>) -> Working {
        Working { works_for: WORKS_FOR.replace(Arc::as_ptr(core).addr()), own: OWN.replace(own) }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKS_FOR.set(self.works_for);
        OWN.replace(self.own.take());
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
                    let all = finished.len();
                    let (commit, left) = end_together(core, finished);
                    last = commit.map(|commit| commit.seq);
                    ended += all - left.len();
                    unfinished().extend(left);
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

/// Inline work that a commit made ready: what of it was started, and all of it.
pub(crate) struct Taken {
    pub started: Vec<Started>,
    pub snapshot: Snapshot,
    pub own: BTreeSet<BundleId>,
}

/// Does the inline work that this thread's commit made ready, and what that makes ready in turn. What goes wrong is told in
/// the status, as a worker's; the caller learns of its own commit.
pub(crate) fn run_taken(core: &Arc<Core>, taken: Option<Taken>) {
    let Some(Taken { started, snapshot, own }) = taken else { return };
    let _working = Working::for_core(core, Some(own));
    work_inline(core, started, &snapshot);
}

fn work_inline(core: &Arc<Core>, started: Vec<Started>, snapshot: &Snapshot) {
    let mut ended = run_guarded(core, started, snapshot, false);
    loop {
        if let Err(error) = ended {
            core.note_trouble(format!("an inline producer could not commit: {error}"));
            if is_final(&error) {
                return;
            }
        }
        // What its ends have made ready is this thread's too. What others make ready meanwhile is not, but for what is older.
        if !has_own_ready(core) {
            return;
        }
        match patiently(core, || core.claim(Whose::Inline)) {
            Ok(Some((started, snapshot))) => ended = run_guarded(core, started, &snapshot, false),
            Ok(None) => return,
            Err(error) => {
                core.note_trouble(format!("an inline producer could not start: {error}"));
                return core.signals.ring();
            }
        }
    }
}

/// Whether something is left of what this thread's commits made ready.
fn has_own_ready(core: &Core) -> bool {
    OWN.with_borrow_mut(|own| {
        let Some(own) = own.as_mut().filter(|own| !own.is_empty()) else { return false };
        let state = core.state();
        own.retain(|bundle| state.graph.is_ready(*bundle));
        !own.is_empty()
    })
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
/// the engine itself ends those of its call as failed. What others take over is theirs; what is not called when the workers are
/// sent home is ready again. `is_shared`: whether others look at it; inline work is done when its caller goes on.
fn run_guarded(
    core: &Arc<Core>,
    started: Vec<Started>,
    snapshot: &Snapshot,
    is_shared: bool,
) -> Result<(), CommitError> {
    let mut ends = Ends::default();
    let others = match is_shared {
        false => Others::Nothing,
        true if is_limited(core, &started) => Others::End,
        true => Others::TakeOver,
    };
    let hand = core.hands.take(&core.signals, batches_of(core, started), snapshot, others);
    while let Some(batch) = hand.next() {
        if core.signals.is_hung_up() {
            let rest = hand.rest();
            batch.iter().chain(&rest).for_each(|started| ends.take(give_back(core, started)));
            break;
        }
        let executed = catch_unwind(AssertUnwindSafe(|| execute(core, batch.clone(), snapshot)));
        match executed {
            Ok(Ok(more)) => ends.conclude(core, hand.finish(more)),
            Ok(Err(error)) => ends.take(Err(error)),
            Err(panic) => {
                let what = told(panic);
                batch.iter().for_each(|started| ends.take(end_as_failed(core, started, &what)));
            }
        }
    }
    core.hands.close(&hand);
    let (finished, last) = hand.close();
    ends.last = ends.last.max(last);
    ends.conclude(core, finished);
    ends.settle(core)
}

/// Whether no more than some batches of the producer may be in work. A handful is one: others that took over its rest would be more.
fn is_limited(core: &Core, started: &[Started]) -> bool {
    let state = core.state();
    let producer = started.first().and_then(|started| state.graph.producer(started.producer));
    producer.is_some_and(|producer| producer.proxy.max_running < u32::MAX)
}

/// Makes a run ready again that was claimed and not called.
fn give_back(core: &Core, started: &Started) -> Result<Option<Commit>, CommitError> {
    let folder = core.enter()?;
    let message = "the workers were sent home before it was called".to_string();
    let outcome = Outcome::Again { why: Setback::Rejected, message, wait: Duration::ZERO };
    let event = Event::End { run: started.run, epoch: started.epoch, outcome, reads: Vec::new() };
    let operations = Box::new(Operations { event: Some(event), ..Operations::default() });
    let prepared = core.encode(operations, core.pending.pin())?;
    let given = core.sequence(prepared, Durability::Sync, |_| Ok(()));
    drop(folder);
    given.map(|(commit, _)| Some(commit)).or_else(ignore_fenced)
}

/// How the runs of a batch ended so far.
#[derive(Default)]
pub(super) struct Ends {
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

    /// The last commit.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// Ends runs: together where that can be, else one by one. What the disk refuses waits for it, and holds up no other.
    pub fn conclude(&mut self, core: &Arc<Core>, finished: Vec<Finished>) {
        let refused = self.conclude_at_once(core, finished);
        if let Some(seq) = self.last.filter(|_| !refused.is_empty())
            && let Err(error) = core.log.wait(seq)
        {
            self.take(Err(error.into()));
        }
        for finished in refused {
            let conclude = || patiently(core, || conclude(core, &finished));
            let ended = catch_unwind(AssertUnwindSafe(conclude));
            self.take(ended.unwrap_or_else(|panic| end_as_failed(core, &finished.started, &told(panic))));
        }
    }

    /// The same, and waits for no disk that refuses: answers the runs that it refused.
    pub fn conclude_at_once(&mut self, core: &Arc<Core>, finished: Vec<Finished>) -> Vec<Finished> {
        let (mut refused, mut is_full) = (Vec::new(), false);
        for finished in self.together(core, finished) {
            // A log that has no room has none for the next one either.
            if is_full {
                refused.push(finished);
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| conclude(core, &finished))) {
                Ok(Err(error)) if is_transient(&error) => {
                    core.note_trouble(format!("a run waits to be ended: {error}"));
                    is_full = matches!(error, CommitError::Log(_));
                    refused.push(finished);
                }
                Ok(ended) => self.take(ended),
                // To end it as failed waits for the disk: that is its owner's.
                Err(_) => refused.push(finished),
            }
        }
        refused
    }

    /// Ends those that can be ended together; answers the others.
    fn together(&mut self, core: &Arc<Core>, finished: Vec<Finished>) -> Vec<Finished> {
        let (commit, left) = end_together(core, finished);
        self.take(Ok(commit));
        left
    }

    /// Waits until all are durable; the first error, if there was one.
    pub fn settle(self, core: &Core) -> Result<(), CommitError> {
        if let Some(seq) = self.last {
            core.log.wait(seq)?;
        }
        self.failed.map_or(Ok(()), Err)
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
pub(crate) fn keep_time(core: &Arc<Core>, alarm: &Receiver<()>) {
    loop {
        let look = core.hands.look(core);
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
        let nanos = |left: Duration| i64::try_from(left.as_nanos()).unwrap_or(i64::MAX);
        let left = left.into_iter().chain(lease.map(nanos)).chain(look.map(nanos)).min();
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
                let again = Duration::from_millis(20);
                alarm.recv_timeout(look.map_or(again, |look| look.min(again)))
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
    /// Bytes of its outputs, about, where it may end in one record with others.
    fn plain_bytes(&self) -> Option<usize> {
        let outputs = self.result.as_ref().ok().filter(|outputs| outputs.is_plain())?;
        if self.run.has_reported() { None } else { Some(outputs.bytes()) }
    }

    fn report(&self) -> runs::Report<'_> {
        let Finished { run, worked, waited, took, .. } = self;
        let (worked, waited, took) = (worked.as_ref(), *waited, *took);
        runs::Report { run, worked, waited, took, outcome: "completed", text: String::new() }
    }
}

/// Runs the closure of bundles that were started together and not ended since, once what they read is visible; for another
/// process once it is durable.
fn execute(
    core: &Arc<Core>,
    mut batch: Vec<Started>,
    snapshot: &Snapshot,
) -> Result<Vec<Finished>, CommitError> {
    let Some(first) = batch.first() else { return Ok(Vec::new()) };
    let (producer, epoch) = (first.producer, first.epoch);
    // While the log is being written, as far as it is.
    let (definition, runs) = assemble(core, producer, &mut batch, snapshot)?;
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let closure = {
        let closures = core.closures.read().unwrap_or_else(PoisonError::into_inner);
        closures.get(&producer).cloned()
    };
    if closure.is_none() {
        core.note_trouble(format!(
            "producer {producer} has work, and nothing that does it; register it again"
        ));
    }
    match closure.as_ref().is_some_and(Work::leaves_process) {
        true => core.log.wait(snapshot.seq())?,
        false => core.log.wait_visible(snapshot.seq())?,
    }
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

/// Ends those of several runs of a producer that gave cells alone in one transaction, as long as their outputs fit into its
/// record; answers the runs that are left. Where it cannot be done, each learns by itself what is wrong.
fn end_together(core: &Arc<Core>, finished: Vec<Finished>) -> (Option<Commit>, Vec<Finished>) {
    let mut room = core.record_bytes_max / 4;
    let fits = |finished: &Finished| {
        let left = finished.plain_bytes().and_then(|bytes| room.checked_sub(bytes + END_BYTES));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let (plain, mut left): (Vec<Finished>, Vec<Finished>) = finished.into_iter().partition(fits);
    if plain.len() < 2 {
        left.extend(plain);
        return (None, left);
    }
    let (commit, alone) = match catch_unwind(AssertUnwindSafe(|| end_plain(core, &plain))) {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) | Err(_) => (None, plain.iter().map(|finished| finished.started.run).collect()),
    };
    left.extend(plain.into_iter().filter(|finished| alone.contains(&finished.started.run)));
    (commit, left)
}

/// Answers the runs too that could not be among them.
fn end_plain(
    core: &Arc<Core>,
    finished: &[Finished],
) -> Result<(Option<Commit>, BTreeSet<RunId>), CommitError> {
    let folder = core.enter()?;
    let (mut operations, mut pins) = (Box::<Operations>::default(), core.pending.pin());
    let (mut rows, mut ends, mut alone) = (Batch::new(), Vec::new(), BTreeSet::new());
    let mut slots = Slots::default();
    let now = core.options.clock.now();
    let in_flight: BTreeSet<RunId> = {
        let state = core.state();
        let runs = finished.iter().map(|finished| finished.started.run);
        runs.filter(|run| state.graph.bundle_of_run(*run).is_some()).collect()
    };
    for finished in finished {
        let Finished { started, result: Ok(outputs), .. } = finished else { continue };
        if !in_flight.contains(&started.run) {
            alone.insert(started.run);
            continue;
        }
        let mut given = Operations { inline_bytes: operations.inline_bytes, ..Operations::default() };
        match writes(core, finished, outputs, &mut slots, &mut given, &mut pins) {
            Ok(writes) => {
                operations.inline_bytes = given.inline_bytes;
                operations.objects.append(&mut given.objects);
                let (run, epoch, reads) = (started.run, started.epoch, Vec::new());
                ends.push(Event::End { run, epoch, outcome: Outcome::Data(writes), reads });
                rows.append(finished.report().row(now))?;
            }
            Err(_) => drop(alone.insert(started.run)),
        }
    }
    if ends.is_empty() {
        return Ok((None, alone));
    }
    core.prepare_data(rows.appends, Vec::new(), &mut operations, &mut pins)?;
    operations.event = Some(Event::Several(ends));
    Ok((Some(finish(core, folder, core.encode(operations, pins)?)?), alone))
}

/// Sequences the end of a run: its outputs, or as a failure why they cannot be; nothing where that came too late. An error
/// means that it is not ended: the disk refuses, or nothing more can be committed.
fn conclude(core: &Arc<Core>, finished: &Finished) -> Result<Option<Commit>, CommitError> {
    let Finished { started, definition, run, result, .. } = finished;
    let mut report = finished.report();
    // What it has read is dropped where its outputs were refused: they may close a cycle.
    let mut reads = Vec::new();
    let ended = match result {
        Ok(outputs) => match end_again(core, finished, outputs, &report) {
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

/// The runs of a batch, of which all is known but what they give. Those that were cut off since are taken out of it.
fn assemble(
    core: &Arc<Core>,
    producer: ProducerId,
    batch: &mut Vec<Started>,
    snapshot: &Snapshot,
) -> Result<(Arc<ProducerDefinition>, Vec<Run>), CommitError> {
    let state = core.state();
    batch.retain(|started| state.graph.bundle_of_run(started.run).is_some());
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

/// As [`end`], again where others changed what it was prepared from.
fn end_again(
    core: &Arc<Core>,
    finished: &Finished,
    outputs: &Outputs,
    report: &runs::Report<'_>,
) -> Result<Commit, CommitError> {
    for _ in 1..CONFLICT_RETRIES {
        match end(core, finished, outputs, report) {
            Err(error) if error.is_overtaken() => {}
            ended => return ended,
        }
    }
    end(core, finished, outputs, report)
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
    // Before large outputs are written, which nothing would name then: this comes back until there is room.
    if !outputs.is_plain() || outputs.bytes() > core.inline_bytes_max() {
        drop(core.admit(START_BYTES_MAX)?);
    }
    outputs.batch.check()?;
    let mut operations = Box::<Operations>::default();
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
    let (operations, pins) = (Box::<Operations>::default(), core.pending.pin());
    let event = Event::End { run: started.run, epoch: started.epoch, outcome, reads };
    let prepared = prepare_end(core, event, operations, report, pins)?;
    finish(core, folder, prepared)
}

fn prepare_end<'a>(
    core: &'a Arc<Core>,
    event: Event,
    mut operations: Box<Operations>,
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
    prepared.here = OWN.with_borrow(Option::is_some);
    let admission = core.admit(prepared.payload.len() as u64)?;
    let sequenced = core.sequence_and(prepared, admission, Durability::Sync, |_| Ok(()), |_, _, _| {});
    let Sequenced { commit, own: made, .. } = sequenced?;
    drop(folder);
    OWN.with_borrow_mut(|own| own.as_mut().map(|own| own.extend(made)));
    Ok(commit)
}
