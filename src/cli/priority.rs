//! Flags that say how much of the machine a daemon takes beside others.

use super::CliError;
use crate::fs::{IoPriority, set_io_priority, set_niceness};
use clap::Args;

/// Processor and disk priority.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Priority")]
pub(super) struct PriorityArgs {
    /// Niceness, from -20 to 19
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// Disk priority: `idle`, `best-effort[:LEVEL]` or `realtime[:LEVEL]`, from level 0 (high) to 7 (low)
    #[arg(long, value_name = "CLASS[:LEVEL]", value_parser = parse_io_priority)]
    ionice: Option<IoPriority>,
}

impl PriorityArgs {
    /// Sets what was asked for. Before any thread is started: they inherit it.
    pub(super) fn apply(self) -> Result<(), CliError> {
        let failed = |flag: &str, error: std::io::Error| {
            CliError::failed(format!("cannot set the priority of --{flag}: {error}"))
        };
        if let Some(niceness) = self.nice {
            set_niceness(niceness).map_err(|error| failed("nice", error))?;
        }
        if let Some(priority) = self.ionice {
            set_io_priority(priority).map_err(|error| failed("ionice", error))?;
        }
        Ok(())
    }
}

fn parse_io_priority(text: &str) -> Result<IoPriority, String> {
    const LEVEL_USUAL: u8 = 4;
    let (class, level) = match text.split_once(':') {
        Some((class, level)) => (class, Some(level)),
        None => (text, None),
    };
    let number = match level {
        None => Some(LEVEL_USUAL),
        Some(level) => level.parse().ok().filter(|level| *level <= IoPriority::LEVEL_MAX),
    };
    let number = number.ok_or_else(|| format!("{text:?}: levels are 0 to 7"))?;
    match (class, level) {
        ("idle", None) => Ok(IoPriority::Idle),
        ("idle", Some(_)) => Err("idle has no levels".to_owned()),
        ("best-effort", _) => Ok(IoPriority::BestEffort(number)),
        ("realtime", _) => Ok(IoPriority::Realtime(number)),
        _ => Err(format!("{class:?} is not idle, best-effort or realtime")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_levels() {
        assert_eq!(parse_io_priority("idle"), Ok(IoPriority::Idle));
        assert_eq!(parse_io_priority("best-effort"), Ok(IoPriority::BestEffort(4)));
        assert_eq!(parse_io_priority("best-effort:0"), Ok(IoPriority::BestEffort(0)));
        assert_eq!(parse_io_priority("realtime:7"), Ok(IoPriority::Realtime(7)));
        for (text, reason) in [
            ("idle:1", "no levels"),
            ("best-effort:8", "0 to 7"),
            ("realtime:", "0 to 7"),
            ("fast", "not idle"),
        ] {
            let error = parse_io_priority(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
