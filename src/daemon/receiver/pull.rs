//! A module that is filled by pulling: the receiver connects to a sender that offers the tree, again and again, and receives as
//! ever. For receivers that nobody can connect to.

use super::guests::UNREADABLE_LOOKS;
use super::{Shared, lock};
use crate::daemon::backoff::{BACKOFF_MAX, SILENCE_BACKOFF_MAX, backoff};
use crate::daemon::home::Home;
use crate::daemon::status::{PullStatus, unix_now};
use crate::daemon::{DaemonError, Own, Stop, TargetOptions};
use crate::net::{ConnectError, LinkEnd, LinkHandle, LinkOptions, ReceiverLink, resolve};
use crossbeam_channel::{bounded, select};
use driftless_certs::{Rights, TrustStore, sender_config};
use driftless_protocol::CloseCode;
use driftless_protocol::limits::OWNERS_TOTAL_MAX;
use driftless_protocol::message::{ModuleName, Open, Purpose, ToReceiver};
use driftless_protocol::version::ALPN_PULL;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What to pull, and into which module.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Who offers it: the module is the name of the tree there, the path is the root.
    pub from: TargetOptions,
    /// Whoever gave the fingerprint trusts it, whatever the trust store says; otherwise it is from there.
    pub is_pinned: bool,
    /// The module here.
    pub module: String,
    /// Windows, timeouts and the like; it needs sockets.
    pub link: LinkOptions,
}

/// A module that is being filled.
#[derive(Debug)]
pub(super) struct Pull {
    pub(super) options: PullOptions,
    stop: Stop,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    link: Option<LinkHandle>,
    phase: &'static str,
    since: u64,
    error: Option<String>,
    /// Looks in a row at a trust store that could not be read.
    unreadable: u32,
}

/// Why there is no connection, and how long the next try may be put off.
struct Failure {
    error: String,
    longest: Duration,
}

impl Pull {
    pub(super) fn new(options: PullOptions) -> Pull {
        let now = Now {
            link: None,
            phase: "connecting",
            since: unix_now(),
            error: None,
            unreadable: 0,
        };
        Pull {
            options,
            stop: Stop::default(),
            now: Mutex::new(now),
        }
    }

    /// Asks it to end, now.
    pub(super) fn stop(&self) {
        self.stop.request();
        if let Some(link) = &lock(&self.now).link {
            link.close(CloseCode::Done, "the receiver stops");
        }
    }

    pub(super) fn report(&self) -> PullStatus {
        let now = lock(&self.now);
        PullStatus {
            module: self.options.module.clone(),
            from: self.options.from.display.clone(),
            peer: self.options.from.fingerprint.to_string(),
            phase: now.phase.to_owned(),
            since: now.since,
            error: now.error.clone(),
        }
    }

    /// Ends the connection that is there, if there is one.
    fn hang_up(&self, text: &str) {
        if let Some(link) = &lock(&self.now).link {
            tracing::warn!(module = self.options.module, "{}: {text}", self.options.from);
            // The sender goes on to wait for a call.
            link.close(CloseCode::Done, "this sender is no longer trusted here");
        }
    }

    /// Why the sender is not trusted any more; none if it is. A trust store that cannot be read says nothing at the first look.
    fn distrust(&self, home: &Home) -> Option<String> {
        if self.options.is_pinned {
            return None;
        }
        let TargetOptions {
            fingerprint, module, ..
        } = &self.options.from;
        let add = format!("`driftless peers add {fingerprint}` here, with --name and --address");
        match TrustStore::open(&home.peers_file()) {
            Ok(trust) => {
                lock(&self.now).unreadable = 0;
                match trust.find(fingerprint) {
                    None => Some(format!(
                        "the peer {fingerprint} is no longer trusted here, so nothing is pulled from it (to trust it again, pair anew \
                         by `driftless invite --tree {module}` there, or run {add})"
                    )),
                    Some(peer) if peer.expires.is_some_and(|expires| unix_now() >= expires) => Some(format!(
                        "the trust in peer {} has expired, so nothing is pulled from it (pair anew by `driftless invite --tree \
                         {module}` there, or run {add})",
                        peer.name
                    )),
                    Some(_) => None,
                }
            }
            Err(error) => {
                let mut now = lock(&self.now);
                now.unreadable += 1;
                (now.unreadable >= UNREADABLE_LOOKS).then(|| error.to_string())
            }
        }
    }

    fn enter(&self, phase: &'static str) {
        let mut now = lock(&self.now);
        if now.phase != phase {
            (now.phase, now.since) = (phase, unix_now());
        }
    }

