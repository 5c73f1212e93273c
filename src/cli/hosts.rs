//! From where a module may be reached: `--hosts-allow` and `--hosts-deny`.

use crate::engine::hosts::{Hosts, Network};
use clap::Args;

/// Options of a module that is offered to other machines.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "From where it may be reached")]
pub(super) struct HostsArgs {
    /// Answer peers at these addresses only, such as 192.0.2.0/24 or 2001:db8::/32; with --hosts-deny, before it
    #[arg(long, value_name = "NETWORK,...", value_delimiter = ',')]
    hosts_allow: Vec<Network>,
    /// Do not answer peers at these addresses
    #[arg(long, value_name = "NETWORK,...", value_delimiter = ',')]
    hosts_deny: Vec<Network>,
}

impl HostsArgs {
    /// Who may come.
    pub(super) fn hosts(&self) -> Hosts {
        Hosts {
            allow: self.hosts_allow.clone(),
            deny: self.hosts_deny.clone(),
        }
    }
}
