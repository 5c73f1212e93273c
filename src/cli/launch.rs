//! What the commands that run daemons have in common: home, identity, runtime, signals, both ends of a mirror.

use super::appearance::AppearanceArgs;
use super::comparing::ComparingArgs;
use super::filtering::FilteringArgs;
use super::network::NetworkArgs;
use super::origin::Origin;
use super::priority::PriorityArgs;
use super::target::{Target, is_target};
use super::text::escaped;
use super::timing::TimingArgs;
use super::writing::WritingArgs;
use super::{CliError, output};
use crate::daemon::control::{ControlServer, Controlled};
use crate::daemon::home::Home;
use crate::daemon::receiver::{Previous, ReceiverDaemon};
use crate::daemon::status::{StatusBoard, unix_now};
use crate::daemon::{
    DaemonError, Deletes, Gate, Initial, KeptAs, ModuleOptions, Observer, ReceiverOptions, SenderOptions,
    Stop, Summary, TargetOptions, Turns, WatchChoice, WatchOptions, sender,
};
use crate::engine::delta::Engine;
use crate::engine::filter::Filter;
use crate::engine::fuse::{DeleteLimit, DeleteLimitError};
use crate::net::{Compression, LinkOptions, Shortcut, Sockets};
use clap::{Args, ValueEnum};
use driftless_certs::{Fingerprint, Identity, TrustStore};
use driftless_protocol::RelPath;
use driftless_protocol::message::Sparing;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Flags of every command that sends.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SendArgs {
    /// What happens to entries of the target that the source lacks: `always` deletes them, `never` keeps them, `startup`
    /// deletes what is found at the start and keeps what is removed later, `running` does it the other way round. Without
    /// this, a first contact that finds some stops and says how many; later they are deleted
    #[arg(long, value_name = "WHEN", hide_possible_values = true)]
    delete: Option<DeleteWhen>,
    /// What becomes of what differs when SRC and the target first meet: `full` brings the target in sync; `skip` takes both sides as
    /// they are, and sends only what changes at the source from then on, entry by entry (lsyncd's `init = false`). It holds for later
    /// runs, too, until one says `full` [default: full, or what was decided when they first met]
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true)]
    initial: Option<InitialArg>,
    /// How many deletions within ten minutes need no approval: `N` entries, `N%` of all, `N,N%` (whichever is more), or
    /// `none` for any number. With more, nothing is deleted: a daemon waits for `driftless approve`, anything else ends.
    /// What came within these ten minutes is not counted, unless it took the place of something older
    #[arg(long, value_name = "LIMIT", default_value = "1000,25%", value_parser = max_delete)]
    max_delete: MaxDelete,
    /// Send changed files whole, as is worth while where the network is faster than the disks
    #[arg(short = 'W', long)]
    whole_file: bool,
    /// Which engine finds out what changed in a file: driftless or fast_rsync [default: what the receiver was told]. With
    /// fast_rsync nothing is found without asking the receiver for what it has
    #[arg(long, value_name = "ENGINE", conflicts_with = "whole_file")]
    delta_engine: Option<Engine>,
    /// Leave what exists on the target as it is, but for directories (what this run puts there is followed)
    #[arg(long)]
    ignore_existing: bool,
    /// Make nothing on the target that is not there
    #[arg(long, alias = "ignore-non-existing")]
    existing: bool,
    /// Leave files of the target as they are that were modified later than the source's
    #[arg(short, long)]
    update: bool,
    /// Go on although the source is empty, or another directory than before
    #[arg(long)]
    accept_root: bool,
    /// How changes are noticed: `fanotify` (for root), `inotify`, or `poll` (everything is looked at again and again);
    /// `auto` takes the best that works
    #[arg(
        long,
        value_name = "HOW",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    watch: WatchHow,
    /// Log every change that is visible on a target: what was done, to which path, and how large its content is
    #[arg(long)]
    audit: bool,
    #[command(flatten)]
    comparing: ComparingArgs,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Wait so many seconds for an answer when connecting (without it: 5)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    contimeout: Option<u64>,
    #[command(flatten)]
    pub(super) priority: PriorityArgs,
    #[command(flatten)]
    filtering: FilteringArgs,
    #[command(flatten)]
    appearance: AppearanceArgs,
    #[command(flatten)]
    port: PortArg,
}

