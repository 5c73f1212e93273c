//! A file with the status, for those who look at files: as `driftless status` prints it, written anew now and then.

use super::fleet::View;
use crate::cli::output;
use crate::cli::status::described_all;
use crate::cli::text::escaped;
use crate::daemon::Stop;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that writes the file; dropping this writes it once more.
pub(super) struct StatusFile {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl StatusFile {
    /// Writes the file now, and then every `interval`. That it cannot be written is told once, and again after it could be.
    pub(super) fn start(path: &Path, interval: Duration, view: Arc<View>) -> io::Result<StatusFile> {
        let (stop, path) = (Stop::default(), path.to_owned());
        let thread = std::thread::Builder::new()
            .name("status-file".to_owned())
            .spawn({
                let stop = stop.clone();
                move || {
                    let mut was_told = false;
                    loop {
                        match replace(&path, &described_all(&view.status())) {
                            Ok(()) => was_told = false,
                            Err(error) if !was_told => {
                                was_told = true;
                                output::note(&format!(
                                    "cannot write the status file {}: {error}",
                                    escaped(&path)
                                ));
                            }
                            Err(_) => {}
                        }
                        if stop.is_requested() {
                            return;
                        }
                        // Ends early when stopping is asked.
                        let _ = stop.channel().recv_timeout(interval);
                    }
                }
            })?;
        Ok(StatusFile {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for StatusFile {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Readers see the old text or the new one, never a part.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let aside: PathBuf = path.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&aside)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}
