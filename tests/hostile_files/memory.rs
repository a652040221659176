//! Counts what is allocated, so that a length that was believed without a check is found out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that one allocation may have: more than what any database here holds, less than any length that is believed.
pub const ONE_MAX: usize = 16 << 20;
/// Bytes that may be allocated at any time, by all cases that run at once.
pub const ALL_MAX: usize = 256 << 20;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static LIVE_MOST: AtomicUsize = AtomicUsize::new(0);
static ONE_MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    LIVE_MOST.fetch_max(live, Ordering::Relaxed);
    ONE_MOST.fetch_max(bytes, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; the rest counts.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        grow(size);
        // SAFETY: the caller's.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Fails where more was allocated than may be, by this case or by one that ran beside it.
pub fn check(what: &str) {
    // Each excess is told once. A panic is one too, by what its backtrace takes.
    let (one, all) = (ONE_MOST.swap(0, Ordering::Relaxed), LIVE_MOST.swap(0, Ordering::Relaxed));
    assert!(one <= ONE_MAX, "{what}, or a case beside it: {one} bytes were allocated at once");
    assert!(all <= ALL_MAX, "{what}, or a case beside it: {all} bytes were allocated in all");
}

/// The counters count.
#[test]
fn allocations_are_counted() {
    let before = LIVE_MOST.load(Ordering::Relaxed);
    let bytes = vec![1u8; 1 << 20];
    assert!(ONE_MOST.load(Ordering::Relaxed) >= bytes.len());
    assert!(LIVE_MOST.load(Ordering::Relaxed) >= before.min(bytes.len()));
}
