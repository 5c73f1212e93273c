//! Configuration files as text: tables, keys and values with the lines they are on, and nothing about what they mean.
//!
//! Faults quote keys, never lines: a file that is given by mistake may be a private key.

use crate::cli::text::escaped;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration is text that people write: more than this is another file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Place {
    /// The file, escaped.
    pub(super) file: Arc<str>,
    /// From 1 on.
    pub(super) line: usize,
    /// Whether the file is one of `mirrors.d`.
    pub(super) is_drop_in: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What is wrong with a configuration, in one line that begins with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Fault(pub(in crate::cli) String);

impl Fault {
    pub(super) fn at(place: &Place, text: impl fmt::Display) -> Fault {
        Fault(format!("{place}: {text}"))
    }
}

/// A value, without the distinction of texts by their quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    /// A number as it was written.
    Number(String),
    Text(String),
    List(Vec<String>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) place: Place,
}

/// The keys of one table, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

/// What one file holds.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) settings: Option<Table>,
    pub(super) mirrors: Vec<Table>,
    pub(super) trees: Vec<Table>,
    pub(super) modules: Vec<Table>,
    pub(super) hooks: Vec<Table>,
}

/// Reads a file. What is wrong with one part hides nothing that is wrong with others.
pub(super) fn read(path: &Path, is_drop_in: bool, faults: &mut Vec<Fault>) -> Document {
    let file: Arc<str> = escaped(path).into();
    match text_of(path) {
        Ok(text) => parse(&text, &file, is_drop_in, faults),
        Err(fault) => {
            faults.push(Fault(format!("{file}: {fault}")));
            Document::default()
        }
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot read the configuration: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err("cannot read the configuration: it is not a file".to_owned());
    }
    let user = rustix::process::geteuid().as_raw();
    if found.mode() & 0o002 != 0 || (found.uid() != 0 && found.uid() != user) {
        return Err(format!(
            "refusing a configuration that others can change: it belongs to user {} and has mode {:03o} (it has to \
             belong to root or to user {user}, and must not be writable for all)",
            found.uid(),
            found.mode() & 0o777
        ));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "this is no configuration: it has more than {FILE_BYTES_MAX} bytes"
        ));
    }
    String::from_utf8(bytes).map_err(|_| "this is no configuration: it is not UTF-8 text".to_owned())
}

/// Turns positions into lines.
struct Lines<'a> {
    text: &'a str,
    file: &'a Arc<str>,
    is_drop_in: bool,
}

impl Lines<'_> {
    fn place(&self, at: usize) -> Place {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        Place {
            file: self.file.clone(),
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            is_drop_in: self.is_drop_in,
        }
    }
}

/// Reads a text as if it was in a file.
pub(super) fn parse(text: &str, file: &Arc<str>, is_drop_in: bool, faults: &mut Vec<Fault>) -> Document {
    let lines = Lines {
        text,
        file,
        is_drop_in,
    };
    let mut document = Document::default();
    let parsed = match DeTable::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Never the error as it displays itself: that quotes the line.
            let place = lines.place(error.span().map_or(0, |span| span.start));
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            faults.push(Fault::at(&place, format!("not TOML: {message}")));
            return document;
        }
    };
    let mut sections: Vec<_> = parsed.get_ref().iter().collect();
    sections.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in sections {
        let place = lines.place(key.span().start);
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("settings", DeValue::Table(table)) if !is_drop_in => {
                document.settings = Some(entries(table, place, &lines, faults));
            }
            ("settings", DeValue::Table(_)) => faults.push(Fault::at(
                &place,
                "[settings] belongs into the main file, not into one of mirrors.d (write the keys into each mirror)",
            )),
            ("settings", _) => faults.push(Fault::at(&place, "settings are a table: write [settings] above them")),
            (name @ ("mirror" | "tree" | "module" | "hook"), DeValue::Array(array)) => {
                for item in array.iter() {
                    let place = lines.place(item.span().start);
                    let DeValue::Table(table) = item.get_ref() else {
                        faults.push(Fault::at(&place, format!("a {name} is a table: write [[{name}]] above it")));
                        continue;
                    };
                    let table = entries(table, place, &lines, faults);
                    match name {
                        "mirror" => document.mirrors.push(table),
                        "tree" => document.trees.push(table),
                        "hook" => document.hooks.push(table),
                        _ => document.modules.push(table),
                    }
                }
            }
            (name @ ("mirror" | "tree" | "module" | "hook"), _) => faults.push(Fault::at(
                &place,
                format!("there can be several of {name}: write [[{name}]], with two brackets"),
            )),
            (name, value) => {
                let near = super::schema::nearest(name, ["settings", "mirror", "tree", "module", "hook"]);
                let meant = match (value, near) {
                    (DeValue::Table(_) | DeValue::Array(_), Some(near)) => format!("did you mean {near:?}?"),
                    (DeValue::Table(_) | DeValue::Array(_), None) => {
                        "there are [settings], [[mirror]], [[tree]], [[module]] and [[hook]]".to_owned()
                    }
                    _ => "a key belongs into [settings], [[mirror]] or [[module]]: write one of these above it".to_owned(),
                };
                faults.push(Fault::at(&place, format!("{} is not known here: {meant}", escaped(name))));
            }
        }
    }
    document
}

