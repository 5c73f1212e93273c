//! What a sender is asked while it runs. Taken between other work, by whichever of its loops is at work; none of them waits
//! for the asker.

use super::barriers::Asker;
use super::session::{Context, is_below, resolve};
use super::source::TreeFiles;
use super::touch;
use crate::daemon::DaemonError;
use crate::daemon::barrier::{BarrierEnd, CHECKPOINTS_MAX, Checkpoint, Explanation, Request};
use crate::daemon::ledger::flags;
use crate::engine::filter::Role;
use crate::engine::pending::{Hint, WatchEvent};
use crate::fs::FileType;
use crate::store::{CatalogRead, Entry};
use crossbeam_channel::bounded;
use driftless_protocol::{Kind, ObjectId, RelPath};
use std::time::Instant;

/// Takes all requests that wait.
pub fn take_requests(context: &mut Context<'_>) -> Result<(), DaemonError> {
    while let Some(request) = context.barriers.poll_request() {
        match request {
            Request::Barrier(request) => add_barrier(context, Asker::Waits(request)),
            Request::Checkpoint { name, answer } => {
                let _ = answer.try_send(take_checkpoint(context, name));
            }
            Request::ForgetCheckpoint { name, answer } => {
                let _ = answer.try_send(forget_checkpoint(context, &name));
            }
            Request::Explain { path, answer } => {
                let _ = answer.try_send(explain(context, &path)?);
            }
            Request::Rescan { path, answer } => {
                let _ = answer.try_send(rescan(context, &path)?);
            }
        }
    }
    Ok(())
}

/// Takes up the checkpoints that an earlier run did not reach: this run has walked the whole tree since, so a barrier of now
/// covers them.
pub fn resume_checkpoints(context: &mut Context<'_>) -> Result<(), DaemonError> {
    let stored = context
        .source
        .state
        .value(&checkpoints_key(context))
        .map_err(|error| DaemonError::failed(error.to_string()))?;
    // What cannot be read was written by another version: its checkpoints are gone, and nothing else depends on them.
    let known = stored.and_then(|bytes| serde_json::from_slice::<Vec<Checkpoint>>(&bytes).ok());
    context.barriers.checkpoints = known.unwrap_or_default();
    let open: Vec<_> = context
        .barriers
        .checkpoints
        .iter()
        .filter(|known| known.completed.is_none())
        .collect();
    for name in open
        .into_iter()
        .map(|known| known.name.clone())
        .collect::<Vec<_>>()
    {
        add_barrier(context, Asker::Checkpoint(name));
    }
    context.observer.checkpoints(&context.barriers.checkpoints);
    Ok(())
}

/// Tells the askers of barriers that are reached.
pub fn finish_barriers(context: &mut Context<'_>) -> Result<(), DaemonError> {
    let failed = context.counters.failed + context.counters.unreadable;
    for asker in context.barriers.take_reached() {
        match asker {
            Asker::Waits(request) => {
                let _ = request.answer.try_send(BarrierEnd::Reached { failed });
            }
            Asker::Checkpoint(name) => {
                let known = &mut context.barriers.checkpoints;
                for checkpoint in known.iter_mut().filter(|known| known.name == name) {
                    checkpoint.completed = Some(crate::daemon::status::unix_now());
                    checkpoint.failed = failed;
                }
                store_checkpoints(context).map_err(DaemonError::failed)?;
            }
        }
    }
    Ok(())
}

fn add_barrier(context: &mut Context<'_>, asker: Asker) {
    let (done, flushed) = bounded(0);
    context.source.flush_events(done);
    context.barriers.add(asker, flushed);
}

fn checkpoints_key(context: &Context<'_>) -> String {
    format!("checkpoints/{}", context.options.target.display)
}

fn store_checkpoints(context: &mut Context<'_>) -> Result<(), String> {
    let known = &context.barriers.checkpoints;
    let bytes = serde_json::to_vec(known).map_err(|error| error.to_string())?;
    let state = &context.source.state;
    state
        .put_value(&checkpoints_key(context), &bytes)
        .map_err(|error| error.to_string())?;
    context.observer.checkpoints(known);
    Ok(())
}

fn take_checkpoint(context: &mut Context<'_>, name: String) -> Result<Checkpoint, String> {
    let taken = Checkpoint::now(name.clone());
    let known = &mut context.barriers.checkpoints;
    known.retain(|known| known.name != name);
    if known.len() >= CHECKPOINTS_MAX {
        let oldest = known.iter().position(|known| known.completed.is_some());
        let Some(oldest) = oldest else {
            return Err(format!(
                "{CHECKPOINTS_MAX} checkpoints are open already (remove some with `driftless checkpoint NAME --remove`)"
            ));
        };
        known.remove(oldest);
    }
    known.push(taken.clone());
    store_checkpoints(context)?;
    context.barriers.forget_checkpoint(&name);
    add_barrier(context, Asker::Checkpoint(name));
    Ok(taken)
}

fn forget_checkpoint(context: &mut Context<'_>, name: &str) -> Result<bool, String> {
    let known = &mut context.barriers.checkpoints;
    let before = known.len();
    known.retain(|known| known.name != name);
    let was_there = known.len() < before;
    if was_there {
        context.barriers.forget_checkpoint(name);
        store_checkpoints(context)?;
    }
    Ok(was_there)
}

