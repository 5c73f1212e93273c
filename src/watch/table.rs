//! Which directory has which number, both ways, for all trees that share one reader.

use driftless_protocol::ObjectId;
use std::collections::HashMap;
use std::hash::Hash;

/// A tree among those that share a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Member(pub(super) u32);

/// The watched directories. `K` is what the kernel calls them. Both maps always agree.
#[derive(Debug)]
pub(super) struct Table<K> {
    watchers: HashMap<K, Watchers>,
    keys: HashMap<Member, HashMap<ObjectId, K>>,
}

/// Who watches a directory, under which number. Mostly it is one; trees inside each other, and targets of one tree, are
/// several.
#[derive(Debug)]
enum Watchers {
    One([(Member, ObjectId); 1]),
    Several(Vec<(Member, ObjectId)>),
}

impl<K> Default for Table<K> {
    fn default() -> Table<K> {
        Table {
            watchers: HashMap::new(),
            keys: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    /// Notes a directory: the last number that a directory was given by a member counts, and a number that had another
    /// directory leaves it. Returns that one if nobody watches it any more.
    pub(super) fn insert(&mut self, member: Member, key: K, directory: ObjectId) -> Option<K> {
        let displaced = match self.watchers.get_mut(&key) {
            Some(watchers) => watchers.insert(member, directory),
            None => {
                self.watchers
                    .insert(key.clone(), Watchers::One([(member, directory)]));
                None
            }
        };
        let keys = self.keys.entry(member).or_default();
        if let Some(displaced) = displaced.filter(|displaced| *displaced != directory) {
            keys.remove(&displaced);
        }
        let former = keys
            .insert(directory, key.clone())
            .filter(|former| *former != key)?;
        self.leave(member, former)
    }

    /// Forgets a member's directory. Returns it if nobody watches it any more.
    pub(super) fn remove(&mut self, member: Member, directory: ObjectId) -> Option<K> {
        let key = self.keys.get_mut(&member)?.remove(&directory)?;
        self.leave(member, key)
    }

    /// Forgets a directory for all.
    pub(super) fn remove_key(&mut self, key: &K) {
        for (member, directory) in self.watchers.remove(key).iter().flat_map(Watchers::as_slice) {
            if let Some(keys) = self.keys.get_mut(member) {
                keys.remove(directory);
            }
        }
    }

    /// Forgets a member. Returns the directories that nobody watches any more.
    pub(super) fn remove_member(&mut self, member: Member) -> Vec<K> {
        let keys = self.keys.remove(&member).unwrap_or_default();
        keys.into_values()
            .filter_map(|key| self.leave(member, key))
            .collect()
    }

    /// Who watches a directory.
    pub(super) fn get(&self, key: &K) -> &[(Member, ObjectId)] {
        self.watchers.get(key).map_or(&[], Watchers::as_slice)
    }

    /// How many directories a member watches.
    pub(super) fn len(&self, member: Member) -> usize {
        self.keys.get(&member).map_or(0, HashMap::len)
    }

    /// Takes a member from a directory. Returns the directory if that was the last one.
    fn leave(&mut self, member: Member, key: K) -> Option<K> {
        let watchers = self.watchers.get_mut(&key)?;
        let is_empty = match watchers {
            Watchers::One(_) => true,
            Watchers::Several(all) => {
                all.retain(|(other, _)| *other != member);
                match all.as_slice() {
                    [last] => *watchers = Watchers::One([*last]),
                    _ => all.shrink_to_fit(),
                }
                false
            }
        };
        is_empty.then(|| self.watchers.remove(&key)).flatten()?;
        Some(key)
    }
}

impl Watchers {
    fn as_slice(&self) -> &[(Member, ObjectId)] {
        match self {
            Watchers::One(one) => one,
            Watchers::Several(all) => all,
        }
    }

    /// Gives a member's number to the directory, and tells which number of the same member it takes the place of.
    fn insert(&mut self, member: Member, directory: ObjectId) -> Option<ObjectId> {
        let all = match self {
            Watchers::One(one) => one.as_mut_slice(),
            Watchers::Several(all) => all.as_mut_slice(),
        };
        if let Some((_, number)) = all.iter_mut().find(|(other, _)| *other == member) {
            return Some(std::mem::replace(number, directory));
        }
        let all: Vec<_> = all.iter().copied().chain([(member, directory)]).collect();
        *self = Watchers::Several(all);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However numbers and keys come and go, both ways lead to the same pairs, the last word of a member counts, and a
        /// key is given back when its last member leaves it.
        #[test]
        fn both_ways_agree(steps in prop::collection::vec((0u8..5, 0u32..3, 0u8..6, 0u64..6), 0..150)) {
            let mut table = Table::default();
            let mut model: Vec<(Member, u8, ObjectId)> = Vec::new();
            for (what, member, key, number) in steps {
                let (member, object) = (Member(member), ObjectId(number));
                let is_watched = |model: &[(Member, u8, ObjectId)], key| model.iter().any(|(_, k, _)| *k == key);
                let key_of = |model: &[(Member, u8, ObjectId)]| model.iter()
                    .find(|(m, _, o)| (*m, *o) == (member, object)).map(|(_, key, _)| *key);
                match what {
                    0 | 1 => {
                        let former = key_of(&model);
                        let left = table.insert(member, key, object);
                        model.retain(|(m, k, o)| *m != member || (*k != key && *o != object));
                        model.push((member, key, object));
                        prop_assert_eq!(left, former.filter(|former| !is_watched(&model, *former)));
                    }
                    2 => {
                        let former = key_of(&model);
                        let left = table.remove(member, object);
                        model.retain(|(m, _, o)| (*m, *o) != (member, object));
                        prop_assert_eq!(left, former.filter(|former| !is_watched(&model, *former)));
                    }
                    3 => {
                        table.remove_key(&key);
                        model.retain(|(_, k, _)| *k != key);
                    }
                    _ => {
                        let mut left = table.remove_member(member);
                        let (gone, kept): (Vec<_>, Vec<_>) = model.drain(..).partition(|(m, ..)| *m == member);
                        model = kept;
                        let mut expected: Vec<_> = gone.iter().map(|(_, key, _)| *key)
                            .filter(|key| !is_watched(&model, *key)).collect();
                        left.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(left, expected);
                    }
                }
                prop_assert_eq!(table.watchers.values().map(|watchers| watchers.as_slice().len()).sum::<usize>(), model.len());
                prop_assert_eq!(table.keys.values().map(HashMap::len).sum::<usize>(), model.len());
                for (member, key, object) in &model {
                    prop_assert!(table.get(key).contains(&(*member, *object)));
                    prop_assert_eq!(table.keys[member].get(object), Some(key));
                }
            }
        }
    }
}
