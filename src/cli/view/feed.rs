//! What the daemons of a home say, and what is asked of them, on threads of their own: a daemon that answers slowly holds up
//! neither the picture nor the keys.

use super::row::Subject;
use crate::cli::text::count;
use crate::daemon::control::{
    Answers, Ask, Ears, Obeyed, Order, Which, approve, ask_all, ask_senders, order,
};
use crate::daemon::events::Event;
use crate::daemon::home::Home;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How often the daemons are asked for their status.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Updates that wait to be taken. Whoever does not take them slows down the asking, and nothing else.
const UPDATES_MAX: usize = 64;

/// Things that were asked and are not done.
const ERRANDS_MAX: usize = 4;

/// News for a view.
#[derive(Debug)]
pub(super) enum Update {
    /// What all daemons said, and when.
    Status(Answers, Instant),
    /// How something ended that was asked.
    Outcome(Result<String, String>),
}

/// Something to be done to a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send nothing of it for now.
    Pause(Subject),
    /// Go on.
    Resume(Subject),
    /// Look at everything again.
    Rescan(Subject),
    /// Let it delete so many entries that it holds back.
    Approve(Subject, u64),
}

/// Where news come from, and where errands go.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) updates: Receiver<Update>,
    pub(super) events: Receiver<Event>,
    errands: Sender<Action>,
}

impl Feed {
    /// Begins to ask, and to listen if `with_events`. The threads end soon after this is dropped.
    pub(super) fn start(home: &Home, with_events: bool) -> io::Result<Feed> {
        let (news, updates) = bounded(UPDATES_MAX);
        let (errands, inbox) = bounded(ERRANDS_MAX);
        let (wake, woken) = bounded(1);
        let (ears, events) = Ears::open();
        let asking = Asking {
            home: home.clone(),
            news: news.clone(),
            woken,
            ears: with_events.then_some(ears),
        };
        thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || asking.run())?;
        let home = home.clone();
        thread::Builder::new().name("errands".to_owned()).spawn(move || {
            for action in inbox {
                let outcome = carry_out(&home, &action);
                // Full: then it is about to ask anyhow.
                let _ = wake.try_send(());
                if news.send(Update::Outcome(outcome)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Feed {
            updates,
            events,
            errands,
        })
    }

    /// Has something done; its outcome is an update. False if too much waits already.
    pub(super) fn ask(&self, action: Action) -> bool {
        self.errands.try_send(action).is_ok()
    }
}

/// The thread that asks.
struct Asking {
    home: Home,
    news: Sender<Update>,
    woken: Receiver<()>,
    ears: Option<Ears>,
}

impl Asking {
    fn run(mut self) {
        loop {
            let mut answers = ask_all(&self.home).unwrap_or_else(|error| Answers {
                problems: vec![error.to_string()],
                ..Answers::default()
            });
            if let Some(ears) = &mut self.ears
                && let Err(error) = ears.listen(&self.home)
            {
                answers.problems.push(error.to_string());
            }
            if self.news.send(Update::Status(answers, Instant::now())).is_err() {
                return;
            }
            if self.woken.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

fn carry_out(home: &Home, action: &Action) -> Result<String, String> {
    match action {
        Action::Pause(subject) => give(home, subject, Order::Pause),
        Action::Resume(subject) => give(home, subject, Order::Resume),
        Action::Rescan(subject) => rescan(home, subject),
        Action::Approve(subject, deletions) => {
            let approved =
                approve(home, &subject.target, *deletions).map_err(|error| error.to_string())??;
            Ok(format!(
                "{} approved: {}",
                subject.shown(),
                count(approved, "deletion", "deletions")
            ))
        }
    }
}

/// Gives an order to the daemon that has a mirror of this name.
fn give(home: &Home, subject: &Subject, wanted: impl Fn(String) -> Order) -> Result<String, String> {
    let nobody = || {
        format!(
            "{}: only a mirror of `driftless daemon` takes this order",
            subject.shown()
        )
    };
    let mirror = subject.mirror.clone().ok_or_else(nobody)?;
    let outcomes = order(home, &wanted(mirror)).map_err(|error| error.to_string())?;
    let mut said = outcomes.into_iter().filter_map(|outcome| match outcome {
        Obeyed::Done(text) => Some(Ok(text)),
        Obeyed::Failed(text) | Obeyed::Misconfigured(text) => Some(Err(text)),
        Obeyed::Unknown => None,
    });
    said.next().unwrap_or_else(|| Err(nobody()))
}

fn rescan(home: &Home, subject: &Subject) -> Result<String, String> {
    let which = Which {
        mirror: Some(subject.target.clone()),
        path: None,
    };
    let answers = ask_senders(home, &which, &Ask::Rescan).map_err(|error| error.to_string())?;
    let own = answers
        .into_iter()
        .find(|answer| answer.of.source == subject.source && answer.of.mirror == subject.mirror);
    match own {
        Some(answer) => answer.error.map_or_else(
            || Ok(format!("{}: looking at everything again", subject.shown())),
            |error| Err(format!("{}: {error}", subject.shown())),
        ),
        None => Err(format!("{}: its sender is not running any more", subject.shown())),
    }
}
