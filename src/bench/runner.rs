//! Runs programs and measures them: wall time, processor time of both ends, peak memory.

use super::BenchError;
use super::cleanup::Workspace;
use super::link::{Emulator, Side};
use crate::net::Congestion;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a daemon may take to come up, and what it started to go away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often memory is looked at; what is read is the kernel's own high-water mark.
const SAMPLE: Duration = Duration::from_millis(20);

/// Where programs run.
#[derive(Debug)]
pub struct Stage {
    /// The link between both sides.
    pub emulator: Emulator,
    /// Files and processes.
    pub workspace: Workspace,
    /// How driftless controls congestion.
    pub congestion: Congestion,
    /// Further options of driftless's sender in live scenarios.
    pub send_with: Vec<String>,
}

/// A program that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// From start to end.
    pub wall: Duration,
    /// Processor time of it and of what it started and waited for.
    pub cpu: Duration,
    /// Peak memory of the largest of these processes, in bytes.
    pub peak: Option<u64>,
    /// What it wrote to standard output.
    pub output: String,
}

impl Stage {
    /// Runs a command on side A to its end; anything but success is an error with the end of what it said.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, command: Command) -> Result<Finished, BenchError> {
        self.run_on(Side::A, command)
    }

    /// The same on a side of choice. On side B the far end is reached without the link between.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run_on(&self, side: Side, mut command: Command) -> Result<Finished, BenchError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let (out, err) = (
            self.workspace.path().join("run.out"),
            self.workspace.path().join("run.err"),
        );
        redirect(&mut command, &out, &err)?;
        self.emulator.side(side).attach(&mut command);
        let began = Instant::now();
        let child = self
            .workspace
            .spawn(&mut command)
            .map_err(|error| BenchError::new(format!("cannot start {name}: {error}")))?;
        let memory = MemoryWatch::start(child.id());
        let (status, usage) = wait(child.id())?;
        let wall = began.elapsed();
        self.workspace.forget(child.id());
        // The kernel counts what the child was before it became that program, a copy of this process, as its own.
        let own = high_water_mark(std::process::id());
        let peak = if usage.peak > own {
            Some(usage.peak)
        } else {
            memory.finish()
        };
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let output = read(&out).unwrap_or_default();
        if status != 0 {
            let said = read(&err).unwrap_or_default();
            return Err(BenchError::new(format!(
                "{name} failed ({}): {}",
                describe(status),
                tail(&said)
            )));
        }
        Ok(Finished {
            wall,
            cpu: usage.cpu,
            peak,
            output,
        })
    }

    /// Starts a daemon on a side. What it says goes to files of that name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn daemon(&self, side: Side, name: &str, mut command: Command) -> Result<Daemon, BenchError> {
        let (out, err) = (
            self.workspace.path().join(format!("{name}.out")),
            self.workspace.path().join(format!("{name}.err")),
        );
        redirect(&mut command, &out, &err)?;
        self.emulator.side(side).attach(&mut command);
        let child = self
            .workspace
            .spawn(&mut command)
            .map_err(|error| BenchError::new(format!("cannot start {name}: {error}")))?;
        Ok(Daemon {
            name: name.to_owned(),
            child,
            out,
            err,
            workspace: self.workspace.clone(),
        })
    }
}

/// Runs a command outside any stage and gives the processor time of it and of what it started, and its output.
///
/// # Errors
/// When it cannot be started or fails.
pub fn cpu_of(mut command: Command) -> Result<(Duration, String), BenchError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| BenchError::new(format!("cannot start {name}: {error}")))?;
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        let _ = stdout.read_to_string(&mut output);
    }
    match wait(child.id())? {
        (0, usage) => Ok((usage.cpu, output)),
        (status, _) => Err(BenchError::new(format!("{name} failed ({})", describe(status)))),
    }
}

fn redirect(command: &mut Command, out: &Path, err: &Path) -> Result<(), BenchError> {
    let create = |path: &Path| File::create(path).map_err(|error| BenchError::io("write", path, &error));
    command
        .stdin(Stdio::null())
        .stdout(create(out)?)
        .stderr(create(err)?);
    Ok(())
}

struct Usage {
    cpu: Duration,
    peak: u64,
}

/// Waits for a child and takes its resource usage, which includes that of the children it waited for.
fn wait(id: u32) -> Result<(i32, Usage), BenchError> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live values of the right types.
        let got = unsafe { libc::wait4(id as libc::pid_t, &mut status, 0, &mut usage) };
        if got == id as libc::pid_t {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(BenchError::new(format!("cannot wait for a process: {error}")));
        }
    }
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    Ok((
        status,
        Usage {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            peak: usage.ru_maxrss as u64 * 1024,
        },
    ))
}

