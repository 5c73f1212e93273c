//! Everything around the two processes, and who decides what happens next.

use super::edits::{Editor, Watched};
use super::process::{Baton, Life, Listener, Role, Start, services, spawn, wait};
use super::tree::{self, Past, TreeDisk};
use crate::daemon::home::Home;
use crate::daemon::{
    DaemonError, Deletes, FailedEntry, ModuleOptions, Observer, Phase, ReceiverOptions, SenderOptions, Stop,
    TargetOptions, receiver, sender,
};
use crate::engine::pending::WatchEvent;
use crate::fs::simulated::next_random;
use crate::net::apart::{ReceiverSide, SenderSide, ends};
use crate::net::{LinkOptions, Range, ReceiverLink, SenderLink};
use crate::store::simulated::Disk;
use crate::watch::{WatchChoice, WatchOptions};
use crossbeam_channel::Sender;
use driftless_certs::Identity;
use driftless_protocol::message::{OpFrame, OpMessage, ToReceiver, ToSender};
use driftless_protocol::{CloseCode, RelPath, XattrClasses};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// Steps of a round until both sides have to be at rest.
const STEPS_MAX: u32 = 200_000;
/// How often a process may end in error, as a service manager would start it again.
const ERRORS_MAX: u32 = 50;

/// What was tried.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub schedules: u64,
    pub edits: u64,
    pub crashes: u64,
    pub power_cuts: u64,
    pub names_lost: u64,
    pub contents_lost: u64,
    pub connections: u64,
    pub cuts: u64,
    pub partitions: u64,
    pub overflows: u64,
    pub deliveries: u64,
    pub rests: u64,
}

impl Counts {
    fn each(&self) -> [u64; 12] {
        let Counts {
            schedules,
            edits,
            crashes,
            power_cuts,
            names_lost,
            contents_lost,
            connections,
            cuts,
            partitions,
            overflows,
            deliveries,
            rests,
        } = self.clone();
        [
            schedules,
            edits,
            crashes,
            power_cuts,
            names_lost,
            contents_lost,
            connections,
            cuts,
            partitions,
            overflows,
            deliveries,
            rests,
        ]
    }

    /// Counts what another schedule tried.
    pub fn add(&mut self, other: &Counts) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = other.each();
        self.schedules += a;
        self.edits += b;
        self.crashes += c;
        self.power_cuts += d;
        self.names_lost += e;
        self.contents_lost += f;
        self.connections += g;
        self.cuts += h;
        self.partitions += i;
        self.overflows += j;
        self.deliveries += k;
        self.rests += l;
    }

    /// Fails if a kind of fault was never tried. No content is ever lost that has a name: it is flushed before.
    pub fn check(&self) {
        let tried = Counts {
            contents_lost: 1,
            ..self.clone()
        };
        assert!(
            tried.each().iter().all(|&count| count > 0),
            "nothing was tried of something: {self:?}"
        );
    }
}

/// What both processes are given.
pub struct Services {
    /// What the sender watches.
    pub watched: Arc<Watched>,
    exchange: Mutex<Exchange>,
}

/// Where connections begin.
pub struct Exchange {
    /// There is a way to the receiver, and it runs.
    is_open: bool,
    dialled: Vec<Connection>,
    accepted: VecDeque<ReceiverLink>,
}

impl Services {
    /// Where connections begin.
    pub fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// A connection to the receiver; none if it cannot be reached.
    pub fn dial(&mut self) -> Option<SenderLink> {
        if !self.is_open {
            return None;
        }
        let ((near_link, near), (far_link, far)) = ends(identities().0.fingerprint());
        self.dialled.push(Connection {
            near: Some(near),
            far: Some(far),
            ..Connection::default()
        });
        self.accepted.push_back(far_link);
        Some(near_link)
    }
}

/// A connection, and what is under way on it.
#[derive(Default)]
struct Connection {
    near: Option<SenderSide>,
    far: Option<ReceiverSide>,
    forth: VecDeque<ToReceiver>,
    ops: [VecDeque<OpMessage>; 2],
    ranges: Vec<Range>,
    back: VecDeque<ToSender>,
    /// Nothing passes any more.
    is_broken: bool,
}

