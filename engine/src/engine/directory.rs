//! Who takes part and what is traded: accounts, keys, instruments, suppliers, issuance.

use super::{Refusal, Step};
use crate::book::WIDEST;
use crate::command::{AccountMode, AutoBuy, Capabilities, SupplierProfile};
use crate::event::{Event, ReportBody};
use crate::ids::{AccountId, Fingerprint, InstrumentId, KeyHash, KeyId};
use crate::instrument::{InstrumentSpec, InstrumentStatus, Movement};
use crate::limits;
use crate::reject::Reject;
use crate::sla::SlaTerms;
use crate::state::{Account, ConsumptionKey, Instrument, SigningKey, Timer, Watched};
use crate::units::{Nanos, Qty, Tokens, Usd};

impl Step<'_> {
    /// The venue's account and the operator's. Only an empty venue has a genesis.
    pub(super) fn genesis(&mut self, operator_key: &[u8; 32]) {
        if !self.state.accounts.is_empty() {
            return;
        }
        self.insert_account("venue", AccountMode::Advanced, Capabilities::default());
        let all = Capabilities { tier: true, operator: true };
        let operator = self.insert_account("operator", AccountMode::Advanced, all);
        self.insert_signing_key(operator, operator_key, "genesis");
        self.events.push(Event::DirectoryChanged);
    }

    fn insert_account(&mut self, name: &str, mode: AccountMode, capabilities: Capabilities) -> AccountId {
        let id = AccountId(u32::try_from(self.state.accounts.len()).expect("bounded by ACCOUNTS"));
        self.state.accounts.push(Account {
            id,
            name: name.to_owned(),
            mode,
            capabilities,
            auto_buy: AutoBuy { enabled: mode == AccountMode::Easy, ..AutoBuy::default() },
            usd_available: Usd::ZERO,
            usd_held: Usd::ZERO,
            orders: Default::default(),
            labels: Default::default(),
            tags: Default::default(),
            tags_by_age: Default::default(),
            created_at: self.at,
            updated_at: self.at,
            deposited_at: Nanos::ZERO,
            withdrawn_at: Nanos::ZERO,
            watched: Watched::default(),
            open_calls: 0,
            funding: Default::default(),
            benchmark: false,
        });
        id
    }

    pub(super) fn open_account(
        &mut self,
        name: &str,
        mode: AccountMode,
        capabilities: Capabilities,
    ) -> Result<(), Refusal> {
        check_text(name, limits::TEXT)?;
        if self.state.accounts.len() >= limits::ACCOUNTS {
            return Err(Reject::LimitReached.into());
        }
        let id = self.insert_account(name, mode, capabilities);
        self.directory_changed(u64::from(id.0))
    }

    pub(super) fn set_mode(&mut self, mode: AccountMode) -> Result<(), Refusal> {
        let account = self.account_mut(self.account);
        account.mode = mode;
        account.auto_buy.enabled = mode == AccountMode::Easy;
        self.directory_changed(0)
    }

    /// The owner may switch buying on and off in Advanced Mode; amounts and limits are the operator's (contract §4.5).
    pub(super) fn set_auto_buy(&mut self, wanted: AutoBuy) -> Result<(), Refusal> {
        let by_operator = self.caller_is_operator();
        let account = self.account_mut(self.account);
        let only_switch = AutoBuy { enabled: account.auto_buy.enabled, ..wanted } == account.auto_buy;
        if (!by_operator && !only_switch) || (account.mode == AccountMode::Easy && !wanted.enabled) {
            return Err(Reject::NotPermitted.into());
        }
        if wanted.quantity.is_zero() || wanted.price_ceiling.0 < 0 || wanted.quantity.tokens().is_none() {
            return Err(Reject::InvalidQuantity.into());
        }
        account.auto_buy = wanted;
        self.directory_changed(0)
    }

    fn caller_is_operator(&self) -> bool {
        let session = self.state.sessions.at(self.session);
        session
            .and_then(|session| self.state.account(session.account))
            .is_some_and(|a| a.capabilities.operator)
    }

    pub(super) fn add_signing_key(&mut self, public_key: &[u8; 32], label: &str) -> Result<(), Refusal> {
        if self.state.signing_keys.contains_key(&Fingerprint::of(public_key)) {
            return Err(Reject::DuplicateKey.into());
        }
        check_text(label, limits::TEXT)?;
        if self.state.signing_keys.len() >= limits::KEYS {
            return Err(Reject::LimitReached.into());
        }
        self.insert_signing_key(self.account, public_key, label);
        self.directory_changed(0)
    }

    fn insert_signing_key(&mut self, account: AccountId, public_key: &[u8; 32], label: &str) {
        let key = SigningKey {
            account,
            public_key: *public_key,
            label: label.to_owned(),
            active: true,
            created_at: self.at,
        };
        self.state.signing_keys.insert(Fingerprint::of(public_key), key);
    }

    pub(super) fn revoke_signing_key(&mut self, fingerprint: Fingerprint) -> Result<(), Refusal> {
        let account = self.account;
        let key =
            self.state.signing_keys.get_mut(&fingerprint).filter(|key| key.account == account && key.active);
        key.ok_or(Reject::UnknownKey)?.active = false;
        self.directory_changed(0)
    }

    pub(super) fn add_consumption_key(
        &mut self,
        hash: KeyHash,
        prefix: &str,
        name: &str,
        expires_at: Option<Nanos>,
    ) -> Result<(), Refusal> {
        if self.state.consumption_keys.contains_key(&hash) {
            return Err(Reject::DuplicateKey.into());
        }
        check_text(prefix, 16)?;
        check_text(name, limits::TEXT)?;
        if self.state.consumption_keys.len() >= limits::KEYS {
            return Err(Reject::LimitReached.into());
        }
        self.state.keys_by_id.push((self.account, hash));
        let key = ConsumptionKey {
            id: KeyId(u32::try_from(self.state.keys_by_id.len()).expect("bounded by KEYS")),
            account: self.account,
            prefix: prefix.to_owned(),
            name: name.to_owned(),
            active: true,
            expires_at,
            created_at: self.at,
        };
        self.state.consumption_keys.insert(hash, key);
        self.directory_changed(0)
    }

    pub(super) fn revoke_consumption_key(&mut self, hash: KeyHash) -> Result<(), Refusal> {
        let account = self.account;
        let key =
            self.state.consumption_keys.get_mut(&hash).filter(|key| key.account == account && key.active);
        key.ok_or(Reject::UnknownKey)?.active = false;
        self.directory_changed(0)
    }

    pub(super) fn define_instrument(&mut self, spec: &InstrumentSpec) -> Result<(), Refusal> {
        check_terms(spec)?;
        let known = self.state.symbols.get(&spec.symbol).copied();
        if let Some(id) = known {
            let (old, new) = (self.state.instruments[usize::from(id.0)].spec.market, spec.market);
            if self.state.book(id).is_some_and(|book| !book.is_empty())
                && (old.tick != new.tick || old.lot != new.lot)
            {
                return Err(Reject::OutOfRange.into());
            }
        }
        check_texts(spec)?;
        let id = match known {
            Some(id) => {
                let at = self.at;
                let record = &mut self.state.instruments[usize::from(id.0)];
                record.spec = spec.clone();
                record.updated_at = at;
                id
            }
            None => self.list_instrument(spec)?,
        };
        self.schedule_sweep(id);
        self.review_quality_of(id);
        self.directory_changed(u64::from(id.0))
    }

    fn list_instrument(&mut self, spec: &InstrumentSpec) -> Result<InstrumentId, Reject> {
        if self.state.instruments.len() >= limits::INSTRUMENTS {
            return Err(Reject::LimitReached);
        }
        let id = InstrumentId(u16::try_from(self.state.instruments.len()).expect("bounded by INSTRUMENTS"));
        self.state.instruments.push(Instrument {
            id,
            spec: spec.clone(),
            last_trade: None,
            trades: 0,
            volume: Qty::ZERO,
            issued: Tokens::ZERO,
            delivered: Tokens::ZERO,
            expired: Tokens::ZERO,
            sla: SlaTerms::NONE,
            window_ends: None,
            managed: None,
            created_at: self.at,
            updated_at: self.at,
        });
        self.state.books.list();
        self.state.symbols.insert(spec.symbol.clone(), id);
        Ok(id)
    }

    /// Keeps exactly one sweep timer for an instrument that is swept. One left over from an earlier policy ends by
    /// itself when it fires.
    fn schedule_sweep(&mut self, id: InstrumentId) {
        let swept = self.state.instruments[usize::from(id.0)].spec.delivery.movement == Movement::Swept;
        let scheduled = self.state.timers.iter().any(|&(_, timer)| timer == Timer::Sweep(id));
        if swept && !scheduled {
            self.state.timers.insert((self.at.next_sweep(), Timer::Sweep(id)));
        }
    }

    pub(super) fn set_instrument_status(
        &mut self,
        instrument: InstrumentId,
        status: InstrumentStatus,
    ) -> Result<(), Refusal> {
        let at = self.at;
        let record =
            self.state.instruments.get_mut(usize::from(instrument.0)).ok_or(Reject::UnknownInstrument)?;
        record.spec.status = status;
        record.updated_at = at;
        self.directory_changed(u64::from(instrument.0))
    }

    pub(super) fn register_supplier(&mut self, profile: &SupplierProfile) -> Result<(), Refusal> {
        if profile.offers.iter().any(|offer| self.state.instrument(offer.instrument).is_none()) {
            return Err(Reject::UnknownInstrument.into());
        }
        check_text(&profile.name, limits::TEXT)?;
        check_text(&profile.base_url, 256)?;
        let offers_fit = profile.offers.len() <= 64
            && profile.sealed_credential.len() <= 512
            && profile.offers.iter().all(|offer| check_text(&offer.model, 128).is_ok());
        if !offers_fit {
            return Err(Reject::InvalidText.into());
        }
        self.state.suppliers.entry(self.account).or_default().profile = profile.clone();
        let models = profile.offers.iter().map(|offer| offer.model.clone()).collect();
        self.events.push(Event::OffersChanged { supplier: self.account, models });
        self.review_offers(self.account);
        self.review_asks(self.account);
        self.directory_changed(0)
    }

    pub(super) fn set_capacity(&mut self, instrument: InstrumentId, capacity: Qty) -> Result<(), Refusal> {
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if !self.state.suppliers.contains_key(&self.account) {
            return Err(Reject::NotASupplier.into());
        }
        if capacity.tokens().is_none_or(|tokens| tokens.0 > limits::ALL_TOKENS) {
            return Err(Reject::OutOfRange.into());
        }
        self.supply_mut(self.account, instrument).capacity = capacity;
        self.directory_changed(0)
    }

    /// Mints Units against capacity and collateral: liability, this issue included, stays within what the operator
    /// granted and what the supplier has behind it.
    pub(super) fn issue(&mut self, instrument: InstrumentId, qty: Qty) -> Result<(), Refusal> {
        let record = self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if qty.is_zero() {
            return Err(Reject::InvalidQuantity.into());
        }
        self.state.suppliers.get(&self.account).ok_or(Reject::NotASupplier)?;
        let tokens = qty.tokens().ok_or(Reject::OutOfRange)?;
        let all = record.issued.checked_add(tokens).ok_or(Reject::OutOfRange)?;
        if all.0 > limits::ALL_TOKENS {
            return Err(Reject::OutOfRange.into());
        }
        let supply = self.state.supplies.get(self.account, instrument).copied().unwrap_or_default();
        let capacity = supply.capacity.tokens().expect("checked when it was set");
        if supply.liability().plus(tokens) > capacity {
            return Err(Reject::BeyondCapacity.into());
        }
        if !self.collateral_covers(self.account, instrument, supply.liability().plus(tokens)) {
            return Err(Reject::BeyondCollateral.into());
        }
        if self.state.is_suspended(self.account, instrument) {
            return Err(Reject::Suspended.into());
        }
        let issuance = self.issue_units(self.account, instrument, qty);
        self.answer(ReportBody::Done { created: issuance });
        Ok(())
    }

    pub(super) fn transfer_issuance(&mut self, instrument: InstrumentId, qty: Qty) -> Result<(), Refusal> {
        self.state.instrument(instrument).ok_or(Reject::UnknownInstrument)?;
        if qty.is_zero() {
            return Err(Reject::InvalidQuantity.into());
        }
        let issued =
            self.state.holding(self.account, instrument).map_or(Qty::ZERO, |holding| holding.issuance);
        if qty > issued {
            return Err(Reject::InsufficientUnits.into());
        }
        let transfer = self.list_units(self.account, instrument, qty);
        self.answer(ReportBody::Done { created: transfer });
        Ok(())
    }

    pub(super) fn directory_changed(&mut self, created: u64) -> Result<(), Refusal> {
        self.events.push(Event::DirectoryChanged);
        self.answer(ReportBody::Done { created });
        Ok(())
    }
}

