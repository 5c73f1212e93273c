//! The layers: who may use whom. Nothing points up, and the edges do not know each other; only a daemon joins them.
//!
//! Read from the sources, by the paths that name another part of the crate. Comments do not count, tests do.

use std::fs;
use std::path::{Path, PathBuf};

/// Each part of `src/`, and the parts that it may use beside itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("fs", &["engine"]),
    ("watch", &["engine"]),
    ("store", &["engine"]),
    ("net", &["engine"]),
    ("confine", &[]),
    ("import", &["engine", "confine"]),
    ("daemon", &["engine", "fs", "watch", "store", "net"]),
    ("bench", &["engine", "fs", "watch", "store", "net", "daemon"]),
    (
        "cli",
        &[
            "engine", "fs", "watch", "store", "net", "confine", "daemon", "bench", "import",
        ],
    ),
    ("bin", &["cli"]),
];

/// Words that must not occur in a part's code outside its tests, and why.
const NEVER: &[(&[&str], &[&str], &str)] = &[
    (
        &["engine"],
        &[
            "std::fs",
            "std::net",
            "std::thread",
            "std::process",
            "std::env",
            "Instant::now",
            "SystemTime::now",
        ],
        "decisions are pure: time and bytes are arguments",
    ),
    (
        &["engine"],
        &[
            "tokio::",
            "quinn::",
            "rustls::",
            "rustix::",
            "libc::",
            "redb::",
            "getrandom::",
            "driftless_certs::",
        ],
        "decisions know no runtime, no kernel and no database",
    ),
    (
        &["fs", "watch", "store"],
        &["tokio::", "quinn::", "rustls::", "driftless_certs::"],
        "files, events and records do not know the network",
    ),
    (
        &["fs", "watch", "net", "daemon", "cli"],
        &["redb::"],
        "only the store knows the database",
    ),
    (
        &["fs", "watch", "store", "daemon", "cli"],
        &["quinn::"],
        "only net knows QUIC",
    ),
    (
        &[
            "engine", "fs", "watch", "store", "net", "confine", "daemon", "bench", "cli",
        ],
        &["mlua::"],
        "only import knows Lua",
    ),
    (
        &["import"],
        &["std::net", "tokio::", "std::fs", "std::os"],
        "the configuration of another program is data, and what comes of it, too",
    ),
    (
        &["daemon", "cli", "store", "net", "import"],
        &["unsafe "],
        "memory is safe there by construction",
    ),
];

/// Files that must forbid unsafe code for all below them.
const FORBID_UNSAFE: &[&str] = &["protocol/src/lib.rs", "certs/src/lib.rs", "src/engine/mod.rs"];

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![below.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text without comments. What comes after `//` inside a string is lost, too; no path is looked for there.
fn code_of(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first segments behind `crate::` and `driftless::`, with groups taken apart.
fn uses(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for prefix in ["crate::", "driftless::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(is_word) {
                continue;
            }
            let rest = code[at + prefix.len()..].trim_start();
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(head(rest)),
            }
        }
    }
    found
}

fn head(path: &str) -> Option<String> {
    let word: String = path.trim_start().chars().take_while(|&c| is_word(c)).collect();
    (!word.is_empty()).then_some(word)
}

