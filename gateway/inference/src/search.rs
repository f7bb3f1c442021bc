//! The search for a supplier that delivers: until its first content nothing has reached the client, so any failure can
//! be repaired elsewhere.
//!
//! | round | who is asked | how often |
//! |---|---|---|
//! | first | everybody who may be asked now, in the order of the choice | once |
//! | last resort | where nobody could be asked: the failing one whose pause ends soonest | once |
//! | again | whoever failed in a way that passes, or was full, if its pause is short | once |
//!
//! Before each attempt but the first the call waits a little, longer each time. Everything ends at one moment: when the
//! client's patience does, or the tier's own.

use std::time::Duration;

use bytes::Bytes;
use grid_engine::AccountId;
use grid_engine::command::Cover;
use grid_engine::sla::Fault;
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use crate::anonymous::{self, model_name};
use crate::backoff::{self, Growth};
use crate::call::{Call, Head};
use crate::config::{Clocks, Routing};
use crate::dialect::supplier;
use crate::hold::Hold;
use crate::reply::Refusal;
use crate::request::field_of;
use crate::roster::{Candidate, Floors, Shut, Slot, Verdict};
use crate::server::Tier;
use crate::sse::Event;
use crate::stats::bump;
use crate::upstream::{Events, Failure, Opened, Order, Speaks};

/// How the search ended.
pub(crate) enum Delivery<'a> {
    /// The client is gone, and all is given back.
    Over,
    /// Nobody delivered, and all is given back.
    Refused(Refusal),
    /// A stream has begun.
    Stream {
        /// What serves, as the world is told.
        model: &'a str,
        /// Events up to and with the first content.
        held: Vec<Event>,
        /// What is to come.
        rest: Events,
        hold: Hold,
        slot: Slot,
    },
    /// A whole answer.
    Whole { model: &'a str, body: Bytes, hold: Hold, slot: Slot },
}

/// When a search must be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The call's end.
    pub(crate) deadline: Instant,
    /// The end of attempts.
    pub(crate) until: Instant,
}

/// What is known of a candidate after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It was full, or left alone.
    Passed,
    /// It failed, and may do better a moment later.
    Again,
    /// It was asked, or can't be.
    Done,
}

/// Who delivers what.
type Delivered<'a> = (&'a Candidate, Opened, Slot);

/// What came of a step.
#[expect(
    clippy::large_enum_variant,
    reason = "an end is moved once per call; a box would be an allocation for it"
)]
enum Step<'a> {
    /// Somebody delivers, the client is gone, or the request itself is at fault.
    End(Result<Delivered<'a>, Option<Refusal>>),
    /// The search goes on.
    Next(Seen),
}

/// Tries suppliers until one delivers its first content.
pub(crate) async fn deliver<'a>(
    tier: &Tier,
    call: &'a Call,
    mut hold: Hold,
    cap: Option<u64>,
    limits: Limits,
    head: &mut Head,
) -> Delivery<'a> {
    let mut search = Search {
        tier,
        call,
        cap,
        limits,
        tried: 0,
        unable: None,
        lacking: Vec::new(),
        spared: Vec::new(),
        unasked: None,
    };
    match search.run(&mut hold, head).await {
        Some(Ok((who, opened, slot))) => {
            let model = model_name(&who.model);
            match opened {
                Opened::Stream { held, rest } => Delivery::Stream { model, held, rest, hold, slot },
                Opened::Whole(body) => Delivery::Whole { model, body, hold, slot },
            }
        }
        Some(Err(None)) => {
            bump(&tier.stats.cancelled);
            hold.release(AccountId::VENUE);
            Delivery::Over
        }
        Some(Err(Some(refusal))) => {
            hold.release(AccountId::VENUE);
            Delivery::Refused(refusal)
        }
        None => {
            hold.release(AccountId::VENUE);
            Delivery::Refused(search.refusal())
        }
    }
}

struct Search<'t, 'a> {
    tier: &'t Tier,
    call: &'a Call,
    /// Output limit where the client named none, in tokens.
    cap: Option<u64>,
    limits: Limits,
    /// Attempts so far.
    tried: u32,
    /// The field that the last one could not do, and why.
    unable: Option<(Option<&'static str>, String)>,
    /// Who turned out to be unable.
    lacking: Vec<AccountId>,
    /// Who was not asked for a reason of this tier's own.
    spared: Vec<AccountId>,
    /// The field that one could not even be asked, and why.
    unasked: Option<(Option<&'static str>, String)>,
}

impl<'a> Search<'_, 'a> {
    async fn run(
        &mut self,
        hold: &mut Hold,
        head: &mut Head,
    ) -> Option<Result<Delivered<'a>, Option<Refusal>>> {
        let call = self.call;
        let candidates = &call.candidates[..];
        let mut seen = vec![Seen::Done; candidates.len()];
        for (candidate, seen) in candidates.iter().zip(&mut seen) {
            match self.ask(candidate, false, Duration::ZERO, hold, head).await {
                Step::End(end) => return Some(end),
                Step::Next(now) => *seen = now,
            }
        }
        if self.tried == 0
            && let Some(candidate) = self.tier.roster.last_resort(candidates)
        {
            match self.ask(candidate, true, Duration::ZERO, hold, head).await {
                Step::End(end) => return Some(end),
                // Whoever failed as the last resort is not asked again, nor are those with longer pauses.
                Step::Next(_) if self.tried > 0 => return None,
                Step::Next(_) => {}
            }
        }
        if !self.call.chat.fallbacks {
            return None;
        }
        for (candidate, _) in candidates.iter().zip(seen).filter(|(_, seen)| *seen != Seen::Done) {
            let rest = self.tier.roster.wait(candidate).unwrap_or_default();
            if rest > self.tier.config.routing.retry_wait_max {
                continue;
            }
            if let Step::End(end) = self.ask(candidate, false, rest, hold, head).await {
                return Some(end);
            }
        }
        None
    }

