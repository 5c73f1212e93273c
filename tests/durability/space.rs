//! C-16, C-22, C-26: file systems that are full, have no inodes left, or become read-only; and what happens afterwards.

use crate::flips::content;
use crate::rig::{Rig, driftless, wait_until};
use crate::support::Following;
use crate::support::image::Image;
use crate::support::supervised::Verdict;
use rustix::io::Errno;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// From when the cause is gone.
const RECOVERS: Duration = Duration::from_secs(35);

fn rig_on(image: &Image) -> Rig {
    let ours = tempfile::tempdir().unwrap();
    let home = ours.path().to_owned();
    Rig::at(ours, &image.path(), &home)
}

/// A warning that has all these words.
fn warned(following: &Following, words: &[&str]) -> bool {
    let warnings = following.watching.said().warnings;
    warnings
        .iter()
        .any(|warning| words.iter().all(|word| warning.contains(word)))
}

fn same(left: &Path, right: &Path) -> bool {
    matches!((fs::read(left), fs::read(right)), (Ok(left), Ok(right)) if left == right)
}

/// Waits until the module is like the source, no longer than it may take to recover.
fn recovers(rig: &mut Rig) -> Duration {
    let began = Instant::now();
    let (source, module) = (rig.src(), rig.module.clone());
    let is_equal = || std::panic::catch_unwind(|| crate::support::differences(&source, &module).is_empty());
    while !is_equal().unwrap_or(false) {
        assert!(began.elapsed() < RECOVERS, "it does not recover: {}", rig.log());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    began.elapsed()
}

/// C-16: what fits arrives, what does not is named, nothing cut short is published, and space is found by itself.
#[test]
fn c_16_a_full_disk_parks_what_does_not_fit() {
    let Some(image) = Image::with("tmpfs", "size=2m", &[]) else {
        return;
    };
    let mut rig = rig_on(&image);
    for name in ["before", "zz-after"] {
        fs::write(rig.src().join(name), content(name, 0, 3_000)).unwrap();
    }
    fs::write(rig.src().join("large"), content("large", 0, 4 << 20)).unwrap();
    let _receiver = rig.receive();
    let following = Following::start(rig.sender_options(true));
    wait_until("what fits is there", || {
        ["before", "zz-after"]
            .iter()
            .all(|name| same(&rig.src().join(name), &rig.module.join(name)))
    });
    wait_until("it is told", || {
        warned(&following, &["large", "no space left on device", "free space"])
    });
    // The rest goes on, and what does not fit is not there in part.
    fs::write(rig.src().join("meanwhile"), b"small").unwrap();
    wait_until("the rest goes on", || rig.module.join("meanwhile").exists());
    assert!(!rig.module.join("large").exists());
    image.set_options("size=32m");
    println!("space was found after {:?}", recovers(&mut rig));
    following.stop().unwrap();
}

/// C-16: once there is space for all, the trees are in sync, however long each file would still have waited for its next try.
#[test]
fn c_16_nothing_waits_for_the_next_try_of_what_has_arrived() {
    /// More than the few that find out whether there is space again.
    const FILES: usize = 60;
    let Some(image) = Image::with("tmpfs", "size=32m,nr_inodes=10", &[]) else {
        return;
    };
    let rig = rig_on(&image);
    for number in 0..FILES {
        fs::write(rig.src().join(format!("file-{number}")), b"content").unwrap();
    }
    let _receiver = rig.receive();
    let following = Following::start(rig.sender_options(true));
    wait_until("it is told", || {
        warned(&following, &["file-", "no space left on device", "inodes"])
    });
    following.watching.wait_in_sync();
    image.set_options("nr_inodes=400");
    wait_until("all is there", || {
        (0..FILES).all(|number| rig.module.join(format!("file-{number}")).exists())
    });
    // Well below the half minute after which each would have been tried again.
    let began = Instant::now();
    following.watching.wait_in_sync();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    following.stop().unwrap();
}

/// C-16: no inodes.
#[test]
fn c_16_a_disk_without_inodes_parks_what_does_not_fit() {
    const FILES: usize = 60;
    let Some(image) = Image::with("tmpfs", "size=32m,nr_inodes=40", &[]) else {
        return;
    };
    let mut rig = rig_on(&image);
    for number in 0..FILES {
        fs::write(rig.src().join(format!("file-{number}")), b"content").unwrap();
    }
    let _receiver = rig.receive();
    let following = Following::start(rig.sender_options(true));
    wait_until("it is told", || {
        warned(&following, &["file-", "no space left on device", "inodes"])
    });
    let published = fs::read_dir(&rig.module).unwrap().flatten();
    for file in published.filter(|file| !file.file_name().as_encoded_bytes().starts_with(b".")) {
        assert_eq!(fs::read(file.path()).unwrap(), b"content", "{file:?}");
    }
    image.set_options("nr_inodes=400");
    println!("inodes were found after {:?}", recovers(&mut rig));
    following.stop().unwrap();
}

/// C-17: a quota, which the kernel here has none of, by what a write answers that is over it. Names are no part of it.
#[test]
fn c_17_a_quota_parks_what_does_not_fit() {
    let mut rig = Rig::new();
    fs::write(rig.src().join("first"), b"first").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, module) = (is_over.clone(), rig.module.clone());
    let _receiver = rig.receive_under(move |call| {
        let grows = matches!(
            call.name,
            "pwrite64" | "write" | "ftruncate" | "fallocate" | "copy_file_range"
        );
        match over.load(Ordering::Relaxed) && grows && call.is_in(&module) {
            true => Verdict::Fail(Errno::DQUOT),
            false => Verdict::Pass,
        }
    });
    let following = Following::start(rig.sender_options(true));
    following.watching.wait_in_sync();
    is_over.store(true, Ordering::Relaxed);
    fs::write(rig.src().join("first"), b"second").unwrap();
    fs::write(rig.src().join("large"), content("large", 0, 4 << 20)).unwrap();
    fs::create_dir(rig.src().join("directory")).unwrap();
    wait_until("it is told", || {
        warned(&following, &["first", "quota"]) && warned(&following, &["large", "quota"])
    });
    wait_until("the rest goes on", || rig.module.join("directory").exists());
    assert_eq!(fs::read(rig.module.join("first")).unwrap(), b"first");
    assert!(!rig.module.join("large").exists());
    is_over.store(false, Ordering::Relaxed);
    println!("space was found after {:?}", recovers(&mut rig));
    following.stop().unwrap();
}

