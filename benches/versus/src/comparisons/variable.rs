//! Variables: reads a second by one thread, beside an `RwLock` and SQLite, alone and while a writer sets it a thousand times a
//! second; the same from the mapping that other processes read.
//!
//! The machine's limit is a relaxed load of an atomic. Redis is not here: it is a server that answers over a socket, at
//! some tens of microseconds a read, and is measured where it is installed.

use std::hint::black_box;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use underbelly::{Database, Durability, Scope};
use underbelly_benches::Failed;
use underbelly_benches::figure::median;

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "variable",
    about: "ns to read a variable: quiet, beside a writer, in another mapping",
    run,
};

/// Time between two sets.
const PAUSE: Duration = Duration::from_millis(1);

/// Nanoseconds that a read takes, over about so long.
fn time(turn: Duration, mut read: impl FnMut() -> f64) -> f64 {
    let (mut count, mut sum) = (0u64, 0.0);
    let began = Instant::now();
    while began.elapsed() < turn {
        for _ in 0..10_000 {
            sum += read();
        }
        count += 10_000;
    }
    black_box(sum);
    began.elapsed().as_nanos() as f64 / count as f64
}

fn print(case: &str, figures: &[(&str, &[f64])]) {
    let medians: Vec<(&str, f64)> =
        figures.iter().map(|(name, rounds)| (*name, median(rounds.to_vec()))).collect();
    let best = medians.iter().skip(1).map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let ours = medians.first().map_or(f64::NAN, |(_, value)| *value);
    let shown: Vec<String> =
        medians.iter().map(|(name, value)| format!("{name} {} ns", Plain(*value))).collect();
    println!("versus variable {case}: {} | ratio {:.2}", shown.join(" | "), best / ours);
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    println!("{effort}; one f64; SQLite {}", rusqlite::version());
    let place = folder.join("db");
    let db = Database::create(&place)?;
    let var = db.var::<f64>(&Scope::Global, "x")?;
    var.set(1.0)?;
    let unlogged = db.unlogged_var::<f64>(&Scope::Global, "x")?;
    unlogged.set(1.0)?;
    let reader = Database::open_read_only(&place)?;
    let mut shared = reader.var::<f64>(&Scope::Global, "x")?;
    let (lock, word) = (RwLock::new(1.0), AtomicU64::new(1f64.to_bits()));
    let connection = Connection::open(folder.join("sqlite"))?;
    connection.execute("create table v (name text primary key, value real)", [])?;
    connection.execute("insert into v values ('x', 1.0)", [])?;
    let mut select = connection.prepare("select value from v where name = 'x'")?;
    for (case, is_written) in [("quiet", false), ("beside 1,000 sets a second", true)] {
        let mut rounds: [Vec<f64>; 6] = Default::default();
        let over = AtomicBool::new(false);
        thread::scope(|scope| -> Result<(), Failed> {
            if is_written {
                let writer = var.clone().durability(Durability::Buffered);
                let (over, lock, word, unlogged) = (&over, &lock, &word, &unlogged);
                scope.spawn(move || {
                    let mut n = 0.0;
                    while !over.load(Ordering::Relaxed) {
                        n += 1.0;
                        let _ = writer.set(n);
                        let _ = unlogged.set(n);
                        *lock.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = n;
                        word.store(n.to_bits(), Ordering::Relaxed);
                        thread::sleep(PAUSE);
                    }
                });
            }
            for _ in 0..effort.rounds {
                rounds[0].push(time(effort.turn, || var.get().unwrap_or(f64::NAN)));
                rounds[1].push(time(effort.turn, || shared.get().unwrap_or(f64::NAN)));
                rounds[2].push(time(effort.turn, || unlogged.get().unwrap_or(f64::NAN)));
                rounds[3].push(time(effort.turn, || {
                    *lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
                }));
                rounds[4]
                    .push(time(effort.turn, || select.query_row([], |row| row.get(0)).unwrap_or(f64::NAN)));
                rounds[5].push(time(effort.turn, || f64::from_bits(word.load(Ordering::Relaxed))));
            }
            over.store(true, Ordering::Relaxed);
            Ok(())
        })?;
        let [ours, there, unlogged, lock, sqlite, raw] = &rounds;
        print(case, &[("underbelly", ours), ("rwlock", lock), ("sqlite", sqlite)]);
        print(
            &format!("{case}, in another mapping"),
            &[("underbelly", there), ("rwlock", lock), ("sqlite", sqlite)],
        );
        print(
            &format!("{case}, in no log"),
            &[("underbelly", unlogged), ("rwlock", lock), ("sqlite", sqlite)],
        );
        println!(
            "raw relaxed load: {} ns; ours is {} M reads/s",
            Plain(median(raw.clone())),
            Plain(1e3 / median(ours.clone()))
        );
    }
    let count = 100_000 / effort.divisor;
    let began = Instant::now();
    for n in 0..count {
        unlogged.set(n as f64)?;
    }
    println!("a set of a variable in no log: {} ns", Plain(began.elapsed().as_nanos() as f64 / count as f64));
    Ok(())
}
