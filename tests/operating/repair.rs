//! What is not as it should be on a target: found beside a mirror at work, by `verify` and by the scrub, and mended.

use crate::site::{Daemon, Site, free_port, until};
use serde_json::Value;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Changes one byte, with size and time of modification as before.
fn rot(path: &Path) {
    let meta = fs::metadata(path).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
    file.set_times(FileTimes::new().set_modified(meta.modified().unwrap()))
        .unwrap();
    let now = fs::metadata(path).unwrap();
    assert_eq!((meta.len(), meta.mtime_nsec()), (now.len(), now.mtime_nsec()));
}

fn is_same(site: &Site, name: &str) -> bool {
    let [ours, theirs] = ["src", "dst"].map(|tree| fs::read(site.path(&format!("{tree}/{name}"))).ok());
    ours.is_some() && ours == theirs
}

fn paths(list: &Value) -> Vec<&str> {
    let mut paths: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    paths.dedup();
    paths
}

fn fill(site: &Site) {
    site.write("src/plain", "some content");
    site.write("src/linked", "content with two names");
    fs::hard_link(site.path("src/linked"), site.path("src/other-name")).unwrap();
    site.write("src/missing", "is going to be missing");
    fs::create_dir(site.path("src/sub")).unwrap();
    site.write("src/sub/mode", "has a mode");
    site.write("src/sub/large", vec![b'x'; 3 << 20]);
}

