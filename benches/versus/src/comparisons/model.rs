//! Model blobs: put and got beside plain files, SQLite's blobs and Redis on loopback; found among many by identity and by
//! attribute.
//!
//! Every put is durable when it is answered: ours and the file by a sync of file and folder, SQLite with `synchronous=FULL` and a
//! write-ahead log, Redis with `appendfsync always`. Blobs are noise, so that none is stored twice. Gets come from the page
//! cache; the first byte is that of a database that was just opened. Redis has no index of attributes: its client keeps a set
//! of identities for each value. The machine's limit of a put is one file that is written in steps of a mebibyte and synced;
//! who comes first changes from round to round.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use underbelly::{Batch, Database, Metadata, Options, Timestamp, Where};
use underbelly_benches::Failed;
use underbelly_benches::figure::median;

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;
use crate::servers::{self, Redis, Server};

/// This comparison.
pub const ENTRY: Entry = Entry {
    name: "model",
    about: "MB/s of a durable put of a long blob, µs to get one, µs to find one among many",
    run,
};

const LARGE: usize = 1 << 30;
const SMALL: usize = 1 << 10;
const STEP: usize = 1 << 20;
const MODELS: u64 = 1_000_000;
const GETS: u64 = 20_000;
/// Openings of a round, of each of which the first byte is timed.
const OPENINGS: usize = 5;

struct Noise(u64);

impl Noise {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

fn print(case: &str, unit: &str, is_rate: bool, figures: &[(&str, &[f64])]) {
    // Who is not here has no figure.
    let here = figures.iter().filter(|(_, rounds)| !rounds.is_empty());
    let medians: Vec<(&str, f64)> = here.map(|(name, rounds)| (*name, median(rounds.to_vec()))).collect();
    let best = medians.iter().skip(1).map(|(_, value)| *value);
    let best = if is_rate { best.fold(0.0, f64::max) } else { best.fold(f64::INFINITY, f64::min) };
    let ours = medians.first().map_or(f64::NAN, |(_, value)| *value);
    let ratio = if is_rate { ours / best } else { best / ours };
    let shown: Vec<String> =
        medians.iter().map(|(name, value)| format!("{name} {} {unit}", Plain(*value))).collect();
    println!("versus model {case}: {} | ratio {ratio:.2}", shown.join(" | "));
}

/// Redis, where it is installed.
fn redis(folder: &Path, synced: bool) -> Result<Option<(Server, Redis)>, Failed> {
    match servers::redis(folder, synced) {
        Ok(server) => {
            let client = Redis::connect(&server)?;
            Ok(Some((server, client)))
        }
        Err(error) => {
            println!("redis is not here: {error}");
            Ok(None)
        }
    }
}

fn micros(took: Duration, count: u64) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}

fn run(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let large = (LARGE / effort.divisor as usize).max(4 << 20);
    println!("{effort}; blobs of {} MiB; SQLite {}", large >> 20, rusqlite::version());
    puts(folder, effort, large)?;
    gets(folder, effort, large)?;
    finds(folder, effort)
}

fn metadata(n: u64) -> Metadata {
    Metadata::new("net").with("n", n as i64).with("timestamp", Timestamp(n as i64))
}

fn sqlite(path: &Path) -> Result<Connection, Failed> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute("create table models (id integer primary key, blob blob)", [])?;
    Ok(connection)
}

/// Seconds that ours takes to make a blob durable.
fn put_ours(place: &Path, bytes: &[u8], round: u64) -> Result<f64, Failed> {
    let db = Database::create(place.join("db"))?;
    let began = Instant::now();
    let mut writer = db.blob_writer();
    bytes.chunks(STEP).try_for_each(|step| writer.push(step))?;
    let stored = writer.finish()?;
    let mut batch = Batch::new();
    batch.put_model_stored(metadata(round), &stored);
    db.commit(batch)?;
    Ok(began.elapsed().as_secs_f64())
}

/// The same of a plain file, whose name is durable too where it is `named`.
fn put_file(place: &Path, bytes: &[u8], named: bool) -> Result<f64, Failed> {
    let path = place.join("file");
    let began = Instant::now();
    let mut file = File::create(&path)?;
    bytes.chunks(STEP).try_for_each(|step| file.write_all(step))?;
    file.sync_data()?;
    if named {
        fs::rename(&path, place.join("renamed"))?;
        File::open(place)?.sync_all()?;
    }
    Ok(began.elapsed().as_secs_f64())
}

