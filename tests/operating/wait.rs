//! `driftless wait`, `checkpoint`, `explain` and `rescan`.

use crate::site::{Daemon, PATIENCE, Site, contents, until};
use driftless::daemon::barrier::Level;
use driftless::daemon::control::{Enough, WaitOptions, WaitState, Waited, Which, wait};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Waits for a part of the tree of a site, by the library.
#[track_caller]
fn waited(site: &Site, level: Level, path: Option<&str>) -> Waited {
    let options = WaitOptions {
        which: Which {
            mirror: None,
            path: path.map(|path| site.path(path)),
        },
        level,
        targets: Enough::All,
        timeout: PATIENCE,
    };
    let waited = wait(&site.home(), &options).unwrap();
    assert!(
        waited.is_enough && waited.failed() == 0,
        "{waited:?} {}",
        site.run("status", 0).0
    );
    waited
}

/// Somebody who writes without end, with files that are never closed and never at rest.
struct Busy(Arc<AtomicBool>, Option<std::thread::JoinHandle<()>>);

impl Busy {
    fn start(site: &Site) -> Busy {
        let stop = Arc::new(AtomicBool::new(false));
        let (log, atomic, temporary, churn) = (
            site.path("src/log"),
            site.path("src/replaced"),
            site.path("src/replaced.new"),
            site.path("src/churn"),
        );
        fs::create_dir(&churn).unwrap();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
                for number in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    log.write_all(b"another line\n").unwrap();
                    fs::write(&temporary, number.to_string()).unwrap();
                    fs::rename(&temporary, &atomic).unwrap();
                    let file = churn.join((number % 16).to_string());
                    if fs::remove_file(&file).is_err() {
                        fs::write(file, b"x").unwrap();
                    }
                    std::thread::park_timeout(Duration::from_micros(500));
                }
            }
        });
        Busy(stop, Some(thread))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

/// Whatever is done before a wait is on the target when it returns: among changes that never end, through files that stay
/// open, and although changes are gathered for an hour.
fn everything_before_it_is_there(watch: &str, rounds: u32) {
    let site = Site::new(&["src/a", "dst"]);
    // On a slow machine the busy one has time to remove more names than go unasked.
    let more =
        format!("watch = '{watch}'\ndelay = '1h'\nmax-delay = '1h'\nsettle = '1h'\nmax-delete = 'none'\n");
    site.configure(&site.mirror("www", "src", &["dst"], &more));
    let daemon = Daemon::start(&site, "daemon --json");
    waited(&site, Level::Durable, None);
    let busy = Busy::start(&site);
    let open = File::create(site.path("src/open")).unwrap();
    let large = File::create(site.path("src/large")).unwrap();
    large.set_len(12 << 20).unwrap();
    for round in 0..rounds {
        let text = format!("{round:08}");
        // The same length and perhaps the same tick of the clock as the last time, and nobody closes it.
        open.write_all_at(text.as_bytes(), 0).unwrap();
        site.write("src/a/closed", &text);
        fs::create_dir(site.path(&format!("src/a/d{round}"))).unwrap();
        site.write(&format!("src/a/d{round}/deep"), &text);
        if round > 0 {
            let last = round - 1;
            fs::rename(
                site.path(&format!("src/a/d{last}/deep")),
                site.path("src/a/moved"),
            )
            .unwrap();
            fs::remove_dir(site.path(&format!("src/a/d{last}"))).unwrap();
        }
        if round % 8 == 0 {
            large
                .write_all_at(text.as_bytes(), u64::from(round) << 16)
                .unwrap();
        }
        waited(&site, Level::Applied, (round % 2 == 0).then_some("src"));
        assert_eq!(site.read("dst/open").as_deref(), Some(&*text), "round {round}");
        assert_eq!(
            contents(&site.path("src/a")),
            contents(&site.path("dst/a")),
            "round {round}"
        );
        if round % 8 == 0 {
            let mut there = [0; 8];
            let large = File::open(site.path("dst/large")).unwrap();
            large.read_exact_at(&mut there, u64::from(round) << 16).unwrap();
            assert_eq!(there, text.as_bytes(), "round {round}");
        }
    }
    drop(busy);
    waited(&site, Level::Durable, None);
    assert_eq!(contents(&site.path("src")), contents(&site.path("dst")));
    drop(daemon);
}

