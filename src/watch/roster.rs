//! What watchers of one process share, for as long as one of them needs it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Shared things by what they are for.
pub(super) struct Roster<K, T>(Mutex<Option<HashMap<K, Weak<T>>>>);

impl<K: Eq + Hash, T> Roster<K, T> {
    /// With nothing in it.
    pub(super) const fn new() -> Roster<K, T> {
        Roster(Mutex::new(None))
    }

    /// What is there for a key, or is made now. Whoever makes it holds up the others: it must not take long.
    pub(super) fn find_or_make<E>(&self, key: K, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(shared) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        known.retain(|_, shared| shared.strong_count() > 0);
        let made = Arc::new(make()?);
        known.insert(key, Arc::downgrade(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn a_thing_is_shared_while_it_is_used_and_made_anew_after_that() {
        let roster = Roster::new();
        let get = |key: u8, value: u8| roster.find_or_make(key, || Ok::<_, Infallible>(value)).unwrap();
        let (first, other) = (get(1, 10), get(2, 20));
        assert!(Arc::ptr_eq(&first, &get(1, 11)) && *other == 20);
        drop(first);
        assert_eq!(*get(1, 12), 12);
        assert_eq!(*get(1, 13), 13);
        assert_eq!(roster.find_or_make(3, || Err("no")), Err("no"));
        assert_eq!(*get(3, 30), 30);
    }
}
