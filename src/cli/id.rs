//! `driftless id`: who this machine is to its peers.

use super::text::escaped;
use super::{CliError, DONE, output};
use crate::daemon::home::Home;
use crate::daemon::status::STATUS_VERSION;
use clap::Args;
use driftless_certs::{Fingerprint, Identity};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A key is some hundred bytes; this is room for comments.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Print this identity's fingerprint, as the last word of the output
#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Print the private key: whoever has it is this machine
    #[arg(long, group = "action")]
    export: bool,
    /// Take over a key made by --export; `-` reads standard input
    #[arg(long, group = "action", value_name = "FILE")]
    import: Option<PathBuf>,
    /// Make a new key; peers have to be told
    #[arg(long, group = "action")]
    rotate: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "export")]
    json: bool,
}

impl IdArgs {
    pub(super) fn run(&self) -> Result<u8, CliError> {
        let home = Home::discover()?;
        let dir = home.identity_dir();
        if self.export {
            let identity = Identity::load_or_create(&dir)?;
            output::note("this is a private key: whoever has it is this machine to all its peers");
            output::raw(&identity.export_pem());
            return Ok(DONE);
        }
        let mut old = None;
        let fingerprint = if let Some(file) = &self.import {
            Identity::import(&dir, &read_key(file)?)?.fingerprint()
        } else if self.rotate {
            let rotation = Identity::rotate(&dir)?;
            output::note(
                "peers still know the old identity: pair with them again, and restart daemons of this home",
            );
            old = Some(rotation.old);
            rotation.new
        } else {
            Identity::load_or_create(&dir)?.fingerprint()
        };
        self.tell(&home, fingerprint, old);
        Ok(DONE)
    }

    fn tell(&self, home: &Home, fingerprint: Fingerprint, old: Option<Fingerprint>) {
        let (home, fingerprint) = (home.to_string(), fingerprint.to_string());
        let old = old.map(|old| old.to_string());
        if self.json {
            output::json(
                &json!({"version": STATUS_VERSION, "home": home, "fingerprint": fingerprint, "old": old}),
            );
            return;
        }
        if let Some(old) = old {
            output::line(&format!("old identity {old}"));
        }
        output::line(&format!("identity {fingerprint}"));
    }
}

fn read_key(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| CliError::failed(format!("cannot read the key {}: {error}", escaped(file))))?;
    Ok(text)
}
