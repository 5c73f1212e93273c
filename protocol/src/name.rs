//! Names and relative paths: bytes, checked once, when they enter the program.
//!
//! Nothing past the codec ever sees a name that could leave its directory. (Using a name can still meet a symbolic
//! link that somebody planted; the file system layer refuses to follow those.)

use crate::limits::{NAME_BYTES_MAX, PATH_ELEMENTS_MAX};
use bincode::de::{BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use std::fmt;
use thiserror::Error;

/// Prefix of the names that driftless keeps for itself in a tree: temporaries, parked objects, its generation file.
/// They are never sent and never deleted by a mirror.
pub const RESERVED_PREFIX: &[u8] = b".driftless";

/// Why bytes are not a usable name or path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NameFault {
    /// An empty element, also from a doubled or trailing slash.
    #[error("a name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("a name is `.` or `..`")]
    DotPart,
    /// A slash inside an element.
    #[error("a name holds a slash")]
    Slash,
    /// A zero byte.
    #[error("a name holds a zero byte")]
    Nul,
    /// Longer than a directory entry can be.
    #[error("a name has {bytes} bytes, more than {NAME_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// An absolute path where a relative one is wanted.
    #[error("the path is absolute")]
    Absolute,
    /// More elements than a path may have.
    #[error("the path has more than {PATH_ELEMENTS_MAX} elements")]
    TooDeep,
}

/// One element of a path: 1 to 255 bytes, no slash, no zero byte, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Name, NameFault> {
        let bytes = bytes.into();
        match &*bytes {
            [] => Err(NameFault::Empty),
            b"." | b".." => Err(NameFault::DotPart),
            b if b.len() > NAME_BYTES_MAX => Err(NameFault::TooLong { bytes: b.len() }),
            b if b.contains(&0) => Err(NameFault::Nul),
            b if b.contains(&b'/') => Err(NameFault::Slash),
            _ => Ok(Name(bytes)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the name is one that driftless keeps for itself.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

/// Shows a name as text: printable ASCII and letters as they are, everything a terminal or a log could trip over
/// escaped as `\n` or `\xHH`. A backslash is doubled, so the original bytes can be recovered.
pub fn escape(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.write_str("\\\\")?,
                '\n' => out.write_str("\\n")?,
                '\t' => out.write_str("\\t")?,
                '\r' => out.write_str("\\r")?,
                c if c.is_control() || is_bidirectional(c) => {
                    let mut buffer = [0; 4];
                    for byte in c.encode_utf8(&mut buffer).bytes() {
                        write!(out, "\\x{byte:02x}")?;
                    }
                }
                c => out.write_char(c)?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Characters that reorder or hide what a terminal shows around them.
pub fn is_bidirectional(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Encode for Name {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (*self.0).encode(encoder)
    }
}

impl<C> Decode<C> for Name {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Name, DecodeError> {
        let bytes = crate::codec::decode_bytes(decoder, NAME_BYTES_MAX)?;
        Name::new(bytes).map_err(|fault| DecodeError::OtherString(fault.to_string()))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Name {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Name, DecodeError> {
        Name::decode(decoder)
    }
}

/// A path below a root: zero or more names. The empty path is the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The root.
    pub fn root() -> RelPath {
        RelPath::default()
    }

    /// Parses `a/b/c`. Refuses everything that would need cleaning.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, NameFault> {
        if bytes.is_empty() {
            return Ok(RelPath::root());
        }
        if bytes[0] == b'/' {
            return Err(NameFault::Absolute);
        }
        let names = bytes
            .split(|&b| b == b'/')
            .map(Name::new)
            .collect::<Result<Vec<_>, _>>()?;
        RelPath::from_names(names)
    }

    /// A path made of names.
    pub fn from_names(names: Vec<Name>) -> Result<RelPath, NameFault> {
        if names.len() > PATH_ELEMENTS_MAX {
            return Err(NameFault::TooDeep);
        }
        Ok(RelPath(names))
    }

    /// This path with one more element. One that grows too deep this way can't be sent.
    pub fn join(&self, name: &Name) -> RelPath {
        let mut names = self.0.clone();
        names.push(name.clone());
        RelPath(names)
    }

    /// Its elements, from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, joined by slashes; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(".");
        }
        for (at, name) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("/")?;
            }
            fmt::Display::fmt(name, f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Encode for RelPath {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        crate::codec::encode_list(encoder, &self.0, PATH_ELEMENTS_MAX)
    }
}

impl<C> Decode<C> for RelPath {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<RelPath, DecodeError> {
        let names = crate::codec::decode_list(decoder, PATH_ELEMENTS_MAX)?;
        RelPath::from_names(names).map_err(|fault| DecodeError::OtherString(fault.to_string()))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for RelPath {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<RelPath, DecodeError> {
        RelPath::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-01: no odd name gets past the parser, whatever its position.
    #[test]
    fn s01_odd_names_are_refused() {
        let long = vec![b'a'; 256];
        let cases: [(&[u8], NameFault); 12] = [
            (b"/etc", NameFault::Absolute),
            (b"../etc", NameFault::DotPart),
            (b"a/../b", NameFault::DotPart),
            (b"a/..", NameFault::DotPart),
            (b"./a", NameFault::DotPart),
            (b"a/.", NameFault::DotPart),
            (b"a//b", NameFault::Empty),
            (b"a/", NameFault::Empty),
            (b"//", NameFault::Absolute),
            (b"a\0b", NameFault::Nul),
            (b"..", NameFault::DotPart),
            (&long, NameFault::TooLong { bytes: 256 }),
        ];
        for (bytes, fault) in cases {
            assert_eq!(
                RelPath::parse(bytes),
                Err(fault),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
        assert_eq!(Name::new(*b"a/b"), Err(NameFault::Slash));
    }

    #[test]
    fn ordinary_and_odd_but_legal_names_are_kept_to_the_byte() {
        for bytes in [
            &b"a"[..],
            b"...",
            b"-rf",
            b"a\nb",
            b"\xff\xfe",
            b"..a",
            b" ",
            &[b'x'; 255],
        ] {
            assert_eq!(Name::new(bytes).unwrap().as_bytes(), bytes);
        }
        assert_eq!(RelPath::parse(b"a/b").unwrap().to_bytes(), b"a/b");
    }

    #[test]
    fn s13_control_bytes_are_escaped_and_recoverable() {
        let shown = Name::new(&b"a\x1b[31m\n\\\xff\xc2\x9b"[..]).unwrap().to_string();
        assert_eq!(shown, "a\\x1b[31m\\n\\\\\\xff\\xc2\\x9b");
        assert_eq!(
            Name::new("x\u{202e}y".as_bytes()).unwrap().to_string(),
            "x\\xe2\\x80\\xaey"
        );
    }
}
