//! `driftless import-lsyncd`, through the real program. What becomes of which key is in the tests of `src/import`.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site(TempDir);

struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Site {
    fn new() -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        fs::create_dir(site.path("home")).unwrap();
        fs::set_permissions(site.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .args(words)
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        let output = self.command(words).output().unwrap();
        Ended {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn import(&self, text: &[u8], more: &[&str]) -> Ended {
        fs::write(self.path("lsyncd.conf.lua"), text).unwrap();
        self.run(&[&["import-lsyncd", "lsyncd.conf.lua"], more].concat())
    }
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/import")
        .join(name)
}

#[test]
fn whatever_is_written_passes_the_check() {
    let site = Site::new();
    let mut seen = 0;
    for entry in fs::read_dir(example("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "lua") {
            continue;
        }
        let written = format!("{seen}.toml");
        let mut command = site.command(&["import-lsyncd", "--output", &written]);
        let output = command
            .arg(&path)
            .env("DRIFTLESS_TEST_USER", "bob")
            .output()
            .unwrap();
        let (status, report) = (output.status.code(), String::from_utf8(output.stdout).unwrap());
        let is_whole = !report.contains("NOT ACTIVE");
        assert_eq!(
            status,
            Some(if is_whole { 0 } else { 3 }),
            "{}: {report}",
            path.display()
        );
        assert!(output.stderr.is_empty());
        let mode = fs::metadata(site.path(&written)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let checked = site.run(&["config", "check", "--config", &written]);
        assert_eq!(checked.status, Some(0), "{}: {}", path.display(), checked.err);
        seen += 1;
    }
    assert!(seen >= 9, "only {seen} examples were found");
}

/// What only the check of the whole configuration finds becomes a comment, and the rest stays.
#[test]
fn mirrors_that_cannot_be_together_are_not_active() {
    let site = Site::new();
    let ended = site.import(
        b"sync{ default.rsync, source = '/srv/a', target = '/mnt/both' }\n\
          sync{ default.rsync, source = '/srv/b', target = '/mnt/both/', delete = false }\n\
          sync{ default.rsync, source = '/srv/c', target = 'bad host:/srv/c' }\n\
          sync{ default.rsync, source = '/srv/d', target = 'web1:/srv/d', rsync = { bwlimit = 'fast' } }\n\
          sync{ default.rsync, source = '/srv/e', target = 'web1:/srv/d/e' }",
        &["--json"],
    );
    assert_eq!(ended.status, Some(3), "{}", ended.err);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    let mirrors = json["mirrors"].as_array().unwrap();
    let told: Vec<(&str, bool)> = mirrors
        .iter()
        .map(|mirror| {
            (
                mirror["name"].as_str().unwrap(),
                mirror["active"].as_bool().unwrap(),
            )
        })
        .collect();
    let expected = [("a", true), ("b", false), ("c", false), ("d", false), ("e", true)];
    assert_eq!(told, expected, "{json:#}");
    let reason = |at: usize| mirrors[at]["reasons"][0].as_str().unwrap();
    assert!(
        reason(1).contains("is written to by the mirror \"a\""),
        "{}",
        reason(1)
    );
    assert!(reason(2).contains("no host name has"), "{}", reason(2));
    assert!(reason(3).contains("is not a rate"), "{}", reason(3));
    assert_eq!(
        json["receivers"][1]["commands"][0],
        "driftless invite --module d --address web1"
    );
    assert_eq!(json["version"], 1);
    let toml: toml::Table = json["toml"].as_str().unwrap().parse().unwrap();
    assert_eq!(toml["mirror"].as_array().unwrap().len(), 2);
}

#[test]
fn where_things_are_written() {
    let site = Site::new();
    let text = b"sync{ default.direct, source = '/s', target = '/t' }";
    let plain = site.import(text, &[]);
    assert_eq!(plain.status, Some(0));
    let toml: toml::Table = plain.out.parse().unwrap();
    assert_eq!(toml["mirror"][0]["delay"].as_str(), Some("1s"));
    assert!(
        plain.err.starts_with("lsyncd.conf.lua: 1 mirror, active\n"),
        "{}",
        plain.err
    );
    let again = site.import(text, &["-o", "out.toml"]);
    assert_eq!(
        (again.status, again.out, again.err.as_str()),
        (Some(0), plain.err, "")
    );
    assert_eq!(fs::read_to_string(site.path("out.toml")).unwrap(), plain.out);
    // Nothing is replaced.
    fs::write(site.path("out.toml"), "mine").unwrap();
    let refused = site.import(text, &["-o", "out.toml"]);
    assert_eq!(refused.status, Some(1));
    assert!(refused.err.contains("nothing is replaced"), "{}", refused.err);
    assert_eq!(fs::read_to_string(site.path("out.toml")).unwrap(), "mine");
    let missing = site.run(&["import-lsyncd", "nowhere.lua"]);
    assert_eq!(missing.status, Some(2));
    assert!(missing.err.contains("cannot read nowhere.lua"), "{}", missing.err);
    let directory = site.run(&["import-lsyncd", "."]);
    assert!(
        directory.status == Some(2) && directory.err.contains("not a file"),
        "{}",
        directory.err
    );
    fs::write(site.path("big.lua"), vec![b'-'; (1 << 20) + 1]).unwrap();
    let big = site.run(&["import-lsyncd", "big.lua"]);
    assert!(
        big.status == Some(2) && big.err.contains("more than 1048576 bytes"),
        "{}",
        big.err
    );
}

/// None of these comes to an end by itself, and of some not even Lua knows how long they run.
#[test]
fn what_does_not_end_is_ended() {
    let endless: [(&str, u32); 5] = [
        ("local x\nwhile true do end", 2),
        (
            "\nlocal function f() while true do end end\nwhile true do pcall(f) end",
            2,
        ),
        (
            "local s = ('a'):rep(300)\n\nlocal x = s:find(('a*'):rep(40) .. 'b')",
            3,
        ),
        (
            "\nrepeat local t = setmetatable({}, { __gc = function() while true do end end }) until false",
            2,
        ),
        (
            "sync{ default.direct, source = '/s', target = '/t' }\n\nfor i = 1, 1e18 do local s = ('x'):rep(1e6) end",
            3,
        ),
    ];
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (text, line) in endless {
            scope.spawn(move || {
                let site = Site::new();
                let ended = site.import(text.as_bytes(), &["-o", "out.toml"]);
                assert_eq!(ended.status, Some(2), "{text}: {}", ended.err);
                let said = format!(
                    "lsyncd.conf.lua:{line}: cannot import this: it did not come to its end within 5 s"
                );
                assert!(ended.err.contains(&said), "{text}: {}", ended.err);
                assert!(!site.path("out.toml").exists() && ended.out.is_empty());
            });
        }
    });
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn nothing_is_read_run_or_changed_by_a_configuration() {
    let site = Site::new();
    fs::write(site.path("victim"), "mine").unwrap();
    fs::write(
        site.path("more.lua"),
        "sync{ default.direct, source = '/s', target = '/t' }",
    )
    .unwrap();
    let victim = site.path("victim").display().to_string();
    for text in [
        format!("\nos.remove('{victim}')"),
        format!("\nos.execute('rm {victim}')"),
        format!("\nio.open('{victim}', 'w'):write('yours')"),
        format!("\nio.popen('rm {victim}')"),
        format!("\nio.lines('{victim}')"),
        format!("\ndofile('{}')", site.path("more.lua").display()),
        "\nrequire('more')".to_owned(),
        "\nlocal x = string.rep('x', 1e9)".to_owned(),
        "\nlocal t = {} for i = 1, 1e9 do t[i] = i end".to_owned(),
        "\nerror('\\27[31m\\n')".to_owned(),
    ] {
        let ended = site.import(text.as_bytes(), &["-o", "out.toml"]);
        assert_eq!(ended.status, Some(2), "{text}: {}", ended.err);
        assert!(
            ended
                .err
                .starts_with("driftless: lsyncd.conf.lua:2: cannot import this: "),
            "{text}: {}",
            ended.err
        );
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
        assert!(
            !ended.err.trim_end().chars().any(char::is_control),
            "{:?}",
            ended.err
        );
        assert!(!site.path("out.toml").exists() && ended.out.is_empty());
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    // As compiled Lua it could do what source cannot say.
    let compiled = site.import(b"\x1bLuaT\0\x19\x93\r\n\x1a\n", &[]);
    assert!(
        compiled.status == Some(2) && compiled.err.contains("compiled Lua"),
        "{}",
        compiled.err
    );
}

/// The process that runs a configuration has a filter of system calls and limits, not only a library without functions.
#[test]
fn the_process_is_confined_while_it_runs() {
    let site = Site::new();
    let mut child = site
        .command(&["import-lsyncd", "--evaluate", "--", "x.lua"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"while true do end")
        .unwrap();
    let id = child.id();
    let status = |name: &str| -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
        let value = |path: PathBuf| {
            let text = fs::read_to_string(path.join("status")).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().last()?.to_owned())
        };
        tasks.filter_map(|task| value(task.ok()?.path())).collect()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let modes = status("Seccomp:");
        // Both threads: the one that runs Lua, and the one that keeps the time.
        if modes.len() == 2 && modes.iter().all(|mode| mode == "2") {
            break;
        }
        assert!(
            Instant::now() < until && child.try_wait().unwrap().is_none(),
            "never confined: {modes:?}"
        );
        std::thread::yield_now();
    }
    assert!(status("NoNewPrivs:").iter().all(|is| is == "1"));
    let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(
        (
            limit("Max file size").as_str(),
            limit("Max address space").as_str()
        ),
        ("0", "2147483648")
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A daemon that is ended with the test.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    fn start(mut command: Command) -> Daemon {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Daemon { child, lines }
    }

    /// Looks each time that it says something.
    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut line = String::new();
        while !is_so(&line) {
            let next = self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()));
            line = next.unwrap_or_else(|_| panic!("{what} never came"));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).ok().as_deref() == Some(content)
}

#[test]
fn an_imported_configuration_mirrors_changes() {
    let site = Site::new();
    for name in ["src", "dst"] {
        fs::create_dir(site.path(name)).unwrap();
    }
    fs::write(site.path("src/file"), "one").unwrap();
    fs::write(site.path("dst/stray"), "not in the source").unwrap();
    let text = fs::read_to_string(example("direct.lua")).unwrap();
    let text = text.replace("@SOURCE@", &site.path("src").display().to_string());
    let text = text.replace("@TARGET@", &site.path("dst").display().to_string());
    let ended = site.import(text.as_bytes(), &["-o", "home/driftless.toml"]);
    assert_eq!(ended.status, Some(0), "{}", ended.err);
    let daemon = Daemon::start(site.command(&["daemon", "--json"]));
    let file = site.path("dst/file");
    daemon.wait("the tree", |_| {
        has(&file, "one") && !site.path("dst/stray").exists()
    });
    fs::write(site.path("src/file"), "two").unwrap();
    daemon.wait("the change", |_| has(&file, "two"));
}

/// What the report says to do on both machines is enough.
#[test]
fn the_commands_of_the_report_pair_the_machines() {
    let (sender, receiver) = (Site::new(), Site::new());
    fs::create_dir(sender.path("src")).unwrap();
    fs::create_dir(receiver.path("copy")).unwrap();
    fs::write(sender.path("src/file"), "one").unwrap();
    let text = format!(
        "sync{{ default.rsyncssh, source = '{}', host = 'root@127.0.0.1', targetdir = '{}', delay = 0 }}",
        sender.path("src").display(),
        receiver.path("copy").display()
    );
    let ended = sender.import(text.as_bytes(), &["-o", "home/driftless.toml", "--json"]);
    assert_eq!(ended.status, Some(0), "{}", ended.err);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    let there = &json["receivers"][0];
    let port = UdpSocket::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let module = &there["modules"][0];
    let configuration = format!(
        "[settings]\nlisten = '127.0.0.1:{port}'\n[[module]]\nname = {}\npath = {}\n",
        module["name"], module["path"]
    );
    fs::write(receiver.path("home/driftless.toml"), configuration).unwrap();
    let offered = Daemon::start(receiver.command(&["daemon", "--json"]));
    offered.wait("the module", |line| line.contains("\"event\":\"ready\""));

    let words = |at: usize, code: &str| -> Vec<String> {
        let command = there["commands"][at].as_str().unwrap().replace("CODE", code);
        command.split(' ').skip(1).map(str::to_owned).collect()
    };
    let run = |site: &Site, words: Vec<String>| {
        let ended = site.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ended.status, Some(0), "{words:?}: {}", ended.err);
        ended.out
    };
    let invited = run(&receiver, words(0, ""));
    let code = invited
        .split_whitespace()
        .find(|word| word.starts_with("driftless-pair1-"));
    run(&sender, words(1, code.unwrap()));
    let daemon = Daemon::start(sender.command(&["daemon", "--json"]));
    daemon.wait("the tree", |_| has(&receiver.path("copy/file"), "one"));
}

