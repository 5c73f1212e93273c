//! When a run ends that has not come to its end: `--stop-after` and `--stop-at`.

use super::launch::Session;
use super::text::parse_span;
use clap::Args;
use jiff::Zoned;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// The clock may be set, or the machine sleep, while somebody waits for a time of day.
const LOOK_EVERY: Duration = Duration::from_secs(20);
/// The longest time of a run.
const AFTER_MAX: Duration = Duration::from_secs(3_650 * 24 * 3_600);
/// Days in which every combination of month and day comes up.
const DAYS_MAX: i64 = 8 * 366;

/// Until when.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Time limits (only for a run that ends)")]
pub(super) struct DeadlineArgs {
    /// Stop after so many minutes, or after a time with a unit such as 90s or 2h, wherever it is; the next run goes on from there
    #[arg(long, value_name = "MINUTES", visible_alias = "time-limit", conflicts_with = "stop_at", value_parser = parse_after)]
    stop_after: Option<Duration>,
    /// Stop at this local time: `[[YEAR-]MONTH-]DAY`, `HOUR:MINUTE`, or both with a T between; what is left out is the next
    /// that comes
    #[arg(long, value_name = "TIME", value_parser = parse)]
    stop_at: Option<Moment>,
}

/// A point in time, in full or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: Option<i8>,
    minute: i8,
}

/// Tells whether the time was up.
#[derive(Debug, Clone, Default)]
pub(super) struct Deadline(Arc<AtomicBool>);

impl Deadline {
    /// Whether a run was stopped because its time was up.
    pub(super) fn has_passed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl DeadlineArgs {
    /// Whether there is a limit.
    pub(super) fn is_set(&self) -> bool {
        self.stop_after.is_some() || self.stop_at.is_some()
    }

    /// Has the session asked to stop when the time is up.
    pub(super) fn start(&self, session: &Session) -> Result<Deadline, super::CliError> {
        let deadline = Deadline::default();
        let until = match (self.stop_after, self.stop_at) {
            (Some(time), _) => SystemTime::now() + time,
            (None, Some(moment)) => moment
                .next_after(&Zoned::now())
                .and_then(|time| time.to_zoned(TimeZone::system()).ok())
                .map(|time| SystemTime::from(time.timestamp()))
                .ok_or_else(|| super::CliError::usage("--stop-at: there is no such time to come"))?,
            (None, None) => return Ok(deadline),
        };
        let (passed, stop) = (deadline.0.clone(), session.stop.clone());
        session.handle().spawn(async move {
            while let Ok(left) = until.duration_since(SystemTime::now()) {
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
            }
            passed.store(true, Ordering::Release);
            stop.request();
        });
        Ok(deadline)
    }
}

/// Reads how long a run may take: minutes, as rsync takes it, or a time with a unit.
fn parse_after(text: &str) -> Result<Duration, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let time = match is_plain {
        true => parse_span(&format!("{text}m"))?,
        false => parse_span(text)?,
    };
    if time.is_zero() || time > AFTER_MAX {
        return Err("it has to be more than nothing and no more than ten years".to_owned());
    }
    Ok(time)
}

