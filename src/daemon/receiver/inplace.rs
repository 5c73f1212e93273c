//! `--inplace`: files keep their object, and are written under their name.
//!
//! The content is complete and verified before the first byte of the file is touched, so what is written is right; but who
//! reads the file meanwhile, or finds it after a crash, can see parts of both. After a crash its stamp is not the catalog's,
//! nor its content the one that was intended, so it is compared and written again. Where writing or flushing fails, what is
//! complete and flushed aside takes the place of the file: it never stays half written, and no flush is tried twice.

use super::apply::{StagedFile, settled};
use super::replica::{ApplyError, Replica};
use crate::fs::{Applied, Directory, FileType, FsErrorKind, InPlace, Stat};
use crate::store::{Entry, Tables};
use driftless_protocol::Attributes;
use driftless_protocol::message::Place;
use std::borrow::Cow;
use std::sync::Arc;

/// What became of a file that was to be written in place.
#[derive(Debug)]
pub enum Written {
    /// It has its content; this is what it is, the attributes that count, and why it has others than it should.
    Done(Stat, Attributes, Option<ApplyError>),
    /// It has to be replaced.
    Not(StagedFile),
    /// It may have parts of both contents now, or what it has may not be on stable storage, and has to be replaced.
    Spoiled(StagedFile),
}

impl Replica {
    /// Writes a staged file into what stands at its place, if that is a file which may be written to, and no local edit that
    /// a policy keeps.
    pub(super) fn write_in_place(
        &mut self,
        t: &Tables<'_>,
        parent: &Arc<Directory>,
        place: &Place,
        file: StagedFile,
        occupant: Option<&Entry>,
    ) -> Result<Written, ApplyError> {
        let new = Some((file.size, file.digest));
        let looked = self.look(t, parent, &place.name, occupant, new)?;
        let is_file = looked
            .stat
            .is_some_and(|stat| stat.file_type == FileType::Regular);
        let is_device = looked.stat.is_some_and(|stat| stat.is_device);
        if is_device && looked.is_edit {
            return Err(self.refused(parent, &place.name));
        }
        if !is_file || looked.is_edit {
            return Ok(Written::Not(file));
        }
        let target = match parent.open_in_place(&place.name) {
            Ok(target) => target,
            // No file ever takes the place of a device that may be written to.
            Err(error) if is_device => return Err(error.into()),
            Err(error) if matches!(error.kind(), FsErrorKind::Permission | FsErrorKind::Substituted) => {
                return Ok(Written::Not(file));
            }
            Err(error) => return Err(error.into()),
        };
        match self.overwrite(&target, &file) {
            Ok(applied) => {
                let stat = applied.stat;
                let (attributes, refused) = settled(file.attributes, applied);
                Ok(Written::Done(stat, attributes, file.refused.or(refused)))
            }
            Err(error) if is_device => Err(error),
            Err(error) => {
                tracing::warn!("{}: it is replaced instead", error.text);
                Ok(Written::Spoiled(file))
            }
        }
    }

    /// Makes a file what a staged one is, durably.
    fn overwrite(&self, target: &InPlace, file: &StagedFile) -> Result<Applied, ApplyError> {
        let mut wanted = self.terms.metadata(&file.attributes, None)?;
        target.narrow(&wanted)?;
        target.take_content(&file.staged)?;
        // What could not be set on the staged file is not asked for again. Whom its attributes name are those of this disk.
        let xattrs = file.staged.xattrs(wanted.carried.xattrs)?.xattrs;
        wanted.xattrs = Some(Cow::Owned(xattrs));
        let applied = target.set_metadata(&wanted)?;
        target.sync()?;
        Ok(applied)
    }
}
