//! `verify --divergence`: what each side of a mirror has changed by itself since both were last known to be equal. Changes nothing.
//!
//! Both ends have a catalog of what the mirror last knew. Each compares its own disk with its own catalog, by what `stat` says
//! and without reading contents: whatever is unlike it was changed by somebody else. The receiver does so beside a running or an
//! ended mirror, as long as no sender is connected, and never brings its catalog in step with the disk while a module is
//! promoted; the sender's is free when its mirror is stopped. What the sender had noticed and not sent yet counts, too.

mod walk;

use super::keeping::Keeping;
use super::ledger::flags;
use super::receiver::stored_cursor;
use super::sender::{Standing, TreeFiles, open_link, question};
use super::{DaemonError, ModuleOptions, SenderOptions};
use crate::daemon::home::Home;
use crate::engine::filter::Role;
use crate::fs::Directory;
use crate::net::{LinkEnd, SenderLink};
use crate::store::{self, Catalog, CatalogRead, Entry, State, StoreError};
use driftless_protocol::message::{Cursor, Diverged, Purpose, ToSender};
use driftless_protocol::{CloseCode, ObjectId, RelPath, Timestamp};
use std::path::Path;
use std::sync::Arc;

pub use walk::compare;

/// Something that one side changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: RelPath,
    /// What became of it.
    pub what: Diverged,
    /// When, by the clock of that side: of what was removed, when its directory was last changed.
    pub at: Timestamp,
}

/// What both sides did since they were last equal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Divergence {
    /// How far the target had what the source sent, durably; `None` if that was never so, or if nobody knows any more.
    pub common: Option<Cursor>,
    /// What was changed at the source, by path.
    pub here: Vec<Change>,
    /// What was changed on the target, by path.
    pub there: Vec<Change>,
}

impl Divergence {
    /// The paths that both sides changed.
    pub fn on_both(&self) -> Vec<&RelPath> {
        let here = self.here.iter().map(|change| &change.path);
        here.filter(|path| self.there.binary_search_by(|other| other.path.cmp(path)).is_ok())
            .collect()
    }

    fn sorted(mut self) -> Divergence {
        for side in [&mut self.here, &mut self.there] {
            side.sort_by(|one, other| one.path.cmp(&other.path));
            side.dedup_by(|one, other| one.path == other.path);
        }
        self
    }
}

/// What a source and a module on another machine changed. The mirror of the source must not run.
pub fn between_machines(
    options: &SenderOptions,
    runtime: &tokio::runtime::Handle,
) -> Result<Divergence, DaemonError> {
    let (here, acknowledged) = at_source(options)?;
    let open = question(options, Purpose::Divergence);
    let (link, opened) =
        open_link(options, runtime, Vec::new(), open).map_err(|error| DaemonError::failed(error.text))?;
    let there = at_target(&link)?;
    link.close(CloseCode::Done, "");
    Ok(Divergence {
        common: common(acknowledged, opened.cursor),
        here,
        there,
    }
    .sorted())
}

/// The same of a source and a directory on this machine, which is a module, of which `state` is the state.
pub fn on_this_machine(
    options: &SenderOptions,
    module: &ModuleOptions,
    state: &Path,
) -> Result<Divergence, DaemonError> {
    let (here, acknowledged) = at_source(options)?;
    let target = &module.path;
    let root = Directory::open_root(target).map_err(failed)?;
    let root = Arc::new(root.with_view(module.view()));
    let mut there = Vec::new();
    let catalog = open_catalog(state, store::Role::Receiver)?
        .ok_or_else(|| DaemonError::failed(format!("nothing was ever mirrored to {}", target.display())))?;
    let cursor = catalog.read(|view| {
        let all = Standing::Everything;
        let walked = compare(view, &root, &all, &module.keeping, &mut |change| {
            there.push(change)
        });
        Ok((stored_cursor(view)?, walked))
    });
    let (cursor, walked) = cursor.map_err(failed)?;
    walked?;
    Ok(Divergence {
        common: common(acknowledged, cursor),
        here,
        there,
    }
    .sorted())
}

/// Opens the catalog in a directory of state, if there is one.
pub fn open_catalog(state: &Path, role: store::Role) -> Result<Option<Catalog>, DaemonError> {
    let file = state.join("catalog.redb");
    // Opening would make it.
    if !file.exists() {
        return Ok(None);
    }
    let opened = Catalog::open(&file, role).map_err(|error| {
        DaemonError::failed(match error {
            StoreError::InUse { .. } => format!(
                "{error}: the mirror is running, and changes what would be compared (stop it first: `driftless stop MIRROR`, or Ctrl-C)"
            ),
            error => error.to_string(),
        })
    })?;
    match opened.rebuilt {
        Some(reason) => Err(DaemonError::failed(format!(
            "{} says nothing any more of what both sides had: {reason}",
            file.display()
        ))),
        None => Ok(Some(opened.catalog)),
    }
}

