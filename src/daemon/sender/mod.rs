//! The sender: watches and scans a source, connects, and keeps a target like it.

mod barriers;
mod contents;
mod owners;
mod reader;
mod readings;
mod reconcile;
mod requests;
mod session;
mod source;
mod spans;
mod touched;
mod watching;
mod work;

pub use owners::{OwnerKey, keys as owner_keys, messages as owner_messages, rows as owner_rows};
pub use readings::Readings;
pub use reconcile::{ReconcileError, listing_from, receive_listing};
pub use session::DELETES;
pub use source::{Fate, Source, Standing, TreeFiles, fate_by};
pub use watching::{Changed, watch};

use self::barriers::Barriers;
use super::backoff::{BACKOFF_MAX, SILENCE_BACKOFF_MAX, backoff};
use super::ledger::flags;
use super::status::unix_now;
use super::upstream;
use super::waiting;
use super::{Backlog, DaemonError, Observer, Phase, SendCounters, SenderOptions, Stop, Summary};
use crate::engine::ages::Ages;
use crate::engine::filter::Filter;
use crate::engine::fuse::DeleteFuse;
use crate::engine::pending::Pending;
use crate::net::{ConnectError, LinkEnd, PathMemory, SenderLink, resolve};
use crate::store::{CatalogRead, Entry, StoreError};
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use driftless_certs::sender_config;
use driftless_protocol::message::{
    DeltaEngine, ModuleName, Open, Opened, Purpose, Recheck, Relays, Sparing, ToReceiver, ToSender,
};
use driftless_protocol::version::ALPN_MIRROR;
use driftless_protocol::{CloseCode, Kind, ObjectId, OwnerRow};
use owners::{Named, messages};
use session::{Context, Ended, Session, failed_entries, tell_backlog_apart};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The policy under which entries were withheld.
const SPARING: &str = "sparing";
/// How often a one-shot run connects again before it gives up.
const ONE_SHOT_TRIES: u32 = 8;

/// Keeps a target like a source. Without `follow`, ends when in sync.
pub fn run(
    options: &SenderOptions,
    runtime: &tokio::runtime::Handle,
    observer: Arc<dyn Observer>,
    stop: &Stop,
) -> Result<Summary, DaemonError> {
    crate::fs::raise_descriptor_limit();
    let began = Instant::now();
    let Some(walk) = options.walks.take(stop) else {
        return Ok(Summary::default());
    };
    let mut source = Source::open(options)?;
    let events = source.events();
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    observer.phase(&Phase::Scanning);
    source.check_root(options.accept_root, &options.target.display)?;
    source.expect_carried().map_err(|error| failed(&error))?;
    let last = source
        .catalog
        .read(|view| view.last_sequence())
        .map_err(|error| failed(&error))?;
    let incarnation = source
        .state
        .begin_incarnation(last)
        .map_err(|error| failed(&error))?;
    let found = source.scan()?;
    drop(walk);
    if options.compare.reads_all() {
        source.doubt_contents().map_err(|error| failed(&error))?;
    }
    note_rules(&mut source)?;
    note_sparing(&mut source)?;
    let in_error = source
        .state
        .failed(&options.target.display)
        .map_err(|error| failed(&error))?;
    let started_at = source
        .catalog
        .read(|view| view.last_sequence())
        .map_err(|error| failed(&error))?;
    let mut pending = Pending::new(options.pending.clone());
    let mut context = Context {
        options,
        source: &mut source,
        pending: &mut pending,
        events,
        observer: observer.clone(),
        counters: SendCounters {
            skipped: found.skipped,
            excluded: found.excluded,
            unreadable: found.unreadable,
            ..SendCounters::default()
        },
        failed: in_error
            .into_iter()
            .map(|failed| (failed.object, failed))
            .collect(),
        incarnation,
        stop: stop.clone(),
        fuse: DeleteFuse::new(options.delete_limit),
        held: None,
        started_at,
        was_ever_in_sync: false,
        watching: None,
        is_shortfall_told: false,
        named: Named::default(),
        was_compared: false,
        barriers: Barriers::new(options.requests.clone()),
        ages: Ages::default(),
        backlog: (Backlog::default(), started_at),
        turn: None,
        upstream: Relays::default(),
    };
    context.ages.handle_grown(started_at, began);
    context.counters.entries = context
        .source
        .catalog
        .read(|view| view.count())
        .map_err(|error| failed(&error))?;
    // What was in error is tried again at once, whatever the journal says.
    let retry: Vec<_> = context.failed.keys().copied().collect();
    touch(context.source, &retry)?;
    tell_warnings(&mut context);
    tell_watching(&mut context);
    context.tell_failed();
    requests::resume_checkpoints(&mut context)?;
    let ended = connect_and_serve(&mut context, runtime)?;
    let mut summary = Summary {
        counters: context.counters,
        ..Summary::default()
    };
    summary.failed = failed_entries(context.source, &context.failed);
    summary.counters.failed = summary.failed.len() as u64;
    if let Ended::InSync(sequence) | Ended::Stopped(Some(sequence)) = ended {
        summary.in_sync = true;
        summary.sequence = sequence;
    }
    Ok(summary)
}

