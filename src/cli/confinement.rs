//! How a receiver confines itself, and how that is told.

use super::transport::{self, Running, StartFault};
use super::{CliError, accounts, lookups};
use crate::confine::{self, Confined, Needs, Protection};
use crate::daemon::ModuleOptions;
use crate::daemon::home::Home;
use crate::daemon::status::ProtectionStatus;
use crate::fs::delegate_accounts;
use crate::net::delegate_hosts;
use clap::{Args, ValueEnum};
use driftless_protocol::XattrClasses;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What is read beside the module and the home: the zone of a timetable, and which start of the kernel this is.
const READABLE: [&str; 3] = [
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/proc/sys/kernel/random/boot_id",
];

/// Options of the end that peers connect to.
#[derive(Debug, Args)]
pub(super) struct ConfineArgs {
    /// Give up everything that receiving does not need (`driftless status` says what that is here): `auto` as far as this
    /// kernel and user can, `require` all of it or do not start, `off` nothing
    #[arg(long, value_name = "HOW", value_enum, default_value_t = How::Auto, hide_possible_values = true)]
    confine: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum How {
    Auto,
    Require,
    Off,
}

/// A process that confines itself in two steps.
pub(super) struct Confine {
    how: How,
    confined: Option<Confined>,
    running: Option<Running>,
    told: Arc<OnceLock<Vec<ProtectionStatus>>>,
}

impl Confine {
    /// The first step, before there is any thread. One that does not listen connects, and has to look hosts up.
    pub(super) fn enter(
        args: &ConfineArgs,
        home: &Home,
        module: &ModuleOptions,
        listen: Option<SocketAddr>,
        verbose: u8,
    ) -> Result<Confine, CliError> {
        let how = args.confine;
        let mut confine = Confine {
            how,
            confined: None,
            running: None,
            told: Arc::default(),
        };
        if how == How::Off {
            tracing::warn!("this process is not confined");
            return Ok(confine);
        }
        let mut writable = home
            .directories()
            .map_err(|error| CliError::failed(format!("cannot use the home {home}: {error}")))?;
        writable.push(module.path.clone());
        // To look up a user it may be necessary to read anything and to connect to anything.
        let delegated = accounts::program().and_then(|mut program| delegate_accounts(&mut program));
        if let Err(error) = delegated {
            tracing::warn!("users and groups cannot be looked up by name under confinement: {error}");
        }
        if listen.is_none()
            && let Err(error) = lookups::program().and_then(|mut program| delegate_hosts(&mut program))
        {
            tracing::warn!("hosts cannot be looked up by name under confinement: {error}");
        }
        let identity = home.identity_dir();
        let lacking = match transport::start(&identity, verbose) {
            Ok((running, lacking)) => {
                confine.running = Some(running);
                lacking
            }
            Err(StartFault::Said(error)) => return Err(error.into()),
            Err(StartFault::Spawn(error)) if how == How::Require => {
                let text = format!("cannot start the process that is to speak to the network: {error}");
                return Err(CliError::failed(text));
            }
            Err(StartFault::Spawn(error)) => {
                tracing::warn!("one process does all, since another cannot be started: {error}");
                Vec::new()
            }
        };
        let is_apart = confine.running.is_some();
        let privileged = XattrClasses::SECURITY.union(XattrClasses::TRUSTED);
        let mut confined = confine::enter(Needs {
            writable,
            readable: READABLE.map(PathBuf::from).to_vec(),
            devices: module.devices,
            privileged_xattrs: !module.xattrs.common(privileged).is_empty(),
            low_port: !is_apart && listen.is_some_and(|listen| (1..1024).contains(&listen.port())),
            hidden: is_apart.then_some(identity),
            is_apart,
        });
        if is_apart {
            let lacking: Vec<_> = lacking.into_iter().map(|one| (one.measure, one.reason)).collect();
            confined.tell_apart(&lacking);
        }
        confine.confined = Some(confined);
        confine.check()?;
        Ok(confine)
    }

    /// The process that speaks to the network, if there is one.
    pub(super) fn take_running(&mut self) -> Option<Running> {
        self.running.take()
    }

    /// What status tells; set by the second step.
    pub(super) fn shared(&self) -> Arc<OnceLock<Vec<ProtectionStatus>>> {
        self.told.clone()
    }

    /// The second step, once all sockets are open.
    pub(super) fn close(mut self) -> Result<(), CliError> {
        let Some(confined) = &mut self.confined else {
            return Ok(());
        };
        confined.close();
        let protections = confined.protections();
        let held: Vec<_> = protections.iter().filter(|one| one.missing.is_none()).collect();
        let held: Vec<_> = held.iter().map(|one| one.measure.name()).collect();
        tracing::info!("confined by {}", held.join(", "));
        for Protection { measure, missing } in protections {
            if let Some(reason) = missing {
                tracing::info!("not confined by {measure}: {reason}");
            }
        }
        let _ = self.told.set(protections.iter().map(status).collect());
        self.check()
    }

    /// Whether what was required is there.
    fn check(&self) -> Result<(), CliError> {
        let all = self.confined.iter().flat_map(Confined::protections);
        let missing = all.filter_map(|one| Some(format!("{}: {}", one.measure, one.missing.as_ref()?)));
        let missing: Vec<_> = missing.collect();
        if self.how != How::Require || missing.is_empty() {
            return Ok(());
        }
        Err(CliError::failed(format!(
            "not everything that `--confine require` asks for holds here: {} (use `--confine auto` to do without)",
            missing.join("; ")
        )))
    }
}

fn status(protection: &Protection) -> ProtectionStatus {
    ProtectionStatus {
        name: protection.measure.name().to_owned(),
        holds: protection.missing.is_none(),
        reason: protection.missing.clone(),
    }
}
