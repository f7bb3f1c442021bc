//! Names of things. Every id is assigned by the engine in log order, so it is the same on every replica.

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        id! { #[derive(serde::Serialize, serde::Deserialize)] $(#[$doc])* $name($inner) without serde }
    };
    ($(#[$doc:meta])* $name:ident($inner:ty) without serde) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Freeze, Thaw,
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
    /// An order: its number, counted from 1 as orders are accepted, and in the lowest 24 bits the slot where it rests.
    /// Later orders have higher ids.
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
    /// Tokens set aside for one inference call: the number of its reservation, counted from 1, and in the lowest 24 bits the
    /// slot where it lies. Later reservations have higher ids.
    ReservationId(u64)
}
id! {
    /// A client's binary session. Chosen by the client; 0 is the venue itself.
    SessionId(u128) without serde
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
    /// A consumption key, in a few bytes: counted from 1 as keys are registered; 0 is none.
    KeyId(u32)
}
id! {
    /// A client's own label of an order, unique among that account's open orders; 0 is none.
    Label(u128)
}

impl AccountId {
    /// The venue's own account.
    pub const VENUE: Self = Self(0);
}

impl KeyId {
    /// No key: the call came from somewhere else.
    pub const NONE: Self = Self(0);
}

impl OrderId {
    /// In place of a slot: the order can't rest.
    pub const NO_SLOT: u32 = (1 << Self::SLOT_BITS) - 1;
    /// The last number there is.
    pub const LAST_NUMBER: u64 = (1 << 39) - 1;

    const SLOT_BITS: u32 = 24;

    /// The id of the `number`th order, which rests in `slot` when it rests.
    #[must_use]
    pub const fn new(number: u64, slot: Option<u32>) -> Self {
        let slot = match slot {
            Some(slot) => slot,
            None => Self::NO_SLOT,
        };
        Self(number << Self::SLOT_BITS | slot as u64)
    }

    /// How many orders the venue had accepted, this one too.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 >> Self::SLOT_BITS
    }

    /// Where it rests when it rests; `None` for one that never does.
    #[must_use]
    pub const fn slot(self) -> Option<u32> {
        let slot = self.0 as u32 & Self::NO_SLOT;
        if slot == Self::NO_SLOT { None } else { Some(slot) }
    }
}

impl SessionId {
    /// The venue's own session: timers, session events, the first commands of an empty log.
    pub const VENUE: Self = Self(0);
}

impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        crate::log_form::wide::serialize(&self.0, to)
    }
}

impl<'de> serde::Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crate::log_form::wide::deserialize(from).map(Self)
    }
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
