//! Announced, done, and nothing else.

use crate::pairs::{all, fill, set_time};
use crate::support::exact::{Judge, exact};
use crate::support::random::Random;
use crate::{Desk, items};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const JUDGE: Judge = Judge {
    owners: true,
    namespaces: &["user.", "system.posix_acl_"],
    links: true,
    holes: false,
};

/// All that anybody could have changed about a tree, times of change included.
fn untouched(root: &Path) -> Vec<String> {
    let mut paths = all(root);
    paths.push(root.to_owned());
    let facts = paths.iter().map(|path| {
        let meta = path.symlink_metadata().unwrap();
        format!(
            "{} {} {} {} {} {}.{} {}.{}",
            path.as_os_str().as_bytes().escape_ascii(),
            meta.ino(),
            meta.mode(),
            meta.nlink(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        )
    });
    facts.collect()
}

fn names(root: &Path) -> BTreeSet<Vec<u8>> {
    all(root)
        .into_iter()
        .map(|path| path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec())
        .collect()
}

/// The bytes that an escaped name stands for.
fn unescaped(shown: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), shown.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let octal = rest.get(2..5).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if rest.starts_with(b"\\#") => {
                bytes.push(byte);
                rest = &rest[5..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// The path of an itemized line.
pub fn path_of(line: &str) -> Vec<u8> {
    let shown = &line[12..];
    let shown = shown.split(" => ").next().unwrap().split(" -> ").next().unwrap();
    let path = unescaped(shown.trim_end_matches('/'));
    if path == b"." { Vec::new() } else { path }
}

#[test]
fn what_is_announced_is_done_and_nothing_else() {
    for seed in 300..330 {
        let with_links = seed % 2 == 0;
        let desk = Desk::new();
        let (src, dst) = (desk.path("src"), desk.path("dst"));
        fill(&mut Random(seed), &src, &dst, with_links);
        let (before, state) = (exact(&dst, JUDGE), names(&desk.path("home")));
        let listing = untouched(&dst);
        let announced: BTreeSet<String> = desk.items(&["--once", "--dry-run"]).into_iter().collect();
        assert_eq!(
            untouched(&dst),
            listing,
            "seed {seed}: a dry run changed the target"
        );
        let made: Vec<_> = names(&desk.path("home")).difference(&state).cloned().collect();
        assert!(
            made.iter().all(|name| name.starts_with(b"identity")),
            "seed {seed}: a dry run left {made:?}"
        );
        let done: BTreeSet<String> = desk.items(&["--once", "-i"]).into_iter().collect();
        assert_eq!(done, announced, "seed {seed}");
        let after = exact(&dst, JUDGE);
        let told: BTreeSet<Vec<u8>> = announced.iter().map(|line| path_of(line)).collect();
        for path in before.keys().chain(after.keys()) {
            let alone = |exact: &crate::support::exact::Exact| {
                let mut exact = exact.clone();
                exact.links_to = None;
                exact
            };
            let changed = before.get(path).map(alone) != after.get(path).map(alone);
            let shown = path.escape_ascii();
            assert!(
                !changed || told.contains(path),
                "seed {seed}: {shown} changed unannounced"
            );
        }
        let wanted = exact(&src, JUDGE);
        let differs: Vec<_> = wanted
            .iter()
            .filter(|(path, exact)| after.get(*path) != Some(exact))
            .map(|(path, _)| path.escape_ascii().to_string())
            .collect();
        assert_eq!(differs, Vec::<String>::new(), "seed {seed}");
        assert_eq!(wanted.len(), after.len(), "seed {seed}");
        assert_eq!(
            desk.items(&["--once", "-n"]),
            Vec::<String>::new(),
            "seed {seed}: something is left"
        );
    }
}

#[test]
fn first_contact_is_announced_as_it_would_end() {
    let desk = Desk::new();
    fs::write(desk.path("src/a"), "a").unwrap();
    fs::write(desk.path("dst/extra"), "b").unwrap();
    let asked = desk.run(&["mirror", "src", "dst", "--once", "-n"]);
    assert_eq!(asked.status, Some(1), "{asked:#?}");
    assert_eq!(
        items(&asked.out),
        Vec::<String>::new(),
        "the run would do nothing"
    );
    assert!(
        asked.err.contains("holds 1 entry") && asked.err.contains("--delete always"),
        "{asked:#?}"
    );
    let kept = desk.run(&["mirror", "src", "dst", "--once", "-n", "--delete", "never"]);
    assert!(
        !kept.out.contains("*deleting") && kept.out.contains(">f+++++++++ a"),
        "{kept:#?}"
    );
    // The answer is remembered, by dry runs, too.
    let ended = desk.run(&["mirror", "src", "dst", "--once", "--delete", "never"]);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    let again = desk.run(&["mirror", "src", "dst", "--once", "-n"]);
    assert_eq!(
        (again.status, items(&again.out)),
        (Some(0), Vec::new()),
        "{again:#?}"
    );
}

#[test]
fn a_source_that_is_not_what_it_was_is_announced_as_refused() {
    let desk = Desk::new();
    fs::write(desk.path("src/a"), "a").unwrap();
    assert_eq!(desk.mirror(&["--once"]).status, Some(0));
    fs::remove_file(desk.path("src/a")).unwrap();
    let refused = |word: &str| {
        for option in ["-n", "-i"] {
            let ended = desk.mirror(&["--once", option]);
            assert_eq!(
                (ended.status, items(&ended.out).len()),
                (Some(1), 0),
                "{ended:#?}"
            );
            assert!(
                ended.err.contains(word) && ended.err.contains("--accept-root"),
                "{ended:#?}"
            );
        }
    };
    refused("is empty");
    fs::rename(desk.path("src"), desk.path("old")).unwrap();
    fs::create_dir(desk.path("src")).unwrap();
    fs::write(desk.path("src/b"), "b").unwrap();
    refused("another directory");
    let announced = desk.items(&["--once", "-n", "--accept-root"]);
    assert!(announced.contains(&"*deleting   a".to_owned()), "{announced:?}");
}

#[test]
fn quiet_is_quiet_about_changes_too() {
    let desk = Desk::new();
    fs::write(desk.path("src/a"), "a").unwrap();
    for option in ["-n", "-i"] {
        let ended = desk.mirror(&["--once", "-q", option]);
        assert_eq!((ended.status, ended.out.as_str()), (Some(0), ""), "{ended:#?}");
    }
}

#[test]
fn too_many_deletions_are_announced_as_held_back() {
    let desk = Desk::new();
    fs::write(desk.path("src/a"), "a").unwrap();
    for n in 0..5 {
        fs::write(desk.path(&format!("dst/extra{n}")), "b").unwrap();
    }
    set_time(&desk.path("src"), 1_000, 0);
    let options = ["--once", "--max-delete", "3"];
    let looked = desk.mirror(&[&options[..], &["-n"]].concat());
    assert_eq!(looked.status, Some(1), "{looked:#?}");
    assert_eq!(items(&looked.out), [".d..t...... ./", ">f+++++++++ a"]);
    assert!(looked.err.contains("--max-delete none"), "{looked:#?}");
    let done = desk.mirror(&[&options[..], &["-i"]].concat());
    assert_eq!(done.status, Some(1), "{done:#?}");
    // It ends at once, with some of the rest perhaps not done; what is told was.
    let told = items(&done.out);
    let is_told = |line: &str| told.iter().any(|told| told == line);
    assert_eq!(is_told(">f+++++++++ a"), desk.path("dst/a").exists(), "{done:#?}");
    let time = |name: &str| desk.path(name).metadata().unwrap().modified().unwrap();
    assert_eq!(is_told(".d..t...... ./"), time("src") == time("dst"), "{done:#?}");
    assert!(
        !done.out.contains("*deleting") && desk.path("dst/extra0").exists(),
        "{done:#?}"
    );
}

#[test]
fn what_was_not_done_is_not_told() {
    let desk = Desk::new();
    fs::create_dir(desk.path("dst/taken")).unwrap();
    fs::write(desk.path("dst/taken/mine.o"), "protected").unwrap();
    fs::write(desk.path("src/taken"), "a file here").unwrap();
    fs::write(desk.path("src/other"), "x").unwrap();
    set_time(&desk.path("src"), 1_000, 0);
    let options = ["--once", "--exclude=*.o"];
    let looked = desk.mirror(&[&options[..], &["-n"]].concat());
    let done = desk.mirror(&[&options[..], &["-i"]].concat());
    for ended in [looked, done] {
        assert_eq!(ended.status, Some(3), "{ended:#?}");
        let mut told = items(&ended.out);
        told.sort();
        assert_eq!(told, [".d..t...... ./", ">f+++++++++ other"], "{ended:#?}");
    }
}

#[test]
fn a_missing_target_is_not_made_and_json_has_the_same() {
    let desk = Desk::new();
    fs::write(desk.path("src/a\nb"), "a").unwrap();
    std::os::unix::fs::symlink("to", desk.path("src/l")).unwrap();
    let plain = desk.run(&["mirror", "src", "new", "--once", "-n"]);
    assert_eq!(
        items(&plain.out),
        ["cd+++++++++ ./", ">f+++++++++ a\\#012b", "cL+++++++++ l -> to"],
        "{plain:#?}"
    );
    let json = desk.run(&["mirror", "src", "new", "--once", "-n", "--json"]);
    let events: Vec<serde_json::Value> = json
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "item")
        .map(|event| {
            (
                event["itemized"].as_str().unwrap(),
                event["path"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("cd+++++++++", "."),
            (">f+++++++++", "a\\nb"),
            ("cL+++++++++", "l")
        ]
    );
    assert_eq!(events.last().unwrap()["totals"]["transferred"], 1);
    assert!(!desk.path("new").exists());
}