/// Has everything below a path looked at again. What is not known at all is looked at where its directory is.
fn rescan(context: &mut Context<'_>, path: &RelPath) -> Result<Result<u64, String>, DaemonError> {
    let failed = |error: crate::store::StoreError| DaemonError::failed(error.to_string());
    let catalog = context.source.catalog.clone();
    let known = catalog.read(|view| resolve(view, path)).map_err(failed)?;
    let now = Instant::now();
    if let Some(object) = known {
        let entry = catalog.read(|view| view.get(object)).map_err(failed)?;
        match entry {
            Some(entry) if entry.kind != Kind::Directory => {
                let (directory, name) = (entry.place.directory, entry.place.name);
                context.pending.handle_event(now, &look_at(directory, name));
            }
            _ => context.source.renamed.push(object),
        }
    } else {
        let names = path.names();
        let mut above = names.len();
        let nearest = loop {
            above -= 1;
            let directory = RelPath::from_names(names[..above].to_vec()).unwrap_or_default();
            if let Some(object) = catalog.read(|view| resolve(view, &directory)).map_err(failed)? {
                break object;
            }
            if above == 0 {
                return Ok(Err("the tree has not been walked yet".to_owned()));
            }
        };
        context
            .pending
            .handle_event(now, &look_at(nearest, names[above].clone()));
    }
    let mut retried = Vec::new();
    catalog
        .read(|view| {
            for &object in context.failed.keys() {
                if is_below(view, object, known)? {
                    retried.push(object);
                }
            }
            Ok(())
        })
        .map_err(failed)?;
    touch(context.source, &retried)?;
    Ok(Ok(retried.len() as u64))
}

fn look_at(directory: ObjectId, name: driftless_protocol::Name) -> WatchEvent {
    WatchEvent::At {
        directory,
        name,
        hint: Hint::Attributes,
        is_directory: false,
    }
}

/// What is known of a path: whether the filter has it, whether the target has it, and what went wrong.
fn explain(context: &mut Context<'_>, path: &RelPath) -> Result<Explanation, DaemonError> {
    let mut told = Explanation {
        path: path.to_string(),
        ..Explanation::default()
    };
    let catalog = context.source.catalog.clone();
    let known = catalog
        .read(|view| match resolve(view, path)? {
            Some(object) => view.get(object),
            None => Ok(None),
        })
        .map_err(|error| DaemonError::failed(error.to_string()))?;
    let on_disk = context.source.stat_at(path);
    let kind = known.as_ref().map(|entry| entry.kind);
    let kind = kind.or_else(|| on_disk.as_ref().and_then(|stat| stat.file_type.kind()));
    let mut is_out = false;
    if let Some(kind) = kind {
        told.kind = Some(kind_name(kind).to_owned());
        let root = context.source.root.clone();
        let filter = &context.options.filter;
        match filter.explain(Role::Source, path, kind, &mut TreeFiles::new(&root, None)) {
            Ok(found) => {
                is_out = !found.transfer;
                if let Some(rule) = found.by {
                    let above = found.at != *path;
                    told.rule = Some(match above {
                        true => format!("{rule}, which decides about {}", found.at),
                        false => rule.to_string(),
                    });
                }
            }
            Err(error) => told.rule = Some(format!("{error}: nothing is sent or deleted there")),
        }
    }
    let failed = known.as_ref().and_then(|entry| context.failed.get(&entry.object));
    if let Some(failed) = failed {
        (told.error, told.tries) = (Some(failed.text.clone()), Some(failed.tries));
    }
    if let Some(entry) = &known {
        note_entry(&mut told, entry);
    }
    let is_reserved = path.names().iter().any(driftless_protocol::Name::is_reserved);
    let is_carried = on_disk.as_ref().is_none_or(|stat| {
        !matches!(stat.file_type, FileType::Special(_) | FileType::Other(_)) || known.is_some()
    });
    let (state, reason) = if is_reserved {
        ("private", "names that begin with .driftless are never sent")
    } else if failed.is_some() {
        ("in-error", "the target could not take it; it is tried again")
    } else if let Some(entry) = &known {
        match super::work::next(entry, false) {
            super::work::Next::Nothing => ("in-sync", "the target has it as it was last seen here"),
            _ => ("pending", "it changed since the target had it last"),
        }
    } else if on_disk.is_none() {
        ("missing", "there is nothing of this name in the source")
    } else if is_out {
        ("excluded", "the filter leaves it out")
    } else if !is_carried {
        (
            "excluded",
            "sockets, and devices that the target does not take, are not carried",
        )
    } else if context.options.filter.has_size_limits() {
        (
            "excluded",
            "it was not looked at yet, or its size is outside of --min-size and --max-size",
        )
    } else {
        ("unknown", "it is there, and was not looked at yet")
    };
    (told.state, told.reason) = (state.to_owned(), reason.to_owned());
    Ok(told)
}

fn note_entry(told: &mut Explanation, entry: &Entry) {
    let is_file = entry.kind == Kind::File;
    told.size = is_file.then_some(entry.size);
    told.version = Some(entry.sequence);
    let digest = entry
        .digest
        .filter(|_| is_file && entry.flags & flags::STALE == 0);
    told.digest = digest.map(|digest| data_encoding::HEXLOWER.encode(&digest.0));
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
        Kind::Fifo => "FIFO",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
    }
}
