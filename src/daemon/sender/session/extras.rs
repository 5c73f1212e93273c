//! What a filter that may protect something makes of removals, or a start that left what only the target has (`--initial skip`).
//!
//! Such a sender tells the receiver so when it opens, and the receiver then removes no directory that holds anything and puts
//! nothing in the place of one. What is to go is listed and judged entry by entry, deepest first; a directory goes if
//! all in it goes. An entry that appeared since makes the removal of its directory fail, and is judged by the comparison
//! that follows. What stays is released: it is no part of the mirror any more, and of no sum.

use super::*;
use crate::daemon::sender::reconcile::receive_listing;
use crate::daemon::sender::source::{Fate, Standing, fate_by};
use driftless_protocol::Kind;
use driftless_protocol::message::{Directories, ToReceiver};

/// Directories asked for in one message.
const ASK_AT_A_TIME: usize = 1_024;
/// Entries in one removal at most: a receiver that lists without end is left.
const JUDGED_MAX: usize = 20_000_000;
/// The rules under which what only the target has was last judged.
pub const RULES: &str = "rules";

/// What becomes of what only the target has.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Deepest first.
    pub(super) removals: Vec<Removal>,
    /// How many of these are deletions.
    pub(super) at_risk: u64,
    /// Places at which something protected keeps the source's object out.
    pub(super) blocked: Vec<Place>,
}

/// An entry that only the target has.
#[derive(Debug)]
struct Suspect {
    above: Option<usize>,
    object: ObjectId,
    place: Place,
    kind: Kind,
    is_replaced: bool,
    /// As a deletion: none if another record counts for it.
    weight: u64,
    /// What has a number of the target's own in it stays: the mirror removes what it knows.
    keeps_own: bool,
    /// The rules inside, for a directory that is at risk itself.
    below: Option<Standing>,
    stays: bool,
}

impl Suspect {
    fn into_removal(self) -> Removal {
        Removal {
            object: self.object,
            place: self.place,
            kind: self.kind,
            entries: self.weight,
            is_admitted: false,
            is_replaced: self.is_replaced,
            is_spared: false,
            is_judged: true,
            is_kept: self.stays,
        }
    }
}

impl Session<'_, '_> {
    /// Judges what a comparison found.
    pub(super) fn judge_extras(&mut self, extras: Vec<Extra>, replaced: Vec<Extra>) -> Result<Judged, Ended> {
        let extras = extras.into_iter().map(|extra| (extra, false));
        let all = extras.chain(replaced.into_iter().map(|extra| (extra, true)));
        let tops = all.map(|(extra, is_replaced)| Removal {
            object: extra.object,
            place: extra.place,
            kind: extra.kind,
            entries: extra.entries,
            is_admitted: false,
            is_replaced,
            is_spared: false,
            is_judged: false,
            is_kept: false,
        });
        self.judge(tops.collect())
    }

    /// Judges the removals that come from the journal. False if that has to wait until nothing is under way.
    pub(super) fn judge_removals(&mut self) -> Result<bool, Ended> {
        if self.removes.iter().all(|removal| removal.is_judged) {
            return Ok(true);
        }
        let asks = |removal: &Removal| !removal.is_judged && removal.kind == Kind::Directory;
        if self.removes.iter().any(asks) && !(self.window.is_empty() && self.is_done_reading()) {
            return Ok(false);
        }
        let (judged, open): (Vec<_>, Vec<_>) = self.removes.drain(..).partition(|removal| removal.is_judged);
        let mut tops = Vec::new();
        let catalog = self.context.source.catalog.clone();
        for removal in open {
            if catalog.read(|view| view.get(removal.object))?.is_none() {
                tops.push(removal);
            }
        }
        self.removes.extend(judged);
        // Whatever comes in beside the listings is passed over.
        self.context.barriers.ask_again();
        let outcome = self.judge(tops)?;
        self.removes.extend(outcome.removals);
        Ok(true)
    }

    /// Nothing is known any more to stand in anybody's place.
    pub(super) fn settle_graves(&mut self) {
        self.context.source.graves.clear();
        self.context.source.unsent_deletions = 0;
        self.again.extend(self.held.drain());
    }

    /// Whether an object has to wait because what stood at its place is not removed yet, or cannot be put there at all.
    pub(super) fn is_kept_out(&mut self, entry: &Entry) -> Result<bool, Ended> {
        // Once for each comparison: a later try may find the place free, and is refused by the receiver otherwise.
        if self.blocked.remove(&entry.object) {
            let text = "the target has a directory here that holds entries which the filter protects; move them away \
                        there, or change the filter";
            self.fail(entry.object, FailureKind::Mismatch as u8, text, None)?;
            return Ok(true);
        }
        let is_taken = !self.context.source.graves.is_empty()
            && (self.context.source.graves.contains_key(&entry.place)
                || self.held.contains(&entry.place.directory));
        let waits = is_taken && (self.context.source.may_protect() || self.is_fuse_in_danger()?);
        if waits {
            self.held.insert(entry.object);
        }
        Ok(waits)
    }

