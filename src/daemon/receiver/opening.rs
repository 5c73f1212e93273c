//! Opening a module path: its root is checked, its directories are made, its tree is walked.

use super::*;

/// Whether a module is promoted: then its tree is not walked, and what is known of it stays as its last sender left it.
pub(super) fn is_promoted(options: &ReceiverOptions, module: &ModuleOptions) -> Result<bool, DaemonError> {
    let root = Directory::open_root(&module.path);
    root.map_err(|error| DaemonError::failed(error.to_string()))?;
    // What cannot be read refuses each sender, with the reason.
    Ok(fence::read(&options.home, &module.name)
        .map_or(true, |fence| fence.is_some_and(|fence| fence.is_promoted)))
}

pub(super) fn open_replica(
    options: &ReceiverOptions,
    module: &ModuleOptions,
    path: &RelPath,
    kept: &Arc<KeepingCounters>,
) -> Result<Replica, DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let root = Directory::open_root(&module.path).map_err(|error| failed(&error))?;
    let root = walk_path(root.with_view(module.view()), path, true)?;
    let place = place_of(module, path);
    let home = options.home.module_dir(&module.name, path);
    upstream::forget(&home);
    let keeping = (&module.keeping, kept.clone());
    let previous = module.previous.as_ref().filter(|_| path.is_root());
    let (mut replica, report) =
        Replica::open(root, &place, &home, keeping, previous).map_err(|error| failed(&error))?;
    replica.preallocates = module.preallocate;
    replica.writes_in_place = module.inplace;
    let publishes = replica.publish_at_once(&module.publish, path);
    publishes.map_err(|error| DaemonError::failed(error.text))?;
    tracing::info!(path = %place.display(), entries = report.entries, changed = report.changed, swept = report.swept,
        "module {} is ready", module.name);
    Ok(replica)
}

/// Before a path is made in a module: whether the module's own root is the one of before. That of the module is looked at
/// when it is opened. With the slots locked: two paths of one module would be in each other's way.
pub(super) fn check_module_root(
    options: &ReceiverOptions,
    module: &ModuleOptions,
    path: &RelPath,
) -> Result<(), DaemonError> {
    let failed = |error: &dyn std::fmt::Display| DaemonError::failed(error.to_string());
    let home = options.home.module_dir(&module.name, &RelPath::root());
    let file = home.join("state.redb");
    // Opening would make it.
    if path.is_root() || !file.exists() {
        return Ok(());
    }
    let root = Directory::open_root(&module.path).map_err(|error| failed(&error))?;
    let state = State::open(&file).map_err(|error| failed(&error))?;
    let generations = root::Generations {
        known: state.generation().map_err(|error| failed(&error))?,
        on_disk: replica::generation_in(&root, &state).map_err(|error| failed(&error))?,
    };
    let standing = root::check(&state, (&root, &module.path), &home, generations);
    if standing.map_err(|error| failed(&error))? == root::Standing::New {
        state.unbind().map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Where a module path is.
pub(super) fn place_of(module: &ModuleOptions, path: &RelPath) -> PathBuf {
    let mut place = module.path.clone();
    place.extend(path.names().iter().map(|name| OsStr::from_bytes(name.as_bytes())));
    place
}

/// Looks for the directories of a path below the module's root, following no link, and makes them if that is wanted.
pub(super) fn walk_path(root: Directory, path: &RelPath, make: bool) -> Result<Directory, DaemonError> {
    let mut at = root;
    for name in path.names() {
        if !make {
            at = at
                .open_dir(name)
                .map_err(|error| DaemonError::failed(error.to_string()))?;
            continue;
        }
        at = match at.make_dir(name) {
            Ok(made) => made,
            Err(error) if error.kind() == FsErrorKind::Exists => at
                .open_dir(name)
                .map_err(|error| DaemonError::failed(error.to_string()))?,
            Err(error) => return Err(DaemonError::failed(error.to_string())),
        };
    }
    Ok(at)
}
