//! The notation of targets, byte by byte.

use super::{Target, TargetError, check_module};
use crate::cli::text::{escaped, quoted};
use driftless_protocol::{Name, NameFault, RelPath};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Splits `host` or `[host]` from what follows it, from the first colon on.
pub(super) fn split_host(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    // A user in front of the brackets is found later, when the host is checked.
    if let Some(open) = bytes.iter().position(|&byte| byte == b'[')
        && !bytes[..open].contains(&b':')
        && !bytes[..open].contains(&b'/')
    {
        let close = bytes
            .iter()
            .position(|&byte| byte == b']')
            .ok_or("a bracket is not closed")?;
        return Ok(bytes.split_at(close + 1));
    }
    let end = bytes
        .iter()
        .position(|&byte| matches!(byte, b':' | b'/'))
        .unwrap_or(bytes.len());
    let (host, rest) = bytes.split_at(end);
    let words = rest.split(|&byte| byte == b'/').next().unwrap_or_default();
    let colons = words.iter().filter(|&&byte| byte == b':').count();
    if colons > 2
        && words
            .iter()
            .chain(host)
            .all(|byte| byte.is_ascii_hexdigit() || *byte == b':' || *byte == b'.')
    {
        return Err("an IPv6 address needs brackets, as in [::1]::photos".to_owned());
    }
    if host.iter().all(u8::is_ascii_hexdigit) && colons > 2 {
        return Err(
            "there are too many colons; an IPv6 address needs brackets, as in [::1]::photos".to_owned(),
        );
    }
    Ok((host, rest))
}

/// The host in text, without brackets.
pub(super) fn check_host(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its host is not text")?;
    if let Some((user, host)) = text.rsplit_once('@') {
        return Err(format!(
            "driftless has no users on the other side: leave out {:?}, {host:?} is enough",
            format!("{user}@")
        ));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a bracket is not closed")?;
        // A zone, as in fe80::1%eth0, is not part of the address proper.
        let address = inner.split_once('%').map_or(inner, |(address, _)| address);
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("{inner:?} is not an IPv6 address"))?;
        return Ok(inner.to_owned());
    }
    if text.is_empty() {
        return Err("it has no host".to_owned());
    }
    if text.len() > 253 || text.starts_with('-') {
        return Err("its host is not a host name".to_owned());
    }
    if let Some(c) = text
        .chars()
        .find(|c| c.is_control() || c.is_whitespace() || "[]/@%\\\"'`$".contains(*c))
    {
        return Err(format!(
            "its host has the character {c:?}, which no host name has"
        ));
    }
    Ok(text.to_owned())
}

/// `MODULE[/PATH]`.
pub(super) fn parse_place(bytes: &[u8]) -> Result<(String, RelPath), String> {
    let mut parts = bytes.splitn(2, |&byte| byte == b'/');
    let module = parts.next().unwrap_or_default();
    let module = std::str::from_utf8(module).map_err(|_| "the name of the module is not text")?;
    check_module(module)?;
    let mut path = parts.next().unwrap_or_default();
    // The contents of a directory are meant with and without a slash at the end.
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    let path = RelPath::parse(path).map_err(|fault| match fault {
        NameFault::Absolute | NameFault::Empty => "its path has two slashes in a row".to_owned(),
        NameFault::DotPart => "its path has a part `.` or `..`; it cannot leave the module".to_owned(),
        other => format!("in its path, {other}"),
    })?;
    if path.names().iter().any(Name::is_reserved) {
        return Err("names that begin with .driftless are the receiver's own".to_owned());
    }
    Ok((module.to_owned(), path))
}

/// What follows the scheme.
pub(super) fn parse_url(rest: &[u8]) -> Result<Target, String> {
    let end = rest
        .iter()
        .position(|&byte| byte == b'/')
        .ok_or("it has no module")?;
    let (authority, place) = (&rest[..end], &rest[end + 1..]);
    let authority = std::str::from_utf8(authority).map_err(|_| "its host is not text")?;
    let (fingerprint, at) = match authority.rsplit_once('@') {
        Some((text, at)) => {
            let fingerprint = text
                .parse()
                .map_err(|fault| format!("before the @ a fingerprint is expected: {fault}"))?;
            (Some(fingerprint), at)
        }
        None => (None, authority),
    };
    let host_end = match at.find(']') {
        Some(close) if at.starts_with('[') => close + 1,
        _ => at.find(':').unwrap_or(at.len()),
    };
    let (host, port) = at.split_at(host_end);
    if port.matches(':').count() > 1 {
        return Err("an IPv6 address needs brackets, as in driftless://[::1]:4433/photos".to_owned());
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        // Digits only: `u16::from_str` would take `+80`.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(
            digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("its port is not a number from 1 to 65535")?,
        ),
        _ => return Err("its port is not a number from 1 to 65535".to_owned()),
    };
    let host = check_host(host.as_bytes())?;
    // Split first: an escaped slash would otherwise make a new part.
    if find(&place.to_ascii_lowercase(), b"%2f").is_some() {
        return Err("an escaped slash (%2F) cannot be part of a name".to_owned());
    }
    let (module, path) = parse_place(&unescape(place)?)?;
    Ok(Target {
        host,
        port,
        fingerprint,
        module,
        path,
    })
}

fn unescape(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = tail
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(
            value.ok_or("a `%` is not followed by two hexadecimal digits (write %25 for a `%` in a URL)")?,
        );
        rest = &tail[2..];
    }
    Ok(out)
}

/// `HOST:/path` and `user@host:path`: what to do instead.
pub(super) fn remote_shell(word: &OsStr, host: &[u8], path: &[u8]) -> TargetError {
    let host = String::from_utf8_lossy(host);
    let host = escaped(host.rsplit_once('@').map_or(&*host, |(_, host)| host));
    let host = if host.is_empty() { "HOST".to_owned() } else { host };
    let last = path
        .rsplit(|&byte| byte == b'/')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let module = std::str::from_utf8(last)
        .ok()
        .filter(|name| check_module(name).is_ok() && !name.contains(' '));
    let module = module
        .filter(|name| !matches!(*name, "." | ".." | "~"))
        .unwrap_or("NAME");
    let path = if path.is_empty() {
        "DIR".to_owned()
    } else {
        quoted(OsStr::from_bytes(path))
    };
    TargetError::RemoteShell {
        text: escaped(word),
        command: format!("`driftless receive {path} --module {module}`"),
        form: format!("{host}::{module}"),
        host,
    }
}

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
