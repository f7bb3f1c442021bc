//! Who is who in a cluster: one authority, made when the cluster is, and a certificate for each node and for the operator.
//!
//! A node's certificate bears two names: `node-<id>.grid`, which binds it to its number, and `node.grid`, so that an
//! operator can ask whichever node is at an address. The operator's bears `operator.grid` and is good for asking only.
//! There is no revocation list: a node that is removed from the members is not listened to by the core, and a lost
//! authority key means a new authority.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::NodeId;

/// The name of whichever node it may be.
pub(crate) const ANY_NODE_NAME: &str = "node.grid";
/// The operator's name.
pub(crate) const OPERATOR_NAME: &str = "operator.grid";
/// How long what an authority issues is good for; renewing is issuing again.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of machines that have just been set up differ; a certificate is good from a day before it was made.
const SLACK: Duration = Duration::from_secs(24 * 3600);

/// The name that binds a certificate to a node's number.
pub(crate) fn node_name(node: NodeId) -> String {
    format!("node-{node}.grid")
}

/// Why an identity could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// A private key that others than its owner may read; `chmod 600` it, or issue a new one if in doubt.
    #[error("{0}: a private key that others may read; chmod 600 it, or issue a new one if in doubt")]
    Exposed(PathBuf),
    /// No certificate could be made of this.
    #[error("the authority cannot issue: {0}")]
    Issue(#[from] rcgen::Error),
    /// PEM that holds no certificate or key, or not one that belongs to the other.
    #[error("this is no identity: {0}")]
    Invalid(String),
}

/// What one node, or the operator, shows and trusts: PEM texts.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The authority's certificate.
    pub authority: String,
    /// Its own certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// The stem of a node's files: `node-<id>`.
    #[must_use]
    pub fn node_files(node: NodeId) -> String {
        format!("node-{node}")
    }

    /// The stem of the operator's files: `operator`.
    pub const OPERATOR_FILES: &str = "operator";

    /// Reads `authority.pem`, `<stem>.pem` and `<stem>.key` from a directory.
    ///
    /// # Errors
    /// When a file cannot be read, or the key may be read by others than its owner.
    pub fn load(dir: &Path, stem: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            authority: read(&dir.join("authority.pem"))?,
            certificate: read(&dir.join(format!("{stem}.pem")))?,
            key: read_key(&dir.join(format!("{stem}.key")))?,
        })
    }

    /// Writes the three files; the key with mode 0600. Files of the same name are replaced.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path, stem: &str) -> Result<(), IdentityError> {
        write(&dir.join("authority.pem"), &self.authority, 0o644)?;
        write(&dir.join(format!("{stem}.pem")), &self.certificate, 0o644)?;
        write(&dir.join(format!("{stem}.key")), &self.key, 0o600)
    }
}

/// The authority of a cluster: its key makes members, so it stays with the operator and never on a node.
pub struct Authority {
    certificate: String,
    key: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn make() -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(&key).self_signed(&key)?.pem();
        Ok(Self { certificate, key })
    }

    /// Reads `authority.pem` and `authority.key` from a directory.
    ///
    /// # Errors
    /// When a file cannot be read, the key may be read by others than its owner, or is no key.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let certificate = read(&dir.join("authority.pem"))?;
        let key = KeyPair::from_pem(&read_key(&dir.join("authority.key"))?)?;
        Ok(Self { certificate, key })
    }

    /// Writes the two files; the key with mode 0600.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        write(&dir.join("authority.pem"), &self.certificate, 0o644)?;
        write(&dir.join("authority.key"), &self.key.serialize_pem(), 0o600)
    }

    /// A new key and certificate for a node.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn issue_node(&self, node: NodeId) -> Result<Identity, IdentityError> {
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(vec![node_name(node), ANY_NODE_NAME.to_owned()], &both, SystemTime::now())
    }

    /// A new key and certificate for the operator; it cannot pass for a node.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn issue_operator(&self) -> Result<Identity, IdentityError> {
        let client = [ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(vec![OPERATOR_NAME.to_owned()], &client, SystemTime::now())
    }

    /// Issues at a time, so that a test can have one that has expired.
    pub(crate) fn issue(
        &self,
        names: Vec<String>,
        usages: &[ExtendedKeyUsagePurpose],
        at: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let key = KeyPair::generate()?;
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.not_before = epoch + since.saturating_sub(SLACK);
        params.not_after = epoch + (since + LIFE);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let issuer_params = authority_params(&self.key);
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Identity { authority: self.certificate.clone(), certificate, key: key.serialize_pem() })
    }
}

/// What issuing needs to know of the authority; made of its key, so it need not be read back. The name differs from one
/// authority to the next, so that a certificate of another one is called that, and not a broken one of ours.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let public = key.public_key_raw();
    let mark: String = public[public.len() - 8..].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Grid cluster authority {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn read_key(path: &Path) -> Result<String, IdentityError> {
    let told = fs::metadata(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
    if told.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed(path.to_owned()));
    }
    read(path)
}

/// Writes aside and renames, so that a reader never finds half a key, nor a key that was open to others for a moment.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let aside = path.with_extension("new");
    let done = (|| {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    done.map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_owners_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::make().unwrap();
        authority.save(dir.path()).unwrap();
        let identity = authority.issue_node(3).unwrap();
        identity.save(dir.path(), &Identity::node_files(3)).unwrap();
        for key in ["authority.key", "node-3.key"] {
            let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        assert!(Identity::load(dir.path(), "node-3").unwrap() == identity);
        let again = Authority::load(dir.path()).unwrap();
        assert_eq!(again.issue_operator().unwrap().authority, identity.authority);
        assert!(!format!("{identity:?}{authority:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Authority::make().unwrap().save(dir.path()).unwrap();
        let key = dir.path().join("authority.key");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Authority::load(dir.path()), Err(IdentityError::Exposed(path)) if path == key));
    }
}
