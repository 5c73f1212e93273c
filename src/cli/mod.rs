//! The command line: one file per command.
//!
//! A command is parsed into what the user typed, turned into the options of daemons, and run; nothing happens in between.
//! The contract is section "Command line" of the design: scripts depend on flags, exit statuses, on the JSON, and on
//! the last word of `driftless id`.

mod accounts;
mod appearance;
mod approve;
mod ask;
mod bench;
mod comparing;
mod config;
mod confinement;
mod daemon;
mod deadline;
mod divergence;
mod ending;
mod events;
mod fencing;
mod filtering;
mod forget;
mod hooking;
mod hooks;
mod hosts;
mod id;
mod import_lsyncd;
mod invite;
mod keeping;
mod launch;
mod logging;
mod looking;
mod lookups;
mod manual;
mod metadata;
mod mirror;
mod narrate;
mod network;
mod offering;
mod orders;
mod origin;
mod output;
mod pair;
mod peers;
mod previous;
mod priority;
mod publishing;
mod receive;
mod reporting;
mod seed;
mod send;
mod serve;
mod status;
mod target;
mod text;
mod timing;
mod transport;
mod trash;
mod upkeep;
mod verify;
mod view;
mod wait;
mod writing;

use crate::daemon::DaemonError;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// 0: done, in sync and durable.
const DONE: u8 = 0;
/// 1: failed.
const FAILED: u8 = 1;
/// 2: usage or configuration.
const USAGE: u8 = 2;
/// 3: finished, but some entries are in error.
const SOME_FAILED: u8 = 3;
/// 4: the trees differ.
const DIFFERENT: u8 = 4;
/// 5: timed out.
const TIMED_OUT: u8 = 5;
/// 130: interrupted, as a shell says it.
const INTERRUPTED: u8 = 130;

const AFTER_HELP: &str = "\
A TARGET is HOST::MODULE[/PATH] or driftless://[FINGERPRINT@]HOST:PORT/MODULE[/PATH], IPv6 addresses in brackets.
SRC means its contents, with or without a slash at its end.

Exit status:
  0  done, in sync and durable
  1  failed
  2  usage or configuration
  3  finished, but some entries are in error (each is reported)
  4  the trees differ (verify)
  5  the time was over: wait, or --stop-after and --stop-at before all was done

Environment:
  DRIFTLESS_HOME  directory of identity, trust and state, in place of the XDG directories (for root: of /etc/driftless,
                  /var/lib/driftless and /run/driftless)
  RUST_LOG        what is logged to standard error, in place of -v";

/// Keeps directory trees on other machines identical to the one here, continuously, over any network.
#[derive(Debug, Parser)]
#[command(name = "driftless", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    logging: logging::LoggingArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Shown(Box<Shown>),
    #[command(flatten)]
    Inner(Inner),
}

// What users call. (No comment of documentation: it would become that of the program.)
#[derive(Debug, Subcommand)]
enum Shown {
    Mirror(Box<mirror::MirrorArgs>),
    Receive(receive::ReceiveArgs),
    Send(send::SendCommandArgs),
    Serve(Box<serve::ServeArgs>),
    Seed(seed::SeedArgs),
    Verify(verify::VerifyArgs),
    Forget(forget::ForgetArgs),
    Status(status::StatusArgs),
    Wait(wait::WaitArgs),
    Checkpoint(ask::CheckpointArgs),
    Explain(ask::ExplainArgs),
    Rescan(ask::RescanArgs),
    Events(events::EventsArgs),
    Approve(approve::ApproveArgs),
    Promote(fencing::PromoteArgs),
    Demote(fencing::DemoteArgs),
    Trash(trash::TrashArgs),
    Id(id::IdArgs),
    Peers(peers::PeersArgs),
    Daemon(daemon::DaemonArgs),
    Config(config::ConfigArgs),
    ImportLsyncd(import_lsyncd::ImportLsyncdArgs),
    Reload(orders::ReloadArgs),
    Pause(orders::PauseArgs),
    Resume(orders::ResumeArgs),
    Stop(orders::StopArgs),
    Start(orders::StartArgs),
    Invite(invite::InviteArgs),
    Pair(pair::PairArgs),
    Completions(manual::CompletionsArgs),
    Bench(Box<bench::BenchArgs>),
}

