//! Money in and out: deposits, credits, withdrawals, and reloads, which the engine decides and somebody else carries out.
//!
//! A reload is begun when a command leaves its account with fewer dollars than the owner's threshold, or when Auto Mode
//! can't pay for a call. It has a number, under which the payment provider is asked, however often; it ends with one
//! command, `ReloadPaid` or `ReloadFailed`. Which month it counts to is the one in which it fell due.

use super::{Refusal, Step};
use crate::event::{Event, ReportBody};
use crate::funding::{AccountTerms, AutoReload, PaymentMethod, PaymentSource, ReloadFailure};
use crate::ids::AccountId;
use crate::limits;
use crate::reject::Reject;
use crate::state::{Allowance, Funding, Reload, Timer};
use crate::units::{DAY, NANOS_PER_USD, Usd};

/// The smallest sum that is charged for: payment providers ask for whole cents.
const CENT: i64 = NANOS_PER_USD / 100;

impl Step<'_> {
    pub(super) fn deposit(&mut self, amount: Usd) -> Result<(), Refusal> {
        self.mint(amount)?;
        let at = self.at;
        let account = self.account_mut(self.account);
        account.deposited_at = at;
        account.funding.paid = Usd(account.funding.paid.0.saturating_add(amount.0));
        self.funded(Event::Funded { account: self.account, amount })
    }

    pub(super) fn withdraw(&mut self, amount: Usd) -> Result<(), Refusal> {
        if amount.0 <= 0 {
            return Err(Reject::OutOfRange.into());
        }
        // What a supplier owes goes first.
        let owed = self.state.owed_by(self.account);
        if i128::from(amount.0) + owed > self.state.accounts[self.account.0 as usize].usd_available.0.into() {
            return Err(Reject::InsufficientFunds.into());
        }
        self.collect(self.account);
        self.state.withdrawn = self.state.withdrawn.plus(amount);
        let at = self.at;
        let account = self.account_mut(self.account);
        account.usd_available = account.usd_available.minus(amount);
        account.withdrawn_at = at;
        self.funded(Event::Funded { account: self.account, amount: Usd(-amount.0) })
    }

    pub(super) fn credit(&mut self, amount: Usd) -> Result<(), Refusal> {
        self.mint(amount)?;
        let funding = self.funding_mut();
        funding.credited = Usd(funding.credited.0.saturating_add(amount.0));
        self.funded(Event::Credited { account: self.account, amount })
    }

    pub(super) fn sign_up_credit(&mut self) -> Result<(), Refusal> {
        if self.state.accounts[self.account.0 as usize].funding.signed_up {
            return Err(Reject::AlreadyCredited.into());
        }
        self.credit(self.state.terms.sign_up_credit)?;
        self.funding_mut().signed_up = true;
        Ok(())
    }

    /// New dollars for the account, unless the venue would hold more than can be counted.
    fn mint(&mut self, amount: Usd) -> Result<(), Reject> {
        let in_venue = self.state.deposited.0 - self.state.withdrawn.0;
        if amount.0 <= 0 || in_venue + i128::from(amount.0) > i128::from(limits::ALL_USD.0) {
            return Err(Reject::OutOfRange);
        }
        self.state.deposited = self.state.deposited.plus(amount);
        let account = self.account_mut(self.account);
        account.usd_available = account.usd_available.plus(amount);
        Ok(())
    }

    fn funded(&mut self, event: Event) -> Result<(), Refusal> {
        self.events.push(event);
        self.answer(ReportBody::Done { created: 0 });
        self.collect(self.account);
        Ok(())
    }

    pub(super) fn set_account_terms(&mut self, terms: AccountTerms) -> Result<(), Refusal> {
        if terms.paid_per_call_at_once.0 < 0 || terms.sign_up_credit.0 < 0 {
            return Err(Reject::OutOfRange.into());
        }
        self.state.terms = terms;
        self.directory_changed(0)
    }

    // -- calls ------------------------------------------------------------------------------------------------

    /// Refuses a call beyond what the terms allow the account.
    pub(super) fn check_allowance(&self) -> Result<(), Reject> {
        let terms = &self.state.terms;
        if terms.free_calls_per_day == 0 && terms.free_at_once == 0 {
            return Ok(());
        }
        let account = &self.state.accounts[self.account.0 as usize];
        let Allowance { per_day, today, at_once, open } = account.allowance(terms, self.at);
        if per_day.is_some_and(|limit| today >= limit) {
            return Err(Reject::FreeTierSpent);
        }
        if at_once.is_some_and(|limit| open >= limit) {
            return Err(Reject::TooManyAtOnce);
        }
        Ok(())
    }

    /// Counts a call that begins.
    pub(super) fn count_call(&mut self) {
        let limited = self.state.terms.free_calls_per_day > 0;
        let day = self.at.0 / DAY;
        let account = &mut self.state.accounts[self.account.0 as usize];
        account.open_calls += 1;
        if limited && account.funding.paid.is_zero() {
            let funding = &mut account.funding;
            if funding.day != day {
                (funding.day, funding.calls_today) = (day, 0);
            }
            funding.calls_today = funding.calls_today.saturating_add(1);
        }
    }

    // -- reloads ----------------------------------------------------------------------------------------------

    pub(super) fn set_auto_reload(&mut self, settings: AutoReload) -> Result<(), Refusal> {
        let AutoReload { enabled, threshold, amount, monthly_limit } = settings;
        let sums = [Some(threshold), Some(amount), monthly_limit];
        if sums.into_iter().flatten().any(|sum| sum.0 < 0 || sum > limits::ALL_USD) {
            return Err(Reject::OutOfRange.into());
        }
        let chargeable = (limits::RELOAD_MIN..=limits::RELOAD_MAX).contains(&amount) && amount.0 % CENT == 0;
        if enabled && (!chargeable || monthly_limit.is_some_and(|limit| limit < amount)) {
            return Err(Reject::OutOfRange.into());
        }
        self.funding_mut().auto_reload = settings;
        self.resume_reloads()
    }

    pub(super) fn set_payment_method(&mut self, method: Option<&PaymentMethod>) -> Result<(), Refusal> {
        let fits = |text: &str| (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
        if method.is_some_and(|method| !fits(&method.customer) || !fits(&method.method)) {
            return Err(Reject::InvalidText.into());
        }
        self.funding_mut().method = method.cloned();
        self.resume_reloads()
    }

    pub(super) fn set_credit_line(&mut self, limit: Usd) -> Result<(), Refusal> {
        if limit.0 < 0 || limit > limits::ALL_USD {
            return Err(Reject::OutOfRange.into());
        }
        self.funding_mut().credit_line = limit;
        self.resume_reloads()
    }

    /// What was lent has been paid back outside the venue.
    pub(super) fn repay_credit(&mut self, amount: Usd) -> Result<(), Refusal> {
        let funding = self.funding_mut();
        if amount.0 <= 0 || amount > funding.credit_used {
            return Err(Reject::OutOfRange.into());
        }
        funding.credit_used = funding.credit_used.minus(amount);
        self.resume_reloads()
    }

    /// Something changed: a failure of before says nothing about the next reload.
    fn resume_reloads(&mut self) -> Result<(), Refusal> {
        self.funding_mut().stopped = None;
        self.watch(self.account);
        self.directory_changed(0)
    }

    /// Notes whether the account's dollars have to be looked at after its commands.
    fn watch(&mut self, id: AccountId) {
        let account = &mut self.state.accounts[id.0 as usize];
        let may_reload = account.may_reload();
        account.watched.set_dollars(may_reload);
    }

    /// After a command of an account whose dollars are watched.
    pub(super) fn look_at_funds(&mut self, id: AccountId) {
        let account = &self.state.accounts[id.0 as usize];
        if account.may_reload() && account.usd_available < account.funding.auto_reload.threshold {
            self.begin_reload(id);
        }
    }

    /// Why a call that can't be paid for is refused. Where that can be helped, it is begun now.
    pub(super) fn out_of_money(&mut self) -> Reject {
        if self.state.accounts[self.account.0 as usize].may_reload() {
            self.begin_reload(self.account);
        }
        let funding = &self.state.accounts[self.account.0 as usize].funding;
        if funding.pending.is_some() {
            Reject::Replenishing
        } else if funding.stopped.is_some() {
            Reject::PaymentDeclined
        } else {
            Reject::InsufficientFunds
        }
    }

    /// Begins a reload, or waits for the next month where this one's limit is reached.
    fn begin_reload(&mut self, id: AccountId) {
        let (at, month) = (self.at, self.at.month());
        let funding = &mut self.state.accounts[id.0 as usize].funding;
        if funding.month != month {
            (funding.month, funding.reloaded) = (month, Usd::ZERO);
        }
        let AutoReload { amount, monthly_limit, .. } = funding.auto_reload;
        let reloaded = funding.reloaded.checked_add(amount);
        let within = reloaded.filter(|sum| monthly_limit.is_none_or(|limit| *sum <= limit));
        let Some(reloaded) = within else {
            if funding.waits_until.is_none() {
                let next = at.next_month();
                funding.waits_until = Some(next);
                self.state.timers.insert((next, Timer::Reload(id)));
            }
            return;
        };
        self.state.counters.reload += 1;
        let number = self.state.counters.reload;
        let source = funding.method.clone().map_or(PaymentSource::House, PaymentSource::Provider);
        funding.reloaded = reloaded;
        funding.pending = Some(Box::new(Reload { number, amount, due_at: at, source }));
        self.state.reloads.insert(number, id);
        self.watch(id);
        self.events.push(Event::ReloadDue { account: id, reload: number, amount });
    }

    /// A month begins whose limit has room again.
    pub(super) fn month_begins(&mut self, id: AccountId) {
        self.state.accounts[id.0 as usize].funding.waits_until = None;
        self.look_at_funds(id);
    }

    pub(super) fn reload_paid(&mut self, number: u64, amount: Usd) -> Result<(), Refusal> {
        let pending = self.pending_reload(number)?;
        if amount.0 <= 0 || amount > pending.amount {
            return Err(Reject::OutOfRange.into());
        }
        let (lent, unused) = (pending.source == PaymentSource::House, pending.amount.minus(amount));
        let funding = &self.state.accounts[self.account.0 as usize].funding;
        let used = funding.credit_used.plus(amount);
        if lent && used > funding.credit_line {
            return Err(Reject::InsufficientFunds.into());
        }
        self.mint(amount)?;
        self.end_reload(number, unused);
        let at = self.at;
        let account = self.account_mut(self.account);
        account.deposited_at = at;
        let funding = &mut account.funding;
        funding.paid = Usd(funding.paid.0.saturating_add(amount.0));
        if lent {
            funding.credit_used = used;
        }
        self.watch(self.account);
        self.funded(Event::Reloaded { account: self.account, reload: number, amount })
    }

    pub(super) fn reload_failed(&mut self, number: u64, reason: ReloadFailure) -> Result<(), Refusal> {
        let amount = self.pending_reload(number)?.amount;
        self.end_reload(number, amount);
        self.funding_mut().stopped = Some(reason);
        self.watch(self.account);
        self.funded(Event::ReloadFailed { account: self.account, reload: number, reason })
    }

    fn pending_reload(&self, number: u64) -> Result<&Reload, Reject> {
        let pending = self.state.accounts[self.account.0 as usize].funding.pending.as_deref();
        pending.filter(|pending| pending.number == number).ok_or(Reject::UnknownReload)
    }

    /// Takes the reload out. What was asked for and not paid does not count to its month's limit.
    fn end_reload(&mut self, number: u64, unused: Usd) {
        self.state.reloads.remove(&number);
        let funding = self.funding_mut();
        if let Some(pending) = funding.pending.take()
            && pending.due_at.month() == funding.month
        {
            funding.reloaded = funding.reloaded.minus(unused);
        }
    }

    fn funding_mut(&mut self) -> &mut Funding {
        &mut self.account_mut(self.account).funding
    }
}
