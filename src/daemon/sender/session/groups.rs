//! Names of one object: one of them carries the content, the others become links to it.
//!
//! A change of an object is seen at all of its names at once. The first whose turn comes is the *carrier*: it is sent like
//! any other file, and the others wait. When it has ended they are linked to it, or to any other name that is known to
//! be right on the target, and nothing is read or sent for them.

use super::*;

/// Which names carry, and which wait for them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    carriers: HashMap<ObjectId, ObjectId>,
    group_of: HashMap<ObjectId, ObjectId>,
    waiting: HashMap<ObjectId, Vec<ObjectId>>,
    /// A name of each group that was right on the target when it was last looked for.
    anchors: HashMap<ObjectId, ObjectId>,
}

impl Groups {
    /// Something is about to be sent: its group waits for it, unless it is itself only a link or a move.
    pub(super) fn note_carrier(&mut self, body: &OpBody, flight: &InFlight) {
        let Some(group) = body.attributes().map(|attributes| attributes.link_group) else {
            return;
        };
        if let Some(object) = flight.object()
            && !matches!(body, OpBody::Link { .. } | OpBody::MakeDirectory { .. })
        {
            self.carry(group, object);
        }
    }

    /// A name is read or sent for all of its group.
    pub(super) fn carry(&mut self, group: ObjectId, object: ObjectId) {
        if group == ObjectId(0) {
            return;
        }
        self.carriers.insert(group, object);
        self.group_of.insert(object, group);
    }

    /// Nothing is under way for an object any more: what waited for it has its turn.
    pub(super) fn free(&mut self, object: ObjectId, again: &mut VecDeque<ObjectId>) {
        let Some(group) = self.group_of.remove(&object) else {
            return;
        };
        if self.carriers.get(&group) == Some(&object) {
            self.carriers.remove(&group);
            again.extend(self.waiting.remove(&group).unwrap_or_default());
        }
    }

    /// The names that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &ObjectId> {
        self.waiting.values().flatten()
    }

    /// Whether no name waits for another.
    pub(super) fn is_calm(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Session<'_, '_> {
    /// Deals with a name of an object that has several, if it is not the one to carry the content. True if nothing is
    /// left to do for now.
    pub(super) fn start_as_link(&mut self, entry: &Entry, next: &Next) -> Result<bool, Ended> {
        let group = entry.attributes.link_group;
        match next {
            Next::Nothing | Next::Op(OpBody::Move { .. }, _) => return Ok(false),
            _ if entry.kind == Kind::Directory => return Ok(false),
            _ => {}
        }
        if let Some(&carrier) = self.groups.carriers.get(&group)
            && carrier != entry.object
        {
            self.groups.waiting.entry(group).or_default().push(entry.object);
            return Ok(true);
        }
        let Some(anchor) = self.anchor(entry)? else {
            return Ok(false);
        };
        let Some(digest) = anchor.digest else {
            return Ok(false);
        };
        let (object, place, attributes) = (entry.object, entry.place.clone(), entry.attributes);
        let flight = InFlight::HardLink {
            object,
            sequence: entry.sequence,
            place: place.clone(),
            digest,
            stamp: stamp_of(entry),
            attributes,
        };
        let to = anchor.object;
        let body = OpBody::Link {
            place,
            object,
            attributes,
            to,
            digest,
        };
        self.submit(body, flight);
        Ok(true)
    }

    /// An op is about to give one of several names a file of its own on the target, or to leave it the one that it has: the
    /// others have to be linked with that. Their contents may be right all the time, and say nothing then.
    pub(super) fn note_parting(&mut self, body: &OpBody, flight: &InFlight) -> Result<(), StoreError> {
        let InFlight::Content { object, .. } = flight else {
            return Ok(());
        };
        let (source, busy) = (&mut *self.context.source, &self.busy);
        let parts = match body {
            OpBody::PutFile { attributes, .. } => attributes.link_group != ObjectId(0),
            _ => {
                let entry = source.catalog.read(|view| view.get(*object))?;
                entry.is_some_and(|entry| entry.flags & flags::PARTED != 0)
            }
        };
        match parts {
            true => source
                .catalog
                .clone()
                .update(false, |t| source.part_names(t, *object, busy)),
            false => Ok(()),
        }
    }

    /// Another name of the same object that the target is known to have as it is now.
    fn anchor(&mut self, entry: &Entry) -> Result<Option<Entry>, StoreError> {
        let group = entry.attributes.link_group;
        let source = &*self.context.source;
        let remembered = self.groups.anchors.get(&group).copied();
        let busy = &self.busy;
        let found = source.catalog.read(|view| {
            for other in remembered.into_iter().chain(source.linked_with(entry)) {
                if let Some(other) = view.get(other)?
                    && !busy.contains(&other.object)
                    && is_right(&other, entry)
                {
                    return Ok(Some(other));
                }
            }
            Ok(None)
        })?;
        match &found {
            Some(anchor) => self.groups.anchors.insert(group, anchor.object),
            None => self.groups.anchors.remove(&group),
        };
        Ok(found)
    }
}

/// Whether the target has `other` as it is, and it is the same object as `entry`, seen at the same time.
fn is_right(other: &Entry, entry: &Entry) -> bool {
    other.object != entry.object
        && other.flags & !flags::HIDES == flags::ON_TARGET
        && other.digest.is_some()
        && other.stamp.is_some()
        && other.stamp == entry.stamp
        && other.attributes == entry.attributes
}