/// The heads of the elements of a `use` group whose opening brace was taken off.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.extend(head(&group[start..at]));
                return found;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.extend(head(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The longest chain of `super::`.
fn climb(code: &str) -> usize {
    let mut longest = 0;
    for (at, _) in code.match_indices("super::") {
        let mut rest = &code[at..];
        let mut steps = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (rest, steps) = (next, steps + 1);
        }
        longest = longest.max(steps);
    }
    longest
}

/// How many modules deep a file's own module is: `src/fs/mod.rs` is 1, `src/fs/copy.rs` is 2.
fn depth(relative: &Path) -> usize {
    let parts = relative.components().count();
    if relative.ends_with("mod.rs") {
        parts - 1
    } else {
        parts
    }
}

fn is_test(relative: &Path) -> bool {
    relative.ends_with("tests.rs") || relative.components().any(|part| part.as_os_str() == "tests")
}

/// Every file of a part of `src/`: its path relative to `src/`, and its code.
fn files_of(part: &str) -> Vec<(PathBuf, String)> {
    let src = project().join("src");
    let below = src.join(part);
    if !below.is_dir() {
        return Vec::new();
    }
    sources(&below)
        .into_iter()
        .map(|path| {
            let code = code_of(&fs::read_to_string(&path).unwrap());
            (path.strip_prefix(&src).unwrap().to_owned(), code)
        })
        .collect()
}

#[test]
fn every_part_uses_only_what_is_below_it() {
    let mut faults = Vec::new();
    for &(part, allowed) in MAY_USE {
        for (path, code) in files_of(part) {
            for used in uses(&code) {
                let known = MAY_USE.iter().any(|&(part, _)| part == used);
                if known && used != part && !allowed.contains(&used.as_str()) {
                    faults.push(format!("src/{}: {part} must not use {used}", path.display()));
                }
            }
            let inline = usize::from(code.contains("mod tests {"));
            if climb(&code) >= depth(&path) + inline {
                faults.push(format!(
                    "src/{}: `super::` leaves {part}; write `crate::`",
                    path.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_part_is_known_to_this_test() {
    for entry in fs::read_dir(project().join("src")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            assert!(
                MAY_USE.iter().any(|&(part, _)| part == name),
                "src/{name} has no place among the layers"
            );
        } else {
            assert_eq!(name, "lib.rs", "code belongs into a layer");
        }
    }
    assert!(
        files_of("daemon").len() > 5 && files_of("engine").len() > 3,
        "the sources were not found"
    );
}

#[test]
fn what_a_part_must_not_know_is_absent() {
    let mut faults = Vec::new();
    for &(parts, words, why) in NEVER {
        for part in parts {
            for (path, code) in files_of(part).into_iter().filter(|(path, _)| !is_test(path)) {
                // Inline tests may sleep and read clocks.
                let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
                for word in words {
                    let found = code.match_indices(word).any(|(at, _)| {
                        let before = &code[..at];
                        // `quinn::crypto::rustls::` is a part of quinn.
                        let inner =
                            word.ends_with("::") && before.ends_with("::") && !before.ends_with(" ::");
                        !before.ends_with(is_word) && !inner
                    });
                    if found {
                        faults.push(format!("src/{}: `{}` ({why})", path.display(), word.trim()));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_is_forbidden_where_peers_are_believed_least() {
    for file in FORBID_UNSAFE {
        let text = fs::read_to_string(project().join(file)).unwrap();
        assert!(
            text.contains("\n#![forbid(unsafe_code)]\n"),
            "{file} does not forbid unsafe code"
        );
    }
}

#[test]
fn the_protocol_needs_no_runtime_and_no_network() {
    let manifest = fs::read_to_string(project().join("protocol/Cargo.toml")).unwrap();
    for line in manifest.lines() {
        let name = line.split(['=', '.', ' ']).next().unwrap_or("").trim_matches('"');
        assert!(
            ![
                "tokio",
                "quinn",
                "quinn-proto",
                "rustls",
                "driftless",
                "driftless-certs"
            ]
            .contains(&name),
            "protocol/Cargo.toml: {line}"
        );
    }
}

#[test]
fn the_reader_of_paths_sees_what_it_should() {
    let code = "use crate::fs::{Directory, Stat};\nuse crate::{net::{a, b}, store};\nlet x = driftless::cli::main();\n\
                use driftless_certs::Identity; use mycrate::watch; $crate::daemon::run();";
    let mut found = uses(&code_of(code));
    found.sort();
    assert_eq!(found, ["cli", "daemon", "fs", "net", "store"]);
    assert!(uses(&code_of("// crate::net\n/// [`crate::store`]")).is_empty());
    assert_eq!(climb("use super::super::x; super::y"), 2);
    assert_eq!(
        (depth(Path::new("fs/mod.rs")), depth(Path::new("fs/copy.rs"))),
        (1, 2)
    );
    assert!(is_test(Path::new("fs/tests/mod.rs")) && is_test(Path::new("net/tests.rs")));
}
