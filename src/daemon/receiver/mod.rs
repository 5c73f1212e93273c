//! The receiver daemon: modules behind one QUIC endpoint.

mod admission;
mod apply;
mod confirms;
mod displaced;
mod divergence;
mod drift;
mod fencing;
mod forget;
pub(in crate::daemon) mod guests;
mod incoming;
mod inplace;
mod keeper;
mod kept;
mod listing;
mod look;
mod named;
mod opening;
mod owners;
mod pace;
mod pairing;
mod patrol;
mod previous;
mod publish;
mod pull;
mod replica;
mod report;
mod retention;
mod rights;
mod root;
mod scrub;
mod serving;
mod session;
mod slots;
mod spans;
mod sparing;
mod staging;
mod subject;
mod upkeep;
mod verify;

pub use listing::{BelowSums, Wanted, below_sums, disk_rows, own_attributes};
pub use owners::resolve as resolve_owner;
pub use previous::{
    BEGUN as VERSION_BEGUN, Previous, conclude as conclude_version, is_fresh as is_fresh_version,
};
pub use pull::PullOptions;
pub use replica::{
    cheap_digest, is_same_state, kind_of, note_xattr_classes, own_carried, stored_cursor, with_other_xattrs,
    xattr_classes,
};
pub use staging::digest_of;

use super::events::{self, What};
use super::fence;
use super::forget::Cleared;
use super::keeping::KeepingCounters;
use super::offers::Offers;
use super::status::{ModuleStatus, ReceiverStatus, SessionStatus};
use super::upkeep::{DriftReport, ScrubReport};
use super::upstream;
use super::waiting;
use super::{DaemonError, ModuleOptions, Own, ReceiverOptions, Stop};
use crate::engine::delta::Engine;
use crate::fs::{Directory, FsErrorKind};
use crate::net::{
    Accepted, Admit, Alpn, Authorise, LinkEnd, LinkHandle, LinkOptions, PairLink, ReceiverEndpoint,
    ReceiverLink, Verdict,
};
use crate::store::{Binding, State};
use admission::{listen, may_come};
use driftless_certs::{
    Fingerprint, Grant, Invites, Peer, RedeemError, Right, Rights, Secret, TrustStore, receiver_config,
};
use driftless_protocol::limits::OWNERS_TOTAL_MAX;
use driftless_protocol::message::{
    ModuleName, Open, Opened, PairReply, Purpose, Recheck, Relay, ToReceiver, ToSender,
};
use driftless_protocol::version::{ALPN_MIRROR, ALPN_PAIR, ALPN_PULL};
use driftless_protocol::{CloseCode, Name, ObjectId, OwnerRow, RelPath, TreeSum};
use guests::{Guests, Standing};
use look::{Found, How, Look};
use opening::{check_module_root, is_promoted, open_replica, place_of, walk_path};
use patrol::Patrols;
use pull::Pull;
use replica::Replica;
use retention::Retention;
use scrub::{Ask, Place, Window};
use session::Session;
use slots::{Slot, Tenant};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a peer may take to answer before its connection counts as dead.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
/// Wishes to look at something again that wait for one session.
const LOOKS_MAX: usize = 64;
/// How long such a wish may wait: a session may be flushing.
const LOOK_PATIENCE: Duration = Duration::from_secs(60);
/// How long a session may take to flush what it did, once its connection is gone.
const RETIRE_PATIENCE: Duration = Duration::from_secs(20);

/// Why a connection is ended, for its sender.
type Refusal = (CloseCode, String);

/// What [`ReceiverDaemon::fencer`] gives.
pub type Fencer = dyn Fn(&str) -> Option<Result<(), String>> + Send + Sync;

/// A running receiver.
#[derive(Debug)]
pub struct ReceiverDaemon {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    /// None if nobody can connect.
    endpoint: Option<ReceiverEndpoint>,
    acceptor: Option<JoinHandle<()>>,
    doorman: Option<JoinHandle<()>>,
    fences: Option<JoinHandle<()>>,
    cleaner: Option<JoinHandle<()>>,
}

/// How a receiver is reached, and what else is behind its endpoint.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// Names of modules that are to be offered later; see [`ReceiverDaemon::announce`].
    pub announced: Vec<String>,
    /// Trees that receivers may pull.
    pub offers: Option<Arc<Offers>>,
    /// Whether it listens. One that only pulls need not.
    pub listens: bool,
}

