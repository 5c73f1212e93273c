//! Tells a service manager how far this process is: the datagrams of sd_notify(3), to the socket in `$NOTIFY_SOCKET`.
//!
//! Without the variable nobody asked, and nothing is sent. The name of a socket that begins with `@` is abstract.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What a service manager can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything was started.
    Ready,
    /// The configuration is read again; [`State::Ready`] follows.
    Reloading,
    /// The process is about to end.
    Stopping,
    /// The process does its work, see [`super::watchdog`].
    Alive,
}

/// Tells the service manager of this process, if there is one. That it cannot be told is logged, and no more.
pub fn notify(state: State, status: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, &message(state, status)) {
        tracing::warn!("cannot tell the service manager {state:?} {status}: {error}");
    }
}

fn message(state: State, status: &str) -> String {
    let head = match state {
        State::Ready => "READY=1".to_owned(),
        // The time tells this reload from one that was asked for after it began.
        State::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros()),
        State::Stopping => "STOPPING=1".to_owned(),
        // Says nothing about what the process does, so that what was said of it stays.
        State::Alive => return "WATCHDOG=1".to_owned(),
    };
    format!("{head}\nSTATUS={}", status.replace('\n', " "))
}

fn monotonic_micros() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let name = format!("driftless-test-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, word) in [
            (&named, path.into_os_string()),
            (&hidden, format!("@{name}").into()),
        ] {
            send(&word, &message(State::Ready, "2 mirrors\nrun")).unwrap();
            let mut buffer = [0; 200];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=2 mirrors run");
        }
        assert!(message(State::Reloading, "x").starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert!(send(OsStr::new("/nowhere/at/all"), "x").is_err());
    }
}
