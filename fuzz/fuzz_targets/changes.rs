//! Pages of the feed of changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use underbelly::rewrite_page;

fuzz_target!(|bytes: &[u8]| {
    // The last transaction, then the page.
    let Some((last, page)) = bytes.split_first_chunk() else { return };
    let last = u64::from_le_bytes(*last);
    let Ok(again) = rewrite_page(last, page) else { return };
    assert!(again.len() <= page.len(), "a page grew as it was written anew");
    assert!(
        rewrite_page(last, &again).is_ok_and(|third| third == again),
        "what is written is not what is read"
    );
});
