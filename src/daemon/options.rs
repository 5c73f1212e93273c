//! What the daemons are told to do, and how they tell what they did.

use super::events::AppliedChange;
use super::keeping::Keeping;
use crate::engine::compare::Compare;
use crate::engine::delta::Engine;
use crate::engine::filter::{FileSet, Filter};
use crate::engine::fuse::DeleteLimit;
use crate::engine::hosts::Hosts;
use crate::engine::links::{FollowedLinks, LinkPolicy, LinkTexts};
use crate::engine::mode::ModeChanges;
use crate::engine::owners::OwnerRules;
use crate::engine::path_pattern::PathPattern;
use crate::engine::pending::PendingOptions;
use crate::fs::{FakeSuper, View};
use crate::net::LinkOptions;
use crate::net::separation::Transport;
use crate::watch::WatchOptions;
use driftless_certs::{Fingerprint, Identity};
use driftless_protocol::message::Sparing;
use driftless_protocol::{RelPath, XattrClasses};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A directory that a receiver offers under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleOptions {
    /// Its name.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
    /// Which extended attributes it takes, if this process and the file system can set them.
    pub xattrs: XattrClasses,
    /// Whether it takes devices, if this process can make them.
    pub devices: bool,
    /// What becomes of what is replaced, deleted, or changed there by somebody else.
    pub keeping: Keeping,
    /// Reserve the space of files that come whole before any of it comes.
    pub preallocate: bool,
    /// Write files under their name, which is not atomic.
    pub inplace: bool,
    /// What changes at once: subtrees that are made aside, and exchanged when all that was sent is there.
    pub publish: Vec<PathPattern>,
    /// From where it may be reached.
    pub hosts: Hosts,
    /// As what the tree is kept on the disk.
    pub kept_as: KeptAs,
    /// What it begins as, if it is empty.
    pub previous: Option<super::receiver::Previous>,
    /// How what is there is looked after.
    pub upkeep: super::upkeep::Upkeep,
}

/// How a module keeps what it cannot, or shall not, have on the disk as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptAs {
    /// Symbolic links have rsync's prefix in their text, so that none leads anywhere.
    pub munged_links: bool,
    /// What this process may not set is in attributes, as with rsync's `--fake-super`.
    pub fake_super: bool,
    /// The content of files goes to the block devices that stand at their places.
    pub written_devices: bool,
}

impl ModuleOptions {
    /// How its disk shows itself to senders.
    pub fn view(&self) -> Arc<View> {
        Arc::new(View {
            texts: match self.kept_as.munged_links {
                true => LinkTexts::Munged,
                false => LinkTexts::Plain,
            },
            fake_super: match self.kept_as.fake_super {
                true => FakeSuper::Kept,
                false => FakeSuper::Off,
            },
            devices_are_files: self.kept_as.written_devices,
            ..View::default()
        })
    }
}

/// Who a receiver is to its peers.
#[derive(Debug, Clone)]
pub enum Own {
    /// Whoever has this key: this process speaks to the network itself.
    Key(Identity),
    /// The key is in another process, and so is the network.
    Apart(Transport),
}

impl Own {
    /// By which peers know it.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Own::Key(identity) => identity.fingerprint(),
            Own::Apart(transport) => transport.identity(),
        }
    }
}

impl From<Identity> for Own {
    fn from(identity: Identity) -> Own {
        Own::Key(identity)
    }
}

/// How to run a receiver.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// Where trust, invites and state are kept.
    pub home: super::home::Home,
    /// Who this is.
    pub identity: Own,
    /// By whose name the trees of this machine are known where content is told to come from, if not by `identity`: a directory
    /// as a target has throw-away identities.
    pub machine: Option<Fingerprint>,
    /// What is offered.
    pub modules: Vec<ModuleOptions>,
    /// Where to listen (UDP). Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Peers that are allowed every module, beside those of the trust store.
    pub allow: Vec<Fingerprint>,
    /// Windows, timeouts and the like.
    pub link: LinkOptions,
    /// Who makes the signatures of present files. Senders match with the engine that made a signature.
    pub delta_engine: Engine,
}

