//! Monitored values: scalars, arrays and histograms by name and step, which become rows of a series.
//!
//! Who records pushes into columns of its own; a thread of the database commits them. So a value costs some tens of nanoseconds, and
//! a process that dies loses those that were not handed over yet, of a fifth of a second at most where it goes on recording.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

/// Values that are handed over at once.
const ROWS_MAX: usize = 4_096;
/// Bytes of arrays and histograms that are handed over at once.
const DATA_BYTES_MAX: usize = 4 << 20;
/// How old the first may become, nanoseconds.
const AGE_MAX_NS: u64 = 200_000_000;
/// Hand-overs that wait, beyond which who records commits for himself: nobody's memory grows with what the disk does not take.
const UNDER_WAY_MAX: usize = 16;
/// Parts into which a histogram cuts each doubling.
const PARTS: f64 = 8.0;

/// How often values fell where, in steps of an eighth of a doubling. Two are merged by adding them up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Counts of values by their place: that of 2^(n/8) to 2^((n+1)/8) is `n`, and of the negative ones apart.
    above: BTreeMap<i32, u64>,
    below: BTreeMap<i32, u64>,
    zeros: u64,
    sum: f64,
}

impl Histogram {
    /// One without values.
    pub fn new() -> Histogram {
        Histogram::default()
    }

    /// Takes a value; NaN is left out.
    pub fn add(&mut self, value: f64) {
        let place = |value: f64| (value.log2() * PARTS).floor().clamp(-1e6, 1e6) as i32;
        if value > 0.0 {
            *self.above.entry(place(value)).or_default() += 1;
        } else if value < 0.0 {
            *self.below.entry(place(-value)).or_default() += 1;
        } else if value == 0.0 {
            self.zeros += 1;
        } else {
            return;
        }
        self.sum += value;
    }

    /// Takes the values of another. Counts end at the greatest number.
    pub fn merge(&mut self, other: &Histogram) {
        let add = |count: &mut u64, more: u64| *count = count.saturating_add(more);
        other.above.iter().for_each(|(place, count)| add(self.above.entry(*place).or_default(), *count));
        other.below.iter().for_each(|(place, count)| add(self.below.entry(*place).or_default(), *count));
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.sum += other.sum;
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.above
            .values()
            .chain(self.below.values())
            .fold(self.zeros, |sum, count| sum.saturating_add(*count))
    }

    /// Their mean; NaN where there are none.
    pub fn mean(&self) -> f64 {
        self.sum / self.count() as f64
    }

