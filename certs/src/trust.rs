//! Which peers may do what: `peers.toml`.
//!
//! ```toml
//! [[peer]]
//! name = "laptop"
//! fingerprint = "v4jutopv7gq2nicajxvdnxgjjgn4wjojvxarfn6mtkj4vza7gjra"
//! modules = [                 # what it may use; "*" is every module that is not named
//!     "photos",               # with all rights
//!     { module = "music", rights = ["push", "no-devices"] },
//! ]
//! added = 1767225600          # unix seconds
//! expires = 1769817600        # optional: from then on it is refused
//! address = "nas.lan:4873"    # optional: where it can be reached, if it is a receiver
//! ```
//!
//! The file may be edited by hand, but is written anew on every change, without comments. Keys that are not listed here
//! are errors: a mistyped `expires` must not become a right without end.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::faults::toml_fault;
use crate::files::{self, Access, FileError, LockedDir};
use crate::fingerprint::Fingerprint;
use crate::names::{self, NameError};
use crate::rights::{Grant, Right, Rights};

/// Room for some thousands of peers.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

const HEADER: &str =
    "# Peers this machine knows. Written by driftless: comments do not survive the next pairing.\n";

/// A peer in the trust store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// What the owner of this machine calls it; no two peers have the same name.
    pub name: String,
    /// The hash of its public key.
    pub fingerprint: Fingerprint,
    /// The modules it may use, and how; nothing is none.
    pub modules: Vec<Grant>,
    /// When it was added, in unix seconds.
    pub added: u64,
    /// From when on it is refused, in unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Where it can be reached as `host:port`, if it is a receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Peer {
    fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// What it may do in a module: by that module's own grant, or by that of all modules.
    pub fn rights_in(&self, module: &str) -> Option<Rights> {
        let said = || self.modules.iter().filter(|grant| grant.rights.is_for_modules());
        let own = said().find(|grant| grant.module == module && !grant.is_for_all());
        own.or_else(|| said().find(|grant| grant.is_for_all()))
            .map(|grant| grant.rights)
    }

    /// Whether it may pull the tree of a name now.
    pub fn may_pull(&self, tree: &str, now: SystemTime) -> bool {
        let is_named = |grant: &Grant| grant.module == tree || grant.is_for_all();
        let pulls = |grant: &Grant| grant.rights.has(Right::Pull) && is_named(grant);
        !self.has_expired(unix_seconds(now)) && self.modules.iter().any(pulls)
    }

    /// Whether there is any tree that it may pull now.
    pub fn may_pull_any(&self, now: SystemTime) -> bool {
        let pulls = |grant: &Grant| grant.rights.has(Right::Pull);
        !self.has_expired(unix_seconds(now)) && self.modules.iter().any(pulls)
    }

    /// Whether something is said here about all that a grant is about: its module, its tree, or both.
    fn covers(&self, other: &Grant) -> bool {
        let said = || {
            self.modules
                .iter()
                .filter(|grant| grant.is_for_all() || grant.module == other.module)
        };
        (!other.rights.is_for_modules() || said().any(|grant| grant.rights.is_for_modules()))
            && (!other.rights.has(Right::Pull) || said().any(|grant| grant.rights.has(Right::Pull)))
    }

    /// Takes over what a newer entry for the same key says; see [`TrustStore::add`].
    fn merge(&mut self, newer: Peer) {
        if self.has_expired(newer.added) {
            // Its rights are over, so they are not what the owner is adding to now.
            self.modules = newer.modules;
            self.expires = newer.expires;
        } else {
            let covers_all = self.modules.iter().all(|grant| newer.covers(grant));
            self.expires = match (self.expires, newer.expires) {
                // The newer entry speaks about everything the peer may do, so it says until when.
                _ if covers_all => newer.expires,
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            // What is said last of a module counts.
            self.modules.splice(0..0, newer.modules);
        }
        if newer.address.is_some() {
            self.address = newer.address;
        }
        self.tidy();
    }

    /// One grant a name, in order, of the first that is said of its module and of its tree; none that only repeats that of all.
    fn tidy(&mut self) {
        self.modules.sort_by(|a, b| a.module.cmp(&b.module));
        self.modules.dedup_by(|later, first| {
            let is_same = later.module == first.module;
            if is_same {
                first.rights = first.rights.completed_by(later.rights);
            }
            is_same
        });
        if let Some(rights) = self
            .modules
            .iter()
            .find(|grant| grant.is_for_all())
            .map(|grant| grant.rights)
        {
            self.modules
                .retain(|grant| grant.is_for_all() || grant.rights != rights);
        }
    }
}

/// The content of the file.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default, rename = "peer")]
    peers: Vec<Peer>,
}

