//! The keys of a `[[hook]]`.

use super::text::parse_span;
use crate::daemon::hooks::{Hook, Occasion};
use crate::engine::filter::FileSet;
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::time::Duration;

/// How long one may take if nothing is said.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum When {
    BeforeBatch,
    #[default]
    AfterBatch,
    InSync,
    Error,
}

impl When {
    /// As the daemons call it.
    pub(super) fn occasion(self) -> Occasion {
        match self {
            When::BeforeBatch => Occasion::BeforeBatch,
            When::AfterBatch => Occasion::AfterBatch,
            When::InSync => Occasion::InSync,
            When::Error => Occasion::Error,
        }
    }
}

/// What can be said of a hook.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct HookOptions {
    /// When it runs
    #[arg(long, value_name = "WHEN", value_enum, default_value = "after-batch")]
    pub(super) on: When,
    /// For these mirrors [default: all, unless modules are named]
    #[arg(long, value_name = "NAME")]
    pub(super) mirrors: Vec<String>,
    /// For these modules
    #[arg(long, value_name = "NAME")]
    pub(super) modules: Vec<String>,
    /// Only for changes of these paths
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    pub(super) paths: Vec<String>,
    /// The program and its arguments
    #[arg(long, value_name = "WORD", required = true)]
    pub(super) command: Vec<OsString>,
    /// After this time it is killed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_timeout)]
    pub(super) timeout: Duration,
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("takes a time span above 0".to_owned()),
        timeout => Ok(timeout),
    }
}

pub(super) fn parse_pattern(text: &str) -> Result<String, String> {
    FileSet::default()
        .add(text.as_bytes())
        .map(|()| text.to_owned())
        .map_err(|error| format!("{text:?}: {error}"))
}

impl HookOptions {
    /// Whether it is for a mirror: it is named, or nothing is.
    pub(super) fn is_for_mirror(&self, name: &str) -> bool {
        match self.mirrors.is_empty() {
            true => self.modules.is_empty(),
            false => self.mirrors.iter().any(|own| own == name),
        }
    }

    /// As the daemons take it.
    pub(super) fn hook(&self) -> Hook {
        let mut paths = FileSet::default();
        for pattern in &self.paths {
            // Was read before.
            let _ = paths.add(pattern.as_bytes());
        }
        Hook {
            on: self.on.occasion(),
            paths,
            command: self.command.clone(),
            timeout: self.timeout,
        }
    }
}
