//! Finds models by identity, by metadata and by their attributes with and without the index, and prints how long that takes:
//! `cargo run --release -p underbelly --example find -- [MODELS]`.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use underbelly::{Batch, Database, MetaValue, Metadata, Options, Timestamp, Where};

/// Longer than the index takes.
const LONG: Duration = Duration::from_secs(3_600);

/// Resident memory of this process in MiB, where the system tells.
fn resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

fn folder_mib(dir: &Path) -> std::io::Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        bytes += entry.metadata()?.len();
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

fn model(i: i64) -> Metadata {
    let fit =
        [("desk", MetaValue::from(i % 1_000)), ("rate", (i as f64 / 7.0).into()), ("seed", (i * 31).into())];
    let fit = fit.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    Metadata::new("smile")
        .with("underlying", format!("U{}", i % 5_000))
        .with("fit", MetaValue::Map(fit))
        .with("i", i)
        .with("timestamp", Timestamp(i))
}

fn ask(db: &Database, how: &str) -> Result<(), Box<dyn Error>> {
    let snapshot = db.snapshot();
    for (name, wanted) in [
        ("one", Where::equals("i", 77i64)),
        ("100", Where::equals("fit.desk", 77i64)),
        (
            "all of a type and one of 5,000",
            Where::equals("type", "smile").and(Where::equals("underlying", "U77")),
        ),
        ("a range", Where::between("fit.rate", 10.0..20.0)),
        ("every one", Where::exists("fit")),
    ] {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..5 {
            let began = Instant::now();
            found = snapshot.find_models_where(&wanted)?.len();
            times.push(began.elapsed());
        }
        times.sort();
        println!("find {how}, {name}: {found} found, median {:.3} ms", times[2].as_secs_f64() * 1e3);
    }
    Ok(())
}

/// How long the newest version of one among all takes, by its identity and by its metadata.
fn newest(db: &Database, models: i64) -> Result<(), Box<dyn Error>> {
    const GETS: i64 = 100_000;
    let pick = |n: i64| model(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).rem_euclid(models));
    let dicts: Vec<Metadata> = (0..GETS).map(pick).collect();
    let ids = dicts.iter().map(Metadata::id).collect::<Result<Vec<_>, _>>()?;
    let snapshot = db.snapshot();
    for (how, is_by_id) in [("identity", true), ("metadata", false)] {
        let mut times = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            for (id, dict) in ids.iter().zip(&dicts) {
                let found = if is_by_id { snapshot.model(id)? } else { snapshot.model(dict)? };
                found.ok_or("a model is gone")?;
            }
            times.push(began.elapsed());
        }
        times.sort();
        println!("newest by {how}: median {:.2} µs", times[2].as_secs_f64() * 1e6 / GETS as f64);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let models: i64 = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let dir = std::env::temp_dir().join(format!("underbelly-find-{}", std::process::id()));
    let db = Database::create(&dir)?;
    for start in (0..models).step_by(5_000) {
        let mut batch = Batch::new();
        for i in start..models.min(start + 5_000) {
            batch.put_model(model(i), vec![1]);
        }
        db.commit(batch)?;
    }
    println!("{models} models, resident {:.0} MiB", resident_mib().unwrap_or_default());
    db.close()?;
    let db = Database::open_with(&dir, Options { index_models_min: usize::MAX, ..Options::default() })?;
    ask(&db, "by scan")?;
    db.close()?;
    let began = Instant::now();
    let db = Database::open(&dir)?;
    let (opened, before) = (began.elapsed(), resident_mib());
    let began = Instant::now();
    db.wait_index(LONG);
    let grown = resident_mib().unwrap_or_default() - before.unwrap_or_default();
    newest(&db, models)?;
    println!(
        "opened in {:.0} ms, index of {} keys built in {:.2} s, resident {grown:+.0} MiB",
        opened.as_secs_f64() * 1e3,
        db.status().index.keys,
        began.elapsed().as_secs_f64()
    );
    ask(&db, "by index")?;
    let began = Instant::now();
    db.close()?;
    let closed = began.elapsed().as_secs_f64();
    println!("closed in {closed:.2} s, the index takes {:.0} MiB", folder_mib(&dir.join("index/sled"))?);
    let db = Database::open(&dir)?;
    let began = Instant::now();
    db.wait_index(LONG);
    println!("index opened and compared in {:.2} s", began.elapsed().as_secs_f64());
    println!("set aside: {:?}", db.status().index.set_aside);
    db.close()?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
