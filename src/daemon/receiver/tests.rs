//! Ops on a replica, without a network: after each of them the sum must be that of the catalog, and the catalog that
//! of the disk.

use super::apply::StagedFile;
use super::look::{How, SCANS};
use super::replica::{ApplyError, Replica, ReplicaError, WalkReport};
use crate::daemon::keeping::Keeping;
use crate::daemon::ledger::Ledger;
use crate::engine::owners::OwnerMap;
use crate::fs::{Directory, Staged};
use crate::store::{Binding, CatalogRead, Tables};
use driftless_protocol::Xattrs;
use driftless_protocol::message::Place;
use driftless_protocol::{
    Attributes, Carried, Digest, Name, ObjectId, OwnerHere, OwnerKind, RelPath, Timestamp,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

mod failing;
mod keeping;
mod parked;
mod publish;
mod serving;

struct Bench {
    directory: TempDir,
    replica: Replica,
}

fn place(directory: u64, name: &str) -> Place {
    Place {
        directory: ObjectId(directory),
        name: Name::new(name.as_bytes()).unwrap(),
    }
}

fn attributes() -> Attributes {
    // Whoever runs the tests may set these.
    let meta = fs::metadata("/proc/self").unwrap();
    let (uid, gid) = (
        std::os::unix::fs::MetadataExt::uid(&meta),
        std::os::unix::fs::MetadataExt::gid(&meta),
    );
    Attributes {
        mode: 0o755,
        uid,
        gid,
        mtime: Timestamp::new(1_000_000, 5).unwrap(),
        ..Attributes::default()
    }
}

fn open(root: &Path, home: &Path) -> Result<(Replica, WalkReport), ReplicaError> {
    open_keeping(root, home, &Keeping::default())
}

fn open_keeping(root: &Path, home: &Path, keeping: &Keeping) -> Result<(Replica, WalkReport), ReplicaError> {
    Replica::open(
        Directory::open_root(root)?,
        root,
        home,
        (keeping, Arc::default()),
        None,
    )
}

impl Bench {
    fn new() -> Bench {
        Bench::keeping(&Keeping::default())
    }

    fn keeping(keeping: &Keeping) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let (replica, _) = open_keeping(&root, &directory.path().join("home"), keeping).unwrap();
        Bench { directory, replica }
    }

    /// Ends and starts again, with what was committed durably.
    fn reopen(self, keeping: &Keeping) -> Bench {
        let Bench { directory, replica } = self;
        drop(replica);
        let (root, home) = (directory.path().join("root"), directory.path().join("home"));
        let (replica, _) = open_keeping(&root, &home, keeping).unwrap();
        Bench { directory, replica }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Applies one op and checks the invariants.
    fn apply(
        &mut self,
        op: impl FnOnce(&mut Replica, &mut Tables<'_>) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let catalog = self.replica.catalog.clone();
        let outcome = catalog.update(false, |t| Ok(op(&mut self.replica, t))).unwrap();
        let counted = catalog
            .read(|view| Ledger::of(view, self.replica.terms.carried))
            .unwrap();
        assert_eq!(
            self.replica.ledger.fold(),
            counted.fold(),
            "the sum left the catalog"
        );
        outcome
    }

    fn put(&mut self, object: u64, at: Place, text: &str) {
        self.try_put(object, at, text).unwrap();
    }

    fn try_put(&mut self, object: u64, at: Place, text: &str) -> Result<(), ApplyError> {
        let catalog = self.replica.catalog.clone();
        let parent = catalog
            .read(|view| Ok(self.replica.directory(view, at.directory)))
            .unwrap()
            .unwrap();
        let staged = Staged::create(parent).unwrap();
        staged.write_all_at(text.as_bytes(), 0).unwrap();
        let file = StagedFile {
            staged,
            size: text.len() as u64,
            digest: Digest::of(text.as_bytes()),
            attributes: Attributes {
                mode: 0o644,
                ..attributes()
            },
            refused: None,
            device: 0,
            is_flushed: false,
        };
        self.apply(|replica, t| replica.put_file(t, at, ObjectId(object), file))
    }

    fn make(&mut self, object: u64, at: Place) {
        self.apply(|replica, t| {
            replica.make_directory(t, at, ObjectId(object), attributes(), &Xattrs::default())
        })
        .unwrap();
    }

    fn shift(&mut self, object: u64, to: Place) -> Result<(), ApplyError> {
        self.apply(|replica, t| replica.move_object(t, ObjectId(object), to, |_| None))
    }

    fn remove(&mut self, object: u64) {
        self.try_remove(object).unwrap();
    }

    fn try_remove(&mut self, object: u64) -> Result<(), ApplyError> {
        self.apply(|replica, t| replica.remove(t, ObjectId(object)))
    }

    /// Everything below the root, our private names included.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut directories = vec![self.path("")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                names.push(
                    path.strip_prefix(self.path(""))
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
                if path.is_dir() {
                    directories.push(path);
                }
            }
        }
        names.sort();
        names
    }
}

