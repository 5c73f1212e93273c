//! What a session owes to those who wait for a point in time; see [`crate::daemon::sender::barriers`].

use super::*;
use crate::daemon::sender::barriers::{Owed, Owing, Question};
use crate::daemon::sender::requests::finish_barriers;
use driftless_protocol::RelPath;
use driftless_protocol::message::ToReceiver;

impl Session<'_, '_> {
    /// Looks which barriers are reached, and asks the receiver what has to be asked.
    pub(super) fn serve_barriers(&mut self) -> Result<(), Ended> {
        self.context.barriers.drop_abandoned();
        if !self.context.barriers.concern_session() || !self.context.barriers.is_check_due(Instant::now()) {
            return Ok(());
        }
        if self.is_caught_up()? {
            self.note_owing()?;
            self.drop_done()?;
            // Otherwise they would wait for a moment in which nothing is on its way at all.
            if self.context.barriers.owe_removals() && self.context.is_calm() && self.again.is_empty() {
                self.send_removals()?;
            }
        }
        while let Some(question) = self.poll_question() {
            let message = match question {
                Question::Received { token, through } => ToReceiver::ConfirmReceived { token, through },
                Question::Durable { token } => ToReceiver::ConfirmDurable { token },
            };
            if self.link.control().send(message).is_err() {
                break;
            }
        }
        finish_barriers(self.context).map_err(Ended::from)
    }

    /// Whether the journal was taken to its end: what is not on the target is in one of the session's lists.
    fn is_caught_up(&self) -> Result<bool, StoreError> {
        Ok(!self.must_reconcile && self.page.is_empty() && self.adopts.is_empty() && !self.has_more()?)
    }

    fn poll_question(&mut self) -> Option<Question> {
        let (window, removes) = (&self.window, &self.removes);
        self.context.barriers.poll_question(|removals| {
            let is_unsent = removes
                .iter()
                .any(|removal| removals.contains_key(&removal.object));
            (!is_unsent).then(|| window.last_removal(removals))
        })
    }

    /// Objects for which something is left to do, but for those that are in error as they are now. What is in error and has changed
    /// since, or was asked to be looked at again, is waited for once more.
    fn under_way(&self) -> Result<HashSet<ObjectId>, StoreError> {
        let delayed = self.delayed.iter().map(|(_, object)| object);
        let all = (self.busy.iter())
            .chain(&self.deferred)
            .chain(&self.again)
            .chain(&self.bulk.queued)
            .chain(delayed)
            .chain(&self.held)
            .chain(self.groups.waiting());
        let mut objects: HashSet<ObjectId> = all.copied().collect();
        if self.context.failed.is_empty() {
            return Ok(objects);
        }
        self.context.source.catalog.read(|view| {
            let mut refused = Vec::new();
            for object in &objects {
                let Some(failed) = self.context.failed.get(object) else {
                    continue;
                };
                let present = view.get(*object)?.map(|entry| entry.sequence);
                if failed.refused.is_some() && failed.refused == present || present.is_none() {
                    refused.push(*object);
                }
            }
            for object in refused {
                objects.remove(&object);
            }
            Ok(())
        })?;
        Ok(objects)
    }

    /// Objects whose removal is not done yet, but for those that wait for an entry in error.
    fn removals_under_way(&self) -> HashMap<ObjectId, Place> {
        let waiting = self
            .removes
            .iter()
            .map(|removal| (removal.object, &removal.place));
        let all = waiting.chain(self.window.removals());
        all.map(|(object, place)| (object, place.clone())).collect()
    }

    /// Notes what is owed to those that waited for the end of the journal.
    fn note_owing(&mut self) -> Result<(), Ended> {
        let catching_up = self.context.barriers.catching_up();
        if catching_up.is_empty() {
            return Ok(());
        }
        let (objects, removals) = (self.under_way()?, self.removals_under_way());
        // From the last to the first: one that is refused is taken out.
        for at in catching_up.into_iter().rev() {
            let below = self.context.barriers.below(at);
            let catalog = self.context.source.catalog.clone();
            let top = catalog.read(|view| resolve(view, &below))?;
            if top.is_none() && self.context.source.is_there(&below) {
                let text = format!(
                    "{below} is not part of the mirror of {} (`driftless explain` says why)",
                    self.context.source.path.display()
                );
                self.context.barriers.refuse(at, text);
                continue;
            }
            let mut owing = Owing::default();
            owing.removals.clone_from(&removals);
            catalog.read(|view| {
                for &object in &objects {
                    let Some(entry) = view.get(object)? else {
                        // On its way, and gone from the source since: its removal follows.
                        continue;
                    };
                    // Something that moved may have left this part of the tree.
                    let counts = entry.flags & flags::MOVED != 0 || is_below(view, object, top)?;
                    if counts {
                        let sequence = entry.sequence;
                        let sent = self.window.content_of(object, sequence);
                        let place = entry.place;
                        owing.objects.insert(
                            object,
                            Owed {
                                sequence,
                                place,
                                sent,
                            },
                        );
                    }
                }
                Ok(())
            })?;
            self.hurry(&owing);
            self.context.barriers.set_owing(at, owing);
        }
        Ok(())
    }

