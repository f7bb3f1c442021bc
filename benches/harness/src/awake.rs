//! Keeps the cores awake. A virtual core hears of a finished sync only when it next turns to its host, which an idle or an evenly busy one does at
//! the tick of a timer, every 4 ms; a figure then says how the core slept, and not what was measured. A thread on each core that sleeps a
//! few microseconds at a time makes the core turn to its host often, for all contenders alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// One sleep of a thread that keeps a core awake.
const NAP: Duration = Duration::from_micros(20);

/// Cores stay awake while this lives.
#[derive(Debug)]
pub struct Awake {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Awake {
    /// From now on.
    #[must_use]
    pub fn keep() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let threads = cores.into_iter().map(|core| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                core_affinity::set_for_current(core);
                while !over.load(Ordering::Relaxed) {
                    std::thread::sleep(NAP);
                }
            })
        });
        Self { threads: threads.collect(), over }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
