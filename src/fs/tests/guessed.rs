//! S-21: private names that somebody guessed and took before us.

use super::*;
use crate::fs::simulated::set_seed;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::sync::Arc;

/// Random numbers that somebody knows, on a thread of its own: others keep theirs.
fn foreseen(run: impl FnOnce() + Send + 'static) {
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn s_21_a_private_name_that_is_taken_is_neither_followed_nor_opened_nor_replaced() {
    foreseen(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        let outside = directory.path().join("outside");
        fs::write(&outside, "outside").unwrap();
        let before = fs::metadata(&outside).unwrap();
        let opened = Arc::new(Directory::open_root(&root).unwrap());
        let take: [fn(&std::path::Path, &std::path::Path); 5] = [
            |at, outside| symlink(outside, at).unwrap(),
            |at, _| symlink("nowhere", at).unwrap(),
            |at, outside| fs::hard_link(outside, at).unwrap(),
            |at, _| {
                rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap()
            },
            |at, _| fs::write(at, "theirs").unwrap(),
        ];
        for (seed, take) in (0..).zip(take) {
            set_seed(seed);
            let guessed = root.join(String::from_utf8(private_name().as_bytes().to_vec()).unwrap());
            take(&guessed, &outside);
            let kind = fs::symlink_metadata(&guessed).unwrap();
            set_seed(seed);
            let refused = Staged::create_named(opened.clone()).unwrap_err();
            assert_eq!(refused.kind(), FsErrorKind::Exists, "{refused}");
            set_seed(seed);
            let target = Name::new(*b"link").unwrap();
            let attributes = ours(0o777, time(1, 0));
            let wanted = Metadata::plain(&attributes, Carried::default());
            assert!(opened.make_symlink(b"text", &target, &wanted).is_err());
            let after = fs::symlink_metadata(&guessed).unwrap();
            assert_eq!((kind.ino(), kind.is_symlink()), (after.ino(), after.is_symlink()));
            assert_eq!(kind.file_type().is_fifo(), after.file_type().is_fifo());
            // The next name is another.
            let staged = Staged::create_named(opened.clone()).unwrap();
            staged.write_all_at(b"content", 0).unwrap();
            staged
                .publish(&Name::new(format!("file-{seed}").into_bytes()).unwrap())
                .unwrap();
            assert_eq!(fs::read(root.join(format!("file-{seed}"))).unwrap(), b"content");
            fs::remove_file(&guessed).unwrap();
        }
        let after = fs::metadata(&outside).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"outside");
        assert_eq!(
            (before.mode(), before.mtime_nsec()),
            (after.mode(), after.mtime_nsec())
        );
    });
}
