//! How a sender in the foreground ends by itself, and what it runs on the way: `--exit-when-quiet` and `--hook`.

use super::CliError;
use super::daemon::Hooked;
use super::hooking::{HOOKS_AT_ONCE, HookWord, parse_hook};
use super::hooks::TIMEOUT;
use super::narrate::Narrator;
use super::text::parse_span;
use crate::daemon::hooks::{Hook, SenderHooks, Slots};
use crate::daemon::status::StatusBoard;
use crate::daemon::{Observer, Quiet};
use crate::engine::filter::FileSet;
use clap::Args;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

/// Flags of a sender that follows in the foreground. A daemon's mirrors end when they are stopped, and have hooks of their own.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Ending by itself, and hooks (only while following)")]
pub(super) struct EndingArgs {
    /// End with status 0 when nothing has changed for this long, such as 30s, and all of it is on the disks of all targets
    #[arg(long, value_name = "TIME", value_parser = parse_quiet)]
    exit_when_quiet: Option<Duration>,
    /// Run PROGRAM, without arguments, `before-batch`, `after-batch`, when `in-sync`, or on an `error`; may be repeated. It is
    /// told what happened as the hooks of a configuration are, and is waited for at the end
    #[arg(long, value_name = "WHEN=PROGRAM", value_parser = parse_hook)]
    hook: Vec<HookWord>,
}

fn parse_quiet(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("takes a time span above 0".to_owned()),
        time => Ok(time),
    }
}

impl EndingArgs {
    /// Whether any of them was given.
    pub(super) fn is_given(&self) -> bool {
        self.exit_when_quiet.is_some() || !self.hook.is_empty()
    }

    /// Refuses them for what does not follow, or does nothing.
    pub(super) fn check(&self, is_meaningful: bool) -> Result<(), CliError> {
        if is_meaningful || !self.is_given() {
            return Ok(());
        }
        let text = "--exit-when-quiet and --hook are for a run that follows and sends (leave them out with --once and \
                    --dry-run: a run with --once ends by itself)";
        Err(CliError::usage(text))
    }

    /// When so many senders of one tree are to end by themselves.
    pub(super) fn quiet(&self, senders: usize) -> Option<Quiet> {
        self.exit_when_quiet.map(|time| Quiet::new(time, senders))
    }

    /// Who is told of a sender: the narrator, and the hooks if there are any.
    pub(super) fn observer(&self, narrator: Arc<Narrator>, board: &StatusBoard) -> Told {
        if self.hook.is_empty() {
            return Told::Narrator(narrator);
        }
        let hooks: Vec<_> = self.hook.iter().map(HookWord::hook).collect();
        let teller = narrator.clone();
        let complain: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |text| teller.warning(text));
        let hooks = SenderHooks::start(&hooks, &board.label(), &Slots::new(HOOKS_AT_ONCE), &complain);
        Told::Hooked(Arc::new(Hooked::new(narrator, hooks)))
    }
}

impl HookWord {
    fn hook(&self) -> Hook {
        Hook {
            on: self.on.occasion(),
            paths: FileSet::default(),
            command: vec![OsString::from(&self.program)],
            timeout: TIMEOUT,
        }
    }
}

/// Who is told of a sender.
pub(super) enum Told {
    Narrator(Arc<Narrator>),
    /// A run that ends, of which single changes are told.
    Planned(Arc<dyn Observer>),
    Hooked(Arc<Hooked>),
}

impl Told {
    /// For the sender.
    pub(super) fn observer(&self) -> Arc<dyn Observer> {
        match self {
            Told::Narrator(narrator) => narrator.clone(),
            Told::Planned(observer) => observer.clone(),
            Told::Hooked(hooked) => hooked.clone(),
        }
    }

    /// The sender has ended: hooks that were told of something run, and are waited for.
    pub(super) fn finish(self) {
        if let Told::Hooked(hooked) = self
            && let Some(hooked) = Arc::into_inner(hooked)
        {
            hooked.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_above_zero() {
        assert!(parse_quiet("0s").is_err() && parse_quiet("soon").is_err());
        assert_eq!(parse_quiet("30s"), Ok(Duration::from_secs(30)));
    }
}
