//! Counts what is allocated, so that a length that was believed without a check is found out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that one allocation may have: more than what any database here holds, less than any length that is believed.
pub const ONE_MAX: usize = 16 << 20;
/// Bytes that may be allocated at any time, by all cases that run at once.
pub const ALL_MAX: usize = 256 << 20;

/// Figures of what is allocated.
struct Figures {
    live: AtomicUsize,
    live_most: AtomicUsize,
    one_most: AtomicUsize,
    /// All that was ever allocated.
    total: AtomicUsize,
}

impl Figures {
    const fn new() -> Figures {
        Figures {
            live: AtomicUsize::new(0),
            live_most: AtomicUsize::new(0),
            one_most: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        }
    }

    fn grow(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.live_most.fetch_max(live, Ordering::Relaxed);
        self.one_most.fetch_max(bytes, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The most bytes of one allocation and of all that lived at one time, since this was asked last.
    fn take_most(&self) -> (usize, usize) {
        (self.one_most.swap(0, Ordering::Relaxed), self.live_most.swap(0, Ordering::Relaxed))
    }
}

static FIGURES: Figures = Figures::new();

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came; the rest counts.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        FIGURES.grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        FIGURES.grow(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        FIGURES.shrink(layout.size());
        FIGURES.grow(size);
        // SAFETY: the caller's.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        FIGURES.shrink(layout.size());
        // SAFETY: the caller's.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Fails where more was allocated than may be, by this case or by one that ran beside it.
pub fn check(what: &str) {
    // Each excess is told once. A panic is one too, by what its backtrace takes.
    let (one, all) = FIGURES.take_most();
    assert!(one <= ONE_MAX, "{what}, or a case beside it: {one} bytes were allocated at once");
    assert!(all <= ALL_MAX, "{what}, or a case beside it: {all} bytes were allocated in all");
}

/// The figures are right, and every allocation of this program goes through them.
#[test]
fn allocations_are_counted() {
    let figures = Figures::new();
    figures.grow(100);
    figures.grow(30);
    figures.shrink(100);
    figures.grow(50);
    assert_eq!(figures.take_most(), (100, 130));
    assert_eq!(figures.take_most(), (0, 0));

    // Other cases run beside this one and take the most away; the total only grows.
    let before = FIGURES.total.load(Ordering::Relaxed);
    let bytes = vec![1u8; 1 << 20];
    assert!(FIGURES.total.load(Ordering::Relaxed) >= before + bytes.len());
}