fn puts(folder: &Path, effort: &Effort, large: usize) -> Result<(), Failed> {
    let mut noise = Noise(1);
    let mut bytes = vec![0; large];
    let mut rounds: [Vec<f64>; 5] = Default::default();
    // The first round is not counted: it has memory that the system has not given out yet.
    for round in 0..=effort.rounds {
        noise.fill(&mut bytes);
        for turn in 0..rounds.len() {
            let who = (round + turn) % rounds.len();
            let place = folder.join(format!("put-{round}-{who}"));
            fs::create_dir_all(&place)?;
            // SQLite's longest blob is a thousand million bytes.
            let (mut put, short) = (bytes.len(), &bytes[..bytes.len().min(900 << 20)]);
            let took = match who {
                0 => put_ours(&place, &bytes, round as u64)?,
                1 => {
                    put = short.len();
                    let connection = sqlite(&place.join("sqlite"))?;
                    let began = Instant::now();
                    connection.execute("insert into models values (1, ?1)", params![short])?;
                    began.elapsed().as_secs_f64()
                }
                2 => put_file(&place, &bytes, true)?,
                3 => put_file(&place, &bytes, false)?,
                _ => {
                    let Some((_server, mut client)) = redis(&place, true)? else { continue };
                    let began = Instant::now();
                    client.ask_bytes(&[b"SET", b"model", &bytes])?;
                    began.elapsed().as_secs_f64()
                }
            };
            if round > 0 {
                rounds[who].push(put as f64 / 1e6 / took);
            }
            fs::remove_dir_all(&place)?;
        }
    }
    let [ours, sqlite, file, raw, redis] = &rounds;
    let all: [(&str, &[f64]); 4] =
        [("underbelly", ours), ("redis", redis), ("sqlite", sqlite), ("file", file)];
    print("put", "MB/s", true, &all);
    let share = median(ours.clone()) / median(raw.clone());
    let shown = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(" ");
    println!("raw write+fdatasync: {} MB/s; ours is {share:.2} of it", Plain(median(raw.clone())));
    println!("in each round: ours {}; raw {}", shown(ours), shown(raw));
    Ok(())
}

/// How long the first byte of a blob takes that nobody has read since the opening, µs.
fn first_byte(db: &Database, find: &Metadata, large: usize, sum: &mut u64) -> Result<f64, Failed> {
    let began = Instant::now();
    let model = db.snapshot().model(find)?.ok_or("the blob is gone")?;
    *sum += u64::from(model.range(large as u64 / 2..large as u64 / 2 + 1)?[0]);
    Ok(micros(began.elapsed(), 1))
}

