//! The fingerprint of a filter: a hash of what decides, and of nothing else.

use super::Inner;
use super::compile::Syntax;
use super::parse::Flags;
use super::pattern::Origin;
use super::rule::{Item, Matcher, Only, Rule};

/// Changes whenever the meaning of rules or this encoding does.
const CONTEXT: &str = "driftless 2026 filter rules 1";

pub(super) fn fingerprint(inner: &Inner) -> [u8; 32] {
    let mut hash = Hash(blake3::Hasher::new_derive_key(CONTEXT));
    hash.numbers(&[inner.min_size, inner.max_size.unwrap_or(u64::MAX)]);
    hash.flags(&[
        inner.one_file_system,
        inner.common.delete_excluded,
        inner.common.zeros,
    ]);
    match &inner.named {
        None => hash.flags(&[false]),
        Some(paths) => {
            let (recursive, entries) = paths.canonical();
            hash.flags(&[true, recursive]);
            hash.numbers(&[entries.len() as u64]);
            for (path, mark) in entries {
                hash.bytes(path);
                hash.numbers(&[mark.into()]);
            }
        }
    }
    hash.items(inner, &inner.items);
    hash.0.finalize().into()
}

struct Hash(blake3::Hasher);

impl Hash {
    fn numbers(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.0.update(&number.to_le_bytes());
        }
    }

    fn flags(&mut self, flags: &[bool]) {
        for &flag in flags {
            self.0.update(&[u8::from(flag)]);
        }
    }

    /// Bytes with their length in front, so that no two sequences run together alike.
    fn bytes(&mut self, bytes: &[u8]) {
        self.numbers(&[bytes.len() as u64]);
        self.0.update(bytes);
    }

    fn items(&mut self, inner: &Inner, items: &[Item]) {
        self.numbers(&[items.len() as u64]);
        for item in items {
            match item {
                Item::Rule(rule) => self.rule(rule),
                Item::DirMerge(number, scope) => {
                    self.numbers(&[2, scope.bits().into()]);
                    if let Some(Some(slot)) = inner.slots.get(*number) {
                        self.bytes(&slot.file.name);
                        self.bytes(slot.file.way.as_deref().unwrap_or_default());
                        self.flags(&[slot.file.syntax == Syntax::Gitignore]);
                        self.modifiers(slot.file.flags);
                    }
                }
                Item::Cvs(scope, list) => {
                    self.numbers(&[3, scope.bits().into()]);
                    self.items(inner, list);
                }
                Item::Git(rules) => {
                    let patterns = rules.patterns();
                    self.numbers(&[4, rules.scope().bits().into(), patterns.len() as u64]);
                    for pattern in patterns {
                        self.bytes(pattern.as_bytes());
                    }
                }
            }
        }
    }

    fn rule(&mut self, rule: &Rule) {
        let only = match rule.only {
            Only::Any => 0,
            Only::Directories => 1,
            Only::RegularFiles => 2,
            Only::Xattrs => 3,
        };
        let kind = match &rule.matcher {
            Matcher::Pattern(pattern) if matches!(pattern.origin(), Origin::Above(_)) => 1,
            Matcher::Pattern(_) => 0,
            Matcher::Regex(_) => 2,
            Matcher::Lsyncd(_) => 3,
        };
        self.numbers(&[1, rule.scope.bits().into(), only, kind]);
        self.flags(&[rule.include, rule.perishable, rule.negate]);
        self.bytes(&rule.text);
        // An expression's meaning also depends on its dialect, which shows in its translation.
        if let Matcher::Regex(regex) | Matcher::Lsyncd(regex) = &rule.matcher {
            self.bytes(regex.as_str().as_bytes());
        }
    }

    fn modifiers(&mut self, flags: Flags) {
        self.flags(&[flags.include, flags.absolute, flags.negate, flags.perishable]);
        self.flags(&[flags.xattr, flags.sender, flags.receiver, flags.no_prefixes]);
        self.flags(&[flags.word_split, flags.no_inherit, flags.exclude_self, flags.cvs]);
    }
}