#[test]
fn two_files_swap_names() {
    let mut bench = Bench::new();
    bench.put(10, place(1, "a"), "A");
    bench.put(11, place(1, "b"), "B");
    bench.shift(10, place(1, "b")).unwrap();
    assert_eq!(bench.read("b"), "A");
    bench.shift(11, place(1, "a")).unwrap();
    assert_eq!(
        (bench.read("a"), bench.read("b"), bench.names().len()),
        ("B".into(), "A".into(), 2)
    );
}

#[test]
fn d06_a_chain_of_directories_rotates() {
    let mut bench = Bench::new();
    for (object, name) in [(10, "a"), (11, "b"), (12, "c")] {
        bench.make(object, place(1, name));
        bench.put(object + 10, place(object, "inside"), name);
    }
    for (object, to) in [(10, "b"), (11, "c"), (12, "a")] {
        bench.shift(object, place(1, to)).unwrap();
    }
    assert_eq!(
        (
            bench.read("a/inside"),
            bench.read("b/inside"),
            bench.read("c/inside")
        ),
        ("c".into(), "a".into(), "b".into())
    );
    assert_eq!(bench.names().len(), 6);
}

#[test]
fn what_was_displaced_is_removed_by_its_own_op() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "x"));
    bench.put(11, place(10, "inside"), "old");
    bench.put(12, place(1, "x"), "a file now");
    assert_eq!(bench.read("x"), "a file now");
    assert_eq!(
        bench.names().len(),
        3,
        "the directory is parked: its own op is still to come"
    );
    bench.remove(10);
    assert_eq!(bench.names(), ["x"]);
    bench.remove(10);
    assert_eq!(bench.read("x"), "a file now", "redelivery is harmless");
}

/// After a crash of the receiver the same file can be found at its old and at its new name.
#[test]
fn what_was_displaced_is_removed_when_another_gets_its_number() {
    let mut bench = Bench::new();
    bench.put(10, place(1, "old"), "same");
    bench.put(11, place(1, "new"), "same");
    bench.make(12, place(1, "old"));
    assert_eq!(bench.names().len(), 3, "the file is parked");
    bench
        .apply(|replica, t| replica.adopt(t, &place(1, "new"), ObjectId(10)))
        .unwrap();
    assert_eq!(bench.names(), ["new", "old"]);
    assert_eq!(bench.read("new"), "same");
    bench.put(10, place(1, "new"), "next");
    assert_eq!(bench.names(), ["new", "old"]);
}

#[test]
fn a_removal_spares_what_moved_away() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "from"));
    bench.put(11, place(10, "kept"), "kept");
    bench.shift(11, place(1, "kept")).unwrap();
    bench.remove(10);
    assert_eq!(bench.names(), ["kept"]);
}

