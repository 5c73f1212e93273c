//! `driftless daemon`: all mirrors and modules of a configuration in one process.
//!
//! One thread owns all of it ([`fleet::Fleet`]): it takes orders from the control socket and from SIGHUP one at a time,
//! and looks after modules that could not be offered. Each mirror and target has a thread of its own ([`sender`]), which
//! keeps trying; nothing that happens to one is seen by the others.

mod fleet;
mod hooked;
mod hub;
mod pid_file;
mod sender;
mod status_file;

use super::config::{Configuration, FileArg, complain, load};
use super::launch::Session;
use super::logging;
use super::narrate::{Detail, Style};
use super::output::Printer;
use super::reporting::ReportingArgs;
use super::{CliError, output};
use crate::daemon::control::{Controlled, ForgetModule, Obeyed, Order};
use crate::daemon::forget::Cleared;
use crate::daemon::home::Home;
use crate::daemon::notify::{State, notify};
use crate::daemon::status::{DaemonStatus, STATUS_VERSION, StatusBoard};
use crate::daemon::watchdog::Watchdog;
use crate::daemon::{Rested, Turns};
use crate::fs::limit_heaps;
use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use fleet::{Fleet, View};
pub(super) use hooked::Hooked;
use pid_file::PidFile;
use sender::Shared;
use serde_json::json;
use status_file::StatusFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How often modules that could not be offered are tried again.
const TEND_EVERY: Duration = Duration::from_secs(5);

/// Heaps of the allocator of a process that lasts. With one for each of many threads, what one mirror or connection has freed is of no
/// use to the next.
pub(super) const HEAPS: u16 = 4;

/// How often it is looked whether memory can be given back.
const REST_EVERY: Duration = Duration::from_secs(10);

/// Orders that wait. Who gives them waits for the answer, so there are few.
const ORDERS_MAX: usize = 16;

/// Run all mirrors and modules of the configuration: the daemon
///
/// Stays in the foreground. Starts although targets are down; what fails says so and is tried again, and the rest goes on.
/// SIGHUP reads the configuration again.
#[derive(Debug, Args)]
pub(super) struct DaemonArgs {
    #[command(flatten)]
    file: FileArg,
    /// Write the number of the process into FILE, and hold a lock on it [default: pid-file of the configuration, or none]
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    #[command(flatten)]
    reporting: ReportingArgs,
    /// How many mirrors may be brought in sync at a time, each of them until it is; what changes later leaves at once [default:
    /// max-transfers of the configuration, or any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_transfers: Option<u16>,
    /// Print JSON, one event per line
    #[arg(long)]
    json: bool,
}

impl DaemonArgs {
    pub(super) fn run(&self, verbose: u8) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let path = self.file.path(&home);
        let configuration = match load(&path) {
            Ok(configuration) => configuration,
            Err(faults) => return Ok(complain(&faults)),
        };
        logging::prepare(&configuration.logging)?.take_up();
        let verbose = match verbose {
            0 => configuration.logging.verbose,
            said => said,
        };
        let process = &configuration.process;
        limit_heaps(HEAPS);
        process.priority.apply()?;
        let pid_file = self.pid_file.as_deref().or(process.pid_file.as_deref());
        let _pid_file = pid_file.map(PidFile::create).transpose()?;
        let transfers = self.max_transfers.or(process.max_transfers);
        let transfers = transfers.map_or_else(Turns::default, |number| Turns::at_most(number.into()));
        let session = Arc::new(Session::open()?);
        let (orders, inbox) = bounded(ORDERS_MAX);
        reload_on_hangup(&session, orders.clone())
            .map_err(|error| CliError::failed(format!("cannot listen for signals: {error}")))?;
        let view = Arc::new(View::default());
        let desk = Desk {
            view: view.clone(),
            orders,
        };
        let desk = Arc::new(desk);
        let control = session.control("daemon", desk.clone());
        let reporting = self.reporting.or(&configuration.process.reporting);
        let metrics = reporting.serve_metrics(desk.clone());
        let page = reporting.serve_page(desk, session.handle());
        let shared = Shared {
            session: session.clone(),
            printer: Arc::new(Printer::start(None)),
            style: self.style(verbose),
            slots: reporting.slots(),
            walks: Turns::at_most(std::thread::available_parallelism().map_or(2, |n| n.get().max(2))),
            transfers,
        };
        let mut fleet = Fleet::start(shared, configuration, view.clone());
        let status_file = start_status_file(&reporting, &view);
        self.tell_ready(&session, &fleet);
        serve(&session, &mut fleet, &inbox, Some(&path));
        notify(State::Stopping, "stopping");
        drop((control, metrics, page, status_file));
        Ok(fleet.stop())
    }

    fn style(&self, verbose: u8) -> Style {
        Style {
            detail: if verbose == 0 {
                Detail::Milestones
            } else {
                Detail::All
            },
            json: self.json,
            follow: true,
            name_target: true,
        }
    }

    fn tell_ready(&self, session: &Session, fleet: &Fleet) {
        let (identity, summary) = (session.identity.fingerprint().to_string(), fleet.summary());
        if self.json {
            output::json(
                &json!({"version": STATUS_VERSION, "event": "ready", "pid": std::process::id(),
                "address": fleet.address(), "identity": identity}),
            );
        } else {
            let on = fleet
                .address()
                .map_or_else(String::new, |address| format!(" on {address}"));
            output::line(&format!("running {summary}{on}; identity {identity}"));
        }
        notify(State::Ready, &summary);
    }
}

