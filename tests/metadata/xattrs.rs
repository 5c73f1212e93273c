//! Extended attributes, ACLs, capabilities.

use crate::mirror::Mirror;
use crate::support::image::Image;
use crate::support::{Pair, is_root, skip};
use crate::values::{acl, capability, remove_xattr, set_xattr};
use driftless::daemon::WatchChoice;
use driftless_protocol::XattrClasses;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn fill(src: &Path) {
    fs::create_dir_all(src.join("dir/inner")).unwrap();
    for name in [
        "plain",
        "labelled",
        "with-acl",
        "dir/program",
        "dir/inner/read-only",
    ] {
        fs::write(src.join(name), format!("content of {name}")).unwrap();
    }
    fs::write(src.join("large"), vec![7; 300_000]).unwrap();
    symlink("plain", src.join("link")).unwrap();
    for name in ["labelled", "large", "dir", "dir/inner/read-only", ""] {
        set_xattr(&src.join(name), "user.colour", name.as_bytes());
    }
    set_xattr(&src.join("labelled"), "user.empty", b"");
    set_xattr(&src.join("labelled"), "user.long", &[9; 2_000]);
    set_xattr(&src.join("with-acl"), ACCESS, &acl(1_234, 6, 0, 6));
    set_xattr(&src.join("dir"), DEFAULT, &acl(1_235, 7, 5, 7));
    set_xattr(&src.join("dir/inner"), ACCESS, &acl(1_236, 7, 1, 5));
    if is_root() {
        let program = src.join("dir/program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
        set_xattr(&program, "security.capability", &capability());
        set_xattr(&src.join("link"), "trusted.note", b"of the link itself");
    }
    let read_only = fs::Permissions::from_mode(0o444);
    fs::set_permissions(src.join("dir/inner/read-only"), read_only).unwrap();
}

fn change(mirror: &Mirror) {
    let src = mirror.pair.src();
    set_xattr(&src.join("plain"), "user.first", b"1");
    mirror.settle("a first attribute");
    set_xattr(&src.join("plain"), "user.first", b"2");
    mirror.settle("another value");
    remove_xattr(&src.join("plain"), "user.first");
    mirror.settle("its removal");
    let read_only = src.join("dir/inner/read-only");
    // Only root may do it at once.
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o644)).unwrap();
    set_xattr(&read_only, "user.colour", b"changed");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
    mirror.settle("a change of a read-only file");
    set_xattr(&src.join("large"), "user.colour", b"another");
    mirror.settle("a change of a large file");
    set_xattr(&src.join("dir"), "user.colour", b"of a directory");
    mirror.settle("a change of a directory");
    set_xattr(&src, "user.colour", b"of the root");
    mirror.settle("a change of the root");
    set_xattr(&src.join("with-acl"), ACCESS, &acl(1_299, 6, 4, 4));
    mirror.settle("another ACL");
    fs::set_permissions(src.join("with-acl"), fs::Permissions::from_mode(0o670)).unwrap();
    mirror.settle("another mask");
    remove_xattr(&src.join("with-acl"), ACCESS);
    mirror.settle("no ACL");
    remove_xattr(&src.join("dir"), DEFAULT);
    mirror.settle("no default ACL");
    fs::create_dir(src.join("dir/made")).unwrap();
    set_xattr(&src.join("dir/made"), DEFAULT, &acl(1_300, 7, 0, 5));
    fs::write(src.join("dir/made/inherits"), "x").unwrap();
    mirror.settle("an inherited ACL");
    // A new content comes with other attributes.
    fs::write(src.join("labelled.new"), "a new content").unwrap();
    set_xattr(&src.join("labelled.new"), "user.new", b"yes");
    fs::rename(src.join("labelled.new"), src.join("labelled")).unwrap();
    mirror.settle("a replacement");
    if is_root() {
        remove_xattr(&src.join("dir/program"), "security.capability");
        mirror.settle("no capability");
        set_xattr(&src.join("dir/program"), "security.capability", &capability());
        mirror.settle("a capability");
        std::os::unix::fs::chown(src.join("dir/program"), Some(12), Some(13)).unwrap();
        set_xattr(&src.join("dir/program"), "security.capability", &capability());
        mirror.settle("another owner");
        set_xattr(&src.join("link"), "trusted.note", b"changed");
        mirror.settle("an attribute of a link");
    }
}

