//! `driftless bench` through the real program: what it reports, what it refuses to report, and what it leaves behind.

#[path = "support/waiting.rs"]
mod waiting;

use driftless::bench::check::Tree;
use driftless::bench::cleanup::Workspace;
use driftless::bench::link::{Emulator, Link, Side};
use driftless::bench::runner::Stage;
use driftless::bench::scenario::SCENARIOS;
use driftless::bench::server::{Carrier, Server};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;
use waiting::{PATIENCE, wait_until};

/// A place for one test, with a directory for temporary files that must be empty in the end.
struct Place {
    root: TempDir,
    temporary: PathBuf,
}

impl Place {
    fn new() -> Place {
        let root = tempfile::tempdir().unwrap();
        let temporary = root.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        Place { root, temporary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program, with everything it writes below this place.
    fn driftless(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .env("TMPDIR", &self.temporary)
            .env("DRIFTLESS_HOME", self.path("home"));
        command
    }

    /// The bench on very little data, and its result.
    fn bench(&self, arguments: &[&str]) -> (Output, Value) {
        self.run(
            self.driftless()
                .args(["bench", "--quick", "--size", "256KiB", "--runs", "1"])
                .args(arguments),
        )
    }

    fn run(&self, command: &mut Command) -> (Output, Value) {
        let json = self.path("result.json");
        let output = command.arg("--json").arg(&json).output().unwrap();
        let text = fs::read_to_string(&json)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        self.assert_nothing_left();
        (output, serde_json::from_str(&text).unwrap())
    }

    /// No file, and no process whose command line names the directory.
    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(&self.temporary).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let running = || -> Vec<String> {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
            lines
                .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
                .filter(|line| line.contains(self.temporary.to_str().unwrap()))
                .collect()
        };
        wait_until("nothing is left running", || running().is_empty());
    }
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

/// What the machine must have for a test; without it the test is skipped, or fails where nothing may be skipped.
fn is_there(what: &str, found: bool) -> bool {
    let no_skip = std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_some_and(|value| value == "1");
    assert!(found || !no_skip, "this test needs {what}");
    if !found {
        eprintln!("skipped: needs {what}");
    }
    found
}

fn has_rsync() -> bool {
    let runs = |name: &str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .status()
            .is_ok()
    };
    is_there("rsync", runs("rsync"))
}

fn is_root() -> bool {
    is_there("root", rustix::process::geteuid().is_root())
}

#[test]
fn a_quick_run_reports_every_scenario_and_has_compared_every_copy() {
    if !has_rsync() {
        return;
    }
    let place = Place::new();
    let files = ["report.html", "report.svg", "report.png"].map(|name| place.path(name));
    let arguments: Vec<&str> = files
        .iter()
        .flat_map(|file| ["--report", file.to_str().unwrap()])
        .collect();
    let (output, report) = place.bench(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{table}");
    assert_schema(&report);
    let names = SCENARIOS.iter().map(|scenario| scenario.name);
    for name in names.chain(["live-latency", "live-burst"]) {
        let ours = rows(&report)
            .iter()
            .find(|row| row["scenario"] == name && row["ours"] == true);
        let ours = ours.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(ours["durable"], true);
        assert!(table.contains(name) && page_names(&files[0], name), "{name}");
    }
    assert!(
        rows(&report).iter().any(|row| row["ours"] == false),
        "rsync was compared: {said}"
    );
    for row in rows(&report) {
        assert_eq!(row["verified"], true, "{row}");
        assert!(row["void"].is_null());
        let is_compared = ["win", "even", "loss"]
            .iter()
            .any(|verdict| row["verdict"] == *verdict);
        assert_eq!(is_compared, row["ours"] == false, "{row}");
        let is_lost = report["losses"].as_array().unwrap().iter().any(|loss| {
            loss["measure"] == "wall time"
                && loss["scenario"] == row["scenario"]
                && loss["tool"] == row["tool"]
        });
        assert_eq!(is_lost, row["verdict"] == "loss", "{row}");
        assert!(!is_lost || table.contains("SLOWER, LOSES"));
    }
    let is_told = report["method"]
        .to_string()
        .contains("Live times are taken by an observer");
    assert!(is_told, "the method of live rows is told where there are any");
    let [page, svg, png] = files.map(|file| fs::read(file).unwrap());
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("<svg") && !page.contains("http"), "{page}");
    assert!(String::from_utf8(svg).unwrap().contains("driftless</text>") || page.contains("driftless"));
    assert!(png.starts_with(b"\x89PNG"));
}

/// Whether the page has a chart of a scenario.
fn page_names(page: &Path, scenario: &str) -> bool {
    let page = fs::read_to_string(page).unwrap();
    let (charts, _) = page.split_once("<pre>").unwrap();
    charts.contains(&format!("{scenario}: "))
}

/// What docs/bench.md promises of the JSON.
fn assert_schema(report: &Value) {
    assert_eq!(report["schema"], "driftless-bench");
    assert_eq!(report["version"], 1);
    for field in ["link", "cache", "target_fs"] {
        assert!(report[field].is_string(), "{field}");
    }
    for field in ["size", "runs", "seed"] {
        assert!(report[field].is_u64(), "{field}");
    }
    for field in ["method", "notes", "losses"] {
        assert!(report[field].is_array(), "{field}");
    }
    for field in [
        "processor",
        "kernel",
        "file_system",
        "target_file_system",
        "tcp",
        "driftless",
        "rsync",
    ] {
        assert!(report["machine"][field].is_string(), "{field}");
    }
    assert!(
        report["machine"]["memory"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
    for row in rows(report) {
        for field in ["scenario", "what", "tool"] {
            assert!(row[field].is_string(), "{field} in {row}");
        }
        for field in ["entries", "content_bytes"] {
            assert!(
                row[field].as_u64().is_some_and(|count| count > 0),
                "{field} in {row}"
            );
        }
        for field in ["ours", "durable", "verified"] {
            assert!(row[field].is_boolean(), "{field} in {row}");
        }
        for field in ["min", "median", "max"] {
            assert!(
                row["wall_s"][field].as_f64().is_some_and(|seconds| seconds > 0.0),
                "{field} in {row}"
            );
        }
        let runs = row["runs"].as_array().unwrap();
        assert_eq!(runs.len() as u64, report["runs"].as_u64().unwrap());
        for run in runs {
            assert_eq!(run["verified"], true);
            assert_eq!(run["link_sound"], true);
            for field in ["wall_s", "cpu_sender_s", "cpu_receiver_s"] {
                assert!(
                    run[field].as_f64().is_some_and(|value| value >= 0.0),
                    "{field} in {row}"
                );
            }
            for field in ["bytes_up", "bytes_down", "peak_sender", "peak_receiver"] {
                assert!(
                    run[field].as_u64().is_some_and(|value| value > 0),
                    "{field} in {row}"
                );
            }
        }
    }
}

/// An rsync that flips one bit in a file of the copy after each transfer to the daemon, and puts its time back.
const SABOTEUR: &str = r#"#!/bin/sh
test "$1" != --daemon || exec "$REAL_RSYNC" "$@"
"$REAL_RSYNC" "$@" || exit
for destination; do :; done
case "$destination" in
rsync://*)
    folder="$(basename "$destination")"
    file="$(find "$TMPDIR"/driftless-bench-*/copies/"$folder" -type f -size +1 | sort | head -n 1)"
    touch -r "$file" "$file.time"
    printf '\377' | dd of="$file" bs=1 seek=1000 conv=notrunc 2>/dev/null
    touch -r "$file.time" "$file"
    rm "$file.time"
    ;;
esac
"#;

#[test]
fn a_corrupted_copy_voids_its_row_and_no_other() {
    if !has_rsync() {
        return;
    }
    let place = Place::new();
    let programs = place.path("bin");
    fs::create_dir(&programs).unwrap();
    let saboteur = programs.join("rsync");
    fs::write(&saboteur, SABOTEUR).unwrap();
    fs::set_permissions(&saboteur, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let real = std::env::split_paths(&path)
        .map(|directory| directory.join("rsync"))
        .find(|file| file.is_file());
    let places = std::iter::once(programs).chain(std::env::split_paths(&path));
    let mut command = place.driftless();
    command
        .env("PATH", std::env::join_paths(places).unwrap())
        .env("REAL_RSYNC", real.unwrap())
        .args([
            "bench",
            "--quick",
            "--size",
            "256KiB",
            "--runs",
            "1",
            "--scenario",
            "big-file",
        ]);
    let (output, report) = place.run(&mut command);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("VOID: the copy is wrong: the content of file differs")
    );
    for row in rows(&report) {
        let is_corrupted = row["tool"] == "rsync daemon";
        assert_eq!(row["verified"], !is_corrupted, "{row}");
        assert_eq!(
            row["void"] == "the copy is wrong: the content of file differs",
            is_corrupted,
            "{row}"
        );
        assert_eq!(row["runs"][0]["verified"], !is_corrupted, "{row}");
        if is_corrupted {
            assert!(
                row["wall_s"].is_null() && row["verdict"].is_null(),
                "nothing is compared with a void row"
            );
        }
    }
    assert!(rows(&report).iter().any(|row| row["tool"] == "rsync daemon"));
}

/// Starts a bench and waits until it is in the middle of things.
fn start_bench(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.driftless();
    command.args(["bench", "--quick"]).args(arguments);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let has_begun = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        let is_seed = |line: Vec<u8>| {
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("\0seed\0") && line.contains(place.temporary.to_str().unwrap())
        };
        lines.into_iter().any(is_seed)
    };
    wait_until("the bench runs something", || {
        has_begun() || child.try_wait().unwrap().is_some()
    });
    assert!(child.try_wait().unwrap().is_none(), "the bench ended too early");
    child
}

fn interrupt(child: &mut Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let place = Place::new();
    interrupt(&mut start_bench(&place, &[]));
    place.assert_nothing_left();
}

#[test]
fn an_interrupted_run_on_a_link_and_an_image_leaves_nothing_behind() {
    if !is_root() || !is_there("mkfs.ext4", Path::new("/usr/sbin/mkfs.ext4").exists()) {
        return;
    }
    let place = Place::new();
    interrupt(&mut start_bench(
        &place,
        &["--link", "rtt=10ms,rate=100mbit", "--target-fs", "ext4"],
    ));
    place.assert_nothing_left();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(place.temporary.to_str().unwrap()), "{mounts}");
    let is_attached = || {
        let devices = fs::read_dir("/sys/block").unwrap().flatten();
        let files =
            devices.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
        files
            .into_iter()
            .any(|file| file.contains(place.temporary.to_str().unwrap()))
    };
    // The kernel takes the device down after the mount.
    wait_until("the loop device is gone", || !is_attached());
}

#[test]
fn copies_can_be_on_a_file_system_of_their_own_with_a_cold_cache() {
    if !is_root() || !has_rsync() {
        return;
    }
    for (fs, maker) in [
        ("tmpfs", "sh"),
        ("ext4", "mkfs.ext4"),
        ("xfs", "mkfs.xfs"),
        ("btrfs", "mkfs.btrfs"),
    ] {
        let found =
            ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|place| Path::new(place).join(maker).exists());
        if !is_there(maker, found.contains(&true)) {
            continue;
        }
        let place = Place::new();
        let arguments = ["--scenario", "next-release", "--target-fs", fs, "--cache", "cold"];
        let (output, report) = place.bench(&arguments);
        assert!(output.status.success(), "{fs}: {report}");
        assert_eq!(report["machine"]["target_file_system"], fs);
        assert_ne!(report["machine"]["file_system"], Value::Null);
        assert_eq!(report["cache"], "cold");
        let notes = report["notes"].to_string();
        assert!(notes.contains("cold cache: before each run"), "{notes}");
    }
}