/// The port of a target.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct PortArg {
    /// UDP port of the receiver [default: that of the trust store, or 4433]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeleteWhen {
    Always,
    Never,
    Startup,
    Running,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InitialArg {
    Full,
    Skip,
}

/// A limit of deletions, if there is to be one.
#[derive(Debug, Clone, Copy)]
struct MaxDelete(Option<DeleteLimit>);

impl Default for MaxDelete {
    fn default() -> MaxDelete {
        MaxDelete(Some(DeleteLimit::default()))
    }
}

fn max_delete(text: &str) -> Result<MaxDelete, DeleteLimitError> {
    match text {
        "none" => Ok(MaxDelete(None)),
        limit => limit.parse().map(|limit| MaxDelete(Some(limit))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum WatchHow {
    #[default]
    Auto,
    Fanotify,
    Inotify,
    Poll,
}

impl SendArgs {
    /// The port, if one was given.
    pub(super) fn port(&self) -> PortArg {
        self.port
    }

    /// How the network is used. One result is for all targets: they share its limit.
    pub(super) fn link(&self) -> LinkOptions {
        let link = self.network.link();
        LinkOptions {
            connect_timeout: self.contimeout.map_or(link.connect_timeout, Duration::from_secs),
            ..link
        }
    }

    /// How a directory on this machine keeps the tree, given what else was said of it.
    pub(super) fn kept_as(&self, kept_as: KeptAs) -> KeptAs {
        self.appearance.kept_as(kept_as)
    }

    /// Of an endpoint, if it is this that listens.
    pub(super) fn network(&self) -> &NetworkArgs {
        &self.network
    }

    /// Whether the flags can be meant of a tree that receivers connect for.
    pub(super) fn check_offered(&self) -> Result<(), CliError> {
        let meaningless = match (self.port.port, self.contimeout) {
            (Some(_), _) => {
                "--port is that of a receiver, and here the receivers connect (say --listen :PORT)"
            }
            (None, Some(_)) => {
                "--contimeout is of whoever connects, and here the receivers do (leave it out)"
            }
            (None, None) => return Ok(()),
        };
        Err(CliError::usage(meaningless))
    }

    /// Whether the flags can be meant together.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.filtering.delete_excluded() && !matches!(self.delete, None | Some(DeleteWhen::Always)) {
            let text = "--delete-excluded goes with --delete always only (leave one out)";
            return Err(CliError::usage(text));
        }
        self.filtering.check()
    }

    /// What SRC stands for; `purpose` is a verb.
    pub(super) fn origin(&self, purpose: &str, source: &Path) -> Result<Origin, CliError> {
        self.filtering.origin(purpose, source)
    }

    /// What is mirrored of a source.
    pub(super) fn filter(&self, origin: &Origin) -> Result<Filter, CliError> {
        self.check()?;
        self.filtering.filter(origin)
    }

    /// Whether the flags can be meant for a target that is not a directory on this machine.
    pub(super) fn check_far(&self) -> Result<(), CliError> {
        self.appearance.check_far()
    }

    /// The options of a sender.
    pub(super) fn options(
        &self,
        session: &Session,
        end: End<'_>,
        origin: &Origin,
        filter: &Filter,
        follow: bool,
    ) -> SenderOptions {
        let deletes = match self.delete {
            None if self.filtering.delete_excluded() => Deletes::Always,
            None => Deletes::Ask,
            Some(DeleteWhen::Always) => Deletes::Always,
            Some(DeleteWhen::Never) => Deletes::Never,
            Some(DeleteWhen::Startup) => Deletes::Startup,
            Some(DeleteWhen::Running) => Deletes::Running,
        };
        let choice = match self.watch {
            WatchHow::Auto => WatchChoice::Auto,
            WatchHow::Fanotify => WatchChoice::Fanotify,
            WatchHow::Inotify => WatchChoice::Inotify,
            WatchHow::Poll => WatchChoice::Poll,
        };
        SenderOptions {
            mirror: None,
            home: session.home.clone(),
            identity: end.identity.clone(),
            source: origin.root.clone(),
            target: end.target.clone(),
            follow,
            quiet: None,
            initial: self.initial.map(|initial| match initial {
                InitialArg::Full => Initial::Full,
                InitialArg::Skip => Initial::Skip,
            }),
            deletes,
            delete_limit: self.max_delete.0,
            approvals: None,
            requests: None,
            audit: self.audit,
            gate: Gate::default(),
            walks: Turns::default(),
            transfers: Turns::default(),
            readings: None,
            watch: WatchOptions {
                choice,
                audit: self.timing.audit(),
                ..WatchOptions::default()
            },
            pending: self.timing.pending(),
            large_files: self.timing.large_files(),
            append_only: self.timing.append_only(),
            compare: self.comparing.compare(),
            look_again: false,
            gives_up: self.network.gives_up(),
            accept_root: self.accept_root,
            leaves_root: origin.is_named(),
            filter: filter.clone(),
            owners: self.appearance.rules(),
            modes: self.appearance.modes(),
            links: self.appearance.links(),
            taken_as: self.appearance.taken_as(),
            whole_files: self.whole_file,
            delta_engine: self.delta_engine,
            sparing: Sparing {
                existing: self.ignore_existing,
                missing: self.existing,
                newer: self.update,
            },
            link: LinkOptions {
                sockets: Some(session.sockets.clone()),
                ..end.link.clone()
            },
        }
    }
}

/// The far end, who this is to it, and how to reach it.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) identity: &'a Identity,
    pub(super) target: &'a TargetOptions,
    pub(super) link: &'a LinkOptions,
}

