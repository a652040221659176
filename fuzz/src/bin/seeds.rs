//! Writes a small seed corpus, made by the real encoders, into `corpus/` beside this crate's manifest.

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use underbelly::disk::SimulatedDisk;
use underbelly::graph::{Event, EventV1, Graph};
use underbelly::record::{self, v1};
use underbelly::{
    Batch, CHANGES_SERIES, Database, MetaValue, Metadata, Options, Outputs, ProducerDefinition, Row,
    SlotDefinition, Timestamp, Value, Values,
};
use underbelly_fuzz::{DATABASE, FILE, FRAMED_MAGIC, LOG, MANIFEST};
use underbelly_storage::{
    Alone, Column, ColumnType, Columns, Date, ImageWriter, ObjectId, SegmentRows, Seqs, write_chunk,
    write_framed, write_manifest, write_pack, write_segment,
};
use underbelly_wal::{Log, LogOptions, Start, WalError};

type Done = Result<(), Box<dyn Error>>;

fn seed(target: &str, name: impl std::fmt::Display, bytes: impl AsRef<[u8]>) -> Done {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(format!("seed-{name}")), bytes)?)
}

fn file(disk: &SimulatedDisk, name: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(disk.contents(name).ok_or_else(|| format!("{name} was not written"))?)
}

fn main() -> Done {
    database()?;
    metadata()?;
    segments()?;
    texts()?;
    objects()?;
    log()?;
    for (name, text) in [("dashes", "2014-06-02"), ("digits", "20140602"), ("id", &"0f".repeat(32))] {
        seed("text", name, text)?;
    }
    instants()?;
    imports()
}

/// Texts of instants, each behind the byte that says how its column is written.
fn instants() -> Done {
    let texts = [
        "2014-06-02T13:30:00Z\n20140602\n2014-06-02 09:30[America/New_York]",
        "1401715800\n1401715800.25\n-1e9",
        "1401715800000000000\n9223372036854775807",
        "02/06/2014 09:30\n2 June\n2014-03-09 02:30",
        "2014-06-02 -0500\nnow\n",
    ];
    for (choice, text) in (0..=240u8).step_by(7).zip(texts.iter().cycle()) {
        // What makes a tuple of bytes: the byte first, the text as the rest.
        let mut bytes = vec![choice];
        bytes.extend_from_slice(text.as_bytes());
        seed("instant", choice, bytes)?;
    }
    Ok(())
}

/// Files for the import, each behind the byte that chooses its options.
fn imports() -> Done {
    let files = [
        "t,k,x\n2014-06-02T13:30:00Z,a,1\n2014-06-02T13:30:01Z,b,2.5\n",
        "#t,k,x,day\r\n1401715800000,\"a,\"\"b\nc\",NA,2014-06-02\r\n1401715800001,,0x00ff,-\r\n",
        "t,k,x\n1,a,9007199254740993\n2,a,0.1\n3,a,true\n",
        "k,t\na,20140602\nb\n\nc,2014-06-03,1\n",
        "t\tk\tx\n1\ta\t1\n2\tb\tsoon\n",
    ];
    for (i, file) in files.iter().enumerate() {
        for choice in [0u8, 1, 4, 8, 32, 64, 129] {
            let mut bytes = vec![choice];
            bytes.extend_from_slice(file.as_bytes());
            seed("import", format!("{i}-{choice}"), bytes)?;
        }
        let mut zipped = flate2::write::GzEncoder::new(vec![2], flate2::Compression::fast());
        std::io::Write::write_all(&mut zipped, file.as_bytes())?;
        seed("import", format!("{i}-zipped"), zipped.finish()?)?;
    }
    Ok(())
}

