//! Extended attributes: their classes, and the bounded, sorted set of them that one object has.

use crate::codec::{decode_bytes, decode_list, encode_list};
use crate::entry::Digest;
use crate::limits::{XATTR_NAME_BYTES_MAX, XATTR_SET_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_MAX};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

/// Name of the access ACL of an object.
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the ACL that a directory hands down.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// Name of the capabilities of a program file.
pub const CAPABILITY: &[u8] = b"security.capability";

/// A set of classes of extended attributes. An attribute that is in no class is never carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, bincode::Encode, bincode::Decode)]
pub struct XattrClasses(pub u8);

impl XattrClasses {
    /// None at all.
    pub const NONE: XattrClasses = XattrClasses(0);
    /// `user.*`.
    pub const USER: XattrClasses = XattrClasses(1);
    /// POSIX ACLs: `system.posix_acl_access` and `system.posix_acl_default`.
    pub const ACL: XattrClasses = XattrClasses(2);
    /// `security.capability`.
    pub const CAPABILITY: XattrClasses = XattrClasses(4);
    /// All other `security.*`: labels of security modules.
    pub const SECURITY: XattrClasses = XattrClasses(8);
    /// `trusted.*`, which only root sees.
    pub const TRUSTED: XattrClasses = XattrClasses(16);
    /// What a receiver takes unless it is told to take more.
    pub const USUAL: XattrClasses = XattrClasses(1 | 2 | 4);
    /// Everything that has a class.
    pub const ALL: XattrClasses = XattrClasses(1 | 2 | 4 | 8 | 16);

    /// The class of an attribute; [`XattrClasses::NONE`] for one that is never carried.
    pub fn of(name: &[u8]) -> XattrClasses {
        match name {
            ACL_ACCESS | ACL_DEFAULT => XattrClasses::ACL,
            CAPABILITY => XattrClasses::CAPABILITY,
            _ if name.len() > b"user.".len() && name.starts_with(b"user.") => XattrClasses::USER,
            _ if name.len() > b"security.".len() && name.starts_with(b"security.") => XattrClasses::SECURITY,
            _ if name.len() > b"trusted.".len() && name.starts_with(b"trusted.") => XattrClasses::TRUSTED,
            _ => XattrClasses::NONE,
        }
    }

    /// Whether this set has all of `other`.
    pub fn contains(self, other: XattrClasses) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether an attribute of this name is among these classes.
    pub fn admits(self, name: &[u8]) -> bool {
        XattrClasses::of(name).0 & self.0 != 0
    }

    /// What both sets have. Bits of a newer peer that are not known here go.
    pub fn common(self, other: XattrClasses) -> XattrClasses {
        XattrClasses(self.0 & other.0 & XattrClasses::ALL.0)
    }

    /// What either set has.
    pub fn union(self, other: XattrClasses) -> XattrClasses {
        XattrClasses(self.0 | other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == XattrClasses::NONE
    }
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name: 1 to 255 bytes without a zero byte.
    pub name: Vec<u8>,
    /// Its value, 64 KiB at most.
    pub value: Vec<u8>,
}

impl Xattr {
    fn check(&self) -> Result<(), &'static str> {
        match self.name.as_slice() {
            [] => Err("an extended attribute has no name"),
            name if name.contains(&0) => Err("the name of an extended attribute has a zero byte"),
            _ => Ok(()),
        }
    }
}

impl Encode for Xattr {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.check().map_err(EncodeError::Other)?;
        encode_list(encoder, &self.name, XATTR_NAME_BYTES_MAX)?;
        encode_list(encoder, &self.value, XATTR_VALUE_BYTES_MAX)
    }
}

impl<C> Decode<C> for Xattr {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let xattr = Xattr {
            name: decode_bytes(decoder, XATTR_NAME_BYTES_MAX)?,
            value: decode_bytes(decoder, XATTR_VALUE_BYTES_MAX)?,
        };
        xattr.check().map_err(DecodeError::Other)?;
        Ok(xattr)
    }
}

/// The extended attributes of an object, in byte order of their names, none twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Xattrs(Vec<Xattr>);

