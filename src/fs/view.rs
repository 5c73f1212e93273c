//! A tree as it is to be mirrored, which may be another than the one on the disk.
//!
//! Every directory that is opened below one with a view has that view. It changes what is shown and nothing that is there.

use super::directory::Directory;
use super::error::Result;
use super::follow::{CIRCLE, Leads, NOWHERE};
use super::stat::{FileType, Stat};
use super::xattr::with_mode;
use crate::engine::links::{FollowedLinks, LinkPolicy, LinkTexts, munged};
use crate::engine::mode::ModeChanges;
use driftless_protocol::xattr::ACL_ACCESS;
use driftless_protocol::{Name, Xattr, Xattrs};
use std::borrow::Cow;
use std::sync::Arc;

/// How a tree shows itself.
#[derive(Debug, Default)]
pub struct View {
    /// Modes are not those on the disk.
    pub modes: ModeChanges,
    /// Some symbolic links are as good as not there.
    pub links: LinkPolicy,
    /// And some are taken for what they lead to, before that is asked.
    pub follows: FollowedLinks,
    /// What those say that are shown as links.
    pub texts: LinkTexts,
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
            .is_some_and(|view| view.links == LinkPolicy::Safe || view.follows.any())
    }

    /// What a view makes of what the disk has at a name.
    pub(super) fn show_at(&self, name: &Name, stat: Stat) -> Result<Stat> {
        let Some(view) = &self.view else {
            return Ok(stat);
        };
        match stat.file_type {
            FileType::Symlink => self.show_link(view, name, stat),
            FileType::Directory if view.follows.any() && self.would_contain_itself(&stat)? => Ok(Stat {
                file_type: CIRCLE,
                ..stat
            }),
            _ => Ok(view.show(stat)),
        }
    }

    fn show_link(&self, view: &View, name: &Name, stat: Stat) -> Result<Stat> {
        let are_all_shown = view.links == LinkPolicy::All && view.texts == LinkTexts::Plain;
        if are_all_shown && !view.follows.any() {
            return Ok(stat);
        }
        // One that cannot be read is gone, or another thing by now.
        let text = self.link_text(name).unwrap_or_default();
        let is_followed = true;
        match self.followed(view, name, &text)? {
            Some(Leads::To(_, there)) => {
                let is_circle = there.file_type == FileType::Directory && self.would_contain_itself(&there)?;
                let file_type = if is_circle { CIRCLE } else { there.file_type };
                let shown = view.show(there);
                return Ok(Stat {
                    file_type,
                    is_followed,
                    ..shown
                });
            }
            Some(Leads::Nowhere) => {
                return Ok(Stat {
                    file_type: NOWHERE,
                    is_followed,
                    ..stat
                });
            }
            None => {}
        }
        let text = view.texts.shown(text);
        let file_type = match view.links.admits(&text, self.depth) {
            true => FileType::Symlink,
            false => FileType::Other("symbolic link that is left out"),
        };
        let size = text.len() as u64;
        Ok(Stat {
            file_type,
            size,
            ..stat
        })
    }

    /// Whether a link of this text is shown.
    pub(super) fn shows_link(&self, text: &[u8]) -> bool {
        self.view.as_ref().is_none_or(|view| {
            let shown = view.texts.shown(text.to_vec());
            !view.follows.admits(text, self.depth) && view.links.admits(&shown, self.depth)
        })
    }

    /// What is shown of the text of a link.
    pub(super) fn shown_text(&self, text: Vec<u8>) -> Vec<u8> {
        match &self.view {
            Some(view) => view.texts.shown(text),
            None => text,
        }
    }

    /// The text that a link has to have to show this one.
    pub(super) fn text_on_disk<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.view {
            Some(view) if view.texts == LinkTexts::Munged => munged(text).into(),
            _ => text.into(),
        }
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