/// A slot, its copy, a series and a model; the log of all that gives records, events and contents.
fn database() -> Done {
    let disk = SimulatedDisk::new();
    let options = Options { log_file_bytes: 64 << 10, workers: 1, ..Options::default() };
    let db = Database::create_on(Arc::new(disk.clone()), options)?;
    for name in ["raw", "copy"] {
        let slot =
            SlotDefinition::new(name).cell_key("expiry", ColumnType::Date).row_key("strike", ColumnType::F64);
        db.define_slot(slot.value("bid", ColumnType::F64).value("note", ColumnType::Utf8))?;
    }
    db.register(ProducerDefinition::new("copier").requires("raw").provides("copy"), |run| {
        Ok(Outputs::new().put("copy", run.input("raw")?))
    })?;
    let day = Date(16_000);
    let mut batch = Batch::new();
    let rows = Columns::new()
        .with("strike", vec![90.0, 100.0].into())?
        .with("bid", Column::from(vec![1.5, f64::NAN]))?
        .with("note", ["", "thin"].iter().collect())?;
    batch.put_slot("raw", day, [day], rows);
    batch.put_model(Metadata::new("smile").with("timestamp", Timestamp(5)), b"blob".to_vec());
    batch
        .append(Row::new("trade", Timestamp(1)).key("symbol", "IBM").field("price", 1.5).field("size", 3))?;
    batch
        .append(Row::new("trade", Timestamp(2)).key("symbol", "AA").field("flag", true).field("day", day))?;
    batch.append(Row::new("trade", Timestamp(3)).field("raw", vec![1u8, 2]).field("at", Timestamp(9)))?;
    db.commit(batch)?;
    db.wait_idle(std::time::Duration::from_secs(5));
    let mut batch = Batch::new();
    batch.retract_slot("raw", day, [day]).end_of(day);
    db.commit(batch)?;
    db.wait_idle(std::time::Duration::from_secs(5));

    let (mut graph, mut history) = (Graph::new(), Vec::new());
    let log = LogOptions::with_file_len(64 << 10);
    let mut failed: Done = Ok(());
    let mut visit = |seq: u64, payload: &[u8]| {
        failed = std::mem::replace(&mut failed, Ok(())).and_then(|()| {
            seed("record", seq, payload)?;
            let (time, record) = record::decode(payload)?;
            for (i, object) in record.objects.iter().enumerate() {
                if let v1::Object::Inline { bytes } = object {
                    seed("content", format!("{seq}-{i}"), bytes)?;
                }
            }
            if let Some(event) = record.event {
                let event = Event::try_from(event)?;
                let bytes = EventV1::from(&event).to_bytes()?;
                history.extend_from_slice(&u16::try_from(bytes.len())?.to_le_bytes());
                history.extend_from_slice(&bytes);
                seed("event", seq, &history)?;
                graph.apply(seq, time, &event)?;
                seed("image", seq, image(&graph)?)?;
            }
            Ok(())
        });
        Ok::<(), WalError>(())
    };
    Log::open(Arc::new(disk.crash()), db.status().database, Start::at(1), 0, log, &mut visit)?;
    failed?;
    // Closes the page that grows.
    db.checkpoint()?;
    let pages = db.snapshot().series(CHANGES_SERIES)?.scan().collect()?;
    if let Some(Values::Bytes(pages)) = pages.column("page").map(Column::values) {
        let last = db.head_seq().to_le_bytes();
        seed("changes", "page", [&last[..], pages.get(pages.len() - 1)].concat())?;
    }
    db.close()?;
    let newest = disk.files().into_iter().rfind(|name| name.starts_with("MANIFEST-"));
    seed("manifest", "database", file(&disk, &newest.ok_or("there is no manifest")?)?)
}

/// The image of a graph.
fn image(graph: &Graph) -> Result<Vec<u8>, Box<dyn Error>> {
    let disk = SimulatedDisk::new();
    let mut writer = ImageWriter::create(&disk, FILE, DATABASE)?;
    for (key, value) in graph.to_records() {
        writer.push(key, Some(&value))?;
    }
    writer.finish()?;
    file(&disk, FILE)
}

fn metadata() -> Done {
    let list = MetaValue::List(vec![1.into(), 2.5.into(), "three".into(), MetaValue::Null]);
    let inner = Metadata::new("inner").with("list", list).entries().clone();
    let plain = Metadata::new("smile").with("timestamp", Timestamp(1_400_000_000_123_456_789));
    let nested = plain.clone().with("ok", true).with("inner", inner).with("raw", vec![0u8, 255]);
    for (name, metadata) in [("plain", plain), ("nested", nested)] {
        seed("metadata_cbor", name, metadata.to_cbor()?)?;
        seed("metadata_json", name, metadata.to_json())?;
    }
    Ok(())
}