/// Runs a configuration that is in no file: `driftless serve`.
pub(super) fn offer(configuration: Configuration, style: Style) -> Result<u8, CliError> {
    limit_heaps(HEAPS);
    let session = Arc::new(Session::open()?);
    let (orders, inbox) = bounded(ORDERS_MAX);
    let view = Arc::new(View::default());
    let desk = Desk {
        view: view.clone(),
        orders,
    };
    let control = session.control("sender", Arc::new(desk));
    let shared = Shared {
        session: session.clone(),
        printer: Arc::new(Printer::start(None)),
        style,
        slots: ReportingArgs::default().slots(),
        walks: Turns::at_most(std::thread::available_parallelism().map_or(2, |n| n.get().max(2))),
        transfers: Turns::default(),
    };
    let trees = configuration.trees().join(", ");
    let mut fleet = Fleet::start(shared, configuration, view);
    let identity = session.identity.fingerprint().to_string();
    if style.json {
        output::json(
            &json!({"version": STATUS_VERSION, "event": "ready", "tree": trees, "address": fleet.address(),
            "identity": identity}),
        );
    } else {
        let on = fleet
            .address()
            .map_or_else(String::new, |address| format!(" on {address}"));
        output::line(&format!("offering {trees}{on}; identity {identity}"));
    }
    notify(State::Ready, &format!("offering {trees}"));
    serve(&session, &mut fleet, &inbox, None);
    notify(State::Stopping, "stopping");
    drop(control);
    Ok(fleet.stop())
}

/// Begins with the status file, if one is wanted. The rest goes on without it.
fn start_status_file(reporting: &ReportingArgs, view: &Arc<View>) -> Option<StatusFile> {
    let (path, interval) = reporting.status_file()?;
    StatusFile::start(path, interval, view.clone())
        .map_err(|error| output::note(&format!("no status file is written: {error}")))
        .ok()
}

/// An order, and where the answer goes; nowhere for a signal.
type Errand = (Order, Option<Sender<Obeyed>>);

