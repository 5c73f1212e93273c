//! Flags that say when changes leave.

use super::text::{parse_bytes, parse_span};
use crate::daemon::LargeFiles;
use crate::engine::filter::FileSet;
use crate::engine::pending::{PendingOptions, Writes};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// When changes leave, and how often what the kernel tells nothing of is looked at.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "When changes leave")]
pub(super) struct TimingArgs {
    /// Gather changes for this long, counted from the first, and send them as one batch, as in 15s [default: 0]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    delay: Option<Duration>,
    /// Send a batch early when it has this many changes [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), requires = "delay")]
    batch_max: Option<u32>,
    /// How long a file that is being written has to be quiet, if its writer keeps it open [default: 50ms]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    settle: Option<Duration>,
    /// How long a file that is written all the time waits at most [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    max_delay: Option<Duration>,
    /// What counts for a file that is written in place: `close` (that it was closed), `settle` (that the writes have
    /// settled), or `both`
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    writes: WritesArg,
    /// Changes of files of at least SIZE wait for DELAY and leave together, as in 1GiB:10m; may not be repeated
    #[arg(long, value_name = "SIZE:DELAY", value_parser = parse_large)]
    big_file: Option<LargeFiles>,
    /// Files that only grow, as in *.log or /var/data/**: what is added to one leaves at once, and that the rest did not
    /// change is looked at within --max-delay; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = parse_append_only)]
    append_only: Vec<OsString>,
    /// How often every directory is looked at, slowly, for what no event tells of, or `off`
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_audit)]
    audit_interval: Audit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum WritesArg {
    #[default]
    Both,
    Close,
    Settle,
}

/// An interval, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Audit(Option<Duration>);

impl TimingArgs {
    /// How changes settle and gather.
    pub(super) fn pending(&self) -> PendingOptions {
        let usual = PendingOptions::default();
        PendingOptions {
            settle: self.settle.unwrap_or(usual.settle),
            max_delay: self.max_delay.unwrap_or(usual.max_delay),
            delay: self.delay.unwrap_or(usual.delay),
            batch_max: self.batch_max.map_or(usual.batch_max, |most| most as usize),
            writes: match self.writes {
                WritesArg::Both => Writes::Both,
                WritesArg::Close => Writes::Closed,
                WritesArg::Settle => Writes::Settled,
            },
            ..usual
        }
    }

    /// The rhythm of large files.
    pub(super) fn large_files(&self) -> Option<LargeFiles> {
        self.big_file
    }

    /// Files that only grow.
    pub(super) fn append_only(&self) -> FileSet {
        let mut set = FileSet::default();
        for pattern in &self.append_only {
            // Each was tried when it was read.
            let _ = set.add(pattern.as_bytes());
        }
        set
    }

    /// How often everything is looked at.
    pub(super) fn audit(&self) -> Option<Duration> {
        self.audit_interval.0
    }
}

fn parse_large(text: &str) -> Result<LargeFiles, String> {
    let wrong = || format!("{text:?} is not SIZE:DELAY, as in 1GiB:10m");
    let (size, delay) = text.split_once(':').ok_or_else(wrong)?;
    Ok(LargeFiles {
        bytes: parse_bytes(size)?,
        delay: parse_span(delay)?,
    })
}

fn parse_append_only(text: &str) -> Result<OsString, String> {
    FileSet::default().add(text.as_bytes())?;
    Ok(text.into())
}

fn parse_audit(text: &str) -> Result<Audit, String> {
    match text {
        "off" => Ok(Audit(None)),
        text => match parse_span(text)? {
            span if span < Duration::from_secs(60) => {
                Err("an audit more often than every minute would be polling; see --watch poll".to_owned())
            }
            span => Ok(Audit(Some(span))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        timing: TimingArgs,
    }

    fn timing(words: &[&str]) -> Result<TimingArgs, String> {
        let line = Line::try_parse_from([&["x"], words].concat());
        line.map(|line| line.timing).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_all_is_as_usual() {
        let timing = timing(&[]).unwrap();
        assert_eq!(timing.pending(), PendingOptions::default());
        assert_eq!(
            (timing.large_files(), timing.audit()),
            (None, Some(Duration::from_secs(86_400)))
        );
    }

    #[test]
    fn every_flag_arrives() {
        let words = "--delay 15s --batch-max 7 --settle 20ms --max-delay 2s --writes close --append-only *.log --append-only /a/b --big-file 1MiB:10m \
                     --audit-interval off";
        let timing = timing(&words.split_whitespace().collect::<Vec<_>>()).unwrap();
        let expected = PendingOptions {
            settle: Duration::from_millis(20),
            max_delay: Duration::from_secs(2),
            delay: Duration::from_secs(15),
            batch_max: 7,
            writes: Writes::Closed,
            ..PendingOptions::default()
        };
        assert_eq!(timing.pending(), expected);
        let large = LargeFiles {
            bytes: 1 << 20,
            delay: Duration::from_secs(600),
        };
        assert_eq!((timing.large_files(), timing.audit()), (Some(large), None));
        let grows = timing.append_only();
        assert!(grows.has(b"a", b"b") && grows.has(b"x", b"y.log") && !grows.has(b"", b"b"));
    }

    #[test]
    fn wrong_values_are_named() {
        for (words, said) in [
            (&["--delay", "soon"][..], "not a time span"),
            (&["--big-file", "1G"], "not SIZE:DELAY"),
            (&["--append-only", "[a"], "bracket"),
            (&["--audit-interval", "5s"], "would be polling"),
            (&["--batch-max", "5"], "--delay"),
        ] {
            let text = timing(words).unwrap_err();
            assert!(text.contains(said), "{text}");
        }
    }
}
