//! The users and groups whom ACLs in the tree name. Catalogs have digests of ACLs only, so these are kept beside them.

use crate::daemon::sender::owners::OwnerKey;
use crate::engine::owners::acl_owners;
use crate::store::{CatalogRead, StoreError, Tables};
use driftless_protocol::{OwnerKind, Xattrs};
use std::collections::BTreeSet;

const META_ACL_OWNERS: &str = "acl owners";

/// Those who are or were named; a catalog that is built anew forgets the latter.
#[derive(Debug, Default)]
pub struct AclOwners {
    known: BTreeSet<OwnerKey>,
    has_news: bool,
}

impl AclOwners {
    /// Those that a catalog knows of. Stored are kind (1 byte) and number (4, big endian) of each.
    pub fn load(catalog: &impl CatalogRead) -> Result<AclOwners, StoreError> {
        let bytes = catalog.meta(META_ACL_OWNERS)?.unwrap_or_default();
        let rows = bytes.as_chunks::<5>().0.iter();
        let known = rows.map(|&[kind, a, b, c, d]| {
            let kind = if kind == 0 {
                OwnerKind::User
            } else {
                OwnerKind::Group
            };
            (kind, u32::from_be_bytes([a, b, c, d]))
        });
        Ok(AclOwners {
            known: known.collect(),
            has_news: false,
        })
    }

    /// Takes in whom these attributes name.
    pub fn note(&mut self, xattrs: &Xattrs) {
        for key in acl_owners(xattrs) {
            self.has_news |= self.known.insert(key);
        }
    }

    /// Writes them to the catalog, if there are others than it has.
    pub fn store(&mut self, t: &mut Tables<'_>) -> Result<(), StoreError> {
        if !std::mem::take(&mut self.has_news) {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(5 * self.known.len());
        for (kind, id) in &self.known {
            bytes.push(u8::from(*kind == OwnerKind::Group));
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        t.set_meta(META_ACL_OWNERS, &bytes)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = OwnerKey> {
        self.known.iter().copied()
    }
}
