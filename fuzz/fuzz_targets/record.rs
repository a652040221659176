//! The payload of a log record.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::graph::Event;
use underbelly::record::{decode, v1};

fuzz_target!(|bytes: &[u8]| {
    let Ok((_, record)) = decode(bytes) else { return };
    for delete in record.deletes {
        delete.delete.keys.iter().for_each(|(_, value)| drop(underbelly::Value::from(value)));
    }
    for append in record.appends {
        match append.rows {
            v1::Rows::Inline { columns, .. } => {
                for column in columns {
                    if let Ok(column) = column.into_column() {
                        (0..column.len()).for_each(|row| drop(column.get(row)));
                    }
                }
            }
            v1::Rows::Segment(reference) => reference.schema.iter().for_each(|c| drop(c.known_type())),
        }
    }
    for model in record.models {
        let _ = underbelly::Metadata::from_cbor(&model.metadata);
    }
    if let Some(event) = record.event {
        let _ = Event::try_from(event);
    }
});
