//! The venue's configuration: decoded once, every limit named, unknown keys refused.

use std::path::{Path, PathBuf};

use grid_engine::funding::AccountTerms;
use grid_engine::instrument::{
    DeliveryTerms, InstrumentSpec, InstrumentStatus, MarketTerms, Movement, QualityTerms,
};
use grid_engine::{Nanos, Price, Qty, SECOND, Usd};
use grid_payments::{SecretKey, StripeSettings};
use serde::Deserialize;

/// What `grid demo` runs with, and what a configuration file may leave out.
pub(crate) const DEFAULTS: &str = include_str!("../venue.toml");

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {path}: {error}")]
    Unreadable { path: PathBuf, error: std::io::Error },
    /// The file is no valid configuration.
    #[error("{origin}: {reason}")]
    Invalid { origin: String, reason: String },
}

/// A whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Journal, snapshots, history and keys.
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: Listen,
    pub(crate) log: Log,
    /// Who the other nodes are; a cluster of one where it is left out.
    pub(crate) cluster: Option<crate::cluster::Terms>,
    /// What accounts are given and how many calls they make for nothing; written on the first start.
    pub(crate) accounts: Accounts,
    /// Who is asked for the money of reloads.
    pub(crate) payments: Payments,
    pub(crate) sessions: Sessions,
    pub(crate) trading: Trading,
    pub(crate) inference: Inference,
    pub(crate) sla: crate::service::Sla,
    pub(crate) probes: crate::probe::Probes,
    /// Defined on the first start.
    #[serde(rename = "instrument")]
    pub(crate) instruments: Vec<InstrumentTerms>,
}

/// Where the venue listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    /// Address of every listener.
    pub(crate) host: std::net::IpAddr,
    /// The first of the ports; 0 takes any free ones.
    pub(crate) port_base: u16,
}

impl Listen {
    /// The address at a fixed distance from the base.
    pub(crate) fn at(&self, offset: u16) -> std::net::SocketAddr {
        let port = if self.port_base == 0 { 0 } else { self.port_base.saturating_add(offset) };
        (self.host, port).into()
    }
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// Which thread does what.
    pub(crate) layout: String,
    /// Size of a journal segment.
    pub(crate) segment_bytes: u64,
    /// A snapshot after this many commands.
    pub(crate) snapshot_every_commands: u64,
    /// When a command counts as acknowledged.
    pub(crate) durability: Durability,
    /// How much of the log is kept at least.
    pub(crate) retain_bytes: u64,
}

/// When a command counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Durability {
    /// On disk on a majority.
    DiskQuorum,
    /// Written on a majority, synced right after.
    MemoryQuorum,
}

/// What accounts are given (contract §4.6).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Accounts {
    /// Calls per UTC day of an account that never paid anything in; 0 is no limit.
    pub(crate) free_calls_per_day: u32,
    /// Its calls at once; 0 is no limit, for anybody.
    pub(crate) free_calls_at_once: u32,
    /// Dollars; each time that so much was paid in, one call more at once. 0: whoever paid has no limit.
    pub(crate) paid_per_call_at_once: String,
    /// Dollars; 0 is none.
    pub(crate) sign_up_credit: String,
    /// Units in consumption never go back to trading.
    pub(crate) one_way_transfers: bool,
}

impl Accounts {
    /// The engine's form.
    pub(crate) fn terms(&self) -> Result<AccountTerms, String> {
        Ok(AccountTerms {
            free_calls_per_day: self.free_calls_per_day,
            free_at_once: self.free_calls_at_once,
            paid_per_call_at_once: dollars(&self.paid_per_call_at_once)?,
            sign_up_credit: dollars(&self.sign_up_credit)?,
            one_way: self.one_way_transfers,
        })
    }
}

/// Who is asked for the money of reloads.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payments {
    /// Without it, and without the variable of the environment, no card is charged.
    stripe_secret_key: Option<SecretKey>,
    stripe_url: String,
    stripe_version: String,
    stripe_timeout_ms: u64,
}

impl Payments {
    /// How Stripe is reached, where there is a key for it.
    pub(crate) fn stripe(&self) -> Option<StripeSettings> {
        let from_environment = || std::env::var("GRID_STRIPE_SECRET_KEY").ok().map(SecretKey::new);
        Some(StripeSettings {
            secret_key: self.stripe_secret_key.clone().or_else(from_environment)?,
            base_url: self.stripe_url.trim_end_matches('/').to_owned(),
            version: self.stripe_version.clone(),
            timeout: std::time::Duration::from_millis(self.stripe_timeout_ms),
        })
    }
}