// What the program calls itself, or who packs it: neither in the help nor in completions and manual pages.
#[derive(Debug, Subcommand)]
enum Inner {
    #[command(hide = true)]
    ManPages(manual::ManPagesArgs),
    #[command(hide = true)]
    Accounts(accounts::AccountsArgs),
    #[command(hide = true)]
    Lookups(lookups::LookupsArgs),
    #[command(hide = true)]
    Transport(transport::TransportArgs),
    #[command(hide = true)]
    Hooks(hooking::HooksArgs),
}

/// Why a command ended without having done its work.
#[derive(Debug)]
enum CliError {
    /// It failed: status 1.
    Failed(String),
    /// It was called or configured wrongly: status 2.
    Usage(String),
}

impl CliError {
    fn failed(text: impl Into<String>) -> CliError {
        CliError::Failed(text.into())
    }

    fn usage(text: impl Into<String>) -> CliError {
        CliError::Usage(text.into())
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> CliError {
        if error.exit_status() == USAGE {
            CliError::usage(error.to_string())
        } else {
            CliError::failed(error.to_string())
        }
    }
}

/// These speak of files that the user owns and wrote.
macro_rules! configuration_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> CliError {
                CliError::usage(error.to_string())
            }
        }
    )*};
}

configuration_errors!(
    crate::daemon::home::HomeError,
    driftless_certs::IdentityError,
    driftless_certs::TrustError,
    driftless_certs::CodeError,
    target::TargetError
);

macro_rules! failures {
    ($($error:ty),*) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> CliError {
                CliError::failed(error.to_string())
            }
        }
    )*};
}

failures!(
    crate::daemon::control::ControlError,
    driftless_certs::InviteError,
    driftless_certs::TlsError
);

/// What `driftless config check` says of a text, fault by fault; nothing if it is a correct configuration. For those who make
/// configurations, and for tests of all that can stand in one: nothing is started.
pub fn configuration_faults(text: &str) -> Vec<String> {
    let faults = config::check_text(text, "the configuration").err();
    let told = faults.into_iter().flatten();
    told.map(|fault| fault.0).collect()
}

/// The program: parses the arguments, runs the command, and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::daemon::status::process_start();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output; whether anybody reads them is not our business.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let logging = logging::start(&cli.logging, cli.command.is_daemon());
    let outcome = logging.and_then(|()| cli.command.run(cli.logging.verbose));
    let status = match outcome {
        Ok(status) => status,
        Err(CliError::Failed(text)) => complain(&text, FAILED),
        Err(CliError::Usage(text)) => complain(&text, USAGE),
    };
    match output::failure() {
        Some(error) => ExitCode::from(complain(
            &format!("cannot write to standard output: {error}"),
            FAILED.max(status),
        )),
        None => ExitCode::from(status),
    }
}

impl Command {
    fn run(&self, verbose: u8) -> Result<u8, CliError> {
        // A benchmark measures its own processes, and has no key.
        if !matches!(self, Command::Shown(command) if matches!(**command, Shown::Bench(_))) {
            crate::confine::keep_memory_private();
        }
        match self {
            Command::Shown(command) => command.run(verbose),
            Command::Inner(Inner::ManPages(args)) => args.run(),
            Command::Inner(Inner::Accounts(args)) => args.run(),
            Command::Inner(Inner::Lookups(args)) => args.run(),
            Command::Inner(Inner::Transport(args)) => args.run(),
            Command::Inner(Inner::Hooks(args)) => args.run(),
        }
    }
}

impl Shown {
    fn run(&self, verbose: u8) -> Result<u8, CliError> {
        match self {
            Shown::Mirror(args) => args.run(verbose),
            Shown::Receive(args) => args.run(verbose),
            Shown::Send(args) => args.run(verbose),
            Shown::Serve(args) => args.run(verbose),
            Shown::Seed(args) => args.run(verbose),
            Shown::Verify(args) => args.run(),
            Shown::Forget(args) => args.run(),
            Shown::Status(args) => args.run(),
            Shown::Wait(args) => args.run(),
            Shown::Checkpoint(args) => args.run(),
            Shown::Explain(args) => args.run(),
            Shown::Rescan(args) => args.run(),
            Shown::Events(args) => args.run(),
            Shown::Approve(args) => args.run(),
            Shown::Promote(args) => args.run(),
            Shown::Demote(args) => args.run(),
            Shown::Trash(args) => args.run(),
            Shown::Id(args) => args.run(),
            Shown::Peers(args) => args.run(),
            Shown::Daemon(args) => args.run(verbose),
            Shown::Config(args) => args.run(),
            Shown::ImportLsyncd(args) => args.run(),
            Shown::Reload(args) => args.run(),
            Shown::Pause(args) => args.run(),
            Shown::Resume(args) => args.run(),
            Shown::Stop(args) => args.run(),
            Shown::Start(args) => args.run(),
            Shown::Invite(args) => args.run(),
            Shown::Pair(args) => args.run(),
            Shown::Completions(args) => args.run(),
            Shown::Bench(args) => args.run(),
        }
    }
}

