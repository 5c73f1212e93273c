//! `verify` sees what a mirror carries, on both disks.

use crate::objects::fifo;
use crate::support::Pair;
use crate::values::{acl, remove_xattr, set_xattr};
use std::fs;

#[test]
fn verify_compares_attributes_links_and_pipes() {
    let pair = Pair::new();
    let (src, dst) = (pair.src(), pair.dst());
    for name in ["labelled", "guarded", "linked", "alone", "other"] {
        fs::write(src.join(name), "equal").unwrap();
    }
    set_xattr(&src.join("labelled"), "user.colour", b"blue");
    set_xattr(
        &src.join("guarded"),
        "system.posix_acl_access",
        &acl(1_234, 6, 0, 4),
    );
    fs::hard_link(src.join("linked"), src.join("second")).unwrap();
    fs::hard_link(src.join("linked"), src.join("third")).unwrap();
    fifo(&src.join("pipe"), 0o600);
    pair.seed().unwrap();
    let receiver = pair.receive();
    let differences = || {
        let options = pair.sender_options(receiver.address(), false);
        let report = crate::compared(&options);
        assert!(report.unreadable.is_empty(), "{report:?}");
        let mut paths: Vec<_> = report
            .differences
            .into_iter()
            .map(|difference| format!("{}: {}", difference.path, difference.what))
            .collect();
        paths.sort();
        paths
    };
    assert_eq!(differences(), [""; 0]);
    // Behind the back of the receiver; times of files are put back where they move.
    set_xattr(&dst.join("labelled"), "user.colour", b"red");
    remove_xattr(&dst.join("guarded"), "system.posix_acl_access");
    let time = fs::metadata(src.join("third")).unwrap().modified().unwrap();
    fs::copy(dst.join("third"), dst.join("aside")).unwrap();
    fs::File::open(dst.join("aside"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::rename(dst.join("aside"), dst.join("third")).unwrap();
    fs::remove_file(dst.join("alone")).unwrap();
    fs::hard_link(dst.join("other"), dst.join("alone")).unwrap();
    let time = fs::metadata(src.join("alone")).unwrap().modified().unwrap();
    fs::File::open(dst.join("other"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let found = differences();
    let has = |text: &str| found.iter().any(|line| line.contains(text));
    for text in [
        "labelled: extended attributes",
        "guarded: extended attributes",
        "third: not a link to the same file as here",
        "other: a link to a file that is another one here",
    ] {
        assert!(has(text), "{text} is not in {found:#?}");
    }
    assert!(!has("linked") && !has("second") && !has("pipe"), "{found:#?}");
    receiver.stop();
}
