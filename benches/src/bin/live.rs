//! How long a change of a live model holds its caller up while many are saved beside it, and what a monitored value costs:
//! `cargo run --release -p underbelly-benches --bin live [MODELS [SECONDS]]`; 10,000 models of 100 KB and 30 seconds unless
//! given.
//!
//! Two threads own the models, one half each: of these every second one is under a lock that a thread of the database takes.
//! One in a hundred changes in each interval of a second, evenly spread. Between two changes the same is done to plain
//! bytes, which tells what the machine does to a thread that has no database. At the end each model is read as it was saved:
//! where a change is missing, the program ends with 1.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use underbelly::{CommitError, Database, Histogram, LiveModel, LockedModel, Metadata, Model, Parts, Sample};
use underbelly_benches::figure::median;
use underbelly_benches::{Failed, or_exit, place};

const MODELS: usize = 10_000;
const BYTES: usize = 100_000;
const SECONDS: u64 = 30;
const INTERVAL: Duration = Duration::from_secs(1);
const THREADS: usize = 2;
/// Monitored values of a round.
const VALUES: i64 = 4_000_000;
const ROUNDS: usize = 5;
/// Monitored values in a second, of a round with pauses.
const A_SECOND: i64 = 1_000_000;
/// Numbers of an array.
const NUMBERS: usize = 16;
/// Places of a histogram that have values.
const PLACES: i32 = 64;

fn main() {
    let argument = |at: usize| std::env::args().nth(at).map(|text| text.parse::<u64>()).transpose();
    let given = argument(1).and_then(|models| Ok((models, argument(2)?)));
    let figures = given.map_err(Failed::from).and_then(|(models, seconds)| {
        figures(models.map_or(MODELS, |models| models as usize), seconds.unwrap_or(SECONDS))
    });
    or_exit(figures);
}

fn figures(models: usize, seconds: u64) -> Result<(), Failed> {
    let scratch = place::scratch()?;
    println!("folder: {} ({})", scratch.path().display(), place::file_system(scratch.path()));
    monitor(&Database::create(scratch.path().join("monitor"))?)?;
    live(&Database::create(scratch.path().join("live"))?, models, seconds)
}

/// Nanoseconds that one call of many takes.
fn each(count: i64, mut call: impl FnMut(i64)) -> f64 {
    let began = Instant::now();
    (0..count).for_each(&mut call);
    began.elapsed().as_nanos() as f64 / count as f64
}

/// How long this thread had a core.
fn on_core() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The same of calls of which `a_second` come in a second, so that what is done for them elsewhere keeps up, with values made just
/// before, which are in the nearest cache as those of a caller are. First the time that the thread had a core, then all of it,
/// to which threads add that were woken and took the core.
fn each_paced<T>(a_second: i64, value: impl Fn() -> T, mut call: impl FnMut(i64, T)) -> [f64; 2] {
    const PAUSE_EVERY: i64 = 4_096;
    const MADE: i64 = 256;
    let begin = Instant::now();
    let (mut here, mut all) = (Duration::ZERO, Duration::ZERO);
    for first in (0..a_second).step_by(MADE as usize) {
        if first % PAUSE_EVERY == 0 {
            let due = Duration::from_secs_f64(first as f64 / a_second as f64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
        let values: Vec<T> = (0..MADE).map(|_| value()).collect();
        let (began, had) = (Instant::now(), on_core());
        (first..).zip(values).for_each(|(step, value)| call(step, value));
        here += on_core().saturating_sub(had);
        all += began.elapsed();
    }
    [here, all].map(|took| took.as_nanos() as f64 / a_second as f64)
}

/// The figures of several rounds, for people.
fn shown(rounds: &[[f64; 2]], a_second: i64) -> String {
    let of = |figure: usize| median(rounds.iter().map(|round| round[figure]).collect());
    format!("{:.0} ns on the caller's core at {a_second} a second ({:.0} by the clock)", of(0), of(1))
}

fn monitor(db: &Database) -> Result<(), Failed> {
    let names: Vec<String> = (0..10).map(|n| format!("gauge{n}")).collect();
    for (what, of) in [("one name", 1), ("ten names in turn", 10)] {
        let mut monitor = db.monitor("training")?;
        let (mut paced, mut rounds) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut record = |step: i64, value: f64| {
                let name = names.get(step as usize % of).map_or("", String::as_str);
                monitor.record(name, step, value);
            };
            paced.push(each_paced(A_SECOND, || 0.5, &mut record));
            rounds.push(each(VALUES / ROUNDS as i64, |step| record(step, step as f64)));
            monitor.flush()?;
        }
        println!(
            "a monitored value, {what}: {}, {:.0} ns without a pause",
            shown(&paced, A_SECOND),
            median(rounds)
        );
    }
    let mut histogram = Histogram::new();
    // Eight places are a doubling.
    (0..PLACES).for_each(|place| histogram.add((f64::from(place) / 8.0).exp2()));
    let several = [
        (format!("an array of {NUMBERS} numbers"), Sample::Array(vec![0.5; NUMBERS])),
        (format!("a histogram of {PLACES} places"), Sample::Histogram(histogram)),
    ];
    let a_second = A_SECOND / 10;
    for (what, sample) in several {
        // Nothing is left to do of what was recorded before.
        db.checkpoint()?;
        let mut monitor = db.monitor("training")?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let record = |step, sample| monitor.record("several", step, sample);
            rounds.push(each_paced(a_second, || sample.clone(), record));
            monitor.flush()?;
        }
        println!("a monitored value, {what}: {}", shown(&rounds, a_second));
    }
    Ok(())
}

enum Live {
    Owned(LiveModel<Vec<u8>>),
    Locked(LockedModel<Vec<u8>>),
}

