//! Who the owners of the source are on the target's disk, asked as they turn up.

use crate::daemon::DaemonError;
use crate::daemon::sender::{OwnerKey, owner_messages, owner_rows};
use crate::engine::owners::{Owner, OwnerMap, OwnerRules, Unmapped};
use crate::net::SenderLink;
use driftless_protocol::message::{ToReceiver, ToSender};
use driftless_protocol::{Attributes, Digest, Xattrs};
use std::collections::{HashSet, VecDeque};

/// What is known of owners so far.
pub struct Owners<'a> {
    link: &'a SenderLink,
    rules: &'a OwnerRules,
    map: OwnerMap,
    known: HashSet<OwnerKey>,
    /// Messages that came before an answer that was waited for.
    waiting: VecDeque<ToSender>,
}

impl<'a> Owners<'a> {
    /// Nobody is known yet.
    pub fn new(link: &'a SenderLink, rules: &'a OwnerRules) -> Owners<'a> {
        Owners {
            link,
            rules,
            map: OwnerMap::default(),
            known: HashSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The next message about anything else; none when the link has ended.
    pub fn next_message(&mut self) -> Option<ToSender> {
        self.waiting
            .pop_front()
            .or_else(|| self.link.incoming().recv().ok())
    }

    /// Asks who these are on the target, if that was not asked yet.
    pub fn learn(&mut self, all: impl Iterator<Item = OwnerKey>) -> Result<(), DaemonError> {
        let news: Vec<OwnerKey> = all.filter(|&key| self.known.insert(key)).collect();
        let rows = owner_rows(self.rules, news).map_err(DaemonError::failed)?;
        for rows in owner_messages(rows) {
            let gone = || DaemonError::failed("the receiver is gone");
            self.link
                .control()
                .send(ToReceiver::Owners(rows))
                .map_err(|_| gone())?;
            let here = loop {
                match self.link.incoming().recv().map_err(|_| gone())? {
                    ToSender::Owners(here) => break here,
                    // Listings that were asked for before.
                    message => self.waiting.push_back(message),
                }
            };
            here.0.into_iter().for_each(|row| self.map.set(row));
        }
        Ok(())
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