#[test]
fn adoption_and_release_keep_the_disk_and_the_sum() {
    let bench = Bench::new();
    fs::create_dir(bench.path("theirs")).unwrap();
    fs::write(bench.path("theirs/file"), "x").unwrap();
    let (root, home) = (bench.path(""), bench.directory.path().join("home"));
    let Bench { directory, replica } = bench;
    drop(replica);
    let (replica, report) = open(&root, &home).unwrap();
    assert_eq!(report.entries, 2);
    let mut bench = Bench { directory, replica };
    let empty = bench.replica.ledger.fold();
    bench
        .apply(|replica, t| replica.adopt(t, &place(1, "theirs"), ObjectId(50)))
        .unwrap();
    assert_ne!(bench.replica.ledger.fold(), empty);
    bench
        .apply(|replica, t| replica.adopt(t, &place(50, "file"), ObjectId(51)))
        .unwrap();
    let taken = bench.apply(|replica, t| replica.adopt(t, &place(50, "file"), ObjectId(50)));
    assert!(taken.is_err());
    bench
        .apply(|replica, t| replica.release(t, ObjectId(50)))
        .unwrap();
    assert_eq!(bench.replica.ledger.fold(), empty);
    assert_eq!(bench.read("theirs/file"), "x");
}

/// After a crash the disk can be ahead of the catalog. Neither tree is taken for the other, whether what stood there is gone before that is
/// found, and whatever took its place.
#[test]
fn directories_that_changed_places_unseen_are_not_mistaken() {
    let after = |edit: &dyn Fn(&Bench)| {
        let mut bench = Bench::new();
        for (object, name) in [(10, "a"), (11, "b")] {
            bench.make(object, place(1, name));
            bench.put(object + 10, place(object, "inside"), name);
        }
        bench.replica.commit_durably(None, true).unwrap();
        edit(&bench);
        let bench = bench.reopen(&Keeping::default());
        let number = |name| {
            let name = place(1, name).name;
            let found = bench
                .replica
                .catalog
                .read(|view| view.lookup(ObjectId::ROOT, &name));
            found.unwrap().filter(|object| !object.is_local())
        };
        (number("a"), number("b"))
    };
    let shift = |bench: &Bench, from: &str, to: &str| fs::rename(bench.path(from), bench.path(to)).unwrap();
    let exchanged = after(&|bench| {
        shift(bench, "a", "aside");
        shift(bench, "b", "a");
        shift(bench, "aside", "b");
    });
    assert_eq!(exchanged, (None, None));
    let moved_over = |bench: &Bench| {
        fs::remove_dir_all(bench.path("b")).unwrap();
        shift(bench, "a", "b");
    };
    assert_eq!(after(&moved_over), (None, None));
    let replaced = after(&|bench| {
        moved_over(bench);
        fs::write(bench.path("a"), "a file").unwrap();
    });
    assert_eq!(replaced, (None, None));
    // A backup that was put back, say.
    let copied = after(&|bench| {
        shift(bench, "a", "away");
        fs::create_dir(bench.path("a")).unwrap();
    });
    assert_eq!(copied, (Some(ObjectId(10)), Some(ObjectId(11))));
}

/// A process that was killed between a deed and its note leaves what no sum counts; so does a number that went elsewhere. Equal
/// sums say nothing then, whatever happens before the next comparison.
#[test]
fn what_no_sum_counts_is_remembered_until_it_is_compared() {
    let mut bench = Bench::new();
    bench.put(10, place(1, "a"), "A");
    bench.put(11, place(1, "b"), "B");
    bench.replica.commit_durably(None, false).unwrap();
    assert!(!bench.replica.has_strangers().unwrap());
    fs::write(bench.path("c"), "C").unwrap();
    let mut bench = bench.reopen(&Keeping::default());
    assert!(bench.replica.has_strangers().unwrap());
    let mut bench = {
        bench.replica.commit_durably(None, false).unwrap();
        bench.reopen(&Keeping::default())
    };
    assert!(bench.replica.has_strangers().unwrap(), "the walk knows it by now");
    bench.replica.commit_durably(None, true).unwrap();
    assert!(!bench.replica.has_strangers().unwrap());
    bench
        .apply(|replica, t| replica.adopt(t, &place(1, "b"), ObjectId(10)))
        .unwrap();
    assert!(bench.replica.has_strangers().unwrap() && bench.replica.has_new_strangers);
}

