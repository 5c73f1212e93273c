//! `driftless serve`: a sender that receivers connect to.

use super::CliError;
use super::config::{Configuration, EndpointOptions};
use super::daemon;
use super::launch::{SendArgs, existing_directory};
use super::narrate::{Detail, Style};
use super::origin::Origin;
use super::receive::{EndpointArgs, Listen, default_name, parse_listen};
use super::target::check_module;
use clap::Args;
use driftless_certs::Fingerprint;
use std::path::PathBuf;

/// Offer SRC to receivers that connect to this machine, and send to each of them: the sender daemon for receivers that cannot be
/// reached
///
/// They run `driftless receive --from`. Each is let in by `driftless invite --tree`, `driftless peers add --tree` or --allow.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The tree
    src: PathBuf,
    /// Under which name it is offered [default: that of SRC]
    #[arg(long, value_name = "NAME")]
    tree: Option<String>,
    /// Where to listen (UDP): IP:PORT, IP or :PORT [default: port 4433 of all addresses]
    #[arg(long, value_name = "ADDR", value_parser = parse_listen)]
    listen: Option<Listen>,
    /// Let this peer pull the tree, whatever the trust store says; may be repeated
    #[arg(long, value_name = "FINGERPRINT")]
    allow: Vec<Fingerprint>,
    /// Print JSON, one event per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    send: SendArgs,
}

impl ServeArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let source = existing_directory("offer", &self.src)?;
        let name = match &self.tree {
            Some(name) => name.clone(),
            None => default_name(&source, "a tree (choose one with --tree NAME)")?,
        };
        check_module(&name).map_err(|fault| {
            CliError::usage(format!(
                "{} (choose another with --tree)",
                fault.replace("module", "tree")
            ))
        })?;
        self.send.check_offered()?;
        self.send.filter(&Origin::whole(source.clone()))?;
        self.send.priority.apply()?;
        let endpoint = EndpointOptions {
            endpoint: EndpointArgs::new(self.listen, self.allow.clone()),
            network: self.send.network().clone(),
            ..EndpointOptions::default()
        };
        let configuration = Configuration::offering(name, source, self.send.clone(), endpoint);
        let style = Style {
            detail: if verbose == 0 {
                Detail::Milestones
            } else {
                Detail::All
            },
            json: self.json,
            follow: true,
            name_target: true,
        };
        daemon::offer(configuration, style)
    }
}
