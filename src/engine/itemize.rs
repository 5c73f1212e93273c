//! What is to change about an entry, in the eleven letters of `rsync --itemize-changes`.
//!
//! The letters and their meaning are those of rsync(1): `YXcstpoguax`. Names are written as rsync writes them, except that
//! control characters and such that reorder text are escaped, too, where rsync trusts the terminal.

use super::compare::Compare;
use driftless_protocol::{Attributes, Digest, Kind};

/// What is known of an entry on one side without reading a file, or after reading it if contents are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What it is.
    pub kind: Kind,
    /// What is carried of its attributes; those that are not are zero.
    pub attributes: Attributes,
    /// Size in bytes of a file.
    pub size: u64,
    /// Digest of a link's text or a device's number; of a file's content if contents are compared.
    pub digest: Option<Digest>,
}

/// What differs. Everything is false for an entry that is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences {
    /// The target has nothing of this kind here.
    pub is_new: bool,
    /// The content of a file is sent or at least compared.
    pub transfer: bool,
    /// Content (told by its digest), text of a link, or number of a device.
    pub content: bool,
    /// Size of a file.
    pub size: bool,
    /// Time of modification.
    pub time: bool,
    /// Permissions.
    pub mode: bool,
    /// Owner.
    pub owner: bool,
    /// Group.
    pub group: bool,
    /// POSIX ACLs.
    pub acl: bool,
    /// Other extended attributes.
    pub xattrs: bool,
}

impl Differences {
    /// Compares two looks. Extended attributes are left to the caller, who knows of which kind they are.
    pub fn between(ours: &Look, theirs: Option<&Look>, compare: Compare) -> Differences {
        let Some(theirs) = theirs.filter(|theirs| theirs.kind == ours.kind) else {
            return Differences {
                is_new: true,
                transfer: ours.kind == Kind::File,
                ..Differences::default()
            };
        };
        let (here, there) = (&ours.attributes, &theirs.attributes);
        let is_file = ours.kind == Kind::File;
        let size = is_file && ours.size != theirs.size;
        let content = match ours.kind {
            Kind::Directory => false,
            Kind::File => compare == Compare::Contents && ours.digest != theirs.digest,
            _ => ours.digest != theirs.digest,
        };
        let transfer = is_file
            && match compare {
                Compare::Contents => content,
                _ => !compare.assumes((ours.size, theirs.size), (here.mtime, there.mtime)),
            };
        Differences {
            is_new: false,
            transfer,
            content,
            size,
            time: here.mtime != there.mtime,
            mode: here.mode != there.mode,
            owner: here.uid != there.uid,
            group: here.gid != there.gid,
            acl: false,
            xattrs: false,
        }
    }

    /// Whether anything is to be done.
    pub fn any(&self) -> bool {
        *self != Differences::default()
    }
}

/// One line: what is to happen at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Below the root, joined by slashes; empty for the root.
    pub path: Vec<u8>,
    /// What stands there, or is to go.
    pub kind: Kind,
    /// Size in bytes of a file that is to be there; 0 for all else.
    pub bytes: u64,
    /// Size in bytes of a file, or of the text of a link; 0 for all else.
    pub length: u64,
    /// What it has in the source; nothing for what is to go.
    pub attributes: Attributes,
    /// What is to happen.
    pub change: Change,
}

/// What is to happen at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is deleted.
    Delete,
    /// It is made, or made right.
    Update(Differences),
    /// It becomes a name of the same object as this path, and may have differed otherwise, too.
    Link(Differences, Vec<u8>),
    /// It becomes an object of its own: what it shares with others on the target is a copy here.
    Unlink(Differences),
    /// As an update, of a symbolic link, with the new text.
    Symlink(Differences, Vec<u8>),
}

impl Item {
    /// What is different, if it is not a deletion.
    pub fn differences(&self) -> Option<&Differences> {
        match &self.change {
            Change::Delete => None,
            Change::Update(differences)
            | Change::Link(differences, _)
            | Change::Unlink(differences)
            | Change::Symlink(differences, _) => Some(differences),
        }
    }

