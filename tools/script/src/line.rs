//! One line of a script as a valid instruction, or the reason why it is none.

use std::fmt;

use grid_engine::command::{SelfTrade, Side, TimeInForce};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A whole line.
pub(crate) enum Line {
    /// A fresh book under this name.
    Case(serde_json::Value),
    /// An instruction for the current one.
    Op(Op),
}

/// An instruction.
pub(crate) struct Op {
    pub(crate) id: Name,
    pub(crate) owner: Name,
    pub(crate) stp: SelfTrade,
    pub(crate) action: Action,
}

/// What to do.
pub(crate) enum Action {
    Limit { side: Side, price: Amount, qty: Amount, tif: TimeInForce },
    Market { side: Side, qty: Amount },
    Cancel,
    Replace { price: Amount, qty: Amount },
}

impl Action {
    /// The price that it names, when an order can carry it.
    pub(crate) fn price(&self) -> Option<u64> {
        match self {
            Self::Limit { price, .. } | Self::Replace { price, .. } => price.0,
            Self::Market { .. } | Self::Cancel => None,
        }
    }
}

/// An id or an owner: echoed in the form in which it was given.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Natural(u64),
    Negative(i64),
    Text(Box<str>),
}

/// A price or a quantity: `None` when it is a number that no order can carry (negative, fractional, beyond 64 bits).
#[derive(Clone, Copy)]
pub(crate) struct Amount(pub(crate) Option<u64>);

#[derive(Deserialize)]
struct Raw<'a> {
    case: Option<serde_json::Value>,
    #[serde(borrow)]
    op: Option<std::borrow::Cow<'a, str>>,
    id: Option<Name>,
    owner: Option<Name>,
    #[serde(borrow)]
    side: Option<std::borrow::Cow<'a, str>>,
    price: Option<Amount>,
    qty: Option<Amount>,
    #[serde(borrow)]
    stp: Option<std::borrow::Cow<'a, str>>,
}

/// Reads one line.
pub(crate) fn parse(text: &[u8]) -> Result<Line, String> {
    if text.first() != Some(&b'{') {
        return Err("expected a JSON object".into());
    }
    let raw: Raw<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match (raw.case, raw.op) {
        (Some(name), None) if name.is_string() || name.is_number() => Ok(Line::Case(name)),
        (Some(_), None) => Err("`case` is a name: a string or a number".into()),
        (Some(_), Some(_)) => Err("`case` and `op` stand on lines of their own".into()),
        (None, None) => Err("neither `case` nor `op`".into()),
        (None, Some(op)) => {
            let side = || match raw.side.as_deref() {
                Some("buy") => Ok(Side::Buy),
                Some("sell") => Ok(Side::Sell),
                Some(other) => Err(format!("`side` is `buy` or `sell`, not `{other}`")),
                None => Err("`side` is missing".to_string()),
            };
            let qty = || raw.qty.ok_or("`qty` is missing");
            let price = || raw.price.ok_or("`price` is missing");
            let limit =
                |tif| Ok::<_, String>(Action::Limit { side: side()?, price: price()?, qty: qty()?, tif });
            let action = match op.as_ref() {
                "limit" => limit(TimeInForce::Gtc)?,
                "ioc" => limit(TimeInForce::Ioc)?,
                "fok" => limit(TimeInForce::Fok)?,
                "post_only" => limit(TimeInForce::PostOnly)?,
                "market" => Action::Market { side: side()?, qty: qty()? },
                "cancel" => Action::Cancel,
                "replace" => Action::Replace {
                    qty: qty()?,
                    // Zero quantity cancels, and then no price is needed.
                    price: match raw.qty {
                        Some(Amount(Some(0))) => raw.price.unwrap_or(Amount(None)),
                        _ => price()?,
                    },
                },
                other => return Err(format!("unknown op `{other}`")),
            };
            let stp = match raw.stp.as_deref() {
                None | Some("none") => SelfTrade::Allow,
                Some("cancel_newest") => SelfTrade::CancelIncoming,
                Some("cancel_oldest") => SelfTrade::CancelResting,
                Some("cancel_both") => SelfTrade::CancelBoth,
                Some(other) => return Err(format!("unknown stp `{other}`")),
            };
            Ok(Line::Op(Op {
                id: raw.id.ok_or("`id` is missing")?,
                owner: raw.owner.ok_or("`owner` is missing")?,
                stp,
                action,
            }))
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Natural(number) => serializer.serialize_u64(*number),
            Self::Negative(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer or a string")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Name, E> {
                Ok(Name::Natural(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Name, E> {
                Ok(u64::try_from(number).map_or(Name::Negative(number), Name::Natural))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name::Text(text.into()))
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amounts;
        impl Visitor<'_> for Amounts {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Amount, E> {
                Ok(Amount(Some(number)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Amount, E> {
                Ok(Amount(u64::try_from(number).ok()))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Amount, E> {
                Ok(Amount(None))
            }
        }
        deserializer.deserialize_any(Amounts)
    }
}
