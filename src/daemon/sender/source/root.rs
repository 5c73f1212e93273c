//! Whether the source is the tree of the last run.

use super::Source;
use crate::daemon::DaemonError;
use crate::daemon::roots::{self, RootIdentity};
use crate::store::CatalogRead;
use driftless_protocol::ObjectId;
use std::path::Path;

/// What ext4 makes in the root of every file system: a tree without anything else is an empty one.
const LOST_AND_FOUND: &[u8] = b"lost+found";

impl Source {
    /// Refuses a root that was not meant: another directory than before, or an empty one where there was a tree.
    /// Nothing is sent, so nothing is deleted. `accept`: the user says that it is meant; so does an approval.
    pub fn check_root(&mut self, accept: bool, target: &str) -> Result<(), DaemonError> {
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let identity = RootIdentity::of(&self.root).map_err(|error| failed(&error))?;
        let known = self.state.source_identity().map_err(|error| failed(&error))?;
        let known = known.and_then(|bytes| RootIdentity::from_bytes(&bytes));
        let home = self.state.path().parent().unwrap_or(Path::new(".")).to_owned();
        let path = self.path.display();
        let doubt = match known {
            Some(known) if !known.is_of(&identity) => Some(
                "is another directory than at the last run (moved, recreated, or on another file system)",
            ),
            _ if self.is_emptied()? => {
                Some("is empty, but was not at the last run (is a file system not mounted?)")
            }
            _ => None,
        };
        if let Some(doubt) = doubt
            && !accept
            && !roots::is_approved(&home, &identity)
        {
            roots::refuse(&home, &[path.to_string(), target.to_owned()], &identity);
            return Err(DaemonError::failed(format!(
                "{path} {doubt}: nothing was sent and nothing deleted; if that is right, run \
                 `driftless approve --root {path}`, or once with --accept-root"
            )));
        }
        self.state
            .set_source_identity(&identity.to_bytes())
            .map_err(|error| failed(&error))?;
        roots::settle(&home);
        Ok(())
    }

    /// Whether the root is empty and was not at the last run.
    fn is_emptied(&self) -> Result<bool, DaemonError> {
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let listing = self.root.list().map_err(|error| failed(&error))?;
        if !listing
            .entries
            .iter()
            .all(|(name, _)| name.as_bytes() == LOST_AND_FOUND)
        {
            return Ok(false);
        }
        let before = self.catalog.read(|view| view.child_entries(ObjectId::ROOT));
        let before = before.map_err(|error| failed(&error))?;
        Ok(before
            .iter()
            .any(|entry| entry.place.name.as_bytes() != LOST_AND_FOUND))
    }
}
