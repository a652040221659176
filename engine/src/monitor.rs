//! Monitored values: scalars, arrays and histograms by name and step, which become rows of a series.
//!
//! Who records pushes into columns of its own; a thread of the database commits them. So a value costs some tens of nanoseconds, and
//! a process that dies loses those that were not handed over yet, of a fifth of a second at most.

mod histogram;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError, bounded};
use underbelly_query::Schema;
use underbelly_storage::{Column, ColumnType, Columns, Timestamp, Value};

use crate::batch::Batch;
use crate::core::Core;
use crate::database::Database;
use crate::durability::Durability;
use crate::error::{CommitError, ReadError};
use crate::variables::{Scope, UnloggedVar};

pub use histogram::Histogram;

/// Values that are handed over at once.
const ROWS_MAX: usize = 4_096;
/// Bytes of arrays and histograms that are handed over at once.
const DATA_BYTES_MAX: usize = 4 << 20;
/// How long after a hand-over the next value brings another, nanoseconds.
const AGE_MAX_NS: u64 = 200_000_000;
/// The least number of values for which there is room.
const ROOM_MIN: usize = 16;
/// Rooms that a monitor keeps for hand-overs to come.
const ROOM_KEPT: usize = 4;
/// Hand-overs that wait, beyond which who records commits for himself: nobody's memory grows with what the disk does not take.
const UNDER_WAY_MAX: usize = 16;

/// A value that is monitored.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A number.
    Scalar(f64),
    /// Numbers.
    Array(Vec<f64>),
    /// A distribution.
    Histogram(Histogram),
}

impl Sample {
    /// The number that stands for it: the mean of several.
    fn number(&self) -> f64 {
        match self {
            Sample::Scalar(value) => *value,
            Sample::Array(values) => values.iter().sum::<f64>() / values.len() as f64,
            Sample::Histogram(histogram) => histogram.mean(),
        }
    }

    /// The length of what is stored beside its number.
    fn bytes(&self) -> usize {
        match self {
            Sample::Scalar(_) => 0,
            Sample::Array(values) => 8 * values.len(),
            Sample::Histogram(histogram) => histogram.byte_size(),
        }
    }

    /// What is stored beside its number: what it is, and its bytes.
    fn stored(&self) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Sample::Scalar(_) => None,
            Sample::Array(values) => {
                Some(("array", values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            }
            Sample::Histogram(histogram) => Some(("histogram", histogram.to_bytes())),
        }
    }
}

impl From<f64> for Sample {
    #[inline]
    fn from(value: f64) -> Sample {
        Sample::Scalar(value)
    }
}

impl From<Vec<f64>> for Sample {
    fn from(values: Vec<f64>) -> Sample {
        Sample::Array(values)
    }
}

impl From<Histogram> for Sample {
    fn from(histogram: Histogram) -> Sample {
        Sample::Histogram(histogram)
    }
}

/// A name that was recorded.
struct Named {
    name: Arc<str>,
    /// What shows its newest value, unless no variable may have that name or it is of another type.
    shown: Option<UnloggedVar<f64>>,
    newest: Newest,
    /// Its place among the names of the rows that are not handed over; none where it is not there.
    at: Option<u32>,
}

/// The newest value of a name.
enum Newest {
    Number(f64),
    /// At this place of [`Rows::data`].
    Data(usize),
}

struct Rows {
    times: Vec<Timestamp>,
    /// Places among the names that were touched.
    names: Vec<u32>,
    steps: Vec<i64>,
    /// Of an array or histogram 0, until its number is found aside: who records does not go through all of it.
    values: Vec<f64>,
    /// Arrays and histograms, with their rows.
    data: Vec<(usize, Sample)>,
    data_bytes: usize,
}

impl Rows {
    fn with_room(rows: usize) -> Rows {
        Rows {
            times: Vec::with_capacity(rows),
            names: Vec::with_capacity(rows),
            steps: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows),
            data: Vec::new(),
            data_bytes: 0,
        }
    }

    /// The room alone.
    fn emptied(mut self) -> Rows {
        self.times.clear();
        self.names.clear();
        self.steps.clear();
        self.values.clear();
        self.data.clear();
        self.data_bytes = 0;
        self
    }

    fn push(&mut self, row: usize, sample: Sample) {
        self.data_bytes += sample.bytes();
        self.data.push((row, sample));
    }
}