fn check_text(text: &str, max: usize) -> Result<(), Reject> {
    if text.len() > max || text.chars().any(char::is_control) { Err(Reject::InvalidText) } else { Ok(()) }
}

fn check_terms(spec: &InstrumentSpec) -> Result<(), Reject> {
    let market = &spec.market;
    if market.lot.is_zero()
        || market.min_qty.is_zero()
        || market.min_qty > market.max_qty
        || market.max_qty.0 > WIDEST
    {
        return Err(Reject::InvalidQuantity);
    }
    if market.tick.0 <= 0 || market.max_price.is_zero() || market.max_price.0 > WIDEST {
        return Err(Reject::InvalidPrice);
    }
    if market.maker_fee_bps > limits::FEE_BPS
        || market.taker_fee_bps > limits::FEE_BPS
        || spec.delivery.window == Some(Nanos::ZERO)
    {
        return Err(Reject::OutOfRange);
    }
    Ok(())
}

fn check_texts(spec: &InstrumentSpec) -> Result<(), Reject> {
    let symbol_fits = (1..=32).contains(&spec.symbol.len())
        && spec.symbol.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !symbol_fits {
        return Err(Reject::InvalidText);
    }
    check_text(&spec.name, limits::TEXT)?;
    check_text(&spec.description, 512)?;
    check_text(&spec.quality.index, limits::TEXT)
}
