//! What a source makes of looks that see half of what happened.

use super::*;
use crate::daemon::{Deletes, Initial, TargetOptions};
use crate::engine::filter::FileSet;
use crate::engine::pending::{Hint, PendingOptions};
use crate::net::LinkOptions;
use crate::watch::{WatchChoice, WatchOptions};
use driftless_certs::Identity;
use driftless_protocol::{Carried, Digest, RelPath};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

mod away;
mod doubted;

struct Bench {
    directory: TempDir,
    source: Source,
}

impl Bench {
    /// A source with these directories, walked.
    fn new(directories: &[&str]) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("src");
        fs::create_dir(&root).unwrap();
        for name in directories {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        Bench::open(directory)
    }

    /// The same source in another run.
    fn restarted(self) -> Bench {
        drop(self.source);
        Bench::open(self.directory)
    }

    fn open(directory: TempDir) -> Bench {
        let root = directory.path().join("src");
        let identity = Identity::ephemeral().unwrap();
        let options = SenderOptions {
            mirror: None,
            home: Home::at(directory.path().join("home")),
            target: TargetOptions {
                display: "test::module".to_owned(),
                host: "localhost".to_owned(),
                port: 1,
                fingerprint: identity.fingerprint(),
                module: "module".to_owned(),
                path: RelPath::root(),
            },
            identity,
            source: root,
            follow: true,
            quiet: None,
            deletes: Deletes::Ask,
            delete_limit: None,
            approvals: None,
            requests: None,
            audit: false,
            gate: crate::daemon::Gate::default(),
            walks: crate::daemon::Turns::default(),
            transfers: crate::daemon::Turns::default(),
            readings: None,
            watch: WatchOptions {
                choice: WatchChoice::Poll,
                ..WatchOptions::default()
            },
            pending: PendingOptions::default(),
            initial: None,
            sparing: Default::default(),
            whole_files: false,
            delta_engine: None,
            large_files: None,
            append_only: FileSet::default(),
            filter: crate::engine::filter::Filter::everything(),
            compare: Default::default(),
            look_again: false,
            gives_up: false,
            accept_root: false,
            leaves_root: false,
            links: Default::default(),
            taken_as: Default::default(),
            modes: Default::default(),
            owners: Default::default(),
            link: LinkOptions::default(),
        };
        let mut source = Source::open(&options).unwrap();
        source
            .set_carried(Carried {
                owner: true,
                ..Carried::default()
            })
            .unwrap();
        source.scan().unwrap();
        Bench { directory, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("src").join(name)
    }

    fn object(&self, path: &str) -> ObjectId {
        let names = Path::new(path).iter();
        self.source
            .catalog
            .read(|view| {
                let mut at = ObjectId::ROOT;
                for name in names {
                    at = view.lookup(at, &self::name(name.to_str().unwrap()))?.unwrap();
                }
                Ok(at)
            })
            .unwrap()
    }

    fn look(&mut self, names: &[(ObjectId, &str)]) {
        let names: Vec<_> = names.iter().map(|(at, text)| (*at, name(text))).collect();
        self.source.look(&names, &[], &[]).unwrap();
        let counted = self.source.catalog.read(|view| {
            Ledger::of(
                view,
                Carried {
                    owner: true,
                    ..Carried::default()
                },
            )
        });
        assert_eq!(
            self.source.ledger.fold(),
            counted.unwrap().fold(),
            "the running sum is not that of the catalog"
        );
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// What an earlier run kept is believed until it differs from the target's; if it is wrong, it is counted anew before that counts
/// as a difference.
#[test]
fn a_wrong_sum_from_before_is_no_difference() {
    let mut bench = Bench::new(&["a", "b"]);
    let source = &mut bench.source;
    let carried = source.ledger.carried();
    let right = source.ledger.fold();
    assert!(!source.differs_from(right).unwrap());
    let known = source.catalog.read(|view| view.get(ObjectId::ROOT));
    let stray = Entry {
        object: ObjectId(77),
        ..known.unwrap().unwrap()
    };
    source.ledger.replace(None, Some(&stray));
    source.catalog.update(true, |t| source.ledger.keep(t)).unwrap();
    let wrong = source.ledger.fold();
    // As in the next run.
    source.is_summed = false;
    source.set_carried(carried).unwrap();
    assert!(source.ledger.is_from_before());
    assert!(!source.differs_from(wrong).unwrap(), "it is believed");
    assert!(source.ledger.is_from_before());
    assert!(!source.differs_from(right).unwrap(), "it was not counted again");
    assert!(source.differs_from(wrong).unwrap());
}

#[test]
fn directories_that_seem_to_be_in_each_other_are_counted_once() {
    let mut bench = Bench::new(&["a/b/c"]);
    let (a, b) = (bench.object("a"), bench.object("a/b"));
    fs::rename(bench.path("a/b"), bench.path("b")).unwrap();
    fs::rename(bench.path("a"), bench.path("b/a")).unwrap();
    // `a` is seen in `b` while `b` still stands in `a`, and then `b` is missed there.
    bench.look(&[(b, "a")]);
    bench.look(&[(a, "b")]);
    bench.look(&[(ObjectId::ROOT, "a"), (ObjectId::ROOT, "b")]);
    for path in ["b", "b/a", "b/c"] {
        bench.object(path);
    }
    let count = bench.source.catalog.read(|view| view.count()).unwrap();
    assert_eq!(count, 4, "the root and three directories");
}

impl Bench {
    /// Makes a file that the target has as it is.
    fn settled_file(&mut self, path: &str) -> ObjectId {
        fs::write(self.path(path), b"content").unwrap();
        self.source.scan().unwrap();
        self.settle(path)
    }

    fn settle(&mut self, path: &str) -> ObjectId {
        let object = self.object(path);
        let catalog = self.source.catalog.clone();
        catalog
            .update(false, |t| {
                let mut entry = t.get(object)?.unwrap();
                entry.flags = flags::ON_TARGET;
                entry.digest = Some(Digest::of(b"content"));
                self.source.put(t, &entry)
            })
            .unwrap();
        object
    }

    fn entry(&self, object: ObjectId) -> Entry {
        self.source
            .catalog
            .read(|view| view.get(object))
            .unwrap()
            .unwrap()
    }

    fn is_stale(&self, object: ObjectId) -> bool {
        self.entry(object).flags & flags::STALE != 0
    }

    fn tell(&mut self, text: &str, hint: Hint) {
        self.source.touched.note(&WatchEvent::At {
            directory: ObjectId::ROOT,
            name: name(text),
            hint,
            is_directory: false,
        });
    }

    /// Writes other bytes of the same number and puts the time back.
    fn rewrite(&self, path: &str) {
        let path = self.path(path);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, b"CONTENT").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before).unwrap();
    }
}

/// Moved away from where another file stands by now, it would leave that place empty until the other one comes.
#[test]
fn of_several_names_the_one_moves_whose_place_is_free() {
    for replaced in ["one", "two"] {
        let renamed = if replaced == "one" { "two" } else { "one" };
        let mut bench = Bench::new(&[]);
        bench.settled_file("one");
        bench.settled_file("over");
        fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
        bench.source.scan().unwrap();
        let [_, over] = ["one", "over"].map(|name| bench.settle(name));
        bench.settle("two");
        let (stays, moves) = (bench.object(replaced), bench.object(renamed));
        fs::write(bench.path("new"), b"another").unwrap();
        fs::rename(bench.path("new"), bench.path(replaced)).unwrap();
        fs::rename(bench.path(renamed), bench.path("over")).unwrap();
        // As after a restart: the only name that is left does not tell of the others.
        bench.source.linked.clear();
        bench.source.scan().unwrap();
        assert_eq!(bench.object(replaced), stays, "{replaced} was replaced in place");
        assert_eq!(bench.entry(stays).flags & flags::MOVED, 0);
        let there = bench.object("over");
        assert!(
            there == moves || there == over,
            "{there:?} is the name that was replaced"
        );
    }
}

#[test]
fn a_directory_that_took_a_name_of_a_file_is_entered_when_another_name_leads_there() {
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
    bench.source.scan().unwrap();
    fs::remove_file(bench.path("one")).unwrap();
    fs::remove_file(bench.path("two")).unwrap();
    fs::create_dir_all(bench.path("two/in")).unwrap();
    // Only the first name is told of; the second is looked at for its sake.
    bench.look(&[(ObjectId::ROOT, "one")]);
    bench.object("two/in");
}

#[test]
fn what_is_written_through_a_name_that_another_file_took_is_noticed_under_the_other_name() {
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    bench.settled_file("other");
    fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
    bench.source.scan().unwrap();
    let one = bench.settle("one");
    bench.settle("two");
    bench.rewrite("two");
    fs::copy(bench.path("other"), bench.path("new")).unwrap();
    fs::rename(bench.path("new"), bench.path("two")).unwrap();
    bench.look(&[(ObjectId::ROOT, "two"), (ObjectId::ROOT, "new")]);
    assert!(bench.is_stale(one));
}

#[test]
fn a_directory_is_not_looked_for_in_what_took_its_place() {
    let mut bench = Bench::new(&["a/c", "b/c"]);
    let (a, c) = (bench.object("a"), bench.object("a/c"));
    for (from, to) in [("a", "x"), ("b", "a"), ("x", "b")] {
        fs::rename(bench.path(from), bench.path(to)).unwrap();
    }
    bench.source.handles.clear();
    let catalog = bench.source.catalog.clone();
    for directory in [a, c] {
        let found = catalog
            .read(|view| bench.source.directory(view, directory))
            .unwrap();
        assert!(found.is_none());
    }
    fs::write(bench.path("b/c/file"), b"in the old a").unwrap();
    bench.source.scan().unwrap();
    assert_eq!(bench.object("b/c"), c);
    bench.object("b/c/file");
}

/// A look at a name goes on with what `stat` said, when the tree is another one already.
fn see_late(bench: &mut Bench, at: &str, stat: &Stat) -> Look {
    let catalog = bench.source.catalog.clone();
    let root = bench.source.root.clone();
    let mut look = Look::default();
    catalog
        .update(false, |t| {
            bench
                .source
                .see(t, &root, ObjectId::ROOT, name(at), stat, &mut look)
        })
        .unwrap();
    look
}

#[test]
fn a_directory_that_was_renamed_back_meanwhile_stays_where_it_is() {
    let mut bench = Bench::new(&["a"]);
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    let stat = bench.source.root.stat(&name("b")).unwrap().unwrap();
    fs::rename(bench.path("b"), bench.path("a")).unwrap();
    let look = see_late(&mut bench, "b", &stat);
    assert!(look.enter.is_empty());
    let found = bench
        .source
        .catalog
        .read(|view| view.lookup(ObjectId::ROOT, &name("b")));
    assert_eq!(found.unwrap(), None);
}

#[test]
fn another_directory_at_the_name_is_not_entered_for_the_one_that_was_seen() {
    let mut bench = Bench::new(&[]);
    fs::create_dir(bench.path("a")).unwrap();
    let stat = bench.source.root.stat(&name("a")).unwrap().unwrap();
    fs::rename(bench.path("a"), bench.path("b")).unwrap();
    fs::create_dir(bench.path("a")).unwrap();
    fs::create_dir(bench.path("a/other's")).unwrap();
    let mut look = see_late(&mut bench, "a", &stat);
    let catalog = bench.source.catalog.clone();
    catalog
        .update(false, |t| bench.source.enter_directories(t, &mut look))
        .unwrap();
    let seen = bench.object("a");
    let inside = catalog.read(|view| view.children(seen)).unwrap();
    assert!(inside.is_empty(), "{inside:?}");
    assert!(!bench.source.handles.contains_key(&seen));
    bench.source.scan().unwrap();
    assert_eq!(bench.object("b"), seen);
}

#[test]
fn a_file_system_under_another_device_number_is_the_same_one() {
    // All of it, or one that is mounted below.
    for top in ["", "a"] {
        let mut bench = Bench::new(&["a/b", "c"]);
        let file = bench.settled_file("a/b/file");
        let first_scan = |bench: &Bench| bench.source.catalog.read(|view| view.last_sequence()).unwrap();
        let before = first_scan(&bench);
        let top = bench.object(top);
        let catalog = bench.source.catalog.clone();
        catalog
            .update(false, |t| {
                let mut objects = vec![top];
                while let Some(object) = objects.pop() {
                    let mut entry = t.get(object)?.unwrap();
                    let mut stamp = stamp_of(&entry).unwrap();
                    stamp.device += 1;
                    entry.stamp = Some(stamp.to_bytes());
                    t.put(&entry)?;
                    objects.extend(t.children(object)?.into_iter().map(|(_, object)| object));
                }
                Ok(())
            })
            .unwrap();
        let found = bench.source.scan().unwrap();
        assert_eq!((found.changed, first_scan(&bench)), (0, before));
        assert_eq!(bench.object("a/b/file"), file);
        assert!(!bench.is_stale(file));
        assert!(bench.source.warnings.is_empty(), "{:?}", bench.source.warnings);
    }
}

#[test]
fn below_a_renamed_directory_nothing_is_looked_at_before_the_rename_was_sent() {
    let mut bench = Bench::new(&["old"]);
    fs::write(bench.path("old/told"), b"told").unwrap();
    bench.source.scan().unwrap();
    let object = bench.object("old");
    fs::rename(bench.path("old"), bench.path("new")).unwrap();
    fs::write(bench.path("new/untold"), b"untold").unwrap();
    bench.look(&[(ObjectId::ROOT, "new"), (ObjectId::ROOT, "old")]);
    assert_eq!(bench.object("new"), object);
    let below = |bench: &Bench| bench.source.catalog.read(|view| view.children(object)).unwrap();
    assert_eq!(below(&bench).len(), 1);

    let renamed = std::mem::take(&mut bench.source.renamed);
    assert_eq!(renamed, [object]);
    bench.source.look_below(renamed).unwrap();
    assert_eq!(below(&bench).len(), 2);
}

/// Who links a backup and renames the new version over the old never leaves the old name absent.
#[test]
fn a_file_that_got_another_name_before_its_own_was_replaced_has_not_moved() {
    for is_renamed in [false, true] {
        let mut bench = Bench::new(&[]);
        let file = bench.settled_file("file");
        fs::write(bench.path("new"), b"another").unwrap();
        if is_renamed {
            fs::rename(bench.path("file"), bench.path("backup")).unwrap();
            bench.source.touched.note(&WatchEvent::Renamed {
                from: (ObjectId::ROOT, name("file")),
                to: (ObjectId::ROOT, name("backup")),
                is_directory: false,
            });
        } else {
            fs::hard_link(bench.path("file"), bench.path("backup")).unwrap();
            bench.tell("backup", Hint::Created);
        }
        fs::rename(bench.path("new"), bench.path("file")).unwrap();
        bench.look(&[(ObjectId::ROOT, "backup"), (ObjectId::ROOT, "file")]);
        let moved = if is_renamed { "backup" } else { "file" };
        assert_eq!(bench.object(moved), file, "renamed: {is_renamed}");
    }
}

#[test]
fn what_is_written_through_a_name_that_is_gone_unseen_is_noticed_under_the_other_name() {
    let mut bench = Bench::new(&[]);
    let file = bench.settled_file("file");
    fs::hard_link(bench.path("file"), bench.path("passing")).unwrap();
    bench.look(&[(ObjectId::ROOT, "file")]);
    bench.settle("file");
    bench.rewrite("passing");
    fs::remove_file(bench.path("passing")).unwrap();
    bench.tell("passing", Hint::Modified);
    bench.look(&[(ObjectId::ROOT, "passing")]);
    assert!(bench.is_stale(file));
    // Its last other name is gone.
    assert!(bench.source.half_known.is_empty());
}

/// The same content under two names does not make them names of one file.
#[test]
fn a_name_that_was_parted_from_the_others_is_right_when_it_is_linked_again() {
    use crate::daemon::sender::work::{InFlight, Next, acknowledge, next};
    let mut bench = Bench::new(&[]);
    bench.settled_file("one");
    fs::hard_link(bench.path("one"), bench.path("two")).unwrap();
    bench.source.scan().unwrap();
    let (one, two) = (bench.settle("one"), bench.settle("two"));
    let before = bench.entry(two).sequence;
    let catalog = bench.source.catalog.clone();
    let in_flight = HashSet::new();
    catalog
        .update(false, |t| bench.source.part_names(t, one, &in_flight))
        .unwrap();
    assert_eq!(bench.entry(one).flags, flags::ON_TARGET);
    let parted = bench.entry(two);
    assert_eq!(parted.flags, flags::ON_TARGET | flags::STALE | flags::PARTED);
    assert!(parted.sequence > before, "it is in the journal again");
    assert!(matches!(next(&parted, false), Next::Read));
    // A link that was under way before may lead to the former file.
    for (sequence, is_right) in [(before, false), (parted.sequence, true)] {
        let link = InFlight::HardLink {
            object: two,
            sequence,
            place: parted.place.clone(),
            digest: Digest::of(b"content"),
            stamp: stamp_of(&parted),
            attributes: parted.attributes,
        };
        catalog
            .update(false, |t| acknowledge(&mut bench.source, t, &link))
            .unwrap();
        assert_eq!(bench.entry(two).flags == flags::ON_TARGET, is_right);
    }
}

impl Bench {
    /// Makes a file that is left as it is on the target.
    fn left_file(&mut self, path: &str) {
        let object = self.settled_file(path);
        self.leave(object);
    }