/// How to connect to a receiver in this process. With a limit, over the loopback device: that is what the limit is on.
fn local_link(link: &LinkOptions, sender: Fingerprint) -> LinkOptions {
    if link.limiter.is_some() {
        return link.clone();
    }
    LinkOptions {
        shortcut: Some(Shortcut::new(sender)),
        compression: Compression::Off,
        ..link.clone()
    }
}

/// A process that runs daemons. Who it is to its peers is an [`Identity`], but for a receiver whose key is in another process.
pub(super) struct Session<I = Identity> {
    pub(super) home: Home,
    pub(super) identity: I,
    pub(super) stop: Stop,
    /// For all connections to targets.
    pub(super) sockets: Sockets,
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Session {
    /// Finds home and identity, starts the network's threads, and turns SIGINT and SIGTERM into a wish to stop.
    pub(super) fn open() -> Result<Session, CliError> {
        let home = Home::discover()?;
        let identity = Identity::load_or_create(&home.identity_dir())?;
        Session::begin(home, identity)
    }
}

impl<I> Session<I> {
    /// The same with what was found already.
    pub(super) fn begin(home: Home, identity: I) -> Result<Session<I>, CliError> {
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("net")
            .enable_all()
            .build()
            .map_err(|error| CliError::failed(format!("cannot start the network's threads: {error}")))?;
        let (stop, handle) = (Stop::default(), runtime.handle().clone());
        stop_on_signals(&runtime, &stop)
            .and_then(|()| outlive_size_limits(&runtime))
            .map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))?;
        Ok(Session {
            home,
            identity,
            stop,
            sockets: Sockets::default(),
            runtime: Some(runtime),
            handle,
        })
    }

    /// For the daemons.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The control socket. A daemon without one does its work, but cannot be asked.
    pub(super) fn control(&self, role: &str, daemons: Arc<dyn Controlled>) -> Option<ControlServer> {
        ControlServer::start(&self.home, role, daemons)
            .map_err(|error| output::note(&format!("`driftless status` will not see this process: {error}")))
            .ok()
    }
}

impl Session {
    /// Runs a sender to its end. One that follows and is stopped while in sync has ended in sync.
    pub(super) fn send(
        &self,
        options: &SenderOptions,
        observer: Arc<dyn Observer>,
        board: &StatusBoard,
    ) -> Result<Summary, DaemonError> {
        self.send_until(options, observer, board, &self.stop)
    }

