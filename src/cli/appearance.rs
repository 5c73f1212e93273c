//! As what the tree appears on the target (owners, permissions, links): options of the end that sends, with rsync's names
//! and syntax.

use crate::daemon::{KeptAs, TakenAs};
use crate::engine::links::{FollowedLinks, LinkPolicy};
use crate::engine::mode::{ModeChanges, ModeError};
use crate::engine::owners::{OwnerRules, OwnerRulesError};
use clap::Args;
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
    /// Read owners, modes, devices, links and attributes as `receive --fake-super` or rsync's --fake-super keep them. To a
    /// directory on this machine, keep them so there, too, as rsync does
    #[arg(long)]
    fake_super: bool,
}

impl AppearanceArgs {
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
            fake_super: self.fake_super,
        }
    }

    /// How a directory on this machine keeps the tree.
    pub(super) fn kept_as(&self) -> KeptAs {
        KeptAs {
            fake_super: self.fake_super,
            ..KeptAs::default()
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
