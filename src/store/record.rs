//! The bytes of records.
//!
//! An object's record, version 2 (`v` = LEB128, little groups first):
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | version, 2 |
//! | 1 | kind in bits 0 to 3; bit 4: digest follows; bit 5: stamp follows; bit 6: digest of xattrs follows; bit 7: hard-link group follows |
//! | 1 | flags |
//! | v, v, v | directory, sequence, size |
//! | v, v, v | mode, uid, gid |
//! | v, v | mtime seconds (zigzag), nanoseconds |
//! | 1 + n | name |
//! | 32 | digest, if any |
//! | 32 | digest of the extended attributes, if any |
//! | v | hard-link group, if any |
//! | 8 + n | stamp, if any: a bit for each byte that is not zero, lowest first, then those bytes |
//!
//! The object's number is the key, not in the record, so that `relabel` copies bytes. Nothing may follow the last field.
//! Small numbers come first and most are small: 40 to 60 bytes without stamp and digest, some 120 with both.

use super::StoreError;
use driftless_protocol::message::Place;
use driftless_protocol::{Attributes, Digest, Kind, Name, ObjectId, Timestamp};

/// Bytes of a [`Stamp`].
pub const STAMP_BYTES: usize = 64;

/// What identifies the state of an object on the local disk, so that a stat tells whether it may have changed. Only
/// its maker knows the layout, except that it begins with device and inode, 8 bytes each, big endian.
pub type Stamp = [u8; STAMP_BYTES];

/// The "directory" that a tree's root directory is in.
pub const NOWHERE: ObjectId = ObjectId(0);

/// The place to give to the entry of a root directory: it has none, but every entry has the field.
pub fn root_place() -> Place {
    Place {
        directory: NOWHERE,
        name: Name::new(*b"root").expect("a plain name"),
    }
}

/// What the catalog knows of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub object: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
    /// Its attributes.
    pub attributes: Attributes,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Digest of the content or the link text, where known.
    pub digest: Option<Digest>,
    /// How it looked on the local disk when last seen.
    pub stamp: Option<Stamp>,
    /// Its place in the journal; 0 for none.
    pub sequence: u64,
    /// Bits that mean something to the owner of the catalog.
    pub flags: u8,
}

/// Device and inode of a stamp.
pub(super) fn inode_of(stamp: &Stamp) -> (u64, u64) {
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| stamp[at + i]));
    (word(0), word(8))
}

const VERSION: u8 = 2;
/// Of a tombstone; 1 had no number of entries.
const TOMBSTONE_VERSION: u8 = 2;
const KIND: u8 = 15;
const HAS_DIGEST: u8 = 1 << 4;
const HAS_STAMP: u8 = 1 << 5;
const HAS_XATTRS: u8 = 1 << 6;
const HAS_GROUP: u8 = 1 << 7;

/// Writes the record of `entry` into `out`, which is emptied first.
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    let digest = if entry.digest.is_some() { HAS_DIGEST } else { 0 };
    let stamp = if entry.stamp.is_some() { HAS_STAMP } else { 0 };
    let xattrs = if entry.attributes.xattrs.is_some() {
        HAS_XATTRS
    } else {
        0
    };
    let group = if entry.attributes.link_group == ObjectId(0) {
        0
    } else {
        HAS_GROUP
    };
    out.extend([
        VERSION,
        entry.kind as u8 | digest | stamp | xattrs | group,
        entry.flags,
    ]);
    put_varint(out, entry.place.directory.0);
    put_varint(out, entry.sequence);
    put_varint(out, entry.size);
    let attributes = &entry.attributes;
    put_varint(out, attributes.mode.into());
    put_varint(out, attributes.uid.into());
    put_varint(out, attributes.gid.into());
    let seconds = attributes.mtime.seconds();
    put_varint(out, ((seconds << 1) ^ (seconds >> 63)) as u64);
    put_varint(out, attributes.mtime.nanoseconds().into());
    put_name(out, &entry.place.name);
    if let Some(digest) = entry.digest {
        out.extend(digest.0);
    }
    if let Some(xattrs) = attributes.xattrs {
        out.extend(xattrs.0);
    }
    if group != 0 {
        put_varint(out, attributes.link_group.0);
    }
    if let Some(stamp) = entry.stamp {
        let bits = stamp
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte != 0)
            .fold(0u64, |bits, (at, _)| bits | 1 << at);
        out.extend(bits.to_le_bytes());
        out.extend(stamp.iter().filter(|byte| **byte != 0));
    }
}

