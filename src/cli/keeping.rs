//! What a receiving end does with what it replaces and deletes.

use super::CliError;
use super::text::parse_span;
use crate::daemon::keeping::{Backup, Drift, Keeping, OldVersions};
use clap::{Args, ValueEnum};
use driftless_protocol::Name;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Why they mean nothing on the other end.
pub(super) const KEEPING_THERE: &str = "--drift, --drift-watch, --trash, --backup, --preallocate, --inplace, --publish and --scrub are the receiver's to decide (give them to `driftless receive` there)";

/// Options of the end that writes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the target is written")]
pub(super) struct KeepingArgs {
    /// What happens to what somebody else changed or made where it is to be replaced or deleted: `overwrite`; `keep` moves
    /// it to .driftless-kept/TIME/PATH; `refuse` leaves it, and the entry fails [default: overwrite]
    #[arg(long, value_name = "POLICY", value_enum, hide_possible_values = true)]
    drift: Option<DriftArg>,
    /// Move what is replaced or deleted to .driftless-trash/TIME/PATH, for this long, as in 7d; see `driftless trash`
    #[arg(long, value_name = "TIME", value_parser = parse_retention, conflicts_with = "backup")]
    trash: Option<Duration>,
    /// Give files that are replaced or deleted another name, NAME~ without --suffix, in place of an earlier backup
    #[arg(short, long)]
    backup: bool,
    /// Keep the backups in this directory, which is one in the root of what is written to
    #[arg(long, value_name = "DIR", requires = "backup")]
    backup_dir: Option<OsString>,
    /// What is put behind the names of backups [default: ~, or nothing with --backup-dir]
    #[arg(long, value_name = "SUFFIX", requires = "backup")]
    suffix: Option<OsString>,
    /// Reserve the space of a file before its content comes, if it comes whole; a full disk is then noticed before
    #[arg(long)]
    preallocate: bool,
    /// Write changed files under their name, so that they stay the same object: NOT ATOMIC, who reads such a file can see
    /// parts of the old and the new one, also after a crash
    #[arg(long, conflicts_with_all = ["trash", "backup"])]
    inplace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DriftArg {
    Overwrite,
    Keep,
    Refuse,
}

/// A number alone may mean days to who writes it, and is seconds elsewhere: what was kept for the wrong one is gone.
fn parse_retention(text: &str) -> Result<Duration, String> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        true => Err(format!("write what it counts: {text}d, {text}h or {text}s")),
        false => parse_span(text),
    }
}

impl KeepingArgs {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.drift.is_some() || self.trash.is_some() || self.backup || self.preallocate || self.inplace
    }

    /// Whether files are written under their name.
    pub(super) fn writes_in_place(&self) -> bool {
        self.inplace
    }

    /// Whether the space of files is reserved.
    pub(super) fn preallocates(&self) -> bool {
        self.preallocate
    }

    /// The policy.
    pub(super) fn keeping(&self) -> Result<Keeping, CliError> {
        let drift = match self.drift {
            None | Some(DriftArg::Overwrite) => Drift::Overwrite,
            Some(DriftArg::Keep) => Drift::Keep,
            Some(DriftArg::Refuse) => Drift::Refuse,
        };
        let old = match (self.trash, self.backup) {
            (Some(retention), _) => OldVersions::Trash { retention },
            (None, true) => OldVersions::Backup(self.backups()?),
            (None, false) => OldVersions::Discard,
        };
        Ok(Keeping { drift, old })
    }

    fn backups(&self) -> Result<Backup, CliError> {
        let directory = self.backup_dir.as_ref().map(|given| {
            let bytes = given.as_bytes();
            let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
            let name = Name::new(bytes.strip_suffix(b"/").unwrap_or(bytes));
            let name = name.ok().filter(|name| !name.is_reserved());
            name.ok_or_else(|| {
                CliError::usage(format!(
                    "--backup-dir {} cannot be used: the receiver writes nowhere but below its root, and the directory has \
                     to be directly in it, so that it never goes together with a directory above it (give one plain name)",
                    super::text::escaped(given)
                ))
            })
        });
        let directory = directory.transpose()?;
        let suffix = match (&self.suffix, &directory) {
            (Some(given), _) => given.as_bytes().to_vec(),
            (None, Some(_)) => Vec::new(),
            (None, None) => b"~".to_vec(),
        };
        if suffix.contains(&b'/') {
            return Err(CliError::usage(
                "--suffix must not hold a slash (it is put behind a name)",
            ));
        }
        if suffix.is_empty() && directory.is_none() {
            let text = "--suffix must not be empty without --backup-dir (the backup would be the file)";
            return Err(CliError::usage(text));
        }
        Ok(Backup { directory, suffix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        keeping: KeepingArgs,
    }

    fn read(line: &str) -> Result<Keeping, String> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.keeping.keeping().map_err(|error| match error {
            CliError::Usage(text) => text,
            CliError::Failed(text) => panic!("{text}"),
        })
    }

    fn backup(directory: Option<&str>, suffix: &str) -> Keeping {
        let directory = directory.map(|name| Name::new(name.as_bytes()).unwrap());
        let suffix = suffix.as_bytes().to_vec();
        Keeping {
            old: OldVersions::Backup(Backup { directory, suffix }),
            ..Keeping::default()
        }
    }

    /// The refusal of what is for the other end to decide names all of it, but for what goes with one of these options only.
    #[test]
    fn the_refusal_names_every_option() {
        use crate::cli::upkeep::UpkeepArgs;
        let command = UpkeepArgs::augment_args(KeepingArgs::augment_args(clap::Command::new("x")));
        let goes_with_others = ["backup-dir", "suffix", "scrub-repair"];
        let mut named = 0;
        for long in command.get_arguments().filter_map(clap::Arg::get_long) {
            let is_named = KEEPING_THERE
                .split([' ', ','])
                .any(|word| word.strip_prefix("--") == Some(long));
            assert!(is_named || goes_with_others.contains(&long), "{long}");
            named += usize::from(is_named);
        }
        assert_eq!(named, 7);
    }

    #[test]
    fn policies_are_read() {
        assert_eq!(read("").unwrap(), Keeping::default());
        assert_eq!(read("--drift refuse").unwrap().drift, Drift::Refuse);
        let both = read("--drift keep --trash 7d").unwrap();
        let retention = Duration::from_secs(7 * 86_400);
        assert_eq!(
            (both.drift, both.old),
            (Drift::Keep, OldVersions::Trash { retention })
        );
        assert_eq!(read("--backup").unwrap(), backup(None, "~"));
        assert_eq!(read("-b --suffix .bak").unwrap(), backup(None, ".bak"));
        assert_eq!(read("-b --backup-dir ./old/").unwrap(), backup(Some("old"), ""));
        assert_eq!(
            read("-b --backup-dir old --suffix .1").unwrap(),
            backup(Some("old"), ".1")
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (line, reason) in [
            ("-b --backup-dir /elsewhere", "below its root"),
            ("-b --backup-dir a/b", "one plain name"),
            ("-b --backup-dir ..", "below its root"),
            ("-b --backup-dir .driftless-trash", "one plain name"),
            ("-b --suffix a/b", "slash"),
            ("-b --suffix=", "must not be empty"),
            ("--backup-dir old", "--backup"),
            ("--trash 7d --backup", "cannot be used with"),
            ("--trash soon", "soon"),
            ("--trash 7", "7d, 7h or 7s"),
            ("--inplace --trash 1d", "cannot be used with"),
            ("--inplace -b", "cannot be used with"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