impl Default for Entrance {
    fn default() -> Entrance {
        Entrance {
            announced: Vec::new(),
            offers: None,
            listens: true,
        }
    }
}

/// Modules that are offered now; the endpoint asks from where they may be reached.
type Modules = Arc<RwLock<Vec<Arc<ModuleOptions>>>>;

#[derive(Debug)]
struct Shared {
    options: ReceiverOptions,
    /// What is offered now. Changed with `slots` locked, so that no session opens a module that goes.
    modules: Modules,
    /// Names of modules that are to be offered but may not be yet: their senders are asked to come back.
    announced: RwLock<Vec<String>>,
    stop: Stop,
    /// Module paths in use or used before, by module and path. A replica is taken out while a session works on it.
    slots: Mutex<HashMap<(String, RelPath), Slot>>,
    /// A replica was put back.
    released: Condvar,
    guests: Guests,
    retention: Retention,
    scrubs: Patrols<ScrubReport>,
    drift: Patrols<DriftReport>,
    /// What was kept, by module, also by those that are offered no longer: they may come back.
    kept: Mutex<HashMap<String, Arc<KeepingCounters>>>,
    sessions: Mutex<Vec<JoinHandle<()>>>,
    offers: Option<Arc<Offers>>,
    /// Modules that are filled by pulling.
    pulls: Mutex<Vec<(Arc<Pull>, JoinHandle<()>)>>,
}

impl ReceiverDaemon {
    /// Takes the modules' locks, walks them, and listens.
    pub fn start(options: ReceiverOptions, runtime: &tokio::runtime::Handle) -> Result<Self, DaemonError> {
        ReceiverDaemon::start_behind(options, Entrance::default(), runtime)
    }

