//! What a sender calls its users and groups: by name, by number, or as `--usermap`, `--groupmap` and `--chown` say.
//!
//! The syntax and its meaning are rsync's: `FROM:TO` lists, of which the first that matches counts. FROM is a name, a
//! name with wildcards, a number, or a range of numbers; an empty one is that of numbers without a name, and `*` is
//! everybody. TO is a name or number of the receiver's.

use crate::engine::filter::Wildcard;
use driftless_protocol::{Called, OwnerKind, OwnerName};
use std::ops::RangeInclusive;
use thiserror::Error;

/// A map that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OwnerRulesError {
    /// A part is not `FROM:TO`.
    #[error("{part:?} has no colon: give FROM:TO, such as `ann:backup`, `1000-1999:nobody` or `*:backup`")]
    NoColon {
        /// The part.
        part: String,
    },
    /// Nothing stands behind the colon.
    #[error("{part:?} says nothing behind the colon: give the name or number of the receiver's {kind}")]
    NoTarget {
        /// The part.
        part: String,
        /// User or group.
        kind: OwnerKind,
    },
    /// A number or range is none.
    #[error("{text:?} is no number or range of numbers: give 0 to 4294967294, or LOW-HIGH")]
    Number {
        /// What was given.
        text: String,
    },
    /// A pattern is malformed.
    #[error("{text:?} is no pattern: a bracket is not closed, or a backslash stands at its end")]
    Pattern {
        /// What was given.
        text: String,
    },
    /// A name cannot be one.
    #[error("{text:?} is no name: {cause}")]
    Name {
        /// What was given.
        text: String,
        /// Why.
        cause: &'static str,
    },
    /// `--chown` without user and group.
    #[error("{text:?} names neither a user nor a group: give USER, USER:GROUP or :GROUP")]
    Chown {
        /// What was given.
        text: String,
    },
}

/// What is told of users and groups. The default tells their names.
#[derive(Debug, Clone, Default)]
pub struct OwnerRules {
    numeric: bool,
    users: Vec<Rule>,
    groups: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    from: From,
    to: Called,
}

#[derive(Debug, Clone)]
enum From {
    Numbers(RangeInclusive<u32>),
    Name(Vec<u8>),
    Pattern(Wildcard),
}

impl From {
    fn is(&self, id: u32, name: &[u8]) -> bool {
        match self {
            From::Numbers(range) => range.contains(&id),
            From::Name(wanted) => wanted == name,
            From::Pattern(pattern) => pattern.matches(name),
        }
    }
}

impl OwnerRules {
    /// The rules of a `--usermap` or `--groupmap`.
    pub fn of_map(kind: OwnerKind, map: &str) -> Result<OwnerRules, OwnerRulesError> {
        let mut rules = OwnerRules::default();
        *rules.of_mut(kind) = map
            .split(',')
            .map(|part| rule(kind, part))
            .collect::<Result<_, _>>()?;
        Ok(rules)
    }

    /// The rules of a `--chown`, which gives everything to a user, a group, or both.
    pub fn of_chown(owner: &str) -> Result<OwnerRules, OwnerRulesError> {
        let mut rules = OwnerRules::default();
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        if user.is_empty() && group.is_empty() {
            let text = owner.to_owned();
            return Err(OwnerRulesError::Chown { text });
        }
        for (kind, name) in [(OwnerKind::User, user), (OwnerKind::Group, group)] {
            if !name.is_empty() {
                let (from, to) = (From::Numbers(0..=u32::MAX), target(name)?);
                rules.of_mut(kind).push(Rule { from, to });
            }
        }
        Ok(rules)
    }

    /// Whether names are not told. Then FROM only matches numbers and `*`.
    pub fn numeric(mut self, numeric: bool) -> OwnerRules {
        self.numeric = numeric;
        self
    }

    /// Adds the rules of others behind those that there are.
    pub fn extend(&mut self, more: &OwnerRules) {
        self.users.extend_from_slice(&more.users);
        self.groups.extend_from_slice(&more.groups);
    }

    /// What a number is called, whose name here is `name`; none if it means itself. Nobody but rules calls user and group 0
    /// anything.
    pub fn called(&self, kind: OwnerKind, id: u32, name: Option<OwnerName>) -> Option<Called> {
        let name = name.filter(|_| !self.numeric);
        let bytes = name.as_ref().map_or(&b""[..], OwnerName::as_bytes);
        if let Some(rule) = self.of(kind).iter().find(|rule| rule.from.is(id, bytes)) {
            return Some(rule.to.clone());
        }
        name.filter(|_| id != 0).map(Called::Name)
    }

    /// Whether the names of this machine are needed to tell what a number is called.
    pub fn needs_names(&self) -> bool {
        !self.numeric
    }

    /// Whether something is to be given to users or groups that the receiver must have.
    pub fn demands_names(&self) -> bool {
        let rules = self.users.iter().chain(&self.groups);
        rules.into_iter().any(|rule| matches!(rule.to, Called::Given(_)))
    }

    fn of(&self, kind: OwnerKind) -> &[Rule] {
        match kind {
            OwnerKind::User => &self.users,
            OwnerKind::Group => &self.groups,
        }
    }

    fn of_mut(&mut self, kind: OwnerKind) -> &mut Vec<Rule> {
        match kind {
            OwnerKind::User => &mut self.users,
            OwnerKind::Group => &mut self.groups,
        }
    }
}