    fn leave(&mut self, object: ObjectId) {
        let catalog = self.source.catalog.clone();
        catalog
            .update(false, |t| {
                let mut entry = t.get(object)?.unwrap();
                (entry.flags, entry.sequence) = (flags::WITHHELD, 0);
                self.source.put(t, &entry)
            })
            .unwrap();
    }

    fn remove(&mut self, text: &str) {
        fs::remove_file(self.path(text)).unwrap();
        self.look(&[(ObjectId::ROOT, text)]);
    }

    fn gone(&mut self) -> Vec<String> {
        let gone = self.source.take_gone().unwrap();
        gone.iter().map(|gone| gone.place.name.to_string()).collect()
    }
}

#[test]
fn what_was_gone_before_the_start_is_not_removed_on_the_target() {
    let mut bench = Bench::new(&[]);
    for name in ["before", "after", "acknowledged"] {
        bench.settled_file(name);
    }
    bench.remove("before");
    bench.source.note_initial(Some(Initial::Skip)).unwrap();
    bench.remove("acknowledged");
    let last = bench.source.catalog.read(|view| view.last_sequence()).unwrap();
    bench.remove("after");
    bench.source.note_gone().unwrap();
    assert_eq!(bench.gone(), ["acknowledged", "after"]);
    bench.source.acknowledged = last;
    bench.source.note_gone().unwrap();
    assert_eq!(bench.gone(), ["after"]);
}

/// What the target can hold, and how modes are shown, is told after the start.
#[test]
fn what_is_seen_in_another_way_is_no_change_of_what_is_left() {
    let mut bench = Bench::new(&[]);
    let holds = |xattrs| Carried {
        owner: true,
        xattrs,
        ..Carried::default()
    };
    bench.source.set_carried(holds(XattrClasses::USER)).unwrap();
    for name in ["left", "uncompared"] {
        let path = bench.path(name);
        fs::write(&path, b"content").unwrap();
        rustix::fs::setxattr(&path, "user.note", b"one", rustix::fs::XattrFlags::empty()).unwrap();
    }
    bench.left_file("left");
    bench.source.note_initial(Some(Initial::Skip)).unwrap();
    let objects = ["left", "uncompared"].map(|name| bench.object(name));
    assert!(bench.entry(objects[0]).attributes.xattrs.is_some());
    bench.source.set_carried(holds(XattrClasses::NONE)).unwrap();
    let view = crate::fs::View {
        modes: crate::engine::mode::ModeChanges::parse("a=r", 0o022).unwrap(),
        ..Default::default()
    };
    let root = Directory::open_root(&bench.path("")).unwrap();
    bench.source.root = Arc::new(root.with_view(Arc::new(view)));
    bench.source.handles.clear();
    bench.source.scan().unwrap();
    for object in objects {
        let entry = bench.entry(object);
        assert_eq!(
            (entry.attributes.xattrs, entry.attributes.mode & 0o777),
            (None, 0o444)
        );
        assert!(bench.source.leaves(&entry, None), "{entry:?}");
    }
    assert!(bench.source.is_left(&bench.entry(objects[0])));
    // A change is one all the same.
    fs::write(bench.path("left"), b"changed").unwrap();
    bench.source.scan().unwrap();
    assert!(!bench.source.leaves(&bench.entry(objects[0]), None));
}

/// The threads that list a new directory read the attributes of what is in it, up to so many bytes; the rest is read as before.
#[test]
fn the_attributes_of_what_is_new_are_its_own_whoever_reads_them() {
    let mut bench = Bench::new(&[]);
    let carried = Carried {
        owner: true,
        xattrs: XattrClasses::USER,
        ..Carried::default()
    };
    bench.source.set_carried(carried).unwrap();
    let names: Vec<String> = (0..9).map(|number| format!("new/{number}")).collect();
    fs::create_dir(bench.path("new")).unwrap();
    for (number, name) in names.iter().enumerate() {
        fs::write(bench.path(name), b"content").unwrap();
        // Every third has none.
        if number % 3 > 0 {
            let value = vec![b'a' + number as u8; 20];
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(bench.path(name), "user.note", &value, flags).unwrap();
        }
    }
    bench.source.scan().unwrap();
    let directory = Directory::open_root(&bench.path("new")).unwrap();
    for (number, path) in names.iter().enumerate() {
        let found = directory.xattrs(&name(&path[4..]), XattrClasses::USER).unwrap();
        let digest = found.xattrs.digest();
        assert_eq!(digest.is_some(), number % 3 > 0);
        assert_eq!(
            bench.entry(bench.object(path)).attributes.xattrs,
            digest,
            "{path}"
        );
    }
}

/// An event can come before the walk that finds it.
#[test]
fn a_directory_that_is_seen_in_another_way_is_no_change_of_what_is_left() {
    let mut bench = Bench::new(&["left", "left/inner"]);
    bench.source.scan().unwrap();
    bench.source.note_initial(Some(Initial::Skip)).unwrap();
    let left = bench.object("left");
    bench.leave(left);
    let root = Directory::open_root(&bench.path("")).unwrap();
    let view = crate::fs::View {
        modes: crate::engine::mode::ModeChanges::parse("a=rx", 0o022).unwrap(),
        ..Default::default()
    };
    bench.source.root = Arc::new(root.with_view(Arc::new(view)));
    bench.source.handles.clear();
    bench.source.look(&[], &[left], &[left]).unwrap();
    let entry = bench.entry(left);
    assert_eq!(entry.attributes.mode & 0o777, 0o555);
    assert!(bench.source.is_left(&entry), "{entry:?}");
    // A change is one all the same.
    fs::write(bench.path("left/new"), b"content").unwrap();
    bench.source.look(&[], &[left], &[left]).unwrap();
    assert!(!bench.source.is_left(&bench.entry(left)));
}

#[test]
fn what_is_gone_is_looked_for_when_nothing_here_has_its_place() {
    let mut bench = Bench::new(&[]);
    for name in ["a", "b", "c"] {
        bench.left_file(name);
    }
    bench.source.note_initial(Some(Initial::Skip)).unwrap();
    for name in ["a", "b", "c"] {
        bench.remove(name);
    }
    for name in ["a", "b"] {
        fs::write(bench.path(name), b"content").unwrap();
        bench.look(&[(ObjectId::ROOT, name)]);
    }
    // What the target has in the place of those that could not be put is not to go.
    assert_eq!(bench.gone(), ["c"]);
    assert!(bench.gone().is_empty());
    // One is put; the other one goes before it could be.
    bench.settle("a");
    bench.remove("b");
    assert_eq!(bench.gone(), ["b"]);
    bench.remove("a");
    assert!(bench.gone().is_empty(), "its own number is removed");
}

/// A receiver that crashed may have made the directory of one that it knew by no number any more, and has all that was in it.
#[test]
fn what_went_with_its_directory_is_looked_for_in_the_one_that_took_its_place() {
    let mut bench = Bench::new(&[]);
    fs::create_dir(bench.path("a")).unwrap();
    fs::write(bench.path("a/file"), b"content").unwrap();
    bench.source.note_initial(Some(Initial::Skip)).unwrap();
    bench.look(&[(ObjectId::ROOT, "a")]);
    bench.source.scan().unwrap();
    fs::remove_dir_all(bench.path("a")).unwrap();
    bench.look(&[(ObjectId::ROOT, "a")]);
    bench.source.note_gone().unwrap();
    fs::create_dir(bench.path("a")).unwrap();
    bench.look(&[(ObjectId::ROOT, "a")]);
    assert!(bench.gone().is_empty(), "the new one may still take its place");
    let successor = bench.object("a");
    let catalog = bench.source.catalog.clone();
    let put = catalog.update(false, |t| {
        let mut entry = t.get(successor)?.unwrap();
        entry.flags = flags::ON_TARGET;
        bench.source.put(t, &entry)
    });
    put.unwrap();
    let gone = bench.source.take_gone().unwrap();
    let places: Vec<_> = gone.into_iter().map(|gone| gone.place).collect();
    let name = name("file");
    assert_eq!(
        places,
        [Place {
            directory: successor,
            name
        }]
    );
}
