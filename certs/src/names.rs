//! What peers and modules may be called. These names reach terminals, logs and files, some of them from other machines.

/// The longest name of a peer or a module, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// Why a text cannot be the name of a peer or a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// There is nothing.
    #[error("a name cannot be empty")]
    Empty,
    /// More than 64 bytes, the most that the protocol carries.
    #[error("a name has at most 64 bytes, this one has {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Control characters could rewrite the terminal they are printed on, outer spaces cannot be seen there.
    #[error("the name {name:?} has a control character, or a space at its start or end")]
    Unprintable {
        /// The name.
        name: String,
    },
}

/// Checks the name of a peer or a module.
pub(crate) fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { found: name.len() });
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(NameError::Unprintable {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// The longest address: a host name of 253 bytes, a colon and a port.
pub(crate) const MAX_ADDRESS_BYTES: usize = 253 + 1 + 5;

/// Checks that an address has the form `host:port`. Whether there is such a host is for the connection to find out.
pub(crate) fn check_address(address: &str) -> Result<(), &'static str> {
    if address.len() > MAX_ADDRESS_BYTES {
        return Err("it is too long");
    }
    let (host, port) = address.rsplit_once(':').ok_or("it has no port")?;
    // Digits only, since `u16::from_str` would also take `+80`.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("its port is not a number from 1 to 65535");
    }
    match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) if inner.contains(':') => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '%' | '-' | '_');
            if inner.chars().all(allowed) {
                Ok(())
            } else {
                Err("its IPv6 address is malformed")
            }
        }
        Some(_) => Err("its brackets do not hold an IPv6 address"),
        None if host.is_empty() => Err("it has no host"),
        None if host.contains(':') => Err("an IPv6 address in it needs brackets, as in [::1]:4873"),
        None if host
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || "[]/@".contains(c)) =>
        {
            Err("its host has a character that no host name has")
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_printable() {
        for good in ["a", "photos", "två ord", "*", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check(&"x".repeat(129)), Err(NameError::TooLong { found: 129 }));
        for bad in [" a", "a ", "a\nb", "\u{1b}[2J", "a\0"] {
            assert_eq!(check(bad), Err(NameError::Unprintable { name: bad.to_owned() }));
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in [
            "nas.lan:4873",
            "10.0.0.1:1",
            "[::1]:65535",
            "[fe80::1%eth0]:80",
            "bücher.example:80",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good:?}");
        }
        let long = format!("{}:80", "x".repeat(300));
        for bad in [
            "",
            "nas",
            ":80",
            "nas:",
            "nas:0",
            "nas:65536",
            "nas:+80",
            "nas:http",
            "::1:80",
            "[::1]",
            "[nas]:80",
            "[::1:80",
            "a b:80",
            "a\n:80",
            "http://nas:80",
            &long,
        ] {
            assert!(check_address(bad).is_err(), "{bad:?}");
        }
    }
}
