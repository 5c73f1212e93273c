//! A connection that asks what was changed in a module path by others than its mirror. Nothing is changed for it.

use super::replica::stored_cursor;
use super::{Refusal, Shared, Slot, lock, walk_path};
use crate::daemon::divergence::{compare, open_catalog};
use crate::daemon::sender::Standing;
use crate::daemon::{DaemonError, ModuleOptions};
use crate::fs::Directory;
use crate::net::ReceiverLink;
use crate::store::{Catalog, Role};
use driftless_protocol::message::{Open, Opened, Rows, ToSender};
use driftless_protocol::{Carried, CloseCode, ObjectId, TreeSum};
use std::sync::Arc;

/// A path of more bytes is not told: a message has a limit.
const PATH_BYTES_MAX: usize = 64 << 10;

impl Shared {
    /// Tells what is unlike the catalog, and waits until the sender ends the connection.
    pub(super) fn tell_divergence(
        &self,
        link: &ReceiverLink,
        module: &ModuleOptions,
        open: &Open,
    ) -> Result<(), Refusal> {
        let unable = |error: DaemonError| (CloseCode::Unable, error.to_string());
        let Some(catalog) = self.catalog_of(module, open)? else {
            let text = format!(
                "no mirror has ever written to {} of module {}",
                open.path, module.name
            );
            return Err((CloseCode::NoModule, text));
        };
        let top = Directory::open_root(&module.path)
            .map_err(|error| unable(DaemonError::failed(error.to_string())))?
            .with_view(module.view());
        let root = Arc::new(walk_path(top, &open.path, false).map_err(unable)?);
        let outcome = catalog.read(|view| {
            let opened = Opened {
                carried: Carried::default(),
                bound: true,
                is_empty: false,
                cursor: stored_cursor(view)?,
                sum: TreeSum::default(),
                root: ObjectId::ROOT,
                root_path: root.shown().into(),
                may_delete: false,
                demoted: false,
            };
            let _ = link.control().send(ToSender::Opened(opened));
            let mut too_long = 0;
            let all = Standing::Everything;
            let walked = compare(view, &root, &all, &module.keeping, &mut |change| {
                if change.path.to_bytes().len() > PATH_BYTES_MAX {
                    too_long += 1;
                    return;
                }
                let _ = link.control().send(ToSender::Diverged {
                    path: change.path,
                    what: change.what,
                    at: change.at,
                });
            });
            Ok(match (walked, too_long) {
                (Ok(()), 0) => None,
                (Ok(()), number) => Some(format!(
                    "{number} changed entries have paths of more than {PATH_BYTES_MAX} bytes"
                )),
                (Err(error), _) => Some(error.to_string()),
            })
        });
        // Whoever hears the end may ask again at once, or send.
        drop(catalog);
        let problem = outcome.map_err(|error| (CloseCode::Unable, error.to_string()))?;
        let end = match problem {
            None => ToSender::Listing {
                rows: Rows::default(),
                last: true,
            },
            Some(text) => ToSender::ListingFailed(text.as_str().into()),
        };
        let _ = link.control().send(end);
        match link.incoming().recv() {
            Ok(_) => Err((
                CloseCode::Violation,
                "nothing is asked on a connection that is told of divergence".to_owned(),
            )),
            Err(_) => Ok(()),
        }
    }

    /// The catalog of a module path, as its last session left it.
    fn catalog_of(&self, module: &ModuleOptions, open: &Open) -> Result<Option<Arc<Catalog>>, Refusal> {
        let slots = lock(&self.slots);
        match slots.get(&(module.name.clone(), open.path.clone())) {
            Some(Slot::Idle(replica)) if replica.publishing.is_awaited() => Err((
                CloseCode::Busy,
                "what was sent last is not published yet, because the sender had more to send: let it connect, or restart \
                 this receiver, which drops that"
                    .to_owned(),
            )),
            Some(Slot::Idle(replica)) => Ok(Some(replica.catalog.clone())),
            Some(Slot::Taken(tenant)) => Err((
                CloseCode::Busy,
                format!(
                    "the mirror of {} is connected, and what differs is on its way: stop it, or promote the module, before asking \
                     what each side did",
                    tenant.source
                ),
            )),
            None => {
                let state = self.options.home.module_place(&module.name, &open.path);
                let catalog = open_catalog(&state, Role::Receiver);
                let catalog = catalog.map_err(|error| (CloseCode::Unable, error.to_string()))?;
                Ok(catalog.map(Arc::new))
            }
        }
    }
}