fn mirror_xattrs(mut pair: Pair) {
    pair.xattrs = XattrClasses::ALL;
    fill(&pair.src());
    let mut mirror = Mirror::start(pair);
    mirror.assert_rsync_agrees();
    change(&mirror);
    // While nobody watches.
    mirror.pause();
    set_xattr(&mirror.pair.src().join("plain"), "user.unseen", b"1");
    set_xattr(&mirror.pair.src().join("dir/inner"), "user.unseen", b"2");
    mirror.resume();
    mirror.settle("what nobody saw");
    mirror.end();
}

#[test]
fn d_22_xattrs_acls_and_capabilities_are_mirrored_live() {
    for choice in [WatchChoice::Auto, WatchChoice::Inotify] {
        let mut pair = Pair::new();
        pair.watch.choice = choice;
        mirror_xattrs(pair);
    }
}

#[test]
fn d_22_xattrs_on_other_file_systems() {
    for kind in ["ext4", "xfs", "btrfs"] {
        if let Some(image) = Image::new(kind) {
            mirror_xattrs(Pair::in_directory(image.directory()));
        }
    }
}

/// What a module does not take is neither sent nor missed.
#[test]
fn s_19_security_and_trusted_are_off_unless_allowed() {
    if !is_root() {
        return skip("trusted attributes need root");
    }
    let pair = Pair::new();
    fs::write(pair.src().join("file"), "content").unwrap();
    set_xattr(&pair.src().join("file"), "trusted.secret", b"1");
    set_xattr(&pair.src().join("file"), "user.open", b"2");
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(summary.counters.foreign_xattrs, 1, "{summary:?}");
    let there = pair.dst().join("file");
    let mut value = [0; 9];
    assert_eq!(rustix::fs::lgetxattr(&there, "user.open", &mut value), Ok(1));
    let absent = rustix::fs::lgetxattr(&there, "trusted.secret", &mut value);
    assert_eq!(absent, Err(rustix::io::Errno::NODATA));
    // Allowed later, it comes; nothing else is sent.
    let pair = Pair {
        xattrs: XattrClasses::ALL,
        ..pair
    };
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.counters.files_sent == 0, "{summary:?}");
    assert_eq!(rustix::fs::lgetxattr(&there, "trusted.secret", &mut value), Ok(1));
    // And forbidden again, what is there stays, and counts no more.
    let pair = Pair {
        xattrs: XattrClasses::USUAL,
        ..pair
    };
    set_xattr(&pair.src().join("file"), "trusted.secret", b"another");
    assert!(pair.seed().unwrap().in_sync);
    assert_eq!(rustix::fs::lgetxattr(&there, "trusted.secret", &mut value), Ok(1));
}

/// What the target's file system cannot hold is told for the entry; its content is there all the same.
#[test]
fn x_08_attributes_over_the_limit_of_the_target_are_reported() {
    let (Some(from), Some(to)) = (Image::new("xfs"), Image::new("ext4")) else {
        return;
    };
    let pair = Pair::in_directory(from.directory());
    let dst = pair.dst();
    fs::remove_dir(&dst).unwrap();
    let there = to.directory();
    symlink(there.path(), &dst).unwrap();
    fs::write(pair.src().join("file"), "content").unwrap();
    set_xattr(&pair.src().join("file"), "user.large", &[1; 50_000]);
    set_xattr(&pair.src().join("file"), "user.small", b"2");
    let summary = pair.seed().unwrap();
    assert_eq!(summary.failed.len(), 1, "{summary:?}");
    assert!(
        summary.failed[0].error.contains("extended attributes"),
        "{summary:?}"
    );
    assert_eq!(fs::read(there.path().join("file")).unwrap(), b"content");
    let mut value = [0; 9];
    let small = rustix::fs::lgetxattr(there.path().join("file"), "user.small", &mut value);
    assert_eq!(small, Ok(1));
    // Within the limit, nothing is in error any more.
    remove_xattr(&pair.src().join("file"), "user.large");
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
}