/// A sender that lost its catalog puts an object where it was long ago. What it was moved to since may be another object's place by
/// now, which is not there yet: until the next mark the name must not be absent.
#[test]
fn what_an_object_left_stays_until_what_replaces_it_has_come() {
    let mut bench = Bench::new();
    bench.put(10, place(1, "a"), "A");
    let to = place(1, "b");
    bench
        .apply(|replica, t| replica.move_object(t, ObjectId(10), to, |_| None))
        .unwrap();
    bench.replica.commit_durably(None, true).unwrap();
    bench.put(10, place(1, "a"), "new");
    assert_eq!((bench.read("a").as_str(), bench.read("b").as_str()), ("new", "A"));
    // A comparison before that knew nothing of it.
    bench.replica.commit_durably(None, true).unwrap();
    assert!(
        bench.replica.has_strangers().unwrap(),
        "after a crash, or in the next connection, it is to be compared"
    );
    bench.replica.former.date(7);
    assert!(!bench.replica.former.is_due(7));
    let remove = |bench: &mut Bench| {
        assert!(bench.replica.former.is_due(8));
        bench
            .apply(|replica, t| replica.remove_former(t, 8).map(drop))
            .unwrap();
        assert!(!bench.replica.has_strangers().unwrap());
    };
    // The one that it is the place of by now.
    bench.put(11, place(1, "b"), "B");
    remove(&mut bench);
    assert_eq!(bench.read("b"), "B");
    // And if there is none.
    bench.put(11, place(1, "c"), "C");
    bench.replica.former.date(7);
    assert!(bench.names().contains(&"b".to_owned()));
    remove(&mut bench);
    assert!(!bench.names().contains(&"b".to_owned()));
}

/// Each start begins a generation, which moves the times of the root.
#[test]
fn a_bound_tree_takes_its_sum_over_at_each_start() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "a"));
    bench.make(11, place(10, "b"));
    let binding = Binding {
        mirror: 1,
        peer: [7; 32],
        source: "/source".to_owned(),
        carried: Carried::default(),
        generation: bench.replica.state.generation().unwrap(),
    };
    bench.replica.state.bind(&binding).unwrap();
    bench.replica.write_generation().unwrap();
    bench.replica.finish_directories(&Default::default()).unwrap();
    bench.replica.commit_durably(None, true).unwrap();
    let sum = bench.replica.ledger.fold();
    for _ in 0..3 {
        bench = bench.reopen(&Keeping::default());
        assert!(bench.replica.ledger.is_from_before());
        assert_eq!(bench.replica.ledger.fold(), sum);
    }
    // What somebody else did meanwhile is in no sum that was kept.
    fs::set_permissions(bench.path("a"), fs::Permissions::from_mode(0o700)).unwrap();
    bench = bench.reopen(&Keeping::default());
    assert!(!bench.replica.ledger.is_from_before());
    assert_ne!(bench.replica.ledger.fold(), sum);
}

/// What a crash left is swept, and its directory looks as if it had never been there.
#[test]
fn a_sweep_leaves_the_time_of_its_directory() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "d"));
    bench
        .apply(|replica, t| replica.set_attributes(t, ObjectId(10), attributes(), &Xattrs::default()))
        .unwrap();
    bench.replica.commit_durably(None, false).unwrap();
    let modified = |bench: &Bench| fs::metadata(bench.path("d")).unwrap().modified().unwrap();
    let before = modified(&bench);
    fs::write(bench.path("d/.driftless-0123456789abcdef"), "left").unwrap();
    fs::File::open(bench.path("d"))
        .unwrap()
        .set_modified(before)
        .unwrap();
    let bench = bench.reopen(&Keeping::default());
    assert_eq!(bench.names(), ["d"]);
    assert_eq!(modified(&bench), before);
}

#[test]
fn directories_that_changed_names_change_numbers() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "a"));
    bench.put(11, place(10, "first"), "first");
    bench.make(12, place(1, "b"));
    bench.put(13, place(12, "second"), "second");
    // At the source, what was `a` is called `b` now, and the other way round; a comparison hands out the numbers.
    for (name, number) in [("a", 12), ("b", 10)] {
        bench
            .apply(|replica, t| replica.adopt(t, &place(1, name), ObjectId(number)))
            .unwrap();
    }
    bench.put(14, place(12, "new"), "new");
    assert_eq!(
        (bench.read("a/first"), bench.read("a/new")),
        ("first".into(), "new".into())
    );
    assert_eq!(bench.read("b/second"), "second");
    let counted = bench
        .replica
        .catalog
        .read(|view| Ledger::of(view, bench.replica.terms.carried));
    assert_eq!(bench.replica.ledger.fold(), counted.unwrap().fold());
}

