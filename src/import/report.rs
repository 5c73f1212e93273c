//! What became of each key, for people and for programs.

use super::Source;
use super::translate::{Draft, Finding, Import, Module, Outcome, Receiver};
use super::write::{Written, entry, quoted};
use serde_json::json;
use std::fmt::Write;

/// The report for people.
pub fn text(import: &Import, source: &Source) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = writeln!(out, "{}: {}", source.path, summary(import));
    if !import.findings.is_empty() {
        out.push_str("\nsettings\n");
        findings(&mut out, &import.findings);
    }
    for mirror in &import.mirrors {
        section(&mut out, mirror);
    }
    if !import.receivers.is_empty() {
        out.push_str("\npair\n");
        for receiver in &import.receivers {
            for line in instructions(receiver) {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
    out.push_str(ALWAYS);
    out
}

fn summary(import: &Import) -> String {
    let all = import.mirrors.len();
    let active = import
        .mirrors
        .iter()
        .filter(|mirror| mirror.stops.is_empty())
        .count();
    match (all, active) {
        (1, 1) => "1 mirror, active".to_owned(),
        (1, _) => "1 mirror, not active".to_owned(),
        _ if all == active => format!("{all} mirrors, all active"),
        _ => format!("{all} mirrors, {active} active"),
    }
}

/// What differs whatever a configuration says.
const ALWAYS: &str = "
in all mirrors
  modes, times, ACLs, extended attributes, hard links and holes are always carried, and owners where both ends run as root;
    lsyncd without `archive` carries times and symbolic links only
  deletions of more than 1,000 entries and a quarter of the tree wait for `driftless approve` (`max-delete = \"none\"`: never)
  what somebody else changes on a target is overwritten
";

fn section(out: &mut String, mirror: &Draft) {
    let lines: Vec<String> = mirror.lines.iter().map(u32::to_string).collect();
    let state = if mirror.stops.is_empty() {
        ""
    } else {
        ", not active"
    };
    let _ = writeln!(out, "\nmirror {}, line {}{state}", mirror.name, lines.join(", "));
    // Those that come from a key stand there.
    let of_keys: Vec<String> = mirror.findings.iter().map(Finding::reason).collect();
    for stop in mirror.stops.iter().filter(|stop| !of_keys.contains(stop)) {
        let _ = writeln!(out, "        {:<10}  {stop}", verb(Outcome::Stops));
    }
    findings(out, &mirror.findings);
}

fn findings(out: &mut String, findings: &[Finding]) {
    for finding in findings {
        let line = finding.line.map_or(String::new(), |line| line.to_string());
        let (verb, what) = (verb(finding.outcome), finding.what());
        let became = match (&finding.to, finding.text.as_str()) {
            (Some(to), "") => format!(" -> {to}"),
            (Some(to), text) => format!(" -> {to} ({text})"),
            (None, "") => String::new(),
            (None, text) => format!(": {text}"),
        };
        let _ = writeln!(out, "  {line:>4}  {verb:<10}  {what}{became}");
    }
}

fn verb(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Carried => "carried",
        Outcome::Replaced => "replaced",
        Outcome::Dropped => "dropped",
        Outcome::Differs => "differs",
        Outcome::Stops => "NOT ACTIVE",
    }
}

/// What to do on both machines, one line each.
fn instructions(receiver: &Receiver) -> Vec<String> {
    let host = &receiver.host;
    let bare = host.trim_matches(['[', ']']);
    let mut lines = vec![format!("on {bare}, in /etc/driftless/driftless.toml:")];
    for module in &receiver.modules {
        lines.push("  [[module]]".to_owned());
        lines.push(format!("  name = {}", quoted(&module.name)));
        lines.push(format!("  path = {}", directory(module)));
        lines.extend(
            module
                .entries
                .iter()
                .map(|(key, setting)| format!("  {}", entry(key, setting))),
        );
    }
    lines.push(format!(
        "on {bare}, once its daemon runs; and here, with the line that each prints:"
    ));
    for command in commands(receiver) {
        lines.push(format!("  {command}"));
    }
    lines
}

fn commands(receiver: &Receiver) -> Vec<String> {
    let invites = receiver.modules.iter().map(|module| {
        format!(
            "driftless invite --module {} --address {}",
            shell_word(&module.name),
            shell_word(&receiver.host)
        )
    });
    let pair = format!(
        "driftless pair CODE --name {}",
        shell_word(receiver.host.trim_matches(['[', ']']))
    );
    invites.chain([pair]).collect()
}

fn directory(module: &Module) -> String {
    match &module.directory {
        Some(directory) if directory.starts_with('/') => quoted(directory),
        Some(directory) => format!(
            "{}  # below the home of the user that ssh logged in as",
            quoted(&format!("/home/USER/{directory}"))
        ),
        None => format!("\"...\"  # the path of [{}] in rsyncd.conf there", module.name),
    }
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.contains('[') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The report for programs, and the configuration with it.
pub fn json(import: &Import, source: &Source, written: &Written) -> serde_json::Value {
    let mirrors = import.mirrors.iter().map(|mirror| {
        json!({
            "name": mirror.name,
            "lines": mirror.lines,
            "active": mirror.stops.is_empty(),
            "reasons": mirror.stops,
            "findings": mirror.findings,
        })
    });
    let receivers = import.receivers.iter().map(|receiver| {
        let modules = receiver.modules.iter();
        let modules = modules.map(|module| json!({"name": module.name, "path": module.directory}));
        json!({
            "host": receiver.host,
            "modules": modules.collect::<Vec<_>>(),
            "commands": commands(receiver),
        })
    });
    json!({
        "file": source.path,
        "toml": written.text,
        "settings": import.findings,
        "mirrors": mirrors.collect::<Vec<_>>(),
        "receivers": receivers.collect::<Vec<_>>(),
    })
}
