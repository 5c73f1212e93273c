//! Targets of rsync, and what they are here: a directory, or a module on another machine.

use std::collections::{BTreeMap, BTreeSet};

/// Where a sync writes, in rsync's terms.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A directory of this machine.
    Here(String),
    /// A directory of another one; not absolute if it is below the home of the user there.
    There { host: String, directory: String },
    /// A place in a module of an rsync daemon.
    Module {
        host: String,
        module: String,
        path: String,
    },
}

impl Place {
    /// Reads a target as rsync does. An error says why there can be no such target.
    pub(super) fn parse(target: &str) -> Result<Place, String> {
        if let Some(rest) = target.strip_prefix("rsync://") {
            let (authority, rest) = rest.split_once('/').ok_or("its URL has no module")?;
            let authority = user_off(authority);
            // The port is that of the rsync daemon, which driftless does not talk to.
            let host_end = match authority.find(']') {
                Some(close) => close + 1,
                None => authority.find(':').unwrap_or(authority.len()),
            };
            return Place::module(&authority[..host_end], rest);
        }
        let bare = match target.split_once('@') {
            Some((user, bare)) if !user.contains(['/', ':']) => bare,
            _ => target,
        };
        let (host, rest) = match bare.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((_, rest)) => bare.split_at(bare.len() - rest.len()),
            None => bare.split_at(bare.find([':', '/']).unwrap_or(bare.len())),
        };
        match (rest.strip_prefix("::"), rest.strip_prefix(':')) {
            (Some(rest), _) => Place::module(host, rest),
            (None, Some(directory)) => Ok(Place::there(host, directory)),
            (None, None) if target.starts_with('/') => Ok(Place::Here(trimmed(target))),
            (None, None) => Err(format!(
                "the target {target:?} is relative to wherever lsyncd was started (write a path that begins with a slash)"
            )),
        }
    }

    /// A directory on another machine.
    pub(super) fn there(host: &str, directory: &str) -> Place {
        let directory = match directory.strip_prefix("~/") {
            Some(below) => below,
            None if directory == "~" => "",
            None => directory,
        };
        Place::There {
            host: user_off(host).to_owned(),
            directory: trimmed(directory),
        }
    }

    fn module(host: &str, rest: &str) -> Result<Place, String> {
        let (module, path) = rest.split_once('/').unwrap_or((rest, ""));
        if module.is_empty() {
            return Err("the target has no module".to_owned());
        }
        Ok(Place::Module {
            host: host.to_owned(),
            module: module.to_owned(),
            path: path.trim_matches('/').to_owned(),
        })
    }
}

fn user_off(host: &str) -> &str {
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// Without slashes at the end; the root stays.
pub(super) fn trimmed(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/".to_owned(),
        rest => rest.to_owned(),
    }
}

/// The last part of a path, as a name that needs no quotes anywhere.
pub(super) fn name_of(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "." | ".." | "~"))
        .collect();
    match parts.last() {
        Some(last) => plain(last),
        None if path.starts_with('/') => "root".to_owned(),
        None => "home".to_owned(),
    }
}

