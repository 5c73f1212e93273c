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

/// An ext4 without a journal, as it is called here.
const NO_JOURNAL: &str = "ext4 without a journal";

/// The type of the file system of a directory, by the longest mount point above it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        directory
            .starts_with(point)
            .then(|| (point.len(), device, kind.to_owned()))
    });
    match above.max_by_key(|(length, ..)| *length) {
        Some((_, device, kind)) if kind == "ext4" && !has_journal(device) => NO_JOURNAL.to_owned(),
        Some((.., kind)) => kind,
        None => "unknown".to_owned(),
    }
}

/// Whether an ext4 has a journal, as far as the kernel tells.
fn has_journal(device: &str) -> bool {
    let name = device.rsplit('/').next().unwrap_or(device);
    let task = fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task"));
    task.map_or(true, |task| task.trim() != "<none>")
}

impl Machine {
    /// What is known of the copies' file system that distorts figures.
    #[must_use]
    pub fn caution(&self) -> Option<String> {
        // recently_deleted() in the kernel's fs/ext4/ialloc.c.
        (self.target_file_system == NO_JOURNAL).then(|| {
            "copies are on ext4 without a journal, which keeps inodes unused for minutes after they were given back, and \
             passes over each of them whenever a file is made: right after the removal of many files, as between runs, \
             each tool's making of many files costs more than elsewhere; --target-fs ext4 takes a new file system with a \
             journal"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_file_systems_are_known() {
        assert_eq!(file_system(Path::new("/proc/self")), "proc");
        assert!(has_journal("/dev/no such device"));
    }
}
