//! Everything that an end that writes can be told: what it takes, and what becomes of what it replaces.

use super::CliError;
use super::hosts::HostsArgs;
use super::keeping::KeepingArgs;
use super::metadata::MetadataArgs;
use super::offering::KeptAsArgs;
use super::publishing::PublishArgs;
use super::upkeep::UpkeepArgs;
use crate::daemon::ModuleOptions;
use crate::daemon::keeping::Drift;
use clap::Args;
use std::path::PathBuf;

/// Options of a module, or of a directory on this machine as a target.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct WritingArgs {
    #[command(flatten)]
    pub(super) metadata: MetadataArgs,
    #[command(flatten)]
    pub(super) keeping: KeepingArgs,
    #[command(flatten)]
    pub(super) publishing: PublishArgs,
    #[command(flatten)]
    pub(super) upkeep: UpkeepArgs,
}

/// Options of a module that is offered to other machines.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OfferArgs {
    #[command(flatten)]
    pub(super) writing: WritingArgs,
    #[command(flatten)]
    pub(super) hosts: HostsArgs,
    #[command(flatten)]
    kept_as: KeptAsArgs,
}

impl OfferArgs {
    /// The module of this name at `path`.
    pub(super) fn module(&self, name: String, path: PathBuf) -> Result<ModuleOptions, CliError> {
        let module = self.writing.module(name, path)?;
        Ok(ModuleOptions {
            hosts: self.hosts.hosts(),
            kept_as: self.kept_as.kept_as(module.kept_as)?,
            ..module
        })
    }

    /// As [`WritingArgs::check`].
    pub(super) fn check(&self) -> Result<(), CliError> {
        self.writing.check()
    }
}

impl WritingArgs {
    /// The module of this name at `path`.
    pub(super) fn module(&self, name: String, path: PathBuf) -> Result<ModuleOptions, CliError> {
        Ok(ModuleOptions {
            keeping: self.keeping.keeping()?,
            preallocate: self.keeping.preallocates(),
            inplace: self.keeping.writes_in_place(),
            publish: self.publishing.patterns(),
            upkeep: self.upkeep.upkeep(),
            ..self.metadata.module(name, path)
        })
    }

    /// Refuses what only a directory on this machine can be told.
    pub(super) fn check_far(&self) -> Result<(), CliError> {
        match self.metadata.writes_devices() {
            true => Err(CliError::usage(
                "--write-devices is for a directory on this machine (give it to `receive` over there)",
            )),
            false => Ok(()),
        }
    }

    /// Whether anything was asked for that is the far end's to decide.
    pub(super) fn is_given_there(&self) -> bool {
        self.keeping.is_given() || self.publishing.is_given() || self.upkeep.is_given()
    }

    /// Whether all of it can be: clap does not look into values.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let other = match self.keeping.keeping()?.drift {
            Drift::Keep | Drift::Refuse => Some("--drift"),
            Drift::Overwrite if self.keeping.writes_in_place() => Some("--inplace"),
            Drift::Overwrite => self.metadata.writes_devices().then_some("--write-devices"),
        };
        self.publishing.check(other)
    }
}