/// The order gateway's limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sessions {
    pub(crate) max_connections: usize,
    pub(crate) orders_per_second: u32,
    pub(crate) cancels_per_second: u32,
    pub(crate) login_timeout_ms: u64,
    pub(crate) max_frame_bytes: usize,
}

/// The trading tier's limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trading {
    pub(crate) max_body_bytes: usize,
    pub(crate) head_timeout_ms: u64,
    pub(crate) body_timeout_ms: u64,
    pub(crate) requests_per_minute: u32,
}

/// The inference tier's limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Inference {
    pub(crate) max_body_bytes: usize,
    pub(crate) head_timeout_ms: u64,
    pub(crate) body_timeout_ms: u64,
    pub(crate) reservation_seconds: u64,
    pub(crate) connect_timeout_ms: u64,
    pub(crate) first_token_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) whole_answer_timeout_ms: u64,
    pub(crate) max_open_streams: usize,
    /// Nodes that chat completions are sent on to with a 307; every call is answered in place where there are none.
    #[serde(default)]
    pub(crate) dispatch_to: Vec<String>,
    /// This node's base URL as other nodes name it in theirs.
    pub(crate) dispatch_here: Option<String>,
    /// With it in `x-grid-operator`, an operator sees how a call was routed, and the tier's counters.
    pub(crate) operator_key: Option<String>,
    /// What suppliers' models are known to lack.
    #[serde(default, rename = "model")]
    pub(crate) models: Vec<ModelTerms>,
}

/// What is known of a model of some supplier.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelTerms {
    /// Its name at the supplier.
    pub(crate) name: String,
    /// Words of what it can't do: calls that need it go elsewhere.
    pub(crate) lacks: Vec<String>,
}

/// One instrument as written in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstrumentTerms {
    pub(crate) symbol: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) index: String,
    #[serde(default)]
    pub(crate) score_floor: u32,
    #[serde(default)]
    pub(crate) tokens_per_second_floor: u32,
    pub(crate) ttft_ceiling_ms: u32,
    pub(crate) context_floor: u32,
    pub(crate) output_floor: u32,
    /// Dollars per Unit.
    pub(crate) tick: String,
    #[serde(default = "one")]
    pub(crate) lot: u64,
    #[serde(default = "one")]
    pub(crate) min_qty: u64,
    #[serde(default = "ten_thousand")]
    pub(crate) max_qty: u64,
    /// Dollars per Unit; a million ticks where it is left out.
    pub(crate) max_price: Option<String>,
    #[serde(default)]
    pub(crate) maker_fee_bps: u16,
    #[serde(default)]
    pub(crate) taker_fee_bps: u16,
    /// Life of a lot in consumption, in seconds; none where it is left out.
    pub(crate) window_seconds: Option<u64>,
    /// Units move at fill, or are swept at the six UTC hours.
    #[serde(default)]
    pub(crate) swept: bool,
    pub(crate) status: Status,
    /// Dollars per Unit; where simulated participants start quoting.
    #[serde(default)]
    pub(crate) reference_price: Option<String>,
}

/// `status` of an instrument in a file.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Live,
    Preview,
    Halted,
}

const fn one() -> u64 {
    1
}

const fn ten_thousand() -> u64 {
    10_000
}

impl Config {
    /// The embedded defaults, with whatever `file` says otherwise.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut merged: toml::Table = parse("embedded defaults", DEFAULTS)?;
        let mut origin = "embedded defaults".to_owned();
        let mut names_data = false;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
            origin = path.display().to_string();
            let over = parse(&origin, &text)?;
            names_data = over.contains_key("data_dir");
            merge(&mut merged, over);
        }
        let mut config: Self = merged
            .try_into()
            .map_err(|error| ConfigError::Invalid { origin: origin.clone(), reason: error.to_string() })?;
        let home = file.and_then(Path::parent).unwrap_or(Path::new(""));
        if names_data {
            config.data_dir = home.join(&config.data_dir);
        }
        if let Some(cluster) = &mut config.cluster {
            cluster.settle(home, &config.listen).map_err(|reason| ConfigError::Invalid {
                origin: origin.clone(),
                reason: format!("cluster: {reason}"),
            })?;
        }
        config.accounts.terms().map_err(|reason| ConfigError::Invalid {
            origin: origin.clone(),
            reason: format!("accounts: {reason}"),
        })?;
        config.sla.terms().map_err(|reason| ConfigError::Invalid {
            origin: origin.clone(),
            reason: format!("sla: {reason}"),
        })?;
        for terms in &config.instruments {
            terms.spec().map_err(|reason| ConfigError::Invalid {
                origin: origin.clone(),
                reason: format!("instrument {}: {reason}", terms.symbol),
            })?;
        }
        Ok(config)
    }
}

