//! What a peer may do in the module that it opened: its entry in the trust store, put into deeds.
//!
//! What can be agreed on when a connection opens (owners, devices, extended attributes, deletions) is; a sender of good
//! will then asks for nothing else. What it asks for all the same fails here, op by op.

use super::replica::ApplyError;
use crate::daemon::ModuleOptions;
use crate::store::{CatalogRead, StoreError};
use driftless_certs::{Right, Rights};
use driftless_protocol::message::{FailureKind, OpBody, Purpose};
use driftless_protocol::{Attributes, Carried, Kind, XattrClasses};

/// The set-user-ID and set-group-ID bits.
const SET_ID: u16 = 0o6000;

/// Whether a peer may open a connection for this at all; if not, why, in words for the peer.
pub(super) fn check_purpose(rights: Rights, purpose: Purpose) -> Result<(), &'static str> {
    match purpose {
        Purpose::Mirror if !rights.has(Right::Push) => {
            Err("this peer may verify this module, but not push to it")
        }
        Purpose::Verify | Purpose::Divergence if !rights.has(Right::Verify) => {
            Err("this peer may push to this module, but not verify it")
        }
        Purpose::Survey if !rights.has(Right::Push) && !rights.has(Right::Verify) => {
            Err("this peer may neither push to this module nor verify it")
        }
        Purpose::Forget if !rights.has(Right::Push) => {
            Err("this peer may verify this module, but not end a mirror to it")
        }
        Purpose::Mirror | Purpose::Verify | Purpose::Survey | Purpose::Forget | Purpose::Divergence => Ok(()),
    }
}

/// Whether a survey may have contents read. Whoever pushes is told names and attributes anyway, but not what is in files.
pub(super) fn check_survey(rights: Rights, contents: bool) -> Result<(), &'static str> {
    match contents && !rights.has(Right::Verify) {
        true => {
            Err("this peer may not verify this module, so nothing is read for it (look without --checksum)")
        }
        false => Ok(()),
    }
}

/// The metadata that a module takes from a peer, if this process can set it.
pub(super) fn carried(module: &ModuleOptions, rights: Rights) -> Carried {
    let classes = [
        (Right::UserXattrs, XattrClasses::USER),
        (Right::Acls, XattrClasses::ACL),
        (Right::Capabilities, XattrClasses::CAPABILITY),
        (Right::SecurityXattrs, XattrClasses::SECURITY),
        (Right::TrustedXattrs, XattrClasses::TRUSTED),
    ];
    let granted = classes.into_iter().filter(|(right, _)| rights.has(*right));
    let granted = granted.fold(XattrClasses::NONE, |all, (_, class)| all.union(class));
    Carried {
        owner: rights.has(Right::Owner),
        devices: module.devices && rights.has(Right::Devices),
        xattrs: module.xattrs.common(granted),
        leaves_root: false,
    }
}

/// Whether an op is within the rights of its sender.
pub(super) fn check(
    catalog: &impl CatalogRead,
    body: &OpBody,
    rights: Rights,
) -> Result<Result<(), ApplyError>, StoreError> {
    Ok(match body {
        OpBody::Remove { place, .. } if !rights.has(Right::Delete) => Err(not_permitted(format!(
            "{} stays: this peer may not remove entries of this module",
            place.name
        ))),
        // A directory with these bits hands its group down, no more.
        OpBody::MakeDirectory { .. } => Ok(()),
        OpBody::SetAttributes { object, .. }
            if catalog
                .get(*object)?
                .is_some_and(|entry| entry.kind == Kind::Directory) =>
        {
            Ok(())
        }
        body => body
            .attributes()
            .map_or(Ok(()), |attributes| check_attributes(attributes, rights)),
    })
}

/// Whether the attributes of anything but a directory are within the rights of the sender.
pub(super) fn check_attributes(attributes: &Attributes, rights: Rights) -> Result<(), ApplyError> {
    if attributes.mode & SET_ID == 0 || rights.has(Right::SetId) {
        return Ok(());
    }
    Err(not_permitted(
        "this peer may not set the set-user-ID or set-group-ID bit of files of this module".to_owned(),
    ))
}

fn not_permitted(text: String) -> ApplyError {
    ApplyError {
        kind: FailureKind::Permission,
        text,
    }
}
