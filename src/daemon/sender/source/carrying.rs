//! What is carried of an object, and its extended attributes as the catalog has them.

use super::{Source, stamp_of};
use crate::daemon::ledger::{Ledger, flags};
use crate::daemon::receiver::{note_xattr_classes, own_carried, with_other_xattrs, xattr_classes};
use crate::daemon::sender::contents::Contents;
use crate::fs::{Directory, FoundXattrs, FsError, FsErrorKind, Stat};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::{Attributes, Carried, Digest, Kind, ObjectId, TreeSum, XattrClasses};

impl Source {
    /// What can be carried from here, whatever the target can hold.
    pub fn can_carry(&self) -> Carried {
        let own = own_carried(&self.root);
        Carried {
            xattrs: self.root.holds_xattrs(own.xattrs),
            leaves_root: self.leaves_root,
            ..own
        }
    }

    /// What the catalog speaks of until a target says what it can hold: what the last one could, or everything.
    pub fn expect_carried(&mut self) -> Result<(), StoreError> {
        let can = self.can_carry();
        let (is_new, known) = self
            .catalog
            .read(|view| Ok((view.get(ObjectId::ROOT)?.is_none(), xattr_classes(view)?)))?;
        let xattrs = if is_new {
            can.xattrs
        } else {
            known.common(can.xattrs)
        };
        // Whether devices count is decided again; the scan that follows finds them or buries them.
        self.set_carried(Carried { xattrs, ..can }).map(|_| ())
    }

    /// Sums up the catalog for these attributes, if that was not done already.
    ///
    /// True if the tree has to be scanned again: kinds of objects that were left out are carried now, or the other way
    /// round.
    pub fn set_carried(&mut self, carried: Carried) -> Result<bool, StoreError> {
        let is_other_kinds = self.is_summed && self.devices != carried.devices;
        self.devices = carried.devices;
        self.classes = carried.xattrs;
        let known = self.catalog.read(|view| xattr_classes(view))?;
        if known != carried.xattrs {
            let catalog = self.catalog.clone();
            catalog.update(true, |t| self.read_xattrs_again(t, known))?;
        }
        if !self.is_summed || self.ledger.carried() != carried {
            self.is_summed = true;
            self.ledger = Ledger::of_catalog(&self.catalog, carried)?;
            self.contents = Contents::default();
        }
        Ok(is_other_kinds)
    }

    /// Whether the target has another sum. What is believed from an earlier run is counted again before it counts as another.
    pub fn differs_from(&mut self, sum: TreeSum) -> Result<bool, StoreError> {
        if self.ledger.fold() != sum {
            self.ledger.count_again(&self.catalog)?;
        }
        Ok(self.ledger.unknown() > 0 || self.ledger.fold() != sum)
    }

    /// Has the catalog keep the sum for the next start, if it has none.
    pub fn keep_sum(&self) -> Result<(), StoreError> {
        match self.catalog.kept_sum()?.is_some() {
            true => Ok(()),
            false => self.catalog.update(true, |t| self.ledger.keep(t)),
        }
    }

    /// As what a mirror carries something, if it does.
    pub(super) fn kind_of(&self, stat: &Stat) -> Option<Kind> {
        stat.file_type
            .kind()
            .filter(|kind| self.devices || !kind.is_device())
    }

    /// Whether a file is a block device, whose size and times say nothing of its content.
    pub fn is_device(&mut self, catalog: &impl CatalogRead, entry: &Entry) -> Result<bool, StoreError> {
        if !self.root.takes_devices_for_files() {
            return Ok(false);
        }
        let handle = self.directory(catalog, entry.place.directory)?;
        let found = handle.and_then(|handle| handle.stat(&entry.place.name).ok().flatten());
        Ok(found.is_some_and(|stat| stat.is_device))
    }

    /// Other classes of extended attributes count from now on.
    fn read_xattrs_again(&mut self, t: &mut Tables<'_>, known: XattrClasses) -> Result<(), StoreError> {
        for object in with_other_xattrs(t, known, self.classes)? {
            let Some(mut entry) = t.get(object)? else { continue };
            let handle = match object {
                ObjectId::ROOT => Some(self.root.clone()),
                _ => self.directory(t, entry.place.directory)?,
            };
            let Some(handle) = handle else { continue };
            let digest = self.xattrs_of(&handle, &entry);
            if digest != entry.attributes.xattrs && self.is_as_at_the_start(&entry) {
                // What the target can hold is no change of the source.
                entry.attributes.xattrs = digest;
                self.put(t, &entry)?;
            } else if digest != entry.attributes.xattrs {
                entry.attributes.xattrs = digest;
                entry.flags |= flags::ATTRIBUTES;
                entry.sequence = t.next_sequence()?;
                self.put(t, &entry)?;
            }
        }
        note_xattr_classes(t, self.classes)
    }

    /// The digest of the extended attributes that an entry has now. `handle` is that of its directory, or its own if it
    /// is the root. What cannot be read is told once; a mirror then carries none of it.
    fn xattrs_of(&mut self, handle: &Directory, entry: &Entry) -> Option<Digest> {
        if self.classes.is_empty() {
            return None;
        }
        let found = match entry.object {
            ObjectId::ROOT => handle.self_xattrs(self.classes),
            _ => handle.xattrs(&entry.place.name, self.classes),
        };
        self.take_xattrs(found)
    }

    fn take_xattrs(&mut self, found: Result<FoundXattrs, FsError>) -> Option<Digest> {
        match found {
            Ok(found) => {
                self.foreign_xattrs += u64::from(found.others > 0);
                self.acl_owners.note(&found.xattrs);
                found.xattrs.digest()
            }
            Err(error) => {
                // What may not be read fails as a whole, and says so then.
                if !matches!(error.kind(), FsErrorKind::NotFound | FsErrorKind::Permission) {
                    self.warnings
                        .push(format!("{error}: it is mirrored without them"));
                }
                None
            }
        }
    }

    /// The attributes that an object has now: what `stat` says, and the extended ones, which are read if its ctime has
    /// moved since the catalog's entry was made.
    pub(super) fn attributes_now(&mut self, handle: &Directory, entry: &Entry, stat: &Stat) -> Attributes {
        // An ACL has the permissions of the mode, which may be shown as another than before.
        let unmoved = entry.attributes.mode == stat.attributes.mode
            && stamp_of(entry)
                .is_some_and(|known| known.same_object(&stat.stamp) && known.ctime == stat.stamp.ctime);
        let at_hand = self
            .xattrs_at_hand
            .take_if(|(stamp, _)| !unmoved && *stamp == stat.stamp);
        let xattrs = match at_hand {
            Some((_, found)) => self.take_xattrs(found),
            None if unmoved => entry.attributes.xattrs,
            None => self.xattrs_of(handle, entry),
        };
        Attributes {
            xattrs,
            ..stat.attributes.completed(&entry.attributes)
        }
    }
}
