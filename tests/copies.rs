//! What the target holds already is not sent again: copies, files that moved in a way that looks like new ones, new times.

mod support;

use driftless::daemon::receiver::ReceiverDaemon;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use support::{Following, Pair, wait_equal};

fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// 5 MB that do not compress, in files of 300 bytes to 3 MB.
fn make_release(root: &Path) {
    let sizes = [300, 5_000, 70_000, 200_000, 400_000, 1_300_000, 3_000_000];
    for (n, bytes) in sizes.into_iter().enumerate() {
        let directory = root.join(format!("d{}", n % 3));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file{n}")), noise(bytes, n as u64)).unwrap();
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

struct Mirror {
    pair: Pair,
    receiver: Option<ReceiverDaemon>,
}

impl Mirror {
    fn new() -> Mirror {
        let pair = Pair::new();
        make_release(&pair.src().join("v1"));
        let receiver = Some(pair.receive());
        let mirror = Mirror { pair, receiver };
        assert!(mirror.seed() > 4_900_000);
        mirror
    }

    /// Makes both sides equal, and tells how many bytes were sent.
    fn seed(&self) -> u64 {
        let address = self.receiver.as_ref().unwrap().address();
        let summary = self.pair.seed_to(address).unwrap();
        assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
        self.pair.assert_equal();
        summary.counters.wire_bytes_sent
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.stop();
        }
    }
}

#[test]
fn a_release_beside_the_old_one_is_built_from_it() {
    let mirror = Mirror::new();
    let (old, new) = (mirror.pair.src().join("v1"), mirror.pair.src().join("v2"));
    copy_tree(&old, &new);
    fs::write(new.join("d0/file0"), noise(1_000, 99)).unwrap();
    let sent = mirror.seed();
    assert!(sent < 40_000, "{sent} bytes were sent for 5 MB of copies");
    // A copy of a copy, after the first is gone.
    fs::remove_dir_all(&old).unwrap();
    mirror.seed();
    copy_tree(&new, &mirror.pair.src().join("v3"));
    let sent = mirror.seed();
    assert!(sent < 40_000, "{sent} bytes were sent for copies of copies");
}

#[test]
fn a_copy_in_place_of_another_file_and_of_a_large_one_is_a_copy() {
    let mirror = Mirror::new();
    let v1 = mirror.pair.src().join("v1");
    fs::copy(v1.join("d0/file6"), v1.join("d1/file1")).unwrap();
    fs::copy(v1.join("d0/file3"), v1.join("d2/file5")).unwrap();
    let sent = mirror.seed();
    assert!(sent < 20_000, "{sent} bytes were sent");
}

/// Each name that it gets or loses moves the ctime of the others.
#[test]
fn an_original_of_several_names_is_copied() {
    let mirror = Mirror::new();
    let v1 = mirror.pair.src().join("v1");
    fs::hard_link(v1.join("d0/file6"), v1.join("d1/second")).unwrap();
    mirror.seed();
    fs::hard_link(v1.join("d0/file6"), v1.join("d2/third")).unwrap();
    fs::remove_file(v1.join("d1/second")).unwrap();
    mirror.seed();
    fs::copy(v1.join("d2/third"), v1.join("copy")).unwrap();
    let sent = mirror.seed();
    assert!(sent < 20_000, "{sent} bytes were sent");
}

#[test]
fn an_original_that_was_tampered_with_is_not_copied() {
    let mirror = Mirror::new();
    let (source, target) = (mirror.pair.src(), mirror.pair.dst());
    // Same size, same time: only the content tells, and what the kernel says of it.
    for name in ["v1/d0/file6", "v1/d0/file3"] {
        let path = target.join(name);
        let before = fs::metadata(&path).unwrap();
        fs::write(&path, noise(before.len() as usize, 77)).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(before.modified().unwrap())
            .unwrap();
        fs::copy(source.join(name), source.join(format!("{name}-copy"))).unwrap();
    }
    let address = mirror.receiver.as_ref().unwrap().address();
    let summary = mirror.pair.seed_to(address).unwrap();
    assert!(summary.failed.is_empty(), "{summary:?}");
    for name in ["v1/d0/file6", "v1/d0/file3"] {
        let wanted = fs::read(source.join(name)).unwrap();
        let found = fs::read(target.join(format!("{name}-copy"))).unwrap();
        assert!(wanted == found, "the copy of {name} is wrong");
    }
}

#[test]
fn files_that_are_copied_and_removed_while_followed_are_not_sent() {
    let mirror = Mirror::new();
    let (source, target) = (mirror.pair.src(), mirror.pair.dst());
    let address = mirror.receiver.as_ref().unwrap().address();
    let following = Following::start(mirror.pair.sender_options(address, true));
    following.watching.wait_in_sync();
    // Copied beside the source and moved into it: a file that grows for longer than the sender waits for a writer, as on a busy
    // machine, is sent as it grows, and what it was on the way is no copy of anything.
    let staging = mirror.pair.path("staging");
    copy_tree(&source.join("v1"), &staging);
    fs::rename(&staging, source.join("v2")).unwrap();
    wait_equal(&source, &target);
    fs::remove_dir_all(source.join("v1")).unwrap();
    wait_equal(&source, &target);
    let summary = following.stop().unwrap();
    let sent = summary.counters.wire_bytes_sent;
    assert!(sent < 20_000, "{sent} bytes were sent");
}

/// Both while the sender remembers, and when neither side does.
#[test]
fn new_times_alone_cost_no_content() {
    let mut mirror = Mirror::new();
    let touch = |seconds: u64| {
        for (n, path) in files(&mirror.pair.src()).into_iter().enumerate() {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds + n as u64);
            File::open(path).unwrap().set_modified(time).unwrap();
        }
    };
    touch(1_000_000_000);
    let sent = mirror.seed();
    assert!(sent < 20_000, "{sent} bytes were sent for new times");
    for forgetful in [&["home-s"][..], &["home-s", "home-r"]] {
        touch(1_100_000_000 + forgetful.len() as u64);
        mirror.receiver.take().unwrap().stop();
        for home in forgetful {
            let catalogs = files(&mirror.pair.path(home)).into_iter();
            for catalog in catalogs.filter(|path| path.ends_with("catalog.redb")) {
                fs::remove_file(catalog).unwrap();
            }
        }
        mirror.receiver = Some(mirror.pair.receive());
        let sent = mirror.seed();
        assert!(sent < 40_000, "{sent} bytes were sent after {forgetful:?} forgot");
    }
}
