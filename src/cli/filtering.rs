//! Flags that say what is mirrored.
//!
//! Rules are tried in the order of the command line, whichever flags they came with, as in rsync. clap gathers the values
//! of each flag apart, so [`FilteringArgs`] puts them back in order by their positions.

use super::CliError;
use super::origin::Origin;
use super::text::escaped;
use crate::engine::filter::{
    Filter, FilterBuilder, FilterError, NamedPaths, RULE_FILE_BYTES_MAX, ReadFault, RuleFiles, RuleSource,
    SizeUnit, parse_size,
};
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use driftless_protocol::Name;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is mirrored, and what of a target's own entries may be deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct FilteringArgs {
    flags: FilteringFlags,
    /// Rules in the order in which they were given.
    rules: Vec<(RuleFlag, OsString)>,
}

/// A flag whose position among the others counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuleFlag {
    Exclude,
    Include,
    ExcludeFrom,
    IncludeFrom,
    Filter,
    DirFilters,
    ExcludeRe,
    IncludeRe,
    Gitignore,
}

/// The flags by their names in [`FilteringFlags`].
const RULE_FLAGS: [(&str, RuleFlag); 9] = [
    ("exclude", RuleFlag::Exclude),
    ("include", RuleFlag::Include),
    ("exclude_from", RuleFlag::ExcludeFrom),
    ("include_from", RuleFlag::IncludeFrom),
    ("filter", RuleFlag::Filter),
    ("dir_filters", RuleFlag::DirFilters),
    ("exclude_re", RuleFlag::ExcludeRe),
    ("include_re", RuleFlag::IncludeRe),
    ("gitignore", RuleFlag::Gitignore),
];

#[derive(Debug, Clone, Default, Args)]
#[command(
    next_help_heading = "What is mirrored (rules are tried in the order given; the first that matches decides)"
)]
struct FilteringFlags {
    /// Leave out what matches PATTERN (rsync's patterns); what a target has of it is kept
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    exclude: Vec<OsString>,
    /// Do not leave out what matches PATTERN
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
    include: Vec<OsString>,
    /// Exclude the patterns in FILE, one a line (`-` is standard input)
    #[arg(long, value_name = "FILE")]
    exclude_from: Vec<OsString>,
    /// Include the patterns in FILE
    #[arg(long, value_name = "FILE")]
    include_from: Vec<OsString>,
    /// A filter rule of rsync's, such as `- *.o`, `P /local/`, `. FILE` or `: .rules`
    #[arg(long, short = 'f', value_name = "RULE", allow_hyphen_values = true)]
    filter: Vec<OsString>,
    /// The rules in `.rsync-filter` files of each directory; twice: and those files are left out
    #[arg(
        short = 'F',
        long,
        id = "dir_filters",
        action = ArgAction::Append,
        num_args = 0,
        default_missing_value = ""
    )]
    dir_filters: Vec<OsString>,
    /// Leave out what CVS does: editor backups, object files, `.git/` and the like, and what `.cvsignore` files name
    #[arg(long, short = 'C')]
    cvs_exclude: bool,
    /// Leave out paths in which the regular expression REGEX is found
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    exclude_re: Vec<OsString>,
    /// Do not leave out paths in which REGEX is found
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    include_re: Vec<OsString>,
    /// Leave out what the `.gitignore` files (or those of NAME) of each directory name, in git's syntax
    #[arg(
        long,
        value_name = "NAME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ".gitignore"
    )]
    gitignore: Vec<OsString>,
    /// Files of rules and of --files-from end each entry with a zero byte, not a line
    #[arg(long, short = '0')]
    from0: bool,
    /// Delete from the target what is left out, too; implies `--delete always`
    #[arg(long)]
    delete_excluded: bool,
    /// Leave out files smaller than SIZE; what a target has of them is kept
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    min_size: Option<u64>,
    /// Leave out files larger than SIZE
    #[arg(long, value_name = "SIZE", value_parser = parse_limit)]
    max_size: Option<u64>,
    /// Do not enter other file systems that are mounted in the tree (by default they are part of it)
    #[arg(long, short = 'x')]
    one_file_system: bool,
    /// Mirror nothing but the paths in FILE and what is below them
    #[arg(long, value_name = "FILE")]
    files_from: Option<OsString>,
    /// Mirror SRC under its whole path, or that behind the first `/./` in it, with the directories above it
    #[arg(long, short = 'R', conflicts_with = "files_from")]
    relative: bool,
}

impl Args for FilteringArgs {
    fn augment_args(command: Command) -> Command {
        FilteringFlags::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        FilteringFlags::augment_args_for_update(command)
    }
}

