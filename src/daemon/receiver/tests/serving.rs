//! Connections to a receiver without a network, and what others do with its modules meanwhile.

use super::super::look::How;
use super::super::slots::{Slot, Tenant};
use super::super::{Entrance, ReceiverDaemon, Shared, lock};
use super::{attributes, place};
use crate::daemon::home::Home;
use crate::daemon::upkeep::{DriftWatch, Upkeep};
use crate::daemon::{ModuleOptions, ReceiverOptions};
use crate::net::LinkOptions;
use crate::net::apart::{ReceiverSide, ends};
use crate::store::{Binding, CatalogRead};
use driftless_certs::{Fingerprint, Grant, Identity, Peer, TrustStore};
use driftless_protocol::message::{
    Directories, ModuleName, Op, OpBody, OpFrame, OpMessage, Open, Paths, Purpose, Recheck, Relays, Sparing,
    ToReceiver, ToSender,
};
use driftless_protocol::{Carried, CloseCode, Digest, ObjectId, RelPath, XattrClasses};
use std::fs;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous: others use this machine, too.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    directory: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("module/a")).unwrap();
        Site {
            directory,
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    fn home(&self) -> Home {
        Home::at(self.directory.path().join("home"))
    }

    fn module(&self) -> ModuleOptions {
        ModuleOptions {
            name: "m".to_owned(),
            path: self.directory.path().join("module"),
            xattrs: XattrClasses::NONE,
            devices: false,
            keeping: Default::default(),
            preallocate: false,
            publish: Vec::new(),
            inplace: false,
            hosts: Default::default(),
            kept_as: Default::default(),
            previous: None,
            upkeep: Upkeep {
                scrub: None,
                drift_watch: Some(DriftWatch::Alarm),
            },
        }
    }

    /// A receiver that listens nowhere.
    fn start(&self, allow: Vec<Fingerprint>) -> ReceiverDaemon {
        self.start_with(allow, LinkOptions::default())
    }

    fn start_with(&self, allow: Vec<Fingerprint>, link: LinkOptions) -> ReceiverDaemon {
        let options = ReceiverOptions {
            home: self.home(),
            identity: Identity::ephemeral().unwrap().into(),
            modules: vec![self.module()],
            machine: None,
            listen: ([127, 0, 0, 1], 0).into(),
            allow,
            link,
            delta_engine: Default::default(),
        };
        let entrance = Entrance {
            listens: false,
            ..Entrance::default()
        };
        ReceiverDaemon::start_behind(options, entrance, self.runtime.handle()).unwrap()
    }

    /// Somebody once mirrored to `a`, which has a file of number 10.
    fn bind(&self, shared: &Arc<Shared>, peer: Fingerprint) {
        let key = ("m".to_owned(), path("a"));
        let (_, (link, _side)) = ends(peer);
        let module = shared.module("m").unwrap();
        fs::write(self.directory.path().join("module/a/f"), "content").unwrap();
        let tenant = Tenant::passing(&link, &opening(Purpose::Mirror, "a"), &module);
        let (mut replica, is_new) = shared.take(&key, &module, tenant, Recheck::Nothing).unwrap();
        assert!(is_new);
        let catalog = replica.catalog.clone();
        catalog
            .update(true, |t| {
                assert!(replica.adopt(t, &place(1, "f"), ObjectId(10)).is_ok());
                let mut entry = t.get(ObjectId(10))?.unwrap();
                entry.digest = Some(Digest::of(b"content"));
                replica.put(t, &entry)
            })
            .unwrap();
        let binding = Binding {
            mirror: 1,
            peer: *peer.as_bytes(),
            source: "/source".to_owned(),
            carried: Carried::default(),
            generation: replica.state.generation().unwrap(),
        };
        replica.state.bind(&binding).unwrap();
        replica.write_generation().unwrap();
        replica.commit_durably(None, true).unwrap();
        drop(catalog);
        shared.put_back(key, &module, replica);
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn opening(purpose: Purpose, at: &str) -> Open {
    Open {
        purpose,
        module: ModuleName(b"m".to_vec()),
        path: path(at),
        mirror: 2,
        source: "/another".into(),
        incarnation: 0,
        carried: Carried::default(),
        sum: None,
        protects: false,
        sparing: Sparing::default(),
        whole_files: false,
        recheck: Recheck::Nothing,
        upstream: Relays::default(),
        engine: None,
    }
}

/// A peer connects and says what it wants.
fn connect(daemon: &ReceiverDaemon, peer: Fingerprint, open: Open) -> (ReceiverSide, JoinHandle<()>) {
    let (_, (link, side)) = ends(peer);
    let shared = daemon.shared.clone();
    side.arrive.send(ToReceiver::Open(open)).unwrap();
    (side, std::thread::spawn(move || shared.serve(&link)))
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The sender may have slept, or nothing may have passed: it tries again by itself.
#[test]
fn a_sender_whose_opening_does_not_come_is_no_offender() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let hasty = LinkOptions {
        hello_timeout: Duration::ZERO,
        ..LinkOptions::default()
    };
    let daemon = site.start_with(vec![peer], hasty);
    let (_, (link, side)) = ends(peer);
    daemon.shared.serve(&link);
    let (code, text) = side.reason().unwrap();
    assert!(code.is_temporary(), "{code:?}: {text}");
    daemon.stop();
}

/// Slots are locked for as long as a module is being forgotten, for example.
#[test]
fn a_right_that_is_taken_away_ends_with_the_slots_locked() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let trust = || TrustStore::open(&site.home().peers_file()).unwrap();
    fs::create_dir_all(site.directory.path().join("home")).unwrap();
    trust()
        .add(Peer {
            name: "laptop".to_owned(),
            fingerprint: peer,
            modules: vec![Grant::all("m")],
            added: 1,
            expires: None,
            address: None,
        })
        .unwrap();
    let daemon = site.start(Vec::new());
    let (side, session) = connect(&daemon, peer, opening(Purpose::Verify, ""));
    assert!(matches!(
        side.control.recv_timeout(PATIENCE),
        Ok(ToSender::Opened(_))
    ));
    let slots = lock(&daemon.shared.slots);
    trust().remove("laptop").unwrap();
    until("its connection is ended", || side.reason().is_some());
    assert_eq!(side.reason().unwrap().0, CloseCode::NotAllowed);
    drop(slots);
    drop(side);
    session.join().unwrap();
    daemon.stop();
}

/// At a start nobody has opened the paths of a module. The root's catalog knows the files, but not what their mirror put there.
#[test]
fn doubts_about_a_path_reach_the_mirror_that_sends_there_after_a_restart() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let daemon = site.start(vec![peer]);
    site.bind(&daemon.shared, peer);
    daemon.stop();
    let daemon = site.start(vec![peer]);
    assert!(lock(&daemon.shared.slots).contains_key(&("m".to_owned(), RelPath::root())));
    let (side, session) = connect(&daemon, peer, opening(Purpose::Verify, "a"));
    side.arrive
        .send(ToReceiver::Doubt(Paths(vec![path("f")])))
        .unwrap();
    let mut answers = side.control.iter();
    assert!(answers.any(|answer| matches!(answer, ToSender::Doubted { changed: 1 })));
    let slots = lock(&daemon.shared.slots);
    let Some(Slot::Idle(replica)) = slots.get(&("m".to_owned(), path("a"))) else {
        panic!("the path is not open: {:?}", slots.keys());
    };
    let known = replica
        .catalog
        .read(|view| view.get(ObjectId(10)))
        .unwrap()
        .unwrap();
    assert_eq!(known.digest, None);
    assert!(replica.wants_comparison);
    drop(slots);
    // It is looked after like any that a sender opened.
    until("it is watched", || {
        let reports = daemon.shared.drift.reports("m");
        reports
            .iter()
            .any(|report| report.path == "a" && !report.watcher.is_empty())
    });
    drop(side);
    session.join().unwrap();
    daemon.stop();
}

