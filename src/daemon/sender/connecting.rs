//! Connecting, opening, and connecting again.

use super::following::{wait_call, wait_following, wait_open, wait_turn};
use super::owners::{Named, messages};
use super::session::{Context, Ended, Session};
use super::source::Source;
use crate::daemon::backoff::{BACKOFF_MAX, SILENCE_BACKOFF_MAX, backoff};
use crate::daemon::status::unix_now;
use crate::daemon::{DaemonError, Phase, SenderOptions, upstream, waiting};
use crate::net::{Ahead, ConnectError, LinkEnd, Parties, PathMemory, SenderLink, resolve};
use crossbeam_channel::bounded;
use driftless_certs::sender_config;
use driftless_protocol::message::{
    DeltaEngine, ModuleName, Open, Opened, Purpose, Recheck, Relays, Sparing, ToReceiver, ToSender,
};
use driftless_protocol::version::ALPN_MIRROR;
use driftless_protocol::{Carried, CloseCode, OwnerRow};
use std::time::{Duration, Instant};

/// How often a one-shot run connects again before it gives up.
const ONE_SHOT_TRIES: u32 = 8;

/// Connects, serves, and connects again with a backoff for as long as that makes sense.
pub(super) fn connect_and_serve(
    context: &mut Context<'_>,
    runtime: &tokio::runtime::Handle,
    mut ahead: Option<Ahead>,
) -> Result<Ended, DaemonError> {
    let mut tries = 0;
    let mut was_connected = false;
    loop {
        if !wait_open(context)? || !wait_call(context)? || !wait_turn(context)? {
            return Ok(Ended::Stopped(None));
        }
        context.observer.phase(&Phase::Connecting);
        let mut longest = BACKOFF_MAX;
        let began = Instant::now();
        let connected = connect(context, runtime)?;
        let was_ahead = ahead.take().is_some();
        let error = match connected {
            // Much of the time for an answer was over when the walk was: now it has all of it.
            Connected::Failed(Unopened { is_silence: true, .. })
                if was_ahead && began.elapsed() < context.options.link.connect_timeout * 3 / 4 =>
            {
                continue;
            }
            Connected::Stopped => return Ok(Ended::Stopped(None)),
            Connected::Link(link, opened) => {
                was_connected = true;
                let began = Instant::now();
                let ended = Session::run(context, &link, &opened);
                context.barriers.handle_disconnected();
                context.ages.forget_waiting();
                remember_path(context, &link);
                let statistics = link.statistics();
                context.counters.wire_bytes_sent += statistics.bytes_sent;
                context.counters.wire_bytes_received += statistics.bytes_received;
                if began.elapsed() > BACKOFF_MAX {
                    tries = 0;
                }
                match ended {
                    Ended::Halted(error) => {
                        if context.options.link.calls.is_some() {
                            // Who called cannot see why otherwise.
                            link.close(CloseCode::Unable, &error.to_string());
                        }
                        context.observer.phase(&Phase::Halted {
                            error: error.to_string(),
                        });
                        return Err(error);
                    }
                    Ended::Lost(error) => error,
                    Ended::Paused => {
                        context.turn = None;
                        tries = 0;
                        continue;
                    }
                    ended => return Ok(ended),
                }
            }
            Connected::Failed(Unopened {
                text: error,
                is_temporary,
                is_silence,
                is_stranger,
            }) => {
                if is_silence {
                    longest = SILENCE_BACKOFF_MAX;
                }
                // A name that leads to somebody else for a while ends no mirror that was connected.
                let may_return = is_temporary || is_stranger && was_connected && context.options.follow;
                let hopeless = !may_return || (!context.options.follow && !was_connected);
                if hopeless {
                    context.observer.phase(&Phase::Halted { error: error.clone() });
                    return Err(DaemonError::failed(error));
                }
                error
            }
        };
        context.turn = None;
        tries += 1;
        let tries_max = if context.options.gives_up {
            0
        } else {
            ONE_SHOT_TRIES
        };
        if !context.options.follow && tries > tries_max {
            return Err(DaemonError::failed(error));
        }
        let delay = backoff(tries, longest);
        let seconds = delay.as_secs();
        context.observer.phase(&Phase::Waiting { error, seconds });
        if !wait_following::<()>(context, None, Instant::now() + delay)? {
            return Ok(Ended::Stopped(None));
        }
    }
}