/// Other rules than those under which the target was last compared have it compared again.
fn note_rules(source: &mut Source) -> Result<(), DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let known = source
        .state
        .value(session::RULES)
        .map_err(|error| failed(&error))?;
    let before = known.unwrap_or_else(|| Filter::everything().fingerprint().to_vec());
    let are_others = before != source.rules_print();
    // The scan may have found another reason to compare.
    source.rules_changed |= are_others;
    if are_others && !source.state.is_new() {
        source
            .warnings
            .push("the filter rules are not those of the last run; the target is compared again".to_owned());
    }
    Ok(())
}

/// With another policy than at the last run, what was withheld under that one is compared again.
fn note_sparing(source: &mut Source) -> Result<(), DaemonError> {
    let mut run = || {
        let Sparing {
            existing,
            missing,
            newer,
        } = source.sparing;
        let print = [existing, missing, newer].map(u8::from);
        let before = source.state.value(SPARING)?;
        if before.map_or(print == [0; 3], |before| before == print) {
            return Ok(());
        }
        source.catalog.clone().update(true, |t| {
            let mut withheld = Vec::new();
            t.for_each(&mut |entry: Entry| {
                withheld.extend((entry.flags & flags::WITHHELD != 0).then_some(entry));
                Ok(())
            })?;
            for mut entry in withheld {
                entry.flags &= !flags::WITHHELD;
                entry.sequence = t.next_sequence()?;
                source.put(t, &entry)?;
            }
            Ok(())
        })?;
        source.rules_changed = true;
        source.state.put_value(SPARING, &print)
    };
    let outcome: Result<(), StoreError> = run();
    outcome.map_err(|error| DaemonError::failed(error.to_string()))
}

fn touch(source: &mut Source, objects: &[driftless_protocol::ObjectId]) -> Result<(), DaemonError> {
    let outcome = source.catalog.clone().update(true, |t| {
        for &object in objects {
            if let Some(mut entry) = t.get(object)? {
                entry.sequence = t.next_sequence()?;
                if entry.kind == Kind::File {
                    entry.flags |= flags::STALE;
                }
                source.put(t, &entry)?;
            }
        }
        Ok(())
    });
    outcome.map_err(|error| DaemonError::failed(error.to_string()))
}

/// Connects, serves, and connects again with a backoff for as long as that makes sense.
fn connect_and_serve(
    context: &mut Context<'_>,
    runtime: &tokio::runtime::Handle,
) -> Result<Ended, DaemonError> {
    let mut tries = 0;
    let mut was_connected = false;
    loop {
        if !wait_open(context)? || !wait_call(context)? || !wait_turn(context)? {
            return Ok(Ended::Stopped(None));
        }
        context.observer.phase(&Phase::Connecting);
        let mut longest = BACKOFF_MAX;
        let error = match connect(context, runtime)? {
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
            }) => {
                if is_silence {
                    longest = SILENCE_BACKOFF_MAX;
                }
                let hopeless = !is_temporary || (!context.options.follow && !was_connected);
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
fn path_key(context: &Context<'_>) -> String {
    format!("path/{}", context.options.target.display)
}

fn remembered_path(context: &Context<'_>) -> Option<PathMemory> {
    let stored = context.source.state.value(&path_key(context)).ok().flatten()?;
    PathMemory::from_bytes(&stored, unix_now())
}

/// Stores what the connection found out, if that is news. It is never needed, so a failure is no error.
fn remember_path(context: &Context<'_>, link: &SenderLink) {
    let Some(path) = link.path_memory() else { return };
    if path.is_news_to(remembered_path(context))
        && let Err(error) = context
            .source
            .state
            .put_value(&path_key(context), &path.to_bytes(unix_now()))
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
}

/// Connects on a thread of its own; meanwhile events are taken, so that none is lost to a full queue.
fn connect(context: &mut Context<'_>, runtime: &tokio::runtime::Handle) -> Result<Connected, DaemonError> {
    let mut options = context.options.clone();
    options.link.remembered = remembered_path(context);
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
            }));
        }
    };
    #[cfg(test)]
    if let Some(dialled) = super::simulation::dial() {
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
                ConnectError::Refused { code, text } => refused(options, *code, text),
                error => Unopened {
                    is_silence: matches!(error, ConnectError::NoAnswer { .. }),
                    ..unopened(about(error), !matches!(error, ConnectError::WrongPeer { .. }))
                },
            },
        )?;
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
        Some(_) => Err(unopened(about(&"the receiver broke the protocol"), false)),
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

