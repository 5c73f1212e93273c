//! Comparing one directory of the source with the receiver's listing of it.

use driftless_protocol::message::Row;
use driftless_protocol::{Attributes, Carried, Digest, Kind, Name, ObjectId, Timestamp, TreeSum};
use std::cmp::Ordering;

/// How it is decided whether a file's content is the target's, where one of the two sides never read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// By size and time of modification, to the nanosecond; with a window, times may be that many seconds apart.
    Times {
        /// Seconds; 0 asks for equality.
        window: u32,
    },
    /// By size alone.
    Size,
    /// Both sides read it.
    Contents,
    /// Nothing tells: both sides read it, and it counts as another one until then.
    Always,
}

impl Default for Compare {
    fn default() -> Compare {
        Compare::Times { window: 0 }
    }
}

impl Compare {
    /// Whether contents count as equal by size and times of modification.
    pub fn assumes(self, sizes: (u64, u64), times: (Timestamp, Timestamp)) -> bool {
        let near = |window: u32| times.0.seconds().abs_diff(times.1.seconds()) <= u64::from(window);
        sizes.0 == sizes.1
            && match self {
                Compare::Times { window } => times.0 == times.1 || (window > 0 && near(window)),
                Compare::Size => true,
                Compare::Contents | Compare::Always => false,
            }
    }

    /// Whether files are read whatever catalogs say.
    pub fn reads_all(self) -> bool {
        matches!(self, Compare::Contents | Compare::Always)
    }
}

/// An entry of the source, as far as it is known without reading content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Its name.
    pub name: Name,
    /// Its number.
    pub object: ObjectId,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Attributes,
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Digest of its content, if it is known for certain.
    pub digest: Option<Digest>,
    /// For a directory, the sum over everything below it.
    pub below: TreeSum,
}

/// What is to be done about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Present in the source. Any of the flags may be set; none means that all is well.
    Present {
        /// The source's object.
        object: ObjectId,
        /// The receiver's object at this name, if it is of the same kind.
        theirs: Option<ObjectId>,
        /// The receiver has an object of another kind here, which has to go.
        replaced: Option<ObjectId>,
        /// Content must be sent, or at least offered.
        content: bool,
        /// Attributes differ.
        attributes: bool,
        /// A directory whose inside must be compared, too.
        descend: bool,
    },
    /// Only the receiver has it: its number, name, and how many entries that are in all.
    Extra {
        /// The receiver's number.
        object: ObjectId,
        /// The name.
        name: Name,
        /// It and everything below it.
        entries: u64,
    },
}

/// Compares two lists that are sorted by the bytes of their names.
pub fn compare(source: &[SourceRow], receiver: &[Row], carried: Carried) -> Vec<Verdict> {
    let (mut left, mut right) = (source.iter().peekable(), receiver.iter().peekable());
    let mut verdicts = Vec::with_capacity(source.len().max(receiver.len()));
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return verdicts,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.name.cmp(&theirs.name),
        };
        let ours = if order.is_le() { left.next() } else { None };
        let theirs = if order.is_ge() { right.next() } else { None };
        verdicts.push(match (ours, theirs) {
            (Some(ours), theirs) => present(ours, theirs, carried),
            (None, Some(row)) => Verdict::Extra {
                object: row.object,
                name: row.name.clone(),
                entries: row.entries.saturating_add(1),
            },
            (None, None) => unreachable!("one of the two lists was advanced"),
        });
    }
}

