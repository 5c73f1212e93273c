//! Ten machines, each in namespaces of its own, on one bridge: a source, six targets, one that passes on to a further one, and one
//! that pulls. One link is cut for a while, under load and over a reload, and a deploy waits for all of them.
//!
//! The machines are those of the guide (`tests/guide/machines`): blocks of commands run one after the other, each on its
//! machine, and each has to end with the status that it is given.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// The machines to which `source` sends by itself.
const TARGETS: [&str; 7] = ["t1", "t2", "t3", "t4", "t5", "t6", "relay"];

/// What blocks begin with: the directory that all machines see, and who is who.
const PREAMBLE: &str = r#"
WORK=${PATH%%/bin:*}
id() { cat "$WORK/id-$1"; }
"#;

/// Blocks of commands.
#[derive(Default)]
struct Plan(Vec<(String, String, &'static str, u8)>);

impl Plan {
    fn run(&mut self, host: &str, commands: &str) {
        self.expect(host, 0, commands);
    }

    /// One that has to end with a status.
    fn expect(&mut self, host: &str, status: u8, commands: &str) {
        self.0.push((host.to_owned(), commands.to_owned(), "", status));
    }

    /// One that goes on running.
    fn daemon(&mut self, host: &str, commands: &str) {
        self.0.push((host.to_owned(), commands.to_owned(), "daemon", 0));
    }

    /// Does it all, in `work`.
    fn carry_out(&self, work: &Path) {
        fs::set_permissions(work, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(work.join("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_driftless"), work.join("bin/driftless")).unwrap();
        let mut plan = String::new();
        for (at, (host, commands, how, status)) in self.0.iter().enumerate() {
            plan.push_str(&format!("{at} {host} {status} {how}\n"));
            fs::write(work.join(format!("{at}.sh")), format!("{PREAMBLE}{commands}\n")).unwrap();
        }
        let hosts: BTreeSet<_> = self.0.iter().map(|(host, ..)| host.as_str()).collect();
        assert_eq!(hosts.len(), 10);
        fs::write(work.join("plan"), plan).unwrap();
        let hosts: String = hosts.into_iter().map(|host| format!("{host}\n")).collect();
        fs::write(work.join("hosts"), hosts).unwrap();
        let output = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guide/machines"))
            .arg(work)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let logs = || {
            let daemons = self
                .0
                .iter()
                .enumerate()
                .filter(|(_, (_, _, how, _))| *how == "daemon");
            let log = |(at, (host, ..)): (usize, &(String, String, &str, u8))| {
                let text = fs::read_to_string(work.join(format!("{at}.out"))).unwrap_or_default();
                format!("--- {host}\n{text}")
            };
            daemons.map(log).collect::<String>()
        };
        assert!(output.status.success(), "{said}\n{}", logs());
    }
}

#[test]
fn ten_machines_agree_after_a_cut_under_load_and_a_reload() {
    if !rustix::process::geteuid().is_root() {
        let no_skip = std::env::var_os("DRIFTLESS_TEST_NO_SKIP").is_some_and(|value| value == "1");
        assert!(!no_skip, "skipped: namespaces of its own need root");
        eprintln!("skipped: namespaces of its own need root");
        return;
    }
    let mut plan = Plan::default();
    let others = TARGETS.iter().chain(&["source", "leaf", "puller"]);
    for host in others.clone() {
        plan.run(
            host,
            "driftless id | grep -oE '[a-z2-7]{52}$' >\"$WORK/id-$(hostname)\"",
        );
    }
    for target in TARGETS.iter().filter(|target| **target != "relay") {
        plan.daemon(
            target,
            "mkdir /srv/www; exec driftless receive /srv/www --module www --allow \"$(id source)\"",
        );
    }
    plan.daemon(
        "leaf",
        "mkdir /srv/www; exec driftless receive /srv/www --module www --allow \"$(id relay)\"",
    );
    plan.daemon(
        "relay",
        r#"mkdir /srv/www
cat >/etc/driftless/driftless.toml <<END
[settings]
allow = ["$(id source)"]
[[module]]
name = "www"
path = "/srv/www"
[[mirror]]
name = "on"
source = "/srv/www"
targets = ["driftless://$(id leaf)@leaf:4433/www"]
delete = "always"
accept-root = true
END
exec driftless daemon"#,
    );
    plan.run(
        "source",
        "mkdir -p /srv/www/app /srv/www/load; seq 1000 >/srv/www/app/list; echo 1 >/srv/www/app/version",
    );
    let configuration = |targets: &str| {
        format!(
            r#"configuration() {{
cat >/etc/driftless/driftless.toml <<END
[settings]
allow = ["$(id puller)"]
[[tree]]
name = "pulled"
source = "/srv/www"
[[mirror]]
name = "www"
source = "/srv/www"
delete = "always"
targets = [$(for name in {targets}; do printf '"driftless://%s@%s:4433/www", ' "$(id $name)" "$name"; done)]
END
}}
configuration"#
        )
    };
    let all = TARGETS.join(" ");
    plan.daemon(
        "source",
        &format!("{}\nexec driftless daemon", configuration(&all)),
    );
    plan.daemon(
        "puller",
        "mkdir /srv/www; exec driftless receive /srv/www --from \"driftless://$(id source)@source:4433/pulled\"",
    );
    // The puller has called by the time that there is a sender for it, and then all eight can be waited for.
    plan.run(
        "source",
        "until driftless status | grep -q 'pulls pulled'; do read -r -t 0.1 <>\"$WORK/clock\" || true; done
driftless wait /srv/www --level durable --targets all --timeout 60s",
    );

    // Load: files come, change and go until somebody says stop.
    plan.daemon(
        "source",
        r#"echo loading
at=0
until [ -e "$WORK/stop" ]; do
    at=$((at + 1))
    echo "$at" >/srv/www/load/$((at % 50))
    if [ $((at % 7)) = 0 ]; then rm -f /srv/www/load/$((at % 40)); fi
    read -r -t 0.02 <>"$WORK/clock" || true
done
touch "$WORK/stopped"
exec sleep infinity"#,
    );
    plan.run("t3", "ip link set eth0 down");
    // A deploy that insists on all is late; one that is content with six of seven is not.
    plan.run(
        "source",
        "echo 2 >/srv/www/app/version; mkdir /srv/www/app/new; seq 5000 >/srv/www/app/new/list",
    );
    plan.expect(
        "source",
        5,
        "driftless wait /srv/www/app --level durable --targets all --timeout 5s",
    );
    plan.run(
        "source",
        "driftless wait --mirror www --level durable --targets 6 --timeout 60s",
    );
    plan.run("t1", "test \"$(cat /srv/www/app/version)\" = 2");
    // A reload under load, with one target less and then the same as before: the others keep their connections.
    let fewer = TARGETS[..5].join(" ") + " relay";
    for (targets, told) in [
        (fewer.as_str(), "7 senders left alone, 1 stopped, 0 started"),
        (&all, "7 senders left alone, 0 stopped, 1 started"),
    ] {
        plan.run(
            "source",
            &format!(
                "{}\ndriftless reload | tee /dev/stderr | grep -q '{told}'",
                configuration(targets)
            ),
        );
    }
    plan.run("t3", "ip link set eth0 up");
    plan.run("source", "touch \"$WORK/stop\"; until [ -e \"$WORK/stopped\" ]; do read -r -t 0.05 <>\"$WORK/clock\" || true; done");
    plan.run(
        "source",
        "driftless wait /srv/www --level durable --targets all --timeout 60s",
    );
    // What was passed on is durable at its end, too.
    plan.run(
        "relay",
        "driftless wait /srv/www --level durable --targets all --timeout 60s",
    );
    for host in others.clone() {
        plan.run(
            host,
            "cd /srv/www; find . -name '.driftless*' -prune -o -type f -print0 | sort -z | xargs -0 sha256sum >\"$WORK/sums-$(hostname)\"",
        );
    }
    let work = tempfile::tempdir().unwrap();
    plan.carry_out(work.path());
    let sums = |host: &str| fs::read_to_string(work.path().join(format!("sums-{host}"))).unwrap();
    let source = sums("source");
    assert!(source.lines().count() > 20, "{source}");
    for host in others {
        assert_eq!(sums(host), source, "{host}");
    }
}
