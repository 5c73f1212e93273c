//! The configuration and the daemon that runs it, through the real program.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home with a configuration, and trees beside it.
struct Site(TempDir);

impl Site {
    fn new(directories: &[&str]) -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        for name in directories.iter().chain(&["home"]) {
            fs::create_dir_all(site.path(name)).unwrap();
        }
        fs::set_permissions(site.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path as it is written in a configuration.
    fn word(&self, name: &str) -> String {
        format!("'{}'", self.path(name).display())
    }

    fn mirror(&self, name: &str, source: &str, target: &str, more: &str) -> String {
        let target = if target.contains(':') {
            format!("'{target}'")
        } else {
            self.word(target)
        };
        format!(
            "[[mirror]]\nname = '{name}'\nsource = {}\ntargets = [{target}]\ndelete = 'always'\n{more}\n",
            self.word(source)
        )
    }

    fn module(&self, name: &str, path: &str) -> String {
        format!("[[module]]\nname = '{name}'\npath = {}\n", self.word(path))
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("home/driftless.toml"), text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .args(line.split_whitespace().map(OsStr::new))
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn run(&self, line: &str, status: i32) -> (String, String) {
        let Output {
            status: ended,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        let texts = (
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        );
        assert_eq!(ended.code(), Some(status), "{line}: {texts:?}");
        texts
    }

    fn fingerprint(&self) -> String {
        self.run("id", 0).0.split_whitespace().last().unwrap().to_owned()
    }

    /// The status of the sender of a mirror.
    #[track_caller]
    fn sender(&self, mirror: &str) -> Value {
        let (out, _) = self.run("status --json", 0);
        let status: Value = serde_json::from_str(&out).unwrap();
        let found = status["daemons"]
            .as_array()
            .unwrap()
            .iter()
            .find(|d| d["mirror"] == mirror)
            .cloned();
        found.unwrap_or_else(|| panic!("no {mirror} in {status}"))
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    UdpSocket::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A running daemon, and all that it says.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Daemon {
    fn start(site: &Site, line: &str) -> Daemon {
        Daemon::spawn(site.command(line))
    }

    fn spawn(command: Command) -> Daemon {
        Daemon::spawn_until(command, "\"event\":\"ready\"")
    }

    /// Waits until it says that it is ready.
    fn spawn_until(mut command: Command, ready: &str) -> Daemon {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        // Else nobody would see that it ended.
        drop(sender);
        let mut daemon = Daemon {
            child,
            lines,
            said: Vec::new(),
        };
        daemon.wait(|line| line.contains(ready));
        daemon
    }

    /// The next line that is like this; those before it are passed by.
    #[track_caller]
    fn wait(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let Ok(line) = self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            else {
                panic!("it was never said: {:#?}", self.said);
            };
            self.said.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    #[track_caller]
    fn wait_phase(&mut self, mirror: &str, phase: &str) {
        let event = format!("\"mirror\":\"{mirror}\",\"phase\":\"{phase}\"");
        self.wait(|line| line.contains(&event));
    }

    /// A line like this, also if it was passed by: the two streams are not in step.
    #[track_caller]
    fn hear(&mut self, is_it: impl Fn(&str) -> bool) {
        if !self.said.iter().any(|line| is_it(line)) {
            self.wait(is_it);
        }
    }

    /// Waits until a file is as wanted, looking each time that its mirror comes into sync.
    #[track_caller]
    fn wait_file(&mut self, mirror: &str, path: &Path, content: &str) {
        while fs::read_to_string(path).ok().as_deref() != Some(content) {
            self.wait_phase(mirror, "in-sync");
        }
    }

    /// How often it has said something so far.
    fn count(&mut self, what: &str) -> usize {
        self.said.extend(self.lines.try_iter());
        self.said.iter().filter(|line| line.contains(what)).count()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it as a service manager does, and gives its status.
    fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let until = Instant::now() + PATIENCE;
        // Both streams close when it ends.
        while let Ok(line) = self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.said.push(line);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_configuration_is_checked_and_shown_with_the_origin_of_each_value() {
    let site = Site::new(&["src", "dst", "in", "home/mirrors.d"]);
    site.configure(&format!(
        "[settings]\ndelay = '2s'\n\n{}",
        site.mirror("a", "src", "dst", "delay = 5")
    ));
    fs::write(site.path("home/mirrors.d/m.toml"), site.module("m", "in")).unwrap();
    let (out, err) = site.run("config check", 0);
    assert!(
        out.contains("correct; 1 mirror, 1 module") && err.is_empty(),
        "{out}{err}"
    );

    let (text, _) = site.run("config show", 0);
    let line = |begin: &str| {
        text.lines()
            .find(|line| line.starts_with(begin))
            .unwrap_or_else(|| panic!("no {begin} in {text}"))
    };
    assert!(line("delay = \"2s\"").ends_with("driftless.toml:2"), "{text}");
    assert!(line("delay = 5").ends_with("driftless.toml:9"), "{text}");
    assert!(line("max-delete = \"1000,25%\"").ends_with("# default"), "{text}");
    assert!(
        line("path = ").contains("# drop-in ") && line("path = ").ends_with("m.toml:3"),
        "{text}"
    );
    // What is shown can be used, and means the same.
    fs::write(site.path("shown.toml"), &text).unwrap();
    let (again, _) = site.run("config show --config shown.toml", 0);
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| line.split("  #").next().unwrap().trim_end().to_owned())
            .collect()
    };
    assert_eq!(values(&again), values(&text));

    let (json, _) = site.run("config show --json", 0);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["mirrors"][0]["delay"]["value"], 5);
    assert_eq!(json["mirrors"][0]["delay"]["origin"]["line"], 9);
    assert_eq!(json["mirrors"][0]["watch"]["origin"]["kind"], "default");
    assert_eq!(json["modules"][0]["name"]["origin"]["kind"], "drop-in");

    // What may be right later is a warning; what is wrong is told with its line, all at once, and nothing runs.
    fs::remove_dir(site.path("src")).unwrap();
    let (_, err) = site.run("config check", 0);
    assert!(
        err.contains("warning: a: cannot send") && err.lines().count() == 1,
        "{err}"
    );
    fs::remove_dir(site.path("dst")).unwrap();
    let hook = "[[hook]]\ncommand = ['/nowhere/program']\n[[hook]]\ncommand = ['sh', '-c', 'true']\n";
    site.configure(&(site.mirror("a", "src", "dst", "") + hook));
    let (_, err) = site.run("config check", 0);
    assert!(
        err.contains("warning: a: cannot mirror to") && err.contains("/nowhere/program is no program"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 3, "{err}");
    site.configure("[settings]\nlisen = ':1'\ndelay = 'soon'\n");
    for line in ["config check", "config show", "daemon"] {
        let (_, err) = site.run(line, 2);
        assert!(
            err.contains("driftless.toml:2: lisen is not a key here: did you mean listen?"),
            "{err}"
        );
        assert!(
            err.contains("driftless.toml:3: delay: \"soon\" is not a time span"),
            "{err}"
        );
    }
    let (_, err) = site.run("config check --config nowhere.toml", 2);
    assert!(
        err.contains("nowhere.toml: cannot read the configuration"),
        "{err}"
    );
    // A key that is given by mistake is not printed.
    fs::write(
        site.path("key"),
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIH\n",
    )
    .unwrap();
    let (_, err) = site.run("config check --config key", 2);
    assert!(err.contains("key:1: not TOML") && !err.contains("MC4C"), "{err}");
}

#[test]
fn a_daemon_runs_everything_and_one_that_fails_holds_up_nothing() {
    let site = Site::new(&["src", "dst", "in", "out"]);
    fs::write(site.path("src/file"), "one").unwrap();
    let (port, dead) = (free_port(), free_port());
    let own = site.fingerprint();
    let net = format!("driftless://{own}@127.0.0.1:{port}/m");
    let early = format!("driftless://{own}@127.0.0.1:{port}/late");
    let down = format!("driftless://{own}@127.0.0.1:{dead}/m");
    site.configure(
        &(format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{own}'\n")
            + &site.module("m", "in")
            + &site.module("late", "unmounted-module")
            + &site.mirror("local", "src", "dst", "")
            + &site.mirror("net", "src", &net, "")
            + &site.mirror("down", "src", &down, "")
            + &site.mirror("early", "src", &early, "")
            + &site.mirror("late", "unmounted", "out", "")),
    );
    let mut daemon = Daemon::start(&site, "daemon --json");
    daemon.wait_file("net", &site.path("in/file"), "one");
    daemon.wait_file("local", &site.path("dst/file"), "one");
    fs::write(site.path("src/file"), "two").unwrap();
    daemon.wait_file("net", &site.path("in/file"), "two");
    daemon.wait_file("local", &site.path("dst/file"), "two");

    let (late, down) = (site.sender("late"), site.sender("down"));
    assert!(
        late["phase"] == "waiting" && late["reason"].as_str().unwrap().contains("unmounted"),
        "{late}"
    );
    let tries = ["starting", "scanning", "connecting", "waiting"];
    assert!(tries.contains(&down["phase"].as_str().unwrap()), "{down}");
    let (text, _) = site.run("status", 0);
    for wanted in [
        "mirror local: ",
        "mirror net: ",
        "mirror down: ",
        "mirror late: ",
        "module m in ",
    ] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    daemon.wait_phase("late", "waiting");
    assert_eq!(
        daemon.count("driftless: module late: "),
        1,
        "once, however often it is tried"
    );
    daemon.wait(|line| line.contains("\"mirror\":\"early\"") && line.contains("cannot be used yet"));

    // What comes later is taken up without being asked for.
    fs::create_dir(site.path("unmounted")).unwrap();
    fs::write(site.path("unmounted/x"), "x").unwrap();
    fs::create_dir(site.path("unmounted-module")).unwrap();
    daemon.wait_file("early", &site.path("unmounted-module/file"), "two");
    daemon.wait_file("late", &site.path("out/x"), "x");
    assert_eq!(daemon.stop(), Some(1), "one is not in sync: {:#?}", daemon.said);
    assert!(
        !daemon.said.iter().any(|line| line.contains("panicked")),
        "{:#?}",
        daemon.said
    );
    let (_, err) = site.run("status", 1);
    assert!(
        err.contains("no driftless daemon of this home is running"),
        "{err}"
    );
}

#[test]
fn people_are_told_once_what_waits() {
    let site = Site::new(&["dst"]);
    site.configure(&site.mirror("a", "src", "dst", ""));
    let mut daemon = Daemon::spawn_until(
        site.command("daemon"),
        "running 1 mirror with 1 target, 0 modules; identity ",
    );
    daemon.hear(|line| line.contains("driftless: a to ") && line.ends_with("trying again in 1 s"));
    fs::create_dir(site.path("src")).unwrap();
    daemon.hear(|line| line.starts_with("a to ") && line.contains(": in sync; watching by "));
    assert_eq!(daemon.count("cannot send"), 1, "{:#?}", daemon.said);
    assert_eq!(daemon.stop(), Some(0), "{:#?}", daemon.said);
}

#[test]
fn a_daemon_that_is_in_sync_ends_with_status_0() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("a", "src", "dst", ""));
    let mut daemon = Daemon::start(&site, "daemon --json");
    daemon.hear(|line| line.contains("\"phase\":\"in-sync\""));
    assert_eq!(daemon.stop(), Some(0), "{:#?}", daemon.said);
}

#[test]
fn a_reload_touches_only_what_changed() {
    let site = Site::new(&["a", "b", "c", "in", "in2", "to-b", "to-c"]);
    for name in ["a", "b", "c"] {
        fs::write(site.path(name).join("file"), name).unwrap();
        fs::write(site.path(name).join("noise.tmp"), name).unwrap();
    }
    let port = free_port();
    let own = site.fingerprint();
    let settings =
        format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{own}'\n") + &site.module("m", "in");
    let stays = site.mirror("stays", "a", &format!("driftless://{own}@127.0.0.1:{port}/m"), "");
    site.configure(&(settings.clone() + &stays + &site.mirror("changes", "b", "to-b", "")));
    let mut daemon = Daemon::start(&site, "daemon --json");
    daemon.wait_file("stays", &site.path("in/file"), "a");
    daemon.wait_file("changes", &site.path("to-b/noise.tmp"), "b");
    daemon.hear(|line| line.contains("\"mirror\":\"stays\",\"phase\":\"in-sync\""));
    let before = site.sender("stays");
    // More than once if the module was not ready when its own sender came.
    let begun = |daemon: &mut Daemon| {
        ["scanning", "connecting"]
            .map(|phase| daemon.count(&format!("\"mirror\":\"stays\",\"phase\":\"{phase}\"")))
    };
    let begun_before = begun(&mut daemon);

    // Another order of the file, comments, a drop-in, one more module: nothing of that is a change of the first mirror.
    fs::create_dir(site.path("home/mirrors.d")).unwrap();
    fs::write(
        site.path("home/mirrors.d/new.toml"),
        site.mirror("new", "c", "to-c", ""),
    )
    .unwrap();
    let changed = site.mirror(
        "changes",
        "b",
        "to-b",
        "exclude = '*.tmp'\ndelete-excluded = true",
    );
    site.configure(&(format!("# moved\n{settings}{}", site.module("n", "in2")) + &changed + &stays));
    let (out, _) = site.run("reload", 0);
    assert!(
        out.contains("1 sender left alone, 1 stopped, 2 started; 2 modules"),
        "{out}"
    );
    daemon.wait_file("new", &site.path("to-c/file"), "c");
    while site.path("to-b/noise.tmp").exists() {
        daemon.wait_phase("changes", "in-sync");
    }
    fs::write(site.path("a/file"), "after").unwrap();
    daemon.wait_file("stays", &site.path("in/file"), "after");
    let after = site.sender("stays");
    assert_eq!(before["pid"], after["pid"]);
    assert_eq!(before["counters"]["rescans"], after["counters"]["rescans"]);
    assert_eq!(
        daemon.count("a sender is connected"),
        1 + 2 + 1,
        "once for each start: {:#?}",
        daemon.said
    );
    assert_eq!(daemon.count("module=m"), 1, "{:#?}", daemon.said);
    assert_eq!(begun(&mut daemon), begun_before, "{:#?}", daemon.said);

    // A fault changes nothing, and says why, whoever asks.
    fs::write(site.path("home/mirrors.d/new.toml"), "[[mirror]]\nnam = 'x'\n").unwrap();
    let (_, err) = site.run("reload", 2);
    assert!(
        err.contains("nothing was changed")
            && err.contains("new.toml:2: nam is not a key here: did you mean name?"),
        "{err}"
    );
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait(|line| line.contains("driftless: reload: ") && line.contains("new.toml:2: nam "));
    assert_eq!(site.sender("new")["phase"], "in-sync");

    // By a signal, too; what is gone is stopped, and a module that is gone is released.
    fs::remove_file(site.path("home/mirrors.d/new.toml")).unwrap();
    site.configure(&(settings + &stays));
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait(|line| line.contains("1 sender left alone, 2 stopped, 0 started; 1 module"));
    let (text, _) = site.run("status", 0);
    assert!(
        !text.contains("mirror new") && !text.contains("module n ") && text.contains("mirror stays"),
        "{text}"
    );
    let (_, err) = site.run("mirror a in2 --once", 0);
    assert!(err.is_empty(), "{err}");
    assert_eq!(daemon.stop(), Some(0), "{:#?}", daemon.said);
}

/// Their senders come back by themselves, also those of other machines, which a module that is away would end.
#[test]
fn a_module_or_an_endpoint_that_changes_is_back_at_once() {
    let site = Site::new(&["src", "in", "in2"]);
    let port = free_port();
    let (own, other) = (site.fingerprint(), Site::new(&[]).fingerprint());
    let settings = |allow: &str| format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = [{allow}]\n");
    let (allow, both) = (format!("'{own}'"), format!("'{own}', '{other}'"));
    let module = site.module("m", "in");
    site.configure(&(settings(&allow) + &module));
    let mut daemon = Daemon::start(&site, "daemon --json");
    let sender = site.command(&format!("send src driftless://{own}@127.0.0.1:{port}/m --json"));
    let mut sender = Daemon::spawn_until(sender, "\"phase\":\"in-sync\"");

    let changes = [
        settings(&allow) + &module + "no-devices = true\n",
        settings(&allow) + &site.module("m", "in2"),
        settings(&both) + &site.module("m", "in2"),
    ];
    for (number, text) in changes.iter().enumerate() {
        site.configure(text);
        site.run("reload", 0);
        let content = number.to_string();
        fs::write(site.path("src/file"), &content).unwrap();
        let arrived = site.path(if number == 0 { "in/file" } else { "in2/file" });
        while fs::read_to_string(&arrived).ok().as_deref() != Some(&content) {
            sender.wait(|line| line.contains("\"phase\":\"in-sync\""));
        }
        assert_eq!(
            daemon.count("a sender is connected"),
            number + 2,
            "{:#?}",
            daemon.said
        );
    }
    assert_eq!(fs::read_to_string(site.path("in/file")).unwrap(), "0");
    assert_eq!(daemon.count("driftless: "), 0, "{:#?}", daemon.said);
    assert_eq!(
        (sender.stop(), daemon.stop()),
        (Some(0), Some(0)),
        "{:#?}{:#?}",
        sender.said,
        daemon.said
    );
}

/// A module that says something else of what it keeps does so from then on; a key of `[settings]` is for all.
#[test]
fn what_is_kept_follows_the_configuration() {
    let site = Site::new(&["src", "in", "dst"]);
    let (port, own) = (free_port(), site.fingerprint());
    let settings = format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = ['{own}']\ndrift = 'keep'\n");
    let there = site.mirror(
        "there",
        "src",
        &format!("driftless://{own}@127.0.0.1:{port}/m"),
        "",
    );
    let here = site.mirror("here", "src", "dst", "trash = '1h'");
    let with = |module: &str| format!("{settings}{there}{here}{}{module}\n", site.module("m", "in"));
    site.configure(&with("trash = '1h'"));
    let (shown, _) = site.run("config show", 0);
    for line in [
        "trash = \"1h\"",
        "drift = \"keep\"",
        "inplace = false",
        "whole-file = false",
    ] {
        assert!(shown.contains(line), "no {line} in {shown}");
    }
    fs::write(site.path("src/file"), "one").unwrap();
    let mut daemon = Daemon::start(&site, "daemon --json");
    let shelf = |name: &str| -> Vec<String> {
        let (out, _) = site.run(&format!("trash list {name}"), 0);
        out.lines().map(str::to_owned).collect()
    };
    let next = |daemon: &mut Daemon, content: &str| {
        fs::write(site.path("src/file"), content).unwrap();
        for (mirror, tree) in [("there", "in"), ("here", "dst")] {
            daemon.wait_file(mirror, &site.path(tree).join("file"), content);
        }
    };
    next(&mut daemon, "one");
    next(&mut daemon, "two");
    assert_eq!(
        (shelf("in").len(), shelf("dst").len()),
        (1, 1),
        "{:?}",
        shelf("in")
    );

    site.configure(&with("backup = true"));
    site.run("reload", 0);
    next(&mut daemon, "three");
    let backup = |tree: &str| fs::read_to_string(site.path(tree).join("file~")).ok();
    assert_eq!((backup("in").as_deref(), backup("dst")), (Some("two"), None));
    assert_eq!((shelf("in").len(), shelf("dst").len()), (1, 2));
    // Edits are set aside as `[settings]` say.
    fs::write(site.path("in/file"), "edited").unwrap();
    next(&mut daemon, "four");
    let (kept, _) = site.run("trash list in --kept", 0);
    assert!(kept.contains("file") && kept.lines().count() == 1, "{kept}");
    assert_eq!(daemon.stop(), Some(0), "{:#?}", daemon.said);
}

#[test]
fn mirrors_are_paused_and_stopped_by_name() {
    let site = Site::new(&["src", "dst"]);
    fs::write(site.path("src/file"), "one").unwrap();
    site.configure(&site.mirror("a", "src", "dst", ""));
    site.run("pause a", 1);
    let mut daemon = Daemon::start(&site, "daemon --json");
    daemon.wait_file("a", &site.path("dst/file"), "one");

    let (out, _) = site.run("pause a", 0);
    assert!(out.contains("a is paused"), "{out}");
    daemon.wait_phase("a", "paused");
    fs::write(site.path("src/file"), "two").unwrap();
    // Nothing but this mirror's connection could bring it, and a paused one has none.
    assert_eq!(site.sender("a")["phase"], "paused");
    site.run("reload", 0);
    assert_eq!(site.sender("a")["phase"], "paused", "a reload ends no pause");
    assert_eq!(fs::read_to_string(site.path("dst/file")).unwrap(), "one");
    site.run("resume a", 0);
    daemon.wait_file("a", &site.path("dst/file"), "two");
    assert_eq!(
        daemon.count("\"phase\":\"scanning\""),
        1,
        "a pause needs no walk: {:#?}",
        daemon.said
    );

    site.run("stop a", 0);
    assert_eq!(site.sender("a")["phase"], "stopped");
    fs::write(site.path("src/file"), "three").unwrap();
    site.run("reload", 0);
    assert_eq!(
        site.sender("a")["phase"],
        "stopped",
        "a reload starts nothing that was stopped"
    );
    // Its directories are free.
    site.run("mirror src dst --once", 0);
    assert_eq!(fs::read_to_string(site.path("dst/file")).unwrap(), "three");
    let (_, err) = site.run("pause a", 1);
    assert!(err.contains("is stopped"), "{err}");
    let (out, _) = site.run("start a", 0);
    assert!(out.contains("is started"), "{out}");
    fs::write(site.path("src/file"), "four").unwrap();
    daemon.wait_file("a", &site.path("dst/file"), "four");
    let (out, _) = site.run("start a", 0);
    assert!(out.contains("is running already"), "{out}");
    let (_, err) = site.run("stop b", 2);
    assert!(err.contains("no mirror called \"b\""), "{err}");
    site.run("stop a", 0);
    assert_eq!(
        daemon.stop(),
        Some(0),
        "what was stopped on purpose is no failure: {:#?}",
        daemon.said
    );
}

#[test]
fn service_managers_are_told() {
    let site = Site::new(&["src", "dst"]);
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let pid_file = site.path("pid");
    site.configure(
        &(format!("[settings]\npid-file = {}\n", site.word("pid")) + &site.mirror("a", "src", "dst", "")),
    );
    let mut command = site.command("daemon --json");
    command.env("NOTIFY_SOCKET", site.path("notify"));
    let mut daemon = Daemon::spawn(command);
    assert_eq!(told(), "READY=1\nSTATUS=1 mirror with 1 target, 0 modules");
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        format!("{}\n", daemon.child.id())
    );
    let (_, err) = site.run("daemon", 1);
    assert!(
        err.contains("cannot write the pid file") && err.contains("another process holds it"),
        "{err}"
    );
    site.run("reload", 0);
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told().starts_with("READY=1\n"));
    daemon.hear(|line| line.contains("\"phase\":\"in-sync\""));
    assert_eq!(daemon.stop(), Some(0), "{:#?}", daemon.said);
    assert!(told().starts_with("STOPPING=1"));
    assert!(!pid_file.exists());
}

/// The blocks of TOML in a document.
fn blocks(document: &str) -> Vec<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let document = fs::read_to_string(document).unwrap();
    let blocks = document.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_examples_of_the_documents_are_correct() {
    let site = Site::new(&["home/mirrors.d"]);
    let readme = blocks("README.md");
    assert_eq!(readme.len(), 1);
    site.configure(&readme[0]);
    let (out, _) = site.run("config check", 0);
    assert!(out.contains("correct; 1 mirror, 1 module"), "{out}");

    let handbook = blocks("docs/configuration.md");
    assert_eq!(
        handbook.len(),
        4,
        "the main file and a drop-in, a tree and who pulls it"
    );
    site.configure(&handbook[0]);
    fs::write(site.path("home/mirrors.d/container-7.toml"), &handbook[1]).unwrap();
    let (out, _) = site.run("config check", 0);
    assert!(out.contains("correct; 3 mirrors, 2 modules"), "{out}");
    fs::write(site.path("home/mirrors.d/container-7.toml"), "").unwrap();
    site.configure(&handbook[2]);
    let (out, _) = site.run("config check", 0);
    assert!(out.contains("correct; 0 mirrors, 1 tree, 0 modules"), "{out}");
    site.configure(&handbook[3]);
    let (out, _) = site.run("config check", 0);
    assert!(out.contains("correct; 0 mirrors, 1 module"), "{out}");
}
