//! Calls that are sent on to other nodes with a 307 (contract §6.2), where a deployment wants that.
//!
//! The node that a client knows authenticates, validates and picks; the node that it is sent to reserves, asks suppliers
//! and streams. Nothing is reserved before that, so nobody pays twice and an unused ticket costs nothing. Who is sent on:
//! callers of `/v1/chat/completions` whose key came as bearer. Messages is always answered in place, and so is whoever
//! sends `x-api-key`, because its library would show it to any host that it is sent to. A node that does not answer
//! `/health` gets nobody; where none does, calls are answered in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue, LOCATION};
use hyper::{HeaderMap, Response, StatusCode};

use crate::choice;
use crate::config::Dispatch;
use crate::reply::Out;
use crate::ticket::{Office, Ticket, Void};
use crate::upstream::Upstream;

/// The other nodes, and this one's tickets.
pub(crate) struct Hops {
    /// This node's base URL, as the others know it.
    here: String,
    nodes: Vec<Node>,
    life: Duration,
    office: Office,
}

/// A node that calls are sent to.
struct Node {
    base_url: String,
    up: AtomicBool,
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Hops {
    /// As configured; `here` is where this node listens, for want of a better name.
    pub(crate) fn new(dispatch: &Dispatch, here: String, venue: &crate::seal::VenueKey) -> Arc<Self> {
        let node = |base_url: &String| Node {
            base_url: base_url.trim_end_matches('/').to_owned(),
            up: AtomicBool::new(true),
        };
        Arc::new(Self {
            here: dispatch.here.clone().unwrap_or(here),
            nodes: dispatch.nodes.iter().map(node).collect(),
            life: dispatch.ticket_life,
            office: Office::new(venue, now_ms(), dispatch.tickets),
        })
    }

    /// Looks after the other nodes for as long as the tier lives.
    pub(crate) fn watch(self: &Arc<Self>, upstream: &Upstream, every: Duration) {
        for at in 0..self.nodes.len() {
            let (hops, upstream) = (Arc::downgrade(self), upstream.clone());
            let url = format!("{}/health", self.nodes[at].base_url);
            tokio::spawn(async move {
                loop {
                    let up = upstream.answers(&url, every).await;
                    let Some(hops) = hops.upgrade() else { return };
                    if hops.nodes[at].up.swap(up, Ordering::Relaxed) != up {
                        tracing::info!(node = hops.nodes[at].base_url, up, "another node has changed");
                    }
                    drop(hops);
                    tokio::time::sleep(every).await;
                }
            });
        }
    }

    /// The node that gets this call: one of those that are up, by the call's number. Nobody where it is this one, or none
    /// is, or the caller may not be sent anywhere.
    pub(crate) fn pick(&self, headers: &HeaderMap, request: u128) -> Option<&str> {
        if self.nodes.is_empty() || headers.contains_key("x-api-key") || !headers.contains_key(AUTHORIZATION)
        {
            return None;
        }
        let up: Vec<&Node> = self.nodes.iter().filter(|node| node.up.load(Ordering::Relaxed)).collect();
        let drawn = choice::hash(&request.to_le_bytes()) as usize % up.len().max(1);
        let picked = up.get(drawn)?.base_url.as_str();
        (picked != self.here.trim_end_matches('/')).then_some(picked)
    }

    /// The answer that sends a call to a node.
    pub(crate) fn send(&self, node: &str, mut ticket: Ticket) -> Option<Response<Out>> {
        ticket.issued_ms = now_ms();
        ticket.expires_ms = ticket.issued_ms + u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX >> 1);
        let token = self.office.issue(&ticket, node);
        let mut response = Response::new(Out::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let location = HeaderValue::try_from(format!("{node}/chat/completions?token={token}")).ok()?;
        response.headers_mut().insert(LOCATION, location);
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    /// The ticket in a query, where there is one.
    pub(crate) fn ticket(&self, query: Option<&str>) -> Option<Result<Ticket, Void>> {
        let token = query?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        Some(self.office.read(token, &self.here, now_ms()))
    }

    /// Takes a ticket, once.
    pub(crate) fn take(&self, ticket: &Ticket, body: &[u8]) -> Result<(), Void> {
        self.office.take(ticket, body, now_ms())
    }
}
