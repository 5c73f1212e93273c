//! lsyncd's `exclude`, `excludeFrom`, `filter` and `filterFrom`.
//!
//! lsyncd gives such patterns to rsync for its first run and matches events by itself, by a translation to Lua patterns.
//! The two agree except in corners (see [`differs_from_rsync`]); here the meaning is lsyncd's own: the path is
//! `/a/b`, with a slash behind for a directory; a pattern matches from any slash on, or from the first if it starts
//! with one, up to a slash or the end; `?`, `*` and `**` are wildcards and everything else stands for itself.

use super::compile::fault_at;
use super::error::{FilterError, RuleFault, RulePlace};
use super::expression::{compile, push_byte};
use super::rule::{Matcher, Only, Rule, Scope};

pub(super) fn rule(pattern: &[u8], include: bool, place: &RulePlace) -> Result<Rule, FilterError> {
    let regex = compile(&translate(pattern)).map_err(|fault| fault_at(place, fault))?;
    Ok(Rule {
        include,
        scope: Scope::BOTH,
        perishable: false,
        negate: false,
        only: Only::Any,
        matcher: Matcher::Lsyncd(regex),
        text: pattern.into(),
        place: place.clone(),
    })
}

fn translate(pattern: &[u8]) -> String {
    let mut out = String::from(if pattern.starts_with(b"/") { r"\A" } else { "/" });
    let mut rest = pattern;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'*' => {
                let more = rest.iter().take_while(|&&byte| byte == b'*').count();
                rest = &rest[more..];
                out.push_str(if more == 0 { "[^/]*" } else { ".*" });
            }
            b'?' => out.push_str("[^/]"),
            byte => push_byte(*byte, &mut out),
        }
    }
    // lsyncd takes a dollar at the end for an anchor that is already there.
    if !pattern.ends_with(b"$") {
        out.push_str(r"(?:/|\z)");
    }
    out
}

/// Whether rsync, to which lsyncd gives the pattern for its first run, reads it differently than lsyncd does for
/// events: classes, backslashes, a dollar at the end, and wildcards that also match the directory itself.
pub fn differs_from_rsync(pattern: &[u8]) -> bool {
    let has_class = pattern.iter().any(|byte| b"[\\".contains(byte));
    has_class || pattern.ends_with(b"$") || pattern.ends_with(b"/*") || pattern.ends_with(b"/**")
}

/// The lines of an `excludeFrom` file. lsyncd skips empty lines, comments and those that start with `+`, and takes off
/// a `-` and the blanks around it.
pub(super) fn exclude_list(content: &[u8], place: &RulePlace) -> Result<Vec<Rule>, FilterError> {
    let mut found = Vec::new();
    for (line, text) in numbered(content) {
        if text[0] != b'+' {
            let pattern = text.strip_prefix(b"-").unwrap_or(text).trim_ascii_start();
            found.push(rule(pattern, false, &place.at(line))?);
        }
    }
    Ok(found)
}

/// The rules of a `filter` list: `+` or `-`, and a pattern.
pub(super) fn filter_list(content: &[u8], place: &RulePlace) -> Result<Vec<Rule>, FilterError> {
    let mut found = Vec::new();
    for (line, text) in numbered(content) {
        let place = place.at(line);
        let include = match text[0] {
            b'+' => true,
            b'-' => false,
            _ => return Err(fault_at(&place, RuleFault::NotLsyncd)),
        };
        found.push(rule(text[1..].trim_ascii_start(), include, &place)?);
    }
    Ok(found)
}

/// Lines with their numbers, without blanks in front, empty ones and comments.
fn numbered(content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let lines = (1..).zip(content.split(|&byte| byte == b'\n'));
    lines
        .map(|(number, line)| (number, line.trim_ascii_start()))
        .filter(|(_, line)| !line.is_empty() && line[0] != b'#')
}
