//! Who the owners of the source are on the target's disk, asked as they turn up.

use super::Survey;
use super::far::{Far, Side, gone};
use crate::daemon::DaemonError;
use crate::daemon::receiver::resolve_owner;
use crate::daemon::sender::{OwnerKey, owner_keys, owner_messages, owner_rows};
use crate::engine::owners::{Owner, OwnerMap, OwnerRules, Unmapped, acl_owners};
use driftless_protocol::message::{ToReceiver, ToSender};
use driftless_protocol::{Attributes, Digest, OwnerHere, Owners, Xattrs};
use std::collections::HashSet;

/// What is known of owners so far.
#[derive(Debug)]
pub(super) struct Known {
    rules: OwnerRules,
    map: OwnerMap,
    asked: HashSet<OwnerKey>,
}

impl Known {
    /// Nobody is known yet.
    pub(super) fn new(rules: &OwnerRules) -> Known {
        Known {
            rules: rules.clone(),
            map: OwnerMap::default(),
            asked: HashSet::new(),
        }
    }
}

impl Far {
    /// Asks who these are on the target, if that counts and was not asked yet.
    pub(super) fn learn(&mut self, keys: impl IntoIterator<Item = OwnerKey>) -> Result<(), DaemonError> {
        if !self.carried().owner {
            return Ok(());
        }
        let keys = keys.into_iter();
        let news: Vec<OwnerKey> = keys.filter(|&key| self.owners.asked.insert(key)).collect();
        let rows = owner_rows(&self.owners.rules, news).map_err(DaemonError::failed)?;
        for rows in owner_messages(rows) {
            for row in self.resolve(rows)? {
                self.owners.map.set(row);
            }
        }
        Ok(())
    }

    fn resolve(&mut self, rows: Owners) -> Result<Vec<OwnerHere>, DaemonError> {
        if !matches!(self.side, Side::Receiver(_)) {
            let here = rows.0.iter().map(resolve_owner);
            return here
                .collect::<Result<_, _>>()
                .map_err(|error| DaemonError::failed(error.text));
        }
        // Answers come in the order of questions.
        self.take_all_answers()?;
        let Side::Receiver(link) = &self.side else {
            return Ok(Vec::new());
        };
        let sent = link.control().send(ToReceiver::Owners(rows));
        sent.map_err(|_| gone(link))?;
        match link.incoming().recv() {
            Ok(ToSender::Owners(here)) => Ok(here.0),
            Ok(_) => Err(DaemonError::failed(
                "the receiver broke the protocol when it was asked for users and groups",
            )),
            Err(_) => Err(gone(link)),
        }
    }

    /// Attributes of something here with the owner that it is to have on the target.
    fn owned(&self, attributes: Attributes) -> Result<Attributes, Unmapped> {
        if !self.carried().owner {
            return Ok(attributes);
        }
        let Attributes { uid, gid, .. } = attributes;
        let Owner { uid, gid } = self.owners.map.here(Owner { uid, gid })?;
        Ok(Attributes {
            uid,
            gid,
            ..attributes
        })
    }
}

impl Survey<'_> {
    /// Attributes of something here as they are to be on the target; none, and the run refused, if they cannot be.
    pub(super) fn attributes_there(
        &mut self,
        attributes: Attributes,
    ) -> Result<Option<Attributes>, DaemonError> {
        self.far.learn(owner_keys(&attributes))?;
        match self.far.owned(attributes) {
            Ok(there) => Ok(Some(there)),
            Err(error) => {
                self.refuse_owner(&error);
                Ok(None)
            }
        }
    }

    /// The digest of extended attributes as they are to be on the target, where ACLs may name others. `Err` and the run refused
    /// if they cannot be.
    pub(super) fn xattrs_there(
        &mut self,
        xattrs: &Xattrs,
    ) -> Result<Result<Option<Digest>, Unmapped>, DaemonError> {
        if !self.far.carried().owner {
            return Ok(Ok(xattrs.digest()));
        }
        self.far.learn(acl_owners(xattrs))?;
        let there = self.far.owners.map.xattrs_here(xattrs);
        let there = there.map(|xattrs| xattrs.digest());
        if let Err(error) = &there {
            self.refuse_owner(error);
        }
        Ok(there)
    }

    /// A run names all users and groups before anything else, and is refused.
    fn refuse_owner(&mut self, error: &Unmapped) {
        let Unmapped { kind, id } = error;
        let text = format!(
            "{}: there is no {kind} there who could stand for the number {id} here: nothing would be sent and nothing \
             deleted; make it, or name another",
            self.options.target
        );
        self.report.refusal.get_or_insert(text);
        self.report.does_nothing = true;
    }
}
