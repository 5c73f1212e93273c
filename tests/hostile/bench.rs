//! What all parts share: the receiver under attack, the canary, and ops in short.

pub use crate::support::peer::{Closed, Packed, Peer, closed, dial, opening, tls};
pub use crate::support::{Pair, Seen, assert_equal, runtime, tree};
pub use driftless::daemon::receiver::ReceiverDaemon;
pub use driftless::daemon::{ModuleOptions, ReceiverOptions};
pub use driftless_certs::{Grant, Identity, Peer as Trusted, TrustStore, sender_config};
pub use driftless_protocol::codec::encode;
pub use driftless_protocol::limits::*;
pub use driftless_protocol::message::*;
pub use driftless_protocol::version::{ALPN_MIRROR, ALPN_PAIR, HELLO_BYTES, Hello};
pub use driftless_protocol::{Attributes, CloseCode, Digest, Name, ObjectId, RelPath, Timestamp};
pub use driftless_protocol::{Special, Xattr, XattrClasses, Xattrs};
pub use std::collections::BTreeMap;
pub use std::fs;
pub use std::os::unix::ffi::OsStrExt;
pub use std::os::unix::fs::{MetadataExt, symlink};
pub use std::path::PathBuf;
pub use std::sync::Arc;
pub use std::time::Duration;

pub const MIRROR: u128 = 77;

/// A receiver with a module to attack, one for an honest sender, and a canary beside them.
pub struct Bench {
    pub pair: Pair,
    pub daemon: Option<ReceiverDaemon>,
    pub canary: BTreeMap<Vec<u8>, Seen>,
    pub options: ReceiverOptions,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(|_, _| ())
    }

    pub fn with(change: impl FnOnce(&Pair, &mut ReceiverOptions)) -> Bench {
        let pair = Pair::new();
        for name in ["canary", "canary/d", "canary/q", "honest", "third"] {
            fs::create_dir(pair.path(name)).unwrap();
        }
        for name in ["canary/secret", "canary/d/f", "canary/q/f"] {
            fs::write(
                pair.path(name),
                format!("{name} is nobody's business").repeat(2000),
            )
            .unwrap();
        }
        fs::write(pair.src().join("honest"), "honest content").unwrap();
        let mut options = pair.receiver_options();
        for name in ["honest", "third"] {
            options.modules.push(ModuleOptions {
                name: name.to_owned(),
                path: pair.path(name),
                xattrs: XattrClasses::USUAL,
                devices: true,
                keeping: driftless::daemon::keeping::Keeping::default(),
                preallocate: false,
                publish: Vec::new(),
                hosts: Default::default(),
                inplace: false,
                kept_as: driftless::daemon::KeptAs::default(),
                previous: None,
                upkeep: Default::default(),
            });
        }
        change(&pair, &mut options);
        let daemon = Some(ReceiverDaemon::start(options.clone(), &runtime()).unwrap());
        let canary = outside(&pair);
        Bench {
            pair,
            daemon,
            canary,
            options,
        }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.daemon.as_ref().unwrap().address()
    }

    pub fn restart(&mut self) {
        self.daemon.take().unwrap().stop();
        self.daemon = Some(ReceiverDaemon::start(self.options.clone(), &runtime()).unwrap());
    }

    pub fn dst(&self, name: &str) -> PathBuf {
        self.pair.dst().join(name)
    }

    pub fn open(&self) -> Peer {
        self.try_open(&opening(b"dst", MIRROR)).unwrap().0
    }

    pub fn try_open(&self, open: &Open) -> Result<(Peer, Opened), Closed> {
        Peer::open(&self.pair, self.address(), open)
    }

    /// The canary is as it was, and an honest sender is served.
    pub fn check(&self) {
        self.check_canary();
        let mut options = self.pair.sender_options(self.address(), false);
        options.target.module = "honest".to_owned();
        let summary = driftless::daemon::sender::run(
            &options,
            &runtime(),
            Arc::new(driftless::daemon::Silent),
            &driftless::daemon::Stop::default(),
        );
        assert!(summary.unwrap().in_sync);
        assert_equal(&self.pair.src(), &self.pair.path("honest"));
    }

    pub fn check_canary(&self) {
        assert_eq!(
            outside(&self.pair),
            self.canary,
            "something outside the module changed"
        );
    }

    pub fn check_empty(&self) {
        assert!(
            tree(&self.pair.dst()).is_empty(),
            "{:?}",
            tree(&self.pair.dst()).keys()
        );
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }
}

