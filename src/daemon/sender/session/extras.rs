//! What a filter that may protect something makes of removals, or a start that left what only the target has (`--initial skip`).
//!
//! Such a sender tells the receiver so when it opens, and the receiver then removes no directory that holds anything and puts
//! nothing in the place of one. What is to go is listed and judged entry by entry, deepest first; a directory goes if
//! all in it goes. An entry that appeared since makes the removal of its directory fail, and is judged by the comparison
//! that follows. What stays is released: it is no part of the mirror any more, and of no sum.

use super::*;
use crate::daemon::sender::listing::{Allowance, receive_listing};
use crate::daemon::sender::source::{Fate, Standing, fate_by};
use driftless_protocol::message::{Directories, Row, ToReceiver};
use driftless_protocol::{Kind, Name};

/// Directories asked for in one message.
const ASK_AT_A_TIME: usize = 1_024;
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
    /// An earlier one is the same directory, at another place where the target may have it.
    twin: Option<usize>,
    object: ObjectId,
    /// The number that it had here, which may be another.
    was: ObjectId,
    place: Place,
    kind: Kind,
    is_replaced: bool,
    /// As a deletion: none if another record counts for it, or if it had just come.
    weight: u64,
    /// What has a number of the target's own in it stays: the mirror removes what it knows.
    keeps_own: bool,
    /// The rules inside, for a directory that is at risk itself: of each place where it may stand. What one of them keeps stays.
    below: Option<Vec<Standing>>,
    stays: bool,
}