/// The table of the documentation says what the program does.
#[test]
fn the_documentation_has_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lsyncd.md");
    let expected: Vec<String> = driftless::import::table()
        .into_iter()
        .map(|(key, text)| format!("| `{key}` | {text} |"))
        .collect();
    if std::env::var_os("DRIFTLESS_WRITE_EXPECTED").is_some() {
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once("| key | here |\n| --- | --- |\n").unwrap();
        let after = rest.split_once("\n\n").map_or("", |(_, after)| after);
        let table = expected.join("\n");
        fs::write(
            &path,
            format!("{before}| key | here |\n| --- | --- |\n{table}\n\n{after}"),
        )
        .unwrap();
    }
    let page = fs::read_to_string(&path).unwrap();
    for row in expected {
        assert!(page.lines().any(|line| line == row), "docs/lsyncd.md lacks {row}");
    }
}

/// The example of the documentation is what the program says.
#[test]
fn the_example_of_the_documentation_is_true() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/lsyncd.md")).unwrap();
    let block = |kind: &str| {
        let (_, rest) = page.split_once(&format!("```{kind}")).unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let site = Site::new();
    let ended = site.import(block("lua").as_bytes(), &[]);
    assert_eq!(ended.status, Some(0), "{}", ended.err);
    assert!(ended.out.ends_with(&block("toml")), "{}", ended.out);
    let shown = block("console");
    let (_, shown) = shown.split_once('\n').unwrap();
    let (shown, _) = shown.split_once("  ...").unwrap();
    assert!(ended.err.starts_with(shown), "{}", ended.err);
}
