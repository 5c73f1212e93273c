//! Failing over and back: a module is promoted, its old sender is refused, and what was done meanwhile goes home as differences.

use super::site::{Daemon, PATIENCE, Site, contents, free_port, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Instant;

/// Two homes, `home` and `home-copy`, each of which lets the other write to what it offers.
struct Two {
    site: Site,
    port: u16,
}

impl Two {
    fn new() -> Two {
        let site = Site::new(&["tree", "copy", "home-copy"]);
        fs::set_permissions(site.path("home-copy"), fs::Permissions::from_mode(0o700)).unwrap();
        Two {
            site,
            port: free_port(),
        }
    }

    /// A receiver in `home` of a directory with the same name, and what the other one calls it.
    fn receive(&self, home: &str, module: &str) -> (Daemon, String) {
        let other = if home == "home" { "home-copy" } else { "home" };
        let line = format!(
            "receive {module} --listen 127.0.0.1:{} --allow {} --json",
            self.port,
            self.site.fingerprint(other)
        );
        let daemon = Daemon::spawn(self.site.command_in(home, &line));
        (daemon, self.target(home, module))
    }

    fn target(&self, home: &str, module: &str) -> String {
        format!(
            "driftless://{}@127.0.0.1:{}/{module}",
            self.site.fingerprint(home),
            self.port
        )
    }

    fn configure(&self, target: &str, more: &str) {
        let source = self.site.path("tree");
        self.site.configure(&format!(
            "[[mirror]]\nname = 'tree'\nsource = '{}'\ntargets = ['{target}']\n{more}\n",
            source.display()
        ));
    }

    /// Waits until the sender of the mirror says this of itself.
    fn until_phase(&self, phase: &str, reason: &str) {
        until(&format!("{phase} for {reason}"), || {
            let sender = self.site.sender("tree", "copy");
            sender["phase"] == phase && sender["reason"].as_str().unwrap_or("").contains(reason)
        });
    }

    fn module(&self) -> Value {
        let (text, _) = self.site.run_in("home-copy", "status --json", 0);
        let status: Value = serde_json::from_str(&text).unwrap();
        status["daemons"][0]["modules"][0].clone()
    }

    fn is_equal(&self) -> bool {
        contents(&self.site.path("tree")) == contents(&self.site.path("copy"))
    }

    /// What `verify --divergence` says of the tree and a target; something is different.
    #[track_caller]
    fn diverged(&self, target: &str) -> Value {
        self.site
            .json(&format!("verify --divergence tree {target} --json"), 4)
    }

    /// The changes of a side, as paths and words.
    fn changes<'a>(&self, found: &'a Value, side: &str) -> Vec<(&'a str, &'a str)> {
        let changes = found[side]["changes"].as_array().unwrap();
        let change = |change: &'a Value| (change["path"].as_str().unwrap(), change["what"].as_str().unwrap());
        changes.iter().map(change).collect()
    }

    /// One run of `seed`, and what it counted.
    #[track_caller]
    fn seed(&self, home: &str, line: &str) -> Value {
        let (text, _) = self.site.run_in(home, &format!("seed {line} --json"), 0);
        let last = text.lines().last().unwrap();
        let summary: Value = serde_json::from_str(last).unwrap();
        assert_eq!(summary["event"], "summary", "{text}");
        summary["counters"].clone()
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

#[test]
fn a_promoted_module_takes_nothing_whatever_is_under_way_or_restarted() {
    let two = Two::new();
    let site = &two.site;
    let (receiver, target) = two.receive("home-copy", "copy");
    two.configure(&target, "bwlimit = '100k'");
    site.write("tree/first", "1");
    let sender = Daemon::start(site, "daemon --json");
    two.until_phase("in-sync", "");

    // One op is under way when the module is promoted: some minutes of it are left.
    site.write("tree/large", noise(1, 20 << 20));
    until("the large file is on its way", || {
        two.module()["sessions"][0]["wanted"].as_u64() > Some(0)
    });
    let (said, _) = site.run_in("home-copy", "promote copy", 0);
    assert!(said.starts_with("promoted copy: "), "{said}");
    let module = two.module();
    assert!(
        module["promoted_since"].is_u64() && module["sessions"] == Value::Array(Vec::new()),
        "{module}"
    );
    assert!(!site.path("copy/large").exists());
    site.write("copy/local", "the truth");
    fs::remove_file(site.path("tree/large")).unwrap();
    site.write("tree/first", "2");
    let remedy = "`driftless demote copy`";
    two.until_phase("waiting", remedy);
    let (text, _) = site.run_in("home-copy", "status", 0);
    assert!(
        text.contains(": promoted ") && text.contains("senders are refused"),
        "{text}"
    );
    // A run that would end is told at once, and does not bind the module either.
    fs::create_dir(site.path("other")).unwrap();
    site.write("other/file", "other");
    let refused = || {
        let (_, said) = site.run(&format!("seed other {target} --delete always"), 1);
        assert!(said.contains("was promoted") && said.contains(remedy), "{said}");
    };
    refused();
    // Comparing is no writing.
    site.run(&format!("verify tree {target}"), 4);

    // Killed: it holds all the same, and can be ended and begun without a receiver.
    drop(receiver);
    let (_receiver, _) = two.receive("home-copy", "copy");
    refused();
    drop(_receiver);
    let (text, _) = site.run_in("home-copy", "status", 1);
    assert!(text.contains("module copy: promoted "), "{text}");
    assert!(
        site.run_in("home-copy", "demote copy", 0)
            .0
            .starts_with("demoted copy, ")
    );
    assert!(
        site.run_in("home-copy", "demote copy", 0)
            .0
            .contains("was not promoted")
    );
    site.run_in("home-copy", "promote copy", 0);
    let (_, said) = site.run_in("home-copy", "promote copi", 2);
    assert!(said.contains("has ever offered a module copi"), "{said}");
    let (_receiver, _) = two.receive("home-copy", "copy");
    refused();
    assert_eq!(site.read("copy/first").as_deref(), Some("1"));

    // A replica again: what only this side has is asked about, though the mirror is an old acquaintance.
    site.run_in("home-copy", "demote copy", 0);
    two.until_phase("waiting", "holds 1 entry");
    sender.stop();
    for _ in 0..2 {
        let (_, said) = site.run(&format!("seed tree {target}"), 1);
        assert!(said.contains("holds 1 entry"), "{said}");
        assert_eq!(site.read("copy/local").as_deref(), Some("the truth"));
        assert_eq!(site.read("copy/first").as_deref(), Some("1"));
    }
    let _sender = Daemon::start(site, "daemon --json");
    two.until_phase("waiting", "holds 1 entry");
    two.configure(&target, "delete = 'always'");
    site.run("reload", 0);
    until("it is a replica", || two.is_equal());
    two.until_phase("in-sync", "");
    // From then on deletions are usual again.
    two.configure(&target, "");
    site.run("reload", 0);
    site.write("tree/other", "3");
    fs::remove_file(site.path("tree/first")).unwrap();
    until("the deletion is there", || two.is_equal());
}

/// Nobody can be asked, because the socket is gone: the promotion is in force all the same when it is told.
#[test]
fn a_receiver_that_cannot_be_asked_is_waited_for() {
    let two = Two::new();
    let site = &two.site;
    site.write("tree/file", "1");
    let (_receiver, target) = two.receive("home-copy", "copy");
    two.configure(&target, "");
    let _sender = Daemon::start(site, "daemon --json");
    two.until_phase("in-sync", "");
    for socket in fs::read_dir(site.path("home-copy/run")).unwrap() {
        fs::remove_file(socket.unwrap().path()).unwrap();
    }
    site.run_in("home-copy", "promote copy", 0);
    site.write("tree/file", "2");
    two.until_phase("waiting", "was promoted");
    assert_eq!(site.read("copy/file").as_deref(), Some("1"));
}

/// The file that tells of the promotion cannot be read: then nobody knows, and nothing is taken.
#[test]
fn a_damaged_fence_refuses_senders() {
    let two = Two::new();
    let site = &two.site;
    site.write("tree/file", "1");
    let (_receiver, target) = two.receive("home-copy", "copy");
    two.seed("home", &format!("tree {target}"));
    site.run_in("home-copy", "promote copy", 0);
    let mut fences = Vec::new();
    let mut directories = vec![site.path("home-copy")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with("fence.json") {
                fences.push(path);
            }
        }
    }
    assert_eq!(fences.len(), 1, "{fences:?}");
    fs::write(&fences[0], "").unwrap();
    site.write("tree/file", "2");
    let (_, said) = site.run(&format!("seed tree {target}"), 1);
    assert!(
        said.contains("cannot tell whether the module copy is promoted"),
        "{said}"
    );
    site.run_in("home-copy", "demote copy", 0);
    two.seed("home", &format!("tree {target}"));
    assert!(two.is_equal());
}

#[test]
fn failing_back_sends_differences_and_then_all_is_as_before() {
    const FILES: u64 = 300;
    let two = Two::new();
    let site = &two.site;
    fs::create_dir(site.path("tree/d")).unwrap();
    for number in 0..FILES {
        site.write(&format!("tree/d/{number}"), noise(number + 1, 20_000));
    }
    let content = FILES * 20_000;
    let (receiver, target) = two.receive("home-copy", "copy");
    let seeded = two.seed("home", &format!("tree {target}"));
    assert!(seeded["wire_bytes_sent"].as_u64() > Some(content), "{seeded}");

    // The machine with the tree fails with a change that was never sent, the other one takes over.
    site.write("tree/d/1", "never sent");
    site.run_in("home-copy", "promote copy", 0);
    site.write("copy/d/2", "changed after the failover");
    site.write("copy/d/new", "made after the failover");
    fs::remove_file(site.path("copy/d/3")).unwrap();
    fs::rename(site.path("copy/d/4"), site.path("copy/d/renamed")).unwrap();

    // What each side did since is listed, on the machine of the mirror, in the same words for people and for programs.
    let found = two.diverged(&target);
    assert_eq!(two.changes(&found, "here"), [("d/1", "changed")], "{found}");
    assert_eq!(
        two.changes(&found, "there"),
        [
            ("d/2", "changed"),
            ("d/3", "removed"),
            ("d/4", "removed"),
            ("d/new", "made"),
            ("d/renamed", "made")
        ],
        "{found}"
    );
    assert!(
        found["common"]["sequence"].as_u64() > Some(0) && found["both"] == serde_json::json!([]),
        "{found}"
    );
    let newest = fs::metadata(site.path("copy/d/renamed")).unwrap().ctime();
    assert!(found["there"]["newest"].as_i64() >= Some(newest - 1), "{found}");
    site.write("copy/d/1", "changed there, too");
    let (text, _) = site.run(&format!("verify --divergence tree {target}"), 4);
    for wanted in [
        "here   changed     ",
        "d/1  on both sides",
        "tree: 1 change, the newest at ",
        "copy: 6 changes, ",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in {text}");
    }
    assert_eq!(two.diverged(&target)["both"], serde_json::json!(["d/1"]));

    // It is back, and is told what it missed. What it has too much is asked about.
    drop(receiver);
    let (back, home) = two.receive("home", "tree");
    let (_, said) = site.run_in("home-copy", &format!("seed copy {home}"), 1);
    assert!(
        said.contains("holds 2 entries that") && said.contains("--delete always"),
        "{said}"
    );
    assert_eq!(site.read("tree/d/1").as_deref(), Some("never sent"));
    let began = Instant::now();
    let returned = two.seed("home-copy", &format!("copy {home} --delete always"));
    assert!(began.elapsed() < PATIENCE);
    assert!(two.is_equal());
    let number = |name: &str| returned[name].as_u64().unwrap();
    println!(
        "{content} bytes of content: failing back read {} files and sent {} bytes",
        number("files_read"),
        number("wire_bytes_sent")
    );
    // Three that differ in content, and one with another name, whose content nobody had read.
    assert!(
        number("files_read") <= 4 && number("files_sent") <= 4,
        "{returned}"
    );
    assert!(number("wire_bytes_sent") < content / 20, "{returned}");
    drop(back);

    // And the old direction, which has nothing to ask, and at most what it was just told to tell again.
    let (_receiver, _) = two.receive("home-copy", "copy");
    site.run_in("home-copy", "demote copy", 0);
    let resumed = two.seed("home", &format!("tree {target}"));
    assert!(resumed["files_sent"].as_u64() <= Some(4), "{resumed}");
    assert!(
        resumed["wire_bytes_sent"].as_u64() < Some(content / 20),
        "{resumed}"
    );
    assert!(two.is_equal());
    site.write("tree/d/5", "as before");
    let resumed = two.seed("home", &format!("tree {target}"));
    assert_eq!(resumed["files_sent"], 1, "{resumed}");
    assert!(two.is_equal());
    site.run(&format!("verify --divergence tree {target}"), 0);
}

/// On one machine; while a mirror runs there is nothing to ask, and who never was one has no common point.
#[test]
fn divergence_of_a_directory_changes_nothing_and_needs_the_mirror_to_rest() {
    let two = Two::new();
    let site = &two.site;
    let (_, said) = site.run("verify --divergence tree copy", 1);
    assert!(said.contains("was never mirrored to"), "{said}");
    fs::create_dir(site.path("tree/d")).unwrap();
    for name in ["a", "b", "c", "d/e", "skipped.tmp"] {
        site.write(&format!("tree/{name}"), name);
    }
    let mirror = Daemon::listening(site.command("mirror tree copy --exclude *.tmp --json"));
    until("the copy is there", || site.read("copy/d/e").is_some());
    let (_, said) = site.run("verify --divergence tree copy --exclude *.tmp", 1);
    assert!(said.contains("the mirror is running"), "{said}");
    mirror.stop();
    site.run("verify --divergence tree copy --exclude *.tmp", 0);
    site.write("tree/a", "longer");
    fs::set_permissions(site.path("tree/b"), fs::Permissions::from_mode(0o600)).unwrap();
    site.write("tree/other.tmp", "of no interest");
    fs::remove_dir_all(site.path("copy/d")).unwrap();
    site.write("copy/a", "c");
    site.write("copy/own", "own");
    for _ in 0..2 {
        let found = site.json("verify --divergence tree copy --exclude *.tmp --json", 4);
        assert_eq!(
            two.changes(&found, "here"),
            [("a", "changed"), ("b", "attributes")],
            "{found}"
        );
        assert_eq!(
            two.changes(&found, "there"),
            [("a", "changed"), ("d", "removed"), ("own", "made")],
            "{found}"
        );
        assert_eq!(found["both"], serde_json::json!(["a"]));
    }
    assert_eq!(site.read("copy/a").as_deref(), Some("c"));
}

/// What the receiver keeps as something else, and what it keeps beside the mirror, was changed by nobody.
#[test]
fn backups_and_what_is_kept_in_attributes_are_no_divergence() {
    let two = Two::new();
    let site = &two.site;
    let options = [
        "--backup --backup-dir old --fake-super",
        "--backup --suffix .bak --fake-super",
    ];
    for (round, options) in options.into_iter().enumerate() {
        let names = [format!("here-{round}"), format!("there-{round}")];
        for name in &names {
            fs::create_dir(site.path(name)).unwrap();
        }
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::create_dir(site.path("tree/d")).unwrap_or_default();
        site.write("tree/d/f", format!("first {round}"));
        fs::set_permissions(site.path("tree/d/f"), mode(0o400)).unwrap();
        fs::set_permissions(site.path("tree/d"), mode(0o2555)).unwrap();
        let local = options.replace("--fake-super", "--fake-super=target");
        let here = format!("tree {}", names[0]);
        let (listen, key) = (format!("127.0.0.1:{}", two.port), site.fingerprint("home"));
        let line = format!(
            "receive {} --listen {listen} --allow {key} {options} --json",
            names[1]
        );
        let receiver = Daemon::spawn(site.command_in("home-copy", &line));
        let target = two.target("home-copy", &names[1]);
        for content in ["second", "third one"] {
            site.run(&format!("mirror {here} --once {local}"), 0);
            site.run(&format!("mirror tree {target} --once"), 0);
            site.write("tree/d/f", content);
        }
        site.run(&format!("mirror {here} --once {local}"), 0);
        site.run(&format!("mirror tree {target} --once"), 0);
        for name in &names {
            let backup = ["old/d/f", "d/f.bak"][round];
            assert_eq!(site.read(&format!("{name}/{backup}")).as_deref(), Some("second"));
        }
        site.run(&format!("verify --divergence {here} {local}"), 0);
        site.run(&format!("verify --divergence tree {target}"), 0);
        // An edit is one all the same.
        site.write(&format!("{}/d/own", names[1]), "own");
        let found = two.diverged(&target);
        assert_eq!(two.changes(&found, "there"), [("d/own", "made")], "{found}");
        assert_eq!(receiver.stop(), Some(0));
    }
}

/// Two trees, each a mirror of the other: whoever comes second is refused, on one machine and between two.
#[test]
fn a_mirror_against_another_one_is_refused() {
    let two = Two::new();
    let site = &two.site;
    site.write("tree/file", "1");
    let against = |line: &str, home: &str| {
        let (_, said) = site.run_in(home, line, 1);
        assert!(said.contains("a circle of mirrors"), "{said}");
        assert_eq!(site.read("tree/file").as_deref(), Some("1"));
    };

    let there = Daemon::listening(site.command("mirror tree copy --json"));
    until("the copy is there", || two.is_equal());
    against("mirror --once copy tree --delete always", "home");
    against("mirror copy tree --delete always", "home");
    // The first one goes on, and when it has ended the other way is open at once.
    site.write("tree/file", "1");
    site.write("tree/more", "2");
    until("the mirror goes on", || two.is_equal());
    there.stop();
    site.run("mirror --once copy tree", 0);
    let killed = Daemon::listening(site.command("mirror tree copy --json"));
    site.write("tree/killed", "3");
    until("the copy has it", || two.is_equal());
    drop(killed);
    site.run("mirror --once copy tree", 0);

    // Between two machines, each of which offers its tree and sends it.
    let (_receiver, target) = two.receive("home-copy", "copy");
    let other = Two {
        site: Site::new(&[]),
        port: free_port(),
    };
    let line = format!(
        "receive tree --listen 127.0.0.1:{} --allow {} --json",
        other.port,
        site.fingerprint("home-copy")
    );
    let _back = Daemon::spawn(site.command(&line));
    let home = format!(
        "driftless://{}@127.0.0.1:{}/tree",
        site.fingerprint("home"),
        other.port
    );
    // The state of the directory's own mirror is in the way of no module: it is another place in the home.
    let sender = Daemon::listening(site.command(&format!("send tree {target} --delete always --json")));
    site.write("tree/file", "1");
    site.write("tree/sent", "4");
    until("it is sent", || two.is_equal());
    against(&format!("seed copy {home} --delete always"), "home-copy");
    against(&format!("send copy {home} --delete always"), "home-copy");
    // Who ended is not waited for.
    sender.stop();
    site.run_in("home-copy", &format!("seed copy {home} --delete always"), 0);
}