    /// Asks one supplier, after so long at least.
    async fn ask(
        &mut self,
        candidate: &'a Candidate,
        forced: bool,
        rest: Duration,
        hold: &mut Hold,
        head: &mut Head,
    ) -> Step<'a> {
        let (tier, call) = (self.tier, self.call);
        let routing = &tier.config.routing;
        let growth = Growth { first: routing.retry_wait, longest: routing.retry_wait_max };
        let wait = backoff::wait(&growth, call.request, self.tried).max(rest);
        if self.tried >= routing.attempts || Instant::now() + wait >= self.limits.until {
            return Step::Next(Seen::Done);
        }
        let Some(body) = self.body_for(candidate) else {
            return Step::Next(Seen::Done);
        };
        if !wait.is_zero() && (!rest.is_zero() || tier.roster.wait(candidate).is_none()) {
            let left = tokio::select! {
                biased;
                () = head.closed() => true,
                () = sleep(wait) => false,
            };
            if left {
                return Step::End(Err(None));
            }
        }
        let entered = if forced { tier.roster.force(candidate) } else { tier.roster.enter(candidate) };
        self.spared.retain(|supplier| *supplier != candidate.supplier);
        let mut slot = match entered {
            Ok(slot) => slot,
            Err(shut) => {
                if shut == Shut::ByUs {
                    self.spared.push(candidate.supplier);
                }
                return Step::Next(Seen::Passed);
            }
        };
        let Some(credential) = credential(tier, candidate) else {
            self.spared.push(candidate.supplier);
            slot.judge(Verdict::Bad);
            return Step::Next(Seen::Done);
        };
        if self.tried > 0 {
            bump(&tier.stats.failovers);
        }
        self.tried += 1;
        hold.attempt(candidate.supplier, candidate.offer, self.cover(candidate.supplier));
        let order = Order {
            base_url: &candidate.base_url,
            credential: &credential,
            body,
            stream: call.chat.stream,
            output_limit: call.chat.output_limit.unwrap_or(0),
            request: &call.name,
            first_content: first_content(&tier.config.clocks, routing, candidate.floors),
            until: if call.chat.stream { self.limits.until } else { self.limits.deadline },
        };
        let opened = tokio::select! {
            biased;
            () = head.closed() => return Step::End(Err(None)),
            opened = tier.upstream.open(order) => opened,
        };
        match opened {
            Ok((opened, allowance)) => {
                slot.allows(allowance);
                if matches!(opened, Opened::Stream { .. }) {
                    hold.first_content();
                }
                slot.first_content();
                call.trace.attempt(candidate.supplier, "delivers");
                Step::End(Ok((candidate, opened, slot)))
            }
            Err(failure) => self.failed(candidate, slot, failure),
        }
    }

    /// Why it would be this supplier that delivers: it owes the tokens, or whoever does failed, or was not to blame.
    ///
    /// All issuers pay for a failure, so it is one only where each of them failed. Who is left alone for its 429s or by
    /// its own limits failed: it sold Units without naming a rate, and does not deliver them. Who has too many calls of
    /// this tier's under way by the tier's own limit did not, nor did one whose credential the tier can't read.
    fn cover(&self, supplier: AccountId) -> Cover {
        let issuers = &self.call.issuers;
        let excused = |issuer| {
            [&self.call.unable, &self.lacking, &self.spared].iter().any(|excused| excused.contains(issuer))
        };
        match () {
            () if issuers.is_empty() || issuers.contains(&supplier) => Cover::Issuer,
            () if issuers.iter().any(excused) => Cover::Unable,
            () => Cover::Failed,
        }
    }

    /// The request for this supplier, where it can be asked at all.
    fn body_for(&mut self, candidate: &Candidate) -> Option<Bytes> {
        let call = self.call;
        let body = call.chat.rewritten(&candidate.model, self.cap);
        if Speaks::at(&candidate.base_url) == Speaks::Chat {
            return Some(body);
        }
        match supplier::write(&body, &candidate.model, call.output_default) {
            Ok(written) => Some(written),
            Err(why) => {
                call.trace.attempt(candidate.supplier, "can't be asked");
                let field = field_of(why.field());
                let why = format!("no supplier of this instrument can be asked this just now: {why}");
                self.unasked = Some((field, why));
                self.lacking.push(candidate.supplier);
                None
            }
        }
    }

    /// An attempt delivered nothing.
    fn failed(&mut self, candidate: &Candidate, mut slot: Slot, failure: Failure) -> Step<'a> {
        let (tier, call) = (self.tier, self.call);
        match failure {
            Failure::Refused { status, message, param } => {
                let message = self.told(candidate, message);
                let param = param.as_deref().and_then(field_of);
                Step::End(Err(Some(Refusal { param, ..Refusal::new(status, "refused_upstream", message) })))
            }
            Failure::Unable { param, message } => {
                call.trace.attempt(candidate.supplier, "unable");
                tier.roster.lacks(candidate, call.chat.needs.asked_by(&param));
                self.unable = Some((field_of(&param), self.told(candidate, message)));
                self.lacking.push(candidate.supplier);
                Step::Next(Seen::Done)
            }
            Failure::Busy(pause) => {
                call.trace.attempt(candidate.supplier, "busy");
                tier.report(candidate.instrument, candidate.supplier, Fault::Overloaded);
                slot.judge(Verdict::Busy(pause));
                Step::Next(Seen::Again)
            }
            Failure::Failed(fault, reason) => {
                tracing::info!(supplier = candidate.supplier.0, request = %call.name, reason, "supplier failed");
                call.trace.attempt(candidate.supplier, reason);
                slot.judge(Verdict::Bad);
                tier.report(candidate.instrument, candidate.supplier, fault.into());
                Step::Next(if fault.may_pass() { Seen::Again } else { Seen::Done })
            }
        }
    }

    /// What a supplier says is wrong with a request, if that does not say who it is.
    fn told(&self, candidate: &Candidate, message: String) -> String {
        let named = self.tier.directory.read(|state| {
            let house = state.suppliers.get(&candidate.supplier).map_or("", |one| one.profile.name.as_str());
            anonymous::names(&message, house, candidate)
        });
        if named { anonymous::REFUSED.to_owned() } else { message }
    }

    /// What the client is told where nobody delivered.
    fn refusal(&mut self) -> Refusal {
        let tried = self.tried;
        if let Some((param, message)) = self.unable.take().or(self.unasked.take().filter(|_| tried == 0)) {
            return Refusal {
                param,
                ..Refusal::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message)
            };
        }
        let wait = self.tier.roster.ready(&self.call.candidates).err().unwrap_or_default();
        Refusal::unavailable(
            "no_supplier",
            "no supplier could deliver just now; nothing was billed",
            wait.max(Duration::from_secs(1)),
        )
    }
}

