//! The live scenarios of `driftless bench` through the real program, on little data and the loopback device. Where lsyncd or
//! rsync is missing, only what driftless does is looked at.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Runs scenarios; gives the report and the table. Every row must be verified.
fn bench(scenarios: &[&str], more: &[&str]) -> (Value, String) {
    let directory = tempfile::tempdir().unwrap();
    let (json, temporary) = (directory.path().join("result.json"), directory.path().join("t"));
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
    command
        .args(["bench", "--quick", "--size", "256KiB", "--json"])
        .arg(&json);
    for scenario in scenarios {
        command.args(["--scenario", scenario]);
    }
    command
        .args(more)
        .env("TMPDIR", &temporary)
        .env("DRIFTLESS_HOME", directory.path().join("home"));
    let output = command.output().unwrap();
    let (said, table) = (
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let report = std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("{error}: {said}\n{table}"));
    let mut report: Value = serde_json::from_str(&report).unwrap();
    // lsyncd is not on trial here: a row of its own is void when it does not get there in time.
    let all = report["rows"].as_array_mut().unwrap();
    let before = all.len();
    all.retain(|row| {
        let reason = row["void"].as_str().unwrap_or_default();
        row["ours"] == true || !reason.starts_with("gave up waiting")
    });
    let is_complete = all.len() == before;
    assert!(output.status.success() || !is_complete, "{said}\n{table}");
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let found: BTreeSet<&str> = rows(&report)
        .iter()
        .filter_map(|row| row["scenario"].as_str())
        .collect();
    assert_eq!(found, scenarios.iter().copied().collect());
    for row in rows(&report) {
        assert_eq!(row["verified"], true, "{row}");
        assert!(!row["runs"].as_array().unwrap().is_empty(), "{row}");
        assert!(row["wall_s"]["median"].as_f64().unwrap() > 0.0, "{row}");
        for field in ["peak_sender", "peak_receiver"] {
            let is_nobody = row["tool"] == "nobody";
            assert!(
                is_nobody || row["runs"][0][field].as_u64().unwrap() > 0,
                "{field} in {row}"
            );
        }
    }
    (report, table)
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

fn of<'a>(report: &'a Value, scenario: &'a str) -> impl Iterator<Item = &'a Value> {
    rows(report).iter().filter(move |row| row["scenario"] == scenario)
}

fn ours<'a>(report: &'a Value, scenario: &str) -> &'a Value {
    let row = rows(report)
        .iter()
        .find(|row| row["scenario"] == scenario && row["ours"] == true);
    &row.unwrap_or_else(|| panic!("{scenario} is missing"))["runs"][0]
}

/// Whether a program is there, which it must be where nothing may be skipped.
fn has(program: &str) -> bool {
    let found = driftless::bench::runner::find_program(program).is_some();
    let no_skip = std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_some_and(|value| value == "1");
    assert!(found || !no_skip, "this test needs {program}");
    found
}

