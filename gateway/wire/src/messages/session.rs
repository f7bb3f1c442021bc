//! The session: a connection's first words, its logins, what keeps it alive, what was missed, and its last words.

use crate::field::Signature;
use crate::values::*;

messages! {
    /// The venue's first words on a connection; its nonce makes every login fresh.
    [1] Hello, 52 {
        /// Drawn anew for each connection.
        server_nonce: [u8; 32],
        /// The venue's clock, nanoseconds UTC.
        server_time: u64,
        /// Counts leaders; changes when another node took over.
        cluster_epoch: u64,
        /// The schema served.
        schema: u16,
        /// The newest version served.
        schema_version: u16,
    }
    /// Opens a session, once per session id; signed.
    [2] Negotiate, 156 {
        /// Chosen by the client, at random, never zero.
        session: u128,
        /// Drawn by the client.
        client_nonce: [u8; 32],
        /// SHA-256 of the signing key's 32 bytes.
        fingerprint: [u8; 32],
        /// The client's clock, nanoseconds UTC; at most 5 s off.
        timestamp: u64,
        /// Ed25519 over the negotiation transcript.
        signature: Signature,
        /// The schema version that the client speaks.
        schema_version: u16,
        /// Must be Idempotent.
        client_flow: Flow,
        /// Must be Recoverable.
        server_flow: Flow,
    }
    /// The session is open.
    [3] NegotiationResponse, 28 {
        /// The session.
        session: u128,
        /// Log sequence at which it was opened.
        log_seq: u64,
        /// The account it trades for.
        account: u32,
    }
    /// The session was not opened.
    [4] NegotiationReject, 40 {
        /// The session asked for.
        session: u128,
        /// The engine's reject, where it gave one; else zero.
        engine_code: u16,
        /// Why.
        code: NegotiationCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u16,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    }
    /// Takes up a session on this connection; signed.
    [5] Establish, 171 {
        /// The session.
        session: u128,
        /// Drawn by the client.
        client_nonce: [u8; 32],
        /// SHA-256 of the signing key's 32 bytes.
        fingerprint: [u8; 32],
        /// The client's clock, nanoseconds UTC; at most 5 s off.
        timestamp: u64,
        /// The report that the client expects next; 1 for all.
        next_seq: u64,
        /// Ed25519 over the establishment transcript.
        signature: Signature,
        /// Longest silence that the client keeps, milliseconds.
        keep_alive_ms: u32,
        /// How long a lost connection may stay away before its orders are cancelled, milliseconds.
        grace_ms: u32,
        /// The schema version that the client speaks.
        schema_version: u16,
        /// What happens when the connection is lost.
        cancel_policy: CancelPolicy,
    }
    /// The session is live on this connection.
    [6] EstablishmentAck, 76 {
        /// The session.
        session: u128,
        /// The report that the venue sends next; ask for those missing before it.
        next_seq: u64,
        /// The oldest report that can still be asked for.
        oldest_seq: u64,
        /// The highest client sequence number applied; resend what lies above.
        last_client_seq: u64,
        /// Log sequence of the establishment.
        log_seq: u64,
        /// The account it trades for.
        account: u32,
        /// Longest silence that the venue keeps, milliseconds.
        keep_alive_ms: u32,
        /// Requests other than cancels, per second.
        requests_per_second: u32,
        /// How many may come at once.
        requests_burst: u32,
        /// Cancels and mass cancels, per second.
        cancels_per_second: u32,
        /// How many may come at once.
        cancels_burst: u32,
        /// The longest frame accepted, bytes.
        max_frame: u32,
    }
    /// The session did not come to life on this connection.
    [7] EstablishmentReject, 40 {
        /// The session asked for.
        session: u128,
        /// The engine's reject, where it gave one; else zero.
        engine_code: u16,
        /// Why.
        code: EstablishmentCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u16,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    }
    /// The heartbeat of a sequenced flow, both ways.
    [8] Sequence, 8 {
        /// The number of the sender's next sequenced message.
        next_seq: u64,
    }
    /// Asks for reports again; one request at a time.
    [9] RetransmitRequest, 12 {
        /// The first wanted.
        from: u64,
        /// How many; at most 2,500.
        count: u32,
    }
    /// The reports asked for follow, flagged possResend, among live ones.
    [10] Retransmission, 12 {
        /// The first.
        from: u64,
        /// How many.
        count: u32,
    }
    /// The reports asked for do not follow.
    [11] RetransmitReject, 13 {
        /// The first asked for.
        from: u64,
        /// How many.
        count: u32,
        /// Why.
        code: RetransmitCode,
    }
    /// A gap in the client's numbers: these were not seen and will not be waited for.
    [12] NotApplied, 16 {
        /// The first missing.
        from: u64,
        /// How many.
        count: u64,
    }
    /// The last message on a connection; answered in kind.
    [13] Terminate, 24 {
        /// Why.
        code: TerminateCode,
        /// Zero.
        reserved1: u8,
        /// With NotLeader: the port of the node that leads; zero where it is not known.
        leader_port: u16,
        /// Zero.
        reserved2: u32,
        /// With NotLeader: its IPv6 address as a number, an IPv4 address as ::ffff:a.b.c.d.
        leader_ip: u128,
    } reason;
    /// A request was refused for coming too fast; it was not applied and its number is spent.
    [14] Throttled, 13 {
        /// The request.
        client_seq: u64,
        /// When a next one would pass, milliseconds from now.
        retry_after_ms: u32,
        /// How far it went.
        level: ThrottleLevel,
    }
}

/// The most reports that one [`RetransmitRequest`] may ask for.
pub const MAX_RETRANSMIT: u32 = 2_500;