#[test]
fn a_path_that_somebody_else_may_not_have_forgotten_is_looked_after_on() {
    let site = Site::new();
    let [owner, other] = [(); 2].map(|()| Identity::ephemeral().unwrap().fingerprint());
    let daemon = site.start(vec![owner, other]);
    site.bind(&daemon.shared, owner);
    // As after a restart: nobody has it open.
    lock(&daemon.shared.slots).clear();
    let (side, session) = connect(&daemon, other, opening(Purpose::Forget, "a"));
    session.join().unwrap();
    let (code, text) = side.reason().unwrap();
    assert!(
        code == CloseCode::Busy && text.contains("which alone may end it"),
        "{text}"
    );
    until("it is watched", || {
        let reports = daemon.shared.drift.reports("m");
        reports
            .iter()
            .any(|report| report.path == "a" && !report.watcher.is_empty())
    });
    fs::write(site.directory.path().join("module/a/f"), "edited").unwrap();
    until("an edit is told", || {
        let reports = daemon.shared.drift.reports("m");
        reports
            .iter()
            .any(|report| report.path == "a" && report.edits == 1)
    });
    drop(side);
    daemon.stop();
}

/// What an earlier run kept is taken over by the start of a path that is bound. If it is wrong, it lasts until a sender finds that
/// the sums differ, and asks for what is here.
#[test]
fn a_kept_sum_is_taken_over_and_counted_again_before_a_comparison() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let daemon = site.start(vec![peer]);
    site.bind(&daemon.shared, peer);
    let key = ("m".to_owned(), path("a"));
    let (right, wrong) = {
        let mut slots = lock(&daemon.shared.slots);
        let Some(Slot::Idle(replica)) = slots.get_mut(&key) else {
            panic!("the path is not open: {:?}", slots.keys());
        };
        // As in a session: this module takes less than this process can set.
        let carried = Carried {
            devices: false,
            xattrs: XattrClasses::NONE,
            ..replica.can_carry()
        };
        replica.set_carried(carried).unwrap();
        let right = replica.ledger.fold();
        let entry = replica
            .catalog
            .read(|view| view.get(ObjectId(10)))
            .unwrap()
            .unwrap();
        let stray = crate::store::Entry {
            object: ObjectId(77),
            ..entry
        };
        replica.ledger.replace(None, Some(&stray));
        replica.commit_durably(None, true).unwrap();
        (right, replica.ledger.fold())
    };
    assert_ne!(right, wrong);
    daemon.stop();

    let daemon = site.start(vec![peer]);
    let open = Open {
        mirror: 1,
        source: "/source".into(),
        carried: Carried {
            owner: true,
            devices: true,
            ..Carried::default()
        },
        ..opening(Purpose::Mirror, "a")
    };
    let (side, session) = connect(&daemon, peer, open);
    let Ok(ToSender::Opened(opened)) = side.control.recv_timeout(PATIENCE) else {
        panic!("it was not opened: {:?}", side.reason());
    };
    assert!(opened.bound);
    assert_eq!(opened.sum, wrong, "it was counted anew by the start");
    let root = Directories(vec![ObjectId::ROOT]);
    side.arrive.send(ToReceiver::List(root)).unwrap();
    let mut answers = side.control.iter();
    assert!(answers.any(|answer| matches!(answer, ToSender::Listing { .. })));
    drop(side);
    session.join().unwrap();
    let slots = lock(&daemon.shared.slots);
    let Some(Slot::Idle(replica)) = slots.get(&key) else {
        panic!("the path is not open: {:?}", slots.keys());
    };
    assert_eq!(replica.ledger.fold(), right);
    drop(slots);
    daemon.stop();
}