fn damage(site: &Site) {
    rot(&site.path("dst/plain"));
    rot(&site.path("dst/linked"));
    rot(&site.path("dst/sub/large"));
    fs::remove_file(site.path("dst/missing")).unwrap();
    site.write("dst/sub/extra", "nobody sent this");
    fs::set_permissions(site.path("dst/sub/mode"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn mode(site: &Site, tree: &str) -> u32 {
    fs::metadata(site.path(&format!("{tree}/sub/mode")))
        .unwrap()
        .mode()
}

fn assert_mended(site: &Site) {
    for name in ["plain", "linked", "other-name", "missing", "sub/large"] {
        assert!(is_same(site, name), "{name}");
    }
    assert!(!site.path("dst/sub/extra").exists());
    assert_eq!(mode(site, "src"), mode(site, "dst"));
    let inode = |name: &str| fs::metadata(site.path(name)).unwrap().ino();
    assert_eq!(inode("dst/linked"), inode("dst/other-name"));
}

#[test]
fn verify_finds_and_mends_beside_the_mirror_at_work() {
    let site = Site::new(&["src"]);
    fill(&site);
    let (receiver, target) = site.receiver("dst");
    site.configure(&site.mirror("www", "src", &[&target], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --mirror www --timeout 60s", 0);
    let whole = site.json("verify --mirror www --json", 0);
    assert_eq!(whole["targets"][0]["equal"], true, "{whole}");

    damage(&site);
    // The running mirror is asked, also where source and target are named, and says what differs.
    let line = format!("verify src {target} --json");
    let found = site.json(&line, 4);
    let wanted = [
        "linked",
        "missing",
        "other-name",
        "plain",
        "sub",
        "sub/extra",
        "sub/large",
        "sub/mode",
    ];
    assert_eq!(paths(&found["differences"]), wanted, "{found}");
    assert!(!is_same(&site, "plain"), "verify changed the target");
    let mended = site.json("verify --mirror www --repair --json", 0);
    let mended = &mended["targets"][0];
    assert_eq!(paths(&mended["repaired"]), wanted, "{mended}");
    assert_eq!(
        (&mended["equal"], mended["differences"].as_array().unwrap().len()),
        (&true.into(), 0)
    );
    assert_mended(&site);
    site.run(&line, 0);
    // It goes on mirroring.
    site.write("src/later", "and on");
    site.run("wait --mirror www --timeout 60s", 0);
    assert!(is_same(&site, "later"));

    let (_, error) = site.run("verify --mirror nobody", 1);
    assert!(error.contains("no running sender of this home"), "{error}");
    assert_eq!((daemon.stop(), receiver.stop()), (Some(0), Some(0)));
}

#[test]
fn what_is_on_its_way_is_no_difference_to_a_directory_that_is_mirrored_here() {
    let site = Site::new(&["src", "dst"]);
    fill(&site);
    site.configure(&site.mirror("here", "src", &["dst"], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --mirror here --timeout 60s", 0);
    // The directory is locked by the daemon: nobody else could compare it.
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let source = site.path("src/sub");
        scope.spawn(move || {
            let mut round = 0_u32;
            let pause = std::time::Duration::from_millis(5);
            let timeout = Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            while stopped.recv_timeout(pause) == timeout {
                round += 1;
                fs::write(source.join(format!("new-{}", round % 50)), round.to_string()).unwrap();
            }
        });
        for _ in 0..3 {
            let found = site.json("verify src dst --json", 0);
            assert_eq!(found["equal"], true, "{found}");
        }
        stop.send(()).unwrap();
    });
    damage(&site);
    site.run("verify src dst --repair", 0);
    assert_mended(&site);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn without_a_mirror_at_work_repair_runs_one() {
    let site = Site::new(&["src", "dst"]);
    fill(&site);
    site.run("mirror src dst --once", 0);
    damage(&site);
    let (told, _) = site.run("verify src dst --repair --delete never", 4);
    assert!(told.contains("differs  sub/extra  only on the target"), "{told}");
    assert!(told.contains("repaired  plain  content"), "{told}");
    site.run("verify src dst --repair --delete always", 0);
    assert_mended(&site);
    for line in [
        "verify src dst --delete always",
        "verify src",
        "verify --mirror x src dst",
        "verify src dst --bwlimit fast",
    ] {
        site.run(line, 2);
    }
}

#[test]
fn a_verify_that_was_cut_off_goes_on_where_it_was() {
    let site = Site::new(&["src", "dst"]);
    for number in 0..300 {
        site.write(&format!("src/s{number:03}"), number.to_string());
    }
    site.write("src/z", vec![b'z'; 64 << 20]);
    site.run("mirror src dst --once", 0);
    let slow = Daemon::listening(site.command("verify src dst --bwlimit 1m"));
    // It is at the last file, which takes a minute.
    let fds = format!("/proc/{}/fd", slow.process());
    let large = site.path("src/z").canonicalize().unwrap();
    until("the large file is read", || {
        let open = fs::read_dir(&fds).unwrap().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|path| path == large)
    });
    slow.signal(rustix::process::Signal::INT);
    assert_eq!(slow.ended(), Some(130));
    // What was compared is not looked at again, until that is asked for.
    rot(&site.path("dst/s000"));
    let rest = site.json("verify src dst --json", 0);
    assert_eq!(
        (&rest["compared"], rest["resumed"].is_u64()),
        (&301.into(), true),
        "{rest}"
    );
    let anew = site.json("verify src dst --json", 4);
    assert_eq!(
        (paths(&anew["differences"]), &anew["resumed"]),
        (vec!["s000"], &Value::Null)
    );
}

/// A receiver with options of its own, and the target that means it.
fn receiver(site: &Site, port: u16, options: &str) -> Daemon {
    let line = format!(
        "receive dst --listen 127.0.0.1:{port} --allow {} --json {options}",
        site.fingerprint("home")
    );
    Daemon::spawn(site.command_in("home-r", &line))
}

fn scrub(site: &Site) -> Value {
    let (status, _) = site.run_in("home-r", "status --json", 0);
    let status: Value = serde_json::from_str(&status).unwrap();
    status["daemons"][0]["modules"][0]["scrubs"][0].clone()
}

#[test]
fn the_scrub_finds_what_is_rotten_and_has_it_fetched_again() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    fill(&site);
    let port = free_port();
    let target = format!("driftless://{}@127.0.0.1:{port}/dst", site.fingerprint("home-r"));
    let mut far = receiver(&site, port, "--scrub 1s --scrub-repair");
    let mut events = Daemon::listening(site.command_in("home-r", "events"));
    events.wait(|line| line.contains("\"listening\""));
    site.configure(&site.mirror("www", "src", &[&target], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --mirror www --timeout 60s", 0);

    rot(&site.path("dst/plain"));
    // Other names move the time of the last change of all: that alone is no sign that somebody wrote.
    rot(&site.path("dst/linked"));
    until("the rotten files are mended", || {
        ["plain", "linked", "other-name"]
            .iter()
            .all(|name| is_same(&site, name))
    });
    until("the scrub tells of it", || {
        let told = scrub(&site);
        told["corrupt"].as_u64() > Some(0) && told["edited"].as_u64() > Some(0)
    });
    let event = events.event(|event| event["event"] == "corrupt");
    assert_eq!(event["module"], "dst", "{event}");
    far.hear(|line| line.contains("scrub: ") && line.contains("it is fetched again"));
    let (text, _) = site.run_in("home-r", "status", 0);
    assert!(text.contains("scrub ") && text.contains("corrupt"), "{text}");
    site.run(&format!("verify src {target}"), 0);
    // Rounds go on, and find nothing any more.
    let before = scrub(&site);
    until("another round", || {
        scrub(&site)["finished"].as_u64() > before["finished"].as_u64()
    });
    drop(events);
    assert_eq!((daemon.stop(), far.stop()), (Some(0), Some(0)));
}

#[test]
fn a_scrub_is_paced_and_goes_on_after_a_restart() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    for number in 0..20 {
        site.write(&format!("src/a{number:02}"), number.to_string());
    }
    fs::create_dir(site.path("src/later")).unwrap();
    site.write("src/later/large", vec![b'x'; 64 << 20]);
    let port = free_port();
    let target = format!("driftless://{}@127.0.0.1:{port}/dst", site.fingerprint("home-r"));
    let far = receiver(&site, port, "");
    site.run(&format!("seed src {target}"), 0);
    assert_eq!(far.stop(), Some(0));
    // At a megabyte a second the large file takes a minute.
    let far = receiver(&site, port, "--scrub 7d");
    until("the small files are read", || {
        scrub(&site)["files"].as_u64() == Some(20)
    });
    let before = scrub(&site);
    assert_eq!(
        (&before["finished"], &before["rests"]),
        (&Value::Null, &false.into()),
        "{before}"
    );
    assert_eq!(far.stop(), Some(0));
    let far = receiver(&site, port, "--scrub 7d");
    until("it goes on", || {
        scrub(&site)["bytes_total"].as_u64() > Some(64 << 20)
    });
    let after = scrub(&site);
    assert_eq!(
        (&after["began"], &after["files"]),
        (&before["began"], &before["files"]),
        "{after}"
    );
    assert_eq!(far.stop(), Some(0));
}

fn drift(site: &Site) -> Value {
    let (status, _) = site.run_in("home-r", "status --json", 0);
    let status: Value = serde_json::from_str(&status).unwrap();
    status["daemons"][0]["modules"][0]["drift"][0].clone()
}

/// Waits until local edits are noticed.
fn until_watched(site: &Site) {
    until("the module is watched", || {
        drift(site)["watcher"]
            .as_str()
            .is_some_and(|watcher| !watcher.is_empty())
    });
}

#[test]
fn local_edits_are_told_at_once_and_our_own_writing_is_none() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    fill(&site);
    let port = free_port();
    let log = site.path("hook.log");
    let script = format!("#!/bin/sh\ncat >> '{}'\n", log.display());
    fs::write(site.path("hook"), script).unwrap();
    fs::set_permissions(site.path("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    site.write(
        "home-r/driftless.toml",
        format!(
            "[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{}'\n[[module]]\nname = 'dst'\npath = '{}'\n\
             drift-watch = 'alarm'\n[[hook]]\nmodules = ['dst']\non = 'error'\npaths = ['plain']\ncommand = ['{}']\n",
            site.fingerprint("home"),
            site.path("dst").display(),
            site.path("hook").display()
        ),
    );
    let far = Daemon::spawn(site.command_in("home-r", "daemon --json"));
    let target = format!("driftless://{}@127.0.0.1:{port}/dst", site.fingerprint("home-r"));
    site.configure(&site.mirror("www", "src", &[&target], ""));
    until_watched(&site);
    let mut events = Daemon::listening(site.command_in("home-r", "events"));
    events.wait(|line| line.contains("\"listening\""));
    let daemon = Daemon::start(&site, "daemon --json");
    for round in 0..5 {
        site.write("src/sub/mode", format!("round {round}"));
        fs::create_dir(site.path(&format!("src/new-{round}"))).unwrap();
        site.write(&format!("src/new-{round}/file"), "made by the mirror");
        site.run("wait --mirror www --timeout 60s", 0);
    }
    // An edit, in a directory that came after the watch began; all that was told before it would be of our own doing.
    site.write("dst/new-4/foreign", "edited");
    let event = events.event(|event| event["event"] == "local-edit");
    assert_eq!(
        (&event["path"], &event["what"], &event["module"]),
        (&"new-4/foreign".into(), &"made".into(), &"dst".into())
    );
    site.write("dst/plain", "edited");
    let event = events.event(|event| event["event"] == "local-edit");
    assert_eq!(
        (&event["path"], &event["what"]),
        (&"plain".into(), &"content changed".into())
    );
    fs::remove_file(site.path("dst/missing")).unwrap();
    let event = events.event(|event| event["event"] == "local-edit");
    assert_eq!(
        (&event["path"], &event["what"]),
        (&"missing".into(), &"removed".into())
    );
    // It is told, and left as it is.
    assert_eq!(site.read("dst/plain").as_deref(), Some("edited"));
    assert_eq!(drift(&site)["edits"], 3);
    until("the hook was told", || {
        site.read("hook.log")
            .is_some_and(|text| text.contains("content changed"))
    });
    let told: Value = serde_json::from_str(&site.read("hook.log").unwrap()).unwrap();
    assert_eq!(
        (&told["module"], paths(&told["errors"])),
        (&"dst".into(), vec!["plain"]),
        "{told}"
    );
    let (text, _) = site.run_in("home-r", "status", 0);
    assert!(
        text.contains("watched for local edits by ") && text.contains("missing ("),
        "{text}"
    );
    drop(events);
    assert_eq!((daemon.stop(), far.stop()), (Some(0), Some(0)));
}

#[test]
fn local_edits_are_put_right_by_a_confined_receiver() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    fill(&site);
    let port = free_port();
    let far = receiver(&site, port, "--drift-watch repair");
    let target = format!("driftless://{}@127.0.0.1:{port}/dst", site.fingerprint("home-r"));
    site.configure(&site.mirror("www", "src", &[&target], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --mirror www --timeout 60s", 0);
    until_watched(&site);
    site.write("dst/plain", "edited");
    fs::remove_file(site.path("dst/missing")).unwrap();
    site.write("dst/sub/extra", "nobody sent this");
    fs::create_dir(site.path("dst/foreign")).unwrap();
    site.write("dst/foreign/file", "nor this");
    fs::set_permissions(site.path("dst/sub/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    until("all is as at the source", || {
        ["plain", "missing"].iter().all(|name| is_same(&site, name))
            && !site.path("dst/sub/extra").exists()
            && !site.path("dst/foreign").exists()
            && ["src", "dst"]
                .map(|tree| mode(&site, tree))
                .windows(2)
                .all(|modes| modes[0] == modes[1])
    });
    assert_mended(&site);
    site.run(&format!("verify src {target}"), 0);
    assert!(drift(&site)["edits"].as_u64() >= Some(4));
    assert_eq!((daemon.stop(), far.stop()), (Some(0), Some(0)));
}
