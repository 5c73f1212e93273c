//! The TCP settings of a namespace.
//!
//! A new namespace inherits the machine's settings. Two of them are changed, as they would measure something
//! other than the link: the largest buffers are raised so that no sender runs into its buffer before it fills
//! the link and its queue (the usual 4 MiB of `tcp_wmem` hold about 2 MiB of data, one bandwidth-delay product
//! of `w0`), and metrics saved from one connection no longer start the next (`tcp_no_metrics_save`), so that
//! runs do not influence one another.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens the file, so everything here acts on that of
//! the calling thread.

use std::fs;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::error::LinkError;
use super::route;

const BASE: &str = "/proc/sys/net/ipv4";
/// More than this per socket is never asked for, whatever the link.
const MAX_BUFFER: u64 = 256 << 20;

/// The TCP settings in effect on one side of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpSettings {
    /// The congestion control of new connections over the link.
    pub congestion_control: String,
    /// All congestion controls this kernel has loaded.
    pub available: Vec<String>,
    /// Receive buffer of a connection in bytes: least, initial, most.
    pub rmem: [u64; 3],
    /// Send buffer of a connection in bytes: least, initial, most.
    pub wmem: [u64; 3],
}

/// Prepares a new namespace for transfers that have up to `buffer` bytes in flight.
pub(super) fn prepare(buffer: u64) -> Result<(), LinkError> {
    // The kernel charges a buffer for its own bookkeeping, up to about as much again as the data, and allows a
    // congestion window of half the send buffer at most.
    let wanted = buffer.saturating_mul(4).min(MAX_BUFFER);
    for name in ["tcp_rmem", "tcp_wmem"] {
        let [least, initial, most] = triple(name)?;
        if most < wanted {
            write(name, &format!("{least} {initial} {wanted}"))?;
        }
    }
    write("tcp_no_metrics_save", "1")
}

/// The settings in effect, where `chosen` is what [`set_congestion_control`] has set, if anything.
pub(super) fn settings(chosen: Option<String>) -> Result<TcpSettings, LinkError> {
    let congestion_control = match chosen {
        Some(name) => name,
        None => read("tcp_congestion_control")?.trim().to_owned(),
    };
    let (rmem, wmem) = (triple("tcp_rmem")?, triple("tcp_wmem")?);
    Ok(TcpSettings {
        congestion_control,
        available: available()?,
        rmem,
        wmem,
    })
}

/// Lets connections over the link use `wanted`; `address` is this side's own.
pub(super) fn set_congestion_control(address: Ipv4Addr, wanted: &str) -> Result<(), LinkError> {
    let available = available()?;
    if !available.iter().any(|name| name == wanted) {
        let (wanted, available) = (wanted.to_owned(), available.join(", "));
        return Err(LinkError::CongestionControl { wanted, available });
    }
    route::use_congestion_control(address, wanted)
        .map_err(|source| LinkError::system(format!("set the congestion control `{wanted}`"), source))
}

fn available() -> Result<Vec<String>, LinkError> {
    let names = read("tcp_available_congestion_control")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

fn triple(name: &str) -> Result<[u64; 3], LinkError> {
    let text = read(name)?;
    let numbers: Vec<u64> = text
        .split_whitespace()
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.try_into().map_err(|_| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, format!("`{}`", text.trim()));
        LinkError::system(format!("understand {BASE}/{name}"), source)
    })
}

fn read(name: &str) -> Result<String, LinkError> {
    let path = format!("{BASE}/{name}");
    fs::read_to_string(&path).map_err(|source| LinkError::system(format!("read {path}"), source))
}

fn write(name: &str, value: &str) -> Result<(), LinkError> {
    let path = format!("{BASE}/{name}");
    fs::write(&path, value).map_err(|source| LinkError::system(format!("write `{value}` to {path}"), source))
}