/// Where the state keeps what is known of the path to a target.
fn path_key(options: &SenderOptions) -> String {
    format!("path/{}", options.target.display)
}

fn remembered_path(options: &SenderOptions, source: &Source) -> Option<PathMemory> {
    let stored = source.state.value(&path_key(options)).ok().flatten()?;
    PathMemory::from_bytes(&stored, unix_now())
}

/// Stores what the connection found out, if that is news. It is never needed, so a failure is no error.
fn remember_path(context: &Context<'_>, link: &SenderLink) {
    let Some(path) = link.path_memory() else { return };
    let (options, source) = (context.options, &context.source);
    if path.is_news_to(remembered_path(options, source))
        && let Err(error) = source
            .state
            .put_value(&path_key(options), &path.to_bytes(unix_now()))
    {
        tracing::debug!("cannot store what is known of the path: {error}");
    }
}

enum Connected {
    Link(Box<SenderLink>, Box<Opened>),
    Failed(Unopened),
    Stopped,
}

/// Why there is no session.
#[derive(Debug)]
pub struct Unopened {
    /// In words.
    pub text: String,
    /// Trying again without help can succeed.
    pub is_temporary: bool,
    /// Nobody answered.
    is_silence: bool,
    /// Somebody else answered, or something that does not speak with us.
    is_stranger: bool,
}

/// The options for a connection to the target.
fn with_path(options: &SenderOptions, source: &Source) -> SenderOptions {
    let mut options = options.clone();
    options.link.remembered = remembered_path(&options, source);
    options.link.sharing = Some(Parties {
        own: options.identity.fingerprint(),
        peer: options.target.fingerprint,
    });
    options
}

/// Has the handshake beside the walk of the source, in a run that somebody waits for: it takes a round trip less. Only with the first
/// address; whatever goes wrong is met again when the connection is needed.
pub(super) fn dial_ahead(
    options: &SenderOptions,
    source: &Source,
    runtime: &tokio::runtime::Handle,
) -> Option<Ahead> {
    if options.follow || options.gate.is_closed() {
        return None;
    }
    let options = with_path(options, source);
    let tls = sender_config(&options.identity, options.target.fingerprint, &[ALPN_MIRROR]).ok()?;
    let (host, port) = (options.target.host.clone(), options.target.port);
    let first = move || resolve(&host, port).ok()?.into_iter().next();
    Ahead::dial(runtime, tls, first, &options.link)
}

/// Connects on a thread of its own; meanwhile events are taken, so that none is lost to a full queue.
fn connect(context: &mut Context<'_>, runtime: &tokio::runtime::Handle) -> Result<Connected, DaemonError> {
    let options = with_path(context.options, context.source);
    context.upstream = upstream::of_source(&options.home, &context.source.path);
    let open = opening(context, Purpose::Mirror)?;
    let source = &context.source;
    let owners = source.ledger.owners().iter().chain(source.acl_owners.iter());
    let named = Named::begin(&options.owners, owners);
    let owners = match named {
        Ok((named, rows)) => {
            context.named = named;
            rows
        }
        // A server that knows the users may be out of reach.
        Err(error) => {
            return Ok(Connected::Failed(Unopened {
                text: error,
                is_temporary: true,
                is_silence: false,
                is_stranger: false,
            }));
        }
    };
    #[cfg(test)]
    if let Some(dialled) = crate::daemon::simulation::dial() {
        return Ok(
            match dialled.and_then(|link| open_simulated(link, &options, owners, open)) {
                Ok((link, opened)) => Connected::Link(link, opened),
                Err(error) => Connected::Failed(error),
            },
        );
    }
    let runtime = runtime.clone();
    let (sender, receiver) = bounded(1);
    let thread = std::thread::spawn(move || {
        let _ = sender.send(open_link(&options, &runtime, owners, open));
    });
    if !wait_following(
        context,
        Some(&receiver),
        Instant::now() + Duration::from_secs(3_600),
    )? {
        return Ok(Connected::Stopped);
    }
    let outcome = receiver
        .recv()
        .map_err(|_| DaemonError::failed("the connecting thread ended"))?;
    let _ = thread.join();
    Ok(match outcome {
        Ok((link, opened)) => Connected::Link(link, opened),
        Err(error) => Connected::Failed(error),
    })
}