/// Percentiles are there, in order, and those of the samples that are told.
fn assert_latency(run: &Value) {
    let latency = &run["live"]["latency"];
    let number = |name: &str| {
        latency[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name} in {run}"))
    };
    let (min, p50, p99, max) = (
        number("min_ms"),
        number("p50_ms"),
        number("p99_ms"),
        number("max_ms"),
    );
    assert!(0.0 < min && min <= p50 && p50 <= p99 && p99 <= max, "{latency}");
    assert!(number("resolution_ms") > 0.0);
    let mut all: Vec<f64> = latency["all_ms"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    all.sort_by(f64::total_cmp);
    assert_eq!(latency["samples"], all.len());
    assert_eq!((all[0], all[all.len() - 1]), (min, max));
    assert_eq!(driftless::bench::live::percentile(&all, 50), Some(p50));
    // The one is kept in nanoseconds and the other in milliseconds.
    let wall = run["wall_s"].as_f64().unwrap();
    assert!((wall - p50 / 1e3).abs() < 1e-9, "{wall} against {p50}");
}

#[test]
fn single_changes_have_ordered_percentiles() {
    let (report, table) = bench(&["live-latency"], &["--runs", "1"]);
    of(&report, "live-latency").for_each(|row| assert_latency(&row["runs"][0]));
    assert!(
        ours(&report, "live-latency")["live"]["latency"]["samples"]
            .as_u64()
            .unwrap()
            >= 3
    );
    assert!(table.contains("p99"), "{table}");
    // Beside driftless there is lsyncd, or the reader is told how to get it.
    let notes = report["notes"].to_string();
    assert_eq!(
        of(&report, "live-latency").count() == 1,
        !has("lsyncd") && notes.contains("lsyncd is not installed") || !has("rsync"),
        "{notes}"
    );
}

#[test]
fn a_burst_is_applied_then_durable_and_nothing_is_lost() {
    // In the second round the daemons meet what the first one left.
    let (report, _) = bench(&["live-burst"], &["--runs", "2"]);
    assert!(
        rows(&report)
            .iter()
            .all(|row| row["runs"].as_array().unwrap().len() == 2)
    );
    let run = ours(&report, "live-burst");
    let (applied, durable) = (
        run["wall_s"].as_f64().unwrap(),
        run["live"]["durable_s"].as_f64().unwrap(),
    );
    assert!(applied <= durable, "{run}");
    assert_eq!(run["live"]["rescans"], 0);
}

#[test]
fn renames_and_appends_arrive_and_tell_their_bytes() {
    let with = "--send-with=--append-only=log";
    let (report, table) = bench(&["live-rename", "live-append"], &["--runs", "1", with]);
    assert!(
        table.contains("driftless send ran with --append-only=log"),
        "{table}"
    );
    for scenario in ["live-rename", "live-append"] {
        let run = ours(&report, scenario);
        for field in ["bytes_up", "bytes_down"] {
            assert!(run[field].as_u64().unwrap() > 0, "{field} in {run}");
        }
        for row in of(&report, scenario).filter(|row| row["ours"] == false) {
            assert!(row["verdict"].is_string(), "{row}");
        }
    }
}

#[test]
fn small_changes_beside_a_large_file_are_measured() {
    let (report, _) = bench(&["live-big-beside-small"], &["--runs", "1"]);
    for row in of(&report, "live-big-beside-small") {
        let run = &row["runs"][0];
        assert_latency(run);
        assert!(run["live"]["transfer_s"].as_f64().unwrap() > 0.0, "{run}");
    }
}

#[test]
fn an_outage_without_a_link_to_cut_is_left_out_and_why() {
    let (report, table) = bench(&["idle"], &["--runs", "1", "--scenario", "outage"]);
    assert_eq!(of(&report, "outage").count(), 0);
    assert!(
        report["notes"]
            .to_string()
            .contains("outage cuts an emulated link"),
        "{report}"
    );
    assert!(table.contains("--link"), "{table}");
}

#[test]
fn the_cost_of_doing_nothing_is_told() {
    let (report, _) = bench(&["idle", "neighbour"], &["--runs", "1"]);
    for scenario in ["idle", "neighbour"] {
        for row in of(&report, scenario) {
            let (run, live) = (&row["runs"][0], &row["runs"][0]["live"]);
            assert_eq!(live["measure"], "cpu");
            for field in ["resident_sender", "resident_receiver", "watches"] {
                assert!(live[field].as_u64().unwrap() > 0, "{field} in {row}");
            }
            let (cpu, window) = (
                run["cpu_sender_s"].as_f64().unwrap(),
                live["window_s"].as_f64().unwrap(),
            );
            assert!(cpu >= 0.0 && window >= 1.0, "{row}");
            assert_eq!(
                live["foreign_per_s"].as_f64().is_some_and(|n| n > 0.0),
                scenario == "neighbour",
                "{row}"
            );
        }
    }
}

#[test]
fn all_targets_of_a_fan_out_are_compared() {
    let (report, table) = bench(&["fan-out"], &["--runs", "1"]);
    assert_eq!(ours(&report, "fan-out")["live"]["targets"], 3);
    assert!(table.contains("3 targets"), "{table}");
}

#[test]
fn an_interrupted_transfer_is_completed() {
    let (report, _) = bench(&["resume"], &["--runs", "1"]);
    for row in of(&report, "resume") {
        let cut_at = row["runs"][0]["live"]["cut_at"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&cut_at), "{row}");
    }
    assert_eq!(
        of(&report, "resume").count(),
        if has("rsync") && has("sshd") { 2 } else { 1 }
    );
}

