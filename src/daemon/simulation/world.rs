//! Everything around the two processes, and who decides what happens next.

mod connections;
mod counts;
mod faults;
mod keeping;
pub(super) mod left;
mod roles;

pub use connections::Services;
pub use counts::Counts;
pub use keeping::Deleting;

use super::edits::{Editor, LASTING, Watched};
use super::process::{Baton, Life, Listener, Role, Start, services, spawn, wait};
use super::tree::{self, Past, TreeDisk};
use crate::daemon::home::Home;
use crate::daemon::{
    DaemonError, Deletes, FailedEntry, Initial, ModuleOptions, Observer, Phase, ReceiverOptions,
    SenderOptions, Stop, TargetOptions, receiver, sender,
};
use crate::engine::pending::WatchEvent;
use crate::fs::simulated::next_random;
use crate::net::apart::{ReceiverSide, SenderSide, ends};
use crate::net::{LinkOptions, Range, ReceiverLink, SenderLink};
use crate::store::simulated::Disk;
use crate::watch::{WatchChoice, WatchOptions};
use connections::{Connection, Exchange};
use crossbeam_channel::Sender;
use driftless_certs::Identity;
use driftless_protocol::message::{OpFrame, OpMessage, ToReceiver, ToSender};
use driftless_protocol::{CloseCode, RelPath, XattrClasses};
use keeping::Keeping;
use roles::{identities, receive, receiver_options, runtime, sender_options};
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

/// What the sender told.
struct Told {
    state: Mutex<Saying>,
    disk: Arc<TreeDisk>,
}

#[derive(Default)]
struct Saying {
    phase: String,
    is_in_sync: bool,
    /// So many deletions wait for somebody's approval.
    held: Option<u64>,
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
        saying.held = match phase {
            Phase::Held { deletions, .. } => Some(*deletions),
            _ => None,
        };
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
    /// The trees differ at first, and that is left as it is.
    pub skips: bool,
    /// How many kinds of edits there are.
    pub kinds: usize,
    /// What may be deleted on the target.
    pub deleting: Deleting,
}

