//! The sender: watches and scans a source, connects, and keeps a target like it.

mod barriers;
mod connecting;
mod contents;
mod extras_in;
mod following;
mod initial;
mod listing;
mod owners;
mod reader;
mod readings;
mod reconcile;
mod requests;
mod session;
mod source;
mod spans;
mod touched;
mod unheard;
mod watching;
mod work;

pub use listing::{Allowance, listing_from, receive_listing};
pub use owners::{OwnerKey, keys as owner_keys, messages as owner_messages, rows as owner_rows};
pub use readings::Readings;
pub use reconcile::ReconcileError;
pub use session::DELETES;
pub use source::{Fate, Source, Standing, TreeFiles, fate_by};
pub use watching::{Changed, watch};

#[cfg(test)]
pub use connecting::unanswered;
pub use connecting::{Unopened, end_link, open_link, question};

use self::barriers::Barriers;
use super::ledger::flags;
use super::{Backlog, DaemonError, Deletes, Observer, Phase, SendCounters, SenderOptions, Stop, Summary};
use crate::engine::ages::Ages;
use crate::engine::filter::Filter;
use crate::engine::fuse::DeleteFuse;
use crate::engine::pending::Pending;
use crate::store::{CatalogRead, StoreError};
use connecting::{connect_and_serve, dial_ahead, link_end};
use driftless_protocol::Kind;
use driftless_protocol::message::{Relays, Sparing};
use following::{take_events, tell_warnings, tell_watching, wait_following};
use owners::Named;
use session::{Context, Ended, failed_entries};
use std::sync::Arc;
use std::time::Instant;

/// The policy under which entries were withheld.
const SPARING: &str = "sparing";

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
    source
        .load_initial(&options.target.display)
        .map_err(|error| failed(&error))?;
    let ahead = dial_ahead(options, &source, runtime);
    let found = source.scan()?;
    drop(walk);
    if options.compare.reads_all() {
        source.doubt_contents().map_err(|error| failed(&error))?;
    }
    note_rules(&mut source)?;
    source.note_initial(options.initial)?;
    note_sparing(&mut source)?;
    source.keeps_removed = match options.deletes {
        Deletes::Always => false,
        Deletes::Ask => {
            let decided = source.state.value(DELETES).map_err(|error| failed(&error))?;
            decided.as_deref() == Some(b"never")
        }
        Deletes::Never | Deletes::Startup | Deletes::Running => true,
    };
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
    let ended = connect_and_serve(&mut context, runtime, ahead)?;
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
        // What was left as it is at the start stays so.
        if source.start.is_none() {
            source.take_up_withheld()?;
        }
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
