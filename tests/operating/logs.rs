//! The log and its forms.

use crate::site::{Daemon, Site, until};
use serde_json::Value;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

#[test]
fn each_change_can_be_a_line_of_json() {
    let site = Site::new(&["src/old", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], "audit = true"));
    let mut daemon = Daemon::listening(site.command("daemon --log-format json"));
    let is = |event: &Value, op: &str, path: &str| {
        event["from"] == "driftless::audit" && event["op"] == op && event["path"] == path
    };
    let made = daemon.event(|event| is(event, "made", "old"));
    assert_eq!(
        (made["level"].as_str(), made["message"].as_str()),
        (Some("info"), Some("applied")),
        "{made}"
    );
    site.write("src/a name\nwith a line end", "12345");
    let put = daemon.event(|event| is(event, "put", "a name\\nwith a line end"));
    assert_eq!(
        (put["bytes"].as_u64(), put["target"].as_str()),
        (Some(5), site.path("dst").to_str()),
        "{put}"
    );
    assert_eq!(put["mirror"], "www", "{put}");
    assert!(
        put["at"].as_str().unwrap().starts_with("20") && put["source"].as_str() == site.path("src").to_str()
    );
    std::fs::remove_dir(site.path("src/old")).unwrap();
    let removed = daemon.event(|event| is(event, "removed", "old"));
    assert!(removed["bytes"].is_null());
}

#[test]
fn a_journal_gets_levels_and_lines() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], "audit = true"));
    // As systemd does: a pipe, and its number in the environment.
    let (reader, writer) = std::io::pipe().unwrap();
    let found = std::fs::metadata(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
    let mut command = site.command("daemon --json");
    command
        .env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()))
        .stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    site.write("src/file", "1");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(reader));
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("path=file")));
    let line = line.unwrap().unwrap();
    assert!(
        line.starts_with("<6>applied bytes=1 mirror=www op=put path=file "),
        "{line}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_log_goes_to_a_file_and_to_syslog_beside_standard_error() {
    let site = Site::new(&["src", "dst"]);
    site.configure(&site.mirror("www", "src", &["dst"], "audit = true"));
    let syslog = std::os::unix::net::UnixDatagram::bind(site.path("syslog")).unwrap();
    syslog.set_read_timeout(Some(crate::site::PATIENCE)).unwrap();
    let line = "daemon --log-format json --log-file log --syslog=local3 --syslog-name mirrors --syslog-socket syslog";
    let mut daemon = Daemon::listening(site.command(line));
    site.write("src/first", "1");
    daemon.event(|event| event["op"] == "put" && event["path"] == "first");
    let has = |name: &str, path: &str| {
        site.read(name)
            .is_some_and(|text| text.contains(&format!("\"path\":\"{path}\"")))
    };
    until("the file has it", || has("log", "first"));
    let mut buffer = [0; 16_384];
    let heard = loop {
        let length = syslog.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if text.contains("path=first") {
            break text;
        }
    };
    let tag = format!(
        " mirrors[{}]: applied bytes=1 mirror=www op=put",
        daemon.process()
    );
    assert!(heard.starts_with("<158>") && heard.contains(&tag), "{heard}");
    // The file is moved away, as logrotate does.
    std::fs::rename(site.path("log"), site.path("log.1")).unwrap();
    let number = std::cell::Cell::new(0);
    until("a new file", || {
        number.set(number.get() + 1);
        site.write(&format!("src/later-{}", number.get()), "2");
        site.path("log").exists()
    });
    site.write("src/last", "3");
    until("the new file has what came last", || has("log", "last"));
    assert!(!has("log.1", "last") && has("log.1", "first"));
    site.run("wait --timeout 60s", 0);
    assert_eq!(daemon.stop(), Some(0));
    let (_, error) = site.run("status --log-file /no/such/directory/log", 1);
    assert!(
        error.contains("cannot write the log to /no/such/directory/log"),
        "{error}"
    );
    let (_, error) = site.run("status --syslog --syslog-socket /no/such/socket", 1);
    assert!(
        error.contains("cannot log to syslog at /no/such/socket"),
        "{error}"
    );
}

#[test]
fn a_daemon_without_mirrors_runs_all_the_same() {
    let site = Site::new(&[]);
    site.configure("[settings]\nnice = 0\n");
    let daemon = Daemon::start(&site, "daemon --json");
    let (_, told) = site.run("status", 0);
    assert!(
        told.contains("a driftless daemon of this home is running, without any mirror or module"),
        "{told}"
    );
    assert_eq!(daemon.stop(), Some(0));
    let (_, told) = site.run("status", 1);
    assert!(
        told.contains("no driftless daemon of this home is running"),
        "{told}"
    );
}

