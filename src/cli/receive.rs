//! `driftless receive`: the receiver daemon.

use super::confinement::{Confine, ConfineArgs};
use super::daemon::HEAPS;
use super::hooking::{self, ReceiverHooksArgs};
use super::launch::{Session, existing_directory};
use super::network::NetworkArgs;
use super::priority::PriorityArgs;
use super::target::{DEFAULT_PORT, Target, check_module, is_target};
use super::text::{escaped, quoted};
use super::transport::Running;
use super::writing::OfferArgs;
use super::{CliError, DONE, output};
use crate::daemon::control::{Controlled, ForgetModule, Obeyed, Order};
use crate::daemon::forget::Cleared;
use crate::daemon::home::Home;
use crate::daemon::notify::{State, notify};
use crate::daemon::receiver::{Entrance, Fencer, PullOptions, ReceiverDaemon};
use crate::daemon::status::{DaemonStatus, ReceiverStatus, STATUS_VERSION, unix_now};
use crate::daemon::{DaemonError, Own, ReceiverOptions, TargetOptions};
use crate::engine::delta::Engine;
use crate::engine::hosts::Hosts;
use crate::fs::limit_heaps;
use crate::net::separation::Callee;
use crate::net::{LinkOptions, Sockets};
use clap::Args;
use crossbeam_channel::select;
use driftless_certs::{Fingerprint, Identity, TrustStore};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Receive into DIR: the receiver daemon
///
/// Prints one line when it is ready. Peers are let in by `driftless invite`, `driftless peers add` or --allow.
#[derive(Debug, Args)]
pub(super) struct ReceiveArgs {
    /// The directory that is offered
    dir: PathBuf,
    /// Under which name [default: that of DIR]
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// Pull: connect to a sender that offers trees (`driftless serve`) and have this one sent, in place of listening. For receivers
    /// that nobody can connect to: HOST::TREE or driftless://[FINGERPRINT@]HOST:PORT/TREE
    #[arg(long, value_name = "HOST::TREE", conflicts_with_all = ["listen", "allow", "hosts_allow", "hosts_deny"])]
    from: Option<OsString>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    offer: OfferArgs,
    #[command(flatten)]
    priority: PriorityArgs,
    #[command(flatten)]
    hooks: ReceiverHooksArgs,
    #[command(flatten)]
    confine: ConfineArgs,
    /// Print the line as JSON
    #[arg(long)]
    json: bool,
}

/// Where a receiver listens, and who may come.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct EndpointArgs {
    /// Where to listen (UDP): IP:PORT, IP or :PORT [default: port 4433 of all addresses]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Option<Listen>,
    /// Let this peer write, whatever the trust store says; may be repeated
    #[arg(long, value_name = "FINGERPRINT")]
    pub(super) allow: Vec<Fingerprint>,
}

/// What a receiver says to senders that do not choose.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SigningArgs {
    /// Which engine makes deltas of changed files: driftless or fast_rsync. A sender may choose another
    #[arg(long, value_name = "ENGINE", default_value_t)]
    pub(super) delta_engine: Engine,
}

impl EndpointArgs {
    /// As if it had been said so.
    pub(super) fn new(listen: Option<Listen>, allow: Vec<Fingerprint>) -> EndpointArgs {
        EndpointArgs { listen, allow }
    }

    /// The address to listen on.
    pub(super) fn address(&self) -> SocketAddr {
        self.listen.unwrap_or(Listen::Everywhere(DEFAULT_PORT)).address()
    }
}

/// Where to listen, as the user said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listen {
    At(SocketAddr),
    Everywhere(u16),
}