    /// Runs a sender until one of several that stop apart is asked to stop.
    pub(super) fn send_until(
        &self,
        options: &SenderOptions,
        observer: Arc<dyn Observer>,
        board: &StatusBoard,
        stop: &Stop,
    ) -> Result<Summary, DaemonError> {
        let options = &SenderOptions {
            approvals: Some(board.approvals()),
            requests: Some(board.requests()),
            ..options.clone()
        };
        board.set_options(options, &self.handle);
        let mut summary = sender::run(options, &self.handle, observer, stop)?;
        if options.follow
            && stop.is_requested()
            && let Some(sequence) = board.in_sync()
        {
            summary.in_sync = true;
            summary.sequence = sequence;
        }
        Ok(summary)
    }

    /// From now on stopping needs no manners: nothing is written.
    pub(super) fn exit_when_stopped(&self, status: impl Fn() -> u8 + Send + 'static) {
        let (stop, asked) = (self.stop.clone(), self.stop.channel());
        let watch = std::thread::Builder::new().name("stop".to_owned());
        let _ = watch.spawn(move || {
            let _ = asked.recv();
            // The channel also ends with the last `stop`; this thread's own keeps it open until the process ends.
            if stop.is_requested() {
                std::process::exit(status().into());
            }
        });
    }

    /// A failure together with who and where this is.
    pub(super) fn explain(&self, error: CliError) -> CliError {
        let here = format!(
            "(this is identity {} of the home {})",
            self.identity.fingerprint(),
            self.home
        );
        match error {
            CliError::Failed(text) => CliError::Failed(format!("{text}\n  {here}")),
            other => other,
        }
    }
}

impl<I> Drop for Session<I> {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name that is still being looked up would hold up the end of the process for its whole time.
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// The first signal asks to stop, the second does not ask. SIGHUP keeps its meaning, so that `nohup` works.
fn stop_on_signals(runtime: &Runtime, stop: &Stop) -> io::Result<()> {
    let _context = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = stop.clone();
    runtime.spawn(async move {
        loop {
            let status = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if stop.is_requested() {
                // Safe at any moment: that is what the crash rules are for.
                std::process::exit(status);
            }
            stop.request();
        }
    });
    Ok(())
}

/// A write beyond the largest file that this process may make (`ulimit -f`, `LimitFSIZE=`) is an error of that file, and not the end of
/// everything, which is what the signal means otherwise. Handled, and not ignored, because programs would inherit that.
fn outlive_size_limits(runtime: &Runtime) -> io::Result<()> {
    let _context = runtime.enter();
    // What is never waited for does nothing.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

/// Where to send to.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// A directory here.
    Directory(PathBuf),
    /// A module there.
    Target(TargetOptions),
}

/// Tells directories and targets apart.
pub(super) fn destination(word: &OsStr, port: PortArg, home: &Home) -> Result<Destination, CliError> {
    if is_target(word) {
        return Ok(Destination::Target(target(word, port, home)?));
    }
    if port.port.is_some() {
        return Err(CliError::usage(format!(
            "--port has no meaning for the directory {} (leave it out)",
            escaped(word)
        )));
    }
    Ok(Destination::Directory(PathBuf::from(word)))
}

/// A target, resolved by the trust store.
pub(super) fn target(word: &OsStr, port: PortArg, home: &Home) -> Result<TargetOptions, CliError> {
    if !is_target(word) {
        let text = escaped(word);
        return Err(CliError::usage(format!(
            "{text} is a directory, where a target is needed: HOST::MODULE[/PATH] or driftless://HOST:PORT/MODULE[/PATH] \
             (for a directory on this machine: `driftless mirror SRC {text}`)"
        )));
    }
    let target = Target::parse(word)?;
    let trust = TrustStore::open(&home.peers_file())?;
    target
        .resolve(port.port, &trust, unix_now())
        .map_err(|error| CliError::usage(format!("{error}; home {home}")))
}

/// The canonical path of a directory that exists; `purpose` is a verb.
pub(super) fn existing_directory(purpose: &str, path: &Path) -> Result<PathBuf, CliError> {
    let failed = |cause: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot {purpose} {}: {cause}", escaped(path)))
    };
    let found = path.canonicalize().map_err(|error| failed(&error))?;
    // Needs the right to enter it, and is the first thing that the walk does.
    std::fs::read_dir(&found).map_err(|error| failed(&error))?;
    Ok(found)
}

