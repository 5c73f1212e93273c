//! Hooks at the end that receives: of a confined `driftless receive`, and of a daemon's modules by path.

use crate::hooks::{hook, program, runs};
use crate::site::{Daemon, Site, free_port, until};
use rustix::process::{Pid, Signal};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A receiver of the module `m` with these options, and the target that means it.
fn receive(site: &Site, options: &str) -> (Daemon, String) {
    let port = free_port();
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    let line = format!(
        "receive dst --module m --listen 127.0.0.1:{port} --allow {} --json {options}",
        site.fingerprint("home")
    );
    (Daemon::spawn(site.command_in("home-r", &line)), target)
}

fn site() -> Site {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    site
}

/// The process that runs a receiver's hooks.
fn helper_of(receiver: &Daemon) -> PathBuf {
    let process = receiver.process();
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
    let is_it = |child: &&str| {
        let line = fs::read_to_string(format!("/proc/{child}/cmdline"));
        line.is_ok_and(|line| line.contains("\0hooks\0"))
    };
    let found = children.split_whitespace().find(is_it);
    PathBuf::from(format!("/proc/{}", found.expect("no process runs hooks")))
}

fn number_of(process: &Path) -> Pid {
    let number = process.file_name().unwrap().to_str().unwrap();
    Pid::from_raw(number.parse().unwrap()).unwrap()
}

#[test]
fn a_confined_receiver_runs_hooks_by_path_and_when_in_sync() {
    let site = site();
    let (batch, sync) = (program(&site, "batch", ""), program(&site, "sync", ""));
    let (receiver, target) = receive(
        &site,
        &format!("--hook after-batch={batch} --hook in-sync={sync} --hook-paths conf/*.conf"),
    );
    let helper = helper_of(&receiver);
    // As a service manager does that stops all processes of a unit: this one ends when the receiver does.
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        rustix::process::kill_process(number_of(&helper), signal).unwrap();
    }
    site.write("src/page", "1");
    site.run(&format!("seed src {target}"), 0);
    until("it was told that they are in sync", || {
        !runs(&site, "sync").is_empty()
    });
    let (words, told) = runs(&site, "sync").remove(0);
    assert_eq!(
        (words.as_str(), told["module"].as_str()),
        ("in-sync m  ", Some("m"))
    );
    assert_eq!(told["peers"][0], site.fingerprint("home"));
    assert!(told["sequence"].is_u64(), "{told}");
    assert!(runs(&site, "batch").is_empty(), "a page is no .conf");

    fs::create_dir(site.path("src/conf")).unwrap();
    site.write("src/conf/nginx.conf", "new");
    site.write("src/nginx.conf", "elsewhere");
    let before = runs(&site, "sync").len();
    site.run(&format!("seed src {target}"), 0);
    until("it was told of the change", || !runs(&site, "batch").is_empty());
    let (words, told) = runs(&site, "batch").remove(0);
    assert_eq!(words, "after-batch m  ");
    let changes = told["changes"].as_array().unwrap();
    let seen = (
        changes.len(),
        changes[0]["path"].as_str(),
        changes[0]["bytes"].as_u64(),
    );
    assert_eq!(seen, (1, Some("conf/nginx.conf"), Some(3)), "{told}");
    assert_eq!(changes[0]["verb"], "put");
    assert_eq!(told["applied"], 1, "{told}");
    until("in sync again", || runs(&site, "sync").len() > before);
    // What goes away is a change, too.
    fs::remove_file(site.path("src/conf/nginx.conf")).unwrap();
    site.run(&format!("seed src {target} --delete always"), 0);
    until("it was told of the removal", || runs(&site, "batch").len() > 1);
    let (_, told) = runs(&site, "batch").remove(1);
    assert_eq!(told["changes"][0]["verb"], "removed", "{told}");
    assert_eq!(receiver.stop(), Some(0));
    assert!(!helper.exists(), "the process of the hooks outlived the receiver");
}

#[test]
fn hooks_that_misbehave_hold_up_no_receiver() {
    let site = site();
    let (hang, loud) = (
        program(&site, "hang", "sleep 600;"),
        program(
            &site,
            "loud",
            "printf 'clear \\033[2J' >&2; head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 3;",
        ),
    );
    let (mut receiver, target) = receive(
        &site,
        &format!(
            "--hook after-batch={hang} --hook after-batch={loud} --hook in-sync=/no/such/program --hook-timeout 1s"
        ),
    );
    for round in 0..3 {
        site.write("src/file", format!("{round}"));
        site.run(&format!("seed src {target}"), 0);
        assert_eq!(site.read("dst/file"), Some(format!("{round}")));
    }
    for said in [
        "the after-batch hook",
        "was killed: it had not ended after 1 s",
        "loud failed: exit status: 3",
        "loud: clear \\x1b[2Jxxxx",
        "more bytes that it printed are not logged",
        "the in-sync hook /no/such/program cannot be run: No such file",
    ] {
        receiver.hear(|line| line.contains(said) && !line.contains('\x1b'));
    }
    let logged: usize = receiver.said_now().iter().map(String::len).sum();
    assert!(logged < 500_000, "{logged} bytes of a log");
    // Whoever kills the process that runs them has a receiver without hooks.
    let helper = helper_of(&receiver);
    rustix::process::kill_process(number_of(&helper), Signal::KILL).unwrap();
    for round in 3..6 {
        site.write("src/file", format!("{round}"));
        site.run(&format!("seed src {target}"), 0);
    }
    receiver.hear(|line| line.contains("no hook runs any more"));
    assert_eq!(receiver.stop(), Some(0));
}

