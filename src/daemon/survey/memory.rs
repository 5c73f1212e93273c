//! What the sender knows of earlier runs, read and left as it is.

use super::Survey;
use crate::daemon::home::Home;
use crate::daemon::roots::RootIdentity;
use crate::daemon::sender::DELETES;
use crate::daemon::{DaemonError, Deletes, SenderOptions};
use crate::store::State;
use driftless_protocol::{RelPath, XattrClasses};

/// What the sender remembers of earlier runs.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// What the user said becomes of what only the target has.
    pub(super) decision: Option<Vec<u8>>,
    /// Which directory the source was.
    root: Option<RootIdentity>,
}

impl Memory {
    pub(super) fn of(options: &SenderOptions) -> Memory {
        let key = Home::mirror_key(&options.source, &options.target.display);
        let file = options.home.mirror_place(&key).join("state.redb");
        // Opening would make it.
        if !file.exists() {
            return Memory::default();
        }
        match State::open(&file) {
            Ok(state) => Memory {
                decision: state.value(DELETES).ok().flatten(),
                root: state
                    .source_identity()
                    .ok()
                    .flatten()
                    .and_then(|bytes| RootIdentity::from_bytes(&bytes)),
            },
            // Of a daemon that holds it, it is enough to know that it got beyond first contact.
            Err(_) => Memory {
                decision: Some(b"always".to_vec()),
                root: None,
            },
        }
    }

    pub(super) fn keeps_extras(&self, options: &SenderOptions) -> bool {
        match options.deletes {
            Deletes::Ask => self.decision.as_deref() == Some(b"never"),
            Deletes::Always | Deletes::Startup => false,
            Deletes::Never | Deletes::Running => true,
        }
    }
}

impl Survey<'_> {
    /// Why a run would not even begin: the source is not what it was.
    pub(super) fn refuses_root(&mut self, memory: &Memory) -> Result<Option<String>, DaemonError> {
        let (accepts, path) = (self.options.accept_root, self.options.source.display());
        let Some(known) = memory.root.as_ref().filter(|_| !accepts) else {
            return Ok(None);
        };
        let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
        let now = RootIdentity::of(&self.root).map_err(|error| failed(&error))?;
        if !known.is_of(&now) {
            return Ok(Some(format!(
                "{path} is another directory than at the last run (moved, recreated, or on another file system): nothing \
                 would be sent and nothing deleted; if that is right, look with --accept-root"
            )));
        }
        let is_empty = self
            .root
            .list()
            .map_err(|error| failed(&error))?
            .entries
            .is_empty();
        if !is_empty || !self.far.is_there() {
            return Ok(None);
        }
        let there = self.far.rows(&RelPath::root(), XattrClasses::NONE, false)?;
        Ok(there.is_ok_and(|rows| !rows.is_empty()).then(|| {
            format!(
                "{path} is empty, but the target is not (is a file system not mounted?): nothing would be sent and nothing \
                 deleted; if that is right, look with --accept-root"
            )
        }))
    }
}