impl FromArgMatches for FilteringArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut placed: Vec<(usize, RuleFlag, OsString)> = Vec::new();
        for (name, flag) in RULE_FLAGS {
            let positions = matches.indices_of(name).into_iter().flatten();
            let values = matches.get_many::<OsString>(name).into_iter().flatten();
            placed.extend(positions.zip(values).map(|(at, value)| (at, flag, value.clone())));
        }
        placed.sort_by_key(|(at, ..)| *at);
        Ok(FilteringArgs {
            flags: FilteringFlags::from_arg_matches(matches)?,
            rules: placed.into_iter().map(|(_, flag, value)| (flag, value)).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl FilteringArgs {
    /// Whether what is left out is to be deleted from targets.
    pub(super) fn delete_excluded(&self) -> bool {
        self.flags.delete_excluded
    }

    /// Whether the flags can be meant together.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match (self.flags.min_size, self.flags.max_size) {
            (Some(least), Some(most)) if least > most => Err(CliError::usage(
                "--min-size is above --max-size, so no file would be mirrored (correct one of them)",
            )),
            _ => Ok(()),
        }
    }

    /// What SRC stands for; `purpose` is a verb.
    pub(super) fn origin(&self, purpose: &str, source: &Path) -> Result<Origin, CliError> {
        Origin::find(purpose, source, self.flags.relative)
    }

    /// The filter for a source. Files of rules are read now.
    pub(super) fn filter(&self, origin: &Origin) -> Result<Filter, CliError> {
        self.check()?;
        let flags = &self.flags;
        let mut builder = FilterBuilder::new(origin.root.as_os_str().as_bytes());
        if let Some(path) = &origin.named {
            if flags.files_from.is_some() {
                return Err(CliError::usage(format!(
                    "--files-from names paths in a directory, and {} is none (leave it out, or give the directory)",
                    escaped(origin.path())
                )));
            }
            builder.only_named(NamedPaths::single(path));
        }
        builder
            .zeros(flags.from0)
            .delete_excluded(flags.delete_excluded)
            .one_file_system(flags.one_file_system);
        if flags.cvs_exclude {
            let (home, list) = cvs_lists()?;
            builder.cvs_lists(&home, &list);
        }
        let wrong = |error: FilterError| CliError::usage(error.to_string());
        for (flag, value) in &self.rules {
            add(&mut builder, *flag, value)?;
        }
        if flags.cvs_exclude {
            builder.cvs_exclude();
        }
        if let Some(bytes) = flags.min_size {
            builder.min_size(bytes);
        }
        if let Some(bytes) = flags.max_size {
            builder.max_size(bytes);
        }
        if let Some(file) = &flags.files_from {
            builder.only_named(named_paths(file, flags.from0)?);
        }
        builder.build().map_err(wrong)
    }
}

fn add(builder: &mut FilterBuilder, flag: RuleFlag, value: &OsStr) -> Result<(), CliError> {
    let (text, files) = (value.as_bytes(), &mut OptionFiles);
    let outcome = match flag {
        RuleFlag::Exclude => builder.exclude(text),
        RuleFlag::Include => builder.include(text),
        RuleFlag::ExcludeFrom => builder.exclude_from(text, files),
        RuleFlag::IncludeFrom => builder.include_from(text, files),
        RuleFlag::Filter => builder.filter(text, files),
        RuleFlag::DirFilters => builder.dir_filters(),
        RuleFlag::ExcludeRe => builder.exclude_regex(text),
        RuleFlag::IncludeRe => builder.include_regex(text),
        RuleFlag::Gitignore => match Name::new(text) {
            Ok(name) => builder.dir_gitignore(&name),
            Err(_) => {
                let text =
                    "--gitignore: not a file name (write one without slashes, such as --gitignore=.ignore)";
                return Err(CliError::usage(text));
            }
        },
    };
    outcome
        .map(drop)
        .map_err(|error| CliError::usage(error.to_string()))
}

/// The content of `~/.cvsignore`, and `$CVSIGNORE`.
fn cvs_lists() -> Result<(Vec<u8>, Vec<u8>), CliError> {
    let list = std::env::var_os("CVSIGNORE").unwrap_or_default();
    let Some(home) = std::env::var_os("HOME") else {
        return Ok((Vec::new(), list.as_bytes().to_vec()));
    };
    let path = Path::new(&home).join(".cvsignore");
    let content = match read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let text = format!("cannot read {}, which -C needs: {error}", escaped(&path));
            return Err(CliError::usage(text));
        }
    };
    Ok((content, list.as_bytes().to_vec()))
}

