//! Where to send to: `HOST::MODULE[/PATH]` or `driftless://[FINGERPRINT@]HOST[:PORT]/MODULE[/PATH]`.
//!
//! Parsing knows the notation only; [`Target::resolve`] adds who the receiver has to be. That is never guessed: it is the
//! fingerprint in the URL, or that of the one peer in the trust store that has the name or the address given.
//!
//! A word is a directory when a slash comes before any colon, and a target otherwise, as with rsync: a directory called
//! `a:b` is written `./a:b`. In URLs, `%` begins an escape; nothing else is special in the path of either form.

mod parse;

use super::text::escaped;
use crate::daemon::TargetOptions;
use driftless_certs::{Fingerprint, Peer, TrustStore};
use driftless_protocol::RelPath;
use driftless_protocol::limits::MODULE_NAME_BYTES_MAX;
use parse::{check_host, find, parse_place, parse_url, remote_shell, split_host};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use thiserror::Error;

/// The port of receivers (UDP), unless said otherwise.
pub(super) const DEFAULT_PORT: u16 = 4433;

const SCHEME: &str = "driftless://";

/// A target as the user wrote it, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Name or address, without brackets.
    pub(super) host: String,
    /// The port, if it was in it.
    pub(super) port: Option<u16>,
    /// The fingerprint, if it was in it.
    pub(super) fingerprint: Option<Fingerprint>,
    /// The module.
    pub(super) module: String,
    /// The path inside the module.
    pub(super) path: RelPath,
}

/// Why a word is not a target, or not one that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum TargetError {
    /// The notation of remote shells.
    #[error(
        "{text} is the notation of remote shells, which driftless does not use: run {command} on {host}, and give {form} \
         here; for a directory on this machine write ./{text}"
    )]
    RemoteShell {
        /// What was written.
        text: String,
        /// Where to run the command.
        host: String,
        /// What to run there.
        command: String,
        /// What to write here.
        form: String,
    },
    /// Another scheme, such as `rsync://`.
    #[error(
        "cannot use {text}: driftless does not speak {scheme} (write driftless://HOST:PORT/MODULE, or HOST::MODULE)"
    )]
    Scheme {
        /// What was written.
        text: String,
        /// Its scheme.
        scheme: String,
    },
    /// Anything else about the notation.
    #[error(
        "cannot use the target {text}: {fault} (write HOST::MODULE[/PATH] or driftless://[FINGERPRINT@]HOST:PORT/MODULE[/PATH])"
    )]
    Form {
        /// What was written.
        text: String,
        /// What is wrong with it.
        fault: String,
    },
    /// Port given twice, with different values.
    #[error(
        "cannot use the target {text}: it says port {inside}, but --port says {option} (leave one of them out)"
    )]
    TwoPorts {
        /// The target.
        text: String,
        /// The port in it.
        inside: u16,
        /// That of the option.
        option: u16,
    },
    /// Nobody in the trust store.
    #[error(
        "cannot send to {text}: no peer called {host}, or with that address, is known here (run `driftless invite` on \
         {host} and paste its line here, or pin it: {SCHEME}FINGERPRINT@{place}/{module})"
    )]
    Unknown {
        /// The target.
        text: String,
        /// The host in it.
        host: String,
        /// Host and port.
        place: String,
        /// The module in it.
        module: String,
    },
    /// Several in the trust store.
    #[error(
        "cannot send to {text}: {host} can be any of the peers {names} (give --port, use the name of a peer in place of \
         the host, or remove what is obsolete with `driftless peers remove NAME`)"
    )]
    Ambiguous {
        /// The target.
        text: String,
        /// The host in it.
        host: String,
        /// Who it can be.
        names: String,
    },
    /// Known, but no longer trusted.
    #[error(
        "cannot send to {text}: the trust in peer {name} has expired (pair again, or run `driftless peers remove {name}` \
        and `driftless peers add`)"
    )]
    Expired {
        /// The target.
        text: String,
        /// The peer.
        name: String,
    },
}

impl TargetError {
    /// The same of a tree that is to be pulled: it is the sender that has to be known then.
    pub(super) fn of_pull(&self) -> String {
        match self {
            TargetError::Unknown {
                text,
                host,
                place,
                module,
            } => format!(
                "cannot pull {text}: no peer called {host}, or with that address, is known here (run `driftless invite --tree \
                 {module}` on {host} and paste its line here, or pin it: {SCHEME}FINGERPRINT@{place}/{module})"
            ),
            TargetError::Ambiguous { text, host, names } => format!(
                "cannot pull {text}: {host} can be any of the peers {names} (use the name of a peer in place of the host, name the \
                 port as in {SCHEME}{host}:PORT/TREE, or remove what is obsolete with `driftless peers remove NAME`)"
            ),
            TargetError::Expired { text, name } => format!(
                "cannot pull {text}: the trust in peer {name} has expired (pair again, or run `driftless peers remove {name}` and \
                 `driftless peers add`)"
            ),
            error => error.to_string(),
        }
    }
}

/// Whether a word is a target (of whatever notation) and not a directory.
pub(super) fn is_target(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let head = bytes.split(|&byte| byte == b'/').next().unwrap_or_default();
    head.contains(&b':')
}

