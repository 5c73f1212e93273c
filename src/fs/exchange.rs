//! Whether two names can be exchanged.

use super::directory::{Directory, RenameMode};
use super::error::{FsErrorKind, Result};
use super::private::private_name;

impl Directory {
    /// Whether two directories in this one can change names in one step ([`RenameMode::Exchange`]). That cannot be asked: it is tried
    /// with two that have private names. The times of this directory stay, but for its ctime.
    pub fn can_exchange(&self) -> Result<bool> {
        let before = self.stat_self()?.attributes.mtime;
        let (one, other) = (private_name(), private_name());
        let tried = self
            .make_dir(&one)
            .and_then(|_| self.make_dir(&other))
            .and_then(|_| self.rename(&one, self, &other, RenameMode::Exchange));
        for name in [&one, &other] {
            match self.remove_private(name) {
                Err(error) if error.kind() != FsErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.set_self_mtime(before)?;
        match tried {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == FsErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_try_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let time = |dir: &tempfile::TempDir| fs::metadata(dir.path()).unwrap().modified().unwrap();
        let before = time(&dir);
        let root = Directory::open_root(dir.path()).unwrap();
        assert!(root.can_exchange().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(time(&dir), before);
    }
}
