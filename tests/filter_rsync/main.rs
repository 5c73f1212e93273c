//! The filter against stock rsync: random rules on random trees, the same names sent, the same names deleted.
//!
//! `DRIFTLESS_SOAK=20000` runs that many cases instead of 250; `DRIFTLESS_SEED=N` starts at another seed, and with
//! `DRIFTLESS_SOAK=1` replays one case. A failure prints the seed, the rules and both answers.

mod generate;
mod ours;
mod random;

use generate::Case;
use random::Random;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// Cases of one run without `DRIFTLESS_SOAK`.
const CASES: u64 = 250;

/// Rule sets that are tried on the same tree: making trees costs more than starting rsync.
const SETS_PER_TREE: u64 = 10;

/// One case in so many is also run for real: a dry run does not show which directories stay for what they hold.
const REAL_RUNS: u64 = 8;

/// What became of a case: names as rsync prints them, a slash behind directories.
#[derive(Debug, Default)]
struct Answer {
    sent: BTreeSet<Vec<u8>>,
    deleted: BTreeSet<Vec<u8>>,
    /// Directories that would go if nothing in them were protected. A dry run of rsync announces the deletion of some
    /// of them; only a real run shows that they stay.
    not_empty: BTreeSet<Vec<u8>>,
}

/// `None`: the rules were refused.
type Outcome = Option<Answer>;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

#[test]
fn random_rules_mean_what_they_mean_to_rsync() {
    if Command::new("rsync")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("skipped: rsync is not installed");
        return;
    }
    let (cases, first) = (
        number("DRIFTLESS_SOAK").unwrap_or(CASES),
        number("DRIFTLESS_SEED").unwrap_or(1),
    );
    println!("{cases} cases from seed {first}");
    let (next, refused, deletions) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let failures = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            let mut tree = None;
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + cases || failures.len() > 3 {
                    return failures;
                }
                let tree = tree.get_or_insert_with(generate::Tree::empty);
                let tree_seed = seed / SETS_PER_TREE;
                tree.make(tree_seed);
                let case = Case::new(&mut Random::new(seed), tree);
                let (theirs, ours) = (rsync(&case), ours::answer(&case));
                match &theirs {
                    None => refused.fetch_add(1, Ordering::Relaxed),
                    Some(answer) => deletions.fetch_add(answer.deleted.len() as u64, Ordering::Relaxed),
                };
                if !agree(&theirs, &ours) {
                    failures.push(report(seed, &case, &theirs, &ours));
                } else if let Some(answer) = &ours
                    && seed.is_multiple_of(REAL_RUNS)
                    && let Some(difference) = real_run(&case, answer)
                {
                    failures.push(difference + &report(seed, &case, &theirs, &ours));
                }
            }
        };
        let other = scope.spawn(work);
        let mut failures = work();
        failures.extend(other.join().expect("the second worker ended early"));
        failures
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let (refused, deletions) = (refused.into_inner(), deletions.into_inner());
    println!("{refused} rule sets refused by both, {deletions} names deleted");
    // A generator that only makes refused or harmless rules would prove nothing.
    assert!(refused < cases / 4 + 2);
    assert!(cases < 100 || deletions > cases);
}

fn agree(theirs: &Outcome, ours: &Outcome) -> bool {
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => {
            let deleted: BTreeSet<_> = theirs.deleted.difference(&ours.not_empty).cloned().collect();
            theirs.sent == ours.sent && deleted == ours.deleted
        }
        (theirs, ours) => theirs.is_none() == ours.is_none(),
    }
}

/// Lets rsync really copy and delete, and compares what then stands in the target with what we expect.
fn real_run(case: &Case, ours: &Answer) -> Option<String> {
    let before = listing(&case.target);
    let aside = case.target.with_extension("aside");
    fs::rename(&case.target, &aside).unwrap();
    copy(&aside, &case.target);
    let status = command(case, &["-rI", "--delete-before", "-q"])
        .output()
        .unwrap()
        .status;
    let after = listing(&case.target);
    fs::remove_dir_all(&case.target).unwrap();
    fs::rename(&aside, &case.target).unwrap();
    assert!(matches!(status.code(), Some(0)), "rsync ended with {status}");
    let expected: BTreeSet<_> = before
        .difference(&ours.deleted)
        .chain(&ours.sent)
        .cloned()
        .collect();
    let differing: Vec<_> = after
        .symmetric_difference(&expected)
        .map(|name| name.escape_ascii())
        .collect();
    (!differing.is_empty()).then(|| format!("after a real run these differ: {differing:?}\n"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => fs::copy(&from, &to).map(drop).unwrap(),
        }
    }
}

/// All names below a directory, as rsync prints them.
fn listing(root: &Path) -> BTreeSet<Vec<u8>> {
    let (mut found, mut directories) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let mut name = entry
                .path()
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            if entry.file_type().unwrap().is_dir() {
                name.push(b'/');
                directories.push(entry.path());
            }
            found.insert(name);
        }
    }
    found
}

fn command(case: &Case, options: &[&str]) -> Command {
    let mut command = Command::new("rsync");
    command
        .args(options)
        .args(&case.arguments)
        .arg(slashed(&case.source))
        .arg(slashed(&case.target))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &case.home)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    if let Some(list) = &case.cvsignore {
        command.env("CVSIGNORE", list);
    }
    command
}

fn rsync(case: &Case) -> Outcome {
    let options = ["-rniiI", "--out-format=@%i@%n", "--delete", "-8"];
    let output = command(case, &options).output().expect("rsync can be started");
    match output.status.code() {
        Some(0) => {}
        // A faulty per-directory file of the target ends the receiver, and the sender with another status.
        Some(1 | 12 | 14 | 20) => return None,
        _ => panic!("rsync failed: {}", String::from_utf8_lossy(&output.stderr)),
    }
    let mut answer = Answer::default();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let Some(rest) = line.strip_prefix(b"@") else {
            continue;
        };
        let (change, name) = (&rest[..11], &rest[12..]);
        match change.starts_with(b"*deleting") {
            true => answer.deleted.insert(name.to_vec()),
            false => name != b"./" && answer.sent.insert(name.to_vec()),
        };
    }
    Some(answer)
}

fn slashed(path: &Path) -> std::ffi::OsString {
    let mut path = path.as_os_str().to_owned();
    path.push("/");
    path
}

fn report(seed: u64, case: &Case, theirs: &Outcome, ours: &Outcome) -> String {
    use std::fmt::Write;
    let mut text = format!("seed {seed} (replay: DRIFTLESS_SOAK=1 DRIFTLESS_SEED={seed})\n");
    for argument in &case.arguments {
        let _ = writeln!(text, "  {}", argument.as_bytes().escape_ascii());
    }
    for (path, content) in &case.files {
        let _ = writeln!(text, "  {}: {}", path.display(), content.escape_ascii());
    }
    match (theirs, ours) {
        (Some(theirs), Some(ours)) => {
            for (what, theirs, ours) in [
                ("sent", &theirs.sent, &ours.sent),
                ("deleted", &theirs.deleted, &ours.deleted),
            ] {
                for (who, one, other) in [("rsync", theirs, ours), ("us", ours, theirs)] {
                    for name in one.difference(other) {
                        let _ = writeln!(text, "  {what} only by {who}: {}", name.escape_ascii());
                    }
                }
            }
        }
        _ => {
            let _ = writeln!(
                text,
                "  refused by rsync: {}, by us: {}",
                theirs.is_none(),
                ours.is_none()
            );
        }
    }
    text
}