impl Connection {
    fn is_empty(&self) -> bool {
        self.forth.is_empty()
            && self.ops.iter().all(VecDeque::is_empty)
            && self.ranges.is_empty()
            && self.back.is_empty()
    }

    /// Takes what the daemons sent.
    fn collect(&mut self, random: &mut Random) {
        if let Some(near) = &self.near {
            self.forth.extend(near.control.try_iter());
            for message in near.ops.try_iter() {
                self.ops[random.below(2)].push_back(message);
            }
            self.ranges.extend(near.ranges.try_iter());
        }
        if let Some(far) = &self.far {
            self.back.extend(far.control.try_iter());
        }
    }

    /// Brings something to where it goes, in the order of its stream. Who is to be woken.
    fn deliver(&mut self, random: &mut Random) -> Option<Role> {
        let first = random.below(5);
        for at in (first..5).chain(0..first) {
            let is_sent = match at {
                0 => self.forth.pop_front().map(|message| {
                    arrive(self.far.as_ref().map(|far| &far.arrive), message);
                    Role::Receiver
                }),
                1 | 2 => {
                    let queue = &mut self.ops[at - 1];
                    let most = queue.len().min(1 + random.below(4));
                    let frame: Vec<OpMessage> = queue.drain(..most).collect();
                    (!frame.is_empty()).then(|| {
                        arrive(self.far.as_ref().map(|far| &far.ops), OpFrame(frame));
                        Role::Receiver
                    })
                }
                3 if self.ranges.is_empty() => None,
                3 => {
                    let range = self.ranges.swap_remove(random.below(self.ranges.len()));
                    arrive(self.far.as_ref().map(|far| &far.ranges), range);
                    Some(Role::Receiver)
                }
                _ => self.back.pop_front().map(|message| {
                    arrive(self.near.as_ref().map(|near| &near.arrive), message);
                    Role::Sender
                }),
            };
            if is_sent.is_some() {
                return is_sent;
            }
        }
        None
    }
}

/// A message reaches an end, if that is still there.
fn arrive<T>(end: Option<&Sender<T>>, message: T) {
    if let Some(end) = end {
        // A daemon that is about to end takes nothing any more.
        let _ = end.send(message);
    }
}

/// What the sender told.
struct Told {
    state: Mutex<Saying>,
    disk: Arc<TreeDisk>,
}

#[derive(Default)]
struct Saying {
    phase: String,
    is_in_sync: bool,
    failed: Vec<FailedEntry>,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Saying> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Told {
    fn phase(&self, phase: &Phase) {
        let mut saying = self.lock();
        saying.phase = format!("{phase:?}");
        saying.is_in_sync = matches!(phase, Phase::InSync { .. });
        if saying.is_in_sync {
            self.disk.note_in_sync();
        }
    }

    fn failed(&self, entries: &[FailedEntry]) {
        self.lock().failed = entries.to_vec();
    }
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        ((next_random(&mut self.0) >> 8) % bound.max(1) as u64) as usize
    }
}

/// A process, or its absence.
struct Place {
    life: Arc<Life>,
    databases: Arc<Disk>,
    thread: Option<JoinHandle<()>>,
    /// It ends soon; whether its machine goes, too.
    doom: Option<bool>,
}

impl Place {
    fn new() -> Place {
        let life = Arc::new(Life::default());
        Place {
            databases: Arc::new(Disk::new(|| true, || false)),
            life,
            thread: None,
            doom: None,
        }
    }
}

/// What kind of schedule it is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What happens is printed.
    pub is_told: bool,
    /// The receiver's disk keeps what is flushed.
    pub is_flushing: bool,
    /// Files get several names.
    pub links: bool,
    /// A private name that is left is a failure.
    pub is_strict: bool,
}