/// How long an attempt is waited for: a multiple of what the instrument promises, within the tier's bounds.
fn first_content(clocks: &Clocks, routing: &Routing, floors: Floors) -> Duration {
    if floors.ttft_ceiling_ms == 0 {
        return clocks.first_content;
    }
    let promised = Duration::from_millis(floors.ttft_ceiling_ms.into());
    promised.saturating_mul(routing.ttft_factor).max(clocks.first_content_min).min(clocks.first_content)
}

fn credential(tier: &Tier, candidate: &Candidate) -> Option<Vec<u8>> {
    if candidate.sealed_credential.is_empty() {
        return Some(Vec::new());
    }
    let opened = tier.config.venue_key.unseal(&candidate.sealed_credential);
    opened
        .inspect_err(|error| {
            tracing::error!(supplier = candidate.supplier.0, %error, "a supplier's credential can't be opened");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_waited_for_as_long_as_the_instrument_s_promise_suggests() {
        let routing = Routing { ttft_factor: 2, ..Routing::default() };
        let clocks = Clocks {
            first_content_min: Duration::from_millis(5_000),
            first_content: Duration::from_millis(20_000),
            ..Clocks::default()
        };
        for (ceiling_ms, expected_ms) in [
            (0, 20_000),
            (1_320, 5_000),
            (3_500, 7_000),
            (4_620, 9_240),
            (60_000, 20_000),
            (u32::MAX, 20_000),
        ] {
            let floors = Floors { ttft_ceiling_ms: ceiling_ms, tokens_per_second: 0 };
            let clock = first_content(&clocks, &routing, floors);
            assert_eq!(clock, Duration::from_millis(expected_ms), "{ceiling_ms}");
        }
        let short = Clocks { first_content: Duration::from_millis(150), ..clocks };
        let floors = Floors { ttft_ceiling_ms: 1_320, tokens_per_second: 0 };
        assert_eq!(first_content(&short, &routing, floors), Duration::from_millis(150));
    }
}
