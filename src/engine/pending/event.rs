//! What a watcher says.

use driftless_protocol::{Name, ObjectId};

/// What an event says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The name was made: a new file, directory or symbolic link, or one more link to a file. Of a file this says
    /// nothing about whether it is complete.
    Created,
    /// Something was renamed to this name, from outside of the tree or from nobody knows where.
    MovedIn,
    /// The name was removed, or renamed to another.
    Vanished,
    /// A file was closed by one that could write to it.
    Closed,
    /// A file was written or cut while it is open.
    Modified,
    /// Mode, owner, times, or extended attributes changed.
    Attributes,
}

/// One event from a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something happened at a name in a watched directory.
    At {
        /// The watched directory.
        directory: ObjectId,
        /// The name in it.
        name: Name,
        /// What happened.
        hint: Hint,
        /// Whether the kernel called the object a directory.
        is_directory: bool,
    },
    /// Something was renamed from one watched directory to another, or within one. That it vanished from its old place
    /// was said before.
    Renamed {
        /// Directory and name before.
        from: (ObjectId, Name),
        /// Directory and name since.
        to: (ObjectId, Name),
        /// Whether the kernel called the object a directory.
        is_directory: bool,
    },
    /// A directory has to be listed: nothing tells what happens in it, or nobody can tell what did.
    Listing {
        /// The directory.
        directory: ObjectId,
    },
    /// The attributes of a watched directory itself changed.
    Itself {
        /// The watched directory.
        directory: ObjectId,
    },
    /// A watched directory was removed, renamed (perhaps to another place in the same tree, where its watch goes on)
    /// or unmounted.
    Gone {
        /// The watched directory.
        directory: ObjectId,
    },
    /// Events were lost, nobody knows which.
    Overflow,
}
