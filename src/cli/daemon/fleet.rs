//! All that a daemon runs, and how it becomes what another configuration says: what is as it was is not touched.

use super::hub::{Hub, StatusSource};
use super::sender::{Common, Far, Sender, Shared};
use crate::cli::config::{Configuration, Fault, Mirror};
use crate::cli::origin::Origin;
use crate::cli::receive::Forgetter;
use crate::cli::send::worst;
use crate::cli::text::count;
use crate::cli::{CliError, DONE};
use crate::daemon::Gate;
use crate::daemon::control::{ForgetModule, Obeyed};
use crate::daemon::forget::Cleared;
use crate::daemon::hooks::ModuleHook;
use crate::daemon::offers::{Caller, News, Offers};
use crate::daemon::sender::Readings;
use crate::daemon::status::{DaemonStatus, StatusBoard};
use crossbeam_channel::{Receiver, unbounded};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// What there is to tell, for the threads that answer.
#[derive(Default)]
pub(super) struct View(Mutex<Seen>);

#[derive(Default, Clone)]
struct Seen {
    /// And whether each was stopped by an order.
    boards: Vec<(Arc<StatusBoard>, bool)>,
    receiver: Option<StatusSource>,
    forgetter: Option<Arc<Forgetter>>,
}

impl View {
    /// The status of everything.
    pub(super) fn status(&self) -> Vec<DaemonStatus> {
        let seen = self.seen();
        let senders = seen.boards.iter().map(|(board, is_stopped)| {
            let mut status = board.status();
            if *is_stopped {
                status.phase = "stopped".to_owned();
            }
            DaemonStatus::Sender(Box::new(status))
        });
        let receiver = seen
            .receiver
            .iter()
            .map(|source| DaemonStatus::Receiver(source()));
        receiver.chain(senders).collect()
    }

    /// The boards of all senders.
    pub(super) fn boards(&self) -> Vec<Arc<StatusBoard>> {
        self.seen().boards.into_iter().map(|(board, _)| board).collect()
    }

    /// Forgets a module, if it is offered here.
    pub(super) fn forget_module(&self, wanted: &ForgetModule) -> Option<Result<Cleared, String>> {
        let forgetter = self.seen().forgetter?;
        let outcome = forgetter(&wanted.name, wanted.with_kept)?;
        Some(outcome.map_err(|error| error.to_string()))
    }

    fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A mirror, with a sender for each target.
struct Running {
    mirror: Arc<Mirror>,
    /// Of a tree that is offered: who pulls it.
    callers: Vec<Caller>,
    common: Common,
    /// What its filter means; none if files of rules could not be read.
    rules: Option<[u8; 32]>,
    is_stopped: bool,
    senders: Vec<Sender>,
}

/// Everything that runs.
pub(super) struct Fleet {
    shared: Shared,
    configuration: Configuration,
    mirrors: Vec<Running>,
    hub: Hub,
    /// Of receivers that pull.
    news: Receiver<News>,
    module_hooks: Vec<ModuleHook>,
    view: Arc<View>,
}

impl Fleet {
    /// Starts all senders, and then the modules, whose directories are walked first.
    pub(super) fn start(shared: Shared, configuration: Configuration, view: Arc<View>) -> Fleet {
        // Bounded by the trust store: one for each peer and tree.
        let (tell, news) = unbounded();
        let offers = Offers::new(shared.session.home.clone(), tell);
        let hub = Hub::new(shared.session.clone(), shared.printer.clone(), offers);
        let mut fleet = Fleet {
            shared,
            configuration: Configuration::default(),
            mirrors: Vec::new(),
            hub,
            news,
            module_hooks: Vec::new(),
            view,
        };
        fleet.change_to(configuration);
        fleet
    }

