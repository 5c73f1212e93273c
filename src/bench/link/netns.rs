//! A private network namespace, held by a descriptor only: when the process ends, however it ends, the kernel
//! removes it.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::error::LinkError;
use super::tcp;
use super::tun;

/// A network namespace with loopback and a TUN device.
#[derive(Debug)]
pub(super) struct Namespace {
    fd: OwnedFd,
    /// `/proc/net/dev` of the namespace; it stays bound to it wherever it is read.
    net_dev: File,
}

impl Namespace {
    /// Makes a namespace whose TUN device has `address`/30, and returns both.
    ///
    /// `tcp_buffer` is what the namespace's TCP sockets may buffer at least, in bytes.
    pub(super) fn create(address: Ipv4Addr, tcp_buffer: u64) -> Result<(Namespace, OwnedFd), LinkError> {
        let prepare = move || {
            // SAFETY: only the network namespace is unshared, of a thread made for this that ends right after;
            // the descriptor table, which the safety condition is about, stays shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| match error {
                rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => LinkError::NoNamespaces(error.into()),
                _ => LinkError::privileged("create a network namespace", error.into()),
            })?;
            let open = |path: &str| {
                File::open(path).map_err(|source| LinkError::system(format!("open {path}"), source))
            };
            let fd = OwnedFd::from(open("/proc/thread-self/ns/net")?);
            let net_dev = open("/proc/thread-self/net/dev")?;
            disable_ipv6()?;
            tun::loopback_up()?;
            let tun = tun::create(address)?;
            tcp::prepare(tcp_buffer)?;
            Ok((Namespace { fd, net_dev }, tun))
        };
        spawn("link-setup", prepare)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `work` on a new thread inside the namespace.
    pub(super) fn run<T, F>(self: &Arc<Namespace>, work: F) -> Result<JoinHandle<T>, LinkError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let namespace = Arc::clone(self);
        let (answer, entered) = mpsc::sync_channel(1);
        let thread = spawn("link-side", move || {
            let result = namespace.enter();
            drop(namespace);
            let failed = result.is_err();
            let _ = answer.send(result);
            if failed {
                // Ends this thread without the panic message: the caller reports the error it was just sent.
                std::panic::resume_unwind(Box::new("cannot enter the namespace"));
            }
            work()
        })?;
        match entered.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(source)) => Err(LinkError::privileged("enter a network namespace", source)),
            Err(_) => Err(LinkError::system(
                "enter a network namespace",
                io::ErrorKind::Other.into(),
            )),
        }
    }

    /// Makes `command` start its program inside the namespace.
    pub(super) fn attach(self: &Arc<Namespace>, command: &mut Command) {
        let namespace = Arc::clone(self);
        let enter = move || namespace.enter();
        // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are
        // allowed: it makes the one system call setns on a descriptor that it keeps open itself, and neither
        // allocates nor locks (an error is carried as its bare number).
        unsafe { command.pre_exec(enter) };
    }

    /// Packets the kernel dropped before the emulator read them, since the namespace was made.
    pub(super) fn unread_packets(&self) -> u64 {
        tun::unread_packets(&self.net_dev).unwrap_or(0)
    }

    /// Moves the calling thread into the namespace, for good.
    fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network)).map_err(io::Error::from)
    }
}

pub(super) fn spawn<T, F>(name: &str, work: F) -> Result<JoinHandle<T>, LinkError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| LinkError::system("start a thread", source))
}

/// Keeps the kernel's own IPv6 chatter (router solicitations, multicast reports) off the emulated link, so that
/// every byte counted is one a program sent.
fn disable_ipv6() -> Result<(), LinkError> {
    for scope in ["all", "default"] {
        match std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LinkError::privileged("disable IPv6 in the namespace", source));
            }
            _ => {}
        }
    }
    Ok(())
}
