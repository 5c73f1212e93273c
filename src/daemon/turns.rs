//! Who may do what costs much, when many mirrors of one process want to.

use super::Stop;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// If nobody's turn has ended for so long, those who have one may be hanging (on a file system that does not answer), and
/// nobody waits for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// A number of turns that are taken and given back. Without a number, everybody may at any time.
#[derive(Debug, Clone, Default)]
pub struct Turns(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    give_back: Sender<()>,
    free: Receiver<()>,
    /// How many were given back.
    ended: AtomicU64,
}

/// Somebody's turn, until dropped.
#[derive(Debug)]
pub struct Turn(Option<Arc<Inner>>);

impl Turns {
    /// So many at a time, at least one.
    pub fn at_most(number: usize) -> Turns {
        let (give_back, free) = bounded(number.max(1));
        for _ in 0..number.max(1) {
            let _ = give_back.try_send(());
        }
        Turns(Some(Arc::new(Inner {
            give_back,
            free,
            ended: AtomicU64::new(0),
        })))
    }

    /// A turn, if one is free.
    pub fn try_take(&self) -> Option<Turn> {
        match &self.0 {
            None => Some(Turn(None)),
            Some(inner) => {
                inner.free.try_recv().ok()?;
                Some(Turn(Some(inner.clone())))
            }
        }
    }

    /// Has something to receive when a turn may be free; it is taken by [`Turns::try_take`] only. `None` if none is ever waited
    /// for.
    pub fn free(&self) -> Option<&Receiver<()>> {
        self.0.as_ref().map(|inner| &inner.free)
    }

    /// Waits for a turn, but not for those who hang. `None` when asked to stop.
    pub fn take(&self, stop: &Stop) -> Option<Turn> {
        let Some(inner) = &self.0 else {
            return Some(Turn(None));
        };
        let stopped = stop.channel();
        let mut ended = inner.ended.load(Ordering::Relaxed);
        loop {
            select! {
                recv(inner.free) -> _ => return Some(Turn(Some(inner.clone()))),
                recv(stopped) -> _ => return None,
                default(PATIENCE) => {
                    let now = inner.ended.load(Ordering::Relaxed);
                    if now == ended {
                        return Some(Turn(None));
                    }
                    ended = now;
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(inner) = &self.0 {
            inner.ended.fetch_add(1, Ordering::Relaxed);
            let _ = inner.give_back.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_turns_as_there_may_be() {
        let turns = Turns::at_most(2);
        let [first, second] = [turns.try_take(), turns.try_take()].map(Option::unwrap);
        assert!(turns.try_take().is_none() && turns.free().unwrap().is_empty());
        let waiting = {
            let turns = turns.clone();
            std::thread::spawn(move || turns.take(&Stop::default()).is_some())
        };
        drop(first);
        assert!(waiting.join().unwrap());
        drop(second);
        assert_eq!(turns.free().unwrap().len(), 2);
        let stop = Stop::default();
        stop.request();
        let held: Vec<_> = (0..2).map(|_| turns.try_take()).collect();
        assert!(turns.take(&stop).is_none());
        drop(held);
        let anybody = Turns::default();
        assert!(anybody.free().is_none() && anybody.try_take().is_some() && anybody.take(&stop).is_some());
    }
}
