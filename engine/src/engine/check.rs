//! Every invariant that the state's types promise, proved from scratch. Slow on purpose: it trusts no running total.

use std::collections::BTreeMap;

use crate::command::Side;
use crate::ids::{AccountId, InstrumentId, KeyId, Label, LotId, SessionId};
use crate::limits;
use crate::state::{Account, Holding, Pair, Session, State, Timer};
use crate::units::{TOKENS_PER_UNIT, Usd};

macro_rules! hold {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}

pub(super) fn check(state: &State) -> Result<(), String> {
    state.books.check()?;
    hold!(
        state.accounts.iter().map(|account| account.orders.len()).sum::<usize>() == state.books.len(),
        "every resting order is listed by its account"
    );
    let reserved = reserved_by_lot(state);
    let mut calls: BTreeMap<AccountId, u32> = BTreeMap::new();
    for (_, open) in state.reservations.iter() {
        *calls.entry(open.account).or_default() += 1;
    }
    let mut escrow: BTreeMap<(AccountId, InstrumentId), i128> = BTreeMap::new();
    let mut usd: i128 = 0;
    let mut tokens: BTreeMap<InstrumentId, u128> = BTreeMap::new();
    for account in &state.accounts {
        usd += check_account(state, account)?;
        check_funding(state, account, calls.get(&account.id).copied().unwrap_or(0))?;
    }
    state.holdings.check()?;
    state.supplies.check()?;
    for holding in state.holdings.iter() {
        let (account, instrument) = holding.pair();
        check_holding(state, account, instrument, holding, &reserved)?;
        for tranche in &holding.tranches {
            *escrow.entry((tranche.issuer, instrument)).or_default() += i128::from(tranche.escrow.0);
        }
        for lot in holding.lots() {
            *escrow.entry((lot.issuer, instrument)).or_default() += i128::from(lot.escrow_left().0);
        }
        *tokens.entry(instrument).or_default() += held_tokens(holding);
    }
    let pending = state.accounts.iter().filter(|account| account.funding.pending.is_some()).count();
    hold!(state.reloads.len() == pending, "{pending} reloads are under way");
    check_money(state, usd, &escrow)?;
    check_tokens(state, &tokens)?;
    check_sessions(state)?;
    check_service(state)?;
    check_keys(state)?;
    check_timers(state)
}

/// Dollars of the account, after its own books add up.
fn check_account(state: &State, account: &Account) -> Result<i128, String> {
    let id = account.id;
    hold!(account.usd_available >= Usd::ZERO && account.usd_held >= Usd::ZERO, "{id:?} owes nobody dollars");
    state.books.check_own(id, account.orders)?;
    let somewhere = state.supplies.of(id).any(|(_, supply)| !supply.standing.is_active())
        || state.suppliers.get(&id).is_some_and(|known| known.profile.suspended);
    hold!(
        account.watched.asks() == somewhere,
        "asks of {id:?} are looked at while it is suspended somewhere"
    );
    let mut held = 0;
    let mut labelled = 0;
    for (instrument, order) in state.open_orders(id) {
        hold!(
            order.side == Side::Buy || !state.is_suspended(id, instrument),
            "{id:?} sells nothing on the book while it may not deliver it: {order:?}"
        );
        held += order.hold.0;
        if order.label != Label::default() {
            labelled += 1;
            hold!(
                account.labels.get(&order.label) == Some(&order.id),
                "{:?} is found by its label",
                order.id
            );
        }
    }
    hold!(account.labels.len() == labelled, "labels of {id:?} name open orders");
    held += state.supplies.of(id).map(|(_, supply)| supply.collateral.0).sum::<i64>();
    hold!(
        account.usd_held == Usd(held),
        "{id:?} holds {held} behind its bids and as collateral, not {:?}",
        account.usd_held
    );
    Ok(i128::from(account.usd_available.0) + i128::from(account.usd_held.0))
}

/// A session's quotes: in order, and of each open order its own.
fn check_quotes(state: &State, id: SessionId, session: &Session) -> Result<(), String> {
    let quotes = &session.quotes;
    hold!(
        quotes.iter().is_sorted_by(|a, b| (a.instrument, a.number) < (b.instrument, b.number)),
        "quotes of {id:?} are in order, none twice"
    );
    hold!(quotes.len() <= limits::QUOTES, "{id:?} has {} quotes", quotes.len());
    for quote in quotes.iter() {
        for side in [Side::Buy, Side::Sell] {
            let Some((instrument, order)) = state.order(quote.side(side)) else {
                continue;
            };
            hold!(
                instrument == quote.instrument
                    && order.side == side
                    && order.quote == quote.number
                    && order.account == session.account
                    && order.session == id
                    && order.label == Label::default(),
                "what stands for {quote:?} of {id:?} is its own: {order:?}"
            );
        }
    }
    Ok(())
}

