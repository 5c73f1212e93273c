//! A mirror at work, judged exactly.

use crate::support::exact::{Judge, exact_differences};
use crate::support::{Following, PATIENCE, Pair, assert_no_leftovers};
use crate::values::judge;
use driftless::daemon::receiver::ReceiverDaemon;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

/// A receiver, and a sender that follows.
pub struct Mirror {
    pub pair: Pair,
    pub judge: Judge,
    receiver: Option<ReceiverDaemon>,
    following: Option<Following>,
}

impl Mirror {
    /// Starts both; returns when the trees are equal.
    pub fn start(pair: Pair) -> Mirror {
        let receiver = pair.receive();
        let mut mirror = Mirror {
            pair,
            judge: judge(),
            receiver: Some(receiver),
            following: None,
        };
        mirror.resume();
        mirror.settle("the seed");
        mirror
    }

    pub fn resume(&mut self) {
        let address = self.receiver.as_ref().unwrap().address();
        self.following = Some(Following::start(self.pair.sender_options(address, true)));
    }

    pub fn pause(&mut self) {
        let summary = self.following.take().unwrap().stop().unwrap();
        assert!(summary.failed.is_empty(), "{summary:?}");
    }

    /// Waits until the trees are equal.
    pub fn settle(&self, after: &str) {
        let (src, dst) = (self.pair.src(), self.pair.dst());
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A tree that changes while it is read makes the judge fail; that is only another round.
            let found = catch_unwind(AssertUnwindSafe(|| exact_differences(&src, &dst, self.judge)));
            match found {
                Ok(found) if found.is_empty() => return,
                Ok(found) if Instant::now() > deadline => {
                    panic!("after {after}: {}", found.join("\n"));
                }
                Err(_) if Instant::now() > deadline => panic!("after {after}: the trees cannot be read"),
                _ => std::thread::park_timeout(Duration::from_millis(20)),
            }
        }
    }

    /// What rsync finds to be done, if it is here.
    pub fn assert_rsync_agrees(&self) {
        let mut rsync = Command::new("rsync");
        rsync.args(["-aHXnic", "--delete", "--exclude=.driftless*"]);
        if self
            .judge
            .namespaces
            .iter()
            .any(|name| name.starts_with("system.posix"))
        {
            rsync.arg("-A");
        }
        rsync.arg(format!("{}/", self.pair.src().display()));
        rsync.arg(format!("{}/", self.pair.dst().display()));
        match rsync.output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success() && text.is_empty(), "{text}{errors}");
            }
            Err(error) => crate::support::skip(&format!("no rsync: {error}")),
        }
    }

    /// Settles, stops both, and has a fresh pair of daemons compare: what was believed is what is there.
    pub fn end(mut self) {
        self.settle("the end");
        self.assert_rsync_agrees();
        self.pause();
        self.receiver.take().unwrap().stop();
        let again = self.pair.seed().unwrap();
        assert!(again.in_sync && again.failed.is_empty(), "{again:?}");
        assert_eq!(again.counters.files_sent, 0, "{again:?}");
        self.settle("a new start");
        assert_no_leftovers(&self.pair.dst());
    }
}