/// Takes values of one thread and makes rows of a series of them: at the time of the clock, with the key `name` and the fields
/// `step` and `value`; of an array or histogram the value is the mean, `kind` says which it is, and `data` holds its numbers
/// or [`Histogram::to_bytes`]. The newest value of `loss` in the series `training` is the variable `training/loss`, too, which is in no log
/// and which `ubctl var watch` draws; a name that is longer than 255 bytes with its series is not shown. Values are handed over once
/// there are many, and with the first that comes a fifth of a second or more after the hand-over before; the others wait for
/// such a one, a flush or the drop. So who records several names at each step, and steps seldom, flushes after each. What
/// is refused is kept for the next [`Monitor::flush`], and [`Status::trouble`](crate::Status::trouble) tells of it.
pub struct Monitor {
    core: Arc<Core>,
    series: Arc<str>,
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Named>,
    /// Names that were recorded since the last hand-over, by their numbers.
    touched: Vec<u32>,
    /// The name that was recorded last.
    newest: u32,
    rows: Rows,
    /// When rows were handed over last.
    handed_at: Option<Timestamp>,
    outside: Arc<Outside>,
    /// Why a name was left out.
    left_out: Option<ReadError>,
}

/// What of a monitor is not with it.
#[derive(Default)]
struct Outside {
    /// Whether the monitor holds rows that are not handed over, as the close of the database asks.
    has_rows: AtomicBool,
    handed: Mutex<HandedOver>,
    /// A hand-over ended.
    ended: Condvar,
}

#[derive(Default)]
struct HandedOver {
    /// Hand-overs that the database's thread has.
    under_way: usize,
    /// What a commit refused, until one takes it.
    refused: VecDeque<Job>,
    /// Room that a hand-over had and that the next one takes: new memory costs more than what is put into it.
    room: Vec<Rows>,
}

impl Outside {
    fn handed(&self) -> MutexGuard<'_, HandedOver> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether rows are in no commit.
    fn is_unsaved(&self) -> bool {
        self.has_rows.load(Ordering::Acquire) || !self.handed().refused.is_empty()
    }

    /// Takes back what was refused, once nothing is under way.
    fn come_back(&self) -> VecDeque<Job> {
        let is_under_way = |handed: &mut HandedOver| handed.under_way > 0;
        let handed = self.ended.wait_while(self.handed(), is_under_way);
        let mut handed = handed.unwrap_or_else(PoisonError::into_inner);
        // Until all is committed or refused again, a close that comes between tells of it.
        if !handed.refused.is_empty() {
            self.has_rows.store(true, Ordering::Release);
        }
        std::mem::take(&mut handed.refused)
    }

    /// Takes back the room of what is committed.
    fn give_back(&self, job: Job) {
        let room = job.rows.emptied();
        let mut handed = self.handed();
        if handed.room.len() < ROOM_KEPT {
            handed.room.push(room);
        }
    }

    /// Keeps what a commit refused. Nobody's memory grows with what is not taken, so the oldest goes then.
    fn keep(&self, core: &Core, job: Job, error: &CommitError) {
        let mut handed = self.handed();
        if handed.refused.len() == UNDER_WAY_MAX
            && let Some(lost) = handed.refused.pop_front()
        {
            let (rows, series) = (lost.rows.times.len(), &lost.series);
            core.note_trouble(format!("{rows} monitored values of series {series:?} are lost: {error}"));
        }
        handed.refused.push_back(job);
    }
}

/// A hand-over that the database's thread has; at its end the monitor knows, however it ends.
struct UnderWay {
    outside: Arc<Outside>,
    job: Option<Job>,
}

impl UnderWay {
    fn begin(outside: &Arc<Outside>, job: Job) -> Box<UnderWay> {
        outside.handed().under_way += 1;
        Box::new(UnderWay { outside: outside.clone(), job: Some(job) })
    }

