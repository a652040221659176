//! Commands that read far more than they may hold.

use std::process::Stdio;
use std::time::Duration;

use underbelly::arrow::Writer;
use underbelly::{Batch, Column, ColumnType, Columns, Database, Options, Timestamp};

use crate::{Place, words};

/// What a command may hold.
const CAP: u64 = 16 << 20;
/// Pages of the program itself that it needs where there are rows, code without optimization among them, and what its allocator keeps.
const PROGRAM: u64 = 8 << 20;
/// Rows of the series: each has a text of 220 characters without a pattern.
const ROWS: usize = 800_000;
const TEXT_BYTES: usize = 220;
/// Rows of an append.
const APPEND_ROWS: usize = 50_000;

/// Characters without a pattern, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn text(&mut self, to: &mut Vec<u8>) {
        to.clear();
        while to.len() < TEXT_BYTES {
            // Seven bits of each byte, from '0' to 'o'.
            to.extend(self.next().to_le_bytes().map(|byte| b'0' + (byte & 63)));
        }
        to.truncate(TEXT_BYTES);
    }
}

/// Rows from a number on, of ten keys.
fn rows(first: usize, count: usize, noise: &mut Noise) -> (Vec<Timestamp>, Columns) {
    let times = (first..first + count).map(|row| Timestamp(row as i64 * 1_000_000)).collect();
    let mut texts = Column::new(ColumnType::Utf8);
    let mut text = Vec::new();
    for _ in 0..count {
        noise.text(&mut text);
        texts.push(&String::from_utf8(text.clone()).unwrap().into()).unwrap();
    }
    let syms: Column = (first..first + count).map(|row| format!("s{}", row % 10)).collect();
    let x: Vec<f64> = (0..count).map(|_| (noise.next() >> 12) as f64).collect();
    let rows = Columns::new().with("sym", syms).unwrap().with("x", x.into()).unwrap();
    (times, rows.with("text", texts).unwrap())
}

/// A series `big` of so many rows, all of them sealed, and a short one beside it.
fn filled(count: usize) -> Place {
    let place = Place::bare();
    let db = Database::create_with(place.db(), Options::default()).unwrap();
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut append = |series: &str, first: usize, count: usize| {
        let (times, columns) = rows(first, count, &mut noise);
        let mut batch = Batch::new();
        batch.append_columns(series, times, columns, &["sym"]).unwrap();
        db.commit(batch).unwrap();
    };
    append("small", 0, 100);
    for first in (0..count).step_by(APPEND_ROWS) {
        append("big", first, APPEND_ROWS.min(count - first));
    }
    db.checkpoint().unwrap();
    db.close().unwrap();
    place
}

/// The most memory that a command ever has, pages of files among it.
fn peak(place: &Place, line: &str) -> u64 {
    let mut command = place.command(words(line));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // The mark only rises, so it matters little when it is read last.
    while child.try_wait().unwrap().is_none() {
        let read = std::fs::read_to_string(&status).unwrap_or_default();
        let mark = read.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = mark.and_then(|mark| mark.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_micros(500));
    }
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
    peak
}

/// The same of a command that ends at once, perhaps before anybody looks at its mark where it is highest: the most of several.
fn base(place: &Place, line: &str) -> u64 {
    let base = (0..16).map(|_| peak(place, line)).max().unwrap_or(0);
    assert!(base > 0, "{line} ended before anybody looked, each time");
    base
}

#[test]
#[cfg(target_os = "linux")]
fn reading_ten_times_as_much_as_memory_allows_stays_below_it() {
    let (place, nothing) = (filled(ROWS), filled(1));
    let stored = place.json(words("series info big --format json"));
    let stored = stored.as_array().map_or(&stored, |rows| &rows[0]);
    assert_eq!(stored["young_runs"], 0, "{stored}");
    assert!(stored["segment_bytes"].as_u64().unwrap() > CAP * 8, "{stored}");
    // The same rows in files.
    for place in [(&place, ROWS), (&nothing, 1)] {
        let (place, count) = place;
        std::fs::create_dir(place.path("files")).unwrap();
        let mut noise = Noise(7);
        let mut writer: Option<Writer<std::fs::File>> = None;
        for first in (0..count).step_by(4_096) {
            let (times, rows) = rows(first, 4_096.min(count - first), &mut noise);
            let rows = rows.with("timestamp", times.into()).unwrap();
            let writer = writer.get_or_insert_with(|| {
                let file = std::fs::File::create(place.path("files").join("a.arrow")).unwrap();
                Writer::file(file, &rows).unwrap()
            });
            writer.write(rows).unwrap();
        }
        writer.unwrap().finish().unwrap();
    }
    let mut above = Vec::new();
    for line in [
        "series range big --format csv",
        "series range big --format json --key sym=s3",
        "series resample big --every 1m --by sym --ohlc x --max text",
        "series asof big small --by sym --format csv",
        "series asof small big --by sym --format csv",
        "series last big",
        "series latest big -n 100",
        "export big --format arrow",
        "export big --format csv",
        "series range ./files --format csv",
        "series asof big ./files --by sym --format csv",
        "series resample ./files --every 1m --by sym --ohlc x",
    ] {
        let line = format!("--memory 16M {line}");
        let (base, peak) = (base(&nothing, &line), peak(&place, &line));
        println!("{line}: {} of {} KiB", (peak - base.min(peak)) >> 10, CAP >> 10);
        if peak >= base + CAP + PROGRAM {
            above.push(format!("{line}: {peak} bytes, and {base} of a database with a row"));
        }
    }
    assert!(above.is_empty(), "{above:#?}");
    // What would be there otherwise.
    let line = "series range big --format csv";
    let (base, peak) = (base(&nothing, line), peak(&place, line));
    assert!(peak > base + 3 * CAP, "{line}: {peak} bytes, and {base} of a database with a row");
}

#[test]
fn answers_that_do_not_fit_are_refused_with_what_helps() {
    let place = filled(20_000);
    for (line, operator) in [
        ("series latest big -n 20000", "a search for the newest rows"),
        ("series resample big --every 1ms --max text", "a resampling"),
    ] {
        let refused = place.fails(words(&format!("--memory 1M {line}")));
        assert!(refused.contains(operator) && refused.contains("may have 1048576"), "{refused}");
        assert!(refused.contains("or allow more memory"), "{refused}");
        place.ok(words(&format!("--memory 256M {line}")));
    }
    let little = place.run(words("--memory 9 series ls"));
    assert!(little.code == 2 && little.stderr.contains("1M"), "{}", little.stderr);
}

#[test]
fn answers_are_the_same_with_little_memory() {
    let place = filled(30_000);
    for line in [
        "series range big --format csv --columns sym,x",
        "series asof big small --by sym --format csv --columns x",
        "series resample big --every 1s --by sym --ohlc x --rows",
        "series last big --format csv",
        "series latest big -n 20 --format csv",
        "export big --columns x --where x>=1000 --format jsonl",
    ] {
        let little = place.ok(words(&format!("--memory 1M {line}")));
        assert_eq!(little, place.ok(words(line)), "{line}");
    }
}
