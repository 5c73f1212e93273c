//! What SRC stands for: a tree, or what is named in one.
//!
//! A directory is a tree, and mirrored with its contents. Anything else is one name of the directory that it is in: that one
//! is watched, so that it does not matter how an editor replaces the file, and nothing but this name is mirrored, or ever
//! made, replaced or deleted on the target. `--relative` names what is behind `/./` (or all of the path) in the directory
//! before it. What is named has no say about the attributes of the directory that it is put into.

use super::CliError;
use super::text::escaped;
use crate::daemon::TargetOptions;
use crate::engine::filter::split_relative_root;
use driftless_protocol::RelPath;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The root of the tree, by its canonical path.
    pub(super) root: PathBuf,
    /// What is mirrored in it; everything without.
    pub(super) named: Option<RelPath>,
    /// It is a name in its root, and not a path with directories that are made, too.
    is_single: bool,
}

impl Origin {
    /// A whole tree, by its canonical path.
    pub(super) fn whole(root: PathBuf) -> Origin {
        Origin {
            root,
            named: None,
            is_single: false,
        }
    }

    /// Finds what a word of the command line stands for. `purpose` is a verb.
    pub(super) fn find(purpose: &str, path: &Path, is_relative: bool) -> Result<Origin, CliError> {
        match is_relative {
            true => Origin::relative(purpose, path),
            false => Origin::plain(purpose, path),
        }
    }

    fn plain(purpose: &str, path: &Path) -> Result<Origin, CliError> {
        let fault = |cause: &dyn std::fmt::Display| failed(purpose, path, cause);
        // What a link leads to counts only if that is a directory.
        if path.metadata().is_ok_and(|found| found.is_dir()) {
            return directory(purpose, path).map(Origin::whole);
        }
        path.symlink_metadata().map_err(|error| fault(&error))?;
        let (Some(name), false) = (path.file_name(), ends_in_slash(path)) else {
            return Err(fault(&"it is not a directory"));
        };
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let root = directory(purpose, above.unwrap_or(Path::new(".")))?;
        let named = RelPath::parse(name.as_bytes()).map_err(|error| fault(&error))?;
        Ok(Origin {
            root,
            named: Some(named),
            is_single: true,
        })
    }

    fn relative(purpose: &str, path: &Path) -> Result<Origin, CliError> {
        let (root, rest) = split_relative_root(path.as_os_str().as_bytes());
        let root = match root {
            b"" => Path::new("."),
            root => Path::new(OsStr::from_bytes(root)),
        };
        let fault = |cause: &dyn std::fmt::Display| failed(purpose, path, cause);
        let root = directory(purpose, root)?;
        let steps = rest.split(|&byte| byte == b'/');
        let steps: Vec<&[u8]> = steps.filter(|step| !matches!(*step, [] | [b'.'])).collect();
        if steps.is_empty() {
            return Ok(Origin::whole(root));
        }
        if steps.contains(&&b".."[..]) {
            return Err(CliError::usage(format!(
                "cannot {purpose} {} with --relative: `..` behind the root would be made on the target (resolve it)",
                escaped(path)
            )));
        }
        let named = RelPath::parse(&steps.join(&b'/')).map_err(|error| fault(&error))?;
        let origin = Origin {
            root,
            named: Some(named),
            is_single: false,
        };
        origin.path().symlink_metadata().map_err(|error| fault(&error))?;
        Ok(origin)
    }

    /// Whether something in the tree is named, and not all of it.
    pub(super) fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// What is mirrored, for people and for comparisons of paths.
    pub(super) fn path(&self) -> PathBuf {
        let mut path = self.root.clone();
        for name in self.named.iter().flat_map(RelPath::names) {
            path.push(OsStr::from_bytes(name.as_bytes()));
        }
        path
    }

    /// The name of a single file.
    fn name(&self) -> Option<&OsStr> {
        let name = self.named.as_ref().filter(|_| self.is_single)?.names().last()?;
        Some(OsStr::from_bytes(name.as_bytes()))
    }

    /// The directory on this machine to write to, for a destination that may be the place of a single file.
    pub(super) fn directory_of(&self, destination: &Path) -> Result<PathBuf, CliError> {
        let Some(name) = self.name() else {
            return Ok(destination.to_owned());
        };
        if ends_in_slash(destination) || destination.is_dir() {
            return Ok(destination.to_owned());
        }
        if destination.file_name() != Some(name) {
            return Err(self.renames(destination.as_os_str(), name));
        }
        let above = destination.parent().filter(|above| !above.as_os_str().is_empty());
        Ok(above.unwrap_or(Path::new(".")).to_owned())
    }

