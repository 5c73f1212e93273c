//! Old trees that a process left which ended before it had taken them apart: the next one goes on, before it walks.

use super::carry::OldTree;
use super::working::is_gone;
use super::*;
use crate::daemon::receiver::replica::ReplicaError;
use crate::store::Replacement;
use std::sync::Arc;

impl Replica {
    /// Takes apart what an earlier process has replaced and has not removed.
    pub(in super::super) fn end_replacements(&mut self) -> Result<(), ReplicaError> {
        let records = self.replacements.read().map_err(|source| ReplicaError::Home {
            path: self.path.clone(),
            source,
        })?;
        for record in records {
            if let Some(parent) = self.find_replaced(&record)? {
                let catalog = self.catalog.clone();
                let ended = catalog.update(false, |t| Ok(self.end_replacement(t, &parent, &record)))?;
                if let Err(error) = ended {
                    let path = shown(&record.path);
                    tracing::warn!(path, "what was replaced at once is not removed: {}", error.text);
                    // Under its private name it would be swept.
                    self.set_old_aside(&parent, &record)?;
                }
            }
            self.replacements.forget(&record.aside);
        }
        Ok(())
    }

    /// The directory in which something stands that was replaced. That it was is on stable storage then: until that is so nothing of it
    /// may go, since a loss of power could leave it as what is visible.
    fn find_replaced(&mut self, record: &Replacement) -> Result<Option<Arc<Directory>>, ReplicaError> {
        let (Some((parent, name)), Some(top)) = (self.parent_of(record)?, Stamp::from_bytes(&record.top))
        else {
            return Ok(None);
        };
        // The number of a device may be another one after each start of the machine; all of it is on one.
        let is_top = |stat: &Stat| (stat.stamp.inode, stat.stamp.birth) == (top.inode, top.birth);
        let Some(stat) = parent.stat(&record.aside)? else {
            return Ok(None);
        };
        if is_top(&stat) {
            parent.sync()?;
            return Ok(Some(parent));
        }
        if !parent.stat(&name)?.is_some_and(|stat| is_top(&stat)) {
            // Somebody put something else there at that moment. Nobody knows which of the two this is.
            self.set_old_aside(&parent, record)?;
        }
        // It was not replaced. What is there was made to replace it, and is swept.
        Ok(None)
    }

    fn end_replacement(
        &mut self,
        t: &mut Tables<'_>,
        parent: &Arc<Directory>,
        record: &Replacement,
    ) -> Outcome {
        let Some(name) = record.path.last() else {
            return Ok(());
        };
        let device = parent.stat_self()?.stamp.device;
        let mut known = Known::default();
        for stamp in record.known.iter().filter_map(|stamp| Stamp::from_bytes(stamp)) {
            known.stamps.insert(stamp.inode, Stamp { device, ..stamp });
        }
        let spots = record.spots.iter();
        known.spots = spots.map(|(spot, inode)| (Spot(*spot), *inode)).collect();
        let mut object = Some(ObjectId::ROOT);
        for step in &record.path {
            object = object.map(|object| t.lookup(object, step)).transpose()?.flatten();
        }
        let before = parent.stat_self()?.attributes.mtime;
        let old = OldTree {
            name,
            aside: &record.aside,
            path: record.path.clone(),
            object,
            known: &known,
        };
        tracing::info!(
            path = shown(&record.path),
            "what was replaced before a crash is removed"
        );
        let outcome = self.end_old(t, parent, old);
        // What is set aside has no other name than that on the shelf.
        self.keeper.sync()?;
        outcome?;
        Ok(parent.set_self_mtime(before)?)
    }

    /// Sets aside as it is what could not be taken apart. If that fails, too, it stays noted, and nothing is opened that would sweep it.
    fn set_old_aside(&mut self, parent: &Directory, record: &Replacement) -> Result<(), FsError> {
        let before = parent.stat_self()?.attributes.mtime;
        ignore_missing(self.keeper.set_aside(parent, &record.aside, &record.path))?;
        self.keeper.sync()?;
        parent.set_self_mtime(before)?;
        parent.sync()
    }

    /// The directory in which a tree stood, and its name there. None if that is gone.
    fn parent_of(&self, record: &Replacement) -> Result<Option<(Arc<Directory>, Name)>, FsError> {
        let Some((name, above)) = record.path.split_last() else {
            return Ok(None);
        };
        let mut parent = self.root.clone();
        for step in above {
            parent = match parent.open_dir(step) {
                Ok(inner) => Arc::new(inner),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some((parent, name.clone())))
    }
}
