//! On which connection a session lives. Reports come in runs, as the requests did, so what was found last is looked at
//! first.

use std::collections::HashMap;

use grid_engine::SessionId;

/// The live sessions of this gateway.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Clients choose session ids, so the hash has a seed of its own.
    connections: HashMap<SessionId, u64, foldhash::quality::RandomState>,
    /// One of them, and its connection.
    last: Option<(SessionId, u64)>,
}

impl Sessions {
    /// The connection of a session, if it lives on one here.
    #[inline]
    pub(super) fn connection(&mut self, session: SessionId) -> Option<u64> {
        match self.last {
            Some((last, connection)) if last == session => Some(connection),
            _ => self.look_up(session),
        }
    }

    fn look_up(&mut self, session: SessionId) -> Option<u64> {
        let connection = *self.connections.get(&session)?;
        self.last = Some((session, connection));
        Some(connection)
    }

    /// From now on the session lives on this connection.
    pub(super) fn begin(&mut self, session: SessionId, connection: u64) {
        self.connections.insert(session, connection);
        self.last = None;
    }

    /// It lives on none any more; on which it did.
    pub(super) fn end(&mut self, session: SessionId) -> Option<u64> {
        self.last = None;
        self.connections.remove(&session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_last_is_forgotten_when_it_changes() {
        let mut sessions = Sessions::default();
        let (one, other) = (SessionId(1), SessionId(2));
        assert_eq!(sessions.connection(one), None);
        sessions.begin(one, 10);
        sessions.begin(other, 20);
        assert_eq!([one, one, other, one].map(|id| sessions.connection(id)), [10, 10, 20, 10].map(Some));
        sessions.begin(one, 30);
        assert_eq!(sessions.connection(one), Some(30), "it moved");
        assert_eq!(sessions.end(one), Some(30));
        assert_eq!((sessions.connection(one), sessions.end(one)), (None, None));
        assert_eq!(sessions.connection(other), Some(20));
    }
}