/// One schedule.
pub struct World {
    seed: u64,
    is_told: bool,
    is_strict: bool,
    random: Random,
    now: u64,
    trace: u64,
    counts: Counts,
    baton: Arc<Baton>,
    services: Arc<Services>,
    places: [Place; 2],
    connections: Vec<Connection>,
    editor: Editor,
    past: Arc<Mutex<Past>>,
    disk: Arc<TreeDisk>,
    listener: Arc<dyn Listener + Send + Sync>,
    told: Arc<Told>,
    errors: u32,
    last_error: String,
    directory: TempDir,
}

/// A disk that says of nothing that it was flushed.
struct Forgetful(Arc<TreeDisk>);

impl Listener for Forgetful {
    fn renamed(&self) {
        self.0.renamed();
    }

    fn flushed(&self, _: u64, _: bool) {}

    fn all_flushed(&self) {}
}

/// One of the things that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Run(Role),
    Deliver,
    Edit,
    Tell,
    Fault,
    Break,
    Heal,
    Restart(Role),
    Wait,
}

impl World {
    /// Two trees, one with a file, and nobody who mirrors them yet.
    pub fn new(seed: u64, plan: Plan) -> io::Result<World> {
        let Plan {
            is_told,
            is_flushing,
            links,
            is_strict,
        } = plan;
        let directory = tempfile::Builder::new()
            .prefix("driftless-simulation-")
            .tempdir_in("/dev/shm")?;
        let path = |name: &str| directory.path().join(name);
        for name in ["source", "target", "scratch"] {
            fs::create_dir(path(name))?;
        }
        let past = Arc::new(Mutex::new(Past::default()));
        let disk = Arc::new(TreeDisk::new(path("target"), path("scratch"), past.clone())?);
        let watched = Arc::new(Watched::default());
        let listener: Arc<dyn Listener + Send + Sync> = match is_flushing {
            true => disk.clone(),
            false => Arc::new(Forgetful(disk.clone())),
        };
        Ok(World {
            seed,
            is_told,
            is_strict,
            random: Random(seed),
            now: 1,
            trace: 0,
            counts: Counts {
                schedules: 1,
                ..Counts::default()
            },
            baton: Arc::default(),
            services: Arc::new(Services {
                watched: watched.clone(),
                exchange: Mutex::new(Exchange {
                    is_open: true,
                    dialled: Vec::new(),
                    accepted: VecDeque::new(),
                }),
            }),
            places: [Place::new(), Place::new()],
            connections: Vec::new(),
            editor: Editor::new(path("source"), watched, past.clone(), links)?,
            past,
            told: Arc::new(Told {
                state: Mutex::default(),
                disk: disk.clone(),
            }),
            disk,
            listener,
            errors: 0,
            last_error: String::new(),
            directory,
        })
    }

    /// What happened, as a number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Ends both processes.
    pub fn end(&mut self) {
        for role in [Role::Sender, Role::Receiver] {
            self.places[role as usize].life.end();
            self.baton.kill(role, self.now);
            if let Some(thread) = self.places[role as usize].thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// Some rounds of edits and faults, each until both sides are at rest.
    pub fn run(&mut self) -> Result<Counts, String> {
        let failed = |error: io::Error| error.to_string();
        for _ in 0..1 + self.random.below(2) {
            let (mut edits, mut faults) = (2 + self.random.below(14), self.random.below(5));
            let mut steps = 0;
            while !self.is_at_rest(edits + faults) {
                steps += 1;
                if steps > STEPS_MAX || self.errors > ERRORS_MAX {
                    return Err(self.failure("does not come to rest"));
                }
                match self.choose(edits, faults) {
                    Some(Step::Edit) => {
                        edits -= 1;
                        self.counts.edits += 1;
                        let random = &mut self.random;
                        let told = self
                            .editor
                            .edit(&mut |bound| random.below(bound))
                            .map_err(failed)?;
                        self.say(|| told);
                    }
                    Some(Step::Fault) => {
                        faults -= 1;
                        self.fault()?;
                    }
                    Some(step) => self.take(step)?,
                    None if faults + edits > 0 => (edits, faults) = (0, 0),
                    None => return Err(self.failure("nothing happens any more")),
                }
                let violations = self.disk.violations();
                if let Some(first) = violations.first() {
                    return Err(self.failure(first));
                }
            }
            self.compare()?;
        }
        Ok(self.counts.clone())
    }

    fn failure(&self, what: &str) -> String {
        let saying = self.told.lock();
        format!(
            "seed {}: {what} (the sender: {}, in error: {:?}; last error: {}; {} connections)",
            self.seed,
            saying.phase,
            saying.failed,
            self.last_error,
            self.connections.len()
        )
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>12} us  {}", self.now / 1_000, text());
        }
    }

    fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(5);
    }

    /// Whether the sender says that all is in sync, and nobody has anything left to do.
    fn is_at_rest(&mut self, to_come: usize) -> bool {
        self.collect();
        let is_done = |role: Role| {
            let part = self.baton.part(role);
            part.is_there && !part.may_go_on && part.due.is_none()
        };
        to_come == 0
            && is_done(Role::Sender)
            && is_done(Role::Receiver)
            && self.editor.untold.is_empty()
            && self.services.exchange().is_open
            && self
                .connections
                .iter()
                .all(|connection| connection.is_empty() && !connection.is_broken)
            && self.told.lock().is_in_sync
    }

    /// Both trees are equal, and nothing is left over.
    fn compare(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let (source, target) = (
            self.editor.look().map_err(failed)?,
            self.disk.look().map_err(failed)?,
        );
        if let Some(text) = tree::difference(&source, &target) {
            return Err(self.failure(&format!("in sync, but {text}")));
        }
        if let Some(entry) = self.told.lock().failed.first() {
            return Err(self.failure(&format!("in sync, but {} is in error", entry.path)));
        }
        let is_left = |path: &&std::path::PathBuf| {
            tree::is_private(path) && path.as_os_str() != ".driftless-generation"
        };
        if let Some(left) = target.keys().find(is_left).filter(|_| self.is_strict) {
            return Err(self.failure(&format!("{} is left", left.display())));
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.lasting = source.into_keys().collect();
        self.counts.rests += 1;
        Ok(())
    }

    /// Takes what was sent, and notices which connections have begun and ended.
    fn collect(&mut self) {
        let dialled = std::mem::take(&mut self.services.exchange().dialled);
        self.counts.connections += dialled.len() as u64;
        if !dialled.is_empty() {
            self.baton.wake(Role::Receiver);
        }
        self.connections.extend(dialled);
        for connection in &mut self.connections {
            connection.collect(&mut self.random);
            let near = connection.near.as_ref().and_then(SenderSide::reason);
            let far = connection.far.as_ref().and_then(ReceiverSide::reason);
            if near.is_none() && far.is_none() || connection.is_broken {
                continue;
            }
            // A close overtakes what is under way, or comes after it.
            if self.random.below(2) == 0 {
                while connection.deliver(&mut self.random).is_some() {}
            }
            connection.is_broken = true;
            if let Some((code, text)) = &near
                && let Some(side) = connection.far.take()
            {
                side.end(*code, text);
            }
            if let Some((code, text)) = &far
                && let Some(side) = connection.near.take()
            {
                side.end(*code, text);
            }
            (connection.near, connection.far) = (None, None);
            self.baton.wake(Role::Sender);
            self.baton.wake(Role::Receiver);
        }
        self.connections
            .retain(|connection| connection.near.is_some() || connection.far.is_some());
    }

    fn choose(&mut self, edits: usize, faults: usize) -> Option<Step> {
        let is_open = self.services.exchange().is_open;
        let mut steps: Vec<(Step, usize)> = Vec::new();
        for role in [Role::Sender, Role::Receiver] {
            let part = self.baton.part(role);
            if !part.is_there {
                steps.push((Step::Restart(role), 1));
            } else if part.may_go_on {
                steps.push((Step::Run(role), 6));
            }
        }
        if is_open
            && self
                .connections
                .iter()
                .any(|connection| !connection.is_broken && !connection.is_empty())
        {
            steps.push((Step::Deliver, 8));
        }
        if !self.editor.untold.is_empty() {
            steps.push((Step::Tell, 3));
        }
        if self.connections.iter().any(|connection| connection.is_broken) {
            steps.push((Step::Break, 1));
        }
        if !is_open && self.baton.part(Role::Receiver).is_there {
            steps.push((Step::Heal, 1));
        }
        if edits > 0 {
            steps.push((Step::Edit, 1));
        }
        if faults > 0 && self.counts.edits > 0 {
            steps.push((Step::Fault, 1));
        }
        let is_due = |role| self.baton.part(role).due.is_some();
        if is_due(Role::Sender) || is_due(Role::Receiver) {
            steps.push((Step::Wait, 1));
        }
        let all: usize = steps.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.below(all);
        for (step, weight) in steps {
            if left < weight {
                return Some(step);
            }
            left -= weight;
        }
        None
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Run(role) => {
                self.baton.run(role, self.now);
                self.after_turn(role)?;
            }
            Step::Deliver => {
                let able = |connection: &&mut Connection| !connection.is_broken && !connection.is_empty();
                let count = self.connections.iter_mut().filter(able).count();
                let chosen = self.random.below(count);
                let connection = self.connections.iter_mut().filter(able).nth(chosen);
                if let Some(role) = connection.and_then(|connection| connection.deliver(&mut self.random)) {
                    self.counts.deliveries += 1;
                    self.baton.wake(role);
                }
            }
            Step::Tell => {
                for _ in 0..1 + self.random.below(3) {
                    if let Some(event) = self.editor.untold.pop_front() {
                        self.say(|| format!("told: {event:?}"));
                        self.services.watched.tell(event);
                    }
                }
                self.baton.wake(Role::Sender);
            }
            Step::Break => self.break_one_end(),
            Step::Heal => {
                self.say(|| "the network is back".to_owned());
                self.services.exchange().is_open = true;
            }
            Step::Restart(role) => self.start(role),
            Step::Wait => self.pass_time(),
            Step::Edit | Step::Fault => {}
        }
        let (sender, receiver) = (self.baton.part(Role::Sender), self.baton.part(Role::Receiver));
        let state = [
            sender.may_go_on,
            sender.is_there,
            receiver.may_go_on,
            receiver.is_there,
        ];
        let bits = state.iter().fold(0, |bits, &bit| bits << 1 | u64::from(bit));
        self.note(bits << 48 ^ self.now ^ self.counts.deliveries << 32);
        Ok(())
    }

    /// Until somebody has something to do, or a bit of it.
    fn pass_time(&mut self) {
        let dues = [Role::Sender, Role::Receiver].map(|role| (role, self.baton.part(role).due));
        let Some(first) = dues.iter().filter_map(|(_, due)| *due).min() else {
            return;
        };
        let is_idle = !self.baton.part(Role::Sender).may_go_on && !self.baton.part(Role::Receiver).may_go_on;
        let step = match is_idle {
            true => first.saturating_sub(self.now),
            false => first
                .saturating_sub(self.now)
                .min(self.random.below(50_000_000) as u64),
        };
        self.now += step;
        for (role, due) in dues {
            if due.is_some_and(|due| due <= self.now) {
                self.baton.wake(role);
            }
        }
    }

    /// One end of a broken connection finds out.
    fn break_one_end(&mut self) {
        let Some(connection) = self
            .connections
            .iter_mut()
            .find(|connection| connection.is_broken)
        else {
            return;
        };
        let is_near = connection.far.is_none() || (connection.near.is_some() && self.random.below(2) == 0);
        let text = "the connection was lost";
        if is_near {
            if let Some(side) = connection.near.take() {
                side.end(CloseCode::Done, text);
            }
            self.baton.wake(Role::Sender);
        } else {
            if let Some(side) = connection.far.take() {
                side.end(CloseCode::Done, text);
            }
            self.baton.wake(Role::Receiver);
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        let is_open = self.services.exchange().is_open;
        match self.random.below(10) {
            choice @ 0..=5 => {
                let role = if choice % 2 == 0 {
                    Role::Receiver
                } else {
                    Role::Sender
                };
                let is_power = choice >= 2 && self.random.below(2) == 0;
                let place = &mut self.places[role as usize];
                if self.baton.part(role).is_there && place.doom.is_none() {
                    place.doom = Some(is_power);
                    if self.random.below(4) == 0 {
                        place.life.end();
                    } else {
                        place.life.end_after(self.random.below(25) as u64);
                    }
                    let told = format!("{role:?} will end, with its machine: {is_power}");
                    self.say(|| told);
                    if self.places[role as usize].life.has_ended() {
                        self.after_turn(role)?;
                    }
                }
            }
            6 | 7 => {
                self.counts.cuts += 1;
                self.say(|| "the connection breaks".to_owned());
                for connection in &mut self.connections {
                    connection.is_broken = true;
                }
            }
            8 if is_open => {
                self.counts.partitions += 1;
                self.say(|| "nothing passes".to_owned());
                self.services.exchange().is_open = false;
            }
            _ => {
                self.counts.overflows += 1;
                self.editor.untold.clear();
                self.editor.untold.push_back(WatchEvent::Overflow);
            }
        }
        Ok(())
    }

    /// Buries a process that has ended, whoever ended it.
    fn after_turn(&mut self, role: Role) -> Result<(), String> {
        let has_ended = self.places[role as usize].life.has_ended();
        if has_ended {
            self.baton.kill(role, self.now);
        }
        let part = self.baton.part(role);
        if part.is_there {
            return Ok(());
        }
        if let Some(thread) = self.places[role as usize].thread.take() {
            let _ = thread.join();
        }
        if let Some(outcome) = part.outcome.filter(|_| !has_ended) {
            if outcome.starts_with("panicked") {
                return Err(self.failure(&format!("the {role:?} {outcome}")));
            }
            self.errors += 1;
            self.say(|| format!("{role:?} ended: {outcome}"));
            self.last_error = outcome;
        }
        self.told.lock().is_in_sync &= role != Role::Sender;
        for connection in &mut self.connections {
            connection.is_broken = true;
            match role {
                Role::Sender => connection.near = None,
                Role::Receiver => connection.far = None,
            }
        }
        match role {
            Role::Sender => {
                self.services.watched.end();
                self.editor.untold.clear();
            }
            Role::Receiver => {
                let mut exchange = self.services.exchange();
                exchange.is_open = false;
                exchange.accepted.clear();
            }
        }
        if has_ended {
            self.say(|| format!("{role:?} is gone"));
            self.counts.crashes += 1;
            if self.places[role as usize].doom == Some(true) {
                self.lose_power(role).map_err(|error| error.to_string())?;
            }
        }
        self.places[role as usize].doom = None;
        Ok(())
    }

    fn lose_power(&mut self, role: Role) -> io::Result<()> {
        self.counts.power_cuts += 1;
        let random = &mut self.random;
        self.places[role as usize]
            .databases
            .lose(|| random.below(2) == 0)?;
        let mut lost = (0, 0);
        if role == Role::Receiver {
            lost = self.disk.lose(&mut |bound| random.below(bound))?;
        }
        self.counts.names_lost += lost.0 as u64;
        self.counts.contents_lost += lost.1 as u64;
        self.say(|| {
            format!(
                "{role:?}: the power goes; lost {} changes of names, {} contents",
                lost.0, lost.1
            )
        });
        Ok(())
    }

    fn start(&mut self, role: Role) {
        self.say(|| format!("{role:?} starts"));
        let life = Arc::new(Life::default());
        let databases = {
            let (begin, end) = (life.clone(), life.clone());
            let begin = move || begin.begin_call();
            let place = &mut self.places[role as usize];
            // What the last process left unflushed stays so.
            place.databases = Arc::new(place.databases.pass_on(begin, move || end.has_ended()));
            place.databases.clone()
        };
        self.places[role as usize].life = life.clone();
        let start = Start {
            role,
            baton: self.baton.clone(),
            life,
            databases,
            listener: (role == Role::Receiver).then(|| self.listener.clone()),
            services: self.services.clone(),
            seed: next_random(&mut self.random.0),
        };
        let home = Home::at(self.directory.path().join(format!("{role:?}")));
        let thread = match role {
            Role::Sender => {
                let options = sender_options(home, self.directory.path().join("source"));
                let told = self.told.clone();
                spawn(start, move || {
                    let ended = sender::run(&options, runtime().handle(), told, &Stop::default());
                    ended.map_or_else(|error: DaemonError| error.to_string(), |_| "it ended".to_owned())
                })
            }
            Role::Receiver => {
                self.services.exchange().is_open = true;
                let options = receiver_options(home, self.directory.path().join("target"));
                spawn(start, move || receive(options))
            }
        };
        self.places[role as usize].thread = Some(thread);
    }
}

