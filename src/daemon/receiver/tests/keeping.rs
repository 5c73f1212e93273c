//! What loses its name, under each policy: nothing that was to be kept is ever lost, also where a run is cut off.

use super::*;
use crate::daemon::keeping::{Backup, Drift, OldVersions};
use crate::fs::displaced_name;
use driftless_protocol::message::FailureKind;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

fn drift(drift: Drift) -> Keeping {
    Keeping {
        drift,
        ..Keeping::default()
    }
}

fn trash() -> Keeping {
    Keeping {
        drift: Drift::Overwrite,
        old: OldVersions::Trash {
            retention: Duration::from_secs(86_400),
        },
    }
}

fn backup(directory: Option<&str>, suffix: &str) -> Keeping {
    let directory = directory.map(|name| Name::new(name.as_bytes()).unwrap());
    let suffix = suffix.as_bytes().to_vec();
    Keeping {
        drift: Drift::Overwrite,
        old: OldVersions::Backup(Backup { directory, suffix }),
    }
}

impl Bench {
    /// What is on a shelf: path and content, in order.
    fn shelf(&self, name: &str) -> Vec<(String, String)> {
        let prefix = format!(".driftless-{name}/");
        let mut found = Vec::new();
        for path in self.names() {
            let Some((_, was)) = path.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
                continue;
            };
            let at = self.path(&path);
            if let Ok(target) = fs::read_link(&at) {
                found.push((was.to_owned(), format!("-> {}", target.display())));
            } else if at.is_file() {
                found.push((was.to_owned(), self.read(&path)));
            }
        }
        found.sort();
        found
    }

    /// Names that a mirror sees.
    fn public(&self) -> Vec<String> {
        let names = self.names().into_iter();
        names.filter(|name| !name.starts_with(".driftless")).collect()
    }

    /// As a sender would have it after a while.
    fn settle(&mut self) {
        self.replica.commit_durably(None, false).unwrap();
    }

    fn no_leftovers(&self) {
        let left = self
            .names()
            .into_iter()
            .find(|name| name.contains(".driftless-old-"));
        assert_eq!(left, None);
    }
}

fn pair(path: &str, content: &str) -> (String, String) {
    (path.to_owned(), content.to_owned())
}

fn kind(outcome: Result<(), ApplyError>) -> FailureKind {
    outcome.unwrap_err().kind
}