/// Instruments from a file that holds nothing else: `grid operator define`.
pub(crate) fn load_instruments(path: &Path) -> Result<Vec<InstrumentSpec>, ConfigError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Only {
        #[serde(rename = "instrument")]
        instruments: Vec<InstrumentTerms>,
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let origin = path.display().to_string();
    let only: Only = toml::from_str(&text)
        .map_err(|e| ConfigError::Invalid { origin: origin.clone(), reason: e.to_string() })?;
    only.instruments
        .iter()
        .map(|terms| terms.spec().map_err(|reason| ConfigError::Invalid { origin: origin.clone(), reason }))
        .collect()
}

/// The text as a table, with the embedded defaults left out.
pub(crate) fn parse(origin: &str, text: &str) -> Result<toml::Table, ConfigError> {
    text.parse().map_err(|error: toml::de::Error| ConfigError::Invalid {
        origin: origin.to_owned(),
        reason: error.to_string(),
    })
}

/// Tables are merged key by key; everything else, lists included, is replaced.
fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(more)) => merge(inner, more),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

impl InstrumentTerms {
    /// The engine's form.
    pub(crate) fn spec(&self) -> Result<InstrumentSpec, String> {
        let tick = dollars(&self.tick)?;
        if tick <= Usd::ZERO {
            return Err("tick is above zero".into());
        }
        let max_price = match &self.max_price {
            Some(text) => self.ticks(text)?,
            None => Price(1_000_000),
        };
        Ok(InstrumentSpec {
            symbol: self.symbol.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            quality: QualityTerms {
                index: self.index.clone(),
                score_floor: self.score_floor,
                tokens_per_second_floor: self.tokens_per_second_floor,
                ttft_ceiling_ms: self.ttft_ceiling_ms,
                context_floor: self.context_floor,
                output_floor: self.output_floor,
            },
            market: MarketTerms {
                tick,
                lot: Qty(self.lot),
                min_qty: Qty(self.min_qty),
                max_qty: Qty(self.max_qty),
                max_price,
                maker_fee_bps: self.maker_fee_bps,
                taker_fee_bps: self.taker_fee_bps,
            },
            delivery: DeliveryTerms {
                window: self.window_seconds.map(|seconds| Nanos(seconds.saturating_mul(SECOND))),
                movement: if self.swept { Movement::Swept } else { Movement::AtFill },
            },
            status: match self.status {
                Status::Live => InstrumentStatus::Live,
                Status::Preview => InstrumentStatus::Preview,
                Status::Halted => InstrumentStatus::Halted,
            },
        })
    }

    /// A decimal price in ticks; refuses one between two ticks.
    pub(crate) fn ticks(&self, text: &str) -> Result<Price, String> {
        let (price, tick) = (dollars(text)?, dollars(&self.tick)?);
        if tick <= Usd::ZERO || price < Usd::ZERO || price.0 % tick.0 != 0 {
            return Err(format!("{text} is not a multiple of the tick {}", self.tick));
        }
        Ok(Price((price.0 / tick.0) as u64))
    }
}

/// Decimal dollars with at most nine places, without floats.
pub(crate) fn dollars(text: &str) -> Result<Usd, String> {
    let wrong = || format!("{text:?} is not an amount of dollars with at most nine decimal places");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let nanos = format!("{whole}{part:0<9}");
    nanos.parse().map(Usd).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_defaults_define_the_nine_tier_instruments() {
        let config = Config::load(None).unwrap();
        let symbols: Vec<_> = config.instruments.iter().map(|terms| terms.symbol.as_str()).collect();
        let families = ["text", "code", "agent"];
        let expected: Vec<_> = families
            .iter()
            .flat_map(|f| ["max", "prime", "standard"].map(|tier| format!("{f}-{tier}")))
            .collect();
        assert_eq!(symbols, expected);
        assert_eq!(
            config.sla.terms(),
            Ok(grid_engine::sla::SlaTerms::default()),
            "the engine's own defaults"
        );
    }

    #[test]
    fn a_file_changes_only_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("venue.toml");
        std::fs::write(&path, "[listen]\nport_base = 9000\n").unwrap();
        let config = Config::load(Some(&path)).unwrap();
        assert_eq!(config.listen.port_base, 9000);
        assert_eq!(config.instruments.len(), 9);
        std::fs::write(&path, "[listen]\nport_bse = 9000\n").unwrap();
        let error = Config::load(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("port_bse"), "names the key: {error}");
    }

    #[test]
    fn dollars_are_read_without_floats() {
        let table = [
            ("0.81", Some(810_000_000)),
            ("25", Some(25_000_000_000)),
            ("0.0000000001", None),
            ("1e3", None),
        ];
        for (text, nanos) in table {
            assert_eq!(dollars(text).ok().map(|usd| usd.0), nanos, "{text}");
        }
    }
}
