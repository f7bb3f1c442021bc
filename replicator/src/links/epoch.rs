//! Which of a peer's connections counts: the newest, and no other. Old frames that come after new ones would let an
//! acknowledgement be read under a term it was not given in; one connection at a time, in one direction, is what makes
//! links FIFO across reconnects.
//!
//! Why arrival decides between two boots: a dialler sends nothing but its Hello before it was welcomed, closes one
//! connection before it opens the next, and so never has frames on an older connection behind a newer Hello. Within one
//! boot the count also catches the Hello of an attempt that was given up and arrives late. No clock takes part.

use super::frame::Epoch;

/// The connections of one peer, seen from where they arrive.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    epoch: Option<Epoch>,
    connection: Option<u64>,
}

/// A connection that is older than one already taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) newest: Epoch,
}

impl Newest {
    /// A connection says Hello. Gives the older one, which must be closed before anything is read from the new one.
    pub(crate) fn admit(&mut self, epoch: Epoch, connection: u64) -> Result<Option<u64>, Stale> {
        if let Some(newest) = self.epoch
            && newest.boot == epoch.boot
            && epoch.attempt <= newest.attempt
        {
            return Err(Stale { newest });
        }
        self.epoch = Some(epoch);
        Ok(self.connection.replace(connection))
    }

    /// The boot of the newest connection there was.
    pub(crate) fn boot(&self) -> Option<u64> {
        self.epoch.map(|epoch| epoch.boot)
    }

    /// The connection that counts.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.connection
    }

    /// A connection is gone. Says whether it was the one that counted.
    pub(crate) fn closed(&mut self, connection: u64) -> bool {
        let counted = self.connection == Some(connection);
        if counted {
            self.connection = None;
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(boot: u64, attempt: u64) -> Epoch {
        Epoch { boot, attempt }
    }

    #[test]
    fn a_newer_connection_takes_the_place_of_the_older() {
        let mut newest = Newest::default();
        assert_eq!(newest.admit(epoch(9, 1), 100), Ok(None));
        assert_eq!(newest.admit(epoch(9, 2), 101), Ok(Some(100)));
        assert_eq!(newest.connection(), Some(101));
        assert!(!newest.closed(100), "the older one's end changes nothing");
        assert_eq!(newest.connection(), Some(101));
    }

    #[test]
    fn a_hello_that_was_given_up_and_arrives_late_is_stale() {
        let mut newest = Newest::default();
        newest.admit(epoch(9, 5), 100).unwrap();
        assert_eq!(newest.admit(epoch(9, 4), 101), Err(Stale { newest: epoch(9, 5) }));
        assert_eq!(newest.admit(epoch(9, 5), 102), Err(Stale { newest: epoch(9, 5) }));
        assert_eq!(newest.connection(), Some(100));
    }

    #[test]
    fn staleness_outlives_the_connection() {
        let mut newest = Newest::default();
        newest.admit(epoch(9, 5), 100).unwrap();
        assert!(newest.closed(100));
        assert!(newest.admit(epoch(9, 3), 101).is_err());
        assert_eq!(newest.admit(epoch(9, 6), 102), Ok(None));
    }

    #[test]
    fn a_restarted_node_counts_from_one_again_and_is_taken() {
        let mut newest = Newest::default();
        newest.admit(epoch(9, 500), 100).unwrap();
        assert_eq!(newest.admit(epoch(3, 1), 101), Ok(Some(100)));
    }
}
