//! The guide: its commands are run as they stand there, its links lead somewhere, its messages are those of the program.
//!
//! A block that begins with three backticks and `sh test` is run. More words say how:
//!
//! - `host=NAME`: on which machine; each is a network, mount and host name namespace of its own, root in it, with an empty
//!   `/srv`, `/var/lib`, `/etc/driftless` and so on. Machines know each other by name, also as `NAME.example`
//! - `daemon`: it goes on running; the next block waits for its first line
//! - `stop`: what runs on this machine is stopped by Ctrl-C first
//! - `paste`: what the block before printed is its standard input
//! - `status=N`: it has to end with this status instead of 0
//!
//! A block of commands that is not run says why:
//!
//! - `untried=build`: what `.ci/run` does itself
//! - `untried=elsewhere`: another page or test runs these commands
//! - `untried=hours`: it takes that long, or needs a machine for itself
//! - `untried=systemd`: it needs a system that runs; `packaging/test` has one
//! - `untried=terminal`: somebody has to look at it; `tests/operating` does
//!
//! A block `text output` is what the block before prints: each of its lines occurs there, in this order; `...` stands for
//! anything. The blocks of a page are run one after the other.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{is_root, skip};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The pages of the guide, and the README.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = fs::read_dir(project("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.push(project("README.md"));
    pages.sort();
    pages
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A block between lines of three backticks.
struct Block {
    line: usize,
    words: Vec<String>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(words), None) => {
                open = Some(Block {
                    line: at + 1,
                    words: words.split_whitespace().map(str::to_owned).collect(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

impl Block {
    fn is(&self, wanted: &[&str]) -> bool {
        self.words
            .iter()
            .zip(wanted)
            .filter(|(word, wanted)| word == wanted)
            .count()
            == wanted.len()
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn host(&self) -> &str {
        self.value("host").unwrap_or("here")
    }
}

/// The program that the commands call: `DRIFTLESS_TEST_PROGRAM`, for example that of a package, or the one that was built.
fn program() -> PathBuf {
    let given = std::env::var_os("DRIFTLESS_TEST_PROGRAM");
    given.map_or_else(|| env!("CARGO_BIN_EXE_driftless").into(), PathBuf::from)
}

/// Runs the blocks of a page; gives how many there were.
fn run(page: &Path) -> usize {
    let shown = page.file_name().unwrap().to_string_lossy().into_owned();
    let all = blocks(&read(page));
    let commands: Vec<_> = all.iter().filter(|block| block.is(&["sh", "test"])).collect();
    if commands.is_empty() {
        return 0;
    }
    let work = tempfile::tempdir().unwrap();
    let path = |name: String| work.path().join(name);
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(path("bin".to_owned())).unwrap();
    symlink(program(), path("bin/driftless".to_owned())).unwrap();
    let mut plan = String::new();
    for (at, block) in commands.iter().enumerate() {
        const HOW: [&str; 3] = ["daemon", "stop", "paste"];
        let how: Vec<_> = block.words[2..].iter().map(String::as_str).collect();
        for word in &how {
            let is_known = HOW.contains(word) || word.starts_with("host=") || word.starts_with("status=");
            assert!(is_known, "{shown}:{}: {word} is no word for a block", block.line);
        }
        let status = block.value("status").unwrap_or("0");
        plan.push_str(&format!("{at} {} {status} {}\n", block.host(), how.join(" ")));
        fs::write(path(format!("{at}.sh")), &block.text).unwrap();
    }
    let hosts: BTreeSet<_> = commands.iter().map(|block| block.host()).collect();
    let hosts: String = hosts.into_iter().map(|host| format!("{host}\n")).collect();
    fs::write(path("plan".to_owned()), plan).unwrap();
    fs::write(path("hosts".to_owned()), hosts).unwrap();
    let mut machines = Command::new("unshare");
    machines
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(project("tests/guide/machines"))
        .arg(work.path())
        .stdin(Stdio::null());
    let output = machines.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let line = |number: &str| {
        number
            .parse::<usize>()
            .ok()
            .and_then(|at| Some(commands.get(at)?.line))
    };
    let failed = said
        .split("block ")
        .nth(1)
        .and_then(|rest| line(rest.split(' ').next()?));
    let at = failed.map_or_else(|| shown.clone(), |line| format!("{shown}:{line}"));
    assert!(output.status.success(), "{at}: {said}");
    for (at, expected) in outputs(&all) {
        let printed = read(&path(format!("{at}.out")));
        let missing = first_missing(&expected.text, &printed);
        assert!(
            missing.is_none(),
            "{shown}:{}: {:?} is not in what was printed:\n{printed}",
            expected.line,
            missing
        );
    }
    commands.len()
}

/// Blocks of output, each with the number of the command before it.
fn outputs(blocks: &[Block]) -> Vec<(usize, &Block)> {
    let (mut found, mut commands) = (Vec::new(), 0);
    for block in blocks {
        if block.is(&["sh", "test"]) {
            commands += 1;
        } else if block.is(&["text", "output"]) {
            assert!(commands > 0, "line {}: output of nothing", block.line);
            found.push((commands - 1, block));
        }
    }
    found
}

/// The first expected line that does not occur behind those before it.
fn first_missing<'a>(expected: &'a str, printed: &str) -> Option<&'a str> {
    let mut printed = printed.lines();
    expected
        .lines()
        .find(|wanted| !printed.any(|line| is_like(line, wanted)))
}

fn is_like(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let mut is_open = false;
    for part in parts {
        is_open = part.is_empty();
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    is_open || rest.is_empty()
}

#[test]
fn lines_are_compared_with_dots_for_anything() {
    assert!(is_like("in sync, 5 entries", "in sync, ... entries"));
    assert!(is_like("in sync, 5 entries", "in sync..."));
    assert!(!is_like("in sync, 5 entries", "in sync, ... files"));
    assert!(!is_like("in sync, 5 entries", "in sync"));
    assert_eq!(first_missing("a\nc\n", "a\nb\nc\n"), None);
    assert_eq!(first_missing("c\na\n", "a\nb\nc\n"), Some("a"));
}

#[test]
fn the_commands_of_the_guide_work() {
    if !is_root() {
        return skip("namespaces of its own need root");
    }
    let only = std::env::var("DRIFTLESS_TEST_PAGE").ok();
    let mut count = 0;
    for page in pages() {
        if only.as_ref().is_none_or(|only| page.ends_with(only)) {
            count += run(&page);
        }
    }
    assert!(count >= 20 || only.is_some(), "only {count} blocks are run");
}

#[test]
fn commands_are_run_or_say_why_not() {
    const REASONS: [&str; 5] = ["build", "elsewhere", "hours", "systemd", "terminal"];
    for page in pages() {
        for block in blocks(&read(&page)) {
            let are_commands = block.is(&["sh"]) || block.is(&["console"]) || block.is(&["bash"]);
            let has_reason = block.value("untried").is_some_and(|why| REASONS.contains(&why));
            assert!(
                !are_commands || block.is(&["sh", "test"]) || has_reason,
                "{}:{}: neither `sh test` nor `untried=` with one of {REASONS:?}",
                page.display(),
                block.line
            );
        }
    }
}

/// Where the links of a page lead: the file, and the part of it if one is named.
fn links(page: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in page.lines() {
        is_code ^= line.starts_with("```");
        if is_code {
            continue;
        }
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.map(str::to_owned));
    }
    found
}

/// How a heading is named in a link.
fn anchor(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = plain
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let is_there = part.is_empty()
                || read(&target)
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == part);
            assert!(is_there, "{}: {link}: there is no such heading", page.display());
        }
    }
}

