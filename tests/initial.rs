//! `--initial skip`: what both sides have when they first meet is taken as it is, and what changes from then on is sent.

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;

use serde_json::Value;
use site::{Daemon, Site, contents, until};
use std::fs;
use std::path::PathBuf;

/// Two trees that differ in every way that two trees can differ.
fn differing() -> Site {
    let site = Site::new(&["src/both", "src/new/deep", "dst/both", "dst/own", "dst/kind"]);
    for (name, content) in [
        ("differs", "of the source"),
        ("both/differs", "of the source, too"),
        ("goes", "of the source"),
        ("moves", "of the source"),
        ("kind", "a file"),
        ("only-here", "here"),
        ("new/a", "a"),
        ("new/deep/b", "b"),
    ] {
        site.write(&format!("src/{name}"), content);
    }
    for (name, content) in [
        ("differs", "there"),
        ("both/differs", "there"),
        ("goes", "there"),
        ("moves", "there"),
        ("kind/inner", "there"),
        ("only-there", "there"),
        ("own/file", "there"),
    ] {
        site.write(&format!("dst/{name}"), content);
    }
    for name in ["same", "both/same"] {
        write_both(&site, name);
    }
    site
}

/// Writes a file that is equal in both trees.
fn write_both(site: &Site, name: &str) {
    for root in ["src", "dst"] {
        site.write(&format!("{root}/{name}"), "equal");
    }
    let time = fs::metadata(site.path(&format!("src/{name}")))
        .unwrap()
        .modified();
    let there = fs::File::options()
        .write(true)
        .open(site.path(&format!("dst/{name}")));
    there.unwrap().set_modified(time.unwrap()).unwrap();
}

fn start(site: &Site, more: &str) -> Daemon {
    let daemon = Daemon::listening(site.command(&format!("mirror src dst --json {more}")));
    until("in sync", || sender(site)["phase"] == "in-sync");
    daemon
}

fn sender(site: &Site) -> Value {
    // It fails while there is none.
    let status = site.command("status --json").output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let daemons = status["daemons"].as_array().unwrap().clone();
    let is_sender = |one: &&Value| one["role"] == "sender";
    daemons.iter().find(is_sender).cloned().unwrap_or_default()
}

fn wait(site: &Site) {
    site.run("wait --timeout 60s", 0);
}

fn there(site: &Site, name: &str) -> Option<String> {
    site.read(&format!("dst/{name}"))
}

/// What differed and nobody touched is as it was.
#[track_caller]
fn assert_left(site: &Site) {
    for name in ["differs", "both/differs", "only-there", "own/file"] {
        assert_eq!(there(site, name).as_deref(), Some("there"), "{name}");
    }
    assert!(!site.path("dst/only-here").exists() && !site.path("dst/new/deep").exists());
}

#[test]
fn what_differs_at_the_start_stays_until_it_changes() {
    let site = differing();
    let before = contents(&site.path("dst"));
    let daemon = start(&site, "--initial skip");
    assert_eq!(
        contents(&site.path("dst")),
        before,
        "nothing is sent at the start"
    );
    let counters = sender(&site)["counters"].clone();
    assert_eq!(
        (&counters["initial_skipped"], &counters["files_sent"]),
        (&1.into(), &0.into()),
        "{counters}"
    );
    assert!(counters["withheld"].as_u64() >= Some(9), "{counters}");
    let (text, _) = site.run("status", 0);
    assert!(text.contains("the first comparison was skipped"), "{text}");
    // One who asks hears all that differs.
    let (text, _) = site.run("verify src dst", 4);
    for name in ["both/differs", "kind", "only-here", "new", "only-there", "own"] {
        assert!(text.contains(&format!("differs  {name}  ")), "{name}: {text}");
    }

    // What changes is sent, with the directories that it is in and nothing else.
    site.write("src/new/a", "changed");
    wait(&site);
    assert_eq!(there(&site, "new/a").as_deref(), Some("changed"));
    assert_left(&site);
    site.write("src/made", "made");
    fs::rename(site.path("src/moves"), site.path("src/moved")).unwrap();
    fs::remove_file(site.path("src/goes")).unwrap();
    fs::remove_file(site.path("src/both/same")).unwrap();
    wait(&site);
    assert_eq!(there(&site, "made").as_deref(), Some("made"));
    assert_eq!(there(&site, "moved").as_deref(), Some("of the source"));
    for name in ["moves", "goes", "both/same"] {
        until(&format!("{name} is gone"), || {
            !site.path(&format!("dst/{name}")).exists()
        });
    }
    // A directory of the target's own, which had to go for it, is counted as deletions first.
    site.write("src/kind", "another file");
    wait(&site);
    assert_eq!(there(&site, "kind").as_deref(), Some("another file"));
    assert_left(&site);
    // A whole look at the source finds nothing that changed.
    site.run("rescan src", 0);
    wait(&site);
    assert_left(&site);
    fs::rename(site.path("src/both"), site.path("src/twin")).unwrap();
    wait(&site);
    assert_eq!(there(&site, "twin/differs").as_deref(), Some("there"));
    site.write("src/twin/differs", "changed");
    site.write("src/differs", "changed");
    wait(&site);
    assert_eq!(there(&site, "twin/differs").as_deref(), Some("changed"));
    assert_eq!(there(&site, "differs").as_deref(), Some("changed"));
    assert_eq!(daemon.stop(), Some(0));
}

