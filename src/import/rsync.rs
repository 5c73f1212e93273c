//! Options of rsync, which lsyncd takes as keys of the table `rsync` and as words in `rsync._extra`.

mod table;

use super::value::{Table, Value};
pub(super) use table::OPTIONS;

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Always done; without the option that is a difference, and the text says which.
    Always(&'static str),
    /// Always done, unless this switch of ours is set.
    Unless(&'static str),
    /// A key of ours with the same meaning.
    Ours(&'static str),
    /// A key that not every version of driftless has, and what happens without it.
    Perhaps(&'static str, Otherwise),
    /// The same for a key of the end that writes.
    Theirs(&'static str, Otherwise),
    /// Rules of the filter, and of what is deleted.
    Rule(Rule),
    /// Something else does what it was for.
    Replaced(&'static str),
    /// It has no meaning here, and nothing is lost.
    Dropped(&'static str),
    /// A difference that harms nothing.
    Differs(&'static str),
    /// The mirror would do something else.
    Stops(&'static str),
}

/// What happens if this version has no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    Replaced(&'static str),
    Stops(&'static str),
}

/// What is excluded, included or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Exclude,
    Include,
    ExcludeFrom,
    IncludeFrom,
    Filter,
    Delete,
    DeleteExcluded,
}

impl Effect {
    /// In a table for people.
    pub(super) fn told(self) -> String {
        let otherwise = |key: &str, otherwise| {
            let (what, text) = match otherwise {
                Otherwise::Replaced(text) => ("replaced", text),
                Otherwise::Stops(text) => ("**not active**", text),
            };
            format!("`{key}`; in a version without that key {what}: {text}")
        };
        match self {
            Effect::Always(text) => format!("always; `false` is a difference: {text}"),
            Effect::Unless(key) => format!("always; `false` is `{key}`"),
            Effect::Ours(key) => format!("`{key}`"),
            Effect::Perhaps(key, without) => otherwise(key, without),
            Effect::Theirs(key, without) => otherwise(key, without) + "; of the end that writes",
            Effect::Rule(_) => "a rule, in its order".to_owned(),
            Effect::Replaced(text) => format!("replaced: {text}"),
            Effect::Dropped(text) => format!("dropped: {text}"),
            Effect::Differs(text) => format!("a difference: {text}"),
            Effect::Stops(text) => format!("**not active**: {text}"),
        }
    }
}

/// An option.
#[derive(Debug)]
pub(super) struct RsyncOption {
    /// As lsyncd writes it: with underscores.
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    pub(super) takes_value: bool,
    /// Whether it is a key of the table `rsync`, and not only a word of `_extra`.
    pub(super) is_key: bool,
    pub(super) effect: Effect,
}

/// An option as it was given.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    /// Its name with underscores, or as it was written if it is unknown.
    pub(super) name: String,
    /// `Bool` for those without one.
    pub(super) value: Value,
    /// As it was written, for the report.
    pub(super) shown: String,
}

/// The option of that name.
pub(super) fn option(name: &str) -> Option<&'static RsyncOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// The words of `_extra`, as options. One that is not known is there by its text.
pub(super) fn words(extra: &Table) -> Vec<Given> {
    let mut given = Vec::new();
    let mut items = extra.items().filter_map(Value::word).peekable();
    while let Some(word) = items.next() {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let name = name.replace('-', "_");
            let takes_value = option(&name).is_some_and(|option| option.takes_value);
            let value = value.or_else(|| takes_value.then(|| items.next()).flatten());
            given.push(long_option(&word, name, value));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            short_options(letters, &mut items, &mut given);
        } else {
            given.push(unknown(&word));
        }
    }
    given
}

fn long_option(word: &str, name: String, value: Option<String>) -> Given {
    let positive = name.strip_prefix("no_").filter(|_| option(&name).is_none());
    let is_negated = positive.is_some_and(|positive| option(positive).is_some());
    let shown = match &value {
        Some(value) if !word.contains('=') => format!("{word} {value}"),
        _ => word.to_owned(),
    };
    match positive {
        Some(positive) if is_negated => Given {
            name: positive.to_owned(),
            value: Value::Bool(false),
            shown,
        },
        _ if option(&name).is_none() => unknown(&shown),
        _ => Given {
            name,
            value: value.map_or(Value::Bool(true), Value::Text),
            shown,
        },
    }
}

fn short_options(letters: &str, items: &mut impl Iterator<Item = String>, given: &mut Vec<Given>) {
    for (at, letter) in letters.char_indices() {
        let Some(option) = OPTIONS.iter().find(|option| option.short == Some(letter)) else {
            given.push(unknown(&format!("-{letter}")));
            continue;
        };
        let mut shown = format!("-{letter}");
        if !option.takes_value {
            given.push(Given {
                name: option.name.to_owned(),
                value: Value::Bool(true),
                shown,
            });
            continue;
        }
        let rest = &letters[at + letter.len_utf8()..];
        let value = if rest.is_empty() {
            items.next().unwrap_or_default()
        } else {
            rest.to_owned()
        };
        shown.push_str(&format!(" {value}"));
        given.push(Given {
            name: option.name.to_owned(),
            value: Value::Text(value),
            shown,
        });
        return;
    }
}

fn unknown(word: &str) -> Given {
    Given {
        name: word.to_owned(),
        value: Value::Bool(true),
        shown: word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_of_extra_are_options() {
        let items = [
            "--bwlimit=500",
            "--exclude",
            "*.o",
            "-ae",
            "ssh -p 2",
            "--no-perms",
            "-xQ",
            "--frobnicate=1",
            "stray",
            "-f- a",
        ];
        let extra = Table {
            indexed: (1..)
                .zip(items.map(|item| Value::Text(item.to_owned())))
                .collect(),
            ..Table::default()
        };
        let found: Vec<_> = words(&extra)
            .into_iter()
            .map(|given| (given.name, given.value, given.shown))
            .collect();
        let text = |text: &str| Value::Text(text.to_owned());
        let on = Value::Bool(true);
        let expected = [
            ("bwlimit", text("500"), "--bwlimit=500"),
            ("exclude", text("*.o"), "--exclude *.o"),
            ("archive", on.clone(), "-a"),
            ("rsh", text("ssh -p 2"), "-e ssh -p 2"),
            ("perms", Value::Bool(false), "--no-perms"),
            ("one_file_system", on.clone(), "-x"),
            ("-Q", on.clone(), "-Q"),
            ("--frobnicate=1", on.clone(), "--frobnicate=1"),
            ("stray", on, "stray"),
            ("filter", text("- a"), "-f - a"),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, value, shown)| (name.to_owned(), value, shown.to_owned()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn no_option_is_there_twice() {
        let (mut names, mut letters) = (BTreeSet::new(), BTreeSet::new());
        for option in OPTIONS {
            assert!(names.insert(option.name), "{}", option.name);
            assert!(
                option.short.is_none_or(|letter| letters.insert(letter)),
                "{}",
                option.name
            );
        }
    }
}