fn opening(context: &Context<'_>, purpose: Purpose) -> Result<Open, DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let options = context.options;
    let (target, source) = (&options.target, &context.source);
    Ok(Open {
        purpose,
        module: ModuleName(target.module.clone().into_bytes()),
        path: target.path.clone(),
        mirror: source.state.mirror_id().map_err(|error| failed(&error))?,
        source: source.path.display().to_string().as_str().into(),
        incarnation: context.incarnation,
        carried: source.can_carry(),
        sum: (source.ledger.unknown() == 0).then(|| source.ledger.fold()),
        protects: source.may_protect(),
        sparing: context.options.sparing,
        whole_files: context.options.whole_files,
        recheck: match options.compare.reads_all() {
            _ if context.was_compared => Recheck::Nothing,
            true => Recheck::Contents,
            false if options.look_again => Recheck::Attributes,
            false => Recheck::Nothing,
        },
        upstream: context.upstream.clone(),
        engine: context.options.delta_engine.map(DeltaEngine::from),
    })
}

/// The opening of a session that mirrors nothing, such as a verification: no metadata is carried until the caller says
/// which.
pub fn question(options: &SenderOptions, purpose: Purpose) -> Open {
    Open {
        purpose,
        module: ModuleName(options.target.module.clone().into_bytes()),
        path: options.target.path.clone(),
        mirror: 0,
        source: options.source.display().to_string().as_str().into(),
        incarnation: 0,
        carried: Carried::default(),
        sum: None,
        protects: false,
        sparing: Sparing::default(),
        whole_files: false,
        recheck: Recheck::Nothing,
        upstream: Relays::default(),
        engine: None,
    }
}

/// Connects, tells what owners are called, and opens; the error says whether trying again without help can succeed.
pub fn open_link(
    options: &SenderOptions,
    runtime: &tokio::runtime::Handle,
    owners: Vec<OwnerRow>,
    open: Open,
) -> Result<(Box<SenderLink>, Box<Opened>), Unopened> {
    let target = &options.target;
    let about = |error: &dyn std::fmt::Display| format!("{target}: {error}");
    let tls = sender_config(&options.identity, target.fingerprint, &[ALPN_MIRROR])
        .map_err(|error| unopened(about(&error), false))?;
    let addresses = match &options.link.calls {
        Some(_) => Vec::new(),
        None => resolve(&target.host, target.port).map_err(|error| unopened(about(&error), true))?,
    };
    let owners = messages(owners).map(ToReceiver::Owners);
    let first = owners.chain([ToReceiver::Open(open)]).collect();
    let link =
        SenderLink::connect(runtime, tls, &addresses, first, &options.link).map_err(
            |error| match &error {
                ConnectError::Refused { code, text } => Unopened {
                    is_stranger: *code == CloseCode::Version,
                    ..refused(options, *code, text)
                },
                error => Unopened {
                    is_silence: matches!(error, ConnectError::NoAnswer { .. }),
                    is_stranger: matches!(error, ConnectError::WrongPeer { .. }),
                    ..unopened(about(error), !matches!(error, ConnectError::WrongPeer { .. }))
                },
            },
        )?;
    if options.link.calls.is_none() {
        link.follow_name(runtime, &target.host, target.port);
    }
    hear_opened(link, options)
}