/// Whatever has the trees compared again.
#[test]
fn no_later_comparison_undoes_it() {
    let site = differing();
    assert_eq!(start(&site, "--initial skip").stop(), Some(0));
    assert_left(&site);
    // While it does not run: it is as if it had run. The option need not be said again.
    site.write("src/same", "changed");
    fs::remove_file(site.path("src/goes")).unwrap();
    fs::rename(site.path("src/moves"), site.path("src/moved")).unwrap();
    let daemon = start(&site, "");
    assert_eq!(there(&site, "same").as_deref(), Some("changed"));
    assert_eq!(there(&site, "moved").as_deref(), Some("of the source"));
    until("its old name is gone", || !site.path("dst/moves").exists());
    until("it is gone", || !site.path("dst/goes").exists());
    assert_left(&site);
    assert_eq!(daemon.stop(), Some(0));

    // The target's side knows nothing any more.
    for catalog in catalogs(&site, "modules") {
        fs::remove_file(catalog).unwrap();
    }
    site.write("dst/same", "an edit");
    let daemon = start(&site, "");
    assert_eq!(
        there(&site, "same").as_deref(),
        Some("changed"),
        "what was sent is kept so"
    );
    assert_left(&site);
    assert_eq!(daemon.stop(), Some(0));

    // Nobody knows any more what was left: that is told, and everything is left once more.
    for catalog in catalogs(&site, "mirrors") {
        fs::remove_file(catalog).unwrap();
    }
    let mut daemon = Daemon::listening(site.command("mirror src dst --json"));
    daemon.hear(|line| line.contains("what had been left as it is"));
    until("in sync", || sender(&site)["phase"] == "in-sync");
    assert_left(&site);
    site.write("src/both/differs", "changed");
    wait(&site);
    assert_eq!(there(&site, "both/differs").as_deref(), Some("changed"));
    assert_eq!(daemon.stop(), Some(0));

    // Somebody wants it all, and is asked about what only the target has, as at a first contact.
    let (_, told) = site.run("mirror src dst --once --initial full", 1);
    assert!(
        told.contains("that") && told.contains("--delete always"),
        "{told}"
    );
    site.run("mirror src dst --once --initial full --delete always", 0);
    assert_eq!(contents(&site.path("src")), contents(&site.path("dst")));
    let (_, told) = site.run("mirror src dst --once --initial skip", 0);
    assert!(told.contains("--initial skip has no effect"), "{told}");
}

/// A later comparison brings back a directory, and nothing that was left out of it.
#[test]
fn a_directory_that_the_target_lost_comes_back_without_what_was_left() {
    let site = differing();
    assert_eq!(start(&site, "--initial skip").stop(), Some(0));
    for catalog in catalogs(&site, "modules") {
        fs::remove_file(catalog).unwrap();
    }
    fs::remove_dir_all(site.path("dst/both")).unwrap();
    let daemon = start(&site, "");
    assert_eq!(there(&site, "both/same").as_deref(), Some("equal"));
    assert_eq!(there(&site, "both/differs"), None);
    site.write("src/both/differs", "changed");
    wait(&site);
    assert_eq!(there(&site, "both/differs").as_deref(), Some("changed"));
    assert_eq!(there(&site, "differs").as_deref(), Some("there"));
    assert_eq!(daemon.stop(), Some(0));
}

