//! Sealed columns of numbers and of texts: encoding with the comparison that follows it, and decoding, in values a second on one core
//! and in each set of instructions that the processor has.

use std::collections::HashSet;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use underbelly_benches::or_exit;
use underbelly_storage::disk::SimulatedDisk;
use underbelly_storage::{
    Alone, Column, Columns, Instructions, Segment, SegmentInfo, SegmentRows, Seqs, StorageError, Values,
    write_segment,
};

/// Rows of a full group.
const ROWS: usize = 131_072;

/// A number that looks like chance.
fn mixed(i: u64) -> u64 {
    let mixed = (i ^ i >> 30).wrapping_add(7).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb).rotate_left(31)
}

/// Columns that need different forms.
fn columns() -> Vec<(&'static str, Column)> {
    let rows = 0..ROWS as u64;
    let mut walk = 1_000_000i64;
    let mut time = 1_700_000_000_000_000_000i64;
    let walks = rows.clone().map(|i| {
        walk += (mixed(i) % 7) as i64 - 3;
        walk as f64 / 100.0
    });
    let times = rows.clone().map(|i| {
        time += (mixed(i) % 20_000) as i64;
        time
    });
    vec![
        (
            "decimals",
            Column::from(
                rows.clone().map(|i| (10_000 + mixed(i) % 4_096) as f64 / 100.0).collect::<Vec<_>>(),
            ),
        ),
        ("walk of decimals", Column::from(walks.collect::<Vec<_>>())),
        ("doubles", Column::from(rows.clone().map(|i| (mixed(i) as f64).sqrt()).collect::<Vec<_>>())),
        ("sizes", Column::from(rows.clone().map(|i| (1 + mixed(i) % 999) as i64).collect::<Vec<_>>())),
        ("times", Column::from(times.collect::<Vec<_>>())),
        ("few", Column::from(rows.clone().map(|i| mixed(mixed(i) % 5) as i64).collect::<Vec<_>>())),
        ("runs", Column::from(rows.map(|i| mixed(i / 100) as i64).collect::<Vec<_>>())),
    ]
}

