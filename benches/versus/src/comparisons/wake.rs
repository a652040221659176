//! Wake: from a commit to the start of what it wakes, one message at a time, beside servers that pass messages on.
//!
//! Ours are a producer on the committing thread, one on a parked thread of the engine and one in a child process. The peers'
//! consumer is a client on a thread of this process that waits for its socket. The message is one of [`PAYLOAD_BYTES`] for
//! all. `synced`: it is durable before anybody is woken. `buffered`: it need not be. Redis pub/sub keeps nothing; NATS 2.9
//! does not sync before it answers; so neither is among the synced.
//!
//! The machine's limits are a condition variable and a pipe between two threads, from before the one to after the other, and a
//! write with `fdatasync`.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use underbelly::{
    Batch, ColumnType, Columns, Database, Date, Durability, Failure, Options, Outputs, ProducerDefinition,
    Program, Run, SlotDefinition, Value,
};
use underbelly_benches::Failed;
use underbelly_benches::figure::median;
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;
use crate::servers::{self, Nats, Postgres, Redis};
use crate::timed::{TimedDisk, now};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "wake",
    about: "µs from a commit to the start of what it wakes: inline, on a thread, in a child process",
    run,
};

/// The word by which this program is started as a producer's process.
pub const TASK: &str = "--wake-producer";

/// Bytes of a message.
const PAYLOAD_BYTES: usize = 100;
/// Time between two messages, in which everybody falls asleep.
const PAUSE: Duration = Duration::from_micros(300);
const PATIENCE: Duration = Duration::from_secs(10);
const INPUT: &str = "bench.input";
const OUTPUT: &str = "bench.output";
const DAY: Date = Date(20_000);

fn payload(number: u64) -> String {
    format!("{number:0>PAYLOAD_BYTES$}")
}

/// Middle and tail of the turns of a round, nanoseconds.
#[derive(Clone, Copy)]
struct Spread {
    p50: f64,
    p99: f64,
}

fn spread(mut samples: Vec<u64>) -> Spread {
    samples.sort_unstable();
    let at = |q: usize| samples.get((samples.len() * q / 100).min(samples.len().saturating_sub(1)));
    let at = |q: usize| at(q).map_or(f64::NAN, |nanoseconds| *nanoseconds as f64);
    Spread { p50: at(50), p99: at(99) }
}

/// Nanoseconds that each of many messages takes, one after another.
type Turn<'a> = Box<dyn FnMut() -> Result<u64, Failed> + 'a>;

fn measure(effort: &Effort, turn: &mut Turn<'_>) -> Result<Spread, Failed> {
    let (mut samples, began) = (Vec::new(), Instant::now());
    while began.elapsed() < effort.turn || samples.len() < 20 {
        samples.push(turn()?);
        thread::sleep(PAUSE);
    }
    Ok(spread(samples))
}

/// What ours does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inline,
    Thread,
    Process,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Inline, Kind::Thread, Kind::Process];

    fn name(self) -> &'static str {
        match self {
            Kind::Inline => "inline",
            Kind::Thread => "thread",
            Kind::Process => "process",
        }
    }
}

/// A database with one producer.
struct Ours {
    db: Database,
    kind: Kind,
    durability: Durability,
    /// When the closure began, and when what it reads was durable.
    told: Arc<[AtomicU64; 2]>,
    synced: Arc<AtomicU64>,
    number: u64,
    /// From durability to the start, where it was measured.
    after: Vec<u64>,
}

