//! Who this machine is: an Ed25519 key in a file, and the certificate that presents it.
//!
//! A directory holds `identity.key` (PKCS#8 PEM, mode 0600), `identity.crt` (its certificate, PEM) and, after a rotation,
//! `identity.key.old`. The key is the identity. The certificate is derived from it and made anew whenever it is missing
//! or belongs to another key, so exchanging the key is a single rename and no crash can leave a pair that does not fit.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::certificate;
use crate::files::{self, Access, FileError, LockedDir};
use crate::fingerprint::Fingerprint;

const KEY_NAME: &str = "identity.key";
const OLD_KEY_NAME: &str = "identity.key.old";
const CERTIFICATE_NAME: &str = "identity.crt";

/// Both files are PEM of a few hundred bytes, perhaps with comments around it.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The PKCS#8 form of an Ed25519 key is these bytes and the 32 of its seed (RFC 8410). This version without the public
/// key is the one every tool reads.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// An Ed25519 key and the self-signed certificate that presents it.
pub struct Identity {
    key: PrivatePkcs8KeyDer<'static>,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

/// What [`Identity::rotate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The fingerprint until now; peers still have it in their trust stores.
    pub old: Fingerprint,
    /// The fingerprint from now on; peers must be told.
    pub new: Fingerprint,
}

impl Identity {
    /// Reads the identity in `dir`, or makes one if there is none.
    ///
    /// When two processes start at once, both return the same identity. The directory is created with mode 0700. A key
    /// file that another user owns or could have read is refused: nobody knows then who else is "this machine".
    pub fn load_or_create(dir: &Path) -> Result<Identity, IdentityError> {
        // First without the lock: a service may be given a finished identity in a directory it cannot write to.
        if let Some(identity) = read_key(dir)?
            && read_certificate(dir, &identity)?
        {
            return Ok(identity);
        }
        let locked = LockedDir::lock(dir)?;
        let identity = match read_key(dir)? {
            Some(identity) => identity,
            None => {
                let identity = Identity::ephemeral()?;
                locked.write(KEY_NAME, 0o600, identity.export_pem().as_bytes())?;
                identity
            }
        };
        identity.write_certificate(dir, &locked)?;
        Ok(identity)
    }

    /// A new identity that is kept nowhere.
    pub fn ephemeral() -> Result<Identity, IdentityError> {
        let mut der = PKCS8_PREFIX.to_vec();
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(IdentityError::Random)?;
        der.extend_from_slice(&seed);
        Identity::from_key(PrivatePkcs8KeyDer::from(der)).map_err(IdentityError::Certificate)
    }

    /// Puts a key exported with [`Identity::export_pem`] into `dir`.
    ///
    /// An identity that is there already is never overwritten, unless it is the same one.
    pub fn import(dir: &Path, pem: &str) -> Result<Identity, IdentityError> {
        let identity = Identity::from_pem(pem.as_bytes()).map_err(IdentityError::Import)?;
        let locked = LockedDir::lock(dir)?;
        match read_key(dir)? {
            Some(present) if present.fingerprint != identity.fingerprint => {
                return Err(IdentityError::Exists {
                    path: dir.join(KEY_NAME),
                    fingerprint: present.fingerprint,
                });
            }
            Some(_) => {}
            None => locked.write(KEY_NAME, 0o600, identity.export_pem().as_bytes())?,
        }
        identity.write_certificate(dir, &locked)?;
        Ok(identity)
    }

    /// Makes a new identity in `dir` and keeps the key so far as `identity.key.old`, in place of an older one there.
    ///
    /// At every moment there is a complete key under `identity.key`: the old one, then the new one.
    pub fn rotate(dir: &Path) -> Result<Rotation, IdentityError> {
        let missing = || IdentityError::Missing {
            path: dir.join(KEY_NAME),
        };
        // Before locking, which would create the directory.
        read_key(dir)?.ok_or_else(missing)?;
        let locked = LockedDir::lock(dir)?;
        let old = read_key(dir)?.ok_or_else(missing)?;
        let new = Identity::ephemeral()?;
        locked.write(OLD_KEY_NAME, 0o600, old.export_pem().as_bytes())?;
        locked.write(KEY_NAME, 0o600, new.export_pem().as_bytes())?;
        new.write_certificate(dir, &locked)?;
        Ok(Rotation {
            old: old.fingerprint,
            new: new.fingerprint,
        })
    }

