//! Where driftless keeps identity, trust, state and sockets.
//!
//! | | `$DRIFTLESS_HOME` is set | root | any other user |
//! | --- | --- | --- | --- |
//! | configuration: `identity/`, `peers.toml`, `driftless.toml` | `$DRIFTLESS_HOME` | `/etc/driftless` | `$XDG_CONFIG_HOME/driftless` |
//! | state: `invites/`, `.driftless-state/` | `$DRIFTLESS_HOME` | `/var/lib/driftless` | `$XDG_STATE_HOME/driftless` |
//! | control sockets | `$DRIFTLESS_HOME/run` | `/run/driftless` | `$XDG_RUNTIME_DIR/driftless` |
//!
//! Unset XDG variables stand for `~/.config`, `~/.local/state` and `run` below the state. The databases live below a
//! directory whose name begins with `.driftless`, which no mirror ever sends: somebody who mirrors his whole home
//! directory would otherwise send each write of the database, which makes the next one, for ever.
//!
//! A home belongs to one user. That of another user is refused even for root, whose new files in it the owner could
//! neither read nor replace. Directories are made when asked for, with mode 0700; that they cannot be made is left to
//! whoever uses them to report, with the path.

use driftless_protocol::{RelPath, name};
use rustix::process::geteuid;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The variable that moves everything.
pub const HOME_VARIABLE: &str = "DRIFTLESS_HOME";

/// Begins with [`name::RESERVED_PREFIX`], so it is never sent.
const STATE_DIR: &str = ".driftless-state";

/// The longest readable part in the name of a mirror's or module's directory, in bytes.
const READABLE_BYTES: usize = 60;

/// The places that belong to one user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    state: PathBuf,
    run: PathBuf,
    /// Where processes of this home with another environment may have put their sockets.
    other_runs: Vec<PathBuf>,
}

/// Why there is no home.
#[derive(Debug, Error)]
pub enum HomeError {
    /// Nothing says where it is.
    #[error(
        "cannot find a home for driftless: neither DRIFTLESS_HOME nor HOME is set (set DRIFTLESS_HOME to a directory of your own)"
    )]
    Unset,
    /// It belongs to somebody else.
    #[error("refusing the home {}: it belongs to user {owner}, but this process runs as user {user}{} (run driftless as \
        its owner, or set DRIFTLESS_HOME to a directory of your own)", shown(.path), note(*.user))]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// The numeric id of its owner.
        owner: u32,
        /// The effective user id of this process.
        user: u32,
    },
    /// It is something else.
    #[error("cannot use the home {}: it is not a directory (move it away, or set DRIFTLESS_HOME)", shown(.path))]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be looked at.
    #[error("cannot use the home {}: {cause} (check DRIFTLESS_HOME and who may enter that directory)", shown(.path))]
    Io {
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

fn note(user: u32) -> &'static str {
    if user == 0 {
        "; root may not use another user's home, because files in it would become root's"
    } else {
        ""
    }
}

impl Home {
    /// The home of this process, by its environment and its user.
    pub fn discover() -> Result<Home, HomeError> {
        let user = geteuid().as_raw();
        let home = Home::from_environment(&|variable| std::env::var_os(variable), user)?;
        home.check_owner(user)?;
        Ok(home)
    }

    /// Everything below one directory, as with `$DRIFTLESS_HOME`.
    pub fn at(path: impl Into<PathBuf>) -> Home {
        let path = path.into();
        Home {
            run: path.join("run"),
            state: path.clone(),
            config: path,
            other_runs: Vec::new(),
        }
    }

    fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>, user: u32) -> Result<Home, HomeError> {
        let set = |name: &str| {
            variable(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        if let Some(path) = set(HOME_VARIABLE) {
            let path = std::path::absolute(&path).map_err(|cause| HomeError::Io { path, cause })?;
            return Ok(Home::at(path));
        }
        if user == 0 {
            return Ok(Home {
                config: "/etc/driftless".into(),
                state: "/var/lib/driftless".into(),
                run: "/run/driftless".into(),
                other_runs: Vec::new(),
            });
        }
        // A relative path in an XDG variable is to be ignored, says the specification.
        let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
        let below_home = |rest: &str| {
            absolute("HOME")
                .map(|home| home.join(rest))
                .ok_or(HomeError::Unset)
        };
        let config = absolute("XDG_CONFIG_HOME")
            .map_or_else(|| below_home(".config"), Ok)?
            .join("driftless");
        let state = absolute("XDG_STATE_HOME")
            .map_or_else(|| below_home(".local/state"), Ok)?
            .join("driftless");
        // A daemon started by cron has no XDG_RUNTIME_DIR, the shell that asks for its status has.
        let mut runs = vec![
            state.join("run"),
            PathBuf::from(format!("/run/user/{user}/driftless")),
        ];
        let run = absolute("XDG_RUNTIME_DIR").map_or_else(|| runs[0].clone(), |path| path.join("driftless"));
        runs.retain(|other| *other != run);
        Ok(Home {
            config,
            state,
            run,
            other_runs: runs,
        })
    }

    fn check_owner(&self, user: u32) -> Result<(), HomeError> {
        for path in [&self.config, &self.state, &self.run] {
            let found = match fs::metadata(path) {
                Ok(found) => found,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => {
                    return Err(HomeError::Io {
                        path: path.clone(),
                        cause,
                    });
                }
            };
            if found.uid() != user {
                return Err(HomeError::ForeignOwner {
                    path: path.clone(),
                    owner: found.uid(),
                    user,
                });
            }
            if !found.is_dir() {
                return Err(HomeError::NotADirectory { path: path.clone() });
            }
        }
        Ok(())
    }

    /// Where the key is kept.
    pub fn identity_dir(&self) -> PathBuf {
        self.config.join("identity")
    }

    /// The configuration of `driftless daemon`.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("driftless.toml")
    }

    /// The trust store.
    pub fn peers_file(&self) -> PathBuf {
        made(self.config.clone()).join("peers.toml")
    }

    /// Pending invites.
    pub fn invites_dir(&self) -> PathBuf {
        self.state.join("invites")
    }

    /// Where this process puts its control socket.
    pub fn run_dir(&self) -> PathBuf {
        made(self.run.clone())
    }

    /// Every directory that processes of this home write to, made and by canonical paths.
    pub fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let all = [&self.config, &self.state, &self.run];
        all.into_iter()
            .map(|path| made(path.clone()).canonicalize())
            .collect()
    }

    /// Where control sockets of this home's processes may be; none of it needs to exist.
    pub fn run_dirs(&self) -> Vec<PathBuf> {
        std::iter::once(&self.run)
            .chain(&self.other_runs)
            .cloned()
            .collect()
    }

    /// The state of one mirror on the sender; see [`Home::mirror_key`].
    pub fn mirror_dir(&self, key: &str) -> PathBuf {
        made(self.mirror_place(key))
    }

    /// Where that would be; nothing is made.
    pub fn mirror_place(&self, key: &str) -> PathBuf {
        self.state
            .join(STATE_DIR)
            .join("mirrors")
            .join(directory_name(key))
    }

    /// What tells one mirror from all others: the source's canonical path and the target as it is displayed.
    pub fn mirror_key(source: &Path, target: &str) -> String {
        // No line end survives the escaping, so two different pairs never give the same key.
        format!("{}\n{target}", shown(source))
    }

    /// The state of one module path on the receiver.
    pub fn module_dir(&self, module: &str, path: &RelPath) -> PathBuf {
        made(self.module_place(module, path))
    }

    /// Where that would be; nothing is made.
    pub fn module_place(&self, module: &str, path: &RelPath) -> PathBuf {
        let key = if path.is_root() {
            module.to_owned()
        } else {
            format!("{module}\n{path}")
        };
        self.state
            .join(STATE_DIR)
            .join("modules")
            .join(directory_name(&key))
    }

    /// The states of all module paths.
    pub fn module_dirs(&self) -> Vec<PathBuf> {
        self.states("modules")
    }

    /// The states of all mirrors.
    pub fn mirror_dirs(&self) -> Vec<PathBuf> {
        self.states("mirrors")
    }

    fn states(&self, of: &str) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.state.join(STATE_DIR).join(of));
        let found = found.into_iter().flatten();
        found.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// Where it is, in one word for messages.
    pub fn location(&self) -> &Path {
        &self.config
    }
}

/// The location, escaped.
impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        name::escape(self.config.as_os_str().as_bytes(), f)
    }
}

/// A directory name that people recognise and that no two keys share.
fn directory_name(key: &str) -> String {
    let hash = blake3::derive_key(
        "driftless 2026-01 directory of a mirror or module v1",
        key.as_bytes(),
    );
    let hash = data_encoding::HEXLOWER.encode(&hash[..8]);
    // The end says more than the beginning, which is often the same for all.
    let tail = key.len().saturating_sub(READABLE_BYTES);
    let from = (tail..=key.len())
        .find(|&at| key.is_char_boundary(at))
        .unwrap_or(0);
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') {
            c
        } else {
            '-'
        }
    };
    let readable: String = key[from..].chars().map(plain).collect();
    match readable.trim_matches(['-', '.']) {
        "" => hash,
        readable => format!("{readable}-{hash}"),
    }
}

/// The directory, made if it can be.
fn made(path: PathBuf) -> PathBuf {
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&path) {
        tracing::debug!(path = %path.display(), "cannot make a directory of the home: {error}");
    }
    path
}

fn shown(path: &Path) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = name::escape(path.as_os_str().as_bytes(), &mut text);
    text
}

#[cfg(test)]
mod tests;
