//! What objects leave at their former places when they are put elsewhere without having been moved.
//!
//! A sender puts an object at another place than it has here if its move is told a little later, or if it has lost the catalog that
//! knew the move. There may be another object at the former place in the source by then, which is on its way; and a name is absent
//! only where it is so in the source. So what stood there stays under a number of ours, until it is replaced, or until everything that the
//! sender said before its next mark has ended.

use super::notes::{are_strangers_noted, note_strangers};
use super::*;

/// What stands at former places.
#[derive(Debug, Default)]
pub struct Former {
    /// With how many marks had been passed when the op ended that put them away; none before that.
    objects: Vec<(ObjectId, Option<u64>)>,
    /// Nothing else is a reason to compare at the next connection.
    is_only_reason: bool,
}

impl Former {
    /// The op has ended that put objects away last.
    pub fn date(&mut self, marks_passed: u64) {
        for (_, before) in &mut self.objects {
            before.get_or_insert(marks_passed);
        }
    }

    /// The next comparison finds them.
    pub fn leave(&mut self) {
        *self = Former::default();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether there are some whose time is over.
    pub fn is_due(&self, marks_passed: u64) -> bool {
        self.objects
            .iter()
            .any(|(_, before)| is_over(*before, marks_passed))
    }
}

fn is_over(before: Option<u64>, marks_passed: u64) -> bool {
    before.is_some_and(|before| before != marks_passed)
}

impl Replica {
    /// Has an object give up its place. After a crash a comparison finds what stands there.
    pub fn give_up_place(&mut self, t: &mut Tables<'_>, object: ObjectId) -> Result<(), ApplyError> {
        let local = t.next_local()?;
        self.relabel(t, object, local)?;
        if !are_strangers_noted(t)? {
            note_strangers(t, true)?;
            self.former.is_only_reason = true;
        }
        self.former.objects.push((local, None));
        Ok(())
    }

    /// Removes what stands at former places and was not replaced, as far as its time is over. Whether some of it stays, which only a
    /// comparison finds.
    pub fn remove_former(&mut self, t: &mut Tables<'_>, marks_passed: u64) -> Result<bool, ApplyError> {
        let objects = std::mem::take(&mut self.former.objects);
        let (over, left): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|(_, before)| is_over(*before, marks_passed));
        self.former.objects = left;
        let mut stays = false;
        for (object, _) in over {
            if t.get(object)?.is_some()
                && let Err(error) = self.remove(t, object)
            {
                // It stays noted, and the next comparison tries again.
                self.former.is_only_reason = false;
                (stays, self.has_new_strangers) = (true, true);
                tracing::warn!("what an object left at its former place stays: {}", error.text);
            }
        }
        if self.former.objects.is_empty() && std::mem::take(&mut self.former.is_only_reason) {
            note_strangers(t, false)?;
        }
        Ok(stays)
    }
}
