//! Who holds a part of a module looks at it again when somebody else found something there.

use super::*;

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
        let ask: Ask = Arc::new(move |module, top, paths, how| match shared.upgrade() {
            Some(shared) => shared.look_at(module, top, paths, how),
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

    /// Has whoever holds a part of a module look at paths again, given below `top` in the module. Waits for the answer.
    pub(super) fn look_at(
        &self,
        module: &str,
        top: &RelPath,
        paths: &[RelPath],
        how: How,
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
        asked
            .recv_timeout(LOOK_PATIENCE)
            .map_err(|_| "the session that works there is busy, or has ended; try again later".to_owned())
    }
}
