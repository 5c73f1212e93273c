//! The thread that carries packets between the two TUN devices.
//!
//! One thread serves both directions: a packet written to one device often makes the receiver answer at once,
//! and the answer is then taken in with the next round instead of waking another thread. What costs processor
//! time at these rates is waking up (the more so in a virtual machine), not moving packets.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::counters::LinkCounters;
use super::direction::{Direction, Flow};
use super::error::LinkError;
use super::netns::spawn;
use super::spec::LinkSpec;

/// Packets taken from a device before those that are due go out.
const BATCH: usize = 64;
/// Under load the relay pauses for this many nanoseconds after a round that moved packets, and then handles all
/// that has come up. So a packet may be taken in and delivered late by this much each, far below what shows on
/// a wide-area path, for a fraction of the wake-ups. Rates are not affected.
const PAUSE: u64 = 200_000;
/// Rounds that moved packets and needed no pause after them, one for each [`PATIENCE`] nanoseconds gone by, up
/// to so many at a time. So a few packets now and then, as of a handshake or a question and its answer, are
/// taken in and delivered on time.
const PROMPT_ROUNDS: u64 = 4;
const PATIENCE: u64 = 1_000_000;
/// Room for the largest IP packet there can be.
const PACKET: usize = 65_536;

/// What the relay shows to the outside.
#[derive(Debug, Default)]
struct Gauge {
    counters: Mutex<LinkCounters>,
    failure: Mutex<Option<String>>,
    /// Nothing passes.
    is_cut: AtomicBool,
}

/// A relay at work; stops when dropped.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    gauge: Arc<Gauge>,
    realtime: bool,
}

impl Relay {
    /// Starts to carry packets between the devices `a` and `b`.
    pub(super) fn start(spec: &LinkSpec, a: OwnedFd, b: OwnedFd) -> Result<Relay, LinkError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| LinkError::system("create an event descriptor", error.into()))?;
        let (stop, gauge) = (Arc::new(stop), Arc::<Gauge>::default());
        let (forth, back) = (Direction::new(spec, Flow::AToB), Direction::new(spec, Flow::BToA));
        let (report, realtime) = mpsc::sync_channel(1);
        let (its_stop, its_gauge) = (Arc::clone(&stop), Arc::clone(&gauge));
        let thread = spawn("link-relay", move || {
            let _ = report.send(raise_priority());
            let mut ways = [
                Way {
                    direction: forth,
                    from: &a,
                    to: &b,
                },
                Way {
                    direction: back,
                    from: &b,
                    to: &a,
                },
            ];
            if let Err(failure) = carry(&mut ways, its_stop.as_fd(), &its_gauge) {
                *its_gauge.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
            }
        })?;
        let realtime = realtime.recv().unwrap_or(false);
        Ok(Relay {
            stop,
            thread: Some(thread),
            gauge,
            realtime,
        })
    }

    /// The counters of both directions, for reading or resetting.
    pub(super) fn counters(&self) -> MutexGuard<'_, LinkCounters> {
        self.gauge.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the link, or mends it. Packets that meet a cut vanish, those under way among them, and count nowhere.
    pub(super) fn set_cut(&self, is_cut: bool) {
        self.gauge.is_cut.store(is_cut, Ordering::Release);
    }

    /// Why the relay stopped by itself, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.gauge
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether the thread runs at real-time priority.
    pub(super) fn realtime(&self) -> bool {
        self.realtime
    }

    /// Processor time the thread has used so far. It includes what the kernel does within its system calls,
    /// which is most of the receiving side's protocol work.
    pub(super) fn cpu_time(&self) -> Duration {
        self.thread.as_ref().and_then(thread_cpu_time).unwrap_or_default()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Adding one to a counter that nobody else touches cannot fail.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One direction at work.
struct Way<'a> {
    direction: Direction<Box<[u8]>>,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
}

/// What one round came to.
#[derive(PartialEq)]
enum Round {
    /// There was nothing to do.
    Idle,
    /// Everything there was to do is done.
    Done,
    /// There are more packets to take in.
    More,
}