#[test]
fn a_local_edit_is_set_aside_and_what_the_mirror_wrote_is_not() {
    let mut bench = Bench::keeping(&drift(Drift::Keep));
    bench.make(10, place(1, "d"));
    bench.put(11, place(10, "f"), "first");
    bench.put(11, place(10, "f"), "second");
    assert_eq!(bench.shelf("kept"), []);
    fs::write(bench.path("d/f"), "edited").unwrap();
    bench.put(11, place(10, "f"), "third");
    assert_eq!(bench.shelf("kept"), [pair("d/f", "edited")]);
    // Made where the catalog has nothing.
    fs::write(bench.path("d/new"), "theirs").unwrap();
    bench.put(12, place(10, "new"), "ours");
    assert_eq!(
        (bench.read("d/f"), bench.read("d/new")),
        ("third".into(), "ours".into())
    );
    assert_eq!(
        bench.shelf("kept"),
        [pair("d/f", "edited"), pair("d/new", "theirs")]
    );
    // Attributes are no edit, nor is the same content written again, nor what is to be put anyway.
    fs::set_permissions(bench.path("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.put(11, place(10, "f"), "fourth");
    fs::write(bench.path("d/f"), "fourth").unwrap();
    bench.put(11, place(10, "f"), "fifth!");
    fs::write(bench.path("d/f"), "sixth!").unwrap();
    bench.put(11, place(10, "f"), "sixth!");
    assert_eq!(bench.shelf("kept").len(), 2);
    // A link in the place of a file is an edit, a file in the place of one that vanished is none.
    fs::remove_file(bench.path("d/f")).unwrap();
    bench.put(11, place(10, "f"), "seventh");
    fs::remove_file(bench.path("d/f")).unwrap();
    std::os::unix::fs::symlink("new", bench.path("d/f")).unwrap();
    bench.put(11, place(10, "f"), "eighth");
    assert_eq!(
        (bench.shelf("kept").len(), bench.read("d/f")),
        (3, "eighth".into())
    );
    bench.no_leftovers();
}

#[test]
fn a_local_edit_that_is_refused_stays_as_it_is() {
    let mut bench = Bench::keeping(&drift(Drift::Refuse));
    bench.make(10, place(1, "d"));
    bench.put(11, place(10, "f"), "first");
    bench.put(11, place(10, "f"), "second");
    fs::write(bench.path("d/f"), "edited").unwrap();
    let refused = bench.try_put(11, place(10, "f"), "third").unwrap_err();
    assert_eq!(refused.kind, FailureKind::Refused);
    assert!(
        refused.text.contains("d/f was changed") && refused.text.contains("--drift keep"),
        "{}",
        refused.text
    );
    assert_eq!(kind(bench.try_remove(11)), FailureKind::Refused);
    assert_eq!(kind(bench.try_remove(10)), FailureKind::Refused);
    let attributes = |replica: &mut Replica, t: &mut Tables<'_>| {
        replica.set_attributes(t, ObjectId(11), attributes(), &Xattrs::default())
    };
    assert_eq!(kind(bench.apply(attributes)), FailureKind::Refused);
    let linked = |replica: &mut Replica, t: &mut Tables<'_>| {
        let (at, link) = (place(10, "f"), &Xattrs::default());
        replica.put_symlink(t, at, ObjectId(12), super::attributes(), link, b"x")
    };
    assert_eq!(kind(bench.apply(linked)), FailureKind::Refused);
    fs::write(bench.path("d/new"), "theirs").unwrap();
    assert_eq!(
        kind(bench.try_put(13, place(10, "new"), "ours")),
        FailureKind::Refused
    );
    // Nor does it lose its place to what moves.
    bench.put(14, place(1, "moves"), "moves");
    assert_eq!(kind(bench.shift(14, place(10, "f"))), FailureKind::Refused);
    assert_eq!(
        (bench.read("d/f"), bench.read("d/new"), bench.read("moves")),
        ("edited".into(), "theirs".into(), "moves".into())
    );
    assert_eq!(bench.public(), ["d", "d/f", "d/new", "moves"]);
    bench.no_leftovers();
    // Somebody decided.
    fs::remove_file(bench.path("d/new")).unwrap();
    fs::write(bench.path("d/f"), "third").unwrap();
    bench.put(13, place(10, "new"), "ours");
    bench.put(11, place(10, "f"), "third");
    bench.remove(10);
    assert_eq!(bench.public(), ["moves"]);
}

/// As a receiver without privileges: whose file cannot be read may be an edit, and must not keep the mirror from mending it.
#[test]
fn what_cannot_be_read_counts_as_an_edit() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    for policy in [drift(Drift::Keep), drift(Drift::Refuse)] {
        let mut bench = Bench::keeping(&policy);
        bench.put(10, place(1, "f"), "content");
        fs::set_permissions(bench.path("f"), fs::Permissions::from_mode(0o000)).unwrap();
        let put = std::thread::scope(|scope| {
            let put = || {
                let mut left = capabilities(None).unwrap();
                left.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
                set_capabilities(None, left).unwrap();
                assert!(fs::read(bench.path("f")).is_err());
                bench.try_put(10, place(1, "f"), "another")
            };
            scope.spawn(put).join().unwrap()
        });
        if policy.drift == Drift::Refuse {
            assert_eq!(kind(put), FailureKind::Refused);
            continue;
        }
        put.unwrap();
        assert_eq!(bench.read("f"), "another");
        let aside = bench
            .names()
            .into_iter()
            .find(|name| name.ends_with("/f"))
            .unwrap();
        fs::set_permissions(bench.path(&aside), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(bench.shelf("kept"), [pair("f", "content")]);
        bench.no_leftovers();
    }
}

