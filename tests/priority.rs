//! Daemons take as little of the machine as they were told to.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::until;

/// <linux/ioprio.h>
const WHO_PROCESS: libc::c_long = 1;
const CLASS_SHIFT: libc::c_long = 13;
const CLASS_IDLE: libc::c_long = 3;

/// Killed when the test ends, whatever its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The numbers of a process's threads, with their names.
fn threads(process: u32) -> Vec<(libc::c_long, String)> {
    let all = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let named = all.flatten().filter_map(|thread| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        Some((thread.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    });
    named.collect()
}

/// Its niceness, by proc_pid_stat(5). The name, in brackets, may have spaces in it.
fn niceness(stat: &Path) -> Option<i32> {
    let text = fs::read_to_string(stat).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    after_name.split(' ').nth(16)?.parse().ok()
}

#[test]
fn every_thread_is_as_nice_as_the_user_said() {
    let directory = tempfile::tempdir().unwrap();
    let [src, dst] = ["src", "dst"].map(|name| directory.path().join(name));
    fs::create_dir(&src).unwrap();
    fs::create_dir(&dst).unwrap();
    fs::write(src.join("file"), b"content").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .arg("mirror")
        .args([&src, &dst])
        .args(["--nice", "7", "--ionice", "idle"])
        .env("DRIFTLESS_HOME", directory.path().join("home"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let process = running.0.id();
    // By then it has all threads that a session has.
    until("the copy", || {
        fs::read(dst.join("file")).is_ok_and(|content| content == b"content")
    });
    let threads = threads(process);
    assert!(threads.len() > 5, "{threads:?}");
    for (thread, name) in threads {
        let stat = format!("/proc/{process}/task/{thread}/stat");
        // One that has ended meanwhile has none.
        if let Some(nice) = niceness(Path::new(&stat)) {
            assert_eq!(nice, 7, "{name}");
        }
        // SAFETY: numbers in, a number out.
        let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, thread) };
        if priority >= 0 {
            assert_eq!(priority >> CLASS_SHIFT, CLASS_IDLE, "{name}");
        }
    }
}
