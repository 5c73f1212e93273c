//! Carrying out single ops on a replica.
//!
//! Every deed changes the disk first and the catalog after it. A path that is replaced is, at every moment, its old
//! or its new self: files by rename, everything else by exchange. What stood in the way and has a number of its own
//! is *parked* under a private name, because its own op (a move or a removal) is still to come. A directory that moves never
//! has such a name, where two names can be exchanged: it trades places with what is in its way, and that is parked then.

mod moving;
mod numbers;
mod put;
mod sources;

pub(super) use moving::{ignore_missing, unpark_in};
pub use sources::CopySource;

use super::displaced::{discard_aside, is_unmoved};
use super::inplace::Written;
use super::replica::{ApplyError, Replica, catalogue, cheap_digest, is_same_state, kind_of, local_entry};
use crate::fs::{
    Applied, Directory, FileType, FsError, FsErrorKind, Metadata, RenameMode, Staged, Stamp, Stat,
    is_parked_name, parked_name, private_name, unparked_name,
};
use crate::store::{CatalogRead, Entry, Tables};
use driftless_protocol::message::{FailureKind, Place};
use driftless_protocol::{Attributes, Digest, EntrySum, Kind, Name, ObjectId, Special, Xattrs};
use std::sync::Arc;

type Outcome = Result<(), ApplyError>;

/// A file whose content is complete, verified, and has its attributes; only its name is missing.
#[derive(Debug)]
pub struct StagedFile {
    /// The file.
    pub staged: Staged,
    /// Its size in bytes.
    pub size: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
    /// The attributes it was given.
    pub attributes: Attributes,
    /// Why it has other extended attributes than it should.
    pub refused: Option<ApplyError>,
    /// The file system that it is on.
    pub device: u64,
    /// Whether its content is on stable storage already.
    pub is_flushed: bool,
}

/// What the catalog is to have of an object that was given attributes: those that were wanted (a time that the file
/// system stores more coarsely is still the one that was carried), unless something was refused; then those that it has.
pub fn settled(wanted: Attributes, applied: Applied) -> (Attributes, Option<ApplyError>) {
    match applied.refused {
        None => (wanted, None),
        Some((error, xattrs)) => {
            let attributes = Attributes {
                mode: applied.stat.attributes.mode,
                xattrs,
                ..wanted
            };
            (attributes, Some(error.into()))
        }
    }
}

/// What was done ends well, or with what was refused.
fn ended(refused: Option<ApplyError>) -> Outcome {
    refused.map_or(Ok(()), Err)
}

