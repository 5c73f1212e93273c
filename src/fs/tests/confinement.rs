//! S-02: a symbolic link, FIFO or directory that somebody plants never leads out of the root and never blocks.

use super::*;
use driftless_protocol::entry::Kind;
use std::sync::atomic::{AtomicBool, Ordering};

/// A place, and outside of it something that must stay as it is.
struct Guarded {
    outside: Place,
    place: Place,
}

impl Guarded {
    fn new() -> Guarded {
        let outside = Place::new();
        outside.write("secret", "secret");
        outside.mkdir("inner");
        outside.write("inner/kept", "kept");
        Guarded {
            outside,
            place: Place::new(),
        }
    }

    fn assert_untouched(&self) {
        assert_eq!(self.outside.names(), ["inner", "secret"]);
        assert_eq!(self.outside.read("secret"), b"secret");
        assert_eq!(self.outside.read("inner/kept"), b"kept");
        let stat = self.outside.dir.stat(&name("secret")).unwrap().unwrap();
        assert_ne!(stat.attributes.mtime, time(1, 1));
        assert_ne!(stat.attributes.mode, 0o4777);
    }
}

#[test]
fn s02_a_link_at_the_leaf_is_never_followed() {
    let g = Guarded::new();
    let (dir, out) = (&g.place.dir, g.outside.path());
    g.place.symlink(out.join("inner"), "d");
    g.place.symlink(out.join("secret"), "f");
    g.place.symlink("/proc/self/root", "magic");
    for n in ["d", "magic"] {
        assert_eq!(
            dir.open_dir(&name(n)).unwrap_err().kind(),
            FsErrorKind::Substituted
        );
    }
    assert_eq!(
        dir.open_file(&name("f")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    let wanted = ours(0o4777, time(1, 1));
    for (n, kind) in [("d", Kind::Directory), ("f", Kind::File)] {
        let error = dir.set_attributes(&name(n), kind, &wanted, NO_OWNER).unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::Substituted, "{error}");
    }
    // The link itself may be given a time, and what it points to keeps its own.
    dir.set_attributes(&name("f"), Kind::Symlink, &wanted, OWNER)
        .unwrap();
    assert_eq!(
        dir.stat(&name("f")).unwrap().unwrap().attributes.mtime,
        time(1, 1)
    );
    assert_eq!(dir.make_dir(&name("d")).unwrap_err().kind(), FsErrorKind::Exists);
    g.place.staged(b"new").publish(&name("f")).unwrap();
    assert_eq!(g.place.read("f"), b"new");
    dir.remove_tree(&name("d")).unwrap();
    dir.remove_tree(&name("magic")).unwrap();
    assert_eq!(g.place.names(), ["f"]);
    g.assert_untouched();
}

#[test]
fn s02_a_link_in_the_place_of_a_parent_is_never_followed() {
    let g = Guarded::new();
    g.place.mkdir("p/q");
    let held = g.place.dir.open_dir(&name("p")).unwrap();
    std::fs::rename(g.place.path().join("p"), g.place.path().join("moved")).unwrap();
    g.place.symlink(g.outside.path(), "p");
    assert_eq!(
        g.place.dir.open_dir(&name("p")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
    // A handle that was taken before goes on meaning the directory, not the name.
    let staged = Staged::create(Arc::new(held)).unwrap();
    staged.write_all_at(b"x", 0).unwrap();
    staged.publish(&name("secret")).unwrap();
    assert_eq!(g.place.read("moved/secret"), b"x");
    g.assert_untouched();
}

#[test]
fn s02_fifos_sockets_and_devices_neither_block_nor_open() {
    let place = Place::new();
    place.fifo("fifo");
    let _socket = std::os::unix::net::UnixListener::bind(place.path().join("socket")).unwrap();
    for n in ["fifo", "socket"] {
        let error = place.dir.open_file(&name(n)).unwrap_err();
        assert_eq!(error.kind(), FsErrorKind::Substituted);
        assert!(error.to_string().contains(n), "{error}");
        assert_eq!(
            place.dir.open_dir(&name(n)).unwrap_err().kind(),
            FsErrorKind::Substituted
        );
        let set = place
            .dir
            .set_attributes(&name(n), Kind::File, &ours(0o600, time(1, 0)), NO_OWNER);
        assert_eq!(set.unwrap_err().kind(), FsErrorKind::Substituted);
    }
    let dev = Directory::open_root(Path::new("/dev")).unwrap();
    assert_eq!(
        dev.open_file(&name("null")).unwrap_err().kind(),
        FsErrorKind::Substituted
    );
}

/// Somebody swaps one name between a file, a directory, a FIFO and links outside, as fast as they can.
#[test]
fn s02_a_name_that_is_swapped_all_the_time_never_leads_outside() {
    let g = Guarded::new();
    let dir = &g.place.dir;
    g.place.mkdir("attack");
    g.place.mkdir("attack/d");
    g.place.write("attack/d/x", "x");
    g.place.write("attack/f", "f");
    g.place.fifo("attack/p");
    g.place.symlink(g.outside.path().join("inner"), "attack/l");
    g.place.symlink(g.outside.path().join("secret"), "attack/m");
    g.place.write("v", "v");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !done.load(Ordering::Relaxed) {
                for n in ["d", "f", "p", "l", "m"] {
                    let (a, v) = (g.place.path().join("attack").join(n), g.place.path().join("v"));
                    let _ = renameat_with(CWD, &a, CWD, &v, RenameFlags::EXCHANGE);
                }
            }
        });
        let victim = name("v");
        for _ in 0..3_000 {
            if let Ok((file, stat)) = dir.open_file(&victim) {
                assert_eq!(stat.file_type, FileType::Regular);
                let mut content = [0; 10];
                let n = std::os::unix::fs::FileExt::read_at(&file, &mut content, 0).unwrap();
                assert!(matches!(&content[..n], b"f" | b"v"));
            }
            if let Ok(sub) = dir.open_dir(&victim) {
                for (n, _) in sub.list().unwrap().entries {
                    assert_eq!(n.as_bytes(), b"x");
                }
            }
            for kind in [Kind::File, Kind::Directory] {
                let _ = dir.set_attributes(&victim, kind, &ours(0o4777, time(1, 1)), OWNER);
            }
            let _ = dir.hard_link(&victim, None, dir, &name("second"), RenameMode::Replace);
        }
        done.store(true, Ordering::Relaxed);
    });
    g.assert_untouched();
}

#[test]
fn the_root_itself_may_be_reached_through_a_link() {
    let place = Place::new();
    place.mkdir("real");
    place.symlink("real", "link");
    place.write("file", "");
    assert!(Directory::open_root(&place.path().join("link")).is_ok());
    let error = Directory::open_root(&place.path().join("file")).unwrap_err();
    assert_eq!(error.kind(), FsErrorKind::Substituted);
    let error = Directory::open_root(&place.path().join("none\n")).unwrap_err();
    assert!(
        error.to_string().ends_with("none\\n: no such file or directory"),
        "{error}"
    );
}
