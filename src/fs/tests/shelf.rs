//! What lost its name is kept, found and given back.

use super::*;

/// 2026-11-21 14:27:03 UTC.
const NOW: u64 = 1_795_271_223;
const TRASH: &str = ".driftless-trash";

fn path(text: &str) -> Vec<Name> {
    text.split('/').map(name).collect()
}

fn shown(path: &[Name]) -> String {
    let names: Vec<_> = path.iter().map(Name::to_string).collect();
    names.join("/")
}

fn all(shelf: &Shelf) -> Vec<String> {
    let mut found = Vec::new();
    for batch in shelf.batches().unwrap() {
        let mut each = |shelved: Shelved| {
            found.push(format!("{} {}", batch.label, shown(&shelved.path)));
            Ok(())
        };
        shelf.for_each(&batch, &mut each).unwrap();
    }
    found
}

#[test]
fn what_is_shelved_says_when_it_came_and_where_it_stood() {
    let place = Place::new();
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    assert!(shelf.batches().unwrap().is_empty() && place.names().is_empty());
    place.write("aside", "old");
    let at = shelf
        .put(NOW, &place.dir, &name("aside"), &path("etc/app.conf"))
        .unwrap();
    assert_eq!(shown(&at), ".driftless-trash/20261121T142703Z/etc/app.conf");
    assert_eq!(place.read(&shown(&at)), b"old");
    assert_eq!(place.names(), [TRASH]);
    // Another version of the same path never takes its place, in the same second or minute.
    for (now, content, batch) in [(NOW, "older", "-1"), (NOW + 59, "oldest", "")] {
        place.write("aside", content);
        let at = shelf
            .put(now, &place.dir, &name("aside"), &path("etc/app.conf"))
            .unwrap();
        assert!(shown(&at).contains(&format!("Z{batch}/etc/")), "{at:?}");
        assert_eq!(place.read(&shown(&at)), content.as_bytes());
    }
    shelf.sync().unwrap();
    let mode = std::fs::metadata(place.path().join(TRASH)).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    assert_eq!(all(&shelf).len(), 3);
    assert_eq!(shelf.batches().unwrap()[0].time, NOW);
    assert!(
        place.dir.list().unwrap().entries.is_empty()
            && place.dir.sweep(|_| false).unwrap() == Swept::default()
    );
}

#[test]
fn a_new_shelf_is_no_change_of_the_tree() {
    let place = Place::new();
    place.mkdir("d");
    place.write("d/x", "x");
    let before = place.dir.stat_self().unwrap().attributes.mtime;
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    let from = place.dir.open_dir(&name("d")).unwrap();
    shelf.put(NOW, &from, &name("x"), &path("d/x")).unwrap();
    assert_eq!(place.dir.stat_self().unwrap().attributes.mtime, before);
}

#[test]
fn a_directory_goes_with_its_tree_and_meets_what_went_before_it() {
    let place = Place::new();
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    place.mkdir("d/e");
    place.write("d/e/f", "f");
    place.write("d/g", "g");
    std::fs::rename(place.path().join("d/g"), place.path().join("g")).unwrap();
    shelf.put(NOW, &place.dir, &name("g"), &path("d/g")).unwrap();
    shelf.put(NOW, &place.dir, &name("d"), &path("d")).unwrap();
    // The rest of the directory has a batch of its own; an empty one only goes.
    assert_eq!(all(&shelf), ["20261121T142703Z d/g", "20261121T142703Z-1 d/e/f"]);
    place.mkdir("d");
    shelf.put(NOW, &place.dir, &name("d"), &path("d")).unwrap();
    assert_eq!(all(&shelf).len(), 2);
    assert_eq!(place.names(), [TRASH]);
    // A name that was a directory's may be a file's later.
    place.write("d", "now a file");
    shelf.put(NOW, &place.dir, &name("d"), &path("d")).unwrap();
    place.write("x", "in it");
    shelf.put(NOW, &place.dir, &name("x"), &path("d/x")).unwrap();
    assert_eq!(all(&shelf).len(), 4);
}

#[test]
fn what_is_taken_back_replaces_nothing_and_leaves_no_empty_directories() {
    let place = Place::new();
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    for content in ["first", "second"] {
        place.write("x", content);
        shelf.put(NOW, &place.dir, &name("x"), &path("a/b/c")).unwrap();
    }
    let batches = shelf.batches().unwrap();
    place.write("taken", "new");
    let refused = shelf
        .take(&batches[1], &path("a/b/c"), &place.dir, &name("taken"))
        .unwrap_err();
    assert_eq!(
        (refused.kind(), &place.read("taken")[..]),
        (FsErrorKind::Exists, &b"new"[..])
    );
    assert!(
        !shelf
            .take(&batches[1], &path("a/b/d"), &place.dir, &name("y"))
            .unwrap()
    );
    assert!(
        !shelf
            .take(&batches[1], &path("a/b/c/d"), &place.dir, &name("y"))
            .unwrap()
    );
    assert!(shelf.look(&batches[1], &path("a/b/c")).unwrap().is_some());
    assert!(
        shelf
            .take(&batches[1], &path("a/b/c"), &place.dir, &name("back"))
            .unwrap()
    );
    assert_eq!(place.read("back"), b"second");
    assert_eq!(all(&shelf), ["20261121T142703Z a/b/c"]);
    assert_eq!(shelf.batches().unwrap().len(), 1);
}

#[test]
fn what_is_old_goes_and_says_when_the_next_is_due() {
    let place = Place::new();
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    for age in [0, 1_000, 2_000] {
        place.mkdir("d");
        place.write("d/x", "x");
        shelf.put(NOW + age, &place.dir, &name("d"), &path("d")).unwrap();
    }
    assert_eq!(shelf.expire(NOW).unwrap(), (0, Some(NOW + 60)));
    assert_eq!(shelf.expire(NOW + 1_060).unwrap(), (6, Some(NOW + 2_060)));
    assert_eq!(all(&shelf).len(), 1);
    // Somebody empties it by hand while a batch is in use: the next one is made.
    std::fs::remove_dir_all(place.path().join(TRASH)).unwrap();
    place.write("y", "y");
    shelf
        .put(NOW + 2_001, &place.dir, &name("y"), &path("y"))
        .unwrap();
    assert_eq!(shelf.expire(NOW + 9_000).unwrap(), (2, None));
    // What stands there and was not put there stays.
    place.mkdir(&format!("{TRASH}/mine"));
    assert_eq!(shelf.expire(u64::MAX).unwrap(), (0, None));
    assert!(place.path().join(TRASH).join("mine").exists());
}

#[test]
fn a_link_in_the_place_of_the_shelf_is_not_followed() {
    let place = Place::new();
    let elsewhere = tempfile::tempdir().unwrap();
    place.symlink(elsewhere.path(), TRASH);
    let mut shelf = Shelf::new(place.dir.clone(), TRASH);
    place.write("x", "x");
    assert!(shelf.put(NOW, &place.dir, &name("x"), &path("x")).is_err());
    assert_eq!(place.read("x"), b"x");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
