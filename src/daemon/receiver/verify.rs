//! A connection that only compares: it holds no lock, touches no database, and runs beside the mirror's own. What it finds it may
//! have looked at again, which is the business of whoever holds these (`Doubts`).

use super::listing::{Wanted, own_attributes, send_disk_listing};
use super::owners::resolve;
use super::{own_carried, rights, walk_path};
use crate::daemon::pace::{Pace, digest_at_pace};
use crate::daemon::{DaemonError, ModuleOptions};
use crate::fs::{Directory, FsErrorKind};
use crate::net::ReceiverLink;
use crossbeam_channel::Select;
use driftless_certs::{Right, Rights};
use driftless_protocol::message::{Digests, Open, Opened, Purpose, ToReceiver, ToSender};
use driftless_protocol::{Carried, CloseCode, Digest, Name, ObjectId, OwnersHere, RelPath, TreeSum};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Refusal = (CloseCode, String);

/// Has paths below the module path looked at again; how many are not known any more as they were.
pub type Doubts<'a> = &'a dyn Fn(&[RelPath]) -> Result<u64, String>;

/// How often somebody who reads slowly looks whether the sender is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Answers listings from the disk until the link ends. Anything that would change something is a violation.
pub fn serve(
    link: &ReceiverLink,
    module: &ModuleOptions,
    rights: Rights,
    open: &Open,
    doubts: Doubts<'_>,
) -> Result<(), Refusal> {
    let unable = |error: DaemonError| (CloseCode::Unable, error.to_string());
    let top = Directory::open_root(&module.path)
        .map_err(|error| unable(DaemonError::failed(error.to_string())))?
        .with_view(module.view());
    let taken = rights::carried(module, rights);
    let (holds, own) = (top.holds_xattrs(taken.xattrs), own_carried(&top));
    // Of a path that is missing, a survey says so; the directory above has the same file system, most often.
    let root = match open.purpose {
        Purpose::Survey => find(top, &open.path).map_err(unable)?,
        Purpose::Mirror | Purpose::Verify | Purpose::Forget | Purpose::Divergence => {
            Some(walk_path(top, &open.path, false).map_err(unable)?)
        }
    };
    let root = root.map(Arc::new);
    let carried = open.carried.common(own).common(Carried {
        xattrs: root
            .as_ref()
            .map_or(holds, |root| root.holds_xattrs(taken.xattrs)),
        ..taken
    });
    let opened = Opened {
        carried,
        bound: false,
        is_empty: false,
        cursor: None,
        sum: TreeSum::default(),
        root: ObjectId::ROOT,
        root_path: root.as_ref().map_or("", |root| root.shown()).into(),
        may_delete: open.purpose == Purpose::Survey && rights.has(Right::Delete),
        demoted: false,
    };
    let _ = link.control().send(ToSender::Opened(opened));
    if open.purpose == Purpose::Survey {
        let attributes = root.as_ref().map(|root| own_attributes(root, carried.xattrs));
        let attributes = attributes
            .transpose()
            .map_err(|error| unable(DaemonError::failed(error.to_string())))?;
        let _ = link.control().send(ToSender::SurveyRoot {
            root: attributes,
            may_set_id: rights.has(Right::SetId),
            backs_up_beside: module.keeping.leaves_backups_beside(),
        });
    }
    let mut pace = Pace::new(0);
    loop {
        let mut select = Select::new();
        select.recv(link.incoming());
        let ops = select.recv(link.ops());
        if select.ready() == ops {
            return match link.ops().try_recv() {
                Ok(_) => Err((
                    CloseCode::Violation,
                    "an op came on a connection that only verifies".to_owned(),
                )),
                Err(_) => Ok(()),
            };
        }
        let asked = link.incoming().try_recv();
        if asked.as_ref().is_ok_and(asks_for_ours) {
            return Err((CloseCode::NotAllowed, super::serving::RESERVED.to_owned()));
        }
        match (asked, open.purpose) {
            (Ok(ToReceiver::Owners(rows)), _) => {
                let here: Result<Vec<_>, _> = rows.0.iter().map(resolve).collect();
                let here = here.map_err(|error| (CloseCode::Unable, error.text))?;
                let _ = link.control().send(ToSender::Owners(OwnersHere(here)));
            }
            (Ok(ToReceiver::ListDisk(path)), Purpose::Verify) => {
                let wanted = Wanted {
                    xattrs: carried.xattrs,
                    contents: false,
                };
                send_disk_listing(root.as_ref(), link, &path, wanted, &module.keeping);
            }
            (Ok(ToReceiver::ReadContents { path, names, rate }), Purpose::Verify) => {
                pace.set_rate(rate);
                let digests = root
                    .as_ref()
                    .map(|root| read_contents(root, link, &path, &names.0, &mut pace));
                let digests = digests.unwrap_or_else(|| vec![None; names.0.len()]);
                let _ = link.control().send(ToSender::Contents(Digests(digests)));
            }
            (Ok(ToReceiver::Doubt(paths)), Purpose::Verify) => {
                if !rights.has(Right::Push) {
                    let text =
                        "this peer may verify this module, but not push to it, and so has nothing mended";
                    return Err((CloseCode::NotAllowed, text.to_owned()));
                }
                let changed = doubts(&paths.0).map_err(|text| (CloseCode::Unable, text))?;
                let _ = link.control().send(ToSender::Doubted { changed });
            }
            (
                Ok(ToReceiver::Survey {
                    path,
                    xattrs,
                    contents,
                }),
                Purpose::Survey,
            ) => {
                rights::check_survey(rights, contents)
                    .map_err(|text| (CloseCode::NotAllowed, text.to_owned()))?;
                let xattrs = carried.xattrs.common(xattrs);
                let wanted = Wanted { xattrs, contents };
                send_disk_listing(root.as_ref(), link, &path, wanted, &module.keeping);
            }
            (Ok(_), _) => return Err((CloseCode::Violation, "this connection only verifies".to_owned())),
            (Err(error), _) if error.is_disconnected() => return Ok(()),
            (Err(_), _) => {}
        }
    }
}

