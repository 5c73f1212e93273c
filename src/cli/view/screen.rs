//! What there is to see, and what a key means: the state of the terminal view, without a terminal.

use super::change::{Change, changes, time_of_day};
use super::feed::{Action, Update};
use super::rates::Rates;
use super::row::{Key, Row, Tone, rows, visible};
use crate::cli::text::count;
use crate::daemon::events::{Event, What};
use crate::daemon::status::DaemonStatus;
use jiff::tz::TimeZone;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::VecDeque;

/// Lines of what happened that are kept.
const CHANGES_MAX: usize = 200;

/// Rows that a page key moves by.
const PAGE: isize = 10;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// To see no more of it.
    Quit,
    /// To have something done.
    Act(Action),
}

/// All that is drawn.
#[derive(Debug)]
pub(super) struct Screen {
    zone: TimeZone,
    /// The time of day.
    pub(super) clock: String,
    daemons: Vec<DaemonStatus>,
    rates: Rates,
    /// Whether anybody has answered, or could have.
    pub(super) is_known: bool,
    pub(super) rows: Vec<Row>,
    pub(super) problems: Vec<String>,
    /// How many processes answer.
    pub(super) processes: usize,
    pub(super) changes: VecDeque<Change>,
    selected: Option<Key>,
    /// Deletions that somebody is about to approve.
    pub(super) prompt: Option<(Action, String)>,
    pub(super) message: Option<(Tone, String)>,
}

impl Screen {
    /// Nothing is known yet.
    pub(super) fn new(zone: TimeZone, now: u64) -> Screen {
        Screen {
            clock: time_of_day(now, &zone),
            zone,
            daemons: Vec::new(),
            rates: Rates::default(),
            is_known: false,
            rows: Vec::new(),
            problems: Vec::new(),
            processes: 0,
            changes: VecDeque::new(),
            selected: None,
            prompt: None,
            message: None,
        }
    }

    /// Moves the clock; `now` in unix seconds. False if nothing changes by that.
    pub(super) fn set_time(&mut self, now: u64) -> bool {
        let clock = time_of_day(now, &self.zone);
        let is_change = clock != self.clock;
        if is_change {
            self.clock = clock;
            self.rebuild(now);
        }
        is_change
    }

    /// Takes news in.
    pub(super) fn apply(&mut self, update: Update, now: u64) {
        match update {
            Update::Status(answers, at) => {
                self.is_known = true;
                self.processes = answers.processes;
                self.rates.note(&answers.daemons, at);
                self.daemons = answers.daemons;
                self.problems = answers.problems.iter().map(|text| visible(text)).collect();
                self.rebuild(now);
            }
            Update::Outcome(outcome) => {
                self.message = Some(match outcome {
                    Ok(text) => (Tone::Good, visible(&text)),
                    Err(text) => (Tone::Bad, visible(&text)),
                });
            }
        }
    }

    /// Takes in what happened.
    pub(super) fn hear(&mut self, event: &Event) {
        // Directories of this machine are modules, too, which nobody has named.
        if let What::SenderConnected { module, .. } | What::SenderDisconnected { module, .. } = &event.what
            && !self.has_module(module)
        {
            return;
        }
        self.changes.extend(changes(event, &self.zone));
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
    }

    fn has_module(&self, name: &str) -> bool {
        self.daemons.iter().any(|daemon| match daemon {
            DaemonStatus::Receiver(receiver) => receiver.modules.iter().any(|module| module.name == name),
            DaemonStatus::Sender(_) => false,
        })
    }

    fn rebuild(&mut self, now: u64) {
        let before = self.selected_at();
        self.rows = rows(&self.daemons, &self.rates, now);
        let is_there = |key: &Key| self.rows.iter().any(|row| row.key == *key);
        // What was selected is gone: then what stands in its place.
        if !self.selected.as_ref().is_some_and(is_there) {
            let at = before.min(self.rows.len().saturating_sub(1));
            self.selected = self.rows.get(at).map(|row| row.key.clone());
            self.prompt = None;
        }
    }

    /// The number of the selected row; 0 if there is none.
    pub(super) fn selected_at(&self) -> usize {
        let is_selected = |row: &Row| Some(&row.key) == self.selected.as_ref();
        self.rows.iter().position(is_selected).unwrap_or(0)
    }

    /// The row that keys speak of.
    pub(super) fn selected(&self) -> Option<&Row> {
        self.rows.get(self.selected_at())
    }

    /// What a key means.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Some(Wish::Quit);
        }
        self.message = None;
        if let Some((action, _)) = self.prompt.take() {
            let is_yes = matches!(key.code, KeyCode::Char('y' | 'Y')) && !control;
            if !is_yes {
                self.message = Some((Tone::Plain, "nothing was approved".to_owned()));
            }
            return is_yes.then_some(Wish::Act(action));
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home => self.step(isize::MIN),
            KeyCode::End => self.step(isize::MAX),
            KeyCode::Char(c @ ('p' | 'r' | 's' | 'a')) if !control => return self.order(c),
            _ => {}
        }
        None
    }

    fn step(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        let at = self.selected_at().saturating_add_signed(by).min(last);
        self.selected = self.rows.get(at).map(|row| row.key.clone());
    }

    fn order(&mut self, letter: char) -> Option<Wish> {
        let row = self.selected()?;
        let Some(subject) = row.subject.clone() else {
            self.message = Some((
                Tone::Bad,
                "a module takes no orders; its senders do, on their machines".to_owned(),
            ));
            return None;
        };
        let action = match letter {
            'p' => Action::Pause(subject),
            'r' => Action::Resume(subject),
            's' => Action::Rescan(subject),
            _ => {
                match row.held {
                    Some(held) => {
                        let question = format!(
                            "Delete {} on {}? y/n",
                            count(held, "entry", "entries"),
                            visible(&subject.target)
                        );
                        self.prompt = Some((Action::Approve(subject, held), question));
                    }
                    None => {
                        let text = format!("no deletions of {} wait for approval", subject.shown());
                        self.message = Some((Tone::Bad, visible(&text)));
                    }
                }
                return None;
            }
        };
        Some(Wish::Act(action))
    }
}
