//! A tree as it is to be mirrored, which may be another than the one on the disk.
//!
//! Every directory that is opened below one with a view has that view. It changes what is shown and nothing that is there.

use super::directory::Directory;
use super::stat::{FileType, Stat};
use super::xattr::with_mode;
use crate::engine::links::LinkPolicy;
use crate::engine::mode::ModeChanges;
use driftless_protocol::xattr::ACL_ACCESS;
use driftless_protocol::{Name, Xattr, Xattrs};
use std::sync::Arc;

/// How a tree shows itself.
#[derive(Debug, Default)]
pub struct View {
    /// Modes are not those on the disk.
    pub modes: ModeChanges,
    /// Some symbolic links are as good as not there.
    pub links: LinkPolicy,
}

impl View {
    /// What an object is shown to be.
    pub(super) fn show(&self, mut stat: Stat) -> Stat {
        if stat.file_type != FileType::Symlink {
            let is_directory = stat.file_type == FileType::Directory;
            stat.attributes.mode = self.modes.apply(stat.attributes.mode, is_directory);
        }
        stat
    }

    /// The extended attributes that it is shown to have. An access ACL holds the permissions of the mode, too.
    pub(super) fn show_xattrs(&self, xattrs: Xattrs, shown: &Stat) -> Xattrs {
        if self.modes.is_empty() || xattrs.get(ACL_ACCESS).is_none() {
            return xattrs;
        }
        let changed = xattrs.iter().map(|xattr| match xattr.name == ACL_ACCESS {
            true => Xattr {
                name: xattr.name.clone(),
                value: with_mode(&xattr.value, shown.attributes.mode),
            },
            false => xattr.clone(),
        });
        // As many and as long as before.
        Xattrs::new(changed.collect()).unwrap_or(xattrs)
    }
}

impl Directory {
    /// Whether what is shown depends on where it stands.
    pub fn is_seen_by_place(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.links == LinkPolicy::Safe)
    }

    /// What a view makes of what the disk has at a name.
    pub(super) fn show_at(&self, name: &Name, stat: Stat) -> Stat {
        let shown = self.show(stat);
        match &self.view {
            Some(view) if stat.file_type == FileType::Symlink && view.links != LinkPolicy::All => {
                // One that cannot be read is gone, or another thing by now.
                let text = self.link_text(name).unwrap_or_default();
                let file_type = match view.links.admits(&text, self.depth) {
                    true => FileType::Symlink,
                    false => FileType::Other("symbolic link that is left out"),
                };
                Stat { file_type, ..shown }
            }
            _ => shown,
        }
    }

    /// Whether a link of this text is shown.
    pub(super) fn shows_link(&self, text: &[u8]) -> bool {
        self.view
            .as_ref()
            .is_none_or(|view| view.links.admits(text, self.depth))
    }

    /// This directory, shown by a view, and so is everything below it.
    pub fn with_view(mut self, view: Arc<View>) -> Directory {
        self.view = Some(view);
        self
    }

    /// What a view makes of what the disk has.
    pub(super) fn show(&self, stat: Stat) -> Stat {
        self.view.as_ref().map_or(stat, |view| view.show(stat))
    }
}
