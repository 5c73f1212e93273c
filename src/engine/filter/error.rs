//! What can be wrong with rules, said without repeating them.
//!
//! A file of secrets that is named as a rule file by mistake must not end in a log, so a message gives the place and the
//! kind of the fault, and never any text of a file.

use driftless_protocol::name::escape;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Where rules come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleSource {
    /// An option of the command line or the configuration, such as `--exclude`.
    Option(&'static str),
    /// A file that an option or another rule names, by its path as given.
    File(Box<[u8]>),
    /// A per-directory file: its directory (from the root of the tree) and its name.
    InTree {
        /// The directory; empty for the root.
        directory: Box<[u8]>,
        /// The file's name.
        name: Box<[u8]>,
    },
    /// A per-directory file in a directory above the tree, by its absolute path.
    AboveTree(Box<[u8]>),
    /// A list that is part of the program, or comes from the environment.
    List(&'static str),
}

impl fmt::Display for RuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleSource::Option(name) | RuleSource::List(name) => f.write_str(name),
            RuleSource::File(path) | RuleSource::AboveTree(path) => escape(path, f),
            RuleSource::InTree { directory, name } => {
                if !directory.is_empty() {
                    escape(directory, f)?;
                    f.write_str("/")?;
                }
                escape(name, f)
            }
        }
    }
}

/// The place of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RulePlace {
    /// The list or file that holds it.
    pub source: Arc<RuleSource>,
    /// Its line, from 1; 0 where there are no lines.
    pub line: u32,
}

impl RulePlace {
    /// A place in a source without lines.
    pub(super) fn whole(source: RuleSource) -> RulePlace {
        RulePlace {
            source: Arc::new(source),
            line: 0,
        }
    }

    /// The place of another line of the same source.
    pub(super) fn at(&self, line: u32) -> RulePlace {
        RulePlace {
            source: Arc::clone(&self.source),
            line,
        }
    }
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.source),
            line => write!(f, "{}, line {line}", self.source),
        }
    }
}

/// Rules that can't be used. The message says where and what, and what to do, but repeats no rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}{}: {fault}", Column(*column))]
pub struct FilterError {
    /// The rule's place.
    pub place: RulePlace,
    /// The byte of the line that is at fault, from 1; 0 if the line as a whole is.
    pub column: u32,
    /// What is wrong.
    pub fault: RuleFault,
}

struct Column(u32);

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            column => write!(f, ", column {column}"),
        }
    }
}

/// What is wrong with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RuleFault {
    /// The line starts with no known rule name.
    #[error(
        "not a filter rule; a rule starts with one of + - . : H S P R ! or its long name, such as `exclude`, and a \
         space (for a list of plain patterns use --exclude-from)"
    )]
    UnknownRule,
    /// A modifier that does not exist.
    #[error("unknown modifier; those of + and - are / ! C s r p x, those of merge rules also + - e n w")]
    UnknownModifier,
    /// A modifier that this kind of rule does not take.
    #[error("this kind of rule does not take that modifier; remove it")]
    ModifierNotAllowed,
    /// Nothing follows the rule's name.
    #[error("the rule ends before its pattern or file name; write one behind a single space")]
    MissingPattern,
    /// A `!` rule with something behind it.
    #[error("`!` takes no argument; put it on a line of its own")]
    ClearWithArgument,
    /// A `-C` rule with something behind it.
    #[error("`-C` stands for the built-in list and takes no argument; remove it")]
    CvsWithArgument,
    /// A rule with a side inside a file that was given one.
    #[error(
        "the merge rule that names this file fixed a side, so rules in it can't; remove the s or r there, or the side here"
    )]
    SideTwice,
    /// A pattern that is longer than any path.
    #[error("the pattern has more than {max} bytes; no path is that long", max = super::PATTERN_BYTES_MAX)]
    PatternTooLong,
    /// More rules than are reasonable.
    #[error("more than {max} rules; join some by wildcards", max = super::RULES_MAX)]
    TooManyRules,
    /// Files that merge each other.
    #[error("merge files are nested more than {max} deep; does one merge itself?", max = super::MERGE_DEPTH_MAX)]
    MergeTooDeep,
    /// More per-directory files than are reasonable.
    #[error("more than {max} different per-directory files; use fewer names", max = super::DIR_MERGES_MAX)]
    TooManyDirMerges,
    /// A rule file that is larger than is reasonable.
    #[error("the file has more than {max} bytes; is it a list of rules?", max = super::RULE_FILE_BYTES_MAX)]
    FileTooLarge,
    /// A named file that does not exist.
    #[error("the file to merge does not exist; create it or correct the name")]
    FileMissing,
    /// A named file that can't be read.
    #[error("a rule file can't be read ({0}); correct its permissions or the name")]
    FileUnreadable(ReadFault),
    /// A file in the tree that names a file outside of it.
    #[error(
        "a rule file inside the tree may only name files in the tree; move the rule into the options of the mirror"
    )]
    OutsideTree,
    /// A name of a per-directory file that is none.
    #[error("not a name for a per-directory file; it must end in a file name, without a slash behind")]
    BadMergeName,
    /// A regular expression that is malformed.
    #[error("not a valid regular expression; check brackets and repetitions")]
    BadRegex,
    /// A regular expression that would compile to too much.
    #[error("the regular expression is too large when compiled; use smaller repetition counts")]
    RegexTooLarge,
    /// A gitignore pattern that is malformed.
    #[error("not a valid gitignore pattern")]
    BadGitignore,
    /// Bytes where text is needed.
    #[error("not valid UTF-8, which this kind of rule needs; use an exclude pattern instead")]
    NotText,
    /// A line of a clsync rules file that is none.
    #[error("not a clsync rule; it is + or -, one of f d W w m s *, and a regular expression")]
    NotClsync,
    /// A line of an lsyncd filter list that is none.
    #[error("not an lsyncd filter rule; it is + or -, and a pattern")]
    NotLsyncd,
    /// A name in a `--files-from` list that is none.
    #[error("not a path below the source; `..` may not lead out of it, and no element may exceed 255 bytes")]
    BadPath,
}

/// Why a rule file can't be read; the class of the system's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadFault {
    /// Not allowed.
    #[error("permission denied")]
    Denied,
    /// It is a directory, a device or the like.
    #[error("not a regular file")]
    NotAFile,
    /// Anything else.
    #[error("read error")]
    Failed,
}
