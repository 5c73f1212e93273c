//! Network devices of a namespace: the TUN device that carries its traffic, and its loopback.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::error::LinkError;
use super::spec::MTU;

/// Name of the TUN device inside its namespace.
pub(super) const DEVICE: &str = "wan0";
/// Length of the network prefix both sides share.
pub(super) const PREFIX: u8 = 30;
/// Packets the kernel keeps for the relay to read. Far more than it is ever behind: it is the emulated queue
/// that has to drop, not this one.
const KERNEL_QUEUE: libc::c_int = 16_384;

/// Creates the TUN device in the calling thread's namespace and brings it up with `address`/[`PREFIX`].
///
/// One read or write of the returned descriptor, which does not block, is one IP packet.
pub(super) fn create(address: Ipv4Addr) -> Result<OwnedFd, LinkError> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => LinkError::NotPermitted {
                what: "open /dev/net/tun",
                source,
            },
            _ => LinkError::NoTun(source),
        })?;
    let tun = OwnedFd::from(tun);
    // No offloads are asked for: every packet crosses the link on its own, at most MTU bytes long.
    let mut request = named(DEVICE);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    interface_ioctl(tun.as_fd(), libc::TUNSETIFF, &mut request)
        .map_err(|source| LinkError::privileged("create a TUN device", source))?;

    let socket = control_socket()?;
    let set = |code: libc::c_ulong, what: &'static str, mut request: libc::ifreq| {
        interface_ioctl(socket.as_fd(), code as libc::Ioctl, &mut request)
            .map_err(|source| LinkError::privileged(what, source))
    };
    let mut request = named(DEVICE);
    request.ifr_ifru.ifru_mtu = libc::c_int::from(MTU);
    set(libc::SIOCSIFMTU, "set the MTU of the TUN device", request)?;
    let mut request = named(DEVICE);
    // The request takes an integer, for which any of the union's integer members will do.
    request.ifr_ifru.ifru_metric = KERNEL_QUEUE;
    set(
        libc::SIOCSIFTXQLEN,
        "set the queue length of the TUN device",
        request,
    )?;
    let mut request = named(DEVICE);
    request.ifr_ifru.ifru_addr = socket_address(address);
    set(libc::SIOCSIFADDR, "set the address of the TUN device", request)?;
    request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(PREFIX))));
    set(libc::SIOCSIFNETMASK, "set the netmask of the TUN device", request)?;
    bring_up(&socket, DEVICE)?;
    Ok(tun)
}

/// Brings up the loopback device of the calling thread's namespace.
pub(super) fn loopback_up() -> Result<(), LinkError> {
    bring_up(&control_socket()?, "lo")
}

/// Packets the kernel dropped on their way to whoever reads the TUN device, since it was created.
///
/// `net_dev` is the namespace's `/proc/net/dev`.
pub(super) fn unread_packets(net_dev: &File) -> Option<u64> {
    let mut text = vec![0; 4096];
    let length = std::os::unix::fs::FileExt::read_at(net_dev, &mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(DEVICE)?.strip_prefix(':'))?;
    // Eight columns of receiving (bytes packets errs drop fifo frame compressed multicast), then the same of
    // sending: bytes packets errs drop ...
    line.split_whitespace().nth(11)?.parse().ok()
}

fn bring_up(socket: &UdpSocket, device: &str) -> Result<(), LinkError> {
    let what = "bring up a network device";
    let failed = |source| LinkError::privileged(what, source);
    let mut request = named(device);
    interface_ioctl(socket.as_fd(), libc::SIOCGIFFLAGS as libc::Ioctl, &mut request).map_err(failed)?;
    // SAFETY: SIOCGIFFLAGS has just filled in exactly this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    interface_ioctl(socket.as_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &mut request).map_err(failed)
}

/// Any IPv4 socket of the calling thread's namespace: what interface ioctls are addressed to.
fn control_socket() -> Result<UdpSocket, LinkError> {
    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .map_err(|source| LinkError::system("open a socket in the namespace", source))
}

fn named(device: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is a plain C structure of integers and a union of such; all zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero and ends the name.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(device.bytes())
    {
        *to = from.cast_signed();
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // A `sockaddr_in` seen as `sockaddr`: two bytes of port, then the address in network order.
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}

/// `code` has to be one of the requests that take a `struct ifreq`, as all in this file are.
fn interface_ioctl(fd: BorrowedFd<'_>, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call, and every request this file makes reads and
    // writes at most the `ifreq` behind the pointer, which is valid and exclusively borrowed.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