    fn commit(&mut self, core: &Core) {
        let Some(job) = &self.job else { return };
        let done = job.commit(core);
        // Where that panics it is still there, and is kept.
        let Some(job) = self.job.take() else { return };
        match done {
            Ok(()) => self.outside.give_back(job),
            Err(error) => {
                note(core, &job.series, &error);
                self.outside.keep(core, job, &error);
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut handed = self.outside.handed();
        handed.under_way -= 1;
        // Nobody committed it to its end, so that the next flush does.
        handed.refused.extend(self.job.take());
        drop(handed);
        self.outside.ended.notify_all();
    }
}

impl Monitor {
    fn id(&mut self, name: &str) -> Option<u32> {
        // Mostly one name, or a few in turn.
        let last = self.names.len().saturating_sub(1);
        let next = if self.newest as usize >= last { 0 } else { self.newest + 1 };
        for id in [self.newest, next] {
            if self.names.get(id as usize).is_some_and(|named| *named.name == *name) {
                self.newest = id;
                return Some(id);
            }
        }
        let id = self.id_of(name)?;
        self.newest = id;
        Some(id)
    }

    fn id_of(&mut self, name: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let variable = format!("{}/{name}", self.series);
        if let Some(problem) = crate::series::name_problem("monitored value", name) {
            let error = ReadError::Name { what: "monitored value", name: name.to_string(), problem };
            if self.left_out.is_none() {
                self.core.note_trouble(format!("a value of series {:?} is left out: {error}", self.series));
            }
            self.left_out = Some(error);
            return None;
        }
        let shown = UnloggedVar::of(&self.core, &Scope::Global, &variable);
        if let Err(error @ ReadError::VariableType { .. }) = &shown {
            self.core
                .note_trouble(format!("monitored values of {variable:?} are kept and not shown: {error}"));
        }
        let shown = shown.ok();
        let (id, name): (u32, Arc<str>) = (self.names.len() as u32, name.into());
        self.ids.insert(name.clone(), id);
        self.names.push(Named { name, shown, newest: Newest::Number(f64::NAN), at: None });
        Some(id)
    }

    /// Takes a value. What has a name that is empty, longer than 255 bytes or not printable is left out, as
    /// [`Monitor::flush`] tells.
    #[inline]
    pub fn record(&mut self, name: &str, step: i64, value: impl Into<Sample>) {
        let Some(id) = self.id(name) else { return };
        let row = self.rows.times.len();
        let (number, newest) = match value.into() {
            Sample::Scalar(value) => (value, Newest::Number(value)),
            sample => {
                let at = self.rows.data.len();
                self.rows.push(row, sample);
                (0.0, Newest::Data(at))
            }
        };
        let now = self.core.options.clock.now();
        if row == 0 {
            self.outside.has_rows.store(true, Ordering::Release);
        }
        self.rows.times.push(now);
        self.rows.steps.push(step);
        self.rows.values.push(number);
        if let Some(named) = self.names.get_mut(id as usize) {
            named.newest = newest;
            let at = named.at.unwrap_or_else(|| {
                let at = self.touched.len() as u32;
                self.touched.push(id);
                named.at = Some(at);
                at
            });
            self.rows.names.push(at);
        }
        // A clock that was set back or ahead lets rows go early. One that comes alone waits for no other.
        let is_old = self.handed_at.is_none_or(|handed| now.0.abs_diff(handed.0) >= AGE_MAX_NS);
        if row + 1 >= ROWS_MAX || self.rows.data_bytes >= DATA_BYTES_MAX || is_old {
            self.handed_at = Some(now);
            self.hand_over();
        }
    }

    /// What was recorded, with its names. Their newest values are shown.
    fn take(&mut self) -> Job {
        let mut names = Vec::with_capacity(self.touched.len());
        for id in self.touched.drain(..) {
            let Some(named) = self.names.get_mut(id as usize) else { continue };
            named.at = None;
            let newest = match named.newest {
                Newest::Number(number) => Some(number),
                Newest::Data(at) => self.rows.data.get(at).map(|(_, sample)| sample.number()),
            };
            let _ = named.shown.as_ref().zip(newest).map(|(shown, newest)| shown.set(newest));
            names.push(named.name.clone());
        }
        let room = self.rows.times.len().next_power_of_two().clamp(ROOM_MIN, ROWS_MAX);
        let used = self.outside.handed().room.pop();
        let rows = std::mem::replace(&mut self.rows, used.unwrap_or_else(|| Rows::with_room(room)));
        Job { series: self.series.clone(), names, rows }
    }

    /// Lets a thread of the database make rows of the series, so that the caller waits for nothing, unless that one is far
    /// behind.
    #[cold]
    fn hand_over(&mut self) {
        let job = self.take();
        let job = UnderWay::begin(&self.outside, job);
        if let Err(mut job) = self.core.handed.send(&self.core, job) {
            job.commit(&self.core);
        }
        self.outside.has_rows.store(false, Ordering::Release);
    }

    /// Returns once all that was recorded is committed and visible. What is refused is kept for the next call, the newest
    /// sixteen hand-overs of it.
    ///
    /// # Errors
    /// As [`Database::commit`], of the first that was refused; all others are committed. [`CommitError::Read`] with [`ReadError::Name`] where all that is committed, and values were
    /// left out since the last call, which names the series and one of them.
    pub fn flush(&mut self) -> Result<(), CommitError> {
        let mut jobs = self.outside.come_back();
        if !self.rows.times.is_empty() {
            jobs.push_back(self.take());
        }
        let mut refused = None;
        for job in jobs {
            match job.commit(&self.core) {
                Ok(()) => self.outside.give_back(job),
                Err(error) => {
                    self.outside.keep(&self.core, job, &error);
                    refused = refused.or(Some(error));
                }
            }
        }
        self.outside.has_rows.store(false, Ordering::Release);
        match refused {
            Some(error) => Err(error),
            None => self.left_out.take().map_or(Ok(()), |error| Err(error.into())),
        }
    }
}

/// What was recorded, on its way to the log.
struct Job {
    series: Arc<str>,
    names: Vec<Arc<str>>,
    rows: Rows,
}

impl Job {
    fn commit(&self, core: &Core) -> Result<(), CommitError> {
        core.commit(batch_of(self.series.clone(), &self.names, &self.rows)?).map(drop)
    }
}

/// The thread that commits what monitors hand over. It is none of the pool's: commits may have to wait for a checkpoint, which
/// needs those.
#[derive(Default)]
enum Thread {
    #[default]
    Unused,
    Runs(Sender<Box<UnderWay>>, JoinHandle<()>),
    /// The database is being closed.
    Over,
}

/// Rows that are on their way from monitors to the log, by which the close waits for them.
#[derive(Default)]
pub(crate) struct Handed {
    thread: Mutex<Thread>,
    /// What is not with each monitor, with its series.
    monitors: Mutex<Vec<(Weak<Outside>, Arc<str>)>>,
}

impl Handed {
    /// Notes a monitor of a series.
    fn begin(&self, series: &Arc<str>) -> Arc<Outside> {
        let outside = Arc::new(Outside::default());
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        if monitors.len() == monitors.capacity() {
            monitors.retain(|(outside, _)| outside.strong_count() > 0);
        }
        monitors.push((Arc::downgrade(&outside), series.clone()));
        outside
    }

    /// The monitors that hold rows.
    pub(crate) fn unsaved(&self) -> Vec<String> {
        let monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let unsaved = monitors
            .iter()
            .filter(|(outside, _)| outside.upgrade().is_some_and(|outside| outside.is_unsaved()));
        unsaved.map(|(_, series)| format!("a monitor of series {series:?}")).collect()
    }

    /// Hands over; gives back where there is no such thread, or it has too much to do.
    fn send(&self, core: &Arc<Core>, job: Box<UnderWay>) -> Result<(), Box<UnderWay>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*thread, Thread::Unused) && core.options.workers > 0 {
            let (send, jobs) = bounded::<Box<UnderWay>>(UNDER_WAY_MAX);
            let weak = Arc::downgrade(core);
            let serve = move || {
                while let Some((core, mut job)) =
                    jobs.recv().ok().and_then(|job| Some((weak.upgrade()?, job)))
                {
                    job.commit(&core);
                }
            };
            let builder = std::thread::Builder::new().name("underbelly-monitor".to_string());
            if let Ok(running) = builder.spawn(serve) {
                *thread = Thread::Runs(send, running);
            }
        }
        match &*thread {
            Thread::Runs(jobs, _) => jobs.try_send(job).map_err(TrySendError::into_inner),
            _ => Err(job),
        }
    }