/// The peers this machine knows, as read from `peers.toml` by [`TrustStore::open`].
///
/// A value shows the file as it was when it was opened, or after its own last change. Open it again to see the changes
/// of other processes; [`add`](TrustStore::add) and [`remove`](TrustStore::remove) do so themselves, under a lock, and
/// so never undo each other.
#[derive(Debug)]
pub struct TrustStore {
    path: PathBuf,
    peers: Vec<Peer>,
}

impl TrustStore {
    /// Reads the file; one that is missing has no peers. A file that others could have written is refused.
    pub fn open(path: &Path) -> Result<TrustStore, TrustError> {
        Ok(TrustStore {
            path: path.to_owned(),
            peers: read(path)?,
        })
    }

    /// The peers, in the order they were added.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer with a fingerprint.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.fingerprint == *fingerprint)
    }

    /// The peer with a name, or with a fingerprint given as text.
    pub fn find_by_text(&self, name_or_fingerprint: &str) -> Option<&Peer> {
        position(&self.peers, name_or_fingerprint).map(|index| &self.peers[index])
    }

    /// `wanted` if no peer is called so, or else `wanted-2`, `wanted-3` and so on: for names that a program proposes.
    pub fn free_name(&self, wanted: &str) -> String {
        let is_free = |name: &str| self.peers.iter().all(|peer| peer.name != name);
        if is_free(wanted) {
            return wanted.to_owned();
        }
        // One more number than there are peers: one is free.
        (2..=self.peers.len() + 2)
            .map(|n| format!("{wanted}-{n}"))
            .find(|name| is_free(name))
            .unwrap_or_default()
    }

    /// Adds a peer and saves the file; gives the entry as it is now.
    ///
    /// If its fingerprint is there already, the entry keeps its name and date and gains the modules, and for a module
    /// that it had the new rights count; a new address replaces the old one. An expiry never moves so that some module is open for longer than was ever said: if the
    /// new entry names all modules of the present one, its expiry counts; if not, the earlier of both; and an entry
    /// that had expired by the time the new one was `added` gives up its modules.
    pub fn add(&mut self, mut peer: Peer) -> Result<Peer, TrustError> {
        peer.tidy();
        check(&peer).map_err(|fault| self.refused(fault))?;
        self.change(|peers| {
            let fingerprint = peer.fingerprint;
            if let Some(present) = peers
                .iter_mut()
                .find(|present| present.fingerprint == fingerprint)
            {
                present.merge(peer);
                return Ok(present.clone());
            }
            if let Some(namesake) = peers.iter().find(|present| present.name == peer.name) {
                return Err(EntryFault::SameName {
                    name: namesake.name.clone(),
                    fingerprint: namesake.fingerprint,
                });
            }
            peers.push(peer.clone());
            Ok(peer)
        })
    }

    /// Removes the peer with a name or a fingerprint and saves the file; `None` if there is no such peer.
    pub fn remove(&mut self, name_or_fingerprint: &str) -> Result<Option<Peer>, TrustError> {
        self.change(|peers| Ok(position(peers, name_or_fingerprint).map(|index| peers.remove(index))))
    }

    /// What a peer may do in a module now.
    ///
    /// The refusal is for the log and the owner of this machine. Tell a stranger nothing of it, or it learns which
    /// modules there are.
    pub fn allows(
        &self,
        fingerprint: &Fingerprint,
        module: &str,
        now: SystemTime,
    ) -> Result<Rights, Refusal> {
        let peer = self.find(fingerprint).ok_or(Refusal::Unknown {
            fingerprint: *fingerprint,
        })?;
        if peer.has_expired(unix_seconds(now)) {
            return Err(Refusal::Expired {
                name: peer.name.clone(),
                expires: peer.expires.unwrap_or_default(),
            });
        }
        peer.rights_in(module).ok_or_else(|| Refusal::NotForModule {
            name: peer.name.clone(),
            module: module.to_owned(),
        })
    }

    /// Reads the file as it is now, changes it and writes it, with no other process in between.
    fn change<T>(
        &mut self,
        edit: impl FnOnce(&mut Vec<Peer>) -> Result<T, EntryFault>,
    ) -> Result<T, TrustError> {
        let (dir, name) = split(&self.path)?;
        let locked = LockedDir::lock(dir)?;
        let before = read(&self.path)?;
        let mut peers = before.clone();
        let result = edit(&mut peers).map_err(|fault| self.refused(fault))?;
        if peers != before {
            let contents = Contents { peers };
            let text = toml::to_string(&contents).map_err(|cause| TrustError::Encode {
                path: self.path.clone(),
                cause: cause.to_string(),
            })?;
            locked.write(name, 0o600, format!("{HEADER}\n{text}").as_bytes())?;
            self.peers = contents.peers;
        } else {
            self.peers = before;
        }
        Ok(result)
    }

    fn refused(&self, fault: EntryFault) -> TrustError {
        TrustError::Refused {
            path: self.path.clone(),
            fault,
        }
    }
}

