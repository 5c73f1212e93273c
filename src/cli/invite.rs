//! `driftless invite`: one line to paste on the sender.
//!
//! Which addresses go into the code: those given with `--address`; else the one that the running receiver listens on, if
//! it is a particular one; else this machine's addresses of the default routes, IPv4 and IPv6, and its host name last.
//! The addresses are found by connecting a UDP socket to a documentation address, which sends nothing and makes the kernel
//! choose. Behind address translation, or with several networks, they have to be given.

use super::target::{DEFAULT_PORT, bracketed, check_module, join_address, split_address};
use super::text::{parse_span, span};
use super::{CliError, DONE, output};
use crate::daemon::control::ask_all;
use crate::daemon::home::Home;
use crate::daemon::status::{DaemonStatus, ReceiverStatus, STATUS_VERSION, unix_now};
use clap::Args;
use driftless_certs::{Grant, Identity, Invites, MAX_ADDRESSES, PairingCode, Rights};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

/// Longer, and a code lies around.
const EXPIRES_MAX: Duration = Duration::from_secs(30 * 86400);

/// Let a sender pair with this receiver: prints one line to paste there
#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    /// What the peer may write to [default: the only module of the running receiver]
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
    /// The tree offered here that the peer may pull (`driftless serve`), in place of a module
    #[arg(long, value_name = "NAME", conflicts_with_all = ["module", "rights"])]
    tree: Option<String>,
    /// What it may do there, as in `driftless peers add` [default: everything that the module takes]
    #[arg(long, value_name = "RIGHT,...")]
    rights: Option<Rights>,
    /// How long the line is good for
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_expiry)]
    expires: Duration,
    /// Where the sender reaches this machine, as HOST:PORT or HOST; may be repeated, the best first
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<String>,
    /// UDP port of the receiver [default: that of the running one, or 4433]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl InviteArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let identity = Identity::load_or_create(&home.identity_dir())?;
        let fingerprint = identity.fingerprint();
        let receivers = running(&home, &fingerprint.to_string())?;
        let (module, receiver) = self.choose_module(&receivers)?;
        check_module(&module).map_err(CliError::usage)?;
        let addresses = self.addresses(receiver)?;
        let invites = Invites::open(&home.invites_dir());
        let expires_at = unix_now().saturating_add(self.expires.as_secs());
        // Checked before a secret exists.
        PairingCode::new(
            addresses.clone(),
            fingerprint,
            module.clone(),
            driftless_certs::Secret::from_bytes([0; 16]),
            expires_at,
        )?;
        let grant = Grant {
            module: module.clone(),
            rights: match &self.tree {
                Some(_) => Rights::PULL,
                None => self.rights.unwrap_or_default(),
            },
        };
        let (secret, _) = invites.create(&grant, self.expires, SystemTime::now())?;
        let code = PairingCode::new(addresses.clone(), fingerprint, module.clone(), secret, expires_at)?;
        if self.json {
            output::json(
                &json!({"version": STATUS_VERSION, "code": code.to_string(), "module": module,
                "addresses": addresses, "expires_at": expires_at, "fingerprint": fingerprint.to_string()}),
            );
        } else {
            output::line(&format!("driftless pair {code}"));
        }
        let time = span(self.expires);
        let places = addresses.join(", ");
        output::note(&match &self.tree {
            Some(tree) => {
                format!(
                    "paste that line on the receiver within {time}; it works once, and lets it pull tree {tree} from {places}"
                )
            }
            None => format!(
                "paste that line on the sender within {time}; it works once, and lets it write to module {module} on {places}"
            ),
        });
        if receiver.is_none() {
            output::note(&match &self.tree {
                Some(tree) => {
                    format!("nobody offers that tree now: run `driftless serve SRC --tree {tree}` first")
                }
                None => format!(
                    "no receiver offers that module now: run `driftless receive DIR --module {module}` first"
                ),
            });
        }
        Ok(DONE)
    }

    /// The module, and the running receiver that offers it, if one does.
    fn choose_module<'a>(
        &self,
        receivers: &'a [ReceiverStatus],
    ) -> Result<(String, Option<&'a ReceiverStatus>), CliError> {
        let offered = || {
            receivers
                .iter()
                .flat_map(|receiver| receiver.modules.iter().map(move |m| (&m.name, receiver)))
        };
        if let Some(tree) = &self.tree {
            let found = receivers.iter().find(|receiver| receiver.trees.contains(tree));
            return Ok((tree.clone(), found));
        }
        match &self.module {
            Some(wanted) => {
                let found = offered().find(|(name, _)| *name == wanted);
                Ok((wanted.clone(), found.map(|(_, receiver)| receiver)))
            }
            None => match offered().collect::<Vec<_>>()[..] {
                [(name, receiver)] => Ok((name.clone(), Some(receiver))),
                [] => Err(CliError::usage(
                    "which module? No receiver of this home is running (give --module NAME)",
                )),
                ref several => {
                    let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
                    Err(CliError::usage(format!(
                        "which module: {}? (give --module NAME)",
                        names.join(", ")
                    )))
                }
            },
        }
    }

    fn addresses(&self, receiver: Option<&ReceiverStatus>) -> Result<Vec<String>, CliError> {
        let listening = receiver.and_then(|receiver| receiver.address);
        let port = self
            .port
            .or(listening.map(|address| address.port()))
            .unwrap_or(DEFAULT_PORT);
        let mut found: Vec<String> = if !self.address.is_empty() {
            self.address
                .iter()
                .map(|address| with_port(address, port))
                .collect()
        } else if let Some(address) = listening.filter(|address| !address.ip().is_unspecified()) {
            vec![join_address(&address.ip().to_string(), port)]
        } else {
            let only_v4 = listening.is_some_and(|address| address.is_ipv4());
            let routed = routed_addresses()
                .into_iter()
                .filter(|ip| ip.is_ipv4() || !only_v4)
                .map(|ip| ip.to_string());
            routed
                .chain(host_name())
                .map(|host| join_address(&host, port))
                .collect()
        };
        let mut seen = std::collections::HashSet::new();
        found.retain(|address| seen.insert(address.clone()));
        if found.is_empty() {
            return Err(CliError::usage(
                "this machine has no address to give (say with --address HOST:PORT how it is reached)",
            ));
        }
        if self.address.is_empty() {
            found.truncate(MAX_ADDRESSES);
        }
        Ok(found)
    }
}

