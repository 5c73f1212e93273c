//! A trial beside lsyncd: it goes on doing the work, and a dry run says what would be done.

use crate::site::{Daemon, Site, until};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Lsyncd(Child);

impl Lsyncd {
    /// Runs with one sync of the site, or not where it is not installed.
    fn start(site: &Site) -> Option<Lsyncd> {
        let installed = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if !installed("lsyncd") || !installed("rsync") {
            assert!(
                std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none_or(|value| value != "1"),
                "skipped: lsyncd and rsync are not installed"
            );
            eprintln!("skipped: lsyncd and rsync are not installed");
            return None;
        }
        let configuration = format!(
            "settings {{ nodaemon = true, insist = true }}\nsync {{ default.rsync, source = '{}', target = '{}', delay = 1,\n\
             rsync = {{ archive = true }} }}\n",
            site.path("src").display(),
            site.path("dst").display()
        );
        site.write("lsyncd.lua", configuration);
        let mut command = Command::new("lsyncd");
        command.arg(site.path("lsyncd.lua"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Lsyncd(command.spawn().unwrap()))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Lsyncd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether anything of ours is in a tree.
fn has_ours(root: &Path) -> bool {
    fs::read_dir(root).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let is_ours = entry.file_name().as_bytes().starts_with(b".driftless");
        is_ours || (entry.file_type().unwrap().is_dir() && has_ours(&entry.path()))
    })
}

fn set_time(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let times = fs::FileTimes::new().set_modified(time);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

#[test]
fn a_dry_run_follows_beside_lsyncd_and_changes_nothing() {
    let site = Site::new(&["src/d", "dst"]);
    for n in 0..20 {
        site.write(&format!("src/d/{n}"), format!("{n}"));
    }
    // rsync takes times of directories for equal that differ by less than a second.
    set_time(&site.path("src/d"), 1_000_000_000);
    set_time(&site.path("src"), 1_000_000_000);
    let Some(lsyncd) = Lsyncd::start(&site) else {
        return;
    };
    until("lsyncd has copied the tree", || site.read("dst/d/19").is_some());
    let (_receiver, target) = site.receiver("dst");
    // Its first copy is complete when the times of directories are set, which rsync does last.
    let copied = || {
        let time = |path: &str| site.path(path).metadata().unwrap().modified().unwrap();
        time("src") == time("dst") && time("src/d") == time("dst/d")
    };
    until("lsyncd is done", copied);
    let (told, _) = site.run(&format!("verify src {target}"), 0);
    assert!(told.contains("equal"), "{told}");
    let mut dry = Daemon::listening(site.command(&format!("send src {target} --dry-run --delete always")));
    dry.wait(|line| line.contains("dry run, nothing was changed; 0 files"));
    // Who comes first is not left to chance.
    lsyncd.signal(Signal::STOP);
    site.write("src/d/new", "new");
    dry.wait(|line| line.ends_with("<f+++++++++ d/new"));
    fs::remove_file(site.path("src/d/7")).unwrap();
    dry.wait(|line| line.ends_with("*deleting   d/7"));
    assert!(site.read("dst/d/new").is_none() && site.read("dst/d/7").is_some());
    set_time(&site.path("src/d"), 1_100_000_000);
    lsyncd.signal(Signal::CONT);
    until("lsyncd did it", || {
        site.read("dst/d/new").is_some() && site.read("dst/d/7").is_none()
    });
    until("lsyncd is done", copied);
    dry.signal(Signal::INT);
    site.run(&format!("verify src {target}"), 0);
    // What lsyncd did not do is found.
    drop(lsyncd);
    site.write("dst/d/3", "?");
    let (told, _) = site.run(&format!("verify src {target}"), 4);
    assert!(told.contains("d/3"), "{told}");
    assert!(!has_ours(&site.path("dst")), "something was left in the target");
}
