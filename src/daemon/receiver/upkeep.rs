//! Who holds a part of a module looks at it again when somebody else found something there.

use super::*;
use crossbeam_channel::select;

impl Shared {
    /// Begins to look after the module paths that are open.
    pub(super) fn look_after_all(self: &Arc<Self>) {
        let open: Vec<_> = lock(&self.slots)
            .iter()
            .filter_map(|((name, path), slot)| match slot {
                Slot::Idle(replica) => Some((name.clone(), path.clone(), replica.window.clone())),
                Slot::Taken(_) => None,
            })
            .collect();
        for (name, path, window) in open {
            if let Some(module) = self.module(&name) {
                self.look_after(&module, &path, &window);
            }
        }
    }

    /// Begins to look after a module path that was opened.
    pub(super) fn look_after(self: &Arc<Self>, module: &ModuleOptions, path: &RelPath, window: &Arc<Window>) {
        let shared = Arc::downgrade(self);
        let ask: Ask = Arc::new(move |module, top, paths, how, stop| match shared.upgrade() {
            Some(shared) => shared.look_at(module, top, paths, how, stop),
            None => Err("the receiver has ended".to_owned()),
        });
        let home = self.options.home.module_dir(&module.name, path);
        let place = Place {
            module: module.name.clone(),
            top: path.clone(),
            window: window.clone(),
            ask,
        };
        scrub::start(&self.scrubs, module.upkeep.scrub.as_ref(), &place, &home);
        drift::start(&self.drift, module.upkeep.drift_watch, &place);
    }

    /// Has whoever holds a part of a module look at paths again, given below `top` in the module. Waits for the answer, until asked
    /// to stop.
    pub(super) fn look_at(
        &self,
        module: &str,
        top: &RelPath,
        paths: &[RelPath],
        how: How,
        stop: &Stop,
    ) -> Result<Found, String> {
        let asked = {
            let mut slots = lock(&self.slots);
            let holder = slots
                .iter_mut()
                .find(|((name, path), _)| name == module && is_below(top, path));
            let Some(((_, held), slot)) = holder else {
                return Err("no mirror was ever sent there".to_owned());
            };
            let above = &top.names()[held.names().len()..];
            let paths = paths.iter().filter_map(|path| {
                let names = above.iter().chain(path.names()).cloned().collect();
                RelPath::from_names(names).ok()
            });
            let paths: Vec<_> = paths.collect();
            match slot {
                Slot::Idle(replica) => {
                    return replica.look_again(&paths, how).map_err(|error| error.to_string());
                }
                Slot::Taken(tenant) => {
                    let (answer, asked) = crossbeam_channel::bounded(1);
                    let look = Look { paths, how, answer };
                    tenant
                        .looks
                        .try_send(look)
                        .map_err(|_| "too much is being looked at already; try again later".to_owned())?;
                    asked
                }
            }
        };
        // A session that is about to begin waits for whoever looked after the path before it.
        select! {
            recv(asked) -> found => found.ok(),
            recv(stop.channel()) -> _ => None,
            default(LOOK_PATIENCE) => None,
        }
        .ok_or_else(|| "the session that works there is busy, or has ended; try again later".to_owned())
    }

    /// Opens the path of the mirror that sends to `open.path`, or to a directory above it, if nobody has it open: at the start only
    /// the module's root is, and what that knows of a tree which another mirror sends is not what that mirror put there.
    pub(super) fn open_bound(
        self: &Arc<Self>,
        link: &ReceiverLink,
        open: &Open,
        module: &Arc<ModuleOptions>,
    ) -> Result<(), String> {
        let Some(path) = self.bound_above(module, &open.path) else {
            return Ok(());
        };
        self.check_fence(module).map_err(|(_, text)| text)?;
        let key = (module.name.clone(), path);
        let tenant = Tenant::passing(link, open, module);
        let (replica, is_new) = self
            .take(&key, module, tenant, Recheck::Nothing)
            .map_err(|(_, text)| text)?;
        if is_new {
            self.look_after(module, &key.1, &replica.window);
        }
        self.put_back(key, module, replica);
        self.released.notify_all();
        Ok(())
    }

    /// The innermost path, from `top` upwards, that belongs to a mirror; none if it is open, or if nobody may open it now.
    fn bound_above(&self, module: &ModuleOptions, top: &RelPath) -> Option<RelPath> {
        let slots = lock(&self.slots);
        let is_busy = |((name, path), slot): (&(String, RelPath), &Slot)| {
            *name == module.name && is_below(top, path) && slot.is_taken()
        };
        // Who works there knows best.
        if slots.iter().any(is_busy) {
            return None;
        }
        for length in (0..=top.names().len()).rev() {
            let path = RelPath::from_names(top.names()[..length].to_vec()).ok()?;
            let key = (module.name.clone(), path);
            let (is_bound, is_open) = match slots.get(&key) {
                Some(Slot::Idle(replica)) => (replica.binding(), true),
                Some(Slot::Taken(_)) => return None,
                None => {
                    let place = self.options.home.module_place(&module.name, &key.1);
                    let file = place.join("state.redb");
                    // Opening would make it.
                    match file.exists() {
                        true => (State::open(&file).and_then(|state| state.binding()), false),
                        false => continue,
                    }
                }
            };
            // What cannot be told is found out by whoever opens the path.
            if is_bound.map_or(true, |binding| binding.is_some()) {
                return (!is_open).then_some(key.1);
            }
        }
        None
    }
}
