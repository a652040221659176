//! From a commit to the output of the producer that it wakes. The program of first figures prints percentiles.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use underbelly_benches::raw::{BLOCK_BYTES, RawFile};
use underbelly_benches::wake::Wakes;
use underbelly_benches::{or_exit, place};

fn wake(criterion: &mut Criterion) {
    let scratch = or_exit(place::scratch());
    let mut group = criterion.benchmark_group("wake");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    let mut raw = or_exit(RawFile::create(scratch.path()).map_err(Into::into));
    group.bench_function("raw 4 KiB write + fdatasync", |bencher| {
        bencher.iter_custom(|count| or_exit(raw.write_and_sync(BLOCK_BYTES, count).map_err(Into::into)));
    });
    let mut wakes = or_exit(Wakes::create(&scratch.path().join("db")));
    group.bench_function("commit to output current", |bencher| {
        bencher.iter_custom(|count| or_exit(wakes.run(count)));
    });
    // Durability included: from a commit's place in the sequence to the start of the producer.
    group.bench_function("commit to start, median", |bencher| {
        bencher.iter_custom(|count| {
            wakes.take_latencies();
            or_exit(wakes.run(count));
            wakes.take_latencies().commit_to_start.p50 * count as u32
        });
    });
    group.finish();
}

criterion_group!(benches, wake);
criterion_main!(benches);
