//! What was held back is approved by the path of the source as the user writes it.

use crate::site::{Daemon, Site, until};
use std::fs;

#[test]
fn a_relative_path_names_a_source() {
    let site = Site::new(&["src", "dst"]);
    for n in 0..10 {
        site.write(&format!("src/{n}"), "x");
    }
    let _mirror = Daemon::listening(site.command("mirror src dst --delete always --max-delete 2"));
    until("it is there", || site.read("dst/9").is_some());
    site.run("wait --timeout 60s", 0);
    for n in 0..5 {
        fs::remove_file(site.path(&format!("src/{n}"))).unwrap();
    }
    // Two may have gone unasked, before the others were heard of.
    let left = || {
        (0..5)
            .filter(|n| site.read(&format!("dst/{n}")).is_some())
            .count()
    };
    until("the rest is held back", || {
        let status = site.json("status --json", 0);
        left() >= 3 && status["daemons"][0]["held"] == left()
    });
    let number = left();
    site.run(&format!("approve nothing --deletes {number}"), 1);
    site.run(&format!("approve ./src --deletes {number}"), 0);
    until("they are deleted", || left() == 0);
    assert!(site.read("dst/5").is_some());
}
