//! What outlives a connection.

use super::*;

/// What outlives a connection.
pub struct Context<'a> {
    /// What to do.
    pub options: &'a SenderOptions,
    /// The tree.
    pub source: &'a mut Source,
    /// What may have changed.
    pub pending: &'a mut Pending,
    /// Kernel events.
    pub events: Receiver<crate::engine::pending::WatchEvent>,
    /// Who wants to know.
    pub observer: Arc<dyn Observer>,
    /// Counters of the whole run.
    pub counters: SendCounters,
    /// Objects in error.
    pub failed: HashMap<ObjectId, Failed>,
    /// The sender's run.
    pub incarnation: u128,
    /// When to end.
    pub stop: Stop,
    /// Whether somebody has to be asked before more is deleted.
    pub fuse: DeleteFuse,
    /// How many deletions wait for somebody's approval, as it was last told.
    pub held: Option<u64>,
    /// Where the journal stood when the tree had been walked at the start.
    pub started_at: u64,
    /// Whether the trees were equal at some moment of this run.
    pub was_ever_in_sync: bool,
    /// What was last told of the watcher.
    pub watching: Option<(&'static str, Vec<String>)>,
    /// Whether it was told aloud that a part of the tree is only looked at now and then.
    pub is_shortfall_told: bool,
    /// What the present target knows of users and groups.
    pub named: Named,
    /// The target was compared in this run, so nobody has to look at it anew.
    pub was_compared: bool,
    /// Who waits for a point in time.
    pub barriers: Barriers,
    /// How long changes wait.
    pub ages: Ages,
    /// What was last told of how far the target is behind, and the number of the journal then.
    pub backlog: (Backlog, u64),
    /// The turn at bringing the target in sync, until it is.
    pub turn: Option<Turn>,
    /// Which trees the target was told that the source is a copy of.
    pub upstream: Relays,
}

impl Context<'_> {
    /// Tells which entries are in error.
    pub fn tell_failed(&self) {
        self.observer.failed(&failed_entries(self.source, &self.failed));
    }

    /// When something has to be looked at, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.source.renamed.is_empty() {
            true => self.pending.poll_deadline(),
            false => Some(Instant::now()),
        }
    }

    /// Adds what a thread has to wait for: answers of the kernel's.
    pub fn register<'a>(&'a self, select: &mut Select<'a>) {
        self.barriers.register(select);
        self.source.touched.unheard.register(select);
    }

    /// Whether everything that was told of has been looked at.
    pub fn is_calm(&self) -> bool {
        self.pending.is_empty() && self.source.renamed.is_empty()
    }
}

/// The failed set, for people.
pub fn failed_entries(source: &Source, failed: &HashMap<ObjectId, Failed>) -> Vec<FailedEntry> {
    let mut entries: Vec<_> = failed
        .values()
        .map(|failed| FailedEntry {
            path: source.path_or_place(failed.object, &failed.place),
            error: failed.text.clone(),
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}
