//! What the receiver is asked, several questions at a time, and what becomes of its answers.

use super::*;
use crate::daemon::sender::OwnerKey;

/// What the receiver was asked, in the order of its answers, and what is noted between them.
pub(super) enum Asked {
    Listing(RelPath),
    Contents(Batch),
    /// Who owners are there.
    Owners,
    /// Nothing: everything before is done then.
    Passed(Position, u64),
}

/// Files of one directory whose contents are being compared.
pub(super) struct Batch {
    pub(super) directory: RelPath,
    /// All of them were read here.
    pub(super) is_whole: bool,
    pub(super) files: Vec<(Name, Result<Digest, String>)>,
}

/// Entries that wait to become a batch.
#[derive(Default)]
pub(super) struct Gathering {
    pub(super) entries: u64,
    pub(super) files: Vec<(Name, Stat)>,
    pub(super) bytes: u64,
}

impl Verifier<'_> {
    pub(super) fn send(&self, message: ToReceiver) -> Result<(), DaemonError> {
        self.link
            .control()
            .send(message)
            .map_err(|_| DaemonError::failed("the receiver is gone"))
    }

    pub(super) fn ask_listing(&mut self, path: RelPath) -> Result<(), DaemonError> {
        let is_asked = |asked: &Asked| matches!(asked, Asked::Listing(other) if *other == path);
        if self.listings.contains_key(&path) || self.asked.iter().any(is_asked) {
            return Ok(());
        }
        self.send(ToReceiver::ListDisk(path.clone()))?;
        self.asked.push_back(Asked::Listing(path));
        Ok(())
    }

    pub(super) fn rows_of(&mut self, path: &RelPath) -> Result<Result<Vec<Row>, String>, DaemonError> {
        self.ask_listing(path.clone())?;
        loop {
            if let Some(rows) = self.listings.remove(path) {
                return Ok(rows);
            }
            self.take_answer()?;
        }
    }

    /// Takes the answers about all that was read here before this was stopped.
    pub(super) fn take_whole(&mut self) -> Result<(), DaemonError> {
        while let Some(asked) = self.asked.front() {
            if matches!(asked, Asked::Contents(batch) if !batch.is_whole) {
                break;
            }
            self.take_answer()?;
        }
        Ok(())
    }

    /// Takes the next answer of the receiver, and notes what is done by then.
    pub(super) fn take_answer(&mut self) -> Result<(), DaemonError> {
        let broken = |what: &str| {
            DaemonError::failed(format!(
                "the receiver broke the protocol while it was asked for {what}"
            ))
        };
        let gone = || DaemonError::failed("the receiver is gone");
        let link = self.link;
        match self.asked.pop_front() {
            None => return Err(broken("nothing")),
            Some(Asked::Passed(..)) => {}
            Some(Asked::Listing(path)) => {
                let next = || link.incoming().recv().map_err(|_| ReconcileError::Ended);
                let rows = match listing_from(&mut Allowance::of_directory(), next) {
                    Ok(rows) => Ok(rows),
                    Err(ReconcileError::Unlisted(text)) => Err(text),
                    Err(error) => return Err(DaemonError::failed(format!("cannot verify {path}: {error}"))),
                };
                self.listings.insert(path, rows);
            }
            Some(Asked::Contents(batch)) => {
                let Batch { directory, files, .. } = batch;
                let theirs = match link.incoming().recv().map_err(|_| gone())? {
                    ToSender::Contents(digests) if digests.0.len() == files.len() => digests.0,
                    _ => return Err(broken("contents")),
                };
                self.batches -= 1;
                for ((name, ours), theirs) in files.into_iter().zip(theirs) {
                    let path = directory.join(&name);
                    match (ours, theirs) {
                        (Ok(ours), Some(theirs)) if ours == theirs => {}
                        (Ok(_), Some(_)) => self.differs(&path, "content"),
                        (Ok(_), None) => self.differs(&path, "unreadable on the target"),
                        (Err(error), _) => self.unreadable(&path, &error),
                    }
                }
            }
            Some(Asked::Owners) => match link.incoming().recv().map_err(|_| gone())? {
                ToSender::Owners(here) => self.owners.note(here),
                _ => return Err(broken("users and groups")),
            },
        }
        while let Some(Asked::Passed(..)) = self.asked.front() {
            if let Some(Asked::Passed(position, entries)) = self.asked.pop_front() {
                self.progress.position = position;
                self.progress.compared += entries;
            }
        }
        if self.stored.elapsed() >= STORE_EVERY {
            self.store();
        }
        Ok(())
    }

    /// Learns who these are on the target. What was asked for before is answered first, each within the limits of its kind: nothing is
    /// put aside that nobody asked for.
    pub(super) fn learn_owners(&mut self, all: impl Iterator<Item = OwnerKey>) -> Result<(), DaemonError> {
        for rows in self.owners.questions(all)? {
            self.send(ToReceiver::Owners(rows))?;
            self.asked.push_back(Asked::Owners);
            while self.asked.iter().any(|asked| matches!(asked, Asked::Owners)) {
                self.take_answer()?;
            }
        }
        Ok(())
    }

    /// Has the contents of what was gathered compared, and notes that everything up to `position` is done then.
    pub(super) fn flush(
        &mut self,
        gathered: &mut Gathering,
        directory: &Directory,
        position: Position,
    ) -> Result<(), DaemonError> {
        let Gathering { entries, files, .. } = std::mem::take(gathered);
        if !files.is_empty() {
            self.ask_contents(directory, &position.directory, files)?;
        }
        if !self.is_stopped() {
            self.asked.push_back(Asked::Passed(position, entries));
        }
        while self.batches > BATCHES_MAX {
            self.take_answer()?;
        }
        Ok(())
    }

    /// Asks for contents there, and reads them here meanwhile.
    pub(super) fn ask_contents(
        &mut self,
        directory: &Directory,
        path: &RelPath,
        files: Vec<(Name, Stat)>,
    ) -> Result<(), DaemonError> {
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        // It may be one for this time of day.
        let rate = self.how.rate.as_ref().and_then(Schedule::rate_now).unwrap_or(0);
        self.pace.set_rate(rate);
        self.send(ToReceiver::ReadContents {
            path: path.clone(),
            names: Names(names),
            rate,
        })?;
        self.batches += 1;
        let stopping = self.how.stop.channel();
        let stop = self.how.stop;
        let mut wait = |time: Duration| {
            let is_open = |time| stopping.recv_timeout(time).is_err_and(|error| error.is_timeout());
            !stop.is_requested() && (time.is_zero() || is_open(time))
        };
        let mut read = Vec::with_capacity(files.len());
        for (name, _) in files {
            let opened = directory.open_file(&name).map_err(|error| error.to_string());
            let ours = opened.and_then(|(file, stat)| {
                let digest = digest_at_pace(&file, &mut self.pace, &mut wait);
                let digest = digest.map_err(|error| format!("cannot read {name}: {error}"))?;
                self.progress.bytes += stat.size;
                digest.ok_or_else(|| "reading it was broken off".to_owned())
            });
            read.push((name, ours));
        }
        self.asked.push_back(Asked::Contents(Batch {
            directory: path.clone(),
            is_whole: !stop.is_requested(),
            files: read,
        }));
        Ok(())
    }
}
