//! What a lying receiver is after.

use crate::liar::{Heard, Liar, Lie};
use crate::support::{Pair, Watching, runtime};
use driftless::daemon::{Deletes, SenderOptions, Stop, Summary, sender};
use driftless::engine::filter::FilterBuilder;
use driftless_protocol::codec::encode;
use driftless_protocol::message::*;
use driftless_protocol::{Attributes, Digest, Kind, Name, ObjectId, TreeSum};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

pub const SECRET_NAME: &str = "hidden-name";
pub const SECRET_TEXT: &str = "what nobody may know";
pub const CANARY_TEXT: &str = "beside the tree";

/// A source with something excluded, links that lead out, and a canary that is watched.
pub struct Scene {
    pub pair: Pair,
    pub canary: rustix::fd::OwnedFd,
}

impl Scene {
    pub fn new() -> Scene {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let mut pair = Pair::new();
        let (src, canary) = (pair.src(), pair.path("canary"));
        fs::create_dir_all(canary.join("d")).unwrap();
        fs::write(canary.join("file"), CANARY_TEXT).unwrap();
        fs::write(canary.join("d/file"), CANARY_TEXT).unwrap();
        fs::create_dir(src.join("d")).unwrap();
        fs::write(src.join("public"), "public").unwrap();
        // Too large to travel inside its op.
        fs::write(src.join("large"), vec![9; 600 << 10]).unwrap();
        for name in [SECRET_NAME, &format!("d/{SECRET_NAME}")] {
            fs::write(src.join(name), SECRET_TEXT).unwrap();
        }
        symlink("../canary", src.join("out")).unwrap();
        symlink("../canary/file", src.join("outfile")).unwrap();
        let mut filter = FilterBuilder::new(src.as_os_str().as_encoded_bytes());
        filter.exclude(SECRET_NAME.as_bytes()).unwrap();
        pair.filter = filter.build().unwrap();
        pair.deletes = Deletes::Always;
        let watcher = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for path in [canary.clone(), canary.join("d")] {
            add_watch(
                &watcher,
                path,
                WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::ATTRIB,
            )
            .unwrap();
        }
        Scene {
            pair,
            canary: watcher,
        }
    }

    /// Runs a sender to its end against what `answer` makes of its first connection. It must end, one way or another.
    pub fn run(&self, answer: impl FnOnce(&mut Lie) + Send) -> Result<bool, String> {
        let outcome = self.run_to_summary(answer);
        outcome.map(|summary| summary.in_sync && summary.failed.is_empty())
    }

    /// As [`Scene::run`], with all that the sender has to say.
    pub fn run_to_summary(&self, answer: impl FnOnce(&mut Lie) + Send) -> Result<Summary, String> {
        let liar = Liar::new(&self.pair);
        let options: SenderOptions = self.pair.sender_options(liar.address, false);
        let stop = Stop::default();
        let watching = Arc::new(Watching::default());
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let outcome = sender::run(&options, &runtime(), watching.clone(), &stop);
                outcome.map_err(|error| error.to_string())
            });
            let mut lie = liar.accept();
            answer(&mut lie);
            lie.connection.close(0u32.into(), b"");
            // Whether it would try again is not the question.
            stop.request();
            liar.endpoint.close(0u32.into(), b"");
            sending.join().expect("the sender panicked")
        })
    }

    /// Nobody opened, read or changed anything beside the tree.
    pub fn check_canary(&self) {
        let mut bytes = [0; 4096];
        let read = rustix::io::read(&self.canary, &mut bytes);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN), "the canary was touched");
    }
}

pub fn row(name: &str, object: u64, kind: Kind, content: Option<&[u8]>) -> Row {
    Row {
        name: Name::new(name.as_bytes()).unwrap(),
        object: ObjectId(ObjectId::FIRST_LOCAL.0 + object),
        kind,
        attributes: Attributes {
            mode: 0o644,
            ..Attributes::default()
        },
        size: content.map_or(0, |content| content.len() as u64),
        digest: content.map(Digest::of),
        below: TreeSum::default(),
        entries: u64::from(kind == Kind::Directory),
    }
}

pub fn bytes_of(heard: &[Heard]) -> Vec<Vec<u8>> {
    let encoded = heard.iter().map(|heard| match heard {
        Heard::Control(message) => encode(message),
        Heard::Ops(frame) => encode(frame),
        Heard::Bulk(frame) => encode(frame),
    });
    encoded.map(Result::unwrap).collect()
}

pub fn contains(all: &[Vec<u8>], part: &[u8]) -> bool {
    all.iter()
        .any(|bytes| bytes.windows(part.len()).any(|window| window == part))
}
