//! Many mirrors in one daemon, and many targets of one mirror, through the real program: what they cost, and that none of
//! them waits for another.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Homes and trees below one directory.
struct Site(TempDir);

impl Site {
    fn new() -> Site {
        Site(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn command(&self, home: &str, arguments: &[&str]) -> Command {
        let path = self.make(home);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftless"));
        command
            .args(arguments)
            .env("DRIFTLESS_HOME", path)
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, home: &str, arguments: &[&str]) -> String {
        let output = self.command(home, arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn identity(&self, home: &str) -> String {
        let text = self.ask(home, &["id"]);
        text.split_whitespace().last().unwrap().to_owned()
    }

    /// A receiver's home with modules, each in a directory of its name; gives the address of a target in it.
    fn receiver(&self, home: &str, sender: &str, modules: &[String]) -> impl Fn(&str) -> String + use<> {
        let port = UdpSocket::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let allowed = self.identity(sender);
        let mut text = format!("[settings]\nlisten = '127.0.0.1:{port}'\nallow = '{allowed}'\n");
        for module in modules {
            let path = self.make(format!("{home}-{module}"));
            text += &format!("[[module]]\nname = '{module}'\npath = '{}'\n", path.display());
        }
        let own = self.identity(home);
        fs::write(self.path(home).join("driftless.toml"), text).unwrap();
        move |module| format!("driftless://{own}@127.0.0.1:{port}/{module}")
    }

    fn mirror(&self, name: &str, source: &str, targets: &[String]) -> String {
        let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
        format!(
            "[[mirror]]\nname = '{name}'\nsource = '{}'\ntargets = [{}]\ndelete = 'always'\n",
            self.path(source).display(),
            targets.join(", ")
        )
    }

    fn start(&self, home: &str) -> Daemon<'_> {
        let log = File::create(self.path(format!("{home}.log"))).unwrap();
        let mut command = self.command(home, &["daemon", "--json"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Daemon {
            child: command.spawn().unwrap(),
            site: self,
            home: home.to_owned(),
        }
    }
}

/// A running daemon.
struct Daemon<'a> {
    child: Child,
    site: &'a Site,
    home: String,
}

impl Daemon<'_> {
    fn status(&self) -> Vec<Value> {
        let text = self.site.ask(&self.home, &["status", "--json"]);
        let status: Value = serde_json::from_str(&text).unwrap_or_default();
        status["daemons"].as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if holds(&status) {
                return;
            }
            let log = || fs::read_to_string(self.site.path(format!("{}.log", self.home))).unwrap();
            assert!(
                Instant::now() < deadline,
                "still not: {what}: {status:#?}\n{}",
                log()
            );
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn until_in_sync(&self, senders: usize) {
        self.until("all are in sync", |status| {
            let in_sync = status.iter().filter(|sender| sender["phase"] == "in-sync");
            in_sync.count() == senders
        });
    }

    #[track_caller]
    fn until_offered(&self, modules: usize) {
        self.until("all modules are offered", |status| {
            let offered = status.iter().filter_map(|daemon| daemon["modules"].as_array());
            offered.map(Vec::len).sum::<usize>() == modules
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Its own memory. Pages of the program itself, which it shares and which are many in a build that is not optimised, are not counted.
    fn anonymous_bytes(&self) -> u64 {
        let status = self.proc("status");
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Processor time that all its threads have used.
    fn cpu(&self) -> Duration {
        let text = self.proc("stat");
        let (_, fields) = text.rsplit_once(')').unwrap();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    fn marks(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).unwrap();
        let texts = descriptors.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        texts
            .map(|text| {
                // One without a mask of its own silences a noisy neighbour of the tests.
                let marks = text.lines().filter(|line| {
                    line.starts_with("fanotify ") && line.contains("sdev:") && !line.contains(" mask:0 ")
                });
                marks.count()
            })
            .sum()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// All files below a directory.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}

fn holds(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

/// A number from the environment, for runs that measure more than tests have time for.
fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// `DRIFTLESS_TEST_MIRRORS=500 cargo test --test fleet mirrors_at_rest -- --nocapture` prints the figures for 500.
#[test]
fn mirrors_at_rest_cost_little_memory_no_threads_and_one_mark() {
    let mirrors = number("DRIFTLESS_TEST_MIRRORS", 60);
    let site = Site::new();
    let names: Vec<_> = (0..mirrors).map(|number| format!("m{number}")).collect();
    let target = site.receiver("receiver", "sender", &names);
    let mut text = "[settings]\nmax-transfers = 16\n".to_owned();
    for name in &names {
        let source = site.make(format!("src-{name}/below"));
        for number in 0..5 {
            fs::write(
                source.join(number.to_string()),
                format!("{name} {number}\n").repeat(20),
            )
            .unwrap();
        }
        text += &site.mirror(name, &format!("src-{name}"), &[target(name)]);
    }
    fs::write(site.path("sender/driftless.toml"), text).unwrap();
    let receiver = site.start("receiver");
    receiver.until_offered(mirrors);
    let sender = site.start("sender");
    sender.until_in_sync(mirrors);

    // What each takes where nothing is optimised, and a tenth more: see docs/performance.md.
    let each = if cfg!(debug_assertions) {
        580 << 10
    } else {
        480 << 10
    };
    let bar = (14 << 20) + mirrors as u64 * each;
    until("memory is given back", || sender.anonymous_bytes() < bar);
    let before = sender.cpu();
    std::thread::park_timeout(Duration::from_secs(5));
    let idle = sender.cpu() - before;
    let threads = fs::read_dir(format!("/proc/{}/task", sender.child.id()))
        .unwrap()
        .count();
    println!(
        "{mirrors} mirrors: {} MB, {threads} threads, {idle:?} of processor in 5 s, {} marks",
        sender.anonymous_bytes() >> 20,
        sender.marks(),
    );
    assert!(threads <= 2 * mirrors + 16, "{threads} threads");
    assert!(
        idle < Duration::from_secs(2),
        "{idle:?} of processor in 5 s at rest"
    );
    // Where it may use fanotify at all.
    assert!(sender.marks() <= 1, "{} marks", sender.marks());

    // Each is told of its own tree, and of no other.
    for name in [&names[0], &names[mirrors / 2], &names[mirrors - 1]] {
        fs::write(site.path(format!("src-{name}/below/new")), name).unwrap();
        until("a change arrives", || {
            holds(&site.path(format!("receiver-{name}/below/new")), name)
        });
        assert!(!site.path("receiver-m1/below/new").exists());
    }
}

/// Passes datagrams on between one sender's socket and a receiver, and counts the connections that are begun.
struct Passage {
    port: u16,
    begun: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Passage {
    fn to(port: u16) -> Passage {
        let open = || {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let (near, far) = (open(), open());
        far.connect(("127.0.0.1", port)).unwrap();
        let own = near.local_addr().unwrap().port();
        let (begun, ends) = (
            Arc::<Mutex<BTreeSet<_>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let client = Arc::<Mutex<Option<SocketAddr>>>::default();
        let forth = {
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (begun, ends, client) = (begun.clone(), ends.clone(), client.clone());
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while !ends.load(Ordering::Relaxed) {
                    let Ok((length, from)) = near.recv_from(&mut bytes) else {
                        continue;
                    };
                    *client.lock().unwrap() = Some(from);
                    begun.lock().unwrap().extend(source_of_initial(&bytes[..length]));
                    let _ = far.send(&bytes[..length]);
                }
            })
        };
        let back = {
            let ends = ends.clone();
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while !ends.load(Ordering::Relaxed) {
                    let Ok(length) = far.recv(&mut bytes) else {
                        continue;
                    };
                    let to = *client.lock().unwrap();
                    let _ = to.map(|to| near.send_to(&bytes[..length], to));
                }
            })
        };
        Passage {
            port: own,
            begun,
            ends,
            threads: vec![forth, back],
        }
    }

    fn begun(&self) -> usize {
        self.begun.lock().unwrap().len()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// The source connection ID of an Initial packet (RFC 9000, section 17.2.2), which a client keeps for its handshake.
fn source_of_initial(datagram: &[u8]) -> Option<Vec<u8>> {
    let is_initial = datagram.first()? & 0xf0 == 0xc0;
    let destination = usize::from(*datagram.get(5)?);
    let at = 6 + destination;
    let length = usize::from(*datagram.get(at)?);
    let source = datagram.get(at + 1..at + 1 + length)?;
    is_initial.then(|| source.to_vec())
}

#[test]
fn mirrors_to_one_receiver_share_a_connection() {
    const MIRRORS: usize = 6;
    let site = Site::new();
    let names: Vec<_> = (0..MIRRORS).map(|number| format!("m{number}")).collect();
    let target = site.receiver("receiver", "sender", &names);
    let direct = target("m0");
    let port = direct.rsplit_once(':').unwrap().1.split('/').next().unwrap();
    let passage = Passage::to(port.parse().unwrap());
    let mut text = String::new();
    for name in &names {
        let source = site.make(format!("src-{name}"));
        fs::write(source.join("file"), name).unwrap();
        let through = target(name).replace(&format!(":{port}/"), &format!(":{}/", passage.port));
        text += &site.mirror(name, &format!("src-{name}"), &[through]);
    }
    fs::write(site.path("sender/driftless.toml"), &text).unwrap();
    let receiver = site.start("receiver");
    receiver.until_offered(MIRRORS);
    let sender = site.start("sender");
    sender.until_in_sync(MIRRORS);
    // One, but for a handshake that a busy machine was too slow for.
    assert!(passage.begun() <= 2, "{} connections", passage.begun());

    // One that stops and starts again joins the others; nothing is lost of theirs.
    site.ask("sender", &["stop", "m3"]);
    sender.until("one has stopped", |status| {
        status
            .iter()
            .filter(|sender| sender["phase"] == "in-sync")
            .count()
            == MIRRORS - 1
    });
    for name in &names {
        fs::write(site.path(format!("src-{name}/file")), format!("{name} again")).unwrap();
    }
    site.ask("sender", &["start", "m3"]);
    for name in &names {
        until("a change arrives", || {
            holds(
                &site.path(format!("receiver-{name}/file")),
                &format!("{name} again"),
            )
        });
    }
    sender.until_in_sync(MIRRORS);
    assert!(passage.begun() <= 2, "{} connections", passage.begun());
}

#[test]
fn a_target_that_stands_still_costs_the_others_nothing() {
    let site = Site::new();
    let targets: Vec<_> = ["one", "two"]
        .iter()
        .map(|home| site.receiver(home, "sender", &["m".to_owned()])("m"))
        .collect();
    site.make("src");
    let text = site.mirror("m", "src", &targets);
    fs::write(site.path("sender/driftless.toml"), text).unwrap();
    let (one, two) = (site.start("one"), site.start("two"));
    one.until_offered(1);
    two.until_offered(1);
    let sender = site.start("sender");
    sender.until_in_sync(2);

    // Some small files and a large one, and how long they take to the first target.
    let round = |number: usize| {
        let began = Instant::now();
        fs::write(site.path("src/large"), vec![number as u8; 4 << 20]).unwrap();
        for file in 0..100 {
            fs::write(site.path(format!("src/{file}")), format!("{number} {file}")).unwrap();
        }
        until("the first target has it", || {
            (0..100).all(|file| holds(&site.path(format!("one-m/{file}")), &format!("{number} {file}")))
                && fs::read(site.path("one-m/large"))
                    .is_ok_and(|large| large.len() == 4 << 20 && large[17] == number as u8)
        });
        began.elapsed()
    };
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    // In turn: what else the machine does changes from second to second.
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for number in 0..5 {
        two.signal(Signal::CONT);
        together.push(round(2 * number + 1));
        two.signal(Signal::STOP);
        alone.push(round(2 * number + 2));
    }
    let (together, alone) = (median(together), median(alone));
    println!("a round with both targets {together:?}, with one of them stopped {alone:?}");
    assert!(
        alone < together * 3 + Duration::from_millis(500),
        "{together:?} {alone:?}"
    );
    sender.until("the first is in sync, the second is not", |status| {
        let phase = |home: &str| {
            let own = targets[usize::from(home == "two")].as_str();
            let found = status.iter().find(|sender| sender["target"] == own);
            found.map(|sender| sender["phase"].clone())
        };
        phase("one").is_some_and(|phase| phase == "in-sync")
            && phase("two").is_some_and(|phase| phase != "in-sync")
    });
    assert!(!holds(&site.path("two-m/7"), "10 7"));
    two.signal(Signal::CONT);
    until("the second has caught up", || {
        (0..100).all(|file| holds(&site.path(format!("two-m/{file}")), &format!("10 {file}")))
    });
    sender.until_in_sync(2);
}

/// `DRIFTLESS_TEST_TARGETS=50 cargo test --test fleet fifty -- --nocapture` is what runs here anyway.
#[test]
fn fifty_targets_are_kept_alike_and_one_that_joins_late_is_too() {
    const FILES: usize = 200;
    let targets = number("DRIFTLESS_TEST_TARGETS", 50);
    let site = Site::new();
    let names: Vec<_> = (0..=targets).map(|number| format!("t{number}")).collect();
    let target = site.receiver("receiver", "sender", &names);
    let source = site.make("src");
    for number in 0..FILES {
        fs::write(source.join(number.to_string()), number.to_string().repeat(500)).unwrap();
    }
    let receiver = site.start("receiver");
    receiver.until_offered(names.len());
    let configure = |first: usize, count: usize| {
        let chosen: Vec<_> = names[first..first + count]
            .iter()
            .map(|name| target(name))
            .collect();
        fs::write(
            site.path("sender/driftless.toml"),
            site.mirror("m", "src", &chosen),
        )
        .unwrap();
    };
    let equal = |name: &str, content: &str| {
        (0..FILES).all(|number| {
            let wanted = match content {
                "" => number.to_string().repeat(500),
                content => format!("{content}{number}").repeat(500),
            };
            holds(&site.path(format!("receiver-{name}/{number}")), &wanted)
        })
    };
    configure(0, targets);
    let sender = site.start("sender");
    sender.until_in_sync(targets);
    let seed = sender.cpu();
    assert!(names[..targets].iter().all(|name| equal(name, "")));
    let before = sender.cpu();
    for number in 0..FILES {
        fs::write(source.join(number.to_string()), format!("x{number}").repeat(500)).unwrap();
    }
    until("all targets have the change", || {
        names[..targets].iter().all(|name| equal(name, "x"))
    });
    let change = sender.cpu() - before;
    println!(
        "{targets} targets, {FILES} files: {:?} of the sender's processor a target to seed, {:?} for a change of all",
        seed / targets as u32,
        change / targets as u32
    );

    // One more, while the others go on.
    let before = sender.status();
    configure(0, targets + 1);
    site.ask("sender", &["reload"]);
    sender.until_in_sync(targets + 1);
    assert!(equal(&names[targets], "x"));
    let done = |status: &[Value], name: &str| {
        let own = target(name);
        let found = status.iter().find(|sender| sender["target"] == own.as_str());
        found.map(|sender| sender["counters"]["files_sent"].clone())
    };
    let after = sender.status();
    for name in &names[..targets] {
        assert_eq!(
            done(&before, name),
            done(&after, name),
            "{name} was sent something"
        );
    }
}

/// A module is the source of a further mirror; one that closes the circle is refused, by name, and changes nothing.
#[test]
fn a_module_is_mirrored_on_and_a_circle_is_refused() {
    let site = Site::new();
    let names = ["m".to_owned()];
    let [to_b, to_c] = [("b", "a"), ("c", "b")].map(|(to, from)| site.receiver(to, from, &names));
    let to_a = site.receiver("a", "c", &names);
    // The module of A is its source, too.
    let source = "a-m";
    let add = |home: &str, source: &str, target: &str| {
        let file = site.path(home).join("driftless.toml");
        let text = fs::read_to_string(&file).unwrap() + &site.mirror("on", source, &[target.to_owned()]);
        fs::write(file, text).unwrap();
    };
    add("a", source, &to_b("m"));
    add("b", "b-m", &to_c("m"));
    fs::write(site.path(source).join("file"), "one").unwrap();
    let in_sync = |status: &[Value]| {
        let mut senders = status.iter().filter(|daemon| daemon["mirror"] == "on");
        senders.all(|sender| sender["phase"] == "in-sync")
    };
    let daemons = ["a", "b", "c"].map(|home| site.start(home));
    let at_the_end = site.path("c-m/file");
    until("the file is at the end", || holds(&at_the_end, "one"));
    fs::write(site.path(source).join("file"), "two").unwrap();
    until("the change is at the end", || holds(&at_the_end, "two"));
    let [a, b, c] = &daemons;
    a.until("A is in sync", in_sync);
    b.until("B is in sync", in_sync);

    // B was connected to C before it knew of A; C is told with the changes that come.
    let first = site.identity("a");
    let mut round = 0;
    until("C knows where its content comes from", || {
        round += 1;
        fs::write(site.path(source).join("round"), round.to_string()).unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
        let states = walk(&site.path("c"));
        let mut inflows = states.iter().filter(|path| path.ends_with("upstream.json"));
        inflows.any(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(&first)))
    });
    add("c", "c-m", &to_a("m"));
    site.ask("c", &["reload"]);
    c.until("C is refused", |status| {
        let senders = status.iter().filter(|daemon| daemon["mirror"] == "on");
        let mut reasons = senders.filter_map(|sender| sender["reason"].as_str());
        reasons.any(|reason| reason.contains("a circle of mirrors") && reason.contains("a-m"))
    });
    fs::write(site.path(source).join("file"), "three").unwrap();
    until("changes go on", || holds(&at_the_end, "three"));
    assert!(holds(&site.path(source).join("file"), "three"));
}
