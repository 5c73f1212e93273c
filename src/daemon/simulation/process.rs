//! A simulated process: one thread, that runs only when it is its turn, and has everything that a daemon's other threads would
//! do done by itself, in an order that its seed decides.

use crate::fs::simulated::{next_random, set_seed, set_time};
use crate::fs::{Call, Disk, with_disk};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Something that is done on another thread outside of simulations, one piece at a call; false if there is nothing to do.
pub type Work = Box<dyn FnMut() -> bool>;

/// One of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// That of the sender.
    Sender,
    /// That of the receiver.
    Receiver,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Baton {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The process that runs; none while it is the scheduler's turn.
    running: Option<Role>,
    parts: [Part; 2],
}

/// Where a process stands.
#[derive(Debug, Default, Clone)]
pub struct Part {
    /// Its thread has not ended.
    pub is_there: bool,
    /// It has something to do.
    pub may_go_on: bool,
    /// When it will have something to do, in nanoseconds since the beginning.
    pub due: Option<u64>,
    /// How it ended by itself.
    pub outcome: Option<String>,
    now: u64,
    is_killed: bool,
}

/// The life of a process.
#[derive(Debug)]
pub struct Life {
    has_ended: AtomicBool,
    /// Calls that it may still make; below zero for any number.
    calls_left: AtomicI64,
}

impl Default for Life {
    fn default() -> Life {
        Life {
            has_ended: AtomicBool::new(false),
            calls_left: AtomicI64::new(-1),
        }
    }
}

impl Life {
    /// It ends right before the call after so many others.
    pub fn end_after(&self, calls: u64) {
        self.calls_left.store(calls as i64, Ordering::Relaxed);
    }

    /// It ends now.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// A call is about to be made; false if it never is.
    pub fn begin_call(&self) -> bool {
        let left = self.calls_left.load(Ordering::Relaxed);
        if left == 0 {
            self.end();
        } else if left > 0 {
            self.calls_left.store(left - 1, Ordering::Relaxed);
        }
        !self.has_ended()
    }
}

/// Who is told of a process's calls, beside its life.
pub trait Listener {
    /// A name was changed.
    fn renamed(&self);
    /// This inode is on stable storage; with it all names, if it is a directory.
    fn flushed(&self, inode: u64, is_directory: bool);
    /// Everything is.
    fn all_flushed(&self);
}

struct Calls {
    life: Arc<Life>,
    listener: Option<Arc<dyn Listener + Send + Sync>>,
}

impl Disk for Calls {
    fn begin(&self, _: Call) -> bool {
        self.life.begin_call()
    }

    fn renamed(&self) {
        if let Some(listener) = &self.listener {
            listener.renamed();
        }
    }

    fn flushed(&self, file: BorrowedFd<'_>) {
        if let Some(listener) = &self.listener
            && let Ok(stat) = rustix::fs::fstat(file)
        {
            let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
            listener.flushed(stat.st_ino, is_directory);
        }
    }

    fn all_flushed(&self) {
        if let Some(listener) = &self.listener {
            listener.all_flushed();
        }
    }
}

/// What a thread of a simulation knows of itself.
struct Process {
    role: Role,
    baton: Arc<Baton>,
    life: Arc<Life>,
    services: Arc<dyn Any + Send + Sync>,
    random: Cell<u64>,
    work: RefCell<Vec<(u64, Work)>>,
    next_work: Cell<u64>,
}

thread_local! {
    static PROCESS: RefCell<Option<Rc<Process>>> = const { RefCell::new(None) };
}

/// What a killed process's thread is unwound with.
struct Killed;

fn current() -> Option<Rc<Process>> {
    PROCESS
        .try_with(|process| process.borrow().clone())
        .ok()
        .flatten()
}

/// Whether this thread belongs to a simulation.
pub fn is_here() -> bool {
    current().is_some()
}

/// What the process was started with, and its role.
pub fn services<T: Send + Sync + 'static>() -> Option<(Role, Arc<T>)> {
    let process = current()?;
    let services = process.services.clone().downcast().ok()?;
    Some((process.role, services))
}

/// Has work done at this process's waits from now on.
pub fn lend(work: impl FnOnce() -> Work) {
    if let Some(process) = current() {
        process.add(work());
    }
}

/// Has work done at this process's waits, until the answer is dropped. None outside of simulations.
pub fn take_over(work: impl FnOnce() -> Vec<Work>) -> Option<Lent> {
    let process = current()?;
    let numbers = work().into_iter().map(|work| process.add(work)).collect();
    Some(Lent(numbers))
}

/// Work that ends when this does.
pub struct Lent(Vec<u64>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(process) = current() {
            process
                .work
                .borrow_mut()
                .retain(|(number, _)| !self.0.contains(number));
        }
    }
}