    /// The same, reached in another way.
    pub fn start_behind(
        options: ReceiverOptions,
        entrance: Entrance,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, DaemonError> {
        let Entrance {
            announced,
            offers,
            listens,
        } = entrance;
        crate::fs::raise_descriptor_limit();
        let shared = Arc::new(Shared::open(options, announced, offers.clone())?);
        shared.look_after_all();
        if let Own::Apart(transport) = &shared.options.identity {
            let attended = transport.attend();
            attended.map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))?;
        }
        let endpoint = match listens {
            true => Some(listen(&shared.options, &shared.modules, offers, runtime)?),
            false => None,
        };
        let accepted = endpoint.as_ref().map(|endpoint| endpoint.accept().clone());
        let acceptor = accepted.map(|accepted| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("acceptor".to_owned())
                .spawn(move || {
                    for link in accepted {
                        shared.clone().admit(link);
                    }
                })
                .map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))
        });
        let acceptor = acceptor.transpose()?;
        let doorman = std::thread::Builder::new()
            .name("rights".to_owned())
            .spawn({
                let shared = shared.clone();
                move || {
                    let tend = || {
                        shared.offers.iter().for_each(|offers| offers.tend());
                        shared.end_untrusted_pulls();
                    };
                    let rights = |peer: &Fingerprint, module: &str| shared.rights_now(peer, module);
                    shared.guests.watch(&shared.stop, rights, tend);
                }
            })
            .map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))?;
        // Apart, since slots may be locked for as long as something is removed: no right that was taken away outlives that.
        let fences = std::thread::Builder::new()
            .name("fences".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.watch_fences()
            })
            .map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))?;
        let cleaner = std::thread::Builder::new()
            .name("retention".to_owned())
            .spawn({
                let shared = shared.clone();
                move || shared.retention.run(&shared.stop)
            })
            .map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))?;
        Ok(ReceiverDaemon {
            shared,
            runtime: runtime.clone(),
            endpoint,
            acceptor,
            doorman: Some(doorman),
            fences: Some(fences),
            cleaner: Some(cleaner),
        })
    }

    /// Names all modules that are to be offered sooner or later, so that those who ask too early try again.
    pub fn announce(&self, names: Vec<String>) {
        *self
            .shared
            .announced
            .write()
            .unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Offers one more module: takes its lock and walks it. Connections to others go on.
    pub fn offer(&self, module: ModuleOptions) -> Result<(), DaemonError> {
        let shared = &self.shared;
        if shared.module(&module.name).is_some() {
            return Err(DaemonError::failed(format!(
                "there is a module {} here already",
                module.name
            )));
        }
        let kept = shared.kept_in(&module.name);
        let replica = match is_promoted(&shared.options, &module)? {
            true => None,
            false => Some(open_replica(&shared.options, &module, &RelPath::root(), &kept)?),
        };
        let key = (module.name.clone(), RelPath::root());
        let mut slots = lock(&shared.slots);
        let window = replica.as_ref().map(|replica| replica.window.clone());
        if let Some(replica) = replica {
            shared.retention.add(&module, &replica.root);
            slots.insert(key, Slot::Idle(Box::new(replica)));
        }
        shared.modules_mut().push(Arc::new(module.clone()));
        drop(slots);
        if let Some(window) = window {
            shared.look_after(&module, &RelPath::root(), &window);
        }
        Ok(())
    }

    /// Offers a module no longer: ends the connections to it, waits until they have flushed, and releases its directory.
    /// Connections to others go on.
    pub fn withdraw(&self, name: &str) {
        let shared = &self.shared;
        let pulls = shared.end_pulls(|pull| pull.options.module == name);
        // Before the slots are locked: it may be asking for one.
        shared.scrubs.forget(name);
        shared.drift.forget(name);
        let mut slots = lock(&shared.slots);
        shared.modules_mut().retain(|module| module.name != name);
        shared.retention.forget(name);
        for ((module, _), slot) in slots.iter() {
            if let (true, Slot::Taken(tenant)) = (module == name, slot) {
                // They come back at once, and are told then whether it is still there.
                tenant
                    .link
                    .close(CloseCode::Unable, "this module is no longer offered as it was");
            }
        }
        // Sessions that flush for longer give their replicas up by themselves.
        let is_taken = |slots: &mut HashMap<(String, RelPath), Slot>| {
            slots
                .iter()
                .any(|((module, _), slot)| module == name && matches!(slot, Slot::Taken(_)))
        };
        slots = shared
            .released
            .wait_timeout_while(slots, RETIRE_PATIENCE, is_taken)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
        slots.retain(|(module, _), slot| module != name || matches!(slot, Slot::Taken(_)));
        drop(slots);
        // They have ended with their sessions, or wait for nothing any more.
        pulls.into_iter().for_each(|pull| drop(pull.join()));
    }

    /// Where it listens; where it would, if it does not.
    pub fn address(&self) -> SocketAddr {
        self.listening().unwrap_or(self.shared.options.listen)
    }

    /// Where it listens, if it does.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.endpoint.as_ref().map(ReceiverEndpoint::local_address)
    }

    /// What it is doing.
    pub fn status(&self) -> ReceiverStatus {
        self.shared.status(self.listening())
    }

    /// Something that acts on `driftless promote` and `demote` without holding the daemon, by the name of the module: see
    /// [`crate::daemon::fence`]. It gives nothing for a module that is not offered here, and in words what is not done yet. It may
    /// take some twenty seconds.
    pub fn fencer(&self) -> Box<Fencer> {
        let shared = self.shared.clone();
        Box::new(move |module| shared.module(module).map(|_| shared.heed_fence(module)))
    }

    /// Something that tells the status without holding the daemon.
    pub fn status_source(&self) -> impl Fn() -> ReceiverStatus + Send + Sync + 'static {
        let (shared, address) = (self.shared.clone(), self.listening());
        move || shared.status(address)
    }

    /// Something that forgets all paths of a module, without holding the daemon: takes everything of ours out of its tree,
    /// old versions and set-aside edits only if that is said, and drops what the home has of it. None if there is no such
    /// module.
    pub fn forgetter(
        &self,
    ) -> impl Fn(&str, bool) -> Option<Result<Cleared, DaemonError>> + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |name, with_kept| shared.forget_module(name, with_kept)
    }

    /// Ends all sessions, flushes, and releases the modules.
    pub fn stop(mut self) {
        self.shared.stop.request();
        let pulls = self.shared.end_pulls(|_| true);
        if let Some(endpoint) = &self.endpoint {
            endpoint.close();
        }
        pulls.into_iter().for_each(|pull| drop(pull.join()));
        let threads = [
            self.acceptor.take(),
            self.doorman.take(),
            self.fences.take(),
            self.cleaner.take(),
        ];
        for thread in threads.into_iter().flatten() {
            let _ = thread.join();
        }
        self.shared.scrubs.end();
        self.shared.drift.end();
        let sessions = std::mem::take(&mut *lock(&self.shared.sessions));
        for session in sessions {
            let _ = session.join();
        }
        // Whoever asks for the status still holds what is shared, and with it the locks.
        lock(&self.shared.slots).clear();
    }
}