/// Waits for the answer to an opening.
fn hear_opened(
    link: SenderLink,
    options: &SenderOptions,
) -> Result<(Box<SenderLink>, Box<Opened>), Unopened> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", options.target);
    match waiting::receive(link.incoming(), None) {
        Some(ToSender::Opened(opened)) => Ok((Box::new(link), Box::new(opened))),
        Some(other) => {
            let text = format!(
                "the receiver broke the protocol: it answered the opening with {}",
                other.kind()
            );
            link.close(CloseCode::Violation, &text);
            // Who made the receiver do so may make it stop.
            Err(unopened(about(&text), true))
        }
        None => Err(match link.wait_ended() {
            LinkEnd::Closed { code, text, .. } => refused(options, code, &text),
            LinkEnd::Lost { text } => unopened(about(&text), true),
        }),
    }
}

/// Connects, says what is wanted, and gives what the receiver says at the end of the connection, which it closes when it is done.
pub fn end_link(
    options: &SenderOptions,
    runtime: &tokio::runtime::Handle,
    open: Open,
) -> Result<String, Unopened> {
    let target = &options.target;
    let about = |error: &dyn std::fmt::Display| format!("{target}: {error}");
    let tls = sender_config(&options.identity, target.fingerprint, &[ALPN_MIRROR])
        .map_err(|error| unopened(about(&error), false))?;
    let addresses = resolve(&target.host, target.port).map_err(|error| unopened(about(&error), true))?;
    let ended = |code: CloseCode, text: &str| match code {
        CloseCode::Forgotten => Ok(text.to_owned()),
        CloseCode::NotAllowed => Err(unopened(not_allowed(options), false)),
        code => Err(unopened(about(&text), code.is_temporary())),
    };
    match SenderLink::connect(
        runtime,
        tls,
        &addresses,
        vec![ToReceiver::Open(open)],
        &options.link,
    ) {
        Ok(link) => match link.wait_ended() {
            LinkEnd::Closed { code, text, .. } => ended(code, &text),
            LinkEnd::Lost { text } => Err(unopened(about(&text), true)),
        },
        // What is said before the hello was read is told like this.
        Err(ConnectError::Refused { code, text }) => ended(code, &text),
        Err(error) => Err(unopened(about(&error), true)),
    }
}

/// What a receiver says when it refuses reads the same before and after its hello.
fn refused(options: &SenderOptions, code: CloseCode, text: &str) -> Unopened {
    match code {
        CloseCode::NotAllowed => unopened(not_allowed(options), false),
        // Only who follows has the time to wait for somebody's decision.
        CloseCode::Promoted => unopened(format!("{}: {text}", options.target), options.follow),
        code => unopened(format!("{}: {text}", options.target), code.is_temporary()),
    }
}

/// [`open_link`] over a simulated network.
#[cfg(test)]
fn open_simulated(
    link: SenderLink,
    options: &SenderOptions,
    owners: Vec<OwnerRow>,
    open: Open,
) -> Result<(Box<SenderLink>, Box<Opened>), Unopened> {
    let owners = messages(owners).map(ToReceiver::Owners);
    for message in owners.chain([ToReceiver::Open(open)]) {
        let _ = link.control().send(message);
    }
    hear_opened(link, options)
}

/// Nobody answered, in a simulation.
#[cfg(test)]
pub fn unanswered() -> Unopened {
    Unopened {
        is_silence: true,
        ..unopened("no answer".to_owned(), true)
    }
}

fn unopened(text: String, is_temporary: bool) -> Unopened {
    Unopened {
        text,
        is_temporary,
        is_silence: false,
        is_stranger: false,
    }
}

/// A receiver says the same to unknown keys and to keys without a right to the module; one command mends both.
fn not_allowed(options: &SenderOptions) -> String {
    let (target, who, module) = (
        &options.target,
        options.identity.fingerprint(),
        &options.target.module,
    );
    format!(
        "{target}: the receiver does not allow this sender; on the receiver run `driftless peers add {who} --module \
         {module}` or `driftless invite`"
    )
}

pub(super) fn link_end(end: &LinkEnd) -> Ended {
    match end {
        LinkEnd::Closed { code, text, .. } if !code.is_temporary() => Ended::Halted(DaemonError::failed(
            format!("the receiver ended the connection: {text}"),
        )),
        end => Ended::Lost(end.to_string()),
    }
}
