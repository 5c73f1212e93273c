//! A source that is watched for its own sake: nothing is sent, and who asked hears in which directories something changed.

use super::barriers::Barriers;
use super::owners::Named;
use super::session::Context;
use super::source::Source;
use super::{note_rules, take_events, tell_warnings, tell_watching};
use crate::daemon::ledger::flags;
use crate::daemon::{Backlog, DaemonError, Observer, SendCounters, SenderOptions, Stop};
use crate::engine::ages::Ages;
use crate::engine::fuse::DeleteFuse;
use crate::engine::pending::Pending;
use crate::store::{CatalogRead, Change, StoreError};
use driftless_protocol::message::Relays;
use driftless_protocol::{Kind, ObjectId, RelPath};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Directories in which something changed, and whether all that is below them is to be looked at, too.
pub type Changed = BTreeMap<RelPath, bool>;

/// Changes that are taken from the journal at a time.
const CHANGES_AT_A_TIME: usize = 4_096;
/// Without any event, when to look whether something is due.
const REST: Duration = Duration::from_secs(3_600);

/// Watches and scans a source, calls `begin`, and then `on_change` with what changed since, until asked to stop. The home of
/// the options is for this alone: what was sent to a target is not known here.
pub fn watch(
    options: &SenderOptions,
    observer: Arc<dyn Observer>,
    stop: &Stop,
    begin: &mut dyn FnMut() -> Result<(), DaemonError>,
    on_change: &mut dyn FnMut(&Changed) -> Result<(), DaemonError>,
) -> Result<(), DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    crate::fs::raise_descriptor_limit();
    let mut source = Source::open(options)?;
    let events = source.events();
    source.expect_carried().map_err(|error| failed(&error))?;
    source.scan()?;
    note_rules(&mut source)?;
    let last = source.catalog.read(|view| view.last_sequence());
    let mut seen = last.map_err(|error| failed(&error))?;
    let mut pending = Pending::new(options.pending.clone());
    let mut context = Context {
        options,
        source: &mut source,
        pending: &mut pending,
        events,
        observer,
        counters: SendCounters::default(),
        failed: HashMap::new(),
        incarnation: 0,
        stop: stop.clone(),
        fuse: DeleteFuse::new(None),
        held: None,
        started_at: seen,
        was_ever_in_sync: false,
        watching: None,
        is_shortfall_told: false,
        named: Named::default(),
        was_compared: false,
        barriers: Barriers::default(),
        ages: Ages::default(),
        backlog: (Backlog::default(), seen),
        turn: None,
        upstream: Relays::default(),
    };
    tell_warnings(&mut context);
    tell_watching(&mut context);
    begin()?;
    let asked = stop.channel();
    while !stop.is_requested() {
        take_events(&mut context, Instant::now())?;
        let changed = changed_after(context.source, &mut seen)?;
        if !changed.is_empty() {
            on_change(&changed)?;
            continue;
        }
        let now = Instant::now();
        let wake = context.deadline().map_or(now + REST, |due| due.min(now + REST));
        let mut select = crossbeam_channel::Select::new();
        select.recv(&context.events);
        select.recv(&asked);
        let _ = select.ready_timeout(wake.saturating_duration_since(now));
    }
    Ok(())
}

/// Where something changed after a number of the journal, which is moved on.
fn changed_after(source: &Source, seen: &mut u64) -> Result<Changed, DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let mut changed = Changed::new();
    let outcome = source.catalog.read(|view| {
        let mut note = |directory: ObjectId, is_deep: bool| {
            let path = view.path_of(directory)?;
            if let Some(path) = path.and_then(|names| RelPath::from_names(names).ok()) {
                *changed.entry(path).or_default() |= is_deep;
            }
            Ok::<(), StoreError>(())
        };
        loop {
            let page = view.changed_after(*seen, CHANGES_AT_A_TIME)?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            *seen = *last;
            for (_, change) in page {
                match change {
                    Change::Removed { place, .. } => note(place.directory, false)?,
                    Change::Object(object) => {
                        let Some(entry) = view.get(object)? else { continue };
                        if object != ObjectId::ROOT {
                            note(entry.place.directory, false)?;
                        }
                        if entry.kind == Kind::Directory {
                            // What is in a directory that moved has not changed itself.
                            note(object, entry.flags & flags::MOVED != 0)?;
                        }
                    }
                }
            }
        }
    });
    outcome.map_err(|error| failed(&error))?;
    let last = *seen;
    let dropped = source.catalog.update(false, |t| t.drop_tombstones_through(last));
    dropped.map_err(|error| failed(&error))?;
    Ok(changed)
}