fn entries(table: &DeTable<'_>, place: Place, lines: &Lines<'_>, faults: &mut Vec<Fault>) -> Table {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let mut entries = Vec::new();
    for (key, value) in pairs {
        let place = lines.place(key.span().start);
        match simple(value) {
            Ok(value) => entries.push(Entry {
                key: key.get_ref().to_string(),
                value,
                place,
            }),
            Err(what) => faults.push(Fault::at(
                &place,
                format!("{}: {what}", escaped(key.get_ref().as_ref())),
            )),
        }
    }
    Table { place, entries }
}

fn simple(value: &Spanned<DeValue<'_>>) -> Result<Value, String> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Boolean(is) => Some(Value::Bool(*is)),
        DeValue::Integer(number) if number.radix() == 10 => Some(Value::Number(number.as_str().to_owned())),
        DeValue::Float(number) => Some(Value::Number(number.as_str().to_owned())),
        _ => None,
    };
    let kind = |value: &DeValue<'_>| match value {
        DeValue::Table(_) => "a table",
        DeValue::Array(_) => "an array",
        DeValue::Datetime(_) => "a date",
        _ => "a number that is not decimal",
    };
    if let DeValue::Array(items) = value.get_ref() {
        let texts = items.iter().map(|item| match one(item.get_ref()) {
            Some(Value::Text(text) | Value::Number(text)) => Ok(text),
            Some(Value::Bool(_)) => Err("an array holds texts, not true or false".to_owned()),
            _ => Err(format!("an array holds texts, not {}", kind(item.get_ref()))),
        });
        return texts.collect::<Result<_, _>>().map(Value::List);
    }
    one(value.get_ref()).ok_or_else(|| format!("no option has the value of {}", kind(value.get_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        parse(text, &"f.toml".into(), false, &mut faults);
        faults.into_iter().map(|fault| fault.0).collect()
    }

    #[test]
    fn keys_keep_their_order_and_know_their_lines() {
        let text = "[settings]\nnice = 5\n\n[[mirror]]\nsource = '/s'\nname = \"w\"\nexclude = ['a',\n 'b']\n[[module]]\n";
        let mut faults = Vec::new();
        let document = parse(text, &"f.toml".into(), false, &mut faults);
        assert_eq!(faults, []);
        let [mirror] = &document.mirrors[..] else {
            panic!("{document:?}")
        };
        let keys: Vec<_> = mirror
            .entries
            .iter()
            .map(|e| (e.key.as_str(), e.place.line))
            .collect();
        assert_eq!(keys, [("source", 5), ("name", 6), ("exclude", 7)]);
        assert_eq!(mirror.place.line, 4);
        assert_eq!(mirror.entries[2].value, Value::List(vec!["a".into(), "b".into()]));
        assert_eq!(
            document.settings.unwrap().entries[0].value,
            Value::Number("5".into())
        );
        assert_eq!(document.modules[0].place.line, 9);
    }

    #[test]
    fn what_is_no_configuration_is_named_by_line_and_not_quoted() {
        for (text, said) in [
            ("a = 1\n", "f.toml:1: a is not known here: a key belongs into"),
            (
                "\n[seting]\n",
                "f.toml:2: seting is not known here: did you mean \"settings\"?",
            ),
            ("[mirror]\n", "f.toml:1: there can be several of mirror"),
            ("mirror = [3]\n", "f.toml:1: a mirror is a table"),
            ("[[settings]]\n", "f.toml:1: settings are a table"),
            (
                "[[mirror]]\nname = {}\n",
                "f.toml:2: name: no option has the value of a table",
            ),
            (
                "[[mirror]]\nexclude = [true]\n",
                "f.toml:2: exclude: an array holds texts",
            ),
            (
                "[[mirror]]\nnice = 0x10\n",
                "f.toml:2: nice: no option has the value of a number that is not decimal",
            ),
        ] {
            let found = faults(text);
            assert!(
                found.len() == 1 && found[0].starts_with(said),
                "{text:?}: {found:?}"
            );
        }
        let key =
            faults("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----\n").join("\n");
        assert!(
            key.starts_with("f.toml:1: not TOML") && !key.contains("BEGIN") && !key.contains("MC4C"),
            "{key}"
        );
    }
}
