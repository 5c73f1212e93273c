//! Everything that an end that writes can be told: what it takes, and what becomes of what it replaces.

use super::CliError;
use super::keeping::KeepingArgs;
use super::metadata::MetadataArgs;
use crate::daemon::ModuleOptions;
use clap::Args;
use std::path::PathBuf;

/// Options of a module, or of a directory on this machine as a target.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct WritingArgs {
    #[command(flatten)]
    pub(super) metadata: MetadataArgs,
    #[command(flatten)]
    pub(super) keeping: KeepingArgs,
}

impl WritingArgs {
    /// The module of this name at `path`.
    pub(super) fn module(&self, name: String, path: PathBuf) -> Result<ModuleOptions, CliError> {
        Ok(ModuleOptions {
            keeping: self.keeping.keeping()?,
            preallocate: self.keeping.preallocates(),
            inplace: self.keeping.writes_in_place(),
            ..self.metadata.module(name, path)
        })
    }

    /// Whether all of it can be: clap does not look into values.
    pub(super) fn check(&self) -> Result<(), CliError> {
        self.keeping.keeping().map(drop)
    }
}