    /// The eleven letters. Contents go to another machine (`<`) if `remote`.
    pub fn letters(&self, remote: bool) -> String {
        let Some(d) = self.differences() else {
            return "*deleting  ".to_owned();
        };
        let update = match &self.change {
            Change::Link(..) => 'h',
            Change::Unlink(_) => 'c',
            _ if d.transfer && remote => '<',
            _ if d.transfer => '>',
            _ if d.is_new || d.content => 'c',
            _ => '.',
        };
        let kind = match self.kind {
            Kind::File => 'f',
            Kind::Directory => 'd',
            Kind::Symlink => 'L',
            Kind::CharDevice | Kind::BlockDevice => 'D',
            Kind::Fifo => 'S',
        };
        let letter = |differs: bool, letter: char| if differs { letter } else { '.' };
        let rest = match d.is_new {
            true => "+++++++++".to_owned(),
            false => [
                letter(d.content, 'c'),
                letter(d.size, 's'),
                letter(d.time, 't'),
                letter(d.mode, 'p'),
                letter(d.owner, 'o'),
                letter(d.group, 'g'),
                // Access and creation times are not carried.
                '.',
                letter(d.acl, 'a'),
                letter(d.xattrs, 'x'),
            ]
            .iter()
            .collect(),
        };
        // As rsync does where all of an entry is as it should be, but not what it is a name of.
        let rest = match rest == "........." && !d.transfer {
            true => " ".repeat(9),
            false => rest,
        };
        format!("{update}{kind}{rest}")
    }

    /// The path as rsync writes it: directories with a slash, the root as `./`.
    pub fn shown(&self) -> String {
        let mut shown = String::new();
        escape(&self.path, &mut shown);
        match (self.kind, self.path.is_empty()) {
            (_, true) => "./".to_owned(),
            (Kind::Directory, _) => shown + "/",
            _ => shown,
        }
    }

    /// Letters, path, and what it is linked with: a line of `rsync -i`.
    pub fn line(&self, remote: bool) -> String {
        let mut line = format!("{} {}", self.letters(remote), self.shown());
        match &self.change {
            Change::Link(_, other) => {
                line.push_str(" => ");
                escape(other, &mut line);
            }
            Change::Symlink(_, text) => {
                line.push_str(" -> ");
                escape(text, &mut line);
            }
            _ => {}
        }
        line
    }
}

/// Writes bytes as rsync does in a UTF-8 locale: what is no text as `\#` and three octal digits, and so a backslash that
/// could be taken for the beginning of one.
pub fn escape(bytes: &[u8], out: &mut String) {
    use std::fmt::Write;
    let octal = |byte: u8, out: &mut String| {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\#{byte:03o}");
    };
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let (here, after) = rest.split_at(c.len_utf8());
            rest = after;
            let looks_escaped = c == '\\'
                && matches!(rest, [b'#', a, b, c, ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()));
            if looks_escaped || (c != '\t' && (c.is_control() || hides_text(c))) {
                here.iter().for_each(|&byte| octal(byte, out));
            } else {
                out.push(c);
            }
        }
        for &byte in chunk.invalid() {
            octal(byte, out);
        }
        rest = &rest[chunk.invalid().len()..];
    }
}

