//! The line that is printed, carried and pasted.
//!
//! `driftless-pair1-` and then base32 (lower case, no padding; read in any case) of
//!
//! ```text
//! u16      bytes in all, this and the checksum included    first, to tell a cut line from a mistyped one
//! [u8;32]  fingerprint of the receiver
//! [u8;16]  secret
//! u64      expiry, unix seconds
//! u8       bytes of the module name, then the name
//! u8       number of addresses (1 to 8)
//!   u16    bytes of the address, then the address          as often
//! [u8;5]   checksum: BLAKE3 of all the above, with a context of its own
//! ```
//!
//! Integers are big-endian. The checksum is against typing errors only; 5 bytes let one in 10^12 through.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};

use super::Secret;
use crate::fingerprint::Fingerprint;
use crate::names::{self, MAX_ADDRESS_BYTES, MAX_NAME_BYTES, NameError};
use crate::trust::unix_seconds;

/// What every pairing code of this version begins with.
pub const PAIRING_PREFIX: &str = "driftless-pair1-";

/// The prefix without its version.
const PREFIX_STEM: &str = "driftless-pair";

/// The most addresses in a code: a few interfaces and a public name.
pub const MAX_ADDRESSES: usize = 8;

const CHECKSUM_BYTES: usize = 5;

const MAX_BODY_BYTES: usize =
    2 + 32 + 16 + 8 + 1 + MAX_NAME_BYTES + 1 + MAX_ADDRESSES * (2 + MAX_ADDRESS_BYTES) + CHECKSUM_BYTES;

/// The most characters in a code; a longer text is refused unread.
pub const MAX_CODE_CHARS: usize = PAIRING_PREFIX.len() + encoded_len(MAX_BODY_BYTES);

/// Base32 characters for a number of bytes: 5 bits each.
const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// All that a sender needs to find a receiver and be believed, once.
///
/// A value is always one that can be printed and read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingCode {
    addresses: Vec<String>,
    fingerprint: Fingerprint,
    module: String,
    secret: Secret,
    expires_at: u64,
}

impl PairingCode {
    /// Puts a code together; `addresses` are `host:port`, the best first, and `expires_at` is in unix seconds.
    pub fn new(
        addresses: Vec<String>,
        fingerprint: Fingerprint,
        module: String,
        secret: Secret,
        expires_at: u64,
    ) -> Result<PairingCode, CodeError> {
        names::check(&module).map_err(CodeError::Module)?;
        if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
            return Err(CodeError::AddressCount {
                found: addresses.len(),
            });
        }
        for address in &addresses {
            names::check_address(address).map_err(|reason| CodeError::Address {
                address: address.clone(),
                reason,
            })?;
        }
        Ok(PairingCode {
            addresses,
            fingerprint,
            module,
            secret,
            expires_at,
        })
    }

    /// Where the receiver may be reached, as `host:port`, the best first; at least one.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The fingerprint to pin.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The module the invite is for.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// What proves the invite.
    pub fn secret(&self) -> Secret {
        self.secret
    }

    /// From when on the receiver refuses it, in unix seconds.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Whether the receiver will refuse it, as far as the clock here can tell: ask before connecting.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        unix_seconds(now) >= self.expires_at
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend_from_slice(self.fingerprint.as_bytes());
        body.extend_from_slice(self.secret.as_bytes());
        body.extend_from_slice(&self.expires_at.to_be_bytes());
        // The lengths fit: `new` has checked them against maxima that do.
        body.push(self.module.len() as u8);
        body.extend_from_slice(self.module.as_bytes());
        body.push(self.addresses.len() as u8);
        for address in &self.addresses {
            body.extend_from_slice(&(address.len() as u16).to_be_bytes());
            body.extend_from_slice(address.as_bytes());
        }
        let total = (body.len() + CHECKSUM_BYTES) as u16;
        body[..2].copy_from_slice(&total.to_be_bytes());
        let checksum = checksum(&body);
        body.extend_from_slice(&checksum);
        body
    }
}

