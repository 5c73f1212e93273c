//! Random pairs of trees: the target is a copy of the source, spoiled.

use crate::support::is_root;
use crate::support::random::Random;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"c.txt",
    b"new\nline",
    b"-dash",
    b"\xff\xfe",
    "\u{e9}t\u{e9}".as_bytes(),
    b"\\#012",
    b"sp ace",
];

/// Sets a time of modification, nanoseconds included.
pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn new_name(random: &mut Random, directory: &Path) -> PathBuf {
    directory.join(OsStr::from_bytes(NAMES[random.below(NAMES.len())]))
}

fn set_xattr(path: &Path, value: &[u8]) {
    // Some file systems have none; then both trees have none.
    let _ = rustix::fs::lsetxattr(path, "user.test", value, XattrFlags::empty());
}

/// An ACL that gives one user the right to read.
fn set_acl(path: &Path, user: u32) {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1u16, 6u16, u32::MAX),
        (2, 4, user),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 4, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let _ = rustix::fs::setxattr(path, "system.posix_acl_access", &acl, XattrFlags::empty());
}

/// Makes an entry, whatever it is.
fn make(random: &mut Random, path: &Path, with_links: bool) {
    if path.symlink_metadata().is_ok() {
        return;
    }
    match random.below(10) {
        0 | 1 => fs::create_dir(path).unwrap(),
        2 => symlink(["x", "y/z", "../\u{e9}"][random.below(3)], path).unwrap(),
        3 => rustix::fs::mknodat(
            CWD,
            path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap(),
        4 if with_links => {
            let above = path.parent().unwrap();
            let files: Vec<_> = all(above).into_iter().filter(|path| is_file(path)).collect();
            match random.pick(&files) {
                Some(other) => fs::hard_link(other, path).unwrap(),
                None => fs::write(path, b"alone").unwrap(),
            }
        }
        _ => {
            let size = [0, 1, 5, 300, 70_000][random.below(5)];
            fs::write(path, random.exactly(size)).unwrap();
        }
    }
    if !path.is_symlink() {
        let mode = [0o644, 0o600, 0o755][random.below(3)];
        fs::set_permissions(
            path,
            Permissions::from_mode(mode | if path.is_dir() { 0o700 } else { 0 }),
        )
        .unwrap();
    }
    let seconds = 1_000_000_000 + random.below(3) as i64;
    set_time(path, seconds, [0, 1, 999_999_999][random.below(3)]);
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// Everything below a directory, in a fixed order.
pub fn all(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Changes something about an entry without anybody's times telling, or with them.
fn spoil(random: &mut Random, path: &Path, with_links: bool) {
    let Ok(meta) = path.symlink_metadata() else { return };
    let before = (
        std::os::unix::fs::MetadataExt::mtime(&meta),
        std::os::unix::fs::MetadataExt::mtime_nsec(&meta),
    );
    match random.below(9) {
        0 => remove(path),
        1 => {
            remove(path);
            make(random, path, with_links);
        }
        2 if meta.is_file() => fs::write(path, random.exactly(400)).unwrap(),
        3 => set_time(path, before.0 + 1, before.1),
        4 => set_time(path, before.0, (before.1 + 1) % 1_000_000_000),
        5 if !meta.is_symlink() => {
            let mode = if meta.is_dir() { 0o711 } else { 0o640 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        6 if is_root() => lchown(path, Some(1), Some(random.below(3) as u32)).unwrap(),
        7 if meta.is_file() || meta.is_dir() => set_xattr(path, &random.exactly(3)),
        8 if meta.is_file() => set_acl(path, 1 + random.below(2) as u32),
        _ => set_time(path, before.0 - 5, 0),
    }
}

/// Fills `src` and makes `dst` something like it.
pub fn fill(random: &mut Random, src: &Path, dst: &Path, with_links: bool) {
    for _ in 0..25 {
        let directories: Vec<_> = all(src)
            .into_iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
            .collect();
        let above = match random.one_in(3) {
            true => src.to_owned(),
            false => random.pick(&directories).unwrap_or_else(|| src.to_owned()),
        };
        let path = new_name(random, &above);
        make(random, &path, with_links);
    }
    for path in all(src) {
        if random.one_in(6) && !path.is_symlink() {
            set_xattr(&path, b"same");
        }
        if random.one_in(8) && is_file(&path) {
            set_acl(&path, 7);
        }
    }
    let copied = Command::new("cp")
        .arg("-a")
        .arg(src.join("."))
        .arg(dst)
        .status()
        .unwrap();
    assert!(copied.success());
    for path in all(dst) {
        if random.one_in(3) {
            spoil(random, &path, with_links);
        }
    }
    for _ in 0..6 {
        let directories: Vec<_> = all(dst)
            .into_iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
            .collect();
        let above = random.pick(&directories).unwrap_or_else(|| dst.to_owned());
        let path = new_name(random, &above);
        make(random, &path, with_links);
    }
}
