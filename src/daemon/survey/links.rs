//! Which names are of one object here and there.

use super::ALONE;
use crate::engine::itemize::{Change, Differences, Item};
use crate::fs::{FileType, Stat};
use driftless_protocol::message::Row;
use driftless_protocol::{Attributes, Kind, ObjectId};
use std::collections::HashMap;

/// Objects with several names, as far as they were met.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By device and inode here.
    groups: HashMap<(u64, u64), Group>,
    /// Which of our groups keeps an object that has several names on the target.
    keepers: HashMap<ObjectId, (u64, u64)>,
}

#[derive(Debug)]
struct Group {
    /// The first name.
    first: Vec<u8>,
    kind: Kind,
    length: u64,
    attributes: Attributes,
    /// The target's object that the first name has there and keeps.
    there: Option<ObjectId>,
    /// The first name was told of.
    is_told: bool,
    names: u64,
}

impl Links {
    /// What becomes of a name, given what differs otherwise.
    pub(super) fn change(
        &mut self,
        path: &[u8],
        stat: &Stat,
        row: Option<&Row>,
        differences: Differences,
    ) -> Change {
        let shared = row.map_or(ALONE, |row| row.attributes.link_group);
        if stat.file_type == FileType::Directory {
            return Change::Update(differences);
        }
        if stat.links < 2 {
            return match shared {
                ALONE => Change::Update(differences),
                _ if differences.any() => Change::Update(differences),
                _ => Change::Unlink(differences),
            };
        }
        let here = (stat.stamp.device, stat.stamp.inode);
        if let Some(group) = self.groups.get_mut(&here) {
            group.names += 1;
            let is_linked = shared != ALONE && group.there == Some(shared);
            return match is_linked && !differences.any() {
                true => Change::Update(differences),
                false => Change::Link(
                    Differences {
                        transfer: false,
                        ..differences
                    },
                    group.first.clone(),
                ),
            };
        }
        let keeps = shared != ALONE && *self.keepers.entry(shared).or_insert(here) == here;
        let is_told = differences.any() || (shared != ALONE && !keeps);
        self.groups.insert(
            here,
            Group {
                first: path.to_vec(),
                kind: stat.file_type.kind().unwrap_or(Kind::File),
                length: stat.size,
                attributes: stat.attributes,
                there: keeps.then_some(shared),
                is_told,
                names: 1,
            },
        );
        match shared != ALONE && !keeps && !differences.any() {
            true => Change::Unlink(differences),
            false => Change::Update(differences),
        }
    }

    /// Names that turned out to be the only ones of their object in the tree, and share one on the target.
    pub(super) fn unshared(&mut self) -> Vec<Item> {
        let alone = |group: &&Group| group.names == 1 && group.there.is_some() && !group.is_told;
        let found = self.groups.values().filter(alone);
        let item = |group: &Group| Item {
            path: group.first.clone(),
            kind: group.kind,
            bytes: 0,
            length: group.length,
            attributes: group.attributes,
            change: Change::Unlink(Differences::default()),
        };
        let mut found: Vec<_> = found.map(item).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}