/// The receiver's process: one connection after the other.
fn receive(options: ReceiverOptions) -> String {
    let receiver = match receiver::Simulated::open(options) {
        Ok(receiver) => receiver,
        Err(error) => return error.to_string(),
    };
    let Some((_, services)) = services::<Services>() else {
        return "not in a simulation".to_owned();
    };
    loop {
        wait(|| !services.exchange().accepted.is_empty(), None);
        let link = services.exchange().accepted.pop_front();
        if let Some(link) = link {
            receiver.serve(&link);
        }
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap())
}

/// Who the sender and the receiver are.
fn identities() -> &'static (Identity, Identity) {
    static IDENTITIES: OnceLock<(Identity, Identity)> = OnceLock::new();
    IDENTITIES.get_or_init(|| (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap()))
}

fn receiver_options(home: Home, target: std::path::PathBuf) -> ReceiverOptions {
    let (sender, receiver) = identities();
    ReceiverOptions {
        home,
        identity: receiver.clone(),
        modules: vec![ModuleOptions {
            name: "module".to_owned(),
            path: target,
            xattrs: XattrClasses::NONE,
            devices: false,
            keeping: Default::default(),
            preallocate: false,
            inplace: false,
            hosts: Default::default(),
            kept_as: Default::default(),
            previous: None,
            upkeep: Default::default(),
        }],
        machine: None,
        listen: ([127, 0, 0, 1], 0).into(),
        allow: vec![sender.fingerprint()],
        link: LinkOptions::default(),
        delta_engine: Default::default(),
    }
}