/// The receiver cannot be reached at the start, and what changes until it can is sent.
#[test]
fn changes_count_from_the_first_start_on() {
    let site = differing();
    for root in ["src", "dst"] {
        fs::create_dir_all(site.path(&format!("{root}/gone/deep"))).unwrap();
    }
    for name in ["gone/shared", "gone/deep/shared"] {
        write_both(&site, name);
    }
    for name in ["gone/own", "gone/deep/own"] {
        site.write(&format!("dst/{name}"), "there");
    }
    let port = site::free_port();
    fs::create_dir(site.path("far")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(site.path("far"), fs::Permissions::from_mode(0o700)).unwrap();
    let target = format!("driftless://{}@127.0.0.1:{port}/dst", site.fingerprint("far"));
    let line = format!("mirror src {target} --initial skip --json");
    let daemon = Daemon::listening(site.command(&line));
    until("it waits", || sender(&site)["phase"] == "waiting");
    site.write("src/only-here", "changed");
    fs::remove_dir_all(site.path("src/gone")).unwrap();
    daemon.stop();
    site.write("src/same", "changed, too");
    let receiver = format!(
        "receive dst --listen 127.0.0.1:{port} --allow {} --json",
        site.fingerprint("home")
    );
    let receiver = Daemon::spawn(site.command_in("far", &receiver));
    let daemon = Daemon::listening(site.command(&line));
    until("in sync", || sender(&site)["phase"] == "in-sync");
    assert_eq!(there(&site, "only-here").as_deref(), Some("changed"));
    assert_eq!(there(&site, "same").as_deref(), Some("changed, too"));
    // The directory had no number in common with the source when that lost it.
    for name in ["gone/shared", "gone/deep/shared"] {
        until(&format!("{name} is gone"), || there(&site, name).is_none());
    }
    for name in [
        "differs",
        "both/differs",
        "goes",
        "kind/inner",
        "gone/own",
        "gone/deep/own",
    ] {
        assert_eq!(there(&site, name).as_deref(), Some("there"), "{name}");
    }
    assert!(!site.path("dst/new").exists());
    assert_eq!((daemon.stop(), receiver.stop()), (Some(0), Some(0)));
}

/// What goes at the source takes along nothing that only the target has.
#[test]
fn a_removed_directory_leaves_what_only_the_target_has_in_it() {
    let site = Site::new(&[
        "src/data/sub",
        "src/data/all",
        "dst/data/sub/deep",
        "dst/data/all",
    ]);
    for name in ["data/a", "data/sub/b", "data/all/c"] {
        write_both(&site, name);
    }
    let own = ["data/own", "data/sub/own", "data/sub/deep/own"];
    for name in own {
        site.write(&format!("dst/{name}"), "there");
    }
    let daemon = start(&site, "--initial skip");
    fs::remove_dir_all(site.path("src/data")).unwrap();
    wait(&site);
    for name in ["data/a", "data/sub/b", "data/all"] {
        until(&format!("{name} is gone"), || {
            !site.path(&format!("dst/{name}")).exists()
        });
    }
    // Whatever is compared or made there later.
    assert_eq!(daemon.stop(), Some(0));
    fs::create_dir_all(site.path("src/data/sub")).unwrap();
    site.write("src/data/sub/b", "made again");
    let daemon = start(&site, "");
    assert_eq!(there(&site, "data/sub/b").as_deref(), Some("made again"));
    for name in own {
        assert_eq!(there(&site, name).as_deref(), Some("there"), "{name}");
    }
    assert_eq!(daemon.stop(), Some(0));
}

/// What was left there has no number of the source's. One of them goes while the sender runs, and one holds something of the target's own.
#[test]
fn a_removed_directory_takes_along_what_was_left_in_it() {
    let site = Site::new(&["src", "dst"]);
    write_both(&site, "named");
    for directory in ["now", "later", "kept"] {
        for side in ["src", "dst"] {
            fs::create_dir_all(site.path(&format!("{side}/{directory}/sub"))).unwrap();
            let link = site.path(&format!("{side}/{directory}/link"));
            fs::hard_link(site.path(&format!("{side}/named")), link).unwrap();
        }
        write_both(&site, &format!("{directory}/same"));
    }
    let daemon = start(&site, "--initial skip");
    let remove = |directory: &str| fs::remove_dir_all(site.path(&format!("src/{directory}"))).unwrap();
    let until_gone = |directory: &str| {
        until(&format!("{directory} is gone"), || {
            !site.path(&format!("dst/{directory}")).exists()
        });
    };
    remove("now");
    until_gone("now");
    assert_eq!(daemon.stop(), Some(0));
    site.write("dst/kept/sub/own", "there");
    remove("later");
    remove("kept");
    let daemon = start(&site, "");
    until_gone("later");
    for name in ["kept/link", "kept/same"] {
        until(&format!("{name} is gone"), || there(&site, name).is_none());
    }
    assert_eq!(there(&site, "kept/sub/own").as_deref(), Some("there"));
    assert!(there(&site, "named").is_some(), "its other name was not removed");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_directory_of_the_targets_own_is_counted_before_a_file_takes_its_place() {
    let site = differing();
    let own: Vec<String> = (0..10).map(|number| format!("own/{number}")).collect();
    for name in &own {
        site.write(&format!("dst/{name}"), "there");
    }
    assert_eq!(start(&site, "--initial skip").stop(), Some(0));
    site.write("src/own", "a file");
    let (_, told) = site.run("mirror src dst --once --max-delete 5", 1);
    assert!(told.contains("more than may be deleted unasked"), "{told}");
    for name in &own {
        assert_eq!(there(&site, name).as_deref(), Some("there"), "{name}");
    }
    site.run("mirror src dst --once --max-delete none", 0);
    assert_eq!(there(&site, "own").as_deref(), Some("a file"));
    assert_eq!(there(&site, "differs").as_deref(), Some("there"));
}

#[test]
fn there_is_nothing_to_look_at_before() {
    let site = differing();
    let (_, told) = site.run("mirror src dst --once -n --initial skip", 2);
    assert!(told.contains("--initial skip sends nothing"), "{told}");
}

/// The catalogs of one side.
fn catalogs(site: &Site, of: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![site.path("home")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.ends_with("catalog.redb") && path.to_str().unwrap().contains(&format!("/{of}/")) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found
}