/// To a sender whose connection broke before it had sent anything the target is what it was at the first one: not known to it.
#[test]
fn a_mirror_is_known_when_it_has_sent_something() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let daemon = site.start(vec![peer]);
    let connects = || {
        let (side, session) = connect(&daemon, peer, opening(Purpose::Mirror, "a"));
        let Ok(ToSender::Opened(opened)) = side.control.recv_timeout(PATIENCE) else {
            panic!("it was not opened: {:?}", side.reason());
        };
        let root = Directories(vec![ObjectId::ROOT]);
        side.arrive.send(ToReceiver::List(root)).unwrap();
        let mut answers = side.control.iter();
        assert!(answers.any(|answer| matches!(answer, ToSender::Listing { .. })));
        (opened.bound, side, session)
    };
    let ends = |side: ReceiverSide, session: JoinHandle<()>| {
        drop(side);
        session.join().unwrap();
    };
    for _ in 0..2 {
        let (is_known, side, session) = connects();
        assert!(!is_known, "it has sent nothing");
        ends(side, session);
    }
    let (is_known, side, session) = connects();
    assert!(!is_known);
    let mark = Op {
        number: 1,
        after: 0,
        barrier: false,
        body: OpBody::Mark { sequence: 1 },
        xattrs: Default::default(),
    };
    side.ops.send(OpFrame(vec![OpMessage::Op(mark)])).unwrap();
    let mut answers = side.control.iter();
    assert!(answers.any(|answer| matches!(answer, ToSender::Progress(_))));
    ends(side, session);
    let (is_known, side, session) = connects();
    assert!(is_known);
    ends(side, session);
    daemon.stop();
}