/// The name of a directory here as a module. Its state is found by that, so it has to stand for the directory.
pub(super) fn local_module(path: &Path) -> String {
    let hash = blake3::derive_key("driftless 2026-01 local module v1", path.as_os_str().as_bytes());
    format!("local-{}", data_encoding::HEXLOWER.encode(&hash[..12]))
}

/// A directory here, given by its canonical path, as a target.
pub(super) fn local_target(path: &Path, fingerprint: Fingerprint, port: u16) -> TargetOptions {
    TargetOptions {
        display: escaped(path),
        host: Ipv4Addr::LOCALHOST.to_string(),
        port,
        fingerprint,
        module: local_module(path),
        path: RelPath::root(),
    }
}

/// A directory here as the far end: a receiver in this process that lets in one throw-away identity and nobody else.
pub(super) struct LocalEnd {
    daemon: ReceiverDaemon,
    identity: Identity,
    target: TargetOptions,
    link: LinkOptions,
}

impl LocalEnd {
    /// Starts the receiver for a canonical path.
    pub(super) fn start(
        session: &Session,
        path: &Path,
        link: &LinkOptions,
        writing: &WritingArgs,
        kept_as: impl FnOnce(KeptAs) -> KeptAs,
    ) -> Result<LocalEnd, CliError> {
        LocalEnd::version(session, path, link, writing, kept_as, None)
    }

    /// The same, of a directory that begins as a version of another.
    pub(super) fn version(
        session: &Session,
        path: &Path,
        link: &LinkOptions,
        writing: &WritingArgs,
        kept_as: impl FnOnce(KeptAs) -> KeptAs,
        previous: Option<Previous>,
    ) -> Result<LocalEnd, CliError> {
        let (sender, receiver) = (Identity::ephemeral()?, Identity::ephemeral()?);
        let fingerprint = receiver.fingerprint();
        let link = local_link(link, sender.fingerprint());
        let offered = writing.module(local_module(path), path.to_owned())?;
        let module = ModuleOptions {
            kept_as: kept_as(offered.kept_as),
            previous,
            ..offered
        };
        let options = ReceiverOptions {
            home: session.home.clone(),
            identity: receiver.into(),
            machine: Some(session.identity.fingerprint()),
            modules: vec![module],
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow: vec![sender.fingerprint()],
            link: LinkOptions {
                limiter: None,
                ..link.clone()
            },
            delta_engine: Engine::default(),
        };
        let daemon = ReceiverDaemon::start(options, session.handle())?;
        let target = local_target(path, fingerprint, daemon.address().port());
        Ok(LocalEnd {
            daemon,
            identity: sender,
            target,
            link,
        })
    }

    /// How the sender sees it.
    pub(super) fn end(&self) -> End<'_> {
        End {
            identity: &self.identity,
            target: &self.target,
            link: &self.link,
        }
    }

    /// Flushes and releases the directory.
    pub(super) fn stop(self) {
        self.daemon.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Limiter, Schedule};

    #[test]
    fn who_connects_waits_as_long_as_was_said() {
        #[derive(Debug, clap::Parser)]
        struct Parsed {
            #[command(flatten)]
            send: SendArgs,
        }
        let parsed = |words: &[&str]| <Parsed as clap::Parser>::try_parse_from([&["x"], words].concat());
        let wait = |words: &[&str]| parsed(words).unwrap().send.link().connect_timeout.as_secs();
        assert_eq!((wait(&[]), wait(&["--contimeout=9"])), (5, 9));
        assert!(parsed(&["--contimeout=x"]).is_err() && parsed(&["--contimeout=0"]).is_err());
    }

    #[test]
    fn a_limit_holds_for_a_directory_here_too() {
        let schedule: Schedule = "100k".parse().unwrap();
        let limited = LinkOptions {
            limiter: Some(Arc::new(Limiter::new(schedule))),
            ..LinkOptions::default()
        };
        let sender = Identity::ephemeral().unwrap().fingerprint();
        let limited = local_link(&limited, sender);
        assert!(limited.shortcut.is_none() && limited.limiter.is_some());
        assert!(local_link(&LinkOptions::default(), sender).shortcut.is_some());
    }
}
