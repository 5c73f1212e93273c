//! Directories that are somewhere else for a moment, just when they are looked for.

use super::*;
use std::os::fd::BorrowedFd;

/// Moves a directory out of the tree before the root is listed, and back before another directory is.
struct Mover {
    here: PathBuf,
    away: PathBuf,
}

impl Watcher for Mover {
    fn watch(&mut self, directory: ObjectId, _: BorrowedFd<'_>) -> Result<(), WatchError> {
        let (from, to) = match directory {
            ObjectId::ROOT => (&self.here, &self.away),
            _ => (&self.away, &self.here),
        };
        // What is entered later finds nothing to move.
        let _ = fs::rename(from, to);
        Ok(())
    }

    fn unwatch(&mut self, _: ObjectId) {}

    fn name(&self) -> &'static str {
        "mover"
    }

    fn watched(&self) -> usize {
        0
    }

    fn events(&self) -> Receiver<WatchEvent> {
        crossbeam_channel::never()
    }
}

/// A directory with a file that changed while nobody looked.
fn changed() -> (Bench, ObjectId) {
    let mut bench = Bench::new(&["d/e", "other"]);
    let file = bench.settled_file("d/e/file");
    fs::write(bench.path("d/e/file"), "changed").unwrap();
    (bench, file)
}

#[test]
fn what_changed_in_a_directory_that_a_walk_did_not_list_is_found() {
    let (mut bench, file) = changed();
    let mover = Mover {
        here: bench.path("d"),
        away: bench.directory.path().join("away"),
    };
    bench.source.watcher = Arc::new(Mutex::new(Box::new(mover)));
    bench.source.scan().unwrap();
    assert!(bench.path("d").exists());
    bench.look(&[(ObjectId::ROOT, "d")]);
    assert_eq!(bench.object("d/e/file"), file);
    assert!(bench.is_stale(file), "nobody looked into it");
}

#[test]
fn what_changed_in_a_directory_that_could_not_be_entered_is_found_when_it_is_back() {
    let (mut bench, file) = changed();
    let (directory, away) = (bench.object("d"), bench.directory.path().join("away"));
    bench.source.handles.clear();
    fs::rename(bench.path("d"), &away).unwrap();
    bench.source.look_below(vec![directory]).unwrap();
    assert!(!bench.is_stale(file));
    fs::rename(&away, bench.path("d")).unwrap();
    bench.look(&[(ObjectId::ROOT, "d")]);
    assert!(bench.is_stale(file), "nobody looked into it");
    assert!(bench.source.unentered.is_empty());
}