/// C-16: the disk of the receiver's own databases. Each connection ends that meets it; when there is space, all goes on.
#[test]
fn c_16_a_full_home_ends_connections_and_recovers() {
    let mut rig = Rig::new();
    fs::write(rig.src().join("first"), b"first").unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let (full, home) = (is_full.clone(), rig.home.clone());
    let _receiver = rig.receive_under(move |call| {
        let grows = matches!(call.name, "pwrite64" | "write" | "ftruncate" | "fallocate");
        match full.load(Ordering::Relaxed) && grows && call.is_in(&home) {
            true => Verdict::Fail(Errno::NOSPC),
            false => Verdict::Pass,
        }
    });
    let following = Following::start(rig.sender_options(true));
    following.watching.wait_in_sync();
    is_full.store(true, Ordering::Relaxed);
    for number in 0..20 {
        fs::write(
            rig.src().join(format!("file-{number}")),
            content("x", number, 2_000),
        )
        .unwrap();
    }
    wait_until("the receiver says so", || rig.log().contains("No space left"));
    is_full.store(false, Ordering::Relaxed);
    println!("space was found after {:?}", recovers(&mut rig));
    following.stop().unwrap();
}

/// C-22: the kernel makes a file system read-only after an error; somebody mounts it writable again.
#[test]
fn c_22_a_file_system_that_becomes_read_only_and_comes_back() {
    let Some(image) = Image::with("ext4", "", &[]) else {
        return;
    };
    let mut rig = rig_on(&image);
    fs::write(rig.src().join("file"), b"first").unwrap();
    let _receiver = rig.receive();
    let following = Following::start(rig.sender_options(true));
    following.watching.wait_in_sync();
    image.set_options("ro");
    fs::write(rig.src().join("file"), b"second").unwrap();
    wait_until("it is told", || {
        warned(
            &following,
            &["file", "read-only file system", "mount it writable"],
        )
    });
    assert_eq!(fs::read(rig.module.join("file")).unwrap(), b"first");
    image.set_options("rw");
    println!("it was found writable after {:?}", recovers(&mut rig));
    following.stop().unwrap();
}

/// C-26: a second receiver on the same root is refused, and touches nothing of what the first is at.
#[test]
fn c_26_a_second_receiver_is_refused_and_sweeps_nothing() {
    let rig = Rig::new();
    let _first = rig.receive();
    let staged = rig.module.join(".driftless-0123456789abcdef");
    fs::write(&staged, b"on its way").unwrap();
    // On a port of its own: it is the module that both want.
    let mut second = driftless(&rig.home);
    second
        .arg("receive")
        .arg(&rig.module)
        .args(["--listen", "127.0.0.1:0"]);
    let second = second.output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success(), "{said}");
    assert!(said.contains("in use by another driftless"), "{said}");
    assert_eq!(fs::read(staged).unwrap(), b"on its way");
}
