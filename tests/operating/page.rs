//! The status page, through the real daemon: by hand, and by a browser.

use crate::site::{Daemon, PATIENCE, Site, free_port, until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn json(port: u16, path: &str) -> Value {
    let reply = get(port, path);
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{reply}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn the_page_tells_what_the_status_tells_and_what_happened() {
    let site = Site::new(&["src", "dst"]);
    let port = free_port();
    site.configure(&(format!("[settings]\nweb = {port}\n") + &site.mirror("www", "src", &["dst"], "")));
    let _daemon = Daemon::start(&site, "daemon --json");
    site.run("wait --timeout 60s", 0);
    site.write("src/<b>file", "1");
    site.run("wait --timeout 60s", 0);
    assert!(get(port, "/").contains("<title>driftless</title>"));
    let told = json(port, "/status.json");
    assert_eq!(told["daemons"][0]["mirror"], "www");
    assert_eq!(
        told["daemons"][0]["source"],
        site.sender("www", "dst")["source"],
        "{told}"
    );
    until("the change is told", || {
        let told = json(port, "/status.json");
        let changes = told["changes"].as_array().unwrap().iter();
        changes
            .flat_map(|event| event["changes"].as_array().unwrap())
            .any(|change| change["path"] == "<b>file")
    });
    until("there is a history", || {
        json(port, "/history.json")["targets"][0]["samples"][0]["lag_ms"].is_u64()
    });
    // A page of somebody else whose name leads here.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(b"GET /status.json HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 421 ") && !reply.contains("www"),
        "{reply}"
    );
}

#[test]
fn a_page_that_cannot_or_must_not_be_served_is_one_line_and_the_rest_goes_on() {
    let site = Site::new(&["src", "dst"]);
    site.write("src/file", "1");
    site.configure(&site.mirror("www", "src", &["dst"], ""));
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    for (option, said) in [
        (
            format!("--web {address}"),
            format!("driftless: no status page is served at {address}: Address already in use"),
        ),
        (
            "--web 0.0.0.0:0".to_owned(),
            "driftless: no status page is served at 0.0.0.0:0: others could reach it".to_owned(),
        ),
    ] {
        let mut daemon = Daemon::listening(site.command(&format!("daemon {option}")));
        // Two streams, of which either may be read first.
        let mut expected = vec![said.as_str(), "running 1 mirror"];
        daemon.wait(|line| {
            expected.retain(|text| !line.starts_with(text));
            expected.is_empty()
        });
        site.run("wait --timeout 60s", 0);
        assert_eq!(site.read("dst/file").as_deref(), Some("1"));
        daemon.stop();
    }
    let mut daemon = Daemon::listening(site.command("daemon --web 0.0.0.0:0 --web-allow-remote"));
    daemon.wait(|line| line.contains("the status page is at http://0.0.0.0:"));
    daemon.stop();
    site.configure("[settings]\nweb = 'everywhere'\n");
    let (_, err) = site.run("config check", 2);
    assert!(
        err.contains("driftless.toml:2: web: \"everywhere\" is not an address"),
        "{err}"
    );
}

fn chromium() -> Option<PathBuf> {
    ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// In a browser: on a desk and in the hand, light and dark, by axe-core's rules. Needs Chromium, Node.js and two packages, so
/// it runs with `DRIFTLESS_SOAK` only; `DRIFTLESS_SCREENSHOTS` says where to leave the pictures.
#[test]
fn a_browser_shows_it_and_finds_no_barrier() {
    if std::env::var_os("DRIFTLESS_SOAK").is_none() {
        eprintln!("skipped: DRIFTLESS_SOAK is not set, and this needs Chromium and packages for Node.js");
        return;
    }
    let chromium =
        chromium().expect("there is no Chromium (Debian: apt-get install chromium fonts-dejavu-core)");
    let site = Site::new(&["src/release", "dst", "photos", "spare", "modules"]);
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--prefix"])
        .arg(site.path("modules"))
        .args(["playwright-core@1.64", "axe-core@4"])
        .output()
        .expect("npm");
    assert!(installed.status.success(), "{installed:?}");
    for number in 0..40 {
        site.write(&format!("src/release/{number}.html"), "x".repeat(900));
    }
    let port = free_port();
    let held = site.mirror("photos", "photos", &["spare"], "max-delete = '5'");
    let away = site.mirror(
        "www",
        "src",
        &["dst", "driftless://127.0.0.1:9/www"],
        "exclude = ['*.tmp']",
    );
    for number in 0..20 {
        site.write(&format!("photos/{number}.jpg"), "x");
    }
    site.configure(&(format!("[settings]\nweb = {port}\n") + &held + &away));
    let _daemon = Daemon::start(&site, "daemon --json");
    until("two are in sync", || {
        let told = json(port, "/status.json");
        let daemons = told["daemons"].as_array().unwrap();
        daemons
            .iter()
            .filter(|daemon| daemon["phase"] == "in-sync")
            .count()
            == 2
    });
    site.write("src/release/<img src=x onerror=alert(1)>", "1");
    site.write("src/index.html", "new");
    (0..20).for_each(|number| fs::remove_file(site.path(&format!("photos/{number}.jpg"))).unwrap());
    until("deletions are held back", || {
        json(port, "/status.json").to_string().contains("\"held\":20")
    });
    let pictures = std::env::var_os("DRIFTLESS_SCREENSHOTS").map_or(site.path("pictures"), PathBuf::from);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operating/browser.mjs");
    let output = Command::new("node")
        .arg(script)
        .arg(site.path("modules"))
        .arg(chromium)
        .arg(format!("http://127.0.0.1:{port}/"))
        .arg(&pictures)
        .output()
        .expect("node");
    assert!(output.status.success(), "{output:?}");
    let seen: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen.len(), 4);
    for look in seen {
        assert_eq!(look["violations"], Value::Array(Vec::new()), "{look:#}");
        assert_eq!(look["complaints"], Value::Array(Vec::new()), "{look:#}");
        assert!(look["checked"].as_u64() > Some(10), "{look:#}");
        assert_eq!(
            (&look["overflows"], &look["scripts"]),
            (&false.into(), &1.into()),
            "{look:#}"
        );
        assert_eq!(look["origins"].as_array().unwrap().len(), 1, "{look:#}");
        assert_eq!(look["summary"], "1 of 3 targets in sync", "{look:#}");
        let text = look["text"].as_str().unwrap();
        assert!(
            text.contains("put release/<img src=x onerror=alert(1)>")
                && text.contains("held back: 20 deletions"),
            "{text}"
        );
    }
    for name in ["desktop-light", "desktop-dark", "phone-light", "phone-dark"] {
        let picture = fs::read(pictures.join(format!("page-{name}.png"))).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5_000, "{name}");
    }
}
