//! The log to syslog, as the C library writes it: datagrams to a local socket, `<PRIORITY>TIME IDENTITY[PROCESS]: TEXT` (RFC 3164).
//!
//! The socket has no connection: so the daemon behind it may be started again, and a confined process, which can make no other, keeps it.
//! Nothing waits for syslog: what it does not take is counted and told in its place.

use clap::ValueEnum;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where syslog listens on most systems.
pub(super) const SOCKET: &str = "/dev/log";

/// Bytes of a message; longer ones are cut.
const BYTES_MAX: usize = 8_000;

/// What a message is about, which decides where syslog puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Facility {
    User,
    Daemon,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl Facility {
    fn number(self) -> u8 {
        match self {
            Facility::User => 1,
            Facility::Daemon => 3,
            Facility::Local0 => 16,
            Facility::Local1 => 17,
            Facility::Local2 => 18,
            Facility::Local3 => 19,
            Facility::Local4 => 20,
            Facility::Local5 => 21,
            Facility::Local6 => 22,
            Facility::Local7 => 23,
        }
    }
}

/// A way to syslog.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    facility: Facility,
    identity: String,
    lost: AtomicU64,
}

impl Syslog {
    /// Fails if nobody has made the socket. Whether anybody reads it is another matter.
    pub(super) fn open(path: &Path, facility: Facility, identity: &str) -> io::Result<Syslog> {
        std::fs::metadata(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Syslog {
            socket,
            path: path.to_owned(),
            facility,
            identity: identity.to_owned(),
            lost: AtomicU64::new(0),
        })
    }

    /// Sends a line of this severity (0 to 7).
    pub(super) fn send(&self, severity: u8, text: &str) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0
            && !self.try_send(
                4,
                &format!("{lost} lines of the log are missing here: syslog did not take them"),
            )
        {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if !self.try_send(severity, text) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_send(&self, severity: u8, text: &str) -> bool {
        let priority = self.facility.number() * 8 + severity;
        let time = jiff::Zoned::now().strftime("%b %e %H:%M:%S").to_string();
        let text = text.replace('\n', " ");
        let end = (0..=text.len().min(BYTES_MAX))
            .rev()
            .find(|&at| text.is_char_boundary(at));
        let text = &text[..end.unwrap_or(0)];
        let message = format!(
            "<{priority}>{time} {}[{}]: {text}",
            self.identity,
            std::process::id()
        );
        self.socket.send_to(message.as_bytes(), &self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_datagrams_and_what_is_lost_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Syslog::open(&path, Facility::Daemon, "x").is_err());
        let listener = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::open(&path, Facility::Local3, "mine").unwrap();
        let hear = |listener: &UnixDatagram| {
            let mut buffer = [0; 16_384];
            let length = listener.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        syslog.send(6, "a line\nof two");
        let said = hear(&listener);
        let pid = std::process::id();
        assert!(
            said.starts_with("<158>") && said.ends_with(&format!(" mine[{pid}]: a line of two")),
            "{said}"
        );
        syslog.send(3, &"ü".repeat(5_000));
        let said = hear(&listener);
        assert!(said.starts_with("<155>") && said.ends_with('ü') && said.len() < 8_100);
        // Syslog is started again.
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        syslog.send(6, "lost");
        let listener = UnixDatagram::bind(&path).unwrap();
        syslog.send(6, "and on");
        assert!(hear(&listener).ends_with("1 lines of the log are missing here: syslog did not take them"));
        assert!(hear(&listener).ends_with("and on"));
    }
}
