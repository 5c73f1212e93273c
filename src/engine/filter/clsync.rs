//! The rules file of clsync: one rule per line, `+` or `-`, a letter, and a POSIX extended regular expression.
//!
//! As in clsync, the first rule decides, apart for walking, watching and sending; what no rule speaks of is allowed.
//! What is not sent is protected from deletion, too, as under rsync's excludes.

use super::compile::fault_at;
use super::error::{FilterError, RuleFault, RulePlace};
use super::expression::{compile, from_posix};
use super::rule::{Matcher, Only, Rule, Scope};

pub(super) fn rules(content: &[u8], place: &RulePlace) -> Result<Vec<Rule>, FilterError> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(content.split(|&byte| byte == b'\n')) {
        if !line.is_empty() && line[0] != b'#' {
            let place = place.at(number);
            found.push(rule(line, &place).map_err(|fault| fault_at(&place, fault))?);
        }
    }
    Ok(found)
}

fn rule(line: &[u8], place: &RulePlace) -> Result<Rule, RuleFault> {
    let (include, letter, expression) = match line {
        [b'+', letter, expression @ ..] => (true, *letter, expression),
        [b'-', letter, expression @ ..] => (false, *letter, expression),
        _ => return Err(RuleFault::NotClsync),
    };
    let send = Scope::TRANSFER.with(Scope::DELETE);
    let (only, scope) = match letter {
        b'*' => (Only::Any, Scope::BOTH),
        b'f' => (Only::RegularFiles, Scope::BOTH),
        b'd' => (Only::Directories, Scope::BOTH),
        b'w' => (Only::Directories, Scope::WALK),
        b'm' => (Only::Directories, Scope::WATCH),
        b'W' => (Only::Directories, Scope::WALK.with(Scope::WATCH)),
        b's' => (Only::Directories, send),
        _ => return Err(RuleFault::NotClsync),
    };
    Ok(Rule {
        include,
        scope,
        perishable: false,
        negate: false,
        only,
        matcher: Matcher::Regex(compile(&from_posix(expression)?)?),
        text: expression.into(),
        place: place.clone(),
    })
}
