//! What the target is told of users and groups: before the opening, of all that the tree has; later, of those that turn up.

use crate::engine::owners::OwnerRules;
use crate::fs::owner_name;
use driftless_protocol::limits::{OWNERS_MAX, OWNERS_TOTAL_MAX};
use driftless_protocol::{Attributes, OwnerKind, OwnerRow, Owners};
use std::collections::HashSet;
use std::io;

/// A user or group.
pub type OwnerKey = (OwnerKind, u32);

/// What users and groups are called; those that mean themselves are left out.
pub fn rows(rules: &OwnerRules, keys: impl IntoIterator<Item = OwnerKey>) -> Result<Vec<OwnerRow>, String> {
    let mut rows = Vec::new();
    for (kind, id) in keys {
        let name = match rules.needs_names() {
            true => owner_name(kind, id)
                .map_err(|error: io::Error| format!("cannot look up the {kind} of number {id}: {error}"))?,
            false => None,
        };
        if let Some(called) = rules.called(kind, id, name) {
            rows.push(OwnerRow { kind, id, called });
        }
    }
    Ok(rows)
}

/// In messages of as many as one may hold.
pub fn messages(rows: Vec<OwnerRow>) -> impl Iterator<Item = Owners> {
    let chunks: Vec<Owners> = rows
        .chunks(OWNERS_MAX)
        .map(|rows| Owners(rows.to_vec()))
        .collect();
    chunks.into_iter()
}

/// The users and groups of which a connection's target knows what they are called.
#[derive(Debug, Default)]
pub struct Named {
    known: HashSet<OwnerKey>,
    /// Told in an op that has not ended.
    underway: HashSet<OwnerKey>,
    rows: usize,
}

impl Named {
    /// All that the tree has now, and what is to be told of them before the opening.
    pub fn begin(
        rules: &OwnerRules,
        all: impl Iterator<Item = OwnerKey>,
    ) -> Result<(Named, Vec<OwnerRow>), String> {
        let known: HashSet<OwnerKey> = all.collect();
        let rows = rows(rules, known.iter().copied())?;
        check_number(rows.len())?;
        let named = Named {
            known,
            underway: HashSet::new(),
            rows: rows.len(),
        };
        Ok((named, rows))
    }

    /// Whether the target knows all of these.
    pub fn knows(&self, keys: &[OwnerKey]) -> bool {
        keys.iter().all(|key| self.known.contains(key))
    }

    /// What has to be told before anything is sent that names these, if that was not told yet.
    pub fn news(&mut self, rules: &OwnerRules, keys: &[OwnerKey]) -> Result<Vec<OwnerRow>, String> {
        let mut news = Vec::new();
        for &key in keys {
            if self.known.contains(&key) || self.underway.contains(&key) {
                continue;
            }
            let rows = rows(rules, [key])?;
            // What means itself needs no telling.
            let waits = if rows.is_empty() {
                &mut self.known
            } else {
                &mut self.underway
            };
            waits.insert(key);
            news.extend(rows);
        }
        self.rows += news.len();
        check_number(self.rows)?;
        Ok(news)
    }

    /// The target has taken in what it was told.
    pub fn acknowledge(&mut self, told: &[OwnerKey]) {
        for key in told {
            self.underway.remove(key);
            self.known.insert(*key);
        }
    }
}

fn check_number(rows: usize) -> Result<(), String> {
    match rows > OWNERS_TOTAL_MAX {
        true => Err(format!(
            "the tree has more than {OWNERS_TOTAL_MAX} users and groups with names: use --numeric-ids"
        )),
        false => Ok(()),
    }
}

/// Whose something is.
pub fn keys(attributes: &Attributes) -> [OwnerKey; 2] {
    [
        (OwnerKind::User, attributes.uid),
        (OwnerKind::Group, attributes.gid),
    ]
}
