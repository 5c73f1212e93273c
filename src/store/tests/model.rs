//! The catalog against a slow model of it: random changes, everything compared after each.

use super::*;
use crate::store::record::inode_of;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Clone)]
enum Deed {
    Put {
        object: u64,
        kind: u8,
        directory: u64,
        name: u8,
        inode: Option<u8>,
        journal: Journal,
    },
    Remove {
        object: u64,
        tombstone: bool,
    },
    RemoveBelow {
        directory: u64,
    },
    Relabel {
        old: u64,
        new: u64,
    },
    DropTombstones {
        share: u8,
    },
    Clear,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Journal {
    New,
    Same,
    None,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let journal = prop_oneof![Just(Journal::New), Just(Journal::Same), Just(Journal::None)];
    prop_oneof![
        12 => (2..12u64, 0..3u8, 1..12u64, 0..4u8, proptest::option::of(0..4u8), journal).prop_map(
            |(object, kind, directory, name, inode, journal)| Deed::Put { object, kind, directory, name, inode, journal }
        ),
        4 => (2..12u64, any::<bool>()).prop_map(|(object, tombstone)| Deed::Remove { object, tombstone }),
        1 => (1..12u64).prop_map(|directory| Deed::RemoveBelow { directory }),
        4 => (2..12u64, 2..14u64).prop_map(|(old, new)| Deed::Relabel { old, new }),
        1 => any::<u8>().prop_map(|share| Deed::DropTombstones { share }),
        1 => Just(Deed::Reopen),
        1 => Just(Deed::Clear).prop_filter("seldom", |_| true),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    inodes: HashMap<(u64, u64), u64>,
    tombstones: BTreeMap<u64, (ObjectId, Place, Kind)>,
    last: u64,
}

impl Model {
    fn key(place: &Place) -> (u64, Vec<u8>) {
        (place.directory.0, place.name.as_bytes().to_vec())
    }

    fn unlink(&mut self, entry: &Entry) {
        let object = entry.object.0;
        let key = Model::key(&entry.place);
        if self.names.get(&key) == Some(&object) {
            self.names.remove(&key);
        }
        self.inodes.retain(|_, holder| *holder != object);
    }

    fn put(&mut self, entry: Entry, role: Role) {
        if let Some(old) = self.entries.get(&entry.object.0).cloned() {
            self.unlink(&old);
        }
        self.names.insert(Model::key(&entry.place), entry.object.0);
        if let (Some(stamp), Role::Sender) = (&entry.stamp, role) {
            self.inodes.insert(inode_of(stamp), entry.object.0);
        }
        self.entries.insert(entry.object.0, entry);
    }

    fn remove(&mut self, object: u64) -> Option<Entry> {
        let entry = self.entries.remove(&object)?;
        self.unlink(&entry);
        Some(entry)
    }

    fn children(&self, directory: u64) -> Vec<(Name, ObjectId)> {
        let all = self.names.iter().filter(|((at, _), _)| *at == directory);
        all.map(|((_, name), object)| (Name::new(name.clone()).unwrap(), ObjectId(*object)))
            .collect()
    }

    fn remove_below(&mut self, directory: u64) -> Vec<Entry> {
        let mut removed = Vec::new();
        for (_, child) in self.children(directory) {
            if let Some(entry) = self.remove(child.0) {
                if entry.kind == Kind::Directory {
                    let below = self.remove_below(child.0);
                    removed.push(entry);
                    removed.extend(below);
                } else {
                    removed.push(entry);
                }
            }
        }
        removed
    }

    fn relabel(&mut self, old: u64, new: u64) {
        let Some(mut entry) = self.entries.remove(&old) else {
            return;
        };
        let is_directory = entry.kind == Kind::Directory;
        entry.object = ObjectId(new);
        self.entries.insert(new, entry);
        for holder in self
            .names
            .values_mut()
            .chain(self.inodes.values_mut())
            .filter(|holder| **holder == old)
        {
            *holder = new;
        }
        if is_directory {
            for (name, child) in self.children(old) {
                self.names.remove(&(old, name.as_bytes().to_vec()));
                self.names.insert((new, name.as_bytes().to_vec()), child.0);
                self.entries.get_mut(&child.0).unwrap().place.directory = ObjectId(new);
            }
        }
    }

    fn path_of(&self, object: u64) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = object;
        while at != 1 {
            let entry = self.entries.get(&at).filter(|_| names.len() < 100)?;
            names.insert(0, entry.place.name.clone());
            at = entry.place.directory.0;
        }
        Some(names)
    }

    fn journal(&self) -> Vec<(u64, Change)> {
        let slots = self.entries.values().filter(|entry| entry.sequence != 0);
        let mut all: Vec<_> = slots
            .map(|entry| (entry.sequence, Change::Object(entry.object)))
            .collect();
        all.extend(self.tombstones.iter().map(|(at, (object, place, kind))| {
            (
                *at,
                Change::Removed {
                    object: *object,
                    place: place.clone(),
                    kind: *kind,
                    entries: 1,
                },
            )
        }));
        all.sort_by_key(|(at, _)| *at);
        all
    }

    fn compare(&self, read: &impl CatalogRead) -> Result<(), StoreError> {
        assert_eq!(read.count()?, self.entries.len() as u64);
        assert_eq!(read.last_sequence()?, self.last);
        let mut all = Vec::new();
        read.for_each(&mut |entry| {
            all.push(entry);
            Ok(())
        })?;
        assert_eq!(all, self.entries.values().cloned().collect::<Vec<_>>());
        for object in 0..16 {
            assert_eq!(read.get(ObjectId(object))?.as_ref(), self.entries.get(&object));
            let children = self.children(object);
            assert_eq!(read.children(ObjectId(object))?, children);
            assert_eq!(read.has_children(ObjectId(object))?, !children.is_empty());
            let entries: Vec<_> = children
                .iter()
                .map(|(_, child)| self.entries[&child.0].clone())
                .collect();
            assert_eq!(read.child_entries(ObjectId(object))?, entries);
            for at in 0..5 {
                let name = name(&format!("n{at}"));
                let found = children
                    .iter()
                    .find(|(other, _)| *other == name)
                    .map(|(_, child)| *child);
                assert_eq!(read.lookup(ObjectId(object), &name)?, found);
            }
            if object > 0 {
                assert_eq!(
                    read.path_of(ObjectId(object))?,
                    self.path_of(object),
                    "path of {object}"
                );
            }
            let inode = self.inodes.get(&(5, object)).map(|object| ObjectId(*object));
            assert_eq!(read.by_inode(5, object)?, inode);
        }
        let journal = self.journal();
        let mut found = Vec::new();
        loop {
            let some = read.changed_after(found.last().map_or(0, |(at, _)| *at), 3)?;
            let done = some.len() < 3;
            found.extend(some);
            if done {
                break;
            }
        }
        assert_eq!(found, journal);
        Ok(())
    }
}

/// Does it to the tables and to the model, and compares before the commit.
fn run(deed: &Deed, tables: &mut Tables<'_>, model: &mut Model, role: Role) -> Result<(), StoreError> {
    match *deed {
        Deed::Put {
            object,
            kind,
            directory,
            name,
            inode,
            journal,
        } => {
            let kind = [Kind::File, Kind::Directory, Kind::Symlink][usize::from(kind)];
            let mut entry = entry(object, kind, directory, &format!("n{name}"));
            entry.flags = name;
            entry.stamp = inode.map(|inode| stamp(5, inode.into()));
            entry.sequence = match journal {
                Journal::New => tables.next_sequence()?,
                Journal::Same => model.entries.get(&object).map_or(0, |old| old.sequence),
                Journal::None => 0,
            };
            model.last = model.last.max(entry.sequence);
            tables.put(&entry)?;
            model.put(entry, role);
        }
        Deed::Remove { object, tombstone } => {
            let sequence = if tombstone {
                Some(tables.next_sequence()?)
            } else {
                None
            };
            model.last = sequence.unwrap_or(model.last);
            let removed = model.remove(object);
            assert_eq!(tables.remove(ObjectId(object), sequence)?, removed);
            if let (Some(entry), Some(sequence)) = (removed, sequence) {
                model
                    .tombstones
                    .insert(sequence, (entry.object, entry.place, entry.kind));
            }
        }
        Deed::RemoveBelow { directory } => {
            let mut removed = Vec::new();
            tables.remove_below(ObjectId(directory), |entry| removed.push(entry.clone()))?;
            let mut expected = model.remove_below(directory);
            removed.sort_by_key(|entry| entry.object);
            expected.sort_by_key(|entry| entry.object);
            assert_eq!(removed, expected);
        }
        Deed::Relabel { old, new } => {
            if old != new && model.entries.contains_key(&new) {
                let taken = tables.relabel(ObjectId(old), ObjectId(new));
                assert!(matches!(taken, Err(StoreError::NumberTaken { .. })));
            } else if old != new {
                let found = tables.relabel(ObjectId(old), ObjectId(new))?;
                assert_eq!(found, model.entries.contains_key(&old));
                model.relabel(old, new);
            }
        }
        Deed::DropTombstones { share } => {
            let through = model.last * u64::from(share) / 255;
            tables.drop_tombstones_through(through)?;
            model.tombstones.retain(|at, _| *at > through);
        }
        Deed::Clear => {
            tables.clear()?;
            *model = Model {
                last: model.last,
                ..Model::default()
            };
        }
        Deed::Reopen => {}
    }
    model.compare(tables)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_catalog_does_what_a_simple_model_does(
        deeds in proptest::collection::vec((any_deed(), 0..10u8), 1..60),
        is_sender in any::<bool>(),
    ) {
        let role = if is_sender { Role::Sender } else { Role::Receiver };
        let home = Home::new();
        let mut catalog = home.catalog(role);
        let mut model = Model::default();
        for (deed, fate) in deeds {
            let mut changed = model.clone();
            // One in ten is thrown away.
            let result = catalog.update(fate == 1, |tables| {
                run(&deed, tables, &mut changed, role)?;
                if fate == 0 { Err(StoreError::NumbersExhausted) } else { Ok(()) }
            });
            prop_assert_eq!(result.is_ok(), fate != 0, "{:?}", result);
            if result.is_ok() {
                model = changed;
            }
            if matches!(deed, Deed::Reopen) {
                drop(catalog);
                catalog = home.catalog(role);
            }
            catalog.read(|view| model.compare(view)).unwrap();
        }
    }
}
