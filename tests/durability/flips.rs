//! A source that has two states, and goes from the one to the other by every kind of operation: forty of them.

use crate::support::churn::{exchange, fifo};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Beyond what travels inside an op: it is offered and comes in ranges.
const LARGE: usize = 300_000;

/// The source and the state that it is in.
pub struct Flips {
    root: PathBuf,
    turn: usize,
}

/// The content of a version of a file: noise that fits to nothing else, after a beginning that all versions share.
pub fn content(name: &str, version: usize, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    let (stable, changing) = out.split_at_mut(size / 2);
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(stable);
    blake3::Hasher::new()
        .update(format!("{name} {version}").as_bytes())
        .finalize_xof()
        .fill(changing);
    out
}

impl Flips {
    /// Makes the first state.
    pub fn new(root: PathBuf) -> Flips {
        let flips = Flips { root, turn: 0 };
        for directory in ["a/inner", "b", "moved/deep", "x", "gone-0/deep"] {
            fs::create_dir_all(flips.at(directory)).unwrap();
        }
        for n in 0..6 {
            flips.put(&format!("a/small-{n}"), 900 + n);
            flips.put(&format!("b/keep-{n}"), 2_000);
        }
        for name in ["a/large", "b/delta"] {
            flips.put(name, LARGE);
        }
        for name in ["moved/deep/file", "x/one", "x/two", "wanders", "kind"] {
            flips.put(name, 1_500);
        }
        flips.put("gone-0/deep/file", 4_000);
        flips.put("gone-0/file", 4_000);
        symlink("a/small-0", flips.at("link")).unwrap();
        fs::hard_link(flips.at("b/keep-0"), flips.at("b/second")).unwrap();
        fifo(&flips.at("fifo-0"));
        flips
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn put(&self, name: &str, size: usize) {
        fs::write(self.at(name), content(name, self.turn, size)).unwrap();
    }

    /// Saves as an editor does.
    fn save(&self, name: &str, size: usize) {
        let aside = self.at(&format!("{name}.new"));
        fs::write(&aside, content(name, self.turn, size)).unwrap();
        fs::rename(aside, self.at(name)).unwrap();
    }

    /// Goes to the other state.
    pub fn flip(&mut self) {
        let before = self.turn;
        self.turn += 1;
        let (was, is) = (before % 2, self.turn % 2);
        for n in 0..6 {
            match n % 3 {
                0 => self.put(&format!("a/small-{n}"), 900 + 70 * n),
                1 => self.save(&format!("a/small-{n}"), 1_100),
                _ => self.set_mode(&format!("a/small-{n}"), [0o644, 0o600][is]),
            }
        }
        self.put("a/large", LARGE + self.turn % 5);
        self.put("b/delta", LARGE);
        self.put("b/keep-0", 2_000);
        // Names: a file, a directory with what is in it, two that change places, one over another.
        fs::rename(
            self.at(["wanders", "b/wanders"][was]),
            self.at(["wanders", "b/wanders"][is]),
        )
        .unwrap();
        fs::rename(
            self.at(["moved", "a/moved"][was]),
            self.at(["moved", "a/moved"][is]),
        )
        .unwrap();
        exchange(&self.at("x/one"), &self.at("x/two"));
        self.put("b/over", 3_000);
        fs::rename(self.at("b/over"), self.at("b/keep-1")).unwrap();
        // Kinds.
        self.change_kind("kind", is);
        fs::remove_file(self.at("link")).unwrap();
        symlink(["a/small-0", "b"][is], self.at("link")).unwrap();
        fs::remove_file(self.at(&format!("fifo-{was}"))).unwrap();
        fifo(&self.at(&format!("fifo-{is}")));
        // What comes and what goes.
        fs::remove_dir_all(self.at(&format!("gone-{was}"))).unwrap();
        fs::create_dir_all(self.at(&format!("gone-{is}/deep"))).unwrap();
        self.put(&format!("gone-{is}/file"), 4_000);
        self.put(&format!("gone-{is}/deep/file"), 70_000);
        let _ = fs::remove_file(self.at(&format!("b/new-{was}")));
        self.put(&format!("b/new-{is}"), 500);
        match is {
            0 => fs::hard_link(self.at("b/keep-0"), self.at("b/second")).unwrap(),
            _ => fs::remove_file(self.at("b/second")).unwrap(),
        }
        self.set_mode("x", [0o755, 0o700][is]);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    /// A file becomes a directory with something in it, or the other way round.
    fn change_kind(&self, name: &str, is: usize) {
        let path = self.at(name);
        remove(&path);
        if is == 0 {
            self.put(name, 1_500);
        } else {
            fs::create_dir(&path).unwrap();
            self.put(&format!("{name}/inside"), 800);
        }
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}