/// The receivers of this home that have this identity and are not there for one process alone.
fn running(home: &Home, identity: &str) -> Result<Vec<ReceiverStatus>, CliError> {
    let daemons = ask_all(home)?.daemons.into_iter();
    Ok(daemons
        .filter_map(|daemon| match daemon {
            DaemonStatus::Receiver(receiver) if receiver.identity == identity => Some(receiver),
            DaemonStatus::Receiver(_) | DaemonStatus::Sender(_) => None,
        })
        .collect())
}

/// What other machines may reach us at, as the kernel sees it.
fn routed_addresses() -> Vec<IpAddr> {
    let probes: [(SocketAddr, SocketAddr); 2] = [
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        ),
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        ),
    ];
    let own = |(from, to): (SocketAddr, SocketAddr)| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    probes.into_iter().filter_map(own).filter(usable).collect()
}

/// What this machine calls itself, if that can mean something to others.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let usable =
        !name.is_empty() && name.len() <= 253 && name.chars().all(plain) && !name.starts_with("localhost");
    usable.then(|| name.to_owned())
}

/// The address, with the port if it has none.
fn with_port(address: &str, port: u16) -> String {
    let is_bare_v6 = address.parse::<Ipv6Addr>().is_ok();
    if !is_bare_v6 && split_address(address).is_some() {
        return address.to_owned();
    }
    let host = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    format!("{}:{port}", bracketed(host))
}

fn parse_expiry(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        time if time.is_zero() => Err("it would have expired before it is read".to_owned()),
        time if time > EXPIRES_MAX => Err("at most 30 days".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::ModuleStatus;

    fn args() -> InviteArgs {
        InviteArgs {
            module: None,
            tree: None,
            rights: None,
            expires: Duration::from_secs(600),
            address: vec![],
            port: None,
            json: false,
        }
    }

    fn receiver(address: &str, modules: &[&str]) -> ReceiverStatus {
        let module = |name: &&str| ModuleStatus {
            name: (*name).to_owned(),
            path: "/m".to_owned(),
            promoted_since: None,
            keeping: crate::daemon::keeping::KeepingReport::default(),
            scrubs: Vec::new(),
            drift: Vec::new(),
            publishing: Vec::new(),
            sessions: vec![],
        };
        ReceiverStatus::new(
            "fp".to_owned(),
            &Home::at("/h"),
            address.parse().unwrap(),
            modules.iter().map(module).collect(),
        )
    }

    #[test]
    fn the_module_is_never_guessed() {
        let one = [receiver("[::]:1", &["photos"])];
        let two = [receiver("[::]:1", &["photos"]), receiver("[::]:2", &["music"])];
        assert_eq!(args().choose_module(&one).unwrap().0, "photos");
        assert!(matches!(args().choose_module(&[]), Err(CliError::Usage(_))));
        assert!(
            matches!(args().choose_module(&two), Err(CliError::Usage(text)) if text.contains("photos, music"))
        );
        let music = InviteArgs {
            module: Some("music".to_owned()),
            ..args()
        };
        let (name, found) = music.choose_module(&two).unwrap();
        assert_eq!(
            (name.as_str(), found.unwrap().address.unwrap().port()),
            ("music", 2)
        );
        assert!(music.choose_module(&one).unwrap().1.is_none());
    }

    #[test]
    fn addresses_come_from_the_user_or_the_receiver() {
        let given = InviteArgs {
            address: ["nas", "nas:1", "::1", "[::1]", "[::1]:2", "nas"]
                .map(str::to_owned)
                .to_vec(),
            ..args()
        };
        assert_eq!(
            given.addresses(None).unwrap(),
            ["nas:4433", "nas:1", "[::1]:4433", "[::1]:2"]
        );
        let here = receiver("10.0.0.1:5000", &["m"]);
        assert_eq!(args().addresses(Some(&here)).unwrap(), ["10.0.0.1:5000"]);
        let other_port = InviteArgs {
            port: Some(6),
            ..args()
        };
        assert_eq!(other_port.addresses(Some(&here)).unwrap(), ["10.0.0.1:6"]);
        let everywhere = receiver("[::]:5000", &["m"]);
        if let Ok(found) = args().addresses(Some(&everywhere)) {
            assert!(
                found.iter().all(|address| address.ends_with(":5000")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn expiries_have_bounds() {
        assert_eq!(parse_expiry("10m"), Ok(Duration::from_secs(600)));
        assert!(parse_expiry("0").is_err() && parse_expiry("31d").is_err() && parse_expiry("soon").is_err());
    }
}
