//! `driftless forget`: afterwards there is nothing of ours, on either side, and the trees are what they were.

use crate::site::{Daemon, Site, free_port, until};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Everything in a tree, its root among it: path, mode, time of modification, content.
type Tree = Vec<(PathBuf, u32, (i64, i64), Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mut content = Vec::new();
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            content = fs::read(&path).unwrap();
        }
        let name = path.strip_prefix(root).unwrap().to_owned();
        found.push((name, meta.mode(), (meta.mtime(), meta.mtime_nsec()), content));
    }
    found.sort();
    found
}

/// Names of ours in a tree.
fn ours(tree: &Tree) -> Vec<&PathBuf> {
    let is_ours = |path: &Path| path.iter().any(|name| name.as_bytes().starts_with(b".driftless"));
    tree.iter()
        .map(|(path, ..)| path)
        .filter(|path| is_ours(path))
        .collect()
}

/// What a home knows of mirrors and modules.
fn known(site: &Site, home: &str) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["mirrors", "modules"] {
        let directory = site.path(home).join(".driftless-state").join(kind);
        for entry in fs::read_dir(directory).into_iter().flatten() {
            found.push(entry.unwrap().file_name().into_string().unwrap());
        }
    }
    found
}

fn fill(site: &Site, source: &str) {
    fs::create_dir_all(site.path(source).join("d/e")).unwrap();
    for name in ["a", "d/b", "d/e/c"] {
        site.write(&format!("{source}/{name}"), name);
    }
    // Long ago, so that a time that was touched is seen.
    for name in ["d/e", "d", ""] {
        let directory = fs::File::open(site.path(source).join(name)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        directory
            .set_times(fs::FileTimes::new().set_modified(time))
            .unwrap();
    }
}

#[test]
fn a_mirror_to_a_directory_leaves_nothing() {
    let site = Site::new(&["src", "dst"]);
    fill(&site, "src");
    site.run("mirror src dst --once --trash 7d", 0);
    assert!(!ours(&tree(&site.path("dst"))).is_empty());
    site.run("forget src dst", 0);
    assert_eq!(tree(&site.path("dst")), tree(&site.path("src")));
    assert_eq!(known(&site, "home"), Vec::<String>::new());
    // What a crash may have left, anywhere.
    site.run("mirror src dst --once", 0);
    site.write("dst/d/e/.driftless-0123456789abcdef", "left");
    let time = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000));
    fs::File::open(site.path("dst/d/e"))
        .unwrap()
        .set_times(time)
        .unwrap();
    site.run("forget src dst", 0);
    assert_eq!(tree(&site.path("dst")), tree(&site.path("src")));
    // What people may want back goes only if that is said.
    site.run("mirror src dst --once --trash 7d", 0);
    site.write("src/a", "another");
    site.run("mirror src dst --once --trash 7d", 0);
    let (_, err) = site.run("forget src dst", 3);
    assert!(
        err.contains("1 old version") && err.contains("--with-trash"),
        "{err}"
    );
    assert!(site.path("dst/.driftless-trash").exists());
    site.run("forget src dst --with-trash", 0);
    assert_eq!(tree(&site.path("dst")), tree(&site.path("src")));
    assert_eq!(known(&site, "home"), Vec::<String>::new());
    site.run("mirror src dst --once", 0);
}

#[test]
fn the_receiver_is_asked_while_both_daemons_run() {
    let site = Site::new(&["src"]);
    fill(&site, "src");
    let (_one, first) = site.receiver("one");
    let (_two, second) = site.receiver("two");
    site.configure(&site.mirror("www", "src", &[&first, &second], ""));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    let (told, _) = site.run("forget www", 0);
    assert!(
        told.contains("the mirror www is stopped") && told.contains("take [[mirror]] www out of"),
        "{told}"
    );
    for target in ["one", "two"] {
        assert_eq!(tree(&site.path(target)), tree(&site.path("src")));
        assert_eq!(known(&site, &format!("home-{target}")), Vec::<String>::new());
    }
    assert_eq!(known(&site, "home"), Vec::<String>::new());
    // Both can begin anew: it is a first contact.
    site.run("start www", 0);
    site.run("wait --timeout 60s", 0);
    assert!(!ours(&tree(&site.path("one"))).is_empty());
    let sender = Daemon::listening(site.command("mirror src three"));
    fs::create_dir_all(site.path("three")).unwrap();
    until("it runs", || site.read("three/a").is_some());
    let (_, err) = site.run("forget src three", 1);
    assert!(err.contains("end it first"), "{err}");
    assert!(site.path("three/.driftless-generation").exists());
    drop(sender);
}

