//! Subtrees that change at once: what people see is the old or the new one, and what they put there is not lost.

use super::*;
use crate::daemon::keeping::OldVersions;
use crate::daemon::receiver::publish::Replaced;
use driftless_protocol::message::{Content, FailureKind, InlineContent, OpBody};
use driftless_protocol::{Kind, RelPath};
use std::collections::HashSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::Duration;

mod strangers;

/// A replica in which `releases/*` and `current` are published at once.
fn bench_keeping(keeping: &Keeping) -> Bench {
    let mut bench = Bench::keeping(keeping);
    bench.publishes();
    bench
}

fn bench() -> Bench {
    bench_keeping(&Keeping::default())
}

fn file(at: Place, object: u64, text: &str) -> OpBody {
    let content = Content::Inline {
        digest: Digest::of(text.as_bytes()),
        bytes: InlineContent(text.as_bytes().to_vec()),
    };
    OpBody::PutFile {
        place: at,
        object: ObjectId(object),
        attributes: attributes(),
        content,
    }
}

impl Bench {
    fn publishes(&mut self) {
        let patterns = ["releases/*".parse().unwrap(), "current".parse().unwrap()];
        self.replica.publish_at_once(&patterns, &RelPath::root()).unwrap();
    }

    fn stage(&mut self, body: &OpBody) -> Result<(), ApplyError> {
        self.apply(|replica, t| replica.stage_for(t, body))
    }

    fn put_staged(&mut self, object: u64, at: Place, text: &str) {
        self.stage(&file(at.clone(), object, text)).unwrap();
        let catalog = self.replica.catalog.clone();
        let parent = catalog.read(|view| Ok(self.replica.directory(view, at.directory)));
        let staged = Staged::create(parent.unwrap().unwrap()).unwrap();
        staged.write_all_at(text.as_bytes(), 0).unwrap();
        let attributes = Attributes {
            mode: 0o644,
            ..attributes()
        };
        staged
            .set_attributes(&attributes, self.replica.terms.carried)
            .unwrap();
        let file = StagedFile {
            staged,
            size: text.len() as u64,
            digest: Digest::of(text.as_bytes()),
            attributes,
            refused: None,
            device: 0,
            is_flushed: false,
        };
        self.apply(|replica, t| replica.put_file(t, at, ObjectId(object), file))
            .unwrap();
    }

    fn make_staged(&mut self, object: u64, at: Place) {
        let body = OpBody::MakeDirectory {
            place: at.clone(),
            object: ObjectId(object),
            attributes: attributes(),
        };
        self.stage(&body).unwrap();
        self.make(object, at);
    }

    fn shift_staged(&mut self, object: u64, to: Place) -> Result<(), ApplyError> {
        self.stage(&OpBody::Move {
            object: ObjectId(object),
            to: to.clone(),
        })?;
        self.shift(object, to)
    }

    fn remove_staged(&mut self, object: u64) {
        self.stage(&OpBody::Remove {
            object: ObjectId(object),
            place: place(1, "unused"),
        })
        .unwrap();
        self.remove(object);
    }

    fn link_staged(&mut self, object: u64, at: Place, to: &str) {
        let body = OpBody::PutSymlink {
            place: at.clone(),
            object: ObjectId(object),
            attributes: attributes(),
            target: driftless_protocol::message::LinkTarget(to.as_bytes().to_vec()),
        };
        self.stage(&body).unwrap();
        self.apply(|replica, t| {
            replica.put_symlink(
                t,
                at,
                ObjectId(object),
                attributes(),
                &Xattrs::default(),
                to.as_bytes(),
            )
        })
        .unwrap();
    }

    fn set_staged(&mut self, object: u64, attributes: Attributes) {
        let object = ObjectId(object);
        self.stage(&OpBody::SetAttributes { object, attributes }).unwrap();
        self.apply(|replica, t| replica.set_attributes(t, object, attributes, &Xattrs::default()))
            .unwrap();
    }

