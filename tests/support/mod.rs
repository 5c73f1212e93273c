//! What the whole-program tests share: pairs of daemons in this process, trees, and an independent comparison.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod churn;
pub mod exact;
pub mod image;
pub mod kernel;
pub mod machine;
pub mod peer;
pub mod random;
pub mod relay;
pub mod rough;
pub mod settled;
pub mod supervised;
pub mod waiting;

use driftless::daemon::home::Home;
use driftless::daemon::keeping::Keeping;
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{
    DaemonError, Deletes, Gate, KeptAs, LargeFiles, ModuleOptions, Observer, Phase, ReceiverOptions,
    SenderOptions, Silent, Stop, Summary, TakenAs, TargetOptions, Turns, WatchOptions, sender,
};
use driftless::engine::compare::Compare;
use driftless::engine::delta::Engine;
use driftless::engine::filter::{FileSet, Filter};
use driftless::engine::hosts::Hosts;
use driftless::engine::links::LinkPolicy;
use driftless::engine::mode::ModeChanges;
use driftless::engine::owners::OwnerRules;
use driftless::engine::path_pattern::PathPattern;
use driftless::engine::pending::PendingOptions;
use driftless::net::LinkOptions;
use driftless_certs::Identity;
use driftless_protocol::message::Sparing;
use driftless_protocol::{RelPath, XattrClasses};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
pub use waiting::PATIENCE;

pub fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
        })
        .handle()
        .clone()
}

/// Two directories, two homes, two identities.
pub struct Pair {
    pub directory: TempDir,
    pub sender: Identity,
    pub receiver: Identity,
    pub deletes: Deletes,
    pub delete_limit: Option<driftless::engine::fuse::DeleteLimit>,
    pub approvals: Option<crossbeam_channel::Receiver<u64>>,
    pub compare: Compare,
    pub look_again: bool,
    pub accept_root: bool,
    pub leaves_root: bool,
    pub watch: WatchOptions,
    pub pending: PendingOptions,
    pub large_files: Option<LargeFiles>,
    pub append_only: FileSet,
    pub filter: Filter,
    pub owners: OwnerRules,
    pub modes: ModeChanges,
    pub links: LinkPolicy,
    pub taken_as: TakenAs,
    pub kept_as: KeptAs,
    /// How the receiver looks after what it has.
    pub upkeep: driftless::daemon::upkeep::Upkeep,
    /// The extended attributes that the receiver takes.
    pub xattrs: XattrClasses,
    /// What the receiver does with what it replaces and deletes.
    pub keeping: Keeping,
    /// What of the target is left as it is.
    pub sparing: Sparing,
    pub whole_files: bool,
    /// Which engine the sender wants.
    pub delta_engine: Option<Engine>,
    pub preallocate: bool,
    pub inplace: bool,
    /// What the receiver changes at once.
    pub publish: Vec<PathPattern>,
    pub hosts: Hosts,
}

