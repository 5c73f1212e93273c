//! `driftless peers`: who is trusted, for what.

use super::text::escaped;
use super::{CliError, DONE, FAILED, output};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, unix_now};
use clap::{Args, Subcommand};
use driftless_certs::{Fingerprint, Peer, TrustStore};
use serde_json::json;
use std::ffi::OsString;

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
    /// Trust a peer; one that is known already gains the modules
    Add {
        /// Its fingerprint, the last word of `driftless id` there
        fingerprint: Fingerprint,
        /// What to call it [default: the beginning of its fingerprint]
        #[arg(long)]
        name: Option<String>,
        /// A module here that it may write to, or `*` for all; may be repeated
        #[arg(long, value_name = "NAME")]
        module: Vec<String>,
        /// Where it receives, as HOST:PORT, to send to it by name or host
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
    },
    /// Trust a peer no longer; its next connection is refused
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
                address,
            } => {
                let prefix = || format!("peer-{}", &fingerprint.to_string()[..8]);
                let name = name.clone().unwrap_or_else(|| trust.free_name(&prefix()));
                let (modules, address) = (module.clone(), address.clone());
                let peer = Peer {
                    name,
                    fingerprint: *fingerprint,
                    modules,
                    added: unix_now(),
                    expires: None,
                    address,
                };
                let stored = trust.add(peer)?;
                output::line(&describe(&stored, unix_now()));
                if stored.modules.is_empty() && stored.address.is_none() {
                    output::note(
                        "it may write to no module here, and has no address to send to: give --module or --address",
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
        output::json(&json!({"version": STATUS_VERSION, "home": home.to_string(), "peers": trust.peers()}));
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

/// `NAME  FINGERPRINT  rights  address`.
fn describe(peer: &Peer, now: u64) -> String {
    let mut text = format!("{}  {}", peer.name, peer.fingerprint);
    if !peer.modules.is_empty() {
        let modules = peer
            .modules
            .iter()
            .map(|module| if module == "*" { "all modules" } else { module });
        text.push_str(&format!(
            "  may write to {}",
            modules.collect::<Vec<_>>().join(", ")
        ));
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
            modules: vec!["*".to_owned()],
            added: 1,
            expires: Some(100),
            address: Some("nas:4433".to_owned()),
        };
        let expected =
            format!("nas  {fingerprint}  may write to all modules  receives on nas:4433  expires in 40 s");
        assert_eq!(describe(&peer, 60), expected);
        assert!(describe(&peer, 100).ends_with("EXPIRED"));
        peer = Peer {
            modules: vec![],
            expires: None,
            address: None,
            ..peer
        };
        assert_eq!(describe(&peer, 0), format!("nas  {fingerprint}"));
    }
}
