//! The two databases of a mirror, each one file.
//!
//! **The catalog** ([`Catalog`]) is what one side knows of its tree: objects, their names, when they last changed. It
//! is a cache. It may be deleted at any time, and whatever is wrong with it (damage, another schema, another role) it
//! is replaced by an empty one, which a scan fills again. It never decides a deletion on its own: an empty catalog
//! means "look at the disk".
//!
//! **The state** ([`State`]) is what must never be guessed: the mirror's identity, incarnations, cursors, failed
//! sets, bindings, intents. Every change is on stable storage when the call returns; a damaged or newer file is
//! refused, never recreated.
//!
//! Both are redb files: copy on write, one writer, readers that see the last commit and are never blocked. redb locks
//! the file, so that a second process gets [`StoreError::InUse`].
//!
//! | module | holds |
//! | --- | --- |
//! | `catalog` | opening, transactions, what happens to a damaged file |
//! | `read` | questions, the same inside and outside a write transaction |
//! | `children` | a directory's entries, some at a time |
//! | `tables` | changes, and what keeps the tables consistent with each other |
//! | `record` | the bytes of a record |
//! | `state`, `state_record` | the state and the bytes of its records |
//! | `state_file` | how the state's file comes to be, is checked and migrated |
//! | `signatures` | block sums of what targets hold; a cache beside the two |
//! | `partials` | what was kept of files that arrived in part; a cache beside the two |
//! | `file` | opening a redb file without trusting it |

mod catalog;
mod children;
mod error;
mod file;
mod partials;
mod read;
mod record;
mod replaced;
mod signatures;
mod state;
mod state_file;
mod state_record;
mod tables;

#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, Opened, Role};
pub use children::Children;
pub use error::StoreError;
pub use partials::{Partial, PartialClaim, PartialLog, Partials};
pub use read::{CatalogRead, Change, View};
pub use record::{Entry, NOWHERE, STAMP_BYTES, Stamp, root_place};
pub use replaced::{Replacement, Replacements};
pub use signatures::{SIGNATURE_CACHE_BYTES, Signatures, content_key};
pub use state::{Binding, Failed, IncarnationEnd, State};
pub use tables::Tables;
