//! The sockets on which the two processes speak about connections: one packet is one message.

use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, sendmsg, shutdown,
    socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The longest message in bytes: a text of the protocol with all its characters escaped, or 32 addresses, and room.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Sockets of a connection: control, ops, ranges.
pub(super) const SOCKETS: usize = 3;
/// The other side takes messages at once, whatever else it does. One that does not for so long is broken.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// One end.
#[derive(Debug)]
pub struct Door(OwnedFd);

/// Both ends: the first is to be kept, the other to be given to the process that is started.
pub fn doors() -> io::Result<(Door, OwnedFd)> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Door::from(ours), theirs))
}

impl From<OwnedFd> for Door {
    /// The end that a process was given.
    fn from(socket: OwnedFd) -> Door {
        // Fails for no socket. Without it a process that stops reading could hold up the other one for ever.
        let _ = set_socket_timeout(&socket, Timeout::Send, Some(SEND_PATIENCE));
        Door(socket)
    }
}

impl Door {
    /// Sends a message, and sockets with it.
    pub(super) fn send(&self, message: &impl Serialize, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match sendmsg(
                &self.0,
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Ends it for both sides, and for all that wait.
    pub(super) fn shut(&self) {
        // It fails if the other side is gone, which is as good.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// The next message; none at the end, also of a process that ended before it heard everything. Whatever was sent with it is
    /// dropped by the kernel.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<M>> {
        // One more than a message may have, so that a longer one is seen.
        let mut bytes = vec![0; MESSAGE_BYTES_MAX + 1];
        let length = loop {
            match recv(&self.0, &mut bytes[..], RecvFlags::empty()) {
                Ok((_, length)) => break length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        decoded(&bytes[..length])
    }

    /// The next message and the sockets that came with it.
    pub(super) fn receive_sockets<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX + 1];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let mut pieces = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                sockets.extend(received);
            }
        }
        Ok(decoded(&bytes[..length])?.map(|message| (message, sockets)))
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn decoded<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<M>> {
    match bytes.len() {
        0 => Ok(None),
        length if length > MESSAGE_BYTES_MAX => Err(io::ErrorKind::InvalidData.into()),
        _ => Ok(Some(serde_json::from_slice(bytes)?)),
    }
}
