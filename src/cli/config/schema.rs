//! Which keys there are: the long names of options, asked of clap, so that a flag and its key cannot differ.
//!
//! A value becomes the words that would be written on the command line, and clap reads them. What a key takes, its
//! limits, its default and its faults therefore are those of the flag.

use super::read::{Entry, Fault, Place, Value};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use std::error::Error as _;
use std::ffi::OsString;

/// What a key of an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Switch,
    /// `true`, or how many times.
    Times,
    /// One value; `true` stands for the flag without one if that is allowed.
    One { or_bare: bool },
    /// A value, or an array of them.
    Many { or_bare: bool },
}

/// The options of a struct, as keys.
pub(super) fn keys<A: Args>() -> Vec<(String, Shape)> {
    let command = command::<A>();
    let named = |arg: &Arg| Some((arg.get_long()?.to_owned(), shape(arg)));
    command.get_arguments().filter_map(named).collect()
}

/// The values that options have when nothing is said, for those that clap knows.
pub(super) fn defaults<A: Args>() -> Vec<(String, Value)> {
    let command = command::<A>();
    let value = |arg: &Arg| {
        let key = arg.get_long()?.to_owned();
        match shape(arg) {
            Shape::Switch => Some((key, Value::Bool(false))),
            Shape::Times => Some((key, Value::Bool(false))).filter(|_| counts(arg)),
            _ => {
                let text = arg.get_default_values().first()?.to_str()?.to_owned();
                Some((key, Value::Text(text)))
            }
        }
    };
    command.get_arguments().filter_map(value).collect()
}

fn command<A: Args>() -> Command {
    let mut command = A::augment_args(Command::new("driftless"))
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true);
    // Fills in how many values each takes.
    command.build();
    command
}

fn shape(arg: &Arg) -> Shape {
    let values = arg.get_num_args().unwrap_or_else(|| 1.into());
    match arg.get_action() {
        ArgAction::Count => Shape::Times,
        ArgAction::Append if values.max_values() == 0 => Shape::Times,
        ArgAction::Append => Shape::Many {
            or_bare: values.min_values() == 0,
        },
        ArgAction::Set => Shape::One {
            or_bare: values.min_values() == 0,
        },
        _ => Shape::Switch,
    }
}

/// Whether only the number of times counts, and not the place among others.
fn counts(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Count)
}

/// The words of the command line that say the same as an entry; an error says what the key takes.
fn words(entry: &Entry, shape: Shape) -> Result<Vec<OsString>, String> {
    let key = &entry.key;
    let bare = || OsString::from(format!("--{key}"));
    let with = |text: &String| OsString::from(format!("--{key}={text}"));
    match (shape, &entry.value) {
        (_, Value::Bool(false)) if shape_takes_bool(shape) => Ok(Vec::new()),
        (_, Value::Bool(true)) if shape_takes_bool(shape) => Ok(vec![bare()]),
        (Shape::Times, Value::Number(times)) => match times.parse::<u8>() {
            Ok(times) => Ok((0..times).map(|_| bare()).collect()),
            Err(_) => Err("takes true, false, or how many times".to_owned()),
        },
        (Shape::One { .. } | Shape::Many { .. }, Value::Text(text) | Value::Number(text)) => {
            Ok(vec![with(text)])
        }
        (Shape::Many { .. }, Value::List(list)) => Ok(list.iter().map(with).collect()),
        (Shape::Switch, _) => Err("takes true or false, without quotes".to_owned()),
        (Shape::Times, _) => Err("takes true, false, or how many times".to_owned()),
        (Shape::One { .. }, Value::List(_)) => Err("takes one value, not an array".to_owned()),
        (Shape::One { .. }, _) => Err("takes a text in quotes, or a number".to_owned()),
        (Shape::Many { .. }, _) => {
            Err("takes a text in quotes, or an array of them, as in [\"A\", \"B\"]".to_owned())
        }
    }
}

fn shape_takes_bool(shape: Shape) -> bool {
    matches!(
        shape,
        Shape::Switch | Shape::Times | Shape::One { or_bare: true } | Shape::Many { or_bare: true }
    )
}

/// Looks at one entry alone, for a fault that has its line. Gives the keys without which it has no meaning.
pub(super) fn check_entry<A: Args>(entry: &Entry, shape: Shape) -> Result<Vec<String>, Fault> {
    let fault = |text: String| Fault::at(&entry.place, format!("{} {text}", entry.key));
    let words = words(entry, shape).map_err(fault)?;
    let Err(error) = command::<A>().try_get_matches_from(words) else {
        return Ok(Vec::new());
    };
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) => {
            let key = |flag: &String| {
                flag.trim_start_matches('-')
                    .split([' ', '=', '['])
                    .next()
                    .map(str::to_owned)
            };
            Ok(missing.iter().filter_map(key).collect())
        }
        _ => Err(Fault::at(
            &entry.place,
            format!("{}: {}", entry.key, wrong_value(&error)),
        )),
    }
}

fn wrong_value(error: &clap::Error) -> String {
    if let Some(cause) = error.source() {
        return cause.to_string();
    }
    let said = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("{said:?} is not one of {}", valid.join(", "))
        }
        _ => first_line(error),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Reads those entries that are options of a struct; all were checked alone before.
pub(super) fn read<A: Args>(entries: &[Entry], place: &Place) -> Result<A, Fault> {
    let keys = keys::<A>();
    let mut line = Vec::new();
    for entry in entries {
        if let Some((_, shape)) = keys.iter().find(|(key, _)| *key == entry.key) {
            let words = words(entry, *shape)
                .map_err(|text| Fault::at(&entry.place, format!("{} {text}", entry.key)))?;
            line.extend(words);
        }
    }
    let matches = |line: Vec<OsString>| -> Result<A, clap::Error> {
        let matches: ArgMatches = command::<A>().try_get_matches_from(line)?;
        A::from_arg_matches(&matches)
    };
    matches(line).map_err(|error| Fault::at(place, first_line(&error)))
}

/// The name that was most likely meant.
pub(super) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.75;
    let wanted = name.replace('_', "-").to_lowercase();
    let close = names
        .into_iter()
        .map(|other| (strsim::jaro_winkler(&wanted, other), other))
        .filter(|(likeness, _)| *likeness >= ALIKE);
    close
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}
