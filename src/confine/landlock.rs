//! Landlock: what may be opened, made, removed and renamed, and where.

use super::Needs;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

/// The newest rules that are asked for; an older kernel does what it knows of them.
const NEWEST: ABI = ABI::V6;

pub(super) fn restrict(needs: &Needs) -> Result<(), String> {
    enforced(rules(needs).and_then(RulesetCreated::restrict_self))
}

fn enforced(outcome: Result<RestrictionStatus, RulesetError>) -> Result<(), String> {
    match outcome.map(|status| status.ruleset) {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => {
            Err("this kernel has no Landlock, or none that is new enough".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Leaves nothing: no file or directory can be opened.
pub(super) fn restrict_all() -> Result<(), String> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(|rules| rules.create());
    enforced(rules.and_then(RulesetCreated::restrict_self))
}

fn rules(needs: &Needs) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        // No rule follows, so there is no TCP at all; QUIC is UDP.
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Two receivers whose directories lie one in the other find each other by locks on the directories above. So
    // directories may be opened everywhere, and nothing in them.
    if let Ok(handle) = PathFd::new("/") {
        rules = rules.add_rule(PathBeneath::new(handle, AccessFs::ReadDir))?;
    }
    let granted = needs.writable.iter().map(|path| (path, written(needs)));
    for (path, access) in granted.chain(needs.readable.iter().map(|path| (path, read))) {
        let Ok(handle) = PathFd::new(path) else { continue };
        let access = match path.is_dir() {
            true => access,
            false => access & AccessFs::from_file(NEWEST),
        };
        rules = rules.add_rule(PathBeneath::new(handle, access))?;
    }
    Ok(rules)
}

/// What is done in a directory that is written to: all but executing, and devices only if they are carried.
fn written(needs: &Needs) -> BitFlags<AccessFs> {
    let mut access = AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev);
    if !needs.devices {
        access &= !(AccessFs::MakeChar | AccessFs::MakeBlock);
    }
    access
}