/// Reads the record of `object`.
pub(super) fn decode_entry(object: ObjectId, bytes: &[u8]) -> Result<Entry, StoreError> {
    let mut reader = Reader::new(bytes);
    entry_fields(object, &mut reader)
        .filter(|_| reader.is_done())
        .ok_or_else(|| StoreError::damaged(format!("the record of object {} makes no sense", object.0)))
}

fn entry_fields(object: ObjectId, reader: &mut Reader<'_>) -> Option<Entry> {
    if reader.byte()? != VERSION {
        return None;
    }
    let bits = reader.byte()?;
    let kind = kind_from(bits & KIND)?;
    let flags = reader.byte()?;
    let directory = ObjectId(reader.varint()?);
    let sequence = reader.varint()?;
    let size = reader.varint()?;
    let mode = reader.varint()?.try_into().ok()?;
    let uid = reader.varint()?.try_into().ok()?;
    let gid = reader.varint()?.try_into().ok()?;
    let zigzag = reader.varint()?;
    let seconds = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let mtime = Timestamp::new(seconds, reader.varint()?.try_into().ok()?)?;
    let name = reader.name()?;
    let digest = match bits & HAS_DIGEST {
        0 => None,
        _ => Some(Digest(reader.array()?)),
    };
    let xattrs = match bits & HAS_XATTRS {
        0 => None,
        _ => Some(Digest(reader.array()?)),
    };
    let link_group = match bits & HAS_GROUP {
        0 => ObjectId(0),
        _ => ObjectId(reader.varint()?),
    };
    let stamp = match bits & HAS_STAMP {
        0 => None,
        _ => Some(reader.stamp()?),
    };
    Some(Entry {
        object,
        kind,
        place: Place { directory, name },
        attributes: Attributes {
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            link_group,
        },
        size,
        digest,
        stamp,
        sequence,
        flags,
    })
}

/// The record of a tombstone: version, kind, object, entries, directory, name.
pub(super) fn encode_tombstone(object: ObjectId, place: &Place, kind: Kind, entries: u64) -> Vec<u8> {
    let mut out = vec![TOMBSTONE_VERSION, kind as u8];
    put_varint(&mut out, object.0);
    put_varint(&mut out, entries);
    put_varint(&mut out, place.directory.0);
    put_name(&mut out, &place.name);
    out
}

/// Reads the record of a tombstone.
pub(super) fn decode_tombstone(bytes: &[u8]) -> Result<(ObjectId, Place, Kind, u64), StoreError> {
    let mut reader = Reader::new(bytes);
    let fields = |reader: &mut Reader<'_>| {
        if reader.byte()? != TOMBSTONE_VERSION {
            return None;
        }
        let kind = kind_from(reader.byte()?)?;
        let object = ObjectId(reader.varint()?);
        let entries = reader.varint()?;
        Some((object, reader.place()?, kind, entries))
    };
    fields(&mut reader)
        .filter(|_| reader.is_done())
        .ok_or_else(|| StoreError::damaged("a tombstone makes no sense"))
}

pub(super) fn kind_from(byte: u8) -> Option<Kind> {
    match byte {
        0 => Some(Kind::File),
        1 => Some(Kind::Directory),
        2 => Some(Kind::Symlink),
        3 => Some(Kind::Fifo),
        4 => Some(Kind::CharDevice),
        5 => Some(Kind::BlockDevice),
        _ => None,
    }
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_name(out: &mut Vec<u8>, name: &Name) {
    let bytes = name.as_bytes();
    out.push(u8::try_from(bytes.len()).expect("a name has at most 255 bytes"));
    out.extend(bytes);
}

/// Takes fields off the front of a record; `None` when they are not there.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    pub(super) fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            if (group << shift) >> shift != group {
                return None;
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn name(&mut self) -> Option<Name> {
        let length = self.byte()?;
        Name::new(self.bytes(length.into())?).ok()
    }

    pub(super) fn place(&mut self) -> Option<Place> {
        let directory = ObjectId(self.varint()?);
        Some(Place {
            directory,
            name: self.name()?,
        })
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let mut bits = u64::from_le_bytes(self.array()?);
        let mut stamp = [0; STAMP_BYTES];
        for &byte in self.bytes(bits.count_ones() as usize)? {
            stamp[bits.trailing_zeros() as usize] = byte;
            // The lowest bit is done.
            bits &= bits - 1;
        }
        Some(stamp)
    }
}
