//! The configuration file, and `driftless config`: what it holds, and whether it is right.
//!
//! Every key is the long name of an option of `driftless send` or `driftless receive`, and its value is read by the same
//! code (see [`schema`]), into the same structs. A new option is a new key without a line written here.

mod plan;
mod read;
mod relations;
mod schema;
mod show;

pub(super) use plan::{
    Configuration, EndpointOptions, Mirror, Module, check_text, keys_of_mirrors_and_modules, load,
};
pub(super) use read::Fault;

use super::launch::{Destination, destination, existing_directory};
use super::receive::tree_of;
use super::text::{count, escaped};
use super::{CliError, DONE, USAGE, output};
use crate::daemon::home::Home;
use crate::daemon::status::STATUS_VERSION;
use clap::{Args, Subcommand};
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Check or show the configuration of `driftless daemon`
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say what is wrong with it: each fault with its line
    Check(FileArg),
    /// Print it as it takes effect, with where each value comes from
    Show {
        #[command(flatten)]
        file: FileArg,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which file.
#[derive(Debug, Clone, Args)]
pub(super) struct FileArg {
    /// The configuration [default: driftless.toml in /etc/driftless for root, in $DRIFTLESS_HOME if that is set, in
    /// ~/.config/driftless otherwise]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArg {
    /// Where it is.
    pub(super) fn path(&self, home: &Home) -> PathBuf {
        match &self.config {
            // A reload long after may find another working directory.
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            None => home.config_file(),
        }
    }
}

impl ConfigArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        match &self.action {
            Action::Check(file) => {
                let path = file.path(&home);
                match load(&path) {
                    Ok(configuration) => {
                        configuration.warn(&home);
                        output::line(&format!(
                            "{}: correct; {}, {}",
                            escaped(&path),
                            configuration.tally(),
                            count(configuration.modules.len() as u64, "module", "modules")
                        ));
                        Ok(DONE)
                    }
                    Err(faults) => Ok(complain(&faults)),
                }
            }
            Action::Show { file, json } => match load(&file.path(&home)) {
                Ok(configuration) if *json => {
                    let mut value = show::json(&configuration);
                    value["version"] = json!(STATUS_VERSION);
                    output::json(&value);
                    Ok(DONE)
                }
                Ok(configuration) => {
                    output::raw(&show::text(&configuration));
                    Ok(DONE)
                }
                Err(faults) => Ok(complain(&faults)),
            },
        }
    }
}

/// Tells each fault in a line of its own.
pub(super) fn complain(faults: &[Fault]) -> u8 {
    faults.iter().for_each(|fault| output::note(&fault.0));
    USAGE
}

impl Configuration {
    /// How many mirrors there are, and how many trees if there are any.
    pub(super) fn tally(&self) -> String {
        let trees = self.trees().len() as u64;
        let mirrors = count(self.mirrors.len() as u64 - trees, "mirror", "mirrors");
        match trees {
            0 => mirrors,
            trees => format!("{mirrors}, {}", count(trees, "tree", "trees")),
        }
    }

    /// What may well be right by the time that a daemon needs it: a daemon says the same, and tries again.
    fn warn(&self, home: &Home) {
        for mirror in &self.mirrors {
            let send = &mirror.options.send;
            let source = send.origin("send", &mirror.source);
            let source = source.and_then(|origin| send.filter(&origin).map(drop));
            warn(&mirror.name, source);
            for word in &mirror.targets {
                let found = destination(word, mirror.port_for(word), home);
                let found = found.and_then(|found| match found {
                    Destination::Directory(path) => existing_directory("mirror to", &path).map(drop),
                    Destination::Target(_) => Ok(()),
                });
                warn(&mirror.name, found);
            }
        }
        for hook in &self.hooks {
            warn("hook", check_program(&hook.options.command));
        }
        for module in &self.modules {
            warn(
                &module.name,
                existing_directory("receive into", &module.path).map(drop),
            );
            let from = module.from.as_ref().map(|word| tree_of(word, home));
            warn(&module.name, from.transpose().map(drop));
        }
    }
}

/// Whether the first word of a command is a program that can be run.
fn check_program(command: &[OsString]) -> Result<(), CliError> {
    let Some(program) = command.first().map(Path::new) else {
        return Ok(());
    };
    let can_run = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let is_there = match program.components().count() {
        // Without a slash it is looked for as a shell does.
        1 if !program.is_absolute() => std::env::var_os("PATH")
            .is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| can_run(&dir.join(program)))),
        _ => can_run(program),
    };
    match is_there {
        true => Ok(()),
        false => Err(CliError::failed(format!(
            "{} is no program that can be run here",
            escaped(program)
        ))),
    }
}

fn warn(name: &str, outcome: Result<(), CliError>) {
    if let Err(CliError::Failed(text) | CliError::Usage(text)) = outcome {
        output::note(&format!("warning: {name}: {text}"));
    }
}
