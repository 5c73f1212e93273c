//! Threads that look after module paths, one for each path and purpose: the scrub, and the watch on local edits.

use super::lock;
use crate::daemon::Stop;
use driftless_protocol::RelPath;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The threads of one purpose, and what each reports.
pub struct Patrols<R> {
    places: Mutex<HashMap<(String, RelPath), Patrol<R>>>,
}

struct Patrol<R> {
    stop: Stop,
    report: Arc<Mutex<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R> Drop for Patrol<R> {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<R> Default for Patrols<R> {
    fn default() -> Patrols<R> {
        Patrols {
            places: Mutex::default(),
        }
    }
}

impl<R> fmt::Debug for Patrols<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patrols({})", lock(&self.places).len())
    }
}

impl<R: Default + Clone + Send + 'static> Patrols<R> {
    /// Starts a thread for a path of a module, in place of the one that was started there before.
    pub fn start(
        &self,
        purpose: &str,
        (module, top): (&str, &RelPath),
        run: impl FnOnce(&Stop, &Mutex<R>) + Send + 'static,
    ) {
        let key = (module.to_owned(), top.clone());
        let before = lock(&self.places).remove(&key);
        if let Some(before) = &before {
            before.stop.request();
        }
        let (stop, report) = (Stop::default(), Arc::new(Mutex::new(R::default())));
        let thread = std::thread::Builder::new().name(purpose.to_owned()).spawn({
            let (stop, report) = (stop.clone(), report.clone());
            move || {
                // Here, since it may be reading, and whoever starts this one has more to do.
                drop(before);
                run(&stop, &report);
            }
        });
        match thread {
            Ok(thread) => {
                let thread = Some(thread);
                lock(&self.places).insert(key, Patrol { stop, report, thread });
            }
            Err(error) => tracing::error!("module {module} has no {purpose}: cannot start a thread: {error}"),
        }
    }

    /// Ends the one of a path of a module.
    pub fn forget_place(&self, module: &str, top: &RelPath) {
        let ended = lock(&self.places).remove(&(module.to_owned(), top.clone()));
        drop(ended);
    }

    /// Ends those of a module.
    pub fn forget(&self, module: &str) {
        let mut places = lock(&self.places);
        let ended: Vec<_> = places.extract_if(|(name, _), _| name == module).collect();
        drop(places);
        drop(ended);
    }

    /// Ends all.
    pub fn end(&self) {
        let ended = std::mem::take(&mut *lock(&self.places));
        ended.values().for_each(|patrol| patrol.stop.request());
        drop(ended);
    }

    /// What those of a module report, by their paths.
    pub fn reports(&self, module: &str) -> Vec<R> {
        let places = lock(&self.places);
        let own = places.iter().filter(|((name, _), _)| name == module);
        let mut own: Vec<_> = own
            .map(|((_, path), patrol)| (path, lock(&patrol.report).clone()))
            .collect();
        own.sort_by(|(a, _), (b, _)| a.names().cmp(b.names()));
        own.into_iter().map(|(_, report)| report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{bounded, unbounded};

    /// One that is reading does not end at once. Whoever starts the next one, a session at its beginning, has no time for that.
    #[test]
    fn the_next_one_is_started_without_waiting_for_the_one_before() {
        let patrols: Patrols<u32> = Patrols::default();
        let at = ("m", &RelPath::root());
        let (go_on, blocked) = bounded::<()>(0);
        let (told, events) = unbounded();
        let first = told.clone();
        patrols.start("patrol", at, move |stop, _| {
            let _ = blocked.recv();
            first.send(("first", stop.is_requested())).unwrap();
        });
        patrols.start("patrol", at, move |_, report| {
            *lock(report) = 7;
            told.send(("second", false)).unwrap();
        });
        assert!(
            events.is_empty(),
            "the first one is not done, and the second one comes after it"
        );
        drop(go_on);
        assert_eq!(
            events.iter().collect::<Vec<_>>(),
            [("first", true), ("second", false)]
        );
        assert_eq!(patrols.reports("m"), [7]);
        patrols.end();
    }
}
