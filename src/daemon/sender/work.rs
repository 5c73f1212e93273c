//! What an object needs next, by its flags; and what an acknowledgement makes of them.

use super::owners::OwnerKey;
use super::source::{Source, stamp_of};
use crate::daemon::ledger::flags;
use crate::daemon::verbs;
use crate::fs::Stamp;
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::limits::INLINE_CONTENT_BYTES_MAX;
use driftless_protocol::message::{OpBody, Place};
use driftless_protocol::{Attributes, Digest, Kind, ObjectId};

/// A smaller file is sent whole when it changes alone: that takes half a round trip.
pub const DELTA_BYTES_MIN: u64 = 64 << 10;

/// A smaller file is sent whole also among many, which another round trip does not hold up: a delta would take as many bytes.
pub const DELTA_AMONG_MANY_BYTES_MIN: u64 = 8 << 10;

/// With so many changes still to be sent, a round trip more for one of them is nothing that anybody waits for.
pub const MANY: usize = 256;

/// What an op that was sent does.
#[derive(Debug, Clone)]
pub enum InFlight {
    /// A directory is made.
    Make {
        object: ObjectId,
        attributes: Attributes,
    },
    /// Attributes are set.
    Attributes {
        object: ObjectId,
        attributes: Attributes,
    },
    /// An object moves.
    Move { object: ObjectId, place: Place },
    /// A symbolic link, a pipe or a device is put.
    Link {
        object: ObjectId,
        digest: Digest,
        attributes: Attributes,
    },
    /// A place becomes another name of what the target has. Digest and stamp are those of the group, and `sequence` was the
    /// number of its change.
    HardLink {
        object: ObjectId,
        sequence: u64,
        place: Place,
        digest: Digest,
        stamp: Option<Stamp>,
        attributes: Attributes,
    },
    /// A file's content is put. Digest and stamp are those of the content as it was read, and `sequence` was the number of
    /// its change before that.
    Content {
        object: ObjectId,
        sequence: u64,
        place: Place,
        digest: Option<Digest>,
        stamp: Option<Stamp>,
        attributes: Attributes,
    },
    /// An offer that came to nothing.
    Withdrawn { object: ObjectId },
    /// Something is removed, or left behind.
    Remove {
        object: ObjectId,
        place: Place,
        kind: Kind,
        is_left: bool,
    },
    /// What the target has gets its number.
    Adopt { object: ObjectId },
    /// A mark.
    Mark,
    /// Users and groups are named.
    Owners { told: Vec<OwnerKey> },
}

impl InFlight {
    /// The object that is busy with it.
    pub fn object(&self) -> Option<ObjectId> {
        match self {
            InFlight::Make { object, .. }
            | InFlight::Attributes { object, .. }
            | InFlight::Move { object, .. }
            | InFlight::Link { object, .. }
            | InFlight::HardLink { object, .. }
            | InFlight::Content { object, .. }
            | InFlight::Withdrawn { object } => Some(*object),
            InFlight::Remove { .. } | InFlight::Adopt { .. } | InFlight::Mark | InFlight::Owners { .. } => {
                None
            }
        }
    }

    /// The extended attributes that went with it.
    pub fn set_xattrs(&mut self, xattrs: Option<Digest>) {
        if let InFlight::Make { attributes, .. }
        | InFlight::Attributes { attributes, .. }
        | InFlight::Link { attributes, .. }
        | InFlight::HardLink { attributes, .. }
        | InFlight::Content { attributes, .. } = self
        {
            attributes.xattrs = xattrs;
        }
    }

    /// What was done, for the list of applied changes.
    pub fn verb(&self) -> &'static str {
        match self {
            InFlight::Make { .. } => verbs::MADE,
            InFlight::Attributes { .. } => verbs::CHANGED,
            InFlight::Move { .. } => verbs::MOVED,
            InFlight::Link { .. } | InFlight::Content { .. } => verbs::PUT,
            InFlight::HardLink { .. } => verbs::LINKED,
            InFlight::Withdrawn { .. } => verbs::GAVE_UP,
            InFlight::Remove { .. } => verbs::REMOVED,
            InFlight::Adopt { .. } => verbs::RECOGNISED,
            InFlight::Mark => verbs::MARKED,
            InFlight::Owners { .. } => verbs::NAMED,
        }
    }
}

/// The next step for an object.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for one match")]
pub enum Next {
    /// The target has it as it is.
    Nothing,
    /// An op that needs nothing read.
    Op(OpBody, InFlight),
    /// Look at a link's text or a device's number and send it.
    Link,
    /// Read a small file, decide then.
    Read,
    /// Digest a file of any size, decide then.
    Digest,
    /// Offer a file without reading it.
    Offer,
}

