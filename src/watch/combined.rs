//! The best back end for each directory: fanotify, where that cannot be inotify, and where that cannot be polling.
//!
//! What decides is tried, never guessed from names or versions: a file system is marked, or it is not. If that of the
//! root cannot be marked, fanotify is not used at all; another file system further down that cannot (a FUSE mount, a
//! subvolume) is watched by inotify. A directory that not even inotify can watch is listed again and again, and each
//! time watching it is tried again, so a raised limit mends itself. Directories on file systems that other machines
//! write to are watched for what this machine does and listed for the rest.
//!
//! So every directory is covered, and [`Combined::degradations`] tells what is covered less well, and why.

use super::fanotify::{FanotifyOptions, sys};
use super::outgoing::Outgoing;
use super::poll::PollOptions;
use super::unsupported::remote;
use super::{Fanotify, Inotify, Poll, Unsupported, WatchError, WatchEvent, Watcher, shown};
use crossbeam_channel::{Receiver, Sender};
use driftless_protocol::ObjectId;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Which back end to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchChoice {
    /// The best that works.
    #[default]
    Auto,
    /// fanotify, or fail. Directories on other file systems than the root's may still be watched by inotify.
    Fanotify,
    /// inotify.
    Inotify,
    /// None: list all directories again and again.
    Poll,
}

/// How a [`Combined`] is set up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchOptions {
    /// Which back end to use.
    pub choice: WatchChoice,
    /// For fanotify; its queue is that of all.
    pub fanotify: FanotifyOptions,
    /// For what cannot be watched.
    pub poll: PollOptions,
    /// How often everything that is watched is looked at all the same, for what no back end is told of (stores through
    /// a mapping, the kernel's own omissions); `None` for never.
    pub audit: Option<Duration>,
}

/// Several back ends as one: the best for each directory.
pub struct Combined {
    options: WatchOptions,
    /// That the root is on.
    device: u64,
    fanotify: Option<Fanotify>,
    /// Started when it is needed, like the next.
    inotify: Option<Inotify>,
    poll: Option<Poll>,
    /// Looks at what is watched, slowly.
    audit: Option<Poll>,
    outgoing: Outgoing,
    receiver: Receiver<WatchEvent>,
    /// Why the root is not watched by fanotify.
    refused: Option<Unsupported>,
    /// The first other directory that is not, and why.
    refused_below: Option<(String, Unsupported)>,
    /// The first directory that is polled, and why.
    polled: Option<(String, String)>,
}

/// Starts the back end that is chosen, or the best for the tree whose root is `root`. Nothing is watched yet.
///
/// Fails when fanotify is asked for and cannot watch the root, and when inotify is asked for and cannot be started.
pub fn open(options: &WatchOptions, root: BorrowedFd<'_>) -> Result<Combined, WatchError> {
    let (outgoing, receiver) = Outgoing::new(options.fanotify.queue_events);
    let mut combined = Combined {
        options: options.clone(),
        // If it cannot be told, the watcher shares with others of which it cannot be told either, and does no harm.
        device: rustix::fs::fstat(root).map_or(0, |stat| stat.st_dev),
        fanotify: None,
        inotify: None,
        poll: None,
        audit: None,
        outgoing,
        receiver,
        refused: None,
        refused_below: None,
        polled: None,
    };
    if matches!(options.choice, WatchChoice::Auto | WatchChoice::Fanotify) {
        match combined.start_fanotify(root) {
            Ok(fanotify) => combined.fanotify = Some(fanotify),
            Err(reason) if options.choice == WatchChoice::Fanotify => {
                let path = shown(root);
                return Err(WatchError::Unsupported { path, reason });
            }
            Err(reason) => combined.refused = Some(reason),
        }
    }
    match options.choice {
        WatchChoice::Inotify => {
            combined.inotify()?;
        }
        // If it cannot be started, each directory will say so.
        WatchChoice::Auto if combined.fanotify.is_none() => {
            let _ = combined.inotify();
        }
        _ => {}
    }
    if let Some(interval) = options.audit {
        let pace = PollOptions {
            interval,
            ..options.poll.clone()
        };
        let (outgoing, receiver) = (combined.outgoing.clone(), combined.receiver.clone());
        combined.audit = Some(Poll::start_into(pace, outgoing, receiver)?);
    }
    Ok(combined)
}

impl Combined {
    fn start_fanotify(&self, root: BorrowedFd<'_>) -> Result<Fanotify, Unsupported> {
        Fanotify::join(
            &self.options.fanotify,
            root,
            self.outgoing.clone(),
            self.receiver.clone(),
        )
    }

    fn inotify(&mut self) -> Result<&mut Inotify, WatchError> {
        match &mut self.inotify {
            Some(inotify) => Ok(inotify),
            missing => {
                let started = Inotify::join(self.device, self.outgoing.clone(), self.receiver.clone())?;
                Ok(missing.insert(started))
            }
        }
    }

    fn poll(&mut self) -> Result<&mut Poll, WatchError> {
        match &mut self.poll {
            Some(poll) => Ok(poll),
            missing => {
                let options = self.options.poll.clone();
                let started = Poll::start_into(options, self.outgoing.clone(), self.receiver.clone())?;
                Ok(missing.insert(started))
            }
        }
    }

    /// Which directories are polled, and why.
    fn polling(&self) -> Option<String> {
        let ((path, reason), poll) = (self.polled.as_ref()?, self.poll.as_ref()?);
        let count = match poll.watched() {
            0 => return None,
            1 => "1 directory is".to_owned(),
            count => format!("{count} directories are"),
        };
        let seconds = poll.round().as_secs().max(1);
        Some(format!(
            "{count} only looked at every {seconds} s, the first is {path}: {reason}"
        ))
    }

