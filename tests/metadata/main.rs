//! Metadata: what rsync -aHAXS carries, judged by system calls of the test's own and by rsync.

mod device_contents;
mod fake_super;
mod followed;
mod links;
mod mirror;
mod modes;
mod names;
mod objects;
mod owners;
mod policy;
mod sparse;
mod tree;
mod values;
mod verify;
mod xattrs;

#[path = "../support/mod.rs"]
mod support;