impl Command {
    /// Whether it runs until it is stopped, so that what happens belongs into its log.
    fn is_daemon(&self) -> bool {
        let Command::Shown(command) = self else {
            return false;
        };
        matches!(
            **command,
            Shown::Receive(_) | Shown::Send(_) | Shown::Serve(_) | Shown::Daemon(_)
        )
    }
}

fn complain(text: &str, status: u8) -> u8 {
    output::note(text);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_forms_of_the_contract_are_accepted() {
        for line in [
            "driftless mirror a b --once --delete never --accept-root --json -q",
            "driftless mirror a b -v",
            "driftless receive dir --module m --listen 127.0.0.1:0",
            "driftless send a nas::m other::m --delete always --port 5000 -v",
            "driftless seed a nas::m",
            "driftless verify a b --json",
            "driftless forget www",
            "driftless forget a nas::m --with-trash --json",
            "driftless forget --module m --dir d",
            "driftless verify a b --divergence --json",
            "driftless status --json",
            "driftless status --watch --json",
            "driftless id",
            "driftless id --rotate",
            "driftless id --import key.pem",
            "driftless peers list --json",
            "driftless peers remove nas",
            "driftless invite --module m --expires 10m --address nas:1 --address nas:2",
            "driftless pair code",
            "driftless daemon",
            "driftless daemon --config /etc/x.toml --pid-file /run/x.pid --max-transfers 4 --json -v",
            "driftless config check",
            "driftless config show --config x.toml --json",
            "driftless import-lsyncd /etc/lsyncd.conf.lua",
            "driftless import-lsyncd x.lua -o y.toml --json",
            "driftless promote m",
            "driftless demote m",
            "driftless reload",
            "driftless wait --timeout 5m",
            "driftless wait a/b --mirror www --level applied --targets 2 --timeout 30s --json",
            "driftless checkpoint",
            "driftless checkpoint v1 --mirror www --json",
            "driftless checkpoint v1 --remove",
            "driftless explain a/b --json",
            "driftless rescan a/b",
            "driftless events --mirror www",
            "driftless daemon --log-format json",
            "driftless pause www",
            "driftless start www",
            "driftless receive dir --drift keep --trash 7d --preallocate",
            "driftless send a nas::m --ignore-existing --ignore-non-existing -u -W",
            "driftless mirror a b --backup --backup-dir old --suffix .1",
            "driftless trash list dir sub/file --json",
            "driftless trash restore dir file --from 20261121T142703Z --to elsewhere",
            "driftless trash empty dir --older-than 7d --kept",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "driftless",
            "driftless mirror a",
            "driftless send a",
            "driftless seed a b c",
            "driftless mirror a b --delete sometimes",
            "driftless mirror a b -q -v",
            "driftless seed a b --port 0",
            "driftless id --rotate --export",
            "driftless frobnicate",
            "driftless config",
            "driftless import-lsyncd",
            "driftless pause",
            "driftless wait",
            "driftless wait --level soon --timeout 1s",
            "driftless wait --targets 0 --timeout 1s",
            "driftless checkpoint --remove",
            "driftless forget",
            "driftless forget a --module m",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert!(matches!(error.exit_code(), 2), "{line}");
        }
    }

    #[test]
    fn paths_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"/a/\xff".to_vec());
        let cli = Cli::try_parse_from(["driftless".into(), "mirror".into(), odd.clone(), odd]).unwrap();
        assert!(matches!(cli.command, Command::Shown(command) if matches!(*command, Shown::Mirror(_))));
    }
}
