//! Adds up what everybody has, from what the public API says: dollars and tokens are neither made nor lost.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{Account, Venue, until};
use crate::web::Signer;

/// What all accounts together have, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// Dollars of all accounts, in nano-dollars.
    pub(crate) usd: i128,
    /// Dollars that suppliers have not earned yet, in nano-dollars.
    pub(crate) escrow: i128,
    /// By instrument.
    pub(crate) instruments: BTreeMap<String, Tokens>,
}

/// Tokens of one instrument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// In issuance, trading and consumption.
    pub(crate) held: u64,
    /// Drawn by calls.
    pub(crate) used: u64,
    pub(crate) issued: u64,
    pub(crate) delivered: u64,
    pub(crate) expired: u64,
    /// What suppliers owe.
    pub(crate) owed: u64,
}

/// A decimal as whole billionths, without floats.
pub(crate) fn nanos(value: &Value) -> i128 {
    scaled(value, 9)
}

/// A number of Units as tokens.
pub(crate) fn tokens(value: &Value) -> u64 {
    scaled(value, 6) as u64
}

fn scaled(value: &Value, places: usize) -> i128 {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.1$}", number.as_f64().unwrap_or_default(), places)
        }
        other => other.to_string(),
    };
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let digits = format!("{whole}{part:0<places$}");
    assert!(part.len() <= places, "{text} has more than {places} places");
    digits.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Everybody that a demo knows: those in the ready file, and the others by the venue's own key file.
pub(crate) fn everybody(venue: &Venue) -> Vec<Account> {
    everybody_at(venue, &venue.data())
}

/// The same of a venue whose data is elsewhere.
pub(crate) fn everybody_at(venue: &Venue, data: &Path) -> Vec<Account> {
    let text = std::fs::read(data.join("keys.json")).expect("the venue keeps its keys there");
    let keys: Value = serde_json::from_slice(&text).expect("JSON");
    let mut all: Vec<Account> = venue.ready.accounts.keys().map(|name| venue.account(name)).collect();
    let participants = keys["participants"].as_object().expect("participants");
    for (name, participant) in
        participants.iter().filter(|(name, _)| !venue.ready.accounts.contains_key(*name))
    {
        let seed = STANDARD.decode(participant["private_key"].as_str().expect("text")).expect("Base64");
        let seed: [u8; 32] = seed[..32].try_into().expect("a seed");
        if all.iter().any(|known| known.seed == seed) {
            continue;
        }
        let consumption_key = participant["consumption_key"].as_str().expect("text").into();
        let account = Account { seed, consumption_key };
        // Keys of all are made at once; who takes no part has no account.
        let me = venue.signer(&account).send("GET", "/me", b"").expect("an answer");
        match me.status {
            200 => all.push(account),
            status => assert_eq!(status, 401, "{name}: {}", me.text()),
        }
    }
    all
}

impl Books {
    /// Reads them at a moment at which nothing happens: the log stands still from the first read to the last.
    pub(crate) fn read(venue: &Venue, accounts: &[Account]) -> Self {
        reads_catch_up(venue, &venue.account("demo"));
        let signers: Vec<Signer> = accounts.iter().map(|account| venue.signer(account)).collect();
        let market = &venue.ready.instruments[0].market_id;
        let path = format!("/markets/{market}/orderbook?depth=1");
        let sequence =
            || signers[0].get(&path)["sequence"].as_u64().expect("a book says how far it has read");
        until("a moment without commands", || {
            let before = sequence();
            let mut books = Self::default();
            for signer in &signers {
                books.add(signer);
            }
            if sequence() == before { Ok(books) } else { Err("the log moves on".into()) }
        })
    }