impl Suspect {
    fn to_removal(&self) -> Removal {
        Removal {
            object: self.object,
            was: None,
            place: self.place.clone(),
            stood: None,
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
            was: None,
            place: extra.place,
            stood: None,
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

    /// What takes the place of a directory would displace it, whoever is asked about that. So it waits until that is removed, or moved.
    pub(super) fn add_graves(&mut self, directories: Vec<(Place, ObjectId)>) -> Result<(), StoreError> {
        self.leaving.clear();
        self.context.source.catalog.read(|view| {
            for (place, object) in &directories {
                // A number that went to something else says nothing of what stands there.
                let is_its_own = !self.renumbered.contains(&(*object, place.clone()));
                if is_its_own && view.get(*object)?.is_some() {
                    self.leaving.insert(*object, place.clone());
                }
            }
            Ok(())
        })?;
        self.context.source.graves.extend(directories);
        Ok(())
    }

    /// A directory stands where it belongs now, and not where the last comparison found it.
    pub(super) fn open_left_grave(&mut self, object: ObjectId) {
        let source = &mut *self.context.source;
        let before = source.left.len();
        if before > 0 {
            source.left.retain(|_, directory| *directory != object);
        }
        let left = self.leaving.remove(&object);
        if let Some(place) = &left {
            source.graves.remove(place);
        }
        if left.is_some() || source.left.len() < before {
            // Some of them may have waited for this.
            self.again.extend(self.held.drain());
        }
    }

    /// Nothing is known any more to stand in anybody's place.
    pub(super) fn settle_graves(&mut self) {
        self.context.source.graves.clear();
        self.context.source.left.clear();
        self.leaving.clear();
        self.context.source.unsent_deletions = 0;
        self.again.extend(self.held.drain());
    }

    /// Whether an object has to wait because what stood at its place is not removed yet, or cannot be put there at all.
    pub(super) fn is_kept_out(&mut self, entry: &Entry) -> Result<bool, Ended> {
        // Once for each comparison: a later try may find the place free, and is refused by the receiver otherwise.
        if self.blocked.remove(&entry.object).as_ref() == Some(&entry.place) {
            let text = match self.context.source.keeps_removed {
                true => {
                    "the target keeps a directory here that is gone at the source, as `delete` says; move it away there"
                }
                false => {
                    "the target has a directory here that holds entries which the filter protects; move them away \
                     there, or change the filter"
                }
            };
            self.fail(entry.object, FailureKind::Mismatch as u8, text, None)?;
            return Ok(true);
        }
        let source = &*self.context.source;
        let is_taken = !source.graves.is_empty()
            && (self.held.contains(&entry.place.directory) || self.is_place_taken(&entry.place)?);
        let waits = is_taken && (self.context.source.may_protect() || self.is_fuse_in_danger()?);
        if waits {
            self.held.insert(entry.object);
        }
        Ok(waits)
    }

    /// Whether a directory stands at a place that nothing may displace. One that has a place of its own to go to may be, if nothing is
    /// protected there: two that change places would wait for each other.
    fn is_place_taken(&self, place: &Place) -> Result<bool, StoreError> {
        let source = &*self.context.source;
        let (mut place, mut passed) = (place.clone(), HashSet::new());
        loop {
            let (directory, may_leave) = match (source.graves.get(&place), source.left.get(&place)) {
                (Some(&grave), _) => (grave, !source.may_protect() && self.leaving.contains_key(&grave)),
                (None, Some(&left)) => (left, true),
                (None, None) => return Ok(false),
            };
            let entry = source.catalog.read(|view| view.get(directory))?;
            let is_left = !source.graves.contains_key(&place);
            match entry.filter(|_| may_leave) {
                // It has moved by now, or what it left has another record.
                Some(entry) if is_left && entry.flags & flags::MOVED == 0 => return Ok(false),
                None if is_left => return Ok(false),
                Some(entry) if self.held.contains(&entry.place.directory) => return Ok(true),
                Some(entry) if passed.insert(directory) => place = entry.place,
                Some(_) => return Ok(false),
                None => return Ok(true),
            }
        }
    }

    /// Notes the objects whose places are taken for good.
    pub(super) fn block(&mut self, places: &[Place]) -> Result<(), Ended> {
        self.blocked.clear();
        self.context.source.catalog.read(|view| {
            for place in places {
                let object = view.lookup(place.directory, &place.name)?;
                self.blocked.extend(object.map(|object| (object, place.clone())));
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A receiver did not remove a directory, because it holds something that it did not know of.
    pub(super) fn handle_not_removed(&mut self, object: ObjectId, place: Place, kind: FailureKind) -> bool {
        // What was in error before and is asked about again would be asked about for ever.
        if !self.context.source.may_protect() || self.context.failed.contains_key(&object) {
            return false;
        }
        match kind {
            // Whatever it is that a comparison finds there and cannot take away, it is not asked about for ever.
            FailureKind::Mismatch => {
                let tries = self.tries.entry(object).or_insert(0);
                *tries += 1;
                self.must_reconcile = true;
                *tries < REMOVE_TRIES
            }
            // Sockets and the like are in no listing.
            FailureKind::Unsupported => {
                self.stuck.insert(object);
                self.removes
                    .push_back(Removal::to_release(object, place, Kind::Directory));
                true
            }
            _ => false,
        }
    }

    fn judge(&mut self, tops: Vec<Removal>) -> Result<Judged, Ended> {
        self.note_went_along()?;
        let mut suspects = self.suspects(tops)?;
        let tops = note_twins(&mut suspects);
        let mut asked = HashSet::new();
        let mut allowance = Allowance::of_mirror(self.context.source.entries_ever()?);
        let mut seen = 0;
        while seen < suspects.len() {
            let open = |&at: &usize| suspects[at].below.is_some();
            let round: Vec<usize> = (seen..suspects.len()).filter(open).collect();
            seen = suspects.len();
            for ask in round.chunks(ASK_AT_A_TIME) {
                let numbers: Vec<_> = ask.iter().map(|&at| suspects[at].object).collect();
                if !numbers.iter().all(|number| asked.insert(*number)) {
                    return Err(Ended::Lost("the receiver's listings have no end".to_owned()));
                }
                let lost = |_| Ended::Lost("the link ended".to_owned());
                let message = ToReceiver::List(Directories(numbers));
                self.link.control().send(message).map_err(lost)?;
                for &at in ask {
                    let rows = receive_listing(self.link, &self.context.stop, &mut allowance)?;
                    self.list_suspects(&mut suspects, at, rows, &tops);
                }
            }
        }
        self.sentence(suspects)
    }

    fn suspects(&mut self, tops: Vec<Removal>) -> Result<Vec<Suspect>, Ended> {
        let source = &mut *self.context.source;
        let is_started = source.start.is_some();
        let (catalog, now) = (source.catalog.clone(), Instant::now());
        let suspects = catalog.read(|view| {
            let mut suspects = Vec::new();
            for top in tops {
                let Removal {
                    object,
                    was,
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
                    Some(vec![source.standing_of_extra(&parent, &place.name)])
                } else {
                    None
                };
                // What was left under such a number, and is gone here: the journal's record counts for it.
                let was_left = is_started && object.is_local() && !is_replaced;
                let is_loss = !was_left && !source.newcomers.includes(now, object);
                suspects.push(Suspect {
                    above: None,
                    twin: None,
                    object,
                    was: was.unwrap_or(object),
                    place,
                    kind,
                    is_replaced,
                    weight: u64::from(is_loss),
                    keeps_own: is_started && !is_replaced,
                    below,
                    stays,
                });
            }
            Ok(suspects)
        })?;
        Ok(suspects)
    }

    /// Adds what the receiver lists in a directory. One of `tops` that is in it is judged as a part of it.
    fn list_suspects(
        &mut self,
        suspects: &mut Vec<Suspect>,
        above: usize,
        rows: Vec<Row>,
        tops: &HashMap<ObjectId, usize>,
    ) {
        let Some(standings) = suspects[above].below.take() else {
            return;
        };
        let (directory, was, keeps_own) = {
            let above = &suspects[above];
            (above.object, above.was, above.keeps_own)
        };
        let now = Instant::now();
        for row in rows {
            let is_kept =
                (standings.iter()).any(|standing| fate_by(standing, &row.name, row.kind, true) == Fate::Kept);
            // What went from the source as well was the mirror's, whatever number it has by now.
            let went_along = self.went_along(was, &row.name, row.kind);
            let is_own = keeps_own && row.object.is_local() && went_along.is_none();
            let stays = is_kept || is_own;
            let below = (row.kind == Kind::Directory && !stays).then(|| {
                let inside = |standing| self.context.source.standing_of_extra(standing, &row.name);
                standings.iter().map(inside).collect()
            });
            let place = Place {
                directory,
                name: row.name,
            };
            if let Some(&top) = tops.get(&row.object).filter(|&&top| top != above) {
                found_below(&mut suspects[top], above, place, below);
                continue;
            }
            suspects.push(Suspect {
                above: Some(above),
                twin: None,
                object: row.object,
                was: went_along.unwrap_or(row.object),
                place,
                kind: row.kind,
                is_replaced: false,
                weight: u64::from(!self.context.source.newcomers.includes(now, row.object)),
                keeps_own,
                below,
                stays,
            });
        }
    }

    /// The number here of what stood at a place in a directory that is gone, and went with it.
    fn went_along(&self, directory: ObjectId, name: &Name, kind: Kind) -> Option<ObjectId> {
        let names = self.went_along.get(&directory)?;
        names.get(&(name.clone(), kind)).copied()
    }

    /// Whatever holds something that stays, stays.
    fn sentence(&self, mut suspects: Vec<Suspect>) -> Result<Judged, Ended> {
        let Some(order) = deepest_first(&suspects) else {
            return Err(Ended::Lost("the receiver's listings have no end".to_owned()));
        };
        let mut judged = Judged::default();
        for at in order {
            let suspect = &suspects[at];
            let is_stuck = self.stuck.contains(&suspect.object);
            let stays = suspect.stays || is_stuck || suspect.twin.is_some_and(|twin| suspects[twin].stays);
            suspects[at].stays = stays;
            let suspect = &suspects[at];
            if stays && suspect.is_replaced {
                judged.blocked.push(suspect.place.clone());
            }
            judged.at_risk += u64::from(!stays);
            if !stays || !suspect.object.is_local() {
                judged.removals.push(suspect.to_removal());
            }
            if stays && let Some(above) = suspect.above {
                suspects[above].stays = true;
            }
        }
        Ok(judged)
    }
}

/// A directory that moved before it went has a record for each place where the target may have it: it is listed and counted once.
/// The first of each.
fn note_twins(suspects: &mut [Suspect]) -> HashMap<ObjectId, usize> {
    let mut first = HashMap::new();
    for at in 0..suspects.len() {
        let Some(below) = suspects[at].below.take() else {
            continue;
        };
        let known = *first.entry(suspects[at].object).or_insert(at);
        if known != at {
            (suspects[at].twin, suspects[at].weight) = (Some(known), 0);
        }
        suspects[known].below.get_or_insert_default().extend(below);
    }
    first
}

/// One of the records that are judged was found in the directory of another: it stands there. What is in it may have been judged already,
/// by the rules of another place: then it stays.
fn found_below(top: &mut Suspect, above: usize, place: Place, below: Option<Vec<Standing>>) {
    (top.above, top.place) = (Some(above), place);
    match (&mut top.below, below) {
        (Some(open), Some(below)) => open.extend(below),
        (None, Some(below))
            if below
                .iter()
                .all(|standing| matches!(standing, Standing::Everything)) => {}
        _ => top.stays = true,
    }
}

/// What is in a directory before that, and one record of a directory before the others of it. None if directories are in each other.
fn deepest_first(suspects: &[Suspect]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..suspects.len()).rev().collect();
    let is_later =
        |suspect: &Suspect, at| suspect.above.is_none_or(|above| above < at) && suspect.twin.is_none();
    if (suspects.iter().enumerate()).all(|(at, suspect)| is_later(suspect, at)) {
        return Some(order);
    }
    let mut depths = vec![None; suspects.len()];
    for from in 0..suspects.len() {
        let (mut path, mut at) = (Vec::new(), Some(from));
        let mut depth = loop {
            let Some(next) = at else { break 0 };
            if let Some(known) = depths[next] {
                break known;
            }
            if path.len() > suspects.len() {
                return None;
            }
            path.push(next);
            at = suspects[next].above;
        };
        for next in path.into_iter().rev() {
            depth += 1;
            depths[next] = Some(depth);
        }
    }
    order.sort_by_key(|&at| (suspects[at].twin.is_some(), std::cmp::Reverse(depths[at])));
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(object: u64, above: Option<usize>) -> Suspect {
        Suspect {
            above,
            twin: None,
            object: ObjectId(object),
            was: ObjectId(object),
            place: Place {
                directory: ObjectId::ROOT,
                name: Name::new(*b"name").unwrap(),
            },
            kind: Kind::Directory,
            is_replaced: false,
            weight: 1,
            keeps_own: false,
            below: Some(vec![Standing::Everything]),
            stays: false,
        }
    }

    #[test]
    fn what_is_found_in_another_record_goes_before_it() {
        // The first record turned out to be in the second, and has something in it.
        let suspects = [suspect(5, Some(1)), suspect(6, None), suspect(7, Some(0))];
        assert_eq!(deepest_first(&suspects), Some(vec![2, 0, 1]));
        let mut twins = [suspect(5, None), suspect(5, None), suspect(7, Some(0))];
        note_twins(&mut twins);
        assert_eq!(deepest_first(&twins), Some(vec![2, 0, 1]));
        let in_each_other = [suspect(5, Some(1)), suspect(6, Some(0))];
        assert_eq!(deepest_first(&in_each_other), None);
    }

    #[test]
    fn a_directory_with_two_records_is_listed_and_counted_once() {
        let mut suspects = [suspect(5, None), suspect(6, None), suspect(5, None)];
        let tops = note_twins(&mut suspects);
        assert_eq!(tops, HashMap::from([(ObjectId(5), 0), (ObjectId(6), 1)]));
        let counted: Vec<_> = suspects.iter().map(|suspect| suspect.weight).collect();
        assert_eq!(counted, [1, 1, 0]);
        // By the rules of both places.
        let standings = |at: usize| suspects[at].below.as_ref().map(Vec::len);
        assert_eq!(
            (suspects[2].twin, standings(0), standings(2)),
            (Some(0), Some(2), None)
        );
    }
}