    /// The target, for a word that may be the place of a single file.
    pub(super) fn target_of(&self, target: TargetOptions, word: &OsStr) -> Result<TargetOptions, CliError> {
        let Some((last, above)) = target.path.names().split_last() else {
            return Ok(target);
        };
        let Some(name) = self.name() else {
            return Ok(target);
        };
        if word.as_bytes().ends_with(b"/") {
            return Ok(target);
        }
        if last.as_bytes() != name.as_bytes() {
            return Err(self.renames(word, name));
        }
        let path = above.iter().fold(RelPath::root(), |path, name| path.join(name));
        let shown = target.display.rsplit_once('/');
        let display = shown
            .map_or(target.display.as_str(), |(above, _)| above)
            .to_owned();
        Ok(TargetOptions {
            path,
            display,
            ..target
        })
    }

    fn renames(&self, destination: &OsStr, name: &OsStr) -> CliError {
        let (shown, name) = (escaped(destination), escaped(name));
        CliError::usage(format!(
            "cannot mirror {} to {shown}: a file keeps its name (write {shown}/ for a directory to put it into, or a \
             path that ends in {name})",
            escaped(self.path())
        ))
    }
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// The canonical path of a directory that can be listed.
fn directory(purpose: &str, path: &Path) -> Result<PathBuf, CliError> {
    super::launch::existing_directory(purpose, path)
}

fn failed(purpose: &str, path: &Path, cause: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("cannot {purpose} {}: {cause}", escaped(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Bench {
        directory: tempfile::TempDir,
        root: PathBuf,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink("b/file", root.join("a/link")).unwrap();
        symlink("a", root.join("to-a")).unwrap();
        Bench { directory, root }
    }

    fn named(origin: &Origin) -> String {
        origin.named.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn text(error: CliError) -> String {
        let (CliError::Failed(text) | CliError::Usage(text)) = error;
        text
    }

    #[test]
    fn a_directory_is_a_tree_and_all_else_a_name() {
        let bench = bench();
        let find = |path: &str| Origin::find("mirror", &bench.root.join(path), false);
        assert_eq!(find("to-a").unwrap(), Origin::whole(bench.root.join("a")));
        assert_eq!(find("a/b/").unwrap(), Origin::whole(bench.root.join("a/b")));
        let file = find("to-a/b/file").unwrap();
        assert_eq!(
            (file.root.clone(), named(&file)),
            (bench.root.join("a/b"), "file".to_owned())
        );
        assert_eq!(file.path(), bench.root.join("a/b/file"));
        // A link is mirrored as one.
        assert_eq!(named(&find("a/link").unwrap()), "link");
        for missing in ["no", "a/b/file/", "a/b/file/x"] {
            assert!(find(missing).is_err(), "{missing}");
        }
        drop(bench.directory);
    }

    #[test]
    fn relative_sources_name_what_is_behind_the_dot() {
        let bench = bench();
        let find = |path: String| Origin::find("mirror", Path::new(&path), true);
        let root = bench.root.display();
        let behind = find(format!("{root}/./a//b/./file")).unwrap();
        assert_eq!(
            (behind.root.clone(), named(&behind)),
            (bench.root.clone(), "a/b/file".to_owned())
        );
        let whole = find(format!("{root}/a/b/")).unwrap();
        assert_eq!(whole.root, Path::new("/"));
        assert_eq!(whole.path(), bench.root.join("a/b"));
        assert_eq!(
            find(format!("{root}/a/./")).unwrap(),
            Origin::whole(bench.root.join("a"))
        );
        assert!(text(find(format!("{root}/./a/../b")).unwrap_err()).contains("`..`"));
        assert!(text(find(format!("{root}/./no")).unwrap_err()).contains("No such file"));
    }

    #[test]
    fn a_file_goes_into_a_directory_or_to_its_own_name() {
        let bench = bench();
        let file = Origin::find("mirror", &bench.root.join("a/b/file"), false).unwrap();
        let place = |path: &str| file.directory_of(&bench.root.join(path));
        assert_eq!(place("a").unwrap(), bench.root.join("a"));
        assert_eq!(place("new/").unwrap(), bench.root.join("new/"));
        assert_eq!(place("copy/file").unwrap(), bench.root.join("copy"));
        assert_eq!(file.directory_of(Path::new("file")).unwrap(), Path::new("."));
        assert!(text(place("other").unwrap_err()).contains("a file keeps its name"));
        let target = |word: &str, path: &str| {
            let target = TargetOptions {
                display: word.to_owned(),
                host: String::new(),
                port: 0,
                fingerprint: driftless_certs::Fingerprint::from_bytes([0; 32]),
                module: "m".to_owned(),
                path: RelPath::parse(path.as_bytes()).unwrap(),
            };
            let found = file.target_of(target, OsStr::new(word));
            found.map(|found| (found.display, found.path.to_string()))
        };
        let (display, path) = target("h::m/etc/file", "etc/file").unwrap();
        assert_eq!((display.as_str(), path.as_str()), ("h::m/etc", "etc"));
        assert_eq!(target("h::m/file", "file").unwrap().0, "h::m");
        assert_eq!(target("h::m/etc/", "etc").unwrap().1, "etc");
        assert_eq!(target("h::m", "").unwrap().0, "h::m");
        assert!(text(target("h::m/etc", "etc").unwrap_err()).contains("h::m/etc/ for a directory"));
    }
}