    /// Notes the objects whose places are taken for good.
    pub(super) fn block(&mut self, places: &[Place]) -> Result<(), Ended> {
        self.blocked.clear();
        self.context.source.catalog.read(|view| {
            for place in places {
                self.blocked.extend(view.lookup(place.directory, &place.name)?);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A receiver did not remove a directory, because it holds something that it did not know of.
    pub(super) fn handle_not_removed(&mut self, object: ObjectId, place: Place, kind: FailureKind) -> bool {
        if !self.context.source.may_protect() {
            return false;
        }
        match kind {
            FailureKind::Mismatch => {
                self.must_reconcile = true;
                true
            }
            // Sockets and the like are in no listing.
            FailureKind::Unsupported => {
                self.stuck.insert(object);
                self.removes.push_back(Removal {
                    object,
                    place,
                    kind: Kind::Directory,
                    entries: 1,
                    is_admitted: true,
                    is_replaced: false,
                    is_spared: false,
                    is_judged: true,
                    is_kept: true,
                });
                true
            }
            _ => false,
        }
    }

    fn judge(&mut self, tops: Vec<Removal>) -> Result<Judged, Ended> {
        let mut suspects = self.suspects(tops)?;
        let mut asked = HashSet::new();
        let mut seen = 0;
        while seen < suspects.len() {
            let open = |&at: &usize| suspects[at].below.is_some();
            let round: Vec<usize> = (seen..suspects.len()).filter(open).collect();
            seen = suspects.len();
            for ask in round.chunks(ASK_AT_A_TIME) {
                let numbers: Vec<_> = ask.iter().map(|&at| suspects[at].object).collect();
                if !numbers.iter().all(|number| asked.insert(*number)) || suspects.len() > JUDGED_MAX {
                    return Err(Ended::Lost("the receiver's listings have no end".to_owned()));
                }
                let lost = |_| Ended::Lost("the link ended".to_owned());
                let message = ToReceiver::List(Directories(numbers));
                self.link.control().send(message).map_err(lost)?;
                for &at in ask {
                    self.list_suspects(&mut suspects, at)?;
                }
            }
        }
        Ok(self.sentence(suspects))
    }

    fn suspects(&mut self, tops: Vec<Removal>) -> Result<Vec<Suspect>, Ended> {
        let source = &mut *self.context.source;
        let is_started = source.start.is_some();
        let catalog = source.catalog.clone();
        let suspects = catalog.read(|view| {
            let mut suspects = Vec::new();
            for top in tops {
                let Removal {
                    object,
                    place,
                    kind,
                    is_replaced,
                    ..
                } = top;
                let is_directory = kind == Kind::Directory;
                let fate = match is_replaced && !is_directory {
                    // As in rsync, a single entry is never protected from what takes its name.
                    true => Fate::AtRisk,
                    false => source.fate(view, &place, kind)?,
                };
                // What was removed together with its directory goes with it.
                if fate == Fate::Unknown || is_started && view.get(place.directory)?.is_none() {
                    continue;
                }
                let stays = fate == Fate::Kept;
                let below = if is_directory && !stays {
                    let parent = source.standing(view, place.directory)?;
                    Some(source.standing_of_extra(&parent, &place.name))
                } else {
                    None
                };
                // What was left under such a number, and is gone here: the journal's record counts for it.
                let was_left = is_started && object.is_local() && !is_replaced;
                suspects.push(Suspect {
                    above: None,
                    object,
                    place,
                    kind,
                    is_replaced,
                    weight: u64::from(!was_left),
                    keeps_own: is_started && !object.is_local() && !is_replaced,
                    below,
                    stays,
                });
            }
            Ok(suspects)
        })?;
        Ok(suspects)
    }

    /// Adds what the receiver lists in a directory.
    fn list_suspects(&mut self, suspects: &mut Vec<Suspect>, above: usize) -> Result<(), Ended> {
        let rows = receive_listing(self.link).map_err(|error| Ended::Lost(error.to_string()))?;
        let Some(standing) = suspects[above].below.take() else {
            return Ok(());
        };
        let (directory, keeps_own) = (suspects[above].object, suspects[above].keeps_own);
        for row in rows {
            let is_kept = fate_by(&standing, &row.name, row.kind, true) == Fate::Kept;
            let stays = is_kept || (keeps_own && row.object.is_local());
            let below = (row.kind == Kind::Directory && !stays)
                .then(|| self.context.source.standing_of_extra(&standing, &row.name));
            suspects.push(Suspect {
                above: Some(above),
                object: row.object,
                place: Place {
                    directory,
                    name: row.name,
                },
                kind: row.kind,
                is_replaced: false,
                weight: 1,
                keeps_own,
                below,
                stays,
            });
        }
        Ok(())
    }

    /// Whatever holds something that stays, stays.
    fn sentence(&self, mut suspects: Vec<Suspect>) -> Judged {
        let mut judged = Judged::default();
        while let Some(mut suspect) = suspects.pop() {
            suspect.stays |= self.stuck.contains(&suspect.object);
            if suspect.stays
                && let Some(above) = suspect.above
            {
                suspects[above].stays = true;
            }
            if suspect.stays && suspect.is_replaced {
                judged.blocked.push(suspect.place.clone());
            }
            judged.at_risk += u64::from(!suspect.stays);
            if !suspect.stays || !suspect.object.is_local() {
                judged.removals.push(suspect.into_removal());
            }
        }
        judged
    }
}
