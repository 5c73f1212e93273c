//! What only the target has: what of it goes, and what stays.

use super::{Job, Survey};
use crate::daemon::DaemonError;
use crate::daemon::sender::{Fate, Standing, fate_by};
use crate::engine::itemize::{Change, Item};
use driftless_protocol::message::Row;
use driftless_protocol::{Attributes, Kind, Name, RelPath, XattrClasses};

/// What becomes of an entry that only the target has, and of what is in it.
#[derive(Debug, Default)]
struct Judged {
    /// What goes.
    items: Vec<Item>,
    /// How many stay.
    kept: u64,
    /// The entry itself stays.
    stays: bool,
}

/// An entry that only the target has.
struct Suspect {
    above: Option<usize>,
    path: RelPath,
    kind: Kind,
    stays: bool,
    /// The rules inside, for a directory that is at risk itself.
    below: Option<Standing>,
}

impl Survey<'_> {
    /// Something of another kind stands where an entry is to be put. False, and reported, if it must stay.
    pub(super) fn replace(&mut self, job: &Job, path: &RelPath, row: &Row) -> Result<bool, DaemonError> {
        self.replaced += 1;
        if row.kind != Kind::Directory {
            return Ok(true);
        }
        let mut judged = self.judge(&job.standing, path, &row.name, row.kind, false)?;
        if judged.stays {
            self.unreadable(
                path,
                "the target has a directory here that holds entries which stay, because the filter protects them or as backups",
            );
            return Ok(false);
        }
        // The directory itself is no deletion: something else is there in its stead.
        judged.items.pop();
        self.blocked += judged.items.len() as u64;
        self.deletions.extend(judged.items);
        Ok(true)
    }

    pub(super) fn judge_extra(
        &mut self,
        standing: &Standing,
        path: &RelPath,
        name: &Name,
        kind: Kind,
    ) -> Result<(), DaemonError> {
        let judged = self.judge(standing, path, name, kind, true)?;
        self.report.totals.extras_kept += judged.kept;
        if self.keeps {
            self.report.totals.extras_kept += judged.items.len() as u64;
        } else {
            self.deletions.extend(judged.items);
        }
        Ok(())
    }

    /// What of an entry that only the target has goes, deepest first. Whatever holds something that stays, stays.
    fn judge(
        &mut self,
        standing: &Standing,
        path: &RelPath,
        name: &Name,
        kind: Kind,
        may_stay: bool,
    ) -> Result<Judged, DaemonError> {
        let fate = fate_by(standing, name, kind, false);
        let stays = fate == Fate::Kept && (may_stay || kind == Kind::Directory);
        let mut nodes = vec![self.suspect(None, standing, path.clone(), name, kind, stays)];
        let mut at = 0;
        while at < nodes.len() {
            if let Some(standing) = nodes[at].below.take() {
                let path = nodes[at].path.clone();
                match self.far.rows(&path, XattrClasses::NONE, false)? {
                    Ok(rows) => {
                        for row in rows {
                            if row.object.is_local() {
                                // A backup stays, and so does the directory around it.
                                nodes[at].stays = true;
                                continue;
                            }
                            let stays = fate_by(&standing, &row.name, row.kind, true) == Fate::Kept;
                            let path = path.join(&row.name);
                            let suspect = self.suspect(Some(at), &standing, path, &row.name, row.kind, stays);
                            nodes.push(suspect);
                        }
                    }
                    Err(text) => {
                        self.unreadable(&path, &format!("on the target: {text}"));
                        nodes[at].stays = true;
                    }
                }
            }
            at += 1;
        }
        let mut judged = Judged::default();
        while let Some(node) = nodes.pop() {
            if !node.stays {
                // Its backup stays in its place.
                if let Some(above) = node.above
                    && self.far.backs_up_beside()
                    && node.kind != Kind::Directory
                {
                    nodes[above].stays = true;
                }
                judged.items.push(Item {
                    path: node.path.to_bytes(),
                    kind: node.kind,
                    bytes: 0,
                    length: 0,
                    attributes: Attributes::default(),
                    change: Change::Delete,
                });
                continue;
            }
            judged.kept += 1;
            match node.above {
                Some(above) => nodes[above].stays = true,
                None => judged.stays = true,
            }
        }
        Ok(judged)
    }

    fn suspect(
        &mut self,
        above: Option<usize>,
        standing: &Standing,
        path: RelPath,
        name: &Name,
        kind: Kind,
        stays: bool,
    ) -> Suspect {
        let mut suspect = Suspect {
            above,
            path,
            kind,
            stays,
            below: None,
        };
        if kind == Kind::Directory && !stays {
            suspect.below = self.enter(standing, &suspect.path, name);
            suspect.stays = suspect.below.is_none();
        }
        suspect
    }
}
