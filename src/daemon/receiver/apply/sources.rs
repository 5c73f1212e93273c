//! Files here that others are made from.

use super::*;

/// A file to copy.
#[derive(Debug)]
pub struct CopySource {
    directory: Arc<Directory>,
    /// What it must be.
    entry: Entry,
}

impl CopySource {
    /// Opens it, if nobody changed it.
    pub fn open(&self) -> Result<std::fs::File, ApplyError> {
        let changed = |text: String| ApplyError {
            kind: FailureKind::Basis,
            text,
        };
        let (file, stat) = self
            .directory
            .open_file(&self.entry.place.name)
            .map_err(|error| changed(error.to_string()))?;
        if !is_same_state(&self.entry, &stat) {
            return Err(changed(format!(
                "{} was changed by somebody else",
                self.entry.place.name
            )));
        }
        Ok(file)
    }
}

impl Replica {
    /// The file at a place, and its size, if it is this object with exactly this content.
    pub fn basis(
        &mut self,
        t: &impl CatalogRead,
        place: &Place,
        object: ObjectId,
        content: Digest,
    ) -> Result<(std::fs::File, u64), ApplyError> {
        let other = |text: String| ApplyError {
            kind: FailureKind::Basis,
            text,
        };
        let entry = self
            .occupant(t, place)?
            .filter(|entry| entry.object == object && entry.digest == Some(content))
            .ok_or_else(|| {
                other(format!(
                    "{} is not known to have the content of the basis",
                    place.name
                ))
            })?;
        let (file, stat) = self.directory(t, place.directory)?.open_file(&place.name)?;
        if !is_same_state(&entry, &stat) {
            return Err(other(format!("{} was changed by somebody else", place.name)));
        }
        Ok((file, stat.size))
    }

    /// A file that has exactly this content, for a copy: one that the sender gave its number to, so that nobody learns of
    /// another's files.
    pub fn copy_source(
        &mut self,
        t: &impl CatalogRead,
        from: ObjectId,
        size: u64,
        content: Digest,
    ) -> Result<CopySource, ApplyError> {
        let entry = t.get(from)?.filter(|entry| {
            let known = entry.kind == Kind::File && !entry.object.is_local();
            known && entry.digest == Some(content) && entry.size == size
        });
        let Some(entry) = entry else {
            return Err(ApplyError {
                kind: FailureKind::Basis,
                text: format!("object {} is not known to have the content to be copied", from.0),
            });
        };
        let directory = self.directory(t, entry.place.directory)?;
        Ok(CopySource { directory, entry })
    }
}
