//! Frames of the protocol, and the messages in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly_protocol::{Message, frame};

fuzz_target!(|bytes: &[u8]| {
    // As a message alone, too, so that what is behind the header is reached.
    let _ = Message::decode(bytes);
    let mut rest = bytes;
    while let Ok(frame) = frame::read(&mut rest) {
        let Ok(message) = Message::decode(&frame.control) else { continue };
        if matches!(message, Message::Unknown(_)) {
            continue;
        }
        let again = message.encode().map(|bytes| Message::decode(&bytes).map(|again| again.encode()));
        assert!(matches!(again, Ok(Ok(Ok(_)))), "{message:?}");
    }
});