    /// Changes to another configuration, or says why not. Files of rules have to be readable, too.
    pub(super) fn reload(&mut self, loaded: Result<Configuration, Vec<Fault>>) -> Obeyed {
        let refused = |faults: Vec<String>| {
            Obeyed::Misconfigured(format!("nothing was changed:\n{}", faults.join("\n")))
        };
        let new = match loaded {
            Ok(new) => new,
            Err(faults) => return refused(faults.into_iter().map(|fault| fault.0).collect()),
        };
        let wrong: Vec<String> = new
            .mirrors
            .iter()
            .filter_map(|mirror| rules(mirror).err())
            .collect();
        if !wrong.is_empty() {
            return refused(wrong);
        }
        let restart = if new.has_process_of(&self.configuration) {
            ""
        } else {
            "; nice, ionice, pid-file, max-transfers, status-file, metrics, web and hooks-at-once take effect when the daemon is started again"
        };
        let changes = self.change_to(new);
        Obeyed::Done(format!("{changes}{restart}"))
    }

    /// Stops what is gone or different, then starts what is new: two mirrors may have changed places.
    fn change_to(&mut self, new: Configuration) -> String {
        let rules_of = |mirror: &Mirror| rules(mirror).ok();
        let wanted: Vec<_> = new
            .mirrors
            .iter()
            .map(|mirror| (Arc::new(mirror.clone()), rules_of(mirror)))
            .collect();
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        let (mut stopped, mut paused) = (Vec::new(), Vec::new());
        let mut callers = Vec::new();
        for mut running in std::mem::take(&mut self.mirrors) {
            let name = &running.mirror.name;
            if running.is_stopped {
                stopped.push(name.clone());
            }
            if running.common.gate.is_closed() {
                paused.push(name.clone());
            }
            let same = wanted.iter().find(|(mirror, rules)| {
                running.mirror.is_like(mirror) && running.rules.is_some() && running.rules == *rules
            });
            let Some((mirror, _)) = same else {
                // They go on calling, if it is still offered.
                callers.append(&mut running.callers);
                gone.append(&mut running.senders);
                continue;
            };
            let (stay, go) = std::mem::take(&mut running.senders)
                .into_iter()
                .partition(|sender| mirror.is_offered || mirror.targets.contains(&sender.target));
            (running.senders, running.mirror) = (stay, mirror.clone());
            gone.extend::<Vec<_>>(go);
            kept.push(running);
        }
        let mut tally = Tally {
            kept: kept.iter().map(|running| running.senders.len()).sum(),
            stopped: gone.len(),
            started: 0,
        };
        Sender::stop_all(gone);
        if !new.has_module_hooks_of(&self.configuration) {
            let new = start_module_hooks(&new, &self.shared);
            ModuleHook::end_all(std::mem::replace(&mut self.module_hooks, new));
        }
        let can_stay = new.has_endpoint_of(&self.configuration);
        self.configuration = new;
        for (mirror, rules) in wanted {
            let at = kept.iter().position(|running| running.mirror.name == mirror.name);
            let running = at.map(|at| kept.swap_remove(at));
            let mut running = running.unwrap_or_else(|| Running {
                common: Common {
                    link: mirror.options.send.link(),
                    gate: Gate::default(),
                    readings: Readings::default(),
                },
                rules,
                callers: callers
                    .extract_if(.., |caller: &mut Caller| {
                        mirror.is_offered && caller.tree == mirror.name
                    })
                    .collect(),
                is_stopped: stopped.contains(&mirror.name),
                senders: Vec::new(),
                mirror: mirror.clone(),
            });
            running.common.gate.set_closed(paused.contains(&mirror.name));
            if !running.is_stopped {
                tally.started += running.start(&self.shared);
            }
            self.mirrors.push(running);
        }
        self.publish();
        self.hub.apply(&self.configuration, can_stay);
        self.publish();
        tally.sentence(self.hub.offered())
    }

    /// Told when a receiver begins or ends to pull; see [`Fleet::handle_news`].
    pub(super) fn news(&self) -> Receiver<News> {
        self.news.clone()
    }

