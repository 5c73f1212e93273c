//! What a receiving end takes of metadata.

use crate::daemon::keeping::Keeping;
use crate::daemon::upkeep::Upkeep;
use crate::daemon::{KeptAs, ModuleOptions};
use crate::engine::hosts::Hosts;
use clap::{Args, ValueEnum};
use driftless_protocol::XattrClasses;
use std::path::PathBuf;

/// Options of the end that writes.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct MetadataArgs {
    /// Also take extended attributes of these namespaces (needs root; user.*, ACLs and capabilities are always taken)
    #[arg(long, value_name = "NAMESPACE,...", value_delimiter = ',')]
    allow_xattrs: Vec<Namespace>,
    /// Take no devices, even as root
    #[arg(long)]
    no_devices: bool,
    /// Write the content of files to the block devices that stand at their places here, which is not atomic. Sizes must be
    /// equal; a device that is mounted is refused; what comes is complete beside it before the first block is written
    #[arg(long)]
    write_devices: bool,
}

/// A namespace that is closed unless it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Namespace {
    /// security.*: the labels of security modules
    Security,
    /// trusted.*
    Trusted,
}

impl MetadataArgs {
    /// What a module at `path` takes.
    pub(super) fn module(&self, name: String, path: PathBuf) -> ModuleOptions {
        ModuleOptions {
            name,
            path,
            xattrs: self.xattrs(),
            devices: !self.no_devices,
            keeping: Keeping::default(),
            preallocate: false,
            publish: Vec::new(),
            inplace: false,
            hosts: Hosts::default(),
            kept_as: KeptAs {
                written_devices: self.write_devices,
                ..KeptAs::default()
            },
            previous: None,
            upkeep: Upkeep::default(),
        }
    }

    /// Whether the content of files goes to devices.
    pub(super) fn writes_devices(&self) -> bool {
        self.write_devices
    }

    /// The extended attributes that are taken.
    fn xattrs(&self) -> XattrClasses {
        self.allow_xattrs
            .iter()
            .fold(XattrClasses::USUAL, |classes, namespace| {
                classes.union(match namespace {
                    Namespace::Security => XattrClasses::SECURITY,
                    Namespace::Trusted => XattrClasses::TRUSTED,
                })
            })
    }
}
