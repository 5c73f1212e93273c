//! What a sender wants left as it is: decided by what stands on the disk when its op comes, not by an earlier listing.

use super::replica::{ApplyError, Replica};
use crate::fs::FileType;
use crate::store::{CatalogRead, Tables};
use driftless_protocol::message::{FailureKind, OpBody, Place, Sparing};
use driftless_protocol::{Kind, ObjectId, Timestamp};

impl Replica {
    /// Refuses an op about something that is to be left as it is. What stands there is no part of the mirror then.
    pub(super) fn spare(&mut self, t: &mut Tables<'_>, body: &OpBody) -> Result<(), ApplyError> {
        if self.sparing == Sparing::default() {
            return Ok(());
        }
        let mtime = body.attributes().map(|attributes| attributes.mtime);
        match body {
            OpBody::MakeDirectory { object, .. } if *object == ObjectId::ROOT => Ok(()),
            OpBody::MakeDirectory { place, object, .. } => {
                self.spare_at(t, place, *object, Kind::Directory, mtime)
            }
            OpBody::PutFile { place, object, .. } => self.spare_at(t, place, *object, Kind::File, mtime),
            OpBody::PutSymlink { place, object, .. } => {
                self.spare_at(t, place, *object, Kind::Symlink, mtime)
            }
            OpBody::PutSpecial {
                place,
                object,
                special,
                ..
            } => self.spare_at(t, place, *object, special.kind(), mtime),
            OpBody::Link {
                place, object, to, ..
            } => {
                let kind = t.get(*to)?.map_or(Kind::File, |entry| entry.kind);
                self.spare_at(t, place, *object, kind, mtime)
            }
            OpBody::Move { object, to } => match t.get(*object)?.filter(|entry| entry.place != *to) {
                Some(entry) => self.spare_at(t, to, *object, entry.kind, Some(entry.attributes.mtime)),
                None => Ok(()),
            },
            OpBody::SetAttributes { object, .. } => match t.get(*object)? {
                Some(entry) if entry.kind == Kind::File => {
                    self.spare_at(t, &entry.place, *object, entry.kind, mtime)
                }
                _ => Ok(()),
            },
            OpBody::Remove { .. }
            | OpBody::Release { .. }
            | OpBody::Adopt { .. }
            | OpBody::Mark { .. }
            | OpBody::Owners(_) => Ok(()),
        }
    }

    /// As [`Replica::spare`], for an object that is to stand at a place, with this time of modification.
    pub(super) fn spare_at(
        &mut self,
        t: &mut Tables<'_>,
        place: &Place,
        object: ObjectId,
        kind: Kind,
        mtime: Option<Timestamp>,
    ) -> Result<(), ApplyError> {
        if self.sparing == Sparing::default() {
            return Ok(());
        }
        let parent = self.directory(t, place.directory)?;
        let occupant = t.lookup(place.directory, &place.name)?;
        // What the mirror put there itself is its own to change; whether it came in this run is the sender's to know.
        let is_own = occupant == Some(object);
        let why = match parent.stat(&place.name)? {
            None if self.sparing.missing && !is_own => "is not there",
            Some(there)
                if self.sparing.existing
                    && !is_own
                    && !(kind == Kind::Directory && there.file_type == FileType::Directory) =>
            {
                "exists"
            }
            Some(there)
                if self.sparing.newer
                    && kind == Kind::File
                    && there.file_type == FileType::Regular
                    && mtime.is_some_and(|mtime| there.attributes.mtime > mtime) =>
            {
                "is newer"
            }
            _ => return Ok(()),
        };
        for number in [Some(object), occupant].into_iter().flatten() {
            if t.get(number)?.is_some_and(|entry| !entry.object.is_local()) {
                self.release(t, number)?;
            }
        }
        Err(ApplyError {
            kind: FailureKind::Withheld,
            text: format!("{} {why}, and is left as it is", parent.shown_name(&place.name)),
        })
    }
}
