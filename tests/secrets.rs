//! What is said about files that are wrong: where and what, and never what stands in them. Somebody may have named a file of
//! passwords, or a key.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Part of everything that must not be told.
const SECRET: &str = "hunter2";

struct Desk {
    directory: TempDir,
}

struct Ended {
    status: Option<i32>,
    text: String,
}

impl Desk {
    fn new() -> Desk {
        let desk = Desk {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["home", "src/sub", "dst"] {
            fs::create_dir_all(desk.path(name)).unwrap();
        }
        fs::set_permissions(desk.path("home"), Permissions::from_mode(0o700)).unwrap();
        fs::write(desk.path("src/sub/file"), "file").unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_driftless"))
            .args(arguments)
            .env("DRIFTLESS_HOME", self.path("home"))
            .env("HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains(SECRET), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
        Ended {
            status: output.status.code(),
            text,
        }
    }

    fn mirror(&self, option: &str) -> Ended {
        self.run(&["mirror", "--once", option, "src", "dst"])
    }
}

impl Ended {
    #[track_caller]
    fn says(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, Some(status), "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "no {word:?} in {}", self.text);
        }
    }
}

/// What somebody may have given by mistake.
const FILES: [(&str, &str); 5] = [
    ("shadow", "root:$6$hunter2:19000:0:99999:7:::\n"),
    (
        "key",
        "-----BEGIN PRIVATE KEY-----\nhunter2hunter2\n-----END PRIVATE KEY-----\n",
    ),
    ("words", "hunter2 hunter2\n"),
    ("my.cnf", "user = root\npassword: 'hunter2'\n"),
    ("open", "# nothing\nvalue = [ 'hunter2'\n"),
];

#[test]
fn a_file_of_rules_is_named_with_its_line() {
    let desk = Desk::new();
    for (name, content) in FILES {
        desk.write(name, content);
        let merged = desk.mirror(&format!("--filter=. {name}"));
        merged.says(2, &[name, "line "]);
        // Every line is a pattern or a path here, so there is nothing to complain of, nor to tell.
        for option in ["--exclude-from", "--include-from"] {
            desk.mirror(&format!("{option}={name}")).says(0, &[]);
        }
    }
    desk.write("list", "file\n\n../hunter2\n");
    desk.mirror("--files-from=list").says(2, &["list, line 3"]);
    desk.write("rules", "- ok\nmerge hunter2\n");
    desk.mirror("--filter=. rules").says(2, &["rules, line 2"]);
    desk.write("long", &format!("ok\n{}\n", SECRET.repeat(1_000)));
    desk.mirror("--exclude-from=long").says(2, &["long, line 2"]);
    assert!(desk.path("dst").read_dir().unwrap().all(|entry| {
        let name = entry.unwrap().file_name();
        name == "sub" || name.to_string_lossy().starts_with(".driftless")
    }));
}

#[test]
fn a_rule_file_in_the_tree_is_named_with_its_line() {
    let desk = Desk::new();
    for (option, name, content) in [
        ("-F", ".rsync-filter", "- ok\nhunter2 hunter2\n"),
        ("--gitignore", ".gitignore", "ok\nhunter2[z-a]\n"),
        ("--filter=: .rules", ".rules", "# hunter2\nmerge hunter2\n"),
    ] {
        desk.write(&format!("src/sub/{name}"), content);
        desk.mirror(option).says(3, &[&format!("sub/{name}, line 2")]);
        fs::rename(desk.path(&format!("src/sub/{name}")), desk.path("src").join(name)).unwrap();
        desk.mirror(option)
            .says(1, &[&format!("{name}, line 2"), "nothing deleted"]);
        fs::remove_file(desk.path("src").join(name)).unwrap();
    }
}

#[test]
fn configurations_are_named_with_their_lines() {
    let desk = Desk::new();
    for (name, content) in FILES {
        desk.write(name, content);
        for command in [&["config", "check"][..], &["config", "show"], &["daemon"]] {
            let ended = desk.run(&[command, &["--config", name]].concat());
            ended.says(2, &[&format!("{name}:"), "not TOML"]);
        }
        desk.run(&["import-lsyncd", name])
            .says(2, &[&format!("{name}:"), "not Lua"]);
    }
    // Of a value that a key does not take, the place is told.
    desk.write("good", "[settings]\n\nport = 'hunter2'\n");
    desk.run(&["config", "check", "--config", "good"])
        .says(2, &["good:3", "port"]);
}

#[test]
fn files_of_the_home_are_named_and_not_told() {
    let desk = Desk::new();
    desk.run(&["id"]).says(0, &[]);
    for content in [
        "hunter2",
        "[[peer]]\nname = 'hunter2'\nhunter2 = 1\n",
        "\nhunter2 = 'hunter2\n",
    ] {
        desk.write("home/peers.toml", content);
        desk.run(&["peers", "list"]).says(2, &["peers.toml", "line "]);
    }
    desk.write("home/identity/identity.key", "hunter2hunter2");
    desk.run(&["id"]).says(2, &["identity.key"]);
}
