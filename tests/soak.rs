//! D-30: two daemons under churn for as long as one likes, on a path that fails all the time; and another pair, of which one or both
//! are killed all the time. Nothing may be lost, and nothing may grow.
//!
//! `DRIFTLESS_SOAK=n` makes it last n minutes; without it a few rounds show that it works. What the processes have is printed
//! every minute:
//!
//! ```text
//! DRIFTLESS_SOAK=240 cargo test --test soak -- --nocapture
//! ```

#[path = "operating/site.rs"]
#[allow(dead_code, reason = "shared with the tests of operating")]
mod site;
mod support;

use site::{Daemon, Site, free_port};
use std::fmt;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};
use support::churn::{Churn, Found, OnPanic};
use support::random::Random;
use support::rough::{Rough, Weather};
use support::{differences, is_root};

/// How long a round may take to come to rest: a soak has the least of all processors.
const SETTLES: Duration = Duration::from_secs(300);
/// Rounds without `DRIFTLESS_SOAK`.
const ROUNDS: usize = 4;
/// Operations of a round.
const OPERATIONS: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What one process has.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    kib: u64,
    descriptors: usize,
    watches: usize,
}

impl Held {
    fn by(process: u32) -> Held {
        let statm = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        let infos = fs::read_dir(format!("/proc/{process}/fdinfo")).unwrap();
        let infos: Vec<_> = infos
            .filter_map(|info| fs::read_to_string(info.ok()?.path()).ok())
            .collect();
        let is_watch = |line: &&str| line.starts_with("inotify wd:") || line.starts_with("fanotify ino:");
        Held {
            kib: pages * rustix::param::page_size() as u64 / 1024,
            descriptors: infos.len(),
            watches: infos
                .iter()
                .flat_map(|info| info.lines().filter(is_watch))
                .count(),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB, {} descriptors", self.kib, self.descriptors)?;
        match self.watches {
            0 => Ok(()),
            watches => write!(f, ", {watches} watches"),
        }
    }
}

/// The three processes of a mirror at one time.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    sender: Held,
    receiver: Held,
    /// The half of the receiver that speaks to the network, if it is a process of its own.
    transport: Held,
    /// In the source, which is like the module.
    directories: usize,
}

impl Sample {
    fn all(&self) -> [Held; 3] {
        [self.sender, self.receiver, self.transport]
    }
}

/// A mirror over a path that fails, with a sender and a receiver that can be killed.
struct Bed {
    site: Site,
    churn: Churn,
    random: Random,
    rough: Rough,
    port: u16,
    target: String,
    sender: Option<Daemon>,
    receiver: Option<Daemon>,
    guard: OnPanic,
}

impl Bed {
    fn new(name: &str, seed: u64) -> Bed {
        let site = Site::new(&["src", "dst", "home-r"]);
        fs::set_permissions(site.path("home-r"), fs::Permissions::from_mode(0o700)).unwrap();
        let port = free_port();
        let rough = Rough::start(([127, 0, 0, 1], port).into(), Weather::default());
        let target = format!(
            "driftless://{}@{}/dst",
            site.fingerprint("home-r"),
            rough.address()
        );
        let churn = Churn::in_tree(site.path("src"), site.path("outside"), seed);
        let mut bed = Bed {
            site,
            churn,
            random: Random(!seed),
            rough,
            port,
            target,
            sender: None,
            receiver: None,
            guard: OnPanic(format!("{name}, seed {seed}"), Vec::new()),
        };
        bed.churn.many(100);
        bed.receive();
        bed.send();
        bed.settle();
        bed
    }

    fn receive(&mut self) {
        // Of one that was killed the half that speaks to the network may live on for a moment.
        support::until("the port is free", || {
            UdpSocket::bind(("127.0.0.1", self.port)).is_ok()
        });
        let line = format!(
            "receive dst --listen 127.0.0.1:{} --allow {} --json",
            self.port,
            self.site.fingerprint("home")
        );
        self.receiver = Some(Daemon::spawn(self.site.command_in("home-r", &line)));
    }