    /// A value that a share of all is at most, within an eighth of a doubling; NaN where there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (share.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let middle = |place: &i32| ((f64::from(*place) + 0.5) / PARTS).exp2();
        let below = self.below.iter().rev().map(|(place, count)| (-middle(place), *count));
        let above = self.above.iter().map(|(place, count)| (middle(place), *count));
        let mut seen = 0;
        for (value, count) in below.chain([(0.0, self.zeros)]).chain(above) {
            seen = u64::saturating_add(seen, count);
            if count > 0 && seen >= wanted {
                return value;
            }
        }
        f64::NAN
    }

    /// As bytes: f64 sum, u64 zeros, then for each sign, the negative first, u32 how many places and each as i32 and u64 count.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.sum.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.zeros.to_le_bytes());
        for places in [&self.below, &self.above] {
            bytes.extend_from_slice(&(places.len() as u32).to_le_bytes());
            for (place, count) in places {
                bytes.extend_from_slice(&place.to_le_bytes());
                bytes.extend_from_slice(&count.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Histogram::to_bytes`] wrote; `None` for other bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<Histogram> {
        let (sum, bytes) = bytes.split_first_chunk::<8>()?;
        let (zeros, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut read = || {
            let (count, bytes) = rest.split_first_chunk::<4>()?;
            rest = bytes;
            let mut places = BTreeMap::new();
            for _ in 0..u32::from_le_bytes(*count) {
                let (place, bytes) = rest.split_first_chunk::<4>()?;
                let (count, bytes) = bytes.split_first_chunk::<8>()?;
                rest = bytes;
                places.insert(i32::from_le_bytes(*place), u64::from_le_bytes(*count));
            }
            Some(places)
        };
        let (below, above) = (read()?, read()?);
        let (zeros, sum) = (u64::from_le_bytes(*zeros), f64::from_le_bytes(*sum));
        rest.is_empty().then_some(Histogram { above, below, zeros, sum })
    }
}

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
    /// What shows its newest value, unless a variable of that name is of another type.
    shown: Option<UnloggedVar<f64>>,
    newest: f64,
    /// Its place among the names of the rows that are not handed over; none where it is not there.
    at: Option<u32>,
}

struct Rows {
    times: Vec<Timestamp>,
    /// Places among the names that were touched.
    names: Vec<u32>,
    steps: Vec<i64>,
    values: Vec<f64>,
    /// Arrays and histograms, with their rows and kinds.
    data: Vec<(usize, &'static str, Vec<u8>)>,
    data_bytes: usize,
}

impl Rows {
    fn with_room() -> Rows {
        Rows {
            times: Vec::with_capacity(ROWS_MAX),
            names: Vec::with_capacity(ROWS_MAX),
            steps: Vec::with_capacity(ROWS_MAX),
            values: Vec::with_capacity(ROWS_MAX),
            data: Vec::new(),
            data_bytes: 0,
        }
    }

    fn push(&mut self, row: usize, kind: &'static str, bytes: Vec<u8>) {
        self.data_bytes += bytes.len();
        self.data.push((row, kind, bytes));
    }
}

/// Takes values of one thread and makes rows of a series of them: at the time of the clock, with the key `name` and the fields
/// `step` and `value`; of an array or histogram the value is the mean, `kind` says which it is, and `data` holds its numbers
/// or [`Histogram::to_bytes`]. The newest value of each name is a variable that is in no log, too, which `ubctl var watch`
/// draws. Dropped, it hands over what it has.
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
    /// Whether there are rows that are not handed over, as the close of the database asks.
    holds: Arc<AtomicBool>,
    /// What a commit refused, until one takes it.
    refused: Vec<Job>,
    /// Why a name was left out.
    left_out: Option<ReadError>,
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
        let shown = match UnloggedVar::of(&self.core, &Scope::Global, name) {
            Ok(shown) => Some(shown),
            Err(ReadError::VariableType { .. }) => None,
            Err(error) => {
                if self.left_out.is_none() {
                    self.core.note_trouble(format!("a monitored value is left out: {error}"));
                }
                self.left_out = Some(error);
                return None;
            }
        };
        let (id, name): (u32, Arc<str>) = (self.names.len() as u32, name.into());
        self.ids.insert(name.clone(), id);
        self.names.push(Named { name, shown, newest: f64::NAN, at: None });
        Some(id)
    }

    /// Takes a value. What has a name that no variable may have is left out, as [`Monitor::flush`] tells.
    #[inline]
    pub fn record(&mut self, name: &str, step: i64, value: impl Into<Sample>) {
        let Some(id) = self.id(name) else { return };
        let row = self.rows.times.len();
        let number = match value.into() {
            Sample::Scalar(value) => value,
            Sample::Array(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.rows.push(row, "array", bytes);
                values.iter().sum::<f64>() / values.len() as f64
            }
            Sample::Histogram(histogram) => {
                self.rows.push(row, "histogram", histogram.to_bytes());
                histogram.mean()
            }
        };
        let now = self.core.options.clock.now();
        let first = self.rows.times.first().map_or(now.0, |first| first.0);
        if row == 0 {
            self.holds.store(true, Ordering::Release);
        }
        self.rows.times.push(now);
        self.rows.steps.push(step);
        self.rows.values.push(number);
        if let Some(named) = self.names.get_mut(id as usize) {
            named.newest = number;
            let at = named.at.unwrap_or_else(|| {
                let at = self.touched.len() as u32;
                self.touched.push(id);
                named.at = Some(at);
                at
            });
            self.rows.names.push(at);
        }
        // A clock that was set back or ahead lets rows go early.
        if row + 1 >= ROWS_MAX
            || self.rows.data_bytes >= DATA_BYTES_MAX
            || now.0.abs_diff(first) >= AGE_MAX_NS
        {
            self.hand_over();
        }
    }

    /// What was recorded, with its names. Their newest values are shown.
    fn take(&mut self) -> Job {
        let mut names = Vec::with_capacity(self.touched.len());
        for id in self.touched.drain(..) {
            let Some(named) = self.names.get_mut(id as usize) else { continue };
            named.at = None;
            let _ = named.shown.as_ref().map(|shown| shown.set(named.newest));
            names.push(named.name.clone());
        }
        let rows = std::mem::replace(&mut self.rows, Rows::with_room());
        Job { series: self.series.clone(), names, rows }
    }

    /// Lets a thread of the database make rows of the series, so that the caller waits for nothing, unless that one is far
    /// behind.
    #[cold]
    fn hand_over(&mut self) {
        let job = Box::new(self.take());
        let sent = self.core.handed.send(&self.core, job);
        self.holds.store(!self.refused.is_empty(), Ordering::Release);
        if let Err(job) = sent {
            note(&self.core, job.commit(&self.core));
        }
    }

    /// Commits what was recorded and not handed over; visible on return. What is refused is kept for the next call.
    ///
    /// # Errors
    /// As [`Database::commit`]. [`CommitError::Read`] with [`ReadError::Name`] where all that is committed, and values were
    /// left out since the last call since no variable may have their name.
    pub fn flush(&mut self) -> Result<(), CommitError> {
        if !self.rows.times.is_empty() {
            let job = self.take();
            self.refused.push(job);
        }
        while let Some(job) = self.refused.first() {
            job.commit(&self.core)?;
            self.refused.remove(0);
        }
        self.holds.store(false, Ordering::Release);
        self.left_out.take().map_or(Ok(()), |error| Err(error.into()))
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
    Runs(Sender<Box<Job>>, JoinHandle<()>),
    /// The database is being closed.
    Over,
}

/// Rows that are on their way from monitors to the log, by which the close waits for them.
#[derive(Default)]
pub(crate) struct Handed {
    thread: Mutex<Thread>,
    /// Of each monitor whether it holds rows, with its series.
    monitors: Mutex<Vec<(Weak<AtomicBool>, Arc<str>)>>,
}

impl Handed {
    /// Notes a monitor of a series; answers where it is to say whether it holds rows.
    fn begin(&self, series: &Arc<str>) -> Arc<AtomicBool> {
        let holds = Arc::new(AtomicBool::new(false));
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        if monitors.len() == monitors.capacity() {
            monitors.retain(|(holds, _)| holds.strong_count() > 0);
        }
        monitors.push((Arc::downgrade(&holds), series.clone()));
        holds
    }

    /// A monitor that holds rows.
    pub(crate) fn unsaved(&self) -> Option<CommitError> {
        let monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsaved = monitors
            .iter()
            .filter(|(holds, _)| holds.upgrade().is_some_and(|holds| holds.load(Ordering::Acquire)));
        let what = |(_, series): &(_, Arc<str>)| format!("a monitor of series {series:?}");
        unsaved.next().map(|monitor| CommitError::Unsaved { what: what(monitor) })
    }

    /// Hands over; gives back where there is no such thread, or it has too much to do.
    fn send(&self, core: &Arc<Core>, job: Box<Job>) -> Result<(), Box<Job>> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*thread, Thread::Unused) && core.options.workers > 0 {
            let (send, jobs) = bounded::<Box<Job>>(UNDER_WAY_MAX);
            let weak = Arc::downgrade(core);
            let serve = move || {
                while let Some((core, job)) = jobs.recv().ok().and_then(|job| Some((weak.upgrade()?, job))) {
                    note(&core, job.commit(&core));
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
    let mut columns = Columns::new()
        .with("name", rows.names.iter().map(name).collect::<Column>())?
        .with("step", Column::from(rows.steps.clone()))?
        .with("value", Column::from(rows.values.clone()))?;
    if !rows.data.is_empty() {
        let (mut kinds, mut data) = (Column::new(ColumnType::Utf8), Column::new(ColumnType::Bytes));
        let mut given = rows.data.iter().peekable();
        for row in 0..rows.names.len() {
            match given.next_if(|(at, ..)| *at == row) {
                Some((_, kind, bytes)) => {
                    kinds.push(&(*kind).into())?;
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

fn note(core: &Core, done: Result<(), CommitError>) {
    match done {
        Ok(()) | Err(CommitError::Closed) => {}
        Err(error) => core.note_trouble(format!("monitored values were not kept: {error}")),
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let done = self.flush();
        note(&self.core, done);
    }
}

impl Database {
    /// Monitors values as rows of a series, for one thread; others have monitors of their own.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use underbelly::{Database, Options, SimulatedDisk};
    /// # let db = Database::create_on(Arc::new(SimulatedDisk::new()), Options::default())?;
    /// let mut monitor = db.monitor("training")?;
    /// monitor.record("loss", 1, 0.7);
    /// monitor.record("weights", 1, vec![0.1, -0.2]);
    /// monitor.flush()?;
    /// assert_eq!(db.snapshot().series("training")?.count()?, 2);
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
            rows: Rows::with_room(),
            holds: self.core().handed.begin(&series),
            refused: Vec::new(),
            left_out: None,
            series,
        })
    }
}

/// Why a series that is there takes no rows of monitors.
fn unfit(schema: &Schema) -> Option<&'static str> {
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