/// Where a sender sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOptions {
    /// The target as the user wrote it, for messages and as the key of its state.
    pub display: String,
    /// Host name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// The receiver's fingerprint.
    pub fingerprint: Fingerprint,
    /// The module.
    pub module: String,
    /// The directory below the module's root.
    pub path: RelPath,
}

/// What happens to entries that the source lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deletes {
    /// On first contact: stop if there are any, and say how many. Later: delete.
    #[default]
    Ask,
    /// Delete them.
    Always,
    /// Keep them and count them.
    Never,
    /// Delete those that are found until the trees are equal for the first time; keep what is removed later (lsyncd's
    /// `delete = "startup"`).
    Startup,
    /// Delete what is removed while the sender runs; keep what only the target had before (lsyncd's `delete = "running"`).
    Running,
}

/// What becomes of what differs when a source and its target first meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// The target is brought in sync.
    Full,
    /// It is left as it is until it changes at the source (lsyncd's `init = false`).
    Skip,
}

/// How to run a sender.
#[derive(Debug, Clone)]
pub struct SenderOptions {
    /// What the configuration calls the mirror, if it has a name.
    pub mirror: Option<String>,
    /// Where state is kept.
    pub home: super::home::Home,
    /// Who this is.
    pub identity: Identity,
    /// The tree.
    pub source: PathBuf,
    /// Where to.
    pub target: TargetOptions,
    /// Go on following changes once in sync, and reconnect for ever. Otherwise end when in sync.
    pub follow: bool,
    /// With `follow`: when to end all the same.
    pub quiet: Option<super::Quiet>,
    /// What becomes of what differs at the first contact; none for what was decided then.
    pub initial: Option<Initial>,
    /// What happens to entries that the source lacks.
    pub deletes: Deletes,
    /// How many deletions pass unasked; `None` for any number.
    pub delete_limit: Option<DeleteLimit>,
    /// Numbers of deletions that somebody approves. Without it, or when it does not follow, a sender that has too many
    /// ends.
    pub approvals: Option<crossbeam_channel::Receiver<u64>>,
    /// What somebody asks while it runs: barriers, checkpoints, explanations. Without it nobody can ask.
    pub requests: Option<crossbeam_channel::Receiver<super::barrier::Request>>,
    /// Whether every change that is visible on the target is a line of the log.
    pub audit: bool,
    /// While it is closed, nothing is sent and no connection kept; the tree is watched on.
    pub gate: super::Gate,
    /// Turns at walking the tree, where many mirrors start at once.
    pub walks: super::Turns,
    /// Turns at bringing the target in sync: from connecting to the first moment at which it is, or to the end of the
    /// connection. What changes after that moment leaves at once.
    pub transfers: super::Turns,
    /// What the targets of one tree read together; none for the only one.
    pub readings: Option<super::sender::Readings>,
    /// What watches the tree.
    pub watch: WatchOptions,
    /// How changes settle and gather before they leave.
    pub pending: PendingOptions,
    /// A slower rhythm for large files.
    pub large_files: Option<LargeFiles>,
    /// Files that only grow: what is added to one leaves at once, and whether the rest is as it was is looked at within
    /// [`PendingOptions::max_delay`].
    pub append_only: FileSet,
    /// How contents are compared that one side never read, and whether all are read whatever is known of them.
    pub compare: Compare,
    /// Have the receiver look at its tree anew before the first comparison, instead of going by what it knows.
    pub look_again: bool,
    /// Without `follow`: end when the connection is lost, instead of connecting again.
    pub gives_up: bool,
    /// Accept a source root that is empty or another directory than before.
    pub accept_root: bool,
    /// Leave the attributes of the target's root as they are: what is mirrored is named within it.
    pub leaves_root: bool,
    /// What of the tree is mirrored, and what of the target's own may be deleted.
    pub filter: Filter,
    /// Which symbolic links are mirrored.
    pub links: LinkPolicy,
    /// What of the tree is mirrored as something else than it is.
    pub taken_as: TakenAs,
    /// How modes are changed on the way.
    pub modes: ModeChanges,
    /// What the target is told of users and groups.
    pub owners: OwnerRules,
    /// What of the target is left as it is.
    pub sparing: Sparing,
    /// Send changed files whole, and look for no differences.
    pub whole_files: bool,
    /// Which engine finds differences; none for whichever the receiver likes.
    pub delta_engine: Option<Engine>,
    /// Windows, timeouts and the like.
    pub link: LinkOptions,
}

