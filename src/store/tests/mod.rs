//! Tests of the store.

mod catalog;
mod damage;
mod model;
mod state;

use super::*;
use driftless_protocol::message::Place;
use driftless_protocol::{Attributes, Digest, Kind, Name, ObjectId, Timestamp};
use std::path::PathBuf;
use tempfile::TempDir;

/// A directory with room for one database.
struct Home {
    _directory: TempDir,
    path: PathBuf,
}

impl Home {
    fn new() -> Home {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.redb");
        Home {
            _directory: directory,
            path,
        }
    }

    fn catalog(&self, role: Role) -> Catalog {
        let opened = Catalog::open(&self.path, role).unwrap();
        assert_eq!(opened.rebuilt, None);
        opened.catalog
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn place(directory: u64, text: &str) -> Place {
    Place {
        directory: ObjectId(directory),
        name: name(text),
    }
}

fn stamp(device: u64, inode: u64) -> Stamp {
    let mut stamp = [0; STAMP_BYTES];
    stamp[..8].copy_from_slice(&device.to_be_bytes());
    stamp[8..16].copy_from_slice(&inode.to_be_bytes());
    stamp[40] = 7;
    stamp
}

fn entry(object: u64, kind: Kind, directory: u64, text: &str) -> Entry {
    Entry {
        object: ObjectId(object),
        kind,
        place: place(directory, text),
        attributes: Attributes {
            mode: 0o644,
            uid: 1_000,
            gid: 100,
            mtime: Timestamp::new(-3, 999_999_999).unwrap(),
            ..Attributes::default()
        },
        size: object.wrapping_mul(1_000),
        digest: (kind == Kind::File).then(|| Digest::of(&object.to_le_bytes())),
        stamp: None,
        sequence: 0,
        flags: 0,
    }
}

fn file(object: u64, directory: u64, text: &str) -> Entry {
    entry(object, Kind::File, directory, text)
}

fn directory(object: u64, parent: u64, text: &str) -> Entry {
    entry(object, Kind::Directory, parent, text)
}
