//! Lines about changes in a form that the user chose: rsync's `--out-format`.
//!
//! The escapes are those of "log format" in rsyncd.conf(5), as far as they are known of a change before it is made. Between `%`
//! and the letter may stand `'` (one for groups of digits, two for units of 1,000, three for units of 1,024), `-` (to the left),
//! and a width. `%%` is a `%`, and what is no escape is printed as it is.

use super::itemize::{Change, Item, escape};
use driftless_protocol::{Kind, Timestamp};
use std::fmt::Write;
use std::str::FromStr;
use thiserror::Error;

/// A format, ready to be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutFormat(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Escape(Escape),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Escape {
    what: What,
    figures: Figures,
    is_left: bool,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Permissions,
    LongName,
    Group,
    Itemized,
    Length,
    Link,
    Modified,
    Name,
    Operation,
    Process,
    Now,
    User,
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figures {
    Plain,
    Grouped,
    /// With a letter, in powers of this.
    Units(u64),
}

/// Why a text is no format.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OutFormatError {
    /// It has an escape of rsync's that means nothing here.
    #[error("%{0} is not known here: {1}")]
    NotKnown(char, &'static str),
    /// It has an escape that rsync has not, either.
    #[error("%{0} is no escape (there are %B %f %G %i %l %L %M %n %o %p %t %U)")]
    Unknown(char),
    /// A width is too large to be meant.
    #[error("a width is over {WIDTH_MAX}")]
    Width,
}

/// Widest column.
const WIDTH_MAX: usize = 1_000;

/// What is known beside the change.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Contents go to another machine.
    pub is_remote: bool,
    /// The path of the source.
    pub source: &'a str,
    /// The number of this process.
    pub process: u32,
    /// The time of day, as [`Facts::time`] writes it.
    pub now: &'a str,
    /// Writes a time of modification: `2026/11/21-20:33:10`.
    pub time: &'a dyn Fn(Timestamp) -> String,
}

impl FromStr for OutFormat {
    type Err = OutFormatError;

    fn from_str(text: &str) -> Result<OutFormat, OutFormatError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                plain.push('%');
                rest = after;
                continue;
            }
            match Escape::parse(&rest[1..])? {
                Some((escape, length)) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Escape(escape));
                    rest = &rest[1 + length..];
                }
                None => {
                    plain.push('%');
                    rest = &rest[1..];
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(OutFormat(parts))
    }
}

impl Escape {
    /// Reads what follows a `%`; answers how many bytes that is. `None` if no letter follows.
    fn parse(text: &str) -> Result<Option<(Escape, usize)>, OutFormatError> {
        let quotes = text.bytes().take_while(|&byte| byte == b'\'').count().min(3);
        let after = &text[quotes..];
        let is_left = after.starts_with('-');
        let after = &after[usize::from(is_left)..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let Some(letter) = after[digits..].chars().next().filter(char::is_ascii_alphabetic) else {
            return Ok(None);
        };
        let width = match &after[..digits] {
            "" => 0,
            digits => digits.parse().unwrap_or(usize::MAX),
        };
        if width > WIDTH_MAX {
            return Err(OutFormatError::Width);
        }
        let escape = Escape {
            what: What::of(letter)?,
            figures: match quotes {
                0 => Figures::Plain,
                1 => Figures::Grouped,
                2 => Figures::Units(1_000),
                _ => Figures::Units(1_024),
            },
            is_left,
            width,
        };
        Ok(Some((escape, quotes + usize::from(is_left) + digits + 1)))
    }

    fn number(self, number: u64) -> String {
        match self.figures {
            Figures::Plain => number.to_string(),
            Figures::Units(unit) if number >= unit => in_units(number, unit),
            Figures::Grouped | Figures::Units(_) => grouped(number),
        }
    }

    fn value(self, item: &Item, facts: &Facts<'_>) -> String {
        let attributes = &item.attributes;
        match self.what {
            What::Permissions => permissions(item),
            What::LongName => long_name(item, facts.source),
            What::Group => attributes.gid.to_string(),
            What::Itemized => item.letters(facts.is_remote),
            What::Length => self.number(item.length),
            What::Link => link(item),
            What::Modified => (facts.time)(attributes.mtime),
            What::Name => item.shown(),
            What::Operation if item.change == Change::Delete => "del.".to_owned(),
            What::Operation => "send".to_owned(),
            What::Process => facts.process.to_string(),
            What::Now => facts.now.to_owned(),
            What::User => attributes.uid.to_string(),
        }
    }
}

impl What {
    fn of(letter: char) -> Result<What, OutFormatError> {
        const DAEMON: &str = "only an rsync daemon can tell it";
        Ok(match letter {
            'B' => What::Permissions,
            'f' => What::LongName,
            'G' => What::Group,
            'i' => What::Itemized,
            'l' => What::Length,
            'L' => What::Link,
            'M' => What::Modified,
            'n' => What::Name,
            'o' => What::Operation,
            'p' => What::Process,
            't' => What::Now,
            'U' => What::User,
            'a' | 'h' | 'm' | 'P' | 'u' => return Err(OutFormatError::NotKnown(letter, DAEMON)),
            'b' | 'c' => {
                let reason = "files share frames and streams, so what travels is not counted by file (--stats has the sums)";
                return Err(OutFormatError::NotKnown(letter, reason));
            }
            'C' => {
                let reason = "a line can be due before the file is read (driftless verify compares digests)";
                return Err(OutFormatError::NotKnown(letter, reason));
            }
            _ => return Err(OutFormatError::Unknown(letter)),
        })
    }
}

impl OutFormat {
    /// The line about a change.
    pub fn line(&self, item: &Item, facts: &Facts<'_>) -> String {
        let mut line = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Escape(escape) => {
                    let (value, width) = (escape.value(item, facts), escape.width);
                    // Writing to a string cannot fail.
                    let _ = match escape.is_left {
                        true => write!(line, "{value:<width$}"),
                        false => write!(line, "{value:>width$}"),
                    };
                }
            }
        }
        line
    }
}

