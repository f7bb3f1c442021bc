//! The real venue: the client of the binary protocol as [`Door`], a replica of the engine as [`Directory`].
//!
//! The client resends by itself, under the same number, so a command is executed at most once and its answer found
//! again after a lost connection.

use std::pin::Pin;

use grid_client::{Client, ClientError, Report, Request};
use grid_engine::command::{Command, Cover, Surface, Usage};
use grid_engine::event::Event;
use grid_engine::sla::Fault;
use grid_engine::state::State;
use grid_engine::{AccountId, Engine, Qty, Reject, ReservationId, Seq, Tokens, Usd};
use grid_replicator::{Promises, Replica};
use grid_wire::{Release, Reserve, Settle, SettleFlags};
use tokio::sync::watch;

use crate::door::{Directory, Door, DoorError, Ended, Pending, Reserved, Wanted};

const NANOS_PER_MS: u64 = 1_000_000;

impl Door for Client {
    fn reserve(&self, wanted: Wanted) -> Pending<Reserved> {
        let answer = self.submit(Reserve {
            request_id: wanted.request,
            tokens: wanted.tokens.0,
            account: wanted.account.0,
            valid_for_ms: u32::try_from(wanted.valid_for.0 / NANOS_PER_MS).unwrap_or(u32::MAX),
            instrument: wanted.instrument.0,
            surface: match wanted.surface {
                Surface::ChatCompletions => grid_wire::Surface::ChatCompletions,
                Surface::Messages => grid_wire::Surface::Messages,
                Surface::Responses => grid_wire::Surface::Responses,
            },
            key: wanted.key.0,
            ..Reserve::default()
        });
        Box::pin(async move {
            match answer.await.map_err(refused)? {
                Report::Reserve(report, issuers) => Ok(Reserved {
                    reservation: ReservationId(report.reservation),
                    tokens: Tokens(report.tokens),
                    bought: Qty(report.bought_qty),
                    spent: Usd(report.spent),
                    issuers: issuers.iter().map(|issuer| AccountId(issuer.supplier)).collect(),
                }),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn settle(&self, account: AccountId, reservation: ReservationId, usage: Usage) -> Pending<Ended> {
        let answer = self.submit(Settle {
            reservation: reservation.0,
            prompt_tokens: usage.prompt_tokens.0,
            completion_tokens: usage.completion_tokens.0,
            account: account.0,
            supplier: usage.supplier.0,
            ttft_us: usage.ttft_us,
            duration_us: usage.duration_us,
            flags: SettleFlags::none()
                .with(SettleFlags::ESTIMATED, usage.estimated)
                .with(SettleFlags::PARTIAL, usage.partial)
                .with(SettleFlags::DISTRUSTED, usage.distrusted),
            offer: usage.offer,
            cover: match usage.cover {
                Cover::Issuer => grid_wire::Cover::Issuer,
                Cover::Failed => grid_wire::Cover::Failed,
                Cover::Unable => grid_wire::Cover::Unable,
            },
            attempts: usage.attempts,
            ..Settle::default()
        });
        Box::pin(async move { ended(answer.await) })
    }

    fn report_fault(
        &self,
        instrument: grid_engine::InstrumentId,
        supplier: AccountId,
        fault: Fault,
    ) -> Pending<()> {
        let mut payload = Vec::new();
        Command::ReportFault { instrument, supplier, fault }.encode(&mut payload);
        let answer = self.submit(Request::Directory { account: self.account(), payload });
        Box::pin(async move { answer.await.map(drop).map_err(refused) })
    }

    fn report_probe(
        &self,
        instrument: grid_engine::InstrumentId,
        supplier: AccountId,
        passed: bool,
    ) -> Pending<()> {
        let mut payload = Vec::new();
        Command::ReportProbe { instrument, supplier, passed }.encode(&mut payload);
        let answer = self.submit(Request::Directory { account: self.account(), payload });
        Box::pin(async move { answer.await.map(drop).map_err(refused) })
    }

    fn release(&self, account: AccountId, reservation: ReservationId, supplier: AccountId) -> Pending<Ended> {
        let answer = self.submit(Release {
            reservation: reservation.0,
            account: account.0,
            supplier: supplier.0,
            ..Release::default()
        });
        Box::pin(async move { ended(answer.await) })
    }
}

/// What became of a reservation's last word. A reservation that is unknown has ended: its number came from the venue.
fn ended(answer: Result<Report, ClientError>) -> Result<Ended, DoorError> {
    match answer {
        Ok(report) => Ok(Ended::Now(Seq(report.log_seq()))),
        Err(ClientError::Rejected(reject)) if reject.code == Reject::UnknownReservation.code() => {
            Ok(Ended::Before(Seq(reject.log_seq)))
        }
        Err(error) => Err(refused(error)),
    }
}

/// An engine's reject stays one; of whatever else went wrong the client knows whether the command can still be done.
fn refused(error: ClientError) -> DoorError {
    match error.code().and_then(Reject::from_code) {
        Some(reject) => DoorError::Rejected(reject),
        None if error.not_applied() => DoorError::Unavailable(error.to_string()),
        None => DoorError::Unanswered(error.to_string()),
    }
}

fn unexpected(report: &Report) -> DoorError {
    DoorError::Unanswered(format!("another kind of answer than asked for, at {}", report.log_seq()))
}

impl Directory for Replica<Engine> {
    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.read(|engine| look(engine.state()));
    }

    fn news(&self) -> watch::Receiver<()> {
        let (tell, news) = watch::channel(());
        self.on_output(move |output| {
            let told = |event: &Event| {
                matches!(
                    event,
                    Event::StandingChanged { .. } | Event::OffersChanged { .. } | Event::DirectoryChanged
                )
            };
            if output.events().iter().any(told) {
                tell.send_replace(());
            }
        });
        news
    }

    fn promises(&self) -> &Promises {
        self.promises()
    }

    fn reach(&self, seq: Seq) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // A venue that has stopped shows nothing more; nobody should wait for it.
            let _ = self.wait_for(seq).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grid_wire::CommandReject;

    #[test]
    fn a_reservation_that_is_unknown_ended_before_the_log_said_so() {
        let unknown =
            CommandReject { code: Reject::UnknownReservation.code(), log_seq: 7, ..CommandReject::default() };
        assert_eq!(ended(Err(ClientError::Rejected(unknown))), Ok(Ended::Before(Seq(7))));
        let other =
            CommandReject { code: Reject::NotPermitted.code(), log_seq: 7, ..CommandReject::default() };
        assert_eq!(ended(Err(ClientError::Rejected(other))), Err(DoorError::Rejected(Reject::NotPermitted)));
    }

    #[test]
    fn only_what_was_certainly_not_done_counts_as_out_of_reach() {
        let rejected = |code| ClientError::Rejected(CommandReject { code, ..CommandReject::default() });
        assert_eq!(refused(rejected(Reject::NoSupply.code())), DoorError::Rejected(Reject::NoSupply));
        let not_done = [
            rejected(60_000),
            ClientError::Throttled { retry_after_ms: 1 },
            ClientError::NotApplied,
            ClientError::Timeout { sent: false },
            ClientError::Busy,
        ];
        for error in not_done {
            assert!(matches!(refused(error.clone()), DoorError::Unavailable(_)), "{error}");
        }
        for error in [ClientError::AnswerLost, ClientError::Timeout { sent: true }, ClientError::Closed] {
            assert!(matches!(refused(error.clone()), DoorError::Unanswered(_)), "{error}");
        }
    }
}