impl SenderOptions {
    /// How the tree shows itself to the mirror.
    pub fn view(&self) -> Arc<View> {
        Arc::new(View {
            modes: self.modes.clone(),
            links: self.links,
            follows: self.taken_as.followed_links,
            texts: match self.taken_as.unmunged_links {
                true => LinkTexts::Unmunged,
                false => LinkTexts::Plain,
            },
            fake_super: match self.taken_as.fake_super {
                true => FakeSuper::Read,
                false => FakeSuper::Off,
            },
            devices_are_files: self.taken_as.copied_devices,
        })
    }
}

/// What of a source is mirrored as something else than the disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TakenAs {
    /// Symbolic links that are mirrored as what they lead to.
    pub followed_links: FollowedLinks,
    /// Symbolic links lose rsync's prefix, if their text has it.
    pub unmunged_links: bool,
    /// Objects are what attributes say, as with rsync's `--fake-super`.
    pub fake_super: bool,
    /// Block devices are mirrored as files with their content.
    pub copied_devices: bool,
}

/// A rhythm for files that are large: a change of one leaves this long after it was first seen, with all that came
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeFiles {
    /// From this size on, in bytes.
    pub bytes: u64,
    /// How long.
    pub delay: Duration,
}

/// What a sender has done so far. Grows only, but for `entries_total` and `bytes_total`, which are estimates until
/// the scan is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SendCounters {
    /// Entries seen in the source.
    pub entries: u64,
    /// Ops that are to be sent, as far as known.
    pub ops_total: u64,
    /// Ops that ended.
    pub ops_done: u64,
    /// Files whose content was sent or offered.
    pub files_sent: u64,
    /// Regular files of the source that were opened.
    pub files_read: u64,
    /// How often the whole tree was looked at again, because events were lost.
    pub rescans: u64,
    /// Content bytes read for the target.
    pub content_bytes: u64,
    /// Content bytes that are to be read, as far as known.
    pub content_bytes_total: u64,
    /// UDP payload sent.
    pub wire_bytes_sent: u64,
    /// UDP payload received.
    pub wire_bytes_received: u64,
    /// Ops that failed.
    pub failed: u64,
    /// Entries of kinds that are not carried (sockets, devices, FIFOs).
    pub skipped: u64,
    /// Entries that were found to have extended attributes which are not carried here.
    pub foreign_xattrs: u64,
    /// Entries that the filter left out when the tree was walked; a directory counts as one.
    pub excluded: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Entries that the target keeps although the source lacks them.
    pub extras_kept: u64,
    /// Entries that are left as they are on the target, or are not made there, because that was asked for.
    pub withheld: u64,
    /// 1 if what differed when both sides first met is left as it is on the target.
    pub initial_skipped: u64,
}

/// Where a sender stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Walking the source.
    Scanning,
    /// Looking for the receiver.
    Connecting,
    /// Comparing with the receiver.
    Comparing,
    /// Sending what differs.
    Sending,
    /// Equal and durable, at this number of the journal.
    InSync {
        /// The number.
        sequence: u64,
    },
    /// So many deletions that somebody has to approve them first. All else goes on.
    Held {
        /// How many.
        deletions: u64,
        /// What to do about it.
        text: String,
    },
    /// Not connected; trying again.
    Waiting {
        /// Why.
        error: String,
        /// Seconds until the next try.
        seconds: u64,
    },
    /// Others are brought in sync first: `max-transfers` says how many at a time.
    Queued,
    /// Somebody wants nothing to be sent for now; the tree is watched on.
    Paused,
    /// Stopped until somebody decides.
    Halted {
        /// Why.
        error: String,
    },
}

