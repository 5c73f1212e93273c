//! What the numbers were measured on.

use super::link::{Emulator, Link, Side};
use super::runner::version;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Machine, programs and settings.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Processor and number of cores.
    pub processor: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Kernel release.
    pub kernel: String,
    /// File system that source and copies are on.
    pub file_system: String,
    /// TCP congestion control that rsync runs with.
    pub tcp: String,
    /// Version of driftless.
    pub driftless: String,
    /// Version of rsync.
    pub rsync: Option<String>,
    /// Version of ssh.
    pub ssh: Option<String>,
}

impl Machine {
    /// Looks around.
    #[must_use]
    pub fn look(emulator: &Emulator, directory: &Path) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let model =
            field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let tcp = match emulator.link() {
            Link::Loop => read("/proc/sys/net/ipv4/tcp_congestion_control")
                .trim()
                .to_owned(),
            Link::Wan(_) => emulator
                .side(Side::A)
                .tcp_settings()
                .map_or_else(|_| "unknown".to_owned(), |tcp| tcp.congestion_control),
        };
        Machine {
            processor: format!("{cores} x {model}"),
            memory: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(directory),
            tcp,
            driftless: env!("CARGO_PKG_VERSION").to_owned(),
            rsync: version("rsync", &["--version"]),
            ssh: version("ssh", &["-V"]),
        }
    }
}

/// The type of the file system of a directory, by the longest mount point above it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        directory
            .starts_with(point)
            .then(|| (point.len(), kind.to_owned()))
    });
    above
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}
