//! Who the owners of the source are on the target's disk, asked as they turn up.

use crate::daemon::DaemonError;
use crate::daemon::sender::{OwnerKey, owner_messages, owner_rows};
use crate::engine::owners::{Owner, OwnerMap, OwnerRules, Unmapped};
use driftless_protocol::{Attributes, Digest, OwnersHere, Xattrs};
use std::collections::HashSet;

/// What is known of owners so far.
pub struct Owners<'a> {
    rules: &'a OwnerRules,
    map: OwnerMap,
    known: HashSet<OwnerKey>,
}

impl<'a> Owners<'a> {
    /// Nobody is known yet.
    pub fn new(rules: &'a OwnerRules) -> Owners<'a> {
        Owners {
            rules,
            map: OwnerMap::default(),
            known: HashSet::new(),
        }
    }

    /// What is to be asked to know who these are on the target: nothing about those who were asked for already.
    pub fn questions(
        &mut self,
        all: impl Iterator<Item = OwnerKey>,
    ) -> Result<Vec<driftless_protocol::Owners>, DaemonError> {
        let news: Vec<OwnerKey> = all.filter(|&key| self.known.insert(key)).collect();
        let rows = owner_rows(self.rules, news).map_err(DaemonError::failed)?;
        Ok(owner_messages(rows).collect())
    }

    /// Notes the answer to a question.
    pub fn note(&mut self, here: OwnersHere) {
        here.0.into_iter().for_each(|row| self.map.set(row));
    }

    /// The digest of extended attributes with those whom ACLs name as they are on the target.
    pub fn xattrs_there(&self, xattrs: &Xattrs) -> Result<Option<Digest>, Unmapped> {
        Ok(self.map.xattrs_here(xattrs)?.digest())
    }

    /// Who the owner of something here is on the target.
    pub fn there(&self, attributes: &Attributes) -> Result<Owner, Unmapped> {
        let Attributes { uid, gid, .. } = *attributes;
        self.map.here(Owner { uid, gid })
    }
}
