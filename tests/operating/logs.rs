//! The log and its forms.

use crate::site::{Daemon, Site};
use serde_json::Value;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

#[test]
fn each_change_can_be_a_line_of_json() {
    let site = Site::new(&["src/old", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], "audit = true"));
    let mut daemon = Daemon::listening(site.command("daemon --log-format json"));
    let is = |event: &Value, op: &str, path: &str| {
        event["from"] == "driftless::audit" && event["op"] == op && event["path"] == path
    };
    let made = daemon.event(|event| is(event, "made", "old"));
    assert_eq!(
        (made["level"].as_str(), made["message"].as_str()),
        (Some("info"), Some("applied")),
        "{made}"
    );
    site.write("src/a name\nwith a line end", "12345");
    let put = daemon.event(|event| is(event, "put", "a name\\nwith a line end"));
    assert_eq!(
        (put["bytes"].as_u64(), put["target"].as_str()),
        (Some(5), site.path("dst").to_str()),
        "{put}"
    );
    assert!(
        put["at"].as_str().unwrap().starts_with("20") && put["source"].as_str() == site.path("src").to_str()
    );
    std::fs::remove_dir(site.path("src/old")).unwrap();
    let removed = daemon.event(|event| is(event, "removed", "old"));
    assert!(removed["bytes"].is_null());
}

#[test]
fn a_journal_gets_levels_and_lines() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], "audit = true"));
    // As systemd does: a pipe, and its number in the environment.
    let (reader, writer) = std::io::pipe().unwrap();
    let found = std::fs::metadata(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let mut command = site.command("daemon --json");
    command
        .env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()))
        .stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    site.write("src/file", "1");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("path=file")));
    let line = line.unwrap().unwrap();
    assert!(line.starts_with("<6>applied bytes=1 op=put path=file "), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}