/// What was changed at the source, and how far its target had acknowledged.
fn at_source(options: &SenderOptions) -> Result<(Vec<Change>, Option<Cursor>), DaemonError> {
    let target = &options.target.display;
    let key = Home::mirror_key(&options.source, target);
    let state = options.home.mirror_place(&key);
    let catalog = open_catalog(&state, store::Role::Sender)?.ok_or_else(|| {
        DaemonError::failed(format!(
            "{} was never mirrored to {target} from this home ({}): there is no point that both sides had in common (name the \
             target as the mirror does; to compare contents, leave --divergence out)",
            options.source.display(),
            options.home
        ))
    })?;
    let state = State::open(&state.join("state.redb")).map_err(failed)?;
    let acknowledged = state.acknowledged(target).map_err(failed)?;
    let root = Directory::open_root(&options.source).map_err(failed)?;
    let root = Arc::new(root.with_view(options.view()));
    let standing = match options.filter.passes_everything() {
        true => Standing::Everything,
        false => Standing::Rules(
            options
                .filter
                .root(Role::Both, &mut TreeFiles::new(&root, None))
                .map_err(failed)?,
        ),
    };
    let mut changes = Vec::new();
    let outcome = catalog.read(|view| {
        // The disk first: its times are the later ones.
        let none = Keeping::default();
        let walked = compare(view, &root, &standing, &none, &mut |change| changes.push(change));
        unsent(view, acknowledged, &mut changes)?;
        Ok(walked)
    });
    outcome.map_err(failed)??;
    Ok((changes, acknowledged))
}

/// What the sender had noticed and its target had not taken.
fn unsent(
    view: &impl CatalogRead,
    acknowledged: Option<Cursor>,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    const AT_A_TIME: usize = 4_096;
    let time = |entry: &Entry| entry.stamp.and_then(|bytes| crate::fs::Stamp::from_bytes(&bytes));
    view.for_each(&mut |entry: Entry| {
        let what = match entry.flags {
            bits if bits & flags::WITHHELD != 0 || entry.object == ObjectId::ROOT => return Ok(()),
            bits if bits & flags::ON_TARGET == 0 || bits & flags::MOVED != 0 => Diverged::Made,
            bits if bits & flags::STALE != 0 => Diverged::Changed,
            bits if bits & flags::ATTRIBUTES != 0 => Diverged::Attributes,
            _ => return Ok(()),
        };
        if let Some(path) = view
            .path_of(entry.object)?
            .and_then(|names| RelPath::from_names(names).ok())
        {
            let at = time(&entry).map_or_else(Timestamp::default, |stamp| stamp.ctime);
            changes.push(Change { path, what, at });
        }
        Ok(())
    })?;
    let mut after = acknowledged.map_or(0, |cursor| cursor.sequence);
    loop {
        let page = view.changed_after(after, AT_A_TIME)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = *last;
        for (_, change) in page {
            let store::Change::Removed { place, .. } = change else {
                continue;
            };
            let above = view.path_of(place.directory)?;
            let parent = view.get(place.directory)?;
            let names = above.map(|names| [names, vec![place.name]].concat());
            if let Some(path) = names.and_then(|names| RelPath::from_names(names).ok()) {
                let stamp = parent.as_ref().and_then(time);
                changes.push(Change {
                    path,
                    what: Diverged::Removed,
                    at: stamp.map_or_else(Timestamp::default, |stamp| stamp.mtime),
                });
            }
        }
    }
}

/// What a receiver tells of its own.
fn at_target(link: &SenderLink) -> Result<Vec<Change>, DaemonError> {
    let mut changes = Vec::new();
    loop {
        match link.incoming().recv() {
            Ok(ToSender::Diverged { path, what, at }) => changes.push(Change { path, what, at }),
            Ok(ToSender::Listing { last: true, .. }) => return Ok(changes),
            Ok(ToSender::ListingFailed(text)) => return Err(DaemonError::failed(text.to_string())),
            Ok(_) => return Err(DaemonError::failed("the receiver broke the protocol")),
            Err(_) => {
                return Err(DaemonError::failed(match link.wait_ended() {
                    LinkEnd::Closed { text, .. } | LinkEnd::Lost { text } => text,
                }));
            }
        }
    }
}

/// The last point at which the target had everything, of those that either side remembers: one that was put back from a backup
/// remembers an earlier one.
fn common(acknowledged: Option<Cursor>, stored: Option<Cursor>) -> Option<Cursor> {
    let (ours, theirs) = (acknowledged?, stored?);
    match ours.incarnation == theirs.incarnation {
        true if ours.sequence < theirs.sequence => Some(ours),
        true => Some(theirs),
        false => None,
    }
}

fn failed(error: impl std::fmt::Display) -> DaemonError {
    DaemonError::failed(error.to_string())
}