/// Characters that reorder or hide what a terminal shows around them.
fn hides_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_protocol::Timestamp;

    fn look(kind: Kind, size: u64, seconds: i64) -> Look {
        Look {
            kind,
            attributes: Attributes {
                mode: 0o644,
                mtime: Timestamp::new(seconds, 5).unwrap(),
                ..Attributes::default()
            },
            size,
            digest: None,
        }
    }

    const TIMES: Compare = Compare::Times { window: 0 };

    fn letters(ours: &Look, theirs: Option<&Look>, compare: Compare) -> String {
        let change = Change::Update(Differences::between(ours, theirs, compare));
        let item = Item {
            path: b"x".to_vec(),
            kind: ours.kind,
            bytes: 0,
            length: 0,
            attributes: ours.attributes,
            change,
        };
        item.letters(false)
    }

    #[test]
    fn letters_are_those_of_rsync() {
        let file = look(Kind::File, 3, 100);
        assert_eq!(letters(&file, None, TIMES), ">f+++++++++");
        assert_eq!(
            letters(&file, Some(&look(Kind::Directory, 0, 100)), TIMES),
            ">f+++++++++"
        );
        assert_eq!(
            letters(&file, Some(&look(Kind::File, 4, 99)), TIMES),
            ">f.st......"
        );
        assert_eq!(
            letters(&file, Some(&look(Kind::File, 3, 99)), TIMES),
            ">f..t......"
        );
        let mut other = file;
        (other.attributes.mode, other.attributes.uid, other.attributes.gid) = (0, 1, 2);
        assert_eq!(letters(&file, Some(&other), TIMES), ".f...pog...");
        assert_eq!(letters(&look(Kind::Directory, 0, 1), None, TIMES), "cd+++++++++");
        let mut link = look(Kind::Symlink, 3, 100);
        link.digest = Some(Digest::of(b"new"));
        let mut old = look(Kind::Symlink, 3, 99);
        old.digest = Some(Digest::of(b"old"));
        assert_eq!(letters(&link, Some(&old), TIMES), "cLc.t......");
        old.digest = link.digest;
        assert_eq!(letters(&link, Some(&old), TIMES), ".L..t......");
        for (kind, letter) in [
            (Kind::Fifo, "cS"),
            (Kind::CharDevice, "cD"),
            (Kind::BlockDevice, "cD"),
        ] {
            assert!(letters(&look(kind, 0, 1), None, TIMES).starts_with(letter));
        }
    }

    #[test]
    fn the_compare_mode_decides_what_is_transferred() {
        let (file, later) = (look(Kind::File, 3, 100), look(Kind::File, 3, 102));
        let transfers = |theirs: &Look, compare| letters(&file, Some(theirs), compare).starts_with('>');
        assert!(!transfers(&file, TIMES) && transfers(&later, TIMES));
        assert!(
            !transfers(&later, Compare::Times { window: 2 })
                && transfers(&later, Compare::Times { window: 1 })
        );
        assert!(!transfers(&later, Compare::Size) && transfers(&look(Kind::File, 4, 100), Compare::Size));
        assert!(transfers(&file, Compare::Always));
        assert!(!transfers(&later, Compare::Contents), "both are unread, so equal");
        let mut read = file;
        read.digest = Some(Digest::of(b"x"));
        assert_eq!(letters(&read, Some(&file), Compare::Contents), ">fc........");
        let nanosecond = Look {
            attributes: Attributes {
                mtime: Timestamp::new(100, 6).unwrap(),
                ..file.attributes
            },
            ..file
        };
        assert!(transfers(&nanosecond, TIMES), "nanoseconds count");
        assert!(!Differences::between(&file, Some(&file), TIMES).any());
    }

    #[test]
    fn links_and_deletions_have_their_own_lines() {
        let item = |path: &[u8], kind, change| Item {
            path: path.to_vec(),
            kind,
            bytes: 0,
            length: 0,
            attributes: Attributes::default(),
            change,
        };
        let none = Differences::default();
        let new = Differences { is_new: true, ..none };
        let line = |item: Item| item.line(false);
        assert_eq!(
            line(item(b"d", Kind::Directory, Change::Delete)),
            "*deleting   d/"
        );
        assert_eq!(
            line(item(b"", Kind::Directory, Change::Update(new))),
            "cd+++++++++ ./"
        );
        let link = |d| Change::Link(d, b"a/b".to_vec());
        assert_eq!(line(item(b"l", Kind::File, link(new))), "hf+++++++++ l => a/b");
        assert_eq!(line(item(b"l", Kind::File, link(none))), "hf          l => a/b");
        assert_eq!(
            line(item(b"l", Kind::File, Change::Unlink(none))),
            "cf          l"
        );
        let symlink = Change::Symlink(new, b"/x y".to_vec());
        assert_eq!(line(item(b"s", Kind::Symlink, symlink)), "cL+++++++++ s -> /x y");
        let update = Change::Update(Differences {
            transfer: true,
            ..none
        });
        assert_eq!(item(b"f", Kind::File, update.clone()).line(true), "<f......... f");
    }

    #[test]
    fn odd_names_are_escaped_as_rsync_does() {
        let escaped = |bytes: &[u8]| {
            let mut out = String::new();
            escape(bytes, &mut out);
            out
        };
        assert_eq!(escaped(b"a\nb\xff\x1b"), "a\\#012b\\#377\\#033");
        assert_eq!(escaped("tab\tä ü".as_bytes()), "tab\tä ü");
        assert_eq!(escaped(b"\\#012 \\#01 \\"), "\\#134#012 \\#01 \\");
        assert_eq!(
            escaped("\u{202e}x\u{85}".as_bytes()),
            "\\#342\\#200\\#256x\\#302\\#205"
        );
        assert_eq!(escaped(b"\xe2\x80"), "\\#342\\#200");
    }
}
