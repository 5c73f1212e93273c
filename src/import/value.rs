//! What a configuration did when it was run, in values that pass from one process to another.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// A value of Lua, without what only Lua could do with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Value {
    Bool(bool),
    /// Finite; all integers that a configuration has a use for are exact.
    Number(f64),
    Text(String),
    /// A text that is not UTF-8, as it is shown.
    Bytes(String),
    Table(Table),
    /// A function that the configuration defines, and the line where it begins.
    Function(Option<u32>),
    /// A function that lsyncd has, by its name.
    Builtin(String),
    /// Anything else, by what it is.
    Other(String),
}

/// A table: keys that are texts, and keys that are whole numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Table {
    pub(super) named: BTreeMap<String, Value>,
    pub(super) indexed: BTreeMap<i64, Value>,
}

/// One call that does something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    Settings(Table),
    Sync(Table),
}

/// All that a configuration did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// In their order, with their lines.
    pub(super) calls: Vec<(u32, Call)>,
    /// What it took from its surroundings, such as `os.getenv("HOME")`, with the lines.
    pub(super) surroundings: Vec<(u32, String)>,
}

/// Why a configuration cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The line at which it is seen.
    pub line: Option<u32>,
    /// The reason, and what to do.
    pub text: String,
}

impl Failure {
    pub(super) fn new(line: Option<u32>, text: impl Into<String>) -> Failure {
        Failure {
            line: line.filter(|line| *line > 0),
            text: text.into(),
        }
    }
}

impl Value {
    /// A number or a text, as a text.
    pub(super) fn word(&self) -> Option<String> {
        match self {
            Value::Number(number) => Some(decimal(*number)),
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Whether Lua takes it for true.
    pub(super) fn holds(&self) -> bool {
        *self != Value::Bool(false)
    }
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.named.get(key)
    }

    /// The values of a list, up to the first gap.
    pub(super) fn items(&self) -> impl Iterator<Item = &Value> {
        (1..).map_while(|index| self.indexed.get(&index))
    }
}

/// Without a fraction where there is none.
fn decimal(number: f64) -> String {
    format!("{number}")
}

impl fmt::Display for Value {
    /// As Lua would write it, cut short where it is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 60;
        let mut text = String::new();
        self.write(&mut text, SHOWN_MAX)?;
        match text.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => write!(f, "{}...", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

impl Value {
    fn write(&self, out: &mut String, enough: usize) -> fmt::Result {
        match self {
            Value::Bool(is) => write!(out, "{is}"),
            Value::Number(number) => out.write_str(&decimal(*number)),
            Value::Text(text) => write!(out, "{text:?}"),
            Value::Bytes(shown) => write!(out, "\"{shown}\""),
            Value::Function(Some(line)) => write!(out, "function of line {line}"),
            Value::Function(None) => out.write_str("function"),
            Value::Builtin(name) => out.write_str(name),
            Value::Other(what) => out.write_str(what),
            Value::Table(table) => {
                out.push('{');
                let named = table.named.iter().map(|(key, value)| (Some(key), value));
                let all = table.indexed.values().map(|value| (None, value)).chain(named);
                for (at, (key, value)) in all.enumerate() {
                    if out.len() > enough {
                        break;
                    }
                    out.push_str(if at == 0 { "" } else { ", " });
                    if let Some(key) = key {
                        write!(out, "{key} = ")?;
                    }
                    value.write(out, enough)?;
                }
                out.push('}');
                Ok(())
            }
        }
    }
}
