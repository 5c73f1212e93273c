//! From where a module may be reached.

use crate::site::{Daemon, Site, contents, free_port, until};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

/// A receiver's home with these modules, each in a directory of its name; gives what begins a target in it.
fn receiver(
    site: &Site,
    listen: &str,
    modules: &[(&str, &str)],
) -> (Daemon, impl Fn(&str) -> String + use<>) {
    fs::create_dir_all(site.path("home-r")).unwrap();
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let port = free_port();
    configure(site, &format!("{listen}:{port}"), modules);
    let own = site.fingerprint("home-r");
    let daemon = Daemon::spawn(site.command_in("home-r", "daemon --json"));
    (daemon, move |place: &str| {
        let (host, module) = place.split_once(' ').unwrap();
        format!("driftless://{own}@{host}:{port}/{module}")
    })
}

fn configure(site: &Site, listen: &str, modules: &[(&str, &str)]) {
    let mut text = format!(
        "[settings]\nlisten = '{listen}'\nallow = '{}'\n",
        site.fingerprint("home")
    );
    for (name, more) in modules {
        fs::create_dir_all(site.path(name)).unwrap();
        let path = site.path(name);
        text += &format!(
            "[[module]]\nname = '{name}'\npath = '{}'\n{more}\n",
            path.display()
        );
    }
    site.write("home-r/driftless.toml", text);
}

#[test]
fn a_module_is_reached_from_where_it_says() {
    let site = Site::new(&["src"]);
    site.write("src/a", "1");
    let (_receiver, target) = receiver(
        &site,
        "127.0.0.1",
        &[
            ("near", "hosts-allow = ['127.0.0.0/8', '::1']"),
            ("far", "hosts-allow = ['192.0.2.0/24', '2001:db8::/32']"),
            ("but", "hosts-deny = '127.0.0.1'"),
            (
                "both",
                "hosts-allow = '127.0.0.1'\nhosts-deny = ['0.0.0.0/0', '::/0']",
            ),
        ],
    );
    for name in ["near", "both"] {
        site.run(&format!("seed src {}", target(&format!("127.0.0.1 {name}"))), 0);
        assert_eq!(contents(&site.path("src")), contents(&site.path(name)));
    }
    let mut refusals = Vec::new();
    for name in ["far", "but"] {
        let place = target(&format!("127.0.0.1 {name}"));
        for command in ["seed", "verify", "seed -n"] {
            let (command, option) = command.split_once(' ').unwrap_or((command, ""));
            let (_, err) = site.run(&format!("{command} src {place} {option}"), 1);
            assert!(err.contains("does not allow this sender"), "{err}");
            refusals.push(err.replace(name, "NAME"));
        }
        assert!(contents(&site.path(name)).is_empty());
    }
    // Nobody learns whether there is such a module: it is what a stranger is told.
    site.run_in("stranger", &format!("seed src {}", target("127.0.0.1 far")), 1);
    assert!(
        refusals
            .iter()
            .all(|text| !text.contains("192.0.2") && !text.contains("hosts"))
    );
}

/// Whom no module would take is not answered at all, as if nobody listened.
#[test]
fn an_address_that_may_reach_nothing_is_not_answered() {
    let site = Site::new(&["src"]);
    let (mut daemon, target) = receiver(&site, "127.0.0.1", &[("far", "hosts-allow = '192.0.2.0/24'")]);
    let place = target("127.0.0.1 far");
    let (_, err) = site.run(
        &format!("seed src {place} --contimeout 1 --timeout 2 --stop-after 20s"),
        1,
    );
    assert!(err.contains("no answer"), "{err}");
    daemon.hear(|line| line.contains("not answered") && line.contains("127.0.0.1"));
    // A reload lets it in, without a restart.
    let port = place
        .rsplit(':')
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    configure(
        &site,
        &format!("127.0.0.1:{port}"),
        &[("far", "hosts-allow = '127.0.0.1'")],
    );
    site.run_in("home-r", "reload", 0);
    site.run(&format!("seed src {place}"), 0);
}

/// A socket for both kinds of addresses shows IPv4 addresses as IPv6 ones.
#[test]
fn an_ipv4_address_is_the_same_on_a_socket_for_both_kinds() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    let site = Site::new(&["src"]);
    site.write("src/a", "1");
    let (_receiver, target) = receiver(
        &site,
        "[::]",
        &[
            ("four", "hosts-allow = '127.0.0.1'"),
            ("six", "hosts-allow = '::1'"),
        ],
    );
    for (host, name, status) in [
        ("127.0.0.1", "four", 0),
        ("[::1]", "six", 0),
        ("127.0.0.1", "six", 1),
        ("[::1]", "four", 1),
    ] {
        site.run(&format!("seed src {}", target(&format!("{host} {name}"))), status);
    }
}

#[test]
fn one_line_receivers_take_the_lists_too() {
    let site = Site::new(&["src", "dst", "home-r"]);
    fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
    let (port, allowed) = (free_port(), site.fingerprint("home"));
    let line = format!(
        "receive dst --module m --listen 127.0.0.1:{port} --allow {allowed} --hosts-allow 192.0.2.1,127.0.0.0/8 --json"
    );
    let _receiver = Daemon::spawn(site.command_in("home-r", &line));
    let target = format!("driftless://{}@127.0.0.1:{port}/m", site.fingerprint("home-r"));
    site.write("src/a", "1");
    site.run(&format!("seed src {target}"), 0);
    until("it is there", || site.read("dst/a").is_some());
    for wrong in ["10.0.0.1/8", "example.com", "10.0.0.0/33"] {
        let (_, err) = site.run(&format!("receive dst --hosts-deny {wrong}"), 2);
        assert!(err.contains(wrong), "{err}");
    }
    // For mirrors that write themselves it has no meaning.
    site.configure(&site.mirror("m", "src", &["dst"], "hosts-allow = '10.0.0.0/8'"));
    site.run("config check", 2);
}