#[test]
fn an_op_on_something_unknown_fails_and_changes_nothing() {
    let mut bench = Bench::new();
    assert!(bench.shift(99, place(1, "x")).is_err());
    assert!(
        bench
            .apply(|replica, t| replica.set_attributes(t, ObjectId(99), attributes(), &Xattrs::default()))
            .is_err()
    );
    let nowhere = bench.apply(|replica, t| {
        replica.make_directory(t, place(99, "x"), ObjectId(5), attributes(), &Xattrs::default())
    });
    assert!(nowhere.is_err() && bench.names().is_empty());
}

#[test]
fn s02_a_directory_that_somebody_swapped_is_not_written_into() {
    let mut bench = Bench::new();
    bench.make(10, place(1, "d"));
    fs::create_dir(bench.directory.path().join("outside")).unwrap();
    fs::rename(bench.path("d"), bench.path("was-d")).unwrap();
    std::os::unix::fs::symlink("../outside", bench.path("d")).unwrap();
    // A fresh handle has to be found by name.
    bench.replica.forget_handle(ObjectId(10));
    let through = bench.apply(|replica, t| {
        replica.make_directory(t, place(10, "x"), ObjectId(11), attributes(), &Xattrs::default())
    });
    assert!(through.is_err());
    assert_eq!(
        fs::read_dir(bench.directory.path().join("outside"))
            .unwrap()
            .count(),
        0
    );
}

/// Many files with several names each may be in doubt at a time; the catalog is gone through once for all of them.
#[test]
fn all_names_of_files_in_doubt_are_in_doubt_after_one_look_at_the_catalog() {
    let mut bench = Bench::new();
    for (object, name) in [(10, "a"), (11, "b"), (12, "c"), (13, "d"), (14, "alone")] {
        bench.put(object, place(1, name), "content");
    }
    let catalog = bench.replica.catalog.clone();
    let group = |object: u64| ObjectId(object - object % 2);
    catalog
        .update(false, |t| {
            for object in 10..14 {
                let mut entry = t.get(ObjectId(object))?.unwrap();
                entry.attributes.link_group = group(object);
                bench.replica.put(t, &entry)?;
            }
            Ok(())
        })
        .unwrap();
    let before = SCANS.get();
    let paths = [b"a", b"c"].map(|path| RelPath::parse(path).unwrap());
    let found = bench.replica.look_again(&paths, How::Doubt).unwrap();
    assert_eq!(found.changed.len(), 2, "{found:?}");
    assert_eq!(SCANS.get() - before, 1);
    let known = |object| catalog.read(|view| Ok(view.get(ObjectId(object))?.unwrap().digest.is_some()));
    let known: Vec<bool> = (10..15).map(|object| known(object).unwrap()).collect();
    assert_eq!(known, [false, false, false, false, true]);
}

fn owner(bench: &Bench, object: u64) -> u32 {
    let entry = bench.replica.catalog.read(|view| view.get(ObjectId(object)));
    entry.unwrap().unwrap().attributes.uid
}

/// While owners do not count, the catalog has what the sender said. Once they do, it has what the disk has.
#[test]
fn owners_that_begin_to_count_are_those_of_the_disk() {
    let mut bench = Bench::new();
    let with = |owner| Carried {
        owner,
        ..Carried::default()
    };
    bench.replica.set_carried(with(false)).unwrap();
    let theirs = Attributes {
        uid: 123_456,
        ..attributes()
    };
    bench
        .apply(|replica, t| {
            replica.make_directory(t, place(1, "d"), ObjectId(10), theirs, &Xattrs::default())
        })
        .unwrap();
    assert_eq!(owner(&bench, 10), 123_456);
    bench.replica.set_carried(with(true)).unwrap();
    assert_eq!(owner(&bench, 10), attributes().uid);
    let counted = bench.replica.catalog.read(|view| Ledger::of(view, with(true)));
    assert_eq!(bench.replica.ledger.fold(), counted.unwrap().fold());
}

