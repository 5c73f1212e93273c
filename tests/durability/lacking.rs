//! C-20, C-21: file systems that can do less than others, and several of them in one module.

use crate::errors::inode;
use crate::flips::Flips;
use crate::rig::{Note, Rig, wait_until};
use crate::support::image::Mounted;
use crate::support::supervised::{Call, Verdict};
use crate::support::{is_root, skip};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// What a plain file system answers: no unnamed files, no exchange and no rename that replaces nothing, no space to reserve, and
/// no extended attributes.
fn plain(call: &Call, module: &Path) -> Verdict {
    let answer = match call.name {
        // What is not made by a name is what `openat` makes here.
        "openat" => Errno::OPNOTSUPP,
        "renameat2" => Errno::INVAL,
        "fallocate" | "copy_file_range" | "setxattr" | "lsetxattr" | "fsetxattr" => Errno::OPNOTSUPP,
        _ => return Verdict::Pass,
    };
    match call.is_in(module) {
        true => Verdict::Fail(answer),
        false => Verdict::Pass,
    }
}

/// Where nothing can be exchanged, a name that becomes another kind of thing may be absent for a moment. Nothing else may, even
/// if the receiver is killed.
#[test]
fn c_20_a_file_system_that_can_do_less_gets_everything_all_the_same() {
    let mut rig = Rig::new();
    let mut flips = Flips::new(rig.src());
    let lacked: Arc<Mutex<BTreeMap<&str, usize>>> = Arc::default();
    let judge = |kill_at: usize, module: PathBuf| {
        let (counts, mut calls) = (lacked.clone(), 0);
        move |call: &Call| {
            if call.is_in(&module) {
                calls += 1;
                if calls == kill_at {
                    return Verdict::Kill;
                }
            }
            let verdict = plain(call, &module);
            if verdict != Verdict::Pass {
                *counts.lock().unwrap().entry(call.name).or_default() += 1;
            }
            verdict
        }
    };
    let receiver = rig.receive_under(judge(usize::MAX, rig.module.clone()));
    rig.converge();
    drop(receiver);
    let mut kills = 0;
    for kill_at in [12, 40, 70, 100, 130] {
        let _note = Note(format!("killed before call {kill_at}"));
        flips.flip();
        rig.expect_source();
        rig.may_be_absent(&["kind", "x/one", "x/two"]);
        if let Some(mut receiver) = rig.try_receive_under(judge(kill_at, rig.module.clone())) {
            let sending = rig.send();
            wait_until("sent or killed", || sending.is_finished() || receiver.has_ended());
            kills += usize::from(receiver.has_ended());
            let _ = sending.stop();
            receiver.kill();
        }
        rig.check_old_or_new();
        let _receiver = rig.receive_under(judge(usize::MAX, rig.module.clone()));
        rig.converge();
    }
    let lacked = lacked.lock().unwrap();
    println!("{kills} kills; calls that failed: {lacked:?}");
    assert!(kills >= 3, "{kills}");
    for call in ["openat", "renameat2"] {
        assert!(lacked.contains_key(call), "{call} was never tried: {lacked:?}");
    }
}

/// A file system that is mounted in the module gets its own staged files; what moves from one to the other is there in the end.
#[test]
fn c_21_a_file_system_that_is_mounted_in_the_module() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let mut rig = Rig::new();
    let inner = rig.module.join("inner");
    for directory in [&rig.src().join("inner/deep"), &rig.src().join("outer"), &inner] {
        fs::create_dir_all(directory).unwrap();
    }
    let mounted = Mounted::new(&["-t", "tmpfs", "tmpfs"], &inner).unwrap();
    for name in ["inner/file", "inner/deep/file", "outer/file", "outer/other"] {
        fs::write(rig.src().join(name), name.repeat(500)).unwrap();
    }
    let receiver = rig.receive();
    rig.converge();
    fs::write(rig.src().join("inner/file"), b"another version").unwrap();
    fs::rename(rig.src().join("outer/file"), rig.src().join("inner/came")).unwrap();
    fs::rename(rig.src().join("inner/deep"), rig.src().join("outer/deep")).unwrap();
    fs::hard_link(rig.src().join("outer/other"), rig.src().join("outer/twin")).unwrap();
    rig.converge();
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    assert_eq!(device(&inner.join("came")), device(&inner));
    assert_ne!(device(&inner), device(&rig.module));
    drop(receiver);
    mounted.unmount();
}

/// A flush of the module's file system reaches nothing that is mounted in it: what is put there is flushed by itself before it
/// is visible, and so are the names before anything is durable.
#[test]
fn c_21_what_is_put_on_a_mounted_file_system_is_flushed_there() {
    const DIRECTORIES: usize = 80;
    const FILES: usize = 5;
    if !is_root() {
        return skip("mounting needs root");
    }
    let mut rig = Rig::new();
    let inner = rig.module.join("inner");
    fs::create_dir_all(&inner).unwrap();
    let mounted = Mounted::new(&["-t", "tmpfs", "tmpfs"], &inner).unwrap();
    let names = || (0..DIRECTORIES).map(|number| format!("d{number}"));
    for name in names() {
        let directory = rig.src().join("inner").join(name);
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES {
            fs::write(directory.join(file.to_string()), "text").unwrap();
        }
    }
    #[derive(Default)]
    struct Seen {
        flushes_of_all: usize,
        files: HashSet<(u64, SystemTime)>,
        directories: HashSet<PathBuf>,
        published: usize,
        unflushed: usize,
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (noted, module, there) = (seen.clone(), rig.module.clone(), inner.clone());
    let receiver = rig.receive_under(move |call| {
        let seen = &mut *noted.lock().unwrap();
        let path = call.path().filter(|path| path.starts_with(&module));
        match (call.name, path) {
            ("syncfs", Some(_)) => seen.flushes_of_all += 1,
            ("fsync", Some(path)) => {
                seen.files.extend(inode(call));
                seen.directories.insert(path);
            }
            ("linkat", Some(path)) if path.starts_with(&there) => {
                seen.published += 1;
                let is_flushed = inode(call).is_some_and(|inode| seen.files.contains(&inode));
                seen.unflushed += usize::from(!is_flushed);
            }
            _ => {}
        }
        Verdict::Pass
    });
    rig.converge();
    drop(receiver);
    mounted.unmount();
    let seen = &*seen.lock().unwrap();
    assert!(seen.flushes_of_all > 0, "there were too few of them");
    assert_eq!((seen.published, seen.unflushed), (DIRECTORIES * FILES, 0));
    let left: Vec<_> = names()
        .filter(|name| !seen.directories.contains(&inner.join(name)))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
