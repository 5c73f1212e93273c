//! Hard links: names of one object here are names of one object there.

use crate::mirror::Mirror;
use crate::objects::fifo;
use crate::support::Pair;
use crate::support::image::Image;
use crate::values::set_xattr;
use driftless::daemon::WatchChoice;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// In place: the object stays the same, whatever its names.
fn edit(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn mirror_links(pair: Pair) {
    let src = pair.src();
    for directory in ["a/b", "c"] {
        fs::create_dir_all(src.join(directory)).unwrap();
    }
    fs::write(src.join("a/one"), "content of one, at first").unwrap();
    fs::hard_link(src.join("a/one"), src.join("a/b/two")).unwrap();
    fs::hard_link(src.join("a/one"), src.join("c/three")).unwrap();
    fs::write(src.join("large"), vec![5; 400_000]).unwrap();
    fs::hard_link(src.join("large"), src.join("c/large")).unwrap();
    symlink("somewhere", src.join("link")).unwrap();
    fs::hard_link(src.join("link"), src.join("c/link")).unwrap();
    fifo(&src.join("pipe"), 0o600);
    fs::hard_link(src.join("pipe"), src.join("c/pipe")).unwrap();
    fs::write(src.join("alone"), "alone").unwrap();
    let mut mirror = Mirror::start(pair);
    mirror.assert_rsync_agrees();

    edit(&src.join("a/b/two"), "edited by the second name");
    mirror.settle("an edit");
    edit(&src.join("c/large"), "edited by the second name");
    mirror.settle("an edit of a large file");
    fs::set_permissions(src.join("c/three"), Permissions::from_mode(0o640)).unwrap();
    mirror.settle("another mode");
    set_xattr(&src.join("c/three"), "user.colour", b"blue");
    mirror.settle("another attribute");
    fs::hard_link(src.join("alone"), src.join("c/not-alone")).unwrap();
    mirror.settle("a second name for a file that had one");
    fs::hard_link(src.join("a/one"), src.join("four")).unwrap();
    mirror.settle("one more name");
    fs::rename(src.join("c/three"), src.join("a/b/third")).unwrap();
    mirror.settle("a rename");
    fs::rename(src.join("a/b"), src.join("c/b")).unwrap();
    mirror.settle("a rename of a directory");
    fs::remove_file(src.join("a/one")).unwrap();
    mirror.settle("a removal");
    // The link is broken: one name gets a new object, of other and then of the same content.
    fs::write(src.join("aside"), "written anew").unwrap();
    fs::rename(src.join("aside"), src.join("four")).unwrap();
    mirror.settle("a broken link");
    fs::copy(src.join("c/not-alone"), src.join("aside")).unwrap();
    fs::rename(src.join("aside"), src.join("c/not-alone")).unwrap();
    mirror.settle("a broken link of equal content");
    // A name changes from one group to another.
    fs::hard_link(src.join("large"), src.join("aside")).unwrap();
    fs::rename(src.join("aside"), src.join("c/b/two")).unwrap();
    mirror.settle("a change of groups");
    // While nobody watches.
    mirror.pause();
    fs::hard_link(src.join("alone"), src.join("again")).unwrap();
    fs::remove_file(src.join("c/link")).unwrap();
    symlink("somewhere", src.join("c/link")).unwrap();
    edit(&src.join("large"), "unseen");
    mirror.resume();
    mirror.settle("what nobody saw");
    mirror.end();
}

#[test]
fn d_10_links_are_links_on_the_target() {
    for choice in [WatchChoice::Auto, WatchChoice::Inotify] {
        let mut pair = Pair::new();
        pair.watch.choice = choice;
        mirror_links(pair);
    }
}

#[test]
fn d_10_links_on_other_file_systems() {
    for kind in ["ext4", "xfs", "btrfs"] {
        if let Some(image) = Image::new(kind) {
            mirror_links(Pair::in_directory(image.directory()));
        }
    }
}

/// A second name costs no content, however large the file is.
#[test]
fn d_10_a_link_sends_nothing_again() {
    let pair = Pair::new();
    let src = pair.src();
    // Nothing that compresses.
    let mut content = vec![0; 3 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    fs::write(src.join("large"), content).unwrap();
    pair.seed().unwrap();
    for number in 0..50 {
        fs::hard_link(src.join("large"), src.join(number.to_string())).unwrap();
    }
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty(), "{summary:?}");
    assert_eq!(summary.counters.files_sent, 0, "{summary:?}");
    assert!(summary.counters.wire_bytes_sent < 100_000, "{summary:?}");
    let there = fs::metadata(pair.dst().join("large")).unwrap();
    assert_eq!(there.nlink(), 51);
}

/// Links that only the target has are no links of the source's.
#[test]
fn d_10_a_target_with_other_links_gets_those_of_the_source() {
    let pair = Pair::new();
    for name in ["one", "two", "three"] {
        fs::write(pair.src().join(name), "equal").unwrap();
    }
    fs::hard_link(pair.src().join("three"), pair.src().join("four")).unwrap();
    // As another tool left it: linked and not linked the other way round.
    let status = std::process::Command::new("cp")
        .args(["-a", "--no-preserve=links", "--"])
        .args([pair.src().join("."), pair.dst()])
        .status()
        .unwrap();
    assert!(status.success());
    fs::remove_file(pair.dst().join("two")).unwrap();
    fs::hard_link(pair.dst().join("one"), pair.dst().join("two")).unwrap();
    fs::set_permissions(pair.src().join("two"), Permissions::from_mode(0o600)).unwrap();
    let mirror = Mirror::start(pair);
    mirror.end();
}