#[test]
fn a_large_tree_tells_what_an_entry_costs() {
    let (report, table) = bench(&["live-large-tree"], &["--runs", "1"]);
    for row in of(&report, "live-large-tree") {
        let (run, live) = (&row["runs"][0], &row["runs"][0]["live"]);
        assert_latency(run);
        // 1,000 files, their directory, and two more.
        assert_eq!((&live["entries"], &row["entries"]), (&1003.into(), &1003.into()));
        for field in ["resident_sender", "resident_receiver", "watches"] {
            assert!(live[field].as_u64().unwrap() > 0, "{field} in {row}");
        }
    }
    assert!(table.contains("B an entry"), "{table}");
}

#[test]
fn a_target_that_was_away_catches_up() {
    // In the second round the target lacks what the first one left.
    let (report, table) = bench(&["target-away"], &["--runs", "2"]);
    assert_eq!(of(&report, "target-away").count(), 1);
    for run in rows(&report)[0]["runs"].as_array().unwrap() {
        let number = |name: &str| run["live"][name].as_f64().unwrap();
        assert_eq!(run["live"]["measure"], "cpu");
        assert!(number("window_s") >= 3.0, "{run}");
        // The pace is never exceeded, but a busy machine may not keep it.
        assert!((500.0..5_100.0).contains(&number("source_per_s")), "{run}");
        assert!(
            number("caught_up_s") > 0.0 && number("resident_sender") > 0.0,
            "{run}"
        );
        assert!(run["cpu_receiver_s"].as_f64().unwrap() > 0.0, "{run}");
    }
    assert!(table.contains("target-away measures driftless alone"), "{table}");
}

#[test]
fn what_programs_lose_is_compared_with_no_tool_at_all() {
    let scenarios = ["beside-build", "beside-writes", "beside-untar"];
    let (report, table) = bench(&scenarios, &["--runs", "1"]);
    for scenario in scenarios {
        let nobody = of(&report, scenario).find(|row| row["tool"] == "nobody");
        let nobody = nobody.unwrap_or_else(|| panic!("{scenario} without nobody"));
        let (run, ratio) = (&nobody["runs"][0], nobody["ratio"]["median"].as_f64().unwrap());
        for field in ["bytes_up", "cpu_sender_s", "peak_sender"] {
            assert!(run[field].is_null(), "{field} in {run}");
        }
        let our = ours(&report, scenario)["wall_s"].as_f64().unwrap();
        assert!(
            (ratio - run["wall_s"].as_f64().unwrap() / our).abs() < 1e-9,
            "{nobody}"
        );
        // Being slower than nobody is a loss like any other.
        let is_loss = nobody["verdict"] == "loss";
        let mut losses = report["losses"].as_array().unwrap().iter();
        let is_listed = losses.any(|loss| loss["scenario"] == scenario && loss["tool"] == "nobody");
        assert_eq!((is_loss, is_listed), (ratio < 0.97, ratio < 0.97), "{report}");
    }
    let lines: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("  nobody "))
        .collect();
    assert_eq!(lines.len(), scenarios.len(), "{table}");
    assert!(lines.iter().all(|line| !line.contains('?')), "{lines:?}");
}

#[test]
fn an_unknown_scenario_is_answered_with_the_live_ones_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(["bench", "--scenario", "live"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("live-latency") && said.contains("seed"), "{said}");
}
