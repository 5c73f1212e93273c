//! What the tools that follow a tree have in common.

use super::super::BenchError;
use super::super::runner::Stage;
use super::process;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tool that keeps copies of a tree like the tree, by daemons on both sides.
pub(super) trait Follower {
    /// Name in the table.
    fn name(&self) -> &str;

    /// Whether this is driftless.
    fn is_ours(&self) -> bool {
        false
    }

    /// Whether what it reports as done would survive a power cut.
    fn durable(&self) -> bool {
        false
    }

    /// The copies, one for each target there may be.
    fn copies(&self) -> &[PathBuf];

    /// Empties the copies and forgets everything.
    fn reset(&mut self) -> Result<(), BenchError>;

    /// Starts the daemons for that many targets, and waits until they have done their first comparison.
    fn start(
        &mut self,
        stage: &Stage,
        source: &Path,
        targets: usize,
        patience: Duration,
    ) -> Result<(), BenchError>;

    /// Ends the daemons that [`Follower::start`] started.
    fn stop(&mut self);

    /// Processes of the sending side.
    fn senders(&self) -> Vec<u32>;

    /// Processes of the receiving side.
    fn receivers(&self) -> Vec<u32>;

    /// The source was changed. Tools that do not notice by themselves start now.
    fn nudge(&mut self, _stage: &Stage, _source: &Path) -> Result<(), BenchError> {
        Ok(())
    }

    /// Waits until it has nothing left to do, as far as it tells.
    fn settle(&self, patience: Duration) -> Result<(), BenchError>;

    /// A number that grows when everything so far is durable, if the tool has one; see [`Follower::durable_since`].
    fn durable_mark(&self) -> Option<u64> {
        None
    }

    /// Whether everything is durable, at a later point than that mark. `None` if the tool does not tell.
    fn durable_since(&self, _mark: u64) -> Option<bool> {
        None
    }

    /// How often it lost events and looked at everything again since it was started, if that can be told.
    fn rescans(&self) -> Option<u64> {
        None
    }

    /// Bytes that the sending and the receiving side sent since the start, as the tool itself counts them.
    fn counted(&self) -> (Option<u64>, Option<u64>);

    /// Content bytes of the file `name` that are at the first target, visible or not, since some moment of the tool's choice.
    fn arrived(&self, _name: &str) -> Option<u64> {
        None
    }

    /// Breaks the connection in the way that is worst for the tool but leaves it a chance; after `pause` it may come back.
    fn cut(&mut self, _stage: &Stage, _pause: Duration) -> Result<(), BenchError> {
        Err(BenchError::new("this tool's connection cannot be cut"))
    }

    /// Ends the receiving end as if its machine had lost power. Until [`Follower::bring_back`] the target is away.
    fn take_away(&mut self) -> Result<(), BenchError> {
        Err(BenchError::new("this tool's receiving end cannot be taken away"))
    }

    /// Starts the receiving end again where it was, and waits until it can be reached.
    fn bring_back(&mut self, _stage: &Stage) -> Result<(), BenchError> {
        Err(BenchError::new(
            "this tool's receiving end cannot be brought back",
        ))
    }

    /// What its daemons complained about.
    fn complaints(&self) -> String;

    /// Says which daemon is gone, if any.
    fn health(&self) -> Result<(), BenchError> {
        let gone = self
            .senders()
            .into_iter()
            .chain(self.receivers())
            .find(|id| !process::is_running(*id));
        match gone {
            None => Ok(()),
            Some(_) => Err(BenchError::new(format!(
                "a daemon of {} ended: {}",
                self.name(),
                self.complaints()
            ))),
        }
    }
}