    fn add(&mut self, signer: &Signer) {
        let rows = |path: &str| -> Vec<Value> {
            signer.get(&format!("{path}?limit=100")).as_array().expect("a list").clone()
        };
        for row in rows("/currency-trading-accounts") {
            let (total, available, locked) = (
                nanos(&row["total_balance"]),
                nanos(&row["available_balance"]),
                nanos(&row["locked_balance"]),
            );
            assert_eq!(total, available + locked, "{row}");
            assert!(available >= 0 && locked >= 0, "{row}");
            self.usd += total;
        }
        for row in rows("/trading-accounts") {
            if row["currency"] == "usd" {
                continue;
            }
            let (total, available, locked) = (
                tokens(&row["total_balance"]),
                tokens(&row["available_balance"]),
                tokens(&row["locked_balance"]),
            );
            assert_eq!(total, available + locked, "{row}");
            self.instrument(&row).held += total;
        }
        for row in rows("/consumption-accounts") {
            let entry = self.instrument(&row);
            entry.held += tokens(&row["total_balance"]);
            entry.used += row["tokens_used"].as_u64().expect("a number");
        }
        for row in rows("/issuance-accounts") {
            self.instrument(&row).held += tokens(&row["total_balance"]);
        }
        let liability = signer.send("GET", "/supplier-liability", b"").expect("an answer");
        if liability.status == 403 {
            return;
        }
        assert_eq!(liability.status, 200, "{}", liability.text());
        for row in liability.json()["data"].as_array().expect("a list") {
            self.escrow += nanos(&row["escrow_usd"]);
            let entry = self.instrument(row);
            entry.issued += tokens(&row["total_issued"]);
            entry.delivered += tokens(&row["total_delivered"]);
            entry.expired += tokens(&row["total_expired"]);
            entry.owed += row["outstanding_tokens"].as_u64().expect("a number");
        }
    }

    fn instrument(&mut self, row: &Value) -> &mut Tokens {
        let symbol = row["instrument_symbol"].as_str().unwrap_or_else(|| panic!("a symbol in {row}"));
        self.instruments.entry(symbol.into()).or_default()
    }

    /// Every dollar that came in is somewhere, and every token that was issued is held by somebody and owed by its
    /// issuer, or was delivered, or has expired.
    pub(crate) fn conserve(&self, deposited_dollars: i128) {
        assert_eq!(self.usd + self.escrow, deposited_dollars * 1_000_000_000, "dollars: {self:#?}");
        for (symbol, tokens) in &self.instruments {
            assert_eq!(
                tokens.issued,
                tokens.delivered + tokens.expired + tokens.owed,
                "{symbol}: {tokens:?}"
            );
            assert_eq!(tokens.held, tokens.owed, "{symbol}: held by all and owed by suppliers: {tokens:?}");
            assert_eq!(tokens.used, tokens.delivered, "{symbol}: used by all and delivered: {tokens:?}");
        }
    }
}

/// Waits until reads show everything that anybody was told before this: a write through the same tier comes behind it
/// in the log, and that tier shows its own writes. What is written is a mass cancel, so not for accounts with orders.
pub(crate) fn reads_catch_up(venue: &Venue, account: &Account) {
    until("the tier's answer to a mass cancel", || {
        let answer =
            venue.signer(account).send("DELETE", "/orders", b"").map_err(|error| error.to_string())?;
        // In Auto Mode it is refused, by the engine and in the log. 401 is a key that the tier has not seen yet.
        if matches!(answer.status, 200 | 403) {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.text()))
        }
    });
}

/// Tokens that an account has used, all instruments together.
pub(crate) fn used(venue: &Venue, account: &Account) -> u64 {
    reads_catch_up(venue, account);
    let rows = venue.signer(account).get("/consumption-accounts");
    let rows = rows.as_array().expect("a list").clone();
    rows.iter().map(|row| row["tokens_used"].as_u64().expect("a number")).sum()
}

/// Dollars of all demo participants at their start; collateral of three suppliers for three instruments included.
pub(crate) const DEMO_DEPOSITS: i128 = 25 + 10_000 + 1_000_000 + 3 * 3 * 500;
