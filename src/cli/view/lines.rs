//! Where there is no terminal: lines. One of JSON for each change of the status, or a sentence for each target whose state
//! changed.

use super::change::time_of_day;
use super::feed::{Feed, Update};
use super::rates::Rates;
use super::row::{Row, rows};
use crate::cli::text::count;
use crate::cli::{DONE, output, status};
use crate::daemon::control::Answers;
use crate::daemon::home::Home;
use crate::daemon::status::unix_now;
use crossbeam_channel::RecvTimeoutError;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often it is looked whether anybody reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a target is told again that is not in sync.
const REMIND_EVERY: u64 = 30;

/// Prints the status as `driftless status --json` does, whenever it is another one.
pub(super) fn objects(home: &Home, feed: &Feed) -> u8 {
    let mut last = None;
    each_status(feed, |answers, _| {
        let object = status::object(home, &answers.daemons, &answers.problems);
        if last.as_ref() != Some(&object) {
            output::json(&object);
            last = Some(object);
        }
    })
}

/// Prints a line for each target whose state is another one, and now and then for those that are behind.
pub(super) fn sentences(home: &Home, feed: &Feed) -> u8 {
    let mut teller = Teller::new(TimeZone::system());
    let mut problems = Vec::new();
    each_status(feed, |answers, at| {
        for line in teller.lines(&answers, at, unix_now()) {
            output::line(&line);
        }
        let mut now = answers.problems;
        if answers.daemons.is_empty() && now.is_empty() {
            now.push(match answers.processes {
                0 => format!("no driftless daemon of this home is running (home {home})"),
                processes => status::nothing_to_do(processes),
            });
        }
        for problem in now.iter().filter(|problem| !problems.contains(*problem)) {
            output::note(problem);
        }
        problems = now;
    })
}

/// Until nobody reads any more.
fn each_status(feed: &Feed, mut told: impl FnMut(Answers, Instant)) -> u8 {
    while !output::is_closed() && !is_reader_gone() {
        match feed.updates.recv_timeout(LOOK_EVERY) {
            Ok(Update::Status(answers, at)) => told(answers, at),
            Ok(Update::Outcome(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    DONE
}

/// Whether the other end of standard output was closed. Without looking, that would be found out at the next line only.
fn is_reader_gone() -> bool {
    let stdout = std::io::stdout();
    let mut waiting = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut waiting, Some(&Timespec::default())) {
        Ok(0) | Err(_) => false,
        Ok(_) => waiting[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
    }
}

/// Remembers what was told.
pub(super) struct Teller {
    zone: TimeZone,
    rates: Rates,
    /// The state of each target, and when it was told.
    told: BTreeMap<String, (String, u64)>,
}

impl Teller {
    pub(super) fn new(zone: TimeZone) -> Teller {
        Teller {
            zone,
            rates: Rates::default(),
            told: BTreeMap::new(),
        }
    }

    /// What is to be told of a status.
    pub(super) fn lines(&mut self, answers: &Answers, at: Instant, now: u64) -> Vec<String> {
        self.rates.note(&answers.daemons, at);
        let rows = rows(&answers.daemons, &self.rates, now);
        let mut lines = Vec::new();
        let mut told = BTreeMap::new();
        for row in &rows {
            let name = match row.other.as_str() {
                "" => row.name.clone(),
                other if row.subject.is_some() => format!("{} to {other}", row.name),
                other => format!("{} {other}", row.name),
            };
            let state = state(row);
            let before = self.told.remove(&name);
            let is_known = before.as_ref().is_some_and(|(before, since)| {
                *before == state && (row.lag.is_empty() || now.saturating_sub(*since) < REMIND_EVERY)
            });
            let mut since = now;
            if is_known {
                since = before.map_or(now, |(_, since)| since);
            } else {
                lines.push(format!("{name}: {state}{}", progress(row)));
            }
            told.insert(name, (state, since));
        }
        let gone = std::mem::replace(&mut self.told, told);
        lines.extend(gone.into_keys().map(|name| format!("{name}: gone")));
        let time = time_of_day(now, &self.zone);
        lines.iter().map(|line| format!("{time} {line}")).collect()
    }
}

/// What makes a line worth telling.
fn state(row: &Row) -> String {
    let mut state = row.state.clone();
    if row.failed > 0 {
        state += &format!(", {} in error", count(row.failed, "entry", "entries"));
    }
    if let Some(reason) = &row.reason {
        state += &format!(": {reason}");
    }
    state
}

/// What changes all the time.
fn progress(row: &Row) -> String {
    let mut text = String::new();
    for (before, value) in [("behind by ", &row.lag), ("to go: ", &row.to_go), ("", &row.rate)] {
        if !value.is_empty() {
            text += &format!("; {before}{value}");
        }
    }
    text
}
