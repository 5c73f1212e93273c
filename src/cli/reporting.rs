//! How a daemon reports by itself: a status file.

use super::text::parse_span;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// How often the status file is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Where a daemon reports to.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ReportingArgs {
    /// Write what `driftless status` says into FILE, again and again
    #[arg(long, value_name = "FILE")]
    status_file: Option<PathBuf>,
    /// How often [default: 10s]
    #[arg(long, value_name = "TIME", requires = "status_file", value_parser = parse_interval)]
    status_interval: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("takes a time span above 0".to_owned()),
        interval => Ok(interval),
    }
}

impl ReportingArgs {
    /// These, and for what was not said those of `settings`.
    pub(super) fn or(&self, settings: &ReportingArgs) -> ReportingArgs {
        let (own, other) = (self.clone(), settings.clone());
        ReportingArgs {
            status_interval: own.status_interval.or(other.status_interval),
            status_file: own.status_file.or(other.status_file),
        }
    }

    /// The status file, and how often to write it.
    pub(super) fn status_file(&self) -> Option<(&PathBuf, Duration)> {
        let interval = self.status_interval.unwrap_or(STATUS_INTERVAL);
        self.status_file.as_ref().map(|path| (path, interval))
    }
}
