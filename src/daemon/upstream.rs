//! Where the content of a tree comes from, so that mirrors that feed each other in a circle are noticed.
//!
//! A module may be the source of a further mirror. Its sender says from which trees the module's content comes, and a receiver
//! that finds a tree of its own among them, which overlaps the place that would be written to, refuses: an old state would come
//! back over a new one. What comes in is written down beside the state of the module path while its sender is connected, and
//! for [`GRACE`] after that, in which it may come back; later, the direction of a mirror may be turned round. At once it may be if
//! the sender ended by itself, as `seed` does and one that is stopped, or if the module was promoted.
//!
//! A sender may be connected before anybody feeds its source. So when it has brought its target in sync it looks whether its
//! source is fed by others than it said, and if so connects again: what it says then goes on with the changes themselves, and is
//! known everywhere by the time that somebody closes a circle. Where all of a circle start at the same moment, whoever first hears
//! of itself refuses.

use super::fence;
use super::home::Home;
use super::status::unix_now;
use driftless_certs::Fingerprint;
use driftless_protocol::limits::RELAYS_MAX;
use driftless_protocol::message::{Relay, Relays, Text};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Its name in the directory of the module path's state.
const FILE: &str = "upstream.json";
/// In seconds: longer than a sender waits before it connects again.
const GRACE: u64 = 60;

/// What comes into a module path.
#[derive(Debug, Serialize, Deserialize)]
struct Inflow {
    /// The module that it belongs to.
    #[serde(default)]
    module: String,
    /// The place that is written to.
    path: String,
    /// When its sender was last connected, in seconds since 1970; none while it is.
    ended: Option<u64>,
    /// Trees and the identities that read them.
    relays: Vec<Station>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Station {
    peer: String,
    source: String,
}

/// Where the content of a source comes from, as far as it comes through modules of this home. What cannot be read is no reason
/// not to mirror.
pub fn of_source(home: &Home, source: &Path) -> Relays {
    let mut found = Relays::default();
    for directory in home.module_dirs() {
        let Some(inflow) = read(&directory) else { continue };
        let is_over = match inflow.ended {
            Some(ended) => ended + GRACE < unix_now(),
            None => !is_held(&directory),
        };
        if is_over || !overlap(Path::new(&inflow.path), source) || is_promoted(home, &inflow.module) {
            continue;
        }
        for station in inflow.relays {
            if let Ok(peer) = station.peer.parse::<Fingerprint>() {
                found.0.push(Relay {
                    peer: *peer.as_bytes(),
                    source: station.source.as_str().into(),
                });
            }
        }
    }
    // In an order of which a change means something.
    let key = |relay: &Relay| (relay.peer, relay.source.0.clone());
    found.0.sort_by_key(key);
    found.0.dedup();
    found.0.truncate(RELAYS_MAX);
    found
}

/// Whether somebody is connected who writes to a module of this home, in whichever process its receiver is.
pub fn is_written_to(home: &Home, module: &str) -> bool {
    home.module_dirs().into_iter().any(|directory| {
        let inflow = read(&directory);
        inflow.is_some_and(|inflow| inflow.module == module && inflow.ended.is_none()) && is_held(&directory)
    })
}

/// Whether the process lives that wrote the file: it holds a lock on it.
fn is_held(directory: &Path) -> bool {
    File::open(directory.join(FILE))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn is_promoted(home: &Home, module: &str) -> bool {
    fence::read(home, module).is_ok_and(|fence| fence.is_some_and(|fence| fence.is_promoted))
}

/// The tree of this receiver that `place` would be fed from, if there is one among what a sender says of its source.
pub fn circle<'a>(own: &Fingerprint, place: &Path, relays: &'a [Relay]) -> Option<&'a Text> {
    let closes = |relay: &&Relay| {
        let source = String::from_utf8_lossy(&relay.source.0);
        relay.peer == *own.as_bytes() && overlap(Path::new(&*source), place)
    };
    relays.iter().find(closes).map(|relay| &relay.source)
}

/// A connection that writes to a module path, until dropped.
#[derive(Debug)]
pub struct Incoming {
    directory: PathBuf,
    inflow: Inflow,
    has_left: bool,
    /// Locked for as long as this process lives.
    file: Option<File>,
}