impl Ours {
    fn create(folder: &Path, kind: Kind, durability: Durability) -> Result<Ours, Failed> {
        let (disk, synced) = TimedDisk::new(folder.to_path_buf());
        let options = Options { workers: 2, ..Options::default() };
        let db = Database::create_on(Arc::new(disk), options)?;
        db.define_slot(SlotDefinition::new(INPUT).value("text", ColumnType::Utf8))?;
        db.define_slot(SlotDefinition::new(OUTPUT).value("began", ColumnType::I64))?;
        let told: Arc<[AtomicU64; 2]> = Arc::default();
        let definition = ProducerDefinition::new("stamp").requires(INPUT).provides(OUTPUT);
        let (to, of) = (told.clone(), synced.clone());
        let stamp = move |_: &Run| -> Result<Outputs, Failure> {
            let began = now();
            to[1].store(of.load(Ordering::SeqCst), Ordering::SeqCst);
            to[0].store(began, Ordering::SeqCst);
            Ok(Outputs::new().put(OUTPUT, began_at(began)?))
        };
        match kind {
            Kind::Inline => db.register_inline(definition, stamp)?,
            Kind::Thread => db.register(definition, stamp)?,
            Kind::Process => {
                let program = Program::new(std::env::current_exe()?).arg(TASK);
                db.register_program(definition, program)?;
            }
        }
        Ok(Ours { db, kind, durability, told, synced, number: 0, after: Vec::new() })
    }

    fn turn(&mut self) -> Result<u64, Failed> {
        self.number += 1;
        let text = [payload(self.number)].iter().collect();
        let mut batch = Batch::new();
        batch.put_slot(INPUT, DAY, [] as [Value; 0], Columns::new().with("text", text)?);
        batch.durability(self.durability);
        let before = now();
        self.db.commit(batch)?;
        let durable = self.synced.load(Ordering::SeqCst);
        if !self.db.wait_idle(PATIENCE) {
            return Err("the producer has not run after ten seconds".into());
        }
        let (began, durable) = match self.kind {
            Kind::Process => {
                let cell = self.db.snapshot().slot(OUTPUT, DAY, [] as [Value; 0])?.ok_or("no output")?;
                let began = cell.rows.i64s("began").and_then(|began| began.first()).copied();
                (u64::try_from(began.ok_or("no time")?)?, durable)
            }
            _ => (self.told[0].load(Ordering::SeqCst), self.told[1].load(Ordering::SeqCst)),
        };
        if self.durability == Durability::Sync {
            self.after.push(began.saturating_sub(durable));
        }
        Ok(began.saturating_sub(before))
    }
}

fn began_at(began: u64) -> Result<Columns, underbelly::ColumnError> {
    Columns::new().with("began", vec![i64::try_from(began).unwrap_or(i64::MAX)].into())
}

/// The life of the child process.
pub fn produce() -> Result<(), Failed> {
    Ok(underbelly_worker::serve(|_| {
        let began = now();
        Ok(underbelly_worker::Outputs::new().put(OUTPUT, began_at(began)?))
    })?)
}

/// A consumer on a thread of its own, which tells when each message came.
fn consumer(
    mut receive: impl FnMut() -> Result<(), Failed> + Send + 'static,
) -> Receiver<Result<u64, String>> {
    let (tell, told) = channel();
    thread::spawn(move || {
        loop {
            let received = receive().map(|()| now()).map_err(|error| error.to_string());
            let is_over = received.is_err();
            if tell.send(received).is_err() || is_over {
                return;
            }
        }
    });
    told
}

fn passed<'a>(
    told: Receiver<Result<u64, String>>,
    mut send: impl FnMut(&str) -> Result<(), Failed> + 'a,
) -> Turn<'a> {
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let message = payload(number);
        let before = now();
        send(&message)?;
        Ok(told.recv_timeout(PATIENCE)??.saturating_sub(before))
    })
}

fn redis_pubsub(server: &servers::Server) -> Result<Turn<'static>, Failed> {
    let (mut publisher, mut subscriber) = (Redis::connect(server)?, Redis::connect(server)?);
    subscriber.ask(&["SUBSCRIBE", "messages"])?;
    let told = consumer(move || subscriber.receive().map(drop));
    Ok(passed(told, move |message| publisher.ask(&["PUBLISH", "messages", message]).map(drop)))
}

