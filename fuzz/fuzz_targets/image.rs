//! State images, and the graph of one at work.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::Timestamp;
use underbelly::graph::{Event, Fact, Graph, ProducerId, RunId};
use underbelly_fuzz::{DATABASE, FILE, disk_with, reseal};
use underbelly_storage::image::{Image, Key};

/// Keys and values of an image, removals left out; `None` where it is damaged.
fn records(bytes: Vec<u8>) -> Option<Vec<(Key, Vec<u8>)>> {
    let disk = disk_with(FILE, bytes);
    let image = Image::open(&disk, FILE, DATABASE, None).ok()?;
    let mut records = Vec::new();
    for block in 0..image.blocks() {
        let lent = image.block(block).ok()?;
        records.extend(lent.iter().filter_map(|record| Some((record.key, record.value?.to_vec()))));
    }
    Some(records)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = records(bytes.to_vec());
    let sealed = reseal::closed(bytes, *b"UBIMAGE1", FILE, reseal::blocks);
    let Some(mut records) = records(sealed) else { return };
    records.retain(|(key, _)| Fact::is_of_graph(key.kind));
    let restored =
        |records: &[(Key, Vec<u8>)]| Graph::from_records(records.iter().map(|(key, value)| (*key, &**value)));
    let Ok(mut graph) = restored(&records) else { return };
    assert!(graph.to_records() == records);
    // A sequence number beyond all that the image can hold.
    let apply = |graph: &mut Graph, event| graph.apply(1 << 62, Timestamp::MAX, &event).is_ok();
    apply(&mut graph, Event::Reopen);
    for producer in 0..graph.producers().count() as u32 {
        apply(&mut graph, Event::Attach { producer: ProducerId(producer), host: None });
    }
    for run in 0..4 {
        let Some(bundle) = graph.next_ready() else { break };
        let run = RunId((1 << 62) + run);
        if !apply(&mut graph, Event::Start { bundle, run, batch: run }) {
            break;
        }
    }
    apply(&mut graph, Event::Tick);
    let _ = (graph.next_batch_where(Timestamp(0), |_| true, |_| 0), graph.next_due());
    for cell in graph.cells() {
        let _ = graph.cell_info(cell);
    }
    let after = graph.to_records();
    assert!(restored(&after).is_ok_and(|graph| graph.to_records() == after));
});
