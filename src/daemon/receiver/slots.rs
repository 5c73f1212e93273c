//! Module paths and who works on them: a replica is taken out of its slot for a session, and put back after it.

use super::*;

/// A module path.
#[derive(Debug)]
pub(super) enum Slot {
    Idle(Box<Replica>),
    Taken(Tenant),
}

/// Who works on a module path.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) peer: Fingerprint,
    pub(super) mirror: u128,
    pub(super) incarnation: u128,
    pub(super) source: String,
    pub(super) status: Arc<SessionStatus>,
    pub(super) link: LinkHandle,
    /// Where its session hears of what somebody found.
    pub(super) looks: crossbeam_channel::Sender<Look>,
}

impl Slot {
    /// Whether somebody works there.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Slot::Taken(_))
    }
}

impl Tenant {
    /// Whoever holds a path for a moment and mirrors nothing: nobody there hears of what others find.
    pub(super) fn passing(link: &ReceiverLink, open: &Open, module: &ModuleOptions) -> Tenant {
        let peer = link.peer();
        Tenant {
            peer,
            mirror: open.mirror,
            incarnation: open.incarnation,
            source: open.source.to_string(),
            status: Arc::new(SessionStatus::named(
                module.name.clone(),
                &open.path,
                peer.to_string(),
            )),
            link: link.handle(),
            looks: crossbeam_channel::bounded(0).0,
        }
    }

    /// Whether a new connection is that of the same mirror, and this one is dead. The loss of a last packet or a crash
    /// would else keep a sender out until the idle timeout. Blocks for a moment.
    fn is_succeeded_by(&self, next: &Tenant) -> bool {
        let same = self.peer == next.peer && self.mirror == next.mirror;
        // One run of a sender has one connection. Another run may be a copied machine's, so the present one is asked.
        same && (self.incarnation == next.incarnation || !self.link.is_alive(PROBE_PATIENCE))
    }
}

impl Shared {
    /// A session is over. Of a module that is no longer offered nothing is kept, above all not its lock.
    pub(super) fn put_back(
        &self,
        key: (String, RelPath),
        module: &Arc<ModuleOptions>,
        replica: Box<Replica>,
    ) {
        let mut slots = lock(&self.slots);
        if self.offers(module) {
            slots.insert(key, Slot::Idle(replica));
        } else {
            slots.remove(&key);
        }
    }

    /// Takes a replica out of its slot, opening it if this is a path below the module's root.
    pub(super) fn take(
        &self,
        key: &(String, RelPath),
        module: &Arc<ModuleOptions>,
        tenant: Tenant,
        recheck: Recheck,
    ) -> Result<(Box<Replica>, bool), (CloseCode, String)> {
        self.retire_predecessor(key, &tenant);
        let mut slots = lock(&self.slots);
        if !self.offers(module) {
            let text = format!("the module {} is no longer offered", module.name);
            return Err((CloseCode::NoModule, text));
        }
        for ((name, path), slot) in slots.iter() {
            let overlaps = *name == key.0 && (is_below(path, &key.1) || is_below(&key.1, path));
            let Slot::Taken(Tenant { peer, source, .. }) = slot else {
                continue;
            };
            if overlaps {
                let place = if path.is_root() {
                    name.clone()
                } else {
                    format!("{name}/{path}")
                };
                let text = format!("{place} is in use by the mirror of {source} from peer {peer}");
                return Err((CloseCode::Busy, text));
            }
        }
        let idle = match slots.remove(key) {
            Some(Slot::Idle(replica))
                if recheck == Recheck::Nothing && replica.root.stands_at(&replica.path) =>
            {
                Some(replica)
            }
            other => {
                // Opening a replica walks its tree, but not while it is open.
                drop(other);
                // An idle path above or below this one gives its lock up.
                slots.retain(|(name, path), _| {
                    *name != key.0 || !(is_below(path, &key.1) || is_below(&key.1, path))
                });
                check_module_root(&self.options, module, &key.1)
                    .map_err(|error| (CloseCode::Unable, error.to_string()))?;
                None
            }
        };
        slots.insert(key.clone(), Slot::Taken(tenant));
        drop(slots);
        match idle {
            Some(replica) => Ok((replica, false)),
            None => Ok((self.open_taken(key, module)?, true)),
        }
    }

    /// Opens a path that was taken. Nobody else can come by it meanwhile, so nobody is held up: a walk may last for minutes.
    fn open_taken(
        &self,
        key: &(String, RelPath),
        module: &Arc<ModuleOptions>,
    ) -> Result<Box<Replica>, Refusal> {
        let kept = self.kept_in(&module.name);
        match open_replica(&self.options, module, &key.1, &kept) {
            Ok(opened) => {
                let slots = lock(&self.slots);
                // It may have been withdrawn by now.
                if self.offers(module) {
                    self.retention.add(module, &opened.root);
                }
                drop(slots);
                Ok(Box::new(opened))
            }
            Err(error) => {
                lock(&self.slots).remove(key);
                self.released.notify_all();
                Err((CloseCode::Unable, error.to_string()))
            }
        }
    }

    /// Ends the connection that a sender had here before, if it is dead, and waits until its session has flushed.
    fn retire_predecessor(&self, key: &(String, RelPath), next: &Tenant) {
        let present = match lock(&self.slots).get(key) {
            Some(Slot::Taken(tenant)) => tenant.clone(),
            _ => return,
        };
        if !present.is_succeeded_by(next) {
            return;
        }
        tracing::info!(peer = %present.peer, "a connection that has died is replaced by a new one");
        present.link.close(
            CloseCode::Busy,
            "replaced by a newer connection of the same mirror",
        );
        let taken = |slots: &mut HashMap<_, Slot>| matches!(slots.get(key), Some(Slot::Taken(_)));
        let wait = self
            .released
            .wait_timeout_while(lock(&self.slots), RETIRE_PATIENCE, taken);
        drop(wait);
    }
}
