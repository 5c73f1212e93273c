//! As what a module that is offered to other machines keeps the tree.

use super::CliError;
use crate::daemon::KeptAs;
use clap::Args;
use std::path::Path;

/// The beginning of the text of munged links.
const MUNGED: &str = "/rsyncd-munged";

/// Options of a module that `mirror` to a directory has not: there they have another meaning, or none.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct KeptAsArgs {
    /// Put /rsyncd-munged/ in front of the text of every symbolic link, so that none leads anywhere here
    #[arg(long)]
    munge_links: bool,
    /// Keep what this process may not set (owners, set-id bits, devices, ACLs and attributes of other namespaces) in user.*
    /// attributes, as rsync's --fake-super does; needs no root
    #[arg(long)]
    fake_super: bool,
}

impl KeptAsArgs {
    /// What they say, beside what else was said.
    pub(super) fn kept_as(self, kept_as: KeptAs) -> Result<KeptAs, CliError> {
        if self.munge_links && Path::new(MUNGED).is_dir() {
            return Err(CliError::failed(format!(
                "{MUNGED} is a directory, so links that begin with that lead somewhere: --munge-links needs it gone"
            )));
        }
        Ok(KeptAs {
            munged_links: self.munge_links,
            fake_super: self.fake_super,
            ..kept_as
        })
    }
}
