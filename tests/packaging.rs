//! What packages are made of: manual pages, completions, units, examples; and what the units ask of the program.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{PATIENCE, is_root, skip};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_driftless");

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a directory whose names end like this, sorted.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_str().is_some_and(|path| path.ends_with(end)));
    found.sort();
    found
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// Whether a program is there without which a test cannot be made.
fn has(program: &str) -> bool {
    let is_there = is_there(program);
    if !is_there {
        skip(&format!("there is no {program}"));
    }
    is_there
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that has to end well, and gives what it said.
#[track_caller]
fn done(command: &mut Command) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let (stdout, stderr) = (text(&stdout), text(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

/// The program with a home of its own.
fn program(home: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env("DRIFTLESS_HOME", home)
        .env_remove("RUST_LOG")
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .stdin(Stdio::null());
    command
}

#[test]
fn manual_pages_render_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man");
    done(
        program(dir.path())
            .arg("man-pages")
            .arg(&pages)
            .env("SOURCE_DATE_EPOCH", "1767225600"),
    );
    let pages = files(&pages, ".1");
    assert!(pages.len() > 20, "{pages:?}");
    if !has("man") || !has("mandoc") {
        return;
    }
    for page in &pages {
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(page)
            .env("MANWIDTH", "100");
        let (shown, warnings) = done(&mut man);
        assert!(warnings.is_empty(), "{}: {warnings}", page.display());
        assert!(
            shown.contains("2026-01-01") && shown.contains("DESCRIPTION"),
            "{shown}"
        );
        let lint = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(page)
            .output()
            .unwrap();
        assert!(
            lint.stdout.is_empty() && lint.status.success(),
            "{}",
            text(&lint.stdout)
        );
    }
}

#[test]
fn shells_take_the_completions() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let (script, _) = done(program(dir.path()).args(["completions", shell]));
        let path = dir.path().join(shell);
        fs::write(&path, script).unwrap();
        if is_there(shell) {
            let (_, warnings) = done(Command::new(shell).arg(check).arg(&path));
            assert!(warnings.is_empty(), "{shell}: {warnings}");
        }
    }
    // And they complete.
    let ask = "source \"$0\"; COMP_WORDS=(driftless config ''); COMP_CWORD=2; COMP_LINE='driftless config '; \
               _driftless driftless '' config; echo \"${COMPREPLY[@]}\"";
    let (offered, _) = done(
        Command::new("bash")
            .args(["-c", ask])
            .arg(dir.path().join("bash")),
    );
    assert!(offered.contains("check") && offered.contains("show"), "{offered}");
}

/// The help has each command that users call, and only those; so have the pages and what shells offer.
#[test]
fn pages_and_completions_have_the_commands_of_the_help() {
    let dir = tempfile::tempdir().unwrap();
    let (help, _) = done(program(dir.path()).arg("--help"));
    let listed = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    let name = |line: &str| {
        let line = line.strip_prefix("  ")?;
        let is_command = line.starts_with(|first: char| first.is_ascii_lowercase());
        is_command.then(|| line.split_whitespace().next().unwrap().to_owned())
    };
    let commands: Vec<String> = listed
        .lines()
        .filter_map(name)
        .filter(|name| name != "help")
        .collect();
    assert!(commands.len() > 25, "{commands:?}");
    let pages = dir.path().join("man");
    done(program(dir.path()).arg("man-pages").arg(&pages));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _) = done(program(dir.path()).args(["completions", shell]));
        let offers = |command: &str| {
            let forms = [
                format!(",{command})"),
                format!("'{command}:"),
                format!("-a \"{command}\""),
                format!("cand {command} "),
                format!("new('{command}'"),
            ];
            forms.iter().any(|form| script.contains(form))
        };
        for command in &commands {
            assert!(offers(command), "{shell} does not offer {command}");
        }
        for hidden in ["accounts", "lookups", "transport", "man-pages", "hooks"] {
            assert!(!offers(hidden), "{shell} offers {hidden}");
        }
    }
    for command in &commands {
        let page = pages.join(format!("driftless-{command}.1"));
        assert!(page.exists(), "{}", page.display());
    }
    for hidden in ["accounts", "lookups", "transport", "man-pages", "hooks"] {
        assert!(!pages.join(format!("driftless-{hidden}.1")).exists(), "{hidden}");
    }
}

