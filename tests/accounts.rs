//! `/etc/passwd`, `/etc/shadow` and `/etc/group` on several machines: named paths under a sender that follows, while tools
//! replace them by renames, and while somebody without any right tries to read what only root and its group may.

mod support;

use driftless::daemon::Deletes;
use driftless::engine::filter::{FilterBuilder, NamedPaths};
use rustix::process::{Gid, Uid};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Following, Pair, is_root, skip, until};

const SHADOW: u32 = 42;
const NOBODY: u32 = 65_534;

/// As vipw and the like do it: complete under another name, then renamed over the old one.
fn replace(path: &Path, text: &str, mode: u32, group: u32) {
    let edited = path.with_extension("edit");
    fs::write(&edited, "").unwrap();
    fs::set_permissions(&edited, Permissions::from_mode(0o600)).unwrap();
    fs::write(&edited, text).unwrap();
    chown(&edited, Some(0), Some(group)).unwrap();
    fs::set_permissions(&edited, Permissions::from_mode(mode)).unwrap();
    fs::rename(&edited, path).unwrap();
}

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What somebody without any right could do in a directory, as long as it was asked to look.
#[derive(Debug, Default)]
struct Intruder {
    is_over: AtomicBool,
    looks: AtomicU64,
}

impl Intruder {
    /// Opens everything that it sees; gives what it could open of what it should not have been able to, and what came to be in
    /// it: a handle that was got too early reads what is written later.
    fn look(&self, directory: PathBuf) -> BTreeMap<String, String> {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        // Of this thread only, and for good.
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mut opened: BTreeMap<String, fs::File> = BTreeMap::new();
        while !self.is_over.load(Ordering::Relaxed) {
            self.looks.fetch_add(1, Ordering::Relaxed);
            for entry in fs::read_dir(&directory).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if ["passwd", "group", "local", "hosts"].contains(&name.as_str()) {
                    continue;
                }
                if let Ok(file) = fs::File::open(entry.path()) {
                    opened.entry(name).or_insert(file);
                }
            }
        }
        let text = |mut file: fs::File| {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        };
        opened
            .into_iter()
            .map(|(name, file)| (name, text(file)))
            .collect()
    }
}

#[test]
fn accounts_follow_and_secrets_are_never_open() {
    if !is_root() {
        return skip("needs root");
    }
    let mut pair = Pair::new();
    let names = "passwd\nshadow\ngroup\n";
    let mut builder = FilterBuilder::new(b"/etc");
    builder.only_named(NamedPaths::parse(names.as_bytes(), false, true).unwrap());
    pair.filter = builder.build().unwrap();
    pair.deletes = Deletes::Always;
    let (src, dst) = (pair.src(), pair.dst());
    for path in [pair.directory.path(), &src, &dst] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    for (name, mode, group) in [
        ("passwd", 0o644, 0),
        ("shadow", 0o640, SHADOW),
        ("group", 0o644, 0),
    ] {
        replace(&src.join(name), &format!("{name} 0"), mode, group);
    }
    fs::write(src.join("hosts"), "of the source").unwrap();
    fs::write(src.join("secret"), "not named").unwrap();
    fs::write(dst.join("hosts"), "of the target").unwrap();
    fs::write(dst.join("local"), "of the target").unwrap();
    // An older version stands there, with a mode that lets everybody read it.
    fs::write(dst.join("group"), "old").unwrap();
    let own = |name: &str| {
        let meta = dst.join(name).metadata().unwrap();
        (meta.ino(), meta.ctime(), meta.ctime_nsec())
    };
    let before = (own("hosts"), own("local"));
    let receiver = pair.receive();
    let intruder = Intruder::default();
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| intruder.look(dst.clone()));
        let following = Following::start(pair.sender_options(receiver.address(), true));
        until("the accounts are there", || {
            text_of(&dst.join("shadow")) == "shadow 0"
        });
        for round in 1..=60 {
            let text = format!("shadow {round}");
            replace(&src.join("shadow"), &text, 0o640, SHADOW);
            if round % 7 == 0 {
                replace(&src.join("passwd"), &format!("passwd {round}"), 0o644, 0);
            }
            // Every state arrives when it is given the time.
            if round % 10 == 0 {
                until("the new one is there", || text_of(&dst.join("shadow")) == text);
            }
        }
        until("the last one is there", || {
            text_of(&dst.join("passwd")) == "passwd 56"
        });
        // In place, as an editor would: still never open.
        fs::write(src.join("shadow"), "in place").unwrap();
        until("it is there", || text_of(&dst.join("shadow")) == "in place");
        fs::remove_file(src.join("group")).unwrap();
        until("it is gone", || !dst.join("group").exists());
        following.stop().unwrap();
        intruder.is_over.store(true, Ordering::Relaxed);
        let opened = looking.join().unwrap();
        assert!(intruder.looks.load(Ordering::Relaxed) > 100);
        let is_secret = |(name, text): (&String, &String)| {
            name == "shadow" || text.contains("shadow") || text.contains("in place")
        };
        assert!(!opened.iter().any(is_secret), "{opened:?}");
    });
    receiver.stop();
    let meta = dst.join("shadow").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 0, SHADOW));
    assert_eq!(
        (own("hosts"), own("local")),
        before,
        "what is not named was touched"
    );
    let mut there: Vec<_> = fs::read_dir(&dst)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(
        there,
        [".driftless-generation", "hosts", "local", "passwd", "shadow"]
    );
}
