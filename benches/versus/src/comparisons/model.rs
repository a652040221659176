//! Model blobs: put and got beside plain files and SQLite's blobs; found among many by identity and by attribute.
//!
//! Every put is durable when it is answered: ours and the file by a sync of file and folder, SQLite with `synchronous=FULL` and a
//! write-ahead log. Blobs are noise, so that none is stored twice. Gets come from the page cache. The machine's limit of a
//! put is one file that is written in steps of a mebibyte and synced.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use underbelly::{Batch, Database, Metadata, Options, Timestamp, Where};
use underbelly_benches::Failed;
use underbelly_benches::figure::median;

use crate::comparisons::Entry;
use crate::effort::Effort;
use crate::line::Plain;

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
    let medians: Vec<(&str, f64)> =
        figures.iter().map(|(name, rounds)| (*name, median(rounds.to_vec()))).collect();
    let best = medians.iter().skip(1).map(|(_, value)| *value);
    let best = if is_rate { best.fold(0.0, f64::max) } else { best.fold(f64::INFINITY, f64::min) };
    let ours = medians.first().map_or(f64::NAN, |(_, value)| *value);
    let ratio = if is_rate { ours / best } else { best / ours };
    let shown: Vec<String> =
        medians.iter().map(|(name, value)| format!("{name} {} {unit}", Plain(*value))).collect();
    println!("versus model {case}: {} | ratio {ratio:.2}", shown.join(" | "));
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

fn puts(folder: &Path, effort: &Effort, large: usize) -> Result<(), Failed> {
    let mut noise = Noise(1);
    let mut bytes = vec![0; large];
    let mut rounds: [Vec<f64>; 4] = Default::default();
    for round in 0..effort.rounds as u64 {
        let place = folder.join(format!("put-{round}"));
        fs::create_dir_all(&place)?;
        noise.fill(&mut bytes);
        let db = Database::create(place.join("db"))?;
        let began = Instant::now();
        let mut writer = db.blob_writer();
        bytes.chunks(STEP).try_for_each(|step| writer.push(step))?;
        let stored = writer.finish()?;
        let mut batch = Batch::new();
        batch.put_model_stored(metadata(round), &stored);
        db.commit(batch)?;
        let rate = |took: Duration| large as f64 / 1e6 / took.as_secs_f64();
        rounds[0].push(rate(began.elapsed()));
        let connection = sqlite(&place.join("sqlite"))?;
        // SQLite's longest blob is a thousand million bytes.
        let most = bytes.len().min(900 << 20);
        let began = Instant::now();
        connection.execute("insert into models values (1, ?1)", params![&bytes[..most]])?;
        rounds[1].push(most as f64 / 1e6 / began.elapsed().as_secs_f64());
        drop(connection);
        for (at, synced) in [(2, true), (3, false)] {
            let began = Instant::now();
            let path = place.join("file");
            let mut file = File::create(&path)?;
            bytes.chunks(STEP).try_for_each(|step| file.write_all(step))?;
            file.sync_data()?;
            if synced {
                fs::rename(&path, place.join("renamed"))?;
                File::open(&place)?.sync_all()?;
            }
            rounds[at].push(rate(began.elapsed()));
        }
        drop(db);
        fs::remove_dir_all(&place)?;
    }
    let [ours, sqlite, file, raw] = &rounds;
    print("put", "MB/s", true, &[("underbelly", ours), ("sqlite", sqlite), ("file", file)]);
    let share = median(ours.clone()) / median(raw.clone());
    println!("raw write+fdatasync: {} MB/s; ours is {share:.2} of it", Plain(median(raw.clone())));
    Ok(())
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
    fs::write(place.join("large"), &bytes)?;
    drop(bytes);
    let gets = (GETS / effort.divisor).max(100);
    let mut select = connection.prepare("select blob from models where id = ?1")?;
    let mut rounds: [Vec<f64>; 5] = Default::default();
    let (mut sum, find) = (0u64, Metadata::new("large"));
    let finds: Vec<Metadata> = (0..100).map(metadata).collect();
    for _ in 0..effort.rounds {
        let began = Instant::now();
        let model = db.snapshot().model(&find)?.ok_or("the blob is gone")?;
        sum += u64::from(model.range(large as u64 / 2..large as u64 / 2 + 1)?[0]);
        rounds[0].push(micros(began.elapsed(), 1));
        let began = Instant::now();
        let mut whole = Vec::new();
        File::open(place.join("large"))?.read_to_end(&mut whole)?;
        sum += u64::from(whole[whole.len() / 2]);
        rounds[1].push(micros(began.elapsed(), 1));
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
    }
    let [first, whole, ours, sqlite, file] = &rounds;
    print("first-byte-of-large", "µs", false, &[("underbelly", first), ("file read whole", whole)]);
    print("get-1KiB", "µs", false, &[("underbelly", ours), ("sqlite", sqlite), ("file", file)]);
    println!("(checked by the sum {sum})");
    drop(select);
    drop((connection, db));
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
    let mut rounds: [Vec<f64>; 5] = Default::default();
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
    }
    let [id, dict, sqlite_id, desk, sqlite_desk] = &rounds;
    print(
        &format!("latest-by-identity among {count}"),
        "µs",
        false,
        &[("underbelly", id), ("sqlite", sqlite_id)],
    );
    print(
        &format!("latest-by-metadata among {count}"),
        "µs",
        false,
        &[("underbelly", dict), ("sqlite", sqlite_id)],
    );
    print(
        &format!("attribute with 100 hits among {count}"),
        "µs",
        false,
        &[("underbelly", desk), ("sqlite", sqlite_desk)],
    );
    drop((by_identity, by_desk));
    drop((connection, db));
    fs::remove_dir_all(place)?;
    Ok(())
}