/// How long changes gather that nobody can be told of.
const GATHER_TIME: Duration = Duration::from_millis(200);

/// Waits for a deadline or for a message, and meanwhile keeps in mind where something changes. Nobody can be told of it, so
/// nobody looks there before: then a name counts once, however often something happened to it. False when asked to stop.
fn wait_following<T>(
    context: &mut Context<'_>,
    until: Option<&Receiver<T>>,
    deadline: Instant,
) -> Result<bool, DaemonError> {
    context.source.set_patient(true);
    let outcome = wait_patiently(context, until, deadline);
    context.source.set_patient(false);
    outcome
}

fn wait_patiently<T>(
    context: &mut Context<'_>,
    until: Option<&Receiver<T>>,
    deadline: Instant,
) -> Result<bool, DaemonError> {
    let stop = context.stop.channel();
    let mut told = None;
    loop {
        if context.stop.is_requested() {
            return Ok(false);
        }
        let now = Instant::now();
        if now >= deadline || until.is_some_and(|receiver| !receiver.is_empty()) {
            return Ok(true);
        }
        note_events(context, now)?;
        tell_backlog_apart(context, &mut told);
        // Woken by the first event, and not by those that come right after it.
        for is_gathering in [false, true] {
            let end = match is_gathering {
                true => deadline.min(Instant::now() + GATHER_TIME),
                false => deadline,
            };
            let mut select = crossbeam_channel::Select::new();
            select.recv(&stop);
            if let Some(receiver) = until {
                select.recv(receiver);
            }
            if !is_gathering {
                select.recv(&context.events);
                context.barriers.register(&mut select);
            }
            waiting::ready(&mut select, Some(end));
        }
    }
}