/// Everything beside the module: the canary, and which names there are.
pub fn outside(pair: &Pair) -> BTreeMap<Vec<u8>, Seen> {
    let mut seen = tree(&pair.path("canary"));
    for entry in fs::read_dir(pair.directory.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let (mode, owner, mtime) = (0, (0, 0), (0, 0));
        let key = [b"../", name.as_bytes()].concat();
        seen.insert(
            key,
            Seen {
                kind: 'n',
                mode,
                owner,
                mtime,
                content: Vec::new(),
            },
        );
    }
    seen
}

pub fn attributes(mode: u16) -> Attributes {
    Attributes {
        mode,
        mtime: Timestamp::new(1_700_000_000, 5).unwrap(),
        ..Attributes::default()
    }
}

pub fn place(directory: u64, name: &str) -> Place {
    Place {
        directory: ObjectId(directory),
        name: Name::new(name.as_bytes()).unwrap(),
    }
}

pub fn directory(at: Place, object: u64) -> OpBody {
    OpBody::MakeDirectory {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o755),
    }
}

pub fn inline(at: Place, object: u64, text: &str) -> OpBody {
    let content = Content::Inline {
        digest: Digest::of(text.as_bytes()),
        bytes: InlineContent(text.into()),
    };
    OpBody::PutFile {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        content,
    }
}

pub fn offer(at: Place, object: u64, size: u64, digest: Option<Digest>) -> OpBody {
    let content = Content::Offer { size, digest };
    OpBody::PutFile {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        content,
    }
}

pub fn link(at: Place, object: u64, target: &str) -> OpBody {
    let target = LinkTarget(target.into());
    OpBody::PutSymlink {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0),
        target,
    }
}

pub fn special(at: Place, object: u64, special: Special) -> OpBody {
    OpBody::PutSpecial {
        place: at,
        object: ObjectId(object),
        attributes: attributes(0o644),
        special,
    }
}

/// Another name of something with the content `x`.
pub fn hard_link(at: Place, object: u64, to: u64) -> OpBody {
    OpBody::Link {
        place: at,
        object: ObjectId(object),
        attributes: Attributes {
            link_group: ObjectId(77),
            ..attributes(0o644)
        },
        to: ObjectId(to),
        digest: Digest::of(b"x"),
    }
}

pub fn remove(at: Place, object: u64) -> OpBody {
    OpBody::Remove {
        object: ObjectId(object),
        place: at,
    }
}

pub fn set(object: u64, mode: u16) -> OpBody {
    OpBody::SetAttributes {
        object: ObjectId(object),
        attributes: attributes(mode),
    }
}

pub fn every_position(at: &Place) -> Vec<OpBody> {
    let object = ObjectId(900);
    vec![
        directory(at.clone(), 900),
        inline(at.clone(), 900, "x"),
        offer(at.clone(), 900, 5, None),
        link(at.clone(), 900, "x"),
        special(at.clone(), 900, Special::Fifo),
        hard_link(at.clone(), 901, 900),
        OpBody::Move {
            object,
            to: at.clone(),
        },
        remove(at.clone(), 900),
        OpBody::Adopt {
            place: at.clone(),
            object,
            assumed: false,
        },
        OpBody::Release {
            object,
            place: at.clone(),
        },
    ]
}

pub fn frame_of(number: u64, body: OpBody) -> OpFrame {
    OpFrame(vec![OpMessage::Op(Op {
        number,
        after: 0,
        barrier: false,
        body,
        xattrs: Xattrs::default(),
    })])
}

/// A name that stands for a worse one, which no checked value can hold.
pub const STAND_IN: &str = "QZQZQZQZ";

pub fn with_name(message: &[u8], name: &[u8]) -> Vec<u8> {
    let held = [&[STAND_IN.len() as u8], STAND_IN.as_bytes()].concat();
    let at = message
        .windows(held.len())
        .position(|window| window == held)
        .unwrap();
    let length = match name.len() {
        short @ 0..=250 => vec![short as u8],
        long => [&[0xfb], &(long as u16).to_le_bytes()[..]].concat(),
    };
    [&message[..at], &length, name, &message[at + held.len()..]].concat()
}