    /// Whether fanotify watches the directory now.
    fn watch_by_fanotify(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> bool {
        let Some(fanotify) = &mut self.fanotify else {
            return false;
        };
        let before = fanotify.watched();
        match fanotify.watch(directory, handle) {
            Ok(()) => true,
            Err(error) => {
                give_up(fanotify, directory, before, &self.outgoing);
                if let WatchError::Unsupported { path, reason } = error {
                    self.refused_below.get_or_insert((path, reason));
                }
                false
            }
        }
    }

    /// Why inotify does not see all that happens in the directory; `Ok` if it does.
    fn watch_by_inotify(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), String> {
        if self.options.choice == WatchChoice::Poll {
            return Err("that was asked for".to_owned());
        }
        match self
            .inotify()
            .and_then(|inotify| inotify.watch(directory, handle))
        {
            Ok(()) => {}
            // Nothing more can happen in it.
            Err(WatchError::Removed { .. }) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        let kind = sys::file_system(handle)
            .ok()
            .and_then(|found| remote(found.magic));
        match kind {
            Some(kind) => Err(format!("what others change on {kind} is not told")),
            None => Ok(()),
        }
    }
}

/// Another back end watches a directory from now on. What this one, which watched so many before that, has not told of it yet it tells
/// nobody any more, and a listing does not show all of that: a file that was renamed looks the same with a write before it and without.
fn give_up(watcher: &mut impl Watcher, directory: ObjectId, before: usize, outgoing: &Outgoing) {
    watcher.unwatch(directory);
    if watcher.watched() < before {
        outgoing.turn().send(WatchEvent::Overflow);
    }
}

impl Watcher for Combined {
    fn watch(&mut self, directory: ObjectId, handle: BorrowedFd<'_>) -> Result<(), WatchError> {
        if let Some(audit) = &mut self.audit {
            audit.watch(directory, handle)?;
        }
        // The new back end has it before the old one gives it up.
        if self.watch_by_fanotify(directory, handle) {
            if let Some(inotify) = &mut self.inotify {
                let before = inotify.watched();
                give_up(inotify, directory, before, &self.outgoing);
            }
            if let Some(poll) = &mut self.poll {
                poll.unwatch(directory);
            }
            return Ok(());
        }
        match self.watch_by_inotify(directory, handle) {
            Ok(()) => {
                if let Some(poll) = &mut self.poll {
                    poll.unwatch(directory);
                }
            }
            Err(reason) => {
                self.poll()?.watch(directory, handle)?;
                self.polled.get_or_insert_with(|| (shown(handle), reason));
            }
        }
        Ok(())
    }

    fn unwatch(&mut self, directory: ObjectId) {
        if let Some(fanotify) = &mut self.fanotify {
            fanotify.unwatch(directory);
        }
        if let Some(inotify) = &mut self.inotify {
            inotify.unwatch(directory);
        }
        for poll in [&mut self.poll, &mut self.audit].into_iter().flatten() {
            poll.unwatch(directory);
        }
    }

    fn name(&self) -> &'static str {
        match (&self.fanotify, &self.inotify) {
            (Some(fanotify), _) => fanotify.name(),
            (None, Some(inotify)) => inotify.name(),
            (None, None) => "poll",
        }
    }

    fn set_patient(&mut self, is_patient: bool) {
        self.outgoing.set_patient(is_patient);
    }

    fn hear(&mut self, done: Sender<()>) {
        if let Some(fanotify) = &mut self.fanotify {
            fanotify.hear(done.clone());
        }
        if let Some(inotify) = &mut self.inotify {
            inotify.hear(done);
        }
    }

    /// The audit is left alone: it looks for what no event tells of, in its own time.
    fn flush(&mut self, done: Sender<()>) {
        self.hear(done.clone());
        if let Some(poll) = &mut self.poll {
            poll.flush(done);
        }
    }

    /// Directories that are watched and polled count twice.
    fn watched(&self) -> usize {
        let fanotify = self.fanotify.as_ref().map_or(0, Watcher::watched);
        let inotify = self.inotify.as_ref().map_or(0, Watcher::watched);
        let poll = self.poll.as_ref().map_or(0, Watcher::watched);
        fanotify + inotify + poll
    }

    fn events(&self) -> Receiver<WatchEvent> {
        self.receiver.clone()
    }

    fn shortfall(&self) -> Option<String> {
        let is_wanted = self.options.choice == WatchChoice::Poll;
        self.polling().filter(|_| !is_wanted)
    }

    fn degradations(&self) -> Vec<String> {
        let mut told = Vec::new();
        told.extend(self.refused.map(|reason| reason.to_string()));
        let inotify = self.inotify.as_ref().map_or(0, Watcher::watched);
        if let (Some((path, reason)), 1..) = (&self.refused_below, inotify) {
            told.push(format!(
                "{path} and what is below it is watched by inotify: {reason}"
            ));
        }
        told.extend(self.polling());
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_back_end_that_gives_up_a_directory_says_that_events_may_be_missing() {
        let home = tempfile::tempdir().unwrap();
        let directory = File::open(home.path()).unwrap();
        let options = WatchOptions {
            choice: WatchChoice::Inotify,
            ..WatchOptions::default()
        };
        let mut combined = open(&options, directory.as_fd()).unwrap();
        combined.watch(ObjectId(5), directory.as_fd()).unwrap();
        let inotify = combined.inotify.as_mut().unwrap();
        // One that it never had has no events.
        for directory in [6, 5, 5] {
            let before = inotify.watched();
            give_up(inotify, ObjectId(directory), before, &combined.outgoing);
        }
        let told: Vec<_> = combined.events().try_iter().collect();
        assert_eq!(told, [WatchEvent::Overflow]);
    }
}
