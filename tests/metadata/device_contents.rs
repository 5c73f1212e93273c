//! The content of block devices, from and to them: on loop devices.

use crate::support::random::Random;
use crate::support::waiting::wait_until;
use crate::support::{Following, Pair, is_root, skip};
use crate::values::set_time;
use driftless::daemon::{Deletes, Summary};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: usize = 12 << 20;
const O_EXCL: i32 = 0o200;

/// A loop device over a file, given back when this is dropped.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn new(file: &Path, content: &[u8]) -> Option<Loop> {
        if !is_root() {
            skip("loop devices need root");
            return None;
        }
        fs::write(file, content).unwrap();
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                let device = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(Loop { device })
            }
            outcome => {
                skip(&format!("no loop device: {outcome:?}"));
                None
            }
        }
    }

    /// A further node of it.
    fn node(&self, path: &Path) {
        let meta = fs::metadata(&self.device).unwrap();
        let mode = rustix::fs::Mode::from(0o640);
        let kind = rustix::fs::FileType::BlockDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, meta.rdev()).unwrap();
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(&self.device).unwrap();
        file.write_all_at(bytes, offset).unwrap();
        file.sync_all().unwrap();
    }

    fn read(&self) -> Vec<u8> {
        let mut content = vec![0; BYTES];
        File::open(&self.device)
            .unwrap()
            .read_exact_at(&mut content, 0)
            .unwrap();
        content
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

fn content(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut content = Vec::with_capacity(BYTES);
    while content.len() < BYTES {
        content.extend(random.next().to_le_bytes());
    }
    // And some that is empty.
    content[3 << 20..5 << 20].fill(0);
    content
}

fn seed(pair: &Pair) -> Summary {
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    summary
}

#[test]
fn a_device_is_copied_into_a_file_and_then_what_changed_of_it() {
    let mut pair = Pair::new();
    pair.deletes = Deletes::Always;
    pair.taken_as.copied_devices = true;
    let mut wanted = content(1);
    let Some(device) = Loop::new(&pair.path("image"), &wanted) else {
        return;
    };
    device.node(&pair.src().join("disk"));
    fs::write(pair.src().join("file"), "beside it").unwrap();
    seed(&pair);
    let copy = pair.dst().join("disk");
    assert!(fs::symlink_metadata(&copy).unwrap().is_file());
    assert!(fs::read(&copy).unwrap() == wanted);
    // Its times of devices have no nanoseconds.
    let rsync = Command::new("rsync")
        .args([
            "-aHAXnic",
            "--no-times",
            "--delete",
            "--copy-devices",
            "--exclude=.driftless*",
        ])
        .args([
            format!("{}/", pair.src().display()),
            format!("{}/", pair.dst().display()),
        ])
        .output();
    match rsync {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), ""),
        Err(error) => skip(&format!("no rsync: {error}")),
    }
    // Its node is as it was: only a read finds what changed.
    let before = fs::metadata(pair.src().join("disk")).unwrap();
    device.write(7_000_000, b"changed in place");
    wanted[7_000_000..7_000_016].copy_from_slice(b"changed in place");
    let after = fs::metadata(pair.src().join("disk")).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
    let summary = seed(&pair);
    assert!(fs::read(&copy).unwrap() == wanted);
    assert!(
        summary.counters.wire_bytes_sent < 2_000_000,
        "no more than what changed: {summary:?}"
    );
    crate::assert_verified(&pair);
    // Ends that know nothing any more do not go by the size and the time.
    for home in ["home-s", "home-r"] {
        fs::remove_dir_all(pair.path(home)).unwrap();
        fs::create_dir(pair.path(home)).unwrap();
    }
    device.write(100, b"unseen");
    wanted[100..106].copy_from_slice(b"unseen");
    seed(&pair);
    assert!(fs::read(&copy).unwrap() == wanted);
    // Without the option it is a device again.
    pair.taken_as.copied_devices = false;
    seed(&pair);
    assert!(fs::symlink_metadata(&copy).unwrap().file_type().is_block_device());
}

#[test]
fn a_device_is_written_only_where_the_module_allows_it() {
    let mut pair = Pair::new();
    let old = content(2);
    let mut new = old.clone();
    new[5_500_000..5_600_000].fill(7);
    let Some(device) = Loop::new(&pair.path("image"), &old) else {
        return;
    };
    let node = pair.dst().join("disk");
    device.node(&node);
    fs::write(pair.src().join("disk"), &new).unwrap();
    // Else it may be of the same size and time as the node, and be taken for equal.
    set_time(&pair.src().join("disk"), 1_000_000, 1);
    pair.kept_as.written_devices = true;
    seed(&pair);
    assert!(fs::symlink_metadata(&node).unwrap().file_type().is_block_device());
    assert!(device.read() == new);
    crate::assert_verified(&pair);
    // Live.
    let receiver = pair.receive();
    let following = Following::start(pair.sender_options(receiver.address(), true));
    following.watching.wait_in_sync();
    let file = OpenOptions::new()
        .write(true)
        .open(pair.src().join("disk"))
        .unwrap();
    file.write_all_at(b"live", 9_000_000).unwrap();
    drop(file);
    new[9_000_000..9_000_004].copy_from_slice(b"live");
    wait_until("a live change", || device.read() == new);
    following.watching.wait_in_sync();
    assert!(following.stop().unwrap().failed.is_empty());
    receiver.stop();
    // One that is in use is left alone, and so is one of another size.
    let used = OpenOptions::new()
        .read(true)
        .custom_flags(O_EXCL)
        .open(&device.device)
        .unwrap();
    fs::write(pair.src().join("disk"), vec![1; BYTES]).unwrap();
    let summary = pair.seed().unwrap();
    assert!(!summary.failed.is_empty(), "{summary:?}");
    assert!(device.read() == new);
    drop(used);
    fs::write(pair.src().join("disk"), vec![1; BYTES - 512]).unwrap();
    let summary = pair.seed().unwrap();
    assert!(
        summary
            .failed
            .iter()
            .any(|entry| entry.error.contains("another size")),
        "{summary:?}"
    );
    assert!(device.read() == new);
    assert!(fs::symlink_metadata(&node).unwrap().file_type().is_block_device());
    // Without permission, a file takes the place of the node, and the device is not touched.
    pair.kept_as.written_devices = false;
    seed(&pair);
    assert!(fs::symlink_metadata(&node).unwrap().is_file());
    assert!(device.read() == new);
}

#[test]
fn from_device_to_device() {
    let mut pair = Pair::new();
    (pair.taken_as.copied_devices, pair.kept_as.written_devices) = (true, true);
    let wanted = content(3);
    let Some(from) = Loop::new(&pair.path("from"), &wanted) else {
        return;
    };
    let Some(to) = Loop::new(&pair.path("to"), &vec![9; BYTES]) else {
        return;
    };
    from.node(&pair.src().join("disk"));
    to.node(&pair.dst().join("disk"));
    seed(&pair);
    assert!(to.read() == wanted);
    from.write(1, b"again");
    seed(&pair);
    assert!(to.read() == from.read());
    crate::assert_verified(&pair);
}
