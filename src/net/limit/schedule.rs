//! Rates by the time of day: `2m`, or `08:00-18:00 2m, 18:00-22:00 10m, else 0`.

use crate::engine::filter::{SizeUnit, parse_size};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use thiserror::Error;

const MINUTES_PER_DAY: u16 = 24 * 60;
/// Below this a single packet takes longer than peers wait.
const RATE_MIN: u64 = 1_024;

/// The zone of this machine, for a process that may not look it up any more.
static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// Has timetables use the present time zone for as long as this process runs, whatever becomes of the files that tell it.
pub fn keep_time_zone() {
    ZONE.get_or_init(TimeZone::system);
}

/// Which rate counts when, by the local time of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The first that the time of day is in counts.
    spans: Vec<Span>,
    /// Bytes per second at all other times; none for no limit.
    otherwise: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// Minutes of the day; the end is not in it, and may be before the start: over midnight.
    from: u16,
    to: u16,
    rate: Option<u64>,
}

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Not a rate.
    #[error("{0:?} is not a rate; write KiB per second, or as in 500k, 1.5m or 100MB, or 0 for no limit")]
    Rate(String),
    /// Less than can be kept.
    #[error("{0:?} is below 1 KiB per second, the lowest rate (0 is no limit)")]
    TooLow(String),
    /// Not a span of time with a rate.
    #[error("{0:?} is not as in `08:00-18:00 2m` or `else 0`")]
    Malformed(String),
    /// Something after `else`.
    #[error("`else` has to be the last of a timetable")]
    ElseFirst,
}

impl Schedule {
    /// The rate that counts now, in bytes per second; none for no limit.
    pub fn rate_now(&self) -> Option<u64> {
        if self.spans.is_empty() {
            return self.otherwise;
        }
        let now = match ZONE.get() {
            Some(zone) => Timestamp::now().to_zoned(zone.clone()),
            None => jiff::Zoned::now(),
        };
        let time = now.time();
        self.rate_at(time.hour() as u16 * 60 + time.minute() as u16)
    }

    /// The rate that counts at a minute of the day.
    fn rate_at(&self, minute: u16) -> Option<u64> {
        let span = self.spans.iter().find(|span| span.contains(minute));
        span.map_or(self.otherwise, |span| span.rate)
    }
}

impl Span {
    fn contains(&self, minute: u16) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        if !text.trim().contains([':', ',', ' ']) {
            return Ok(Schedule {
                spans: Vec::new(),
                otherwise: rate(text.trim())?,
            });
        }
        let (mut spans, mut otherwise) = (Vec::new(), None);
        let mut parts = text.split(',').map(str::trim).peekable();
        while let Some(part) = parts.next() {
            let malformed = || ScheduleError::Malformed(part.to_owned());
            let (when, amount) = part.split_once(char::is_whitespace).ok_or_else(malformed)?;
            let rate = rate(amount.trim())?;
            if when == "else" {
                if parts.peek().is_some() {
                    return Err(ScheduleError::ElseFirst);
                }
                otherwise = rate;
                continue;
            }
            let (from, to) = when.split_once('-').ok_or_else(malformed)?;
            let (from, to) = (
                minute(from).ok_or_else(malformed)?,
                minute(to).ok_or_else(malformed)?,
            );
            if from == to || from == MINUTES_PER_DAY {
                return Err(malformed());
            }
            spans.push(Span { from, to, rate });
        }
        Ok(Schedule { spans, otherwise })
    }
}

fn rate(text: &str) -> Result<Option<u64>, ScheduleError> {
    let bytes = parse_size(text, SizeUnit::Kibibytes).map_err(|_| ScheduleError::Rate(text.to_owned()))?;
    match bytes {
        0 => Ok(None),
        1..RATE_MIN => Err(ScheduleError::TooLow(text.to_owned())),
        bytes => Ok(Some(bytes)),
    }
}

/// `HH:MM` as a minute of the day; 24:00 is its end.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= MINUTES_PER_DAY).then_some(total)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<u64>| rate.map_or("0".to_owned(), |rate| format!("{rate}b"));
        for span in &self.spans {
            let [from, to] = [span.from, span.to].map(|at| format!("{:02}:{:02}", at / 60, at % 60));
            write!(f, "{from}-{to} {}, ", rate(span.rate))?;
        }
        if !self.spans.is_empty() {
            f.write_str("else ")?;
        }
        f.write_str(&rate(self.otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn rates_are_those_of_rsync() {
        for (text, rate) in [
            ("500", Some(500 << 10)),
            ("500k", Some(500 << 10)),
            ("1.5m", Some(3 << 19)),
            ("1MB", Some(1_000_000)),
            ("2000b", Some(2_000)),
            ("0", None),
        ] {
            assert_eq!(schedule(text).rate_now(), rate, "{text}");
        }
    }

    #[test]
    fn the_first_span_counts_and_may_go_over_midnight() {
        let days = schedule("08:00-18:00 2m, 22:00-6:00 0, 00:00-24:00 500k");
        for (hour, rate) in [
            (8, Some(2 << 20)),
            (17, Some(2 << 20)),
            (18, Some(500 << 10)),
            (23, None),
            (5, None),
            (6, Some(500 << 10)),
        ] {
            assert_eq!(days.rate_at(hour * 60), rate, "{hour}");
        }
        let days = schedule("08:00-18:00 2m, else 1g");
        assert_eq!(days.rate_at(18 * 60 - 1), Some(2 << 20));
        assert_eq!(days.rate_at(18 * 60), Some(1 << 30));
        assert_eq!(schedule("08:00-18:00 2m").rate_at(0), None);
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["1536k", "0", "08:00-18:00 2m, 22:00-06:00 0, else 500k"] {
            assert_eq!(schedule(&schedule(text).to_string()), schedule(text));
        }
    }

    #[test]
    fn faults_are_named() {
        for text in [
            "fast",
            "",
            "-5",
            "100b",
            "8-18 2m",
            "08:00-18:00",
            "08:00-08:00 2m",
            "25:00-26:00 1m",
            "08:60-09:00 1m",
            "else 0, 08:00-09:00 1m",
            "08:00-18:00 2m,",
            "+8:00-9:00 1m",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text:?}");
        }
    }
}
