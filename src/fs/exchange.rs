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
        // Both in any case: what cannot be removed is noted.
        let removed = [&one, &other].map(|name| self.remove_private(name));
        self.set_self_mtime(before)?;
        for removed in removed {
            if removed
                .as_ref()
                .is_err_and(|error| error.kind() != FsErrorKind::NotFound)
            {
                return removed.map(|()| false);
            }
        }
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
    use crate::fs::{Call, Disk, with_disk};
    use std::cell::Cell;
    use std::fs;
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;

    /// Fails one call that changes a name.
    struct Failing(Cell<usize>);

    impl Disk for Failing {
        fn begin(&self, call: Call) -> bool {
            let left = self.0.get();
            self.0.set(left.wrapping_sub(usize::from(call == Call::Name)));
            call != Call::Name || left != 0
        }
        fn renamed(&self) {}
        fn flushed(&self, _: BorrowedFd<'_>) {}
        fn all_flushed(&self) {}
    }

    #[test]
    fn what_a_try_cannot_remove_is_removed_later() {
        let dir = tempfile::tempdir().unwrap();
        let time = || fs::metadata(dir.path()).unwrap().modified().unwrap();
        let before = time();
        let root = Directory::open_root(dir.path()).unwrap();
        // Two are made, exchanged and removed.
        for failing in 0..5 {
            with_disk(Rc::new(Failing(Cell::new(failing))));
            assert!(root.can_exchange().is_err(), "{failing}");
            root.clear_litter();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{failing}");
            assert_eq!(time(), before, "{failing}");
        }
    }

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
