//! What a sender calls the owners and groups whose numbers are in attributes.
//!
//! Attributes carry numbers, as they are at the sender, and sums are over these numbers. What they mean on the
//! receiver's disk is said here, once for each number: a receiver maps only when it sets an owner or looks at one.

use crate::codec::{decode_bytes, decode_list, encode_list};
use crate::limits::{OWNER_NAME_BYTES_MAX, OWNERS_MAX};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode as DeriveDecode, Encode};
use std::fmt;

/// Whether a number is that of a user or of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, DeriveDecode)]
pub enum OwnerKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OwnerKind::User => "user",
            OwnerKind::Group => "group",
        })
    }
}

/// The name of a user or group: 1 to 255 bytes without a zero byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerName(Vec<u8>);

impl OwnerName {
    /// A name; says why the bytes are none.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<OwnerName, &'static str> {
        let name = OwnerName(bytes.into());
        name.check().map(|()| name)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn check(&self) -> Result<(), &'static str> {
        match self.0.as_slice() {
            [] => Err("the name of a user or group is empty"),
            name if name.contains(&0) => Err("the name of a user or group has a zero byte"),
            name if name.len() > OWNER_NAME_BYTES_MAX => Err("the name of a user or group is too long"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::name::escape(&self.0, f)
    }
}

impl fmt::Debug for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Encode for OwnerName {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.check().map_err(EncodeError::Other)?;
        encode_list(encoder, &self.0, OWNER_NAME_BYTES_MAX)
    }
}

impl<C> Decode<C> for OwnerName {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        OwnerName::new(decode_bytes(decoder, OWNER_NAME_BYTES_MAX)?).map_err(DecodeError::Other)
    }
}

impl<'de, C> BorrowDecode<'de, C> for OwnerName {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        OwnerName::decode(decoder)
    }
}

/// What stands for a number of the sender's on the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub enum Called {
    /// The user or group of this name there; the number as it is if there is none.
    Name(OwnerName),
    /// The user or group of this name there, which must exist: somebody asked for it.
    Given(OwnerName),
    /// This number.
    Number(u32),
}

/// What the sender calls one of its users or groups.
#[derive(Debug, Clone, PartialEq, Eq, Encode, DeriveDecode)]
pub struct OwnerRow {
    /// User or group.
    pub kind: OwnerKind,
    /// Its number in attributes.
    pub id: u32,
    /// What stands for it on the receiver.
    pub called: Called,
}

/// What a number of the sender's is on the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, DeriveDecode)]
pub struct OwnerHere {
    /// User or group.
    pub kind: OwnerKind,
    /// Its number in attributes.
    pub id: u32,
    /// Its number on the receiver's disk; none if it must have a name that is missing there.
    pub here: Option<u32>,
}

macro_rules! list {
    ($(#[$doc:meta])* $name:ident, $element:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name(pub Vec<$element>);

        impl Encode for $name {
            fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
                encode_list(encoder, &self.0, OWNERS_MAX)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                decode_list(decoder, OWNERS_MAX).map($name)
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
                Self::decode(decoder)
            }
        }
    };
}

list! {
    /// Some of the sender's users and groups. A number that is in none means itself.
    Owners, OwnerRow
}
list! {
    /// What the receiver made of [`Owners`], row by row.
    OwnersHere, OwnerHere
}
