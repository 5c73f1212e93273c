//! A connection that only compares: it holds no lock, touches no database, and runs beside the mirror's own.

use super::listing::send_disk_listing;
use super::owners::{Terms, resolve};
use super::{own_carried, rights, walk_path};
use crate::daemon::{DaemonError, ModuleOptions};
use crate::engine::owners::OwnerMap;
use crate::fs::Directory;
use crate::net::ReceiverLink;
use crossbeam_channel::Select;
use driftless_certs::Rights;
use driftless_protocol::message::{Open, Opened, ToReceiver, ToSender};
use driftless_protocol::{Carried, CloseCode, ObjectId, OwnersHere, TreeSum};
use std::sync::Arc;

type Refusal = (CloseCode, String);

/// Answers listings from the disk until the link ends. Anything that would change something is a violation.
pub fn serve(
    link: &ReceiverLink,
    module: &ModuleOptions,
    rights: Rights,
    open: &Open,
) -> Result<(), Refusal> {
    let unable = |error: DaemonError| (CloseCode::Unable, error.to_string());
    let root =
        Directory::open_root(&module.path).map_err(|error| unable(DaemonError::failed(error.to_string())))?;
    let root = Arc::new(walk_path(root, &open.path, false).map_err(unable)?);
    let taken = rights::carried(module, rights);
    let carried = open.carried.common(own_carried()).common(Carried {
        xattrs: root.holds_xattrs(taken.xattrs),
        ..taken
    });
    let opened = Opened {
        carried,
        bound: false,
        is_empty: false,
        cursor: None,
        sum: TreeSum::default(),
        root: ObjectId::ROOT,
        root_path: root.shown().into(),
        may_delete: false,
    };
    let _ = link.control().send(ToSender::Opened(opened));
    let terms = Terms::new(carried, OwnerMap::default());
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
        match link.incoming().try_recv() {
            Ok(ToReceiver::Owners(rows)) => {
                let here: Result<Vec<_>, _> = rows.0.iter().map(resolve).collect();
                let here = here.map_err(|error| (CloseCode::Unable, error.text))?;
                let _ = link.control().send(ToSender::Owners(OwnersHere(here)));
            }
            Ok(ToReceiver::ListDisk(path)) => {
                send_disk_listing(&root, link, &path, &terms, &module.keeping);
            }
            Ok(_) => return Err((CloseCode::Violation, "this connection only verifies".to_owned())),
            Err(error) if error.is_disconnected() => return Ok(()),
            Err(_) => {}
        }
    }
}