/// The code itself, secret included: print it for the person who asked for it, never into a log.
impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PAIRING_PREFIX)?;
        f.write_str(&BASE32_NOPAD.encode(&self.encode()).to_ascii_lowercase())
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    /// Reads a code; spaces and line ends around it are fine, as pasting leaves them.
    fn from_str(text: &str) -> Result<PairingCode, CodeError> {
        let text = text.trim();
        if text.len() > MAX_CODE_CHARS {
            return Err(CodeError::TooLong);
        }
        let body = without_prefix(text)?;
        if let Some((index, character)) = body
            .chars()
            .enumerate()
            .find(|(_, c)| !matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7'))
        {
            let position = PAIRING_PREFIX.len() + index + 1;
            return Err(CodeError::Character { character, position });
        }
        // 8 characters are 5 whole bytes, of which the first 2 say how many there should be.
        let head = body.get(..8).ok_or(CodeError::Incomplete)?;
        let head = BASE32_NOPAD_NOCASE
            .decode(head.as_bytes())
            .map_err(|_| CodeError::Mistyped)?;
        let expected = encoded_len(usize::from(u16::from_be_bytes([head[0], head[1]])));
        if body.len() < expected {
            return Err(CodeError::Incomplete);
        }
        if body.len() > expected {
            return Err(CodeError::TooLong);
        }
        let bytes = BASE32_NOPAD_NOCASE
            .decode(body.as_bytes())
            .map_err(|_| CodeError::Mistyped)?;
        let (content, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(CodeError::Mistyped)?;
        if checksum(content) != *sum {
            return Err(CodeError::Mistyped);
        }
        decode(content)
    }
}

/// Removes the prefix, or says what the text is instead.
fn without_prefix(text: &str) -> Result<&str, CodeError> {
    let matches = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    if matches(PAIRING_PREFIX) {
        return Ok(&text[PAIRING_PREFIX.len()..]);
    }
    // Cut within the prefix.
    if !text.is_empty()
        && PAIRING_PREFIX
            .get(..text.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(text))
    {
        return Err(CodeError::Incomplete);
    }
    if matches(PREFIX_STEM) {
        let version = text[PREFIX_STEM.len()..].split('-').next().unwrap_or_default();
        if version.parse::<u32>().is_ok_and(|version| version > 1) {
            return Err(CodeError::Newer);
        }
    }
    Err(CodeError::NotACode)
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("driftless 2026-01 pairing code checksum v1", content);
    std::array::from_fn(|i| hash[i])
}

/// Decodes what the checksum covers. A fault here is no typing error any more: somebody computed the checksum over it.
fn decode(content: &[u8]) -> Result<PairingCode, CodeError> {
    let mut rest = &content[2..];
    let fingerprint = Fingerprint::from_bytes(take(&mut rest)?);
    let secret = Secret::from_bytes(take(&mut rest)?);
    let expires_at = u64::from_be_bytes(take(&mut rest)?);
    let [module_len] = take(&mut rest)?;
    let module = take_text(&mut rest, usize::from(module_len))?;
    let [count] = take(&mut rest)?;
    let mut addresses = Vec::new();
    for _ in 0..count {
        let len = u16::from_be_bytes(take(&mut rest)?);
        addresses.push(take_text(&mut rest, usize::from(len))?);
    }
    if !rest.is_empty() {
        return Err(CodeError::Malformed);
    }
    PairingCode::new(addresses, fingerprint, module, secret, expires_at)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CodeError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(CodeError::Malformed)?;
    *rest = tail;
    Ok(*head)
}

fn take_text(rest: &mut &[u8], len: usize) -> Result<String, CodeError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(CodeError::Malformed)?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| CodeError::Malformed)
}

/// Why a text is no pairing code, or why one cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeError {
    /// Something else altogether.
    #[error("this is not a pairing code: one begins with `driftless-pair1-`")]
    NotACode,
    /// Of a version that this one does not know.
    #[error("the pairing code was made by a newer version of driftless (update this machine)")]
    Newer,
    /// The end is missing.
    #[error("the pairing code is incomplete: paste the whole line")]
    Incomplete,
    /// There is more than a code.
    #[error("the pairing code is too long: paste that one line and nothing after it")]
    TooLong,
    /// A character that codes do not have.
    #[error(
        "the pairing code is mistyped: {character:?} at position {position} cannot occur in one (paste it in one piece)"
    )]
    Character {
        /// The first wrong character.
        character: char,
        /// Its place, counted from 1.
        position: usize,
    },
    /// The checksum is another.
    #[error("the pairing code is mistyped: its checksum does not match (copy and paste the line)")]
    Mistyped,
    /// The checksum matches but the content makes no sense.
    #[error("the pairing code is malformed, although not mistyped (make a new one on the receiver)")]
    Malformed,
    /// The name of its module.
    #[error("the pairing code cannot name its module: {0} (choose another module)")]
    Module(NameError),
    /// None or too many addresses.
    #[error(
        "a pairing code has 1 to {MAX_ADDRESSES} addresses, not {found} (choose which ones the sender can reach)"
    )]
    AddressCount {
        /// Addresses found.
        found: usize,
    },
    /// One of its addresses.
    #[error("the pairing code cannot use the address {address:?}: {reason} (write it as host:port)")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
