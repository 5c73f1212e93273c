//! A disk against a catalog of it.

use super::Change;
use crate::daemon::DaemonError;
use crate::daemon::keeping::Keeping;
use crate::daemon::receiver::{is_same_state, kind_of};
use crate::daemon::sender::Standing;
use crate::fs::{Directory, FsErrorKind, Stat};
use crate::store::{CatalogRead, Entry};
use driftless_protocol::message::Diverged;
use driftless_protocol::{Kind, Name, ObjectId, RelPath};
use std::collections::HashMap;
use std::sync::Arc;

/// A directory to be looked at.
struct Job {
    path: RelPath,
    /// Its number, if the catalog has it.
    object: Option<ObjectId>,
    /// The directory above, and the name in it; opened when its turn comes.
    above: Arc<Directory>,
    name: Option<Name>,
    standing: Standing,
}

/// Tells in no particular order what on a disk is unlike a catalog of it. What was removed or made as a whole directory is one
/// entry for the former, one for each of its entries for the latter. Of a directory itself only its mode counts: its times move
/// with what is in it. Backups that the receiver makes are nobody's doing.
pub fn compare(
    catalog: &impl CatalogRead,
    root: &Arc<Directory>,
    standing: &Standing,
    keeping: &Keeping,
    tell: &mut dyn FnMut(Change),
) -> Result<(), DaemonError> {
    let mut waiting = vec![Job {
        path: RelPath::root(),
        object: Some(ObjectId::ROOT),
        above: root.clone(),
        name: None,
        standing: standing.clone(),
    }];
    while let Some(job) = waiting.pop() {
        let directory = match &job.name {
            None => job.above.clone(),
            Some(name) => match job.above.open_dir(name) {
                Ok(directory) => Arc::new(directory),
                Err(error) if error.kind() == FsErrorKind::NotFound => continue,
                Err(error) => return Err(DaemonError::failed(error.to_string())),
            },
        };
        let at = At {
            root,
            directory: &directory,
            keeping,
        };
        look(catalog, &at, &job, tell, &mut waiting)?;
    }
    Ok(())
}

/// A directory that is looked at, and the tree it is in.
struct At<'a> {
    root: &'a Arc<Directory>,
    directory: &'a Arc<Directory>,
    keeping: &'a Keeping,
}

impl At<'_> {
    /// Whether something is a backup that the receiver made, or the directory of these: no side's doing.
    fn is_backup(&self, path: &RelPath, name: &Name, kind: Kind, known: Option<&Entry>) -> bool {
        let is_mirrored = known.is_some_and(|known| !known.object.is_local());
        let is_beside = kind != Kind::Directory && self.keeping.is_backup_name(name);
        (path.is_root() && self.keeping.is_backup_directory(name)) || (is_beside && !is_mirrored)
    }
}

fn look(
    catalog: &impl CatalogRead,
    at: &At<'_>,
    job: &Job,
    tell: &mut dyn FnMut(Change),
    waiting: &mut Vec<Job>,
) -> Result<(), DaemonError> {
    let At { root, directory, .. } = *at;
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let mut known: HashMap<Name, Entry> = HashMap::new();
    if let Some(object) = job.object {
        let children = catalog.child_entries(object).map_err(|error| failed(&error))?;
        known = children
            .into_iter()
            .map(|entry| (entry.place.name.clone(), entry))
            .collect();
    }
    let listing = directory.list().map_err(|error| failed(&error))?;
    let mut change = |name: &Name, what, at| {
        let path = job.path.join(name);
        tell(Change { path, what, at });
    };
    for (name, stat) in listing.entries {
        let Some(kind) = kind_of(stat.file_type) else {
            continue;
        };
        let entry = known.remove(&name);
        if at.is_backup(&job.path, &name, kind, entry.as_ref()) {
            continue;
        }
        if let Standing::Rules(rules) = &job.standing
            && !rules.verdict(&name, kind).transfer
        {
            continue;
        }
        if let Some(what) = unlike(entry.as_ref(), kind, &stat) {
            change(&name, what, stat.stamp.ctime);
        }
        if kind == Kind::Directory {
            let standing = job.standing.enter(&name, root).map_err(|error| failed(&error))?;
            waiting.push(Job {
                path: job.path.join(&name),
                object: entry.filter(|entry| entry.kind == kind).map(|entry| entry.object),
                above: directory.clone(),
                name: Some(name),
                standing,
            });
        }
    }
    known.retain(|name, entry| !at.is_backup(&job.path, name, entry.kind, Some(entry)));
    if !known.is_empty() {
        let at = directory.stat_self().map_err(|error| failed(&error))?.stamp.mtime;
        known.keys().for_each(|name| change(name, Diverged::Removed, at));
    }
    Ok(())
}

fn unlike(known: Option<&Entry>, kind: Kind, stat: &Stat) -> Option<Diverged> {
    let Some(known) = known else {
        return Some(Diverged::Made);
    };
    if known.kind != kind {
        return Some(Diverged::Changed);
    }
    let has_mode = known.attributes.mode == stat.attributes.mode;
    if kind == Kind::Directory {
        return (!has_mode).then_some(Diverged::Attributes);
    }
    if is_same_state(known, stat) {
        return None;
    }
    // An object that is another one, or was written to; otherwise only what is said of it was changed.
    let stamp = known.stamp.and_then(|bytes| crate::fs::Stamp::from_bytes(&bytes));
    let is_content_same = stamp.is_some_and(|stamp| {
        let now = &stat.stamp;
        stamp.same_object(now) && (stamp.mtime, stamp.size) == (now.mtime, now.size)
    });
    match is_content_same {
        true => Some(Diverged::Attributes),
        false => Some(Diverged::Changed),
    }
}