    /// Makes a place another name of a file of the same group, whose content is "1".
    fn name_staged(&mut self, object: u64, at: Place, attributes: Attributes) {
        let catalog = self.replica.catalog.clone();
        let members = catalog.read(|view| view.child_entries(at.directory)).unwrap();
        let of_group = |entry: &&crate::store::Entry| entry.attributes.link_group == attributes.link_group;
        let to = members.iter().find(of_group).unwrap().object;
        let digest = Digest::of(b"1");
        self.stage(&file(at.clone(), object, "1")).unwrap();
        self.apply(|replica, t| {
            let about = (attributes, &Xattrs::default());
            replica.put_link(t, at, ObjectId(object), about, (to, digest))
        })
        .unwrap();
    }

    /// What a session does at a mark. Answers how many names changed.
    fn publish(&mut self) -> usize {
        let (names, replaced) = self.exchange();
        self.replica.dispose_of(replaced).unwrap();
        self.replica.commit_durably(None, false).unwrap();
        names
    }

    /// The first part of that, up to the end of the old trees.
    fn exchange(&mut self) -> (usize, Vec<Replaced>) {
        let ready = self.replica.prepare_publishing(false).unwrap();
        let names = ready.len();
        self.replica.finish_directories(&HashSet::new()).unwrap();
        let published = self.replica.publish(ready);
        published.outcome.unwrap();
        (names, published.replaced)
    }

    /// An op about an object and a place failed.
    fn fail(&mut self, object: u64, at: Place) {
        let catalog = self.replica.catalog.clone();
        catalog
            .read(|view| {
                self.replica.note_failed(view, Some(ObjectId(object)), Some(&at));
                Ok(())
            })
            .unwrap();
    }

    /// Two files in a release, visible.
    fn release(&mut self) {
        self.make_staged(10, place(1, "releases"));
        self.make_staged(11, place(10, "v1"));
        self.put_staged(12, place(11, "a"), "1");
        self.make_staged(13, place(11, "sub"));
        self.put_staged(14, place(13, "b"), "1");
        assert!(
            !self.path("releases/v1").exists(),
            "it comes at once, or not at all"
        );
        assert_eq!(self.publish(), 1);
        assert_eq!(self.both("v1"), "11");
    }

    fn both(&self, release: &str) -> String {
        self.read(&format!("releases/{release}/a")) + &self.read(&format!("releases/{release}/sub/b"))
    }

