//! Kernels that lack a call: each is gone without, or refused in words.
//!
//! A filter (seccomp) makes the call fail in a process of its own as on a kernel that never heard of it.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use support::kernel::without;
use support::{assert_equal, assert_no_leftovers};

/// The numbers of these are the same on all architectures but alpha.
const CACHESTAT: libc::c_long = 451;
const FCHMODAT2: libc::c_long = 452;

/// Runs the program where these calls are missing.
fn run(home: &Path, words: &[&OsStr], calls: &[libc::c_long]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command
        .args(words)
        .env("HOME", home)
        .env("DRIFTLESS_HOME", home.join("home"));
    without(&mut command, calls);
    command.output().unwrap()
}

fn fill(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), b"file").unwrap();
    fs::write(root.join("a/large"), vec![7; 3 << 20]).unwrap();
    symlink("b/file", root.join("a/link")).unwrap();
}

/// New, replaced, changed a little, of another type, renamed and removed.
fn change(root: &Path) {
    fs::write(root.join("a/b/file"), b"other").unwrap();
    let mut large = fs::read(root.join("a/large")).unwrap();
    large[1 << 20] = 8;
    fs::write(root.join("a/large"), large).unwrap();
    fs::remove_file(root.join("a/link")).unwrap();
    symlink("elsewhere", root.join("a/link")).unwrap();
    fs::rename(root.join("a/b"), root.join("c")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
}

/// Two runs over a tree where calls are missing; what the second had to say.
fn mirrored(what: &str, calls: &[libc::c_long]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let (src, dst) = (directory.path().join("src"), directory.path().join("dst"));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dst).unwrap();
    fill(&src);
    let words = [
        "mirror".as_ref(),
        src.as_os_str(),
        dst.as_os_str(),
        "--once".as_ref(),
    ];
    for round in 0..2 {
        let output = run(directory.path(), &words, calls);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            // Nothing could be done, or all but for entries that are named.
            let is_told = match output.status.code() {
                Some(1) => true,
                Some(3) => text.contains("failed  "),
                _ => false,
            };
            assert!(is_told, "{what}: {}: {text}", output.status);
            return Err(text);
        }
        assert_equal(&src, &dst);
        assert_no_leftovers(&dst);
        if round == 0 {
            change(&src);
        }
    }
    Ok(())
}

#[test]
fn what_is_newer_than_the_oldest_kernel_can_be_missing() {
    let missing: [(&str, &[libc::c_long]); 6] = [
        ("cachestat", &[CACHESTAT]),
        ("fchmodat2", &[FCHMODAT2]),
        ("fanotify_init", &[libc::SYS_fanotify_init]),
        ("name_to_handle_at", &[libc::SYS_name_to_handle_at]),
        (
            "no watcher at all",
            &[libc::SYS_fanotify_init, libc::SYS_inotify_init1],
        ),
        (
            "copy_file_range, sync_file_range",
            &[libc::SYS_copy_file_range, libc::SYS_sync_file_range],
        ),
    ];
    mirrored("all is there", &[]).unwrap();
    for (what, calls) in missing {
        let outcome = mirrored(what, calls);
        assert_eq!(outcome, Ok(()), "without {what}");
    }
}

/// Names below a root can be resolved safely by this call only.
#[test]
fn without_openat2_it_is_refused_in_words() {
    let text = mirrored("openat2", &[libc::SYS_openat2]).unwrap_err();
    assert!(text.contains("openat2") || text.contains("Linux 5.6"), "{text}");
}

/// Older than every kernel that has `openat2`, so nothing is gone without: but nothing is guessed either.
#[test]
fn without_a_call_that_every_supported_kernel_has_nothing_is_said_to_be_done() {
    for (what, call) in [("statx", libc::SYS_statx), ("renameat2", libc::SYS_renameat2)] {
        let text = mirrored(what, &[call]).unwrap_err();
        assert!(
            text.contains("os error 38") || text.contains("not implemented") || text.contains("cannot"),
            "{what}: {text}"
        );
    }
}
