//! The languages of clients and suppliers, beside the one that most suppliers speak.
//!
//! A call lives the same life whatever its surface (see `call`): a request is turned into a chat completion request,
//! and what the supplier's chunks say is told in the client's own events. Everything here is text in, text out: no
//! socket, no clock, no task.
//!
//! ```text
//! /v1/messages   ─► messages::request  ─┐                    ┌─► messages::answer  ─► Anthropic's events
//! /v1/responses  ─► responses::request ─┴► ChatRequest … heard, blocks ─► responses::answer ─► OpenAI's events
//! /v1/chat/completions ─────────────────► ChatRequest … shown ───────────► what may pass of the supplier's chunks
//! ```
//!
//! | module | knows |
//! |---|---|
//! | `members` | a JSON object as it stands, and how one is written |
//! | `heard` | what one chunk, or one whole answer, of a supplier says |
//! | `blocks` | the order that both other languages want: one block after the other |
//! | `messages` | Anthropic Messages |
//! | `responses` | OpenAI Responses |
//! | `supplier` | the other way round: suppliers that speak Messages |
//! | `shown` | what a client sees of an answer that passes untranslated |
//!
//! No field is dropped in silence. What a chat completion can say is translated; a field that we don't know is passed on
//! as it is, at the same place, as the chat surface does; what we know and a chat completion can't say is a 400 that
//! names it. Where one supplier can't be asked what another can, routing goes on to the other. Answers are the other way
//! round: what nobody knows could say who delivered, so it stays here.

mod blocks;
mod heard;
mod members;
pub(crate) mod messages;
pub(crate) mod responses;
mod shown;
pub(crate) mod supplier;

use bytes::{Bytes, BytesMut};

use crate::answer::Said;
use crate::meter::Bill;
use crate::reply::{Refusal, Surface};
use crate::request::ChatRequest;

use shown::Shown;

/// A path that takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI chat completions, which suppliers speak too.
    Chat,
    /// Anthropic Messages.
    Messages,
    /// OpenAI Responses.
    Responses,
}

impl Dialect {
    /// Whose error envelope its clients read.
    pub(crate) fn surface(self) -> Surface {
        match self {
            Self::Chat | Self::Responses => Surface::OpenAi,
            Self::Messages => Surface::Anthropic,
        }
    }

    /// Its name in the log.
    pub(crate) fn logged(self) -> grid_engine::command::Surface {
        use grid_engine::command::Surface;
        match self {
            Self::Chat => Surface::ChatCompletions,
            Self::Messages => Surface::Messages,
            Self::Responses => Surface::Responses,
        }
    }

    /// Reads a request, and says who will tell the answer.
    /// `number` is the call's, `bytes_max` the most that an answer may grow to.
    pub(crate) fn read(
        self,
        body: Bytes,
        number: u128,
        bytes_max: usize,
    ) -> Result<(ChatRequest, Box<Teller>), Refusal> {
        let (chat, teller) = match self {
            Self::Chat => {
                let chat = ChatRequest::parse(body)?;
                let shown = Shown::new(number, chat.wants_usage);
                return Ok((chat, Box::new(Teller::Chat(shown))));
            }
            Self::Messages => {
                let (chat, wishes) = messages::request::read(&body, messages::request::For::Answer)?;
                (chat, Teller::Messages(messages::answer::Teller::new(wishes, number, bytes_max)))
            }
            Self::Responses => {
                let (chat, wishes) = responses::request::read(&body)?;
                (chat, Teller::Responses(responses::answer::Teller::new(wishes, number, bytes_max)))
            }
        };
        let chat = ChatRequest::parse(chat)?;
        if chat.choices != 1 {
            return Err(Refusal::field("n", "n must be 1 here: this answer has room for one choice"));
        }
        Ok((chat, Box::new(teller)))
    }
}

/// Tells a supplier's answer in the client's language.
#[derive(Debug)]
pub(crate) enum Teller {
    Chat(Shown),
    Messages(messages::answer::Teller),
    Responses(responses::answer::Teller),
}

/// What a supplier sent can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Untold(pub(crate) &'static str);

impl Teller {
    /// This model delivers. What a supplier calls it itself could say who it is.
    pub(crate) fn served_by(&mut self, model: &str) {
        match self {
            Self::Chat(shown) => shown.served_by(model),
            Self::Messages(teller) => teller.served_by(model),
            Self::Responses(teller) => teller.served_by(model),
        }
    }

    /// The client's events for one chunk of the supplier, of which this was heard; often none.
    pub(crate) fn hear(&mut self, chunk: &[u8], said: &Said<'_>, out: &mut BytesMut) -> Result<(), Untold> {
        match self {
            Self::Chat(shown) => shown.chunk(chunk, said, out),
            Self::Messages(teller) => out.extend_from_slice(&teller.hear(chunk)?),
            Self::Responses(teller) => out.extend_from_slice(&teller.hear(chunk)?),
        }
        Ok(())
    }

    /// What keeps the connection alive while the supplier has nothing to say.
    pub(crate) fn still_here(&self) -> Bytes {
        match self {
            Self::Messages(teller) => teller.still_here(),
            Self::Chat(_) | Self::Responses(_) => Bytes::from_static(b": keep-alive\n\n"),
        }
    }

    /// The last events of a call that the supplier finished and that was billed like this.
    pub(crate) fn end(&mut self, bill: Bill) -> Bytes {
        match self {
            Self::Chat(shown) => shown.end(bill),
            Self::Messages(teller) => teller.end(bill),
            Self::Responses(teller) => teller.end(bill),
        }
    }

    /// The last event of a call that broke.
    pub(crate) fn broke(&mut self, refusal: &Refusal, request: &str) -> Bytes {
        match self {
            Self::Chat(_) => format!("data: {}\n\n", refusal.openai_body()).into(),
            Self::Messages(_) => messages::answer::error_event(refusal, request),
            Self::Responses(teller) => teller.broke(refusal),
        }
    }

    /// A whole answer, billed like this.
    pub(crate) fn whole(&mut self, answer: &[u8], bill: Bill) -> Result<Bytes, Untold> {
        match self {
            Self::Chat(shown) => shown.whole(answer, bill),
            Self::Messages(teller) => teller.whole(answer, bill),
            Self::Responses(teller) => teller.whole(answer, bill),
        }
    }
}

/// One server-sent event with a name.
fn event(out: &mut String, name: &str, data: &str) {
    for part in ["event: ", name, "\ndata: ", data, "\n\n"] {
        out.push_str(part);
    }
}

#[cfg(test)]
mod tests;