/// Calls in progress and reloads.
fn check_funding(state: &State, account: &Account, open: u32) -> Result<(), String> {
    let (id, funding) = (account.id, &account.funding);
    hold!(account.open_calls == open, "{id:?} has {open} calls in progress");
    hold!(
        account.watched.dollars() == account.may_reload(),
        "dollars of {id:?} are watched while it may reload"
    );
    hold!(
        funding.paid.0 >= 0
            && funding.credited.0 >= 0
            && funding.reloaded.0 >= 0
            && funding.credit_used.0 >= 0,
        "sums of {id:?} are not below zero: {funding:?}"
    );
    if let Some(pending) = &funding.pending {
        hold!(state.reloads.get(&pending.number) == Some(&id), "the reload of {id:?} is found by its number");
    }
    if let Some(at) = funding.waits_until {
        hold!(state.timers.contains(&(at, Timer::Reload(id))), "{id:?} reloads again when the month begins");
    }
    Ok(())
}

fn check_holding(
    state: &State,
    account: AccountId,
    instrument: InstrumentId,
    holding: &Holding,
    reserved: &BTreeMap<(AccountId, InstrumentId, LotId), u64>,
) -> Result<(), String> {
    let tranches: u64 = holding.tranches.iter().map(|tranche| tranche.qty.0).sum();
    hold!(
        holding.available.0 + holding.held.0 == tranches,
        "available + held of {account:?} are its tranches: {holding:?}"
    );
    let asks: u64 = state
        .open_orders(account)
        .filter(|(at, order)| *at == instrument && order.side == Side::Sell)
        .map(|(_, order)| order.remaining.0)
        .sum();
    hold!(
        holding.held.0 == asks,
        "held Units of {account:?} stand behind its asks: {} and {asks}",
        holding.held.0
    );
    for tranche in &holding.tranches {
        hold!(
            !tranche.qty.is_zero() && tranche.escrow.0 >= 0 && tranche.cost.0 >= 0,
            "a tranche is something"
        );
    }
    let sums = holding
        .lots()
        .iter()
        .fold((0, 0), |(free, reserved), lot| (free + lot.free.0, reserved + lot.reserved.0));
    hold!(
        sums == (holding.free_tokens().0, holding.reserved_tokens().0),
        "sums of the lots of {account:?} are kept: {sums:?}"
    );
    let mut before = None;
    for lot in holding.lots() {
        hold!(
            lot.free.0 + lot.reserved.0 + lot.drawn.0 + lot.expired.0 == lot.tokens.0,
            "a lot's parts are the whole: {lot:?}"
        );
        hold!(lot.gone() != lot.tokens, "a used-up lot is gone: {lot:?}");
        let wanted = reserved.get(&(account, instrument, lot.id)).copied().unwrap_or(0);
        hold!(lot.reserved.0 == wanted, "what a lot reserves is what reservations draw: {lot:?}, {wanted}");
        let key = (lot.expires_at.map_or(u64::MAX, |at| at.0), lot.id);
        hold!(before < Some(key), "lots are in the order in which they are spent");
        before = Some(key);
    }
    Ok(())
}

fn reserved_by_lot(state: &State) -> BTreeMap<(AccountId, InstrumentId, LotId), u64> {
    let mut reserved = BTreeMap::new();
    for (_, reservation) in state.reservations.iter() {
        for draw in &reservation.draws {
            *reserved.entry((reservation.account, reservation.instrument, draw.lot)).or_default() +=
                draw.tokens.0;
        }
    }
    reserved
}

fn held_tokens(holding: &Holding) -> u128 {
    let units = u128::from(holding.issuance.0) + u128::from(holding.available.0) + u128::from(holding.held.0);
    let lots: u128 =
        holding.lots().iter().map(|lot| u128::from(lot.free.0) + u128::from(lot.reserved.0)).sum();
    units * u128::from(TOKENS_PER_UNIT) + lots
}

fn check_money(
    state: &State,
    accounts: i128,
    escrow: &BTreeMap<(AccountId, InstrumentId), i128>,
) -> Result<(), String> {
    let all: i128 = escrow.values().sum();
    let minted = state.deposited.0 - state.withdrawn.0;
    hold!(
        accounts + all == minted,
        "dollars are conserved: {accounts} in accounts, {all} in escrow, {minted} minted"
    );
    for supply in state.supplies.iter() {
        let (id, instrument) = supply.pair();
        hold!(state.suppliers.contains_key(&id), "{id:?} owes because it supplies");
        let waiting = escrow.get(&(id, instrument)).copied().unwrap_or(0);
        hold!(
            i128::from(supply.escrow.0) == waiting,
            "escrow of {id:?} is {waiting}, not {:?}",
            supply.escrow
        );
        hold!(
            supply.issued.0 >= supply.delivered.0 + supply.expired.0,
            "{id:?} delivers only what it issued"
        );
    }
    Ok(())
}

