//! As what the tree appears on the target (owners, permissions, links): options of the end that sends, with rsync's names
//! and syntax.

use super::CliError;
use crate::daemon::{KeptAs, TakenAs};
use crate::engine::links::{FollowedLinks, LinkPolicy};
use crate::engine::mode::{ModeChanges, ModeError};
use crate::engine::owners::{OwnerRules, OwnerRulesError};
use clap::{Args, ValueEnum};
use driftless_protocol::OwnerKind;

/// Options of every command that sends or compares.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct AppearanceArgs {
    /// Owners and groups by number: do not look for those of the same name on the target
    #[arg(long)]
    numeric_ids: bool,
    /// Who gets whose files: FROM is a name, with wildcards or not, a number or LOW-HIGH here, nothing for numbers without a
    /// name, or `*` for everybody; TO is a name or number there. The first that matches counts
    #[arg(long, value_name = "FROM:TO,...", value_parser = usermap)]
    usermap: Option<OwnerRules>,
    /// The same for groups
    #[arg(long, value_name = "FROM:TO,...", value_parser = groupmap)]
    groupmap: Option<OwnerRules>,
    /// Everything that --usermap or --groupmap say nothing of belongs to this user, group, or both on the target
    #[arg(long, value_name = "USER:GROUP", value_parser = chown)]
    chown: Option<OwnerRules>,
    /// Change modes on the way: octal or symbolic as for chmod, with D or F in front for directories or everything else only
    /// (`D755,F644`, `go-w`, `Dg+s`); X is execution where somebody may execute already. All that fit apply, in order
    #[arg(long, value_name = "CHANGE,...", value_parser = chmod)]
    chmod: Vec<ModeChanges>,
    /// Leave symbolic links out. Without this and the following, they are mirrored as the text that they are
    #[arg(long)]
    no_links: bool,
    /// Leave out symbolic links that may lead out of the tree: absolute ones, and those with more `..` than they may have
    #[arg(long, conflicts_with = "no_links")]
    safe_links: bool,
    /// Mirror what symbolic links lead to in their place, wherever that is
    #[arg(short = 'L', long)]
    copy_links: bool,
    /// Mirror what symbolic links lead to in their place if they may lead out of the tree, as told for --safe-links
    #[arg(long)]
    copy_unsafe_links: bool,
    /// Mirror the directories that symbolic links lead to in their place; other links stay links
    #[arg(short = 'k', long)]
    copy_dirlinks: bool,
    /// Take the prefix /rsyncd-munged/ from symbolic links that have it, as a receiving end put it there
    #[arg(long)]
    munge_links: bool,
    /// The tree has owners, modes, devices, links and attributes as `receive --fake-super` or rsync's --fake-super keep them.
    /// SIDE is `source`, `target` (a directory on this machine is to keep them like that) or `both`, which is what --fake-super
    /// alone says, as in rsync
    #[arg(long, value_name = "SIDE", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "both",
        hide_possible_values = true)]
    fake_super: Option<FakeSide>,
    /// Mirror block devices as files with their content, instead of as devices. They are read at each start and by each audit,
    /// since their times tell nothing; nothing keeps what is read from changing meanwhile, so take a snapshot
    #[arg(long)]
    copy_devices: bool,
}

/// Which trees are kept with `--fake-super`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FakeSide {
    Source,
    Target,
    Both,
}

impl AppearanceArgs {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        let owners = [&self.usermap, &self.groupmap, &self.chown];
        let maps = self.numeric_ids || owners.iter().any(|rules| rules.is_some());
        maps || !self.chmod.is_empty() || self.no_links || self.safe_links
    }

    /// Which symbolic links are mirrored.
    pub(super) fn links(&self) -> LinkPolicy {
        match (self.no_links, self.safe_links) {
            (true, _) => LinkPolicy::None,
            (false, true) => LinkPolicy::Safe,
            (false, false) => LinkPolicy::All,
        }
    }

    /// What is mirrored as something else than it is.
    pub(super) fn taken_as(&self) -> TakenAs {
        TakenAs {
            followed_links: FollowedLinks {
                all: self.copy_links,
                leading_out: self.copy_unsafe_links,
                to_directories: self.copy_dirlinks,
            },
            unmunged_links: self.munge_links,
            fake_super: matches!(self.fake_super, Some(FakeSide::Source | FakeSide::Both)),
            copied_devices: self.copy_devices,
        }
    }

    /// How a directory on this machine keeps the tree, given what else was said of it.
    pub(super) fn kept_as(&self, kept_as: KeptAs) -> KeptAs {
        KeptAs {
            fake_super: matches!(self.fake_super, Some(FakeSide::Target | FakeSide::Both)),
            ..kept_as
        }
    }

    /// Refuses what only a directory on this machine can be told.
    pub(super) fn check_far(&self) -> Result<(), CliError> {
        match self.fake_super {
            Some(FakeSide::Target) => Err(CliError::usage(
                "--fake-super=target is for a directory on this machine (give --fake-super to `receive` over there)",
            )),
            _ => Ok(()),
        }
    }

    /// How modes are changed.
    pub(super) fn modes(&self) -> ModeChanges {
        let mut modes = ModeChanges::default();
        self.chmod.iter().for_each(|more| modes.extend(more));
        modes
    }

    /// What the target is told of users and groups.
    pub(super) fn rules(&self) -> OwnerRules {
        let mut rules = OwnerRules::default().numeric(self.numeric_ids);
        for more in [&self.usermap, &self.groupmap, &self.chown].into_iter().flatten() {
            rules.extend(more);
        }
        rules
    }
}

fn chmod(text: &str) -> Result<ModeChanges, ModeError> {
    ModeChanges::parse(text, crate::fs::umask())
}

fn usermap(text: &str) -> Result<OwnerRules, OwnerRulesError> {
    OwnerRules::of_map(OwnerKind::User, text)
}

fn groupmap(text: &str) -> Result<OwnerRules, OwnerRulesError> {
    OwnerRules::of_map(OwnerKind::Group, text)
}

fn chown(text: &str) -> Result<OwnerRules, OwnerRulesError> {
    OwnerRules::of_chown(text)
}
