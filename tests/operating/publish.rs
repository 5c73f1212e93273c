//! Release trees that change at once: somebody who reads all the time never sees two releases in one.

use crate::site::{Daemon, Site, free_port, until};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const FILES: usize = 40;

fn file(number: usize) -> String {
    format!("{}/f{number}", ["a", "b/deep"][number % 2])
}

/// Writes a release: every file says which one it is.
fn write(release: &Path, version: usize) {
    fs::create_dir_all(release.join("a")).unwrap();
    fs::create_dir_all(release.join("b/deep")).unwrap();
    for number in 0..FILES {
        // Some of them are large enough to be offered, and to be patched.
        let more = if number < 4 { 200_000 } else { 0 };
        let text = format!("{version}\n{}", "x".repeat(more));
        fs::write(release.join(file(number)), text).unwrap();
    }
    for gone in fs::read_dir(release).unwrap() {
        let gone = gone.unwrap();
        if gone.file_name().to_string_lossy().starts_with("only-") {
            fs::remove_file(gone.path()).unwrap();
        }
    }
    fs::write(release.join(format!("only-{version}")), "").unwrap();
}

/// Reads all of a release through one handle of its directory. None if another took its place meanwhile.
fn read(release: &Path) -> Option<String> {
    let top = File::open(release).unwrap();
    let is_visible = || fs::metadata(release).unwrap().ino() == top.metadata().unwrap().ino();
    let at = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    let mut versions = BTreeSet::new();
    for number in 0..FILES {
        match fs::read_to_string(at.join(file(number))) {
            Ok(text) => versions.extend(text.lines().next().map(str::to_owned)),
            Err(error) if error.kind() == ErrorKind::NotFound && !is_visible() => return None,
            Err(error) => panic!("{} of a visible release: {error}", file(number)),
        }
    }
    assert_eq!(versions.len(), 1, "a mixture was visible: {versions:?}");
    let version = versions.pop_first()?;
    let own: Vec<_> = fs::read_dir(&at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let own = own
        .iter()
        .filter(|name| name.to_string_lossy().starts_with("only-"));
    let own: Vec<_> = own.map(|name| name.to_string_lossy().into_owned()).collect();
    if own != [format!("only-{version}")] {
        assert!(!is_visible(), "release {version} has {own:?}");
        return None;
    }
    Some(version)
}

/// Reads until it is dropped.
struct Reader(Arc<AtomicBool>, Option<JoinHandle<(usize, BTreeSet<String>)>>);

impl Reader {
    fn start(release: PathBuf) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let (mut reads, mut versions) = (0, BTreeSet::new());
                while !stop.load(Ordering::Relaxed) {
                    if let Some(version) = read(&release) {
                        reads += 1;
                        versions.insert(version);
                    }
                }
                (reads, versions)
            }
        });
        Reader(stop, Some(thread))
    }

    /// How often it read a whole release, and which of them it saw.
    fn stop(mut self) -> (usize, BTreeSet<String>) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has a new release at the name of the present one, in one step.
fn swap(site: &Site, version: usize) {
    let (new, current) = (site.path("build"), site.path("src/releases/current"));
    write(&new, version);
    renameat_with(CWD, &new, CWD, &current, RenameFlags::EXCHANGE).unwrap();
    fs::remove_dir_all(new).unwrap();
}