/// Waits, if this thread belongs to a simulation; false if it does not. What is to be done elsewhere is done meanwhile.
pub fn wait(mut is_ready: impl FnMut() -> bool, until: Option<Instant>) -> bool {
    let Some(process) = current() else { return false };
    loop {
        let choice = process.next_random();
        if process.life.has_ended() || choice % 4 == 0 {
            // Others come first, whatever there is to do here.
            process.pause(true, None);
        } else if choice % 4 == 1 && process.work_once() {
            continue;
        }
        if is_ready() || until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        if !process.work_once() {
            process.pause(false, until);
        }
    }
}

impl Process {
    fn next_random(&self) -> u64 {
        let mut state = self.random.get();
        let number = next_random(&mut state);
        self.random.set(state);
        number >> 8
    }

    fn add(&self, work: Work) -> u64 {
        let number = self.next_work.replace(self.next_work.get() + 1);
        self.work.borrow_mut().push((number, work));
        number
    }

    /// Does a piece of work, any of those that there are.
    fn work_once(&self) -> bool {
        let mut all = std::mem::take(&mut *self.work.borrow_mut());
        let first = self.next_random() as usize % all.len().max(1);
        let order = (first..all.len()).chain(0..first);
        let mut is_done = false;
        for at in order {
            is_done = (all[at].1)();
            if is_done {
                break;
            }
        }
        let added = self.work.replace(all);
        self.work.borrow_mut().extend(added);
        is_done
    }

    /// Lets others run, until it is this process's turn again.
    fn pause(&self, may_go_on: bool, until: Option<Instant>) {
        let now = Instant::now();
        let mut state = self.baton.lock();
        let part = &mut state.parts[self.role as usize];
        part.may_go_on = may_go_on;
        part.due = until.map(|until| part.now + until.saturating_duration_since(now).as_nanos() as u64);
        state.running = None;
        self.baton.changed.notify_all();
        self.begin_turn(state);
    }

    fn begin_turn(&self, state: MutexGuard<'_, State>) {
        let state = self
            .baton
            .changed
            .wait_while(state, |state| state.running != Some(self.role))
            .unwrap_or_else(PoisonError::into_inner);
        let part = &state.parts[self.role as usize];
        set_time(part.now);
        let is_killed = part.is_killed;
        drop(state);
        if is_killed {
            resume_unwind(Box::new(Killed));
        }
    }
}

impl Baton {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a process stands.
    pub fn part(&self, role: Role) -> Part {
        self.lock().parts[role as usize].clone()
    }

    /// Something happened that a process may be waiting for.
    pub fn wake(&self, role: Role) {
        self.lock().parts[role as usize].may_go_on = true;
    }

    /// Lets a process run until it waits or ends.
    pub fn run(&self, role: Role, now: u64) {
        let mut state = self.lock();
        if !state.parts[role as usize].is_there {
            return;
        }
        state.parts[role as usize].now = now;
        state.running = Some(role);
        self.changed.notify_all();
        drop(
            self.changed
                .wait_while(state, |state| state.running.is_some())
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Unwinds a process's thread.
    pub fn kill(&self, role: Role, now: u64) {
        self.lock().parts[role as usize].is_killed = true;
        self.run(role, now);
    }
}

/// What a process is started with.
pub struct Start {
    /// Which it is.
    pub role: Role,
    /// Whose turn it is.
    pub baton: Arc<Baton>,
    /// Its life.
    pub life: Arc<Life>,
    /// Its databases' disk.
    pub databases: Arc<crate::store::simulated::Disk>,
    /// Who hears of its calls.
    pub listener: Option<Arc<dyn Listener + Send + Sync>>,
    /// What [`services`] answers.
    pub services: Arc<dyn Any + Send + Sync>,
    /// What its random numbers follow from.
    pub seed: u64,
}

/// Starts a process; it waits for its first turn.
pub fn spawn(start: Start, main: impl FnOnce() -> String + Send + 'static) -> JoinHandle<()> {
    let Start {
        role,
        baton,
        life,
        databases,
        listener,
        services,
        seed,
    } = start;
    baton.lock().parts[role as usize] = Part {
        is_there: true,
        may_go_on: true,
        ..Part::default()
    };
    std::thread::spawn(move || {
        set_seed(seed);
        databases.install();
        with_disk(Rc::new(Calls {
            life: life.clone(),
            listener,
        }));
        let process = Rc::new(Process {
            role,
            baton: baton.clone(),
            life,
            services,
            random: Cell::new(seed ^ 0x5eed),
            work: RefCell::default(),
            next_work: Cell::new(0),
        });
        PROCESS.set(Some(process.clone()));
        let run = || {
            process.begin_turn(baton.lock());
            main()
        };
        let outcome = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(outcome) => Some(outcome),
            Err(panic) if panic.is::<Killed>() => None,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Some(format!("panicked: {}", text.unwrap_or_default()))
            }
        };
        drop(std::mem::take(&mut *process.work.borrow_mut()));
        PROCESS.set(None);
        let mut state = baton.lock();
        state.parts[role as usize].is_there = false;
        state.parts[role as usize].outcome = outcome;
        state.running = None;
        baton.changed.notify_all();
    })
}
