//! The bytes of the state's records. Each begins with a version, and nothing may follow the last field.

use super::record::{Reader, put_name, put_varint};
use super::{Binding, Failed, StoreError};
use driftless_protocol::message::Cursor;
use driftless_protocol::{Carried, EntrySum, ObjectId, TreeSum, XattrClasses};

const VERSION: u8 = 1;

/// Reads one record: version, then what `fields` takes, then the end.
fn decode<T>(
    what: &str,
    bytes: &[u8],
    fields: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, StoreError> {
    let mut reader = Reader::new(bytes);
    let value = reader
        .byte()
        .filter(|version| *version == VERSION)
        .and_then(|_| fields(&mut reader));
    value
        .filter(|_| reader.is_done())
        .ok_or_else(|| StoreError::damaged(format!("{what} makes no sense")))
}

/// Version, incarnation, sequence, sum.
pub(super) fn encode_cursor(cursor: Cursor) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(cursor.incarnation.to_be_bytes());
    out.extend(cursor.sequence.to_be_bytes());
    out.extend(cursor.sum.0);
    out
}

pub(super) fn decode_cursor(bytes: &[u8]) -> Result<Cursor, StoreError> {
    decode("a cursor", bytes, |reader| {
        Some(Cursor {
            incarnation: u128::from_be_bytes(reader.array()?),
            sequence: u64::from_be_bytes(reader.array()?),
            sum: TreeSum(reader.array()?),
        })
    })
}

/// Version, kind, since, tries, directory, name, text (length first), and perhaps object and sum of what is held.
pub(super) fn encode_failed(failed: &Failed) -> Vec<u8> {
    let mut out = vec![VERSION, failed.kind];
    put_varint(&mut out, failed.since);
    put_varint(&mut out, failed.tries.into());
    put_varint(&mut out, failed.place.directory.0);
    put_name(&mut out, &failed.place.name);
    put_text(&mut out, &failed.text);
    if let Some((object, sum)) = failed.held {
        put_varint(&mut out, object.0);
        out.extend(sum.0);
    }
    out
}

pub(super) fn decode_failed(object: ObjectId, bytes: &[u8]) -> Result<Failed, StoreError> {
    decode("a failed object", bytes, |reader| {
        let kind = reader.byte()?;
        let since = reader.varint()?;
        let tries = reader.varint()?.try_into().ok()?;
        let place = reader.place()?;
        let text = text(reader)?;
        let held = match reader.is_done() {
            true => None,
            false => Some((ObjectId(reader.varint()?), EntrySum(reader.array()?))),
        };
        Some(Failed {
            object,
            place,
            kind,
            text,
            held,
            since,
            tries,
            refused: None,
        })
    })
}

/// Version, mirror, peer, carried (bit 0: owner; 1 to 5: classes of extended attributes; 6: devices; 7: not the root), generation, source.
pub(super) fn encode_binding(binding: &Binding) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(binding.mirror.to_be_bytes());
    out.extend(binding.peer);
    let Carried {
        owner,
        xattrs,
        devices,
        leaves_root,
    } = binding.carried;
    out.push(u8::from(owner) | xattrs.0 << 1 | u8::from(devices) << 6 | u8::from(leaves_root) << 7);
    put_varint(&mut out, binding.generation);
    put_text(&mut out, &binding.source);
    out
}

pub(super) fn decode_binding(bytes: &[u8]) -> Result<Binding, StoreError> {
    decode("the binding", bytes, |reader| {
        Some(Binding {
            mirror: u128::from_be_bytes(reader.array()?),
            peer: reader.array()?,
            carried: {
                let bits = reader.byte()?;
                Carried {
                    owner: bits & 1 == 1,
                    xattrs: XattrClasses(bits >> 1 & XattrClasses::ALL.0),
                    devices: bits >> 6 & 1 == 1,
                    leaves_root: bits >> 7 == 1,
                }
            },
            generation: reader.varint()?,
            source: text(reader)?,
        })
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Option<String> {
    let length = reader.varint()?.try_into().ok()?;
    String::from_utf8(reader.bytes(length)?.to_vec()).ok()
}
