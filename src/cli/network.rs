//! Flags that say how the network is used.

use crate::net::{Compression, Congestion, Limiter, LinkOptions, Schedule};
use clap::Args;
use std::sync::Arc;
use std::time::Duration;

/// How fast, and under whose rules.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub(super) struct NetworkArgs {
    /// Congestion control: `bdp` (ours: full speed also on lines that lose packets, short queues), `bbr`, `cubic` or
    /// `newreno`; `auto` is bdp
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(super) congestion: Congestion,
    /// Send at most so much in a second, to all targets together: KiB, or as in 500k, 1.5m or 100MB; or by the time of
    /// day, as in "08:00-18:00 2m, else 0". 0 is no limit
    #[arg(long, value_name = "RATE")]
    bwlimit: Option<Schedule>,
    /// How hard to compress: `auto` (harder the slower the network is), `off`, or a level of zstd from 1 to 19. Without
    /// a value: auto. What does not shrink travels as it is
    #[arg(short = 'z', long, value_name = "HOW", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "auto")]
    compress: Compression,
    /// Take the other end for gone that says nothing for so many seconds (without it: 30); a sender that does not follow then
    /// ends, instead of connecting again
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
}

impl NetworkArgs {
    /// The options of a link. All that are made from the same result share one limit.
    pub(super) fn link(&self) -> LinkOptions {
        let usual = LinkOptions::default();
        let idle_timeout = self.timeout.map_or(usual.idle_timeout, Duration::from_secs);
        LinkOptions {
            idle_timeout,
            // Two of them may be lost.
            keep_alive: usual.keep_alive.min(idle_timeout / 3),
            congestion: self.congestion,
            compression: self.compress,
            limiter: self
                .bwlimit
                .clone()
                .map(|schedule| Arc::new(Limiter::new(schedule))),
            ..usual
        }
    }

    /// Whether a run that ends gives up when the receiver is silent.
    pub(super) fn gives_up(&self) -> bool {
        self.timeout.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        network: NetworkArgs,
    }

    fn link(words: &[&str]) -> Result<LinkOptions, String> {
        let line = Line::try_parse_from([&["x"], words].concat());
        line.map(|line| line.network.link())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_all_is_as_usual() {
        let link = link(&[]).unwrap();
        assert_eq!(link.congestion, Congestion::Auto);
        assert_eq!(link.compression, Compression::Auto);
        assert!(link.limiter.is_none());
    }

    #[test]
    fn timeouts_leave_room_for_lost_signs_of_life() {
        let usual = link(&[]).unwrap();
        assert_eq!(usual.idle_timeout, Duration::from_secs(30));
        let hasty = link(&["--timeout", "3"]).unwrap();
        assert_eq!(
            (hasty.idle_timeout, hasty.keep_alive),
            (Duration::from_secs(3), Duration::from_secs(1))
        );
        assert!(link(&["--timeout=0"]).is_err() && link(&["--timeout=x"]).is_err());
    }

    #[test]
    fn every_flag_arrives() {
        let link = link(&["--congestion", "cubic", "--bwlimit", "08:00-18:00 2m, else 0"]).unwrap();
        assert_eq!(link.congestion, Congestion::Cubic);
        let text = format!("{:?}", link.limiter.unwrap());
        assert!(text.contains("2097152"), "{text}");
    }

    #[test]
    fn compression_has_the_forms_of_rsync_and_levels() {
        for (word, compression) in [
            ("-z", Compression::Auto),
            ("--compress", Compression::Auto),
            ("--compress=off", Compression::Off),
            ("--compress=9", Compression::Level(9)),
        ] {
            assert_eq!(link(&[word]).unwrap().compression, compression, "{word}");
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (words, said) in [
            (
                &["--congestion", "reno"][..],
                "there are auto, bdp, bbr, cubic, newreno",
            ),
            (&["--bwlimit", "fast"], "not a rate"),
            (&["--bwlimit", "8-18 1m"], "08:00-18:00"),
            (&["--compress=20"], "level from 1 to 19"),
            (&["--bwlimit", "10b"], "lowest rate"),
        ] {
            let text = link(words).unwrap_err();
            assert!(text.contains(said), "{text}");
        }
    }
}
