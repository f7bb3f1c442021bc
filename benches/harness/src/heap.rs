//! What is allocated, counted per thread and in all. A program that wants to know makes [`Counting`] its global allocator; in any other, the counts stay
//! at 0. Per thread, because a thread that measures itself should not see what others do, and because a count that is shared costs more than many an
//! allocation: what there is in all is the sum over places that threads have to themselves.

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its interface; this one only counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use grid_memory::LargePages;

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { calls: 0, live: 0 }) };
}

/// Threads that count in a place of their own; those that come later share the last one.
const PLACES: usize = 1_024;
const SHARED: usize = PLACES - 1;

/// A line of memory that one thread writes.
#[repr(align(64))]
struct Place(AtomicI64);

static LIVE: [Place; PLACES] = [const { Place(AtomicI64::new(0)) }; PLACES];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's; none yet at [`PLACES`].
    static PLACE: Cell<usize> = const { Cell::new(PLACES) };
}

/// What this thread has asked of the allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that allocate, grow or shrink; those that only free are not counted.
    pub calls: u64,
    /// Bytes asked for and not freed, by this thread.
    pub live: i64,
}

/// The allocator that the venue has, with counts.
#[derive(Debug)]
pub struct Counting;

/// The counts of this thread.
#[must_use]
pub fn counts() -> Counts {
    COUNTS.get()
}

/// Bytes asked for and not freed, by all threads that ever were. While others go on it may be off by what they are just about.
#[must_use]
pub fn live() -> u64 {
    let sum: i64 = LIVE.iter().map(|place| place.0.load(Ordering::Relaxed)).sum();
    u64::try_from(sum).unwrap_or(0)
}

fn count_in_all(bytes: i64) {
    let taken = PLACE.try_with(|place| {
        if place.get() == PLACES {
            place.set(TAKEN.fetch_add(1, Ordering::Relaxed).min(SHARED));
        }
        place.get()
    });
    let place = taken.unwrap_or(SHARED);
    let live = &LIVE[place].0;
    if place == SHARED {
        live.fetch_add(bytes, Ordering::Relaxed);
    } else {
        live.store(live.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
}

fn count(calls: u64, bytes: i64) {
    count_in_all(bytes);
    // While a thread ends its counts may be gone, and nobody asks for them any more.
    let _ = COUNTS.try_with(|counts| {
        let now = counts.get();
        counts.set(Counts { calls: now.calls + calls, live: now.live + bytes });
    });
}

// SAFETY: every call goes to the venue's allocator as it came; the counts are plain numbers without a destructor and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps what `GlobalAlloc` asks for.
        unsafe { LargePages.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { LargePages.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { LargePages.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { LargePages.realloc(at, layout, size) }
    }
}
