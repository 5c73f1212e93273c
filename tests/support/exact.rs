//! Everything about a tree that a mirror carries, read with raw system calls: the judge of what it carried.

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is compared. Types, modes, times, texts and contents always are.
#[derive(Debug, Clone, Copy)]
pub struct Judge {
    pub owners: bool,
    /// Namespaces of extended attributes.
    pub namespaces: &'static [&'static str],
    pub links: bool,
    /// That nothing takes more room there than here.
    pub holes: bool,
}

/// All that rsync -aHAXS carries.
pub const EVERYTHING: Judge = Judge {
    owners: true,
    namespaces: &["user.", "system.posix_acl_", "security.capability", "trusted."],
    links: true,
    holes: true,
};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exact {
    pub mode: u16,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub size: u64,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of its hard-link group.
    pub links_to: Option<Vec<u8>>,
    pub allocated: u64,
}

/// Reads a tree, its root as the empty path. Names of our own are left out.
pub fn exact(root: &Path, judge: Judge) -> BTreeMap<Vec<u8>, Exact> {
    let mut paths = vec![Vec::new()];
    let mut at = 0;
    while at < paths.len() {
        let path = paths[at].clone();
        at += 1;
        let full = root.join(OsStr::from_bytes(&path));
        if !is_directory(&full) {
            continue;
        }
        for entry in std::fs::read_dir(&full).unwrap() {
            let name = entry.unwrap().file_name().as_bytes().to_vec();
            if !name.starts_with(b".driftless") {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend(&name);
                paths.push(below);
            }
        }
    }
    paths.sort();
    let mut first = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let full = root.join(OsStr::from_bytes(&path));
        let stat = statx(&full);
        let is_directory = is_directory(&full);
        let links_to = (judge.links && stat.stx_nlink > 1 && !is_directory).then(|| {
            first
                .entry((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
                .or_insert_with(|| path.clone())
                .clone()
        });
        seen.insert(path, read(&full, &stat, judge, links_to));
    }
    seen
}

fn statx(path: &Path) -> Statx {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS).unwrap()
}

fn is_directory(path: &Path) -> bool {
    statx(path).stx_mode & 0o170_000 == 0o040_000
}

fn read(path: &Path, stat: &Statx, judge: Judge, links_to: Option<Vec<u8>>) -> Exact {
    let (content, size) = match stat.stx_mode & 0o170_000 {
        0o100_000 => (digest(path), stat.stx_size),
        0o120_000 => {
            let text = rustix::fs::readlinkat(CWD, path, Vec::new()).unwrap();
            (text.into_bytes(), stat.stx_size)
        }
        _ => (Vec::new(), 0),
    };
    Exact {
        mode: stat.stx_mode,
        owner: if judge.owners {
            (stat.stx_uid, stat.stx_gid)
        } else {
            (0, 0)
        },
        mtime: (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        device: (stat.stx_rdev_major, stat.stx_rdev_minor),
        size,
        content,
        xattrs: xattrs(path, judge),
        links_to,
        allocated: if judge.holes { stat.stx_blocks * 512 } else { 0 },
    }
}

fn digest(path: &Path) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hasher.finalize().as_bytes().to_vec(),
            count => hasher.update(&buffer[..count]),
        };
    }
}

fn xattrs(path: &Path, judge: Judge) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other.unwrap(),
    };
    names.truncate(length);
    let counts = |name: &&[u8]| {
        let wanted = |namespace: &&str| name.starts_with(namespace.as_bytes());
        !name.is_empty() && judge.namespaces.iter().any(wanted)
    };
    names
        .split(|&byte| byte == 0)
        .filter(counts)
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// In what two trees differ, one line for each entry.
pub fn exact_differences(left: &Path, right: &Path, judge: Judge) -> Vec<String> {
    let (left, mut right) = (exact(left, judge), exact(right, judge));
    let mut found = Vec::new();
    for (path, ours) in left {
        let shown = path.escape_ascii();
        match right.remove(&path) {
            None => found.push(format!("{shown} is missing")),
            Some(theirs) => {
                let as_ours = Exact {
                    allocated: ours.allocated,
                    ..theirs.clone()
                };
                if as_ours != ours {
                    found.push(format!("{shown} differs:\n  {ours:?}\n  {theirs:?}"));
                } else if judge.holes && takes_more(ours.allocated, theirs.allocated, ours.size) {
                    let (ours, theirs) = (ours.allocated, theirs.allocated);
                    found.push(format!("{shown} takes {ours} bytes here and {theirs} there"));
                }
            }
        }
    }
    found.extend(
        right
            .keys()
            .map(|path| format!("{} is extra", path.escape_ascii())),
    );
    found
}

/// File systems place metadata and tails as they like, and reserve more than was written (XFS does): what must not be is
/// that a target takes more, by more than that.
fn takes_more(ours: u64, theirs: u64, size: u64) -> bool {
    size >= 1 << 20 && theirs > ours + (ours / 20).max(128 << 10)
}
