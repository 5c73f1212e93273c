//! What the target keeps, and what is left as it is there: a dry run knows that, too.

use crate::appearance::{check, check_but};
use crate::pairs::fill;
use crate::rsync::{OPTIONS, sorted};
use crate::support::random::Random;
use crate::{Desk, has, rsync};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[test]
fn what_is_left_as_it_is_is_not_announced() {
    for (n, options) in [
        &["--ignore-existing"][..],
        &["--existing"],
        &["-u"],
        &["-u", "--existing"],
        &["--ignore-existing", "--existing"],
    ]
    .into_iter()
    .enumerate()
    {
        for round in 0..6 {
            let desk = Desk::new();
            let mut random = Random(1_000 + 10 * n as u64 + round);
            fill(&mut random, &desk.path("src"), &desk.path("dst"), false);
            // rsync looks at seconds only here.
            if !options.contains(&"-u") && has("rsync") {
                let theirs = sorted(rsync(&desk, &[OPTIONS, &["-n"], options].concat()));
                let ours = sorted(desk.items(&[&["--once", "-n"], options].concat()));
                assert_eq!(ours, theirs, "{options:?}, round {round}");
            }
            check(&desk, options, &format!("{options:?}, round {round}"));
            check(&desk, &[], &format!("after {options:?}, round {round}"));
        }
    }
}

#[test]
fn what_is_kept_is_announced_as_it_is_done() {
    for (n, options) in [
        &["--backup"][..],
        &["--backup", "--suffix", ".txt"],
        &["--backup", "--backup-dir", "old"],
        &["--trash", "1d"],
        &["--drift", "keep"],
        &["--inplace"],
        &["--preallocate", "-W"],
    ]
    .into_iter()
    .enumerate()
    {
        for round in 0..6 {
            let desk = Desk::new();
            let mut random = Random(2_000 + 10 * n as u64 + round);
            fill(&mut random, &desk.path("src"), &desk.path("dst"), false);
            let shown = format!("{options:?}, round {round}");
            let (src, dst) = (desk.path("src"), desk.path("dst"));
            check_but(&desk, options, &shown, |path| {
                let name = Path::new(OsStr::from_bytes(path));
                // A directory that the source lacks stays if it holds backups, and is none of the mirror's.
                let is_leftover = !src.join(name).exists() && dst.join(name).is_dir();
                is_leftover
                    || path == b"old"
                    || path.starts_with(b"old/")
                    || path.ends_with(b"~")
                    || path.ends_with(b".txt")
            });
        }
    }
}
