//! The modules of the daemon, and the trees that it offers, all behind one endpoint.

use crate::cli::CliError;
use crate::cli::config::{Configuration, Module};
use crate::cli::launch::{Session, existing_directory};
use crate::cli::output::Printer;
use crate::cli::receive::{Forgetter, pull, tree_of};
use crate::daemon::ReceiverOptions;
use crate::daemon::offers::Offers;
use crate::daemon::receiver::{Entrance, ReceiverDaemon};
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
    /// What receivers may pull.
    offers: Arc<Offers>,
    wants: Wants,
    /// All that are wanted; whether each is offered.
    modules: Vec<(Module, bool)>,
    /// What was said of each that fails, by its name; that of the endpoint by an empty one.
    told: HashMap<String, String>,
}

/// What an endpoint is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wants {
    anything: bool,
    /// Somebody connects.
    listens: bool,
    /// Receivers pull.
    offers: bool,
}

impl Wants {
    fn of(configuration: &Configuration) -> Wants {
        let offers = !configuration.trees().is_empty();
        Wants {
            anything: offers || !configuration.modules.is_empty(),
            listens: configuration.listens(),
            offers,
        }
    }
}

impl Hub {
    pub(super) fn new(session: Arc<Session>, printer: Arc<Printer>, offers: Arc<Offers>) -> Hub {
        Hub {
            session,
            printer,
            daemon: None,
            offers,
            wants: Wants::default(),
            modules: Vec::new(),
            told: HashMap::new(),
        }
    }

    /// Takes on the modules of a configuration. What is as it was is not touched, if the endpoint can stay.
    pub(super) fn apply(&mut self, new: &Configuration, can_stay: bool) {
        let wants = Wants::of(new);
        let can_stay = can_stay && wants == self.wants && wants.anything;
        self.wants = wants;
        self.offers
            .offer(new.trees(), new.endpoint.endpoint.allow.clone());
        if !can_stay && let Some(daemon) = self.daemon.take() {
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
        if !self.wants.anything {
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
                let from = module.from.as_ref().map(|word| tree_of(word, &self.session.home));
                let from = from.transpose()?;
                let options = module.options.module(module.name.clone(), path)?;
                daemon.offer(options)?;
                match from {
                    Some(from) => pull(
                        daemon,
                        &from,
                        &module.name,
                        &configuration.endpoint.network,
                        Some(self.session.handle()),
                    ),
                    None => Ok(()),
                }
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
            identity: self.session.identity.clone().into(),
            machine: None,
            modules: Vec::new(),
            listen: options.endpoint.address(),
            allow: options.endpoint.allow.clone(),
            link: options.network.link(),
            delta_engine: options.signing.delta_engine,
        };
        let entrance = Entrance {
            announced: names(configuration),
            offers: self.wants.offers.then(|| self.offers.clone()),
            listens: self.wants.listens,
        };
        let daemon = ReceiverDaemon::start_behind(options, entrance, self.session.handle())?;
        Ok(daemon)
    }

    /// Whether something is wanted that is not there.
    pub(super) fn is_incomplete(&self) -> bool {
        (self.wants.anything && self.daemon.is_none())
            || self.modules.iter().any(|(_, is_offered)| !is_offered)
    }

    pub(super) fn offered(&self) -> usize {
        self.modules.iter().filter(|(_, is_offered)| *is_offered).count()
    }

    /// Where it listens, if it does.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.daemon.as_ref().and_then(ReceiverDaemon::listening)
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
            "endpoint".to_owned()
        } else {
            format!("module {name}")
        };
        printer.note(format!("{about}: {text}; it is tried again, all else goes on"));
        told.insert(name.to_owned(), text);
    }
}
