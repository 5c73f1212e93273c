//! What can be wrong between the parts of a configuration: two that write to one place, and trees that feed themselves.

use super::plan::{Configuration, Mirror};
use super::read::{Entry, Fault, Place};
use crate::cli::hooks::When;
use crate::cli::target::{DEFAULT_PORT, Target, is_target};
use crate::cli::text::escaped;
use driftless_protocol::RelPath;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A target of a mirror.
struct Writer<'a> {
    mirror: &'a Mirror,
    place: &'a Place,
    to: Spot,
}

/// Where a mirror writes.
enum Spot {
    Directory(PathBuf),
    Remote {
        host: String,
        port: u16,
        module: String,
        path: RelPath,
        text: String,
    },
}

impl Spot {
    /// Whether writing to one changes what is in the other.
    fn overlaps(&self, other: &Spot) -> bool {
        match (self, other) {
            (Spot::Directory(one), Spot::Directory(other)) => nested(one, other),
            (
                Spot::Remote {
                    host,
                    port,
                    module,
                    path,
                    ..
                },
                Spot::Remote {
                    host: h,
                    port: p,
                    module: m,
                    path: q,
                    ..
                },
            ) => {
                let below = |one: &RelPath, other: &RelPath| one.names().starts_with(other.names());
                host.eq_ignore_ascii_case(h) && port == p && module == m && (below(path, q) || below(q, path))
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Spot::Directory(path) => escaped(path),
            Spot::Remote { text, .. } => text.clone(),
        }
    }
}

/// Finds everything that is wrong.
pub(super) fn check(configuration: &Configuration, faults: &mut Vec<Fault>) {
    names(configuration, faults);
    nested_modules(configuration, faults);
    hooks(configuration, faults);
    let writers: Vec<Writer<'_>> = configuration.mirrors.iter().flat_map(writers).collect();
    for (at, writer) in writers.iter().enumerate() {
        if let Some(other) = writers[..at].iter().find(|other| other.to.overlaps(&writer.to)) {
            let fault = two_writers(writer, other);
            faults.push(fault);
        }
        into_module(writer, configuration, faults);
    }
    loops(configuration, &writers, faults);
}

/// Hooks are for mirrors and modules that there are, and those of modules run when something has happened.
fn hooks(configuration: &Configuration, faults: &mut Vec<Fault>) {
    for hook in &configuration.hooks {
        let mut fault = |text: String| faults.push(Fault::at(&hook.place, text));
        let options = &hook.options;
        let has_mirror = |name: &String| configuration.mirrors.iter().any(|mirror| mirror.name == *name);
        let has_module = |name: &String| configuration.modules.iter().any(|module| module.name == *name);
        for name in options.mirrors.iter().filter(|name| !has_mirror(name)) {
            fault(format!("mirrors: there is no mirror called {name:?}"));
        }
        for name in options.modules.iter().filter(|name| !has_module(name)) {
            fault(format!("modules: there is no module called {name:?}"));
        }
        if !options.modules.is_empty() && options.on == When::BeforeBatch {
            fault("a hook of modules runs after-batch, in-sync or on error: what leaves is known where it leaves (make one for mirrors)".to_owned());
        }
    }
}

fn names(configuration: &Configuration, faults: &mut Vec<Fault>) {
    let mirrors = configuration
        .mirrors
        .iter()
        .map(|mirror| (&mirror.name, &mirror.place));
    let modules = configuration
        .modules
        .iter()
        .map(|module| (&module.name, &module.place));
    for (what, named) in [
        ("mirror", mirrors.collect::<Vec<_>>()),
        ("module", modules.collect()),
    ] {
        for (at, (name, place)) in named.iter().enumerate() {
            if let Some((_, first)) = named[..at].iter().find(|(other, _)| other == name) {
                let text =
                    format!("there is a {what} called {name:?} already, at {first} (rename one of them)");
                faults.push(Fault::at(place, text));
            }
        }
    }
}

fn nested_modules(configuration: &Configuration, faults: &mut Vec<Fault>) {
    let modules: Vec<_> = configuration
        .modules
        .iter()
        .map(|module| (module, real(&module.path)))
        .collect();
    for (at, (module, path)) in modules.iter().enumerate() {
        if let Some((other, above)) = modules[..at].iter().find(|(_, other)| nested(path, other)) {
            let how = if path == above {
                "offer the same directory"
            } else {
                "are nested"
            };
            let text = format!(
                "the modules {:?} and {:?} ({}) {how}: each would change what the other keeps (separate them)",
                module.name, other.name, other.place
            );
            faults.push(Fault::at(&module.place, text));
        }
    }
}

fn writers(mirror: &Mirror) -> impl Iterator<Item = Writer<'_>> {
    let place = entry(mirror, "targets");
    mirror.targets.iter().map(move |word| Writer {
        mirror,
        place,
        to: spot(word, port(mirror)),
    })
}