#[test]
fn units_are_sound_and_harden() {
    if !has("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (unit, exposure) in [
        ("driftless.service", 45),
        ("driftless@.service", 25),
        ("driftless-receive@.service", 50),
    ] {
        // What is not installed would be a fault.
        let definition = fs::read_to_string(project("packaging/systemd").join(unit)).unwrap();
        let definition = definition.replace("=/usr/bin/driftless ", &format!("={PROGRAM} "));
        assert_eq!(
            definition.matches(PROGRAM).count(),
            definition.matches("\nExec").count()
        );
        fs::write(dir.path().join(unit), definition).unwrap();
        let instance = dir.path().join(unit.replace("@.", "@x."));
        let mut verify = Command::new("systemd-analyze");
        verify
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&instance);
        let (_, faults) = done(&mut verify);
        assert!(faults.is_empty(), "{faults}");
        // In tenths; it fails above the threshold.
        let mut security = Command::new("systemd-analyze");
        security
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={exposure}"))
            .arg(&instance);
        done(&mut security);
    }
}

/// The value of a setting of a unit.
fn setting(unit: &str, key: &str) -> String {
    let definition = fs::read_to_string(project("packaging/systemd").join(unit)).unwrap();
    let line = definition
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{key}=")));
    line.unwrap_or_else(|| panic!("{unit} has no {key}")).to_owned()
}

/// The capabilities of a unit, as setpriv takes them.
fn capabilities(unit: &str) -> String {
    let words = setting(unit, "CapabilityBoundingSet");
    let words = words
        .split_whitespace()
        .map(|word| word.trim_start_matches("CAP_").to_lowercase());
    words.fold("-all".to_owned(), |list, word| format!("{list},+{word}"))
}

/// A process that is killed at the end, and the first line that it printed.
struct Running(Child, String);

impl Running {
    #[track_caller]
    fn start(command: &mut Command) -> Running {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let running = Running(child, line);
        if running.1.is_empty() {
            let mut running = running;
            let mut said = String::new();
            let _ = std::io::Read::read_to_string(&mut running.0.stderr.take().unwrap(), &mut said);
            panic!("{command:?} ended: {said}");
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a service manager is told.
struct Manager(TempDir, UnixDatagram);

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager(dir, socket)
    }

    fn is_told(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.1.recv(&mut buffer).unwrap();
        text(&buffer[..length])
    }

    /// The command as a service of it.
    fn hire(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.0.path().join("notify"));
    }
}

#[test]
fn the_watchdog_is_fed() {
    let manager = Manager::new();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("driftless.toml"), "").unwrap();
    let mut command = program(home.path());
    command.arg("daemon").env("WATCHDOG_USEC", "200000");
    manager.hire(&mut command);
    let _daemon = Running::start(&mut command);
    assert_eq!(
        manager.is_told(),
        "READY=1\nSTATUS=0 mirrors with 0 targets, 0 modules"
    );
    for _ in 0..3 {
        assert_eq!(manager.is_told(), "WATCHDOG=1");
    }
    done(program(home.path()).arg("reload"));
    let said = std::iter::repeat_with(|| manager.is_told()).find(|said| said != "WATCHDOG=1");
    assert!(said.is_some_and(|said| said.starts_with("RELOADING=1")));
}