#[test]
fn every_page_is_in_the_summary_once() {
    let summary = links(&read(&project("docs/SUMMARY.md")));
    let listed: BTreeSet<_> = summary.iter().cloned().collect();
    assert_eq!(listed.len(), summary.len(), "a page is there twice");
    let there: BTreeSet<_> = pages()
        .iter()
        .filter(|page| page.parent() == Some(&project("docs")))
        .map(|page| page.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "SUMMARY.md")
        .collect();
    assert_eq!(listed, there);
    let book: toml::Table = read(&project("book.toml")).parse().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("docs"));
}

/// What begins like a command and is none: the name of a line of `bench --delta`.
const NO_CALLS: [&str; 1] = ["driftless keyed BLAKE3"];

/// The commands of a page that call the program: lines of blocks, and what stands between backticks in the text.
fn calls(page: &str) -> Vec<String> {
    let in_blocks = blocks(page);
    let in_blocks = in_blocks
        .iter()
        .flat_map(|block| block.text.lines())
        .map(|line| line.trim_start_matches("$ "));
    let text: Vec<_> = page.split("```").step_by(2).collect();
    let joined = text
        .iter()
        .map(|text| text.replace('\n', " "))
        .collect::<Vec<_>>();
    let in_text = joined.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
    let all = in_blocks.map(str::to_owned).chain(in_text.map(str::to_owned));
    all.filter(|call| call.starts_with("driftless ") && !NO_CALLS.contains(&call.as_str()))
        .collect()
}

