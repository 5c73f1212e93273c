//! The route from one side to the other, by netlink.
//!
//! A namespace's `tcp_congestion_control` accepts only the algorithms that the machine's owner has opened to
//! everybody (`tcp_allowed_congestion_control`), usually `reno` and the machine's default. An algorithm set on
//! the route, as by `ip route replace ... congctl NAME`, is not limited so, and needs no change to the machine.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::{read, write};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::tun::{DEVICE, PREFIX};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `RTAX_CC_ALGO` of linux/rtnetlink.h, which the libc crate lacks.
const RTAX_CC_ALGO: u16 = 16;

/// Replaces the route to the other side, in the calling thread's namespace, by one whose TCP connections use
/// the congestion control `algorithm`. `address` is this side's own.
pub(super) fn use_congestion_control(address: Ipv4Addr, algorithm: &str) -> io::Result<()> {
    // Without a protocol it is NETLINK_ROUTE, which is number zero.
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let device = name_to_index(&socket, DEVICE)?;
    write(&socket, &message(address, device, algorithm))?;

    // The answer to a request with NLM_F_ACK is an error message; its error is zero when all is well.
    let mut answer = [0; 4096];
    let length = read(&socket, &mut answer)?;
    let kind = answer[..length]
        .get(4..6)
        .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    let error = answer[..length].get(HEADER..HEADER + 4);
    match (kind, error) {
        (Some(kind), Some(error)) if libc::c_int::from(kind) == libc::NLMSG_ERROR => {
            match i32::from_ne_bytes([error[0], error[1], error[2], error[3]]) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            }
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "unexpected answer from the kernel",
        )),
    }
}

/// An RTM_NEWROUTE request for the same route that the kernel made when the device got its address.
fn message(address: Ipv4Addr, device: u32, algorithm: &str) -> Vec<u8> {
    let network = Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - u32::from(PREFIX))));
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut text = algorithm.as_bytes().to_vec();
    text.push(0);
    let mut metrics = Vec::new();
    attribute(&mut metrics, RTAX_CC_ALGO, &text);

    // struct nlmsghdr: length (filled in last), type, flags, sequence, port.
    let mut message = vec![0; 4];
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]);
    // struct rtmsg: family, prefix of destination and of source, TOS, table, protocol, scope, type, flags.
    message.extend([libc::AF_INET as u8, PREFIX, 0, 0, libc::RT_TABLE_MAIN]);
    message.extend([
        libc::RTPROT_KERNEL,
        libc::RT_SCOPE_LINK,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ]);
    attribute(&mut message, libc::RTA_DST, &network.octets());
    attribute(&mut message, libc::RTA_OIF, &device.to_ne_bytes());
    attribute(&mut message, libc::RTA_PREFSRC, &address.octets());
    attribute(&mut message, libc::RTA_METRICS, &metrics);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

/// Appends a `struct rtattr` with its value, padded to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    to.extend((4 + value.len() as u16).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(value);
    to.resize(to.len().next_multiple_of(4), 0);
}
