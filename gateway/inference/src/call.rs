//! The life of a call, from the reservation to the last byte.
//!
//! It runs in a task of its own, so that a client that goes away ends it in an orderly way instead of cutting it off:
//! the supplier is cancelled at once, what was delivered is settled, and where nothing was, all is given back. The
//! handler only waits for the head of the answer, and a bounded channel carries the rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grid_engine::command::Surface;
use grid_engine::{AccountId, InstrumentId, KeyId, Nanos, Reject, Tokens};
use hyper::{Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::allowance;
use crate::dialect::Teller;
use crate::door::{Directory, DoorError, Reserved, Wanted};
use crate::hold::{Bureau, Hold};
use crate::insist::Insist;
use crate::relay::{self, Notes, Relay};
use crate::reply::{Out, Refusal};
use crate::request::ChatRequest;
use crate::roster::{self, Candidate, Verdict};
use crate::search::{self, Delivery};
use crate::server::{InFlight, Tier};
use crate::stats::bump;
use crate::ticket::Void;
use crate::trace::Trace;

/// Smallest output that a capped call is still worth starting for, in tokens.
const OUTPUT_MIN: u64 = 16;
/// A client that waits no longer leaves by itself, which ends the call at once; after this it is taken to be gone.
const CLIENT_LEAVES: Duration = Duration::from_secs(1);
/// How soon and how late a replica is searched for a reservation whose answer was lost.
const LOST_LOOK_MIN: Duration = Duration::from_millis(50);
const LOST_LOOK_MAX: Duration = Duration::from_secs(60);

/// A validated call of a known client.
pub(crate) struct Call {
    /// Public handle and its number.
    pub(crate) name: String,
    pub(crate) request: u128,
    pub(crate) account: AccountId,
    pub(crate) key: KeyId,
    pub(crate) surface: Surface,
    pub(crate) instrument: InstrumentId,
    /// Output limit where the client names none, per choice, in tokens.
    pub(crate) output_default: u64,
    pub(crate) candidates: Vec<Candidate>,
    /// Who offers the instrument and can't do what the call asks for.
    pub(crate) unable: Vec<AccountId>,
    /// Who issued the reserved tokens, in the order of the draws.
    pub(crate) issuers: Vec<AccountId>,
    pub(crate) chat: ChatRequest,
    /// How long the client says it waits for the first byte.
    pub(crate) patience: Option<Duration>,
    /// How it is routed, for an operator who asked.
    pub(crate) trace: Trace,
    /// Counts the call while it lasts.
    pub(crate) _in_flight: InFlight,
}

/// Where the head of the answer goes.
pub(crate) type Head = oneshot::Sender<Result<Response<Out>, Refusal>>;

/// Runs the call to its end.
pub(crate) async fn run(tier: Arc<Tier>, mut call: Call, mut teller: Box<Teller>, mut head: Head) {
    let began = Instant::now();
    let whole_call = tier.config.clocks.call;
    let patience = call.patience.map_or(whole_call, |patience| patience.saturating_add(CLIENT_LEAVES));
    let limits = search::Limits {
        deadline: began + if call.chat.stream { whole_call } else { whole_call.min(patience) },
        until: began + tier.config.clocks.search.min(patience),
    };
    let deadline = limits.deadline;
    let reserved = tokio::select! {
        biased;
        () = head.closed() => None,
        reserved = reserve(&tier, &call) => Some(reserved),
    };
    let (reserved, hold, cap) = match reserved {
        // Whatever the venue still answers is released by the task that waits for it.
        None => return bump(&tier.stats.cancelled),
        Some(Err(refusal)) => return drop(head.send(Err(refusal))),
        Some(Ok(reserved)) => reserved,
    };
    if call.candidates.len() > 1 {
        tier.directory.read(|state| roster::read_asks(state, &mut call.candidates));
    }
    call.issuers = reserved.issuers;
    let (why, route) = tier.roster.rank(&mut call.candidates, &call.issuers, call.chat.affinity);
    call.trace.note(why, &route);
    if !call.chat.fallbacks {
        call.candidates.truncate(1);
    }
    match search::deliver(&tier, &call, hold, cap, limits, &mut head).await {
        Delivery::Over => {}
        Delivery::Refused(refusal) => drop(head.send(Err(refusal))),
        Delivery::Stream { model, held, rest, hold, slot } => {
            teller.served_by(model);
            let (events, body) = mpsc::channel(tier.config.limits.events_buffered);
            if head.send(Ok(relay::stream_response(body))).is_err() {
                bump(&tier.stats.cancelled);
                hold.cut_short();
                return;
            }
            let stream = Relay {
                tier: &tier,
                call: &call,
                teller,
                hold,
                slot,
                events,
                rest,
                deadline,
                notes: Notes::default(),
                gathered: BytesMut::new(),
            };
            stream.run(held).await;
        }
        Delivery::Whole { model, body, hold, mut slot } => {
            teller.served_by(model);
            if head.is_closed() {
                bump(&tier.stats.cancelled);
                hold.release(AccountId::VENUE);
                return;
            }
            slot.judge(Verdict::Good);
            drop(slot);
            let answer = relay::whole_answer(teller, body, hold).await;
            let _ = head.send(answer);
        }
    }
}

// -- the reservation -----------------------------------------------------------------------------------------------

/// Sets tokens aside: the prompt's bound and the output limit. Where that is more than there is and the client named
/// no limit, once more with what is left.
async fn reserve(tier: &Tier, call: &Call) -> Result<(Reserved, Hold, Option<u64>), Refusal> {
    let prompt = call.chat.prompt_bound();
    let per_choice = call.chat.output_limit.unwrap_or(call.output_default);
    let wanted = prompt.saturating_add(per_choice.saturating_mul(call.chat.choices));
    let refused = match ask_settled(tier, call, wanted).await {
        Ok((reserved, hold)) => return Ok((reserved, hold, None)),
        Err(error) => error,
    };
    let short = matches!(
        refused,
        DoorError::Rejected(
            Reject::InsufficientTokens
                | Reject::InsufficientFunds
                | Reject::Replenishing
                | Reject::PaymentDeclined
                | Reject::NoSupply
        )
    );
    if short && call.chat.output_limit.is_none() {
        let free =
            tier.directory.read(|state| Some(state.holding(call.account, call.instrument)?.free_tokens().0));
        let left = free.unwrap_or(0).min(wanted.saturating_sub(1));
        let cap = left.saturating_sub(prompt) / call.chat.choices;
        if cap >= OUTPUT_MIN
            && let Ok((reserved, hold)) = ask(tier, call, prompt + cap * call.chat.choices).await
        {
            return Ok((reserved, hold, Some(cap)));
        }
    }
    Err(refusal_of(tier, call, &refused))
}

/// Asks, and where the venue says no while settlements of this account are on their way, once more when they are there: what
/// a client's last call did not use, and its place among those at once, are its own again from the moment that it saw the end.
async fn ask_settled(tier: &Tier, call: &Call, tokens: u64) -> Result<(Reserved, Hold), DoorError> {
    let (promises, owner) = (tier.directory.promises(), call.account.0.into());
    let on_their_way = promises.any(owner);
    let refused = match ask(tier, call, tokens).await {
        Err(refused @ DoorError::Rejected(_)) if on_their_way => refused,
        answer => return answer,
    };
    match timeout(tier.config.clocks.settle, promises.settled(owner)).await {
        Ok(_) => ask(tier, call, tokens).await,
        Err(_) => Err(refused),
    }
}

/// One question to the venue. Its answer is waited for in any case: if nobody wants it any more, the
/// reservation that it brings is released.
async fn ask(tier: &Tier, call: &Call, tokens: u64) -> Result<(Reserved, Hold), DoorError> {
    let life = Nanos(u64::try_from(tier.config.clocks.reservation.as_nanos()).unwrap_or(u64::MAX));
    let answer = tier.bureau.door.reserve(Wanted {
        account: call.account,
        key: call.key,
        instrument: call.instrument,
        tokens: Tokens(tokens),
        request: call.request,
        surface: call.surface,
        valid_for: life,
    });
    let (bureau, account, body) = (tier.bureau.clone(), call.account, call.chat.body.clone());
    let (directory, request) = (Arc::clone(&tier.directory), call.request);
    let asked = Insist::on(async move {
        let answer = answer.await;
        if matches!(answer, Err(DoorError::Unanswered(_))) {
            let bureau = bureau.clone();
            tokio::spawn(async move { release_if_made(&*directory, bureau, account, request).await });
        }
        // A hold that nobody takes is dropped, and gives back what it holds.
        answer.map(|reserved| {
            let hold = Hold::new(bureau, account, reserved.reservation, body);
            (reserved, hold)
        })
    });
    let late = |_| Err(DoorError::Unanswered("no answer in time".to_owned()));
    timeout(tier.config.clocks.reserve, asked).await.unwrap_or_else(late)
}

/// A reservation whose answer was lost may have been made all the same: it shows in the replica then, and is given
/// back instead of being left to lapse.
async fn release_if_made(directory: &dyn Directory, bureau: Bureau, account: AccountId, request: u128) {
    let mut wait = LOST_LOOK_MIN;
    while wait <= LOST_LOOK_MAX {
        let made = directory.read(|state| state.reservations.by_request(account, request));
        if let Some(reservation) = made {
            let hold = Hold::new(bureau, account, reservation, Bytes::new());
            hold.release(AccountId::VENUE);
            return;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

fn refusal_of(tier: &Tier, call: &Call, error: &DoorError) -> Refusal {
    let payment = |code, text: &str| Refusal::new(StatusCode::PAYMENT_REQUIRED, code, text);
    let later = Duration::from_secs(2);
    match error {
        DoorError::Unavailable(_) | DoorError::Unanswered(_) => {
            Refusal::unavailable("venue_unavailable", "the venue is out of reach; try again shortly", later)
        }
        DoorError::Rejected(reject) => match reject {
            Reject::InsufficientFunds => {
                payment("insufficient_funds", "not enough USD to buy the tokens of this call")
            }
            Reject::PaymentDeclined => payment(
                "payment_declined",
                "not enough USD, and the payment that should have replenished it was declined: \
                 update the payment method, or deposit",
            ),
            Reject::Replenishing => Refusal::unavailable(
                "balance_replenishing",
                "not enough USD just now: the balance is being replenished; try again shortly",
                later,
            ),
            Reject::FreeTierSpent | Reject::TooManyAtOnce => {
                tier.directory.read(|state| allowance::refusal(state, call.account, *reject))
            }
            Reject::InsufficientTokens => payment(
                "insufficient_tokens",
                "not enough tokens of this instrument in consumption for this call",
            ),
            Reject::NoSupply => Refusal::unavailable(
                "no_supply",
                "nobody sells this instrument within your limits just now",
                later,
            ),
            Reject::InstrumentNotLive => {
                Refusal::unavailable("instrument_not_live", "this instrument is not open just now", later)
            }
            Reject::LimitReached => {
                Refusal::unavailable("busy", "too many calls in progress at the venue", later)
            }
            // Only a ticket's number can come twice.
            Reject::DuplicateRequest => Void::Used.refusal(),
            Reject::UnknownInstrument => {
                Refusal::new(StatusCode::NOT_FOUND, "model_not_found", "unknown instrument")
            }
            Reject::OutOfRange | Reject::InvalidQuantity => {
                Refusal::field("max_tokens", "the call could use more tokens than the venue can set aside")
            }
            other => Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "reservation_refused",
                format!("the venue refused the reservation: {other}"),
            ),
        },
    }
}
