//! A tree as it is to be mirrored, which may be another than the one on the disk.
//!
//! Every directory that is opened below one with a view has that view. It changes what is shown and nothing that is there.

use super::device;
use super::directory::Directory;
use super::error::{FsError, Result};
use super::fake::{self, FakeFault, FakeSuper};
use super::follow::{CIRCLE, Leads, NOWHERE};
use super::meta::Handle;
use super::stat::{FileType, Stat};
use super::xattr::{Target, with_mode};
use crate::engine::links::{FollowedLinks, LinkPolicy, LinkTexts, munged};
use crate::engine::mode::ModeChanges;
use driftless_protocol::xattr::ACL_ACCESS;
use driftless_protocol::{Name, Xattr, Xattrs};
use rustix::io::Errno;
use std::borrow::Cow;
use std::os::fd::AsFd;
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
    /// Attributes say what objects are to be taken for.
    pub fake_super: FakeSuper,
    /// Block devices are files, with what is on them as content.
    pub devices_are_files: bool,
}

impl View {
    /// Whether it shows everything as it is.
    fn is_plain(&self) -> bool {
        let links = self.links == LinkPolicy::All && !self.follows.any() && self.texts == LinkTexts::Plain;
        links && self.modes.is_empty() && self.fake_super == FakeSuper::Off && !self.devices_are_files
    }

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
        let is_real_link = stat.file_type == FileType::Symlink;
        let stat = self.overlaid_at(name, stat)?;
        match stat.file_type {
            FileType::Symlink => self.show_link(view, name, stat, is_real_link),
            _ if device::is_taken_for_file(Some(view), &stat) => {
                self.device_as_file(name, stat).map(|stat| view.show(stat))
            }
            FileType::Directory if view.follows.any() && self.would_contain_itself(&stat)? => Ok(Stat {
                file_type: CIRCLE,
                ..stat
            }),
            _ => Ok(view.show(stat)),
        }
    }

    fn show_link(&self, view: &View, name: &Name, stat: Stat, is_real: bool) -> Result<Stat> {
        let are_all_shown = view.links == LinkPolicy::All && view.texts == LinkTexts::Plain;
        if are_all_shown && !view.follows.any() {
            return Ok(stat);
        }
        // One that cannot be read is gone, or another thing by now.
        let text = self.link_text(name).unwrap_or_default();
        let is_followed = true;
        // What a file says that is taken for a link leads nowhere here.
        let followed = match is_real {
            true => self.followed(view, name, &text)?,
            false => None,
        };
        match followed {
            Some(Leads::To(fd, there)) => {
                let there = self.overlaid(Handle::Path(fd.as_fd()), there)?;
                let is_circle =
                    there.file_type == FileType::Directory && self.would_contain_itself(&there)?;
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

    /// Whether attributes say here what objects are to be taken for.
    pub fn fakes_super(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.fake_super != FakeSuper::Off)
    }

    /// Whether a symbolic link is made as a file.
    pub(super) fn keeps_fakes(&self) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.fake_super == FakeSuper::Kept)
    }

    /// What an object is taken for, given what the disk says of it.
    pub(super) fn overlaid(&self, handle: Handle<'_>, stat: Stat) -> Result<Stat> {
        overlaid(self.view.as_deref(), handle, stat, || self.shown().to_owned())
    }

    fn overlaid_at(&self, name: &Name, stat: Stat) -> Result<Stat> {
        if !self.fakes_super() || !matches!(stat.file_type, FileType::Regular | FileType::Directory) {
            return Ok(stat);
        }
        match fake::overlay(&Target::Name(&self.path_of(name)), stat) {
            // It is gone by now.
            Err(FakeFault::Kernel(Errno::NOENT)) => Ok(stat),
            other => other.map_err(|fault| fault.into_error(LOOK, self.shown_name(name))),
        }
    }

    /// What is shown of an open object, given what the disk says of it.
    pub(super) fn show_open(&self, handle: Handle<'_>, stat: Stat) -> Result<Stat> {
        show_open(self.view.as_deref(), handle, stat, || self.shown().to_owned())
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
        self.view = Some(view).filter(|view| !view.is_plain());
        self
    }
}

const LOOK: &str = "look at";

/// What an open object is taken for, given what the disk says of it.
pub(super) fn overlaid(
    view: Option<&View>,
    handle: Handle<'_>,
    stat: Stat,
    shown: impl Fn() -> String,
) -> Result<Stat> {
    if device::is_taken_for_file(view, &stat) {
        return device::as_file(handle, stat).map_err(|errno| FsError::new(LOOK, shown(), errno));
    }
    match view.is_some_and(|view| view.fake_super != FakeSuper::Off) {
        true => fake::overlay(&Target::Handle(handle), stat).map_err(|fault| fault.into_error(LOOK, shown())),
        false => Ok(stat),
    }
}

/// What is shown of an open object, given what the disk says of it.
pub(super) fn show_open(
    view: Option<&View>,
    handle: Handle<'_>,
    stat: Stat,
    shown: impl Fn() -> String,
) -> Result<Stat> {
    let stat = overlaid(view, handle, stat, shown)?;
    Ok(view.map_or(stat, |view| view.show(stat)))
}