/// Waits for the receiver to call, if it is the one that connects, and meanwhile keeps in mind where something changes. False when
/// asked to stop.
fn wait_call(context: &mut Context<'_>) -> Result<bool, DaemonError> {
    let Some(calls) = context.options.link.calls.clone() else {
        return Ok(true);
    };
    let mut is_told = false;
    while calls.waiting().is_empty() {
        if !std::mem::replace(&mut is_told, true) {
            let error = "the receiver is not connected; it connects by itself".to_owned();
            context.observer.phase(&Phase::Waiting { error, seconds: 0 });
        }
        if !wait_following(
            context,
            Some(calls.waiting()),
            Instant::now() + Duration::from_secs(3_600),
        )? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Waits for a turn at bringing the target in sync, and meanwhile keeps in mind where something changes. False when asked to
/// stop.
fn wait_turn(context: &mut Context<'_>) -> Result<bool, DaemonError> {
    let transfers = context.options.transfers.clone();
    let mut is_told = false;
    loop {
        context.turn = transfers.try_take();
        let Some(free) = transfers.free().filter(|_| context.turn.is_none()) else {
            return Ok(true);
        };
        if !std::mem::replace(&mut is_told, true) {
            context.observer.phase(&Phase::Queued);
        }
        if !wait_following(context, Some(free), Instant::now() + Duration::from_secs(3_600))? {
            return Ok(false);
        }
    }
}

/// Waits while the mirror is paused, and meanwhile keeps the catalog along with the tree. False when asked to stop.
fn wait_open(context: &mut Context<'_>) -> Result<bool, DaemonError> {
    let (stop, mut changed) = (context.stop.channel(), context.options.gate.channel());
    let (mut is_told, mut told) = (false, None);
    loop {
        context.options.gate.renew(&mut changed);
        if context.stop.is_requested() {
            return Ok(false);
        }
        if !context.options.gate.is_closed() {
            return Ok(true);
        }
        if !std::mem::replace(&mut is_told, true) {
            context.observer.phase(&Phase::Paused);
        }
        take_events(context, Instant::now())?;
        tell_backlog_apart(context, &mut told);
        let mut select = crossbeam_channel::Select::new();
        select.recv(&context.events);
        select.recv(&stop);
        select.recv(&changed);
        context.barriers.register(&mut select);
        waiting::ready(&mut select, context.deadline());
    }
}

/// Takes what the watcher reported.
fn note_events(context: &mut Context<'_>, now: Instant) -> Result<(), DaemonError> {
    requests::take_requests(context)?;
    // Asked before events are taken: what was in the channel by then is taken below.
    let flushed = context.barriers.flushed();
    loop {
        match context.events.try_recv() {
            Ok(event) => {
                tracing::trace!(?event, "told");
                let told = context.source.told_behind(&event);
                for event in told.as_ref().map_or(std::slice::from_ref(&event), Vec::as_slice) {
                    context.source.touched.note(event);
                    context.pending.handle_event(now, event);
                }
            }
            Err(TryRecvError::Empty) => {
                context.barriers.handle_flushed(&flushed);
                return Ok(());
            }
            Err(TryRecvError::Disconnected) => {
                return Err(DaemonError::failed(format!(
                    "{} is no longer watched: the thread that reads the kernel's events has ended (this is a defect, \
                     please report it); start again, nothing is lost",
                    context.source.path.display()
                )));
            }
        }
    }
}

/// Takes what the watcher reported and looks where it points.
fn take_events(context: &mut Context<'_>, now: Instant) -> Result<(), DaemonError> {
    note_events(context, now)?;
    let is_waited_for = context.barriers.is_looking();
    if is_waited_for {
        context.pending.expedite(now);
    }
    let heard = context.pending.oldest().unwrap_or(now);
    let ready = context.pending.poll_ready(now);
    // Those of an earlier call: their renames have been sent by now.
    let renamed = std::mem::take(&mut context.source.renamed);
    if ready.is_empty() && renamed.is_empty() {
        if is_waited_for && context.is_calm() {
            context.barriers.handle_looked();
        }
        return Ok(());
    }
    // A root that another directory was renamed over is only said to have other attributes.
    let told_of_root = ready
        .gone
        .iter()
        .chain(&ready.attributes)
        .any(|&told| told == ObjectId::ROOT);
    if told_of_root && !context.source.root_is_in_place() {
        return Err(DaemonError::failed(format!(
            "{} was moved, removed or unmounted while it was mirrored: nothing more was sent and nothing deleted; put \
             it back and start again",
            context.source.path.display()
        )));
    }
    if ready.rescan {
        context.counters.rescans += 1;
        context.observer.rescan();
        context
            .observer
            .warning("events were lost; the whole tree is looked at again");
        context.source.scan()?;
    } else if !ready.is_empty() {
        let looks: Vec<_> = ready.attributes.iter().chain(&ready.gone).copied().collect();
        context.source.look(&ready.names, &ready.directories, &looks)?;
    }
    if !renamed.is_empty() {
        context.source.look_below(renamed)?;
    }
    let last = context
        .source
        .catalog
        .read(|view| view.last_sequence())
        .map_err(|error| DaemonError::failed(error.to_string()))?;
    context.ages.handle_grown(last, heard);
    if context.is_calm() {
        context.source.touched.looked_at_all();
        if is_waited_for {
            context.barriers.handle_looked();
        }
    }
    tell_watching(context);
    tell_warnings(context);
    Ok(())
}

/// Tells which back end watches, when that is news.
fn tell_watching(context: &mut Context<'_>) {
    let (name, degradations) = context.source.watching();
    let watching = Some((name, degradations));
    if context.watching != watching {
        if let Some((name, degradations)) = &watching {
            context.observer.watcher(name, degradations);
        }
        context.watching = watching;
    }
    let shortfall = context.source.shortfall();
    if let Some(text) = shortfall.as_ref().filter(|_| !context.is_shortfall_told) {
        context.observer.warning(text);
    }
    context.is_shortfall_told = shortfall.is_some();
}

fn tell_warnings(context: &mut Context<'_>) {
    for warning in context.source.warnings.drain(..) {
        context.observer.warning(&warning);
    }
}

fn link_end(end: &LinkEnd) -> Ended {
    match end {
        LinkEnd::Closed { code, text, .. } if !code.is_temporary() => Ended::Halted(DaemonError::failed(
            format!("the receiver ended the connection: {text}"),
        )),
        end => Ended::Lost(end.to_string()),
    }
}