impl Incoming {
    /// Writes down what comes to `place` in a module, whose state is in `directory`.
    pub fn begin(directory: PathBuf, module: &str, place: &Path, relays: &[Relay]) -> io::Result<Incoming> {
        let station = |relay: &Relay| Station {
            peer: Fingerprint::from_bytes(relay.peer).to_string(),
            source: String::from_utf8_lossy(&relay.source.0).into_owned(),
        };
        let mut incoming = Incoming {
            directory,
            has_left: false,
            file: None,
            inflow: Inflow {
                module: module.to_owned(),
                path: place.display().to_string(),
                ended: None,
                relays: relays.iter().map(station).collect(),
            },
        };
        incoming.write()?;
        Ok(incoming)
    }

    /// The sender ended the connection as one does who has done its work: it need not be waited for.
    pub fn note_left(&mut self) {
        self.has_left = true;
    }

    fn write(&mut self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.inflow)?;
        let aside = self.directory.join(format!("{FILE}.new"));
        let mut file = File::create(&aside)?;
        file.lock()?;
        file.write_all(&text)?;
        fs::rename(aside, self.directory.join(FILE))?;
        self.file = Some(file);
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.has_left {
            return forget(&self.directory);
        }
        self.inflow.ended = Some(unix_now());
        if let Err(error) = self.write() {
            tracing::debug!("cannot write down that a connection has ended: {error}");
        }
    }
}

/// Nobody can be connected to a module path that is only being opened: forgets what a process that was killed left behind.
pub fn forget(directory: &Path) {
    let _ = fs::remove_file(directory.join(FILE));
}

fn read(directory: &Path) -> Option<Inflow> {
    let text = fs::read(directory.join(FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(peer: u8, source: &str) -> Relay {
        Relay {
            peer: [peer; 32],
            source: source.into(),
        }
    }

    #[test]
    fn a_circle_is_one_of_the_own_trees_that_overlaps() {
        let own = Fingerprint::from_bytes([7; 32]);
        let found = |relays: &[Relay]| circle(&own, Path::new("/srv/a"), relays).map(ToString::to_string);
        assert_eq!(
            found(&[relay(7, "/srv/b"), relay(8, "/srv/a"), relay(7, "/srv/ab")]),
            None
        );
        for source in ["/srv/a", "/srv", "/srv/a/below"] {
            assert_eq!(
                found(&[relay(8, "/x"), relay(7, source)]).as_deref(),
                Some(source)
            );
        }
    }

    #[test]
    fn what_comes_in_is_known_while_it_does_and_for_a_while_after() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        let of = |name: &str| home.module_dir(name, &driftless_protocol::RelPath::root());
        for name in ["one", "two"] {
            fs::create_dir_all(of(name)).unwrap();
        }
        let known = |source: &str| of_source(&home, Path::new(source)).0;
        assert_eq!(known("/m/one"), []);
        let relays = [relay(1, "/first"), relay(2, "/second")];
        let incoming = Incoming::begin(of("one"), "one", Path::new("/m/one"), &relays).unwrap();
        let other = Incoming::begin(of("two"), "two", Path::new("/m/two"), &relays[..1]).unwrap();
        assert_eq!(known("/m/one/below"), relays);
        assert!(is_written_to(&home, "one") && !is_written_to(&home, "three"));
        // The first is behind both.
        assert_eq!((known("/m").len(), known("/n").len()), (2, 0));
        fence::promote(&home, "two").unwrap();
        assert_eq!(known("/m/two"), []);
        fence::demote(&home, "two").unwrap();
        assert_eq!(known("/m/two"), relays[..1]);
        drop((incoming, other));
        assert_eq!(known("/m/one"), relays);
        assert!(!is_written_to(&home, "one"));
        let mut inflow = read(&of("one")).unwrap();
        inflow.ended = inflow.ended.map(|ended| ended - GRACE - 1);
        fs::write(of("one").join(FILE), serde_json::to_vec(&inflow).unwrap()).unwrap();
        assert_eq!(known("/m/one"), []);
        forget(&of("two"));
        assert_eq!(known("/m/two"), []);
        let mut left = Incoming::begin(of("two"), "two", Path::new("/m/two"), &relays[..1]).unwrap();
        assert_eq!(known("/m/two").len(), 1);
        left.note_left();
        drop(left);
        assert_eq!(known("/m/two"), []);
        // A process that was killed holds no lock.
        inflow.ended = None;
        fs::write(of("one").join(FILE), serde_json::to_vec(&inflow).unwrap()).unwrap();
        assert_eq!(known("/m/one"), []);
    }
}
