//! Compare modes: what is read, and what is sent, when a copy that somebody else made is taken over.

use crate::pairs::set_time;
use crate::{Desk, has, rsync};
use driftless::engine::compare::Compare;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::Pair;

fn number(stats: &str, name: &str) -> u64 {
    let line = stats.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {stats}"));
    line[name.len()..]
        .trim_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .unwrap()
}

fn some_files(src: &Path) {
    for n in 0..20 {
        let path = src.join(format!("f{n}"));
        fs::write(&path, vec![n as u8; 100 + 20_000 * n]).unwrap();
        set_time(&path, 1_500_000_000 + n as i64, 123_456_789);
    }
    fs::hard_link(src.join("f3"), src.join("linked")).unwrap();
    set_time(src, 1_500_000_000, 5);
}

#[test]
fn a_copy_that_rsync_made_is_taken_over_unread() {
    if !has("rsync") {
        return;
    }
    let desk = Desk::new();
    some_files(&desk.path("src"));
    rsync(&desk, &["-aH"]);
    let inodes = |desk: &Desk| -> Vec<u64> {
        let mut paths = crate::pairs::all(&desk.path("dst"));
        paths.retain(|path| path.file_name().unwrap() != ".driftless-generation");
        paths.iter().map(|path| path.metadata().unwrap().ino()).collect()
    };
    let before = inodes(&desk);
    let ended = desk.mirror(&["--once", "--stats", "-i"]);
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    assert_eq!(number(&ended.out, "Files read:"), 0, "{ended:#?}");
    assert_eq!(number(&ended.out, "Content read:"), 0, "{ended:#?}");
    assert_eq!(crate::items(&ended.out), Vec::<String>::new(), "{ended:#?}");
    assert_eq!(inodes(&desk), before, "nothing was put anew");
    // It is a mirror like any other from then on.
    fs::write(desk.path("src/f7"), "another content").unwrap();
    fs::write(desk.path("src/f19"), vec![19; 400_000]).unwrap();
    set_time(&desk.path("src/f9"), 1_600_000_000, 5);
    assert_eq!(desk.mirror(&["--once"]).status, Some(0));
    crate::support::assert_equal(&desk.path("src"), &desk.path("dst"));
    let verified = desk.run(&["verify", "src", "dst"]);
    assert_eq!(verified.status, Some(0), "{verified:#?}");
}

/// A copy with one file of the same size and time, but of another content.
fn secretly_different(compare: Compare) -> (Pair, driftless::daemon::Summary) {
    let mut pair = Pair::new();
    pair.compare = compare;
    for (tree, text) in [(pair.src(), "right"), (pair.dst(), "wrong")] {
        for name in ["a", "b"] {
            let text = if name == "a" { text } else { "equal" };
            fs::write(tree.join(name), text).unwrap();
            set_time(&tree.join(name), 1_000, 7);
        }
    }
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.failed.is_empty());
    (pair, summary)
}

#[test]
fn contents_are_compared_when_asked_for() {
    let content = |pair: &Pair| fs::read_to_string(pair.dst().join("a")).unwrap();
    let (trusting, summary) = secretly_different(Compare::default());
    assert_eq!(
        (content(&trusting).as_str(), summary.counters.files_read),
        ("wrong", 0)
    );
    for compare in [Compare::Contents, Compare::Always] {
        let (pair, summary) = secretly_different(compare);
        assert_eq!(
            (content(&pair).as_str(), summary.counters.files_read),
            ("right", 2)
        );
    }
    // What was taken on trust is mended by a run that trusts nothing, which sends only what differs.
    let mut pair = trusting;
    pair.compare = Compare::Contents;
    let inode = |name| pair.dst().join(name).metadata().unwrap().ino();
    let before = (inode("a"), inode("b"));
    assert!(pair.seed().unwrap().in_sync);
    assert_eq!(content(&pair), "right");
    assert!(before.0 != inode("a") && before.1 == inode("b"));
    pair.assert_equal();
}

/// Bits that rot on the target move no time, and catalogs know nothing of them.
#[test]
fn checksum_finds_what_catalogs_do_not_know() {
    let desk = Desk::new();
    fs::write(desk.path("src/a"), "right").unwrap();
    set_time(&desk.path("src/a"), 1_000, 7);
    assert_eq!(desk.mirror(&["--once"]).status, Some(0));
    for (tree, text) in [("src", "fresh"), ("dst", "wrong")] {
        fs::write(desk.path(tree).join("a"), text).unwrap();
        set_time(&desk.path(tree).join("a"), 1_000, 7);
    }
    assert_eq!(desk.items(&["--once", "-n", "-c"]), [">fc........ a"]);
    assert_eq!(desk.items(&["--once", "-i", "-c"]), [">fc........ a"]);
    assert_eq!(fs::read_to_string(desk.path("dst/a")).unwrap(), "fresh");
    assert_eq!(desk.items(&["--once", "-n", "-c"]), Vec::<String>::new());
}

#[test]
fn sizes_alone_and_windows() {
    for (options, taken) in [
        (&["--size-only"][..], true),
        (&["--modify-window=2"], true),
        (&["--modify-window=1"], false),
        (&[], false),
    ] {
        let desk = Desk::new();
        for (tree, text, seconds) in [("src", "right", 1_000), ("dst", "wrong", 1_002)] {
            fs::write(desk.path(tree).join("a"), text).unwrap();
            set_time(&desk.path(tree).join("a"), seconds, 7);
            set_time(&desk.path(tree), 5, 0);
        }
        let words = [&["--once", "-i", "--stats"], options].concat();
        let ended = desk.mirror(&words);
        assert_eq!(ended.status, Some(0), "{ended:#?}");
        let (letters, content, read) = match taken {
            true => (".f..t...... a", "wrong", 0),
            false => (">f..t...... a", "right", 1),
        };
        assert_eq!(crate::items(&ended.out), [letters], "{options:?}");
        assert_eq!(
            fs::read_to_string(desk.path("dst/a")).unwrap(),
            content,
            "{options:?}"
        );
        assert_eq!(number(&ended.out, "Files read:"), read, "{options:?} {ended:#?}");
        assert_eq!(
            desk.path("dst/a").metadata().unwrap().mtime(),
            1_000,
            "times are set all the same"
        );
    }
}

/// A sender that lost everything it knew believes the receiver's digests where size and time are right.
#[test]
fn a_sender_without_memory_reads_nothing() {
    let pair = Pair::new();
    some_files(&pair.src());
    assert!(pair.seed().unwrap().counters.files_read > 0);
    fs::remove_dir_all(pair.path("home-s")).unwrap();
    fs::create_dir(pair.path("home-s")).unwrap();
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.counters.files_read == 0, "{summary:?}");
    // And both, when neither end remembers.
    for home in ["home-s", "home-r"] {
        fs::remove_dir_all(pair.path(home)).unwrap();
        fs::create_dir(pair.path(home)).unwrap();
    }
    let summary = pair.seed().unwrap();
    assert!(summary.in_sync && summary.counters.files_read == 0, "{summary:?}");
    pair.assert_equal();
}
