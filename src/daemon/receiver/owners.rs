//! What is carried, and the sender's owners in the terms of this disk.
//!
//! The catalog has the sender's numbers. They are mapped when attributes are set ([`Terms::metadata`]) and when the disk is
//! looked at ([`Terms::seen`]). The catalog keeps the map that it was written under; under another one, entries that belong to
//! somebody else by it get the number of that owner, and so differ from what the sender has.

use super::replica::{ApplyError, Replica, with_other_xattrs};
use crate::engine::owners::{NOBODY, Owner, OwnerMap, Unmapped};
use crate::fs::{Directory, Metadata, owner_id};
use crate::store::{CatalogRead, Entry, StoreError, Tables};
use driftless_protocol::message::FailureKind;
use driftless_protocol::{
    Attributes, Called, Carried, Digest, Name, ObjectId, OwnerHere, OwnerKind, OwnerName, OwnerRow,
    XattrClasses, Xattrs,
};
use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

/// Where the catalog has the map that it was written under.
pub const META_OWNERS: &str = "owners";

/// What is carried, and who the sender's owners are here. Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The attributes carried.
    pub carried: Carried,
    owners: Arc<RwLock<Arc<OwnerMap>>>,
}

impl Terms {
    /// What is carried, under a map.
    pub fn new(carried: Carried, owners: OwnerMap) -> Terms {
        Terms {
            carried,
            owners: Arc::new(RwLock::new(Arc::new(owners))),
        }
    }

    fn owners(&self) -> Arc<OwnerMap> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_owners(&self, owners: OwnerMap) {
        *self.owners.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(owners);
    }

    /// What an object on this disk is to get.
    pub fn metadata<'a>(
        &self,
        attributes: &'a Attributes,
        xattrs: Option<&'a Xattrs>,
    ) -> Result<Metadata<'a>, ApplyError> {
        let mut metadata = Metadata {
            xattrs: xattrs.map(Cow::Borrowed),
            ..Metadata::plain(attributes, self.carried)
        };
        if self.carried.owner {
            let owners = self.owners();
            metadata.owner = owners.here(owner_of(attributes))?;
            metadata.xattrs = xattrs.map(|xattrs| owners.xattrs_here(xattrs)).transpose()?;
        }
        Ok(metadata)
    }

    /// The digest of extended attributes that the disk shows, in the sender's terms.
    pub fn seen_xattrs(&self, found: &Xattrs) -> Option<Digest> {
        match self.carried.owner {
            true => self.owners().xattrs_theirs(found).digest(),
            false => found.digest(),
        }
    }

    /// As [`Terms::seen_xattrs`], of a name. What cannot be read counts as different from everything.
    pub fn xattrs_on_disk(&self, directory: &Directory, name: &Name) -> Option<Digest> {
        if self.carried.xattrs.is_empty() {
            return None;
        }
        match directory.xattrs(name, self.carried.xattrs) {
            Ok(found) => self.seen_xattrs(&found.xattrs),
            Err(error) => {
                tracing::debug!("{error}");
                Some(Digest::default())
            }
        }
    }

    /// Attributes that the disk shows, in the sender's terms. `expected` are those that the object should have, if that is
    /// known: several of the sender's owners may be one here.
    pub fn seen(&self, found: Attributes, expected: Option<&Attributes>) -> Attributes {
        let here = owner_of(&found);
        let owner = match (self.carried.owner, expected.map(owner_of)) {
            (true, expected) => self.owners().theirs(here, expected.unwrap_or(NOBODY_AT_ALL)),
            // They do not count, and are as good as right.
            (false, Some(expected)) => expected,
            (false, None) => here,
        };
        with_owner(found, owner)
    }
}

impl Replica {
    /// Changes who the sender's owners are here. What turns out to belong to somebody else is catalogued as such.
    pub fn set_owners(&mut self, t: &mut Tables<'_>, owners: OwnerMap) -> Result<(), StoreError> {
        let before = self.terms.owners();
        if *before == owners {
            return Ok(());
        }
        // Where owners are not carried, the catalog says nothing about the disk.
        if self.terms.carried.owner {
            let mut others = Vec::new();
            t.for_each(&mut |entry: Entry| {
                let known = owner_of(&entry.attributes);
                // What could not be set is not what the disk has.
                let owner = before
                    .here(known)
                    .map_or(NOBODY_AT_ALL, |here| owners.theirs(here, known));
                if owner != known {
                    others.push((entry.object, owner));
                }
                Ok(())
            })?;
            for (object, owner) in others {
                if let Some(mut entry) = t.get(object)? {
                    entry.attributes = with_owner(entry.attributes, owner);
                    self.put(t, &entry)?;
                }
            }
        }
        t.set_meta(META_OWNERS, &owners.to_bytes())?;
        self.terms.set_owners(owners);
        // ACLs may name somebody else now, too.
        match self.terms.carried.owner && self.terms.carried.xattrs.contains(XattrClasses::ACL) {
            true => self.read_acls_again(t),
            false => Ok(()),
        }
    }