/// Columns of texts without equals, and of few that are long; each text by chance and the same in every run.
fn texts() -> Vec<(&'static str, Column)> {
    let below = |i: u64, what: u64, end: u64| mixed(i * 31 + what) % end;
    let made = |text: &dyn Fn(u64) -> String| {
        (0..ROWS as u64).map(text).collect::<Vec<_>>().iter().collect::<Column>()
    };
    let pick = |i: u64, what: u64, of: &[&'static str]| of[below(i, what, of.len() as u64) as usize];
    let message = |i: u64| {
        let host = pick(i, 1, &["gateway-1", "gateway-2", "matcher", "risk", "feed-arca", "settle"]);
        match below(i, 0, 3) {
            0 => {
                let what = pick(i, 2, &["accepted", "rejected", "cancelled", "replaced", "filled"]);
                format!("{host} order {} {what} in {} us", below(i, 3, 90_000_000), below(i, 4, 5_000))
            }
            1 => format!("WARN {host} queue {} holds {} messages", below(i, 3, 16), below(i, 4, 100_000)),
            _ => format!(
                "INFO {host} user{} from 10.0.{}.{}",
                below(i, 3, 5_000),
                below(i, 4, 256),
                below(i, 5, 256)
            ),
        }
    };
    let url = |i: u64| {
        let site = pick(i, 1, &["example", "tradehouse", "marketdata"]);
        let part = pick(i, 2, &["products", "news", "account/orders", "api/v2/quotes"]);
        format!("https://www.{site}.com/{part}/{}?session={:08x}", below(i, 3, 100_000), below(i, 4, 1 << 32))
    };
    let json = |i: u64| {
        let kind = pick(i, 1, &["fill", "ack", "cancel"]);
        let (cents, size) = (5_000 + below(i, 2, 20_000), 1 + below(i, 3, 999));
        format!(
            "{{\"type\":\"{kind}\",\"seq\":{i},\"price\":{}.{:02},\"size\":{size}}}",
            cents / 100,
            cents % 100
        )
    };
    let letters = |i: u64| (0..4).map(|at| (b'A' + below(i, at, 26) as u8) as char).collect::<String>();
    let noise = |i: u64| (0..20).map(|at| (b' ' + below(i, at, 95) as u8) as char).collect::<String>();
    vec![
        ("messages", made(&message)),
        (
            "UUIDs",
            made(&|i| {
                format!(
                    "{:08x}-{:04x}-4{:03x}-{:016x}",
                    below(i, 0, 1 << 32),
                    below(i, 1, 1 << 16),
                    below(i, 2, 1 << 12),
                    mixed(i)
                )
            }),
        ),
        ("order ids", made(&|i| format!("ORD{:010}{:06X}", 4_400_000_000 + i * 3, below(i, 0, 1 << 24)))),
        ("URLs", made(&url)),
        (
            "paths",
            made(&|i| {
                format!(
                    "/srv/data/{}/2024/{:02}/part-{:05}.csv.gz",
                    pick(i, 0, &["trades", "quotes"]),
                    1 + below(i, 1, 12),
                    below(i, 2, 100_000)
                )
            }),
        ),
        ("JSON", made(&json)),
        ("codes", made(&|i| format!("{}.{}", letters(i), pick(i, 9, &["XNAS", "XNYS", "ARCX", "BATS"])))),
        ("noise", made(&noise)),
        ("40,000 URLs", made(&|i| url(below(i, 7, 40_000)))),
    ]
}

fn write(disk: &SimulatedDisk, columns: &Columns, timestamps: &[i64]) -> Result<SegmentInfo, StorageError> {
    let keys = HashSet::new();
    let rows = SegmentRows {
        timestamps,
        seqs: Seqs::Assigned,
        columns,
        keys: &keys,
        by_key: false,
        after: 0,
        replaced: &[],
    };
    write_segment(disk, "1.seg", [1; 16], &rows, &Alone)
}

fn codec(criterion: &mut Criterion) {
    let timestamps = vec![0; ROWS];
    let mut group = criterion.benchmark_group("codec");
    group.sample_size(30).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, column) in columns() {
        let columns = or_exit(Columns::new().with(name, column).map_err(Into::into));
        group.bench_with_input(BenchmarkId::new("write", name), &columns, |bencher, columns| {
            bencher.iter(|| or_exit(write(&SimulatedDisk::new(), columns, &timestamps).map_err(Into::into)));
        });
        let disk = SimulatedDisk::new();
        or_exit(write(&disk, &columns, &timestamps).map_err(Into::into));
        let segment = or_exit(Segment::open(&disk, "1.seg", [1; 16], None).map_err(Into::into));
        let bytes = segment.block(0, name).map_or(0, |block| block.bytes);
        println!("{name}: {:.2} bits a value", bytes as f64 * 8.0 / ROWS as f64);
        let best = Instructions::in_use();
        for set in Instructions::all() {
            set.choose();
            let id = BenchmarkId::new(format!("read {}", set.name()), name);
            group.bench_with_input(id, &segment, |bencher, segment| {
                bencher.iter(|| or_exit(segment.column(0, name).map_err(Into::into)));
            });
        }
        best.choose();
    }
    group.finish();
}

/// Texts, in bytes a second of the text.
fn text(criterion: &mut Criterion) {
    let timestamps = vec![0; ROWS];
    let few: Vec<u32> = (0..20).map(|i| i * 6_553).collect();
    let mut group = criterion.benchmark_group("text");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for (name, column) in texts() {
        let (Values::Utf8(strings) | Values::Bytes(strings)) = column.values() else { continue };
        let (text, plain) = (strings.bytes().len() as u64, (strings.bytes().len() + 4 * (ROWS + 1)) as f64);
        group.throughput(Throughput::Bytes(text));
        let columns = or_exit(Columns::new().with(name, column).map_err(Into::into));
        group.bench_with_input(BenchmarkId::new("write", name), &columns, |bencher, columns| {
            bencher.iter(|| or_exit(write(&SimulatedDisk::new(), columns, &timestamps).map_err(Into::into)));
        });
        let disk = SimulatedDisk::new();
        or_exit(write(&disk, &columns, &timestamps).map_err(Into::into));
        let segment = or_exit(Segment::open(&disk, "1.seg", [1; 16], None).map_err(Into::into));
        if let Some(block) = segment.block(0, name) {
            let (encoding, bytes) = (block.encoding, block.bytes);
            println!("{name}: {encoding:?}, {bytes} bytes, {:.3} of plain", bytes as f64 / plain);
        }
        group.bench_with_input(BenchmarkId::new("read", name), &segment, |bencher, segment| {
            bencher.iter(|| or_exit(segment.column(0, name).map_err(Into::into)));
        });
        group.bench_with_input(BenchmarkId::new("read 20 rows", name), &segment, |bencher, segment| {
            bencher.iter(|| or_exit(segment.column_at(0, name, &few).map_err(Into::into)));
        });
    }
    group.finish();
}

criterion_group!(benches, codec, text);
criterion_main!(benches);
