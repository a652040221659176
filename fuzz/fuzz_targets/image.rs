//! The image of a slot graph, and a graph restored from it at work.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::Timestamp;
use underbelly::graph::{Event, Graph, GraphImageV1, ProducerId, RunId};

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = GraphImageV1::from_bytes(bytes) else { return };
    let Ok(mut graph) = Graph::from_image(&image) else { return };
    let again = graph.to_image();
    assert!(Graph::from_image(&again).is_ok_and(|graph| graph.to_image() == again));
    // A sequence number beyond all that the image can hold.
    let apply = |graph: &mut Graph, event| graph.apply(1 << 62, Timestamp::MAX, &event).is_ok();
    apply(&mut graph, Event::Reopen);
    for producer in 0..graph.producers().count() as u32 {
        apply(&mut graph, Event::Attach(ProducerId(producer)));
    }
    for run in 0..4 {
        let Some(bundle) = graph.next_ready() else { break };
        let run = RunId((1 << 62) + run);
        if !apply(&mut graph, Event::Start { bundle, run }) {
            break;
        }
    }
    for cell in graph.cells() {
        let _ = graph.cell_info(cell);
    }
});