/// Under another map an entry belongs to somebody else, also after a restart; its content stays known.
#[test]
fn another_map_makes_other_owners_and_leaves_contents_alone() {
    let mut bench = Bench::new();
    let carried = Carried {
        owner: true,
        ..Carried::default()
    };
    bench.replica.set_carried(carried).unwrap();
    let me = attributes().uid;
    let map = |id, here| {
        let mut map = OwnerMap::default();
        map.set(OwnerHere {
            kind: OwnerKind::User,
            id,
            here: Some(here),
        });
        map
    };
    // Number 7 000 000 of the sender's is whoever runs this.
    bench
        .apply(|replica, t| Ok(replica.set_owners(t, map(7_000_000, me))?))
        .unwrap();
    bench.put(10, place(1, "file"), "content");
    assert_eq!(owner(&bench, 10), me);
    bench
        .apply(|replica, t| {
            let attributes = Attributes {
                uid: 7_000_000,
                ..attributes()
            };
            replica.set_attributes(t, ObjectId(10), attributes, &Xattrs::default())
        })
        .unwrap();
    assert_eq!(owner(&bench, 10), 7_000_000);
    let (root, home) = (bench.path(""), bench.directory.path().join("home"));
    drop(bench.replica);
    let (replica, report) = open(&root, &home).unwrap();
    assert_eq!(report.changed, 0, "{report:?}");
    bench.replica = replica;
    bench.replica.set_carried(carried).unwrap();
    assert_eq!(owner(&bench, 10), 7_000_000);
    bench
        .apply(|replica, t| Ok(replica.set_owners(t, map(7_000_000, me + 1))?))
        .unwrap();
    assert_eq!(
        owner(&bench, 10),
        me,
        "who is not the sender's any more means himself"
    );
    let known = bench.replica.catalog.read(|view| view.get(ObjectId(10)));
    assert_eq!(known.unwrap().unwrap().digest, Some(Digest::of(b"content")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any sequence of puts, moves and removals ends like the same sequence on a map.
    #[test]
    fn random_ops_end_as_a_model_does(ops in prop::collection::vec((0u8..3, 0u64..8, 0u8..5), 1..40)) {
        let names = ["a", "b", "c", "d", "e"];
        let mut bench = Bench::new();
        // Object to name, for what stands at a public name.
        let mut model: BTreeMap<u64, &str> = BTreeMap::new();
        // What an object leaves when it is put elsewhere, and not moved.
        let mut left = BTreeSet::new();
        for (kind, object, name) in ops {
            let (object, name) = (object + 10, names[name as usize]);
            match kind {
                0 => {
                    model.retain(|other, at| *at != name || *other == object);
                    left.extend(model.insert(object, name));
                    left.remove(name);
                    bench.put(object, place(1, name), &format!("{object}"));
                }
                1 if model.contains_key(&object) => {
                    model.retain(|other, at| *at != name || *other == object);
                    model.insert(object, name);
                    left.remove(name);
                    bench.shift(object, place(1, name)).unwrap();
                }
                2 if model.contains_key(&object) => {
                    model.remove(&object);
                    bench.remove(object);
                }
                _ => {}
            }
        }
        let on_disk: Vec<_> = bench.names().into_iter().filter(|name| !name.starts_with(".driftless")).collect();
        let mut wanted: Vec<_> = model.values().chain(&left).map(|name| name.to_string()).collect();
        wanted.sort();
        prop_assert_eq!(on_disk, wanted);
        prop_assert!(left.is_empty() || bench.replica.has_strangers().unwrap());
        for (object, name) in model {
            prop_assert_eq!(bench.read(name), object.to_string());
        }
        let reserved = bench.replica.catalog.read(|view| {
            let children = view.children(ObjectId::ROOT)?;
            Ok(children.iter().filter(|(name, _)| name.is_reserved()).count())
        }).unwrap();
        let parked = bench.names().iter().filter(|name| name.starts_with(".driftless")).count();
        prop_assert_eq!(reserved, parked, "every parked object is known");
    }
}
