//! Objects of every kind: pipes, devices, set-id bits, far times.

use crate::mirror::Mirror;
use crate::support::{Pair, is_root, skip};
use crate::values::set_time;
use rustix::fs::{CWD, FileType, Mode};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

pub fn fifo(path: &Path, mode: u32) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(mode), 0).unwrap();
}

pub fn device(path: &Path, file_type: FileType, major: u32, minor: u32) {
    let number = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(CWD, path, file_type, Mode::from(0o640), number).unwrap();
}

#[test]
fn d_23_pipes_are_mirrored() {
    let pair = Pair::new();
    let src = pair.src();
    fifo(&src.join("first"), 0o600);
    let mirror = Mirror::start(pair);
    fifo(&src.join("second"), 0o644);
    set_time(&src.join("second"), -5, 7);
    mirror.settle("another pipe");
    fs::set_permissions(src.join("first"), Permissions::from_mode(0o622)).unwrap();
    mirror.settle("another mode");
    fs::rename(src.join("first"), src.join("moved")).unwrap();
    mirror.settle("a rename");
    fs::remove_file(src.join("moved")).unwrap();
    fs::write(src.join("moved"), "a file now").unwrap();
    mirror.settle("a file in its place");
    fs::remove_file(src.join("moved")).unwrap();
    fifo(&src.join("moved"), 0o600);
    mirror.settle("a pipe in the place of a file");
    fs::remove_file(src.join("second")).unwrap();
    fs::create_dir(src.join("second")).unwrap();
    fs::write(src.join("second/file"), "x").unwrap();
    mirror.settle("a directory in the place of a pipe");
    fs::remove_dir_all(src.join("second")).unwrap();
    fifo(&src.join("second"), 0o600);
    mirror.settle("and back");
    mirror.end();
}

#[test]
fn d_23_devices_are_mirrored_between_root_processes() {
    if !is_root() {
        return skip("making devices needs root");
    }
    let pair = Pair::new();
    let src = pair.src();
    device(&src.join("null"), FileType::CharacterDevice, 1, 3);
    device(&src.join("disk"), FileType::BlockDevice, 7, 300);
    let mirror = Mirror::start(pair);
    device(&src.join("zero"), FileType::CharacterDevice, 1, 5);
    mirror.settle("another device");
    // Another number under the same name.
    device(&src.join("aside"), FileType::CharacterDevice, 1, 8);
    fs::rename(src.join("aside"), src.join("zero")).unwrap();
    mirror.settle("another number");
    device(&src.join("aside"), FileType::BlockDevice, 1, 8);
    fs::rename(src.join("aside"), src.join("null")).unwrap();
    mirror.settle("another kind");
    chown(src.join("disk"), Some(3), Some(4)).unwrap();
    mirror.settle("another owner");
    fs::remove_file(src.join("disk")).unwrap();
    mirror.settle("a removal");
    mirror.end();
}

#[test]
fn d_22_set_id_bits_and_far_times() {
    let pair = Pair::new();
    let src = pair.src();
    fs::create_dir_all(src.join("d/e")).unwrap();
    for (number, mode) in [0o4755, 0o2755, 0o6711, 0o1644, 0o2644, 0]
        .into_iter()
        .enumerate()
    {
        let path = src.join(format!("f{number}"));
        fs::write(&path, "program").unwrap();
        if is_root() {
            chown(&path, Some(12), Some(34)).unwrap();
        }
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(src.join("d"), Permissions::from_mode(0o3775)).unwrap();
    symlink("nowhere", src.join("link")).unwrap();
    let times = [(-2_000_000_000, 1), (-1, 999_999_999), (4_000_000_000, 5), (0, 0)];
    if !is_root() {
        // Nobody else can read it.
        fs::set_permissions(src.join("f5"), Permissions::from_mode(0o400)).unwrap();
    }
    let mirror = Mirror::start(pair);
    for (seconds, nanoseconds) in times {
        for name in ["f0", "link", "d/e", "d", ""] {
            set_time(&src.join(name), seconds, nanoseconds);
        }
        mirror.settle("other times");
    }
    if is_root() {
        // Clears the set-id bits, as any chown does; they are set again.
        chown(src.join("f0"), Some(56), Some(78)).unwrap();
        mirror.settle("another owner");
        fs::set_permissions(src.join("f0"), Permissions::from_mode(0o6755)).unwrap();
        mirror.settle("set-id bits again");
    }
    mirror.end();
}