impl Target {
    /// Reads a target.
    pub(super) fn parse(word: &OsStr) -> Result<Target, TargetError> {
        let bytes = word.as_bytes();
        let form = |fault: String| TargetError::Form {
            text: escaped(word),
            fault,
        };
        if let Some(rest) = bytes.strip_prefix(SCHEME.as_bytes()) {
            return parse_url(rest).map_err(form);
        }
        if let Some(at) = find(bytes, b"://") {
            let scheme = escaped(OsStr::from_bytes(&bytes[..at]));
            return Err(TargetError::Scheme {
                text: escaped(word),
                scheme,
            });
        }
        let (host, rest) = split_host(bytes).map_err(form)?;
        let Some(rest) = rest.strip_prefix(b"::") else {
            return Err(match rest.strip_prefix(b":") {
                Some(path) => remote_shell(word, host, path),
                None => form("there is no `::` between host and module".to_owned()),
            });
        };
        let host = check_host(host).map_err(form)?;
        let (module, path) = parse_place(rest).map_err(form)?;
        Ok(Target {
            host,
            port: None,
            fingerprint: None,
            module,
            path,
        })
    }

    /// Says where exactly, and who that is. `option` is the port of `--port`, `now` is in unix seconds.
    pub(super) fn resolve(
        &self,
        option: Option<u16>,
        trust: &TrustStore,
        now: u64,
    ) -> Result<TargetOptions, TargetError> {
        let text = || self.display(self.port.or(option).unwrap_or(DEFAULT_PORT));
        if let (Some(inside), Some(option)) = (self.port, option)
            && inside != option
        {
            return Err(TargetError::TwoPorts {
                text: text(),
                inside,
                option,
            });
        }
        let asked = self.port.or(option);
        let (fingerprint, host, port) = match self.fingerprint {
            Some(fingerprint) => (fingerprint, self.host.clone(), asked.unwrap_or(DEFAULT_PORT)),
            None => {
                let peer = self
                    .find_peer(asked, trust)
                    .map_err(|fault| fault(self, text()))?;
                if peer.expires.is_some_and(|expires| now >= expires) {
                    return Err(TargetError::Expired {
                        text: text(),
                        name: peer.name.clone(),
                    });
                }
                // A name of the trust store stands for the address there.
                let (host, port) = match peer.address.as_deref().and_then(split_address) {
                    Some((host, port)) if peer.name == self.host => (host, asked.unwrap_or(port)),
                    Some((_, port)) => (self.host.clone(), asked.unwrap_or(port)),
                    None => (self.host.clone(), asked.unwrap_or(DEFAULT_PORT)),
                };
                (peer.fingerprint, host, port)
            }
        };
        let (display, module, path) = (self.display(port), self.module.clone(), self.path.clone());
        Ok(TargetOptions {
            display,
            host,
            port,
            fingerprint,
            module,
            path,
        })
    }

    /// The one peer that is meant.
    fn find_peer<'a>(
        &self,
        port: Option<u16>,
        trust: &'a TrustStore,
    ) -> Result<&'a Peer, impl FnOnce(&Target, String) -> TargetError + use<>> {
        let by_name = trust.peers().iter().filter(|peer| peer.name == self.host);
        let by_address = || {
            let here = |peer: &&Peer| self.is_at(peer);
            trust.peers().iter().filter(here)
        };
        let mut found: Vec<&Peer> = by_name.collect();
        if found.is_empty() {
            found = by_address().collect();
        }
        if found.len() > 1 {
            let wanted = port.unwrap_or(DEFAULT_PORT);
            let exact = |peer: &&&Peer| {
                peer.address
                    .as_deref()
                    .and_then(split_address)
                    .is_some_and(|(_, p)| p == wanted)
            };
            if let [one] = found.iter().filter(exact).collect::<Vec<_>>()[..] {
                return Ok(one);
            }
        }
        if let [one] = found[..] {
            return Ok(one);
        }
        let names: Vec<String> = found.iter().map(|peer| peer.name.clone()).collect();
        Err(move |target: &Target, text: String| {
            let host = escaped(&target.host);
            if names.is_empty() {
                let place = join_address(&target.host, port.unwrap_or(DEFAULT_PORT));
                return TargetError::Unknown {
                    text,
                    host,
                    place,
                    module: target.module.clone(),
                };
            }
            TargetError::Ambiguous {
                text,
                host,
                names: names.join(", "),
            }
        })
    }

    fn is_at(&self, peer: &Peer) -> bool {
        let Some((host, _)) = peer.address.as_deref().and_then(split_address) else {
            return false;
        };
        match (host.parse::<IpAddr>(), self.host.parse::<IpAddr>()) {
            (Ok(one), Ok(other)) => one == other,
            _ => host.eq_ignore_ascii_case(&self.host),
        }
    }

    /// The one way in which this target is written in messages and keys of state.
    fn display(&self, port: u16) -> String {
        let module = &self.module;
        let path = if self.path.is_root() {
            String::new()
        } else {
            format!("/{}", self.path)
        };
        if port == DEFAULT_PORT {
            format!("{}::{module}{path}", bracketed(&self.host))
        } else {
            format!("{SCHEME}{}/{module}{path}", join_address(&self.host, port))
        }
    }
}

/// Host and port of an address, the host without brackets.
pub(super) fn split_address(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

/// `host:port`, with brackets where they are needed.
pub(super) fn join_address(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

/// The host as it is written in front of a colon.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Whether a word can name a module.
pub(super) fn check_module(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the module has no name".to_owned());
    }
    if name.len() > MODULE_NAME_BYTES_MAX {
        return Err(format!(
            "the name of the module has {} bytes, more than {MODULE_NAME_BYTES_MAX}",
            name.len()
        ));
    }
    if name.trim() != name || name.chars().any(|c| c.is_control() || matches!(c, '/' | ':')) || name == "*" {
        return Err(format!(
            "{name:?} cannot name a module: no slash, colon or control character, no space at an end, and not `*`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