    /// Large files with a rhythm of their own go now.
    fn hurry(&mut self, owing: &Owing) {
        let now = Instant::now();
        let waits: Vec<_> = self
            .delayed
            .iter()
            .filter(|(_, object)| owing.objects.contains_key(object) && self.large_due.contains_key(object))
            .copied()
            .collect();
        for (due, object) in waits {
            self.delayed.remove(&(due, object));
            self.large_due.insert(object, now);
            self.again.push_back(object);
        }
    }

    /// Takes out what needs nothing any more. The journal has been taken to its end.
    fn drop_done(&mut self) -> Result<(), StoreError> {
        let (objects, removals) = (self.under_way()?, self.removals_under_way());
        let catalog = self.context.source.catalog.clone();
        let busy = &self.busy;
        let unsent: HashSet<ObjectId> = self.removes.iter().map(|removal| removal.object).collect();
        catalog.read(|view| {
            for owing in self.context.barriers.owing() {
                let mut instead = Vec::new();
                for (&object, owed) in &owing.objects {
                    if busy.contains(&object) || view.get(object)?.is_some() {
                        continue;
                    }
                    // Gone before it was sent. Until what took its place is on the target, or it is empty there, the target
                    // has what was there before.
                    let Place { directory, name } = &owed.place;
                    instead.push((object, view.lookup(*directory, name)?));
                }
                for (object, successor) in instead {
                    let Some(owed) = owing.objects.remove(&object) else {
                        continue;
                    };
                    match successor {
                        Some(successor) => owing.owe(view, successor)?,
                        None => _ = owing.removals.insert(object, owed.place),
                    }
                }
                // The other way round: what takes the place of a removed object also takes it away there.
                let mut filled = Vec::new();
                for (&object, Place { directory, name }) in &owing.removals {
                    if unsent.contains(&object)
                        && let Some(successor) = view.lookup(*directory, name)?
                    {
                        filled.push((object, successor));
                    }
                }
                for (object, successor) in filled {
                    owing.removals.remove(&object);
                    owing.owe(view, successor)?;
                }
                owing.objects.retain(|object, _| objects.contains(object));
                owing.removals.retain(|object, _| removals.contains_key(object));
            }
            Ok(())
        })
    }
}

impl Owing {
    /// Adds an object as it is now.
    fn owe(&mut self, view: &impl CatalogRead, object: ObjectId) -> Result<(), StoreError> {
        if let Some(entry) = view.get(object)? {
            let (sequence, place) = (entry.sequence, entry.place);
            let owed = Owed {
                sequence,
                place,
                sent: None,
            };
            self.objects.entry(object).or_insert(owed);
        }
        Ok(())
    }
}

/// The object at a path.
pub fn resolve(view: &impl CatalogRead, path: &RelPath) -> Result<Option<ObjectId>, StoreError> {
    let mut at = ObjectId::ROOT;
    for name in path.names() {
        match view.lookup(at, name)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Whether an object is another, or below it; never below none.
pub fn is_below(
    view: &impl CatalogRead,
    object: ObjectId,
    top: Option<ObjectId>,
) -> Result<bool, StoreError> {
    let Some(top) = top else { return Ok(false) };
    let mut at = object;
    for _ in 0..driftless_protocol::limits::PATH_ELEMENTS_MAX {
        if at == top || top == ObjectId::ROOT {
            return Ok(true);
        }
        if at == ObjectId::ROOT {
            return Ok(false);
        }
        let Some(entry) = view.get(at)? else {
            return Ok(false);
        };
        at = entry.place.directory;
    }
    // Deeper than a path can be said: better waited for in vain than not at all.
    Ok(true)
}
