//! Synced appends through the log and as segments, beside raw writes of as many bytes; scans and last points.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use underbelly_benches::append::{Appends, ROW_BYTES};
use underbelly_benches::raw::RawFile;
use underbelly_benches::scan::Scans;
use underbelly_benches::{or_exit, place};

fn append(criterion: &mut Criterion) {
    let scratch = or_exit(place::scratch());
    let mut group = criterion.benchmark_group("append");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let mut raw = or_exit(RawFile::create(scratch.path()).map_err(Into::into));
    for rows in [1_000, 100_000] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_with_input(BenchmarkId::new("raw write + fdatasync", rows), &rows, |bencher, rows| {
            let mut write = |count| raw.write_and_sync(rows * ROW_BYTES, count);
            bencher.iter_custom(|count| or_exit(write(count).map_err(Into::into)));
        });
        let mut appends = or_exit(Appends::create(&scratch.path().join(rows.to_string())));
        group.bench_with_input(BenchmarkId::new("rows", rows), &rows, |bencher, rows| {
            bencher.iter_custom(|count| or_exit(appends.run(*rows, count)));
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let scratch = or_exit(place::scratch());
    let scans = or_exit(Scans::create(&scratch.path().join("scan"), 10));
    let mut group = criterion.benchmark_group("read");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(scans.rows()));
    group.bench_function("scan", |bencher| bencher.iter_custom(|count| or_exit(scans.scan(count))));
    group.throughput(Throughput::Elements(1));
    group.bench_function("last point", |bencher| {
        bencher.iter_custom(|count| or_exit(scans.last_point(count)));
    });
    group.finish();
}

criterion_group!(benches, append, read);
criterion_main!(benches);
