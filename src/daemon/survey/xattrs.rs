//! Which extended attributes differ: ACLs, which have a letter of their own, or others.

use super::Survey;
use crate::daemon::DaemonError;
use crate::engine::itemize::Differences;
use crate::fs::Directory;
use driftless_protocol::message::Row;
use driftless_protocol::{Digest, Name, RelPath, XattrClasses};
use std::collections::HashMap;

/// Digests of a directory's entries on the target, apart for ACLs and for the rest.
#[derive(Debug)]
pub(super) struct Split {
    acls: HashMap<Name, Option<Digest>>,
    others: HashMap<Name, Option<Digest>>,
}

/// One entry in its directory here.
#[derive(Clone, Copy)]
struct Entry<'a> {
    path: &'a RelPath,
    directory: &'a Directory,
    name: &'a Name,
}

impl Survey<'_> {
    /// Tells ACLs from other attributes, by further listings of the directory where there is a difference at all.
    pub(super) fn compare_xattrs(
        &mut self,
        path: &RelPath,
        directory: &Directory,
        row: &Row,
        split: &mut Option<Split>,
        differences: &mut Differences,
    ) -> Result<(), DaemonError> {
        let name = &row.name;
        let entry = Entry {
            path,
            directory,
            name,
        };
        match self.xattrs_here(entry, self.classes)? {
            Some(here) if here != row.attributes.xattrs => {}
            _ => return Ok(()),
        }
        let acls = self.classes.common(XattrClasses::ACL);
        let others = XattrClasses(self.classes.0 & !acls.0);
        if split.is_none() {
            *split = Some(Split {
                acls: self.digests_there(path, acls)?,
                others: self.digests_there(path, others)?,
            });
        }
        let Some(split) = split else { return Ok(()) };
        differences.acl = self.xattrs_here(entry, acls)? != split.acls.get(name).copied();
        differences.xattrs = self.xattrs_here(entry, others)? != split.others.get(name).copied();
        Ok(())
    }

    /// The digest of an entry's attributes of these classes as they are to be there; none, and reported, if that cannot be told.
    fn xattrs_here(
        &mut self,
        entry: Entry<'_>,
        classes: XattrClasses,
    ) -> Result<Option<Option<Digest>>, DaemonError> {
        match entry.directory.xattrs(entry.name, classes) {
            Ok(found) => Ok(self.xattrs_there(&found.xattrs)?.ok()),
            Err(error) => {
                self.unreadable(&entry.path.join(entry.name), &error.to_string());
                Ok(None)
            }
        }
    }

    /// The digests of extended attributes of these classes in a directory of the target; none of what it cannot list.
    fn digests_there(
        &mut self,
        path: &RelPath,
        classes: XattrClasses,
    ) -> Result<HashMap<Name, Option<Digest>>, DaemonError> {
        let rows = self.far.rows(path, classes, false)?.unwrap_or_default();
        let digests = rows.into_iter().map(|row| (row.name, row.attributes.xattrs));
        Ok(digests.collect())
    }
}
