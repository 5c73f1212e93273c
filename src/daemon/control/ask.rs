//! Questions to the senders of a home: checkpoints, explanations, looks.
//!
//! `{"version":1,"command":"explain","path":"<hex>"}` is answered by one line with an `answers` array, an element for each
//! mirror and target that is meant: all of those whose source holds the path, or those of one `mirror`. A sender that is busy (it
//! walks its tree) answers with an error, and gets to the question later all the same.

use super::{ControlError, Controlled, Request, SENDER_PATIENCE, ask, forget_dead, sockets};
use crate::daemon::barrier::{self, Checkpoint, Explanation};
use crate::daemon::home::Home;
use crate::daemon::status::{STATUS_VERSION, StatusBoard, TargetLabel};
use crossbeam_channel::{Receiver, bounded};
use driftless_protocol::RelPath;
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the senders of a home can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Take a checkpoint of this name.
    Checkpoint(String),
    /// Forget the checkpoint of this name.
    ForgetCheckpoint(String),
    /// Tell what is known of the path.
    Explain,
    /// Look again at everything below the path.
    Rescan,
}

/// Which senders are meant. Without anything: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Those of a mirror, by its name, its source or its target.
    pub mirror: Option<String>,
    /// Those whose source holds this path.
    pub path: Option<PathBuf>,
}

/// What one sender answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which.
    #[serde(flatten)]
    pub of: TargetLabel,
    /// The checkpoint that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// Whether there was a checkpoint to forget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgot: Option<bool>,
    /// What is known of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// How many entries in error are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<u64>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Ask {
    fn command(&self) -> &'static str {
        match self {
            Ask::Checkpoint(_) => "checkpoint",
            Ask::ForgetCheckpoint(_) => "forget-checkpoint",
            Ask::Explain => "explain",
            Ask::Rescan => "rescan",
        }
    }

    pub(super) fn parse(request: &Request) -> Option<Ask> {
        let name = || request.name.clone().unwrap_or_default();
        match request.command.as_str() {
            "checkpoint" => Some(Ask::Checkpoint(name())),
            "forget-checkpoint" => Some(Ask::ForgetCheckpoint(name())),
            "explain" => Some(Ask::Explain),
            "rescan" => Some(Ask::Rescan),
            _ => None,
        }
    }
}

/// Asks all senders of a home that are meant.
pub fn ask_senders(home: &Home, which: &Which, question: &Ask) -> Result<Vec<Answer>, ControlError> {
    let name = match question {
        Ask::Checkpoint(name) | Ask::ForgetCheckpoint(name) => Some(name.clone()),
        _ => None,
    };
    let mut answers = Vec::new();
    for path in which.candidates() {
        let request = Request {
            version: STATUS_VERSION,
            command: question.command().to_owned(),
            mirror: which.mirror.clone(),
            path: path.as_deref().map(to_hex),
            name: name.clone(),
            ..Request::default()
        };
        for (pid, socket) in sockets(home)? {
            match ask(&socket, &request) {
                Ok(Some(reply)) => answers.extend(reply.answers.unwrap_or_default()),
                Ok(None) => forget_dead(pid, &socket),
                Err(error) => tracing::warn!("the driftless process {pid} does not answer: {error}"),
            }
        }
        if !answers.is_empty() {
            break;
        }
    }
    Ok(answers)
}

impl Which {
    /// The paths that may be meant, likeliest first: a link in a mirrored tree is an entry of it, while one that leads to a
    /// tree stands for that.
    pub(super) fn candidates(&self) -> Vec<Option<PathBuf>> {
        let Some(path) = &self.path else {
            return vec![None];
        };
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let mut found = vec![Some(settled(&absolute))];
        if let Ok(full) = absolute.canonicalize()
            && found[0].as_ref() != Some(&full)
        {
            found.push(Some(full));
        }
        found
    }
}

/// A path with all links but the last resolved, as far as there is anything.
fn settled(path: &Path) -> PathBuf {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    match parent.canonicalize() {
        Ok(parent) => parent.join(name),
        Err(_) => settled(parent).join(name),
    }
}

pub(super) fn to_hex(path: &Path) -> String {
    data_encoding::HEXLOWER.encode(path.as_os_str().as_bytes())
}

