//! The receiver's side of pairing: a directory of pending invites.
//!
//! One file each, `<id>.invite`, mode 0600: TOML with the hash of the secret, the expiry, the module and the rights. A redeemed
//! invite is renamed to `<id>.spent` and stays until it would have expired, so that a second use of the code can be told
//! from a wrong one. `wrong-guesses` holds the count of wrong secrets.
//!
//! **Single use.** All changes happen under the lock of the directory; beyond that, the *rename* is what redeems. It is
//! synced before anyone hears of success, so neither two processes nor a power cut make one code work twice. What a
//! crash right after it can do is waste the invite.
//!
//! **Wrong guesses.** After [`MAX_WRONG_GUESSES`] wrong secrets since the oldest pending invite was made, all pending
//! invites are dropped. Not because 128 bits could be guessed: because nobody sends wrong secrets by mistake (codes have
//! a checksum), so something is probing this machine while a door is open, and invites are cheap to make again. The
//! price is that a stranger who reaches the port can spoil a pairing; failing closed is the better of the two.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::faults::toml_fault;
use crate::files::{self, Access, FileError, LockedDir};
use crate::names::{self, NameError};
use crate::rights::Grant;
use crate::trust::unix_seconds;

/// Wrong secrets after which all pending invites are dropped.
pub const MAX_WRONG_GUESSES: u32 = 10;

/// The most invites that can be pending at once; each attempt to redeem looks at all.
pub const MAX_PENDING_INVITES: usize = 64;

const PENDING: &str = "invite";
const SPENT: &str = "spent";
const GUESSES_NAME: &str = "wrong-guesses";
const MAX_FILE_BYTES: u64 = 4096;

/// The pending invites of a receiver, kept in a directory of their own.
#[derive(Debug)]
pub struct Invites {
    dir: PathBuf,
}

/// What a redeemed invite grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The module the peer may use, and how.
    pub grant: Grant,
}

/// An invite that nobody has used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingInvite {
    /// Its name in lists and logs.
    pub id: InviteId,
    /// The module it is for, and with which rights.
    pub grant: Grant,
    /// From when on it is refused, in unix seconds.
    pub expires_at: u64,
}

/// The name of an invite in lists and logs. It is random and says nothing about the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InviteId(String);

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The content of an invite's file, pending or spent.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Hexadecimal.
    secret_hash: String,
    expires_at: u64,
    /// Last, since in TOML what follows a table belongs to it.
    grant: Grant,
}

/// A record as found in the directory.
struct Found {
    id: InviteId,
    state: &'static str,
    hash: blake3::Hash,
    record: Record,
}

impl Found {
    fn file_name(&self) -> String {
        format!("{}.{}", self.id, self.state)
    }

    fn is_pending(&self) -> bool {
        self.state == PENDING
    }

    fn has_expired(&self, now: u64) -> bool {
        now >= self.record.expires_at
    }
}

impl Invites {
    /// The invites in a directory; it is made with the first invite.
    pub fn open(dir: &Path) -> Invites {
        Invites { dir: dir.to_owned() }
    }

    /// Makes an invite to a module that is good for the time `expires` from `now` on.
    pub fn create(
        &self,
        grant: &Grant,
        expires: Duration,
        now: SystemTime,
    ) -> Result<(Secret, InviteId), InviteError> {
        names::check(&grant.module).map_err(InviteError::Module)?;
        let locked = LockedDir::lock(&self.dir)?;
        let now = unix_seconds(now);
        let pending = self
            .sweep(&locked, now)?
            .iter()
            .filter(|found| found.is_pending())
            .count();
        if pending >= MAX_PENDING_INVITES {
            return Err(InviteError::TooMany);
        }
        if pending == 0 {
            // Nobody's guesses so far were at this invite.
            locked.remove(GUESSES_NAME)?;
        }
        let (mut secret, mut id) = ([0; 16], [0; 5]);
        getrandom::fill(&mut secret)
            .and_then(|()| getrandom::fill(&mut id))
            .map_err(InviteError::Random)?;
        let secret = Secret(secret);
        let id = InviteId(BASE32_NOPAD.encode(&id).to_ascii_lowercase());
        let record = Record {
            secret_hash: secret.hash().to_hex().to_string(),
            expires_at: now.saturating_add(expires.as_secs()),
            grant: grant.clone(),
        };
        let text = toml::to_string(&record).map_err(|cause| InviteError::Encode(cause.to_string()))?;
        locked.write(&format!("{id}.{PENDING}"), 0o600, text.as_bytes())?;
        Ok((secret, id))
    }

    /// The invites that can still be redeemed.
    pub fn pending(&self, now: SystemTime) -> Result<Vec<PendingInvite>, InviteError> {
        let now = unix_seconds(now);
        let found = self.read_all()?;
        let pending = found
            .into_iter()
            .filter(|found| found.is_pending() && !found.has_expired(now));
        Ok(pending
            .map(
                |Found {
                     id,
                     record: Record {
                         grant, expires_at, ..
                     },
                     ..
                 }| PendingInvite {
                    id,
                    grant,
                    expires_at,
                },
            )
            .collect())
    }

