//! What is spoken on a socket, without the socket: mutual TLS 1.3, or plain bytes for loopback. Bytes of the wire go in
//! and come out; the loop and the blocking callers move them.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::identity::{Identity, IdentityError};

/// How links are protected.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Not at all: a cluster on one machine, on loopback addresses.
    Plain,
    /// TLS 1.3, both sides with a certificate of the cluster's authority.
    Mutual(Identity),
}

/// The two sides' settings, made once.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    Plain,
    Mutual { server: Arc<ServerConfig>, client: Arc<ClientConfig> },
}

impl Security {
    pub(crate) fn new(tls: &Tls) -> Result<Self, IdentityError> {
        let Tls::Mutual(identity) = tls else {
            return Ok(Self::Plain);
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&identity.authority)? {
            roots.add(certificate).map_err(invalid)?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&identity.certificate)?;
        let key = || PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(invalid);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let only = [&rustls::version::TLS13];

        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(invalid)?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&only)
            .map_err(invalid)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key()?)
            .map_err(invalid)?;
        // Every connection shows its certificate anew: links live long, and a resumed one would skip the question.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&only)
            .map_err(invalid)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key()?)
            .map_err(invalid)?;
        client.resumption = Resumption::disabled();
        Ok(Self::Mutual { server: Arc::new(server), client: Arc::new(client) })
    }

    /// The accepting end of a connection.
    pub(crate) fn accept(&self) -> Result<Session, rustls::Error> {
        Ok(match self {
            Self::Plain => Session::Plain,
            Self::Mutual { server, .. } => {
                Session::over(rustls::Connection::Server(ServerConnection::new(Arc::clone(server))?))
            }
        })
    }

    /// The dialling end; the other side's certificate must bear `name`.
    pub(crate) fn dial(&self, name: &str) -> Result<Session, rustls::Error> {
        Ok(match self {
            Self::Plain => Session::Plain,
            Self::Mutual { client, .. } => {
                let name = ServerName::try_from(name.to_owned())
                    .map_err(|_| rustls::Error::General(format!("{name} is no name")))?;
                Session::over(rustls::Connection::Client(ClientConnection::new(Arc::clone(client), name)?))
            }
        })
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(invalid)?;
    if all.is_empty() {
        return Err(IdentityError::Invalid("no certificate in the PEM".to_owned()));
    }
    Ok(all)
}

fn invalid(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Invalid(error.to_string())
}

/// One connection's end.
#[derive(Debug)]
pub(crate) enum Session {
    Plain,
    Tls(Box<rustls::Connection>),
}

impl Session {
    fn over(mut connection: rustls::Connection) -> Self {
        // What is given to be sealed is taken out at once, and before the handshake is over it is one Hello.
        connection.set_buffer_limit(None);
        Self::Tls(Box::new(connection))
    }

    /// Seals bytes for the wire; what a handshake has to say goes first.
    pub(crate) fn seal(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        match self {
            Self::Plain => wire.extend_from_slice(plain),
            Self::Tls(connection) => {
                let sealed: io::Result<()> = io::Write::write_all(&mut connection.writer(), plain);
                sealed.expect("an unbounded buffer takes everything");
                drain(connection, wire);
            }
        }
    }

    /// Opens bytes from the wire. What the handshake answers goes to `answer`, also when it fails: an alert tells the
    /// other side why.
    pub(crate) fn open(
        &mut self,
        mut wire: &[u8],
        plain: &mut Vec<u8>,
        answer: &mut Vec<u8>,
    ) -> Result<(), rustls::Error> {
        let Self::Tls(connection) = self else {
            plain.extend_from_slice(wire);
            return Ok(());
        };
        while !wire.is_empty() {
            let taken =
                connection.read_tls(&mut wire).map_err(|error| rustls::Error::General(error.to_string()))?;
            let state = match connection.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    drain(connection, answer);
                    return Err(error);
                }
            };
            let ready = state.plaintext_bytes_to_read();
            if ready > 0 {
                let before = plain.len();
                plain.resize(before + ready, 0);
                let read = io::Read::read_exact(&mut connection.reader(), &mut plain[before..]);
                read.expect("what is said to be there is there");
            }
            // After a goodbye nothing is read any more.
            if taken == 0 {
                break;
            }
        }
        drain(connection, answer);
        Ok(())
    }

    /// Whether the other side's certificate bears a name. On a plain link nobody shows one, and every name is taken.
    pub(crate) fn certified(&self, name: &str) -> bool {
        let Self::Tls(connection) = self else {
            return true;
        };
        let (Some([leaf, ..]), Ok(name)) = (connection.peer_certificates(), ServerName::try_from(name))
        else {
            return false;
        };
        ParsedCertificate::try_from(leaf)
            .and_then(|certificate| rustls::client::verify_server_name(&certificate, &name))
            .is_ok()
    }
}