pub(super) fn from_hex(text: &str) -> Result<PathBuf, String> {
    let bytes = data_encoding::HEXLOWER
        .decode(text.as_bytes())
        .map_err(|error| format!("the path is not in hexadecimal: {error}"))?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
}

/// The boards that a request means, and the path in their trees.
pub(super) fn meant(
    daemons: &dyn Controlled,
    request: &Request,
) -> Result<Vec<(Arc<StatusBoard>, RelPath)>, String> {
    let path = request.path.as_deref().map(from_hex).transpose()?;
    let is_named = |board: &Arc<StatusBoard>| {
        let mirror = request.mirror.as_ref();
        mirror.is_none_or(|mirror| board.is_named(mirror))
    };
    let boards = daemons.boards().into_iter().filter(is_named);
    let placed = boards.filter_map(|board| {
        let below = match &path {
            Some(path) => board.relative(path)?,
            None => RelPath::root(),
        };
        Some((board, below))
    });
    Ok(placed.collect())
}

/// Where the answer of one sender comes from.
enum Pending {
    Checkpoint(Receiver<Result<Checkpoint, String>>),
    Forgot(Receiver<Result<bool, String>>),
    Explanation(Receiver<Explanation>),
    Retried(Receiver<Result<u64, String>>),
    Refused(String),
}

/// Answers for all senders in this process that are meant.
pub(super) fn answer_all(
    daemons: &dyn Controlled,
    request: &Request,
    question: &Ask,
) -> Result<Vec<Answer>, String> {
    if let Ask::Checkpoint(name) = question {
        barrier::check_name(name)?;
    }
    let asked: Vec<_> = meant(daemons, request)?
        .into_iter()
        .map(|(board, path)| (board.label(), put(&board, path, question)))
        .collect();
    let until = Instant::now() + SENDER_PATIENCE;
    Ok(asked
        .into_iter()
        .map(|(of, pending)| pending.wait(of, until))
        .collect())
}

fn put(board: &StatusBoard, path: RelPath, question: &Ask) -> Pending {
    use barrier::Request as Wish;
    let (wish, pending) = match question {
        Ask::Checkpoint(name) => {
            let ((answer, pending), name) = (bounded(1), name.clone());
            (Wish::Checkpoint { name, answer }, Pending::Checkpoint(pending))
        }
        Ask::ForgetCheckpoint(name) => {
            let ((answer, pending), name) = (bounded(1), name.clone());
            (Wish::ForgetCheckpoint { name, answer }, Pending::Forgot(pending))
        }
        Ask::Explain => {
            let (answer, pending) = bounded(1);
            (Wish::Explain { path, answer }, Pending::Explanation(pending))
        }
        Ask::Rescan => {
            let (answer, pending) = bounded(1);
            (Wish::Rescan { path, answer }, Pending::Retried(pending))
        }
    };
    match board.request(wish) {
        true => pending,
        false => Pending::Refused("too many questions wait for it already".to_owned()),
    }
}

impl Pending {
    fn wait(self, of: TargetLabel, until: Instant) -> Answer {
        let mut told = Answer {
            of,
            checkpoint: None,
            forgot: None,
            explanation: None,
            retried: None,
            error: None,
        };
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        let outcome = match self {
            Pending::Checkpoint(answer) => {
                flat(answer.recv_timeout(left)).map(|taken| told.checkpoint = Some(taken))
            }
            Pending::Forgot(answer) => {
                flat(answer.recv_timeout(left)).map(|forgot| told.forgot = Some(forgot))
            }
            Pending::Retried(answer) => {
                flat(answer.recv_timeout(left)).map(|count| told.retried = Some(count))
            }
            Pending::Explanation(answer) => flat(answer.recv_timeout(left).map(Ok)).map(|found| {
                let TargetLabel {
                    mirror,
                    source,
                    target,
                } = told.of.clone();
                told.explanation = Some(Explanation {
                    mirror,
                    source,
                    target,
                    ..found
                });
            }),
            Pending::Refused(text) => Err(text),
        };
        told.error = outcome.err();
        told
    }
}

fn flat<T>(outcome: Result<Result<T, String>, crossbeam_channel::RecvTimeoutError>) -> Result<T, String> {
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => Err("its sender is busy or not running; it gets to this when it runs".to_owned()),
    }
}