/// The digests of files in a directory; none of what is no file, cannot be read, or is not needed any more because the link ended.
fn read_contents(
    root: &Arc<Directory>,
    link: &ReceiverLink,
    path: &RelPath,
    names: &[Name],
    pace: &mut Pace,
) -> Vec<Option<Digest>> {
    let opened = path
        .names()
        .iter()
        .try_fold(root.clone(), |at, name| at.open_dir(name).map(Arc::new));
    let Ok(directory) = opened else {
        return vec![None; names.len()];
    };
    let mut wait = |time: Duration| {
        let until = Instant::now() + time;
        loop {
            if link.ended().is_some() {
                return false;
            }
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return true,
                left => std::thread::sleep(left.min(LOOK_EVERY)),
            }
        }
    };
    let each = names.iter().map(|name| {
        let (file, _) = directory.open_file(name).ok()?;
        digest_at_pace(&file, pace, &mut wait).ok().flatten()
    });
    each.collect()
}

/// The directory at a path below the module's root, if there is one.
fn find(root: Directory, path: &RelPath) -> Result<Option<Directory>, DaemonError> {
    let mut at = root;
    for name in path.names() {
        at = match at.open_dir(name) {
            Ok(inner) => inner,
            Err(error) if error.kind() == FsErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DaemonError::failed(error.to_string())),
        };
    }
    Ok(Some(at))
}

/// Whether a message asks for what driftless keeps for itself in a tree: old versions, set-aside edits, a home perhaps.
fn asks_for_ours(message: &ToReceiver) -> bool {
    let is_ours = |path: &RelPath| path.names().iter().any(Name::is_reserved);
    match message {
        ToReceiver::ListDisk(path) | ToReceiver::Survey { path, .. } => is_ours(path),
        ToReceiver::ReadContents { path, names, .. } => {
            is_ours(path) || names.0.iter().any(Name::is_reserved)
        }
        ToReceiver::Doubt(paths) => paths.0.iter().any(is_ours),
        _ => false,
    }
}