#[test]
fn a_receiver_confines_itself_with_the_capabilities_of_its_unit() {
    if !is_root() {
        return skip("a unit of the system needs root");
    }
    let manager = Manager::new();
    let dir = tempfile::tempdir().unwrap();
    let (home, module) = (dir.path().join("home"), dir.path().join("module"));
    for path in [&home, &module] {
        fs::create_dir(path).unwrap();
    }
    let unit = "driftless-receive@.service";
    let options = setting(unit, "ExecStart")
        .replace("%i", "photos")
        .replace("$OPTIONS", "--listen 127.0.0.1:0 --confine require")
        .replace("${DIRECTORY}", module.to_str().unwrap());
    let mut command = program(&home);
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = Command::new("setpriv");
    command
        .args([
            "--no-new-privs",
            &format!("--bounding-set={}", capabilities(unit)),
            PROGRAM,
        ])
        .args(options.split_whitespace().skip(1))
        .envs(environment)
        .stdin(Stdio::null());
    manager.hire(&mut command);
    let receiver = Running::start(&mut command);
    assert!(
        receiver.1.starts_with("receiving module photos in "),
        "{}",
        receiver.1
    );
    assert_eq!(manager.is_told(), "READY=1\nSTATUS=receiving module photos");
    let (status, _) = done(program(&home).args(["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let protections = status["daemons"][0]["protections"].as_array().unwrap();
    assert_eq!(protections.len(), 10, "{status}");
    assert!(protections.iter().all(|one| one["holds"] == true), "{status}");
    // The process that speaks to the network is nobody's, and so is the one that looks users up.
    let pid = receiver.0.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children: Vec<_> = children.split_whitespace().collect();
    assert_eq!(children.len(), 2, "{children:?}");
    for child in children {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap();
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    }
}

#[test]
fn an_instance_reads_what_is_not_its_own_and_no_more() {
    /// Nobody's, on every system.
    const NOBODY: u32 = 65_534;
    if !is_root() {
        return skip("a unit of the system needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["home", "source", "target"] {
        fs::create_dir(path(name)).unwrap();
    }
    for name in ["", "home", "target"] {
        std::os::unix::fs::chown(path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    // A build directory may be where nobody else may look.
    fs::copy(PROGRAM, path("driftless")).unwrap();
    for (name, mode) in [("source/secret", "0600"), ("source", "0700")] {
        if name.contains('/') {
            fs::write(path(name), "for root only").unwrap();
        }
        done(Command::new("chmod").arg(mode).arg(path(name)));
    }
    let unit = "driftless@.service";
    let ambient = setting(unit, "AmbientCapabilities")
        .replace("CAP_", "+")
        .to_lowercase();
    let run = |source: &str, target: &str| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--no-new-privs",
                "--clear-groups",
                "--reuid=65534",
                "--regid=65534",
            ])
            .arg(format!("--inh-caps=-all,{ambient}"))
            .arg(format!("--ambient-caps=-all,{ambient}"))
            .arg(format!("--bounding-set={}", capabilities(unit)))
            .arg(path("driftless"))
            .args(["mirror", "--once"])
            .args([path(source), path(target)])
            .env("DRIFTLESS_HOME", path("home"))
            .stdin(Stdio::null());
        command.output().unwrap()
    };
    let Output { status, stderr, .. } = run("source", "target");
    assert!(status.success(), "{}", text(&stderr));
    assert_eq!(
        fs::read_to_string(path("target/secret")).unwrap(),
        "for root only"
    );
    fs::create_dir(path("other")).unwrap();
    assert!(!run("target", "other").status.success());
    assert!(!path("other/secret").exists());
}

#[test]
fn the_examples_are_correct() {
    let home = tempfile::tempdir().unwrap();
    let mut examples = files(&project("examples"), ".toml");
    assert!(examples.len() >= 6, "{examples:?}");
    examples.push(project("packaging/driftless.toml"));
    for example in examples {
        let (said, _) = done(
            program(home.path())
                .args(["config", "check", "--config"])
                .arg(&example),
        );
        assert!(said.contains(": correct; "), "{said}");
    }
    // Neither has the one that is installed a fault once its lines are used.
    let installed = fs::read_to_string(project("packaging/driftless.toml")).unwrap();
    let used: Vec<_> = installed
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|line| !line.starts_with(' '))
                .unwrap_or(line)
        })
        .collect();
    let path = home.path().join("driftless.toml");
    fs::write(&path, used.join("\n")).unwrap();
    let (said, _) = done(program(home.path()).args(["config", "check"]));
    assert!(said.contains("correct; 1 mirror, 1 module"), "{said}");
}

#[test]
fn both_packages_are_of_this_version_and_have_the_same_files() {
    let spec = fs::read_to_string(project("packaging/rpm/driftless.spec")).unwrap();
    let version = spec.lines().find_map(|line| line.strip_prefix("Version:"));
    assert_eq!(version.map(str::trim), Some(env!("CARGO_PKG_VERSION")));
    let manifest = fs::read_to_string(project("Cargo.toml")).unwrap();
    for directory in ["systemd", "sysusers.d", "tmpfiles.d", "sysctl.d"] {
        for file in files(&project("packaging").join(directory), "") {
            let name = file.file_name().unwrap().to_str().unwrap();
            let all = format!("packaging/{directory}/*.service");
            let one = format!("packaging/{directory}/{name}");
            for package in [&spec, &manifest] {
                assert!(
                    package.contains(&all) || package.contains(&one),
                    "{one} is in one package only"
                );
            }
        }
    }
}

#[test]
fn the_scripts_of_the_packages_are_sound() {
    for directory in ["packaging/debian", "packaging"] {
        for path in files(&project(directory), "") {
            let Ok(script) = fs::read_to_string(&path) else {
                continue;
            };
            if let Some(shell) = script.lines().next().and_then(|line| line.strip_prefix("#!")) {
                let shell = if shell.ends_with("bash") { "bash" } else { "sh" };
                done(Command::new(shell).arg("-n").arg(&path));
            }
        }
    }
}
