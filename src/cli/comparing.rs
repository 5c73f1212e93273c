//! How it is told whether a file is what the target has: rsync's options.

use crate::engine::compare::Compare;
use clap::Args;

/// Flags that say what counts as a change.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ComparingArgs {
    /// Compare the contents of all files, whatever size, time and catalogs say; both sides read everything
    #[arg(short = 'c', long, conflicts_with_all = ["size_only", "ignore_times", "modify_window"])]
    checksum: bool,
    /// Take files of the same size for equal, where one side never read them
    #[arg(long, conflicts_with_all = ["ignore_times", "modify_window"])]
    size_only: bool,
    /// Take no file for equal without comparing its content
    #[arg(short = 'I', long, conflicts_with = "modify_window")]
    ignore_times: bool,
    /// Take files for equal whose times are up to SECONDS apart; -1 and 0 compare nanoseconds, as without it
    #[arg(short = '@', long, value_name = "SECONDS", allow_hyphen_values = true,
        value_parser = clap::value_parser!(i32).range(-1..))]
    modify_window: Option<i32>,
}

impl ComparingArgs {
    /// How contents are compared.
    pub(super) fn compare(&self) -> Compare {
        let window = self.modify_window.unwrap_or_default();
        match (self.checksum, self.ignore_times, self.size_only) {
            (true, ..) => Compare::Contents,
            (_, true, _) => Compare::Always,
            (.., true) => Compare::Size,
            _ => Compare::Times {
                window: u32::try_from(window).unwrap_or(0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Parsed {
        #[command(flatten)]
        comparing: ComparingArgs,
    }

    fn parsed(words: &[&str]) -> Result<ComparingArgs, clap::Error> {
        Parsed::try_parse_from(std::iter::once(&"driftless").chain(words)).map(|parsed| parsed.comparing)
    }

    #[test]
    fn compare_modes_are_those_of_rsync() {
        let mode = |words: &[&str]| parsed(words).unwrap().compare();
        assert_eq!(mode(&[]), Compare::Times { window: 0 });
        assert_eq!(mode(&["-c"]), Compare::Contents);
        assert_eq!(mode(&["--size-only"]), Compare::Size);
        assert_eq!(mode(&["-I"]), Compare::Always);
        assert_eq!(mode(&["--modify-window=2"]), Compare::Times { window: 2 });
        assert_eq!(mode(&["-@-1"]), Compare::Times { window: 0 });
        assert_eq!(mode(&["-@", "-1"]), Compare::Times { window: 0 });
        for wrong in [
            &["-c", "--size-only"][..],
            &["-c", "-I"],
            &["-I", "--modify-window=1"],
            &["--modify-window=-2"],
            &["--modify-window=soon"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