/// Carries out orders until the process is asked to stop.
fn serve(session: &Session, fleet: &mut Fleet, inbox: &Receiver<Errand>, path: Option<&Path>) {
    let stop = session.stop.channel();
    let watchdog = Watchdog::start(session.handle());
    let ticks = watchdog.ticks();
    let mut tend_at = Instant::now() + TEND_EVERY;
    let news = fleet.news();
    let (rest, mut rested) = (crossbeam_channel::tick(REST_EVERY), Rested::default());
    while !session.stop.is_requested() {
        watchdog.beat();
        let tend = if fleet.is_incomplete() {
            crossbeam_channel::at(tend_at)
        } else {
            crossbeam_channel::never()
        };
        crossbeam_channel::select! {
            recv(stop) -> _ => return,
            recv(ticks) -> _ => {}
            recv(tend) -> _ => {
                watchdog.during(|| fleet.tend());
                tend_at = Instant::now() + TEND_EVERY;
            }
            recv(news) -> told => {
                if let Ok(told) = told {
                    watchdog.during(|| fleet.handle_news(told));
                }
            }
            recv(rest) -> _ => {
                fleet.forget_old();
                rested.tend();
            }
            recv(inbox) -> errand => {
                let Ok((order, answer)) = errand else { return };
                let outcome = watchdog.during(|| carry_out(fleet, &order, path));
                tell(&order, &outcome);
                if let Some(answer) = answer {
                    let _ = answer.send(outcome);
                }
            }
        }
    }
}

fn carry_out(fleet: &mut Fleet, order: &Order, path: Option<&Path>) -> Obeyed {
    match (order, path) {
        (Order::Reload, None) => Obeyed::Failed("this process has no configuration to read again".to_owned()),
        (Order::Reload, Some(path)) => {
            notify(State::Reloading, "reading the configuration again");
            let outcome = reload(fleet, path);
            notify(State::Ready, &fleet.summary());
            outcome
        }
        (Order::Pause(name), _) => fleet.pause(name, true),
        (Order::Resume(name), _) => fleet.pause(name, false),
        (Order::Stop(name), _) => fleet.stop_mirror(name),
        (Order::Start(name), _) => fleet.start_mirror(name),
        (Order::Fence(name), _) => fleet.heed_fence(name),
    }
}

/// Reads the configuration again. A log that cannot be written is a fault like any other: nothing is changed.
fn reload(fleet: &mut Fleet, path: &Path) -> Obeyed {
    let loaded = load(path);
    let log = loaded.as_ref().ok().map(|new| logging::prepare(&new.logging));
    let log = match log.transpose() {
        Ok(log) => log,
        Err(CliError::Failed(text) | CliError::Usage(text)) => {
            return Obeyed::Misconfigured(format!("nothing was changed:\n{text}"));
        }
    };
    let outcome = fleet.reload(loaded);
    if let (Obeyed::Done(_), Some(log)) = (&outcome, log) {
        log.take_up();
    }
    outcome
}

/// The log of the daemon says what was done to it.
fn tell(order: &Order, outcome: &Obeyed) {
    match outcome {
        Obeyed::Done(text) => tracing::info!("{}: {text}", order.name()),
        Obeyed::Failed(text) | Obeyed::Misconfigured(text) => {
            text.lines()
                .for_each(|line| output::note(&format!("{}: {line}", order.name())));
        }
        Obeyed::Unknown => {}
    }
}

fn reload_on_hangup(session: &Session, orders: Sender<Errand>) -> std::io::Result<()> {
    let _context = session.handle().enter();
    let mut hangup = signal(SignalKind::hangup())?;
    session.handle().spawn(async move {
        while hangup.recv().await.is_some() {
            // Full: then one that was given before is still to come, or somebody gives very many.
            let _ = orders.try_send((Order::Reload, None));
        }
    });
    Ok(())
}

/// What the control socket speaks to.
struct Desk {
    view: Arc<View>,
    orders: Sender<Errand>,
}

impl Controlled for Desk {
    fn status(&self) -> Vec<DaemonStatus> {
        self.view.status()
    }

    fn boards(&self) -> Vec<Arc<StatusBoard>> {
        self.view.boards()
    }

    fn approve(&self, mirror: &str, deletions: u64) -> Option<Result<u64, String>> {
        self.view.boards().approve(mirror, deletions)
    }

    fn forget_module(&self, wanted: &ForgetModule) -> Option<Result<Cleared, String>> {
        self.view.forget_module(wanted)
    }

    fn obey(&self, order: &Order) -> Obeyed {
        let (answer, outcome) = bounded(1);
        let refused = || Obeyed::Failed("the daemon is busy or about to end".to_owned());
        if self.orders.try_send((order.clone(), Some(answer))).is_err() {
            return refused();
        }
        outcome.recv().unwrap_or_else(|_| refused())
    }
}
