//! When a change is visible on the target. The observer belongs to neither tool: it looks at the target's files as any
//! program would, and takes next to no processor time from them.

use super::super::BenchError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How late [`Arrival`] may notice a change, in milliseconds: the kernel wakes it, and it reads one small file.
pub(super) const ARRIVAL_RESOLUTION_MS: f64 = 0.1;
/// How often [`all_visible`] and [`until`] look.
pub(super) const LOOK: Duration = Duration::from_micros(500);
/// How often the tools are looked after while one waits.
const CHECK: Duration = Duration::from_millis(200);

/// How long a wait may take, and what would make it useless.
pub(super) struct Patience<'a> {
    deadline: Instant,
    next_check: Instant,
    health: &'a dyn Fn() -> Result<(), BenchError>,
}

impl<'a> Patience<'a> {
    /// `health` says what is wrong with the daemons, if anything.
    pub(super) fn new(time: Duration, health: &'a dyn Fn() -> Result<(), BenchError>) -> Patience<'a> {
        let now = Instant::now();
        Patience {
            deadline: now + time,
            next_check: now + CHECK,
            health,
        }
    }

    /// Fails when the time is over or a daemon is gone. `what` is waited for, as in "the file x on the target".
    pub(super) fn check(&mut self, what: &dyn Fn() -> String) -> Result<(), BenchError> {
        let now = Instant::now();
        if now >= self.next_check {
            self.next_check = now + CHECK;
            (self.health)()?;
        }
        if now >= self.deadline {
            return Err(BenchError::new(format!("gave up waiting for {}", what())));
        }
        Ok(())
    }

    fn left(&self) -> Duration {
        self.deadline
            .min(self.next_check)
            .saturating_duration_since(Instant::now())
    }
}

/// Waits for a file in one directory of a target: the kernel tells of every change there.
pub(super) struct Arrival {
    events: OwnedFd,
}

impl Arrival {
    pub(super) fn watch(directory: &Path) -> Result<Arrival, BenchError> {
        let failed = |error: Errno| BenchError::io("watch", directory, &error);
        let events =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CLOSE_WRITE
            | inotify::WatchFlags::ONLYDIR;
        inotify::add_watch(&events, directory, flags).map_err(failed)?;
        Ok(Arrival { events })
    }

    /// Waits until `path` has that content, and says when that was.
    pub(super) fn wait(
        &mut self,
        path: &Path,
        content: &[u8],
        patience: &mut Patience<'_>,
    ) -> Result<Instant, BenchError> {
        self.wait_until(
            patience,
            &|| format!("{} on the target", path.display()),
            &mut || fs::read(path).is_ok_and(|found| found == content),
        )
    }

    /// Waits until something is so that can only become so with a change in the directory.
    pub(super) fn wait_until(
        &mut self,
        patience: &mut Patience<'_>,
        what: &dyn Fn() -> String,
        is_so: &mut dyn FnMut() -> bool,
    ) -> Result<Instant, BenchError> {
        let mut buffer = [0; 16 << 10];
        loop {
            // What is drained here happened before the look that follows.
            while rustix::io::read(&self.events, &mut buffer).is_ok_and(|length| length > 0) {}
            if is_so() {
                return Ok(Instant::now());
            }
            patience.check(what)?;
            let left = patience.left().max(Duration::from_millis(1));
            let timeout = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&self.events, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(BenchError::new(format!("cannot wait for events: {error}"))),
            }
        }
    }
}

/// A file that is to be on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Waits until all files are there with their sizes, and says when that was. Each is looked at until it was seen once, in
/// the order given, which is best the one in which they come: as long as one is missing, one `stat` each half a millisecond
/// is all that this costs, and when the last has come, there is little left to look at.
pub(super) fn all_visible(wanted: &[Wanted], patience: &mut Patience<'_>) -> Result<Instant, BenchError> {
    for (index, file) in wanted.iter().enumerate() {
        while !fs::symlink_metadata(&file.path).is_ok_and(|meta| meta.is_file() && meta.len() == file.size) {
            let missing = wanted.len() - index;
            patience.check(&|| {
                format!(
                    "{missing} of {} files on the target, first {}",
                    wanted.len(),
                    file.path.display()
                )
            })?;
            std::thread::sleep(LOOK);
        }
    }
    Ok(Instant::now())
}

/// Waits until something is so, and says when that was noticed.
pub(super) fn until(
    patience: &mut Patience<'_>,
    what: &dyn Fn() -> String,
    is_so: &mut dyn FnMut() -> Result<bool, BenchError>,
) -> Result<Instant, BenchError> {
    while !is_so()? {
        patience.check(what)?;
        std::thread::sleep(LOOK);
    }
    Ok(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Duration = Duration::from_secs(20);

    fn fine() -> Result<(), BenchError> {
        Ok(())
    }

    #[test]
    fn a_file_arrives_when_it_has_its_content_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let mut arrival = Arrival::watch(directory.path()).unwrap();
        fs::write(&path, "half").unwrap();
        let began = Instant::now();
        let mut short = Patience::new(Duration::from_millis(50), &fine);
        assert!(arrival.wait(&path, b"half and half", &mut short).is_err());
        assert!(began.elapsed() >= Duration::from_millis(50));
        let writer = {
            let (temporary, path) = (directory.path().join("t"), path.clone());
            std::thread::spawn(move || {
                fs::write(&temporary, "half and half").unwrap();
                fs::rename(&temporary, &path).unwrap();
            })
        };
        let mut patience = Patience::new(ENOUGH, &fine);
        assert!(arrival.wait(&path, b"half and half", &mut patience).unwrap() > began);
        writer.join().unwrap();
    }

    #[test]
    fn all_files_must_be_there_with_their_sizes() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = |name: &str, size: u64| Wanted {
            path: directory.path().join(name),
            size,
        };
        fs::write(directory.path().join("a"), "1").unwrap();
        fs::write(directory.path().join("b"), "22").unwrap();
        let ask = |wanted: Vec<Wanted>| {
            all_visible(&wanted, &mut Patience::new(Duration::from_millis(20), &fine)).map(|_| ())
        };
        ask(vec![wanted("a", 1), wanted("b", 2)]).unwrap();
        let text = ask(vec![wanted("c", 0), wanted("b", 2)]).unwrap_err().to_string();
        assert!(text.contains("2 of 2 files") && text.contains("/c"), "{text}");
        assert!(ask(vec![wanted("a", 2)]).is_err());
    }

    #[test]
    fn a_dead_daemon_ends_a_wait_long_before_its_time() {
        let dead = || Err(BenchError::new("it died"));
        let began = Instant::now();
        let mut patience = Patience::new(ENOUGH, &dead);
        let outcome = until(&mut patience, &|| "rain".to_owned(), &mut || Ok(false));
        assert_eq!(outcome.unwrap_err().to_string(), "it died");
        assert!(began.elapsed() < ENOUGH / 2);
    }
}