fn gets(folder: &Path, effort: &Effort, large: usize) -> Result<(), Failed> {
    let place = folder.join("get");
    fs::create_dir_all(&place)?;
    let db = Database::create(place.join("db"))?;
    let connection = sqlite(&place.join("sqlite"))?;
    let mut noise = Noise(2);
    let mut bytes = vec![0; large];
    noise.fill(&mut bytes);
    let mut writer = db.blob_writer();
    writer.push(&bytes)?;
    let stored = writer.finish()?;
    let mut batch = Batch::new();
    batch.put_model_stored(Metadata::new("large").with("timestamp", Timestamp(0)), &stored);
    for n in 0..100 {
        let mut small = vec![0; SMALL];
        noise.fill(&mut small);
        connection.execute("insert into models values (?1, ?2)", params![n as i64 + 10, small])?;
        fs::write(place.join(format!("file-{n}")), &small)?;
        batch.put_model(metadata(n), small);
    }
    db.commit(batch)?;
    db.checkpoint()?;
    db.close()?;
    fs::write(place.join("large"), &bytes)?;
    // SQLite's longest blob is a thousand million bytes.
    let short = bytes.len().min(900 << 20);
    connection.execute("insert into models values (1, ?1)", params![&bytes[..short]])?;
    let mut redis = redis(&place.join("redis"), false)?;
    if let Some((_, client)) = &mut redis {
        client.ask_bytes(&[b"SET", b"large", &bytes])?;
        for n in 0..100 {
            client.ask_bytes(&[b"SET", format!("small-{n}").as_bytes(), &bytes[n * SMALL..][..SMALL]])?;
        }
    }
    drop(bytes);
    let gets = (GETS / effort.divisor).max(100);
    let mut select = connection.prepare("select blob from models where id = ?1")?;
    let mut rounds: [Vec<f64>; 9] = Default::default();
    let (mut sum, find) = (0u64, Metadata::new("large"));
    let finds: Vec<Metadata> = (0..100).map(metadata).collect();
    for _ in 0..effort.rounds {
        for _ in 1..OPENINGS {
            rounds[0].push(first_byte(&Database::open(place.join("db"))?, &find, large, &mut sum)?);
        }
        let db = Database::open(place.join("db"))?;
        rounds[0].push(first_byte(&db, &find, large, &mut sum)?);
        let began = Instant::now();
        let mut whole = Vec::new();
        File::open(place.join("large"))?.read_to_end(&mut whole)?;
        sum += u64::from(whole[whole.len() / 2]);
        rounds[1].push(micros(began.elapsed(), 1));
        let began = Instant::now();
        let mut byte = [0];
        File::open(place.join("large"))?.read_exact_at(&mut byte, large as u64 / 2)?;
        sum += u64::from(byte[0]);
        rounds[7].push(micros(began.elapsed(), 1));
        let began = Instant::now();
        let blob = connection.blob_open("main", "models", "blob", 1, true)?;
        blob.read_at_exact(&mut byte, short / 2)?;
        sum += u64::from(byte[0]);
        rounds[8].push(micros(began.elapsed(), 1));
        let snapshot = db.snapshot();
        let began = Instant::now();
        for n in 0..gets {
            let model = snapshot.model(&finds[n as usize % 100])?.ok_or("a blob is gone")?;
            sum += u64::from(model.blob()?[SMALL - 1]);
        }
        rounds[2].push(micros(began.elapsed(), gets));
        let began = Instant::now();
        for n in 0..gets {
            let blob: Vec<u8> = select.query_row([n as i64 % 100 + 10], |row| row.get(0))?;
            sum += u64::from(blob[SMALL - 1]);
        }
        rounds[3].push(micros(began.elapsed(), gets));
        let began = Instant::now();
        for n in 0..gets {
            sum += u64::from(fs::read(place.join(format!("file-{}", n % 100)))?[SMALL - 1]);
        }
        rounds[4].push(micros(began.elapsed(), gets));
        if let Some((_, client)) = &mut redis {
            let middle = (large / 2).to_string();
            let began = Instant::now();
            let byte = client.ask_bytes(&[b"GETRANGE", b"large", middle.as_bytes(), middle.as_bytes()])?;
            sum += u64::from(byte[0]);
            rounds[5].push(micros(began.elapsed(), 1));
            let few = (gets / 10).max(100);
            let began = Instant::now();
            for n in 0..few {
                let blob = client.ask_bytes(&[b"GET", format!("small-{}", n % 100).as_bytes()])?;
                sum += u64::from(blob[SMALL - 1]);
            }
            rounds[6].push(micros(began.elapsed(), few));
        }
    }
    let [first, whole, ours, sqlite, file, redis_first, redis_small, byte_of_file, byte_of_sqlite] = &rounds;
    let firsts: [(&str, &[f64]); 5] = [
        ("underbelly", first),
        ("redis", redis_first),
        ("sqlite", byte_of_sqlite),
        ("file", byte_of_file),
        ("file read whole", whole),
    ];
    print("first-byte-of-large", "µs", false, &firsts);
    let smalls: [(&str, &[f64]); 4] =
        [("underbelly", ours), ("redis", redis_small), ("sqlite", sqlite), ("file", file)];
    print("get-1KiB", "µs", false, &smalls);
    println!("(checked by the sum {sum})");
    drop(select);
    drop((connection, redis));
    fs::remove_dir_all(place)?;
    Ok(())
}

