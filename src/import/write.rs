//! The result as a configuration of ours.

use super::Source;
use super::translate::{Draft, Import, Setting};

/// A text, and which of its lines belong to which mirror.
#[derive(Debug, Clone)]
pub struct Written {
    /// The configuration.
    pub text: String,
    /// For each mirror, the lines that it takes, from 1 on.
    pub lines: Vec<std::ops::RangeInclusive<usize>>,
}

/// Writes it. Mirrors that have a reason not to be active are comments.
pub fn toml(import: &Import, source: &Source) -> Written {
    let mut text = format!(
        "# Made by `driftless import-lsyncd` of {}; its report says what became of each key.\n",
        one_line(&source.path)
    );
    if !import.settings.is_empty() {
        text.push_str("\n[settings]\n");
        for (key, setting) in &import.settings {
            text.push_str(&entry(key, setting));
            text.push('\n');
        }
    }
    let mut lines = Vec::new();
    for mirror in &import.mirrors {
        text.push('\n');
        let first = text.lines().count() + 1;
        text.push_str(&table(mirror));
        lines.push(first..=text.lines().count());
    }
    Written { text, lines }
}

fn table(mirror: &Draft) -> String {
    let lines: Vec<String> = mirror.lines.iter().map(u32::to_string).collect();
    let mut text = format!(
        "# {} of line {}\n",
        if lines.len() == 1 { "The sync" } else { "Syncs" },
        lines.join(", ")
    );
    for stop in &mirror.stops {
        text.push_str(&format!("# not active: {}\n", one_line(stop)));
    }
    let Some(source) = mirror.source.as_ref().filter(|_| !mirror.targets.is_empty()) else {
        return text;
    };
    let mut body = vec![
        "[[mirror]]".to_owned(),
        entry("name", &Setting::Text(mirror.name.clone())),
        entry("source", &Setting::Text(source.clone())),
        entry("targets", &Setting::List(mirror.targets.clone())),
    ];
    body.extend(mirror.entries.iter().map(|(key, setting)| entry(key, setting)));
    let mark = if mirror.stops.is_empty() { "" } else { "#" };
    for line in body {
        text.push_str(&format!("{mark}{line}\n"));
    }
    text
}

/// `key = value`
pub(super) fn entry(key: &str, setting: &Setting) -> String {
    let value = match setting {
        Setting::Switch(is) => is.to_string(),
        Setting::Text(text) => quoted(text),
        Setting::List(list) => {
            let list: Vec<_> = list.iter().map(|text| quoted(text)).collect();
            format!("[{}]", list.join(", "))
        }
    };
    format!("{key} = {value}")
}

/// A text in quotes, on one line whatever is in it: it may stand in a comment.
pub(super) fn quoted(text: &str) -> String {
    // The escapes of JSON are among those of TOML, which takes no DEL.
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

/// A text that ends no comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