    /// Notes why it is not connected. True if that is news.
    fn note_error(&self, error: &str) -> bool {
        let mut now = lock(&self.now);
        now.error.replace(error.to_owned()).as_deref() != Some(error)
    }

    /// The link is there, until it is taken away with none.
    fn hold(&self, link: Option<LinkHandle>) {
        lock(&self.now).link = link;
        if self.stop.is_requested() {
            self.stop();
        }
    }
}

impl Shared {
    /// Ends the connections to senders that are not trusted any more. To be called now and then.
    pub(super) fn end_untrusted_pulls(&self) {
        for (pull, _) in lock(&self.pulls).iter() {
            if let Some(text) = pull.distrust(&self.options.home) {
                pull.hang_up(&text);
            }
        }
    }

    /// Connects and receives until asked to stop.
    pub(super) fn run_pull(self: &Arc<Self>, pull: &Pull, runtime: &tokio::runtime::Handle) {
        let mut tries = 0;
        while !pull.stop.is_requested() {
            pull.enter("connecting");
            let began = Instant::now();
            let failure = match pull.distrust(&self.options.home) {
                Some(error) => Failure {
                    error,
                    longest: BACKOFF_MAX,
                },
                None => match self.connect(pull, runtime) {
                    Some(Ok(link)) => self.receive(&link, pull),
                    Some(Err(failure)) => failure,
                    None => return,
                },
            };
            if pull.stop.is_requested() {
                return;
            }
            if began.elapsed() > BACKOFF_MAX {
                tries = 0;
            }
            tries += 1;
            let Failure { error, longest } = failure;
            if pull.note_error(&error) {
                let from = &pull.options.from;
                tracing::warn!(module = pull.options.module, "{from}: {error}; it is tried again");
            }
            pull.enter("waiting");
            // Ends early when stopping is asked.
            let _ = pull.stop.channel().recv_timeout(backoff(tries, longest));
        }
    }

    /// Connects on a thread of its own, so that stopping need not wait for a silent network. None when asked to stop.
    fn connect(
        self: &Arc<Self>,
        pull: &Pull,
        runtime: &tokio::runtime::Handle,
    ) -> Option<Result<ReceiverLink, Failure>> {
        let (options, identity) = (pull.options.clone(), self.options.identity.clone());
        let runtime = runtime.clone();
        let (told, outcome) = bounded(1);
        let work = move || {
            let PullOptions { from, link, .. } = &options;
            let connected = resolve(&from.host, from.port).and_then(|addresses| {
                let tree = ModuleName(from.module.clone().into_bytes());
                let identity = match &identity {
                    Own::Key(identity) => identity,
                    Own::Apart(transport) => return transport.call(from.fingerprint, &addresses, &tree),
                };
                let tls = sender_config(identity, from.fingerprint, &[ALPN_PULL])
                    .map_err(|error| ConnectError::Failed(error.to_string()))?;
                ReceiverLink::call(&runtime, tls, (from.fingerprint, &addresses), tree, link)
            });
            if let Ok(link) = &connected {
                link.follow_name(&runtime, &from.host, from.port);
            }
            let _ = told
                .send(connected.map_err(|error| failure(&error, from, &identity.fingerprint().to_string())));
        };
        let spawned = std::thread::Builder::new().name("connect".to_owned()).spawn(work);
        if let Err(error) = spawned {
            let error = format!("cannot start a thread: {error}");
            return Some(Err(Failure {
                error,
                longest: BACKOFF_MAX,
            }));
        }
        select! {
            recv(outcome) -> outcome => outcome.ok(),
            recv(pull.stop.channel()) -> _ => None,
        }
    }

    /// Serves a connection to its end.
    fn receive(self: &Arc<Self>, link: &ReceiverLink, pull: &Pull) -> Failure {
        pull.hold(Some(link.handle()));
        pull.enter("preparing");
        let from = &pull.options.from;
        tracing::info!(
            module = pull.options.module,
            "connected to {from}, which gets ready"
        );
        let ended = self.receive_opened(link, pull);
        pull.hold(None);
        if let Err((code, text)) = &ended {
            link.close(*code, text);
        }
        let distrust = pull.distrust(&self.options.home);
        let error = match (ended, link.ended()) {
            _ if distrust.is_some() => distrust.unwrap_or_default(),
            (Err((_, text)), _) => text,
            (Ok(()), Some(end)) => said(&end),
            (Ok(()), None) => "the connection ended".to_owned(),
        };
        Failure {
            error,
            longest: BACKOFF_MAX,
        }
    }

