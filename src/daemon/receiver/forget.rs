//! Ending a binding: because its sender asks, or because the owner of the module does.

use super::{Shared, Slot, Tenant, lock};
use crate::daemon::forget::{self, Cleared};
use crate::daemon::{DaemonError, ModuleOptions};
use crate::fs::{Directory, FsErrorKind};
use crate::net::ReceiverLink;
use crate::store::{Binding, State};
use driftless_certs::Fingerprint;
use driftless_protocol::message::{Open, Recheck};
use driftless_protocol::{CloseCode, RelPath};
use std::sync::Arc;

type Refusal = (CloseCode, String);

/// What connections are told that end because of it.
const ENDS: &str = "the receiver forgets what was sent here";

impl Shared {
    /// Forgets a module path for the peer that it belongs to, and closes the connection with what was left.
    pub(super) fn forget(
        self: &Arc<Self>,
        link: &ReceiverLink,
        open: &Open,
        module: &Arc<ModuleOptions>,
    ) -> Result<(), Refusal> {
        let unable = |error: &dyn std::fmt::Display| (CloseCode::Unable, error.to_string());
        let top = Directory::open_root(&module.path).map_err(|error| unable(&error))?;
        let drop_state = || {
            let dropped = forget::drop_state(&self.options.home, &module.name, &open.path);
            dropped.map_err(|error| unable(&error))
        };
        if !has_directory(top, &open.path).map_err(|error| unable(&error))? {
            // Opening it would make it.
            self.check_owner(link, open, module)?;
            drop_state()?;
            link.close(CloseCode::Forgotten, "");
            return Ok(());
        }
        let peer = link.peer();
        let key = (module.name.clone(), open.path.clone());
        let tenant = Tenant::passing(link, open, module);
        let (replica, is_new) = self.take(&key, module, tenant, Recheck::Nothing)?;
        // Again, now that whoever promotes the module sees this session.
        let refusal = self.check_fence(module).and_then(|()| {
            let binding = replica.binding().map_err(|error| unable(&error))?;
            check_binding(binding.as_ref(), &peer, open, module)
        });
        if let Err(refusal) = refusal {
            // Those who looked after the path went with the replica that was open before.
            if is_new && self.check_fence(module).is_ok() {
                self.look_after(module, &open.path, &replica.window);
            }
            self.put_back(key, module, replica);
            self.released.notify_all();
            return Err(refusal);
        }
        let unbound = replica.state.unbind().map_err(|error| unable(&error));
        let root = replica.root.clone();
        self.scrubs.forget_place(&module.name, &open.path);
        self.drift.forget_place(&module.name, &open.path);
        // Its databases are closed, and its directories set right, before anything is removed.
        drop(replica);
        let cleared = unbound.and_then(|()| forget::clear_tree(&root, false).map_err(|error| unable(&error)));
        let ended = cleared.and_then(|(cleared, _)| drop_state().map(|()| cleared));
        drop(root);
        lock(&self.slots).remove(&key);
        self.released.notify_all();
        let cleared = ended?;
        tracing::info!(%peer, module = %module.name, removed = cleared.removed, "the mirror was forgotten");
        let mut left = cleared.left;
        if cleared.shelves > 0 {
            let how = format!(
                "`driftless forget --module {} --with-trash` there removes that",
                module.name
            );
            left.push(how);
        }
        link.close(CloseCode::Forgotten, &left.join("; "));
        Ok(())
    }

    /// Whether a path whose directory is gone, or whose file system is not mounted, belongs to the peer that wants it forgotten.
    fn check_owner(&self, link: &ReceiverLink, open: &Open, module: &ModuleOptions) -> Result<(), Refusal> {
        let key = (module.name.clone(), open.path.clone());
        if matches!(lock(&self.slots).get(&key), Some(Slot::Taken(_))) {
            return Err((CloseCode::Busy, "somebody is connected there".to_owned()));
        }
        let file = self
            .options
            .home
            .module_place(&module.name, &open.path)
            .join("state.redb");
        if !file.exists() {
            return Ok(());
        }
        let state = State::open(&file).and_then(|state| state.binding());
        let binding = state.map_err(|error| (CloseCode::Unable, error.to_string()))?;
        check_binding(binding.as_ref(), &link.peer(), open, module)
    }

    /// Forgets all paths of a module. Its connections end; it is offered on.
    pub(super) fn forget_module(&self, name: &str, with_kept: bool) -> Option<Result<Cleared, DaemonError>> {
        let module = self.module(name)?;
        // Before the slots are locked: they may be asking for one.
        self.scrubs.forget(name);
        self.drift.forget(name);
        let mut slots = lock(&self.slots);
        for ((of, _), slot) in slots.iter() {
            if let (true, Slot::Taken(tenant)) = (of == name, slot) {
                tenant.link.close(CloseCode::Unable, ENDS);
            }
        }
        let is_taken = |slots: &mut std::collections::HashMap<(String, RelPath), Slot>| {
            let mut slots = slots.iter();
            slots.any(|((of, _), slot)| of == name && slot.is_taken())
        };
        slots = self
            .released
            .wait_timeout_while(slots, super::RETIRE_PATIENCE, is_taken)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0;
        if is_taken(&mut slots) {
            let text = format!("a connection to {name} does not end; try again, or stop the receiver first");
            return Some(Err(DaemonError::failed(text)));
        }
        slots.retain(|(of, _), _| of != name);
        // With the slots held, nobody opens the module meanwhile.
        Some(forget::module(&self.options.home, name, &module.path, with_kept))
    }
}

/// Only the mirror that a path belongs to may end it from afar.
fn check_binding(
    binding: Option<&Binding>,
    peer: &Fingerprint,
    open: &Open,
    module: &ModuleOptions,
) -> Result<(), Refusal> {
    let Some(other) = binding else { return Ok(()) };
    let is_same_mirror = other.mirror == open.mirror || other.source == open.source.to_string();
    if other.peer == *peer.as_bytes() && is_same_mirror {
        return Ok(());
    }
    let text = format!(
        "{}/{} is kept by the mirror of {} from peer {}, which alone may end it from afar; here, `driftless forget --module {}` \
         does",
        module.name,
        open.path,
        other.source,
        Fingerprint::from_bytes(other.peer),
        module.name,
    );
    Err((CloseCode::Busy, text))
}

/// Whether there is a directory at a path below a module's root.
fn has_directory(root: Directory, path: &RelPath) -> Result<bool, DaemonError> {
    let mut at = root;
    for name in path.names() {
        at = match at.open_dir(name) {
            Ok(inner) => inner,
            Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(DaemonError::failed(error.to_string())),
        };
    }
    Ok(true)
}