/// One schedule.
pub struct World {
    seed: u64,
    keeping: Keeping,
    is_told: bool,
    is_strict: bool,
    skips: bool,
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
    /// What one of the daemons says that the other one did against the protocol.
    offence: Option<String>,
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
            skips,
            kinds,
            deleting,
        } = plan;
        let directory = tempfile::Builder::new()
            .prefix("driftless-simulation-")
            .tempdir_in("/dev/shm")?;
        let path = |name: &str| directory.path().join(name);
        for name in ["source", "target", "scratch"] {
            fs::create_dir(path(name))?;
        }
        if skips {
            left::fill(&path("source"), &path("target"))?;
        }
        if deleting != Deleting::All {
            keeping::fill(&path("source"))?;
        }
        let past = Arc::new(Mutex::new(Past::default()));
        let disk = Arc::new(TreeDisk::new(path("target"), path("scratch"), past.clone())?);
        let there = disk.look()?.into_values().map(|node| node.what);
        past.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .versions
            .extend(there);
        let watched = Arc::new(Watched::default());
        let listener: Arc<dyn Listener + Send + Sync> = match is_flushing {
            true => disk.clone(),
            false => Arc::new(Forgetful(disk.clone())),
        };
        Ok(World {
            seed,
            keeping: Keeping::new(deleting),
            is_told,
            is_strict,
            skips,
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
            editor: Editor::new(path("source"), watched, past.clone(), (links, kinds))?,
            past,
            told: Arc::new(Told {
                state: Mutex::default(),
                disk: disk.clone(),
            }),
            disk,
            listener,
            errors: 0,
            last_error: String::new(),
            offence: None,
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
        if self.keeping.deleting != Deleting::All {
            return self.run_keeping();
        }
        let first = usize::from(self.skips);
        for round in 0..1 + first + self.random.below(2) {
            let (edits, faults) = (2 + self.random.below(14), self.random.below(5));
            match round < first {
                // What differs by then is left, and nothing else.
                true => self.come_to_rest(0, 0)?,
                false => self.come_to_rest(edits, faults)?,
            }
            self.compare()?;
        }
        Ok(self.counts.clone())
    }

    /// So many edits and faults, and all that follows, until both sides are at rest.
    fn come_to_rest(&mut self, mut edits: usize, mut faults: usize) -> Result<(), String> {
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
                    let told = self.editor.edit(&mut |bound| random.below(bound));
                    let told = told.map_err(|error| error.to_string())?;
                    self.say(|| told);
                    self.keeping.note_edit();
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
            if let Some(text) = self.offence.take() {
                return Err(self.failure(&format!("an offence against the protocol: {text}")));
            }
        }
        Ok(())
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
        let tries_for_ever = self.tries_for_ever();
        let is_done = |role: Role| {
            let part = self.baton.part(role);
            part.is_there && !part.may_go_on && (part.due.is_none() || tries_for_ever)
        };
        to_come == 0
            && (is_done(Role::Sender) || self.keeping.is_refused())
            && is_done(Role::Receiver)
            && self.editor.untold.is_empty()
            && self.services.exchange().is_open
            && self
                .connections
                .iter()
                .all(|connection| connection.is_empty() && !connection.is_broken)
            && (self.told.lock().is_in_sync || self.is_held())
    }

    /// Both trees are equal, and nothing is left over.
    fn compare(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        let (mut source, mut target) = (
            self.editor.look().map_err(failed)?,
            self.disk.look().map_err(failed)?,
        );
        if self.skips {
            let left = left::take_out(&mut source, &mut target, LASTING);
            left.map_err(|text| self.failure(&text))?;
        }
        if let Some(text) = tree::difference(&source, &target) {
            return Err(self.failure(&format!("in sync, but {text}")));
        }
        if let Some(entry) = self.told.lock().failed.first() {
            return Err(self.failure(&format!("in sync, but {} is in error", entry.path)));
        }
        let is_kept_for_it = self.disk.has_made_anew();
        let is_left = |path: &&std::path::PathBuf| {
            tree::is_private(path)
                && path.as_os_str() != ".driftless-generation"
                && !(is_kept_for_it && path.starts_with(".driftless-kept"))
        };
        if let Some(left) = target.keys().find(is_left).filter(|_| self.is_strict) {
            return Err(self.failure(&format!("{} is left", left.display())));
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.lasting = source.into_keys().collect();
        drop(past);
        self.editor.rest();
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
            let mut reasons = near.iter().chain(&far);
            let offence = reasons.find(|(code, _)| *code == CloseCode::Violation);
            self.offence = self
                .offence
                .take()
                .or_else(|| offence.map(|(_, text)| text.clone()));
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
            let is_over = role == Role::Sender && self.keeping.is_refused() && edits + faults == 0;
            if is_over {
                continue;
            }
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
                self.services.watched.note_untold(self.editor.untold.len());
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

    /// Whether everything below the target's root changes at once.
    fn publishes(&self) -> bool {
        self.seed % 4 == 3
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
                let options = self.keeping.start(SenderOptions {
                    initial: self.skips.then_some(Initial::Skip),
                    ..sender_options(home, self.directory.path().join("source"))
                });
                let told = self.told.clone();
                spawn(start, move || {
                    let ended = sender::run(&options, runtime().handle(), told, &Stop::default());
                    ended.map_or_else(|error: DaemonError| error.to_string(), |_| "it ended".to_owned())
                })
            }
            Role::Receiver => {
                self.services.exchange().is_open = true;
                let publish = match self.publishes() {
                    true => vec!["*".parse().expect("a pattern of one level")],
                    false => Vec::new(),
                };
                let options = receiver_options(home, self.directory.path().join("target"), publish);
                spawn(start, move || receive(options))
            }
        };
        self.places[role as usize].thread = Some(thread);
    }
}
