//! Events of the slot graph as they are logged, and what they do to a graph.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::Timestamp;
use underbelly::graph::{Event, EventV1, Graph};

fuzz_target!(|bytes: &[u8]| {
    // A history: each event behind its length in two bytes.
    let (mut rest, mut graph, mut seq) = (bytes, Graph::new(), 0);
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(more.len());
        let (bytes, next) = more.split_at(length);
        rest = next;
        let Ok(stored) = EventV1::from_bytes(bytes) else { continue };
        let Ok(event) = Event::try_from(stored) else { continue };
        let again = EventV1::from(&event).to_bytes().and_then(|bytes| EventV1::from_bytes(&bytes));
        assert_eq!(again, Ok(EventV1::from(&event)));
        let before = graph.to_records();
        let checked = graph.check(&event).is_ok();
        seq += 1;
        let applied = graph.apply(seq, Timestamp(seq as i64), &event).is_ok();
        assert_eq!(checked, applied, "{event:?}");
        assert!(applied || graph.to_records() == before, "a refused event changed something: {event:?}");
    }
    let records = graph.to_records();
    let restored = Graph::from_records(records.iter().map(|(key, value)| (*key, &**value)));
    assert!(
        restored.is_ok_and(|graph| graph.to_records() == records),
        "the graph does not survive its image"
    );
});