/// As `ls -l` has them, without the type.
fn permissions(item: &Item) -> String {
    let mode = match item.kind {
        _ if item.change == Change::Delete => return "-".repeat(9),
        Kind::Symlink => 0o777,
        _ => item.attributes.mode,
    };
    let bit = |shift: u16, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let execute = |shift: u16, special: u16, letter: char| match (mode >> shift & 1, mode >> special & 1) {
        (0, 0) => '-',
        (1, 0) => 'x',
        (1, _) => letter,
        _ => letter.to_ascii_uppercase(),
    };
    [
        bit(8, 'r'),
        bit(7, 'w'),
        execute(6, 11, 's'),
        bit(5, 'r'),
        bit(4, 'w'),
        execute(3, 10, 's'),
        bit(2, 'r'),
        bit(1, 'w'),
        execute(0, 9, 't'),
    ]
    .iter()
    .collect()
}

/// The path below the source with that in front, and no slash behind directories.
fn long_name(item: &Item, source: &str) -> String {
    let mut path = String::new();
    escape(&item.path, &mut path);
    let source = source.trim_matches('/');
    match (item.change == Change::Delete, path.is_empty()) {
        (true, _) => path,
        (false, true) => format!("{source}/."),
        (false, false) => format!("{source}/{path}"),
    }
}

fn link(item: &Item) -> String {
    let mut text = String::new();
    match &item.change {
        Change::Link(_, other) => {
            text.push_str(" => ");
            escape(other, &mut text);
        }
        Change::Symlink(_, to) => {
            text.push_str(" -> ");
            escape(to, &mut text);
        }
        _ => {}
    }
    text
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With two decimals and a letter, as rsync's `-hh`.
fn in_units(number: u64, unit: u64) -> String {
    let mut size = number as f64;
    let mut letter = ' ';
    for next in ['K', 'M', 'G', 'T', 'P'] {
        if size < unit as f64 {
            break;
        }
        size /= unit as f64;
        letter = next;
    }
    format!("{size:.2}{letter}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::itemize::Differences;
    use driftless_protocol::Attributes;

    fn item(path: &[u8], kind: Kind, change: Change) -> Item {
        Item {
            path: path.to_vec(),
            kind,
            bytes: 0,
            length: 1_234_567,
            attributes: Attributes {
                mode: 0o4751,
                uid: 5,
                gid: 6,
                ..Attributes::default()
            },
            change,
        }
    }

    fn line(format: &str, item: &Item) -> String {
        let facts = Facts {
            is_remote: false,
            source: "/srv/src/",
            process: 77,
            now: "NOW",
            time: &|_| "THEN".to_owned(),
        };
        format.parse::<OutFormat>().unwrap().line(item, &facts)
    }

    #[test]
    fn lines_are_those_of_rsync() {
        let new = Differences {
            is_new: true,
            transfer: true,
            ..Differences::default()
        };
        let file = item(b"d/f\n", Kind::File, Change::Update(new));
        assert_eq!(
            line("%i %n%L|%f|%B|%M|%U:%G|%o|%t|%p", &file),
            ">f+++++++++ d/f\\#012|srv/src/d/f\\#012|rwsr-x--x|THEN|5:6|send|NOW|77"
        );
        assert_eq!(line("%l %'l %''l %'''l", &file), "1234567 1,234,567 1.23M 1.18M");
        assert_eq!(
            line("%-10l|%10l|%'-12l|", &file),
            "1234567   |   1234567|1,234,567   |"
        );
        assert_eq!(line("100% %% %1 % ", &file), "100% % %1 % ");
        let link = item(b"l", Kind::Symlink, Change::Symlink(new, b"to".to_vec()));
        assert_eq!(line("%n%L %B", &link), "l -> to rwxrwxrwx");
        let name = item(b"h", Kind::File, Change::Link(new, b"f".to_vec()));
        assert_eq!(line("%n%L", &name), "h => f");
        let gone = item(b"g", Kind::Directory, Change::Delete);
        assert_eq!(line("%o %i %n %f %B", &gone), "del. *deleting   g/ g ---------");
        let root = item(b"", Kind::Directory, Change::Update(new));
        assert_eq!(line("%n %f", &root), "./ srv/src/.");
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for format in ["%a", "x %10h", "%b", "%C", "%'c", "%u"] {
            assert!(
                matches!(format.parse::<OutFormat>(), Err(OutFormatError::NotKnown(..))),
                "{format}"
            );
        }
        assert_eq!("%Z".parse::<OutFormat>(), Err(OutFormatError::Unknown('Z')));
        assert_eq!(
            "%9999999999999999999999n".parse::<OutFormat>(),
            Err(OutFormatError::Width)
        );
    }
}
