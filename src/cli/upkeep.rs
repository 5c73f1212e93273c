//! How a receiving end looks after what it has.

use super::text::parse_span;
use crate::daemon::upkeep::{DriftWatch, ScrubOptions, Upkeep};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Options of the end that writes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the target is looked after")]
pub(super) struct UpkeepArgs {
    /// Read all contents again in this time, as in 7d, and say which are not as they were written; see `driftless status`
    #[arg(long, value_name = "TIME", value_parser = parse_period)]
    scrub: Option<Duration>,
    /// Fetch what --scrub finds wrong from the sender again
    #[arg(long, requires = "scrub")]
    scrub_repair: bool,
    /// Watch for what somebody else changes, makes or removes there: `alarm` tells it at once, `repair` has the sender put it right,
    /// too; --drift says what becomes of what was edited
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true)]
    drift_watch: Option<DriftWatchArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DriftWatchArg {
    Alarm,
    Repair,
}

/// A number alone may mean days to who writes it, and is seconds elsewhere.
fn parse_period(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("write what it counts: {text}d, {text}h or {text}s"));
    }
    match parse_span(text)? {
        span if span < Duration::from_secs(1) => Err("takes a time span of a second at least".to_owned()),
        span => Ok(span),
    }
}

impl UpkeepArgs {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.scrub.is_some() || self.scrub_repair || self.drift_watch.is_some()
    }

    /// The options of a module.
    pub(super) fn upkeep(&self) -> Upkeep {
        Upkeep {
            scrub: self.scrub.map(|every| ScrubOptions {
                every,
                repairs: self.scrub_repair,
            }),
            drift_watch: self.drift_watch.map(|how| match how {
                DriftWatchArg::Alarm => DriftWatch::Alarm,
                DriftWatchArg::Repair => DriftWatch::Repair,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_says_what_it_counts() {
        assert_eq!(parse_period("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_period("1s"), Ok(Duration::from_secs(1)));
        assert!(parse_period("7").unwrap_err().contains("7d, 7h or 7s"));
        for text in ["", "0s", "soon"] {
            assert!(parse_period(text).is_err(), "{text}");
        }
    }
}
