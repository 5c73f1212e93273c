use super::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const CONTENT_BYTES: usize = 256 << 10;

fn memory(home: &Path) -> Memory {
    let open = |name: &str| Arc::new(Signatures::open(&home.join(name), 1 << 20).unwrap());
    Memory {
        signatures: open("signatures"),
        spans: open("spans"),
        readings: None,
    }
}

fn read(tree: &Path, basis: Option<Digest>, memory: &Memory) -> (Digest, Option<Patch>) {
    let file = FileRef {
        object: ObjectId(7),
        directory: Arc::new(Directory::open_root(tree).unwrap()),
        name: Name::new(&b"file"[..]).unwrap(),
        sequence: 1,
        hides: false,
        only_grows: false,
        stamp: None,
        is_young: false,
    };
    let (done, _told) = crossbeam_channel::unbounded();
    match digest(file, basis, memory, &done) {
        ReadDone::Digest(_, digest, _, patch) => (digest, patch.map(|(_, patch)| patch)),
        other => panic!("{other:?}"),
    }
}

/// Thousands of files whose times alone are new would be as many files written to the home.
#[test]
fn what_is_remembered_of_a_content_is_written_once() {
    let (tree, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = tree.path().join("file");
    let mut content: Vec<u8> = (0..CONTENT_BYTES).map(|at| (at / 7 * 31) as u8).collect();
    fs::write(&path, &content).unwrap();
    let memory = memory(home.path());
    let kept = || {
        let mut files = fs::read_dir(home.path().join("signatures")).unwrap();
        let inode = files.next().unwrap().unwrap().metadata().unwrap().ino();
        assert!(files.next().is_none());
        inode
    };

    let (first, patch) = read(tree.path(), None, &memory);
    assert!(patch.is_none());
    let written = kept();

    let file = fs::File::options().write(true).open(&path).unwrap();
    let later = SystemTime::now() + Duration::from_secs(100);
    file.set_modified(later).unwrap();
    let (again, patch) = read(tree.path(), Some(first), &memory);
    assert_eq!(again, first);
    assert!(patch.unwrap().literals.is_empty());
    assert_eq!(kept(), written);

    content[100_000] ^= 1;
    fs::write(&path, &content).unwrap();
    let (changed, patch) = read(tree.path(), Some(first), &memory);
    assert!(changed != first && !patch.unwrap().literals.is_empty());
    assert_ne!(kept(), written);
    assert!(memory.signatures.get(ObjectId(7), &changed).is_some());
}
