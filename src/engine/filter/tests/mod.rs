//! Tests of the filter. What rsync's rules mean is compared with rsync itself by `tests/filter_rsync`.

mod faults;
mod foreign;
mod state;
mod wildcards;

use super::{Filter, FilterBuilder, FilterError, ReadFault, RuleFiles};
use driftless_protocol::{Kind, Name, RelPath};
use std::collections::HashMap;

/// Rule files in memory, by their path: as named, from the root of the tree, or absolute for those above the tree.
#[derive(Default)]
struct Files(HashMap<Vec<u8>, Vec<u8>>);

impl Files {
    fn of(files: &[(&str, &str)]) -> Files {
        Files(
            files
                .iter()
                .map(|(path, content)| (path.as_bytes().to_vec(), content.as_bytes().to_vec()))
                .collect(),
        )
    }
}

impl RuleFiles for Files {
    fn named(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        match path {
            b"/denied" => Err(ReadFault::Denied),
            _ => Ok(self.0.get(path).cloned()),
        }
    }

    fn in_tree(&mut self, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        let path = match directory {
            b"" => name.to_vec(),
            _ => [directory, b"/", name].concat(),
        };
        self.named(&path)
    }

    fn above_tree(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, ReadFault> {
        self.named(path)
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A filter of `--filter` rules.
fn rules(rules: &[&str], files: &mut Files) -> Result<Filter, FilterError> {
    let mut builder = FilterBuilder::new(b"/srv/www");
    for rule in rules {
        builder.filter(rule.as_bytes(), files)?;
    }
    builder.build()
}

/// The kind that a test means: a slash behind makes a directory.
fn kind_of(text: &str) -> (RelPath, Kind) {
    match text.strip_suffix('/') {
        Some(text) => (path(text), Kind::Directory),
        None => (path(text), Kind::File),
    }
}
