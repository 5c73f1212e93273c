//! A tree of every kind of object and name: equal after the seed and after each kind of change, by the judgement of our own
//! system calls and of rsync.

use crate::mirror::Mirror;
use crate::objects::{device, fifo};
use crate::support::churn::{exchange, punch_hole};
use crate::support::image::Image;
use crate::support::{Pair, is_root, skip};
use crate::values::{acl, capability, remove_xattr, set_time, set_xattr};
use driftless_protocol::XattrClasses;
use rustix::fs::FileType;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Names that are easily taken for something else.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"new\nline"[..],
        b"-rf",
        b"--delete",
        b" space ",
        b"...",
        b"back\\slash",
        b"per%20cent",
        b"*?[a]",
        b"$(true)`id`",
        b"quote'\"",
        b"escape\x1b[31m",
        b"\xff\xfe not utf-8",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"host:name",
        b"#comment",
        b"~",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push([vec![0xff; 254], vec![b'.']].concat());
    names
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn fill(src: &Path) {
    for directory in [
        "names",
        "kinds/inner",
        "meta/handed-down",
        "links/a/b",
        "links/c",
        "holes",
    ] {
        fs::create_dir_all(src.join(directory)).unwrap();
    }
    for (number, name) in odd_names().iter().enumerate() {
        let path = src.join("names").join(OsStr::from_bytes(name));
        match number % 3 {
            0 => write(&path, name),
            1 => {
                fs::create_dir(&path).unwrap();
                write(&path.join(OsStr::from_bytes(name)), b"inside");
            }
            _ => symlink(OsStr::from_bytes(&name[..name.len().min(200)]), &path).unwrap(),
        }
    }
    let kinds = src.join("kinds");
    write(&kinds.join("empty"), b"");
    write(&kinds.join("small"), b"small");
    write(&kinds.join("large"), &vec![3; 1_500_000]);
    symlink("/nowhere", kinds.join("absolute")).unwrap();
    symlink("../".repeat(300), kinds.join("long")).unwrap();
    fifo(&kinds.join("pipe"), 0o640);
    if is_root() {
        device(&kinds.join("null"), FileType::CharacterDevice, 1, 3);
        device(&kinds.join("disk"), FileType::BlockDevice, 259, 70_000);
    }
    let meta = src.join("meta");
    write(&meta.join("labelled"), b"labelled");
    set_xattr(&meta.join("labelled"), "user.one", b"1");
    set_xattr(&meta.join("labelled"), "user.long", &[1; 1_500]);
    set_xattr(&meta.join("handed-down"), DEFAULT, &acl(2_000, 7, 1, 7));
    write(&meta.join("handed-down/inherits"), b"inherits");
    fs::create_dir(meta.join("handed-down/inherits-too")).unwrap();
    write(&meta.join("guarded"), b"guarded");
    set_xattr(&meta.join("guarded"), ACCESS, &acl(2_001, 6, 0, 4));
    for (number, bits) in [0o4755, 0o2711, 0o1600, 0o444].into_iter().enumerate() {
        write(&meta.join(number.to_string()), b"mode");
        mode(&meta.join(number.to_string()), bits);
    }
    mode(&src.join("kinds/inner"), 0o3770);
    if is_root() {
        write(&meta.join("program"), b"program");
        set_xattr(&meta.join("program"), "security.capability", &capability());
        set_xattr(&meta.join("program"), "trusted.note", b"trusted");
        set_xattr(&kinds.join("absolute"), "trusted.note", b"of a link");
        set_xattr(&kinds.join("pipe"), "trusted.note", b"of a pipe");
        for (name, owner) in [("labelled", 1_001), ("guarded", 1_002)] {
            chown(meta.join(name), Some(owner), Some(owner + 100)).unwrap();
        }
        std::os::unix::fs::lchown(kinds.join("long"), Some(77), Some(88)).unwrap();
    }
    let links = src.join("links");
    write(&links.join("first"), b"one object, many names");
    for name in ["a/second", "a/b/third", "c/fourth"] {
        fs::hard_link(links.join("first"), links.join(name)).unwrap();
    }
    let sparse = fs::File::create(src.join("holes/sparse")).unwrap();
    sparse.write_all_at(b"island", 5 << 20).unwrap();
    sparse.set_len(12 << 20).unwrap();
    for (number, name) in [
        "kinds/small",
        "kinds/absolute",
        "kinds/pipe",
        "kinds/inner",
        "kinds",
    ]
    .iter()
    .enumerate()
    {
        set_time(
            &src.join(name),
            number as i64 * 1_500_000_000 - 3_000_000_000,
            123_456_789,
        );
    }
}