fn finds(folder: &Path, effort: &Effort) -> Result<(), Failed> {
    let count = (MODELS / effort.divisor).max(10_000);
    let place = folder.join("find");
    fs::create_dir_all(&place)?;
    let db = Database::create_with(place.join("db"), Options::default())?;
    let connection = sqlite(&place.join("sqlite"))?;
    connection
        .execute("create table found (id integer primary key, identity text unique, desk integer)", [])?;
    connection.execute("create index desks on found (desk)", [])?;
    let mut redis = redis(&place.join("redis"), false)?;
    // Each desk has a hundred models.
    let desks = count / 100;
    let of = |n: u64| metadata(n).with("desk", (n % desks) as i64);
    for from in (0..count).step_by(10_000) {
        let mut batch = Batch::new();
        let insert = connection.unchecked_transaction()?;
        for n in from..(from + 10_000).min(count) {
            batch.put_model(of(n), n.to_le_bytes().to_vec());
            let identity = of(n).id()?.to_string();
            insert.execute(
                "insert into found values (?1, ?2, ?3)",
                params![n as i64, identity, (n % desks) as i64],
            )?;
        }
        db.commit(batch)?;
        insert.commit()?;
        if let Some((_, client)) = &mut redis {
            let (mut commands, to) = (Vec::new(), (from + 10_000).min(count));
            for n in from..to {
                let (identity, desk, n) =
                    (of(n).id()?.to_string(), format!("desk-{}", n % desks), n.to_string());
                Redis::encode(&["SET", &identity, &n], &mut commands);
                Redis::encode(&["SADD", &desk, &n], &mut commands);
            }
            client.send(&commands)?;
            for _ in from..to {
                client.receive()?;
                client.receive()?;
            }
        }
    }
    db.checkpoint()?;
    if !db.wait_index(Duration::from_secs(600)) {
        return Err("the index was not ready in ten minutes".into());
    }
    let gets = (GETS / effort.divisor).max(100);
    let picks: Vec<u64> = (0..gets).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count).collect();
    let ids = picks.iter().map(|n| of(*n).id()).collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let dicts: Vec<Metadata> = picks.iter().map(|n| of(*n)).collect();
    let mut by_identity = connection.prepare("select id from found where identity = ?1")?;
    let mut by_desk = connection.prepare("select id from found where desk = ?1")?;
    let mut rounds: [Vec<f64>; 7] = Default::default();
    for _ in 0..effort.rounds {
        let snapshot = db.snapshot();
        let began = Instant::now();
        for id in &ids {
            snapshot.model(id)?.ok_or("a model is gone")?;
        }
        rounds[0].push(micros(began.elapsed(), gets));
        let began = Instant::now();
        for dict in &dicts {
            snapshot.model(dict)?.ok_or("a model is gone")?;
        }
        rounds[1].push(micros(began.elapsed(), gets));
        let began = Instant::now();
        for text in &texts {
            by_identity.query_row([text], |row| row.get::<_, i64>(0))?;
        }
        rounds[2].push(micros(began.elapsed(), gets));
        let queries = (gets / 100).max(10);
        let began = Instant::now();
        for n in 0..queries {
            let wanted = Where::equals("type", "net").and(Where::equals("desk", (n % desks) as i64));
            if snapshot.find_models_where(&wanted)?.len() != 100 {
                return Err("a query does not find its hundred models".into());
            }
        }
        rounds[3].push(micros(began.elapsed(), queries));
        let began = Instant::now();
        for n in 0..queries {
            let found = by_desk.query_map([(n % desks) as i64], |row| row.get::<_, i64>(0))?.count();
            if found != 100 {
                return Err("SQLite does not find its hundred models".into());
            }
        }
        rounds[4].push(micros(began.elapsed(), queries));
        if let Some((_, client)) = &mut redis {
            let few = texts.get(..texts.len() / 10).unwrap_or_default();
            let began = Instant::now();
            for text in few {
                client.ask(&["GET", text])?;
            }
            rounds[5].push(micros(began.elapsed(), few.len() as u64));
            let began = Instant::now();
            for n in 0..queries {
                let found = client.ask(&["SMEMBERS", &format!("desk-{}", n % desks)])?;
                if found.texts().len() != 100 {
                    return Err("Redis does not find its hundred models".into());
                }
            }
            rounds[6].push(micros(began.elapsed(), queries));
        }
    }
    let [id, dict, sqlite_id, desk, sqlite_desk, redis_id, redis_desk] = &rounds;
    print(
        &format!("latest-by-identity among {count}"),
        "µs",
        false,
        &[("underbelly", id), ("redis", redis_id), ("sqlite", sqlite_id)],
    );
    print(
        &format!("latest-by-metadata among {count}"),
        "µs",
        false,
        &[("underbelly", dict), ("redis", redis_id), ("sqlite", sqlite_id)],
    );
    print(
        &format!("attribute with 100 hits among {count}"),
        "µs",
        false,
        &[("underbelly", desk), ("redis", redis_desk), ("sqlite", sqlite_desk)],
    );
    drop((by_identity, by_desk));
    drop((connection, db, redis));
    fs::remove_dir_all(place)?;
    Ok(())
}