/// What [`Observer::applied`] says was done.
pub mod verbs {
    /// A directory was made.
    pub const MADE: &str = "made";
    /// Attributes were set.
    pub const CHANGED: &str = "changed attributes of";
    /// An object moved, and may still differ otherwise.
    pub const MOVED: &str = "moved to";
    /// Content, a link's text or a device was put.
    pub const PUT: &str = "put";
    /// A name became one of several of its object.
    pub const LINKED: &str = "linked";
    /// Nothing was done: the transfer was given up, and is tried again.
    pub const GAVE_UP: &str = "gave up for now";
    /// Something was removed, or left behind.
    pub const REMOVED: &str = "removed";
    /// What the target has was recognised.
    pub const RECOGNISED: &str = "recognised";
    /// Users or groups were named.
    pub const NAMED: &str = "named";
    /// A mark was passed.
    pub const MARKED: &str = "marked";

    /// Whether the entry is what the source has after this.
    pub fn settles(verb: &str) -> bool {
        matches!(verb, MADE | CHANGED | PUT | LINKED)
    }
}

/// How far a target is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// When the oldest change was made that has not arrived, as far as that was heard of; none if all have.
    pub oldest: Option<std::time::Instant>,
    /// Entries that have to be put or removed, or that nobody has looked at since something happened to them.
    pub entries: u64,
    /// Content that has to be read for them, in bytes, as far as known.
    pub bytes: u64,
    /// Ops that were sent and have not ended.
    pub in_flight: u64,
    /// The large files among these, escaped, the first [`Backlog::SENDING_MAX`].
    pub sending: Vec<String>,
}

impl Backlog {
    /// Files that are named.
    pub const SENDING_MAX: usize = 16;
}

/// Who wants to know. Called from the sender's thread: must not block.
pub trait Observer: Send + Sync {
    /// The sender entered a phase.
    fn phase(&self, _phase: &Phase) {}
    /// Counters changed; called at most some ten times a second.
    fn counters(&self, _counters: &SendCounters) {}
    /// How far the target is behind; called at most some twice a second.
    fn backlog(&self, _backlog: &Backlog) {}
    /// A change was applied on the target: a verb and an escaped path.
    fn applied(&self, _verb: &'static str, _path: &str) {}
    /// Whether changes are to be told before the trees were first in sync, too: of a whole tree that takes time.
    fn wants_all_changes(&self) -> bool {
        false
    }
    /// So many ops ended with success since the last call. The changes are named once the trees were equal, or if they are
    /// wanted.
    fn batch(&self, _applied: u64, _changes: &[AppliedChange]) {}
    /// Changes are about to leave for the first time since the trees were equal, or since the connection was made. They leave
    /// when the channel disconnects; at once without one.
    fn before_batch(&self) -> Option<crossbeam_channel::Receiver<()>> {
        None
    }
    /// Trees that were equal differ, though every change was acknowledged.
    fn drift(&self) {}
    /// The whole tree is looked at again: events were lost, or directories cannot be watched.
    fn rescan(&self) {}
    /// Which back end watches the source, and what it cannot see.
    fn watcher(&self, _name: &str, _degradations: &[String]) {}
    /// The entries that are in error now.
    fn failed(&self, _entries: &[FailedEntry]) {}
    /// The checkpoints of this target, after one was taken, reached or forgotten.
    fn checkpoints(&self, _checkpoints: &[super::barrier::Checkpoint]) {}
    /// Something that the user should read: one line.
    fn warning(&self, _text: &str) {}
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}

/// An entry that is in error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedEntry {
    /// Its path, escaped.
    pub path: String,
    /// Why.
    pub error: String,
}

/// How a sender ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// What was done.
    pub counters: SendCounters,
    /// What is in error.
    pub failed: Vec<FailedEntry>,
    /// Whether both trees' sums were equal, durably, but for `failed` and kept extras.
    pub in_sync: bool,
    /// The number of the journal at which that was so.
    pub sequence: u64,
}

impl fmt::Display for TargetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}
