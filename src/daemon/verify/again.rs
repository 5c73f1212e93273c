//! Looking again at what differed, and having it mended.

use super::*;

/// How often an entry is looked at that changes all the time, and one that is to be mended.
const TRIES: u32 = 3;
const REPAIR_TRIES: u32 = 20;
/// Between two looks at what is to be mended.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of paths in one message: half of what it may have, since they are encoded with their lengths.
const DOUBT_BYTES_MAX: usize = CONTROL_MESSAGE_BYTES_MAX / 2;
const DOUBT_PATHS_MAX: usize = 256;

impl Verifier<'_> {
    /// What differs beside a mirror at work may have been on its way. Forgets what does not differ when it is looked at again, or
    /// what changes whenever that is done; how many the latter are.
    pub(super) fn look_twice(&mut self) -> Result<u64, DaemonError> {
        let Some(settle) = self.how.settle else {
            return Ok(0);
        };
        let mut unsure: Vec<RelPath> = self.paths_found();
        for _ in 0..TRIES {
            if unsure.is_empty() || self.is_stopped() {
                break;
            }
            settle()?;
            let mut still = Vec::new();
            for path in unsure {
                if self.is_stopped() {
                    return Ok(0);
                }
                if !self.look_again(&path)? {
                    still.push(path);
                }
            }
            unsure = still;
        }
        for path in &unsure {
            self.progress.found.remove(&path.to_bytes());
        }
        Ok(unsure.len() as u64)
    }

    fn paths_found(&self) -> Vec<RelPath> {
        let paths = self.progress.found.keys();
        paths.filter_map(|path| RelPath::parse(path).ok()).collect()
    }

    /// Looks at an entry that differed again. False if it still does and changed on either side since the last look, so that nothing
    /// can be said: a directory on the target has other times for as long as something is done in it.
    fn look_again(&mut self, path: &RelPath) -> Result<bool, DaemonError> {
        let key = path.to_bytes();
        let Some(before) = self.progress.found.remove(&key) else {
            return Ok(true);
        };
        let Some((name, above)) = path.names().split_last() else {
            return Ok(true);
        };
        let parent = RelPath::from_names(above.to_vec()).unwrap_or_default();
        let rows = self.rows_of(&parent)?.unwrap_or_default();
        let row = rows.into_iter().find(|row| row.name == *name);
        let attributes = row.as_ref().map(|row| row.attributes);
        let told_before = self.told_there.insert(key.clone(), attributes);
        let is_same_there = told_before == Some(attributes);
        // What the filter leaves out may be here all the same.
        if before.contains(ONLY_THERE) {
            if row.is_some() {
                self.progress.found.insert(key, before);
                return Ok(is_same_there);
            }
            return Ok(true);
        }
        let directory = above
            .iter()
            .try_fold(self.root.clone(), |at, name| at.open_dir(name).map(Arc::new));
        let stat = directory.and_then(|directory| Ok((directory.stat(name)?, directory)));
        let (stat, directory) = match stat {
            Ok((Some(stat), directory)) => (stat, directory),
            // It is gone here.
            Ok((None, _)) | Err(_) => {
                if row.is_some() {
                    self.differs(path, ONLY_THERE);
                    return Ok(is_same_there);
                }
                return Ok(true);
            }
        };
        if self.carried.owner {
            self.learn_owners(owner_keys(&stat.attributes).into_iter())?;
        }
        if self.compare_entry(path, &directory, name, &stat, row.as_ref())? {
            self.ask_contents(&directory, &parent, vec![(name.clone(), stat)])?;
            while self.batches > 0 {
                self.take_answer()?;
            }
        }
        let is_still = directory
            .stat(name)
            .is_ok_and(|now| now.is_some_and(|now| now.stamp == stat.stamp));
        if !is_still {
            self.progress.found.insert(key, before);
            return Ok(false);
        }
        Ok(is_same_there || !self.progress.found.contains_key(&key))
    }

    /// Has what differs mended, if that is wanted; what was.
    pub(super) fn repair(&mut self) -> Result<BTreeMap<Vec<u8>, BTreeSet<String>>, DaemonError> {
        let mut repaired = BTreeMap::new();
        let Some(repair) = self.how.repair.filter(|_| !self.is_stopped()) else {
            return Ok(repaired);
        };
        if self.progress.found.is_empty() {
            return Ok(repaired);
        }
        self.doubt()?;
        // A mirror at work hears of it by another connection: it may believe for a moment that nothing is to be done.
        for attempt in 0..REPAIR_TRIES {
            if self.progress.found.is_empty() || self.is_stopped() {
                break;
            }
            if attempt > 0 {
                if self.how.settle.is_none() {
                    break;
                }
                let _ = self.how.stop.channel().recv_timeout(REPAIR_PAUSE);
            }
            repair()?;
            for path in self.paths_found() {
                let key = path.to_bytes();
                let before = self.progress.found.get(&key).cloned().unwrap_or_default();
                self.look_again(&path)?;
                if !self.progress.found.contains_key(&key) {
                    repaired.insert(key, before);
                }
            }
        }
        Ok(repaired)
    }

    /// Tells the receiver where it is not to believe what it knows.
    fn doubt(&mut self) -> Result<(), DaemonError> {
        let mut paths: VecDeque<RelPath> = self.paths_found().into();
        while !paths.is_empty() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(path) = paths.pop_front() {
                bytes += path.to_bytes().len() + 2 * path.names().len();
                if !some.is_empty() && (bytes > DOUBT_BYTES_MAX || some.len() >= DOUBT_PATHS_MAX) {
                    paths.push_front(path);
                    break;
                }
                some.push(path);
            }
            self.send(ToReceiver::Doubt(Paths(some)))?;
            match self.link.incoming().recv() {
                Ok(ToSender::Doubted { .. }) => {}
                Ok(_) => {
                    return Err(DaemonError::failed(
                        "the receiver broke the protocol while it was told of differences",
                    ));
                }
                Err(_) => {
                    let end = self.link.wait_ended();
                    return Err(DaemonError::failed(format!("the receiver mends nothing: {end}")));
                }
            }
        }
        Ok(())
    }
}
