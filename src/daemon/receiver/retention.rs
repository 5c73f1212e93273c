//! What is in the trash goes in time.
//!
//! Nothing is polled: what comes to a trash from now on is due no earlier than its retention from now, so the next look is
//! due when the oldest that is there now is, or after one retention. An hour is the longest sleep, since wall clocks
//! are set and machines suspended.

use super::lock;
use crate::daemon::keeping::{OldVersions, TRASH};
use crate::daemon::status::unix_now;
use crate::daemon::{ModuleOptions, Stop};
use crate::fs::{Directory, Shelf};
use crossbeam_channel::{Receiver, Select, Sender, unbounded};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SLEEP_MIN: Duration = Duration::from_secs(1);
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// The module paths with a trash.
#[derive(Debug)]
pub struct Retention {
    /// By module and path.
    places: Mutex<HashMap<(String, String), Place>>,
    changed: (Sender<()>, Receiver<()>),
}

/// A module path, and how long what comes to its trash stays there.
#[derive(Debug, Clone)]
struct Place {
    root: Arc<Directory>,
    retention: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            places: Mutex::default(),
            changed: unbounded(),
        }
    }
}

impl Retention {
    /// Looks after the trash of a path of a module, if it has one.
    pub fn add(&self, module: &ModuleOptions, root: &Arc<Directory>) {
        if let OldVersions::Trash { retention } = module.keeping.old {
            let key = (module.name.clone(), root.shown().to_owned());
            let root = root.clone();
            lock(&self.places).insert(key, Place { root, retention });
            let _ = self.changed.0.send(());
        }
    }

    /// Leaves the trash of a module alone, and lets go of its directories.
    pub fn forget(&self, module: &str) {
        lock(&self.places).retain(|(name, _), _| name != module);
    }

    /// Removes what is due, until asked to stop.
    pub fn run(&self, stop: &Stop) {
        let stop_channel = stop.channel();
        while !stop.is_requested() {
            while self.changed.1.try_recv().is_ok() {}
            let sleep = self.expire(unix_now());
            let mut select = Select::new();
            select.recv(&stop_channel);
            select.recv(&self.changed.1);
            match sleep {
                Some(sleep) => _ = select.ready_timeout(sleep),
                None => _ = select.ready(),
            }
        }
    }

    /// Removes what is due; how long nothing else will be, if there is any trash.
    fn expire(&self, now: u64) -> Option<Duration> {
        let places: Vec<_> = lock(&self.places).values().cloned().collect();
        let due = places.into_iter().map(|Place { root, retention }| {
            let horizon = now.saturating_sub(retention.as_secs());
            match Shelf::new(root.clone(), TRASH).expire(horizon) {
                Ok((removed, oldest)) => {
                    if removed > 0 {
                        tracing::info!(path = root.shown(), removed, "what was old in the trash is gone");
                    }
                    let left = oldest.map(|oldest| Duration::from_secs(oldest.saturating_sub(horizon)));
                    left.unwrap_or(retention)
                }
                Err(error) => {
                    tracing::warn!("cannot empty the trash: {error}");
                    SLEEP_MAX
                }
            }
        });
        due.min().map(|due| due.clamp(SLEEP_MIN, SLEEP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::keeping::Keeping;
    use driftless_protocol::Name;

    #[test]
    fn a_trash_is_looked_at_when_its_oldest_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open_root(dir.path()).unwrap());
        let retention = Retention::default();
        assert_eq!(retention.expire(1_000_000), None);
        let week = Duration::from_secs(7 * 86_400);
        let module = |old| ModuleOptions {
            previous: None,
            name: "m".to_owned(),
            path: dir.path().to_owned(),
            xattrs: Default::default(),
            devices: false,
            keeping: Keeping {
                old,
                ..Keeping::default()
            },
            preallocate: false,
            publish: Vec::new(),
            inplace: false,
            hosts: Default::default(),
            kept_as: Default::default(),
            upkeep: Default::default(),
        };
        retention.add(&module(OldVersions::Discard), &root);
        assert_eq!(retention.expire(1_000_000), None);
        retention.add(&module(OldVersions::Trash { retention: week }), &root);
        assert_eq!(retention.expire(1_000_000), Some(SLEEP_MAX));
        let mut shelf = Shelf::new(root.clone(), TRASH);
        let name = Name::new(*b"x").unwrap();
        std::fs::write(dir.path().join("x"), "x").unwrap();
        shelf
            .put(1_000_000, &root, &name, std::slice::from_ref(&name))
            .unwrap();
        // It is due a week after the end of its minute, and not a second before.
        let due = 1_000_060 + week.as_secs();
        assert_eq!(retention.expire(due - 1), Some(SLEEP_MIN));
        assert_eq!(shelf.batches().unwrap().len(), 1);
        assert_eq!(retention.expire(due - 90), Some(Duration::from_secs(90)));
        assert_eq!(retention.expire(due), Some(SLEEP_MAX));
        assert!(shelf.batches().unwrap().is_empty());
        retention.forget("m");
        assert_eq!(retention.expire(due), None);
    }

    #[test]
    fn it_ends_when_asked_to() {
        let (retention, stop) = (Retention::default(), Stop::default());
        std::thread::scope(|scope| {
            scope.spawn(|| retention.run(&stop));
            stop.request();
        });
    }
}