/// Reads a time as rsync takes it.
fn parse(text: &str) -> Result<Moment, String> {
    let wrong =
        || format!("{text:?} is no time: write YEAR-MONTH-DAY, HOUR:MINUTE, or both as in 2027-12-31T23:59");
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (Some(date), Some(time)),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    let mut moment = Moment {
        year: None,
        month: None,
        day: None,
        hour: Some(0),
        minute: 0,
    };
    if text.is_empty() {
        return Err(wrong());
    }
    if let Some(date) = date.filter(|date| !date.is_empty()) {
        let parts: Vec<&str> = date.split(['-', '/']).collect();
        let number = |part: &&str| part.parse::<i16>().ok().filter(|number| *number >= 0);
        let parts = parts.iter().map(number).collect::<Option<Vec<_>>>();
        let mut parts = parts
            .filter(|parts| parts.len() <= 3)
            .ok_or_else(wrong)?
            .into_iter()
            .rev();
        let small = |number: Option<i16>| number.map(i8::try_from).transpose().map_err(|_| wrong());
        moment.day = small(parts.next())?;
        moment.month = small(parts.next())?;
        moment.year = parts
            .next()
            .map(|year| if year < 100 { 2000 + year } else { year });
        let exists = |year| Date::new(year, moment.month.unwrap_or(1), moment.day.unwrap_or(0)).is_ok();
        // A leap year, if none is given.
        if !exists(moment.year.unwrap_or(2028)) {
            return Err(wrong());
        }
    }
    if let Some(time) = time {
        let (hour, minute) = time.split_once(':').ok_or_else(wrong)?;
        moment.hour = match hour {
            "" => None,
            hour => Some(hour.parse().map_err(|_| wrong())?),
        };
        moment.minute = minute.parse().map_err(|_| wrong())?;
        if Time::new(moment.hour.unwrap_or(0), moment.minute, 0, 0).is_err() {
            return Err(wrong());
        }
    }
    Ok(moment)
}

impl Moment {
    /// The first time after `now` that this can mean.
    fn next_after(&self, now: &Zoned) -> Option<DateTime> {
        let now = now.datetime();
        for ahead in 0..DAYS_MAX {
            let date = now.date().checked_add(jiff::Span::new().days(ahead)).ok()?;
            let is_meant = self.year.is_none_or(|year| year == date.year())
                && self.month.is_none_or(|month| month == date.month())
                && self.day.is_none_or(|day| day == date.day());
            if !is_meant {
                if self.year.is_some_and(|year| year < date.year()) {
                    return None;
                }
                continue;
            }
            let hours = self.hour.map_or(0..=23, |hour| hour..=hour);
            let mut times = hours.filter_map(|hour| Time::new(hour, self.minute, 0, 0).ok());
            if let Some(time) = times.find(|time| date.to_datetime(*time) > now) {
                return Some(date.to_datetime(time));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str) -> Option<String> {
        let now = jiff::civil::date(2026, 11, 21).at(14, 30, 15, 0);
        let now = now.to_zoned(TimeZone::UTC).unwrap();
        parse(text).unwrap().next_after(&now).map(|time| time.to_string())
    }

    #[test]
    fn what_is_left_out_is_the_next_that_comes() {
        for (text, expected) in [
            ("23:59", "2026-11-21T23:59:00"),
            ("14:30", "2026-11-22T14:30:00"),
            ("14:31", "2026-11-21T14:31:00"),
            (":45", "2026-11-21T14:45:00"),
            (":10", "2026-11-21T15:10:00"),
            ("2027-01-02T03:04", "2027-01-02T03:04:00"),
            ("27/1/2T3:4", "2027-01-02T03:04:00"),
            ("1-2", "2027-01-02T00:00:00"),
            ("5", "2026-12-05T00:00:00"),
            ("21", "2026-12-21T00:00:00"),
            ("31T12:00", "2026-12-31T12:00:00"),
            ("2-29", "2028-02-29T00:00:00"),
            ("T16:00", "2026-11-21T16:00:00"),
        ] {
            assert_eq!(next(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(next("2025-1-1"), None);
        assert_eq!(next("2026-11-21"), None, "midnight is over");
    }

    #[test]
    fn a_plain_number_is_minutes() {
        let seconds = |text| parse_after(text).unwrap().as_secs();
        assert_eq!((seconds("1"), seconds("90"), seconds("90s")), (60, 5_400, 90));
        assert_eq!((seconds("2h"), seconds("3m")), (7_200, 180));
        for wrong in [
            "",
            "0",
            "0s",
            "soon",
            "-1",
            "1.5",
            "3651d",
            "18446744073709551615",
        ] {
            assert!(parse_after(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "soon",
            "25:00",
            "12:60",
            "13-40",
            "1-2-3-4",
            "-5",
            "2027-02-29",
            "12:",
            "a:b",
            "0",
            "300-1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