#[test]
fn of_a_directory_that_goes_only_the_edits_are_kept() {
    let mut bench = Bench::keeping(&drift(Drift::Keep));
    bench.make(10, place(1, "d"));
    bench.make(11, place(10, "e"));
    bench.put(12, place(11, "ours"), "ours");
    bench.put(13, place(10, "edited"), "ours");
    fs::write(bench.path("d/edited"), "edited").unwrap();
    fs::create_dir_all(bench.path("d/made/here")).unwrap();
    fs::write(bench.path("d/made/here/x"), "x").unwrap();
    fs::create_dir(bench.path("d/empty")).unwrap();
    bench.remove(10);
    assert_eq!(bench.public(), [""; 0]);
    assert_eq!(
        bench.shelf("kept"),
        [pair("d/edited", "edited"), pair("d/made/here/x", "x")]
    );
    // Without any, nothing is.
    bench.make(20, place(1, "d"));
    bench.put(21, place(20, "ours"), "ours");
    bench.remove(20);
    assert_eq!(bench.shelf("kept").len(), 2);
    // A file takes the place of a directory that somebody filled: what was displaced is dealt with by its own op.
    bench.make(30, place(1, "d"));
    fs::write(bench.path("d/theirs"), "theirs").unwrap();
    bench.put(31, place(1, "d"), "a file");
    bench.remove(30);
    assert_eq!((bench.shelf("kept").len(), bench.read("d")), (3, "a file".into()));
    bench.no_leftovers();
}

#[test]
fn an_edit_made_while_nobody_looked_is_found_by_the_walk() {
    for policy in [drift(Drift::Keep), drift(Drift::Refuse)] {
        let mut bench = Bench::keeping(&policy);
        for (object, name) in [(10, "edited"), (11, "touched"), (12, "gone")] {
            bench.put(object, place(1, name), "content");
        }
        bench.settle();
        fs::write(bench.path("edited"), "CONTENT").unwrap();
        fs::write(bench.path("touched"), "content").unwrap();
        let mut bench = bench.reopen(&policy);
        bench.put(11, place(1, "touched"), "next");
        let edited = bench.try_put(10, place(1, "edited"), "next");
        if policy.drift == Drift::Refuse {
            assert_eq!(
                (kind(edited), bench.read("edited")),
                (FailureKind::Refused, "CONTENT".into())
            );
        } else {
            edited.unwrap();
            assert_eq!(bench.shelf("kept"), [pair("edited", "CONTENT")]);
        }
        bench.remove(12);
        assert_eq!(bench.public(), ["edited", "touched"]);
    }
}

#[test]
fn the_trash_has_all_that_was_replaced_or_deleted() {
    let mut bench = Bench::keeping(&trash());
    bench.make(10, place(1, "d"));
    bench.put(11, place(10, "f"), "first");
    bench.put(11, place(10, "f"), "second");
    fs::remove_file(bench.path("d/f")).unwrap();
    fs::write(bench.path("d/f"), "edited").unwrap();
    bench.put(11, place(10, "f"), "third");
    bench.put(12, place(1, "g"), "g");
    bench.remove(12);
    assert_eq!(
        bench.shelf("trash"),
        [pair("d/f", "edited"), pair("d/f", "first"), pair("g", "g")]
    );
    // What was a directory is there with its tree, also if something took its place before it was removed.
    bench.put(13, place(1, "d"), "a file now");
    bench.remove(10);
    assert!(bench.shelf("trash").contains(&pair("d/f", "third")));
    // Another object at a name, and one that moves over another.
    bench.put(14, place(1, "x"), "x");
    bench.put(15, place(1, "y"), "y");
    bench.put(16, place(1, "x"), "new x");
    bench.remove(14);
    bench.shift(16, place(1, "y")).unwrap();
    bench.remove(15);
    for wanted in [pair("x", "x"), pair("y", "y")] {
        assert!(
            bench.shelf("trash").contains(&wanted),
            "{:?}",
            bench.shelf("trash")
        );
    }
    assert_eq!(bench.public(), ["d", "y"]);
    bench.no_leftovers();
    // The walk sees nothing of it.
    bench.settle();
    let before = bench.shelf("trash").len();
    let bench = bench.reopen(&Keeping::default());
    assert_eq!(
        (bench.shelf("trash").len(), bench.public()),
        (before, vec!["d".into(), "y".into()])
    );
}

