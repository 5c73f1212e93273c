//! What is done in a module, by name, for hooks that want to know. Nothing is looked up while nobody does.

use crate::daemon::events::{self, AppliedChange};
use crate::daemon::status::SessionStatus;
use crate::daemon::verbs;
use crate::store::CatalogRead;
use driftless_protocol::message::{OpBody, Place};
use driftless_protocol::{Name, ObjectId, RelPath};

/// A change that an op is about to make. Contents of files are noted when they are put, by [`note_content`].
pub(super) struct Change {
    verb: &'static str,
    at: At,
}

enum At {
    Place(Place),
    Object(ObjectId),
}

impl Change {
    /// None if nobody wants its name, and for ops that change no entry.
    pub(super) fn of(body: &OpBody) -> Option<Change> {
        if !events::are_changes_wanted() {
            return None;
        }
        let place = |verb, place: &Place| {
            let at = At::Place(place.clone());
            Some(Change { verb, at })
        };
        match body {
            OpBody::MakeDirectory { place: at, .. } => place(verbs::MADE, at),
            OpBody::PutSymlink { place: at, .. } | OpBody::PutSpecial { place: at, .. } => {
                place(verbs::PUT, at)
            }
            OpBody::Link { place: at, .. } => place(verbs::LINKED, at),
            OpBody::Move { to, .. } => place(verbs::MOVED, to),
            OpBody::Remove { place: at, .. } => place(verbs::REMOVED, at),
            OpBody::SetAttributes { object, .. } => Some(Change {
                verb: verbs::CHANGED,
                at: At::Object(*object),
            }),
            OpBody::PutFile { .. }
            | OpBody::Release { .. }
            | OpBody::Adopt { .. }
            | OpBody::Mark { .. }
            | OpBody::Owners(_) => None,
        }
    }

    /// It is visible now.
    pub(super) fn note(self, status: &SessionStatus, tables: &impl CatalogRead) {
        let path = match &self.at {
            At::Place(place) => path_to(tables, place),
            At::Object(object) => tables.path_of(*object).ok().flatten(),
        };
        status.note_change(path.map(|path| change(self.verb, path, None)));
    }
}

/// The content of a file is visible.
pub(super) fn note_content(
    status: &SessionStatus,
    tables: &impl CatalogRead,
    place: &Place,
    bytes: Option<u64>,
) {
    if events::are_changes_wanted() {
        let path = path_to(tables, place);
        status.note_change(path.map(|path| change(verbs::PUT, path, bytes)));
    }
}

fn path_to(tables: &impl CatalogRead, place: &Place) -> Option<Vec<Name>> {
    let mut path = tables.path_of(place.directory).ok().flatten()?;
    path.push(place.name.clone());
    Some(path)
}

fn change(verb: &str, path: Vec<Name>, bytes: Option<u64>) -> AppliedChange {
    AppliedChange {
        verb: verb.to_owned(),
        path: RelPath::from_names(path).map_or_else(|_| String::new(), |path| path.to_string()),
        bytes,
    }
}
