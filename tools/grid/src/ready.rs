//! The ready file: everything that a client needs to try the venue, as one JSON object.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use grid_engine::command::AccountMode;
use grid_engine::{AccountId, Engine};
use grid_sequencer::DataDir;
use grid_trading::ids;
use serde::Serialize;

use crate::secrets::{Participant, fingerprint_text};
use crate::venue::Urls;

/// The file's content.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ready {
    #[serde(flatten)]
    pub(crate) urls: Urls,
    pub(crate) accounts: BTreeMap<String, ReadyAccount>,
    pub(crate) instruments: Vec<ReadyInstrument>,
    pub(crate) suppliers: Vec<ReadySupplier>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadyAccount {
    pub(crate) account_id: String,
    pub(crate) consumption_key: String,
    pub(crate) private_key: String,
    pub(crate) fingerprint: String,
    pub(crate) mode: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadyInstrument {
    pub(crate) symbol: String,
    pub(crate) instrument_id: String,
    pub(crate) market_id: String,
    /// Its number in the binary protocol.
    pub(crate) number: u16,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadySupplier {
    pub(crate) name: String,
    pub(crate) url: String,
    /// Where its faults are set.
    pub(crate) control_url: String,
}

impl ReadyAccount {
    pub(crate) fn new(id: AccountId, keys: &Participant, mode: AccountMode) -> Self {
        Self {
            account_id: ids::user(id),
            consumption_key: keys.consumption_key.clone(),
            private_key: keys.private_key.into(),
            fingerprint: fingerprint_text(keys.private_key.fingerprint()),
            mode: match mode {
                AccountMode::Easy => "easy",
                AccountMode::Advanced => "advanced",
            },
        }
    }
}

/// All instruments, in the order of their numbers.
pub(crate) fn instruments(engine: &Engine) -> Vec<ReadyInstrument> {
    let record = |instrument: &grid_engine::state::Instrument| ReadyInstrument {
        symbol: instrument.spec.symbol.clone(),
        instrument_id: ids::instrument(instrument.id),
        market_id: ids::market(instrument.id),
        number: instrument.id.0,
    };
    engine.state().instruments.iter().map(record).collect()
}

/// Takes away the file of an earlier run, so that it can't be taken for this one's. A venue that still runs on this
/// data directory keeps its file: the lock is tried first.
pub(crate) fn retire(path: &Path, data_dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    drop(DataDir::open(data_dir)?);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot replace the ready file {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// Writes the file so that whoever waits for it never sees half of it.
pub(crate) fn write(path: &Path, ready: &impl Serialize) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(&serde_json::to_vec_pretty(ready)?)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}