/// What the program says of a command.
fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap())
}

/// A part of a line that the shell would take for one command.
fn first_command(line: &str) -> &str {
    let end = ["|", "&&", ";", "#", ">", "<"]
        .iter()
        .filter_map(|mark| line.find(mark))
        .min();
    &line[..end.unwrap_or(line.len())]
}

#[test]
fn every_command_and_option_that_is_named_exists() {
    let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
    let (mut count, mut faults) = (0, Vec::new());
    for page in pages() {
        for call in calls(&read(&page)) {
            let words: Vec<_> = first_command(&call).split_whitespace().skip(1).collect();
            let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let names: Vec<_> = words
                .iter()
                .take_while(is_name)
                .copied()
                .filter(|word| !word.starts_with('-'))
                .collect();
            // Groups of commands have one more word: `peers add`.
            let command = match names.as_slice() {
                [group @ ("peers" | "config" | "trash"), name, ..] => vec![*group, *name],
                [name, ..] => vec![*name],
                [] => Vec::new(),
            };
            let help = known.entry(command.join(" ")).or_insert_with(|| help(&command));
            let Some(help) = help else {
                faults.push(format!("{}: {call:?}: there is no such command", page.display()));
                continue;
            };
            for option in words
                .iter()
                .filter(|word| word.starts_with("--") && word.len() > 2)
            {
                let option = option.split(['=', '[', ',']).next().unwrap();
                let option = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                let is_there = help
                    .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                    .any(|word| word == option);
                if !is_there {
                    faults.push(format!("{}: {call:?}: there is no {option}", page.display()));
                }
            }
            count += 1;
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count >= 150, "only {count} commands were looked at");
}

/// All text of the sources, without line ends in texts and without what is put in.
fn sources(below: &Path, text: &mut String) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&read(&path));
        }
    }
}

/// One space for each run of white space; a backslash at the end of a line joins it with the next.
fn joined(text: &str) -> String {
    text.replace("\\\n", " ")
        .replace("\\\"", "\"")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn the_messages_that_are_explained_are_those_of_the_program() {
    let mut all = String::new();
    for place in ["src", "certs/src", "protocol/src"] {
        sources(&project(place), &mut all);
    }
    let all = joined(&all);
    let page = read(&project("docs/troubleshooting.md"));
    // A table row begins with the message, as code; `...` stands for what differs.
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut count = 0;
    for message in rows {
        for part in message.split("...").map(str::trim).filter(|part| part.len() > 3) {
            assert!(
                all.contains(&joined(part)),
                "the program never says {part:?} (of {message:?})"
            );
        }
        count += 1;
    }
    assert!(count >= 40, "only {count} messages are explained");
}
