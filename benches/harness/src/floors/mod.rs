//! The floor of each path: the cheapest thing that does what the path cannot do without, measured in the same run and the same rounds. It moves with
//! the machine, so the ratio to it does not.
//!
//! | floor | of |
//! |---|---|
//! | [`cache_line_hop`] | two cores that tell each other anything at all |
//! | [`ring_hop`], [`ring_throughput`] | a stage that hands on to the next through a ring |
//! | [`park_hop`] | a stage that sleeps while it has nothing to do |
//! | [`BareWrites`] | a commit: one write and one fdatasync of as many bytes |
//! | [`AskedWrites`] | the same where another thread writes |
//! | [`Ladder`] | an engine: its books alone |
//! | [`Balances`] | an engine that serves calls: tokens alone, and a bare ladder to buy from |

mod balances;
mod disk;
mod hops;
mod ladder;

pub use balances::Balances;
pub use disk::{AskedWrites, BareWrites};
pub use hops::{cache_line_hop, park_hop, ring_hop, ring_throughput};
pub use ladder::{Extent, Ladder};

use std::sync::atomic::{AtomicBool, Ordering};

use core_affinity::CoreId;

/// The two cores that hops are measured between, the last ones of this machine, as thread layouts count them: who asks, and who answers. None
/// on a machine of one core, where two threads that spin only keep each other waiting.
#[must_use]
pub fn pair_of_cores() -> Option<(CoreId, CoreId)> {
    match core_affinity::get_core_ids()?.as_slice() {
        [.., asks, answers] => Some((*asks, *answers)),
        _ => None,
    }
}

/// Runs `work` while a thread spins on `core`, as one does that waits for an answer: on a virtual machine the disk answers a machine that is awake
/// sooner than one that sleeps.
pub fn busy_beside<R>(core: Option<CoreId>, work: impl FnOnce() -> R) -> R {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            while !over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Runs `work` on a thread of its own, pinned to `core` if there is one: a pin stays with a thread, so it must not be the caller's.
///
/// # Panics
/// If `work` does.
pub fn pinned<R: Send>(core: Option<CoreId>, work: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if let Some(core) = core {
                core_affinity::set_for_current(core);
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
