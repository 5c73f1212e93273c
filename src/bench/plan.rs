//! What a bench is asked to do.

use super::link::Link;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The link.
    pub link: Link,
    /// Names of scenarios; empty for all.
    pub scenarios: Vec<String>,
    /// Bytes of a corpus.
    pub size: u64,
    /// Rounds.
    pub runs: u64,
    /// A tree to use in place of the source-like one.
    pub tree: Option<PathBuf>,
    /// Seed of all corpora.
    pub seed: u64,
    /// Fewer variants of rsync.
    pub quick: bool,
    /// TCP congestion controls of rsync on an emulated link: the first for all variants, further ones for some more.
    pub tcp: Vec<String>,
    /// What the page cache holds when a run begins.
    pub cache: Cache,
    /// What the copies are on.
    pub target_fs: TargetFs,
    /// A running receiver to use in place of one of our own.
    pub remote: Option<Remote>,
}

impl Plan {
    /// Rounds of live scenarios: one in a quick run that did not ask for them.
    #[must_use]
    pub fn live_runs(&self) -> u64 {
        if self.quick && self.scenarios.is_empty() {
            1
        } else {
            self.runs
        }
    }

    /// Between what the runs take place, in words.
    #[must_use]
    pub fn link_name(&self) -> String {
        match &self.remote {
            Some(remote) => format!("to {}", remote.target.to_string_lossy()),
            None => self.link.to_string(),
        }
    }
}

/// A real pair of machines.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The receiver, as `seed` takes it.
    pub target: OsString,
    /// The directory below which rsync puts its copy, as rsync takes it.
    pub rsync: Option<String>,
}

/// What the page cache holds when a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Source and copies, as the step before left them there.
    Warm,
    /// As little as possible.
    Cold,
}

/// What the copies are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetFs {
    /// A directory beside the source.
    Dir,
    /// Memory.
    Tmpfs,
    /// A new ext4 in a file.
    Ext4,
    /// A new xfs in a file.
    Xfs,
    /// A new btrfs in a file.
    Btrfs,
}

impl TargetFs {
    const ALL: [TargetFs; 5] = [
        TargetFs::Dir,
        TargetFs::Tmpfs,
        TargetFs::Ext4,
        TargetFs::Xfs,
        TargetFs::Btrfs,
    ];

    /// The word for it, which is also the kernel's for all but the directory.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TargetFs::Dir => "dir",
            TargetFs::Tmpfs => "tmpfs",
            TargetFs::Ext4 => "ext4",
            TargetFs::Xfs => "xfs",
            TargetFs::Btrfs => "btrfs",
        }
    }
}

impl fmt::Display for TargetFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TargetFs {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetFs, String> {
        let found = TargetFs::ALL.into_iter().find(|fs| fs.name() == text);
        found.ok_or_else(|| "known are dir, tmpfs, ext4, xfs and btrfs".to_owned())
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        })
    }
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Cache, String> {
        match text {
            "warm" => Ok(Cache::Warm),
            "cold" => Ok(Cache::Cold),
            _ => Err("known are warm and cold".to_owned()),
        }
    }
}