    /// The digests of extended attributes are those of the disk, in the sender's terms.
    fn read_acls_again(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        let classes = self.terms.carried.xattrs;
        for object in with_other_xattrs(t, classes, classes)? {
            self.read_xattrs_of(t, object, classes)?;
        }
        Ok(())
    }

    /// Some more of the sender's owners were named.
    pub fn name_owners(&mut self, t: &mut Tables<'_>, rows: &[OwnerRow]) -> Result<(), ApplyError> {
        if !self.terms.carried.owner {
            return Ok(());
        }
        let mut owners = OwnerMap::clone(&self.terms.owners());
        for row in rows {
            owners.set(resolve(row)?);
        }
        Ok(self.set_owners(t, owners)?)
    }

    /// Owners count from now on, and did not before: the catalog gets those of the disk.
    pub fn read_owners_again(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        let mut objects: Vec<ObjectId> = Vec::new();
        t.for_each(&mut |entry: Entry| {
            objects.push(entry.object);
            Ok(())
        })?;
        for object in objects {
            let Some(mut entry) = t.get(object)? else { continue };
            let found = match object {
                ObjectId::ROOT => self.root.stat_self().map(Some).map_err(ApplyError::from),
                _ => self
                    .directory(t, entry.place.directory)
                    .and_then(|parent| Ok(parent.stat(&entry.place.name)?)),
            };
            // What cannot be seen belongs to nobody, and is set again.
            let owner = found.ok().flatten().map_or(NOBODY_AT_ALL, |stat| {
                owner_of(&self.terms.seen(stat.attributes, Some(&entry.attributes)))
            });
            if owner != owner_of(&entry.attributes) {
                entry.attributes = with_owner(entry.attributes, owner);
                t.put(&entry)?;
            }
        }
        Ok(())
    }
}

const NOBODY_AT_ALL: Owner = Owner {
    uid: NOBODY,
    gid: NOBODY,
};

/// The map that the sender's names make here. The text says why they make none: a name that must exist does not, or the
/// users of this machine cannot be asked.
pub fn map_of(rows: &[OwnerRow]) -> Result<OwnerMap, String> {
    let mut map = OwnerMap::default();
    for row in rows {
        let here = resolve(row).map_err(|error| error.text)?;
        if let (None, Called::Given(name)) = (here.here, &row.called) {
            return Err(format!(
                "there is no {} {name} here, to whom the sender wants to give something: make it, or name another",
                row.kind
            ));
        }
        map.set(here);
    }
    Ok(map)
}

/// What one of the sender's users or groups is here.
pub fn resolve(row: &OwnerRow) -> Result<OwnerHere, ApplyError> {
    let find = |kind: OwnerKind, name: &OwnerName| {
        owner_id(kind, name).map_err(|error| ApplyError {
            kind: FailureKind::Io,
            text: format!("cannot look up the {kind} {name}: {error}"),
        })
    };
    let here = match &row.called {
        Called::Name(name) => Some(find(row.kind, name)?.unwrap_or(row.id)),
        Called::Given(name) => find(row.kind, name)?,
        Called::Number(number) => Some(*number),
    };
    Ok(OwnerHere {
        kind: row.kind,
        id: row.id,
        here,
    })
}

impl From<Unmapped> for ApplyError {
    fn from(unmapped: Unmapped) -> ApplyError {
        ApplyError {
            kind: FailureKind::Unsupported,
            text: unmapped.to_string(),
        }
    }
}

fn owner_of(attributes: &Attributes) -> Owner {
    Owner {
        uid: attributes.uid,
        gid: attributes.gid,
    }
}

fn with_owner(attributes: Attributes, Owner { uid, gid }: Owner) -> Attributes {
    Attributes {
        uid,
        gid,
        ..attributes
    }
}