/// Takes out what is to be written; a vector takes everything.
fn drain(connection: &mut rustls::Connection, wire: &mut Vec<u8>) {
    while connection.wants_write() {
        if connection.write_tls(wire).unwrap_or(0) == 0 {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::ExtendedKeyUsagePurpose;

    use super::super::identity::{Authority, node_name};
    use super::*;

    fn security(identity: Identity) -> Security {
        Security::new(&Tls::Mutual(identity)).unwrap()
    }

    /// Lets two ends talk until neither has anything to say. Gives each one's plain bytes or its error.
    fn talk(
        dialler: &mut Session,
        listener: &mut Session,
        said: &[u8],
    ) -> (Result<Vec<u8>, rustls::Error>, Result<Vec<u8>, rustls::Error>) {
        let (mut to_listener, mut to_dialler) = (Vec::new(), Vec::new());
        let (mut heard_by_dialler, mut heard_by_listener) = (Ok(Vec::new()), Ok(Vec::new()));
        dialler.seal(said, &mut to_listener);
        while !to_listener.is_empty() || !to_dialler.is_empty() {
            let wire = std::mem::take(&mut to_listener);
            if let Ok(plain) = &mut heard_by_listener
                && let Err(error) = listener.open(&wire, plain, &mut to_dialler)
            {
                heard_by_listener = Err(error);
            }
            let wire = std::mem::take(&mut to_dialler);
            if let Ok(plain) = &mut heard_by_dialler
                && let Err(error) = dialler.open(&wire, plain, &mut to_listener)
            {
                heard_by_dialler = Err(error);
            }
        }
        (heard_by_dialler, heard_by_listener)
    }

    #[test]
    fn two_nodes_of_one_authority_understand_each_other_and_know_who_they_are() {
        let authority = Authority::make().unwrap();
        let mut dialler = security(authority.issue_node(2).unwrap()).dial(&node_name(1)).unwrap();
        let mut listener = security(authority.issue_node(1).unwrap()).accept().unwrap();
        let long = vec![7; 100_000];
        let (_, heard) = talk(&mut dialler, &mut listener, &long);
        assert_eq!(heard.unwrap(), long);
        for (name, expected) in
            [("node-2.grid", true), ("node.grid", true), ("node-1.grid", false), ("operator.grid", false)]
        {
            assert_eq!(listener.certified(name), expected, "{name}");
        }
    }

    #[test]
    fn who_has_the_wrong_certificate_is_refused_and_told_why() {
        let authority = Authority::make().unwrap();
        let other = Authority::make().unwrap();
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let long_ago = SystemTime::now() - Duration::from_secs(11 * 365 * 24 * 3600);
        let expired =
            |node| authority.issue(vec![node_name(node), "node.grid".to_owned()], &both, long_ago).unwrap();
        let node = |node| authority.issue_node(node).unwrap();
        let stranger = |node| {
            // Trusts our authority, but its own certificate is another's.
            let foreign = other.issue_node(node).unwrap();
            Identity { authority: authority.issue_operator().unwrap().authority, ..foreign }
        };
        // Who dials, who answers, which of the two refuses, and with which words.
        let table = [
            ("a stranger dials", stranger(2), node(1), "listener", "UnknownIssuer"),
            ("a stranger answers", node(2), stranger(1), "dialler", "UnknownIssuer"),
            ("an expired node dials", expired(2), node(1), "listener", "expired"),
            ("an expired node answers", node(2), expired(1), "dialler", "expired"),
            ("another node answers", node(2), node(3), "dialler", "not valid for name"),
            (
                "an operator answers",
                node(2),
                authority.issue_operator().unwrap(),
                "dialler",
                "server authentication",
            ),
        ];
        for (name, dials, answers, refuses, words) in table {
            let mut dialler = security(dials).dial(&node_name(1)).unwrap();
            let mut listener = security(answers).accept().unwrap();
            let (by_dialler, by_listener) = talk(&mut dialler, &mut listener, b"hello");
            let error = if refuses == "dialler" { by_dialler } else { by_listener };
            let error = error.expect_err(name).to_string();
            let same = |a: &str, b: &str| {
                a.to_lowercase().replace(' ', "").contains(&b.to_lowercase().replace(' ', ""))
            };
            assert!(same(&error, words), "{name}: {error}");
        }
    }

    #[test]
    fn a_dialler_without_a_certificate_is_refused() {
        let authority = Authority::make().unwrap();
        let mut roots = RootCertStore::empty();
        let identity = authority.issue_node(1).unwrap();
        roots.add(certificates(&identity.authority).unwrap().remove(0)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let nameless = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("node-1.grid").unwrap();
        let mut dialler = Session::over(rustls::Connection::Client(
            ClientConnection::new(Arc::new(nameless), name).unwrap(),
        ));
        let mut listener = security(identity).accept().unwrap();
        let (told, refused) = talk(&mut dialler, &mut listener, b"hello");
        assert!(refused.unwrap_err().to_string().contains("no certificates"));
        assert!(told.unwrap_err().to_string().to_lowercase().contains("certificate"));
    }

    #[test]
    fn garbage_and_plain_bytes_at_a_tls_door_are_errors_not_panics() {
        let identity = Authority::make().unwrap().issue_node(1).unwrap();
        let security = security(identity);
        for bytes in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 5000], &[22, 3, 1, 0, 5, 1, 0, 0, 1, 0]]
        {
            let mut listener = security.accept().unwrap();
            let (mut plain, mut answer) = (Vec::new(), Vec::new());
            assert!(listener.open(bytes, &mut plain, &mut answer).is_err());
            assert!(plain.is_empty());
        }
    }
}