#[test]
fn what_cannot_go_to_the_trash_stays() {
    let mut bench = Bench::keeping(&trash());
    bench.put(10, place(1, "f"), "old");
    bench.make(11, place(1, "d"));
    // Somebody else's: a directory in which another module has its things.
    fs::write(bench.path("d/.driftless-generation"), "1").unwrap();
    assert!(bench.try_remove(11).unwrap_err().text.contains("another module"));
    assert!(bench.path("d/.driftless-generation").exists());
    fs::write(bench.path(".driftless-trash"), "in the way").unwrap();
    assert!(bench.try_put(10, place(1, "f"), "new").is_err());
    assert_eq!(bench.read("f"), "old", "what cannot be kept is not replaced");
    assert!(bench.try_remove(10).is_err());
    assert_eq!(bench.read("f"), "old");
    bench.no_leftovers();
    fs::remove_file(bench.path(".driftless-trash")).unwrap();
    bench.put(10, place(1, "f"), "new");
    assert_eq!(bench.shelf("trash"), [pair("f", "old")]);
}

#[test]
fn backups_have_another_name_and_are_replaced_by_the_next() {
    let mut bench = Bench::keeping(&backup(None, "~"));
    bench.make(10, place(1, "d"));
    for content in ["1", "2", "3"] {
        bench.put(11, place(10, "f"), content);
    }
    bench.put(12, place(10, "g"), "g");
    bench.remove(12);
    assert_eq!(bench.public(), ["d", "d/f", "d/f~", "d/g~"]);
    assert_eq!((bench.read("d/f~"), bench.read("d/g~")), ("2".into(), "g".into()));
    // They keep their directory, and are in no listing.
    bench.remove(10);
    assert_eq!(bench.public(), ["d", "d/f~", "d/g~"]);
    assert_eq!(bench.read("d/f~"), "3");
    let hidden = bench.replica.catalog.read(|view| {
        let entries =
            view.child_entries(view.lookup(ObjectId::ROOT, &Name::new(*b"d").unwrap())?.unwrap())?;
        assert_eq!(entries.len(), 2);
        Ok(entries.iter().all(|entry| bench.replica.keeper.is_backup(entry)))
    });
    assert!(hidden.unwrap());
    // What the source has under such a name is no backup.
    bench.put(13, place(1, "mine~"), "mine");
    let found = bench
        .replica
        .catalog
        .read(|view| view.get(ObjectId(13)))
        .unwrap()
        .unwrap();
    assert!(!bench.replica.keeper.is_backup(&found));
}

#[test]
fn a_directory_of_backups_is_no_part_of_the_mirror() {
    let policy = backup(Some("old"), ".1");
    let mut bench = Bench::keeping(&policy);
    bench.make(10, place(1, "d"));
    bench.put(11, place(10, "f"), "first");
    bench.put(11, place(10, "f"), "second");
    bench.remove(10);
    assert_eq!(bench.public(), ["old", "old/d", "old/d/f.1"]);
    assert_eq!(bench.read("old/d/f.1"), "second");
    bench.settle();
    let bench = bench.reopen(&policy);
    assert!(
        !bench
            .replica
            .catalog
            .read(|view| view.has_children(ObjectId::ROOT))
            .unwrap()
    );
    let refused = bench.replica.keeper.check(&place(1, "old")).unwrap_err();
    assert_eq!(refused.kind, FailureKind::Unsupported);
    bench.replica.keeper.check(&place(10, "old")).unwrap();
}

#[test]
fn what_was_displaced_in_a_directory_goes_to_the_trash_under_its_own_name() {
    let mut bench = Bench::keeping(&trash());
    bench.make(10, place(1, "d"));
    bench.put(11, place(10, "x"), "x");
    bench.put(12, place(10, "x"), "another x");
    // The directory goes before what is parked in it has had its turn.
    bench.remove(10);
    bench.remove(11);
    assert_eq!(bench.shelf("trash"), [pair("d/x", "another x"), pair("d/x", "x")]);
    assert_eq!(bench.public(), [""; 0]);
    let names = bench.names();
    assert!(names.iter().all(|name| !name.contains("-old-")), "{names:?}");
}

