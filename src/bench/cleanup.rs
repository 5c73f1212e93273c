//! One directory for everything, and the processes started from here; both go away however the bench ends.
//!
//! Only what was made here is touched: processes are ended by the ids of those started here, and only the directory
//! made here is removed. SIGKILL cannot be caught: then the directory stays, and its name says whose it is; mounts and
//! networks go even then, since nobody else holds their namespaces.

use super::BenchError;
use super::shared::SharedDirectory;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

#[derive(Debug, Default)]
struct Owned {
    /// Process groups, each led by a process that was started here and not waited for yet.
    groups: Vec<i32>,
    /// What is mounted below the directory, in that order.
    mounts: Vec<PathBuf>,
    /// A directory outside that other benches may use as well.
    shared: Option<SharedDirectory>,
    directory: PathBuf,
}

impl Owned {
    fn remove(&mut self) {
        for group in self.groups.drain(..) {
            // SAFETY: plain system call; the group's leader is a child that was not waited for, so its id is not
            // another's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        drop(self.shared.take());
        for path in self.mounts.drain(..).rev() {
            // Detached even while a killed process still holds a file there.
            let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        }
        // Killed processes may write for another moment.
        for _ in 0..20 {
            match fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(50))
                }
                _ => break,
            }
        }
    }
}

/// The bench's own directory. Dropping it, SIGINT and SIGTERM end the processes and remove it.
#[derive(Debug, Clone)]
pub struct Workspace {
    shared: Arc<Shared>,
    directory: PathBuf,
}

#[derive(Debug)]
struct Shared(Mutex<Owned>);

impl Shared {
    fn owned(&self) -> MutexGuard<'_, Owned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.owned().remove();
    }
}

impl Workspace {
    /// Makes the directory below `parent`. From then on a signal that ends the process cleans up first.
    ///
    /// # Errors
    /// When the directory cannot be made, or signals cannot be listened for.
    pub fn create(parent: &Path) -> Result<Workspace, BenchError> {
        let mut number = [0; 4];
        getrandom::fill(&mut number)
            .map_err(|error| BenchError::new(format!("no random numbers: {error}")))?;
        let name = format!("driftless-bench-{}", data_encoding::HEXLOWER.encode(&number));
        let parent = parent
            .canonicalize()
            .map_err(|error| BenchError::io("use", parent, &error))?;
        let directory = parent.join(name);
        let signals =
            Signals::catch().map_err(|error| BenchError::new(format!("cannot catch signals: {error}")))?;
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&directory)
            .map_err(|error| BenchError::io("make", &directory, &error))?;
        let owned = Owned {
            directory: directory.clone(),
            ..Owned::default()
        };
        let shared = Arc::new(Shared(Mutex::new(owned)));
        signals
            .clean_up(Arc::downgrade(&shared))
            .map_err(|error| BenchError::new(format!("cannot catch signals: {error}")))?;
        Ok(Workspace { shared, directory })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// A new, empty directory in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf, BenchError> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).map_err(|error| BenchError::io("make", &path, &error))?;
        Ok(path)
    }

    /// Something was mounted below the directory.
    pub fn mounted(&self, path: &Path) {
        self.shared.owned().mounts.push(path.to_owned());
    }

    /// Keeps a shared directory until everything is removed.
    pub fn keep(&self, directory: SharedDirectory) {
        self.shared.owned().shared = Some(directory);
    }

    /// Whether a shared directory is kept.
    #[must_use]
    pub fn is_keeping(&self) -> bool {
        self.shared.owned().shared.is_some()
    }

    /// Makes the shared directory again if it is gone.
    pub fn renew_shared(&self) {
        if let Some(directory) = &mut self.shared.owned().shared {
            directory.renew();
        }
    }

    /// Starts a program in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut owned = self.shared.owned();
        let child = command.spawn()?;
        owned.groups.push(child.id() as i32);
        Ok(child)
    }

    /// A program was waited for: its id may be another's from now on.
    pub fn forget(&self, id: u32) {
        self.shared.owned().groups.retain(|group| *group != id as i32);
    }

    /// Ends a program that was started here, with what it started in its group.
    pub fn end(&self, child: &mut Child) {
        let id = child.id() as i32;
        // SAFETY: plain system calls; the child was not waited for, so its id is not another's.
        unsafe { libc::kill(-id, libc::SIGTERM) };
        for _ in 0..100 {
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if matches!(child.try_wait(), Ok(None)) {
            // SAFETY: as above.
            unsafe { libc::kill(-id, libc::SIGKILL) };
            let _ = child.wait();
        }
        self.forget(child.id());
    }
}

/// The signals that ask a process to end. They are caught before there is anything to clean up, so that none comes too early.
struct Signals {
    runtime: tokio::runtime::Runtime,
    caught: Vec<(i32, tokio::signal::unix::Signal)>,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let caught = {
            let _entered = runtime.enter();
            [
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ]
            .into_iter()
            .map(|kind| Ok((kind.as_raw_value(), signal(kind)?)))
            .collect::<io::Result<_>>()?
        };
        Ok(Signals { runtime, caught })
    }

    /// On a signal a thread removes everything and ends the process.
    fn clean_up(mut self, shared: Weak<Shared>) -> io::Result<()> {
        let work = move || {
            let number = self.runtime.block_on(std::future::poll_fn(|context| {
                let mut arrived = self
                    .caught
                    .iter_mut()
                    .filter_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
                arrived.next().map_or(Poll::Pending, Poll::Ready)
            }));
            let shared = shared.upgrade();
            // Held until the end: nothing is started any more.
            let mut owned = shared.as_ref().map(|shared| shared.owned());
            if let Some(owned) = &mut owned {
                owned.remove();
            }
            std::process::exit(128 + number);
        };
        std::thread::Builder::new()
            .name("bench-signals".to_owned())
            .spawn(work)
            .map(drop)
    }
}

/// Empties a directory, but keeps it.
///
/// # Errors
/// When something in it cannot be removed.
pub fn empty(directory: &Path) -> Result<(), BenchError> {
    let work = || -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    work().map_err(|error| BenchError::io("empty", directory, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_it_removes_the_directory_and_ends_the_processes() {
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(parent.path()).unwrap();
        let mut child = workspace.spawn(Command::new("sleep").arg("1000")).unwrap();
        fs::write(workspace.directory("a/b").unwrap().join("c"), "d").unwrap();
        drop(workspace);
        assert!(!child.wait().unwrap().success());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