    /// The private key as PKCS#8 PEM. Whoever has this text *is* this machine.
    pub fn export_pem(&self) -> String {
        pem("PRIVATE KEY", self.key.secret_pkcs8_der())
    }

    /// A secret that only this identity has, for the use that `context` names (see [`blake3::derive_key`]).
    pub fn derive_secret(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, self.key.secret_pkcs8_der())
    }

    /// The hash of the public key, by which peers know this machine.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The self-signed certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key, for the TLS configurations.
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    fn from_pem(text: &[u8]) -> Result<Identity, KeyFault> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| KeyFault::NotPem)?;
        Identity::from_key(key).map_err(|_| KeyFault::NotEd25519)
    }

    fn from_key(key: PrivatePkcs8KeyDer<'static>) -> Result<Identity, rcgen::Error> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?;
        let certificate = certificate::make(&pair)?;
        let fingerprint = certificate::check(&certificate)
            .expect("the certificate just made passes the check that peers make")
            .fingerprint();
        Ok(Identity {
            key,
            certificate,
            fingerprint,
        })
    }

    /// Writes the certificate unless it is there.
    fn write_certificate(&self, dir: &Path, locked: &LockedDir) -> Result<(), IdentityError> {
        if !read_certificate(dir, self)? {
            // Public, but nobody else needs it from here.
            locked.write(
                CERTIFICATE_NAME,
                0o600,
                pem("CERTIFICATE", &self.certificate).as_bytes(),
            )?;
        }
        Ok(())
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity {
            key: self.key.clone_key(),
            certificate: self.certificate.clone(),
            fingerprint: self.fingerprint,
        }
    }
}

fn read_key(dir: &Path) -> Result<Option<Identity>, IdentityError> {
    let path = dir.join(KEY_NAME);
    let Some(text) = files::read(&path, Access::Secret, MAX_FILE_BYTES)? else {
        return Ok(None);
    };
    match Identity::from_pem(&text) {
        Ok(identity) => Ok(Some(identity)),
        Err(fault) => Err(IdentityError::Key { path, fault }),
    }
}

/// Whether the certificate file holds a certificate of this identity. What we present is always the one made from the
/// key; the file is for other tools, so one of the same key that they made is left alone.
fn read_certificate(dir: &Path, identity: &Identity) -> Result<bool, IdentityError> {
    let text = files::read(&dir.join(CERTIFICATE_NAME), Access::Guarded, MAX_FILE_BYTES)?;
    let fits = text
        .and_then(|text| CertificateDer::from_pem_slice(&text).ok())
        .and_then(|certificate| certificate::check(&certificate).ok())
        .is_some_and(|key| key.fingerprint() == identity.fingerprint);
    Ok(fits)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    // PEM lines have 64 characters (RFC 7468), which is 48 bytes: an Ed25519 key is exactly one line.
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// What is wrong with the text of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// No `BEGIN PRIVATE KEY` section that can be read.
    #[error("it is not a private key in PKCS#8 PEM, which begins with `-----BEGIN PRIVATE KEY-----`")]
    NotPem,
    /// A key of another kind, or a damaged one.
    #[error("the key in it is not an Ed25519 key, or is damaged")]
    NotEd25519,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file operation failed, or a file was refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key file holds something else.
    #[error("cannot load the identity {}: {fault} (restore it from a backup, or move it away to get a new identity)",
        .path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// The text to import is not a key.
    #[error("cannot import the identity: {0} (use a file made by `driftless id --export`)")]
    Import(KeyFault),
    /// There is another identity where one is to be imported.
    #[error("cannot import over {}: it holds another identity, {fingerprint} (move it away first)", .path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
        /// The identity in it.
        fingerprint: Fingerprint,
    },
    /// There is no identity to rotate.
    #[error("cannot rotate the identity {}: there is none (make one with `driftless id`)", .path.display())]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error(
        "cannot make an identity: no random bytes from the system: {0} (check that getrandom is permitted)"
    )]
    Random(getrandom::Error),
    /// The certificate could not be made.
    #[error("cannot make the certificate of an identity: {0} (this is a defect, please report it)")]
    Certificate(rcgen::Error),
}

#[cfg(test)]
mod tests;