    fn receive_opened(self: &Arc<Self>, link: &ReceiverLink, pull: &Pull) -> Result<(), (CloseCode, String)> {
        let mut owners = Vec::new();
        // The sender may have to walk its tree first, for as long as that takes.
        let open = loop {
            match link.incoming().recv() {
                Ok(ToReceiver::Open(open)) => break open,
                Ok(ToReceiver::Owners(rows)) if owners.len() + rows.0.len() <= OWNERS_TOTAL_MAX => {
                    owners.extend(rows.0);
                }
                Ok(ToReceiver::Owners(_)) => return Err((CloseCode::Limit, "too many owners".to_owned())),
                Ok(_) => {
                    let text = "the first message was not an opening".to_owned();
                    return Err((CloseCode::Violation, text));
                }
                Err(_) => return Ok(()),
            }
        };
        check_opening(&open, &pull.options)?;
        let module = self.module(&pull.options.module).ok_or_else(|| {
            let text = format!("the module {} is not offered any more", pull.options.module);
            (CloseCode::Unable, text)
        })?;
        pull.enter("receiving");
        lock(&pull.now).error = None;
        // Who pulls has chosen the sender for this directory; what the module itself does not take, no right gives.
        self.serve_mirror(link, &open, &owners, &module, Rights::ALL)
    }
}

/// A sender fills the module that was meant for it, and nothing else.
fn check_opening(open: &Open, options: &PullOptions) -> Result<(), (CloseCode, String)> {
    let is_meant = open.purpose == Purpose::Mirror
        && open.path.is_root()
        && open.module.0 == options.from.module.as_bytes();
    match is_meant {
        true => Ok(()),
        false => {
            let text = "the sender opened something else than the tree that it was asked for".to_owned();
            Err((CloseCode::Violation, text))
        }
    }
}

fn said(end: &LinkEnd) -> String {
    match end {
        LinkEnd::Closed {
            text, by_peer: true, ..
        } if !text.is_empty() => format!("the sender ended the connection: {text}"),
        end => end.to_string(),
    }
}

fn failure(error: &ConnectError, from: &TargetOptions, own: &str) -> Failure {
    let longest = match error {
        ConnectError::NoAnswer { .. } => SILENCE_BACKOFF_MAX,
        _ => BACKOFF_MAX,
    };
    let error = match error {
        ConnectError::Refused {
            code: CloseCode::NotAllowed,
            ..
        } => format!(
            "the sender does not let this receiver pull {tree}; on the sender run `driftless peers add {own} --tree {tree}` or \
             `driftless invite --tree {tree}`",
            tree = from.module
        ),
        ConnectError::Refused { text, .. } => format!("the sender refused: {text}"),
        ConnectError::NoAnswer {
            address,
            port,
            seconds,
        } => format!(
            "no answer from {address} on UDP within {seconds} s: does the sender offer its trees there, and does a firewall let UDP \
             port {port} through?"
        ),
        ConnectError::WrongPeer { text } => format!(
            "another sender answers at {}:{}: {text} (compare with `driftless id` there; if its key is a new one, `driftless peers \
             remove` here and pair again)",
            from.host, from.port
        ),
        ConnectError::Failed(text) => format!("cannot connect: {text}"),
    };
    Failure { error, longest }
}

impl super::ReceiverDaemon {
    /// Fills a module that is offered here from a sender that offers trees, from now on until the module is withdrawn.
    pub fn pull(&self, options: PullOptions) -> Result<(), DaemonError> {
        let pull = Arc::new(Pull::new(options));
        let (shared, runtime) = (self.shared.clone(), self.runtime.clone());
        let spawned = std::thread::Builder::new().name("pull".to_owned()).spawn({
            let pull = pull.clone();
            move || shared.run_pull(&pull, &runtime)
        });
        let thread =
            spawned.map_err(|error| DaemonError::failed(format!("cannot start a thread: {error}")))?;
        lock(&self.shared.pulls).push((pull, thread));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_puller_is_told_names_the_command_that_helps() {
        let from = TargetOptions {
            display: "nas::www".to_owned(),
            host: "nas".to_owned(),
            port: 1,
            fingerprint: driftless_certs::Fingerprint::from_bytes([1; 32]),
            module: "www".to_owned(),
            path: driftless_protocol::RelPath::root(),
        };
        let refused = ConnectError::Refused {
            code: CloseCode::NotAllowed,
            text: "x".to_owned(),
        };
        let told = failure(&refused, &from, "abc");
        assert!(told.error.contains("peers add abc --tree www"), "{}", told.error);
        assert_eq!(told.longest, BACKOFF_MAX);
        let silent = ConnectError::NoAnswer {
            address: "127.0.0.1:1".parse().unwrap(),
            port: 1,
            seconds: 5.0,
        };
        assert_eq!(failure(&silent, &from, "abc").longest, SILENCE_BACKOFF_MAX);
    }
}
