//! How far a bench is.

/// What is under way.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Runs that are done, counted or not.
    pub done: u64,
    /// All runs; 0 as long as they are not known.
    pub total: u64,
    /// What is done now, in words.
    pub what: String,
}

/// Keeps count, and tells somebody.
pub(super) struct Tracker<'a> {
    progress: Progress,
    tell: &'a dyn Fn(Progress),
}

impl<'a> Tracker<'a> {
    pub(super) fn new(tell: &'a dyn Fn(Progress)) -> Tracker<'a> {
        let progress = Progress {
            done: 0,
            total: 0,
            what: String::new(),
        };
        Tracker { progress, tell }
    }

    /// So many runs are to come.
    pub(super) fn expect(&mut self, runs: u64) {
        self.progress.total += runs;
    }

    /// Something begins.
    pub(super) fn begin(&mut self, what: String) {
        self.progress.what = what;
        (self.tell)(self.progress.clone());
    }

    /// A run ended.
    pub(super) fn done(&mut self) {
        self.progress.done += 1;
    }
}
