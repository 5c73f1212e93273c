//! `--out-format` against rsync's, line by line.

use crate::pairs::fill;
use crate::support::random::Random;
use crate::{Desk, has, rsync};
use std::collections::BTreeSet;
use std::fs;

const FORMAT: &str = "--out-format=%i|%l|%'l|%12l|%-12l|%B|%M|%U:%G|%o|%% %|%n%L";

/// In an order of their own. A directory has no length here; the letters of an ACL are not always set with those of the mode (see
/// `rsync::sorted`).
fn sorted(lines: &[String]) -> BTreeSet<String> {
    let plain = lines.iter().filter(|line| line.contains("|")).map(|line| {
        let mut line = line.clone();
        if line.as_bytes()[5] == b'p' && line.as_bytes()[9] == b'a' {
            line.replace_range(9..10, ".");
        }
        if line.as_bytes()[1] == b'd' && !line.starts_with('*') {
            let mut parts: Vec<&str> = line.split('|').collect();
            parts.drain(1..5);
            line = parts.join("|");
        }
        line
    });
    plain.collect()
}

#[test]
fn lines_in_a_form_of_ones_own_are_those_of_rsync() {
    if !has("rsync") {
        return;
    }
    for seed in 300..312 {
        let desk = Desk::new();
        fill(&mut Random(seed), &desk.path("src"), &desk.path("dst"), false);
        let theirs = rsync(&desk, &["-aHAXn", "--delete", "--modify-window=-1", FORMAT]);
        let announced = desk.mirror(&["--once", "-n", FORMAT]);
        assert_eq!(announced.status, Some(0), "{announced:#?}");
        let lines: Vec<String> = announced.out.lines().map(str::to_owned).collect();
        assert_eq!(sorted(&lines), sorted(&theirs), "seed {seed}");
        let done = desk.mirror(&["--once", FORMAT]);
        assert_eq!(done.status, Some(0), "{done:#?}");
        let lines: Vec<String> = done.out.lines().map(str::to_owned).collect();
        assert_eq!(sorted(&lines), sorted(&theirs), "seed {seed}");
    }
}

#[test]
fn a_form_that_cannot_be_is_refused() {
    let desk = Desk::new();
    fs::write(desk.path("src/file"), "x").unwrap();
    for (words, why) in [
        (&["--once", "--out-format=%b %n"][..], "%b is not known here"),
        (&["--once", "--out-format=%Z"], "%Z is no escape"),
        (&["--once", "--json", "--out-format=%n"], "--json"),
        (&["--out-format=%n"], "for a run that ends"),
    ] {
        let ended = desk.mirror(words);
        assert_eq!(ended.status, Some(2), "{words:?}: {ended:#?}");
        assert!(ended.err.contains(why), "{words:?}: {ended:#?}");
    }
    assert!(!desk.path("dst/file").exists());
}
