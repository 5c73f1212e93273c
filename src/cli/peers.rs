//! `driftless peers`: who is trusted, for what.

use super::text::{escaped, parse_span};
use super::{CliError, DONE, FAILED, output};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, unix_now};
use clap::{Args, Subcommand};
use driftless_certs::{Fingerprint, Grant, Peer, Rights, TrustStore};
use serde_json::json;
use std::ffi::OsString;
use std::time::Duration;

/// List, add or remove trusted peers
#[derive(Debug, Args)]
pub(super) struct PeersArgs {
    #[command(subcommand)]
    command: PeersCommand,
}

#[derive(Debug, Subcommand)]
enum PeersCommand {
    /// List the peers of this home
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Trust a peer; one that is known already gains the modules, and has the new rights in those that it had
    Add {
        /// Its fingerprint, the last word of `driftless id` there
        fingerprint: Fingerprint,
        /// What to call it [default: the beginning of its fingerprint]
        #[arg(long)]
        name: Option<String>,
        /// A module here that it may use, or `*` for all; may be repeated
        #[arg(long, value_name = "NAME")]
        module: Vec<String>,
        /// What it may do there: `push`, `delete` and `verify`, as far as they are named (all three if none is), and
        /// `no-owner`, `no-set-id`, `no-devices`, `no-user-xattrs`, `no-acls`, `no-capabilities`, `no-security`,
        /// `no-trusted` for metadata that is not taken from it
        #[arg(long, value_name = "RIGHT,...", requires = "module")]
        rights: Option<Rights>,
        /// A tree offered here that it may pull, or `*` for all; may be repeated
        #[arg(long, value_name = "NAME")]
        tree: Vec<String>,
        /// For how long from now on; without it, for ever
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        expires: Option<Duration>,
        /// Where it receives, as HOST:PORT, to send to it by name or host
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
    },
    /// Trust a peer no longer; a connection that it has open is ended within 5 seconds
    Remove {
        /// Its name or fingerprint
        #[arg(value_name = "NAME-OR-FINGERPRINT")]
        peer: OsString,
    },
}

impl PeersArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let mut trust = TrustStore::open(&home.peers_file())?;
        match &self.command {
            PeersCommand::List { json } => list(&home, &trust, *json),
            PeersCommand::Add {
                fingerprint,
                name,
                module,
                rights,
                tree,
                expires,
                address,
            } => {
                let prefix = || format!("peer-{}", &fingerprint.to_string()[..8]);
                let name = name.clone().unwrap_or_else(|| trust.free_name(&prefix()));
                let grant = |module: &String| Grant {
                    module: module.clone(),
                    rights: rights.unwrap_or_default(),
                };
                let peer = Peer {
                    name,
                    fingerprint: *fingerprint,
                    modules: module
                        .iter()
                        .map(grant)
                        .chain(tree.iter().map(Grant::pull))
                        .collect(),
                    added: unix_now(),
                    expires: expires.map(|time| unix_now().saturating_add(time.as_secs())),
                    address: address.clone(),
                };
                let stored = trust.add(peer)?;
                output::line(&describe(&stored, unix_now()));
                if stored.modules.is_empty() && stored.address.is_none() {
                    output::note(
                        "it may write to no module and pull no tree here, and has no address to send to: give --module, --tree or \
                         --address",
                    );
                }
                Ok(DONE)
            }
            PeersCommand::Remove { peer } => {
                let text = peer.to_str().unwrap_or_default();
                match trust.remove(text)? {
                    Some(removed) => {
                        output::line(&format!("removed {}", describe(&removed, unix_now())));
                        Ok(DONE)
                    }
                    None => {
                        output::note(&format!(
                            "there is no peer {} in the home {home} (see `driftless peers list`)",
                            escaped(peer)
                        ));
                        Ok(FAILED)
                    }
                }
            }
        }
    }
}

fn list(home: &Home, trust: &TrustStore, as_json: bool) -> Result<u8, CliError> {
    if as_json {
        let peers: Vec<_> = trust.peers().iter().map(listed).collect();
        output::json(&json!({"version": STATUS_VERSION, "home": home.to_string(), "peers": peers}));
        return Ok(DONE);
    }
    let now = unix_now();
    trust
        .peers()
        .iter()
        .for_each(|peer| output::line(&describe(peer, now)));
    if trust.peers().is_empty() {
        output::note(&format!(
            "no peer is trusted in the home {home} (make an invite with `driftless invite`)"
        ));
    }
    Ok(DONE)
}

/// A peer in JSON.
fn listed(peer: &Peer) -> serde_json::Value {
    let modules: Vec<_> = peer.modules.iter().map(|grant| &grant.module).collect();
    let rights = |grant: &Grant| json!({"module": grant.module, "rights": grant.rights});
    let rights: Vec<_> = peer.modules.iter().map(rights).collect();
    json!({"name": peer.name, "fingerprint": peer.fingerprint.to_string(), "modules": modules, "rights": rights,
        "added": peer.added, "expires": peer.expires, "address": peer.address})
}

/// A grant, in words: `photos`, or `music (push, no-devices)`.
fn granted(grant: &Grant) -> String {
    let module = match grant.module.as_str() {
        "*" => "all modules",
        module => module,
    };
    match grant.rights {
        Rights::ALL => module.to_owned(),
        Rights::PULL if grant.module == "*" => "all trees (pull)".to_owned(),
        rights => format!("{module} ({rights})"),
    }
}

/// `NAME  FINGERPRINT  rights  address`.
fn describe(peer: &Peer, now: u64) -> String {
    let mut text = format!("{}  {}", peer.name, peer.fingerprint);
    if !peer.modules.is_empty() {
        let modules: Vec<_> = peer.modules.iter().map(granted).collect();
        text.push_str(&format!("  may use {}", modules.join(", ")));
    }
    if let Some(address) = &peer.address {
        text.push_str(&format!("  receives on {address}"));
    }
    match peer.expires {
        Some(expires) if now >= expires => text.push_str("  EXPIRED"),
        Some(expires) => {
            let left = std::time::Duration::from_secs(expires - now);
            text.push_str(&format!("  expires in {}", super::text::span(left)));
        }
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_in_one_line() {
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        let mut peer = Peer {
            name: "nas".to_owned(),
            fingerprint,
            modules: vec![Grant::all("*")],
            added: 1,
            expires: Some(100),
            address: Some("nas:4433".to_owned()),
        };
        let expected =
            format!("nas  {fingerprint}  may use all modules  receives on nas:4433  expires in 40 s");
        assert_eq!(describe(&peer, 60), expected);
        assert!(describe(&peer, 100).ends_with("EXPIRED"));
        peer.modules = vec![
            Grant::all("a"),
            Grant {
                module: "b".to_owned(),
                rights: "push,no-devices".parse().unwrap(),
            },
        ];
        let text = describe(&peer, 60);
        assert!(text.contains("may use a, b (push, no-devices)"), "{text}");
        let json = listed(&peer);
        assert_eq!(json["modules"], json!(["a", "b"]));
        assert_eq!(json["rights"][1]["rights"], json!(["push", "no-devices"]));
        peer = Peer {
            modules: vec![],
            expires: None,
            address: None,
            ..peer
        };
        assert_eq!(describe(&peer, 0), format!("nas  {fingerprint}"));
    }
}
