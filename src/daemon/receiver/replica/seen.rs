//! What the disk shows, as the catalog has it, and whether that is what the catalog knows.

use super::*;

/// The kind of a file type that is mirrored.
pub fn kind_of(file_type: FileType) -> Option<Kind> {
    file_type.kind()
}

pub(in super::super) fn is_as_catalogued(entry: &Entry, stat: &Stat, terms: &Terms) -> bool {
    is_catalogued_as(entry, stat, &terms.seen(stat.attributes, Some(&entry.attributes)))
}

/// Nothing happened to it since: it is the owner who was not looked at then, or is called otherwise here by now.
pub(super) fn is_as_catalogued_but_for_owner(entry: &Entry, stat: &Stat) -> bool {
    let seen = Attributes {
        uid: entry.attributes.uid,
        gid: entry.attributes.gid,
        ..stat.attributes
    };
    is_catalogued_as(entry, stat, &seen)
}

fn is_catalogued_as(entry: &Entry, stat: &Stat, seen: &Attributes) -> bool {
    let same_attributes = entry.attributes.told_by_stat() == *seen;
    same_attributes
        && match entry.kind {
            // A directory's times move with its inside; that is looked at anyway. But what else moves its ctime is not told.
            Kind::Directory => stamp_of(entry)
                .is_some_and(|known| known.same_object(&stat.stamp) && known.ctime == stat.stamp.ctime),
            _ => is_same_state(entry, stat),
        }
}

pub(super) fn stamp_of(entry: &Entry) -> Option<Stamp> {
    entry.stamp.and_then(|bytes| Stamp::from_bytes(&bytes))
}

/// An entry as the disk shows it.
pub fn local_entry(object: ObjectId, kind: Kind, place: Place, stat: &Stat, digest: Option<Digest>) -> Entry {
    let attributes = Attributes {
        link_group: local_group(stat),
        ..stat.attributes
    };
    let stamp = Some(stat.stamp.to_bytes());
    Entry {
        object,
        kind,
        place,
        attributes,
        size: stat.size,
        digest,
        stamp,
        sequence: 0,
        flags: 0,
    }
}

/// The digest of a link's text or of a device number, which is cheap to know; none for anything else.
pub fn cheap_digest(directory: &Directory, name: &Name, stat: &Stat) -> Result<Option<Digest>, FsError> {
    Ok(match stat.file_type {
        FileType::Symlink => Some(Digest::of(&directory.read_link(name)?)),
        FileType::Special(special) => Some(special.digest()),
        _ => None,
    })
}

/// The hard-link group of something on this disk with several names that no sender has told of: by its inode.
pub fn local_group(stat: &Stat) -> ObjectId {
    match stat.links > 1 && stat.file_type != FileType::Directory {
        true => ObjectId(ObjectId::FIRST_LOCAL.0 | stat.stamp.inode),
        false => ObjectId(0),
    }
}

/// Whether something is as it was when it was catalogued. The ctime of what has several names moves with each of them;
/// its names are looked at one by one.
pub fn is_same_state(entry: &Entry, stat: &Stat) -> bool {
    if entry.attributes.link_group == ObjectId(0) {
        return entry.stamp == Some(stat.stamp.to_bytes());
    }
    stamp_of(entry).is_some_and(|known| {
        known
            == Stamp {
                ctime: known.ctime,
                ..stat.stamp
            }
    })
}
