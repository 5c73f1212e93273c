//! What an end that writes changes at once.

use super::CliError;
use crate::engine::path_pattern::PathPattern;
use clap::Args;

/// Options of the end that writes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How the target is written")]
pub(super) struct PublishArgs {
    /// Change what matches at once: the next state is made aside, and takes its place in one step when all that was sent is
    /// there. PATTERN is a path below the root, with * ? [...] for names, as in 'releases/*'. May be given several times
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<PathPattern>,
}

impl PublishArgs {
    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        !self.publish.is_empty()
    }

    /// The patterns.
    pub(super) fn patterns(&self) -> Vec<PathPattern> {
        self.publish.clone()
    }

    /// Refuses what cannot be had together with it. `option` is another that was given.
    pub(super) fn check(&self, option: Option<&str>) -> Result<(), CliError> {
        match option.filter(|_| self.is_given()) {
            Some("--drift") => Err(CliError::usage(
                "--publish is not for --drift keep or refuse (what somebody changes in a tree that is exchanged is carried over, or set \
                 aside; leave --drift out)",
            )),
            Some(option) => Err(CliError::usage(format!(
                "--publish is not for {option} (what is written in place is seen at once; leave one of them out)"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writing::WritingArgs;
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        writing: WritingArgs,
    }

    fn read(line: &str) -> Result<Vec<String>, String> {
        let words = ["x"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let checked = line
            .writing
            .check()
            .and_then(|()| line.writing.module("m".to_owned(), "/m".into()));
        match checked {
            Ok(module) => Ok(module
                .publish
                .iter()
                .map(|pattern| pattern.text().to_owned())
                .collect()),
            Err(CliError::Usage(text)) => Err(text),
            Err(CliError::Failed(text)) => panic!("{text}"),
        }
    }

    #[test]
    fn patterns_are_read_and_what_contradicts_them_is_refused() {
        assert!(read("").unwrap().is_empty() && read("--inplace --drift keep").is_ok());
        let both = read("--publish releases/* --publish current --trash 7d").unwrap();
        assert_eq!(both, ["releases/*", "current"]);
        assert!(read("--publish a --drift overwrite").is_ok());
        for (line, reason) in [
            ("--publish a --inplace", "--inplace"),
            ("--publish a --drift keep", "--drift"),
            ("--publish a --drift refuse", "--drift"),
            ("--publish a --write-devices", "--write-devices"),
            ("--publish a/../b", ".."),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
