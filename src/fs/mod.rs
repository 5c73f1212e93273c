//! The only place with file system calls.
//!
//! What this layer promises:
//!
//! - **Below the root, or not at all.** A [`Directory`] is a handle. Everything happens by one [`Name`] relative to a
//!   handle; no call here follows a symbolic link below the root, whoever plants it and whenever. The one exception is
//!   the path given to [`Directory::open_root`] and [`TreeLock::acquire`], which the administrator chose; and a tree that is
//!   read by a [`View`] which says that links are followed.
//! - **Old or new, never between.** Content and link texts appear under a name only by one `linkat` or one `rename`
//!   ([`Staged::publish`], [`Directory::make_symlink`], [`Directory::hard_link`]), after they are complete.
//! - **Never wider than both.** While owner and mode change, nobody may do what neither the old nor the new attributes
//!   let them do; see [`Directory::set_attributes`].
//! - **Nothing is left behind.** What is dropped unpublished is gone, unless the caller wants it kept; after a crash only names that
//!   [`is_private_name`] knows can be left, and [`Directory::sweep`] removes what nobody wants of them.
//!
//! What it refuses to promise: a name is looked up anew by every call. Between two calls somebody who may write to that
//! directory can put another object there. Such places are marked `RACE:` with the worst that can happen; it is never
//! more than that user could have done without us.
//!
//! Durability is the caller's: [`Staged::sync`] before, [`Directory::sync`] after.
//!
//! [`Name`]: driftless_protocol::name::Name

mod account_helper;
mod accounts;
mod boot;
mod calls;
mod copy;
mod descriptors;
mod device;
mod directory;
mod divert;
mod error;
mod exchange;
mod fake;
mod file_system;
mod follow;
mod holes;
mod inplace;
mod link;
mod list;
mod litter;
mod lock;
mod memory;
mod meta;
mod priority;
mod private;
mod quiet;
mod read;
mod remove;
mod shelf;
#[cfg(test)]
pub(crate) mod simulated;
mod stage;
mod stat;
#[cfg(test)]
mod tests;
mod view;
mod writers;
mod xattr;

pub use account_helper::{become_nobody, delegate_accounts, serve_accounts};
pub use accounts::{owner_id, owner_name, umask};
pub use boot::boot_id;
#[cfg(test)]
pub(crate) use calls::{Call, Disk, with_disk};
pub use descriptors::{descriptors_for, raise_descriptor_limit};
pub use directory::{Directory, RenameMode, Swept};
pub use divert::Diversion;
pub use error::{FsError, FsErrorKind, Result};
pub use fake::FakeSuper;
pub use follow::Hop;
pub use holes::Holes;
pub use inplace::InPlace;
pub use list::Listing;
pub use lock::{LockError, LockRelation, TreeLock};
pub use memory::{give_memory_back, limit_heaps};
pub use meta::{Applied, Metadata};
pub use priority::{IoPriority, set_io_priority, set_niceness};
pub use private::{
    displaced_from, displaced_name, is_parked_name, is_private_name, is_unparked_name, parked_name,
    private_name, unparked_name,
};
pub use quiet::read_quietly;
pub use read::{ReadOutcome, StableRead, read_whole, write_out};
pub use shelf::{Shelf, ShelfBatch, Shelved, shelf_time};
pub use stage::{Displaced, Published, Staged};
pub use stat::{FileType, Stamp, Stat, stat_open};
pub use view::View;
pub use xattr::FoundXattrs;