fn rule(kind: OwnerKind, part: &str) -> Result<Rule, OwnerRulesError> {
    let Some((from, to)) = part.split_once(':') else {
        let part = part.to_owned();
        return Err(OwnerRulesError::NoColon { part });
    };
    if to.is_empty() {
        let part = part.to_owned();
        return Err(OwnerRulesError::NoTarget { part, kind });
    }
    let from = if from.starts_with(|c: char| c.is_ascii_digit()) {
        let (low, high) = from.split_once('-').unwrap_or((from, from));
        let error = || OwnerRulesError::Number {
            text: from.to_owned(),
        };
        let (low, high) = (number(low).ok_or_else(error)?, number(high).ok_or_else(error)?);
        if low > high {
            return Err(error());
        }
        From::Numbers(low..=high)
    } else if from == "*" {
        From::Numbers(0..=u32::MAX)
    } else if from.contains(['*', '?', '[']) {
        let pattern = Wildcard::new(from.as_bytes()).ok_or_else(|| OwnerRulesError::Pattern {
            text: from.to_owned(),
        })?;
        From::Pattern(pattern)
    } else {
        From::Name(from.as_bytes().to_vec())
    };
    Ok(Rule {
        from,
        to: target(to)?,
    })
}

/// A name or number of the receiver's.
fn target(text: &str) -> Result<Called, OwnerRulesError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = number(text).ok_or_else(|| OwnerRulesError::Number {
            text: text.to_owned(),
        })?;
        return Ok(Called::Number(number));
    }
    let name = OwnerName::new(text).map_err(|cause| OwnerRulesError::Name {
        text: text.to_owned(),
        cause,
    })?;
    Ok(Called::Given(name))
}

/// All numbers but the one that stands for nobody.
fn number(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|&number: &u32| is_plain && number != super::NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<OwnerName> {
        OwnerName::new(text).ok()
    }

    fn given(text: &str) -> Option<Called> {
        name(text).map(Called::Given)
    }

    fn users(map: &str) -> OwnerRules {
        OwnerRules::of_map(OwnerKind::User, map).unwrap()
    }

    #[test]
    fn without_rules_names_are_told_and_root_is_root() {
        let rules = OwnerRules::default();
        let called = |id, text| rules.called(OwnerKind::User, id, name(text));
        assert_eq!(called(1_000, "ann"), name("ann").map(Called::Name));
        assert_eq!(called(1_000, ""), None);
        assert_eq!(called(0, "root"), None);
        let numeric = OwnerRules {
            numeric: true,
            ..OwnerRules::default()
        };
        assert_eq!(numeric.called(OwnerKind::Group, 5, name("tty")), None);
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        // The example of rsync's man page, and what that says of empty names and wildcards.
        let rules = users("0-99:nobody,wayne:admin,b?[b]*:4242,:nameless,*:normal");
        let called = |id, text| rules.called(OwnerKind::User, id, name(text));
        assert_eq!(called(0, "root"), given("nobody"));
        assert_eq!(called(99, "wayne"), given("nobody"));
        assert_eq!(called(100, "wayne"), given("admin"));
        assert_eq!(called(100, "bob"), Some(Called::Number(4242)));
        assert_eq!(called(100, "bobby"), Some(Called::Number(4242)));
        assert_eq!(called(100, ""), given("nameless"));
        assert_eq!(called(100, "else"), given("normal"));
        // Groups have rules of their own.
        assert_eq!(
            rules.called(OwnerKind::Group, 9, name("g")),
            name("g").map(Called::Name)
        );
    }

    #[test]
    fn with_numbers_only_no_name_matches() {
        let mut rules = users("ann:1,7:2,?*:3,*:4");
        rules.numeric = true;
        assert_eq!(
            rules.called(OwnerKind::User, 5, name("ann")),
            Some(Called::Number(4))
        );
        assert_eq!(
            rules.called(OwnerKind::User, 7, name("ann")),
            Some(Called::Number(2))
        );
    }

    #[test]
    fn chown_gives_everything_away() {
        for (text, user, group) in [
            ("web", true, false),
            ("web:", true, false),
            (":www", false, true),
            ("web:www", true, true),
        ] {
            let rules = OwnerRules::of_chown(text).unwrap();
            let called = rules.called(OwnerKind::User, 0, name("root"));
            assert_eq!(called, given("web").filter(|_| user), "{text}");
            let called = rules.called(OwnerKind::Group, 0, name("root"));
            assert_eq!(called, given("www").filter(|_| group), "{text}");
            assert!(rules.demands_names(), "{text}");
        }
        assert!(!OwnerRules::of_chown("33:34").unwrap().demands_names());
    }

    #[test]
    fn bad_maps_say_what_is_wrong() {
        for (map, says) in [
            ("", "no colon"),
            ("ann", "no colon"),
            ("ann:bob,", "no colon"),
            ("ann:", "behind the colon"),
            ("1-:bob", "no number"),
            ("1-2-3:bob", "no number"),
            ("9-1:bob", "no number"),
            ("1x:bob", "no number"),
            ("4294967295:bob", "no number"),
            ("4294967296:bob", "no number"),
            ("ann:4294967295", "no number"),
            ("[a:bob", "no pattern"),
            ("ann:a\0b", "zero byte"),
        ] {
            let error = OwnerRules::of_map(OwnerKind::User, map).unwrap_err().to_string();
            assert!(error.contains(says), "{map}: {error}");
        }
        for owner in ["", ":"] {
            let error = OwnerRules::of_chown(owner).unwrap_err().to_string();
            assert!(error.contains("neither"), "{owner}: {error}");
        }
    }

    /// rsync refuses this; here the map counts first.
    #[test]
    fn a_chown_is_for_those_whom_no_map_names() {
        let mut rules = users("ann:bob");
        rules.extend(&OwnerRules::of_chown("web").unwrap());
        assert_eq!(rules.called(OwnerKind::User, 5, name("ann")), given("bob"));
        assert_eq!(rules.called(OwnerKind::User, 0, name("root")), given("web"));
    }
}
