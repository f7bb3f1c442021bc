//! Every limit of the tier, with its default and the reason for it.

use std::time::Duration;

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body, in bytes. The largest real one is an order of a few hundred.
    pub body_bytes_max: usize,
    /// Largest request line and headers together, in bytes; hyper's own minimum is 8,192.
    pub head_bytes_max: usize,
    /// Most headers in a request.
    pub headers_max: usize,
    /// Longest wait for a whole head, which is also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// Longest wait for a whole body after its head.
    pub body_timeout: Duration,
    /// Longest time that a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Most connections at once; further ones wait in the listen queue.
    pub connections_max: usize,
    /// Of a body that was refused as too large, this much is read and thrown away so that the client, still
    /// sending, sees the answer and not a reset connection.
    pub discard_bytes_max: usize,
    /// Longest wait for the venue's answer to a command; below the client's own, and above what it takes to find out that a
    /// leader is gone, to elect another, and to ask again there.
    pub answer_timeout: Duration,
    /// Longest wait for the replica and the history to pass a command that was answered; a node that does not lead hears
    /// what is committed from the leader, so this too must outlast an election.
    pub catch_up_timeout: Duration,
    /// How long a read waits for writes of other tiers that are still on their way into the log; after that it shows what there is.
    pub promise_timeout: Duration,
    /// Requests per second and key, sustained. Far above any person and most programs.
    pub requests_per_second: u32,
    /// Requests that a key may make at once.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * 1024,
            head_bytes_max: 16 * 1024,
            headers_max: 100,
            head_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            connections_max: 4_096,
            discard_bytes_max: 64 * 1024 * 1024,
            answer_timeout: Duration::from_secs(25),
            catch_up_timeout: Duration::from_secs(20),
            promise_timeout: Duration::from_secs(5),
            requests_per_second: 1_000,
            burst: 5_000,
        }
    }
}