#[test]
fn an_emulated_link_has_its_congestion_control_and_the_machine_keeps_its_own() {
    if !is_root() || !has_rsync() {
        return;
    }
    let setting = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
    let before = setting();
    let place = Place::new();
    let link = [
        "--link",
        "rtt=5ms,rate=200mbit",
        "--scenario",
        "append",
        "--tcp-congestion",
        "reno",
    ];
    let (output, report) = place.bench(&link);
    assert!(output.status.success(), "{report}");
    assert_eq!(report["machine"]["tcp"], "reno");
    assert!(report["link"].as_str().unwrap().contains("rtt=5ms"));
    assert_eq!(setting(), before);
}

#[test]
fn two_benches_at_once_do_not_disturb_each_other() {
    if !has_rsync() {
        return;
    }
    let places = [Place::new(), Place::new(), Place::new()];
    let results: Vec<(Output, Value)> = std::thread::scope(|scope| {
        let benches: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(|| place.bench(&["--scenario", "seed", "--scenario", "append"])))
            .collect();
        benches.into_iter().map(|bench| bench.join().unwrap()).collect()
    });
    for (output, report) in results {
        assert!(output.status.success(), "{report}");
        assert_eq!(
            rows(&report).len(),
            rows(&report).iter().filter(|row| row["verified"] == true).count()
        );
        assert_eq!(
            report["notes"].to_string().matches("left out").count(),
            0,
            "{report}"
        );
    }
}

