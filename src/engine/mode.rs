//! `--chmod`: modes that are not those of the source.
//!
//! Syntax and meaning are rsync's (see CHMOD in its man page, and `chmod.c` for what that leaves open): a list of changes,
//! each octal (`644`, `D755`, `F600`) or symbolic (`u=rwX,go-w`, `Dg+s`), of which all that fit apply in order.

use thiserror::Error;

const ALL: u16 = 0o7777;
const EXECUTE: u16 = 0o111;

/// A list of changes that is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{part:?} is no change of a mode: {cause}; give a mode such as D755 or F644, or changes such as ug=rwX or Do-w, \
     with commas between them"
)]
pub struct ModeError {
    part: String,
    cause: &'static str,
}

/// Changes of modes. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModeChanges(Vec<Change>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    subject: Subject,
    keep: u16,
    set: u16,
    /// `X`: execution only where somebody may execute already, and for directories.
    only_executable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    All,
    Directories,
    Files,
}

impl ModeChanges {
    /// Reads a list. Symbolic changes that say for nobody leave out the bits of `umask`.
    pub fn parse(text: &str, umask: u16) -> Result<ModeChanges, ModeError> {
        let changes = text.split(',').map(|part| {
            change(part, umask).map_err(|cause| ModeError {
                part: part.to_owned(),
                cause,
            })
        });
        changes.collect::<Result<_, _>>().map(ModeChanges)
    }

    /// Adds the changes of another list, which apply after these.
    pub fn extend(&mut self, more: &ModeChanges) {
        self.0.extend_from_slice(&more.0);
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mode that takes the place of `mode`, `0o7777` at most. Not for symbolic links, which have none.
    pub fn apply(&self, mode: u16, is_directory: bool) -> u16 {
        let was_executable = mode & EXECUTE != 0;
        self.0.iter().fold(mode & ALL, |mode, change| {
            let fits = match change.subject {
                Subject::All => true,
                Subject::Directories => is_directory,
                Subject::Files => !is_directory,
            };
            if !fits {
                return mode;
            }
            let without = match change.only_executable && !was_executable && !is_directory {
                true => EXECUTE,
                false => 0,
            };
            mode & change.keep | change.set & !without
        })
    }
}

fn change(part: &str, umask: u16) -> Result<Change, &'static str> {
    let mut rest = part.as_bytes();
    let mut subject = Subject::All;
    // Whose permissions, and which of the set-id bits go with them.
    let (mut whose, mut special) = (0, 0);
    while let [byte, after @ ..] = rest {
        match (byte, subject) {
            (b'D', Subject::Files) | (b'F', Subject::Directories) => {
                return Err("D and F exclude each other");
            }
            (b'D', _) => subject = Subject::Directories,
            (b'F', _) => subject = Subject::Files,
            (b'u', _) => (whose, special) = (whose | 0o100, special | 0o4000),
            (b'g', _) => (whose, special) = (whose | 0o010, special | 0o2000),
            (b'o', _) => whose |= 0o001,
            (b'a', _) => (whose, special) = (0o111, 0o6000),
            _ => break,
        }
        rest = after;
    }
    match rest {
        [] => Err("it does not say which permissions"),
        [b'0'..=b'7', ..] if whose == 0 => octal(rest, subject),
        [operator @ (b'+' | b'-' | b'='), permissions @ ..] => {
            symbolic(*operator, permissions, (whose, special), subject, umask)
        }
        _ => Err("D, F, u, g, o and a stand before an octal number, +, - or ="),
    }
}

fn octal(digits: &[u8], subject: Subject) -> Result<Change, &'static str> {
    let mode = digits.iter().try_fold(0u16, |mode, digit| match digit {
        b'0'..=b'7' => Some(mode * 8 + u16::from(digit - b'0')).filter(|&mode| mode <= ALL),
        _ => None,
    });
    Ok(Change {
        subject,
        keep: 0,
        set: mode.ok_or("an octal mode is at most 7777")?,
        only_executable: false,
    })
}

fn symbolic(
    operator: u8,
    permissions: &[u8],
    (whose, special): (u16, u16),
    subject: Subject,
    umask: u16,
) -> Result<Change, &'static str> {
    let (mut what, mut top, mut only_executable) = (0, 0, false);
    for byte in permissions {
        match byte {
            b'r' => what |= 4,
            b'w' => what |= 2,
            b'x' => what |= 1,
            b'X' => (what, only_executable) = (what | 1, true),
            b's' => top |= if special == 0 { 0o4000 } else { special },
            b't' => top |= 0o1000,
            _ => return Err("behind +, - and = stand r, w, x, X, s and t"),
        }
    }
    let (whose, bits) = match whose {
        0 => (0o111, (0o111 * what) & !umask),
        whose => (whose, whose * what),
    };
    let (keep, set) = match operator {
        b'+' => (ALL, bits | top),
        b'-' => (ALL & !(bits | top), 0),
        _ => (
            ALL & !(whose * 7) & !if top == 0 { 0 } else { special },
            bits | top,
        ),
    };
    Ok(Change {
        subject,
        keep,
        set,
        only_executable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rsync 3.5 makes of them; `tests/metadata/modes.rs` compares with the rsync that is there.
    #[test]
    fn changes_are_those_of_rsync() {
        for (text, mode, file, directory) in [
            ("644", 0o7777, 0o644, 0o644),
            ("D755,F644", 0, 0o644, 0o755),
            ("Dg+s,ug+w,Fo-w,+X", 0o557, 0o775, 0o2777),
            ("+X", 0o640, 0o640, 0o751),
            ("a+X", 0o640, 0o640, 0o751),
            ("u=rwX,go=rX", 0o600, 0o644, 0o755),
            ("u=rwX,go=rX", 0o700, 0o755, 0o755),
            ("go-rwx", 0o777, 0o700, 0o700),
            ("=r", 0o777, 0o444, 0o444),
            ("+w", 0o444, 0o644, 0o644),
            ("a+w", 0o444, 0o666, 0o666),
            ("u+s", 0o755, 0o4755, 0o4755),
            ("g+s", 0o755, 0o2755, 0o2755),
            ("+s", 0o755, 0o4755, 0o4755),
            ("ug-s", 0o6755, 0o755, 0o755),
            ("a-s", 0o6755, 0o755, 0o755),
            ("a+s", 0o755, 0o6755, 0o6755),
            ("u=rws", 0o6755, 0o6655, 0o6655),
            ("u=rw", 0o6755, 0o6655, 0o6655),
            ("+t", 0o755, 0o1755, 0o1755),
            ("a-x,a+X", 0o755, 0o755, 0o755),
            ("a=", 0o777, 0, 0),
            ("F0", 0o7777, 0, 0o7777),
            ("7777", 0, 0o7777, 0o7777),
        ] {
            let changes = ModeChanges::parse(text, 0o022).unwrap();
            let found = (changes.apply(mode, false), changes.apply(mode, true));
            assert_eq!(
                found,
                (file, directory),
                "{text} of {mode:o}: {:o} {:o}",
                found.0,
                found.1
            );
        }
    }

    #[test]
    fn bad_changes_say_what_is_wrong() {
        for (text, says) in [
            ("", "which permissions"),
            ("u", "which permissions"),
            ("644,", "which permissions"),
            ("DF644", "exclude each other"),
            ("10000", "at most 7777"),
            ("648", "at most 7777"),
            ("u644", "stand before"),
            ("rwx", "stand before"),
            ("u+z", "stand r, w"),
            ("u+r+w", "stand r, w"),
        ] {
            let error = ModeChanges::parse(text, 0).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
