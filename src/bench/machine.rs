//! What the numbers were measured on.

use super::link::{Emulator, Link, Side};
use super::rsync;
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
    /// File system that the source is on.
    pub file_system: String,
    /// File system that the copies are on.
    pub target_file_system: String,
    /// TCP congestion control that rsync runs with, where its row says nothing else.
    pub tcp: String,
    /// Version of driftless.
    pub driftless: String,
    /// Version of rsync.
    pub rsync: Option<String>,
    /// Version of ssh.
    pub ssh: Option<String>,
    /// Version of lsyncd.
    pub lsyncd: Option<String>,
}

impl Machine {
    /// Looks around.
    #[must_use]
    pub fn look(emulator: &Emulator, source: &Path, copies: &Path, tcp: Option<&String>) -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let model =
            field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let tcp = tcp.cloned().unwrap_or_else(|| match emulator.link() {
            Link::Loop => read("/proc/sys/net/ipv4/tcp_congestion_control")
                .trim()
                .to_owned(),
            Link::Wan(_) => emulator
                .side(Side::A)
                .tcp_settings()
                .map_or_else(|_| "unknown".to_owned(), |tcp| tcp.congestion_control),
        });
        Machine {
            processor: format!("{cores} x {model}"),
            memory: memory("MemTotal").unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(source),
            target_file_system: file_system(copies),
            tcp,
            driftless: env!("CARGO_PKG_VERSION").to_owned(),
            rsync: rsync::installed(),
            ssh: version("ssh", &["-V"]),
            lsyncd: version("lsyncd", &["-version"]).map(|text| text.replace("Version:", "lsyncd")),
        }
    }
}

/// The value of a line `NAME: value` as the kernel writes it.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line of the kernel's account of memory, in bytes.
fn memory(name: &str) -> Option<u64> {
    let kilobytes = field(&fs::read_to_string("/proc/meminfo").ok()?, name)?;
    Some(kilobytes.trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Bytes of memory that can be used without swapping.
#[must_use]
pub fn available_memory() -> Option<u64> {
    memory("MemAvailable")
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