/// Carries packets until `stop` becomes readable, or tells why it cannot go on.
fn carry(ways: &mut [Way<'_>; 2], stop: BorrowedFd<'_>, gauge: &Gauge) -> Result<(), String> {
    let mut buffer = vec![0; PACKET];
    let start = Instant::now();
    // Nanoseconds since the relay started.
    let now = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // The rounds without a pause still to be had, as the time at which there were none.
    let mut prompt_since = 0;
    loop {
        let mut round = Round::Idle;
        for way in &mut *ways {
            match way.round(&mut buffer, &now, gauge.is_cut.load(Ordering::Acquire))? {
                Round::Idle => {}
                Round::Done if round == Round::More => {}
                moved => round = moved,
            }
        }
        if round != Round::Idle {
            let (forth, back) = (
                ways[0].direction.take_counters(),
                ways[1].direction.take_counters(),
            );
            let mut counters = gauge.counters.lock().unwrap_or_else(PoisonError::into_inner);
            counters.a_to_b.add(forth);
            counters.b_to_a.add(back);
        }
        let mut fds = [
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(ways[0].from, PollFlags::IN),
            PollFd::new(ways[1].from, PollFlags::IN),
        ];
        match round {
            Round::More => wait(&mut fds[..1], Some(0))?,
            Round::Done => {
                let now = now();
                prompt_since = now.saturating_sub(PROMPT_ROUNDS * PATIENCE).max(prompt_since);
                if now - prompt_since >= PATIENCE {
                    prompt_since += PATIENCE;
                    wait(&mut fds[..1], Some(0))?;
                } else {
                    wait(&mut fds[..1], Some(PAUSE))?;
                }
            }
            Round::Idle => {
                let due = ways.iter().filter_map(|way| way.direction.next_due()).min();
                wait(&mut fds, due.map(|due| due.saturating_sub(now())))?;
            }
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
    }
}

impl Way<'_> {
    /// Takes in up to [`BATCH`] packets and delivers all that are due.
    fn round(&mut self, buffer: &mut [u8], now: &impl Fn() -> u64, is_cut: bool) -> Result<Round, String> {
        let mut taken = 0;
        while taken < BATCH {
            match rustix::io::read(self.from, &mut *buffer) {
                Ok(_) if is_cut => taken += 1,
                Ok(length) => {
                    self.direction.push(now(), length, buffer[..length].into());
                    taken += 1;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("reading from the sending side's device: {error}")),
            }
        }
        let mut delivered = false;
        while let Some(packet) = self.direction.pop_due(now()) {
            delivered = true;
            if !is_cut {
                self.deliver(&packet)?;
            }
        }
        Ok(match taken {
            BATCH => Round::More,
            0 if !delivered => Round::Idle,
            _ => Round::Done,
        })
    }

    fn deliver(&mut self, packet: &[u8]) -> Result<(), String> {
        loop {
            match rustix::io::write(self.to, packet) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                // The device is gone for good.
                Err(error @ (Errno::BADFD | Errno::BADF)) => {
                    return Err(format!("writing to the receiving side's device: {error}"));
                }
                // Out of memory, not an IP packet, or the device was taken down in there.
                Err(_) => {
                    self.direction.refused(packet.len());
                    return Ok(());
                }
            }
        }
    }
}

/// Waits for one of `fds`, at most `timeout` nanoseconds.
fn wait(fds: &mut [PollFd<'_>], timeout: Option<u64>) -> Result<(), String> {
    let timeout = timeout.map(|nanos| Timespec {
        tv_sec: (nanos / 1_000_000_000).cast_signed(),
        tv_nsec: (nanos % 1_000_000_000).cast_signed(),
    });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(format!("waiting for packets: {error}")),
    }
}

/// Asks for punctual wake-ups of the calling thread; tells whether it got real-time priority.
///
/// The lowest real-time priority is enough to run before every ordinary program on a machine whose processors
/// the programs under test keep busy. Without it the link still works, only less evenly under load.
fn raise_priority() -> bool {
    // The default of 50 us would be added to each wait; real-time threads have none anyway.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    // SAFETY: a structure of integers, of which musl has more than glibc.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    // SAFETY: the pointer is to a valid structure that lives across the call; 0 names the calling thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameters) };
    result == 0
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the type of a thread is another one with musl"
)]
fn thread_cpu_time(thread: &JoinHandle<()>) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the handle is not joined yet, so the thread id is valid even if the thread has ended; `clock` is
    // a valid place for the answer.
    if unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t() as libc::pthread_t, &mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer; an unknown clock is reported as an error.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return None;
    }
    Some(Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    ))
}