/// Rows whose columns need different encodings.
fn segments() -> Done {
    for (name, rows) in [("none", 0), ("one", 1), ("few", 70), ("vectors", 2100)] {
        let mut columns = Columns::with_types([
            ("flag", ColumnType::Bool),
            ("count", ColumnType::I64),
            ("price", ColumnType::F64),
            ("noise", ColumnType::F64),
            ("symbol", ColumnType::Utf8),
            ("text", ColumnType::Utf8),
            ("raw", ColumnType::Bytes),
            ("at", ColumnType::Timestamp),
            ("day", ColumnType::Date),
            ("lots", ColumnType::I32),
            ("vol", ColumnType::F32),
        ])?;
        for n in 0..rows {
            let unless = |null: bool, value: Value| if null { Value::Null } else { value };
            columns.push_row(&[
                (n % 3 == 0).into(),
                unless(n % 7 == 0, (n * n).into()),
                (f64::from(n as u32) / 100.0).into(),
                (f64::from(n as u32).sqrt()).into(),
                ["IBM", "AA", "MSFT"][n as usize % 3].into(),
                unless(n % 5 == 0, format!("row {n}").into()),
                vec![n as u8; n as usize % 4].into(),
                Timestamp(n << 40).into(),
                Date(16_000 + (n / 50) as i32).into(),
                Value::I32(n as i32 * 3),
                (n as f32 / 8.0).into(),
            ])?;
        }
        let timestamps: Vec<i64> = (0..rows).map(|n| n / 2 * 1000).collect();
        let each: Vec<u64> = (0..rows as u64).map(|n| 1 + n % 9).collect();
        let kinds = [
            ("assigned", Seqs::Assigned, false),
            ("each", Seqs::Each(&each), false),
            ("by-key", Seqs::Each(&each), true),
        ];
        for (kind, seqs, by_key) in kinds {
            let disk = SimulatedDisk::new();
            write_segment(
                &disk,
                FILE,
                DATABASE,
                &SegmentRows {
                    timestamps: &timestamps,
                    seqs,
                    columns: &columns,
                    keys: &if by_key { HashSet::from(["symbol"]) } else { HashSet::new() },
                    by_key,
                    after: 0,
                    replaced: &[],
                },
                &Alone,
            )?;
            seed("segment", format!("{name}-{kind}"), file(&disk, FILE)?)?;
        }
    }
    Ok(())
}

/// Texts that are written as symbols and in LZ4 blocks.
fn texts() -> Done {
    for (name, rows, each) in [("two-texts", 2, 90), ("texts", 80, 2), ("vectors-of-texts", 1_100, 1)] {
        let mut columns = Columns::with_types([
            ("order", ColumnType::Utf8),
            ("raw", ColumnType::Bytes),
            ("file", ColumnType::Utf8),
        ])?;
        for n in 0..rows {
            let order = format!("desk/orders/{}/filled ", n * n).repeat(each);
            let order = if n % 7 == 3 { Value::Null } else { order.into() };
            let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let raw = format!("\0{mixed:016x} is filled\u{ff}").repeat(each).into_bytes();
            let folder = (n as u64 / 50 + 9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let file = format!("/srv/{folder:016x}{:016x}/part-{n}.csv", folder.rotate_left(29));
            columns.push_row(&[order, raw.into(), file.repeat(each).into()])?;
        }
        let timestamps: Vec<i64> = (0..rows).collect();
        let disk = SimulatedDisk::new();
        write_segment(
            &disk,
            FILE,
            DATABASE,
            &SegmentRows {
                timestamps: &timestamps,
                seqs: Seqs::Assigned,
                columns: &columns,
                keys: &HashSet::new(),
                by_key: false,
                after: 0,
                replaced: &[],
            },
            &Alone,
        )?;
        seed("segment", name, file(&disk, FILE)?)?;
    }
    Ok(())
}

fn objects() -> Done {
    let bodies: [&[u8]; 3] = [b"", b"one", &[7; 100]];
    for count in 0..=bodies.len() {
        let disk = SimulatedDisk::new();
        write_pack(&disk, FILE, DATABASE, bodies[..count].iter().map(|body| (ObjectId::of(body), *body)))?;
        seed("pack", count, file(&disk, FILE)?)?;
    }
    for (name, body) in bodies.iter().enumerate() {
        let disk = SimulatedDisk::new();
        write_chunk(&disk, FILE, DATABASE, body)?;
        seed("chunk", name, file(&disk, FILE)?)?;
        let disk = SimulatedDisk::new();
        write_framed(&disk, FILE, FRAMED_MAGIC, DATABASE, body)?;
        seed("framed", name, file(&disk, FILE)?)?;
        let disk = SimulatedDisk::new();
        write_manifest(&disk, 1, 1, DATABASE, body)?;
        seed("manifest", name, file(&disk, MANIFEST)?)?;
    }
    Ok(())
}

fn log() -> Done {
    let disk = SimulatedDisk::new();
    let mut log = Log::create(Arc::new(disk.clone()), DATABASE, 1, LogOptions::with_file_len(16 << 10))?;
    seed("log", "empty", file(&disk, LOG)?)?;
    log.write(&[(1, b"first".to_vec()), (2, Vec::new())])?;
    seed("log", "batch", file(&disk, LOG)?)?;
    log.write(&[(3, vec![3; 2000])])?;
    seed("log", "batches", file(&disk, LOG)?)?;
    let mut torn = file(&disk, LOG)?;
    torn[9000..].fill(0);
    seed("log", "torn", torn)?;
    log.seal()?;
    seed("log", "sealed", file(&disk, LOG)?)
}
