//! What a sender takes note of while it waits: the events of its tree.

use super::requests;
use super::session::{Context, tell_backlog_apart};
use crate::daemon::{DaemonError, Phase, waiting};
use crate::store::CatalogRead;
use crossbeam_channel::{Receiver, TryRecvError};
use driftless_protocol::ObjectId;
use std::time::{Duration, Instant};

/// How long changes gather that nobody can be told of.
const GATHER_TIME: Duration = Duration::from_millis(200);

/// Waits for a deadline or for a message, and meanwhile keeps in mind where something changes. Nobody can be told of it, so
/// nobody looks there before: then a name counts once, however often something happened to it. False when asked to stop.
pub(super) fn wait_following<T>(
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
                context.register(&mut select);
            }
            waiting::ready(&mut select, Some(end));
        }
    }
}

/// Waits for the receiver to call, if it is the one that connects, and meanwhile keeps in mind where something changes. False when
/// asked to stop.
pub(super) fn wait_call(context: &mut Context<'_>) -> Result<bool, DaemonError> {
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
pub(super) fn wait_turn(context: &mut Context<'_>) -> Result<bool, DaemonError> {
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
pub(super) fn wait_open(context: &mut Context<'_>) -> Result<bool, DaemonError> {
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
        context.register(&mut select);
        waiting::ready(&mut select, context.deadline());
    }
}

/// Takes what the watcher reported.
fn note_events(context: &mut Context<'_>, now: Instant) -> Result<(), DaemonError> {
    requests::take_requests(context)?;
    // Asked before events are taken: what was in the channel by then is taken below.
    let flushed = context.barriers.flushed();
    let is_heard = context.source.touched.unheard.is_answered();
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
                let heard = match is_heard {
                    true => context.source.handle_heard(),
                    false => Ok(()),
                };
                return heard.map_err(|error| DaemonError::failed(error.to_string()));
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
pub(super) fn take_events(context: &mut Context<'_>, now: Instant) -> Result<(), DaemonError> {
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
        // When what it found came is not known.
        context.source.newcomers.forget();
    } else if !ready.is_empty() {
        if context.fuse.has_limit() {
            let marked = context.source.mark_newcomers(now);
            marked.map_err(|error| DaemonError::failed(error.to_string()))?;
        }
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
pub(super) fn tell_watching(context: &mut Context<'_>) {
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

pub(super) fn tell_warnings(context: &mut Context<'_>) {
    for warning in context.source.warnings.drain(..) {
        context.observer.warning(&warning);
    }
}
