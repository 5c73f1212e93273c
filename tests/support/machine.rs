//! A machine for the real program: a folder with a home of its own, where command lines are run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A home and two empty trees, `src` and `dst`.
pub struct Machine {
    directory: TempDir,
}

impl Machine {
    pub fn new() -> Machine {
        let machine = Machine {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["src", "dst", "home"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        fs::set_permissions(machine.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
        machine
    }

    /// Where command lines are run.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file, below directories that are made if they are missing.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .args(line.split_whitespace())
            .env("DRIFTLESS_HOME", self.path("home"))
            .env_remove("RUST_LOG")
            .current_dir(self.root())
            .stdin(Stdio::null());
        command
    }

    /// Status, and all that was said.
    pub fn run(&self, line: &str) -> (Option<i32>, String) {
        let ended = self.command(line).output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8(said).unwrap())
    }

    #[track_caller]
    pub fn succeeds(&self, line: &str) -> String {
        let (status, said) = self.run(line);
        assert_eq!(status, Some(0), "{line}: {said}");
        said
    }

    /// The command line is refused as wrong, in these words.
    #[track_caller]
    pub fn is_usage(&self, line: &str, words: &[&str]) {
        let (status, said) = self.run(line);
        assert_eq!(status, Some(2), "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: no {word:?} in {said}");
        }
    }
}
