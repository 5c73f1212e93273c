//! Whose the files are on the target: options of the end that sends, with rsync's names and syntax.

use crate::engine::owners::{OwnerRules, OwnerRulesError};
use clap::Args;
use driftless_protocol::OwnerKind;

/// Options of every command that sends or compares.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OwnerArgs {
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
}

impl OwnerArgs {
    /// What the target is told of users and groups.
    pub(super) fn rules(&self) -> OwnerRules {
        let mut rules = OwnerRules::default().numeric(self.numeric_ids);
        for more in [&self.usermap, &self.groupmap, &self.chown].into_iter().flatten() {
            rules.extend(more);
        }
        rules
    }
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
