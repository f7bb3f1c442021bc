//! Names of things. Every id is assigned by the engine in log order, so it is the same on every replica.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize,
        )]
        #[rkyv(derive(PartialEq, Eq, PartialOrd, Ord))]
        #[repr(transparent)]
        pub struct $name(pub $inner);
    };
}

id! {
    /// A participant's account. 0 is the venue itself, which also collects fees.
    AccountId(u32)
}
id! {
    /// An instrument and its one market. Dense from 0.
    InstrumentId(u16)
}
id! {
    /// An order: the log sequence of the command that the venue accepted it with.
    OrderId(u64)
}
id! {
    /// A match of one taker with one maker. Counted from 1 over the whole venue.
    TradeId(u64)
}
id! {
    /// A batch of tokens that entered consumption together. Counted from 1.
    LotId(u64)
}
id! {
    /// Tokens set aside for one inference call: the log sequence of its `Reserve`.
    ReservationId(u64)
}
id! {
    /// A client's binary session. Chosen by the client; 0 is the venue itself.
    SessionId(u128)
}
id! {
    /// SHA-256 of an Ed25519 public key's 32 bytes (contract §5.1).
    Fingerprint([u8; 32])
}
id! {
    /// SHA-256 of a consumption key; the key itself is never stored (design §7).
    KeyHash([u8; 32])
}
id! {
    /// A client's own label of an order, unique among that account's open orders; 0 is none.
    Label(u128)
}

impl AccountId {
    /// The venue's own account.
    pub const VENUE: Self = Self(0);
}

impl SessionId {
    /// The venue's own session: timers, session events, the first commands of an empty log.
    pub const VENUE: Self = Self(0);
}

impl Fingerprint {
    /// The fingerprint of a public key.
    #[must_use]
    pub fn of(public_key: &[u8; 32]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(public_key).into())
    }
}

impl KeyHash {
    /// The hash under which a consumption key is known.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(secret.as_bytes()).into())
    }
}
