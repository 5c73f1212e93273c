//! Names that somebody chose to do harm on a terminal, in a log or in a reader of JSON: S-12, S-13 and X-07, by the real binary.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Escape sequences, line ends, C1 codes, bidirectional marks, bytes that are no text, and the syntax of shells.
const NAMES: [&[u8]; 14] = [
    b"\x1b[2J\x1b]0;title\x07",
    b"line\nbreak\r",
    b"tab\tbell\x07del\x7f",
    "c1 \u{9b}31m".as_bytes(),
    "bidi \u{202e}txt.exe".as_bytes(),
    b"\xff\xfe not text",
    b"back\\slash",
    b"\\x1b",
    b"quote\"'`",
    b"$(touch PWNED)",
    b"; touch PWNED #",
    b"-rf",
    b"%s%n",
    b"...",
];

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        for name in ["src", "dst"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let scene = Scene { directory };
        for name in NAMES {
            let name = OsStr::from_bytes(name);
            fs::write(scene.path("src").join(name), name.as_bytes()).unwrap();
        }
        let odd = scene.path("src").join("deep").join(OsStr::from_bytes(NAMES[0]));
        fs::create_dir_all(&odd).unwrap();
        fs::write(odd.join(OsStr::from_bytes(NAMES[1])), "x").unwrap();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the program; its output is checked to be harmless, and given.
    fn run(&self, words: &[&OsStr]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(words)
            .env("DRIFTLESS_HOME", self.path("home"))
            .env("RUST_LOG", "driftless=debug")
            .current_dir(self.directory.path())
            .output()
            .unwrap();
        for bytes in [&output.stdout, &output.stderr] {
            let text = std::str::from_utf8(bytes).expect("all output is text");
            let harmless =
                |c: char| c == '\n' || !(c.is_control() || "\u{202e}\u{202d}\u{2066}\u{2069}".contains(c));
            if let Some(bad) = text.lines().find(|line| !line.chars().all(harmless)) {
                panic!("{words:?} printed {bad:?}");
            }
        }
        assert!(!self.path("PWNED").exists());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    fn mirror(&self, more: &[&str]) -> (Option<i32>, String) {
        let (src, dst) = (self.path("src"), self.path("dst"));
        let mut words = vec![
            "mirror".as_ref(),
            src.as_os_str(),
            dst.as_os_str(),
            "--once".as_ref(),
        ];
        words.extend(more.iter().map(OsStr::new));
        self.run(&words)
    }
}

fn names_in(directory: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.as_bytes().starts_with(b".driftless"))
        .collect();
    names.sort();
    names
}

/// The bytes that an escaped text stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let (byte, taken) = match rest[0] {
            b'x' => (
                u8::from_str_radix(std::str::from_utf8(&rest[1..3]).unwrap(), 16).unwrap(),
                3,
            ),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            other => (other, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    bytes
}

#[test]
fn s13_names_are_escaped_wherever_they_are_told() {
    let scene = Scene::new();
    let (status, text) = scene.mirror(&["--json", "-v"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(
        names_in(&scene.path("src")),
        names_in(&scene.path("dst")),
        "not the same bytes"
    );
    for line in text.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "no JSON: {line}");
    }
    let (status, text) = scene.mirror(&[]);
    assert_eq!(status, Some(0), "{text}");
    // As lines for people, each change in one.
    for name in NAMES {
        fs::write(scene.path("src").join(OsStr::from_bytes(name)), "other").unwrap();
    }
    let (status, _) = scene.mirror(&[]);
    assert_eq!(status, Some(0));
}

#[test]
fn s13_differences_name_the_very_bytes() {
    let scene = Scene::new();
    assert_eq!(scene.mirror(&[]).0, Some(0));
    for name in NAMES {
        fs::write(scene.path("dst").join(OsStr::from_bytes(name)), "edited").unwrap();
    }
    let (src, dst) = (scene.path("src"), scene.path("dst"));
    let words = ["verify".as_ref(), src.as_os_str(), dst.as_os_str()];
    let (status, text) = scene.run(&words);
    assert_eq!(status, Some(4), "{text}");
    let (status, json) = scene.run(&[&words[..], &["--json".as_ref()]].concat());
    assert_eq!(status, Some(4));
    let mut found: Vec<Vec<u8>> = Vec::new();
    for value in serde_json::Deserializer::from_str(&json).into_iter::<serde_json::Value>() {
        collect_paths(&value.expect("valid JSON"), &mut found);
    }
    for name in NAMES {
        assert!(
            found.iter().any(|path| path == name),
            "{} is not in {json}",
            name.escape_ascii()
        );
    }
}

fn collect_paths(value: &serde_json::Value, found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if key == "path" => found.push(unescaped(text)),
                    _ => collect_paths(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_paths(value, found)),
        _ => {}
    }
}

/// Errors about names, paths and words of the command line.
#[test]
fn s13_errors_escape_what_they_repeat() {
    let scene = Scene::new();
    for name in NAMES.iter().filter(|name| !name.starts_with(b"-")) {
        let name = OsString::from_vec(name.to_vec());
        let missing = scene.path("nowhere").join(&name);
        for words in [
            &["mirror".as_ref(), missing.as_os_str(), "dst".as_ref()][..],
            &[
                "mirror".as_ref(),
                "src".as_ref(),
                missing.as_os_str(),
                "--once".as_ref(),
            ],
            &["receive".as_ref(), missing.as_os_str()],
            &["peers".as_ref(), "remove".as_ref(), name.as_os_str()],
            &["send".as_ref(), "src".as_ref(), name.as_os_str()],
            &[
                "approve".as_ref(),
                name.as_os_str(),
                "--deletes".as_ref(),
                "1".as_ref(),
            ],
        ] {
            let (status, _) = scene.run(words);
            assert!(matches!(status, Some(1 | 2)), "{words:?}");
        }
    }
    // What cannot be read is told with its name.
    let odd = scene.path("src").join(OsStr::from_bytes(NAMES[0]));
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o000)).unwrap();
    scene.mirror(&["--json"]);
}
