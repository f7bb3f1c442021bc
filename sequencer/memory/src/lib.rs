//! The allocator of the programs that run or measure an engine: the system's, which also asks for large pages under what is large.
//!
//! An engine's orders, accounts and kept reports are some arrays of many megabytes, and a command touches a few lines anywhere in them. With
//! pages of 4 KiB the processor's table of pages holds a small part of that, so that most misses of the cache miss the table as well.
//! What it saves is seen in `grid-benches ten_thousand_books`. Systems give large pages to whoever asks, and only then (`madvise`, the usual setting).

#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its interface; this one passes on and gives advice"
)]

use std::alloc::{GlobalAlloc, Layout, System};

/// What is at least so large, in bytes, gets large pages where the system has them.
pub const LARGE: usize = 1 << 20;

/// The system's allocator, with large pages under what is large.
#[derive(Clone, Copy, Debug)]
pub struct LargePages;

// SAFETY: every call goes to the system's allocator as it came, and what it returns is returned; advice changes no byte.
unsafe impl GlobalAlloc for LargePages {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps what `GlobalAlloc` asks for.
        let at = unsafe { System.alloc(layout) };
        advise(at, layout.size());
        at
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let at = unsafe { System.alloc_zeroed(layout) };
        advise(at, layout.size());
        at
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let at = unsafe { System.realloc(at, layout, size) };
        advise(at, size);
        at
    }
}

#[inline]
fn advise(at: *mut u8, size: usize) {
    if size >= LARGE && !at.is_null() {
        ask_for_large_pages(at, size);
    }
}

/// Neighbours are asked for alike, so arrays that are smaller than a large page may still share one.
#[cfg(target_os = "linux")]
#[cold]
fn ask_for_large_pages(at: *mut u8, size: usize) {
    use rustix::mm::{Advice, madvise};
    const PAGE: usize = 4_096;
    let skip = at.align_offset(PAGE);
    let whole = size.saturating_sub(skip) / PAGE * PAGE;
    // SAFETY: these pages lie within one allocation, and this advice changes nothing that a program can see.
    // A system without large pages refuses, and the pages stay small.
    let _ = unsafe { madvise(at.wrapping_add(skip).cast(), whole, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static MEMORY: LargePages = LargePages;

    #[test]
    fn what_is_large_keeps_its_bytes_while_it_grows_and_shrinks() {
        let mut bytes: Vec<u8> = Vec::new();
        for nth in 0..8 * LARGE {
            bytes.push(nth as u8);
        }
        bytes.shrink_to(LARGE / 2);
        bytes.truncate(LARGE + 1);
        bytes.shrink_to_fit();
        assert!(bytes.iter().enumerate().all(|(nth, byte)| *byte == nth as u8));
        for size in [LARGE - 1, LARGE, 5 * LARGE + 3] {
            assert!(vec![0_u64; size / 8].iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn alignment_is_kept() {
        #[repr(align(8192))]
        #[derive(Clone)]
        struct Aligned([u8; 8_192]);
        let many = vec![Aligned([7; 8_192]); 2 * LARGE / 8_192];
        assert!(many.as_ptr().is_aligned());
        assert!(many.iter().all(|one| one.0 == [7; 8_192]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_hears_of_what_is_large() {
        let large = vec![1_u8; 4 * LARGE];
        let at = large.as_ptr() as usize + large.len() / 2;
        let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return };
        let mut inside = false;
        for line in maps.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            if let Some((from, to)) = first.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16).ok();
                inside = number(from).is_some_and(|from| from <= at) && number(to).is_some_and(|to| at < to);
            } else if inside && line.starts_with("VmFlags:") {
                let large_pages = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
                assert!(!large_pages || line.split(' ').any(|flag| flag == "hg"), "{line}");
                return;
            }
        }
    }
}
