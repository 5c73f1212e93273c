//! Answers to a sender that compares: listings from the catalog, and, for `verify` and surveys, from the disk.

use super::owners::Terms;
use super::replica::{Replica, cheap_digest, kind_of, local_group};
use super::session::SessionError;
use super::staging::digest_of;
use crate::daemon::keeping::Keeping;
use crate::daemon::ledger::entry_sum;
use crate::engine::owners::OwnerMap;
use crate::engine::sum::BelowSum;
use crate::fs::{Directory, FsError};
use crate::net::ReceiverLink;
use crate::store::{CatalogRead, Entry, StoreError};
use driftless_protocol::limits::LISTING_ROWS_MAX;
use driftless_protocol::message::{Row, Rows, ToSender};
use driftless_protocol::{Attributes, Carried, Kind, ObjectId, RelPath, TreeSum, XattrClasses};
use std::collections::HashMap;
use std::sync::Arc;

/// Sums and entry counts below each directory of a catalog.
pub type BelowSums = HashMap<ObjectId, (TreeSum, u64)>;

/// Computes the sums below these directories and all that are in them, deepest first, without recursion.
pub fn below_sums(
    catalog: &impl CatalogRead,
    carried: Carried,
    directories: &[ObjectId],
) -> Result<BelowSums, StoreError> {
    let mut sums = BelowSums::new();
    let mut stack: Vec<(ObjectId, Vec<Entry>, bool)> = directories
        .iter()
        .map(|&directory| (directory, Vec::new(), false))
        .collect();
    while let Some((directory, children, expanded)) = stack.pop() {
        if !expanded {
            if sums.contains_key(&directory) {
                continue;
            }
            let children = catalog.child_entries(directory)?;
            let inner: Vec<_> = children
                .iter()
                .filter(|entry| entry.kind == Kind::Directory)
                .map(|entry| entry.object)
                .collect();
            stack.push((directory, children, true));
            stack.extend(inner.into_iter().map(|object| (object, Vec::new(), false)));
            continue;
        }
        let mut below = BelowSum::default();
        for entry in children.iter().filter(|entry| !entry.place.name.is_reserved()) {
            let (inside, entries) = sums.get(&entry.object).copied().unwrap_or_default();
            below.push(
                &entry.place.name,
                entry.object,
                entry_sum(entry, carried),
                inside,
                entries,
            );
        }
        sums.insert(directory, below.finish());
    }
    Ok(sums)
}

/// Sends the listings of directories, by number, in the order asked. An unknown number has an empty listing.
pub fn send_listings(
    replica: &Replica,
    link: &ReceiverLink,
    directories: &[ObjectId],
) -> Result<(), SessionError> {
    replica.catalog.read(|view| {
        let sums = below_sums(view, replica.terms.carried, directories)?;
        for &directory in directories {
            let entries = view.child_entries(directory)?;
            let visible = entries
                .into_iter()
                .filter(|entry| !entry.place.name.is_reserved() && !replica.keeper.is_backup(entry));
            let rows = visible.map(|entry| {
                let (below, entries) = sums.get(&entry.object).copied().unwrap_or_default();
                let Entry {
                    object,
                    kind,
                    place,
                    attributes,
                    size,
                    digest,
                    ..
                } = entry;
                Row {
                    name: place.name,
                    object,
                    kind,
                    attributes,
                    size,
                    digest,
                    below,
                    entries,
                }
            });
            send_rows(link, rows.collect());
        }
        Ok(())
    })?;
    Ok(())
}

fn send_rows(link: &ReceiverLink, mut rows: Vec<Row>) {
    loop {
        let rest = rows.split_off(rows.len().min(LISTING_ROWS_MAX));
        let last = rest.is_empty();
        if link
            .control()
            .send(ToSender::Listing {
                rows: Rows(rows),
                last,
            })
            .is_err()
            || last
        {
            return;
        }
        rows = rest;
    }
}

/// What a listing from the disk is to tell.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The extended attributes that the digests are of.
    pub xattrs: XattrClasses,
    /// Files are read for their digests.
    pub contents: bool,
}

/// Sends the listing of a directory as it is on the disk now. Without a root, everything is empty.
pub fn send_disk_listing(
    root: Option<&Arc<Directory>>,
    link: &ReceiverLink,
    path: &RelPath,
    wanted: Wanted,
    keeping: &Keeping,
) {
    match root.map_or(Ok(Vec::new()), |root| disk_rows(root, path, wanted, keeping)) {
        Ok(rows) => send_rows(link, rows),
        Err(text) => {
            let _ = link.control().send(ToSender::ListingFailed(text.as_str().into()));
        }
    }
}

/// The attributes of a directory itself.
pub fn own_attributes(root: &Directory, classes: XattrClasses) -> Result<Attributes, FsError> {
    let mut attributes = root.stat_self()?.attributes;
    if !classes.is_empty() {
        attributes.xattrs = root.self_xattrs(classes)?.xattrs.digest();
    }
    Ok(attributes)
}

/// What is in a directory below a root now, or in words why that cannot be told.
pub fn disk_rows(
    root: &Arc<Directory>,
    path: &RelPath,
    wanted: Wanted,
    keeping: &Keeping,
) -> Result<Vec<Row>, String> {
    let terms = Terms::new(
        Carried {
            xattrs: wanted.xattrs,
            ..Carried::default()
        },
        OwnerMap::default(),
    );
    let mut directory = root.clone();
    for name in path.names() {
        directory = Arc::new(directory.open_dir(name).map_err(|error| error.to_string())?);
    }
    let listing = directory.list().map_err(|error| error.to_string())?;
    let mut rows = Vec::with_capacity(listing.entries.len());
    for (name, stat) in listing.entries {
        let Some(kind) = kind_of(stat.file_type) else {
            continue;
        };
        let digest = match kind {
            Kind::Directory => None,
            Kind::File if !wanted.contents => None,
            Kind::File => directory
                .open_file(&name)
                .ok()
                .and_then(|(file, _)| digest_of(&file).ok()),
            _ => cheap_digest(&directory, &name, &stat).ok().flatten(),
        };
        if path.is_root() && keeping.is_backup_directory(&name) {
            continue;
        }
        // What may be a backup counts if the source has it, too.
        let object = match keeping.is_backup_name(&name) && kind != Kind::Directory {
            true => ObjectId::FIRST_LOCAL,
            false => ObjectId(0),
        };
        let (mut attributes, size) = (stat.attributes, stat.size);
        // Which names are of one object is for the other side to compare; this number only tells them apart.
        attributes.link_group = local_group(&stat);
        // Those whom they name are those of this disk: the other side maps its own.
        attributes.xattrs = terms.xattrs_on_disk(&directory, &name);
        rows.push(Row {
            name,
            object,
            kind,
            attributes,
            size,
            digest,
            below: TreeSum::default(),
            entries: 0,
        });
    }
    Ok(rows)
}