fn entry<'a>(mirror: &'a Mirror, key: &str) -> &'a Place {
    let found = mirror.entries.iter().find(|entry| entry.key == key);
    found.map_or(&mirror.place, |entry: &Entry| &entry.place)
}

fn port(mirror: &Mirror) -> u16 {
    mirror.options.send.port().port.unwrap_or(DEFAULT_PORT)
}

/// Who a host is, only the trust store knows; two ways to write one host are told apart when they connect.
fn spot(word: &OsStr, port: u16) -> Spot {
    match Target::parse(word) {
        Ok(target) if is_target(word) => Spot::Remote {
            text: escaped(word),
            port: target.port.unwrap_or(port),
            host: target.host,
            module: target.module,
            path: target.path,
        },
        _ => Spot::Directory(real(Path::new(word))),
    }
}

fn two_writers(writer: &Writer<'_>, other: &Writer<'_>) -> Fault {
    let (here, there) = (writer.to.shown(), other.to.shown());
    let text = if writer.mirror.name == other.mirror.name {
        format!("targets: {here} and {there} are one place (name it once)")
    } else {
        format!(
            "targets: {here} is written to by the mirror {:?} ({}), too: each would delete what the other sends (give one \
             of them another place)",
            other.mirror.name, other.place
        )
    };
    Fault::at(writer.place, text)
}

fn into_module(writer: &Writer<'_>, configuration: &Configuration, faults: &mut Vec<Fault>) {
    let Spot::Directory(path) = &writer.to else { return };
    let module = configuration
        .modules
        .iter()
        .find(|module| nested(path, &real(&module.path)));
    if let Some(module) = module {
        let text = format!(
            "targets: {} overlaps the module {:?} ({}), which others write to (separate them)",
            escaped(path),
            module.name,
            module.place
        );
        faults.push(Fault::at(writer.place, text));
    }
}

/// A source that, directly or by way of others, receives what it sends. That one mirror's target is the source of the
/// next is fine; that it comes back is not.
fn loops(configuration: &Configuration, writers: &[Writer<'_>], faults: &mut Vec<Fault>) {
    let mirrors = &configuration.mirrors;
    let sources: Vec<PathBuf> = mirrors.iter().map(|mirror| real(&mirror.source)).collect();
    let feeds = |from: usize| -> Vec<usize> {
        let out = writers
            .iter()
            .filter(|writer| std::ptr::eq(writer.mirror, &mirrors[from]));
        let directories = out.filter_map(|writer| match &writer.to {
            Spot::Directory(path) => Some(path),
            Spot::Remote { .. } => None,
        });
        let fed = directories.flat_map(|path| (0..mirrors.len()).filter(|&to| nested(path, &sources[to])));
        fed.collect()
    };
    let edges: Vec<Vec<usize>> = (0..mirrors.len()).map(feeds).collect();
    let mut is_told = vec![false; mirrors.len()];
    for start in 0..mirrors.len() {
        if is_told[start] {
            continue;
        }
        if let Some(path) = way_back(start, &edges) {
            path.iter().for_each(|&at| is_told[at] = true);
            let fault = if path.len() == 1 {
                let how = "the tree and a target of it are one directory or nested, so it would be mirrored into itself";
                format!("source: {how} (use a directory elsewhere)")
            } else {
                let names: Vec<_> = path
                    .iter()
                    .chain(&path[..1])
                    .map(|&at| format!("{:?}", mirrors[at].name))
                    .collect();
                format!(
                    "source: the mirrors form a loop, {}: each writes into the source of the next (break it)",
                    names.join(" to ")
                )
            };
            faults.push(Fault::at(entry(&mirrors[start], "source"), fault));
        }
    }
}

/// The shortest way from a mirror back to itself.
fn way_back(start: usize, edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut came_from: Vec<Option<usize>> = vec![None; edges.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for &next in &edges[at] {
            if next == start {
                let mut path = vec![at];
                while *path.last()? != start {
                    path.push(came_from[*path.last()?]?);
                }
                path.reverse();
                return Some(path);
            }
            if came_from[next].is_none() {
                came_from[next] = Some(at);
                queue.push_back(next);
            }
        }
    }
    None
}

fn nested(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// The path without links, as far as it exists; what does not exist is taken as it is written.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    for above in path.ancestors() {
        if let Ok(found) = above.canonicalize() {
            return missing.iter().rev().fold(found, |path, name| path.join(name));
        }
        missing.extend(above.file_name());
    }
    path.to_owned()
}