#[test]
fn everything_before_it_is_there_by_the_best_watcher() {
    everything_before_it_is_there("auto", 60);
}

#[test]
fn everything_before_it_is_there_by_inotify() {
    everything_before_it_is_there("inotify", 60);
}

#[test]
fn everything_before_it_is_there_by_polling() {
    everything_before_it_is_there("poll", 20);
}

/// Over the network, a part of the tree does not wait for the rest, and each level holds what it promises.
#[test]
fn a_deploy_script_waits_for_two_targets_of_which_one_is_cut_off() {
    let site = Site::new(&["src"]);
    let ((one, to_one), (two, to_two)) = (site.receiver("one"), site.receiver("two"));
    site.configure(&site.mirror("www", "src", &[&to_one, &to_two], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    two.cut_off();
    site.write("src/release", "1");
    let (out, err) = site.run("wait src --level durable --timeout 1s", 5);
    assert!(
        out.is_empty() && err.contains("/two does not have it after 1.00 s"),
        "{out}{err}"
    );
    let (out, _) = site.run("wait src --level durable --targets any --timeout 60s", 0);
    assert!(out.starts_with("durable on 1 target"), "{out}");
    assert_eq!(site.read("one/release").as_deref(), Some("1"));
    // Nothing is claimed of one that hears nothing.
    let late = site.json("wait src --level received --timeout 1s --json", 5);
    let state = |name: &str| {
        let targets = late["targets"].as_array().unwrap().iter();
        let mut of = targets.filter(|target| target["target"].as_str().unwrap().ends_with(name));
        of.next().unwrap()["state"].clone()
    };
    assert_eq!(
        (state("/one").as_str(), state("/two").as_str()),
        (Some("reached"), Some("late")),
        "{late}"
    );
    let (_, err) = site.run("wait --targets 3 --timeout 1s", 2);
    assert!(err.contains("www has 2 targets only"), "{err}");
    two.come_back();
    site.run("wait src --level durable --timeout 60s", 0);
    assert_eq!(site.read("two/release").as_deref(), Some("1"));

    // A target that is started again loses nothing of what is waited for, and neither does a daemon.
    site.write("src/release", "2");
    drop(two);
    let waiting = {
        let (home, path) = (site.home(), site.path("src/release"));
        std::thread::spawn(move || {
            let which = Which {
                mirror: None,
                path: Some(path),
            };
            let options = WaitOptions {
                which,
                level: Level::Received,
                targets: Enough::All,
                timeout: PATIENCE,
            };
            wait(&home, &options).unwrap()
        })
    };
    until("one has it", || site.read("one/release").as_deref() == Some("2"));
    drop(daemon);
    let daemon = Daemon::start(&site, "daemon --json");
    let port = to_two.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    let line = format!(
        "receive two --listen 127.0.0.1:{port} --allow {} --json",
        site.fingerprint("home")
    );
    let _two = Daemon::spawn(site.command_in("home-two", &line));
    let ended = waiting.join().unwrap();
    assert!(ended.is_enough, "{ended:?}");
    until("two has it", || site.read("two/release").as_deref() == Some("2"));
    drop((daemon, one));
}

#[test]
fn who_cannot_be_waited_for_is_told_at_once() {
    let site = Site::new(&["src/cache", "dst", "elsewhere"]);
    let (_, err) = site.run("wait --timeout 1m", 1);
    assert!(err.contains("no sender of this home is running"), "{err}");
    site.configure(&site.mirror("www", "src", &["dst"], "exclude = ['cache/']"));
    site.write("src/cache/x", "x");
    let _daemon = Daemon::start(&site, "daemon --json");
    let began = Instant::now();
    let (_, err) = site.run("wait elsewhere --timeout 1m", 1);
    assert!(err.contains("has a source with elsewhere"), "{err}");
    let (_, err) = site.run("wait --mirror nobody --timeout 1m", 1);
    assert!(err.contains("is called \"nobody\""), "{err}");
    let (_, err) = site.run("wait src/cache --timeout 1m", 1);
    assert!(err.contains("cache is not part of the mirror of"), "{err}");
    // What is gone is there as much as it can be.
    site.run("wait src/never --timeout 1m", 0);
    assert!(began.elapsed() < Duration::from_secs(50));
}

#[test]
fn entries_in_error_are_told_apart_from_success() {
    let site = Site::new(&["src", "dst/thing"]);
    site.write("dst/thing/mine.p", "protected");
    site.configure(&site.mirror("www", "src", &["dst"], "filter = ['P *.p']"));
    let _daemon = Daemon::start(&site, "daemon --json");
    waited(&site, Level::Durable, None);
    site.write("src/thing", "a file, where the target has a directory that stays");
    let (_, err) = site.run("wait --timeout 1m", 3);
    assert!(err.contains("1 entry is in error"), "{err}");
    let told = site.json("explain src/thing --json", 0);
    let told = &told["answers"][0]["explanation"];
    assert_eq!(told["state"], "in-error", "{told}");
    assert!(
        told["error"]
            .as_str()
            .unwrap()
            .contains("which the filter protects"),
        "{told}"
    );
    fs::remove_dir_all(site.path("dst/thing")).unwrap();
    let (out, _) = site.run("rescan src/thing", 0);
    assert!(out.contains("1 entry in error is tried again"), "{out}");
    site.run("wait --timeout 1m", 0);
    assert!(site.read("dst/thing").unwrap().starts_with("a file"));
}

/// Long enough on its way that an answer which does not wait for it comes first.
#[test]
fn what_changed_since_it_was_in_error_is_waited_for() {
    const LARGE: u64 = 64 << 20;
    let site = Site::new(&["src", "dst/thing"]);
    site.write("dst/thing/mine.p", "protected");
    site.configure(&site.mirror("www", "src", &["dst"], "filter = ['P *.p']"));
    let _daemon = Daemon::start(&site, "daemon --json");
    waited(&site, Level::Durable, None);
    site.write("src/thing", "in error");
    site.run("wait --timeout 1m", 3);
    fs::remove_dir_all(site.path("dst/thing")).unwrap();
    fs::File::create(site.path("src/thing"))
        .unwrap()
        .set_len(LARGE)
        .unwrap();
    let began = Instant::now();
    site.run("wait --timeout 1m", 0);
    assert!(began.elapsed() < Duration::from_secs(50));
    assert_eq!(fs::metadata(site.path("dst/thing")).unwrap().len(), LARGE);
}

#[test]
fn a_checkpoint_outlives_the_daemon() {
    let site = Site::new(&["src"]);
    let ((_one, to_one), (two, to_two)) = (site.receiver("one"), site.receiver("two"));
    site.configure(&site.mirror("www", "src", &[&to_one, &to_two], ""));
    let daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    two.cut_off();
    site.write("src/file", "1");
    let (out, _) = site.run("checkpoint release-7", 0);
    assert_eq!(
        out.lines()
            .filter(|line| line.contains("checkpoint release-7 taken"))
            .count(),
        2,
        "{out}"
    );
    let completed = |target: &str| {
        let listed = site.json("checkpoint --json", 0);
        let targets = listed["targets"].as_array().unwrap().clone();
        let mut of = targets
            .into_iter()
            .filter(|known| known["target"].as_str().unwrap().ends_with(target));
        of.next().unwrap()["checkpoints"][0]["completed"].clone()
    };
    until("the first target passes it", || completed("/one").is_u64());
    assert_eq!(site.read("one/file").as_deref(), Some("1"));
    assert!(completed("/two").is_null());
    assert_eq!(daemon.stop(), Some(1));
    two.come_back();
    let _daemon = Daemon::start(&site, "daemon --json");
    until("the second target passes it", || completed("/two").is_u64());
    assert_eq!(site.read("two/file").as_deref(), Some("1"));
    let (out, _) = site.run("checkpoint", 0);
    assert!(
        out.contains("release-7: taken") && !out.contains("not passed"),
        "{out}"
    );
    site.run("checkpoint release-7 --remove", 0);
    let (_, err) = site.run("checkpoint release-7 --remove", 1);
    assert!(err.contains("there is no checkpoint"), "{err}");
    let (out, _) = site.run("checkpoint", 0);
    assert!(out.is_empty(), "{out}");
}

#[test]
fn a_path_is_explained_and_looked_at_again() {
    let site = Site::new(&["src/sub", "dst"]);
    site.write("rules", "+ keep.o\n- *.o\n");
    let more = format!(
        "exclude-from = '{}'\nwatch = 'poll'",
        site.path("rules").display()
    );
    site.configure(&site.mirror("www", "src", &["dst"], &more));
    for name in ["keep.o", "drop.o", "file", "sub/x"] {
        site.write(&format!("src/{name}"), name);
    }
    let _daemon = Daemon::start(&site, "daemon --json");
    waited(&site, Level::Durable, None);
    let explain = |path: &str| {
        let told = site.json(&format!("explain src/{path} --json"), 0);
        told["answers"][0]["explanation"].clone()
    };
    let told = explain("drop.o");
    assert_eq!(told["state"], "excluded");
    assert!(
        told["rule"].as_str().unwrap().contains("- *.o (")
            && told["rule"].as_str().unwrap().contains("line 2"),
        "{told}"
    );
    let told = explain("keep.o");
    assert_eq!(
        (told["state"].as_str(), told["size"].as_u64()),
        (Some("in-sync"), Some(6)),
        "{told}"
    );
    assert_eq!(told["digest"], blake3::hash(b"keep.o").to_hex().to_string());
    assert_eq!(explain("nothing")["state"], "missing");
    assert_eq!(explain(".driftless-x")["state"], "private");
    assert_eq!(explain("sub")["kind"], "directory");
    let (out, _) = site.run("explain src/drop.o", 0);
    assert!(
        out.contains("drop.o is excluded: the filter leaves it out\n"),
        "{out}"
    );
    site.run("explain nowhere", 1);
    // Nobody tells of it: it would be found a minute later.
    site.write("src/sub/new", "new");
    let began = Instant::now();
    site.run("rescan src/sub", 0);
    until("it was found", || site.read("dst/sub/new").is_some());
    assert!(began.elapsed() < Duration::from_secs(30));
}

/// Whoever goes away leaves nothing behind, and nobody can take all the places.
#[test]
fn many_may_wait_and_go_away() {
    let site = Site::new(&["src"]);
    let (one, to_one) = site.receiver("one");
    site.configure(&site.mirror("www", "src", &[&to_one], ""));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    one.cut_off();
    site.write("src/file", "1");
    let mut waiting: Vec<_> = (0..20)
        .map(|_| site.command("wait --timeout 10m").spawn().unwrap())
        .collect();
    site.run("wait --timeout 1s", 5);
    for child in &mut waiting {
        assert_eq!(child.try_wait().unwrap(), None);
    }
    for child in &mut waiting[..10] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    one.come_back();
    for child in &mut waiting[10..] {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let state = site.sender("www", "/one");
    assert_eq!(state["phase"], "in-sync", "{state}");
    assert!(matches!(
        waited(&site, Level::Received, None).targets.values().next(),
        Some(WaitState::Reached { failed: 0 })
    ));
}

/// The last answers are waited for: who stops a mirror when a change has arrived hears that the trees are in sync.
#[test]
fn a_stop_right_after_a_change_was_applied_is_one_in_sync() {
    let site = Site::new(&["src", "dst"]);
    let (receiver, target) = site.receiver("there");
    for destination in ["dst", &target] {
        let mut daemon = Daemon::listening(site.command(&format!("mirror src {destination} --json")));
        daemon.event(|event| event["phase"] == "in-sync");
        // Whole when it is seen first.
        site.write("file", destination);
        fs::rename(site.path("file"), site.path("src/file")).unwrap();
        daemon.event(|event| event["event"] == "applied" && event["path"] == "file");
        assert_eq!(daemon.stop(), Some(0), "{destination}");
    }
    assert_eq!(receiver.stop(), Some(0));
}