fn check_tokens(state: &State, tokens: &BTreeMap<InstrumentId, u128>) -> Result<(), String> {
    for record in &state.instruments {
        let held = tokens.get(&record.id).copied().unwrap_or(0);
        let minted =
            u128::from(record.issued.0) - u128::from(record.delivered.0) - u128::from(record.expired.0);
        hold!(held == minted, "tokens of {} are conserved: {held} held, {minted} minted", record.spec.symbol);
        let liability: u128 = state
            .supplies
            .iter()
            .filter(|supply| supply.pair().1 == record.id)
            .map(|supply| u128::from(supply.liability().0))
            .sum();
        hold!(liability == minted, "every token of {} is some supplier's liability", record.spec.symbol);
    }
    Ok(())
}

fn check_service(state: &State) -> Result<(), String> {
    state.services.check()?;
    for service in state.services.iter() {
        let (supplier, instrument) = service.pair();
        hold!(state.suppliers.contains_key(&supplier), "{supplier:?} serves because it supplies");
        hold!(
            state.supplies.get(supplier, instrument).is_some(),
            "{supplier:?} has a supply of {instrument:?}"
        );
        service.window.check()?;
    }
    for supply in state.supplies.iter() {
        hold!(supply.collateral >= Usd::ZERO, "collateral is not negative: {supply:?}");
        let reasons = supply.standing.reasons();
        let suspended = reasons.breach || reasons.quality;
        hold!(suspended != supply.standing.is_active(), "who is suspended is so for a reason: {supply:?}");
    }
    for (&(from, to), owed) in &state.debts {
        let known = state.account(from).is_some() && state.account(to).is_some();
        hold!(known && from != to && owed.0 > 0, "{from:?} owes {to:?} something: {owed:?}");
    }
    for (at, record) in state.instruments.iter().enumerate() {
        let timer = |due| state.timers.contains(&(due, Timer::Window(crate::ids::InstrumentId(at as u16))));
        hold!(
            record.window_ends.is_some() != record.sla.window.is_zero()
                && record.window_ends.is_none_or(timer),
            "the window of {} closes at its time",
            record.spec.symbol
        );
    }
    for (key, attested) in &state.attestations {
        let said = &attested.statement;
        hold!(
            key.0 == said.supplier && key.1 == said.instrument && key.2 == said.model,
            "an attestation is found under what it is of: {said:?}"
        );
    }
    Ok(())
}

fn check_sessions(state: &State) -> Result<(), String> {
    let mut orders: BTreeMap<SessionId, u32> = BTreeMap::new();
    for (_, order) in state.accounts.iter().flat_map(|account| state.open_orders(account.id)) {
        *orders.entry(order.session).or_default() += 1;
    }
    state.sessions.check(&orders)?;
    for (id, session) in state.sessions.iter() {
        check_quotes(state, *id, session)?;
        hold!(
            session.connection.is_some() != session.ends_at.is_some(),
            "{id:?} is connected, or else it ends some time"
        );
        if let Some(at) = session.ends_at {
            hold!(state.timers.contains(&(at, Timer::SessionEnd(*id))), "{id:?} ends at its time");
        }
        let first = session.next_report - session.reports.len() as u64;
        for (expected, report) in (first..).zip(session.reports.iter()) {
            hold!(report.number == expected, "reports of {id:?} are numbered without gaps");
        }
    }
    Ok(())
}

fn check_keys(state: &State) -> Result<(), String> {
    hold!(state.keys_by_id.len() == state.consumption_keys.len(), "every consumption key has one id");
    for (hash, key) in &state.consumption_keys {
        let named = state.keys_by_id.get((key.id.0 as usize).wrapping_sub(1));
        hold!(named == Some(&(key.account, *hash)), "{:?} is the id of its key", key.id);
    }
    Ok(())
}

fn check_timers(state: &State) -> Result<(), String> {
    state.reservations.check()?;
    for (id, open) in state.reservations.iter() {
        let place = state.holdings.place(open.account, open.instrument);
        hold!(place == Some(open.holding), "{id:?} knows its holding");
        let owner = state.owner_of_key(open.key);
        hold!(
            open.key == KeyId::NONE || owner == Some(open.account),
            "{id:?} came with a key of its account"
        );
    }
    hold!(
        state.reservations.first_due().is_none_or(|(due, _)| due > state.now),
        "no reservation that fell due is left open at {:?}",
        state.now
    );
    hold!(
        state.timers.first().is_none_or(|&(due, _)| due > state.now),
        "nothing that fell due is left undone at {:?}: {:?}",
        state.now,
        state.timers.first()
    );
    Ok(())
}