impl Pair {
    pub fn new() -> Pair {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    pub fn in_directory(directory: TempDir) -> Pair {
        if let Ok(filter) = std::env::var("DRIFTLESS_TEST_LOG") {
            let filter = if filter == "1" { "driftless=debug" } else { &filter };
            let _ = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .try_init();
        }
        for name in ["src", "dst", "home-s", "home-r"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let identity = || Identity::ephemeral().unwrap();
        let (sender, receiver) = (identity(), identity());
        Pair {
            directory,
            sender,
            receiver,
            deletes: Deletes::Ask,
            delete_limit: None,
            approvals: None,
            compare: Compare::default(),
            look_again: false,
            accept_root: false,
            leaves_root: false,
            watch: WatchOptions::default(),
            pending: PendingOptions::default(),
            large_files: None,
            append_only: FileSet::default(),
            filter: Filter::everything(),
            owners: OwnerRules::default(),
            modes: ModeChanges::default(),
            links: LinkPolicy::All,
            taken_as: TakenAs::default(),
            kept_as: KeptAs::default(),
            xattrs: XattrClasses::USUAL,
            keeping: Keeping::default(),
            sparing: Sparing::default(),
            whole_files: false,
            delta_engine: None,
            preallocate: false,
            inplace: false,
            publish: Vec::new(),
            hosts: Hosts::default(),
            upkeep: Default::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn src(&self) -> PathBuf {
        self.path("src")
    }

    pub fn dst(&self) -> PathBuf {
        self.path("dst")
    }

    pub fn receiver_options(&self) -> ReceiverOptions {
        ReceiverOptions {
            home: Home::at(self.path("home-r")),
            identity: self.receiver.clone().into(),
            machine: None,
            modules: vec![ModuleOptions {
                name: "dst".to_owned(),
                path: self.dst(),
                xattrs: self.xattrs,
                devices: true,
                keeping: self.keeping.clone(),
                preallocate: self.preallocate,
                inplace: self.inplace,
                publish: self.publish.clone(),
                hosts: self.hosts.clone(),
                kept_as: self.kept_as,
                previous: None,
                upkeep: self.upkeep.clone(),
            }],
            listen: "127.0.0.1:0".parse().unwrap(),
            allow: vec![self.sender.fingerprint()],
            link: LinkOptions::default(),
            delta_engine: Engine::default(),
        }
    }

    pub fn receive(&self) -> ReceiverDaemon {
        ReceiverDaemon::start(self.receiver_options(), &runtime()).unwrap()
    }

    pub fn sender_options(&self, address: SocketAddr, follow: bool) -> SenderOptions {
        SenderOptions {
            mirror: None,
            home: Home::at(self.path("home-s")),
            identity: self.sender.clone(),
            source: self.src(),
            target: TargetOptions {
                display: "test::dst".to_owned(),
                host: address.ip().to_string(),
                port: address.port(),
                fingerprint: self.receiver.fingerprint(),
                module: "dst".to_owned(),
                path: RelPath::root(),
            },
            follow,
            quiet: None,
            initial: None,
            deletes: self.deletes,
            delete_limit: self.delete_limit,
            approvals: self.approvals.clone(),
            requests: None,
            audit: false,
            gate: Gate::default(),
            walks: Turns::default(),
            transfers: Turns::default(),
            readings: None,
            watch: self.watch.clone(),
            pending: self.pending.clone(),
            large_files: self.large_files,
            append_only: self.append_only.clone(),
            compare: self.compare,
            look_again: self.look_again,
            gives_up: false,
            accept_root: self.accept_root,
            leaves_root: self.leaves_root,
            filter: self.filter.clone(),
            links: self.links,
            taken_as: self.taken_as,
            modes: self.modes.clone(),
            owners: self.owners.clone(),
            sparing: self.sparing,
            whole_files: self.whole_files,
            delta_engine: self.delta_engine,
            link: LinkOptions::default(),
        }
    }

    pub fn seed_to(&self, address: SocketAddr) -> Result<Summary, DaemonError> {
        sender::run(
            &self.sender_options(address, false),
            &runtime(),
            Arc::new(Silent),
            &Stop::default(),
        )
    }

    /// Starts a receiver, seeds, stops it.
    pub fn seed(&self) -> Result<Summary, DaemonError> {
        let receiver = self.receive();
        let outcome = self.seed_to(receiver.address());
        receiver.stop();
        outcome
    }

    pub fn assert_equal(&self) {
        assert_equal(&self.src(), &self.dst());
    }
}

/// Everything about one entry that a mirror carries.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
}

/// Reads a tree with the standard library alone. Our own private names are left out.
pub fn tree(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.file_name().unwrap().as_bytes();
            if name.starts_with(b".driftless") {
                continue;
            }
            let (kind, content) = match meta.file_type() {
                t if t.is_dir() => {
                    directories.push(path.clone());
                    ('d', Vec::new())
                }
                t if t.is_symlink() => ('l', fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()),
                t if t.is_file() => ('f', blake3::hash(&fs::read(&path).unwrap()).as_bytes().to_vec()),
                _ => continue,
            };
            let mode = if kind == 'l' {
                0
            } else {
                meta.permissions().mode() & 0o7777
            };
            let key = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let mtime = (meta.mtime(), meta.mtime_nsec());
            seen.insert(
                key,
                Seen {
                    kind,
                    mode,
                    owner: (meta.uid(), meta.gid()),
                    mtime,
                    content,
                },
            );
        }
    }
    seen
}

pub fn differences(left: &Path, right: &Path) -> Vec<String> {
    let (left, right) = (tree(left), tree(right));
    let mut found = Vec::new();
    for (path, ours) in &left {
        match right.get(path) {
            None => found.push(format!("{} is missing", path.escape_ascii())),
            Some(theirs) if theirs != ours => {
                found.push(format!("{} differs: {ours:?} {theirs:?}", path.escape_ascii()));
            }
            Some(_) => {}
        }
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        found.push(format!("{} is extra", path.escape_ascii()));
    }
    found
}

pub fn assert_equal(left: &Path, right: &Path) {
    let found = differences(left, right);
    assert!(
        found.is_empty(),
        "{} differences, first: {:#?}",
        found.len(),
        &found[..found.len().min(5)]
    );
}

/// No private name of ours is left anywhere, but for the generation file at the root.
pub fn assert_no_leftovers(root: &Path) {
    assert_no_leftovers_but(root, &[]);
}

/// As [`assert_no_leftovers`], where some of our own names are to be, and with them what they hold.
pub fn assert_no_leftovers_but(root: &Path, wanted: &[&str]) {
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if wanted.iter().any(|wanted| entry.file_name() == *wanted) {
                continue;
            }
            let ours = entry.file_name().as_bytes().starts_with(b".driftless-");
            assert!(
                !ours || entry.file_name() == ".driftless-generation",
                "{} was left",
                entry.path().display()
            );
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
    }
}

