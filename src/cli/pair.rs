//! `driftless pair`: uses the line that `driftless invite` printed on the receiver.
//!
//! The receiver is stored with its address and *no* modules: those of a trust entry are what a peer may write to on this
//! machine, and a receiver was given no such right.

use super::launch::Session;
use super::target::{Target, bracketed, join_address, split_address};
use super::text::{escaped, quoted};
use super::{CliError, DONE, invite, output};
use crate::daemon::status::{STATUS_VERSION, unix_now};
use crate::net::{self, LinkOptions};
use clap::Args;
use driftless_certs::{Fingerprint, MAX_CODE_CHARS, PairingCode, Peer, TrustStore, sender_config};
use driftless_protocol::message::{PairReply, PairRequest, Text};
use driftless_protocol::version::ALPN_PAIR;
use serde_json::json;
use std::io::BufRead;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::SystemTime;

/// Pair with a receiver, or with a sender that offers trees, by the line that `driftless invite` printed there
#[derive(Debug, Args)]
pub(super) struct PairArgs {
    /// The code, which begins with `driftless-pair1-`; `-` reads it from standard input, where no other user of this machine
    /// sees it in the list of processes
    code: String,
    /// What to call the receiver [default: the host it was reached at]
    #[arg(long)]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PairArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let code: PairingCode = match self.code.as_str() {
            "-" => read_code(std::io::stdin().lock())?.parse()?,
            code => code.parse()?,
        };
        if code.has_expired(SystemTime::now()) {
            return Err(CliError::failed(
                "the pairing code has expired (make a new one with `driftless invite` on the receiver)",
            ));
        }
        let session = Session::open()?;
        // Before the code is used up: a store that cannot be read or written would waste it.
        let mut trust = TrustStore::open(&session.home.peers_file())?;
        if let Some(name) = &self.name
            && let Some(other) = trust.find_by_text(name)
            && other.fingerprint != code.fingerprint()
        {
            return Err(CliError::usage(format!(
                "another peer, {}, is called {name} (choose another --name)",
                other.fingerprint
            )));
        }
        let (address, reply) = redeem(&session, &code).map_err(|error| session.explain(error))?;
        let module = String::from_utf8(reply.module.0).unwrap_or_else(|_| code.module().to_owned());
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.default_name(&trust, &address, code.fingerprint()),
        };
        let peer = Peer {
            name,
            fingerprint: code.fingerprint(),
            modules: Vec::new(),
            added: unix_now(),
            expires: None,
            address: Some(address.clone()),
        };
        let stored = trust.add(peer)?;
        let target = command_target(&stored, &address, &module, &trust, self.name.is_some());
        if self.json {
            output::json(
                &json!({"version": STATUS_VERSION, "name": stored.name, "address": address, "module": module,
                "fingerprint": stored.fingerprint.to_string(), "target": target}),
            );
        } else {
            output::line(&format!(
                "paired with {} ({}), identity {}",
                stored.name, address, stored.fingerprint
            ));
            match reply.is_tree {
                true => {
                    output::line("now run, with the directory to receive into:");
                    output::line(&format!("driftless receive DIR --from {}", quoted(&target)));
                }
                false => {
                    output::line("now run, with the directory to send:");
                    output::line(&format!("driftless seed SRC {}", quoted(&target)));
                }
            }
        }
        Ok(DONE)
    }

    /// A name that says which machine it is; one that the peer has already stays.
    fn default_name(&self, trust: &TrustStore, address: &str, fingerprint: Fingerprint) -> String {
        let host = split_address(address).map_or_else(|| address.to_owned(), |(host, _)| host);
        match trust.find(&fingerprint) {
            Some(known) => known.name.clone(),
            None => trust.free_name(&host),
        }
    }
}

/// The last word of a line: what `driftless invite` prints, with or without the command in front of it.
fn read_code(from: impl BufRead) -> Result<String, CliError> {
    let mut line = String::new();
    from.take(MAX_CODE_CHARS as u64 + 100)
        .read_line(&mut line)
        .map_err(|error| CliError::failed(format!("cannot read the code from standard input: {error}")))?;
    let code = line.split_whitespace().next_back();
    code.map(str::to_owned).ok_or_else(|| {
        CliError::usage("standard input has no code (paste the line that `driftless invite` printed)")
    })
}