    /// A sender that may not use fanotify, so that it has a watch for each directory.
    fn send(&mut self) {
        let line = format!(
            "send src {} --delete always --max-delete none --json",
            self.target
        );
        let direct = self.site.command(&line);
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.arg("--bounding-set").arg("-sys_admin");
                command.arg(direct.get_program());
                command
            }
            false => Command::new(direct.get_program()),
        };
        command
            .args(direct.get_args())
            .env("DRIFTLESS_HOME", self.site.path("home"))
            .current_dir(self.site.path("src").parent().unwrap())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        self.sender = Some(Daemon::listening(command));
    }

    /// Waits until both trees are equal, by this test's own comparison. How many bytes there were.
    fn settle(&mut self) -> u64 {
        let deadline = Instant::now() + SETTLES;
        loop {
            let (src, dst) = (self.site.path("src"), self.site.path("dst"));
            // A tree that changes while it is read makes the comparison panic; that is only another round.
            let found = std::panic::catch_unwind(|| differences(&src, &dst));
            match found {
                Ok(found) if found.is_empty() => break,
                found => assert!(
                    Instant::now() < deadline,
                    "still different: {found:#?}\nsender: {:#?}\nreceiver: {:#?}",
                    last(self.sender.as_mut()),
                    last(self.receiver.as_mut())
                ),
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        self.guard.1.clear();
        let files = Found::look(&self.site.path("dst")).files;
        // A private name of the receiver may go meanwhile.
        let length = |file| fs::metadata(file).map_or(0, |metadata| metadata.len());
        files.iter().map(length).sum()
    }

    /// Changes while the path fails in one of its ways.
    fn suffer_weather(&mut self) -> &'static str {
        let (weather, what) = match self.random.below(5) {
            0 => (Weather::default().cut(true), "cut"),
            1 => (
                Weather {
                    loss: 20,
                    doubled: 10,
                    late: 10,
                    delay: Duration::from_millis(20),
                    ..Weather::default()
                },
                "loss",
            ),
            2 => (
                Weather {
                    deaf_here: true,
                    ..Weather::default()
                },
                "one way",
            ),
            3 => {
                self.rough.change_address();
                (Weather::default(), "another address")
            }
            _ => (Weather::default(), "fair"),
        };
        self.churn.many(OPERATIONS / 3);
        self.rough.set(weather);
        self.churn.bursts(OPERATIONS / 3);
        std::thread::park_timeout(Duration::from_millis(self.random.below(2_500) as u64));
        self.rough.set(Weather::default());
        self.churn.bursts(OPERATIONS / 3);
        self.note();
        what
    }

    /// Changes while one side or both are killed. How many were.
    fn suffer_kills(&mut self) -> usize {
        let mut kills = 0;
        for _ in 0..2 {
            self.churn.many(OPERATIONS / 3);
            std::thread::park_timeout(Duration::from_millis(self.random.below(400) as u64));
            let whom = self.random.below(3);
            // Dropped is killed.
            if whom != 0 {
                kills += usize::from(self.sender.take().is_some());
            }
            if whom != 1 {
                kills += usize::from(self.receiver.take().is_some());
            }
            self.churn.many(OPERATIONS / 3);
            if self.receiver.is_none() {
                self.receive();
            }
            if self.sender.is_none() {
                self.send();
            }
        }
        self.note();
        kills
    }

    fn note(&mut self) {
        self.guard.1.append(&mut self.churn.log);
    }

    /// What the processes have when all is quiet. The sender has one watch for each directory and the root, if it watches so.
    fn sample(&self) -> Sample {
        let (sender, receiver) = (self.sender.as_ref().unwrap(), self.receiver.as_ref().unwrap());
        let directories = 1 + Found::look(&self.site.path("src")).directories.len();
        if is_root() {
            support::until("there is a watch for each directory and no other", || {
                // One more is for the root itself: whether it is moved.
                let watches = Held::by(sender.process()).watches;
                (directories..=directories + 2).contains(&watches)
            });
        }
        let transport = transport(receiver.process());
        Sample {
            sender: Held::by(sender.process()),
            receiver: Held::by(receiver.process()),
            transport: transport.map(Held::by).unwrap_or_default(),
            directories,
        }
    }
}

/// What it said last.
fn last(daemon: Option<&mut Daemon>) -> Vec<String> {
    let said = daemon.map(Daemon::said_now).unwrap_or_default();
    said[said.len().saturating_sub(12)..].to_vec()
}

/// The child of a receiver that speaks to the network.
fn transport(receiver: u32) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{receiver}/task")).unwrap();
    let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: String = children.collect();
    children
        .split_whitespace()
        .filter_map(|process| process.parse().ok())
        .find(|process: &u32| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).any(|word| word == b"transport")
        })
}

#[test]
fn d_30_nothing_is_lost_and_nothing_grows_however_long_it_lasts() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (minutes, seed) = (number("DRIFTLESS_SOAK"), number("DRIFTLESS_SEED").unwrap_or(30));
    let (mut steady, mut mortal) = (Bed::new("steady", seed), Bed::new("mortal", seed + 1));
    let began = Instant::now();
    let (mut rounds, mut kills, mut compared) = (0, 0, 0);
    let (mut weather, mut samples) = (Vec::new(), Vec::new());
    let mut next = began;
    let is_over = |rounds: usize| match minutes {
        Some(minutes) => began.elapsed() >= MINUTE * minutes as u32,
        None => rounds >= ROUNDS,
    };
    while !is_over(rounds) {
        rounds += 1;
        weather.push(steady.suffer_weather());
        kills += mortal.suffer_kills();
        compared += steady.settle() + mortal.settle();
        if Instant::now() >= next || minutes.is_none() {
            let sample = steady.sample();
            println!(
                "{:4} min, {rounds} rounds, {} directories: sender {}; receiver {}; its network {}",
                began.elapsed().as_secs() / 60,
                sample.directories,
                sample.sender,
                sample.receiver,
                sample.transport
            );
            samples.push(sample);
            next += MINUTE;
        }
    }
    let bad = weather.iter().filter(|weather| **weather != "fair").count();
    println!(
        "{:?}: {rounds} rounds, {bad} with a path that failed, {kills} kills, {compared} bytes compared, none lost",
        began.elapsed()
    );
    check_flat(&samples);
}

/// The first third is for warming up: caches, windows, and what the allocator keeps. Of a directory the daemons may have a handle
/// each.
fn check_flat(samples: &[Sample]) {
    let at = samples.len() / 3;
    let (before, after) = (&samples[..at.max(1)], &samples[at..]);
    for process in 0..3 {
        let most = |samples: &[Sample], of: &dyn Fn(&Sample) -> u64| samples.iter().map(of).max().unwrap();
        let kib = |sample: &Sample| sample.all()[process].kib;
        let (early, late) = (most(before, &kib), most(after, &kib));
        assert!(
            late <= early + early / 2 + (16 << 10),
            "{early} KiB, then {late} KiB"
        );
        let descriptors = |sample: &Sample| {
            sample.all()[process]
                .descriptors
                .saturating_sub(sample.directories) as u64
        };
        let (early, late) = (most(before, &descriptors), most(after, &descriptors));
        assert!(late <= early + 16, "{early} descriptors, then {late}");
    }
}
