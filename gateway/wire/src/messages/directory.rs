//! The directory and everything else that is rare: one message that carries a command in the engine's own form.

messages! {
    /// A rare command of the venue's own tools and tiers, in the engine's log form.
    [29] DirectoryRequest, 20 {
        /// Strictly increasing in the session; at most once.
        client_seq: u64,
        /// The client's clock, nanoseconds UTC.
        sending_time: u64,
        /// The account acted on; zero for the session's own.
        account: u32,
    } payload;
}

/// The largest payload of a [`DirectoryRequest`], bytes.
pub const MAX_PAYLOAD_LEN: usize = 16 * 1024;