impl Replica {
    /// Makes a directory, or adopts, moves and adjusts the one that is there.
    pub fn make_directory(
        &mut self,
        t: &mut Tables<'_>,
        place: Place,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Outcome {
        if object == ObjectId::ROOT {
            return self.set_attributes(t, object, attributes, xattrs);
        }
        if t.get(object)?.is_some_and(|entry| entry.kind == Kind::Directory) {
            self.move_object(t, object, place, |_| None)?;
            return self.set_attributes(t, object, attributes, xattrs);
        }
        check_kind(t, object, Kind::Directory)?;
        let occupant = self.occupant(t, &place)?;
        if let Some(entry) = occupant
            .as_ref()
            .filter(|e| e.kind == Kind::Directory && e.object.is_local())
        {
            self.relabel(t, entry.object, object)?;
            return self.set_attributes(t, object, attributes, xattrs);
        }
        let wanted = self.wanted(&attributes, xattrs)?;
        let parent = self.writable_directory(t, place.directory)?;
        let made = match parent.make_dir(&place.name) {
            Ok(made) => made,
            Err(error) if error.kind() == FsErrorKind::Exists && occupant.is_none() => {
                return self.admit(t, &parent, &place);
            }
            Err(error) if error.kind() == FsErrorKind::Exists => {
                let aside = self.aside_name(&place.name, occupant.as_ref());
                let made = parent.make_dir(&aside)?;
                self.install_new(t, &parent, &aside, &place, occupant.as_ref())?;
                made
            }
            Err(error) => return Err(error.into()),
        };
        let applied = made.set_self_metadata(&wanted)?;
        let mut entry = local_entry(object, Kind::Directory, place, &applied.stat, None);
        let (attributes, refused) = settled(attributes, applied);
        entry.attributes = attributes;
        self.touched.insert(object);
        self.unsynced.insert(object);
        self.put(t, &entry)?;
        ended(refused)
    }

    /// These attributes, as far as they are carried.
    fn wanted<'a>(&self, attributes: &'a Attributes, xattrs: &'a Xattrs) -> Result<Metadata<'a>, ApplyError> {
        self.terms.metadata(attributes, Some(xattrs))
    }

    /// Sets the attributes of an object.
    pub fn set_attributes(
        &mut self,
        t: &mut Tables<'_>,
        object: ObjectId,
        attributes: Attributes,
        xattrs: &Xattrs,
    ) -> Outcome {
        let mut entry = self.known(t, object)?;
        let wanted = self.wanted(&attributes, xattrs)?;
        let applied = if object == ObjectId::ROOT {
            self.root.set_self_metadata(&wanted)?
        } else {
            let parent = self.directory(t, entry.place.directory)?;
            let stat = self.fresh_stat(&parent, &entry.place.name)?;
            let known = entry.stamp.and_then(|known| Stamp::from_bytes(&known));
            if known.is_some_and(|known| !known.same_object(&stat.stamp)) {
                let text = format!("{}/{} was replaced by another", parent.shown(), entry.place.name);
                if kind_of(stat.file_type) == Some(entry.kind) && entry.kind != Kind::Directory {
                    // Its content is unknown until the sender compares again.
                    let link = cheap_digest(&parent, &entry.place.name, &stat)?;
                    let mut found = local_entry(object, entry.kind, entry.place, &stat, link);
                    found.attributes = self.terms.seen(found.attributes, Some(&attributes));
                    found.attributes.xattrs = self.terms.xattrs_on_disk(&parent, &found.place.name);
                    self.put(t, &found)?;
                }
                return Err(ApplyError::mismatch(text));
            }
            if self.keeper.refuses() && entry.kind != Kind::Directory {
                self.look(t, &parent, &entry.place.name, Some(&entry), None)?;
            }
            doubt(&mut entry, &stat);
            let (was, is) = (entry.attributes.link_group, attributes.link_group);
            let leaves_group = (was != is && !(was.is_local() && is != ObjectId(0)))
                || ((self.is_version || self.publishing.shares(&stat)) && is == ObjectId(0));
            let applied = match entry.kind != Kind::Directory && stat.links > 1 && leaves_group {
                true => {
                    let parent = self.writable_directory(t, entry.place.directory)?;
                    unshare(&parent, &entry, &stat, &wanted)?
                }
                false => parent.set_metadata(&entry.place.name, entry.kind, &wanted)?,
            };
            self.publishing.note_set(&stat.stamp, &applied.stat.stamp);
            entry.stamp = Some(applied.stat.stamp.to_bytes());
            applied
        };
        let (attributes, refused) = settled(attributes, applied);
        entry.attributes = attributes;
        self.unsynced.insert(if entry.kind == Kind::Directory {
            object
        } else {
            entry.place.directory
        });
        self.put(t, &entry)?;
        ended(refused)
    }

    /// What the catalog has at a place, as a failed op reports it.
    pub fn held(&self, t: &impl CatalogRead, place: &Place) -> Option<(ObjectId, EntrySum)> {
        let object = t.lookup(place.directory, &place.name).ok()??;
        let entry = t.get(object).ok()??;
        let sum = crate::daemon::ledger::counted(&entry, self.terms.carried)?;
        Some((object, sum))
    }

    /// The catalog's entry at a place.
    pub fn occupant(&self, t: &impl CatalogRead, place: &Place) -> Result<Option<Entry>, ApplyError> {
        match t.lookup(place.directory, &place.name)? {
            Some(object) => Ok(t.get(object)?),
            None => Ok(None),
        }
    }

    fn known(&self, t: &impl CatalogRead, object: ObjectId) -> Result<Entry, ApplyError> {
        t.get(object)?
            .ok_or_else(|| ApplyError::mismatch(format!("there is no object of number {}", object.0)))
    }

    pub(super) fn fresh_stat(&self, directory: &Directory, name: &Name) -> Result<Stat, ApplyError> {
        directory.stat(name)?.ok_or_else(|| ApplyError {
            kind: FailureKind::Mismatch,
            text: format!("{}/{name} vanished while it was changed", directory.shown()),
        })
    }
}

/// Gives a name that shares its object with others an object of its own, with the same content.
fn unshare(
    parent: &Arc<Directory>,
    entry: &Entry,
    stat: &Stat,
    wanted: &Metadata<'_>,
) -> Result<Applied, ApplyError> {
    let name = &entry.place.name;
    match stat.file_type {
        FileType::Symlink => Ok(parent.make_symlink(&parent.read_link(name)?, name, wanted)?),
        FileType::Special(special) => Ok(parent.make_special(special, name, wanted)?),
        _ => {
            let (basis, basis_stat) = parent.open_file(name)?;
            let staged = Staged::create(parent.clone())?;
            staged.copy_from(&basis, 0, 0, basis_stat.size)?;
            staged.set_len(basis_stat.size)?;
            let applied = staged.set_metadata(wanted)?;
            staged.sync()?;
            let stat = staged.publish(name)?.stat;
            Ok(Applied { stat, ..applied })
        }
    }
}

/// A number stands for one object, and no object ever becomes another kind.
fn check_kind(t: &impl CatalogRead, object: ObjectId, kind: Kind) -> Outcome {
    match t.get(object)?.filter(|entry| entry.kind != kind) {
        Some(entry) => Err(ApplyError::mismatch(format!(
            "number {} is taken by a {:?}",
            object.0, entry.kind
        ))),
        None => Ok(()),
    }
}

/// A file that is not as it was catalogued was edited here: its content is not known until it is compared.
fn doubt(entry: &mut Entry, stat: &Stat) {
    if entry.kind == Kind::File && !is_same_state(entry, stat) {
        entry.digest = None;
    }
}
