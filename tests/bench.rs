//! `driftless bench` through the real program: what it reports, what it refuses to report, and what it leaves behind.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Runs the bench on very little data, with everything below `directory`.
fn bench(directory: &Path, arguments: &[&str], sabotage: bool) -> (Output, Value) {
    let json = directory.join("result.json");
    let temporary = directory.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command
        .args(["bench", "--quick", "--size", "256KiB"])
        .args(arguments)
        .arg("--json")
        .arg(&json);
    command
        .env("TMPDIR", &temporary)
        .env("DRIFTLESS_HOME", directory.join("home"));
    command.env("DRIFTLESS_BENCH_SABOTAGE", if sabotage { "1" } else { "0" });
    let output = command.output().unwrap();
    let text = std::fs::read_to_string(&json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_nothing_left(&temporary);
    (output, serde_json::from_str(&text).unwrap())
}

/// No file, and no process whose command line names the directory.
fn assert_nothing_left(directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let running = || -> Vec<String> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        lines
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(directory.to_str().unwrap()))
            .collect()
    };
    for _ in 0..50 {
        if running().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("still running: {:?}", running());
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

#[test]
fn a_quick_run_reports_every_scenario_and_has_compared_every_copy() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("report.html");
    let arguments = ["--runs", "1", "--report", html.to_str().unwrap()];
    let (output, report) = bench(directory.path(), &arguments, false);
    let said = String::from_utf8_lossy(&output.stderr);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{table}");
    assert_eq!(report["schema"], "driftless-bench");
    assert_eq!(report["version"], 1);
    for field in ["processor", "kernel", "file_system", "tcp", "driftless"] {
        assert!(report["machine"][field].is_string(), "{field}");
    }
    for scenario in driftless::bench::scenario::SCENARIOS {
        let ours = rows(&report)
            .iter()
            .find(|row| row["scenario"] == scenario.name && row["ours"] == true);
        let ours = ours.unwrap_or_else(|| panic!("{} is missing", scenario.name));
        assert_eq!(ours["durable"], true);
        assert!(table.contains(scenario.name));
    }
    for row in rows(&report) {
        assert_eq!(row["verified"], true, "{row}");
        assert!(row["void"].is_null());
        let run = &row["runs"][0];
        assert_eq!(run["verified"], true);
        for field in ["wall_s", "cpu_sender_s", "cpu_receiver_s"] {
            assert!(run[field].as_f64().is_some_and(|value| value >= 0.0), "{field} in {row}");
        }
        for field in ["bytes_up", "bytes_down", "peak_sender", "peak_receiver"] {
            assert!(run[field].as_u64().is_some_and(|value| value > 0), "{field} in {row}");
        }
        let is_compared = ["win", "even", "loss"].iter().any(|verdict| row["verdict"] == *verdict);
        assert_eq!(is_compared, row["ours"] == false, "{row}");
    }
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("<svg") && !page.contains("http"), "{page}");
}

#[test]
fn a_sabotaged_copy_voids_its_row_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (output, report) = bench(directory.path(), &["--runs", "1", "--scenario", "seed"], true);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("VOID"));
    for row in rows(&report) {
        let why = row["void"].as_str();
        assert_eq!(row["verified"], why.is_none());
        assert_eq!(
            why.is_some_and(|why| why.contains("the copy is wrong: the content of")),
            row["ours"] == true
        );
        assert!(row["verdict"].is_null(), "nothing is compared with a void row");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command.args(["bench", "--quick"]).env("TMPDIR", directory.path());
    let null = std::process::Stdio::null;
    let mut child = command.stdout(null()).stderr(null()).spawn().unwrap();
    // In the middle: the copies exist, so programs run.
    let is_running = || {
        let workspaces = std::fs::read_dir(directory.path()).unwrap().flatten();
        workspaces.into_iter().any(|entry| entry.path().join("copies/driftless").exists())
    };
    for _ in 0..1000 {
        if is_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(300));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_nothing_left(directory.path());
}

#[test]
fn the_users_own_tree_is_copied_and_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("mine");
    std::fs::create_dir_all(tree.join("a")).unwrap();
    for index in 0..30 {
        std::fs::write(tree.join(format!("a/{index}")), vec![index; 3000]).unwrap();
    }
    let before = driftless::bench::check::Tree::read(&tree).unwrap();
    let arguments = ["--runs", "1", "--scenario", "next-release", "--tree", tree.to_str().unwrap()];
    let (output, report) = bench(directory.path(), &arguments, false);
    assert!(output.status.success(), "{report}");
    assert_eq!(rows(&report)[0]["entries"], 31);
    let after = driftless::bench::check::Tree::read(&tree).unwrap();
    assert_eq!(before.difference(&after), None);
}
