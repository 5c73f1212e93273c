//! Asking a running receiver to forget a module.

use super::{ControlError, ORDER_PATIENCE, Reply, Request, ask_for, forget_dead, sockets};
use crate::daemon::forget::Cleared;
use crate::daemon::home::Home;
use crate::daemon::status::STATUS_VERSION;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetModule {
    /// Its name.
    pub name: String,
    /// Whether old versions and local edits that were set aside go, too.
    pub with_kept: bool,
}

impl ForgetModule {
    /// As it is called in requests.
    pub(super) const COMMAND: &str = "forget-module";

    pub(super) fn parse(request: &Request) -> Option<ForgetModule> {
        let name = request
            .name
            .clone()
            .filter(|_| request.command == Self::COMMAND)?;
        Some(ForgetModule {
            name,
            with_kept: request.with_kept,
        })
    }
}

/// Has the process of this home that offers a module forget it. None if there is no such process; the inner error is for people.
pub fn forget_module(
    home: &Home,
    wanted: &ForgetModule,
) -> Result<Option<Result<Cleared, String>>, ControlError> {
    let request = Request {
        version: STATUS_VERSION,
        command: ForgetModule::COMMAND.to_owned(),
        name: Some(wanted.name.clone()),
        with_kept: wanted.with_kept,
        ..Request::default()
    };
    for (pid, path) in sockets(home)? {
        match ask_for(&path, &request, ORDER_PATIENCE) {
            Ok(Some(Reply {
                cleared: Some(cleared),
                ..
            })) => return Ok(Some(Ok(cleared))),
            Ok(Some(reply)) if reply.unknown_mirror => {}
            Ok(Some(reply)) => {
                let text = reply.error.unwrap_or_else(|| "an empty answer".to_owned());
                return Ok(Some(Err(text)));
            }
            Ok(None) => forget_dead(pid, &path),
            Err(error) => {
                let text = format!("the driftless process {pid} does not answer: {error}");
                return Ok(Some(Err(text)));
            }
        }
    }
    Ok(None)
}
