//! The process's limit of open files.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and answers the limit then in force; `u64::MAX` for none.
pub fn raise_descriptor_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// How many descriptors one use of them may take: one of `parts` of all that this process may have open, but `most`
/// at most, and always a few.
pub fn descriptors_for(parts: u64, most: usize) -> usize {
    share(getrlimit(Resource::Nofile).current, parts, most)
}

fn share(limit: Option<u64>, parts: u64, most: usize) -> usize {
    const FEW: usize = 4;
    let part = limit.unwrap_or(u64::MAX) / parts.max(1);
    usize::try_from(part).unwrap_or(usize::MAX).min(most).max(FEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_its_bounds() {
        assert_eq!(share(None, 8, 1_024), 1_024);
        assert_eq!(share(Some(1_048_576), 8, 1_024), 1_024);
        assert_eq!(share(Some(1_024), 8, 1_024), 128);
        assert_eq!(share(Some(16), 8, 1_024), 4);
    }

    #[test]
    fn the_limit_is_raised_once_and_stays() {
        let limit = raise_descriptor_limit();
        assert!(limit >= 64);
        assert_eq!(raise_descriptor_limit(), limit);
    }
}