fn redis_streams(server: &servers::Server) -> Result<Turn<'static>, Failed> {
    let (mut writer, mut reader) = (Redis::connect(server)?, Redis::connect(server)?);
    let mut last = "0".to_string();
    let told = consumer(move || {
        let reply = reader.ask(&["XREAD", "BLOCK", "0", "STREAMS", "messages", &last])?;
        // Name of the stream, number of the entry, name of the field, its value.
        last = (*reply.texts().get(1).ok_or("an entry without a number")?).to_string();
        Ok(())
    });
    Ok(passed(told, move |message| writer.ask(&["XADD", "messages", "*", "p", message]).map(drop)))
}

fn nats_jetstream(server: &servers::Server) -> Result<Turn<'static>, Failed> {
    let (mut writer, mut reader) = (Nats::connect(server)?, Nats::connect(server)?);
    writer.subscribe("inbox", 1)?;
    let stream = r#"{"name":"S","subjects":["messages"],"storage":"file","retention":"limits"}"#;
    writer.ask("$JS.API.STREAM.CREATE.S", "inbox", stream)?;
    reader.subscribe("delivered", 1)?;
    let consumer_of = r#"{"stream_name":"S","config":{"deliver_subject":"delivered","ack_policy":"none","deliver_policy":"all"}}"#;
    writer.ask("$JS.API.CONSUMER.CREATE.S", "inbox", consumer_of)?;
    let told = consumer(move || reader.receive().map(drop));
    Ok(passed(told, move |message| writer.ask("messages", "inbox", message).map(drop)))
}

fn postgres_notify(server: &servers::Server, synced: bool) -> Result<Turn<'static>, Failed> {
    let (mut writer, mut reader) = (Postgres::connect(server)?, Postgres::connect(server)?);
    writer.query("CREATE TABLE IF NOT EXISTS messages (p text)")?;
    writer.query(if synced { "SET synchronous_commit = on" } else { "SET synchronous_commit = off" })?;
    reader.query("LISTEN messages")?;
    let told = consumer(move || reader.notified());
    let send = move |message: &str| {
        let sql = format!("INSERT INTO messages VALUES ('{message}'); NOTIFY messages, '{message}'");
        writer.query(&sql).map(drop)
    };
    Ok(passed(told, send))
}

/// From before a parked thread is told over a condition variable to after it has woken.
fn condvar() -> Turn<'static> {
    let pair = Arc::new((Mutex::new(0u64), Condvar::new()));
    let there = pair.clone();
    let mut seen = 0;
    let told = consumer(move || {
        let (lock, changed) = &*there;
        let number = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let number = changed.wait_while(number, |number| *number == seen);
        seen = *number.unwrap_or_else(PoisonError::into_inner);
        Ok(())
    });
    passed(told, move |_| {
        *pair.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        pair.1.notify_one();
        Ok(())
    })
}

/// The same over a pipe, with a message.
fn pipe() -> Result<Turn<'static>, Failed> {
    let (mut reader, mut writer) = std::io::pipe()?;
    let mut message = [0; PAYLOAD_BYTES];
    let told = consumer(move || Ok(reader.read_exact(&mut message)?));
    Ok(passed(told, move |message| Ok(writer.write_all(message.as_bytes())?)))
}