fn position(peers: &[Peer], name_or_fingerprint: &str) -> Option<usize> {
    // No name parses as a fingerprint (see `check`), so at most one of the two can match.
    let fingerprint = name_or_fingerprint.parse::<Fingerprint>().ok();
    peers
        .iter()
        .position(|peer| peer.name == name_or_fingerprint || Some(peer.fingerprint) == fingerprint)
}

fn split(path: &Path) -> Result<(&Path, &str), TrustError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| TrustError::BadPath {
        path: path.to_owned(),
    })?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok((dir, name))
}

fn read(path: &Path) -> Result<Vec<Peer>, TrustError> {
    let Some(bytes) = files::read(path, Access::Guarded, MAX_FILE_BYTES)? else {
        return Ok(Vec::new());
    };
    let wrong = |cause: String| TrustError::Syntax {
        path: path.to_owned(),
        cause,
    };
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    let contents: Contents = toml::from_str(&text).map_err(|cause| wrong(toml_fault(&text, &cause)))?;
    for (index, peer) in contents.peers.iter().enumerate() {
        let earlier = &contents.peers[..index];
        let fault = if let Err(fault) = check(peer) {
            fault
        } else if earlier.iter().any(|other| other.fingerprint == peer.fingerprint) {
            EntryFault::SameFingerprint {
                fingerprint: peer.fingerprint,
            }
        } else if let Some(namesake) = earlier.iter().find(|other| other.name == peer.name) {
            EntryFault::SameName {
                name: peer.name.clone(),
                fingerprint: namesake.fingerprint,
            }
        } else {
            continue;
        };
        return Err(TrustError::Entry {
            path: path.to_owned(),
            name: peer.name.clone(),
            fault,
        });
    }
    Ok(contents.peers)
}

/// The checks of one entry alone, the same for one that is read and one that is added.
fn check(peer: &Peer) -> Result<(), EntryFault> {
    names::check(&peer.name).map_err(EntryFault::Name)?;
    if peer.name.parse::<Fingerprint>().is_ok() {
        return Err(EntryFault::NameIsFingerprint);
    }
    peer.modules
        .iter()
        .try_for_each(Grant::check)
        .map_err(EntryFault::Module)?;
    if let Some(address) = &peer.address {
        names::check_address(address).map_err(|reason| EntryFault::Address {
            address: address.clone(),
            reason,
        })?;
    }
    Ok(())
}

/// Seconds since 1970; a clock set before that counts as 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// Why a peer may not come in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its fingerprint is not in the store.
    #[error("the peer {fingerprint} is not known here (pair it first)")]
    Unknown {
        /// Its fingerprint.
        fingerprint: Fingerprint,
    },
    /// It is known, but not for this module.
    #[error("the peer {name:?} may not use the module {module:?} (pair it again for that module)")]
    NotForModule {
        /// Its name here.
        name: String,
        /// What it asked for.
        module: String,
    },
    /// Its time is over.
    #[error("the peer {name:?} was trusted until {expires} (unix seconds), which has passed (pair it again)")]
    Expired {
        /// Its name here.
        name: String,
        /// Since when it is refused, in unix seconds.
        expires: u64,
    },
}

/// What is wrong with one peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its name.
    #[error("{0}")]
    Name(NameError),
    /// Its name could be taken for a key.
    #[error("its name looks like a fingerprint (choose another)")]
    NameIsFingerprint,
    /// The name of a module.
    #[error("in its modules: {0}")]
    Module(NameError),
    /// Its address.
    #[error("its address {address:?} cannot be used: {reason} (write it as host:port)")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another peer has its name.
    #[error(
        "another peer, {fingerprint}, is called {name:?} (choose another name, or remove that peer first)"
    )]
    SameName {
        /// The name.
        name: String,
        /// Who has it.
        fingerprint: Fingerprint,
    },
    /// Two entries for one key.
    #[error("the fingerprint {fingerprint} is there twice (remove one of the entries)")]
    SameFingerprint {
        /// The fingerprint.
        fingerprint: Fingerprint,
    },
}

/// Why the trust store cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file operation failed, or the file was refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The path has no file name.
    #[error("cannot use {} as the file of peers: it does not end in a file name (give a path to a file)",
        .path.display())]
    BadPath {
        /// The path.
        path: PathBuf,
    },
    /// Not the TOML that is expected.
    #[error("cannot read the peers in {}: {cause} (correct the file)", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: String,
    },
    /// An entry of the file is wrong.
    #[error("cannot use the peer {name:?} in {}: {fault}", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The name in the entry.
        name: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// A peer cannot be added.
    #[error("cannot add the peer to {}: {fault}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// The peers cannot be written as TOML, for example because a number is too large for it.
    #[error("cannot write the peers to {}: {cause} (check the dates of the peer)", .path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder says.
        cause: String,
    },
}

#[cfg(test)]
mod tests;