/// Tries the addresses of the code one after the other; gives the one that answered.
fn redeem(session: &Session, code: &PairingCode) -> Result<(String, PairReply), CliError> {
    let mut problems = Vec::new();
    for address in code.addresses() {
        let found: Vec<SocketAddr> = match address.to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => {
                problems.push(format!("{}: {error}", escaped(address)));
                continue;
            }
        };
        let tls = sender_config(&session.identity, code.fingerprint(), &[ALPN_PAIR])?;
        let name = invite::host_name().unwrap_or_else(|| "unnamed".to_owned());
        let request = PairRequest {
            secret: *code.secret().as_bytes(),
            name: Text::from(name.as_str()),
        };
        match net::pair(session.handle(), tls, &found, &request, &LinkOptions::default()) {
            Ok(reply) => return Ok((address.clone(), reply)),
            Err(error) => problems.push(format!("{}: {error}", escaped(address))),
        }
    }
    let problems = problems.join("; ");
    Err(CliError::failed(format!(
        "cannot pair with {}: {problems}",
        code.fingerprint()
    )))
}

/// How this module is written as a target from now on: as short as the trust store allows, and by the name if the user chose
/// one.
fn command_target(peer: &Peer, address: &str, module: &str, trust: &TrustStore, is_named: bool) -> String {
    let Some((host, port)) = split_address(address) else {
        return format!("{}::{module}", peer.name);
    };
    let by_host = format!("{}::{module}", bracketed(&host));
    let by_name = format!("{}::{module}", peer.name);
    let pinned = format!(
        "driftless://{}@{}/{module}",
        peer.fingerprint,
        join_address(&host, port)
    );
    let leads_there = |text: &String| {
        let found = Target::parse(text.as_ref()).and_then(|target| target.resolve(None, trust, unix_now()));
        found.is_ok_and(|found| found.fingerprint == peer.fingerprint && found.port == port)
    };
    let by = match is_named {
        true => [by_name, by_host],
        false => [by_host, by_name],
    };
    by.into_iter().find(leads_there).unwrap_or(pinned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_with_or_without_its_command() {
        for line in ["driftless pair code\n", "code", " code \nmore\n"] {
            assert_eq!(read_code(line.as_bytes()).unwrap(), "code", "{line:?}");
        }
        assert!(matches!(read_code(&b"\n"[..]), Err(CliError::Usage(_))));
    }

    #[test]
    fn the_next_command_leads_to_the_peer() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = TrustStore::open(&dir.path().join("peers.toml")).unwrap();
        let add = |trust: &mut TrustStore, name: &str, seed, address: &str| {
            let (name, fingerprint) = (name.to_owned(), Fingerprint::from_bytes([seed; 32]));
            let address = Some(address.to_owned());
            trust
                .add(Peer {
                    name,
                    fingerprint,
                    modules: vec![],
                    added: 1,
                    expires: None,
                    address,
                })
                .unwrap()
        };
        let nas = add(&mut trust, "nas", 1, "nas:4433");
        assert_eq!(command_target(&nas, "nas:4433", "m", &trust, false), "nas::m");
        let six = add(&mut trust, "six", 2, "[fd00::1]:5000");
        assert_eq!(
            command_target(&six, "[fd00::1]:5000", "m", &trust, false),
            "[fd00::1]::m"
        );
        assert_eq!(
            command_target(&six, "[fd00::1]:5000", "m", &trust, true),
            "six::m"
        );
        let second = add(&mut trust, "nas-2", 3, "nas:5000");
        assert_eq!(
            command_target(&second, "nas:5000", "m", &trust, false),
            "nas-2::m"
        );
        let odd = add(&mut trust, "no host name", 4, "nas:5001");
        let text = command_target(&odd, "nas:5001", "m", &trust, true);
        assert_eq!(text, format!("driftless://{}@nas:5001/m", odd.fingerprint));
    }
}
