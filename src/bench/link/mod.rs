//! The emulated wide-area link of the bench: two private network namespaces, joined by a relay in this process.
//!
//! Each side is a network namespace with a loopback and a TUN device. Whatever a program in one namespace sends
//! to the other's address leaves through its TUN device as IP packets of at most [`MTU`] bytes, which the relay
//! reads, passes through a [`Direction`] (queue, rate, loss, delay, jitter, reordering) and writes to the other
//! TUN device. It works on IP packets, so TCP and UDP meet the same link. The kernel's own emulator (netem) is
//! not needed, nor is any program.
//!
//! The namespaces have no names and are held by descriptors only: when the process ends, even by SIGKILL, the
//! kernel removes them with everything in them. Programs started in one live on, but have no network then.
//!
//! ```ignore
//! let emulator = Emulator::start("w1,seed=7".parse::<Link>()?)?;
//! let mut server = emulator.command(Side::B, "rsync");
//! server.args(["--daemon", "--no-detach"]).arg(format!("--address={}", emulator.side(Side::B).address()));
//! let bytes_up = emulator.counters()?.sent_by(Side::A).bytes_in;
//! ```

mod counters;
mod direction;
mod error;
mod netns;
mod parse;
mod relay;
mod route;
mod spec;
mod tcp;
mod tun;

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::counters::{Counters, LinkCounters};
pub use self::direction::{Direction, EARLY, Flow, Verdict};
pub use self::error::LinkError;
pub use self::spec::{Fraction, Link, LinkSpec, MIN_QUEUE, MTU, Queue, SpecError};
pub use self::tcp::TcpSettings;

use self::netns::Namespace;
use self::relay::Relay;

const ADDRESS_A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ADDRESS_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one, by convention the sending side.
    A,
    /// The other, by convention the receiving side.
    B,
}

/// A link at work. Dropping it stops the relay and closes both sides' networks.
///
/// For [`Link::Loop`] there are no namespaces and no relay: both sides are this machine's own network at
/// 127.0.0.1, commands and threads start in it unchanged, and all counters stay zero. It needs no privilege.
#[derive(Debug)]
pub struct Emulator {
    link: Link,
    a: Endpoint,
    b: Endpoint,
    relay: Option<Relay>,
}

impl Emulator {
    /// Makes both sides and starts to carry packets between them.
    ///
    /// # Errors
    /// When a setting is out of range, when the privilege or the TUN driver is missing ([`LinkError`] says what
    /// to do), and when the system refuses anything else.
    pub fn start(link: impl Into<Link>) -> Result<Emulator, LinkError> {
        let link = link.into();
        let Link::Wan(spec) = link else {
            let side = || Endpoint::new(Ipv4Addr::LOCALHOST, None);
            return Ok(Emulator {
                link,
                a: side(),
                b: side(),
                relay: None,
            });
        };
        spec.validate()?;
        let in_flight = spec.bdp_bytes().saturating_add(spec.queue_bytes());
        let (a, tun_a) = Endpoint::create(ADDRESS_A, in_flight)?;
        let (b, tun_b) = Endpoint::create(ADDRESS_B, in_flight)?;
        let relay = Relay::start(&spec, tun_a, tun_b)?;
        Ok(Emulator {
            link,
            a,
            b,
            relay: Some(relay),
        })
    }

    /// The link this emulates.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link
    }

    /// One side of the link.
    #[must_use]
    pub fn side(&self, side: Side) -> &Endpoint {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }

    /// A command that starts `program` in the network of `side`. See [`Endpoint::command`].
    pub fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        self.side(side).command(program)
    }

    /// Runs `work` on a new thread in the network of `side`. See [`Endpoint::run`].
    ///
    /// # Errors
    /// When the thread cannot be started or cannot enter the network.
    pub fn run_in<T, F>(&self, side: Side, work: F) -> Result<JoinHandle<T>, LinkError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.side(side).run(work)
    }

    /// Lets new TCP connections of both sides use the congestion control `name`, for example `cubic`.
    ///
    /// # Errors
    /// When the kernel has no such congestion control (the error lists what it has), and for [`Link::Loop`].
    pub fn set_congestion_control(&self, name: &str) -> Result<(), LinkError> {
        self.a.set_congestion_control(name)?;
        self.b.set_congestion_control(name)
    }

    /// What has passed over the link since it started or since [`Emulator::reset_counters`].
    ///
    /// # Errors
    /// When the relay has stopped by itself, so that whatever was measured is void.
    pub fn counters(&self) -> Result<LinkCounters, LinkError> {
        let Some(relay) = &self.relay else {
            return Ok(LinkCounters::default());
        };
        if let Some(failure) = relay.failure() {
            return Err(LinkError::Relay(failure));
        }
        let mut counters = *relay.counters();
        counters.a_to_b.packets_unread = self.a.unread_packets(false);
        counters.b_to_a.packets_unread = self.b.unread_packets(false);
        Ok(counters)
    }

    /// Sets all counters to zero. Packets under way then count when delivered, though not as sent.
    pub fn reset_counters(&self) {
        if let Some(relay) = &self.relay {
            *relay.counters() = LinkCounters::default();
            self.a.unread_packets(true);
            self.b.unread_packets(true);
        }
    }

    /// Cuts the link, so that nothing passes in either direction, or mends it. [`Link::Loop`] cannot be cut.
    pub fn set_cut(&self, is_cut: bool) {
        if let Some(relay) = &self.relay {
            relay.set_cut(is_cut);
        }
    }

    /// Processor time the relay has used since the start. Most of it is the kernel's: a packet written to a TUN
    /// device passes through the receiving side's protocols within that call.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.relay.as_ref().map_or(Duration::ZERO, Relay::cpu_time)
    }

    /// Whether the relay runs at real-time priority, and so stays punctual when all processors are busy.
    #[must_use]
    pub fn realtime(&self) -> bool {
        self.relay.as_ref().is_none_or(Relay::realtime)
    }
}

