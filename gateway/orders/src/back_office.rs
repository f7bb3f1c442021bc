//! The back office: what must not hold up the loop, which is signatures (fifty microseconds each) and looking into
//! the replica. One thread, a bounded queue of jobs; an outcome goes back for each.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use ed25519_dalek::{Signature, VerifyingKey};
use grid_engine::event::Report;
use grid_engine::{Fingerprint, SessionId};

use crate::venue::{View, Wake};

/// Something to be done beside the loop. `connection` comes back with the answer.
#[derive(Debug)]
pub(crate) enum Job {
    /// Check a login's signature.
    Verify { connection: u64, fingerprint: Fingerprint, transcript: Vec<u8>, signature: [u8; 64] },
    /// Read reports of a session again.
    Fetch { connection: u64, session: SessionId, from: u64, until: u64 },
    /// Find the connections whose key is no longer good.
    Audit { keys: Vec<(u64, Fingerprint)> },
}

/// Its outcome.
#[derive(Debug)]
pub(crate) enum Outcome {
    Verified {
        connection: u64,
        genuine: bool,
    },
    /// The reports from `from` on that are still kept, in order.
    Fetched {
        connection: u64,
        reports: Vec<Report>,
    },
    /// The connections to end.
    Revoked {
        connections: Vec<u64>,
    },
}

/// The loop's end of it; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct BackOffice {
    jobs: Option<SyncSender<Job>>,
    outcomes: Receiver<Outcome>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl BackOffice {
    /// Starts the thread; `wake` is called after each outcome.
    pub(crate) fn start<V: View>(view: Arc<V>, capacity: usize, wake: Wake) -> std::io::Result<Self> {
        let (jobs, to_do) = sync_channel::<Job>(capacity);
        let (done, outcomes) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("grid-logins".to_owned()).spawn(move || {
            for job in to_do {
                if done.send(work(&*view, job)).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Self { jobs: Some(jobs), outcomes, thread: Some(thread) })
    }

    /// Hands a job over, or gives it back when there are too many.
    #[expect(
        clippy::result_large_err,
        reason = "the job itself comes back; a box would cost an allocation per login"
    )]
    pub(crate) fn ask(&self, job: Job) -> Result<(), Job> {
        match &self.jobs {
            None => Err(job),
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
            }),
        }
    }

    /// The next outcome, if there is one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcomes.try_recv().ok()
    }
}

impl Drop for BackOffice {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed by its own thread; there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

fn work<V: View>(view: &V, job: Job) -> Outcome {
    match job {
        Job::Verify { connection, fingerprint, transcript, signature } => {
            let key = view.read(|state| {
                state.signing_keys.get(&fingerprint).filter(|key| key.active).map(|key| key.public_key)
            });
            let genuine = key.is_some_and(|key| is_genuine(&key, &transcript, &signature));
            Outcome::Verified { connection, genuine }
        }
        Job::Fetch { connection, session, from, until } => {
            let reports = view.read(|state| {
                let Some(session) = state.sessions.get(&session) else {
                    return Vec::new();
                };
                let oldest = session.next_report - session.reports.len() as u64;
                let skip = from.saturating_sub(oldest) as usize;
                let wanted = session.reports.iter().skip(skip);
                wanted.take_while(|report| report.number < until).collect()
            });
            Outcome::Fetched { connection, reports }
        }
        Job::Audit { keys } => {
            let revoked = |key| view.read(|state| state.signing_keys.get(key).is_none_or(|key| !key.active));
            let connections = keys.iter().filter(|(_, key)| revoked(key)).map(|(connection, _)| *connection);
            Outcome::Revoked { connections: connections.collect() }
        }
    }
}

/// Strict verification: the plain kind accepts forgeries under weak keys.
fn is_genuine(key: &[u8; 32], transcript: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(key) else {
        return false;
    };
    !key.is_weak() && key.verify_strict(transcript, &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    #[test]
    fn only_a_strict_signature_of_a_strong_key_is_genuine() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signature = key.sign(b"hello").to_bytes();
        let public = key.verifying_key().to_bytes();
        assert!(is_genuine(&public, b"hello", &signature));
        assert!(!is_genuine(&public, b"hullo", &signature));
        assert!(!is_genuine(
            &SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes(),
            b"hello",
            &signature
        ));
        // The identity as key and R, zero as s: plain verification takes this for a signature of anything.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut forged = [0; 64];
        forged[0] = 1;
        assert!(!is_genuine(&identity, b"hello", &forged));
    }
}
