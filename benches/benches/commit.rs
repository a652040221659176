//! Durable commits a second at 1, 16 and 64 threads, beside raw writes and syncs of 4 KiB.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use underbelly_benches::commit::Commits;
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};
use underbelly_benches::{or_exit, place};

/// Commits of each thread in one iteration.
const EACH: u64 = 50;

fn commit(criterion: &mut Criterion) {
    let scratch = or_exit(place::scratch());
    let mut group = criterion.benchmark_group("commit");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let mut raw = or_exit(RawFile::create(scratch.path()).map_err(Into::into));
    group.throughput(Throughput::Elements(1));
    group.bench_function("raw 4 KiB write + fdatasync", |bencher| {
        bencher.iter_custom(|count| or_exit(raw.write_and_sync(BLOCK_BYTES, count).map_err(Into::into)));
    });
    for threads in [1, 16, 64] {
        let commits = or_exit(Commits::create(&scratch.path().join(threads.to_string())));
        group.throughput(Throughput::Elements(threads as u64 * EACH));
        group.bench_with_input(BenchmarkId::new("threads", threads), &threads, |bencher, threads| {
            bencher.iter_custom(|count| or_exit(commits.run(*threads, EACH * count)));
        });
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