fn named_paths(file: &OsStr, zeros: bool) -> Result<NamedPaths, CliError> {
    let content = if file == "-" {
        read_stream(io::stdin().lock())
    } else {
        read(Path::new(file))
    };
    let content = content.map_err(|error| {
        CliError::usage(format!(
            "cannot read {}, the list of --files-from: {error}",
            escaped(file)
        ))
    })?;
    let source = RuleSource::File(file.as_bytes().into());
    let paths = NamedPaths::parse_from(source, &content, zeros, true);
    paths.map_err(|error| CliError::usage(error.to_string()))
}

/// Files that options name, by paths of this machine.
struct OptionFiles;

impl RuleFiles for OptionFiles {
    fn named(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        let content = if path == b"-" {
            read_stream(io::stdin().lock())
        } else {
            read(Path::new(OsStr::from_bytes(path)))
        };
        match content {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.kind().into()),
        }
    }

    fn in_tree(&mut self, _directory: &[u8], _name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }

    fn above_tree(&mut self, _path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        Ok(None)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_stream(File::open(path)?)
}

/// One byte more than is allowed is read, so that the filter can say that it is too much.
fn read_stream(from: impl Read) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.take(RULE_FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}

fn parse_limit(text: &str) -> Result<u64, String> {
    parse_size(text, SizeUnit::Bytes).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Parsed {
        #[command(flatten)]
        filtering: FilteringArgs,
    }

    fn parsed(words: &[&str]) -> FilteringArgs {
        let words = std::iter::once(&"driftless").chain(words);
        Parsed::try_parse_from(words).unwrap().filtering
    }

    #[test]
    fn rules_keep_the_order_of_the_command_line() {
        let args = parsed(&[
            "--include=a",
            "-F",
            "--exclude",
            "*",
            "-f",
            "- b",
            "--gitignore",
            "-F",
            "--include",
            "c",
            "--exclude-re=-x",
            "--gitignore=.ignore",
        ]);
        let rules: Vec<_> = args
            .rules
            .iter()
            .map(|(flag, value)| (*flag, value.to_str().unwrap()))
            .collect();
        use RuleFlag::*;
        assert_eq!(
            rules,
            [
                (Include, "a"),
                (DirFilters, ""),
                (Exclude, "*"),
                (Filter, "- b"),
                (Gitignore, ".gitignore"),
                (DirFilters, ""),
                (Include, "c"),
                (ExcludeRe, "-x"),
                (Gitignore, ".ignore"),
            ]
        );
    }

    #[test]
    fn order_decides() {
        let name = Name::new(*b"a.o").unwrap();
        let sent = |words: &[&str]| {
            let filter = parsed(words).filter(&Origin::whole("/srv".into())).unwrap();
            let path = driftless_protocol::RelPath::root().join(&name);
            filter
                .explain(
                    crate::engine::filter::Role::Both,
                    &path,
                    driftless_protocol::Kind::File,
                    &mut OptionFiles,
                )
                .unwrap()
                .transfer
        };
        assert!(sent(&["--include=a.o", "--exclude=*.o"]));
        assert!(!sent(&["--exclude=*.o", "--include=a.o"]));
        assert!(!sent(&["--filter=- *.o", "--include=a.o"]));
        assert!(!sent(&["--include=*.c", "-C"]));
    }

    #[test]
    fn a_fault_is_named_by_file_and_line_and_never_by_text() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rules");
        std::fs::write(&file, "ok\n*.o\n").unwrap();
        let merge = format!("--filter=. {}", file.display());
        let Err(CliError::Usage(text)) = parsed(&[&merge]).filter(&Origin::whole("/srv".into())) else {
            panic!("a list of plain patterns was taken for rules");
        };
        assert!(text.contains("rules, line 1") && !text.contains("ok"), "{text}");
        let missing = format!("--exclude-from={}", dir.path().join("no").display());
        assert!(matches!(
            parsed(&[&missing]).filter(&Origin::whole("/srv".into())),
            Err(CliError::Usage(text)) if text.contains("does not exist")
        ));
        let list = format!("--files-from={}", dir.path().join("no").display());
        assert!(matches!(
            parsed(&[&list]).filter(&Origin::whole("/srv".into())),
            Err(CliError::Usage(_))
        ));
        assert!(matches!(
            parsed(&["--min-size=2k", "--max-size=1k"]).filter(&Origin::whole("/srv".into())),
            Err(CliError::Usage(_))
        ));
        assert!(matches!(
            parsed(&["--gitignore=a/b"]).filter(&Origin::whole("/srv".into())),
            Err(CliError::Usage(_))
        ));
    }
}
