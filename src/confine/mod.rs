//! What this process gives up before it talks to anybody.
//!
//! A receiver reads what peers send, as root as a rule. Should one of them ever make it do what it was not written for, then
//! it must find nothing to do harm with: [`enter`] takes away, before the first thread starts, everything that a receiver
//! never needs, and [`Confined::close`] the rest once all sockets are open. Each measure stands alone, works as far as
//! this kernel and user can, and says so; `attempts` then tries to break out and tells which of them really hold.
//!
//! | measure | what it stops | needs |
//! | --- | --- | --- |
//! | no new privileges | gaining rights by running a set-user-ID program | Linux |
//! | read-only system | any change outside the module and the home: content, modes, owners, times, attributes | root, Linux 5.12 |
//! | few capabilities | all that root may do beyond the files it carries | root |
//! | Landlock | opening, making, removing and renaming anything outside; TCP; signals | Linux 5.19 |
//! | system calls | programs, processes, tracing, mounting, modules, BPF, io_uring, other namespaces, keys, clocks | seccomp |
//! | no new sockets | connections to anywhere | seccomp |
//!
//! A receiver may leave the network to another process, which [`outside::enter`] confines: then this one has neither sockets nor
//! the key ([`Needs::hidden`], [`Confined::tell_apart`]), and that one has no files.
//!
//! Order matters: mounting needs the capabilities, and seccomp forbids what the others call.

mod attempts;
mod calls;
mod capabilities;
mod computing;
mod landlock;
mod mounts;
pub mod outside;

pub use computing::compute_only;

use std::fmt;
use std::path::{Path, PathBuf};

/// What a process will still need.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Directories in which it changes things, by canonical paths.
    pub writable: Vec<PathBuf>,
    /// Files and directories that it reads; missing ones do no harm.
    pub readable: Vec<PathBuf>,
    /// It makes devices.
    pub devices: bool,
    /// It sets `trusted.*` and `security.*` attributes.
    pub privileged_xattrs: bool,
    /// It binds a port below 1024 later on.
    pub low_port: bool,
    /// A directory with secrets that this process has no business with, though it lies in one that it writes to.
    pub hidden: Option<PathBuf>,
    /// Another process speaks to the network: this one was started without a socket.
    pub is_apart: bool,
}

impl Needs {
    fn may_write(&self, path: &Path) -> bool {
        self.writable.iter().any(|writable| path.starts_with(writable))
    }
}

/// One measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// No privileges by executing.
    NoNewPrivileges,
    /// Everything else is mounted read-only.
    ReadOnlySystem,
    /// Capabilities are dropped.
    Capabilities,
    /// Landlock.
    Landlock,
    /// A filter of system calls.
    SystemCalls,
    /// No new sockets.
    Sockets,
    /// This process has no socket of a network, and can get none.
    NoNetwork,
    /// The key of the identity is out of this process's reach.
    HiddenKey,
    /// The process that speaks to the network can open no file.
    TransportFiles,
    /// It can start nothing, and open no other socket.
    TransportCalls,
}

impl Measure {
    /// Those of every process, in the order in which they are taken.
    pub const ALL: [Measure; 6] = [
        Measure::NoNewPrivileges,
        Measure::ReadOnlySystem,
        Measure::Capabilities,
        Measure::Landlock,
        Measure::SystemCalls,
        Measure::Sockets,
    ];

    /// Those of a receiver in two processes, beside them.
    pub const APART: [Measure; 4] = [
        Measure::NoNetwork,
        Measure::HiddenKey,
        Measure::TransportFiles,
        Measure::TransportCalls,
    ];

    /// Its name in status and logs.
    pub fn name(self) -> &'static str {
        match self {
            Measure::NoNewPrivileges => "no-new-privileges",
            Measure::ReadOnlySystem => "read-only-system",
            Measure::Capabilities => "capabilities",
            Measure::Landlock => "landlock",
            Measure::SystemCalls => "system-calls",
            Measure::Sockets => "sockets",
            Measure::NoNetwork => "no-network",
            Measure::HiddenKey => "hidden-key",
            Measure::TransportFiles => "transport-files",
            Measure::TransportCalls => "transport-calls",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a measure holds, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Which.
    pub measure: Measure,
    /// Why it does not hold; none if it does.
    pub missing: Option<String>,
}

/// A process that was confined.
#[derive(Debug, Clone)]
pub struct Confined {
    needs: Needs,
    protections: Vec<Protection>,
}

/// Confines this thread and all that it starts from now on. To be called before there is any other.
pub fn enter(needs: Needs) -> Confined {
    let privileges = no_new_privileges();
    let mounted = mounts::restrict(&needs);
    let hidden = match (&needs.hidden, &mounted) {
        (None, _) => None,
        // Without mounts of its own it would be hidden from the whole system.
        (Some(_), Err(reason)) => Some(Err(reason.clone())),
        (Some(path), Ok(())) => Some(mounts::hide(path)),
    };
    let outcomes = [
        (Measure::NoNewPrivileges, privileges),
        (Measure::ReadOnlySystem, mounted),
        (Measure::Capabilities, capabilities::restrict(&needs)),
        (Measure::Landlock, landlock::restrict(&needs)),
        (Measure::SystemCalls, calls::restrict()),
    ];
    let protections = outcomes.map(|(measure, outcome)| Protection {
        measure,
        missing: outcome.err(),
    });
    let mut confined = Confined {
        needs,
        protections: protections.into(),
    };
    confined.protections.extend(hidden.map(|outcome| Protection {
        measure: Measure::HiddenKey,
        missing: outcome.err(),
    }));
    confined.test(&Measure::ALL[..5]);
    confined.test(&[Measure::HiddenKey]);
    confined
}

impl Confined {
    /// Closes what was open until all sockets were made, for all threads.
    pub fn close(&mut self) {
        self.protections.push(Protection {
            measure: Measure::Sockets,
            missing: calls::restrict_sockets().err(),
        });
        if self.needs.is_apart {
            // It was started without any; there is nothing to take but the way to new ones.
            let missing = None;
            let measure = Measure::NoNetwork;
            self.protections.push(Protection { measure, missing });
        }
        self.test(&[Measure::Sockets, Measure::NoNetwork]);
    }

    /// Adds what the process that speaks to the network said of itself: the measures that it lacks, by name, and why.
    pub fn tell_apart(&mut self, lacking: &[(String, String)]) {
        for measure in [Measure::TransportFiles, Measure::TransportCalls] {
            let lacks = lacking.iter().find(|(name, _)| name == measure.name());
            let missing = lacks.map(|(_, reason)| reason.clone());
            self.protections.push(Protection { measure, missing });
        }
    }

    /// Which measures hold, as far as they were taken.
    pub fn protections(&self) -> &[Protection] {
        &self.protections
    }

    /// Tries to break out. What succeeds shows that a measure does not hold, whatever the kernel said to it.
    fn test(&mut self, measures: &[Measure]) {
        for protection in &mut self.protections {
            if protection.missing.is_none() && measures.contains(&protection.measure) {
                protection.missing = attempts::broken(protection.measure, &self.needs)
                    .map(|deed| format!("it was taken, but {deed} was possible all the same"));
            }
        }
    }
}

fn no_new_privileges() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|errno| errno.to_string())
}

/// Keeps the memory of this process, which holds the key, out of core dumps, and other processes of this user from reading it.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // Fails for no process that exists; nothing depends on it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