fn describe(status: i32) -> String {
    if libc::WIFEXITED(status) {
        format!("status {}", libc::WEXITSTATUS(status))
    } else {
        format!("signal {}", libc::WTERMSIG(status))
    }
}

/// The last lines of what a program said.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n    ")
}

/// A daemon that was started here; dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    workspace: Workspace,
}

impl Daemon {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said on standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        tail(&fs::read_to_string(&self.err).unwrap_or_default())
    }

    /// Everything that it wrote to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Ends it without giving it a chance to do anything, and everything in its process group.
    pub fn kill(self) {
        // SAFETY: plain system call; the child was not waited for, so its id is not another's.
        unsafe { libc::kill(-(self.id() as i32), libc::SIGKILL) };
    }

    /// Waits until `ready` makes something of what it wrote to standard output so far.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn wait_until<T>(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, BenchError> {
        let began = Instant::now();
        loop {
            if let Some(found) = ready(&fs::read_to_string(&self.out).unwrap_or_default()) {
                return Ok(found);
            }
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Err(BenchError::new(format!(
                    "{} ended at once: {}",
                    self.name,
                    self.complaints()
                )));
            }
            if began.elapsed() > patience {
                return Err(BenchError::new(format!(
                    "{} is not ready: {}",
                    self.name,
                    self.complaints()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it listens on a TCP port.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub fn wait_for_port(&mut self, port: u16) -> Result<(), BenchError> {
        let wanted = format!(":{port:04X} 00000000:0000 0A");
        let id = self.id();
        self.wait_until(PATIENCE, |_| {
            // The table is that of the process's own network, and on loop that is shared with everybody.
            let table = fs::read_to_string(format!("/proc/{id}/net/tcp")).ok()?;
            let line = table.lines().find(|line| line.contains(&wanted))?;
            let inode = line.split_whitespace().nth(9)?;
            holds_socket(id, inode).then_some(())
        })
    }

    /// Waits until nothing that it started is left.
    pub fn wait_for_children(&self) {
        let began = Instant::now();
        while family(self.id()).len() > 1 && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Processor time of it and of the children it waited for, in steps of a clock tick.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Watches the memory of it and of what it starts, until dropped.
    #[must_use]
    pub fn watch_memory(&self) -> MemoryWatch {
        // Starts the high-water mark anew.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.id()), "5");
        MemoryWatch::start(self.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.workspace.end(&mut self.child);
    }
}

/// Whether a process has the socket of that inode open.
fn holds_socket(id: u32, inode: &str) -> bool {
    let wanted = format!("socket:[{inode}]");
    let open = fs::read_dir(format!("/proc/{id}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    open.into_iter()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}

/// A process and all its descendants.
pub(super) fn family(id: u32) -> Vec<u32> {
    let mut found = vec![id];
    let mut at = 0;
    while at < found.len() {
        let tasks = fs::read_dir(format!("/proc/{}/task", found[at]));
        for task in tasks.into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
        at += 1;
    }
    found
}

/// Peak memory of the largest process of a family.
#[derive(Debug)]
pub struct MemoryWatch {
    peaks: Arc<Mutex<BTreeMap<u32, u64>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Watches a process and what it starts, until dropped.
    pub(super) fn start(root: u32) -> MemoryWatch {
        let (peaks, stop) = (
            Arc::new(Mutex::new(BTreeMap::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let work = {
            let (peaks, stop) = (peaks.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::park_timeout(SAMPLE);
                    look(root, &peaks);
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("bench-memory".to_owned())
            .spawn(work)
            .ok();
        MemoryWatch { peaks, stop, thread }
    }

    /// The peak of the largest process, in bytes.
    #[must_use]
    pub fn finish(mut self) -> Option<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.peaks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .copied()
            .max()
            .filter(|peak| *peak > 0)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(root: u32, peaks: &Mutex<BTreeMap<u32, u64>>) {
    for id in family(root) {
        let peak = high_water_mark(id);
        let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peaks.entry(id).or_default();
        *known = peak.max(*known);
    }
}

/// The most memory that a process had resident since it became the program it is, in bytes.
fn high_water_mark(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

/// Where a program is: in the search path, or where administrators' programs are.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = [
        "/usr/sbin",
        "/usr/local/sbin",
        "/sbin",
        "/usr/bin",
        "/usr/local/bin",
    ]
    .map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The first line a program prints when called with these arguments, for the report.
#[must_use]
pub fn version(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}

/// A TCP port that is free now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16, BenchError> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0");
    let address = listener.and_then(|listener| listener.local_addr());
    address
        .map(|address| address.port())
        .map_err(|error| BenchError::new(format!("no free TCP port: {error}")))
}
