//! The modules of the daemon, all behind one endpoint.

use crate::cli::CliError;
use crate::cli::config::{Configuration, Module};
use crate::cli::launch::{Session, existing_directory};
use crate::cli::output::Printer;
use crate::cli::receive::Forgetter;
use crate::daemon::ReceiverOptions;
use crate::daemon::receiver::ReceiverDaemon;
use crate::daemon::status::ReceiverStatus;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Tells the status of an endpoint.
pub(super) type StatusSource = Arc<dyn Fn() -> ReceiverStatus + Send + Sync>;

/// The endpoint, and what is to be behind it.
pub(super) struct Hub {
    session: Arc<Session>,
    printer: Arc<Printer>,
    daemon: Option<ReceiverDaemon>,
    /// All that are wanted; whether each is offered.
    modules: Vec<(Module, bool)>,
    /// What was said of each that fails, by its name; that of the endpoint by an empty one.
    told: HashMap<String, String>,
}

impl Hub {
    pub(super) fn new(session: Arc<Session>, printer: Arc<Printer>) -> Hub {
        Hub {
            session,
            printer,
            daemon: None,
            modules: Vec::new(),
            told: HashMap::new(),
        }
    }

    /// Takes on the modules of a configuration. What is as it was is not touched, if the endpoint can stay.
    pub(super) fn apply(&mut self, new: &Configuration, can_stay: bool) {
        if (!can_stay || new.modules.is_empty())
            && let Some(daemon) = self.daemon.take()
        {
            daemon.stop();
            self.modules.clear();
        }
        let before = std::mem::take(&mut self.modules);
        if let Some(daemon) = &self.daemon {
            daemon.announce(names(new));
            for (old, is_offered) in &before {
                if *is_offered && !new.modules.iter().any(|module| module.is_like(old)) {
                    daemon.withdraw(&old.name);
                }
            }
        }
        let was_offered = |module: &Module| {
            before
                .iter()
                .any(|(old, is_offered)| *is_offered && old.is_like(module))
        };
        let modules = new
            .modules
            .iter()
            .map(|module| (module.clone(), was_offered(module)));
        self.modules = modules.collect();
        self.told.clear();
        self.tend(new);
    }

    /// Tries what is wanted and not there yet. Tells what is wrong once.
    pub(super) fn tend(&mut self, configuration: &Configuration) {
        if self.modules.is_empty() {
            return;
        }
        if self.daemon.is_none() {
            match self.listen(configuration) {
                Ok(daemon) => self.daemon = Some(daemon),
                Err(error) => return tell(&mut self.told, &self.printer, "", error),
            }
        }
        let Some(daemon) = &self.daemon else { return };
        for (module, is_offered) in self.modules.iter_mut().filter(|(_, is_offered)| !is_offered) {
            let path = existing_directory("receive into", &module.path);
            let offered = path.and_then(|path| {
                let options = module.options.module(module.name.clone(), path)?;
                daemon.offer(options).map_err(CliError::from)
            });
            match offered {
                Ok(()) => *is_offered = true,
                Err(error) => tell(&mut self.told, &self.printer, &module.name, error),
            }
        }
    }

    fn listen(&self, configuration: &Configuration) -> Result<ReceiverDaemon, CliError> {
        let options = &configuration.endpoint;
        let options = ReceiverOptions {
            home: self.session.home.clone(),
            identity: self.session.identity.clone(),
            machine: None,
            modules: Vec::new(),
            listen: options.endpoint.address(),
            allow: options.endpoint.allow.clone(),
            link: options.network.link(),
            delta_engine: options.signing.delta_engine,
        };
        let names = names(configuration);
        let daemon = ReceiverDaemon::start_announcing(options, names, self.session.handle())?;
        Ok(daemon)
    }

    /// Whether something is wanted that is not there.
    pub(super) fn is_incomplete(&self) -> bool {
        self.modules.iter().any(|(_, is_offered)| !is_offered)
    }

    pub(super) fn offered(&self) -> usize {
        self.modules.iter().filter(|(_, is_offered)| *is_offered).count()
    }

    /// Where it listens, if it does.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.daemon.as_ref().map(ReceiverDaemon::address)
    }

    pub(super) fn status_source(&self) -> Option<StatusSource> {
        let source = self.daemon.as_ref()?.status_source();
        Some(Arc::new(source))
    }

    /// Something that forgets modules, if it listens.
    pub(super) fn forgetter(&self) -> Option<Arc<Forgetter>> {
        let forgetter = self.daemon.as_ref()?.forgetter();
        Some(Arc::new(forgetter))
    }

    /// Acts on `driftless promote` and `demote`, if the module is offered here.
    pub(super) fn heed_fence(&self, module: &str) -> Option<Result<(), String>> {
        let heed = self.daemon.as_ref()?.fencer();
        heed(module)
    }

    pub(super) fn stop(self) {
        if let Some(daemon) = self.daemon {
            daemon.stop();
        }
    }
}

fn names(configuration: &Configuration) -> Vec<String> {
    configuration
        .modules
        .iter()
        .map(|module| module.name.clone())
        .collect()
}

fn tell(told: &mut HashMap<String, String>, printer: &Printer, name: &str, error: CliError) {
    let (CliError::Failed(text) | CliError::Usage(text)) = error;
    if told.get(name) != Some(&text) {
        let about = if name.is_empty() {
            "modules".to_owned()
        } else {
            format!("module {name}")
        };
        printer.note(format!("{about}: {text}; it is tried again, all else goes on"));
        told.insert(name.to_owned(), text);
    }
}
