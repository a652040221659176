//! Sealed columns of numbers: encoding with the comparison that follows it, and decoding, in values a second on one core
//! and in each set of instructions that the processor has.

use std::collections::HashSet;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use underbelly_benches::or_exit;
use underbelly_storage::disk::SimulatedDisk;
use underbelly_storage::{
    Alone, Column, Columns, Instructions, Segment, SegmentInfo, SegmentRows, Seqs, StorageError,
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

criterion_group!(benches, codec);
criterion_main!(benches);
