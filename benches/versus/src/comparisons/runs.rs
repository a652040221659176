//! Runs a second that do nothing but answer: commit, wake, run, and the commit of the answer, all durable; beside queues that
//! are worked off in batches by one consumer.
//!
//! A commit is [`CELLS`] cells of 110 bytes or so for all. Ours runs the closure for each cell, notes each run in the history,
//! and derives the states of what it made. Redis reads up to [`BATCH`] entries as a group, writes as many answers and
//! acknowledges in one transaction; PostgreSQL takes up to [`BATCH`] rows out of a table and puts the answers into another by
//! one statement. NATS 2.9 does not sync before it answers and is not here.
//!
//! Below: how soon ready bundles can start after an opening, and what a slow producer costs in memory.

use std::path::Path;
use std::time::{Duration, Instant};

use underbelly_benches::Failed;
use underbelly_benches::figure::{median, rate};
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};
use underbelly_benches::runs::{Runs, TEXT_BYTES, leave_ready, recover, slow};

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;
use crate::servers::{self, Postgres, Redis, Server};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "runs",
    about: "durable runs/s that do nothing: commit, wake, run, commit; ready bundles after an opening; memory",
    run,
};

/// Cells of a commit.
const CELLS: u64 = 1_000;
/// Entries that a peer's consumer takes at once.
const BATCH: u64 = 256;

/// Does so many commits and all that they set off.
type Turn<'a> = Box<dyn FnMut(u64) -> Result<Duration, Failed> + 'a>;

fn redis_group(server: &Server) -> Result<Turn<'static>, Failed> {
    let (mut writer, mut reader) = (Redis::connect(server)?, Redis::connect(server)?);
    writer.ask(&["XGROUP", "CREATE", "work", "workers", "$", "MKSTREAM"])?;
    let text = "x".repeat(TEXT_BYTES);
    Ok(Box::new(move |commits| {
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<(), Failed> {
            let consumer = scope.spawn(|| -> Result<(), Failed> {
                let (mut done, count) = (0, BATCH.to_string());
                while done < commits * CELLS {
                    let read = ["XREADGROUP", "GROUP", "workers", "one", "COUNT", &count, "BLOCK", "5000"];
                    let reply = reader.ask(&[&read[..], &["STREAMS", "work", ">"]].concat())?;
                    // The stream's name; then of each entry number, field, value.
                    let texts = reply.texts();
                    let entries: Vec<&str> = texts.iter().skip(1).step_by(3).copied().collect();
                    let mut bytes = Vec::new();
                    Redis::encode(&["MULTI"], &mut bytes);
                    for entry in &entries {
                        Redis::encode(
                            &["XADD", "answers", "MAXLEN", "~", "10000", "*", "n", entry],
                            &mut bytes,
                        );
                    }
                    Redis::encode(&[&["XACK", "work", "workers"], &entries[..]].concat(), &mut bytes);
                    Redis::encode(&["EXEC"], &mut bytes);
                    reader.send(&bytes)?;
                    for _ in 0..entries.len() + 3 {
                        reader.receive()?;
                    }
                    if entries.is_empty() {
                        return Err("redis has no more entries".into());
                    }
                    done += entries.len() as u64;
                }
                Ok(())
            });
            for _ in 0..commits {
                let mut bytes = Vec::new();
                Redis::encode(&["MULTI"], &mut bytes);
                for _ in 0..CELLS {
                    Redis::encode(&["XADD", "work", "MAXLEN", "~", "1000000", "*", "p", &text], &mut bytes);
                }
                Redis::encode(&["EXEC"], &mut bytes);
                writer.send(&bytes)?;
                for _ in 0..CELLS + 2 {
                    writer.receive()?;
                }
            }
            consumer.join().map_err(|_| "the consumer panicked")?
        })?;
        Ok(began.elapsed())
    }))
}

