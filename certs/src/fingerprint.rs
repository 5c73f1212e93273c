//! The public name of an identity.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use serde::{Deserialize, Serialize};

/// Letters in a printed fingerprint: 32 bytes in base32 without padding.
const FINGERPRINT_CHARS: usize = 52;

/// The BLAKE3 hash of a public key, as the DER of its `SubjectPublicKeyInfo`.
///
/// The key is hashed and not the certificate, so that a certificate can be made anew without changing who the machine
/// is. It is plain BLAKE3, so other tools can check it:
/// `openssl pkey -in identity.key -pubout -outform DER | b3sum` gives the same 32 bytes in hexadecimal.
///
/// It is printed as 52 lower-case base32 characters (RFC 4648: `a` to `z` and `2` to `7`) and read in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a public key given as the DER of its `SubjectPublicKeyInfo`.
    pub(crate) fn of_spki(spki_der: &[u8]) -> Fingerprint {
        Fingerprint(*blake3::hash(spki_der).as_bytes())
    }

    /// A fingerprint from its 32 bytes, as carried in protocol messages.
    pub fn from_bytes(bytes: [u8; 32]) -> Fingerprint {
        Fingerprint(bytes)
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Fingerprint, FingerprintError> {
        // The character first: a stray space or a `1` typed for an `l` also explains a wrong length.
        if let Some((index, character)) = text
            .chars()
            .enumerate()
            .find(|(_, c)| !matches!(c, 'a'..='z' | 'A'..='Z' | '2'..='7'))
        {
            return Err(FingerprintError::Character {
                character,
                position: index + 1,
            });
        }
        if text.len() != FINGERPRINT_CHARS {
            return Err(FingerprintError::Length { found: text.len() });
        }
        // 52 characters hold 260 bits, 4 more than there are: those must be zero, or one key had 16 spellings.
        let bytes = BASE32_NOPAD_NOCASE
            .decode(text.as_bytes())
            .map_err(|_| FingerprintError::LastCharacter)?;
        let bytes = bytes.try_into().map_err(|_| FingerprintError::LastCharacter)?;
        Ok(Fingerprint(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Fingerprint, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// Why a text is not a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Too short or too long.
    #[error(
        "not a fingerprint: it has {found} characters instead of 52 (copy the whole line that `driftless id` prints)"
    )]
    Length {
        /// Characters found.
        found: usize,
    },
    /// A character that base32 does not use.
    #[error(
        "not a fingerprint: {character:?} at position {position} cannot occur in one (only letters and the digits 2 to 7 do)"
    )]
    Character {
        /// The first wrong character.
        character: char,
        /// Its place, counted from 1.
        position: usize,
    },
    /// The last character says more than a fingerprint has bits.
    #[error(
        "not a fingerprint: its last character is mistyped (copy the whole line that `driftless id` prints)"
    )]
    LastCharacter,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_52_lower_case_characters_and_reads_any_case() {
        let fingerprint = Fingerprint::of_spki(b"key");
        let text = fingerprint.to_string();
        assert_eq!(text.len(), FINGERPRINT_CHARS);
        assert_eq!(text, text.to_ascii_lowercase());
        assert_eq!(format!("{fingerprint:?}"), text);
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(fingerprint));
    }

    /// Peers have these texts in their trust files: a change here breaks every pairing.
    #[test]
    fn is_plain_blake3_of_the_key() {
        let text = Fingerprint::of_spki(b"").to_string();
        assert_eq!(text, "v4jutopv7gq2nicajxvdnxgjjgn4wjojvxarfn6mtkj4vza7gjra");
    }

    #[test]
    fn says_what_is_wrong() {
        let good = Fingerprint::of_spki(b"key").to_string();
        let parse = |text: &str| text.parse::<Fingerprint>().unwrap_err();
        assert_eq!(parse(""), FingerprintError::Length { found: 0 });
        assert_eq!(parse(&good[1..]), FingerprintError::Length { found: 51 });
        assert_eq!(parse(&format!("{good}a")), FingerprintError::Length { found: 53 });
        assert_eq!(
            parse(&format!(" {good}")),
            FingerprintError::Character {
                character: ' ',
                position: 1
            }
        );
        assert_eq!(
            parse(&format!("ab1{}", &good[3..])),
            FingerprintError::Character {
                character: '1',
                position: 3
            }
        );
        assert_eq!(
            parse(&format!("é{}", &good[2..])),
            FingerprintError::Character {
                character: 'é',
                position: 1
            }
        );
        // `b` would set a bit beyond the 256.
        assert_eq!(
            parse(&format!("{}b", &good[..51])),
            FingerprintError::LastCharacter
        );
    }

    proptest! {
        #[test]
        fn round_trips(bytes: [u8; 32]) {
            let fingerprint = Fingerprint::from_bytes(bytes);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }

        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = text.parse::<Fingerprint>();
        }
    }
}