    /// Uses up the invite with a secret. Of any number of callers with the same secret, one succeeds.
    ///
    /// Tell the peer that it failed and nothing else; the reasons are for the owner of this machine.
    pub fn redeem(&self, secret: &Secret, now: SystemTime) -> Result<Invite, RedeemError> {
        if files::list(&self.dir).map_err(InviteError::File)?.is_empty() {
            // No invite was ever made: a stranger's guess shall not make directories.
            return Err(RedeemError::Unknown);
        }
        let locked = LockedDir::lock(&self.dir).map_err(InviteError::File)?;
        let now = unix_seconds(now);
        let all = self.read_all()?;
        let hash = secret.hash();
        // All are compared, each in constant time (`blake3::Hash`), so that the time says nothing about any.
        let hit = all.iter().fold(
            None,
            |hit, found| if found.hash == hash { Some(found) } else { hit },
        );
        let result = match hit {
            Some(found) if !found.is_pending() => Err(RedeemError::Spent),
            Some(found) if found.has_expired(now) => Err(RedeemError::Expired),
            Some(found) => {
                let spent = format!("{}.{SPENT}", found.id);
                match locked
                    .rename(&found.file_name(), &spent)
                    .map_err(InviteError::File)?
                {
                    true => Ok(Invite {
                        grant: found.record.grant.clone(),
                    }),
                    false => Err(RedeemError::Spent),
                }
            }
            None => Err(self.count_wrong_guess(&locked, &all, now)?),
        };
        self.sweep(&locked, now)?;
        result
    }

    /// Counts a wrong secret and drops all pending invites when it was one too many.
    fn count_wrong_guess(
        &self,
        locked: &LockedDir,
        all: &[Found],
        now: u64,
    ) -> Result<RedeemError, InviteError> {
        let pending: Vec<&Found> = all
            .iter()
            .filter(|found| found.is_pending() && !found.has_expired(now))
            .collect();
        if pending.is_empty() {
            // Nothing to protect, and nothing for a stranger to make us write.
            return Ok(RedeemError::Unknown);
        }
        let path = self.dir.join(GUESSES_NAME);
        let text = files::read(&path, Access::Guarded, MAX_FILE_BYTES)?;
        // A count that cannot be read is not zero: somebody damaged it.
        let before = text.map_or(Some(0), |text| {
            std::str::from_utf8(&text).ok()?.trim().parse::<u32>().ok()
        });
        let guesses = before.unwrap_or(MAX_WRONG_GUESSES).saturating_add(1);
        if guesses < MAX_WRONG_GUESSES {
            locked.write(GUESSES_NAME, 0o600, format!("{guesses}\n").as_bytes())?;
            return Ok(RedeemError::Unknown);
        }
        for found in &pending {
            locked.remove(&found.file_name())?;
        }
        // After the invites: a crash in between leaves the count at its limit, and the next wrong guess goes on here.
        locked.remove(GUESSES_NAME)?;
        Ok(RedeemError::TooManyGuesses {
            dropped: pending.len(),
        })
    }

    /// Removes what has expired and gives the rest.
    fn sweep(&self, locked: &LockedDir, now: u64) -> Result<Vec<Found>, InviteError> {
        let (expired, rest): (Vec<Found>, Vec<Found>) = self
            .read_all()?
            .into_iter()
            .partition(|found| found.has_expired(now));
        for found in expired {
            locked.remove(&found.file_name())?;
        }
        Ok(rest)
    }

    fn read_all(&self) -> Result<Vec<Found>, InviteError> {
        let mut all = Vec::new();
        for name in files::list(&self.dir)? {
            let Some((id, ending)) = name.rsplit_once('.') else {
                continue;
            };
            // Temporaries and the lock begin with a point.
            if id.is_empty() || id.starts_with('.') {
                continue;
            }
            let Some(state) = [PENDING, SPENT].into_iter().find(|state| *state == ending) else {
                continue;
            };
            let path = self.dir.join(&name);
            // Gone since it was listed: redeemed or dropped by another process, for `pending` reads without the lock.
            let Some(bytes) = files::read(&path, Access::Secret, MAX_FILE_BYTES)? else {
                continue;
            };
            let damaged = |cause: String| InviteError::Damaged {
                path: path.clone(),
                cause,
            };
            let text = String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
            let record: Record = toml::from_str(&text).map_err(|cause| damaged(toml_fault(&text, &cause)))?;
            let hash =
                blake3::Hash::from_hex(&record.secret_hash).map_err(|cause| damaged(cause.to_string()))?;
            all.push(Found {
                id: InviteId(id.to_owned()),
                state,
                hash,
                record,
            });
        }
        Ok(all)
    }
}

/// Why invites cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// A file operation failed, or a file was refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name of the module.
    #[error("cannot make an invite for this module: {0}")]
    Module(NameError),
    /// The limit of pending invites is reached.
    #[error(
        "cannot make another invite: {MAX_PENDING_INVITES} are pending (wait until some are used or expire)"
    )]
    TooMany,
    /// The file of an invite holds something else.
    #[error("cannot read the invite {}: {cause} (remove the file and make a new invite)", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The system gives no random bytes.
    #[error(
        "cannot make an invite: no random bytes from the system: {0} (check that getrandom is permitted)"
    )]
    Random(getrandom::Error),
    /// The record could not be encoded.
    #[error("cannot write an invite: {0} (this is a defect, please report it)")]
    Encode(String),
}

/// Why a secret redeems nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// No invite has this secret, or it expired some time ago.
    #[error("the pairing code is unknown here, or expired a while ago (make a new one on the receiver)")]
    Unknown,
    /// It came too late.
    #[error("the pairing code has expired (make a new one on the receiver)")]
    Expired,
    /// It was used before.
    #[error(
        "the pairing code was used before (make a new one on the receiver; if it was not you, remove that peer)"
    )]
    Spent,
    /// It was wrong like others before it, and all pending invites are gone now.
    #[error(
        "{MAX_WRONG_GUESSES} wrong pairing secrets were tried: all {dropped} pending invites are dropped (make a new one)"
    )]
    TooManyGuesses {
        /// Invites dropped.
        dropped: usize,
    },
    /// The invites cannot be read or changed.
    #[error(transparent)]
    Store(#[from] InviteError),
}
