//! What an op is about, and what no op may be about.

use super::replica::ApplyError;
use driftless_protocol::message::{FailureKind, OpBody, Place};
use driftless_protocol::{Carried, ObjectId, Xattrs};

/// What no op may do, whatever stands on the disk.
pub(super) fn check(body: &OpBody) -> Result<(), ApplyError> {
    if let Some(place) = place_of(body) {
        if place.name.is_reserved() {
            let text = format!("{} is a name that driftless keeps for itself", place.name);
            return Err(ApplyError {
                kind: FailureKind::Unsupported,
                text,
            });
        }
        // The catalog holds the root as an entry of directory 0. `MakeDirectory` names the root by its number alone.
        if place.directory == ObjectId(0)
            && !matches!(
                body,
                OpBody::MakeDirectory {
                    object: ObjectId::ROOT,
                    ..
                }
            )
        {
            return Err(ApplyError::mismatch(
                "the root is never replaced, moved or removed",
            ));
        }
    }
    let (given, rest) = match body {
        OpBody::MakeDirectory {
            object: ObjectId::ROOT,
            ..
        } => return Ok(()),
        OpBody::MakeDirectory { object, .. }
        | OpBody::PutFile { object, .. }
        | OpBody::PutSymlink { object, .. }
        | OpBody::PutSpecial { object, .. }
        | OpBody::Link { object, .. }
        | OpBody::Adopt { object, .. } => (Some(*object), None),
        OpBody::Move { object, .. } | OpBody::Remove { object, .. } | OpBody::Release { object, .. } => {
            (None, Some(*object))
        }
        OpBody::SetAttributes { .. } | OpBody::Mark { .. } | OpBody::Owners(_) => return Ok(()),
    };
    if given.is_some_and(|object| object.is_local() || object == ObjectId(0)) {
        return Err(ApplyError::mismatch("a sender may not give that number"));
    }
    if given.or(rest) == Some(ObjectId::ROOT) {
        return Err(ApplyError::mismatch(
            "the root is never replaced, moved or removed",
        ));
    }
    Ok(())
}

/// The extended attributes of an op: of classes that were agreed on, and those that its attributes name.
pub(super) fn check_xattrs(body: &OpBody, xattrs: &Xattrs, carried: Carried) -> Result<(), ApplyError> {
    let refused = |kind, text: String| Err(ApplyError { kind, text });
    if let Some(foreign) = xattrs.iter().find(|xattr| !carried.xattrs.admits(&xattr.name)) {
        let text = format!(
            "the extended attribute {} is none that this module takes",
            foreign.name.escape_ascii()
        );
        return refused(FailureKind::Unsupported, text);
    }
    let named = body.attributes().and_then(|attributes| attributes.xattrs);
    if xattrs.digest() != named {
        let text = "the extended attributes do not have the promised digest".to_owned();
        return refused(FailureKind::WrongDigest, text);
    }
    Ok(())
}

/// The object that an op finds by its number alone.
pub(super) fn object_of(body: &OpBody) -> Option<ObjectId> {
    match body {
        OpBody::SetAttributes { object, .. }
        | OpBody::Move { object, .. }
        | OpBody::Link { to: object, .. } => Some(*object),
        _ => None,
    }
}

/// The object that an op is to bring about, change or remove.
pub(super) fn subject_of(body: &OpBody) -> Option<ObjectId> {
    match body {
        OpBody::MakeDirectory { object, .. }
        | OpBody::PutFile { object, .. }
        | OpBody::PutSymlink { object, .. }
        | OpBody::PutSpecial { object, .. }
        | OpBody::Link { object, .. }
        | OpBody::SetAttributes { object, .. }
        | OpBody::Move { object, .. }
        | OpBody::Remove { object, .. }
        | OpBody::Release { object, .. }
        | OpBody::Adopt { object, .. } => Some(*object),
        OpBody::Mark { .. } | OpBody::Owners(_) => None,
    }
}

/// The place that an op names.
pub(super) fn place_of(body: &OpBody) -> Option<&Place> {
    match body {
        OpBody::MakeDirectory { place, .. }
        | OpBody::PutFile { place, .. }
        | OpBody::PutSymlink { place, .. }
        | OpBody::PutSpecial { place, .. }
        | OpBody::Link { place, .. }
        | OpBody::Remove { place, .. }
        | OpBody::Release { place, .. }
        | OpBody::Adopt { place, .. } => Some(place),
        OpBody::Move { to, .. } => Some(to),
        OpBody::SetAttributes { .. } | OpBody::Mark { .. } | OpBody::Owners(_) => None,
    }
}