impl ReceiveArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let path = existing_directory("receive into", &self.dir)?;
        let module = match &self.module {
            Some(name) => name.clone(),
            None => default_name(&path, "a module (choose one with --module NAME)")?,
        };
        check_module(&module)
            .map_err(|fault| CliError::usage(format!("{fault} (choose another with --module)")))?;
        let offered = self.offer.module(module.clone(), path.clone())?;
        self.priority.apply()?;
        limit_heaps(HEAPS);
        let listen = self.endpoint.address();
        let home = Home::discover()?;
        let from = self
            .from
            .as_deref()
            .map(|word| tree_of(word, &home))
            .transpose()?;
        // Before there is any thread.
        let hooks = self.hooks.start(&module)?;
        let listening = from.is_none().then_some(listen);
        let mut confine = Confine::enter(&self.confine, &home, &offered, listening, verbose)?;
        let mut running = confine.take_running();
        let own = match &running {
            Some(running) => Own::Apart(running.transport.clone()),
            None => Own::Key(Identity::load_or_create(&home.identity_dir())?),
        };
        let session = Session::begin(home, own)?;
        if let Some(running) = &mut running {
            let heard = running.listen_to_log();
            heard.map_err(|error| CliError::failed(format!("cannot start a thread: {error}")))?;
        }
        let hooks = hooks.map(hooking::follow).transpose()?;
        let options = ReceiverOptions {
            home: session.home.clone(),
            identity: session.identity.clone(),
            machine: None,
            modules: vec![offered],
            listen,
            allow: self.endpoint.allow.clone(),
            link: self.network.link(),
            delta_engine: self.signing.delta_engine,
        };
        let entrance = Entrance {
            listens: from.is_none(),
            ..Entrance::default()
        };
        let daemon = ReceiverDaemon::start_behind(options, entrance, session.handle())?;
        if let Some(from) = &from {
            let runtime = running.is_none().then(|| session.handle());
            pull(&daemon, from, &module, &self.network, runtime)?;
        }
        let (source, protections) = (daemon.status_source(), confine.shared());
        let asked = Asked {
            status: Box::new(move || {
                let protections = protections.get().cloned().unwrap_or_default();
                ReceiverStatus {
                    protections,
                    ..source()
                }
            }),
            forget: Box::new(daemon.forgetter()),
            fencer: daemon.fencer(),
        };
        let control = session.control("receiver", Arc::new(asked));
        // Later no socket can be made to tell it by.
        notify(State::Ready, &format!("receiving module {module}"));
        if let Err(error) = confine.close() {
            daemon.stop();
            return Err(error);
        }
        let (address, identity, path) = (daemon.listening(), session.identity.fingerprint(), escaped(&path));
        if self.json {
            let from = from.as_ref().map(|tree| &tree.from.display);
            output::json(
                &json!({"version": STATUS_VERSION, "event": "ready", "module": module, "path": path,
                "address": address, "from": from, "identity": identity.to_string()}),
            );
        } else {
            let way = match (&from, address) {
                (Some(tree), _) => format!("from {}", tree.from),
                (None, address) => address.map_or_else(String::new, |address| format!("on {address}")),
            };
            output::line(&format!(
                "receiving module {module} in {path} {way}; identity {identity}"
            ));
        }
        if from.is_none() {
            self.hint(&session, &module);
        }
        let ended = wait(&session, running.as_ref());
        drop(control);
        daemon.stop();
        // What was done last is told them first.
        drop(hooks);
        let status = running.and_then(Running::end);
        ended.map_err(|text| match status {
            Some(status) => CliError::failed(format!("{text} ({status})")),
            None => CliError::failed(text),
        })
    }

    /// What the process that speaks to the network needs of the options: where it listens, whom it calls, who is answered, and
    /// how.
    pub(super) fn outside(
        &self,
    ) -> Result<(Option<SocketAddr>, Option<Callee>, Hosts, LinkOptions), CliError> {
        let listen = self.from.is_none().then(|| self.endpoint.address());
        let tree = self.from.as_deref().map(Target::parse).transpose()?;
        let callee = tree.map(|tree| Callee {
            fingerprint: tree.fingerprint,
            // Without a fingerprint even an address may be a name of the trust store.
            ip: tree.fingerprint.and_then(|_| tree.host.parse().ok()),
            port: tree.port.or_else(|| tree.fingerprint.map(|_| DEFAULT_PORT)),
        });
        Ok((listen, callee, self.offer.hosts.hosts(), self.network.link()))
    }

    /// A receiver that lets nobody in is most likely a first one.
    fn hint<I>(&self, session: &Session<I>, module: &str) {
        if self.endpoint.allow.is_empty()
            && TrustStore::open(&session.home.peers_file()).is_ok_and(|trust| trust.peers().is_empty())
        {
            let module = quoted(module);
            output::note(&format!(
                "no peer may write here yet: run `driftless invite --module {module}` in another terminal"
            ));
        }
    }
}

/// Waits until stopping is asked, or nobody speaks to the network any more.
fn wait<I>(session: &Session<I>, running: Option<&Running>) -> Result<u8, String> {
    // It ends when the last sender of the channel is gone, which is when stopping is asked.
    let stop = session.stop.channel();
    let Some(running) = running else {
        let _ = stop.recv();
        return Ok(DONE);
    };
    select! {
        recv(stop) -> _ => Ok(DONE),
        recv(running.transport.gone()) -> _ => Err("the process that speaks to the network has ended, and so does this \
            one: start it again, as a service manager does".to_owned()),
    }
}

/// What the process answers on its control socket.
struct Asked {
    status: Box<dyn Fn() -> ReceiverStatus + Send + Sync>,
    forget: Box<Forgetter>,
    fencer: Box<Fencer>,
}

/// Forgets a module of a running receiver.
pub(super) type Forgetter = dyn Fn(&str, bool) -> Option<Result<Cleared, DaemonError>> + Send + Sync;