fn leftovers(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![below.to_owned()];
    while let Some(directory) = directories.pop() {
        // Something may be on its way out.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(".driftless") {
                found.push(path);
            } else if path.is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

fn many_deploys(target: impl FnOnce(&Site) -> (String, Option<Daemon>)) {
    let site = Site::new(&["src", "dst", "outside"]);
    write(&site.path("src/releases/current"), 0);
    write(&site.path("src/plain"), 0);
    let (configuration, receiver) = target(&site);
    site.configure(&configuration);
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait src --timeout 60s", 0);
    let release = site.path("dst/releases/current");
    assert_eq!(read(&release).as_deref(), Some("0"));
    let reader = Reader::start(release.clone());
    let mut version = 0;
    for _ in 0..8 {
        // A tree that is replaced by another one.
        version += 1;
        swap(&site, version);
        site.run("wait src --timeout 60s", 0);
        assert_eq!(
            read(&release),
            Some(version.to_string()),
            "what is waited for is published"
        );
        // Several in a row: each state that is seen is one of them.
        for _ in 0..3 {
            version += 1;
            swap(&site, version);
        }
        // A tree that is written to, while nothing of it is sent.
        site.run("pause www", 0);
        version += 1;
        write(&site.path("src/releases/current"), version);
        site.run("resume www", 0);
        site.run("wait src --timeout 60s", 0);
        assert_eq!(read(&release), Some(version.to_string()));
    }
    let (reads, versions) = reader.stop();
    println!("{reads} reads saw {} of {} releases", versions.len(), version + 1);
    assert!(reads > 0 && versions.len() > 1, "{reads} {versions:?}");
    // A release that is renamed, and one that goes.
    fs::rename(site.path("src/releases/current"), site.path("src/releases/old")).unwrap();
    write(&site.path("src/releases/other"), 100);
    site.run("wait src --timeout 60s", 0);
    assert!(!release.exists());
    assert_eq!(read(&site.path("dst/releases/old")), Some(version.to_string()));
    assert_eq!(read(&site.path("dst/releases/other")), Some("100".to_owned()));
    site.run("verify --mirror www", 0);
    assert_eq!(leftovers(&site.path("dst/releases")), Vec::<PathBuf>::new());
    drop(receiver);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_reader_sees_one_release_or_the_other_in_a_directory_of_this_machine() {
    many_deploys(|site| {
        (
            site.mirror("www", "src", &["dst"], "publish = ['releases/*']"),
            None,
        )
    });
}

#[test]
fn a_reader_sees_one_release_or_the_other_on_another_machine() {
    many_deploys(|site| {
        let (receiver, target) = site.receiver_with("dst", "--publish releases/* --drift-watch alarm");
        (site.mirror("www", "src", &[&target], ""), Some(receiver))
    });
}

#[test]
fn what_contradicts_it_is_refused() {
    let site = Site::new(&["src", "dst"]);
    for (more, reason) in [("--inplace", "--inplace"), ("--drift keep", "--drift")] {
        let (_, error) = site.run(&format!("mirror src dst --once --publish a/* {more}"), 2);
        assert!(error.contains(reason), "{error}");
    }
    let far = format!("driftless://{}@127.0.0.1:9/module", site.fingerprint("home"));
    let (_, error) = site.run(&format!("mirror src {far} --publish a/*"), 2);
    assert!(error.contains("--publish"), "{error}");
}

/// What a hook of the module is told of is visible, all of it; before that it is told nothing.
#[test]
fn a_hook_of_the_module_runs_when_a_release_is_published() {
    let site = Site::new(&["src/releases", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let (port, log) = (free_port(), site.path("hook.log"));
    let script = format!(
        "#!/bin/sh\ncat >/dev/null\n{{ cat '{0}'/a/* '{0}'/b/deep/* | sort -u | tr '\\n' ' '; echo; }} >>'{1}'\n",
        site.path("dst/releases/current").display(),
        log.display()
    );
    let hook = site.path("hook");
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let receiver = format!(
        "[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{}'\n[[module]]\nname = 'm'\npath = '{}'\npublish = ['releases/*']\n\
         [[hook]]\nmodules = ['m']\ncommand = ['{}']\n",
        site.fingerprint("home"),
        site.path("dst").display(),
        hook.display()
    );
    site.write("home-r/driftless.toml", receiver);
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    site.configure(&site.mirror("www", "src", &[&target], ""));
    let _receiver = Daemon::spawn(site.command_in("home-r", "daemon --json"));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait src --timeout 60s", 0);
    // Small files only: the hook prints what is in them.
    let small = |version: usize| {
        for number in 0..FILES {
            site.write(&format!("build/{}", file(number)), format!("{version}\n"));
        }
    };
    for directory in ["build/a", "build/b/deep"] {
        fs::create_dir_all(site.path(directory)).unwrap();
    }
    let runs = || site.read("hook.log").unwrap_or_default();
    for version in 1..5 {
        small(version);
        match version {
            1 => fs::rename(site.path("build"), site.path("src/releases/current")).unwrap(),
            _ => renameat_with(
                CWD,
                site.path("build"),
                CWD,
                site.path("src/releases/current"),
                RenameFlags::EXCHANGE,
            )
            .unwrap(),
        }
        for directory in ["build/a", "build/b/deep"] {
            fs::create_dir_all(site.path(directory)).unwrap();
        }
        site.run("wait src --timeout 60s", 0);
        let last = format!("{version} ");
        until("the hook saw it", || runs().lines().last() == Some(&last));
    }
    let seen = runs();
    let whole = |line: &str| matches!(line, "1 " | "2 " | "3 " | "4 ");
    // Something may be durable before there is any release.
    let mut published = seen.lines().skip_while(|line| line.is_empty());
    assert!(published.all(whole), "a run saw a mixture: {seen}");
}