/// A path is taken before it is walked. If that fails, the next one may have it.
#[test]
fn a_path_that_cannot_be_opened_is_free_again() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let daemon = site.start(vec![peer]);
    let at = site.directory.path().join("module/a/file");
    fs::write(&at, attributes().mode.to_string()).unwrap();
    let (side, session) = connect(&daemon, peer, opening(Purpose::Mirror, "a/file"));
    session.join().unwrap();
    assert_eq!(side.reason().unwrap().0, CloseCode::Unable);
    assert!(!lock(&daemon.shared.slots).values().any(Slot::is_taken));
    fs::remove_file(&at).unwrap();
    let (side, session) = connect(&daemon, peer, opening(Purpose::Mirror, "a/file"));
    assert!(matches!(
        side.control.recv_timeout(PATIENCE),
        Ok(ToSender::Opened(_))
    ));
    assert!(at.is_dir());
    drop(side);
    session.join().unwrap();
    daemon.stop();
}

/// Whoever is to end does not wait for an answer that nobody gives any more.
#[test]
fn a_patrol_that_ends_waits_for_no_session() {
    let site = Site::new();
    let peer = Identity::ephemeral().unwrap().fingerprint();
    let daemon = site.start(vec![peer]);
    let shared = daemon.shared.clone();
    let module = shared.module("m").unwrap();
    let (_, (link, _side)) = ends(peer);
    let (looks, _unheard) = crossbeam_channel::bounded(1);
    let tenant = Tenant {
        looks,
        ..Tenant::passing(&link, &opening(Purpose::Mirror, ""), &module)
    };
    let key = ("m".to_owned(), RelPath::root());
    let (replica, _) = shared.take(&key, &module, tenant, Recheck::Nothing).unwrap();
    let stop = crate::daemon::Stop::default();
    let waiting = {
        let (shared, stop) = (shared.clone(), stop.clone());
        std::thread::spawn(move || shared.look_at("m", &RelPath::root(), &[path("a")], How::Tell, &stop))
    };
    until("it asks", || !_unheard.is_empty());
    let began = Instant::now();
    stop.request();
    assert!(waiting.join().unwrap().is_err());
    assert!(began.elapsed() < PATIENCE / 2, "it waited for the session");
    shared.put_back(key, &module, replica);
    daemon.stop();
}
