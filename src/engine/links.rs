//! Which symbolic links are mirrored, and as what.

/// What rsync puts in front of a link's text to make it lead nowhere (`SYMLINK_PREFIX` in its `rsync.h`).
pub const MUNGED_PREFIX: &[u8] = b"/rsyncd-munged/";

/// A link's text with the prefix in front of it.
pub fn munged(text: &[u8]) -> Vec<u8> {
    [MUNGED_PREFIX, text].concat()
}

/// A link's text without the prefix, if it has it and more than that.
pub fn unmunged(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(MUNGED_PREFIX).filter(|rest| !rest.is_empty())
}

/// What the texts of links on the disk are to those that are mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkTexts {
    /// The same.
    #[default]
    Plain,
    /// Those that have rsync's prefix are mirrored without it (`--munge-links` of an end that sends).
    Unmunged,
    /// All have rsync's prefix in front, so that none leads anywhere (`--munge-links` of an end that receives).
    Munged,
}

impl LinkTexts {
    /// What is mirrored of a text on the disk. One that should have the prefix, and has not, is shown as one that no link can
    /// have, and differs from what any sender has.
    pub fn shown(self, mut text: Vec<u8>) -> Vec<u8> {
        match (self, unmunged(&text)) {
            (LinkTexts::Plain, _) | (LinkTexts::Unmunged, None) => text,
            (LinkTexts::Unmunged | LinkTexts::Munged, Some(rest)) => rest.to_vec(),
            (LinkTexts::Munged, None) => {
                text.insert(0, 0);
                text
            }
        }
    }
}

/// Which symbolic links are taken for what they lead to. None are, unless asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FollowedLinks {
    /// All (rsync's `--copy-links`).
    pub all: bool,
    /// Those that may lead out of the tree (rsync's `--copy-unsafe-links`).
    pub leading_out: bool,
    /// Those to directories (rsync's `--copy-dirlinks`).
    pub to_directories: bool,
}

impl FollowedLinks {
    /// Whether any may be.
    pub fn any(self) -> bool {
        self.all || self.leading_out || self.to_directories
    }

    /// Whether a link with this text is followed wherever it leads, if it stands in a directory so many levels below the root.
    pub fn admits(self, text: &[u8], depth: usize) -> bool {
        self.all || (self.leading_out && leads_out(text, depth))
    }
}

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

    /// Every text of up to five steps, judged by walking it: whoever follows an admitted one never stands above the root, not
    /// even if what he goes down through leads elsewhere by then.
    #[test]
    fn s_18_an_admitted_link_never_leads_out_at_any_step() {
        let steps = ["..", ".", "a", "", "...", "..a"];
        let (mut admitted, mut refused) = (0, 0);
        for code in 0..steps.len().pow(5) {
            let all: Vec<&str> = (0..5)
                .scan(code, |rest, _| {
                    let step = steps[*rest % steps.len()];
                    *rest /= steps.len();
                    Some(step)
                })
                .collect();
            for (length, depth) in (1..=5).flat_map(|length| (0..4).map(move |depth| (length, depth))) {
                let text = all[..length].join("/");
                let (mut level, mut lowest, mut went_down, mut climbed_after) = (depth, depth, false, false);
                for step in text.split('/') {
                    match step {
                        "" | "." => {}
                        ".." => {
                            climbed_after |= went_down;
                            level -= 1;
                        }
                        _ => {
                            went_down = true;
                            level += 1;
                        }
                    }
                    lowest = lowest.min(level);
                }
                let may_lead_out = text.is_empty() || text.starts_with('/') || lowest < 0 || climbed_after;
                let is_admitted = LinkPolicy::Safe.admits(text.as_bytes(), depth as usize);
                assert!(!(is_admitted && may_lead_out), "{text:?} at {depth}");
                // What else is refused only looks like it: `.` counts as a step down, and no text may end by climbing.
                let rest = text.split('/').skip_while(|step| *step != ".");
                let looks_like_it = text.ends_with("/..") || rest.clone().any(|step| step == "..");
                assert!(
                    is_admitted || may_lead_out || looks_like_it,
                    "{text:?} at {depth}"
                );
                *(if is_admitted { &mut admitted } else { &mut refused }) += 1;
            }
        }
        assert!(admitted > 1_000 && refused > 1_000);
        let long = [b"a/".repeat(2_047), b"b".to_vec()].concat();
        assert!(long.len() == 4_095 && LinkPolicy::Safe.admits(&long, 0));
        assert!(!LinkPolicy::Safe.admits(&[&long[..], b"/.."].concat(), 0));
        assert!(LinkPolicy::All.admits(b"/etc/passwd", 0) && !LinkPolicy::None.admits(b"a", 9));
    }

    #[test]
    fn texts_are_munged_as_rsync_does() {
        let shown = |texts: LinkTexts, text: &str| texts.shown(text.as_bytes().to_vec());
        assert_eq!(munged(b"../x"), b"/rsyncd-munged/../x");
        for (text, unmunged, back) in [
            ("/rsyncd-munged/../x", "../x", "../x"),
            (
                "/rsyncd-munged//rsyncd-munged/x",
                "/rsyncd-munged/x",
                "/rsyncd-munged/x",
            ),
            ("/rsyncd-munged/", "/rsyncd-munged/", "\0/rsyncd-munged/"),
            ("x", "x", "\0x"),
        ] {
            assert_eq!(shown(LinkTexts::Plain, text), text.as_bytes());
            assert_eq!(shown(LinkTexts::Unmunged, text), unmunged.as_bytes());
            assert_eq!(shown(LinkTexts::Munged, text), back.as_bytes());
        }
    }

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
