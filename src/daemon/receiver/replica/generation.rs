//! That the tree is the one of before: its root, and the number that is stored in it.

use super::*;

/// A number, the identity of the state, and what is between and behind them.
const GENERATION_BYTES_MAX: usize = 64;

impl Replica {
    /// Another root than before is refused; of one that is meant to be another, nothing is known.
    pub(super) fn check_root(&mut self, home: &Path) -> Result<(), ReplicaError> {
        let generations = Generations {
            known: self.state.generation()?,
            on_disk: generation_in(&self.root, &self.state)?,
        };
        match root::check(&self.state, (&self.root, &self.path), home, generations)? {
            root::Standing::Same => Ok(()),
            root::Standing::New => {
                tracing::warn!(path = %self.path.display(), "the root is another directory than before: a first contact");
                self.catalog.update(true, |tables| tables.clear())?;
                Ok(self.state.unbind()?)
            }
        }
    }

    /// The module's own generation is stored in the tree, too: if the disk was put back from an older image, what the
    /// catalog says about contents is not believed. A tree without any is not the one that the mirror was bound to.
    pub(super) fn check_generation(&mut self) -> Result<(), ReplicaError> {
        let known = self.state.generation()?;
        if self.binding()?.is_none() {
            return Ok(());
        }
        let on_disk = generation_in(&self.root, &self.state)?;
        if on_disk != Some(known) {
            tracing::warn!(path = %self.path.display(),
                "the tree is of generation {on_disk:?}, the state of {known}: all contents will be compared again");
            self.catalog.update(true, |tables| tables.clear())?;
        }
        if on_disk.is_none() {
            self.state.unbind()?;
            return Ok(());
        }
        self.write_generation()
    }

    /// Begins a new generation; called when a mirror is bound, and at every start.
    pub fn write_generation(&mut self) -> Result<(), ReplicaError> {
        let next = self.state.bump_generation()?;
        // The root's own time is the sender's to set.
        let before = self.root.stat_self()?.attributes.mtime;
        let staged = Staged::create(self.root.clone())?;
        // Numbers are small, and those of two targets often the same.
        let text = format!("{next} {:032x}\n", self.state.mirror_id()?);
        staged.write_all_at(text.as_bytes(), 0)?;
        staged.sync()?;
        staged.publish(&generation_file())?;
        self.root.set_self_mtime(before)?;
        self.root.sync()?;
        Ok(())
    }
}

/// The generation that this state stored in a tree; `None` if there is none, or that of another state.
pub(in super::super) fn generation_in(root: &Directory, state: &State) -> Result<Option<u64>, ReplicaError> {
    let text = match read_whole(root, &generation_file(), GENERATION_BYTES_MAX) {
        Ok(ReadOutcome::Content(bytes, _)) => bytes,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let whose = format!("{:032x}", state.mirror_id()?);
    let words = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().split_once(' '));
    Ok(words
        .filter(|(_, id)| *id == whose)
        .and_then(|(number, _)| number.parse().ok()))
}

/// The name of the file with the generation, at the root.
fn generation_file() -> Name {
    #[expect(clippy::expect_used, reason = "a constant")]
    Name::new(&b".driftless-generation"[..]).expect("a plain word is a name")
}
