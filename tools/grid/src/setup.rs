//! Brings the directory in the log up to what the configuration lists: the first start writes it, every later one
//! finds it there. What the operator changed since is left as it is.

use std::time::Duration;

use grid_client::{Client, ClientError, Report, Request};
use grid_engine::command::{AccountMode, Capabilities, Command};
use grid_engine::{AccountId, Engine, Fingerprint, KeyHash, Reject, Seq, Usd};
use grid_replicator::Replica;

use crate::config::{Config, InstrumentTerms};
use crate::secrets::{Participant, Secrets, Seed};

/// Why the directory could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The door refused or failed.
    #[error("{what}: {error}")]
    Door { what: String, error: ClientError },
    /// The configuration names something impossible.
    #[error("{0}")]
    Config(String),
    /// The venue's own replica did not follow.
    #[error("the replica did not reach {0:?} in time")]
    Replica(Seq),
}

/// The operator's session and the replica that shows what it did.
pub(crate) struct Operator<'a> {
    pub(crate) client: &'a Client,
    pub(crate) replica: &'a Replica<Engine>,
}

impl Operator<'_> {
    /// Carries out a directory command for `account` and waits until the replica shows it.
    pub(crate) fn command(
        &self,
        what: &str,
        account: AccountId,
        command: &Command,
    ) -> Result<Report, SetupError> {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        let door = |error| SetupError::Door { what: what.to_owned(), error };
        let report =
            self.client.call_blocking(Request::Directory { account: account.0, payload }).map_err(door)?;
        let seq = Seq(report.log_seq());
        self.replica.wait_for_blocking(seq, Duration::from_secs(30)).map_err(|_| SetupError::Replica(seq))?;
        Ok(report)
    }

    /// The account that a key belongs to, if it is registered.
    pub(crate) fn account_of(&self, key: Fingerprint) -> Option<AccountId> {
        self.replica.read(|engine| engine.state().signing_keys.get(&key).map(|key| key.account))
    }

    /// Opens an account with one signing key, unless that key has one already.
    pub(crate) fn account(
        &self,
        name: &str,
        key: Seed,
        mode: AccountMode,
        capabilities: Capabilities,
    ) -> Result<AccountId, SetupError> {
        if let Some(account) = self.account_of(key.fingerprint()) {
            return Ok(account);
        }
        let account = match self.keyless(name, capabilities) {
            Some(account) => account,
            None => {
                let open = Command::OpenAccount { name: name.to_owned(), mode, capabilities };
                let opened = self.command("open account", AccountId(self.client.account()), &open)?;
                AccountId(u32::try_from(opened.id()).expect("account ids are 32 bits"))
            }
        };
        let add = Command::AddSigningKey { public_key: key.public_key(), label: name.to_owned() };
        match self.command("register signing key", account, &add) {
            // Somebody else was there first: another node that led a moment ago.
            Err(SetupError::Door { error: ClientError::Rejected(reject), .. })
                if reject.code == Reject::DuplicateKey.code() =>
            {
                let seq = Seq(reject.log_seq);
                let shown = self.replica.wait_for_blocking(seq, Duration::from_secs(30));
                shown.map_err(|_| SetupError::Replica(seq))?;
                self.account_of(key.fingerprint()).ok_or(SetupError::Replica(seq))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(account),
        }
    }

    /// An account of this name and power that has no key: whoever opened it was interrupted.
    fn keyless(&self, name: &str, capabilities: Capabilities) -> Option<AccountId> {
        self.replica.read(|engine| {
            let state = engine.state();
            let keyless = |id| !state.signing_keys.values().any(|key| key.account == id);
            let mut accounts = state.accounts.iter();
            let found = accounts.find(|account| {
                account.name == name && account.capabilities == capabilities && keyless(account.id)
            });
            found.map(|account| account.id)
        })
    }

    /// Registers a consumption key, unless it is there.
    pub(crate) fn consumption_key(
        &self,
        account: AccountId,
        name: &str,
        key: &str,
    ) -> Result<(), SetupError> {
        let hash = KeyHash::of(key);
        if self.replica.read(|engine| engine.state().consumption_keys.contains_key(&hash)) {
            return Ok(());
        }
        let prefix = key.chars().take(8).collect();
        let add = Command::AddConsumptionKey { hash, prefix, name: name.to_owned(), expires_at: None };
        self.command("register consumption key", account, &add).map(drop)
    }

    /// A participant with both keys; money arrives only when the account is new.
    pub(crate) fn participant(
        &self,
        name: &str,
        keys: &Participant,
        mode: AccountMode,
        money: Usd,
    ) -> Result<AccountId, SetupError> {
        let known = self.account_of(keys.private_key.fingerprint()).is_some();
        let account = self.account(name, keys.private_key, mode, Capabilities::default())?;
        self.consumption_key(account, name, &keys.consumption_key)?;
        if !known && money > Usd::ZERO {
            self.command("deposit", account, &Command::Deposit { amount: money })?;
        }
        Ok(account)
    }
}

/// The configured instruments, and then the tiers' account with its key: where that key is, this has been done whole.
/// May be begun again anywhere, by any node, after whatever interrupted it.
pub(crate) fn directory(
    operator: &Operator<'_>,
    config: &Config,
    secrets: &Secrets,
) -> Result<(), SetupError> {
    define(operator, &missing_instruments(operator.replica, config))?;
    let terms = config.accounts.terms().map_err(SetupError::Config)?;
    if operator.replica.read(|engine| engine.state().terms != terms) {
        let own = AccountId(operator.client.account());
        operator.command("account terms", own, &Command::SetAccountTerms(terms))?;
    }
    crate::service::set_terms(operator, config)?;
    let tier = Capabilities { tier: true, operator: false };
    operator.account("http tiers", secrets.tier, AccountMode::Advanced, tier)?;
    Ok(())
}

/// The configured instruments that the log does not have yet.
pub(crate) fn missing_instruments<'a>(
    replica: &Replica<Engine>,
    config: &'a Config,
) -> Vec<&'a InstrumentTerms> {
    let known =
        |terms: &&InstrumentTerms| replica.read(|engine| engine.state().symbols.contains_key(&terms.symbol));
    config.instruments.iter().filter(|terms| !known(terms)).collect()
}

/// Lists these instruments.
pub(crate) fn define(operator: &Operator<'_>, missing: &[&InstrumentTerms]) -> Result<(), SetupError> {
    let own = AccountId(operator.client.account());
    for terms in missing {
        let spec = terms.spec().map_err(SetupError::Config)?;
        operator.command("define instrument", own, &Command::DefineInstrument(Box::new(spec)))?;
    }
    Ok(())
}