/// Waits for phases, and keeps what else was said.
#[derive(Default)]
pub struct Watching {
    state: Mutex<(Option<Phase>, u64)>,
    changed: Condvar,
    said: Mutex<Said>,
}

/// What a sender said beside its phases.
#[derive(Debug, Default, Clone)]
pub struct Said {
    /// How often the whole tree was looked at again.
    pub rescans: u64,
    pub warnings: Vec<String>,
    /// The back end that watches, and what it cannot see.
    pub watcher: String,
    pub degradations: Vec<String>,
    /// What was applied on the target since the trees were first in sync: verb and path.
    pub applied: Vec<(&'static str, String)>,
}

impl Observer for Watching {
    fn applied(&self, verb: &'static str, path: &str) {
        let mut said = self.said.lock().unwrap();
        said.applied.push((verb, path.to_owned()));
    }

    fn rescan(&self) {
        self.said.lock().unwrap().rescans += 1;
    }

    fn warning(&self, text: &str) {
        self.said.lock().unwrap().warnings.push(text.to_owned());
    }

    fn watcher(&self, name: &str, degradations: &[String]) {
        let mut said = self.said.lock().unwrap();
        name.clone_into(&mut said.watcher);
        said.degradations = degradations.to_vec();
    }

    fn phase(&self, phase: &Phase) {
        let mut state = self.state.lock().unwrap();
        state.0 = Some(phase.clone());
        state.1 += 1;
        self.changed.notify_all();
    }
}

impl Watching {
    /// What was said up to now.
    pub fn said(&self) -> Said {
        self.said.lock().unwrap().clone()
    }

    /// Waits until a phase that fits was entered, `PATIENCE` at most.
    pub fn wait_for(&self, what: impl Fn(&Phase) -> bool) -> Phase {
        let state = self.state.lock().unwrap();
        let fits = |state: &mut (Option<Phase>, u64)| !state.0.as_ref().is_some_and(&what);
        let (state, timeout) = self.changed.wait_timeout_while(state, PATIENCE, fits).unwrap();
        assert!(!timeout.timed_out(), "still {:?}", state.0);
        state.0.clone().unwrap()
    }

    pub fn wait_in_sync(&self) {
        self.wait_for(|phase| matches!(phase, Phase::InSync { .. }));
    }
}

/// A sender that follows, on a thread of its own.
pub struct Following {
    pub watching: Arc<Watching>,
    stop: Stop,
    thread: Option<std::thread::JoinHandle<Result<Summary, DaemonError>>>,
}

impl Following {
    pub fn start(options: SenderOptions) -> Following {
        let (watching, stop) = (Arc::new(Watching::default()), Stop::default());
        let thread = std::thread::spawn({
            let (watching, stop) = (watching.clone(), stop.clone());
            move || {
                let outcome = sender::run(&options, &runtime(), watching.clone(), &stop);
                if let Err(error) = &outcome {
                    watching.phase(&Phase::Halted {
                        error: error.to_string(),
                    });
                }
                outcome
            }
        });
        Following {
            watching,
            stop,
            thread: Some(thread),
        }
    }

    pub fn stop(mut self) -> Result<Summary, DaemonError> {
        self.stop.request();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// A test that cannot run here says so, and fails where everything has to run.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits until something holds, `PATIENCE` at most. The condition may fail by panicking while trees change.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::panic::catch_unwind(std::panic::AssertUnwindSafe(&holds)).unwrap_or(false) {
        assert!(std::time::Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits until two trees are equal: the test's own comparison, independent of what either daemon believes.
pub fn wait_equal(left: &Path, right: &Path) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        // A tree that changes while it is read makes `tree` fail; that is only another round.
        let found = std::panic::catch_unwind(|| differences(left, right));
        match found {
            Ok(found) if found.is_empty() => return,
            found => {
                assert!(
                    std::time::Instant::now() < deadline,
                    "still different: {found:#?}"
                );
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
}
