//! Which directory has which number, both ways.

use driftless_protocol::ObjectId;
use std::collections::HashMap;
use std::hash::Hash;

/// The watched directories. `K` is what the kernel calls them. Both maps always agree.
#[derive(Debug)]
pub(super) struct Table<K> {
    objects: HashMap<K, ObjectId>,
    keys: HashMap<ObjectId, K>,
}

impl<K> Default for Table<K> {
    fn default() -> Table<K> {
        Table {
            objects: HashMap::new(),
            keys: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    /// Notes a directory: the last number that a directory was given counts, and a number that had another directory
    /// leaves it. Returns what the number stood for until now.
    pub(super) fn insert(&mut self, key: K, directory: ObjectId) -> Option<K> {
        if let Some(former) = self.objects.insert(key.clone(), directory)
            && former != directory
        {
            self.keys.remove(&former);
        }
        let former = self
            .keys
            .insert(directory, key.clone())
            .filter(|former| *former != key)?;
        self.objects.remove(&former);
        Some(former)
    }

    pub(super) fn remove(&mut self, directory: ObjectId) -> Option<K> {
        let key = self.keys.remove(&directory)?;
        self.objects.remove(&key);
        Some(key)
    }

    pub(super) fn remove_key(&mut self, key: &K) -> Option<ObjectId> {
        let directory = self.objects.remove(key)?;
        self.keys.remove(&directory);
        Some(directory)
    }

    pub(super) fn get(&self, key: &K) -> Option<ObjectId> {
        self.objects.get(key).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However numbers and keys come and go, both ways lead to the same pairs, and the last word counts.
        #[test]
        fn both_ways_agree(steps in prop::collection::vec((0u8..3, 0u8..6, 0u64..6), 0..100)) {
            let mut table = Table::default();
            let mut model: Vec<(u8, ObjectId)> = Vec::new();
            for (what, key, number) in steps {
                let object = ObjectId(number);
                match what {
                    0 => {
                        let former = model.iter().find(|(_, other)| *other == object).map(|(key, _)| *key);
                        prop_assert_eq!(table.insert(key, object), former.filter(|former| *former != key));
                        model.retain(|(k, o)| *k != key && *o != object);
                        model.push((key, object));
                    }
                    1 => {
                        table.remove(object);
                        model.retain(|(_, o)| *o != object);
                    }
                    _ => {
                        table.remove_key(&key);
                        model.retain(|(k, _)| *k != key);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.keys.len(), model.len());
                for (key, object) in &model {
                    prop_assert_eq!(table.get(key), Some(*object));
                    prop_assert_eq!(table.keys.get(object), Some(key));
                }
            }
        }
    }
}