/// One side of a link: an address and the network it is in.
#[derive(Debug)]
pub struct Endpoint {
    address: Ipv4Addr,
    /// `None` for the machine's own network.
    namespace: Option<Arc<Namespace>>,
    /// What the namespace's count of unread packets was at the last reset.
    unread: Mutex<u64>,
    /// The congestion control, once it has been set.
    congestion_control: Mutex<Option<String>>,
}

impl Endpoint {
    fn create(address: Ipv4Addr, tcp_buffer: u64) -> Result<(Endpoint, OwnedFd), LinkError> {
        let (namespace, tun) = Namespace::create(address, tcp_buffer)?;
        Ok((Endpoint::new(address, Some(Arc::new(namespace))), tun))
    }

    fn new(address: Ipv4Addr, namespace: Option<Arc<Namespace>>) -> Endpoint {
        Endpoint {
            address,
            namespace,
            unread: Mutex::default(),
            congestion_control: Mutex::default(),
        }
    }

    /// The address programs of either side reach this one at.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that starts `program` in this side's network. Its loopback is up and private to the side.
    ///
    /// Only the network differs: files, processes and users are those of this machine. As with every command
    /// that has work to do between fork and exec, the child is started by `fork` rather than `posix_spawn`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.attach(&mut command);
        command
    }

    /// Makes an existing `command` start its program in this side's network.
    pub fn attach(&self, command: &mut Command) {
        if let Some(namespace) = &self.namespace {
            namespace.attach(command);
        }
    }

    /// Runs `work` on a new thread in this side's network.
    ///
    /// Sockets belong to the network of the thread that opened them, whoever uses them later. Threads and
    /// programs `work` starts begin in the same network, including those of a runtime it builds.
    ///
    /// # Errors
    /// When the thread cannot be started or cannot enter the network.
    pub fn run<T, F>(&self, work: F) -> Result<JoinHandle<T>, LinkError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match &self.namespace {
            Some(namespace) => namespace.run(work),
            None => netns::spawn("link-side", work),
        }
    }

    /// The TCP settings in effect here.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn tcp_settings(&self) -> Result<TcpSettings, LinkError> {
        let chosen = self
            .congestion_control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.inside(move || tcp::settings(chosen))
    }

    /// Lets new TCP connections from and to here use the congestion control `name`.
    ///
    /// # Errors
    /// When the kernel has no such congestion control (the error lists what it has), and for [`Link::Loop`].
    pub fn set_congestion_control(&self, name: &str) -> Result<(), LinkError> {
        if self.namespace.is_none() {
            return Err(LinkError::LoopSettings);
        }
        let (address, wanted) = (self.address, name.to_owned());
        self.inside(move || tcp::set_congestion_control(address, &wanted))?;
        *self
            .congestion_control
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        Ok(())
    }

    fn inside<T, F>(&self, work: F) -> Result<T, LinkError>
    where
        F: FnOnce() -> Result<T, LinkError> + Send + 'static,
        T: Send + 'static,
    {
        self.run(work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Packets lost unread since the last reset; `reset` makes this one.
    fn unread_packets(&self, reset: bool) -> u64 {
        let total = self
            .namespace
            .as_ref()
            .map_or(0, |namespace| namespace.unread_packets());
        let mut base = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let since = total - *base;
        if reset {
            *base = total;
        }
        since
    }
}
