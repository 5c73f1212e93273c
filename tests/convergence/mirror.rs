//! A mirror that is at work, and questions about what it has done.

use crate::support::settled::wait_settled;
use crate::support::{Following, Pair, Said, assert_no_leftovers};
use driftless::daemon::receiver::ReceiverDaemon;
use driftless::daemon::{Phase, Summary, WatchChoice};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What watches a source.
pub const CHOICES: [WatchChoice; 3] = [WatchChoice::Auto, WatchChoice::Inotify, WatchChoice::Poll];

/// Chooses what watches; what is polled is polled so often that it is found within the time that trees have to settle.
pub fn watched_by(pair: &mut Pair, choice: WatchChoice) {
    pair.watch.choice = choice;
    pair.watch.poll.interval = Duration::from_millis(200);
    pair.watch.poll.directories_per_second = 5_000;
}

/// A receiver, and a sender that can be stopped and started.
pub struct Mirror {
    pub pair: Pair,
    receiver: Option<ReceiverDaemon>,
    following: Option<Following>,
}

impl Mirror {
    /// Starts both; returns when both trees are equal.
    pub fn start(pair: Pair) -> Mirror {
        let mut mirror = Mirror::stopped(pair);
        mirror.resume();
        mirror.settle();
        mirror
    }

    /// Starts the receiver only.
    pub fn stopped(pair: Pair) -> Mirror {
        Mirror {
            receiver: Some(pair.receive()),
            pair,
            following: None,
        }
    }

    /// A mirror that is in sync with what is there, by a sender that has come to its end: what counts from now on is what
    /// comes from now on.
    pub fn seeded(pair: Pair) -> Mirror {
        let mirror = Mirror::stopped(pair);
        let outcome = mirror.pair.seed_to(mirror.address()).unwrap();
        assert!(outcome.in_sync && outcome.failed.is_empty(), "{outcome:?}");
        mirror
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.receiver.as_ref().unwrap().address()
    }

    /// Starts the sender.
    pub fn resume(&mut self) {
        let options = self.pair.sender_options(self.address(), true);
        self.following = Some(Following::start(options));
    }

    pub fn following(&self) -> &Following {
        self.following.as_ref().expect("a sender that runs")
    }

    pub fn said(&self) -> Said {
        self.following().watching.said()
    }

    /// Waits until nothing is left to do and both trees are equal.
    pub fn settle(&self) {
        wait_settled(&self.pair, self.following());
    }

    /// Waits until the sender says that it will do nothing more. Returns why.
    pub fn halted(&self) -> String {
        let halted = |phase: &Phase| matches!(phase, Phase::Halted { .. });
        match self.following().watching.wait_for(halted) {
            Phase::Halted { error } => error,
            phase => unreachable!("{phase:?} was not waited for"),
        }
    }

    /// Stops the sender, whatever it is doing.
    pub fn pause(&mut self) -> Result<Summary, String> {
        let following = self.following.take().expect("a sender that runs");
        following.stop().map_err(|error| error.to_string())
    }

    /// Settles and stops both. Nothing is in error and nothing is left over.
    pub fn end(mut self) -> Summary {
        self.settle();
        let summary = self.pause().unwrap();
        self.stop();
        assert!(summary.failed.is_empty(), "{summary:?}");
        assert_no_leftovers(&self.pair.dst());
        summary
    }

    /// Ends, and then has a fresh sender compare everything: what was believed is what is there.
    pub fn end_and_compare(mut self) -> Summary {
        self.settle();
        let summary = self.pause().unwrap();
        assert!(summary.failed.is_empty(), "{summary:?}");
        let again = self.pair.seed_to(self.address()).unwrap();
        assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
        assert_eq!(again.counters.files_sent, 0, "{again:?}");
        self.stop();
        self.pair.assert_equal();
        assert_no_leftovers(&self.pair.dst());
        summary
    }

    /// Stops the receiver.
    pub fn stop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            receiver.stop();
        }
    }
}

/// By what an object is known: a file that was removed and made again has another of these, even if its number is used again.
pub type Identity = (u64, Option<SystemTime>);

/// The objects in a tree, by path below the root.
pub fn identities(root: &Path) -> BTreeMap<PathBuf, Identity> {
    let found = crate::support::churn::Found::look(root);
    let objects = found.everything.iter().map(|path| {
        let meta = fs::symlink_metadata(path).unwrap();
        let below = path.strip_prefix(root).unwrap().to_owned();
        (below, (meta.ino(), meta.created().ok()))
    });
    objects
        .filter(|(path, _)| !path.starts_with(".driftless-generation"))
        .collect()
}