#[test]
fn the_log_is_a_matter_of_the_configuration_and_follows_a_reload() {
    let site = Site::new(&["src", "dst"]);
    let syslog = std::os::unix::net::UnixDatagram::bind(site.path("syslog")).unwrap();
    syslog.set_read_timeout(Some(crate::site::PATIENCE)).unwrap();
    let configure = |settings: &str| {
        let mirror = site.mirror("www", "src", &["dst"], "audit = true");
        site.configure(&format!("[settings]\n{settings}\n{mirror}"));
    };
    let path = |name: &str| site.path(name).display().to_string();
    let has = |name: &str, text: &str| site.read(name).is_some_and(|all| all.contains(text));
    configure(&format!(
        "log-file = '{}'\nlog-format = 'json'\nverbose = 3",
        path("one")
    ));
    let daemon = Daemon::start(&site, "daemon --json");
    site.write("src/first", "1");
    until("the file has it, as JSON", || {
        has("one", "\"level\":\"info\"") && has("one", "\"path\":\"first\"")
    });
    until("all is in it", || has("one", "\"level\":\"trace\""));
    // Another file, another form, fewer lines, and syslog.
    configure(&format!(
        "log-file = '{}'\nsyslog = 'local1'\nsyslog-name = 'other'\nsyslog-socket = '{}'",
        path("two"),
        path("syslog")
    ));
    site.run("reload", 0);
    site.write("src/second", "1");
    until("the other file has it, as text", || has("two", "path=\"second\""));
    assert!(!has("one", "\"path\":\"second\""));
    assert!(!has("two", "TRACE"), "the levels are as they were");
    let mut buffer = [0; 16_384];
    let tag = format!(" other[{}]: ", daemon.process());
    loop {
        let length = syslog.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        assert!(text.starts_with('<') && text.contains(&tag), "{text}");
        if text.contains("path=second") {
            break;
        }
    }
    // As logrotate does, with a reload behind it.
    std::fs::rename(site.path("two"), site.path("two.1")).unwrap();
    site.run("reload", 0);
    assert!(site.path("two").exists(), "the file was not made anew");
    site.write("src/third", "1");
    until("the new file has it", || has("two", "path=\"third\""));
    assert!(!has("two.1", "third"));
    // What cannot be written changes nothing.
    configure("log-file = '/no/such/directory/log'\nverbose = true");
    let (_, error) = site.run("reload", 2);
    assert!(
        error.contains("nothing was changed")
            && error.contains("cannot write the log to /no/such/directory/log"),
        "{error}"
    );
    site.write("src/fourth", "1");
    until("the log is as it was", || has("two", "path=\"fourth\""));
    site.run("wait --timeout 60s", 0);
    assert_eq!(daemon.stop(), Some(0));
    let (_, error) = site.run("daemon", 1);
    assert!(
        error.contains("cannot write the log to /no/such/directory/log"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_keys_of_the_log_is_said_by_its_line() {
    let site = Site::new(&["src", "dst"]);
    for (settings, said) in [
        (
            "log-file = 'log'",
            ":2: log-file: \"log\" is not a path that begins with a slash",
        ),
        (
            "log-format = 'xml'",
            ":2: log-format: \"xml\" is not one of text, json, journal",
        ),
        ("syslog = 'mail'", ":2: syslog: \"mail\" is not one of"),
        (
            "syslog-name = 'x'",
            ":2: syslog-name has no meaning without syslog (add it, or leave both out)",
        ),
        (
            "verbose = 'much'",
            ":2: verbose takes true, false, or how many times",
        ),
    ] {
        site.configure(&format!("[settings]\n{settings}\n"));
        let (_, error) = site.run("config check", 2);
        assert!(error.contains(said), "{said}: {error}");
    }
    site.configure(&site.mirror("www", "src", &["dst"], "log-file = '/var/log/x'"));
    let (_, error) = site.run("config check", 2);
    assert!(error.contains("log-file belongs into [settings]"), "{error}");
    site.configure("[settings]\nverbose = 1\nsyslog = true\nlog-file = '/var/log/x'\n");
    let shown = site.json("config show --json", 0);
    let settings = &shown["settings"];
    assert_eq!(settings["log-file"]["value"], "/var/log/x", "{settings}");
    assert_eq!(settings["log-file"]["origin"]["line"], 4, "{settings}");
    assert_eq!(settings["syslog"]["value"], true, "{settings}");
    site.configure("[settings]\nnice = 0\n");
    let shown = site.json("config show --json", 0);
    assert_eq!(
        shown["settings"]["verbose"]["origin"]["kind"], "default",
        "{shown}"
    );
}