fn sender_options(home: Home, source: std::path::PathBuf) -> SenderOptions {
    let (sender, receiver) = identities();
    SenderOptions {
        mirror: None,
        home,
        target: TargetOptions {
            display: "simulated::module".to_owned(),
            host: "simulated".to_owned(),
            port: 1,
            fingerprint: receiver.fingerprint(),
            module: "module".to_owned(),
            path: RelPath::root(),
        },
        identity: sender.clone(),
        source,
        follow: true,
        deletes: Deletes::Always,
        delete_limit: None,
        approvals: None,
        requests: None,
        quiet: None,
        delta_engine: None,
        audit: false,
        gate: Default::default(),
        walks: Default::default(),
        transfers: Default::default(),
        readings: None,
        watch: WatchOptions {
            choice: WatchChoice::Poll,
            ..WatchOptions::default()
        },
        pending: Default::default(),
        sparing: Default::default(),
        whole_files: false,
        leaves_root: false,
        taken_as: Default::default(),
        large_files: None,
        append_only: Default::default(),
        filter: crate::engine::filter::Filter::everything(),
        compare: Default::default(),
        look_again: false,
        gives_up: false,
        accept_root: false,
        links: Default::default(),
        modes: Default::default(),
        owners: Default::default(),
        link: LinkOptions::default(),
    }
}