#[test]
fn the_users_own_tree_is_copied_and_not_changed() {
    let place = Place::new();
    let tree = place.path("mine");
    fs::create_dir_all(tree.join("a")).unwrap();
    for index in 0..30 {
        let file = tree.join(format!("a/{index}"));
        fs::write(&file, vec![index; 3000]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let before = Tree::read(&tree).unwrap();
    let scenarios = [
        "--scenario",
        "next-release",
        "--scenario",
        "release-beside",
        "--scenario",
        "rename-folder",
    ];
    let (output, report) = place.bench(&[&scenarios[..], &["--tree", tree.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{report}");
    assert_eq!(rows(&report)[0]["entries"], 31);
    assert!(report["notes"].to_string().contains("1 sockets"), "{report}");
    assert_eq!(before.difference_on_disk(&tree).unwrap(), None);
}

#[test]
fn any_user_can_run_it_and_is_told_what_needs_root() {
    if !is_root() || !has_rsync() {
        return;
    }
    const NOBODY: u32 = 65534;
    let place = Place::new();
    let program = place.path("driftless");
    fs::copy(env!("CARGO_BIN_EXE_driftless"), &program).unwrap();
    let owned = [
        place.root.path().to_owned(),
        place.temporary.clone(),
        program.clone(),
    ];
    for path in owned {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(&program);
    command
        .env_clear()
        .envs([
            ("PATH", path.as_os_str()),
            ("HOME", place.root.path().as_os_str()),
        ])
        .env("TMPDIR", &place.temporary)
        .args([
            "bench", "--quick", "--size", "256KiB", "--runs", "1", "--link", "w0",
        ])
        .args([
            "--scenario",
            "seed",
            "--cache",
            "cold",
            "--tcp-congestion",
            "cubic",
        ])
        .uid(NOBODY)
        .gid(NOBODY);
    let (output, report) = place.run(&mut command);
    assert!(output.status.success(), "{report}");
    assert_eq!(report["link"], "loop");
    let notes = report["notes"].to_string();
    for what in ["everything ran on loop", "the machine's own", "which needs root"] {
        assert!(notes.contains(what), "{notes}");
    }
    assert!(
        rows(&report)
            .iter()
            .any(|row| row["tool"] == "rsync daemon" && row["verified"] == true)
    );
    assert!(!place.path(".config").exists() && !place.path(".local").exists());
}

#[test]
fn a_real_pair_is_measured_in_a_directory_of_its_own() {
    if !has_rsync() || !is_there("sshd", Path::new("/usr/sbin/sshd").exists()) {
        return;
    }
    let place = Place::new();
    let (module, copies) = (place.path("module"), place.path("copies"));
    fs::create_dir(&module).unwrap();
    fs::create_dir_all(copies.join("there")).unwrap();
    // What a user has: a machine to log in to, and a receiver that runs there.
    let stage = Stage {
        congestion: Default::default(),
        send_with: Vec::new(),
        emulator: Emulator::start(Link::Loop).unwrap(),
        workspace: Workspace::create(place.root.path()).unwrap(),
    };
    let sshd = Server::start(&stage, Carrier::Ssh, &copies).unwrap();
    let id = place.driftless().args(["id", "--json"]).output().unwrap();
    let id: Value = serde_json::from_slice(&id.stdout).unwrap();
    let mut command = place.driftless();
    command
        .env("DRIFTLESS_HOME", place.path("far-home"))
        .arg("receive")
        .arg(&module)
        .args([
            "--module",
            "bench",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--allow",
        ])
        .arg(id["fingerprint"].as_str().unwrap());
    let mut receiver = stage.daemon(Side::B, "receiver", command).unwrap();
    let target = receiver.wait_until(PATIENCE, |output| {
        let ready: Value = serde_json::from_str(output.lines().next()?).ok()?;
        let (identity, address) = (ready["identity"].as_str()?, ready["address"].as_str()?);
        Some(format!("driftless://{identity}@{address}/bench"))
    });
    let target = target.unwrap();
    let destination = sshd.destination("there");
    for root in [&module, &copies.join("there")] {
        fs::write(root.join("precious"), "content").unwrap();
    }
    let mut command = place.driftless();
    command
        .env("RSYNC_RSH", sshd.shell().unwrap())
        .args(["bench", "--runs", "1", "--size", "256KiB", "--remote", &target])
        .args(["--remote-rsync", &destination]);
    for scenario in ["seed", "append"] {
        command.args(["--scenario", scenario]);
    }
    let (output, report) = place.run(&mut command);
    assert!(
        output.status.success(),
        "{report} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let rows = rows(&report);
    let tools: BTreeSet<&str> = rows.iter().filter_map(|row| row["tool"].as_str()).collect();
    assert!(
        tools.contains("driftless") && tools.contains("rsync+ssh -z"),
        "{tools:?}"
    );
    assert_eq!(report["link"], format!("to {target}"));
    for row in rows {
        let run = &row["runs"][0];
        assert_eq!(
            (&row["verified"], &run["verified"]),
            (&true.into(), &true.into()),
            "{row}"
        );
        assert!(run["cpu_receiver_s"].is_null());
        // What was appended went to each copy, since each tool has its own.
        assert!(run["bytes_up"].as_u64() > Some(400), "{row}");
    }
    for (root, copies) in [(&module, 1), (&copies.join("there"), tools.len() - 1)] {
        let names = Tree::read(root).unwrap().names();
        assert_eq!(names.len(), copies + 1, "{names:?}");
        assert_eq!(fs::read(root.join("precious")).unwrap(), b"content");
    }
    place.assert_nothing_left();
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let place = Place::new();
    let refused = |arguments: &[&str], status: i32, says: &str| {
        let output = place.driftless().arg("bench").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(says), "{said}");
        place.assert_nothing_left();
    };
    refused(
        &["--scenario", "sed"],
        1,
        "there is no scenario sed; there are: seed, ",
    );
    refused(&["--report", "a.pdf"], 2, ".html, .svg or .png");
    refused(&["--target-fs", "zfs"], 2, "known are dir, tmpfs");
    refused(&["--size", "1"], 2, "at least 64KiB");
    refused(&["--size", "900GiB"], 1, "choose a smaller --size");
    refused(&["--remote-rsync", "a:/b"], 2, "--remote");
    refused(
        &["--remote", "far::bench", "--scenario", "idle"],
        1,
        "the scenario idle needs both ends on this machine",
    );
}

#[test]
fn delta_engines_are_measured_on_chosen_files_and_checked() {
    let place = Place::new();
    let (old, new, json) = (place.path("old"), place.path("new"), place.path("delta.json"));
    let mut bytes: Vec<u8> = (0..300_000u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(&old, &bytes).unwrap();
    bytes.splice(500_000..500_000, *b"inserted");
    fs::write(&new, &bytes).unwrap();
    let mut command = place.driftless();
    command
        .args(["bench", "--json"])
        .arg(&json)
        .arg("--delta")
        .args([&old, &new]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    place.assert_nothing_left();
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(
        (report["schema"].as_str(), &report["version"]),
        (Some("driftless-bench-delta"), &1.into())
    );
    let outcomes = report["cases"][0]["outcomes"].as_array().unwrap();
    let engines: Vec<&str> = outcomes
        .iter()
        .filter_map(|outcome| outcome["engine"].as_str())
        .collect();
    assert_eq!(
        engines[..3],
        [
            "driftless XXH3 remembered",
            "driftless keyed BLAKE3",
            "fast_rsync"
        ]
    );
    assert_eq!(engines.len() == 4, has_rsync());
    for outcome in outcomes {
        assert!(outcome["void"].is_null(), "{outcome}");
        let figures = &outcome["figures"];
        let literals = figures["literal_bytes"].as_u64().unwrap();
        assert!((8..200_000).contains(&literals), "{outcome}");
        let rate = [&figures["diff_rate"], &figures["whole_rate"]]
            .into_iter()
            .find_map(Value::as_f64);
        assert!(rate.is_some_and(|rate| rate > 0.0), "{outcome}");
    }
}
