//! Hooks of mirrors and modules, by the real daemons of both ends.

use crate::site::{Daemon, Site, free_port, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A program that notes its arguments and what it was told, and then does what `more` says.
pub fn program(site: &Site, name: &str, more: &str) -> String {
    let (path, log) = (site.path(name), site.path(&format!("{name}.log")));
    let script = format!(
        "#!/bin/sh\n{{ printf '%s ' \"$DRIFTLESS_HOOK\" \"$DRIFTLESS_MIRROR$DRIFTLESS_MODULE\" \"$*\"; {more}\ncat; echo; }} >> '{}'\n",
        log.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// What a program noted: its words, and the JSON.
pub fn runs(site: &Site, name: &str) -> Vec<(String, Value)> {
    let text = site.read(&format!("{name}.log")).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    let parse = |line: &str| {
        let (words, json) = line.split_once('{').unwrap();
        (
            words.to_owned(),
            serde_json::from_str(&format!("{{{json}")).unwrap(),
        )
    };
    text[..whole].lines().map(parse).collect()
}

pub fn hook(lines: &str, command: &[&str]) -> String {
    let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
    format!("[[hook]]\n{lines}\ncommand = [{}]\n", words.join(", "))
}

#[test]
fn hooks_run_on_both_ends_when_they_are_meant() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let port = free_port();
    let (batch, before, sync, module) = (
        program(&site, "batch", ""),
        program(
            &site,
            "before",
            &format!(
                "test -e '{}' && printf 'late '",
                site.path("dst/nginx.conf").display()
            ),
        ),
        program(&site, "sync", ""),
        program(&site, "module", ""),
    );
    let receiver = format!(
        "[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{}'\n[[module]]\nname = 'm'\npath = '{}'\n{}",
        site.fingerprint("home"),
        site.path("dst").display(),
        hook("modules = ['m']", &[&module, "reload"]),
    );
    site.write("home-r/driftless.toml", receiver);
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    site.write("src/page", "1");
    site.configure(
        &(site.mirror("www", "src", &[&target], "")
            + &hook("paths = ['*.conf']", &[&batch, "$HOME", "a b; c"])
            + &hook("on = 'before-batch'", &[&before])
            + &hook("on = 'in-sync'\nmirrors = ['www']", &[&sync])),
    );
    let _receiver = Daemon::spawn(site.command_in("home-r", "daemon --json"));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    until("it was told that they are in sync", || {
        !runs(&site, "sync").is_empty()
    });
    until("the module was told", || !runs(&site, "module").is_empty());
    let first = runs(&site, "module")[0].clone();
    assert_eq!(
        (first.0.as_str(), first.1["module"].as_str()),
        ("after-batch m reload ", Some("m")),
        "{first:?}"
    );
    assert_eq!(first.1["peers"][0], site.fingerprint("home"));
    assert!(first.1["applied"].as_u64() >= Some(1));
    assert!(runs(&site, "batch").is_empty(), "a page is no .conf");
    let (before_count, sync_count) = (runs(&site, "before").len(), runs(&site, "sync").len());

    site.write("src/nginx.conf", "new");
    site.write("src/other", "new");
    site.run("wait --timeout 60s", 0);
    until("it was told of the change", || !runs(&site, "batch").is_empty());
    let (words, told) = runs(&site, "batch").remove(0);
    assert_eq!(words, "after-batch www $HOME a b; c ");
    assert_eq!(
        (told["version"].as_u64(), told["hook"].as_str()),
        (Some(1), Some("after-batch")),
        "{told}"
    );
    assert_eq!(
        (told["mirror"].as_str(), told["target"].as_str()),
        (Some("www"), Some(&*target))
    );
    let changes = told["changes"].as_array().unwrap();
    assert_eq!(
        (changes.len() as u64, changes[0]["path"].as_str()),
        (told["applied"].as_u64().unwrap(), Some("nginx.conf")),
        "{told}"
    );
    assert_eq!(changes[0]["bytes"], 3);
    until("the others ran, too", || {
        runs(&site, "before").len() > before_count && runs(&site, "sync").len() > sync_count
    });
    let runs_before = runs(&site, "before");
    assert_eq!(
        runs_before[before_count].0, "before-batch www  ",
        "it ran before the change was there: {runs_before:?}"
    );
    assert!(
        runs(&site, "sync")
            .iter()
            .all(|(_, told)| told["sequence"].is_u64())
    );
}

#[test]
fn a_hook_that_hangs_is_killed_and_holds_up_nothing() {
    let site = Site::new(&["src", "dst/thing"]);
    let (hang, error) = (program(&site, "hang", "sleep 600;"), program(&site, "error", ""));
    site.write("dst/thing/mine.p", "protected");
    site.configure(
        &("[settings]\nhooks-at-once = 1\n".to_owned()
            + &site.mirror("www", "src", &["dst"], "filter = ['P *.p']")
            + &hook("on = 'before-batch'\ntimeout = '1s'", &[&hang])
            + &hook("on = 'after-batch'\ntimeout = '1s'", &["/no/such/program"])
            + &hook("on = 'error'", &[&error, "now"])),
    );
    let _daemon = Daemon::start(&site, "daemon --json");
    let mut events = Daemon::listening(site.command("events"));
    events.event(|event| event["event"] == "listening");
    site.run("wait --timeout 60s", 0);
    site.write("src/file", "1");
    site.run("wait --timeout 60s", 0);
    assert_eq!(site.read("dst/file").as_deref(), Some("1"));
    let warned = events.event(|event| {
        event["event"] == "warning"
            && event["text"]
                .as_str()
                .is_some_and(|text| text.contains("was killed: it had not ended after 1 s"))
    });
    assert!(
        warned["text"]
            .as_str()
            .unwrap()
            .starts_with("the before-batch hook "),
        "{warned}"
    );
    events.event(|event| {
        event["text"]
            .as_str()
            .is_some_and(|text| text.contains("/no/such/program cannot be run: No such file"))
    });
    site.write("src/thing", "a file, where the target has a directory that stays");
    site.run("wait --timeout 60s", 3);
    until("it was told of the error", || !runs(&site, "error").is_empty());
    let (words, told) = runs(&site, "error").remove(0);
    assert_eq!(words, "error www now ");
    assert_eq!(told["errors"][0]["path"], "thing");
    assert!(
        told["errors"][0]["error"]
            .as_str()
            .unwrap()
            .contains("which the filter protects"),
        "{told}"
    );
}

#[test]
fn hooks_that_make_no_sense_are_refused_by_their_line() {
    let site = Site::new(&["src", "dst"]);
    let mirror = site.mirror("www", "src", &["dst"], "");
    for (text, said) in [
        (
            "[[hook]]\non = 'never'\ncommand = ['x']\n",
            ":8: on: \"never\" is not one of before-batch, after-batch, in-sync, error",
        ),
        ("[[hook]]\non = 'error'\n", ":7: there is no command here"),
        (
            "[[hook]]\ncommand = ['x']\nmirrors = ['mail']\n",
            ":7: mirrors: there is no mirror called \"mail\"",
        ),
        (
            "[[hook]]\ncommand = ['x']\nmodules = ['m']\n",
            ":7: modules: there is no module called \"m\"",
        ),
        (
            "[[hook]]\ncommand = ['x']\ntimeout = '0s'\n",
            ":9: timeout: takes a time span above 0",
        ),
        (
            "[[hook]]\ncomand = ['x']\ncommand = ['x']\n",
            ":8: comand is not a key here: did you mean command?",
        ),
        ("[hook]\ncommand = ['x']\n", ":7: there can be several of hook"),
    ] {
        site.configure(&format!("{mirror}{text}"));
        let (_, err) = site.run("config check", 2);
        assert!(err.contains(said), "{said}: {err}");
    }
    site.configure(&format!("{mirror}{}", hook("", &["/bin/true", "-x"])));
    let shown = site.json("config show --json", 0);
    assert_eq!(shown["hooks"][0]["command"]["value"][1], "-x");
    assert_eq!(shown["hooks"][0]["timeout"]["origin"]["kind"], "default");
}