fn plain(name: &str) -> String {
    const NAME_CHARS_MAX: usize = 60;
    let keep = |c: char| {
        if c.is_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = name.chars().map(keep).take(NAME_CHARS_MAX).collect();
    match name.trim_matches('-') {
        "" => "tree".to_owned(),
        name => name.to_owned(),
    }
}

/// A name that no other has; `more` is tried before numbers are.
pub(super) fn unique(taken: &mut BTreeSet<String>, name: String, more: Option<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut candidates = std::iter::once(name.clone()).chain(more).chain(numbered);
    let free = candidates
        .find(|candidate| !taken.contains(candidate))
        .unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// The modules that other machines need, by host and directory.
#[derive(Debug, Default)]
pub(super) struct Modules {
    names: BTreeMap<(String, String), String>,
}

impl Modules {
    /// Names a module for each directory. One in another's tree has none of its own: modules cannot be nested.
    pub(super) fn of<'a>(places: impl IntoIterator<Item = &'a Place>) -> Modules {
        let mut directories: BTreeSet<(&str, &str)> = BTreeSet::new();
        for place in places {
            if let Place::There { host, directory } = place {
                directories.insert((host, directory));
            }
        }
        let mut taken: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut modules = Modules::default();
        for &(host, directory) in &directories {
            let is_inner = directories.iter().any(|(other, outer)| {
                *other == host && below(directory, outer).is_some_and(|path| !path.is_empty())
            });
            if !is_inner {
                let parent = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
                let longer = format!("{}-{}", name_of(parent), name_of(directory));
                let name = unique(taken.entry(host).or_default(), name_of(directory), Some(longer));
                modules
                    .names
                    .insert((host.to_owned(), directory.to_owned()), name);
            }
        }
        modules
    }

    /// The target that stands for a place.
    pub(super) fn target(&self, place: &Place) -> String {
        let joined = |host: &str, module: &str, path: &str| {
            let slash = if path.is_empty() { "" } else { "/" };
            format!("{host}::{module}{slash}{path}")
        };
        match place {
            Place::Here(directory) => directory.clone(),
            Place::Module { host, module, path } => joined(host, module, path),
            Place::There { host, directory } => {
                let found = self.names.iter().find_map(|((other, outer), name)| {
                    let path = below(directory, outer).filter(|_| other == host)?;
                    Some(joined(host, name, path))
                });
                found.unwrap_or_else(|| joined(host, &name_of(directory), ""))
            }
        }
    }

    /// Host, directory and name of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.names
            .iter()
            .map(|((host, directory), name)| (host.as_str(), directory.as_str(), name.as_str()))
    }
}

/// What of a directory lies below another one; nothing if they are the same.
fn below<'a>(directory: &'a str, outer: &str) -> Option<&'a str> {
    if outer.is_empty() {
        return (!directory.starts_with('/')).then_some(directory);
    }
    let rest = directory.strip_prefix(outer)?;
    match rest.strip_prefix('/') {
        _ if rest.is_empty() => Some(""),
        Some(rest) => Some(rest),
        None if outer == "/" => Some(rest),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_rsync_reads_them() {
        let there = |host: &str, directory: &str| Place::There {
            host: host.into(),
            directory: directory.into(),
        };
        let module = |host: &str, module: &str, path: &str| Place::Module {
            host: host.into(),
            module: module.into(),
            path: path.into(),
        };
        for (text, place) in [
            ("/srv/copy/", Place::Here("/srv/copy".into())),
            ("/", Place::Here("/".into())),
            ("web1:/srv/www/", there("web1", "/srv/www")),
            ("me@web1:~/trg/", there("web1", "trg")),
            ("web1:", there("web1", "")),
            ("[::1]:/srv", there("[::1]", "/srv")),
            ("a@[::1]:/srv", there("[::1]", "/srv")),
            ("web1::www/sub/", module("web1", "www", "sub")),
            ("[fe80::1]::www", module("[fe80::1]", "www", "")),
            ("rsync://u@web1:5432/projects/a", module("web1", "projects", "a")),
            ("rsync://[::1]:873/p", module("[::1]", "p", "")),
        ] {
            assert_eq!(Place::parse(text), Ok(place), "{text}");
        }
        for text in ["copy", "./copy", "../a:b", "rsync://host", "host::"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modules_have_names_of_their_own_and_are_not_nested() {
        let places: Vec<Place> = [
            "a:/srv/www",
            "a:/var/www",
            "a:/srv/www/static",
            "b:/srv/www",
            "a:~",
            "a:sub",
            "a:/my dir/x y",
        ]
        .iter()
        .map(|text| Place::parse(text).unwrap())
        .collect();
        let modules = Modules::of(&places);
        let targets: Vec<_> = places.iter().map(|place| modules.target(place)).collect();
        assert_eq!(
            targets,
            [
                "a::www",
                "a::var-www",
                "a::www/static",
                "b::www",
                "a::home",
                "a::home/sub",
                "a::x-y"
            ]
        );
        assert_eq!(modules.iter().count(), 5);
    }
}