impl Controlled for Asked {
    fn status(&self) -> Vec<DaemonStatus> {
        vec![DaemonStatus::Receiver((self.status)())]
    }

    fn forget_module(&self, wanted: &ForgetModule) -> Option<Result<Cleared, String>> {
        let outcome = (self.forget)(&wanted.name, wanted.with_kept)?;
        Some(outcome.map_err(|error| error.to_string()))
    }

    fn obey(&self, order: &Order) -> Obeyed {
        match order {
            Order::Fence(module) => Obeyed::of_fence((self.fencer)(module)),
            _ => Obeyed::Unknown,
        }
    }
}

/// The name of a directory, to name what it is.
pub(super) fn default_name(path: &Path, what: &str) -> Result<String, CliError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| check_module(name).is_ok());
    let fault = || CliError::usage(format!("the name of {} cannot name {what}", escaped(path)));
    name.map(str::to_owned).ok_or_else(fault)
}

/// A tree that somebody offers.
#[derive(Debug, Clone)]
pub(super) struct OfferedTree {
    /// Who, and which.
    pub(super) from: TargetOptions,
    /// The user gave the fingerprint; otherwise it is that of the trust store.
    is_pinned: bool,
}

/// A tree that somebody offers, resolved by the trust store.
pub(super) fn tree_of(word: &OsStr, home: &Home) -> Result<OfferedTree, CliError> {
    if !is_target(word) {
        let text = format!(
            "{} is a directory, where a tree is needed that another machine offers: HOST::TREE or \
             driftless://[FINGERPRINT@]HOST:PORT/TREE (for a directory on this machine: `driftless mirror`)",
            escaped(word)
        );
        return Err(CliError::usage(text));
    }
    let tree = Target::parse(word)?;
    let trust = TrustStore::open(&home.peers_file())?;
    let from = tree
        .resolve(None, &trust, unix_now())
        .map_err(|error| CliError::usage(format!("{}; home {home}", error.of_pull())))?;
    if !from.path.is_root() {
        let text =
            format!("{from} names a directory of a tree; a tree is pulled as a whole (leave the path out)");
        return Err(CliError::usage(text));
    }
    Ok(OfferedTree {
        from,
        is_pinned: tree.fingerprint.is_some(),
    })
}

/// Has a module filled by pulling. All sockets are open when this returns; no runtime is given if another process has them.
pub(super) fn pull(
    daemon: &ReceiverDaemon,
    tree: &OfferedTree,
    module: &str,
    network: &NetworkArgs,
    runtime: Option<&Handle>,
) -> Result<(), CliError> {
    let mut link = network.link();
    if let Some(runtime) = runtime {
        let sockets = Sockets::limited(link.limiter.clone());
        sockets
            .open_all(runtime)
            .map_err(|error| CliError::failed(format!("cannot open a socket: {error}")))?;
        link.sockets = Some(sockets);
    }
    let options = PullOptions {
        from: tree.from.clone(),
        is_pinned: tree.is_pinned,
        module: module.to_owned(),
        link,
    };
    Ok(daemon.pull(options)?)
}

impl Listen {
    fn address(self) -> SocketAddr {
        match self {
            Listen::At(address) => address,
            // Both kinds of addresses on one socket, except where the kernel has no IPv6.
            Listen::Everywhere(port) if UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() => {
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
            }
            Listen::Everywhere(port) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        }
    }
}

pub(super) fn parse_listen(text: &str) -> Result<Listen, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen::At(address));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Listen::At(SocketAddr::new(ip, DEFAULT_PORT)));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(port) = port.parse()
    {
        return Ok(Listen::Everywhere(port));
    }
    Err("write IP:PORT, IP or :PORT, IPv6 addresses in brackets, as in [::1]:4433".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_are_read() {
        let at = |text: &str| Ok(Listen::At(text.parse().unwrap()));
        for (text, wanted) in [
            ("127.0.0.1:0", at("127.0.0.1:0")),
            ("[::1]:80", at("[::1]:80")),
            ("10.0.0.1", at("10.0.0.1:4433")),
            ("::1", at("[::1]:4433")),
            ("[::1]", at("[::1]:4433")),
            (":5000", Ok(Listen::Everywhere(5000))),
            ("5000", Ok(Listen::Everywhere(5000))),
        ] {
            assert_eq!(parse_listen(text), wanted, "{text}");
        }
        for text in ["", ":", "nas:80", "70000", "1.2.3.4:x", "+80"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_module_is_called_like_its_directory() {
        assert_eq!(
            default_name(Path::new("/srv/photos"), "it").ok().as_deref(),
            Some("photos")
        );
        for path in ["/", "/srv/a:b", "/srv/ x"] {
            assert!(
                matches!(default_name(Path::new(path), "it"), Err(CliError::Usage(_))),
                "{path}"
            );
        }
    }
}