    /// Gives a receiver that calls for the first time a sender, and takes it away from one that has no right any more.
    pub(super) fn handle_news(&mut self, news: News) {
        let (News::Came(caller) | News::Gone(caller)) = &news;
        let is_meant =
            |running: &&mut Running| running.mirror.is_offered && running.mirror.name == caller.tree;
        let Some(running) = self.mirrors.iter_mut().find(is_meant) else {
            return;
        };
        // Under another name by now, perhaps.
        let (_, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut running.callers)
            .into_iter()
            .partition(|other| other.peer == caller.peer);
        running.callers = rest;
        let word = Far::Caller(caller.clone()).word();
        let (old, others) = std::mem::take(&mut running.senders)
            .into_iter()
            .partition(|sender| sender.target == word);
        running.senders = others;
        Sender::stop_all(old);
        if let News::Came(caller) = news {
            running.callers.push(caller);
            if !running.is_stopped {
                running.start(&self.shared);
            }
        }
        self.publish();
    }

    /// Tries again what could not be offered.
    pub(super) fn tend(&mut self) {
        self.hub.tend(&self.configuration);
        self.publish();
    }

    /// Forgets what is kept for a while only.
    pub(super) fn forget_old(&self) {
        for running in &self.mirrors {
            running.common.readings.tend();
        }
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.hub.is_incomplete()
    }

    pub(super) fn pause(&mut self, name: &str, is_paused: bool) -> Obeyed {
        let Some(running) = self.mirrors.iter().find(|running| running.mirror.name == name) else {
            return Obeyed::Unknown;
        };
        if running.is_stopped {
            return Obeyed::Failed(format!(
                "the mirror {name} is stopped (run `driftless start {name}`)"
            ));
        }
        let is_change = running.common.gate.set_closed(is_paused);
        let state = match (is_paused, is_change) {
            (true, true) => "is paused: its tree is watched, and nothing is sent",
            (true, false) => "is paused already",
            (false, true) => "goes on",
            (false, false) => "is not paused",
        };
        Obeyed::Done(format!("the mirror {name} {state}"))
    }

    pub(super) fn stop_mirror(&mut self, name: &str) -> Obeyed {
        let Some(running) = self
            .mirrors
            .iter_mut()
            .find(|running| running.mirror.name == name)
        else {
            return Obeyed::Unknown;
        };
        let was_stopped = std::mem::replace(&mut running.is_stopped, true);
        // The boards stay, so that the status goes on to name it.
        Sender::halt_all(&mut running.senders);
        self.publish();
        let state = if was_stopped {
            "is stopped already"
        } else {
            "is stopped"
        };
        Obeyed::Done(format!("the mirror {name} {state}"))
    }

    /// Acts on `driftless promote` and `demote`.
    pub(super) fn heed_fence(&mut self, module: &str) -> Obeyed {
        Obeyed::of_fence(self.hub.heed_fence(module))
    }

    /// Starts what is stopped, and tries at once what waits after a failure. What runs well is not touched.
    pub(super) fn start_mirror(&mut self, name: &str) -> Obeyed {
        let Some(running) = self
            .mirrors
            .iter_mut()
            .find(|running| running.mirror.name == name)
        else {
            return Obeyed::Unknown;
        };
        let was_stopped = std::mem::replace(&mut running.is_stopped, false);
        if was_stopped {
            running.common.gate.set_closed(false);
        }
        let is_idle = |sender: &Sender| was_stopped || sender.is_idle();
        let (idle, busy) = std::mem::take(&mut running.senders)
            .into_iter()
            .partition(is_idle);
        running.senders = busy;
        Sender::stop_all(idle);
        let started = running.start(&self.shared);
        self.publish();
        Obeyed::Done(match started {
            0 => format!("the mirror {name} is running already"),
            _ => format!("the mirror {name} is started"),
        })
    }