/// What is told when the receiver is stopped in the same breath, and by whom trees are called equal.
#[test]
fn what_was_done_last_is_told_and_trees_that_differ_are_not_equal() {
    let site = site();
    let (slow, sync) = (program(&site, "slow", ""), program(&site, "sync", ""));
    let (receiver, target) = receive(&site, &format!("--hook after-batch={slow} --hook in-sync={sync}"));
    // The target has a directory with something in it where the source gets a file, and keeps it.
    fs::create_dir(site.path("dst/thing")).unwrap();
    site.write("dst/thing/mine.p", "protected");
    site.write("src/thing", "a file");
    let seed = || {
        let mut seed = site.command_in("home", &format!("seed src {target} --delete always --filter"));
        assert_eq!(seed.arg("P *.p").output().unwrap().status.code(), Some(3));
    };
    seed();
    let mut last = 0;
    for round in 0..5 {
        site.write("src/file", "x".repeat(round + 1));
        seed();
        last = round as u64 + 1;
    }
    assert_eq!(receiver.stop(), Some(0));
    let told = runs(&site, "slow");
    let changes = told
        .iter()
        .flat_map(|(_, told)| told["changes"].as_array().unwrap().clone());
    let of_file: Vec<_> = changes.filter(|change| change["path"] == "file").collect();
    assert_eq!(of_file.last().unwrap()["bytes"], last, "{told:?}");
    assert!(runs(&site, "sync").is_empty(), "an entry is in error");
}

#[test]
fn a_killed_receiver_takes_the_process_of_its_hooks_along() {
    let site = site();
    let (receiver, _) = receive(&site, "--hook error=/bin/true --confine off");
    let helper = helper_of(&receiver);
    receiver.signal(Signal::KILL);
    // Its new parent may be slow to reap it.
    let has_ended = || {
        let state = fs::read_to_string(helper.join("stat"));
        state.map_or(true, |state| state.contains(") Z "))
    };
    until("it has ended", has_ended);
}

#[test]
fn hooks_that_a_receiver_cannot_have_are_refused() {
    let site = site();
    for (options, said) in [
        (
            "--hook before-batch=/bin/true",
            "before-batch is for the end that sends",
        ),
        ("--hook in-sync=true", "is not the path of a program"),
        ("--hook-paths x", "--hook"),
        ("--hook error=/bin/true --hook-timeout 0s", "above 0"),
    ] {
        let (_, error) = site.run_in("home-r", &format!("receive dst {options}"), 2);
        assert!(error.contains(said), "{options}: {error}");
    }
    site.configure("[settings]\nhook = 'in-sync=/bin/true'\n");
    let (_, error) = site.run("config check", 2);
    assert!(error.contains("hook is written as a [[hook]]"), "{error}");
}

#[test]
fn hooks_of_modules_go_by_paths_and_by_what_senders_say() {
    let site = site();
    let port = free_port();
    let (conf, sync) = (program(&site, "conf", ""), program(&site, "sync", ""));
    let receiver = format!(
        "[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{}'\n[[module]]\nname = 'm'\npath = '{}'\n{}{}",
        site.fingerprint("home"),
        site.path("dst").display(),
        hook("modules = ['m']\npaths = ['*.conf']", &[&conf, "reload"]),
        hook("modules = ['m']\non = 'in-sync'", &[&sync]),
    );
    site.write("home-r/driftless.toml", receiver);
    let _receiver = Daemon::spawn(site.command_in("home-r", "daemon --json"));
    // Below the module: paths are those in the module.
    let target = format!(
        "driftless://{}@127.0.0.1:{port}/m/sub",
        site.fingerprint("home-r")
    );
    site.write("src/page", "1");
    site.run(&format!("seed src {target}"), 0);
    until("in sync", || !runs(&site, "sync").is_empty());
    assert!(runs(&site, "conf").is_empty());
    site.write("src/a.conf", "1");
    site.run(&format!("seed src {target}"), 0);
    until("it was told", || !runs(&site, "conf").is_empty());
    let (words, told) = runs(&site, "conf").remove(0);
    assert_eq!(
        (words.as_str(), told["changes"][0]["path"].as_str()),
        ("after-batch m reload ", Some("sub/a.conf")),
        "{told}"
    );
}