fn postgres_queue(server: &Server) -> Result<Turn<'static>, Failed> {
    let (mut writer, mut reader) = (Postgres::connect(server)?, Postgres::connect(server)?);
    writer.query("CREATE TABLE work (id bigserial PRIMARY KEY, p text)")?;
    writer.query("CREATE TABLE answers (id bigint PRIMARY KEY, n bigint)")?;
    let put =
        format!("INSERT INTO work (p) SELECT repeat('x', {TEXT_BYTES}) FROM generate_series(1, {CELLS})");
    let take = format!(
        "WITH taken AS (DELETE FROM work WHERE id IN \
         (SELECT id FROM work ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED) RETURNING id) \
         INSERT INTO answers SELECT id, id FROM taken RETURNING id"
    );
    Ok(Box::new(move |commits| {
        let began = Instant::now();
        std::thread::scope(|scope| -> Result<(), Failed> {
            let consumer = scope.spawn(|| -> Result<(), Failed> {
                let mut done = 0;
                while done < commits * CELLS {
                    done += reader.query(&take)? as u64;
                }
                Ok(())
            });
            for _ in 0..commits {
                writer.query(&put)?;
            }
            consumer.join().map_err(|_| "the consumer panicked")?
        })?;
        Ok(began.elapsed())
    }))
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    println!("{effort}; commits of {CELLS} cells; every commit is synced before it is answered");
    let mut raw = RawFile::create(folder)?;
    let missing = |name: &str, error: Failed| println!("{name} is not here: {error}");
    let redis = servers::redis(&folder.join("redis"), true).map_err(|error| missing("redis", error)).ok();
    let postgres =
        servers::postgres(&folder.join("postgres")).map_err(|error| missing("postgres", error)).ok();
    let (single, several) =
        (Runs::create(&folder.join("single"), 1)?, Runs::create(&folder.join("several"), BATCH as u32)?);
    let ours = |mut runs: Runs| -> Turn<'static> { Box::new(move |commits| runs.run(commits, CELLS)) };
    let mut turns: Vec<(&str, Turn<'_>)> = vec![("single", ours(single)), ("batches", ours(several))];
    if let Some(server) = &redis {
        turns.push(("redis-streams", redis_group(server)?));
    }
    if let Some(server) = &postgres {
        turns.push(("postgres", postgres_queue(server)?));
    }
    let commits = effort.amount(100);
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); turns.len()];
    let mut syncs = Vec::new();
    for round in 0..effort.rounds + usize::from(effort.warm_up) {
        syncs.push(rate(200, raw.write_and_sync(BLOCK_BYTES, 200)?));
        for ((name, turn), rates) in turns.iter_mut().zip(&mut rounds) {
            let took = turn(commits).map_err(|error| format!("{name}: {error}"))?;
            if !effort.warm_up || round > 0 {
                rates.push(rate(commits * CELLS, took));
            }
        }
    }
    let medians: Vec<f64> = rounds.into_iter().map(median).collect();
    for (case, at) in [("one by one", 0), ("in batches of 256", 1)] {
        let peers = turns.iter().zip(&medians).skip(2);
        let shown: String =
            peers.clone().map(|((name, _), value)| format!(" | {name} {} runs/s", Plain(*value))).collect();
        let best = peers.map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
        let ratio = match best.is_finite() {
            true => format!(" | ratio {}", Plain(medians[at] / best)),
            false => String::new(),
        };
        println!("versus runs {case}: underbelly {} runs/s{shown}{ratio}", Plain(medians[at]));
    }
    println!("raw write+fdatasync 4 KiB: {}/s", Plain(median(syncs)));
    drop(turns);
    let bundles = effort.amount(1_000_000);
    for checkpoint in [false, true] {
        let place = folder.join(format!("ready-{checkpoint}"));
        leave_ready(&place, bundles, checkpoint)?;
        let rounds = (0..effort.rounds).map(|_| recover(&place)).collect::<Result<Vec<_>, _>>()?;
        let middle = |part: fn(&(Duration, Duration)) -> Duration| {
            Plain(median(rounds.iter().map(|round| part(round).as_secs_f64()).collect()))
        };
        let from = if checkpoint { "a checkpoint" } else { "the log" };
        println!(
            "recovery of {bundles} ready bundles from {from}: open after {} s, the first run after {} s",
            middle(|round| round.0),
            middle(|round| round.1)
        );
    }
    let time = effort.turn * 20;
    let slow = slow(&folder.join("slow"), 100, Duration::from_millis(5), time)?;
    let quarters: Vec<String> = slow.resident.iter().map(|bytes| format!("{}", bytes >> 20)).collect();
    println!(
        "a slow producer: {} commits, {} runs in {time:?}; resident MiB after each quarter {}",
        slow.commits,
        slow.runs,
        quarters.join(", ")
    );
    Ok(())
}
