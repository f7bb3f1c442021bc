//! A client's bytes become messages, and its requests become commands in line. Here is everything that can hold a
//! request back before the log: its phase, number, throttle, age, and the room there is. Past this file only the
//! engine says no.

use grid_engine::{AccountId, Command, Entry, Nanos};
use grid_wire::{self as wire, Arrival, FrameError, Phase, TerminateCode, ThrottleLevel, gateway_reject};

use super::{Desk, Loop, utc_now};
use crate::commands::{self, Class, Head};
use crate::connection::{Connection, Login};
use crate::venue::{Line, LineError, View};

/// What became of a frame.
enum Handled {
    /// Done with it.
    Taken,
    /// The line is full: try this same frame again.
    Stall,
}

impl<L: Line, V: View> Loop<L, V> {
    /// Handles every whole frame that was read, until one must wait for room in the line; how many bytes they took.
    pub(super) fn handle_frames(&mut self, id: u64, client: &mut Connection, input: &[u8]) -> usize {
        let mut at = 0;
        while !matches!(client.phase, Phase::Ended | Phase::LoggingIn) {
            match wire::scan(&input[at..], self.desk.config.frame_max) {
                Ok(None) => break,
                Ok(Some((frame, length))) => match self.handle(id, client, &frame) {
                    Handled::Taken => {
                        client.stalled = None;
                        at += length;
                    }
                    Handled::Stall => {
                        client.stalled.get_or_insert(self.desk.now);
                        break;
                    }
                },
                Err(error) => {
                    let code = match error {
                        FrameError::TooLong { .. } => TerminateCode::FrameTooLong,
                        _ => TerminateCode::BadFrame,
                    };
                    self.desk.end(id, client, code, &error.to_string());
                }
            }
        }
        at
    }

    fn handle(&mut self, id: u64, client: &mut Connection, frame: &wire::Frame<'_>) -> Handled {
        if !client.phase.admits(frame.template) {
            let reason = format!("template {} may not come now", frame.template);
            self.desk.end(id, client, TerminateCode::OutOfPhase, &reason);
            return Handled::Taken;
        }
        // What comes by the million is read as what it is; all else as one of many.
        match frame.template {
            wire::NewOrder::TEMPLATE => {
                self.handle_hot(id, client, frame, wire::NewOrder::decode(frame), commands::new_order)
            }
            wire::CancelOrder::TEMPLATE => {
                self.handle_hot(id, client, frame, wire::CancelOrder::decode(frame), commands::cancel)
            }
            wire::ReplaceOrder::TEMPLATE => {
                self.handle_hot(id, client, frame, wire::ReplaceOrder::decode(frame), commands::replace)
            }
            _ => self.handle_other(id, client, frame),
        }
    }

    #[inline(always)] // a way of its own for each kind, on which its command is made where it is put in line
    fn handle_hot<M>(
        &mut self,
        id: u64,
        client: &mut Connection,
        frame: &wire::Frame<'_>,
        message: Result<M, wire::DecodeError>,
        read: impl FnOnce(&M) -> (Head, Result<Command, u16>),
    ) -> Handled {
        match message {
            Ok(message) => {
                client.liveness.heard(self.desk.now);
                let (head, command) = read(&message);
                self.command(id, client, &head, command)
            }
            Err(error) => {
                self.desk.refuse_undecoded(id, client, frame, &error);
                Handled::Taken
            }
        }
    }

    fn handle_other(&mut self, id: u64, client: &mut Connection, frame: &wire::Frame<'_>) -> Handled {
        let message = match wire::Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                self.desk.refuse_undecoded(id, client, frame, &error);
                return Handled::Taken;
            }
        };
        client.liveness.heard(self.desk.now);
        match message {
            wire::Message::Negotiate(login) => self.desk.begin_login(id, client, Login::Negotiate(login)),
            wire::Message::Establish(login) => self.desk.begin_login(id, client, Login::Establish(login)),
            wire::Message::Terminate(..) => self.desk.end(id, client, TerminateCode::Finished, ""),
            wire::Message::Sequence(m) => note_sequence(client, m.next_seq),
            wire::Message::RetransmitRequest(m) => self.desk.begin_retransmission(id, client, m),
            wire::Message::MarketDataSubscribe(m) => {
                let Desk { feed, config, view, .. } = &mut self.desk;
                feed.subscribe(id, client, m, config, view);
            }
            wire::Message::MarketDataUnsubscribe(m) => self.desk.feed.unsubscribe(id, client, m),
            message => return self.other_command(id, client, &message),
        }
        Handled::Taken
    }

    /// A message that is left is a command, or nobody's to send.
    fn other_command(&mut self, id: u64, client: &mut Connection, message: &wire::Message<'_>) -> Handled {
        let life = Nanos(self.desk.config.reservation_life.as_nanos() as u64);
        let Some(session) = client.live.as_ref().map(|live| live.session) else {
            return Handled::Taken;
        };
        let Some((head, command)) = commands::read(message, session, life) else {
            let reason = format!("{} is not for the venue", message.name());
            self.desk.end(id, client, TerminateCode::BadMessage, &reason);
            return Handled::Taken;
        };
        self.command(id, client, &head, command)
    }

    /// A command of a live session, on its way into the line.
    #[inline(always)] // see `submit`
    fn command(
        &mut self,
        id: u64,
        client: &mut Connection,
        head: &Head,
        command: Result<Command, u16>,
    ) -> Handled {
        let Some((session, own)) = client.live.as_ref().map(|live| (live.session, live.account)) else {
            return Handled::Taken;
        };
        // A frame that stalled has passed all this before, but it has grown older.
        if client.stalled.is_none() {
            if !self.desk.admit(id, client, head) {
                return Handled::Taken;
            }
        } else if is_stale(head) {
            return refuse(client, head, gateway_reject::STALE);
        }
        let command = match command {
            Ok(command) => command,
            Err(code) => return refuse(client, head, code),
        };
        let account = if head.account == AccountId::VENUE { own } else { head.account };
        let client_seq = head.client_seq;
        match self.submit(Entry { session, client_seq, account, command }) {
            Ok(()) => Handled::Taken,
            Err(LineError::Full) => {
                let patience = self.desk.config.busy_after.as_nanos() as u64;
                let full_for = self.full_since.map_or(0, |since| self.desk.now.saturating_sub(since));
                if full_for >= patience { refuse(client, head, gateway_reject::BUSY) } else { Handled::Stall }
            }
            Err(LineError::TooLarge) => refuse(client, head, gateway_reject::PAYLOAD),
            // Never answered: the next turn ends every connection of the epoch that is over, and what was sent comes
            // again at the next leader, under the same number.
            Err(LineError::NotLeader) => Handled::Taken,
            Err(LineError::Closed) => {
                self.desk.end(id, client, TerminateCode::Shutdown, "the venue is shutting down");
                Handled::Taken
            }
        }
    }
}

