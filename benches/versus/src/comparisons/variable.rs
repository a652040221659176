//! Variables: reads a second by one thread, beside an `RwLock`, SQLite and Redis on loopback, alone and while a writer sets it a
//! thousand times a second; the same by another process.
//!
//! The machine's limit is a relaxed load of an atomic.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
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
use crate::servers::{self, Redis};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "variable",
    about: "ns to read a variable: quiet, beside a writer, in another process",
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
    // Who is not here has no figure.
    let here = figures.iter().filter(|(_, rounds)| !rounds.is_empty());
    let medians: Vec<(&str, f64)> = here.map(|(name, rounds)| (*name, median(rounds.to_vec()))).collect();
    let best = medians.iter().skip(1).map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let ours = medians.first().map_or(f64::NAN, |(_, value)| *value);
    let shown: Vec<String> =
        medians.iter().map(|(name, value)| format!("{name} {} ns", Plain(*value))).collect();
    println!("versus variable {case}: {} | ratio {:.2}", shown.join(" | "), best / ours);
}

/// Ends the writer where it is dropped.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the process that reads is asked for by.
pub const TASK: &str = "read-variable";

/// The life of the process that reads: `read-variable FOLDER MILLISECONDS`; prints nanoseconds.
pub fn read() -> Result<(), Failed> {
    let folder = std::env::args().nth(2).ok_or("no folder")?;
    let turn = Duration::from_millis(std::env::args().nth(3).ok_or("no time")?.parse()?);
    let mut shared = Database::open_read_only(folder)?.var::<f64>(&Scope::Global, "x")?;
    shared.get().ok_or("the variable is not shown")?;
    println!("{}", time(turn, || shared.get().unwrap_or(f64::NAN)));
    Ok(())
}

fn read_elsewhere(place: &Path, turn: Duration) -> Result<f64, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg(TASK).arg(place).arg(turn.as_millis().to_string()).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().map_err(|_| format!("the process that reads ended with {}", output.status).into())
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    println!("{effort}; one f64; SQLite {}", rusqlite::version());
    let place = folder.join("db");
    let db = Database::create(&place)?;
    let var = db.var::<f64>(&Scope::Global, "x")?;
    var.set(1.0)?;
    let unlogged = db.unlogged_var::<f64>(&Scope::Global, "x")?;
    unlogged.set(1.0)?;
    let (lock, word) = (RwLock::new(1.0), AtomicU64::new(1f64.to_bits()));
    let connection = Connection::open(folder.join("sqlite"))?;
    connection.execute("create table v (name text primary key, value real)", [])?;
    connection.execute("insert into v values ('x', 1.0)", [])?;
    let mut redis = match servers::redis(&folder.join("redis"), false) {
        Ok(server) => Some((Redis::connect(&server)?, server)),
        Err(error) => {
            println!("redis is not here: {error}");
            None
        }
    };
    if let Some((client, _)) = &mut redis {
        client.ask(&["SET", "x", "1.0"])?;
    }
    let mut select = connection.prepare("select value from v where name = 'x'")?;
    for (case, is_written) in [("quiet", false), ("beside 1,000 sets a second", true)] {
        let mut rounds: [Vec<f64>; 7] = Default::default();
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
            // The writer ends whatever becomes of the rest.
            let _over = Over(&over);
            for _ in 0..effort.rounds {
                rounds[0].push(time(effort.turn, || var.get().unwrap_or(f64::NAN)));
                rounds[1].push(read_elsewhere(&place, effort.turn)?);
                rounds[2].push(time(effort.turn, || unlogged.get().unwrap_or(f64::NAN)));
                rounds[3].push(time(effort.turn, || {
                    *lock.read().unwrap_or_else(|poisoned| poisoned.into_inner())
                }));
                rounds[4]
                    .push(time(effort.turn, || select.query_row([], |row| row.get(0)).unwrap_or(f64::NAN)));
                rounds[5].push(time(effort.turn, || f64::from_bits(word.load(Ordering::Relaxed))));
                if let Some((client, _)) = &mut redis {
                    let (mut count, began) = (0, Instant::now());
                    while began.elapsed() < effort.turn {
                        client.ask(&["GET", "x"])?;
                        count += 1;
                    }
                    rounds[6].push(began.elapsed().as_nanos() as f64 / f64::from(count));
                }
            }
            Ok(())
        })?;
        let [ours, there, unlogged, lock, sqlite, raw, redis] = &rounds;
        let what = [
            (case.to_string(), ours),
            (format!("{case}, in another process"), there),
            (format!("{case}, in no log"), unlogged),
        ];
        for (what, of) in what {
            print(&what, &[("underbelly", of), ("rwlock", lock), ("sqlite", sqlite), ("redis", redis)]);
        }
        println!(
            "raw relaxed load: {} ns; ours is {} M reads/s, in another process {}",
            Plain(median(raw.clone())),
            Plain(1e3 / median(ours.clone())),
            Plain(1e3 / median(there.clone()))
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
