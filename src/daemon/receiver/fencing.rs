//! What a receiver does about modules that are promoted: see [`fence`].

use super::guests::LOOK_EVERY;
use super::{RETIRE_PATIENCE, Refusal, Shared, Slot, lock};
use crate::daemon::ModuleOptions;
use crate::daemon::fence::{self, Demotion, Fence};
use crossbeam_channel::RecvTimeoutError;
use driftless_protocol::{CloseCode, RelPath};
use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;

type Slots = HashMap<(String, RelPath), Slot>;

impl Shared {
    /// Refuses whoever would write to a module that is promoted, or of which nobody knows whether it is.
    pub(super) fn check_fence(&self, module: &ModuleOptions) -> Result<(), (CloseCode, String)> {
        match self.fence_of(&module.name) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err((CloseCode::Promoted, refusal(&module.name))),
            Err(text) => Err((CloseCode::Unable, text)),
        }
    }

    /// What is known of a module that is promoted; `None` if it is not.
    fn fence_of(&self, module: &str) -> Result<Option<Fence>, String> {
        let found = fence::read(&self.options.home, module).map_err(|error| {
            format!(
                "cannot tell whether the module {module} is promoted: {error} (decide again on the receiver: `driftless promote \
                 {module}` or `driftless demote {module}`)"
            )
        });
        Ok(found?.filter(|fence| fence.is_promoted))
    }

    /// Since when a module is promoted; `None` if it is not, or if nobody knows.
    pub(super) fn promoted_since(&self, module: &str) -> Option<u64> {
        Some(self.fence_of(module).ok()??.since)
    }

    /// Acts on what was decided about a module: ends the sessions of one that is promoted, and waits until nothing is written
    /// there any more. Nothing that is known of the tree counts from here on, so that the next connection walks it.
    pub(super) fn heed_fence(&self, module: &str) -> Result<(), String> {
        let is_promoted = self.fence_of(module)?.is_some();
        let of_module = |slots: &Slots| {
            slots
                .iter()
                .any(|((name, _), slot)| name == module && slot.is_taken())
        };
        if is_promoted {
            self.fence_off(module);
        }
        let mut slots = lock(&self.slots);
        if is_promoted {
            slots = self
                .released
                .wait_timeout_while(slots, RETIRE_PATIENCE, |slots| of_module(slots))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        slots.retain(|(name, _), slot| name != module || slot.is_taken());
        match is_promoted && of_module(&slots) {
            true => Err(format!(
                "the connection to module {module} was ended, but what it had written is still being flushed: wait until \
                 `driftless status` shows nobody there, before anything else writes"
            )),
            false => Ok(()),
        }
    }

    /// Ends the sessions of a module that is promoted, and forgets what is known of its tree, without waiting for anything.
    fn fence_off(&self, module: &str) {
        // What changes here is right from now on. Before the slots are locked: they may be asking for one.
        self.scrubs.forget(module);
        self.drift.forget(module);
        let mut slots = lock(&self.slots);
        for ((name, _), slot) in slots.iter() {
            if let (true, Slot::Taken(tenant)) = (name == module, slot) {
                tracing::warn!(peer = %tenant.peer, module, "promoted: the connection of its sender is ended");
                tenant.status.cut();
                tenant.link.close(CloseCode::Promoted, &refusal(module));
            }
        }
        slots.retain(|(name, _), slot| name != module || slot.is_taken());
    }

    /// Heeds fences again and again, until asked to stop.
    pub(super) fn watch_fences(&self) {
        let stop = self.stop.channel();
        while stop.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
            self.heed_fences();
        }
    }

    /// Heeds the fences of all modules that are open: whoever promoted one may not have reached this process.
    fn heed_fences(&self) {
        let mut open: BTreeMap<String, bool> = BTreeMap::new();
        for ((name, _), slot) in lock(&self.slots).iter() {
            *open.entry(name.clone()).or_default() |= slot.is_taken();
        }
        for (module, is_busy) in open {
            match self.fence_of(&module) {
                Ok(None) => {}
                Ok(Some(_)) => self.fence_off(&module),
                Err(text) if is_busy => tracing::error!("{text}"),
                // Whoever comes is refused, and told.
                Err(_) => {}
            }
        }
    }

    /// The demotion of which the sender of a module path does not know yet: it has to ask before it deletes.
    pub(super) fn must_ask(&self, module: &str, path: &RelPath) -> Result<Option<Demotion>, Refusal> {
        fence::asks(&self.options.home, module, path).map_err(|error| {
            let text = format!("cannot tell whether the module {module} was demoted: {error}");
            (CloseCode::Unable, text)
        })
    }

    /// A sender that was told of a demotion when it came has brought a module path in sync.
    pub(super) fn note_in_sync(&self, module: &str, path: &RelPath, demotion: Demotion) {
        if let Err(error) = fence::settle(&self.options.home, module, path, demotion) {
            tracing::warn!(
                module,
                "cannot note that it is in sync since it was demoted: {error}"
            );
        }
    }
}

fn refusal(module: &str) -> String {
    format!(
        "the module {module} was promoted: what is on the receiver counts, and nothing is taken from here. To send the other way, \
         end this mirror and offer its source as a module; to go on as before, run `driftless demote {module}` on the receiver"
    )
}