/// What is changed, and how.
type Change = (&'static str, fn(&Path));

/// Every kind of change, one by one.
fn changes() -> Vec<Change> {
    vec![
        ("a new file of each odd name", |src| {
            for name in odd_names() {
                let path = src.join("kinds/inner").join(OsStr::from_bytes(&name));
                write(&path, b"new");
            }
        }),
        ("renames of odd names", |src| {
            fs::rename(src.join("names"), src.join("kinds/names")).unwrap()
        }),
        ("a content", |src| {
            write(&src.join("kinds/small"), b"another content")
        }),
        ("a patch", |src| {
            let file = OpenOptions::new()
                .write(true)
                .open(src.join("kinds/large"))
                .unwrap();
            file.write_all_at(b"patched", 700_001).unwrap();
        }),
        ("modes", |src| {
            mode(&src.join("meta/0"), 0o755);
            mode(&src.join("meta/2"), 0o4711);
            mode(&src.join("kinds/inner"), 0o750);
        }),
        ("times", |src| {
            set_time(&src.join("kinds/small"), -1, 1);
            set_time(&src.join("kinds/long"), -77, 77);
            set_time(&src.join("kinds"), 5_000_000_000, 5);
        }),
        ("owners", |src| {
            if is_root() {
                chown(src.join("meta/0"), Some(5), Some(6)).unwrap();
                chown(src.join("kinds/pipe"), Some(5), Some(6)).unwrap();
                std::os::unix::fs::lchown(src.join("kinds/absolute"), Some(5), Some(6)).unwrap();
            }
        }),
        ("attributes", |src| {
            set_xattr(&src.join("meta/labelled"), "user.one", b"2");
            remove_xattr(&src.join("meta/labelled"), "user.long");
            set_xattr(&src.join("meta"), "user.of-a-directory", b"yes");
        }),
        ("ACLs", |src| {
            set_xattr(&src.join("meta/guarded"), ACCESS, &acl(2_002, 7, 4, 5));
            remove_xattr(&src.join("meta/handed-down"), DEFAULT);
            set_xattr(
                &src.join("meta/handed-down/inherits-too"),
                DEFAULT,
                &acl(2_003, 7, 0, 5),
            );
        }),
        ("capabilities", |src| {
            if is_root() {
                remove_xattr(&src.join("meta/program"), "security.capability");
                set_xattr(&src.join("meta/0"), "security.capability", &capability());
                set_xattr(&src.join("meta/program"), "trusted.note", b"changed");
            }
        }),
        ("links", |src| {
            let links = src.join("links");
            fs::hard_link(links.join("c/fourth"), links.join("fifth")).unwrap();
            fs::remove_file(links.join("first")).unwrap();
            write(&links.join("aside"), b"on its own now");
            fs::rename(links.join("aside"), links.join("a/second")).unwrap();
        }),
        ("an edit by a second name", |src| {
            let file = OpenOptions::new()
                .write(true)
                .open(src.join("links/fifth"))
                .unwrap();
            file.write_all_at(b"ONE", 0).unwrap();
        }),
        ("holes", |src| {
            let path = src.join("holes/sparse");
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[7; 200_000], 9 << 20).unwrap();
            punch_hole(&file, 5 << 20, 1 << 20);
        }),
        ("kinds that take each other's place", |src| {
            let kinds = src.join("kinds");
            exchange(&kinds.join("pipe"), &kinds.join("small"));
            exchange(&kinds.join("empty"), &kinds.join("inner"));
            fs::remove_file(kinds.join("long")).unwrap();
            fs::create_dir(kinds.join("long")).unwrap();
        }),
        ("removals", |src| {
            fs::remove_dir_all(src.join("kinds/names")).unwrap();
            fs::remove_dir_all(src.join("meta/handed-down")).unwrap();
            fs::remove_file(src.join("kinds/absolute")).unwrap();
        }),
    ]
}

fn mirror_everything(mut pair: Pair) {
    pair.xattrs = XattrClasses::ALL;
    fill(&pair.src());
    let mirror = Mirror::start(pair);
    mirror.assert_rsync_agrees();
    for (what, change) in changes() {
        change(&mirror.pair.src());
        mirror.settle(what);
        mirror.assert_rsync_agrees();
    }
    mirror.end();
}

#[test]
fn everything_that_rsync_carries() {
    mirror_everything(Pair::new());
}

#[test]
fn everything_on_other_file_systems() {
    for kind in ["ext4", "xfs", "btrfs"] {
        if let Some(image) = Image::new(kind) {
            mirror_everything(Pair::in_directory(image.directory()));
        }
    }
}

/// The same tests in a process without any privilege.
#[test]
fn everything_as_an_ordinary_user() {
    const NOBODY: u32 = 65_534;
    if !is_root() {
        // Then the others are that already.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    mode(directory.path(), 0o755);
    let work = directory.path().join("work");
    fs::create_dir(&work).unwrap();
    chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
    // The build directory may be closed to others.
    let program = directory.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(&program, 0o755);
    let output = Command::new(&program)
        .args(["--test-threads", "1"])
        .args([
            "tree::everything_that_rsync_carries",
            "links::d_10_links_are",
            "xattrs::d_22_xattrs_acls",
        ])
        .args([
            "objects::d_2",
            "sparse::d_24_holes_are_kept",
            "--skip",
            "devices",
            "--skip",
            "other_file_systems",
        ])
        .env("TMPDIR", &work)
        .env_remove("DRIFTLESS_HOME")
        .current_dir(&work)
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{text}");
            assert!(
                text.contains("test tree::everything_that_rsync_carries ... ok"),
                "{text}"
            );
        }
        Err(error) => skip(&format!("cannot run as another user: {error}")),
    }
}