fn present(ours: &SourceRow, theirs: Option<&Row>, carried: Carried) -> Verdict {
    let Some(row) = theirs.filter(|row| row.kind == ours.kind) else {
        return Verdict::Present {
            object: ours.object,
            theirs: None,
            replaced: theirs.map(|row| row.object),
            content: true,
            attributes: false,
            descend: false,
        };
    };
    let is_directory = ours.kind == Kind::Directory;
    let same_content = ours.digest.is_some() && ours.digest == row.digest && ours.size == row.size;
    Verdict::Present {
        object: ours.object,
        theirs: Some(row.object),
        replaced: None,
        content: !is_directory && !same_content,
        attributes: ours.attributes.carried(carried) != row.attributes.carried(carried),
        descend: is_directory && (ours.below != row.below || ours.object != row.object),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(name: &[u8], object: u64, kind: Kind, content: &[u8]) -> SourceRow {
        let digest = (kind != Kind::Directory).then(|| Digest::of(content));
        let (attributes, below) = (Attributes::default(), TreeSum::default());
        let size = content.len() as u64;
        SourceRow {
            name: Name::new(name).unwrap(),
            object: ObjectId(object),
            kind,
            attributes,
            size,
            digest,
            below,
        }
    }

    fn theirs(row: &SourceRow) -> Row {
        let SourceRow {
            name,
            object,
            kind,
            attributes,
            size,
            digest,
            below,
        } = row.clone();
        Row {
            name,
            object,
            kind,
            attributes,
            size,
            digest,
            below,
            entries: 0,
        }
    }

    #[test]
    fn what_counts_as_equal_unread() {
        let at = |seconds, nanoseconds| Timestamp::new(seconds, nanoseconds).unwrap();
        let times = (at(10, 1), at(10, 2));
        assert!(Compare::default().assumes((3, 3), (times.0, times.0)));
        assert!(
            !Compare::default().assumes((3, 3), times)
                && !Compare::default().assumes((3, 4), (times.0, times.0))
        );
        assert!(Compare::Times { window: 1 }.assumes((3, 3), (at(9, 0), at(10, 9))));
        assert!(!Compare::Times { window: 1 }.assumes((3, 3), (at(8, 0), at(10, 9))));
        assert!(
            Compare::Size.assumes((3, 3), (at(0, 0), at(10, 9))) && !Compare::Size.assumes((3, 4), times)
        );
        assert!(!Compare::Contents.assumes((3, 3), (times.0, times.0)) && Compare::Contents.reads_all());
        assert!(!Compare::Always.assumes((3, 3), (times.0, times.0)) && Compare::Always.reads_all());
    }

    #[test]
    fn equal_rows_ask_for_nothing() {
        let row = ours(b"a", 2, Kind::File, b"x");
        let verdicts = compare(std::slice::from_ref(&row), &[theirs(&row)], Carried::default());
        assert_eq!(
            verdicts,
            [Verdict::Present {
                object: ObjectId(2),
                theirs: Some(ObjectId(2)),
                replaced: None,
                content: false,
                attributes: false,
                descend: false
            }]
        );
    }

    #[test]
    fn each_difference_is_named() {
        let file = ours(b"b", 3, Kind::File, b"new");
        let directory = ours(b"c", 4, Kind::Directory, b"");
        let missing = ours(b"d", 5, Kind::File, b"");
        let mut old = theirs(&file);
        old.digest = Some(Digest::of(b"old"));
        old.attributes.mode = 0o600;
        let mut other = theirs(&directory);
        other.object = ObjectId(9);
        let extra = theirs(&ours(b"a", 7, Kind::File, b""));
        let verdicts = compare(
            &[file, directory, missing],
            &[extra, old, other],
            Carried::default(),
        );
        let shape: Vec<_> = verdicts
            .iter()
            .map(|verdict| match verdict {
                Verdict::Extra { entries, .. } => format!("extra {entries}"),
                Verdict::Present {
                    theirs,
                    content,
                    attributes,
                    descend,
                    ..
                } => {
                    format!("{} {content} {attributes} {descend}", theirs.map_or(0, |id| id.0))
                }
            })
            .collect();
        assert_eq!(
            shape,
            [
                "extra 1",
                "3 true true false",
                "9 false false true",
                "0 true false false"
            ]
        );
    }

    #[test]
    fn another_kind_at_the_name_is_replaced() {
        let file = ours(b"a", 2, Kind::File, b"x");
        let row = theirs(&ours(b"a", 8, Kind::Directory, b""));
        let verdicts = compare(&[file], &[row], Carried::default());
        assert!(matches!(
            &verdicts[..],
            [Verdict::Present {
                replaced: Some(ObjectId(8)),
                content: true,
                ..
            }]
        ));
    }
}