/// A live model and what it holds.
struct Changed {
    live: Live,
    /// The step of its last change, which says all bytes.
    step: u64,
    changes: u64,
}

fn restore(model: Option<&Model>) -> Result<Vec<u8>, CommitError> {
    match model {
        Some(model) => Ok(model.tensor("weights")?.data.to_vec()),
        None => Ok(vec![0; BYTES]),
    }
}

fn serialise(weights: &[u8]) -> Result<Parts, CommitError> {
    Ok(Parts::new().with("weights", weights))
}

/// Another content than before, as a step of learning leaves it.
fn learn(weights: &mut [u8], step: u64) {
    let mut noise = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in weights.as_chunks_mut::<8>().0 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        *word = noise.to_le_bytes();
    }
}

fn metadata(n: usize) -> Metadata {
    Metadata::new("live").with("n", n as i64)
}

impl Changed {
    fn change(&mut self, step: u64) -> Result<(), CommitError> {
        match &mut self.live {
            Live::Owned(live) => live.change(|weights| learn(weights, step)),
            Live::Locked(live) => live.change(|weights| learn(weights, step))?,
        }
        (self.step, self.changes) = (step, self.changes + 1);
        Ok(())
    }
}

fn live(db: &Database, models: usize, seconds: u64) -> Result<(), Failed> {
    let began = Instant::now();
    let mut all = Vec::with_capacity(models);
    for n in 0..models {
        let settings = db.live_model(metadata(n)).every(INTERVAL).keep_last(2);
        let live = match n % 2 {
            0 => Live::Owned(settings.start(restore, |weights| serialise(weights))?),
            _ => Live::Locked(settings.start_locked(restore, |weights| serialise(weights))?),
        };
        let mut model = Changed { live, step: 0, changes: 0 };
        model.change(n as u64 + 1)?;
        all.push(model);
    }
    println!("{models} models of {BYTES} bytes began in {:.1} s", began.elapsed().as_secs_f64());
    // What is changed at the begin is saved before it is measured.
    let is_saved = || db.live_models().iter().filter(|live| live.saved_changes == live.changes).count();
    while is_saved() < models / 2 {
        if began.elapsed() > Duration::from_secs(120) {
            return Err("half of the models were not saved within two minutes".into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let head = db.head_seq();
    let share = models.div_ceil(THREADS).max(1);
    let mut parts: Vec<&mut [Changed]> = all.chunks_mut(share).collect();
    let measured = std::thread::scope(|scope| {
        let threads: Vec<_> =
            parts.iter_mut().map(|part| scope.spawn(move || change(part, seconds))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(CommitError::Closed)))
            .collect::<Vec<_>>()
    });
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for thread in measured {
        let (changes, beside) = thread?;
        ours.extend(changes);
        plain.extend(beside);
    }
    let pending = db.live_models().iter().map(|live| live.changes - live.saved_changes).sum::<u64>();
    print("a change of a live model", ours);
    print("the same of plain bytes", plain);
    println!("{} transactions in {seconds} s, {pending} changes not saved yet", db.head_seq() - head);
    if let Some(trouble) = db.live_models().into_iter().find_map(|live| live.trouble) {
        return Err(trouble.into());
    }
    let began = Instant::now();
    let mut held = Vec::with_capacity(models);
    for Changed { live, step, changes } in all {
        // One under a lock was saved before it changed again, so it has a version for that.
        let is_locked = matches!(live, Live::Locked(_));
        held.push((step, if is_locked { changes.min(2) } else { 1 }));
        match live {
            Live::Owned(live) => live.close()?,
            Live::Locked(live) => live.close()?,
        }
    }
    println!("closed in {:.1} s", began.elapsed().as_secs_f64());
    saved(db, &held)
}

/// Compares what is stored with what the models held: of each the step of its last change, and how many versions it has at
/// least.
fn saved(db: &Database, held: &[(u64, u64)]) -> Result<(), Failed> {
    let (snapshot, mut bytes, mut wrong) = (db.snapshot(), vec![0; BYTES], Vec::new());
    for (n, (step, versions)) in held.iter().enumerate() {
        learn(&mut bytes, *step);
        let is_saved = match snapshot.model(&metadata(n))? {
            Some(model) => model.info().version >= *versions && *model.tensor("weights")?.data == bytes[..],
            None => false,
        };
        if !is_saved {
            wrong.push(n);
        }
    }
    match wrong.first() {
        None => println!("all {} models are saved as they were", held.len()),
        Some(first) => {
            return Err(
                format!("{} models are not saved as they were, the first is {first}", wrong.len()).into()
            );
        }
    }
    Ok(())
}

/// Times of changes, and of what is done beside them.
type Times = (Vec<Duration>, Vec<Duration>);

fn change(models: &mut [Changed], seconds: u64) -> Result<Times, CommitError> {
    let pause = INTERVAL / (models.len() / 100).max(1) as u32;
    let (mut ours, mut plain, mut bytes) = (Vec::new(), Vec::new(), vec![0; BYTES]);
    let began = Instant::now();
    for step in 1u32.. {
        let due = began + pause * step;
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let Some(live) = models.get_mut(step as usize * 7919 % models.len()) else { break };
        let before = Instant::now();
        live.change(u64::from(step) << 20)?;
        ours.push(before.elapsed());
        let before = Instant::now();
        learn(black_box(&mut bytes), u64::from(step));
        plain.push(before.elapsed());
    }
    Ok((ours, plain))
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last());
    let shown = |at: Option<&Duration>| at.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    println!(
        "{what}: {} times, p50 {:.3} ms, p99 {:.3} ms, longest {:.3} ms",
        times.len(),
        shown(at(0.5)),
        shown(at(0.99)),
        shown(times.last())
    );
}
