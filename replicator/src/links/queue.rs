//! What waits to be sent to one peer: bounded in count and bytes, first in, first out, and empty whenever there is no
//! link. Raft repeats what was lost, so a full queue drops and says so; it never makes the sender wait.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frame::{HEADER_LEN, Kind};
use super::snapshot::SnapshotJob;

/// What became of a frame that was given to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frame that was dropped may have to be reported"]
pub enum Sent {
    /// It stands in the queue; whether it arrives, only an answer tells.
    Queued,
    /// Dropped: the peer takes less than it is sent. It is reported unreachable.
    Full,
    /// Dropped: there is no link at this time, or no such peer.
    Down,
}

/// Why a snapshot was not taken to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// One is on its way to that peer already.
    #[error("a snapshot is on its way to that node already")]
    Busy,
    /// There is no link to that peer at this time.
    #[error("there is no link to that node at this time")]
    Down,
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) frames_max: usize,
    pub(crate) bytes_max: usize,
}

/// The frames for one peer.
#[derive(Debug)]
pub(crate) struct SendQueue {
    bounds: Bounds,
    up: bool,
    frames: VecDeque<(Kind, Bytes)>,
    bytes: usize,
    /// A frame was dropped and nobody has been told yet.
    dropped: bool,
    snapshot: Slot,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    Asked(SnapshotJob),
    Busy,
}

impl SendQueue {
    /// An empty queue without a link.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, up: false, frames: VecDeque::new(), bytes: 0, dropped: false, snapshot: Slot::Free }
    }

    /// Puts a frame in, if there is a link and room.
    pub(crate) fn push(&mut self, kind: Kind, body: Bytes) -> Sent {
        if !self.up {
            self.dropped = true;
            return Sent::Down;
        }
        let cost = body.len() + HEADER_LEN;
        if self.frames.len() >= self.bounds.frames_max || self.bytes + cost > self.bounds.bytes_max {
            self.dropped = true;
            return Sent::Full;
        }
        self.bytes += cost;
        self.frames.push_back((kind, body));
        Sent::Queued
    }

    /// Takes frames from the front until `budget` bytes are passed; at least one if there is any.
    pub(crate) fn take(&mut self, budget: usize, into: &mut Vec<(Kind, Bytes)>) {
        let mut taken = 0;
        while taken < budget
            && let Some((kind, body)) = self.frames.pop_front()
        {
            let cost = body.len() + HEADER_LEN;
            taken += cost;
            self.bytes -= cost;
            into.push((kind, body));
        }
    }

    /// Whether a frame was dropped since this was last asked.
    pub(crate) fn take_dropped(&mut self) -> bool {
        std::mem::take(&mut self.dropped)
    }

    /// Whether a frame was dropped and this has not been asked yet.
    pub(crate) fn has_dropped(&self) -> bool {
        self.dropped
    }

    /// Whether there is a link.
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// A link is there.
    pub(crate) fn set_up(&mut self) {
        self.up = true;
        self.dropped = false;
    }

    /// The link is gone and what waited for it too. Says whether a snapshot was waiting or on its way.
    pub(crate) fn set_down(&mut self) -> bool {
        self.up = false;
        self.frames = VecDeque::new();
        self.bytes = 0;
        self.dropped = false;
        !matches!(std::mem::take(&mut self.snapshot), Slot::Free)
    }

    /// Asks for a snapshot to be sent.
    pub(crate) fn ask_snapshot(&mut self, job: SnapshotJob) -> Result<(), NotSent> {
        if !self.up {
            return Err(NotSent::Down);
        }
        if !matches!(self.snapshot, Slot::Free) {
            return Err(NotSent::Busy);
        }
        self.snapshot = Slot::Asked(job);
        Ok(())
    }

    pub(crate) fn is_sending_snapshot(&self) -> bool {
        !matches!(self.snapshot, Slot::Free)
    }

    /// The snapshot to begin with, once; the slot stays taken until [`Self::snapshot_over`].
    pub(crate) fn take_snapshot(&mut self) -> Option<SnapshotJob> {
        match std::mem::replace(&mut self.snapshot, Slot::Busy) {
            Slot::Asked(job) => Some(job),
            other => {
                self.snapshot = other;
                None
            }
        }
    }

    /// The next snapshot may come.
    pub(crate) fn snapshot_over(&mut self) {
        self.snapshot = Slot::Free;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(frames_max: usize, bytes_max: usize) -> SendQueue {
        let mut queue = SendQueue::new(Bounds { frames_max, bytes_max });
        queue.set_up();
        queue
    }

    fn body(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn nothing_waits_for_a_link_that_is_not_there() {
        let mut queue = SendQueue::new(Bounds { frames_max: 8, bytes_max: 1000 });
        assert_eq!(queue.push(Kind::Raft, body(1)), Sent::Down);
        assert!(queue.take_dropped());
        assert!(!queue.take_dropped(), "told once");
        queue.set_up();
        let mut taken = Vec::new();
        queue.take(1000, &mut taken);
        assert!(taken.is_empty());
    }

    #[test]
    fn full_by_count_and_full_by_bytes_drop_the_new_frame_and_keep_the_old() {
        let mut by_count = queue(2, 1000);
        assert_eq!(
            [(); 3].map(|()| by_count.push(Kind::Raft, body(1))),
            [Sent::Queued, Sent::Queued, Sent::Full]
        );
        let mut by_bytes = queue(100, 2 * (10 + HEADER_LEN));
        assert_eq!(
            [(); 3].map(|()| by_bytes.push(Kind::Raft, body(10))),
            [Sent::Queued, Sent::Queued, Sent::Full]
        );
        assert!(by_bytes.take_dropped());
        let mut taken = Vec::new();
        by_bytes.take(1, &mut taken);
        assert_eq!(taken.len(), 1, "at least one, whatever the budget");
        assert_eq!(by_bytes.push(Kind::Raft, body(10)), Sent::Queued, "room again");
    }

    #[test]
    fn a_lost_link_takes_its_frames_with_it() {
        let mut queue = queue(8, 1000);
        let _ = queue.push(Kind::Raft, body(1));
        assert!(!queue.set_down(), "no snapshot was under way");
        queue.set_up();
        let mut taken = Vec::new();
        queue.take(1000, &mut taken);
        assert!(taken.is_empty());
    }

    #[test]
    fn one_snapshot_at_a_time() {
        let mut queue = queue(8, 1000);
        let job = || SnapshotJob::new(Bytes::new(), 0, Box::new(std::io::empty()));
        assert_eq!(queue.ask_snapshot(job()), Ok(()));
        assert_eq!(queue.ask_snapshot(job()), Err(NotSent::Busy));
        assert!(queue.take_snapshot().is_some());
        assert!(queue.take_snapshot().is_none());
        assert_eq!(queue.ask_snapshot(job()), Err(NotSent::Busy));
        queue.snapshot_over();
        assert_eq!(queue.ask_snapshot(job()), Ok(()));
        assert!(queue.set_down(), "it fails with the link");
        assert_eq!(queue.ask_snapshot(job()), Err(NotSent::Down));
    }
}
