//! Files that `ubctl import` loads, plain and gzip'd, as the command does it: survey, plan, load, close.
//!
//! The first byte chooses the options, the rest is the file.
#![no_main]
#![allow(dead_code, unused_imports)] // Of modules of `ubctl` that are taken in as they are.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use underbelly::{Database, Options, SimulatedDisk};

#[path = "../../tools/ubctl/src"]
mod ubctl {
    pub(crate) mod error;
    pub(crate) mod form;
    pub(crate) mod import;
    pub(crate) mod output;
    pub(crate) mod progress;
    pub(crate) mod stderr;
    pub(crate) mod time;
}

use ubctl::{error, form, import, output, progress, stderr, time};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    import: import::Import,
}

/// A folder of this process alone. It stays when the process ends, with one small file in it.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let shared = PathBuf::from("/dev/shm");
        let root = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let folder = root.join(format!("underbelly-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the file");
        folder
    })
}

fn options() -> Options {
    Options { log_file_bytes: 16 << 10, workers: 1, ..Options::default() }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let skips = choice & 1 != 0;
    let file = folder().join(if choice & 2 != 0 { "x.csv.gz" } else { "x.csv" });
    fs::write(&file, bytes).expect("a file");
    let rejected = folder().join("rejected.csv");
    let file = file.display().to_string();
    let rejected = rejected.display().to_string();
    let mut line = vec!["import", &file, "--series", "s", "--time", "t", "--format", "csv"];
    if skips {
        line.extend(["--on-error", "skip", "--rejected", &rejected]);
    }
    if choice & 4 != 0 {
        line.extend(["--key", "k"]);
    }
    if choice & 8 != 0 {
        line.extend(["--unit", "ms"]);
    }
    if choice & 16 != 0 {
        line.extend(["--zone", "America/New_York", "--null", "NA,-"]);
    }
    if choice & 32 != 0 {
        line.extend(["--columns", "x:f64,day:date", "--rename", "x=price"]);
    }
    if choice & 64 != 0 {
        line.extend(["--delimiter", "tab"]);
    }
    let command = Command::try_parse_from(line).expect("options that there are");
    let disk = SimulatedDisk::new();
    let db = Database::create_on(Arc::new(disk.clone()), options()).expect("a database in memory");
    let closed = db.clone();
    let done = command.import.run(db);
    let _ = fs::remove_file(&rejected);
    let snapshot = closed.snapshot();
    let rows = snapshot.series("s").map_or(0, |series| series.count().expect("rows that can be read"));
    match done {
        // Every line is a row where none may be skipped. The reader of lines passes over empty ones.
        Ok(()) if !skips && choice & 2 == 0 => {
            let delimiter = if choice & 64 != 0 { b'\t' } else { b',' };
            let mut reader = csv::ReaderBuilder::new();
            let mut reader = reader.has_headers(false).flexible(true).delimiter(delimiter).from_reader(bytes);
            assert_eq!(rows as usize, reader.byte_records().count().saturating_sub(1));
        }
        Ok(()) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    drop((snapshot, closed));
    if choice & 128 != 0 {
        let db = Database::open_on(Arc::new(disk), options()).expect("what was loaded is whole");
        assert_eq!(db.verify(|_, _| ()).expect("a database that can be read").damages, Vec::<String>::new());
        assert_eq!(
            db.snapshot().series("s").map_or(0, |series| series.count().expect("the same rows")),
            rows
        );
    }
});