    /// Returns when all that was handed over is committed, or refused and told. Nothing is handed over from now on.
    pub(crate) fn end(&self) {
        let thread =
            std::mem::replace(&mut *self.thread.lock().unwrap_or_else(PoisonError::into_inner), Thread::Over);
        if let Thread::Runs(jobs, running) = thread {
            drop(jobs);
            if running.thread().id() != std::thread::current().id() {
                let _ = running.join();
            }
        }
    }
}

/// The rows that a monitor recorded.
fn batch_of(series: Arc<str>, names: &[Arc<str>], rows: &Rows) -> Result<Batch, CommitError> {
    let name = |id: &u32| names.get(*id as usize).map_or("", |name| name);
    let mut values = rows.values.clone();
    for (row, sample) in &rows.data {
        if let Some(value) = values.get_mut(*row) {
            *value = sample.number();
        }
    }
    let mut columns = Columns::new()
        .with("name", rows.names.iter().map(name).collect::<Column>())?
        .with("step", Column::from(rows.steps.clone()))?
        .with("value", Column::from(values))?;
    if !rows.data.is_empty() {
        let (mut kinds, mut data) = (Column::new(ColumnType::Utf8), Column::new(ColumnType::Bytes));
        let mut given = rows.data.iter().peekable();
        for row in 0..rows.names.len() {
            let given = given.next_if(|(at, _)| *at == row);
            match given.and_then(|(_, sample)| sample.stored()) {
                Some((kind, bytes)) => {
                    kinds.push(&kind.into())?;
                    data.push(&Value::Bytes(bytes.as_slice().into()))?;
                }
                None => {
                    kinds.push_null();
                    data.push_null();
                }
            }
        }
        columns = columns.with("kind", kinds)?.with("data", data)?;
    }
    let mut batch = Batch::new();
    batch.append_columns(series, rows.times.clone(), columns, &["name"])?;
    batch.durability(Durability::Buffered);
    Ok(batch)
}