/// Each state that a crash between two steps can leave, and what becomes of it.
#[test]
fn what_a_crash_left_is_put_where_it_belongs() {
    let trashing = Keeping {
        drift: Drift::Keep,
        ..trash()
    };
    for policy in [
        drift(Drift::Keep),
        drift(Drift::Refuse),
        trash(),
        trashing,
        Keeping::default(),
    ] {
        let mut bench = Bench::keeping(&policy);
        for (object, name) in [(10, "exchanged"), (11, "edited"), (12, "removed"), (13, "staged")] {
            bench.put(object, place(1, name), &format!("old {name}"));
        }
        bench.settle();
        let aside = |name: &str| displaced_name(&Name::new(name.as_bytes()).unwrap()).to_string();
        let exchange = |name: &str| {
            fs::rename(bench.path(name), bench.path(&aside(name))).unwrap();
            fs::write(bench.path(name), format!("new {name}")).unwrap();
        };
        // After the exchange, before the old one was dealt with.
        exchange("exchanged");
        fs::write(bench.path("edited"), "an edit").unwrap();
        exchange("edited");
        // A removal that has only taken the name away.
        fs::rename(bench.path("removed"), bench.path(&aside("removed"))).unwrap();
        // Before the exchange: the new content has the name of what it would have displaced.
        fs::write(bench.path(&aside("staged")), "new staged").unwrap();
        bench
            .replica
            .intend(&[(ObjectId(13), Digest::of(b"new staged"))])
            .unwrap();
        let bench = bench.reopen(&policy);
        bench.no_leftovers();
        assert_eq!(bench.public(), ["edited", "exchanged", "removed", "staged"]);
        assert_eq!(
            (
                bench.read("removed"),
                bench.read("staged"),
                bench.read("exchanged")
            ),
            ("old removed".into(), "old staged".into(), "new exchanged".into())
        );
        let (edit, old) = (pair("edited", "an edit"), pair("exchanged", "old exchanged"));
        let has_trash = matches!(policy.old, OldVersions::Trash { .. });
        let edit_goes_to = if has_trash && policy.drift == Drift::Overwrite {
            "trash"
        } else {
            "kept"
        };
        assert!(bench.shelf(edit_goes_to).contains(&edit), "{policy:?}");
        assert_eq!(bench.shelf("trash").contains(&old), has_trash, "{policy:?}");
        let all = (bench.shelf("kept"), bench.shelf("trash"));
        assert_eq!(
            all.0.len() + all.1.len(),
            1 + usize::from(has_trash),
            "{policy:?} {all:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Under every policy any sequence ends like the same sequence on a map, and with a trash no content is ever lost.
    #[test]
    fn random_ops_lose_nothing(
        which in 0usize..5,
        ops in prop::collection::vec((0u8..3, 0u64..8, 0u8..5), 1..40),
    ) {
        let policies = [
            trash(),
            drift(Drift::Keep),
            drift(Drift::Refuse),
            Keeping { drift: Drift::Keep, ..trash() },
            backup(Some("old"), ""),
        ];
        let names = ["a", "b", "c", "d", "e"];
        let mut bench = Bench::keeping(&policies[which]);
        let mut model: BTreeMap<u64, (&str, String)> = BTreeMap::new();
        let mut written = Vec::new();
        for (step, (op, object, name)) in ops.into_iter().enumerate() {
            let (object, name) = (object + 10, names[name as usize]);
            match op {
                0 => {
                    let content = format!("{object} {step}");
                    model.retain(|_, (at, _)| *at != name);
                    model.insert(object, (name, content.clone()));
                    bench.put(object, place(1, name), &content);
                    written.push(content);
                }
                1 if model.contains_key(&object) => {
                    model.retain(|other, (at, _)| *at != name || *other == object);
                    model.get_mut(&object).unwrap().0 = name;
                    bench.shift(object, place(1, name)).unwrap();
                }
                2 if model.contains_key(&object) => {
                    model.remove(&object);
                    bench.remove(object);
                }
                _ => {}
            }
        }
        bench.apply(|replica, t| replica.remove_parked(t)).unwrap();
        bench.no_leftovers();
        for (name, content) in model.values() {
            prop_assert_eq!(&bench.read(name), content);
        }
        let public: Vec<_> = bench.public().into_iter().filter(|name| !name.starts_with("old")).collect();
        prop_assert_eq!(public.len(), model.len());
        prop_assert_eq!(bench.shelf("kept"), [], "nobody edited anything");
        if matches!(policies[which].old, OldVersions::Trash { .. }) {
            let mut left: Vec<_> = bench.shelf("trash").into_iter().map(|(_, content)| content).collect();
            left.extend(model.into_values().map(|(_, content)| content));
            left.sort();
            written.sort();
            prop_assert_eq!(left, written);
        }
    }
}
