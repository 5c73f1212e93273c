//! Which symbolic links are mirrored.

/// What happens to symbolic links. They are mirrored as the text that they are, unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkPolicy {
    /// All of them.
    #[default]
    All,
    /// Those that lead to a place in the tree (rsync's `--safe-links`).
    Safe,
    /// None.
    None,
}

impl LinkPolicy {
    /// Whether a link with this text is mirrored that stands in a directory so many levels below the root.
    pub fn admits(self, text: &[u8], depth: usize) -> bool {
        match self {
            LinkPolicy::All => true,
            LinkPolicy::Safe => !leads_out(text, depth),
            LinkPolicy::None => false,
        }
    }
}

/// Whether a link may lead out of the tree, as rsync judges it by the text alone (`unsafe_symlink` in its `util1.c`): absolute and
/// empty ones do, those that climb above the root at any point, those that climb after they have gone down, since what they
/// went down through may be a link itself, and any that climb with their last step, but for `..` alone.
fn leads_out(text: &[u8], depth: usize) -> bool {
    if text.is_empty() || text[0] == b'/' || text.ends_with(b"/..") {
        return true;
    }
    let mut steps = text
        .split(|&byte| byte == b'/')
        .filter(|step| !step.is_empty())
        .peekable();
    let mut climbed = 0;
    while steps.next_if(|step| *step == b"..").is_some() {
        climbed += 1;
    }
    climbed > depth || steps.any(|step| step == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_lead_out_are_those_of_rsync() {
        for (text, depth, leads) in [
            ("file", 0, false),
            ("a/b/c", 0, false),
            ("./a", 0, false),
            ("..", 0, true),
            ("..", 1, false),
            ("../..", 1, true),
            ("../..", 2, true),
            ("../../", 2, false),
            ("../a", 0, true),
            ("../a", 1, false),
            ("..//a", 1, false),
            ("../../a", 1, true),
            ("a/../b", 3, true),
            ("../a/..", 3, true),
            ("a/..", 0, true),
            ("..a/b..", 0, false),
            ("a/...", 0, false),
            ("/etc/passwd", 5, true),
            ("", 5, true),
        ] {
            assert_eq!(leads_out(text.as_bytes(), depth), leads, "{text} at {depth}");
        }
    }
}
