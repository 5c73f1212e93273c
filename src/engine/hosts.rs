//! From which addresses a module may be reached: lists of networks, as rsyncd's `hosts allow` and `hosts deny`.

use std::fmt;
// Values only: `core` opens nothing.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use thiserror::Error;

/// The bits before an IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.1`).
const MAPPED_BITS: u8 = 96;

/// An address, or all that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    /// How many bits count.
    prefix: u8,
}

/// Why something is no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Neither an address nor a network.
    #[error(
        "{0:?} is no address and no network: write 192.0.2.7, 192.0.2.0/24, 2001:db8::1 or 2001:db8::/32 (host names are not \
         looked up)"
    )]
    Unreadable(String),
    /// More bits than an address has.
    #[error("{text:?}: a prefix has {most} bits at most")]
    TooLong {
        /// What was written.
        text: String,
        /// Bits of such an address.
        most: u8,
    },
    /// An address in the network instead of its first.
    #[error("{text:?} has bits behind its prefix: write {meant} for the network, or the address alone")]
    NotFirst {
        /// What was written.
        text: String,
        /// The network that it is in.
        meant: String,
    },
}

impl Network {
    /// Whether an address is in it. An IPv4 address is the same in its IPv6 form.
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => masked_v4(address, self.prefix) == first,
            (IpAddr::V6(first), IpAddr::V6(address)) => masked_v6(address, self.prefix) == first,
            _ => false,
        }
    }
}

fn masked_v4(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked_v6(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let unreadable = || NetworkError::Unreadable(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| unreadable())?;
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let prefix = match prefix {
            None => most,
            Some(prefix) if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(unreadable());
            }
            Some(prefix) => prefix.parse().unwrap_or(u8::MAX),
        };
        if prefix > most {
            return Err(NetworkError::TooLong {
                text: text.to_owned(),
                most,
            });
        }
        let (first, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= MAPPED_BITS => {
                (IpAddr::V4(mapped), prefix - MAPPED_BITS)
            }
            _ => (address, prefix),
        };
        let network = match first {
            IpAddr::V4(address) => IpAddr::V4(masked_v4(address, prefix)),
            IpAddr::V6(address) => IpAddr::V6(masked_v6(address, prefix)),
        };
        let network = Network {
            first: network,
            prefix,
        };
        match network.first == first {
            true => Ok(network),
            false => Err(NetworkError::NotFirst {
                text: text.to_owned(),
                meant: network.to_string(),
            }),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Who may come, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// These may. If there are any, and nothing is in `deny`, nobody else may.
    pub allow: Vec<Network>,
    /// These may not, unless they are among the others.
    pub deny: Vec<Network>,
}

impl Hosts {
    /// Whether an address may come: in the order of rsyncd.conf(5), where what is allowed is looked at first, and who is in
    /// neither of two lists may.
    pub fn admit(&self, address: IpAddr) -> bool {
        let has = |list: &[Network]| list.iter().any(|network| network.has(address));
        if has(&self.allow) {
            return true;
        }
        match self.deny.is_empty() {
            true => self.allow.is_empty(),
            false => !has(&self.deny),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn hosts(allow: &[&str], deny: &[&str]) -> Hosts {
        Hosts {
            allow: networks(allow),
            deny: networks(deny),
        }
    }

    #[test]
    fn a_network_has_what_begins_with_its_bits() {
        for (network, address, has) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("fe80::/10", "febf::1", true),
            // A socket for both kinds shows IPv4 addresses like this.
            ("192.0.2.0/24", "::ffff:192.0.2.9", true),
            ("::ffff:192.0.2.0/120", "192.0.2.9", true),
            ("::ffff:192.0.2.0/120", "::ffff:192.0.3.9", false),
            ("::ffff:0.0.0.0/96", "10.0.0.1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.has(address.parse().unwrap()),
                has,
                "{address} in {network}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_is_right() {
        for wrong in [
            "",
            "/",
            "/8",
            "localhost",
            "192.0.2",
            "192.0.2.0/",
            "192.0.2.0/x",
            "192.0.2.0/+8",
            "192.0.2.0/-1",
            "192.0.2.0/8/8",
            "[::1]",
            "fe80::1%eth0/10",
            "*",
        ] {
            let error = wrong.parse::<Network>().unwrap_err();
            assert!(matches!(error, NetworkError::Unreadable(_)), "{wrong}: {error}");
        }
        for (wrong, bits) in [
            ("192.0.2.0/33", 32),
            ("2001:db8::/129", 128),
            ("10.0.0.0/99999", 32),
        ] {
            let error = wrong.parse::<Network>().unwrap_err();
            assert!(
                matches!(error, NetworkError::TooLong { most, .. } if most == bits),
                "{wrong}"
            );
        }
        let error = "192.0.2.7/24".parse::<Network>().unwrap_err().to_string();
        assert!(error.contains("write 192.0.2.0/24"), "{error}");
        assert!("2001:db8::1/64".parse::<Network>().is_err());
    }

    #[test]
    fn lists_mean_what_they_mean_in_rsyncd_conf() {
        let admits = |hosts: &Hosts, address: &str| hosts.admit(address.parse().unwrap());
        let (inside, outside) = ("10.1.2.3", "192.0.2.1");
        for (hosts, may_inside, may_outside) in [
            (hosts(&[], &[]), true, true),
            (hosts(&["10.0.0.0/8"], &[]), true, false),
            (hosts(&[], &["10.0.0.0/8"]), false, true),
            // Allowed first; who is in neither list may come.
            (hosts(&["10.1.0.0/16"], &["10.0.0.0/8"]), true, true),
            (hosts(&["10.9.0.0/16"], &["10.0.0.0/8"]), false, true),
            (hosts(&["10.0.0.0/8"], &["0.0.0.0/0", "::/0"]), true, false),
        ] {
            assert_eq!(admits(&hosts, inside), may_inside, "{hosts:?}");
            assert_eq!(admits(&hosts, outside), may_outside, "{hosts:?}");
        }
    }
}