#[test]
fn what_was_kept_on_a_receiver_is_its_owners() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fill(&site, "src");
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let (port, allowed) = (free_port(), site.fingerprint("home"));
    let line =
        format!("receive dst --module m --listen 127.0.0.1:{port} --allow {allowed} --trash 7d --json");
    let receiver = Daemon::spawn(site.command_in("home-r", &line));
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    site.run(&format!("seed src {target}/sub --delete always"), 0);
    site.write("src/a", "another");
    site.run(&format!("seed src {target}/sub"), 0);
    site.run(&format!("seed src {target}/other"), 0);
    for options in ["", "--with-trash"] {
        let (_, err) = site.run(&format!("forget src {target}/sub {options}"), 3);
        assert!(
            err.contains("1 old version") && err.contains("forget --module m --with-trash"),
            "{err}"
        );
    }
    let left = tree(&site.path("dst/sub"));
    assert!(
        ours(&left)
            .iter()
            .all(|path| path.starts_with(".driftless-trash")),
        "{left:?}"
    );
    // The other path of the module is another mirror's.
    assert!(site.path("dst/other/.driftless-generation").exists());
    // While it runs, in its own words and with its own locks.
    let (_, err) = site.run_in("home-r", "forget --module m", 3);
    assert!(err.contains("1 old version"), "{err}");
    assert!(!site.path("dst/other/.driftless-generation").exists());
    let (told, _) = site.run_in("home-r", "forget --module m --with-trash", 0);
    assert!(told.contains("m is offered on"), "{told}");
    assert_eq!(tree(&site.path("dst/sub")), tree(&site.path("src")));
    assert!(ours(&tree(&site.path("dst"))).is_empty());
    assert_eq!(known(&site, "home-r"), Vec::<String>::new());
    site.run(&format!("seed src {target}/sub"), 0);
    assert_eq!(receiver.stop(), Some(0));
    // And when it does not.
    site.run_in("home-r", "forget --module m", 2);
    site.run_in("home-r", "forget --module m --dir dst", 0);
    assert_eq!(tree(&site.path("dst/sub")), tree(&site.path("src")));
    assert_eq!(known(&site, "home-r"), Vec::<String>::new());
}

#[test]
fn nobody_ends_the_mirror_of_another() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fill(&site, "src");
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let port = free_port();
    let line = format!(
        "receive dst --module m --listen 127.0.0.1:{port} --allow {} --allow {} --json",
        site.fingerprint("home"),
        site.fingerprint("other")
    );
    let receiver = Daemon::spawn(site.command_in("home-r", &line));
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    site.run(&format!("seed src {target}"), 0);
    let before = tree(&site.path("dst"));
    let (_, err) = site.run_in("other", &format!("forget src {target}"), 3);
    assert!(err.contains("is kept by the mirror of"), "{err}");
    assert_eq!(tree(&site.path("dst")), before);
    site.run(&format!("seed src {target}"), 0);
    // Who may only compare cannot end anything, not even its own.
    let fingerprint = site.fingerprint("reader");
    site.run_in(
        "home-r",
        &format!("peers add {fingerprint} --name reader --module m --rights verify"),
        0,
    );
    let (_, err) = site.run_in("reader", &format!("forget src {target}"), 3);
    assert!(err.contains("does not allow this sender"), "{err}");
    // Nor does its own peer while another run of it is at work.
    let mut following = Daemon::listening(site.command(&format!("send src {target}")));
    following.wait(|line| line.contains("in sync"));
    let (_, err) = site.run(&format!("forget src {target}"), 1);
    assert!(err.contains("end it first"), "{err}");
    assert_eq!(following.stop(), Some(0));
    // A stranger is not told either.
    let (_, err) = site.run_in("stranger", &format!("forget src {target}"), 3);
    assert!(err.contains("does not allow this sender"), "{err}");
    // A receiver that cannot be reached is said; what is here goes.
    assert_eq!(receiver.stop(), Some(0));
    let (_, err) = site.run(&format!("forget src {target}"), 3);
    assert!(
        err.contains("on the receiver, run `driftless forget --module m`"),
        "{err}"
    );
    assert_eq!(known(&site, "home"), Vec::<String>::new());
    assert!(site.path("dst/.driftless-generation").exists());
}

/// A target in a target is another mirror's, with what is kept there; and what was promoted is nobody's to overwrite.
#[test]
fn what_is_not_this_mirrors_stays() {
    let site = Site::new(&["src", "other", "big"]);
    fill(&site, "src");
    fill(&site, "other");
    site.run("mirror other big/sub --once --trash 7d", 0);
    site.write("other/a", "another");
    site.run("mirror other big/sub --once --trash 7d", 0);
    let kept = tree(&site.path("big/sub"));
    site.run("mirror src big --once --delete never", 0);
    let (_, err) = site.run("forget src big --with-trash", 3);
    assert!(err.contains("another mirror"), "{err}");
    assert_eq!(tree(&site.path("big/sub")), kept);
    assert!(!site.path("big/.driftless-generation").exists());

    let (receiver, target) = site.receiver("far");
    site.run(&format!("seed src {target}"), 0);
    assert_eq!(receiver.stop(), Some(0));
    site.run_in("home-far", "promote far", 0);
    let (_, err) = site.run_in("home-far", "forget --module far --dir far", 1);
    assert!(err.contains("is promoted") && err.contains("demote far"), "{err}");
}