impl Shared {
    /// Takes the modules' locks and walks them.
    fn open(
        options: ReceiverOptions,
        announced: Vec<String>,
        offers: Option<Arc<Offers>>,
    ) -> Result<Shared, DaemonError> {
        let mut slots = HashMap::new();
        let mut kept: HashMap<String, Arc<KeepingCounters>> = HashMap::new();
        let retention = Retention::default();
        for module in &options.modules {
            let counters = kept.entry(module.name.clone()).or_default();
            if is_promoted(&options, module)? {
                continue;
            }
            let replica = open_replica(&options, module, &RelPath::root(), counters)?;
            retention.add(module, &replica.root);
            slots.insert(
                (module.name.clone(), RelPath::root()),
                Slot::Idle(Box::new(replica)),
            );
        }
        let modules = options.modules.iter().cloned().map(Arc::new).collect();
        Ok(Shared {
            options,
            modules: Arc::new(RwLock::new(modules)),
            announced: RwLock::new(announced),
            stop: Stop::default(),
            slots: Mutex::new(slots),
            released: Condvar::new(),
            guests: Guests::default(),
            retention,
            scrubs: Patrols::default(),
            drift: Patrols::default(),
            kept: Mutex::new(kept),
            sessions: Mutex::default(),
            offers,
            pulls: Mutex::default(),
        })
    }

    fn admit(self: Arc<Self>, link: Accepted) {
        let shared = self.clone();
        let spawned = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || match link {
                Accepted::Mirror(link) => shared.serve(&link),
                Accepted::Pair(link) => shared.pair(link),
                Accepted::Call(call) => match &shared.offers {
                    Some(offers) => offers.take(call),
                    None => call.refuse(CloseCode::NotAllowed, "this peer is not allowed here"),
                },
            });
        let mut sessions = lock(&self.sessions);
        sessions.retain(|session| !session.is_finished());
        match spawned {
            Ok(session) => sessions.push(session),
            Err(error) => tracing::error!("cannot start a thread for a connection: {error}"),
        }
    }

    /// Asks those that fill modules to end, and gives their threads.
    fn end_pulls(&self, which: impl Fn(&Pull) -> bool) -> Vec<JoinHandle<()>> {
        let mut pulls = lock(&self.pulls);
        let (end, stay) = std::mem::take(&mut *pulls)
            .into_iter()
            .partition(|(pull, _)| which(pull));
        *pulls = stay;
        let end: Vec<(Arc<Pull>, JoinHandle<()>)> = end;
        end.iter().for_each(|(pull, _)| pull.stop());
        end.into_iter().map(|(_, thread)| thread).collect()
    }

    /// The module of a name, if it is offered.
    fn module(&self, name: &str) -> Option<Arc<ModuleOptions>> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        modules.iter().find(|module| module.name == name).cloned()
    }

    /// Whether this very module is still offered, and not another of its name.
    fn offers(&self, module: &Arc<ModuleOptions>) -> bool {
        self.module(&module.name)
            .is_some_and(|present| Arc::ptr_eq(&present, module))
    }

    fn modules_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<ModuleOptions>>> {
        self.modules.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was kept in a module.
    fn kept_in(&self, module: &str) -> Arc<KeepingCounters> {
        lock(&self.kept).entry(module.to_owned()).or_default().clone()
    }
}

fn is_below(path: &RelPath, above: &RelPath) -> bool {
    path.names().starts_with(above.names())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A receiver without a network, for simulations.
#[cfg(test)]
pub struct Simulated(Arc<Shared>);

#[cfg(test)]
impl Simulated {
    /// Takes the modules' locks and walks them.
    pub fn open(options: ReceiverOptions) -> Result<Simulated, DaemonError> {
        Shared::open(options, Vec::new(), None).map(|shared| Simulated(Arc::new(shared)))
    }

    /// Serves one connection to its end.
    pub fn serve(&self, link: &ReceiverLink) {
        self.0.serve(link);
    }
}

#[cfg(test)]
mod tests;