impl Xattrs {
    /// Sorts attributes into a set; says why they are none.
    pub fn new(mut list: Vec<Xattr>) -> Result<Xattrs, &'static str> {
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list.iter().try_for_each(Xattr::check)?;
        let too_long = |xattr: &Xattr| {
            xattr.name.len() > XATTR_NAME_BYTES_MAX || xattr.value.len() > XATTR_VALUE_BYTES_MAX
        };
        if list.len() > XATTRS_MAX || list.iter().any(too_long) {
            return Err("more or longer extended attributes than can be carried");
        }
        let xattrs = Xattrs(list);
        xattrs.check()?;
        Ok(xattrs)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.bytes() > XATTR_SET_BYTES_MAX {
            return Err("the extended attributes of an object are over their limit");
        }
        match self.0.windows(2).all(|pair| pair[0].name < pair[1].name) {
            true => Ok(()),
            false => Err("extended attributes are out of order"),
        }
    }

    /// The attributes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Xattr> {
        self.0.iter()
    }

    /// The value of an attribute.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self
            .0
            .binary_search_by(|xattr| xattr.name.as_slice().cmp(name))
            .ok()?;
        Some(&self.0[at].value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0
            .iter()
            .map(|xattr| xattr.name.len() + xattr.value.len())
            .sum()
    }

    /// The digest that stands for the set in [`Attributes`](crate::Attributes); none for an empty one.
    ///
    /// BLAKE3 over, for each attribute: length of the name (2 bytes), name, length of the value (4 bytes), value;
    /// lengths big endian.
    pub fn digest(&self) -> Option<Digest> {
        let mut hasher = blake3::Hasher::new();
        for xattr in &self.0 {
            hasher.update(&(xattr.name.len() as u16).to_be_bytes());
            hasher.update(&xattr.name);
            hasher.update(&(xattr.value.len() as u32).to_be_bytes());
            hasher.update(&xattr.value);
        }
        (!self.is_empty()).then(|| Digest(hasher.finalize().into()))
    }
}

impl Encode for Xattrs {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.check().map_err(EncodeError::Other)?;
        encode_list(encoder, &self.0, XATTRS_MAX)
    }
}

impl<C> Decode<C> for Xattrs {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let xattrs = Xattrs(decode_list(decoder, XATTRS_MAX)?);
        xattrs.check().map_err(DecodeError::Other)?;
        Ok(xattrs)
    }
}

impl<'de, C> BorrowDecode<'de, C> for Xattrs {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr {
            name: name.as_bytes().to_vec(),
            value: value.to_vec(),
        }
    }

    #[test]
    fn names_have_classes() {
        for (name, class) in [
            ("user.a", XattrClasses::USER),
            ("user.", XattrClasses::NONE),
            ("user", XattrClasses::NONE),
            ("system.posix_acl_access", XattrClasses::ACL),
            ("system.posix_acl_default", XattrClasses::ACL),
            ("system.nfs4_acl", XattrClasses::NONE),
            ("security.capability", XattrClasses::CAPABILITY),
            ("security.selinux", XattrClasses::SECURITY),
            ("trusted.overlay.opaque", XattrClasses::TRUSTED),
            ("btrfs.compression", XattrClasses::NONE),
        ] {
            assert_eq!(XattrClasses::of(name.as_bytes()), class, "{name}");
        }
        assert!(!XattrClasses::USUAL.admits(b"trusted.a") && XattrClasses::ALL.admits(b"trusted.a"));
        assert_eq!(XattrClasses(0xff).common(XattrClasses(0xff)), XattrClasses::ALL);
    }

    #[test]
    fn a_set_has_one_digest_whatever_its_order() {
        let (a, b) = (xattr("user.a", b"1"), xattr("user.b", b""));
        let set = Xattrs::new(vec![a.clone(), b.clone()]).unwrap();
        assert_eq!(set, Xattrs::new(vec![b.clone(), a.clone()]).unwrap());
        assert_eq!(set.get(b"user.b"), Some(&b""[..]));
        assert_eq!(Xattrs::default().digest(), None);
        // A byte that wanders from a name into a value makes another set.
        let one = Xattrs::new(vec![xattr("user.ab", b"c")]).unwrap();
        let other = Xattrs::new(vec![xattr("user.a", b"bc")]).unwrap();
        assert_ne!(one.digest(), other.digest());
        assert!(Xattrs::new(vec![a.clone(), a]).is_err());
        assert!(Xattrs::new(vec![xattr("user.a\0", b"")]).is_err());
    }
}
