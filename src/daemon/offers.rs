//! The trees that a sender offers, and the receivers that pull them: who may, and to which sender a call goes.

use super::home::Home;
use super::receiver::guests::{NOT_KNOWN, UNREADABLE_LOOKS};
use crate::net::{Call, Calls, Verdict};
use crossbeam_channel::Sender;
use driftless_certs::{Fingerprint, TrustError, TrustStore};
use driftless_protocol::CloseCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// The same words for everybody: a stranger must not learn what there is.
const NOT_ALLOWED: &str = "this peer is not allowed here";

/// A receiver that pulls a tree, for as long as it may: it need not be connected.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tree.
    pub tree: String,
    /// Its key.
    pub peer: Fingerprint,
    /// What it is called here.
    pub name: String,
    /// Where its calls arrive.
    pub calls: Calls,
}

/// As the target of a mirror.
impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pulls {})", self.name, self.tree)
    }
}

/// What became of a receiver that pulls.
#[derive(Debug)]
pub enum News {
    /// It called for the first time. Somebody has to answer.
    Came(Caller),
    /// It may pull no longer.
    Gone(Caller),
}

/// What is offered by one endpoint.
#[derive(Debug)]
pub struct Offers {
    home: Home,
    inside: Mutex<Inside>,
    news: Sender<News>,
}

#[derive(Debug, Default)]
struct Inside {
    trees: Vec<String>,
    /// Peers that may pull everything, beside those of the trust store.
    allow: Vec<Fingerprint>,
    callers: HashMap<(String, Fingerprint), Caller>,
    /// Looks in a row at a trust store that could not be read.
    unreadable: u32,
}

impl Offers {
    /// Nothing yet. Receivers that call are told to `news`.
    pub fn new(home: Home, news: Sender<News>) -> Arc<Offers> {
        Arc::new(Offers {
            home,
            inside: Mutex::default(),
            news,
        })
    }

    /// Offers these trees and no others from now on, and all of them to some peers whatever the trust store says. Receivers of others
    /// are hung up on, and forgotten.
    pub fn offer(&self, trees: Vec<String>, allow: Vec<Fingerprint>) {
        let mut inside = self.lock();
        inside.callers.retain(|(tree, _), caller| {
            let stays = trees.contains(tree);
            if !stays {
                caller
                    .calls
                    .hang_up(CloseCode::NoModule, "this tree is no longer offered");
            }
            stays
        });
        (inside.trees, inside.allow) = (trees, allow);
    }

    /// The names of what is offered.
    pub fn trees(&self) -> Vec<String> {
        self.lock().trees.clone()
    }

    /// Whether there is any tree that a peer may pull.
    pub fn may_call(&self, peer: &Fingerprint) -> Verdict {
        let inside = self.lock();
        let (offers_any, is_allowed) = (!inside.trees.is_empty(), inside.allow.contains(peer));
        drop(inside);
        if !offers_any || is_allowed {
            return Verdict::of(offers_any);
        }
        match TrustStore::open(&self.home.peers_file()) {
            Ok(trust) => {
                let now = SystemTime::now();
                Verdict::of(trust.find(peer).is_some_and(|peer| peer.may_pull_any(now)))
            }
            Err(error) => {
                tracing::error!("cannot find out who may pull: {error}");
                Verdict::Unknown
            }
        }
    }

    /// Takes a call, if the peer may pull what it wants. A peer that may not is told the same whether there is such a tree or not.
    /// Blocks for a moment if the peer is connected already.
    pub fn take(&self, call: Call) {
        let peer = call.peer();
        let name = match std::str::from_utf8(&call.tree().0) {
            Ok(tree) => self.name_of_puller(&peer, tree),
            Err(_) => Ok(None),
        };
        let name = match name {
            Ok(Some(name)) => name,
            Ok(None) => {
                tracing::warn!(%peer, remote = %call.remote(), "a peer that may not pull this tree was refused");
                return call.refuse(CloseCode::NotAllowed, NOT_ALLOWED);
            }
            Err(error) => {
                tracing::error!("cannot find out who may pull: {error}");
                return call.refuse(CloseCode::Unable, NOT_KNOWN);
            }
        };
        let tree = call.tree().to_string();
        let mut inside = self.lock();
        if !inside.trees.contains(&tree) {
            return call.refuse(CloseCode::NoModule, &format!("there is no tree {tree} here"));
        }
        let mut is_new = false;
        let caller = inside.callers.entry((tree.clone(), peer)).or_insert_with(|| {
            is_new = true;
            Caller {
                tree,
                peer,
                name,
                calls: Calls::default(),
            }
        });
        let caller = caller.clone();
        drop(inside);
        tracing::info!(%peer, tree = caller.tree, "a receiver calls");
        caller.calls.put(call);
        if is_new {
            let _ = self.news.send(News::Came(caller));
        }
    }

    /// Ends what peers have no right to any more. To be called now and then.
    pub fn tend(&self) {
        let mut inside = self.lock();
        if inside.callers.is_empty() {
            return;
        }
        let trust = TrustStore::open(&self.home.peers_file());
        inside.unreadable = if trust.is_ok() { 0 } else { inside.unreadable + 1 };
        if trust.is_err() && inside.unreadable < UNREADABLE_LOOKS {
            return;
        }
        let (code, text) = match &trust {
            Ok(_) => (CloseCode::NotAllowed, "this peer is no longer allowed here"),
            Err(_) => (CloseCode::Unable, NOT_KNOWN),
        };
        let (now, allow) = (SystemTime::now(), inside.allow.clone());
        inside.callers.retain(|(tree, peer), caller| {
            let trusted = trust.as_ref().ok().and_then(|trust| trust.find(peer));
            let stays = allow.contains(peer) || trusted.is_some_and(|peer| peer.may_pull(tree, now));
            if !stays {
                tracing::warn!(%peer, tree, "{text}: its connection is ended");
                caller.calls.hang_up(code, text);
                let _ = self.news.send(News::Gone(caller.clone()));
            }
            stays
        });
    }

    /// What a peer is called here, if it may pull a tree. The error is that of a trust store that cannot be read.
    fn name_of_puller(&self, peer: &Fingerprint, tree: &str) -> Result<Option<String>, TrustError> {
        let is_allowed = self.lock().allow.contains(peer);
        let nameless = || format!("peer-{}", &peer.to_string()[..8]);
        let trust = match TrustStore::open(&self.home.peers_file()) {
            Ok(trust) => trust,
            Err(_) if is_allowed => return Ok(Some(nameless())),
            Err(error) => return Err(error),
        };
        let known = trust.find(peer);
        let may = is_allowed || known.is_some_and(|known| known.may_pull(tree, SystemTime::now()));
        Ok(may.then(|| known.map_or_else(nameless, |known| known.name.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