    /// Stops everything. Gives the exit status: that of the worst sender that was not stopped or paused by an order.
    pub(super) fn stop(mut self) -> u8 {
        let module_hooks = std::mem::take(&mut self.module_hooks);
        let mut senders = Vec::new();
        let mut counts = Vec::new();
        for running in self.mirrors {
            // A receiver that connects when it likes need not be here.
            let is_meant =
                !running.is_stopped && !running.common.gate.is_closed() && !running.mirror.is_offered;
            counts.extend(running.senders.iter().map(|_| is_meant));
            senders.extend(running.senders);
        }
        let statuses = Sender::stop_all(senders).into_iter().zip(counts);
        let statuses: Vec<u8> = statuses
            .map(|(status, counts)| if counts { status } else { DONE })
            .collect();
        self.hub.stop();
        // What was done last is told them first.
        ModuleHook::end_all(module_hooks);
        worst(&statuses)
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.hub.address()
    }

    /// How much runs, in one line.
    pub(super) fn summary(&self) -> String {
        let (trees, total) = (self.configuration.trees().len() as u64, self.mirrors.len() as u64);
        let mirrors = count(total - trees, "mirror", "mirrors");
        let targets = self
            .mirrors
            .iter()
            .map(|running| running.mirror.targets.len() as u64)
            .sum();
        let targets = count(targets, "target", "targets");
        let modules = count(self.hub.offered() as u64, "module", "modules");
        let trees = match trees {
            0 => String::new(),
            trees => format!("{}, ", count(trees, "tree", "trees")),
        };
        format!("{mirrors} with {targets}, {trees}{modules}")
    }

    fn publish(&self) {
        let boards = self.mirrors.iter().flat_map(|running| {
            let is_stopped = running.is_stopped;
            running
                .senders
                .iter()
                .map(move |sender| (sender.board.clone(), is_stopped))
        });
        let seen = Seen {
            boards: boards.collect(),
            receiver: self.hub.status_source(),
            forgetter: self.hub.forgetter(),
        };
        *self.view.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

impl Running {
    /// Starts a sender for each target, or receiver that pulls, that has none. Says how many.
    fn start(&mut self, shared: &Shared) -> usize {
        let mirror = self.mirror.clone();
        let mut senders = Vec::new();
        let mut started = 0;
        let targets = mirror.targets.iter().cloned().map(Far::Target);
        let callers = self.callers.iter().cloned().map(Far::Caller);
        for target in targets.chain(callers) {
            let word = target.word();
            let present = self.senders.iter().position(|sender| sender.target == word);
            senders.push(present.map_or_else(
                || {
                    started += 1;
                    Sender::start(shared, &mirror, &target, &self.common)
                },
                |at| self.senders.swap_remove(at),
            ));
        }
        self.senders = senders;
        started
    }
}

/// The hooks of modules. A hook of several has a thread for each.
fn start_module_hooks(configuration: &Configuration, shared: &Shared) -> Vec<ModuleHook> {
    let mut started = Vec::new();
    for hook in &configuration.hooks {
        for module in &hook.options.modules {
            let (printer, name) = (shared.printer.clone(), module.clone());
            let complain: Arc<dyn Fn(&str) + Send + Sync> =
                Arc::new(move |text| printer.note(format!("module {name}: {text}")));
            started.push(ModuleHook::start(
                &hook.options.hook(),
                module,
                &shared.slots,
                &complain,
            ));
        }
    }
    started
}

/// What the filter of a mirror means.
fn rules(mirror: &Mirror) -> Result<[u8; 32], String> {
    let send = &mirror.options.send;
    // A source that is missing has rules all the same.
    let origin = send.origin("send", &mirror.source);
    let origin = origin.unwrap_or_else(|_| Origin::whole(mirror.source.clone()));
    match send.filter(&origin) {
        Ok(filter) => Ok(filter.fingerprint()),
        Err(CliError::Failed(text) | CliError::Usage(text)) => Err(format!("{}: {text}", mirror.name)),
    }
}

/// What a change did to senders.
struct Tally {
    kept: usize,
    stopped: usize,
    started: usize,
}

impl Tally {
    fn sentence(&self, modules: usize) -> String {
        let senders =
            |number: usize, did: &str| format!("{} {did}", count(number as u64, "sender", "senders"));
        format!(
            "{}, {} stopped, {} started; {}",
            senders(self.kept, "left alone"),
            self.stopped,
            self.started,
            count(modules as u64, "module", "modules")
        )
    }
}