/// Tells what was refused. Of what the close left over the close tells.
fn note(core: &Core, series: &str, error: &CommitError) {
    if !matches!(error, CommitError::Closed) {
        core.note_trouble(format!(
            "monitored values of series {series:?} are not committed, and the next flush tries again: {error}"
        ));
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let Err(error) = self.flush() else { return };
        let rows: usize = self.outside.handed().refused.iter().map(|job| job.rows.times.len()).sum();
        if rows > 0 && !matches!(error, CommitError::Closed) {
            let series = &self.series;
            self.core.note_trouble(format!("{rows} monitored values of series {series:?} are lost: {error}"));
        }
    }
}

impl Database {
    /// Monitors values as rows of a series, for one thread; others have monitors of their own.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Database, Options, Scope, SimulatedDisk};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// let mut monitor = db.monitor("training")?;
    /// monitor.record("loss", 1, 0.7);
    /// monitor.record("weights", 1, vec![0.1, -0.2]);
    /// monitor.flush()?;
    /// assert_eq!(db.snapshot().series("training")?.count()?, 2);
    /// assert_eq!(db.unlogged_var::<f64>(&Scope::Global, "training/loss")?.get(), Some(0.7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Name`] where no series may have this name, or one of that name has rows that are none of monitors.
    pub fn monitor(&self, series: &str) -> Result<Monitor, ReadError> {
        let problem = match series.starts_with('_') {
            true => Some("begins with `_`, as the engine's own do"),
            false => crate::series::name_problem("series", series),
        };
        let problem =
            problem.or_else(|| self.snapshot().series(series).ok().and_then(|there| unfit(there.schema())));
        if let Some(problem) = problem {
            return Err(ReadError::Name { what: "series", name: series.to_string(), problem });
        }
        let series: Arc<str> = series.into();
        Ok(Monitor {
            core: self.core().clone(),
            ids: HashMap::new(),
            names: Vec::new(),
            touched: Vec::new(),
            newest: 0,
            rows: Rows::with_room(ROOM_MIN),
            handed_at: None,
            outside: self.core().handed.begin(&series),
            left_out: None,
            series,
        })
    }
}

/// Why a series that is there takes no rows of monitors.
fn unfit(schema: &Schema) -> Option<&'static str> {
    // A type that was defined and has no rows yet.
    if schema.columns.is_empty() {
        return None;
    }
    let is_of = |name: &str, wanted: ColumnType| {
        let column = schema.columns.iter().find(|column| *column.name == *name);
        column.is_none_or(|column| column.column_type == wanted)
    };
    let is_fit = schema.keys().map(|column| &*column.name).eq(["name"])
        && is_of("step", ColumnType::I64)
        && is_of("value", ColumnType::F64)
        && is_of("kind", ColumnType::Utf8)
        && is_of("data", ColumnType::Bytes);
    (!is_fit).then_some("has other keys or fields than rows of monitors; take another name")
}