/// Decides what an object needs. A file that would not hold still for a whole read is offered instead.
pub fn next(entry: &Entry, unstable: bool) -> Next {
    let (object, place, attributes) = (entry.object, entry.place.clone(), entry.attributes);
    let has = |flag: u8| entry.flags & flag != 0;
    let on_target = has(flags::ON_TARGET);
    if on_target && has(flags::MOVED) {
        return Next::Op(
            OpBody::Move {
                object,
                to: place.clone(),
            },
            InFlight::Move { object, place },
        );
    }
    let adjust = || {
        if has(flags::ATTRIBUTES) {
            let flight = InFlight::Attributes { object, attributes };
            Next::Op(OpBody::SetAttributes { object, attributes }, flight)
        } else {
            Next::Nothing
        }
    };
    match entry.kind {
        _ if object == ObjectId::ROOT => adjust(),
        Kind::Directory if on_target => adjust(),
        Kind::Directory => Next::Op(
            OpBody::MakeDirectory {
                place,
                object,
                attributes,
            },
            InFlight::Make { object, attributes },
        ),
        Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice if on_target => adjust(),
        Kind::Symlink | Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => Next::Link,
        Kind::File if on_target && !has(flags::STALE) && entry.digest.is_some() => adjust(),
        Kind::File if unstable => Next::Offer,
        Kind::File if entry.size < DELTA_BYTES_MIN => Next::Read,
        Kind::File if entry.size <= INLINE_CONTENT_BYTES_MAX as u64 && !on_target => Next::Read,
        Kind::File if has(flags::OFFER) || (on_target && entry.digest.is_some()) => Next::Digest,
        Kind::File => Next::Offer,
    }
}

/// An object of which an op was applied.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// The object.
    pub object: ObjectId,
    /// The target has it as it is: nothing else has to be done for it, unless it changed meanwhile.
    pub is_settled: bool,
}

/// An op was applied: writes down what the target holds now. Returns the object if all is well with it.
pub fn acknowledge(
    source: &mut Source,
    t: &mut Tables<'_>,
    flight: &InFlight,
) -> Result<Option<Acknowledged>, StoreError> {
    let Some(object) = flight.object() else {
        return Ok(None);
    };
    let Some(mut entry) = t.get(object)? else {
        return Ok(Some(Acknowledged {
            object,
            is_settled: true,
        }));
    };
    match flight {
        InFlight::Make { attributes, .. } => {
            entry.flags |= flags::ON_TARGET;
            settle_attributes(&mut entry, attributes);
        }
        InFlight::Attributes { attributes, .. } => settle_attributes(&mut entry, attributes),
        InFlight::Move { place, .. } => {
            if entry.place == *place {
                entry.flags &= !flags::MOVED;
            }
            // A rename changes nothing else, but the directory's time moved.
            entry.flags |= flags::ATTRIBUTES;
        }
        InFlight::Link {
            digest, attributes, ..
        } => {
            if entry.digest == Some(*digest) {
                entry.flags |= flags::ON_TARGET;
            }
            settle_attributes(&mut entry, attributes);
        }
        InFlight::HardLink {
            sequence,
            digest,
            stamp,
            attributes,
            place,
            ..
        } => {
            let current = stamp_of(&entry) == *stamp && entry.sequence <= *sequence;
            if current {
                entry.flags &= !flags::PARTED;
            }
            if entry.kind == Kind::File {
                entry.digest = Some(*digest);
                entry.flags &= !(flags::OFFER | flags::STALE);
                entry.flags |= if current {
                    flags::ON_TARGET
                } else {
                    flags::ON_TARGET | flags::STALE
                };
            } else if entry.digest == Some(*digest) {
                entry.flags |= flags::ON_TARGET;
            }
            if entry.place != *place {
                entry.flags |= flags::MOVED;
            }
            settle_attributes(&mut entry, attributes);
        }
        InFlight::Content {
            sequence,
            digest,
            stamp,
            attributes,
            place,
            ..
        } => {
            entry.flags |= flags::ON_TARGET;
            entry.flags &= !flags::OFFER;
            entry.digest = *digest;
            // What was told after the read began is not in it, though times may look as if it were.
            let current = stamp.is_some() && stamp_of(&entry) == *stamp && entry.sequence <= *sequence;
            if digest.is_some() && current {
                entry.flags &= !flags::STALE;
            } else {
                entry.flags |= flags::STALE;
            }
            if entry.place != *place {
                entry.flags |= flags::MOVED;
            }
            source.contents.note(&entry);
            settle_attributes(&mut entry, attributes);
        }
        // Read again: under a new number, so that a cursor never passes it by.
        InFlight::Withdrawn { .. } => {
            entry.sequence = t.next_sequence()?;
            source.put(t, &entry)?;
            return Ok(None);
        }
        InFlight::Remove { .. } | InFlight::Adopt { .. } | InFlight::Mark | InFlight::Owners { .. } => {
            return Ok(None);
        }
    }
    entry.flags &= !flags::WITHHELD;
    source.put(t, &entry)?;
    Ok(Some(Acknowledged {
        object,
        is_settled: matches!(next(&entry, false), Next::Nothing),
    }))
}

fn settle_attributes(entry: &mut Entry, sent: &Attributes) {
    if entry.attributes == *sent {
        entry.flags &= !flags::ATTRIBUTES;
    } else {
        entry.flags |= flags::ATTRIBUTES;
    }
}