    /// The next start finds all as it was catalogued, and nothing of ours.
    fn check_rest(self) -> Bench {
        let names = self.names();
        let ours = names.iter().filter(|name| name.contains(".driftless"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
        let Bench { directory, replica } = self;
        drop(replica);
        let (root, home) = (directory.path().join("root"), directory.path().join("home"));
        let (replica, report) = open(&root, &home).unwrap();
        assert_eq!((report.changed, report.swept), (0, 0), "{report:?}");
        let unknown = replica.catalog.read(|view| {
            let mut unknown = Vec::new();
            view.for_each(&mut |entry: crate::store::Entry| {
                if entry.kind == Kind::File && entry.digest.is_none() {
                    unknown.push(entry.place.name);
                }
                Ok(())
            })?;
            Ok(unknown)
        });
        assert_eq!(unknown.unwrap(), [], "nothing has to be read again");
        let mut bench = Bench { directory, replica };
        bench.publishes();
        bench
    }
}

#[test]
fn a_tree_is_the_old_one_until_it_is_the_new_one() {
    let mut bench = bench();
    bench.release();
    let inode = |bench: &Bench, name: &str| bench.path(name).metadata().unwrap().ino();
    let (tree, kept) = (inode(&bench, "releases/v1"), inode(&bench, "releases/v1/sub/b"));
    let time = bench.path("releases").metadata().unwrap().modified().unwrap();
    bench.put_staged(12, place(11, "a"), "2");
    bench.put_staged(15, place(13, "c"), "2");
    assert_eq!(bench.both("v1"), "11");
    assert!(!bench.path("releases/v1/sub/c").exists());
    assert_eq!(bench.publish(), 1);
    assert_eq!(bench.both("v1"), "21");
    assert_eq!(bench.read("releases/v1/sub/c"), "2");
    assert_ne!(inode(&bench, "releases/v1"), tree, "another directory");
    assert_eq!(
        inode(&bench, "releases/v1/sub/b"),
        kept,
        "what did not change is not copied"
    );
    assert_eq!(
        bench.path("releases").metadata().unwrap().modified().unwrap(),
        time
    );
    assert_eq!(bench.publish(), 0);
    let mut bench = bench.check_rest();
    // And again, after a start.
    bench.remove_staged(14);
    assert_eq!(bench.both("v1"), "21");
    bench.publish();
    assert!(!bench.path("releases/v1/sub/b").exists());
    bench.check_rest();
}

#[test]
fn attributes_do_not_leak_through_what_is_shared() {
    let mut bench = bench();
    bench.release();
    let mode = |bench: &Bench| {
        bench
            .path("releases/v1/a")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    let wanted = Attributes {
        mode: 0o600,
        ..attributes()
    };
    let (object, xattrs) = (ObjectId(12), Xattrs::default());
    bench
        .stage(&OpBody::SetAttributes {
            object,
            attributes: wanted,
        })
        .unwrap();
    bench
        .apply(|replica, t| replica.set_attributes(t, object, wanted, &xattrs))
        .unwrap();
    assert_eq!(mode(&bench), 0o644);
    bench.publish();
    assert_eq!((mode(&bench), bench.both("v1")), (0o600, "11".to_owned()));
    bench.check_rest();
}

/// Attributes of what has several names are seen as soon as they are set, wherever it has one. That is no local edit.
#[test]
fn what_the_mirror_sets_under_one_name_is_nobodys_edit_under_another() {
    let mut bench = bench();
    bench.make_staged(10, place(1, "releases"));
    bench.put_staged(12, place(10, "a"), "1");
    let of_group = |seconds| Attributes {
        mode: 0o644,
        mtime: Timestamp::new(seconds, 0).unwrap(),
        link_group: ObjectId(12),
        ..attributes()
    };
    bench.set_staged(12, of_group(1));
    bench.name_staged(13, place(10, "b"), of_group(1));
    bench.publish();
    assert_eq!(bench.names(), ["releases", "releases/a", "releases/b"]);
    // One is touched, the other one goes.
    bench.remove_staged(13);
    bench.set_staged(12, of_group(2));
    bench.publish();
    assert_eq!(bench.names(), ["releases", "releases/a"]);
    // The same by an op that makes another name.
    bench.name_staged(14, place(10, "c"), of_group(3));
    bench.publish();
    bench.remove_staged(12);
    bench.name_staged(15, place(10, "d"), of_group(4));
    bench.publish();
    assert_eq!(bench.names(), ["releases", "releases/c", "releases/d"]);
}

#[test]
fn a_tree_that_is_renamed_arrives_and_goes_at_once() {
    let mut bench = bench();
    bench.release();
    bench.make_staged(21, place(10, "next"));
    bench.put_staged(22, place(21, "a"), "2");
    bench.make_staged(23, place(21, "sub"));
    bench.put_staged(24, place(23, "b"), "2");
    bench.publish();
    // The old one makes room, the new one takes its name.
    bench.shift_staged(11, place(10, "old")).unwrap();
    bench.shift_staged(21, place(10, "v1")).unwrap();
    assert_eq!((bench.both("v1"), bench.both("next")), ("11".into(), "22".into()));
    assert!(!bench.path("releases/old").exists());
    assert_eq!(bench.publish(), 3);
    assert_eq!((bench.both("v1"), bench.both("old")), ("22".into(), "11".into()));
    assert!(!bench.path("releases/next").exists());
    // One that takes the name of another, which is removed by its own op.
    bench.make_staged(31, place(10, "v1"));
    bench.put_staged(32, place(31, "only"), "3");
    bench.remove_staged(21);
    assert_eq!(bench.both("v1"), "22");
    bench.publish();
    assert_eq!(bench.read("releases/v1/only"), "3");
    assert!(!bench.path("releases/v1/a").exists());
    bench.remove_staged(11);
    assert_eq!(bench.both("old"), "11");
    bench.publish();
    assert!(!bench.path("releases/old").exists());
    bench.check_rest();
}

#[test]
fn a_link_follows_the_tree_that_it_leads_to() {
    let mut bench = bench();
    bench.release();
    bench.link_staged(40, place(1, "current"), "releases/v1");
    bench.publish();
    assert_eq!(bench.read("current/a"), "1");
    bench.link_staged(40, place(1, "current"), "releases/v2");
    bench.make_staged(41, place(10, "v2"));
    bench.put_staged(42, place(41, "a"), "2");
    bench.remove_staged(11);
    assert_eq!(bench.read("current/a"), "1");
    assert_eq!(bench.publish(), 3);
    assert_eq!(bench.read("current/a"), "2");
    assert!(!bench.path("releases/v1").exists());
    bench.check_rest();
}

#[test]
fn what_somebody_makes_meanwhile_is_carried_over() {
    let mut bench = bench();
    bench.release();
    // Of before: it is shared like everything else.
    fs::write(bench.path("releases/v1/upload-0"), "theirs").unwrap();
    bench.put_staged(12, place(11, "a"), "2");
    fs::write(bench.path("releases/v1/sub/upload"), "theirs").unwrap();
    fs::create_dir_all(bench.path("releases/v1/new/deep")).unwrap();
    fs::write(bench.path("releases/v1/new/deep/x"), "theirs").unwrap();
    let _socket = UnixListener::bind(bench.path("releases/v1/socket")).unwrap();
    // As an editor saves: one that the mirror does not change, and one that it does.
    for name in ["a", "sub/b"] {
        fs::write(bench.path("releases/v1/edited"), "edit").unwrap();
        fs::rename(
            bench.path("releases/v1/edited"),
            bench.path(&format!("releases/v1/{name}")),
        )
        .unwrap();
    }
    bench.publish();
    assert_eq!(bench.both("v1"), "2edit");
    for name in ["upload-0", "sub/upload", "new/deep/x"] {
        assert_eq!(bench.read(&format!("releases/v1/{name}")), "theirs");
    }
    assert!(bench.path("releases/v1/socket").exists());
    let names = bench.names();
    let kept: Vec<_> = names.iter().filter(|name| name.contains("-kept/")).collect();
    let kept = kept.iter().find(|name| name.ends_with("releases/v1/a")).unwrap();
    assert_eq!(bench.read(kept), "edit");
    let private = |name: &&String| name.contains(".driftless-") && !name.starts_with(".driftless-kept");
    assert!(!names.iter().any(|name| private(&name)), "{names:?}");
}

#[test]
fn an_entry_in_error_keeps_its_tree_as_it_is() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.fail(14, place(13, "b"));
    bench.make_staged(51, place(10, "other"));
    assert_eq!(bench.publish(), 1, "the other one");
    assert_eq!(bench.both("v1"), "11");
    bench.put_staged(14, place(13, "b"), "2");
    bench.replica.publishing.note_done(ObjectId(14));
    assert_eq!(bench.publish(), 1);
    assert_eq!(bench.both("v1"), "22");
    bench.check_rest();
}

/// What belongs to nobody knows which tree keeps all of them back, until that is known.
#[test]
fn an_entry_in_error_keeps_other_trees_only_while_its_place_is_unknown() {
    let mut bench = bench();
    bench.release();
    bench.link_staged(40, place(1, "current"), "releases/v1");
    bench.put_staged(12, place(11, "a"), "2");
    for object in [61, 62] {
        bench.fail(object, place(60, "of a directory that could not be made"));
    }
    assert_eq!(bench.publish(), 0);
    // One is in a tree, the other one is in none.
    bench.make_staged(59, place(1, "plain"));
    bench.fail(61, place(11, "new"));
    bench.fail(62, place(59, "new"));
    assert_eq!(bench.publish(), 1, "the link");
    assert_eq!(bench.both("v1"), "11");
    bench.fail(61, place(60, "nowhere again"));
    bench.fail(61, place(59, "new"));
    assert_eq!(
        bench.publish(),
        0,
        "what it left in the tree is not known to be right"
    );
    bench.replica.publishing.note_done(ObjectId(61));
    assert_eq!(bench.publish(), 1);
    assert_eq!(bench.both("v1"), "21");
}

#[test]
fn what_was_published_in_a_directory_that_is_removed_holds_nothing_up() {
    let keeping = Keeping {
        old: OldVersions::Trash {
            retention: Duration::from_secs(86_400),
        },
        ..Keeping::default()
    };
    let mut bench = bench_keeping(&keeping);
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.remove_staged(10);
    bench.link_staged(40, place(1, "current"), "releases/v1");
    assert_eq!(bench.publish(), 1);
    assert!(bench.path("current").is_symlink() && !bench.path("releases").exists());
}

#[test]
fn a_directory_above_goes_with_all_that_waits_in_it() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.make_staged(51, place(10, "other"));
    bench.remove_staged(10);
    assert_eq!(bench.names(), Vec::<String>::new());
    assert!(!bench.replica.publishing.is_awaited());
    assert_eq!(bench.publish(), 0);
    // Its number may come again at the same name.
    bench.release();
    bench.check_rest();
}

#[test]
fn what_was_not_published_is_gone_after_a_crash() {
    let mut bench = bench();
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    bench.make_staged(51, place(10, "new"));
    bench.put_staged(52, place(51, "x"), "2");
    bench.replica.commit_durably(None, false).unwrap();
    let mut bench = bench.reopen(&Keeping::default());
    bench.publishes();
    assert_eq!(bench.both("v1"), "11");
    assert_eq!(bench.names().len(), 5, "{:?}", bench.names());
    assert!(!bench.replica.publishing.is_awaited());
    // What the sender finds missing it sends again.
    bench.put_staged(12, place(11, "a"), "2");
    bench.publish();
    assert_eq!(bench.both("v1"), "21");
}

#[test]
fn a_directory_with_what_only_this_side_has_is_not_moved_in() {
    let mut bench = bench();
    bench.release();
    bench.make_staged(61, place(1, "build"));
    fs::write(bench.path("build/theirs"), "only here").unwrap();
    bench.replica.commit_durably(None, false).unwrap();
    let mut bench = bench.reopen(&Keeping::default());
    bench.publishes();
    let error = bench.shift_staged(61, place(10, "v2")).unwrap_err();
    assert_eq!(error.kind, FailureKind::Unsupported);
    assert!(error.text.contains("move it away"), "{}", error.text);
    assert_eq!(bench.read("build/theirs"), "only here");
}

#[test]
fn old_versions_go_to_the_trash_under_the_names_that_they_had() {
    let keeping = Keeping {
        old: OldVersions::Trash {
            retention: Duration::from_secs(86_400),
        },
        ..Keeping::default()
    };
    let mut bench = bench_keeping(&keeping);
    bench.release();
    bench.put_staged(12, place(11, "a"), "2");
    assert_eq!(bench.both("v1"), "11");
    bench.publish();
    assert_eq!(bench.both("v1"), "21");
    bench.remove_staged(11);
    assert_eq!(bench.both("v1"), "21");
    bench.publish();
    assert!(!bench.path("releases/v1").exists());
    let names = bench.names();
    let in_trash = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!(
        (in_trash("releases/v1/a"), in_trash("releases/v1/sub/b")),
        (2, 1),
        "{names:?}"
    );
}
