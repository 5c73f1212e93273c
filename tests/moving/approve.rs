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
    until("it is held back", || {
        let status = site.json("status --json", 0);
        status["daemons"][0]["held"] == 5
    });
    site.run("approve nothing --deletes 5", 1);
    site.run("approve ./src --deletes 5", 0);
    until("they are deleted", || site.read("dst/4").is_none());
    assert!(site.read("dst/5").is_some());
}
