//! Where in the text of a configuration a key stands. Lua knows the line of a call only, so keys are looked for; that is
//! good enough for a report, and nothing else depends on it.

use std::collections::HashMap;

/// The lines of a configuration.
pub(super) struct Lines {
    /// For each name, the lines at which something is assigned to it, in their order.
    assigned: HashMap<String, Vec<u32>>,
    text: Vec<String>,
}

impl Lines {
    pub(super) fn new(text: &[u8]) -> Lines {
        let text = String::from_utf8_lossy(text);
        let mut lines = Lines {
            assigned: HashMap::new(),
            text: text.lines().map(str::to_owned).collect(),
        };
        for (number, line) in (1..).zip(&lines.text) {
            let code = line.split("--").next().unwrap_or_default();
            for name in assigned(code) {
                lines.assigned.entry(name.to_owned()).or_default().push(number);
            }
        }
        lines
    }

    /// The line at which `key` gets a value: one between two calls, the only one in the file, or the only one with this text.
    pub(super) fn of(&self, key: &str, value: &str, from: u32, until: u32) -> Option<u32> {
        let lines = self.assigned.get(key)?;
        let first = lines.partition_point(|line| *line < from);
        match (lines.get(first), &lines[..]) {
            (Some(line), _) if *line < until => Some(*line),
            (_, [only]) => Some(*only),
            _ => self.only_with(lines, value.lines().next().filter(|text| !text.is_empty())?),
        }
    }

    fn only_with(&self, lines: &[u32], value: &str) -> Option<u32> {
        // More would be looked at too often.
        const LINES_MAX: usize = 100;
        let has = |line: &&u32| {
            let text = (**line as usize).checked_sub(1).and_then(|at| self.text.get(at));
            text.is_some_and(|text| text.contains(value))
        };
        let mut found = lines.iter().take(LINES_MAX).filter(has);
        let only = found.next()?;
        found.next().is_none().then_some(*only)
    }
}

/// The names in front of equals signs: `name =`, `["name"] =`.
fn assigned(code: &str) -> impl Iterator<Item = &str> {
    let signs = code.match_indices('=').filter(|(at, _)| {
        let (before, after) = (&code[..*at], &code[at + 1..]);
        !after.starts_with('=') && !before.ends_with(['=', '~', '<', '>'])
    });
    signs.filter_map(|(at, _)| {
        let before = code[..at].trim_end().trim_end_matches([']', '"', '\'']);
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| at + 1);
        // Behind a character that is no ASCII there may be more than one byte.
        before.get(start..).filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_get_their_values() {
        let text = b"local delay = 3\nsync{\n  -- delay = 7\n  delay=5, maxdelay = 9,\n  ['target'] = 'x', if delay == 1\n}\nsync{ delay = 2 }\n";
        let lines = Lines::new(text);
        let of = |key: &str, from, until| lines.of(key, "", from, until);
        assert_eq!(of("delay", 2, 7), Some(4));
        assert_eq!(of("delay", 7, 99), Some(7));
        assert_eq!(of("target", 2, 7), Some(5));
        assert_eq!(of("target", 7, 9), Some(5));
        assert_eq!(of("source", 1, 9), None);
        // Three of them, and none where it should be.
        assert_eq!(of("delay", 5, 7), None);
        assert_eq!(lines.of("delay", "5, max", 5, 7), Some(4));
    }
}
