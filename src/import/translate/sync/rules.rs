//! Rules of the filter: lsyncd's own keys, and their order.

use super::{Outcome, Reader, Setting};
use crate::engine::filter::differs_from_rsync;
use crate::import::rsync::Rule;
use crate::import::value::Value;

const READ_TWICE: &str = "lsyncd read such a pattern in two ways, its own for events and rsync's at the start; rsync's counts here";

impl Reader<'_> {
    /// `exclude`, `excludeFrom`, `filter` and `filterFrom`.
    pub(super) fn filters(&mut self) {
        for (key, rule) in [
            ("exclude", Rule::Exclude),
            ("excludeFrom", Rule::ExcludeFrom),
            ("filter", Rule::Filter),
            ("filterFrom", Rule::Filter),
        ] {
            let Some(value) = self.get(key) else { continue };
            let texts = match &value {
                Value::Text(text) => Some(vec![text.clone()]),
                Value::Table(table) if !key.ends_with("From") => {
                    let count = table.indexed.len() + table.named.len();
                    let texts: Vec<String> = table.items().filter_map(Value::word).collect();
                    (texts.len() == count).then_some(texts)
                }
                _ => None,
            };
            let Some(texts) = texts else {
                self.wrong(key, &value);
                continue;
            };
            if key.ends_with("From") && !texts[0].starts_with('/') {
                self.stop(key, &value, "it is relative to wherever lsyncd was started");
            }
            let odd = texts
                .iter()
                .any(|text| differs_from_rsync(pattern_of(rule, text)));
            let text = if odd { READ_TWICE } else { "" };
            let to = match key {
                "filterFrom" => "filter".to_owned(),
                _ => rule_key(rule).to_owned(),
            };
            self.note(key, &value, Outcome::Carried, Some(to), text);
            let rules = texts.into_iter().map(|text| match key {
                "filterFrom" => (rule, format!(". {text}")),
                _ => (rule, text),
            });
            self.rules.extend(rules);
        }
    }
}

/// The pattern of a rule of lsyncd's.
fn pattern_of(rule: Rule, text: &str) -> &[u8] {
    match rule {
        Rule::Exclude => text.as_bytes(),
        Rule::Filter => text.trim_start_matches(['+', '-', ' ']).as_bytes(),
        _ => b"",
    }
}

/// The key of ours for a kind of rule.
pub(super) fn rule_key(rule: Rule) -> &'static str {
    match rule {
        Rule::Exclude => "exclude",
        Rule::Include => "include",
        Rule::ExcludeFrom => "exclude-from",
        Rule::IncludeFrom => "include-from",
        Rule::Filter | Rule::Delete | Rule::DeleteExcluded => "filter",
    }
}

/// Rules as keys. Keys are tried in their order; where one would have to be there twice, all become one list of filter rules.
pub(super) fn in_order(rules: &[(Rule, String)]) -> Vec<(&'static str, Setting)> {
    let mut keys: Vec<(&'static str, Vec<String>)> = Vec::new();
    for (rule, text) in rules {
        match keys.last_mut() {
            Some((key, list)) if *key == rule_key(*rule) => list.push(text.clone()),
            _ => keys.push((rule_key(*rule), vec![text.clone()])),
        }
    }
    let is_twice = (1..keys.len()).any(|at| keys[..at].iter().any(|(key, _)| *key == keys[at].0));
    if is_twice {
        let all = rules.iter().map(|(rule, text)| as_filter(*rule, text)).collect();
        keys = vec![("filter", all)];
    }
    keys.into_iter()
        .map(|(key, list)| (key, Setting::List(list)))
        .collect()
}

fn as_filter(rule: Rule, text: &str) -> String {
    // rsync's --exclude and --include take such prefixes, too.
    let has_prefix = text.starts_with("+ ") || text.starts_with("- ") || text == "!";
    match rule {
        Rule::Exclude if !has_prefix => format!("- {text}"),
        Rule::Include if !has_prefix => format!("+ {text}"),
        Rule::ExcludeFrom => format!(".- {text}"),
        Rule::IncludeFrom => format!(".+ {text}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_keep_their_order() {
        let rule = |rule: Rule, text: &str| (rule, text.to_owned());
        let list = |texts: &[&str]| Setting::List(texts.iter().map(|text| (*text).to_owned()).collect());
        let plain = [
            rule(Rule::Include, "a"),
            rule(Rule::Exclude, "b"),
            rule(Rule::Exclude, "c"),
        ];
        assert_eq!(
            in_order(&plain),
            [("include", list(&["a"])), ("exclude", list(&["b", "c"]))]
        );
        let mixed = [
            rule(Rule::Exclude, "x"),
            rule(Rule::Include, "a"),
            rule(Rule::ExcludeFrom, "/f"),
            rule(Rule::Exclude, "+ y"),
            rule(Rule::Filter, "P z"),
        ];
        assert_eq!(
            in_order(&mixed),
            [("filter", list(&["- x", "+ a", ".- /f", "+ y", "P z"]))]
        );
    }
}
