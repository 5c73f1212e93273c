//! Looking before leaping: what a dry run announces is what the run then does, in the letters of rsync, and nothing but the run
//! itself changes anything. With the real program; the judges are rsync and a comparison of our own.

#[path = "../support/mod.rs"]
mod support;

mod appearance;
mod compare;
mod dry_run;
mod keeping;
mod live;
mod out_format;
mod pairs;
mod rsync;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Two trees and a home.
pub(crate) struct Desk {
    directory: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Desk {
        let desk = Desk {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["src", "dst", "home"] {
            fs::create_dir(desk.path(name)).unwrap();
        }
        fs::set_permissions(desk.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .current_dir(self.directory.path())
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .args(words);
        finish(command)
    }

    /// `mirror` from `src` to `dst`, with these options.
    pub(crate) fn mirror(&self, options: &[&str]) -> Ended {
        let words = [&["mirror", "src", "dst", "--delete", "always"], options].concat();
        self.run(&words)
    }

    /// Itemized lines of a mirror run that must succeed.
    #[track_caller]
    pub(crate) fn items(&self, options: &[&str]) -> Vec<String> {
        let ended = self.mirror(options);
        assert_eq!(ended.status, Some(0), "{ended:#?}");
        items(&ended.out)
    }
}

pub(crate) fn finish(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The itemized ones of some lines.
pub(crate) fn items(text: &str) -> Vec<String> {
    let is_item = |line: &&str| {
        let letters = line.as_bytes();
        line.starts_with("*deleting")
            || (letters.len() > 12
                && b"<>ch.".contains(&letters[0])
                && b"fdLDS".contains(&letters[1])
                && letters[11] == b' ')
    };
    text.lines().filter(is_item).map(str::to_owned).collect()
}

/// Whether another program is there; a test that needs it says that it is left out otherwise.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        support::skip(&format!("there is no {program}"));
    }
    found
}

/// `rsync`, in a UTF-8 locale, between the trees of a desk.
pub(crate) fn rsync(desk: &Desk, options: &[&str]) -> Vec<String> {
    let mut command = Command::new("rsync");
    command
        .current_dir(desk.directory.path())
        .env("LC_ALL", "C.UTF-8")
        .args(options)
        .args([OsStr::new("src/"), OsStr::new("dst/")]);
    let ended = finish(command);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    ended.out.lines().map(str::to_owned).collect()
}
