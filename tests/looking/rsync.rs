//! Our items against those of rsync, line by line.

use crate::dry_run::path_of;
use crate::pairs::fill;
use crate::support::random::Random;
use crate::{Desk, has, items, rsync};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub const OPTIONS: &[&str] = &["-aHAXi", "--delete", "--modify-window=-1"];

/// Itemized lines in an order of their own. A part of an ACL is the mode, too: where that differs rsync has no letter for the
/// ACL if nothing else of it does, and we have one.
pub fn sorted(lines: Vec<String>) -> BTreeSet<String> {
    let lines = items(&lines.join("\n"));
    let plain = lines.into_iter().map(|mut line| {
        if line.as_bytes()[5] == b'p' && line.as_bytes()[9] == b'a' {
            line.replace_range(9..10, ".");
        }
        line
    });
    plain.collect()
}

/// Where we differ on purpose: rsync takes any name of an object for the first one, and leaves names on the target sharing an
/// object that are of different ones here.
fn without_links(desk: &Desk, lines: BTreeSet<String>) -> BTreeSet<String> {
    let is_shared = |path: &Path| {
        path.symlink_metadata()
            .is_ok_and(|meta| !meta.is_dir() && meta.nlink() > 1)
    };
    let is_link = |line: &String| {
        let path = path_of(line);
        let path = Path::new(OsStr::from_bytes(&path));
        is_shared(&desk.path("src").join(path)) || is_shared(&desk.path("dst").join(path))
    };
    lines.into_iter().filter(|line| !is_link(line)).collect()
}

#[test]
fn a_dry_run_says_what_rsync_says() {
    if !has("rsync") {
        return;
    }
    for seed in 0..40 {
        let desk = Desk::new();
        fill(&mut Random(seed), &desk.path("src"), &desk.path("dst"), false);
        let theirs = sorted(rsync(&desk, &[OPTIONS, &["-n"]].concat()));
        let ours = sorted(desk.items(&["--once", "-n"]));
        assert_eq!(ours, theirs, "seed {seed}");
        for (option, same) in [
            ("-c", true),
            ("--size-only", true),
            ("-I", true),
            ("--modify-window=2", false),
        ] {
            // rsync leaves times that are near enough as they are, and so has no letter for them.
            let theirs = match same {
                true => rsync(&desk, &[OPTIONS, &["-n", option]].concat()),
                false => rsync(&desk, &["-aHAXin", "--delete", option]),
            };
            let ours = desk.items(&["--once", "-n", option]);
            let (ours, theirs) = match same {
                true => (sorted(ours), sorted(theirs)),
                false => (sent(ours), sent(theirs)),
            };
            assert_eq!(ours, theirs, "seed {seed}, {option}");
        }
    }
}

/// The files that are sent.
fn sent(lines: Vec<String>) -> BTreeSet<String> {
    let lines = lines.into_iter().filter(|line| line.starts_with('>'));
    lines.map(|line| line[12..].to_owned()).collect()
}

#[test]
fn a_run_says_what_rsync_says() {
    if !has("rsync") {
        return;
    }
    for seed in 100..125 {
        let desk = Desk::new();
        fill(&mut Random(seed), &desk.path("src"), &desk.path("dst"), false);
        let theirs = sorted(rsync(&desk, &[OPTIONS, &["-n"]].concat()));
        let ours = sorted(desk.items(&["--once", "-i"]));
        assert_eq!(ours, theirs, "seed {seed}");
        let left = rsync(&desk, &[OPTIONS, &["-n", "-c", "--exclude=.driftless*"]].concat());
        assert_eq!(left, Vec::<String>::new(), "seed {seed}: rsync finds more to do");
    }
}

#[test]
fn all_but_the_further_names_of_an_object_are_as_in_rsync() {
    if !has("rsync") {
        return;
    }
    for seed in 200..225 {
        let desk = Desk::new();
        fill(&mut Random(seed), &desk.path("src"), &desk.path("dst"), true);
        let theirs = without_links(&desk, sorted(rsync(&desk, &[OPTIONS, &["-n"]].concat())));
        let ours = without_links(&desk, sorted(desk.items(&["--once", "-n"])));
        assert_eq!(ours, theirs, "seed {seed}");
    }
}

#[test]
fn filters_count() {
    if !has("rsync") {
        return;
    }
    let desk = Desk::new();
    for name in [
        "keep.o",
        "new.c",
        "d/keep.o",
        "d/gone.c",
        "only/keep.o",
        "only/gone.c",
    ] {
        let path = desk.path("dst").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "there").unwrap();
    }
    fs::create_dir(desk.path("src/d")).unwrap();
    fs::write(desk.path("src/new.c"), "here, longer").unwrap();
    fs::write(desk.path("src/x.o"), "").unwrap();
    for options in [
        &["--exclude=*.o"][..],
        &["--exclude=*.o", "--delete-excluded"],
        &["--max-size=5"],
    ] {
        let theirs = sorted(rsync(&desk, &[OPTIONS, &["-n"], options].concat()));
        let ours = sorted(desk.items(&[&["--once", "-n"], options].concat()));
        assert_eq!(ours, theirs, "{options:?}");
    }
    assert!(items("sending incremental file list\n>f+++++++++ a\n").len() == 1);
}