impl<V: View> Desk<V> {
    fn refuse_undecoded(
        &mut self,
        id: u64,
        client: &mut Connection,
        frame: &wire::Frame<'_>,
        error: &wire::DecodeError,
    ) {
        match (frame.client_seq().filter(|_| error.is_value()), &mut client.live) {
            (Some(client_seq), Some(live)) => {
                let arrival = live.flow.arrive(client_seq);
                tell_gap(client, arrival);
                client.liveness.heard(self.now);
                reject(client, client_seq, 0, AccountId(0), gateway_reject::SYNTAX);
            }
            _ => self.end(id, client, TerminateCode::BadMessage, &error.to_string()),
        }
    }

    /// Numbers, throttles and age; whether the request may go on.
    fn admit(&mut self, id: u64, client: &mut Connection, head: &Head) -> bool {
        let now = self.now;
        let Some(live) = &mut client.live else {
            return false;
        };
        if head.client_seq == 0 {
            refuse(client, head, gateway_reject::ZERO_SEQUENCE);
            return false;
        }
        let arrival = live.flow.arrive(head.client_seq);
        let taken = match head.class {
            Class::Request => live.requests.take(now),
            Class::Cancel => live.cancels.take(now),
            Class::MassCancel => Ok(()),
            Class::MassQuote(entries) => live.requests.take_many(entries, now),
        };
        let strike = taken.err().map(|wait| (wait, live.refusals.take(now), live.refusals.is_low()));
        tell_gap(client, arrival);
        match strike {
            Some((_, Err(_), _)) => {
                self.end(id, client, TerminateCode::Throttled, "throttled, and went on");
                false
            }
            Some((wait, Ok(()), low)) => {
                let level = if low { ThrottleLevel::LastWarning } else { ThrottleLevel::Rejected };
                let retry_after_ms = wait.div_ceil(1_000_000) as u32;
                wire::Throttled { client_seq: head.client_seq, retry_after_ms, level }.encode(client.out());
                false
            }
            None if is_stale(head) => {
                refuse(client, head, gateway_reject::STALE);
                false
            }
            None => true,
        }
    }
}

#[inline]
fn tell_gap(client: &mut Connection, arrival: Arrival) {
    if let Arrival::Gap { from, count } = arrival {
        wire::NotApplied { from, count }.encode(client.out());
    }
}

fn note_sequence(client: &mut Connection, next_seq: u64) {
    let arrival = client.live.as_mut().and_then(|live| live.flow.announced(next_seq));
    if let Some(arrival) = arrival {
        tell_gap(client, arrival);
    }
}

/// Refuses a request before the log; its number is spent.
fn refuse(client: &mut Connection, head: &Head, code: u16) -> Handled {
    reject(client, head.client_seq, head.label, head.account, code);
    Handled::Taken
}

/// Tells a client no under the number of its request.
pub(super) fn reject(client: &mut Connection, client_seq: u64, label: u128, account: AccountId, code: u16) {
    let account = if account == AccountId::VENUE {
        client.live.as_ref().map_or(0, |live| live.account.0)
    } else {
        account.0
    };
    wire::CommandReject { client_seq, label, account, code, ..wire::CommandReject::default() }
        .encode(client.out());
}

#[inline]
fn is_stale(head: &Head) -> bool {
    let life = u64::from(head.valid_for_us) * 1_000;
    // Most requests live for ever, and the clock is not read for them.
    life > 0 && head.sending_time.saturating_add(life) < utc_now()
}