fn missing<T>(name: &str, made: Result<T, Failed>) -> Option<T> {
    made.map_err(|error| println!("{name} is not here: {error}")).ok()
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    println!("{effort}; messages of {PAYLOAD_BYTES} bytes, one at a time, {PAUSE:?} between");
    println!(
        "underbelly: `Sync` or `Buffered`; Redis: appendfsync always or everysec; PostgreSQL: synchronous_commit on or off"
    );
    let mut raw_file = RawFile::create(folder)?;
    let (mut raw_condvar, mut raw_pipe) = (condvar(), pipe()?);
    let (mut condvars, mut pipes, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for promise in ["synced", "buffered"] {
        let synced = promise == "synced";
        let durability = if synced { Durability::Sync } else { Durability::Buffered };
        let place = folder.join(promise);
        let mut ours = Vec::new();
        for kind in Kind::ALL {
            let db = place.join(kind.name());
            std::fs::create_dir_all(&db)?;
            ours.push(Ours::create(&db, kind, durability)?);
        }
        let redis = missing("redis", servers::redis(&place.join("redis"), synced));
        let nats = if synced { None } else { missing("nats", servers::nats(&place.join("nats"))) };
        let postgres = missing("postgres", servers::postgres(&place.join("postgres")));
        let mut peers: Vec<(&str, Turn<'_>, Vec<Spread>)> = Vec::new();
        let mut add = |name, turn: Option<Turn<'static>>| {
            peers.extend(turn.map(|turn| (name, turn, Vec::new())));
        };
        if !synced {
            let of = |server| missing("redis-pubsub", redis_pubsub(server));
            add("redis-pubsub", redis.as_ref().and_then(of));
        }
        let of = |server| missing("redis-streams", redis_streams(server));
        add("redis-streams", redis.as_ref().and_then(of));
        let of = |server| missing("nats-jetstream", nats_jetstream(server));
        add("nats-jetstream", nats.as_ref().and_then(of));
        let of = |server| missing("postgres-notify", postgres_notify(server, synced));
        add("postgres-notify", postgres.as_ref().and_then(of));
        let mut rounds = vec![Vec::new(); ours.len()];
        for round in 0..effort.rounds + usize::from(effort.warm_up) {
            let counts = !effort.warm_up || round > 0;
            syncs.push(raw_file.write_and_sync(BLOCK_BYTES, 200)?.as_nanos() as f64 / 200.0);
            condvars.push(measure(effort, &mut raw_condvar)?);
            pipes.push(measure(effort, &mut raw_pipe)?);
            for (ours, rounds) in ours.iter_mut().zip(&mut rounds) {
                let mut turn: Turn<'_> = Box::new(|| ours.turn());
                let spread = measure(effort, &mut turn)?;
                drop(turn);
                match counts {
                    true => rounds.push(spread),
                    false => ours.after.clear(),
                }
            }
            for (name, turn, rounds) in &mut peers {
                let spread = measure(effort, turn).map_err(|error| format!("{name}: {error}"))?;
                if counts {
                    rounds.push(spread);
                }
            }
        }
        for (ours, rounds) in ours.iter().zip(&rounds) {
            for (of, part) in [("p50", (|spread| spread.p50) as fn(&Spread) -> f64), ("p99", |s| s.p99)] {
                let middle = |rounds: &[Spread]| median(rounds.iter().map(part).collect()) / 1e3;
                let own = middle(rounds);
                let others: Vec<(&str, f64)> =
                    peers.iter().map(|(name, _, rounds)| (*name, middle(rounds))).collect();
                let shown: String =
                    others.iter().map(|(name, value)| format!(" | {name} {} µs", Plain(*value))).collect();
                let best = others.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
                let ratio = match best.is_finite() {
                    true => format!(" | ratio {}", Plain(best / own)),
                    false => String::new(),
                };
                let kind = ours.kind.name();
                println!("versus wake {kind} {promise} {of}: underbelly {} µs{shown}{ratio}", Plain(own));
            }
            if synced {
                let Spread { p50, p99 } = spread(ours.after.clone());
                println!(
                    "from durable to the start, {}: p50 {} µs, p99 {} µs",
                    ours.kind.name(),
                    Plain(p50 / 1e3),
                    Plain(p99 / 1e3)
                );
            }
        }
    }
    let middle = |spreads: &[Spread], part: fn(&Spread) -> f64| {
        Plain(median(spreads.iter().map(part).collect()) / 1e3)
    };
    println!(
        "raw condvar to a parked thread: p50 {} µs, p99 {} µs; raw pipe: p50 {} µs, p99 {} µs; raw write+fdatasync 4 KiB: {} µs",
        middle(&condvars, |s| s.p50),
        middle(&condvars, |s| s.p99),
        middle(&pipes, |s| s.p50),
        middle(&pipes, |s| s.p99),
        Plain(median(syncs) / 1e3)
    );
    Ok(())
}
